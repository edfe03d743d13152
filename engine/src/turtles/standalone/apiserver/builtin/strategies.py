# SPDX-License-Identifier: GPL-3.0-or-later
"""What is particular to a built-in kind: immutable fields, validation."""

import base64
from collections.abc import Callable
from typing import Any

from turtles.standalone.apiserver.builtin import (
    event_rules,
    limit_rules,
    network_rules,
    node_rules,
    object_rules,
    pod_rules,
    services,
    webhook_rules,
)
from turtles.standalone.apiserver.custom import crd
from turtles.standalone.apiserver.schema import metadata
from turtles.standalone.apiserver.schema.kinds import ADMISSION, RBAC, REGISTRATION, Kind
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    StatusError,
    bad_request,
    invalid_value,
    not_supported,
    required,
)

MAX_SECRET = 1024 * 1024


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


#: What reading a field of a wrong type raises, should a rule trip over what the decoder let through.
_MALFORMED = (AttributeError, TypeError, KeyError, IndexError, ValueError)


def _undecodable(kind: Kind, error: Exception) -> StatusError:
    text = f"a field has the wrong type: {error}"
    return bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {text}')


# -- validation


def _validate_role(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(_list(obj.get("rules"))):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if obj["kind"] == "Role":
                text = "namespaced rules cannot apply to non-resource URLs"
                causes.append(invalid_value(f"{path}.nonResourceURLs", rule["nonResourceURLs"], text))
            if any(rule.get(name) for name in ("apiGroups", "resources", "resourceNames")):
                text = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(invalid_value(f"{path}.nonResourceURLs", rule["nonResourceURLs"], text))
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        causes += _validate_aggregation(aggregation.get("clusterRoleSelectors") or [])
    return causes


def _validate_aggregation(selectors: list[Object]) -> list[Cause]:
    path = "aggregationRule.clusterRoleSelectors"
    if not selectors:
        return [required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")]
    causes: list[Cause] = []
    for index, selector in enumerate(selectors):
        found = metadata.selector_causes(selector, f"{path}[{index}]")
        if found:
            # Kubernetes shows the selector that it couldn't make.
            found.append(invalid_value(f"{path}[{index}]", "null", "invalid label selector."))
        causes += found
    return causes


def _validate_binding(obj: Object, old: Object | None) -> list[Cause]:
    reference = _map(obj.get("roleRef"))
    causes: list[Cause] = []
    kinds = ["ClusterRole"] if obj["kind"] == "ClusterRoleBinding" else ["Role", "ClusterRole"]
    if reference.get("apiGroup") != RBAC:
        causes.append(not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", [RBAC]))
    if reference.get("kind") not in kinds:
        causes.append(not_supported("roleRef.kind", reference.get("kind", ""), kinds))
    if not reference.get("name"):
        causes.append(required("roleRef.name"))
    for index, subject in enumerate(_list(obj.get("subjects"))):
        if not subject.get("name"):
            causes.append(required(f"subjects[{index}].name"))
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            allowed = ["ServiceAccount", "User", "Group"]
            causes.append(not_supported(f"subjects[{index}].kind", subject.get("kind", ""), allowed))
        elif subject["kind"] == "ServiceAccount" and not subject.get("namespace") and len(kinds) == 1:
            causes.append(required(f"subjects[{index}].namespace"))
    if old is not None and old.get("roleRef") != obj.get("roleRef"):
        causes.append(invalid_value("roleRef", obj.get("roleRef"), "cannot change roleRef"))
    return causes


def _validate_api_service(obj: Object, old: Object | None) -> list[Cause]:
    spec = _map(obj.get("spec"))
    name, wanted = obj["metadata"].get("name", ""), f"{spec.get('version') or ''}.{spec.get('group') or ''}"
    causes: list[Cause] = []
    if name != wanted:
        causes.append(invalid_value("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"'))
    if spec.get("group"):
        causes += metadata.subdomain_causes(spec["group"], "spec.group")
    elif spec.get("version") != "v1":
        causes.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
    if not metadata.LABEL_1035.match(spec.get("version") or ""):
        causes.append(invalid_value("spec.version", spec.get("version") or "", metadata.LABEL_1035_MESSAGE))
    for field, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        if not 0 < (spec.get(field) or 0) <= most:
            text = f"must be positive and less than {most}"
            causes.append(invalid_value(f"spec.{field}", spec.get(field) or 0, text))
    service, insecure = spec.get("service"), bool(spec.get("insecureSkipTLSVerify"))
    if service is None:
        if spec.get("caBundle"):
            size = f"{len(base64.b64decode(spec['caBundle']))} bytes"
            causes.append(invalid_value("spec.caBundle", size, "local APIServices may not have a caBundle"))
        if insecure:
            text = "local APIServices may not have insecureSkipTLSVerify"
            causes.append(invalid_value("spec.insecureSkipTLSVerify", insecure, text))
        return causes
    causes += [required(f"spec.service.{one}") for one in ("namespace", "name") if not service.get(one)]
    if not 0 < service.get("port", 0) < 65536:
        text = "port is not valid: must be between 1 and 65535, inclusive"
        causes.append(invalid_value("spec.service.port", service.get("port", 0), text))
    if insecure and spec.get("caBundle"):
        causes.append(invalid_value("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
    return causes


_VALIDATORS: dict[str, Callable[[Object, Object | None], list[Cause]]] = {
    "/pods": pod_rules.validate,
    "/secrets": object_rules.validate_secret,
    "/configmaps": object_rules.validate_config_map,
    services.RESOURCE: services.validate,
    "/persistentvolumeclaims": object_rules.validate_claim,
    "/persistentvolumes": object_rules.validate_volume,
    "/events": event_rules.validate,
    "storage.k8s.io/storageclasses": object_rules.validate_storage_class,
    "/limitranges": limit_rules.validate_limit_range,
    "/resourcequotas": limit_rules.validate_quota,
    "/endpoints": network_rules.validate_endpoints,
    "discovery.k8s.io/endpointslices": network_rules.validate_slice,
    "/nodes": node_rules.validate_node,
    "/namespaces": node_rules.validate_namespace,
    "apps/controllerrevisions": object_rules.validate_revision,
    "coordination.k8s.io/leases": object_rules.validate_lease,
    "policy/poddisruptionbudgets": object_rules.validate_budget,
    "scheduling.k8s.io/priorityclasses": object_rules.validate_priority_class,
    f"{RBAC}/roles": _validate_role,
    f"{RBAC}/clusterroles": _validate_role,
    f"{RBAC}/rolebindings": _validate_binding,
    f"{RBAC}/clusterrolebindings": _validate_binding,
    f"{ADMISSION}/mutatingwebhookconfigurations": webhook_rules.validate,
    f"{ADMISSION}/validatingwebhookconfigurations": webhook_rules.validate,
    f"{REGISTRATION}/apiservices": _validate_api_service,
    crd.RESOURCE: crd.validate,
}


def validate(obj: Object, old: Object | None, kind: Kind) -> list[Cause]:
    """Return what is wrong with an object of a built-in kind."""
    validator = _VALIDATORS.get(kind.resource)
    if validator is None:
        return []
    try:
        return validator(obj, old)
    except _MALFORMED as error:
        raise _undecodable(kind, error) from None
