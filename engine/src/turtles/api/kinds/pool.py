# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachinePool: as many virtual machines of one template as wanted, each with a name and an index that last.

Names, rules and messages are those of the KubeVirt API (pool.kubevirt.io) and of its user guide, "Virtual Machine
Pools".
"""

from __future__ import annotations

import re
from typing import Any

from turtles.api import durations
from turtles.api.core import CONDITIONS, LABEL_SELECTOR, METADATA, REQUIREMENTS
from turtles.api.kind import (
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    Context,
    Kind,
    Version,
    scale_columns,
    validators,
)
from turtles.api.kinds.vm import VM_SPEC, check_template, machine_causes
from turtles.api.kinds.vmi.validation import spec_warnings
from turtles.api.language import (
    BOOLEAN,
    COUNT,
    INT32,
    INT_OR_STRING,
    INVALID,
    POSITIVE,
    REQUIRED,
    STRING,
    Cause,
    Choice,
    Field,
    Struct,
    field,
    group,
)
from turtles.api.objects import get, is_deleted
from turtles.api.rules import Causes, Spec, check_metadata, schema_causes
from turtles.api.selectors import choice_causes

GROUP = "pool.kubevirt.io"

# Sort policies
ASCENDING, DESCENDING, NEWEST, OLDEST, RANDOM = "AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"
# What becomes of the claims that a machine owns
DISABLED, OFFLINE, ONLINE = "Disabled", "Offline", "Online"

_TEMPLATE = "The VirtualMachines to create."
_DIGITS = re.compile(r"[+-]?[0-9]+")
#: Digits of a number that is read.
_LONGEST = 18

# --- fields ----------------------------------------------------------------------------------------------------------


def _way(name: str, doc: str, *fields: Field) -> Field:
    return group(name, doc, *fields)


_STATE_PRESERVATION = field(
    "statePreservation",
    Choice(DISABLED, OFFLINE, ONLINE),
    "Whether claims that a machine owns outlive it and are used again by the next one of its name: Disabled (the "
    "default) or Offline. Online does what Offline does: memory isn't kept.",
    absent=DISABLED,
)
_SELECTION_POLICY = group(
    "selectionPolicy",
    "Which machines it applies to, and in which order.",
    field(
        "sortPolicy",
        Choice(ASCENDING, DESCENDING, NEWEST, OLDEST, RANDOM),
        "By index (AscendingOrder, DescendingOrder), by age (Newest, Oldest) or at Random, the default.",
        absent=RANDOM,
    ),
    group(
        "selectors",
        "Which machines it applies to; all given selectors must match.",
        field("labelSelector", LABEL_SELECTOR, "Labels of a machine's template."),
        field("nodeSelectorRequirementMatcher", REQUIREMENTS, "Requirements on a machine's nodeSelector."),
    ),
)

POOL_SPEC = Struct(
    "The machines to create, and how many.",
    field("replicas", COUNT, "How many; 1 if not given."),
    field("selector", LABEL_SELECTOR, "Labels of the pool's machines. Immutable.", required=True),
    group(
        "virtualMachineTemplate",
        _TEMPLATE,
        field("metadata", METADATA, "Labels and annotations of the machines. Names are the pool's, with an index."),
        field("spec", VM_SPEC, "The machines' desired state."),
        required=True,
    ),
    field("paused", BOOLEAN, "Whether machines are neither created, changed nor deleted."),
    group(
        "nameGeneration",
        "What gets a machine's index appended, besides its own name and those of its DataVolumes.",
        field("appendIndexToConfigMapRefs", BOOLEAN, "Names of ConfigMaps in volumes."),
        field("appendIndexToSecretRefs", BOOLEAN, "Names of Secrets in volumes."),
    ),
    field(
        "maxUnavailable",
        INT_OR_STRING,
        "How many machines, or which part of them, may be unavailable while instances are replaced by an update.",
        absent="100%",
    ),
    group(
        "scaleInStrategy",
        "What happens if there are more machines than wanted; proactive if not given.",
        _way("proactive", "Machines are deleted; the default.", _SELECTION_POLICY, _STATE_PRESERVATION),
        _way("opportunistic", "Machines leave only when others delete them.", _STATE_PRESERVATION),
        _way("unmanaged", "Users delete machines themselves."),
    ),
    group(
        "updateStrategy",
        "How a changed template is applied to the machines; proactive if not given.",
        _way("proactive", "Running instances are replaced; the default.", _SELECTION_POLICY),
        _way("opportunistic", "Machines get it at their next start."),
        _way("unmanaged", "Only new machines get it."),
    ),
    group(
        "autohealing",
        "When a machine that fails to start is replaced. Without it none is.",
        field("startUpFailureThreshold", POSITIVE, "Failures in a row.", absent=3),
        field(
            "minFailingToStartDuration",
            STRING,
            "How long it has been in an error state and not ready, such as 5m.",
            absent="5m",
        ),
    ),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("replicas", INT32, "How many machines there are."),
    field("readyReplicas", INT32, "How many of them are ready."),
    field("labelSelector", STRING, "The selector as text, for autoscalers."),
    field("conditions", CONDITIONS, "Aspects of the state."),
)

# --- validation ------------------------------------------------------------------------------------------------------


def validate(pool: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new pool."""
    spec = get(pool, "spec")
    if isinstance(spec, dict) and spec.get("virtualMachineTemplate") is None:
        return [Cause(REQUIRED, "missing virtual machine template.", "spec.template")]
    causes = schema_causes(pool, POOL_SPEC)
    template = get(spec, "virtualMachineTemplate")
    path = "spec.virtualMachineTemplate"
    if isinstance(template, dict):
        check_metadata(template.get("metadata"), f"{path}.metadata", causes)
        if template.get("spec") is None:
            causes.append(Cause(REQUIRED, f"{path}.spec is a required field", f"{path}.spec"))
        machine = get(template, "spec", "template")
        if isinstance(machine, dict):
            check_template(machine, f"{path}.spec.template", causes)
    if causes:
        return causes
    assert isinstance(spec, dict)
    assert isinstance(template, dict)
    causes += machine_causes(template["spec"], f"{path}.spec", context)
    causes += choice_causes(spec["selector"], (template.get("metadata") or {}).get("labels") or {}, "spec.selector")
    causes += _max_unavailable(spec)
    causes += _autohealing(spec)
    return causes


