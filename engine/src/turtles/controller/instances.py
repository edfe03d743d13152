# SPDX-License-Identifier: GPL-3.0-or-later
"""What owners do to their VirtualMachineInstances. Each write is for the very instance that was seen."""

from __future__ import annotations

from turtles.api.objects import Object, is_deleted
from turtles.controller.changes import json_diff
from turtles.kube.client import JSON, ApiError, Client, Conflict, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.kubevirt import VMI
from turtles.kube.resources import Resource

#: Words of the event about an instance that is deleted though it runs.
STOPPED = "Stopped the virtual machine by deleting the virtual machine instance"


class Instances:
    """Writes VMIs, and has the cache show at once what was written.

    :param cache: of VMIs.
    """

    def __init__(self, client: Client, cache: Informer, recorder: Recorder) -> None:
        self._client, self._cache, self._recorder = client, cache, recorder

    def patch_metadata(self, vmi: Object, changed: Object) -> Object:
        """Change members of a VMI's metadata, unless somebody else has changed the same ones; return it as it is now.

        :raises NotFound: there is none of that name.
        """
        wanted = {**vmi, "metadata": {**vmi["metadata"], **changed}}
        patch = json_diff(vmi, wanted, [("metadata", key) for key in changed])
        if not patch:
            return vmi
        metadata = vmi["metadata"]
        uid = {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]}
        stored = self._client.patch(VMI, metadata["namespace"], metadata["name"], [uid, *patch], kind=JSON)
        self._cache.observe(stored)
        return stored

    def delete(self, owner: Object, vmi: Object, words: str) -> bool:
        """Delete a VMI, and tell the owner's user; return False if it is gone already.

        :param words: what that means, for the event; the VMI's name follows.
        :raises ApiError: it can't be deleted, which the owner's user has been told, or it has changed meanwhile.
        """
        metadata = vmi["metadata"]
        try:
            # The version too: a VMI that was orphaned meanwhile, unseen as yet, must stay.
            answer = self._client.delete(
                VMI,
                metadata["namespace"],
                metadata["name"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
        except NotFound:
            return False
        except Conflict:
            raise  # seen too early: nothing for users, the next look does it
        except ApiError as error:
            message = f"Error deleting virtual machine instance {metadata['name']}: {error.message}"
            self._recorder.event(owner, "Warning", "FailedDelete", message)
            raise
        if answer.get("kind") == VMI.kind:
            self._cache.observe(answer)
        self._recorder.event(owner, "Normal", "SuccessfulDelete", f"{words} {metadata['name']}")
        return True

    def may_be_adopted_by(self, resource: Resource, owner: Object) -> bool:
        """Ask the server whether an owner is still there: what the garbage collector has just orphaned must stay so.

        Rule: Kubernetes' controllers ("ControllerRef") read the owner again before it adopts.
        """
        metadata = owner["metadata"]
        try:
            live = self._client.get(resource, metadata["namespace"], metadata["name"])
        except NotFound:
            return False
        return bool(live["metadata"]["uid"] == metadata["uid"]) and not is_deleted(live)
