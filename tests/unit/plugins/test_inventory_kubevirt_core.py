# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files written for kubevirt.core.kubevirt, with nothing changed but the plugin's name."""

from __future__ import annotations

import pytest


@pytest.fixture
def migrated(server, list_inventory, tmp_path):
    """Runs ansible-inventory on the text of a file of kubevirt.core; gives its JSON."""

    def run(text, **arguments):
        source = tmp_path / "vms.kubevirt.yml"
        text = text.replace("https://192.168.64.4:8443", server.url).replace("xxxxxxxxxxxxxxxx", server.api.token)
        text = text.replace("plugin: kubevirt.core.kubevirt", "plugin: turtles.kubevirt.kubevirt")
        assert "turtles" in text
        source.write_text(text)
        environment = {"K8S_AUTH_HOST": server.url, "K8S_AUTH_API_KEY": server.api.token}
        return list_inventory(source, environment=environment, **arguments)

    return run


@pytest.fixture
def machines(api):
    """A cluster as kubevirt.core's users have it: machines that run and that don't, Services, two networks."""
    for name in ("default", "testing"):
        api.put("namespaces", {"metadata": {"name": name}})
    two = [{"name": "default", "ipAddress": "10.244.0.7"}, {"name": "bridge-network", "ipAddress": "192.0.2.7"}]
    for name, labels in (("testvm", {"app": "test"}), ("testvm2", {"foo": "bar"}), ("testvm-stopped", {"app": "off"})):
        running = name != "testvm-stopped"
        domain = {"kubevirt.io/domain": name}
        api.put(
            "virtualmachines",
            {
                "metadata": {"name": name, "namespace": "testing", "labels": labels, "annotations": {"owner": "ops"}},
                "spec": {"runStrategy": "Always" if running else "Halted", "template": {}},
                "status": {"printableStatus": "Running" if running else "Stopped", "created": running},
            },
        )
        if running:
            interfaces = two if name == "testvm" else two[:1]
            api.instance("testing", name, labels={**labels, **domain}, interfaces=interfaces)
    api.instance(
        "default",
        "win",
        labels={"kubevirt.io/domain": "win"},
        guestOSInfo={"id": "mswindows", "name": "Microsoft Windows"},
    )
    ports = [{"name": "web", "port": 443, "targetPort": 443, "nodePort": 32000}]
    for name, namespace, target in (("testvm", "testing", 22), ("win", "default", 5986)):
        api.put(
            "services",
            {
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "type": "NodePort",
                    "selector": {"kubevirt.io/domain": name},
                    "ports": [*ports, {"name": "m", "port": 2022, "targetPort": target, "nodePort": 30000 + target}],
                },
            },
        )


def hosts_of(listed):
    return listed["_meta"]["hostvars"]


# The files have the forms of kubevirt.core's documentation, examples and integration tests.

TOKEN = """
# Authenticate with token and return all virtual machines
plugin: kubevirt.core.kubevirt
host: https://192.168.64.4:8443
api_key: xxxxxxxxxxxxxxxx
validate_certs: false
"""


def test_a_token_and_all_namespaces(machines, server, migrated):
    listed = migrated(TOKEN)
    assert set(hosts_of(listed)) == {"default-win", "testing-testvm", "testing-testvm2"}
    # The group of a cluster without a name is made of its address.
    cluster = "_" + server.url.removeprefix("http://1").replace(".", "_").replace(":", "_")
    assert set(listed[cluster]["children"]) == {"namespace_default", "namespace_testing"}
    testvm = hosts_of(listed)["testing-testvm"]
    assert (testvm["ansible_host"], testvm["ansible_port"]) == ("node1", 30022)
    windows = hosts_of(listed)["default-win"]
    assert (windows["ansible_connection"], windows["ansible_port"]) == ("winrm", 35986)


NETWORK = """
plugin: kubevirt.core.kubevirt
connections:
  - namespaces:
      - testing
    interface_name: bridge-network
    create_groups: yes
"""


