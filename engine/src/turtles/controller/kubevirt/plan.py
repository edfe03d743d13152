# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KubeVirt object's status says, and what its deletion asks for. Pure."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from turtles import __version__
from turtles.api import configuration_reader
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.objects import Object, is_deleted
from turtles.controller.kubevirt.health import Component

FINALIZER = "foregroundDeleteKubeVirt"
DEPLOYING, DEPLOYED, DELETING, DELETED = "Deploying", "Deployed", "Deleting", "Deleted"
#: Status, reason and message of the condition Synchronized while nothing was refused.
_SYNCHRONIZED = ("True", "ComponentsArranged", "The components match the object.")


@dataclass(frozen=True)
class Plan:
    """What is to happen: the object as it is to be stored, and whether all machines are to be deleted."""

    kubevirt: Object
    remove_machines: bool = False


def plan(
    kubevirt: Object, components: Sequence[Component], machines: int, image: str, now: str, refusals: Sequence[str] = ()
) -> Plan:
    """Decide what a KubeVirt object needs.

    :param kubevirt: as stored; it is not changed.
    :param components: the parts of the engine as they are.
    :param machines: VirtualMachines and VirtualMachineInstances there are.
    :param image: of launchers.
    :param now: RFC 3339.
    :param refusals: why some components can't be arranged as the object says, in a sentence each.
    """
    wanted: Object = {
        **kubevirt,
        "metadata": dict(kubevirt["metadata"]),
        "status": copy.deepcopy(kubevirt.get("status") or {}),
    }
    metadata, status = wanted["metadata"], wanted["status"]
    finalizers = metadata.get("finalizers") or []
    conditions = conditions_in(status)
    if is_deleted(kubevirt):
        blocked = configuration_reader.from_kubevirt(kubevirt).uninstall_blocked
        message = f"{machines} virtual machines and instances still exist"
        if machines and blocked:
            message += "; delete them, or set spec.uninstallStrategy to RemoveWorkloads"
        status["phase"] = DELETING if machines else DELETED
        for type_, value in (("Available", "False"), ("Progressing", "True"), ("Degraded", "False")):
            set_condition(conditions, type_, value, "DeletionInProgress", message if machines else "", now)
        if not machines:
            metadata["finalizers"] = [name for name in finalizers if name != FINALIZER]
        return Plan(wanted, remove_machines=bool(machines) and not blocked)
    if FINALIZER not in finalizers:
        metadata["finalizers"] = [*finalizers, FINALIZER]
    version, registry = f"v{__version__}", image.rpartition("/")[0]
    status.update(
        operatorVersion=version,
        targetKubeVirtVersion=version,
        targetDeploymentID=image,
        targetKubeVirtRegistry=registry,
        defaultArchitecture=configuration_reader.from_kubevirt(kubevirt).architecture,
        observedGeneration=kubevirt["metadata"].get("generation", 1),
    )
    missing = [component for component in components if not component.complete]
    # Degraded says it too: what else is missing may be so because of it
    missing += [Component("arrangement", True, False, refusal) for refusal in refusals]
    _judge(status, missing, version, now)
    synchronized = ("False", "DeploymentFailed", "; ".join(refusals)) if refusals else _SYNCHRONIZED
    set_condition(conditions, "Synchronized", *synchronized, now)
    if not missing:
        status.update(observedKubeVirtVersion=version, observedDeploymentID=image, observedKubeVirtRegistry=registry)
    return Plan(wanted)


def _judge(status: Object, missing: Sequence[Component], version: str, now: str) -> None:
    """Set phase and conditions."""
    conditions = status["conditions"]
    message = "; ".join(component.message for component in missing)
    if not missing:
        status["phase"] = DEPLOYED
        judgement = [("Available", "True"), ("Progressing", "False"), ("Degraded", "False")]
        reason, message = "AllComponentsReady", "All components are ready."
    elif status.get("phase") != DEPLOYED:
        status["phase"] = DEPLOYING
        judgement = [("Available", "False"), ("Progressing", "True"), ("Degraded", "False")]
        reason, message = "DeploymentInProgress", f"Deploying version {version}: {message}"
    else:
        # A rolling update, or a part that broke: what works goes on working
        working = "True" if all(component.working for component in missing) else "False"
        judgement = [("Available", working), ("Progressing", "True"), ("Degraded", "True")]
        reason = "ComponentsNotReady"
    for type_, value in judgement:
        set_condition(conditions, type_, value, reason, message, now)
    set_condition(conditions, "Created", "True", "AllResourcesCreated", "All resources were created.", now)
