# SPDX-License-Identifier: GPL-3.0-or-later
"""What a claim is to be filled from: a snapshot, or another claim.

Source of the rules: Kubernetes documentation, "Volume Snapshots" and "CSI Volume Cloning".
"""

from dataclasses import dataclass
from pathlib import Path

from turtles.api.objects import Object
from turtles.api.quantity import to_int
from turtles.kube.client import Client, NotFound
from turtles.kube.resources import PV, PVC, VOLUMESNAPSHOT, VOLUMESNAPSHOTCONTENT
from turtles.standalone import binding

_SNAPSHOT = (VOLUMESNAPSHOT.group, VOLUMESNAPSHOT.kind)
_CLAIM = ("", PVC.kind)


class SourceError(Exception):
    """A claim can't be filled from what it names, or not yet; the message says why."""


@dataclass(frozen=True)
class Source:
    """A snapshot or a volume that a claim is filled from.

    :param handle: of the snapshot; empty for a volume. :param path: of the volume.
    :param size: bytes that the claim has to request at least. :param mode: its volumeMode.
    """

    what: str
    size: int
    handle: str = ""
    path: Path | None = None
    mode: str = "Filesystem"


def data_source(claim: Object) -> Object | None:
    """Return what a claim names: kind, name and, if it isn't the core one, apiGroup."""
    spec = claim["spec"]
    return spec.get("dataSourceRef") or spec.get("dataSource") or None


def populator(claim: Object) -> str:
    """Return the kind of what a claim names, with its group, if somebody else fills such claims; empty if not.

    That one binds the claim to a volume, and nothing is to be provisioned (KEP-1495, "Generic data populators").
    """
    named = data_source(claim) or {}
    group = named.get("apiGroup") or ""
    return f"{named.get('kind')}.{group}" if group not in ("", _SNAPSHOT[0]) else ""


def find(client: Client, claim: Object, provisioner: str) -> Source | None:
    """Return what a claim is to be filled from, None if it is to be empty.

    :param provisioner: the driver that the snapshot or the volume has to be of.
    :raises SourceError: it isn't there, isn't ready, or is somebody else's.
    """
    named = data_source(claim)
    if named is None:
        return None
    namespace, name = claim["metadata"]["namespace"], named["name"]
    if named.get("namespace") not in (None, "", namespace):
        raise SourceError(f"spec.dataSourceRef.namespace: {named['namespace']} is another namespace; use {namespace}")
    kind = (named.get("apiGroup") or "", named["kind"])
    if kind == _SNAPSHOT:
        return _of_snapshot(client, namespace, name, provisioner)
    if kind == _CLAIM:
        return _of_claim(client, namespace, name)
    raise SourceError(
        f"spec.dataSourceRef: a {'/'.join(filter(None, kind))} can't populate a volume; name a VolumeSnapshot of "
        f"{_SNAPSHOT[0]} or a PersistentVolumeClaim"
    )


def _of_snapshot(client: Client, namespace: str, name: str, provisioner: str) -> Source:
    what = f"VolumeSnapshot {name}"
    try:
        snapshot = client.get(VOLUMESNAPSHOT, namespace, name)
        status = snapshot.get("status") or {}
        if not status.get("readyToUse"):
            raise SourceError(f"{what} is not ready to use")
        content = client.get(VOLUMESNAPSHOTCONTENT, None, status["boundVolumeSnapshotContentName"])
    except NotFound as error:
        raise SourceError(f"{what} not found, or its content") from error
    reference, of_content = content["spec"]["volumeSnapshotRef"], content.get("status") or {}
    if reference.get("uid") != snapshot["metadata"]["uid"]:
        raise SourceError(f"{what} has the content of another VolumeSnapshot")
    if content["spec"]["driver"] != provisioner or not of_content.get("snapshotHandle"):
        raise SourceError(f"{what} was not provisioned by {provisioner}")
    mode = content["spec"].get("sourceVolumeMode") or "Filesystem"
    return Source(what, int(of_content.get("restoreSize") or 0), handle=of_content["snapshotHandle"], mode=mode)


def _of_claim(client: Client, namespace: str, name: str) -> Source:
    what = f"PersistentVolumeClaim {name}"
    try:
        claim = client.get(PVC, namespace, name)
        volume = client.get(PV, None, claim["spec"].get("volumeName") or "")
    except (NotFound, ValueError) as error:
        raise SourceError(f"{what} not found, or not bound to a volume") from error
    path = (volume["spec"].get("local") or {}).get("path")
    if not binding.is_bound_to(volume, claim) or not path:
        raise SourceError(f"{what} is not bound to a local volume")
    mode = volume["spec"].get("volumeMode") or "Filesystem"
    return Source(what, to_int(volume["spec"]["capacity"]["storage"]), path=Path(path), mode=mode)
