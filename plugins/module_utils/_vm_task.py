# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One VirtualMachine that is declared, started, stopped, waited for: the module vm, and each machine of a fleet."""

from __future__ import annotations

import copy

from . import _merge, _vm_status, _wait
from ._base import difference
from ._errors import KubeError
from ._readiness import WAIT_FOR, address_of
from ._values import is_number
from ._vm_declaration import DECLARATION_ARGUMENTS, declaration
from ._vm_machine import GUEST_ACTIONS, Machine
from ._vm_spec import forget_unplugged
from ._vm_status import is_active, is_leaving
from ._vm_strategy import after_action, resolve_strategy, set_strategy, strategy_of
from ._vm_watch import WatchedMachine

STATES = ("present", "running", "started", "stopped", "restarted", *GUEST_ACTIONS, "absent")
# Other names of states.
_SAME_STATE = {"started": "running"}
# What the guest is before and after a subresource, for the diff.
GUEST = {
    "start": ("stopped", "running"),
    "stop": ("running", "stopped"),
    "restart": ("running", "restarted"),
    "replace": ("not started", "running"),
    "pause": ("running", "paused"),
    "unpause": ("paused", "running"),
    "softreboot": ("running", "rebooted"),
    "reset": ("running", "reset"),
}


class MachineTask(WatchedMachine):
    """One VirtualMachine."""

    STATES = STATES
    ARGUMENTS = {
        "force": {"type": "bool", "default": False},
        "grace_period_seconds": {"type": "int"},
        "delete_options": {
            "type": "dict",
            "options": {
                "propagationPolicy": {"type": "str", "choices": ["Foreground", "Background", "Orphan"]},
                "preconditions": {
                    "type": "dict",
                    "options": {"resourceVersion": {"type": "str"}, "uid": {"type": "str"}},
                },
            },
        },
        "wait_sleep": {"type": "int"},
        "wait_for": {"type": "str", "choices": list(WAIT_FOR), "default": "running"},
        **DECLARATION_ARGUMENTS,
    }
    RULES = {
        "mutually_exclusive": [("definition", "src"), ("name", "generate_name"), ("running", "run_strategy")],
    }

    def identify(self):
        super().identify()
        # Not in the module's own, which the result shows as they were given.
        self.params = {**self.params, "state": _SAME_STATE.get(self.params["state"], self.params["state"])}
        self.state = self.params["state"]
        self.grace = self._grace()
        # What the machine is to be; what is done to its guest comes on top.
        self.machine_state = "running" if self.state in GUEST_ACTIONS else self.state
        self.declaration = declaration(self.params)
        metadata = self.declaration["metadata"]
        metadata["namespace"] = metadata.get("namespace") or self.client.default_namespace
        self._name_machine(metadata["namespace"], metadata.get("name"))
        self.guest_action = None
        self.created = False

    def _grace(self):
        """Return the seconds that the guest has to shut down when this task stops it; None for its own time."""
        grace = self.params["grace_period_seconds"]
        if grace is not None and grace < 0:
            raise KubeError("grace_period_seconds: %d is negative. Give seconds, or 0 to power the guest off." % grace)
        if grace and self.params["force"]:
            raise KubeError("grace_period_seconds: %d contradicts force=true. Leave one of them out." % grace)
        if grace and self.state == "restarted":
            raise KubeError(
                "grace_period_seconds: with state=restarted KubeVirt takes 0 only, but it is %d. Leave it out for "
                "the machine's own grace period, or set termination_grace_period." % grace
            )
        return 0 if self.params["force"] else grace

    def _name_machine(self, namespace, name):
        self.namespace, self.name = namespace, name
        self.machine = Machine(self.client, self.declaration["apiVersion"], namespace, name, self.view)
        self.resource = self.machine.resource
        self._readiness = None

    def declare(self, live):
        wanted = copy.deepcopy(self.declaration)
        template = (wanted["spec"].get("template") or {}).get("spec")
        if isinstance(template, dict):
            before = (((live or {}).get("spec") or {}).get("template") or {}).get("spec")
            forget_unplugged(template, before)
        if live is None:
            self._check_creatable(wanted)
        resolve_strategy(wanted["spec"], (live.get("spec") or {}) if live is not None else None, self.machine_state)
        self.created = live is None
        self.fresh = self.created or strategy_of(wanted["spec"]) is not None
        if not wanted["spec"]:
            wanted.pop("spec")
        return wanted

    def _check_creatable(self, wanted):
        if (wanted["spec"].get("template") or {}).get("spec"):
            return
        if self.state in ("stopped", "restarted", *GUEST_ACTIONS):
            raise KubeError(
                "%s doesn't exist, so it can't be %s. Declare it (spec, definition or image and memory) to create it, "
                "or check name and namespace." % (self.machine, self.state.replace("_", " "))
            )
        raise KubeError(
            "%s doesn't exist and isn't declared. Declare it with spec, definition, src, or options such as "
            "image and memory; or check name and namespace." % self.machine
        )

    def _done(self, before, after):
        if not self.check_mode:
            self.view.observe(self.resource, after)
        return super()._done(before, after)

    def is_pending(self):
        """Return whether there is something to do, as far as what is seen tells; identify() comes before.

        :raises KubeError: what is declared can't be done.
        """
        live = self.machine.get()
        if self.state == "absent":
            return live is not None and not live["metadata"].get("deletionTimestamp")
        declared = self.declare(live)
        if live is None or live["metadata"].get("deletionTimestamp") or difference(live, declared, self.EXACT):
            return True
        self.vmi = self.machine.instance()
        self.action = self.machine.action_for(self.machine_state, live, self.vmi, self.fresh, self.grace == 0)
        return bool(self.action or self._guest_action()) or self._needs_restart(live, self.vmi)

    # -- states -----------------------------------------------------------------------------------------------------

    def absent(self):
        live = self.machine.get()
        options = self.params["delete_options"] or {}
        conditions = {key: value for key, value in (options.get("preconditions") or {}).items() if value is not None}
        self._check_preconditions(live, conditions)
        stops = self.grace is not None and options.get("propagationPolicy") != "Orphan"
        if stops and live and not self.check_mode and is_active(self.machine.instance()):
            self._act("stop")
            # The stop has changed the object.
            conditions.pop("resourceVersion", None)
        outcome = self.delete(*self.where, options.get("propagationPolicy") or "Background", conditions)
        return self.until_gone(outcome)

    def _check_preconditions(self, live, conditions):
        """Raise KubeError if the machine isn't the one that is to be deleted."""
        metadata = (live or {}).get("metadata") or {}
        for key, wanted in conditions.items():
            if live is not None and metadata.get(key) != wanted:
                raise KubeError(
                    "%s wasn't deleted: its metadata.%s is %s, but delete_options.preconditions.%s is %s."
                    % (self.machine, key, metadata.get(key), key, wanted)
                )

    def present(self):
        outcome = self.apply(*self.where, self.declare, self.EXACT)
        after = outcome.after
        self._name_machine(self.namespace, after["metadata"].get("name", self.name))
        self.vmi = None if self.created or not self.name else self.machine.instance()
        if not (self.created and self.state == "stopped"):
            self.action = self.machine.action_for(self.machine_state, after, self.vmi, self.fresh, self.grace == 0)
        if self.action is None and self._is_useless(outcome):
            self.action = "replace"
        self.guest_action = self._guest_action()
        if self.check_mode:
            if self._will_need_restart(outcome):
                self.action = "restart"
            if self.action:
                after = after_action(after, self.action)
            elif not is_active(self.vmi):
                self.vmi = None
        elif (
            outcome.changed
            or self.action
            or self.guest_action
            or (self.waits and not self._is_settled(after, self.vmi))
        ):
            after = self._carry_out(after)
        changed = outcome.changed or bool(self.action or self.guest_action)
        return outcome._replace(changed=changed, after=after)

    def _carry_out(self, vm):
        """Do to the guest what is to be done, wait, and return the VirtualMachine as it is then."""
        if self.action == "start" and is_leaving(self.vmi):
            self._start_again(vm)
        elif self.action:
            self._act(self.action)
        if self.guest_action:
            self._act_on_guest()
        if self.waits:
            self._settle(vm)
        after, self.vmi = self.machine.get() or vm, self.machine.instance()
        if self.waits and self.action is None and self._needs_restart(after, self.vmi):
            self.action = "restart"
            self._act("restart")
            self._settle(after)
            after, self.vmi = self.machine.get() or after, self.machine.instance()
        return after

    def _will_need_restart(self, outcome):
        """Return whether a change would have the guest restarted; in check mode no controller says so."""
        return (
            self.restarts_outdated
            and self.action is None
            and is_active(self.vmi)
            and (self._changes_template(outcome) or _wait.is_true(outcome.after, "RestartRequired"))
        )

    def _guest_action(self):
        """Return what is to be done to the guest itself, or None."""
        if self.state == "paused" and self.action == "start" and not is_leaving(self.vmi):
            # It is started paused.
            return None
        if is_active(self.vmi) and self.action is None:
            return self.machine.guest_action_for(self.state, self.vmi)
        # What has just been started needs no reboot.
        return "pause" if self.state == "paused" else None

    def _act_on_guest(self):
        """Pause, unpause, reboot or reset the guest, once it runs."""
        former = self.vmi["metadata"].get("uid") if self.action == "replace" else None

        def runs(_vm, vmi):
            return is_active(vmi) and vmi["metadata"].get("uid") != former and vmi["status"].get("phase") == "Running"

        self.until_both(runs, "running", self.hopeless)
        if self.machine.act_on_guest(self.guest_action):
            self.changed = True

    def _is_useless(self, outcome):
        """Return whether the instance never ran and, made from another template, won't run as declared.

        KubeVirt leaves it as it is for good, and there is no guest that a restart would interrupt.
        """
        vm = outcome.after
        if not is_active(self.vmi) or _vm_status.has_run(self.vmi) or self._goal(vm) not in ("running", "paused"):
            return False
        if strategy_of(vm.get("spec") or {}) == "Once":
            # Can't be restarted.
            return False
        if _vm_status.is_outdated(vm, self.vmi):
            return True
        # In check mode the controller sees nothing, so it replaces nothing.
        return self._changes_template(outcome) and (self.check_mode or not self._is_renewed(vm))

    @staticmethod
    def _changes_template(outcome):
        """Return whether the task changes what instances are made from."""
        before, after = (
            ((obj or {}).get("spec") or {}).get("template") or {} for obj in (outcome.before, outcome.after)
        )
        return outcome.changed and not _merge.same(before.get("spec"), after.get("spec"))

    def _is_renewed(self, vm):
        """Return whether the controller has replaced the instance by itself."""
        started = (self.vmi["metadata"].get("annotations") or {}).get(_vm_status.STARTED_FROM) or ""
        return is_number(started) and int(started) >= (vm["metadata"].get("generation") or 0) > 0

    def _act(self, action):
        if self.machine.act(action, self.grace, paused=self.state == "paused"):
            self.changed = True

    def _start_again(self, vm):
        """Start a machine whose previous instance is still ending, during which KubeVirt refuses a start."""
        if strategy_of(vm["spec"]) != "Halted":
            self._until_replaced("stopped")
            self._act("start")
            return

        def started(live):
            spec = {}
            set_strategy(spec, live["spec"] if live else {}, "Always")
            return {"spec": spec}

        self.apply(*self.where, started)

    # -- results ----------------------------------------------------------------------------------------------------

    def result(self, outcome):
        result = {
            **super().result(outcome),
            "vmi": self.shown(self.vmi or {}),
            "address": address_of(self.vmi),
            "restart_required": _wait.is_true(outcome.after, "RestartRequired"),
        }
        if result["restart_required"]:
            self.module.warn(
                "%s still runs with its previous declaration; restart it (state=restarted) to update it." % self.machine
            )
        for text in self.readiness.warnings():
            self.module.warn("%s: %s" % (self.machine, text))
        for action in filter(None, (self.action, self.guest_action)):
            before, result["diff"]["after"]["guest"] = GUEST[action]
            result["diff"]["before"].setdefault("guest", before)
        return result
