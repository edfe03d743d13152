# SPDX-License-Identifier: GPL-3.0-or-later
"""The command virt-exportserver: the only process of an export's Pod.

What it has to say when it ends is the container's termination message. Importing this module loads what it needs and
starts nothing, so that a process that has imported it can be forked for every export.
"""

import argparse
import encodings.idna  # noqa: F401 - a forked process may be unable to read Python's library
import logging
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from turtles import endpoint, health, termination
from turtles.api import exports
from turtles.api.times import parse_time
from turtles.command import Command
from turtles.errors import ConfigurationError
from turtles.exporter.content import Unreadable, Volume
from turtles.exporter.server import Exports, Server

log = logging.getLogger(__name__)

#: Loaded now, used by the server of metrics.
_HEALTH = health.HealthServer


def main(argv: list[str] | None = None) -> int:
    """Serve until the export's time is over; return 0 then.

    :param argv: arguments without the program's name; None takes the process's own.
    """
    command = Command("virt-exportserver", "Serves the content of claims to clients with a token.")
    command.add_health()
    add = command.parser.add_argument
    add("--export", required=True, help="name of the VirtualMachineExport")
    add("--disk", type=_volume, action="append", default=[], metavar="NAME=PATH", help="claim with a disk, or a device")
    add("--files", type=_volume, action="append", default=[], metavar="NAME=PATH", help="claim with files")
    add("--deadline", type=_time, metavar="TIME", help="expiry time, such as 2026-12-01T12:00:00Z (default: never)")
    add("--port", type=int, default=exports.PORT, help="port to listen on (default: %(default)s)")
    add("--identity", type=Path, default=Path("/identity"), metavar="DIR", help="of the server: %(default)s")
    add("--token", type=Path, default=Path("/token") / exports.TOKEN_KEY, metavar="FILE", help="default: %(default)s")
    add("--manifests", type=Path, default=Path("/manifests"), metavar="DIR", help="default: %(default)s")
    return command.run(lambda options: _run(command, options), argv)


def _run(command: Command, options: argparse.Namespace) -> int:
    volumes = {name: Volume(path, is_disk) for name, path, is_disk in _named(options)}
    served = Exports(options.export, volumes, options.token, options.manifests)
    if (why := _obstacle(served)) is not None:
        log.error("%s", why)
        termination.leave(why)
        return 1
    context = endpoint.server_context()
    endpoint.load(context, *((options.identity / name).read_text() for name in ("tls.crt", "tls.key")))
    try:
        server = Server(endpoint.listen("", options.port), context, served)
    except OSError as error:
        raise ConfigurationError(f"can't listen on port {options.port}: {error.strerror}") from error
    with command.health(options, lambda: True, (served.source(),)):
        threading.Thread(target=server.serve_forever, name="exports", daemon=True).start()
        log.info("exports are served", extra={"export": options.export, "volumes": sorted(volumes)})
        rest = None if options.deadline is None else (options.deadline - datetime.now(UTC)).total_seconds()
        if not command.stopped.wait(None if rest is None else max(0.0, rest)):
            log.info("the export has expired")
    termination.leave("The export has expired")
    return 0


def _obstacle(served: Exports) -> str | None:
    """Return why nothing can be served."""
    for name, volume in served.volumes.items():
        try:
            volume.check()
        except Unreadable as error:
            return f"volume {name}: {error}"
    try:
        if served.token.read_text().strip():
            return None
    except (OSError, UnicodeDecodeError):
        pass
    return f"the Secret with the token has no usable key {exports.TOKEN_KEY}; add one with a random value"


def _named(options: argparse.Namespace) -> list[tuple[str, Path, bool]]:
    return [(*each, is_disk) for disks, is_disk in ((options.disk, True), (options.files, False)) for each in disks]


def _volume(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)


def _time(text: str) -> datetime:
    time = parse_time(text)
    if time is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-12-01T12:00:00Z")
    return time


if __name__ == "__main__":
    sys.exit(main())
