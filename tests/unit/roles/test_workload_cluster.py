# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The part of the role workload_cluster that runs on the controller, against an API server that plays KubeVirt."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from playbooks import recap

ROLE = "turtles.kubevirt.workload_cluster"
VARIABLES = {
    "workload_cluster_name": "dev",
    "workload_cluster_version": "1.33.2",
    "workload_cluster_image": "reg/node:1",
}
#: What gives Services their addresses.
SERVICE = "dev-control-plane"
MACHINES = ("dev-control-plane-1", "dev-worker-1", "dev-worker-2")


@pytest.fixture
def play(server, run_play, tmp_path: Path) -> Callable[..., str]:
    """Runs the role; what ansible-playbook printed."""

    def admit(method: str, path: str, obj: dict[str, Any]) -> None:
        if "/services/" in path and method != "DELETE":
            obj["spec"].setdefault("clusterIP", "10.96.7.7")

    server.api.admit = admit
    play = {
        "roles": [ROLE],
        "module_defaults": {"group/turtles.kubevirt.kubevirt": {"host": server.url, "api_key": server.api.token}},
    }
    kept = {"workload_cluster_kubeconfig": str(tmp_path / "dev.kubeconfig")}

    def run(*options: str, failing: bool = False, **variables: Any) -> str:
        return run_play(play, *options, failing=failing, **{**VARIABLES, **kept, **variables})

    return run


def writes(api) -> list[str]:
    return [f"{method} {path}" for method, path, _query in api.requests if method != "GET"]


def test_machines_a_service_and_a_key_come_stay_and_go(api, play, tmp_path: Path) -> None:
    output = play("-vvv", workload_cluster_workers={"count": 2})
    machines = [api.get("virtualmachines", "default", name) for name in MACHINES]
    roles = [machine["metadata"]["labels"]["cluster.x-k8s.io/role"] for machine in machines]
    assert roles == ["control-plane", "worker", "worker"]
    selector = {"cluster.x-k8s.io/cluster-name": "dev", "cluster.x-k8s.io/role": "control-plane"}
    assert api.get("services", "default", SERVICE)["spec"]["selector"] == selector
    secret = api.get("secrets", "default", "dev-ssh-key")["data"]["ssh-privatekey"]
    key = base64.b64decode(secret).decode()
    assert key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert secret not in output
    assert key.splitlines()[1] not in output

    assert recap(play(workload_cluster_workers={"count": 2}))["changed"] == 0
    assert recap(play("--check", workload_cluster_workers={"count": 2}))["changed"] == 0

    # What is too many is drained before it goes, by another part.
    assert recap(play(workload_cluster_workers={"count": 1}))["changed"] == 0
    assert api.get("virtualmachines", "default", "dev-worker-2") is not None

    play(workload_cluster_state="absent")
    assert [api.get("virtualmachines", "default", name) for name in MACHINES] == [None] * 3
    assert api.get("services", "default", SERVICE) is None
    assert api.get("secrets", "default", "dev-ssh-key") is None
    assert list(tmp_path.glob("dev.*")) == []
    assert recap(play(workload_cluster_state="absent"))["changed"] == 0


def test_check_mode_says_what_would_come_and_writes_nothing(api, play) -> None:
    output = play("--check", "--diff")
    assert "dev-worker-1" in output
    assert recap(output)["changed"] == 4
    assert api.get("virtualmachines", "default", "dev-worker-1") is None
    assert api.get("services", "default", SERVICE) is None
    assert api.get("secrets", "default", "dev-ssh-key") is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"workload_cluster_control_plane": {"count": 2}}, "workload_cluster_control_plane.count is 2"),
        ({"workload_cluster_name": "Dev"}, "workload_cluster_name is"),
        ({"workload_cluster_programs": "/nowhere"}, "workload_cluster_programs is /nowhere, whose kubeadm"),
        (
            {"workload_cluster_network": "/nowhere.yml"},
            "workload_cluster_network is /nowhere.yml, and there is no such",
        ),
        ({"workload_cluster_service_type": "NodePort"}, "value of workload_cluster_service_type must be one of"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_made(api, play, variables: dict[str, Any], words: str) -> None:
    assert words in " ".join(play(failing=True, **variables).split())
    assert writes(api) == []


def test_the_version_in_the_folder_counts(api, play, tmp_path: Path) -> None:
    program = tmp_path / "kubeadm"
    program.write_text("#!/bin/sh\necho v1.32.0\n")
    program.chmod(0o755)
    said = " ".join(play(failing=True, workload_cluster_programs=str(tmp_path)).split())
    assert "workload_cluster_version is 1.33.2, and the kubeadm in workload_cluster_programs is 1.32.0" in said
    assert writes(api) == []
