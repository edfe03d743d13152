#!/usr/bin/env python3
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a virtual machine takes to run and to answer, and what it costs, beside plain libvirt in the same run.

The peer defines and starts the domain the engine made (same XML but for names, paths and addresses) in one private
libvirtd, on a bridge with dnsmasq. It gets its overlays, seeds and taps ready beforehand, outside the clock: it shows
what libvirt and QEMU alone need, the engine's figure includes API, scheduling, Pod, network and disks. Engine and peer
take turns, so that what else the machine does falls on both. What has been measured is printed at once.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import math
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import history
import libvirt
from kubernetes import client, config
from kubernetes.watch import Watch
from peer import GID, UID, adapted, libvirtd_command, prepare_libvirtd, scratch, unpacked_disk, until

PEER_BRIDGE, PEER_ADDRESS, PEER_RANGE = "turtlespeer0", "10.251.0.1/24", "10.251.0.50,10.251.0.250"
# Seconds until machines must run, until their SSH servers must have answered, until they must be gone.
RUN_LIMIT, SSH_LIMIT, REMOVE_LIMIT = 60, 90, 60
#: For each machine the seconds to running and to its SSH banner: infinite if there was none, None if nobody waited.
Times = list[tuple[float, float | None]]


def banner(address: str) -> bool:
    """Whether the SSH server at the address says who it is."""
    with contextlib.suppress(OSError), socket.create_connection((address, 22), 1) as connection:
        connection.settimeout(5)
        return connection.recv(4) == b"SSH-"
    return False


def answers(names: list[str], address: Callable[[str], str | None], begun: float) -> dict[str, float]:
    """For each machine the seconds from a moment until its SSH server answered, infinite if it didn't in time.

    An address may be unknown (None) at first. The threads are left behind when this is interrupted.
    """
    found = dict.fromkeys(names, math.inf)

    def wait(name: str) -> None:
        def here() -> bool:
            known = address(name)
            return known is not None and banner(known)

        if until(here, SSH_LIMIT):
            found[name] = time.monotonic() - begun

    threads = [threading.Thread(target=wait, args=[name], daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@dataclass(frozen=True)
class Usage:
    """What a process has used: processor time in seconds, with its children that ended; how often it woke up."""

    seconds: float = 0.0
    wakeups: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.seconds + other.seconds, self.wakeups + other.wakeups)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.seconds - other.seconds, self.wakeups - other.wakeups)


def usage(process: Path) -> Usage:
    """What a process has used so far; nothing if it has ended."""
    with contextlib.suppress(OSError):
        # Its name, in parentheses, may have spaces. Then 14 to 17 of proc(5) are 11 to 14.
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks = sum(map(int, fields[11:15]))
        lines = (line for task in process.glob("task/*/status") for line in task.read_text().splitlines())
        wakeups = sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
        return Usage(ticks / os.sysconf("SC_CLK_TCK"), wakeups)
    return Usage()


@dataclass(frozen=True)
class Cost:
    """What the engine's components and the programs in Pods have used, by name, and how many requests were answered."""

    used: dict[str, Usage]
    requests: float

    def since(self, before: Cost) -> Cost:
        """What came to it."""
        used = {name: value - before.used.get(name, Usage()) for name, value in self.used.items()}
        return Cost(used, self.requests - before.requests)


