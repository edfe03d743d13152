# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The standalone API server beside kube-apiserver and etcd: latency, throughput, fan-out, start-up and memory.

Both run on this machine, on the same disk, with the same kind of certificates, behind TLS, and are asked by the same
client with a bearer token. They take turns block by block, so that what else the machine does falls on both. What is
stored survives a loss of power on both: etcd syncs its log, the engine SQLite's. The clients are processes of their own
that read answers without decoding them, so that they are no bottleneck.

The binaries are those of tests/cluster (TURTLES_KUBERNETES_CACHE, by default ~/.cache/turtles-kubevirt/kubernetes).
Without them only the engine is measured.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import history
import turtles
from turtles.api import crd
from turtles.api.kinds.vmi import VMI
from turtles.pki import authority, issue

CACHE = Path(os.environ.get("TURTLES_KUBERNETES_CACHE", Path.home() / ".cache/turtles-kubevirt/kubernetes"))
TOKEN = "bench-token-" + "0" * 32
PROCESSES = 4
START_LIMIT = 120.0

NAMESPACE = "default"


# -- what is stored


def virtual_machine_instance(name: str) -> dict[str, Any]:
    """A VirtualMachineInstance of the size that real ones have: about 6 kB."""
    disks = [{"name": f"disk{number}", "disk": {"bus": "virtio"}} for number in range(4)]
    volumes = [
        {"name": f"disk{number}", "persistentVolumeClaim": {"claimName": f"{name}-{number}"}} for number in range(3)
    ]
    seed = "#cloud-config\n" + "".join(f"# line {number:04d} of what the guest is told\n" for number in range(40))
    volumes.append({"name": "disk3", "cloudInitNoCloud": {"userData": seed}})
    spec = {
        "domain": {
            "cpu": {"cores": 2},
            "memory": {"guest": "2Gi"},
            "resources": {"requests": {"memory": "2Gi"}},
            "devices": {"disks": disks, "interfaces": [{"name": "default", "masquerade": {}}]},
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": volumes,
        "terminationGracePeriodSeconds": 30,
    }
    obj = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"app": name, "tier": "web", "kubevirt.io/size": "small"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(spec)},
        },
        "spec": spec,
    }
    obj["metadata"]["annotations"]["bench/pad"] = "x" * max(0, 6000 - len(json.dumps(obj)))
    return obj


def config_map(name: str) -> dict[str, Any]:
    """A ConfigMap of about 6 kB."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name, "tier": "web"}},
        "data": {f"key{number}": "y" * 560 for number in range(10)},
    }


@dataclass(frozen=True)
class Kind:
    """A kind that is measured."""

    title: str
    path: str
    make: Callable[[str], dict[str, Any]]


KINDS = (
    Kind("VMI", f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/virtualmachineinstances", virtual_machine_instance),
    Kind("ConfigMap", f"/api/v1/namespaces/{NAMESPACE}/configmaps", config_map),
)


# -- the client


@dataclass(frozen=True)
class Target:
    """Where a server is and who may ask it: what a client process needs to know."""

    port: int
    authority: str
    token: str

    def connect(self) -> ssl.SSLSocket:
        """Return a connection to the server."""
        context = ssl.create_default_context(cadata=self.authority)
        plain = socket.create_connection(("127.0.0.1", self.port), 60)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="localhost")

    def request(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """Return a request's bytes."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
            f"Accept: application/json\r\n"
        )
        if body:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body


