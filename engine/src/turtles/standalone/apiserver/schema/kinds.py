# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind is to the server, and the kinds that every server has."""

from dataclasses import dataclass, field
from functools import cached_property

from turtles.standalone.apiserver.schema.cel.rules import Node
from turtles.standalone.apiserver.wire.errors import Object

#: A kind whose objects may always have another form on disk than its schema gives them.
ALWAYS = 2**63
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Column:
    """A column of Table output; ``path`` is a JSONPath such as ``.spec.running`` (custom resources only)."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    path: str = ""


@dataclass(frozen=True)
class Scale:
    """Where a custom resource keeps what the scale subresource shows (dotted paths)."""

    spec_replicas: str
    status_replicas: str
    selector: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind in one served version. Objects are stored in ``storage_version`` under ``resource``."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    scale: Scale | None = None
    storage_version: str = ""
    columns: tuple[Column, ...] = ()
    #: OpenAPI v3 schema: structural for custom resources, None for built-in kinds.
    schema: Object | None = field(default=None, hash=False, compare=False)
    custom: bool = False
    preserve: bool = False
    #: Fields beside metadata.name and metadata.namespace that field selectors may name.
    fields: tuple[str, ...] = ()
    #: Whether metadata.generation counts changes of what isn't metadata or status.
    generation: bool = False
    verbs: tuple[str, ...] = ALL_VERBS
    #: Whether a PUT makes what isn't there.
    upsert: bool = False
    deprecated: str = ""
    conversion: Object | None = field(default=None, hash=False, compare=False)
    #: x-kubernetes-validations of the schema; None where it has none.
    rules: Node | None = field(default=None, hash=False, compare=False)
    #: resourceVersion of the definition; 0 for a built-in kind.
    definition: int = field(default=0, hash=False, compare=False)
    #: Objects written before this resourceVersion may lack the schema's defaults, or have fields it doesn't name.
    reshaped: int = field(default=0, hash=False, compare=False)
    #: group/plural under which objects are stored, when it isn't this kind's own.
    stored_as: str = ""
    stored_group: str | None = None

    @cached_property
    def resource(self) -> str:
        """Name of the kind's table in the store."""
        return self.stored_as or f"{self.group}/{self.plural}"

    @cached_property
    def api_version(self) -> str:
        """``group/version``, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def package(self) -> str:
        """The Go package that some messages name a kind's type by."""
        if self.custom:
            return "unstructured"
        return self.group.partition(".")[0] or "core"

    @cached_property
    def storage_api_version(self) -> str:
        """apiVersion in which objects are stored."""
        group = self.group if self.stored_group is None else self.stored_group
        version = self.storage_version or self.version
        return f"{group}/{version}" if group else version

    @property
    def lists(self) -> str:
        """Kind of a list."""
        return self.list_kind or f"{self.kind}List"


def _kind(group: str, version: str, kind: str, plural: str, short: str = "", **more: object) -> Kind:
    singular = kind.lower()
    return Kind(group, version, kind, plural, singular=singular, short_names=tuple(short.split()), **more)  # type: ignore[arg-type]


RBAC = "rbac.authorization.k8s.io"
ADMISSION = "admissionregistration.k8s.io"
EXTENSIONS = "apiextensions.k8s.io"
REGISTRATION = "apiregistration.k8s.io"

BUILTIN: tuple[Kind, ...] = (
    _kind(
        "", "v1", "Namespace", "namespaces", "ns", namespaced=False, status=True, fields=("status.phase",),
        verbs=tuple(one for one in ALL_VERBS if one != "deletecollection"),
    ),
    _kind("", "v1", "Node", "nodes", "no", namespaced=False, status=True, fields=("spec.unschedulable",)),
    _kind(
        "", "v1", "Pod", "pods", "po", status=True, categories=("all",), generation=True,
        fields=(
            "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase",
            "status.podIP", "status.nominatedNodeName", "spec.hostNetwork",
        ),
    ),
    _kind(
        "", "v1", "Event", "events", "ev",
        fields=(
            "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
            "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
            "reportingComponent", "source", "type",
        ), upsert=True,
    ),
    _kind(
        "events.k8s.io", "v1", "Event", "events", "ev", stored_as="/events", stored_group="", upsert=True,
        fields=("regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "reason", "type"),
    ),
    _kind("", "v1", "Secret", "secrets", fields=("type",)),
    _kind("", "v1", "ConfigMap", "configmaps", "cm"),
    _kind("", "v1", "ServiceAccount", "serviceaccounts", "sa"),
    _kind("", "v1", "Service", "services", "svc", status=True, categories=("all",), upsert=True,
          fields=("spec.clusterIP", "spec.type")),
    _kind("", "v1", "Endpoints", "endpoints", "ep", upsert=True,
          deprecated="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    _kind("", "v1", "PersistentVolume", "persistentvolumes", "pv", namespaced=False, status=True),
    _kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", status=True),
    _kind("", "v1", "ResourceQuota", "resourcequotas", "quota", status=True),
    _kind("", "v1", "LimitRange", "limitranges", "limits", upsert=True),
    _kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", generation=True),
    _kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", namespaced=False),
    _kind("coordination.k8s.io", "v1", "Lease", "leases", upsert=True),
    _kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", namespaced=False, generation=True),
    _kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", generation=True),
    _kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", status=True, generation=True),
    _kind("apps", "v1", "ControllerRevision", "controllerrevisions"),
    _kind(RBAC, "v1", "Role", "roles", upsert=True),
    _kind(RBAC, "v1", "RoleBinding", "rolebindings", upsert=True),
    _kind(RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False, upsert=True),
    _kind(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False, upsert=True),
    _kind(EXTENSIONS, "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd crds", namespaced=False,
          status=True, generation=True, categories=("api-extensions",)),
    _kind(REGISTRATION, "v1", "APIService", "apiservices", namespaced=False, status=True,
          categories=("api-extensions",)),
    _kind(ADMISSION, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False,
          generation=True, categories=("api-extensions",)),
    _kind(ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", namespaced=False,
          generation=True, categories=("api-extensions",)),
)  # fmt: skip


@dataclass(frozen=True)
class Review:
    """A kind that is only ever created, answered, and not stored."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = False


REVIEWS: tuple[Review, ...] = (
    Review("", "v1", "Binding", "bindings", True),
    Review("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews"),
    Review("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    Review("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", True),
    Review("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    Review("authentication.k8s.io", "v1", "TokenReview", "tokenreviews"),
    Review("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews"),
)
