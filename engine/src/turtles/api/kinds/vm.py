# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachine: a machine, and whether it runs.

Rules, defaults and messages are those of the KubeVirt API and of its user guide, "Run strategies".
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from typing import Any

from turtles.api import data_sources, labels
from turtles.api.core import CONDITIONS, FREE, METADATA
from turtles.api.data_volumes import TEMPLATES, namespace_causes, template_causes
from turtles.api.feature_gates import DECENTRALIZED_MIGRATION
from turtles.api.kind import (
    AGE,
    CREATE,
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    UPDATE,
    Column,
    Context,
    Kind,
    Missing,
    Subresource,
    Webhook,
)
from turtles.api.kinds.data_volume.schema import SPEC as DATA_VOLUME_SPEC
from turtles.api.kinds.instancetype import expansion, inference, lookup, matchers
from turtles.api.kinds.preference.application import apply_storage_class
from turtles.api.kinds.vmi.defaults.network import check_default_network
from turtles.api.kinds.vmi.former import of_template
from turtles.api.kinds.vmi.requests import request_causes
from turtles.api.kinds.vmi.rules import compute
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.kinds.vmi.validation import (
    metadata_causes,
    removed_causes,
    sidecar_warnings,
    spec_causes,
    spec_warnings,
)
from turtles.api.language import (
    BOOLEAN,
    INT64,
    INVALID,
    REQUIRED,
    STRING,
    STRING_MAP,
    TIME,
    Cause,
    Choice,
    Struct,
    field,
    group,
    group_list,
)
from turtles.api.objects import Object, add_annotations, add_finalizer, get, is_deleted
from turtles.api.operations import MIGRATION, operation_causes
from turtles.api.rules import Causes, Spec, check_metadata, is_well_formed, schema_causes
from turtles.api.run_strategies import RUN_STRATEGIES, WAIT_AS_RECEIVER

_INSTANCE = "VirtualMachineInstance"
RUNNING_WARNING = "spec.running is deprecated, please use spec.runStrategy instead."

# --- fields ----------------------------------------------------------------------------------------------------------

VM_SPEC = Struct(
    "The machine, and whether it runs.",
    field("running", BOOLEAN, "Deprecated: true means runStrategy Always, false Halted."),
    field("runStrategy", STRING, "Always, RerunOnFailure, Manual, Halted, Once or WaitAsReceiver, if not running."),
    group(
        "template",
        "The VirtualMachineInstance to create.",
        field("metadata", METADATA, "Labels and annotations of the instance."),
        field("spec", VMI_SPEC, "The machine's desired state."),
        required=True,
    ),
    field(
        "dataVolumeTemplates",
        TEMPLATES,
        "DataVolumes to create for the machine, which starts when they are ready and goes with them.",
    ),
    field(
        "instancetype",
        matchers.matcher_schema(matchers.INSTANCETYPE, "The instance type that the machine takes its size from."),
        "The instance type that the machine takes its size from.",
    ),
    field(
        "preference",
        matchers.matcher_schema(matchers.PREFERENCE, "The preference that the machine takes defaults from."),
        "The preference that the machine takes defaults from.",
    ),
    field(
        "updateVolumesStrategy",
        Choice("Replacement", MIGRATION),
        "How a change of volumes is carried out: by the next start (Replacement, the default), or by copying them to "
        "the new ones while the guest runs (Migration), which this engine can't: such a change is refused.",
    ),
)

