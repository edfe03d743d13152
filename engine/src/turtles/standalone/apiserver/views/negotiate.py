# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms in which objects are shown, and which of them a client wants."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web

from turtles.standalone.apiserver.builtin import table
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.views.watch import Form
from turtles.standalone.apiserver.wire import beside, bodies
from turtles.standalone.apiserver.wire.bodies import MAX_BODY, MEDIA_TYPES
from turtles.standalone.apiserver.wire.encoding import decode, encode
from turtles.standalone.apiserver.wire.errors import Object, StatusError, not_acceptable

#: Media types that answers can have; MEDIA_TYPES is the list that clients see.
_SERVED = ("application/json", "application/yaml")
_VERSIONS = {"meta.k8s.io": ("v1", "v1beta1"), "apidiscovery.k8s.io": ("v2", "v2beta1")}
_STREAMS = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
#: Seconds in which a request's body has to come.
BODY_SECONDS = 60.0


@dataclass(frozen=True)
class Accept:
    """What a client wants: ``shape`` is '', Table, PartialObjectMetadata(List) or APIGroupDiscoveryList."""

    yaml: bool = False
    shape: str = ""
    version: str = ""


#: The forms of objects, beside their own.
SHAPES = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


def accept(
    request: web.BaseRequest, shapes: tuple[str, ...] = (), group: str = "meta.k8s.io", watch: bool = False
) -> Accept:
    """Return the client's preferred choice of those that can be served; 406 when there is none.

    :param shapes: what ``as`` may be, of the API group ``group``.
    :param watch: whether the answer is a stream, which the message about a request that can't be met says.
    """
    return _accept(request.headers.get("Accept", ""), shapes, group, _STREAMS if watch else ())


@functools.lru_cache(128)
def _accept(header: str, shapes: tuple[str, ...], group: str, streams: tuple[str, ...] = ()) -> Accept:
    """Return a client's choice; clients send the same header each time."""
    if not header.strip():
        return Accept()
    choices = _choices(header)
    if all(media not in (*MEDIA_TYPES, "*/*") for media, _ in choices):
        text = "406: Not Acceptable\n\nAvailable representations: " + ", ".join([*MEDIA_TYPES, *streams])
        raise StatusError(406, "NotAcceptable", text, {})
    for media, options in sorted(choices, key=lambda one: -_quality(one[1])):
        if media not in (*_SERVED, "*/*", "application/*"):
            continue
        shape, version = options.get("as", ""), options.get("v", "")
        if shape and (shape not in shapes or options.get("g", group) != group):
            continue
        if shape and version not in _VERSIONS[group]:
            continue
        return Accept(media == "application/yaml", shape, version)
    raise not_acceptable(MEDIA_TYPES)


#: How programs begin their User-Agent that show an answer to somebody.
_READERS = ("curl", "Wget", "Mozilla/5.0")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")


def wants_pretty(request: web.BaseRequest) -> bool:
    """Whether a client wants JSON for people: browsers and the like do, if they don't say otherwise."""
    if any(options.get("pretty") == "1" for _, options in _choices(request.headers.get("Accept", ""))):
        return True
    asked = request.query.get("pretty", "") if "pretty" in request.query_string else ""
    return asked in _TRUE if asked else request.headers.get("User-Agent", "").startswith(_READERS)


def prettify(response: web.StreamResponse) -> None:
    """Write the JSON of a response for people, as Go's MarshalIndent does."""
    body = response.body if isinstance(response, web.Response) else None
    if isinstance(response, web.Response) and response.content_type == "application/json" and isinstance(body, bytes):
        response.body = msgspec.json.format(body, indent=2)


def takes_gzip(request: web.BaseRequest) -> bool:
    """Whether a client takes compressed answers."""
    offered = _choices(request.headers.get("Accept-Encoding", ""))
    return any(coding in ("gzip", "*") and _quality(options) > 0 for coding, options in offered)


def _choices(header: str) -> list[tuple[str, dict[str, str]]]:
    """Return what a header offers, each with its parameters."""
    choices = []
    for choice in header.split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        options = {key.strip(): value.strip() for key, _, value in (one.partition("=") for one in parameters)}
        choices.append((name, options))
    return choices


def _quality(options: dict[str, str]) -> float:
    try:
        return float(options.get("q", "1"))
    except ValueError:
        return 1.0


