# SPDX-License-Identifier: GPL-3.0-or-later
"""Has a Pod's hook sidecars change its domain.

The agent talks to none of them: the launcher, which is an ordinary user in the same Pod, calls them and gives back
text. That becomes a domain of the Pod's own libvirtd, which has no more rights than the Pod; so what is in it is the
Pod's own affair, as long as it is the domain that the agent finds again.
"""

import json

from turtles.api import hook_sidecars
from turtles.api.objects import Object
from turtles.domain import paths
from turtles.domain.sidecars import of as sidecars_of
from turtles.domain.xml import MAX_LENGTH, AnswerError, parse
from turtles.handler.errors import HookError
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.peer import StrangerError

#: Seconds that the launcher may take, which gives up earlier itself, and bytes of its answer: characters of a domain
#: may take six in JSON.
_SECONDS, _ANSWER = 75.0, 6 * MAX_LENGTH + 4096


def changed(vmi: Object, guest: Guest, launcher: Launcher, domain: str) -> str:
    """Return the domain as the hook sidecars of a VMI want it; as it is, where there are none.

    :raises HookError: if they can't be called, or what they return can't be used.
    """
    try:
        number = len(sidecars_of(vmi, guest.bindings))
    except hook_sidecars.HookSidecarError:
        number = 0
    if not number:
        return domain
    metadata = {key: value for key, value in vmi["metadata"].items() if key != "managedFields"}
    request = {
        "call": "OnDefineDomain",
        "sidecars": number,
        "vmi": {**vmi, "metadata": metadata},
        "domain": domain,
    }
    try:
        data = launcher.ask(paths.HOOKS_SOCKET, json.dumps(request).encode(), seconds=_SECONDS, limit=_ANSWER)
        answer = json.loads(data)
    except (OSError, StrangerError) as error:
        raise HookError(f"hook sidecars can't be called: {paths.HOOKS_SOCKET}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise HookError("hook sidecars can't be called: virt-launcher did not respond; see its log") from error
    if not isinstance(answer, dict) or not isinstance(found := answer.get("domain"), str):
        words = answer.get("error") if isinstance(answer, dict) else None
        raise HookError(str(words or "virt-launcher returned no domain from the hook sidecars"))
    _check(found, domain, guest)
    return found


def _check(found: str, domain: str, guest: Guest) -> None:
    """Make sure that it is the same domain.

    :raises HookError: if it isn't one, or another one.
    """
    try:
        element = parse(found, "the domain that hook sidecars returned")
    except AnswerError as error:
        raise HookError(str(error)) from error
    before = parse(domain, "the domain")
    if element.tag != "domain":
        raise HookError(f"hook sidecars returned an element {element.tag!r} instead of a domain")
    for key in ("name", "uuid"):
        if (element.findtext(key) or "").strip() != before.findtext(key):
            raise HookError(f"hook sidecars changed the domain's {key}, which identifies {guest.domain_name}")
