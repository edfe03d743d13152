# SPDX-License-Identifier: GPL-3.0-or-later
"""A Kubernetes API server of a few lines for tests: any resource, in memory, with list, watch, patch, finalizers.

It runs on a thread of its own, can be stopped and started again on the same port, and misbehaves on request.
"""

import asyncio
import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonpatch
from aiohttp import web

Object = dict[str, Any]


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class FakeApi:
    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.version = 100
        self.oldest = 0
        self.requests: list[tuple[str, str]] = []
        #: Called with (method, path); returns a response to give instead of the real one, or None.
        self.intercept: Callable[[str, str], web.Response | None] = lambda method, path: None
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: web.AppRunner | None = None
        self._changed: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

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
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        ready.set()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                    "users": [{"name": "u", "user": {"token": "secret"}}],
                }
            )
        )
        return path

    # For tests: as if another client did it

    def put(self, path: str, obj: Object) -> Object:
        """Store an object under its URL path, from any thread."""
        return self._run(lambda: self._write(path, copy.deepcopy(obj)))

    def update(self, path: str, patch: Object) -> Object:
        return self._run(lambda: self._write(path, merge(self.objects[path], patch)))

    def remove(self, path: str) -> None:
        self._run(lambda: self._erase(path))

    def forget_history(self) -> None:
        """Watches that start before now get 410."""
        self._run(self._forget)

    def wait(self, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Return the condition's value once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "condition not met"
            time.sleep(0.005)
        return value

    def _run(self, work: Callable[[], Any]) -> Any:
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
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            if obj == old:
                return old
            metadata["generation"] = old["metadata"]["generation"] + (obj.get("spec") != old.get("spec"))
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
        wanted = [item.partition("=") for item in (query.get("labelSelector") or "").split(",") if item]
        return in_it and all(labels.get(key) == value if equal else key in labels for key, equal, value in wanted)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append((request.method, path))
        if (answer := self.intercept(request.method, path)) is not None:
            return answer
        if request.headers.get("Authorization") != "Bearer secret":
            return status(401, "Unauthorized", "who are you?")
        collection, name, subresource = self._split(path)
        body = await request.json() if request.can_read_body else None
        if request.method == "GET" and name is None:
            if request.query.get("watch"):
                return await self._watch(request, collection)
            items = [obj for key, obj in self.objects.items() if self._matches(collection, key, obj, request.query)]
            return web.json_response(
                {"kind": "List", "metadata": {"resourceVersion": str(self.version)}, "items": items}
            )
        if request.method == "POST":
            key = f"{path}/{body['metadata']['name']}"
            if key in self.objects:
                return status(409, "AlreadyExists", f"{key} already exists")
            return web.json_response(self._write(key, body), status=201)
        key = f"{collection}/{name}"
        old = self.objects.get(key)
        if old is None:
            return status(404, "NotFound", f"{key} not found")
        if request.method == "GET":
            return web.json_response(old)
        if request.method == "DELETE":
            return self._delete(key, old, body or {})
        return self._change(request, key, old, body, subresource)

    def _delete(self, key: str, old: Object, options: Object) -> web.Response:
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != old["metadata"]["uid"]:
            return status(409, "Conflict", "uid differs")
        if not old["metadata"].get("finalizers"):
            self._erase(key)
            return status(200, "", "deleted")
        obj = copy.deepcopy(old)
        obj["metadata"].setdefault("deletionTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        return web.json_response(self._write(key, obj))

    def _change(self, request: web.Request, key: str, old: Object, body: Any, subresource: str | None) -> web.Response:
        if request.method == "PUT":
            new = body
        elif request.content_type == "application/json-patch+json":
            try:
                new = jsonpatch.apply_patch(old, body)
            except jsonpatch.JsonPatchException as error:
                return status(422, "Invalid", str(error))
        else:
            new = merge(old, body)
        version = (body if isinstance(body, dict) else {}).get("metadata", {}).get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            return status(409, "Conflict", "the object has been modified")
        new = copy.deepcopy(new)
        if subresource == "status":
            new = {**old, "status": new.get("status")}
            new["metadata"] = copy.deepcopy(old["metadata"])
        return web.json_response(self._write(key, new))

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
        while True:
            changed = self._changed
            for version, kind, path, obj in list(self.history):
                if version > seen and self._matches(collection, path, obj, request.query):
                    await send(kind, obj)
            seen = self.version
            await changed.wait()


def status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message},
        status=code,
        headers=headers,
    )
