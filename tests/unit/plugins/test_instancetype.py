# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules instancetype, preference, both *_info, and the options of vm."""

from __future__ import annotations

import pytest

CLUSTER = "virtualmachineclusterinstancetypes"
OWN = "virtualmachineinstancetypes"
TEMPLATE = {"domain": {"devices": {}}}


@pytest.fixture(autouse=True)
def shop(api):
    """A namespace."""
    api.put("namespaces", {"metadata": {"name": "shop"}})


def stored(api, plural, name="small", namespace=None):
    parts = ["/apis/instancetype.kubevirt.io/v1beta1"]
    parts += ["namespaces", namespace] if namespace else []
    return api.objects.get("/".join([*parts, plural, name]))


@pytest.mark.parametrize(
    ("where", "plural", "namespace"),
    [
        ({}, CLUSTER, None),
        ({"scope": "cluster", "namespace": "shop"}, CLUSTER, None),
        ({"namespace": "shop"}, OWN, "shop"),
        ({"scope": "namespace"}, OWN, "default"),
    ],
)
def test_an_instance_type_is_made_changed_and_removed_once(api, run, where, plural, namespace):
    options = {"name": "small", "cpus": 2, "memory": "128Mi", "labels": {"team": "a"}, **where}
    assert run("instancetype", check=True, **options)["changed"]
    assert stored(api, plural, namespace=namespace) is None
    made = run("instancetype", **options)
    assert made["changed"]
    assert made["result"]["spec"] == {"cpu": {"guest": 2}, "memory": {"guest": "128Mi"}}
    assert not run("instancetype", **options)["changed"]
    assert run("instancetype_info", name="small", **where)["resources"] == [made["result"]]
    assert run("instancetype_info", **where)["resources"] == [made["result"]]

    changed = run("instancetype", name="small", spec={"nodeSelector": {"disks": "fast"}}, memory="256Mi", **where)
    assert changed["diff"]["before"]["spec"]["memory"] == {"guest": "128Mi"}
    assert stored(api, plural, namespace=namespace)["spec"] == {
        "cpu": {"guest": 2},
        "memory": {"guest": "256Mi"},
        "nodeSelector": {"disks": "fast"},
    }
    run("instancetype", name="small", spec={"nodeSelector": None}, **where)
    assert "nodeSelector" not in stored(api, plural, namespace=namespace)["spec"]

    assert run("instancetype", check=True, name="small", state="absent", **where)["changed"]
    assert run("instancetype", name="small", state="absent", **where)["result"] == {}
    assert stored(api, plural, namespace=namespace) is None
    assert not run("instancetype", name="small", state="absent", **where)["changed"]


