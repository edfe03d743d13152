# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several clusters: in one file, and in a file each; and what the cache keeps of each."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from ansible_collections.turtles.kubevirt.plugins.inventory import kubevirt
from api import KubeVirt
from conftest import PLUGIN


@pytest.fixture
def berlin(api):
    """A cluster with a machine."""
    api.instance("shop", "web", address="10.1.0.1")
    return api


@pytest.fixture
def paris():
    """Another one, whose machine has the same name."""
    running = KubeVirt()
    running.start()
    running.instance("shop", "web", address="10.2.0.1")
    yield running
    running.stop()


def entry(api, **options):
    return {"host": api.url, "api_key": api.token, **options}


def test_hosts_and_groups_of_clusters_in_one_file_do_not_mix(berlin, paris, inventory):
    clusters = [entry(berlin, name="berlin"), entry(paris, name="paris", network_name="default")]
    listed = inventory(host=None, api_key=None, clusters=clusters, group_by=["namespace", "node"])
    hosts = listed["_meta"]["hostvars"]
    assert {host: hosts[host]["ansible_host"] for host in hosts} == {
        "berlin-shop-web": "10.1.0.1",
        "paris-shop-web": "10.2.0.1",
    }
    assert [hosts[host]["cluster_name"] for host in sorted(hosts)] == ["berlin", "paris"]
    assert listed["berlin"]["children"] == ["berlin_namespace_shop"]
    assert listed["berlin_namespace_shop"]["hosts"] == ["berlin-shop-web"]
    assert listed["namespace_shop"] == {"children": ["berlin_namespace_shop", "paris_namespace_shop"]}
    assert len(listed["node_node1"]["hosts"]) == 2


def test_contexts_name_clusters(berlin, paris, inventory, tmp_path):
    one, two = berlin.credentials(), paris.credentials()
    for config, name in ((one, "berlin"), (two, "paris")):
        for each in ("contexts", "clusters", "users"):
            config[each][0]["name"] = name
        config["contexts"][0]["context"] = {"cluster": name, "user": name}
    both = {key: one[key] + two[key] if isinstance(one[key], list) else one[key] for key in one}
    (tmp_path / "kubeconfig").write_text(json.dumps({**both, "current-context": "berlin"}))
    clusters = [{"context": "berlin"}, {"context": "paris"}]
    # The environment's host would be the same for both.
    listed = inventory(
        host=None,
        api_key=None,
        kubeconfig="kubeconfig",
        clusters=clusters,
        environment={"K8S_AUTH_HOST": "http://127.0.0.1:9"},
    )
    assert set(listed["_meta"]["hostvars"]) == {"berlin-shop-web", "paris-shop-web"}


@pytest.mark.parametrize(
    ("clusters", "words"),
    [
        ([{"name": "a"}, {"name": "a"}], "clusters: 2 of them are named a. Give each a unique name."),
        ([{"name": "a", "name_space": ["x"]}], "clusters[0]: name_space isn't an option of a cluster. Did you mean"),
        ([{"name": "a"}, {"name": "b", "node_address": "nowhere"}], "clusters[1].node_address: must be one of name, "),
        ([{"name": "a"}, "b"], "clusters[1]: must be a mapping of options, but is the text 'b'."),
        ([{"name": "a", "use_service": {}}], "clusters[0].use_service: must be a bool, but is a mapping."),
        ([], "clusters: must have at least one entry."),
        ([{"name": "a"}, {"name": "b", "host": "http://127.0.0.1:9"}], "clusters[1]: The Kubernetes API at http://127"),
    ],
)
def test_bad_clusters(berlin, inventory, clusters, words):
    assert words in inventory(fails=True, clusters=clusters)


def test_the_same_name_in_several_clusters_is_an_error(berlin, paris, inventory):
    clusters = [entry(berlin, name="berlin"), entry(paris, name="paris")]
    error = inventory(fails=True, host=None, clusters=clusters, host_format="{namespace}-{name}")
    assert "shop/web of berlin and shop/web of paris the same name shop-web. Add a distinguishing field" in error
    assert "{cluster}" in error


