# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An engine of the tests' own, installed by the collection's playbook beside whatever runs on the machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from fixtures import ansible, kubectl, namespace

from playbooks import playbook

__all__ = ["ansible", "cluster", "kubectl", "namespace"]

pytest.register_assert_rewrite("scenarios")

#: Workers of pytest-xdist have an engine each.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
VARIABLES = {
    "turtles_instance": f"turtles-e2e{WORKER or ''}",
    "turtles_api_port": 16443 + WORKER,
    "turtles_virt_api_port": 18443 + 10 * WORKER,
    # the next number is the other node's
    "turtles_bridge": f"turtles-e2e{2 * WORKER}",
    "turtles_pod_cidr": f"10.{204 + 2 * WORKER}.0.0/16",
    "turtles_service_cidr": f"10.{80 + WORKER}.0.0/16",
    "turtles_pod_cidr_ipv6": f"fd00:10:{204 + 2 * WORKER}::/64",
    "turtles_service_cidr_ipv6": f"fd00:10:{80 + WORKER}::/112",
    "turtles_external_addresses": [f"198.51.100.{80 + WORKER}"],
    "turtles_metrics_ports": {
        name: port + 10 * WORKER
        for name, port in (("virt-api", 18441), ("virt-controller", 18442), ("virt-handler", 18445))
    },
    # cordoned, but for the tests that need it
    "turtles_more_nodes": [{"name": "second", "pod_cidr": f"10.{205 + 2 * WORKER}.0.0/16"}],
    # for running the tests beside others on the same machine
    **json.loads(os.environ.get("TURTLES_E2E_VARIABLES", "{}")),
}
INSTANCE = VARIABLES["turtles_instance"]
#: Files whose tests are few and take minutes: begun last, one process would wait for the other.
LONG = ("test_quickstart.py", "test_integration.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The engine in standalone mode, and a guest image; both removed in the end.

    With TURTLES_E2E_KEEP in the environment they stay, which makes the next run of the tests shorter.
    """
    if os.geteuid() != 0:
        pytest.skip("installing an engine needs root")
    folder = tmp_path_factory.mktemp("e2e")
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    variables = ["-e", json.dumps(VARIABLES)]
    playbook("turtles.kubevirt.deploy", *variables, folder=folder)
    try:
        installed = Cluster(
            kubeconfig=Path(f"/etc/{INSTANCE}/admin.kubeconfig"),
            instance=INSTANCE,
            image=f"oci-archive:/var/lib/{INSTANCE}/images/tiny.tar",
            key=key,
        )
        _cordon(installed, True)
        yield installed
    finally:
        if "TURTLES_E2E_KEEP" not in os.environ:
            playbook("turtles.kubevirt.teardown", *variables, folder=folder)


def _cordon(cluster: Cluster, wanted: bool) -> None:
    for node in VARIABLES["turtles_more_nodes"]:
        cluster.core.patch_node(node["name"], {"spec": {"unschedulable": wanted}})


@pytest.fixture(scope="module")
def second_node(cluster: Cluster) -> Iterator[str]:
    """Another node on this machine, on which Pods may run while the tests of a module do; its name."""
    _cordon(cluster, False)
    yield VARIABLES["turtles_more_nodes"][0]["name"]
    _cordon(cluster, True)
