# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineClone: a copy of a machine, or of a snapshot of one, with an identity of its own.

Names, rules and phases are those of the KubeVirt API and of its user guide, "Clone API".
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from turtles.api.clones import GROUP, SNAPSHOT, VM
from turtles.api.core import CONDITIONS
from turtles.api.kind import (
    CREATE,
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    Column,
    Context,
    Kind,
    Version,
    Webhook,
    validators,
)
from turtles.api.language import INVALID, NOT_SUPPORTED, STRING, STRING_MAP, STRINGS, TIME, Cause, Struct, field, group
from turtles.api.objects import Object, get
from turtles.api.rules import Causes, is_well_formed, schema_causes
from turtles.api.snapshots import PREFIX_TARGET_NAME, RANDOMIZE_NAMES

_MAC = re.compile(
    r"[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(\1[0-9A-Fa-f]{2}){4}|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}"
)
_FILTERS = (
    "Which {} the copy has: keys, of which the last character may be `*` for any end, with `!` in front those that it "
    "hasn't. All without."
)


def _reference(doc: str, kinds: str) -> Struct:
    return Struct(
        doc,
        field("apiGroup", STRING, "The group of the kind."),
        field("kind", STRING, kinds, required=True),
        field("name", STRING, "Its name.", required=True),
    )


_SPEC = Struct(
    "What to clone, and how the clone differs.",
    field(
        "source",
        _reference("The machine or snapshot to clone.", "VirtualMachine or VirtualMachineSnapshot."),
        "The machine or snapshot to clone.",
        required=True,
    ),
    field(
        "target",
        _reference("The copy.", "VirtualMachine."),
        "The clone, which must not exist yet; by default its name is derived from the source's.",
    ),
    field("labelFilters", STRINGS, _FILTERS.format("labels")),
    field("annotationFilters", STRINGS, _FILTERS.format("annotations")),
    group(
        "template",
        "The same filters for the template, and so for the clone's instances.",
        field("labelFilters", STRINGS, _FILTERS.format("labels")),
        field("annotationFilters", STRINGS, _FILTERS.format("annotations")),
    ),
    field("newMacAddresses", STRING_MAP, "MAC addresses by interface; others are generated."),
    field("newSMBiosSerial", STRING, "Serial number of the clone's firmware; generated if not given."),
    field("patches", STRINGS, "JSON patches (RFC 6902), each one operation as text, of the copy's spec."),
    field(
        "volumeNamePolicy",
        STRING,
        "How the copy's claims are called: by a name of their own (RandomizeNames, the default), or by machine and "
        "volume (PrefixTargetName).",
        absent=RANDOMIZE_NAMES,
    ),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("phase", STRING, "SnapshotInProgress, RestoreInProgress, Succeeded or Failed."),
    field("conditions", CONDITIONS, "Ready and Progressing."),
    field("creationTime", TIME, "When the copy was there."),
    field("snapshotName", STRING, "The intermediate snapshot."),
    field("restoreName", STRING, "The restore of it."),
    field("targetName", STRING, "The copy."),
)


def default(
    clone: Object, context: Context = DEFAULT_CONTEXT, random: Callable[[], str] = lambda: uuid.uuid4().hex[:5]
) -> Object:
    """Return a new clone with the name of the copy."""
    if not is_well_formed(clone, _SPEC) or get(clone, "spec", "target", "name"):
        return clone
    clone = copy.deepcopy(clone)
    group, kind = VM
    target = clone["spec"].get("target") or {"apiGroup": group, "kind": kind}
    clone["spec"]["target"] = {**target, "name": f"clone-{clone['spec']['source']['name'][:50]}-{random()}"}
    return clone


