# SPDX-License-Identifier: GPL-3.0-or-later
"""Which changes of a template a running instance follows."""

import copy
from typing import Any

import pytest

from turtles.controller.vm import interfaces as plugging
from turtles.controller.vm import live_update

SPEC = {
    "architecture": "amd64",
    "domain": {
        "cpu": {"sockets": 2, "cores": 1, "threads": 1, "maxSockets": 4},
        "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
        "resources": {"requests": {"memory": "1Gi"}},
        "devices": {},
    },
}
ZONE = {"zone": "a"}


def vmi(**domain: Any) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    spec["domain"].update(domain)
    status = {
        "phase": "Running",
        "currentCPUTopology": {"sockets": 2},
        "memory": {"guestAtBoot": "1Gi"},
        "conditions": [],
    }
    return {"metadata": {"name": "testvm"}, "spec": spec, "status": status}


def wanted(old: dict[str, Any], **changes: Any) -> dict[str, Any]:
    spec = copy.deepcopy(old["spec"])
    for path, value in changes.items():
        *parts, last = path.split("__")
        holder = spec
        for part in parts:
            holder = holder[part]
        holder[last] = value
    return spec


SOCKETS, GUEST = "domain__cpu__sockets", "domain__memory__guest"


@pytest.mark.parametrize(
    ("changes", "patch", "restart"),
    [
        ({}, {}, ""),
        ({SOCKETS: 4}, {"domain": {"cpu": {"sockets": 4}}}, ""),
        ({SOCKETS: 5}, {}, "CPU sockets updated in template spec to a value higher than what's available"),
        ({SOCKETS: 1}, {}, "Reduction of CPU socket count requires a restart"),
        ({GUEST: "2Gi"}, {"domain": {"memory": {"guest": "2Gi"}}}, ""),
        ({GUEST: "1024Mi"}, {}, ""),
        ({GUEST: "512Mi"}, {}, "memory updated in template spec to a value lower than what the VM started with"),
        ({"nodeSelector": ZONE}, {"nodeSelector": ZONE}, ""),
        (
            {SOCKETS: 3, GUEST: "2Gi", "tolerations": [{"operator": "Exists"}]},
            {
                "tolerations": [{"operator": "Exists"}],
                "domain": {"cpu": {"sockets": 3}, "memory": {"guest": "2Gi"}},
            },
            "",
        ),
        # One that can't be followed holds all of them back
        (
            {SOCKETS: 9, "nodeSelector": ZONE},
            {},
            "CPU sockets updated in template spec to a value higher than what's available",
        ),
    ],
)
def test_updates(changes: dict[str, Any], patch: dict[str, Any], restart: str) -> None:
    old = vmi()
    assert live_update.update(old, wanted(old, **changes)) == live_update.Update(patch, restart)


@pytest.mark.parametrize(
    ("domain", "changes", "restart"),
    [
        (
            {"cpu": {"sockets": 1, "maxSockets": 4, "dedicatedCpuPlacement": True}},
            {SOCKETS: 2},
            "dedicated CPUs can only be assigned when the guest starts",
        ),
        (
            {"resources": {"limits": {"memory": "1536Mi"}}},
            {GUEST: "2Gi"},
            "memory updated in template spec to a value higher than the memory limit of the running Pod",
        ),
        ({"memory": {"guest": "1Gi"}}, {GUEST: "2Gi"}, "memory hotplug not supported"),
    ],
)
def test_what_a_guest_does_not_allow(domain: dict[str, Any], changes: dict[str, Any], restart: str) -> None:
    old = vmi(**domain)
    if "cpu" in domain:
        old["status"]["currentCPUTopology"] = {"sockets": 1}
    found = live_update.update(old, wanted(old, **changes))
    assert not found.patch
    assert found.restart.startswith(restart)


def test_a_selector_that_is_gone() -> None:
    old = vmi()
    old["spec"]["nodeSelector"] = ZONE
    new = wanted(old)
    del new["nodeSelector"]
    assert live_update.update(old, new).patch == {"nodeSelector": None}


def test_memory_that_could_not_be_added() -> None:
    old = vmi()
    old["status"]["conditions"] = [{"type": "HotMemoryChange", "status": "False"}]
    assert live_update.update(old, wanted(old, **{GUEST: "2Gi"})).restart == "memory hotplug failed"


def test_fields_that_are_followed() -> None:
    spec = {**SPEC, "nodeSelector": ZONE, "tolerations": [], "hostname": "x"}
    found = live_update.without_live_fields(spec)
    assert set(found) == {"architecture", "domain", "hostname"}
    assert found["domain"]["cpu"] == {"cores": 1, "threads": 1, "maxSockets": 4}
    assert found["domain"]["memory"] == {"maxGuest": "4Gi"}
    assert "sockets" in SPEC["domain"]["cpu"]