VM_STATUS = Struct(
    "Whether the machine runs. Written by the engine only.",
    field("created", BOOLEAN, "Whether there is a VirtualMachineInstance."),
    field("ready", BOOLEAN, "Whether it is ready."),
    field("printableStatus", STRING, "The state in one word, for humans."),
    field("conditions", CONDITIONS, "Conditions of the machine."),
    group_list(
        "stateChangeRequests",
        "Starts and stops that were requested.",
        field("action", STRING, "Start or Stop.", required=True),
        field("data", STRING_MAP, "Options of the request: paused."),
        field("uid", STRING, "The VirtualMachineInstance it is for."),
    ),
    group(
        "startFailure",
        "Why the machine isn't restarted immediately.",
        field("consecutiveFailCount", INT64, "Failures in a row."),
        field("lastFailedVMIUID", STRING, "The VirtualMachineInstance that failed last."),
        field("retryAfterTimestamp", TIME, "When it is restarted."),
    ),
    field("runStrategy", STRING, "The run strategy in force when the machine was last started."),
    field("observedGeneration", INT64, "Generation of the template that the instance was created from."),
    field("desiredGeneration", INT64, "Generation of the VirtualMachine."),
    field("snapshotInProgress", STRING, "Snapshot in progress."),
    field("restoreInProgress", STRING, "Restore in progress."),
    field("volumeRequests", FREE, "Volumes to add or remove."),
    field("volumeSnapshotStatuses", FREE, "Whether snapshots can be made of volumes."),
    field("volumeUpdateState", FREE, "Volumes being replaced."),
    field("memoryDumpRequest", FREE, "Memory dump that was requested."),
    field("changedBlockTracking", FREE, "Details of changed block tracking."),
    field("instancetypeRef", matchers.REFERENCE, "The instance type in use."),
    field("preferenceRef", matchers.REFERENCE, "The preference in use."),
)

_SCHEMA = Struct(
    "A machine, and whether it runs. It outlives its VirtualMachineInstances.",
    field("spec", VM_SPEC, "The machine, and whether it runs.", required=True),
    field("status", VM_STATUS, "Whether the machine runs."),
)

# --- defaults --------------------------------------------------------------------------------------------------------


def default(
    vm: Object, context: Context = DEFAULT_CONTEXT, random_uuid: Callable[[], str] = lambda: str(uuid.uuid4())
) -> Object:
    """Return a new VirtualMachine with its machine type and, for life, an identity of its firmware.

    It has the finalizer and the annotations of its controller from the start, which then needn't add them.

    :raises Refusal: a volume is to name its instance type or its preference, and doesn't.
    """
    if is_deleted(vm) or not is_well_formed(vm, VM_SPEC):
        return vm
    vm = _stored(vm)
    inference.default_matchers(vm, context.find)
    _default_by_preference(vm, context)
    add_finalizer(vm, labels.VM_FINALIZER)
    add_annotations(vm, labels.OBSERVED_VERSIONS)
    return _default_domain(vm, {"uuid": random_uuid(), "serial": random_uuid()}, context)


def default_update(vm: Object, old: Object, context: Context = DEFAULT_CONTEXT) -> Object:
    """Return an updated VirtualMachine with its machine type. An update without the firmware's identity keeps it.

    :raises Refusal: as for a new one.
    """
    if is_deleted(vm) or not is_well_formed(vm, VM_SPEC) or not is_well_formed(old, VM_SPEC):
        return vm
    vm = _stored(vm)
    inference.default_matchers(vm, context.find)
    _default_by_preference(vm, context)
    return _default_domain(vm, get(_domain_of(old), "firmware") or {}, context)


def _stored(vm: Object) -> Object:
    """Return a well-formed VirtualMachine with its quantities as they are stored."""
    vm = copy.deepcopy(vm)
    vm["spec"] = VM_SPEC.stored(vm["spec"])
    for template in vm["spec"].get("dataVolumeTemplates") or ():
        if not schema_causes(template, DATA_VOLUME_SPEC):
            template["spec"] = DATA_VOLUME_SPEC.stored(template["spec"])
    return vm


def _default_domain(vm: Object, identity: Object, context: Context) -> Object:
    domain = _domain_of(vm)
    if domain is None:
        return vm
    spec = vm["spec"]["template"]["spec"]
    if not spec.get("architecture"):
        spec["architecture"] = _architecture_of_disks(vm, context) or context.config.architecture
    if not (domain.get("machine") or {}).get("type"):
        domain["machine"] = {
            **(domain.get("machine") or {}),
            "type": context.config.machine_type_of(spec["architecture"]),
        }
    domain["resources"] = domain.get("resources") or {}
    firmware = dict(domain.get("firmware") or {})
    for key in ("uuid", "serial"):
        if not firmware.get(key) and identity.get(key):
            firmware[key] = identity[key]
    if firmware:
        domain["firmware"] = firmware
    return vm


