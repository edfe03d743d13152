# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads a fleet file on the controller, where its templates can be evaluated."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils import _fleet_file
from ..module_utils._errors import KubeError
from ..module_utils._values import described
from ..plugin_utils._templates import expand, trusted


class ActionModule(ActionBase):
    """Returns what a fleet file declares."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec({"path": {"type": "path", "required": True}})
        path = options["path"]
        written = trusted(self._loader.load_from_file(path, cache="none"))
        if not isinstance(written, dict):
            raise AnsibleActionFail(
                "%s: must be a mapping with keys such as vms, but is %s." % (path, described(written))
            )
        try:
            _fleet_file.check(written)
            vms = self._machines(written.pop("vms", None), task_vars or {})
            content = self._templar.template(written)
            vms = _fleet_file.with_images(vms, content.get("images"))
            objects = _fleet_file.objects(content)
        except KubeError as exc:
            raise AnsibleActionFail("%s: %s" % (path, exc)) from exc
        result.update(
            changed=False,
            objects=objects,
            options={**{name: content.get(name) for name in _fleet_file.OPTIONS if content.get(name)}, "vms": vms},
        )
        return result

    def _machines(self, entries, variables):
        """Return the machines of the section vms, with those of its templates."""
        if isinstance(entries, str):
            # The whole list is the value of a variable.
            entries = self._templar.template(entries)
            if not isinstance(entries, list):
                raise KubeError("vms: must be a list, but is %s." % described(entries))
        machines = []
        for number, entry in enumerate(entries or []):
            place = "vms[%d]" % number
            if not isinstance(entry, dict) or "template" not in entry:
                machines.append(self._templar.template(entry))
                continue
            count, items = (self._templar.template(entry.get(option)) for option in ("count", "items"))
            machines += expand(self._templar, variables, "%s.template" % place, entry["template"], count, items)
        return machines
