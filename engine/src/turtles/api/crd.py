# SPDX-License-Identifier: GPL-3.0-or-later
"""CustomResourceDefinitions, made from the descriptions of kinds."""

from __future__ import annotations

from turtles.api import cdi
from turtles.api.kind import Column, Kind
from turtles.api.kinds import KINDS
from turtles.api.objects import Object

_API_VERSION = "Version of the API the object is written in."
_KIND = "Kind of the object."


def crd(kind: Kind) -> Object:
    """Return the CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind.

    All versions share one schema, so none needs a conversion webhook.
    """
    schema = _schema(kind)
    versions = []
    for version in kind.versions:
        entry: Object = {
            "name": version.name,
            "served": True,
            "storage": version.storage,
            "schema": {"openAPIV3Schema": schema},
        }
        if kind.columns:
            entry["additionalPrinterColumns"] = [_column(column) for column in kind.columns]
        if subresources := _subresources(kind):
            entry["subresources"] = subresources
        if version.deprecation_warning:
            entry["deprecated"] = True
            entry["deprecationWarning"] = version.deprecation_warning
        versions.append(entry)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "labels": {"app.kubernetes.io/part-of": "kubevirt", **_managed(kind)}},
        "spec": {
            "group": kind.group,
            "scope": kind.scope,
            "names": {
                "kind": kind.kind,
                "listKind": kind.list_kind,
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": list(kind.categories),
            },
            "conversion": {"strategy": "None"},
            "versions": versions,
        },
    }


def _managed(kind: Kind) -> dict[str, str]:
    """Return the labels that tell definitions of this engine from those of upstream's CDI."""
    return {cdi.MANAGED_BY: cdi.ENGINE} if kind.group == cdi.GROUP else {}


def crds() -> list[Object]:
    """Return the CustomResourceDefinitions of all kinds."""
    return [crd(kind) for kind in KINDS]


def _schema(kind: Kind) -> Object:
    schema = kind.schema.openapi()
    schema["description"] = kind.schema.doc
    schema["properties"] = {
        "apiVersion": {"description": _API_VERSION, "type": "string"},
        "kind": {"description": _KIND, "type": "string"},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    return schema


def _subresources(kind: Kind) -> Object:
    subresources: Object = {"status": {}} if kind.status_subresource else {}
    if kind.scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector",
        }
    return subresources


def _column(column: Column) -> Object:
    entry: Object = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.description:
        entry["description"] = column.description
    if column.priority:
        entry["priority"] = column.priority
    return entry
