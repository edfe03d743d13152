# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with devices, in a Pod: libvirt, QEMU and swtpm run as an ordinary user there."""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from turtles.domain import definition, paths

from .conftest import VMI_UID, make_vmi

pytestmark = pytest.mark.root

DEVICES = {
    "tpm": {},
    "sound": {"name": "card"},
    "video": {"type": "virtio"},
    "panicDevices": [{"model": "isa"}],
    "watchdog": {"name": "dog", "i6300esb": {"action": "reset"}},
    "inputs": [{"name": "tablet", "type": "tablet", "bus": "usb"}],
    "clientPassthrough": {},
    "rng": {},
    "useVirtioTransitional": True,
}


def test_the_guest_has_the_devices(pod):
    vmi = make_vmi(domain={"devices": DEVICES, "memory": {"guest": "64Mi"}})
    pod.start(vmi)
    connection = pod.connect()
    domain = connection.defineXML(definition.domain_xml(vmi, (), definition.Host(kvm=False)))
    domain.create()
    assert domain.isActive(), pod.log
    assert {"swtpm", "qemu-system-x86"} <= set(pod.children())
    found = ElementTree.fromstring(domain.XMLDesc()).find("devices")
    assert {"tpm", "sound", "panic", "watchdog", "redirdev", "rng"} <= {each.tag for each in found}
    assert Path(pod.inside(paths.usb_redirection_socket(VMI_UID, 3))).is_socket()
    domain.destroy()
    domain.undefine()
    assert pod.exit_status() == 0, pod.log


def test_a_persistent_tpm_keeps_its_state_on_the_claim(pod):
    claim = pod.base / "claim"
    claim.mkdir()
    os.chown(claim, 107, 107)
    pod.mounts.append({"source": "claim", "target": str(paths.STATE_DIR)})
    vmi = make_vmi(domain={"devices": {"tpm": {"persistent": True}}, "memory": {"guest": "64Mi"}})
    pod.start(vmi)
    domain = pod.connect().defineXML(definition.domain_xml(vmi, (), definition.Host(kvm=False)))
    domain.create()
    domain.destroy()
    domain.undefine()
    assert pod.exit_status() == 0, pod.log
    assert [path.name for path in claim.rglob("*.permall")] == ["tpm2-00.permall"]