class Client:
    """One connection; an answer's body is read, not decoded."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._socket = target.connect()
        self._rest = b""

    def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return the answer's status and body."""
        self._socket.sendall(request)
        data = bytearray(self._rest)
        while (end := data.find(b"\r\n\r\n")) < 0:
            self._more(data)
        head = bytes(data[:end]).lower()
        code = int(head[9:12])
        position = end + 4
        start = head.find(b"content-length:")
        if start >= 0:
            length = int(head[start + 15 :].split(b"\r\n", 1)[0])
            while len(data) < position + length:
                self._more(data)
            self._rest = bytes(data[position + length :])
            return code, bytes(data[position : position + length])
        body = bytearray()
        while True:
            while (line := data.find(b"\r\n", position)) < 0:
                self._more(data)
            size = int(data[position:line], 16)
            while len(data) < line + 4 + size:
                self._more(data)
            body += data[line + 2 : line + 2 + size]
            position = line + 4 + size
            if not size:
                self._rest = bytes(data[position:])
                return code, bytes(body)

    def _more(self, data: bytearray) -> None:
        chunk = self._socket.recv(1 << 20)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        data += chunk

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Send a request that must succeed; return the decoded answer."""
        raw = json.dumps(body).encode() if body is not None else b""
        code, answer = self.send(self.target.request(method, path, raw, content_type))
        if code >= 300:
            raise RuntimeError(f"{method} {path}: {code} {answer[:500]!r}")
        return json.loads(answer)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def timed(client: Client, requests: list[bytes]) -> list[float]:
    """Send requests one after the other; return the seconds that each took."""
    times = []
    for request in requests:
        before = time.perf_counter()
        code, answer = client.send(request)
        times.append(time.perf_counter() - before)
        if code >= 300:
            raise RuntimeError(f"{request[:120]!r}: {code} {answer[:500]!r}")
    return times


def _crowd(target: Target, work: list[list[bytes]], ready: Any, go: Any, done: Any) -> None:
    """One process of the load: a thread for each list of requests."""
    clients = [Client(target) for _dummy in work]
    failures: list[str] = []

    def run(client: Client, requests: list[bytes]) -> None:
        try:
            timed(client, requests)
        except (RuntimeError, OSError) as error:
            failures.append(str(error))

    threads = [threading.Thread(target=run, args=pair) for pair in zip(clients, work, strict=True)]
    ready.put(True)
    go.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.put(failures)


def throughput(target: Target, work: list[list[bytes]]) -> float:
    """Return the requests a second that a server answers to as many clients as there are lists."""
    context = multiprocessing.get_context("fork")
    ready, done, go = context.Queue(), context.Queue(), context.Event()
    shares = [work[number::PROCESSES] for number in range(PROCESSES)]
    processes = [context.Process(target=_crowd, args=(target, share, ready, go, done)) for share in shares if share]
    for process in processes:
        process.start()
    for _dummy in processes:
        ready.get(timeout=60)
    before = time.perf_counter()
    go.set()
    failures = [failure for _dummy in processes for failure in done.get(timeout=300)]
    seconds = time.perf_counter() - before
    for process in processes:
        process.join()
    if failures:
        raise RuntimeError(failures[0])
    return sum(len(one) for one in work) / seconds


def _watch(target: Target, path: str, count: int, events: int, ready: Any, seen: Any) -> None:
    """One process of watchers: put, for each event, when its last watcher had it."""
    selector = selectors.DefaultSelector()
    request = target.request("GET", path)
    state: dict[ssl.SSLSocket, list[Any]] = {}
    for _dummy in range(count):
        one = target.connect()
        one.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += one.recv(65536)
        one.setblocking(False)
        state[one] = [answer.partition(b"\r\n\r\n")[2][-20:], 0]
        selector.register(one, selectors.EVENT_READ)
    arrived: list[float] = [0.0] * events
    ready.put(True)
    missing = count * events
    marker = b'"type":"MODIFIED"'
    while missing:
        for key, _dummy in selector.select(60):
            one: Any = key.fileobj
            entry = state[one]
            with contextlib.suppress(ssl.SSLWantReadError):
                while chunk := one.recv(1 << 18):
                    data = entry[0] + chunk
                    now = time.perf_counter()
                    for _dummy in range(data.count(marker)):
                        if entry[1] < events:
                            arrived[entry[1]] = now
                            entry[1] += 1
                            missing -= 1
                    position = data.rfind(marker)
                    tail = len(data) - len(marker) + 1
                    entry[0] = data[max(tail, position + len(marker) if position >= 0 else 0) :]
    seen.put(arrived)


def fan_out(target: Target, kind: Kind, watchers: int, events: int) -> list[float]:
    """Return for each write the seconds until the last of so many watchers had it."""
    context = multiprocessing.get_context("fork")
    ready, seen = context.Queue(), context.Queue()
    client = Client(target)
    name = "fan-out"
    version = client.call("POST", kind.path, kind.make(name))["metadata"]["resourceVersion"]
    path = f"{kind.path}?watch=1&resourceVersion={version}&fieldSelector=metadata.name%3D{name}"
    share = watchers // 2
    processes = [context.Process(target=_watch, args=(target, path, share, events, ready, seen)) for _dummy in range(2)]
    for process in processes:
        process.start()
    for _dummy in processes:
        ready.get(timeout=60)
    sent = []
    for number in range(events):
        sent.append(time.perf_counter())
        client.call(
            "PATCH", f"{kind.path}/{name}", {"metadata": {"labels": {"n": str(number)}}}, "application/merge-patch+json"
        )
        time.sleep(0.02)
    arrived = [seen.get(timeout=120) for _dummy in processes]
    for process in processes:
        process.join()
    client.call("DELETE", f"{kind.path}/{name}")
    client.close()
    return [max(times) - before for before, *times in zip(sent, *arrived, strict=True)]


# -- the servers


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Server:
    """A server under test."""

    root: Path
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    name = ""

    def prepare(self) -> Target:
        """Make files; return where it will be."""
        raise NotImplementedError

    def commands(self) -> list[list[str]]:
        """Return the commands that are the server."""
        raise NotImplementedError

    def start(self, target: Target) -> float:
        """Start it; return the seconds until it says that it is ready."""
        before = time.perf_counter()
        for number, command in enumerate(self.commands()):
            log = open(self.root / f"{self.name}-{number}.log", "ab")  # noqa: SIM115
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
            log.close()
        while True:
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{self.name} ended: {self.last_words()}")
            with contextlib.suppress(OSError, ConnectionError):
                client = Client(target)
                code, _dummy = client.send(target.request("GET", "/readyz"))
                client.close()
                if code == 200:
                    return time.perf_counter() - before
            if time.perf_counter() - before > START_LIMIT:
                raise RuntimeError(f"{self.name} doesn't get ready: {self.last_words()}")
            time.sleep(0.01)

    def last_words(self) -> str:
        """Return the end of its logs."""
        return "".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.root.glob("*.log")))

    def stop(self) -> None:
        """End it."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def memory(self) -> float:
        """Return the memory of its processes in MB: what is their own and their share of what is shared (PSS)."""
        total = 0
        for process in self.processes:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total * 1024 / 1e6


