# SPDX-License-Identifier: GPL-3.0-or-later
"""The Service ``default/kubernetes``, which leads to the API server itself, as kube-apiserver keeps it."""

from turtles.endpoint import outgoing_address
from turtles.standalone.apiserver.builtin.service_families import family_of
from turtles.standalone.apiserver.wire.errors import Object
from turtles.standalone.well_known import SERVICE_NAME, SKIP_MIRROR

NAME = "kubernetes"
_LABELS = {"component": "apiserver", "provider": "kubernetes"}


def advertised(bind: str) -> str:
    """Return the address under which a server that listens on ``bind`` is reached.

    For a wildcard it is the one that packets leave the machine with, or loopback where there is no way out.
    """
    return outgoing_address() if bind in ("0.0.0.0", "::") else bind  # noqa: S104 - a comparison, not a bind


def objects(cluster_ip: str, address: str, port: int) -> list[tuple[str, Object]]:
    """Return the Service, its Endpoints and its EndpointSlice, each with the resource it is stored under.

    :param cluster_ip: the Service's address.
    :param address: where the server listens.
    """
    service = {
        "metadata": {"name": NAME, "labels": dict(_LABELS)},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    }
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    endpoints = {
        "metadata": {"name": NAME, "labels": {SKIP_MIRROR: "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    }
    slices = {
        "metadata": {"name": NAME, "labels": {SERVICE_NAME: NAME}},
        "addressType": family_of(address),
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": ports,
    }
    return [("/services", service), ("/endpoints", endpoints), ("discovery.k8s.io/endpointslices", slices)]
