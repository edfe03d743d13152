# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachines and their instances with all that they have from an instance type and a preference."""

from __future__ import annotations

import copy
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kind import Context, Missing
from turtles.api.kinds.instancetype.application import apply_specs, conflict_message, listed
from turtles.api.kinds.instancetype.lookup import find_spec
from turtles.api.kinds.instancetype.matchers import (
    INSTANCETYPE,
    MATCHERS,
    PREFERENCE,
    Find,
    Matcher,
    instance_annotations,
)
from turtles.api.kinds.preference.application import apply_device_preferences
from turtles.api.kinds.preference.requirements import requirement_cause
from turtles.api.kinds.preference.topology import spread_cause
from turtles.api.kinds.vmi.defaults import declare_devices, default_spec
from turtles.api.kinds.vmi.defaults.devices import attach_input_device
from turtles.api.language import Cause
from turtles.api.objects import Object
from turtles.api.rules import Spec

_TEMPLATE = "spec.template.spec"


class Unexpandable(Exception):
    """A VirtualMachine and its instance type don't go together. The message says why."""


def has_matchers(vm: Object) -> bool:
    """Tell whether a VirtualMachine names an instance type or a preference."""
    return any(matcher.of(vm) is not None for matcher in MATCHERS)


def expanded_template(vm: Object, context: Context) -> tuple[Object, list[Cause]]:
    """Return a VirtualMachine's template as its instances are, for validation; or what keeps it from that.

    :param vm: its schema has been checked.
    """
    template = _template(vm)
    # What a machine names may come later: until then it isn't started.
    specs = [_existing(vm, matcher, context.find) for matcher in MATCHERS]
    instancetype, preference = specs
    if cause := spread_cause(instancetype, preference):
        return template, [cause]
    spec, metadata = template["spec"], template["metadata"]
    if causes := apply_specs(instancetype, preference, spec, metadata, _TEMPLATE):
        return template, causes
    complete = copy.deepcopy(spec)
    default_spec(complete, context.config)
    unmet = requirement_cause(instancetype, preference, complete)
    return template, [unmet] if unmet else []


def missing(vm: Object, context: Context) -> list[str]:
    """Return the warnings about what an admitted VirtualMachine names and isn't there."""
    warnings = []
    for matcher in MATCHERS:
        try:
            find_spec(vm, matcher, context.find)
        except Missing as error:
            field = matcher.field
            warnings.append(f"Failure to find {field}: {error}; the machine isn't started before there is one")
    return warnings


def expand(vm: Object, find: Find, config: ClusterConfiguration) -> Object:
    """Return a VirtualMachine that says itself what it has from its instance type and its preference.

    :param vm: its schema has been checked.
    :raises Missing: one of them doesn't exist.
    :raises Unexpandable: it conflicts with its instance type.
    """
    if not has_matchers(vm):
        return vm
    instancetype, preference = (find_spec(vm, matcher, find) for matcher in MATCHERS)
    template = _template(vm)
    declare_devices(template["spec"], config)
    causes = apply_specs(instancetype, preference, template["spec"], template["metadata"], _TEMPLATE)
    if causes:
        raise Unexpandable(conflict_message(listed(causes)))
    default_spec(template["spec"], config)
    spec = {key: value for key, value in vm["spec"].items() if key not in (INSTANCETYPE.field, PREFERENCE.field)}
    return {**vm, "spec": {**spec, "template": template}}


def complete_instance(
    vmi: Object, vm: Object, instancetype: Spec | None, preference: Spec | None, config: ClusterConfiguration
) -> None:
    """Give a new instance of a VirtualMachine, in place, what it has from both.

    :raises Unexpandable: the VirtualMachine conflicts with its instance type.
    """
    spec = vmi["spec"]
    if preference is not None:
        # What is attached automatically depends on them, and what is attached gets them too.
        apply_device_preferences(preference, spec)
    declare_devices(spec, config)
    attach_input_device(spec)
    vmi["metadata"]["annotations"] = {**(vmi["metadata"].get("annotations") or {}), **instance_annotations(vm)}
    if causes := apply_specs(instancetype, preference, spec, vmi["metadata"], "spec"):
        raise Unexpandable(f"VMI conflicts with instancetype spec in fields: [{listed(causes)}]")


def _existing(vm: Object, matcher: Matcher, find: Find) -> Object | None:
    try:
        return find_spec(vm, matcher, find)
    except Missing:
        return None


def _template(vm: Object) -> Object:
    template: Any = copy.deepcopy(vm["spec"]["template"])
    return {**template, "metadata": template.get("metadata") or {}}
