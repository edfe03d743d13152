# SPDX-License-Identifier: GPL-3.0-or-later
"""The command virt-api."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import ssl
import sys
import threading
import time
from collections.abc import Sequence

from aiohttp import web

from turtles import __version__, endpoint
from turtles.health import HealthServer
from turtles.kube.client import ApiError, Client
from turtles.kube.configuration import ConfigurationWatch
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.resources import CONFIGMAP
from turtles.log import setup_logging
from turtles.virt_api import certificates, eviction, manifests, names
from turtles.virt_api.admission import Admission, engine_users
from turtles.virt_api.authentication import FrontProxy
from turtles.virt_api.checks import checks
from turtles.virt_api.registration import Registration
from turtles.virt_api.server import Server, new_context

log = logging.getLogger(__name__)

#: Seconds given to requests that are being answered when the server stops.
_SHUTDOWN = 5.0
#: Seconds the registration waits for what tells whom to trust; webhooks need nothing of that.
_PATIENCE = 3.0
#: Seconds between two tries to reach the API server at start.
_RETRY = 0.5


def parser() -> argparse.ArgumentParser:
    """Give the command's options."""
    found = argparse.ArgumentParser(prog="virt-api", description="Admission and subresources of the KubeVirt API.")
    found.add_argument(
        "command",
        nargs="?",
        choices=["serve", "manifests"],
        default="serve",
        help="serve (the default); or print what has to be created before the engine's components start, as YAML",
    )
    found.add_argument("--kubeconfig", help="how to reach the API server; that of the Pod if not given")
    found.add_argument("--bind", default="", help="address to listen on; all if not given")
    found.add_argument("--port", type=int, default=8443, help="port to listen on")
    found.add_argument("--url", help="https URL the API server reaches this under, if there is no Service virt-api")
    found.add_argument(
        "--cluster",
        metavar="FILE",
        help="with manifests: also what runs the components on a Kubernetes cluster, from this JSON file (-: standard "
        "input) with engineImage, launcherImage and other values",
    )
    found.add_argument("--namespace", default="kubevirt", help="namespace of the engine")
    found.add_argument("--pod-name", help="the Pod this is, if it is a replica of the Deployment virt-api")
    found.add_argument("--health-bind", default="", help="address of health and metrics; all if not given")
    found.add_argument("--health-port", type=int, help="port of health and metrics; not served if not given")
    found.add_argument("--architecture", default="amd64", help="architecture of machines that don't say theirs")
    found.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    found.add_argument("--version", action="version", version=__version__)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    options = parser().parse_args(argv)
    if options.command == "manifests":
        return _print_manifests(options.namespace, options.cluster)
    setup_logging("virt-api", options.log_level)
    client = Client.from_kubeconfig(options.kubeconfig)
    recorder = Recorder(client, "virt-api")
    context = new_context()
    registration = Registration(
        client,
        options.namespace,
        lambda found: certificates.load(context, found),
        options.url,
        options.bind,
        tell=recorder.event,
        pod=options.pod_name,
    )
    configuration = ConfigurationWatch(client, options.namespace, options.architecture)
    configuration.follow_verbosity("virtAPI", options.log_level)
    admission = Admission(engine_users(options.namespace), configuration.current, checks(client, options.namespace))
    admission.add(eviction.VALIDATE, eviction.EvictionReview(client, recorder))
    configuration.add_handler(admission.configure)
    configuration.add_handler(registration.configure)
    server = Server(client, admission, context, registration.done.is_set)
    configmap = Informer(
        client,
        CONFIGMAP,
        namespace=names.AUTHENTICATION_NAMESPACE,
        field_selector=f"metadata.name={names.AUTHENTICATION_CONFIGMAP}",
    )
    configmap.add_handler(lambda old, new: server.trust(FrontProxy.from_configmap(new)))
    informers = [configmap, configuration.informer]
    health = None
    if options.health_port is not None:
        health = HealthServer("virt-api", options.health_bind, options.health_port, registration.done.is_set)
    try:
        asyncio.run(_serve(server, registration, informers, context, options.bind, options.port))
    finally:
        if health is not None:
            health.close()
        registration.stop()
        for informer in informers:
            informer.stop()
        recorder.close()
    return 0


def _print_manifests(namespace: str, cluster: str | None) -> int:
    try:
        values = manifests.read_values(cluster) if cluster else None
    except (OSError, ValueError) as error:
        print(f"virt-api manifests: {cluster}: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(manifests.render(namespace, values))
    return 0


async def _serve(
    server: Server,
    registration: Registration,
    informers: Sequence[Informer],
    context: ssl.SSLContext,
    bind: str,
    port: int,
) -> None:
    """Serve until told to end. `informers` tell what requests need: whom to trust, and the configuration."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    stopping = threading.Event()

    def end() -> None:
        stop.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await asyncio.to_thread(_prepare, registration, stopping)
    if stop.is_set():
        return
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    await web.SockSite(runner, endpoint.listen(bind, port), ssl_context=context).start()
    log.info("listening", extra={"bind": bind, "port": port})
    # Who is asked to come by an APIService should be known when he comes
    for informer in informers:
        informer.start()
    await asyncio.to_thread(wait_synced, informers, _PATIENCE)
    registration.start()
    await stop.wait()
    log.info("stopping")
    await runner.cleanup()


def _prepare(registration: Registration, stopping: threading.Event) -> None:
    """Wait for the API server, and for the namespace of the engine in it."""
    last = 0.0
    while not stopping.is_set():
        try:
            registration.prepare()
            return
        except ApiError as error:
            if time.monotonic() - last > 10:
                log.warning("waiting for the API server: %s", error)
                last = time.monotonic()
        stopping.wait(_RETRY)


if __name__ == "__main__":
    sys.exit(main())
