# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of volumes: what Secrets, ConfigMaps and the downward API put there, whose they are, and parts of volumes."""

import base64
import contextlib
import os
import re
import stat
from pathlib import Path

from turtles.api.objects import Object
from turtles.standalone.podrunner import syscalls as sc

#: Folders in one another through which fsGroup is set.
_MAX_DEPTH = 200


class VolumeError(Exception):
    """A volume can't be prepared now; ``reason`` is the waiting container's, the message says what is missing."""

    def __init__(self, message: str, reason: str = "FailedMount") -> None:
        super().__init__(message)
        self.reason = reason


def content(obj: Object) -> dict[str, bytes]:
    """Return the keys of a Secret or ConfigMap with their bytes."""
    if obj.get("kind") == "Secret":
        return {key: base64.b64decode(value or "") for key, value in (obj.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def select_items(what: str, data: dict[str, bytes], volume: Object, mode: int) -> dict[str, tuple[bytes, int]]:
    """Return files (content and mode by relative path) as a volume's ``items`` want them.

    :raises VolumeError: a key is missing and not optional.
    """
    if not volume.get("items"):
        return {key: (value, mode) for key, value in data.items()}
    files = {}
    for item in volume["items"]:
        if item["key"] not in data:
            if volume.get("optional"):
                continue
            raise VolumeError(f"{what} has no key {item['key']}")
        files[item["path"]] = (data[item["key"]], item.get("mode", mode))
    return files


def write_files(folder: Path, files: dict[str, tuple[bytes, int]], group: int | None) -> None:
    """Write a volume's files; given a group, they belong to it and it may read them.

    :raises VolumeError: a path leads out of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    for relative, (data, mode) in files.items():
        if relative.startswith("/") or ".." in relative.split("/"):
            raise VolumeError(f"path {relative!r} points outside its volume", "CreateContainerConfigError")
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode | 0o440 if group is not None else mode)
        if group is not None:
            os.chown(path, -1, group)


def own_by_group(path: Path, group: int) -> None:
    """Change a volume's content to fsGroup unless its root shows that this was done (policy OnRootMismatch)."""
    status = path.stat()
    if status.st_gid == group and status.st_mode & 0o2070 == 0o2070:
        return
    for folder, folders, names, fd in os.fwalk(path):
        if folder.count("/") - str(path).count("/") > _MAX_DEPTH:
            # Each level is a descriptor that is open, and others need some too.
            raise VolumeError(
                f"{path} has folders nested more than {_MAX_DEPTH} deep, where the Pod's fsGroup can't be applied: "
                "remove them, or do without fsGroup",
                "CreateContainerConfigError",
            )
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                _own_by_group(name, fd, group)
    os.chown(path, -1, group)
    path.chmod(stat.S_IMODE(status.st_mode) | 0o2070)


def _own_by_group(name: str, folder: int, group: int) -> None:
    # Another Pod may be at work in the volume: what was looked at is held on to, so that nothing, a symbolic link to
    # one of the host's files least of all, can take its place before it is changed.
    held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        entry = os.fstat(held)
        kept = f"/proc/self/fd/{held}"
        if stat.S_ISREG(entry.st_mode) or stat.S_ISDIR(entry.st_mode):
            os.chown(kept, -1, group)
        if stat.S_ISREG(entry.st_mode) and entry.st_nlink == 1:
            os.chmod(kept, stat.S_IMODE(entry.st_mode) | 0o060)  # noqa: PTH101
        elif stat.S_ISDIR(entry.st_mode):
            os.chmod(kept, stat.S_IMODE(entry.st_mode) | 0o2070)  # noqa: PTH101, S103
    finally:
        os.close(held)


def field(pod: Object, path: str) -> str:
    """Return the text of a fieldRef: metadata, labels and annotations, spec and status fields that Kubernetes allows.

    :raises VolumeError: the path is not supported.
    """
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(entries.items()))
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": status.get("podIP", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.podIPs": ",".join(entry["ip"] for entry in status.get("podIPs") or []),
        "status.hostIPs": ",".join(entry["ip"] for entry in status.get("hostIPs") or []),
    }
    if path not in simple:
        raise VolumeError(f"fieldPath {path} is not supported", "CreateContainerConfigError")
    return str(simple[path])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def sub_path(volume: Path, relative: str) -> Path:
    """Return a mount's subPath inside a volume, made as a directory if missing; links never lead out of the volume.

    :raises VolumeError: it leads out.
    """
    if relative.startswith("/") or ".." in relative.split("/"):
        raise VolumeError(f"subPath {relative!r} points outside its volume", "CreateContainerConfigError")
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        current = ""
        for part in Path(relative).parts:
            parent = sc.openat2(root, current, os.O_RDONLY | os.O_DIRECTORY, resolve=sc.RESOLVE_BENEATH)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=parent)
            finally:
                os.close(parent)
            current = f"{current}/{part}".lstrip("/")
        fd = sc.openat2(root, current, os.O_PATH, resolve=sc.RESOLVE_BENEATH)
        try:
            return Path(f"/proc/self/fd/{fd}").readlink()
        finally:
            os.close(fd)
    except OSError as error:
        raise VolumeError(f"subPath {relative!r}: {error.strerror}", "CreateContainerConfigError") from error
    finally:
        os.close(root)
