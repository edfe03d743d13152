# SPDX-License-Identifier: GPL-3.0-or-later
"""ControllerRevisions: the spec that a VirtualMachine's instance was started with."""

import contextlib
import copy
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from turtles.api import labels
from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import HOTPLUG_VOLUMES
from turtles.api.kind import Context
from turtles.api.kinds.instancetype import matchers
from turtles.api.kinds.vmi.comparison import is_same_instance, is_same_template
from turtles.api.kinds.vmi.defaults import default
from turtles.api.objects import Object, annotations_of, owner_reference
from turtles.api.texts import to_number
from turtles.controller.vm.live_update import without_live_fields
from turtles.controller.vmi.template import make_vmi
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound
from turtles.kube.resources import CONTROLLERREVISION
from turtles.log import about

log = logging.getLogger(__name__)

_REMEMBERED = 1000


def revision_name(vm: Object, generation: int) -> str:
    """Return the name of the ControllerRevision that keeps the spec a VMI was started with."""
    return f"revision-start-vm-{vm['metadata']['uid']}-{generation}"


def make_revision(vm: Object) -> Object:
    """Return the ControllerRevision of the VM's present generation."""
    generation = int(vm["metadata"].get("generation") or 0)
    return {
        "apiVersion": CONTROLLERREVISION.api_version,
        "kind": CONTROLLERREVISION.kind,
        "metadata": {
            "name": revision_name(vm, generation),
            "namespace": vm["metadata"]["namespace"],
            "ownerReferences": [owner_reference(vm)],
        },
        "data": {"spec": copy.deepcopy(vm["spec"]), "status": _used(vm)},
        "revision": generation,
    }


def started_generation(vm: Object, vmi: Mapping[str, Any]) -> int | None:
    """Return the generation of the VM that a VMI was made from; None if it wasn't made from this VM."""
    text = annotations_of(vmi).get(labels.VM_GENERATION, "")
    if (generation := to_number(text)) is None:
        return None
    # An adopted instance was made from another VM, whose generations mean nothing here.
    made_from = (vmi.get("status") or {}).get("virtualMachineRevisionName")
    return generation if made_from in (None, "", revision_name(vm, generation)) else None


def started_revision(vm: Object, vmi: Mapping[str, Any]) -> str | None:
    """Return the name of the revision that keeps what a VMI was made from, even if that was another VM; else None."""
    if made_from := (vmi.get("status") or {}).get("virtualMachineRevisionName"):
        return str(made_from)
    generation = started_generation(vm, vmi)
    return None if generation is None else revision_name(vm, generation)


def is_current(vm: Object, vmi: Mapping[str, Any]) -> bool:
    """Tell whether a VMI was made from what the VM says now."""
    return started_revision(vm, vmi) == revision_name(vm, int(vm["metadata"].get("generation") or 0))


def template_of(vm: Object) -> Mapping[str, Any]:
    """Return the spec of the VMI that a VM asks for now."""
    return (vm["spec"].get("template") or {}).get("spec") or {}


@dataclass(frozen=True)
class _Started:
    """What of a VM its instances depend on.

    :param template: the template's spec. :param named: what the matchers name.
    :param chosen: the matchers themselves, by their fields. :param used: what the VM's status says that they found.
    """

    template: Mapping[str, Any]
    named: Sequence[Any]
    chosen: Mapping[str, Any]
    used: Mapping[str, Any]

    def as_vm(self, vm: Object) -> Object:
        """Return a VM that asks for it."""
        template = {**(vm["spec"].get("template") or {}), "spec": self.template}
        return {**vm, "spec": {**vm["spec"], **self.chosen, "template": template}, "status": self.used}


def _started_with(spec: Mapping[str, Any], used: Mapping[str, Any]) -> _Started:
    return _Started(
        (spec.get("template") or {}).get("spec") or {},
        matchers.named_by({"spec": spec}),
        {matcher.field: spec.get(matcher.field) for matcher in matchers.MATCHERS},
        used,
    )


def _used(vm: Object) -> Object:
    """Return what a VM's status says that its matchers found."""
    status = vm.get("status") or {}
    references = [matcher.reference for matcher in matchers.MATCHERS]
    return {reference: status[reference] for reference in references if status.get(reference)}


