# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users set for migrations, seen with a guest; and migrations that the engine begins by itself.

They take long: `make test-migration` runs them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cluster import Cluster, commands
from conftest import VARIABLES
from scenarios.migration import (
    FINAL,
    MIGRATIONS,
    WRITERS,
    address_of,
    begin,
    configure,
    migratable,
    migrated,
    start,
    wait_phase,
)

from engine import Object, condition
from playbooks import playbook

pytestmark = [
    pytest.mark.usefixtures("second_node"),
    pytest.mark.skipif(
        not os.environ.get("TURTLES_MIGRATION_ROUNDS"), reason="long: run them with make test-migration"
    ),
]

POLICIES = ("migrations.kubevirt.io", "v1alpha1", "migrationpolicies")
PORTS = VARIABLES["turtles_metrics_ports"]
#: Changes memory faster than a narrow link takes it.
FAST_WRITER = "while :; do dd if=/dev/urandom of=/tmp/junk bs=64k count=256; done </dev/null >/dev/null 2>&1 &"
#: Room for what they write.
ROOM = {"memory": "160Mi"}


@pytest.fixture(autouse=True)
def defaults(cluster: Cluster) -> Iterator[None]:
    """No test leaves its settings to the next."""
    yield
    configure(cluster, None)


def mode_of(cluster: Cluster, namespace: str, name: str) -> str:
    """The mode of a machine's migration once it is another one than at its start."""
    vmi = cluster.wait(
        namespace,
        "virtualmachineinstances",
        name,
        lambda o: o and o["status"].get("migrationState", {}).get("mode") not in (None, "PreCopy"),
        timeout=90,
        what="other mode of the migration",
    )
    assert vmi is not None
    return vmi["status"]["migrationState"]["mode"]


def hurried(**settings: Any) -> Object:
    """Settings with which a busy guest isn't there when its time is over."""
    return {"bandwidthPerMigration": "2Mi", "completionTimeoutPerGiB": 5, **settings}


def test_a_guest_that_does_not_converge_is_given_up(cluster: Cluster, namespace: str) -> None:
    vmi, boot = start(cluster, namespace, "web", **ROOM)
    cluster.ssh(address_of(vmi), FAST_WRITER)
    configure(cluster, hurried())
    name = begin(cluster, namespace, "web")
    assert wait_phase(cluster, namespace, name, *FINAL)["status"]["phase"] == "Failed"
    after = cluster.wait_running(namespace, "web")
    reason = after["status"]["migrationState"]["failureReason"]
    assert re.fullmatch(r"Live migration is not completed after \d+ seconds and has been aborted", reason)
    assert after["status"]["nodeName"] == vmi["status"]["nodeName"]
    assert cluster.boot_id(address_of(after)) == boot


def test_one_that_may_stand_still_does(cluster: Cluster, namespace: str) -> None:
    vmi, boot = start(cluster, namespace, "web", **ROOM)
    cluster.ssh(address_of(vmi), FAST_WRITER)
    configure(cluster, hurried(allowWorkloadDisruption=True))
    name = begin(cluster, namespace, "web")
    assert mode_of(cluster, namespace, "web") == "Paused"
    done = wait_phase(cluster, namespace, name, *FINAL, timeout=120)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    after = cluster.wait_running(namespace, "web")
    assert after["status"]["nodeName"] != vmi["status"]["nodeName"]
    assert cluster.boot_id(address_of(after)) == boot


def test_launchers_that_may_have_no_post_copy_go_without(cluster: Cluster, namespace: str) -> None:
    """The system call filter of Pods keeps it from them; a guest that is late stands still then."""
    configure(cluster, hurried(allowPostCopy=True))
    vmi, boot = start(cluster, namespace, "web", **ROOM)
    cluster.ssh(address_of(vmi), FAST_WRITER)
    name = begin(cluster, namespace, "web")
    assert mode_of(cluster, namespace, "web") == "Paused"
    done = wait_phase(cluster, namespace, name, *FINAL, timeout=120)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    assert done["status"]["migrationState"]["migrationConfiguration"]["allowPostCopy"] is False
    (told,) = [event for event in cluster.events(namespace) if "PostCopyNotAvailable" in event]
    assert "Postcopy is not supported" in told
    assert cluster.boot_id(address_of(cluster.wait_running(namespace, "web"))) == boot


def qemu_threads(namespace: str, name: str) -> set[str]:
    """Names of the threads of a machine's QEMUs."""
    return {
        path.read_text().strip()
        for pid, command in commands()
        if f"guest={namespace}_{name}," in command
        for path in Path(f"/proc/{pid}/task").glob("*/comm")
    }


