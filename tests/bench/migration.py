# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a live migration takes and how long the guest is away, beside plain libvirt in the same run.

The peer is the same domain in one of two network namespaces with a libvirtd each, which migrates it to the other one,
peer to peer over Unix sockets, disk and memory, with the engine's flags. It gets its target's disk, bridge and tap
ready outside the clock, and doesn't encrypt: it shows what libvirt and QEMU alone need. The engine's total is the
user's, from the creation of the migration until it has succeeded: it includes API, scheduling, the target's Pod, its
network and disks, TLS, and the status with the new address. Engine and peer take turns, there and back, so that what
else the machine does falls on both.

Downtime is libvirt's own word, and next to it the longest time without a ping of the guest, which includes the network.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import history
import libvirt
from kubernetes import client, config
from kubernetes.watch import Watch
from peer import GID, UID, adapted, libvirtd_command, prepare_libvirtd, scratch, unpacked_disk, until

#: Where guests send their pings: an address of this machine that nobody else uses.
TARGET = "198.51.100.254"
PING = f"ping -i 0.02 {TARGET} >/dev/null 2>&1 </dev/null &"
#: The first half of the peer's addresses outside.
_PEER_NETWORK = bytes((10, 253))
#: Fills memory with what can't be compressed, again and again.
WRITER = "while :; do dd if=/dev/urandom of=/tmp/junk bs=64k count=64; done >/dev/null 2>&1 </dev/null &"
START_LIMIT, MIGRATION_LIMIT = 90, 120
PHASES = ("Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running", "Succeeded")
#: As the engine does by default (KubeVirt's maxDowntimeMs).
MAX_DOWNTIME_MS = 900


@dataclass
class Move:
    """One migration, in seconds. ``phases`` are the engine's, by the time at which each was seen."""

    total: float
    downtime: float
    outage: float
    transfer: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)


