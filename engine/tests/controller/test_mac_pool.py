# SPDX-License-Identifier: GPL-3.0-or-later
"""MAC addresses of a pool, each only once."""

from typing import Any

import pytest

from turtles.api.configuration import DEFAULT
from turtles.controller.pod.obstacles import obstacles
from turtles.controller.vm.mac_pool import MacPool, MacPoolError, Range

POD = {"name": "default", "pod": {}}
LAN = {"name": "lan", "multus": {"networkName": "lan"}}


def vm(*interfaces: dict[str, Any]) -> dict[str, Any]:
    spec = {"domain": {"devices": {"interfaces": list(interfaces)}}, "networks": [POD, LAN]}
    return {"metadata": {"uid": "u1"}, "spec": {"template": {"spec": spec}}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a range"),
        ("02:00:00:00:00:00", "is not a range"),
        ("02:00:00:00:00-02:00:00:00:00:ff", "is not a range"),
        ("02:00:00:00:00:0g-02:00:00:00:00:ff", "is not a range"),
        ("02:00:00:00:00:02-02:00:00:00:00:01", "its end is lower"),
        ("03:00:00:00:00:00-03:00:00:00:00:ff", "an even number"),
        ("02:00:00:00:00:00-04:00:00:00:00:ff", "the same"),
    ],
)
def test_what_is_no_range(text: str, words: str) -> None:
    with pytest.raises(MacPoolError, match=words):
        Range.parse(text)


def test_interfaces_get_addresses() -> None:
    taken: set[str] = set()
    pool = MacPool(Range.parse("02:aa:00:00:00:00-02:aa:00:00:00:02"), taken.__contains__)
    wanted = vm({"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}})
    found = pool.completed(wanted, None)
    assert found is not None
    macs = {each["macAddress"] for each in found}
    assert len(macs) == 2
    assert macs < {f"02:aa:00:00:00:0{number}" for number in range(3)}
    assert found == pool.completed(wanted, None), "always the same, as long as nobody else has it"
    taken |= macs
    assert pool.completed(vm(*found), None) is None
    (other,) = pool.completed(vm({"name": "lan", "bridge": {}}), None) or ()
    assert other["macAddress"] not in taken
    taken.add(other["macAddress"])
    with pytest.raises(MacPoolError, match="extend its range"):
        pool.completed(vm({"name": "lan", "bridge": {}}), None)


def test_interfaces_that_keep_what_they_have() -> None:
    pool = MacPool(Range.parse("02:aa:00:00:00:00-02:aa:00:00:00:ff"), lambda mac: False)
    assert pool.completed(vm({"name": "default", "bridge": {}}), None) is None, "it has the Pod's"
    assert pool.completed(vm({"name": "lan", "bridge": {}, "state": "absent"}), None) is None
    running = {"spec": vm({"name": "lan", "bridge": {}})["spec"]["template"]["spec"]}
    assert pool.completed(vm({"name": "lan", "bridge": {}}), running) is None
    found = pool.completed(vm({"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}}), running)
    assert [bool(each.get("macAddress")) for each in found or ()] == [True, False]


def test_an_address_that_is_used_twice() -> None:
    spec = vm({"name": "lan", "bridge": {}, "macAddress": "02:00:00:00:00:01"})["spec"]["template"]["spec"]
    vmi = {"metadata": {"name": "mine", "namespace": "ns"}, "spec": spec}
    other = {"metadata": {"name": "other", "namespace": "ns"}}
    (found,) = obstacles(vmi, DEFAULT, {"lan": other})
    assert "interfaces[0].macAddress: VirtualMachineInstance other uses 02:00:00:00:00:01 on the same network" in found
    other["metadata"]["namespace"] = "secret"
    (found,) = obstacles(vmi, DEFAULT, {"lan": other})
    assert "another namespace" in found
    assert "secret" not in found
