# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of local-path volumes: what a cluster's snapshot controller does, and the sidecar of a CSI driver.

A VolumeSnapshot gets a VolumeSnapshotContent, and that a copy of the volume's directory. Source of the rules:
Kubernetes documentation, "Volume Snapshots".
"""

import contextlib
from datetime import UTC, datetime

from turtles.api.objects import Object, annotations_of
from turtles.api.quantity import to_int
from turtles.api.times import now, rfc3339
from turtles.kube.client import Client, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import VOLUMESNAPSHOT, VOLUMESNAPSHOTCONTENT
from turtles.kube.writer import Writer
from turtles.standalone.local_path.copies import CopyError
from turtles.standalone.local_path.provisioner import PROVISIONER, Provisioner, is_provisioned
from turtles.standalone.local_path.snapshot_kinds import DEFAULT_CLASS
from turtles.standalone.local_path.sources import data_source

_BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
_AS_SOURCE = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
_CONTENT_BOUND = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
#: Seconds after which what failed is tried again, and after which a copy in progress is looked at.
_AGAIN, _SOON = 10.0, 0.5


class SnapshotController:
    """Gives VolumeSnapshots their content, and tells them how far it is."""

    def __init__(
        self,
        client: Client,
        recorder: Recorder,
        snapshots: Informer,
        contents: Informer,
        classes: Informer,
        claims: Informer,
        volumes: Informer,
    ) -> None:
        self._writer, self._recorder = Writer(client), recorder
        self._snapshots, self._contents, self._classes = snapshots, contents, classes
        self._claims, self._volumes = claims, volumes

    def controller(self) -> Controller:
        """Return what the manager runs."""
        triggers = [
            each(self._snapshots),
            Trigger(self._contents, _snapshot_of),
            Trigger(self._claims, self._for_claim),
            Trigger(self._classes, lambda _old, _new: [key_of(entry) for entry in self._snapshots.list()]),
        ]
        return Controller("snapshots", self.reconcile, triggers, reads=[self._volumes])

    def _for_claim(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return the snapshots of a claim, and the one that it is filled from."""
        claim = new or old or {}
        namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
        keys = [
            key_of(snapshot)
            for snapshot in self._snapshots.list(namespace)
            if snapshot["spec"]["source"].get("persistentVolumeClaimName") == name
        ]
        source = data_source(claim)
        return [*keys, (namespace, source["name"])] if source and source["kind"] == VOLUMESNAPSHOT.kind else keys

    def reconcile(self, key: Key) -> float | None:
        """Advance one VolumeSnapshot."""
        snapshot = self._snapshots.get(*key)
        if snapshot is None:
            return None
        if snapshot["metadata"].get("deletionTimestamp"):
            return self._release(snapshot)
        finalizers = snapshot["metadata"].get("finalizers") or []
        if missing := [name for name in (_AS_SOURCE, _BOUND) if name not in finalizers]:
            snapshot = self._patch(snapshot, {"metadata": {"finalizers": [*finalizers, *missing]}})
        content, why = self._content(snapshot)
        if content is None:
            self._fail(snapshot, why)
            return _AGAIN
        self._report(snapshot, content)
        return None

    def _content(self, snapshot: Object) -> tuple[Object | None, str]:
        """Return a snapshot's content, which is created if need be, or why it has none."""
        source = snapshot["spec"]["source"]
        name = source.get("volumeSnapshotContentName") or f"snapcontent-{snapshot['metadata']['uid']}"
        content = self._contents.get(None, name)
        if content is not None:
            if not _refers_to(content, snapshot):
                return None, f"VolumeSnapshotContent {name} belongs to another VolumeSnapshot"
            return self._bound(content, snapshot), ""
        if source.get("volumeSnapshotContentName"):
            return None, f"VolumeSnapshotContent {name} not found"
        return self._create(snapshot, name)

    def _create(self, snapshot: Object, name: str) -> tuple[Object | None, str]:
        metadata, spec = snapshot["metadata"], snapshot["spec"]
        claim_name = spec["source"]["persistentVolumeClaimName"]
        claim = self._claims.get(metadata["namespace"], claim_name)
        if claim is None:
            return None, f"PersistentVolumeClaim {claim_name} not found"
        volume = self._volumes.get(None, claim["spec"].get("volumeName") or "")
        if volume is None or (claim.get("status") or {}).get("phase") != "Bound":
            return None, f"PersistentVolumeClaim {claim_name} is not bound to a volume yet"
        if not is_provisioned(volume):
            return None, f"PersistentVolume {volume['metadata']['name']} isn't {PROVISIONER}'s and can't be snapshotted"
        of_class, why = self._class(spec.get("volumeSnapshotClassName"))
        if of_class is None:
            return None, why
        content: Object = {
            "apiVersion": VOLUMESNAPSHOTCONTENT.api_version,
            "kind": VOLUMESNAPSHOTCONTENT.kind,
            "metadata": {"name": name, "finalizers": [_CONTENT_BOUND]},
            "spec": {
                "deletionPolicy": of_class["deletionPolicy"],
                "driver": PROVISIONER,
                "source": {"volumeHandle": volume["metadata"]["name"]},
                "sourceVolumeMode": volume["spec"].get("volumeMode") or "Filesystem",
                "volumeSnapshotClassName": of_class["metadata"]["name"],
                "volumeSnapshotRef": {
                    "apiVersion": VOLUMESNAPSHOT.api_version,
                    "kind": VOLUMESNAPSHOT.kind,
                    **{key: metadata[key] for key in ("namespace", "name", "uid")},
                },
            },
        }
        created = self._writer.create_or_get(self._contents, content)
        if not spec.get("volumeSnapshotClassName"):
            self._patch(snapshot, {"spec": {"volumeSnapshotClassName": of_class["metadata"]["name"]}})
        return created, ""

    def _class(self, name: str | None) -> tuple[Object | None, str]:
        """Return the VolumeSnapshotClass of a name or, without, the default one; or what is wrong with it."""
        if name:
            of_class = self._classes.get(None, name)
            if of_class is None:
                return None, f"VolumeSnapshotClass {name} not found"
            if of_class.get("driver") != PROVISIONER:
                return None, f"VolumeSnapshotClass {name} uses the driver {of_class.get('driver')}, not {PROVISIONER}"
            return of_class, ""
        for of_class in self._classes.list():
            marks = annotations_of(of_class)
            if of_class.get("driver") == PROVISIONER and marks.get(DEFAULT_CLASS) == "true":
                return of_class, ""
        return None, f"no default VolumeSnapshotClass of {PROVISIONER}: set spec.volumeSnapshotClassName"

    def _bound(self, content: Object, snapshot: Object) -> Object:
        """Have a content that an administrator made for this snapshot name just this one."""
        reference = content["spec"]["volumeSnapshotRef"]
        if reference.get("uid"):
            return content
        change = {"spec": {"volumeSnapshotRef": {"uid": snapshot["metadata"]["uid"]}}}
        return self._writer.patch(self._contents, content, change)

    def _report(self, snapshot: Object, content: Object) -> None:
        """Write to a snapshot's status what its content's says."""
        old, of_content = snapshot.get("status") or {}, content.get("status") or {}
        new: Object = {
            "boundVolumeSnapshotContentName": content["metadata"]["name"],
            "readyToUse": bool(of_content.get("readyToUse")),
            "error": of_content.get("error"),
        }
        if of_content.get("creationTime"):
            new["creationTime"] = _time_of(of_content["creationTime"])
        if of_content.get("restoreSize") is not None:
            new["restoreSize"] = str(of_content["restoreSize"])
        change = {key: value for key, value in new.items() if old.get(key) != value}
        if not change:
            return
        self._patch(self._current(snapshot), {"status": change}, subresource="status")
        if new["readyToUse"]:
            name = snapshot["metadata"]["name"]
            self._recorder.event(snapshot, "Normal", "SnapshotReady", f"Snapshot {name} is ready to use.")
        elif new["error"]:
            self._recorder.event(snapshot, "Warning", "SnapshotCreationFailed", new["error"]["message"])

    def _fail(self, snapshot: Object, why: str) -> None:
        status = snapshot.get("status") or {}
        if (status.get("error") or {}).get("message") == why:
            return
        error = {"message": why, "time": now()}
        self._patch(snapshot, {"status": {"readyToUse": False, "error": error}}, subresource="status")
        self._recorder.event(snapshot, "Warning", "SnapshotContentMissing", why)

    def _release(self, snapshot: Object) -> float | None:
        """Let a deleted snapshot go: after claims that are to be filled from it, and with its content."""
        metadata = snapshot["metadata"]
        if any(_waits_for(claim, metadata["name"]) for claim in self._claims.list(metadata["namespace"])):
            return None
        name = (snapshot.get("status") or {}).get("boundVolumeSnapshotContentName") or f"snapcontent-{metadata['uid']}"
        content = self._contents.get(None, name)
        if content is not None and _refers_to(content, snapshot) and content["spec"]["deletionPolicy"] == "Delete":
            if not content["metadata"].get("deletionTimestamp"):
                self._writer.delete(self._contents, content)
            return None
        left = [entry for entry in metadata.get("finalizers") or [] if entry not in (_AS_SOURCE, _BOUND)]
        with contextlib.suppress(NotFound):
            self._patch(snapshot, {"metadata": {"finalizers": left}})
        return None

    def _current(self, snapshot: Object) -> Object:
        return self._snapshots.get(*key_of(snapshot)) or snapshot

    def _patch(self, snapshot: Object, change: Object, subresource: str | None = None) -> Object:
        unchanged = "finalizers" in change.get("metadata", {})
        return self._writer.patch(self._snapshots, snapshot, change, subresource=subresource, unchanged=unchanged)


