# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of archives that a server has."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
from pathlib import Path

import pytest
from file_server import FileServer

from turtles.importer import http
from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.folder import Folder
from turtles.importer.progress import Progress
from turtles.importer.request import Request
from turtles.importer.target import Target

MIB = 1 << 20


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
    info.mtime = 1_000_000_000
    return info, content


def archive(*members: tuple, format_: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=format_) as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content))
    return raw.getvalue()


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "claim"
    (folder / "lost+found").mkdir(parents=True)
    return folder


def run(server: FileServer, claim: Path, content: bytes, size: int = 8 * MIB, checksum: str = "") -> None:
    server.files["/a"] = content
    job = http.Job(Request(f"{server.url}/a"), Target(claim, size), checksum, folder=Folder(claim, size))
    http.run(job, Progress("uid"))


def names(claim: Path) -> set[str]:
    return {str(path.relative_to(claim)) for path in claim.rglob("*")} - {"lost+found"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_the_files_of_an_archive(server: FileServer, claim: Path, pack: type) -> None:
    (claim / "left/behind").mkdir(parents=True)
    (claim / "older").symlink_to("/")
    long_name = "x" * 200
    content = pack(
        archive(
            member("./", kind=tarfile.DIRTYPE, mode=0o755),
            member("a/b/file", b"content", mode=0o4755),
            member("a/b", kind=tarfile.DIRTYPE, mode=0o500),
            member(f"a/{long_name}", b"y" * 3 * MIB),
            member("a/zeros", bytes(2 * MIB)),
            member("a/link", kind=tarfile.SYMTYPE, link="../a/b/file"),
        )
    )
    run(server, claim, content, checksum=f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert names(claim) == {"a", "a/b", "a/b/file", f"a/{long_name}", "a/zeros", "a/link"}
    assert (claim / "a/link").read_bytes() == b"content"
    file = (claim / "a/b/file").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_mtime) == (0o755, 1_000_000_000)
    assert (claim / "a/zeros").read_bytes() == bytes(2 * MIB)
    assert (claim / "a/zeros").stat().st_blocks == 0
    assert (claim / "lost+found").is_dir()


LINK = member("a", kind=tarfile.SYMTYPE, link=".")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("../a")], "points outside it"),
        ([member("a/../../b")], "points outside it"),
        ([member("/etc/passwd")], "points outside it"),
        ([member("a", kind=tarfile.SYMTYPE, link="/etc")], "is a link that points outside it"),
        ([member("a/b", kind=tarfile.SYMTYPE, link="../../c")], "is a link that points outside it"),
        # Seen as text it stays, but behind the link it wouldn't
        ([LINK, member("b", kind=tarfile.SYMTYPE, link="a/..")], "is a link that points outside it"),
        ([LINK, member("a/b", b"x")], "is in 'a', which isn't a directory"),
        ([member("a", b"x"), member("a/b", b"x")], "is in 'a', which isn't a directory"),
        ([LINK, member("a", kind=tarfile.DIRTYPE)], "contains 'a' twice"),
        ([member("a", b"1"), member("a", b"2")], "contains 'a' twice"),
        ([member("a", b"1"), member("b", kind=tarfile.LNKTYPE, link="a")], "is a hard link"),
        ([member("a", kind=tarfile.BLKTYPE)], "is a device"),
        ([member("a", kind=tarfile.CHRTYPE)], "is a device"),
        ([member("a", kind=tarfile.FIFOTYPE)], "is a named pipe"),
        ([member("/".join("a" * 200))], "too deep"),
        ([member("a", bytes(5 * MIB)), member("b", bytes(5 * MIB))], "larger claim is required"),
        ([], "empty archive"),
    ],
)
def test_what_is_refused(server: FileServer, claim: Path, members: list, words: str) -> None:
    with pytest.raises(ImportRefused, match=words):
        run(server, claim, archive(member("first", b"x"), *members) if members else archive())
    assert names(claim) == set()


FORMS = ("gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0")


def sparse(folder: Path, form: str, size: int) -> bytes:
    with (folder / "sparse").open("wb") as file:
        for at in range(0, min(size, 6 * MIB), 2 * MIB):
            file.seek(at)
            file.write(b"data" * 1024)
        file.truncate(size)
    os.system(f"cd {folder} && tar --sparse --format={form} -cf sparse.tar sparse")
    return (folder / "sparse.tar").read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_sparse_file(server: FileServer, claim: Path, tmp_path: Path, form: str) -> None:
    packed = sparse(tmp_path, form, 6 * MIB)
    assert len(packed) < MIB
    run(server, claim, packed)
    assert (claim / "sparse").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert (claim / "sparse").stat().st_blocks * 512 < 4 * MIB


