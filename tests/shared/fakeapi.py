# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small Kubernetes API server for tests: any resource, in memory, with list, watch, patch, apply, finalizers.

It runs on a thread of its own, can be stopped and started again on the same port, and misbehaves on request.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import jsonpatch
from aiohttp import web

Object = dict[str, Any]


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


# Server-side apply (KEP-555); lists are taken as atomic


def leaves(value: Any, path: tuple[str, ...] = ()) -> Object:
    """The paths of what has nothing below it, with the values there."""
    if not isinstance(value, dict) or not value:
        return {path: value} if path else {}
    return {found: leaf for key, each in value.items() for found, leaf in leaves(each, (*path, key)).items()}


def tree(values: Object) -> Object:
    """The opposite of leaves."""
    result: Object = {}
    for path, value in values.items():
        node = result
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return result


def declared(obj: Object) -> Object:
    """What an object says of itself, without what only identifies it."""
    metadata = {key: obj["metadata"][key] for key in ("labels", "annotations") if key in obj["metadata"]}
    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    return leaves({**body, **({"metadata": metadata} if metadata else {})})


def owned(entry: Object) -> set[tuple[str, ...]]:
    """The paths of an entry of metadata.managedFields."""
    return {tuple(key.removeprefix("f:") for key in path) for path in leaves(entry["fieldsV1"])}


def own(obj: Object, manager: str, operation: str, paths: Any) -> None:
    """Give a manager these fields of an object, and take from it those it had before by the same operation."""
    entries = obj["metadata"].setdefault("managedFields", [])
    entries[:] = [each for each in entries if (each["manager"], each["operation"]) != (manager, operation)]
    fields = tree({tuple(f"f:{key}" for key in path): {} for path in paths})
    if fields:
        entries.append({"manager": manager, "operation": operation, "fieldsV1": fields})


def apply(old: Object | None, body: Object, manager: str, force: bool) -> Object:
    wanted = declared(body)
    new = copy.deepcopy(old or body)
    there = declared(new)
    entries = new["metadata"].setdefault("managedFields", [])
    mine = [each for each in entries if (each["manager"], each["operation"]) == (manager, "Apply")]
    others = [each for each in entries if each not in mine]
    causes = [
        {
            "reason": "FieldManagerConflict",
            "field": "." + ".".join(path),
            "message": f'conflict with "{entry["manager"]}" using v1',
        }
        for entry in others
        for path in owned(entry) & wanted.keys()
        if there.get(path) != wanted[path] and entry["manager"] != manager
    ]
    if causes and not force:
        raise Refused(409, "Conflict", f"Apply failed with {len(causes)} conflict", causes=causes)
    gone = set().union(*map(owned, mine)) - wanted.keys() - set().union(*map(owned, others))
    new = merge(merge(new, tree(dict.fromkeys(gone))), tree(wanted))
    own(new, manager, "Apply", wanted)
    return new


