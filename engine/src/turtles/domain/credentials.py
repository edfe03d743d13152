# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH keys and passwords of a guest: where they come from, and who gets them. Pure.

The rules are those of the KubeVirt user guide, "Access Credentials": each value of a Secret with keys has one or more
of them, on lines of their own; each key of a Secret with passwords is a user.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from turtles.domain import paths

#: What is in a Secret: keys and values.
Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Synchronization:
    """Whether the guest's agent has given the guest what its Secrets hold; if not, why not."""

    succeeded: bool
    message: str = ""


def secret_dir(secret: str) -> PurePosixPath:
    """Return the folder in which a Secret with credentials is mounted in the Pod."""
    return paths.PRIVATE_DIR / "access-credentials" / secret


def secrets(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the Secrets with credentials of a VMI's *spec*, each once."""
    return list(dict.fromkeys(_secret(entry) for _, entry in _entries(spec)))


def by_agent(spec: Mapping[str, Any]) -> bool:
    """Say whether some of them are given to the guest by its agent."""
    return any("qemuGuestAgent" in _method(entry) for _, entry in _entries(spec))


def seed_keys(spec: Mapping[str, Any], method: str, contents: Mapping[str, Content]) -> list[str]:
    """Return the SSH keys that belong in a cloud-init seed.

    :param method: noCloud or configDrive.
    :param contents: of the Secrets, by name.
    """
    return [
        key
        for kind, entry in _entries(spec)
        if kind == "sshPublicKey" and method in _method(entry)
        for key in _keys(contents.get(_secret(entry), {}))
    ]


def agent_commands(spec: Mapping[str, Any], contents: Mapping[str, Content]) -> list[str]:
    """Return what the guest's agent has to be told for the guest to have the credentials: JSON commands.

    A user's keys are all that the Secrets have for that user; keys that were there before go.
    """
    keys: dict[str, list[str]] = {}
    passwords: dict[str, bytes] = {}
    for kind, entry in _entries(spec):
        content, agent = contents.get(_secret(entry), {}), _method(entry).get("qemuGuestAgent")
        if agent is None:
            continue
        if kind == "userPassword":
            passwords.update(content)
            continue
        for user in agent.get("users") or ():
            keys.setdefault(user, []).extend(_keys(content))
    commands = [
        ("guest-ssh-add-authorized-keys", {"username": user, "keys": found, "reset": True})
        for user, found in keys.items()
    ]
    commands += [
        (
            "guest-set-user-password",
            {"username": user, "password": base64.b64encode(password).decode(), "crypted": False},
        )
        for user, password in passwords.items()
    ]
    return [json.dumps({"execute": command, "arguments": arguments}) for command, arguments in commands]


def _entries(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for credential in spec.get("accessCredentials") or ():
        for kind in ("sshPublicKey", "userPassword"):
            if credential.get(kind) is not None:
                yield kind, credential[kind]


def _secret(entry: Mapping[str, Any]) -> str:
    return str(entry["source"]["secret"]["secretName"])


def _method(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in entry["propagationMethod"].items() if value is not None}


def _keys(content: Content) -> list[str]:
    lines = [
        line.strip() for _, value in sorted(content.items()) for line in value.decode(errors="replace").split("\n")
    ]
    return [line for line in lines if line and not line.startswith("#")]
