# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are inside a launcher Pod, and where the node sees them. Pure functions.

The launcher writes to the paths inside the Pod and the domain XML points at them; the node agent reaches the same
files through the folders of the Pod's emptyDir volumes, which lie where the kubelet puts them.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

#: Mount points of the Pod's volumes.
PRIVATE_DIR = PurePosixPath("/var/run/kubevirt-private")
PUBLIC_DIR = PurePosixPath("/var/run/kubevirt")
SOCKETS_DIR = PUBLIC_DIR / "sockets"
LIBVIRT_RUNTIME_DIR = PurePosixPath("/var/run/libvirt")
EPHEMERAL_DISKS_DIR = PurePosixPath("/var/run/kubevirt-ephemeral-disks")
IMAGE_VOLUMES_DIR = PurePosixPath("/var/run/kubevirt-image-volume")
#: Where Kubernetes mounts the token of a Pod's service account.
SERVICE_ACCOUNT_DIR = PurePosixPath("/var/run/secrets/kubernetes.io/serviceaccount")

#: Sources of volumes that are folders of files, and the folders in which they are mounted by the volumes' names.
_FILES = {
    "configMap": "config-map",
    "secret": "secret",
    "downwardAPI": "downwardapi",
    "sysprep": "sysprep",
    "serviceAccount": "",
}

#: EFI firmware, as Debian's package ovmf has it.
OVMF_DIR = PurePosixPath("/usr/share/OVMF")
#: Where huge pages are.
HUGE_PAGES_DIR = PurePosixPath("/dev/hugepages")
#: Where programs write that don't ask where to.
TEMPORARY_DIR = PurePosixPath("/tmp")  # noqa: S108
#: Stands among the names of volumes for the image with the kernel that is booted: no volume can have it.
KERNEL_IMAGE = "kernel.boot"
#: Links to kernel and initrd in that image.
KERNEL_DIR = EPHEMERAL_DISKS_DIR / "kernel-boot"
KERNEL, INITRD = KERNEL_DIR / "kernel", KERNEL_DIR / "initrd"
#: What Ignition configures the guest with.
IGNITION = EPHEMERAL_DISKS_DIR / "ignition" / "config.ign"

#: What virt-controller says about the devices of SR-IOV interfaces, mounted from the Pod's annotation.
POD_INFO_DIR = PurePosixPath("/etc/podinfo")
NETWORK_INFO = POD_INFO_DIR / "network-info"
#: Names of the emptyDir volumes in the Pod's spec, by mount point.
EMPTY_DIRS: Mapping[PurePosixPath, str] = {
    PRIVATE_DIR: "private",
    PUBLIC_DIR: "public",
    SOCKETS_DIR: "sockets",
    LIBVIRT_RUNTIME_DIR: "libvirt-runtime",
    EPHEMERAL_DISKS_DIR: "ephemeral-disks",
}

#: In a Pod that holds a claim for a running machine: the emptyDir volume that is its folder of sockets, and the socket
#: in it, which is there once the disk on the claim is ready.
ATTACHMENT_VOLUME = "hotplug-disks"
ATTACHMENT_SOCKET = SOCKETS_DIR / "hotplug.sock"

