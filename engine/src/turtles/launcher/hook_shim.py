# SPDX-License-Identifier: GPL-3.0-or-later
"""The command virt-sidecar-shim: a hook sidecar that runs programs, for machines whose sidecars have no image.

As KubeVirt's program of that name it looks for ``onDefineDomain`` and ``preCloudInitIso``, calls them with the machine
(``--vmi``, JSON) and the domain (``--domain``, XML) or the cloud-init data (``--cloud-init``, JSON), and takes what
they write to their standard output (KubeVirt user guide, "Hook sidecar container").
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from turtles.domain import paths
from turtles.launcher import hook_api

#: Program of each hook point, the option that gives it what it is to change, and the fields of parameters and result.
_PROGRAMS = {
    hook_api.ON_DEFINE_DOMAIN: ("onDefineDomain", "--domain", "domainXML"),
    hook_api.PRE_CLOUD_INIT_ISO: ("preCloudInitIso", "--cloud-init", "cloudInitData"),
}
_WORDS = 300


class _Shim:
    """The services that the launcher calls; grpclib finds them by ``__mapping__``."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.done = asyncio.Event()

    def __mapping__(self) -> dict[str, Handler]:
        unary = Cardinality.UNARY_UNARY
        services = {hook_api.INFO_METHOD: Handler(self._info, unary, hook_api.InfoParams, hook_api.InfoResult)}
        for hook_point, (params, result) in hook_api.MESSAGES.items():
            handler = self._shut_down if hook_point == hook_api.SHUTDOWN else self._handler(hook_point)
            services[hook_api.method(self._version, hook_point)] = Handler(handler, unary, params, result)
        return services

    async def _info(self, stream: Any) -> None:
        await stream.recv_message()
        points = [point for point, (program, _, _) in _PROGRAMS.items() if _find(program)]
        if self._version == hook_api.VERSIONS[0]:
            points.append(hook_api.SHUTDOWN)
        await stream.send_message(
            hook_api.InfoResult(
                name="shim",
                versions=[self._version],
                hookPoints=[hook_api.HookPoint(name=point, priority=0) for point in points],
            )
        )

    async def _shut_down(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(hook_api.MESSAGES[hook_api.SHUTDOWN][1]())
        self.done.set()

    def _handler(self, hook_point: str) -> Any:
        program, option, field = _PROGRAMS[hook_point]

        async def handle(stream: Any) -> None:
            params = await stream.recv_message()
            output = await _run(program, "--vmi", bytes(params.vmi), option, bytes(getattr(params, field)))
            await stream.send_message(hook_api.MESSAGES[hook_point][1](**{field: output}))

        return handle


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{paths.HOOK_PROGRAMS_DIR}:{os.environ.get('PATH', os.defpath)}")


async def _run(program: str, *arguments: str | bytes) -> bytes:
    """Run a program and return its output; what it says besides goes to the container's log.

    :raises GRPCError: if it can't be run, or fails.
    """
    path = _find(program)
    if path is None:
        raise GRPCError(Status.NOT_FOUND, f"program {program} does not exist")
    try:
        process = await asyncio.create_subprocess_exec(path, *arguments, stdout=asyncio.subprocess.PIPE)
    except OSError as error:
        raise GRPCError(Status.INTERNAL, f"{program} can't be run: {error.strerror}") from error
    output, _ = await process.communicate()
    if process.returncode:
        raise GRPCError(
            Status.INTERNAL, f"{program} failed with exit code {process.returncode}; see this container's log"
        )
    return output


async def _serve(version: str, folder: Path) -> None:
    shim = _Shim(version)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shim.done.set)
    server = Server([shim])
    # The name of the container makes it the only one; the launcher is told nothing of it.
    socket = folder / f"shim-{os.environ.get('CONTAINER_NAME') or os.getpid()}.sock"
    socket.unlink(missing_ok=True)
    await server.start(path=str(socket))
    print(f"hooks are served on {socket}", file=sys.stderr, flush=True)
    await shim.done.wait()
    server.close()
    await server.wait_closed()
    socket.unlink(missing_ok=True)


def main(argv: list[str] | None = None, folder: Path = Path(paths.HOOKS_DIR)) -> int:
    """Serve until the launcher says that the machine is gone, or SIGTERM.

    :param folder: where the socket is opened (tests).
    """
    parser = argparse.ArgumentParser(prog="virt-sidecar-shim", description="Hook sidecar that runs programs.")
    parser.add_argument("--version", choices=hook_api.VERSIONS, required=True, help="version of the hooks' API")
    options = parser.parse_args(argv)
    asyncio.run(_serve(options.version, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
