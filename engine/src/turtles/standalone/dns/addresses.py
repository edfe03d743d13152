# SPDX-License-Identifier: GPL-3.0-or-later
"""Where DNS is served, and the objects that say so."""

from ipaddress import IPv4Network

from turtles.api.objects import Object
from turtles.standalone.well_known import SERVICE_NAME

#: As with kubeadm and others: tools look for these.
NAMESPACE, NAME = "kube-system", "kube-dns"
#: The cluster's domain, if nothing else is said.
DOMAIN = "cluster.local"
_LABELS = {"k8s-app": "kube-dns", "kubernetes.io/name": "KubeDNS"}


def cluster_ip(service_cidr: str) -> str:
    """Return the cluster IP of DNS: the tenth address, or the last one of a small range."""
    network = IPv4Network(service_cidr)
    return str(network[min(10, network.num_addresses - 2)])


def gateway(pod_cidr: str) -> str:
    """Return the address at which Pods reach their machine: the bridge plugin's, the first one."""
    return str(IPv4Network(pod_cidr)[1])


def manifests(service_cidr: str, address: str, port: int) -> list[Object]:
    """Return the Service of DNS and its endpoints.

    :param address: where the server listens.
    """
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": _LABELS}
    names = (("dns", "UDP"), ("dns-tcp", "TCP"))
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": cluster_ip(service_cidr),
                "ports": [
                    {"name": name, "protocol": protocol, "port": 53, "targetPort": port} for name, protocol in names
                ],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {**_LABELS, SERVICE_NAME: NAME}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol in names],
        },
    ]
