# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where objects live in the API: a table of the kinds we know, discovery for the rest."""

from __future__ import annotations

import difflib
import re
from collections import namedtuple
from urllib.parse import quote, unquote

from ._errors import KubeError

Resource = namedtuple("Resource", "api_version kind plural namespaced")

# group/version (or version) -> kind -> (plural, namespaced)
_KNOWN = {
    "v1": {
        "Namespace": ("namespaces", False),
        "Node": ("nodes", False),
        "PersistentVolume": ("persistentvolumes", False),
        "ConfigMap": ("configmaps", True),
        "Endpoints": ("endpoints", True),
        "Event": ("events", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
        "Pod": ("pods", True),
        "ResourceQuota": ("resourcequotas", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
    },
    "apps/v1": {"DaemonSet": ("daemonsets", True), "Deployment": ("deployments", True)},
    "apiextensions.k8s.io/v1": {"CustomResourceDefinition": ("customresourcedefinitions", False)},
    "apiregistration.k8s.io/v1": {"APIService": ("apiservices", False)},
    "rbac.authorization.k8s.io/v1": {
        "ClusterRole": ("clusterroles", False),
        "ClusterRoleBinding": ("clusterrolebindings", False),
        "Role": ("roles", True),
        "RoleBinding": ("rolebindings", True),
    },
    "cdi.kubevirt.io/v1beta1": {"DataSource": ("datasources", True), "DataVolume": ("datavolumes", True)},
    "k8s.cni.cncf.io/v1": {"NetworkAttachmentDefinition": ("network-attachment-definitions", True)},
    "migrations.kubevirt.io/v1alpha1": {"MigrationPolicy": ("migrationpolicies", False)},
    "scheduling.k8s.io/v1": {"PriorityClass": ("priorityclasses", False)},
    "clone.kubevirt.io/v1beta1": {"VirtualMachineClone": ("virtualmachineclones", True)},
    "snapshot.kubevirt.io/v1beta1": {
        "VirtualMachineRestore": ("virtualmachinerestores", True),
        "VirtualMachineSnapshot": ("virtualmachinesnapshots", True),
        "VirtualMachineSnapshotContent": ("virtualmachinesnapshotcontents", True),
    },
    "snapshot.storage.k8s.io/v1": {
        "VolumeSnapshot": ("volumesnapshots", True),
        "VolumeSnapshotClass": ("volumesnapshotclasses", False),
        "VolumeSnapshotContent": ("volumesnapshotcontents", False),
    },
    "storage.k8s.io/v1": {"StorageClass": ("storageclasses", False)},
    "instancetype.kubevirt.io/v1beta1": {
        "VirtualMachineClusterInstancetype": ("virtualmachineclusterinstancetypes", False),
        "VirtualMachineClusterPreference": ("virtualmachineclusterpreferences", False),
        "VirtualMachineInstancetype": ("virtualmachineinstancetypes", True),
        "VirtualMachinePreference": ("virtualmachinepreferences", True),
    },
    "kubevirt.io/v1": {
        "KubeVirt": ("kubevirts", True),
        "VirtualMachine": ("virtualmachines", True),
        "VirtualMachineInstance": ("virtualmachineinstances", True),
        "VirtualMachineInstanceMigration": ("virtualmachineinstancemigrations", True),
        "VirtualMachineInstancePreset": ("virtualmachineinstancepresets", True),
        "VirtualMachineInstanceReplicaSet": ("virtualmachineinstancereplicasets", True),
    },
}
_KNOWN["export.kubevirt.io/v1"] = {"VirtualMachineExport": ("virtualmachineexports", True)}
_KNOWN["export.kubevirt.io/v1beta1"] = _KNOWN["export.kubevirt.io/v1"]
_KNOWN["pool.kubevirt.io/v1beta1"] = {"VirtualMachinePool": ("virtualmachinepools", True)}
_KNOWN["pool.kubevirt.io/v1alpha1"] = _KNOWN["pool.kubevirt.io/v1beta1"]
_KNOWN["kubevirt.io/v1alpha3"] = _KNOWN["kubevirt.io/v1"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.:]*[a-z0-9])?\Z")


class UnknownKind(KubeError):
    """The server answered that it has no such kind."""


def known(api_version, kind):
    """Return the Resource of a kind in the table, or None."""
    entry = _KNOWN.get(api_version, {}).get(kind)
    return Resource(api_version, kind, *entry) if entry else None


def find(client, api_version, kind):
    """Return the Resource of any kind; ask the server (once per group and version) where the table has no answer."""
    resource = known(api_version, kind)
    if resource:
        return resource
    for fresh in (False, True):
        for entry in client.discover(api_version, fresh=fresh):
            if entry.get("kind") == kind and "/" not in entry.get("name", ""):
                return Resource(api_version, kind, entry["name"], bool(entry.get("namespaced")))
    alike = _alike(client.discover(api_version), kind)
    raise UnknownKind(
        "The API server doesn't know kind %s in apiVersion %s. %s install what provides this kind "
        "(its CustomResourceDefinition) first."
        % (kind, api_version, "Did you mean %s? Otherwise" % alike if alike else "Check the spelling, or")
    )


def _alike(resources, kind):
    """Return the kind that somebody probably means who has written its plural, a short name or something like it."""
    wanted = kind.lower()
    for entry in resources:
        names = (entry.get("kind"), entry.get("name"), entry.get("singularName"), *(entry.get("shortNames") or ()))
        if wanted in (name.lower() for name in names if name):
            return entry.get("kind")
    kinds = [entry["kind"] for entry in resources if entry.get("kind")]
    return next(iter(difflib.get_close_matches(kind, kinds, 1)), None)


def path(resource, namespace=None, name=None, subresource=None):
    """Return the URL path of an object; of a collection if name is None, and of all namespaces without a namespace."""
    parts = ["/apis" if "/" in resource.api_version else "/api", resource.api_version]
    if resource.namespaced and namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def check_name(option, value):
    """Raise KubeError if value can't be the name of a Kubernetes object."""
    if not isinstance(value, str) or not _NAME.match(value) or len(value) > 253:
        raise KubeError(
            "%s: %r isn't a Kubernetes name. Use lower-case letters, digits, '-' and '.', starting and ending with a "
            "letter or digit." % (option, value)
        )


def check_prefix(option, value):
    """Raise KubeError if names that the server makes from value can't be those of a Kubernetes object."""
    if not isinstance(value, str) or not _NAME.match(value + "x"):
        raise KubeError(
            "%s: %r isn't a valid prefix for a Kubernetes name. Use lower-case letters, digits, '-' and '.', starting "
            "with a letter or digit." % (option, value)
        )


def name_of(resource, namespace, name):
    """Return how messages call an object that a request is about: its kind, and namespace/name."""
    return "%s %s" % (resource.kind, "%s/%s" % (namespace, name) if namespace and resource.namespaced else name)


def name_in(path):
    """Return how messages call what a request for this path is about: an object, or the collection of a namespace."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    version, rest = ("/".join(parts[1:3]), parts[3:]) if parts[0] == "apis" else ("/".join(parts[1:2]), parts[2:])
    namespace = None
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    if not rest:
        return path
    # Subresources are in a group of their own, with the same collections.
    kinds = _KNOWN.get(version.removeprefix("subresources."), {})
    kind = next((kind for kind, (plural, _namespaced) in kinds.items() if plural == rest[0]), rest[0])
    if len(rest) == 1:
        return "%s in namespace %s" % (kind, namespace) if namespace else kind
    name = "%s %s" % (kind, "%s/%s" % (namespace, rest[1]) if namespace else rest[1])
    return "%s, %s" % (name, "/".join(rest[2:])) if len(rest) > 2 else name


def label(obj):
    """Return how messages call an object: its kind, and namespace/name."""
    metadata = obj.get("metadata") or {}
    name = metadata.get("name") or "%s*" % (metadata.get("generateName") or "")
    namespace = metadata.get("namespace")
    return "%s %s" % (obj.get("kind") or "object", "%s/%s" % (namespace, name) if namespace else name)
