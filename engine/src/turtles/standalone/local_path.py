# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumes that are directories of this machine, for claims of the StorageClass ``local-path``.

Does what Kubernetes' persistent volume controller, its protection controllers and a provisioner do on a cluster, as
far as one machine needs it: default class, binding to existing volumes, WaitForFirstConsumer, growing, reclaiming.
"""

import contextlib
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from turtles.kube.client import AlreadyExists, Client, NotFound
from turtles.kube.controller import run_workers
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import PV, PVC, STORAGECLASS
from turtles.standalone import binding
from turtles.standalone.podrunner.files import remove_tree
from turtles.standalone.podrunner.quantity import parse
from turtles.standalone.scheduler import SELECTED_NODE, finished, is_default

log = logging.getLogger(__name__)

Object = dict[str, Any]

PROVISIONER = "turtles.kubevirt/local-path"
CLASS = "local-path"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
_VOLUME_FINALIZER = "kubernetes.io/pv-protection"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_AGAIN = 30.0


class ProvisioningError(Exception):
    """A claim can't be served now; the text names what to change."""


def directory_name(claim: Object) -> str:
    """Return the name of a claim's directory: unique by uid, readable by namespace and name."""
    metadata = claim["metadata"]
    return f"pvc-{metadata['uid']}_{metadata['namespace']}_{metadata['name']}"


def volume_for(claim: Object, storage_class: Object, path: Path, node: str) -> Object:
    """Return the PersistentVolume made for a claim."""
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{metadata['uid']}",
            "annotations": {_PROVISIONED_BY: PROVISIONER},
            "finalizers": [_VOLUME_FINALIZER],
        },
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "claimRef": binding.reference_to(claim),
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": "Filesystem",
            "local": {"path": str(path)},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
                    ]
                }
            },
        },
    }


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


