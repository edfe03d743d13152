# SPDX-License-Identifier: GPL-3.0-or-later
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from turtles.api.configuration import ClusterConfiguration
from turtles.domain import definition, network
from turtles.domain.definition import Host, Topology

GOLDEN = Path(__file__).parent / "golden"
UID = "6f1c2f0e-5b86-4c3a-9a06-0f2f3b6c1d11"
POD_INTERFACE = network.PodInterface("eth0", "0a:58:0a:f4:00:05", (("10.244.0.5", 16),), "10.244.0.1", 1400)


def vmi(domain: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "testvm", "namespace": "default", "uid": UID},
        "spec": {"domain": {"devices": {}, **domain}, **spec},
    }


TALK = vmi(
    {
        "devices": {
            "disks": [
                {"name": "containerdisk", "disk": {"bus": "virtio"}},
                {"name": "cloudinitdisk", "disk": {"bus": "virtio"}},
            ],
            "interfaces": [{"name": "default", "bridge": {}}],
        },
        "resources": {"requests": {"memory": "64M"}},
    },
    networks=[{"name": "default", "pod": {}}],
    volumes=[
        {"name": "containerdisk", "containerDisk": {"image": "kubevirt/cirros-registry-disk-demo"}},
        {"name": "cloudinitdisk", "cloudInitNoCloud": {"userDataBase64": "SGkuXG4="}},
    ],
)
EVERYTHING = vmi(
    {
        "cpu": {
            "cores": 2,
            "sockets": 1,
            "threads": 2,
            "model": "Nehalem",
            "features": [{"name": "aes", "policy": "require"}, {"name": "vmx", "policy": "disable"}],
        },
        "memory": {"guest": "1Gi"},
        "machine": {"type": "pc-q35-7.2"},
        "firmware": {"uuid": "0d3b9e9c-3d5f-5b7a-8a53-7c7e0d2b4f3c", "serial": "serial-1"},
        "features": {"acpi": {"enabled": True}},
        "clock": {
            "timezone": "Europe/Berlin",
            "timer": {
                "hpet": {"present": False},
                "pit": {"tickPolicy": "delay"},
                "rtc": {"tickPolicy": "catchup", "track": "guest"},
                "kvm": {},
            },
        },
        "devices": {
            "disks": [
                {"name": "root", "bootOrder": 2, "disk": {"bus": "virtio"}, "serial": "D-1", "cache": "writethrough"},
                {"name": "data", "disk": {"bus": "scsi"}, "io": "native"},
                {"name": "claim", "disk": {"bus": "sata"}},
                {"name": "stick", "disk": {"bus": "usb", "readonly": True}, "io": "threads"},
                {"name": "seed", "cdrom": {"bus": "sata", "readonly": True, "tray": "closed"}},
            ],
            "interfaces": [
                {
                    "name": "default",
                    "masquerade": {},
                    "model": "e1000e",
                    "macAddress": "02:00:00:AA:BB:CC",
                    "bootOrder": 1,
                }
            ],
            "rng": {},
            "watchdog": {"name": "dog", "i6300esb": {"action": "poweroff"}},
            "inputs": [{"name": "tablet", "type": "tablet", "bus": "virtio"}],
        },
    },
    networks=[{"name": "default", "pod": {}}],
    volumes=[
        {"name": "root", "containerDisk": {"image": "example"}},
        {"name": "data", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "pvc-1"}},
        {"name": "stick", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "seed", "cloudInitConfigDrive": {"userData": "#cloud-config"}},
    ],
)
BARE = vmi(
    {
        "resources": {"requests": {"memory": "128Mi"}, "limits": {"cpu": "1500m"}},
        "features": {"acpi": {"enabled": False}},
        "clock": {"utc": {"offsetSeconds": 3600}},
        "devices": {
            "autoattachPodInterface": False,
            "autoattachGraphicsDevice": False,
            "autoattachSerialConsole": False,
            "autoattachMemBalloon": False,
        },
    }
)
DEVICES = vmi(
    {
        "cpu": {"cores": 2, "sockets": 2},
        "memory": {"guest": "64Mi"},
        "devices": {
            "disks": [{"name": "root", "disk": {"bus": "virtio"}}, {"name": "data", "disk": {"bus": "scsi"}}],
            "interfaces": [
                {
                    "name": "default",
                    "masquerade": {},
                    "macAddress": "0200.00AA.BBCC",
                    "state": "down",
                    "acpiIndex": 7,
                    "pciAddress": "0000:81:01.0",
                }
            ],
            "rng": {},
            "inputs": [{"name": "tablet", "type": "tablet", "bus": "usb"}],
            "tpm": {},
            "sound": {"name": "card", "model": "ac97"},
            "video": {"type": "virtio"},
            "panicDevices": [{"model": "hyperv"}, {"model": "isa"}],
            "autoattachVSOCK": True,
            "clientPassthrough": {},
            "downwardMetrics": {},
            "networkInterfaceMultiqueue": True,
            "useVirtioTransitional": True,
        },
    },
    networks=[{"name": "default", "pod": {}}],
    volumes=[
        {"name": "root", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "data", "emptyDisk": {"capacity": "1Gi"}},
    ],
)
DEVICES["status"] = {"VSOCKCID": 4711}
DISPLAY = {"display": {"ramFB": {"enabled": False}}}
HOST_DEVICES = vmi(
    {
        "memory": {"guest": "64Mi"},
        "devices": {
            "video": {"type": "ramfb"},
            "tpm": {"persistent": True},
            "gpus": [
                {"name": "gpu1", "deviceName": "example.org/TU104GL_Tesla"},
                {"name": "gpu2", "deviceName": "example.org/TU104GL_Tesla"},
                {"name": "vgpu", "deviceName": "example.org/GRID-1Q", "virtualGPUOptions": DISPLAY},
            ],
            "hostDevices": [{"name": "stick", "deviceName": "kubevirt.io/usb-storage"}],
        },
    }
)
ASSIGNED = {
    "PCI_RESOURCE_EXAMPLE_ORG_TU104GL_TESLA": "0000:81:00.0,0000:82:00.1",
    "MDEV_PCI_RESOURCE_EXAMPLE_ORG_GRID_1Q": "b5e2d3a4-0000-4000-8000-00000000000a",
    "USB_RESOURCE_KUBEVIRT_IO_USB_STORAGE": "03:007",
    "PATH": "/usr/bin",
}
CASES = {
    "devices": (DEVICES, Host(kvm=True)),
    "host-devices": (HOST_DEVICES, Host(kvm=True, assigned=ASSIGNED)),
    "talk": (TALK, Host(kvm=False)),
    "talk-kvm": (TALK, Host(kvm=True)),
    "everything": (EVERYTHING, Host(kvm=False)),
    "everything-kvm": (EVERYTHING, Host(kvm=True, no_direct_io=frozenset({"claim"}))),
    "bare": (BARE, Host(kvm=False)),
}


