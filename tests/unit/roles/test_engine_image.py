# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The programs of the role engine_image: layers and images, and what makes a layer be built anew."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import engine_image
import oci
import pytest
import wheels

FILES = Path(engine_image.__file__).parent
EPOCH = 1_700_000_000


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def members(store: Path, layer: oci.Layer) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(store / layer.digest.partition(":")[2]) as tar:
        return {member.name: member for member in tar}


def test_equal_folders_make_equal_layers(tmp_path: Path) -> None:
    files = {"b/two": "2", "a": "1", "b/one": "1"}
    first = tree(tmp_path / "first", files)
    second = tree(tmp_path / "second", dict(reversed(files.items())))
    for path in [second, *second.rglob("*")]:
        os.utime(path, (EPOCH + 5, EPOCH + 7))
    for path in [first, *first.rglob("*")]:
        os.utime(path, (EPOCH + 100, EPOCH + 100))
    store = tmp_path / "store"
    assert oci.write_layer(first, store, EPOCH) == oci.write_layer(second, store, EPOCH)
    found = members(store, oci.write_layer(first, store, EPOCH))
    assert list(found) == ["a", "b", "b/one", "b/two"]
    assert {member.mtime for member in found.values()} == {EPOCH}


def test_an_upper_layer_has_what_differs_and_says_what_is_gone(tmp_path: Path) -> None:
    below = tree(tmp_path / "below", {"same": "s", "changed": "1", "gone/deep": "x", "gone2": "y"})
    index = oci.index(below)
    above = tmp_path / "above"
    shutil.copytree(below, above, symlinks=True)
    shutil.rmtree(above / "gone")
    (above / "gone2").unlink()
    (above / "changed").write_text("2")
    (above / "link").symlink_to("same")
    found = members(tmp_path / "store", oci.write_layer(above, tmp_path / "store", EPOCH, index))
    assert set(found) == {"changed", "link", ".wh.gone", ".wh.gone2"}
    assert found["link"].linkname == "same"


def test_no_program_makes_anybody_somebody_else(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"su": "x"})
    (root / "su").chmod(0o4755)
    found = members(tmp_path / "store", oci.write_layer(root, tmp_path / "store", EPOCH))
    assert oct(found["su"].mode) == "0o755"


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo judges the images")
def test_tools_read_layout_and_archive(tmp_path: Path) -> None:
    store, layout = tmp_path / "store", tmp_path / "layout"
    layer = oci.write_layer(tree(tmp_path / "root", {"etc/passwd": "x"}), store, EPOCH)
    images = {"turtles-engine": ([layer], {"User": "1001:1001"}), "turtles-launcher": ([layer, layer], {})}
    made = oci.write_images(layout, store, images, EPOCH, "x86_64")

    def inspect(reference: str, *options: str) -> dict:
        done = subprocess.run(["skopeo", "inspect", *options, reference], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    found = inspect(f"oci:{layout}:turtles-engine")
    assert found["Digest"] == made["turtles-engine"]["digest"]
    assert found["Architecture"] == "amd64"
    assert inspect(f"oci:{layout}:turtles-engine", "--config")["config"]["User"] == "1001:1001"
    archive = tmp_path / "images.tar"
    oci.write_archive(layout, archive, {name: f"localhost/t/{name}:1" for name in images})
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))
    names = [manifest["annotations"]["io.containerd.image.name"] for manifest in index["manifests"]]
    assert names == ["localhost/t/turtles-engine:1", "localhost/t/turtles-launcher:1"]


def test_a_layer_comes_back_as_it_was(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"a/b": "content"})
    layer = oci.write_layer(root, tmp_path / "store", EPOCH)
    back = tmp_path / "back"
    back.mkdir()
    oci.extract_layer(tmp_path / "store", layer, back)
    assert oci.index(back) == oci.index(root)
    assert oci.Layer(**oci.layer_as_json(layer)) == layer


def make_wheel(folder: Path, source: str, *requirements: str) -> Path:
    path = folder / f"turtles-1.2.3+g{source}-py3-none-any.whl"
    lines = "".join(f"Requires-Dist: {line}\n" for line in requirements)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("turtles-1.2.3.dist-info/METADATA", f"Metadata-Version: 2.1\nName: turtles\n{lines}")
    return path


LOCK = {"aiohttp": "3.14.5", "cel-expr-python": "0.1.3", "libvirt-python": "12.8.0", "yarl": "1.25.1"}


def make_lock(folder: Path, packages: Mapping[str, str] = MappingProxyType(LOCK)) -> Path:
    """Write a lock file as uv does."""
    path = folder / "requirements.lock"
    entries = (
        f"{name}=={version} \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n    # via turtles\n"
        for name, version in packages.items()
    )
    path.write_text("# This file was autogenerated\n" + "".join(entries))
    return path


def locked(*names: str) -> list[str]:
    return [f"{name}=={LOCK[name]} --hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}" for name in names]


def builder(tmp_path: Path, wheel: Path, *options: str) -> engine_image.Builder:
    lock = make_lock(tmp_path) if not (tmp_path / "requirements.lock").exists() else tmp_path / "requirements.lock"
    words = [f"--wheel={wheel}", f"--lock={lock}", f"--cache={tmp_path / 'cache'}", "--packages=b,a"]
    words += ["--launcher-packages=q", *options]
    return engine_image.Builder(engine_image.parser().parse_args(words))


