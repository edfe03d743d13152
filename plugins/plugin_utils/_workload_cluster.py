# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a workload cluster consists of: checks its declaration and makes virtual machines of it. Only computes."""

from __future__ import annotations

import ipaddress
import json
import re

# The labels of the Cluster API, which the cloud provider looks for as well.
CLUSTER_LABEL = "cluster.x-k8s.io/cluster-name"
ROLE_LABEL = "cluster.x-k8s.io/role"
# A name of a node, such as <name>-control-plane-1, is a DNS label as well.
LONGEST_NAME = 40
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VERSION = re.compile(r"v?(1\.[0-9]+\.[0-9]+)")
# kubeadm refuses a control plane with fewer.
_CONTROL_PLANE_CORES = 2
_GROUP_KEYS = ("count", "cores", "memory", "machine", "labels", "taints")
# What the role has set of a node, so that it removes what is no longer declared and nothing else.
APPLIED = "workload-cluster.turtles.kubevirt/applied"
_QUALIFIED = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
# What the role itself decides about its machines.
_OWN_KEYS = (
    "name",
    "namespace",
    "state",
    "labels",
    "cloud_init",
    "ssh_keys",
    "hostname",
    "interfaces",
    "image",
    "memory",
    "cpu",
)


class DeclarationError(Exception):
    """A value that can't be; the message names it and says what to give instead."""


def plan(declaration, existing=(), recorded=None, available=None, used=()):
    """Return the machines of a cluster.

    :param declaration: the role's variables without their prefix.
    :param existing: names of the cluster's machines that exist.
    :param recorded: version of Kubernetes that the cluster has; None before there is one.
    :param available: version of the programs in the folder; None if there is no folder.
    :param used: addresses of the infrastructure cluster that the workload cluster's ranges must leave alone.
    :raises DeclarationError: before anything is made.
    """
    name = _name(declaration.get("name"))
    version = _version(declaration.get("version"), recorded, available)
    ranges = _ranges(declaration, used)
    if not declaration.get("image"):
        raise DeclarationError(
            "workload_cluster_image is missing: name a containerDisk image of a guest with cloud-init, Python and "
            "containerd; docs/workload-clusters.md has one."
        )
    control_plane = _control_plane(declaration, name)
    pools = _pools(declaration, name)
    groups = [control_plane, *pools]
    machines = [_machine(machine, declaration, group) for group in groups for machine in group["names"]]
    workers = [machine for group in pools for machine in group["names"]]
    wanted = control_plane["names"] + workers
    return {
        "version": version,
        "config_api": _config_api(version),
        "cri_socket": _cri_socket(version),
        "ranges": ranges,
        "machines": machines,
        "control_plane": control_plane["names"],
        "workers": workers,
        "nodes": {machine: group["node"] for group in groups for machine in group["names"]},
        "new": [machine for machine in wanted if machine not in existing],
        "surplus": sorted(set(existing) - set(wanted)),
    }


def node_patches(planned, nodes):
    """Return the merge patches that give nodes their declared labels and taints, by name.

    :param planned: what :func:`plan` returned.
    :param nodes: Node objects of the workload cluster.
    """
    patches = {}
    for node in nodes:
        wanted = planned["nodes"].get(node["metadata"]["name"])
        if wanted is None:
            continue
        metadata = node["metadata"]
        annotation = (metadata.get("annotations") or {}).get(APPLIED)
        applied = json.loads(annotation) if annotation else {"labels": [], "taints": []}
        current = metadata.get("labels") or {}
        labels = {key: None for key in applied["labels"] if key in current and key not in wanted["labels"]}
        labels.update((key, value) for key, value in wanted["labels"].items() if current.get(key) != value)
        tainted = (node.get("spec") or {}).get("taints") or []
        declared = {_taint_key(taint) for taint in wanted["taints"]}
        gone = {tuple(each) for each in applied["taints"]} | declared
        taints = [taint for taint in tainted if _taint_key(taint) not in gone] + wanted["taints"]
        change = sorted(map(_taint_parts, taints)) != sorted(map(_taint_parts, tainted))
        now = {"labels": sorted(wanted["labels"]), "taints": sorted(list(each) for each in declared)}
        if labels or change or now != applied:
            patches[metadata["name"]] = {
                "metadata": {"labels": labels, "annotations": {APPLIED: json.dumps(now)}},
                **({"spec": {"taints": taints}} if change else {}),
            }
    return patches


