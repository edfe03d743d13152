# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that aren't about a resource: health, metrics, token issuer, OpenAPI, version, discovery."""

from aiohttp import web

from turtles import __version__
from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.http import metrics
from turtles.standalone.apiserver.http.discovery import discover
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.schema.kinds import BUILTIN, REVIEWS
from turtles.standalone.apiserver.views import discovery, negotiate
from turtles.standalone.apiserver.wire.errors import method_not_allowed, path_not_found

_HEALTH = ("/healthz", "/livez", "/readyz")
#: What a health check consists of; the store is where kube-apiserver has etcd.
_CHECKS = ("ping", "log", "etcd")
#: Groups whose paths always lead to a Status.
_OWN_GROUPS = {kind.group for kind in BUILTIN} | {review.group for review in REVIEWS}


async def answer_plain(server: APIServer, request: web.BaseRequest, user: User, path: str) -> web.StreamResponse:
    """Answer a request that isn't about a resource: health, metrics, OpenAPI, discovery.

    :raises StatusError: 405 for anything but GET and HEAD, 404 or 406 as the path's part of the server says it.
    """
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    if path in _HEALTH or path.startswith(tuple(f"{one}/" for one in _HEALTH)):
        return _health(server, request, path)
    if path == "/metrics":
        return web.Response(text=server.metrics.text(server.store, server.limits), content_type=metrics.MEDIA_TYPE)
    if path == "/.well-known/openid-configuration":
        return negotiate.json_response(server.tokens.configuration(f"https://{request.host}"))
    if path == "/openid/v1/jwks":
        response = negotiate.json_response(server.tokens.jwks())
        response.content_type = "application/jwk-set+json"
        return response
    if path.startswith("/openapi/"):
        return await server.openapi.answer(request, path)
    if path == "/":
        return negotiate.json_response({"paths": paths(server)})
    shapes = ("APIGroupDiscoveryList",) if path in ("/api", "/apis") else ()
    wanted = negotiate.accept(request, shapes, "apidiscovery.k8s.io")
    if path == "/version":
        return negotiate.json_response(discovery.version_info(__version__))
    parts = path.strip("/").split("/")
    body = await discover(server, parts, wanted, user)
    if body is None:
        return nothing(server, parts)
    response = negotiate.json_response(body, as_yaml=wanted.yaml)
    if wanted.shape:
        response.headers["Vary"] = "Accept"
        form = f"g=apidiscovery.k8s.io;v={wanted.version};as=APIGroupDiscoveryList"
        response.headers["Content-Type"] = f"{response.content_type};{form}"
    return response


def paths(server: APIServer) -> list[str]:
    """Return the paths that aren't about a resource."""
    listed = ["/api", "/api/v1", "/apis", "/apis/"]
    for group, versions in server.registry.groups().items():
        if group:
            listed += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
    checks = [f"{one}/{check}" for one in _HEALTH for check in _CHECKS]
    return sorted([*listed, *_HEALTH, *checks, "/openapi/v2", "/openapi/v3", "/version"])


def nothing(server: APIServer, parts: list[str]) -> web.Response:
    """Answer 404 as kube-apiserver does: as text or as a Status, by which of its parts misses the path.

    :raises StatusError: 404, for a path below those of its own groups.
    """
    if parts[0] == "apis" and len(parts) > 1 and parts[1] not in _OWN_GROUPS:
        return _not_found()
    if parts[0] in ("api", "apis"):
        raise path_not_found()
    return _not_found()


def _not_found() -> web.Response:
    headers = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
    return web.Response(text="404 page not found\n", status=404, headers=headers)


def _health(server: APIServer, request: web.BaseRequest, path: str) -> web.Response:
    """Answer a health check, or one of the checks that it consists of."""
    _, _, check = path.strip("/").partition("/")
    if check and check not in _CHECKS:
        return nothing(server, path.strip("/").split("/"))
    headers = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
    text = "ok" if server.ready else "starting"
    if not check and "verbose" in request.query:
        mark = "+" if server.ready else "-"
        lines = [f"[{mark}]{one} {'ok' if server.ready else 'failed'}" for one in _CHECKS]
        text = "\n".join([*lines, f"{path[1:]} check {'passed' if server.ready else 'failed'}\n"])
    return web.Response(text=text, status=200 if server.ready else 503, headers=headers)