def test_what_changes_decides_what_is_built_anew(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "aaaaaaaaaaaa", "aiohttp>=3", "libvirt-python>=9.0")
    first = builder(tmp_path, wheel)
    # What it needs by way of others is in the lock file; libvirt's bindings are the distribution's
    assert first.requirements == locked("aiohttp", "yarl")
    assert first.tag.startswith("1.2.3-")
    assert len(first.tag) == len("1.2.3-") + 12
    assert builder(tmp_path, wheel).tag == first.tag
    changed = builder(tmp_path, make_wheel(tmp_path, "bbbbbbbbbbbb", "aiohttp>=3"))
    assert {name for name in first.keys if first.keys[name] != changed.keys[name]} == {"engine"}
    make_lock(tmp_path, {**LOCK, "msgspec": "0.23.0"})
    more = builder(tmp_path, make_wheel(tmp_path, "cccccccccccc", "aiohttp>=3", "msgspec"))
    assert {name for name in first.keys if first.keys[name] != more.keys[name]} == {"engine", "packages"}
    make_lock(tmp_path)
    refreshed = builder(tmp_path, wheel, "--revision=today")
    assert not set(first.keys.values()) & set(refreshed.keys.values())
    assert len({first.tag, changed.tag, more.tag, refreshed.tag}) == 4


def test_nothing_is_built_to_say_what_would_be(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "aaaaaaaaaaaa")
    words = [f"--wheel={wheel}", f"--lock={make_lock(tmp_path)}", f"--cache={tmp_path / 'cache'}", "--packages=a"]
    words += ["--launcher-packages=q", "--check"]
    done = subprocess.run(
        [sys.executable, FILES / "engine_image.py", *words], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["changed"]
    assert "images" not in found
    assert not (tmp_path / "cache").exists()


def test_a_wheel_of_somebody_else_is_named(tmp_path: Path) -> None:
    other = tmp_path / "requests-2.0-py3-none-any.whl"
    with pytest.raises(engine_image.BuildError, match=r"requests-2\.0-py3-none-any\.whl is not a wheel of the engine"):
        engine_image.wheel_identity(other)


def test_a_package_that_is_not_locked_is_named(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "aaaaaaaaaaaa", "aiohttp>=3", "PyYAML>=6")
    with pytest.raises(engine_image.BuildError, match=r"requirements\.lock doesn't have PyYAML.*make lock"):
        builder(tmp_path, wheel)


@pytest.mark.parametrize("tampered", [False, True])
def test_pip_takes_only_files_whose_hashes_are_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tampered: bool
) -> None:
    """The step of the packages' layer with a pip and an index (a folder) as they are."""
    index = tmp_path / "index"
    index.mkdir()
    name = "example_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(index / name, "w") as package:
        package.writestr("example_package.py", "")
        package.writestr(
            "example_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: example-package\nVersion: 1.0\n"
        )
        package.writestr(
            "example_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        package.writestr("example_package-1.0.dist-info/RECORD", "")
    digest = "0" * 64 if tampered else hashlib.sha256((index / name).read_bytes()).hexdigest()
    (tmp_path / "requirements.lock").write_text(f"example-package==1.0 \\\n    --hash=sha256:{digest}\n")
    wheel = make_wheel(tmp_path, "aaaaaaaaaaaa", "example_package>=1")
    found = builder(tmp_path, wheel, "--pip-argument=--no-index", f"--pip-argument=--find-links={index}")
    root = tmp_path / "scratch" / "root"
    site = root / "site"
    site.mkdir(parents=True)
    monkeypatch.setattr(found, "_base_with_site", lambda root: site)
    monkeypatch.setattr(engine_image, "compile_modules", lambda *arguments: None)
    if tampered:
        with pytest.raises(engine_image.BuildError, match="HASHES"):
            found._make_packages(root)
        assert not list(site.iterdir())
    else:
        found._make_packages(root)
        assert (root.with_name("upper") / "site" / "example_package.py").exists()


def test_another_architecture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_image.platform, "machine", lambda: "aarch64")
    with pytest.raises(engine_image.BuildError, match=r"this machine is aarch64, .* on x86_64 \(amd64\) only"):
        builder(tmp_path, make_wheel(tmp_path, "aaaaaaaaaaaa"))


def test_the_two_youngest_images_are_kept(tmp_path: Path) -> None:
    found = builder(tmp_path, make_wheel(tmp_path, "aaaaaaaaaaaa", "cel-expr-python>=0.1", "aiohttp>=3"))
    # Of no use where Kubernetes has its own
    assert found.requirements == locked("aiohttp", "yarl")
    images = tmp_path / "cache" / "images"
    for number, name in enumerate(("1.0-a", "1.0-b", "1.0-c")):
        (images / name).mkdir(parents=True)
        (images / f"{name}.tar").touch()
        os.utime(images / name, (number, number))
    (tmp_path / "cache" / "keys").mkdir()
    found._prune()
    assert sorted(path.name for path in images.iterdir()) == ["1.0-b", "1.0-b.tar", "1.0-c", "1.0-c.tar"]


def test_what_images_leave_out_is_imported_by_standalone_mode_alone() -> None:
    sources = Path(__file__).parents[3] / "engine" / "src" / "turtles"
    left_out = set(wheels.ONLY_STANDALONE.values())
    importing: dict[str, set[str]] = {}
    for path in sources.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in left_out.intersection(each.partition(".")[0] for each in names):
                importing.setdefault(name, set()).add(path.relative_to(sources).parts[0])
    # A name that nothing imports would be misspelt
    assert importing == {name: {"standalone"} for name in left_out}
