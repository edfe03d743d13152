# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One VirtualMachine as a task sees it: what is read of it, and waiting until its guest is as declared."""

from __future__ import annotations

import contextlib

from . import _vm_status, _wait
from ._readiness import Readiness
from ._resource_module import ResourceModule
from ._view import View
from ._vm_status import is_active, is_final
from ._vm_strategy import strategy_of

# Seconds the controller has to say what a change means for the guest that runs.
CONTROLLER_LOOK = 5


class WatchedMachine(ResourceModule):
    """One VirtualMachine, which a subclass names, declares and acts on.

    :param client: the connection to use, and
    :param view: what is seen through it, where several tasks share them.
    """

    KIND = "VirtualMachine"
    # They are those of its instances, too: part of what is declared.
    DESCRIBED = False
    # Whether a guest is restarted that needs it to become as declared.
    restarts_outdated = False

    def __init__(self, module, client=None, view=None):
        super().__init__(module)
        self._client = client
        self._view = view
        self._owns_view = view is None
        self._readiness = None

    @property
    def view(self):
        """Return what is seen of the machine and its instance."""
        if self._view is None:
            self._view = View(self.client)
        return self._view

    @property
    def readiness(self):
        """Return how far the guest is on the way to what wait_for says."""
        if self._readiness is None:
            self._readiness = Readiness(self.params["wait_for"], self.client, self.namespace, self.name)
        return self._readiness

    def run(self):
        try:
            return super().run()
        finally:
            if self._readiness:
                self._readiness.close()
            if self._owns_view and self._view:
                self._view.close()

    def live(self, resource, namespace, name, again=False):
        if again:
            return super().live(resource, namespace, name)
        return self.view.get(resource, namespace, name)

    def watch_until(self, resource, namespace, name, timeout, done, hopeless=None):
        if not self.view.follows(*self.where):
            for followed in (self.machine.resource, self.machine.instance_resource):
                self.view.follow(followed, self.namespace, self.name)
        return self.view.until(resource, namespace, name, timeout, done, hopeless)

    def _needs_restart(self, vm, vmi):
        """Return whether the guest is to be restarted so that it becomes as declared."""
        return self.restarts_outdated and is_active(vmi) and _wait.is_true(vm, "RestartRequired")

    def identify(self):
        """Forget what was seen of the guest before."""
        self.vmi = self.action = None
        # uid of the instance that this task has replaced.
        self.former = None
        self.fresh = False
        # What the guest still lacks, besides running.
        self.lacking = ""

    # -- waiting ----------------------------------------------------------------------------------------------------

    def until_both(self, done, goal, hopeless=None):
        """Watch the machine until done(machine or None, instance or None) is true, and return the machine."""
        return self.until(lambda vm: done(vm, self.machine.instance()), goal, hopeless)

    def _settle(self, vm):
        """Wait until the guest is as declared."""
        if self.action in ("restart", "replace"):
            self._until_replaced("restarted")
            self.former = self.vmi["metadata"].get("uid")
        # What is seen may be from before the change.
        self._until_looked_at()
        goal = self._goal(vm)
        if goal == "running":
            self.until_both(self._runs, goal, self.hopeless)
            self._until_useful()
        elif goal == "stopped":
            self.until_both(self._rests, goal)
        elif goal == "paused":
            self.until_both(self._is_paused, goal, self.hopeless)

    def _is_settled(self, vm, vmi):
        """Return whether the guest is as declared already, and the controller has nothing more to say."""
        goal = self._goal(vm)
        reached = {"running": self._runs, "stopped": self._rests, "paused": self._is_paused}.get(goal)
        if not _is_seen(vm) or self._needs_restart(vm, vmi) or (reached and not reached(vm, vmi)):
            return False
        return goal != "running" or not self.readiness.lack(vmi)

    def _goal(self, vm):
        """Return what the guest is to be: running, paused, stopped, or None if nothing says so."""
        if self.state == "paused":
            return "paused"
        if self.state != "present":
            return "stopped" if self.state == "stopped" else "running"
        strategy = strategy_of(vm.get("spec") or {})
        if strategy == "Always" or (self.fresh and strategy in ("Once", "RerunOnFailure")):
            return "running"
        return "stopped" if strategy == "Halted" else None

    def _until_useful(self):
        """Wait until the guest that runs is what wait_for says."""
        if self.params["wait_for"] == "running":
            return
        ready = self.readiness

        def useful(vm, vmi):
            self.lacking = ready.lack(vmi) if self._runs(vm, vmi) else "it is no longer running"
            return not self.lacking

        if ready.look is None:
            self.until_both(useful, ready.goal, self.hopeless)
            return
        while True:
            try:
                self.watch_until(*self.where, ready.look, lambda vm: useful(vm, self.machine.instance()), self.hopeless)
                return
            except _wait.GaveUp as exc:
                if exc.why or self.deadline.is_over():
                    raise self.gave_up(exc, str(self.machine), ready.goal, self.explain) from exc

    def _until_replaced(self, goal):
        uid = self.vmi["metadata"].get("uid")
        self.wait_until(
            self.machine.instance_resource,
            self.namespace,
            self.name,
            lambda vmi: vmi is None or vmi["metadata"].get("uid") != uid,
            goal,
            explain=self.explain,
        )

    def _until_looked_at(self):
        """Give the controller time to see the declaration: only then its status is about it, and says whether the guest
        needs a restart. One that doesn't say what it has seen isn't waited for."""
        with contextlib.suppress(_wait.GaveUp):
            self.watch_until(*self.where, CONTROLLER_LOOK, _is_seen)

    def _runs(self, vm, vmi):
        if self.state == "present" and _wait.is_true(vm, "Paused"):
            return True
        # Ready may still speak of an instance that has just been told to go, or that has been replaced.
        return (
            _vm_status.is_ready(vm)
            and is_active(vmi)
            and vmi["metadata"].get("uid") != self.former
            and vmi["status"].get("phase") == "Running"
            and _wait.condition(vmi, "Ready").get("status") != "False"
        )

    def _rests(self, vm, vmi):
        if vm is None:
            return False
        # A new and halted one that no controller has looked at yet has nothing to come down.
        if not _vm_status.is_stopped(vm) and vm.get("status"):
            return False
        return vmi is None or is_final(vmi)

    def _is_paused(self, vm, vmi):
        return _wait.is_true(vm, "Paused") and _wait.is_true(vmi, "Paused")

    def hopeless(self, vm):
        vmi = self.machine.instance() if _vm_status.is_troubled(vm) else None
        reasons = _vm_status.hopeless(vm, vmi, self.former)
        if _wait.is_true(vm, "Paused") and self.state not in ("paused", "unpaused"):
            reasons["it is paused; unpause it (state=unpaused)"] = 0
        return reasons

    def explain(self, vm):
        troubles, facts = _vm_status.diagnose(self.client, self.namespace, self.name, renewed=self.former is not None)
        return ([self.lacking] if self.lacking else []) + troubles, {"diagnosis": facts}


def _is_seen(vm):
    """Return whether the controller has seen the present declaration."""
    desired = ((vm or {}).get("status") or {}).get("desiredGeneration")
    return not desired or desired >= vm["metadata"].get("generation", 0)
