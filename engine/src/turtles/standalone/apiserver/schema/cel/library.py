# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions that Kubernetes adds to CEL: strings, lists, sets, regular expressions, URLs, addresses, quantities.

Source: the Kubernetes documentation "Common Expression Language in Kubernetes", "Kubernetes CEL libraries", and
cel-go's extension "strings". Values of the types URL, IP, CIDR, Quantity and Authorizer are maps with one key of their
own (``@url`` and so on) in canonical form, so that ``==`` compares what they mean.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

from turtles.standalone.apiserver.wire import quantities

Tagged = dict[str, Any]


class AccessCheck(Protocol):
    """Answers what the variable ``authorizer`` is asked."""

    def __call__(self, wanted: dict[str, str]) -> bool:
        """Say whether the request's user may do what is wanted."""


#: Who answers ``authorizer`` during an evaluation.
ACCESS: ContextVar[AccessCheck | None] = ContextVar("ACCESS", default=None)


class Function(NamedTuple):
    """An overload: types as CEL writes them, the receiver first for a member."""

    name: str
    member: bool
    parameters: tuple[str, ...]
    result: str
    call: Callable[..., Any]


def _plain(value: Any) -> Any:
    return value.plain_value() if hasattr(value, "plain_value") else value


def _items(values: Iterable[Any]) -> list[Any]:
    return [_plain(value) for value in values]


# -- strings


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise ValueError(f"index out of range: {index}")
    return text[index : index + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if not 0 <= start <= len(text):
        raise ValueError(f"index out of range: {start}")
    return text.find(part, start)


def _last_index_of(text: str, part: str, last: int | None = None) -> int:
    if last is None:
        return text.rfind(part)
    if not 0 <= last <= len(text):
        raise ValueError(f"index out of range: {last}")
    return text.rfind(part, 0, last + len(part))


def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"index out of range: {start}, {end}")
    return text[start:end]


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, limit)


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        parts = list(text)
        return parts if limit < 0 or len(parts) <= limit else [*parts[: limit - 1], "".join(parts[limit - 1 :])]
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _lower_ascii(text: str) -> str:
    return "".join(chr(ord(one) + 32) if "A" <= one <= "Z" else one for one in text)


def _upper_ascii(text: str) -> str:
    return "".join(chr(ord(one) - 32) if "a" <= one <= "z" else one for one in text)


def _join(values: Sequence[Any], separator: str = "") -> str:
    return separator.join(_items(values))


def _quote(text: str) -> str:
    escapes = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    quoted = "".join(escapes.get(one, one) for one in text.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{quoted}"'


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return "[" + ", ".join(_shown(_plain(one)) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(_plain(value[key]))}" for key in sorted(value)) + "}"
    return str(value)


_CLAUSE = re.compile(r"%(?:\.(\d+))?([%sdfeboxX])")


def _format(template: str, arguments: Sequence[Any]) -> str:
    values: Iterator[Any] = iter(_items(arguments))

    def fill(match: re.Match[str]) -> str:
        precision, clause = match.groups()
        if clause == "%":
            return "%"
        value: Any = next(values, _MISSING)
        if value is _MISSING:
            raise ValueError("index out of range: not enough arguments to format")
        if clause == "s":
            return _shown(value)
        if clause == "f":
            return f"{float(value):.{precision or 6}f}"
        if clause == "e":
            return f"{float(value):.{precision or 6}e}"
        if clause in "xX" and isinstance(value, str | bytes):
            data = value.encode() if isinstance(value, str) else value
            return data.hex() if clause == "x" else data.hex().upper()
        return format(int(value), clause)

    return _CLAUSE.sub(fill, template)


_MISSING = object()

# -- lists and sets


def _is_sorted(values: Sequence[Any]) -> bool:
    items = _items(values)
    return all(one <= other for one, other in pairwise(items))


def _sum(values: Sequence[Any]) -> Any:
    return sum(_items(values))


def _extreme(choose: Callable[[Iterable[Any]], Any], name: str) -> Callable[[Sequence[Any]], Any]:
    def call(values: Sequence[Any]) -> Any:
        items = _items(values)
        if not items:
            raise ValueError(f"{name} called on empty list")
        return choose(items)

    return call


