# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kind import Context
from turtles.api.kinds import pool as pools
from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.former import of_template
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.kinds.vmi.validation import validate, validate_update
from turtles.api.language import Cause, ListOf, MapOf, Struct, Type

from .objects import put, talk_vm, talk_vmi

DISKS = "spec.domain.devices.disks"
NIC = "spec.domain.devices.interfaces"


def check(path: str, value: Any) -> list[Cause]:
    vmi = put(default(talk_vmi()), path, value)
    return validate(vmi)


def test_talk_vm_is_accepted():
    assert vms.validate(talk_vm()) == []
    assert vms.validate(vms.default(talk_vm())) == []
    assert vms.warn(talk_vm()) == ["spec.running is deprecated, please use spec.runStrategy instead."]
    assert vms.warn({"spec": {"runStrategy": "Always"}}) == []


@pytest.mark.parametrize(
    ("path", "value", "message", "field"),
    [
        ("spec.domain.resources.requests.memory", "500k", "'500k': must be greater than or equal to 1M.", ""),
        ("spec.domain.resources.requests.memory", "-1", "must be greater than or equal to 0.", ""),
        ("spec.domain.resources.requests.memory", "much", "'much' is not a quantity", ""),
        ("spec.domain.resources.limits", {"memory": "1M"}, "is greater than spec.domain.resources.limits.memory", None),
        (
            "spec.domain.machine.type",
            "pc",
            "spec.domain.machine.type is not supported: pc (allowed values: [q35* pc-q35*])",
            "",
        ),
        ("spec.architecture", "vax", "unsupported architecture: vax", ""),
        ("spec.domain.firmware.serial", "a b", "must be made up of the following characters [A-Za-z0-9_.+-]", ""),
        ("spec.domain.firmware.serial", "a" * 257, "must be less than or equal to 256 in length", ""),
        ("spec.domain.cpu.features", [{"name": "x", "policy": "y"}], "CPU feature x uses policy y", None),
        ("spec.domain.cpu.cores", "2", "spec.domain.cpu.cores must be of type integer, not string", ""),
        ("spec.hostname", "a.b", "does not conform to the kubernetes DNS_LABEL rules : must not contain dots", ""),
        ("spec.subdomain", "A", "does not conform to the kubernetes DNS_SUBDOMAIN rules : a lowercase RFC 1123", ""),
        ("spec.evictionStrategy", "Flee", "spec.evictionStrategy is set with an unrecognized option: Flee", ""),
        ("spec.startStrategy", "Now", "spec.startStrategy is set with an unrecognized option: Now", ""),
        (f"{DISKS}.0.name", "x", f"{DISKS}[0].Name 'x' not found.", f"{DISKS}[0].name"),
        (f"{DISKS}.1.name", "containerdisk", f"{DISKS}[1] and {DISKS}[0] must not have the same Name.", None),
        (f"{DISKS}.0.cdrom", {}, f"{DISKS}[0] can only have a single target type defined", f"{DISKS}[0]"),
        (f"{DISKS}.0.disk.bus", "ide", "IDE bus is not supported", f"{DISKS}[0].disk.bus"),
        (f"{DISKS}.0.disk.bus", "x", "unrecognized bus x, must be one of: [virtio scsi sata usb]", None),
        (f"{DISKS}.0.disk", {"bus": "sata", "readonly": True}, "sata hard-disks do not support read-only.", None),
        (
            f"{DISKS}.0",
            {"name": "containerdisk", "cdrom": {"bus": "virtio"}},
            "Bus type virtio is invalid for CD-ROM device",
            f"{DISKS}[0].cdrom.bus",
        ),
        (f"{DISKS}.0.bootOrder", 0, f"{DISKS}[0] must have a boot order > 0, if supplied", None),
        (f"{DISKS}.0.serial", "a b", "must be made up of the following characters", f"{DISKS}[0].serial"),
        (f"{DISKS}.0.cache", "unsafe", f"{DISKS}[0].cache has invalid value unsafe", None),
        (f"{DISKS}.0.errorPolicy", "cry", "has invalid value", None),
        ("spec.volumes.0.containerDisk", None, "spec.volumes[0] must have exactly one source type set", None),
        ("spec.volumes.0.emptyDisk", {"capacity": "1Gi"}, "must have exactly one source type set", None),
        ("spec.volumes.1.name", "containerdisk", "must not have the same Name.", None),
        ("spec.volumes.0.containerDisk.path", "/", "must not point to root", None),
        ("spec.volumes.0.containerDisk.path", "/disk/../etc", "without relative components", None),
        (
            "spec.volumes.1.cloudInitNoCloud",
            {"userDataBase64": "SGk"},
            "cloudInitNoCloud.userDataBase64.cloudInitNoCloud.userDataBase64 is not a valid base64 value.",
            "spec.volumes[1].cloudInitNoCloud.userDataBase64",
        ),
        (
            "spec.volumes.1.cloudInitNoCloud",
            {"networkDataBase64": "é"},
            "networkDataBase64 is not a valid base64 value.",
            None,
        ),
        ("spec.volumes.1.cloudInitNoCloud", {}, "at least one userdatasource or one networkdatasource set.", None),
        (
            "spec.volumes.1.cloudInitNoCloud",
            {"userData": "x", "userDataBase64": "SGk="},
            "must have only one userdatasource set.",
            None,
        ),
        (
            "spec.volumes.1.cloudInitNoCloud",
            {"networkData": "x", "networkDataSecretRef": {"name": "s"}},
            "must have only one networkdata source set.",
            None,
        ),
        (
            "spec.volumes.1.cloudInitNoCloud",
            {"userData": "x" * 2049},
            "userdata exceeds 2048 byte limit. Should use UserDataSecretRef for larger data.",
            None,
        ),
        (f"{NIC}.0.name", "x", f"{NIC}[0].name 'x' not found.", None),
        (f"{NIC}.0.masquerade", {}, "must have exactly one binding method or binding plugin", f"{NIC}[0]"),
        (f"{NIC}.0.slirp", {}, "Slirp interface support has been discontinued since v1.3", f"{NIC}[0].slirp"),
        (f"{NIC}.0.model", "ne2000", "uses model ne2000 that is not supported.", f"{NIC}[0].model"),
        (f"{NIC}.0.macAddress", "02:00", "has malformed MAC address (02:00).", f"{NIC}[0].macAddress"),
        (f"{NIC}.0.macAddress", "02:00:00:00:00:00:00:01", "has too long MAC address (02:", None),
        (f"{NIC}.0.macAddress", "01:00:00:00:00:01", "that is a multicast address.", f"{NIC}[0].macAddress"),
        (f"{NIC}.0.macAddress", "FF:FF:FF:FF:FF:FF", "that is a multicast address.", f"{NIC}[0].macAddress"),
        (f"{NIC}.0.macAddress", "00-00-00-00-00-00", "that no interface can have.", f"{NIC}[0].macAddress"),
        (
            f"{NIC}.0",
            {"name": "default", "masquerade": {}, "macAddress": "02-00-00-00-00-00"},
            "The requested MAC address is reserved for the in-pod bridge.",
            None,
        ),
        (f"{NIC}.0.ports", [{"port": 0}], "Port field is mandatory.", f"{NIC}[0].ports[0].port"),
        (f"{NIC}.0.ports", [{"port": 65536}], "Port field must be in range 0 < x < 65536.", None),
        (f"{NIC}.0.ports", [{"port": 1, "protocol": "SCTP"}], "Unknown protocol, only TCP or UDP allowed", None),
        (f"{NIC}.0.ports", [{"port": 1, "name": "A"}], "Invalid name of the port: A", None),
        (f"{NIC}.0.ports", [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}], "Duplicate name of the port: a", None),
        ("spec.networks.0", {"name": "default"}, "should have a network type", "spec.networks[0]"),
        ("spec.dnsPolicy", "Guess", "DNSPolicy: Guess is not supported, valid values: [ClusterFirstWithHostNet", None),
        ("spec.dnsPolicy", "None", "must provide `dnsConfig` when `dnsPolicy` is None", "spec.dnsConfig"),
        ("spec.dnsConfig", {"nameservers": ["x"]}, "must be valid IP address: x", "nameservers"),
        ("spec.dnsConfig", {"searches": ["a"] * 7}, "must not have more than 6 search paths", "searchDomains"),
        ("spec.domain.devices.inputs", [{"name": "a", "type": "mouse"}], "can have only tablet type.", None),
        ("metadata.labels", {"kubevirt.io/nodeName": "n"}, "creation of the following reserved kubevirt.io/", None),
        ("metadata.labels", {"a": 1}, "metadata.labels must be an object whose values are strings", None),
        ("metadata.annotations", {"hooks.kubevirt.io/hookSidecars": "[]"}, "sidecar feature gate is not enabled", None),
    ],
)
def test_refused(path, value, message, field):
    causes = check(path, value)
    assert any(message in cause.message for cause in causes), causes
    if field is not None:
        wanted = field or path
        assert any(cause.field == wanted for cause in causes), causes


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.domain.devices.networkInterfaceMultiqueue", False),
        ("spec.domain.devices.gpus", []),
        ("spec.livenessProbe", None),
        ("spec.domain.memory.guest", "128Mi"),
        ("spec.domain.machine.type", "pc-q35-7.2"),
        ("spec.somethingNew", {"a": 1}),
        (f"{NIC}.0.macAddress", "02-00-00-AA-bb-CC"),
        ("spec.volumes.1.cloudInitNoCloud", {"userDataBase64": "SGku\nXG4="}),
        ("spec.volumes.1.cloudInitNoCloud", {"secretRef": {"name": "s"}, "networkData": "x"}),
        ("spec.dnsConfig", {"nameservers": ["192.0.2.1", "2001:db8::1"], "searches": ["example.org"]}),
    ],
)
def test_accepted(path, value):
    assert check(path, value) == []