def test_memory_goes_over_several_connections(cluster: Cluster, namespace: str) -> None:
    annotation = "kubevirt.io/multiThreadedQemuMigration"
    machine = cluster.virtual_machine("web")
    machine["spec"]["template"]["metadata"]["annotations"] = {annotation: "3"}
    cluster.create(namespace, machine)
    boot = cluster.boot_id(address_of(migratable(cluster, namespace, "web")))
    configure(cluster, {"bandwidthPerMigration": "4Mi"})
    name = begin(cluster, namespace, "web")
    wait_phase(cluster, namespace, name, "Running")
    deadline = time.monotonic() + cluster.seconds(30)
    while not {f"multifdsend_{number}" for number in range(3)} <= qemu_threads(namespace, "web"):
        assert time.monotonic() < deadline, qemu_threads(namespace, "web")
        time.sleep(0.1)  # threads of others can't be watched
    configure(cluster, None)
    done = wait_phase(cluster, namespace, name, *FINAL, timeout=120)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    for _round in range(2):
        assert cluster.boot_id(address_of(migrated(cluster, namespace, "web"))) == boot


def test_one_may_be_slowed_down(cluster: Cluster, namespace: str) -> None:
    configure(cluster, {"bandwidthPerMigration": "8Mi", "allowAutoConverge": True})
    vmi, _boot = start(cluster, namespace, "web", **ROOM)
    cluster.ssh(address_of(vmi), FAST_WRITER)
    name = begin(cluster, namespace, "web")
    done = wait_phase(cluster, namespace, name, *FINAL, timeout=170)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    assert done["status"]["migrationState"]["migrationConfiguration"]["allowAutoConverge"]
    # A guest that QEMU 7.2 emulates often hangs or panics afterwards, for a reason that isn't known: it isn't asked


@pytest.fixture
def narrow_policy(cluster: Cluster) -> Iterator[str]:
    """A policy that gives some machines little of the network; its name."""
    group, version, plural = POLICIES
    policy = {
        "apiVersion": f"{group}/{version}",
        "kind": "MigrationPolicy",
        "metadata": {"generateName": "narrow-"},
        "spec": {
            "bandwidthPerMigration": "4Mi",
            "selectors": {"virtualMachineInstanceSelector": {"tier": "narrow"}},
        },
    }
    name = cluster.custom.create_cluster_custom_object(group, version, plural, policy)["metadata"]["name"]
    yield name
    cluster.custom.delete_cluster_custom_object(group, version, plural, name)


def test_a_policy_limits_the_bandwidth_of_some_machines(cluster: Cluster, namespace: str, narrow_policy: str) -> None:
    took = {}
    for name, labels in (("wide", {}), ("narrow", {"tier": "narrow"})):
        vmi, _boot = start(cluster, namespace, name, labels=labels, **ROOM)
        # What is the same everywhere isn't sent
        cluster.ssh(address_of(vmi), "dd if=/dev/urandom of=/tmp/junk bs=64k count=384 2>/dev/null")
        began = time.monotonic()
        state = migrated(cluster, namespace, name)["status"]["migrationState"]
        took[name] = time.monotonic() - began
        assert state.get("migrationPolicyName") == (narrow_policy if labels else None)
        assert state["migrationConfiguration"]["bandwidthPerMigration"] == ("4Mi" if labels else "0")
    assert took["narrow"] > took["wide"] + 4, took


def with_cached_claim(cluster: Cluster, namespace: str) -> Object:
    """A machine with a claim that both nodes have, through their page caches."""
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    cluster.core.create_namespaced_persistent_volume_claim(namespace, claim)
    machine = cluster.virtual_machine("web")
    spec = machine["spec"]["template"]["spec"]
    disk = {"name": "data", "disk": {"bus": "virtio"}, "cache": "writeback"}
    spec["domain"]["devices"]["disks"].append(disk)
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    return machine


def test_a_cached_disk_is_migrated_only_if_that_is_wanted(cluster: Cluster, namespace: str) -> None:
    cluster.create(namespace, with_cached_claim(cluster, namespace))
    boot = cluster.boot_id(address_of(migratable(cluster, namespace, "web")))
    name = begin(cluster, namespace, "web")
    assert wait_phase(cluster, namespace, name, *FINAL)["status"]["phase"] == "Failed"
    state = cluster.wait_running(namespace, "web")["status"]["migrationState"]
    assert "the shared disks vdc" in state["failureReason"]
    assert "unsafeMigrationOverride" in state["failureReason"]
    configure(cluster, {"unsafeMigrationOverride": True})
    assert cluster.boot_id(address_of(migrated(cluster, namespace, "web"))) == boot


