# SPDX-License-Identifier: GPL-3.0-or-later
"""Binds claims to PersistentVolumes: to existing ones that suit, or to new ones of the StorageClass ``local-path``."""

from typing import Any

from turtles.api.objects import Object, annotations_of
from turtles.api.quantity import parse
from turtles.kube.client import Client
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.writer import Writer
from turtles.standalone import binding
from turtles.standalone.local_path.provisioner import PROVISIONER, Provisioner, ProvisioningError, is_provisioned
from turtles.standalone.local_path.sources import data_source, populator
from turtles.standalone.pods import has_ended
from turtles.standalone.scheduler import is_default
from turtles.standalone.well_known import PVC_PROTECTION, SELECTED_NODE

_BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
#: Seconds after which provisioning that failed is tried again.
_AGAIN = 30.0
#: Seconds after which a volume that is being filled is looked at again.
_SOON = 0.5


def suits(volume: Object, claim: Object) -> bool:
    """Say whether an existing volume may serve a claim."""
    have, want = volume["spec"], claim["spec"]
    if want.get("volumeName") and want["volumeName"] != volume["metadata"]["name"]:
        return False
    if binding.is_kept_from(volume, claim):
        return False
    if not have.get("claimRef") and (volume.get("status") or {}).get("phase") not in (None, "Pending", "Available"):
        return False
    return (
        not volume["metadata"].get("deletionTimestamp")
        and (have.get("storageClassName") or "") == (want.get("storageClassName") or "")
        and (have.get("volumeMode") or "Filesystem") == (want.get("volumeMode") or "Filesystem")
        and set(want.get("accessModes") or []) <= set(have.get("accessModes") or [])
        and parse(have["capacity"]["storage"]) >= parse(want["resources"]["requests"]["storage"])
    )