def test_no_memory():
    vmi = talk_vmi()
    vmi["spec"]["domain"]["resources"] = {}
    message = (
        "no memory requested, at least one of 'spec.domain.memory.guest', 'spec.domain.memory.hugepages.pageSize' "
        "or 'spec.domain.resources.requests.memory' must be set"
    )
    assert [cause.message for cause in validate(default(vmi))] == [message]
    vm = put(talk_vm(), "spec.template.spec.domain.resources", {})
    assert vms.validate(vm) == [], "something else may say how much when an instance is made"
    *others, warning = vms.warn(vm)
    assert warning.startswith(message.replace("spec.domain", "spec.template.spec.domain"))
    assert vms.warn(talk_vm()) == others


def test_privileged_may_set_reserved_labels():
    vmi = put(default(talk_vmi()), "metadata.labels", {"kubevirt.io/nodeName": "n"})
    assert validate(vmi, Context(privileged=True)) == []


def test_duplicate_boot_order():
    vmi = put(default(talk_vmi()), f"{DISKS}.0.bootOrder", 1)
    (cause,) = validate(put(vmi, f"{NIC}.0.bootOrder", 1))
    assert cause.message == f"Boot order for {NIC}[0].bootOrder already set for a different device."


def test_volume_without_disk():
    vmi = default(talk_vmi())
    del vmi["spec"]["domain"]["devices"]["disks"][1]
    (cause,) = validate(vmi)
    assert cause.message == "spec.domain.volumes[1].name 'cloudinitdisk' not found."
    # A VirtualMachine may leave disks out: its instance gets them
    vm = talk_vm()
    del vm["spec"]["template"]["spec"]["domain"]["devices"]["disks"]
    assert vms.validate(vm) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"template": None}, "missing virtual machine template."),
        (
            {"running": True, "runStrategy": "Always"},
            "Running and RunStrategy are mutually exclusive. "
            "Note that Running is deprecated, please use RunStrategy instead",
        ),
        ({"running": None}, "RunStrategy must be specified"),
        ({"running": None, "runStrategy": "Sometimes"}, "Invalid RunStrategy (Sometimes)"),
        ({"template": {}}, "spec.template.spec is a required field"),
    ],
)
def test_vm_refused(spec, message):
    vm = talk_vm()
    vm["spec"].update(spec)
    (cause,) = vms.validate(vm)
    assert cause.message.startswith(message)


