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
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from turtles.api import labels
from turtles.api.configuration import ClusterConfiguration
from turtles.api.guests import grace_period, hostname, launcher_pod_name
from turtles.api.objects import Object, owner_reference
from turtles.controller.pod import memory, networks, placement, sriov
from turtles.controller.pod.config import (
    RUNTIME_DEFAULT,
    UNCONFINED,
    LauncherConfig,
    pod_security,
    pull_policy,
    security,
)
from turtles.controller.pod.console_log import add_console_log
from turtles.controller.pod.credentials import add_access_credentials
from turtles.controller.pod.probes import probes
from turtles.controller.pod.resources import interfaces_of, resources
from turtles.controller.pod.sidecars import add_hook_sidecars
from turtles.controller.pod.state import add_state
from turtles.controller.pod.volumes import add_container_disks, volume_name, volumes_of
from turtles.domain import paths
from turtles.domain.connections import has_passt
from turtles.domain.sidecars import of as sidecars_of

#: Seconds the guest's own grace period is lengthened by: for the launcher to end QEMU, for the kubelet to end the Pod.
LAUNCHER_GRACE, POD_GRACE = 15, 30

#: Annotations of a VMI that mean something else on a Pod, or repeat the VMI.
_OWN_ANNOTATIONS = frozenset((labels.LAST_APPLIED, *labels.OBSERVED_VERSIONS))
_LABEL_VALUE = 63
#: Fields of a VMI's spec that are a Pod's as well.
_TAKEN_OVER = (
    *("subdomain", "dnsPolicy", "dnsConfig", "schedulerName", "priorityClassName"),
    *("tolerations", "topologySpreadConstraints", "serviceAccountName"),
)


def pod_name(vmi: Object) -> str:
    """Return the name of the VMI's Pod. The same VMI always gets the same name: creating twice makes one Pod."""
    return launcher_pod_name(vmi)


