# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-standalone podrunner``: does what kubelet and container runtime do on a cluster."""

import argparse
import hashlib
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import turtles
from turtles.command import Command
from turtles.errors import ConfigurationError
from turtles.kube.client import ApiError, Client
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.resources import NODE, POD
from turtles.standalone.files import read_json
from turtles.standalone.podrunner import service_table
from turtles.standalone.podrunner.cni import CNIError
from turtles.standalone.podrunner.config import Config, load
from turtles.standalone.podrunner.images import ImageLimits, ImageStore
from turtles.standalone.podrunner.node import NodeKeeper, offered_devices
from turtles.standalone.podrunner.prepare import prepare
from turtles.standalone.podrunner.runner import Runner
from turtles.standalone.podrunner.streams import StreamServer
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError, alive
from turtles.standalone.policy.enforcer import Policies
from turtles.standalone.proxy.proxy import Proxy

log = logging.getLogger(__name__)

_HOUSEKEEPING = 10.0


def fingerprint(config: Config) -> str:
    """Return a hash of what the forking process depends on: our code, Python, what is preloaded."""
    digest = hashlib.sha256(f"{turtles.__version__} {sys.version} {sys.prefix} {config.preload}".encode())
    # The content, which takes 10 ms: files can keep their time and size when they change (packages of a fixed date),
    # and get another time when they don't.
    for path in sorted(Path(turtles.__file__).parent.rglob("*.py")):
        digest.update(f"{path} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


class Podrunner:
    """The Pod runner of one node, with all its parts."""

    def __init__(self, config: Config) -> None:
        for path in (config.root_dir, config.pods_dir, config.run_dir / "root", config.run_dir / "netns"):
            path.mkdir(parents=True, exist_ok=True)
        self._config = config
        self._client = Client.from_kubeconfig(config.kubeconfig)
        entry_points = [name for preload in config.preload for name in (preload.entry_point, preload.prepare) if name]
        self._zygote = ZygoteClient(
            config.zygote_socket, config.root_dir / "zygote.log", fingerprint(config), entry_points
        )
        self._images = ImageStore(
            config.images_dir,
            config.allowed_image_dirs,
            config.insecure_registries,
            ImageLimits(config.max_image_bytes, config.max_image_apparent_bytes, seconds=config.image_pull_timeout),
        )
        self._recorder = Recorder(self._client, "podrunner", config.node_name)
        self._keeper = NodeKeeper(self._client, config)
        # Of all nodes: network policies name the others' Pods as well.
        self._pods = Informer(self._client, POD)
        self._node = Informer(self._client, NODE, field_selector=f"metadata.name={config.node_name}")
        self._policies = Policies(self._client, self._pods, self._recorder, config.policy_table)
        self._runner = Runner(
            self._client,
            config,
            self._pods,
            self._zygote,
            self._images,
            self._recorder,
            self._keeper.address,
            self._policies,
        )
        table = service_table.served(config)
        self._proxy = Proxy(self._client, *table) if table is not None else None
        self._streams = StreamServer(config, self._pods, self._zygote, self._runner.commands)
        self._stopped = threading.Event()
        self._prepared: frozenset[str] = frozenset()

    def run(self) -> None:
        """Run until :meth:`stop`; Pods outlive it.

        :raises ZygoteError: the preloaded code can't be loaded.
        """
        fresh = self._zygote.ensure()
        self._pods.start()
        self._node.start()
        if fresh:
            prepare(self._config, self._zygote, "start", offered_devices(self._config))
        self._prepared = frozenset(offered_devices(self._config))
        while not self._stopped.is_set() and not wait_synced([self._pods, self._node], 0.5):
            pass
        if self._stopped.is_set():
            return
        self._register()
        self._policies.start()
        self._keeper.start()
        self._runner.start()
        self._collect()
        self._streams.start()
        if self._proxy is not None:
            self._proxy.start()
        self._node.add_handler(self._node_changed)
        log.info("ready", extra={"node": self._config.node_name, "address": self._keeper.address})
        while not self._stopped.wait(_HOUSEKEEPING):
            self._keep_house()

    def stop(self) -> None:
        """Let :meth:`run` return."""
        self._stopped.set()

    def close(self) -> None:
        """Release everything except Pods."""
        self._streams.stop()
        self._runner.stop()
        self._policies.stop()
        self._keeper.stop()
        if self._proxy is not None:
            self._proxy.stop()
        for informer in (self._pods, self._node):
            informer.stop()
        self._recorder.close()

    def _register(self) -> None:
        while not self._stopped.is_set():
            try:
                self._keeper.register(True, "podrunner is posting ready status")
                return
            except ApiError as error:
                log.warning("the node is not registered yet", extra={"error": str(error)})
                self._stopped.wait(1.0)

    def _node_changed(self, _old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """Warm the caches again when a device is offered that was not offered before, such as a working KVM."""
        if new is None:
            self._register()
            return
        allocatable = (new.get("status") or {}).get("allocatable") or {}
        offered = frozenset(name for name in self._config.devices if allocatable.get(name) not in (None, "0"))
        if not offered <= self._prepared:
            self._prepared |= offered
            run = f"devices-{'-'.join(sorted(offered))}"
            threading.Thread(
                target=prepare, args=(self._config, self._zygote, run, offered), name="prepare", daemon=True
            ).start()

    def _collect(self) -> None:
        """Write the logs of containers whose forking process is gone."""
        for path in self._config.pods_dir.glob("*/containers/*/state.json"):
            state = read_json(path) or {}
            parent = state.get("parent")
            if parent is not None and alive(state) and not alive(parent):
                try:
                    self._zygote.collect(path.parent)
                except ZygoteError as error:
                    log.warning("a log can't be written", extra={"container": str(path.parent), "error": str(error)})

    def _keep_house(self) -> None:
        try:
            if self._zygote.ensure():
                self._collect()
        except ZygoteError:
            log.exception("the forking process is down")
        self._images.kept.collect(self._runner.images_in_use())


def main(argv: list[str] | None = None) -> int:
    """Run the podrunner: ``--config FILE``; SIGTERM ends it, not its Pods."""
    command = Command("virt-standalone podrunner", "Runs the node's Pods.", component="podrunner")
    command.parser.add_argument("--config", required=True, help="configuration file (YAML)")
    return command.run(_run, argv, signals=False)


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    try:
        podrunner = Podrunner(load(options.config))
    except CNIError as error:
        raise ConfigurationError(str(error)) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: podrunner.stop())
    try:
        podrunner.run()
    except ZygoteError as error:
        log.error("%s", error)
        return 1
    finally:
        podrunner.close()
    log.info("stopped", extra={"seconds": round(time.monotonic() - started, 1)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
