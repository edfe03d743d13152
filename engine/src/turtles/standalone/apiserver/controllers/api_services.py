# SPDX-License-Identifier: GPL-3.0-or-later
"""APIServices: one for each version of custom resources, and whether aggregated ones are available.

What kube-aggregator's autoregister and availability controllers do, in their words.
"""

from collections.abc import Iterable, Iterator

from turtles.api.objects import labels_of
from turtles.standalone.apiserver.builtin import crd, local_services
from turtles.standalone.apiserver.controllers.internal import context_of, modify_if_exists
from turtles.standalone.apiserver.resource.create import create
from turtles.standalone.apiserver.resource.delete import delete
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema.status import set_condition
from turtles.standalone.apiserver.storage.entries import Event, Key
from turtles.standalone.apiserver.views.aggregation import RESOURCE, Aggregator, Service
from turtles.standalone.apiserver.wire import endpoints
from turtles.standalone.apiserver.wire.errors import Object
from turtles.standalone.apiserver.wire.options import DeleteOptions

#: Seconds after which a service is looked at again, by whether it was available.
AGAIN = {True: 30.0, False: 2.0}


class APIServices:
    """Keeps the server's own APIServices, and the status of those that others answer."""

    resources: frozenset[str] | None = frozenset({RESOURCE, crd.RESOURCE, "/services", "/endpoints"})

    def __init__(self, resources: Resources, aggregator: Aggregator) -> None:
        self._resources, self._store, self._aggregator = resources, resources.store, aggregator

    def initial(self) -> Iterable[Key]:
        """Return the versions of all definitions, and every APIService."""
        keys = {entry.key for entry in self._store.entries(RESOURCE)}
        for entry in self._store.entries(crd.RESOURCE):
            keys.update(_of_definition(entry.object()))
        return keys

    def concerned(self, event: Event) -> Iterator[Key]:
        """Return the APIServices that an event may make, end or change."""
        key = event.entry.key
        if key.resource == RESOURCE:
            yield key
        elif key.resource == crd.RESOURCE:
            yield from _of_definition(event.entry.object())
        else:
            for service in self._aggregator.services().values():
                if (service.namespace, service.service) == (key.namespace, key.name):
                    yield Key(RESOURCE, "", service.name)

    async def reconcile(self, key: Key) -> float | None:
        """Make, end or judge an APIService."""
        version, _, group = key.name.partition(".")
        served = version in self._resources.registry.groups().get(group, ())
        entry = self._store.get(key)
        context = context_of(self._resources, key)
        if entry is None:
            # Those of built-in groups are made at the start only, as their label says.
            if served and group not in local_services.PRIORITIES:
                await create(self._resources, context, local_services.local(group, version))
            return None
        obj = entry.object()
        if not served and labels_of(obj).get(local_services.MANAGED) == "true":
            await delete(self._resources, context, DeleteOptions())
            return None
        service = self._aggregator.service(group, version)
        if service is None or service.name != key.name:
            return None
        reason, message = await self._judge(service)
        await self._tell(key, reason, message)
        return AGAIN[reason == "Passed"]

    async def _judge(self, service: Service) -> tuple[str, str]:
        """Return the reason and message of the condition Available."""
        where = f'service/{service.service} in "{service.namespace}"'
        entry = self._store.get(Key("/services", service.namespace, service.service))
        listed = self._store.get(Key("/endpoints", service.namespace, service.service))
        if entry is None and listed is None:
            return "ServiceNotFound", f"{where} is not present"
        ports = (entry.object()["spec"].get("ports") or ()) if entry is not None else ()
        name = next((one.get("name", "") for one in ports if one["port"] == service.port), None)
        if entry is not None and name is None:
            return "ServicePortError", f"{where} is not listening on port {service.port}"
        if listed is None:
            return "EndpointsNotFound", f"cannot find endpoints for {where}"
        if endpoints.resolve(self._store, service.namespace, service.service, service.port) is None:
            return "MissingEndpoints", f'endpoints for {where} have no addresses with port name "{name or ""}"'
        fault = await self._aggregator.fault(service)
        return ("FailedDiscoveryCheck", fault) if fault else ("Passed", "all checks passed")

    async def _tell(self, key: Key, reason: str, message: str) -> None:
        status = "True" if reason == "Passed" else "False"

        async def judged(obj: Object) -> Object:
            set_condition(obj, "Available", status, reason, message)
            return obj

        await modify_if_exists(self._resources, key, judged, "status")


def _of_definition(definition: Object) -> Iterator[Key]:
    spec = definition["spec"]
    for version in spec["versions"]:
        yield Key(RESOURCE, "", f"{version['name']}.{spec['group']}")