class LocalPath:
    """Serves claims from a directory.

    :param volumes_dir: where volumes' directories are made.
    """

    def __init__(
        self,
        client: Client,
        recorder: Recorder,
        volumes_dir: Path,
        pods: Informer,
        claims: Informer,
        volumes: Informer,
        classes: Informer,
        nodes: Informer,
    ) -> None:
        self._client, self._recorder, self._dir = client, recorder, volumes_dir
        self._pods, self._claims, self._volumes = pods, claims, volumes
        self._classes, self._nodes = classes, nodes
        self._queue: WorkQueue[tuple[str, str, str]] = WorkQueue("volumes")

    def start(self) -> None:
        """Begin; the informers are synchronised."""
        # Pods see their own volume where it is mounted; the machine's other users see none.
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._dir.chmod(0o700)
        self.ensure_class()
        run_workers(self._queue, self.sync, 2, "volumes")
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)
        self._pods.add_handler(self._pod_changed)
        self._classes.add_handler(self._class_changed)

    def stop(self) -> None:
        """Stop."""
        self._queue.close()

    def ensure_class(self) -> None:
        """Create the StorageClass if there is none of its name; it is the default if no other one is."""
        if self._classes.get(None, CLASS) is not None:
            return
        default = not any(is_default(entry) for entry in self._classes.list())
        with contextlib.suppress(AlreadyExists):
            self._client.create(
                STORAGECLASS,
                {
                    "apiVersion": "storage.k8s.io/v1",
                    "kind": "StorageClass",
                    "metadata": {"name": CLASS, "annotations": {_DEFAULT_CLASS: "true" if default else "false"}},
                    "provisioner": PROVISIONER,
                    "reclaimPolicy": "Delete",
                    "volumeBindingMode": "WaitForFirstConsumer",
                    "allowVolumeExpansion": True,
                },
            )

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        claim = new or old
        if claim is not None:
            metadata = claim["metadata"]
            self._queue.add(("claim", metadata["namespace"], metadata["name"]))
            if claim["spec"].get("volumeName"):
                self._queue.add(("volume", "", claim["spec"]["volumeName"]))

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        volume = new or old
        if volume is not None:
            self._queue.add(("volume", "", volume["metadata"]["name"]))
            for claim in self._claims.list():
                if claim["spec"].get("volumeName") in (None, "", volume["metadata"]["name"]):
                    self._queue.add(("claim", claim["metadata"]["namespace"], claim["metadata"]["name"]))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None or finished(new):
            pod = new or old or {}
            for name in _claims_of(pod):
                self._queue.add(("claim", pod["metadata"]["namespace"], name))

    def _class_changed(self, _old: Object | None, new: Object | None) -> None:
        for claim in self._claims.list() if new is not None else ():
            if not claim["spec"].get("volumeName"):
                self._queue.add(("claim", claim["metadata"]["namespace"], claim["metadata"]["name"]))

    def sync(self, key: tuple[str, str, str]) -> float | None:
        """Bring one claim or volume a step further."""
        kind, namespace, name = key
        if kind == "claim":
            claim = self._claims.get(namespace, name)
            return None if claim is None else self._sync_claim(claim)
        volume = self._volumes.get(None, name)
        if volume is not None:
            self._sync_volume(volume)
        return None

    # --- claims ------------------------------------------------------------------------------------------------------

    def _sync_claim(self, claim: Object) -> float | None:
        metadata, spec = claim["metadata"], claim["spec"]
        finalizers = metadata.get("finalizers") or []
        if metadata.get("deletionTimestamp"):
            if _CLAIM_FINALIZER in finalizers and not self._used(claim):
                self._patch_claim(
                    claim,
                    {
                        "metadata": {
                            "finalizers": [entry for entry in finalizers if entry != _CLAIM_FINALIZER],
                            "resourceVersion": metadata["resourceVersion"],
                        }
                    },
                )
            return None
        change: Object = {}
        if _CLAIM_FINALIZER not in finalizers:
            change["metadata"] = {
                "finalizers": [*finalizers, _CLAIM_FINALIZER],
                "resourceVersion": metadata["resourceVersion"],
            }
        if spec.get("storageClassName") is None:
            default = next((entry for entry in self._classes.list() if is_default(entry)), None)
            if default is not None:
                change["spec"] = {"storageClassName": default["metadata"]["name"]}
        if change:
            claim = self._patch_claim(claim, change)
            spec = claim["spec"]
        if spec.get("volumeName"):
            volume = self._volumes.get(None, spec["volumeName"])
            if volume is None:
                if (claim.get("status") or {}).get("phase") == "Bound":
                    self._set_status(claim, {"phase": "Lost"})
                return None
            # A volume that lost its claimRef is bound again to the claim that had it, which its status tells: no tenant
            # writes that.
            regained = not volume["spec"].get("claimRef") and (claim.get("status") or {}).get("phase") == "Bound"
            if not regained and not binding.is_bound_to(volume, claim) and not suits(volume, claim):
                self._refuse(claim, volume)
                return None
            self._bind(claim, volume)
            return None
        volume = next((entry for entry in sorted(self._volumes.list(), key=_size) if suits(entry, claim)), None)
        if volume is not None:
            self._bind(claim, volume)
            return None
        return self._provision_if_wanted(claim)

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
                    (f'volume "{name}" belongs to {binding.holder(volume, claim)}: this claim is bound incorrectly'),
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

    def _provision_if_wanted(self, claim: Object) -> float | None:
        if not (claim.get("status") or {}).get("phase"):
            claim = self._set_status(claim, {"phase": "Pending"})
        name = claim["spec"].get("storageClassName") or ""
        storage_class = self._classes.get(None, name)
        if storage_class is None or storage_class.get("provisioner") != PROVISIONER:
            return None
        node = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
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
            volume = self._provision(claim, storage_class, node)
        except ProvisioningError as error:
            self._recorder.event(claim, "Warning", "ProvisioningFailed", str(error))
            return _AGAIN
        self._bind(claim, volume)
        return None

    def _provision(self, claim: Object, storage_class: Object, node: str) -> Object:
        """Make the directory and the volume.

        :raises ProvisioningError: not enough room, or a kind of volume that a directory can't be.
        """
        spec, metadata = claim["spec"], claim["metadata"]
        if (spec.get("volumeMode") or "Filesystem") != "Filesystem":
            raise ProvisioningError(
                f"StorageClass {storage_class['metadata']['name']} makes directories: "
                f"volumeMode {spec['volumeMode']} is not possible, use Filesystem"
            )
        if spec.get("dataSource") or spec.get("dataSourceRef"):
            raise ProvisioningError("a data source is not supported by this StorageClass")
        wanted, free = int(parse(spec["resources"]["requests"]["storage"])), shutil.disk_usage(self._dir).free
        if wanted > free:
            raise ProvisioningError(
                f"{wanted >> 20} MiB are requested and {free >> 20} MiB are free in {self._dir}: "
                "request less or make room"
            )
        path = self._dir / directory_name(claim)
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
        volume = volume_for(claim, storage_class, path, node)
        try:
            created = self._client.create(PV, volume)
        except AlreadyExists:
            present = self._client.get(PV, None, volume["metadata"]["name"])
            if not binding.is_bound_to(present, claim):
                raise ProvisioningError(
                    f"PersistentVolume {volume['metadata']['name']} is there already and belongs to "
                    f"{binding.holder(present, claim)}: delete it, or create the claim again"
                ) from None
            return present
        self._recorder.event(
            claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {volume['metadata']['name']}"
        )
        log.info(
            "volume provisioned", extra={"claim": f"{metadata['namespace']}/{metadata['name']}", "path": str(path)}
        )
        return created

    def _bind(self, claim: Object, volume: Object) -> None:
        metadata, name = claim["metadata"], volume["metadata"]["name"]
        if not binding.is_bound_to(volume, claim):
            volume = self._observe_volume(
                self._client.patch(
                    PV,
                    None,
                    name,
                    {
                        "metadata": {"resourceVersion": volume["metadata"]["resourceVersion"]},
                        "spec": {"claimRef": binding.reference_to(claim)},
                    },
                )
            )
        if (volume.get("status") or {}).get("phase") != "Bound":
            self._observe_volume(
                self._client.patch(PV, None, name, {"status": {"phase": "Bound"}}, subresource="status")
            )
        annotations = metadata.get("annotations") or {}
        if claim["spec"].get("volumeName") != name or "pv.kubernetes.io/bind-completed" not in annotations:
            claim = self._patch_claim(
                claim,
                {
                    "metadata": {
                        "annotations": {
                            "pv.kubernetes.io/bind-completed": "yes",
                            "pv.kubernetes.io/bound-by-controller": "yes",
                        }
                    },
                    "spec": {"volumeName": name},
                },
            )
        capacity = dict(volume["spec"]["capacity"])
        wanted = claim["spec"]["resources"]["requests"]["storage"]
        ours = (volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER
        if ours and parse(wanted) > parse(capacity["storage"]):
            if parse(wanted) > shutil.disk_usage(self._dir).free:
                self._recorder.event(claim, "Warning", "VolumeResizeFailed", f"there is no room for {wanted}")
            else:
                capacity["storage"] = wanted
                self._observe_volume(self._client.patch(PV, None, name, {"spec": {"capacity": capacity}}))
        status = {"phase": "Bound", "accessModes": volume["spec"]["accessModes"], "capacity": capacity}
        have = claim.get("status") or {}
        if any(have.get(key) != value for key, value in status.items()):
            self._set_status(claim, status)

    def _used(self, claim: Object) -> bool:
        metadata = claim["metadata"]
        return any(
            metadata["name"] in _claims_of(pod) and not finished(pod) for pod in self._pods.list(metadata["namespace"])
        )

    def _patch_claim(self, claim: Object, change: Object) -> Object:
        metadata = claim["metadata"]
        new = self._client.patch(PVC, metadata["namespace"], metadata["name"], change)
        self._claims.observe(new)
        return new

    def _set_status(self, claim: Object, status: Object) -> Object:
        metadata = claim["metadata"]
        new = self._client.patch(PVC, metadata["namespace"], metadata["name"], {"status": status}, subresource="status")
        self._claims.observe(new)
        return new

    def _observe_volume(self, volume: Object) -> Object:
        self._volumes.observe(volume)
        return volume

    # --- volumes -----------------------------------------------------------------------------------------------------

    def _sync_volume(self, volume: Object) -> None:
        metadata, spec = volume["metadata"], volume["spec"]
        reference = spec.get("claimRef")
        claim = None
        if reference is not None and reference.get("uid"):
            # Deleting data is decided by the server's word, not by a cache that may be behind.
            with contextlib.suppress(NotFound):
                claim = self._client.get(PVC, reference["namespace"], reference["name"])
                if claim["metadata"]["uid"] != reference["uid"]:
                    claim = None
            if claim is None:
                self._reclaim(volume)
                return
        if claim is None and metadata.get("deletionTimestamp"):
            self._let_go(volume)
            return
        phase = (volume.get("status") or {}).get("phase")
        # Also one that was bound before: an administrator frees it by taking its claimRef away.
        wanted = "Available" if reference is None else phase or "Pending"
        if phase != wanted:
            self._observe_volume(
                self._client.patch(
                    PV,
                    None,
                    metadata["name"],
                    {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"phase": wanted}},
                    subresource="status",
                )
            )

    def _reclaim(self, volume: Object) -> None:
        metadata, spec = volume["metadata"], volume["spec"]
        if (volume.get("status") or {}).get("phase") != "Released":
            volume = self._client.patch(
                PV, None, metadata["name"], {"status": {"phase": "Released"}}, subresource="status"
            )
            self._observe_volume(volume)
        ours = (metadata.get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER
        if ours and spec.get("persistentVolumeReclaimPolicy") == "Delete":
            path = Path((spec.get("local") or {}).get("path") or "/")
            if path.parent == self._dir and re.fullmatch(r"pvc-[0-9a-f-]{36}_[a-z0-9.-]+_[a-z0-9.-]+", path.name):
                remove_tree(path)
            else:
                log.warning("directory of a volume left alone: it is not one of ours", extra={"path": str(path)})
            if not metadata.get("deletionTimestamp"):
                with contextlib.suppress(NotFound):
                    self._client.delete(PV, None, metadata["name"], uid=metadata["uid"])
            self._let_go(volume)
        elif metadata.get("deletionTimestamp"):
            self._let_go(volume)

    def _let_go(self, volume: Object) -> None:
        finalizers = [entry for entry in volume["metadata"].get("finalizers") or [] if entry != _VOLUME_FINALIZER]
        with contextlib.suppress(NotFound):
            self._client.patch(PV, None, volume["metadata"]["name"], {"metadata": {"finalizers": finalizers}})


def _claims_of(pod: Object) -> set[str]:
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or []
        if volume.get("persistentVolumeClaim")
    }


def _size(volume: Object) -> Any:
    return parse((volume["spec"].get("capacity") or {}).get("storage", 0))
