# SPDX-License-Identifier: GPL-3.0-or-later
"""From a container of a Pod's spec to what starts its process: pure, except for reading Secrets and ConfigMaps."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from turtles.api.objects import Object
from turtles.api.quantity import parse
from turtles.standalone.podrunner import host_programs, privileges
from turtles.standalone.podrunner.cgroup import Limits
from turtles.standalone.podrunner.config import QEMU, Config
from turtles.standalone.podrunner.seccomp import RUNTIME_DEFAULT, UNCONFINED
from turtles.standalone.podrunner.spec import Mount, Spec
from turtles.standalone.podrunner.volume_files import VolumeError, content, field, sub_path
from turtles.standalone.podrunner.volumes import WRITTEN


@dataclass(frozen=True)
class Prepared:
    """What is ready for a start of a container.

    :param directory: the container's own directory, with its termination-log.
    :param files_dir: where hosts, resolv.conf, passwd, group and hostname are.
    :param volumes: the Pod's volumes, by name.
    :param addresses: variables with the Pod's addresses, which its status doesn't have yet.
    :param netns: the Pod's network namespace; None if it uses the node's network.
    :param cgroup_procs: files that put a process into the container's control groups.
    """

    directory: Path
    files_dir: Path
    volumes: dict[str, Path]
    addresses: dict[str, str]
    netns: str | None
    cgroup_procs: list[str]
    oom_score_adj: int

    def mounts(self, container: Object, files: Iterable[str]) -> list[Mount]:
        """Return the mounts that each container has: these files in /etc, and its termination message's."""
        message = container.get("terminationMessagePath") or "/dev/termination-log"
        return [
            *(Mount(str(self.files_dir / file), f"/etc/{file}", True) for file in files),
            Mount(str(self.directory / "termination-log"), message),
        ]


class ContainerError(Exception):
    """A container can't be run as its spec is; ``reason`` is its waiting state's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check(container: Object, pod_spec: Object) -> None:
    """Refuse what standalone mode can't run.

    :raises ContainerError: the text names the container, the field and what is possible.
    """
    name = container["name"]
    if place := _nul(pod_spec, "spec"):
        raise ContainerError(
            "CreateContainerConfigError",
            f"{place} has a NUL character, which paths, arguments and variables of programs can't have",
        )
    if (container.get("securityContext") or {}).get("privileged"):
        raise ContainerError(
            "CreateContainerConfigError",
            f"container {name}: securityContext.privileged is not supported in standalone mode",
        )
    if any(pod_spec.get(key) for key in ("hostPID", "hostIPC", "shareProcessNamespace")):
        raise ContainerError(
            "CreateContainerConfigError",
            "hostPID, hostIPC and shareProcessNamespace are not supported in standalone mode",
        )
    seccomp_profile(container, pod_spec)


def _nul(value: Any, place: str) -> str:
    """Return the place of the first text with a NUL character; nothing if there is none."""
    if isinstance(value, str):
        return place if "\0" in value else ""
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inner = ((f"{place}.{key}", one) for key, one in value.items())
    elif isinstance(value, list):
        inner = ((f"{place}[{index}]", one) for index, one in enumerate(value))
    return next(filter(None, (_nul(one, where) for where, one in inner)), "")


def check_preloaded(container: Object, pod_spec: Object) -> None:
    """Refuse what a container of a preloaded image can't have.

    :raises ContainerError: as of :func:`check`.
    """
    if security(container, pod_spec, "runAsNonRoot") and not security(container, pod_spec, "runAsUser"):
        raise ContainerError(
            "CreateContainerConfigError",
            f"container {container['name']} has runAsNonRoot and would run as root: set runAsUser",
        )


def says_log(container: Object, exit_code: int, preloaded: bool) -> bool:
    """Say whether the last lines of a container's log are its termination message if it left no other.

    For those of preloaded images they always are: an exception is in them.
    """
    return exit_code != 0 and (preloaded or container.get("terminationMessagePolicy") == "FallbackToLogsOnError")


def security(container: Object, pod_spec: Object, key: str) -> Any:
    """Return a field of the container's securityContext, or else of the Pod's."""
    own = (container.get("securityContext") or {}).get(key)
    return own if own is not None else (pod_spec.get("securityContext") or {}).get(key)


def seccomp_profile(container: Object, pod_spec: Object) -> str:
    """Return the type of a container's seccomp profile: its own, else the Pod's, else RuntimeDefault.

    The last is what a kubelet does with ``seccompDefault: true``: protection doesn't have to be requested.

    :raises ContainerError: the profile is not supported.
    """
    profile = security(container, pod_spec, "seccompProfile") or {}
    kind = profile.get("type") or RUNTIME_DEFAULT
    if kind not in (RUNTIME_DEFAULT, UNCONFINED):
        raise ContainerError(
            "CreateContainerError",
            f"container {container['name']}: securityContext.seccompProfile.type {kind} is not supported in standalone "
            f"mode: use {RUNTIME_DEFAULT} or {UNCONFINED}",
        )
    return str(kind)


def limits(pod_spec: Object, config: Config) -> Limits:
    """Return the limits of a Pod's cgroup: what its containers may use at the same time, none where one has none."""
    init = pod_spec.get("initContainers") or []
    lasting = [*(pod_spec.get("containers") or []), *(one for one in init if one.get("restartPolicy") == "Always")]
    alone = [own_limits(one) for one in init if one.get("restartPolicy") != "Always"]
    usual = [own_limits(one) for one in lasting]
    pids = None if config.pod_pids_limit == -1 else config.pod_pids_limit
    return Limits(
        max([sum(one.cpu_request for one in usual), *(one.cpu_request for one in alone)]),
        _largest([one.cpu_limit for one in usual], [one.cpu_limit for one in alone]),
        _largest([one.memory_limit for one in usual], [one.memory_limit for one in alone]),
        pids,
    )


