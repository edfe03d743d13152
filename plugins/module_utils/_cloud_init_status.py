# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How far cloud-init is in a guest, and how it ended.

Its files in the guest say so (cloud-init, "Status and result files"); the guest agent reads them, where it runs
commands. Elsewhere it is taken from what cloud-init writes to the serial console, of which the launcher's Pod keeps a
log.
"""

from __future__ import annotations

import re
import time

from . import _guest_agent, _resources
from ._errors import ApiError, KubeError
from ._values import from_json
from ._wait import is_true

# Says "none", "disabled", "waits", or the content of status.json and, when it has ended, result.json.
_SCRIPT = """
if [ -e /run/cloud-init/disabled ]; then echo disabled
elif [ -e /run/cloud-init/status.json ]; then
    cat /run/cloud-init/status.json; printf '\\n%s\\n' ----; cat /run/cloud-init/result.json 2>/dev/null
elif command -v cloud-init >/dev/null || [ -d /run/cloud-init ]; then echo waits
else echo none
fi; :
"""
_SEPARATOR = "\n----\n"
# Seconds that the script may take.
_PATIENCE = 10
CONSOLE = "guest-console-log"
# Seconds between two looks at the log, lines of its end, and bytes of which errors are searched.
_PAUSE, _END, _LONGEST = 1, 300, 4 * 1024 * 1024
_FINISHED = re.compile(r"Cloud-init v\. ?\S+ finished at .*")
_MESSAGE = re.compile(r"cloud-init\[\d+\]: .*\[(WARNING|ERROR|CRITICAL)\]: (.*)")
# On the console modules that fail are warnings. What else has failed is only worth telling if a module has.
_MODULE_FAILED = re.compile(r"Running module .* failed\Z")
_PYTHONS_NAME = re.compile(r" \(<module .*?>\)")
_SHOWN = 5


class CloudInit:
    """cloud-init in one guest.

    :param client: the connection to the API server. :param name: that of the VirtualMachineInstance.
    """

    def __init__(self, client, namespace, name):
        self._client, self._namespace, self._name = client, namespace, name
        self._where = _resources.name_of(_guest_agent.VMI, namespace, name)
        self._agent = _guest_agent.GuestAgent(client, namespace, name)
        # Why the agent is of no use for good.
        self._useless = ""
        self._looked, self._seen = 0.0, ""
        self._log_path = None
        self.warnings = []

    def lack(self, vmi):
        """Return what it still has to do, in a sentence; "" when it has ended well.

        :raises KubeError: it ended with errors, won't run, or can't be asked.
        """
        why = self._useless or "its guest agent isn't connected"
        if is_true(vmi, "AgentConnected") and not self._useless:
            try:
                return self._by_agent()
            except _guest_agent.NotAllowed as exc:
                self._useless = why = str(exc)
            except _guest_agent.AgentError as exc:
                # The guest reboots, for instance.
                return "cloud-init's status isn't available at the moment: %s" % exc
        return self._by_console(vmi, why)

    def close(self):
        """End the connection to the agent."""
        self._agent.close()

    # -- by the agent -----------------------------------------------------------------------------------------------

    def _by_agent(self):
        output = self._agent.run(["/bin/sh", "-c", _SCRIPT], timeout=_PATIENCE).out.decode(errors="replace")
        word = output.strip()
        if word in ("none", "disabled"):
            why = "isn't installed" if word == "none" else "is disabled (/run/cloud-init/disabled)"
            raise KubeError("%s: cloud-init %s in the guest. Choose another wait_for." % (self._where, why))
        status, _separator, result = output.partition(_SEPARATOR)
        if word == "waits" or not result.strip():
            return _progress(_version1(status))
        errors = _version1(result).get("errors")
        self._judge(errors if isinstance(errors, list) else [errors] if errors else [])
        self.warnings = _recoverable(_version1(status))
        return ""

    def _judge(self, errors):
        if errors:
            more = ["and %d more" % (len(errors) - _SHOWN)] if len(errors) > _SHOWN else []
            raise KubeError(
                "%s: cloud-init ended with errors: %s. /var/log/cloud-init-output.log in the guest has more."
                % (self._where, "; ".join([*map(str, errors[:_SHOWN]), *more])),
                cloud_init_errors=[str(error) for error in errors],
            )

    # -- by the console ---------------------------------------------------------------------------------------------

    def _by_console(self, vmi, why):
        if time.monotonic() - self._looked < _PAUSE:
            return self._seen
        try:
            self._seen = self._read(vmi, why)
        finally:
            self._looked = time.monotonic()
        return self._seen

    def _read(self, vmi, why):
        try:
            path = self._log_path = self._log_path or self._log_of(vmi)
            if path is None:
                return self._unreadable(why, "its console isn't logged (logSerialConsole)")
            if not _FINISHED.search(self._log(path, tailLines=_END)):
                return "%s, and cloud-init hasn't said on the console that it has finished" % why
            text = self._log(path, limitBytes=_LONGEST)
        except ApiError as exc:
            return self._unreadable(why, "the log of its console can't be read: %s" % _guest_agent.why_refused(exc))
        self._judge(_console_errors(text))
        return ""

    def _unreadable(self, why, reason):
        """Return what is lacking where there is no log.

        :raises KubeError: there won't be an agent that runs commands, either.
        """
        if self._useless:
            raise KubeError(
                "%s: the status of cloud-init is unknown: %s; and %s. Wait for ssh, and run cloud-init status --wait "
                "as a task in the guest." % (self._where, self._useless, reason)
            )
        return "%s, and %s" % (why, reason)

    def _log(self, path, **options):
        return self._client.read(path, {"container": CONSOLE, **options}).decode(errors="replace")

    def _log_of(self, vmi):
        """Return the path of the log of the launcher's Pod; None if there is none."""
        selector = "kubevirt.io/created-by=%s" % vmi["metadata"]["uid"]
        pods, _version = self._client.list(_resources.path(_guest_agent.POD, self._namespace), label_selector=selector)
        for pod in pods:
            names = [
                container["name"]
                for key in ("containers", "initContainers")
                for container in pod["spec"].get(key) or []
            ]
            if CONSOLE in names:
                return _resources.path(_guest_agent.POD, self._namespace, pod["metadata"]["name"], "log")
        return None


