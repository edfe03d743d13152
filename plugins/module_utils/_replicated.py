# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules of kinds that keep as many members of one template as wanted."""

from __future__ import annotations

from . import _diagnosis, _resources, _wait
from ._errors import KubeError
from ._resource_module import ResourceModule
from ._values import plain

# For how many members that aren't ready the reasons are given.
SHOWN = 3


class ReplicatedModule(ResourceModule):
    """Declares an object that has replicas.

    A subclass says what users call the object (TITLE) and its members (MEMBERS), and of what kind these are.
    """

    TITLE = ""
    MEMBERS = ""
    MEMBER_KIND = ""
    # They are those of the template, too: part of what is declared.
    DESCRIBED = False

    def counted(self, live, template):
        """Return what of the spec all such objects have: the number, the pause and the selector."""
        if self.params["replicas"] is not None and self.params["replicas"] < 0:
            raise KubeError("replicas: %d is negative; give a number, or 0 for none" % self.params["replicas"])
        return {
            "replicas": self.params["replicas"],
            "paused": self.params["paused"],
            "selector": self._selector(live, template),
        }

    def _selector(self, live, template):
        selector = plain(self.params["selector"])
        if selector is not None or live is not None:
            return selector
        labels = (template.get("metadata") or {}).get("labels")
        if not labels:
            raise KubeError(
                "labels: missing for a new %s. Give labels that select its %s." % (self.TITLE, self.MEMBERS)
            )
        return {"matchLabels": labels}

    def is_ready(self, obj):
        if obj is None:
            return False
        if obj["spec"].get("paused"):
            return _wait.is_true(obj, "ReplicaPaused")
        status, number = obj.get("status") or {}, wanted(obj)
        ready = (status.get("readyReplicas") or 0) if self.starts(obj) else number
        return (status.get("replicas") or 0) == number == ready and bool(status.get("labelSelector"))

    def starts(self, obj):
        """Return whether the guests of the members run by themselves."""
        return True

    def explain(self, obj):
        status = (obj or {}).get("status") or {}
        troubles = []
        if obj:
            troubles.append("%d of %d %s are ready" % (status.get("readyReplicas") or 0, wanted(obj), self.MEMBERS))
        failure = _wait.condition(obj or {}, "ReplicaFailure")
        if failure.get("message"):
            troubles.append("%s: %s" % (failure.get("reason"), failure["message"]))
        return troubles + self._troubles(status.get("labelSelector")), {}

    def _troubles(self, selector):
        """Return what the first few members that aren't ready say."""
        member = _resources.known("kubevirt.io/v1", self.MEMBER_KIND)
        members = selector and _diagnosis.quietly(
            lambda: self.client.list(_resources.path(member, self.namespace), selector)[0]
        )
        unready = [obj for obj in members or () if not _wait.is_true(obj, "Ready")]
        return [
            "%s: %s" % (_resources.label(obj), sentence)
            for obj in unready[:SHOWN]
            for sentence in _diagnosis.bad_conditions(obj)
        ]


def wanted(obj):
    """Return how many members an object is to have."""
    replicas = obj["spec"].get("replicas")
    return 1 if replicas is None else replicas
