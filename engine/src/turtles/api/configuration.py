# SPDX-License-Identifier: GPL-3.0-or-later
"""What an installation chooses for all of its machines: the KubeVirt object read into plain values. Pure.

Names, meanings and defaults are those of the KubeVirt API (kubevirt.io/v1 KubeVirt, spec.configuration) and of the
KubeVirt user guide, "Activating feature gates" and "Node overcommit".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from turtles.api import durations, quantity

#: ``workloadUpdateStrategy.workloadUpdateMethods``.
LIVE_MIGRATE, EVICT = "LiveMigrate", "Evict"
UPDATE_METHODS = (LIVE_MIGRATE, EVICT)

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
#: Whether disks grow with their claims while guests run.
EXPAND_DISKS = "ExpandDisks"
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
        EXPAND_DISKS,
        GPUS_WITH_DRA,
        HOST_DEVICES,
        HOST_DEVICES_WITH_DRA,
        HOST_DISK,
        HOTPLUG_VOLUMES,
        HOTPLUG_VOLUMES_FORMER,
        IGNITION,
        IMAGE_VOLUME,
        NETWORK_DEVICES_WITH_DRA,
        OBJECT_GRAPH,
        PASST_BINDING,
        PORT_RANGES,
        REBOOT_POLICY,
        SIDECAR,
        VIRTIOFS_STORAGE,
        VSOCK,
    )
)
#: Verbosity from which on everything is logged.
_DEBUG = 3
_VERBOSITY = 2
#: Part of its lifetime that a certificate has left when it is replaced, by default.
_REST = 0.2


@dataclass(frozen=True)
class Rotation:
    """How long certificates live, and how long before their end they are replaced.

    :param authority: lifetime of the authority. :param authority_rest: what is left of it when it is replaced.
    :param serving: lifetime of serving certificates. :param serving_rest: what is left of it then.
    """

    authority: timedelta = timedelta(days=365)
    authority_rest: timedelta = timedelta(days=365) * _REST
    serving: timedelta = timedelta(days=30)
    serving_rest: timedelta = timedelta(days=30) * _REST


#: Machine types of architectures other than amd64, for which alone an installation can choose one.
_MACHINE_TYPES = {"arm64": "virt", "s390x": "s390-ccw-virtio"}
#: CPU that is requested by default. To ask for as much is to ask for nothing.
_CPU_REQUEST = "100m"

#: What SMBIOS tells guests by default, as in KubeVirt.
SMBIOS = {"manufacturer": "KubeVirt", "product": "None", "family": "KubeVirt"}


@dataclass(frozen=True)
class PermittedDevices:
    """Devices of nodes that guests may have, by the resource that Pods request for them.

    :param pci: vendor and device in lower case, such as ``10de:1eb8``. :param mediated: name of the type.
    :param usb: vendors and products, in lower case, of the devices that are assigned together.
    :param external: resources that other device plugins offer.
    """

    pci: Mapping[str, str] = field(default_factory=dict)
    mediated: Mapping[str, str] = field(default_factory=dict)
    usb: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    external: frozenset[str] = frozenset()

    @property
    def resources(self) -> frozenset[str]:
        """All resources."""
        return frozenset((*self.pci, *self.mediated, *self.usb))


@dataclass(frozen=True)
class Migrations:
    """How machines are migrated live. Defaults are KubeVirt's.

    :param parallel_per_cluster: how many may run at once. :param parallel_outbound_per_node: and leave one node.
    :param bandwidth: bytes per second of each; 0 is no limit.
    :param completion_timeout_per_gib: seconds that each GiB of memory and of disks that are copied may take.
    :param progress_timeout: seconds without progress after which one is aborted.
    :param allow_workload_disruption: guests that don't converge are paused, so that they do.
    :param unsafe: guests are migrated although their disks' cache isn't known to be safe.
    :param drain_taint: key of the taint of nodes that machines have to leave.
    """

    parallel_per_cluster: int = 5
    parallel_outbound_per_node: int = 2
    bandwidth: int = 0
    completion_timeout_per_gib: int = 150
    progress_timeout: int = 150
    allow_auto_converge: bool = False
    allow_post_copy: bool = False
    allow_workload_disruption: bool = False
    unsafe: bool = False
    drain_taint: str = "kubevirt.io/drain"


@dataclass(frozen=True)
class WorkloadUpdates:
    """How running machines get the launcher of a new version: ``spec.workloadUpdateStrategy``.

    :param migrate: by a live migration. :param evict: machines that can't be migrated, by an eviction.
    :param batch_size: machines that are evicted at once. :param batch_interval: seconds between two batches.
    """

    migrate: bool = False
    evict: bool = False
    batch_size: int = 10
    batch_interval: float = 60.0


#: Who makes the tap of an interface with a network binding plugin: the plugin's CNI plugin, or the engine.
TAP, MANAGED_TAP = "tap", "managedTap"


@dataclass(frozen=True)
class BindingPlugin:
    """A network binding plugin.

    :param attachment: :data:`TAP`, :data:`MANAGED_TAP`, or nothing where its sidecar adds the interface.
    :param definition: a NetworkAttachmentDefinition that the Pod is attached to for each interface: [namespace/]name.
    :param sidecar_image: of its hook sidecar. Both may be empty.
    :param migratable: guests with it can be migrated on the Pod network.
    :param memory: what the launcher needs in addition, a quantity.
    """

    attachment: str = ""
    definition: str = ""
    sidecar_image: str = ""
    migratable: bool = False
    memory: str = "0"


@dataclass(frozen=True)
class ClusterConfiguration:
    """The configuration in force; without a KubeVirt object that of an empty one.

    :param architecture: of machines which don't say theirs, as are machine_type, cpu_model, eviction_strategy.
    :param default_network_interface: binding of an interface that is added because none is declared.
    :param permit_bridge_on_pod_network: whether bridge may be used on the Pod network.
    :param emulated_machines: patterns of machine types that are allowed.
    :param cpu_request: CPU requested for machines that ask for none, a quantity; None leaves it to the ratio.
    :param use_emulation: True emulates guests, False makes them wait for KVM, None takes KVM where there is some.
    :param cpu_allocation_ratio: virtual processors that share one CPU of the node.
    :param memory_overcommit: memory of guests in percent of what is requested for it.
    :param node_selectors: labels a node must have to run machines.
    :param feature_gates: those that are on.
    :param named_gates: those of them that were named in the configuration.
    :param image_pull_policy: of the launchers' image; None leaves it to the installation.
    :param image_pull_secrets: names of Secrets in the launcher Pods' namespaces.
    :param verbosity: of components by KubeVirt's key, such as virtAPI.
    :param uninstall_blocked: whether the KubeVirt object can't be deleted while there are machines.
    :param smbios: manufacturer, product, version, sku and family that guests see.
    :param rotation: lifetimes of certificates.
    :param balloon_stats_period: seconds between two statistics of guests' memory; 0: none are asked for.
    :param free_page_reporting: whether guests give back memory that they don't use.
    :param overhead_ratio: factor of the memory that Pods need in addition to their guests'.
    :param runtime_class: of launcher Pods; None is the cluster's default.
    :param live_update: whether changes of a running VirtualMachine reach its guest where they can, at once.
    :param max_hotplug_ratio: how many times its processors and memory a machine may grow to, if it doesn't say.
    :param max_cpu_sockets: sockets a machine may grow to, if it doesn't say; 0: the ratio decides.
    :param max_guest: memory a machine may grow to, if it doesn't say, a quantity; None: the ratio decides.
    :param log_serial_console: whether the serial console of a machine that doesn't say so is logged.
    :param state_storage_class: of claims with what outlives machines beside their disks; None: there are none.
    :param permitted_devices: devices of nodes that guests may have; None permits all that device plugins offer.
    :param migrations: how machines are migrated live.
    :param bindings: network binding plugins, by name.
    :param workload_updates: how running machines get the launcher of a new version.
    """

    architecture: str = "amd64"
    machine_type: str = "q35"
    cpu_model: str = "host-model"
    default_network_interface: str = "bridge"
    permit_bridge_on_pod_network: bool = True
    eviction_strategy: str = "None"
    emulated_machines: tuple[str, ...] = ("q35*", "pc-q35*")
    cpu_request: str | None = None
    use_emulation: bool | None = None
    cpu_allocation_ratio: int = 10
    memory_overcommit: int = 100
    node_selectors: Mapping[str, str] = field(default_factory=dict)
    feature_gates: frozenset[str] = DEFAULT_GATES
    named_gates: frozenset[str] = frozenset()
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    verbosity: Mapping[str, int] = field(default_factory=dict)
    uninstall_blocked: bool = True
    smbios: Mapping[str, str] = field(default_factory=lambda: dict(SMBIOS))
    rotation: Rotation = Rotation()
    balloon_stats_period: int = 10
    free_page_reporting: bool = True
    overhead_ratio: float = 1.0
    runtime_class: str | None = None
    live_update: bool = True
    max_hotplug_ratio: int = 4
    max_cpu_sockets: int = 0
    max_guest: str | None = None
    permitted_devices: PermittedDevices | None = None
    state_storage_class: str | None = None
    log_serial_console: bool = True
    migrations: Migrations = Migrations()
    bindings: Mapping[str, BindingPlugin] = field(default_factory=dict)
    workload_updates: WorkloadUpdates = WorkloadUpdates()

    def machine_type_of(self, architecture: str) -> str:
        """Return the machine type of machines of an architecture which don't say theirs."""
        return _MACHINE_TYPES.get(architecture, self.machine_type)

    def emulated_machines_of(self, architecture: str) -> tuple[str, ...]:
        """Return the patterns of machine types that are allowed for an architecture."""
        other = _MACHINE_TYPES.get(architecture)
        return (f"{other}*",) if other else self.emulated_machines

    def has_gate(self, name: str) -> bool:
        """Say whether a feature gate is on."""
        return name in self.feature_gates

    def log_level(self, component: str) -> str:
        """Return the log level of a component by KubeVirt's key, such as virtController: info or debug."""
        return "debug" if self.verbosity.get(component, _VERBOSITY) >= _DEBUG else "info"


