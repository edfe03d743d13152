# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest

from turtles.api import labels
from turtles.api.guests import firmware_uuid
from turtles.api.kind import Context, Missing
from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.defaults.disks import pull_policy
from turtles.api.kinds.vmi.validation import validate

from .objects import put, talk_vm, talk_vmi

#: Clients read these of every machine; KubeVirt's controllers write them.
OBSERVED = {"kubevirt.io/latest-observed-api-version": "v1", "kubevirt.io/storage-observed-api-version": "v1"}


def test_annotations_of_users_stay():
    vm = put(talk_vm(), "metadata.annotations", {"note": "x"})
    assert vms.default(vm)["metadata"]["annotations"] == {"note": "x", **OBSERVED}


def test_vm_keeps_what_it_says():
    before = talk_vm()
    after = vms.default(before, random_uuid=lambda: "u")
    assert before == talk_vm()
    domain = after["spec"]["template"]["spec"]["domain"]
    assert domain.pop("machine") == {"type": "q35"}
    assert domain.pop("firmware") == {"uuid": "u", "serial": "u"}
    assert after["spec"]["template"]["spec"].pop("architecture") == "amd64"
    assert after["metadata"].pop("finalizers") == [labels.VM_FINALIZER]
    assert after["metadata"].pop("annotations") == OBSERVED
    assert after == before


def test_firmware_identity_stays_for_life():
    created = vms.default(talk_vm())
    updated = vms.default_update(talk_vm(), created)
    assert updated["spec"] == created["spec"]
    chosen = put(talk_vm(), "spec.template.spec.domain.firmware", {"uuid": "mine"})
    firmware = vms.default_update(chosen, created)["spec"]["template"]["spec"]["domain"]["firmware"]
    assert firmware["uuid"] == "mine"
    assert vms.default_update(talk_vm(), talk_vm())["spec"]["template"]["spec"]["domain"].get("firmware") is None


