# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the collection's modules inside the controller's process where that gives the same result.

A module's own process costs about half a second per task and loop item, nearly all of it for starting Python,
unpacking and importing. Ansible imports a module's action plugin before it forks its workers, so they have the
Kubernetes library loaded already.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from contextlib import contextmanager
from importlib import import_module

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase

from ..module_utils._arguments import wrong_types
from ..module_utils._configuration import load_library
from ..module_utils._errors import KubeError

try:
    load_library()  # before Ansible forks its workers
    HAS_KUBERNETES = True
except KubeError:
    HAS_KUBERNETES = False

MODULES = "ansible_collections.turtles.kubevirt.plugins.modules."


class Ended(Exception):
    """The module ended with this result."""

    def __init__(self, result):
        super().__init__()
        self.result = result


class InProcessModule:
    """The part of AnsibleModule that KubeModule uses."""

    def __init__(self, params, check_mode, no_log_values, display=None):
        self._display = display
        self.params = params
        self.check_mode = check_mode
        self.no_log_values = no_log_values
        self.warnings = []

    def warn(self, warning):
        """Add a warning to the result."""
        self.warnings.append(warning)

    def progress(self, text):
        """Show a line while the module runs. An ordinary module can't."""
        if self._display:
            self._display.display(remove_values(text, self.no_log_values))

    def exit_json(self, **result):
        """End the module with success."""
        raise Ended(self._finished(result))

    def fail_json(self, msg, **result):
        """End the module with a failure."""
        raise Ended(self._finished({"changed": False, **result, "failed": True, "msg": msg}))

    def _finished(self, result):
        if self.warnings:
            result["warnings"] = self.warnings
        result["invocation"] = {"module_args": self.params}
        return remove_values(result, self.no_log_values)


class InProcessAction(ActionBase):
    """Base of the action plugins, one per module."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        name = self._task.action.rpartition(".")[2]
        module_class = import_module(MODULES + name).MODULE
        # An option that is null is not given, so the environment counts, as in kubernetes.core.
        options = {option: value for option, value in self._task.args.items() if value is not None}
        options = self.prepared(options, task_vars or {})
        wrong = wrong_types(module_class.arguments()["argument_spec"], options)
        if wrong:
            raise AnsibleActionFail(wrong)
        if not self._in_process(task_vars or {}):
            wrap_async = self._task.async_val and not self._connection.has_native_async
            result.update(self._execute_module(module_args=options, task_vars=task_vars, wrap_async=wrap_async))
            return result
        arguments = module_class.arguments()
        arguments.pop("supports_check_mode")
        environment = {}
        self._compute_environment_string(environment)
        before = dict(os.environ)
        os.environ.update({key: str(value) for key, value in environment.items()})
        try:
            validated = ArgumentSpecValidator(**arguments).validate(options)
            if validated.error_messages:
                msg = validated.errors.msg
                if isinstance(validated.errors[0], UnsupportedError):
                    msg = "Unsupported parameters for (%s) module: %s" % (self._task.action, msg)
                raise AnsibleActionFail(remove_values(msg, validated._no_log_values))
            module = InProcessModule(
                validated.validated_parameters,
                self._task.check_mode,
                set(validated._no_log_values),
                self._display,
            )
            running = module_class(module)
            try:
                with _ansibles_temporary_files():
                    running.execute()
            except Ended as ended:
                result.update(ended.result)
            except Exception as exc:  # as an ordinary module would: the traceback with -vvv, and the play goes on
                result.update(
                    remove_values(
                        {
                            "failed": True,
                            "changed": running.changed,
                            "msg": "Unexpected failure of module %s: %s: %s" % (name, type(exc).__name__, exc),
                            "exception": traceback.format_exc(),
                        },
                        module.no_log_values,
                    )
                )
        finally:
            os.environ.clear()
            os.environ.update(before)
        if not self._task.diff:
            result.pop("diff", None)
        return result

    def prepared(self, options, task_vars):
        """Return the options that the module gets, from those of the task."""
        return options

    def _in_process(self, task_vars):
        """Return whether the module would run on this machine, as this user, with this Python."""
        if self._connection.transport != "local" or self._task.async_val or self._connection.become:
            return False
        interpreter = task_vars.get("ansible_python_interpreter")
        if not interpreter or str(interpreter).startswith("auto"):
            # No interpreter requested: the one that runs Ansible has what Ansible's own requirements name.
            return HAS_KUBERNETES
        interpreter = self._templar.template(interpreter)
        return _same_python(str(interpreter))


@contextmanager
def _ansibles_temporary_files():
    """Put temporary files in the folder that Ansible removes when it ends.

    The Kubernetes library writes certificates and keys of kubeconfigs to files, uses them as long as the process lives,
    and removes them when Python exits, which Ansible's workers skip.
    """
    before = tempfile.tempdir
    tempfile.tempdir = constants.DEFAULT_LOCAL_TMP
    try:
        yield
    finally:
        tempfile.tempdir = before


def _same_python(interpreter):
    """Return whether the path is the Python that runs here.

    Links aren't resolved: those of a virtual environment lead to a Python that doesn't have its packages.
    """
    return os.path.abspath(os.path.expanduser(interpreter)) == os.path.abspath(sys.executable)