#: The configuration of an empty KubeVirt object.
DEFAULT = ClusterConfiguration()


def from_kubevirt(kubevirt: Mapping[str, Any] | None, architecture: str = DEFAULT.architecture) -> ClusterConfiguration:
    """Read a KubeVirt object; None means an empty one.

    `architecture` is that of machines if neither they nor the object say. The object's shape is that of its schema,
    which the API server has made sure of; values that its validation would refuse (a ratio of 0) count as not given.
    """
    spec = (kubevirt or {}).get("spec") or {}
    configuration = spec.get("configuration") or {}
    developer = configuration.get("developerConfiguration") or {}
    network = configuration.get("network") or {}
    architectures = configuration.get("architectureConfiguration") or {}
    amd64 = architectures.get("amd64") or {}
    machines = amd64.get("emulatedMachines") or configuration.get("emulatedMachines")
    request = configuration.get("cpuRequest")
    permit_bridge = network.get("permitBridgeInterfaceOnPodNetwork")
    period = configuration.get("memBalloonStatsPeriod")
    options = configuration.get("virtualMachineOptions") or {}
    live = configuration.get("liveUpdateConfiguration") or {}
    secrets = (reference.get("name") for reference in spec.get("imagePullSecrets") or ())
    return ClusterConfiguration(
        architecture=architectures.get("defaultArchitecture") or architecture,
        machine_type=amd64.get("machineType") or configuration.get("machineType") or DEFAULT.machine_type,
        cpu_model=configuration.get("cpuModel") or DEFAULT.cpu_model,
        default_network_interface=network.get("defaultNetworkInterface") or DEFAULT.default_network_interface,
        permit_bridge_on_pod_network=permit_bridge is not False,
        eviction_strategy=configuration.get("evictionStrategy") or DEFAULT.eviction_strategy,
        emulated_machines=tuple(machines or DEFAULT.emulated_machines),
        cpu_request=None if request in (None, "", 0, "0", _CPU_REQUEST) else str(request),
        use_emulation=developer.get("useEmulation"),
        cpu_allocation_ratio=_positive(developer.get("cpuAllocationRatio"), DEFAULT.cpu_allocation_ratio),
        memory_overcommit=_positive(developer.get("memoryOvercommit"), DEFAULT.memory_overcommit),
        node_selectors=dict(developer.get("nodeSelectors") or {}),
        feature_gates=_gates(developer.get("featureGates") or (), developer.get("disabledFeatureGates") or ()),
        named_gates=frozenset(developer.get("featureGates") or ())
        - frozenset(developer.get("disabledFeatureGates") or ()),
        image_pull_policy=configuration.get("imagePullPolicy") or spec.get("imagePullPolicy") or None,
        image_pull_secrets=tuple(name for name in secrets if name),
        verbosity={key: value for key, value in (developer.get("logVerbosity") or {}).items() if type(value) is int},
        uninstall_blocked=spec.get("uninstallStrategy") != "RemoveWorkloads",
        smbios={**SMBIOS, **{key: value for key, value in (configuration.get("smbios") or {}).items() if value}},
        rotation=rotation(spec),
        balloon_stats_period=DEFAULT.balloon_stats_period if period is None else period,
        free_page_reporting=options.get("disableFreePageReporting") is None,
        overhead_ratio=ratio(configuration.get("additionalGuestMemoryOverheadRatio")) or DEFAULT.overhead_ratio,
        runtime_class=configuration.get("defaultRuntimeClass") or None,
        live_update=configuration.get("vmRolloutStrategy") != "Stage",
        max_hotplug_ratio=_positive(live.get("maxHotplugRatio"), DEFAULT.max_hotplug_ratio),
        max_cpu_sockets=_positive(live.get("maxCpuSockets"), DEFAULT.max_cpu_sockets),
        max_guest=None if live.get("maxGuest") is None else str(live["maxGuest"]),
        log_serial_console=options.get("disableSerialConsoleLog") is None,
        state_storage_class=configuration.get("vmStateStorageClass") or None,
        permitted_devices=_permitted_devices(configuration.get("permittedHostDevices")),
        migrations=_migrations(configuration.get("migrations") or {}),
        bindings={name: _binding(each) for name, each in (network.get("binding") or {}).items()},
        workload_updates=_workload_updates(spec.get("workloadUpdateStrategy") or {}),
    )


