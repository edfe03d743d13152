# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and filesystems: how the guest sees the volumes."""

from __future__ import annotations

from turtles.api.language import BOOLEAN, STRING, UINT32, ListOf, Struct, field, idle

_OFF = (False,)
#: The default bus, where the architecture isn't s390x or arm64, whose machines have no SATA.
_USUAL_BUS = "sata"

_BUS = field(
    "bus",
    STRING,
    "virtio, sata, scsi or usb; sata if not given, virtio on arm64 and s390x.",
    absent=_USUAL_BUS,
)

_DISK_TARGET = Struct(
    "A hard disk.",
    _BUS,
    field("readonly", BOOLEAN, "Whether the guest can't write to it."),
    field("pciAddress", STRING, "PCI address of the disk in the guest, such as 0000:81:01.0; for the bus virtio."),
)

_LUN_TARGET = Struct(
    "A SCSI device that takes the guest's own SCSI commands.",
    _BUS,
    field("readonly", BOOLEAN, "Whether the guest can't write to it."),
    field("reservation", BOOLEAN, "Whether the guest may reserve the device; this engine has no persistent ones."),
)

_CDROM_TARGET = Struct(
    "A CD-ROM drive.",
    _BUS,
    field("readonly", BOOLEAN, "Whether the guest can't write to it.", default=True),
    field("tray", STRING, "open or closed.", default="closed"),
)

_BLOCK_SIZE = Struct(
    "Block sizes the guest sees.",
    field(
        "custom",
        Struct(
            "Chosen sizes.",
            field(
                "logical", UINT32, "The smallest unit of a transfer, a power of two from 512 to 2097152.", required=True
            ),
            field("physical", UINT32, "The size of the device's blocks, at least the logical one.", required=True),
            field(
                "discardGranularity", UINT32, "The smallest unit that can be discarded, a multiple of the logical size."
            ),
        ),
        "Chosen sizes.",
    ),
    field(
        "matchVolume",
        Struct(
            "Take the sizes of the volume.",
            field("enabled", BOOLEAN, "Whether the sizes are those of the volume.", default=True),
        ),
        "Take the sizes of the volume.",
    ),
)

DISK = Struct(
    "A disk of the machine, backed by the volume of the same name.",
    field("name", STRING, "Name of the disk and of its volume.", required=True),
    field("disk", _DISK_TARGET, "Attach the volume as a hard disk; the default if no target is given."),
    field("cdrom", _CDROM_TARGET, "Attach the volume as a CD-ROM. Without a volume of its name, the drive is empty."),
    field("lun", _LUN_TARGET, "Attach a claim that is a SCSI device as such."),
    field("bootOrder", UINT32, "Position in the boot order, from 1; unique across disks and interfaces."),
    field("serial", STRING, "Serial number the guest sees."),
    field(
        "cache", STRING, "none, writethrough, writeback or directsync; chosen by the image's file system if not given."
    ),
    field("io", STRING, "native or threads."),
    field(
        "errorPolicy",
        STRING,
        "What happens on an I/O error: stop (the default), ignore, report or enospace.",
        absent="stop",
    ),
    field("shareable", BOOLEAN, "Whether other machines may have the disk open."),
    field("dedicatedIOThread", BOOLEAN, "Whether the disk has an IO thread of its own; for the bus virtio."),
    field("blockSize", _BLOCK_SIZE, "Block sizes the guest sees."),
    field("tag", STRING, "Tag of the disk, which the guest finds in the metadata of its config drive."),
    idle(
        "changedBlockTracking",
        "Whether changed blocks are tracked, for backups that copy only these.",
        BOOLEAN,
        neutral=_OFF,
    ),
)

FILESYSTEM = Struct(
    "A directory that is shared with the guest: the volume of the same name.",
    field("name", STRING, "Name of the filesystem and of its volume; the guest mounts it by this name.", required=True),
    field("virtiofs", Struct("Share it by virtiofs."), "Share it by virtiofs.", required=True),
)

FILESYSTEMS = ListOf(FILESYSTEM)
