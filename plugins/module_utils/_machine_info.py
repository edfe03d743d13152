# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Base of the modules that read virtual machines or their instances, and can wait for them."""

from __future__ import annotations

from . import _resources, _vm_status, _wait
from ._errors import ApiError
from ._info import InfoModule

INFO_ARGUMENTS = {
    **InfoModule.ARGUMENTS,
    "wait": {"type": "bool", "default": False},
    "wait_sleep": {"type": "int"},
    "wait_timeout": {"type": "int", "default": 120},
}


class MachineInfo(InfoModule):
    """Read objects of KIND, or wait until there are some and each is as it should be."""

    ARGUMENTS = INFO_ARGUMENTS
    GOAL = "ready"

    def is_there(self, obj):
        """Return whether an object is as the task waits for it."""
        return _wait.is_true(obj, "Ready")

    def hopeless(self, obj):
        """Return {reason: grace in seconds} of an object that won't get there."""
        return {}

    def _read(self, resource):
        return self._awaited(resource) if self.waits else super()._read(resource)

    def _awaited(self, resource):
        collection, labels, fields = self.selection(resource)
        try:
            return _wait.until_all(
                self.client, collection, self.deadline.left(), self.is_there, self.hopeless, labels, fields
            )
        except ApiError as exc:
            raise self._unreadable(exc, resource) from exc
        except _wait.GaveUp as exc:
            raise self._given_up(exc, resource) from exc

    def _given_up(self, exc, resource):
        if exc.obj is None:
            where = "%s that matches" % resource.kind
            if self.params["name"]:
                namespace = self.params["namespace"] or self.client.default_namespace
                where = _resources.name_of(resource, namespace, self.params["name"])
            return self.gave_up(exc, where, "there", lambda obj: ([], {}))
        return self.gave_up(exc, _resources.label(exc.obj), self.GOAL, self._why)

    def _why(self, obj):
        metadata = obj["metadata"]
        troubles, facts = _vm_status.diagnose(self.client, metadata.get("namespace"), metadata["name"])
        return troubles, {"diagnosis": facts}
