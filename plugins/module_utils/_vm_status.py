# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the status of a VirtualMachine and of its instance means."""

from __future__ import annotations

from . import _diagnosis, _merge, _resources
from ._values import is_number
from ._wait import condition, is_true

VM = _resources.known("kubevirt.io/v1", "VirtualMachine")
VMI = _resources.known("kubevirt.io/v1", "VirtualMachineInstance")

FINAL_PHASES = ("Succeeded", "Failed")

# States of a VirtualMachine (status.printableStatus) that don't cure themselves, and the seconds each is given all the
# same: the first attempt at an image may fail on a busy registry, a claim may still be on its way.
# ErrorUnschedulable isn't among them: a cluster may grow a node.
_HOPELESS = {
    "CrashLoopBackOff": 0,
    "ImagePullBackOff": 0,
    "ErrImagePull": 15,
    "ErrorPvcNotFound": 10,
    "DataVolumeError": 30,
}
_FAILURE_GRACE = 10
# Seconds for the controller to replace what the status says of an instance that is gone, or of an earlier declaration.
_STALE_GRACE = 30
# Seconds by which the status may be behind an instance that has just appeared.
_LAG = 2
# Annotation of an instance: the generation of the VirtualMachine it was made from (KubeVirt API).
STARTED_FROM = "kubevirt.io/vm-generation"
# What printableStatus repeats of the instance's condition Synchronized -> the reasons there.
_OF_INSTANCE = {
    "ImagePullBackOff": ("ImagePullBackOff", "ErrImagePull"),
    "ErrImagePull": ("ImagePullBackOff", "ErrImagePull"),
    "ErrorPvcNotFound": ("FailedPvcNotFound",),
}


def printable_status(vm):
    """Return status.printableStatus; "" where there is none."""
    return ((vm or {}).get("status") or {}).get("printableStatus") or ""


def is_ready(vm):
    """Return whether the VM's guest runs and its probes succeed."""
    return bool(vm) and condition(vm, "Ready").get("status") == "True"


def is_stopped(vm):
    """Return whether no guest of the VM runs or is about to."""
    if not vm:
        return True
    ready = condition(vm, "Ready")
    return printable_status(vm) == "Stopped" or (
        ready.get("status") == "False" and ready.get("reason") == "VMINotExists" and not printable_status(vm)
    )


def is_troubled(vm):
    """Return whether the status says that something is wrong for good; for hopeless() the instance counts then."""
    return printable_status(vm) in _HOPELESS or condition(vm, "Failure").get("status") == "True"


def hopeless(vm, vmi=None, former=None):
    """Return {reason: grace in seconds} of a VM that should be coming up but won't.

    What the status says counts at once only if it is about the present declaration and the present instance.

    :param vmi: its instance, or None.
    :param former: uid of an instance that was replaced, or None.
    """
    if _is_unseen(vm):
        return {}
    reasons = {}
    status = printable_status(vm)
    if status in _HOPELESS and not _is_of_earlier_declaration(vm, vmi):
        grace = _LAG if vmi and _is_of_earlier_declaration(vm, None) else 0
        if former and _is_of_earlier_instance(vm, vmi, former):
            grace = _STALE_GRACE
        reasons[status] = max(_HOPELESS[status], grace)
    failure = condition(vm, "Failure")
    # While another instance is coming up, it is still what ended the one before it.
    if failure.get("status") == "True" and not is_active(vmi):
        reasons["%s: %s" % (failure.get("reason"), failure.get("message"))] = _FAILURE_GRACE
    return reasons


def _is_unseen(vm):
    """Return whether the controller hasn't seen the present declaration yet (status.desiredGeneration says so)."""
    desired = (vm.get("status") or {}).get("desiredGeneration")
    return bool(desired) and desired < _generation(vm)


def _is_of_earlier_declaration(vm, vmi):
    """Return whether the last instance was made from an earlier declaration, and the next one hasn't been tried yet."""
    observed = (vm.get("status") or {}).get("observedGeneration") or 0
    return not vmi and 0 < observed < _generation(vm)


def _is_of_earlier_instance(vm, vmi, former):
    """Return whether printableStatus may still be about the instance with the uid former."""
    if not vmi:
        return not (vm.get("status") or {}).get("observedGeneration")
    if vmi["metadata"].get("uid") == former:
        return True
    reasons = _OF_INSTANCE.get(printable_status(vm))
    return bool(reasons) and condition(vmi, "Synchronized").get("reason") not in reasons


def _generation(vm):
    return vm["metadata"].get("generation") or 0


