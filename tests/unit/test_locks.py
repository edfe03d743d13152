# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock files have what the ranges ask for, by version and hash; ``make lock`` writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "engine/pyproject.toml").read_text())
ENGINE = PROJECT["project"]["dependencies"]
INSTALL = PROJECT["dependency-groups"]["install"]


def ranges(name: str) -> list[str]:
    """Read a file of requirements, and those it includes."""
    found = []
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            found += ranges(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            found.append(line)
    return found


#: What each lock file has to satisfy.
LOCKS = {
    "engine/requirements.lock": ENGINE,
    "engine/requirements-install.lock": [*INSTALL, *PROJECT["build-system"]["requires"]],
    "requirements-venv.lock": ranges("requirements-venv.txt"),
    "requirements-docs.lock": ranges("requirements-docs.txt"),
    "requirements-galaxy.lock": ranges("requirements-galaxy.txt"),
    "requirements-test.lock": [*ranges("requirements-test.txt"), *ENGINE],
}


def entries(name: str) -> list[tuple[Requirement, str]]:
    """Read a lock file: each requirement with the options that follow it."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / name).read_text())
    found = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        requirement, _sign, options = line.partition(" --")
        found.append((Requirement(requirement), f"--{options}"))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_has_what_the_ranges_ask_for(name: str) -> None:
    locked = {canonicalize_name(entry.name): next(iter(entry.specifier)).version for entry, _options in entries(name)}
    for wanted in map(Requirement, LOCKS[name]):
        version = locked.get(canonicalize_name(wanted.name), "")
        assert version, f"{name} doesn't have {wanted}: make lock"
        assert wanted.specifier.contains(version), f"{name} has {version} of {wanted}: make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_each_entry_is_one_version_with_hashes(name: str) -> None:
    """No address, no path, no range: nothing that an index could fill in."""
    for entry, options in entries(name):
        assert entry.url is None
        assert [specifier.operator for specifier in entry.specifier] == ["=="], f"{name}: {entry}"
        assert re.fullmatch(r"(--hash=sha256:[0-9a-f]{64} ?)+", options), f"{name}: {entry} {options}"
    text = (ROOT / name).read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links", text), f"{name} names where packages come from"


@pytest.mark.parametrize("name", LOCKS)
def test_nothing_is_locked_that_nobody_asks_for(name: str) -> None:
    """Each entry says who asks for it (uv's "via"); a range that was dropped leaves nothing behind."""
    text = (ROOT / name).read_text()
    known = {canonicalize_name(entry.name) for entry, _options in entries(name)}
    asked = {canonicalize_name(Requirement(line).name) for line in LOCKS[name]}
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]:
        package = canonicalize_name(re.match(r"[A-Za-z0-9._-]+", block)[0])
        askers = re.findall(r"(?m)^    #   (?:via )?([^-\s]\S*)|^    # via ([^-\s]\S*)", block)
        others = {canonicalize_name(first or second) for first, second in askers}
        assert package in asked or others & known, f"{name}: nobody asks for {package}: make lock"


def test_lock_files_agree() -> None:
    """What is tested is what is deployed."""
    versions: dict[str, set[str]] = {}
    for name in LOCKS:
        if name in ("requirements-docs.lock", "requirements-galaxy.lock"):
            # In environments of their own.
            continue
        for entry, _options in entries(name):
            versions.setdefault(canonicalize_name(entry.name), set()).add(str(entry.specifier))
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


def test_the_engine_needs_the_same_packages_with_each_python() -> None:
    """pip judges markers by the Python it runs on, also where it installs for another one (engine_image)."""
    assert [
        str(entry)
        for entry, _options in entries("engine/requirements.lock")
        if "python_" in str(entry.marker) and "implementation" not in str(entry.marker)
    ] == []
