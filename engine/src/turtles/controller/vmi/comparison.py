# SPDX-License-Identifier: GPL-3.0-or-later
"""How the launcher of a running machine compares with one that would be made for it now. Pure."""

from turtles.api import labels, quantity
from turtles.api.conditions import MIGRATION_REQUIRED, is_true, remove_condition
from turtles.api.objects import Object, get, labels_of
from turtles.controller.pod import memory


def note_version(vmi: Object, pod: Object, image: str) -> None:
    """Note which launcher a machine has, which is another one after a migration, and whether new ones differ.

    :param vmi: is changed. :param image: of new launchers; empty if that isn't known.
    """
    if not image:
        return
    own = vmi["status"]["launcherContainerImageVersion"] = pod["spec"]["containers"][0]["image"]
    found = labels_of(vmi)
    if own != image:
        vmi["metadata"]["labels"] = {**found, labels.OUTDATED_LAUNCHER: ""}
    elif labels.OUTDATED_LAUNCHER in found:
        vmi["metadata"]["labels"] = {key: value for key, value in found.items() if key != labels.OUTDATED_LAUNCHER}


def note_size(vmi: Object, pod: Object) -> None:
    """Let a machine's guest have its memory if its Pod is large enough by now.

    :param vmi: is changed.
    """
    conditions = vmi["status"].get("conditions")
    if is_true(conditions, MIGRATION_REQUIRED):
        guest = quantity.to_int(get(vmi, "spec", "domain", "memory", "guest") or 0)
        if not memory.shortage(vmi, pod, guest):
            remove_condition(conditions, MIGRATION_REQUIRED)
