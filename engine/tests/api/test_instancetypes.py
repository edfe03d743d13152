# SPDX-License-Identifier: GPL-3.0-or-later
"""Instance types and preferences at admission: their own, and that of the VirtualMachines that name them."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turtles.api.kind import Context, Missing, Refusal
from turtles.api.kinds import KINDS
from turtles.api.kinds import vm as vms
from turtles.api.kinds.instancetype.expansion import expand, expanded_template, missing
from turtles.api.kinds.preference.application import apply_preference, apply_storage_class
from turtles.api.language import Cause

from .objects import put


def instancetype(**spec: Any) -> dict[str, Any]:
    return {
        "kind": "VirtualMachineClusterInstancetype",
        "metadata": {"name": "medium"},
        "spec": {"cpu": {"guest": 4}, "memory": {"guest": "256Mi"}, **spec},
    }


def preference(**spec: Any) -> dict[str, Any]:
    return {"kind": "VirtualMachineClusterPreference", "metadata": {"name": "linux"}, "spec": spec}


def machine(spec: dict[str, Any] | None = None, **names: Any) -> dict[str, Any]:
    """Return a VirtualMachine that names an instance type; `spec` is merged into its template's."""
    template = {
        "domain": {"devices": {"disks": [{"name": "root", "disk": {}}], "interfaces": [{"name": "net"}]}},
        "networks": [{"name": "net", "pod": {}}],
        "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "disk"}}],
    }
    template["domain"]["devices"]["interfaces"][0]["masquerade"] = {}  # type: ignore[index]
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "vm", "namespace": "ns"},
        "spec": {
            "runStrategy": "Halted",
            "instancetype": {"name": "medium"},
            "template": {"metadata": {}, "spec": merged(template, spec or {})},
            **names,
        },
    }


def merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(one.get(key), other.get(key)) for key in {**one, **other}}
    return one if other is None else other


def world(*objects: dict[str, Any]) -> Context:
    """Return what admission knows where there are these objects."""
    there = {(obj.get("kind"), obj["metadata"].get("namespace") or "", obj["metadata"]["name"]): obj for obj in objects}

    def find(kind: str, namespace: str, name: str) -> dict[str, Any]:
        try:
            return copy.deepcopy(there[kind, namespace, name])
        except KeyError:
            raise Missing(f'{kind.lower()}s "{name}" not found') from None

    return Context(find=find)


def judged(vm: dict[str, Any], *objects: dict[str, Any]) -> list[Cause]:
    context = world(*objects)
    return vms.validate(vms.default(vm, context), context)


def expanded(vm: dict[str, Any], *objects: dict[str, Any]) -> dict[str, Any]:
    context = world(*objects)
    result = expand(vm, context.find, context.config)
    assert not {"instancetype", "preference"} & result["spec"].keys()
    spec: dict[str, Any] = result["spec"]["template"]["spec"]
    return spec


def review(kind: str, spec: dict[str, Any]) -> tuple[list[Cause], list[str]]:
    found = next(each for each in KINDS if each.kind == kind)
    assert found.validate
    assert found.warn
    obj = {"metadata": {"name": "x"}, "spec": spec}
    return found.validate(obj, Context()), found.warn(obj)


# --- the kinds themselves --------------------------------------------------------------------------------------------

SIZED = {"cpu": {"guest": 1}, "memory": {"guest": "64Mi"}}


@pytest.mark.parametrize("kind", ["VirtualMachineInstancetype", "VirtualMachineClusterInstancetype"])
@pytest.mark.parametrize(
    ("spec", "message", "field"),
    [
        ({"cpu": {}}, "spec.cpu.guest is a required field", "spec.cpu.guest"),
        ({"memory": {}}, "spec.memory.guest is a required field", "spec.memory.guest"),
        (
            {"memory": {"guest": "64Mi", "overcommitPercent": 101}},
            "spec.memory.overcommitPercent '101': must be in range between 0 and 100.",
            "spec.memory.overcommitPercent",
        ),
        (
            {"memory": {"guest": "64Mi", "overcommitPercent": 1, "hugepages": {"pageSize": "2Mi"}}},
            "spec.memory.overcommitPercent and spec.memory.hugepages should not be requested together.",
            "spec.memory.overcommitPercent",
        ),
    ],
)
def test_refused_instancetypes(kind: str, spec: dict[str, Any], message: str, field: str) -> None:
    causes, _ = review(kind, {**SIZED, **spec})
    assert [(cause.message, cause.field) for cause in causes] == [(message, field)]
    assert review(kind, SIZED) == ([], [])
    assert review(kind, {**SIZED, "cpu": {"guest": 0, "maxSockets": 0}}) == ([], []), "0 is 1, as in a machine"


@pytest.mark.parametrize("kind", ["VirtualMachinePreference", "VirtualMachineClusterPreference"])
@pytest.mark.parametrize(
    ("cpu", "message", "field"),
    [
        ({"preferredCPUTopology": "stars"}, "unknown preferredCPUTopology stars", "spec.cpu.preferredCPUTopology"),
        (
            {"preferredCPUTopology": "spread", "spreadOptions": {"across": "Cores"}},
            "across Cores is not supported",
            "spec.cpu.spreadOptions.across",
        ),
        (
            {"preferredCPUTopology": "spread", "spreadOptions": {"across": "CoresThreads", "ratio": 4}},
            "only a ratio of 2 (1 core 2 threads) is allowed when spreading vCPUs over cores and threads",
            "spec.cpu.spreadOptions.ratio",
        ),
    ],
)
def test_refused_preferences(kind: str, cpu: dict[str, Any], message: str, field: str) -> None:
    causes, _ = review(kind, {"cpu": cpu})
    assert causes == [Cause("FieldValueInvalid", message, field)]
    # Options of a spread that isn't asked for are not looked at
    assert review(kind, {"cpu": {"spreadOptions": {"across": "Cores"}}}) == ([], [])