def test_a_receiver_waits_behind_its_gate():
    vm = talk_vm()
    vm["spec"] |= {"running": None, "runStrategy": "WaitAsReceiver"}
    assert vms.validate(vm) == []
    (cause,) = vms.validate(vm, Context(ClusterConfiguration(feature_gates=frozenset())))
    assert (cause.field, cause.message) == (
        "spec.runStrategy",
        "Invalid RunStrategy (WaitAsReceiver), DecentralizedLiveMigration feature gate is not enabled in kubevirt "
        "resource",
    )


@pytest.mark.parametrize(
    ("status", "path", "value", "message"),
    [
        ({}, "spec.running", True, None),
        ({"snapshotInProgress": "s"}, "metadata.labels", {"a": "b"}, None),
        ({"snapshotInProgress": "s"}, "spec.template.spec.hostname", "web", None),
        (
            {"snapshotInProgress": "s"},
            "spec.template.spec.volumes.0.containerDisk.image",
            "x:1",
            'Cannot update vm disks or volumes until snapshot "s" completes',
        ),
        (
            {"snapshotInProgress": "s"},
            "spec.running",
            True,
            'Cannot update vm running state until snapshot "s" completes',
        ),
        ({"restoreInProgress": "r"}, "spec.template.spec.hostname", "web", None),
        (
            {"restoreInProgress": "r"},
            "spec.running",
            True,
            'Cannot update VM runStrategy until restore "r" completes',
        ),
    ],
)
def test_what_has_to_wait(status, path, value, message):
    old = {**talk_vm(), "status": status}
    causes = vms.validate_update(put({**talk_vm(), "status": status}, path, value), old)
    assert [(cause.field, cause.message) for cause in causes] == ([("spec", message)] if message else [])


