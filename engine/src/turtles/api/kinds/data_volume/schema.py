# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a DataVolume (CDI API reference, cdi.kubevirt.io/v1beta1)."""

from __future__ import annotations

from turtles.api.core import LABEL_SELECTOR
from turtles.api.language import (
    BOOLEAN,
    EMPTY_OR_STRING,
    INT32,
    QUANTITY,
    STRING,
    STRINGS,
    TIME,
    Choice,
    Field,
    ListOf,
    MapOf,
    Struct,
    field,
    group,
    unsupported,
)

_RESOURCES = Struct(
    "Requested storage.",
    field("requests", MapOf(QUANTITY), "Requested amounts: storage."),
    field("limits", MapOf(QUANTITY), "Limits: storage."),
)


def _claim(doc: str, *more: Field) -> Struct:
    return Struct(
        doc,
        field("accessModes", STRINGS, "How the volume is used: ReadWriteOnce, ReadOnlyMany, ReadWriteMany."),
        field("resources", _RESOURCES, "Requested storage."),
        field("storageClassName", STRING, "The StorageClass; the default one if not given."),
        field(
            "volumeMode", Choice("Filesystem", "Block"), "Whether the volume has a file system.", absent="Filesystem"
        ),
        field("selector", LABEL_SELECTOR, "Labels of the PersistentVolume to bind to."),
        field("volumeName", STRING, "The PersistentVolume to bind to."),
        unsupported("dataSource", "Who provides the content in place of the importer."),
        unsupported("dataSourceRef", "Who provides the content in place of the importer."),
        *more,
    )


_HTTP = Struct(
    "A server's file.",
    field("url", STRING, "Its address, with http or https.", required=True),
    field("secretRef", STRING, "Secret with user (accessKeyId) and password (secretKey), for basic authentication."),
    field("certConfigMap", STRING, "ConfigMap with the certificate authorities to verify the server with."),
    field("extraHeaders", STRINGS, "Additional request headers, such as `Accept: application/octet-stream`."),
    field("secretExtraHeaders", STRINGS, "Secrets whose values are additional request headers."),
    field("checksum", STRING, "Checksum of the file, such as `sha256:…`; md5, sha1, sha256 or sha512."),
    field("insecureSkipVerify", BOOLEAN, "Don't verify the server's certificate."),
)

_S3 = Struct(
    "An object in a bucket.",
    field("url", STRING, "Its address, such as https://s3.example.com/bucket/disk.qcow2.", required=True),
    field("secretRef", STRING, "Secret with accessKeyId and secretKey; without it, requests aren't signed."),
    field("certConfigMap", STRING, "ConfigMap with the certificate authorities to verify the server with."),
)

_GCS = Struct(
    "A publicly readable object in a bucket of Google Cloud Storage.",
    field("url", STRING, "Its address: gs://bucket/object, or with https.", required=True),
    unsupported(
        "secretRef",
        "Key of a service account.",
        refusal="{path} is not supported by this engine; use the source s3 with an HMAC key of the service account, "
        "and the address https://storage.googleapis.com/BUCKET/OBJECT",
    ),
)

_REGISTRY = Struct(
    "A container image with one disk image in /disk.",
    field("url", STRING, "Its reference after docker://; on one machine also oci-archive: and a file.", required=True),
    field(
        "pullMethod",
        STRING,
        "Who pulls it: node, with its own settings for registries, or pod, which is the importer. If not given, the "
        "importer does where credentials, authorities or a platform are given, or nodes don't mount images.",
    ),
    unsupported("imageStream", "An image stream of OpenShift."),
    field("secretRef", STRING, "Secret with user (accessKeyId) and password (secretKey), for the importer."),
    field("certConfigMap", STRING, "ConfigMap with the authorities that the importer verifies the registry by."),
    group(
        "platform",
        "The platform of the image that the importer pulls.",
        field("architecture", STRING, "Such as arm64; the importer's own if not given."),
    ),
)

PVC = Struct(
    "A claim.",
    field("namespace", STRING, "Its namespace.", required=True),
    field("name", STRING, "Its name.", required=True),
)

SNAPSHOT = Struct(
    "A VolumeSnapshot.",
    field("namespace", STRING, "Its namespace.", required=True),
    field("name", STRING, "Its name.", required=True),
)

_SOURCE_REF = Struct(
    "A DataSource.",
    field("kind", STRING, "DataSource.", required=True),
    field("namespace", STRING, "Its namespace; by default the DataVolume's."),
    field("name", STRING, "Its name.", required=True),
)

_IMPORTED = (
    field("http", _HTTP, "A disk image on a server."),
    group("blank", "An empty disk."),
    field("registry", _REGISTRY, "A disk image in a container image."),
    field("s3", _S3, "An object in a bucket."),
    field("gcs", _GCS, "An object in a bucket of Google Cloud Storage."),
    unsupported("imageio", "A disk of oVirt."),
    unsupported("vddk", "A disk of VMware."),
)
_EXACTLY_ONE = "The source of the content: exactly one of these fields."

#: Of a VolumeImportSource.
IMPORT_SOURCE = Struct(_EXACTLY_ONE, *_IMPORTED)
_SOURCE = Struct(
    _EXACTLY_ONE,
    *_IMPORTED,
    field("pvc", PVC, "Another claim to copy the disk from."),
    field("snapshot", SNAPSHOT, "A VolumeSnapshot to restore the disk from."),
    group("upload", "An image uploaded by a client, such as `virtctl image-upload`."),
)

SPEC = Struct(
    "The claim and the source of its content. Immutable.",
    field("source", _SOURCE, "The source of the content."),
    field("sourceRef", _SOURCE_REF, "A DataSource that refers to the source of the content."),
    field("pvc", _claim("The claim, as it is created."), "The claim, as it is created."),
    field(
        "storage",
        _claim("The claim, completed with defaults for its StorageClass."),
        "The claim, completed with what its StorageClass can do, and enlarged by what a file system needs for itself.",
    ),
    field(
        "contentType",
        STRING,
        "What the content is: kubevirt, a disk, or archive, a tar archive whose files the claim gets.",
        absent="kubevirt",
    ),
    field("preallocation", BOOLEAN, "Preallocate the disk's storage."),
    field("priorityClassName", STRING, "Priority class of the importer's Pod."),
    unsupported("serviceAccountName", "Service account of the importer's Pod."),
    unsupported("checkpoints", "Snapshots of a disk that is imported in several steps."),
    unsupported("finalCheckpoint", "Whether the last of several steps has been given.", neutral=(False,)),
)

CONDITIONS = ListOf(
    Struct(
        "A condition.",
        field("type", STRING, "Which one, such as Ready.", required=True),
        field("status", STRING, "True, False or Unknown.", required=True),
        field("reason", EMPTY_OR_STRING, "Why, in one word."),
        field("message", EMPTY_OR_STRING, "Why, for humans."),
        field("lastTransitionTime", TIME, "When the status last changed."),
        field("lastHeartbeatTime", TIME, "When it was last confirmed."),
    )
)

STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("claimName", STRING, "The claim's name."),
    field("phase", STRING, "The current phase."),
    field("progress", STRING, "Progress in percent, or N/A."),
    field("restartCount", INT32, "How many times the importer was restarted."),
    field("conditions", CONDITIONS, "Conditions of the claim and of the importer."),
)
