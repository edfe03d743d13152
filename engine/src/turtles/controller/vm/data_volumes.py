# SPDX-License-Identifier: GPL-3.0-or-later
"""The DataVolumes that a VirtualMachine brings along (KubeVirt user guide, "dataVolumeTemplates")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turtles.api import cdi, labels
from turtles.api.kinds.data_volume import DATA_VOLUME as KIND
from turtles.api.objects import Object, controller_of, get, is_deleted, owner_reference
from turtles.api.run_strategies import HALTED, run_strategy
from turtles.controller.caches import Caches, data_volumes_of
from turtles.controller.vm.revision import template_of
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.kubevirt import DATA_VOLUME

FAILED_CREATE = "FailedDataVolumeCreate"


@dataclass(frozen=True)
class Disks:
    """What of a machine's disks DataVolumes fill.

    :param data_volumes: by name.
    :param missing: templates whose DataVolume isn't there.
    :param failure: reason and message of why one can't be.
    """

    data_volumes: Mapping[str, Object]
    missing: tuple[str, ...] = ()
    failure: tuple[str, str] | None = None

    @property
    def are_ready(self) -> bool:
        """Whether the machine may start: the disks are there, or wait for it to use them."""
        if self.missing or self.failure:
            return False
        return all(
            cdi.is_populated(each) or cdi.phase_of(each) in cdi.AWAITS_CONSUMER for each in self.data_volumes.values()
        )


def of_template(vm: Object, template: Object) -> Object:
    """Return the DataVolume of a template."""
    metadata = template["metadata"]
    return {
        "apiVersion": KIND.api_version,
        "kind": KIND.kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": vm["metadata"]["namespace"],
            "labels": {**(metadata.get("labels") or {}), labels.CREATED_BY: vm["metadata"]["uid"]},
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [owner_reference(vm)],
        },
        "spec": template["spec"],
    }


class DataVolumes:
    """Creates DataVolumes of templates, once each."""

    def __init__(self, client: Client, caches: Caches, recorder: Recorder) -> None:
        self._client, self._caches, self._recorder = client, caches, recorder

    def sync(self, vm: Object) -> Disks:
        """Create what is missing; return what there is.

        :raises ApiError: the API server doesn't answer.
        """
        namespace = vm["metadata"]["namespace"]
        templates = {each["metadata"]["name"]: each for each in vm["spec"].get("dataVolumeTemplates") or ()}
        found = data_volumes_of(self._caches, namespace, template_of(vm), templates)
        missing: list[str] = []
        failure: tuple[str, str] | None = None
        for name, template in templates.items():
            if name in found:
                failure = failure or _foreign(vm, found[name])
            elif self._has_claim(namespace, name) or not _is_due(vm):
                # What is on a claim that nobody fills is the machine's disk
                continue
            else:
                try:
                    found[name] = self._create(vm, template)
                except Unavailable:
                    raise
                except ApiError as error:
                    missing.append(name)
                    failure = failure or self._refused(vm, name, error)
        return Disks(found, tuple(missing), failure)

    def _has_claim(self, namespace: str, name: str) -> bool:
        claim = self._caches.pvcs.get(namespace, name)
        return claim is not None and (controller_of(claim) or {}).get("kind") != KIND.kind

    def _create(self, vm: Object, template: Object) -> Object:
        wanted = of_template(vm, template)
        name = wanted["metadata"]["name"]
        try:
            made = self._client.create(DATA_VOLUME, wanted)
        except AlreadyExists:
            # The cache is behind
            made = self._client.get(DATA_VOLUME, wanted["metadata"]["namespace"], name)
        else:
            self._recorder.event(vm, "Normal", "SuccessfulDataVolumeCreate", f"Created DataVolume {name}")
        self._caches.data_volumes.observe(made)
        return made

    def _refused(self, vm: Object, name: str, error: ApiError) -> tuple[str, str]:
        words = error.message
        if isinstance(error, NotFound):
            words = "the API server doesn't serve DataVolumes; install the engine's definitions again, or CDI"
        message = f"Error creating DataVolume {name}: {words}"
        before = get(vm, "status", "conditions") or ()
        if not any(each.get("message") == message for each in before):
            self._recorder.event(vm, "Warning", FAILED_CREATE, message)
        return FAILED_CREATE, message


def _is_due(vm: Object) -> bool:
    """Say whether DataVolumes are to be there: at once, unless the machine says that it is when it starts."""
    if (vm["metadata"].get("annotations") or {}).get(cdi.IMMEDIATE_CREATION) != "false":
        return True
    return run_strategy(vm) != HALTED or bool(get(vm, "status", "stateChangeRequests"))


def _foreign(vm: Object, data_volume: Object) -> tuple[str, str] | None:
    """Return what is wrong with a DataVolume that has a template's name and isn't the machine's."""
    owner = controller_of(data_volume)
    if owner is not None and owner.get("uid") == vm["metadata"]["uid"]:
        return (FAILED_CREATE, f"DataVolume {owner['name']} is being deleted") if is_deleted(data_volume) else None
    name = data_volume["metadata"]["name"]
    whose = f"belongs to {owner.get('kind')} {owner.get('name')}" if owner else "belongs to nobody"
    return (
        FAILED_CREATE,
        f"DataVolume {name} exists, and {whose}: it is left as it is. Give the template another name, or remove the "
        "template to use what is there",
    )
