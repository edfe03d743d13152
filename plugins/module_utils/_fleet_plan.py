# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a fleet is, and in which order its machines are rolled out. Pure functions."""

from __future__ import annotations

import re

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import _metadata
from ._arguments import wrong_types
from ._auth import AUTH_ARGUMENTS
from ._base import WAIT_ARGUMENTS
from ._errors import KubeError, sentence
from ._keys import check_keys
from ._values import described, is_number, plain
from ._vm_task import MachineTask

# Options of the module vm that a fleet has once.
_OF_TASK = frozenset((*WAIT_ARGUMENTS, "wait_sleep"))
_PER_CENT = re.compile(r"([0-9]{1,3})%\Z")
# How many mistakes are reported at once.
_SHOWN = 5


def machine_arguments():
    """Return the keyword arguments of ArgumentSpecValidator for one machine: what the module vm has, but for how its
    server is reached and whether it is waited for, which the task says once."""
    arguments = MachineTask.arguments()
    arguments.pop("supports_check_mode")
    spec = {
        name: option
        for name, option in arguments["argument_spec"].items()
        if name not in AUTH_ARGUMENTS and name not in _OF_TASK
    }
    return {**arguments, "argument_spec": spec}


def machines(vms, common):
    """Return the options of each machine, complete, as the module vm has them.

    :param vms: what the user wrote.
    :param common: options that count where a machine doesn't have its own; labels are added to its own.
    :raises KubeError: naming the place of each mistake.
    """
    members, wrong = [], []
    arguments = machine_arguments()
    for number, options in enumerate(vms):
        try:
            members.append(_machine("vms[%d]" % number, options, common, arguments))
        except KubeError as exc:
            wrong.append(str(exc))
    fail_together(wrong)
    return members


def fail_together(wrong):
    """Raise KubeError if there are messages."""
    if wrong:
        more = " And %d more like these." % (len(wrong) - _SHOWN) if len(wrong) > _SHOWN else ""
        raise KubeError(" ".join(sentence(text) for text in wrong[:_SHOWN]) + more)


def check_options(place, options, arguments=None):
    """Raise KubeError for a key that isn't an option of one machine."""
    spec = (arguments or machine_arguments())["argument_spec"]
    known = {*spec, *(alias for option in spec.values() for alias in option.get("aliases") or ())}
    check_keys(place, options, known, dict.fromkeys((*AUTH_ARGUMENTS, *_OF_TASK), "is given once, for the whole task."))


def _machine(place, options, common, arguments):
    spec = arguments["argument_spec"]
    check_options(place, options, arguments)
    present = {name: value for name, value in options.items() if value is not None}
    mistake = wrong_types(spec, present, place + ".")
    if mistake:
        raise KubeError(mistake)
    merged = {**{name: value for name, value in common.items() if value is not None}, **present}
    if common.get("labels") and isinstance(present.get("labels"), dict):
        merged["labels"] = {**common["labels"], **present["labels"]}
    validated = ArgumentSpecValidator(**arguments).validate(merged)
    if validated.error_messages:
        raise KubeError("%s: %s" % (place, "; ".join(validated.error_messages)))
    return validated.validated_parameters


def check_unique(names):
    """Raise KubeError if two machines have the same namespace and name.

    :param names: their (namespace, name), in the order of the option vms.
    """
    first = {}
    for number, name in enumerate(names):
        if name in first:
            raise KubeError(
                "vms[%d] and vms[%d] are both VirtualMachine %s/%s. Give each a name of its own, in a template for "
                'instance "web-{{ index }}".' % (first[name], number, *name)
            )
        first[name] = number


def size_of(option, value, total):
    """Return how many machines a number or a percentage such as 25% is, at least one.

    :raises KubeError: it is neither.
    """
    text = str(plain(value)).strip()
    if is_number(text) and int(text) > 0:
        return int(text)
    match = _PER_CENT.match(text)
    if match and 0 < int(match[1]) <= 100:
        return max(1, -(-total * int(match[1]) // 100))
    raise KubeError(
        "%s: must be a number of machines from 1, or a percentage of all such as 25%%, but is %s."
        % (option, described(value))
    )


def batches(members, size, canary):
    """Return lists of members: the canaries, if any, then so many at a time."""
    groups = [members[:canary]] if canary else []
    rest = members[canary:]
    groups += [rest[start : start + size] for start in range(0, len(rest), size)]
    return [group for group in groups if group]


def labels_of(params):
    """Return the option labels of the fleet.

    :raises KubeError: naming what isn't text.
    """
    return _metadata.texts_of(params, "labels")
