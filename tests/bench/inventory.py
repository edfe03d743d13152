# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ansible-inventory with thousands of machines: seconds and memory beside kubevirt.core and a static inventory.

The API server is a simulated one in a process of its own, which waits before each answer as a network would. A static
inventory with the same hosts is the floor: what ansible-inventory takes for itself. For the comparison give a folder
that has ansible_collections/kubevirt/core and ansible_collections/kubernetes/core in it:

    make bench-inventory ARGS="--peer FOLDER"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/shared"))

from fakeapi import FakeApi, Object, status  # noqa: E402

OURS, PEER = "turtles.kubevirt.kubevirt", "kubevirt.core.kubevirt"
KUBEVIRT, CORE = "/apis/kubevirt.io/v1", "/api/v1"
#: Targets: times the peer's speed at 500 namespaces; seconds beyond the floor and MiB at 10,000 machines.
SPEED_UP, BEYOND_FLOOR, MEMORY = 20.0, 5.0, 300.0


def resources(*named: tuple[str, str, bool]) -> Object:
    """Answer discovery."""
    verbs = ["get", "list", "watch"]
    entries = [
        {"name": name, "kind": kind, "namespaced": namespaced, "verbs": verbs} for name, kind, namespaced in named
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "resources": entries}


DISCOVERY: dict[str, Object] = {
    "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.2"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": "kubevirt.io",
                "versions": [{"groupVersion": "kubevirt.io/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "kubevirt.io/v1", "version": "v1"},
            }
        ],
    },
    CORE: resources(("namespaces", "Namespace", False), ("services", "Service", True)),
    KUBEVIRT: resources(
        ("virtualmachines", "VirtualMachine", True), ("virtualmachineinstances", "VirtualMachineInstance", True)
    ),
}