@pytest.mark.parametrize(
    ("phase", "deleted", "follows"), [("Running", False, True), ("Scheduled", False, False), ("Running", True, False)]
)
def test_only_running_guests_follow(phase: str, deleted: bool, follows: bool) -> None:
    old = vmi()
    old["status"]["phase"] = phase
    if deleted:
        old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert live_update.can_follow(old) is follows
    assert not live_update.can_follow(None)


def interfaces(*states: str | None) -> list[dict[str, Any]]:
    return [
        {"name": f"nic-{index}", "bridge": {}, **({} if state is None else {"state": state})}
        for index, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("before", "after", "stored"),
    [
        (None, "down", "down"),
        ("down", None, "up"),
        ("down", "up", "up"),
        ("up", None, None),
        ("down", "down", None),
        ("down", "absent", None),
    ],
)
def test_links(before: str | None, after: str | None, stored: str | None) -> None:
    old = vmi(devices={"interfaces": interfaces(before, "down")})
    found = live_update.update(old, wanted(old, domain__devices={"interfaces": interfaces(after, "down")}))
    expected = {} if stored is None else {"domain": {"devices": {"interfaces": interfaces(stored, "down")}}}
    assert found == live_update.Update(expected)


def with_networks(*entries: dict[str, Any], name: str = "lan") -> dict[str, Any]:
    """Return a VMI with these interfaces beside that of the Pod network; all are on secondary networks."""
    old = vmi(devices={"interfaces": [{"name": "default", "masquerade": {}}, *entries]})
    further = [{"name": each["name"], "multus": {"networkName": name}} for each in entries]
    old["spec"]["networks"] = [{"name": "default", "pod": {}}, *further]
    return old


LAN = {"name": "lan", "bridge": {}}


def test_an_interface_is_plugged_in() -> None:
    old, new = with_networks(), with_networks(LAN)["spec"]
    found = live_update.update(old, new)
    devices = {"interfaces": new["domain"]["devices"]["interfaces"]}
    assert found == live_update.Update({"domain": {"devices": devices}, "networks": new["networks"]})
    assert live_update.without_live_fields(new) == live_update.without_live_fields(old["spec"])


def test_an_interface_is_unplugged() -> None:
    """It leaves the guest first, then the Pod, then the instance, then the template."""
    old, new = with_networks(LAN), with_networks({**LAN, "state": "absent"})["spec"]
    old["status"]["interfaces"] = [{"name": "lan", "infoSource": "domain, multus-status"}]
    found = live_update.update(old, new)
    assert found.patch == {"domain": {"devices": {"interfaces": new["domain"]["devices"]["interfaces"]}}}
    old["spec"] = new
    assert live_update.update(old, new).patch == {}
    assert plugging.without_unplugged(new, old) is None
    old["status"]["interfaces"] = []
    without = with_networks()["spec"]
    gone = {"domain": {"devices": without["domain"]["devices"]}, "networks": without["networks"]}
    assert live_update.update(old, new).patch == gone
    old["spec"] = without
    assert plugging.without_unplugged(new, old) == gone
    assert plugging.without_unplugged(new, None) == gone
    assert live_update.update(old, new).patch == {}


def test_an_interface_that_is_wanted_again_comes_anew() -> None:
    old, new = with_networks({**LAN, "state": "absent"}), with_networks(LAN)["spec"]
    old["status"]["interfaces"] = [{"name": "lan", "infoSource": "domain, multus-status"}]
    assert live_update.update(old, new) == live_update.Update({})
    old["status"]["interfaces"] = []
    assert live_update.update(old, new).patch == {"domain": {"devices": {"interfaces": [*_default(), LAN]}}}


def _default() -> list[dict[str, Any]]:
    return [{"name": "default", "masquerade": {}}]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([LAN], [], "no longer in the template"),
        ([LAN], [{**LAN, "model": "e1000"}], "beyond its state"),
        ([LAN], [{**LAN, "macAddress": "02:00:00:00:00:01"}], "beyond its state"),
        ([], [{"name": "lan", "sriov": {}}], "can't be hot-plugged"),
    ],
)
def test_interfaces_that_take_a_restart(before: list[Any], after: list[Any], words: str) -> None:
    found = live_update.update(with_networks(*before), with_networks(*after)["spec"])
    assert (found.patch, words in found.restart) == ({}, True), found.restart


def test_another_network_takes_a_restart() -> None:
    assert "was changed" in live_update.update(with_networks(LAN), with_networks(LAN, name="wan")["spec"]).restart
