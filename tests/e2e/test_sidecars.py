# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs beside a guest in its Pod, images of sidecars included."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from scenarios import shared, sidecars
from scenarios.sidecars import BOARD, program, see_what_sidecars_do

globals().update(shared(sidecars))
# The test below starts a guest with such programs as well.
del globals()["test_programs_change_the_guest"]

#: What a sidecar in Python needs besides: the server of hooks, and what it speaks gRPC with.
_PACKAGES = ("turtles", "grpclib", "h2", "hpack", "hyperframe", "multidict", "google")
#: Of the standard library, what takes most of the room and isn't needed.
_UNUSED = shutil.ignore_patterns("test", "tests", "__pycache__", "idlelib", "lib2to3", "ensurepip", "config-*", "*.a")


@pytest.fixture
def image(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """A reference to an image with a sidecar of its own: Debian's Python, and a program that adds a base board."""
    if shutil.which("umoci") is None:
        pytest.skip("umoci is not installed")
    python = Path(f"/opt/{cluster.instance}/venv/bin/python3").resolve()
    library = python.parents[1] / "lib" / python.name
    (packages,) = Path(f"/opt/{cluster.instance}/venv/lib").glob("python3*/site-packages")
    root = tmp_path / "root"
    shutil.copytree(library, root / library.relative_to("/"), ignore=_UNUSED, symlinks=True)
    for package in _PACKAGES:
        shutil.copytree(packages / package, root / library.relative_to("/") / package, ignore=_UNUSED)
    programs = [python, Path("/bin/sh").resolve(), Path("/bin/sed").resolve()]
    modules = [*(root / library.relative_to("/")).rglob("*.so")]
    found = subprocess.run(["ldd", *programs, *modules], check=False, capture_output=True, text=True).stdout
    for path in {*map(str, programs), *re.findall(r"(/\S+) \(0x", found)}:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    (root / "bin").mkdir(exist_ok=True)
    for name, path in (("sh", programs[1]), ("sed", programs[2])):
        if not (root / "bin" / name).exists():
            (root / "bin" / name).symlink_to(path)
    hook = root / "hooks/onDefineDomain"
    hook.parent.mkdir()
    hook.write_text(f'#!/bin/sh\nprintf %s "$4" | sed "s,</sysinfo>,{BOARD}</sysinfo>,"\n')
    hook.chmod(0o755)
    for path in (root, *(each for each in root.rglob("*") if each.is_dir())):
        path.chmod(0o755)
    layout = Path(f"/var/lib/{cluster.instance}/images/sidecar")
    shutil.rmtree(layout, ignore_errors=True)
    for words in (
        ("init", "--layout", layout),
        ("new", "--image", f"{layout}:board"),
        ("insert", "--image", f"{layout}:board", root, "/"),
        ("config", "--image", f"{layout}:board", "--config.env=PATH=/hooks:/bin"),
        (
            *("config", "--image", f"{layout}:board", f"--config.entrypoint={python}", "--config.entrypoint=-m"),
            "--config.entrypoint=turtles.launcher.hook_shim",
        ),
    ):
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)
    yield f"oci:{layout}:board"
    shutil.rmtree(layout)


@pytest.mark.usefixtures("hooks")
def test_a_sidecar_of_an_image(cluster: Cluster, namespace: str, kubectl: Callable[..., str], image: str) -> None:
    own = {"image": image, "args": ["--version", "v1alpha2"]}
    see_what_sidecars_do(cluster, namespace, kubectl, own, program("seed.sh", "preCloudInitIso"))