def _architecture_of_disks(vm: Object, context: Context) -> str | None:
    def find(namespace: str, name: str) -> Object:
        return context.find(data_sources.KIND, namespace, name)

    templates = vm["spec"].get("dataVolumeTemplates") or ()
    return data_sources.architecture(templates, get(vm, "metadata", "namespace") or "", find)


def _default_by_preference(vm: Object, context: Context) -> None:
    """Set what a VirtualMachine's preference has and otherwise the configuration chooses. Instances get the rest."""
    try:
        preference = lookup.find_spec(vm, matchers.PREFERENCE, context.find)
    except Missing:
        return  # for validation to say
    domain = _domain_of(vm)
    if preference is None or domain is None:
        return
    apply_storage_class(preference, vm["spec"].get("dataVolumeTemplates") or ())
    spec = vm["spec"]["template"]["spec"]
    if not spec.get("architecture") and (architecture := preference.get("preferredArchitecture")):
        spec["architecture"] = architecture
    machine_type = get(preference, "machine", "preferredMachineType")
    if machine_type and not get(domain, "machine", "type"):
        domain["machine"] = {**(domain.get("machine") or {}), "type": machine_type}


def _domain_of(vm: Object) -> Object | None:
    domain = get(vm, "spec", "template", "spec", "domain")
    return domain if isinstance(domain, dict) else None


# --- validation ------------------------------------------------------------------------------------------------------


