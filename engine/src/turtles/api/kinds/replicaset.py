# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstanceReplicaSet: as many instances of one template as wanted.

Names, rules and messages are those of the KubeVirt API and of its user guide, "VirtualMachineInstanceReplicaSet".
"""

from __future__ import annotations

from typing import Any

from turtles.api.core import CONDITIONS, LABEL_SELECTOR, METADATA
from turtles.api.kind import (
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    Context,
    Kind,
    scale_columns,
    validators,
)
from turtles.api.kinds.vmi.former import of_template
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.kinds.vmi.validation import label_causes, spec_causes, spec_warnings
from turtles.api.language import BOOLEAN, INT32, INVALID, REQUIRED, STRING, Cause, Struct, field, group
from turtles.api.objects import get, is_deleted
from turtles.api.rules import check_metadata, schema_causes
from turtles.api.selectors import choice_causes

_TEMPLATE = "The VirtualMachineInstances to create."

REPLICASET_SPEC = Struct(
    "The instances to create, and how many.",
    field("replicas", INT32, "How many; 1 if not given."),
    field("selector", LABEL_SELECTOR, "Labels of the set's instances, as in the template.", required=True),
    group(
        "template",
        _TEMPLATE,
        field("metadata", METADATA, "Labels and annotations of the instances. Their names begin with its name."),
        field("spec", VMI_SPEC, "The machines' desired state. A change counts for new instances only."),
        required=True,
    ),
    field("paused", BOOLEAN, "Whether instances are neither created nor deleted."),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("replicas", INT32, "How many instances are active: neither at their end nor being deleted."),
    field("readyReplicas", INT32, "How many of them are ready."),
    field("labelSelector", STRING, "The selector as text, for autoscalers."),
    field("conditions", CONDITIONS, "Aspects of the state."),
)


def validate(replicaset: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a replica set, created or updated. One that is being deleted may be anything."""
    if is_deleted(replicaset):
        return []
    spec = get(replicaset, "spec")
    if isinstance(spec, dict) and spec.get("template") is None:
        return [Cause(REQUIRED, "missing virtual machine template.", "spec.template")]
    causes = schema_causes(replicaset, REPLICASET_SPEC)
    template = get(spec, "template")
    if isinstance(template, dict):
        check_metadata(template.get("metadata"), "spec.template.metadata", causes)
        if template.get("spec") is None:
            causes.append(Cause(REQUIRED, "spec.template.spec is a required field", "spec.template.spec"))
    if causes:
        return causes
    assert isinstance(spec, dict)
    if (spec.get("replicas") or 0) < 0:
        message = f"spec.replicas '{spec['replicas']}': must be greater than or equal to 0."
        causes.append(Cause(INVALID, message, "spec.replicas"))
    metadata = spec["template"].get("metadata") or {}
    causes += label_causes(metadata, "spec.template.metadata", context)
    causes += spec_causes(spec["template"]["spec"], "spec.template.spec", context.config)
    causes += choice_causes(spec["selector"], metadata.get("labels") or {}, "spec.selector")
    return causes


def warn(replicaset: Any) -> list[str]:
    """Return the warnings about a replica set that is admitted."""
    return spec_warnings(get(replicaset, "spec", "template", "spec"), "spec.template.spec")


REPLICASET = Kind(
    kind="VirtualMachineInstanceReplicaSet",
    plural="virtualmachineinstancereplicasets",
    short_names=("vmirs", "vmirss"),
    schema=Struct(
        "Keeps a number of instances of one template. Instances that end are replaced.",
        field("spec", REPLICASET_SPEC, "The instances to create, and how many.", required=True),
        field("status", _STATUS, "Observed state."),
    ),
    columns=scale_columns("VirtualMachineInstance"),
    status_subresource=True,
    scale=True,
    rights=MANAGED_BY_USERS,
    webhooks=validators("virtualmachinereplicaset", "/virtualmachinereplicaset-validate"),
    validate=validate,
    warn=warn,
    remedies=of_template,
)

KINDS = (REPLICASET,)
