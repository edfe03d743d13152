# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are inside a launcher Pod, and where the node sees them. Pure functions.

The launcher writes to the paths inside the Pod and the domain XML points at them; the node agent reaches the same
files through the folders of the Pod's emptyDir volumes, which lie where the kubelet puts them.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

#: Mount points of the Pod's volumes.
PRIVATE_DIR = PurePosixPath("/var/run/kubevirt-private")
PUBLIC_DIR = PurePosixPath("/var/run/kubevirt")
SOCKETS_DIR = PUBLIC_DIR / "sockets"
LIBVIRT_RUNTIME_DIR = PurePosixPath("/var/run/libvirt")
EPHEMERAL_DISKS_DIR = PurePosixPath("/var/run/kubevirt-ephemeral-disks")
IMAGE_VOLUMES_DIR = PurePosixPath("/var/run/kubevirt-image-volume")

#: Names of the emptyDir volumes in the Pod's spec, by mount point.
EMPTY_DIRS: Mapping[PurePosixPath, str] = {
    PRIVATE_DIR: "private",
    PUBLIC_DIR: "public",
    SOCKETS_DIR: "sockets",
    LIBVIRT_RUNTIME_DIR: "libvirt-runtime",
    EPHEMERAL_DISKS_DIR: "ephemeral-disks",
}

#: Where the claim with what outlives the machine is mounted, if it has one.
STATE_DIR = PRIVATE_DIR / "persistent-state"
#: Below a folder of caches (XDG_CACHE_HOME): what libvirt has found out about the QEMU binaries.
CAPABILITY_CACHE = PurePosixPath("libvirt/qemu/cache/capabilities")
#: The VMI for the launcher: written by the node agent once the Pod runs, removed by the launcher.
DELIVERED_VMI = PRIVATE_DIR / "vmi.json"
#: libvirtd's socket, inside the Pod.
LIBVIRT_SOCKET = SOCKETS_DIR / "libvirt-sock"
#: Where the launcher waits for the node agent to mount container disks that run in containers of their own.
CONTAINER_DISKS_SOCKET = SOCKETS_DIR / "container-disks"
#: What the agent answers there when that is done; everything else it says is an error.
CONTAINER_DISKS_MOUNTED = b"mounted\n"
#: The program of those containers in the launcher's image, which has it from ``turtles/launcher/container-disk.bin``.
CONTAINER_DISK_SOURCE = PurePosixPath("/usr/bin/container-disk")
#: The folder it is in, in them and in the container that puts it there.
CONTAINER_DISK_BIN_DIR = PurePosixPath("/init/usr/bin")
CONTAINER_DISK_PROGRAM = CONTAINER_DISK_BIN_DIR / "container-disk"


def domain_name(namespace: str, name: str) -> str:
    """Return libvirt's name of a VMI's domain, such as ``default_testvm``."""
    return f"{namespace}_{name}"


def container_disk_image_dir(volume: str) -> PurePosixPath:
    """Return the folder in the Pod where the image of the containerDisk *volume* is mounted, read-only.

    By the kubelet as an image volume, or by the node agent from a container of that image.
    """
    return IMAGE_VOLUMES_DIR / volume


def container_disk_socket(volume: str) -> PurePosixPath:
    """Return the socket on which the container of the containerDisk *volume* listens, where it has one of its own."""
    return SOCKETS_DIR / f"disk-{volume}"


def container_disk_overlay(volume: str) -> PurePosixPath:
    """Return the qcow2 overlay through which the containerDisk *volume* is used."""
    return EPHEMERAL_DISKS_DIR / "disk-data" / volume / "disk.qcow2"


def empty_disk(volume: str) -> PurePosixPath:
    """Return the qcow2 file of the emptyDisk *volume*."""
    return EPHEMERAL_DISKS_DIR / "empty-disks" / f"{volume}.qcow2"


def claim_dir(volume: str) -> PurePosixPath:
    """Return the folder in which the PersistentVolumeClaim of *volume* is mounted."""
    return PRIVATE_DIR / "vmi-disks" / volume


def claim_disk(volume: str) -> PurePosixPath:
    """Return the raw disk file on the (filesystem) PersistentVolumeClaim of *volume*."""
    return claim_dir(volume) / "disk.img"


def claim_device(volume: str) -> PurePosixPath:
    """Return the block device of the PersistentVolumeClaim of *volume*, where its mode is Block."""
    return PurePosixPath("/dev") / volume