def validate(vm: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a VirtualMachine, created or updated. One that is being deleted may be anything.

    :raises Refusal: the interface that its instances would get isn't allowed.
    """
    if is_deleted(vm):
        return []
    vm_spec = get(vm, "spec")
    if isinstance(vm_spec, dict) and vm_spec.get("template") is None:
        return [Cause(REQUIRED, "missing virtual machine template.", "spec.template")]
    causes = schema_causes(vm, VM_SPEC)
    if not causes and (wrong := matchers.matcher_causes(vm)):
        return wrong
    if isinstance(vm_spec, dict) and isinstance(vm_spec.get("template"), dict):
        check_template(vm_spec["template"], "spec.template", causes)
    if causes:
        return causes
    assert isinstance(vm_spec, dict)
    spec = vm_spec
    if removed := [*removed_causes(spec["template"]["spec"], context.config)]:
        return removed
    if expansion.has_matchers(vm):
        template, causes = expansion.expanded_template(vm, context)
        if not causes:
            VMI_SPEC.check(template["spec"], "spec.template.spec", causes)
        if causes:
            return causes
        spec = {**vm_spec, "template": template}
    check_default_network(spec["template"]["spec"], context.config)
    causes += machine_causes(spec, "spec", context)
    causes += compute.live_update(spec["template"]["spec"], "spec.template.spec", context.config)
    if causes:
        return causes
    return [*namespace_causes(vm_spec, get(vm, "metadata", "namespace") or "")]


def validate_update(vm: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with an updated VirtualMachine. One that is being deleted may be anything."""
    if is_deleted(vm):
        return []
    if causes := validate(vm, context) or [*operation_causes(vm, old)] or _request_causes(vm, context):
        return causes
    return matchers.matcher_update_causes(vm, old) if isinstance(old, dict) else []


def validate_status(vm: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a VirtualMachine whose status has been changed, not by the engine."""
    if is_deleted(vm) or not is_well_formed(vm, VM_SPEC) or not get(vm, "spec", "template", "spec"):
        return []
    return _request_causes(vm, context) or [*operation_causes(vm, old)]


def _request_causes(vm: Object, context: Context) -> list[Cause]:
    def instance() -> Object | None:
        metadata = vm.get("metadata") or {}
        try:
            return context.find(_INSTANCE, metadata.get("namespace") or "", metadata.get("name") or "")
        except Missing:
            return None

    return request_causes(vm, context.config, instance)


def check_template(template: Spec, path: str, causes: list[Cause]) -> None:
    """Append to `causes` what is wrong with the shape of the template at `path`, besides what its schema says."""
    check_metadata(template.get("metadata"), f"{path}.metadata", causes)
    if template.get("spec") is None:
        causes.append(Cause(REQUIRED, f"{path}.spec is a required field", f"{path}.spec"))


def machine_causes(spec: Spec, path: str, context: Context) -> Causes:
    """Return what is wrong with the spec at `path` of a VirtualMachine or a template of one.

    :param spec: its shape has been checked, and that of its template.
    """
    template = spec["template"]
    yield from metadata_causes(template.get("metadata") or {}, f"{path}.template.metadata", context)
    yield from spec_causes(template["spec"], f"{path}.template.spec", context.config)
    yield from template_causes(spec, path)
    yield from _run_strategy(spec, path, context)


def warn(vm: Object) -> list[str]:
    """Return the warnings about a VirtualMachine that is admitted."""
    warnings = [RUNNING_WARNING] if get(vm, "spec", "running") is not None else []
    spec = get(vm, "spec", "template", "spec")
    if not isinstance(spec, dict):
        return warnings
    if get(vm, "spec", "instancetype") is None:
        # The instance is refused: by then something else may have said how much
        warnings += [
            f"{cause.message}; its instance is refused unless a preset says how much"
            for cause in compute.no_memory(spec, "spec.template.spec")
        ]
    return [
        *warnings,
        *spec_warnings(spec, "spec.template.spec"),
        *sidecar_warnings(get(vm, "spec", "template", "metadata"), "spec.template.metadata"),
    ]


def _run_strategy(spec: Spec, path: str, context: Context) -> Causes:
    running, strategy = spec.get("running"), spec.get("runStrategy")
    if running is not None and strategy is not None:
        message = (
            "Running and RunStrategy are mutually exclusive. "
            "Note that Running is deprecated, please use RunStrategy instead"
        )
        yield Cause(INVALID, message, f"{path}.running")
    if running is None and strategy is None:
        yield Cause(INVALID, "RunStrategy must be specified", f"{path}.running")
    if strategy == WAIT_AS_RECEIVER and not context.config.has_gate(DECENTRALIZED_MIGRATION):
        message = (
            f"Invalid RunStrategy ({strategy}), {DECENTRALIZED_MIGRATION} feature gate is not enabled in kubevirt "
            "resource"
        )
        yield Cause(INVALID, message, f"{path}.runStrategy")
    elif strategy is not None and strategy not in (*RUN_STRATEGIES, WAIT_AS_RECEIVER):
        yield Cause(INVALID, f"Invalid RunStrategy ({strategy})", f"{path}.runStrategy")


VM = Kind(
    kind="VirtualMachine",
    plural="virtualmachines",
    short_names=("vm", "vms"),
    schema=_SCHEMA,
    columns=(
        AGE,
        Column("Status", "string", ".status.printableStatus", description="Human Readable Status"),
        Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    subresources=(
        Subresource("start", handler="start_vm"),
        Subresource("stop", handler="stop_vm"),
        Subresource("restart", handler="restart_vm"),
        Subresource("migrate", handler="migrate_vm", roles=("migrate",)),
        Subresource("addvolume", handler="add_volume_vm"),
        Subresource("removevolume", handler="remove_volume_vm"),
        Subresource("memorydump", handler="memory_dump_vm"),
        Subresource("removememorydump", handler="remove_memory_dump_vm"),
        Subresource("evacuate/cancel", handler="cancel_evacuation_vm", code=200),
        Subresource("objectgraph", handler="object_graph_vm", verb="get", code=200, body=True),
        Subresource("portforward", handler="port_forward_vm", verb="get", stream=True, path=True),
        Subresource(
            "expand-spec", handler="expand_vm", verb="get", code=200, body=True, roles=("admin", "edit", "view")
        ),
    ),
    webhooks=(
        Webhook("virtualmachines-mutator", "/virtualmachines-mutate", (CREATE,), mutating=True),
        Webhook("virtualmachines-update-mutator", "/virtualmachines-mutate", (UPDATE,), mutating=True),
        Webhook("virtualmachine-validator", "/virtualmachines-validate", (CREATE,)),
        Webhook("virtualmachine-update-validator", "/virtualmachines-validate", (UPDATE,)),
        Webhook("kubevirt-crd-status-validator", "/status-validate", (UPDATE,), status=True),
    ),
    looks_up=(*matchers.LOOKED_UP, _INSTANCE),
    default=default,
    default_update=default_update,
    validate=validate,
    validate_update=validate_update,
    validate_status=validate_status,
    warn=warn,
    missing=expansion.missing,
    remedies=of_template,
)

KINDS = (VM,)
