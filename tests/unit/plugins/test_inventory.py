# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import gc
import json

import pytest
from ansible_collections.turtles.kubevirt.plugins.plugin_utils import _addresses, _collector


def test_running_machines_are_hosts_in_groups(api, inventory):
    api.instance("default", "web", labels={"app.kubernetes.io/name": "web"}, address="10.0.0.5")
    api.instance("default", "off", phase="Succeeded")
    api.instance("default", "noaddress", interfaces=[])
    listed = inventory(name="lab", create_groups=True, compose={"ansible_user": "labels['app.kubernetes.io/name']"})
    hosts = listed["_meta"]["hostvars"]
    assert set(hosts) == {"default-web"}
    web = hosts["default-web"]
    assert web["ansible_host"] == "10.0.0.5"
    assert (web["vmi_name"], web["vmi_namespace"], web["vmi_node_name"]) == ("web", "default", "node1")
    assert web["ansible_user"] == "web"
    assert listed["lab"]["children"] == ["namespace_default"]
    for group in ("namespace_default", "node_node1", "label_app_kubernetes_io_name_web"):
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
    instances = ["/apis/kubevirt.io/v1/virtualmachineinstances"] * 3
    assert sorted(r[1] for r in api.requests) == ["/api/v1/services", *instances]


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
    listed = inventory(namespaces=["a"], label_selector="x=1", host_format="{cluster}.{name}", name="lab", group_by=[])
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
        ({"namespace": ["shop"]}, "namespace isn't an option of the inventory plugin. Did you mean namespaces?"),
        ({"colour": "red"}, "colour isn't an option of the inventory plugin."),
        ({"namespaces": ["Bad_Name"]}, "namespaces: 'Bad_Name' isn't a Kubernetes name"),
        ({"host_format": "{nmae}"}, "host_format: '{nmae}' can't be formatted"),
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
    assert _addresses.interface_address({"status": {"interfaces": interfaces}}, **options) == address


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


def service(api, name, selector, ports, kind="NodePort", **status):
    api.put(
        "services",
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": kind, "selector": selector, "ports": ports},
            "status": status,
        },
    )


def test_machines_are_reached_by_services(api, inventory):
    named = {"domain": {"devices": {"interfaces": [{"name": "default", "ports": [{"name": "login", "port": 22}]}]}}}
    api.instance("default", "web", labels={"app": "web"}, address="10.0.0.1")
    api.instance("default", "db", labels={"app": "db"}, address="10.0.0.2", spec=named)
    for number in (3, 4):
        api.instance("default", "pool%d" % number, labels={"app": "pool"}, address="10.0.0.%d" % number)
    web = [{"port": 443, "targetPort": 443, "nodePort": 30443}, {"port": 22, "nodePort": 30022}]
    service(api, "web", {"vm.kubevirt.io/name": "web"}, web)
    ingress = {"loadBalancer": {"ingress": [{"hostname": "db.example.com"}]}}
    service(api, "db", {"app": "db"}, [{"port": 2022, "targetPort": "login"}], "LoadBalancer", **ingress)
    # One that leads to several is no way to one of them, one inside the cluster none from outside, nor is UDP.
    service(api, "pool", {"app": "pool"}, web)
    service(api, "inside", {"vm.kubevirt.io/name": "pool3"}, web, "ClusterIP")
    service(api, "udp", {"vm.kubevirt.io/name": "pool4"}, [{**web[1], "protocol": "UDP"}])
    addresses = [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "203.0.113.1"}]
    api.put("nodes", {"metadata": {"name": "node1"}, "status": {"addresses": addresses}})

    def reached(**options):
        hosts = inventory(**options)["_meta"]["hostvars"]
        return {host.partition("-")[2]: (v["ansible_host"], v.get("ansible_port")) for host, v in hosts.items()}

    inside = {"pool3": ("10.0.0.3", None), "pool4": ("10.0.0.4", None)}
    assert reached() == {"web": ("node1", 30022), "db": ("db.example.com", 2022), **inside}
    assert reached(node_address="external_ip")["web"] == ("203.0.113.1", 30022)
    assert reached(use_service=False) == {"web": ("10.0.0.1", None), "db": ("10.0.0.2", None), **inside}
    api.forbidden = lambda method, path: "services" in path
    assert reached()["web"] == ("10.0.0.1", None)
    assert "use_service: Services of namespace default can't be listed" in inventory(warnings=True, use_service=True)


