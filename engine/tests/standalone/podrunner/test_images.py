# SPDX-License-Identifier: GPL-3.0-or-later
"""Images nobody vouches for, from registries nobody vouches for, and who may use what is cached of them."""

import functools
import gzip
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from types import SimpleNamespace

import pytest

from turtles.skopeo import readable
from turtles.standalone.podrunner import images, kept_images, skopeo, watch
from turtles.standalone.podrunner.confined import Attempt
from turtles.standalone.podrunner.credentials import logins_for, registry_of, repository_of
from turtles.standalone.podrunner.image_reference import ImageError, default_policy
from turtles.standalone.podrunner.images import ImageLimits, ImageStore

from . import registries
from .entry_points import names
from .layers import HUGE, gnu_sparse, image, member, packed, pax, sparse_map
from .registries import Registry, digest_of, layer, programs, secret

needs_registry = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")
pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A registry that wants credentials."""
    registry = Registry(tmp_path_factory.mktemp("private"), True)
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A registry that wants none."""
    registry = Registry(tmp_path_factory.mktemp("public"), False)
    yield registry
    registry.stop()


@pytest.fixture
def make(tmp_path, request):
    """Make a store, as a podrunner does when it starts; nothing is left under way in the end."""
    addresses = [
        request.getfixturevalue(name).address
        for name in ("private", "public", "hostile")
        if name in request.fixturenames
    ]

    def new(**limits):
        return ImageStore(tmp_path / "images", [tmp_path / "ok"], addresses, ImageLimits(**limits))

    yield new
    assert programs(str(tmp_path)) == []
    assert names(tmp_path / "images/tmp") == []


@pytest.fixture
def store(make):
    """A store with ordinary limits."""
    return make()


def refused(store, reference, policy="IfNotPresent", logins=(), attempt=None):
    """Return why an image is refused."""
    with pytest.raises(ImageError) as error:
        store.ensure(reference, policy, logins, attempt)
    return f"{error.value.reason}: {error.value}"


# --- what a pull may cost ---------------------------------------------------------------------------------------------


def test_a_large_image_is_refused_before_it_is_downloaded(make, hostile):
    kind = "application/vnd.oci.image.layer.v1.tar"
    reference = hostile.add(
        "large", *({"mediaType": kind, "digest": digest_of(bytes([number])), "size": 700 << 20} for number in range(3))
    )
    assert "its layers are 2100 MiB to download, but at most 2048 MiB are accepted" in refused(
        make(max_bytes=2 << 30), reference
    )
    assert not [path for path in hostile.asked if "/blobs/" in path]


def test_an_image_that_has_no_room_is_refused(store, hostile, monkeypatch):
    reference = hostile.add("large", {"mediaType": "x", "digest": digest_of(b""), "size": 700 << 20})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=512 << 20))
    assert "700 MiB to download, but at most 256 MiB are free on the disk" in refused(store, reference)


@pytest.mark.parametrize("size", [1000, 12 << 20])
def test_a_registry_sends_no_more_than_its_manifest_says(store, hostile, size):
    reference = hostile.endless("endless", size)
    started = time.monotonic()
    assert f"{hostile.address} sent more than the" in refused(store, reference)
    assert time.monotonic() - started < 10


def test_a_registry_that_dribbles_is_given_up(store, hostile, monkeypatch):
    monkeypatch.setattr(watch, "_STALL_SECONDS", 0.5)
    reference = hostile.endless("slow", 1 << 30, 0.02, b"x")
    assert f"{hostile.address} sent 0.0 MiB of 1024 MiB, of which less than 1.0 MiB in the last" in refused(
        store, reference
    )


def test_waiting_for_the_disk_is_not_the_registrys_fault(make, hostile, monkeypatch):
    monkeypatch.setattr(watch, "_STALL_SECONDS", 0.2)
    monkeypatch.setattr(watch, "waits_for_disk", lambda pid: True)
    assert "not pulled after 1 s" in refused(make(seconds=1.0), hostile.endless("slow", 1 << 30, 0.02, b"x"))


