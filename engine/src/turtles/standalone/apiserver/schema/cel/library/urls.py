# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions on URLs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from turtles.standalone.apiserver.schema.cel.library.function import (
    Function,
    Tagged,
    free,
    member,
    tagged_value,
)
from turtles.standalone.apiserver.schema.cel.library.strings import quote

URL = "kubernetes.URL"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return (bool(parts.scheme) and bool(parts.netloc or parts.path)) or text.startswith("/")


def _url(text: str) -> Tagged:
    if not _is_url(text):
        text = f"parse {quote(text)}: invalid URI for request"
        raise ValueError(f"URL parse error during conversion from string: {text}")
    return {"@url": text}


def _of_url(read: Callable[[Any], Any]) -> Callable[[Tagged], Any]:
    return lambda value: read(urlsplit(tagged_value(value, "@url")))


FUNCTIONS: tuple[Function, ...] = (
    free("isURL", "bool", _is_url, "string"),
    free("url", URL, _url, "string"),
    member("getScheme", "string", _of_url(lambda url: url.scheme), URL),
    member("getHost", "string", _of_url(lambda url: url.netloc.rpartition("@")[2]), URL),
    member("getHostname", "string", _of_url(lambda url: url.hostname or ""), URL),
    member("getPort", "string", _of_url(lambda url: str(url.port or "")), URL),
    member("getEscapedPath", "string", _of_url(lambda url: url.path), URL),
    member(
        "getQuery", "map(string, list(string))", _of_url(lambda url: parse_qs(url.query, keep_blank_values=True)), URL
    ),
)
