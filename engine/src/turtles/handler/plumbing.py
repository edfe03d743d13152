# SPDX-License-Identifier: GPL-3.0-or-later
"""Connects a guest to its Pod's network: bridge, tap and NAT inside the Pod's network namespace.

Everything here can be repeated: whatever is already there is left as it is, so that an agent that was killed in the
middle continues where it stopped. What CNI gave the Pod is read once, before the first change, and kept by the caller.

The bridge in the Pod appears under its final name only when it has its address: the launcher waits for that name and
starts DHCP on it.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from turtles.api.configuration import MANAGED_TAP, TAP
from turtles.api.guests import QEMU_UID
from turtles.domain.interface_names import POD_INTERFACE, device_names
from turtles.domain.network import PASST, InterfacePlan, PodInterface
from turtles.handler import rules

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_OF_MASTER = 0x04  # NTF_MASTER of <linux/neighbour.h>
_MAIN_TABLE = 254
#: What virt-launcher, an ordinary user, may bind in its Pod: DHCP and all ports above. passt listens for the guest.
_FIRST_PORT = 67
#: The type of links that share their master's MAC, and the one that receives for its own MAC only.
_TAPS = ("tun", "macvtap")
_WITHOUT_MAC, _FILTERING = "ipvlan", "macvlan"
#: Seconds nft may take.
_NFT_TIMEOUT = 10
#: Option of ICMPv6 sockets (RFC 3542, section 3.2): the types that are blocked, one bit each; all but 133.
_ICMP6_FILTER = 1
_ONLY_SOLICITATIONS = struct.pack(
    "=8I", *(0xFFFFFFFF ^ (1 << 133 % 32 if word == 133 // 32 else 0) for word in range(8))
)
_LIBC = ctypes.CDLL(None, use_errno=True)


class PlumbingError(Exception):
    """The Pod's network could not be set up. The message says what was tried."""


class UnsuitableError(PlumbingError):
    """No guest can be connected to an interface of this type, however often it is tried."""


