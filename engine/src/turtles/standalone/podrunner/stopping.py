# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops containers as the kubelet does: hook, signal, and at the end of the grace period SIGKILL.

What was begun is noted in the container's directory, so that a podrunner that takes over goes on with it.
"""

import re
import signal
import threading
import time
from collections.abc import Callable

from turtles.api.objects import Object
from turtles.kube.events import Recorder
from turtles.standalone.podrunner.poddir import Observed, PodDir
from turtles.standalone.podrunner.zygote_client import send_signal

#: Seconds that a container has after its hook, however long that took.
_LEAST = 2.0

#: Carries out a container's hook preStop for some seconds.
PreStop = Callable[[Object, Object, PodDir, Observed, float], None]


class Stopper:
    """Stops containers.

    :param pre_stop: see :data:`PreStop`.
    :param changed: called with the uid of a Pod of which a hook has ended.
    """

    def __init__(self, recorder: Recorder, pre_stop: PreStop, changed: Callable[[str], None]) -> None:
        self._recorder, self._pre_stop, self._changed = recorder, pre_stop, changed
        #: Hooks under way, by key of the start.
        self._hooks: dict[str, threading.Thread] = {}

    def stop(
        self, pod: Object, container: Object, directory: PodDir, observed: Observed, grace: float, number: int
    ) -> float:
        """Stop a running container, or go on with that; return the seconds until the next step.

        :param grace: seconds that it has altogether.
        :param number: the signal that asks it to end.
        """
        state = observed.state or {}
        key = str(state.get("id"))
        # Not by the deletion's stamp: clocks are set.
        first = directory.signalled(key)
        if first is None:
            first = time.monotonic()
            if grace > 0:
                name = container["name"]
                self._recorder.event(pod, "Normal", "Killing", f"Stopping container {name}")
                if ((container.get("lifecycle") or {}).get("preStop")) is not None:
                    self._begin_hook(key, pod, container, directory, observed, grace)
                else:
                    send_signal(state, number)
            directory.note_signal(key, first)
        rest = grace - (time.monotonic() - first)
        hook = self._hooks.get(key)
        if hook is not None:
            if hook.is_alive() and rest > 0:
                return rest
            del self._hooks[key]
            send_signal(state, number)
            first += max(0.0, _LEAST - rest)
            directory.note_signal(key, first)
            rest = grace - (time.monotonic() - first)
        if rest <= 0 or grace <= 0:
            send_signal(state, signal.SIGKILL)
            return 0.5
        return rest

    def _begin_hook(
        self, key: str, pod: Object, container: Object, directory: PodDir, observed: Observed, grace: float
    ) -> None:
        def run() -> None:
            try:
                self._pre_stop(pod, container, directory, observed, grace)
            finally:
                self._changed(directory.uid)

        self._hooks[key] = threading.Thread(target=run, name="preStop", daemon=True)
        self._hooks[key].start()


def signal_of(container: Object, of_image: str = "") -> int:
    """Return the signal that asks a container to end: its own, else its image's, else SIGTERM.

    :param of_image: as in the image's configuration: a name with or without SIG, or a number.
    """
    for text in ((container.get("lifecycle") or {}).get("stopSignal") or "", of_image):
        match = re.fullmatch(r"(?:SIG)?RT(MIN|MAX)(?:([+-])(\d{1,2}))?", text)
        if match:
            base = signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX
            number = base + int(f"{match[2] or '+'}{match[3] or 0}")
            if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
                return number
        elif text.isascii() and text.isdecimal() and 1 <= int(text[:4]) < signal.NSIG:
            return int(text)
        elif text:
            known = getattr(signal, f"SIG{text.removeprefix('SIG')}", None)
            if isinstance(known, signal.Signals):
                return int(known)
    return int(signal.SIGTERM)
