# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Kubernetes cluster of virtual machines, from its first run to its end, in one test after the other."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Infrastructure
from kubernetes_cluster.build import VERSION
from kubernetes_cluster.images import BUSYBOX

from playbooks import playbook, recap

#: Seconds for each step, in guests that are emulated.
PATIENCE = 1800


class Workload:
    """The cluster `dev`, by the playbook and by kubectl."""

    def __init__(self, infrastructure: Infrastructure, folder: Path) -> None:
        self._infrastructure = infrastructure
        self._folder = folder
        self.kubeconfig = folder / "dev.kubeconfig"

    def run(self, *options: str, workers: int = 1, **variables: Any) -> str:
        given = {
            "kubeconfig": str(self._infrastructure.kubeconfig),
            "workload_cluster_name": "dev",
            "workload_cluster_version": VERSION,
            "workload_cluster_image": self._infrastructure.image,
            "workload_cluster_programs": str(self._infrastructure.programs),
            "workload_cluster_workers": {"count": workers, "memory": "1Gi"},
            # Debian has none.
            "workload_cluster_skip_phases": ["addon/coredns"],
            "workload_cluster_kubeconfig": str(self.kubeconfig),
            "workload_cluster_timeout": PATIENCE,
            **variables,
        }
        book = "turtles.kubevirt.workload_cluster"
        return playbook(book, *options, "-e", json.dumps(given), folder=self._folder).stdout

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, stdin: str | None = None) -> str:
        command = ["kubectl", "--kubeconfig", kubeconfig or self.kubeconfig, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nodes(self) -> dict[str, bool]:
        """Whether each is ready, by name."""
        nodes = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return {
            node["metadata"]["name"]: any(
                c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]
            )
            for node in nodes
        }

    def left(self) -> str:
        """The objects of the cluster in the infrastructure cluster, by kind."""
        kinds = "virtualmachines,virtualmachineinstances,services,secrets"
        selector = "cluster.x-k8s.io/cluster-name=dev"
        return self.kubectl("get", kinds, "-l", selector, "-o", "name", kubeconfig=self._infrastructure.kubeconfig)


@pytest.fixture(scope="module")
def workload(infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """The cluster; its tests make it, and remove it."""
    return Workload(infrastructure, tmp_path_factory.mktemp("dev"))


def test_a_control_plane_and_a_worker_become_ready(workload: Workload) -> None:
    output = workload.run("-v")
    assert workload.nodes() == {"dev-control-plane-1": True, "dev-worker-1": True}
    assert stat.S_IMODE(os.stat(workload.kubeconfig).st_mode) == 0o600
    assert "PRIVATE KEY" not in output
    assert "token: " not in output


def test_a_pod_runs_and_answers(workload: Workload) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hello"},
        "spec": {
            "containers": [
                {
                    "name": "hello",
                    "image": BUSYBOX,
                    "imagePullPolicy": "Never",
                    # The API server's Service is reached from a Pod, by kube-proxy and the bridge.
                    "command": ["sh", "-c", "nc -w 60 -z 172.21.0.1 443 && echo reached && sleep 3600"],
                }
            ],
        },
    }
    workload.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    workload.kubectl("wait", "--for=condition=Ready", "pod/hello", f"--timeout={PATIENCE}s")
    assert workload.kubectl("exec", "hello", "--", "hostname").strip() == "hello"
    assert "reached" in workload.kubectl("logs", "hello")
    workload.kubectl("delete", "pod", "hello", "--grace-period=1")


def test_a_second_run_changes_nothing(workload: Workload) -> None:
    output = workload.run()
    for host in ("localhost", "dev-control-plane-1", "dev-worker-1"):
        assert recap(output, host)["changed"] == 0, output


def test_check_mode_says_that_a_worker_would_come(workload: Workload) -> None:
    output = workload.run("--check", "--diff", workers=2)
    assert recap(output)["changed"] == 1, output
    assert "dev-worker-2" in output
    assert "dev-worker-2" not in workload.left()


def test_workers_come_and_go(workload: Workload) -> None:
    workload.run(workers=2)
    assert workload.nodes() == {"dev-control-plane-1": True, "dev-worker-1": True, "dev-worker-2": True}
    workload.run(workers=1)
    assert workload.nodes() == {"dev-control-plane-1": True, "dev-worker-1": True}
    assert "dev-worker-2" not in workload.left()
    test_a_second_run_changes_nothing(workload)


def test_nothing_is_left(workload: Workload) -> None:
    workload.run(workload_cluster_state="absent")
    assert workload.left() == ""
    assert not workload.kubeconfig.exists()
    assert recap(workload.run(workload_cluster_state="absent"))["changed"] == 0
