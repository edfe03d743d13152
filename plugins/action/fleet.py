# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module fleet: it evaluates the template for each machine."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail

from ..module_utils._errors import KubeError
from ..module_utils._fleet_plan import check_options
from ..plugin_utils._in_process import InProcessAction
from ..plugin_utils._templates import expand, trusted


class ActionModule(InProcessAction):
    """Runs the module with a list of machines."""

    @classmethod
    def finalize_task_arg(cls, name, value, templar, context):
        """Leave the template as it is written (ansible-core 2.19 and later; before, it has to be marked)."""
        if name == "template":
            return value
        return super().finalize_task_arg(name, value, templar, context)

    def prepared(self, options, task_vars):
        """Return the options with the machines of the template among the others."""
        template = options.pop("template", None)
        if template is None:
            return options
        if isinstance(template, dict):
            try:
                check_options("template", template)
            except KubeError as exc:
                raise AnsibleActionFail(str(exc)) from exc
        count, items = options.pop("count", None), options.pop("items", None)
        machines = expand(self._templar, task_vars, "template", self._written(template), count, items)
        vms = options.get("vms") or []
        return {**options, "vms": [*vms, *machines] if isinstance(vms, list) else vms}

    def _written(self, template):
        """Return the template as its author wrote it.

        Text that was marked with !unsafe looks like any other unsafe text in what Ansible hands over, such as that of
        a server; so what counts is the task's own text.
        """
        if hasattr(super(), "finalize_task_arg"):
            return trusted(template)
        written = self._task.get_ds() or {}
        options = written.get(self._task.action) or written.get("args") or {}
        inner = options.get("template") if isinstance(options, dict) else None
        return trusted(inner) if isinstance(inner, dict) else template
