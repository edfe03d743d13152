# SPDX-License-Identifier: GPL-3.0-or-later
"""Inspects untrusted disk images, and creates new ones.

A guest image is untrusted input. Its header is read here first, so that qemu-img never opens anything such a
header points to (backing file, external data file); only then does ``qemu-img info`` judge whether the image is sound,
with an explicit format and under limits of memory, time and CPU.
"""

import json
import os
import stat
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turtles.api.guests import QEMU_UID

QEMU_IMG = "qemu-img"
#: Limits of one qemu-img run: address space in bytes, CPU seconds, and seconds on the clock.
_LIMITS = ("prlimit", "--as=1073741824", "--cpu=30", "--core=0", "--")
_TIMEOUT = 60
#: Likewise for a check of all tables.
_CHECK_LIMITS = ("prlimit", "--as=1073741824", "--cpu=600", "--core=0", "--")
#: Exit statuses of qemu-img check: nothing wrong, space that is lost, a format without checks.
_SOUND = (0, 3, 63)
_VHD_COOKIE = b"conectix"
#: Larger than any disk that is meant seriously, smaller than what makes QEMU's tables huge.
MAX_VIRTUAL_SIZE = 64 * 2**40
_SECTOR = 512

_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_EXTERNAL_DATA = 1 << 2  # bit of incompatible_features, docs/interop/qcow2.txt of QEMU
#: (offset, magic, name) of what users put under /disk by mistake.
_OTHER_FORMATS = (
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (0, b"QED\0", "QED"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (64, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"BZh", "bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"PK\x03\x04", "zip"),
)
_COMPRESSED = ("gzip", "xz", "bzip2", "zstd", "zip")
#: Those that an importer converts, by the names that qemu-img has for them.
_CONVERTIBLE = {"VMDK": "vmdk", "VHDX": "vhdx", "VHD": "vpc", "VDI": "vdi"}
#: Bytes of a header that tell the format.
HEADER = 512


class ImageError(Exception):
    """The image can't be used, or qemu-img failed. The message says why and what to do, but not which image it is."""


@dataclass(frozen=True)
class Image:
    """A disk image that passed: its format, as qemu-img calls it, and the size the guest sees, in bytes."""

    format: str
    virtual_size: int


def find_disk(image_dir: Path, path: str | None = None) -> Path:
    """Return the one disk file of a container image (KubeVirt: containerDisk).

    :param image_dir: where the image is mounted.
    :param path: of the file in the image; without it, there is exactly one file in /disk.
    :raises ImageError: if there is no such file, more than one, or it lies outside of the image. The message continues
        a sentence that begins with the image's reference.
    """
    if not image_dir.is_dir():
        raise ImageError(f" is not mounted in the Pod ({image_dir} is missing)")
    base = image_dir.resolve()
    candidate = _only_file(base / "disk") if path is None else base / path.lstrip("/")
    resolved = candidate.resolve()
    if not resolved.is_relative_to(base):
        raise ImageError(f": {path or '/disk/' + candidate.name} points outside the image, which is not allowed")
    if not resolved.exists():
        raise ImageError(f" has no file {path or '/disk/' + candidate.name}")
    return resolved


def _only_file(folder: Path) -> Path:
    try:
        # A folder that is a link could show another one's files.
        entries = [] if folder.is_symlink() else sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        entries = []
    except PermissionError as error:
        raise ImageError(f" has a folder /disk that uid {os.geteuid()} may not read") from error
    if not entries:
        raise ImageError(
            " is not a containerDisk: it has no file in /disk; put one raw or qcow2 disk there, "
            "or name another file with containerDisk.path"
        )
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries[:5])
        raise ImageError(
            f" has {len(entries)} files in /disk ({names}), where one is expected; choose one with containerDisk.path"
        )
    return entries[0]


def inspect(path: Path) -> Image:
    """Check the disk image at *path*.

    :raises ImageError: if it isn't a regular, readable file with a sound raw or qcow2 image that stands alone.
    """
    header, size = _read_header(path)
    if header.startswith(_QCOW2_MAGIC):
        return _sized(Image("qcow2", _qcow2_virtual_size(path, header)))
    return _sized(Image("raw", _raw_virtual_size(header, size)))


def inspect_foreign(path: Path) -> Image:
    """Check the disk image at *path*, which may have any format that :func:`format_of` finds.

    :raises ImageError: if it isn't a regular, readable file with a sound image that stands alone.
    """
    header, size = _read_header(path)
    actual = format_of(header)
    if actual == "qcow2":
        return _sized(Image("qcow2", _qcow2_virtual_size(path, header)))
    if actual == "raw":
        return _sized(Image("raw", -(-size // _SECTOR) * _SECTOR))
    if actual == "vmdk" and not _has_own_extent(header):
        raise ImageError("keeps its data in other files, which is not allowed; make it one file with qemu-img convert")
    info = _info(path, actual)
    if info.get("backing-filename"):
        raise ImageError("has a backing file, which is not allowed; flatten it with qemu-img convert")
    return _sized(Image(actual, int(info["virtual-size"])))


def check_complete(path: Path, image: Image) -> None:
    """Check that a disk image is all there: QEMU takes what is beyond a file's end for zeros.

    :param image: what :func:`inspect_foreign` found it to be.
    :raises ImageError: it is truncated, or its tables are broken.
    """
    size = path.stat().st_size
    if image.format == "vdi":
        _check_vdi(path, size)
    elif image.format == "vpc":
        with path.open("rb") as file:
            file.seek(max(0, size - _SECTOR))
            if not file.read(len(_VHD_COOKIE)) == _VHD_COOKIE:
                raise ImageError("is truncated: a VHD image ends with a footer, and this one doesn't")
    elif image.format != "raw":
        _check_tables(path, image.format)


def _check_vdi(path: Path, size: int) -> None:
    """Compare a VDI file with its header, as qemu-img doesn't (QEMU, block/vdi.c: VdiHeader)."""
    with path.open("rb") as file:
        header = file.read(HEADER)
    (data,), (block,), (allocated,) = (struct.unpack_from("<I", header, offset) for offset in (0x158, 0x178, 0x184))
    if size < data + block * allocated:
        raise ImageError(f"is truncated: it has {size} bytes, and {data + block * allocated} by its header")


def _check_tables(path: Path, format_: str) -> None:
    try:
        result = _run("check", "-q", "--force-share", "-f", format_, str(path), limits=_CHECK_LIMITS, timeout=600)
    except subprocess.TimeoutExpired as error:
        raise ImageError("can't be checked within 600 seconds") from error
    if result.returncode in _SOUND:
        return
    words = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()
    raise ImageError(f"is truncated or broken: {words[0] if words else 'qemu-img check found errors'}")


def format_of(header: bytes) -> str:
    """Return the format of an image with these first bytes, as qemu-img calls it: raw if it is none of the others.

    :param header: :data:`HEADER` bytes, or all that there are.
    :raises ImageError: it is a format that can't be converted.
    """
    if header.startswith(_QCOW2_MAGIC):
        return "qcow2"
    for offset, magic, name in _OTHER_FORMATS:
        if header[offset : offset + len(magic)] == magic:
            if name not in _CONVERTIBLE:
                raise ImageError(f"has the format {name}, which can't be imported; convert it to raw or qcow2")
            return _CONVERTIBLE[name]
    return "raw"


def _has_own_extent(header: bytes) -> bool:
    """Say whether a VMDK holds the data itself: a description alone names files, and QEMU would open them.

    A sparse extent without capacity is no more than a description (VMware, "Virtual Disk Format 5.0").
    """
    if not header.startswith(b"KDMV") or len(header) < 36:
        return False
    return bool(struct.unpack_from("<Q", header, 12)[0])


def _sized(image: Image) -> Image:
    if not 0 < image.virtual_size <= MAX_VIRTUAL_SIZE:
        raise ImageError(f"claims to be {image.virtual_size} bytes large; 1 to {MAX_VIRTUAL_SIZE} are accepted")
    return image


def _read_header(path: Path) -> tuple[bytes, int]:
    """Return a file's first bytes, and its size.

    :raises ImageError: if it isn't a regular, readable file, or is empty.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError(
            f"can't be read by uid {os.geteuid()} ({error.strerror}); "
            f"in the image it should be owned by {QEMU_UID}:{QEMU_UID}"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file")
        header = os.pread(descriptor, HEADER, 0)
    finally:
        os.close(descriptor)
    if status.st_size == 0:
        raise ImageError("is empty")
    return header, status.st_size


def _raw_virtual_size(header: bytes, size: int) -> int:
    for offset, magic, name in _OTHER_FORMATS:
        if header[offset : offset + len(magic)] == magic:
            if name in _COMPRESSED:
                raise ImageError(f"is compressed ({name}); decompress it before adding it to the image")
            raise ImageError(f"has the format {name}; convert it with 'qemu-img convert -O qcow2'")
    return -(-size // _SECTOR) * _SECTOR


def _qcow2_virtual_size(path: Path, header: bytes) -> int:
    if len(header) < 104:
        raise ImageError("is a broken qcow2 image: it ends within its header")
    version, backing_offset = struct.unpack_from(">IQ", header, 4)
    incompatible = struct.unpack_from(">Q", header, 72)[0] if version >= 3 else 0
    if version not in (2, 3):
        raise ImageError(f"is a qcow image of version {version}; convert it with 'qemu-img convert -O qcow2'")
    if backing_offset:
        raise ImageError(
            "has a backing file, which is not allowed in a guest image; flatten it with 'qemu-img convert -O qcow2'"
        )
    if incompatible & _QCOW2_EXTERNAL_DATA:
        raise ImageError(
            "keeps its data in another file, which is not allowed in a guest image; "
            "merge it with 'qemu-img convert -O qcow2'"
        )
    if struct.unpack_from(">I", header, 32)[0]:
        raise ImageError("is encrypted, which is not supported")
    info = _info(path, "qcow2")
    details = info.get("format-specific", {}).get("data", {})
    if details.get("corrupt"):
        raise ImageError("is a qcow2 image marked as corrupt; repair it with 'qemu-img check -r all'")
    if info.get("backing-filename") or details.get("data-file"):
        raise ImageError("refers to another file, which is not allowed in a guest image")
    return int(info["virtual-size"])


def _info(path: Path, format_: str) -> dict[str, Any]:
    """Return what qemu-img says of an image whose header has been looked at.

    :raises ImageError: the image is broken.
    """
    output = _qemu_img("info", "--output=json", "--force-share", "-f", format_, str(path))
    try:
        info = json.loads(output)
        int(info["virtual-size"])
        info.get("format-specific", {}).get("data", {}).get("corrupt")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ImageError(f"is a broken {format_} image: qemu-img info gave no usable answer") from error
    return dict(info)


def create_overlay(path: Path, backing: Path, image: Image) -> None:
    """Create the qcow2 image *path*, of the same size, that keeps what the guest changes of *backing*.

    :raises ImageError: if it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # -u: the backing file has just been inspected, it needn't be opened again.
    _qemu_img(
        "create", "-q", "-f", "qcow2", "-u", "-b", str(backing), "-F", image.format, str(path), str(image.virtual_size)
    )


def create_empty(path: Path, size: int) -> None:
    """Create the empty qcow2 image *path* of *size* bytes.

    :raises ImageError: if it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _qemu_img("create", "-q", "-f", "qcow2", str(path), str(size))


def _qemu_img(*arguments: str) -> bytes:
    """Run qemu-img under limits; return its output.

    :raises ImageError: with qemu-img's own words, if it fails or takes too long.
    """
    try:
        result = _run(*arguments, limits=_LIMITS, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"kept qemu-img {arguments[0]} busy for more than {_TIMEOUT} s") from error
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip().removeprefix("qemu-img: ")
        words = words or f"exit status {result.returncode}"
        if arguments[0] == "info":
            raise ImageError(f"is a broken {arguments[arguments.index('-f') + 1]} image: {words}")
        raise ImageError(f"can't be created: {words}")
    return result.stdout


def _run(*arguments: str, limits: Sequence[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
    """Run qemu-img.

    :raises ImageError: if it doesn't start.
    :raises subprocess.TimeoutExpired: it takes too long.
    """
    command = [*limits, QEMU_IMG, *arguments]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except OSError as error:
        raise ImageError(f"can't be handled: qemu-img doesn't start ({error})") from error
