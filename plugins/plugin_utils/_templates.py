# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Templates of a fleet: options with Jinja in them, evaluated once for each machine."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail, AnsibleError

from ..module_utils._values import described, is_number

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core before 2.19 knows no trust

    def trust_as_template(value):
        """Return the text."""
        return value


def trusted(value):
    """Return what an author wrote with all its text as templates, whether it was marked with !unsafe or not."""
    if isinstance(value, dict):
        return {name: trusted(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [trusted(inner) for inner in value]
    # The join drops Ansible's marks.
    return trust_as_template("".join(value)) if isinstance(value, str) else value


def expand(templar, variables, place, template, count, items):
    """Return the options of each machine that a template stands for.

    :param template: as its author wrote it, from trusted().
    :param place: what messages call it.
    :raises AnsibleActionFail: naming the machine and the reason.
    """
    if (count is None) == (items is None):
        raise AnsibleActionFail("%s: needs either count or items, to say how many machines it stands for." % place)
    if items is None:
        if isinstance(count, bool) or not is_number(str(count).strip()):
            raise AnsibleActionFail("count: must be a number of machines, but is %s." % described(count))
        items = range(1, int(count) + 1)
    elif not isinstance(items, (list, tuple)):
        raise AnsibleActionFail("items: must be a list with a value for each machine, but is %s." % described(items))
    found = []
    for index, item in enumerate(items, 1):
        values = {**variables, "item": item, "index": index}
        try:
            options = templar.copy_with_new_env(available_variables=values).template(template)
        except AnsibleError as exc:
            raise AnsibleActionFail("%s, machine %d: %s" % (place, index, exc)) from exc
        if not isinstance(options, dict):
            raise AnsibleActionFail(
                "%s: must be a mapping with options of the module vm, but is %s." % (place, described(options))
            )
        found.append(_without(options, variables.get("omit")))
    return found


def _without(value, omit):
    """Return a value without what is to be omitted, which ansible-core before 2.19 leaves to its callers."""
    if isinstance(value, dict):
        return {name: _without(inner, omit) for name, inner in value.items() if not _is(inner, omit)}
    if isinstance(value, (list, tuple)):
        return [_without(inner, omit) for inner in value if not _is(inner, omit)]
    return value


def _is(value, omit):
    return isinstance(omit, str) and isinstance(value, str) and value == omit
