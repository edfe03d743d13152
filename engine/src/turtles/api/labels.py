# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels, annotations and finalizers of the KubeVirt API, under the names KubeVirt gives them."""

from __future__ import annotations

# Labels of Pods and VirtualMachineInstances
APP = "kubevirt.io"
APP_LAUNCHER = "virt-launcher"
APP_HOTPLUG_DISK = "hotplug-disk"
CREATED_BY = "kubevirt.io/created-by"
DOMAIN = "kubevirt.io/domain"
NODE_NAME = "kubevirt.io/nodeName"
MIGRATION_TARGET_NODE_NAME = "kubevirt.io/migrationTargetNodeName"
MIGRATION_JOB_UID = "kubevirt.io/migrationJobUID"
INSTALL_STRATEGY = "kubevirt.io/install-strategy"
VM_NAME = "vm.kubevirt.io/name"
VMI_ID = "vmi.kubevirt.io/id"
#: Of a pool's machines, their templates and instances: the revision of the pool that they were made from.
POOL_REVISION = "kubevirt.io/vm-pool-revision-name"
OUTDATED_LAUNCHER = "kubevirt.io/outdatedLauncherImage"

# Labels, annotations and extended resources of Nodes
NODE_SCHEDULABLE = "kubevirt.io/schedulable"
NODE_HEARTBEAT = "kubevirt.io/heartbeat"
#: Where the node's virt-handler takes requests about its guests, and how to recognise it (`turtles.api.node_server`).
NODE_SERVER = "kubevirt.io/virt-handler-server"
#: Where it takes guests from other nodes, likewise.
NODE_MIGRATION_SERVER = "kubevirt.io/virt-handler-migration-server"
#: Whether the node's kubelet gives containers processors of their own; KubeVirt has both names.
CPU_MANAGER = ("cpumanager", "kubevirt.io/cpumanager")
#: Nodes whose kernel leaves all of the time to realtime tasks, and whose processor encrypts guests' memory.
REALTIME = "kubevirt.io/realtime"
SEV, SEV_ES, SEV_SNP = "kubevirt.io/sev", "kubevirt.io/sev-es", "kubevirt.io/sev-snp"
ARCH = "kubernetes.io/arch"
CPU_MODEL_PREFIX = "cpu-model.node.kubevirt.io/"
CPU_MODEL_MIGRATION_PREFIX = "cpu-model-migration.node.kubevirt.io/"
CPU_FEATURE_PREFIX = "cpu-feature.node.kubevirt.io/"
CPU_VENDOR_PREFIX = "cpu-vendor.node.kubevirt.io/"
CPU_TIMER_PREFIX = "cpu-timer.node.kubevirt.io/"
SCHEDULING_PREFIX = "scheduling.node.kubevirt.io/"
HOST_MODEL_CPU_PREFIX = "host-model-cpu.node.kubevirt.io/"
HOST_MODEL_REQUIRED_FEATURES_PREFIX = "host-model-required-features.node.kubevirt.io/"
MACHINE_TYPE_PREFIX = "machine-type.node.kubevirt.io/"
OBSOLETE_HOST_MODEL = "node-labeller.kubevirt.io/obsolete-host-model"
SKIP_NODE_LABELLER = "node-labeller.kubevirt.io/skip-node"
DEVICE_KVM = "devices.kubevirt.io/kvm"
DEVICE_SEV = "devices.kubevirt.io/sev"
DEVICE_TUN = "devices.kubevirt.io/tun"
DEVICE_VHOST_NET = "devices.kubevirt.io/vhost-net"
DEVICE_VHOST_VSOCK = "devices.kubevirt.io/vhost-vsock"

