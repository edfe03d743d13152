# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods: what admission plugins do to them, and how they end.

pod_defaults.py has their defaults, pod_rules.py what they must look like, pod_columns.py what kubectl shows.
"""

import contextlib
from typing import Any

from turtles.api.objects import annotations_of
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import limit_ranges, pod_columns, pod_defaults, pod_rules, service_accounts
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.wire.errors import Cause, Object, forbidden, quote
from turtles.standalone.apiserver.wire.options import MAX_GRACE, DeleteOptions
from turtles.standalone.podrunner.status import qos_class
from turtles.standalone.pods import has_ended
from turtles.standalone.well_known import MIRROR, NOT_READY

_SECONDS = 300
_PRIORITY_CLASSES = "scheduling.k8s.io/priorityclasses"


class Pods(Strategy):
    """Pods."""

    ends_gracefully = True
    returns_deleted = True
    columns = pod_columns.COLUMNS
    subresources = (
        ("binding", ("create",), "Binding", "", "v1"),
        ("eviction", ("create",), "Eviction", "policy", "v1"),
        ("log", ("get",), "Pod", "", "v1"),
        ("exec", ("create", "get"), "PodExecOptions", "", "v1"),
        ("attach", ("create", "get"), "PodAttachOptions", "", "v1"),
        ("portforward", ("create", "get"), "PodPortForwardOptions", "", "v1"),
    )

    def cells(self, obj: Object) -> list[Any]:
        return pod_columns.cells(obj)

    def row_conditions(self, obj: Object) -> list[Object]:
        return pod_columns.row_conditions(obj)

    def default(self, obj: Object) -> None:
        pod_defaults.set_defaults(obj)

    def prepare_create(self, obj: Object, kind: Kind) -> None:
        """Set the first status."""
        super().prepare_create(obj, kind)
        obj["status"]["phase"] = "Pending"

    async def admit_create(self, cluster: Cluster, context: Context, obj: Object) -> None:
        """Do what the admission plugins ServiceAccount, Priority, DefaultTolerationSeconds and LimitRanger do."""
        spec = obj["spec"]
        try:
            await _admit_account(cluster, context.namespace, obj)
            _admit_priority(spec, [entry.object() for entry in cluster.store.entries(_PRIORITY_CLASSES)])
        except LookupError as error:
            raise forbidden("", "pods", obj["metadata"].get("name", ""), str(error)) from None
        _admit_tolerations(spec)
        ranges = limit_ranges.of_namespace(cluster.store, context.namespace)
        if ranges:
            limit_ranges.set_defaults(obj, ranges)

    def admit_update(self, obj: Object) -> None:
        """Do what the admission plugin DefaultTolerationSeconds does."""
        _admit_tolerations(obj["spec"])

    def finish_create(self, obj: Object) -> None:
        """Write down the quality of service, once admission has given the Pod all its resources."""
        with contextlib.suppress(ValueError):  # validation names what can't be read
            obj.setdefault("status", {})["qosClass"] = qos_class(obj["spec"])

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        return pod_rules.validate(obj, old)

    def check_limits(self, cluster: Cluster, context: Context, obj: Object) -> None:
        """Hold a Pod against its namespace's LimitRanges."""
        ranges = limit_ranges.of_namespace(cluster.store, context.namespace)
        limit_ranges.refuse(context, obj, limit_ranges.pod_violations(obj, ranges))

    def grace_period(self, obj: Object, options: DeleteOptions) -> int | None:
        """Return how many seconds a Pod may take to end: none when it isn't running."""
        spec = obj.get("spec") or {}
        if not spec.get("nodeName") or has_ended(obj):
            return 0
        if options.grace_period is not None:
            return options.grace_period
        grace = spec.get("terminationGracePeriodSeconds", 30)
        return max(0, min(grace, MAX_GRACE)) if isinstance(grace, int) else 30


async def _admit_account(cluster: Cluster, namespace: str, obj: Object) -> None:
    """Give a Pod its service account, and what that says of pull secrets.

    :raises LookupError: when there is no such account.
    """
    spec = obj["spec"]
    if MIRROR in annotations_of(obj):
        if spec.get("serviceAccountName"):
            raise LookupError("a mirror pod may not reference service accounts")
        return
    name = spec.get("serviceAccountName") or service_accounts.DEFAULT
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = await service_accounts.find(cluster.store, namespace, name)
    if account is None:
        raise LookupError(
            f"error looking up service account {namespace}/{name}: serviceaccount {quote(name)} not found"
        )
    secrets = [{"name": one["name"]} for one in account.get("imagePullSecrets") or () if one.get("name")]
    if secrets and not spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = secrets


def _admit_tolerations(spec: Object) -> None:
    """Let a Pod stay for five minutes on a node that isn't ready, if it says nothing about that."""
    tolerations: list[Any] = spec.get("tolerations") or []
    for key in (NOT_READY, "node.kubernetes.io/unreachable"):
        if not any(one.get("key", key) == key and one.get("effect", "NoExecute") == "NoExecute" for one in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS})
    spec["tolerations"] = tolerations


def _admit_priority(spec: Object, classes: list[Object]) -> None:
    name = spec.get("priorityClassName")
    chosen: Object | None = None
    if name:
        chosen = next((one for one in classes if one["metadata"]["name"] == name), None)
        if chosen is None:
            raise LookupError(f"no PriorityClass with name {name} was found")
    else:
        defaults = [one for one in classes if one.get("globalDefault")]
        chosen = min(defaults, key=lambda one: int(one["value"]), default=None)
        if chosen is not None:
            spec["priorityClassName"] = chosen["metadata"]["name"]
    priority = chosen["value"] if chosen is not None else 0
    if spec.get("priority") not in (None, priority):
        text = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission "
            f"controller computed {priority} from the given PriorityClass name"
        )
        raise LookupError(text)
    spec["priority"] = priority
    policy = (chosen or {}).get("preemptionPolicy", "PreemptLowerPriority")
    if spec.get("preemptionPolicy") not in (None, policy):
        text = (
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
            f"priority admission controller computed {policy} from the given PriorityClass name"
        )
        raise LookupError(text)
    spec["preemptionPolicy"] = policy
