# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures tasks: a loop of the module vm, one task of the module fleet and, if it is there, a loop of kubevirt.core's.

All talk to one simulated API server in a process of its own, whose machines run at once, so what is measured is what
the tasks themselves cost, within a play: seconds and requests. The loop also runs as an ordinary module, as it does on
remote hosts, beside one that does nothing: the floor of what ordinary modules cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TARGET = 30
# What clients that know no kinds ask for.
GROUP = {
    "name": "kubevirt.io",
    "versions": [{"groupVersion": "kubevirt.io/v1", "version": "v1"}],
    "preferredVersion": {"groupVersion": "kubevirt.io/v1", "version": "v1"},
}
# This machine, but Ansible doesn't know it.
ELSEWHERE = """
from ansible.plugins.connection.local import DOCUMENTATION as LOCAL, Connection as Local

DOCUMENTATION = LOCAL.replace("name: local", "name: elsewhere")


class Connection(Local):
    transport = "elsewhere"
"""
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
DISCOVERY: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [GROUP]},
    "/apis/kubevirt.io/v1": {
        "kind": "APIResourceList",
        "groupVersion": "kubevirt.io/v1",
        "resources": [
            {"name": f"{kind.lower()}s", "kind": kind, "singularName": kind.lower(), "namespaced": True, "verbs": VERBS}
            for kind in ("VirtualMachine", "VirtualMachineInstance")
        ],
    },
}


def serve(orders: Connection, latency: float) -> None:
    """Be the API server, until told to end: gives its URL and token, then counts of requests."""
    for folder in ("tests/shared", "tests/unit/plugins"):
        sys.path.insert(0, str(ROOT / folder))
    from aiohttp import web
    from api import KubeVirt

    class Slow(KubeVirt):
        async def _handle(self, request: Any) -> Any:
            await asyncio.sleep(latency)
            return await super()._handle(request)

        def intercept(self, method: str, path: str) -> Any:
            if path in DISCOVERY:
                return web.json_response(DISCOVERY[path])
            return super().intercept(method, path)

    api = Slow()
    api.start()
    api.put("namespaces", {"metadata": {"name": "bench"}})
    orders.send((api.url, api.token))
    while orders.recv():
        orders.send(len(api.requests))
        api.requests.clear()
    api.stop()


class Bench:
    """Runs playbooks against the server."""

    def __init__(self, orders: Connection, folder: Path, peer: Path | None) -> None:
        self._orders = orders
        self._folder = folder
        self.url, self.token = orders.recv()
        self._environment = {**os.environ, "K8S_AUTH_HOST": self.url, "K8S_AUTH_API_KEY": self.token}
        (folder / "elsewhere.py").write_text(ELSEWHERE)
        self._environment["ANSIBLE_CONNECTION_PLUGINS"] = str(folder)
        if peer:
            paths = [str(peer), os.environ.get("ANSIBLE_COLLECTIONS_PATH", "")]
            self._environment["ANSIBLE_COLLECTIONS_PATH"] = ":".join(filter(None, paths))

    def run(self, task: dict[str, Any]) -> tuple[float, int]:
        """Seconds and requests of a task."""
        book, kept = self._folder / "bench.yml", self._folder / "seconds"
        now = "now(utc=true).timestamp()"
        keep = {"dest": str(kept), "content": "{{ %s - began }}" % now, "mode": "0600"}
        tasks = [
            {"ansible.builtin.set_fact": {"began": "{{ %s }}" % now}},
            task,
            {"ansible.builtin.copy": keep},
        ]
        book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        self.requests()
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), str(book)],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise SystemExit(done.stdout[-3000:] + done.stderr[-1000:])
        return float(kept.read_text()), self.requests()

    def requests(self) -> int:
        """Requests since the last call."""
        self._orders.send(True)
        return int(self._orders.recv())


def machine(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": "bench", "image": "example.com/web:1", "memory": "64Mi"}


def looped(module: str, count: int, prefix: str, options: dict[str, Any]) -> dict[str, Any]:
    names = [f"{prefix}-{number}" for number in range(count)]
    return {module: {**options, "name": "{{ item }}"}, "loop": names, "loop_control": {"label": "{{ item }}"}}


def elsewhere(task: dict[str, Any]) -> dict[str, Any]:
    """The task with an ordinary module."""
    return {**task, "vars": {"ansible_connection": "elsewhere", "ansible_python_interpreter": sys.executable}}


def peers(name: str) -> dict[str, Any]:
    """The same machine in the options of kubevirt.core, whose spec is that of the template."""
    spec = {
        "domain": {
            "devices": {"disks": [{"name": "containerdisk", "disk": {"bus": "virtio"}}]},
            "memory": {"guest": "64Mi"},
        },
        "volumes": [{"name": "containerdisk", "containerDisk": {"image": "example.com/web:1"}}],
    }
    return {"name": name, "namespace": "bench", "run_strategy": "Always", "spec": spec, "wait": True}


def main() -> None:
    """Measure, print a table, and fail where the fleet isn't as much faster than the peer as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="machines of the fleet (200)")
    parser.add_argument("--loop", type=int, default=40, help="machines of loops; times are per machine (40)")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds that each request takes longer (0)")
    parser.add_argument("--peer", type=Path, help="folder with ansible_collections/kubevirt/core, to compare with")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, options.latency / 1000), daemon=True
    )
    server.start()
    rows: list[tuple[str, str, int, float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(ours, Path(folder), options.peer)
        vms = [machine(f"fleet-{number}") for number in range(options.count)]
        tasks = [
            ("one fleet", options.count, {"turtles.kubevirt.fleet": {"vms": vms}}),
            (
                "vm in a loop",
                options.loop,
                looped("turtles.kubevirt.vm", options.loop, "loop", {**machine(""), "state": "running"}),
            ),
            (
                "vm in a loop, elsewhere",
                options.loop // 4,
                elsewhere(
                    looped("turtles.kubevirt.vm", options.loop // 4, "far", {**machine(""), "state": "running"}),
                ),
            ),
            (
                "ping in a loop, elsewhere",
                options.loop // 4,
                elsewhere({"ansible.builtin.ping": {}, "loop": list(range(options.loop // 4))}),
            ),
        ]
        if options.peer:
            number = max(2, options.loop // 4)
            tasks.append(
                ("kubevirt_vm in a loop", number, looped("kubevirt.core.kubevirt_vm", number, "peer", peers("")))
            )
        for name, count, task in tasks:
            for what in ("created", "unchanged"):
                seconds, requests = bench.run(task)
                rows.append((name, what, count, seconds, requests))
                print(f"{name} {what}: {count} machines, {seconds:.2f} s, {requests} requests", file=sys.stderr)
    ours.send(False)
    server.join(10)
    print(f"| task | machines were | number | seconds | ms per machine | requests | seconds for {options.count} |")
    print("|---|---|---|---|---|---|---|")
    each = {}
    for name, what, count, seconds, requests in rows:
        each[name, what] = seconds / count
        whole = seconds / count * options.count
        print(
            f"| {name} | {what} | {count} | {seconds:.2f} | {seconds / count * 1000:.1f} | {requests} | {whole:.1f} |"
        )
    missed = False
    for name in dict.fromkeys(row[0] for row in rows[2:]):
        for what in ("created", "unchanged"):
            factor = each[name, what] / each["one fleet", what]
            print(f"one fleet is {factor:.0f} times as fast as {name} ({what})")
            missed |= name.startswith("kubevirt_vm") and factor < TARGET
    if missed:
        raise SystemExit(f"one fleet should be {TARGET} times as fast as kubevirt_vm in a loop")


if __name__ == "__main__":
    main()