def in_namespace(netns: int, function: Callable[[], T]) -> T:
    """Run *function* in the network namespace of the descriptor *netns* and return what it returns.

    It runs in a thread of its own, which ends there: no other thread ever sees the Pod's network.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if _LIBC.setns(netns, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "can't enter the Pod's network namespace")
            results.append(function())
        except BaseException as error:  # it belongs to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name="plumbing", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def read_pod_interface(netns: int, name: str, of: str = "the Pod network") -> PodInterface:
    """Return what CNI gave the Pod's interface *name*; to be called before anything is changed.

    :param of: the interface's network, for messages.
    :raises PlumbingError: if there is no such interface.
    """
    return in_namespace(netns, lambda: _read(name, of))


def own_address(name: str) -> str | None:
    """Return the address of an interface of this process's own network, preferably IPv4; None if there is none.

    :raises PlumbingError: if it has no address.
    """
    with IPRoute() as ip:
        if (index := _index(ip, name)) is None:
            return None
        addresses = sorted(_addresses(ip, index), key=lambda pair: ":" in pair[0])
    if not addresses:
        raise PlumbingError(f"the interface {name} has no address")
    return addresses[0][0]


def connect(netns: int, plan: InterfacePlan, pod_interface: PodInterface) -> None:
    """Connect the guest as *plan* says.

    :raises PlumbingError: if a device or rule could not be created; calling it again is safe.
    """

    def work() -> None:
        try:
            _allow_ports(0 if plan.binding == PASST else _FIRST_PORT)
            with IPRoute() as ip:
                if plan.binding == PASST:
                    # It sends guests' pings by sockets for that.
                    _sysctl("ipv4/ping_group_range", f"{QEMU_UID} {QEMU_UID}")
                elif plan.binding in ("bridge", MANAGED_TAP):
                    _bridge_binding(ip, plan, pod_interface)
                elif plan.binding == TAP:
                    _check_tap(ip, plan)
                else:
                    _masquerade_binding(ip, plan)
        except (NetlinkError, OSError, subprocess.TimeoutExpired) as error:
            raise PlumbingError(f"interface {plan.name!r}: can't connect it to the Pod's network: {error}") from error

    in_namespace(netns, work)


def disconnect(netns: int, pod_interface: PodInterface) -> None:
    """Give the Pod's interface back as CNI left it, but for addresses: the guest has none on it any longer.

    :raises PlumbingError: if that failed; calling it again is safe.
    """
    names = device_names(pod_interface.name)

    def work() -> None:
        try:
            with IPRoute() as ip, _nft(rules.nothing(names)):
                for name in (names.tap, names.bridge):
                    if (index := _index(ip, name)) is not None:
                        ip.link("del", index=index)
                if (wire := _index(ip, names.wire)) is None:
                    return
                if (placeholder := _index(ip, pod_interface.name)) is not None:
                    ip.link("del", index=placeholder)
                ip.link("set", index=wire, state="down")
                ip.link("set", index=wire, ifname=pod_interface.name, address=pod_interface.mac)
        except (NetlinkError, OSError, subprocess.TimeoutExpired) as error:
            words = f"interface {pod_interface.name} of the Pod can't be given back: {error}"
            raise PlumbingError(words) from error

    in_namespace(netns, work)


def router_socket(netns: int) -> socket.socket:
    """Return a socket in the Pod's network for router advertisements: ICMPv6, of which it gets router solicitations.

    :raises PlumbingError: if it can't be opened.
    """

    def opened() -> socket.socket:
        try:
            return socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        except OSError as error:
            raise PlumbingError(f"router advertisements can't be sent in the Pod: {error}") from error

    opened_socket = in_namespace(netns, opened)
    opened_socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _ONLY_SOLICITATIONS)
    return opened_socket


def _read(name: str, of: str) -> PodInterface:
    with IPRoute() as ip:
        index = _index(ip, name)
        if index is None:
            raise PlumbingError(f"the Pod has no interface {name!r} of {of}; check the node's CNI configuration")
        link = ip.get_links(index)[0]
        routes = list(_gateways(ip, socket.AF_INET, index))
        return PodInterface(
            name=name,
            mac=link.get_attr("IFLA_ADDRESS"),
            addresses=tuple(_addresses(ip, index)),
            gateway=next((gateway for destination, gateway in routes if not destination), None),
            gateway6=next((gateway for to, gateway in _gateways(ip, socket.AF_INET6, index) if not to), None),
            mtu=link.get_attr("IFLA_MTU"),
            is_tap=_kind(ip, index) in _TAPS,
            routes=tuple((destination, gateway) for destination, gateway in routes if destination),
        )


def _addresses(ip: Any, index: int) -> Iterator[tuple[str, int]]:
    """Yield a link's addresses with their prefix lengths, but for those that come and go with the link."""
    for entry in ip.get_addr(index=index):
        address = entry.get_attr("IFA_ADDRESS")
        if not address.lower().startswith("fe80:"):
            yield address, entry["prefixlen"]


def _gateways(ip: Any, family: int, index: int) -> Iterator[tuple[str, str]]:
    """Yield a link's routes by a gateway: (destination with prefix length, gateway) pairs, "" for the default route."""
    for route in ip.get_routes(family=family, table=_MAIN_TABLE):
        if route.get_attr("RTA_OIF") == index and (gateway := route.get_attr("RTA_GATEWAY")):
            yield f"{route.get_attr('RTA_DST')}/{route['dst_len']}" if route["dst_len"] else "", gateway


def _index(ip: Any, name: str) -> int | None:
    indexes = ip.link_lookup(ifname=name)
    return int(indexes[0]) if indexes else None


def _kind(ip: Any, index: int) -> str:
    info = ip.get_links(index)[0].get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _add_link(ip: Any, **options: Any) -> int:
    """Create a link unless one of that name exists; return its index."""
    index = _index(ip, options["ifname"])
    if index is None:
        with contextlib.suppress(FileExistsError):
            ip.link("add", **options)
        index = _index(ip, options["ifname"])
    if index is None:
        raise PlumbingError(f"link {options['ifname']} could not be created")
    return index


