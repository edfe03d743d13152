# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace
from typing import Any

import pytest

from turtles.domain import compute_status, guest_info, interface_status, network
from turtles.domain.device_requests import link_request
from turtles.domain.guest_info import AgentInterface, agent_interfaces, guest_os_info, missing_agent_commands
from turtles.domain.live_domain import Live, read_live
from turtles.domain.volume_status import volume_status
from turtles.domain.xml import AnswerError

POD = network.PodInterface("eth0", "0a:58:0a:f4:00:05", (("10.244.0.5", 16),), "10.244.0.1", 1400)
NETWORK = {"name": "default", "pod": {}}
LIVE = """
<domain type='qemu' id='1'>
  <currentMemory unit='KiB'>65536</currentMemory>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <devices>
    <interface type='ethernet'><mac address='02:00:00:00:00:01'/><alias name='ua-default'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='%s'/></channel>
  </devices>
</domain>
"""


@pytest.mark.parametrize("state", ["connected", "disconnected"])
def test_live(state: str) -> None:
    live = read_live(LIVE % state)
    mac = "02:00:00:00:00:01"
    connected = state == "connected"
    assert live == Live("pc-q35-7.2", True, connected, 64 << 20, {"default": mac}, links={mac: True})


def test_the_link_of_an_interface() -> None:
    mac = "02:00:00:00:00:01"
    request = link_request(LIVE % "connected", mac, up=False)
    inner = f'<mac address="{mac}" /><alias name="ua-default" /><link state="down" />'
    assert request.strip() == f'<interface type="ethernet">{inner}</interface>'
    down = (LIVE % "connected").replace("<alias", "<link state='down'/><alias")
    assert read_live(down).links == {mac: False}
    assert link_request(down, mac, up=True).count("<link") == 1
    with pytest.raises(AnswerError, match="no interface with the MAC 02:00:00:00:00:02"):
        link_request(down, "02:00:00:00:00:02", up=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("machine='pc-q35-7.2'", "machine='" + "q" * 65 + "'"),
        ("machine='pc-q35-7.2'", "machine='q35&#10;x'"),
        (">65536<", ">" + "9" * 5000 + "<"),
        (">65536<", ">-1<"),
        ("address='02:00:00:00:00:01'", "address='02:00:00:00:00:01; reboot'"),
    ],
)
def test_values_that_no_domain_has(old: str, new: str) -> None:
    with pytest.raises(AnswerError, match=r"the domain's XML has .{1,90} for "):
        read_live((LIVE % "connected").replace(old, new))


def running(macs: dict[str, str], links: dict[str, bool] | None = None) -> Live:
    return replace(read_live(LIVE % "connected"), macs=macs, links=links or {})


def test_interfaces() -> None:
    plan = network.plan({"name": "default", "masquerade": {}}, NETWORK, POD, "02:00:00:00:00:01")
    (entry,) = interface_status.interfaces([plan], {})
    assert entry["ipAddress"] == "10.244.0.5"
    assert entry["ipAddresses"] == ["10.244.0.5"]
    assert entry["infoSource"] == "domain"
    assert "interfaceName" not in entry
    assert entry["linkState"] == "up"
    inside = {plan.guest_mac: AgentInterface("enp1s0", ("192.0.2.1",))}
    (entry,) = interface_status.interfaces(
        [plan], inside, running({"default": plan.guest_mac}, {plan.guest_mac: False})
    )
    assert entry["linkState"] == "down"
    assert entry["interfaceName"] == "enp1s0"
    assert entry["infoSource"] == "domain, guest-agent"
    assert entry["ipAddresses"] == ["10.244.0.5"]


def test_an_interface_of_a_further_network() -> None:
    """Where the network has no addresses, the guest's own are all that is known. virt-controller asked Multus."""
    pod = network.PodInterface("pod1", "02:00:00:00:00:01", (), None, 1500)
    plan = network.plan({"name": "blue", "bridge": {}}, {"name": "blue", "multus": {"networkName": "b"}}, pod, "")
    before = [{"name": "blue", "podInterfaceName": "pod1", "infoSource": "multus-status"}]
    (entry,) = interface_status.interfaces([plan], {}, None, before)
    assert "ipAddress" not in entry
    assert entry["infoSource"] == "domain, multus-status"
    inside = {plan.guest_mac: AgentInterface("eth1", ("192.0.2.1", "2001:db8::1"))}
    (entry,) = interface_status.interfaces([plan], inside, None, [entry])
    assert (entry["ipAddress"], entry["ipAddresses"]) == ("192.0.2.1", ["192.0.2.1", "2001:db8::1"])
    assert entry["infoSource"] == "domain, guest-agent, multus-status"
    assert interface_status.known_interfaces([entry]) == inside


