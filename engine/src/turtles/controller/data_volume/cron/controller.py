# SPDX-License-Identifier: GPL-3.0-or-later
"""DataImportCron → imports: reads the caches, asks the plan, and writes what it says."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from turtles.api import cdi
from turtles.api.data_sources import CopySource
from turtles.api.import_settings import ImportSettings
from turtles.api.kinds.cdi_config import NAME as CDI_CONFIG_NAME
from turtles.api.kinds.data_import_cron import creator
from turtles.api.objects import Object, get, is_deleted, own
from turtles.controller.data_volume.cron.plan import (
    Observed,
    Plan,
    copied_claim,
    current_import,
    desired_digest,
    import_name,
    plan,
)
from turtles.controller.data_volume.cron.pod import poller_name, poller_pod
from turtles.controller.data_volume.events import told_of
from turtles.controller.data_volume.pod import ImporterConfig
from turtles.controller.data_volume.waiting import waits_silently
from turtles.controller.definition import Definition
from turtles.controller.shared import Shared
from turtles.kube import copy_rights
from turtles.kube.client import NotFound
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import CDI_CONFIG, DATA_IMPORT_CRON, DATA_SOURCE
from turtles.kube.manager import Controller, Trigger, each, owner_of
from turtles.kube.resources import POD, PVC

log = logging.getLogger(__name__)

#: Index: the DataImportCron that something belongs to, as "namespace/name".
_BY_CRON = "cron"
#: Seconds until another look at a DataSource that another DataImportCron manages.
_AGAIN = 60.0


class DataImportCronController:
    """Reconciles DataImportCrons."""

    def __init__(self, shared: Shared, image: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Make the controller.

        :param image: of importers.
        """
        manager = shared.manager
        self._client, self._writer = shared.client, shared.writer
        self._recorder, self._image, self._now = shared.recorder, image, now
        self._configuration, self._definition = shared.configuration, Definition(manager)
        self._crons = manager.informer(DATA_IMPORT_CRON, optional=True)
        self._configs = manager.informer(CDI_CONFIG, optional=True)
        self._sources = manager.informer(DATA_SOURCE, optional=True)
        self._data_volumes, self._claims = shared.caches.data_volumes, shared.caches.pvcs
        self._pods = manager.informer(POD, label_selector=f"{cdi.COMPONENT}={cdi.COMPONENT_POLLER}")
        for informer in (self._data_volumes, self._claims):
            informer.add_index(_BY_CRON, _cron_of)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._crons),
            owner_of(self._pods, DATA_IMPORT_CRON.kind),
            Trigger(self._sources, self._managing),
            Trigger(self._data_volumes, _labelled),
            Trigger(self._claims, _labelled),
            self._definition.decides_on(self._crons),
        )
        return Controller("data_import_cron", self.reconcile, triggers, reads=(self._configs,), essential=False)

    def _managing(self, old: Object | None, new: Object | None) -> list[Key]:
        metadata = (new or old or {})["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        return [
            (namespace, cron["metadata"]["name"])
            for cron in self._crons.list(namespace)
            if get(cron, "spec", "managedDataSource") == name
        ]

    def reconcile(self, key: Key) -> float | None:
        """Bring one DataImportCron up to date; returns seconds after which to look again."""
        cron = self._crons.get(*key)
        if cron is None or is_deleted(cron) or not self._definition.is_ours():
            return None
        source = self._sources.get(key[0], cron["spec"]["managedDataSource"])
        if (other := self._manager_of(cron, source)) is not None:
            message = f"DataSource {cron['spec']['managedDataSource']} is already managed by DataImportCron {other}"
            self._recorder.event(cron, "Warning", "ErrDataSourceAlreadyManaged", message)
            return _AGAIN
        observed = self._observe(cron, source)
        decided = plan(cron, observed, self._now())
        self._carry_out(cron, decided, observed)
        return decided.wait

    def _manager_of(self, cron: Object, source: Object | None) -> str | None:
        """Return the name of another DataImportCron that manages the DataSource."""
        name = get(source, "metadata", "labels", cdi.IMPORT_CRON)
        if not name or name == cron["metadata"]["name"]:
            return None
        other = self._crons.get(cron["metadata"]["namespace"], name)
        managed = get(other, "spec", "managedDataSource")
        return str(name) if managed == cron["spec"]["managedDataSource"] else None

    def _observe(self, cron: Object, source: Object | None) -> Observed:
        metadata = cron["metadata"]
        namespace, key = metadata["namespace"], f"{metadata['namespace']}/{metadata['name']}"
        current, digest = current_import(cron), desired_digest(cron)
        volumes, claims = self._data_volumes.by_index(_BY_CRON, key), self._claims.by_index(_BY_CRON, key)
        name = (current or {}).get("DataVolumeName")
        following = self._data_volumes.get(namespace, import_name(cron, digest)) if digest else None
        poller, copied = own(cron, self._pods.get(namespace, poller_name(cron))), copied_claim(cron)
        return Observed(
            next((each for each in volumes if each["metadata"]["name"] == name), None),
            next((each for each in claims if each["metadata"]["name"] == name), None),
            volumes,
            claims,
            source,
            poller,
            following if following is not None and _cron_of(following) != [key] else None,
            self._claims.get(copied.namespace, copied.name) if copied is not None else None,
            self._refusal(cron, copied) if copied is not None else "",
            told_of(self._client, poller) if poller is not None and waits_silently(poller) else (),
        )

    def _refusal(self, cron: Object, source: CopySource) -> str:
        """Return why the user who created a DataImportCron may not copy its claim now; empty if they may."""
        namespace = cron["metadata"]["namespace"]
        if source.namespace == namespace:
            return ""
        user = creator(cron)
        if user is None:
            return "the creator of the DataImportCron is unknown; delete the DataImportCron and create it again"
        return copy_rights.refusal(self._client, user, source, namespace)

    def _carry_out(self, cron: Object, decided: Plan, observed: Observed) -> None:
        namespace = cron["metadata"]["namespace"]
        if any(cron["metadata"].get("annotations", {}).get(key) != to for key, to in decided.annotations.items()):
            cron = self._patch(self._crons, cron, {"metadata": {"annotations": decided.annotations}})
        if decided.delete_poller and observed.poller is not None:
            self._writer.delete(self._pods, observed.poller)
        if decided.create_poller:
            settings = ImportSettings.of(self._configs.get(None, CDI_CONFIG_NAME))
            config = ImporterConfig(self._image, self._configuration(), settings)
            self._writer.add(self._pods, poller_pod(cron, config))
        if decided.create is not None and self._writer.add(self._data_volumes, decided.create):
            name = decided.create["metadata"]["name"]
            log.info("import begun", extra={"namespace": namespace, "dataVolume": name})
            what = "a newer image" if copied_claim(cron) is None else "a newer claim"
            message = f"Import of {what} into {name} scheduled"
            self._recorder.event(cron, "Normal", "ImportScheduled", message)
        if decided.note and observed.claim is not None:
            self._writer.patch(
                self._claims, observed.claim, {"metadata": {"annotations": dict(decided.note)}}, unchanged=False
            )
        if decided.create_source is not None:
            self._writer.add(self._sources, decided.create_source)
        if decided.patch_source is not None and observed.data_source is not None:
            self._patch(self._sources, observed.data_source, decided.patch_source)
        for obj in decided.delete:
            is_claim = obj.get("kind") == PVC.kind or any(obj is claim for claim in observed.claims)
            self._writer.delete(self._claims if is_claim else self._data_volumes, obj)
        with contextlib.suppress(NotFound):
            self._writer.store_status(self._crons, cron, decided.status)

    def _patch(self, cache: Informer, obj: Object, patch: Object) -> Object:
        """Change an object as long as it is the one that has been looked at."""
        try:
            return self._writer.patch(cache, obj, patch)
        except NotFound:
            return obj


def _cron_of(obj: Object) -> list[str]:
    name = get(obj, "metadata", "labels", cdi.IMPORT_CRON)
    return [f"{obj['metadata']['namespace']}/{name}"] if name else []


def _labelled(old: Object | None, new: Object | None) -> list[Key]:
    return [
        (obj["metadata"]["namespace"], key.partition("/")[2])
        for obj in (old, new)
        if obj is not None
        for key in _cron_of(obj)
    ]
