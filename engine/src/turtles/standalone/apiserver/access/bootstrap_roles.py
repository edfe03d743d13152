# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles and bindings that every cluster has from the start.

They are those of k8s.io/kubernetes' bootstrap policy, so that roles which users refer to by name (view, edit, admin)
give the same rights here and there: rules about kinds that aren't served are part of them. Roles of components that
don't exist on one machine are left out, see docs/api-support.md; the two components that do more here than their
namesakes (one process is scheduler and all controllers) have the rules that they need.
"""

from turtles.standalone.apiserver.schema.kinds import RBAC
from turtles.standalone.apiserver.wire.errors import Object

_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_ALL = [*_READ, *_WRITE]


def _rule(groups: str, resources: str, verbs: list[str], names: str = "") -> Object:
    rule: Object = {
        "apiGroups": ["" if one == "core" else one for one in groups.split()],
        "resources": sorted(resources.split()), "verbs": sorted(verbs),
    }  # fmt: skip
    if names:
        rule["resourceNames"] = names.split()
    return rule


def _urls(*urls: str) -> Object:
    return {"nonResourceURLs": list(urls), "verbs": ["get"]}


def _role(name: str, *rules: Object, aggregate_to: str = "") -> Object:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    if aggregate_to:
        labels[f"rbac.authorization.k8s.io/aggregate-to-{aggregate_to}"] = "true"
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    return {"metadata": {"name": name, "labels": labels, "annotations": annotations}, "rules": list(rules)}


def _aggregated(name: str, into: str = "") -> Object:
    role = _role(name, aggregate_to=into)
    del role["rules"]  # a controller writes them
    labels = {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}
    role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": labels}]}
    return role


def _binding(name: str, *subjects: tuple[str, str], role: str = "", kind: str = "ClusterRole") -> Object:
    binding = _role(name)
    del binding["rules"]
    binding["roleRef"] = {"apiGroup": RBAC, "kind": kind, "name": role or name}
    binding["subjects"] = [_subject(*one) for one in subjects]
    return binding


def _subject(kind: str, name: str) -> Object:
    if kind == "ServiceAccount":
        return {"kind": kind, "namespace": "kube-system", "name": name}
    return {"apiGroup": RBAC, "kind": kind, "name": name}


_WORKLOADS = "daemonsets deployments deployments/scale replicasets replicasets/scale"
_SETS = "statefulsets statefulsets/scale"
_VIEWED = (
    ("core", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
             "replicationcontrollers/scale serviceaccounts services services/status"),
    ("core", "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
             "resourcequotas resourcequotas/status"),
    ("core", "namespaces"),
    ("discovery.k8s.io", "endpointslices"),
    ("apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
             "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    ("batch", "cronjobs cronjobs/status jobs jobs/status"),
    ("extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses "
                   "ingresses/status networkpolicies replicasets replicasets/scale replicasets/status "
                   "replicationcontrollers/scale"),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies"),
)  # fmt: skip
#: What shows, or lets into, more than view may see.
_ENTERED = "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"
_EDITED = (
    ("core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    ("core", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
             "serviceaccounts services services/proxy"),
    ("apps", f"{_WORKLOADS} deployments/rollback {_SETS}"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs jobs"),
    ("extensions", f"{_WORKLOADS} deployments/rollback ingresses networkpolicies replicationcontrollers/scale"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "ingresses networkpolicies"),
)  # fmt: skip

CLUSTER_ROLES: tuple[Object, ...] = (
    _role("cluster-admin", _rule("*", "*", ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}),
    _role("system:discovery", _urls("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
                                    "/openapi/*", "/readyz", "/version", "/version/")),
    _role("system:public-info-viewer", _urls("/healthz", "/livez", "/readyz", "/version", "/version/")),
    _role("system:service-account-issuer-discovery", _urls("/.well-known/openid-configuration",
                                                           "/.well-known/openid-configuration/", "/openid/v1/jwks",
                                                           "/openid/v1/jwks/")),
    _role("system:basic-user",
          _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ["create"]),
          _rule("authentication.k8s.io", "selfsubjectreviews", ["create"])),
    _role("system:auth-delegator", _rule("authentication.k8s.io", "tokenreviews", ["create"]),
          _rule("authorization.k8s.io", "subjectaccessreviews", ["create"])),
    _aggregated("admin"),
    _aggregated("edit", "admin"),
    _aggregated("view", "edit"),
    _role("system:aggregate-to-view", *(_rule(groups, resources, _READ) for groups, resources in _VIEWED),
          aggregate_to="view"),
    _role("system:aggregate-to-edit", _rule("core", _ENTERED, _READ), _rule("core", "serviceaccounts", ["impersonate"]),
          _rule("core", "pods/eviction serviceaccounts/token", ["create"]),
          *(_rule(groups, resources, _WRITE) for groups, resources in _EDITED),
          _rule("coordination.k8s.io", "leases", _ALL), aggregate_to="edit"),
    _role("system:aggregate-to-admin", _rule("authorization.k8s.io", "localsubjectaccessreviews", ["create"]),
          _rule(RBAC, "roles rolebindings", _ALL), aggregate_to="admin"),
    _role("system:node",
          _rule("core", "nodes", ["create", "delete", "get", "list", "patch", "update", "watch"]),
          _rule("core", "nodes/status", ["patch", "update"]),
          _rule("core", "pods", ["create", "delete", "get", "list", "watch"]),
          _rule("core", "pods/status", ["patch", "update"]),
          _rule("core", "pods/eviction", ["create"]),
          _rule("core", "secrets configmaps services serviceaccounts namespaces", _READ),
          _rule("core", "serviceaccounts/token", ["create"]),
          _rule("core", "persistentvolumeclaims persistentvolumes", _READ),
          _rule("core", "persistentvolumeclaims/status", ["get", "patch", "update"]),
          _rule("core", "events", ["create", "patch", "update"]),
          _rule("events.k8s.io", "events", ["create", "patch", "update"]),
          _rule("coordination.k8s.io", "leases", ["create", "delete", "get", "patch", "update"]),
          _rule("k8s.cni.cncf.io", "network-attachment-definitions", _READ),
          _rule("authentication.k8s.io", "tokenreviews", ["create"]),
          _rule("authorization.k8s.io", "subjectaccessreviews", ["create"])),
    _role("system:monitoring", _urls("/flagz", "/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics",
                                     "/metrics/slis", "/readyz", "/readyz/*", "/statusz"),
          _rule("core", "nodes/metrics", ["get"])),
    _role("system:kubelet-api-admin", _rule("core", "nodes", _READ), _rule("core", "nodes", ["proxy"]),
          _rule("core", "nodes/log nodes/metrics nodes/proxy nodes/stats", ["*"]),
          _rule("core", "nodes/configz nodes/healthz nodes/pods", ["*"])),
    _role("system:node-problem-detector", _rule("core", "nodes", ["get"]), _rule("core", "nodes/status", ["patch"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"])),
    _role("system:persistent-volume-provisioner",
          _rule("core", "persistentvolumes", ["create", "delete", "get", "list", "watch"]),
          _rule("core", "persistentvolumeclaims", ["get", "list", "update", "watch"]),
          _rule("storage.k8s.io", "storageclasses", _READ), _rule("core", "events", ["watch"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"])),
    _role("system:kube-aggregator", _rule("core", "endpoints services", _READ)),
    _role("system:kube-dns", _rule("core", "endpoints services", ["list", "watch"]),
          _rule("discovery.k8s.io", "endpointslices", ["list", "watch"])),
    _role("system:volume-scheduler",
          _rule("core", "persistentvolumes", ["get", "list", "patch", "update", "watch"]),
          _rule("storage.k8s.io", "storageclasses", _READ),
          _rule("core", "persistentvolumeclaims", ["get", "list", "patch", "update", "watch"])),
    _role("system:node-proxier",
          _rule("core", "services endpoints", ["list", "watch"]),
          _rule("core", "nodes", _READ),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"]),
          _rule("networking.k8s.io", "servicecidrs", ["list", "watch"]),
          _rule("discovery.k8s.io", "endpointslices", ["list", "watch"])),
    _role("system:kube-scheduler",
          _rule("core", "nodes namespaces pods persistentvolumeclaims persistentvolumes services", _READ),
          _rule("core", "pods", ["delete"]),
          _rule("core", "pods/binding bindings", ["create"]),
          _rule("core", "pods/status", ["patch", "update"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"]),
          _rule("policy", "poddisruptionbudgets", _READ),
          _rule("coordination.k8s.io", "leases", ["create", "get", "list", "patch", "update", "watch"])),
    _role("system:kube-controller-manager",
          _rule("core", "nodes namespaces pods services endpoints configmaps secrets serviceaccounts", _READ),
          _rule("core", "persistentvolumes", _ALL),
          _rule("core", "persistentvolumes/status", ["get", "patch", "update"]),
          _rule("core", "persistentvolumeclaims", ["get", "list", "watch", "patch", "update"]),
          _rule("core", "persistentvolumeclaims/status", ["get", "patch", "update"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"]),
          _rule("core", "services/status", ["get", "patch", "update"]),
          _rule("core", "endpoints", _ALL),
          _rule("discovery.k8s.io", "endpointslices", _ALL),
          _rule("storage.k8s.io", "storageclasses", _ALL),
          # Volume snapshots: the kinds, and what a snapshot controller and a driver's sidecar do
          _rule("apiextensions.k8s.io", "customresourcedefinitions", ["create"]),
          _rule("snapshot.storage.k8s.io", "volumesnapshotclasses", ["create", "get", "list", "watch"]),
          _rule("snapshot.storage.k8s.io", "volumesnapshots", ["get", "list", "patch", "watch"]),
          _rule("snapshot.storage.k8s.io", "volumesnapshotcontents",
                ["create", "delete", "get", "list", "patch", "watch"]),
          _rule("snapshot.storage.k8s.io", "volumesnapshots/status volumesnapshotcontents/status", ["patch"]),
          _rule("policy", "poddisruptionbudgets", _READ),
          _rule("policy", "poddisruptionbudgets/status", ["patch", "update"]),
          _rule("coordination.k8s.io", "leases", ["create", "get", "list", "patch", "update", "watch"])),
)  # fmt: skip

_USERS, _ANYBODY = ("Group", "system:authenticated"), ("Group", "system:unauthenticated")
_SCHEDULER, _MANAGER = ("User", "system:kube-scheduler"), ("User", "system:kube-controller-manager")
CLUSTER_ROLE_BINDINGS: tuple[Object, ...] = (
    _binding("cluster-admin", ("Group", "system:masters")),
    _binding("system:discovery", _USERS),
    _binding("system:basic-user", _USERS),
    _binding("system:public-info-viewer", _USERS, _ANYBODY),
    _binding("system:monitoring", ("Group", "system:monitoring")),
    _binding("system:service-account-issuer-discovery", ("Group", "system:serviceaccounts")),
    # Nodes have their own authorizer: the role documents it, and is bound to no one.
    _binding("system:node"),
    # A node's one process is kubelet and kube-proxy here.
    _binding("system:node-proxier", ("User", "system:kube-proxy"), ("Group", "system:nodes")),
    # One process is scheduler and controllers here.
    _binding("system:kube-scheduler", _SCHEDULER, _MANAGER),
    _binding("system:volume-scheduler", _SCHEDULER, _MANAGER),
    _binding("system:kube-controller-manager", _MANAGER),
    _binding("system:kube-dns", ("ServiceAccount", "kube-dns")),
)
#: Of kube-system.
ROLES: tuple[Object, ...] = (
    _role("extension-apiserver-authentication-reader",
          _rule("core", "configmaps", _READ, "extension-apiserver-authentication")),
)  # fmt: skip
ROLE_BINDINGS: tuple[Object, ...] = (
    _binding("system::extension-apiserver-authentication-reader", _MANAGER, _SCHEDULER, kind="Role",
             role="extension-apiserver-authentication-reader"),
)  # fmt: skip
