# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server consists of."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from turtles.standalone.apiserver.access.auth import Authenticator
from turtles.standalone.apiserver.access.rbac import Authorizer
from turtles.standalone.apiserver.access.tokens import Tokens
from turtles.standalone.apiserver.admission.webhooks import Webhooks
from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.builtin.service_addresses import DEFAULT_RANGE, Allocator
from turtles.standalone.apiserver.controllers.api_services import APIServices
from turtles.standalone.apiserver.controllers.collector import Collector
from turtles.standalone.apiserver.controllers.definitions import Definitions
from turtles.standalone.apiserver.controllers.disruption import Budgets, admit_eviction
from turtles.standalone.apiserver.controllers.quota_status import QuotaStatus
from turtles.standalone.apiserver.controllers.role_aggregation import RoleAggregation
from turtles.standalone.apiserver.controllers.runner import Controllers
from turtles.standalone.apiserver.controllers.service_accounts import RootCertificates, SecretTokens
from turtles.standalone.apiserver.controllers.sweeper import Sweeper
from turtles.standalone.apiserver.http.audit import Audit
from turtles.standalone.apiserver.http.limits import Limits
from turtles.standalone.apiserver.http.metrics import Metrics
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.streams.node import Node
from turtles.standalone.apiserver.streams.pod_streams import PodStreams
from turtles.standalone.apiserver.views.aggregation import Aggregator
from turtles.standalone.apiserver.views.openapi import OpenAPI


class APIServer:
    """The parts of the server; handler.py is where requests come in."""

    def __init__(
        self, store: Store, config: Path, service_range: str = DEFAULT_RANGE,
        limits: Limits | None = None, audit: Audit | None = None, node_sockets: Mapping[str, Path] | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.limits, self.audit, self.metrics = limits or Limits(), audit or Audit(), Metrics()
        self.registry = Registry(store)
        self.tokens = Tokens(store, config / "pki" / "sa.key")
        self.authenticator = Authenticator(config / "tokens.csv", self.tokens)
        self.authorizer = Authorizer(store)
        self.webhooks = Webhooks(store, self.registry, self.authorizer)
        self.resources = Resources(
            store, self.registry, self.webhooks, self.authorizer, Allocator(store, service_range),
            self.webhooks.converter,
        )  # fmt: skip
        self.aggregator = Aggregator(store, config / "pki")
        self.collector, self.sweeper = Collector(self.resources), Sweeper(self.resources)
        authority = config / "pki" / "ca.crt"
        self.controllers = Controllers(
            store,
            [
                Definitions(self.resources), RootCertificates(self.resources, authority),
                SecretTokens(self.resources, self.tokens, authority), QuotaStatus(self.resources),
                Budgets(self.resources), RoleAggregation(self.resources),
                APIServices(self.resources, self.aggregator),
            ],
        )  # fmt: skip
        self.resources.admit_eviction = partial(admit_eviction, self.resources)
        self.streams = PodStreams(Node(node_sockets or {}), self.authorizer, self.webhooks)
        self.openapi = OpenAPI(self.registry)
        #: Whether health checks succeed.
        self.ready = False
