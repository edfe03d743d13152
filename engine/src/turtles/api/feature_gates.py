# SPDX-License-Identifier: GPL-3.0-or-later
"""Feature gates: which are on by default, and which decide about something in this engine."""

#: Feature gates which KubeVirt has in beta, and therefore on (since 1.9).
DEFAULT_GATES = frozenset(
    (
        "DeclarativeHotplugVolumes",
        "DecentralizedLiveMigration",
        "ExternalNetResourceInjection",
        "GPUsWithDRA",
        "HostDevicesWithDRA",
        "ImageVolume",
        "KubevirtSeccompProfile",
        "NodeRestriction",
        "OptOutRoleAggregation",
        "PasstBinding",
        "PodSecondaryInterfaceNamingUpgrade",
        "RebootPolicy",
        "Snapshot",
        "Template",
        "WorkloadEncryptionSEV",
    )
)
#: Whether container disks may be image volumes.
IMAGE_VOLUME = "ImageVolume"
#: Whether machines may wait for a migration from another cluster (run strategy WaitAsReceiver).
DECENTRALIZED_MIGRATION = "DecentralizedLiveMigration"
#: Whether a machine may say what a reboot of its guest does.
REBOOT_POLICY = "RebootPolicy"
#: Whether a node's virt-handler may change only the instances that are there.
NODE_RESTRICTION = "NodeRestriction"
#: Whether a machine's memory may be encrypted by an AMD processor.
ENCRYPTION_SEV = "WorkloadEncryptionSEV"
#: Whether a machine may be configured by Ignition, with an annotation.
IGNITION = "ExperimentalIgnitionSupport"
#: Whether volumes may come and go while machines run, also by their templates, and CD-ROM drives be empty.
HOTPLUG_VOLUMES = "DeclarativeHotplugVolumes"
#: KubeVirt's former gate: they may by requests alone.
HOTPLUG_VOLUMES_FORMER = "HotplugVolumes"
#: Whether volumes may be files of the node.
HOST_DISK = "HostDisk"
#: Whether claims may be shared with guests as filesystems.
VIRTIOFS_STORAGE = "EnableVirtioFsStorageVolumes"
#: Devices that machines may have, and how they may be connected.
DOWNWARD_METRICS = "DownwardMetrics"
GPUS_WITH_DRA = "GPUsWithDRA"
HOST_DEVICES = "HostDevices"
HOST_DEVICES_WITH_DRA = "HostDevicesWithDRA"
NETWORK_DEVICES_WITH_DRA = "NetworkDevicesWithDRA"
PASST_BINDING = "PasstBinding"
PORT_RANGES = "PortRangesSpec"
VSOCK = "VSOCK"
#: Whether policies may say how long guests stand still at the end of a migration, and what is done until then.
MIGRATION_DOWNTIME = "MigrationDowntimeTuning"
MIGRATION_STALLS = "MigrationStallDetection"
#: KubeVirt's former gate of what persistentReservationConfiguration switches on now.
PERSISTENT_RESERVATION = "PersistentReservation"
#: Whether machines may say how much more memory their Pods need than the engine reckons with.
RESERVED_OVERHEAD = "ReservedOverheadMemlock"
#: Whether the objects that a machine needs may be asked for.
OBJECT_GRAPH = "ObjectGraph"
#: Whether machines may have sidecars that change their domains, with an annotation.
SIDECAR = "Sidecar"
#: Those that decide about something in this engine; all others are accepted and do nothing.
EFFECTIVE_GATES = frozenset(
    (
        DECENTRALIZED_MIGRATION,
        DOWNWARD_METRICS,
        ENCRYPTION_SEV,
        GPUS_WITH_DRA,
        HOST_DEVICES,
        HOST_DEVICES_WITH_DRA,
        HOST_DISK,
        HOTPLUG_VOLUMES,
        HOTPLUG_VOLUMES_FORMER,
        IGNITION,
        IMAGE_VOLUME,
        MIGRATION_DOWNTIME,
        MIGRATION_STALLS,
        NETWORK_DEVICES_WITH_DRA,
        NODE_RESTRICTION,
        OBJECT_GRAPH,
        PASST_BINDING,
        PERSISTENT_RESERVATION,
        PORT_RANGES,
        REBOOT_POLICY,
        RESERVED_OVERHEAD,
        SIDECAR,
        VIRTIOFS_STORAGE,
        VSOCK,
    )
)
