# SPDX-License-Identifier: GPL-3.0-or-later
"""When interfaces are plugged in and out, and what is said of those that can't be. See also test_further_networks."""

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from turtles.domain import network
from turtles.domain.interface_names import further_interface_name
from turtles.domain.live_domain import Live
from turtles.domain.report import Observation
from turtles.handler import interfaces, plumbing, pod_network
from turtles.handler.errors import LibvirtError
from turtles.handler.state import State

POD = network.PodInterface("pod1", "02:00:00:00:00:01", (), None, 1500)
MAC = "02:00:00:00:00:01"


def vmi(**interface: Any) -> dict[str, Any]:
    spec = {
        "domain": {"devices": {"interfaces": [{"name": "lan", "bridge": {}, **interface}]}},
        "networks": [{"name": "lan", "multus": {"networkName": "lan"}}],
    }
    return {"metadata": {"name": "vm", "namespace": "ns", "uid": "u"}, "spec": spec}


def seen(machine: dict[str, Any], *there: str) -> Observation:
    plans = network.plans(machine, {further_interface_name("lan"): POD})
    live = Live("q35", True, False, 1, dict.fromkeys(there, MAC))
    return Observation(1, 1, live, tuple(replace(plan, guest_mac=MAC) for plan in plans))


class Domain:
    """Notes what it is asked for, and refuses it if told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refusal = ""

    def attach(self, xml: str) -> None:
        self._call(f"attach {MAC in xml}")

    def detach(self, alias: str) -> None:
        self._call(f"detach {alias}")

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.refusal:
            raise LibvirtError(self.refusal)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Any:
    for module, name in ((plumbing, "connect"), (plumbing, "disconnect"), (pod_network, "announce")):
        monkeypatch.setattr(module, name, lambda *_: None)
    state = State("p", {POD.name: POD})
    return SimpleNamespace(state=state, interface_failures={}, interface_retry={}, save=lambda: None)


LAUNCHER: Any = SimpleNamespace(netns=0)


def test_plugging_in_and_out(guest: Any) -> None:
    domain: Any = Domain()
    assert interfaces.follow(vmi(), guest, LAUNCHER, domain, seen(vmi()))
    assert domain.calls == ["attach True"]
    assert not interfaces.follow(vmi(), guest, LAUNCHER, domain, seen(vmi(), "lan")), "it is there"
    assert interfaces.next_look(guest, 60) == 60
    gone = vmi(state="absent")
    assert interfaces.follow(gone, guest, LAUNCHER, domain, seen(gone, "lan"))
    assert not interfaces.follow(gone, guest, LAUNCHER, domain, seen(gone, "lan")), "the guest has been asked just now"
    assert domain.calls[1:] == ["detach ua-lan"]
    assert 10 < interfaces.next_look(guest, 60) <= 15, "it is asked again"
    interfaces.give_back(gone, guest, LAUNCHER, seen(gone))
    assert guest.state.pod_interfaces == {}
    guest.interface_retry["lan"] = time.monotonic() - 1
    assert interfaces.next_look(guest, 60) == 60


def test_what_cannot_be_plugged_in(guest: Any) -> None:
    domain: Any = Domain()
    domain.refusal = "internal error: No more available PCI slots"
    assert interfaces.follow(vmi(), guest, LAUNCHER, domain, seen(vmi()))
    assert (
        "can't be plugged in: internal error: No more available PCI slots; the machine has no free port"
        in (guest.interface_failures["lan"])
    )
    assert not interfaces.follow(vmi(), guest, LAUNCHER, domain, seen(vmi())), "not at once"
    guest.interface_retry.clear()
    assert not interfaces.follow(vmi(), guest, LAUNCHER, domain, seen(vmi())), "it is known why"
    guest.interface_retry.clear()
    domain.refusal = ""
    assert interfaces.follow(vmi(), guest, LAUNCHER, domain, seen(vmi()))
    assert guest.interface_failures == {}
