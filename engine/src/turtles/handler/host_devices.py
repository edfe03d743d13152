# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of this node that guests may have, as the KubeVirt object's ``permittedHostDevices`` selects them.

They are found in sysfs (the kernel's ABI documentation: sysfs-bus-pci, sysfs-bus-vfio-mdev, sysfs-bus-usb) and offered
to the kubelet by a device plugin for each resource. This module is imported only where there is a kubelet.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turtles.api.configuration import ClusterConfiguration, PermittedDevices
from turtles.domain.definition.host_devices import MDEV_PREFIX, PCI_PREFIX, USB_PREFIX, variable
from turtles.handler import device_plugin_api as api
from turtles.handler.device_plugin import DevicePlugins, Offer
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)

_VFIO = "/dev/vfio/vfio"
_USB = "/dev/bus/usb"


@dataclass(frozen=True)
class Member:
    """One device: the files that a Pod needs for it, and what libvirt calls it."""

    paths: tuple[str, ...]
    address: str


@dataclass(frozen=True)
class Assignable(Offer):
    """A resource whose devices are given to one guest each; ``path`` is there as long as they can be.

    :param variable: the environment variable that names those which a Pod was given.
    :param members: the devices, by the name that the kubelet knows them by.
    """

    variable: str = ""
    members: Mapping[str, Member] = field(default_factory=dict)

    def devices(self) -> list[str]:
        """See `Offer.devices`."""
        return list(self.members)

    def allocation(self, devices: Sequence[str]) -> Any:
        """See `Offer.allocation`."""
        chosen = [self.members[name] for name in devices if name in self.members]
        paths = dict.fromkeys(path for member in chosen for path in member.paths)
        return api.ContainerAllocateResponse(
            envs=[api.EnvsEntry(key=self.variable, value=",".join(member.address for member in chosen))],
            devices=[api.DeviceSpec(container_path=path, host_path=path, permissions="mrw") for path in paths],
        )


def find(permitted: PermittedDevices, sysfs: Path = Path("/sys")) -> list[Assignable]:
    """Return what this node has of the permitted devices; other plugins' resources are left to them.

    :param sysfs: where it is mounted.
    """
    devices = [
        *(
            Assignable(resource, _VFIO, variable(PCI_PREFIX, resource), dict(_pci(sysfs, selector)))
            for resource, selector in permitted.pci.items()
        ),
        *(
            Assignable(resource, _VFIO, variable(MDEV_PREFIX, resource), dict(_mediated(sysfs, selector)))
            for resource, selector in permitted.mediated.items()
        ),
        *(
            Assignable(resource, _USB, variable(USB_PREFIX, resource), dict(_usb(sysfs, selectors)))
            for resource, selectors in permitted.usb.items()
        ),
    ]
    return [offer for offer in devices if offer.members and offer.resource not in permitted.external]


def _pci(sysfs: Path, selector: str) -> Iterator[tuple[str, Member]]:
    """Find PCI devices with this vendor and device that are bound to vfio-pci."""
    for device in _entries(sysfs / "bus/pci/devices"):
        identity = ":".join(_read(device / name).removeprefix("0x") for name in ("vendor", "device"))
        if identity != selector or (device / "driver").resolve().name != "vfio-pci":
            continue
        group = (device / "iommu_group").resolve().name
        # A group is what can be handed out: a guest that has one of its devices has the others.
        yield group, Member((_VFIO, f"/dev/vfio/{group}"), device.name)


def _mediated(sysfs: Path, selector: str) -> Iterator[tuple[str, Member]]:
    """Find mediated devices of this type."""
    for device in _entries(sysfs / "bus/mdev/devices"):
        kind = _read(device / "mdev_type/name") or (device / "mdev_type").resolve().name
        if kind.replace(" ", "_") == selector.lower().replace(" ", "_"):
            group = (device / "iommu_group").resolve().name
            yield device.name, Member((_VFIO, f"/dev/vfio/{group}"), device.name)


def _usb(sysfs: Path, selectors: Sequence[str]) -> Iterator[tuple[str, Member]]:
    """Find USB devices with one of these vendors and products."""
    for device in _entries(sysfs / "bus/usb/devices"):
        if ":".join(_read(device / name) for name in ("idVendor", "idProduct")) not in selectors:
            continue
        bus, number = _read(device / "busnum"), _read(device / "devnum")
        if bus.isdecimal() and number.isdecimal():
            path = f"{_USB}/{int(bus):03d}/{int(number):03d}"
            yield device.name, Member((path,), f"{int(bus):03d}:{int(number):03d}")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    """Return a file's text in lower case; empty if there is none."""
    try:
        return path.read_text(errors="replace").strip().lower()
    except OSError:
        return ""


class HostDevices:
    """Offers the permitted devices of this node to the kubelet, whatever the configuration says by now."""

    def __init__(self, folder: Path, watcher: Watcher, *, root: Path = Path("/"), sysfs: Path = Path("/sys")) -> None:
        """Make it.

        :param folder: the kubelet's ``device-plugins``. :param root: below which the node's /dev is seen.
        :param sysfs: where it is mounted.
        """
        self._folder, self._watcher, self._root, self._sysfs = folder, watcher, root, sysfs
        self._permitted: PermittedDevices | None = None
        self._plugins: DevicePlugins | None = None

    def follow(self, configuration: ClusterConfiguration) -> None:
        """Offer what a configuration permits, and nothing else any longer."""
        permitted = configuration.permitted_devices
        if permitted == self._permitted:
            return
        self._permitted = permitted
        self.stop()
        offers = [] if permitted is None else find(permitted, self._sysfs)
        if offers:
            log.info("host devices found", extra={"resources": [offer.resource for offer in offers]})
            self._plugins = DevicePlugins(self._folder, offers, self._watcher, root=self._root)
            self._plugins.start()

    def stop(self) -> None:
        """Stop offering them."""
        plugins, self._plugins = self._plugins, None
        if plugins is not None:
            plugins.stop()
