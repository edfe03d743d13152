# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds out what of the roles' variables can't work on this machine, before anything is installed.

Reads a JSON object from standard input:

- variables, known: names of variables that are set, and of those that there are
- machine: empty where a cluster is installed to, else an object with
  - instance, node_name, api_bind, api_port, virt_api_port, metrics_bind, metrics_ports, bridge, pod_cidr,
    pod_cidr_ipv6, service_cidr, service_cidr_ipv6, external_addresses, more_nodes: values of the roles' variables
  - own: a folder that the command line of each service of this installation names
  - config_dir: the folder of its configuration

Writes a JSON list of sentences, each with the variable, its value, what is wrong, and what to do; empty if all is well.
Needs nothing but Python's standard library. The addresses of the machine are read with iproute2's `ip` where it is
installed.
"""

import difflib
import errno
import ipaddress
import itertools
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

# The state TCP_LISTEN in /proc/net/tcp (Linux, include/net/tcp_states.h).
LISTEN = "0A"
# What may serve metrics at a port.
MEASURED = ("virt-api", "virt-controller", "virt-handler")
# How alike a name must be to one that there is, to be taken for a slip of the keys (0 to 1), by its first letters. The
# more others may have variables that begin so, the more alike.
ALIKE = {"turtles_": 0.8, "kubevirt_": 0.9, "": 0.95}


def judge(wanted):
    """Yield what is wrong."""
    yield from misspelt(wanted["variables"], wanted["known"])
    if wanted["machine"]:
        yield from machine(wanted["machine"])


def machine(wanted):
    """Yield what can't work on this machine."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", wanted["instance"]):
        yield (
            f"turtles_instance is {wanted['instance']!r}: lower case letters, digits and hyphens within it only, since "
            "paths and names of services are made of it."
        )
    if not re.fullmatch(r"[^/\s:]{1,15}", wanted["bridge"]) or wanted["bridge"] in (".", ".."):
        yield (
            f"turtles_bridge is {wanted['bridge']!r}: name an interface of at most 15 characters, without slash, colon "
            "or space."
        )
    yield from node_names(wanted)
    yield from ports(wanted)
    yield from networks(wanted)


def node_names(wanted):
    """Yield names that no node can have, or that two have."""
    first = [("turtles_node_name", wanted["node_name"])] if wanted.get("node_name") else []
    names = [*first, *(("the name of a node in turtles_more_nodes", node["name"]) for node in wanted["more_nodes"])]
    for number, (variable, name) in enumerate(names):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", str(name)):
            yield (
                f"{variable} is {name!r}: lower case letters, digits, hyphens and dots only, which it neither begins "
                "nor ends with, and at most 63 characters."
            )
        elif name in [other for _variable, other in names[:number]]:
            yield f"{variable} is {name!r}, as another one's: give each node a name of its own."


def misspelt(variables, known):
    """Yield variables that nobody reads though one of nearly the same name is read."""
    for name in sorted(set(variables) - set(known)):
        alike = min(limit for prefix, limit in ALIKE.items() if name.startswith(prefix))
        for meant in difflib.get_close_matches(name, known, 1, alike):
            yield f"{name} is not a variable of these roles. Is {meant} meant?"


def ports(wanted):
    """Yield what is wrong with the ports, each of which must be free, or this installation's."""
    named = [
        ("turtles_api_port", wanted["api_bind"], wanted["api_port"]),
        ("turtles_virt_api_port", "127.0.0.1", wanted["virt_api_port"]),
    ]
    for component, port in (wanted.get("metrics_ports") or {}).items():
        variable = f"turtles_metrics_ports[{component}]"
        if component not in MEASURED:
            yield f"{variable}: there is no such component. There are {', '.join(MEASURED)}."
        elif not re.fullmatch(r"[0-9]{1,5}", str(port)):
            yield f"{variable} is {port!r}: ports are numbers from 1 to 65535."
        else:
            named.append((variable, wanted.get("metrics_bind") or "0.0.0.0", int(port)))
    twice = {port for _variable, _address, port in named if [one for _name, _place, one in named].count(port) > 1}
    if wanted["api_port"] != wanted["virt_api_port"]:
        for port in sorted(twice):
            names = [name for name, _address, one in named if one == port]
            yield f"{' and '.join(names)} are all {port}: each needs its own."
    if wanted["api_port"] == wanted["virt_api_port"]:
        yield (
            f"turtles_api_port and turtles_virt_api_port are both {wanted['api_port']}: API server and virt-api need a "
            "port each."
        )
        return
    for variable, address, port in named:
        if not 1 <= port <= 65535:
            yield f"{variable} is {port}: ports are numbers from 1 to 65535."
            continue
        failure = 0 if port in twice else bound(address, port)
        if failure == errno.EADDRINUSE:
            user = listener(port)
            if wanted["own"] not in user:
                yield (
                    f"{variable} is {port}, which is in use on this machine by {user or 'another process'}. Choose "
                    f"another port, or stop that one."
                )
        elif failure and variable == "turtles_api_port":
            yield (
                f"turtles_api_bind is {address}, where nothing can listen on this machine: {errno_text(failure)}. Use "
                "an address of the machine, or 0.0.0.0 for all."
            )


