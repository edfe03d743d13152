# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A guest whose agent runs commands on this machine, behind a virsh in a launcher's Pod, as pods/exec reaches it."""

from __future__ import annotations

import asyncio
import base64
import json
import re

from aiohttp import WSMsgType, web

COMMAND = re.compile(r"qemu-agent-command --timeout (\d+) (\S+) '([^']*)'\Z")


class Guest:
    """Answers as virsh does, in a terminal that echoes."""

    def __init__(self):
        self.disabled = set()
        # What the command in the Pod says before it ends, if it doesn't run; and what is asked of the agent that fails.
        self.broken = ""
        self.failing = set()
        self.programs = []
        # The paths of processes of the guest begin here.
        self.environment = None
        self._processes = {}

    async def serve(self, request):
        """One command in a Pod."""
        if "*/*" not in request.headers.get("Accept", ""):
            # As kubelets do.
            raise web.HTTPNotAcceptable
        stream = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await stream.prepare(request)
        if self.broken:
            await stream.send_bytes(b"\x01error: " + self.broken.encode() + b"\n")
            await stream.close()
            return stream
        typed = b""
        async for message in stream:
            if message.type != WSMsgType.BINARY or message.data[:1] != b"\x00":
                continue
            *lines, typed = (typed + message.data[1:]).split(b"\n")
            for line in lines:
                said = "virsh # %s\n%s\n" % (line.decode(), await self._virsh(line.decode()))
                await stream.send_bytes(b"\x01" + said.encode())
        return stream

    async def _virsh(self, line):
        if line.startswith("echo "):
            return line.removeprefix("echo ").replace("'", "")
        match = COMMAND.match(line)
        if not match:
            return "error: unknown command"
        request = json.loads(match[3])
        if request["execute"] in self.failing:
            return "error: Guest agent is not responding: Guest agent not available for now"
        return json.dumps({"return": await self._agent(request["execute"], request.get("arguments") or {})}).replace(
            ": ", ":", 1
        )

    async def _agent(self, command, arguments):
        if command == "guest-info":
            names = ("guest-exec", "guest-exec-status")
            return {"supported_commands": [{"name": name, "enabled": name not in self.disabled} for name in names]}
        if command == "guest-exec":
            self.programs.append([arguments["path"], *arguments["arg"]])
            process = await asyncio.create_subprocess_exec(
                arguments["path"],
                *arguments["arg"],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self.environment,
            )
            work = process.communicate(base64.b64decode(arguments.get("input-data", "")))
            self._processes[process.pid] = process, asyncio.ensure_future(work)
            return {"pid": process.pid}
        process, work = self._processes[arguments["pid"]]
        if not work.done():
            return {"exited": False}
        out, err = (base64.b64encode(text).decode() for text in work.result())
        if process.returncode < 0:
            return {"exited": True, "signal": -process.returncode}
        return {"exited": True, "exitcode": process.returncode, "out-data": out, "err-data": err}