def test_a_registry_that_says_nothing_is_given_up(store, hostile, monkeypatch):
    monkeypatch.setattr(skopeo, "_INSPECT_TIMEOUT", 0.5)
    hostile.manifests["silent:1"] = hostile.silent
    reference = f"{hostile.address}/silent:1"
    logins = logins_for(reference, [secret(str(number), hostile.address, str(number)) for number in range(20)])
    started = time.monotonic()
    assert "did not send the image's manifest within 0 s" in refused(store, reference, logins=logins)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("kind", "stage"), [("manifest", "asking 127"), ("layer", "downloading it from 127")])
def test_a_pull_has_its_time(make, hostile, kind, stage):
    hostile.manifests["silent:1"] = hostile.silent
    reference = f"{hostile.address}/silent:1" if kind == "manifest" else hostile.endless("slow", 1 << 30, 0.02, b"x")
    assert f"not pulled after 2 s; it was still {stage}" in refused(make(seconds=2.0), reference)


@functools.cache
def zeros(gibibytes):
    """Return a small layer that unpacks to gibibytes of zeros."""
    info, _ = member("disk/zeros")
    info.size = gibibytes << 30
    piece = gzip.compress(bytes(64 << 20))
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + piece * (gibibytes << 4) + gzip.compress(bytes(1024))


def test_unpacking_has_its_time_and_its_size(make, hostile):
    data = zeros(4)
    assert len(data) < 8 << 20
    reference = hostile.add("zeros", data)
    assert "unpacks to more than 1024 MiB: its file disk/zeros has 4096 MiB" in refused(
        make(max_bytes=1 << 30), reference
    )
    # gzip alone takes seconds. On an idle machine the processor's and the clock's are up at the same moment.
    why = refused(make(seconds=2.0), reference)
    assert (
        "not pulled after 2 s; it was still unpacking its layers" in why
        or "unpacking it took more than 2 s of processor time" in why
    )


def test_unpacking_is_cancelled(store, hostile):
    reference, attempt, said = hostile.add("zeros", zeros(4)), store.attempt(), []
    thread = threading.Thread(target=lambda: said.append(refused(store, reference, attempt=attempt)))
    thread.start()
    while "unpacking" not in attempt.stage:
        thread.join(0.01)
        assert thread.is_alive(), said
    attempt.cancel()
    thread.join(60)
    assert said == [f"ErrImagePull: image {reference}: no Pod is waiting for it"]


def test_processor_time_is_limited(make, hostile):
    reference = hostile.add("zeros", zeros(4))
    assert "more than 1 s of processor time" in refused(make(seconds=1.0), reference, attempt=Attempt(60))


def test_a_small_image_with_a_large_hole_is_refused_at_once(store, hostile):
    data = gzip.compress(gnu_sparse(HUGE, (HUGE - 1, 1), content=b"x") + bytes(1024))
    assert len(data) < 2048
    started = time.monotonic()
    said = refused(store, hostile.add("sparse", data))
    assert "disk/sparse.img (1099511627776 MiB, holes included)" in said
    assert "at most 1048576 MiB are accepted" in said
    assert time.monotonic() - started < 10


def test_only_what_a_manifest_names_is_fetched(store, hostile):
    blob = descriptor = registries.descriptor(b"x")
    hostile.add("urls", descriptor | {"urls": [f"http://{hostile.address}/internal"]})
    assert "is to be fetched from elsewhere (urls)" in refused(store, f"{hostile.address}/urls:1")
    assert "/internal" not in hostile.asked
    # Another manifest than was asked for by digest
    digest = digest_of(b"other")
    hostile.manifests[f"other:{digest}"] = registries.manifest(blob)
    assert "sent a manifest other than" in refused(store, f"{hostile.address}/other@{digest}")


def test_an_index_gives_the_image_of_this_machine(store, hostile, monkeypatch):
    monkeypatch.setattr(images.platform, "machine", lambda: "x86_64")
    entries = []
    for architecture in ("arm64", "amd64"):
        hostile.add("multi", layer(name=architecture.encode()))
        raw = hostile.manifests["multi:1"]
        entries.append(
            registries.descriptor(raw, registries.MANIFEST)
            | {"platform": {"os": "linux", "architecture": architecture}}
        )
    hostile.manifests["multi:1"] = json.dumps(
        {"schemaVersion": 2, "mediaType": registries.INDEX, "manifests": entries}
    ).encode()
    digest = store.ensure(f"{hostile.address}/multi:1", "IfNotPresent")
    assert digest == entries[1]["digest"]
    assert (store.kept.path(digest) / "disk/name").read_bytes() == b"amd64"
    monkeypatch.setattr(images.platform, "machine", lambda: "riscv64")
    assert "not made for linux/riscv64; its platforms are: linux/amd64, linux/arm64" in refused(
        store, f"{hostile.address}/multi:1", "Always"
    )


