# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Debian's Prometheus learns of a guest, with the documentation's configuration and rules."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from cluster import Cluster
from conftest import VARIABLES

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
PORTS = VARIABLES["turtles_metrics_ports"]

Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """The documentation's, for this engine's ports; it scrapes every second."""
    found = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text())
    found["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = found["scrape_configs"]
    for target in job["static_configs"]:
        target["targets"] = [f"127.0.0.1:{PORTS[target['labels']['component']]}"]
    (tmp_path / "kubevirt.rules.yml").write_text((EXAMPLES / "kubevirt.rules.yml").read_text())
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(found))
    checked = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return path


@pytest.fixture
def prometheus(cluster: Cluster, configuration: Path, tmp_path: Path) -> Iterator[Query]:
    """A running Prometheus: a function that returns the answer to a query, once there is one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log)

    def query(expression: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + cluster.seconds(60)
        while True:
            try:
                with urlopen(f"http://{address}/api/v1/query?query={quote(expression)}", timeout=60) as answer:
                    if found := json.load(answer)["data"]["result"]:
                        return found
            except OSError:
                pass
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, f"no answer to {expression}"
            time.sleep(0.5)

    try:
        yield query
    finally:
        process.terminate()
        process.wait(30)


def test_a_trace_of_a_start(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", grace_period=0))
    cluster.wait_running(namespace, "web")
    picture = tmp_path / "web.svg"
    program = f"/opt/{cluster.instance}/venv/bin/virt-trace"
    trace = [program, "--instance", cluster.instance, "--namespace", namespace]
    done = subprocess.run(
        [*trace, "web", "--json", "--picture", str(picture)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)
    order = [
        ("virt-controller", "VMI created"),
        ("virt-controller", "Pod created"),
        ("podrunner", "Pod arrived"),
        ("podrunner", "network and volumes ready"),
        ("podrunner", "container started"),
        ("virt-launcher", "VMI arrived"),
        ("virt-launcher", "ready for the domain"),
        ("virt-handler", "guest started"),
        ("virt-handler", "phase changed"),
    ]
    logged = [(step["component"], step["message"]) for step in steps]
    assert sorted(order, key=logged.index) == order
    assert ET.parse(picture).getroot().tag.endswith("svg")
    done = subprocess.run([*trace, "other"], capture_output=True, text=True, check=False)
    assert (done.returncode, "no start is logged for" in done.stderr) == (1, True), done.stderr


def test_prometheus_sees_the_engine_and_its_guests(cluster: Cluster, namespace: str, prometheus: Query) -> None:
    def value(expression: str) -> float:
        (one,) = prometheus(expression)
        return float(one["value"][1])

    assert value('min(up{job="kubevirt"}) == 1') == 1.0
    cluster.create(namespace, cluster.virtual_machine("web", labels={"tier": "front"}))
    cluster.wait_running(namespace, "web")
    own = f'{{namespace="{namespace}",name="web"'

    (info,) = prometheus(f'kubevirt_vmi_info{own},phase="running"}}')
    assert info["metric"]["vmi_pod"] == cluster.launcher(namespace, "web").metadata.name
    (info,) = prometheus(f'kubevirt_vm_info{own},status="running"}}')
    assert (info["metric"]["status_group"], info["metric"]["machine_type"]) == ("running", "q35")
    (cpu,) = prometheus(f"kubevirt_vmi_cpu_usage_seconds_total{own}}} > 0")
    assert cpu["metric"]["kubevirt_vmi_label_tier"] == "front"
    assert value(f"kubevirt_vmi_memory_domain_bytes{own}}}") == 128 * 2**20
    assert value(f'kubevirt_vm_resource_requests{own},resource="memory",source="guest"}}') == 128 * 2**20
    assert value(f'kubevirt_vmi_vcpu_seconds_total{own},id="0",state="running"}} > 0') > 0
    assert value(f'kubevirt_vmi_storage_read_traffic_bytes_total{own},drive="root"}} > 0') > 0
    assert value(f'kubevirt_vmi_network_transmit_packets_total{own},interface="default"}} > 0') > 0
    assert value('kubevirt_vmi_phase_transition_time_from_creation_seconds_count{phase="Running"}') >= 1
    assert value(f'kubevirt_vmi_status_addresses{own},vnic_name="default"}}') == 1
    for component in PORTS:
        status = f"kubevirt_{component.replace('-', '_')}_ready_status"
        assert value(status) == 1.0
        assert prometheus(f'kubevirt_rest_client_requests_total{{component="{component}",code="200"}} > 0')
    assert prometheus('kubevirt_workqueue_adds_total{name="vm"} > 0')
    assert prometheus("kubevirt_info")
    # Rules
    assert value('sum(node:kubevirt_vmi_phase:sum{phase="running"})') >= 1
    assert value(f'namespace:kubevirt_vm:sum{{namespace="{namespace}"}}') == 1
    assert value("cluster:kubevirt_virt_handler_up:sum") == 1
    assert value(f'kubevirt_vm_created_total{{namespace="{namespace}"}}') == 1
