# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples of all modules, in check mode: each is taken, or fails for want of an object that it is about."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.turtles.kubevirt.plugins.plugin_utils._in_process import MODULES
from jinja2 import ChainableUndefined
from jinja2.nativetypes import NativeEnvironment

PREFIX = "turtles.kubevirt."
NAMES = sorted(path.stem for path in (Path(__file__).parents[3] / "plugins/modules").glob("[!_]*.py"))
#: What examples may lack here: objects and files that they are about.
WANTING = (
    "doesn't exist",
    "missing for a new",
    "No such file or directory",
    "doesn't know kind",
    "isn't what wait_for",
)


class Anything(ChainableUndefined):
    """What an earlier task would have registered."""

    def __str__(self):
        return "anything"


def evaluated(value, item):
    """Return arguments with their templates evaluated as far as that is possible without Ansible."""
    environment = NativeEnvironment(undefined=Anything)
    environment.globals["lookup"] = lambda *_arguments: "ssh-ed25519 AAAA anything"
    if isinstance(value, dict):
        return {key: evaluated(inner, item) for key, inner in value.items()}
    if isinstance(value, list):
        return [evaluated(inner, item) for inner in value]
    return environment.from_string(value).render(item=item) if isinstance(value, str) and "{{" in value else value


def tasks():
    """Yield module, name and arguments of each task in the examples that uses a module of the collection."""
    for name in NAMES:
        for task in yaml.safe_load(import_module(MODULES + name).EXAMPLES):
            used = next((key for key in task if key.startswith(PREFIX)), None)
            if used:
                item = (task.get("loop") or [None])[0]
                given = task[used] or {}
                # The action plugin evaluates a template for each machine.
                is_template = used == PREFIX + "fleet" and "template" in given
                yield pytest.param(
                    used.removeprefix(PREFIX),
                    given if is_template else evaluated(given, item),
                    is_template,
                    id="%s: %s" % (name, task["name"]),
                )


@pytest.mark.parametrize(("module", "given", "is_template"), list(tasks()))
def test_examples_are_taken(api, run, module, given, is_template):
    for namespace in ("shop", "images", "office"):
        api.put("namespaces", {"metadata": {"name": namespace}})
    if any(isinstance(value, Anything) for value in given.values()):
        pytest.skip("its arguments are what another task registered")
    given = {key: value for key, value in given.items() if key != "kubeconfig"}
    arguments = import_module(MODULES + module).MODULE.arguments() if module != "fleet_file" else None
    if arguments is None:
        assert set(given) == {"path"}
        return
    if is_template:
        del arguments["supports_check_mode"]
        validated = ArgumentSpecValidator(**arguments).validate(given)
        assert not validated.error_messages
        given = {**given, "template": None, "count": None, "items": None, "vms": given.get("vms") or []}
    if "wait_timeout" in arguments["argument_spec"]:
        given = {**given, "wait_timeout": 1}
    done = run(module, check=True, **given)
    assert not done.get("failed") or any(text in done.msg for text in WANTING), done.msg
