# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Devices of a virtual machine, as the guest sees them."""

from __future__ import annotations

import struct

import pytest
import websocket

from engine import Engine, condition

#: Vendor and device of what is asked for: ICH9's sound, the watchdog, QEMU's xHCI, virtio's graphics card.
PCI_DEVICES = {"8086:293e", "8086:25ab", "1b36:000d", "1af4:1050"}
DEVICES = {
    "rng": {},
    "tpm": {},
    "sound": {"name": "card"},
    "video": {"type": "virtio"},
    "watchdog": {"name": "dog", "i6300esb": {"action": "reset"}},
    "panicDevices": [{"model": "isa"}],
    "clientPassthrough": {},
    "autoattachInputDevice": True,
    "networkInterfaceMultiqueue": True,
}
LOOK = """
for d in /sys/bus/pci/devices/*; do echo pci $(cut -c3- $d/vendor):$(cut -c3- $d/device); done
for d in /sys/bus/acpi/devices/*; do echo acpi $(basename $d | cut -d: -f1); done
echo index $(cat $(readlink -f /sys/class/net/eth0/device)/../acpi_index)
echo queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)
"""


def test_the_guest_sees_its_devices(cluster: Engine, namespace: str) -> None:
    vm = cluster.virtual_machine("devices")
    domain = vm["spec"]["template"]["spec"]["domain"]
    domain["cpu"] = {"sockets": 2}
    domain["devices"] |= DEVICES
    domain["devices"]["interfaces"][0] |= {
        "acpiIndex": 7,
        "dhcpOptions": {"ntpServers": ["192.0.2.1"], "privateOptions": [{"option": 240, "value": "x"}]},
    }
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "devices", timeout=180)
    [interface] = vmi["status"]["interfaces"]
    assert (interface["queueCount"], interface["linkState"]) == (2, "up")
    seen: dict[str, set[str]] = {}
    for line in cluster.ssh(interface["ipAddress"], LOOK).splitlines():
        kind, _dummy, what = line.partition(" ")
        seen.setdefault(kind, set()).add(what)
    assert seen["pci"] >= PCI_DEVICES
    assert seen["acpi"] >= {"MSFT0101", "QEMU0001"}, "a TPM and a device for panics"
    assert (seen["index"], seen["queues"]) == ({"7"}, {"2"})
    assert [each["name"] for each in vmi["spec"]["domain"]["devices"]["inputs"]] == ["default-0"]
    check_usb_redirection(cluster, namespace, "devices")


def check_usb_redirection(cluster: Engine, namespace: str, name: str) -> None:
    """Connect as virtctl usbredir does; QEMU greets those who bring a device (usbredir protocol, "usb_redir_hello")."""
    clients = [cluster.connect(namespace, name, "usbredir") for port in range(4)]
    for client in clients:
        greeting = client.recv()
        while len(greeting) < 12 + 64:
            greeting += client.recv()
        kind, length = struct.unpack_from("<II", greeting)
        assert (kind, length >= 64) == (0, True)
        assert greeting[12:].startswith(b"qemu usb-redir guest")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        cluster.connect(namespace, name, "usbredir")
    assert refused.value.status_code == 503
    for client in clients:
        client.close()


def test_what_can_not_run_yet_is_named(cluster: Engine, namespace: str) -> None:
    vm = cluster.virtual_machine("later")
    (interface,) = vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"]
    del interface["masquerade"]
    interface["binding"] = {"name": "fast"}
    cluster.create(namespace, vm)
    cluster.wait_event(namespace, "later", ["FailedCreate", "binding.name: no network binding plugin"], timeout=30)
    vmi = cluster.get(namespace, "virtualmachineinstances", "later")
    assert vmi is not None
    assert vmi["status"]["phase"] == "Pending"
    assert condition(vmi, "Synchronized")["reason"] == "FailedCreate"


def test_what_no_guest_can_start_with_is_named(cluster: Engine, namespace: str) -> None:
    vm = cluster.virtual_machine("never")
    vm["spec"]["template"]["spec"]["domain"]["firmware"] = {"uuid": "me"}
    cluster.create(namespace, vm)
    cluster.wait_event(namespace, "never", ["FailedCreate", "firmware.uuid must be a UUID"], timeout=30)