def test_connections_and_a_network_by_its_older_name(machines, migrated):
    listed = migrated(NETWORK)
    assert set(hosts_of(listed)) == {"testing-testvm"}
    assert hosts_of(listed)["testing-testvm"]["ansible_host"] == "192.0.2.7"
    assert listed["label_app_test"]["hosts"] == ["testing-testvm"]


SECONDARY_DNS = """
plugin: kubevirt.core.kubevirt
name: lab
namespaces: [testing]
network_name: bridge-network
kube_secondary_dns: true
base_domain: example.com
host_format: "{name}.{namespace}.{uid}"
"""


def test_names_of_kubesecondarydns(machines, api, migrated):
    listed = migrated(SECONDARY_DNS)
    uid = api.get("virtualmachineinstances", "testing", "testvm")["metadata"]["uid"]
    assert hosts_of(listed)[f"testvm.testing.{uid}"]["ansible_host"] == "bridge-network.testvm.testing.vm.example.com"
    assert listed["lab"]["children"] == ["namespace_testing"]


LABELS = """
plugin: kubevirt.core.kubevirt
name: test
namespaces:
  - testing
label_selector: app=test
create_groups: true
append_base_domain: true
base_domain: nodes.example.com
unset_ansible_port: false
default_win_ansible_connection: psrp
compose:
  role: "'db' if vm_labels.app == 'test' else 'none'"
  node: vmi_node_name
groups:
  ours: "'test' in vmi_labels.app and vm_annotations.owner == 'ops'"
keyed_groups:
  - key: vmi_phase | lower
    prefix: phase
strict: true
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: kubevirt-cache
"""


def test_labels_constructed_groups_and_a_cache(machines, api, migrated):
    listed = migrated(LABELS)
    assert set(hosts_of(listed)) == {"testing-testvm"}
    testvm = hosts_of(listed)["testing-testvm"]
    assert (testvm["ansible_host"], testvm["ansible_port"]) == ("node1.nodes.example.com", 30022)
    assert (testvm["role"], testvm["node"]) == ("db", "node1")
    for group in ("label_app_test", "ours", "phase_running", "namespace_testing"):
        assert listed[group]["hosts"] == ["testing-testvm"]
    api.requests.clear()
    assert migrated(LABELS) == listed
    assert api.requests == []


EVERYTHING = """
plugin: kubevirt.core.kubevirt
compatibility: kubevirt.core
name: lab
namespaces: [testing]
use_service: false
create_groups: true
proxy_headers: {user_agent: inventory}
persist_config: false
"""


def test_with_compatibility_the_variables_and_stopped_machines_are_those_of_kubevirt_core(machines, migrated):
    tree = migrated(EVERYTHING)
    assert set(tree["all"]["children"]) == {"ungrouped", "label_app_test", "label_app_off", "label_foo_bar", "lab"} | {
        "label_kubevirt_io_domain_%s" % name for name in ("testvm", "testvm2")
    }
    listed = hosts_of(tree)
    assert set(listed) == {"testing-testvm", "testing-testvm2", "testing-testvm-stopped"}
    stopped = listed["testing-testvm-stopped"]
    assert (stopped["vm_printable_status"], stopped["state"]) == ("Stopped", "Stopped")
    assert (stopped["vm_labels"], stopped["vm_annotations"]) == ({"app": "off"}, {"owner": "ops"})
    assert not {"ansible_host", "ansible_port", "vmi_uid", "vm_spec"} & set(stopped)
    testvm = listed["testing-testvm"]
    assert testvm["ansible_host"] == "10.244.0.7"
    assert testvm["ansible_port"] is None
    assert testvm["vmi_interfaces"][1] == {"name": "bridge-network", "ipAddress": "192.0.2.7"}
    assert testvm["vmi_labels"] == {"app": "test", "kubevirt.io/domain": "testvm"}
    assert {"vm_uid", "vm_resource_version", "vmi_uid", "vmi_resource_version", "vmi_node_name"} <= set(testvm)
    assert "vmi_spec" not in testvm