class ContentController:
    """Makes the copies that contents stand for, and removes them."""

    def __init__(self, client: Client, provisioner: Provisioner, contents: Informer, volumes: Informer) -> None:
        self._client, self._writer, self._provisioner = client, Writer(client), provisioner
        self._contents, self._volumes = contents, volumes

    def controller(self) -> Controller:
        """Return what the manager runs."""
        return Controller("snapshot-contents", self.reconcile, [each(self._contents)], reads=[self._volumes], workers=2)

    def reconcile(self, key: Key) -> float | None:
        """Advance one VolumeSnapshotContent."""
        content = self._contents.get(*key)
        if content is None or content["spec"].get("driver") != PROVISIONER:
            return None
        if content["metadata"].get("deletionTimestamp"):
            return self._remove(content)
        status = content.get("status") or {}
        if status.get("readyToUse"):
            return None
        handle = content["spec"]["source"].get("snapshotHandle")
        size: int | None
        try:
            if handle:
                size = self._provisioner.snapshot_size(handle)
            else:
                handle = f"snapshot-{content['metadata']['uid']}"
                size = self._copy(content, handle)
                if size is None:
                    return _SOON
        except CopyError as error:
            if (status.get("error") or {}).get("message") != str(error):
                self._report(content, {"readyToUse": False, "error": {"message": str(error), "time": now()}})
            return _AGAIN
        done = {"readyToUse": True, "snapshotHandle": handle, "restoreSize": size, "error": None}
        self._report(content, {**done, "creationTime": int(datetime.now(UTC).timestamp() * 1e9)})
        return None

    def _copy(self, content: Object, handle: str) -> int | None:
        """Return the size of the volume that was copied; None until it is."""
        name = content["spec"]["source"]["volumeHandle"]
        volume = self._volumes.get(None, name)
        if volume is None or not is_provisioned(volume):
            raise CopyError(f"PersistentVolume {name} is gone, or was not provisioned by {PROVISIONER}")
        size = to_int(volume["spec"]["capacity"]["storage"])
        return size if self._provisioner.snapshot(volume, handle, size) else None

    def _remove(self, content: Object) -> float | None:
        metadata = content["metadata"]
        if content["spec"]["deletionPolicy"] == "Delete":
            if self._is_wanted(content):
                return _AGAIN
            handle = content["spec"]["source"].get("snapshotHandle") or f"snapshot-{metadata['uid']}"
            self._provisioner.remove_snapshot(handle)
        left = [entry for entry in metadata.get("finalizers") or [] if entry != _CONTENT_BOUND]
        with contextlib.suppress(NotFound):
            self._writer.patch(self._contents, content, {"metadata": {"finalizers": left}})
        return None

    def _is_wanted(self, content: Object) -> bool:
        """Say whether the snapshot of a content is still there, and not being deleted."""
        reference = content["spec"]["volumeSnapshotRef"]
        with contextlib.suppress(NotFound):
            snapshot = self._client.get(VOLUMESNAPSHOT, reference["namespace"], reference["name"])
            same = snapshot["metadata"]["uid"] == reference.get("uid")
            return bool(same and not snapshot["metadata"].get("deletionTimestamp"))
        return False

    def _report(self, content: Object, change: Object) -> None:
        with contextlib.suppress(NotFound):
            self._writer.patch(self._contents, content, {"status": change}, subresource="status", unchanged=False)


def _waits_for(claim: Object, name: str) -> bool:
    source = data_source(claim) or {}
    return (
        source.get("kind") == VOLUMESNAPSHOT.kind
        and source.get("name") == name
        and not claim["spec"].get("volumeName")
        and not claim["metadata"].get("deletionTimestamp")
    )


def _refers_to(content: Object, snapshot: Object) -> bool:
    reference, metadata = content["spec"]["volumeSnapshotRef"], snapshot["metadata"]
    return (
        all(reference.get(key) == metadata[key] for key in ("namespace", "name"))
        and (reference.get("uid") or metadata["uid"]) == metadata["uid"]
    )


def _snapshot_of(old: Object | None, new: Object | None) -> list[Key]:
    reference = (new or old or {})["spec"]["volumeSnapshotRef"]
    return [(reference.get("namespace") or "", reference.get("name") or "")]


def _time_of(nanoseconds: int) -> str:
    return rfc3339(datetime.fromtimestamp(nanoseconds / 1e9, UTC))