def drain_obstacles(planned, pods, budgets):
    """Return why the machines that are to go can't be drained, a sentence for each reason.

    An eviction waits while a PodDisruptionBudget doesn't allow it, which it never does if it allows no disruption at
    all, or if there is no other node on which a Pod becomes ready in place of the evicted one.

    :param planned: what :func:`plan` returned.
    :param pods: Pods of the workload cluster.
    :param budgets: its PodDisruptionBudgets.
    """
    surplus = set(planned["surplus"])
    reasons = []
    for budget in budgets:
        metadata, status = budget["metadata"], budget.get("status") or {}
        evicted = [
            pod["metadata"]["name"]
            for pod in pods
            if pod["metadata"]["namespace"] == metadata["namespace"]
            and pod["spec"].get("nodeName") in surplus
            and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            and _selects((budget.get("spec") or {}).get("selector"), pod["metadata"].get("labels") or {})
        ]
        healthy = status.get("desiredHealthy", 0)
        if not evicted or not healthy:
            continue
        if healthy >= status.get("expectedPods", 0):
            why = "which allows none of its Pods to be evicted"
        elif not planned["workers"]:
            why = f"which wants {healthy} Pods to be healthy, and no worker is left on which they could be"
        else:
            continue
        reasons.append(
            f"{', '.join(planned['surplus'])} would be drained, but {', '.join(sorted(evicted))} there belong to the "
            f"PodDisruptionBudget {metadata['namespace']}/{metadata['name']}, {why}: keep more workers, or change the "
            "budget or the number of its Pods."
        )
    return reasons


def _selects(selector, labels):
    """Whether a LabelSelector of Kubernetes selects these: an empty one does, none doesn't."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(labels, each) for each in selector.get("matchExpressions") or [])


def _meets(labels, requirement):
    key, operator, values = requirement["key"], requirement["operator"], requirement.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return (key in labels) == (operator == "Exists")


def _taint_key(taint):
    return taint["key"], taint["effect"]


def _taint_parts(taint):
    return taint["key"], taint["effect"], taint.get("value") or ""


def labels(cluster, role):
    """Return the labels of a cluster's machines with a role."""
    return {CLUSTER_LABEL: cluster, ROLE_LABEL: role}


def _name(name):
    if not isinstance(name, str) or not _LABEL.fullmatch(name) or len(name) > LONGEST_NAME:
        raise DeclarationError(
            f"workload_cluster_name is {name!r}: give at most {LONGEST_NAME} lowercase letters, digits and hyphens, "
            "starting with a letter and not ending with a hyphen."
        )
    return name


def _version(version, recorded, available):
    # YAML makes a number of 1.20.
    match = _VERSION.fullmatch(str(version))
    if not match:
        raise DeclarationError(
            f"workload_cluster_version is {version!r}: give a version of Kubernetes with all three numbers, such as "
            "'1.33.2'."
        )
    wanted = match[1]
    if recorded and recorded != wanted:
        raise DeclarationError(
            f"workload_cluster_version is {wanted}, and the cluster runs {recorded}: the role can't upgrade it. "
            f"Leave it at {recorded}, or create another cluster."
        )
    found = available.removeprefix("v") if available else None
    if found and found != wanted:
        raise DeclarationError(
            f"workload_cluster_version is {wanted}, and the kubeadm in workload_cluster_programs is {found}: give a "
            f"folder with the programs of {wanted}, or set the version to {found}."
        )
    return wanted


