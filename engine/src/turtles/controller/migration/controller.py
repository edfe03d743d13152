# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstanceMigration → Pod on another node: reads the caches, asks the plan, and writes what it says."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from turtles.api import labels, migrations, times
from turtles.api.conditions import set_condition
from turtles.api.kinds.migration_policy import matching
from turtles.api.objects import Object, get, labels_of
from turtles.api.phases import phase_of
from turtles.controller import remedies
from turtles.controller.caches import BY_OWNER
from turtles.controller.migration.plan import Plan, Situation, fail, node_of, plan, superfluous
from turtles.controller.migration.target import target_name, target_pod
from turtles.controller.pod import end
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.roles import by_role
from turtles.controller.shared import Shared
from turtles.kube.client import AlreadyExists, ApiError, NotFound, Unavailable
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import MIGRATION, MIGRATION_POLICY
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import NAMESPACE, POD
from turtles.log import about

log = logging.getLogger(__name__)

#: Index of migrations: the instance that they migrate, as ``namespace/name``.
BY_INSTANCE = "instance"
#: Seconds after which a Pod that a quota refused is tried again.
_QUOTA_RETRY = 30.0


class MigrationController:
    """Reconciles VirtualMachineInstanceMigrations. One worker: who begins, counts those that have begun."""

    def __init__(self, shared: Shared, launcher_config: Callable[[Object], LauncherConfig]) -> None:
        """Make the controller.

        :param launcher_config: gives what the Pod of a VMI is made with.
        """
        manager, caches = shared.manager, shared.caches
        self._client, self._writer, self._recorder = shared.client, shared.writer, shared.recorder
        self._vmis, self._pods, self._nodes = caches.vmis, caches.pods, caches.nodes
        self._migrations = manager.informer(MIGRATION)
        self._migrations.add_index(BY_INSTANCE, _instance)
        self._policies, self._namespaces = manager.informer(MIGRATION_POLICY), manager.informer(NAMESPACE)
        self._configuration, self._launcher_config = shared.configuration, launcher_config

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._migrations),
            Trigger(self._vmis, lambda old, new: self._of_instance(new or old)),
            Trigger(self._pods, self._of_pod),
        )
        return Controller("migration", self.reconcile, triggers, reads=(self._nodes, self._policies, self._namespaces))

    def _of_instance(self, vmi: Object | None) -> list[Key]:
        if vmi is None:
            return []
        return [key_of(each) for each in self._migrations.by_index(BY_INSTANCE, "/".join(key_of(vmi)))]

    def _of_pod(self, old: Object | None, new: Object | None) -> list[Key]:
        metadata = (new or old or {})["metadata"]
        name = (metadata.get("annotations") or {}).get(migrations.JOB_NAME)
        return [(metadata["namespace"], name)] if name else []

    def reconcile(self, key: Key) -> float | None:
        """Bring one migration closer to its end; returns seconds after which to look again."""
        migration = self._migrations.get(*key)
        if migration is None:
            return None
        situation, now = self._situation(migration), datetime.now(UTC)
        decided = plan(migration, situation, now)
        if decided.create_pod and situation.vmi is not None:
            refused = self._create_pod(migration, situation.vmi)
            if refused is not None:
                decided = self._not_created(migration, refused, now)
        if decided.vmi is not None and situation.vmi is not None:
            self._store_vmi(situation.vmi, decided.vmi)
        for pod in decided.delete_pods:
            self._writer.delete(self._pods, pod)
        stored = self._store(migration, decided)
        for event in decided.events:
            self._recorder.event(migration, *event)
            if situation.vmi is not None:
                self._recorder.event(situation.vmi, *event)
        if phase_of(stored) in migrations.FINAL:
            others = self._migrations.by_index(BY_INSTANCE, _instance(migration)[0])
            rest = [other for other in others if other["metadata"]["uid"] != migration["metadata"]["uid"]]
            for old in superfluous(stored, rest):
                self._writer.delete(self._migrations, old)
                self._delete_source(old)
        return decided.wait

    def _situation(self, migration: Object) -> Situation:
        namespace, uid = migration["metadata"]["namespace"], migration["metadata"]["uid"]
        vmi = self._vmis.get(namespace, migration["spec"]["vmiName"])
        pods = self._pods.by_index(BY_OWNER, vmi["metadata"]["uid"]) if vmi is not None else []
        target = next((pod for pod in pods if labels_of(pod).get(labels.MIGRATION_JOB_UID) == uid), None)
        if target is None and vmi is not None and phase_of(migration) == migrations.SCHEDULING:
            target = self._live_pod(vmi, migration)
        name = get(migration, "status", "migrationState", "sourcePod")
        source = next((pod for pod in pods if pod["metadata"]["name"] == name), None)
        if source is None and vmi is not None:
            source = by_role(vmi, pods).launcher
        others = [each for each in self._migrations.list() if each["metadata"]["uid"] != uid]
        return Situation(
            vmi, target, source, others, self._configuration(), self._policy(vmi), self._nodes_of_instances(others)
        )

    def _nodes_of_instances(self, others: Sequence[Object]) -> dict[Key, str]:
        """Return where the instances are that others migrate, or are about to."""
        keys = {
            (each["metadata"]["namespace"], str(each["spec"].get("vmiName")))
            for each in others
            if phase_of(each) not in migrations.FINAL
        }
        nodes = ((key, node_of(vmi)) for key in keys if (vmi := self._vmis.get(*key)) is not None)
        return {key: node for key, node in nodes if node}

    def _policy(self, vmi: Object | None) -> Object | None:
        if vmi is None:
            return None
        metadata = vmi["metadata"]
        namespace = self._namespaces.get(None, metadata["namespace"]) or {"metadata": {}}
        return matching(self._policies.list(), metadata.get("labels") or {}, labels_of(namespace))

    def _live_pod(self, vmi: Object, migration: Object) -> Object | None:
        """Return a migration's Pod as the server has it now; the cache may be behind."""
        try:
            pod = self._client.get(POD, vmi["metadata"]["namespace"], target_name(vmi, migration))
        except NotFound:
            return None
        self._pods.observe(pod)
        return pod

    def _create_pod(self, migration: Object, vmi: Object) -> ApiError | None:
        """Create a migration's Pod; return the answer of a server that refuses it."""
        source = self._nodes.get(None, vmi["status"]["nodeName"])
        try:
            pod = self._writer.create(self._pods, target_pod(vmi, migration, self._launcher_config(vmi), source))
        except AlreadyExists:
            return None
        except Unavailable:
            raise
        except ApiError as error:
            return error
        name = pod["metadata"]["name"]
        log.info("migration target Pod created", extra=about("vmi", vmi, pod=name))
        for obj in (migration, vmi):
            self._recorder.event(obj, "Normal", "SuccessfulCreate", f"Created migration target pod {name}")
        return None

    def _not_created(self, migration: Object, error: ApiError, now: datetime) -> Plan:
        """Return what happens to a migration whose Pod was refused: a quota may have room later, all else fails it."""
        decided = Plan(dict(migration.get("status") or {}))
        message = f"Error creating migration target pod: {error.message}"
        if "quota" not in error.message:
            fail(decided, remedies.advised(message, remedies.of_refusal(error)), now)
            return decided
        decided.status.setdefault("phase", migrations.PENDING)
        conditions = [dict(each) for each in decided.status.get("conditions") or ()]
        if set_condition(conditions, migrations.REJECTED_BY_QUOTA, "True", "", message, times.rfc3339(now)):
            words = remedies.advised(message, remedies.of_refusal(error))
            decided.events.append(("Warning", "FailedCreate", words))
        decided.status["conditions"] = conditions
        decided.wait = _QUOTA_RETRY
        return decided

    def _store(self, migration: Object, decided: Plan) -> Object:
        stored = migration
        with contextlib.suppress(NotFound):
            stored = self._writer.store_status(self._migrations, migration, decided.status)
            if decided.finalizers is not None:
                finalizers = {"metadata": {"finalizers": list(decided.finalizers)}}
                stored = self._writer.patch(self._migrations, stored, finalizers, unchanged=False)
        return stored

    def _store_vmi(self, old: Object, new: Object) -> None:
        paths = [("metadata", "labels"), ("status", "migrationState"), ("status", "activePods")]
        with contextlib.suppress(NotFound):
            self._writer.store_members(self._vmis, old, new, paths)

    def _delete_source(self, migration: Object) -> None:
        """Delete the Pod that a guest left by a migration that isn't kept; it has ended long since."""
        name = get(migration, "status", "migrationState", "sourcePod")
        pod = self._pods.get(migration["metadata"]["namespace"], name) if name else None
        if pod is not None and end.has_ended(pod):
            self._writer.delete(self._pods, pod)


def _instance(migration: Object) -> list[str]:
    return [f"{migration['metadata']['namespace']}/{migration['spec'].get('vmiName')}"]