def test_vmi_of_the_talk():
    before = talk_vmi()
    vmi = default(before, Context(now="2026-01-01T00:00:00Z"))
    assert before == talk_vmi()
    spec = vmi["spec"]
    domain = spec["domain"]
    assert spec["architecture"] == "amd64"
    assert spec["evictionStrategy"] == "None"
    assert domain["machine"] == {"type": "q35"}
    assert domain["cpu"] == {"sockets": 1, "cores": 1, "threads": 1, "maxSockets": 4, "model": "host-model"}
    assert domain["memory"] == {"guest": "64M"}
    assert domain["features"] == {"acpi": {"enabled": True}}
    assert domain["firmware"] == {"uuid": firmware_uuid("testvm")}
    assert spec["volumes"][0]["containerDisk"]["imagePullPolicy"] == "Always"
    assert vmi["metadata"]["finalizers"] == [labels.VMI_FINALIZER]
    assert vmi["metadata"]["annotations"] == {labels.PCI_TOPOLOGY_VERSION: "v3", **OBSERVED}
    assert vmi["status"] == {
        "phase": "Pending",
        "phaseTransitionTimestamps": [{"phase": "Pending", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"}],
        "runtimeUser": 107,
        "currentCPUTopology": {"cores": 1, "sockets": 1, "threads": 1},
        "memory": {"guestAtBoot": "64M", "guestCurrent": "64M", "guestRequested": "64M"},
        "guestOSInfo": {},
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "GuestNotRunning",
                "message": "Guest VM is not reported as running",
                "lastProbeTime": None,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    assert validate(vmi) == []


def test_defaults_are_stable():
    once = default(talk_vmi(), Context(now="t"))
    assert default(copy.deepcopy(once), Context(now="t")) == once


def test_smallest_vmi():
    vmi = {
        "metadata": {"generateName": "small-"},
        "spec": {
            "domain": {"devices": {}, "memory": {"guest": "1Gi"}},
            "volumes": [{"name": "root", "containerDisk": {"image": "example.org/disk:1"}}],
        },
    }
    vmi = default(vmi)
    devices = vmi["spec"]["domain"]["devices"]
    assert devices["interfaces"] == [{"name": "default", "bridge": {}}]
    assert vmi["spec"]["networks"] == [{"name": "default", "pod": {}}]
    assert devices["disks"] == [{"name": "root", "disk": {"bus": "sata"}}]
    assert vmi["spec"]["volumes"][0]["containerDisk"]["imagePullPolicy"] == "IfNotPresent"
    assert validate(vmi) == []


@pytest.mark.parametrize(
    ("cpu", "resources", "topology"),
    [
        ({}, {"requests": {"cpu": "100m"}}, (1, 1, 1)),
        ({}, {"requests": {"cpu": "1500m"}}, (2, 1, 1)),
        ({}, {"limits": {"cpu": 4}, "requests": {"cpu": 2}}, (4, 1, 1)),
        ({"cores": 2}, {"limits": {"cpu": 4}}, (None, 2, None)),
        ({"threads": 2, "sockets": 3}, {}, (3, None, 2)),
    ],
)
def test_topology(cpu, resources, topology):
    vmi = talk_vmi()
    vmi["spec"]["domain"].update(cpu=cpu, resources={"limits": {}, **resources}, memory={"guest": "1Gi"})
    vmi = default(vmi)
    found = vmi["spec"]["domain"]["cpu"]
    assert (found.get("sockets"), found.get("cores"), found.get("threads")) == topology
    said = {name: count for name, count in zip(("sockets", "cores", "threads"), topology, strict=True) if count}
    assert vmi["status"]["currentCPUTopology"] == said
    if resources.get("limits", {}).get("cpu") and not resources.get("requests"):
        assert vmi["spec"]["domain"]["resources"]["requests"]["cpu"] == "4"


def test_device_defaults():
    vmi = talk_vmi()
    devices = vmi["spec"]["domain"]["devices"]
    devices["disks"][0] = {"name": "containerdisk", "cdrom": {}}
    devices["inputs"] = [{"name": "tablet", "type": "tablet"}]
    devices["watchdog"] = {"name": "dog"}
    vmi["spec"]["domain"]["clock"] = {"timer": {"hpet": {}, "pit": {"present": False}}}
    vmi["spec"]["domain"]["cpu"] = {"features": [{"name": "apic"}]}
    domain = default(vmi)["spec"]["domain"]
    assert domain["devices"]["disks"][0]["cdrom"] == {"bus": "sata", "readonly": True, "tray": "closed"}
    assert domain["devices"]["inputs"][0]["bus"] == "usb"
    assert domain["devices"]["watchdog"]["i6300esb"] == {"action": "reset"}
    assert domain["clock"]["timer"] == {"hpet": {"present": True}, "pit": {"present": False}}
    assert domain["cpu"]["features"] == [{"name": "apic"}]


@pytest.mark.parametrize(
    ("architecture", "given", "wanted"),
    [
        ("amd64", {}, {"i6300esb": {"action": "reset"}}),
        ("amd64", {"i6300esb": {"action": ""}}, {"i6300esb": {"action": "reset"}}),
        ("amd64", {"i6300esb": {"action": "poweroff"}}, {"i6300esb": {"action": "poweroff"}}),
        ("amd64", {"diag288": {}}, {"i6300esb": {"action": "reset"}, "diag288": {"action": "reset"}}),
        ("s390x", {}, {"diag288": {"action": "reset"}}),
    ],
)
def test_the_watchdog_is_that_of_the_architecture(architecture, given, wanted):
    vmi = put(talk_vmi(), "spec.domain.devices.watchdog", {"name": "dog", **given})
    vmi["spec"]["architecture"] = architecture
    assert default(vmi)["spec"]["domain"]["devices"]["watchdog"] == {"name": "dog", **wanted}


@pytest.mark.parametrize("name", ["livenessProbe", "readinessProbe"])
def test_probes_are_made_every_ten_seconds(name):
    usual = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    vmi = put(talk_vmi(), f"spec.{name}", {"guestAgentPing": {}, "initialDelaySeconds": 5})
    assert default(vmi)["spec"][name] == {"guestAgentPing": {}, "initialDelaySeconds": 5, **usual}
    own = {"exec": {"command": ["true"]}, **{key: value + 1 for key, value in usual.items()}}
    assert default(put(talk_vmi(), f"spec.{name}", own))["spec"][name] == own
    assert default(put(talk_vmi(), f"spec.{name}", {**own, **dict.fromkeys(usual, 0)}))["spec"][name] == {
        **own,
        **usual,
    }


def test_an_empty_type_of_an_input_device_is_a_tablet():
    vmi = put(talk_vmi(), "spec.domain.devices.inputs", [{"name": "t", "type": ""}])
    assert default(vmi)["spec"]["domain"]["devices"]["inputs"] == [{"name": "t", "type": "tablet", "bus": "usb"}]


def test_no_pod_interface():
    vmi = put(talk_vmi(), "spec.domain.devices.autoattachPodInterface", False)
    del vmi["spec"]["networks"]
    del vmi["spec"]["domain"]["devices"]["interfaces"]
    spec = default(vmi)["spec"]
    assert "networks" not in spec
    assert "interfaces" not in spec["domain"]["devices"]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("cirros", "Always"),
        ("cirros:latest", "Always"),
        ("example.org:5000/cirros", "IfNotPresent"),
        ("example.org:5000/cirros:1", "IfNotPresent"),
        ("cirros@sha256:abc", "IfNotPresent"),
        ("oci:/images/tiny:1", "IfNotPresent"),
        ("oci:/images/tiny", "Always"),
    ],
)
def test_pull_policy(image, policy):
    assert pull_policy(image) == policy


@pytest.mark.parametrize(
    ("written", "stored"),
    [("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("2000Ki", "2000Ki"), (1073741824, "1073741824"), ("0.5G", "500M")],
)
def test_quantities_are_stored_as_kubernetes_writes_them(written, stored):
    vm = put(talk_vm(), "spec.template.spec.domain.memory", {"guest": written})
    for made in (vms.default(vm), vms.default_update(vm, talk_vm())):
        assert made["spec"]["template"]["spec"]["domain"]["memory"]["guest"] == stored
    assert (
        default(put(talk_vmi(), "spec.domain.memory", {"guest": written}))["spec"]["domain"]["memory"]["guest"]
        == stored
    )


def test_what_is_null_is_not_stored():
    vm = put(talk_vm(), "spec.template.spec.domain.cpu", {"cores": 2, "sockets": None})
    assert vms.default(vm)["spec"]["template"]["spec"]["domain"]["cpu"] == {"cores": 2}


def test_the_claims_of_templates_are_written_likewise():
    claim = {"resources": {"requests": {"storage": "1024Mi"}}}
    template = {"metadata": {"name": "x"}, "spec": {"source": {"blank": {}}, "pvc": claim}}
    made = vms.default(put(talk_vm(), "spec.dataVolumeTemplates", [template]))
    assert made["spec"]["dataVolumeTemplates"][0]["spec"]["pvc"]["resources"]["requests"] == {"storage": "1Gi"}


ARM = {"metadata": {"labels": {"template.kubevirt.io/architecture": "arm64"}}, "spec": {"source": {"pvc": {}}}}


@pytest.mark.parametrize(
    ("sources", "reference", "architecture"),
    [
        ({("ns", "arm"): ARM}, {"kind": "DataSource", "name": "arm"}, "arm64"),
        ({("images", "arm"): ARM}, {"kind": "datasource", "name": "arm", "namespace": "images"}, "arm64"),
        (
            {("ns", "arm"): ARM, ("ns", "latest"): {"spec": {"source": {"dataSource": {"name": "arm"}}}}},
            {"kind": "DataSource", "name": "latest"},
            "arm64",
        ),
        ({}, {"kind": "DataSource", "name": "arm"}, "amd64"),
        ({("ns", "arm"): ARM}, {"kind": "Disk", "name": "arm"}, "amd64"),
        (
            {("ns", "vax"): put(copy.deepcopy(ARM), "metadata.labels", {"template.kubevirt.io/architecture": "vax"})},
            {"kind": "DataSource", "name": "vax"},
            "amd64",
        ),
    ],
)
def test_the_architecture_of_a_disk_is_the_machines(sources, reference, architecture):
    def find(kind, namespace, name):
        if (found := sources.get((namespace, name))) is None:
            raise Missing("not found")
        return found

    template = {"metadata": {"name": "x"}, "spec": {"sourceRef": reference, "storage": {}}}
    vm = put(put(talk_vm(), "metadata.namespace", "ns"), "spec.dataVolumeTemplates", [template])
    spec = vms.default(vm, Context(find=find))["spec"]["template"]["spec"]
    assert spec["architecture"] == architecture
    assert spec["domain"]["machine"]["type"] == ("virt" if architecture == "arm64" else "q35")
    own = vms.default(put(vm, "spec.template.spec.architecture", "s390x"), Context(find=find))
    assert own["spec"]["template"]["spec"]["architecture"] == "s390x"
