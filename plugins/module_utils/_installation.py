# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An installation of KubeVirt: whether it can be used, and why not."""

from __future__ import annotations

from . import _diagnosis, _resources, _wait
from ._errors import ApiError, KubeError

KUBEVIRT = _resources.known("kubevirt.io/v1", "KubeVirt")
DEPLOYMENT = _resources.known("apps/v1", "Deployment")
DAEMONSET = _resources.known("apps/v1", "DaemonSet")
# Label of all components, with the component's name; upstream's have it too.
LABEL = "kubevirt.io"


def kubevirt(client):
    """Return the KubeVirt object, the oldest of several; None if there is none, or if it may not be read."""
    try:
        items = client.list(_resources.path(KUBEVIRT))[0]
    except ApiError as exc:
        if exc.status in (403, 404):
            return None
        raise
    oldest = min(items, key=lambda obj: obj["metadata"].get("creationTimestamp") or "", default=None)
    return oldest and dict(oldest, apiVersion=KUBEVIRT.api_version, kind=KUBEVIRT.kind)


def is_available(kubevirt):
    """Return whether a KubeVirt object reports that everything is available, in its latest version."""
    if kubevirt is None:
        return False
    status = kubevirt.get("status") or {}
    generation = kubevirt["metadata"].get("generation") or 0
    return (
        _wait.condition(kubevirt, "Available").get("status") == "True"
        and _wait.condition(kubevirt, "Progressing").get("status") != "True"
        and (status.get("observedGeneration") or generation) >= generation
    )


def wait_for_rollout(client, namespace, timeout, kinds=(DEPLOYMENT, DAEMONSET), components=()):
    """Wait until all Deployments and DaemonSets of the installation run as declared. Raise _wait.GaveUp if they don't.

    The object's conditions may still be about what ran before a change of these. Nodes are renewed one after the other,
    however many there are: the timeout is seconds in which no further replica is of the latest version. Components are
    names; with them only those are waited for.
    """
    for resource in kinds:
        for workload in _listed(client, resource, namespace):
            if components and workload["metadata"]["name"] not in components:
                continue
            reached = _renewed(workload)
            while True:
                try:
                    _wait.until(client, resource, namespace, workload["metadata"]["name"], timeout, rolled_out)
                    break
                except _wait.GaveUp as exc:
                    before, reached = reached, _renewed(exc.obj)
                    if reached <= before:
                        raise


def rolled_out(workload):
    """Return whether all replicas of a Deployment or a DaemonSet are of its latest version and available."""
    if workload is None:
        return True
    wanted, updated, available, current = _counts(workload)
    extra = (workload.get("status") or {}).get("replicas") or 0
    return current and updated >= wanted and available >= wanted and extra <= max(wanted, updated)


def lost_nodes(client, namespace, workload):
    """Return the nodes whose kubelets are silent, if only their Pods keep a DaemonSet from being rolled out."""
    wanted, updated, available, current = _counts(workload)
    if workload.get("kind") != "DaemonSet" or not current:
        return []
    pods = _diagnosis.pods_on_silent_nodes(client, namespace, _diagnosis.selector_of(workload))
    nodes = sorted({pod["spec"]["nodeName"] for pod in pods})
    return nodes if len(nodes) >= wanted - min(updated, available) else []


def machines(client):
    """Return the names of all virtual machines and instances, each once."""
    counts = {}
    for kind in ("VirtualMachine", "VirtualMachineInstance"):
        try:
            items = client.list(_resources.path(_resources.known("kubevirt.io/v1", kind)))[0]
        except ApiError as exc:
            if exc.status == 404:
                # No such kind, so no such object
                continue
            raise
        for item in items:
            counts["%s/%s" % (item["metadata"].get("namespace"), item["metadata"]["name"])] = True
    return list(counts)


def has_controller(client, namespace):
    """Return whether there is a virt-controller that can still act."""
    return any(
        client.get(_resources.path(DEPLOYMENT, namespace, name)) is not None
        for name in ("virt-controller", "virt-operator")
    )


def diagnose(client, namespace, name):
    """Return sentences about what is missing: conditions, workloads, Pods and their events."""
    findings = []
    try:
        kubevirt = client.get(_resources.path(KUBEVIRT, namespace, name))
        for kind, wanted in (("Available", "True"), ("Degraded", "False")):
            condition = _wait.condition(kubevirt, kind)
            if condition and condition.get("status") != wanted:
                findings.append("%s=%s: %s" % (kind, condition.get("status"), condition.get("message")))
        if kubevirt is not None and not (kubevirt.get("status") or {}).get("conditions"):
            findings.append("the object has no status: virt-controller isn't running, or isn't the leader")
        for resource in (DEPLOYMENT, DAEMONSET):
            for workload in _listed(client, resource, namespace):
                if not rolled_out(workload):
                    wanted, updated, available = _counts(workload)[:3]
                    findings.append(
                        "%s %s: %d of %d available, %d of the latest version"
                        % (resource.kind, workload["metadata"]["name"], available, wanted, updated)
                    )
        names = set()
        for pod in client.list(_resources.path(_diagnosis.POD, namespace), label_selector=LABEL)[0]:
            troubles = _diagnosis.pod_troubles(pod) + _not_ready(pod)
            findings += troubles
            if troubles:
                names.add(pod["metadata"]["name"])
                names.update(owner["name"] for owner in pod["metadata"].get("ownerReferences") or [])
        for event in _diagnosis.warning_events(client, namespace, names)[-5:]:
            findings.append(
                "%s: %s: %s (%d times)" % (event["object"], event["reason"], event["message"], event["count"])
            )
    except KubeError as exc:
        findings.append("can't determine what is missing: %s" % exc)
    return findings or ["all components seem to be running; see virt-controller's log"]


def _listed(client, resource, namespace):
    try:
        return client.list(_resources.path(resource, namespace), label_selector=LABEL)[0]
    except ApiError as exc:
        if exc.status in (403, 404):
            # On one machine without Kubernetes there are none; somebody else may not be allowed to look
            return []
        raise


def _counts(workload):
    """Wanted, updated and available replicas, and whether the status is about the latest version."""
    status = workload.get("status") or {}
    current = (status.get("observedGeneration") or 0) >= (workload["metadata"].get("generation") or 0)
    if workload.get("kind") == "DaemonSet":
        names = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
        wanted, updated, available = (status.get(name) or 0 for name in names)
    else:
        wanted = (workload.get("spec") or {}).get("replicas", 1)
        updated, available = status.get("updatedReplicas") or 0, status.get("availableReplicas") or 0
    return wanted, updated, available, current


def _renewed(workload):
    """How many replicas are of the latest version, as far as the status is about that."""
    updated, current = _counts(workload)[1::2]
    return updated if current else 0


def _not_ready(pod):
    """Return a sentence for each container that runs but isn't ready."""
    return [
        "Pod %s: container %s is running but isn't ready" % (pod["metadata"]["name"], container["name"])
        for container in (pod.get("status") or {}).get("containerStatuses") or []
        if not container.get("ready") and (container.get("state") or {}).get("running")
    ]
