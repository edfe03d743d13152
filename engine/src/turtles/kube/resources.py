# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of Kubernetes itself that the engine talks about, and how their URLs are built."""

from dataclasses import dataclass
from urllib.parse import quote


def _segment(name: str) -> str:
    """Return a name as a segment of a URL's path. What points elsewhere, by dots as well, is a name like others."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource type as the API server serves it.

    ``group`` is empty for the core group; ``plural`` is the lower-case name in URLs.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """``apiVersion`` of objects of this kind: ``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of an object, of a namespace's collection, or of the collection across namespaces.

        :param namespace: ignored for cluster-scoped kinds; None means all namespaces (collections only).
        :param subresource: such as ``status`` or ``binding``; needs a name.
        :raises ValueError: a name without the namespace it lives in, or a subresource without a name.
        """
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            path += f"/namespaces/{_segment(namespace)}"
        elif self.namespaced and name:
            raise ValueError(f"{self.kind} {name}: a namespaced object needs its namespace")
        path += f"/{self.plural}"
        if name:
            path += f"/{_segment(name)}"
        if subresource:
            if not name:
                raise ValueError(f"{self.plural}/{subresource}: a subresource needs an object's name")
            path += f"/{subresource}"
        return path


POD = Resource("", "v1", "Pod", "pods", True)
NODE = Resource("", "v1", "Node", "nodes", False)
NAMESPACE = Resource("", "v1", "Namespace", "namespaces", False)
SECRET = Resource("", "v1", "Secret", "secrets", True)
CONFIGMAP = Resource("", "v1", "ConfigMap", "configmaps", True)
SERVICE = Resource("", "v1", "Service", "services", True)
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", True)
ENDPOINTSLICE = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True)
EVENT = Resource("", "v1", "Event", "events", True)
SERVICEACCOUNT = Resource("", "v1", "ServiceAccount", "serviceaccounts", True)
PVC = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)
PV = Resource("", "v1", "PersistentVolume", "persistentvolumes", False)
STORAGECLASS = Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", False)
LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases", True)
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments", True)
DAEMONSET = Resource("apps", "v1", "DaemonSet", "daemonsets", True)
CONTROLLERREVISION = Resource("apps", "v1", "ControllerRevision", "controllerrevisions", True)
RESOURCEQUOTA = Resource("", "v1", "ResourceQuota", "resourcequotas", True)
PDB = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True)
#: Before Kubernetes 1.21.
PDB_BETA = Resource("policy", "v1beta1", "PodDisruptionBudget", "poddisruptionbudgets", True)
CRD = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
MUTATINGWEBHOOK = Resource(
    "admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", False
)
VALIDATINGWEBHOOK = Resource(
    "admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", False
)
APISERVICE = Resource("apiregistration.k8s.io", "v1", "APIService", "apiservices", False)
CLUSTERROLE = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False)
CLUSTERROLEBINDING = Resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False)
ROLE = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles", True)
ROLEBINDING = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", True)
NETWORKPOLICY = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True)
INGRESS = Resource("networking.k8s.io", "v1", "Ingress", "ingresses", True)
#: Of the Network Plumbing Working Group, which Multus serves on clusters.
NETWORK = Resource("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition", "network-attachment-definitions", True)
#: Of the Kubernetes Storage SIG: snapshots of volumes, which a cluster serves if its CSI driver can make them.
VOLUMESNAPSHOT = Resource("snapshot.storage.k8s.io", "v1", "VolumeSnapshot", "volumesnapshots", True)
VOLUMESNAPSHOTCONTENT = Resource(
    "snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent", "volumesnapshotcontents", False
)
VOLUMESNAPSHOTCLASS = Resource("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass", "volumesnapshotclasses", False)
SUBJECTACCESSREVIEW = Resource("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False)