#: Where the claim with what outlives the machine is mounted, if it has one.
STATE_DIR = PRIVATE_DIR / "persistent-state"
#: Below a folder of caches (XDG_CACHE_HOME): what libvirt has found out about the QEMU binaries.
CAPABILITY_CACHE = PurePosixPath("libvirt/qemu/cache/capabilities")
#: The VMI for the launcher: written by the node agent once the Pod runs, removed by the launcher.
DELIVERED_VMI = PRIVATE_DIR / "vmi.json"
#: libvirtd's socket, inside the Pod.
LIBVIRT_SOCKET = SOCKETS_DIR / "libvirt-sock"
#: Where the launcher is told how the guest's interfaces are connected, if it can't know by itself.
INTERFACES_SOCKET = SOCKETS_DIR / "interfaces"
#: Where the launcher waits for the node agent to mount container disks that run in containers of their own.
CONTAINER_DISKS_SOCKET = SOCKETS_DIR / "container-disks"
#: The pipe through which the launcher hands the serial console's output to the container that logs it.
SERIAL_LOG_PIPE = SOCKETS_DIR / "virt-serial0-log"
#: Sockets by which a guest gets to another node. At the target, those of memory and disks are QEMU's; at the source,
#: they lead there. The third is the source's alone, and leads to the target's libvirtd.
MIGRATION_DIR = PRIVATE_DIR / "migration"
MIGRATION_LIBVIRTD, MIGRATION_MEMORY, MIGRATION_DISKS = (
    MIGRATION_DIR / "libvirt-sock",
    MIGRATION_DIR / "memory",
    MIGRATION_DIR / "disks",
)
#: Where the node agent asks the launcher to have hook sidecars change the domain.
HOOKS_SOCKET = SOCKETS_DIR / "hooks"
#: Where hook sidecars open their sockets, and the Pod's volume that is mounted there.
HOOKS_DIR, HOOKS_VOLUME = PurePosixPath("/var/run/kubevirt-hooks"), "hook-sidecar-sockets"
#: Where programs from ConfigMaps are in a sidecar without an image of its own.
HOOK_PROGRAMS_DIR = PurePosixPath("/var/run/kubevirt-hook-programs")
#: What the agent answers there when that is done; everything else it says is an error.
CONTAINER_DISKS_MOUNTED = b"mounted\n"
#: The program of those containers in the launcher's image, which has it from ``turtles/launcher/container-disk.bin``.
CONTAINER_DISK_SOURCE = PurePosixPath("/usr/bin/container-disk")
#: The folder it is in, in them and in the container that puts it there.
CONTAINER_DISK_BIN_DIR = PurePosixPath("/init/usr/bin")
CONTAINER_DISK_PROGRAM = CONTAINER_DISK_BIN_DIR / "container-disk"


def in_root(root: Path, path: PurePosixPath) -> Path:
    """Return an absolute path inside of a root; that is ``/`` in a Pod, and a folder in tests."""
    return root / path.relative_to("/")


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


def overlay(volume: str) -> PurePosixPath:
    """Return the qcow2 overlay through which the containerDisk or the ephemeral claim *volume* is used."""
    return EPHEMERAL_DISKS_DIR / "disk-data" / volume / "disk.qcow2"


def empty_disk(volume: str) -> PurePosixPath:
    """Return the qcow2 file of the emptyDisk *volume*."""
    return EPHEMERAL_DISKS_DIR / "empty-disks" / f"{volume}.qcow2"


def claim_of(volume: Mapping[str, Any]) -> str | None:
    """Return the name of the PersistentVolumeClaim behind an entry of ``spec.volumes``; None if there is none."""
    claim = volume.get("persistentVolumeClaim") or volume.get("memoryDump")
    claim = claim or (volume.get("ephemeral") or {}).get("persistentVolumeClaim") or {}
    return claim.get("claimName") or (volume.get("dataVolume") or {}).get("name") or None


def is_read_only(volume: Mapping[str, Any]) -> bool:
    """Say whether the claim behind an entry of ``spec.volumes`` is only read."""
    return "ephemeral" in volume or bool((volume.get("persistentVolumeClaim") or {}).get("readOnly"))


def claim_dir(volume: str) -> PurePosixPath:
    """Return the folder in which the PersistentVolumeClaim, or the host's folder, of *volume* is mounted."""
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


def host_disk(volume: Mapping[str, Any]) -> PurePosixPath:
    """Return the disk file of an entry of ``spec.volumes`` with a hostDisk; its folder on the host is mounted."""
    return claim_dir(volume["name"]) / PurePosixPath(volume["hostDisk"]["path"]).name


def files_source(volume: Mapping[str, Any]) -> str | None:
    """Return which source of an entry of ``spec.volumes`` is a folder of files; None if it is something else."""
    return next((source for source in _FILES if volume.get(source) is not None), None)


