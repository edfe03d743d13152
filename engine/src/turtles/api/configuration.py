# SPDX-License-Identifier: GPL-3.0-or-later
"""What an installation chooses for all of its machines: the KubeVirt object as plain values.

Names, meanings and defaults are those of the KubeVirt API (kubevirt.io/v1 KubeVirt, spec.configuration) and of the
KubeVirt user guide, "Node overcommit".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from turtles.api.feature_gates import DEFAULT_GATES

#: ``workloadUpdateStrategy.workloadUpdateMethods``.
LIVE_MIGRATE, EVICT = "LiveMigrate", "Evict"
UPDATE_METHODS = (LIVE_MIGRATE, EVICT)
#: Verbosity from which on everything is logged.
_DEBUG = 3
_VERBOSITY = 2
#: Part of its lifetime that a certificate has left when it is replaced, by default.
REST = 0.2


@dataclass(frozen=True)
class Rotation:
    """How long certificates live, and how long before their end they are replaced.

    :param authority: lifetime of the authority. :param authority_rest: what is left of it when it is replaced.
    :param serving: lifetime of serving certificates. :param serving_rest: what is left of it then.
    """

    authority: timedelta = timedelta(days=365)
    authority_rest: timedelta = timedelta(days=365) * REST
    serving: timedelta = timedelta(days=30)
    serving_rest: timedelta = timedelta(days=30) * REST


#: Machine types of architectures other than amd64, for which alone an installation can choose one.
_MACHINE_TYPES = {"arm64": "virt", "s390x": "s390-ccw-virtio"}

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
    :param max_downtime: milliseconds that a guest may stand still at the end.
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
    max_downtime: int = 900
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
    :param seccomp_profile: of launcher Pods, as Pods have it; None leaves it to the engine.
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
    seccomp_profile: Mapping[str, str] | None = None

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
