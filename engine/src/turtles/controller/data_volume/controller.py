# SPDX-License-Identifier: GPL-3.0-or-later
"""DataVolume → claim and importer: reads the caches, asks the plan, and writes what it says.

Where upstream's CDI is installed, which owns the definition of DataVolumes then, nothing is done here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from turtles.api import cdi, times, uploads
from turtles.api.data_sources import CLAIM, SNAPSHOT, copy_source
from turtles.api.import_settings import ImportSettings
from turtles.api.kinds.cdi_config import NAME as CDI_CONFIG_NAME
from turtles.api.objects import Object, get, is_deleted, own
from turtles.api.phases import is_final, phase_of
from turtles.controller.caches import BY_CLAIM
from turtles.controller.claims import claim_names
from turtles.controller.data_volume import transfer
from turtles.controller.data_volume.claim import scratch_name
from turtles.controller.data_volume.events import told_of
from turtles.controller.data_volume.plan import failed, plan
from turtles.controller.data_volume.pod import ImporterConfig, importer_pod, pod_name, source_of
from turtles.controller.data_volume.progress import ask
from turtles.controller.data_volume.status import status
from turtles.controller.data_volume.step import Observed, Plan
from turtles.controller.data_volume.volumes import give, volume_of
from turtles.controller.data_volume.waiting import waits_silently
from turtles.controller.definition import Definition
from turtles.controller.shared import Shared
from turtles.kube.client import ApiError, NotFound, Unavailable
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import CDI_CONFIG, DATA_VOLUME, STORAGE_PROFILE
from turtles.kube.manager import Controller, Trigger, each, owner_of
from turtles.kube.resources import POD, PVC, STORAGECLASS, VOLUMESNAPSHOT, Resource

log = logging.getLogger(__name__)

#: Seconds until another look, where another Pod of the name is on its way out.
_AGAIN = 1.0
#: Index of DataVolumes beside sources: the ones that they are for, as "namespace/name".
_BY_TARGET = "target"


class DataVolumeController:
    """Reconciles DataVolumes."""

    def __init__(self, shared: Shared, image: str, mounts_images: Callable[[], bool] = lambda: True) -> None:
        """Make the controller.

        :param image: of importers.
        :param mounts_images: says whether Pods can have volumes of container images.
        """
        manager, caches = shared.manager, shared.caches
        self._mounts_images = mounts_images
        self._client, self._writer, self._recorder, self._image = shared.client, shared.writer, shared.recorder, image
        self._definition = Definition(manager)
        self._configuration = shared.configuration
        self._data_volumes, self._claims, self._vmis = caches.data_volumes, caches.pvcs, caches.vmis
        self._pods = manager.informer(POD, label_selector=f"{cdi.COMPONENT}={cdi.COMPONENT_IMPORTER}")
        self._uploads = manager.informer(POD, label_selector=f"{cdi.COMPONENT}={uploads.COMPONENT}")
        self._classes = manager.informer(STORAGECLASS)
        self._profiles = manager.informer(STORAGE_PROFILE, optional=True)
        self._snapshots = manager.informer(VOLUMESNAPSHOT, optional=True)
        self._configs = manager.informer(CDI_CONFIG, optional=True)
        self._data_volumes.add_index(_BY_TARGET, _targets)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._data_volumes),
            self._definition.decides_on(self._data_volumes),
            owner_of(self._claims, DATA_VOLUME.kind),
            Trigger(self._claims, self._of_the_name),
            owner_of(self._pods, DATA_VOLUME.kind),
            Trigger(self._vmis, self._of_a_source),
            Trigger(self._snapshots, self._of_snapshot),
            Trigger(self._data_volumes, self._of_a_copy),
            Trigger(self._classes, lambda old, new: self._pending()),
            Trigger(self._profiles, lambda old, new: self._pending()),
        )
        return Controller("data_volume", self.reconcile, triggers, reads=(self._uploads, self._configs), workers=2)

    def _of_the_name(self, old: Object | None, new: Object | None) -> list[Key]:
        metadata = (new or old or {})["metadata"]
        return [
            key_of(data_volume)
            for data_volume in self._data_volumes.list(metadata["namespace"])
            if metadata["name"] in (data_volume["metadata"]["name"], _copied(data_volume, CLAIM))
        ]

    def _of_a_source(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return which DataVolumes to look at when a machine came or went: those that copy a claim of its."""
        vmi = new or old or {}
        names = set(claim_names(vmi["spec"]))
        if new is not None and not is_final(new):
            return []
        return [
            key_of(data_volume)
            for data_volume in self._data_volumes.list(vmi["metadata"]["namespace"])
            if _copied(data_volume, CLAIM) in names
        ]

    def _of_snapshot(self, old: Object | None, new: Object | None) -> list[Key]:
        metadata = (new or old or {})["metadata"]
        waiting = self._data_volumes.list(metadata["namespace"])
        return [key_of(data_volume) for data_volume in waiting if _copied(data_volume, SNAPSHOT) == metadata["name"]]

    def _of_a_copy(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return the DataVolume that one beside a source is for, and those beside sources of one that is gone."""
        changed = new or old or {}
        keys = [target[:2]] if (target := transfer.copied_for(changed)) is not None else []
        if new is None or is_deleted(new):
            keys += [key_of(copy) for copy in self._data_volumes.by_index(_BY_TARGET, "/".join(key_of(changed)))]
        return keys

    def _users(self, namespace: str, claim: str) -> list[str]:
        users = self._vmis.by_index(BY_CLAIM, f"{namespace}/{claim}")
        return [vmi["metadata"]["name"] for vmi in users if not is_final(vmi)]

    def _pending(self) -> list[Key]:
        waiting = ("", cdi.PENDING)
        return [
            (data_volume["metadata"]["namespace"], data_volume["metadata"]["name"])
            for data_volume in self._data_volumes.list()
            if phase_of(data_volume) in waiting
        ]

    def reconcile(self, key: Key) -> float | None:
        """Bring one DataVolume closer to its content; returns seconds after which to look again."""
        stored = self._data_volumes.get(*key)
        if stored is None or is_deleted(stored) or not self._definition.is_ours():
            return None
        if self._is_for_nobody(stored):
            self._writer.delete(self._data_volumes, stored)
            return None
        data_volume = _resolved(stored)
        observed = self._observe(data_volume)
        decided = plan(data_volume, observed, times.now())
        try:
            again = self._carry_out(data_volume, decided, observed)
        except Unavailable:
            raise
        except ApiError as error:
            self._refused(data_volume, observed, error)
            raise
        self._store(data_volume, decided.status)
        for event in decided.events:
            self._recorder.event(data_volume, *event)
        return again or decided.wait

    def _is_for_nobody(self, data_volume: Object) -> bool:
        """Say whether a DataVolume is beside a source for another one that is gone."""
        target = transfer.copied_for(data_volume)
        if target is None:
            return False
        final = self._data_volumes.get(*target[:2])
        return final is None or is_deleted(final) or final["metadata"]["uid"] != target[2]

    def _observe(self, data_volume: Object) -> Observed:
        namespace, name = data_volume["metadata"]["namespace"], data_volume["metadata"]["name"]
        pods = self._pods.get(namespace, pod_name(data_volume))
        scratches = self._claims.get(namespace, scratch_name(data_volume))
        pod, scratch = own(data_volume, pods), own(data_volume, scratches)
        if source_of(data_volume) == "upload":
            worker = self._uploads.get(namespace, cdi.pod_name(uploads.PREFIX, name))
        else:
            worker = pod
        running = any(get(each, "state", "running") for each in get(worker, "status", "containerStatuses") or ())
        return Observed(
            self._claims.get(namespace, name),
            scratch,
            pod,
            _in_the_way((PVC, scratches, scratch), (POD, pods, pod)),
            self._classes.list(),
            ask(worker) if worker is not None and running else None,
            source_of(data_volume) != "registry" or self._mounts_images(),
            self._source(data_volume),
            self._users(namespace, str(get(data_volume, "spec", "source", "pvc", "name"))),
            self._snapshots.get(namespace, str(_copied(data_volume, SNAPSHOT))),
            self._aside(data_volume),
            self._profiles.list(),
            self._settings(),
            self._told(pod),
        )

    def _told(self, pod: Object | None) -> list[str]:
        """Return what events say about volumes that a Pod can't have, if its status doesn't say why it waits."""
        return told_of(self._client, pod) if pod is not None and waits_silently(pod) else []

    def _settings(self) -> ImportSettings:
        return ImportSettings.of(self._configs.get(None, CDI_CONFIG_NAME))

    def _aside(self, data_volume: Object) -> transfer.Aside:
        """Return what there is beside a source in another namespace."""
        source = transfer.source_elsewhere(data_volume)
        if source is None:
            return transfer.Aside()
        key = (source.namespace, transfer.copy_name(data_volume))
        copy, claim = self._data_volumes.get(*key), self._claims.get(*key)
        is_complete = copy is not None and phase_of(copy) == cdi.SUCCEEDED
        return transfer.Aside(copy, claim, volume_of(self._client, claim) if is_complete else None)

    def _source(self, data_volume: Object) -> Object | None:
        """Return the claim of the namespace that is to be copied."""
        name = _copied(data_volume, CLAIM)
        return self._claims.get(data_volume["metadata"]["namespace"], name) if name else None

    def _carry_out(self, data_volume: Object, decided: Plan, observed: Observed) -> float | None:
        namespace, name = data_volume["metadata"]["namespace"], data_volume["metadata"]["name"]
        target = observed.target
        if decided.create_copy is not None:
            self._writer.add(self._data_volumes, decided.create_copy)
        if decided.give_volume and target is not None and observed.aside.volume is not None:
            give(self._client, observed.aside.volume, target)
        if decided.create_target is not None:
            self._writer.add(self._claims, decided.create_target)
            log.info("claim created", extra={"namespace": namespace, "dataVolume": name})
        if decided.note and target is not None:
            patch = {"metadata": {"annotations": dict(decided.note)}}
            self._writer.patch(self._claims, target, patch, unchanged=False)
        if decided.delete_pod and observed.pod is not None:
            self._writer.delete(self._pods, observed.pod)
        if decided.delete_scratch and observed.scratch is not None:
            self._writer.delete(self._claims, observed.scratch)
        if decided.delete_copy and observed.aside.copy is not None:
            self._writer.delete(self._data_volumes, observed.aside.copy)
        scratch = observed.scratch
        if decided.create_scratch is not None:
            scratch = self._writer.add(self._claims, decided.create_scratch)
        if decided.create_pod and target is not None:
            config = ImporterConfig(self._image, self._configuration(), observed.settings)
            wanted = importer_pod(
                data_volume,
                target,
                config,
                scratch=scratch is not None,
                source=observed.source,
                mounts_images=observed.mounts_images,
            )
            if self._writer.add(self._pods, wanted) is None:
                # One without the labels of an importer, or one that is on its way out
                return _AGAIN
            log.info("importer created", extra={"namespace": namespace, "dataVolume": name})
        return None

    def _refused(self, data_volume: Object, observed: Observed, error: ApiError) -> None:
        """Say what the API server doesn't take; the next try comes by itself."""
        reason = "ErrExceededQuota" if "exceeded quota" in error.message else cdi.ERROR
        before = cdi.failure_of(data_volume)
        phase = phase_of(data_volume) or cdi.PENDING
        self._store(data_volume, status(data_volume, observed.target, phase, failed(error.message), times.now()))
        if before != error.message:
            self._recorder.event(data_volume, "Warning", reason, error.message)

    def _store(self, data_volume: Object, wanted: Object) -> None:
        with contextlib.suppress(NotFound):
            self._writer.store_status(self._data_volumes, data_volume, wanted)


def _resolved(data_volume: Object) -> Object:
    """Return a DataVolume with the source that its DataSource led to, in the place of that."""
    if data_volume["spec"].get("sourceRef") is None:
        return data_volume
    source = copy_source(data_volume)
    return {**data_volume, "spec": {**data_volume["spec"], "source": source.as_source() if source else {}}}


def _copied(data_volume: Object, kind: str) -> str | None:
    """Return the name of what a DataVolume copies, if it is of this kind and in its namespace."""
    source = copy_source(data_volume)
    if source is None or source.kind != kind or source.namespace != data_volume["metadata"]["namespace"]:
        return None
    return source.name


def _targets(data_volume: Object) -> list[str]:
    target = transfer.copied_for(data_volume)
    return ["/".join(target[:2])] if target is not None else []


def _in_the_way(*pairs: tuple[Resource, Object | None, Object | None]) -> str:
    """Return the first object that has the name of one of the DataVolume's, and isn't its own nor on its way out."""
    for resource, obj, ours in pairs:
        if obj is not None and ours is None and not is_deleted(obj):
            return f"{resource.kind} {obj['metadata']['name']}"
    return ""
