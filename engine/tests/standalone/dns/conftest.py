# SPDX-License-Identifier: GPL-3.0-or-later
"""Services and EndpointSlices as the API server has them, in caches like informers'."""

import pytest

from turtles.standalone.dns import zone
from turtles.standalone.dns.zone import Zone


class Cache:
    """An informer that is filled by hand."""

    def __init__(self, objects, **indices):
        self.objects, self.indices = objects, indices

    def get(self, namespace, name):
        for obj in self.objects:
            if (obj["metadata"]["namespace"], obj["metadata"]["name"]) == (namespace, name):
                return obj
        return None

    def by_index(self, index, value):
        return [obj for obj in self.objects if value in self.indices[index](obj)]


def service(name, *, namespace="shop", ports=(("http", 80),), **spec):
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "ports": [{"name": name, "port": port} for name, port in ports], **spec},
    }


def endpoint_slice(of, *endpoints, namespace="shop", ports=(("http", 8080),), family="IPv4"):
    return {
        "metadata": {"name": f"{of}-x", "namespace": namespace, "labels": {"kubernetes.io/service-name": of}},
        "addressType": family,
        "endpoints": [
            {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}
            | ({"hostname": hostname} if hostname else {})
            for address, hostname, ready in endpoints
        ],
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports],
    }


SERVICES = [
    service("web", clusterIP="10.96.0.5", clusterIPs=["10.96.0.5", "fd00::5"], ports=(("http", 80), ("https", 443))),
    service("db", clusterIP="None", ports=(("sql", 5432),)),
    service("empty", clusterIP="None"),
    service("outside", type="ExternalName", externalName="www.example.org", ports=()),
    service("inside", type="ExternalName", externalName="web.shop.svc.cluster.local", ports=()),
    service("loop", type="ExternalName", externalName="loop.shop.svc.cluster.local", ports=()),
]
SLICES = [
    endpoint_slice("web", ("10.244.0.7", "", True)),
    endpoint_slice(
        "db",
        ("10.244.0.8", "one", True),
        ("10.244.0.9", "", None),
        ("10.244.0.10", "three", False),
        ports=(("sql", 5433),),
    ),
]


@pytest.fixture
def cluster():
    """A zone with some Services."""
    return Zone(
        "cluster.local",
        Cache(SERVICES, address=zone.cluster_ips, namespace=zone.namespace_of),
        Cache(SLICES, service=zone.service_of, address=zone.named_addresses),
    )
