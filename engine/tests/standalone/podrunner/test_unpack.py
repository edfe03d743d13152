# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of images nobody vouches for."""

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import time

import pytest

from turtles.standalone.podrunner import unpack as unpacking
from turtles.standalone.podrunner.unpack import Budget, UnpackError

from .entry_points import names
from .layers import HUGE, gnu_sparse, image, member, packed, pax, raw_image, sparse_map, typed


def unpack(directory, target, max_bytes, max_entries, max_apparent=1 << 40):
    """Unpack an image within limits."""
    unpacking.unpack(directory, target, Budget(max_bytes, max_entries, max_apparent))


@pytest.fixture
def target(tmp_path):
    """A directory to unpack into, beside one that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("untouched")
    (tmp_path / "content").mkdir()
    yield tmp_path / "content"
    assert names(tmp_path / "outside") == ["file"]
    assert (tmp_path / "outside/file").read_text() == "untouched"
    assert (tmp_path / "outside/file").stat().st_nlink == 1


def test_layers_whiteouts_and_holes(tmp_path, target):
    zeros = bytes(4 << 20)
    unpack(
        image(
            tmp_path / "i",
            [
                member("disk/", kind=tarfile.DIRTYPE, mode=0o755),
                member("disk/old", b"x"),
                member("a/b", b"1"),
                member("a/c", b"2"),
                member("gone", b"x"),
            ],
            [
                member("disk/disk.img", zeros + b"end", mode=0o4755),
                member(".wh.gone"),
                member("a/.wh..wh..opq"),
                member("a/new", b"3"),
                member("disk/.wh.old"),
            ],
        ),
        target,
        1 << 30,
        100,
    )
    assert names(target) == ["a", "disk"]
    assert names(target / "a") == ["new"]
    status = (target / "disk/disk.img").stat()
    assert status.st_size == len(zeros) + 3
    assert status.st_blocks * 512 < 1 << 20
    assert status.st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    "evil",
    [
        [member("../outside/file", b"evil")],
        [member("/../../outside/new", b"evil")],
        [member("a", kind=tarfile.SYMTYPE, link="../outside"), member("a/file", b"evil")],
        [member("a", kind=tarfile.SYMTYPE, link="OUTSIDE"), member("a/file", b"evil")],
        [member("a", kind=tarfile.SYMTYPE, link="OUTSIDE/file"), member("a", b"evil")],
        [member("a", kind=tarfile.SYMTYPE, link="OUTSIDE"), member("a/.wh.file")],
        [member("a", kind=tarfile.SYMTYPE, link="OUTSIDE"), member("a/.wh..wh..opq")],
        [member("a", kind=tarfile.SYMTYPE, link="OUTSIDE"), member("a", kind=tarfile.DIRTYPE), member("a/x", b"evil")],
        [member("a", kind=tarfile.LNKTYPE, link="OUTSIDE/file")],
        [member("a", kind=tarfile.LNKTYPE, link="../outside/file")],
        [member("s", kind=tarfile.SYMTYPE, link="OUTSIDE"), member("a", kind=tarfile.LNKTYPE, link="s/file")],
        [member("s", kind=tarfile.SYMTYPE, link="OUTSIDE/file"), member("a", kind=tarfile.LNKTYPE, link="s")],
        [member(".wh..."), member(".wh.."), member("x/.wh.../"), member("..", kind=tarfile.DIRTYPE)],
    ],
)
def test_nothing_leaves_the_directory(tmp_path, target, evil):
    for info, _ in evil:
        info.linkname = info.linkname.replace("OUTSIDE", str(tmp_path / "outside"))
    with contextlib.suppress(UnpackError):
        unpack(image(tmp_path / "i", evil), target, 1 << 20, 100)


def test_devices_are_left_out(tmp_path, target):
    unpack(
        image(tmp_path / "i", [member("null", kind=tarfile.CHRTYPE), member("fifo", kind=tarfile.FIFOTYPE)]),
        target,
        1 << 20,
        10,
    )
    assert names(target) == []


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ([member("big", bytes(3 << 20))], "more than 1 MiB"),
        ([member(f"f{n}") for n in range(20)], "more than 10 files"),
    ],
)
def test_bombs_are_refused(tmp_path, target, layer, message):
    with pytest.raises(UnpackError, match=message):
        unpack(image(tmp_path / "i", layer), target, 1 << 20, 10)


def test_many_whiteouts_take_no_longer_than_files(tmp_path, target):
    count = 20_000
    own = [member(f"own/{number}") for number in range(count)]
    gone = [member(f"gone/.wh.{number}") for number in range(count)]
    started = time.process_time()
    layers = own[:1], [*own, *gone, member("own/.wh.0"), member(".wh.own")]
    unpack(image(tmp_path / "i", *layers), target, 1 << 30, 10**6)
    assert time.process_time() - started < 30
    assert len(names(target / "own")) == count


def test_a_write_that_takes_a_part_only_is_gone_on_with(tmp_path, target, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
    unpack(image(tmp_path / "i", [member("f", b"content " * 1000)]), target, 1 << 20, 10)
    assert (target / "f").read_bytes() == b"content " * 1000


def test_archive_without_end_marker_is_whole(tmp_path, target):
    # tarfile pads to 10240 bytes; umoci writes header and content only.
    content = b"c" * 700
    unpack(image(tmp_path / "i", [member("f", content)], truncate=10240 - 512 - 700), target, 1 << 20, 10)
    assert (target / "f").read_bytes() == content


def test_damaged_layer_has_a_readable_error(tmp_path, target):
    directory = image(tmp_path / "i", [member("f", b"c" * 9000)])
    layer = next(path for path in directory.iterdir() if path.read_bytes()[:2] == b"\x1f\x8b")
    layer.write_bytes(layer.read_bytes()[:-20])
    with pytest.raises(UnpackError, match="is corrupt"):
        unpack(directory, target, 1 << 20, 10)
    command = [sys.executable, "-m", "turtles.standalone.podrunner.unpack", directory, target, "1000", "1000", "9"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


# --- what a header claims ---------------------------------------------------------------------------------------------

HOSTILE = {
    "old GNU": (gnu_sparse(HUGE, (HUGE - 1, 1), content=b"x"), "MiB are accepted"),
    "GNU 0.0": (
        pax(b"x", GNU_sparse_size=str(HUGE), GNU_sparse_numblocks="1", GNU_sparse_offset="0", GNU_sparse_numbytes="1"),
        "MiB are accepted",
    ),
    "GNU 0.1": (pax(b"x", GNU_sparse_size=str(HUGE), GNU_sparse_map=f"{HUGE - 1},1"), "MiB are accepted"),
    "GNU 1.0": (
        pax(
            sparse_map((HUGE - 1, 1)) + b"x", GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize=str(HUGE)
        ),
        "MiB are accepted",
    ),
    "size only": (pax(GNU_sparse_realsize=str(HUGE), GNU_sparse_map="0,0"), "MiB are accepted"),
    "no sparse file": (typed(tarfile.REGTYPE, HUGE), "unpacks to more than"),
    "size in PAX header": (pax(size=str(HUGE)), "unpacks to more than"),
    "unknown kind": (typed(b"Z", HUGE), "is corrupt: unexpected end of data"),
    "negative size": (pax(GNU_sparse_realsize="-1", GNU_sparse_map="0,0"), "negative size"),
    "map backwards": (pax(b"x" * 9, GNU_sparse_size="9", GNU_sparse_map="5,2,0,2"), "a map that doesn't fit"),
    "map beyond the end": (pax(b"x" * 9, GNU_sparse_size="9", GNU_sparse_map="5,20"), "a map that doesn't fit"),
    "map of words": (pax(GNU_sparse_size="9", GNU_sparse_map="a,b"), "is corrupt"),
    "map without end": (
        pax(b"9" * 600, GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize="5"),
        "is corrupt",
    ),
    "long name": (typed(tarfile.GNUTYPE_LONGNAME, HUGE), "PAX headers or names are too"),
    "PAX header": (typed(tarfile.XHDTYPE, HUGE), "PAX headers or names are too"),
    "PAX header for all": (typed(tarfile.XGLTYPE, HUGE), "PAX headers for all files"),
    "many PAX headers for all": (typed(tarfile.XGLTYPE, 0) * 20, "PAX headers for all files"),
    "chain of headers": ((typed(tarfile.GNUTYPE_LONGNAME, 512) + b"n".ljust(512, b"\0")) * 5000, "or names are too"),
    "owner": (pax(uid=str(1 << 70)), "is corrupt"),
    "name with NUL": (pax(path="a\0b"), "is corrupt"),
    "long path": (pax(path="a" * 5000), "too long or too deep"),
    "deep path": (pax(path="a/" * 200 + "b"), "too long or too deep"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_header_claims_costs_nothing(tmp_path, target, case):
    content, message = HOSTILE[case]
    directory = raw_image(tmp_path / "i", content + bytes(1024))
    started = time.process_time()
    with pytest.raises(UnpackError, match=message):
        unpack(directory, target, 64 << 30, 200_000)
    assert time.process_time() - started < 1
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
)
def test_a_sparse_disk_is_unpacked_as_fast_as_its_data(tmp_path, target, options):
    # More extents than fit into an old header.
    data = {
        0: b"begin",
        5 << 30: b"middle" * 20_000,
        7 << 30: b"a",
        9 << 30: b"b",
        11 << 30: b"c",
        (20 << 30) - 3: b"end",
    }
    (tmp_path / "tree/disk").mkdir(parents=True)
    with open(tmp_path / "tree/disk/disk.img", "wb") as file:
        for offset, content in data.items():
            file.seek(offset)
            file.write(content)
    subprocess.run(
        ["tar", "-C", tmp_path / "tree", "--sparse", *options, "-cf", tmp_path / "layer.tar", "disk"], check=True
    )
    layer = (tmp_path / "layer.tar").read_bytes()
    assert len(layer) < 1 << 20
    directory = raw_image(tmp_path / "i", layer)
    started = time.process_time()
    unpack(directory, target, 1 << 20, 100)
    assert time.process_time() - started < 1
    with open(target / "disk/disk.img", "rb") as file:
        for offset, content in data.items():
            file.seek(offset)
            assert file.read(len(content)) == content
        assert file.read() == b""
        file.seek((5 << 30) + 120_000)
        assert not any(file.read(1 << 20))
    status = (target / "disk/disk.img").stat()
    assert status.st_size == 20 << 30
    assert status.st_blocks * 512 < 1 << 20
    with pytest.raises(UnpackError, match=r"disk\.img \(20480 MiB, holes included\) .* at most 10240 MiB"):
        unpack(directory, target, 1 << 20, 100, 10 << 30)


def test_sizes_add_up(tmp_path, target):
    layer = b"".join(pax(GNU_sparse_size=str(1 << 30), GNU_sparse_map="0,0") for _ in range(11))
    with pytest.raises(UnpackError, match="its files are 11264 MiB large; at most 10240 MiB"):
        unpack(raw_image(tmp_path / "i", layer), target, 1 << 20, 100, 10 << 30)


@pytest.mark.parametrize("program", ["gzip", "zstd"])
def test_compressed_zeros_count(tmp_path, target, program):
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    layer = subprocess.run([program, "-c"], input=packed([member("zeros", bytes(40 << 20))]), capture_output=True)
    directory = raw_image(tmp_path / "i", layer.stdout)
    assert len(layer.stdout) < 1 << 20
    unpack(directory, target, 41 << 20, 10)
    with pytest.raises(UnpackError, match="unpacks to more than 1 MiB"):
        unpack(directory, target, 1 << 20, 10)


def test_an_archive_that_zstd_cannot_read_to_its_end_is_damaged(tmp_path, target):
    if shutil.which("zstd") is None:
        pytest.skip("needs zstd")
    layer = subprocess.run(["zstd", "-c"], input=packed([member("a", b"1")])[:1024], capture_output=True).stdout
    with pytest.raises(UnpackError, match="zstd ended with 1"):
        unpack(raw_image(tmp_path / "i", layer + b"\x28\xb5\x2f\xfd damaged"), target, 1 << 20, 10)


def test_folders_on_the_way_count(tmp_path, target):
    with pytest.raises(UnpackError, match="more than 50 files"):
        unpack(raw_image(tmp_path / "i", pax(path="a/" * 60 + "b")), target, 1 << 20, 50)


def test_links_lead_no_deeper_than_paths(tmp_path, target):
    # Each link points to the folder that the one before it has made deeper.
    down = "/".join("d" * 50)
    layer = [member("l0", kind=tarfile.SYMTYPE, link=".")]
    for step in range(10):
        layer += [
            member(f"l{step}/{down}", kind=tarfile.DIRTYPE),
            member(f"l{step + 1}", kind=tarfile.SYMTYPE, link=f"l{step}/{down}"),
        ]
    with pytest.raises(UnpackError, match="is too deep"):
        unpack(image(tmp_path / "i", layer), target, 1 << 20, 10_000)


def test_a_folder_is_emptied_once(tmp_path, target, monkeypatch):
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    link = member("e", kind=tarfile.SYMTYPE, link="d")
    again = [member(f"{folder}/{name}") for name in ("1", ".wh..wh..opq", "2", ".wh..wh..opq") for folder in "de"]
    unpack(image(tmp_path / "i", [member("d/old"), link], again), target, 1 << 30, 100)
    assert len(listed) == 1
    assert names(target / "d") == ["1", "2"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"[" * 100_000, "not JSON"),
        (b"x", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "has no layers"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schemaVersion 1"),
        (b'{"layers": []}', "its configuration is not"),
        (b'{"manifests": []}', "an index of several"),
        (b" " * (5 << 20), "at most 4194304 are accepted"),
        (b'{"layers": [' + b",".join([b"{}"] * 300) + b"]}", "300 layers; at most 200"),
        (b'{"layers": [{"digest": "sha256:../../etc/passwd"}]}', "no valid digest"),
        (b'{"layers": [{"digest": "sha256:%s", "size": -1}]}' % (b"0" * 64), "layer 0 has no valid size"),
        (
            b'{"layers": [{"digest": "sha256:%s", "size": 1, "urls": ["http://[::1]/"]}]}' % (b"0" * 64),
            "from elsewhere",
        ),
        (
            b'{"layers": [{"digest": "sha256:%s", "size": 1}], "config": {"digest": "sha256:%s", "size": 1}}'
            % (b"0" * 64, b"1" * 64),
            "layer 0{64} is missing",
        ),
    ],
)
def test_manifests_that_are_not_accepted(tmp_path, target, manifest, message):
    (tmp_path / "i").mkdir()
    (tmp_path / "i/manifest.json").write_bytes(manifest)
    with pytest.raises(UnpackError, match=message):
        unpack(tmp_path / "i", target, 1 << 20, 10)