def test_a_machine_that_is_restored_may_be_stopped_and_changed():
    runs = {**put(talk_vm(), "spec.running", True), "status": {"restoreInProgress": "r", "created": True}}
    halted = put(copy.deepcopy(runs), "spec.running", False)
    assert vms.validate_update(halted, runs) == []
    assert vms.validate_update(put(copy.deepcopy(runs), "spec.template.spec.hostname", "web"), runs) == []
    halted["status"] = {"restoreInProgress": "r"}
    (cause,) = vms.validate_update(halted, runs)
    assert cause.message == 'Cannot update VM runStrategy until restore "r" completes'


def test_volumes_are_not_copied_while_the_guest_runs():
    def vm(claim, **spec):
        found = put(talk_vm(), "spec.template.spec.volumes.0", {"persistentVolumeClaim": {"claimName": claim}})
        found["spec"]["template"]["spec"]["volumes"][0]["name"] = "containerdisk"
        found["spec"] |= {"running": True, "updateVolumesStrategy": "Migration", **spec}
        return found

    assert vms.validate(vm("old")) == []
    assert vms.validate_update(vm("old"), vm("old", updateVolumesStrategy="Replacement")) == []
    assert vms.validate_update(vm("new", running=False), vm("old")) == []
    assert vms.validate_update(vm("new", updateVolumesStrategy="Replacement"), vm("old")) == []
    (cause,) = vms.validate_update(vm("new"), vm("old"))
    assert cause.field == "spec.template.spec.volumes[0]"
    (cause,) = vms.validate(vm("old", updateVolumesStrategy="Copy"))
    assert cause.field == "spec.updateVolumesStrategy"


