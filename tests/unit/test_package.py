# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection as it is built, installed and used by somebody who has nothing else of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def call(program: str, *arguments: object, collections: Path | None = None) -> str:
    """Run one of Ansible's programs, with collections from that folder alone."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}
    if collections:
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    done = subprocess.run(
        [BIN / program, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for collections into which the built tarball is installed."""
    folder = tmp_path_factory.mktemp("package")
    call("ansible-galaxy", "collection", "build", ROOT, "--output-path", folder)
    (tarball,) = folder.glob("turtles-kubevirt-*.tar.gz")
    options = ("--offline", "--no-deps", "--collections-path", folder)
    call("ansible-galaxy", "collection", "install", tarball, *options, collections=folder)
    return folder


def test_all_plugins_have_their_documentation(installed: Path) -> None:
    plugins = ROOT / "plugins"
    for kind, directory in (("module", "modules"), ("inventory", "inventory"), ("connection", "connection")):
        names = [f"turtles.kubevirt.{path.stem}" for path in (plugins / directory).glob("[!_]*.py")]
        docs = json.loads(call("ansible-doc", "--json", "--type", kind, *names, collections=installed))
        assert sorted(docs) == sorted(names)
        for doc in docs.values():
            assert doc["doc"]["filename"].startswith(f"{installed}/"), doc["doc"]["filename"]
            assert doc["examples"]


def test_only_what_is_kept_in_git_is_packed(installed: Path) -> None:
    try:
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this isn't a checkout")
    (tarball,) = installed.glob("turtles-kubevirt-*.tar.gz")
    with tarfile.open(tarball) as packed:
        names = {member.name for member in packed if member.isfile()}
    assert names - set(listed.stdout.split("\0")) == {"MANIFEST.json", "FILES.json"}


def test_a_module_is_used(installed: Path, server: object, tmp_path: Path) -> None:
    options = {"name": "web", "namespace": "default", "image": "example.com/web:1", "memory": "64Mi"}
    task = {
        "turtles.kubevirt.vm": {**options, "host": server.url, "api_key": server.api.token},  # type: ignore[attr-defined]
        "check_mode": True,
        "register": "done",
    }
    check = {"ansible.builtin.assert": {"that": ["done is changed", "done.result.spec.runStrategy == 'Halted'"]}}
    book = tmp_path / "play.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task, check]}]))
    call("ansible-playbook", book, collections=installed)


def test_the_execution_environment_is_of_this_collection() -> None:
    definition = yaml.safe_load((ROOT / "docs/examples/execution-environment.yml").read_text())
    (collection,) = definition["dependencies"]["galaxy"]["collections"]
    assert collection["name"] == "turtles.kubevirt"
    metadata = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text())
    for name in metadata["dependencies"].values():
        assert (ROOT / name).is_file(), name