def bound(address, port):
    """The errno with which listening there fails, 0 if it doesn't."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((address, port))
            tried.listen()
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return 0


def errno_text(number):
    """The words for an errno; those of resolving names are negative."""
    return "no such address" if number < 0 else OSError(number, "").strerror or errno.errorcode.get(number, str(number))


def listener(port):
    """The command line of who listens on a port, and its process; empty if that can't be found out."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if inodes & set(map(target, (process / "fd").iterdir())):
                words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
                return f"{words} (process {process.name})"
        except OSError:
            continue  # ended meanwhile, or another user's
    return ""


def target(link):
    """Where a link leads; nowhere if it is gone."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def ipv6_networks(wanted):
    """Yield what is wrong with the IPv6 addresses of Pods and Services."""
    named = [("turtles_pod_cidr_ipv6", wanted.get("pod_cidr_ipv6"))]
    named += [
        (f"pod_cidr_ipv6 of turtles_more_nodes {node['name']}", node.get("pod_cidr_ipv6"))
        for node in wanted["more_nodes"]
    ]
    named.append(("turtles_service_cidr_ipv6", wanted.get("service_cidr_ipv6")))
    if wanted.get("service_cidr_ipv6") and not wanted.get("pod_cidr_ipv6"):
        yield (
            f"turtles_service_cidr_ipv6 is {wanted['service_cidr_ipv6']}, and Pods have no IPv6 addresses: set "
            "turtles_pod_cidr_ipv6 as well, or leave both out."
        )
    found = {}
    for variable, text in named:
        if not text:
            continue
        try:
            network = ipaddress.IPv6Network(text)
        except ValueError as error:
            yield (
                f"{variable} is {text!r}, which isn't an IPv6 network: {error}. Write one such as fd00:10:244::/64, or "
                "leave it out."
            )
            continue
        if network.prefixlen > 120:
            yield f"{variable} is {text}: too few addresses; use /120 or a larger network."
        for another, other in found.items():
            if network.overlaps(other):
                yield (
                    f"{variable} {network} and {another} {other} overlap: give Services and the Pods of each node a "
                    "network of their own."
                )
        found[variable] = network


def networks(wanted):
    """Yield what is wrong with the addresses of Pods and Services."""
    found, bridges = {}, {wanted["bridge"]}
    named = [
        ("turtles_pod_cidr", wanted["pod_cidr"], 29, "Pods"),
        ("turtles_service_cidr", wanted["service_cidr"], 28, "Services"),
    ]
    for number, node in enumerate(wanted["more_nodes"], 1):
        named.append((f"pod_cidr of turtles_more_nodes {node['name']}", node["pod_cidr"], 29, "Pods"))
        bridges.add(node.get("bridge") or re.sub("[0-9]+$", "", wanted["bridge"]) + str(number))
    yield from ipv6_networks(wanted)
    for variable, text, smallest, size in named:
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError as error:
            hint = "such as 10.244.0.0/16"
            if re.fullmatch(r"[0-9.]+/[0-9]+", text) and "host bits" in str(error):
                hint = f"such as {ipaddress.IPv4Network(text, strict=False)}"
            yield f"{variable} is {text!r}, which isn't an IPv4 network: {error}. Write one {hint}."
            continue
        if network.prefixlen > smallest:
            yield f"{variable} is {text}: too few addresses for {size}; use /{smallest} or a larger network."
        found[variable] = network
    for (one, network), (another, other) in itertools.combinations(found.items(), 2):
        if network.overlaps(other):
            yield (
                f"{one} {network} and {another} {other} overlap: give Services and the Pods of each node a network of "
                "their own."
            )
    for text in wanted["external_addresses"]:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            yield (
                f"turtles_external_addresses has {text!r}, which is no address or network: {error}. Write one "
                "such as 192.0.2.10 or 192.0.2.32/28."
            )
    for variable, network in found.items():
        if variable == "turtles_service_cidr" and is_served(network, wanted["config_dir"]):
            continue
        for interface, other in present(network, bridges):
            if network.overlaps(other):
                yield (
                    f"{variable} is {network}, which overlaps {other} on the interface {interface} of this machine: "
                    "what is there could no longer be reached. Choose a network that isn't used here."
                )
                break


def is_served(network, folder):
    """Whether this installation has Services there already: there is a route then, on the loopback interface."""
    try:
        return str(network) in Path(folder, "podrunner.yml").read_text()
    except OSError:
        return False


def present(wanted, bridges):
    """Networks of this machine with their interface, but for those of the Pods' bridges.

    Those it has addresses in, and those it has routes to; of the latter not those of which `wanted` is but a part: a
    route to all of 10.0.0.0/8 is no reason against a part of it that nobody uses.
    """
    found = []
    for words in map(str.split, ip("route", "show", "table", "all", "type", "unicast")):
        if words and words[0] != "default" and "dev" in words:
            found.append((words[words.index("dev") + 1], words[0], "via" in words))
    for words in map(str.split, ip("-oneline", "address", "show")):
        if "inet" in words:
            found.append((words[1], words[words.index("inet") + 1], False))
    for interface, text, routed in found:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            continue
        larger = routed and network.prefixlen < wanted.prefixlen
        if interface.partition("@")[0] not in bridges and not network.is_loopback and not larger:
            yield interface, network


def ip(*arguments):
    """Lines that `ip -4 …` says; none where it isn't installed."""
    try:
        done = subprocess.run(["ip", "-4", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return []
    return done.stdout.splitlines()


if __name__ == "__main__":
    print(json.dumps(list(judge(json.load(sys.stdin)))))
