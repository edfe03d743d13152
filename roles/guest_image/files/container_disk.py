# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack a disk as the image of a containerDisk volume: an OCI archive with one layer that holds /disk/<name>.

The form is the KubeVirt user guide's (a scratch image, the one file under /disk owned by uid 107); the container
is the image layout of the OCI image specification in a tar file, which skopeo calls ``oci-archive:``. Equal input
makes equal bytes, so an image's digest says whether anything changed. Only the standard library is needed.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

QEMU_UID = 107
INPUTS_ANNOTATION = "io.turtles.inputs"
_INDEX = "index.json"


class _HashingWriter:
    """A file for tarfile to write to that hashes what goes through it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        self.size += len(data)
        return self._target.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


def _entry(name: str, mode: int, size: int = 0, *, directory: bool = False, owner: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    info.mode, info.size, info.uid, info.gid, info.mtime = mode, size, owner, owner, 0
    return info


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def read_inputs(archive: Path) -> str | None:
    """The inputs' fingerprint an archive was packed with; None where there is no readable archive of ours."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile(_INDEX)
            index = json.load(member) if member else {}
        value = index["manifests"][0]["annotations"][INPUTS_ANNOTATION]
    except (OSError, tarfile.TarError, KeyError, IndexError, ValueError, TypeError):
        return None
    return value if isinstance(value, str) else None


def read_digest(archive: Path) -> str:
    """The manifest's digest, by which registries and runtimes know the image."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(_INDEX)
        assert member is not None
        digest = json.load(member)["manifests"][0]["digest"]
    return str(digest)


def pack(disk: Path, archive: Path, name: str, inputs: str, architecture: str = "amd64") -> str:
    """Write the archive with ``disk`` as /disk/<name>; replaced only when complete. Returns the manifest's digest."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".pack-") as scratch:
        layer = Path(scratch, "layer")
        with layer.open("wb") as file:
            writer = _HashingWriter(file)
            with tarfile.open(fileobj=writer, mode="w|", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
                tar.addfile(_entry("disk", 0o755, directory=True, owner=QEMU_UID))
                with disk.open("rb") as content:
                    tar.addfile(_entry(f"disk/{name}", 0o440, disk.stat().st_size, owner=QEMU_UID), content)
        config = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [writer.digest]},
                "history": [{"created_by": f"ADD --chown={QEMU_UID}:{QEMU_UID} {name} /disk/"}],
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": writer.digest,
                        "size": writer.size,
                    }
                ],
            }
        )
        reference = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
        reference["annotations"] = {INPUTS_ANNOTATION: inputs}
        reference["platform"] = {"architecture": architecture, "os": "linux"}
        complete = Path(scratch, "archive")
        with tarfile.open(complete, "w", format=tarfile.USTAR_FORMAT) as tar:
            _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add(tar, _INDEX, _json({"schemaVersion": 2, "manifests": [reference]}))
            _add(tar, _blob(reference["digest"]), manifest)
            _add(tar, _blob(_descriptor("", config)["digest"]), config)
            with layer.open("rb") as content:
                tar.addfile(_entry(_blob(writer.digest), 0o644, writer.size), content)
        complete.chmod(0o644)
        with complete.open("rb") as file:
            os.fsync(file.fileno())
        shutil.move(complete, archive)
    return str(reference["digest"])


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_entry(name, 0o644, len(data)), io.BytesIO(data))