def test_what_is_deprecated_draws_a_warning() -> None:
    assert review("VirtualMachinePreference", {"cpu": {"preferredCPUTopology": "preferCores"}}) == (
        [],
        ["PreferredCPUTopology preferCores is deprecated for removal in a future release, please use cores instead"],
    )
    causes, warnings = review("VirtualMachineInstancetype", {**SIZED, "launchSecurity": {"sev": {}}})
    assert causes == []
    assert warnings == ["launchSecurity is deprecated and will be removed in a future release. Use preference instead."]


# --- which object is meant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (
            {"instancetype": {}},
            (
                "FieldValueNotFound",
                "Either Name or InferFromVolume should be provided within the instancetype matcher",
                "spec.instancetype",
            ),
        ),
        (
            {"preference": {"name": "linux", "inferFromVolume": "root"}},
            (
                "FieldValueNotFound",
                "Name should not be provided when InferFromVolume is used within the preference matcher",
                "spec.preference.name",
            ),
        ),
        (
            {"instancetype": {"kind": "VirtualMachineInstancetype", "inferFromVolume": "root"}},
            (
                "FieldValueNotFound",
                "Kind should not be provided when InferFromVolume is used within the instancetype matcher",
                "spec.instancetype.kind",
            ),
        ),
        (
            {"instancetype": {"name": "medium", "inferFromVolumeFailurePolicy": "Hope"}},
            (
                "FieldValueInvalid",
                "Invalid value 'Hope' for InferFromVolumeFailurePolicy",
                "spec.instancetype.inferFromVolumeFailurePolicy",
            ),
        ),
        (
            {"instancetype": {"name": 1}},
            (
                "FieldValueInvalid",
                "spec.instancetype.name must be of type string, not integer",
                "spec.instancetype.name",
            ),
        ),
    ],
)
def test_matchers_that_say_nothing(names: dict[str, Any], cause: tuple[str, str, str]) -> None:
    assert judged(machine(**names), instancetype(), preference()) == [Cause(*cause)]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            {"instancetype": {"name": "huge"}},
            'Failure to find instancetype: virtualmachineclusterinstancetypes "huge" not found',
        ),
        (
            {"preference": {"name": "bsd", "kind": "VirtualMachinePreference"}},
            'Failure to find preference: virtualmachinepreferences "bsd" not found',
        ),
        (
            {"instancetype": {"name": "medium", "kind": "Flavor"}},
            "Failure to find instancetype: got unexpected kind in InstancetypeMatcher: Flavor",
        ),
        (
            {"instancetype": {"name": "medium", "revisionName": "before"}},
            'Failure to find instancetype: controllerrevisions "before" not found',
        ),
    ],
)
def test_what_a_machine_names_may_come_later(names: dict[str, Any], words: str) -> None:
    vm = machine(**names)
    assert judged(vm, instancetype(), preference()) == []
    (warning,) = missing(vm, world(instancetype(), preference()))
    assert warning.startswith(words)


def test_a_machine_is_judged_by_what_there_is() -> None:
    """A preference's requirements hold for the machine itself as long as its instance type isn't there."""
    demanding = preference(requirements={"memory": {"guest": "1Gi"}})
    vm = machine(instancetype={"name": "huge"}, preference={"name": "linux"})
    message = (
        "failure checking preference requirements: insufficient Memory resources of 0 provided by VirtualMachine, "
        "preference requires 1Gi"
    )
    field = "spec.template.spec.domain.memory"
    assert judged(vm, demanding) == [Cause("FieldValueNotFound", message, field)]


@pytest.mark.parametrize(
    "kind", ["virtualmachineinstancetype", "VirtualMachineInstancetypes", "VIRTUALMACHINEINSTANCETYPE"]
)
def test_a_kind_may_be_written_like_a_resource(kind: str) -> None:
    own = {**instancetype(), "kind": "VirtualMachineInstancetype", "metadata": {"name": "medium", "namespace": "ns"}}
    vm = machine(instancetype={"name": "medium", "kind": kind})
    assert judged(vm, own) == []
    assert expanded(vm, own)["domain"]["memory"]["guest"] == "256Mi"


def test_the_kind_without_a_namespace_is_the_default() -> None:
    vm = vms.default(machine(preference={"name": "linux"}), world(instancetype(), preference()))
    assert vm["spec"]["instancetype"]["kind"] == "virtualmachineclusterinstancetype"
    assert vm["spec"]["preference"]["kind"] == "virtualmachineclusterpreference"


def test_a_preference_chooses_the_machine_type() -> None:
    context = world(instancetype(), preference(machine={"preferredMachineType": "pc-q35-7.2"}))
    vm = vms.default(machine(preference={"name": "linux"}), context)
    assert vm["spec"]["template"]["spec"]["domain"]["machine"] == {"type": "pc-q35-7.2"}
    own = machine({"domain": {"machine": {"type": "q35"}}}, preference={"name": "linux"})
    assert vms.default(own, context)["spec"]["template"]["spec"]["domain"]["machine"] == {"type": "q35"}
    assert vms.default_update(vm, vm, context) == vm


