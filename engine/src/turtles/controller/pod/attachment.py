# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod that holds a claim for a running VirtualMachineInstance, as a pure function.

A Pod's volumes are fixed when it is made. So a claim that comes later is mounted in a Pod of its own on the same node,
out of which the node agent shows it to the launcher (KubeVirt user guide, "Hotplug Volumes"; there one Pod holds all
claims and is replaced by another one whenever they change).
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object, owner_reference
from turtles.controller.pod.config import LauncherConfig, pod_security, pull_policy, security
from turtles.controller.pod.volumes import volume_name
from turtles.domain import paths

#: What KubeVirt's attachment Pods may use; requests are what ours were measured to use.
_REQUESTS, _LIMITS = {"cpu": "10m", "memory": "20M"}, {"memory": "80M"}
_CONTAINER = "hotplug-disk"


def attachment_name(launcher: Object, volume: Mapping[str, Any]) -> str:
    """Return the name of the Pod that holds a volume's claim. The same claim always gets the same name."""
    words = (launcher["metadata"]["uid"], volume["name"], paths.claim_of(volume) or "")
    return f"hp-volume-{hashlib.sha256('/'.join(words).encode()).hexdigest()[:10]}"


def attachment_pod(vmi: Object, launcher: Object, volume: Mapping[str, Any], config: LauncherConfig) -> Object:
    """Return the Pod that holds the claim of a volume for a VMI whose launcher has a node.

    :param vmi: with the claim's size in status.volumeStatus.
    """
    metadata, name = launcher["metadata"], volume["name"]
    claim, read_only = str(paths.claim_of(volume)), paths.is_read_only(volume)
    entries = (vmi.get("status") or {}).get("volumeStatus") or ()
    size = next((entry.get("size") for entry in entries if entry["name"] == name), None)
    command = ["/usr/bin/virt-launcher", "attachment", "--volume", name, "--claim", claim]
    if "memoryDump" in volume:
        command.append("--folder")
    elif read_only:
        command.append("--read-only")
    if size:
        command += ["--size", str(size)]
    limits = {**_LIMITS, "cpu": "100m"} if "cpu" in config.limited else _LIMITS
    pod_volume = volume_name(name)
    spec: Object = {
        "terminationGracePeriodSeconds": 0,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": on_node_of(launcher)}},
        "containers": [
            {
                "name": _CONTAINER,
                "image": config.image,
                "imagePullPolicy": pull_policy(config),
                "command": command,
                "resources": {"requests": dict(_REQUESTS), "limits": dict(limits)},
                "securityContext": security(readOnlyRootFilesystem=True),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    {"name": paths.ATTACHMENT_VOLUME, "mountPath": str(paths.SOCKETS_DIR)},
                    {"name": pod_volume, "mountPath": str(paths.claim_dir(name))},
                ],
            }
        ],
        "volumes": [
            {"name": paths.ATTACHMENT_VOLUME, "emptyDir": {}},
            {"name": pod_volume, "persistentVolumeClaim": {"claimName": claim, **_read_only(read_only)}},
        ],
    }
    for key in ("tolerations", "imagePullSecrets", "priorityClassName", "schedulerName"):
        if launcher["spec"].get(key):
            spec[key] = launcher["spec"][key]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": attachment_name(launcher, volume),
            "namespace": metadata["namespace"],
            # None of the launcher's: those select what Services, budgets and network policies are about.
            "labels": {labels.APP: labels.APP_HOTPLUG_DISK},
            "annotations": {labels.DOMAIN: vmi["metadata"]["name"]},
            "ownerReferences": [owner_reference({**launcher, "apiVersion": "v1", "kind": "Pod"})],
        },
        "spec": spec,
    }


def _read_only(wanted: bool) -> Object:
    return {"readOnly": True} if wanted else {}


def on_node_of(launcher: Object) -> Object:
    """Return the terms that only the launcher's node fulfils. A scheduler binds the claim as well, if need be."""
    fields = [{"key": "metadata.name", "operator": "In", "values": [launcher["spec"]["nodeName"]]}]
    return {"nodeSelectorTerms": [{"matchFields": fields}]}
