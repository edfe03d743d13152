# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest agent answers, under the names of the KubeVirt API. Pure.

The answers are the guest's: nothing in them is taken for granted but that they are JSON.
Sources: QEMU's "Guest Agent Protocol Reference", and KubeVirt's VirtualMachineInstanceGuestAgentInfo.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from turtles.api.objects import Object
from turtles.domain.xml import AnswerError

#: Users, file systems and commands of a guest that are looked at, and of the first two how many guestosinfo has.
_MOST, _FEW = 1000, 10
_LENGTH = 1024
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")
_OS_KEYS = {
    "name": "name",
    "kernelRelease": "kernel-release",
    "version": "version",
    "prettyName": "pretty-name",
    "versionId": "version-id",
    "kernelVersion": "kernel-version",
    "machine": "machine",
    "id": "id",
}


def command(name: str) -> str:
    """Return an agent's command without arguments."""
    return json.dumps({"execute": name})


def answer(text: str, name: str) -> Any:
    """Return what an agent returned.

    :param name: the command's.
    :raises AnswerError: if it returned nothing.
    """
    try:
        return json.loads(text)["return"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise AnswerError(f"{name} returned an unexpected result: {error!r}"[:200]) from error


def guest_info(answers: Mapping[str, Any]) -> Object:
    """Return guestosinfo.

    :param answers: by command. Those that the agent lacks or refuses are missing.
    """
    agent, zone = _mapping(answers.get("guest-info")), _mapping(answers.get("guest-get-timezone"))
    os_info = _mapping(answers.get("guest-get-osinfo"))
    info: Object = {
        "guestAgentVersion": _text(agent.get("version")),
        "supportedCommands": [
            {"name": _text(entry.get("name")), **({"enabled": True} if entry.get("enabled") else {})}
            for entry in _entries(agent.get("supported_commands"))
        ],
        "hostname": _text(_mapping(answers.get("guest-get-host-name")).get("host-name")),
        "os": {key: _text(os_info[source]) for key, source in _OS_KEYS.items() if os_info.get(source)},
        "timezone": f"{_text(zone.get('zone'))}, {_integer(zone.get('offset'))}" if zone else "",
        "userList": users(answers.get("guest-get-users"))[:_FEW],
        "fsInfo": {"disks": filesystems(answers.get("guest-get-fsinfo"))[:_FEW]},
        "fsFreezeStatus": _text(answers.get("guest-fsfreeze-status")),
    }
    return {key: value for key, value in info.items() if value not in ("", [])}


def users(reply: Any) -> list[Object]:
    """Return who is logged in, from the answer to ``guest-get-users``."""
    return [
        {
            "userName": _text(entry.get("user")),
            **({"domain": _text(entry["domain"])} if entry.get("domain") else {}),
            **({"loginTime": time} if (time := _number(entry.get("login-time"))) else {}),
        }
        for entry in _entries(reply)
    ]


def filesystems(reply: Any) -> list[Object]:
    """Return the file systems that are mounted, from the answer to ``guest-get-fsinfo``."""
    return [
        {
            "diskName": _text(entry.get("name")),
            "mountPoint": _text(entry.get("mountpoint")),
            "fileSystemType": _text(entry.get("type")),
            "usedBytes": _integer(entry.get("used-bytes")),
            "totalBytes": _integer(entry.get("total-bytes")),
            **({"disk": disks} if (disks := list(_disks(entry.get("disk")))) else {}),
        }
        for entry in _entries(reply)
    ]


def _disks(reply: Any) -> Iterator[Object]:
    for entry in _entries(reply):
        serial = {"serial": _text(entry["serial"])} if entry.get("serial") else {}
        yield {**serial, "busType": _text(entry.get("bus-type"))}


def listed(items: list[Object]) -> Object:
    """Return a list of the KubeVirt API."""
    return {"metadata": {}, "items": items}


def is_frozen(status: Any) -> bool:
    """Say whether the guest's file systems are frozen, from the answer to ``guest-fsfreeze-status``."""
    return bool(status == "frozen")


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value[:_MOST] if isinstance(entry, dict)] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Return a text for others to read: one line that isn't too long."""
    return _UNPRINTABLE.sub(" ", str(value)[:_LENGTH]) if isinstance(value, str | int | float) else ""


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    return value if usable else 0


def _integer(value: Any) -> int:
    return int(_number(value))
