# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod that runs a VirtualMachineInstance, as a pure function.

Shape, labels and annotations are KubeVirt's (kubevirt.io API, "virt-launcher pod"), so that Services, network
policies and tools that select launcher Pods work unchanged. Image volumes bring container disks, or, where the server
has none, a container per image that runs a program of ours along with the image's files.

Anyone who may read Pods sees all of it, so it names Secrets but holds nothing of what a VMI may keep secret: the
launcher gets its VMI from the node agent (:mod:`turtles.domain.handover`).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import configuration, labels, quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.guests import QEMU_UID, grace_period, hostname
from turtles.api.objects import Object, owner_reference
from turtles.controller.pod import memory, placement
from turtles.domain import paths
from turtles.domain.definition import cpu_topology

#: Seconds the guest's own grace period is lengthened by: for the launcher to end QEMU, for the kubelet to end the Pod.
LAUNCHER_GRACE, POD_GRACE = 15, 30

#: Scratch directories: volume name → mount path. The node agent finds them by these names.
_SCRATCH = {name: str(path) for path, name in paths.EMPTY_DIRS.items()}
#: Further volumes of Pods without image volumes: the program of the images' containers, and where images are mounted.
_PROGRAM_VOLUME, _DISKS_VOLUME = "virt-bin-share-dir", "container-disks"
#: Annotations of a VMI that mean something else on a Pod, or repeat the VMI.
_OWN_ANNOTATIONS = frozenset(("kubectl.kubernetes.io/last-applied-configuration", *labels.OBSERVED_VERSIONS))
_DNS_LABEL = 63
#: Memory limit of a Pod whose namespace's quota demands one, as a multiple of its request (KubeVirt's).
_QUOTA_MEMORY_RATIO = 2


@dataclass(frozen=True)
class LauncherConfig:
    """What the installation and the nodes say about launcher Pods.

    :param image: of the container.
    :param kvm: some schedulable node offers working KVM; without it the guest is emulated.
    :param vhost_net: some schedulable node offers vhost-net.
    :param cluster: what the KubeVirt object says.
    :param image_volumes: images are mounted into Pods (Kubernetes KEP-4639). None leaves that to the versions of server
        and nodes and the feature gate, see :mod:`turtles.controller.server`; a Pod is made with True or False.
    :param limited: resources (cpu, memory) for which a ResourceQuota of the namespace demands limits.
    """

    image: str
    kvm: bool = False
    vhost_net: bool = False
    cluster: ClusterConfiguration = configuration.DEFAULT
    image_volumes: bool | None = None
    limited: frozenset[str] = frozenset()


def pod_name(vmi: Object) -> str:
    """Return the name of the VMI's Pod. The same VMI always gets the same name: creating twice makes one Pod."""
    metadata = vmi["metadata"]
    suffix = hashlib.sha256(metadata["uid"].encode()).hexdigest()[:5]
    # Pod names may have 253 characters, and no part of them may end in a hyphen.
    return f"virt-launcher-{metadata['name'][: 253 - 15 - 5].rstrip('-.')}-{suffix}"


