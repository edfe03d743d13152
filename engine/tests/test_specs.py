# SPDX-License-Identifier: GPL-3.0-or-later
"""Specs drawn from the schema go all the way that a machine goes: webhooks, Pod, domain XML.

Each is admitted or refused with causes that name their fields. What is admitted makes a Pod that the API server takes,
and a domain that libvirt's schema allows: nothing that is admitted fails later, again and again.

The same few are drawn each time, unless `TURTLES_FUZZ_SPECS` says how many others.
"""

from __future__ import annotations

import base64
import copy
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from lxml import etree

from turtles.api.configuration import DEFAULT
from turtles.api.guests import MAX_VCPUS
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.language import Field, ListOf, MapOf, Struct, Type
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod
from turtles.controller.pod.obstacles import obstacles
from turtles.domain import definition, network
from turtles.domain.definition.host_devices import PCI_PREFIX, variable
from turtles.standalone.apiserver.builtin import pod_defaults, pod_rules
from turtles.virt_api import admission

HOOKS = admission.Admission(admission.engine_users("kubevirt"), checks={"kubevirt": lambda request: []})
POD_INTERFACES = {"eth0": network.PodInterface("eth0", "0a:58:0a:f4:00:05", (("10.244.0.5", 16),), "10.244.0.1", 1400)}
SPECS = int(os.environ.get("TURTLES_FUZZ_SPECS", "0"))
DOMAIN_SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")

BASE: dict[str, Any] = {
    "domain": {
        "devices": {
            "disks": [{"name": "a", "disk": {"bus": "virtio"}}, {"name": "b", "cdrom": {"bus": "sata"}}],
            "interfaces": [{"name": "default", "masquerade": {}}],
        },
        "memory": {"guest": "1Gi"},
    },
    "networks": [{"name": "default", "pod": {}}],
    "volumes": [
        {"name": "a", "containerDisk": {"image": "registry.example/disk:1"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "b"}},
    ],
}

#: What the Pod has from users as it is, and what therefore the API server judges: the instance says so in a condition.
PASSED_ON = (
    "spec.affinity",
    "spec.containers[0].livenessProbe",
    "spec.containers[0].readinessProbe",
    "spec.containers[0].resources",
    "spec.dnsConfig",
    "spec.nodeSelector",
    "spec.priorityClassName",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.subdomain",
    "spec.tolerations",
    "spec.topologySpreadConstraints",
)

#: What is right somewhere, and what is wrong everywhere.
WORDS = (
    *("a", "b", "default", "", "-", "a/b", "../../etc/passwd", "/dev/sda", "x" * 300, "ä", "\0", "a\nb", "<!--", "]]>"),
    *("virtio", "sata", "scsi", "usb", "ide", "e1000e", "q35", "pc-q35-7.2", "pc", "host-model", "Nehalem", "amd64"),
    *("none", "None", "writeback", "native", "threads", "open", "closed", "shared", "auto", "supplementalPool"),
    *("reset", "poweroff", "tablet", "require", "forbid", "delay", "catchup", "guest", "TCP", "UDP", "LiveMigrate"),
    *("Paused", "Disk", "DiskOrCreate", "Always", "Never", "ClusterFirst", "Europe/Berlin", "up", "down", "absent"),
    *("10.0.2.0/24", "fd00::/64", "10.0.0.1", "02:00:00:00:00:01", "00:00:00:00:00:00", "0000:01:00.0", "2Mi", "1Gi"),
    *("6a1a24a1-4061-4607-8bf4-a3963d0c5895", "aGVsbG8=", "#cloud-config\n", "In", "Exists", "NoSchedule", "external"),
)
AMOUNTS = ("0", "1", "-1", "500k", "1M", "64Mi", "1Gi", "1.5Gi", "2Ti", "1e3", "100m", "much", "9" * 40)

#: As many processors of a node as any machine can have for itself, and one for its emulator.
PROCESSORS = tuple(range(MAX_VCPUS + 1))


def scalar(kind: Type) -> st.SearchStrategy[Any]:
    """Return values of a scalar type, and a few that aren't."""
    shape = kind.openapi()
    if shape.get("x-kubernetes-int-or-string"):
        return st.sampled_from(AMOUNTS) | st.integers(-1, 5000)
    return {
        "boolean": st.booleans(),
        "integer": st.integers(-1, 8) | st.integers(-(2**63), 2**63),
    }.get(shape.get("type", ""), st.sampled_from(WORDS) | st.text(max_size=8))


