# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls a Pod's hook sidecars: ``python -m turtles.launcher.hook_client DEADLINE PATIENCE FOLDER``.

There is a process for each request, a JSON object on standard input; the answer is another one on standard output.
DEADLINE is how many seconds all sidecars may take together, PATIENCE how many of these to open their
sockets in FOLDER.

Sidecars are anybody's programs: what they send is bounded by this process's limits of time and memory, and nothing of
it stays with the launcher, whose memory isn't increased by gRPC either.
"""

import asyncio
import contextlib
import json
import os
import resource
import signal
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from turtles.launcher import hook_api

#: Bytes of memory that this process may have, its own included; and seconds a sidecar may take to say what it does.
_MEMORY, _INFO_SECONDS = 512 * 1024 * 1024, 5.0
#: Bytes of a request, files that are looked at in the folder of sockets, and seconds between two looks.
_REQUEST, _ENTRIES, _PAUSE = 16 * 1024 * 1024, 256, 0.05
_WORDS = 300


class HookError(Exception):
    """A sidecar can't be called, or answers what can't be used."""


@dataclass
class _Sidecar:
    """A sidecar: its socket, the newest version that both know, and its priorities by hook point."""

    path: Path
    name: str
    version: str
    priorities: dict[str, int] = field(default_factory=dict)


def main() -> int:
    """Answer one request."""
    deadline, patience, folder = float(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # A sidecar may send what keeps the event loop from looking at the clock.
    signal.setitimer(signal.ITIMER_REAL, deadline + 1)
    try:
        data = sys.stdin.buffer.read(_REQUEST + 1)
        if len(data) > _REQUEST:
            raise HookError(f"the request is larger than {_REQUEST} bytes")
        answer = asyncio.run(_answer(json.loads(data), deadline, patience, folder))
    except HookError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "a hook sidecar's response exceeds the memory limit"}
    sys.stdout.write(json.dumps(answer))
    return 0


async def _answer(request: Mapping[str, Any], deadline: float, patience: float, folder: Path) -> dict[str, Any]:
    now = asyncio.get_running_loop().time()
    ends = now + deadline
    sidecars = await _collect(folder, request["sidecars"], now + patience)
    called = [each for each in sidecars if request["call"] in each.priorities]
    # As in KubeVirt: by priority, then by name.
    called.sort(key=lambda each: (-each.priorities[request["call"]], each.name, each.path.name))
    vmi = json.dumps(request.get("vmi")).encode()
    if request["call"] == hook_api.ON_DEFINE_DOMAIN:
        return {"domain": await _define(called, vmi, request["domain"], ends)}
    if request["call"] == hook_api.PRE_CLOUD_INIT_ISO:
        return {"cloudInit": await _seed(called, vmi, request["cloudInit"], ends)}
    for sidecar in called:
        with contextlib.suppress(HookError):
            await _call(sidecar, hook_api.SHUTDOWN, {}, ends)
    return {}


async def _define(sidecars: list[_Sidecar], vmi: bytes, domain: str, ends: float) -> str:
    for sidecar in sidecars:
        result = await _call(sidecar, hook_api.ON_DEFINE_DOMAIN, {"domainXML": domain.encode(), "vmi": vmi}, ends)
        try:
            domain = bytes(result.domainXML).decode()
        except UnicodeDecodeError as error:
            raise HookError(f"{_of(sidecar)}: its domain is not UTF-8: {error}") from error
        if not domain.strip():
            raise HookError(f"{_of(sidecar)}: it returned no domain")
    return domain


async def _seed(sidecars: list[_Sidecar], vmi: bytes, data: dict[str, Any], ends: float) -> dict[str, Any]:
    for sidecar in sidecars:
        if sidecar.version == "v1alpha1":
            continue  # which doesn't have it
        older = {"userData": data["UserData"], "networkData": data["NetworkData"]}
        params = {
            "cloudInitData": json.dumps(data).encode(),
            "cloudInitNoCloudSource": json.dumps(older).encode(),
            "vmi": vmi,
        }
        result = await _call(sidecar, hook_api.PRE_CLOUD_INIT_ISO, params, ends)
        try:
            seed = json.loads(result.cloudInitData or "null")
            if isinstance(seed, dict) and (seed.get("UserData") or seed.get("NetworkData")):
                data = {**data, **seed}
                continue
            # For those that only know what was before.
            source = json.loads(result.cloudInitNoCloudSource or "null")
        except (ValueError, RecursionError) as error:
            raise HookError(f"{_of(sidecar)}: its cloud-init data is not JSON: {error}") from error
        if not isinstance(source, dict):
            raise HookError(f"{_of(sidecar)}: it returned no cloud-init data")
        data = {**data, "UserData": source.get("userData", ""), "NetworkData": source.get("networkData", "")}
    return data


async def _collect(folder: Path, number: int, until: float) -> list[_Sidecar]:
    """Find out what all sidecars do.

    :raises HookError: if not all of them have opened their sockets until then.
    """
    sidecars: dict[Path, _Sidecar] = {}
    clock = asyncio.get_running_loop().time
    while True:
        for path in _sockets(folder):
            if path not in sidecars and (sidecar := await _info(path)) is not None:
                sidecars[path] = sidecar
        if len(sidecars) >= number:
            return list(sidecars.values())
        if clock() + _PAUSE > until:
            raise HookError(
                f"{number - len(sidecars)} of {number} hook sidecars did not open a socket in {folder} in time; "
                "see the logs of the Pod's containers hook-sidecar-0 and following"
            )
        await asyncio.sleep(_PAUSE)


def _sockets(folder: Path, *, deeper: bool = True) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry, _ in zip(sorted(entries, key=lambda each: each.name), range(_ENTRIES), strict=False):
            kind = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISSOCK(kind):
                yield folder / entry.name
            elif deeper and stat.S_ISDIR(kind):
                yield from _sockets(folder / entry.name, deeper=False)


async def _info(path: Path) -> _Sidecar | None:
    """Ask a sidecar what it is; None if nobody listens yet."""
    sidecar = _Sidecar(path, path.name, "")
    try:
        result = await _within(
            asyncio.get_running_loop().time() + _INFO_SECONDS,
            lambda channel: UnaryUnaryMethod(channel, hook_api.INFO_METHOD, hook_api.InfoParams, hook_api.InfoResult)(
                hook_api.InfoParams()
            ),
            path,
        )
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except Exception as error:  # grpclib raises anything if what answers doesn't speak gRPC
        raise HookError(f"{_of(sidecar)}: it does not report its hook points: {_words(error)}") from error
    sidecar.name = result.name
    version = next((each for each in hook_api.VERSIONS if each in result.versions), None)
    if version is None:
        raise HookError(
            f"{_of(sidecar)}: it has the versions {', '.join(result.versions)[:_WORDS] or 'none'} of the hook API, "
            f"but only {', '.join(hook_api.VERSIONS)} are supported"
        )
    sidecar.version = version
    sidecar.priorities = {point.name: point.priority for point in result.hookPoints}
    return sidecar


async def _call(sidecar: _Sidecar, hook_point: str, params: Mapping[str, Any], ends: float) -> Any:
    request, result = hook_api.MESSAGES[hook_point]
    method = hook_api.method(sidecar.version, hook_point)
    try:
        return await _within(
            ends,
            lambda channel: UnaryUnaryMethod(channel, method, request, result)(request(**params)),
            sidecar.path,
        )
    except Exception as error:
        raise HookError(f"{_of(sidecar)}: {hook_point} failed: {_words(error)}") from error


async def _within(ends: float, call: Callable[[Channel], Awaitable[Any]], path: Path) -> Any:
    channel = Channel(path=str(path))
    try:
        async with asyncio.timeout_at(ends):
            return await call(channel)
    finally:
        channel.close()


def _of(sidecar: _Sidecar) -> str:
    return f"hook sidecar {sidecar.name[:_WORDS]!r} ({sidecar.path.name})"


def _words(error: BaseException) -> str:
    if isinstance(error, GRPCError):
        return f"{error.status.name}: {error.message or ''}"[:_WORDS]
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return f"{type(error).__name__}: {error}"[:_WORDS]


if __name__ == "__main__":
    sys.exit(main())
