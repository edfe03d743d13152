# SPDX-License-Identifier: GPL-3.0-or-later
"""Hook sidecars: the annotation by which a machine asks for containers that change what it is made of. Pure.

Sources: KubeVirt user guide, "Hook sidecar container", and the KubeVirt API's annotation of that name.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The annotation on a VirtualMachineInstance.
ANNOTATION = "hooks.kubevirt.io/hookSidecars"
#: Programs that a sidecar without an image of its own runs, by the name of the file that a ConfigMap brings.
HOOKS = ("onDefineDomain", "preCloudInitIso")
MAX_SIDECARS = 16
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
#: Folders of the launcher's container in which a shared claim can't be mounted, as they or parts of them are in use.
_RESERVED = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/sbin",
    "/sys",
    "/usr",
    "/var/cache",
    "/var/lib",
    "/var/run/kubevirt",
    "/var/run/kubevirt-ephemeral-disks",
    "/var/run/kubevirt-hooks",
    "/var/run/kubevirt-image-volume",
    "/var/run/kubevirt-private",
    "/var/run/libvirt",
    "/var/run/secrets",
)


class HookSidecarError(ValueError):
    """The annotation's value can't be used. The message completes "the annotation …"."""


@dataclass(frozen=True)
class ConfigMapHook:
    """A program from a ConfigMap: the file *key* becomes *path* in the container."""

    name: str
    key: str
    path: str


@dataclass(frozen=True)
class SharedClaim:
    """A claim that a sidecar has at *path*; with *compute_path*, the launcher has it there as well."""

    name: str
    path: str
    compute_path: str | None


@dataclass(frozen=True)
class HookSidecar:
    """An entry of the annotation. Without an image it runs the programs of its ConfigMap."""

    image: str | None
    pull_policy: str | None
    command: tuple[str, ...]
    args: tuple[str, ...]
    config_map: ConfigMapHook | None
    claim: SharedClaim | None


def read(metadata: Mapping[str, Any]) -> tuple[HookSidecar, ...]:
    """Return the sidecars that an object with this *metadata* asks for, in their order.

    :raises HookSidecarError: if the annotation isn't a list of them.
    """
    text = (metadata.get("annotations") or {}).get(ANNOTATION)
    if not text:
        return ()
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HookSidecarError(f"is not JSON: {str(error)[:200]}") from None
    if not isinstance(entries, list):
        raise HookSidecarError("is no list of sidecars")
    if len(entries) > MAX_SIDECARS:
        raise HookSidecarError(f"has {len(entries)} sidecars, but at most {MAX_SIDECARS} are accepted")
    return tuple(_sidecar(entry, f"[{index}]") for index, entry in enumerate(entries))


def _sidecar(entry: Any, where: str) -> HookSidecar:
    _check_keys(entry, where, ("image", "imagePullPolicy", "command", "args", "configMap", "pvc"))
    image, policy = _text(entry, "image", where), _text(entry, "imagePullPolicy", where)
    if policy is not None and policy not in _PULL_POLICIES:
        raise HookSidecarError(f"has {policy!r} in {where}.imagePullPolicy; use one of {', '.join(_PULL_POLICIES)}")
    command, args = _texts(entry, "command", where), _texts(entry, "args", where)
    config_map, claim = entry.get("configMap"), entry.get("pvc")
    hook = None if config_map is None else _config_map(config_map, f"{where}.configMap")
    if image is None and command:
        raise HookSidecarError(f"has a command in {where}, but no image in which that is")
    if image is None and hook is None:
        raise HookSidecarError(f"has neither image nor configMap in {where}: one of them brings what is run")
    if image is None and hook is not None and posixpath.basename(hook.path) not in HOOKS:
        raise HookSidecarError(
            f"has {hook.path!r} in {where}.configMap.hookPath; without an image its last part is one of "
            f"{', '.join(HOOKS)}"
        )
    shared = None if claim is None else _claim(claim, f"{where}.pvc")
    return HookSidecar(image, policy, command, args, hook, shared)


def _config_map(value: Any, where: str) -> ConfigMapHook:
    _check_keys(value, where, ("name", "key", "hookPath"))
    name, key = _required(value, "name", where), _required(value, "key", where)
    if "/" in key or key in (".", ".."):
        raise HookSidecarError(f"has {key!r} in {where}.key, which is no key of a ConfigMap")
    return ConfigMapHook(name, key, _path(_required(value, "hookPath", where), f"{where}.hookPath"))


def _claim(value: Any, where: str) -> SharedClaim:
    _check_keys(value, where, ("name", "volumePath", "sharedComputePath"))
    name = _required(value, "name", where)
    path = _path(_required(value, "volumePath", where), f"{where}.volumePath")
    shared = _text(value, "sharedComputePath", where)
    if shared is not None:
        shared = _path(shared, f"{where}.sharedComputePath")
        canonical = shared.replace("/run/", "/var/run/", 1) if shared.startswith("/run/") else shared
        if any(_overlap(canonical, folder) for folder in _RESERVED):
            raise HookSidecarError(
                f"has {shared!r} in {where}.sharedComputePath, which the launcher needs itself; use a folder of your "
                "own, such as /var/run/shared"
            )
    return SharedClaim(name, path, shared)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _path(text: str, where: str) -> str:
    if not text.startswith("/") or posixpath.normpath(text) != text or text.startswith("//") or text == "/":
        raise HookSidecarError(f"has {text!r} in {where}; use an absolute path without '.' and '..'")
    if not text.isprintable() or ":" in text:
        raise HookSidecarError(f"has {text!r} in {where}; use printable characters and no colon")
    return text


def _check_keys(value: Any, where: str, known: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise HookSidecarError(f"has no object in {where}")
    if unknown := sorted(set(value) - set(known)):
        raise HookSidecarError(f"has {unknown[0]!r} in {where}; known are {', '.join(known)}")


def _text(value: Mapping[str, Any], key: str, where: str) -> str | None:
    text = value.get(key)
    if text is None or text == "":
        return None
    if not isinstance(text, str) or "\0" in text:
        raise HookSidecarError(f"has no text in {where}.{key}")
    return text


def _required(value: Mapping[str, Any], key: str, where: str) -> str:
    text = _text(value, key, where)
    if text is None:
        raise HookSidecarError(f"lacks {where}.{key}")
    return text


def _texts(value: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    texts = value.get(key)
    if texts is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(word, str) and "\0" not in word for word in texts):
        raise HookSidecarError(f"has no list of texts in {where}.{key}")
    return tuple(texts)
