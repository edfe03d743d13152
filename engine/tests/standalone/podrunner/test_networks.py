# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods with several networks for real: definitions, CNI plugins, network namespaces."""

import json
import subprocess
import uuid

import pytest

from turtles.kube.resources import NETWORK, POD
from turtles.standalone.podrunner import network
from turtles.standalone.podrunner.poddir import PodDir

pytestmark = pytest.mark.root

NETWORKS, STATUS = "k8s.v1.cni.cncf.io/networks", "k8s.v1.cni.cncf.io/network-status"


@pytest.fixture
def link():
    """A link of the host for macvlan, and a name for bridges; both are removed."""
    name = f"tn{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "link", "add", f"{name}v", "type", "veth", "peer", "name", f"{name}w"], check=True)
    subprocess.run(["ip", "link", "set", f"{name}v", "up"], check=True)
    subprocess.run(["ip", "link", "set", f"{name}w", "up"], check=True)
    yield name
    for each in (f"{name}v", f"{name}b"):
        subprocess.run(["ip", "link", "delete", each], capture_output=True)


def define(node, name, config, namespace="default"):
    """Create a definition, or another one in its place."""
    node.client.objects.pop(("network-attachment-definitions", namespace, name), None)
    text = config if isinstance(config, str) else json.dumps(config)
    return node.client.add(NETWORK, {"metadata": {"name": name, "namespace": namespace}, "spec": {"config": text}})


def bridge_of(tmp_path, link, **ipam):
    """Return a definition of a bridge."""
    addresses = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "subnet": "192.0.2.0/24", **ipam}
    return {"cniVersion": "0.4.0", "type": "bridge", "bridge": f"{link}b", "ipam": addresses}


def in_pod(node, pod, *command):
    """Run a command in a Pod's network namespace."""
    path = network.namespace_path(node.config, pod["metadata"]["uid"])
    done = subprocess.run(["nsenter", f"--net={path}", *command], capture_output=True, text=True, check=True)
    return done.stdout


def leases(tmp_path):
    """Return the addresses that host-local has given away."""
    return sorted(path.name for path in (tmp_path / "ipam").rglob("192.*"))


def test_networks_of_several_types(node, link, tmp_path):
    define(node, "blue", bridge_of(tmp_path, link))
    chain = [{"type": "macvlan", "master": f"{link}v"}, {"type": "tuning", "sysctl": {}, "mtu": 1400}]
    define(node, "red", {"cniVersion": "0.4.0", "name": "red", "plugins": chain}, "other")
    wanted = [
        {"name": "blue", "interface": "pod1", "mac": "02:00:00:00:00:01"},
        {"name": "red", "namespace": "other"},
    ]
    pod = node.pod("serve", name="pod1", annotations={NETWORKS: json.dumps(wanted)})
    pod = node.phase("Running")
    own, blue, red = json.loads(pod["metadata"]["annotations"][STATUS])
    assert (own["default"], own["interface"], own["ips"]) == (True, "eth0", [pod["status"]["podIP"]])
    assert (blue["name"], blue["interface"], blue["mac"]) == ("default/blue", "pod1", "02:00:00:00:00:01")
    assert blue["ips"] == leases(tmp_path)
    assert (red["name"], red["interface"], red["ips"]) == ("other/red", "net2", [])
    links = {each["ifname"]: each for each in json.loads(in_pod(node, pod, "ip", "-json", "addr"))}
    assert links["pod1"]["address"] == "02:00:00:00:00:01"
    assert (links["net2"]["address"], links["net2"]["mtu"]) == (red["mac"], 1400)
    assert len(pod["status"]["podIPs"]) == 1
    node.client.delete(POD, "default", "pod1", uid=pod["metadata"]["uid"])
    node.wait(lambda found: found is None)
    assert leases(tmp_path) == []


def test_other_types(node, link, tmp_path):
    addresses = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "subnet": "192.0.2.0/24"}
    static = {"type": "static", "addresses": [{"address": "198.51.100.7/24"}]}
    define(node, "link", {"cniVersion": "0.4.0", "type": "ptp", "ipam": addresses})
    define(node, "device", {"cniVersion": "0.4.0", "type": "host-device", "device": f"{link}w"})
    define(node, "lan", {"cniVersion": "0.4.0", "type": "macvlan", "master": f"{link}v", "ipam": static})
    node.pod("serve", annotations={NETWORKS: "link, device, lan"})
    pod = node.phase("Running")
    _, ptp, device, lan = json.loads(pod["metadata"]["annotations"][STATUS])
    assert (ptp["ips"], lan["ips"]) == (leases(tmp_path), ["198.51.100.7"])
    found = {each["ifname"]: each["address"] for each in json.loads(in_pod(node, pod, "ip", "-json", "addr"))}
    assert (found["net2"], found["net3"]) == (device["mac"], lan["mac"])
    assert subprocess.run(["ip", "link", "show", f"{link}w"], capture_output=True).returncode, "the device has left"
    node.client.delete(POD, "default", "pod1", uid=pod["metadata"]["uid"])
    node.wait(lambda found: found is None)
    subprocess.run(["ip", "link", "show", f"{link}w"], check=True, capture_output=True)


