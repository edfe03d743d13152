# SPDX-License-Identifier: GPL-3.0-or-later
"""The command virt-probe: asks the guest's agent, for a probe of the kubelet.

It runs in the launcher's container, and reaches the agent through the Pod's libvirtd. Its exit status is the probe's
result: 0 if the agent answers, or that of the command that it ran in the guest.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import libvirt
import libvirt_qemu

from turtles.api.texts import from_json
from turtles.domain import paths

#: The status of a probe that could not be made.
FAILED = 1
_FIRST_LOOK, _LONGEST_PAUSE = 0.02, 0.5

Ask = Callable[[str, dict[str, Any], int], Any]


class ProbeError(Exception):
    """The guest's agent could not be asked, or didn't answer in time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make one probe, and return its result as an exit status."""
    options = _parser().parse_args(argv)
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        ask = _connect(options.domainName)
        if options.guestAgentPing:
            ask("guest-ping", {}, options.timeoutSeconds)
            return 0
        return run(ask, [options.command, *options.arguments], options.timeoutSeconds)
    except (ProbeError, libvirt.libvirtError, ValueError) as error:
        print(error, file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="virt-probe", description="Asks the agent of the Pod's guest.")
    parser.add_argument("--domainName", required=True, help="libvirt's name of the guest")
    parser.add_argument("--timeoutSeconds", type=int, default=1, help="seconds that the guest may take")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--guestAgentPing", action="store_true", help="ask whether the agent answers")
    what.add_argument("--command", help="program to run in the guest; its arguments follow --")
    parser.add_argument("arguments", nargs="*", help="arguments of the program")
    return parser


def _connect(domain_name: str) -> Ask:
    connection = libvirt.open(f"qemu+unix:///session?socket={paths.LIBVIRT_SOCKET}")
    domain = connection.lookupByName(domain_name)

    def ask(command: str, arguments: dict[str, Any], seconds: int) -> Any:
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        answer = libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), max(1, seconds), 0)
        found = from_json(answer)
        if not isinstance(found, dict):
            raise ProbeError("the guest's agent gave an answer that makes no sense")
        return found.get("return")

    return ask


def run(ask: Ask, command: Sequence[str], seconds: int, clock: Callable[[], float] = time.monotonic) -> int:
    """Run a *command* in the guest and return its exit status.

    :param ask: asks the agent: command, arguments, seconds that it may take.
    :param seconds: that the command may take.
    :raises ProbeError: if it takes longer, or was ended by a signal, or the agent's answers make no sense.
    """
    try:
        return _run(ask, command, seconds, clock)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProbeError("the guest's agent gave an answer that makes no sense") from error


def _run(ask: Ask, command: Sequence[str], seconds: int, clock: Callable[[], float]) -> int:
    deadline = clock() + max(1, seconds)
    started = ask("guest-exec", {"path": command[0], "arg": list(command[1:]), "capture-output": True}, max(1, seconds))
    pause = _FIRST_LOOK
    while True:
        status = ask("guest-exec-status", {"pid": int(started["pid"])}, max(1, int(deadline - clock())))
        if status.get("exited"):
            break
        if clock() >= deadline:
            raise ProbeError(f"{command[0]} has not ended in the guest within {seconds} s")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    if "signal" in status:
        raise ProbeError(f"{command[0]} was ended in the guest by signal {status['signal']}")
    return int(status.get("exitcode", FAILED))


if __name__ == "__main__":
    sys.exit(main())