def _list_index(values: Sequence[Any], wanted: Any) -> int:
    items = _items(values)
    return items.index(_plain(wanted)) if _plain(wanted) in items else -1


def _list_last_index(values: Sequence[Any], wanted: Any) -> int:
    items = _items(values)[::-1]
    return len(items) - 1 - items.index(_plain(wanted)) if _plain(wanted) in items else -1


def _contains(values: Sequence[Any], wanted: Sequence[Any]) -> bool:
    items = _items(values)
    return all(one in items for one in _items(wanted))


def _equivalent(values: Sequence[Any], others: Sequence[Any]) -> bool:
    return _contains(values, others) and _contains(others, values)


def _intersects(values: Sequence[Any], others: Sequence[Any]) -> bool:
    items = _items(values)
    return any(one in items for one in _items(others))


# -- regular expressions


def _find(text: str, pattern: str) -> str:
    import re2

    match = re2.search(pattern, text)
    return str(match.group(0)) if match else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    import re2

    matches = [match.group(0) for match in re2.finditer(pattern, text)]
    return matches if limit < 0 else matches[:limit]


# -- URLs


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return (bool(parts.scheme) and bool(parts.netloc or parts.path)) or text.startswith("/")


def _url(text: str) -> Tagged:
    if not _is_url(text):
        text = f"parse {_quote(text)}: invalid URI for request"
        raise ValueError(f"URL parse error during conversion from string: {text}")
    return {"@url": text}


def _of_url(read: Callable[[Any], Any]) -> Callable[[Tagged], Any]:
    return lambda value: read(urlsplit(_tag(value, "@url")))


def _tag(value: Tagged, tag: str) -> Any:
    if tag not in value:
        raise ValueError("no such overload")
    return _plain(value[tag])


# -- addresses


def _address(text: str) -> Tagged:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValueError(f"IP Address {_quote(text)} parse error during conversion from string")
    return {"@ip": str(address)}


def _network(text: str) -> Tagged:
    if "/" not in text:
        raise ValueError(f"network address parse error during conversion from string: {_quote(text)}")
    return {"@cidr": str(ipaddress.ip_interface(text))}


