# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests of the inventory plugin share."""

from __future__ import annotations

import json
import os

import pytest
from inventories import Inventories

PLUGIN = "turtles.kubevirt.kubevirt"


@pytest.fixture(scope="session")
def inventories(collections):
    """The process that runs ansible-inventory."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("K8S_", "KUBE", "ANSIBLE_"))}
    environment.update(ANSIBLE_COLLECTIONS_PATH=str(collections), ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="true")
    process = Inventories(environment)
    yield process
    process.close()


@pytest.fixture
def list_inventory(inventories, tmp_path):
    """Runs ansible-inventory on files in the test's folder; gives its JSON, or the error text."""

    def run(*sources, fails=False, warnings=False, graph=False, environment=None):
        arguments = [part for source in sources for part in ("-i", source)]
        code, output, errors = inventories.run([*arguments, "--graph" if graph else "--list"], tmp_path, environment)
        assert bool(code) == fails, errors
        if fails or warnings:
            return " ".join(errors.split())
        return output if graph else json.loads(output)

    return run


@pytest.fixture
def inventory(server, list_inventory, tmp_path):
    """Runs ansible-inventory on a file with these options; gives its JSON, or the error text."""

    def run(fails=False, warnings=False, graph=False, environment=None, **options):
        source = tmp_path / "inventory.kubevirt.yml"
        defaults = {"plugin": PLUGIN, "host": server.url, "api_key": server.api.token}
        source.write_text(json.dumps({k: v for k, v in {**defaults, **options}.items() if v is not None}))
        return list_inventory(source, fails=fails, warnings=warnings, graph=graph, environment=environment)

    return run
