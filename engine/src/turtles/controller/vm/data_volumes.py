# SPDX-License-Identifier: GPL-3.0-or-later
"""The DataVolumes that a VirtualMachine brings along (KubeVirt user guide, "dataVolumeTemplates")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turtles.api import cdi, data_sources, labels
from turtles.api.kind import Missing
from turtles.api.kinds.data_volume import DATA_VOLUME as KIND
from turtles.api.objects import Object, annotations_of, controller_of, get, is_deleted, owner_reference
from turtles.api.phases import phase_of
from turtles.api.run_strategies import HALTED, run_strategy
from turtles.controller.caches import Caches, data_volumes_of
from turtles.controller.vm.revision import template_of
from turtles.kube import copy_rights
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.kubevirt import DATA_VOLUME
from turtles.kube.lookup import Lookup
from turtles.kube.writer import Writer

FAILED_CREATE, UNAUTHORIZED = "FailedDataVolumeCreate", "UnauthorizedDataVolumeCreate"


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
            cdi.is_populated(each) or phase_of(each) in cdi.AWAITS_CONSUMER for each in self.data_volumes.values()
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
        self._client, self._writer, self._caches, self._recorder = client, Writer(client), caches, recorder

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
                except _Unauthorized as error:
                    missing.append(name)
                    failure = failure or self._tell(
                        vm, UNAUTHORIZED, f"Not authorized to create DataVolume {name}: {error}"
                    )
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
        self._authorize(vm, wanted)
        try:
            stored = self._writer.create(self._caches.data_volumes, wanted)
        except AlreadyExists:
            # The cache is behind
            stored = self._client.get(DATA_VOLUME, wanted["metadata"]["namespace"], name)
            self._caches.data_volumes.observe(stored)
            return stored
        self._recorder.event(vm, "Normal", "SuccessfulDataVolumeCreate", f"Created DataVolume {name}")
        return stored

    def _authorize(self, vm: Object, wanted: Object) -> None:
        """Check that the machine's service account may copy what a DataVolume is to be a copy of, and note that there.

        The API server is asked about this component otherwise, which may copy all.

        :raises _Unauthorized: it may not.
        """
        namespace = vm["metadata"]["namespace"]
        reference = data_sources.reference_of(wanted)
        source = data_sources.CopySource.of(get(wanted, "spec", "source"), namespace)
        wanted["metadata"]["annotations"].pop(cdi.CLONE_SOURCE, None)
        if reference is not None:
            source = self._led_to(*reference)
            if source is not None:
                wanted["metadata"]["annotations"][cdi.CLONE_SOURCE] = str(source)
        if source is None:
            return
        user = copy_rights.service_account(namespace, _service_account(vm))
        if message := copy_rights.refusal(self._client, user, source, namespace):
            raise _Unauthorized(message)

    def _led_to(self, namespace: str, name: str) -> data_sources.CopySource | None:
        """Return what a DataSource leads to; None if it leads to nothing, which admission tells."""
        find = Lookup(self._client)
        try:
            found = find(data_sources.KIND, namespace, name)
            return data_sources.resolve(found, lambda where, other: find(data_sources.KIND, where, other))
        except (Missing, data_sources.Unresolved):
            return None

    def _refused(self, vm: Object, name: str, error: ApiError) -> tuple[str, str]:
        words = error.message
        if isinstance(error, NotFound):
            words = "the API server doesn't serve DataVolumes; install the engine's definitions again, or CDI"
        return self._tell(vm, FAILED_CREATE, f"Error creating DataVolume {name}: {words}")

    def _tell(self, vm: Object, reason: str, message: str) -> tuple[str, str]:
        before = get(vm, "status", "conditions") or ()
        if not any(each.get("message") == message for each in before):
            self._recorder.event(vm, "Warning", reason, message)
        return reason, message


class _Unauthorized(Exception):
    """A machine may not have a copy of a disk. The message says why."""


def _service_account(vm: Object) -> str:
    """Return the name of the service account that a machine has: that of a volume, or `default`."""
    volumes = get(template_of(vm), "volumes") or ()
    names = (get(volume, "serviceAccount", "serviceAccountName") for volume in volumes)
    return next((name for name in names if name), "default")


def _is_due(vm: Object) -> bool:
    """Say whether DataVolumes are to be there: at once, unless the machine says that it is when it starts."""
    if annotations_of(vm).get(cdi.IMMEDIATE_CREATION) != "false":
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
        f"DataVolume {name} exists, and {whose}. It is left unchanged; rename the template, or remove the "
        "template to use what is there",
    )
