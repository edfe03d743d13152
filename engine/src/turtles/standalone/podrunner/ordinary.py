# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of ordinary images: from a container of a Pod's spec to the bundle that crun starts.

An image is ordinary if it isn't one of those whose containers are forked from preloaded code
(:attr:`.config.Config.preload`).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from turtles.api.objects import Object
from turtles.standalone.files import read_json, remove_tree, write_json
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner import crun, host_programs, oci, privileges, probes, users
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import ContainerError, Prepared
from turtles.standalone.podrunner.crun import Bundle
from turtles.standalone.podrunner.image_config import ImageConfig
from turtles.standalone.podrunner.image_volumes import Image
from turtles.standalone.podrunner.seccomp import UNCONFINED, Filters, SeccompError
from turtles.standalone.podrunner.spec import Mount
from turtles.standalone.podrunner.users import User, UserError

_CONFIG_ERROR = "CreateContainerConfigError"
#: Kernel parameters that a kubelet lets any Pod set: "Safe and Unsafe Sysctls" in Kubernetes' documentation.
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


def is_ordinary(config: Config, container: Object) -> bool:
    """Say whether a container is to be started by crun."""
    return config.preload_of(container.get("image") or "") is None


def check(container: Object, pod_spec: Object) -> None:
    """Refuse what ordinary containers can't have, beside what no container can.

    :raises ContainerError: the text names the container, the field and what is possible.
    """
    name, context = container["name"], container.get("securityContext") or {}
    host_paths = {volume["name"] for volume in pod_spec.get("volumes") or [] if volume.get("hostPath") is not None}
    refused: list[tuple[str, bool]] = [
        ("hostUsers: false", pod_spec.get("hostUsers") is False),
        ("runtimeClassName", bool(pod_spec.get("runtimeClassName"))),
        ("securityContext.procMount Unmasked", context.get("procMount") == "Unmasked"),
        (
            "securityContext.appArmorProfile",
            (containers.security(container, pod_spec, "appArmorProfile") or {}).get("type", "Unconfined")
            != "Unconfined",
        ),
    ]
    for parameter in _sysctls(pod_spec):
        # Those of the network are the machine's where its network is the Pod's.
        harmless = parameter in _SAFE_SYSCTLS and not (pod_spec.get("hostNetwork") and parameter.startswith("net."))
        refused.append((f"securityContext.sysctls {parameter}", not harmless))
    for mount in container.get("volumeMounts") or []:
        where = f"volumeMounts {mount['mountPath']}"
        refused += [
            (f"{where} of a hostPath volume", mount["name"] in host_paths),
            (f"{where}: mountPropagation", mount.get("mountPropagation") not in (None, "None")),
            (f"{where}: recursiveReadOnly Enabled", mount.get("recursiveReadOnly") == "Enabled"),
            (f"{where}: a place in /proc or /sys", host_programs.covered(mount["mountPath"], ("/proc", "/sys"))),
        ]
    refused += [(field, True) for field in probes.unsupported(container)]
    for field, present in refused:
        if present:
            raise ContainerError(_CONFIG_ERROR, f"container {name}: {field} is not supported in standalone mode")


def _sysctls(pod_spec: Object) -> dict[str, str]:
    entries = (pod_spec.get("securityContext") or {}).get("sysctls") or []
    return {entry["name"].replace("/", "."): str(entry["value"]) for entry in entries}


def command_of(container: Object, image: ImageConfig) -> list[str]:
    """Return command and arguments: the container's, where it has none the image's.

    :raises ContainerError: neither has any.
    """
    command, args = container.get("command") or [], container.get("args") or []
    argv = [*command, *args] if command else [*image.entrypoint, *(args or image.cmd)]
    if not argv:
        raise ContainerError(
            "CreateContainerError", f"container {container['name']}: no command specified, and its image has none"
        )
    return argv


def user_of(pod: Object, container: Object, image: ImageConfig, content: Path) -> User:
    """Return whom a container's process runs as: what the Pod says, else what its image says.

    :param content: the image's files.
    :raises ContainerError: there is no such user, or it is root and must not be.
    """
    spec, metadata = pod["spec"], pod["metadata"]
    uid = containers.security(container, spec, "runAsUser")
    gid = containers.security(container, spec, "runAsGroup")
    wanted = image.user if uid is None else str(uid)
    if containers.security(container, spec, "runAsNonRoot"):
        whom = f'(pod: "{metadata["name"]}_{metadata["namespace"]}({metadata["uid"]})", container: {container["name"]})'
        if uid == 0:
            raise ContainerError(_CONFIG_ERROR, f"container's runAsUser breaks non-root policy {whom}")
        if uid is None and not users.is_number(wanted):
            text = f"image has non-numeric user ({wanted}), cannot verify user is non-root"
            raise ContainerError(_CONFIG_ERROR, f"container has runAsNonRoot and {text} {whom}")
        if uid is None and int(wanted.partition(":")[0] or 0) == 0:
            raise ContainerError(_CONFIG_ERROR, f"container has runAsNonRoot and image will run as root {whom}")
    try:
        user = users.lookup(content, wanted)
    except UserError as error:
        raise ContainerError("CreateContainerError", f"container {container['name']}: {error}") from error
    context = spec.get("securityContext") or {}
    own = user.groups if context.get("supplementalGroupsPolicy") != "Strict" else ()
    groups = {*own, *(context.get("supplementalGroups") or []), *([context["fsGroup"]] if "fsGroup" in context else [])}
    return User(user.uid, user.gid if gid is None else gid, tuple(sorted(groups)), user.home)