class Engine:
    """The installed engine, through its API."""

    def __init__(self, kubeconfig: str, instance: str, image: str) -> None:
        self.instance, self.image, self.namespace = instance, image, f"bench-{uuid.uuid4().hex[:6]}"
        self.api = config.new_client_from_config(kubeconfig)
        self.custom, self.core = client.CustomObjectsApi(self.api), client.CoreV1Api(self.api)
        #: What the last start has cost until all machines ran.
        self.spent = Cost({}, 0)

    def __enter__(self) -> Self:
        self.core.create_namespace({"metadata": {"name": self.namespace}})
        return self

    def __exit__(self, *_: object) -> None:
        self.core.delete_namespace(self.namespace)
        until(lambda: not self.pods(), REMOVE_LIMIT, 0.2)

    def machine(self, name: str) -> dict[str, Any]:
        seed = base64.b64encode(b"#cloud-config\n").decode()
        return {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {"name": name},
            "spec": {
                "runStrategy": "Always",
                "template": {
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "domain": {
                            "memory": {"guest": "128Mi"},
                            "devices": {
                                "disks": [
                                    {"name": "root", "disk": {"bus": "virtio"}},
                                    {"name": "seed", "disk": {"bus": "virtio"}},
                                ],
                                "interfaces": [{"name": "default", "masquerade": {}}],
                            },
                        },
                        "networks": [{"name": "default", "pod": {}}],
                        "volumes": [
                            {"name": "root", "containerDisk": {"image": self.image}},
                            {"name": "seed", "cloudInitNoCloud": {"userDataBase64": seed}},
                        ],
                    }
                },
            },
        }

    def start(self, names: list[str], *, ssh: bool = True) -> Times:
        """Create the VMs; the times count from the first one's create call."""
        running: dict[str, tuple[float, str]] = {}
        here = threading.Event()
        instances = ("kubevirt.io", "v1", self.namespace, "virtualmachineinstances")
        # Watching from here misses nothing, whenever the watch is open.
        version = self.custom.list_namespaced_custom_object(*instances)["metadata"]["resourceVersion"]

        def watch() -> None:
            for event in Watch().stream(
                self.custom.list_namespaced_custom_object,
                *instances,
                resource_version=version,
                timeout_seconds=RUN_LIMIT,
            ):
                vmi = event["object"]
                name, status = vmi["metadata"]["name"], vmi.get("status", {})
                if name in names and name not in running and status.get("phase") == "Running":
                    running[name] = time.monotonic(), status["interfaces"][0]["ipAddress"]
                if running.keys() >= set(names):
                    here.set()
                    return

        threading.Thread(target=watch, daemon=True).start()
        before = self.cost()
        start = time.monotonic()
        for name in names:
            self.custom.create_namespaced_custom_object(
                "kubevirt.io", "v1", self.namespace, "virtualmachines", self.machine(name)
            )
        if not here.wait(RUN_LIMIT):
            raise TimeoutError(f"only {sorted(running)} of {names} ran within {RUN_LIMIT} s")
        self.spent = self.cost().since(before)
        banners = answers(names, lambda name: running[name][1], start) if ssh else {}
        return [(running[name][0] - start, banners.get(name)) for name in names]

    def pods(self) -> list[Any]:
        return self.core.list_namespaced_pod(self.namespace, label_selector="kubevirt.io=virt-launcher").items

    def domain_xml(self) -> str:
        """XML of one running domain, as libvirt in its Pod has it."""
        folder = f"/var/lib/{self.instance}/kubelet/pods/{self.pods()[0].metadata.uid}/volumes/kubernetes.io~empty-dir"
        # a socket's path has at most 107 bytes
        short = os.open(f"{folder}/sockets", os.O_PATH)
        connection = libvirt.open(f"qemu+unix:///session?socket=/proc/self/fd/{short}/libvirt-sock")
        try:
            return str(connection.listAllDomains()[0].XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        finally:
            connection.close()
            os.close(short)

    def memory(self) -> dict[str, float]:
        """Private memory a Pod beside QEMU, by program, in MiB, averaged over the running Pods."""
        total: dict[str, float] = {}
        for program, process in self._of_pods():
            if not program.startswith("qemu"):
                total[program] = total.get(program, 0) + private_memory(process)
        pods = len(self.pods())
        return {program: value / pods for program, value in total.items()}

    def _of_pods(self) -> list[tuple[str, Path]]:
        """The processes of the running Pods, with their programs' names."""
        namespaces = [Path(f"/run/{self.instance}/netns", pod.metadata.uid) for pod in self.pods()]
        spaces = {path.stat().st_ino for path in namespaces}
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.stat(entry / "ns/net").st_ino in spaces:
                    found.append(((entry / "comm").read_text().strip(), entry))
        return found

    def components(self) -> dict[str, float]:
        """Private memory of the engine's own processes in MiB: paid once a machine."""
        return {name: private_memory(process) for name, process in self._processes().items()}

    def _processes(self) -> dict[str, Path]:
        """The engine's own processes by what they are called."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if (
                    entry.name.isdigit()
                    and any(f"/{self.instance}/" in w for w in words)
                    and os.getpid() != int(entry.name)
                ):
                    name = " ".join(w.rsplit("/", 1)[-1] for w in words[1:3] if not w.startswith("-"))
                    if name.startswith(("virt-", "turtles.")):
                        found[name.rsplit(".", 1)[-1]] = entry
        return found

    def cost(self) -> Cost:
        """What the engine has cost so far."""
        spent = {name: usage(process) for name, process in self._processes().items()}
        for program, process in self._of_pods():
            spent[program] = spent.get(program, Usage()) + usage(process)
        answer = self.api.rest_client.request(
            "GET",
            f"{self.api.configuration.host}/metrics",
            headers={"Authorization": self.api.configuration.get_api_key_with_prefix("BearerToken") or ""},
        )
        lines = answer.read().decode().splitlines()
        counts = (line.split()[-1] for line in lines if line.startswith("apiserver_request_total"))
        return Cost(spent, sum(map(float, counts)))

    def remove(self, names: list[str]) -> None:
        for name in names:
            self.custom.delete_namespaced_custom_object("kubevirt.io", "v1", self.namespace, "virtualmachines", name)

        def gone() -> bool:
            machines = self.custom.list_namespaced_custom_object("kubevirt.io", "v1", self.namespace, "virtualmachines")
            return not self.pods() and not machines["items"]

        if not until(gone, REMOVE_LIMIT, 0.2):
            raise TimeoutError(f"{names} weren't removed within {REMOVE_LIMIT} s")


def private_memory(process: Path) -> float:
    """Memory that only this process has, in MiB."""
    fields = (line.split() for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    return sum(int(f[1]) for f in fields if f[0] in ("Private_Dirty:", "Private_Clean:")) / 1024


class Peer:
    """Plain libvirt: one private libvirtd that runs as the launcher's user, a bridge, dnsmasq."""

    def __init__(self, folder: Path, disk: Path, seed: Path, xml: str) -> None:
        self.folder, self.disk, self.seed, self.xml = folder, disk, seed, xml
        self.processes: list[subprocess.Popen[bytes]] = []
        self.taps: list[str] = []
        self.connection: libvirt.virConnect | None = None

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        prepare_libvirtd(self.folder)
        for command in (
            ["ip", "link", "add", PEER_BRIDGE, "type", "bridge"],
            ["ip", "addr", "add", PEER_ADDRESS, "dev", PEER_BRIDGE],
            ["ip", "link", "set", PEER_BRIDGE, "up"],
        ):
            subprocess.run(command, check=True)
        self.leases = self.folder / "leases"
        self._spawn(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file=", "--user=root"),
            *(f"--interface={PEER_BRIDGE}", "--bind-interfaces", "--no-ping", "--dhcp-authoritative"),
            *(f"--dhcp-leasefile={self.leases}", f"--dhcp-range={PEER_RANGE},1h", "--log-facility=-"),
        )
        self._spawn(*libvirtd_command(self.folder, kvm="type='kvm'" in self.xml))
        if not until(self._connect, RUN_LIMIT):
            raise TimeoutError(f"libvirtd didn't answer within {RUN_LIMIT} s; see {self.folder}")

    def _connect(self) -> bool:
        with contextlib.suppress(libvirt.libvirtError):
            self.connection = libvirt.open(f"qemu+unix:///session?socket={self.folder}/run/libvirt-sock")
        return self.connection is not None

    def _spawn(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.log").open("wb")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def __exit__(self, *_: object) -> None:
        if self.connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                # They would outlive their libvirtd.
                for domain in self.connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                    domain.destroy()
                self.connection.close()
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        for link in (*self.taps, PEER_BRIDGE):
            subprocess.run(["ip", "link", "del", link], check=False)

    def prepare(self, name: str) -> str:
        """Overlay, seed and tap of one domain; its XML."""
        tap, number = f"tpeer{len(self.taps)}", len(self.taps)
        for command in (
            ["ip", "tuntap", "add", tap, "mode", "tap", "user", str(UID)],
            ["ip", "link", "set", tap, "master", PEER_BRIDGE, "up"],
        ):
            subprocess.run(command, check=True)
        self.taps.append(tap)
        place = self.folder / "disks" / name
        place.mkdir()
        overlay, seed = place / "disk.qcow2", place / "seed.iso"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(self.disk), str(overlay)], check=True
        )
        shutil.copyfile(self.seed, seed)
        for path in (place, overlay, seed):
            os.chown(path, UID, GID)
        return adapted(self.xml, name, (overlay, seed), tap, f"02:aa:bb:cc:00:{number:02x}", place)

    def address(self, xml: str) -> str | None:
        """The address dnsmasq has leased to a domain, None if it hasn't yet."""
        mac = ET.fromstring(xml).find("devices/interface/mac")
        assert mac is not None
        with contextlib.suppress(OSError):
            for line in self.leases.read_text().splitlines():
                if line.split()[1] == mac.get("address"):
                    return line.split()[2]
        return None

    def start(self, names: list[str], *, ssh: bool = True) -> Times:
        """Define and start the domains, four at once; the times count from the first one's beginning."""
        machines = {name: self.prepare(name) for name in names}
        ran: dict[str, float] = {}

        def run(name: str) -> None:
            assert self.connection is not None
            self.connection.defineXML(machines[name]).create()
            ran[name] = time.monotonic()

        start = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run, names))
        banners = answers(names, lambda name: self.address(machines[name]), start) if ssh else {}
        return [(ran[name] - start, banners.get(name)) for name in names]

    def remove(self, names: list[str]) -> None:
        assert self.connection is not None
        for name in names:
            domain = self.connection.lookupByName(name)
            domain.destroy()
            domain.undefine()


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def report(title: str, engine: Times, peer: Times) -> dict[str, float]:
    """Print one row per measure: p50 and p95 of both, and the ratio of the medians, which is returned."""
    ratios = {}
    for index, measure in enumerate(("create → Running", "create → SSH")):
        ours, theirs = ([value for t in times if (value := t[index]) is not None] for times in (engine, peer))
        if ours and theirs:
            ratio = ratios[f"{title}, {measure}"] = statistics.median(ours) / statistics.median(theirs)
            print(
                f"{title:>8}  {measure:<17} {statistics.median(ours):7.2f} {quantile(ours, 0.95):7.2f}"
                f" {statistics.median(theirs):9.2f} {quantile(theirs, 0.95):7.2f}"
                f" {ratio:7.2f}",
                flush=True,
            )
    return ratios