def has_run(vmi):
    """Return whether the guest of an instance runs or has run."""
    status = vmi.get("status") or {}
    phases = {entry.get("phase") for entry in status.get("phaseTransitionTimestamps") or []}
    return bool({status.get("phase"), *phases} & {"Running", *FINAL_PHASES})


def is_outdated(vm, vmi):
    """Return whether an instance was made from a template that isn't the present one."""
    started = (vmi["metadata"].get("annotations") or {}).get(STARTED_FROM) or ""
    if is_number(started) and int(started) >= _generation(vm):
        return False
    if is_true(vm, "RestartRequired"):
        return True
    if not is_number(started):
        return False
    # The server adds defaults to an instance, but changes nothing that the template says.
    template = (vm["spec"].get("template") or {}).get("spec") or {}
    spec = vmi.get("spec") or {}
    return bool(_merge.merge_patch(spec, _merge.overlay(spec, template)))


def phase_of(obj):
    """Return the phase of an object, empty where it has none, or there is no object."""
    return ((obj or {}).get("status") or {}).get("phase") or ""


def node_of(vmi):
    """Return the name of the node that an instance runs on, empty if it is on none."""
    return ((vmi or {}).get("status") or {}).get("nodeName") or ""


def is_active(vmi):
    """Return whether an instance (or None) runs or is about to."""
    if not vmi or vmi["metadata"].get("deletionTimestamp"):
        return False
    return not is_final(vmi)


def is_leaving(vmi):
    """Return whether an instance (or None) is being shut down."""
    return bool(vmi and vmi["metadata"].get("deletionTimestamp") and not is_final(vmi))


def is_final(vmi):
    """Return whether an instance has ended for good."""
    return (vmi.get("status") or {}).get("phase") in FINAL_PHASES


def diagnose(client, namespace, name, renewed=False):
    """Return what is known about why a VM isn't where it should be: sentences, and the facts behind them.

    Never raises KubeError: a diagnosis mustn't hide the failure it explains.

    :param renewed: the task has replaced the instance, so what was wrong with the former one doesn't count.
    """
    troubles, facts = [], {}
    vm = _diagnosis.quietly(lambda: client.get(_resources.path(VM, namespace, name)))
    vmi = _diagnosis.quietly(lambda: client.get(_resources.path(VMI, namespace, name)))
    # created-by is on the Pods of every KubeVirt version, the id only on those of newer ones.
    selector = "vmi.kubevirt.io/id=%s" % name
    if vmi:
        selector = "kubevirt.io/created-by=%s" % vmi["metadata"].get("uid")
    where = _resources.path(_diagnosis.POD, namespace)
    pods = _diagnosis.quietly(lambda: client.list(where, label_selector=selector)[0]) or []
    if vm:
        status = vm.get("status") or {}
        facts["printable_status"] = printable_status(vm)
        facts["conditions"] = status.get("conditions") or []
        troubles.append("printableStatus is %s" % (printable_status(vm) or "not set yet: is virt-controller running?"))
        failures = (status.get("startFailure") or {}).get("consecutiveFailCount")
        if failures:
            troubles.append("%d starts have failed in a row" % failures)
        troubles += _diagnosis.bad_conditions(vm)
    else:
        troubles.append("the VirtualMachine no longer exists")
    if vmi:
        status = vmi.get("status") or {}
        facts["phase"] = status.get("phase")
        troubles.append("the VirtualMachineInstance is in phase %s" % (status.get("phase") or "(none)"))
        if status.get("reason"):
            troubles.append("reason %s" % status["reason"])
        if vm and is_active(vmi) and is_outdated(vm, vmi):
            troubles.append("its instance was started from an earlier declaration; use state=restarted to replace it")
        troubles += [text for text in _diagnosis.bad_conditions(vmi) if text not in troubles]
    for pod in pods:
        troubles += _diagnosis.pod_troubles(pod)
    names = {name} | {pod["metadata"]["name"] for pod in pods}
    events = _diagnosis.warning_events(client, namespace, names)
    # An earlier machine of that name had its own troubles. Seconds are all that creationTimestamp tells.
    judged = vmi if renewed and vmi else vm or {}
    born = (judged.get("metadata") or {}).get("creationTimestamp") or ""
    events = [event for event in events if (event["last_seen"] or born)[:19] >= born[:19]]
    facts["events"] = events
    # The latest ones, oldest first, as people read logs.
    for event in events[-3:]:
        troubles.append("Warning %s of %s: %s" % (event["reason"], event["object"], event["message"]))
    return troubles, facts
