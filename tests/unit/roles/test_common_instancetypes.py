# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The common instance types and preferences that the role controller declares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent
TEMPLATE = Path(__file__).parents[3] / "roles" / "controller" / "templates" / "common-instancetypes.yml.j2"


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """What the template says, by kind and name."""
    folder = tmp_path_factory.mktemp("common")
    content = "{{ lookup('ansible.builtin.template', '%s') }}" % TEMPLATE
    task = {"ansible.builtin.copy": {"dest": str(folder / "all.yml"), "content": content, "mode": "0600"}}
    (folder / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    done = subprocess.run([BIN / "ansible-playbook", folder / "play.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [obj for obj in yaml.safe_load_all((folder / "all.yml").read_text()) if obj]
    names = {(obj["kind"], obj["metadata"]["name"]): obj for obj in found}
    assert len(names) == len(found)
    return names


def test_the_series_are_complete(objects):
    names = [name for kind, name in objects if kind == "VirtualMachineClusterInstancetype"]
    assert {series: sum(name.startswith(f"{series}.") for name in names) for series in ("u1", "o1", "cx1", "m1")} == {
        "u1": 10,
        "o1": 9,
        "cx1": 6,
        "m1": 10,
    }
    preferences = [name for kind, name in objects if kind == "VirtualMachineClusterPreference"]
    linux = ["linux", "alpine", "centos.stream9", "centos.stream10", "debian", "fedora", "ubuntu"]
    assert preferences == [*linux, "windows", "windows.virtio"]


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("u1.small", {"cpu": {"guest": 1}, "memory": {"guest": "2Gi"}}),
        ("o1.large", {"cpu": {"guest": 2}, "memory": {"guest": "8Gi", "overcommitPercent": 50}}),
        ("m1.xlarge1gi", {"cpu": {"guest": 4}, "memory": {"guest": "32Gi", "hugepages": {"pageSize": "1Gi"}}}),
        (
            "cx1.medium",
            {
                "cpu": {
                    "guest": 1,
                    "dedicatedCPUPlacement": True,
                    "isolateEmulatorThread": True,
                    "numa": {"guestMappingPassthrough": {}},
                },
                "memory": {"guest": "2Gi", "hugepages": {"pageSize": "2Mi"}},
                "ioThreadsPolicy": "auto",
            },
        ),
    ],
)
def test_figures(objects, name, spec):
    assert objects["VirtualMachineClusterInstancetype", name]["spec"] == spec


def test_the_engine_admits_them(objects):
    kinds = pytest.importorskip("turtles.api.kinds").KINDS
    by_name = {kind.kind: kind for kind in kinds}
    for (kind, name), obj in objects.items():
        assert by_name[kind].validate(obj, None) == [], name
        assert by_name[kind].warn(obj) == [], name
