# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategies of built-in kinds."""

from turtles.standalone.apiserver.builtin import crd
from turtles.standalone.apiserver.builtin.api_services import APIServices
from turtles.standalone.apiserver.builtin.config_maps import ConfigMaps
from turtles.standalone.apiserver.builtin.controller_revisions import ControllerRevisions
from turtles.standalone.apiserver.builtin.custom_resource_definitions import CustomResourceDefinitions
from turtles.standalone.apiserver.builtin.endpoint_slices import EndpointSlices
from turtles.standalone.apiserver.builtin.endpoints import Endpoints
from turtles.standalone.apiserver.builtin.events import Events
from turtles.standalone.apiserver.builtin.leases import Leases
from turtles.standalone.apiserver.builtin.limit_ranges import LimitRanges
from turtles.standalone.apiserver.builtin.namespaces import Namespaces
from turtles.standalone.apiserver.builtin.network_policies import NetworkPolicies
from turtles.standalone.apiserver.builtin.nodes import Nodes
from turtles.standalone.apiserver.builtin.persistent_volume_claims import PersistentVolumeClaims
from turtles.standalone.apiserver.builtin.persistent_volumes import PersistentVolumes
from turtles.standalone.apiserver.builtin.pod_disruption_budgets import PodDisruptionBudgets
from turtles.standalone.apiserver.builtin.pods import Pods
from turtles.standalone.apiserver.builtin.priority_classes import PriorityClasses
from turtles.standalone.apiserver.builtin.resource_quotas import ResourceQuotas
from turtles.standalone.apiserver.builtin.role_bindings import ClusterRoleBindings, RoleBindings
from turtles.standalone.apiserver.builtin.roles import ClusterRoles, Roles
from turtles.standalone.apiserver.builtin.secrets import Secrets
from turtles.standalone.apiserver.builtin.service_accounts import ServiceAccounts
from turtles.standalone.apiserver.builtin.services import Services
from turtles.standalone.apiserver.builtin.storage_classes import StorageClasses
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.builtin.webhook_configurations import (
    MutatingWebhookConfigurations,
    ValidatingWebhookConfigurations,
)
from turtles.standalone.apiserver.schema.kinds import ADMISSION, RBAC, REGISTRATION

#: Strategies by resource. Every kind of schema/kinds.py has one.
STRATEGIES: dict[str, Strategy] = {
    "/namespaces": Namespaces(),
    "/nodes": Nodes(),
    "/pods": Pods(),
    "/events": Events(),
    "/secrets": Secrets(),
    "/configmaps": ConfigMaps(),
    "/serviceaccounts": ServiceAccounts(),
    "/services": Services(),
    "/endpoints": Endpoints(),
    "/persistentvolumes": PersistentVolumes(),
    "/persistentvolumeclaims": PersistentVolumeClaims(),
    "/resourcequotas": ResourceQuotas(),
    "/limitranges": LimitRanges(),
    "discovery.k8s.io/endpointslices": EndpointSlices(),
    "storage.k8s.io/storageclasses": StorageClasses(),
    "coordination.k8s.io/leases": Leases(),
    "scheduling.k8s.io/priorityclasses": PriorityClasses(),
    "networking.k8s.io/networkpolicies": NetworkPolicies(),
    "policy/poddisruptionbudgets": PodDisruptionBudgets(),
    "apps/controllerrevisions": ControllerRevisions(),
    f"{RBAC}/roles": Roles(),
    f"{RBAC}/rolebindings": RoleBindings(),
    f"{RBAC}/clusterroles": ClusterRoles(),
    f"{RBAC}/clusterrolebindings": ClusterRoleBindings(),
    crd.RESOURCE: CustomResourceDefinitions(),
    f"{REGISTRATION}/apiservices": APIServices(),
    f"{ADMISSION}/mutatingwebhookconfigurations": MutatingWebhookConfigurations(),
    f"{ADMISSION}/validatingwebhookconfigurations": ValidatingWebhookConfigurations(),
}
