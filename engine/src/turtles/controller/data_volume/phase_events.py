# SPDX-License-Identifier: GPL-3.0-or-later
"""The events of a DataVolume, with CDI's reasons and messages."""

from __future__ import annotations

from collections.abc import Iterable

from turtles.api import cdi
from turtles.api.conditions import condition_of
from turtles.api.objects import Object
from turtles.api.phases import phase_of
from turtles.controller.data_volume.pod import source_of
from turtles.controller.data_volume.status import is_copy
from turtles.controller.data_volume.step import Step


def events(data_volume: Object, step: Step) -> Iterable[tuple[str, str, str]]:
    """Yield (type, reason, message) of the events of a step: phases when they are new, and each new failure."""
    name, phase = data_volume["metadata"]["name"], phase_of(data_volume)
    if step.phase != phase:
        messages = {
            cdi.IMPORT_SCHEDULED: f"Import into {name} scheduled",
            cdi.IMPORT_IN_PROGRESS: f"Import into {name} in progress",
            cdi.CLONE_SCHEDULED: f"Cloning into {name} scheduled",
            cdi.CLONE_IN_PROGRESS: f"Cloning into {name} in progress",
            cdi.RESTORE_IN_PROGRESS: f"Cloning from a snapshot into {name} in progress",
            cdi.TRANSFER_IN_PROGRESS: f"Handing the copy over to {name} in progress",
            cdi.UPLOAD_SCHEDULED: f"Upload into {name} scheduled",
            cdi.UPLOAD_READY: f"Upload into {name} ready",
            cdi.WAIT_FOR_FIRST_CONSUMER: f"PVC {name} is pending until a Pod uses it",
        }
        if step.phase in messages:
            yield "Normal", step.phase, messages[step.phase]
        elif step.phase == cdi.SUCCEEDED:
            words = _words(data_volume)
            yield "Normal", f"{words[0]}Succeeded", f"Successfully {words[1]} into PVC {name}"
    if step.running.reason != cdi.ERROR:
        return
    before = condition_of(data_volume, cdi.RUNNING) or {}
    if before.get("message") != step.running.message or step.phase != phase:
        reason = f"{_words(data_volume)[0]}Failed" if step.phase == cdi.FAILED else cdi.ERROR
        yield "Warning", reason, step.running.message


def _words(data_volume: Object) -> tuple[str, str]:
    """Return what happens to a DataVolume in words: the noun of its events' reasons, and what has been done."""
    if is_copy(data_volume):
        return "Clone", "cloned"
    return ("Upload", "uploaded") if source_of(data_volume) == "upload" else ("Import", "imported")
