# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the status of a VirtualMachine and of its instance means."""

from __future__ import annotations

from . import _diagnosis, _resources
from ._wait import condition

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


def hopeless(vm):
    """Return {reason: grace in seconds} of a VM that should be coming up but won't."""
    found = {}
    status = printable_status(vm)
    if status in _HOPELESS:
        found[status] = _HOPELESS[status]
    failure = condition(vm, "Failure")
    if failure.get("status") == "True":
        found["%s: %s" % (failure.get("reason"), failure.get("message"))] = _FAILURE_GRACE
    return found


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


def diagnose(client, namespace, name):
    """Return what is known about why a VM isn't where it should be: sentences, and the facts behind them.

    Never raises KubeError: a diagnosis mustn't hide the failure it explains.
    """
    said, facts = [], {}
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
        said.append("printableStatus is %s" % (printable_status(vm) or "not set yet: is virt-controller running?"))
        failures = (status.get("startFailure") or {}).get("consecutiveFailCount")
        if failures:
            said.append("%d starts have failed in a row" % failures)
        said += _diagnosis.bad_conditions(vm)
    else:
        said.append("the VirtualMachine doesn't exist any more")
    if vmi:
        status = vmi.get("status") or {}
        facts["phase"] = status.get("phase")
        said.append("the VirtualMachineInstance is in phase %s" % (status.get("phase") or "(none)"))
        if status.get("reason"):
            said.append("reason %s" % status["reason"])
        said += [text for text in _diagnosis.bad_conditions(vmi) if text not in said]
    for pod in pods:
        said += _diagnosis.pod_troubles(pod)
    names = {name} | {pod["metadata"]["name"] for pod in pods}
    events = _diagnosis.warning_events(client, namespace, names)
    # An earlier machine of that name had its own troubles. Seconds are all that creationTimestamp tells.
    born = ((vm or {}).get("metadata") or {}).get("creationTimestamp") or ""
    events = [event for event in events if (event["last_seen"] or born)[:19] >= born[:19]]
    facts["events"] = events
    # The latest ones, oldest first, as people read logs.
    for event in events[-3:]:
        said.append("Warning %s of %s: %s" % (event["reason"], event["object"], event["message"]))
    return said, facts
