# SPDX-License-Identifier: GPL-3.0-or-later
"""Types of the built-in kinds' fields that the server itself reads; a wrong one is refused as undecodable.

Fields that aren't named here are stored as they come.
"""

from typing import Any

import msgspec

from turtles.standalone.apiserver.errors import Object, bad_request
from turtles.standalone.apiserver.kinds import ADMISSION, RBAC, REGISTRATION, Kind

Texts = list[str] | None
Labels = dict[str, str] | None


class Requirement(msgspec.Struct):
    """An entry of matchExpressions."""

    key: str
    operator: str
    values: Texts = None


class Selector(msgspec.Struct, rename="camel"):
    """A label selector."""

    match_labels: Labels = None
    match_expressions: list[Requirement] | None = None


class Named(msgspec.Struct):
    """Anything with a name."""

    name: str | None = None


class Container(msgspec.Struct, rename="camel"):
    """A Pod's container."""

    name: str | None = None
    image: str | None = None
    ports: list[dict[str, Any]] | None = None
    volume_mounts: list[dict[str, Any]] | None = None
    resources: dict[str, Any] | None = None


class PodSpec(msgspec.Struct, rename="camel"):
    """A Pod's spec."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    volumes: list[Named] | None = None
    node_name: str | None = None
    service_account_name: str | None = None
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None
    readiness_gates: list[dict[str, Any]] | None = None


class PodStatus(msgspec.Struct, rename="camel"):
    """A Pod's status."""

    phase: str | None = None
    conditions: list[dict[str, Any]] | None = None
    container_statuses: list[dict[str, Any]] | None = None


class Pod(msgspec.Struct):
    """A Pod."""

    spec: PodSpec | None = None
    status: PodStatus | None = None


class ServicePort(msgspec.Struct):
    """A Service's port."""

    name: str | None = None
    port: int | None = None


class ServiceSpec(msgspec.Struct):
    """A Service's spec."""

    ports: list[ServicePort] | None = None
    selector: Labels = None
    type: str | None = None


class Service(msgspec.Struct):
    """A Service."""

    spec: ServiceSpec | None = None
    status: dict[str, Any] | None = None


class Address(msgspec.Struct):
    """An address of Endpoints."""

    ip: str


class EndpointPort(msgspec.Struct):
    """A port of Endpoints."""

    port: int
    name: str | None = None


class Subset(msgspec.Struct):
    """A subset of Endpoints."""

    addresses: list[Address] | None = None
    ports: list[EndpointPort] | None = None


class Endpoints(msgspec.Struct):
    """Endpoints."""

    subsets: list[Subset] | None = None


class Rule(msgspec.Struct, rename="camel"):
    """A rule of a role."""

    verbs: Texts = None
    api_groups: Texts = None
    resources: Texts = None
    resource_names: Texts = None
    non_resource_urls: Texts = msgspec.field(default=None, name="nonResourceURLs")


class Aggregation(msgspec.Struct, rename="camel"):
    """A ClusterRole's aggregationRule."""

    cluster_role_selectors: list[Selector] | None = None


class Role(msgspec.Struct, rename="camel"):
    """A Role or ClusterRole."""

    rules: list[Rule] | None = None
    aggregation_rule: Aggregation | None = None


class Subject(msgspec.Struct, rename="camel"):
    """A subject or roleRef of a binding."""

    kind: str | None = None
    name: str | None = None
    namespace: str | None = None
    api_group: str | None = None


class Binding(msgspec.Struct, rename="camel"):
    """A RoleBinding or ClusterRoleBinding."""

    role_ref: Subject | None = None
    subjects: list[Subject] | None = None


class ServiceReference(msgspec.Struct):
    """Where a webhook or APIService is."""

    namespace: str | None = None
    name: str | None = None
    port: int | None = None
    path: str | None = None


class APIServiceSpec(msgspec.Struct, rename="camel"):
    """An APIService's spec."""

    group: str | None = None
    version: str | None = None
    service: ServiceReference | None = None
    ca_bundle: str | None = None
    insecure_skip_tls_verify: bool | None = msgspec.field(default=None, name="insecureSkipTLSVerify")


class APIService(msgspec.Struct):
    """An APIService."""

    spec: APIServiceSpec | None = None
    status: dict[str, Any] | None = None


