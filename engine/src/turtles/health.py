# SPDX-License-Identifier: GPL-3.0-or-later
"""What a component tells those who watch over it: whether it lives, whether it is ready, and metrics.

For a kubelet's probes and for Prometheus (its text format, version 0.0.4), over TLS with a certificate of the process's
own; neither verifies the server. It listens only if configured to.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from turtles import endpoint
from turtles.metrics import Description, Sample, Source
from turtles.tls_server import Handler, TlsServer

log = logging.getLogger(__name__)

#: What the name of a histogram's sample has in addition to the metric's.
_PART = re.compile(r"_(bucket|sum|count)$")
#: Seconds a client may take for its handshake, and for its request.
_PATIENCE = 10


class HealthServer:
    """Serves /livez, /readyz and /metrics on a thread of its own."""

    def __init__(
        self, component: str, bind: str, port: int, ready: Callable[[], bool], metrics: Sequence[Source] = ()
    ) -> None:
        """Listen.

        :param component: such as virt-handler; the certificate and a metric name it.
        :param bind: address to listen on, see :func:`turtles.endpoint.listen`.
        :param port: 0 takes a free one, which :attr:`port` then says.
        :param ready: whether the component does its work, or could as soon as it leads.
        :param metrics: what there is besides readiness and the process's own.
        :raises OSError: the address can't be listened on.
        """
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        for source in (_ready_status(component, ready), *metrics):
            registry.register(_Samples(source))

        class Health(Handler):
            timeout = _PATIENCE

            def do_GET(self) -> None:
                if self.path == "/livez":
                    self._answer(200, "ok")
                elif self.path in ("/readyz", "/healthz"):
                    good = ready()
                    self._answer(200 if good else 503, "ok" if good else "not ready yet")
                elif self.path == "/metrics":
                    self._answer(200, generate_latest(registry).decode(), CONTENT_TYPE_PLAIN_0_0_4)
                else:
                    self._answer(404, "not found; there are /livez, /readyz and /metrics")

            def _answer(self, code: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
                body = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: a probe comes every few seconds."""

        context = endpoint.server_context()
        endpoint.load(context, *endpoint.own_certificate(component))
        self._server = TlsServer(endpoint.listen(bind, port), Health, context)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        log.info("health is served", extra={"bind": bind, "port": self.port})

    def __enter__(self) -> "HealthServer":
        """Return itself; it serves already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Samples(Collector):
    """A source as Prometheus' client takes it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        metrics = {
            each.name: Metric(each.name.removesuffix("_total"), each.doc, each.kind)
            for each in self._source.descriptions
        }
        for name, labels, value in self._source.samples():
            family = metrics.get(name) or metrics[_PART.sub("", name)]
            family.add_sample(name, dict(labels), value)
        yield from (family for family in metrics.values() if family.samples)


def _ready_status(component: str, ready: Callable[[], bool]) -> Source:
    name = f"kubevirt_{component.replace('-', '_')}_ready_status"
    description = Description(name, f"Whether {component} does its work, or could as soon as it leads.")
    return Source((description,), lambda: [Sample(name, {}, float(ready()))])