def _add_address(ip: Any, index: int, address: str, prefix: int) -> None:
    try:
        ip.addr("add", index=index, address=address, prefixlen=prefix)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _derived_mac(*parts: str) -> str:
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def _sysctl(key: str, value: str) -> None:
    # /proc/sys/net shows the network namespace of the thread that opens it.
    Path("/proc/sys/net", key).write_text(value)


def _allow_ports(first: int) -> None:
    """Let ordinary users bind ports from a number on, unless they already may bind lower ones."""
    key = "ipv4/ip_unprivileged_port_start"
    if int(Path("/proc/sys/net", key).read_text()) > first:
        _sysctl(key, str(first))


def _pod_bridge(ip: Any, plan: InterfacePlan, prefix: int) -> int:
    """Create the bridge in the Pod. Its address of the link in IPv6, from which the launcher answers, is its own."""
    index = _index(ip, plan.bridge)
    if index is None:
        index = _add_link(
            ip,
            # Of the same length at most: the kernel's names have 15 characters.
            ifname=f"new-{plan.bridge.removeprefix('k6t-')}",
            kind="bridge",
            br_stp_state=0,
            address=_derived_mac(plan.guest_mac, plan.bridge),
        )
        if plan.server_ip:
            _add_address(ip, index, plan.server_ip, prefix)
        ip.link("set", index=index, mtu=plan.mtu, ifname=plan.bridge)
    if plan.guest_ip6:
        # Nobody else is there who could have its address, so that it needn't look for a second.
        for key, value in (("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")):
            _sysctl(f"ipv6/conf/{plan.bridge}/{key}", value)
        _sysctl("ipv6/conf/all/forwarding", "1")
    ip.link("set", index=index, state="up")
    if plan.guest_ip6:
        _route_ipv6(ip, plan, index)
    return index


def _route_ipv6(ip: Any, plan: InterfacePlan, bridge: int) -> None:
    """Make the Pod the guest's router: advertisements can't name another one, such as the network's own."""
    if plan.binding == "masquerade":
        if plan.gateway6:
            _add_address(ip, bridge, plan.gateway6, plan.prefix6)
        return
    network = str(IPv6Network((plan.guest_ip6, plan.prefix6), strict=False))
    ip.route("replace", family=socket.AF_INET6, dst=network, oif=bridge)
    if plan.gateway6 is not None:
        ip.route("replace", family=socket.AF_INET6, dst=f"{plan.gateway6}/128", oif=bridge)
        ip.route("replace", family=socket.AF_INET6, dst="default", gateway=plan.gateway6, oif=bridge)


def _tap(ip: Any, plan: InterfacePlan) -> int:
    """Create the guest's tap; it stays down until it is filtered and plugged into the bridge."""
    index = _index(ip, plan.tap)
    if index is None:
        several = {"ifr": {"multi_queue": True}} if plan.queues > 1 else {}
        ip.link("add", ifname=plan.tap, kind="tuntap", mode="tap", uid=QEMU_UID, **several)
        index = _index(ip, plan.tap)
    assert index is not None
    return index


def _plug(ip: Any, plan: InterfacePlan, tap: int, bridge: int) -> None:
    ip.link("set", index=tap, mtu=plan.mtu, master=bridge, state="up")


def _masquerade_binding(ip: Any, plan: InterfacePlan) -> None:
    tap = _tap(ip, plan)
    # The rules of the network name devices that need not be there yet, so nft works beside the rest.
    with _nft(rules.masquerade(plan) + rules.antispoofing(plan)):
        _sysctl("ipv4/ip_forward", "1")
        _sysctl("ipv4/conf/all/route_localnet", "1")
        bridge = _pod_bridge(ip, plan, plan.prefix)
    _plug(ip, plan, tap, bridge)


def _bridge_binding(ip: Any, plan: InterfacePlan, pod: PodInterface) -> None:
    tap = _tap(ip, plan)
    with _nft(rules.antispoofing(plan) + rules.link_of_its_own(plan)):
        bridge = _take_over(ip, plan, pod)
    _plug(ip, plan, tap, bridge)