@pytest.mark.parametrize(
    ("connection", "target", "variables"),
    [
        ("winrm", 5985, {"ansible_winrm_scheme": "http"}),
        ("ansible.builtin.psrp", 5986, {"ansible_psrp_protocol": "https"}),
        ("ssh", 22, {}),
    ],
)
def test_windows_is_reached_through_the_port_of_its_connection(api, inventory, connection, target, variables):
    api.instance("default", "win", annotations={"kubevirt.io/cluster-preference-name": "windows.2k22"})
    ports = [{"port": port, "targetPort": port, "nodePort": 30000 + port % 1000} for port in (22, target)]
    service(api, "win", {"vm.kubevirt.io/name": "win"}, ports)
    host = inventory(default_win_ansible_connection=connection)["_meta"]["hostvars"]["default-win"]
    assert (host["ansible_connection"], host["ansible_port"]) == (connection, 30000 + target % 1000)
    assert variables.items() <= host.items()


def test_a_connection_through_the_api_needs_no_address(api, inventory):
    api.instance("default", "web", interfaces=[])
    hosts = inventory(connection="example.lib.console")["_meta"]["hostvars"]
    assert hosts["default-web"]["ansible_connection"] == "example.lib.console"
    assert "ansible_host" not in hosts["default-web"]


def test_groups_as_asked_for(api, inventory):
    api.instance(
        "default",
        "web",
        annotations={"kubevirt.io/instancetype-name": "u1.small", "kubevirt.io/preference-name": "debian"},
        conditions=[{"type": "Paused", "status": "True"}],
        guestOSInfo={"id": "debian"},
    )
    api.put(
        "virtualmachines",
        {
            "metadata": {"name": "off", "namespace": "default", "labels": {"a": "b"}},
            "spec": {
                "runStrategy": "Halted",
                "instancetype": {"name": "u1.large"},
                "preference": {"name": "windows.11"},
            },
        },
    )
    groups = ["state", "os", "instancetype", "preference", "label"]
    tree = inventory(graph=True, name="lab", include_stopped=True, group_by=groups).replace("|", "").replace("--", "")
    members, group = {}, ""
    for line in tree.split():
        group = line[1:-1] if line.startswith("@") else group
        members.setdefault(group, []).extend([] if line.startswith("@") else [line])
    off, web = ["default-off"], ["default-web"]
    assert {k: v for k, v in members.items() if k not in ("all", "ungrouped")} == {
        "lab": [*off, *web],
        "state_paused": web,
        "state_stopped": off,
        "os_debian": web,
        "os_windows_11": off,
        "instancetype_u1_small": web,
        "instancetype_u1_large": off,
        "preference_debian": web,
        "preference_windows_11": off,
        "label_a_b": off,
    }


def test_more_variables_on_wish(api, inventory):
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    api.instance("default", "web", spec={"domain": {"cpu": {"cores": 2}}}, annotations=applied)
    host = inventory()["_meta"]["hostvars"]["default-web"]
    assert set(host) == {
        *("ansible_host", "annotations", "cluster_name", "labels", "object_type", "state", "uid"),
        *("vmi_name", "vmi_namespace", "vmi_node_name", "vmi_phase"),
    }
    assert set(host["annotations"]) == {"note"}
    host = inventory(host_vars=["vmi_*", "!vmi_interfaces", "!annotations"])["_meta"]["hostvars"]["default-web"]
    assert host["vmi_spec"] == {"domain": {"cpu": {"cores": 2}}}
    assert not {"vmi_interfaces", "annotations"} & set(host)