def launcher_pod(vmi: Object, config: LauncherConfig) -> Object:
    """Return the Pod for a VMI that admission has defaulted and validated.

    :param vmi: with metadata.uid, and status.volumeStatus where it has claims.
    """
    metadata, spec = vmi["metadata"], vmi["spec"]
    architecture = spec.get("architecture") or "amd64"
    grace = grace_period(spec)
    host = hostname(vmi)
    overhead = memory.overhead(spec, kvm=config.kvm, ratio=config.cluster.overhead_ratio)
    block = paths.block_volumes(vmi)
    volumes, mounts, pull_secrets = _volumes(spec, config, block)
    resources = _resources(spec, config, overhead)
    command = [
        "/usr/bin/virt-launcher",
        "--name",
        metadata["name"],
        "--uid",
        metadata["uid"],
        "--namespace",
        metadata["namespace"],
        "--kubevirt-share-dir",
        str(paths.PUBLIC_DIR),
        "--ephemeral-disk-dir",
        str(paths.EPHEMERAL_DISKS_DIR),
        "--grace-period-seconds",
        str(grace + LAUNCHER_GRACE),
    ]
    if config.image_volumes:
        command.append("--image-volume")
    pod_spec: Object = {
        "restartPolicy": "Never",
        "hostname": host,
        "terminationGracePeriodSeconds": grace + POD_GRACE,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "readinessGates": [{"conditionType": labels.UNPAUSED_READINESS_GATE}],
        "securityContext": {
            "runAsUser": QEMU_UID,
            "runAsGroup": QEMU_UID,
            "fsGroup": QEMU_UID,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {
            **config.cluster.node_selectors,
            **(spec.get("nodeSelector") or {}),
            **placement.machine_selector(spec, kvm=config.kvm),
            labels.NODE_SCHEDULABLE: "true",
            labels.ARCH: architecture,
        },
        "containers": [
            {
                "name": "compute",
                "image": config.image,
                "imagePullPolicy": _pull_policy(config),
                "command": command,
                "env": [
                    # For virsh in the Pod: kubectl exec POD -- virsh list
                    {"name": "LIBVIRT_DEFAULT_URI", "value": f"qemu:///session?socket={paths.LIBVIRT_SOCKET}"},
                ],
                "resources": resources,
                "securityContext": _security("NET_BIND_SERVICE", readOnlyRootFilesystem=True),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if block:
        pod_spec["containers"][0]["volumeDevices"] = [
            {"name": _volume_name(name), "devicePath": str(paths.claim_device(name))} for name in sorted(block)
        ]
    if not config.image_volumes:
        _container_disks(spec, config, pod_spec)
    if ports := _ports(spec):
        pod_spec["containers"][0]["ports"] = ports
    pull_secrets = list(dict.fromkeys([*pull_secrets, *config.cluster.image_pull_secrets]))
    if pull_secrets:
        pod_spec["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    if affinity := placement.affinity(spec, kvm=config.kvm):
        pod_spec["affinity"] = affinity
    if config.cluster.runtime_class:
        pod_spec["runtimeClassName"] = config.cluster.runtime_class
    for key in (
        "subdomain",
        "dnsPolicy",
        "dnsConfig",
        "schedulerName",
        "priorityClassName",
        "tolerations",
        "topologySpreadConstraints",
    ):
        if spec.get(key):
            pod_spec[key] = spec[key]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(vmi),
            "namespace": metadata["namespace"],
            "labels": {
                **(metadata.get("labels") or {}),
                labels.APP: labels.APP_LAUNCHER,
                labels.CREATED_BY: metadata["uid"],
                labels.VM_NAME: host,
                labels.VMI_ID: _label_value(metadata["name"]),
            },
            "annotations": {
                **{
                    key: value
                    for key, value in (metadata.get("annotations") or {}).items()
                    if key not in _OWN_ANNOTATIONS
                },
                **_annotations(vmi, overhead),
            },
            "ownerReferences": [owner_reference(vmi)],
        },
        "spec": pod_spec,
    }


def _annotations(vmi: Object, overhead: int) -> dict[str, str]:
    annotations = {
        labels.DOMAIN: vmi["metadata"]["name"],
        labels.DEFAULT_CONTAINER: "compute",
        labels.MIGRATION_TRANSPORT_UNIX: "true",
        labels.MEMORY_OVERHEAD: str(overhead),
        labels.PCI_TOPOLOGY_VERSION: labels.PCI_TOPOLOGY_V3,
        labels.EVICT_ONLY: "",
    }
    if any("masquerade" in interface for interface in _interfaces(vmi["spec"])):
        # A service mesh has to send the guest's traffic through its proxy as well.
        annotations["istio.io/reroute-virtual-interfaces"] = "k6t-eth0"
        annotations["traffic.sidecar.istio.io/kubevirtInterfaces"] = "k6t-eth0"
    return annotations


def _interfaces(spec: Mapping[str, Any]) -> list[Object]:
    return ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or []


def _resources(spec: Mapping[str, Any], config: LauncherConfig, overhead: int) -> Object:
    resources = (spec.get("domain") or {}).get("resources") or {}
    requests, limits = dict(resources.get("requests") or {}), dict(resources.get("limits") or {})
    if "cpu" not in requests and "cpu" not in limits:
        requests["cpu"] = quantity.format_milli(
            max(1, 1000 * cpu_topology(spec).vcpus // config.cluster.cpu_allocation_ratio)
        )
    if "memory" in requests:
        memory = quantity.to_int(requests["memory"])
    else:
        guest = ((spec.get("domain") or {}).get("memory") or {}).get("guest") or limits.get("memory")
        memory = quantity.to_int(guest or 0) * 100 // config.cluster.memory_overcommit
    requests["memory"] = str(memory + overhead)
    if "memory" in limits:
        limits["memory"] = str(quantity.to_int(limits["memory"]) + overhead)
    elif "memory" in config.limited:
        limits["memory"] = str(_QUOTA_MEMORY_RATIO * (memory + overhead))
    if "cpu" in config.limited and "cpu" not in limits:
        limits["cpu"] = max(str(cpu_topology(spec).vcpus), str(requests["cpu"]), key=quantity.to_milli)
    requests.setdefault("ephemeral-storage", "50M")
    limits[labels.DEVICE_TUN] = "1"
    if config.kvm:
        limits[labels.DEVICE_KVM] = "1"
    if config.vhost_net and any(interface.get("model", "virtio") == "virtio" for interface in _interfaces(spec)):
        limits[labels.DEVICE_VHOST_NET] = "1"
    return {"requests": requests, "limits": limits}


def _ports(spec: Mapping[str, Any]) -> list[Object]:
    ports = []
    for interface in _interfaces(spec):
        for port in interface.get("ports") or ():
            entry = {"containerPort": port["port"], "protocol": port.get("protocol") or "TCP"}
            if port.get("name"):
                entry["name"] = port["name"]
            ports.append(entry)
    return ports


def _pull_policy(config: LauncherConfig) -> str:
    return config.cluster.image_pull_policy or "IfNotPresent"


def _security(*capabilities: str, **more: Any) -> Object:
    """Return the security context of a container of the Pod."""
    return {
        "runAsUser": QEMU_UID,
        "runAsGroup": QEMU_UID,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], **({"add": list(capabilities)} if capabilities else {})},
        **more,
    }


def _is_guaranteed(resources: Mapping[str, Any]) -> bool:
    requests, limits = resources["requests"], resources["limits"]
    return all(name in limits and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory"))


def _container_disks(spec: Mapping[str, Any], config: LauncherConfig, pod_spec: Object) -> None:
    """Add a container per container disk, and the init container that brings the program they run.

    The program takes a page or two of memory and no time. KubeVirt limits it to a hundredth of a CPU, which would hold
    up the runtime, whose first steps count as the container's, for seconds; so there is a limit of CPU only where a
    quota or the Pod's class of service demands one.
    """
    compute = pod_spec["containers"][0]["resources"]
    requests, limits = {"cpu": "1m", "memory": "1M"}, {"memory": "40M"}
    if _is_guaranteed(compute):
        # The Pod's class of service is to be what the VMI asks for.
        requests = limits = {"cpu": "100m", "memory": "40M"}
    elif "cpu" in config.limited:
        limits["cpu"] = "100m"
    resources = {"requests": requests, "limits": limits}
    program = {"name": _PROGRAM_VOLUME, "mountPath": str(paths.CONTAINER_DISK_BIN_DIR)}
    sockets = {"name": paths.EMPTY_DIRS[paths.SOCKETS_DIR], "mountPath": str(paths.SOCKETS_DIR)}
    disks = [volume for volume in spec.get("volumes") or () if "containerDisk" in volume]
    for volume in disks:
        disk = volume["containerDisk"]
        container: Object = {
            "name": _container_name(volume["name"]),
            "image": disk["image"],
            "command": [str(paths.CONTAINER_DISK_PROGRAM)],
            "args": [str(paths.container_disk_socket(volume["name"]))],
            "resources": resources,
            "securityContext": _security(readOnlyRootFilesystem=True),
            "volumeMounts": [{**program, "readOnly": True}, sockets],
        }
        if disk.get("imagePullPolicy"):
            container["imagePullPolicy"] = disk["imagePullPolicy"]
        pod_spec["containers"].append(container)
    if disks:
        pod_spec["volumes"].append({"name": _PROGRAM_VOLUME, "emptyDir": {}})
        pod_spec["initContainers"] = [
            {
                "name": "container-disk-binary",
                "image": config.image,
                "imagePullPolicy": _pull_policy(config),
                "command": ["/usr/bin/cp", str(paths.CONTAINER_DISK_SOURCE), str(paths.CONTAINER_DISK_PROGRAM)],
                "resources": resources,
                "securityContext": _security(readOnlyRootFilesystem=True),
                "volumeMounts": [program],
            }
        ]


def _container_name(volume: str) -> str:
    """Return the name of the container of a container disk: ``volume<name>``, a DNS label."""
    name = f"volume{volume}"
    if len(name) <= _DNS_LABEL:
        return name
    return f"volume{volume[:40].rstrip('-')}-{hashlib.sha256(volume.encode()).hexdigest()[:10]}"


def _volumes(
    spec: Mapping[str, Any], config: LauncherConfig, block: frozenset[str]
) -> tuple[list[Object], list[Object], list[str]]:
    """Return the Pod's volumes, the container's mounts, and the names of pull secrets.

    :param block: volumes that aren't mounted, but given to the container as devices.
    """
    volumes: list[Object] = [{"name": name, "emptyDir": {}} for name in _SCRATCH]
    mounts: list[Object] = [{"name": name, "mountPath": path} for name, path in _SCRATCH.items()]
    pull_secrets: dict[str, None] = {}
    if not config.image_volumes and any("containerDisk" in volume for volume in spec.get("volumes") or ()):
        # The node agent mounts the files of the images in it.
        volumes.append({"name": _DISKS_VOLUME, "emptyDir": {}})
        mounts.append({"name": _DISKS_VOLUME, "mountPath": str(paths.IMAGE_VOLUMES_DIR)})
    for volume in spec.get("volumes") or ():
        name = volume["name"]
        if disk := volume.get("containerDisk"):
            if config.image_volumes:
                image = {"reference": disk["image"]}
                if disk.get("imagePullPolicy"):
                    image["pullPolicy"] = disk["imagePullPolicy"]
                volumes.append({"name": _volume_name(name), "image": image})
                mounts.append(
                    {
                        "name": _volume_name(name),
                        "mountPath": str(paths.container_disk_image_dir(name)),
                        "readOnly": True,
                    }
                )
            if disk.get("imagePullSecret"):
                pull_secrets[disk["imagePullSecret"]] = None
        elif claim := volume.get("persistentVolumeClaim"):
            volumes.append({"name": _volume_name(name), "persistentVolumeClaim": dict(claim)})
            if name not in block:
                mounts.append({"name": _volume_name(name), "mountPath": str(paths.claim_dir(name))})
        else:
            for source in ("cloudInitNoCloud", "cloudInitConfigDrive"):
                _cloud_init(name, volume.get(source) or {}, volumes, mounts)
    return volumes, mounts, list(pull_secrets)


def _cloud_init(name: str, source: Mapping[str, Any], volumes: list[Object], mounts: list[Object]) -> None:
    for reference, short, folder in (
        ("secretRef", "udata", paths.cloud_init_user_data_dir(name)),
        ("networkDataSecretRef", "ndata", paths.cloud_init_network_data_dir(name)),
    ):
        secret = (source.get(reference) or {}).get("name")
        if secret:
            volume = _volume_name(f"{name}-{short}")
            volumes.append({"name": volume, "secret": {"secretName": secret}})
            mounts.append({"name": volume, "mountPath": str(folder), "readOnly": True})


def _volume_name(name: str) -> str:
    """Return a Pod volume's name for a VMI volume: a DNS label that no scratch directory has."""
    if name not in (*_SCRATCH, _PROGRAM_VOLUME, _DISKS_VOLUME) and len(name) <= _DNS_LABEL:
        return name
    return f"vol-{name[:40].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _label_value(name: str) -> str:
    """Return a name that fits into a label's value (63 characters); long ones keep a hash of the rest."""
    if len(name) <= _DNS_LABEL:
        return name
    return re.sub(r"[^A-Za-z0-9]+$", "", name[:52]) + "-" + hashlib.sha256(name.encode()).hexdigest()[:10]
