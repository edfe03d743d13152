# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission fills in in a VirtualMachineInstance.

Rules: KubeVirt user guide ("Virtual hardware", "Disks and volumes", "Interfaces and networks") and the KubeVirt API's
documented defaults.
"""

from __future__ import annotations

import copy

from turtles.api import labels, quantity
from turtles.api.conditions import GUEST_NOT_RUNNING, set_condition
from turtles.api.configuration import ClusterConfiguration
from turtles.api.guests import QEMU_UID
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.vmi.defaults.compute import (
    default_guest_memory,
    default_headroom,
    default_model,
    default_requests,
    default_topology,
)
from turtles.api.kinds.vmi.defaults.devices import default_devices, default_probes
from turtles.api.kinds.vmi.defaults.disks import declare_disks, default_buses, default_disks
from turtles.api.kinds.vmi.defaults.machine import default_features, default_firmware, default_hyperv
from turtles.api.kinds.vmi.defaults.network import check_default_network, default_network
from turtles.api.kinds.vmi.presets import PRESET, apply_presets
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.objects import Object, add_annotations, add_finalizer, get
from turtles.api.phases import PENDING
from turtles.api.rules import Spec, is_well_formed


def default(vmi: Object, context: Context = DEFAULT_CONTEXT) -> Object:
    """Return a new VirtualMachineInstance with its defaults and its first status set.

    What isn't well-formed can't be defaulted: validation says what is wrong with it.

    :raises Refusal: the presets for it contradict each other, or the interface that it would get isn't allowed.
    """
    if not is_well_formed(vmi, VMI_SPEC):
        return vmi
    revision = get(vmi, "status", "virtualMachineRevisionName") if context.privileged else None
    config = context.config
    vmi = copy.deepcopy(vmi)
    vmi["metadata"] = vmi.get("metadata") or {}
    vmi["spec"] = VMI_SPEC.stored(vmi["spec"])
    # Before everything else: a preset gives what the user left open, a default what then still is.
    apply_presets(vmi, context.others(PRESET, vmi["metadata"].get("namespace") or ""))
    spec = vmi["spec"]
    check_default_network(spec, config)
    default_spec(spec, config)
    domain = spec["domain"]
    default_buses(spec, config)
    default_features(spec)
    default_firmware(vmi)
    default_devices(spec, domain)
    default_probes(spec)
    VMI_SPEC.apply_defaults(spec)
    default_hyperv(spec)
    default_model(spec, config)
    default_headroom(spec, config)
    _default_metadata(vmi)
    _first_status(vmi, context.now)
    if revision:
        vmi["status"]["virtualMachineRevisionName"] = revision
    return vmi


def completed(spec: Spec, config: ClusterConfiguration) -> Object:
    """Return the spec of a template with the defaults that rules reckon with."""
    found = copy.deepcopy(dict(spec))
    default_spec(found, config)
    return found


def default_spec(spec: Object, config: ClusterConfiguration) -> None:
    """Set, in place, the defaults that rules reckon with, also those about templates, which are stored without them."""
    domain = spec["domain"]
    if not spec.get("architecture"):
        spec["architecture"] = config.architecture
    if not (domain.get("machine") or {}).get("type"):
        domain["machine"] = {**(domain.get("machine") or {}), "type": config.machine_type_of(spec["architecture"])}
    default_requests(domain, config)
    default_guest_memory(domain)
    default_topology(domain)
    if not spec.get("evictionStrategy"):
        spec["evictionStrategy"] = config.eviction_strategy
    default_network(spec, domain, config)
    default_disks(spec)


def declare_devices(spec: Object, config: ClusterConfiguration) -> None:
    """Declare, in place, the disks and the interface that a machine has without declaring them."""
    domain = spec["domain"]
    domain["devices"] = domain.get("devices") or {}
    default_network(spec, domain, config)
    declare_disks(spec)


def default_update(vmi: Object, old: Object, context: Context) -> Object:
    """Return an updated VirtualMachineInstance with its old status, unless the engine itself writes it.

    There is no status subresource, so this is what keeps users from writing the status.
    """
    if context.privileged:
        return vmi
    after = {key: value for key, value in vmi.items() if key != "status"}
    if old.get("status") is not None:
        after["status"] = old["status"]
    return after


def _default_metadata(vmi: Object) -> None:
    metadata = vmi["metadata"]
    add_finalizer(vmi, labels.VMI_FINALIZER)
    add_annotations(vmi, labels.OBSERVED_VERSIONS)
    annotations = metadata["annotations"]
    if not annotations.get(labels.PCI_TOPOLOGY_VERSION):
        metadata["annotations"] = {**annotations, labels.PCI_TOPOLOGY_VERSION: labels.PCI_TOPOLOGY_V3}


def _first_status(vmi: Object, now: str) -> None:
    domain = vmi["spec"]["domain"]
    cpu = domain["cpu"]
    status: Object = {
        "phase": PENDING,
        "runtimeUser": QEMU_UID,
        "currentCPUTopology": {key: cpu[key] for key in ("cores", "sockets", "threads") if cpu.get(key)},
        "guestOSInfo": {},
    }
    if now:
        status["phaseTransitionTimestamps"] = [{"phase": PENDING, "phaseTransitionTimestamp": now}]
    guest = (domain.get("memory") or {}).get("guest")
    if guest is not None:
        guest = quantity.canonical(guest)
        status["memory"] = {"guestAtBoot": guest, "guestCurrent": guest, "guestRequested": guest}
    # As it will be until the guest runs, so that nobody has to write it on the way there
    conditions: list[Object] = []
    set_condition(conditions, "Ready", "False", *GUEST_NOT_RUNNING, now)
    vmi["status"] = {**status, "conditions": conditions}