def own_limits(container: Object) -> Limits:
    """Return the limits of a container alone."""
    resources = container.get("resources") or {}
    maximum = resources.get("limits") or {}
    wanted = maximum | (resources.get("requests") or {})
    return Limits(
        int(parse(wanted.get("cpu", 0)) * 1000),
        int(parse(maximum["cpu"]) * 1000) if "cpu" in maximum else None,
        int(parse(maximum["memory"])) if "memory" in maximum else None,
    )


def _largest(together: list[int | None], alone: list[int | None]) -> int | None:
    """Return the larger of a sum and the largest; None if one of all has no limit."""
    known = [value for value in together if value is not None]
    others = [value for value in alone if value is not None]
    if len(known) < len(together) or len(others) < len(alone):
        return None
    return max([sum(known), *others])


def devices(config: Config, container: Object, volumes: Mapping[str, Path]) -> dict[str, str]:
    """Return the device files that a container's resource limits and its ``volumeDevices`` ask for, by where it has
    them.

    :raises ContainerError: a volume is missing, or is none that can be a device.
    """
    wanted = (container.get("resources") or {}).get("limits") or {}
    found = {
        str(path): str(path) for name, path in config.devices.items() if name in wanted and parse(wanted[name]) > 0
    }
    for device in container.get("volumeDevices") or []:
        volume = device["name"]
        if volume not in volumes or not volumes[volume].is_block_device():
            raise ContainerError(
                "CreateContainerConfigError",
                f"container {container['name']}: volumeDevices {volume} is no claim with volumeMode Block; use "
                "volumeMounts",
            )
        path = os.path.normpath(device["devicePath"])
        if not path.startswith("/dev/"):
            # Nowhere else is a device one
            raise ContainerError(
                "CreateContainerConfigError",
                f"container {container['name']}: volumeDevices {volume}: devicePath {device['devicePath']} is outside "
                "/dev, which is not possible in standalone mode",
            )
        found[path] = str(volumes[volume])
    return found


#: Where programs are looked for if nobody says it.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(pod: Object, container: Object, fetch: Callable[[str, str], Object | None]) -> dict[str, str]:
    """Return the environment of a container of a preloaded image. It finds the engine's own commands.

    :param fetch: gives a Secret or ConfigMap by kind and name, None if there is none.
    :raises ContainerError: a referenced object or key doesn't exist.
    """
    return {"PATH": f"{PATH}:{sys.prefix}/bin", "HOME": "/", "HOSTNAME": hostname(pod)} | declared_environment(
        pod, container, fetch
    )