class Refused(Exception):
    """An answer with an error status."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.response = status(code, reason, message, **details)


class FakeApi:
    token = "very-secret-token"

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.version = 100
        self.oldest = 0
        self.requests: list[tuple[Any, ...]] = []
        #: How many objects a page of a list has.
        self.page: int | None = None
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: web.AppRunner | None = None
        self._changed: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    # For tests and subclasses to replace

    def intercept(self, method: str, path: str) -> web.Response | None:
        """Return a response to give instead of the real one, or None."""

    def admit(self, method: str, path: str, obj: Object) -> None:
        """Complete or refuse an object that a request would write."""

    def admitted(self, path: str) -> None:
        """React to an object that a request has written."""

    # Life

    def start(self) -> None:
        ready = threading.Event()

        def run() -> None:
            self._loop = loop = asyncio.new_event_loop()
            loop.run_until_complete(self._serve(ready))
            loop.run_forever()
            loop.run_until_complete(self._end())
            loop.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(30)

    async def _end(self) -> None:
        await self._runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close their sockets in the loop's next round

    async def _serve(self, ready: threading.Event) -> None:
        self._changed = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        ready.set()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def credentials(self, **context: str) -> Object:
        """Return a kubeconfig of the server's one user.

        :param context: what its context has besides cluster and user, such as a namespace.
        """
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", **context}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": self.token}}],
        }

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        path.write_text(json.dumps(self.credentials()))
        return path

    # For tests: as if another client did it

    def put(self, path: str, obj: Object) -> Object:
        """Store an object under its URL path, from any thread."""
        return self.atomic(lambda: self._write(path, copy.deepcopy(obj)))

    def update(self, path: str, patch: Object) -> Object:
        """Change an object, once it is there: who creates it may be on their way."""
        self._await(path)
        return self.atomic(lambda: self._write(path, merge(self.objects[path], patch)))

    def remove(self, path: str) -> None:
        self.atomic(lambda: self._erase(path))

    def delete(self, path: str) -> None:
        """Remove an object once it is there, or mark it where it has finalizers."""
        self._await(path)
        self.atomic(lambda: self._delete(path, self.objects[path], {}))

    def forget_history(self) -> None:
        """Watches that start before now get 410."""
        self.atomic(self._forget)

    def wait(self, condition: Callable[[], Any], seconds: float = 60.0, what: str = "condition not met") -> Any:
        """Return the condition's value once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, what
            time.sleep(0.005)
        return value

    def _await(self, path: str) -> None:
        # What requests are answered by can't wait for another one
        if threading.current_thread() is not self._thread:
            self.wait(lambda: path in self.objects, what=f"there is no {path}")

    def atomic(self, work: Callable[[], Any]) -> Any:
        """Return what the work gives; no request is answered meanwhile."""
        if threading.current_thread() is self._thread:
            return work()

        async def call() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def _forget(self) -> None:
        self.oldest = self.version
        self.history.clear()

    # The store

    def _write(self, path: str, obj: Object) -> Object:
        metadata = obj.setdefault("metadata", {})
        old = self.objects.get(path)
        if old is None:
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata["generation"] = 1
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        else:
            if obj == old:
                return old
            metadata["generation"] = old["metadata"]["generation"] + (obj.get("spec") != old.get("spec"))
            for key in ("uid", "creationTimestamp"):
                metadata.setdefault(key, old["metadata"][key])
        if old is not None and metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._erase(path)
            return obj
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        self.objects[path] = obj
        self._tell("MODIFIED" if old else "ADDED", path, obj)
        return obj

    def _erase(self, path: str) -> None:
        obj = copy.deepcopy(self.objects.pop(path))
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", path, obj)

    def _tell(self, kind: str, path: str, obj: Object) -> None:
        self.history.append((self.version, kind, path, copy.deepcopy(obj)))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # HTTP

    @staticmethod
    def _split(path: str) -> tuple[str, str | None, str | None]:
        """Return collection path, name and subresource."""
        parts = path.strip("/").split("/")
        head = 2 if parts[0] == "api" else 3
        rest = parts[head:]
        if len(rest) >= 3 and rest[0] == "namespaces":
            head, rest = head + 2, rest[2:]
        collection = "/" + "/".join(parts[: head + 1])
        return collection, rest[1] if len(rest) > 1 else None, rest[2] if len(rest) > 2 else None

    def _matches(self, collection: str, path: str, obj: Object, query: Any) -> bool:
        prefix, plural = collection.rsplit("/", 1)
        in_it = path.startswith(prefix + "/") and path.rsplit("/", 2)[1] == plural
        labels = obj["metadata"].get("labels") or {}
        wanted, fields = (
            [item.partition("=") for item in (query.get(kind) or "").split(",") if item]
            for kind in ("labelSelector", "fieldSelector")
        )
        return (
            in_it
            and all(labels.get(key) == value if equal else key in labels for key, equal, value in wanted)
            and all(
                reduce(lambda node, key: node.get(key, {}), field.split("."), obj) == value
                for field, _equal, value in fields
            )
        )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(self._noted(request))
        try:
            return await self._answer(request)
        except Refused as refused:
            return refused.response

    def _noted(self, request: web.Request) -> tuple[Any, ...]:
        return request.method, request.path

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        method, path, query = request.method, request.path, request.query
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, "Unauthorized", "who are you?")
        if (answer := self.intercept(method, path)) is not None:
            return answer
        collection, name, subresource = self._split(path)
        body = await request.json() if request.can_read_body else None
        if method == "GET" and name is None:
            return await self._watch(request, collection) if query.get("watch") else self._list(request, collection)
        if method == "POST":
            metadata = body["metadata"]
            if not metadata.get("name"):
                taken = (f"{metadata['generateName']}x{number}" for number in itertools.count(1))
                metadata["name"] = next(one for one in taken if f"{collection}/{one}" not in self.objects)
            name = metadata["name"]
        key = f"{collection}/{name}"
        old = self.objects.get(key)
        if method == "POST":
            if old:
                raise Refused(409, "AlreadyExists", f"{key} already exists")
            return self._store(request, key, body)
        if method == "PATCH" and request.content_type == "application/apply-patch+yaml":
            return self._store(request, key, apply(old, body, query["fieldManager"], query.get("force") == "true"))
        if old is None:
            raise Refused(404, "NotFound", f"{key} not found", name=name, kind=collection.rpartition("/")[2])
        if method == "GET":
            return web.json_response(old)
        if method == "DELETE":
            return self._delete(key, old, body or {})
        return self._store(request, key, self._patched(request, old, body, subresource))

    def _list(self, request: web.Request, collection: str) -> web.Response:
        found = [obj for key, obj in self.objects.items() if self._matches(collection, key, obj, request.query)]
        kind = next((obj["kind"] for obj in found if "kind" in obj), "")
        items = [{key: value for key, value in obj.items() if key not in ("apiVersion", "kind")} for obj in found]
        metadata = {"resourceVersion": str(self.version)}
        start = int(request.query.get("continue") or 0)
        if self.page and start + self.page < len(items):
            metadata["continue"] = str(start + self.page)
        items = items[start : start + self.page] if self.page else items
        parts = collection.split("/")
        group = "/".join(parts[2 : 3 if parts[1] == "api" else 4])
        return web.json_response({"kind": f"{kind}List", "apiVersion": group, "metadata": metadata, "items": items})

    def _store(self, request: web.Request, key: str, obj: Object) -> web.Response:
        self.admit(request.method, key, obj)
        code = 200 if key in self.objects else 201
        if request.query.get("dryRun") == "All":
            return web.json_response(obj, status=code)
        response = web.json_response(self._write(key, obj), status=code)
        self.admitted(key)
        return response

    def _delete(self, key: str, old: Object, options: Object) -> web.Response:
        for member, wanted in (options.get("preconditions") or {}).items():
            if wanted != old["metadata"][member]:
                raise Refused(409, "Conflict", f"{member} differs")
        if not old["metadata"].get("finalizers"):
            self._erase(key)
            return status(200, "", "deleted")
        obj = copy.deepcopy(old)
        obj["metadata"].setdefault("deletionTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        return web.json_response(self._write(key, obj))

    @staticmethod
    def _patched(request: web.Request, old: Object, body: Any, subresource: str | None) -> Object:
        if request.method == "PUT":
            new = body
        elif request.content_type == "application/json-patch+json":
            try:
                new = jsonpatch.apply_patch(old, body)
            except jsonpatch.JsonPatchException as error:
                raise Refused(422, "Invalid", str(error)) from None
        else:
            new = copy.deepcopy(merge(old, body))
        for member in ("resourceVersion", "uid"):
            if new["metadata"].get(member, old["metadata"][member]) not in ("", old["metadata"][member]):
                raise Refused(409, "Conflict", f"the object has been modified: {member} differs")
        if subresource == "status":
            new = {**copy.deepcopy(old), "status": new.get("status")}
        return new

    async def _watch(self, request: web.Request, collection: str) -> web.StreamResponse:
        seen = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)

        async def send(kind: str, obj: Object) -> None:
            await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

        if seen < self.oldest:
            await send("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
            return response
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(int(request.query.get("timeoutSeconds") or 3600)):
                while True:
                    changed, now = self._changed, self.version
                    for version, kind, path, obj in list(self.history):
                        if version > seen and self._matches(collection, path, obj, request.query):
                            await send(kind, obj)
                    seen = now
                    await changed.wait()
        return response


def status(code: int, reason: str, message: str, headers: dict[str, str] | None = None, **details: Any) -> web.Response:
    said = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
    return web.json_response({**said, "details": details}, status=code, headers=headers)
