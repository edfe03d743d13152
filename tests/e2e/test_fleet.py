# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fleets of real guests, and the examples that are fleets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from kubernetes.client.exceptions import ApiException

from playbooks import playbook, recap

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"
FLEET = """
- hosts: localhost
  gather_facts: false
  tasks:
    - turtles.kubevirt.fleet:
        namespace: "{{ place }}"
        labels: {fleet: "yes"}
        template:
          name: web-{{ index }}
          image: "{{ image }}"
          memory: "{{ memory | default('128Mi') }}"
          termination_grace_period: 2
          interfaces: [{name: default}]
        count: "{{ count | default(3) }}"
        rollout: {canary: 1, on_failure: rollback, restart: true}
        wait_for: "{{ wait_for | default('address') }}"
        prune: {label_selector: fleet=yes, max: 1}
        wait_timeout: 120
      register: fleet
    - ansible.builtin.debug:
        msg: "SUMMARY {{ fleet.summary }}"
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fleet(cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the playbook with variables."""
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    (tmp_path / "fleet.yml").write_text(FLEET)

    def run(check: bool = True, **variables: Any) -> subprocess.CompletedProcess[str]:
        given = json.dumps({"place": namespace, "image": cluster.image, **variables})
        return playbook("fleet.yml", "-e", given, folder=tmp_path, check=check)

    return run


def names(cluster: Cluster, namespace: str) -> list[str]:
    found = cluster.custom.list_namespaced_custom_object("kubevirt.io", "v1", namespace, "virtualmachines")
    return sorted(item["metadata"]["name"] for item in found["items"])


def test_a_fleet_that_was_interrupted_goes_on(cluster: Cluster, namespace: str, fleet: Run, tmp_path: Path) -> None:
    given = json.dumps({"place": namespace, "image": cluster.image})
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "fleet.yml", "-e", given]
    said = (tmp_path / "first.log").open("wb")
    with said, subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as first:
        # The canary has been declared, and is starting.
        cluster.wait(namespace, "virtualmachines", "web-1", bool, timeout=60, what="canary")
        # Ansible's workers, one of which runs the task, are in sessions of their own.
        workers = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        for pid in (first.pid, *map(int, workers)):
            os.kill(pid, signal.SIGKILL)
    output = fleet().stdout
    assert "SUMMARY {'unchanged': 1, 'created': 2}" in output
    assert recap(output)["changed"] == 1
    again = fleet(wait_for="ssh").stdout
    assert recap(again)["changed"] == 0
    uids = [cluster.wait_running(namespace, name)["metadata"]["uid"] for name in ("web-1", "web-2", "web-3")]

    # A canary that fails is rolled back, and the others aren't touched.
    failed = fleet(check=False, image="oci-archive:/nowhere/at-all.tar")
    assert failed.returncode == 2
    assert "1 of 3 machines in batch 1 of 2 failed. VirtualMachine" in failed.stdout
    assert "1 that had been changed were rolled back" in failed.stdout
    now = [cluster.wait_running(namespace, name)["metadata"]["uid"] for name in ("web-1", "web-2", "web-3")]
    assert now[0] != uids[0]
    assert now[1:] == uids[1:]
    assert recap(fleet().stdout)["changed"] == 0

    refused = fleet(check=False, count=1)
    assert "prune: 2 machines match fleet=yes and aren't declared, but prune.max allows 1" in refused.stdout
    assert names(cluster, namespace) == ["web-1", "web-2", "web-3"]
    assert "SUMMARY {'unchanged': 2, 'pruned': 1}" in fleet(count=2).stdout
    assert names(cluster, namespace) == ["web-1", "web-2"]


@pytest.fixture
def examples(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The namespaces of the examples are gone in the end, whatever happens."""
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    yield
    for name, machines in (
        ("web-tier", ("web-1", "web-2")),
        ("dev-ada", ("scratch",)),
        ("dev-grace", ("scratch",)),
        ("nfv", ("function-1", "function-2", "subscriber")),
    ):
        try:
            cluster.core.delete_namespace(name)
        except ApiException as error:
            if error.status != 404:
                raise
        for machine in machines:
            cluster.wait_gone(name, machine)
    for bridge in ("nfv-control", "nfv-data"):
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)


def page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=60) as answer:
        content: bytes = answer.read()
    return content.decode()


@pytest.mark.usefixtures("examples")
def test_a_web_tier_behind_a_service(cluster: Cluster, tmp_path: Path) -> None:
    def run(*words: str, check: bool = True) -> str:
        where = ("-e", f"fleet_file={EXAMPLES / 'web-tier.yml'}", "-e", f"image={cluster.image}")
        return playbook("turtles.kubevirt.fleet", *where, *words, folder=tmp_path, check=check).stdout

    assert (recap(run())["changed"], recap(run())["changed"]) == (2, 0)
    service = cluster.core.read_namespaced_service("web", "web-tier").spec.cluster_ip
    # Each connection goes to one of them by chance.
    assert {page(service) for _connection in range(20)} == {"Hello from the left\n", "Hello from the right\n"}
    wrong = (EXAMPLES / "web-tier.yml").read_text().replace("memory:", "memroy:")
    (tmp_path / "wrong.yml").write_text(wrong)
    output = run("-e", f"fleet_file={tmp_path / 'wrong.yml'}", check=False)
    assert "wrong.yml: vms[0].template.memroy: unknown key. Did you mean memory?" in output
    run("-e", "fleet_state=absent", "-e", "fleet_remove_namespaces=true")
    with pytest.raises(ApiException, match="404"):
        cluster.core.read_namespace("web-tier")


@pytest.mark.usefixtures("examples")
def test_a_pair_on_two_networks(cluster: Cluster, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        where = ("-e", f"fleet_file={EXAMPLES / 'nfv-pair.yml'}", "-e", f"image={cluster.image}")
        key = json.dumps({"ssh_key": cluster.key.with_suffix(".pub").read_text().strip()})
        return playbook("turtles.kubevirt.fleet", *where, "-e", key, *words, folder=tmp_path).stdout

    # Namespace, networks; then the machines.
    assert (recap(run())["changed"], recap(run())["changed"]) == (2, 0)
    subscriber = cluster.wait_running("nfv", "subscriber")["status"]["interfaces"][0]["ipAddress"]

    def answered_by(name: str) -> None:
        ask = f"wget -q -T 2 -O - http://192.0.2.1/ | grep -q {name}"
        cluster.ssh(subscriber, f"n=0; until {ask} || [ $n -gt 60 ]; do sleep 1; n=$((n+1)); done; {ask}", timeout=180)

    answered_by("function-1")
    cluster.subresource("nfv", "function-1", "stop")
    answered_by("function-2")
    cluster.subresource("nfv", "function-1", "start")
    answered_by("function-1")
    run("-e", "fleet_state=absent", "-e", "fleet_remove_namespaces=true")
    with pytest.raises(ApiException, match="404"):
        cluster.core.read_namespace("nfv")


@pytest.mark.usefixtures("examples")
def test_a_cloud_of_throw_away_machines(cluster: Cluster, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        where = ("-e", f"image={cluster.image}")
        return playbook(str(EXAMPLES / "devtest.yml"), *where, *words, folder=tmp_path).stdout

    first = run()
    assert recap(first)["changed"] == 2, first
    assert "ada: " in first
    assert recap(run())["changed"] == 0
    # Nobody's machine is older than an hour, and all are older than a second.
    assert names(cluster, "dev-ada") == ["scratch"]
    run("-e", "ttl=1")
    assert (names(cluster, "dev-ada"), names(cluster, "dev-grace")) == ([], [])
