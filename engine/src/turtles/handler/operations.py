# SPDX-License-Identifier: GPL-3.0-or-later
"""What users may ask for about a guest: pausing it, its reset button, what its agent knows.

Each operation is one call to the Pod's libvirtd over the connection that the synchronisation keeps; what follows from
it, the synchronisation sees and reports. virt-api has checked that the VMI allows the operation.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from turtles.api import node_server
from turtles.api.objects import Object
from turtles.domain import agent, attestation
from turtles.domain.report import Event
from turtles.domain.xml import AnswerError
from turtles.handler.cluster import Cluster, Key
from turtles.handler.domain import Domain
from turtles.handler.errors import LauncherNotReady, LibvirtError, OperationFailed
from turtles.handler.guest import Guest, Guests

log = logging.getLogger(__name__)

#: What guestosinfo is made of; agents have or allow some of them only.
_INFO = (
    "guest-info",
    "guest-get-host-name",
    "guest-get-osinfo",
    "guest-get-timezone",
    "guest-get-users",
    "guest-get-fsinfo",
    "guest-fsfreeze-status",
)
_REBOOTED = Event("Normal", "SoftRebooted", "VirtualMachineInstance soft rebooted")


class Operations:
    """Does what users ask for. May be called from any thread."""

    def __init__(self, guests: Guests, cluster: Cluster) -> None:
        self._guests, self._cluster = guests, cluster
        self._known: dict[str, Callable[[Guest, Domain, Mapping[str, Any]], Any]] = {
            node_server.PAUSE: lambda guest, domain, options: domain.pause(),
            node_server.UNPAUSE: lambda guest, domain, options: domain.unpause(),
            node_server.SOFT_REBOOT: self._soft_reboot,
            node_server.RESET: lambda guest, domain, options: domain.reset(),
            node_server.FREEZE: self._freeze,
            node_server.UNFREEZE: self._unfreeze,
            node_server.GUEST_INFO: lambda guest, domain, options: _guest_info(domain),
            node_server.USERS: lambda guest, domain, options: agent.listed(
                agent.users(_ask(domain, "guest-get-users"))
            ),
            node_server.SEV_MEASUREMENT: lambda guest, domain, options: attestation.measurement(
                domain.launch_measurement()
            ),
            node_server.SEV_SECRET: lambda guest, domain, options: domain.inject_secret(
                str(options.get("header") or ""), str(options.get("secret") or "")
            ),
            node_server.FILESYSTEMS: lambda guest, domain, options: agent.listed(
                agent.filesystems(_ask(domain, "guest-get-fsinfo"))
            ),
        }

    def guest(self, key: Key, uid: str) -> Guest:
        """Return a guest that runs here.

        :raises OperationFailed: it doesn't.
        """
        guest = self._guests.get(key)
        if guest is None or guest.uid != uid or guest.launcher is None:
            raise OperationFailed(404, f"VirtualMachineInstance {'/'.join(key)} is not running on this node")
        return guest

    def vmi(self, guest: Guest) -> Object | None:
        """Return the VMI of a guest, as the API server has it."""
        vmi = self._cluster.get(guest.key)
        return vmi if vmi is not None and vmi["metadata"]["uid"] == guest.uid else None

    def run(self, key: Key, uid: str, name: str, options: Mapping[str, Any]) -> Any:
        """Execute an operation; return what it returns, as JSON data.

        :raises OperationFailed: it isn't possible.
        """
        operation = self._known.get(name)
        if operation is None and name != node_server.SEV_CERTIFICATES:
            raise OperationFailed(404, f"unknown operation {name!r}")
        guest = self.guest(key, uid)
        assert guest.launcher is not None
        try:
            if operation is None:
                # The owner asks before there is a guest
                result = attestation.certificates(guest.launcher.live_connection().sev_information())
            else:
                result = operation(guest, guest.launcher.live_domain(guest.domain_name), options)
        except LauncherNotReady as error:
            raise OperationFailed(503, f"the guest can't be reached: {error}") from error
        except (LibvirtError, AnswerError) as error:
            raise OperationFailed(500, str(error)) from error
        log.info("done as asked", extra={"vmi": str(guest), "operation": name})
        self._cluster.enqueue(key)
        return result

    def _soft_reboot(self, guest: Guest, domain: Domain, options: Mapping[str, Any]) -> None:
        domain.reboot(by_agent=bool(options.get("byAgent")))
        vmi = self._cluster.get(guest.key)
        if vmi is not None:
            self._cluster.event(vmi, _REBOOTED.type, _REBOOTED.reason, _REBOOTED.message)

    def _freeze(self, guest: Guest, domain: Domain, options: Mapping[str, Any]) -> None:
        seconds = float(options.get("unfreezeTimeout") or 0)
        # Noted first: an agent that is killed now must not leave the guest frozen for ever
        guest.state.thaw_at = time.monotonic() + seconds if seconds > 0 else None
        guest.save()
        domain.freeze()
        guest.asked = None

    def _unfreeze(self, guest: Guest, domain: Domain, options: Mapping[str, Any]) -> None:
        domain.thaw()
        guest.state.thaw_at = None
        guest.save()
        guest.asked = None


def _guest_info(domain: Domain) -> Object:
    answers = {}
    for command in _INFO:
        try:
            answers[command] = _ask(domain, command)
        except LibvirtError as error:
            if command == _INFO[0]:
                raise
            log.debug("the guest agent doesn't answer %s: %s", command, error)
    return agent.guest_info(answers)


def _ask(domain: Domain, command: str) -> Any:
    return agent.answer(domain.ask_agent(agent.command(command)), command)


def options_of(body: bytes) -> Mapping[str, Any]:
    """Return the options in a request's body.

    :raises OperationFailed: it isn't a JSON object.
    """
    try:
        options = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise OperationFailed(400, "the body is not a JSON object")
    return options
