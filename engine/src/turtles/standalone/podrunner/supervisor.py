# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks after running containers: hooks at their start and end, and probes.

A probe has a thread of its own, so that a container that answers slowly delays no other. What the probes said is lost
with this process; until they say something again, what the Pod's status says holds.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from turtles.api.objects import Object
from turtles.kube.client import ApiError
from turtles.standalone.podrunner.actions import Target, perform
from turtles.standalone.podrunner.commands import Commands
from turtles.standalone.podrunner.container import ContainerError
from turtles.standalone.podrunner.poddir import Observed, PodDir
from turtles.standalone.podrunner.probes import KINDS, LIVENESS, READINESS, STARTUP, Verdict, settings_of
from turtles.standalone.podrunner.zygote_client import ZygoteError

log = logging.getLogger(__name__)

#: How probes are named in events.
_NAMES = {STARTUP: "Startup", LIVENESS: "Liveness", READINESS: "Readiness"}
#: Seconds that a hook at a start may take.
_HOOK = 600.0


@dataclass(frozen=True)
class Doom:
    """Why a container is to be stopped.

    :param grace: seconds that it has, None for the Pod's.
    """

    reason: str
    message: str
    grace: float | None = None


@dataclass
class _Ward:
    """What is known of one start of a container."""

    uid: str
    gone: threading.Event = field(default_factory=threading.Event)
    #: The hook at its start is done.
    hooked: bool = True
    started: threading.Event = field(default_factory=threading.Event)
    ready: bool = True
    doom: Doom | None = None


