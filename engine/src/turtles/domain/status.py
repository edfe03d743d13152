# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a VMI's status that follow from its domain and from its guest agent. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from turtles.api import labels, quantity
from turtles.domain import definition
from turtles.domain.network import InterfacePlan

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
class Live:
    """What the XML of a running domain adds to what was defined; ``macs`` are by the interface's name."""

    machine: str
    emulated: bool
    agent_connected: bool
    memory: int
    macs: dict[str, str]


@dataclass(frozen=True)
class Migratability:
    """Why a VMI can't be migrated live (condition LiveMigratable); ``method`` is status.migrationMethod."""

    method: str
    reason: str
    message: str


def live(xml: str) -> Live:
    """Read a running domain's XML (from its own private libvirtd). ``memory`` is in bytes."""
    root = ElementTree.fromstring(xml)  # noqa: S314 - libvirtd's answer, not a user's document
    type_ = root.find("os/type")
    channel = root.find("devices/channel/target[@name='org.qemu.guest_agent.0']")
    memory = root.find("currentMemory")
    return Live(
        machine=type_.get("machine", "") if type_ is not None else "",
        emulated=root.get("type") == "qemu",
        agent_connected=channel is not None and channel.get("state") == "connected",
        memory=int(memory.text or 0) * 1024 if memory is not None else 0,
        macs=_macs(root),
    )


def _macs(root: ElementTree.Element) -> dict[str, str]:
    found = {}
    for interface in root.findall("devices/interface"):
        alias, mac = interface.find("alias"), interface.find("mac")
        if alias is not None and mac is not None:
            found[alias.get("name", "").removeprefix("ua-")] = mac.get("address", "")
    return found


def missing_agent_commands(guest_info: Mapping[str, Any]) -> list[str]:
    """Return the commands that a guest agent lacks or has switched off, from its answer to ``guest-info``.

    What counts is what an agent can do: its version number is QEMU's and says little.
    """
    enabled = {item["name"] for item in guest_info.get("supported_commands") or () if item.get("enabled", True)}
    return [command for command in _AGENT_COMMANDS if command not in enabled]


def guest_os_info(info: Mapping[str, Any]) -> dict[str, str]:
    """Return status.guestOSInfo from the dictionary of libvirt's ``virDomainGetGuestInfo`` (OS part)."""
    return {key: str(info[source]) for key, source in _OS_KEYS.items() if info.get(source)}


def agent_interfaces(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the guest's names of its interfaces by MAC, from ``virDomainGetGuestInfo`` (interface part)."""
    return {
        str(info[f"if.{index}.hwaddr"]).lower(): str(info[f"if.{index}.name"])
        for index in range(int(info.get("if.count", 0)))
        if info.get(f"if.{index}.hwaddr") and info.get(f"if.{index}.name")
    }


def interfaces(
    plans: Sequence[InterfacePlan], pod_addresses: Sequence[str], guest_names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return status.interfaces.

    :param pod_addresses: the Pod's addresses. Under both bindings they are where the guest is reached.
    :param guest_names: the guest's own names of its interfaces by MAC, empty without a guest agent.
    """
    entries = []
    for plan in plans:
        entry: dict[str, Any] = {"name": plan.name, "mac": plan.guest_mac, "podInterfaceName": plan.pod_interface}
        if pod_addresses:
            entry["ipAddress"] = pod_addresses[0]
            entry["ipAddresses"] = list(pod_addresses)
        entry["infoSource"] = "domain"
        if plan.guest_mac in guest_names:
            entry["interfaceName"] = guest_names[plan.guest_mac]
            entry["infoSource"] = "domain, guest-agent"
        entry["queueCount"] = 1
        entry["linkState"] = "up"
        entries.append(entry)
    return entries


def known_names(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    """Return the guest's names of its interfaces by MAC, as status.interfaces has them from an earlier answer."""
    return {entry["mac"]: entry["interfaceName"] for entry in entries or () if entry.get("interfaceName")}


def cpu_topology(spec: Mapping[str, Any]) -> dict[str, int]:
    """Return status.currentCPUTopology."""
    topology = definition.cpu_topology(spec)
    return {"cores": topology.cores, "sockets": topology.sockets, "threads": topology.threads}


def memory(spec: Mapping[str, Any], current: int, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return status.memory.

    :param current: what the balloon leaves the guest, in bytes; 0 if not known, as while libvirtd starts again.
    :param before: the status.memory there is: what the guest booted with stays, and what isn't known anew.
    """
    wanted = quantity.format_binary(definition.guest_memory(spec))
    before = before or {}
    return {
        **before,
        "guestAtBoot": before.get("guestAtBoot") or wanted,
        "guestCurrent": quantity.format_binary(current) if current else before.get("guestCurrent") or wanted,
        "guestRequested": wanted,
    }


def volume_status(spec: Mapping[str, Any], before: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Return status.volumeStatus with the guest's device names added, other keys and entries kept."""
    entries = {entry["name"]: dict(entry) for entry in before or ()}
    for name, target in definition.disk_targets(spec).items():
        entries.setdefault(name, {"name": name})["target"] = target
    return sorted(entries.values(), key=lambda entry: str(entry["name"]))


def migratability(vmi: Mapping[str, Any]) -> Migratability:
    """Return why the VMI can't be migrated live.

    By KubeVirt's rules for its volumes and interfaces if those stand against it, and otherwise because this engine
    doesn't: who drains a node must be able to rely on the condition.
    """
    spec = vmi["spec"]
    volumes = spec.get("volumes") or ()
    local = any("containerDisk" in volume or "emptyDisk" in volume for volume in volumes)
    method = "BlockMigration" if local else "LiveMigration"
    claims = {entry["name"]: entry.get("persistentVolumeClaimInfo") or {} for entry in _volume_status(vmi)}
    for volume in volumes:
        if "persistentVolumeClaim" not in volume and "dataVolume" not in volume:
            continue
        if "ReadWriteMany" not in (claims.get(volume["name"], {}).get("accessModes") or ()):
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName") or volume.get("dataVolume", {}).get(
                "name"
            )
            return Migratability(
                method,
                "DisksNotLiveMigratable",
                f"cannot migrate VMI: PVC {claim} is not shared, live migration requires that all PVCs must be shared "
                "(using ReadWriteMany access mode)",
            )
    pod_networks = {network["name"] for network in spec.get("networks") or () if network.get("pod") is not None}
    allowed = labels.ALLOW_POD_BRIDGE_MIGRATION in (vmi["metadata"].get("annotations") or {})
    for interface in ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or ():
        if interface["name"] in pod_networks and interface.get("masquerade") is None and not allowed:
            return Migratability(
                method,
                "InterfaceNotLiveMigratable",
                "cannot migrate VMI which does not use masquerade, bridge with "
                f"{labels.ALLOW_POD_BRIDGE_MIGRATION} VM annotation or a migratable plugin to connect to the pod "
                "network",
            )
    return Migratability(method, "NotMigratable", "cannot migrate VMI: this engine does not migrate live")


def _volume_status(vmi: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (vmi.get("status") or {}).get("volumeStatus") or ()
