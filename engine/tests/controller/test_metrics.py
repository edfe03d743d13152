# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from turtles.controller.metrics import instances, machines, migrations
from turtles.controller.metrics.transitions import Transitions
from turtles.metrics import Description, Sample

NETWORKS = [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "ns/lan"}}]
INTERFACES = [{"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}, "model": "e1000"}]


def vm(status: str = "Running", domain: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"}
    other = {"type": "AgentConnected", "status": "True", "lastTransitionTime": "1970-01-01T00:02:00Z"}
    return {
        "metadata": {"name": "web", "namespace": "ns", "creationTimestamp": "1970-01-01T00:00:10Z"},
        "spec": {
            "template": {
                "metadata": {"annotations": {"vm.kubevirt.io/os": "linux"}},
                "spec": {"domain": domain or {}, **spec},
            }
        },
        "status": {"printableStatus": status, "conditions": [ready, other]},
    }


def vmi(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u"},
        "spec": {"domain": {"devices": {"interfaces": INTERFACES}}, "networks": NETWORKS},
        "status": {"phase": "Running", "nodeName": "n", **status},
    }


def of(found: Iterable[Sample], name: str) -> list[tuple[dict[str, str], float]]:
    return [(dict(sample.labels), sample.value) for sample in found if sample.name == name]


def machine(obj: dict[str, Any], name: str, **pvcs: Any) -> list[tuple[dict[str, str], float]]:
    return of(machines.samples([obj], lambda namespace, claim: pvcs.get(claim)), name)


@pytest.mark.parametrize(
    ("word", "group"),
    [
        ("Starting", "starting"),
        ("Running", "running"),
        ("Migrating", "migrating"),
        ("Paused", "non_running"),
        ("ErrorUnschedulable", "error"),
        ("", "<unknown>"),
    ],
)
def test_what_a_machine_is(word: str, group: str) -> None:
    ((labels, value),) = machine(vm(word, {"machine": {"type": "q35"}}), "kubevirt_vm_info")
    assert value == 1.0
    assert labels == {
        "name": "web",
        "namespace": "ns",
        "os": "linux",
        "workload": "",
        "flavor": "",
        "machine_type": "q35",
        "instance_type": "",
        "preference": "",
        "status": word.lower(),
        "status_group": group,
    }


@pytest.mark.parametrize(
    ("domain", "requests", "limits"),
    [
        (
            {"memory": {"guest": "1Ki"}},
            {("memory", "guest"): 1024, ("cores", "default"): 1, ("threads", "default"): 1, ("sockets", "default"): 1},
            {},
        ),
        (
            {"cpu": {"cores": 2, "sockets": 3}, "memory": {"hugepages": {"pageSize": "2Mi"}}},
            {("memory", "hugepages"): 2**21, ("cores", "domain"): 2, ("sockets", "domain"): 3},
            {},
        ),
        (
            {"resources": {"requests": {"cpu": "500m", "memory": "1M"}, "limits": {"cpu": 2, "memory": "2M"}}},
            {("memory", "domain"): 1e6, ("cores", "requests"): 0.5},
            {"memory": 2e6, "cpu": 2},
        ),
    ],
)
def test_resources(domain: dict, requests: dict, limits: dict) -> None:
    found = machine(vm(domain=domain), "kubevirt_vm_resource_requests")
    assert {
        (each["unit"] if each["resource"] == "cpu" else "memory", each["source"]): value for each, value in found
    } == requests
    found = machine(vm(domain=domain), "kubevirt_vm_resource_limits")
    assert {each["resource"]: value for each, value in found} == limits


def test_moments_disks_and_interfaces() -> None:
    volumes = [{"name": "root", "persistentVolumeClaim": {"claimName": "disk"}}, {"name": "seed", "emptyDisk": {}}]
    obj = vm(domain={"devices": {"interfaces": INTERFACES}}, networks=NETWORKS, volumes=volumes)
    own = {"name": "web", "namespace": "ns"}
    assert machine(obj, "kubevirt_vm_create_date_timestamp_seconds") == [(own, 10.0)]
    assert machine(obj, "kubevirt_vm_running_status_last_transition_timestamp_seconds") == [(own, 60.0)]
    assert machine(obj, "kubevirt_vm_error_status_last_transition_timestamp_seconds") == [(own, 0.0)]
    pvc = {"spec": {"volumeMode": "Block", "resources": {"requests": {"storage": "1Ki"}}}}
    labels = {**own, "persistentvolumeclaim": "disk", "volume_mode": "Block", "device": "root"}
    assert machine(obj, "kubevirt_vm_disk_allocated_size_bytes", disk=pvc) == [(labels, 1024.0)]
    assert machine(obj, "kubevirt_vm_disk_allocated_size_bytes") == []
    vnics = [
        (each["network"], each["binding_name"], each["model"]) for each, _ in machine(obj, "kubevirt_vm_vnic_info")
    ]
    assert vnics == [("pod networking", "masquerade", "<none>"), ("ns/lan", "bridge", "e1000")]


def instance(
    obj: dict[str, Any], name: str, strategy: str = "None", overhead: str = "300"
) -> list[tuple[dict[str, str], float]]:
    annotations = {"kubevirt.io/memory-overhead-bytes": overhead}
    pod = {"metadata": {"name": "launcher", "annotations": annotations}, "status": {"phase": "Running"}}
    return of(instances.samples([obj], lambda vmi: pod, strategy), name)


def test_what_an_instance_is() -> None:
    guest = {"name": "Debian", "versionId": "12", "kernelRelease": "6.1", "machine": "x86_64"}
    obj = vmi(guestOSInfo=guest, machine={"type": "pc-q35-7.2"})
    ((labels, _),) = instance(obj, "kubevirt_vmi_info")
    assert {key: value for key, value in labels.items() if value} == {
        "node": "n",
        "namespace": "ns",
        "name": "web",
        "phase": "running",
        "guest_os_kernel_release": "6.1",
        "guest_os_machine": "pc-q35-7.2",
        "guest_os_arch": "x86_64",
        "guest_os_name": "Debian",
        "guest_os_version_id": "12",
        "evictable": "true",
        "outdated": "false",
        "vmi_pod": "launcher",
    }
    assert instance(obj, "kubevirt_vmi_launcher_memory_overhead_bytes") == [({"namespace": "ns", "name": "web"}, 300.0)]
    assert instance(obj, "kubevirt_vmi_number_of_running") == [({}, 1.0)]


@pytest.mark.parametrize("overhead", ["", "²", "9" * 5000, "1e3", "-1"])
def test_an_annotation_that_a_user_changed_costs_nobody_their_metrics(overhead: str) -> None:
    assert instance(vmi(), "kubevirt_vmi_launcher_memory_overhead_bytes", overhead=overhead) == []
    assert instance(vmi(), "kubevirt_vmi_number_of_running", overhead=overhead) == [({}, 1.0)]


@pytest.mark.parametrize(
    ("strategy", "migratable", "stuck"),
    [("None", None, 0), ("LiveMigrate", None, 1), ("LiveMigrate", "False", 1), ("LiveMigrate", "True", 0)],
)
def test_who_keeps_a_node_from_being_drained(strategy: str, migratable: str | None, stuck: float) -> None:
    conditions = [{"type": "LiveMigratable", "status": migratable}] if migratable else []
    ((_, value),) = instance(vmi(conditions=conditions), "kubevirt_vmi_non_evictable", strategy)
    assert value == stuck


def test_addresses() -> None:
    found = instance(
        vmi(interfaces=[{"name": "default", "ipAddress": "10.0.0.1"}, {"interfaceName": "docker0"}, {}]),
        "kubevirt_vmi_status_addresses",
    )
    assert [(each["vnic_name"], each["interface_name"], each["address"], each["type"]) for each, _ in found] == [
        ("default", "", "10.0.0.1", "ExternalInterface"),
        ("", "docker0", "", "SystemInterface"),
    ]


def at(seconds: int) -> str:
    return f"1970-01-01T00:00:{seconds:02}Z"


def test_how_long_phases_take() -> None:
    transitions = Transitions()

    def in_phase(**moments: int) -> dict[str, Any]:
        times = [{"phase": phase, "phaseTransitionTimestamp": at(moment)} for phase, moment in moments.items()]
        metadata = {"creationTimestamp": at(0), "deletionTimestamp": at(30)}
        return {"metadata": metadata, "status": {"phase": list(moments)[-1], "phaseTransitionTimestamps": times}}

    pending, running = in_phase(Pending=1), in_phase(Pending=1, Running=4)
    transitions.observe(None, pending)
    transitions.observe(pending, running)
    transitions.observe(running, running)
    transitions.observe(running, in_phase(Pending=1, Running=4, Succeeded=37))
    found = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in transitions.source.samples()}
    name = "kubevirt_vmi_phase_transition_time_seconds"
    labels = (("last_phase", "Pending"), ("phase", "Running"))
    assert found[f"{name}_sum", labels] == 3.0
    buckets = [found[f"{name}_bucket", (*labels[:1], ("le", bound), *labels[1:])] for bound in ("2", "5", "+Inf")]
    assert buckets == [0, 1, 1]
    assert found["kubevirt_vmi_phase_transition_time_from_creation_seconds_sum", (("phase", "Running"),)] == 4.0
    assert found["kubevirt_vmi_phase_transition_time_from_deletion_seconds_sum", (("phase", "Succeeded"),)] == 7.0


@pytest.mark.parametrize("descriptions", [machines.DESCRIPTIONS, instances.DESCRIPTIONS])
def test_descriptions(descriptions: tuple[Description, ...]) -> None:
    names = [each.name for each in descriptions]
    assert len(names) == len(set(names))
    assert all(each.name.endswith("_total") == (each.kind == "counter") for each in descriptions)


def move(name: str, phase: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "1970-01-01T00:00:10Z"},
        "spec": {"vmiName": "web"},
        "status": {"phase": phase, **status} if phase else {},
    }


@pytest.mark.parametrize(
    ("phase", "word"),
    [
        ("", "unset"),
        ("Pending", "pending"),
        ("Scheduling", "scheduling"),
        ("Scheduled", "running"),
        ("PreparingTarget", "running"),
        ("TargetReady", "running"),
        ("Running", "running"),
        ("Succeeded", None),
        ("Failed", None),
    ],
)
def test_migrations_are_counted_by_phase(phase: str, word: str | None) -> None:
    found = list(migrations.samples([move("a", phase)], []))
    for each in ("unset", "pending", "scheduling", "running"):
        assert of(found, f"kubevirt_vmi_migrations_in_{each}_phase") == [({}, float(each == word))]


def test_migrations_that_ended() -> None:
    found = list(migrations.samples([move("a", "Succeeded"), move("b", "Failed"), move("c", "Running")], []))
    for name, outcome in (("a", "succeeded"), ("b", "failed")):
        labels = {"vmi": "web", "vmim": name, "namespace": "ns"}
        assert of(found, f"kubevirt_vmi_migration_{outcome}") == [(labels, 1.0)]


@pytest.mark.parametrize(("failed", "status"), [(False, "succeeded"), (True, "failed")])
def test_when_an_instance_was_migrated(failed: bool, status: str) -> None:
    state = {
        "migrationUid": "a",
        "startTimestamp": "1970-01-01T00:01:00Z",
        "endTimestamp": "1970-01-01T00:02:00Z",
        "failed": failed,
    }
    found = list(migrations.samples([move("a", "Succeeded")], [vmi(migrationState=state), vmi()]))
    labels = {"node": "n", "namespace": "ns", "name": "web", "migration_name": "a"}
    assert of(found, "kubevirt_vmi_migration_start_time_seconds") == [(labels, 60.0)]
    assert of(found, "kubevirt_vmi_migration_end_time_seconds") == [({**labels, "status": status}, 120.0)]


def test_a_migration_that_was_removed_has_no_name() -> None:
    (found,) = of(
        migrations.samples([], [vmi(migrationState={"migrationUid": "a", "startTimestamp": "1970-01-01T00:01:00Z"})]),
        "kubevirt_vmi_migration_start_time_seconds",
    )
    assert found[0]["migration_name"] == "<none>"


def test_how_long_migrations_take() -> None:
    watched, name = Transitions(), "kubevirt_vmi_migration_phase_transition_time_from_creation_seconds"
    began = {"phase": "Running", "phaseTransitionTimestamp": "1970-01-01T00:00:13Z"}
    watched.observe_migration(move("a", "Scheduling"), move("a", "Running", phaseTransitionTimestamps=[began]))
    assert of(watched.source.samples(), f"{name}_sum") == [({"phase": "Running"}, 3.0)]
