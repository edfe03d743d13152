# SPDX-License-Identifier: GPL-3.0-or-later
"""The phase of PersistentVolumes, and what becomes of them when their claim is gone."""

import contextlib

from turtles.api.objects import Object
from turtles.kube.client import Client, NotFound
from turtles.kube.informer import Informer, Key
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import PVC
from turtles.kube.writer import Writer
from turtles.standalone.local_path.provisioner import Provisioner, is_provisioned
from turtles.standalone.well_known import PV_PROTECTION


class VolumeController:
    """Sets phases of volumes and reclaims those whose claim is gone."""

    def __init__(self, client: Client, provisioner: Provisioner, claims: Informer, volumes: Informer) -> None:
        self._client, self._writer, self._provisioner = client, Writer(client), provisioner
        self._claims, self._volumes = claims, volumes

    def controller(self) -> Controller:
        """Return what the manager runs."""
        return Controller("volumes", self.reconcile, [each(self._volumes), Trigger(self._claims, _named_by)], workers=1)

    def reconcile(self, key: Key) -> None:
        """Advance one volume."""
        volume = self._volumes.get(*key)
        if volume is None:
            return
        metadata, reference = volume["metadata"], volume["spec"].get("claimRef")
        if reference is not None and reference.get("uid"):
            if not self._exists(reference):
                self._reclaim(volume)
                return
        elif metadata.get("deletionTimestamp"):
            self._release(volume)
            return
        phase = (volume.get("status") or {}).get("phase")
        # Also one that was bound before: an administrator frees it by taking its claimRef away.
        wanted = "Available" if reference is None else phase or "Pending"
        if phase != wanted:
            self._writer.patch(self._volumes, volume, {"status": {"phase": wanted}}, subresource="status")

    def _exists(self, reference: Object) -> bool:
        # Asks the server: the cache may be behind, and data is deleted if the claim is gone.
        with contextlib.suppress(NotFound):
            claim = self._client.get(PVC, reference["namespace"], reference["name"])
            return bool(claim["metadata"]["uid"] == reference["uid"])
        return False

    def _reclaim(self, volume: Object) -> None:
        metadata = volume["metadata"]
        if (volume.get("status") or {}).get("phase") != "Released":
            change = {"status": {"phase": "Released"}}
            volume = self._writer.patch(self._volumes, volume, change, subresource="status", unchanged=False)
        if is_provisioned(volume) and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            self._provisioner.remove(volume)
            if not metadata.get("deletionTimestamp"):
                self._writer.delete(self._volumes, volume)
            self._release(volume)
        elif metadata.get("deletionTimestamp"):
            self._release(volume)

    def _release(self, volume: Object) -> None:
        """Remove the finalizer that keeps a deleted volume."""
        finalizers = [entry for entry in volume["metadata"].get("finalizers") or [] if entry != PV_PROTECTION]
        with contextlib.suppress(NotFound):
            self._writer.patch(self._volumes, volume, {"metadata": {"finalizers": finalizers}}, unchanged=False)


def _named_by(old: Object | None, new: Object | None) -> list[Key]:
    name = (new or old or {})["spec"].get("volumeName")
    return [("", name)] if name else []