def local_archive(folder, *layers, extra=b""):
    """Write an image as an OCI layout in a tar file."""
    raw = registries.manifest(*layers)
    index = json.dumps({"schemaVersion": 2, "manifests": [registries.descriptor(raw, registries.MANIFEST)]}).encode()
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index} | {
        f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in (raw, registries.CONFIG, *layers)
    }
    folder.mkdir(exist_ok=True)
    archive = folder / "image.tar"
    archive.write_bytes(extra + packed([member(name, content) for name, content in files.items()]))
    return archive


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_of_this_machine_expand_within_limits(make, tmp_path, compressed):
    store = make(max_bytes=30 << 20)
    archive = local_archive(tmp_path / "ok", layer(name=b"content"))
    digest = store.ensure(f"oci-archive:{archive}", "IfNotPresent")
    assert (store.kept.path(digest) / "disk/name").read_bytes() == b"content"
    # Data and hole both: what skopeo expands it to counts.
    local_archive(
        tmp_path / "ok",
        layer(name=b"x"),
        extra=pax(
            sparse_map(((1 << 40) - 1, 1)) + b"x",
            GNU_sparse_major="1",
            GNU_sparse_minor="0",
            GNU_sparse_name="hole",
            GNU_sparse_realsize=str(1 << 40),
        ),
    )
    if compressed:
        archive.write_bytes(gzip.compress(archive.read_bytes()))
    started = time.monotonic()
    assert f"{archive} expands to more than " in refused(store, f"oci-archive:{archive}")
    assert time.monotonic() - started < 10


def test_a_compressed_docker_archive_expands_within_limits(make, tmp_path):
    (tmp_path / "ok").mkdir()
    archive = tmp_path / "ok/image.tar"
    content = [{"Config": "c.json", "Layers": ["layer.tar"], "RepoTags": []}]
    archive.write_bytes(
        gzip.compress(
            packed(
                [
                    member("layer.tar", bytes(64 << 20)),
                    member("c.json", registries.CONFIG),
                    member("manifest.json", json.dumps(content).encode()),
                ]
            )
        )
    )
    said = refused(make(max_bytes=20 << 20), f"docker-archive:{archive}")
    assert f"{archive} expands to more than 20 MiB" in said


