# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node agent must still know about a VMI after it was killed: one small JSON file per VMI."""

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from turtles import clock
from turtles.domain.interface_names import POD_INTERFACE
from turtles.domain.network import PodInterface

log = logging.getLogger(__name__)


@dataclass
class State:
    """``pod_interfaces``: what CNI gave the Pod, by name, which plumbing hides. ``started``: the domain has run.

    ``shutdown_at``: when the guest was first asked to shut down, a moment of ``time.monotonic``; None again after the
    machine was booted, which that guest didn't outlive. ``frozen``: it was paused then, and therefore
    switched off. ``stopped``: the shutoff reason libvirt told when the domain ended. ``thaw_at``: when its frozen file
    systems have to be thawed, a moment like that of ``shutdown_at``.
    """

    pod_uid: str = ""
    pod_interfaces: dict[str, PodInterface] = field(default_factory=dict)
    started: bool = False
    shutdown_at: float | None = None
    frozen: bool = False
    stopped: int | None = None
    thaw_at: float | None = None


class Store:
    """The folder with the files. A file that can't be read counts as absent: everything in it can be found out again,
    except for a Pod that is being set up at that moment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "vmis"
        self._directory.mkdir(parents=True, exist_ok=True)

    def load(self, uid: str) -> State:
        """Return the state of the VMI with this *uid*, a new one if there is none."""
        try:
            data: dict[str, Any] = json.loads(self._path(uid).read_text())
            facts = [data.pop("pod_interface", None), *data.pop("further_interfaces", ())]
            asked, thaw = data.pop("shutdown", None), data.pop("thaw", None)
            state = State(**data)
            state.thaw_at = clock.moment(thaw)
            if state.shutdown_at is not None:  # Unix time, by an earlier version
                state.shutdown_at = clock.moment_of_unix_time(state.shutdown_at)
            elif asked is not None:
                state.shutdown_at = clock.moment(asked)
            state.pod_interfaces = {each["name"]: _read(each) for each in facts if each}
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("state file is not readable: %s", error, extra={"uid": uid})
            return State()
        return state

    def save(self, uid: str, state: State) -> None:
        """Store a state; after that it survives a crash of this process, though not of the machine."""
        path = self._path(uid)
        draft = path.with_suffix(".new")
        data = asdict(state)
        asked, thaw = data.pop("shutdown_at"), data.pop("thaw_at")
        further = data.pop("pod_interfaces")
        # As an earlier version has it, with a key of their own for those of secondary networks.
        data["pod_interface"] = further.pop(POD_INTERFACE, None)
        if further:
            data["further_interfaces"] = list(further.values())
        if thaw is not None:  # a key of its own only then: an earlier version doesn't know it
            data["thaw"] = clock.stamp(thaw)
        draft.write_text(json.dumps({**data, "shutdown": None if asked is None else clock.stamp(asked)}))
        draft.replace(path)

    def drop(self, uid: str) -> None:
        """Forget a VMI."""
        self._path(uid).unlink(missing_ok=True)

    def uids(self) -> list[str]:
        """Return the uids of all VMIs there is a state of."""
        return [path.stem for path in self._directory.glob("*.json")]

    def _path(self, uid: str) -> Path:
        return self._directory / f"{os.path.basename(uid)}.json"  # noqa: PTH119 - a uid, never a path


def _read(facts: dict[str, Any]) -> PodInterface:
    facts["addresses"] = tuple((address, prefix) for address, prefix in facts["addresses"])
    facts["routes"] = tuple((destination, gateway) for destination, gateway in facts.get("routes") or ())
    return PodInterface(**facts)
