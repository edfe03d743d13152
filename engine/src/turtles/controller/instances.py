# SPDX-License-Identifier: GPL-3.0-or-later
"""What owners do to their VirtualMachineInstances. Each write is for the very instance that was seen."""

from __future__ import annotations

from turtles.api.objects import Object, is_deleted
from turtles.kube.client import ApiError, Client, Conflict, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.resources import Resource
from turtles.kube.writer import Writer

#: Words of the event about an instance that is deleted though it runs.
STOPPED = "Stopped the virtual machine by deleting the virtual machine instance"


class Instances:
    """Changes and deletes VMIs.

    :param cache: of VMIs.
    """

    def __init__(self, client: Client, cache: Informer, recorder: Recorder) -> None:
        self._client, self._writer, self._cache, self._recorder = client, Writer(client), cache, recorder

    def patch_metadata(self, vmi: Object, changed: Object) -> Object:
        """Change members of a VMI's metadata, unless somebody else has changed the same ones; return it as it is now.

        :raises NotFound: there is none of that name.
        """
        wanted = {**vmi, "metadata": {**vmi["metadata"], **changed}}
        return self._writer.store_members(self._cache, vmi, wanted, [("metadata", key) for key in changed])

    def delete(self, owner: Object, vmi: Object, words: str) -> bool:
        """Delete a VMI, and tell the owner's user; return False if it is gone already.

        :param words: what that means, for the event; the VMI's name follows.
        :raises ApiError: it can't be deleted, which the owner's user has been told, or it has changed meanwhile.
        """
        name = vmi["metadata"]["name"]
        try:
            # Unchanged: a VMI that has been orphaned meanwhile must stay.
            deleted = self._writer.delete(self._cache, vmi, unchanged=True)
        except Conflict:
            raise  # seen too early: nothing for users, the next look does it
        except ApiError as error:
            message = f"Error deleting virtual machine instance {name}: {error.message}"
            self._recorder.event(owner, "Warning", "FailedDelete", message)
            raise
        if deleted:
            self._recorder.event(owner, "Normal", "SuccessfulDelete", f"{words} {name}")
        return deleted

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
