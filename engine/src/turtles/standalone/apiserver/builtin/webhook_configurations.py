# SPDX-License-Identifier: GPL-3.0-or-later
"""MutatingWebhookConfigurations and ValidatingWebhookConfigurations; admission/webhooks.py asks the webhooks.

Source: Kubernetes' pkg/apis/admissionregistration/validation.
"""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, column, created, name_of
from turtles.standalone.apiserver.builtin.crd_rules import validate_client
from turtles.standalone.apiserver.builtin.fields import set_missing
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.cel import conditions
from turtles.standalone.apiserver.schema.metadata import LABEL_1035, LABEL_1035_MESSAGE, selector_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, duplicate, invalid_value, not_supported, required

_OPERATIONS = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]
_SCOPES = ["*", "Cluster", "Namespaced"]
_SIDE_EFFECTS = ["None", "NoneOnDryRun"]
_VERSIONS = ["v1", "v1beta1"]
#: The values that some fields may have.
_CHOICES = {"failurePolicy": ["Fail", "Ignore"], "matchPolicy": ["Equivalent", "Exact"]}
_REINVOCATIONS = ["IfNeeded", "Never"]


class ValidatingWebhookConfigurations(Strategy):
    """ValidatingWebhookConfigurations."""

    needs_version = True

    columns = (
        NAME,
        column("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration", "integer"),
        AGE,
    )

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), len(as_list(obj.get("webhooks"))), created(obj)]

    def default(self, obj: Object) -> None:
        for webhook in obj.get("webhooks") or ():
            set_missing(
                webhook,
                {
                    "failurePolicy": "Fail",
                    "matchPolicy": "Equivalent",
                    "namespaceSelector": {},
                    "objectSelector": {},
                    "timeoutSeconds": 10,
                },
            )
            service = webhook["clientConfig"].get("service")
            if service is not None:
                service.setdefault("port", 443)
            for rule in webhook.get("rules") or ():
                rule.setdefault("scope", "*")

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        before = [one.get("matchConditions") for one in (old or {}).get("webhooks") or ()]
        causes: list[Cause] = []
        names: set[str] = set()
        for index, webhook in enumerate(obj.get("webhooks") or ()):
            path, name = f"webhooks[{index}]", webhook.get("name") or ""
            causes += _webhook(webhook, path)
            if webhook.get("matchConditions") not in before:
                causes += conditions.check(webhook.get("matchConditions"), f"{path}.matchConditions")
            causes += _review_versions(webhook.get("admissionReviewVersions") or [], f"{path}.admissionReviewVersions")
            if name and name in names:
                causes.append(duplicate(f"{path}.name", name))
            names.add(name)
        return causes


class MutatingWebhookConfigurations(ValidatingWebhookConfigurations):
    """MutatingWebhookConfigurations."""

    def default(self, obj: Object) -> None:
        super().default(obj)
        for webhook in obj.get("webhooks") or ():
            webhook.setdefault("reinvocationPolicy", "Never")


def _webhook(webhook: Object, path: str) -> list[Cause]:
    name = webhook.get("name") or ""
    causes: list[Cause] = []
    if not name:
        causes.append(required(f"{path}.name"))
    elif name.count(".") < 2:
        text = "should be a domain with at least three segments separated by dots"
        causes.append(invalid_value(f"{path}.name", name, text))
    for place, rule in enumerate(webhook.get("rules") or ()):
        causes += _rule(rule, f"{path}.rules[{place}]")
    for field, allowed in _CHOICES.items():
        if webhook.get(field, allowed[0]) not in allowed:
            causes.append(not_supported(f"{path}.{field}", webhook[field], allowed))
    if webhook.get("sideEffects") is None:
        causes.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(_SIDE_EFFECTS)}"))
    elif webhook["sideEffects"] not in _SIDE_EFFECTS:
        causes.append(not_supported(f"{path}.sideEffects", webhook["sideEffects"], _SIDE_EFFECTS))
    timeout = webhook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        text = "the timeout value must be between 1 and 30 seconds"
        causes.append(invalid_value(f"{path}.timeoutSeconds", timeout, text))
    for field in ("namespaceSelector", "objectSelector"):
        causes += selector_causes(webhook.get(field), f"{path}.{field}")
    if webhook.get("reinvocationPolicy", "Never") not in _REINVOCATIONS:
        causes.append(not_supported(f"{path}.reinvocationPolicy", webhook["reinvocationPolicy"], _REINVOCATIONS))
    return causes + validate_client(webhook.get("clientConfig") or {}, f"{path}.clientConfig")


def _rule(rule: Object, path: str) -> list[Cause]:
    operations = rule.get("operations") or []
    causes = [] if operations else [required(f"{path}.operations")]
    if len(operations) > 1 and "*" in operations:
        text = "if '*' is present, must not specify other operations"
        causes.append(invalid_value(f"{path}.operations", operations, text))
    for index, one in enumerate(operations):
        if one not in _OPERATIONS:
            causes.append(not_supported(f"{path}.operations[{index}]", one, _OPERATIONS))
    for field, what in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(field) or []
        if not values:
            causes.append(required(f"{path}.{field}"))
        elif len(values) > 1 and "*" in values:
            text = f"if '*' is present, must not specify other {what}"
            causes.append(invalid_value(f"{path}.{field}", values, text))
        if field == "apiVersions":
            causes += [required(f"{path}.{field}[{index}]") for index, one in enumerate(values) if not one]
    causes += _resources(rule.get("resources") or [], f"{path}.resources")
    if rule.get("scope", "*") not in _SCOPES:
        causes.append(not_supported(f"{path}.scope", rule["scope"], _SCOPES))
    return causes


def _resources(resources: list[str], path: str) -> list[Cause]:
    causes = [] if resources else [required(path)]
    whole: set[str] = set()
    parts: set[str] = set()
    for index, one in enumerate(resources):
        resource, slash, subresource = one.partition("/")
        if not one:
            causes.append(required(f"{path}[{index}]"))
        if not slash:
            continue
        if resource in whole:
            text = f"if '{resource}/*' is present, must not specify {one}"
            causes.append(invalid_value(f"{path}[{index}]", one, text))
        if subresource in parts:
            text = f"if '*/{subresource}' is present, must not specify {one}"
            causes.append(invalid_value(f"{path}[{index}]", one, text))
        if subresource == "*":
            whole.add(resource)
        if resource == "*":
            parts.add(subresource)
    if len(resources) > 1 and "*/*" in resources:
        causes.append(invalid_value(path, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and any(one != "*" and "/" not in one for one in resources):
        text = "if '*' is present, must not specify other resources without subresources"
        causes.append(invalid_value(path, resources, text))
    return causes


def _review_versions(versions: list[Any], path: str) -> list[Cause]:
    if not versions:
        return [required(path, f"must specify one of {', '.join(_VERSIONS)}")]
    causes = []
    for index, one in enumerate(versions):
        if one in versions[:index]:
            causes.append(invalid_value(f"{path}[{index}]", one, "duplicate version"))
        elif not LABEL_1035.match(one):
            causes.append(invalid_value(f"{path}[{index}]", one, LABEL_1035_MESSAGE))
    if not set(versions) & set(_VERSIONS):
        causes.append(invalid_value(path, versions, f"must include at least one of {', '.join(_VERSIONS)}"))
    return causes
