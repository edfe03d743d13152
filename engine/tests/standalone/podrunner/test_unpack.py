# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of images nobody vouches for."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from types import SimpleNamespace

import pytest

from turtles.standalone.podrunner import images
from turtles.standalone.podrunner.images import ImageError, ImageStore, default_policy, readable, registry_of
from turtles.standalone.podrunner.unpack import UnpackError, unpack

from .entry_points import names


def member(name, content=None, kind=tarfile.REGTYPE, link="", mode=0o644):
    """Return a tar member with its content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content or b"")
    info.uid, info.gid = os.getuid(), os.getgid()
    return info, content or b""


def image(directory, *layers, truncate=0):
    """Write an image as skopeo's dir: transport does."""
    directory.mkdir()
    digests = []
    for layer in layers:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for info, content in layer:
                archive.addfile(info, io.BytesIO(content))
        data = gzip.compress(raw.getvalue()[: -truncate or None])
        digest = hashlib.sha256(data).hexdigest()
        (directory / digest).write_bytes(data)
        digests.append({"digest": f"sha256:{digest}"})
    (directory / "manifest.json").write_text(json.dumps({"layers": digests}))
    return directory


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
    unpack(image(
        tmp_path / "i",
        [member("disk/", kind=tarfile.DIRTYPE, mode=0o755), member("disk/old", b"x"), member("a/b", b"1"),
         member("a/c", b"2"), member("gone", b"x")],
        [member("disk/disk.img", zeros + b"end", mode=0o4755), member(".wh.gone"), member("a/.wh..wh..opq"),
         member("a/new", b"3"), member("disk/.wh.old")],
    ), target, 1 << 30, 100)
    assert names(target) == ["a", "disk"]
    assert names(target / "a") == ["new"]
    status = (target / "disk/disk.img").stat()
    assert status.st_size == len(zeros) + 3
    assert status.st_blocks * 512 < 1 << 20
    assert status.st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("evil", [
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
])
def test_nothing_leaves_the_directory(tmp_path, target, evil):
    for info, _ in evil:
        info.linkname = info.linkname.replace("OUTSIDE", str(tmp_path / "outside"))
    with contextlib.suppress(UnpackError):
        unpack(image(tmp_path / "i", evil), target, 1 << 20, 100)


def test_devices_are_left_out(tmp_path, target):
    unpack(image(tmp_path / "i", [member("null", kind=tarfile.CHRTYPE), member("fifo", kind=tarfile.FIFOTYPE)]),
           target, 1 << 20, 10)
    assert names(target) == []


@pytest.mark.parametrize(("layer", "message"), [
    ([member("big", bytes(3 << 20))], "more than 1 MiB"), ([member(f"f{n}") for n in range(20)], "more than 10 files")])
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


def test_images_are_whole_or_not_there(tmp_path, monkeypatch):
    store = ImageStore(tmp_path / "images")
    content = store.path("sha256:1")
    (content / "disk").mkdir(parents=True)
    os.utime(content, (0, 0))
    monkeypatch.setattr(images, "_DISK_HIGH", 0.0)
    # As if it were killed just when it begins to remove.
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: seen.append(content.exists()))
    seen = []
    assert store.collect(set()) == ["1"]
    assert seen == [False]
    monkeypatch.undo()
    (tmp_path / "images/tmp/pull").mkdir()
    ImageStore(tmp_path / "images")
    assert names(tmp_path / "images/tmp") == []


def test_archive_without_end_marker_is_whole(tmp_path, target):
    # tarfile pads to 10240 bytes; umoci writes header and content only.
    content = b"c" * 700
    unpack(image(tmp_path / "i", [member("f", content)], truncate=10240 - 512 - 700), target, 1 << 20, 10)
    assert (target / "f").read_bytes() == content


def test_damaged_layer_has_a_readable_error(tmp_path, target):
    directory = image(tmp_path / "i", [member("f", b"c" * 9000)])
    layer = next(path for path in directory.iterdir() if path.name != "manifest.json")
    layer.write_bytes(layer.read_bytes()[:-20])
    with pytest.raises(UnpackError, match="is damaged"):
        unpack(directory, target, 1 << 20, 10)
    done = subprocess.run([sys.executable, "-m", "turtles.standalone.podrunner.unpack", directory, target, "1000", "9"],
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_local_references_stay_in_the_allowed_directories(tmp_path):
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok/link").symlink_to("/etc/passwd")
    store = ImageStore(tmp_path / "images", [tmp_path / "ok"])
    for reference in ("oci:/etc", f"oci-archive:{tmp_path}/ok/../x", f"docker-archive:{tmp_path}/ok/link", "a b",
                      "oci:relative/../..", "../up", "-oProxy=x"):
        with pytest.raises(ImageError) as error:
            store.ensure(reference, "IfNotPresent")
        assert error.value.reason in ("ErrImagePull", "InvalidImageName"), reference
    with pytest.raises(ImageError, match="does not exist") as error:
        store.ensure(f"oci-archive:{tmp_path}/ok/missing.tar", "Always")
    with pytest.raises(ImageError) as error:
        store.ensure("registry.example.org/x:1", "Never")
    assert error.value.reason == "ErrImageNeverPull"


def test_what_is_known_of_an_image_goes_with_it(tmp_path, monkeypatch):
    layout = tmp_path / "ok/layout"
    shutil.copytree(image(tmp_path / "made", [member("f", b"c")]), layout)
    (layout / "index.json").write_text("{}")
    store = ImageStore(tmp_path / "images", [tmp_path / "ok"])
    monkeypatch.setattr(store, "_skopeo", lambda reference, url, content, *_rest: shutil.copytree(layout, content))
    reference = f"oci:{layout}"
    digest = store.ensure(reference, "IfNotPresent")
    assert store.present(reference, "IfNotPresent") == digest
    assert not store._locks, "nobody waits for it any more"
    os.utime(store.path(digest), (0, 0))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(used=99, total=100, free=1 << 40))
    assert store.collect(set()) == [digest.removeprefix("sha256:")]
    assert not list((tmp_path / "images/refs").iterdir())


def test_words():
    assert default_policy("a/b") == default_policy("host:5000/a:latest") == "Always"
    assert default_policy("host:5000/a:1") == default_policy("a@sha256:" + "0" * 64) == "IfNotPresent"
    assert registry_of("127.0.0.1:5000/a:1") == "127.0.0.1:5000"
    assert registry_of("library/a") == "docker.io"
    assert readable('time="x" level=fatal msg="reading \\"a\\": manifest unknown"') == 'reading "a": manifest unknown'
