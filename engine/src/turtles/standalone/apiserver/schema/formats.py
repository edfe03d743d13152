# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats and patterns of strings in schemas (k8s.io/kube-openapi, strfmt; RE2 for patterns)."""

import functools
import ipaddress
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

_BASE64 = re.compile(r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")


def _is_datetime(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        return False
    return True


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def _is_address(version: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            return ipaddress.ip_address(text).version == version
        except ValueError:
            return False

    return check


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text


_AMOUNT = r"(\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|m|h|d|w)"


_DURATION = re.compile(rf"^[-+]?{_AMOUNT}(\s*{_AMOUNT})*\Z")


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.match(text) is not None


_HEX = "[0-9a-fA-F]"


def _uuid(version: str) -> Callable[[str], bool]:
    variant = "[89abAB]" if version in "45" else _HEX
    return _matches(rf"^{_HEX}{{8}}-?{_HEX}{{4}}-?{version}{_HEX}{{3}}-?{variant}{_HEX}{{3}}-?{_HEX}{{12}}\Z")


_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


#: Formats of strings that are checked; others are documentation.
FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_datetime,
    "datetime": _is_datetime,
    "date": _is_date,
    "byte": lambda text: _BASE64.match(text) is not None,
    "uuid": _matches(rf"^{_HEX}{{8}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{12}}\Z"),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4"),
    "uuid5": _uuid("5"),
    "uri": _is_uri,
    "email": _matches(r"^[^@\s<>]+@[^@\s<>]+\Z"),
    "hostname": _matches(rf"^(?=.{{1,255}}\Z){_LABEL}(\.{_LABEL})*\Z"),
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "cidr": _is_network,
    "mac": _matches(r"^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}[:-][0-9a-fA-F]{2}[:-])?[0-9a-fA-F]{2}\Z"),
    "duration": lambda text: _DURATION.match(text) is not None,
    "hexcolor": _matches(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})\Z"),
    "bsonobjectid": _matches(r"^[0-9a-fA-F]{24}\Z"),
}


@functools.lru_cache(maxsize=4096)
def _pattern(text: str) -> Any:
    """Return a pattern compiled by RE2, as Kubernetes understands it and in linear time; None for one that is none."""
    import re2

    try:
        return re2.compile(text, _re2_options())
    except re2.error:
        return None


def _search(pattern: str, value: str) -> bool:
    compiled = _pattern(pattern)
    return compiled is None or compiled.search(value) is not None


#: Texts this long, in characters, are worth remembering: names, amounts, sizes come again and again.
_SHORT = 32


_search_short = functools.lru_cache(maxsize=8192)(_search)


def matches(pattern: str, value: str) -> bool:
    """Say whether a pattern is found in a text; one that can't be used is found everywhere."""
    return (_search_short if len(value) <= _SHORT else _search)(pattern, value)


@functools.cache
def _re2_options() -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    return options


def pattern_error(text: str) -> str:
    """Return why a pattern can't be used, '' for one that can."""
    import re2

    try:
        re2.compile(text, _re2_options())
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        return f"error parsing regexp: {reason.decode() if isinstance(reason, bytes) else reason}"
    return ""
