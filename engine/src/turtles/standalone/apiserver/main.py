# SPDX-License-Identifier: GPL-3.0-or-later
"""``virt-standalone apiserver``: serve the Kubernetes API of one machine."""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sqlite3
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from turtles.command import Command
from turtles.standalone.apiserver.builtin.service_addresses import DEFAULT_RANGE, service_range
from turtles.standalone.apiserver.controllers.bootstrap import bootstrap
from turtles.standalone.apiserver.controllers.own_service import advertised
from turtles.standalone.apiserver.http.audit import Audit, Policy, PolicyError
from turtles.standalone.apiserver.http.handler import handle
from turtles.standalone.apiserver.http.limits import LimitedServer, LimitedSite, Limits, LimitSettings
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.storage import encryption
from turtles.standalone.apiserver.storage.database import DATABASE, DatabaseError
from turtles.standalone.apiserver.storage.encryption import Encryption, EncryptionError
from turtles.standalone.apiserver.storage.store import HISTORY_SECONDS, Store
from turtles.standalone.apiserver.wire.bodies import MAX_BODY

log = logging.getLogger(__name__)


def tls_context(pki: Path) -> ssl.SSLContext:
    """Return the server's side of TLS; client certificates of the cluster's CA are asked for, not demanded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    context.load_verify_locations(pki / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def _make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


def _is_ours(record: logging.LogRecord) -> bool:
    """Say whether a record of aiohttp's is about more than a client that speaks no HTTP, or goes while it speaks."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | ConnectionError):
        return True
    log.debug("a client sent an incomplete request", extra={"reason": str(error)})
    return False


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    config_dir: Path
    data_dir: Path
    bind: str
    port: int
    service_cidr: str
    node_sockets: Mapping[str, Path]
    history_seconds: float
    idle_timeout_seconds: float
    max_requests_inflight: int
    max_mutating_requests_inflight: int
    max_requests_per_second: float
    max_connections: int
    audit_policy_file: Path | None
    audit_log_path: Path | None
    audit_log_maxsize: int
    audit_log_maxbackup: int

    def limits(self) -> LimitSettings:
        """Return what clients may ask for at once."""
        return LimitSettings(
            self.max_requests_inflight,
            self.max_mutating_requests_inflight,
            self.max_requests_per_second,
            connections=self.max_connections,
        )

    def audit(self) -> Audit:
        """Return the opened audit log, one that does nothing without a path."""
        policy = Policy.load(self.audit_policy_file) if self.audit_policy_file else None
        return Audit(self.audit_log_path, policy, self.audit_log_maxsize, self.audit_log_maxbackup)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    config, bind, port = settings.config_dir, settings.bind, settings.port
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    limits, audit = settings.limits(), settings.audit()
    keys = Encryption.load(config / encryption.FILE)
    store = Store(settings.data_dir / DATABASE, keys, settings.history_seconds)
    store.start(loop)
    api = APIServer(store, config, settings.service_cidr, Limits(limits), audit, settings.node_sockets)
    server = LimitedServer(
        partial(handle, api),
        request_factory=_make_request,
        access_log=None,
        connections=limits.connections,
        keepalive_timeout=settings.idle_timeout_seconds,
    )
    runner = web.ServerRunner(server, shutdown_timeout=1)
    try:
        await bootstrap(api.resources, config / "pki", advertised(bind), port)
        api.collector.start()
        api.sweeper.start()
        api.controllers.start()
        await runner.setup()
        site = LimitedSite(runner, bind, port, tls_context(config / "pki"))
        await site.start()
        api.ready = True
        # What start-up made lives as long as the process: no need to look through it at every collection.
        gc.collect()
        gc.freeze()
        log.info("serving", extra={"bind": bind, "port": port, "resource_version": store.version})
        await stop.wait()
        api.ready = False
        log.info("stopping")
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await runner.cleanup()
        await api.controllers.stop()
        await api.collector.stop()
        await api.sweeper.stop()
        await api.webhooks.close()
        await api.resources.close()
        await api.aggregator.close()
        store.close()


def main(argv: list[str]) -> int:
    """Run the command; 0 after SIGTERM, 1 when it can't start."""
    command = Command("virt-standalone apiserver", "Serves the Kubernetes API from SQLite.", component="apiserver")
    parser = command.parser
    parser.add_argument(
        "--config-dir",
        type=Path,
        default=Path("/etc/turtles"),
        help="folder that virt-standalone init created (default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path("/var/lib/turtles/apiserver"),
        help="folder of the database (default: %(default)s)",
    )
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--service-cidr", type=service_range, default=DEFAULT_RANGE, help="address range of Services")
    parser.add_argument(
        "--node-socket",
        dest="node_sockets",
        action="append",
        default=[],
        metavar="[NODE=]PATH",
        help="the Pod runner's socket for logs and sessions; may be repeated, with the names of nodes. Without it "
        "there are none",
    )
    parser.add_argument(
        "--history-seconds",
        type=float,
        default=HISTORY_SECONDS,
        help="seconds for which a watch can resume from a change",
    )
    limits = LimitSettings()
    parser.add_argument(
        "--idle-timeout-seconds",
        type=float,
        default=90,
        help="seconds that a connection may go without a complete request",
    )
    parser.add_argument(
        "--max-requests-inflight", type=int, default=limits.reading, help="concurrent reading requests, 0 for no limit"
    )
    parser.add_argument(
        "--max-mutating-requests-inflight",
        type=int,
        default=limits.mutating,
        help="concurrent writing requests, 0 for no limit",
    )
    parser.add_argument(
        "--max-requests-per-second", type=float, default=limits.rate, help="for each user; twice as many in a burst"
    )
    parser.add_argument("--max-connections", type=int, default=limits.connections)
    parser.add_argument(
        "--audit-policy-file", type=Path, help="audit.k8s.io/v1 Policy (default: level Metadata for all)"
    )
    parser.add_argument(
        "--audit-log-path", type=Path, help="file for the audit log; if not given, requests aren't logged"
    )
    parser.add_argument(
        "--audit-log-maxsize", type=int, default=100, help="megabytes after which a new file is started"
    )
    parser.add_argument("--audit-log-maxbackup", type=int, default=10, help="number of older files to keep")
    return command.run(_run, argv, signals=False)


def _by_node(sockets: Sequence[str]) -> dict[str, Path]:
    """Return paths of sockets by the names of their nodes; "" where none is given."""
    parts = [text.rpartition("=") for text in sockets]
    return {node: Path(path) for node, _, path in parts}


def _run(options: argparse.Namespace) -> int:
    values = vars(options)
    del values["log_level"]
    values["node_sockets"] = _by_node(values["node_sockets"])
    settings = Settings(**values)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        asyncio.run(serve(settings))
    except (OSError, sqlite3.Error, ssl.SSLError, DatabaseError, EncryptionError, PolicyError) as error:
        log.error("the API server can't run", extra={"reason": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
