# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.turtles.kubevirt.plugins.inventory import kubevirt


@pytest.fixture
def inventory(server, collections, tmp_path):
    """Runs ansible-inventory on a file with these options; gives its JSON, or the error text."""

    def run(fails=False, warnings=False, **options):
        source = tmp_path / "inventory.kubevirt.yml"
        defaults = {"plugin": "turtles.kubevirt.kubevirt", "host": server.url, "api_key": server.api.token}
        source.write_text(json.dumps({k: v for k, v in {**defaults, **options}.items() if v is not None}))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("K8S_", "KUBE"))}
        environment.update(ANSIBLE_COLLECTIONS_PATH=str(collections), ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="true")
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-inventory", "-i", source, "--list"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=tmp_path,
        )
        assert bool(done.returncode) == fails, done.stderr
        return " ".join(done.stderr.split()) if fails or warnings else json.loads(done.stdout)

    return run


def test_running_machines_are_hosts_in_groups(api, inventory):
    api.instance("default", "web", labels={"app.kubernetes.io/name": "web"}, address="10.0.0.5")
    api.instance("default", "off", phase="Succeeded")
    api.instance("default", "noaddress", interfaces=[])
    listed = inventory(compose={"ansible_user": "labels['app.kubernetes.io/name'] ~ '-user'"})
    hosts = listed["_meta"]["hostvars"]
    assert set(hosts) == {"default-web"}
    web = hosts["default-web"]
    assert web["ansible_host"] == "10.0.0.5"
    assert (web["vmi_name"], web["vmi_namespace"], web["vmi_node_name"]) == ("web", "default", "node1")
    for group in ("kubevirt", "namespace_default", "node_node1", "label_app_kubernetes_io_name_web"):
        assert listed[group]["hosts"] == ["default-web"], group


def test_values_from_the_cluster_are_never_templates(api, inventory):
    api.instance("default", "web")
    note = inventory()["_meta"]["hostvars"]["default-web"]["annotations"]["note"]
    assert note == {"__ansible_unsafe": "{{ 1 }}"}


def test_all_namespaces_are_one_paged_list(api, inventory):
    for number in range(7):
        api.instance("ns%d" % number, "vm", address="10.0.0.%d" % (number + 1))
    api.page = 3
    assert len(inventory()["_meta"]["hostvars"]) == 7
    assert [r[1] for r in api.requests] == ["/apis/kubevirt.io/v1/virtualmachineinstances"] * 3


def test_without_the_right_to_list_all_namespaces_are_read_one_by_one(api, inventory):
    for name in ("a", "b", "closed"):
        api.put("namespaces", {"metadata": {"name": name}})
        api.instance(name, "vm")
    api.forbidden = lambda method, path: path.endswith("v1/virtualmachineinstances") or "/closed/" in path
    assert set(inventory()["_meta"]["hostvars"]) == {"a-vm", "b-vm"}


def test_without_the_right_to_list_namespaces_the_context_names_one(api, server, inventory, tmp_path):
    api.instance("mine", "vm")
    api.forbidden = lambda method, path: "/mine/" not in path
    (tmp_path / "kubeconfig").write_text(json.dumps(server.api.credentials(namespace="mine")))
    listed = inventory(host=None, api_key=None, kubeconfig="kubeconfig")
    assert set(listed["_meta"]["hostvars"]) == {"mine-vm"}


def test_namespaces_and_labels_choose(api, inventory):
    api.instance("a", "one", labels={"x": "1"})
    api.instance("a", "two", labels={"x": "2"})
    api.instance("b", "one", labels={"x": "1"})
    listed = inventory(
        namespaces=["a"], label_selector="x=1", host_format="{cluster}.{name}", name="lab", create_groups=False
    )
    assert set(listed["_meta"]["hostvars"]) == {"lab.one"}
    assert listed["lab"]["hosts"] == ["lab.one"]
    assert "namespace_a" not in listed