@pytest.mark.parametrize("form", FORMS)
def test_a_sparse_file_that_grows_beyond_the_claim(server: FileServer, claim: Path, tmp_path: Path, form: str) -> None:
    with pytest.raises(ImportRefused, match="larger claim is required"):
        run(server, claim, sparse(tmp_path, form, 1 << 40))
    assert names(claim) == set()


def sparse_header(size: int, *blocks: tuple[int, int]) -> bytes:
    """A member in GNU's old format, with the map that is given."""
    info = member("a", bytes(512), kind=tarfile.GNUTYPE_SPARSE)[0]
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for number, (offset, count) in enumerate(blocks):
        header[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, count)
    header[483:495] = b"%011o\0" % size if size >= 0 else b"\xff" + (size).to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(512 + 1024)


@pytest.mark.parametrize(
    "packed",
    [
        sparse_header(-4096, (0, 512)),
        sparse_header(4 * MIB, (MIB, 512), (0, 512)),
        sparse_header(4 * MIB, (0, 512), (0, 512), (0, 512)),
        sparse_header(4096, (0, 1 << 32)),
        sparse_header(4096, (1 << 32, 512)),
    ],
)
def test_maps_of_sparse_files_that_lie(server: FileServer, claim: Path, packed: bytes) -> None:
    try:
        run(server, claim, packed)
    except ImportRefused:
        assert names(claim) == set()
        return
    assert (claim / "a").stat().st_size <= 4 * MIB


def test_a_bomb(server: FileServer, claim: Path) -> None:
    bomb = gzip.compress(archive(*(member(f"{number}", bytes(MIB)) for number in range(100))))
    with pytest.raises(ImportRefused, match="larger claim is required"):
        run(server, claim, bomb)
    # Headers alone, each of which says that it is large
    info, _ = member("a")
    info.size = 1 << 60
    with pytest.raises(ImportRefused, match="larger claim is required"):
        run(server, claim, info.tobuf(tarfile.GNU_FORMAT))
    # Names as long as the memory
    long = bytearray(member("a", kind=tarfile.GNUTYPE_LONGNAME)[0].tobuf(tarfile.GNU_FORMAT))
    long[124:136] = b"00777777777\0"
    long[148:156] = b"%06o\0 " % (sum(long[:148]) + 8 * 32 + sum(long[156:]))
    with pytest.raises(ImportRefused, match="archive"):
        run(server, claim, bytes(long))
    assert names(claim) == set()


@pytest.mark.parametrize("cut", [100, 512 + 700, 512 + 2 * MIB])
def test_an_archive_that_is_cut_off_or_damaged(server: FileServer, claim: Path, cut: int) -> None:
    whole = archive(member("a", b"x" * 3 * MIB), member("b", b"y"), format_=tarfile.USTAR_FORMAT)
    with pytest.raises(ImportRefused, match="archive"):
        run(server, claim, whole[:cut])
    damaged = bytearray(whole)
    damaged[512 + 3 * MIB + 10] ^= 1
    with pytest.raises(ImportRefused, match="a header is corrupt"):
        run(server, claim, bytes(damaged))
    assert names(claim) == set()


def test_a_disk_is_no_archive(server: FileServer, claim: Path) -> None:
    with pytest.raises(ImportRefused, match="the archive is corrupt"):
        run(server, claim, b"MBR" * MIB)


def test_a_wrong_checksum_and_a_server_that_goes_away(server: FileServer, claim: Path) -> None:
    whole = archive(member("a", os.urandom(2 * MIB)))
    with pytest.raises(ImportRefused, match="not 0000"):
        run(server, claim, whole, checksum=f"sha256:{'00' * 32}")
    assert names(claim) == set()
    server.etag, server.breaks = None, [MIB]
    with pytest.raises(ImportFailed, match="sends no version"):
        run(server, claim, whole)
    assert names(claim) == set()
    server.etag, server.breaks = '"one"', [MIB]
    run(server, claim, whole)
    assert names(claim) == {"a"}
