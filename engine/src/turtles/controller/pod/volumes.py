# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher Pod brings to its container: scratch directories, container disks, claims, files, host folders."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from turtles.api.kinds.vmi.hotplug import is_hotpluggable
from turtles.api.objects import Object
from turtles.controller.pod.config import LauncherConfig, pull_policy, security
from turtles.controller.pod.resources import is_guaranteed
from turtles.controller.state_claims import has_tpm
from turtles.domain import paths
from turtles.domain.definition.elements import devices_of

#: Names of the scratch directories. The node agent finds them by these.
_SCRATCH = frozenset(paths.EMPTY_DIRS.values())
#: Further volumes of Pods without image volumes: the program of the images' containers, and where images are mounted.
_PROGRAM_VOLUME, _DISKS_VOLUME = "virt-bin-share-dir", "container-disks"
#: The volume with the kernel that is booted, or its container.
_KERNEL_VOLUME = "kernel-boot-volume"
_HUGE_PAGES_VOLUME, _TEMPORARY_VOLUME = "hugepages", "tmp"
_DNS_LABEL = 63
#: Lifetimes of service accounts' tokens: what Kubernetes asks for in Pods, and a year.
_TOKEN_SECONDS, _DISK_TOKEN_SECONDS = 3607, 365 * 24 * 3600


@dataclass
class PodVolumes:
    """What a Pod has for the volumes of its VMI.

    :param volumes: of the Pod. :param mounts: of the launcher's container. :param pull_secrets: names of Secrets.
    :param service_account: which the Pod has; None is the namespace's default.
    """

    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    pull_secrets: list[str] = field(default_factory=list)
    service_account: str | None = None

    def add(self, name: str, source: Object, path: PurePosixPath | None, *, read_only: bool = False) -> None:
        """Add a volume and, unless it has no path, its mount."""
        self.volumes.append({"name": name, **source})
        if path is not None:
            mount = {"name": name, "mountPath": str(path)}
            self.mounts.append({**mount, "readOnly": True} if read_only else mount)


def volumes_of(spec: Mapping[str, Any], config: LauncherConfig, block: frozenset[str]) -> PodVolumes:
    """Return what the Pod has for a VMI's volumes.

    :param block: volumes that aren't mounted, but given to the container as devices.
    """
    volumes = PodVolumes()
    for path, name in paths.EMPTY_DIRS.items():
        volumes.add(name, {"emptyDir": {}}, path)
    if ((spec.get("domain") or {}).get("memory") or {}).get("hugepages") is not None:
        volumes.add(_HUGE_PAGES_VOLUME, {"emptyDir": {"medium": "HugePages"}}, paths.HUGE_PAGES_DIR)
    if has_tpm(spec):
        # swtpm_setup writes there whatever TMPDIR says, and the root file system is read-only on Kubernetes.
        volumes.add(_TEMPORARY_VOLUME, {"emptyDir": {}}, paths.TEMPORARY_DIR)
    wanted: Sequence[Mapping[str, Any]] = spec.get("volumes") or ()
    images = paths.images(spec)
    if not config.image_volumes and images:
        # The node agent mounts the files of the images in it.
        volumes.add(_DISKS_VOLUME, {"emptyDir": {}}, paths.IMAGE_VOLUMES_DIR)
    for name, image in images.items():
        _image(name, image, config, volumes)
    shared = {filesystem["name"] for filesystem in devices_of(spec).get("filesystems") or ()}
    for volume in wanted:
        name = volume["name"]
        if is_hotpluggable(volume):
            continue  # it is in a Pod of its own
        if claim := paths.claim_of(volume):
            source: Object = {"claimName": claim}
            if (volume.get("persistentVolumeClaim") or {}).get("readOnly"):
                source["readOnly"] = True
            folder = None if name in block else paths.claim_dir(name)
            volumes.add(volume_name(name), {"persistentVolumeClaim": source}, folder, read_only="ephemeral" in volume)
        elif host := volume.get("hostDisk"):
            parent = str(PurePosixPath(host["path"]).parent)
            kind = "DirectoryOrCreate" if host["type"] == "DiskOrCreate" else "Directory"
            volumes.add(volume_name(name), {"hostPath": {"path": parent, "type": kind}}, paths.claim_dir(name))
        elif account := (volume.get("serviceAccount") or {}).get("serviceAccountName"):
            volumes.service_account = account
            source = _token(renewed=name in shared)
            volumes.add(volume_name(name), source, paths.SERVICE_ACCOUNT_DIR, read_only=True)
        elif files := _files(volume):
            volumes.add(volume_name(name), files, paths.files_dir(volume), read_only=True)
        else:
            for kind in ("cloudInitNoCloud", "cloudInitConfigDrive"):
                _cloud_init(name, volume.get(kind) or {}, volumes)
    return volumes