def _config_api(version):
    """Return the version of kubeadm's configuration files that this kubeadm reads and doesn't call outdated."""
    minor = _minor(version)
    return "kubeadm.k8s.io/v1beta%d" % (2 if minor < 22 else 3 if minor < 31 else 4)


def _cri_socket(version):
    # Before 1.24, only a path is taken for one of containerd.
    return ("" if _minor(version) < 24 else "unix://") + "/run/containerd/containerd.sock"


def _minor(version):
    return int(version.split(".")[1])


def _ranges(declaration, used):
    ranges = {}
    for kind in ("pod_cidr", "service_cidr"):
        text = declaration.get(kind)
        try:
            ranges[kind] = ipaddress.IPv4Network(text)
        except ValueError as exc:
            raise DeclarationError(
                f"workload_cluster_{kind} is {text!r}: give an IPv4 network such as 172.20.0.0/16 ({exc})."
            ) from exc
        for address in used:
            if ipaddress.ip_address(address) in ranges[kind]:
                raise DeclarationError(
                    f"workload_cluster_{kind} is {text}, which contains {address} of the infrastructure cluster: give "
                    "another network, as nodes have to reach both."
                )
    if ranges["pod_cidr"].overlaps(ranges["service_cidr"]):
        raise DeclarationError(
            f"workload_cluster_service_cidr is {ranges['service_cidr']}, which overlaps workload_cluster_pod_cidr "
            f"({ranges['pod_cidr']}): give networks that don't overlap."
        )
    if ranges["pod_cidr"].prefixlen > 24:
        raise DeclarationError(
            f"workload_cluster_pod_cidr is {ranges['pod_cidr']}: give at least a /24, as each node gets "
            "one of that size."
        )
    return {kind: str(network) for kind, network in ranges.items()}


def _control_plane(declaration, name):
    variable = "workload_cluster_control_plane"
    group = _group(variable, declaration.get("control_plane") or {}, _GROUP_KEYS)
    if group["count"] != 1:
        even = " etcd needs an odd number of members, and" if group["count"] % 2 == 0 else ""
        raise DeclarationError(
            f"{variable}.count is {group['count']}:{even} the role makes control planes of one machine. Give 1."
        )
    if group["cores"] < _CONTROL_PLANE_CORES:
        raise DeclarationError(
            f"{variable}.cores is {group['cores']}: kubeadm needs {_CONTROL_PLANE_CORES}. Give at least as many."
        )
    return _named(group, "control-plane", name, "control-plane")


def _pools(declaration, name):
    """Return the groups of workers: the pools, or the one that `workers` describes."""
    pools, workers = declaration.get("pools") or [], declaration.get("workers") or {}
    if not pools:
        return [_named(_group("workload_cluster_workers", workers, _GROUP_KEYS), "worker", name, "worker")]
    if workers:
        raise DeclarationError(
            "workload_cluster_workers and workload_cluster_pools are both given: describe all workers as pools."
        )
    if not isinstance(pools, list):
        raise DeclarationError(f"workload_cluster_pools is {pools!r}: give a list of pools, each with a name.")
    groups = {}
    for index, pool in enumerate(pools):
        variable = f"workload_cluster_pools[{index}]"
        group = _group(variable, pool, ("name", *_GROUP_KEYS))
        own = pool.get("name")
        longest = LONGEST_NAME + len("control-plane") - len(name)
        if not isinstance(own, str) or not _LABEL.fullmatch(own) or len(own) > longest or own == "control-plane":
            raise DeclarationError(
                f"{variable}.name is {own!r}: give at most {longest} lowercase letters, digits and hyphens, starting "
                "with a letter and not ending with a hyphen, and not control-plane."
            )
        if own in groups:
            raise DeclarationError(f"{variable}.name is {own!r}, as that of another pool: give each a name of its own.")
        groups[own] = _named(group, "worker", name, own)
    return list(groups.values())


