# SPDX-License-Identifier: GPL-3.0-or-later
"""DataVolume → claim and importer: reads the caches, asks the plan, and writes what it says.

Where upstream's CDI is installed, which owns the definition of DataVolumes then, nothing is done here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from turtles.api import cdi, times, uploads
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.data_volume import DATA_VOLUME as KIND
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import is_final
from turtles.controller.caches import BY_CLAIM, Caches
from turtles.controller.changes import merge_diff
from turtles.controller.claims import claim_names
from turtles.controller.data_volume.claim import scratch_name
from turtles.controller.data_volume.objects import create, delete, own
from turtles.controller.data_volume.plan import Plan, Surroundings, failed, plan
from turtles.controller.data_volume.pod import ImporterConfig, importer_pod, pod_name, source_of
from turtles.controller.data_volume.progress import ask
from turtles.controller.data_volume.status import status
from turtles.kube.client import ApiError, Client, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.kubevirt import DATA_VOLUME
from turtles.kube.manager import Controller, Manager, Trigger, each, owner_of
from turtles.kube.resources import CRD, POD, PVC, STORAGECLASS, Resource

log = logging.getLogger(__name__)

#: Seconds for which it counts who owns the definition of DataVolumes.
_OWNER_SECONDS = 60.0
#: Seconds until another look, where another Pod of the name is on its way out.
_AGAIN = 1.0


class DataVolumeController:
    """Reconciles DataVolumes."""

    def __init__(
        self,
        client: Client,
        manager: Manager,
        caches: Caches,
        recorder: Recorder,
        image: str,
        configuration: Callable[[], ClusterConfiguration],
        mounts_images: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the controller.

        :param image: of importers.
        :param configuration: gives the configuration in force.
        :param mounts_images: says whether Pods can have volumes of container images.
        """
        self._mounts_images = mounts_images
        self._client, self._recorder, self._image, self._clock = client, recorder, image, clock
        self._configuration = configuration
        self._data_volumes, self._claims, self._vmis = caches.data_volumes, caches.pvcs, caches.vmis
        self._pods = manager.informer(POD, label_selector=f"{cdi.COMPONENT}={cdi.COMPONENT_IMPORTER}")
        self._uploads = manager.informer(POD, label_selector=f"{cdi.COMPONENT}={uploads.COMPONENT}")
        self._classes = manager.informer(STORAGECLASS)
        self._owned: tuple[float, bool] | None = None

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._data_volumes),
            owner_of(self._claims, DATA_VOLUME.kind),
            Trigger(self._claims, self._of_the_name),
            owner_of(self._pods, DATA_VOLUME.kind),
            Trigger(self._vmis, self._of_a_source),
            Trigger(self._classes, lambda old, new: self._pending()),
        )
        return Controller("data_volume", self.reconcile, triggers, reads=(self._uploads,), workers=2)

    def _of_the_name(self, old: Object | None, new: Object | None) -> list[Key]:
        metadata = (new or old or {})["metadata"]
        return [
            key_of(found)
            for found in self._data_volumes.list(metadata["namespace"])
            if metadata["name"] in (found["metadata"]["name"], get(found, "spec", "source", "pvc", "name"))
        ]

    def _of_a_source(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return which DataVolumes to look at when a machine came or went: those that copy a claim of its."""
        vmi = new or old or {}
        names = set(claim_names(vmi["spec"]))
        if new is not None and not is_final(new):
            return []
        return [
            key_of(found)
            for found in self._data_volumes.list(vmi["metadata"]["namespace"])
            if get(found, "spec", "source", "pvc", "name") in names
        ]

    def _users(self, namespace: str, claim: str) -> list[str]:
        users = self._vmis.by_index(BY_CLAIM, f"{namespace}/{claim}")
        return [vmi["metadata"]["name"] for vmi in users if not is_final(vmi)]

    def _pending(self) -> list[Key]:
        waiting = ("", cdi.PENDING)
        return [
            (found["metadata"]["namespace"], found["metadata"]["name"])
            for found in self._data_volumes.list()
            if cdi.phase_of(found) in waiting
        ]

    def reconcile(self, key: Key) -> float | None:
        """Bring one DataVolume closer to its content; returns seconds after which to look again."""
        data_volume = self._data_volumes.get(*key)
        if data_volume is None or is_deleted(data_volume) or not self.is_ours():
            return None
        around = self._surroundings(data_volume)
        decided = plan(data_volume, around, times.now())
        try:
            again = self._carry_out(data_volume, decided, around)
        except Unavailable:
            raise
        except ApiError as error:
            self._refused(data_volume, around, error)
            raise
        self._store(data_volume, decided.status)
        for event in decided.events:
            self._recorder.event(data_volume, *event)
        return again or decided.wait

    def is_ours(self) -> bool:
        """Say whether this engine's definition of DataVolumes is the one in force."""
        if self._owned is None or self._clock() - self._owned[0] > _OWNER_SECONDS:
            try:
                found = self._client.get(CRD, None, KIND.crd_name)
            except NotFound:
                found = {"metadata": {}}
            ours = (found["metadata"].get("labels") or {}).get(cdi.MANAGED_BY) == cdi.ENGINE
            self._owned = self._clock(), ours
        return self._owned[1]

    def _surroundings(self, data_volume: Object) -> Surroundings:
        namespace, name = data_volume["metadata"]["namespace"], data_volume["metadata"]["name"]
        pods = self._pods.get(namespace, pod_name(data_volume))
        scratches = self._claims.get(namespace, scratch_name(data_volume))
        pod, scratch = own(data_volume, pods), own(data_volume, scratches)
        if source_of(data_volume) == "upload":
            worker = self._uploads.get(namespace, cdi.pod_name(uploads.PREFIX, name))
        else:
            worker = pod
        running = any(get(each, "state", "running") for each in get(worker, "status", "containerStatuses") or ())
        return Surroundings(
            self._claims.get(namespace, name),
            scratch,
            pod,
            _in_the_way((PVC, scratches, scratch), (POD, pods, pod)),
            self._classes.list(),
            ask(worker) if worker is not None and running else None,
            source_of(data_volume) != "registry" or self._mounts_images(),
            self._source(data_volume),
            self._users(namespace, str(get(data_volume, "spec", "source", "pvc", "name"))),
        )

    def _source(self, data_volume: Object) -> Object | None:
        """Return the claim that is to be copied."""
        name = get(data_volume, "spec", "source", "pvc", "name")
        return self._claims.get(data_volume["metadata"]["namespace"], name) if name else None

    def _carry_out(self, data_volume: Object, decided: Plan, around: Surroundings) -> float | None:
        namespace, name = data_volume["metadata"]["namespace"], data_volume["metadata"]["name"]
        target = around.target
        if decided.create_target is not None:
            self._create(PVC, decided.create_target, self._claims)
            log.info("claim created", extra={"namespace": namespace, "dataVolume": name})
        if decided.note and target is not None:
            patch = {"metadata": {"uid": target["metadata"]["uid"], "annotations": dict(decided.note)}}
            self._claims.observe(self._client.patch(PVC, namespace, name, patch))
        if decided.delete_pod and around.pod is not None:
            self._delete(POD, around.pod, self._pods)
        if decided.delete_scratch and around.scratch is not None:
            self._delete(PVC, around.scratch, self._claims)
        scratch = around.scratch
        if decided.create_scratch is not None:
            scratch = self._create(PVC, decided.create_scratch, self._claims)
        if decided.create_pod and target is not None:
            config = ImporterConfig(self._image, self._configuration())
            wanted = importer_pod(data_volume, target, config, scratch=scratch is not None, source=around.source)
            if self._create(POD, wanted, self._pods) is None:
                # One without the labels of an importer, or one that is on its way out
                return _AGAIN
            log.info("importer created", extra={"namespace": namespace, "dataVolume": name})
        return None

    def _create(self, resource: Resource, wanted: Object, cache: Informer) -> Object | None:
        """Create an object; None if there is one of that name, which isn't in the cache or isn't ours."""
        return create(self._client, resource, wanted, cache)

    def _delete(self, resource: Resource, obj: Object, cache: Informer) -> None:
        delete(self._client, resource, obj, cache)

    def _refused(self, data_volume: Object, around: Surroundings, error: ApiError) -> None:
        """Say what the API server doesn't take; the next try comes by itself."""
        reason = "ErrExceededQuota" if "exceeded quota" in error.message else cdi.ERROR
        before = cdi.failure_of(data_volume)
        phase = cdi.phase_of(data_volume) or cdi.PENDING
        self._store(data_volume, status(data_volume, around.target, phase, failed(error.message), times.now()))
        if before != error.message:
            self._recorder.event(data_volume, "Warning", reason, error.message)

    def _store(self, data_volume: Object, wanted: Object) -> None:
        patch = merge_diff(data_volume.get("status") or {}, wanted)
        if not patch:
            return
        metadata = data_volume["metadata"]
        guarded = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "status": patch,
        }
        try:
            stored = self._client.patch(
                DATA_VOLUME, metadata["namespace"], metadata["name"], guarded, subresource="status"
            )
        except NotFound:
            return
        self._data_volumes.observe(stored)


def _in_the_way(*found: tuple[Resource, Object | None, Object | None]) -> str:
    """Return the first object that has the name of one of the DataVolume's, and isn't its own nor on its way out."""
    for resource, obj, ours in found:
        if obj is not None and ours is None and not is_deleted(obj):
            return f"{resource.kind} {obj['metadata']['name']}"
    return ""
