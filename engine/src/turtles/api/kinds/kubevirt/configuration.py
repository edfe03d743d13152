# SPDX-License-Identifier: GPL-3.0-or-later
"""What `spec.configuration` of a KubeVirt object is."""

from __future__ import annotations

from turtles.api.language import (
    BOOLEAN,
    DOWNTIME,
    INT32,
    INT64,
    QUANTITY,
    STRING,
    STRING_MAP,
    STRINGS,
    UINT32,
    Choice,
    MapOf,
    Struct,
    field,
    group,
    group_list,
    idle,
)

#: Values that ask for nothing.
_EMPTY: tuple[dict[str, str]] = ({},)
_OFF = (False,)
_NOT_ENABLED = ({"enabled": False},)

DEVELOPER = Struct(
    "Settings for developers that affect all machines.",
    field(
        "featureGates",
        STRINGS,
        "Feature gates that are on. Those without an effect in this engine, and unknown names, are accepted with a "
        "warning that names those with one.",
    ),
    field(
        "disabledFeatureGates",
        STRINGS,
        "Feature gates that are disabled although they are enabled by default.",
    ),
    field(
        "useEmulation",
        BOOLEAN,
        "true: guests are emulated. false: guests need KVM, and wait for a node that has it. "
        "If not given, guests use KVM where a node has it and are emulated where none has.",
    ),
    field("cpuAllocationRatio", INT32, "Virtual processors that share one CPU of the node; 10 if not given."),
    field(
        "memoryOvercommit",
        INT32,
        "Memory of guests in percent of what their Pods request for it; 100 if not given.",
    ),
    field("nodeSelectors", STRING_MAP, "Labels that a node must have to run machines."),
    group(
        "logVerbosity",
        "How much the components log: 0 to 9; 3 and above log everything; 2 if not given.",
        field("virtAPI", UINT32, "Of virt-api."),
        field("virtController", UINT32, "Of virt-controller."),
        field("virtHandler", UINT32, "Of virt-handler."),
        idle("virtLauncher", "Of virt-launcher."),
        idle("virtOperator", "Of KubeVirt's operator."),
        idle("virtSynchronizationController", "Of the synchronization controller."),
        idle("nodeVerbosity", "Of virt-handler by node.", neutral=_EMPTY),
    ),
    idle("pvcTolerateLessSpaceUpToPercent", "How much smaller than requested a claim may be.", neutral=(10,)),
    idle("minimumReservePVCBytes", "Space left free on a claim.", neutral=(131072,)),
    idle("minimumClusterTSCFrequency", "TSC frequency of all nodes."),
    idle("diskVerification", "Limits of disk verification."),
    idle("clusterProfiler", "Whether components can be profiled.", neutral=_OFF),
)
_BINDING_PLUGIN = Struct(
    "A network binding plugin: how guests' interfaces are connected by somebody else's parts.",
    field("networkAttachmentDefinition", STRING, "A secondary network of the Pod, whose CNI plugin prepares it."),
    field("sidecarImage", STRING, "Image of a hook sidecar, which changes the domain."),
    field(
        "domainAttachmentType",
        STRING,
        "tap: a CNI plugin makes the tap; managedTap: the engine does, as for bridge but without DHCP. Without it, the "
        "sidecar adds the interface.",
    ),
    group(
        "migration",
        "Guests with it can be migrated live on the Pod network.",
        field("method", STRING, "link-refresh, which has no effect."),
    ),
    idle("downwardAPI", "What the sidecar learns about devices."),
    group(
        "computeResourceOverhead",
        "Memory that the launcher needs in addition.",
        field("requests", MapOf(QUANTITY), "Memory in addition."),
        field("limits", MapOf(QUANTITY), "No effect."),
    ),
)
NETWORK = Struct(
    "Networks of machines.",
    field(
        "defaultNetworkInterface",
        STRING,
        "Binding of the interface that is added if none is declared: bridge (the default) or masquerade.",
    ),
    field(
        "permitBridgeInterfaceOnPodNetwork",
        BOOLEAN,
        "Whether bridge is allowed on the Pod network; true if not given.",
    ),
    idle("permitSlirpInterface", "Removed.", neutral=_OFF),
    field("binding", MapOf(_BINDING_PLUGIN), "Network binding plugins, by the names that interfaces use."),
)
_ARCHITECTURE = Struct(
    "Settings of one architecture.",
    field("machineType", STRING, "Machine type of machines that don't specify one; q35 if not given."),
    field("emulatedMachines", STRINGS, "Patterns of machine types that are allowed."),
    idle("ovmfPath", "Where the EFI firmware is."),
)
MIGRATIONS = Struct(
    "Settings of live migration.",
    field("allowAutoConverge", BOOLEAN, "Slow down guests whose memory changes faster than it is copied."),
    field("allowPostCopy", BOOLEAN, "Run guests on the target before all of their memory has been copied."),
    field("allowWorkloadDisruption", BOOLEAN, "Pause guests that don't converge."),
    field("bandwidthPerMigration", QUANTITY, "Bytes per second of each migration."),
    idle("experimental", "Experimental settings of KubeVirt."),
    field("maxDowntimeMs", DOWNTIME, "Milliseconds for which a guest may be paused at the end; 900 if not given."),
    field("completionTimeoutPerGiB", INT64, "Time limit in seconds per GiB."),
    idle("disableTLS", "Don't encrypt.", BOOLEAN),
    idle("matchSELinuxLevelOnMigration", "Keep the SELinux level.", BOOLEAN),
    field(
        "network",
        STRING,
        "NetworkAttachmentDefinition, in the namespace of the engine, of a network for migrations alone. On a cluster.",
    ),
    field("nodeDrainTaintKey", STRING, "Taint of nodes that are being drained."),
    field("parallelMigrationsPerCluster", UINT32, "Maximum number of concurrent migrations."),
    field("parallelOutboundMigrationsPerNode", UINT32, "Maximum number of concurrent migrations away from a node."),
    field("progressTimeout", INT64, "Seconds without progress after which a migration is aborted."),
    field("unsafeMigrationOverride", BOOLEAN, "Migrate guests with disks whose cache makes that unsafe."),
    idle("utilityVolumesTimeout", "Seconds that utility volumes may take to be detached.", INT64),
)
_SWITCH = Struct("Present means yes.")
_OPTIONS = Struct(
    "Options of machines.",
    field("disableFreePageReporting", _SWITCH, "Guests don't return memory that they don't use."),
    field("disableSerialConsoleLog", _SWITCH, "Output of serial consoles isn't logged where machines don't say so."),
)
_RESOURCE = field("resourceName", STRING, "Resource that Pods request, such as example.org/gpu.", required=True)
_PROVIDER = field(
    "externalResourceProvider", BOOLEAN, "Whether a device plugin other than virt-handler's offers the resource."
)
PERMITTED_DEVICES = Struct(
    "Devices of nodes that may be assigned to guests. Without it, all that device plugins offer may be.",
    group_list(
        "pciHostDevices",
        "PCI devices that are bound to vfio-pci.",
        field("pciVendorSelector", STRING, "Vendor and device, such as 10DE:1EB8.", required=True),
        _RESOURCE,
        _PROVIDER,
    ),
    group_list(
        "mediatedDevices",
        "Mediated devices of one type.",
        field("mdevNameSelector", STRING, "Name of the type, such as GRID T4-1Q.", required=True),
        _RESOURCE,
        _PROVIDER,
    ),
    group_list(
        "usb",
        "USB devices that are assigned together.",
        _RESOURCE,
        group_list(
            "selectors",
            "The devices.",
            field("vendor", STRING, "Vendor, such as 46f4.", required=True),
            field("product", STRING, "Product, such as 0001.", required=True),
        ),
        _PROVIDER,
    ),
)
SMBIOS = Struct(
    "SMBIOS values that guests see.",
    field("manufacturer", STRING, "Manufacturer of the system; KubeVirt if not given."),
    field("product", STRING, "Name of the product; the word None if not given."),
    field("version", STRING, "Version of the product."),
    field("sku", STRING, "Stock keeping unit."),
    field("family", STRING, "Family of the product; KubeVirt if not given."),
)
TLS = Struct(
    "TLS versions and ciphers.",
    field("minTLSVersion", Choice(*(f"VersionTLS1{minor}" for minor in range(4))), "The oldest version."),
    field("ciphers", STRINGS, "Cipher suites, as Go names them; for versions before 1.3."),
)
SECCOMP = Struct(
    "Seccomp profiles.",
    group(
        "virtualMachineInstanceProfile",
        "Of launchers.",
        group(
            "customProfile",
            "The profile.",
            field("localhostProfile", STRING, "A file below the kubelet's folder seccomp, on each node."),
            field("runtimeDefaultProfile", BOOLEAN, "The container runtime's."),
        ),
    ),
)
CONFIGURATION = Struct(
    "Settings for all machines. A change takes effect without a restart.",
    field("developerConfiguration", DEVELOPER, "Settings for developers that affect all machines."),
    field("network", NETWORK, "Networks of machines."),
    field("imagePullPolicy", STRING, "Pull policy of the launchers' image; IfNotPresent if not given."),
    field("machineType", STRING, "Machine type of machines without one, if architectureConfiguration has none."),
    field("emulatedMachines", STRINGS, "Patterns of allowed machine types, if architectureConfiguration has none."),
    group(
        "architectureConfiguration",
        "Settings by architecture.",
        field("amd64", _ARCHITECTURE, "Settings of amd64."),
        field(
            "defaultArchitecture",
            STRING,
            "Architecture of machines that don't specify one: amd64, which alone starts here.",
        ),
        idle("arm64", "Settings of arm64."),
        idle("s390x", "Settings of s390x."),
        idle("ppc64le", "Settings of ppc64le."),
    ),
    field("evictionStrategy", STRING, "Eviction strategy of machines that don't specify one; None if not given."),
    field("cpuModel", STRING, "Processor model of machines that don't specify one; host-model if not given."),
    field("cpuRequest", QUANTITY, "CPU requested for machines that request none; by cpuAllocationRatio if not given."),
    field(
        "additionalGuestMemoryOverheadRatio",
        STRING,
        "Factor of a Pod's memory in addition to its guest's, such as 1.5; at least 1, which is the default.",
    ),
    field("defaultRuntimeClass", STRING, "Runtime class of launcher Pods."),
    field(
        "memBalloonStatsPeriod",
        UINT32,
        "Seconds between statistics of guests' memory; 10 if not given, 0 for none.",
    ),
    field("migrations", MIGRATIONS, "Settings of live migration."),
    field(
        "seccompConfiguration",
        SECCOMP,
        "Filter of the system calls of launchers that start from now on. Without it they have RuntimeDefault, and "
        "those with passtBinding none.",
    ),
    field("virtualMachineOptions", _OPTIONS, "Options of machines."),
    field("smbios", SMBIOS, "SMBIOS values that guests see, from their next start on."),
    field(
        "vmRolloutStrategy",
        STRING,
        "LiveUpdate (the default): changes of a template reach a running guest where they can. Stage: they wait.",
    ),
    group(
        "liveUpdateConfiguration",
        "How far machines that don't say it can grow while they run.",
        field("maxHotplugRatio", UINT32, "Times their processors and memory; 4 if not given."),
        field("maxCpuSockets", UINT32, "Sockets; by the ratio if not given."),
        field("maxGuest", QUANTITY, "Memory; by the ratio if not given."),
    ),
    idle("apiConfiguration", "Request limits of virt-api."),
    idle("autoCPULimitNamespaceLabelSelector", "Namespaces whose machines get CPU limits."),
    idle("changedBlockTrackingLabelSelectors", "Machines whose changed blocks are tracked."),
    idle("confidentialCompute", "How guests of Intel TDX are attested.", neutral=_EMPTY),
    idle("commonInstancetypesDeployment", "Whether common instancetypes are deployed.", neutral=_NOT_ENABLED),
    idle("controllerConfiguration", "Request limits of virt-controller."),
    idle("handlerConfiguration", "Request limits of virt-handler."),
    idle("hypervisors", "Hypervisors."),
    idle("instancetype", "How instancetypes are referred to."),
    idle("ksmConfiguration", "Nodes that merge identical memory pages."),
    idle("mediatedDevicesConfiguration", "Mediated devices.", neutral=_EMPTY),
    idle("minCPUModel", "Minimal processor model."),
    idle("obsoleteCPUModels", "Processor models that aren't offered.", neutral=_EMPTY),
    group(
        "persistentReservationConfiguration",
        "Whether guests may reserve SCSI devices.",
        field(
            "enabled",
            BOOLEAN,
            "Whether guests may reserve SCSI devices. This engine can't let them: such machines are refused "
            "in any case.",
        ),
    ),
    idle("ovmfPath", "Where the EFI firmware is."),
    field("permittedHostDevices", PERMITTED_DEVICES, "Devices of nodes that may be assigned to guests.", absent={}),
    idle(
        "roleAggregationStrategy",
        "Whether users' roles are aggregated to Kubernetes'.",
        neutral=("AggregateToDefault",),
    ),
    idle("selinuxLauncherType", "SELinux type of launchers."),
    idle("supportContainerResources", "Resources of support containers."),
    idle("supportedGuestAgentVersions", "Guest agents that are supported."),
    idle("tlsConfiguration", "TLS versions and ciphers: the engine's servers speak TLS 1.2 and later.", TLS),
    idle("virtualMachineInstancesPerNode", "Devices a node offers at most."),
    idle("virtTemplateDeployment", "Whether templates are deployed.", neutral=_NOT_ENABLED),
    field(
        "vmStateStorageClass",
        STRING,
        "StorageClass of the claims with what outlives machines beside their disks: persistent TPMs and variables of "
        "EFI; the default one if not given.",
    ),
    idle("webhookConfiguration", "Request limits of the webhooks."),
)
