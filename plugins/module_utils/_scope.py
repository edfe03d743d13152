# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bases of the modules for two kinds that differ in their scope: one in namespaces, one for the whole cluster."""

from __future__ import annotations

from . import _resources
from ._info import InfoModule
from ._resource_module import ResourceModule

API_VERSION = "instancetype.kubevirt.io/v1beta1"
SCOPE_ARGUMENTS = {"scope": {"type": "str", "choices": ["cluster", "namespace"]}, "namespace": {"type": "str"}}


def resource_of(params, kind, cluster_kind):
    """Return the Resource of the kind that the options mean: without scope, a namespace says which."""
    scope = params["scope"] or ("namespace" if params["namespace"] else "cluster")
    return _resources.known(API_VERSION, kind if scope == "namespace" else cluster_kind)


class ScopedModule(ResourceModule):
    """One object of KIND in a namespace, or of CLUSTER_KIND."""

    API_VERSION = API_VERSION
    CLUSTER_KIND = ""

    @classmethod
    def arguments(cls):
        inherited = super().arguments()
        return {**inherited, "argument_spec": {**inherited["argument_spec"], **SCOPE_ARGUMENTS}}

    def identify(self):
        self.resource = resource_of(self.params, self.KIND, self.CLUSTER_KIND)
        super().identify()


class ScopedInfoModule(InfoModule):
    """Read objects of KIND, or of CLUSTER_KIND."""

    CLUSTER_KIND = ""
    ARGUMENTS = {
        **{name: spec for name, spec in InfoModule.ARGUMENTS.items() if name != "api_version"},
        **SCOPE_ARGUMENTS,
    }

    def resource(self):
        return resource_of(self.params, self.KIND, self.CLUSTER_KIND)
