# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest's agent says: which commands it has, the guest's operating system, its network interfaces."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from turtles.domain.untrusted import INTERFACES, MAC, printable
from turtles.domain.xml import AnswerError

#: How many addresses of each interface are looked at.
_ADDRESSES = 64
#: The guest's own, which nobody reaches.
_LOOPBACK = "lo"

#: Commands of the guest agent without which parts of the status and of the subresources don't work.
_AGENT_COMMANDS = (
    "guest-ping",
    "guest-info",
    "guest-shutdown",
    "guest-get-osinfo",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
)
_OS_KEYS = {
    "name": "os.name",
    "id": "os.id",
    "prettyName": "os.pretty-name",
    "version": "os.version",
    "versionId": "os.version-id",
    "kernelRelease": "os.kernel-release",
    "kernelVersion": "os.kernel-version",
    "machine": "os.machine",
}


@dataclass(frozen=True)
class AgentInterface:
    """A network interface as the guest sees it: its name, and addresses without those of the link alone."""

    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestInfo:
    """What the guest agent said: status.guestOSInfo, the guest's interfaces by MAC, which commands it lacks.

    ``frozen``: the guest's file systems are. Then it says nothing else, and what it said before holds.
    """

    missing: tuple[str, ...] = ()
    os_info: dict[str, str] = field(default_factory=dict)
    interfaces: Mapping[str, AgentInterface] = field(default_factory=dict)
    frozen: bool = False


def missing_agent_commands(guest_info: object) -> list[str]:
    """Return the commands that a guest agent lacks or has switched off, from its answer to ``guest-info``.

    What counts is what an agent can do: its version number is QEMU's and says little.

    :raises AnswerError: if it isn't that command's answer.
    """
    commands = guest_info.get("supported_commands", []) if isinstance(guest_info, Mapping) else None
    if not isinstance(commands, list):
        raise AnswerError("guest-info returned an unexpected result")
    enabled = {str(item.get("name")) for item in commands if isinstance(item, Mapping) and item.get("enabled", True)}
    return [command for command in _AGENT_COMMANDS if command not in enabled]


def guest_os_info(info: Mapping[str, Any]) -> dict[str, str]:
    """Return status.guestOSInfo from the dictionary of libvirt's ``virDomainGetGuestInfo`` (OS part)."""
    return {key: printable(info[source]) for key, source in _OS_KEYS.items() if info.get(source)}


def agent_interfaces(info: Mapping[str, Any]) -> dict[str, AgentInterface]:
    """Return the guest's interfaces by MAC, from ``virDomainGetGuestInfo`` (interface part)."""
    return dict(_agent_interfaces(info))


def _agent_interfaces(info: Mapping[str, Any]) -> Iterator[tuple[str, AgentInterface]]:
    for index in range(min(int(info.get("if.count", 0)), INTERFACES)):
        mac, name = info.get(f"if.{index}.hwaddr"), info.get(f"if.{index}.name")
        if mac and name and name != _LOOPBACK and MAC.fullmatch(str(mac)):
            yield str(mac).lower(), AgentInterface(printable(name), tuple(_agent_addresses(info, f"if.{index}.addr")))


def _agent_addresses(info: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for index in range(min(int(info.get(f"{prefix}.count", 0)), _ADDRESSES)):
        with contextlib.suppress(ValueError):
            address = ip_address(str(info.get(f"{prefix}.{index}.addr")))
            if not address.is_link_local:
                yield str(address)