def test_the_nodes_own_network_can_be_replaced(node, link, tmp_path):
    define(node, "blue", bridge_of(tmp_path, link))
    node.pod("serve", annotations={"v1.multus-cni.io/default-network": "blue"})
    pod = node.phase("Running")
    (own,) = json.loads(pod["metadata"]["annotations"][STATUS])
    assert (own["name"], own["interface"], own["default"]) == ("default/blue", "eth0", True)
    assert [pod["status"]["podIP"]] == own["ips"] == leases(tmp_path)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (None, "NetworkAttachmentDefinition default/blue does not exist"),
        ("{", "NetworkAttachmentDefinition default/blue: spec.config is not valid JSON"),
        ({"type": "nothing"}, "default/blue: spec.config names the CNI plugin 'nothing'; this node has "),
        ("", "default/blue has no spec.config, and no file in "),
        (
            {"cniVersion": "0.4.0", "type": "macvlan", "master": "missing0"},
            "default/blue: spec.config names master 'missing0', an interface that this node lacks",
        ),
        (
            {"cniVersion": "0.4.0", "type": "bridge", "mtu": -1, "bridge": "far-too-long-a-name"},
            "NetworkAttachmentDefinition default/blue: CNI network blue, plugin bridge, ADD: ",
        ),
    ],
)
def test_a_network_that_is_not_there_is_named_until_it_is(node, link, tmp_path, written, words):
    if written is not None:
        define(node, "blue", written)
    node.pod("serve", annotations={NETWORKS: "blue"})

    def waits(pod):
        waiting = pod["status"]["containerStatuses"][0]["state"].get("waiting", {}) if pod["status"] else {}
        return waiting.get("reason") == "CreatePodSandboxError" and words in waiting["message"]

    pod = node.wait(waits)
    assert pod["status"]["phase"] == "Pending"
    assert [reason for _, reason, message in node.recorder.events if words in message] == ["FailedCreatePodSandBox"]
    define(node, "blue", bridge_of(tmp_path, link))
    pod = node.phase("Running")
    assert len(json.loads(pod["metadata"]["annotations"][STATUS])) == 2


def test_a_running_pod_needs_no_definition_any_more(node, link, tmp_path):
    define(node, "blue", bridge_of(tmp_path, link))
    node.pod("serve", annotations={NETWORKS: "blue"})
    pod = node.phase("Running")
    node.runner.stop()
    node.client.objects.pop(("network-attachment-definitions", "default", "blue"))
    node.new_runner()
    node.client.delete(POD, "default", "pod1", uid=pod["metadata"]["uid"])
    node.wait(lambda found: found is None)
    assert leases(tmp_path) == []


def test_a_pod_can_be_deleted_whose_networks_device_is_gone(node, link, tmp_path):
    config = bridge_of(tmp_path, link)
    define(node, "blue", {**config, "type": "macvlan", "master": f"{link}v"})
    node.pod("serve", annotations={NETWORKS: "blue"})
    pod = node.phase("Running")
    assert leases(tmp_path)
    subprocess.run(["ip", "link", "delete", f"{link}v"], check=True)
    node.client.delete(POD, "default", "pod1", uid=pod["metadata"]["uid"])
    node.wait(lambda found: found is None)
    assert leases(tmp_path) == []


def test_attachments_of_a_killed_podrunner_are_checked_and_made_again(node, link, tmp_path):
    define(node, "blue", bridge_of(tmp_path, link))
    pod = {
        "metadata": {
            "name": "pod2",
            "namespace": "default",
            "uid": "kept",
            "annotations": {NETWORKS: "blue@one,blue@two"},
        },
        "spec": {"containers": []},
    }
    directory = PodDir(node.config.pods_dir, "kept")
    directory.create(pod)
    node.runner.stop()

    def networks():
        return network.Networks(node.config, lambda *_: node.client.get(NETWORK, "default", "blue"))

    try:
        networks().set_up(pod, directory, fresh=True)
        assert len(leases(tmp_path)) == 2
        # A plugin was killed before it said what it did, and something took an interface away.
        record = directory.path / "cni-002.json"
        record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "result"}))
        in_pod(node, pod, "ip", "link", "delete", "one")
        networks().set_up(pod, directory, fresh=True)
        assert len(leases(tmp_path)) == 2
        names = {each["ifname"] for each in json.loads(in_pod(node, pod, "ip", "-json", "link"))}
        assert {"lo", "eth0", "one", "two"} == names
    finally:
        network.tear_down(node.config, directory)
    assert leases(tmp_path) == []
    node.new_runner()


def test_a_running_pod_is_attached_and_detached(node, link, tmp_path):
    """As its annotation says by now; what a podrunner missed, the next one makes up for."""
    pod = node.pod("serve")
    node.phase("Running")

    def choose(text):
        node.client.patch(POD, "default", "pod1", {"metadata": {"annotations": {NETWORKS: text}}})

    def attached(count):
        return node.wait(lambda found: len(json.loads(found["metadata"]["annotations"].get(STATUS) or "[0]")) == count)

    def names():
        return {each["ifname"] for each in json.loads(in_pod(node, pod, "ip", "-json", "link"))} - {"lo"}

    choose("blue@one")
    words = "NetworkAttachmentDefinition default/blue does not exist"
    node.wait(lambda _: any(words in message for _, _, message in node.recorder.events))
    assert (
        "Warning",
        "FailedAttachNetwork",
        f"{words}; create it, or correct the Pod's annotation (trying again)",
    ) in (node.recorder.events)
    define(node, "blue", bridge_of(tmp_path, link))
    found = attached(2)
    assert json.loads(found["metadata"]["annotations"][STATUS])[1]["ips"] == leases(tmp_path)
    assert found["status"]["phase"] == "Running"
    assert names() == {"eth0", "one"}
    choose("blue@one,blue@two")
    attached(3)
    choose("blue@two")
    attached(2)
    assert names() == {"eth0", "two"}
    node.runner.stop()
    choose("[]")
    node.new_runner()
    attached(1)
    assert (names(), leases(tmp_path)) == ({"eth0"}, [])