def wanted_spec(vm: Object, configuration: ClusterConfiguration, template: Mapping[str, Any] | None = None) -> Object:
    """Return the spec of the VMI that a VM asks for now, with its defaults.

    :param template: what it is made of, if that isn't the VM's template alone.
    """
    vmi = make_vmi(vm, vm["spec"]["template"], vm["metadata"]["name"])
    if template is not None:
        vmi["spec"] = copy.deepcopy(dict(template))
    spec: Object = default(vmi, Context(configuration))["spec"]
    return spec


class Revisions:
    """Stores and reads revisions; what matters of them is remembered, also while an instance outlives its revision."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._specs: OrderedDict[str, _Started] = OrderedDict()
        self._lock = threading.Lock()

    def store(self, vm: Object) -> None:
        """Keep the VM's present spec. Without it a later change won't ask for a restart, which is no reason to stop."""
        revision = make_revision(vm)
        metadata = revision["metadata"]
        try:
            self._client.create(CONTROLLERREVISION, revision)
        except AlreadyExists:
            pass
        except ApiError as error:
            log.warning(
                "no revision stored, later changes will not be reported as requiring a restart: %s",
                error,
                extra=about("vm", vm),
            )
        self._remember(metadata["name"], _started_with(vm["spec"], _used(vm)))

    def is_outdated(
        self,
        vm: Object,
        vmi: Object | None,
        configuration: ClusterConfiguration,
        expanded: Callable[[Object], Mapping[str, Any]],
        *,
        follows: bool = False,
    ) -> bool:
        """Tell whether a VMI isn't what the VM's template asks for now.

        :param configuration: in force. It is only needed for a VMI that has no revision, which was made by hand.
        :param expanded: gives the template's spec of a VM with what it has from an instance type and a preference.
        :param follows: changes that it can follow while it runs don't count.
        """
        if vmi is None or is_current(vm, vmi):
            return False
        judged: Callable[[Mapping[str, Any]], Object] = dict
        if follows:
            judged = partial(without_live_fields, volumes=configuration.has_gate(HOTPLUG_VOLUMES))
        name = started_revision(vm, vmi)
        started = self._started(vm["metadata"]["namespace"], name) if name else None
        if started is not None:
            now = _started_with(vm["spec"], {})
            if follows and any((*now.named, *started.named)):
                return not is_same_template(judged(expanded(started.as_vm(vm))), judged(expanded(vm)))
            return now.named != started.named or not is_same_template(judged(started.template), judged(now.template))
        wanted = wanted_spec(vm, configuration)
        # A request to start may have said so.
        wanted["startStrategy"] = vmi["spec"].get("startStrategy")
        return not is_same_instance(judged(wanted), judged(vmi["spec"]))

    def _started(self, namespace: str, name: str) -> _Started | None:
        with self._lock:
            if name in self._specs:
                return self._specs[name]
        try:
            revision = self._client.get(CONTROLLERREVISION, namespace, name)
        except NotFound:
            return None
        data = revision.get("data") or {}
        started = _started_with(data.get("spec") or {}, data.get("status") or {})
        self._remember(name, started)
        return started

    def hand_over(self, vm: Object, vmi: Object) -> None:
        """Make a VMI that outlives its VM the owner of its revision, which then goes with the VMI."""
        if (name := started_revision(vm, vmi)) is None:
            return
        metadata = {"ownerReferences": [owner_reference(vmi)]}
        with contextlib.suppress(NotFound):
            self._client.patch(CONTROLLERREVISION, vmi["metadata"]["namespace"], name, {"metadata": metadata})

    def forget(self, vm: Object, vmi: Object) -> None:
        """Delete the revision of a VMI that has ended; the next start stores its own."""
        if (name := started_revision(vm, vmi)) is None:
            return
        with contextlib.suppress(NotFound):
            self._client.delete(CONTROLLERREVISION, vmi["metadata"]["namespace"], name)

    def _remember(self, name: str, started: _Started) -> None:
        with self._lock:
            self._specs[name] = started
            if len(self._specs) > _REMEMBERED:
                self._specs.popitem(last=False)