def test_a_killed_podrunner_leaves_no_process(tmp_path, hostile):
    reference = hostile.endless("slow", 1 << 30, 0.02, b"x")
    code = (
        "import sys; from pathlib import Path; from turtles.standalone.podrunner.images import ImageStore; "
        "ImageStore(Path(sys.argv[1]), [], [sys.argv[2]]).ensure(sys.argv[3], 'IfNotPresent')"
    )
    podrunner = subprocess.Popen([sys.executable, "-c", code, tmp_path / "images", hostile.address, reference])
    hostile.wait_asked("/blobs/" + digest_of(b"slow"))
    assert programs(f"dir:{tmp_path}")
    podrunner.send_signal(signal.SIGKILL)
    podrunner.wait()
    deadline = time.monotonic() + 5
    while programs(f"dir:{tmp_path}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert names(tmp_path / "images/tmp") != []
    ImageStore(tmp_path / "images")
    assert names(tmp_path / "images/tmp") == []


# --- who may use what is cached ---------------------------------------------------------------------------------------


def asked_nobody(monkeypatch):
    """Let no registry be asked from now on."""
    monkeypatch.setattr(skopeo.Skopeo, "_run", lambda *_: pytest.fail("a registry was asked"))


@needs_registry
def test_a_cached_private_image_needs_credentials(make, private, monkeypatch):
    store = make()
    reference = private.push("team/secret", layer(name=b"private"))
    alice = logins_for(reference, [secret("a", private.address, "alice", namespace="alice")])
    digest = store.ensure(reference, "IfNotPresent", alice)
    assert (store.kept.path(digest) / "disk/name").read_bytes() == b"private"
    wrong = logins_for(reference, [secret("w", private.address, "bob", "guessed", namespace="bob")])
    elsewhere = logins_for(reference, [secret("e", "registry.example.org", "alice", namespace="bob")])
    assert elsewhere == []
    for logins in ([], wrong):
        assert "unauthorized" in refused(store, reference, logins=logins) or "authentication required" in refused(
            store, reference, logins=logins
        )
        by_digest = f"{repository_of(reference)}@{digest}"
        assert refused(store, by_digest, logins=logins).startswith("ErrImagePull")
        said = refused(store, reference, "Never", logins)
        assert said.startswith(f"ErrImageNeverPull: image {reference} is present on this node, but its pull policy")
    # Others prove it once; nothing is sent again.
    bob = logins_for(reference, [secret("b", private.address, "bob", namespace="bob")])
    monkeypatch.setattr(skopeo.Skopeo, "download", lambda *_: pytest.fail("the image is here"))
    assert store.ensure(reference, "IfNotPresent", [*wrong, *bob]) == digest
    assert store.ensure(reference, "Always", bob) == digest
    # From then on without the registry, by either policy, also after a restart.
    asked_nobody(monkeypatch)
    for again in (store, make()):
        for logins in (alice, bob):
            assert again.present(reference, "IfNotPresent", logins) == digest
            assert again.present(reference, "Never", logins) == digest
        assert again.present(reference, "IfNotPresent", wrong) is None


@needs_registry
def test_a_renewed_secret_and_an_equal_one_are_known(store, private, monkeypatch):
    reference = private.push("team/renewed", layer(name=b"renewed"))

    def of(name, password=registries.PASSWORD, uid=None, namespace="default"):
        return logins_for(reference, [secret(name, private.address, "alice", password, namespace, uid)])

    digest = store.ensure(reference, "IfNotPresent", of("a"))
    asked_nobody(monkeypatch)
    # KEP-2535: another Secret with equal credentials, the same Secret with renewed ones, then another with these
    assert store.present(reference, "IfNotPresent", of("b", namespace="other")) == digest
    assert store.present(reference, "IfNotPresent", of("x", "renewed")) is None
    assert store.present(reference, "IfNotPresent", of("a", "renewed")) == digest
    assert store.present(reference, "IfNotPresent", of("x", "renewed")) == digest
    # One that was deleted and made again is another one.
    assert store.present(reference, "IfNotPresent", of("a", "guessed", uid="another")) is None
    assert store.present(reference, "IfNotPresent", of("a", "guessed", namespace="other")) is None


@needs_registry
def test_what_an_image_says_is_kept_also_of_one_that_is_here(store, private, tmp_path):
    reference = private.push("team/says", layer(name=b"says"))
    logins = logins_for(reference, [secret("a", private.address)])
    digest = store.ensure(reference, "IfNotPresent", logins)
    said = store.kept.config(digest)
    assert said is not None
    # As an earlier version left it.
    (kept,) = (tmp_path / "images/configs").iterdir()
    kept.unlink()
    assert store.kept.config(digest) is None
    assert store.ensure(reference, "IfNotPresent", logins) == digest
    assert store.kept.config(digest) is None
    assert store.ensure(reference, "Always", logins) == digest
    assert store.kept.config(digest) == said


@needs_registry
def test_records_hold_no_secrets_and_go_with_their_image(store, private, tmp_path, monkeypatch):
    reference = private.push("team/gone", layer(name=b"gone"))
    login = secret("a", private.address)
    digest = store.ensure(reference, "IfNotPresent", logins_for(reference, [login]))
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file() and "unpacked" not in path.parts]
    assert len(files) == 4
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert registries.PASSWORD not in path.read_text()
        assert logins_for(reference, [login])[0].auth not in path.read_text()
    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o700
    os.utime(store.kept.path(digest), (0, 0))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(used=99, total=100, free=1 << 40))
    assert store.kept.collect(set()) == [digest.removeprefix("sha256:")]
    assert names(tmp_path / "images/pulled") == ["key"]
    assert names(tmp_path / "images/refs") == []


@needs_registry
def test_a_public_image_is_everybodys(store, public, monkeypatch):
    reference = public.push("team/open", layer(name=b"open"))
    digest = store.ensure(reference, "IfNotPresent")
    asked_nobody(monkeypatch)
    assert store.present(reference, "IfNotPresent") == digest
    assert store.present(reference, "Never", logins_for(reference, [secret("a", public.address)])) == digest


