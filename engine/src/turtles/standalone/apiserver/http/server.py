# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP: from a request's path to what answers it."""

import asyncio
import contextlib
import copy
import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from turtles import __version__
from turtles.standalone.apiserver.access import reviews
from turtles.standalone.apiserver.access.auth import UNKNOWN, Authenticator, User
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.access.impersonation import impersonated
from turtles.standalone.apiserver.access.node_authorizer import node_of, restrict_token
from turtles.standalone.apiserver.access.rbac import Attributes, Authorizer
from turtles.standalone.apiserver.access.tokens import Tokens
from turtles.standalone.apiserver.admission.webhooks import Webhooks
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.builtin import service_addresses, table
from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.controllers.api_services import APIServices
from turtles.standalone.apiserver.controllers.collector import Collector
from turtles.standalone.apiserver.controllers.definitions import Definitions
from turtles.standalone.apiserver.controllers.disruption import Budgets, admit_eviction
from turtles.standalone.apiserver.controllers.quota_status import QuotaStatus
from turtles.standalone.apiserver.controllers.role_aggregation import RoleAggregation
from turtles.standalone.apiserver.controllers.runner import Controllers
from turtles.standalone.apiserver.controllers.service_accounts import RootCertificates, SecretTokens
from turtles.standalone.apiserver.custom.conversion import by_webhook
from turtles.standalone.apiserver.http import metrics
from turtles.standalone.apiserver.http.audit import Audit
from turtles.standalone.apiserver.http.limits import Limits, is_long
from turtles.standalone.apiserver.http.metrics import Metrics
from turtles.standalone.apiserver.resource.apply import apply
from turtles.standalone.apiserver.resource.bind import bind
from turtles.standalone.apiserver.resource.create import create
from turtles.standalone.apiserver.resource.delete import delete
from turtles.standalone.apiserver.resource.delete_collection import delete_collection
from turtles.standalone.apiserver.resource.evict import evict
from turtles.standalone.apiserver.resource.get import get, load
from turtles.standalone.apiserver.resource.list import list_page, prepare
from turtles.standalone.apiserver.resource.patch import patch_document, patch_object
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.scale import apply_scale, get_scale, set_scale
from turtles.standalone.apiserver.resource.update import update
from turtles.standalone.apiserver.schema.decode import duplicates
from turtles.standalone.apiserver.schema.kinds import BUILTIN, REVIEWS, Kind, Review
from turtles.standalone.apiserver.schema.selectors import parse_fields, parse_labels
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.streams.node import Node
from turtles.standalone.apiserver.streams.pod_streams import PodStreams
from turtles.standalone.apiserver.views import discovery, negotiate, openapi
from turtles.standalone.apiserver.views.aggregation import Aggregator
from turtles.standalone.apiserver.views.watch import Selection, Watcher, WatchOptions, make_frame, stream
from turtles.standalone.apiserver.wire import bodies, options, patch
from turtles.standalone.apiserver.wire.encoding import decode, encode
from turtles.standalone.apiserver.wire.errors import (
    Object,
    StatusError,
    bad_request,
    expired,
    internal,
    method_not_allowed,
    method_not_supported,
    not_found,
    path_not_found,
    quote,
    unsupported_media_type,
)
from turtles.standalone.apiserver.wire.options import DeleteOptions

log = logging.getLogger(__name__)

_MUTATIONS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_VERBS = (*_MUTATIONS.values(), "get", "list", "watch", "deletecollection")
#: Warnings with more characters than that are cut to so many each, and those beyond it are left out; sources:
#: truncateAtTotalRunes and truncateItemRunes of k8s.io/apiserver.
MAX_WARNINGS, MAX_WARNING = 4096, 256
#: Where a request keeps what it wants, and whether it goes on for as long as its client wants.
_WANTED, _LONG = "wanted", "long"
_HEALTH = ("/healthz", "/livez", "/readyz")
#: What a health check consists of; the store is where kube-apiserver has etcd.
_CHECKS = ("ping", "log", "etcd")