def capabilities_of(container: Object) -> list[str]:
    """Return the capabilities of a container.

    :raises ContainerError: there is no such capability.
    """
    wanted = (container.get("securityContext") or {}).get("capabilities") or {}
    try:
        return privileges.capability_set(wanted.get("add") or [], wanted.get("drop") or [], oci.DEFAULT_CAPABILITIES)
    except ValueError as error:
        raise ContainerError(_CONFIG_ERROR, f"container {container['name']}: {error}") from error


def _process(pod: Object, container: Object, image: Image, declared: dict[str, str]) -> oci.Process:
    """Return the first process of a container.

    :param declared: variables that the container declares.
    """
    user = user_of(pod, container, image.config, image.content)
    has_terminal = bool(container.get("tty"))
    of_image = dict(entry.partition("=")[::2] for entry in image.config.env)
    base = {"PATH": containers.PATH, "HOME": user.home, "HOSTNAME": containers.hostname(pod)}
    base |= {"TERM": "xterm"} if has_terminal else {}
    return oci.Process(
        args=[containers.expand(word, declared) for word in command_of(container, image.config)],
        env=base | of_image | declared,
        cwd=container.get("workingDir") or image.config.working_dir or "/",
        uid=user.uid,
        gid=user.gid,
        groups=list(user.groups),
        capabilities=capabilities_of(container),
        terminal=has_terminal,
        nofile=privileges.most_files(),
    )


class Bundles:
    """Makes the bundles of ordinary containers: ``<run dir>/bundles/<uid>/<name>``, for root only.

    :param fetch: returns a Secret or ConfigMap of a Pod's namespace by kind and name.
    """

    def __init__(self, config: Config, fetch: Callable[[Object, str, str], Object | None]) -> None:
        self._config, self._fetch = config, fetch
        self._state = config.run_dir / "crun"
        self._filters = Filters()
        for path in (self._state, config.run_dir / "bundles"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)

    def make(self, pod: Object, container: Object, image: Image, attempt: int, prepared: Prepared) -> Bundle:
        """Write a container's bundle, for a start of it.

        :raises ContainerError: the spec asks for something impossible.
        """
        spec, name, uid = pod["spec"], container["name"], pod["metadata"]["uid"]
        if not crun.is_installed():
            text = f"container {name}: the program crun is not installed: install the package crun"
            raise ContainerError("CreateContainerError", text)
        declared = containers.declared_environment(
            pod, container, lambda kind, key: self._fetch(pod, kind, key), prepared.addresses
        )
        process = _process(pod, container, image, declared)
        folder = self._folder(uid, name)
        remove_tree(folder)
        folder.mkdir(parents=True, mode=0o700)
        mounts, links = _linked(containers.volume_mounts(container, spec, prepared.volumes, declared), folder)
        own = {mount.target for mount in mounts}
        mounts += [mount for mount in prepared.mounts(container, _FILES) if mount.target not in own]
        devices = containers.devices(self._config, container, prepared.volumes)
        configuration = oci.Container(
            process=process,
            hostname=containers.hostname(pod),
            netns=prepared.netns,
            mounts=mounts,
            devices={target: oci.number_of(Path(source)) for target, source in devices.items()},
            read_only_root=bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem")),
            seccomp=self._filter(container, spec, process),
            sysctls=_sysctls(spec),
        )
        write_json(folder / "config.json", oci.config_of(configuration))
        self.forget(uid, name)
        # Each start begins with the image's files.
        layer = prepared.directory / "layer"
        remove_tree(layer)
        layer.mkdir()
        return Bundle(
            ident=f"{uid}-{name}-{attempt}",
            state=str(self._state),
            folder=str(folder),
            content=str(image.content),
            layer=str(layer),
            links=links,
            cgroup_procs=prepared.cgroup_procs,
            oom_score_adj=prepared.oom_score_adj,
            terminal=process.terminal,
            stdin=bool(container.get("stdin")),
        )

    def config(self, uid: str, name: str) -> Object | None:
        """Return the config.json with which a container was started; None if that was not by crun."""
        return read_json(self._folder(uid, name) / "config.json")

    def forget(self, uid: str, name: str) -> None:
        """Let crun forget the earlier starts of a container."""
        crun.delete_all(self._state, f"{uid}-{name}-")

    def remove(self, uid: str) -> None:
        """Remove the bundles of a Pod, whose processes have ended."""
        crun.delete_all(self._state, f"{uid}-")
        remove_tree(self._config.run_dir / "bundles" / uid)

    def _folder(self, uid: str, name: str) -> Path:
        return self._config.run_dir / "bundles" / uid / name

    def _filter(self, container: Object, spec: Object, process: oci.Process) -> bytes | None:
        if containers.seccomp_profile(container, spec) == UNCONFINED:
            return None
        try:
            return self._filters.get(process.effective)
        except SeccompError as error:
            raise ContainerError("CreateContainerError", f"container {container['name']}: {error}") from error


#: Files of /etc that the podrunner writes for each Pod.
_FILES = ("hosts", "resolv.conf", "hostname")


def _linked(mounts: list[Mount], folder: Path) -> tuple[list[Mount], dict[str, str]]:
    """Return mounts of which those that must not follow links come from the bundle, and what to mount there for it."""
    result, links = [], {}
    for number, mount in enumerate(mounts):
        if mount.no_links:
            place = folder / f"part-{number}"
            if Path(mount.source).is_dir():
                place.mkdir()
            else:
                place.touch()
            links[str(place)] = mount.source
            mount = dataclasses.replace(mount, source=str(place), no_links=False)
        result.append(mount)
    return result, links
