# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Types of a task's options, judged before Ansible's validation. Pure functions.

Ansible's own messages for a wrong type name Python's types, or no option at all; and where text is expected, it turns
lists and mappings into text that looks like Python.
"""

from __future__ import annotations

from ansible.module_utils.common.validation import check_type_bool, check_type_dict, check_type_int

from ._values import described, type_name

_NUMBERS = {"int": (check_type_int, "a whole number"), "bool": (check_type_bool, "true or false")}
# Numbers in objects have 64 bits.
_TOO_LARGE = 2**63
# Values that examples show, by the type of the option.
_EXAMPLES = {"int": "2", "bool": "true", "str": "…", "path": "…"}


def wrong_types(spec, options, path=""):
    """Return what is wrong with the type of an option, in one sentence; None where nothing is.

    :param spec: argument_spec of the options.
    """
    aliases = {alias: name for name, option in spec.items() for alias in option.get("aliases") or ()}
    for given, value in options.items():
        if not isinstance(given, str):
            return _not_text(given, path.rstrip(".") or "the task")
        option = spec.get(aliases.get(given, given))
        # Ansible has better words for unknown options.
        wrong = _wrong(option, value, path + str(given)) if option and value is not None else None
        if wrong:
            return wrong
    return None


def _wrong(option, value, where):
    kind = option.get("type", "str")
    if kind == "dict":
        return _wrong_mapping(option, value, where)
    if kind == "list":
        return _wrong_list(option, value, where)
    if kind in ("str", "path") and isinstance(value, (dict, list, tuple)):
        # Not shown: it may have a password in it.
        return "%s: must be text, but is a %s." % (where, type_name(value))
    if kind in ("path", "raw") and isinstance(value, str) and "\0" in value:
        return "%s: no file's name has a NUL character, but this one does." % where
    if kind in _NUMBERS:
        convert, words = _NUMBERS[kind]
        try:
            is_right = abs(convert(value)) < _TOO_LARGE
        except (TypeError, ValueError, ArithmeticError):
            is_right = False
        if not is_right:
            return "%s: must be %s, but is %s." % (where, words, described(value))
    return None


def _wrong_mapping(option, value, where):
    inner = option.get("options")
    if isinstance(value, dict):
        return wrong_types(inner, value, where + ".") if inner else _wrong_name(value, where)
    if _is_written_mapping(value) and _is_read(check_type_dict, value):
        return None
    example = " such as %s" % _example(inner) if inner else ""
    return "%s: must be a mapping%s, but is %s." % (where, example, _shown(option, value))


def _wrong_list(option, value, where):
    kind = option.get("elements", "str")
    element = {**option, "type": kind}
    if isinstance(value, (list, tuple)):
        for number, entry in enumerate(value):
            here = "%s[%d]" % (where, number)
            if entry is None:
                return "%s: must not be empty." % here
            wrong = _wrong(element, entry, here)
            if wrong:
                return wrong
        return None
    if isinstance(value, dict):
        return "%s: must be a list, but is a mapping. Write a dash before it." % where
    if kind == "dict" and not _is_written_mapping(value):
        example = " such as [%s]" % _example(option["options"]) if option.get("options") else ""
        return "%s: must be a list of mappings%s, but is %s." % (where, example, described(value))
    return None


def _wrong_name(mapping, where):
    """Return what is wrong with the names in a mapping of the user's own, such as labels.

    YAML takes on, yes, no and 1.0 for something else than text. JSON would have them as "true", "false" and "1.0".
    """
    for name in mapping:
        if name is None or isinstance(name, (bool, float)):
            return _not_text(name, where)
    return None


def _not_text(name, where):
    shown = str(name).lower() if isinstance(name, bool) else name
    kind = type_name(name)
    return "%s: the name %s is %s, but must be text. Write it in quotes." % (
        where,
        kind if name is None else shown,
        "empty" if name is None else "a %s" % kind,
    )


def _is_read(check, value):
    """Return whether one of Ansible's checks can read a value."""
    try:
        check(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_written_mapping(value):
    """Return whether a value is text that Ansible reads as a mapping, or as a list of them: JSON, or key=value."""
    return isinstance(value, str) and (value.lstrip().startswith(("{", "[")) or "=" in value)


def _example(options):
    """Return a mapping with the first option that is required, or the first of all."""
    required = [name for name, option in options.items() if option.get("required")]
    name = (required or list(options))[0]
    value = "default" if name == "name" else _EXAMPLES.get(options[name].get("type", "str"), "…")
    return "{%s: %s}" % (name, value)


def _shown(option, value):
    return "a %s" % type_name(value) if option.get("no_log") else described(value)
