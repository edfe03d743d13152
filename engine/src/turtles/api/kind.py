# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to say about a kind: names, versions, columns, admission, subresources, users' rights.

Each module of `turtles.api.kinds` describes a kind in these terms. CustomResourceDefinitions, webhooks, discovery,
users' roles, the client's resources and the documentation are generated from the descriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.language import Cause, Struct
from turtles.api.objects import Object

GROUP = "kubevirt.io"
V1ALPHA3_WARNING = "kubevirt.io/v1alpha3 is now deprecated and will be removed in a future release."

#: The aggregated API below which subresources are served.
SUBRESOURCES_GROUP = "subresources.kubevirt.io"
SUBRESOURCES_VERSIONS = ("v1", "v1alpha3")

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"

READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
#: Rights to what users create and manage themselves.
MANAGED_BY_USERS: Mapping[str, Sequence[str]] = {"admin": (*READ, *WRITE), "edit": (*READ, *WRITE), "view": READ}


@dataclass(frozen=True)
class Version:
    """One version of a kind. All served versions share one schema, so none needs conversion.

    :param deprecation_warning: what the API server tells clients that use this version; None if it is current.
    """

    name: str
    storage: bool = False
    deprecation_warning: str | None = None


#: Versions of the kinds in the group kubevirt.io.
VERSIONS = (Version("v1", storage=True), Version("v1alpha3", deprecation_warning=V1ALPHA3_WARNING))


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`. `priority` 1 shows it with `-o wide` only."""

    name: str
    type: str
    json_path: str
    priority: int = 0
    description: str = ""


AGE = Column("Age", "date", ".metadata.creationTimestamp")


def scale_columns(kind: str) -> tuple[Column, ...]:
    """Return the columns of what keeps a number of objects of a kind."""
    return (
        Column("Desired", "integer", ".spec.replicas", description=f"Number of desired {kind}s"),
        Column("Current", "integer", ".status.replicas", description="Number of managed and not final or deleted ones"),
        Column("Ready", "integer", ".status.readyReplicas", description="Number of those that are ready"),
        AGE,
    )


@dataclass(frozen=True)
class Webhook:
    """How the admission of a kind is registered with the API server.

    :param name: without the ending `.kubevirt.io`; users read it in refusals.
    :param path: where virt-api serves it.
    :param operations: of CREATE, UPDATE and DELETE. A webhook for UPDATE alone isn't called for what the engine itself
        writes.
    :param status: it is called for the status subresource instead of the object.
    """

    name: str
    path: str
    operations: tuple[str, ...]
    mutating: bool = False
    status: bool = False


def validators(name: str, path: str) -> tuple[Webhook, Webhook]:
    """Return the webhooks that judge new objects and updated ones, called by names that begin with `name`."""
    return Webhook(f"{name}-validator", path, (CREATE,)), Webhook(f"{name}-update-validator", path, (UPDATE,))


@dataclass(frozen=True)
class Subresource:
    """An operation on an object, served below `subresources.kubevirt.io`.

    :param name: such as `start` or `evacuate/cancel`.
    :param handler: its name in `turtles.virt_api.subresources`, or in `turtles.virt_api.streams` if it is one.
    :param verb: `update` (PUT) or `get` (GET).
    :param code: HTTP status of the answer.
    :param body: the answer has a body: the object that the handler returns.
    :param stream: the handler answers by itself, usually over a WebSocket.
    :param path: more may follow the name in the path, as in `portforward/22/tcp`; it belongs to the request.
    :param roles: users' roles that may use it.
    """

    name: str
    handler: str
    verb: str = "update"
    code: int = 202
    body: bool = False
    stream: bool = False
    path: bool = False
    roles: tuple[str, ...] = ("admin", "edit")


class Refusal(Exception):
    """An object is refused with this message and HTTP status, without causes: as KubeVirt does where it isn't the
    object that is wrong, and where defaults can't be set.
    """

    def __init__(self, message: str, code: int = 422) -> None:
        super().__init__(message)
        self.code = code


class Missing(Exception):
    """An object that another names doesn't exist. The message is the API server's."""


def find_nothing(kind: str, namespace: str, name: str) -> Object:
    """Raise Missing: there are no objects of other kinds."""
    raise Missing(f'{kind.lower()}s "{name}" not found')


def no_others(kind: str, namespace: str) -> Sequence[Object]:
    """Return nothing: there are no objects of other kinds."""
    return ()


@dataclass(frozen=True)
class Context:
    """What admission knows besides the object.

    :param config: the installation's configuration.
    :param privileged: one of the engine's own service accounts is writing.
    :param node: where the virt-handler runs that is writing; None if somebody else is, or its token doesn't say it.
    :param user: who is writing, as an AdmissionReview says: username, groups, uid, extra.
    :param now: the time, as the API writes it.
    :param others: returns the objects there are of a kind that `Kind.reads` names, in a namespace. They belong to a
        cache: nobody may change them.
    :param find: returns the object of a kind that `Kind.looks_up` names, as it is stored, by namespace and name. Raises
        Missing.
    """

    config: ClusterConfiguration = DEFAULT
    privileged: bool = False
    node: str | None = None
    now: str = ""
    others: Callable[[str, str], Sequence[Object]] = no_others
    find: Callable[[str, str, str], Object] = find_nothing
    user: Mapping[str, Any] = field(default_factory=dict)


#: An ordinary user, and the configuration of an empty KubeVirt object.
DEFAULT_CONTEXT = Context()


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind. The functions are pure; those that validate take any JSON value and raise nothing but Refusal.

    :param versions: exactly one of them is stored.
    :param scale: it has a scale subresource, on `spec.replicas`, `status.replicas` and `status.labelSelector`.
    :param rights: verbs by user role (`kubevirt.io:<role>`); every user has the role `default`.
    :param reads: other kinds, of which `default` looks at the objects (`Context.others`).
    :param looks_up: kinds of which admission reads objects by name (`Context.find`), because a copy might be behind.
    :param default: returns a new object with its defaults; unchanged if it isn't well-formed. Raises Refusal.
    :param default_update: returns an updated object, given it and the old one. Raises Refusal.
    :param validate: returns what is wrong with an object on creation, and on an update without `validate_update`.
    :param validate_update: returns what is wrong with an updated object, given it and the old one.
    :param validate_status: returns what is wrong with an object whose status is updated, given it and the old one.
    :param warn: returns warnings about an object that is admitted.
    :param missing: returns warnings about what an admitted object names and isn't there.
    :param remedies: returns words about an object that is refused: what to write instead of what there is no more.
    :param check: name of a further check in `turtles.virt_api.checks`: one that has to ask the API server.
    """

    kind: str
    plural: str
    schema: Struct
    group: str = GROUP
    versions: tuple[Version, ...] = VERSIONS
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ("all",)
    columns: tuple[Column, ...] = ()
    status_subresource: bool = False
    scale: bool = False
    rights: Mapping[str, Sequence[str]] = field(default_factory=dict)
    subresources: tuple[Subresource, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    reads: tuple[str, ...] = ()
    looks_up: tuple[str, ...] = ()
    default: Callable[[Object, Context], Object] | None = None
    default_update: Callable[[Object, Object, Context], Object] | None = None
    validate: Callable[[Any, Context], list[Cause]] | None = None
    validate_update: Callable[[Any, Any, Context], list[Cause]] | None = None
    validate_status: Callable[[Any, Any, Context], list[Cause]] | None = None
    warn: Callable[[Object], list[str]] | None = None
    missing: Callable[[Object, Context], list[str]] | None = None
    remedies: Callable[[Object], list[str]] | None = None
    check: str | None = None

    @property
    def singular(self) -> str:
        """The name of one object, as `kubectl` takes it."""
        return self.kind.lower()

    @property
    def version(self) -> str:
        """The storage version's name: what the engine itself reads and writes."""
        return next(version.name for version in self.versions if version.storage)

    @property
    def list_kind(self) -> str:
        """The kind of a list of these objects."""
        return self.kind + "List"

    @property
    def api_version(self) -> str:
        """`group/version` of the storage version."""
        return f"{self.group}/{self.version}"

    @property
    def crd_name(self) -> str:
        """The name of the CustomResourceDefinition."""
        return f"{self.plural}.{self.group}"

    @property
    def scope(self) -> str:
        """`Namespaced` or `Cluster`."""
        return "Namespaced" if self.namespaced else "Cluster"
