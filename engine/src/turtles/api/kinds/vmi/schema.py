# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a VirtualMachineInstance: documentation, defaults, and what is implemented.

The single source for the CustomResourceDefinition, static defaults, field documentation and the refusal of what the
engine doesn't implement. Names and meanings are those of the KubeVirt API, kubevirt.io/v1. Fields that KubeVirt has
and the engine doesn't are declared `unsupported`: the schema keeps them, so that admission can name them.
"""

from __future__ import annotations

from turtles.api import guests
from turtles.api.core import (
    AFFINITY,
    CONDITIONS,
    DNS_CONFIG,
    FREE,
    LOCAL_REFERENCE,
    TOLERATIONS,
)
from turtles.api.language import (
    BOOLEAN,
    INT32,
    INT64,
    QUANTITY,
    STRING,
    STRING_MAP,
    STRINGS,
    TIME,
    UINT32,
    ListOf,
    MapOf,
    Struct,
    field,
    unsupported,
)

_OFF = (False,)

# --- devices ---------------------------------------------------------------------------------------------------------

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

INTERFACE = Struct(
    "A network interface, connected to the network of the same name.",
    field("name", STRING, "Name of the interface and of its network.", required=True),
    field("model", STRING, "e1000, e1000e, igb, ne2k_pci, pcnet, rtl8139 or virtio (the default).", absent="virtio"),
    field("bridge", Struct("No settings."), "The guest gets the Pod's own address, by DHCP."),
    field("masquerade", Struct("No settings."), "The guest is behind the Pod's address, by NAT."),
    field(
        "ports",
        ListOf(
            Struct(
                "A port that is forwarded to the guest.",
                field("name", STRING, "Name of the port, unique in the interface."),
                field("port", INT32, "Number, 1 to 65535.", required=True),
                field("protocol", STRING, "TCP or UDP.", default="TCP"),
            )
        ),
        "Ports that masquerade forwards to the guest; all of them if none is given.",
    ),
    field("macAddress", STRING, "MAC address the guest sees, such as 02:00:00:aa:bb:cc."),
    field("bootOrder", UINT32, "Position in the boot order, from 1; unique across disks and interfaces."),
    unsupported("slirp", "Removed.", refusal="Slirp interface support has been discontinued since v1.3"),
    unsupported("passt", "Removed.", refusal="Passt network binding has been discontinued since v1.3"),
    unsupported("macvtap", "Removed.", refusal="Macvtap network binding has been discontinued since v1.3"),
    unsupported("passtBinding", "Connect the guest with passt."),
    unsupported("sriov", "Hand a virtual function of a NIC to the guest."),
    unsupported("binding", "Connect the guest with a network binding plugin."),
    unsupported("portRanges", "Ranges of ports that are forwarded to the guest."),
    unsupported("dhcpOptions", "Further DHCP options."),
    unsupported("pciAddress", "PCI address of the interface in the guest."),
    unsupported("tag", "Tag passed to the guest in the config drive."),
    unsupported("acpiIndex", "ACPI index, from which the guest derives the interface's name.", neutral=(0,)),
    unsupported("state", "Link state, or absent.", neutral=("up",)),
)

_INPUT = Struct(
    "An input device.",
    field("name", STRING, "Name of the device.", required=True),
    field("type", STRING, "tablet.", required=True),
    field("bus", STRING, "usb or virtio.", default="usb"),
)

_WATCHDOG = Struct(
    "A watchdog.",
    field("name", STRING, "Name of the device.", required=True),
    field(
        "i6300esb",
        Struct(
            "The PCI watchdog i6300esb.",
            field("action", STRING, "What happens when it fires: poweroff, reset or shutdown.", default="reset"),
        ),
        "The PCI watchdog i6300esb.",
    ),
    unsupported("diag288", "The watchdog of s390x."),
)

DEVICES = Struct(
    "The machine's devices.",
    field("disks", ListOf(DISK, max_items=256), "Disks."),
    field("interfaces", ListOf(INTERFACE, max_items=256), "Network interfaces."),
    field("inputs", ListOf(_INPUT), "Input devices."),
    field("watchdog", _WATCHDOG, "Watchdog."),
    field("rng", Struct("No settings."), "Give the guest a source of randomness."),
    field(
        "autoattachPodInterface",
        BOOLEAN,
        "Whether an interface on the Pod network is added if none is declared; true if not given.",
        absent=True,
    ),
    field(
        "autoattachGraphicsDevice",
        BOOLEAN,
        "Whether there is a graphics card with VNC; true if not given.",
        absent=True,
    ),
    field("autoattachSerialConsole", BOOLEAN, "Whether there is a serial console; true if not given.", absent=True),
    field("autoattachMemBalloon", BOOLEAN, "Whether there is a memory balloon; true if not given.", absent=True),
    unsupported("autoattachInputDevice", "Whether an input device is added if none is declared.", neutral=_OFF),
    unsupported("autoattachVSOCK", "Whether the guest has a VSOCK address.", neutral=_OFF),
    unsupported("useVirtioTransitional", "Use transitional virtio devices, for old guests.", neutral=_OFF),
    unsupported("disableHotplug", "Disable the hotplug of disks.", neutral=(False, True)),
    unsupported("blockMultiQueue", "A queue for each vCPU in virtio disks.", neutral=_OFF),
    unsupported("networkInterfaceMultiqueue", "A queue for each vCPU in virtio interfaces.", neutral=_OFF),
    unsupported("logSerialConsole", "Whether the serial console's output is logged.", neutral=_OFF),
    unsupported("gpus", "GPUs handed to the guest."),
    unsupported("hostDevices", "Host devices handed to the guest."),
    unsupported("filesystems", "Directories shared with the guest by virtiofs."),
    unsupported("tpm", "Trusted platform module.", neutral=({"enabled": False},)),
    unsupported("sound", "Sound card."),
    unsupported("video", "Graphics card."),
    unsupported("panicDevices", "Devices by which the guest reports a panic."),
    unsupported("clientPassthrough", "USB devices of a client handed to the guest."),
    unsupported("downwardMetrics", "Metrics of the host, exposed to the guest."),
)

# --- domain ----------------------------------------------------------------------------------------------------------

_CPU = Struct(
    "The machine's processors.",
    field("cores", UINT32, "Cores per socket."),
    field("sockets", UINT32, "Sockets."),
    field("threads", UINT32, "Threads per core."),
    field("model", STRING, "host-model (the default), host-passthrough, or a model libvirt knows, such as Nehalem."),
    field(
        "features",
        ListOf(
            Struct(
                "A processor feature.",
                field("name", STRING, "Name of the feature in libvirt.", required=True),
                field("policy", STRING, "force, require, optional, disable or forbid.", default="require"),
            )
        ),
        "Processor features.",
    ),
    unsupported("maxSockets", "Sockets the machine may grow to while it runs."),
    unsupported("dedicatedCpuPlacement", "Whether each vCPU has a host CPU of its own.", neutral=_OFF),
    unsupported("isolateEmulatorThread", "Whether the emulator has a host CPU of its own.", neutral=_OFF),
    unsupported("numa", "NUMA topology."),
    unsupported("realtime", "Realtime scheduling."),
)

_RESOURCES = MapOf(QUANTITY, keys=("cpu", "memory"))


def _timer(name: str, doc: str, *fields: str) -> Struct:
    docs = {
        "tickPolicy": "What happens to ticks that the guest missed.",
        "track": "What the timer follows: guest or wall.",
    }
    return Struct(
        doc,
        field("present", BOOLEAN, f"Whether the guest has the {name} timer.", default=True),
        *(field(item, STRING, docs[item]) for item in fields),
    )


_CLOCK = Struct(
    "The machine's clock.",
    field(
        "utc",
        Struct("UTC with an offset.", field("offsetSeconds", INT64, "Seconds added to UTC.")),
        "The clock shows UTC; the default.",
        absent={},
    ),
    field("timezone", STRING, "The clock shows the time of this zone, such as Europe/Berlin."),
    field(
        "timer",
        Struct(
            "Timers.",
            field("hpet", _timer("hpet", "High precision event timer.", "tickPolicy"), "High precision event timer."),
            field("kvm", _timer("kvm", "KVM clock."), "KVM clock."),
            field("pit", _timer("pit", "Programmable interval timer.", "tickPolicy"), "Programmable interval timer."),
            field("rtc", _timer("rtc", "Real time clock.", "tickPolicy", "track"), "Real time clock."),
            field("hyperv", _timer("hyperv", "Hyper-V clock."), "Hyper-V clock."),
        ),
        "Timers.",
    ),
)

_FIRMWARE = Struct(
    "The machine's firmware.",
    field("uuid", STRING, "UUID the guest sees. A VirtualMachine keeps one for life."),
    field("serial", STRING, "System serial number the guest sees."),
    field(
        "bootloader",
        Struct(
            "What boots the machine.",
            field(
                "bios",
                Struct(
                    "BIOS settings.",
                    unsupported("useSerial", "Print the BIOS' output to the serial console.", neutral=_OFF),
                ),
                "Boot with BIOS, the default.",
                absent={},
            ),
            unsupported("efi", "Boot with EFI."),
        ),
        "What boots the machine.",
        absent={},
    ),
    unsupported("kernelBoot", "Boot a kernel from a container image."),
    unsupported("acpi", "ACPI tables."),
)

_FEATURES = Struct(
    "Features of the machine.",
    field(
        "acpi",
        Struct("ACPI.", field("enabled", BOOLEAN, "Whether the machine has ACPI.", default=True)),
        "ACPI, by which the guest is asked to shut down.",
        absent={},
    ),
    unsupported("apic", "APIC settings."),
    unsupported("hyperv", "Enlightenments for Windows."),
    unsupported("hypervPassthrough", "All enlightenments the host has.", neutral=({"enabled": False},)),
    unsupported("smm", "System management mode.", neutral=({"enabled": False},)),
    unsupported("kvm", "Whether KVM is hidden from the guest.", neutral=({"hidden": False}, {})),
    unsupported("pvspinlock", "Paravirtual spin locks.", neutral=({"enabled": False},)),
)

DOMAIN = Struct(
    "The machine itself.",
    field("devices", DEVICES, "The machine's devices.", required=True),
    field(
        "resources",
        Struct(
            "What the machine's Pod requests.",
            field("requests", _RESOURCES, "What the Pod is guaranteed: cpu, memory."),
            field("limits", _RESOURCES, "What the Pod may use: cpu, memory."),
            unsupported("overcommitGuestOverhead", "Leave the engine's overhead out of requests.", neutral=_OFF),
        ),
        "What the machine's Pod requests; memory and processors of the guest too, if those aren't given.",
        absent={},
    ),
    field("cpu", _CPU, "The machine's processors.", absent={}),
    field(
        "memory",
        Struct(
            "The machine's memory.",
            field("guest", QUANTITY, "Memory the guest sees; that of resources if not given."),
            unsupported("maxGuest", "Memory the machine may grow to while it runs."),
            unsupported("hugepages", "Back the memory by huge pages."),
            unsupported("reservedOverhead", "Memory reserved in addition to the guest's."),
        ),
        "The machine's memory.",
        absent={},
    ),
    field(
        "machine",
        Struct("The machine's type.", field("type", STRING, "q35, or a version of it such as pc-q35-7.2.")),
        "The machine's type.",
        absent={},
    ),
    field("firmware", _FIRMWARE, "The machine's firmware.", absent={}),
    field("clock", _CLOCK, "The machine's clock.", absent={}),
    field("features", _FEATURES, "Features of the machine.", absent={}),
    unsupported("ioThreadsPolicy", "How IO threads are assigned."),
    unsupported("ioThreads", "IO threads."),
    unsupported("chassis", "SMBIOS chassis."),
    unsupported("launchSecurity", "Encrypted memory."),
    unsupported("rebootPolicy", "What a reboot of the guest does.", neutral=("Reboot",)),
)

# --- volumes and networks --------------------------------------------------------------------------------------------


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

NETWORK = Struct(
    "A network an interface is connected to; exactly one type is set.",
    field("name", STRING, "Name of the network and of its interface.", required=True),
    field(
        "pod",
        Struct(
            "The Pod's own network.",
            field(
                "vmNetworkCIDR",
                STRING,
                "IPv4 network between Pod and guest with masquerade; 10.0.2.0/24 if not given.",
                absent="10.0.2.0/24",
            ),
            unsupported("vmIPv6NetworkCIDR", "IPv6 network between Pod and guest with masquerade."),
        ),
        "The Pod's own network.",
    ),
    unsupported("multus", "A further network, by Multus."),
    unsupported("resourceClaim", "A network device by a resource claim."),
)

# --- VirtualMachineInstance ------------------------------------------------------------------------------------------

VMI_SPEC = Struct(
    "The machine's desired state.",
    field("domain", DOMAIN, "The machine itself.", required=True),
    field("volumes", ListOf(VOLUME, max_items=256), "What backs the disks."),
    field(
        "networks",
        ListOf(NETWORK, max_items=256),
        "What the interfaces are connected to.",
    ),
    field("nodeSelector", STRING_MAP, "Labels the machine's node must have."),
    field("affinity", AFFINITY, "Where the machine may or should run.", absent={}),
    field("tolerations", TOLERATIONS, "Taints of nodes which the machine tolerates."),
    field("priorityClassName", STRING, "The Pod's priority class."),
    field("hostname", STRING, "Host name of the guest, set by DHCP and cloud-init; the machine's name if not given."),
    field("subdomain", STRING, "Subdomain of the guest's host name."),
    field(
        "dnsPolicy",
        STRING,
        "ClusterFirst (the default), ClusterFirstWithHostNet, Default or None.",
        absent="ClusterFirst",
    ),
    field("dnsConfig", DNS_CONFIG, "DNS settings merged with those of dnsPolicy.", absent={}),
    field(
        "terminationGracePeriodSeconds",
        INT64,
        "Seconds that the guest has to shut down before it is powered off; 30 if not given.",
        absent=guests.GRACE_PERIOD_SECONDS,
    ),
    field("evictionStrategy", STRING, "What happens on a drain: None, LiveMigrate, LiveMigrateIfPossible, External."),
    field("startStrategy", STRING, "Paused: the machine is started paused."),
    field("architecture", STRING, "Processor architecture: amd64."),
    unsupported("livenessProbe", "Tells whether the guest is alive."),
    unsupported("readinessProbe", "Tells whether the guest is ready."),
    unsupported("schedulerName", "The scheduler that places the machine.", neutral=("default-scheduler",)),
    unsupported("topologySpreadConstraints", "How machines are spread over topologies."),
    unsupported("serviceAccountName", "Service account of the Pod."),
    unsupported("accessCredentials", "SSH keys and passwords given to the guest."),
    unsupported("resourceClaims", "Claims of devices."),
    unsupported("utilityVolumes", "Volumes for the Pod which the guest doesn't see."),
)


def _status(doc: str, **fields: str) -> Struct:
    """Strings and integers of a status, told apart by a leading `#` in their documentation."""
    return Struct(
        doc,
        *(
            field(name, INT64 if text.startswith("#") else STRING, text.lstrip("#"))
            for name, text in sorted(fields.items())
        ),
    )


VMI_STATUS = Struct(
    "The machine's observed state. Only the engine writes it.",
    field(
        "phase",
        STRING,
        "Pending, Scheduling, Scheduled, Running, Succeeded, Failed, WaitingForSync or Unknown.",
    ),
    field("reason", STRING, "One word that says why the machine is in this phase."),
    field("nodeName", STRING, "The node the machine runs on."),
    field("conditions", CONDITIONS, "Conditions of the machine."),
    field(
        "phaseTransitionTimestamps",
        ListOf(
            Struct(
                "When a phase began.",
                field("phase", STRING, "The phase."),
                field("phaseTransitionTimestamp", TIME, "When it began."),
            )
        ),
        "When each phase began.",
    ),
    field(
        "interfaces",
        ListOf(
            Struct(
                "An interface, as the engine, the guest agent and the network see it.",
                field("name", STRING, "Name in the spec."),
                field("ipAddress", STRING, "The first address."),
                field("ipAddresses", STRINGS, "All addresses."),
                field("mac", STRING, "MAC address the guest sees."),
                field("podInterfaceName", STRING, "Name in the Pod."),
                field("interfaceName", STRING, "Name in the guest."),
                field("infoSource", STRING, "domain, guest-agent, multus-status."),
                field("queueCount", INT32, "Queues."),
                field("linkState", STRING, "up or down."),
            )
        ),
        "The machine's interfaces.",
    ),
    field(
        "guestOSInfo",
        _status(
            "The guest's operating system, as the guest agent reports it.",
            name="Name.",
            id="Id.",
            prettyName="Name and version.",
            version="Version.",
            versionId="Id of the version.",
            kernelRelease="Release of the kernel.",
            kernelVersion="Version of the kernel.",
            machine="Architecture.",
        ),
        "The guest's operating system.",
    ),
    field(
        "volumeStatus",
        ListOf(
            Struct(
                "The state of a volume.",
                field("name", STRING, "Name of the volume."),
                field("target", STRING, "Device in the guest, such as vda."),
                field("phase", STRING, "Progress of hotplugging the volume."),
                field("reason", STRING, "One word that says why."),
                field("message", STRING, "A sentence that says why."),
                field("size", INT64, "Size in bytes."),
                field("persistentVolumeClaimInfo", FREE, "Details of the claim."),
                field("hotplugVolume", FREE, "Details of the hotplug."),
                field("memoryDumpVolume", FREE, "Details of the memory dump."),
                field("containerDiskVolume", FREE, "Details of the container disk."),
            )
        ),
        "The machine's volumes.",
    ),
    field("activePods", STRING_MAP, "UIDs of the machine's Pods, each with its node."),
    field("launcherContainerImageVersion", STRING, "Image of the launcher."),
    field("virtualMachineRevisionName", STRING, "ControllerRevision of the VirtualMachine this was started from."),
    field("evacuationNodeName", STRING, "Node that the machine has to leave."),
    field("fsFreezeStatus", STRING, "frozen while file systems are frozen."),
    field("qosClass", STRING, "QoS class of the Pod."),
    field("runtimeUser", INT64, "User id of QEMU."),
    field("machine", _status("The machine's type.", type="Versioned machine type."), "The machine's type."),
    field(
        "currentCPUTopology",
        _status("Processors in use.", cores="#Cores per socket.", sockets="#Sockets.", threads="#Threads per core."),
        "Processors in use.",
    ),
    field(
        "memory",
        Struct(
            "Memory in use.",
            field("guestAtBoot", QUANTITY, "Memory at boot."),
            field("guestCurrent", QUANTITY, "Memory now."),
            field("guestRequested", QUANTITY, "Memory requested."),
            field("memoryOverhead", QUANTITY, "Memory in addition to the guest's."),
        ),
        "Memory in use.",
    ),
    field("migrationState", FREE, "The latest migration."),
    field("migrationMethod", STRING, "LiveMigration or BlockMigration."),
    field("migrationTransport", STRING, "Unix."),
    field("migratedVolumes", FREE, "Volumes that are being migrated."),
    field("kernelBootStatus", FREE, "Details of the kernel boot."),
    field("topologyHints", FREE, "Details of the node's processors."),
    field("changedBlockTracking", FREE, "Details of changed block tracking."),
    field("selinuxContext", STRING, "SELinux context of the Pod."),
    field("VSOCKCID", INT64, "VSOCK address."),
)

SCHEMA = Struct(
    "A machine that is running, is about to, or has run. It belongs to a VirtualMachine or stands on its own.",
    field("spec", VMI_SPEC, "The machine's desired state. It can't be changed.", required=True),
    field("status", VMI_STATUS, "The machine's observed state."),
)
