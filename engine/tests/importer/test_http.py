# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks from a real server, with and without ranges, whole and broken."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import struct
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from file_server import FileServer

from turtles.importer import http
from turtles.importer.errors import ImportFailed, ImportRefused, ScratchNeeded, SourceChanged
from turtles.importer.progress import Progress
from turtles.importer.request import Request
from turtles.importer.target import Target
from turtles.importer.transfer import Transfer

MIB = 1 << 20
SIZE = 8 * MIB
#: A disk with a hole, whose last bytes are no whole block.
RAW = os.urandom(MIB + 512) + bytes(2 * MIB) + os.urandom(512)

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


class Import:
    """An importer on a claim."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        self.server, self.claim, self.scratch = server, folder / "claim", folder / "scratch"
        self.claim.mkdir()
        self.scratch.mkdir()
        self.progress = Progress("uid")

    def __call__(self, path: str = "/disk", *, size: int = SIZE, scratch: bool = True, **more: Any) -> bytes:
        request = Request(
            self.server.url + path,
            **{key: more.pop(key) for key in list(more) if key in Request.__dataclass_fields__},
        )
        preallocate = more.pop("preallocate", False)
        transfer = partial(Transfer, sleep=lambda seconds: None, patience=more.pop("patience", 30.0))
        target = Target(self.claim, size, preallocate=preallocate)
        http.run(http.Job(request, target, scratch=self.scratch if scratch else None, **more), self.progress, transfer)
        return self.disk.read_bytes()

    @property
    def disk(self) -> Path:
        return self.claim / "disk.img"

    @property
    def left(self) -> list[str]:
        return sorted(path.name for folder in (self.claim, self.scratch) for path in folder.iterdir())


@pytest.fixture
def run(server: FileServer, tmp_path: Path) -> Import:
    server.files["/disk"] = RAW
    return Import(server, tmp_path)


def whole(data: bytes, size: int = SIZE) -> bytes:
    return data + bytes(size - len(data))


def test_a_raw_disk_is_sparse_has_the_claims_size_and_nothing_beside_it(run: Import) -> None:
    assert run() == whole(RAW)
    assert run.left == ["disk.img"]
    assert run.disk.stat().st_blocks * 512 < 2 * MIB
    assert run.disk.stat().st_mode & 0o777 & ~0o022 == 0o660 & ~0o022
    assert run.progress.done == 1.0


def test_preallocation(run: Import) -> None:
    assert run(preallocate=True) == whole(RAW)
    assert run.disk.stat().st_blocks * 512 >= SIZE


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, lzma.compress, zstd.compress, lambda data: gzip.compress(data[:MIB]) + gzip.compress(data[MIB:])],
    ids=["gzip", "xz", "zstd", "two members"],
)
def test_what_is_compressed_is_unpacked(run: Import, server: FileServer, compress: Any) -> None:
    server.files["/disk"] = packed = compress(RAW)
    assert run(checksum=f"sha256:{hashlib.sha256(packed).hexdigest()}", scratch=False) == whole(RAW)


@needs_qemu_img
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("format_", ["qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_formats(run: Import, server: FileServer, tmp_path: Path, format_: str, compress: Any) -> None:
    server.files["/disk"] = compress(image(tmp_path, format_))
    assert run()[: len(RAW)] == RAW
    assert run.left == ["disk.img"]
    assert run.progress.done == 1.0
    assert run.disk.stat().st_size == SIZE


def image(folder: Path, format_: str, *options: str, data: bytes = RAW) -> bytes:
    raw, made = folder / "raw", folder / f"image.{format_}"
    raw.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", format_, *options, raw, made], check=True)
    return made.read_bytes()


@needs_qemu_img
def test_an_image_that_has_to_be_stored_asks_for_scratch_space(run: Import, server: FileServer, tmp_path: Path) -> None:
    server.files["/disk"] = image(tmp_path, "qcow2")
    with pytest.raises(ScratchNeeded):
        run(scratch=False)
    assert run.left == []


# Broken connections


@pytest.mark.parametrize("ranges", [True, False])
def test_it_continues_where_a_connection_broke(run: Import, server: FileServer, ranges: bool) -> None:
    server.ranges = ranges
    server.breaks = [MIB, 512, 700 * 1024] if ranges else [MIB, MIB + 1000, 2 * MIB]
    assert run(checksum=f"sha1:{hashlib.sha1(RAW).hexdigest()}") == whole(RAW)
    asked = [headers.get("range") for _, headers in server.requests]
    assert asked[:2] == [None, f"bytes={MIB}-"]
    assert len(asked) == 4


def test_without_a_version_there_is_no_second_part(run: Import, server: FileServer) -> None:
    server.etag, server.breaks = None, [MIB]
    with pytest.raises(ImportFailed, match="sends no version of the file"):
        run()
    assert not run.disk.exists()
    assert run() == whole(RAW)


def test_a_file_that_changes_meanwhile_is_not_mixed(run: Import, server: FileServer) -> None:
    server.breaks = [MIB]

    def change(position: int) -> None:
        if position >= MIB // 2:
            server.etag, server.files["/disk"] = '"two"', RAW[::-1]

    server.before = change
    with pytest.raises(SourceChanged):
        run()
    assert run.left == []
    assert run() == whole(RAW[::-1])


def test_it_gives_up_where_nothing_comes_any_more(run: Import, server: FileServer) -> None:
    server.breaks = [MIB, *[0] * 10]
    with pytest.raises(ImportFailed, match=r"http://.*/disk: Connection broken: IncompleteRead"):
        run()
    assert len(server.requests) == 5
    assert not run.disk.exists()


def test_a_server_that_stalls(run: Import, server: FileServer) -> None:
    server.files["/disk"] = bytes(100)
    server.length = False
    server.endless = True
    server.before = lambda position: __import__("time").sleep(0.2)
    with pytest.raises(ImportFailed, match="stalled: "):
        run(patience=0.5)


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_a_server_that_says_no(run: Import, server: FileServer, status: int, words: str) -> None:
    server.status = [status]
    with pytest.raises(ImportFailed, match=f"/disk: the server answered {words}") as failure:
        run()
    assert not isinstance(failure.value, ImportRefused)


def test_nobody_there(run: Import, server: FileServer) -> None:
    server.close()
    with pytest.raises(ImportFailed, match="Connection refused"):
        run()


# Another process continues


@pytest.mark.parametrize("format_", ["raw", pytest.param("qcow2", marks=needs_qemu_img)])
def test_another_process_continues(
    run: Import, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr(http, "_CHECKPOINT_SECONDS", 0.0)
    data = server.files["/disk"] = image(tmp_path, format_)
    server.breaks, server.etag = [MIB, *[0] * 5], '"one"'
    scratch = format_ != "raw"
    with pytest.raises(ImportFailed):
        run(scratch=scratch)
    server.requests.clear()
    server.breaks = []
    checksum = f"sha512:{hashlib.sha512(data).hexdigest()}"
    assert run(scratch=scratch, checksum=checksum) == whole(RAW)
    ((_, headers),) = server.requests
    assert int(headers["range"].removeprefix("bytes=").rstrip("-")) >= MIB - 70000
    assert run.left == ["disk.img"]


def test_another_process_begins_again_if_the_file_was_changed(
    run: Import, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_CHECKPOINT_SECONDS", 0.0)
    server.breaks = [MIB, *[0] * 5]
    with pytest.raises(ImportFailed):
        run(scratch=False)
    server.breaks, server.etag, server.files["/disk"] = [], '"two"', RAW[::-1]
    with pytest.raises(SourceChanged):
        run(scratch=False)
    assert run(scratch=False) == whole(RAW[::-1])


# What isn't to be trusted


def test_a_wrong_checksum(run: Import) -> None:
    with pytest.raises(ImportRefused, match=r"has the sha256 checksum .* not 00"):
        run(checksum=f"sha256:{'00' * 32}")
    assert run.left == []


@pytest.mark.parametrize("length", [True, False])
def test_one_that_is_too_large(run: Import, server: FileServer, length: bool) -> None:
    server.length = length
    with pytest.raises(ImportRefused, match=r"larger than the reported available storage 2097152. A larger PVC"):
        run(size=2 * MIB)
    assert run.left == []


def test_one_without_end(run: Import, server: FileServer) -> None:
    server.endless = True
    with pytest.raises(ImportRefused, match="larger than the reported available storage"):
        run()
    assert run.left == []


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstd.compress])
def test_a_bomb(run: Import, server: FileServer, compress: Any) -> None:
    server.files["/disk"] = compress(b"x" * 100 * MIB)
    assert len(server.files["/disk"]) < MIB
    with pytest.raises(ImportRefused, match="larger than the reported available storage"):
        run()
    assert run.left == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(RAW)[:-100], "truncated"),
        (gzip.compress(RAW) + b"something else", "corrupt"),
        (lzma.compress(RAW)[:-2000] + b"x" * 2000, "corrupt"),
        (zstd.compress(RAW)[:-100], "truncated"),
        (gzip.compress(gzip.compress(RAW)), "compressed twice, with gzip and gzip"),
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"QED\0" + bytes(1000), "has the format QED, which can't be imported"),
        (b"PK\x03\x04" + bytes(1000), "has the format zip"),
        (b"# Disk DescriptorFile\n" + bytes(1000), "keeps its data in other files"),
        (b"KDMV" + bytes(1000), "keeps its data in other files"),
        (b"QFI\xfb" + struct.pack(">IQ", 3, 4096) + bytes(1000), "has a backing file"),
        (b"QFI\xfb" + struct.pack(">I", 3) + bytes(64) + struct.pack(">Q", 4) + bytes(1000), "data in another file"),
        (b"QFI\xfb" + struct.pack(">I", 3) + bytes(2000), "is a broken qcow2 image"),
        (b"vhdxfile" + bytes(1000), "is a broken vhdx image"),
    ],
    ids=range(15),
)
@needs_qemu_img
def test_hostile_content(run: Import, server: FileServer, data: bytes, words: str) -> None:
    server.files["/disk"] = data
    with pytest.raises(ImportRefused, match=words):
        run()
    assert run.left == []


@needs_qemu_img
def test_an_image_that_says_it_is_larger(run: Import, server: FileServer, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "a", "1T"], check=True)
    server.files["/disk"] = (tmp_path / "a").read_bytes()
    with pytest.raises(ImportRefused, match="Virtual image size 1099511627776 is larger than"):
        run()
    assert run.left == []


@needs_qemu_img
def test_an_image_with_a_broken_middle(run: Import, server: FileServer, tmp_path: Path) -> None:
    text = b"".join(b"%d," % number for number in range(500_000))
    data = bytearray(image(tmp_path, "qcow2", "-c", data=text + bytes(-len(text) % 512)))
    middle = slice(len(data) // 3, len(data) // 3 + 100_000)
    data[middle] = b"\xff" * 100_000
    server.files["/disk"] = bytes(data)
    with pytest.raises(ImportRefused, match="can't be converted"):
        run()
    assert run.left == []


@needs_qemu_img
@pytest.mark.parametrize("format_", ["qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_a_truncated_image(run: Import, server: FileServer, tmp_path: Path, format_: str) -> None:
    data = image(tmp_path, format_)
    server.files["/disk"] = data[: len(data) // 2]
    with pytest.raises(ImportRefused, match="runcated"):
        run()
    assert run.left == []