def block_volumes(vmi: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of a VMI's volumes whose claims are block devices, as its status has them."""
    return frozenset(
        entry["name"]
        for entry in (vmi.get("status") or {}).get("volumeStatus") or ()
        if (entry.get("persistentVolumeClaimInfo") or {}).get("volumeMode") == "Block"
    )


def secret_dir(volume: str) -> PurePosixPath:
    """Return the folder below which the Secrets of the cloud-init *volume* are mounted."""
    return PRIVATE_DIR / "secret" / volume


def cloud_init_user_data_dir(volume: str) -> PurePosixPath:
    """Return the folder in which the Secret with the user data of the cloud-init *volume* is mounted."""
    return secret_dir(volume) / "userdata"


def cloud_init_network_data_dir(volume: str) -> PurePosixPath:
    """Return the folder in which the Secret with the network data of the cloud-init *volume* is mounted."""
    return secret_dir(volume) / "networkdata"


def cloud_init_no_cloud_seed(volume: str) -> PurePosixPath:
    """Return the NoCloud seed (ISO 9660) made for *volume*."""
    return EPHEMERAL_DISKS_DIR / "cloud-init-data" / volume / "noCloud.iso"


def cloud_init_config_drive_seed(volume: str) -> PurePosixPath:
    """Return the config drive (ISO 9660) made for *volume*."""
    return EPHEMERAL_DISKS_DIR / "cloud-init-data" / volume / "configdrive.iso"


def disk_source(volume: Mapping[str, Any]) -> tuple[PurePosixPath, str]:
    """Return the file and its format ("qcow2" or "raw") that backs an entry of ``spec.volumes``.

    :raises ValueError: if the volume's source has no disk file, which admission should have refused.
    """
    name = volume["name"]
    if "containerDisk" in volume:
        return container_disk_overlay(name), "qcow2"
    if "emptyDisk" in volume:
        return empty_disk(name), "qcow2"
    if "persistentVolumeClaim" in volume or "dataVolume" in volume:
        return claim_disk(name), "raw"
    if "cloudInitNoCloud" in volume:
        return cloud_init_no_cloud_seed(name), "raw"
    if "cloudInitConfigDrive" in volume:
        return cloud_init_config_drive_seed(name), "raw"
    sources = ", ".join(sorted(set(volume) - {"name"})) or "none"
    raise ValueError(f"volume {name!r} has no source that can back a disk (it has: {sources})")


def domain_private_dir(uid: str) -> PurePosixPath:
    """Return the folder in the Pod that holds the consoles' sockets of the VMI with this *uid*."""
    return PRIVATE_DIR / uid


def vnc_socket(uid: str) -> PurePosixPath:
    """Return QEMU's VNC socket inside the Pod."""
    return domain_private_dir(uid) / "virt-vnc"


def serial_socket(uid: str) -> PurePosixPath:
    """Return the socket of the first serial port inside the Pod."""
    return domain_private_dir(uid) / "virt-serial0"


def usb_redirection_socket(uid: str, port: int) -> PurePosixPath:
    """Return the socket of a USB port for a device of a client inside the Pod."""
    return domain_private_dir(uid) / f"virt-usbredir-{port}"


def downward_metrics_socket(uid: str) -> PurePosixPath:
    """Return the socket of the port on which the guest asks for metrics of its host, inside the Pod."""
    return domain_private_dir(uid) / "downward-metrics"


def guest_agent_socket(uid: str) -> PurePosixPath:
    """Return the socket of the guest agent's channel inside the Pod. libvirt's own choice would be too long a path."""
    return domain_private_dir(uid) / "guest-agent"


def host_path(pods_dir: str, pod_uid: str, path: PurePosixPath) -> PurePosixPath:
    """Return where the node sees a *path* of the Pod that lies in one of its emptyDir volumes.

    :param pods_dir: the kubelet's folder of Pods, such as ``/var/lib/kubelet/pods``.
    :raises ValueError: if the path is in none of them.
    """
    # The longest mount point wins: sockets/ lies inside public/.
    for mount in sorted(EMPTY_DIRS, key=lambda item: len(item.parts), reverse=True):
        if path.is_relative_to(mount):
            base = PurePosixPath(pods_dir) / pod_uid / "volumes" / "kubernetes.io~empty-dir" / EMPTY_DIRS[mount]
            return base / path.relative_to(mount)
    raise ValueError(f"{path} is not in an emptyDir volume of a launcher Pod")