def declared_environment(
    pod: Object, container: Object, fetch: Callable[[str, str], Object | None], known: Mapping[str, str] = {}
) -> dict[str, str]:
    """Return the variables that a container's spec declares (``env``, ``envFrom``); as :func:`environment`.

    :param known: variables whose value is known better, by name: what the Pod's status doesn't say yet.
    """
    result: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        kind = "Secret" if "secretRef" in source else "ConfigMap"
        reference = source.get("secretRef") or source.get("configMapRef") or {}
        obj = _fetch(fetch, kind, reference)
        for key, value in content(obj).items() if obj else ():
            result[source.get("prefix", "") + key] = value.decode(errors="replace")
    for entry in container.get("env") or []:
        origin = entry.get("valueFrom")
        if entry["name"] in known:
            text: str | None = known[entry["name"]]
        elif origin is None:
            text = expand(entry.get("value") or "", result)
        else:
            text = _value(pod, container, origin, fetch)
        if text is not None:
            result[entry["name"]] = text
    return result


def _value(pod: Object, container: Object, origin: Object, fetch: Callable[[str, str], Object | None]) -> str | None:
    if "fieldRef" in origin:
        try:
            return field(pod, origin["fieldRef"]["fieldPath"])
        except VolumeError as error:
            raise ContainerError(error.reason, str(error)) from error
    if "resourceFieldRef" in origin:
        part, _, name = origin["resourceFieldRef"]["resource"].partition(".")
        value = parse(((container.get("resources") or {}).get(part) or {}).get(name, 0))
        return str(-(-value // parse(origin["resourceFieldRef"].get("divisor") or 1)))
    kind = "Secret" if "secretKeyRef" in origin else "ConfigMap"
    reference = origin.get("secretKeyRef") or origin.get("configMapKeyRef") or {}
    obj = _fetch(fetch, kind, reference)
    data = content(obj) if obj else {}
    if reference.get("key") not in data:
        if reference.get("optional"):
            return None
        raise ContainerError(
            "CreateContainerConfigError", f"couldn't find key {reference.get('key')} in {kind} {reference.get('name')}"
        )
    return data[reference["key"]].decode(errors="replace")


def _fetch(fetch: Callable[[str, str], Object | None], kind: str, reference: Object) -> Object | None:
    obj = fetch(kind, reference.get("name") or "")
    if obj is None and not reference.get("optional"):
        raise ContainerError("CreateContainerConfigError", f"{kind} {reference.get('name')!r} not found")
    return obj


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace $(NAME) by earlier variables; $$ is a dollar sign (Kubernetes: dependent environment variables)."""
    return re.sub(r"\$(\$|\(([^)]+)\))", lambda match: "$" if match[1] == "$" else known.get(match[2], match[0]), text)


def hostname(pod: Object) -> str:
    """Return the host name seen in a Pod."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def passwd_files(uid: int, gid: int) -> tuple[str, str]:
    """Return /etc/passwd and /etc/group of a container: root, nobody and the user it runs as."""
    users = {0: "root:x:0:0:root:/root:/bin/sh", 65534: "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin"}
    groups = {0: "root:x:0:", 5: "tty:x:5:", 65534: "nogroup:x:65534:"}
    name = "qemu" if uid == QEMU else f"user{uid}"
    users.setdefault(uid, f"{name}:x:{uid}:{gid}:{name}:/:/usr/sbin/nologin")
    groups.setdefault(gid, f"{'qemu' if gid == QEMU else f'group{gid}'}:x:{gid}:")
    return "\n".join(users.values()) + "\n", "\n".join(groups.values()) + "\n"


#: Nothing of it changes while this process runs.
_visible_paths = cache(host_programs.visible_paths)


def host_view(config: Config) -> tuple[list[str], list[str]]:
    """Return which paths of the host containers see, and which directories below those they don't."""
    shown = _visible_paths(tuple(str(path) for path in config.visible_paths))
    secret = {config.kubeconfig.parent, config.root_dir, config.images_dir, config.run_dir, *config.masked_paths}
    return shown, sorted(str(path) for path in secret if host_programs.covered(str(path), shown))


def spec_of(config: Config, pod: Object, container: Object, env: dict[str, str], prepared: Prepared) -> Spec:
    """Return what the process of a preloaded image's container is started with.

    :raises ContainerError: the spec asks for something impossible.
    """
    name, pod_spec = container["name"], pod["spec"]
    preload = config.preload_of(container["image"])
    if preload is None:
        raise ContainerError("CreateContainerError", f"container {name}: image {container['image']!r} is not preloaded")
    mounts = prepared.mounts(container, ("hosts", "resolv.conf", "passwd", "group", "hostname"))
    cache = config.root_dir / "cache" / preload.key
    if preload.prepare and cache.is_dir():
        mounts.append(Mount(str(cache), config.cache_mount, True))
    mounts += volume_mounts(container, pod_spec, prepared.volumes, env)
    identity = identity_of(container, pod_spec)
    command = [*(container.get("command") or [preload.entry_point]), *(container.get("args") or [])]
    shown, masks = host_view(config)
    return Spec(
        entry_point=preload.entry_point,
        argv=[expand(word, env) for word in command[1:]],
        env=env,
        root_mount=str(config.run_dir / "root"),
        hostname=hostname(pod),
        netns=prepared.netns,
        uid=identity.uid,
        gid=identity.gid,
        groups=identity.groups,
        capabilities=identity.capabilities,
        devices=devices(config, container, prepared.volumes),
        mounts=mounts,
        show=shown,
        masks=masks,
        cwd=container.get("workingDir") or "/",
        cgroup_procs=prepared.cgroup_procs,
        oom_score_adj=prepared.oom_score_adj,
        seccomp=seccomp_profile(container, pod_spec),
    )


def volume_mounts(
    container: Object, pod_spec: Object, volumes: Mapping[str, Path], env: Mapping[str, str]
) -> list[Mount]:
    """Return what a container mounts of the Pod's volumes.

    :param env: variables of the container, for subPathExpr.
    :raises ContainerError: a volume is missing, or a path leads out of one.
    """
    name, mounts = container["name"], []
    declared = pod_spec.get("volumes") or []
    images = {volume["name"] for volume in declared if volume.get("image") is not None}
    claims = {volume["name"] for volume in declared if volume.get("persistentVolumeClaim") is not None}
    # What the podrunner writes files into, no container may: it could put links in their place.
    fixed = images | {volume["name"] for volume in declared if any(volume.get(kind) is not None for kind in WRITTEN)}
    for mount in container.get("volumeMounts") or []:
        volume = mount["name"]
        relative = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
        if volume not in volumes:
            raise ContainerError("CreateContainerConfigError", f"container {name}: there is no volume {volume}")
        source = volumes[volume]
        if volume in claims and source.is_block_device():
            raise ContainerError(
                "CreateContainerConfigError",
                f"container {name}: volumeMounts {volume} is a claim with volumeMode Block; use volumeDevices",
            )
        try:
            if relative:
                source = sub_path(source, relative)
        except VolumeError as error:
            raise ContainerError(error.reason, f"container {name}: {error}") from error
        mounts.append(
            Mount(
                str(source),
                mount["mountPath"].rstrip("/") or "/",
                bool(mount.get("readOnly")) or volume in fixed,
                volume in images,
                source.is_dir() and not relative and volume not in images,
                bool(relative),
            )
        )
    return mounts


@dataclass(frozen=True)
class Identity:
    """Identity and privileges of a container's processes."""

    uid: int
    gid: int
    groups: list[int]
    capabilities: list[str]


def identity_of(container: Object, pod_spec: Object) -> Identity:
    """Return the identity that a container's spec asks for.

    :raises ContainerError: a capability doesn't exist.
    """
    name = container["name"]
    capabilities = (container.get("securityContext") or {}).get("capabilities") or {}
    try:
        granted = privileges.capability_set(capabilities.get("add") or [], capabilities.get("drop") or [])
    except ValueError as error:
        raise ContainerError("CreateContainerConfigError", f"container {name}: {error}") from error
    uid = security(container, pod_spec, "runAsUser") or 0
    gid = security(container, pod_spec, "runAsGroup") or 0
    if uid and not capabilities.get("add"):
        granted = []
    elif uid:
        granted = [
            entry
            for entry in granted
            if entry in {added.upper().removeprefix("CAP_") for added in capabilities["add"]}
            or "ALL" in capabilities["add"]
        ]
    context = pod_spec.get("securityContext") or {}
    groups = [*(context.get("supplementalGroups") or []), *([context["fsGroup"]] if "fsGroup" in context else [])]
    return Identity(uid, gid, sorted(set(groups)), granted)
