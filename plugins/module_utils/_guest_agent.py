# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands in a guest by its guest agent.

The KubeVirt API has no way to run one. The agent is asked by virsh in the launcher's container, as administrators do it
by hand, so the user of the API needs the right to run commands in Pods.
"""

from __future__ import annotations

import base64
import json
import time
from collections import namedtuple

from . import _resources
from ._errors import ApiError, KubeError, explain_error
from ._pod_exec import PodExec
from ._values import from_json
from ._vm_status import VMI
from ._wait import is_true

POD = _resources.known("v1", "Pod")
CONTAINER = "compute"
# Bytes of a file or of standard input in one command, so that a request doesn't take long to be read.
CHUNK = 48 * 1024
# Seconds until a command is looked after again, and at most.
_FIRST_LOOK, _LONGEST_PAUSE = 0.02, 0.5
# Seconds that virsh and the way to it may take besides the agent.
_WAY = 30
_NEEDED = ("guest-exec", "guest-exec-status")
# virsh reads commands from its standard input, so that they aren't in the list of processes, and echoes them. What it
# answers ends with a word that the echo doesn't have in one piece.
_MARK, _MARKED = b"--answered--", b"echo '--answ''ered--'\n"
_ANSWER = '{"return"'
# Where the variable that names the libvirtd isn't set, the places are tried that launchers of KubeVirt have.
_VIRSH = r"""
command -v virsh >/dev/null || { echo 'error: the image has no virsh'; exit 1; }
for uri in "$LIBVIRT_DEFAULT_URI" 'qemu+unix:///session?socket=/var/run/libvirt/virtqemud-sock' \
    qemu:///session qemu:///system; do
    [ -n "$uri" ] && virsh -q -c "$uri" domid "$1" >/dev/null 2>&1 && break
    uri=
done
[ -n "$uri" ] || { echo "error: its libvirtd doesn't know $1"; exit 1; }
TERM=dumb VIRSH_HISTSIZE=0 exec virsh -q -c "$uri" 2>&1
"""

Done = namedtuple("Done", "status out err")


class AgentError(KubeError):
    """The agent can't be asked, or doesn't run commands."""


class NotConnected(AgentError):
    """The agent isn't there, or not yet."""


class NotAllowed(AgentError):
    """The agent can't be used, and waiting doesn't change that."""