class Engine(Server):
    """The standalone API server."""

    name = "engine"

    def prepare(self) -> Target:
        """Make files; return where it will be."""
        where = ["--config-dir", str(self.root / "etc"), "--data-dir", str(self.root / "data")]
        subprocess.run(
            [sys.executable, "-m", "turtles.standalone.main", "init", *where, "--port", str(self.port)],
            check=True,
            capture_output=True,
        )
        # As pip installs it; a checkout may be without, and what Python compiles at a start is no part of a start.
        compileall.compile_dir(Path(turtles.__file__).parent, quiet=1)
        with open(self.root / "etc/tokens.csv", "a") as stream:
            csv.writer(stream).writerow([hashlib.sha256(TOKEN.encode()).hexdigest(), "bench", "system:masters"])
        return Target(self.port, (self.root / "etc/pki/ca.crt").read_text(), TOKEN)

    def commands(self) -> list[list[str]]:
        """Return the commands that are the server."""
        where = ["--config-dir", str(self.root / "etc"), "--data-dir", str(self.root / "data")]
        command = [sys.executable, "-m", "turtles.standalone.main", "apiserver", *where, "--port", str(self.port)]
        return [[*command, "--log-level", "warning"]]


class Kubernetes(Server):
    """kube-apiserver and etcd."""

    name = "kubernetes"

    def prepare(self) -> Target:
        """Make files; return where it will be."""
        pki = self.root / "pki"
        pki.mkdir(parents=True)
        (self.root / "etcd").mkdir(mode=0o700)
        now, week = datetime.now(timezone.utc), timedelta(days=7)
        ca = authority("bench", now, week)
        server = issue(ca, "kube-apiserver", ["localhost", "127.0.0.1"], now, week)
        for name, pair in (("ca", ca), ("apiserver", server)):
            (pki / f"{name}.crt").write_text(pair.certificate_pem)
            (pki / f"{name}.key").write_text(pair.key_pem)
        (self.root / "tokens.csv").write_text(f'{TOKEN},bench,bench,"system:masters"\n')
        self.etcd = free_port()
        self.peer = free_port()
        return Target(self.port, (pki / "ca.crt").read_text(), TOKEN)

    def commands(self) -> list[list[str]]:
        """Return the commands that are the server."""
        pki, store = self.root / "pki", f"http://127.0.0.1:{self.etcd}"
        peer = f"http://127.0.0.1:{self.peer}"
        etcd = shutil.which("etcd", path=str(CACHE / "root/usr/bin")) or "etcd"
        return [
            [
                etcd,
                "--name",
                "e",
                "--data-dir",
                str(self.root / "etcd"),
                "--listen-client-urls",
                store,
                "--advertise-client-urls",
                store,
                "--listen-peer-urls",
                peer,
                "--initial-advertise-peer-urls",
                peer,
                "--initial-cluster",
                f"e={peer}",
                "--log-level",
                "warn",
            ],
            [
                str(CACHE / "bin/kube-apiserver"),
                f"--etcd-servers={store}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self.port}",
                "--advertise-address=127.0.0.1",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--client-ca-file={pki}/ca.crt",
                f"--token-auth-file={self.root}/tokens.csv",
                "--authorization-mode=Node,RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki}/apiserver.crt",
                f"--service-account-signing-key-file={pki}/apiserver.key",
                "--profiling=false",
                f"--cert-dir={self.root}/cert",
            ],
        ]


