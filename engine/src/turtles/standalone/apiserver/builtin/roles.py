# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and ClusterRoles.

Source: Kubernetes' pkg/apis/rbac/validation.
"""

from turtles.standalone.apiserver.access import escalation
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin.columns import as_list
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.schema.metadata import selector_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, required


class ClusterRoles(Strategy):
    """ClusterRoles."""

    #: Whether rules may name paths.
    has_paths = True

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        causes: list[Cause] = []
        for index, rule in enumerate(as_list(obj.get("rules"))):
            path = f"rules[{index}]"
            if not rule.get("verbs"):
                causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
            if rule.get("nonResourceURLs"):
                if not self.has_paths:
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
            causes += _aggregation_causes(aggregation.get("clusterRoleSelectors") or [])
        return causes

    def authorize(self, cluster: Cluster, context: Context, obj: Object, old: Object | None) -> None:
        """Refuse a role that gives more than its author has."""
        escalation.check_role(cluster.authorizer, context.user, context.kind.plural, context.namespace, obj, old)


class Roles(ClusterRoles):
    """Roles."""

    has_paths = False


def _aggregation_causes(selectors: list[Object]) -> list[Cause]:
    path = "aggregationRule.clusterRoleSelectors"
    if not selectors:
        return [required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")]
    causes: list[Cause] = []
    for index, selector in enumerate(selectors):
        wrong = selector_causes(selector, f"{path}[{index}]")
        if wrong:
            # Kubernetes shows the selector that it couldn't make.
            wrong.append(invalid_value(f"{path}[{index}]", None, "invalid label selector."))
        causes += wrong
    return causes