# Annotations
VM_GENERATION = "kubevirt.io/vm-generation"
#: Versions of the API that KubeVirt's controllers write on VirtualMachines and their instances: the newest they know,
#: and the one that is stored.
OBSERVED_VERSIONS = {
    "kubevirt.io/latest-observed-api-version": "v1",
    "kubevirt.io/storage-observed-api-version": "v1",
}
MIGRATION_TRANSPORT_UNIX = "kubevirt.io/migrationTransportUnix"
#: Names (JSON) of the volumes that a VMI has and its VirtualMachine hasn't, since they were added to it alone.
EPHEMERAL_HOTPLUG = "kubevirt.io/ephemeral-hotplug-volumes"
MEMORY_OVERHEAD = "kubevirt.io/memory-overhead-bytes"
#: What Ignition configures the guest with, on a VMI.
IGNITION = "kubevirt.io/ignitiondata"
PCI_TOPOLOGY_VERSION = "kubevirt.io/pci-topology-version"
PCI_TOPOLOGY_V3 = "v3"
#: Annotations of a Pod for Multus, and of Multus: secondary networks, the one instead of the Pod network, what it got.
NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
#: Of a NetworkAttachmentDefinition: the resource that its device plugin offers. Of a Pod: its networks' devices (JSON).
RESOURCE_NAME, NETWORK_INFO = "k8s.v1.cni.cncf.io/resourceName", "kubevirt.io/network-info"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
#: virt-handler's interface on the network of migrations.
MIGRATION_INTERFACE = "migration0"
#: Over how many connections the memory of a machine is migrated.
MULTI_THREADED_MIGRATION = "kubevirt.io/multiThreadedQemuMigration"
ALLOW_POD_BRIDGE_MIGRATION = "kubevirt.io/allow-pod-bridge-network-live-migration"
EVICT_ONLY = "descheduler.alpha.kubernetes.io/request-evict-only"
INSTANCETYPE = "kubevirt.io/instancetype-name"
CLUSTER_INSTANCETYPE = "kubevirt.io/cluster-instancetype-name"
PREFERENCE = "kubevirt.io/preference-name"
CLUSTER_PREFERENCE = "kubevirt.io/cluster-preference-name"
#: Labels of a volume that say which instance type and which preference suit what is on it, and their kinds.
DEFAULT_INSTANCETYPE = "instancetype.kubevirt.io/default-instancetype"
DEFAULT_PREFERENCE = "instancetype.kubevirt.io/default-preference"
#: Labels of a ControllerRevision that say of which object it is a copy.
REVISION_OF_GENERATION = "instancetype.kubevirt.io/object-generation"
REVISION_OF_KIND = "instancetype.kubevirt.io/object-kind"
REVISION_OF_NAME = "instancetype.kubevirt.io/object-name"
REVISION_OF_UID = "instancetype.kubevirt.io/object-uid"
REVISION_OF_VERSION = "instancetype.kubevirt.io/object-version"
#: "true" keeps presets away from a VirtualMachineInstance; those that gave it something are marked with their names.
EXCLUDE_PRESETS = "virtualmachineinstancepresets.admission.kubevirt.io/exclude"
PRESET_MARK_PREFIX = "virtualmachinepreset.kubevirt.io/"

#: Of a claim: the file with a guest's memory, or that there is none.
MEMORY_DUMP = "kubevirt.io/memory-dump"

# Finalizers. The un-prefixed one was KubeVirt's before v1 and is replaced where it is met.
VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
VM_FINALIZER_OLD = "virtualMachineControllerFinalize"
#: Of pools and their machines.
POOL_FINALIZER = "pool.kubevirt.io/finalizer"
VMI_FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"
VMI_FINALIZER_OLD = "foregroundDeleteVirtualMachine"

# Readiness gate and condition of launcher Pods
UNPAUSED_READINESS_GATE = "kubevirt.io/virtual-machine-unpaused"

# Labels which only the engine may set on a VirtualMachineInstance
RESERVED_VMI_LABELS = (
    CREATED_BY,
    MIGRATION_JOB_UID,
    NODE_NAME,
    MIGRATION_TARGET_NODE_NAME,
    NODE_SCHEDULABLE,
    INSTALL_STRATEGY,
)