def _named(group, role, cluster, pool):
    names = [f"{cluster}-{pool}-{number}" for number in range(1, group["count"] + 1)]
    return {**group, "role": role, "names": names}


def _group(variable, group, keys):
    """Return what machines of one kind have in common."""
    if not isinstance(group, dict):
        raise DeclarationError(f"{variable} is {group!r}: give a dictionary with {', '.join(keys)}.")
    for key in group:
        if key not in keys:
            raise DeclarationError(f"{variable}.{key}: unknown key. The keys are {', '.join(keys)}.")
    machine = group.get("machine") or {}
    for key in machine:
        if key in _OWN_KEYS:
            raise DeclarationError(f"{variable}.machine.{key}: the role sets it. Leave it out.")
    return {
        "count": _number(f"{variable}.count", group.get("count", 1), 0),
        "cores": _number(f"{variable}.cores", group.get("cores", 2), 1),
        "memory": group.get("memory", "2Gi"),
        "machine": machine,
        "node": {
            "labels": _node_labels(f"{variable}.labels", group.get("labels") or {}),
            "taints": _taints(f"{variable}.taints", group.get("taints") or []),
        },
    }


def _node_labels(variable, given):
    if not isinstance(given, dict):
        raise DeclarationError(f"{variable} is {given!r}: give a dictionary of labels.")
    for key, value in given.items():
        if not isinstance(key, str) or not _QUALIFIED.fullmatch(key):
            raise DeclarationError(f"{variable}: {key!r} is no name of a label. Give one such as example.com/disk.")
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            raise DeclarationError(
                f"{variable}.{key} is {value!r}: give a text of at most 63 letters, digits, dots, hyphens and "
                "underscores, in quotes if it looks like a number or a truth value."
            )
    return dict(given)


def _taints(variable, given):
    if not isinstance(given, list):
        raise DeclarationError(f"{variable} is {given!r}: give a list of taints with key, value and effect.")
    taints = []
    for index, taint in enumerate(given):
        where = f"{variable}[{index}]"
        if not isinstance(taint, dict) or not set(taint) <= {"key", "value", "effect"}:
            raise DeclarationError(f"{where} is {taint!r}: give key, value and effect.")
        key, value, effect = taint.get("key"), taint.get("value", ""), taint.get("effect")
        if not isinstance(key, str) or not _QUALIFIED.fullmatch(key):
            raise DeclarationError(f"{where}.key is {key!r}: give the name of a taint, such as example.com/gpu.")
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            raise DeclarationError(f"{where}.value is {value!r}: give a text as for a label, or leave it out.")
        if effect not in _EFFECTS:
            raise DeclarationError(f"{where}.effect is {effect!r}: give {', '.join(_EFFECTS[:-1])} or {_EFFECTS[-1]}.")
        if (key, effect) in map(_taint_key, taints):
            raise DeclarationError(f"{where}: {key} with {effect} is there twice. Leave one out.")
        taints.append({"key": key, **({"value": value} if value else {}), "effect": effect})
    return taints


def _number(variable, value, least):
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise DeclarationError(f"{variable} is {value!r}: give a whole number, {least} or more.")
    return number


def _machine(name, declaration, group):
    """Return a machine as the module fleet takes it."""
    user_data = {"disable_root": False, "ssh_authorized_keys": [declaration["public_key"]]}
    return {
        **group["machine"],
        "name": name,
        "image": declaration["image"],
        "memory": group["memory"],
        "cpu": {"cores": group["cores"]},
        "labels": labels(declaration["name"], group["role"]),
        # Behind a translation all guests have one address, and kubelets report that.
        "interfaces": [{"name": "default", "binding": "bridge"}],
        "cloud_init": {"user_data": user_data},
    }
