# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Many machines at once: each is a MachineTask on a thread, all of them see the server through one View."""

from __future__ import annotations

import contextlib
import copy
import queue
import subprocess
import threading
import time

from . import _diagnosis, _resources, _vm_status
from ._errors import ApiError, KubeError, explain_error
from ._readiness import address_of
from ._vm_task import MachineTask

# Seconds after which machines that aren't there yet are reported, and how many of them at most.
LATE, LATE_SHOWN = 10, 3
# Seconds between two runs of a probe command.
PROBE_PAUSE = 1
_LONGEST_OUTPUT = 300
# Options that are left out where a machine is brought back to what it was.
_DECLARING = ("definition", "src", "spec", "run_strategy", "running", "grace_period_seconds", "delete_options")


class LimitedClient:
    """A client with so many requests in flight at most; watches don't count."""

    def __init__(self, client, forks, namespace):
        self._client = client
        self._free = threading.BoundedSemaphore(forks)
        # What counts where a machine doesn't name its namespace.
        self.default_namespace = namespace

    def __getattr__(self, name):
        return getattr(self._client, name)

    def request(self, *args, **kwargs):
        """As the client's."""
        with self._free:
            return self._client.request(*args, **kwargs)

    def get(self, path):
        """As the client's."""
        with self._free:
            return self._client.get(path)

    def list(self, *args, **kwargs):
        """As the client's."""
        with self._free:
            return self._client.list(*args, **kwargs)


class MemberModule:
    """What takes the place of AnsibleModule for one machine."""

    def __init__(self, params, check_mode):
        self.params = params
        self.check_mode = check_mode
        self.no_log_values = set()
        self.warnings = []

    def warn(self, warning):
        """Keep a warning."""
        self.warnings.append(warning)


class Restoration(MachineTask):
    """Gives a machine the declaration it had before, whole."""

    EXACT = frozenset(("annotations", "labels", "spec"))
    restarts_outdated = True

    def __init__(self, module, client, view, before):
        super().__init__(module, client, view)
        self._before = before

    def declare(self, live):
        self.created = live is None
        self.fresh = False
        metadata = self._before["metadata"]
        return {
            **self.declaration,
            "metadata": {
                **self.declaration["metadata"],
                "labels": copy.deepcopy(metadata.get("labels") or {}),
                "annotations": copy.deepcopy(metadata.get("annotations") or {}),
            },
            "spec": copy.deepcopy(self._before["spec"]),
        }


class Member:
    """One machine of the fleet, and how far it is."""

    def __init__(self, params, check_mode, client, view, restarts=False):
        self.params = params
        self.client, self.view = client, view
        self.module = MemberModule(params, check_mode)
        self.task = MachineTask(self.module, client, view)
        self.task.restarts_outdated = restarts
        self.task.identify()
        self.namespace, self.name = self.task.namespace, self.task.name
        # pending, working, created, changed, unchanged, deleted, failed, restored
        self.status = "pending"
        self.message = ""
        self.result = {}
        self.began = None
        # VirtualMachine and instance before anything was done to them.
        self.before = self.instance_before = None

    def __str__(self):
        return "%s/%s" % (self.namespace, self.name)

    @property
    def is_removed(self):
        """Return whether the machine isn't to exist."""
        return self.params["state"] == "absent"

    @property
    def is_touched(self):
        """Return whether something was written."""
        return self.task.changed

    def work(self, probe):
        """Bring the machine about, wait for it and probe it."""
        self.before, self.instance_before = self.task.machine.get(), self.task.machine.instance()
        self.result = self.task.run()
        if probe and self.task.waits and self.params["state"] != "paused" and _vm_status.is_active(self.task.vmi):
            probe(self)
        self.status = self._done()

    def _done(self):
        if not self.result["changed"]:
            return "unchanged"
        if self.is_removed:
            return "deleted"
        return "created" if self.before is None else "changed"

    def restore(self):
        """Bring the machine back to what it was."""
        params = {**self.params, "state": "absent", "force": True}
        if self.before is None:
            task = MachineTask(self.module, self.client, self.view)
        else:
            params["state"] = "running" if _vm_status.is_active(self.instance_before) else "stopped"
            task = Restoration(self.module, self.client, self.view, self.before)
        # Options that declare something would contradict what it was.
        for option in _DECLARING:
            params[option] = None
        params.update(name=self.name, namespace=self.namespace)
        task.params = params
        task.run()
        self.status = "restored"

    def why_late(self):
        """Return what is known about a machine that isn't there yet, from what is seen anyway."""
        vm, vmi = self.task.machine.get(), self.task.machine.instance()
        conditions = [text for obj in (vmi, vm) if obj for text in _diagnosis.bad_conditions(obj)][:1]
        status = _vm_status.printable_status(vm) or "not seen by virt-controller yet"
        return ": ".join([status, *([self.task.lacking] if self.task.lacking else conditions)])

    def shown(self):
        """Return what the result says of the machine."""
        actions = [action for action in (self.task.action, self.task.guest_action) if action]
        return {
            "name": self.name,
            "namespace": self.namespace,
            "status": self.status,
            "actions": actions,
            "address": self.result.get("address") or address_of(self.task.vmi),
            "restart_required": bool(self.result.get("restart_required")),
            "duration": self.result.get("duration", 0.0),
            "msg": self.message,
        }

    def diff(self):
        """Return the machine's part of the diff."""
        before, after = (self.result.get("diff") or {}).get("before"), (self.result.get("diff") or {}).get("after")
        header = "VirtualMachine %s" % self
        return {"before_header": header, "after_header": header, "before": before or {}, "after": after or {}}


