# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An engine of the tests' own, an image for nodes, and Kubernetes' programs, built from Debian's packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubernetes_cluster.kubeadm import programs

from playbooks import playbook

VARIABLES = {
    "turtles_instance": "turtles-workload",
    "turtles_api_port": 17443,
    "turtles_virt_api_port": 19443,
    "turtles_bridge": "turtles-wl0",
    "turtles_pod_cidr": "10.232.0.0/16",
    "turtles_service_cidr": "10.132.0.0/16",
    "turtles_metrics_ports": {"virt-api": 19541, "virt-controller": 19542, "virt-handler": 19545},
    # for running the tests beside others on the same machine
    **json.loads(os.environ.get("TURTLES_E2E_VARIABLES", "{}")),
}
BUILDER = Path(__file__).parents[2] / "roles/guest_image/files/guest_image.py"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turtles-kubevirt"
#: What docs/workload-clusters.md says.
PACKAGES = "conntrack,containerd,containernetworking-plugins,ebtables,ethtool,iptables,kmod,procps,runc,socat"


@dataclass(frozen=True)
class Infrastructure:
    """Where the machines run, and what becomes nodes of them.

    :param image: reference of the nodes' image.
    :param programs: folder with Kubernetes' programs.
    """

    kubeconfig: Path
    image: str
    programs: Path


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """All of it; the engine is removed in the end, unless TURTLES_E2E_KEEP is in the environment."""
    if os.geteuid() != 0:
        pytest.skip("installing an engine needs root")
    folder = tmp_path_factory.mktemp("workload")
    programs(CACHE / "kubernetes", folder / "programs")
    variables = ["-e", json.dumps(VARIABLES)]
    playbook("turtles.kubevirt.deploy", *variables, folder=folder)
    instance = VARIABLES["turtles_instance"]
    try:
        image = f"/var/lib/{instance}/images/node.tar"
        options = ("debian", "--output", image, "--packages", PACKAGES, "--size-mib", "6144")
        subprocess.run([sys.executable, BUILDER, *options], check=True, stdout=subprocess.DEVNULL)
        kubeconfig = Path(f"/etc/{instance}/admin.kubeconfig")
        yield Infrastructure(kubeconfig, f"oci-archive:{image}", folder / "programs")
    finally:
        if "TURTLES_E2E_KEEP" not in os.environ:
            playbook("turtles.kubevirt.teardown", *variables, folder=folder)
