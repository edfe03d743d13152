# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a workload cluster consists of: checks its declaration and makes virtual machines of it. Only computes."""

from __future__ import annotations

import ipaddress
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
_GROUP_KEYS = ("count", "cores", "memory", "machine")
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
    control_plane = _group(declaration, "control_plane", name)
    workers = _group(declaration, "workers", name)
    machines = [
        _machine(machine, declaration, group) for group in (control_plane, workers) for machine in group["names"]
    ]
    wanted = control_plane["names"] + workers["names"]
    return {
        "version": version,
        "config_api": _config_api(version),
        "cri_socket": _cri_socket(version),
        "ranges": ranges,
        "machines": machines,
        "control_plane": control_plane["names"],
        "workers": workers["names"],
        "new": [machine for machine in wanted if machine not in existing],
        "surplus": sorted(set(existing) - set(wanted)),
    }


def labels(cluster, role):
    """Return the labels of a cluster's machines with a role."""
    return {CLUSTER_LABEL: cluster, ROLE_LABEL: role}


def _name(name):
    if not isinstance(name, str) or not _LABEL.fullmatch(name) or len(name) > LONGEST_NAME:
        raise DeclarationError(
            f"workload_cluster_name is {name!r}: give at most {LONGEST_NAME} lower-case letters, digits and hyphens, "
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


def _group(declaration, kind, name):
    """Return the machines of one kind, `control_plane` or `workers`."""
    variable = f"workload_cluster_{kind}"
    group = declaration.get(kind) or {}
    for key in group:
        if key not in _GROUP_KEYS:
            raise DeclarationError(f"{variable}.{key}: unknown key. The keys are {', '.join(_GROUP_KEYS)}.")
    count = _number(f"{variable}.count", group.get("count", 1), 0)
    if kind == "control_plane" and count != 1:
        even = " etcd needs an odd number of members, and" if count % 2 == 0 else ""
        raise DeclarationError(
            f"{variable}.count is {count}:{even} the role makes control planes of one machine. Give 1."
        )
    cores = _number(f"{variable}.cores", group.get("cores", 2), 1)
    if kind == "control_plane" and cores < _CONTROL_PLANE_CORES:
        raise DeclarationError(
            f"{variable}.cores is {cores}: kubeadm needs {_CONTROL_PLANE_CORES}. Give at least as many."
        )
    machine = group.get("machine") or {}
    for key in machine:
        if key in _OWN_KEYS:
            raise DeclarationError(f"{variable}.machine.{key}: the role sets it. Leave it out.")
    role = "control-plane" if kind == "control_plane" else "worker"
    return {
        "role": role,
        "names": [f"{name}-{role}-{number}" for number in range(1, count + 1)],
        "cores": cores,
        "memory": group.get("memory", "2Gi"),
        "machine": machine,
    }


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