@needs_registry
def test_a_registry_that_is_down(store, private):
    reference = private.push("team/down", layer(name=b"down"))
    alice = logins_for(reference, [secret("a", private.address)])
    digest = store.ensure(reference, "IfNotPresent", alice)
    private.stop()
    try:
        assert store.ensure(reference, "IfNotPresent", alice) == digest
        assert "connection refused" in refused(store, reference)
        assert "connection refused" in refused(store, reference, "Always", alice)
    finally:
        private.start()


@needs_registry
def test_a_manifest_from_elsewhere_is_no_proof(store, private, hostile):
    blob = layer(name=b"mine")
    reference = private.push("team/mine", blob)
    digest = store.ensure(reference, "IfNotPresent", logins_for(reference, [secret("a", private.address)]))
    # Somebody knows the manifest, which is no secret, but hasn't got the layers.
    known = hostile.add("copy", registries.descriptor(blob))
    assert digest_of(hostile.manifests["copy:1"]) == digest
    assert refused(store, known).startswith("ErrImagePull")
    assert refused(store, f"{hostile.address}/copy@{digest}").startswith("ErrImagePull")
    hostile.blobs[digest_of(blob)] = blob
    assert store.ensure(known, "IfNotPresent") == digest


def test_what_was_there_before_there_were_records_is_preloaded(store, hostile, tmp_path, monkeypatch):
    reference = hostile.add("old", layer(name=b"old"))
    digest = store.ensure(reference, "IfNotPresent")
    next((tmp_path / "images/pulled").glob("*.json")).unlink()
    asked_nobody(monkeypatch)
    assert store.present(reference, "IfNotPresent") == digest


@needs_registry
def test_files_of_this_machine_are_everybodys_by_their_name_only(store, private, tmp_path, monkeypatch):
    blob = layer(name=b"both")
    reference = private.push("team/both", blob)
    digest = store.ensure(reference, "IfNotPresent", logins_for(reference, [secret("a", private.address)]))
    archive = local_archive(tmp_path / "ok", blob)
    assert store.ensure(f"oci-archive:{archive}", "IfNotPresent") == digest
    assert refused(store, reference).startswith("ErrImagePull")


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_images_are_whole_or_not_there(tmp_path, monkeypatch):
    store = ImageStore(tmp_path / "images")
    content = store.kept.path("sha256:1")
    (content / "disk").mkdir(parents=True)
    os.utime(content, (0, 0))
    monkeypatch.setattr(kept_images, "_DISK_HIGH", 0.0)
    # As if it were killed just when it begins to remove.
    monkeypatch.setattr(kept_images, "remove_tree", lambda path: seen.append(content.exists()))
    seen = []
    assert store.kept.collect(set()) == ["1"]
    assert seen == [False]
    monkeypatch.undo()
    (tmp_path / "images/tmp/pull").mkdir()
    ImageStore(tmp_path / "images")
    assert names(tmp_path / "images/tmp") == []


def test_local_references_stay_in_the_allowed_directories(tmp_path):
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok/link").symlink_to("/etc/passwd")
    store = ImageStore(tmp_path / "images", [tmp_path / "ok"])
    for reference in (
        "oci:/etc",
        f"oci-archive:{tmp_path}/ok/../x",
        f"docker-archive:{tmp_path}/ok/link",
        "a b",
        "oci:relative/../..",
        "../up",
        "-oProxy=x",
    ):
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
    monkeypatch.setattr(skopeo.Skopeo, "load", lambda *_: layout)
    reference = f"oci:{layout}"
    digest = store.ensure(reference, "IfNotPresent")
    assert store.present(reference, "IfNotPresent") == digest
    os.utime(store.kept.path(digest), (0, 0))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(used=99, total=100, free=1 << 40))
    assert store.kept.collect(set()) == [digest.removeprefix("sha256:")]
    assert not list((tmp_path / "images/refs").iterdir())


def test_words():
    assert default_policy("a/b") == default_policy("host:5000/a:latest") == "Always"
    assert default_policy("host:5000/a:1") == default_policy("a@sha256:" + "0" * 64) == "IfNotPresent"
    assert registry_of("127.0.0.1:5000/a:1") == "127.0.0.1:5000"
    assert registry_of("library/a") == "docker.io"
    assert readable('time="x" level=fatal msg="reading \\"a\\": manifest unknown"') == 'reading "a": manifest unknown'