def test_annotations_become_variables(api, inventory):
    annotations = {"example.com/tier": "front", "example.com/team-name": "{{ 1 }}", "example.com/ansible_host": "evil"}
    api.instance("default", "web", annotations=annotations)
    host = inventory(annotation_prefix="example.com/")["_meta"]["hostvars"]["default-web"]
    assert (host["tier"], host["team_name"]) == ("front", {"__ansible_unsafe": "{{ 1 }}"})
    assert host["ansible_host"] == "10.244.0.7"
    warned = inventory(warnings=True, annotation_prefix="example.com/")
    assert "default/web: annotation example.com/ansible_host is ignored" in warned


def test_expressions_make_variables_and_select(api, inventory):
    for cores in (1, 2):
        api.instance("default", "vm%d" % cores, spec={"domain": {"cpu": {"cores": cores}}})
    listed = inventory(
        select="spec.domain.cpu.cores > `1`",
        variables={"cores": "spec.domain.cpu.cores", "nothing": "spec.nothing", "where": "join('/', [cluster, state])"},
        name="lab",
        keyed_groups=[{"key": "cores | string", "prefix": "cores"}],
    )
    (host,) = listed["_meta"]["hostvars"].values()
    assert (host["vmi_name"], host["cores"], host["where"]) == ("vm2", 2, "lab/Running")
    assert "nothing" not in host


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"select": "spec.["}, "inventory.kubevirt.yml: select: 'spec.[' isn't a JMESPath expression"),
        ({"variables": {"a": "to_number("}}, "variables.a: 'to_number(' isn't a JMESPath expression"),
        ({"variables": {"a": "abs(kind)"}}, "variables.a: 'abs(kind)' fails for default/web: "),
        ({"variables": {"a b": "kind"}}, "variables: 'a b' isn't a valid variable name."),
        ({"variables": {"a": 3}}, "variables.a: must be a JMESPath expression, but is the number 3."),
    ],
)
def test_bad_expressions(api, inventory, options, words):
    api.instance("default", "web")
    assert words in inventory(fails=True, **options)


def test_a_label_of_the_machine_alone_selects_its_instance(api, inventory):
    api.put(
        "virtualmachines",
        {
            "metadata": {"name": "web", "namespace": "default", "labels": {"a": "b"}},
            "spec": {},
            "status": {"created": True},
        },
    )
    api.instance("default", "web", address="10.0.0.9")
    api.instance("default", "other")
    hosts = inventory(label_selector="a=b", include_stopped=True)["_meta"]["hostvars"]
    assert {host: hosts[host]["ansible_host"] for host in hosts} == {"default-web": "10.0.0.9"}


def test_namespaces_that_may_not_be_listed_are_skipped_with_a_warning(api, inventory):
    for name in ("a", "closed"):
        api.put("namespaces", {"metadata": {"name": name}})
        api.instance(name, "vm")
    api.forbidden = lambda method, path: "/closed/" in path
    options = {"namespaces": ["a", "closed"]}
    assert set(inventory(**options)["_meta"]["hostvars"]) == {"a-vm"}
    assert "namespace closed is skipped: VirtualMachineInstances of it can't be listed" in inventory(
        warnings=True, **options
    )
    assert "namespace closed is skipped" in inventory(fails=True, strict=True, **options)


def test_openshifts_projects_stand_for_namespaces(api, inventory):
    api.instance("mine", "vm")
    api.forbidden = lambda method, path: "/mine/" not in path and "projects" not in path
    api.atomic(lambda: api._write("/apis/project.openshift.io/v1/projects/mine", {"metadata": {"name": "mine"}}))
    assert set(inventory()["_meta"]["hostvars"]) == {"mine-vm"}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_afterwards(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        paused = _collector.paused()
        with paused:
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
