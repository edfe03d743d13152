# SPDX-License-Identifier: GPL-3.0-or-later
"""metadata.managedFields: who owns which field, after updates and after server-side apply.

Source: the Kubernetes documentation "Server-Side Apply" and k8s.io/apimachinery's managedfields package. Entries are
of a manager, its operation (Apply or Update), a version and a subresource; sets of fields are FieldsV1 (fieldsets.py).
"""

import copy
import json
from collections.abc import Iterable
from typing import Any

from turtles.api.texts import from_json
from turtles.api.times import now
from turtles.standalone.apiserver.apply import fieldsets
from turtles.standalone.apiserver.apply.fieldsets import Comparison, Set
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.types import Type, of_kind
from turtles.standalone.apiserver.wire.bodies import json_type
from turtles.standalone.apiserver.wire.errors import Object, StatusError, bad_request, invalid, required

#: Managers by update that are remembered beside each other; older ones are taken together.
MAX_UPDATERS = 10
ANCIENT, BEFORE_APPLY, UNKNOWN = "ancient-changes", "before-first-apply", "unknown"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
#: Longest annotation of the last applied configuration, as annotations of an object may have in all.
_MAX_ANNOTATION = 256 * 1024
#: Fields that nobody owns.
_STRIPPED: Set = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        ".": {},
        "f:clusterName": {},
        "f:creationTimestamp": {},
        "f:deletionTimestamp": {},
        "f:deletionGracePeriodSeconds": {},
        "f:generation": {},
        "f:managedFields": {},
        "f:name": {},
        "f:namespace": {},
        "f:resourceVersion": {},
        "f:selfLink": {},
        "f:uid": {},
    },
}
Entry = dict[str, Any]


def manager_of(field_manager: str, user_agent: str) -> str:
    """Return a request's manager: the one it names, or its program's name."""
    if field_manager:
        return field_manager
    program = "".join(char for char in user_agent.partition("/")[0] if char.isprintable())
    return program.encode()[:128].decode(errors="ignore") or UNKNOWN


def _strip(fields: Set, kind: Kind, subresource: str) -> Set:
    """Take from a set what nobody owns, and what a write of this sort can't set."""
    fields = fieldsets.difference(fields, _STRIPPED)
    if subresource == "status":
        return {
            step: node for step, node in fields.items() if step == "f:status" or (not kind.custom and _labels(step))
        }
    if kind.status and "f:status" in fields:
        fields = {step: node for step, node in fields.items() if step != "f:status"}
    return fields


def _labels(step: str) -> bool:
    # Built-in kinds let labels, annotations and finalizers be changed together with the status.
    return step == "f:metadata"


def empty(kind: Kind) -> Object:
    """Return what there is before an object of a kind is made: in Go's eyes, the fields that can't be missing."""
    if kind.custom:
        return {}
    of = of_kind(kind)
    return {**copy.deepcopy(dict(of.always)), "metadata": {}}


def entries_of(obj: Object) -> list[Entry]:
    """Return an object's entries; none that can't be read."""
    listed = obj.get("metadata", {}).get("managedFields") or ()
    return [one for one in listed if isinstance(one, dict) and isinstance(one.get("fieldsV1"), dict)]


def is_reset(body: Object) -> bool:
    """Whether a body resets its object's entries: with ``[]``, or with one that says nothing."""
    metadata = body.get("metadata")
    entries = metadata.get("managedFields") if isinstance(metadata, dict) else None
    return isinstance(entries, list) and entries in ([], [{}])


def carried_over(new: Object, old: Object | None, subresource: str) -> list[Entry]:
    """Return the entries that an update starts from: those of a body count, for a client may edit them."""
    before = entries_of(old) if old is not None else []
    if old is not None and subresource:
        return before
    entries = entries_of(new)
    if (
        entries != before
        and entries
        and all(one.get("operation") in ("Apply", "Update") and fieldsets.is_set(one["fieldsV1"]) for one in entries)
    ):
        return entries
    return before


def update(
    entries: list[Entry], old: Object | None, new: Object, kind: Kind, manager: str, subresource: str = ""
) -> list[Entry]:
    """Return the entries after an object was changed by anything but an apply.

    :param entries: those of before.
    :param old: the object before, None for a new one.
    """
    if old is not None and not entries:
        # Nobody asked for ownership to be tracked, or somebody asked for the opposite.
        return []
    of = of_kind(kind)
    comparison = fieldsets.compare(empty(kind) if old is None else old, new, of)
    changed = _strip(comparison.changed, kind, subresource)
    result = []
    own: Entry | None = None
    for entry in entries:
        left = fieldsets.difference(entry["fieldsV1"], comparison.changed)
        left = fieldsets.difference(left, comparison.removed)
        mine = (
            entry.get("manager") == manager
            and entry.get("operation") == "Update"
            and entry.get("apiVersion") == kind.api_version
            and entry.get("subresource", "") == subresource
        )
        if mine and changed:
            own = {**entry, "fieldsV1": fieldsets.union(left, changed), "time": now()}
        elif left:
            result.append(entry if left is entry["fieldsV1"] else {**entry, "fieldsV1": left})
    if own is None and changed:
        own = _entry(manager, "Update", kind, subresource, changed)
    if own is not None:
        result.append(own)
    return _sorted(_capped(result))


