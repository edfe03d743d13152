# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Marks what clusters say, which is never a template, for Ansible."""

from __future__ import annotations

from ansible.utils.unsafe_proxy import wrap_var

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core < 2.19 trusts what isn't marked

    def trust_as_template(value):
        """The value itself."""
        return value


TEMPLATE_MARKS = ("{{", "{%", "{#")


class Guard:
    """Marks strings from the cluster: those that Ansible could take for a template as unsafe, the others as harmless.

    ansible-inventory shows strings of which it doesn't know that in a form of its own. The same string is marked once:
    marking costs more than anything else here, and thousands of machines share nodes, namespaces and labels.
    """

    def __init__(self):
        self._marked = {}

    def __call__(self, value):
        """Return a value with all of its strings marked."""
        if isinstance(value, str):
            marked = self._marked.get(value)
            if marked is None:
                marked = wrap_var(value) if is_template(value) else trust_as_template(value)
                self._marked[value] = marked
            return marked
        if isinstance(value, dict):
            return {self(k): self(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self(v) for v in value]
        return value


def is_template(text):
    """Return whether Ansible could take a text for a template."""
    return text.startswith("#jinja2:") or any(mark in text for mark in TEMPLATE_MARKS)