def launcher_pod(vmi: Object, config: LauncherConfig) -> Object:
    """Return the Pod for a VMI that admission has defaulted and validated.

    :param vmi: with metadata.uid, and status.volumeStatus where it has claims.
    """
    spec = vmi["spec"]
    hooks = bool(sidecars_of(vmi, config.cluster.bindings))
    overhead = memory.overhead(spec, kvm=config.kvm, ratio=config.cluster.overhead_ratio, hooks=hooks)
    overhead += networks.memory(vmi, config.cluster.bindings)
    block = paths.block_volumes(vmi)
    brought = volumes_of(spec, config, block)
    pod_spec: Object = {
        "restartPolicy": "Never",
        "hostname": hostname(vmi),
        "terminationGracePeriodSeconds": grace_period(spec) + POD_GRACE,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "readinessGates": [{"conditionType": labels.UNPAUSED_READINESS_GATE}],
        "securityContext": pod_security(config.cluster.seccomp_profile or RUNTIME_DEFAULT),
        "nodeSelector": {
            **config.cluster.node_selectors,
            **(spec.get("nodeSelector") or {}),
            **placement.machine_selector(spec, kvm=config.kvm),
            labels.NODE_SCHEDULABLE: "true",
            labels.ARCH: spec.get("architecture") or "amd64",
        },
        "containers": [_compute(vmi, config, overhead, brought.mounts, block)],
        "volumes": brought.volumes,
    }
    add_access_credentials(spec, pod_spec)
    add_state(vmi, pod_spec, config.state_claim)
    if not config.image_volumes:
        add_container_disks(spec, config, pod_spec)
    add_console_log(spec, config, pod_spec)
    add_hook_sidecars(vmi, config, pod_spec)
    sriov.add(config.network_resources, pod_spec)
    if brought.service_account:
        pod_spec["serviceAccountName"] = brought.service_account
    pull_secrets = list(dict.fromkeys([*brought.pull_secrets, *config.cluster.image_pull_secrets]))
    if pull_secrets:
        pod_spec["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    if affinity := placement.affinity(spec, kvm=config.kvm):
        pod_spec["affinity"] = affinity
    if config.cluster.runtime_class:
        pod_spec["runtimeClassName"] = config.cluster.runtime_class
    pod_spec |= {key: spec[key] for key in _TAKEN_OVER if spec.get(key)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(vmi, config, overhead), "spec": pod_spec}


def _compute(
    vmi: Object, config: LauncherConfig, overhead: int, mounts: Sequence[Object], block: Collection[str]
) -> Object:
    """Return the container that runs the guest.

    :param overhead: bytes of memory that it needs besides the guest's. :param block: volumes without a file system.
    """
    metadata, spec = vmi["metadata"], vmi["spec"]
    container: Object = {
        "name": "compute",
        "image": config.image,
        "imagePullPolicy": pull_policy(config),
        "command": [
            "/usr/bin/virt-launcher",
            *("--name", metadata["name"]),
            *("--uid", metadata["uid"]),
            *("--namespace", metadata["namespace"]),
            *("--kubevirt-share-dir", str(paths.PUBLIC_DIR)),
            *("--ephemeral-disk-dir", str(paths.EPHEMERAL_DISKS_DIR)),
            *("--grace-period-seconds", str(grace_period(spec) + LAUNCHER_GRACE)),
            *(("--image-volume",) if config.image_volumes else ()),
        ],
        "env": [
            # For virsh in the Pod: kubectl exec POD -- virsh list
            {"name": "LIBVIRT_DEFAULT_URI", "value": f"qemu:///session?socket={paths.LIBVIRT_SOCKET}"},
        ],
        "resources": resources(spec, config, overhead),
        "securityContext": security("NET_BIND_SERVICE", readOnlyRootFilesystem=True, **_profile(spec, config.cluster)),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
        **probes(vmi),
    }
    if block:
        container["volumeDevices"] = [
            {"name": volume_name(name), "devicePath": str(paths.claim_device(name))} for name in sorted(block)
        ]
    if ports := _ports(spec):
        container["ports"] = ports
    return container


def _profile(spec: Mapping[str, Any], cluster: ClusterConfiguration) -> Object:
    """Return the container's filter of system calls, where it isn't the Pod's.

    passt locks itself into namespaces of its own, which that of container runtimes forbids.
    """
    if cluster.seccomp_profile is not None or not has_passt(spec):
        return {}
    return {"seccompProfile": dict(UNCONFINED)}


def _metadata(vmi: Object, config: LauncherConfig, overhead: int) -> Object:
    metadata = vmi["metadata"]
    annotations = (metadata.get("annotations") or {}).items()
    return {
        "name": pod_name(vmi),
        "namespace": metadata["namespace"],
        "labels": {
            **(metadata.get("labels") or {}),
            labels.APP: labels.APP_LAUNCHER,
            labels.CREATED_BY: metadata["uid"],
            labels.VM_NAME: hostname(vmi),
            labels.VMI_ID: _label_value(metadata["name"]),
        },
        "annotations": {
            **{key: value for key, value in annotations if key not in _OWN_ANNOTATIONS},
            **_annotations(vmi, overhead, config.cluster),
        },
        "ownerReferences": [owner_reference(vmi)],
    }


def _annotations(vmi: Object, overhead: int, cluster: ClusterConfiguration) -> dict[str, str]:
    annotations = {
        labels.DOMAIN: vmi["metadata"]["name"],
        labels.DEFAULT_CONTAINER: "compute",
        labels.MIGRATION_TRANSPORT_UNIX: "true",
        labels.MEMORY_OVERHEAD: str(overhead),
        labels.PCI_TOPOLOGY_VERSION: labels.PCI_TOPOLOGY_V3,
        labels.EVICT_ONLY: "",
        **networks.annotations(vmi, cluster.bindings),
    }
    if any("masquerade" in interface for interface in interfaces_of(vmi["spec"])):
        # A service mesh has to send the guest's traffic through its proxy as well.
        annotations["istio.io/reroute-virtual-interfaces"] = "k6t-eth0"
        annotations["traffic.sidecar.istio.io/kubevirtInterfaces"] = "k6t-eth0"
    return annotations


def _ports(spec: Mapping[str, Any]) -> list[Object]:
    ports = []
    for interface in interfaces_of(spec):
        for port in interface.get("ports") or ():
            entry = {"containerPort": port["port"], "protocol": port.get("protocol") or "TCP"}
            if port.get("name"):
                entry["name"] = port["name"]
            ports.append(entry)
    return ports


def _label_value(name: str) -> str:
    """Return a name that fits into a label's value (63 characters); long ones keep a hash of the rest."""
    if len(name) <= _LABEL_VALUE:
        return name
    return re.sub(r"[^A-Za-z0-9]+$", "", name[:52]) + "-" + hashlib.sha256(name.encode()).hexdigest()[:10]
