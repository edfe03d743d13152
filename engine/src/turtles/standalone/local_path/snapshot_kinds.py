# SPDX-License-Identifier: GPL-3.0-or-later
"""CustomResourceDefinitions of volume snapshots, and the VolumeSnapshotClass ``local-path``.

Source of names and meanings: Kubernetes documentation, "Volume Snapshots"; snapshot.storage.k8s.io/v1.
"""

from typing import Any

from turtles.api.objects import Object
from turtles.kube.resources import VOLUMESNAPSHOT, VOLUMESNAPSHOTCLASS, VOLUMESNAPSHOTCONTENT, Resource

DEFAULT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"

_Schema = dict[str, Any]
_STRING: _Schema = {"type": "string"}
_NAME: _Schema = {"type": "string", "minLength": 1}
_TIME: _Schema = {"type": "string", "format": "date-time"}
_INTEGER: _Schema = {"type": "integer", "format": "int64"}
_BOOLEAN: _Schema = {"type": "boolean"}
_POLICY: _Schema = {"type": "string", "enum": ["Delete", "Retain"]}
_QUANTITY: _Schema = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
_ERROR: _Schema = {"type": "object", "properties": {"message": _STRING, "time": _TIME}}


def _struct(*required: str, **properties: _Schema) -> _Schema:
    schema: _Schema = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _one_of(message: str, **properties: _Schema) -> _Schema:
    """Return the schema of an object that has exactly one of the properties, for good."""
    exactly = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in properties)
    rules = [
        {"rule": f"{exactly} == 1", "message": message},
        {"rule": "self == oldSelf", "message": "is immutable"},
    ]
    return {**_struct(**properties), "x-kubernetes-validations": rules}


_SNAPSHOT = {
    "spec": _struct(
        "source",
        source=_one_of(
            "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set",
            persistentVolumeClaimName=_NAME,
            volumeSnapshotContentName=_NAME,
        ),
        volumeSnapshotClassName=_STRING,
    ),
    "status": _struct(
        boundVolumeSnapshotContentName=_STRING,
        creationTime=_TIME,
        error=_ERROR,
        readyToUse=_BOOLEAN,
        restoreSize=_QUANTITY,
        volumeGroupSnapshotName=_STRING,
    ),
}
_REFERENCE = _struct(
    apiVersion=_STRING,
    fieldPath=_STRING,
    kind=_STRING,
    name=_STRING,
    namespace=_STRING,
    resourceVersion=_STRING,
    uid=_STRING,
)
_CONTENT = {
    "spec": _struct(
        "deletionPolicy",
        "driver",
        "source",
        "volumeSnapshotRef",
        deletionPolicy=_POLICY,
        driver=_STRING,
        source=_one_of(
            "exactly one of volumeHandle and snapshotHandle must be set", snapshotHandle=_NAME, volumeHandle=_NAME
        ),
        sourceVolumeMode=_STRING,
        volumeSnapshotClassName=_STRING,
        volumeSnapshotRef=_REFERENCE,
    ),
    "status": _struct(
        creationTime=_INTEGER,
        error=_ERROR,
        readyToUse=_BOOLEAN,
        restoreSize={**_INTEGER, "minimum": 0},
        snapshotHandle=_STRING,
        volumeGroupSnapshotHandle=_STRING,
    ),
}
_CLASS = {
    "deletionPolicy": _POLICY,
    "driver": _STRING,
    "parameters": {"type": "object", "additionalProperties": _STRING},
}

_AGE = ("Age", "date", ".metadata.creationTimestamp")


def crds() -> list[Object]:
    """Return the definitions of the three kinds."""
    return [
        _crd(
            VOLUMESNAPSHOT,
            "vs",
            _struct("spec", **_SNAPSHOT),
            ("ReadyToUse", "boolean", ".status.readyToUse"),
            ("SourcePVC", "string", ".spec.source.persistentVolumeClaimName"),
            ("SourceSnapshotContent", "string", ".spec.source.volumeSnapshotContentName"),
            ("RestoreSize", "string", ".status.restoreSize"),
            ("SnapshotClass", "string", ".spec.volumeSnapshotClassName"),
            ("SnapshotContent", "string", ".status.boundVolumeSnapshotContentName"),
            ("CreationTime", "date", ".status.creationTime"),
            _AGE,
        ),
        _crd(
            VOLUMESNAPSHOTCONTENT,
            "vsc",
            _struct("spec", **_CONTENT),
            ("ReadyToUse", "boolean", ".status.readyToUse"),
            ("RestoreSize", "integer", ".status.restoreSize"),
            ("DeletionPolicy", "string", ".spec.deletionPolicy"),
            ("Driver", "string", ".spec.driver"),
            ("VolumeSnapshotClass", "string", ".spec.volumeSnapshotClassName"),
            ("VolumeSnapshot", "string", ".spec.volumeSnapshotRef.name"),
            ("VolumeSnapshotNamespace", "string", ".spec.volumeSnapshotRef.namespace"),
            _AGE,
        ),
        _crd(
            VOLUMESNAPSHOTCLASS,
            "vsclass",
            _struct("deletionPolicy", "driver", **_CLASS),
            ("Driver", "string", ".driver"),
            ("DeletionPolicy", "string", ".deletionPolicy"),
            _AGE,
        ),
    ]


def snapshot_class(name: str, driver: str) -> Object:
    """Return the VolumeSnapshotClass that snapshots of a driver's volumes get if they name none."""
    return {
        "apiVersion": VOLUMESNAPSHOTCLASS.api_version,
        "kind": VOLUMESNAPSHOTCLASS.kind,
        "metadata": {"name": name, "annotations": {DEFAULT_CLASS: "true"}},
        "driver": driver,
        "deletionPolicy": "Delete",
    }


def _crd(resource: Resource, short: str, schema: _Schema, *columns: tuple[str, str, str]) -> Object:
    properties = {"apiVersion": _STRING, "kind": _STRING, "metadata": {"type": "object"}, **schema["properties"]}
    version: Object = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {**schema, "properties": properties}},
        "additionalPrinterColumns": [{"name": name, "type": type_, "jsonPath": path} for name, type_, path in columns],
    }
    if "status" in schema["properties"]:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            # What the group's definitions have to have (KEP-1111): where the API was reviewed
            "annotations": {
                "api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814"
            },
        },
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [short, f"{short}es" if short.endswith("s") and len(short) > 2 else f"{short}s"],
            },
            "versions": [version],
        },
    }
