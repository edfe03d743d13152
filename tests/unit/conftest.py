# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes the checkout importable as the collection, wherever it lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _collections() -> Path:
    """A folder for collections with the checkout in it. One that is in such a folder already (ansible-test) stays."""
    if ROOT.parts[-3:] == ("ansible_collections", "turtles", "kubevirt"):
        return ROOT.parents[2]
    folder = Path(tempfile.mkdtemp(prefix="turtles-unit-"))
    (folder / "ansible_collections" / "turtles").mkdir(parents=True)
    (folder / "ansible_collections" / "turtles" / "kubevirt").symlink_to(ROOT)
    return folder


COLLECTIONS = _collections()
if str(COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(COLLECTIONS))
sys.path.insert(0, str(Path(__file__).parent / "plugins"))


def pytest_unconfigure() -> None:
    """Removes the folder again."""
    link = COLLECTIONS / "ansible_collections" / "turtles" / "kubevirt"
    if link.is_symlink():
        link.unlink()
        link.parent.rmdir()
        link.parent.parent.rmdir()
        COLLECTIONS.rmdir()


@pytest.fixture(scope="session")
def collections() -> Path:
    """The folder for ANSIBLE_COLLECTIONS_PATH."""
    return COLLECTIONS


@pytest.fixture
def api():
    """A running API server; see api.py."""
    from api import KubeVirt

    running = KubeVirt()
    running.start()
    running.put("namespaces", {"metadata": {"name": "default"}})
    yield running
    running.stop()


@pytest.fixture
def server(api):
    """Where the API server listens, beside its state."""
    return SimpleNamespace(url=api.url, api=api)


class Result(dict):
    """What a module gave."""

    @property
    def msg(self):
        """The error."""
        return self["msg"]


@pytest.fixture
def run(server):
    """Runs a module by name with options, as the action plugin does, and gives its Result."""
    from importlib import import_module

    from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
    from ansible_collections.turtles.kubevirt.plugins.plugin_utils._in_process import MODULES, Ended, InProcessModule

    def call(module_name, /, check=False, **options):
        module_class = import_module(MODULES + module_name).MODULE
        arguments = module_class.arguments()
        arguments.pop("supports_check_mode")
        options = {"host": server.url, "api_key": server.api.token, **options}
        validated = ArgumentSpecValidator(**arguments).validate(options)
        assert not validated.error_messages
        module = InProcessModule(validated.validated_parameters, check, set(validated._no_log_values))
        with pytest.raises(Ended) as ended:
            module_class(module).execute()
        return Result(ended.value.result)

    return call


@pytest.fixture
def play_file(collections, tmp_path):
    """Runs a playbook, given as text, that keeps a result in the file $KEPT; gives that and what was printed."""

    def run(text, *arguments):
        book = tmp_path / "play.yml"
        kept = tmp_path / "result.json"
        book.write_text(text)
        # Without pipelining the output names the file of a module that runs in a process of its own.
        settings = {"COLLECTIONS_PATH": str(collections), "NOCOLOR": "1", "PIPELINING": "false"}
        environment = {"ANSIBLE_%s" % name: value for name, value in settings.items()}
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", book, "-vvv", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment, "KEPT": str(kept)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(kept.read_text()), done.stdout

    return run


@pytest.fixture
def play(server, play_file):
    """Runs tasks on localhost and gives the results of the last one and what ansible-playbook printed."""

    def run(*tasks, extra=(), **variables):
        keep = {
            "dest": "{{ lookup('ansible.builtin.env', 'KEPT') }}",
            "content": "{{ result | to_json }}",
            "mode": "0600",
        }
        tasks = [
            *tasks[:-1],
            {**tasks[-1], "register": "result", "ignore_errors": True},
            {"ansible.builtin.copy": keep, "check_mode": False},
        ]
        book = {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": tasks,
            "vars": variables,
            "module_defaults": {"group/turtles.kubevirt.kubevirt": {"host": server.url, "api_key": server.api.token}},
        }
        return play_file(json.dumps([book]), *extra)

    return run