def _binding(plugin: Mapping[str, Any]) -> BindingPlugin:
    overhead = (plugin.get("computeResourceOverhead") or {}).get("requests") or {}
    return BindingPlugin(
        attachment=plugin.get("domainAttachmentType") or "",
        definition=plugin.get("networkAttachmentDefinition") or "",
        sidecar_image=plugin.get("sidecarImage") or "",
        migratable=plugin.get("migration") is not None,
        memory=str(overhead.get("memory") or "0"),
    )


def _migrations(settings: Mapping[str, Any]) -> Migrations:
    default, post_copy = Migrations(), bool(settings.get("allowPostCopy"))
    disruption = settings.get("allowWorkloadDisruption")
    try:
        bandwidth = quantity.to_int(settings["bandwidthPerMigration"])
    except (KeyError, TypeError, ValueError):
        bandwidth = default.bandwidth
    return Migrations(
        parallel_per_cluster=_positive(settings.get("parallelMigrationsPerCluster"), default.parallel_per_cluster),
        parallel_outbound_per_node=_positive(
            settings.get("parallelOutboundMigrationsPerNode"), default.parallel_outbound_per_node
        ),
        bandwidth=max(0, bandwidth),
        completion_timeout_per_gib=_positive(
            settings.get("completionTimeoutPerGiB"), default.completion_timeout_per_gib
        ),
        progress_timeout=_positive(settings.get("progressTimeout"), default.progress_timeout),
        allow_auto_converge=bool(settings.get("allowAutoConverge")),
        allow_post_copy=post_copy,
        allow_workload_disruption=post_copy if disruption is None else bool(disruption),
        unsafe=bool(settings.get("unsafeMigrationOverride")),
        drain_taint=settings.get("nodeDrainTaintKey") or default.drain_taint,
    )


