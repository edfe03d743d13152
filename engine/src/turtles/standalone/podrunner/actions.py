# SPDX-License-Identifier: GPL-3.0-or-later
"""What probes and hooks do: run a command in a container, or connect to it.

The container is untrusted: what it answers is read up to a limit, within the time that the probe has.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from turtles.api.objects import Object
from turtles.standalone.podrunner.probes import port_of

#: Bytes of an answer's head that are read.
_MAX_HEAD = 8 << 10
_AGENT = "kube-probe/1.36"

#: Runs a command for some seconds: returns its exit code (None: it took longer) and what it said.
Run = Callable[[list[str], float], tuple[int | None, str]]


@dataclass(frozen=True)
class Target:
    """A container that is asked.

    :param address: its Pod's address.
    :param run: runs a command in it.
    :param gone: set when nobody wants to know any more.
    """

    container: Object
    address: str
    run: Run
    gone: threading.Event


def perform(action: Object, target: Target, seconds: float) -> tuple[bool, str]:
    """Carry out a probe's or hook's action; return whether it succeeded, and what to say if not."""
    if action.get("exec") is not None:
        code, output = target.run(list(action["exec"].get("command") or []), seconds)
        return code == 0, f"command timed out after {seconds:g}s" if code is None else output
    if action.get("sleep") is not None:
        target.gone.wait(min(seconds, float(action["sleep"]["seconds"])))
        return True, ""
    what = action.get("httpGet") or action.get("tcpSocket") or {}
    port = port_of(target.container, what.get("port") or "")
    if port is None:
        return False, f"the container has no port {what.get('port')!r}"
    deadline = time.monotonic() + seconds
    try:
        with socket.create_connection((target.address, port), timeout=seconds) as connection:
            return _get(connection, what, port, target.address, deadline) if action.get("httpGet") else (True, "")
    except (OSError, ValueError) as error:
        return False, f"connection to {target.address}:{port} failed: {error}"


def _get(connection: socket.socket, what: Object, port: int, address: str, deadline: float) -> tuple[bool, str]:
    """Send a request and judge the answer's status, as the kubelet does, but without following redirections."""
    headers = {"Host": f"{address}:{port}", "User-Agent": _AGENT, "Accept": "*/*", "Connection": "close"}
    for entry in what.get("httpHeaders") or []:
        headers = {name: value for name, value in headers.items() if name.lower() != entry["name"].lower()}
        headers[entry["name"]] = entry.get("value") or ""
    lines = [
        f"GET {what.get('path') or '/'} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a path or header")
    with contextlib.ExitStack() as stack:
        if what.get("scheme") == "HTTPS":
            # As the kubelet: whose certificate it is doesn't matter here.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = stack.enter_context(context.wrap_socket(connection))
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while b"\r\n" not in head and len(head) < _MAX_HEAD:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            data = connection.recv(_MAX_HEAD)
            if not data:
                break
            head += data
    words = head.partition(b"\r\n")[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ValueError("the answer is not HTTP")
    status = int(words[1])
    return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"
