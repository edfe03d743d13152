# SPDX-License-Identifier: GPL-3.0-or-later
"""On which nodes a guest can run, in addition to what its user says. Pure.

The rules are KubeVirt's (user guide, "Virtual hardware"): nodes carry labels for the machine types, CPU models and
features they have.
"""

import copy
from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object

#: CPU models that are no names.
_HOST_MODELS = ("", "host-model", "host-passthrough")
#: Policies of CPU features without which the guest doesn't start (libvirt, domain XML, "CPU model and topology").
_NEEDED = ("", "require")


def machine_selector(spec: Mapping[str, Any], *, kvm: bool) -> dict[str, str]:
    """Return the labels a node must have: the machine type and, where the guest isn't emulated, CPU model and features.

    An emulator leaves out of a CPU what it can't do, wherever it runs.
    """
    domain = spec.get("domain") or {}
    machine = (domain.get("machine") or {}).get("type") or "q35"
    selector = {f"{labels.MACHINE_TYPE_PREFIX}{machine}": "true"}
    cpu = domain.get("cpu") or {}
    if cpu.get("dedicatedCpuPlacement"):
        selector[labels.CPU_MANAGER[0]] = "true"
    if cpu.get("realtime") is not None:
        selector[labels.REALTIME] = "true"
    security = domain.get("launchSecurity") or {}
    if (sev := security.get("sev")) is not None:
        encrypted_state = (sev.get("policy") or {}).get("encryptedState")
        selector[labels.SEV_ES if encrypted_state else labels.SEV] = "true"
    if security.get("snp") is not None:
        selector[labels.SEV_SNP] = "true"
    if not kvm:
        return selector
    if (model := cpu.get("model") or "") not in _HOST_MODELS:
        selector[f"{labels.CPU_MODEL_PREFIX}{model}"] = "true"
    for feature in cpu.get("features") or ():
        if (feature.get("policy") or "") in _NEEDED:
            selector[f"{labels.CPU_FEATURE_PREFIX}{feature['name']}"] = "true"
    return selector


def affinity(spec: Mapping[str, Any], *, kvm: bool) -> Object:
    """Return the Pod's affinity: the VMI's own and, for the CPU model host-model, no node whose own is obsolete."""
    wanted: Object = copy.deepcopy(dict(spec.get("affinity") or {}))
    model = ((spec.get("domain") or {}).get("cpu") or {}).get("model") or "host-model"
    if not kvm or model != "host-model":
        return wanted
    expression = {"key": labels.OBSOLETE_HOST_MODEL, "operator": "DoesNotExist"}
    node = wanted.setdefault("nodeAffinity", {})
    required = node.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.setdefault("nodeSelectorTerms", [])
    if not terms:
        terms.append({})
    for term in terms:  # any one of them may decide
        term["matchExpressions"] = [*(term.get("matchExpressions") or ()), expression]
    return wanted