@contextlib.contextmanager
def cordoned(cluster: Cluster, node: str) -> Iterator[None]:
    """Nothing new comes to a node."""
    cluster.core.patch_node(node, {"spec": {"unschedulable": True}})
    try:
        yield
    finally:
        cluster.core.patch_node(node, {"spec": {"unschedulable": False}})


def scrape(component: str) -> dict[str, float]:
    """The values of a component's metrics, by name and labels."""
    # Its certificate is self-signed
    context = ssl._create_unverified_context()
    with urlopen(f"https://127.0.0.1:{PORTS[component]}/metrics", timeout=60, context=context) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {key: float(value) for key, _sign, value in (line.rpartition(" ") for line in lines)}


def test_metrics_tell_how_far_it_is(cluster: Cluster, namespace: str, second_node: str) -> None:
    (first,) = {node.metadata.name for node in cluster.core.list_node().items} - {second_node}
    with cordoned(cluster, second_node):
        vmi, _boot = start(cluster, namespace, "web", **ROOM)
    assert vmi["status"]["nodeName"] == first, "whose virt-handler serves metrics"
    cluster.ssh(address_of(vmi), WRITERS)
    configure(cluster, {"bandwidthPerMigration": "2Mi"})
    name = begin(cluster, namespace, "web")
    cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda o: (
            o and o["status"].get("migrationState", {}).get("transferStatus", {}).get("dataProcessedBytes", 0) > 0
        ),
        timeout=60,
        what="progress",
    )
    (own,) = (
        [key for key in scrape("virt-handler") if key.startswith("kubevirt_vmi_migration_data_remaining_bytes{")],
    )
    assert len(own) == 1
    assert f'namespace="{namespace}"' in own[0]
    found = scrape("virt-handler")
    values = {key.partition("{")[0]: value for key, value in found.items() if f'namespace="{namespace}"' in key}
    assert values["kubevirt_vmi_migration_data_bytes_total"] > 96 << 20
    assert values["kubevirt_vmi_migration_data_processed_bytes"] > 0
    assert "kubevirt_vmi_migration_dirty_memory_rate_bytes" in values
    assert "kubevirt_vmi_migration_memory_transfer_rate_bytes" in values
    assert scrape("virt-controller")["kubevirt_vmi_migrations_in_running_phase"] == 1
    cluster.delete(namespace, name, MIGRATIONS)
    cluster.wait_gone(namespace, name, MIGRATIONS)
    configure(cluster, None)
    done = migrated(cluster, namespace, "web")["status"]
    after = scrape("virt-controller")
    of_vmi = {key: value for key, value in after.items() if f'namespace="{namespace}"' in key and "migration" in key}
    (succeeded,) = [key for key in of_vmi if key.startswith("kubevirt_vmi_migration_succeeded{")]
    assert 'vmi="web"' in succeeded
    (ended,) = [key for key in of_vmi if key.startswith("kubevirt_vmi_migration_end_time_seconds{")]
    assert 'status="succeeded"' in ended
    assert f'node="{done["nodeName"]}"' in ended
    (began,) = [key for key in of_vmi if key.startswith("kubevirt_vmi_migration_start_time_seconds{")]
    assert time.time() - 120 < of_vmi[began] <= of_vmi[ended] <= time.time() + 1
    assert after["kubevirt_vmi_migrations_in_running_phase"] == 0
    assert not [key for key in scrape("virt-handler") if key.startswith("kubevirt_vmi_migration_data")]


def test_a_node_with_five_machines_is_drained(
    cluster: Cluster, namespace: str, second_node: str, tmp_path: Path
) -> None:
    (first,) = {node.metadata.name for node in cluster.core.list_node().items} - {second_node}
    names, boots = [f"web{number}" for number in range(5)], {}
    with cordoned(cluster, second_node):
        for name in names:
            machine = cluster.virtual_machine(name)
            machine["spec"]["template"]["spec"]["evictionStrategy"] = "LiveMigrate"
            cluster.create(namespace, machine)
            vmi = migratable(cluster, namespace, name)
            assert vmi["status"]["nodeName"] == first
            # One after the other: five that boot at once take each other's time
            boots[name] = cluster.boot_id(address_of(vmi))
    drain = ("turtles.kubevirt.drain", "-e", f"kubeconfig={cluster.kubeconfig}", "-e", f"drain_node={first}")
    try:
        done = playbook(*drain, "-e", "drain_timeout=240", folder=tmp_path)
        for name in names:
            assert f"{namespace}/{name}: now on node {second_node}" in done.stdout
    finally:
        playbook(*drain, "-e", "drain_state=schedulable", folder=tmp_path)
    for name in names:
        vmi = cluster.wait_running(namespace, name)
        assert vmi["status"]["nodeName"] == second_node
        assert not vmi["status"].get("evacuationNodeName")
        assert cluster.boot_id(address_of(vmi)) == boots[name]