def plans(obj: dict[str, Any]) -> list[network.InterfacePlan]:
    return list(network.plans(obj, {"eth0": POD_INTERFACE}))


def render(name: str) -> str:
    obj, host = CASES[name]
    return definition.domain_xml(obj, plans(obj), host) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """To accept a change: UPDATE_GOLDEN=1 pytest, then read the difference."""
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(render(name))
    assert render(name) == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_schema(name: str) -> None:
    """libvirt's test driver checks the schema first and only then whether it can run such a machine itself."""
    assert violation(render(name)) == ""
    assert "memmory" in violation(render(name).replace("<memory ", "<memmory ").replace("</memory>", "</memmory>"))


def violation(xml: str) -> str:
    libvirt = pytest.importorskip("libvirt")
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("test:///default")
    try:
        connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_XML_INVALID_SCHEMA:
            return str(error)
    finally:
        connection.close()
    return ""


def parsed(obj: dict[str, Any], *, kvm: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(definition.domain_xml(obj, plans(obj), Host(kvm=kvm)))


def test_the_guest_sees_the_installations_smbios() -> None:
    obj = vmi({"memory": {"guest": "64Mi"}})

    def entries(host: Host) -> dict[str, str | None]:
        root = ElementTree.fromstring(definition.domain_xml(obj, plans(obj), host))
        found = {entry.get("name", ""): entry.text for entry in root.iterfind("sysinfo/system/entry")}
        return {name: text for name, text in found.items() if name != "uuid"}

    assert entries(Host(kvm=True)) == {"manufacturer": "KubeVirt", "product": "None", "family": "KubeVirt"}
    chosen = {"manufacturer": "Example", "product": "Cloud", "version": "2", "sku": "X", "family": "F"}
    assert entries(Host(kvm=True, cluster=ClusterConfiguration(smbios=chosen))) == chosen


@pytest.mark.parametrize(
    ("cluster", "reporting", "period"),
    [
        (ClusterConfiguration(), "on", "10"),
        (ClusterConfiguration(balloon_stats_period=3, free_page_reporting=False), "off", "3"),
        (ClusterConfiguration(balloon_stats_period=0), "on", None),
    ],
)
def test_the_balloon_is_as_the_installation_says(
    cluster: ClusterConfiguration, reporting: str, period: str | None
) -> None:
    obj = vmi({"memory": {"guest": "64Mi"}})
    root = ElementTree.fromstring(definition.domain_xml(obj, plans(obj), Host(kvm=True, cluster=cluster)))
    balloon = root.find("devices/memballoon")
    assert balloon is not None
    stats = balloon.find("stats")
    assert balloon.get("freePageReporting") == reporting
    assert (None if stats is None else stats.get("period")) == period


@pytest.mark.parametrize("model", [None, "host-model", "host-passthrough"])
def test_an_emulated_cpu_is_the_emulators_best(model: str | None) -> None:
    obj = vmi({"memory": {"guest": "64Mi"}, "cpu": {"model": model}})
    cpu = parsed(obj).find("cpu")
    assert cpu is not None
    assert cpu.get("mode") == "maximum"
    real = parsed(obj, kvm=True).find("cpu")
    assert real is not None
    assert real.get("mode") == (model or "host-model")


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({}, Topology(1, 1, 1)),
        ({"cpu": {"cores": 3}}, Topology(1, 3, 1)),
        ({"cpu": {"sockets": 2, "threads": 2}}, Topology(2, 1, 2)),
        ({"resources": {"requests": {"cpu": "2500m"}}}, Topology(3, 1, 1)),
        ({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}}, Topology(4, 1, 1)),
        ({"cpu": {"model": "Nehalem"}, "resources": {"limits": {"cpu": "100m"}}}, Topology(1, 1, 1)),
    ],
)
def test_topology(domain: dict[str, Any], expected: Topology) -> None:
    assert definition.cpu_topology({"domain": domain}) == expected


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"memory": {"guest": "64Mi"}, "resources": {"requests": {"memory": "1Gi"}}}, 64 << 20),
        ({"resources": {"requests": {"memory": "64M"}}}, 64_000_000),
        ({"resources": {"limits": {"memory": "1Ki"}}}, 1024),
    ],
)
def test_memory(domain: dict[str, Any], expected: int) -> None:
    assert definition.guest_memory({"domain": domain}) == expected