def test_a_preference_chooses_the_architecture() -> None:
    context = world(instancetype(), preference(preferredArchitecture="arm64"))
    vm = vms.default(machine(preference={"name": "linux"}), context)
    assert vm["spec"]["template"]["spec"]["architecture"] == "arm64"
    own = machine({"architecture": "amd64"}, preference={"name": "linux"})
    assert vms.default(own, context)["spec"]["template"]["spec"]["architecture"] == "amd64"


def test_a_machine_keeps_what_it_was_started_with() -> None:
    """Its status names a copy, which counts while the spec names the same object."""
    revision = {
        "kind": "ControllerRevision",
        "metadata": {
            "name": "copy",
            "namespace": "ns",
            "labels": {
                "instancetype.kubevirt.io/object-name": "medium",
                "instancetype.kubevirt.io/object-kind": "VirtualMachineClusterInstancetype",
            },
        },
        "data": {"spec": {"cpu": {"guest": 2}, "memory": {"guest": "128Mi"}}},
    }
    vm = machine()
    vm["status"] = {"instancetypeRef": {"controllerRevisionRef": {"name": "copy"}}}
    assert expanded(vm, revision, instancetype())["domain"]["memory"]["guest"] == "128Mi"
    assert judged(vm, revision) == [], "though the object is gone"
    other = put(copy.deepcopy(vm), "spec.instancetype.name", "large")
    large = put(instancetype(cpu={"guest": 8}), "metadata.name", "large")
    assert expanded(other, revision, large)["domain"]["cpu"]["sockets"] == 8
    named = machine(instancetype={"name": "medium", "revisionName": "copy"})
    assert expanded(named, revision, instancetype())["domain"]["memory"]["guest"] == "128Mi"
    broken = {**revision, "data": {"spec": {"cpu": {}}}}
    assert judged(named, broken) == []
    (warning,) = missing(named, world(broken))
    assert warning.startswith(
        'Failure to find instancetype: ControllerRevision "copy" holds no VirtualMachineInstancetype: '
        "spec.memory is a required field"
    )


def test_a_revision_goes_with_its_object() -> None:
    old = machine(instancetype={"name": "medium", "revisionName": "copy"})
    new = machine(instancetype={"name": "large", "revisionName": "copy"})
    large = put(instancetype(), "metadata.name", "large")
    copied = {"kind": "ControllerRevision", "metadata": {"name": "copy", "namespace": "ns"}, "data": large}
    message = "the Matcher Name has been updated without updating the RevisionName"
    assert vms.validate_update(new, old, world(copied)) == [
        Cause("FieldValueInvalid", message, "spec.instancetype.revisionName")
    ]
    del new["spec"]["instancetype"]["revisionName"]
    assert vms.validate_update(new, old, world(large)) == []
    assert vms.validate_update({**new, "spec": {**new["spec"], "instancetype": None}}, old, world()) == []


# --- inference -------------------------------------------------------------------------------------------------------

LABELS = {
    "instancetype.kubevirt.io/default-instancetype": "medium",
    "instancetype.kubevirt.io/default-instancetype-kind": "VirtualMachineInstancetype",
    "instancetype.kubevirt.io/default-preference": "linux",
}


def claim(**labels: str) -> dict[str, Any]:
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": "disk", "namespace": "ns", "labels": labels}}


def inferring(policy: str | None = None, **more: Any) -> dict[str, Any]:
    how = {"inferFromVolume": "root", **({"inferFromVolumeFailurePolicy": policy} if policy else {})}
    return machine(instancetype=dict(how), preference=dict(how), **more)


def test_a_volume_names_what_suits_it() -> None:
    spec = vms.default(inferring(), world(claim(**LABELS)))["spec"]
    assert spec["instancetype"] == {"name": "medium", "kind": "VirtualMachineInstancetype"}
    assert spec["preference"] == {"name": "linux", "kind": "virtualmachineclusterpreference"}
    old = vms.default(machine(), world(instancetype()))
    assert vms.default_update(inferring(), old, world(claim(**LABELS)))["spec"]["instancetype"]["name"] == "medium"


def test_a_data_volume_is_like_what_it_is_a_copy_of() -> None:
    volumes = [{"name": "root", "dataVolume": {"name": "new"}}]
    reference = {"sourceRef": {"kind": "DataSource", "namespace": "images", "name": "debian"}}
    elsewhere = {"source": {"pvc": {"namespace": "images", "name": "disk"}}}
    image = {"kind": "DataSource", "metadata": {"name": "debian", "namespace": "images"}, "spec": elsewhere}
    disk = {"kind": "PersistentVolumeClaim", "metadata": {"name": "disk", "namespace": "images", "labels": LABELS}}
    stored = {"kind": "DataVolume", "metadata": {"name": "new", "namespace": "ns"}, "spec": reference}
    of_snapshot = {"source": {"snapshot": {"namespace": "images", "name": "disk"}}}
    snapshot = {**disk, "kind": "VolumeSnapshot"}
    labelled = {**image, "metadata": {**image["metadata"], "labels": LABELS}}
    template = {"metadata": {"name": "new"}, "spec": elsewhere}
    for templates, objects in (
        ([{**template, "spec": reference}], (labelled,)),
        ([template], (disk,)),
        ([], (stored, image, disk)),
        ([{**template, "spec": of_snapshot}], (snapshot,)),
        ([], (stored, {**image, "spec": of_snapshot}, snapshot)),
        ([], ({**stored, "metadata": {**stored["metadata"], "labels": LABELS}},)),
    ):
        vm = inferring(spec={"volumes": volumes}, dataVolumeTemplates=templates)
        assert vms.default(vm, world(*objects))["spec"]["preference"]["name"] == "linux"
    with pytest.raises(Refusal, match="datasources"):
        vms.default(inferring(spec={"volumes": volumes}), world(stored))


