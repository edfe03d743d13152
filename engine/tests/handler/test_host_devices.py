# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of a node, in a sysfs that is made up."""

from pathlib import Path

import pytest

from turtles.api.configuration import DEFAULT, PermittedDevices
from turtles.api.configuration_reader import from_kubevirt
from turtles.handler import device_plugin_api as api
from turtles.handler import host_devices
from turtles.handler.host_devices import Assignable, HostDevices, Member, find

UUID = "b5e2d3a4-0000-4000-8000-00000000000a"


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A node with two GPUs, of which one is bound to vfio-pci, a virtual GPU, and a USB stick."""

    def device(path: str, group: str = "", driver: str = "", **files: str) -> Path:
        folder = tmp_path / "bus" / path
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text + "\n")
        for link, target in (("iommu_group", f"kernel/iommu_groups/{group}"), ("driver", f"bus/pci/drivers/{driver}")):
            (tmp_path / target).mkdir(parents=True, exist_ok=True)
            (folder / link).symlink_to(tmp_path / target)
        return folder

    device("pci/devices/0000:81:00.0", "7", "vfio-pci", vendor="0x10de", device="0x1eb8")
    device("pci/devices/0000:82:00.0", "8", "nvidia", vendor="0x10de", device="0x1eb8")
    mediated = device(f"mdev/devices/{UUID}", "9")
    (mediated / "mdev_type").mkdir()
    (mediated / "mdev_type/name").write_text("GRID T4-1Q\n")
    device("usb/devices/1-2", idVendor="46f4", idProduct="0001", busnum="3", devnum="7")
    device("usb/devices/usb1", idVendor="1d6b", idProduct="0002", busnum="1", devnum="1")
    return tmp_path


PERMITTED = from_kubevirt(
    {
        "spec": {
            "configuration": {
                "permittedHostDevices": {
                    "pciHostDevices": [
                        {"pciVendorSelector": "10DE:1EB8", "resourceName": "example.org/gpu"},
                        {"pciVendorSelector": "8086:1234", "resourceName": "example.org/none"},
                    ],
                    "mediatedDevices": [{"mdevNameSelector": "GRID T4-1Q", "resourceName": "example.org/vgpu"}],
                    "usb": [
                        {
                            "resourceName": "example.org/stick",
                            "selectors": [{"vendor": "46f4", "product": "0001"}],
                        }
                    ],
                }
            }
        }
    }
).permitted_devices


def test_what_is_permitted_and_there_is_found(sysfs: Path) -> None:
    assert PERMITTED is not None
    vfio = "/dev/vfio/vfio"
    assert find(PERMITTED, sysfs) == [
        Assignable(
            "example.org/gpu",
            vfio,
            "PCI_RESOURCE_EXAMPLE_ORG_GPU",
            {"7": Member((vfio, "/dev/vfio/7"), "0000:81:00.0")},
        ),
        Assignable(
            "example.org/vgpu",
            vfio,
            "MDEV_PCI_RESOURCE_EXAMPLE_ORG_VGPU",
            {UUID: Member((vfio, "/dev/vfio/9"), UUID)},
        ),
        Assignable(
            "example.org/stick",
            "/dev/bus/usb",
            "USB_RESOURCE_EXAMPLE_ORG_STICK",
            {"1-2": Member(("/dev/bus/usb/003/007",), "003:007")},
        ),
    ]


def test_other_plugins_resources_are_left_to_them(sysfs: Path) -> None:
    assert PERMITTED is not None
    external = PermittedDevices(pci={"example.org/gpu": "10de:1eb8"}, external=frozenset({"example.org/gpu"}))
    assert find(external, sysfs) == []
    assert find(PERMITTED, sysfs / "nowhere") == []


def test_a_container_gets_files_and_is_told_which_devices_they_are() -> None:
    members = {name: Member(("/dev/vfio/vfio", f"/dev/vfio/{name}"), f"0000:8{name}:00.0") for name in "12"}
    offer = Assignable("example.org/gpu", "/dev/vfio/vfio", "PCI_RESOURCE_EXAMPLE_ORG_GPU", members)
    assert offer.devices() == ["1", "2"]
    answer = api.ContainerAllocateResponse.FromString(offer.allocation(["2", "1"]).SerializeToString())
    assert [(entry.key, entry.value) for entry in answer.envs] == [
        ("PCI_RESOURCE_EXAMPLE_ORG_GPU", "0000:82:00.0,0000:81:00.0")
    ]
    assert [device.host_path for device in answer.devices] == ["/dev/vfio/vfio", "/dev/vfio/2", "/dev/vfio/1"]


def test_offers_follow_the_configuration(sysfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[list[str]] = []

    class Plugins:
        def __init__(self, folder: Path, offers: list[Assignable], watcher: object, *, root: Path) -> None:
            self.resources = [offer.resource for offer in offers]

        def start(self) -> None:
            running.append(self.resources)

        def stop(self) -> None:
            running.remove(self.resources)

    monkeypatch.setattr(host_devices, "DevicePlugins", Plugins)
    devices = HostDevices(tmp_path, None, sysfs=sysfs)  # type: ignore[arg-type]
    devices.follow(DEFAULT)
    assert running == []
    permitting = from_kubevirt(None).__class__(permitted_devices=PERMITTED)
    devices.follow(permitting)
    devices.follow(permitting)
    assert running == [["example.org/gpu", "example.org/vgpu", "example.org/stick"]]
    devices.follow(DEFAULT)
    assert running == []
