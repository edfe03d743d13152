# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of container images that the importer pulls from a private registry with TLS."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_registry import PASSWORD, USER, ImageRegistry, layer, registry_at

from turtles.importer import pulled
from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.main import main
from turtles.importer.progress import Progress
from turtles.importer.registry_client import Image, connected
from turtles.importer.target import Target

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-img", "skopeo", "docker-registry"))),
    reason="needs qemu-img, skopeo and docker-registry",
)
MIB = 1 << 20
DISK = b"x" * 5 * MIB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageRegistry]:
    with registry_at(tmp_path_factory.mktemp("registry")) as found:
        found.push("web", layer(("disk/root.img", DISK)))
        yield found


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "accessKeyId").write_text(USER)
    (folder / "secretKey").write_text(PASSWORD)
    return folder


@pytest.fixture
def authorities(tmp_path: Path, server: ImageRegistry) -> Path:
    folder = tmp_path / "authorities"
    folder.mkdir()
    shutil.copy(server.authority, folder / "registry.pem")
    return folder


@pytest.fixture
def image(server: ImageRegistry, secret: Path, authorities: Path) -> Image:
    return Image(f"{server.address}/web:1", secret, authorities)


def run(image: Image, folder: Path, size: int = 8 * MIB) -> bytes:
    claim, scratch = folder / "claim", folder / "scratch"
    claim.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    progress = Progress("uid")
    try:
        pulled.run(image, Target(claim, size), scratch, progress)
    finally:
        assert [path.name for path in claim.iterdir()] in ([], ["disk.img"])
        assert list(scratch.iterdir()) == []
    assert progress.done == 1.0
    return (claim / "disk.img").read_bytes()


def named(image: Image, name: str, **changes: object) -> Image:
    fields = {"credentials": image.credentials, "authorities": image.authorities, **changes}
    return Image(f"{image.registry}/{name}", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("format_", ["raw", "qcow2", "gz"])
def test_the_disk_of_an_image(tmp_path: Path, server: ImageRegistry, image: Image, format_: str) -> None:
    (tmp_path / "raw").write_bytes(DISK)
    if format_ == "gz":
        content = gzip.compress(DISK)
    else:
        command = ["qemu-img", "convert", "-f", "raw", "-O", format_, tmp_path / "raw", tmp_path / "disk"]
        subprocess.run(command, check=True)
        content = (tmp_path / "disk").read_bytes()
    base = layer(("etc/os-release", b"debian"), ("disk/old.img", b"old"))
    server.push(format_, base, layer(("disk/.wh.old.img", b""), ("./disk/root", content)))
    assert run(named(image, f"{format_}:1"), tmp_path) == DISK + bytes(3 * MIB)


def test_what_an_earlier_process_left_is_in_nobodys_way(tmp_path: Path, image: Image) -> None:
    (tmp_path / "scratch/layers").mkdir(parents=True)
    (tmp_path / "scratch/layers/version").write_text("half")
    assert run(image, tmp_path).startswith(DISK)


def test_a_platform_is_chosen(tmp_path: Path, server: ImageRegistry, image: Image) -> None:
    digest = server.push_platforms(
        "both", amd64=layer(("disk/a", b"amd64" * 1000)), arm64=layer(("disk/a", b"arm64" * 1000))
    )
    both = named(image, "both:1", architecture="arm64")
    assert run(both, tmp_path).startswith(b"arm64")
    assert run(named(image, f"both:1@{digest}", architecture="amd64"), tmp_path).startswith(b"amd64")
    with pytest.raises(ImportRefused, match=r"not made for linux/s390x; its platforms are: linux/amd64, linux/arm64"):
        run(named(image, "both:1", architecture="s390x"), tmp_path / "scratch")


def test_what_a_tag_stands_for(server: ImageRegistry, image: Image) -> None:
    digest = server.push("moving", layer(("disk/a", b"first")))
    with connected(named(image, "moving:1")) as client:
        assert client.digest() == digest
    server.push("moving", layer(("disk/a", b"second")))
    with connected(named(image, "moving:1")) as client:
        assert client.digest() != digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"credentials": None}, "give its credentials with secretRef"),
        ({"authorities": None}, "name the authority of the registry's certificate with certConfigMap"),
    ],
)
def test_access_that_is_missing(tmp_path: Path, image: Image, changes: dict, words: str) -> None:
    with pytest.raises(ImportFailed, match=words) as error:
        run(named(image, "web:1", **changes), tmp_path)
    assert not isinstance(error.value, ImportRefused)


def test_access_that_is_wrong(tmp_path: Path, image: Image, secret: Path, authorities: Path) -> None:
    (secret / "secretKey").write_text("wrong")
    with pytest.raises(ImportFailed, match=r"check the credentials in the Secret of secretRef"):
        run(image, tmp_path)
    (secret / "secretKey").unlink()
    with pytest.raises(ImportRefused, match="needs the keys accessKeyId and secretKey"):
        run(image, tmp_path)
    (secret / "secretKey").write_text(PASSWORD)
    for file in authorities.iterdir():
        file.unlink()
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = ["-subj", "/CN=other", "-keyout", tmp_path / "key", "-out", authorities / "other.pem"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    with pytest.raises(ImportFailed, match=r"check the CA certificates in the ConfigMap of certConfigMap"):
        run(image, tmp_path)
    assert run(named(image, "web:1", authorities=None, verify=False), tmp_path).startswith(DISK)


def test_an_image_that_is_not_there(tmp_path: Path, image: Image) -> None:
    with pytest.raises(ImportFailed, match=r"nothing:1.*manifest unknown"):
        run(named(image, "nothing:1"), tmp_path)


def link(name: str) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = tarfile.SYMTYPE, "/etc/shadow"
    return found


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("etc/motd", b"hello")], "is not a containerDisk"),
        ([("disk/a", b"a"), ("disk/b", b"b")], r"has 2 files in /disk \(a, b\)"),
        ([link("disk/a")], "/disk/a that is not a regular file"),
        ([("disk/a", bytes(30 * MIB))], "larger claim is required"),
        ([("disk/a", b"")], "is empty"),
    ],
)
def test_images_without_a_disk_that_can_be_used(
    tmp_path: Path, server: ImageRegistry, image: Image, members: list, words: str
) -> None:
    server.push("odd", layer(*members))
    with pytest.raises(ImportRefused, match=words):
        run(named(image, "odd:1"), tmp_path)


def test_a_layer_that_is_no_archive(tmp_path: Path, server: ImageRegistry, image: Image) -> None:
    server.push("broken", gzip.compress(b"no archive" * 1000))
    with pytest.raises(ImportRefused, match="the archive is corrupt"):
        run(named(image, "broken:1"), tmp_path)


def test_the_command_says_the_digest(
    image: Image, server: ImageRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    said.touch()
    monkeypatch.setattr("turtles.termination.TERMINATION_LOG", said)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    arguments = ["digest", f"--image={image.reference}", f"--credentials={image.credentials}"]
    assert main([*arguments, f"--authorities={image.authorities}"]) == 0
    with connected(image) as client:
        assert said.read_text() == client.digest()
