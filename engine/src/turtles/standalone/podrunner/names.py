# SPDX-License-Identifier: GPL-3.0-or-later
"""How a Pod finds others by name: its /etc/hosts and /etc/resolv.conf, as the kubelet writes them."""

from turtles.api.objects import Object
from turtles.standalone.dns import addresses
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import hostname

#: A resolv.conf has no use for more (resolv.conf(5)).
_MAX_SERVERS = 3
#: Names with fewer dots are tried below the search domains first, so that ``web.shop.svc`` is found.
_NDOTS = "ndots:5"


def hosts_file(pod: Object, config: Config, address: str) -> str:
    """Return /etc/hosts.

    :param address: the Pod's; empty if it has none.
    """
    domain = config.dns.domain if config.dns is not None else addresses.DOMAIN
    name, spec = hostname(pod), pod["spec"]
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    own = name
    if spec.get("subdomain"):
        own = f"{name}.{spec['subdomain']}.{pod['metadata']['namespace']}.svc.{domain}\t{name}"
    lines.append(f"{address or '127.0.1.1'}\t{own}")
    for alias in spec.get("hostAliases") or []:
        lines.append(f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}")
    return "\n".join(lines) + "\n"


def resolv_conf(pod: Object, config: Config, host: str, cni_dns: Object) -> str:
    """Return /etc/resolv.conf, by the Pod's dnsPolicy and dnsConfig.

    :param host: content of the host's file.
    :param cni_dns: what the Pod's network says about DNS, which goes before what the host says.
    """
    spec = pod["spec"]
    servers, searches, options = _by_policy(pod, config, host, cni_dns)
    extra = spec.get("dnsConfig") or {}
    servers += [server for server in extra.get("nameservers") or [] if server not in servers]
    searches += [search for search in extra.get("searches") or [] if search not in searches]
    given = {entry["name"]: entry.get("value") for entry in extra.get("options") or []}
    options = [option for option in options if option.partition(":")[0] not in given]
    options += [f"{name}:{value}" if value else name for name, value in given.items()]
    lines = [f"nameserver {server}" for server in servers[:_MAX_SERVERS]]
    lines += [f"search {' '.join(searches)}"] if searches else []
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"


def _by_policy(pod: Object, config: Config, host: str, cni_dns: Object) -> tuple[list[str], list[str], list[str]]:
    """Return name servers, search domains and options."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "None":
        return [], [], []
    servers, searches, options = _of_host(host, cni_dns)
    of_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not spec.get("hostNetwork"))
    if of_cluster and config.dns is not None:
        inside = f"svc.{config.dns.domain}"
        own = [f"{pod['metadata']['namespace']}.{inside}", inside, config.dns.domain]
        return [config.dns.server], own + searches, [_NDOTS]
    return servers, searches, options


def _of_host(host: str, cni_dns: Object) -> tuple[list[str], list[str], list[str]]:
    """Return what Pods have without the cluster's DNS. On loopback nothing listens in a Pod."""
    servers = list(cni_dns.get("nameservers") or [])
    searches, options = list(cni_dns.get("search") or []), list(cni_dns.get("options") or [])
    for line in () if servers else host.splitlines():
        match line.split():
            case ["nameserver", server, *_] if not server.startswith(("127.", "::1")):
                servers.append(server)
            case ["search" | "domain", *found]:
                searches = found
            case ["options", *found]:
                options = found
    return servers, searches, options