def machine(namespace: str, name: str, number: int) -> tuple[Object, Object]:
    """Return a VirtualMachine and its running instance, about as large as KubeVirt's are."""
    uid = f"00000000-0000-4000-8000-{number:012d}"
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    names = ("root", "cloudinit", "data")
    template = {
        "domain": {
            "cpu": {"cores": 2, "sockets": 1, "threads": 1, "model": "host-model", "maxSockets": 4},
            "devices": {
                "disks": [{"name": each, "disk": {"bus": "virtio"}, "bootOrder": 1} for each in names],
                "interfaces": [
                    {"name": "default", "masquerade": {}, "model": "virtio", "macAddress": "02:00:00:00:00:01"}
                ],
                "rng": {},
            },
            "features": {"acpi": {"enabled": True}, "smm": {"enabled": True}},
            "firmware": {"uuid": uid, "serial": uid, "bootloader": {"efi": {"secureBoot": False}}},
            "machine": {"type": "pc-q35-rhel9.4.0"},
            "memory": {"guest": "2Gi", "maxGuest": "8Gi"},
            "resources": {"requests": {"memory": "2Gi"}},
        },
        "evictionStrategy": "LiveMigrate",
        "networks": [{"name": "default", "pod": {}}],
        "terminationGracePeriodSeconds": 180,
        "volumes": [
            {"name": "root", "dataVolume": {"name": f"{name}-root"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": f"{name}-data"}},
            {"name": "cloudinit", "cloudInitNoCloud": {"userData": "#cloud-config\n" + "packages: [nginx]\n" * 12}},
        ],
    }
    labels = {"app": f"app{number % 10}", "tier": "front", "kubevirt.io/domain": name, "kubevirt.io/size": "small"}
    fields = {"f:spec": {f"f:field{each}": {".": {}, "f:value": {}} for each in range(20)}}
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "resourceVersion": str(1000 + number),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 1,
        "labels": labels,
        "annotations": {"kubevirt.io/latest-observed-api-version": "v1", "vm.kubevirt.io/os": "rhel9"},
        "managedFields": [
            {"manager": each, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}
            for each in ("virt-controller", "virt-handler")
        ],
    }
    conditions = [
        {"type": each, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for each in ("Ready", "LiveMigratable", "StorageLiveMigratable", "AgentConnected")
    ]
    vm = {
        "metadata": metadata,
        "spec": {"runStrategy": "Always", "template": {"metadata": {"labels": labels}, "spec": template}},
        "status": {"printableStatus": "Running", "ready": True, "created": True, "conditions": conditions[:3]},
    }
    vmi = {
        "metadata": {
            **metadata,
            "labels": {**labels, "kubevirt.io/nodeName": f"node{number % 20}"},
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize", "foregroundDeleteVirtualMachine"],
            "ownerReferences": [
                {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": name, "uid": uid, "controller": True}
            ],
        },
        "spec": template,
        "status": {
            "activePods": {uid: f"node{number % 20}"},
            "conditions": conditions,
            "guestOSInfo": {"id": "rhel", "name": "Red Hat Enterprise Linux", "version": "9.4", "machine": "x86_64"},
            "interfaces": [
                {
                    **{"name": "default", "mac": "02:00:00:00:00:01", "infoSource": "domain, guest-agent"},
                    **{"interfaceName": "eth0", "ipAddress": address, "ipAddresses": [address, f"fd10::{number:x}"]},
                }
            ],
            "launcherContainerImageVersion": "quay.io/kubevirt/virt-launcher:v1.5.0",
            "migrationMethod": "LiveMigration",
            "migrationTransport": "Unix",
            "nodeName": f"node{number % 20}",
            "phase": "Running",
            "phaseTransitionTimestamps": [
                {"phase": each, "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"}
                for each in ("Pending", "Scheduling", "Scheduled", "Running")
            ],
            "qosClass": "Burstable",
            "virtualMachineRevisionName": f"revision-start-vm-{uid}-1",
            "volumeStatus": [{"name": each, "target": f"vd{each[0]}", "size": 1048576} for each in names],
        },
    }
    return vm, vmi


class Cluster(FakeApi):
    """An API server with machines, whose lists are ready to be sent."""

    def __init__(self, namespaces: int, machines: int, latency: float) -> None:
        super().__init__()
        self._latency = latency
        self._lists: dict[str, list[bytes]] = defaultdict(list)
        number = 0
        for namespace in (f"ns{each}" for each in range(namespaces)):
            self._add("", "namespaces", {"metadata": {"name": namespace}})
            for name in (f"vm{each}" for each in range(machines)):
                number += 1
                for plural, obj in zip(
                    ("virtualmachines", "virtualmachineinstances"), machine(namespace, name, number), strict=True
                ):
                    self._add(namespace, plural, obj)

    def _add(self, namespace: str, plural: str, obj: Object) -> None:
        base = KUBEVIRT if plural.startswith("virtual") else CORE
        data = json.dumps(obj).encode()
        self._lists[f"{base}/{plural}"].append(data)
        if namespace:
            self._lists[f"{base}/namespaces/{namespace}/{plural}"].append(data)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self._latency)
        return await super()._answer(request)

    def intercept(self, method: str, path: str) -> web.Response | None:
        """Answer discovery."""
        if path in DISCOVERY:
            return web.json_response(DISCOVERY[path])
        if path.startswith("/apis/") and not path.startswith(KUBEVIRT):
            return status(404, "NotFound", "404 page not found")
        return None

    def _list(self, request: web.Request, collection: str) -> web.Response:
        items = self._lists.get(request.path, [])
        start, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or 0)
        metadata = {"resourceVersion": "5000"}
        if limit and start + limit < len(items):
            metadata["continue"] = str(start + limit)
        group = "v1" if request.path.startswith(CORE) else "kubevirt.io/v1"
        kinds = {"namespaces": "Namespace", "virtualmachines": "VirtualMachine", "services": "Service"}
        kind = kinds.get(request.path.rpartition("/")[2], "VirtualMachineInstance")
        head = json.dumps({"kind": f"{kind}List", "apiVersion": group, "metadata": metadata})[:-1]
        page = b",".join(items[start : start + limit] if limit else items[start:])
        body = head.encode() + b', "items": [' + page + b"]}"
        return web.Response(body=body, content_type="application/json")


def serve(namespaces: int, machines: int, latency: float) -> None:
    """Serve a cluster until standard input ends; the first line on standard output is its URL."""
    cluster = Cluster(namespaces, machines, latency)
    cluster.start()
    print(cluster.url, flush=True)
    sys.stdin.read()
    cluster.stop()


@dataclass
class Run:
    """What a run of ansible-inventory took."""

    seconds: float
    processor: float
    mebibytes: float
    hosts: int

    def __str__(self) -> str:
        return f"{self.seconds:6.2f} s  {self.processor:6.2f} s  {self.mebibytes:5.0f} MiB"


def run(source: Path, collections: str, folder: Path) -> Run:
    """Run ansible-inventory --list."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("K8S_", "KUBE", "ANSIBLE_"))}
    environment.update(ANSIBLE_COLLECTIONS_PATH=collections, ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="true")
    environment.update(ANSIBLE_DEPRECATION_WARNINGS="false", HOME=str(folder))
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(source), "--list"]
    output = folder / "output.json"
    begin = time.monotonic()
    with output.open("w") as out, (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment, cwd=folder)
        _pid, code, usage = os.wait4(process.pid, 0)  # with its own use of processor and memory
        process.returncode = os.waitstatus_to_exitcode(code)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{source.name}: ansible-inventory failed: {errors.read()}")
    seconds = time.monotonic() - begin
    hosts = len(json.loads(output.read_text())["_meta"]["hostvars"])
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, hosts)


def best(source: Path, collections: str, folder: Path, rounds: int) -> Run:
    """Return the fastest of some runs."""
    return min((run(source, collections, folder) for _round in range(rounds)), key=lambda each: each.seconds)


def write(path: Path, **content: Any) -> Path:
    """Write an inventory file."""
    path.write_text(json.dumps(content))
    return path


def static(folder: Path, namespaces: int, machines: int) -> Path:
    """Write an inventory that has the same hosts."""
    number, groups = 0, {}
    for namespace in range(namespaces):
        hosts = {}
        for each in range(machines):
            number += 1
            hosts[f"ns{namespace}-vm{each}"] = {
                "ansible_host": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            }
        groups[f"namespace_ns{namespace}"] = {"hosts": hosts}
    return write(folder / "static.yml", all={"children": {"cluster": {"children": groups}}})


def measure(namespaces: int, machines: int, options: argparse.Namespace, missed: list[str]) -> None:
    """Measure one size, and print the table."""
    title = f"{namespaces} namespaces x {machines} machines, {options.latency * 1000:.0f} ms"
    with tempfile.TemporaryDirectory(prefix="turtles-bench-") as scratch:
        folder = Path(scratch)
        link = folder / "collections/ansible_collections/turtles/kubevirt"
        link.parent.mkdir(parents=True)
        link.symlink_to(ROOT)
        paths = str(folder / "collections") + (f":{options.peer}" if options.peer else "")
        serving = [sys.executable, __file__, "--serve", f"{namespaces}x{machines}", "--latency", str(options.latency)]
        server = subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdin
        assert server.stdout
        try:
            login = {"host": server.stdout.readline().strip(), "api_key": FakeApi.token}
            cached = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile"}
            runs: dict[str, Run] = {"static": best(static(folder, namespaces, machines), paths, folder, options.rounds)}
            for name, plugin in (("ours", OURS), ("peer", PEER)) if options.peer else (("ours", OURS),):
                common = {"plugin": plugin, "name": "cluster", **login}
                source = write(folder / f"{name}.kubevirt.yml", **common)
                runs[name] = best(source, paths, folder, options.rounds)
                caching = {**common, **cached, "cache_connection": str(folder / f"cache-{name}")}
                source = write(folder / f"{name}-cached.kubevirt.yml", **caching)
                run(source, paths, folder)
                runs[f"{name}, cached"] = best(source, paths, folder, options.rounds)
            if options.all_variables:
                source = write(folder / "all.kubevirt.yml", plugin=OURS, compatibility="kubevirt.core", **login)
                runs["ours, all variables"] = best(source, paths, folder, options.rounds)
        finally:
            server.stdin.close()
            server.wait(30)
    print(f"\n{title}\n{'':22}{'wall':>8}{'cpu':>10}{'memory':>11}{'hosts':>8}")
    for name, each in runs.items():
        print(f"{name:22}{each}{each.hosts:8}")
    judge(title, runs, namespaces * machines, missed)


def judge(title: str, runs: dict[str, Run], machines: int, missed: list[str]) -> None:
    """Print the ratios, and note the targets that are missed."""
    ours, floor = runs["ours"], runs["static"]
    beyond = ours.seconds - floor.seconds
    more = ours.mebibytes - floor.mebibytes
    print(f"beyond the floor: {beyond:.2f} s, {more:.0f} MiB ({ours.seconds / floor.seconds:.1f} times as long)")
    if ours.hosts != machines:
        missed.append(f"{title}: {ours.hosts} hosts instead of {machines}")
    if "peer" in runs:
        ratio = runs["peer"].seconds / ours.seconds
        ratio_cached = runs["peer, cached"].seconds / runs["ours, cached"].seconds
        memory = runs["peer"].mebibytes / ours.mebibytes
        print(f"peer / ours: {ratio:.1f}x the time, {memory:.1f}x the memory; {ratio_cached:.1f}x from the cache")
        if machines == 1000 and ratio < SPEED_UP and "500 namespaces" in title:
            missed.append(f"{title}: {ratio:.1f} times as fast as the peer instead of {SPEED_UP:.0f}")
        if ratio_cached < 1:
            missed.append(f"{title}: from the cache {1 / ratio_cached:.1f} times as slow as the peer")
    if machines >= 10000:
        if beyond > BEYOND_FLOOR:
            missed.append(f"{title}: {beyond:.1f} s beyond the floor instead of {BEYOND_FLOOR:.0f} s")
        if ours.mebibytes > MEMORY:
            missed.append(f"{title}: {ours.mebibytes:.0f} MiB instead of {MEMORY:.0f} MiB")


def size(text: str) -> tuple[int, int]:
    """Read a size such as 500x2."""
    namespaces, _x, machines = text.partition("x")
    return int(namespaces), int(machines)


def main() -> int:
    """Measure all sizes; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=size, default=[(500, 2), (100, 10), (100, 100)], metavar="NxM")
    parser.add_argument("--latency", type=float, default=0.01, help="seconds before each answer")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured; the fastest counts")
    parser.add_argument("--peer", default=os.environ.get("TURTLES_PEER_COLLECTIONS"), help="where kubevirt.core is")
    parser.add_argument("--all-variables", action="store_true", help="also with kubevirt.core's variables")
    parser.add_argument("--serve", type=size, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve, options.latency)
        return 0
    missed: list[str] = []
    for namespaces, machines in options.sizes:
        measure(namespaces, machines, options, missed)
    if not options.peer:
        print("\nNot compared with kubevirt.core: give its folder with --peer or TURTLES_PEER_COLLECTIONS.")
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