class ClientConfig(msgspec.Struct, rename="camel"):
    """How a webhook is reached."""

    url: str | None = None
    service: ServiceReference | None = None
    ca_bundle: str | None = None


class WebhookRule(msgspec.Struct, rename="camel"):
    """What a webhook is asked about."""

    operations: Texts = None
    api_groups: Texts = None
    api_versions: Texts = None
    resources: Texts = None
    scope: str | None = None


class Webhook(msgspec.Struct, rename="camel"):
    """A webhook."""

    name: str | None = None
    client_config: ClientConfig | None = None
    rules: list[WebhookRule] | None = None
    namespace_selector: Selector | None = None
    object_selector: Selector | None = None
    timeout_seconds: int | None = None


class Webhooks(msgspec.Struct):
    """A webhook configuration."""

    webhooks: list[Webhook] | None = None


class Schema(msgspec.Struct):
    """A version's schema."""

    openAPIV3Schema: dict[str, Any] | None = None


class PrinterColumn(msgspec.Struct, rename="camel"):
    """An additional printer column."""

    name: str | None = None
    type: str | None = None
    format: str | None = None
    description: str | None = None
    priority: int | None = None
    json_path: str | None = None


class Version(msgspec.Struct, rename="camel"):
    """A version of a CustomResourceDefinition."""

    name: str | None = None
    schema: Schema | None = None
    subresources: dict[str, dict[str, Any] | None] | None = None
    additional_printer_columns: list[PrinterColumn] | None = None
    selectable_fields: list[dict[str, str]] | None = None


class Names(msgspec.Struct, rename="camel"):
    """Names of a CustomResourceDefinition."""

    plural: str | None = None
    singular: str | None = None
    kind: str | None = None
    list_kind: str | None = None
    short_names: Texts = None
    categories: Texts = None


class DefinitionSpec(msgspec.Struct):
    """A CustomResourceDefinition's spec."""

    group: str | None = None
    scope: str | None = None
    names: Names | None = None
    versions: list[Version] | None = None
    conversion: dict[str, Any] | None = None


class DefinitionStatus(msgspec.Struct, rename="camel"):
    """A CustomResourceDefinition's status."""

    conditions: list[dict[str, Any]] | None = None
    stored_versions: Texts = None


class Definition(msgspec.Struct):
    """A CustomResourceDefinition."""

    spec: DefinitionSpec | None = None
    status: DefinitionStatus | None = None


class BudgetSpec(msgspec.Struct):
    """A PodDisruptionBudget's spec."""

    selector: Selector | None = None


class BudgetStatus(msgspec.Struct, rename="camel"):
    """A PodDisruptionBudget's status."""

    disruptions_allowed: int = 0


class Budget(msgspec.Struct):
    """A PodDisruptionBudget."""

    spec: BudgetSpec | None = None
    status: BudgetStatus | None = None


class Involved(msgspec.Struct):
    """The object that an Event is about."""

    kind: str | None = None
    namespace: str | None = None
    name: str | None = None


class Event(msgspec.Struct, rename="camel"):
    """A core Event."""

    involved_object: Involved | None = None
    message: str | None = None
    reason: str | None = None
    type: str | None = None
    count: int | None = None
    source: dict[str, Any] | None = None


_TYPES: dict[str, type] = {
    "/pods": Pod,
    "/services": Service,
    "/endpoints": Endpoints,
    f"{RBAC}/roles": Role,
    f"{RBAC}/clusterroles": Role,
    f"{RBAC}/rolebindings": Binding,
    f"{RBAC}/clusterrolebindings": Binding,
    f"{REGISTRATION}/apiservices": APIService,
    f"{ADMISSION}/mutatingwebhookconfigurations": Webhooks,
    f"{ADMISSION}/validatingwebhookconfigurations": Webhooks,
    "apiextensions.k8s.io/customresourcedefinitions": Definition,
    "policy/poddisruptionbudgets": Budget,
}


def check(obj: Object, kind: Kind) -> None:
    """Raise 400 when a field has the wrong type."""
    wanted = _TYPES.get(kind.resource)
    if kind.resource == "/events" and kind.group == "":
        wanted = Event
    if wanted is None:
        return
    try:
        msgspec.convert(obj, wanted)
    except msgspec.ValidationError as error:
        text = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {error}'
        raise bad_request(text) from None