def _can(make: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            make(text)
        except ValueError:
            return False
        return True

    return check


def _ip(value: Tagged) -> Any:
    return ipaddress.ip_address(_tag(value, "@ip"))


def _cidr(value: Tagged) -> Any:
    return ipaddress.ip_interface(_tag(value, "@cidr"))


def _holds(network: Tagged, inner: Any) -> bool:
    outer = _cidr(network).network
    if isinstance(inner, str):
        inner = _network(inner) if "/" in inner else _address(inner)
    if "@ip" in inner:
        return _ip(inner) in outer
    other = _cidr(inner).network
    return bool(other.version == outer.version and other.subnet_of(outer))


def _is_global_unicast(value: Tagged) -> bool:
    address = _ip(value)
    return not (address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified)


# -- quantities


def _quantity(text: str) -> Tagged:
    return {"@quantity": str(quantities.value(text).normalize())}


def _amount(value: Any) -> Decimal:
    return Decimal(value) if isinstance(value, int) else Decimal(_tag(value, "@quantity"))


def _as_integer(value: Tagged) -> int:
    amount = _amount(value)
    if amount != int(amount) or not -(2**63) <= amount < 2**63:
        raise ValueError("cannot convert value to integer")
    return int(amount)


def _is_integer(value: Tagged) -> bool:
    amount = _amount(value)
    return amount == int(amount) and -(2**63) <= amount < 2**63


def _sign(value: Tagged) -> int:
    amount = _amount(value)
    return (amount > 0) - (amount < 0)


def _compare(one: Tagged, other: Tagged) -> int:
    return (_amount(one) > _amount(other)) - (_amount(one) < _amount(other))


def _added(sign: int, one: Tagged, other: Any) -> Tagged:
    return {"@quantity": str((_amount(one) + sign * _amount(other)).normalize())}


# -- the authorizer


def _authz(value: Tagged, **more: str) -> Tagged:
    return {"@authz": {**_tag(value, "@authz"), **more}}


def _check(value: Tagged, verb: str) -> Tagged:
    access = ACCESS.get()
    wanted = {**_tag(value, "@authz"), "verb": verb}
    return {"@decision": bool(access is not None and access(wanted))}


def _service_account(value: Tagged, namespace: str, name: str) -> Tagged:
    return _authz(value, user=f"system:serviceaccount:{namespace}:{name}")


URL, IP, CIDR, QUANTITY = "kubernetes.URL", "kubernetes.IP", "kubernetes.CIDR", "kubernetes.Quantity"
AUTHORIZER, PATH_CHECK, GROUP_CHECK = "kubernetes.authorization.Authorizer", "PathCheck", "GroupCheck"
RESOURCE_CHECK, DECISION = "ResourceCheck", "Decision"
#: Types that are maps when an expression runs.
TAGGED = (URL, IP, CIDR, QUANTITY, AUTHORIZER, PATH_CHECK, GROUP_CHECK, RESOURCE_CHECK, DECISION)
_SCALARS = ("int", "uint", "double", "bool", "string", "bytes")
_ORDERED = ("int", "uint", "double", "bool", "string", "bytes", "google.protobuf.Timestamp", "google.protobuf.Duration")


def _members(name: str, result: str, call: Callable[..., Any], *parameters: str) -> Function:
    return Function(name, True, parameters, result, call)


def _globals(name: str, result: str, call: Callable[..., Any], *parameters: str) -> Function:
    return Function(name, False, parameters, result, call)


FUNCTIONS: tuple[Function, ...] = (
    _members("charAt", "string", _char_at, "string", "int"),
    _members("indexOf", "int", _index_of, "string", "string"),
    _members("indexOf", "int", _index_of, "string", "string", "int"),
    _members("lastIndexOf", "int", _last_index_of, "string", "string"),
    _members("lastIndexOf", "int", _last_index_of, "string", "string", "int"),
    _members("substring", "string", _substring, "string", "int"),
    _members("substring", "string", _substring, "string", "int", "int"),
    _members("replace", "string", _replace, "string", "string", "string"),
    _members("replace", "string", _replace, "string", "string", "string", "int"),
    _members("split", "list(string)", _split, "string", "string"),
    _members("split", "list(string)", _split, "string", "string", "int"),
    _members("join", "string", _join, "list(string)"),
    _members("join", "string", _join, "list(string)", "string"),
    _members("lowerAscii", "string", _lower_ascii, "string"),
    _members("upperAscii", "string", _upper_ascii, "string"),
    _members("trim", "string", lambda text: text.strip(), "string"),
    _members("format", "string", _format, "string", "list(dyn)"),
    _globals("strings.quote", "string", _quote, "string"),
    _members("find", "string", _find, "string", "string"),
    _members("findAll", "list(string)", _find_all, "string", "string"),
    _members("findAll", "list(string)", _find_all, "string", "string", "int"),
    *(_members("isSorted", "bool", _is_sorted, f"list({kind})") for kind in _ORDERED),
    *(_members("sum", kind, _sum, f"list({kind})") for kind in ("int", "uint", "double")),
    *(_members("min", kind, _extreme(min, "min"), f"list({kind})") for kind in _ORDERED),
    *(_members("max", kind, _extreme(max, "max"), f"list({kind})") for kind in _ORDERED),
    *(_members("indexOf", "int", _list_index, f"list({kind})", kind) for kind in _SCALARS),
    *(_members("lastIndexOf", "int", _list_last_index, f"list({kind})", kind) for kind in _SCALARS),
    _globals("sets.contains", "bool", _contains, "list(dyn)", "list(dyn)"),
    _globals("sets.equivalent", "bool", _equivalent, "list(dyn)", "list(dyn)"),
    _globals("sets.intersects", "bool", _intersects, "list(dyn)", "list(dyn)"),
    _globals("isURL", "bool", _is_url, "string"),
    _globals("url", URL, _url, "string"),
    _members("getScheme", "string", _of_url(lambda url: url.scheme), URL),
    _members("getHost", "string", _of_url(lambda url: url.netloc.rpartition("@")[2]), URL),
    _members("getHostname", "string", _of_url(lambda url: url.hostname or ""), URL),
    _members("getPort", "string", _of_url(lambda url: str(url.port or "")), URL),
    _members("getEscapedPath", "string", _of_url(lambda url: url.path), URL),
    _members(
        "getQuery", "map(string, list(string))", _of_url(lambda url: parse_qs(url.query, keep_blank_values=True)), URL
    ),
    _globals("isIP", "bool", _can(_address), "string"),
    _globals("ip", IP, _address, "string"),
    _globals("ip.isCanonical", "bool", lambda text: _address(text)["@ip"] == text, "string"),
    _members("family", "int", lambda value: _ip(value).version, IP),
    _members("isUnspecified", "bool", lambda value: _ip(value).is_unspecified, IP),
    _members("isLoopback", "bool", lambda value: _ip(value).is_loopback, IP),
    _members(
        "isLinkLocalMulticast", "bool", lambda value: str(_ip(value)).startswith(("224.0.0.", "ff02:", "ff12:")), IP
    ),
    _members("isLinkLocalUnicast", "bool", lambda value: _ip(value).is_link_local, IP),
    _members("isGlobalUnicast", "bool", _is_global_unicast, IP),
    _globals("isCIDR", "bool", _can(_network), "string"),
    _globals("cidr", CIDR, _network, "string"),
    _members("containsIP", "bool", _holds, CIDR, "string"),
    _members("containsIP", "bool", _holds, CIDR, IP),
    _members("containsCIDR", "bool", _holds, CIDR, "string"),
    _members("containsCIDR", "bool", _holds, CIDR, CIDR),
    _members("ip", IP, lambda value: {"@ip": str(_cidr(value).ip)}, CIDR),
    _members("masked", CIDR, lambda value: {"@cidr": str(_cidr(value).network)}, CIDR),
    _members("prefixLength", "int", lambda value: _cidr(value).network.prefixlen, CIDR),
    _globals("isQuantity", "bool", _can(quantities.value), "string"),
    _globals("quantity", QUANTITY, _quantity, "string"),
    _members("sign", "int", _sign, QUANTITY),
    _members("isInteger", "bool", _is_integer, QUANTITY),
    _members("asInteger", "int", _as_integer, QUANTITY),
    _members("asApproximateFloat", "double", lambda value: float(_amount(value)), QUANTITY),
    _members("isGreaterThan", "bool", lambda one, other: _compare(one, other) > 0, QUANTITY, QUANTITY),
    _members("isLessThan", "bool", lambda one, other: _compare(one, other) < 0, QUANTITY, QUANTITY),
    _members("compareTo", "int", _compare, QUANTITY, QUANTITY),
    *(_members("add", QUANTITY, partial(_added, 1), QUANTITY, kind) for kind in (QUANTITY, "int")),
    *(_members("sub", QUANTITY, partial(_added, -1), QUANTITY, kind) for kind in (QUANTITY, "int")),
    _members("path", PATH_CHECK, lambda value, path: _authz(value, path=path), AUTHORIZER, "string"),
    _members("group", GROUP_CHECK, lambda value, group: _authz(value, group=group), AUTHORIZER, "string"),
    _members("serviceAccount", AUTHORIZER, _service_account, AUTHORIZER, "string", "string"),
    _members("resource", RESOURCE_CHECK, lambda value, name: _authz(value, resource=name), GROUP_CHECK, "string"),
    _members(
        "subresource", RESOURCE_CHECK, lambda value, name: _authz(value, subresource=name), RESOURCE_CHECK, "string"
    ),
    _members("namespace", RESOURCE_CHECK, lambda value, name: _authz(value, namespace=name), RESOURCE_CHECK, "string"),
    _members("name", RESOURCE_CHECK, lambda value, name: _authz(value, name=name), RESOURCE_CHECK, "string"),
    _members("check", DECISION, _check, PATH_CHECK, "string"),
    _members("check", DECISION, _check, RESOURCE_CHECK, "string"),
    _members("allowed", "bool", lambda value: _tag(value, "@decision"), DECISION),
    _members("errored", "bool", lambda value: False, DECISION),
    _members("error", "string", lambda value: "", DECISION),
    _members("reason", "string", lambda value: "", DECISION),
)