def validate_update(pool: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with an updated pool. One that is being deleted may be anything."""
    if is_deleted(pool):
        return []
    causes = validate(pool, context)
    before, after = get(old, "spec", "selector"), get(pool, "spec", "selector")
    if LABEL_SELECTOR.canonical(before) != LABEL_SELECTOR.canonical(after):
        causes.append(Cause(INVALID, "selector is immutable after creation.", "spec.selector"))
    return causes


def _max_unavailable(spec: Spec) -> Causes:
    value, here = spec.get("maxUnavailable"), "spec.maxUnavailable"
    if isinstance(value, int) and value <= 0:
        yield Cause(INVALID, "maxUnavailable must be greater than 0", here)
    if not isinstance(value, str):
        return
    if not value.endswith("%"):
        yield Cause(INVALID, "maxUnavailable percentage must end with %", here)
        return
    text = value.removesuffix("%")
    if not _DIGITS.fullmatch(text):
        error = f'strconv.Atoi: parsing "{text}": invalid syntax'
        yield Cause(INVALID, f'maxUnavailable percentage value "{text}" is invalid: {error}', here)
    elif len(text.lstrip("+-0")) > _LONGEST:
        error = f'strconv.Atoi: parsing "{text[:_LONGEST]}…": value out of range'
        yield Cause(INVALID, f'maxUnavailable percentage value "{text[:_LONGEST]}…" is invalid: {error}', here)
    elif not 0 < int(text) <= 100:
        message = f"maxUnavailable percentage value {int(text)} must be between 1 and 100"
        yield Cause(INVALID, message, here)


def _autohealing(spec: Spec) -> Causes:
    text, here = get(spec, "autohealing", "minFailingToStartDuration"), "spec.autohealing.minFailingToStartDuration"
    if text is None:
        return
    try:
        durations.parse(text)
    except durations.DurationError as error:
        yield Cause(INVALID, f"{here}: {error}", here)


def warn(pool: Any) -> list[str]:
    """Return the warnings about a pool that is admitted."""
    strategy = get(pool, "spec", "scaleInStrategy") or {}
    where = "spec.virtualMachineTemplate.spec.template.spec"
    return [
        *spec_warnings(get(pool, *where.split(".")), where),
        *(
            f"spec.scaleInStrategy.{name}.statePreservation: {ONLINE} does what {OFFLINE} does: memory isn't kept"
            for name in ("proactive", "opportunistic")
            if get(strategy, name, "statePreservation") == ONLINE
        ),
    ]


POOL = Kind(
    kind="VirtualMachinePool",
    plural="virtualmachinepools",
    group=GROUP,
    versions=(Version("v1beta1", storage=True), Version("v1alpha1")),
    short_names=("vmpool", "vmpools"),
    schema=Struct(
        "Keeps a number of virtual machines of one template, and rolls out changes of the template.",
        field("spec", POOL_SPEC, "The machines to create, and how many.", required=True),
        field("status", _STATUS, "Observed state."),
    ),
    columns=scale_columns("VirtualMachine"),
    status_subresource=True,
    scale=True,
    rights=MANAGED_BY_USERS,
    webhooks=validators("virtualmachinepool", "/vmpool-validate"),
    validate=validate,
    validate_update=validate_update,
    warn=warn,
)

KINDS = (POOL,)
