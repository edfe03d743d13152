# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Virtual machines that take their size from an instance type, and what they leave open from a preference."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from engine import Engine, Object, condition

_GROUP = "instancetype.kubevirt.io"


def _make(cluster: Engine, namespace: str, kind: str, name: str, spec: Object) -> None:
    body = {"apiVersion": f"{_GROUP}/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    cluster.custom.create_namespaced_custom_object(_GROUP, "v1beta1", namespace, f"{kind.lower()}s", body)


def _machine(cluster: Engine, name: str, **spec: Any) -> Object:
    """A machine that says nothing about its size, nor about the bus of its disks."""
    vm = cluster.virtual_machine(name)
    domain = vm["spec"]["template"]["spec"]["domain"]
    del domain["memory"], domain["devices"]["disks"]
    vm["spec"] |= spec
    return vm


def _guest(cluster: Engine, vmi: Object) -> tuple[int, int, str]:
    """Processors, MiB of memory rounded up to 32, and disks, as the guest sees them."""
    address = vmi["status"]["interfaces"][0]["ipAddress"]
    words = cluster.ssh(address, "nproc; awk '/MemTotal/ {print $2}' /proc/meminfo; ls /sys/block | grep ^[sv]d")
    processors, memory, *disks = words.split()
    return int(processors), -(-int(memory) // 1024 // 32) * 32, disks[0][:2]


def test_a_guest_has_the_size_its_machine_was_started_with(
    cluster: Engine, namespace: str, kubectl: Callable[..., str]
) -> None:
    small = {"cpu": {"guest": 2}, "memory": {"guest": "128Mi"}}
    _make(cluster, namespace, "VirtualMachineInstancetype", "small", small)
    likes = {"cpu": {"preferredCPUTopology": "cores"}, "devices": {"preferredDiskBus": "virtio"}}
    _make(cluster, namespace, "VirtualMachinePreference", "linux", likes)
    names = {
        "instancetype": {"name": "small", "kind": "VirtualMachineInstancetype"},
        "preference": {"name": "linux", "kind": "VirtualMachinePreference"},
    }
    cluster.create(namespace, _machine(cluster, "web", **names))
    first = cluster.wait_running(namespace, "web")
    assert first["spec"]["domain"]["memory"]["guest"] == "128Mi"
    assert first["metadata"]["annotations"]["kubevirt.io/instancetype-name"] == "small"
    assert first["metadata"]["annotations"]["kubevirt.io/preference-name"] == "linux"
    processors, memory, disk = _guest(cluster, first)
    assert (processors, disk) == (2, "vd")
    assert 64 < memory <= 128
    assert "small" in kubectl("get", "vmf")
    assert "linux" in kubectl("get", "vmpref")
    assert "small" in kubectl("get", "all")
    vm = json.loads(kubectl("get", "vm", "web", "-o", "json"))
    revision = vm["status"]["instancetypeRef"]["controllerRevisionRef"]["name"]
    stored = json.loads(kubectl("get", "controllerrevision", revision, "-o", "json"))
    assert stored["data"]["spec"] == small

    kubectl("patch", "vmf", "small", "--type=merge", "-p", '{"spec": {"memory": {"guest": "192Mi"}}}')
    cluster.subresource(namespace, "web", "restart")
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"])
    assert _guest(cluster, second) == (processors, memory, disk), "it keeps the size it was started with"

    kubectl("delete", "vmf", "small")
    kubectl("patch", "vm", "web", "--type=merge", "-p", '{"metadata": {"labels": {"still": "admitted"}}}')
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachines/web/expand-spec"
    expanded = json.loads(kubectl("get", "--raw", path))["spec"]
    assert "instancetype" not in expanded
    domain = expanded["template"]["spec"]["domain"]
    assert (domain["memory"]["guest"], domain["cpu"]["cores"]) == ("128Mi", 2)


def test_another_size_comes_with_the_next_start(cluster: Engine, namespace: str) -> None:
    for name, guest in (("small", "128Mi"), ("large", "160Mi")):
        spec = {"cpu": {"guest": 1}, "memory": {"guest": guest}}
        _make(cluster, namespace, "VirtualMachineInstancetype", name, spec)
    kind = {"kind": "VirtualMachineInstancetype"}
    cluster.create(namespace, _machine(cluster, "web", instancetype={**kind, "name": "small"}))
    first = cluster.wait_running(namespace, "web")
    assert first["spec"]["domain"]["memory"]["guest"] == "128Mi"
    cluster.patch(namespace, "web", {"spec": {"instancetype": {"name": "large"}}})
    cluster.wait(
        namespace,
        "virtualmachines",
        "web",
        lambda vm: condition(vm or {}, "RestartRequired").get("status") == "True",
        timeout=30,
        what="RestartRequired",
    )
    cluster.subresource(namespace, "web", "restart")
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"])
    assert second["spec"]["domain"]["memory"]["guest"] == "160Mi"
    vm = cluster.get(namespace, "virtualmachines", "web")
    assert vm is not None
    assert vm["status"]["instancetypeRef"]["name"] == "large"
    assert condition(vm, "RestartRequired") == {}


def test_machines_that_do_not_fit_what_they_name(cluster: Engine, namespace: str) -> None:
    _make(
        cluster,
        namespace,
        "VirtualMachineInstancetype",
        "small",
        {"cpu": {"guest": 1}, "memory": {"guest": "128Mi"}},
    )
    _make(cluster, namespace, "VirtualMachinePreference", "big", {"requirements": {"memory": {"guest": "1Gi"}}})
    small = {"name": "small", "kind": "VirtualMachineInstancetype"}
    big = {"name": "big", "kind": "VirtualMachinePreference"}
    words = (
        "failure checking preference requirements: insufficient Memory resources of 128Mi provided by instance type, "
        "preference requires 1Gi"
    )
    with pytest.raises(ApiException) as error:
        cluster.create(namespace, _machine(cluster, "web", instancetype=small, preference=big))
    assert error.value.status == 422
    assert words in error.value.body
    vm = cluster.virtual_machine("web")
    vm["spec"]["instancetype"] = small
    with pytest.raises(ApiException) as error:
        cluster.create(namespace, vm)
    field = "spec.template.spec.domain.memory.guest"
    assert f"VM field(s) {field} conflicts with selected instance type" in error.value.body


def test_an_instance_type_that_comes_later(cluster: Engine, namespace: str) -> None:
    later = {"name": "later", "kind": "VirtualMachineInstancetype"}
    cluster.create(namespace, _machine(cluster, "web", instancetype=later))
    vm = cluster.wait(
        namespace,
        "virtualmachines",
        "web",
        lambda vm: condition(vm or {}, "Failure").get("status") == "True",
        timeout=30,
        what="the condition Failure",
    )
    assert condition(vm or {}, "Failure")["reason"] == "FailedFindInstancetype"
    _make(
        cluster, namespace, "VirtualMachineInstancetype", "later", {"cpu": {"guest": 1}, "memory": {"guest": "128Mi"}}
    )
    vmi = cluster.wait_running(namespace, "web")
    assert vmi["spec"]["domain"]["memory"]["guest"] == "128Mi"