def _workload_updates(strategy: Mapping[str, Any]) -> WorkloadUpdates:
    methods, default = strategy.get("workloadUpdateMethods") or (), WorkloadUpdates()
    size = strategy.get("batchEvictionSize")
    try:
        interval = durations.parse(strategy["batchEvictionInterval"]).total_seconds()
    except (KeyError, durations.DurationError):
        interval = default.batch_interval
    return WorkloadUpdates(
        migrate=LIVE_MIGRATE in methods,
        evict=EVICT in methods,
        batch_size=default.batch_size if size is None else max(0, size),
        batch_interval=max(0.0, interval),
    )


def _permitted_devices(permitted: Mapping[str, Any] | None) -> PermittedDevices | None:
    if permitted is None:
        return None
    pci, mediated = permitted.get("pciHostDevices") or (), permitted.get("mediatedDevices") or ()
    usb = permitted.get("usb") or ()
    return PermittedDevices(
        pci={each["resourceName"]: each["pciVendorSelector"].lower() for each in pci},
        mediated={each["resourceName"]: each["mdevNameSelector"] for each in mediated},
        usb={
            each["resourceName"]: tuple(
                f"{selector['vendor']}:{selector['product']}".lower() for selector in each.get("selectors") or ()
            )
            for each in usb
        },
        external=frozenset(
            each["resourceName"] for each in (*pci, *mediated, *usb) if each.get("externalResourceProvider")
        ),
    )