def test_files_of_two_clusters_do_not_share_groups(berlin, paris, list_inventory, tmp_path):
    for name, api in (("berlin", berlin), ("paris", paris)):
        options = {"plugin": PLUGIN, "name": name, "host_format": "{cluster}-{name}", **entry(api)}
        (tmp_path / f"{name}.kubevirt.yml").write_text(json.dumps(options))
    files = ["berlin.kubevirt.yml", "paris.kubevirt.yml"]
    listed = list_inventory(*files)
    assert listed["berlin"]["children"] == ["namespace_shop"]
    assert listed["namespace_shop"]["hosts"] == ["berlin-web"]
    assert listed["paris"]["children"] == ["paris_namespace_shop"]
    assert listed["paris_namespace_shop"]["hosts"] == ["paris-web"]
    warned = list_inventory(*files, warnings=True)
    assert "namespace_shop belongs to the cluster berlin of an earlier inventory file" in warned
    (tmp_path / "paris.kubevirt.yml").write_text(json.dumps({**options, "host_format": "berlin-{name}"}))
    assert "host berlin-web is a virtual machine of an earlier inventory file" in list_inventory(*files, warnings=True)


def test_the_cache_is_kept_per_cluster_and_question(berlin, paris, inventory, tmp_path):
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}

    def address(**options):
        berlin.requests.clear()
        paris.requests.clear()
        hosts = inventory(**cache, **options)["_meta"]["hostvars"]
        return [host["ansible_host"] for host in hosts.values()], bool(berlin.requests or paris.requests)

    assert address() == (["10.1.0.1"], True)
    assert address() == (["10.1.0.1"], False)
    # How hosts are named and grouped isn't in the cache.
    assert address(host_format="{name}", create_groups=True, compose={"a": "vmi_name"}) == (["10.1.0.1"], False)
    assert address(host=paris.url) == (["10.2.0.1"], True)
    assert address(host=paris.url, label_selector="a=b") == ([], True)
    assert address(host_vars=["vmi_spec"]) == (["10.1.0.1"], True)
    assert address(include_stopped=True) == (["10.1.0.1"], True)
    clusters = [entry(berlin, name="berlin"), entry(paris, name="paris")]
    assert address(host=None, clusters=clusters) == (["10.1.0.1", "10.2.0.1"], False)
    # What isn't from this version of the plugin is read anew.
    for file in (tmp_path / "cache").iterdir():
        changed, count = re.subn(r'(format\\*": )1', r"\g<1>0", file.read_text())
        assert count == 1
        file.write_text(changed)
    assert address() == (["10.1.0.1"], True)
    assert address() == (["10.1.0.1"], False)


def test_another_context_of_a_kubeconfig_is_another_cluster(berlin, paris, inventory, tmp_path):
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    for api, address in ((berlin, "10.1.0.1"), (paris, "10.2.0.1")):
        (tmp_path / "kubeconfig").write_text(json.dumps(api.credentials()))
        listed = inventory(host=None, api_key=None, kubeconfig="kubeconfig", **cache)
        assert listed["_meta"]["hostvars"]["shop-web"]["ansible_host"] == address


EXAMPLES = [each for each in yaml.safe_load_all(kubevirt.EXAMPLES) if each]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: ",".join(sorted(each.keys() - {"plugin"})))
def test_the_documentations_examples_run(berlin, paris, list_inventory, tmp_path, example):
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "current-context": "berlin"}
    users = (("berlin", berlin), ("paris", paris))
    kubeconfig["clusters"] = [{"name": name, "cluster": {"server": api.url}} for name, api in users]
    kubeconfig["users"] = [{"name": name, "user": {"token": api.token}} for name, api in users]
    kubeconfig["contexts"] = [{"name": name, "context": {"cluster": name, "user": name}} for name, _api in users]
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    (tmp_path / "example.kubevirt.yml").write_text(json.dumps(example))
    environment = {"K8S_AUTH_KUBECONFIG": "kubeconfig", "HOME": str(tmp_path)}
    spec = {"domain": {"cpu": {"cores": 2}}}
    for _name, api in users:
        labels = {"ansible": "true", "tier": "front"}
        interfaces = [{"name": each, "ipAddress": "10.0.0.1"} for each in ("default", "lan")]
        api.instance("shop", "web", labels=labels, spec=spec, interfaces=interfaces)
        for namespace in ("lab", "testing"):
            api.put("namespaces", {"metadata": {"name": namespace}})
            api.instance(namespace, "vm", labels=labels, spec=spec)
    assert list_inventory("example.kubevirt.yml", environment=environment)["_meta"]["hostvars"]
    assert list_inventory("example.kubevirt.yml", environment=environment, warnings=True) == ""