class ResourcePath:
    """A resource path taken apart."""

    __slots__ = ("group", "name", "namespace", "plural", "subresource", "version")

    def __init__(self, group: str, version: str, rest: list[str]) -> None:
        self.group, self.version = group, version
        self.namespace = self.plural = self.name = self.subresource = ""
        if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in ("status", "finalize")):
            self.namespace, rest = rest[1], rest[2:]
        self.plural = rest[0]
        self.name = rest[1] if len(rest) > 1 else ""
        self.subresource = "/".join(rest[2:])


def split_path(path: str) -> ResourcePath | None:
    """Return a resource path's parts, None for a path that isn't about a resource.

    :param path: as the client sent it, so that a quoted slash stays within its part.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) >= 3 and parts[0] == "api":
        return ResourcePath("", parts[1], parts[2:])
    if len(parts) >= 4 and parts[0] == "apis":
        return ResourcePath(parts[1], parts[2], parts[3:])
    return None


def _manager(request: web.BaseRequest, asked: str) -> str:
    """Return who a write is by: who the client says, or what its User-Agent tells."""
    if request.method == "PATCH" and request.content_type == patch.APPLY:
        return asked
    return managed.manager_of(asked, request.headers.get("User-Agent", ""))


#: Groups whose paths always lead to a Status.
_OWN_GROUPS = {kind.group for kind in BUILTIN} | {review.group for review in REVIEWS}


class APIServer:
    """Answers requests."""

    def __init__(
        self, store: Store, config: Path, service_range: str = service_addresses.DEFAULT_RANGE,
        limits: Limits | None = None, audit: Audit | None = None, node_socket: Path | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.limits, self.audit, self.metrics = limits or Limits(), audit or Audit(), Metrics()
        self.registry = Registry(store)
        self.tokens = Tokens(store, config / "pki" / "sa.key")
        self.authenticator = Authenticator(config / "tokens.csv", self.tokens)
        self.authorizer = Authorizer(store)
        self.webhooks = Webhooks(store, self.registry, self.authorizer)
        allocator = service_addresses.Allocator(store, service_range)
        converter = self.webhooks.converter
        self.resources = Resources(store, self.registry, self.webhooks, self.authorizer, allocator, converter)
        self.aggregator = Aggregator(store, config / "pki")
        self.collector = Collector(self.resources)
        authority = config / "pki" / "ca.crt"
        self.controllers = Controllers(
            store,
            [
                Definitions(self.resources), RootCertificates(self.resources, authority),
                SecretTokens(self.resources, self.tokens, authority), QuotaStatus(self.resources),
                Budgets(self.resources), RoleAggregation(self.resources),
                APIServices(self.resources, self.aggregator),
            ],
        )  # fmt: skip
        self.resources.admit_eviction = partial(admit_eviction, self.resources)
        self.streams = PodStreams(Node(node_socket), self.authorizer, self.webhooks)
        self.openapi = openapi.OpenAPI(self.registry)
        self.ready = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; every error becomes a Status."""
        before = time.monotonic()
        response = await self._answered(request)
        wanted: Attributes | None = request.get(_WANTED)
        if wanted is not None:
            seconds = None if request.get(_LONG) else time.monotonic() - before
            verb = wanted.verb if wanted.verb in _VERBS else "other"
            # Names that clients make up would be figures without end.
            known = self._known(wanted.group, wanted.version, wanted.resource)
            self.metrics.count(verb, wanted.resource if known else "", response.status, seconds)
        self.audit.completed(request, response)
        return response

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._handle(request)
        except StatusError as error:
            # Clients repeat a request with this header, whatever its method.
            again = (error.details or {}).get("retryAfterSeconds")
            headers = {"Retry-After": str(again)} if again else {}
            response = negotiate.json_response(error.status(), error.code, headers)
            if error.code == 408 or (error.code == 413 and "body" not in request):
                # What still comes is the rest of a body, not a request.
                response.force_close()
            return response
        except (asyncio.CancelledError, ConnectionError):
            raise
        except RecursionError:
            return _failure(bad_request("the request's body is nested too deeply"))
        except Exception:
            log.exception("request failed", extra={"method": request.method, "path": request.path})
            return _failure(internal("an unexpected error; the server's log has more"))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            sender = self.authenticator.authenticate(request)
        except StatusError:
            # Who tries tokens is to be seen.
            wanted = request[_WANTED] = Attributes(request.method.lower(), path=request.path)
            self.audit.received(request, UNKNOWN, UNKNOWN, wanted)
            raise
        user = impersonated(request, sender, self.authorizer)
        path = request.path
        parts = split_path(request.rel_url.raw_path)
        service = self.aggregator.service(parts.group, parts.version) if parts is not None else None
        # What isn't there is found out only by who may look.
        wanted = Attributes(request.method.lower(), path=path) if parts is None else self._attributes(request, parts)
        request[_WANTED] = wanted
        self.audit.received(request, sender, user, wanted)
        self._authorize(request, user, wanted)
        upgrade = bool(request.headers.get("Upgrade"))
        # What an aggregated server does with a connection may last; a built-in resource says so by itself.
        long = request[_LONG] = is_long(wanted) or (service is not None and upgrade)
        if request.can_read_body and not (long and upgrade):
            # Before a place is taken, which a slow client could hold.
            await negotiate.read_body(request)
        with self.limits.seat(user, wanted, long):
            if parts is None:
                return await self._plain(request, user, path.rstrip("/") or "/")
            if service is not None:
                return await self.aggregator.proxy(request, user, service)
            if not self._known(parts.group, parts.version, parts.plural):
                return self._nothing(path.strip("/").split("/"))
            return await self._resource(request, user, parts)

    def _authorize(self, request: web.BaseRequest, user: User, wanted: Attributes) -> None:
        try:
            self.authorizer.check(user, wanted)
        except StatusError as error:
            self.audit.decided(request, error)
            raise
        self.audit.decided(request, None)

    def _known(self, group: str, version: str, plural: str) -> bool:
        if self.registry.find(group, version, plural) is not None:
            return True
        return _review(group, version, plural) is not None

    def _attributes(self, request: web.BaseRequest, parts: ResourcePath) -> Attributes:
        verb = _MUTATIONS.get(request.method, "")
        if not verb and request.method in ("GET", "HEAD"):
            verb = "get" if parts.name else "watch" if options.flag(request, "watch") else "list"
        elif verb == "delete" and not parts.name:
            verb = "deletecollection"
        namespace = parts.namespace
        if not namespace and parts.group == "" and parts.plural == "namespaces":
            namespace = parts.name
        name, node = parts.name, ""
        if not name and verb in ("list", "watch", "deletecollection"):
            # A field selector on the name makes a list one of a named object, which a rule's resourceNames allow.
            terms = parse_fields(request.query.get("fieldSelector", ""))
            name = Selection(fields=terms).name
            node = next((value for path, equal, value in terms if path == "spec.nodeName" and equal), "")
        return Attributes(
            verb, parts.group, parts.version, parts.plural, parts.subresource, namespace, name, node=node
        )

    # -- what isn't about a resource

    async def _plain(self, request: web.BaseRequest, user: User, path: str) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        if path in _HEALTH or path.startswith(tuple(f"{one}/" for one in _HEALTH)):
            return self._health(request, path)
        if path == "/metrics":
            return web.Response(text=self.metrics.text(self.store, self.limits), content_type=metrics.MEDIA_TYPE)
        if path == "/.well-known/openid-configuration":
            return negotiate.json_response(self.tokens.configuration(f"https://{request.host}"))
        if path == "/openid/v1/jwks":
            response = negotiate.json_response(self.tokens.jwks())
            response.content_type = "application/jwk-set+json"
            return response
        if path.startswith("/openapi/"):
            return await self.openapi.answer(request, path)
        if path == "/":
            return negotiate.json_response({"paths": self._paths()})
        shapes = ("APIGroupDiscoveryList",) if path in ("/api", "/apis") else ()
        wanted = negotiate.accept(request, shapes, "apidiscovery.k8s.io")
        if path == "/version":
            return negotiate.json_response(discovery.version_info(__version__))
        parts = path.strip("/").split("/")
        body = await self._discovery(parts, wanted, user)
        if body is None:
            return self._nothing(parts)
        headers = {"Vary": "Accept"}
        response = negotiate.json_response(body, headers=headers, as_yaml=wanted.yaml)
        if wanted.shape:
            form = f"g=apidiscovery.k8s.io;v={wanted.version};as=APIGroupDiscoveryList"
            response.headers["Content-Type"] = f"{response.content_type};{form}"
        return response

    def _paths(self) -> list[str]:
        found = ["/api", "/api/v1", "/apis", "/apis/"]
        for group, versions in self.registry.groups().items():
            if group:
                found += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        checks = [f"{one}/{check}" for one in _HEALTH for check in _CHECKS]
        return sorted([*found, *_HEALTH, *checks, "/openapi/v2", "/openapi/v3", "/version"])

    def _nothing(self, parts: list[str]) -> web.Response:
        """Answer 404 as the API server does: in three forms, by who of its parts misses the path."""
        if parts[0] == "apis" and len(parts) > 1 and parts[1] not in _OWN_GROUPS:
            headers = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
            return web.Response(text="404 page not found\n", status=404, headers=headers)
        if parts[0] in ("api", "apis"):
            raise path_not_found()
        return negotiate.json_response({"paths": self._paths()}, 404)

    def _health(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answer a health check, or one of the checks that it consists of."""
        _, _, check = path.strip("/").partition("/")
        if check and check not in _CHECKS:
            return self._nothing(path.strip("/").split("/"))
        headers = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
        text = "ok" if self.ready else "starting"
        if not check and "verbose" in request.query:
            mark = "+" if self.ready else "-"
            lines = [f"[{mark}]{one} {'ok' if self.ready else 'failed'}" for one in _CHECKS]
            text = "\n".join([*lines, f"{path[1:]} check {'passed' if self.ready else 'failed'}\n"])
        return web.Response(text=text, status=200 if self.ready else 503, headers=headers)

    async def _discovery(self, parts: list[str], wanted: negotiate.Accept, user: User) -> Object | None:
        groups = self.registry.groups()
        services = self.aggregator.services()
        for group, version in services:
            if version not in groups.setdefault(group, []):
                groups[group].append(version)
        if parts == ["api"] or parts == ["apis"]:
            core = parts == ["api"]
            if wanted.shape:
                chosen = {group: versions for group, versions in groups.items() if (group == "") == core}
                return await self._aggregated(chosen, wanted.version, user)
            return discovery.api_versions() if core else discovery.api_group_list(groups)
        if parts[0] == "api" and len(parts) == 2:
            return discovery.resource_list(self.registry, "", parts[1])
        if parts[0] == "apis" and len(parts) == 2 and parts[1] in groups:
            return discovery.api_group(parts[1], groups[parts[1]])
        if parts[0] == "apis" and len(parts) == 3:
            if (parts[1], parts[2]) in services:
                return await self.aggregator.resource_list(parts[1], parts[2], user)
            return discovery.resource_list(self.registry, parts[1], parts[2])
        return None

    async def _aggregated(self, groups: dict[str, list[str]], version: str, user: User) -> Object:
        services = self.aggregator.services()
        found = []
        for group, versions in groups.items():
            entries = []
            for one in versions:
                if (group, one) in services:
                    try:
                        listed: Object | None = await self.aggregator.resource_list(group, one, user)
                    except StatusError:
                        entries.append({"version": one, "freshness": "Stale", "resources": []})
                        continue
                else:
                    listed = discovery.resource_list(self.registry, group, one)
                entries.append(discovery.aggregated_versions((listed or {}).get("resources", []), group, one))
            found.append((group, entries))
        return discovery.aggregated(found, f"apidiscovery.k8s.io/{version}")

    # -- resources

    async def _resource(self, request: web.BaseRequest, user: User, parts: ResourcePath) -> web.StreamResponse:
        review = _review(parts.group, parts.version, parts.plural)
        if review is not None:
            if request.method != "POST" or parts.name:
                raise method_not_allowed()
            body = await self._body(request, review.kind)
            if review.kind == "Binding":
                return await self._bind(request, user, parts, body)
            answer = reviews.answer(review, body, user, parts.namespace, self.authenticator, self.authorizer)
            return negotiate.json_response(answer, 201)
        kind = self.registry.find(parts.group, parts.version, parts.plural)
        if kind is None or (parts.namespace and not kind.namespaced):
            raise path_not_found()
        if request.method == "HEAD":
            raise method_not_allowed()
        negotiate.accept(request, negotiate.SHAPES)
        context = self._context(request, user, kind, parts)
        if parts.subresource:
            return await self._subresource(request, context)
        if parts.name:
            if kind.namespaced and not parts.namespace:
                raise path_not_found()
            return await self._named(request, context)
        if request.method in ("GET", "HEAD"):
            if options.flag(request, "watch"):
                return await self._watch(request, context)
            return await self._list(request, context)
        if request.method == "POST":
            if kind.namespaced and not parts.namespace:
                raise method_not_allowed()
            entry = await create(self.resources, context, await self._body(request, kind.kind, context))
            return await self._show(request, context, entry, 201)
        if request.method == "DELETE":
            return await self._delete_collection(request, context)
        raise method_not_allowed()

    async def _bind(
        self, request: web.BaseRequest, user: User, parts: ResourcePath, body: Any
    ) -> web.StreamResponse:
        """Bind the Pod that a Binding names, as the Pod's own subresource does."""
        pods = self.registry.find("", "v1", "pods")
        metadata = body.get("metadata") if isinstance(body, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if pods is None or not parts.namespace:
            raise method_not_allowed()
        if not isinstance(name, str) or not name:
            raise bad_request("a Binding must name its Pod in metadata.name")
        path = ResourcePath("", "v1", ["namespaces", parts.namespace, "pods", name])
        context = self._context(request, user, pods, path)
        await bind(self.resources, context, body)
        return negotiate.json_response(_success(), 201)

    def _context(self, request: web.BaseRequest, user: User, kind: Kind, parts: ResourcePath) -> Context:
        asked = options.write_options(request)
        context = Context(
            kind, user, parts.namespace, parts.name, parts.subresource, asked.dry_run, asked.field_validation,
            _manager(request, asked.field_manager), asked.force,
        )  # fmt: skip
        context.annotations = self.audit.annotations(request)
        if kind.deprecated:
            context.warnings.append(kind.deprecated)
        return context

    async def _body(self, request: web.BaseRequest, kind: str, context: Context | None = None) -> Any:
        """Return an object that a client sent."""
        raw = await negotiate.read_body(request)
        data = bodies.read(raw, _media_type(request), kind)
        _find_duplicates(raw, data, context)
        return data

    async def _patch_body(self, request: web.BaseRequest, context: Context | None = None) -> Any:
        """Return a patch that a client sent."""
        raw = await negotiate.read_body(request)
        try:
            data = bodies.parse_yaml(raw) if _media_type(request) == patch.APPLY else bodies.parse_json(raw)
            _find_duplicates(raw, data, context)
            return data
        except bodies.Unreadable as error:
            text = str(error).removeprefix("couldn't get version/kind; json parse error: ")
            if _media_type(request) == patch.APPLY:
                raise bad_request(f"error decoding YAML: {text}") from None
            raise bad_request(text) from None

    async def _named(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        method = request.method
        if method == "GET":
            self._version(request)
            return await self._show(request, context, get(self.resources, context))
        if method == "PUT":
            body = await self._body(request, context.kind.kind, context)
            if context.kind.upsert and not context.subresource and self.store.get(context.key) is None:
                self._authorize_creation(context)
                return await self._show(request, context, await create(self.resources, context, body), 201)
            return await self._show(request, context, await update(self.resources, context, body))
        if method == "PATCH":
            if request.content_type == patch.APPLY:
                return await self._apply(request, context)
            return await self._show(request, context, await self._patched(request, context))
        if method == "DELETE":
            return await self._delete(request, context)
        raise method_not_allowed()

    def _authorize_creation(self, context: Context) -> None:
        """Check the right that a write of what isn't there needs beside its own."""
        kind = context.kind
        wanted = Attributes("create", kind.group, kind.version, kind.plural, "", context.namespace, context.name)
        self.authorizer.check(context.user, wanted)

    async def _apply(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        if self.store.get(context.key) is None:
            self._authorize_creation(context)
        entry, created = await apply(self.resources, context, await self._patch_body(request))
        return await self._show(request, context, entry, 201 if created else 200)

    async def _patched(self, request: web.BaseRequest, context: Context) -> Any:
        content_type = request.content_type
        if content_type not in (patch.JSON, patch.MERGE, patch.STRATEGIC):
            raise unsupported_media_type("415: Unsupported Media Type")
        return await patch_object(self.resources, context, content_type, await self._patch_body(request, context))

    async def _delete(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        entry, gone = await delete(self.resources, context, await self._delete_options(request, context))
        kind = context.kind
        if not gone or self.resources.strategy(kind).returns_deleted:
            return await self._show(request, context, entry)
        details: Object = {"name": context.name}
        if kind.group:
            details["group"] = kind.group
        details["kind"], details["uid"] = kind.plural, entry.metadata.uid
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return negotiate.json_response(status)

    async def _delete_options(self, request: web.BaseRequest, context: Context) -> DeleteOptions:
        raw = await negotiate.read_body(request)
        if raw:
            body = bodies.read(raw, _media_type(request), "DeleteOptions")
            # A body says it all: the query counts without one only.
            found = DeleteOptions.parse(body)
            context.dry_run = bool(body.get("dryRun"))
            return found
        query: Object = {}
        if request.query.get("propagationPolicy"):
            query["propagationPolicy"] = request.query["propagationPolicy"]
        if request.query.get("gracePeriodSeconds"):
            query["gracePeriodSeconds"] = options.number(request, "gracePeriodSeconds")
        if "orphanDependents" in request.query:
            query["orphanDependents"] = options.flag(request, "orphanDependents")
        return DeleteOptions.parse(query)

    async def _delete_collection(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        if "deletecollection" not in context.kind.verbs or (context.kind.namespaced and not context.namespace):
            raise method_not_allowed()
        selection = self._selection(request, context)
        entries = await delete_collection(
            self.resources, context, selection, await self._delete_options(request, context)
        )
        await self.resources.strategy(context.kind).convert_entries(entries, context.kind)
        items = [self.resources.strategy(context.kind).served(entry, context.kind) for entry in entries]
        meta = {"resourceVersion": str(self.store.version)}
        return negotiate.raw_response(negotiate.list_body(context.kind, meta, items))

    # -- subresources

    async def _subresource(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        kind, name = context.kind, context.subresource
        allowed = {one[0]: one[1] for one in discovery.subresources(kind)}
        if name not in allowed:
            raise not_found(kind.group, kind.plural, context.name) if kind.custom else path_not_found()
        verb = {**_METHODS, "HEAD": "get"}.get(request.method)
        if verb not in allowed[name]:
            raise method_not_supported(kind.group, kind.plural, verb) if kind.custom and verb else method_not_allowed()
        if name in ("status", "finalize"):
            return await self._named(request, context)
        if name == "scale":
            return await self._scale(request, context)
        if name == "binding":
            await bind(self.resources, context, await self._body(request, "Binding"))
            return negotiate.json_response(_success(), 201)
        if name == "eviction":
            await evict(self.resources, context, await self._body(request, "Eviction"))
            return negotiate.json_response(_success(), 201)
        if name == "token":
            body = await self._body(request, "TokenRequest")
            node = node_of(context.user)
            if node:
                restrict_token(self.store, node, context.namespace, context.name, body)
            answer = self.tokens.request(context.namespace, context.name, body)
            return negotiate.json_response(answer, 201)
        pod = await load(self.resources, context)
        return await self.streams.answer(request, context, pod)

    async def _scale(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        if request.method in ("GET", "HEAD"):
            entry = get(self.resources, context)
            return negotiate.json_response(await get_scale(self.resources, context, entry))
        if request.method == "PUT":
            body = await self._body(request, "Scale", context)
            entry = await set_scale(self.resources, context, lambda _: copy.deepcopy(body))
        elif request.content_type == patch.APPLY:
            entry = await apply_scale(self.resources, context, await self._patch_body(request))
        else:
            # Only custom resources have scales here, and these take no strategic merge patches.
            content_type, accepted = request.content_type, patch.types(custom=True)
            if content_type not in accepted:
                raise bodies.unknown_format(accepted)
            change = await self._patch_body(request, context)
            entry = await set_scale(
                self.resources, context, lambda scale: patch_document(content_type, scale, change), from_patch=True
            )
        return negotiate.json_response(await get_scale(self.resources, context, entry))

    # -- reading

    def _selection(self, request: web.BaseRequest, context: Context) -> Selection:
        fields = parse_fields(request.query.get("fieldSelector", ""))
        known = ("metadata.name", "metadata.namespace", *context.kind.fields)
        for path, _, _ in fields:
            if path not in known:
                if context.kind.fields or context.kind.custom:
                    raise bad_request(f"field label not supported: {path}")
                names = ", ".join(quote(one) for one in known)
                raise bad_request(f"{quote(path)} is not a known field selector: only {names}")
        labels = parse_labels(request.query.get("labelSelector", ""))
        return Selection(context.namespace, labels, fields, self.resources.strategy(context.kind).viewed(context.kind))

    def _version(self, request: web.BaseRequest) -> int:
        text = request.query.get("resourceVersion", "")
        try:
            version = int(text) if text else 0
        except ValueError:
            version = -1
        if version < 0:
            raise bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
        return version

    async def _list(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        kind = context.kind
        wanted = negotiate.accept(request, negotiate.SHAPES)
        negotiate.check_shape(wanted, kind, True)
        include = _include(request, wanted)
        options.check_list(request)
        version = self._version(request)
        match = request.query.get("resourceVersionMatch", "")
        if version > self.store.version:
            raise _too_large(version, self.store.version)
        token = request.query.get("continue", "")
        if token and version:
            raise bad_request("specifying resource version is not allowed when using continue")
        selection, limit = self._selection(request, context), options.number(request, "limit")
        exact = version if match == "Exact" else 0
        page = await list_page(self.resources, kind, selection, limit, token, exact)
        entries = page.entries
        meta: Object = {"resourceVersion": str(page.version)}
        if page.token:
            meta["continue"] = page.token
        if page.remaining is not None:
            meta["remainingItemCount"] = page.remaining
        await self.resources.strategy(context.kind).convert_entries(entries, kind)
        served = [self.resources.strategy(context.kind).served(entry, kind) for entry in entries]
        headers = _warnings(context)
        if wanted.shape == "Table":
            body = table.table(kind, [decode(one) for one in served], meta, include)
            return negotiate.json_response(body, headers=headers, as_yaml=wanted.yaml)
        if wanted.shape == "PartialObjectMetadataList":
            partials = [table.partial(decode(one)) for one in served]
            body = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
            return negotiate.json_response({**body, "items": partials}, headers=headers, as_yaml=wanted.yaml)
        # Lists of custom resources always have it, empty on the last page.
        raw = negotiate.list_body(kind, {"continue": "", **meta} if kind.custom else meta, served)
        return negotiate.raw_response(raw, 200, headers, wanted.yaml)

    async def _show(self, request: web.BaseRequest, context: Context, entry: Any, code: int = 200) -> web.Response:
        wanted = negotiate.accept(request, negotiate.SHAPES)
        negotiate.check_shape(wanted, context.kind, False)
        include = _include(request, wanted)
        await self.resources.strategy(context.kind).convert_entries([entry], context.kind)
        raw = self.resources.strategy(context.kind).served(entry, context.kind)
        headers = _warnings(context)
        if wanted.shape:
            obj = decode(raw)
            if wanted.shape == "Table":
                version = obj["metadata"].get("resourceVersion")
                meta = {"resourceVersion": version} if version else {}
                return negotiate.json_response(table.table(context.kind, [obj], meta, include), code, headers)
            return negotiate.json_response(table.partial(obj), code, headers)
        return negotiate.raw_response(raw, code, headers, wanted.yaml)

    async def _watch(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        kind = context.kind
        wanted = negotiate.accept(request, negotiate.SHAPES)
        include = _include(request, wanted)
        selection = self._selection(request, context)
        version = self._version(request)
        strategy = self.resources.strategy(kind)
        shown = negotiate.form(kind, wanted, include, strategy.served)
        if by_webhook(kind):
            shown = replace(shown, prepare=lambda entries: strategy.convert_entries(entries, kind))
        options.check_watch(request)
        initial_events = options.flag(request, "sendInitialEvents")
        bookmarks = options.flag(request, "allowWatchBookmarks")
        timeout = options.number(request, "timeoutSeconds")
        asked = WatchOptions(bookmarks=bookmarks, initial_events=initial_events)
        if timeout:
            asked.timeout = float(timeout)
        watcher = Watcher(self.store, kind.resource, selection, shown)
        if version > self.store.version:
            raise _too_large(version, self.store.version)
        initial = []
        await prepare(self.resources, kind, selection)
        # No await between reading the state and listening: nothing can happen in between.
        if version == 0 or initial_events:
            if "sendInitialEvents" not in request.query or initial_events:
                initial = [one for one in self.store.entries(kind.resource, selection.namespace) if selection(one)]
            watcher.start()
        else:
            try:
                watcher.start(self.store.since(kind.resource, version))
            except LookupError:
                error = expired(version, self.store.compacted)
                response = web.Response(content_type="application/json")
                response.body = make_frame("ERROR", encode(error.status()))
                return response
        self.audit.started(request)
        return await stream(request, self.store, watcher, initial, shown, asked, self.store.version)


_METHODS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _include(request: web.BaseRequest, wanted: negotiate.Accept) -> str:
    """Return how much of an object a table's rows bring."""
    include = request.query.get("includeObject", "")
    if wanted.shape == "Table" and include not in ("", "Metadata", "Object", "None"):
        text = f"includeObject: Invalid value: {quote(include)}: must be 'Metadata', 'Object', 'None', or empty"
        raise bad_request(f"Unable to convert to Table as requested: {text}")
    return include or "Metadata"


def _find_duplicates(raw: bytes, data: Any, context: Context | None) -> None:
    """Note which fields JSON has twice, where the client wants to know."""
    if context is not None and context.field_validation != "Ignore" and raw[:1] == b"{":
        # YAML may begin like JSON and be none.
        with contextlib.suppress(msgspec.DecodeError):
            context.duplicates = duplicates(raw, data)


def _media_type(request: web.BaseRequest) -> str:
    """Return the media type of a request's body; '' when the client says nothing of it."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _review(group: str, version: str, plural: str) -> Review | None:
    for review in REVIEWS:
        if (review.group, review.version, review.plural) == (group, version, plural):
            return review
    return None


def _too_large(version: int, current: int) -> StatusError:
    message = f"Too large resource version: {version}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def _warnings(context: Context) -> dict[str, str]:
    warnings = list(dict.fromkeys(context.warnings))
    if not warnings:
        return {}
    if sum(map(len, warnings)) > MAX_WARNINGS:
        cut, warnings = [one[:MAX_WARNING] for one in warnings], []
        while cut and sum(map(len, warnings)) < MAX_WARNINGS:
            warnings.append(cut.pop(0))
    quoted = (one.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for one in warnings)
    return {"Warning": ", ".join(f'299 - "{one}"' for one in quoted)}


def _success() -> Object:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _failure(error: StatusError) -> web.Response:
    return negotiate.json_response(error.status(), error.code)
