# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module fleet: reads the state of all machines, then changes what differs, batch by batch."""

from __future__ import annotations

import time
from collections import Counter

from . import _fleet_plan, _resources, _vm_status
from ._base import WAIT_ARGUMENTS, KubeModule
from ._configuration import CONNECTIONS
from ._errors import ApiError, KubeError, explain_error, sentence
from ._fleet import Crew, LimitedClient, Member, Probe
from ._readiness import WAIT_FOR
from ._view import View
from ._vm_task import STATES

# Machines in up to so many namespaces are read namespace by namespace, those in more all at once.
_FEW = 3
_SHOWN = 3


class FleetTask(KubeModule):
    """Any number of VirtualMachines."""

    ARGUMENTS = {
        "vms": {"type": "list", "elements": "dict"},
        "template": {"type": "dict"},
        "count": {"type": "int"},
        "items": {"type": "list", "elements": "raw"},
        "namespace": {"type": "str"},
        "state": {"type": "str", "choices": list(STATES), "default": "running"},
        "labels": {"type": "dict"},
        "wait_for": {"type": "str", "choices": list(WAIT_FOR), "default": "running"},
        "forks": {"type": "int", "default": 20},
        "rollout": {
            "type": "dict",
            "options": {
                "batch": {"type": "str", "default": "100%"},
                "canary": {"type": "int", "default": 0},
                "on_failure": {"type": "str", "choices": ["stop", "rollback", "continue"], "default": "stop"},
                "restart": {"type": "bool", "default": False},
            },
        },
        "probe": {
            "type": "dict",
            "options": {
                "command": {"type": "list", "elements": "str", "required": True},
                "timeout": {"type": "int", "default": 60},
            },
        },
        "prune": {
            "type": "dict",
            "options": {
                "label_selector": {"type": "str", "required": True},
                "max": {"type": "int", "required": True},
            },
        },
        "progress": {"type": "int", "default": 10},
        **WAIT_ARGUMENTS,
    }

    def __init__(self, module):
        super().__init__(module)
        self._members = []
        self._pruned = []
        self._planned = False
        self._pending = set()
        self._view = None

    # -- what is to be done -----------------------------------------------------------------------------------------

    def run(self):
        self._check_options()
        self._limited = LimitedClient(self.client, self.params["forks"], self._namespace())
        self._view = View(self._limited)
        self._crew = Crew(self._say, self.params["progress"])
        try:
            self._plan()
            self._crew.enlist(self._members)
            self._roll_out()
            self._remove()
        finally:
            self._view.close()
            self.changed = any(member.is_touched for member in [*self._members, *self._pruned])
        self._warn_of_restarts()
        return {
            "changed": any(member.result.get("changed") for member in [*self._members, *self._pruned]),
            "pruned": [str(member) for member in self._pruned],
            "duration": round(time.monotonic() - self.began, 3),
            "diff": [member.diff() for member in [*self._members, *self._pruned] if member.result.get("changed")],
            **self._report(),
        }

    def _say(self, text):
        """Show a line about the progress, where the module can."""
        show = getattr(self.module, "progress", None)
        if show:
            show("fleet: %s" % text)

    def _check_options(self):
        params = self.params
        if params["template"] is not None:
            raise KubeError(
                "template: is evaluated by the action plugin turtles.kubevirt.fleet, which hasn't run. Call the module "
                "by its full name from a playbook, or list the machines in vms."
            )
        if params["vms"] is None and params["prune"] is None:
            raise KubeError("vms, template: missing. Give the machines, or prune to only delete some.")
        for option in ("count", "items"):
            if params[option] is not None:
                raise KubeError("%s: needs a template. Give one, or list the machines in vms." % option)
        if not 1 <= params["forks"] <= CONNECTIONS:
            raise KubeError("forks: must be from 1 to %d, but is %d." % (CONNECTIONS, params["forks"]))
        if params["progress"] < 0:
            raise KubeError("progress: %d is negative. Give seconds, or 0 for no output." % params["progress"])
        self._rollout = params["rollout"] or {"batch": "100%", "canary": 0, "on_failure": "stop", "restart": False}
        if params["rollout"] and not params["wait"]:
            raise KubeError("rollout: has no effect without waiting. Leave out wait=false, or rollout.")
        if self._rollout["canary"] < 0:
            raise KubeError("rollout.canary: %d is negative. Give a number of machines." % self._rollout["canary"])
        if params["probe"] and not params["wait"]:
            raise KubeError("probe: has no effect without waiting. Leave out wait=false, or probe.")
        self._probe = Probe(params["probe"]["command"], params["probe"]["timeout"]) if params["probe"] else None
        if params["prune"] and params["prune"]["max"] < 0:
            raise KubeError("prune.max: %d is negative. Give a number of machines." % params["prune"]["max"])
        if params["prune"] and not params["prune"]["label_selector"].strip():
            raise KubeError(
                "prune.label_selector: is empty, which means all machines. Give a selector such as app=web."
            )

    def _namespace(self):
        namespace = self.namespace_given()
        return namespace

    def _plan(self):
        """Find out which machines there are, and what is to be done to which, before anything is changed."""
        common = {"state": self.params["state"], "wait_for": self.params["wait_for"]}
        common["labels"] = _fleet_plan.labels_of(self.params)
        wrong = []
        for number, options in enumerate(_fleet_plan.machines(self.params["vms"] or [], common)):
            try:
                member = self._member(options)
                if not member.name:
                    raise KubeError("name: missing; a fleet finds its machines by name, so generateName isn't possible")
                self._members.append(member)
            except KubeError as exc:
                wrong.append("vms[%d]: %s" % (number, exc))
        _fleet_plan.fail_together(wrong)
        _fleet_plan.check_unique([(member.namespace, member.name) for member in self._members])
        self._size = _fleet_plan.size_of("rollout.batch", self._rollout["batch"], len(self._members))
        self._follow()
        pending = []
        for number, member in enumerate(self._members):
            try:
                if member.task.is_pending():
                    pending.append(member)
            except KubeError as exc:
                wrong.append("vms[%d]: %s" % (number, exc))
        _fleet_plan.fail_together(wrong)
        self._pending = set(map(id, pending))
        self._planned = True
        self._pruned = self._to_prune()

    def _member(self, options):
        params = {**options, "wait": self.params["wait"], "wait_timeout": self.params["wait_timeout"]}
        return Member(params, self.check_mode, self._limited, self._view, self._rollout["restart"])

    def _follow(self):
        """Read all machines and instances, with as few requests as it takes."""
        kinds = {(member.task.machine.resource, member.task.machine.instance_resource) for member in self._members}
        if self.params["prune"]:
            kinds.add((_vm_status.VM, _vm_status.VMI))
        for kind in sorted(resource for pair in kinds for resource in pair):
            if len(self._namespaces()) > _FEW:
                try:
                    self._view.follow(kind)
                    continue
                except ApiError as exc:
                    if exc.status != 403:
                        raise self._unreadable(exc, kind, "all namespaces") from exc
            for namespace in self._namespaces():
                try:
                    self._view.follow(kind, namespace)
                except ApiError as exc:
                    raise self._unreadable(exc, kind, "namespace %s" % namespace) from exc

    @staticmethod
    def _unreadable(exc, kind, where):
        return KubeError("%s in %s: %s" % (kind.kind, where, explain_error(exc)), **exc.facts)

    def _namespaces(self):
        namespaces = {member.namespace for member in self._members}
        if self.params["prune"]:
            namespaces.add(self._limited.default_namespace)
        return sorted(namespaces)

    def _to_prune(self):
        """Return members for the machines to delete that aren't declared.

        :raises KubeError: they are more than prune.max.
        """
        prune = self.params["prune"]
        if not prune:
            return []
        declared = {(member.namespace, member.name) for member in self._members}
        leftovers = []
        for namespace in self._namespaces():
            try:
                items, _version = self._limited.list(
                    _resources.path(_vm_status.VM, namespace), label_selector=prune["label_selector"]
                )
            except ApiError as exc:
                if exc.status == 400:
                    raise KubeError("prune.label_selector: %s" % exc.message, **exc.facts) from exc
                raise self._unreadable(exc, _vm_status.VM, "namespace %s" % namespace) from exc
            leftovers += [
                (namespace, item["metadata"]["name"]) for item in items if not item["metadata"].get("deletionTimestamp")
            ]
        surplus = sorted(set(leftovers) - declared)
        if len(surplus) > prune["max"]:
            names = ", ".join("%s/%s" % name for name in surplus[:10])
            raise KubeError(
                "prune: %d machines match %s and aren't declared, but prune.max allows %d to be deleted: %s%s. Nothing "
                "was changed. Declare those to keep, or raise prune.max."
                % (len(surplus), prune["label_selector"], prune["max"], names, ", …" if len(surplus) > 10 else "")
            )
        options = [{"namespace": namespace, "name": name, "state": "absent"} for namespace, name in surplus]
        return [self._member(option) for option in _fleet_plan.machines(options, {})]

    # -- doing it ---------------------------------------------------------------------------------------------------

    def _work(self, member):
        member.work(self._probe)

    def _roll_out(self):
        kept = [member for member in self._members if not member.is_removed]
        settled = [member for member in kept if id(member) not in self._pending]
        pending = [member for member in kept if id(member) in self._pending]
        groups = [pending] if self.check_mode else _fleet_plan.batches(pending, self._size, self._rollout["canary"])
        failed = self._crew.each(settled, self._work)
        if failed and self._rollout["on_failure"] != "continue":
            self._fail_rollout(failed, "that were as declared")
        for number, group in enumerate(groups):
            names = "batch %d of %d" % (number + 1, len(groups))
            if len(groups) > 1 and self.params["progress"]:
                self._crew.say("%s: %s" % (names, _named(group)))
            failed += self._crew.each(group, self._work)
            if failed and self._rollout["on_failure"] != "continue":
                if self._rollout["on_failure"] == "rollback" and not self.check_mode:
                    self._roll_back(failed, names)
                self._fail_rollout(failed, "in %s" % names)
        if failed:
            self._fail_rollout(failed, "")

    def _fail_rollout(self, failed, where):
        left = sum(member.status == "pending" for member in self._members)
        raise KubeError(
            "%d of %d machines%s failed. %s%s"
            % (
                len(failed),
                len(self._members),
                " " + where if where else "",
                _reasons(failed),
                " %d weren't touched. Run the task again to continue." % left if left else "",
            )
        )

    def _roll_back(self, failed, where):
        """Bring all that was changed back to what it was, and fail."""
        reasons = _reasons(failed)
        changed = [member for member in self._members if member.is_touched]
        if self.params["progress"]:
            self._crew.say("%s failed, rolling back: %s" % (where, _named(changed)))
        stuck = self._crew.each(changed, Member.restore)
        for member in failed:
            # Restored or not, this is what was wrong with it.
            member.message = member.message or "failed"
        lost = " %d couldn't be rolled back. %s" % (len(stuck), _reasons(stuck)) if stuck else ""
        raise KubeError(
            "%d of %d machines in %s failed. %s %d that had been changed were rolled back.%s"
            % (len(failed), len(self._members), where, reasons, len(changed) - len(stuck), lost)
        )

    def _remove(self):
        """Delete what isn't to exist."""
        leaving = [*[member for member in self._members if member.is_removed], *self._pruned]
        failed = self._crew.each(leaving, self._work)
        if failed:
            raise KubeError("%d of %d machines couldn't be deleted. %s" % (len(failed), len(leaving), _reasons(failed)))

    # -- results ----------------------------------------------------------------------------------------------------

    def done_so_far(self):
        return self._report() if self._planned else {}

    def _report(self):
        counts = Counter(member.status for member in self._members)
        pruned = sum(member.status == "deleted" for member in self._pruned)
        summary = {**counts, **({"pruned": pruned} if pruned else {})}
        return {"vms": [member.shown() for member in self._members], "summary": summary}

    def _warn_of_restarts(self):
        names = [member for member in self._members if member.result.get("restart_required")]
        if names:
            self.module.warn(
                "%d machines still run with their previous declaration: %s. Restart them to apply the declaration "
                "(rollout.restart=true, or state=restarted)." % (len(names), _named(names))
            )


def _named(members):
    more = ", and %d more" % (len(members) - _SHOWN) if len(members) > _SHOWN else ""
    return ", ".join(str(member) for member in members[:_SHOWN]) + more


def _reasons(members):
    more = " And %d more." % (len(members) - _SHOWN) if len(members) > _SHOWN else ""
    return " ".join(sentence(member.message) for member in members[:_SHOWN]) + more
