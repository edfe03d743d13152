# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether and when a container that has ended starts again, as the kubelet decides: pure functions, no I/O.

Rules: Kubernetes documentation, "Pod Lifecycle" (container restart policy); the kubelet's back-off, by which the first
restart is immediate, the next ones wait 10 s, 20 s and so on, and the series starts over once a container has run for
10 minutes.
"""

from turtles.api.objects import Object

_FIRST, _LONGEST = 10.0, 300.0
#: Seconds of running after which earlier failures are forgotten.
_FORGIVEN = 2 * _LONGEST


def restarts(policy: str, exit_code: int) -> bool:
    """Say whether a container that ended with an exit code is to start again.

    :param policy: Always, OnFailure or Never.
    """
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def pause(delay: float, ran: float) -> float:
    """Return the seconds between a container's end and its next start.

    :param delay: what :func:`following` returned at its last start, 0 if it was the first.
    :param ran: seconds that it ran.
    """
    return 0.0 if ran > _FORGIVEN else delay


def following(delay: float, ran: float) -> float:
    """Return the delay to remember when a container starts again; for arguments see :func:`pause`."""
    waited = pause(delay, ran)
    return min(_LONGEST, waited * 2) if waited else _FIRST


def describe(pod: Object, name: str, seconds: float) -> str:
    """Return the message of the waiting state CrashLoopBackOff."""
    minutes, rest = divmod(int(seconds), 60)
    text = f"{minutes}m{rest}s" if minutes else f"{rest}s"
    return f"back-off {text} restarting failed container={name} pod={_full_name(pod)}"


def event(pod: Object, name: str) -> str:
    """Return the message of the event BackOff."""
    return f"Back-off restarting failed container {name} in pod {_full_name(pod)}"


def _full_name(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