class ClaimController:
    """Binds claims, and protects those that a Pod uses from deletion."""

    def __init__(
        self,
        client: Client,
        recorder: Recorder,
        provisioner: Provisioner,
        pods: Informer,
        claims: Informer,
        volumes: Informer,
        classes: Informer,
        nodes: Informer,
    ) -> None:
        self._writer, self._recorder, self._provisioner = Writer(client), recorder, provisioner
        self._pods, self._claims, self._volumes = pods, claims, volumes
        self._classes, self._nodes = classes, nodes

    def controller(self) -> Controller:
        """Return what the manager runs."""
        triggers = [
            each(self._claims),
            Trigger(self._volumes, self._for_volume),
            Trigger(self._pods, _released_by),
            Trigger(self._classes, self._for_class),
        ]
        return Controller("claims", self.reconcile, triggers, reads=[self._nodes])

    def _for_volume(self, old: Object | None, new: Object | None) -> list[Key]:
        name = (new or old or {})["metadata"]["name"]
        return [key_of(claim) for claim in self._claims.list() if claim["spec"].get("volumeName") in (None, "", name)]

    def _for_class(self, _old: Object | None, new: Object | None) -> list[Key]:
        if new is None:
            return []
        return [key_of(claim) for claim in self._claims.list() if not claim["spec"].get("volumeName")]

    def reconcile(self, key: Key) -> float | None:
        """Advance one claim."""
        claim = self._claims.get(*key)
        if claim is None:
            self._provisioner.abandon(*key)
            return None
        if claim["metadata"].get("deletionTimestamp"):
            self._unprotect(claim)
            return None
        claim = self._complete(claim)
        if claim["spec"].get("volumeName"):
            self._bind_to_named(claim)
            return None
        # Only an empty volume may have been made for no claim in particular
        is_empty = data_source(claim) is None
        volumes = (each for each in self._volumes.list() if is_empty or binding.is_bound_to(each, claim))
        volume = next((each for each in sorted(volumes, key=_size) if suits(each, claim)), None)
        if volume is not None:
            self._bind(claim, volume)
            return None
        return self._provision(claim)

    def _unprotect(self, claim: Object) -> None:
        """Let a deleted claim go once no Pod uses it."""
        metadata = claim["metadata"]
        finalizers = metadata.get("finalizers") or []
        if PVC_PROTECTION in finalizers and not self._is_used(claim):
            left = [entry for entry in finalizers if entry != PVC_PROTECTION]
            change = {"finalizers": left, "resourceVersion": metadata["resourceVersion"]}
            self._patch(claim, {"metadata": change})

    def _complete(self, claim: Object) -> Object:
        """Add finalizer and default StorageClass to a claim, and return it."""
        metadata = claim["metadata"]
        finalizers = metadata.get("finalizers") or []
        change: Object = {}
        if PVC_PROTECTION not in finalizers:
            change["metadata"] = {
                "finalizers": [*finalizers, PVC_PROTECTION],
                "resourceVersion": metadata["resourceVersion"],
            }
        if claim["spec"].get("storageClassName") is None:
            default = next((entry for entry in self._classes.list() if is_default(entry)), None)
            if default is not None:
                change["spec"] = {"storageClassName": default["metadata"]["name"]}
        return self._patch(claim, change) if change else claim

    def _bind_to_named(self, claim: Object) -> None:
        """Bind a claim to the volume in its spec, if it may have that one."""
        volume = self._volumes.get(None, claim["spec"]["volumeName"])
        was_bound = (claim.get("status") or {}).get("phase") == "Bound"
        if volume is None:
            if was_bound:
                self._set_status(claim, {"phase": "Lost"})
            return
        # A volume that lost its claimRef is bound again to the claim that had it, as that claim's status says, which
        # tenants can't write.
        regained = was_bound and not volume["spec"].get("claimRef")
        if regained or binding.is_bound_to(volume, claim) or suits(volume, claim):
            self._bind(claim, volume)
        else:
            self._refuse(claim, volume)

    def _refuse(self, claim: Object, volume: Object) -> None:
        """Tell a claim that it can't have the volume it names, with the words of Kubernetes' controller."""
        name, phase = volume["metadata"]["name"], (claim.get("status") or {}).get("phase")
        if phase in ("Bound", "Lost"):
            if phase == "Bound":
                self._set_status(claim, {"phase": "Lost"})
                self._recorder.event(
                    claim,
                    "Warning",
                    "ClaimMisbound",
                    f'volume "{name}" belongs to {binding.holder(volume, claim)}: this claim is bound incorrectly',
                )
            return
        if phase != "Pending":
            claim = self._set_status(claim, {"phase": "Pending"})
        if binding.is_kept_from(volume, claim):
            why = f'volume "{name}" already bound to a different claim: it belongs to {binding.holder(volume, claim)}'
        else:
            why = (
                f'Cannot bind to requested volume "{name}": its storageClassName, volumeMode, accessModes or size '
                "are not what the claim asks for, or it isn't available"
            )
        self._recorder.event(claim, "Warning", "FailedBinding", why)

    def _provision(self, claim: Object) -> float | None:
        """Provision a volume if the claim's StorageClass is of this provisioner and a Pod is waiting for it."""
        if not (claim.get("status") or {}).get("phase"):
            claim = self._set_status(claim, {"phase": "Pending"})
        name = claim["spec"].get("storageClassName") or ""
        storage_class = self._classes.get(None, name)
        if storage_class is None or storage_class.get("provisioner") != PROVISIONER:
            return None
        node = annotations_of(claim).get(SELECTED_NODE)
        if (kind := populator(claim)) and (node or storage_class.get("volumeBindingMode") != "WaitForFirstConsumer"):
            message = f"waiting for the populator of {kind} to provide a volume"
            self._recorder.event(claim, "Normal", "WaitForPopulator", message)
            return None
        if not node and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer":
            self._recorder.event(
                claim, "Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
            )
            return None
        if not node:
            nodes = self._nodes.list()
            if not nodes:
                return _AGAIN
            node = nodes[0]["metadata"]["name"]
        try:
            volume = self._provisioner.provision(claim, storage_class, node)
        except ProvisioningError as error:
            self._recorder.event(claim, "Warning", "ProvisioningFailed", str(error))
            return _AGAIN
        if volume is None:
            return _SOON
        name = volume["metadata"]["name"]
        self._recorder.event(claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
        self._bind(claim, volume)
        return None

    def _bind(self, claim: Object, volume: Object) -> None:
        """Make volume and claim name each other, then grow the volume if the claim asks for more."""
        if not binding.is_bound_to(volume, claim):
            change = {
                "metadata": {"resourceVersion": volume["metadata"]["resourceVersion"]},
                "spec": {"claimRef": binding.reference_to(claim)},
            }
            volume = self._patch_volume(volume, change)
        if (volume.get("status") or {}).get("phase") != "Bound":
            self._patch_volume(volume, {"status": {"phase": "Bound"}}, subresource="status")
        name, annotations = volume["metadata"]["name"], annotations_of(claim)
        if claim["spec"].get("volumeName") != name or _BIND_COMPLETED not in annotations:
            marks = {_BIND_COMPLETED: "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
            claim = self._patch(claim, {"metadata": {"annotations": marks}, "spec": {"volumeName": name}})
        status = {
            "phase": "Bound",
            "accessModes": volume["spec"]["accessModes"],
            "capacity": self._grown(claim, volume),
        }
        have = claim.get("status") or {}
        if any(have.get(key) != value for key, value in status.items()):
            self._set_status(claim, status)

    def _grown(self, claim: Object, volume: Object) -> Object:
        """Return a volume's capacity, after growing it to what its claim requests if that is possible."""
        capacity = dict(volume["spec"]["capacity"])
        wanted = claim["spec"]["resources"]["requests"]["storage"]
        if is_provisioned(volume) and parse(wanted) > parse(capacity["storage"]):
            if self._provisioner.has_room_for(wanted):
                capacity["storage"] = wanted
                self._provisioner.grow(volume, wanted)
                self._patch_volume(volume, {"spec": {"capacity": capacity}})
            else:
                self._recorder.event(
                    claim, "Warning", "VolumeResizeFailed", f"not enough disk space to grow the volume to {wanted}"
                )
        return capacity

    def _is_used(self, claim: Object) -> bool:
        metadata = claim["metadata"]
        return any(
            metadata["name"] in _claims_of(pod) and not has_ended(pod) for pod in self._pods.list(metadata["namespace"])
        )

    def _patch(self, claim: Object, change: Object, subresource: str | None = None) -> Object:
        return self._writer.patch(self._claims, claim, change, subresource=subresource, unchanged=False)

    def _set_status(self, claim: Object, status: Object) -> Object:
        return self._patch(claim, {"status": status}, subresource="status")

    def _patch_volume(self, volume: Object, change: Object, subresource: str | None = None) -> Object:
        return self._writer.patch(self._volumes, volume, change, subresource=subresource, unchanged=False)


def _released_by(old: Object | None, new: Object | None) -> list[Key]:
    """Return the claims of a Pod that doesn't need them any more."""
    pod = new or old or {}
    if new is not None and not has_ended(new):
        return []
    return [(pod["metadata"]["namespace"], name) for name in _claims_of(pod)]


def _claims_of(pod: Object) -> set[str]:
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or []
        if volume.get("persistentVolumeClaim")
    }


def _size(volume: Object) -> Any:
    return parse((volume["spec"].get("capacity") or {}).get("storage", 0))
