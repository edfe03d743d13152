# SPDX-License-Identifier: GPL-3.0-or-later
"""Has running machines get the launcher of a new version, or a larger Pod, as ``spec.workloadUpdateStrategy`` says."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime

from turtles.api.objects import Object, annotations_of
from turtles.controller import remedies
from turtles.controller.backoff import WORKLOAD_UPDATE
from turtles.controller.caches import BY_OWNER
from turtles.controller.pod.roles import by_role
from turtles.controller.shared import Shared
from turtles.controller.workload_update.plan import is_outdated, is_running, needs_larger_pod, plan, priority_of
from turtles.kube.client import ApiError, NotFound
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import MIGRATION
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import POD

log = logging.getLogger(__name__)


class WorkloadUpdateController:
    """Reconciles the KubeVirt object with the launchers of the machines that run."""

    def __init__(self, shared: Shared, image: str) -> None:
        """Make the controller.

        :param image: of new launchers.
        """
        caches = shared.caches
        self._client, self._writer, self._recorder = shared.client, shared.writer, shared.recorder
        self._configuration, self._image = shared.configuration, image
        self._kubevirts, self._vmis, self._pods = caches.kubevirts, caches.vmis, caches.pods
        self._migrations = shared.manager.informer(MIGRATION)
        # As in KubeVirt, a controller that was restarted begins with a batch
        self._evicted = float("-inf")

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._kubevirts),
            Trigger(self._vmis, self._if_due),
            Trigger(self._migrations, lambda old, new: self._all() if _is_update(new or old) else []),
        )
        return Controller("workload-update", self.reconcile, triggers, reads=(self._pods,), essential=False)

    def _all(self) -> list[Key]:
        return [key_of(kubevirt) for kubevirt in self._kubevirts.list()]

    def _if_due(self, old: Object | None, new: Object | None) -> list[Key]:
        """Look when there is one machine more or less to be updated."""
        return self._all() if self._is_due(old) != self._is_due(new) else []

    def _is_due(self, vmi: Object | None) -> bool:
        return vmi is not None and is_running(vmi) and (is_outdated(vmi, self._image) or needs_larger_pod(vmi))

    def reconcile(self, key: Key) -> float | None:
        """Update the machines whose turn it is; returns seconds after which to look again."""
        kubevirt = self._kubevirts.get(*key)
        if kubevirt is None:
            return None
        since = time.monotonic() - self._evicted
        decided = plan(
            kubevirt,
            self._vmis.list(),
            self._migrations.list(),
            self._configuration(),
            self._image,
            datetime.now(UTC),
            since,
        )
        self._tell(kubevirt, decided.outdated)
        for vmi in decided.migrate:
            self._migrate(vmi)
        if decided.evict:
            self._evicted = time.monotonic()
        for vmi in decided.evict:
            self._evict(vmi)
        return decided.wait

    def _tell(self, kubevirt: Object, outdated: int) -> None:
        if (kubevirt.get("status") or {}).get("outdatedVirtualMachineInstanceWorkloads", 0) == outdated:
            return
        patch = {"status": {"outdatedVirtualMachineInstanceWorkloads": outdated}}
        with contextlib.suppress(NotFound):
            self._writer.patch(self._kubevirts, kubevirt, patch, subresource="status", unchanged=False)

    def _migrate(self, vmi: Object) -> None:
        metadata = vmi["metadata"]
        migration = {
            "apiVersion": MIGRATION.api_version,
            "kind": MIGRATION.kind,
            "metadata": {
                "generateName": "kubevirt-workload-update-",
                "namespace": metadata["namespace"],
                "annotations": {WORKLOAD_UPDATE: ""},
            },
            "spec": {"vmiName": metadata["name"], "priority": priority_of(vmi, self._image)},
        }
        try:
            created = self._writer.create(self._migrations, migration)
        except ApiError as error:
            # Another migration was quicker, or the machine can't be migrated any more: there is a next look
            message = f"Error creating a Migration for automated workload update: {error.message}"
            words = remedies.advised(message, remedies.of_refusal(error))
            self._recorder.event(vmi, "Warning", "FailedCreate", words)
            return
        name = created["metadata"]["name"]
        self._recorder.event(
            vmi, "Normal", "SuccessfulCreate", f"Created Migration {name} for automated workload update"
        )

    def _evict(self, vmi: Object) -> None:
        pod = by_role(vmi, self._pods.by_index(BY_OWNER, vmi["metadata"]["uid"])).launcher
        if pod is None:
            return
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": pod["metadata"]["uid"]}},
        }
        try:
            self._client.create(POD, eviction, namespace=namespace, name=name, subresource="eviction")
        except NotFound:
            return
        except ApiError as error:
            message = f"Error evicting the machine for automated workload update: {error.message}"
            self._recorder.event(vmi, "Warning", "FailedEvict", message)
            return
        message = "Initiated eviction of VMI as part of automated workload update"
        self._recorder.event(vmi, "Normal", "SuccessfulEvict", message)


def _is_update(migration: Object | None) -> bool:
    return WORKLOAD_UPDATE in annotations_of(migration)