@pytest.mark.parametrize(
    ("source", "objects", "message"),
    [
        (
            {"source": {"blank": {}}},
            [],
            "unable to infer defaults from DataVolumeSpec as DataVolumeSource is not supported",
        ),
        (
            {"source": {"snapshot": {"namespace": "ns", "name": "disk"}}},
            [{**claim(), "kind": "VolumeSnapshot"}],
            "unable to find required instancetype.kubevirt.io/default-instancetype label on the volume",
        ),
        (
            {"source": {"pvc": {"namespace": "ns", "name": "disk"}}},
            [claim()],
            "unable to find required instancetype.kubevirt.io/default-instancetype label on the volume",
        ),
        (
            {"sourceRef": {"kind": "Image", "name": "debian"}},
            [],
            "unable to infer defaults from DataVolumeSourceRef as Kind Image is not supported",
        ),
        (
            {"sourceRef": {"kind": "DataSource", "name": "debian"}},
            [{"kind": "DataSource", "metadata": {"name": "debian", "namespace": "ns"}, "spec": {"source": {}}}],
            "unable to infer defaults from DataSource that doesn't provide DataVolumeSourcePVC",
        ),
    ],
)
def test_a_data_volume_that_names_nothing(source: dict[str, Any], objects: list[dict[str, Any]], message: str) -> None:
    volumes = [{"name": "root", "dataVolume": {"name": "new"}}]
    templates = [{"metadata": {"name": "new"}, "spec": source}]

    def made(policy: str) -> dict[str, Any]:
        vm = inferring(policy, spec={"volumes": volumes}, dataVolumeTemplates=templates)
        return vms.default(vm, world(*objects))

    with pytest.raises(Refusal) as refused:
        made("Reject")
    assert (str(refused.value), refused.value.code) == (message, 400)
    assert not {"instancetype", "preference"} & made("Ignore")["spec"].keys()


def test_a_data_volume_that_is_not_there() -> None:
    vm = inferring("Ignore", spec={"volumes": [{"name": "root", "dataVolume": {"name": "lost"}}]})
    with pytest.raises(Refusal) as refused:
        vms.default(vm, world())
    assert str(refused.value) == 'persistentvolumeclaims "lost" not found'


def test_a_revision_of_the_first_version() -> None:
    text = base64.b64encode(json.dumps({"cpu": {"guest": 3}, "memory": {"guest": "96Mi"}}).encode()).decode()
    data = {"apiVersion": "instancetype.kubevirt.io/v1alpha1", "spec": text}
    revision = {"kind": "ControllerRevision", "metadata": {"name": "copy", "namespace": "ns"}, "data": data}
    vm = machine(instancetype={"name": "medium", "revisionName": "copy"})
    assert expanded(vm, revision)["domain"]["cpu"]["sockets"] == 3
    broken = {**revision, "data": {**data, "spec": "%"}}
    assert len(missing(vm, world(broken))) == 1


def test_memory_is_for_the_case_that_a_volume_names_nothing() -> None:
    own = {"domain": {"memory": {"guest": "1Gi"}}}
    spec = vms.default(inferring("Ignore", spec=own), world(claim(**LABELS)))["spec"]
    assert "memory" not in spec["template"]["spec"]["domain"]
    spec = vms.default(inferring("Ignore", spec=own), world(claim()))["spec"]
    assert not {"instancetype", "preference"} & spec.keys()
    assert spec["template"]["spec"]["domain"]["memory"] == {"guest": "1Gi"}