def test_an_interface_that_comes_and_goes() -> None:
    pod = network.PodInterface("pod1", "02:00:00:00:00:01", (("192.0.2.1", 24),), None, 1500)
    plan = network.plan({"name": "blue", "bridge": {}}, {"name": "blue", "multus": {"networkName": "b"}}, pod, "")
    attached = {"name": "blue", "podInterfaceName": "pod1", "infoSource": "multus-status"}
    assert interface_status.interfaces([plan], {}, running({}), [attached]) == [attached]
    (there,) = interface_status.interfaces([plan], {}, running({"blue": plan.guest_mac}), [attached])
    assert (there["infoSource"], there["ipAddress"]) == ("domain, multus-status", "192.0.2.1")
    # The VMI wants it no longer, the guest still has it; then the Pod still has it; then nobody.
    assert interface_status.interfaces([], {}, running({"blue": plan.guest_mac}), [there]) == [there]
    assert interface_status.interfaces([], {}, running({}), [there]) == [attached]
    assert interface_status.interfaces([], {}, running({}), [{**there, "infoSource": "domain"}]) == []


def test_an_interface_that_the_guest_has_made() -> None:
    inside = {"02:42:00:00:00:01": AgentInterface("docker0", ("172.17.0.1",))}
    assert interface_status.interfaces([], inside, running({})) == [
        {
            "mac": "02:42:00:00:00:01",
            "interfaceName": "docker0",
            "ipAddress": "172.17.0.1",
            "ipAddresses": ["172.17.0.1"],
            "infoSource": "guest-agent",
            "queueCount": -1,
        }
    ]


def test_guest_agent_answers() -> None:
    info = {
        "os.id": "debian",
        "os.pretty-name": "Debian GNU/Linux 12",
        "os.kernel-release": "6.1",
        "if.count": 2,
        "if.0.name": "lo",
        "if.1.name": "eth0",
        "if.1.hwaddr": "02:00:00:AA:00:01",
        "if.1.addr.count": 3,
        "if.1.addr.0.addr": "192.0.2.1",
        "if.1.addr.1.addr": "fe80::1",
        "if.1.addr.2.addr": "<none>",
    }
    assert guest_os_info(info) == {
        "id": "debian",
        "prettyName": "Debian GNU/Linux 12",
        "kernelRelease": "6.1",
    }
    assert agent_interfaces(info) == {"02:00:00:aa:00:01": AgentInterface("eth0", ("192.0.2.1",))}


def test_an_agent_s_words_are_bounded() -> None:
    info = {"os.name": "x\n" * 1000, "if.count": 4294967295}
    info |= {f"if.{index}.hwaddr": f"02:00:00:00:{index // 256:02x}:{index % 256:02x}" for index in range(300)}
    info |= {f"if.{index}.name": "e" * 1000 for index in range(300)}
    info["if.7.hwaddr"] = "none"
    assert guest_os_info(info)["name"] == "x " * 128
    names = agent_interfaces(info)
    assert len(names) == 255
    assert {each.name for each in names.values()} == {"e" * 256}


@pytest.mark.parametrize("answer", [None, [], "x", {"supported_commands": {}}, {"supported_commands": "x"}])
def test_answers_that_are_none(answer: Any) -> None:
    with pytest.raises(AnswerError):
        missing_agent_commands(answer)


def test_commands_that_are_none() -> None:
    assert missing_agent_commands({"supported_commands": [1, {}, {"name": []}]}) == list(guest_info._AGENT_COMMANDS)


def test_agents_are_judged_by_their_commands() -> None:
    everything = [{"name": name, "enabled": True} for name in guest_info._AGENT_COMMANDS]
    assert missing_agent_commands({"version": "7.2.9", "supported_commands": everything}) == []
    everything[0]["enabled"] = False
    assert missing_agent_commands({"supported_commands": everything[:-1]}) == [
        "guest-ping",
        "guest-get-timezone",
    ]


def test_memory_at_boot_stays() -> None:
    spec = {"domain": {"memory": {"guest": "2Gi"}}}
    first = compute_status.memory(spec, 2 << 30, None)
    assert first == {"guestAtBoot": "2Gi", "guestCurrent": "2Gi", "guestRequested": "2Gi"}
    later = compute_status.memory(spec, 1 << 30, {**first, "guestAtBoot": "1Gi", "memoryOverhead": "100Mi"})
    assert later == {"guestAtBoot": "1Gi", "guestCurrent": "1Gi", "guestRequested": "2Gi", "memoryOverhead": "100Mi"}
    assert compute_status.memory(spec, 0, later) == later


def test_volume_status_keeps_what_others_wrote() -> None:
    spec = {"domain": {"devices": {"disks": [{"name": "b", "disk": {"bus": "virtio"}}, {"name": "a", "disk": {}}]}}}
    before = [{"name": "b", "persistentVolumeClaimInfo": {"claimName": "c"}}, {"name": "x", "phase": "Ready"}]
    assert volume_status(spec, before, {"a": 7}) == [
        {"name": "a", "target": "sda", "containerDiskVolume": {"checksum": 7}},
        {"name": "b", "persistentVolumeClaimInfo": {"claimName": "c"}, "target": "vda"},
        {"name": "x", "phase": "Ready"},
    ]