def test_no_memory() -> None:
    with pytest.raises(ValueError, match=r"spec\.domain\.memory\.guest"):
        definition.guest_memory({"domain": {}})


def test_automatic_boot_order_is_disks_then_cdroms_and_no_seeds() -> None:
    obj = vmi(
        {
            "memory": {"guest": "64Mi"},
            "devices": {
                "disks": [
                    {"name": "seed", "disk": {"bus": "virtio"}},
                    {"name": "installer", "cdrom": {}},
                    {"name": "root", "disk": {"bus": "virtio"}},
                ]
            },
        },
        volumes=[
            {"name": "seed", "cloudInitNoCloud": {"userData": "x"}},
            {"name": "installer", "containerDisk": {"image": "x"}},
            {"name": "root", "emptyDisk": {"capacity": "1Gi"}},
        ],
    )
    orders = {}
    for disk in parsed(obj).findall("devices/disk"):
        alias, boot = disk.find("alias"), disk.find("boot")
        assert alias is not None
        orders[alias.get("name")] = boot.get("order") if boot is not None else None
    assert orders == {"ua-seed": None, "ua-root": "1", "ua-installer": "2"}


def test_many_disks() -> None:
    disks = [{"name": f"d{index}", "disk": {"bus": "virtio"}} for index in range(28)]
    targets = definition.disk_targets({"domain": {"devices": {"disks": disks}}})
    assert [targets[name] for name in ("d0", "d25", "d26", "d27")] == ["vda", "vdz", "vdaa", "vdab"]


@pytest.mark.parametrize(
    ("disk", "volume", "message"),
    [
        ({"name": "x", "disk": {"bus": "ide"}}, {"name": "x", "emptyDisk": {}}, "bus 'ide'"),
        ({"name": "x", "disk": {}}, {"name": "y", "emptyDisk": {}}, "disk 'x' has no volume"),
        ({"name": "x", "disk": {}}, {"name": "x", "nfs": {}}, "volume 'x' .*nfs"),
    ],
)
def test_what_cannot_be_said(disk: dict[str, Any], volume: dict[str, Any], message: str) -> None:
    obj = vmi({"memory": {"guest": "64Mi"}, "devices": {"disks": [disk]}}, volumes=[volume])
    with pytest.raises(ValueError, match=message):
        parsed(obj)


def test_the_pod_has_to_have_been_given_the_device() -> None:
    obj = vmi({"memory": {"guest": "64Mi"}, "devices": {"gpus": [{"name": "g", "deviceName": "example.org/gpu"}]}})
    for assigned in ({}, {"PCI_RESOURCE_EXAMPLE_ORG_GPU": "../../etc"}, {"PCI_RESOURCE_OTHER": "0000:81:00.0"}):
        with pytest.raises(ValueError, match=r"'g': the Pod was given no device of 'example\.org/gpu'"):
            definition.domain_xml(obj, [], Host(kvm=True, assigned=assigned))


