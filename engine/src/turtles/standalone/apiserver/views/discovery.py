# SPDX-License-Identifier: GPL-3.0-or-later
"""Discovery: which groups, versions and resources there are, in the legacy and the aggregated form."""

from typing import Any

from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.builtin.strategies import STRATEGIES
from turtles.standalone.apiserver.builtin.strategy import Subresource
from turtles.standalone.apiserver.schema import types
from turtles.standalone.apiserver.schema.kinds import REVIEWS, Kind
from turtles.standalone.apiserver.wire.errors import Object

_VERBS = ("get", "patch", "update")
_CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


def subresources(kind: Kind) -> list[Subresource]:
    """Return the subresources of a kind."""
    generic: list[Subresource] = []
    if kind.status:
        generic.append(("status", _VERBS, kind.kind, kind.group, kind.version))
    if kind.scale is not None:
        generic.append(("scale", _VERBS, "Scale", "autoscaling", "v1"))
    strategy = STRATEGIES.get(kind.resource)
    return [*generic, *strategy.subresources] if strategy is not None else generic


def resource_list(registry: Registry, group: str, version: str) -> Object | None:
    """Return the APIResourceList of a group and version, None when there is no such one."""
    resources: list[Object] = []
    for kind in registry.all():
        if (kind.group, kind.version) != (group, version):
            continue
        entry: Object = {
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": list(_CUSTOM_VERBS) if kind.custom else sorted(kind.verbs),
        }  # fmt: skip
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        resources.append(entry)
        for name, verbs, of_kind, of_group, of_version in subresources(kind):
            below: Object = {
                "name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced, "kind": of_kind,
                "verbs": list(verbs),
            }  # fmt: skip
            if (of_group, of_version) != (group, version):
                below["group"], below["version"] = of_group, of_version
            resources.append(below)
    for review in REVIEWS:
        if (review.group, review.version) == (group, version):
            resources.append(
                {"name": review.plural, "singularName": review.kind.lower(), "namespaced": review.namespaced,
                 "kind": review.kind, "verbs": ["create"]}
            )  # fmt: skip
    if not resources:
        return None
    group_version = f"{group}/{version}" if group else version
    # The order is that of who serves them in Kubernetes: custom resources come as their definitions say.
    if not all(kind.custom for kind in registry.all() if (kind.group, kind.version) == (group, version)):
        resources.sort(key=lambda one: str(one["name"]))
    head: Object = {"kind": "APIResourceList"}
    if group:
        head["apiVersion"] = "v1"
    return {**head, "groupVersion": group_version, "resources": resources}


def api_versions() -> Object:
    """Return /api."""
    return {
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    }  # fmt: skip


def api_group(group: str, versions: list[str]) -> Object:
    """Return /apis/GROUP; the first version is the preferred one."""
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": listed, "preferredVersion": listed[0]}


def api_group_list(groups: dict[str, list[str]]) -> Object:
    """Return /apis."""
    items = [
        {name: value for name, value in api_group(group, versions).items() if name not in ("kind", "apiVersion")}
        for group, versions in groups.items()
        if group
    ]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": items}


def aggregated_versions(resources: list[Object], group: str, version: str) -> Object:
    """Return a version's entry of an APIGroupDiscovery, made of an APIResourceList's resources."""
    entries: dict[str, Object] = {}
    for one in resources:
        name, _, sub = str(one["name"]).partition("/")
        kind: Object = {
            "group": one.get("group", group), "version": one.get("version", version), "kind": one["kind"],
        }  # fmt: skip
        if sub and name in entries:
            below = {"subresource": sub, "responseKind": kind, "verbs": one["verbs"]}
            entries[name].setdefault("subresources", []).append(below)
        else:
            entry: Object = {
                "resource": one["name"], "responseKind": kind,
                "scope": "Namespaced" if one["namespaced"] else "Cluster",
                "singularResource": one.get("singularName", ""), "verbs": one["verbs"],
            }  # fmt: skip
            for field in ("shortNames", "categories"):
                if field in one:
                    entry[field] = one[field]
            entries[str(one["name"])] = entry
    return {"version": version, "freshness": "Current", "resources": list(entries.values())}


def aggregated(groups: list[tuple[str, list[Object]]], api_version: str) -> Object:
    """Return an APIGroupDiscoveryList of (group, versions)."""
    items = [{"metadata": {"name": name}, "versions": versions} for name, versions in groups]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}


def version_info(engine: str) -> dict[str, Any]:
    """Return /version: the Kubernetes whose API is served, and in its build metadata the engine that serves it."""
    major, minor = types.KUBERNETES.split(".")
    return {
        "major": major, "minor": minor, "gitVersion": f"v{types.KUBERNETES}.0+turtles.{engine}", "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "cpython", "platform": "linux/amd64",
    }  # fmt: skip
