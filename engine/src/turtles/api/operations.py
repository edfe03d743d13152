# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot or a restore in progress keeps users from changing in a VirtualMachine, and what isn't possible.

Rules and messages: KubeVirt API, `status.snapshotInProgress` and `status.restoreInProgress`.
"""

from __future__ import annotations

from typing import Any

from turtles.api.language import NOT_SUPPORTED, Cause
from turtles.api.objects import Object, get
from turtles.api.rules import Causes
from turtles.api.run_strategies import HALTED, run_strategy

#: How `spec.updateVolumesStrategy` asks for volumes to be copied while the guest runs.
MIGRATION = "Migration"


def operation_causes(vm: Object, old: Any) -> Causes:
    """Return why an updated VirtualMachine has to stay as it is for now.

    :param vm: it is valid.
    :param old: as it was.
    """
    if snapshot := get(vm, "status", "snapshotInProgress"):
        if _volumes(vm) != _volumes(old):
            message = f'Cannot update vm disks or volumes until snapshot "{snapshot}" completes'
            yield Cause(NOT_SUPPORTED, message, "spec")
            return
        if not _runs_the_same(vm["spec"], get(old, "spec") or {}):
            message = f'Cannot update vm running state until snapshot "{snapshot}" completes'
            yield Cause(NOT_SUPPORTED, message, "spec")
            return
    restore, strategy = get(vm, "status", "restoreInProgress"), run_strategy(vm)
    # KubeVirt locks a machine once it is stopped, this engine before: stopping it is what a restore may wait for.
    stops = strategy == HALTED and get(vm, "status", "created")
    if restore and not stops and strategy != run_strategy({"spec": get(old, "spec") or {}}):
        yield Cause(NOT_SUPPORTED, f'Cannot update VM runStrategy until restore "{restore}" completes', "spec")
    if vm["spec"].get("updateVolumesStrategy") == MIGRATION and strategy != HALTED:
        yield from _copied(vm, old)


def _copied(vm: Object, old: Any) -> Causes:
    """Refuse to copy volumes to others while the guest runs."""
    before = {volume["name"]: _claim(volume) for volume in _volumes(old)}
    for index, volume in enumerate(_volumes(vm)):
        claim = before.get(volume["name"])
        if claim and _claim(volume) not in (None, claim):
            message = (
                f'volume "{volume["name"]}" can\'t be copied to another claim while the guest runs: this engine has '
                "no updateVolumesStrategy Migration; halt the machine, or use Replacement"
            )
            yield Cause(NOT_SUPPORTED, message, f"spec.template.spec.volumes[{index}]")


def _claim(volume: Object) -> str | None:
    """Return the name of a volume's claim: a DataVolume's is called like itself."""
    name: str | None = get(volume, "persistentVolumeClaim", "claimName") or get(volume, "dataVolume", "name")
    return name


def _volumes(vm: Any) -> Any:
    return get(vm, "spec", "template", "spec", "volumes") or []


def _runs_the_same(new: Object, old: Object) -> bool:
    """Tell whether both say the same in the same way: running, or runStrategy."""
    for key in ("running", "runStrategy"):
        if new.get(key) is not None and old.get(key) is not None:
            return bool(new[key] == old[key])
    return False