def test_vm_paths_start_at_the_template():
    vm = put(talk_vm(), "spec.template.spec.domain.devices.disks.0.name", "other")
    (cause,) = vms.validate(vm)
    assert cause.message == "spec.template.spec.domain.devices.disks[0].Name 'other' not found."
    vm = put(talk_vm(), "spec.template.metadata.labels", {"kubevirt.io/schedulable": "true"})
    (cause,) = vms.validate(vm)
    assert cause.field == "spec.template.metadata.labels"


def test_vmi_update():
    old = default(talk_vmi())
    new = put(default(talk_vmi()), "metadata.labels.new", "label")
    assert validate_update(new, old) == []
    changed = put(default(talk_vmi()), "spec.hostname", "other")
    (cause,) = validate_update(changed, old)
    assert cause.message == "update of VMI object is restricted"
    assert validate_update(changed, old, Context(privileged=True)) == []
    moved = put(default(talk_vmi()), "metadata.labels.kubevirt.io/nodeName", "other")
    moved["metadata"]["labels"] = {**old["metadata"]["labels"], "kubevirt.io/nodeName": "n"}
    (cause,) = validate_update(moved, old)
    assert cause.message.startswith("modification of the following reserved kubevirt.io/ labels")


# --- any JSON -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(
    [
        "",
        "default",
        "a",
        "virtio",
        "sata",
        "disk",
        "1Gi",
        "64M",
        "-1",
        "SGk=",
        "Always",
        "None",
        "/",
        "02:00:00:00:00:01",
    ]
)


def like(kind: Type) -> st.SearchStrategy[Any]:
    """Give values that look much like a type, so that rules behind the check of shapes are reached."""
    if isinstance(kind, Struct):
        fields = {name: like(found.type) for name, found in kind.fields.items() if found.refusal is None}
        required = {name: value for name, value in fields.items() if kind.fields[name].required}
        optional = {name: value for name, value in fields.items() if name not in required}
        return st.fixed_dictionaries(required, optional=optional)
    if isinstance(kind, ListOf):
        return st.lists(like(kind.item), max_size=2)
    if isinstance(kind, MapOf):
        return st.dictionaries(st.sampled_from(["cpu", "memory", "a"]), like(kind.value), max_size=2)
    shape = kind.openapi()
    return {
        "boolean": st.booleans(),
        "integer": st.integers(-1, 70000),
    }.get(shape.get("type", ""), WORDS | st.text(max_size=5) | JSON)


SPECS = st.deferred(lambda: like(VMI_SPEC))


@given(JSON)
def test_any_json_is_judged(value):
    for obj in (value, {"spec": value}, {"spec": {"template": value}}, {"metadata": value, "spec": value}):
        validate(obj)
        vms.validate(obj)
        validate_update(value, obj)
        vms.warn(obj)
        vms.validate_update(obj, value)
        vms.validate_update({**talk_vm(), "status": value}, obj)
        pools.validate(obj)
        pools.validate_update(obj, value)
        pools.warn(obj)
        of_template(obj)


@settings(max_examples=150, deadline=None)
@given(SPECS, JSON)
def test_anything_like_a_spec_is_judged(spec, metadata):
    for cause in validate({"metadata": metadata, "spec": spec}):
        assert cause.message
    vms.validate({"spec": {"runStrategy": "Always", "template": {"metadata": metadata, "spec": spec}}})
    of_template({"spec": {"template": {"spec": spec}}})


@settings(max_examples=50, deadline=None)
@given(st.deferred(lambda: like(pools.POOL_SPEC)), JSON)
def test_anything_like_a_pool_is_judged(spec, metadata):
    for cause in pools.validate({"metadata": metadata, "spec": spec}):
        assert cause.message
    pools.validate_update({"spec": spec}, {"spec": metadata})


@settings(max_examples=150, deadline=None)
@given(SPECS)
def test_what_has_the_right_shape_can_be_defaulted(spec):
    causes: list[Cause] = []
    VMI_SPEC.check(spec, "spec", causes)
    if causes:
        return
    once = default({"metadata": {"name": "a"}, "spec": spec})
    assert default(once) == once
    validate(once)
    vms.default({"spec": {"template": {"spec": spec}}})