def files_dir(volume: Mapping[str, Any]) -> PurePosixPath:
    """Return the folder with the files of an entry of ``spec.volumes`` that has such a source, or shares a claim."""
    source = files_source(volume)
    name: str = volume["name"]
    if source == "serviceAccount":
        return SERVICE_ACCOUNT_DIR
    if source is None:
        return claim_dir(name)
    return PRIVATE_DIR / _FILES[source] / name


def files_image(volume: str) -> PurePosixPath:
    """Return the ISO 9660 image made of the files of *volume*."""
    return EPHEMERAL_DISKS_DIR / "file-data" / f"{volume}.iso"


def metrics_disk(volume: str) -> PurePosixPath:
    """Return the disk with the metrics of the downwardMetrics *volume*."""
    return EPHEMERAL_DISKS_DIR / "metrics" / f"{volume}.img"


def filesystem_socket(name: str) -> PurePosixPath:
    """Return the socket on which the files of the filesystem *name* are served."""
    return PRIVATE_DIR / "virtiofs" / f"{name}.sock"


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
    if "containerDisk" in volume or "ephemeral" in volume:
        return overlay(name), "qcow2"
    if "emptyDisk" in volume:
        return empty_disk(name), "qcow2"
    if "persistentVolumeClaim" in volume or "dataVolume" in volume:
        return claim_disk(name), "raw"
    if "hostDisk" in volume:
        return host_disk(volume), "raw"
    if "cloudInitNoCloud" in volume:
        return cloud_init_no_cloud_seed(name), "raw"
    if "cloudInitConfigDrive" in volume:
        return cloud_init_config_drive_seed(name), "raw"
    if "downwardMetrics" in volume:
        return metrics_disk(name), "raw"
    if files_source(volume) is not None:
        return files_image(name), "raw"
    sources = ", ".join(sorted(set(volume) - {"name"})) or "none"
    raise ValueError(f"volume {name!r} has no source that can back a disk (it has: {sources})")


def attachment_dir(pods_dir: str, pod_uid: str) -> PurePosixPath:
    """Return where the node sees the folder of sockets of a Pod that holds a claim for a running machine.

    :param pods_dir: the kubelet's folder of Pods.
    """
    return PurePosixPath(pods_dir) / pod_uid / "volumes" / "kubernetes.io~empty-dir" / ATTACHMENT_VOLUME


def images(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what a VMI's *spec* says of the images whose files its guest uses: of containerDisks, by their volumes'
    names, and of the kernel that is booted.
    """
    by_volume = {
        volume["name"]: volume["containerDisk"] for volume in spec.get("volumes") or () if "containerDisk" in volume
    }
    kernel = ((spec.get("domain") or {}).get("firmware") or {}).get("kernelBoot") or {}
    if container := kernel.get("container"):
        by_volume[KERNEL_IMAGE] = container
    return by_volume


def efi_variables(uid: str, *, kept: bool = False) -> PurePosixPath:
    """Return the file with the EFI variables of the VMI with this *uid*, which libvirtd makes.

    :param kept: they outlive the VMI.
    """
    return (STATE_DIR if kept else domain_private_dir(uid)) / "efi-variables.fd"


def domain_private_dir(uid: str) -> PurePosixPath:
    """Return the folder in the Pod that holds the consoles' sockets of the VMI with this *uid*."""
    return PRIVATE_DIR / uid


def vnc_socket(uid: str) -> PurePosixPath:
    """Return QEMU's VNC socket inside the Pod."""
    return domain_private_dir(uid) / "virt-vnc"


def serial_socket(uid: str) -> PurePosixPath:
    """Return the socket of the first serial port inside the Pod."""
    return domain_private_dir(uid) / "virt-serial0"


def serial_log(uid: str) -> PurePosixPath:
    """Return the file to which QEMU appends the output of the first serial port, where it is logged."""
    return domain_private_dir(uid) / "virt-serial0-log"


#: How many USB devices of a client a guest can have at once (KubeVirt user guide, "Client Passthrough").
USB_REDIRECTIONS = 4


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
