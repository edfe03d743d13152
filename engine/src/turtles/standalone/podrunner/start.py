# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the containers of Pods."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from turtles.api.objects import Object
from turtles.log import about
from turtles.standalone import attachments
from turtles.standalone.files import write_text
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner import names, network, ordinary, restart, status
from turtles.standalone.podrunner.cgroup import Cgroups
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import Prepared
from turtles.standalone.podrunner.image_volumes import ImageVolumes
from turtles.standalone.podrunner.network import Networks
from turtles.standalone.podrunner.node import memory_total
from turtles.standalone.podrunner.ordinary import Bundles
from turtles.standalone.podrunner.poddir import Observed, PodDir, seconds_of
from turtles.standalone.podrunner.volumes import Volumes
from turtles.standalone.podrunner.zygote_client import ZygoteClient

log = logging.getLogger(__name__)


class Starter:
    """Starts containers, each with all that it needs: network, volumes, files, cgroup.

    :param fetch: returns a Secret or ConfigMap of a Pod's namespace by kind and name.
    :param networks: attaches Pods to their networks.
    :param address: the node's address, which Pods in the node's network have.
    """

    def __init__(
        self,
        config: Config,
        zygote: ZygoteClient,
        volumes: Volumes,
        images: ImageVolumes,
        bundles: Bundles,
        cgroups: Cgroups,
        fetch: Callable[[Object, str, str], Object | None],
        networks: Networks,
        address: str,
    ) -> None:
        self._networks, self._attaching = networks, ThreadPoolExecutor(config.workers, "network")
        self._config, self._zygote, self._fetch, self._address = config, zygote, fetch, address
        self._volumes, self._images, self._bundles, self._cgroups = volumes, images, bundles, cgroups
        #: When (monotonic) a container that ended may start again: by uid, and key of the start that ended.
        self._due: dict[str, dict[str, float]] = {}

    def stop(self) -> None:
        """Stop starting containers."""
        self._attaching.shutdown(wait=False, cancel_futures=True)

    def forget(self, uid: str) -> None:
        """Forget a Pod."""
        self._due.pop(uid, None)

    def pause(self, container: Object, directory: PodDir, observed: Observed) -> float:
        """Return the seconds until a container may start; 0 if it never ran."""
        if observed.exit is None:
            return 0.0
        pause = restart.pause(observed.delay, seconds_of(observed.exit))
        due = self._due.setdefault(directory.uid, {}).setdefault(
            directory.key(container["name"], observed.attempt),
            time.monotonic() + _rest_of(pause, observed.exit["finishedAt"]),
        )
        return max(0.0, due - time.monotonic())

    def start(self, pod: Object, container: Object, directory: PodDir, observed: Observed) -> None:
        """Start a container.

        :raises ContainerError: it asks for what isn't possible here.
        :raises VolumeError: a volume isn't there.
        :raises Waiting: an image is being pulled.
        :raises CNIError: the Pod gets no network.
        :raises ZygoteError: the container was not started; if it left an exit code, starting it failed.
        """
        name, spec = container["name"], pod["spec"]
        own = directory.container(name)
        own.mkdir(parents=True, exist_ok=True)
        attempt = observed.attempt + (observed.exit is not None)
        image = None
        if ordinary.is_ordinary(self._config, container):
            image = self._images.of_container(pod, container, attempt, directory)
        # While volumes are prepared.
        fresh = not directory.has_started()
        attaching = self._attaching.submit(self._networks.set_up, pod, directory, fresh=fresh)
        try:
            volumes = self._volumes.prepare(pod, directory.path, self._images.provide(pod, directory))
        finally:
            attached = attaching.result()
        if fresh:
            log.info("network and volumes ready", extra=about("pod", pod))
        self._write_etc(pod, container, directory, attached)
        prepared = Prepared(
            directory=own,
            files_dir=directory.path / "etc",
            volumes=volumes,
            addresses=_addresses(container, attachments.addresses(attached)),
            netns=None if spec.get("hostNetwork") else str(network.namespace_path(self._config, directory.uid)),
            cgroup_procs=self._group(spec, container, directory),
            oom_score_adj=status.oom_score_adj(spec, container, memory_total()),
        )
        if observed.exit is not None:
            by_log = containers.says_log(container, observed.exit["exitCode"], image is None)
            directory.next_attempt(name, observed, directory.message(name, by_log))
        log_file = own / "termination-log"
        log_file.write_bytes(b"")
        log_file.chmod(0o666)
        key = directory.key(name, attempt)
        if image is not None:
            self._zygote.launch(key, own, self._bundles.make(pod, container, image, attempt, prepared))
            return
        environment = containers.environment(pod, container, lambda kind, key: self._fetch(pod, kind, key))
        process = containers.spec_of(self._config, pod, container, environment | prepared.addresses, prepared)
        command = Path((container.get("command") or [process.entry_point])[0]).name
        self._zygote.start(key, own, command, process)

    def _group(self, spec: Object, container: Object, directory: PodDir) -> list[str]:
        """Make the cgroup of a container; that of the Pod will do where all are preloaded ones, which share it."""
        procs = self._cgroups.create(directory.uid, containers.limits(spec, self._config))
        every = [*(spec.get("initContainers") or []), *spec["containers"]]
        if not any(ordinary.is_ordinary(self._config, one) for one in every):
            return procs
        return self._cgroups.create_inner(directory.uid, container["name"], containers.own_limits(container))

    def _write_etc(self, pod: Object, container: Object, directory: PodDir, result: Object) -> None:
        folder = directory.path / "etc"
        folder.mkdir(exist_ok=True)
        ip = next(iter(attachments.addresses(result)), "" if not pod["spec"].get("hostNetwork") else self._address)
        systemd = Path("/run/systemd/resolve/resolv.conf")
        host = systemd if systemd.exists() else Path("/etc/resolv.conf")
        of_host = host.read_text() if host.exists() else ""
        uid = containers.security(container, pod["spec"], "runAsUser") or 0
        gid = containers.security(container, pod["spec"], "runAsGroup") or 0
        passwd, group = containers.passwd_files(uid, gid)
        for name, text in (
            ("hosts", names.hosts_file(pod, self._config, ip)),
            ("hostname", containers.hostname(pod) + "\n"),
            ("resolv.conf", names.resolv_conf(pod, self._config, of_host, result.get("dns") or {})),
            ("passwd", passwd),
            ("group", group),
        ):
            write_text(folder / name, text, 0o644)


def _addresses(container: Object, addresses: list[str]) -> dict[str, str]:
    """Return the variables of a container that hold the Pod's addresses, which its status doesn't have yet."""
    variables = {}
    for entry in container.get("env") or []:
        path = ((entry.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        if path == "status.podIP":
            variables[entry["name"]] = ",".join(addresses[:1])
        elif path == "status.podIPs":
            variables[entry["name"]] = ",".join(addresses)
    return variables


def _rest_of(pause: float, since: str) -> float:
    """Return what is left of a pause, by the stamp at its beginning: never more than all, however clocks are set."""
    began = datetime.strptime(since[:19] + "Z", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return min(pause, max(0.0, pause - (datetime.now(UTC) - began).total_seconds()))