class Crew:
    """Works on members side by side, and says how far it is.

    :param say: takes a line for users.
    :param every: seconds between lines about the progress; 0 for none.
    """

    def __init__(self, say, every):
        self.say = say
        self._every = every
        self._members = []

    def enlist(self, members):
        """Name the members that the progress is about."""
        self._members = members

    def each(self, members, work):
        """Call work(member) for all of them at once; return those that failed, with the reason as their message."""
        done = queue.SimpleQueue()
        for member in members:
            member.status, member.began = "working", time.monotonic()
            threading.Thread(target=self._run, args=(member, work, done), daemon=True).start()
        failed, left = [], len(members)
        tell = time.monotonic() + self._every
        while left:
            try:
                member, error = done.get(timeout=max(0.01, tell - time.monotonic()) if self._every else None)
            except queue.Empty:
                self._tell()
                tell = time.monotonic() + self._every
                continue
            left -= 1
            if error is not None:
                member.status, member.message = "failed", error
                failed.append(member)
                if self._every:
                    self.say("%s failed: %s" % (member, error))
        return failed

    @staticmethod
    def _run(member, work, done):
        error = None
        try:
            work(member)
        except ApiError as exc:
            error = "%s: %s" % (_resources.name_in(exc.path), explain_error(exc))
        except KubeError as exc:
            error = str(exc)
        except Exception as exc:  # a thread's traceback would be lost, and the task would wait forever
            error = "unexpected failure: %s: %s" % (type(exc).__name__, exc)
        done.put((member, error))

    def _tell(self):
        now = time.monotonic()
        working = [member for member in self._members if member.status == "working"]
        to_come = sum(member.status == "pending" for member in self._members)
        failed = sum(member.status == "failed" for member in self._members)
        ready = len(self._members) - len(working) - to_come - failed
        parts = ["%d of %d machines done" % (ready, len(self._members)), "%d under way" % len(working)]
        parts += ["%d to come" % to_come] if to_come else []
        parts += ["%d failed" % failed] if failed else []
        late = [member for member in working if now - member.began >= LATE]
        if late:
            parts.append(
                "%d late: %s" % (len(late), "; ".join(self._about(member, now) for member in late[:LATE_SHOWN]))
            )
        self.say(", ".join(parts))

    @staticmethod
    def _about(member, now):
        why = ""
        with contextlib.suppress(KubeError):
            why = member.why_late()
        return "%s (%d s, %s)" % (member, now - member.began, why)


class Probe:
    """A command that succeeds if a machine is as its users need it."""

    def __init__(self, command, timeout):
        if not command:
            raise KubeError("probe.command: is empty. Give a program and its arguments, each an entry of the list.")
        if timeout < 1:
            raise KubeError("probe.timeout: %d isn't positive. Give seconds." % timeout)
        self._command = command
        self._timeout = timeout

    def __call__(self, member):
        """Run the command until it succeeds.

        :raises KubeError: it didn't within the timeout.
        """
        values = {"{name}": member.name, "{namespace}": member.namespace, "{address}": address_of(member.task.vmi)}
        command = [_filled(word, values) for word in self._command]
        deadline = time.monotonic() + self._timeout
        while True:
            why = self._run(command, deadline)
            if why is None:
                return
            if time.monotonic() + PROBE_PAUSE >= deadline:
                raise KubeError(
                    "VirtualMachine %s runs, but its probe %r didn't succeed within %d seconds (probe.timeout): %s"
                    % (member, " ".join(command), self._timeout, why)
                )
            time.sleep(PROBE_PAUSE)

    def _run(self, command, deadline):
        try:
            # A module's run_command has no timeout.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=max(1, deadline - time.monotonic()),
            )
        except subprocess.TimeoutExpired:
            return "it doesn't end"
        except OSError as exc:
            raise KubeError("probe.command: %r can't be run: %s" % (command[0], exc.strerror or exc)) from exc
        if done.returncode == 0:
            return None
        output = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        return "exit code %d%s" % (done.returncode, ": %s" % output[-_LONGEST_OUTPUT:] if output else "")


def _filled(word, values):
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word
