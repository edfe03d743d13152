# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role controller makes of its variables for the KubeVirt object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
VARIABLES = Path(__file__).parents[3] / "roles" / "controller" / "vars" / "main.yml"
#: As the role turtles has them by default.
DEFAULTS = {
    "kubevirt_namespace": "kubevirt",
    "kubevirt_infra": {},
    "kubevirt_replicas": 2,
    "kubevirt_workloads": {},
    "kubevirt_image_pull_policy": "IfNotPresent",
    "kubevirt_image_pull_secrets": [],
    "kubevirt_image_pull_authfile": "",
}


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, []),
        ({"kubevirt_image_pull_secrets": ["a", "b.c", "a"]}, ["a", "b.c"]),
        (
            {"kubevirt_image_pull_secrets": ["a"], "kubevirt_image_pull_authfile": "auth.json"},
            ["a", "kubevirt-image-pull"],
        ),
    ],
)
def test_pull_secrets_are_named(tmp_path, variables, names):
    kept = tmp_path / "kept.json"
    task = {
        "ansible.builtin.copy": {
            "dest": str(kept),
            "content": "{{ controller_arrangement.imagePullSecrets | to_json }}",
            "mode": "0600",
        }
    }
    play = {"hosts": "localhost", "gather_facts": False, "vars_files": [str(VARIABLES)], "tasks": [task]}
    book = tmp_path / "play.yml"
    book.write_text(json.dumps([{**play, "vars": {**DEFAULTS, **variables}}]))
    done = subprocess.run([BIN / "ansible-playbook", book], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(kept.read_text()) == [{"name": name} for name in names]
