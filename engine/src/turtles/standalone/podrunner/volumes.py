# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of a Pod, as directories and files on the node in the kubelet's layout.

Secrets' content lies below the run directory, which is in memory on an ordinary host, everything else in
``<pods>/<uid>/volumes/kubernetes.io~<plugin>/<name>``.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from turtles.api.objects import Object
from turtles.api.quantity import parse
from turtles.kube.client import Client, Forbidden, NotFound
from turtles.kube.resources import CONFIGMAP, PV, PVC, SECRET
from turtles.standalone import binding, block_files
from turtles.standalone.block_files import BlockFileError
from turtles.standalone.files import remove_tree
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner import tokens
from turtles.standalone.podrunner.mount_points import is_mount, unmount_below
from turtles.standalone.podrunner.volume_files import (
    VolumeError,
    content,
    field,
    own_by_group,
    select_items,
    write_files,
)

log = logging.getLogger(__name__)

#: Kinds of volumes a Pod may have here.
SUPPORTED = (
    "emptyDir",
    "secret",
    "configMap",
    "downwardAPI",
    "projected",
    "hostPath",
    "persistentVolumeClaim",
    "image",
)


#: Those of them whose files the podrunner writes; containers see them read-only, as the kubelet shows them.
WRITTEN = ("secret", "configMap", "downwardAPI", "projected")


#: The medium of an emptyDir with files in huge pages; their size follows, unless the Pod asks for one size only.
_HUGE_PAGES = "HugePages"


def _huge_pages(pod: Object, name: str, path: Path, medium: str, group: int | None) -> Path:
    """Mount huge pages, as many as the Pod asks for."""
    wanted: dict[str, int] = {}
    for container in pod["spec"].get("containers") or []:
        for resource, value in ((container.get("resources") or {}).get("limits") or {}).items():
            if resource.startswith("hugepages-"):
                size = resource.removeprefix("hugepages-")
                wanted[size] = wanted.get(size, 0) + int(parse(value))
    if said := medium.removeprefix(_HUGE_PAGES).removeprefix("-"):
        wanted = {size: amount for size, amount in wanted.items() if size == said}
    if len(wanted) != 1:
        raise VolumeError(
            f"volume {name}: medium {medium} needs a limit of hugepages-{said or '<size>'}"
            f"{'' if said else ' of one size'} in a container of the Pod"
        )
    (size, amount), *_ = wanted.items()
    if not is_mount(path):
        path.mkdir(parents=True, exist_ok=True)
        owner = "mode=777" if group is None else f"mode=777,gid={int(group)}"
        options = f"pagesize={int(parse(size))},size={amount},{owner}"
        try:
            sc.mount("hugetlbfs", str(path), "hugetlbfs", sc.MS_NOSUID | sc.MS_NODEV, options)
        except OSError as error:
            raise VolumeError(f"volume {name}: huge pages of {size} aren't available: {error}") from error
    return path


#: Folder below an instance's, where the loop devices of Pods are noted.
DEVICES = "block"