def validate(clone: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new clone."""
    if causes := schema_causes(clone, _SPEC):
        return causes
    spec = clone["spec"]
    for path, holder in (("spec", spec), ("spec.template", spec.get("template") or {})):
        for name, of in (("annotationFilters", "annotations"), ("labelFilters", "labels")):
            causes += _filters(holder.get(name) or (), f"{path}.{of}")
    causes += [*_kinds(spec), *_source(spec["source"]), *_target(spec)]
    for interface, mac in (spec.get("newMacAddresses") or {}).items():
        if mac and not _MAC.fullmatch(mac):
            message = f"interface {interface} has malformed MAC address ({mac})."
            causes.append(Cause(INVALID, message, f"spec.newMacAddresses.{interface}"))
    causes += _patches(spec)
    policy = spec.get("volumeNamePolicy")
    if policy is not None and policy not in (RANDOMIZE_NAMES, PREFIX_TARGET_NAME):
        message = f'VolumeNamePolicy "{policy}" is not supported'
        causes.append(Cause(NOT_SUPPORTED, message, "spec.volumeNamePolicy"))
    return causes


def _filters(filters: Iterable[str], path: str) -> Causes:
    for text in filters:
        if text == "!":
            yield Cause(INVALID, "a negation character is not a valid filter", path)
        if not text:
            yield Cause(INVALID, f"{path} filter is empty", path)
        for part, what, rule in (
            (text[1:], "negation character (!)", "NegationChar can be only used at the beginning of the filter"),
            (text[:-1], "wildcard character (*)", "WildcardChar can be only at the end of the filter"),
        ):
            if what[-2] in part:
                message = f"{path} filter {text} is invalid: cannot contain a {what}; FilterRules: {rule}"
                yield Cause(INVALID, message, path)


def _patches(spec: Object) -> Causes:
    """Refuse patches that can't be read. What they may change is judged of the restore that does it."""
    for index, text in enumerate(spec.get("patches") or ()):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            yield Cause(INVALID, f"patch is not valid JSON ({text})", f"spec.patches[{index}]")


def _kinds(spec: Object) -> Causes:
    if spec["source"]["kind"] not in (VM[1], SNAPSHOT[1]):
        yield Cause(INVALID, "Source kind is not supported", "spec.Source.Kind")
    if spec.get("target") is not None and spec["target"]["kind"] != VM[1]:
        yield Cause(INVALID, "Target kind is not supported", "spec.Target.Kind")


def _source(source: Object) -> Causes:
    if not source.get("apiGroup"):
        yield Cause(INVALID, "Source's APIGroup cannot be empty", "spec.Source.APIGroup")
    if not source["kind"]:
        yield Cause(INVALID, "Source's Kind cannot be empty", "spec.Source")
    if not source["name"]:
        yield Cause(INVALID, "Source's name cannot be empty", "spec.Source.Name")


def _target(spec: Object) -> Causes:
    source, target = spec["source"], spec.get("target")
    if target is not None and (source["kind"], target["kind"], target["name"]) == (VM[1], VM[1], source["name"]):
        yield Cause(
            INVALID, "Target name cannot be equal to source name when both are VirtualMachines", "spec.target.name"
        )


def validate_update(clone: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with an update: the spec is what the clone was created for."""
    if get(clone, "metadata", "deletionTimestamp") or get(clone, "spec") == get(old, "spec"):
        return []
    return [Cause(INVALID, "VirtualMachineClone spec is immutable", "spec")]


CLONE = Kind(
    kind="VirtualMachineClone",
    plural="virtualmachineclones",
    group=GROUP,
    versions=(
        Version("v1beta1", storage=True),
        Version(
            "v1alpha1",
            deprecation_warning="clone.kubevirt.io/v1alpha1 is now deprecated and will be removed in a future release.",
        ),
    ),
    short_names=("vmclone", "vmclones"),
    schema=Struct(
        "A copy of a machine.",
        field("spec", _SPEC, "What to clone, and how the clone differs.", required=True),
        field("status", _STATUS, "Observed state. Only written by the engine."),
    ),
    columns=(
        Column("Phase", "string", ".status.phase"),
        Column("SourceVirtualMachine", "string", ".spec.source.name"),
        Column("TargetVirtualMachine", "string", ".spec.target.name"),
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=(
        Webhook("vmclones-mutator", "/vm-clone-mutate-create", (CREATE,), mutating=True),
        *validators("vm-clone", "/vm-clone-validate"),
    ),
    default=default,
    validate=validate,
    validate_update=validate_update,
)

KINDS = (CLONE,)
