# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of writes: CreateOptions, UpdateOptions, PatchOptions, DeleteOptions of meta.k8s.io.

Source: k8s.io/apimachinery/pkg/apis/meta/v1/validation, which says what each may be.
"""

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    bad_request,
    invalid,
    invalid_value,
    not_supported,
    quote,
    unregistered,
)

_KINDS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
_VALIDATIONS = ["", "Ignore", "Strict", "Warn"]
#: Longest name of a field manager, in bytes.
MAX_MANAGER = 128
#: Longest time that a Pod may take to end, in seconds: about what a date can hold.
MAX_GRACE = 2**31 - 1
GROUP = "meta.k8s.io"


def readable(header: str) -> str:
    """Return a header's text; bytes in it that are no UTF-8 become U+FFFD, for no answer could show them."""
    return header.encode(errors="surrogateescape").decode(errors="replace")


@dataclass(frozen=True)
class WriteOptions:
    """What a client asked for in the query of a write."""

    dry_run: bool = False
    field_validation: str = "Warn"
    field_manager: str = ""
    force: bool = False


def write_options(request: web.BaseRequest) -> WriteOptions:
    """Return the options in a request's query; those of a request that writes nothing are not looked at.

    :raises StatusError: 400 or 422 for options that can't be.
    """
    kind = _KINDS.get(request.method)
    if kind is None:
        return WriteOptions()
    query = request.query
    causes = dry_run_causes(query.getall("dryRun", []))
    manager, validation = query.get("fieldManager", ""), query.get("fieldValidation", "")
    force = flag(request, "force") if "force" in query else None
    if kind == "PatchOptions":
        applies = request.content_type == "application/apply-patch+yaml"
        if applies and not manager:
            causes.append(Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager"))
        elif not applies and force is not None:
            text = "Forbidden: may not be specified for non-apply patch"
            causes.append(Cause("FieldValueForbidden", text, "force"))
    if kind != "DeleteOptions":
        causes += _manager_causes(manager)
        if validation not in _VALIDATIONS:
            causes.append(not_supported("fieldValidation", validation, _VALIDATIONS))
    if causes:
        raise invalid(GROUP, kind, "", causes)
    return WriteOptions("All" in query.getall("dryRun", []), validation or "Warn", manager, bool(force))


def flag(request: web.BaseRequest, name: str) -> bool:
    """Return a flag of a query as Kubernetes reads it: true even when empty, but for ``false`` and ``0``."""
    return request.query.get(name, "false").lower() not in ("false", "0")


def dry_run_causes(values: object) -> list[Cause]:
    """Return what is wrong with a dryRun: it may hold ``All`` only."""
    if not values or (isinstance(values, list) and all(one == "All" for one in values)):
        return []
    return [not_supported("dryRun", values, ["All"])]


def _manager_causes(manager: str) -> list[Cause]:
    causes = []
    if len(manager.encode()) > MAX_MANAGER:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {MAX_MANAGER} bytes", "fieldManager"))
    for position, one in enumerate(manager):
        if not one.isprintable():
            text = f"invalid character U+{ord(one):04X} (at position {position})"
            causes.append(invalid_value("fieldManager", manager, text))
    return causes


_MATCHES = ["Exact", "NotOlderThan", ""]


def check_list(request: web.BaseRequest) -> None:
    """Check a list's options.

    Source: ValidateListOptions in k8s.io/apimachinery/pkg/apis/meta/internalversion/validation.

    :raises StatusError: 422 if they contradict each other, 400 if they can't be read.
    """
    query = request.query
    number(request, "timeoutSeconds")
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    causes = []
    if "sendInitialEvents" in query:
        causes.append(
            Cause("FieldValueForbidden", "Forbidden: sendInitialEvents is forbidden for list", "sendInitialEvents")
        )
    if match:
        if not version:
            causes.append(_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if query.get("continue"):
            causes.append(_forbidden("resourceVersionMatch is forbidden when continue is provided"))
        if match not in _MATCHES:
            causes.append(not_supported("resourceVersionMatch", match, _MATCHES))
        if match == "Exact" and version == "0":
            causes.append(_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if causes:
        raise invalid(GROUP, "ListOptions", "", causes)


def check_watch(request: web.BaseRequest) -> None:
    """Check a watch's options (KEP-3157 for ``sendInitialEvents``).

    :raises StatusError: 422 if they contradict each other.
    """
    query = request.query
    match, initial = query.get("resourceVersionMatch", ""), query.get("sendInitialEvents")
    causes = []
    if match and initial is None:
        causes.append(_forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
    elif initial is not None:
        if match != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            causes.append(
                _forbidden(text) if not match else not_supported("resourceVersionMatch", match, ["NotOlderThan"])
            )
        if flag(request, "sendInitialEvents") and not flag(request, "allowWatchBookmarks"):
            text = "Forbidden: sendInitialEvents requires setting allowWatchBookmarks to true"
            causes.append(Cause("FieldValueForbidden", text, "sendInitialEvents"))
    if causes:
        raise invalid(GROUP, "ListOptions", "", causes)


def _forbidden(text: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {text}", "resourceVersionMatch")


def number(request: web.BaseRequest, name: str) -> int:
    """Return a number of a query, 0 if it isn't given or negative.

    :raises StatusError: 400 for what is no number.
    """
    text = request.query.get(name, "")
    try:
        return max(0, int(text)) if text else 0
    except ValueError:
        raise bad_request(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax") from None


@dataclass
class DeleteOptions:
    """metav1.DeleteOptions."""

    grace_period: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    raw: Object = field(default_factory=dict)

    @classmethod
    def parse(cls, body: Any) -> "DeleteOptions":
        """Return the options in a body.

        :raises StatusError: 400 or 422 for options that can't be.
        """
        if not isinstance(body, dict):
            raise bad_request("DeleteOptions must be an object")
        kind = body.get("kind") or "DeleteOptions"
        if kind != "DeleteOptions":
            raise bad_request(unregistered(str(kind), str(body.get("apiVersion") or "")))
        causes = dry_run_causes(body.get("dryRun"))
        preconditions = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds")
        propagation = body.get("propagationPolicy") or ""
        if grace is not None and (isinstance(grace, bool) or not isinstance(grace, int)):
            raise bad_request("DeleteOptions.gracePeriodSeconds must be an integer")
        if grace is not None:
            grace = min(grace, MAX_GRACE) if grace >= 0 else 1
        if not isinstance(preconditions, dict) or not isinstance(propagation, str):
            raise bad_request("DeleteOptions can't be read")
        if propagation not in ("", "Background", "Foreground", "Orphan"):
            causes.append(
                not_supported("propagationPolicy", propagation, ["Foreground", "Background", "Orphan", "nil"])
            )
        if body.get("orphanDependents") is not None:
            if propagation:
                text = "orphanDependents and deletionPropagation cannot be both set"
                causes.append(invalid_value("propagationPolicy", propagation, text))
            propagation = "Orphan" if body["orphanDependents"] else "Background"
        if causes:
            raise invalid(GROUP, "DeleteOptions", "", causes)
        uid, version = preconditions.get("uid") or "", preconditions.get("resourceVersion") or ""
        return cls(grace, propagation, str(uid), str(version), body)
