# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KubeVirt object is: how the engine is set up, and how it is.

Names and meanings are those of the KubeVirt API, kubevirt.io/v1 KubeVirt. Keys which KubeVirt has and the engine
doesn't honour are declared `idle`, so that admission can name them.
"""

from __future__ import annotations

from turtles.api.core import AFFINITY, CONDITIONS, FREE, LOCAL_REFERENCE, TOLERATIONS
from turtles.api.kinds.kubevirt.configuration import CONFIGURATION
from turtles.api.language import (
    INT32,
    INT64,
    STRING,
    STRING_MAP,
    STRINGS,
    UINT8,
    ListOf,
    Struct,
    field,
    group,
    group_list,
    idle,
)

CUSTOMIZATION = Struct(
    "Changes of the components' manifests.",
    group_list(
        "patches",
        "Patches.",
        field("resourceName", STRING, "Name of the object.", required=True),
        field("resourceType", STRING, "Kind of the object.", required=True),
        field("patch", STRING, "The patch, in JSON.", required=True),
        field("type", STRING, "strategic, merge or json.", required=True),
    ),
    idle("flags", "Command line flags."),
)


_PLACEMENT = Struct(
    "Placement of Pods, in addition to their own.",
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
    group(
        "selfSigned",
        "Lifetimes of certificates. Shorter ones take effect immediately.",
        field("ca", _CERTIFICATE, "Of the authority; 8760h (a year) if not given."),
        field("server", _CERTIFICATE, "Of virt-api's own; 720h if not given, at most the authority's."),
        field("caRotateInterval", STRING, "Deprecated: ca.duration."),
        field("caOverlapInterval", STRING, "Deprecated: ca.renewBefore."),
        field("certRotateInterval", STRING, "Deprecated: server.duration."),
    ),
)

WORKLOAD_UPDATES = Struct(
    "How running machines get an updated launcher.",
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
        "How running machines get an updated launcher; not at all if not given.",
    ),
    field("productName", STRING, "Product this belongs to; not used."),
    field("productVersion", STRING, "Version of that product; not used."),
    field("productComponent", STRING, "Component of that product; not used."),
    idle("customizeComponents", "Patches of the components.", CUSTOMIZATION, neutral=({},)),
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
