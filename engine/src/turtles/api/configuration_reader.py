# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the KubeVirt object into the configuration of an installation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from turtles.api import durations, quantity
from turtles.api.configuration import (
    DEFAULT,
    EVICT,
    LIVE_MIGRATE,
    REST,
    SMBIOS,
    BindingPlugin,
    ClusterConfiguration,
    Migrations,
    PermittedDevices,
    Rotation,
    WorkloadUpdates,
)
from turtles.api.feature_gates import DEFAULT_GATES, PERSISTENT_RESERVATION

#: CPU that is requested by default. To ask for as much is to ask for nothing.
_CPU_REQUEST = "100m"


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
    reservations = configuration.get("persistentReservationConfiguration") or {}
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
        feature_gates=_gates(developer.get("featureGates") or (), developer.get("disabledFeatureGates") or ())
        | ({PERSISTENT_RESERVATION} if reservations.get("enabled") is True else frozenset()),
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
        seccomp_profile=_seccomp_profile(configuration.get("seccompConfiguration") or {}),
    )


def _seccomp_profile(settings: Mapping[str, Any]) -> dict[str, str] | None:
    custom = (settings.get("virtualMachineInstanceProfile") or {}).get("customProfile") or {}
    if custom.get("runtimeDefaultProfile"):
        return {"type": "RuntimeDefault"}
    if path := custom.get("localhostProfile"):
        return {"type": "Localhost", "localhostProfile": path}
    return None


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
        max_downtime=_positive(settings.get("maxDowntimeMs"), default.max_downtime),
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
        factor = float(text)
    except (TypeError, ValueError):
        return None
    return factor if 1 <= factor < math.inf else None


def rotation(spec: Mapping[str, Any]) -> Rotation:
    """Read a KubeVirt object's certificateRotateStrategy. What can't be read or is missing has its default."""
    lifetimes = (spec.get("certificateRotateStrategy") or {}).get("selfSigned") or {}
    authority, serving = lifetimes.get("ca") or {}, lifetimes.get("server") or {}
    lifetime = _duration(lifetimes.get("caRotateInterval"), authority.get("duration")) or Rotation.authority
    rest = _duration(lifetimes.get("caOverlapInterval"), authority.get("renewBefore")) or lifetime * REST
    shorter = min(Rotation.serving, lifetime)
    serving_lifetime = _duration(lifetimes.get("certRotateInterval"), serving.get("duration")) or shorter
    serving_rest = _duration(serving.get("renewBefore")) or serving_lifetime * REST
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
