# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher Pod brings to its container: scratch directories, container disks, claims, Secrets."""

import hashlib
from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object
from turtles.controller.pod.config import LauncherConfig, pull_policy, security
from turtles.controller.pod.resources import is_guaranteed
from turtles.domain import paths

#: Scratch directories: volume name → mount path. The node agent finds them by these names.
_SCRATCH = {name: str(path) for path, name in paths.EMPTY_DIRS.items()}
#: Further volumes of Pods without image volumes: the program of the images' containers, and where images are mounted.
_PROGRAM_VOLUME, _DISKS_VOLUME = "virt-bin-share-dir", "container-disks"
#: The volume with the kernel that is booted, or its container.
_KERNEL_VOLUME = "kernel-boot-volume"
_HUGE_PAGES_VOLUME = "hugepages"
_DNS_LABEL = 63


def volumes_of(
    spec: Mapping[str, Any], config: LauncherConfig, block: frozenset[str]
) -> tuple[list[Object], list[Object], list[str]]:
    """Return the Pod's volumes, the container's mounts, and the names of pull secrets.

    :param block: volumes that aren't mounted, but given to the container as devices.
    """
    volumes: list[Object] = [{"name": name, "emptyDir": {}} for name in _SCRATCH]
    mounts: list[Object] = [{"name": name, "mountPath": path} for name, path in _SCRATCH.items()]
    if ((spec.get("domain") or {}).get("memory") or {}).get("hugepages") is not None:
        volumes.append({"name": _HUGE_PAGES_VOLUME, "emptyDir": {"medium": "HugePages"}})
        mounts.append({"name": _HUGE_PAGES_VOLUME, "mountPath": str(paths.HUGE_PAGES_DIR)})
    pull_secrets: dict[str, None] = {}
    images = paths.images(spec)
    if not config.image_volumes and images:
        # The node agent mounts the files of the images in it.
        volumes.append({"name": _DISKS_VOLUME, "emptyDir": {}})
        mounts.append({"name": _DISKS_VOLUME, "mountPath": str(paths.IMAGE_VOLUMES_DIR)})
    for name, wanted in images.items():
        if config.image_volumes:
            image = {"reference": wanted["image"]}
            if wanted.get("imagePullPolicy"):
                image["pullPolicy"] = wanted["imagePullPolicy"]
            volumes.append({"name": volume_name(name), "image": image})
            mounts.append(
                {
                    "name": volume_name(name),
                    "mountPath": str(paths.container_disk_image_dir(name)),
                    "readOnly": True,
                }
            )
        if wanted.get("imagePullSecret"):
            pull_secrets[wanted["imagePullSecret"]] = None
    for volume in spec.get("volumes") or ():
        name = volume["name"]
        if claim := volume.get("persistentVolumeClaim"):
            volumes.append({"name": volume_name(name), "persistentVolumeClaim": dict(claim)})
            if name not in block:
                mounts.append({"name": volume_name(name), "mountPath": str(paths.claim_dir(name))})
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
            volume = volume_name(f"{name}-{short}")
            volumes.append({"name": volume, "secret": {"secretName": secret}})
            mounts.append({"name": volume, "mountPath": str(folder), "readOnly": True})


def add_container_disks(spec: Mapping[str, Any], config: LauncherConfig, pod_spec: Object) -> None:
    """Add a container per image, and the init container that brings the program they run.

    The program takes a page or two of memory and no time. KubeVirt limits it to a hundredth of a CPU, which would hold
    up the runtime, whose first steps count as the container's, for seconds; so there is a limit of CPU only where a
    quota or the Pod's class of service demands one.
    """
    compute = pod_spec["containers"][0]["resources"]
    requests, limits = {"cpu": "1m", "memory": "1M"}, {"memory": "40M"}
    if is_guaranteed(compute):
        # The Pod's class of service is to be what the VMI asks for.
        requests = limits = {"cpu": "100m", "memory": "40M"}
    elif "cpu" in config.limited:
        limits["cpu"] = "100m"
    resources = {"requests": requests, "limits": limits}
    program = {"name": _PROGRAM_VOLUME, "mountPath": str(paths.CONTAINER_DISK_BIN_DIR)}
    sockets = {"name": paths.EMPTY_DIRS[paths.SOCKETS_DIR], "mountPath": str(paths.SOCKETS_DIR)}
    images = paths.images(spec)
    for name, source in images.items():
        container: Object = {
            "name": _container_name(name),
            "image": source["image"],
            "command": [str(paths.CONTAINER_DISK_PROGRAM)],
            "args": [str(paths.container_disk_socket(name))],
            "resources": resources,
            "securityContext": security(readOnlyRootFilesystem=True),
            "volumeMounts": [{**program, "readOnly": True}, sockets],
        }
        if source.get("imagePullPolicy"):
            container["imagePullPolicy"] = source["imagePullPolicy"]
        pod_spec["containers"].append(container)
    if images:
        pod_spec["volumes"].append({"name": _PROGRAM_VOLUME, "emptyDir": {}})
        pod_spec["initContainers"] = [
            {
                "name": "container-disk-binary",
                "image": config.image,
                "imagePullPolicy": pull_policy(config),
                "command": ["/usr/bin/cp", str(paths.CONTAINER_DISK_SOURCE), str(paths.CONTAINER_DISK_PROGRAM)],
                "resources": resources,
                "securityContext": security(readOnlyRootFilesystem=True),
                "volumeMounts": [program],
            }
        ]


def _container_name(volume: str) -> str:
    """Return the name of the container of a container disk: ``volume<name>``, a DNS label."""
    if volume == paths.KERNEL_IMAGE:
        return _KERNEL_VOLUME
    name = f"volume{volume}"
    if len(name) <= _DNS_LABEL:
        return name
    return f"volume{volume[:40].rstrip('-')}-{hashlib.sha256(volume.encode()).hexdigest()[:10]}"


def volume_name(name: str) -> str:
    """Return a Pod volume's name for a VMI volume: a DNS label that no volume of the engine's own has."""
    if name == paths.KERNEL_IMAGE:
        return _KERNEL_VOLUME
    if name not in (*_SCRATCH, _PROGRAM_VOLUME, _DISKS_VOLUME, _KERNEL_VOLUME) and len(name) <= _DNS_LABEL:
        return name
    return f"vol-{name[:40].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