@pytest.fixture
def strategy(cluster: Cluster) -> Iterator[None]:
    """Running machines get new launchers: by migration, or else by eviction, one at a time."""

    def choose(found: Object | None) -> None:
        body = {"spec": {"workloadUpdateStrategy": found}}
        where = ("kubevirt.io", "v1", "kubevirt", "kubevirts", "kubevirt")
        cluster.custom.patch_namespaced_custom_object(*where, body)

    choose({"workloadUpdateMethods": ["LiveMigrate", "Evict"], "batchEvictionSize": 1, "batchEvictionInterval": "5s"})
    yield
    choose(None)


@pytest.mark.usefixtures("strategy")
def test_memory_beyond_the_limit_of_its_pod_takes_a_migration(cluster: Cluster, namespace: str) -> None:
    quota = {"metadata": {"name": "limits"}, "spec": {"hard": {"limits.memory": "20Gi"}}}
    cluster.core.create_namespaced_resource_quota(namespace, quota)
    vmi, boot = start(cluster, namespace, "web", memory="1Gi")

    def limit(of: Object) -> int:
        # The Pod that the guest left may still be there
        (uid,) = [uid for uid, node in of["status"]["activePods"].items() if node == of["status"]["nodeName"]]
        (pod,) = [pod for pod in cluster.core.list_namespaced_pod(namespace).items if pod.metadata.uid == uid]
        (compute,) = [container for container in pod.spec.containers if container.name == "compute"]
        return int(compute.resources.limits["memory"])

    assert limit(vmi) < 3 << 30
    cluster.patch(namespace, "web", {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "3Gi"}}}}}})
    after = cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda o: (
            o
            and o["status"]["nodeName"] != vmi["status"]["nodeName"]
            and not condition(o, "MigrationRequired")
            and condition(o, "HotMemoryChange").get("status") == "True"
        ),
        timeout=120,
        what="memory at another node",
    )
    assert after is not None
    assert limit(after) > 3 << 30
    assert not condition(cluster.get(namespace, "virtualmachines", "web") or {}, "RestartRequired")
    assert cluster.boot_id(address_of(cluster.wait_running(namespace, "web"))) == boot


def outdated(vmi: Object | None) -> bool:
    return vmi is not None and "kubevirt.io/outdatedLauncherImage" in vmi["metadata"]["labels"]


@pytest.mark.usefixtures("strategy")
def test_running_machines_get_the_launcher_of_a_new_version(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    moving, boot = start(cluster, namespace, "moves")
    old = moving["status"]["launcherContainerImageVersion"]
    staying = {}
    for name in ("stays1", "stays2"):
        cluster.create(namespace, cluster.virtual_machine(name, binding="bridge"))
        staying[name] = cluster.wait_running(namespace, name)["metadata"]["uid"]
    new = f"{old.rpartition(':')[0]}:next"
    for image in (new, old):
        deploy = {**VARIABLES, "turtles_launcher_image": image}
        playbook("turtles.kubevirt.deploy", "-e", json.dumps(deploy), folder=tmp_path)
        vmi = cluster.wait(
            namespace,
            "virtualmachineinstances",
            "moves",
            lambda o, image=image: o and o["status"]["launcherContainerImageVersion"] == image and not outdated(o),
            timeout=180,
            what="launcher of the new version",
        )
        assert vmi is not None
        assert vmi["metadata"]["uid"] == moving["metadata"]["uid"]
        assert cluster.boot_id(address_of(cluster.wait_running(namespace, "moves"))) == boot
        for name, uid in staying.items():
            again = cluster.wait_running(namespace, name, not_uid=uid, timeout=180)
            assert again["status"]["launcherContainerImageVersion"] == image
            staying[name] = again["metadata"]["uid"]
    kubevirt = cluster.wait(
        "kubevirt",
        "kubevirts",
        "kubevirt",
        lambda o: o and o["status"].get("outdatedVirtualMachineInstanceWorkloads") == 0,
        timeout=60,
        what="no outdated machines",
    )
    assert kubevirt is not None
