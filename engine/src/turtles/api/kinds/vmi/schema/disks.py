# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks, and the volumes that feed them."""

from __future__ import annotations

from turtles.api.core import LOCAL_REFERENCE
from turtles.api.language import BOOLEAN, QUANTITY, STRING, UINT32, Struct, field, unsupported

_OFF = (False,)

_DISK_TARGET = Struct(
    "A hard disk.",
    field("bus", STRING, "virtio, sata, scsi or usb.", default="sata"),
    field("readonly", BOOLEAN, "Whether the guest can't write to it."),
    unsupported("pciAddress", "PCI address of the disk in the guest."),
)

_CDROM_TARGET = Struct(
    "A CD-ROM drive.",
    field("bus", STRING, "sata, scsi or usb.", default="sata"),
    field("readonly", BOOLEAN, "Whether the guest can't write to it.", default=True),
    field("tray", STRING, "open or closed.", default="closed"),
)

DISK = Struct(
    "A disk of the machine, backed by the volume of the same name.",
    field("name", STRING, "Name of the disk and of its volume.", required=True),
    field("disk", _DISK_TARGET, "Attach the volume as a hard disk; the default if no target is given."),
    field("cdrom", _CDROM_TARGET, "Attach the volume as a CD-ROM."),
    field("bootOrder", UINT32, "Position in the boot order, from 1; unique across disks and interfaces."),
    field("serial", STRING, "Serial number the guest sees."),
    field("cache", STRING, "none, writethrough or writeback; chosen by the image's file system if not given."),
    field("io", STRING, "native, threads or default."),
    field(
        "errorPolicy",
        STRING,
        "What happens on an I/O error: stop (the default), ignore, report or enospace.",
        absent="stop",
    ),
    field("shareable", BOOLEAN, "Whether other machines may have the disk open."),
    unsupported("lun", "Attach the volume as a SCSI LUN."),
    unsupported("dedicatedIOThread", "Whether the disk has an IO thread of its own.", neutral=_OFF),
    unsupported("blockSize", "Block sizes the guest sees."),
    unsupported("tag", "Tag passed to the guest in the config drive."),
    unsupported("changedBlockTracking", "Whether changed blocks are tracked.", neutral=_OFF),
)


def _cloud_init(doc: str) -> Struct:
    return Struct(
        doc,
        field("userData", STRING, "User data, up to 2048 bytes."),
        field("userDataBase64", STRING, "User data in base64, up to 2048 bytes."),
        field("secretRef", LOCAL_REFERENCE, "Secret with the user data under the key userdata.", absent={}),
        field("networkData", STRING, "Network data, up to 2048 bytes."),
        field("networkDataBase64", STRING, "Network data in base64, up to 2048 bytes."),
        field(
            "networkDataSecretRef",
            LOCAL_REFERENCE,
            "Secret with the network data under the key networkdata.",
            absent={},
        ),
    )


VOLUME = Struct(
    "What backs the disk of the same name; exactly one source is set.",
    field("name", STRING, "Name of the volume and of its disk.", required=True),
    field(
        "containerDisk",
        Struct(
            "A disk image in a container image. What the guest writes is lost with the machine.",
            field("image", STRING, "The container image; it contains one disk image under /disk.", required=True),
            field("path", STRING, "Path of the disk image in the container image, if it isn't the one under /disk."),
            field(
                "imagePullPolicy",
                STRING,
                "Always, IfNotPresent or Never. Always if the image's tag is latest or absent, else IfNotPresent.",
            ),
            field("imagePullSecret", STRING, "Secret with the registry's credentials."),
        ),
        "A disk image in a container image.",
    ),
    field("cloudInitNoCloud", _cloud_init("A cloud-init seed of type NoCloud."), "A cloud-init seed of type NoCloud."),
    field(
        "cloudInitConfigDrive",
        _cloud_init("A cloud-init seed of type ConfigDrive."),
        "A cloud-init seed of type ConfigDrive.",
    ),
    field(
        "emptyDisk",
        Struct(
            "An empty disk that lives as long as the machine.",
            field("capacity", QUANTITY, "Its size.", required=True),
        ),
        "An empty disk that lives as long as the machine.",
    ),
    field(
        "persistentVolumeClaim",
        Struct(
            "A PersistentVolumeClaim in the same namespace.",
            field("claimName", STRING, "Its name.", required=True),
            field("readOnly", BOOLEAN, "Whether it is mounted read-only."),
            unsupported("hotpluggable", "Whether the volume may be added and removed at runtime.", neutral=_OFF),
        ),
        "A disk image on a PersistentVolumeClaim.",
    ),
    unsupported("dataVolume", "A DataVolume in the same namespace."),
    unsupported("ephemeral", "A PersistentVolumeClaim which the guest's writes don't reach."),
    unsupported("hostDisk", "A disk image on the node."),
    unsupported("sysprep", "Answer files for Windows."),
    unsupported("configMap", "A ConfigMap as a disk."),
    unsupported("secret", "A Secret as a disk."),
    unsupported("downwardAPI", "Fields of the machine as a disk."),
    unsupported("serviceAccount", "A service account's token as a disk."),
    unsupported("downwardMetrics", "Metrics of the host as a disk."),
    unsupported("memoryDump", "A PersistentVolumeClaim for memory dumps."),
    unsupported("containerPath", "A path of a container, shared by virtiofs."),
)