class Supervisor:
    """Looks after the containers of a node.

    :param address: returns the address of a Pod, "" if it has none.
    :param changed: called with the uid of a Pod when something is known that wasn't.
    :param tell: creates an event about a Pod: type, reason and message.
    """

    def __init__(
        self,
        commands: Commands,
        address: Callable[[Object, PodDir], str],
        changed: Callable[[str], None],
        tell: Callable[[Object, str, str, str], None],
    ) -> None:
        self._commands, self._address, self._changed, self._tell = commands, address, changed, tell
        self._wards: dict[str, _Ward] = {}

    def watch(self, pod: Object, container: Object, directory: PodDir, observed: Observed, *, fresh: bool) -> None:
        """Look after a running container, unless that is done already.

        :param fresh: it was started just now.
        """
        key = str((observed.state or {})["id"])
        if key in self._wards:
            return
        for other in [known for known in self._wards if known.rpartition("/")[0] == key.rpartition("/")[0]]:
            self._wards.pop(other).gone.set()
        before = {} if fresh else _status_of(pod, container["name"], observed.attempt)
        ward = self._wards[key] = _Ward(directory.uid)
        ward.ready = not container.get(READINESS) or bool(before.get("ready"))
        if not container.get(STARTUP) or before.get("started"):
            ward.started.set()
        hook = (container.get("lifecycle") or {}).get("postStart")
        target = self._target(pod, container, directory, observed, ward.gone)
        if hook and fresh:
            ward.hooked = False
            self._begin("postStart", self._post_start, ward, target, hook)
        for kind in KINDS:
            if container.get(kind) and not (kind == STARTUP and ward.started.is_set()):
                self._begin(kind, self._probe, ward, pod, target, kind)

    def is_started(self, observed: Observed) -> bool:
        """Say whether a running container has started, as its startup probe says."""
        ward = self._ward(observed)
        return ward is None or (ward.hooked and ward.started.is_set())

    def is_ready(self, observed: Observed) -> bool:
        """Say whether a running container is ready, as its readiness probe says."""
        ward = self._ward(observed)
        return ward is None or (ward.hooked and ward.started.is_set() and ward.ready)

    def doom(self, observed: Observed) -> Doom | None:
        """Return why a running container is to be stopped, None if it isn't."""
        ward = self._ward(observed)
        return None if ward is None else ward.doom

    def pre_stop(self, pod: Object, container: Object, directory: PodDir, observed: Observed, seconds: float) -> None:
        """Carry out the hook of a container that is to end; a failure is an event."""
        hook = container["lifecycle"]["preStop"]
        ward = self._ward(observed)
        gone = threading.Event() if ward is None else ward.gone
        good, output = self._perform(hook, self._target(pod, container, directory, observed, gone), seconds)
        if not good:
            self._tell(pod, "Warning", "FailedPreStopHook", f"PreStopHook failed: {output}")

    def forget(self, uid: str) -> None:
        """Forget a Pod."""
        for key in [key for key, ward in self._wards.items() if ward.uid == uid]:
            self._wards.pop(key).gone.set()

    def stop(self) -> None:
        """Stop asking."""
        for ward in list(self._wards.values()):
            ward.gone.set()

    def _ward(self, observed: Observed) -> _Ward | None:
        return self._wards.get(str((observed.state or {}).get("id")))

    @staticmethod
    def _begin(name: str, work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, name=name, daemon=True).start()

    def _target(
        self, pod: Object, container: Object, directory: PodDir, observed: Observed, gone: threading.Event
    ) -> Target:
        def run(command: list[str], seconds: float) -> tuple[int | None, str]:
            return self._commands.run(self._commands.execution(pod, container, directory, observed, command), seconds)

        return Target(container, self._address(pod, directory), run, gone)

    @staticmethod
    def _perform(action: Object, target: Target, seconds: float) -> tuple[bool, str]:
        try:
            return perform(action, target, seconds)
        except (ContainerError, ZygoteError, ApiError, OSError, KeyError, ValueError) as error:
            return False, str(error)

    def _post_start(self, ward: _Ward, target: Target, hook: Object) -> None:
        good, output = self._perform(hook, target, _HOOK)
        if not good and not ward.gone.is_set():
            ward.doom = Doom("FailedPostStartHook", f"PostStartHook failed: {output}")
        ward.hooked = True
        self._changed(ward.uid)

    def _probe(self, ward: _Ward, pod: Object, target: Target, kind: str) -> None:
        """Ask a container until it is gone, or (for its start) until it has started."""
        probe = target.container[kind]
        settings = settings_of(probe)
        verdict = Verdict(settings, kind == LIVENESS or (kind == READINESS and ward.ready))
        if ward.gone.wait(settings.delay):
            return
        if kind != STARTUP:
            while not ward.started.wait(1.0):
                if ward.gone.is_set():
                    return
        while not ward.gone.is_set():
            good, output = self._perform(probe, target, settings.timeout)
            if ward.gone.is_set():
                return
            if not good:
                self._tell(pod, "Warning", "Unhealthy", f"{_NAMES[kind]} probe failed: {output.strip()[:1024]}")
            if verdict.take(good) and self._conclude(ward, target, kind, probe, good):
                return
            ward.gone.wait(settings.period)

    def _conclude(self, ward: _Ward, target: Target, kind: str, probe: Object, good: bool) -> bool:
        """Take a probe's verdict; say whether the probe is done."""
        if kind == READINESS:
            if ward.ready != good:
                ward.ready = good
                self._changed(ward.uid)
            return False
        if good:
            if kind == STARTUP:
                ward.started.set()
                self._changed(ward.uid)
            return kind == STARTUP
        name = target.container["name"]
        ward.doom = Doom(
            "Killing",
            f"Container {name} failed {_NAMES[kind].lower()} probe, will be restarted",
            probe.get("terminationGracePeriodSeconds"),
        )
        self._changed(ward.uid)
        return True


def _status_of(pod: Object, name: str, attempt: int) -> Object:
    """Return what a Pod's status says about a start of a container, nothing if it doesn't know of that yet."""
    status = pod.get("status") or {}
    entries = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    statuses = (entry for entry in entries if entry["name"] == name and entry.get("restartCount") == attempt)
    return next(statuses, {})