def test_the_second_run_reads_the_cache(api, inventory, tmp_path):
    api.instance("default", "web")
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = inventory(**cache)
    api.requests.clear()
    assert inventory(**cache) == first
    assert api.requests == []


def test_constructed_groups(api, inventory):
    api.instance("default", "web", labels={"tier": "front"})
    listed = inventory(
        keyed_groups=[{"key": "labels.tier", "prefix": "tier"}], groups={"fronts": "labels.tier == 'front'"}
    )
    assert listed["tier_front"]["hosts"] == listed["fronts"]["hosts"] == ["default-web"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": "wrong"}, "doesn't accept the credentials"),
        ({"host": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"namespace": ["shop"]}, "namespace isn't an option of the inventory plugin. Is namespaces meant?"),
        ({"colour": "red"}, "colour isn't an option of the inventory plugin."),
        ({"namespaces": ["Bad_Name"]}, "namespaces: 'Bad_Name' isn't a Kubernetes name"),
        ({"host_format": "{nmae}"}, "host_format: '{nmae}' can't be filled in"),
        ({"host_format": "{name}"}, "default/web and other/web the same name web"),
        ({"host": None, "kubeconfig": "nowhere"}, "kubeconfig nowhere doesn't exist"),
    ],
)
def test_bad_options(api, inventory, options, words):
    api.instance("default", "web")
    api.instance("other", "web")
    assert words in inventory(fails=True, **options)


def test_no_right_at_all(api, inventory):
    api.forbidden = lambda method, path: True
    assert "VirtualMachineInstances of namespace default can't be listed" in inventory(fails=True)


@pytest.mark.parametrize(
    ("interfaces", "options", "address"),
    [
        ([{"name": "a", "ipAddress": "fe80::1", "ipAddresses": ["fe80::1", "10.0.0.1"]}], {}, "10.0.0.1"),
        (
            [{"name": "a", "ipAddress": "10.0.0.1"}, {"name": "b", "ipAddress": "10.0.0.2"}],
            {"network_name": "b"},
            "10.0.0.2",
        ),
        ([{"name": "a", "ipAddresses": ["10.0.0.1", "2001:db8::1"]}], {"family": "ipv6"}, "2001:db8::1"),
        ([{"name": "a", "ipAddress": "-oProxyCommand=x"}], {}, None),
        ([], {}, None),
    ],
)
def test_the_address(interfaces, options, address):
    assert kubevirt.address_of({"status": {"interfaces": interfaces}}, **options) == address


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"namespaces": ["default", "nowhere"]}, "namespaces: namespace nowhere doesn't exist"),
        ({"network_name": "lan"}, "none of the 1 running virtual machines has a network lan. They have default."),
    ],
)
def test_what_does_not_exist_is_named(api, inventory, options, words):
    api.instance("default", "web")
    assert words in inventory(warnings=True, **options)
    assert words in inventory(fails=True, strict=True, **options)


def test_machines_without_an_address_draw_one_warning(api, inventory):
    api.instance("default", "web")
    assert "none of the 1 running virtual machines has an address of the family ipv6 yet" in inventory(
        warnings=True, address_family="ipv6", strict=True
    )


@pytest.mark.parametrize("options", [{"namespaces": ["empty"]}, {"network_name": "lan"}])
def test_nothing_running_draws_no_warning(api, inventory, options):
    api.put("namespaces", {"metadata": {"name": "empty"}})
    assert inventory(warnings=True, strict=True, **options) == ""


def test_namespaces_that_may_not_be_read_draw_no_warning(api, inventory):
    api.forbidden = lambda method, path: path.startswith("/api/v1/namespaces")
    assert inventory(warnings=True, namespaces=["a"]) == ""


def test_the_reason_is_given_once(inventory):
    shown = inventory(fails=True, host="http://127.0.0.1:9")
    assert "Max retries" not in shown
    first, _cause, _rest = shown.partition("<<< caused by >>>")
    assert first.count("can't be reached") == 1
    assert first.count("Connection refused") == 1