def _check_tap(ip: Any, plan: InterfacePlan) -> None:
    """Check that a binding plugin has made the guest's tap, which isn't filtered here.

    :raises PlumbingError: it hasn't.
    """
    if _index(ip, plan.tap) is None:
        raise PlumbingError(
            f"interface {plan.name!r}: its binding plugin has domainAttachmentType tap, but its CNI plugin made no "
            f"{plan.tap} in the Pod"
        )


def _take_over(ip: Any, plan: InterfacePlan, pod: PodInterface) -> int:
    """Put the Pod's end of the wire into the bridge, without address and MAC, which are the guest's; return the bridge.

    What has the Pod's addresses instead stays down.
    """
    nic_name = plan.wire
    nic = _index(ip, nic_name)
    if nic is None:
        # The guest takes over the address and the MAC, so the Pod's end of the wire gives both up.
        nic = _index(ip, pod.name)
        if nic is None:
            raise PlumbingError(f"the Pod no longer has interface {pod.name!r}; delete the VMI to get a new Pod")
        kind = _kind(ip, nic)
        _check_suitable(plan, kind)
        ip.link("set", index=nic, state="down")
        ip.flush_addr(index=nic)
        mac = plan.guest_mac if kind == _FILTERING else _derived_mac(pod.mac, nic_name)
        ip.link("set", index=nic, ifname=nic_name, address=mac)
    # A link that stays down keeps name and address visible inside the Pod. Kernels may lack dummy links;
    # a bridge without ports is as good.
    placeholder = _index(ip, pod.name)
    if placeholder is None:
        try:
            placeholder = _add_link(ip, ifname=pod.name, kind="dummy")
        except NetlinkError:
            placeholder = _add_link(ip, ifname=pod.name, kind="bridge")
    for address, prefix in pod.addresses:
        with contextlib.suppress(NetlinkError):  # IPv6 may be off for a link that is down
            _add_address(ip, placeholder, address, prefix)
    bridge = _pod_bridge(ip, plan, 32)
    # The Pod itself must not answer for the guest's address, which the placeholder still has.
    _sysctl(f"ipv4/conf/{plan.bridge}/arp_ignore", "1")
    ip.link("set", index=nic, master=bridge, mtu=plan.mtu, state="up")
    # The wire's end must not learn the guest's MAC from frames that come back.
    ip.brport("set", index=nic, learning=0)
    if _kind(ip, nic) == _FILTERING:
        # It receives for its own MAC only, which therefore is the guest's. The bridge must not take it for the Pod's.
        try:
            ip.fdb("del", ifindex=nic, lladdr=plan.guest_mac, flags=_OF_MASTER)
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise
    return bridge


def _check_suitable(plan: InterfacePlan, kind: str) -> None:
    """Check that a guest can be connected to an interface of a type; devices of the node itself have none.

    :raises UnsuitableError: it can't.
    """
    if kind == _WITHOUT_MAC:
        raise UnsuitableError(
            f"interface {plan.name!r}: a guest can't be connected to an ipvlan interface, which has no MAC address of "
            "its own; use a network of the type bridge or macvlan"
        )
    if not kind and plan.pod_interface != POD_INTERFACE:
        raise UnsuitableError(
            f"interface {plan.name!r}: a guest can't be connected to a device of the node (host-device), which would "
            "return to the node with another name and MAC address; use a network of the type macvlan on it"
        )


@contextlib.contextmanager
def _nft(script: str) -> Iterator[None]:
    """Run the script with nft while the body runs."""
    environment = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    with subprocess.Popen(
        ["nft", "-f", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None
        try:
            # It fits into the pipe, so that nobody waits here. If nft is gone already, its status says why.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(script)
                process.stdin.close()
            process.stdin = None  # communicate() would flush it
            yield
            _, message = process.communicate(timeout=_NFT_TIMEOUT)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise PlumbingError(f"nft refused the rules: {message.strip()}")
