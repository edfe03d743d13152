# SPDX-License-Identifier: GPL-3.0-or-later
"""CDIConfig: its status says which settings of imports are in force. Where uploads are sent, virt-api writes."""

from __future__ import annotations

import contextlib

from turtles.api.changes import merge_diff
from turtles.api.import_settings import status
from turtles.api.kinds.cdi_config import NAME
from turtles.controller.definition import Definition
from turtles.controller.shared import Shared
from turtles.kube.client import NotFound
from turtles.kube.informer import Key
from turtles.kube.kubevirt import CDI_CONFIG
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import STORAGECLASS


class CDIConfigController:
    """Reconciles the one CDIConfig."""

    def __init__(self, shared: Shared) -> None:
        manager = shared.manager
        self._writer = shared.writer
        self._definition = Definition(manager)
        self._configs = manager.informer(CDI_CONFIG, optional=True)
        self._classes = manager.informer(STORAGECLASS)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._configs),
            Trigger(self._classes, lambda old, new: [("", NAME)]),
            self._definition.decides_on(self._configs),
        )
        return Controller("cdi_config", self.reconcile, triggers, essential=False)

    def reconcile(self, key: Key) -> None:
        """Say what is in force."""
        config = self._configs.get(None, key[1])
        if config is None or key[1] != NAME or not self._definition.is_ours():
            return
        before = config.get("status") or {}
        wanted = status(config, [each["metadata"]["name"] for each in self._classes.list()])
        patch = merge_diff({name: before[name] for name in before.keys() & {*wanted, "importProxy"}}, wanted)
        if not patch:
            return
        with contextlib.suppress(NotFound):
            self._writer.patch(self._configs, config, {"status": patch})
