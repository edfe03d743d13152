# SPDX-License-Identifier: GPL-3.0-or-later
"""What virt-controller's controllers read: caches that they share, with their indexes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import labels
from turtles.api.kinds.vmi import interfaces
from turtles.api.objects import Object, controller_of, labels_of
from turtles.api.phases import PENDING, is_final, phase_of
from turtles.api.selectors import selects
from turtles.controller.claims import claim_names
from turtles.controller.heartbeats import Heartbeats
from turtles.controller.state_claims import LABEL as STATE_OF
from turtles.controller.state_claims import claim_name, is_wanted, label_value
from turtles.domain.macs import macs, normalized_mac
from turtles.kube.informer import Informer, Key, index_by_owner, key_of
from turtles.kube.kubevirt import DATA_VOLUME, VM, VMI
from turtles.kube.manager import Manager
from turtles.kube.resources import NODE, POD, PVC, RESOURCEQUOTA

#: Index of Pods, VMs and VMIs: uid of what controls the object.
BY_OWNER = "owner"
#: Index of VMs and VMIs: namespaces in which nothing controls one.
UNOWNED_IN = "unowned"
#: Index of VMIs: name of the node a VMI was handed to.
BY_NODE = "node"
#: Index of VMs and VMIs: claims that an object's volumes name, as ``namespace/name``.
BY_CLAIM = "claim"
#: Index of VMIs: namespaces in which a VMI has no Pod so far.
PENDING_IN = "pending"
#: Index of ResourceQuotas.
BY_NAMESPACE = "namespace"
#: Index of claims: the machine whose state beside its disks a claim has, as ``namespace/value of the label``.
BY_STATE = "state"
#: Index of VMs and VMIs: the MAC addresses that they declare; of VMIs: those that others on the same network see.
BY_MAC, BY_SEEN_MAC = "mac", "seen-mac"


@dataclass(frozen=True)
class Caches:
    """Informers of what most controllers need, and what is learned from their changes."""

    vms: Informer
    vmis: Informer
    pods: Informer
    attachments: Informer
    nodes: Informer
    pvcs: Informer
    data_volumes: Informer
    quotas: Informer
    kubevirts: Informer
    heartbeats: Heartbeats

    @classmethod
    def of(cls, manager: Manager, kubevirts: Informer) -> "Caches":
        """Let a manager keep the caches.

        :param kubevirts: the informer of KubeVirt objects, which the configuration comes from.
        """
        caches = cls(
            vms=manager.informer(VM),
            vmis=manager.informer(VMI),
            pods=manager.informer(POD, label_selector=f"{labels.APP}={labels.APP_LAUNCHER}"),
            attachments=manager.informer(POD, label_selector=f"{labels.APP}={labels.APP_HOTPLUG_DISK}"),
            nodes=manager.informer(NODE),
            pvcs=manager.informer(PVC),
            # Those of upstream's CDI, or this engine's own
            data_volumes=manager.informer(DATA_VOLUME, optional=True),
            quotas=manager.informer(RESOURCEQUOTA),
            kubevirts=manager.share(kubevirts),
            heartbeats=Heartbeats(),
        )
        caches.nodes.add_handler(caches.heartbeats.observe)
        caches.pods.add_index(BY_OWNER, index_by_owner)
        caches.attachments.add_index(BY_OWNER, index_by_owner)
        caches.vms.add_index(BY_OWNER, index_by_owner)
        caches.vms.add_index(UNOWNED_IN, _unowned_in)
        caches.vmis.add_index(BY_OWNER, index_by_owner)
        caches.vmis.add_index(UNOWNED_IN, _unowned_in)
        caches.vmis.add_index(BY_NODE, _node_of)
        caches.vmis.add_index(PENDING_IN, _pending_in)
        caches.quotas.add_index(BY_NAMESPACE, lambda quota: [quota["metadata"]["namespace"]])
        caches.vms.add_index(BY_CLAIM, lambda vm: _claims(vm, (vm["spec"].get("template") or {}).get("spec") or {}))
        caches.vmis.add_index(BY_CLAIM, lambda vmi: _claims(vmi, vmi["spec"]))
        caches.pvcs.add_index(BY_STATE, _state_of)
        caches.vms.add_index(BY_MAC, lambda vm: _declared_macs((vm["spec"].get("template") or {}).get("spec") or {}))
        caches.vmis.add_index(BY_MAC, lambda vmi: _declared_macs(vmi["spec"]))
        caches.vmis.add_index(BY_SEEN_MAC, _seen_macs)
        return caches

    def has_mac(self, mac: str) -> bool:
        """Say whether a VirtualMachine or an instance declares a MAC address."""
        return bool(self.vms.by_index(BY_MAC, mac) or self.vmis.by_index(BY_MAC, mac))


def state_claims(pvcs: Informer, namespace: str, name: str) -> list[Object]:
    """Return the claims that are labelled as what outlives a machine of this name beside its disks."""
    return pvcs.by_index(BY_STATE, f"{namespace}/{label_value(name)}")


def users_of_claim(informer: Informer, old: Object | None, new: Object | None) -> list[Key]:
    """Return which VMs or VMIs to look at when a claim was bound, has grown or is gone: those that use it."""
    pvc = new or old
    if pvc is None or _state(old) == _state(new):
        return []
    return [key_of(obj) for obj in informer.by_index(BY_CLAIM, "/".join(key_of(pvc)))]


def users_of_data_volume(informer: Informer, old: Object | None, new: Object | None) -> list[Key]:
    """Return which VMs or VMIs to look at when a DataVolume changed: those that use it."""
    data_volume = new or old
    if data_volume is None:
        return []
    return [key_of(obj) for obj in informer.by_index(BY_CLAIM, "/".join(key_of(data_volume)))]


def data_volumes_of(
    caches: "Caches", namespace: str, spec: Mapping[str, Any], names: Iterable[str] = ()
) -> dict[str, Object]:
    """Return the DataVolumes that fill the claims of a VMI's spec, by name.

    :param names: further ones.
    """
    by_name = {name: caches.data_volumes.get(namespace, name) for name in (*claim_names(spec), *names)}
    return {name: data_volume for name, data_volume in by_name.items() if data_volume is not None}


def _state(pvc: Object | None) -> tuple[str, str] | None:
    """Return what users of a claim look at: whether it is bound, and how large it is."""
    if pvc is None:
        return None
    status = pvc.get("status") or {}
    return status.get("phase") or "", str((status.get("capacity") or {}).get("storage"))


def _state_of(pvc: Mapping[str, Any]) -> Iterable[str]:
    machine = (pvc["metadata"].get("labels") or {}).get(STATE_OF)
    return [f"{pvc['metadata']['namespace']}/{machine}"] if machine else []


def _node_of(vmi: Mapping[str, Any]) -> Iterable[str]:
    node = (vmi.get("status") or {}).get("nodeName")
    return [node] if node else []


def _unowned_in(obj: Object) -> Iterable[str]:
    return [obj["metadata"]["namespace"]] if controller_of(obj) is None else []


def _pending_in(vmi: Object) -> Iterable[str]:
    return [vmi["metadata"]["namespace"]] if phase_of(vmi) in ("", PENDING) else []


def _declared_macs(spec: Object) -> Iterable[str]:
    return [normalized_mac(mac) for each in interfaces.of(spec).values() if (mac := each.get("macAddress"))]


def seen_mac(where: str, mac: str) -> str:
    """Return the key of :data:`BY_SEEN_MAC` for a MAC address on a network."""
    return f"{where} {mac}"


def _seen_macs(vmi: Object) -> Iterable[str]:
    return [] if is_final(vmi) else [seen_mac(where, mac) for _, where, mac in macs(vmi)]


def _claims(obj: Object, spec: Object) -> Iterable[str]:
    names = [*claim_names(spec), *([claim_name(obj)] if is_wanted(spec) else [])]
    return [f"{obj['metadata']['namespace']}/{name}" for name in names]


def by_selector(owners: Informer, kind: str) -> Callable[[Object | None, Object | None], list[Key]]:
    """Return what says which owners of a kind to look at when an object changed.

    These are those that control it, and, if nothing does, those whose `spec.selector` selects it: they could adopt it.
    """

    def concerned(obj: Object) -> list[Key]:
        namespace = obj["metadata"].get("namespace") or ""
        owner = controller_of(obj)
        if owner is not None:
            return [(namespace, owner["name"])] if owner.get("kind") == kind else []
        own = labels_of(obj)
        return [key_of(each) for each in owners.list(namespace) if selects(each["spec"]["selector"], own)]

    def keys(old: Object | None, new: Object | None) -> list[Key]:
        return list(dict.fromkeys(key for obj in (old, new) if obj is not None for key in concerned(obj)))

    return keys
