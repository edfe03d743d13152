# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Running guests move to another node: nothing in them notices, and the API says what happens."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from engine import Engine, Object, condition

MIGRATIONS = "virtualmachineinstancemigrations"
FINAL = ("Succeeded", "Failed")
#: Appends numbered lines to a file on the disk, and fills memory with what can't be compressed, again and again.
WRITERS = """
i=0
while :; do i=$((i+1)); echo "$i $i $i" >>/root/lines; [ $((i % 100)) = 0 ] && sync; done </dev/null >/dev/null 2>&1 &
while :; do dd if=/dev/urandom of=/tmp/junk bs=64k count=64; done </dev/null >/dev/null 2>&1 &
"""


def migration(vmi: str, **spec: Any) -> Object:
    """A migration of a VMI."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {"generateName": f"move-{vmi}-"},
        "spec": {"vmiName": vmi, **spec},
    }


def begin(cluster: Engine, namespace: str, vmi: str) -> str:
    """Begin a migration; its name."""
    return cluster.create(namespace, migration(vmi))["metadata"]["name"]


def wait_phase(cluster: Engine, namespace: str, name: str, *phases: str, timeout: float = 60) -> Object:
    """The migration once it is in one of the phases."""
    found = cluster.wait(
        namespace,
        MIGRATIONS,
        name,
        lambda o: o and o.get("status", {}).get("phase") in phases,
        timeout=timeout,
        what=f"phase {' or '.join(phases)}",
    )
    assert found is not None
    return found


def migratable(cluster: Engine, namespace: str, name: str) -> Object:
    """The VMI once it runs and may be migrated."""
    cluster.wait_running(namespace, name)
    vmi = cluster.wait(
        namespace,
        "virtualmachineinstances",
        name,
        lambda o: o and condition(o, "LiveMigratable").get("status") == "True",
        timeout=30,
        what="condition LiveMigratable",
    )
    assert vmi is not None
    return vmi


def start(cluster: Engine, namespace: str, name: str, **options: Any) -> tuple[Object, str]:
    """A machine that runs and may be migrated: its VMI, and its boot id."""
    cluster.create(namespace, cluster.virtual_machine(name, **options))
    vmi = migratable(cluster, namespace, name)
    return vmi, cluster.boot_id(address_of(vmi))


def address_of(vmi: Object) -> str:
    return vmi["status"]["interfaces"][0]["ipAddress"]


def migrated(cluster: Engine, namespace: str, name: str) -> Object:
    """Migrate a machine; its VMI afterwards."""
    done = wait_phase(cluster, namespace, begin(cluster, namespace, name), *FINAL)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    vmi = cluster.get(namespace, "virtualmachineinstances", name)
    assert vmi is not None
    return vmi


def configure(cluster: Engine, settings: Object | None) -> None:
    """Set how migrations are done; None are the defaults. They are in force then."""
    where = ("kubevirt.io", "v1", "kubevirt", "kubevirts", "kubevirt")
    body = {"spec": {"configuration": {"migrations": settings}}}
    generation = cluster.custom.patch_namespaced_custom_object(*where, body)["metadata"]["generation"]
    cluster.wait(
        "kubevirt",
        "kubevirts",
        "kubevirt",
        lambda o: o and o.get("status", {}).get("observedGeneration", 0) >= generation,
        timeout=30,
        what="new settings in force",
    )


def refused(cluster: Engine, namespace: str, obj: Object) -> str:
    """Why an object is refused."""
    with pytest.raises(ApiException) as caught:
        cluster.create(namespace, obj)
    # What is wrong with a field, and what can't be done now
    assert caught.value.status in (422, 400)
    return str(caught.value.body)


def test_a_guest_moves_there_and_back(cluster: Engine, namespace: str) -> None:
    before, boot = start(cluster, namespace, "web")
    cluster.ssh(address_of(before), WRITERS)

    there = migrated(cluster, namespace, "web")
    state = there["status"]["migrationState"]
    assert there["metadata"]["uid"] == before["metadata"]["uid"]
    assert there["status"]["nodeName"] == state["targetNode"] != before["status"]["nodeName"] == state["sourceNode"]
    assert state["completed"]
    assert not state.get("failed")
    assert state["startTimestamp"] <= state["endTimestamp"]
    assert list(there["status"]["activePods"].values()) == [there["status"]["nodeName"]]
    assert address_of(there) != address_of(before)
    assert cluster.boot_id(address_of(there)) == boot
    assert cluster.ssh(address_of(there), "ip -4 -o addr show eth0").split()[3] == "10.0.2.2/24"

    back = migrated(cluster, namespace, "web")
    assert back["status"]["nodeName"] == before["status"]["nodeName"]
    assert cluster.boot_id(address_of(back)) == boot
    # In order, without a gap: no line was lost or written twice
    check = "wc -l </root/lines; awk '$1 != NR || $3 != NR {print; exit}' /root/lines | head -n 1"
    count, *wrong = cluster.ssh(address_of(back), check).split("\n", 1)
    assert int(count) > 100
    assert not wrong
    # the machine is still governed
    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web")


def test_a_migration_is_cancelled(cluster: Engine, namespace: str) -> None:
    vmi, boot = start(cluster, namespace, "web")
    # slow enough to be met on its way
    cluster.ssh(address_of(vmi), WRITERS)
    configure(cluster, {"bandwidthPerMigration": "1Mi"})
    try:
        name = begin(cluster, namespace, "web")
        wait_phase(cluster, namespace, name, "Running")
        assert "in-flight migration detected" in refused(cluster, namespace, migration("web"))
        vm = cluster.wait_status(namespace, "web", "Migrating")
        assert vm["status"]["ready"]
        cluster.delete(namespace, name, MIGRATIONS)
        cluster.wait_gone(namespace, name, MIGRATIONS)
    finally:
        configure(cluster, None)
    after = cluster.get(namespace, "virtualmachineinstances", "web")
    assert after is not None
    state = after["status"]["migrationState"]
    assert (state["abortStatus"], state["failed"]) == ("Succeeded", True)
    assert after["status"]["nodeName"] == vmi["status"]["nodeName"]
    assert cluster.boot_id(address_of(after)) == boot


def test_what_can_not_be_migrated_is_told(cluster: Engine, namespace: str) -> None:
    assert "does not exist" in refused(cluster, namespace, migration("nothing"))
    assert "vmiName is missing" in refused(cluster, namespace, migration(""))
    cluster.create(namespace, cluster.virtual_machine("stopped", run_strategy="Halted"))
    assert "does not exist" in refused(cluster, namespace, migration("stopped"))
    with pytest.raises(ApiException, match="VM is not running"):
        cluster.subresource(namespace, "stopped", "migrate")
    cluster.claim(namespace, "data", "64Mi")
    claimed = cluster.virtual_machine("claimed")
    spec = claimed["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": "data", "disk": {"bus": "virtio"}})
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    for machine in (cluster.virtual_machine("fixed", binding="bridge"), claimed):
        cluster.create(namespace, machine)
    for name, reason in (("fixed", "InterfaceNotLiveMigratable"), ("claimed", "DisksNotLiveMigratable")):
        cluster.wait_running(namespace, name)
        cluster.wait(
            namespace,
            "virtualmachineinstances",
            name,
            lambda o, reason=reason: o and condition(o, "LiveMigratable").get("reason") == reason,
            timeout=30,
            what="condition LiveMigratable",
        )
        assert f"Reason: {reason}" in refused(cluster, namespace, migration(name))
    with pytest.raises(ApiException) as caught:
        cluster.subresource(namespace, "fixed", "migrate")
    assert "Cannot migrate VMI, Reason: InterfaceNotLiveMigratable" in str(caught.value)


def test_an_eviction_moves_the_guest(cluster: Engine, namespace: str) -> None:
    machine = cluster.virtual_machine("web")
    machine["spec"]["template"]["spec"]["evictionStrategy"] = "LiveMigrate"
    cluster.create(namespace, machine)
    before = migratable(cluster, namespace, "web")
    boot = cluster.boot_id(address_of(before))
    pod = cluster.launcher(namespace, "web").metadata.name
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod, namespace=namespace))
    with pytest.raises(ApiException) as caught:
        cluster.core.create_namespaced_pod_eviction(pod, namespace, eviction)
    assert caught.value.status == 429
    assert f'Eviction triggered evacuation of VMI \\"{namespace}/web\\"' in str(caught.value.body)
    after = cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda o: o and o["status"]["nodeName"] != before["status"]["nodeName"] and address_of(o) != address_of(before),
        timeout=60,
        what="another node",
    )
    assert after is not None
    assert not after["status"].get("evacuationNodeName")
    assert cluster.boot_id(address_of(after)) == boot
