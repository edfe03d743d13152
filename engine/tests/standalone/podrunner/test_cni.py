# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime's side of the CNI specification, with plugins that write down what they are told."""

import json

import pytest

from turtles.standalone.attachments import addresses
from turtles.standalone.podrunner.cni import Attachment, CNIError, load_network

PLUGIN = """#!/bin/sh
config=$(cat)
echo "{\\"command\\": \\"$CNI_COMMAND\\", \\"plugin\\": \\"$(basename $0)\\", \\"netns\\": \\"$CNI_NETNS\\",
 \\"args\\": \\"$CNI_ARGS\\", \\"ifname\\": \\"$CNI_IFNAME\\", \\"config\\": $config}" | tr -d '\\n' >> %(log)s
echo >> %(log)s
if [ -e %(fail)s-$CNI_COMMAND-$(basename $0) ]; then
  echo '{"code": 11, "msg": "no more", "details": "addresses"}'; exit 1
fi
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.9/24"}], "by": "'$(basename $0)'"}'
exit 0
"""

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "net",
    "plugins": [
        {"type": "one", "some": "thing"},
        {"type": "two", "capabilities": {"portMappings": True, "bandwidth": False}},
    ],
}


@pytest.fixture
def plugins(tmp_path):
    """A directory with the plugins one and two, their log and what makes them fail."""
    for name in ("one", "two"):
        path = tmp_path / name
        path.write_text(PLUGIN % {"log": tmp_path / "log", "fail": tmp_path / "fail"})
        path.chmod(0o755)
    (tmp_path / "netns").touch()
    return tmp_path


def calls(plugins):
    """Return what the plugins were told since the last time."""
    text = (plugins / "log").read_text()
    (plugins / "log").unlink()
    return [json.loads(line) for line in text.splitlines()]


def add(plugins, network=NETWORK):
    """Attach."""
    attachment = Attachment([plugins], plugins / "record.json")
    ports = [{"hostPort": 1, "containerPort": 2, "protocol": "tcp"}]
    return attachment.add(network, "id", plugins / "netns", "eth0", {"K8S_POD_NAME": "p"}, {"portMappings": ports})


def test_add_chains_results_and_del_repeats_what_add_was_told(plugins):
    result = add(plugins)
    assert result["by"] == "two"
    assert addresses(result) == ["10.0.0.9"]
    one, two = calls(plugins)
    assert one["config"] == {"type": "one", "some": "thing", "cniVersion": "1.0.0", "name": "net"}
    assert two["config"]["prevResult"]["by"] == "one"
    assert list(two["config"]["runtimeConfig"]) == ["portMappings"]
    assert "capabilities" not in two["config"]
    assert (two["args"], two["ifname"]) == ("K8S_POD_NAME=p", "eth0")
    assert add(plugins) == result
    assert not (plugins / "log").exists()
    (plugins / "netns").unlink()
    Attachment([plugins], plugins / "record.json").delete()
    two, one = calls(plugins)
    assert (two["plugin"], two["command"], two["netns"]) == ("two", "DEL", "")
    assert two["config"]["prevResult"] == result
    assert list(two["config"]["runtimeConfig"]) == ["portMappings"]
    Attachment([plugins], plugins / "record.json").delete()
    assert not (plugins / "log").exists()


def test_failed_add_is_undone_and_failed_del_can_be_repeated(plugins):
    (plugins / "fail-ADD-two").touch()
    with pytest.raises(CNIError, match="network net, plugin two, ADD: no more addresses"):
        add(plugins)
    assert [(call["command"], call["plugin"]) for call in calls(plugins)] == [
        ("ADD", "one"),
        ("ADD", "two"),
        ("DEL", "two"),
        ("DEL", "one"),
    ]
    (plugins / "fail-ADD-two").unlink()
    add(plugins)
    (plugins / "fail-DEL-one").touch()
    attachment = Attachment([plugins], plugins / "record.json")
    with pytest.raises(CNIError):
        attachment.delete()
    (plugins / "fail-DEL-one").unlink()
    attachment.delete()
    assert attachment.result() is None


def test_interrupted_add_is_undone_before_the_next(plugins):
    add(plugins)
    record = json.loads((plugins / "record.json").read_text())
    del record["result"]
    (plugins / "record.json").write_text(json.dumps(record))
    calls(plugins)
    add(plugins)
    assert [call["command"] for call in calls(plugins)] == ["DEL", "DEL", "ADD", "ADD"]


def test_first_file_counts(tmp_path):
    with pytest.raises(CNIError, match="no CNI network configuration"):
        load_network(tmp_path)
    (tmp_path / "20-b.conflist").write_text(json.dumps(NETWORK))
    (tmp_path / "README").write_text("x")
    assert load_network(tmp_path)["name"] == "net"
    (tmp_path / "10-a.conf").write_text('{"cniVersion": "0.4.0", "name": "single", "type": "bridge"}')
    assert load_network(tmp_path)["plugins"] == [{"type": "bridge"}]
    (tmp_path / "05.conflist").write_text("{}")
    with pytest.raises(CNIError, match="needs name, plugins"):
        load_network(tmp_path)
