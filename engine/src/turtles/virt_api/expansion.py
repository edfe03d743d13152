# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachines that say themselves what they have from an instance type and a preference.

Rules: KubeVirt API, `virtualmachines/expand-spec` for one that is stored, `expand-vm-spec` for one that isn't.
"""

from __future__ import annotations

from collections.abc import Callable

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kind import Missing
from turtles.api.kinds.instancetype.expansion import Unexpandable, expand
from turtles.api.kinds.instancetype.matchers import Find
from turtles.api.kinds.vm import VM_SPEC
from turtles.api.language import INVALID, REQUIRED, Cause
from turtles.api.objects import Object, get
from turtles.api.rules import check_metadata, schema_causes
from turtles.kube.client import Client
from turtles.virt_api.instances import fetch_machine
from turtles.virt_api.status import Failure


class Expansion:
    """Expands VirtualMachines.

    :param find: reads instance types, preferences and their revisions.
    :param configuration: returns the configuration in force.
    """

    def __init__(self, client: Client, find: Find, configuration: Callable[[], ClusterConfiguration]) -> None:
        self._client = client
        self._find = find
        self._configuration = configuration

    def stored(self, namespace: str, name: str, options: Object) -> Object:
        """Return a VirtualMachine of the API, expanded."""
        vm = fetch_machine(self._client, namespace, name)
        try:
            return self._expand(vm)
        except (Missing, Unexpandable) as error:
            causes = [Cause("", str(error))]
            raise Failure(500, f"Internal error occurred: {error}", causes=causes) from error

    def given(self, namespace: str, name: str, vm: Object) -> Object:
        """Return a VirtualMachine that a client sent, expanded."""
        if not vm:
            raise Failure(400, "empty request body")
        if causes := _causes(vm):
            raise Failure(400, "Object is not a valid VirtualMachine", causes=causes)
        metadata = vm.get("metadata") or {}
        if metadata.get("namespace") not in (None, "", namespace):
            raise Failure(400, f"VM namespace must be empty or {namespace}")
        try:
            return self._expand({**vm, "metadata": {**metadata, "namespace": namespace}})
        except (Missing, Unexpandable) as error:
            raise Failure(400, str(error)) from error

    def _expand(self, vm: Object) -> Object:
        return expand(vm, self._find, self._configuration())


def _causes(vm: Object) -> list[Cause]:
    """Return why something isn't a VirtualMachine."""
    if get(vm, "spec", "template") is None:
        return [Cause(REQUIRED, "missing virtual machine template.", "spec.template")]
    causes = schema_causes(vm, VM_SPEC)
    for path, metadata in (
        ("metadata", vm.get("metadata")),
        ("spec.template.metadata", get(vm, "spec", "template", "metadata")),
    ):
        check_metadata(metadata, path, causes)
    if not causes and get(vm, "spec", "template", "spec") is None:
        causes.append(Cause(REQUIRED, "spec.template.spec is a required field", "spec.template.spec"))
    if not isinstance(vm.get("status") or {}, dict):
        causes.append(Cause(INVALID, "status must be of type object", "status"))
    return causes
