# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Kubernetes for the tests: their own, or the one that $KUBECONFIG names."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed import Deployed
from fixtures import ansible, kubectl
from kubernetes import client
from kubernetes_cluster import Cluster, ExistingCluster, Settings, wait_for
from traces import traces
from user import User

__all__ = ["ansible", "kubectl"]
pytest.register_assert_rewrite("scenarios")

#: Set these to run the tests beside others on the same machine.
INSTANCE = os.environ.get("TURTLES_KUBERNETES_INSTANCE", "turtles-test")
NETWORK = os.environ.get("TURTLES_KUBERNETES_NETWORK", "10.200.0.0/16")
API_NETWORK = os.environ.get("TURTLES_KUBERNETES_API_NETWORK", "10.201.0.0/16")
#: A folder with programs of another version of Kubernetes.
PROGRAMS = Path(programs).resolve() if (programs := os.environ.get("TURTLES_KUBERNETES_PROGRAMS")) else None
#: With this set clusters stay after the tests, and the next run uses them.
KEEP = "TURTLES_KUBERNETES_KEEP" in os.environ


def _run(settings: Settings) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("a cluster of the tests' own needs root; or set KUBECONFIG")
    cluster = Cluster(settings)
    try:
        if not (KEEP and cluster.is_up()):
            cluster.down()  # what a killed run left
            cluster.up()
        yield cluster
    finally:
        if not KEEP:
            cluster.down()
            assert traces(settings) == []


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Cluster | ExistingCluster]:
    """A cluster with two nodes and a registry."""
    if kubeconfig := os.environ.get("KUBECONFIG"):
        yield ExistingCluster(Path(kubeconfig))
    else:
        yield from _run(Settings(instance=INSTANCE, nodes=2, network=NETWORK, programs=PROGRAMS))


@pytest.fixture(scope="session")
def machines(kubernetes: Cluster | ExistingCluster) -> Cluster:
    """The same, for tests that look into its machines; they are skipped where those are somebody else's."""
    if not isinstance(kubernetes, Cluster):
        pytest.skip("looks into the machines of the tests' own cluster")
    return kubernetes


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """etcd, API server, controller manager and scheduler without nodes: what API servers are compared with.

    Always the tests' own, whatever $KUBECONFIG says: its objects are made and deleted at will.
    """
    yield from _run(Settings(instance=f"{INSTANCE[:11]}-api", nodes=0, network=API_NETWORK, programs=PROGRAMS))


@pytest.fixture(scope="session")
def core(kubernetes: Cluster | ExistingCluster) -> client.CoreV1Api:
    """The core API with all rights."""
    return client.CoreV1Api(kubernetes.client())


def old_tokens(core: client.CoreV1Api) -> bool:
    """Whether Kubernetes still makes a Secret with a token for every service account: until 1.23."""
    return int(client.VersionApi(core.api_client).get_code().minor.rstrip("+")) < 24


@pytest.fixture(scope="session")
def cluster(kubernetes: Cluster | ExistingCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The engine on that cluster, deployed from nothing."""
    if kubernetes.registry is None:
        # A run that deploys nothing must not look like one that found everything in order
        pytest.fail("the engine's images need a registry: name one in TURTLES_TEST_REGISTRY, or unset KUBECONFIG")
    folder = tmp_path_factory.mktemp("cluster")
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    engine = Deployed(kubernetes, folder, key=key, patience=3)
    try:
        engine.playbook("deploy")
        engine.wait_available()
        yield engine
    finally:
        try:
            engine.settle()
        finally:
            if not KEEP:
                # machines that tests left somewhere don't keep the engine
                engine.playbook("teardown", kubevirt_remove_workloads=True)
                engine.wait_removed()


@pytest.fixture
def original(cluster: Deployed) -> Iterator[None]:
    """What was deployed is deployed again in the end."""
    yield
    cluster.playbook("deploy")
    cluster.wait_available()


@pytest.fixture
def namespace(request: pytest.FixtureRequest, core: client.CoreV1Api) -> Iterator[str]:
    """A namespace of the test's own; what is in it goes with it, while the next test runs."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    # before this, Pods are refused
    wait_for(
        f"service account of namespace {name}",
        lambda: core.list_namespaced_service_account(name).items[0].secrets or not old_tokens(core),
        timeout=60,
        logs=[],
    )
    yield name
    core.delete_namespace(name)
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").ending.append(name)


@pytest.fixture
def user(cluster: Deployed, namespace: str) -> Iterator[User]:
    with User(cluster, namespace) as found:
        yield found