def ratio(text: Any) -> float | None:
    """Read a ratio, such as 1.5; None if it is none, or less than 1."""
    try:
        found = float(text)
    except (TypeError, ValueError):
        return None
    return found if 1 <= found < math.inf else None


def rotation(spec: Mapping[str, Any]) -> Rotation:
    """Read a KubeVirt object's certificateRotateStrategy. What can't be read or is missing has its default."""
    found = (spec.get("certificateRotateStrategy") or {}).get("selfSigned") or {}
    authority, serving = found.get("ca") or {}, found.get("server") or {}
    lifetime = _duration(found.get("caRotateInterval"), authority.get("duration")) or Rotation.authority
    rest = _duration(found.get("caOverlapInterval"), authority.get("renewBefore")) or lifetime * _REST
    shorter = min(Rotation.serving, lifetime)
    serving_lifetime = _duration(found.get("certRotateInterval"), serving.get("duration")) or shorter
    serving_rest = _duration(serving.get("renewBefore")) or serving_lifetime * _REST
    return Rotation(lifetime, rest, serving_lifetime, serving_rest)


def _duration(*texts: Any) -> timedelta | None:
    """Read the first that is given."""
    text = next((text for text in texts if text), None)
    try:
        return None if text is None else durations.parse(text)
    except durations.DurationError:
        return None


def in_force(kubevirts: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the KubeVirt object that counts: the oldest. Admission allows one, but may not have been there."""
    return min(
        kubevirts,
        key=lambda found: (found["metadata"].get("creationTimestamp") or "", found["metadata"]["name"]),
        default=None,
    )


def _positive(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default


def _gates(enabled: Iterable[str], disabled: Iterable[str]) -> frozenset[str]:
    return (DEFAULT_GATES | frozenset(enabled)) - frozenset(disabled)