def test_a_machine_without_a_vsock_address_has_to_wait() -> None:
    with pytest.raises(ValueError, match="VSOCKCID"):
        parsed(vmi({"memory": {"guest": "64Mi"}, "devices": {"autoattachVSOCK": True}}))


def test_a_tpm_that_is_switched_off() -> None:
    obj = vmi({"memory": {"guest": "64Mi"}, "devices": {"tpm": {"enabled": False}}})
    assert parsed(obj).find("devices/tpm") is None


@pytest.mark.parametrize(("model", "vram"), [("vga", "16384"), ("bochs", "16384"), ("virtio", None)])
def test_video(model: str, vram: str | None) -> None:
    found = parsed(vmi({"memory": {"guest": "64Mi"}, "devices": {"video": {"type": model}}})).find(
        "devices/video/model"
    )
    assert found is not None
    assert (found.get("type"), found.get("vram")) == (model, vram)


def passt_interface(*ports: dict[str, Any], **more: Any) -> ElementTree.Element:
    """The domain of a machine with passt."""
    interface = {"name": "default", "passtBinding": {}, "ports": list(ports)}
    machine = vmi(
        {"devices": {"interfaces": [interface]}, "memory": {"guest": "64Mi"}, **more},
        networks=[{"name": "default", "pod": {}}],
    )
    plans = network.plans(machine, {"eth0": POD_INTERFACE})
    return ElementTree.fromstring(definition.domain_xml(machine, plans, Host(kvm=False)))


def test_passt() -> None:
    """As libvirt 11.3 with Debian 13's passt has been seen to start it."""
    root = passt_interface()
    interface = root.find("devices/interface")
    assert interface is not None
    assert interface.get("type") == "vhostuser"
    found = {child.tag: child.attrib for child in interface if child.tag not in ("portForward", "mac")}
    assert found == {
        "source": {"dev": "eth0"},
        "backend": {"type": "passt"},
        "model": {"type": "virtio"},
        "rom": {"enabled": "no"},
        "alias": {"name": "ua-default"},
    }, "libvirt 11.3 refuses an MTU"
    assert [(each.get("proto"), len(each)) for each in interface.iterfind("portForward")] == [("tcp", 0), ("udp", 0)]
    assert root.find("memoryBacking/source[@type='memfd']") is not None
    assert root.find("memoryBacking/access[@mode='shared']") is not None, "passt reads the guest's memory"


def test_passt_with_some_ports() -> None:
    root = passt_interface(
        {"port": 22}, {"port": 80, "protocol": "TCP"}, memory={"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}
    )
    (forward,) = root.iterfind("devices/interface/portForward")
    assert forward.get("proto") == "tcp"
    assert [each.attrib for each in forward] == [{"start": "22"}, {"start": "80"}]
    assert root.find("memoryBacking/hugepages") is not None
    assert root.find("memoryBacking/access[@mode='shared']") is not None


def test_names_are_escaped() -> None:
    obj = vmi({"memory": {"guest": "64Mi"}, "firmware": {"serial": "<&\"'"}})
    assert parsed(obj).findtext("sysinfo/system/entry[@name='serial']") == "<&\"'"


def test_a_claim_that_is_a_block_device() -> None:
    machine = vmi(
        {"devices": {"disks": [{"name": "data", "disk": {"bus": "virtio"}}]}, "memory": {"guest": "64Mi"}},
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}],
    )
    machine["status"] = {"volumeStatus": [{"name": "data", "persistentVolumeClaimInfo": {"volumeMode": "Block"}}]}
    disk = ElementTree.fromstring(definition.domain_xml(machine, [], Host(kvm=True))).find("devices/disk")
    assert disk is not None
    assert disk.get("type") == "block"
    assert disk.find("source").attrib == {"dev": "/dev/data"}
    assert disk.find("driver").get("type") == "raw"


def test_the_serial_console_is_logged_where_the_launcher_takes_its_output():
    logged = ElementTree.fromstring(definition.domain_xml(TALK, (), definition.Host(False, logs_console=True)))
    assert logged.find("devices/serial/log").attrib == {
        "file": f"/var/run/kubevirt-private/{UID}/virt-serial0-log",
        "append": "on",
    }
    assert parsed(TALK).find("devices/serial/log") is None


@pytest.mark.parametrize(
    ("domain", "folder"),
    [
        ({"persistent": True}, "persistent-state"),
        ({"persistent": False}, UID),
        ({}, UID),
    ],
)
def test_where_variables_of_efi_are(domain: dict[str, Any], folder: str) -> None:
    found = parsed(vmi({"memory": {"guest": "64Mi"}, "firmware": {"bootloader": {"efi": domain}}}))
    assert found.findtext("os/nvram") == f"/var/run/kubevirt-private/{folder}/efi-variables.fd"
