# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may copy disks of other namespaces (CDI's document "RBAC": the right to create `datavolumes/source` there).

Who may create Pods in a namespace can read its claims without, so that is enough for these.
"""

from __future__ import annotations

from typing import Any

from turtles.api.data_sources import CLAIM, CopySource
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.objects import Object
from turtles.kube.client import Client
from turtles.kube.resources import POD, PVC, SUBJECTACCESSREVIEW


def refusal(client: Client, user: Object, source: CopySource, namespace: str) -> str:
    """Return why a user may not copy a disk, in CDI's words; empty if they may. Asks the API server.

    :param user: as an AdmissionReview names one: username, groups, uid, extra.
    :param namespace: of the copy.
    """
    if source.namespace == namespace:
        return ""
    copying = {"group": DATA_VOLUME.group, "resource": DATA_VOLUME.plural, "subresource": "source"}
    pods, claims = ({"group": each.group, "resource": each.plural} for each in (POD, PVC))
    implied = (pods,) if source.kind == CLAIM else (pods, claims)
    if _may(client, user, source, copying) or all(_may(client, user, source, each) for each in implied):
        return ""
    return f"User {user.get('username')} has insufficient permissions in clone source namespace {source.namespace}"


def service_account(namespace: str, name: str) -> Object:
    """Return the user that a service account is."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {"username": f"system:serviceaccount:{namespace}:{name}", "groups": groups}


def _may(client: Client, user: Object, source: CopySource, resource: dict[str, str]) -> bool:
    attributes: dict[str, Any] = {**resource, "verb": "create", "namespace": source.namespace, "name": source.name}
    spec: Object = {"user": user.get("username") or "", "resourceAttributes": attributes}
    spec |= {key: user[key] for key in ("groups", "uid", "extra") if user.get(key)}
    review = {"apiVersion": SUBJECTACCESSREVIEW.api_version, "kind": SUBJECTACCESSREVIEW.kind, "spec": spec}
    return bool((client.create(SUBJECTACCESSREVIEW, review).get("status") or {}).get("allowed"))
