# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the collection's modules inside the controller's process where that gives the same result.

A module's own process costs about half a second per task and loop item, nearly all of it for starting Python,
unpacking and importing. Ansible imports a module's action plugin before it forks its workers, so they have loaded
already what every module needs. The Kubernetes library is loaded by the tasks whose connection needs it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase

from ..module_utils._arguments import wrong_types
from ..module_utils._configuration import is_self_contained

# What every module needs, before Ansible forks its workers.
import_module("..module_utils._resource_module", __package__)

HAS_KUBERNETES = find_spec("kubernetes") is not None
HAS_JMESPATH = find_spec("jmespath") is not None

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
        if self._here():
            arguments = module_class.arguments()
            arguments.pop("supports_check_mode")
            with self._tasks_environment():
                validated = ArgumentSpecValidator(**arguments).validate(options)
                if self._in_process(task_vars or {}, validated):
                    result.update(self._run(name, module_class, validated))
                    return result
        wrap_async = self._task.async_val and not self._connection.has_native_async
        result.update(self._execute_module(module_args=options, task_vars=task_vars, wrap_async=wrap_async))
        return result

    def _run(self, name, module_class, validated):
        """Run the module and return its result."""
        if validated.error_messages:
            msg = validated.errors.msg
            if isinstance(validated.errors[0], UnsupportedError):
                msg = "Unsupported parameters for (%s) module: %s" % (self._task.action, msg)
            raise AnsibleActionFail(remove_values(msg, validated._no_log_values))
        module = InProcessModule(
            validated.validated_parameters, self._task.check_mode, set(validated._no_log_values), self._display
        )
        running = module_class(module)
        result = {}
        try:
            with _ansibles_temporary_files():
                running.execute()
        except Ended as ended:
            result = ended.result
        except Exception as exc:  # as an ordinary module would: the traceback with -vvv, and the play goes on
            result = {
                "failed": True,
                "changed": running.changed,
                "msg": "Unexpected failure of module %s: %s: %s" % (name, type(exc).__name__, exc),
                "exception": traceback.format_exc(),
            }
            result = remove_values(result, module.no_log_values)
        if not self._task.diff:
            result.pop("diff", None)
        return result

    @contextmanager
    def _tasks_environment(self):
        """Have the variables of the task's environment, as its module would."""
        environment = {}
        self._compute_environment_string(environment)
        before = dict(os.environ)
        os.environ.update({key: str(value) for key, value in environment.items()})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def prepared(self, options, task_vars):
        """Return the options that the module gets, from those of the task."""
        return options

    def _here(self):
        """Return whether the module would run on this machine, as this user."""
        return self._connection.transport == "local" and not self._task.async_val and not self._connection.become

    def _in_process(self, task_vars, validated):
        """Return whether the module gives the same result with this Python as with the one that is requested."""
        interpreter = task_vars.get("ansible_python_interpreter")
        if not interpreter or str(interpreter).startswith("auto"):
            # No interpreter requested: the one that runs Ansible has what Ansible's own requirements name.
            return HAS_KUBERNETES
        interpreter = self._templar.template(interpreter)
        return _same_python(str(interpreter)) or _any_python(validated.validated_parameters)


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


def _any_python(options):
    """Return whether options need nothing that belongs to a Python: neither its packages nor its authorities.

    An interpreter for all hosts, such as /usr/bin/python3 in group_vars/all, then costs nothing, and needs no packages.
    """
    return HAS_KUBERNETES and (not options.get("query") or HAS_JMESPATH) and is_self_contained(options)


def _same_python(interpreter):
    """Return whether the path is the Python that runs here.

    Links aren't resolved: those of a virtual environment lead to a Python that doesn't have its packages.
    """
    return os.path.abspath(os.path.expanduser(interpreter)) == os.path.abspath(sys.executable)
