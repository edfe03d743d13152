# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the containers of Pods."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from turtles.api.objects import Object
from turtles.standalone.podrunner import cni, network, status
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner.cgroup import Cgroups
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.files import write_text
from turtles.standalone.podrunner.image_volumes import ImageVolumes
from turtles.standalone.podrunner.node import memory_total
from turtles.standalone.podrunner.poddir import Observed, PodDir
from turtles.standalone.podrunner.volumes import Volumes
from turtles.standalone.podrunner.zygote_client import ZygoteClient

#: Pause before a container's first restart, which doubles with each further one, and the longest one; seconds.
_BACKOFF = (10.0, 300.0)


class Starter:
    """Starts containers, each with all that it needs: network, volumes, files, cgroup.

    :param fetch: returns a Secret or ConfigMap of a Pod's namespace by kind and name.
    :param address: the node's address, which Pods in the node's network have.
    """

    def __init__(
        self,
        config: Config,
        zygote: ZygoteClient,
        volumes: Volumes,
        images: ImageVolumes,
        cgroups: Cgroups,
        fetch: Callable[[Object, str, str], Object | None],
        address: str,
    ) -> None:
        self._config, self._zygote, self._fetch, self._address = config, zygote, fetch, address
        self._volumes, self._images, self._cgroups = volumes, images, cgroups
        self._networks = ThreadPoolExecutor(config.workers, "network")
        #: When (monotonic) a container that ended may start again: by uid, and key of the start that ended.
        self._due: dict[str, dict[str, float]] = {}

    def stop(self) -> None:
        """Stop starting containers."""
        self._networks.shutdown(wait=False, cancel_futures=True)

    def forget(self, uid: str) -> None:
        """Forget a Pod."""
        self._due.pop(uid, None)

    def pause(self, container: Object, directory: PodDir, observed: Observed) -> float:
        """Return the seconds until a container may start; 0 if it never ran."""
        if observed.exit is None:
            return 0.0
        pause = min(_BACKOFF[1], _BACKOFF[0] * 2**observed.attempt)
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
        name = container["name"]
        own = directory.container(name)
        own.mkdir(parents=True, exist_ok=True)
        attempt = directory.next_attempt(name, observed) if observed.exit is not None else observed.attempt
        # While volumes are prepared.
        attaching = self._networks.submit(network.set_up, self._config, pod, directory)
        try:
            volumes = self._volumes.prepare(pod, directory.path, self._images.provide(pod, directory))
            environment = containers.environment(pod, container, lambda kind, key: self._fetch(pod, kind, key))
        finally:
            attached = attaching.result()
        environment |= _addresses(container, cni.addresses(attached))
        self._write_etc(pod, container, directory, attached)
        log_file = own / "termination-log"
        log_file.write_bytes(b"")
        log_file.chmod(0o666)
        spec = containers.spec_of(
            self._config,
            pod,
            container,
            directory=own,
            files_dir=directory.path / "etc",
            volumes=volumes,
            env=environment,
            netns=None if pod["spec"].get("hostNetwork") else network.namespace_path(self._config, directory.uid),
            cgroup_procs=self._cgroups.create(directory.uid, containers.limits(pod["spec"], self._config)),
            oom_score_adj=status.oom_score_adj(pod["spec"], container, memory_total()),
        )
        command = Path((container.get("command") or [spec.entry_point])[0]).name
        self._zygote.start(directory.key(name, attempt), own, command, spec)

    def _write_etc(self, pod: Object, container: Object, directory: PodDir, result: Object) -> None:
        folder = directory.path / "etc"
        folder.mkdir(exist_ok=True)
        ip = next(iter(cni.addresses(result)), "" if not pod["spec"].get("hostNetwork") else self._address)
        systemd = Path("/run/systemd/resolve/resolv.conf")
        host = systemd if systemd.exists() else Path("/etc/resolv.conf")
        uid = containers.security(container, pod["spec"], "runAsUser") or 0
        gid = containers.security(container, pod["spec"], "runAsGroup") or 0
        passwd, group = containers.passwd_files(uid, gid)
        for name, text in (
            ("hosts", containers.hosts_file(pod, ip)),
            ("hostname", containers.hostname(pod) + "\n"),
            (
                "resolv.conf",
                containers.resolv_conf(pod, host.read_text() if host.exists() else "", result.get("dns") or {}),
            ),
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