def test_a_preference_is_made_changed_and_removed_once(api, run):
    plural = "virtualmachineclusterpreferences"
    options = {
        "name": "linux",
        "cpu_topology": "cores",
        "disk_bus": "virtio",
        "interface_model": "virtio",
        "machine_type": "q35",
        "required_cpus": 2,
        "required_memory": "512Mi",
        "spec": {"devices": {"preferredRng": {}}},
    }
    assert run("preference", check=True, **options)["changed"]
    assert stored(api, plural, "linux") is None
    made = run("preference", **options)
    assert made["result"]["spec"] == {
        "cpu": {"preferredCPUTopology": "cores"},
        "devices": {"preferredDiskBus": "virtio", "preferredInterfaceModel": "virtio", "preferredRng": {}},
        "machine": {"preferredMachineType": "q35"},
        "requirements": {"cpu": {"guest": 2}, "memory": {"guest": "512Mi"}},
    }
    assert not run("preference", **options)["changed"]
    assert run("preference_info", name="linux")["resources"] == [made["result"]]
    assert run("preference", name="linux", spec={"machine": None})["changed"]
    assert "machine" not in stored(api, plural, "linux")["spec"]
    assert run("preference", name="linux", namespace="shop")["result"]["spec"] == {}
    assert [obj["metadata"]["namespace"] for obj in run("preference_info", scope="namespace")["resources"]] == ["shop"]
    assert run("preference", name="linux", state="absent")["changed"]
    assert not run("preference", name="linux", state="absent")["changed"]


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("instancetype", {"memory": "1Gi"}, "cpus: missing for a new instance type. Give it, or cpu.guest in spec."),
        ("instancetype", {"cpus": 1, "spec": {"memory": {}}}, "memory: missing for a new instance type"),
        ("instancetype", {"cpus": 0, "memory": "1Gi"}, "cpus: 0 isn't a number of vCPUs. Give 1 or more."),
        ("instancetype", {"cpus": 1, "memory": "lots"}, "memory: 'lots' isn't a quantity"),
        ("instancetype", {"cpus": 1, "memory": "1Gi", "name": "Not_a_name"}, "isn't a Kubernetes name"),
        ("instancetype", {"cpus": 1, "memory": "1Gi", "spec": {"spec": {}}}, "spec is in the wrong place"),
        ("preference", {"required_memory": "lots"}, "required_memory: 'lots' isn't a quantity"),
        ("preference", {"required_cpus": -1}, "required_cpus: -1 isn't a number of vCPUs"),
    ],
)
def test_bad_input_names_the_option(api, run, module, options, message):
    failed = run(module, **{"name": "small", **options})
    assert message in failed.msg
    assert not [path for path in api.objects if "instancetype.kubevirt.io" in path]


def machine(api):
    return api.get("virtualmachines", "default", "web")["spec"]


def test_a_machine_names_both(api, run):
    options = {
        "name": "web",
        "instancetype": "u1.small",
        "preference": {"name": "mine", "kind": "VirtualMachinePreference"},
    }
    made = run("vm", spec={"template": {"spec": TEMPLATE}}, **options)
    assert made["changed"]
    assert machine(api)["instancetype"] == {"name": "u1.small", "kind": "VirtualMachineClusterInstancetype"}
    assert machine(api)["preference"] == {"name": "mine", "kind": "VirtualMachinePreference"}
    assert not run("vm", **options)["changed"]
    assert not run("vm", check=True, **options)["changed"]
    assert run("vm", check=True, name="web", instancetype="u1.large")["changed"]
    assert machine(api)["instancetype"]["name"] == "u1.small"


def test_another_name_takes_nothing_over_from_the_one_before(api, run):
    run("vm", name="web", spec={"template": {"spec": TEMPLATE}, "instancetype": {"name": "a", "revisionName": "a-1"}})
    run("vm", name="web", instancetype={"name": "b", "kind": "VirtualMachineInstancetype"})
    assert machine(api)["instancetype"] == {"name": "b", "kind": "VirtualMachineInstancetype"}
    run("vm", name="web", instancetype={"infer_from_volume": "root", "infer_from_volume_failure_policy": "Ignore"})
    assert machine(api)["instancetype"] == {"inferFromVolume": "root", "inferFromVolumeFailurePolicy": "Ignore"}
    run("vm", name="web", instancetype={"name": "c", "revision_name": "c-1"})
    assert machine(api)["instancetype"] == {
        "name": "c",
        "kind": "VirtualMachineClusterInstancetype",
        "revisionName": "c-1",
    }
    run("vm", name="web", spec={"instancetype": None})
    assert "instancetype" not in machine(api)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "VirtualMachineInstancetype"}, "instancetype: name is missing. Give it, or infer_from_volume."),
        ({"nmae": "x"}, "instancetype.nmae: no such option. The options are name, kind, revision_name"),
        ({"name": 1}, "instancetype.name: must be a string"),
        (["small"], "instancetype: must be a name, or a mapping with name and kind"),
    ],
)
def test_bad_matchers_are_named(api, run, value, message):
    failed = run("vm", name="web", spec={"template": {"spec": TEMPLATE}}, instancetype=value)
    assert message in failed.msg
    assert api.get("virtualmachines", "default", "web") is None