class Pings:
    """Listens to the guests' pings, and tells them apart by where they come from."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._seen: list[tuple[float, bool]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        wanted = socket.inet_aton(TARGET)
        while True:
            packet = self._socket.recv(2048)
            if packet[16:20] == wanted and packet[20] == 8:  # an echo request
                self._seen.append((time.monotonic(), packet[12:14] == _PEER_NETWORK))

    def longest_gap(self, since: float, *, peer: bool) -> float:
        """The longest time without one of the engine's guest, or of the peer's."""
        times = [moment for moment, of_peer in self._seen if moment >= since and of_peer is peer]
        return max((after - before for before, after in zip(times, times[1:], strict=False)), default=float("nan"))


@contextlib.contextmanager
def ping_target() -> Iterator[None]:
    """The address that guests ping."""
    subprocess.run(["ip", "addr", "add", f"{TARGET}/32", "dev", "lo"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "addr", "del", f"{TARGET}/32", "dev", "lo"], check=False)


def shell(prefix: list[str], key: Path, address: str, command: str) -> None:
    """Run a command in a guest, once its SSH server answers."""
    ssh = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    words = [*prefix, *ssh, "-o", "ConnectTimeout=5", "-i", str(key), f"root@{address}", command]
    if not until(lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0, START_LIMIT, 0.5):
        raise TimeoutError(f"the guest at {address} can't be reached within {START_LIMIT} s")


def completed(domain: libvirt.virDomain) -> tuple[float, float]:
    """How long libvirt says that a migration took which has brought a domain here, and how long its guest stood."""
    found = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    return found["time_elapsed"] / 1000, found["downtime"] / 1000


class Engine:
    """The installed engine with one machine, through its API."""

    def __init__(self, instance: str, image: str, key: Path, pings: Pings) -> None:
        self.instance, self.image, self.key, self.pings = instance, image, key, pings
        self.namespace = f"bench-{uuid.uuid4().hex[:6]}"
        api = config.new_client_from_config(f"/etc/{instance}/admin.kubeconfig")
        self.custom, self.core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def __enter__(self) -> Self:
        self.core.create_namespace({"metadata": {"name": self.namespace}})
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.core.delete_namespace(self.namespace)
        until(lambda: not self.core.list_namespaced_pod(self.namespace).items, START_LIMIT, 0.2)

    def _start(self) -> None:
        public = self.key.with_suffix(".pub").read_text().strip()
        seed = base64.b64encode(f"#cloud-config\nssh_authorized_keys:\n  - {public}\n".encode()).decode()
        disks = [{"name": name, "disk": {"bus": "virtio"}} for name in ("root", "seed")]
        spec = {
            "terminationGracePeriodSeconds": 0,
            "domain": {
                "memory": {"guest": "128Mi"},
                "devices": {"disks": disks, "interfaces": [{"name": "default", "masquerade": {}}]},
            },
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [
                {"name": "root", "containerDisk": {"image": self.image}},
                {"name": "seed", "cloudInitNoCloud": {"userDataBase64": seed}},
            ],
        }
        machine = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "guest"},
            "spec": spec,
        }
        self.custom.create_namespaced_custom_object(
            "kubevirt.io", "v1", self.namespace, "virtualmachineinstances", machine
        )
        if not until(self._is_migratable, START_LIMIT, 0.2):
            raise TimeoutError(f"the machine doesn't run, or can't be migrated: {self._vmi().get('status')}")

    def _vmi(self) -> dict[str, Any]:
        return self.custom.get_namespaced_custom_object(
            "kubevirt.io", "v1", self.namespace, "virtualmachineinstances", "guest"
        )

    def _is_migratable(self) -> bool:
        conditions = self._vmi().get("status", {}).get("conditions") or ()
        return any(each["type"] == "LiveMigratable" and each["status"] == "True" for each in conditions)

    def run(self, command: str) -> None:
        shell([], self.key, self._vmi()["status"]["interfaces"][0]["ipAddress"], command)

    @contextlib.contextmanager
    def domain(self) -> Iterator[libvirt.virDomain]:
        """The guest's domain, where it is now."""
        status = self._vmi()["status"]
        (uid,) = [uid for uid, node in status["activePods"].items() if node == status["nodeName"]]
        # a socket's path has at most 107 bytes
        short = os.open(self._pod(uid) / "volumes/kubernetes.io~empty-dir/sockets", os.O_PATH)
        connection = libvirt.open(f"qemu+unix:///session?socket=/proc/self/fd/{short}/libvirt-sock")
        try:
            (domain,) = connection.listAllDomains()
            yield domain
        finally:
            connection.close()
            os.close(short)

    def seed(self) -> Path:
        """The guest's cloud-init seed."""
        (uid,) = self._vmi()["status"]["activePods"]
        return next(self._pod(uid).rglob("noCloud.iso"))

    def _pod(self, uid: str) -> Path:
        """The folder of a Pod, on whichever node it is."""
        base = Path(f"/var/lib/{self.instance}")
        (pod,) = (each for each in (*base.glob(f"kubelet/pods/{uid}"), *base.glob(f"nodes/*/kubelet/pods/{uid}")))
        return pod

    def migrate(self) -> Move:
        kind = ("kubevirt.io", "v1", self.namespace, "virtualmachineinstancemigrations")
        version = self.custom.list_namespaced_custom_object(*kind)["metadata"]["resourceVersion"]
        body = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {"generateName": "move-"},
            "spec": {"vmiName": "guest"},
        }
        begun, phases = time.monotonic(), {}
        name = self.custom.create_namespaced_custom_object(*kind, body)["metadata"]["name"]
        for event in Watch().stream(
            self.custom.list_namespaced_custom_object, *kind, resource_version=version, timeout_seconds=MIGRATION_LIMIT
        ):
            migration = event["object"]
            phase = migration.get("status", {}).get("phase", "")
            if migration["metadata"]["name"] != name or phase in phases:
                continue
            phases[phase] = time.monotonic() - begun
            if phase == "Failed":
                raise RuntimeError(f"the migration failed: {migration['status']}")
            if phase == "Succeeded":
                break
        else:
            raise TimeoutError(f"no end of the migration within {MIGRATION_LIMIT} s: {phases}")
        with self.domain() as domain:
            transfer, downtime = completed(domain)
        time.sleep(1)  # for the pings that follow the last gap
        return Move(phases["Succeeded"], downtime, self.pings.longest_gap(begun, peer=False), transfer, phases)


