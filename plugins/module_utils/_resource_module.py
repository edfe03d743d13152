# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Base of the modules that keep one object of one kind as the task declares it."""

from __future__ import annotations

import time

from . import _hidden, _merge, _metadata, _resources, _wait
from ._base import WAIT_ARGUMENTS, KubeModule
from ._errors import KubeError


class ResourceModule(KubeModule):
    """One object of one kind, present or absent.

    A subclass has KIND and declare(), and says what it knows of is_ready(), hopeless() and explain().
    """

    KIND = ""
    API_VERSION = "kubevirt.io/v1"
    # What is_ready() means, for the message of one that isn't.
    READY = "ready"
    STATES = ("present", "absent")
    # What hidden_fields names, as paths.
    hidden = ()
    # Whether the options labels and annotations are about the object itself.
    DESCRIBED = True
    # Keys whose values a declaration gives whole: what it doesn't name there is removed.
    EXACT = frozenset()

    @classmethod
    def arguments(cls):
        """Return the keyword arguments of AnsibleModule: those of any object, and the module's own."""
        own = super().arguments()
        common = {
            "state": {"type": "str", "choices": list(cls.STATES), "default": "present"},
            "name": {"type": "str"},
            **(_metadata.ARGUMENTS if cls.DESCRIBED else {}),
            **_hidden.HIDDEN_ARGUMENTS,
            **WAIT_ARGUMENTS,
        }
        if _resources.known(cls.API_VERSION, cls.KIND).namespaced:
            common["namespace"] = {"type": "str"}
        return {**own, "argument_spec": {**common, **own["argument_spec"]}}

    def run(self):
        self.hidden = _hidden.paths_of(self.params["hidden_fields"])
        self.resource = _resources.known(self.API_VERSION, self.KIND)
        self.namespace = None
        self.identify()
        outcome = self.absent() if self.params["state"] == "absent" else self.present()
        return self.result(outcome)

    # -- what a kind knows ------------------------------------------------------------------------------------------

    def identify(self):
        """Find out which object the task is about: set name and namespace.

        :raises KubeError: they can't be names.
        """
        self.name = self.params["name"]
        _resources.check_name("name", self.name)
        if self.resource.namespaced:
            self.namespace = self.namespace_given()

    def declare(self, live):
        """Return the declaration, metadata and spec; live is the object as it is, or None.

        What the options labels and annotations say is added.

        :raises KubeError: options that can't be.
        """
        raise NotImplementedError

    def is_ready(self, obj):
        """Return whether the object can be used."""
        return obj is not None

    def hopeless(self, obj):
        """Return {reason: grace in seconds} of states that won't get better by themselves."""
        return {}

    def explain(self, obj):
        """Return sentences about what is missing, and facts for the result."""
        return _wait.reasons(obj), {}

    # -- states -----------------------------------------------------------------------------------------------------

    @property
    def where(self):
        """Resource, namespace and name, as most methods take them."""
        return self.resource, self.namespace, self.name

    def refuse_change(self, have, wanted, options):
        """Refuse to change an object of a kind that can't be changed.

        :param have: its spec. :param wanted: what is declared of that. :param options: the options behind its keys.
        :raises KubeError: they differ.
        """
        for key, value in wanted.items():
            if value != have.get(key):
                raise KubeError(
                    "%s: %s has %s, not %s, and can't be changed. Choose another name, or delete it first."
                    % (options.get(key, key), _resources.name_of(*self.where), have.get(key, "none"), value)
                )

    def present(self):
        """Bring the object about and wait until it is ready; return the Outcome."""
        outcome = self.apply(*self.where, self.declared, exact=self.EXACT)
        if not self.waits:
            return outcome
        return outcome._replace(after=self.until(self.is_ready, self.READY, self.hopeless))

    def absent(self):
        """Delete the object and wait until it is gone; return the Outcome."""
        return self.until_gone(self.delete(*self.where))

    def until_gone(self, outcome):
        """Wait until a deleted object is gone, if the task waits; return its Outcome."""
        if self.waits and outcome.before is not None:
            self.until(lambda obj: obj is None, "gone")
        # An object whose deletion was already under way is still there without waiting.
        return outcome._replace(after=None) if self.params["wait"] else outcome

    def until(self, done, goal, hopeless=None):
        """Watch the object until done(object or None) is true, and return it; see wait_until()."""
        return self.wait_until(*self.where, done, goal, hopeless, self.explain)

    def result(self, outcome):
        """Return the result's keys for an Outcome."""
        diff = {"before": _merge.for_diff(outcome.before), "after": _merge.for_diff(outcome.after)}
        return {
            "changed": outcome.changed,
            "result": self.shown(outcome.after or {}),
            "duration": round(time.monotonic() - self.began, 3),
            "diff": {side: self.shown(obj) for side, obj in diff.items()},
        }

    def shown(self, obj):
        """Return an object without the fields that results leave out."""
        return _hidden.hide(obj, self.hidden)

    def _fail(self, message, facts):
        if facts.get("result"):
            facts = {**facts, "result": self.shown(facts["result"])}
        super()._fail(message, facts)

    def declared(self, live):
        """Return the declaration with what identifies the object."""
        identity = {"name": self.name, **({"namespace": self.namespace} if self.resource.namespaced else {})}
        declaration = self.declare(live)
        described = _metadata.declared(self.params) if self.DESCRIBED else {}
        return {
            **declaration,
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": {**_merge.combine(described, declaration.get("metadata") or {}), **identity},
        }