async def read_body(request: web.BaseRequest) -> bytes:
    """Return a request's body.

    :raises StatusError: 413 if it is too large, 408 if it doesn't come.
    """
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


def json_response(
    data: object, code: int = 200, headers: dict[str, str] | None = None, as_yaml: bool = False
) -> web.Response:
    """Return a response with an object.

    :param as_yaml: whether the client takes YAML and no JSON.
    """
    return raw_response(encode(data) if isinstance(data, dict) else msgspec.json.encode(data), code, headers, as_yaml)


def raw_response(
    raw: bytes, code: int = 200, headers: dict[str, str] | None = None, as_yaml: bool = False
) -> web.Response:
    """Return a response with an object's JSON.

    :param as_yaml: whether the client takes YAML and no JSON.
    """
    content_type = "application/yaml" if as_yaml else "application/json"
    extra = {"Cache-Control": "no-cache, private", **(headers or {})}
    return web.Response(body=raw, status=code, content_type=content_type, headers=extra)


async def write_yaml(response: web.StreamResponse) -> None:
    """Write as YAML what :func:`raw_response` made for a client that takes no JSON."""
    if not isinstance(response, web.Response) or response.content_type != "application/yaml":
        return
    raw = response.body
    if isinstance(raw, bytes):
        if len(raw) > beside.LONG:
            response.body = await beside.write(lambda: bodies.dump_yaml(decode(raw)))
        else:
            response.body = bodies.dump_yaml(decode(raw))


def check_shape(wanted: Accept, kind: Kind, is_list: bool) -> None:
    """Check that a client doesn't want a list's form of one object, or one object's of a list.

    :raises StatusError: 406 if it does.
    """
    if wanted.shape not in ("PartialObjectMetadata", "PartialObjectMetadataList"):
        return
    if wanted.shape.endswith("List") == is_list:
        return
    what = "a list" if is_list else "not a list"
    name = kind.lists if is_list else kind.kind
    text = f"you requested {wanted.shape}, but the requested object is {what} (*{kind.package}.{name})"
    raise StatusError(406, "NotAcceptable", text)


def list_body(kind: Kind, meta: Object, items: list[bytes]) -> bytes:
    """Return a list's JSON. As everywhere in Kubernetes, items of built-in kinds don't repeat what kind they are."""
    head = {"kind": kind.lists, "apiVersion": kind.api_version, "metadata": meta}
    if not kind.custom:
        named = msgspec.json.encode({"apiVersion": kind.api_version, "kind": kind.kind})[:-1] + b","
        items = [b"{" + item[len(named) :] if item.startswith(named) else item for item in items]
    return msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def form(kind: Kind, wanted: Accept, include: str, served: Callable[[Entry, Kind], bytes]) -> Form:
    """Return the form in which a watch shows objects.

    :param wanted: what the client accepts.
    :param include: how much of an object a table's rows bring.
    :param served: gives an entry's JSON in the version of a kind.
    """
    if wanted.shape == "Table":
        state = {"first": True}

        def as_table(entry: Entry) -> bytes:
            obj = decode(served(entry, kind))
            headers, state["first"] = state["first"], False
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return encode(table.table(kind, [obj], meta, include, headers))

        # Only the first event defines columns, and ages change: tables aren't shared between watchers.
        return Form("", as_table, _bookmark(kind, "Table", "meta.k8s.io/v1"))
    if wanted.shape:

        def as_partial(entry: Entry) -> bytes:
            return encode(table.partial(decode(served(entry, kind))))

        return Form("partial", as_partial, _bookmark(kind, "PartialObjectMetadata", "meta.k8s.io/v1"))
    return Form(kind.api_version, lambda entry: served(entry, kind), _bookmark(kind, kind.kind, kind.api_version))


def _bookmark(kind: Kind, name: str, api_version: str) -> Callable[[int, dict[str, str]], bytes]:
    def make(version: int, annotations: dict[str, str]) -> bytes:
        meta: Object = {"resourceVersion": str(version)}
        if name == "Table":
            return encode(table.table(kind, [], meta, headers=False))
        if annotations:
            meta["annotations"] = annotations
        return encode({"kind": name, "apiVersion": api_version, "metadata": meta})

    return make
