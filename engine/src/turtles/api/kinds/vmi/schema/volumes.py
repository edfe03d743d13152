# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes: what backs disks and filesystems."""

from __future__ import annotations

from turtles.api.core import LOCAL_REFERENCE
from turtles.api.language import (
    BOOLEAN,
    INT32,
    INT_OR_STRING,
    QUANTITY,
    STRING,
    TEXT,
    Field,
    ListOf,
    Struct,
    field,
    group,
)

_HOTPLUGGABLE = field("hotpluggable", BOOLEAN, "Whether the volume may be added and removed while the machine runs.")
_OPTIONAL = field("optional", BOOLEAN, "Whether the machine starts without it; the volume is empty then.")
_LABEL = field("volumeLabel", STRING, "Label of the volume in the guest, up to 32 characters.")

_CONTAINER_DISK = Struct(
    "A disk image in a container image. What the guest writes is lost with the machine.",
    field("image", STRING, "The container image; it contains one disk image under /disk.", required=True),
    field("path", STRING, "Path of the disk image in the container image, if it isn't the one under /disk."),
    field(
        "imagePullPolicy",
        STRING,
        "Always, IfNotPresent or Never. Always if the image's tag is latest or absent, else IfNotPresent.",
    ),
    field("imagePullSecret", STRING, "Secret with the registry's credentials."),
)

_CLAIM_NAME = field("claimName", STRING, "Its name.", required=True)
_READ_ONLY = field("readOnly", BOOLEAN, "Whether it is mounted read-only.")
_CLAIM_DOC = "A PersistentVolumeClaim in the same namespace."

_DOWNWARD_FILE = Struct(
    "A file with a field of the machine's Pod.",
    field("path", STRING, "Path of the file in the volume.", required=True),
    group(
        "fieldRef",
        "A field of the Pod.",
        field("apiVersion", STRING, "Version of the API that the path is of.", absent="v1"),
        field("fieldPath", STRING, "Path of the field, such as metadata.labels.", required=True),
    ),
    group(
        "resourceFieldRef",
        "What a container requests, or its limits.",
        field("containerName", STRING, "Name of the container."),
        field("resource", STRING, "The resource, such as limits.cpu.", required=True),
        field("divisor", INT_OR_STRING, "Unit of the value."),
    ),
    field("mode", INT32, "Permissions of the file."),
)


def _cloud_init(doc: str) -> Struct:
    return Struct(
        doc,
        field("userData", TEXT, "User data, up to 2048 bytes."),
        field("userDataBase64", STRING, "User data in base64, up to 2048 bytes."),
        field("secretRef", LOCAL_REFERENCE, "Secret with the user data under the key userdata.", absent={}),
        field("networkData", TEXT, "Network data, up to 2048 bytes."),
        field("networkDataBase64", STRING, "Network data in base64, up to 2048 bytes."),
        field(
            "networkDataSecretRef",
            LOCAL_REFERENCE,
            "Secret with the network data under the key networkdata.",
            absent={},
        ),
    )


def _source(name: str, doc: str, *fields: Field) -> Field:
    return group(name, doc, *fields)


#: The sources of volumes, of which each has one, in the order in which the documentation has them.
_SOURCES = (
    field("containerDisk", _CONTAINER_DISK, "A disk image in a container image."),
    field("cloudInitNoCloud", _cloud_init("A cloud-init seed of type NoCloud."), "A cloud-init seed of type NoCloud."),
    field(
        "cloudInitConfigDrive",
        _cloud_init("A cloud-init seed of type ConfigDrive."),
        "A cloud-init seed of type ConfigDrive.",
    ),
    _source(
        "emptyDisk",
        "An empty disk that lives as long as the machine.",
        field("capacity", QUANTITY, "Its size.", required=True),
    ),
    _source("persistentVolumeClaim", _CLAIM_DOC, _CLAIM_NAME, _READ_ONLY, _HOTPLUGGABLE),
    _source(
        "dataVolume",
        "The PersistentVolumeClaim of a DataVolume in the same namespace: the one of its name, once it is bound.",
        field("name", STRING, "Name of the DataVolume and of its claim.", required=True),
        _HOTPLUGGABLE,
    ),
    _source(
        "ephemeral",
        "A PersistentVolumeClaim which the guest's writes don't reach. They are lost with the machine.",
        group("persistentVolumeClaim", _CLAIM_DOC, _CLAIM_NAME, _READ_ONLY),
    ),
    _source(
        "hostDisk",
        "A raw disk image on the node. Needs the feature gate HostDisk.",
        field("path", STRING, "Path of the image on the node.", required=True),
        field("type", STRING, "Disk: it exists. DiskOrCreate: it is created if it doesn't.", required=True),
        field("capacity", QUANTITY, "Size of an image that is created."),
        field("shared", BOOLEAN, "Whether several machines may use the image."),
    ),
    _source(
        "configMap",
        "A ConfigMap as a disk or a filesystem.",
        field("name", STRING, "Its name.", structural=""),
        _OPTIONAL,
        _LABEL,
    ),
    _source(
        "secret",
        "A Secret as a disk or a filesystem.",
        field("secretName", STRING, "Its name."),
        _OPTIONAL,
        _LABEL,
    ),
    _source(
        "serviceAccount",
        "A service account's token as a disk or a filesystem. The machine's Pod has this account.",
        field("serviceAccountName", STRING, "Its name."),
    ),
    _source(
        "downwardAPI",
        "Fields of the machine's Pod as a disk or a filesystem.",
        field("fields", ListOf(_DOWNWARD_FILE), "The files."),
        _LABEL,
    ),
    _source(
        "sysprep",
        "Answer files for the setup of Windows.",
        field("configMap", LOCAL_REFERENCE, "ConfigMap with the files.", absent={}),
        field("secret", LOCAL_REFERENCE, "Secret with the files.", absent={}),
    ),
    _source(
        "downwardMetrics", "Metrics of the node and the machine as a disk. Needs the feature gate DownwardMetrics."
    ),
    _source(
        "memoryDump",
        "A PersistentVolumeClaim for memory dumps. The guest doesn't see it.",
        _CLAIM_NAME,
        _READ_ONLY,
        _HOTPLUGGABLE,
    ),
    _source(
        "containerPath",
        "A directory of the machine's Pod as a filesystem.",
        field("path", STRING, "Path in the container compute, below one of its mounts.", required=True),
        field("readOnly", BOOLEAN, "Whether it is read-only, which it always is.", absent=True),
    ),
)

#: Their names.
VOLUME_SOURCES = tuple(source.name for source in _SOURCES)

VOLUME = Struct(
    "What backs the disk or the filesystem of the same name; exactly one source is set.",
    field("name", STRING, "Name of the volume and of its disk.", required=True),
    *_SOURCES,
)

UTILITY_VOLUME = Struct(
    "A PersistentVolumeClaim for the Pod of a machine that runs. The guest doesn't see it.",
    field("name", STRING, "Name of the volume.", required=True),
    field("type", STRING, "What it is for: MemoryDump or Backup."),
    field("claimName", STRING, "The PersistentVolumeClaim.", required=True),
    _READ_ONLY,
)
