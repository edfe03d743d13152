# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod that a guest migrates to. Pure."""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

from turtles.api import labels, migrations
from turtles.api.objects import Object
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod, pod_name

_LONGEST = 253
#: CPU models that stand for the node's own.
_HOST_MODELS = ("", "host-model")


def target_name(vmi: Object, migration: Object) -> str:
    """Return the name of a migration's Pod: always the same one, so that creating twice makes one Pod."""
    suffix = hashlib.sha256(migration["metadata"]["uid"].encode()).hexdigest()[:5]
    return f"{pod_name(vmi)[: _LONGEST - 6].rstrip('-.')}-{suffix}"


def target_pod(vmi: Object, migration: Object, config: LauncherConfig, source: Mapping[str, Any] | None) -> Object:
    """Return the Pod for the guest of a VMI on another node than its own.

    :param source: the Node that the guest is on; None if it isn't known.
    """
    pod = launcher_pod(vmi, config)
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["name"] = target_name(vmi, migration)
    metadata["labels"] = {
        **{name: value for name, value in metadata["labels"].items() if name not in _OF_SOURCE},
        labels.MIGRATION_JOB_UID: migration["metadata"]["uid"],
    }
    metadata["annotations"] = {**metadata["annotations"], migrations.JOB_NAME: migration["metadata"]["name"]}
    spec["nodeSelector"] = {
        **spec["nodeSelector"],
        **(_processor(vmi, source) if config.kvm else {}),
        **(migration["spec"].get("addedNodeSelector") or {}),
    }
    spec["affinity"] = _elsewhere(spec.get("affinity") or {}, vmi["status"]["nodeName"])
    return pod


#: Labels of a VMI that are about where it is, and so not about where it goes.
_OF_SOURCE = (labels.NODE_NAME, labels.MIGRATION_TARGET_NODE_NAME, labels.OUTDATED_LAUNCHER)


def _processor(vmi: Mapping[str, Any], source: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the labels of nodes whose processors can do what the guest's can, which are those of its node."""
    model = (vmi["spec"]["domain"].get("cpu") or {}).get("model") or ""
    if model not in _HOST_MODELS or source is None:
        return {}
    selector = {}
    for name in source["metadata"].get("labels") or {}:
        for prefix, wanted in (
            (labels.HOST_MODEL_CPU_PREFIX, labels.CPU_MODEL_MIGRATION_PREFIX),
            (labels.HOST_MODEL_REQUIRED_FEATURES_PREFIX, labels.CPU_FEATURE_PREFIX),
        ):
            if name.startswith(prefix):
                selector[wanted + name.removeprefix(prefix)] = "true"
    return selector


def _elsewhere(affinity: Mapping[str, Any], node: str) -> Object:
    """Return an affinity that keeps a Pod away from a node."""
    wanted: Object = copy.deepcopy(dict(affinity))
    expression = {"key": "metadata.name", "operator": "NotIn", "values": [node]}
    required = wanted.setdefault("nodeAffinity", {}).setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.setdefault("nodeSelectorTerms", [])
    if not terms:
        terms.append({})
    for term in terms:  # any one of them may decide
        term["matchFields"] = [*(term.get("matchFields") or ()), expression]
    return wanted