@functools.cache
def values(kind: Type, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return values of a type: the deeper, the smaller."""
    if isinstance(kind, Struct):
        fields = {name: values(field.type, depth + 1) for name, field in kind.fields.items()}
        required = {name: value for name, value in fields.items() if kind.fields[name].required}
        optional = [name for name in fields if name not in required]
        most = 3 if depth < 3 else 1
        few = st.lists(st.sampled_from(optional), max_size=most, unique=True) if optional else st.just([])
        return few.flatmap(lambda names: st.fixed_dictionaries({**required, **{name: fields[name] for name in names}}))
    if isinstance(kind, ListOf):
        return st.lists(values(kind.item, depth + 1), max_size=2)
    if isinstance(kind, MapOf):
        keys = st.sampled_from(("cpu", "memory", *WORDS[:5]))
        return st.dictionaries(keys, values(kind.value, depth + 1), max_size=2)
    return scalar(kind)


def places(kind: Type, value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Field]]:
    """Give the fields of the objects that are there: what can be changed without making more of them."""
    if isinstance(kind, Struct) and isinstance(value, dict):
        for name, field in kind.fields.items():
            yield (*path, name), field
            yield from places(field.type, value.get(name), (*path, name))
    elif isinstance(kind, ListOf) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(kind.item, item, (*path, index))


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Return a spec that is right, with some fields set to something else."""
    spec = copy.deepcopy(BASE)
    for _ in range(draw(st.integers(1, 6))):
        found = list(places(VMI_SPEC, spec))
        path, field = found[draw(st.integers(0, len(found) - 1))]
        target: Any = spec
        for step in path[:-1]:
            target = target[step]
        value = draw(values(field.type))
        if isinstance(target.get(path[-1]), list) and isinstance(value, list):
            value = target[path[-1]] + value
        target[path[-1]] = value
    return spec


def review(path: str, obj: Any) -> dict[str, Any]:
    """Return a webhook's answer about a new object."""
    request = {"uid": "1", "operation": "CREATE", "object": obj, "userInfo": {"username": "jane"}}
    answer: dict[str, Any] = HOOKS.review(path, {"request": request})["response"]
    return answer


def admitted(prefix: str, obj: dict[str, Any]) -> dict[str, Any] | None:
    """Send an object through both webhooks. Return it as it is then stored, or None if it is refused."""
    answer = review(f"/{prefix}-mutate", obj)
    if answer["allowed"] and "patch" in answer:
        obj = jsonpatch.apply_patch(obj, json.loads(base64.b64decode(answer["patch"])))
    if answer["allowed"]:
        answer = review(f"/{prefix}-validate{'-create' if prefix.endswith('instances') else ''}", obj)
    if answer["allowed"]:
        return obj
    status = answer["status"]
    assert status["code"] == 422
    for cause in (status.get("details") or {}).get("causes") or ():
        assert cause["message"]
    return None


@functools.cache
def domain_schema() -> etree.RelaxNG:
    """Return libvirt's schema of domains."""
    return etree.RelaxNG(etree.parse(DOMAIN_SCHEMA))


def check_pod(vmi: dict[str, Any], *, kvm: bool, image_volumes: bool) -> None:
    """Make the Pod of a VMI, and hold it against the API server's rules."""
    pod = launcher_pod(vmi, LauncherConfig("launcher", kvm=kvm, vhost_net=kvm, image_volumes=image_volumes))
    pod = {**json.loads(json.dumps(pod)), "status": {}}
    pod_defaults.set_defaults(pod)
    found = [(cause.field, cause.message) for cause in pod_rules.validate(pod, None)]
    assert [cause for cause in found if not cause[0].startswith(PASSED_ON) and not cause[0].endswith(".image")] == []


def check_domain(vmi: dict[str, Any], *, kvm: bool) -> None:
    """Make the domain XML of a VMI, and hold it against libvirt's schema."""
    plans = network.plans(vmi, POD_INTERFACES)
    devices = vmi["spec"]["domain"]["devices"]
    given = [device["deviceName"] for kind in ("gpus", "hostDevices") for device in devices.get(kind) or ()]
    # As a device plugin says which device of the node the Pod has.
    assigned = {variable(PCI_PREFIX, name): ",".join(["0000:01:00.0"] * len(given)) for name in given}
    xml = definition.domain_xml(vmi, plans, definition.Host(kvm, assigned=assigned, processors=PROCESSORS))
    note(xml)
    domain_schema().assertValid(etree.fromstring(xml))


@pytest.mark.skipif(not DOMAIN_SCHEMA.exists(), reason="libvirt isn't installed")
@settings(
    max_examples=SPECS or 200,
    derandomize=not SPECS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(specs())
def test_what_is_admitted_makes_a_pod_and_a_domain(spec: dict[str, Any]):
    note(json.dumps(spec))
    vm = {"metadata": {"name": "testvm", "namespace": "default"}, "spec": {"runStrategy": "Halted"}}
    vm["spec"]["template"] = {"spec": copy.deepcopy(spec)}
    admitted("virtualmachines", vm)
    vmi = admitted("virtualmachineinstances", {"metadata": {"name": "testvm", "namespace": "default"}, "spec": spec})
    if vmi is None:
        return
    vmi["apiVersion"], vmi["kind"] = "kubevirt.io/v1", "VirtualMachineInstance"
    vmi["metadata"]["uid"] = "6f1c2f0e-5b86-4c3a-9a06-0f2f3b6c1d11"
    if vmi["spec"]["architecture"] != "amd64":
        return  # it is never scheduled
    if obstacles(vmi, DEFAULT):
        return  # it has no Pod, and says why
    for kvm in (False, True):
        for image_volumes in (False, True):
            check_pod(vmi, kvm=kvm, image_volumes=image_volumes)
        check_domain(vmi, kvm=kvm)