@pytest.mark.parametrize(
    ("vm", "message"),
    [
        (
            inferring("Reject"),
            "unable to find required instancetype.kubevirt.io/default-instancetype label on the volume",
        ),
        (machine(instancetype={"inferFromVolume": "data"}), "unable to find volume data to infer defaults"),
        (
            machine(
                {"volumes": [{"name": "root", "emptyDisk": {"capacity": "1Gi"}}]},
                preference={"inferFromVolume": "root"},
            ),
            "unable to infer defaults from volume root as type is not supported",
        ),
        (
            machine(
                {"volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "lost"}}]},
                preference={"inferFromVolume": "root"},
            ),
            'persistentvolumeclaims "lost" not found',
        ),
    ],
)
def test_a_volume_that_names_nothing(vm: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal) as refused:
        vms.default(vm, world(claim()))
    assert (str(refused.value), refused.value.code) == (message, 400)


# --- conflicts -------------------------------------------------------------------------------------------------------

FULL = {
    "cpu": {
        "guest": 4,
        "model": "Nehalem",
        "dedicatedCPUPlacement": True,
        "isolateEmulatorThread": True,
        "numa": {"guestMappingPassthrough": {}},
        "realtime": {},
    },
    "memory": {"guest": "256Mi", "hugepages": {"pageSize": "2Mi"}, "maxGuest": "1Gi"},
    "nodeSelector": {"zone": "a"},
    "schedulerName": "mine",
    "ioThreadsPolicy": "auto",
    "ioThreads": {"supplementalPoolThreadCount": 2},
    "launchSecurity": {"sev": {}},
    "gpus": [{"name": "gpu", "deviceName": "nvidia.com/gpu"}],
    "hostDevices": [{"name": "nic", "deviceName": "intel.com/nic"}],
    "annotations": {"team": "a"},
}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"nodeSelector": {"zone": "b"}}, ["nodeSelector"]),
        ({"schedulerName": "other"}, ["schedulerName"]),
        ({"domain": {"resources": {"requests": {"cpu": "1"}}}}, ["domain.resources.requests.cpu"]),
        ({"domain": {"resources": {"limits": {"cpu": "1"}}}}, ["domain.resources.limits.cpu"]),
        (
            {"domain": {"cpu": {"sockets": 1, "cores": 1, "threads": 1}}},
            ["domain.cpu.sockets", "domain.cpu.cores", "domain.cpu.threads"],
        ),
        ({"domain": {"cpu": {"model": "host-model"}}}, ["domain.cpu.model"]),
        ({"domain": {"cpu": {"dedicatedCpuPlacement": True}}}, ["domain.cpu.dedicatedCPUPlacement"]),
        ({"domain": {"cpu": {"isolateEmulatorThread": True}}}, ["domain.cpu.isolateEmulatorThread"]),
        ({"domain": {"cpu": {"numa": {}}}}, ["domain.cpu.numa"]),
        ({"domain": {"cpu": {"realtime": {}}}}, ["domain.cpu.realtime"]),
        ({"domain": {"memory": {"guest": "1Gi", "hugepages": {}}}}, ["domain.memory.guest"]),
        ({"domain": {"memory": {"hugepages": {"pageSize": "1Gi"}}}}, ["domain.memory.hugepages"]),
        ({"domain": {"memory": {"maxGuest": "2Gi"}}}, ["domain.memory.maxGuest"]),
        ({"domain": {"resources": {"requests": {"memory": "1Gi"}}}}, ["domain.resources.requests.memory"]),
        ({"domain": {"resources": {"limits": {"memory": "1Gi"}}}}, ["domain.resources.limits.memory"]),
        ({"domain": {"ioThreadsPolicy": "shared"}}, ["domain.ioThreadsPolicy"]),
        (
            {"domain": {"ioThreads": {"supplementalPoolThreadCount": 1}}},
            ["domain.ioThreads.supplementalPoolThreadCount"],
        ),
        ({"domain": {"launchSecurity": {"sev": {}}}}, ["domain.launchSecurity"]),
        ({"domain": {"devices": {"gpus": [{"name": "x"}]}}}, ["domain.devices.gpus"]),
        ({"domain": {"devices": {"hostDevices": [{"name": "x"}]}}}, ["domain.devices.hostDevices"]),
        (
            {"nodeSelector": {"zone": "b"}, "domain": {"cpu": {"cores": 2}, "memory": {"guest": "1Gi"}}},
            ["nodeSelector", "domain.cpu.cores", "domain.memory.guest"],
        ),
    ],
)
def test_each_conflict_is_named(spec: dict[str, Any], fields: list[str]) -> None:
    """Machines are judged after their schema: what this engine doesn't support at all is refused as that."""
    _, causes = expanded_template(machine(spec), world(instancetype(**FULL)))
    assert causes == [
        Cause("FieldValueInvalid", f"VM field(s) {path} conflicts with selected instance type", path)
        for path in (f"spec.template.spec.{field}" for field in fields)
    ]


def test_conflicts_are_refused_at_admission() -> None:
    causes = judged(machine({"domain": {"cpu": {"cores": 2}}}), instancetype())
    path = "spec.template.spec.domain.cpu.cores"
    assert causes == [Cause("FieldValueInvalid", f"VM field(s) {path} conflicts with selected instance type", path)]


def test_annotations_conflict_if_they_differ() -> None:
    vm = put(machine(), "spec.template.metadata.annotations", {"team": "b"})
    wanted = instancetype(annotations={"team": "a", "cost": "low"})
    message = "VM field(s) annotations.team conflicts with selected instance type"
    assert judged(vm, wanted) == [Cause("FieldValueInvalid", message, "annotations.team")]
    vm = put(machine(), "spec.template.metadata.annotations", {"team": "a"})
    assert judged(vm, wanted) == []
    context = world(wanted)
    template = expand(vm, context.find, context.config)["spec"]["template"]
    assert template["metadata"]["annotations"] == {"team": "a", "cost": "low"}


def test_what_the_instance_type_gives_is_judged_like_the_machines_own() -> None:
    causes = judged(machine(), instancetype(cpu={"guest": 1, "model": ""}, memory={"guest": "-64k"}))
    assert [cause.field for cause in causes] == ["spec.template.spec.domain.memory.guest"]


def test_everything_that_an_instance_type_has_arrives() -> None:
    spec = expanded(machine(), instancetype(**FULL))
    domain = spec["domain"]
    assert domain["cpu"] == {
        "sockets": 4,
        "cores": 1,
        "threads": 1,
        "model": "Nehalem",
        "dedicatedCpuPlacement": True,
        "isolateEmulatorThread": True,
        "numa": {"guestMappingPassthrough": {}},
        "realtime": {},
    }
    assert domain["memory"] == FULL["memory"]
    assert (spec["nodeSelector"], spec["schedulerName"]) == ({"zone": "a"}, "mine")
    for key in ("ioThreadsPolicy", "ioThreads", "launchSecurity"):
        assert domain[key] == FULL[key]
    for key in ("gpus", "hostDevices"):
        assert domain["devices"][key] == FULL[key]


