# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of a container: their settings, and what their results mean. Pure, no I/O.

Rules: Kubernetes documentation, "Configure Liveness, Readiness and Startup Probes".
"""

from dataclasses import dataclass

from turtles.api.objects import Object

STARTUP, LIVENESS, READINESS = "startupProbe", "livenessProbe", "readinessProbe"
KINDS = (STARTUP, LIVENESS, READINESS)
#: What can be done to ask a container, or at an event of its life.
ACTIONS = ("exec", "httpGet", "tcpSocket", "sleep")


@dataclass(frozen=True)
class Settings:
    """When a probe asks, in seconds, and how many equal answers count."""

    delay: float
    period: float
    timeout: float
    successes: int
    failures: int


def settings_of(probe: Object) -> Settings:
    """Return a probe's settings, with the API's defaults."""
    return Settings(
        delay=probe.get("initialDelaySeconds") or 0,
        period=probe.get("periodSeconds") or 10,
        timeout=probe.get("timeoutSeconds") or 1,
        successes=probe.get("successThreshold") or 1,
        failures=probe.get("failureThreshold") or 3,
    )


class Verdict:
    """What the answers to a probe say by now.

    :param good: what holds until enough answers say otherwise.
    """

    def __init__(self, settings: Settings, good: bool) -> None:
        self._settings, self.good = settings, good
        self._last, self._count = good, 0

    def take(self, success: bool) -> bool:
        """Count an answer; say whether a threshold is reached with it."""
        self._count = self._count + 1 if success == self._last else 1
        self._last = success
        if self._count < (self._settings.successes if success else self._settings.failures):
            return False
        self.good = success
        return True


def unsupported(container: Object) -> list[str]:
    """Return which of a container's probes and hooks ask for what can't be done here."""
    faults = []
    hooks = container.get("lifecycle") or {}
    places = [(kind, container.get(kind)) for kind in KINDS]
    places += [(f"lifecycle.{kind}", hooks.get(kind)) for kind in ("postStart", "preStop")]
    for where, action in places:
        if not action:
            continue
        if not any(action.get(kind) is not None for kind in ACTIONS):
            known = next((kind for kind in action if isinstance(action[kind], dict)), "no action")
            faults.append(f"{where}.{known}")
        if (action.get("httpGet") or action.get("tcpSocket") or {}).get("host"):
            # The node would ask any server, with its own address.
            faults.append(f"{where}: a host other than the Pod")
    return faults


def port_of(container: Object, port: int | str) -> int | None:
    """Return the number of a port that is given by number or by name; None if there is no such one."""
    if isinstance(port, int):
        return port
    named = {entry.get("name"): entry["containerPort"] for entry in container.get("ports") or []}
    if port in named:
        return int(named[port])
    return int(port) if port.isascii() and port.isdecimal() else None
