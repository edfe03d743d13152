# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to be read of a cluster for the hosts of an inventory, their variables and groups."""

from __future__ import annotations

import re

from . import _machines

IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


class Needs:
    """What has to be read for the hosts, their variables and groups.

    :param exported: the patterns of the host variables to set.
    :param templates: the texts of all Jinja expressions.
    :param expressions: whether there are JMESPath expressions, which may select anything.
    :param stopped: whether machines that don't run are hosts.
    """

    def __init__(self, exported, templates, expressions, stopped):
        self.exported = _machines.Selection(exported)
        names = {name for text in templates for name in IDENTIFIER.findall(text)}
        named = sorted(name for name in names if name.startswith(("vm_", "vmi_")) or name in _machines.LIGHT)
        # Whoever looks variables up by computed names may mean any.
        self.templates = _machines.Selection(["*"] if names & {"vars", "hostvars"} else named)
        self.whole = expressions or not (self.exported.is_light() and self.templates.is_light())
        self.machines = stopped or expressions or self.exported.needs_machines() or self.templates.needs_machines()
        self.keep = _machines.whole if self.whole else _machines.light
