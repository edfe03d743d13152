# SPDX-License-Identifier: GPL-3.0-or-later
"""ControllerRevisions: the spec that a VirtualMachine's instance was started with."""

import copy
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object, owner_reference
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound
from turtles.kube.resources import CONTROLLERREVISION

log = logging.getLogger(__name__)

_REMEMBERED_TEMPLATES = 1000


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
        "data": {"spec": copy.deepcopy(vm["spec"])},
        "revision": generation,
    }


def started_generation(vmi: Mapping[str, Any]) -> int | None:
    """Return the generation of the VM a VMI was made from, or None."""
    text = (vmi["metadata"].get("annotations") or {}).get(labels.VM_GENERATION, "")
    return int(text) if text.isdigit() else None


def template_of(vm: Object) -> Mapping[str, Any]:
    """Return the spec of the VMI that a VM asks for now."""
    return (vm["spec"].get("template") or {}).get("spec") or {}


class Revisions:
    """Stores and reads revisions; the templates of those in use are remembered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._templates: OrderedDict[str, Object] = OrderedDict()
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
                "no revision stored, a later change will not ask for a restart: %s",
                error,
                extra={"namespace": metadata["namespace"], "vm": vm["metadata"]["name"]},
            )
        self._remember(metadata["name"], template_of(vm))

    def started_template(self, vm: Object, vmi: Object | None) -> Object | None:
        """Return the template a VMI was made from when it may differ from the VM's, else None."""
        if vmi is None or (generation := started_generation(vmi)) is None:
            return None
        if generation == int(vm["metadata"].get("generation") or 0):
            return None
        name = revision_name(vm, generation)
        with self._lock:
            if name in self._templates:
                return self._templates[name]
        try:
            revision = self._client.get(CONTROLLERREVISION, vm["metadata"]["namespace"], name)
        except NotFound:
            return None
        spec = (revision.get("data") or {}).get("spec") or {}
        template = (spec.get("template") or {}).get("spec") or {}
        self._remember(name, template)
        return dict(template)

    def forget(self, vm: Object, vmi: Object) -> None:
        """Delete the revision of a VMI that is gone, unless the next VMI starts from the same generation."""
        generation = started_generation(vmi)
        if generation is None or generation == int(vm["metadata"].get("generation") or 0):
            return
        try:
            self._client.delete(CONTROLLERREVISION, vm["metadata"]["namespace"], revision_name(vm, generation))
        except NotFound:
            return

    def _remember(self, name: str, template: Mapping[str, Any]) -> None:
        with self._lock:
            self._templates[name] = dict(template)
            if len(self._templates) > _REMEMBERED_TEMPLATES:
                self._templates.popitem(last=False)
