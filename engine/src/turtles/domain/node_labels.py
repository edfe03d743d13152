# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt says about a node → the labels that Pods of guests select nodes by. Pure.

Names and meaning are those of KubeVirt's node labeller (user guide, "Virtual hardware", "Node labeller").
"""

import json
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from turtles.api import labels

#: Models too old for anybody to want, which every node could offer (KubeVirt's obsoleteCPUModels by default).
OBSOLETE_MODELS = (
    *("486", "pentium", "pentium2", "pentium3", "pentiumpro", "coreduo", "n270", "core2duo", "Conroe"),
    *("athlon", "phenom", "qemu64", "qemu32", "kvm64", "kvm32", "Opteron_G1", "Opteron_G2"),
)
#: Prefixes of all labels made here: one that is no longer made is to be taken away.
PREFIXES = (
    labels.CPU_MODEL_PREFIX,
    labels.CPU_MODEL_MIGRATION_PREFIX,
    labels.CPU_FEATURE_PREFIX,
    labels.CPU_VENDOR_PREFIX,
    labels.CPU_TIMER_PREFIX,
    labels.HOST_MODEL_CPU_PREFIX,
    labels.HOST_MODEL_REQUIRED_FEATURES_PREFIX,
    labels.MACHINE_TYPE_PREFIX,
    labels.SCHEDULING_PREFIX,
)
#: Names of CPU vendors as KubeVirt's labels have them.
_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def static(cpuinfo: str) -> dict[str, str]:
    """Return the labels that need no probe.

    :param cpuinfo: text of /proc/cpuinfo.
    """
    static_labels = {f"{labels.MACHINE_TYPE_PREFIX}q35": "true"}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "vendor_id":
            vendor = value.strip()
            static_labels[f"{labels.CPU_VENDOR_PREFIX}{_VENDORS.get(vendor, vendor)}"] = "true"
            break
    return static_labels


def cpu_manager(state: str) -> dict[str, str]:
    """Return the labels that say whether the kubelet gives containers processors of their own.

    :param state: its file cpu_manager_state (Kubernetes documentation, "Control CPU Management Policies on the Node");
        empty where there is none.
    """
    try:
        checkpoint = json.loads(state or "{}")
    except ValueError:  # it is being written
        return {}
    static_policy = isinstance(checkpoint, dict) and checkpoint.get("policyName") == "static"
    return dict.fromkeys(labels.CPU_MANAGER, "true" if static_policy else "false")


def realtime(runtime: str) -> dict[str, str | None]:
    """Return the label of nodes whose kernel leaves all of the time to realtime tasks; nothing takes it away.

    :param runtime: text of /proc/sys/kernel/sched_rt_runtime_us.
    """
    return {labels.REALTIME: "true" if runtime.strip() == "-1" else None}


def probed(domain_capabilities: str, host_capabilities: str, features: str, *, kvm: bool) -> dict[str, str]:
    """Return the labels that follow from libvirt's documents; those not known are empty.

    :param domain_capabilities: ``virsh domcapabilities``.
    :param host_capabilities: ``virsh capabilities``.
    :param features: the host model's CPU with its features expanded.
    :param kvm: whether guests run on the processor itself. An emulator leaves out what it can't do, so that no model or
        feature needs a certain node.
    """
    names = [f"{labels.MACHINE_TYPE_PREFIX}{machine}" for machine in _machines(host_capabilities)]
    probed_labels = {}
    if kvm and domain_capabilities:
        names += _cpu(ElementTree.fromstring(domain_capabilities))  # noqa: S314 - libvirt's own
        if features:
            names += [
                f"{labels.CPU_FEATURE_PREFIX}{feature.get('name')}"
                for feature in ElementTree.fromstring(features).findall("feature")  # noqa: S314
                if feature.get("policy", "require") == "require"
            ]
        probed_labels.update(_timer(host_capabilities))
    probed_labels.update({name: "true" for name in names if _LABEL_NAME.fullmatch(name.partition("/")[2])})
    return probed_labels


def _machines(host_capabilities: str) -> Iterator[str]:
    if not host_capabilities:
        return
    root = ElementTree.fromstring(host_capabilities)  # noqa: S314
    for machine in root.findall("guest/arch[@name='x86_64']/machine"):
        for name in (machine.text, machine.get("canonical")):
            if name and "q35" in name:  # the only kind that admission lets through
                yield name


def _cpu(root: ElementTree.Element) -> Iterator[str]:
    host = root.find("cpu/mode[@name='host-model']")
    if host is not None and host.get("supported") == "yes":
        yield f"{labels.HOST_MODEL_CPU_PREFIX}{host.findtext('model')}"
        yield f"{labels.CPU_MODEL_MIGRATION_PREFIX}{host.findtext('model')}"
        if vendor := host.findtext("vendor"):
            yield f"{labels.CPU_VENDOR_PREFIX}{vendor}"
        for feature in host.findall("feature"):
            if feature.get("policy") == "require":
                yield f"{labels.HOST_MODEL_REQUIRED_FEATURES_PREFIX}{feature.get('name')}"
                yield f"{labels.CPU_FEATURE_PREFIX}{feature.get('name')}"
    for model in root.findall("cpu/mode[@name='custom']/model"):
        if model.get("usable") == "yes" and model.text not in OBSOLETE_MODELS:
            yield f"{labels.CPU_MODEL_PREFIX}{model.text}"
            yield f"{labels.CPU_MODEL_MIGRATION_PREFIX}{model.text}"


def _timer(host_capabilities: str) -> dict[str, str]:
    if not host_capabilities:
        return {}
    counter = ElementTree.fromstring(host_capabilities).find("host/cpu/counter[@name='tsc']")  # noqa: S314
    if counter is None or not counter.get("frequency"):
        return {}
    frequency = str(counter.get("frequency"))
    return {
        f"{labels.CPU_TIMER_PREFIX}tsc-frequency": frequency,
        f"{labels.CPU_TIMER_PREFIX}tsc-scalable": "true" if counter.get("scaling") == "yes" else "false",
        f"{labels.SCHEDULING_PREFIX}tsc-frequency-{frequency}": "true",
    }