# -- the measurements


def alternate(servers: list[Server], measure: Callable[[Server, int], list[float]], rounds: int) -> list[list[float]]:
    """Measure the servers in turns; return all of each one's values."""
    values: list[list[float]] = [[] for _dummy in servers]
    for number in range(rounds):
        order = list(enumerate(servers))
        for index, server in order if number % 2 == 0 else reversed(order):
            values[index] += measure(server, number)
    return values


def quantile(values: list[float], share: float) -> float:
    """Return the value below which that share of the values is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Table:
    """Prints figures as they come."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.results: list[dict[str, Any]] = []
        heads = " ".join(f"{server.name:>11}" for server in servers)
        print(f"{'':<40} {heads} {'engine/k8s':>11}  aim", flush=True)

    def row(self, title: str, unit: str, figures: list[float], aim: str = "", holds: Any = None) -> None:
        """Print a line: figures of each server, their ratio, and what is aimed at."""
        ratio = figures[0] / figures[1] if len(figures) == 2 and figures[1] else None
        met = "" if holds is None or ratio is None else ("ok" if holds(figures[0], ratio) else "MISSED")
        values = " ".join(f"{one:>11.2f}" for one in figures)
        shown = f"{ratio:>11.2f}" if ratio is not None else f"{'':>11}"
        print(f"{title + ' (' + unit + ')':<40} {values} {shown}  {aim} {met}".rstrip(), flush=True)
        self.results.append({"what": title, "unit": unit, "figures": figures, "ratio": ratio, "aim": aim, "met": met})


def latency(table: Table, targets: dict[str, Target], kind: Kind, rounds: int, block: int) -> None:
    """One client: create, get, patch."""
    clients = {name: Client(target) for name, target in targets.items()}

    def creates(server: Server, number: int) -> list[float]:
        bodies = [json.dumps(kind.make(f"one-{number}-{one}")).encode() for one in range(block)]
        target = targets[server.name]
        return timed(clients[server.name], [target.request("POST", kind.path, body) for body in bodies])

    def gets(server: Server, number: int) -> list[float]:
        target = targets[server.name]
        requests = [target.request("GET", f"{kind.path}/one-{number}-{one}") for one in range(block)]
        return timed(clients[server.name], requests)

    def patches(server: Server, number: int) -> list[float]:
        target = targets[server.name]
        body = json.dumps({"metadata": {"labels": {"patched": str(number)}}}).encode()
        content_type = "application/merge-patch+json"
        requests = [
            target.request("PATCH", f"{kind.path}/one-{number}-{one}", body, content_type) for one in range(block)
        ]
        return timed(clients[server.name], requests)

    for name, measure in (("create", creates), ("get", gets), ("patch", patches)):
        report(table, f"{kind.title} {name}", alternate(table.servers, measure, rounds))
    for client in clients.values():
        client.close()


def report(table: Table, title: str, values: list[list[float]]) -> None:
    """Print p50 and p95 of a latency."""
    table.row(f"{title} p50", "ms", [statistics.median(one) * 1e3 for one in values], "<= 1", lambda _dummy, r: r <= 1)
    table.row(f"{title} p95", "ms", [quantile(one, 0.95) * 1e3 for one in values])


def crowd(table: Table, targets: dict[str, Target], kind: Kind, clients: int, each: int) -> None:
    """Many clients: create, get, patch."""
    merge = "application/merge-patch+json"

    def requests(target: Target, what: str, number: int) -> list[list[bytes]]:
        names = [[f"many-{number}-{client}-{one}" for one in range(each)] for client in range(clients)]
        labelled = json.dumps({"metadata": {"labels": {"patched": "yes"}}}).encode()

        def make(name: str) -> bytes:
            if what == "create":
                return target.request("POST", kind.path, json.dumps(kind.make(name)).encode())
            if what == "get":
                return target.request("GET", f"{kind.path}/{name}")
            return target.request("PATCH", f"{kind.path}/{name}", labelled, merge)

        return [[make(name) for name in row] for row in names]

    for what in ("create", "get", "patch"):
        values = alternate(
            table.servers,
            lambda server, number, what=what: [
                throughput(targets[server.name], requests(targets[server.name], what, number))
            ],
            2,
        )
        figures = [statistics.mean(one) for one in values]
        table.row(f"{kind.title} {what}, {clients} clients", "1/s", figures, ">= 0.5", lambda _dummy, r: r >= 0.5)