class Volumes:
    """Prepares and removes the volumes of Pods."""

    def __init__(self, client: Client, run_dir: Path) -> None:
        self._client = client
        self._run_dir = run_dir

    def prepare(self, pod: Object, pod_dir: Path, images: dict[str, Path]) -> dict[str, Path]:
        """Create all volumes of a Pod and return their paths.

        :param images: content directories of the image volumes, by volume name.
        :raises VolumeError: one is not available.
        """
        return {volume["name"]: self._one(pod, volume, pod_dir, images) for volume in pod["spec"].get("volumes") or []}

    def _one(self, pod: Object, volume: Object, pod_dir: Path, images: dict[str, Path]) -> Path:
        name = volume["name"]
        source = next((kind for kind in SUPPORTED if volume.get(kind) is not None), None)
        if source is None:
            kinds = ", ".join(key for key in volume if key != "name")
            raise VolumeError(
                f"volume {name}: {kinds or 'no source'} is not supported in standalone mode",
                "CreateContainerConfigError",
            )
        what: Object = volume[source]
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        uid = pod["metadata"]["uid"]
        if source == "emptyDir":
            path = pod_dir / "volumes/kubernetes.io~empty-dir" / name
            if str(what.get("medium") or "").startswith(_HUGE_PAGES):
                return _huge_pages(pod, name, path, what["medium"], group)
            return self._empty_dir(path, what, group)
        if source == "image":
            return images[name]
        if source == "hostPath":
            return _host_path(name, what)
        if source == "persistentVolumeClaim":
            return self._claim(pod, name, what, group)
        # Pods see their own volumes only, where these are mounted; nobody but root may read them here.
        private = self._run_dir / "volumes"
        private.mkdir(parents=True, exist_ok=True, mode=0o700)
        private.chmod(0o700)
        folder = private / str(uid) / str(name)
        default = what.get("defaultMode", 0o644)
        files = self._files(pod, name, source, what, default)
        write_files(folder, files, group)
        return folder

    def remove(self, uid: str, pod_dir: Path) -> None:
        """Unmount and remove all that :meth:`prepare` made for a Pod; claims' and images' content stays."""
        unmount_below(pod_dir / "volumes")
        block_files.detach_below(self._devices(uid))
        for path in (self._run_dir / "volumes" / uid, pod_dir / "volumes"):
            remove_tree(path)

    @staticmethod
    def _empty_dir(path: Path, what: Object, group: int | None) -> Path:
        if what.get("medium") == "Memory":
            # Whether it is there says the mount, not the directory below, which outlives a reboot.
            if not is_mount(path):
                path.mkdir(parents=True, exist_ok=True)
                size = f",size={int(parse(what['sizeLimit']))}" if what.get("sizeLimit") else ""
                owner = "mode=777" if group is None else f"mode=2777,gid={int(group)}"
                sc.mount("tmpfs", str(path), "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, f"{owner}{size}")
            return path
        if path.is_dir():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.mkdir(exist_ok=True)
        if group is not None:
            os.chown(temporary, -1, group)
        temporary.chmod(0o2777 if group is not None else 0o777)
        temporary.rename(path)
        return path

    def _claim(self, pod: Object, name: str, what: Object, group: int | None) -> Path:
        namespace, claim_name = pod["metadata"]["namespace"], what["claimName"]
        try:
            claim = self._client.get(PVC, namespace, claim_name)
            volume_name = (claim.get("spec") or {}).get("volumeName")
            if (claim.get("status") or {}).get("phase") != "Bound" or not volume_name:
                raise VolumeError(f"volume {name}: PersistentVolumeClaim {namespace}/{claim_name} is not bound yet")
            volume = self._client.get(PV, None, volume_name)
        except (NotFound, Forbidden) as error:
            # A node may read only the volumes of claims that its Pods use, by what the volumes say.
            raise VolumeError(f"volume {name}: PersistentVolumeClaim {namespace}/{claim_name}: {error}") from error
        if not binding.is_bound_to(volume, claim):
            log.warning(
                "a claim names a volume that isn't its own",
                extra={
                    "claim": f"{namespace}/{claim_name}",
                    "volume": volume_name,
                    "bound_to": volume["spec"].get("claimRef"),
                },
            )
            raise VolumeError(
                f"volume {name}: PersistentVolumeClaim {namespace}/{claim_name} names PersistentVolume {volume_name}, "
                f"which belongs to {binding.holder(volume, claim)} (its spec.claimRef): use a claim without "
                "spec.volumeName, or have the volume's claimRef changed"
            )
        spec = volume["spec"]
        place = spec.get("local") or spec.get("hostPath")
        if place is None:
            raise VolumeError(
                f"volume {name}: PersistentVolume {volume_name} is not on this machine (local, hostPath)",
                "CreateContainerConfigError",
            )
        path = Path(place["path"])
        if spec.get("volumeMode") == "Block":
            return self._device(pod, name, volume_name, path)
        if not path.is_dir():
            raise VolumeError(f"volume {name}: the directory {path} of PersistentVolume {volume_name} does not exist")
        if group is not None and not what.get("readOnly"):
            own_by_group(path, group)
        return path

    def _device(self, pod: Object, name: str, volume_name: str, path: Path) -> Path:
        """Return the device that a volume is, or that stands for its file."""
        if path.is_block_device():
            return path
        try:
            return block_files.attach(path, self._devices(pod["metadata"]["uid"]) / name)
        except (BlockFileError, OSError) as error:
            raise VolumeError(f"volume {name}: PersistentVolume {volume_name} can't be a device: {error}") from error

    def _devices(self, uid: str) -> Path:
        """Return the folder where a Pod's loop devices are noted."""
        return self._run_dir / DEVICES / uid

    def _files(self, pod: Object, name: str, source: str, what: Object, mode: int) -> dict[str, tuple[bytes, int]]:
        namespace = pod["metadata"]["namespace"]
        if source in ("secret", "configMap"):
            resource = SECRET if source == "secret" else CONFIGMAP
            wanted = what.get("secretName") or what.get("name") or ""
            try:
                obj = self._client.get(resource, namespace, wanted)
            except NotFound as error:
                if what.get("optional"):
                    return {}
                raise VolumeError(f"volume {name}: {resource.kind} {namespace}/{wanted} does not exist") from error
            return select_items(f"volume {name}: {resource.kind} {wanted}", content(obj), what, mode)
        if source == "downwardAPI":
            return {
                item["path"]: (self._downward(pod, item).encode(), item.get("mode", mode))
                for item in what.get("items") or []
            }
        files: dict[str, tuple[bytes, int]] = {}
        for part in what.get("sources") or []:
            kind = next(iter(part))
            if kind == tokens.KIND:
                files[part[kind]["path"]] = (self._token(pod, name, part[kind]), mode)
                continue
            if kind not in ("secret", "configMap", "downwardAPI"):
                raise VolumeError(
                    f"volume {name}: projected {kind} is not supported in standalone mode", "CreateContainerConfigError"
                )
            files |= self._files(pod, name, kind, part[kind], mode)
        return files

    def _token(self, pod: Object, name: str, source: Object) -> bytes:
        try:
            return tokens.request(self._client, pod, source)
        except NotFound as error:
            raise VolumeError(f"volume {name}: no token: {error}") from error

    def renew(self, pod: Object) -> float | None:
        """Replace the tokens in a Pod's volumes that are due; return seconds after which to look again, or None."""
        return tokens.renew(self._client, pod, self._run_dir / "volumes" / str(pod["metadata"]["uid"]))

    @staticmethod
    def _downward(pod: Object, item: Object) -> str:
        if "fieldRef" not in item:
            raise VolumeError(f"downwardAPI item {item.get('path')} needs fieldRef", "CreateContainerConfigError")
        return field(pod, item["fieldRef"]["fieldPath"])


def _host_path(name: str, what: Object) -> Path:
    path, kind = Path(what["path"]), what.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch()
    tests: dict[str, Callable[[], bool]] = {
        "Directory": path.is_dir,
        "DirectoryOrCreate": path.is_dir,
        "File": path.is_file,
        "FileOrCreate": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
        "BlockDevice": path.is_block_device,
        "": path.exists,
    }
    if not tests.get(kind, path.exists)():
        raise VolumeError(f"volume {name}: hostPath {path} does not exist as {kind or 'file or directory'}")
    return path
