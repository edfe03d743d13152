# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wheel that the role engine builds: installable by pip, and the same for the same sources."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import build_wheel

ROOT = Path(__file__).parents[3]


def test_the_same_sources_make_the_same_wheel(tmp_path: Path) -> None:
    first = build_wheel.build(ROOT / "engine", tmp_path / "a")
    second = build_wheel.build(ROOT / "engine", tmp_path / "b")
    assert first["file"] == second["file"]
    assert Path(first["path"]).read_bytes() == Path(second["path"]).read_bytes()
    assert first["fingerprint"] in first["file"]


def test_other_packages_beside_it_make_another_version(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    files = []
    for content in ("aiohttp==3.14.4\n", "aiohttp==3.14.5\n"):
        lock.write_text(content)
        files.append(build_wheel.build(ROOT / "engine", tmp_path / "out", lock)["file"])
    assert len({*files, build_wheel.build(ROOT / "engine", tmp_path / "out")["file"]}) == 3


def test_pip_installs_it_with_its_commands(tmp_path: Path) -> None:
    wheel = build_wheel.build(ROOT / "engine", tmp_path)["path"]
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, wheel], check=True)
    assert (target / "turtles/api/__init__.py").exists()
    assert (target / "bin/virt-standalone").exists()
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "__pycache__" in name]


def test_wheels_of_earlier_sources_go_and_those_of_another_checkout_stay(tmp_path: Path) -> None:
    earlier, other = (tmp_path / f"turtles-0.0.1+g{name}-py3-none-any.whl" for name in ("earlier", "other"))
    earlier.touch()
    os.utime(earlier, (1, 1))
    other.touch()
    wheel = build_wheel.build(ROOT / "engine", tmp_path)["path"]
    assert set(tmp_path.iterdir()) == {Path(wheel), other}