def _console_errors(text):
    """Return the errors with which cloud-init ended, as far as the console tells."""
    errors = [(match[1], _PYTHONS_NAME.sub("", match[2].strip())) for match in _MESSAGE.finditer(text)]
    if not any(level != "WARNING" or _MODULE_FAILED.match(message) for level, message in errors):
        return []
    return list(dict.fromkeys(message for level, message in errors if level != "WARNING" or "fail" in message.lower()))


def _version1(text):
    """Return the part v1 of a file of cloud-init; {} while it isn't there, or isn't whole."""
    try:
        found = from_json(text).get("v1")
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _progress(status):
    """Return how far cloud-init is, in a sentence."""
    if status.get("stage"):
        return "cloud-init is at stage %s" % status["stage"]
    ends = {name: stage.get("finished") for name, stage in status.items() if isinstance(stage, dict)}
    # The file is the guest's: anything may be in it.
    ends = {name: end for name, end in ends.items() if end and isinstance(end, (int, float))}
    last = max(ends, key=ends.get, default=None)
    return "cloud-init has finished stage %s" % last if last else "cloud-init hasn't begun"


def _recoverable(status):
    """Return what cloud-init calls recoverable errors, each stage's once."""
    errors = []
    for stage in status.values():
        found = stage.get("recoverable_errors") if isinstance(stage, dict) else None
        for texts in found.values() if isinstance(found, dict) else ():
            errors += texts if isinstance(texts, list) else [texts]
    return list(dict.fromkeys(map(str, errors)))
