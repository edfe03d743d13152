# SPDX-License-Identifier: GPL-3.0-or-later
"""What VMIs have from the instance type and the preference of their VM, which keeps both as it was first started."""

from collections.abc import Callable, Mapping
from typing import Any

from turtles.api import labels
from turtles.api.changes import merge_diff
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kind import Missing
from turtles.api.kinds.instancetype.expansion import Unexpandable, complete_instance, has_matchers
from turtles.api.kinds.instancetype.lookup import find_object, find_revision, revision_spec
from turtles.api.kinds.instancetype.matchers import MATCHERS, Matcher, label_value, shortened
from turtles.api.objects import Object, get
from turtles.controller.vm.status import FAILED_CREATE, FAILED_FIND
from turtles.controller.vmi.template import make_vmi
from turtles.kube.client import AlreadyExists, ApiError, Client
from turtles.kube.lookup import Lookup
from turtles.kube.resources import CONTROLLERREVISION

#: Longest name of an object (Kubernetes documentation, "Object Names and IDs").
_MAX_NAME = 253
_REFERENCES = tuple(matcher.reference for matcher in MATCHERS)
#: Metadata of an object that is kept in a copy of it.
_KEPT = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp")


class InstancetypeError(ApiError):
    """A VM can't be started with what it names. Reason and message are those of its condition Failure."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(0, reason, message)


class Instancetypes:
    """Completes VMIs. What they got is stored in ControllerRevisions, which later starts of the VM use again.

    :param configuration: gives the configuration in force.
    """

    def __init__(self, client: Client, configuration: Callable[[], ClusterConfiguration]) -> None:
        self._client = client
        self._find = Lookup(client)
        self._configuration = configuration

    def complete(self, vm: Object, vmi: Object) -> Object:
        """Give a new VMI, in place, what its VM has from an instance type and a preference.

        :return: the merge patch of the VM's status: what is in use now.
        :raises InstancetypeError: something that the VM names doesn't exist, or conflicts with it.
        """
        if not has_matchers(vm):
            return {}
        before = {key: value for key, value in (vm.get("status") or {}).items() if key in _REFERENCES}
        sources = [self._source(vm, matcher) for matcher in MATCHERS]
        instancetype, preference = (spec for _, _, spec in sources)
        try:
            complete_instance(vmi, vm, instancetype, preference, self._configuration())
        except Unexpandable as error:
            message = f"Error creating virtual machine instance: Failed to apply instancetype: {error}"
            raise InstancetypeError(FAILED_CREATE, message) from error
        after = {
            matcher.reference: reference
            for matcher, (obj, revision, _) in zip(MATCHERS, sources, strict=True)
            if (reference := self._reference(vm, matcher, obj, revision))
        }
        return merge_diff(before, after)

    def expanded(self, vm: Object) -> Object:
        """Return the spec of the VMI that a VM asks for, with what it has from both; without defaults.

        Nothing is stored: another object may be named before the next start.

        :raises InstancetypeError: as :meth:`complete` does.
        """
        vmi = make_vmi(vm, vm["spec"]["template"], vm["metadata"]["name"])
        instancetype, preference = (spec for _, _, spec in (self._source(vm, matcher) for matcher in MATCHERS))
        try:
            complete_instance(vmi, vm, instancetype, preference, self._configuration())
        except Unexpandable as error:
            raise InstancetypeError(FAILED_CREATE, str(error)) from error
        spec: Object = vmi["spec"]
        return spec

    def _source(self, vm: Object, matcher: Matcher) -> tuple[Object | None, Object | None, Object | None]:
        """Return what the VM's matcher names, or the copy of it that counts instead, and the spec; all None if nothing.

        :raises InstancetypeError: it doesn't exist.
        """
        try:
            if (revision := find_revision(vm, matcher, self._find)) is not None:
                return None, revision, revision_spec(revision, matcher)
            found = find_object(vm, matcher, self._find)
        except Missing as error:
            raise InstancetypeError(FAILED_FIND[matcher.field], str(error)) from error
        return found, None, found["spec"] if found is not None else None

    def _reference(self, vm: Object, matcher: Matcher, obj: Object | None, revision: Object | None) -> Object | None:
        """Return what the VM's status says about what is in use. A copy is stored of what there is none of."""
        wanted = matcher.of(vm)
        if wanted is None:
            return None
        if obj is not None:
            revision = self._store(vm, obj)
        assert revision is not None
        if not _is_owned(revision, vm):
            self._add_owner(revision, vm)
        reference = {key: wanted[key] for key in ("name", "kind", "inferFromVolumeFailurePolicy") if wanted.get(key)}
        return {**reference, "controllerRevisionRef": {"name": revision["metadata"]["name"]}}

    def _store(self, vm: Object, obj: Object) -> Object:
        """Return the ControllerRevision with a copy of an object as it is now; VMs of a namespace share it."""
        revision = make_revision(vm, obj)
        try:
            return self._client.create(CONTROLLERREVISION, revision)
        except AlreadyExists:
            metadata = revision["metadata"]
            existing = self._client.get(CONTROLLERREVISION, metadata["namespace"], metadata["name"])
        if get(existing, "data", "spec") != obj["spec"]:
            message = f"found existing ControllerRevision with unexpected data: {metadata['name']}"
            raise InstancetypeError(FAILED_CREATE, message)
        return existing

    def _add_owner(self, revision: Object, vm: Object) -> None:
        metadata = revision["metadata"]
        owners = [*(metadata.get("ownerReferences") or ()), _owner(vm)]
        body = {"metadata": {"ownerReferences": owners, "resourceVersion": metadata["resourceVersion"]}}
        self._client.patch(CONTROLLERREVISION, metadata["namespace"], metadata["name"], body)


def make_revision(vm: Object, obj: Object) -> Object:
    """Return a ControllerRevision with a copy of an instance type or a preference, which goes with the VM."""
    metadata, namespace = obj["metadata"], vm["metadata"]["namespace"]
    generation = int(metadata.get("generation") or 0)
    version = obj["apiVersion"].rpartition("/")[2]
    name = f"{namespace}-{metadata['name']}-{version}-{metadata['uid']}-{generation}"
    copied = {key: metadata[key] for key in _KEPT if key in metadata}
    return {
        "apiVersion": CONTROLLERREVISION.api_version,
        "kind": CONTROLLERREVISION.kind,
        "metadata": {
            "name": shortened(name, _MAX_NAME),
            "namespace": namespace,
            "labels": {
                labels.REVISION_OF_GENERATION: str(generation),
                labels.REVISION_OF_KIND: obj["kind"],
                labels.REVISION_OF_NAME: label_value(metadata["name"]),
                labels.REVISION_OF_UID: metadata["uid"],
                labels.REVISION_OF_VERSION: version,
            },
            "ownerReferences": [_owner(vm)],
        },
        "data": {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": copied, "spec": obj["spec"]},
        "revision": 0,
    }


def _owner(vm: Object) -> Object:
    """Return a reference to one of several owners; none of them controls what they share."""
    metadata = vm["metadata"]
    return {
        "apiVersion": vm["apiVersion"],
        "kind": vm["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": True,
    }


def _is_owned(revision: Mapping[str, Any], vm: Object) -> bool:
    owners = get(revision, "metadata", "ownerReferences") or ()
    return any(owner.get("uid") == vm["metadata"]["uid"] for owner in owners)