def fill(target: Target, kind: Kind, count: int) -> None:
    """Store so many objects."""
    bodies = [json.dumps(kind.make(f"fill-{number:05d}")).encode() for number in range(count)]
    requests = [target.request("POST", kind.path, body) for body in bodies]
    throughput(target, [requests[number::8] for number in range(8)])


def empty(target: Target, kind: Kind) -> None:
    """Remove all objects of a kind."""
    client = Client(target)
    client.call("DELETE", kind.path)
    client.close()


def lists(table: Table, targets: dict[str, Target], kind: Kind, count: int, rounds: int) -> None:
    """One client: the whole list."""
    clients = {name: Client(target) for name, target in targets.items()}

    def whole(server: Server, number: int) -> list[float]:
        return timed(clients[server.name], [targets[server.name].request("GET", kind.path)])

    report(table, f"{kind.title} list of {count}", alternate(table.servers, whole, rounds))
    for client in clients.values():
        client.close()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder on a disk, not in memory: what is measured includes making writes durable."""
    root = Path(tempfile.mkdtemp(prefix="apiserver-bench-", dir="/var/tmp"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def run(options: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """Measure everything; return the lines of the table."""
    servers: list[Server] = [Engine(root / "engine")]
    if options.peer and (CACHE / "bin/kube-apiserver").exists():
        servers.append(Kubernetes(root / "kubernetes"))
    elif options.peer:
        print(f"no kube-apiserver in {CACHE}/bin (`make test-cluster` builds it): the engine alone is measured")
    for server in servers:
        server.root.mkdir()
    targets = {server.name: server.prepare() for server in servers}
    try:
        for server in servers:
            server.start(targets[server.name])
            client = Client(targets[server.name])
            definition = crd.crd(VMI)
            client.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            wait_served(client)
            client.close()
        table = Table(servers)
        for kind in KINDS:
            latency(table, targets, kind, options.rounds, options.block)
            crowd(table, targets, kind, 32, options.each)
            for server in servers:
                empty(targets[server.name], kind)
        vmi = KINDS[0]
        for server in servers:
            fill(targets[server.name], vmi, options.objects)
        table.row(
            f"memory with {options.objects} VMIs",
            "MB",
            [server.memory() for server in servers],
            "<= 0.25",
            lambda _dummy, r: r <= 0.25,
        )
        lists(table, targets, vmi, options.objects, options.rounds)
        values = alternate(table.servers, lambda s, n: fan_out(targets[s.name], vmi, 100, 40), 2)
        report(table, "VMI to 100 watchers", values)
        table.row(
            "memory at the end", "MB", [server.memory() for server in servers], "<= 0.25", lambda _dummy, r: r <= 0.25
        )
        for server in servers:
            server.stop()
        times = []
        for server in servers:
            times.append(min(restart(server, targets[server.name]) for _dummy in range(3)))
        table.row(f"start with {options.objects} VMIs", "s", times, "<= 1 s", lambda own, _dummy: own <= 1)
        table.row("memory after the start", "MB", [server.memory() for server in servers])
        return table.results
    finally:
        for server in servers:
            server.stop()


def restart(server: Server, target: Target) -> float:
    """Start a server (again); return how long it took."""
    server.stop()
    return server.start(target)


def wait_served(client: Client) -> None:
    """Wait until a new kind is served."""
    deadline = time.monotonic() + 60
    while client.send(client.target.request("GET", KINDS[0].path))[0] != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("the CustomResourceDefinition doesn't get served")
        time.sleep(0.1)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=5000, help="how many VMIs are stored for lists and memory")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each server")
    parser.add_argument("--block", type=int, default=50, help="requests in a turn")
    parser.add_argument("--each", type=int, default=40, help="requests of each of the 32 clients")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="the engine alone")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    with scratch() as root:
        results = run(options, root)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    ratios = {f"{one['what']} ({one['unit']})": one["ratio"] for one in results if one["ratio"] is not None}
    if ratios:
        chosen = {name: getattr(options, name) for name in ("objects", "rounds", "block", "each")}
        history.record("apiserver", chosen, ratios, more_is_better=[name for name in ratios if name.endswith("(1/s)")])
    missed = [one["what"] for one in results if one["met"] == "MISSED"]
    if missed:
        print("missed: " + ", ".join(missed))


if __name__ == "__main__":
    main()
