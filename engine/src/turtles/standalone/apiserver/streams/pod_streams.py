# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresources of Pods that are streams: log, exec, attach and portforward."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from turtles.api.texts import to_number
from turtles.standalone.apiserver.access.auth import is_websocket
from turtles.standalone.apiserver.access.context import Admission, Context
from turtles.standalone.apiserver.access.rbac import Attributes, Authorizer
from turtles.standalone.apiserver.streams import port_forward, remote_command
from turtles.standalone.apiserver.streams.node import Control, Descriptor, Node
from turtles.standalone.apiserver.streams.remote_command import STDERR, STDOUT, Session, SpdyPeer, Wanted, WebSocketPeer
from turtles.standalone.apiserver.streams.upgrade import is_spdy, offered, open_websocket, spdy, tunnel
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    bad_request,
    field_forbidden,
    invalid,
    invalid_value,
    method_not_allowed,
)
from turtles.standalone.apiserver.wire.options import flag

#: Seconds after which a client is looked for that follows a log in which nothing happens.
_LOOK_SECONDS = 5.0


class PodStreams:
    """Answers requests for a Pod's streams."""

    def __init__(self, node: Node, authorizer: Authorizer, admission: Admission) -> None:
        self._node, self._authorizer, self._admission = node, authorizer, admission

    async def answer(self, request: web.BaseRequest, context: Context, pod: Object) -> web.StreamResponse:
        """Answer a request for log, exec, attach or portforward.

        :raises StatusError: it can't be granted.
        """
        if context.subresource == "log":
            return await self._log(request, pod)
        if request.method not in ("GET", "POST"):
            raise method_not_allowed()
        if request.method == "GET":
            # A WebSocket begins with GET. Who may only read may not execute (KEP-4006, authorization).
            wanted = Attributes("create", "", "v1", "pods", context.subresource, context.namespace, context.name)
            self._authorizer.check(context.user, wanted)
        await self._admit(request, context)
        if not pod["spec"].get("nodeName"):
            raise bad_request(f"pod {context.name} does not have a host assigned")
        if context.subresource == "portforward":
            return await self._portforward(request, pod)
        return await self._remote_command(request, context, pod)

    async def _admit(self, request: web.BaseRequest, context: Context) -> None:
        """Ask the webhooks that care about connections.

        :raises StatusError: one refuses.
        """
        kind = {"exec": "PodExecOptions", "attach": "PodAttachOptions"}.get(context.subresource, "")
        options: Object = {"kind": kind or "PodPortForwardOptions", "apiVersion": "v1"}
        if kind:
            options |= {one: True for one in ("stdin", "stdout", "stderr", "tty") if flag(request, one)}
            if request.query.get("container"):
                options["container"] = request.query["container"]
        if context.subresource == "exec":
            options["command"] = request.query.getall("command", [])
        await self._admission.mutate(context, "CONNECT", options, None)
        await self._admission.validate(context, "CONNECT", options, None)

    # -- logs

    async def _log(self, request: web.BaseRequest, pod: Object) -> web.StreamResponse:
        name = container_of(pod, request.query.get("container", ""))
        options = log_options(request)
        if not pod["spec"].get("nodeName"):
            return web.Response(status=204)
        check_log(pod, name, options["previous"])
        (source,) = await self._node.ask("log", pod, container=name, options=options)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            while data := await _next(request, source):
                await response.write(data)
            await response.write_eof()
        except ConnectionError:
            # The client is gone, and no one is left to report to.
            pass
        finally:
            source.close()
        return response

    # -- commands

    async def _remote_command(self, request: web.BaseRequest, context: Context, pod: Object) -> web.StreamResponse:
        name = container_of(pod, request.query.get("container", ""))
        wanted = Wanted(*(flag(request, one) for one in ("stdin", "stdout", "stderr", "tty")))
        if not (wanted.stdin or wanted.stdout or wanted.stderr):
            raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
        command = request.query.getall("command", [])
        if context.subresource == "exec" and not command:
            raise bad_request("you must specify at least 1 command for the container")
        if not is_websocket(request) and not is_spdy(request):
            raise bad_request("Upgrade request required")
        if context.subresource == "exec":
            session = await self._execution(pod, name, command, wanted)
        else:
            session = await self._attachment(pod, name, wanted)
        try:
            if is_websocket(request):
                socket = await open_websocket(request, remote_command.PROTOCOLS)
                await remote_command.run(session, WebSocketPeer(socket))
                await socket.close()
                return socket
            async with spdy(request, remote_command.SPDY_PROTOCOLS) as (connection, _, response):
                peer = SpdyPeer(connection)
                if await peer.open(wanted):
                    await remote_command.run(session, peer)
                    await peer.close()
            return response
        finally:
            session.close()

    async def _attachment(self, pod: Object, name: str, wanted: Wanted) -> Session:
        streams = await self._node.ask_named("attach", pod, container=name, stdin=wanted.stdin)
        terminal, stdin = streams.get("terminal"), streams.get("stdin")
        named = ((STDOUT, streams.get("stdout")), (STDERR, streams.get("stderr")))
        outputs = {channel: stream for channel, stream in named if stream is not None}
        return Session(stdin=terminal or stdin, outputs=outputs, terminal=terminal)

    async def _execution(self, pod: Object, name: str, command: list[str], wanted: Wanted) -> Session:
        fds = await self._node.ask(
            "exec",
            pod,
            container=name,
            command=command,
            terminal=wanted.terminal,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
        )
        session = Session(control=Control(fds.pop(0)))
        if not wanted.terminal:
            session.stdin = fds.pop(0) if wanted.stdin else None
            for channel, asked in ((STDOUT, wanted.stdout), (STDERR, wanted.stderr)):
                if asked:
                    session.outputs[channel] = fds.pop(0)
        return session

    # -- ports

    async def _portforward(self, request: web.BaseRequest, pod: Object) -> web.StreamResponse:
        name = f"{pod['metadata']['name']}, uid {pod['metadata']['uid']}"

        async def dial(port: int) -> Descriptor:
            (descriptor,) = await self._node.ask("portforward", pod, port=port)
            return descriptor

        if (pod.get("status") or {}).get("phase") != "Running":
            phase = (pod.get("status") or {}).get("phase")
            raise bad_request(f"unable to forward port because pod is not running. Current status={phase}")
        if is_websocket(request):
            if port_forward.CHANNELS in offered(request, "Sec-WebSocket-Protocol"):
                ports = _ports(request)
                socket = await open_websocket(request, (port_forward.CHANNELS,))
                await port_forward.over_channels(socket, ports, dial, name)
                return socket
            async with tunnel(request, port_forward.PROTOCOL) as (connection, response):
                await port_forward.over_spdy(connection, dial, name)
            return response
        if not is_spdy(request):
            raise bad_request("Upgrade request required")
        async with spdy(request, (port_forward.PROTOCOL,)) as (connection, _, answer):
            await port_forward.over_spdy(connection, dial, name)
        return answer