def _entry(manager: str, operation: str, kind: Kind, subresource: str, fields: Set) -> Entry:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": kind.api_version,
        "time": now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if subresource:
        entry["subresource"] = subresource
    return entry


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    names = ("operation", "time", "manager", "apiVersion", "subresource")
    return sorted(entries, key=lambda entry: tuple(str(entry.get(name, "")) for name in names))


def _capped(entries: list[Entry]) -> list[Entry]:
    updaters = [one for one in entries if one.get("operation") == "Update"]
    surplus = len(updaters) - MAX_UPDATERS
    if surplus <= 0:
        return entries
    # One more goes, for the entry that stands for those that go.
    updaters.sort(key=lambda entry: (entry.get("manager") != ANCIENT, str(entry.get("time", ""))))
    gone = updaters[: surplus + 1]
    by_version: dict[str, list[Entry]] = {}
    for entry in gone:
        by_version.setdefault(str(entry.get("apiVersion")), []).append(entry)
    going = {id(entry) for entry in gone}
    return [*(one for one in entries if id(one) not in going), *map(_ancient, by_version.values())]


def _ancient(entries: list[Entry]) -> Entry:
    """Return the one entry that stands for others of one version."""
    plain = {name: value for name, value in entries[0].items() if name != "subresource"}
    if len(entries) > 1:
        plain["time"] = max(str(entry.get("time", "")) for entry in entries)
    return {**plain, "manager": ANCIENT, "fieldsV1": fieldsets.union_of([entry["fieldsV1"] for entry in entries])}


# -- apply


