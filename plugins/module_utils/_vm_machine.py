# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One VirtualMachine on a server: its instance, and the subresources that start, stop and restart it, or pause it."""

from __future__ import annotations

from . import _resources
from ._errors import ApiError, KubeError
from ._vm_status import is_active
from ._vm_strategy import strategy_of
from ._wait import is_true

MACHINE_SUBRESOURCES = _resources.Resource("subresources.kubevirt.io/v1", "VirtualMachine", "virtualmachines", True)
INSTANCE_SUBRESOURCES = _resources.Resource(
    "subresources.kubevirt.io/v1", "VirtualMachineInstance", "virtualmachineinstances", True
)
# Subresources of the instance, by the state of the module vm: what is done to a guest that runs.
GUEST_ACTIONS = {"paused": "pause", "unpaused": "unpause", "soft_rebooted": "softreboot", "reset": "reset"}
# What KubeVirt answers (409) where a machine already is as it was told to be.
_ALREADY = ("already running", "is not running", "already underway", "does not support manual")
_GUEST_ALREADY = {"pause": "already paused", "unpause": "is not paused"}
_REMEDIES = {
    "VMI is paused": "Unpause it first (state=unpaused).",
    "ACPI feature": "Reset it instead (state=reset), or restart it (state=restarted).",
}


class Machine:
    """A VirtualMachine by name, through a client; what is read of it comes from a view."""

    def __init__(self, client, api_version, namespace, name, view):
        self.client = client
        self.view = view
        self.namespace = namespace
        self.name = name
        self.resource = _resources.known(api_version, "VirtualMachine")
        self.instance_resource = _resources.known(api_version, "VirtualMachineInstance")

    def __str__(self):
        return _resources.name_of(self.resource, self.namespace, self.name)

    def get(self):
        """Return the VirtualMachine, or None."""
        return self.view.get(self.resource, self.namespace, self.name)

    def instance(self):
        """Return its VirtualMachineInstance, or None."""
        return self.view.get(self.instance_resource, self.namespace, self.name)

    def act_on_guest(self, action):
        """Call a subresource of the instance, one of GUEST_ACTIONS, and return whether that changed something.

        :raises KubeError: KubeVirt refuses.
        """
        try:
            self.client.request(
                "PUT", _resources.path(INSTANCE_SUBRESOURCES, self.namespace, self.name, action), body={}
            )
        except ApiError as exc:
            if exc.status == 409 and _GUEST_ALREADY.get(action, "\0") in exc.message:
                return False
            remedies = [remedy for text, remedy in _REMEDIES.items() if text in exc.message]
            raise self._refused(action, exc, *remedies) from exc
        return True

    def act(self, action, grace=None, paused=False):
        """Call the subresource start, stop or restart, and return whether that changed something.

        "Already so" is no error: what counts is the state waited for afterwards.

        :param action: one of them, or replace: restart an instance that never ran, unless the controller did already.
        :param grace: seconds that the guest has to shut down, 0 to power it off; None for its own time. A restart knows
            0 and None.
        :param paused: start it paused.
        :raises KubeError: KubeVirt refuses.
        """
        replaces, action = action == "replace", "restart" if action == "replace" else action
        body = {}
        if action == "stop" and grace is not None:
            body = {"gracePeriod": grace}
        elif action == "restart" and grace == 0:
            body = {"gracePeriodSeconds": 0}
        elif paused and action == "start":
            body = {"paused": True}
        url = _resources.path(MACHINE_SUBRESOURCES, self.namespace, self.name, action)
        try:
            self.client.request("PUT", url, body=body)
        except ApiError as exc:
            if exc.status == 409 and (action != "restart" or replaces) and any(w in exc.message for w in _ALREADY):
                return False
            raise self._refused(action, exc) from exc
        return True

    def _refused(self, action, exc, *remedies):
        """Return the error that says why a subresource was refused, and what to do."""
        if exc.status in (404, 503):
            remedies += ("Check that virt-api runs and that its APIService v1.subresources.kubevirt.io is available.",)
        texts = ["%s: %s refused: %s" % (self, action, exc.message.rstrip(".")), *remedies]
        return KubeError(". ".join(texts), **exc.facts)

    def guest_action_for(self, state, vmi):
        """Return the subresource to call so that a guest that runs, or is about to, is as the state says, or None."""
        action = GUEST_ACTIONS.get(state)
        if action in ("pause", "unpause") and is_true(vmi, "Paused") is (action == "pause"):
            return None
        return action

    def action_for(self, state, vm, vmi, fresh, force=False):
        """Return the subresource to call so that the guest is as the module's state says, or None.

        :param fresh: the run strategy has just been declared, so the controller starts by itself what it starts.
        :raises KubeError: the run strategy doesn't allow the state.
        """
        strategy = strategy_of(vm.get("spec") or {})
        active = is_active(vmi)
        if state == "stopped":
            if strategy == "Halted":
                # Already on its way down; force makes it quick.
                return "stop" if active and force else None
            return "stop" if active or strategy in ("Always", "Once") else None
        if state not in ("running", "restarted"):
            return None
        if state == "restarted" and active:
            return "restart"
        if strategy == "Halted" or (strategy == "Manual" and not active):
            return "start"
        if strategy == "RerunOnFailure" and not active and not fresh:
            return "start"
        if strategy == "Once" and vmi and not active:
            raise KubeError(
                "%s has run once (phase %s), and runStrategy Once doesn't start it again. Choose another "
                "run_strategy, or delete it first." % (self, vmi["status"].get("phase"))
            )
        return None