def _image(name: str, wanted: Mapping[str, Any], config: LauncherConfig, volumes: PodVolumes) -> None:
    if config.image_volumes:
        image = {"reference": wanted["image"]}
        if wanted.get("imagePullPolicy"):
            image["pullPolicy"] = wanted["imagePullPolicy"]
        volumes.add(volume_name(name), {"image": image}, paths.container_disk_image_dir(name), read_only=True)
    if wanted.get("imagePullSecret") and wanted["imagePullSecret"] not in volumes.pull_secrets:
        volumes.pull_secrets.append(wanted["imagePullSecret"])


def _cloud_init(name: str, source: Mapping[str, Any], volumes: PodVolumes) -> None:
    for reference, short, folder in (
        ("secretRef", "udata", paths.cloud_init_user_data_dir(name)),
        ("networkDataSecretRef", "ndata", paths.cloud_init_network_data_dir(name)),
    ):
        if secret := (source.get(reference) or {}).get("name"):
            volumes.add(volume_name(f"{name}-{short}"), {"secret": {"secretName": secret}}, folder, read_only=True)


def _files(volume: Mapping[str, Any]) -> Object | None:
    """Return the source of the Pod's volume for one that is a folder of files; None for all others."""
    if wanted := volume.get("configMap"):
        return {"configMap": _with_optional({"name": wanted["name"]}, wanted)}
    if wanted := volume.get("secret"):
        return {"secret": _with_optional({"secretName": wanted["secretName"]}, wanted)}
    if (wanted := volume.get("downwardAPI")) is not None:
        return {"downwardAPI": {"items": [dict(item) for item in wanted.get("fields") or ()]}}
    answers = volume.get("sysprep") or {}
    if name := (answers.get("configMap") or {}).get("name"):
        return {"configMap": {"name": name}}
    if name := (answers.get("secret") or {}).get("name"):
        return {"secret": {"secretName": name}}
    return None


def _with_optional(source: Object, wanted: Mapping[str, Any]) -> Object:
    return {**source, "optional": wanted["optional"]} if wanted.get("optional") is not None else source


def _token(*, renewed: bool) -> Object:
    """Return the source of a volume with the token of the Pod's service account, as Kubernetes mounts it in Pods.

    :param renewed: the guest sees the file itself, which is replaced in time. A disk is made once, so the token has to
        last as long as the guest; it is worth nothing any more when the Pod is gone.
    """
    seconds = _TOKEN_SECONDS if renewed else _DISK_TOKEN_SECONDS
    names = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}], "optional": True}
    return {
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": seconds}},
                {"configMap": authority},
                {"downwardAPI": {"items": [names]}},
            ]
        }
    }


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
    own = {*_SCRATCH, _PROGRAM_VOLUME, _DISKS_VOLUME, _KERNEL_VOLUME, _HUGE_PAGES_VOLUME, _TEMPORARY_VOLUME}
    if name not in own and len(name) <= _DNS_LABEL:
        return name
    return f"vol-{name[:40].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
