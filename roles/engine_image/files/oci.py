# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers and images as the OCI image specification has them, written so that equal input makes equal bytes.

A layer is a folder's content, or what a folder has beyond another one whose index is given. Only the standard library
is needed.
"""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

#: Path in the folder → what tells the entry from another one: type, mode, owner and content.
Index = dict[str, list[Any]]

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """A layer: the hash of its compressed bytes (its name), that of its tar file, its size, and the tar file's size."""

    digest: str
    diff_id: str
    size: int
    unpacked: int


class _Hashing:
    """A file to write to that hashes and counts what goes through it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        self.size += len(data)
        return self._target.write(data)

    def flush(self) -> None:
        self._target.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


def index(root: Path) -> Index:
    """Look at every entry below a folder; device nodes and sockets are none of an image's business."""
    return {name: _describe(path, path.lstat()) for name, path in _entries(root)}


def write_layer(root: Path, store: Path, epoch: int, below: Mapping[str, list[Any]] | None = None) -> Layer:
    """Write a layer to ``store``/<hash> and say what it is.

    :param root: the folder.
    :param epoch: later times of modification become this one (seconds since 1970; SOURCE_DATE_EPOCH).
    :param below: index of the layers below; what is the same there is left out, what is missing is removed.
    """
    store.mkdir(parents=True, exist_ok=True)
    partial = store / ".layer.part"
    with partial.open("wb") as file:
        compressed = _Hashing(file)
        # No name and no time in the header: they would make each build differ
        with gzip.GzipFile(filename="", mode="wb", fileobj=compressed, compresslevel=6, mtime=0) as packer:  # type: ignore[call-overload]
            plain = _Hashing(packer)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
                _add_tree(tar, root, epoch, below)
    partial.replace(store / _file_name(compressed.digest))
    return Layer(compressed.digest, plain.digest, compressed.size, plain.size)


def extract_layer(store: Path, layer: Layer, root: Path) -> None:
    """Unpack a layer of our own into a folder, owners and modes included."""
    with tarfile.open(store / _file_name(layer.digest), "r:gz") as tar:
        tar.extraction_filter = lambda member, path: member  # what we packed ourselves
        tar.extractall(root, numeric_owner=True)


def write_images(
    layout: Path, store: Path, images: Mapping[str, tuple[list[Layer], dict[str, Any]]], epoch: int, machine: str
) -> dict[str, dict[str, Any]]:
    """Write an image layout with several images and give each one's digest and sizes.

    :param layout: folder to make; each image is under its name in it (``oci:FOLDER:NAME`` for skopeo).
    :param images: layers, lowest first, and configuration (Env, User, Labels …) by name.
    :param machine: the processor, as uname has it.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    platform = {"architecture": _ARCHITECTURES.get(machine, machine), "os": "linux"}
    created = _rfc3339(epoch)
    manifests, found = [], {}
    for name, (layers, configuration) in images.items():
        for layer in layers:
            target = blobs / _file_name(layer.digest)
            if not target.exists():
                os.link(store / _file_name(layer.digest), target)
        config = _blob(
            blobs,
            _CONFIG_TYPE,
            {
                **platform,
                "created": created,
                "config": configuration,
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                "history": [{"created": created, "created_by": "turtles.kubevirt.engine_image"} for _dummy in layers],
            },
        )
        manifest = _blob(
            blobs,
            _MANIFEST_TYPE,
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": config,
                "layers": [{"mediaType": _LAYER_TYPE, "digest": layer.digest, "size": layer.size} for layer in layers],
            },
        )
        manifests.append({**manifest, "platform": platform, "annotations": {"org.opencontainers.image.ref.name": name}})
        found[name] = {
            "digest": manifest["digest"],
            "size": sum(layer.size for layer in layers),
            "unpacked": sum(layer.unpacked for layer in layers),
        }
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": manifests}))
    return found


def write_archive(layout: Path, archive: Path, references: Mapping[str, str]) -> None:
    """Pack a layout as one OCI archive, in which each image has a full reference, as ``ctr images import`` wants it."""
    content = json.loads((layout / "index.json").read_bytes())
    for manifest in content["manifests"]:
        reference = references[manifest["annotations"]["org.opencontainers.image.ref.name"]]
        manifest["annotations"] = {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        }
    partial = archive.with_suffix(".part")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(layout.rglob("*")):
            name = path.relative_to(layout).as_posix()
            if path.is_dir() or name == "index.json":
                continue
            info = _plain(tarfile.TarInfo(name), path.stat().st_size)
            with path.open("rb") as file:
                tar.addfile(info, file)
        data = _json(content)
        tar.addfile(_plain(tarfile.TarInfo("index.json"), len(data)), io.BytesIO(data))
    partial.replace(archive)


def layer_as_json(layer: Layer) -> dict[str, Any]:
    """Give a layer as plain data; ``Layer(**data)`` is the way back."""
    return asdict(layer)


def _entries(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
                yield path.relative_to(root).as_posix(), path


def _describe(path: Path, found: os.stat_result) -> list[Any]:
    # Nobody in a container becomes somebody else by a program's bit
    mode = stat.S_IMODE(found.st_mode) & ~(stat.S_ISUID | stat.S_ISGID)
    if stat.S_ISLNK(found.st_mode):
        return ["link", 0o777, found.st_uid, found.st_gid, os.readlink(path)]
    if stat.S_ISDIR(found.st_mode):
        return ["folder", mode | (found.st_mode & stat.S_ISVTX), found.st_uid, found.st_gid, ""]
    with path.open("rb") as file:
        return ["file", mode, found.st_uid, found.st_gid, hashlib.file_digest(file, "sha256").hexdigest()]


def _add_tree(tar: tarfile.TarFile, root: Path, epoch: int, below: Mapping[str, list[Any]] | None) -> None:
    present, written = set(), {}
    for name, path in _entries(root):
        present.add(name)
        found = path.lstat()
        described = _describe(path, found)
        if below is not None and below.get(name) == described:
            continue
        kind, mode, owner, group, _dummy = described
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.gid, info.mtime = mode, owner, group, min(int(found.st_mtime), epoch)
        twin = written.get((found.st_dev, found.st_ino)) if kind == "file" and found.st_nlink > 1 else None
        if kind == "link":
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
            tar.addfile(info)
        elif kind == "folder":
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        elif twin:
            info.type, info.linkname = tarfile.LNKTYPE, twin
            tar.addfile(info)
        else:
            written[found.st_dev, found.st_ino] = name
            info.size = found.st_size
            with path.open("rb") as file:
                tar.addfile(info, file)
    for name in _topmost(set(below or ()) - present):
        folder, _dummy, last = name.rpartition("/")
        # OCI image specification, "Whiteouts"
        tar.addfile(_plain(tarfile.TarInfo(f"{folder}/.wh.{last}".lstrip("/")), 0))


def _topmost(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in sorted(names):
        if not found or not name.startswith(found[-1] + "/"):
            found.append(name)
    return found


def _plain(info: tarfile.TarInfo, size: int) -> tarfile.TarInfo:
    info.size, info.mode = size, 0o644
    return info


def _blob(blobs: Path, media_type: str, value: Any) -> dict[str, Any]:
    data = _json(value)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    (blobs / _file_name(digest)).write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _file_name(digest: str) -> str:
    return digest.partition(":")[2]


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _rfc3339(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