def check(config: Any, kind: Kind, manager: str) -> None:
    """Check that a configuration can be applied.

    :param manager: the field manager that the client names.
    :raises StatusError: 422 without a manager, 400 for what is no object of the kind, has managedFields, or has lists
        whose items can't be told from each other.
    """
    if not manager:
        cause = required("fieldManager", "is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    if config is None:
        config = {}
    if not isinstance(config, dict):
        what = f"cannot unmarshal {json_type(config)} into Go value of type map[string]interface {{}}"
        text = f"error decoding YAML: error unmarshaling JSON: while decoding JSON: json: {what}"
        raise bad_request(text)
    if (config.get("apiVersion"), config.get("kind")) != (kind.api_version, kind.kind):
        found = [one if isinstance(one, str) else "" for one in (config.get("apiVersion"), config.get("kind"))]
        group_version = found[0] if "/" in found[0] else f"/{found[0]}"
        raise bad_request(f"invalid object type: {group_version}, Kind={found[1]}")
    metadata = config.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    if (metadata or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    found = list(fieldsets.problems(config, of_kind(kind)))
    if found:
        where = f"{(metadata or {}).get('namespace', '')}/{(metadata or {}).get('name', '')}"
        text = found[0] if len(found) == 1 else "errors:\n" + "\n".join(f"  {one}" for one in found)
        version = f"{kind.api_version}, Kind={kind.kind}"
        raise bad_request(f"failed to create typed patch object ({where}; {version}): {text}")


def apply(
    live: Object | None, config: Object, kind: Kind, manager: str, force: bool, subresource: str = ""
) -> tuple[Object, list[Entry]]:
    """Return the object after a configuration was applied, and its entries.

    :param live: the current object, None for a new one.
    :raises StatusError: 409 when others own fields that would change, unless ``force``.
    """
    of = of_kind(kind)
    current = empty(kind) if live is None else live
    entries = entries_of(current)
    if live is not None and not entries:
        entries = update([], None, live, kind, BEFORE_APPLY)
    config = {name: value for name, value in config.items() if name not in ("apiVersion", "kind")}
    if config.get("metadata") is None:
        config.pop("metadata", None)
    try:
        result, managed = _apply(current, config, of, entries, kind, manager, force, subresource)
    except _Conflicts as conflicts:
        if manager != "kubectl" or not _ours(conflicts.fields, live, of):
            raise conflicts.error() from None
        # What kubectl applied on its own side before and nobody changed since is kubectl's to take over.
        result, managed = _apply(current, config, of, entries, kind, manager, True, subresource)
    annotations = (result.get("metadata") or {}).get("annotations") or {}
    if manager == "kubectl" and LAST_APPLIED in annotations:
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, **config}
        text = json.dumps(whole, separators=(",", ":"), sort_keys=True) + "\n"
        noted = {**annotations, LAST_APPLIED: text} if len(text) <= _MAX_ANNOTATION else dict(annotations)
        result = {**result, "metadata": {**result["metadata"], "annotations": noted}}
    return copy.deepcopy(result), managed


class _Conflicts(Exception):
    """Fields that others own."""

    def __init__(self, found: list[tuple[Entry, Set]]) -> None:
        super().__init__()
        self.found = found

    @property
    def fields(self) -> Set:
        result: Set = {}
        for _, fields in self.found:
            result = fieldsets.union(result, fields)
        return result

    def error(self) -> StatusError:
        causes, texts = [], []
        ordered = sorted(self.found, key=lambda one: json.dumps(_identity(one[0])))
        for entry, fields in ordered:
            who = _shown(entry)
            texts.append(f"conflicts with {who}:")
            for path in fieldsets.paths(fields):
                field = fieldsets.show(path)
                causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": field})
                texts.append(f"- {field}")
        if len(causes) == 1:
            message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
        else:
            message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(texts)
        return StatusError(409, "Conflict", message, {"causes": causes})


def _identity(entry: Entry) -> Entry:
    names = ("manager", "operation", "apiVersion", "subresource")
    return {name: entry.get(name, "") for name in names}


def _shown(entry: Entry) -> str:
    text = json.dumps(entry.get("manager", ""))
    if entry.get("subresource"):
        text += f" with subresource {json.dumps(entry['subresource'])}"
    return f"{text} using {entry.get('apiVersion')}" if entry.get("operation") == "Update" else text


def _ours(conflicts: Set, live: Object | None, of: Type) -> bool:
    """Whether conflicts are over fields that still are as kubectl's client-side apply left them."""
    text = ((live or {}).get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        applied = from_json(text) if text else None
    except ValueError:
        return False
    if not isinstance(applied, dict):
        return False
    comparison = fieldsets.compare(applied, live, of)
    untouched = fieldsets.difference(fieldsets.named(applied, of), comparison.modified)
    return not fieldsets.difference(conflicts, untouched)


def _apply(
    live: Object,
    config: Object,
    of: Type,
    entries: list[Entry],
    kind: Kind,
    manager: str,
    force: bool,
    subresource: str,
) -> tuple[Object, list[Entry]]:
    last: Entry | None = None
    others = []
    for entry in entries:
        same = entry.get("manager") == manager and entry.get("subresource", "") == subresource
        if same and entry.get("operation") == "Apply":
            last = entry
        else:
            others.append(entry)
    applied = fieldsets.named(config, of)
    wanted = _strip(applied, kind, subresource)
    merged = fieldsets.merge(live, config, of)
    result = merged
    if last is not None:
        # The name is nobody's, but it keeps the metadata together, also where the configuration leaves it to the URL.
        metadata = {"name": "", **config.get("metadata", {})}
        applied = fieldsets.named({**config, "metadata": metadata}, of)
        result = _pruned(merged, of, last["fieldsV1"], [applied, *(one["fieldsV1"] for one in others)])
    comparison = fieldsets.compare(live, result, of).without(lambda fields: _strip(fields, kind, subresource))
    others = _settled(others, comparison, force)
    mine = _entry(manager, "Apply", kind, subresource, wanted)
    if last is not None and _same(last, mine) and not (comparison.changed or comparison.removed):
        mine = last
    return result, _sorted([*others, mine] if wanted else others)


def _same(one: Entry, other: Entry) -> bool:
    return one["fieldsV1"] == other["fieldsV1"] and one.get("apiVersion") == other.get("apiVersion")


def _settled(others: list[Entry], comparison: Comparison, force: bool) -> list[Entry]:
    changed = comparison.changed
    candidates = [(entry, fieldsets.intersection(entry["fieldsV1"], changed)) for entry in others]
    conflicts = [(entry, fields) for entry, fields in candidates if fields]
    if conflicts and not force:
        raise _Conflicts(conflicts)
    result = []
    for entry, lost in candidates:
        left = fieldsets.difference(fieldsets.difference(entry["fieldsV1"], lost), comparison.removed)
        if left:
            result.append(entry if left is entry["fieldsV1"] else {**entry, "fieldsV1": left})
    return result


def _pruned(merged: Object, of: Type, last: Set, managed: list[Set]) -> Object:
    """Return an object without what a manager applied last time, doesn't any more, and nobody else owns."""
    previous = fieldsets.with_parents(last, of)
    whole = fieldsets.with_parents(fieldsets.named(merged, of), of)
    owned: Set = {}
    for fields in managed:
        owned = fieldsets.union(owned, fields)
    kept = fieldsets.with_parents(fieldsets.named(fieldsets.remove(merged, previous, of), of), of)
    kept = fieldsets.union(kept, fieldsets.with_parents(owned, of))
    pruned = fieldsets.remove(merged, fieldsets.difference(whole, kept), of)
    # What went along with its parent, but was never this manager's, stays.
    left = fieldsets.with_parents(fieldsets.named(pruned, of), of)
    gone = fieldsets.intersection(fieldsets.difference(whole, left), previous)
    result: Object = fieldsets.remove(merged, gone, of) or {}
    return result
