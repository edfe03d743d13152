# SPDX-License-Identifier: GPL-3.0-or-later
"""The object CDI: its status, and the settings that the CDIConfig gets from it.

As with CDI, it takes over what the CDIConfig says when it is new and says nothing itself; from then on, which an
annotation tells, the CDIConfig says what it says.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass

from turtles import __version__
from turtles.api import times
from turtles.api.changes import merge_diff
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.kinds.cdi import DEPLOYED, ERROR
from turtles.api.kinds.cdi_config import NAME
from turtles.api.objects import Object, annotations_of, get, is_deleted
from turtles.controller.definition import Definition
from turtles.controller.shared import Shared
from turtles.kube.client import NotFound
from turtles.kube.informer import Key
from turtles.kube.kubevirt import CDI, CDI_CONFIG
from turtles.kube.manager import Controller, Trigger

#: Annotation of the object whose settings are in force.
AUTHORITY = "cdi.kubevirt.io/configAuthority"
#: All objects are looked at together: only one of them counts.
_ALL: Key = ("", "")


@dataclass(frozen=True)
class Plan:
    """What is to happen, in this order.

    :param take_over: the patch that makes an object the one whose settings are in force.
    :param config: the CDIConfig's spec from now on; None if it isn't said.
    :param status: of the object from now on.
    """

    status: Object
    take_over: Object | None = None
    config: Object | None = None


def active(objects: Sequence[Object]) -> Object | None:
    """Return the object that counts: the oldest."""
    there = [each for each in objects if not is_deleted(each)]
    return min(
        there,
        key=lambda each: (each["metadata"].get("creationTimestamp") or "", each["metadata"]["name"]),
        default=None,
    )


def plan(cdi: Object, counts: Object | None, config: Object | None, now: str) -> Plan:
    """Decide about one object.

    :param counts: the object that counts. :param config: the CDIConfig.
    """
    status = copy.deepcopy(cdi.get("status") or {})
    conditions = conditions_in(status)
    if counts is None or counts["metadata"]["uid"] != cdi["metadata"]["uid"]:
        other = counts["metadata"]["name"] if counts else ""
        message = f"CDI {other} is already in use; only one is allowed: delete one of the two"
        status["phase"] = ERROR
        for type_, value in (("Available", "False"), ("Progressing", "False"), ("Degraded", "True")):
            set_condition(conditions, type_, value, "ConfigError", message, now)
        return Plan(status)
    version = f"v{__version__}"
    status |= {"phase": DEPLOYED} | dict.fromkeys(("operatorVersion", "targetVersion", "observedVersion"), version)
    for type_, value in (("Available", "True"), ("Progressing", "False"), ("Degraded", "False")):
        set_condition(conditions, type_, value, "DeployCompleted", "Deployment Completed", now)
    settings, take_over = cdi["spec"].get("config"), None
    before = get(config, "spec") or {}
    if AUTHORITY not in annotations_of(cdi):
        take_over = {"metadata": {"annotations": {AUTHORITY: ""}}}
        if settings is None and before:
            settings = before
            take_over["spec"] = {"config": before}
    return Plan(status, take_over, None if config is None else settings or {})


class CDIController:
    """Reconciles CDI objects."""

    def __init__(self, shared: Shared) -> None:
        self._writer, self._definition = shared.writer, Definition(shared.manager)
        self._objects = shared.manager.informer(CDI, optional=True)
        self._configs = shared.manager.informer(CDI_CONFIG, optional=True)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""

        def all_of_them(old: Object | None, new: Object | None) -> list[Key]:
            return [_ALL]

        triggers = (
            Trigger(self._objects, all_of_them),
            Trigger(self._configs, all_of_them),
            self._definition.decides_on(self._objects),
        )
        return Controller("cdi", self.reconcile, triggers, essential=False)

    def reconcile(self, key: Key) -> None:
        """See to all objects."""
        if not self._definition.is_ours():
            return
        objects = self._objects.list()
        counts, config = active(objects), self._configs.get(None, NAME)
        for cdi in objects:
            if not is_deleted(cdi):
                with contextlib.suppress(NotFound):
                    self._carry_out(cdi, plan(cdi, counts, config, times.now()), config)

    def _carry_out(self, cdi: Object, decided: Plan, config: Object | None) -> None:
        if decided.take_over is not None:
            cdi = self._writer.patch(self._objects, cdi, decided.take_over)
        if decided.config is not None and config is not None:
            patch = merge_diff(config.get("spec") or {}, decided.config)
            if patch:
                self._writer.patch(self._configs, config, {"spec": patch})
        self._writer.store_status(self._objects, cdi, decided.status)