class GuestAgent:
    """The agent of one running guest. Connected when first asked.

    :param client: the connection to the API server.
    :param name: that of the VirtualMachineInstance.
    :param patience: seconds that one answer of the agent may take.
    """

    def __init__(self, client, namespace, name, patience=10):
        self._client, self._namespace, self._name = client, namespace, name
        self._patience = patience
        self._domain = "%s_%s" % (namespace, name)
        self._exec = None

    def __str__(self):
        return _resources.name_of(VMI, self._namespace, self._name)

    def run(self, command, data=None, timeout=None):
        """Run a command in the guest, and return its Done: exit status, standard output, standard error.

        :param command: program and arguments.
        :param data: bytes of its standard input, at most CHUNK; None for none.
        :param timeout: seconds that it may take; None for any number.
        :raises AgentError: it can't be run, doesn't end in time, or was ended by a signal.
        """
        pid, deadline = self.start(command, data), None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            done = self.look(pid)
            if done:
                return done
            if deadline is not None and time.monotonic() >= deadline:
                raise AgentError("%s: %s hasn't ended in the guest within %d seconds" % (self, command[0], timeout))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def start(self, command, data=None):
        """Start a command in the guest; return its process id for look()."""
        arguments = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
        if data is not None:
            arguments["input-data"] = base64.b64encode(data).decode()
        return self._ask("guest-exec", arguments)["pid"]

    def look(self, pid):
        """Return the Done of a command that was started; None while it runs."""
        status = self._ask("guest-exec-status", {"pid": pid})
        if not status.get("exited"):
            return None
        if "signal" in status:
            raise AgentError("%s: a command was ended in the guest by signal %s" % (self, status["signal"]))
        if status.get("out-truncated") or status.get("err-truncated"):
            raise AgentError("%s: a command's output is too long for the guest agent" % self)
        out, err = (base64.b64decode(status.get(key) or "") for key in ("out-data", "err-data"))
        return Done(status.get("exitcode", 1), out, err)

    def close(self):
        """End the connection."""
        if self._exec:
            self._exec.close()
        self._exec = None

    def _ask(self, command, arguments=None):
        if self._exec is None:
            self._connect()
        try:
            return self._asked(command, arguments)
        except AgentError:
            raise
        except KubeError as exc:
            self._exec = None
            raise AgentError("%s: lost access to the launcher Pod: %s" % (self, exc)) from exc

    def _asked(self, command, arguments):
        request = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        # A quotation mark would end the argument of virsh.
        line = "qemu-agent-command --timeout %d %s '%s'\n" % (
            self._patience,
            self._domain,
            request.replace("'", "\\u0027"),
        )
        self._exec.send(line.encode() + _MARKED)
        answer = self._exec.read_until(_MARK, self._patience + _WAY)
        if answer is None:
            raise KubeError("no answer within %d seconds" % (self._patience + _WAY))
        lines = answer.decode(errors="replace").splitlines()
        returned = [line for line in lines if line.startswith(_ANSWER)]
        if not returned:
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            raise AgentError("%s: guest agent: %s failed: %s" % (self, command, "; ".join(errors) or lines[-1:]))
        return from_json(returned[-1])["return"]

    def _connect(self):
        pod = self._launcher()
        path = _resources.path(POD, self._namespace, pod)
        try:
            self._exec = PodExec(self._client, path, CONTAINER, ["sh", "-c", _VIRSH, "sh", self._domain])
            self._check_commands()
        except AgentError:
            raise
        except ApiError as exc:
            if exc.status == 403:
                raise NotAllowed(
                    "%s: commands run by the guest agent need the right to create pods/exec in namespace %s, as the "
                    "agent is reached through the launcher Pod: %s" % (self, self._namespace, why_refused(exc)),
                    **exc.facts,
                ) from exc
            raise AgentError("%s: %s: %s" % (self, pod, why_refused(exc)), **exc.facts) from exc
        except KubeError as exc:
            raise NotAllowed("%s: the guest agent can't be reached in %s: %s" % (self, pod, exc), **exc.facts) from exc

    def _check_commands(self):
        enabled = {entry["name"]: entry["enabled"] for entry in self._asked("guest-info", None)["supported_commands"]}
        missing = [command for command in _NEEDED if not enabled.get(command)]
        if missing:
            raise NotAllowed(
                "%s: its guest agent may not run commands (%s). Allow it in the guest; on RHEL and the like in "
                "/etc/sysconfig/qemu-ga." % (self, ", ".join(missing))
            )

    def _launcher(self):
        """Return the name of the Pod that the guest runs in.

        :raises AgentError: there is none, or the agent isn't connected.
        """
        try:
            vmi = self._client.get(_resources.path(VMI, self._namespace, self._name))
            if vmi is None:
                raise AgentError("%s doesn't exist: no guest of that name is running" % self)
            if not is_true(vmi, "AgentConnected"):
                raise NotConnected("%s: its guest agent isn't connected; the guest needs qemu-guest-agent" % self)
            selector = "kubevirt.io/created-by=%s" % vmi["metadata"]["uid"]
            pods, _version = self._client.list(_resources.path(POD, self._namespace), label_selector=selector)
        except ApiError as exc:
            kind = NotAllowed if exc.status == 403 else AgentError
            raise kind("%s: %s" % (self, why_refused(exc)), **exc.facts) from exc
        node = (vmi.get("status") or {}).get("nodeName")
        for pod in pods:
            running = (pod.get("status") or {}).get("phase") == "Running"
            # During a migration there are two of them.
            if running and (pod.get("spec") or {}).get("nodeName") == node and _has_container(pod):
                return pod["metadata"]["name"]
        raise AgentError("%s: its launcher Pod doesn't exist or isn't running" % self)


def why_refused(exc):
    """Return why the server refused something about Pods. Roles of KubeVirt, which others name, don't help there."""
    return exc.message.rstrip(".") if exc.status == 403 else explain_error(exc).rstrip(".")


def _has_container(pod):
    return any(container.get("name") == CONTAINER for container in (pod.get("spec") or {}).get("containers") or [])
