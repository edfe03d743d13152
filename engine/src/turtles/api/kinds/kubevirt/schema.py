# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KubeVirt object is: how the engine is set up, and how it is.

Names and meanings are those of the KubeVirt API, kubevirt.io/v1 KubeVirt. Keys which KubeVirt has and the engine
doesn't honour are declared `idle`, so that admission can name them.
"""

from __future__ import annotations

from turtles.api.core import AFFINITY, CONDITIONS, FREE, LOCAL_REFERENCE, TOLERATIONS
from turtles.api.language import (
    BOOLEAN,
    DOWNTIME,
    INT32,
    INT64,
    QUANTITY,
    STRING,
    STRING_MAP,
    STRINGS,
    UINT8,
    UINT32,
    Choice,
    ListOf,
    MapOf,
    Struct,
    field,
    idle,
)

_OFF = (False,)
_EMPTY: tuple[dict[str, str]] = ({},)
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
        "Feature gates that are switched off although they are on by default.",
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
    field(
        "logVerbosity",
        Struct(
            "How much the components log: 0 to 9; 3 and above log everything; 2 if not given.",
            field("virtAPI", UINT32, "Of virt-api."),
            field("virtController", UINT32, "Of virt-controller."),
            field("virtHandler", UINT32, "Of virt-handler."),
            idle("virtLauncher", "Of virt-launcher."),
            idle("virtOperator", "Of KubeVirt's operator."),
            idle("virtSynchronizationController", "Of the synchronization controller."),
            idle("nodeVerbosity", "Of virt-handler by node.", neutral=_EMPTY),
        ),
        "How much the components log.",
    ),
    idle("pvcTolerateLessSpaceUpToPercent", "How much smaller than requested a claim may be.", neutral=(10,)),
    idle("minimumReservePVCBytes", "Space left free on a claim.", neutral=(131072,)),
    idle("minimumClusterTSCFrequency", "TSC frequency of all nodes."),
    idle("diskVerification", "Limits of disk verification."),
    idle("clusterProfiler", "Whether components can be profiled.", neutral=_OFF),
)

_BINDING_PLUGIN = Struct(
    "A network binding plugin: how guests' interfaces are connected by somebody else's parts.",
    field("networkAttachmentDefinition", STRING, "A further network of the Pod, whose CNI plugin prepares it."),
    field("sidecarImage", STRING, "Image of a hook sidecar, which changes the domain."),
    field(
        "domainAttachmentType",
        STRING,
        "tap: a CNI plugin makes the tap; managedTap: the engine does, as for bridge but without DHCP. Without it, the "
        "sidecar adds the interface.",
    ),
    field(
        "migration",
        Struct("Guests with it can be migrated.", field("method", STRING, "link-refresh, which has no effect.")),
        "Guests with it can be migrated live on the Pod network.",
    ),
    idle("downwardAPI", "What the sidecar learns about devices."),
    field(
        "computeResourceOverhead",
        Struct(
            "Resources.",
            field("requests", MapOf(QUANTITY), "Memory in addition."),
            field("limits", MapOf(QUANTITY), "No effect."),
        ),
        "Memory that the launcher needs in addition.",
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
    field("allowAutoConverge", BOOLEAN, "Slow guests down whose memory changes faster than it is copied."),
    field("allowPostCopy", BOOLEAN, "Have guests run on the target before all of their memory is there."),
    field("allowWorkloadDisruption", BOOLEAN, "Pause guests that don't converge."),
    field("bandwidthPerMigration", QUANTITY, "Bytes per second of each migration."),
    idle("experimental", "What KubeVirt tries out."),
    idle("maxDowntimeMs", "Milliseconds that a guest may stand still.", DOWNTIME),
    field("completionTimeoutPerGiB", INT64, "Seconds that each GiB may take."),
    idle("disableTLS", "Don't encrypt.", BOOLEAN),
    idle("matchSELinuxLevelOnMigration", "Keep the SELinux level.", BOOLEAN),
    idle("network", "Network of migrations.", STRING),
    field("nodeDrainTaintKey", STRING, "Taint of nodes that are being drained."),
    field("parallelMigrationsPerCluster", UINT32, "How many may run at once."),
    field("parallelOutboundMigrationsPerNode", UINT32, "How many may leave one node at once."),
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
    field(
        "pciHostDevices",
        ListOf(
            Struct(
                "PCI devices that are bound to vfio-pci.",
                field("pciVendorSelector", STRING, "Vendor and device, such as 10DE:1EB8.", required=True),
                _RESOURCE,
                _PROVIDER,
            )
        ),
        "PCI devices.",
    ),
    field(
        "mediatedDevices",
        ListOf(
            Struct(
                "Mediated devices of one type.",
                field("mdevNameSelector", STRING, "Name of the type, such as GRID T4-1Q.", required=True),
                _RESOURCE,
                _PROVIDER,
            )
        ),
        "Mediated devices.",
    ),
    field(
        "usb",
        ListOf(
            Struct(
                "USB devices that are assigned together.",
                _RESOURCE,
                field(
                    "selectors",
                    ListOf(
                        Struct(
                            "A USB device.",
                            field("vendor", STRING, "Vendor, such as 46f4.", required=True),
                            field("product", STRING, "Product, such as 0001.", required=True),
                        )
                    ),
                    "The devices.",
                ),
                _PROVIDER,
            )
        ),
        "USB devices.",
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
    field(
        "virtualMachineInstanceProfile",
        Struct(
            "Of launchers.",
            field(
                "customProfile",
                Struct(
                    "The profile.",
                    field("localhostProfile", STRING, "A file of the node."),
                    field("runtimeDefaultProfile", BOOLEAN, "The container runtime's."),
                ),
                "The profile.",
            ),
        ),
        "Of launchers.",
    ),
)

CUSTOMIZATION = Struct(
    "Changes of the components' manifests.",
    field(
        "patches",
        ListOf(
            Struct(
                "A patch.",
                field("resourceName", STRING, "Name of the object.", required=True),
                field("resourceType", STRING, "Kind of the object.", required=True),
                field("patch", STRING, "The patch, in JSON.", required=True),
                field("type", STRING, "strategic, merge or json.", required=True),
            )
        ),
        "Patches.",
    ),
    idle("flags", "Command line flags."),
)

CONFIGURATION = Struct(
    "Settings for all machines. A change takes effect without a restart.",
    field("developerConfiguration", DEVELOPER, "Settings for developers that affect all machines."),
    field("network", NETWORK, "Networks of machines."),
    field("imagePullPolicy", STRING, "Pull policy of the launchers' image; IfNotPresent if not given."),
    field("machineType", STRING, "Machine type of machines without one, if architectureConfiguration has none."),
    field("emulatedMachines", STRINGS, "Patterns of allowed machine types, if architectureConfiguration has none."),
    field(
        "architectureConfiguration",
        Struct(
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
        "Settings by architecture.",
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
    field("virtualMachineOptions", _OPTIONS, "Options of machines."),
    field("smbios", SMBIOS, "SMBIOS values that guests see, from their next start on."),
    field(
        "vmRolloutStrategy",
        STRING,
        "LiveUpdate (the default): changes of a template reach a running guest where they can. Stage: they wait.",
    ),
    field(
        "liveUpdateConfiguration",
        Struct(
            "How far machines that don't say it can grow while they run.",
            field("maxHotplugRatio", UINT32, "Times their processors and memory; 4 if not given."),
            field("maxCpuSockets", UINT32, "Sockets; by the ratio if not given."),
            field("maxGuest", QUANTITY, "Memory; by the ratio if not given."),
        ),
        "How far machines that don't say it can grow while they run.",
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
    field(
        "persistentReservationConfiguration",
        Struct(
            "Whether guests may reserve SCSI devices.",
            field(
                "enabled",
                BOOLEAN,
                "Whether guests may reserve SCSI devices. This engine can't let them: such machines are refused "
                "in any case.",
            ),
        ),
        "Whether guests may reserve SCSI devices.",
    ),
    idle("ovmfPath", "Where the EFI firmware is."),
    field("permittedHostDevices", PERMITTED_DEVICES, "Devices of nodes that may be assigned to guests.", absent={}),
    idle(
        "roleAggregationStrategy",
        "Whether users' roles are aggregated to Kubernetes'.",
        neutral=("AggregateToDefault",),
    ),
    idle("seccompConfiguration", "Seccomp profile of launchers, which have the engine's own.", SECCOMP),
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
        "EFI. Without it, machines that have them aren't started.",
    ),
    idle("webhookConfiguration", "Request limits of the webhooks."),
)

_PLACEMENT = Struct(
    "Where Pods run, in addition to what they ask for themselves.",
    field("nodeSelector", STRING_MAP, "Labels a node must have."),
    field("affinity", AFFINITY, "As in a Pod."),
    field("tolerations", TOLERATIONS, "As in a Pod."),
)

INFRA = Struct(
    "virt-api and virt-controller. On one machine without Kubernetes there is nothing to place.",
    field("nodePlacement", _PLACEMENT, "Where they run."),
    field("replicas", UINT8, "How many there are of each, at least 1; 2 if not given."),
)

WORKLOADS = Struct(
    "virt-handler, and so where machines can run.",
    field("nodePlacement", _PLACEMENT, "Where it runs. Machines that run elsewhere keep running without it."),
    idle("replicas", "There is one on each node."),
)

_CERTIFICATE = Struct(
    "How long a certificate lives.",
    field("duration", STRING, "Its lifetime, such as 24h; at least 10m."),
    field("renewBefore", STRING, "How long before it expires it is replaced; a fifth of its lifetime if not given."),
)

ROTATION = Struct(
    "Lifetimes of the certificates that the engine issues for itself.",
    field(
        "selfSigned",
        Struct(
            "Lifetimes of certificates. Shorter ones take effect immediately.",
            field("ca", _CERTIFICATE, "Of the authority; 8760h (a year) if not given."),
            field("server", _CERTIFICATE, "Of virt-api's own; 720h if not given, at most the authority's."),
            field("caRotateInterval", STRING, "Deprecated: ca.duration."),
            field("caOverlapInterval", STRING, "Deprecated: ca.renewBefore."),
            field("certRotateInterval", STRING, "Deprecated: server.duration."),
        ),
        "Lifetimes of certificates.",
    ),
)

WORKLOAD_UPDATES = Struct(
    "How machines that run get the launcher of a new version.",
    field(
        "workloadUpdateMethods",
        STRINGS,
        "LiveMigrate: machines that can be migrated are, as many at once as the settings of migrations allow. "
        "Evict: all others are evicted; without LiveMigrate, all are. None: machines get it with their next start.",
    ),
    field("batchEvictionSize", INT32, "Machines that are evicted at once; 10 if not given."),
    field("batchEvictionInterval", STRING, "Time between two such batches, such as 90s; 1m0s if not given."),
)

KUBEVIRT_SPEC = Struct(
    "The desired setup of the engine.",
    field("configuration", CONFIGURATION, "Settings for all machines."),
    field(
        "uninstallStrategy",
        STRING,
        "What happens to machines when this object is deleted: BlockUninstallIfWorkloadsExist (the deletion is refused "
        "while there are any; the default) or RemoveWorkloads (they are deleted).",
    ),
    field(
        "imagePullPolicy",
        STRING,
        "Pull policy of the components' images, and of the launchers' if the configuration has none.",
    ),
    field(
        "imagePullSecrets",
        ListOf(LOCAL_REFERENCE),
        "Pull secrets of the components, and of launcher Pods, by name in the namespace of each.",
    ),
    field("infra", INFRA, "Placement and replicas of virt-api and virt-controller."),
    field("workloads", WORKLOADS, "Placement of virt-handler."),
    field("certificateRotateStrategy", ROTATION, "Lifetimes of certificates."),
    field(
        "workloadUpdateStrategy",
        WORKLOAD_UPDATES,
        "How machines that run get the launcher of a new version; not at all if not given.",
    ),
    field("productName", STRING, "Product this belongs to; not used."),
    field("productVersion", STRING, "Version of that product; not used."),
    field("productComponent", STRING, "Component of that product; not used."),
    idle("customizeComponents", "Patches of the components.", CUSTOMIZATION, neutral=_EMPTY),
    idle("imageRegistry", "Registry of the components' images.", neutral=("",)),
    idle("imageTag", "Tag of the components' images.", neutral=("",)),
    idle("monitorAccount", "Account of the monitoring.", neutral=("",)),
    idle("monitorNamespace", "Namespace of the monitoring.", neutral=("",)),
    idle("serviceMonitorNamespace", "Namespace of the ServiceMonitor.", neutral=("",)),
    idle("synchronizationPort", "Port of the synchronization controller.", neutral=("",)),
)

KUBEVIRT_STATUS = Struct(
    "The observed state of the engine. Only the engine writes it.",
    field("phase", STRING, "Deploying, Deployed, Deleting or Deleted."),
    field("conditions", CONDITIONS, "Available, Progressing, Degraded, Created and Synchronized."),
    field("observedGeneration", INT64, "Generation of the object this status is about."),
    field("observedKubeVirtVersion", STRING, "Version of the engine that runs."),
    field("observedKubeVirtRegistry", STRING, "Registry its images come from."),
    field("observedDeploymentID", STRING, "Image of its launchers."),
    field("operatorVersion", STRING, "Version of the component that writes this status."),
    field("targetKubeVirtVersion", STRING, "Version that is being deployed."),
    field("targetKubeVirtRegistry", STRING, "Registry that is being deployed from."),
    field("targetDeploymentID", STRING, "Image of launchers that is being deployed."),
    field("defaultArchitecture", STRING, "Architecture of machines that don't specify one."),
    field("outdatedVirtualMachineInstanceWorkloads", INT64, "Machines whose launcher differs from that of new ones."),
    field("generations", FREE, "Generations of the components."),
    field("synchronizationAddresses", STRINGS, "Addresses of the synchronization controller."),
)

SCHEMA = Struct(
    "The engine's configuration, and whether it can be used. There is one, in the engine's namespace.",
    field("spec", KUBEVIRT_SPEC, "The desired setup of the engine.", required=True),
    field("status", KUBEVIRT_STATUS, "The observed state of the engine."),
)
