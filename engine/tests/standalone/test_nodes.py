# SPDX-License-Identifier: GPL-3.0-or-later
"""Several nodes on one machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from turtles.standalone import init
from turtles.standalone.apiserver.main import _by_node
from turtles.standalone.podrunner import service_table
from turtles.standalone.podrunner.config import ConfigError, parse

BASE = {
    "nodeName": "one",
    "kubeconfig": "/etc/t/podrunner.kubeconfig",
    "rootDir": "/var/lib/t/kubelet",
    "runDir": "/run/t",
    "imagesDir": "/var/lib/t/images",
    "cniConfDir": "/etc/t/cni",
    "cniBinDir": "/usr/lib/cni",
}
OTHERS = [{"bridge": "t1", "podCIDR": "10.8.0.0/24"}]


def initialize(folder: Path, capsys: pytest.CaptureFixture[str], *nodes: str) -> dict[str, Any]:
    options = [f"--config-dir={folder / 'etc'}", f"--data-dir={folder / 'data'}"]
    assert init.main([*options, *(f"--node-name={node}" for node in nodes)]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_each_node_is_a_user_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert initialize(tmp_path, capsys, "one", "two")["changed"]
    assert not initialize(tmp_path, capsys, "one", "two")["changed"]

    def users() -> list[str]:
        return [row[1] for row in init.read_tokens(tmp_path / "etc/tokens.csv") if row[1].startswith("system:node:")]

    assert users() == ["system:node:one", "system:node:two"]
    second = yaml.safe_load((tmp_path / "etc/podrunner-two.kubeconfig").read_text())
    assert second["users"][0]["name"] == "system:node:two"
    # One that is removed loses its token
    initialize(tmp_path, capsys, "one")
    assert users() == ["system:node:one"]


def test_the_api_server_finds_each_nodes_socket() -> None:
    assert _by_node(["/run/t/node.sock", "two=/run/t/nodes/two/node.sock"]) == {
        "": Path("/run/t/node.sock"),
        "two": Path("/run/t/nodes/two/node.sock"),
    }


def test_one_node_serves_the_others(tmp_path: Path) -> None:
    network = {
        "cniVersion": "0.4.0",
        "name": "t",
        "plugins": [{"type": "bridge", "bridge": "t0", "ipam": {"ranges": [[{"subnet": "10.9.0.0/24"}]]}}],
    }
    (tmp_path / "10.conflist").write_text(json.dumps(network))
    services = {"cidr": "10.96.0.0/16", "otherNodes": OTHERS}
    found = service_table.served(parse({**BASE, "cniConfDir": str(tmp_path), "services": services}))
    assert found is not None
    (settings,), bridges = found
    assert (settings.pod_ranges, settings.masquerades) == (("10.9.0.0/24", "10.8.0.0/24"), True)
    assert bridges == ("t0", "t1")


def test_services_of_two_families(tmp_path: Path) -> None:
    subnets = [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]
    plugins = [{"type": "bridge", "bridge": "t0", "ipam": {"ranges": subnets}}]
    (tmp_path / "10.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "t", "plugins": plugins}))
    services = {
        "cidr": "10.96.0.0/16",
        "cidrIPv6": "fd00:96::/112",
        "nodePortAddresses": ["127.0.0.0/8", "fd00:9::1/128"],
        "externalAddresses": ["198.51.100.1/32", "2001:db8::1/128"],
        "otherNodes": [{"bridge": "t1", "podCIDR": "10.8.0.0/24", "podCIDRIPv6": "fd00:8::/64"}],
    }
    found = service_table.served(parse({**BASE, "cniConfDir": str(tmp_path), "services": services}))
    assert found is not None
    (ipv4, ipv6), bridges = found
    assert ipv4.pod_ranges == ("10.9.0.0/24", "10.8.0.0/24")
    assert ipv6.pod_ranges == ("fd00:9::/64", "fd00:8::/64")
    assert (ipv6.service_range, ipv6.masquerades) == ("fd00:96::/112", False)
    assert (ipv4.node_port_ranges, ipv6.node_port_ranges) == (("127.0.0.0/8",), ("fd00:9::1/128",))
    assert (ipv4.external_ranges, ipv6.external_ranges) == (("198.51.100.1/32",), ("2001:db8::1/128",))
    assert bridges == ("t0", "t1")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([{"bridge": "t1"}], "otherNodes needs bridge and podCIDR"),
        ([{"bridge": "t1", "podCIDR": "nonsense"}], "nonsense is not an IPv4 network"),
    ],
)
def test_other_nodes_that_make_no_sense(others: list[Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse({**BASE, "services": {"cidr": "10.96.0.0/16", "otherNodes": others}})
