# SPDX-License-Identifier: GPL-3.0-or-later
"""What CustomResourceDefinitions mean: defaults, status, and the kinds they define."""

import re
from collections.abc import Iterable
from typing import Any

from turtles.api.objects import annotations_of
from turtles.api.times import now
from turtles.standalone.apiserver.schema.cel import rules
from turtles.standalone.apiserver.schema.kinds import ALWAYS, EXTENSIONS, Column, Kind, Scale
from turtles.standalone.apiserver.schema.status import is_true, set_condition
from turtles.standalone.apiserver.wire.errors import Object, quote

RESOURCE = f"{EXTENSIONS}/customresourcedefinitions"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def prepare(crd: Object) -> None:
    """Set a definition's defaults: singular, listKind, conversion."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        if names["kind"]:
            names.setdefault("listKind", f"{names['kind']}List")
    conversion = spec.get("conversion")
    if conversion is None or conversion == {}:
        spec["conversion"] = {"strategy": "None"}
    webhook = conversion.get("webhook") if isinstance(conversion, dict) else None
    client = webhook.get("clientConfig") if isinstance(webhook, dict) else None
    service = client.get("service") if isinstance(client, dict) else None
    if isinstance(service, dict):
        service.setdefault("port", 443)


#: The annotation that groups of the Kubernetes community need, and the condition that tells of it.
APPROVED = "api-approved.kubernetes.io"
CONFORMANT = "KubernetesAPIApprovalPolicyConformant"
_WHERE = "see https://github.com/kubernetes/enhancements/pull/1111"


def approval(crd: Object) -> tuple[str, str] | None:
    """Return how a definition stands to the approval that its group needs, and the same in words.

    The first is the reason of the condition: ApprovedAnnotation, UnapprovedAnnotation, MissingAnnotation or
    InvalidAnnotation. Source: KEP-1111 and Kubernetes' apihelpers.

    :returns: None for a group that needs none.
    """
    group = str(crd["spec"].get("group") or "")
    if not any(group == one or group.endswith(f".{one}") for one in ("k8s.io", "kubernetes.io")):
        return None
    annotation = annotations_of(crd).get(APPROVED) or ""
    if not annotation:
        return "MissingAnnotation", f'protected groups must have approval annotation "{APPROVED}", {_WHERE}'
    if annotation.startswith("unapproved"):
        return "UnapprovedAnnotation", f"not approved: {quote(annotation)}"
    if re.match(r"[A-Za-z][-+.A-Za-z0-9]*://[^/?#\s]", annotation):
        return "ApprovedAnnotation", f"approved in {annotation}"
    text = f'protected groups must have approval annotation "{APPROVED}" with either a URL or a reason starting with'
    return "InvalidAnnotation", f'{text} "unapproved", {_WHERE}'


def set_approval(crd: Object) -> None:
    """Write down whether a definition of a protected group is approved."""
    state = approval(crd)
    if state is not None:
        set_condition(crd, CONFORMANT, "True" if state[0] == "ApprovedAnnotation" else "False", *state)


def set_status(crd: Object, others: Iterable[Object] = ()) -> None:
    """Write the status of an accepted definition: its names, versions and the conditions clients wait for.

    :param others: the other definitions of the group, whose accepted names are taken.
    """
    status = crd["status"] = {name: value for name, value in (crd.get("status") or {}).items() if value is not None}
    spec = crd["spec"]
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    versions = status.setdefault("storedVersions", [])
    if stored not in versions:
        versions.append(stored)
    accepted = status.get("acceptedNames") or {"kind": "", "plural": ""}
    resources: set[str] = set()
    kinds_taken: set[str] = set()
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources |= {names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ())} - {""}
        kinds_taken |= {names.get("kind", ""), names.get("listKind", "")} - {""}
    names, problem = dict(accepted), None
    for name, taken in (
        ("plural", resources),
        ("singular", resources),
        ("shortNames", resources),
        ("kind", kinds_taken),
        ("listKind", kinds_taken),
    ):
        wanted = spec["names"].get(name)
        clash = next((one for one in _each(wanted) if one in taken and one not in _each(accepted.get(name))), None)
        if clash is not None:
            problem = (f"{name[0].upper()}{name[1:]}Conflict", f'"{clash}" is already in use')
        elif wanted:
            names[name] = wanted
        else:
            names.pop(name, None)
    if spec["names"].get("categories"):
        names["categories"] = spec["names"]["categories"]
    else:
        names.pop("categories", None)
    status["acceptedNames"] = names
    set_approval(crd)
    if problem is not None:
        set_condition(crd, "NamesAccepted", "False", *problem)
        if not is_true(crd, "Established"):
            set_condition(crd, "Established", "False", "NotAccepted", "not all names are accepted")
        return
    set_condition(crd, "NamesAccepted", "True", "NoConflicts", "no conflicts found")
    if not is_true(crd, "Established"):
        text = "the initial names have been accepted"
        set_condition(crd, "Established", "True", "InitialNamesAccepted", text)


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def mark_deleted(crd: Object) -> None:
    """Make a definition wait for the end of its objects, and say so."""
    finalizers = crd["metadata"].setdefault("finalizers", [])
    if CLEANUP not in finalizers:
        finalizers.append(CLEANUP)
    text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    conditions = crd.setdefault("status", {}).setdefault("conditions", [])
    conditions[:] = [one for one in conditions if one.get("type") != "Terminating"]
    condition = {"type": "Terminating", "status": "True", "lastTransitionTime": now()}
    conditions.append({**condition, "reason": "InstanceDeletionPending", "message": text})


def kinds(crd: Object) -> list[Kind]:
    """Return the kinds that a definition serves, the preferred version first; none before it is established."""
    spec = crd["spec"]
    if not is_true(crd, "Established"):
        return []
    names = crd["status"]["acceptedNames"]
    schemas = [(one.get("schema") or {}).get("openAPIV3Schema") for one in spec["versions"]]
    uniform = all(one == schemas[0] for one in schemas)
    changed = int(crd["metadata"].get("resourceVersion", 0))
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    result = []
    for version in spec["versions"]:
        if not version["served"]:
            continue
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        columns = tuple(
            Column(
                column["name"],
                column["type"],
                column.get("format", ""),
                column.get("description", ""),
                column.get("priority", 0),
                column["jsonPath"],
            )
            for column in version.get("additionalPrinterColumns") or ()
        )
        result.append(
            Kind(
                group=spec["group"],
                version=version["name"],
                kind=names["kind"],
                plural=names["plural"],
                namespaced=spec["scope"] == "Namespaced",
                singular=names.get("singular", ""),
                list_kind=names.get("listKind", ""),
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in subresources,
                scale=_scale(scale) if isinstance(scale, dict) else None,
                storage_version=stored,
                columns=columns,
                schema=schema,
                custom=True,
                preserve=bool(spec.get("preserveUnknownFields")),
                fields=tuple(field["jsonPath"].lstrip(".") for field in version.get("selectableFields") or ()),
                generation=True,
                deprecated=_warning(spec, version),
                conversion=spec.get("conversion"),
                rules=rules.collect(schema),
                reshaped=changed if uniform else ALWAYS,
                definition=changed,
            )
        )
    return sorted(result, key=lambda kind: version_priority(kind.version))


def unserved_kind(crd: Object) -> Kind:
    """Return the kind of a definition none of whose versions is served: enough to delete its objects."""
    spec = crd["spec"]
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    names = spec["names"]
    return Kind(spec["group"], stored, names["kind"], names["plural"], spec["scope"] == "Namespaced", custom=True)


def _warning(spec: Object, version: Object) -> str:
    if not version.get("deprecated"):
        return ""
    text = f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"
    return str(version.get("deprecationWarning") or text)


def _scale(scale: Object) -> Scale:
    def path(name: str) -> str:
        return str(scale.get(name, "")).lstrip(".")

    return Scale(path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))


_VERSION = re.compile(r"^v(\d+)(?:(alpha|beta)(\d+))?$")


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Return a sort key that puts v2 before v1, v1 before v1beta1, v1beta1 before v1alpha1, and others last."""
    match = _VERSION.match(version)
    if not match:
        return (3, 0, 0, version)
    major, stage, minor = match.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version)
