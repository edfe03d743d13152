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

from turtles import endpoint
from turtles.command import Command
from turtles.errors import ConfigurationError
from turtles.kube import metrics as kube_metrics
from turtles.kube.client import ApiError, Client
from turtles.kube.configuration import ConfigurationWatch
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.lookup import Lookup
from turtles.kube.resources import CONFIGMAP
from turtles.virt_api import certificates, eviction, manifests, metrics, names
from turtles.virt_api.admission import Admission, engine_users
from turtles.virt_api.authentication import FrontProxy
from turtles.virt_api.caches import Caches
from turtles.virt_api.certificates import Certificates
from turtles.virt_api.checks import checks
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.registration import Registration
from turtles.virt_api.server import Server, new_context

log = logging.getLogger(__name__)

#: Seconds that the server waits at start for what it reads by watches: whom to trust, the configuration, presets.
_PATIENCE = 3.0
#: Seconds between two tries to reach the API server at start.
_RETRY = 0.5


def _command() -> Command:
    command = Command("virt-api", "Admission and subresources of the KubeVirt API.")
    command.add_kubeconfig()
    command.add_namespace()
    command.add_health()
    add = command.parser.add_argument
    add(
        "command",
        nargs="?",
        choices=["serve", "manifests"],
        default="serve",
        help="serve (the default); or print what has to be created before the engine's components start, as YAML",
    )
    add("--bind", default="", help="address to listen on (default: all)")
    add("--port", type=int, default=8443, help="port to listen on")
    add("--url", help="https URL at which the API server reaches virt-api, if there is no Service virt-api")
    add(
        "--cluster",
        metavar="FILE",
        help="with manifests: also the workloads for a Kubernetes cluster, from this JSON file (-: standard "
        "input) with engineImage, launcherImage and other values",
    )
    add("--pod-name", help="name of this Pod, if it is a replica of the Deployment virt-api")
    add(
        "--architecture", default="amd64", help="architecture of machines that don't specify one (default: %(default)s)"
    )
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    command = _command()
    # The event loop handles signals.
    return command.run(lambda options: _run(command, options), argv, signals=False)


def _run(command: Command, options: argparse.Namespace) -> None:
    if options.command == "manifests":
        _print_manifests(options.namespace, options.cluster)
        return
    client = Client.from_kubeconfig(options.kubeconfig)
    recorder = Recorder(client, "virt-api")
    context = new_context()
    nodes = Nodes(client)

    def use(current: Certificates) -> None:
        certificates.load(context, current)
        nodes.identify(current)

    registration = Registration(
        client,
        options.namespace,
        use,
        options.url,
        options.bind,
        tell=recorder.event,
        pod=options.pod_name,
    )
    configuration = ConfigurationWatch(client, options.namespace, options.architecture)
    configuration.follow_verbosity("virtAPI", options.log_level)
    read = Caches(client)
    admission = Admission(
        engine_users(options.namespace),
        configuration.current,
        checks(client, options.namespace),
        read.objects,
        Lookup(client),
    )
    admission.add(eviction.VALIDATE, eviction.EvictionReview(client, recorder))
    configuration.add_handler(admission.configure)
    configuration.add_handler(registration.configure)
    server = Server(client, admission, context, registration.done.is_set, nodes, options.namespace)
    configmap = Informer(
        client,
        CONFIGMAP,
        namespace=names.AUTHENTICATION_NAMESPACE,
        field_selector=f"metadata.name={names.AUTHENTICATION_CONFIGMAP}",
    )
    configmap.add_handler(lambda old, new: server.trust(FrontProxy.from_configmap(new)))
    informers = [configmap, configuration.informer, *read.informers]
    try:
        sources = (
            metrics.of_creations(admission.created, options.pod_name or ""),
            server.connections.source,
            kube_metrics.of_client(client),
        )
        with command.health(options, registration.done.is_set, sources):
            asyncio.run(_serve(server, registration, informers, context, options.bind, options.port))
    finally:
        registration.stop()
        for informer in informers:
            informer.stop()
        recorder.close()


def _print_manifests(namespace: str, cluster: str | None) -> None:
    try:
        values = manifests.read_values(cluster) if cluster else None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"virt-api manifests: {cluster}: {error}") from error
    sys.stdout.write(manifests.render(namespace, values))


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
    # Webhooks of an earlier run may be registered still: what they look at should be known when they are called, and
    # so should be who is asked to come by an APIService
    for informer in informers:
        informer.start()
    await asyncio.to_thread(wait_synced, informers, _PATIENCE)
    runner = server.runner()
    await runner.setup()
    await web.SockSite(runner, endpoint.listen(bind, port), ssl_context=context).start()
    log.info("listening", extra={"bind": bind, "port": port})
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