async def _next(request: web.BaseRequest, source: Descriptor) -> bytes:
    """Return what comes next of a log; nothing at its end, or when the client has gone, which only looking tells."""
    while request.transport is not None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await source.read()
        except TimeoutError:
            continue
    return b""


def _ports(request: web.BaseRequest) -> list[int]:
    words = [word for text in request.query.getall("ports", []) for word in text.split(",")]
    numbers = [to_number(word, 65535) for word in words]
    if not words or len(words) > 100 or not all(numbers):
        raise bad_request('query parameter "ports" is required: numbers between 1 and 65535')
    return [number for number in numbers if number]


def container_of(pod: Object, name: str) -> str:
    """Return the container that is meant.

    :raises StatusError: 400, there is no such one, or several and none is named.
    """
    spec = pod["spec"]
    names = [one["name"] for one in spec.get("containers") or []]
    first = [one["name"] for one in spec.get("initContainers") or []]
    if not name:
        if len(names) == 1:
            return str(names[0])
        own = pod["metadata"]["name"]
        text = f"a container name must be specified for pod {own}, choose one of: [{' '.join(names)}]"
        raise bad_request(f"{text} or one of the init containers: [{' '.join(first)}]" if first else text)
    if name not in names + first:
        raise bad_request(f"container {name} is not valid for pod {pod['metadata']['name']}")
    return name


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


def log_options(request: web.BaseRequest) -> dict[str, Any]:
    """Return a request's PodLogOptions as the node takes them.

    :raises StatusError: 400 or 422.
    """
    causes: list[Cause] = []
    numbers: dict[str, int | None] = {}
    for name, least in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
        text = request.query.get(name, "")
        if text and not re.fullmatch(r"[+-]?\d{1,18}", text):
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        numbers[name] = int(text) if text else None
        if text and int(text) < least:
            why = "must be greater than 0" if least else "must be greater than or equal to 0"
            causes.append(invalid_value(name, int(text), why))
    since_time, stream = request.query.get("sinceTime", ""), request.query.get("stream", "")
    since = ""
    if since_time:
        since = _utc(since_time)
        if numbers["sinceSeconds"] is not None:
            causes.append(field_forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif numbers["sinceSeconds"]:
        seconds = min(numbers["sinceSeconds"], 10**9)
        since = (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    if stream not in ("", "All", "Stdout", "Stderr"):
        causes.append(
            Cause(
                "FieldValueNotSupported",
                f'Unsupported value: "{stream}": supported values: "All", "Stderr", "Stdout"',
                "stream",
            )
        )
    if causes:
        raise invalid("", "PodLogOptions", "", causes)
    return {
        "follow": flag(request, "follow"),
        "previous": flag(request, "previous"),
        "tail": numbers["tailLines"],
        "since": since,
        "timestamps": flag(request, "timestamps"),
        "limit": numbers["limitBytes"],
        "stream": "" if stream == "All" else stream.lower(),
    }


def _utc(text: str) -> str:
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        zone = "+00:00" if match[3] == "Z" else match[3]
        moment = datetime.fromisoformat(match[1] + zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it') from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + (match[2] or ".")[1:].ljust(9, "0") + "Z"


def check_log(pod: Object, name: str, previous: bool) -> None:
    """Refuse the log of a container that has none, in the kubelet's words.

    :raises StatusError: 400.
    """
    status, own = pod.get("status") or {}, pod["metadata"]["name"]
    entries = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    entry = next((one for one in entries if one.get("name") == name), None)
    if entry is None:
        raise bad_request(f'container "{name}" in pod "{own}" is not available')
    ended = (entry.get("lastState") or {}).get("terminated")
    if previous:
        if not ended:
            raise bad_request(f'previous terminated container "{name}" in pod "{own}" not found')
        return
    waiting = (entry.get("state") or {}).get("waiting")
    if waiting is not None and not ended:
        reason = waiting.get("reason") or "ContainerCreating"
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            what = "image can't be pulled" if reason == "ErrImagePull" else "trying and failing to pull image"
            raise bad_request(f'container "{name}" in pod "{own}" is waiting to start: {what}')
        raise bad_request(f'container "{name}" in pod "{own}" is waiting to start: {reason}')