class Side:
    """A network namespace with a libvirtd: bridge, DHCP and NAT, as the engine's Pods have them."""

    def __init__(self, number: int, folder: Path, shared: Path, *, kvm: bool) -> None:
        self.name, self.folder, self.shared, self.kvm = f"tbench{number}", folder, shared, kvm
        self.outside, self.inside = f"10.253.{number}.1", f"10.253.{number}.2"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connection: libvirt.virConnect | None = None

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        prepare_libvirtd(self.folder)
        here, name = ["ip", "-n", self.name], self.name
        for command in (
            ["ip", "netns", "add", name],
            ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name],
            ["ip", "addr", "add", f"{self.outside}/30", "dev", name],
            ["ip", "link", "set", name, "up"],
            [*here, "addr", "add", f"{self.inside}/30", "dev", "eth0"],
            [*here, "link", "set", "eth0", "up"],
            [*here, "link", "set", "lo", "up"],
            [*here, "route", "add", "default", "via", self.outside],
            # with the same MAC on both sides, or the guest would look for its gateway first
            [*here, "link", "add", "br0", "address", "02:aa:bb:cc:00:00", "type", "bridge"],
            [*here, "addr", "add", "10.0.2.1/24", "dev", "br0"],
            [*here, "link", "set", "br0", "up"],
            [*here, "tuntap", "add", "tap0", "mode", "tap", "user", str(UID)],
            [*here, "link", "set", "tap0", "master", "br0", "up"],
            self._inside("sysctl", "-qw", "net.ipv4.ip_forward=1"),
            self._inside("nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; };"),
            self._inside("nft", "add rule ip nat out oifname eth0 masquerade"),
        ):
            subprocess.run(command, check=True)
        self._spawn(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file=", "--user=root"),
            *("--interface=br0", "--bind-interfaces", "--no-ping", "--dhcp-range=10.0.2.2,10.0.2.2,1h"),
            *(f"--dhcp-leasefile={self.folder}/leases", "--log-facility=-"),
        )
        disks = self.folder / "disks"
        self._spawn(*libvirtd_command(self.folder, kvm=self.kvm, mounts=[(disks, self.shared)]))
        if not until(self._connect, START_LIMIT):
            raise TimeoutError(f"libvirtd didn't answer within {START_LIMIT} s; see {self.folder}")

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                for domain in self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                    domain.destroy()
                self._connection.close()
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        for command in (["ip", "link", "del", self.name], ["ip", "netns", "del", self.name]):
            subprocess.run(command, check=False, capture_output=True)

    def _inside(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def _spawn(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.log").open("wb")
        words = self._inside(*command)
        self._processes.append(subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def _connect(self) -> bool:
        with contextlib.suppress(libvirt.libvirtError):
            self._connection = libvirt.open(self.uri)
        return self._connection is not None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///session?socket={self.folder}/run/libvirt-sock"

    @property
    def connection(self) -> libvirt.virConnect:
        assert self._connection is not None
        return self._connection

    def make_disks(self, base: Path, seed: Path) -> None:
        """Make the guest's disks: an overlay that nothing is written to, and the seed."""
        disks = self.folder / "disks"
        (disks / "disk.qcow2").unlink(missing_ok=True)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(disks / "disk.qcow2")]
        subprocess.run(command, check=True)
        shutil.copyfile(seed, disks / "seed.iso")
        for path in disks.iterdir():
            os.chown(path, UID, GID)

    def run(self, key: Path, command: str) -> None:
        shell(self._inside(), key, "10.0.2.2", command)


class Peer:
    """Plain libvirt on two sides, with the engine's domain."""

    def __init__(self, folder: Path, base: Path, seed: Path, xml: str, key: Path, pings: Pings) -> None:
        self.folder, self.base, self.seed, self.xml, self.key, self.pings = folder, base, seed, xml, key, pings
        self._stack = ExitStack()
        # Both sides have their own files there
        self.shared = folder / "shared"

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.shared.mkdir(parents=True)
            os.chown(self.folder, UID, GID)  # QEMU makes its sockets there
            kvm = "type='kvm'" in self.xml
            self.sides = [
                stack.enter_context(Side(number, self.folder / f"side{number}", self.shared, kvm=kvm))
                for number in range(2)
            ]
            files = [self.shared / "disk.qcow2", self.shared / "seed.iso"]
            domain = adapted(self.xml, "guest", files, "tap0", "02:aa:bb:cc:00:01", self.shared)
            self.copied = [
                disk.find("target").get("dev")  # type: ignore[union-attr]
                for disk in ET.fromstring(domain).iterfind("devices/disk")
                if disk.find("readonly") is None
            ]
            self.sides[0].make_disks(self.base, self.seed)
            self.sides[0].connection.defineXML(domain).create()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, command: str) -> None:
        self.sides[0].run(self.key, command)

    def migrate(self) -> Move:
        source, target = self.sides
        target.make_disks(self.base, self.seed)
        parameters = {
            libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{self.folder}/memory",
            libvirt.VIR_MIGRATE_PARAM_DISKS_URI: f"unix://{self.folder}/disks",
            libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS: self.copied,
        }
        flags = (
            libvirt.VIR_MIGRATE_LIVE
            | libvirt.VIR_MIGRATE_PEER2PEER
            | libvirt.VIR_MIGRATE_PERSIST_DEST
            | libvirt.VIR_MIGRATE_UNSAFE
            | libvirt.VIR_MIGRATE_NON_SHARED_INC
            | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        )
        domain = source.connection.lookupByName("guest")
        domain.migrateSetMaxDowntime(MAX_DOWNTIME_MS)
        begun = time.monotonic()
        domain.migrateToURI3(target.uri, parameters, flags)
        total = time.monotonic() - begun
        transfer, downtime = completed(target.connection.lookupByName("guest"))
        self.sides.reverse()
        time.sleep(1)  # for the pings that follow the last gap
        return Move(total, downtime, self.pings.longest_gap(begun, peer=True), transfer)


def report(title: str, engine: list[Move], peer: list[Move]) -> dict[str, float]:
    """Print one row per measure: medians and the longest of both, and the ratio of the medians, which is returned."""
    ratios = {}
    for measure, ours, theirs in (
        ("total", [each.total for each in engine], [each.total for each in peer]),
        ("  transfer", [each.transfer for each in engine], [each.transfer for each in peer]),
        ("downtime", [each.downtime for each in engine], [each.downtime for each in peer]),
        ("without a ping", [each.outage for each in engine], [each.outage for each in peer]),
    ):
        one, other = statistics.median(ours), statistics.median(theirs)
        ratios[f"{title}, {measure.strip()}"] = one / other
        print(
            f"{title:>8}  {measure:<15} {one:7.2f} {max(ours):7.2f} {other:9.2f} {max(theirs):7.2f} {one / other:7.2f}"
        )
    seen = {phase: statistics.median(move.phases.get(phase, 0.0) for move in engine) for phase in PHASES}
    print(f"{title:>8}  the engine's phases, seconds from the creation: ", end="")
    print(", ".join(f"{phase} {moment:.2f}" for phase, moment in seen.items()), flush=True)
    return ratios


def main() -> int:
    """Measure and print; 0 always, as figures are for reading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--instance", required=True, help="turtles_instance of the installed engine, which has two nodes"
    )
    parser.add_argument("--image", required=True, help="reference of the guest's container disk")
    parser.add_argument("--rounds", type=int, default=6, help="migrations of each, idle and with a writer")
    options = parser.parse_args()
    libvirt.registerErrorHandler(lambda *_: None, None)  # they come as exceptions
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # tidies up, as Ctrl-C does
    with scratch() as folder, ping_target(), ExitStack() as stack:
        key, pings = folder / "key", Pings()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        engine = stack.enter_context(Engine(options.instance, options.image, key, pings))
        base, seed = folder / "base.qcow2", folder / "seed.iso"
        shutil.copyfile(unpacked_disk(options.instance), base)
        shutil.copyfile(engine.seed(), seed)
        base.chmod(0o644)
        with engine.domain() as domain:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        peer = stack.enter_context(Peer(folder / "peer", base, seed, xml, key, pings))
        print(f"{'seconds':>8}  {'':<15} {'engine':>7} {'max':>7} {'libvirt':>9} {'max':>7} {'ratio':>7}")
        ratios: dict[str, float] = {}
        for title, command in (("idle", PING), ("writer", WRITER)):
            found: dict[str, list[Move]] = {"engine": [], "peer": []}
            for guest in (engine, peer):
                guest.run(command)
            for _round in range(options.rounds):
                for name, guest in (("engine", engine), ("peer", peer)):
                    found[name].append(guest.migrate())
            ratios |= report(title, found["engine"], found["peer"])
    history.record("migration", {"rounds": options.rounds}, ratios)
    return 0


if __name__ == "__main__":
    sys.exit(main())