def main() -> int:
    """Measure and print; 0 always, as figures are for reading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instance", required=True, help="turtles_instance of the installed engine")
    parser.add_argument("--image", required=True, help="reference of the guest's container disk")
    parser.add_argument("--rounds", type=int, default=7, help="rounds with one VM")
    parser.add_argument("--ssh-rounds", type=int, default=3, help="how many of them wait for the guest's SSH server")
    parser.add_argument("--many", type=int, default=12, help="VMs at once in the last round")
    options = parser.parse_args()
    many = [f"many{n}" for n in range(options.many)]
    libvirt.registerErrorHandler(lambda *_: None, None)  # they come as exceptions
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # tidies up, as Ctrl-C does
    with (
        Engine(f"/etc/{options.instance}/admin.kubeconfig", options.instance, options.image) as engine,
        scratch() as folder,
    ):
        engine.start(["warm"], ssh=False)
        xml = engine.domain_xml()
        disk, seed = folder / "base.qcow2", folder / "seed.iso"
        shutil.copyfile(unpacked_disk(options.instance), disk)
        pods = Path(f"/var/lib/{options.instance}/kubelet/pods")
        shutil.copyfile(next(pods.rglob("noCloud.iso")), seed)
        engine.remove(["warm"])
        ones: Times = []
        peer_ones: Times = []
        with Peer(folder / "peer", disk, seed, xml) as peer:
            peer.start(["warm"], ssh=False)
            peer.remove(["warm"])
            for number in range(options.rounds):
                name, ssh = f"one{number}", number < options.ssh_rounds
                ones += engine.start([name], ssh=ssh)
                engine.remove([name])
                peer_ones += peer.start([name], ssh=ssh)
                peer.remove([name])
            print(f"{'seconds':>8}  {'':<17} {'engine':>7} {'p95':>7} {'libvirt':>9} {'p95':>7} {'ratio':>7}")
            figures = report("1 VM", ones, peer_ones)
            engine_many = engine.start(many)
            spent = engine.spent
            memory, components = engine.memory(), engine.components()
            engine.remove(many)
            peer_many = peer.start(many)
            peer.remove(many)
            figures |= report(f"{options.many} VMs", engine_many, peer_many)
    print(f"\nprivate memory a VM beside QEMU, {options.many} running: {sum(memory.values()):.1f} MiB")
    for program, value in sorted(memory.items()):
        print(f"  {program:<24} {value:6.1f} MiB")
    print(f"\nuntil it runs, a VM costs {spent.requests / options.many:.0f} requests to the API, and")
    print(f"  {'':<34} {'ms of processor':>15} {'wake-ups':>9}")
    for program, used in sorted(spent.used.items(), key=lambda entry: -entry[1].seconds):
        print(f"  {program:<34} {used.seconds * 1000 / options.many:15.0f} {used.wakeups / options.many:9.0f}")
    print(f"\nthe engine itself, once a machine: {sum(components.values()):.0f} MiB")
    for program, value in sorted(components.items()):
        print(f"  {program:<34} {value:6.1f} MiB")
    figures["MiB a VM beside QEMU"] = sum(memory.values())
    figures["MiB of the engine"] = sum(components.values())
    figures["requests a VM"] = spent.requests / options.many
    figures["ms of processor a VM"] = sum(each.seconds for each in spent.used.values()) * 1000 / options.many
    history.record("vm", {"rounds": options.rounds, "many": options.many}, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
