# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies in and out: media types, JSON and YAML, and the forms in which objects are shown."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml
from aiohttp import web

from turtles.standalone.apiserver import protobuf, table
from turtles.standalone.apiserver.errors import (
    Object,
    StatusError,
    bad_request,
    not_acceptable,
    unsupported_media_type,
)
from turtles.standalone.apiserver.kinds import Kind
from turtles.standalone.apiserver.store import Entry, decode, encode
from turtles.standalone.apiserver.watch import Form

MEDIA_TYPES = ["application/json", "application/yaml"]
#: Largest body of a request, in bytes.
MAX_BODY = 3 * 1024 * 1024
#: Seconds in which a request's body has to come.
BODY_SECONDS = 60.0
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Accept:
    """What a client wants: ``shape`` is '', Table, PartialObjectMetadata or APIGroupDiscoveryList."""

    yaml: bool = False
    shape: str = ""
    version: str = ""


def accept(request: web.BaseRequest, shapes: tuple[str, ...] = ()) -> Accept:
    """Return the first of the client's choices that can be served; 406 when there is none."""
    header = request.headers.get("Accept", "")
    if not header.strip():
        return Accept()
    for choice in header.split(","):
        media, *parameters = (part.strip() for part in choice.split(";"))
        options = dict(part.partition("=")[::2] for part in parameters)
        if media not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        shape = options.get("as", "")
        if shape.removesuffix("List") in shapes:
            shape = shape.removesuffix("List")
        if shape and shape not in shapes:
            continue
        return Accept(media == "application/yaml", shape, options.get("v", ""))
    raise not_acceptable(MEDIA_TYPES)


async def read_body(request: web.BaseRequest) -> bytes:
    """Return a request's body; 413 when it is too large, 408 when it doesn't come, 400 when it can't be unpacked."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = request["body"] = await request.read()
            return raw
    except TimeoutError:
        text = f"the request's body was not there after {BODY_SECONDS:g} seconds"
        raise StatusError(408, "Timeout", text) from None
    except web.HTTPRequestEntityTooLarge:
        text = f"Request entity too large: limit is {MAX_BODY}"
        raise StatusError(413, "RequestEntityTooLarge", text) from None


def parse(raw: bytes, media_type: str) -> Any:
    """Return a body's data; 400 when it can't be read, 415 for a type the server doesn't speak."""
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.parse(raw)
    if media_type in ("application/yaml", "text/yaml", "application/apply-patch+yaml", "application/x-yaml"):
        return _parse_yaml(raw)
    if media_type not in ("application/json", "", "text/plain", "application/octet-stream") and not (
        media_type.endswith("+json")
    ):
        text = (
            "the body of the request was in an unknown format - accepted media types include: application/json, "
            "application/yaml"
        )
        raise unsupported_media_type(text)
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the request's body is not valid JSON: {error}") from None


def _parse_yaml(raw: bytes) -> Any:
    try:
        data = yaml.load(raw, Loader=_Loader)  # noqa: S506 - a safe loader, in C where there is one
        # YAML knows dates, sets and keys that aren't text; JSON's types are what an object may have. Aliases make a
        # few lines into gigabytes, so what comes out is measured while it does.
        text, size = [], 0
        for part in json.JSONEncoder(default=_plain).iterencode(data):
            text.append(part)
            size += len(part)
            if size > MAX_BODY:
                raise ValueError(f"with its aliases filled in it has more than {MAX_BODY} characters")
        return json.loads("".join(text))
    except (yaml.YAMLError, ValueError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the request's body is not valid YAML: {error}") from None


def _plain(value: Any) -> str:
    if hasattr(value, "isoformat"):
        text: str = value.isoformat()
        return text.replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no place in an object")


def json_response(
    data: Any, code: int = 200, headers: dict[str, str] | None = None, as_yaml: bool = False
) -> web.Response:
    """Return a response with an object."""
    return raw_response(encode(data) if isinstance(data, dict) else msgspec.json.encode(data), code, headers, as_yaml)


def raw_response(
    raw: bytes, code: int = 200, headers: dict[str, str] | None = None, as_yaml: bool = False
) -> web.Response:
    """Return a response with an object's JSON."""
    content_type = "application/json"
    if as_yaml:
        raw, content_type = yaml.safe_dump(decode(raw), sort_keys=False).encode(), "application/yaml"
    extra = {"Cache-Control": "no-cache, private", **(headers or {})}
    return web.Response(body=raw, status=code, content_type=content_type, headers=extra)


def list_body(api_version: str, kind: str, meta: Object, items: list[bytes]) -> bytes:
    """Return a list's JSON."""
    head = {"kind": kind, "apiVersion": api_version, "metadata": meta}
    return msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def form(kind: Kind, wanted: Accept, include: str, served: Callable[[Entry, Kind], bytes]) -> Form:
    """Return the form in which a watch shows objects."""
    if wanted.shape == "Table":
        state = {"first": True}

        def as_table(entry: Entry) -> bytes:
            obj = decode(served(entry, kind))
            headers, state["first"] = state["first"], False
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return encode(table.table(kind, [obj], meta, include, headers))

        # Only the first event defines columns, and ages change: tables aren't shared between watchers.
        return Form("", as_table, _bookmark(kind, "Table", "meta.k8s.io/v1"))
    if wanted.shape == "PartialObjectMetadata":

        def as_partial(entry: Entry) -> bytes:
            return encode(table.partial(decode(served(entry, kind))))

        return Form("partial", as_partial, _bookmark(kind, "PartialObjectMetadata", "meta.k8s.io/v1"))
    return Form(kind.api_version, lambda entry: served(entry, kind), _bookmark(kind, kind.kind, kind.api_version))


def _bookmark(kind: Kind, name: str, api_version: str) -> Callable[[int, dict[str, str]], bytes]:
    def make(version: int, annotations: dict[str, str]) -> bytes:
        meta: Object = {"resourceVersion": str(version)}
        if name == "Table":
            return encode(table.table(kind, [], meta, headers=False))
        meta["creationTimestamp"] = None
        if annotations:
            meta["annotations"] = annotations
        return encode({"kind": name, "apiVersion": api_version, "metadata": meta})

    return make