@pytest.mark.parametrize(
    ("guest", "percent", "requested"),
    [("4Gi", 50, "2Gi"), ("512Mi", 25, "384Mi"), ("1G", 10, "900M"), ("4Gi", 15, "3650722304")],
)
def test_overcommit(guest: str, percent: int, requested: str) -> None:
    domain = expanded(machine(), instancetype(memory={"guest": guest, "overcommitPercent": percent}))["domain"]
    assert domain["memory"] == {"guest": guest}
    assert domain["resources"]["requests"]["memory"] == requested


# --- topology and requirements ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "more", "found"),
    [
        (None, {}, (1, 8, 1)),
        ({"preferredCPUTopology": "sockets"}, {}, (1, 8, 1)),
        ({"preferredCPUTopology": "any"}, {}, (1, 8, 1)),
        ({"preferredCPUTopology": "preferCores"}, {}, (8, 1, 1)),
        ({"preferredCPUTopology": "threads"}, {}, (1, 1, 8)),
        ({"preferredCPUTopology": "spread"}, {}, (2, 4, 1)),
        ({"preferredCPUTopology": "preferSpread"}, {"preferSpreadSocketToCoreRatio": 4}, (4, 2, 1)),
        ({"preferredCPUTopology": "spread", "spreadOptions": {"across": "CoresThreads"}}, {}, (4, 1, 2)),
        ({"preferredCPUTopology": "spread", "spreadOptions": {"across": "SocketsCoresThreads"}}, {}, (2, 2, 2)),
        (
            {"preferredCPUTopology": "spread", "spreadOptions": {"ratio": 8}},
            {"preferSpreadSocketToCoreRatio": 4},
            (8, 1, 1),
        ),
    ],
)
def test_topology(cpu: dict[str, Any] | None, more: dict[str, Any], found: tuple[int, int, int]) -> None:
    wanted = preference(**({"cpu": cpu} if cpu else {}), **more)
    domain = expanded(machine(preference={"name": "linux"}), instancetype(cpu={"guest": 8}), wanted)["domain"]
    assert (domain["cpu"]["cores"], domain["cpu"]["sockets"], domain["cpu"]["threads"]) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ratio": 4},
            "6 vCPUs provided by the instance type are not divisible by the Spec.PreferSpreadSocketToCoreRatio or "
            "Spec.CPU.PreferSpreadOptions.Ratio of 4 provided by the preference",
        ),
        (
            {"across": "SocketsCoresThreads"},
            "6 vCPUs provided by the instance type are not divisible by the number of threads per core 2 and "
            "Spec.PreferSpreadSocketToCoreRatio or Spec.CPU.PreferSpreadOptions.Ratio of 2",
        ),
    ],
)
def test_vcpus_that_cannot_be_spread(options: dict[str, Any], message: str) -> None:
    wanted = preference(cpu={"preferredCPUTopology": "spread", "spreadOptions": options})
    causes = judged(machine(preference={"name": "linux"}), instancetype(cpu={"guest": 6}), wanted)
    assert causes == [Cause("FieldValueInvalid", message, "instancetype.spec.cpu.guest")]


CPU = "spec.template.spec.domain.cpu"


@pytest.mark.parametrize(
    ("requirements", "cpu", "own", "message", "field"),
    [
        (
            {"cpu": {"guest": 8}},
            None,
            None,
            "insufficient CPU resources of 4 vCPU provided by instance type, preference requires 8 vCPU",
            "spec.instancetype",
        ),
        (
            {"memory": {"guest": "1024Mi"}},
            None,
            None,
            "insufficient Memory resources of 256Mi provided by instance type, preference requires 1Gi",
            "spec.instancetype",
        ),
        (
            {"cpu": {"guest": 4}},
            None,
            {"cpu": {"cores": 4, "sockets": 1, "threads": 1}, "memory": {"guest": "1Gi"}},
            "insufficient CPU resources of 1 vCPU provided by VirtualMachine, preference requires 4 vCPU provided as "
            "sockets",
            f"{CPU}.sockets",
        ),
        (
            {"cpu": {"guest": 4}},
            {"preferredCPUTopology": "any"},
            {"cpu": {"cores": 3, "sockets": 1, "threads": 1}, "memory": {"guest": "1Gi"}},
            "insufficient CPU resources of 3 vCPU provided by VirtualMachine, preference requires 4 vCPU provided as "
            "cores, sockets and threads",
            f"{CPU}.cores, {CPU}.sockets, {CPU}.threads",
        ),
        (
            {"cpu": {"guest": 4}},
            {"preferredCPUTopology": "spread", "spreadOptions": {"across": "CoresThreads"}},
            {"cpu": {"sockets": 4}, "memory": {"guest": "1Gi"}},
            "insufficient CPU resources of 0 vCPU provided by VirtualMachine, preference requires 4 vCPU provided as "
            "CoresThreads",
            f"{CPU}.cores, {CPU}.threads",
        ),
        (
            {"memory": {"guest": "1Gi"}},
            None,
            {"resources": {"requests": {"memory": "512M"}}},
            "insufficient Memory resources of 512M provided by VirtualMachine, preference requires 1Gi",
            "spec.template.spec.domain.memory",
        ),
        (
            {"architecture": "arm64"},
            None,
            {"memory": {"guest": "1Gi"}},
            "preference requires architecture arm64 but amd64 is being requested",
            "spec.template.spec.architecture",
        ),
    ],
)
def test_requirements(
    requirements: dict[str, Any],
    cpu: dict[str, Any] | None,
    own: dict[str, Any] | None,
    message: str,
    field: str,
) -> None:
    vm = machine({"domain": own} if own else None, preference={"name": "linux"})
    if own:
        del vm["spec"]["instancetype"]
    wanted = preference(requirements=requirements, **({"cpu": cpu} if cpu else {}))
    message = f"failure checking preference requirements: {message}"
    assert judged(vm, instancetype(), wanted) == [Cause("FieldValueNotFound", message, field)]
    met = preference(requirements={"cpu": {"guest": 1}, "memory": {"guest": "64Mi"}, "architecture": "amd64"})
    assert judged(vm, instancetype(), met) == []


