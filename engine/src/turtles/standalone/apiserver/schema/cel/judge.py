# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluates the rules of objects in a process of their own (worker.py), which is started when the first rule comes."""

import asyncio
import contextlib
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

import msgspec

from turtles.standalone.apiserver.schema.cel import rules, worker
from turtles.standalone.apiserver.wire.errors import Cause

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", worker.__name__)
#: How the process ends when it isn't for what it was asked: then it is asked again.
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
#: Kinds whose rules the process keeps at most: definitions come and change.
_KEPT = 500


class Judge:
    """The process, one object at a time."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        #: The rules that the process has, by number. Kept, so that no other rules get their identity.
        self._known: dict[int, rules.Node] = {}

    async def evaluate(self, node: rules.Node, value: dict[str, Any], old: Any) -> list[Cause]:
        """Return what rules say of an object, as :func:`rules.evaluate` does.

        :param value: the object.
        :param old: the object before, or ABSENT.
        :returns: also for a process that ended over it: it needed too much memory or time.
        """
        message: dict[str, Any] = {"number": id(node), "object": value}
        if old is not rules.ABSENT:
            message["old"] = old
        async with self._lock:
            for _ in range(2):
                process = self._process
                if process is None or process.returncode is not None:
                    process = await self._start()
                try:
                    return [Cause(*one) for one in await self._ask(process, node, message)]
                except (ConnectionError, asyncio.IncompleteReadError):
                    code = await process.wait()
                    log.warning("the evaluation of rules ended", extra={"kind": value.get("kind"), "code": code})
                    if code not in _FROM_OUTSIDE:
                        break
                except BaseException:
                    # Its answer to this would be taken for that to the next.
                    await self.close()
                    raise
        return [rules.exhausted(value)]

    async def _ask(self, process: Process, node: rules.Node, message: dict[str, Any]) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        if id(node) not in self._known:
            self._known[id(node)] = node
            process.stdin.write(_frame({"number": id(node), "schema": node.schema}))
        process.stdin.write(_frame(message))
        await process.stdin.drain()
        (length,) = worker.LENGTH.unpack(await process.stdout.readexactly(worker.LENGTH.size))
        answer = msgspec.json.decode(await process.stdout.readexactly(length))
        if len(self._known) > _KEPT:
            await self.close()
        return answer

    async def _start(self) -> Process:
        await self.close()
        self._process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=PIPE, stdout=PIPE)
        return self._process

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._known = {}
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _frame(message: dict[str, Any]) -> bytes:
    raw = msgspec.json.encode(message)
    return worker.LENGTH.pack(len(raw)) + raw
