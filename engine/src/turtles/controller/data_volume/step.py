# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided with about a DataVolume: what there is, and the step that follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from turtles.api.import_settings import DEFAULT, ImportSettings
from turtles.api.objects import Object
from turtles.controller.data_volume import transfer
from turtles.controller.data_volume.status import UNKNOWN_PROGRESS, Running

_IDLE = Running()


@dataclass(frozen=True)
class Observed:
    """What there is for a DataVolume; None for what doesn't exist.

    :param target: the claim of its name, its own or not. :param scratch: its scratch space. :param pod: its importer.
    :param in_the_way: what somebody else has made that has the name of its scratch space, or of its importer.
    :param classes: all StorageClasses.
    :param progress: what the importer says, in per cent.
    :param mounts_images: Pods can have volumes of container images.
    :param source: the claim to copy. :param users: machines that use it, so that it may change.
    :param snapshot: the VolumeSnapshot to restore.
    :param aside: what there is beside a source in another namespace.
    :param profiles: all StorageProfiles. :param settings: those of all imports.
    :param told: what events say about volumes that the importer can't have.
    """

    target: Object | None = None
    scratch: Object | None = None
    pod: Object | None = None
    in_the_way: str = ""
    classes: Iterable[Object] = ()
    progress: float | None = None
    mounts_images: bool = True
    source: Object | None = None
    users: Sequence[str] = ()
    snapshot: Object | None = None
    aside: transfer.Aside = transfer.NOTHING
    profiles: Iterable[Object] = ()
    settings: ImportSettings = DEFAULT
    told: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Actions:
    """What is to happen, in this order.

    :param note: annotations of the claim from now on.
    :param create_copy: the DataVolume to create beside a source in another namespace.
    :param create_target: the claim to create. :param create_scratch: likewise.
    :param give_volume: hand the volume of the copy beside the source over to the claim.
    :param create_pod: create the importer's Pod.
    :param delete_pod: and :param delete_scratch: delete them. :param delete_copy: likewise.
    :param wait: seconds until the next look, or None.
    """

    note: Mapping[str, str] = field(default_factory=dict)
    create_copy: Object | None = None
    create_target: Object | None = None
    create_scratch: Object | None = None
    give_volume: bool = False
    create_pod: bool = False
    delete_pod: bool = False
    delete_scratch: bool = False
    delete_copy: bool = False
    wait: float | None = None

    def actions(self) -> dict[str, Any]:
        """Return the actions by name."""
        return {each.name: getattr(self, each.name) for each in fields(Actions)}


@dataclass(frozen=True)
class Step(Actions):
    """What follows for a DataVolume.

    :param phase: from now on. :param running: its condition of that name. :param progress: as its status has it.
    """

    phase: str
    running: Running = _IDLE
    progress: str = UNKNOWN_PROGRESS


@dataclass(frozen=True)
class Plan(Actions):
    """A step, and what is said about it.

    :param status: of the DataVolume from now on. :param events: (type, reason, message).
    """

    status: Object
    events: tuple[tuple[str, str, str], ...] = ()