# --- preferences -----------------------------------------------------------------------------------------------------


def preferred(spec: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    return expanded(machine(spec, preference={"name": "linux"}), instancetype(), preference(**wanted))


@pytest.mark.parametrize(
    ("wanted", "path", "value", "own"),
    [
        ({"devices": {"preferredDiskBus": "virtio"}}, "domain.devices.disks.0.disk.bus", "virtio", "scsi"),
        ({"devices": {"preferredDiskCache": "none"}}, "domain.devices.disks.0.cache", "none", "writeback"),
        ({"devices": {"preferredDiskIO": "threads"}}, "domain.devices.disks.0.io", "threads", "native"),
        (
            {"devices": {"preferredDiskBlockSize": {"matchVolume": {}}}},
            "domain.devices.disks.0.blockSize",
            {"matchVolume": {}},
            {"custom": {"logical": 512, "physical": 512}},
        ),
        (
            {"devices": {"preferredDiskBus": "virtio", "preferredDiskDedicatedIoThread": True}},
            "domain.devices.disks.0.dedicatedIOThread",
            True,
            False,
        ),
        ({"devices": {"preferredInterfaceModel": "e1000e"}}, "domain.devices.interfaces.0.model", "e1000e", "virtio"),
        ({"devices": {"preferredRng": {}}}, "domain.devices.rng", {}, {"x": 1}),
        ({"devices": {"preferredTPM": {"persistent": True}}}, "domain.devices.tpm", {"persistent": True}, {}),
        ({"devices": {"preferredVideoType": "virtio"}}, "domain.devices.video.type", "virtio", "vga"),
        ({"devices": {"preferredSoundModel": "ich9"}}, "domain.devices.sound.model", "ich9", "ac97"),
        ({"devices": {"preferredBlockMultiQueue": True}}, "domain.devices.blockMultiQueue", True, False),
        (
            {"devices": {"preferredNetworkInterfaceMultiQueue": True}},
            "domain.devices.networkInterfaceMultiqueue",
            True,
            False,
        ),
        ({"devices": {"preferredUseVirtioTransitional": True}}, "domain.devices.useVirtioTransitional", True, False),
        *(
            ({"devices": {f"preferred{name}": False}}, f"domain.devices.{name[0].lower()}{name[1:]}", False, True)
            for name in (
                "AutoattachGraphicsDevice",
                "AutoattachMemBalloon",
                "AutoattachPodInterface",
                "AutoattachSerialConsole",
                "AutoattachInputDevice",
            )
        ),
        ({"features": {"preferredApic": {}}}, "domain.features.apic", {}, {"enabled": False}),
        ({"features": {"preferredKvm": {"hidden": True}}}, "domain.features.kvm.hidden", True, False),
        ({"features": {"preferredSmm": {}}}, "domain.features.smm", {}, {"enabled": False}),
        ({"features": {"preferredPvspinlock": {}}}, "domain.features.pvspinlock", {}, {"enabled": False}),
        (
            {"features": {"preferredHyperv": {"relaxed": {}}}},
            "domain.features.hyperv.relaxed",
            {},
            {"enabled": False},
        ),
        ({"firmware": {"preferredUseBios": True}}, "domain.firmware.bootloader.bios", {}, {"useSerial": True}),
        (
            {"firmware": {"preferredEfi": {"secureBoot": False}}},
            "domain.firmware.bootloader.efi",
            {"secureBoot": False},
            {"secureBoot": True},
        ),
        (
            {"firmware": {"preferredUseEfi": True, "preferredUseSecureBoot": False}},
            "domain.firmware.bootloader.efi.secureBoot",
            False,
            True,
        ),
        ({"machine": {"preferredMachineType": "pc-q35-7.2"}}, "domain.machine.type", "pc-q35-7.2", "q35"),
        ({"clock": {"preferredClockOffset": {"timezone": "UTC"}}}, "domain.clock.timezone", "UTC", "Asia/Tokyo"),
        (
            {"clock": {"preferredTimer": {"hpet": {"present": False}}}},
            "domain.clock.timer",
            {"hpet": {"present": False}},
            {"kvm": {}},
        ),
        ({"preferredSubdomain": "lab"}, "subdomain", "lab", "own"),
        ({"preferredTerminationGracePeriodSeconds": 180}, "terminationGracePeriodSeconds", 180, 0),
        ({"preferredArchitecture": "arm64"}, "architecture", "arm64", "amd64"),
        ({"preferredLaunchSecurity": {"tdx": {}}}, "domain.launchSecurity", {"tdx": {}}, {"sev": {}}),
    ],
)
def test_a_preference_fills_in_what_is_left_open(wanted: dict[str, Any], path: str, value: Any, own: Any) -> None:
    base: dict[str, Any] = {"domain": {"devices": {"sound": {"name": "s"}}}} if "sound" in path else {}
    assert at(preferred(base, **wanted), path) == value
    vm = machine(base, preference={"name": "linux"})
    put(vm["spec"]["template"]["spec"], path, own)
    assert at(expanded(vm, instancetype(), preference(**wanted)), path) == own, "what the machine says itself stays"


def at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def test_preferences_for_particular_devices() -> None:
    devices = {
        "preferredCdromBus": "scsi",
        "preferredLunBus": "scsi",
        "preferredDiskBus": "virtio",
        "preferredInputBus": "virtio",
        "preferredInputType": "tablet",
        "preferredPanicDeviceModel": "hyperv",
        "preferredDisableHotplug": True,
        "preferredInterfaceMasquerade": {},
        "preferredVirtualGPUOptions": {"display": {"enabled": False}},
    }
    own = {
        "disks": [{"name": "cd", "cdrom": {}}, {"name": "root"}],
        "inputs": [{"name": "i"}],
        "panicDevices": [{}],
        "gpus": [{"name": "g"}],
        "interfaces": [{"name": "net"}, {"name": "other"}],
    }
    vm = machine(preference={"name": "linux"})
    vm["spec"]["template"]["spec"]["domain"]["devices"] = own
    found = expanded(vm, instancetype(), preference(devices=devices))["domain"]["devices"]
    assert [disk.get("cdrom") or disk.get("disk") for disk in found["disks"]] == [{"bus": "scsi"}, {"bus": "virtio"}]
    assert found["inputs"] == [{"name": "i", "bus": "virtio", "type": "tablet"}]
    assert found["panicDevices"] == [{"model": "hyperv"}]
    assert found["disableHotplug"] is True
    assert found["gpus"] == [{"name": "g", "virtualGPUOptions": {"display": {"enabled": False}}}]
    assert found["interfaces"] == [{"name": "net", "masquerade": {}}, {"name": "other"}]


def test_luns_have_a_preference_of_their_own() -> None:
    spec: dict[str, Any] = {"domain": {"devices": {"disks": [{"name": "lun", "lun": {}}]}}}
    apply_preference({"devices": {"preferredLunBus": "scsi", "preferredDiskBus": "virtio"}}, spec, {})
    assert spec["domain"]["devices"]["disks"] == [{"name": "lun", "lun": {"bus": "scsi"}}]


def test_data_volumes_get_the_preferred_storage_class() -> None:
    templates: list[dict[str, Any]] = [{"spec": {"pvc": {}}}, {"spec": {"storage": {"storageClassName": "own"}}}, {}]
    apply_storage_class({"volumes": {"preferredStorageClassName": "fast"}}, templates)
    assert templates == [
        {"spec": {"pvc": {"storageClassName": "fast"}}},
        {"spec": {"storage": {"storageClassName": "own"}}},
        {},
    ]


def test_volumes_without_disks_get_the_preferred_bus() -> None:
    vm = machine(preference={"name": "linux"})
    vm["spec"]["template"]["spec"]["domain"]["devices"] = {}
    wanted = preference(devices={"preferredDiskBus": "virtio", "preferredInterfaceModel": "e1000"})
    vm["spec"]["template"]["spec"]["networks"] = []
    devices = expanded(vm, instancetype(), wanted)["domain"]["devices"]
    assert devices["disks"] == [{"name": "root", "disk": {"bus": "virtio"}}]
    assert devices["interfaces"] == [{"name": "default", "bridge": {}, "model": "e1000"}]


def test_cpu_features_and_annotations_are_added() -> None:
    spec = {"domain": {"cpu": {"features": [{"name": "vmx", "policy": "disable"}]}}}
    wanted = preference(cpu={"preferredCPUFeatures": [{"name": "vmx"}, {"name": "aes"}]}, annotations={"os": "linux"})
    vm = machine(spec, preference={"name": "linux"})
    context = world(instancetype(), wanted)
    template = expand(vm, context.find, context.config)["spec"]["template"]
    assert template["spec"]["domain"]["cpu"]["features"] == [{"name": "vmx", "policy": "disable"}, {"name": "aes"}]
    assert template["metadata"]["annotations"] == {"os": "linux"}


def test_a_machine_without_either_is_expanded_to_itself() -> None:
    vm = machine()
    del vm["spec"]["instancetype"]
    assert expand(vm, world().find, world().config) == vm


def test_no_warning_about_memory_that_an_instance_type_has() -> None:
    vm = machine()
    assert vms.warn(vm) == []
    del vm["spec"]["instancetype"]
    assert len(vms.warn(vm)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON)
def test_any_json_is_answered(named: Any, also: Any, spec: Any) -> None:
    vm = machine(instancetype=named, preference=also)
    vm["spec"]["template"] = spec
    context = world(instancetype(), preference())
    with contextlib.suppress(Refusal):
        vms.validate(vms.default(vm, context), context)
    for kind in KINDS:
        if kind.validate and kind.group == "instancetype.kubevirt.io":
            kind.validate({"spec": named}, context)
