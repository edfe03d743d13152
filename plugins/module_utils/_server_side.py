# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Server-side apply (KEP-555): what of it is no request. Pure functions on plain data.

The server keeps in metadata.managedFields which manager owns which field, and by which operation. An object that a
manager has written with patches so far belongs to it by the operation Update, and an apply of the same manager is
another owner in addition: what a later declaration drops would stay. So what was patched is made applied first, as
kubectl does with what it applied on the client's side (k8s.io/client-go/util/csaupgrade).
"""

from __future__ import annotations

import copy

# Under this name servers remember what the modules apply. It is also what they call the author of patches, by the
# User-Agent.
FIELD_MANAGER = "turtles.kubevirt"
APPLY_PATCH = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"


def adopted(managed_fields, manager):
    """managedFields in which all that the manager owns by Update is owned by Apply, or None if that is so already.

    Subresources (status) aren't touched: they aren't applied here.
    """
    entries = managed_fields or []
    updates = [entry for entry in entries if _is(entry, manager, "Update")]
    if not updates:
        return None
    applied = [entry for entry in entries if _is(entry, manager, "Apply")] + updates
    fields = {}
    for entry in applied:
        fields = _union(fields, entry.get("fieldsV1") or {})
    # The entry's version says in which one the paths are to be read; the latest write is the one that counts.
    one = dict(applied[-1], operation="Apply", fieldsV1=fields)
    return [entry for entry in entries if not any(entry is old for old in applied)] + [one]


def adoption(obj, manager):
    """Return the JSON patch (RFC 6902) to what `adopted` gives, or None. It conflicts if obj has changed since."""
    metadata = obj.get("metadata") or {}
    entries = adopted(metadata.get("managedFields"), manager)
    if entries is None:
        return None
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata.get("resourceVersion")},
    ]


def conflicts(causes):
    """Return lines that name fields and their managers, of the causes of a 409 Conflict; [] for other causes.

    A cause's message is such as: conflict with "kubectl-edit" using apps/v1.
    """
    return [
        "%s (%s)" % (cause.get("field") or "?", cause.get("message") or "conflict with another manager")
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    ]


def _is(entry, manager, operation):
    return entry.get("manager") == manager and entry.get("operation") == operation and not entry.get("subresource")


def _union(first, second):
    """Both sets of fields (fieldsV1: nested dictionaries whose leaves are empty)."""
    result = copy.deepcopy(first)
    for key, value in second.items():
        result[key] = _union(result[key], value) if key in result else copy.deepcopy(value)
    return result
