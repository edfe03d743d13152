# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that declare a fleet: what is in them, what is wrong with them, and the role that takes them."""

from __future__ import annotations

import json

import pytest
import yaml
from ansible_collections.turtles.kubevirt.plugins.module_utils import _fleet_file
from ansible_collections.turtles.kubevirt.plugins.module_utils._errors import KubeError

SHOP = """
namespace: shop
namespaces:
  - name: shop
    labels: {team: shop}
    quota: {count/virtualmachines.kubevirt.io: 9}
  - lab
images:
  debian: example.com/debian:12
labels: {fleet: shop}
vms:
  - name: db
    image: debian
    memory: 64Mi
    disks: [{name: tools, image: debian}]
  - template:
      name: web-{{ index }}
      image: debian
      memory: "{{ size }}"
      labels: {app: web, place: "{{ item }}"}
    items: "{{ places }}"
networks:
  - name: storage
    bridge: {name: br-storage}
    ipam: {subnet: 192.0.2.0/24}
services:
  - name: web
    selector: {app: web}
    ports: [{port: 80, target_port: 8080, name: http}]
  - {name: db, vm: db, headless: true}
prune: {label_selector: fleet=shop, max: 1}
"""
PLAY = """
- hosts: localhost
  gather_facts: false
  vars: {size: 64Mi, places: [left, right], fleet_progress: 0}
  module_defaults:
    group/turtles.kubevirt.kubevirt:
      host: "{{ lookup('ansible.builtin.env', 'API') }}"
      api_key: "{{ lookup('ansible.builtin.env', 'TOKEN') }}"
  tasks:
    - ansible.builtin.include_role:
        name: turtles.kubevirt.fleet
    - ansible.builtin.copy:
        dest: "{{ lookup('ansible.builtin.env', 'KEPT') }}"
        content: "{{ fleet_result | to_json }}"
        mode: "0600"
"""


@pytest.fixture
def role(server, play_file, monkeypatch, tmp_path):
    """Runs the role with a file of that text."""

    def call(text, **variables):
        (tmp_path / "shop.yml").write_text(text)
        monkeypatch.setenv("API", server.url)
        monkeypatch.setenv("TOKEN", server.api.token)
        given = {"fleet_file": str(tmp_path / "shop.yml"), **variables}
        return play_file(PLAY, "-e", json.dumps(given))[0]

    return call


def test_a_whole_fleet_comes_and_goes(api, role):
    made = role(SHOP)
    assert made["summary"] == {"created": 3}
    assert api.get("namespaces", None, "shop")["metadata"]["labels"] == {"team": "shop"}
    assert api.get("namespaces", None, "lab")
    assert api.get("resourcequotas", "shop", "fleet")["spec"] == {"hard": {"count/virtualmachines.kubevirt.io": "9"}}
    assert api.get("services", "shop", "web")["spec"] == {
        "type": "ClusterIP",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080, "name": "http", "protocol": "TCP"}],
    }
    assert api.get("services", "shop", "db")["spec"] == {
        "type": "ClusterIP",
        "clusterIP": "None",
        "selector": {"vm.kubevirt.io/name": "db"},
    }
    network = api.get("network-attachment-definitions", "shop", "storage")
    assert json.loads(network["spec"]["config"])["bridge"] == "br-storage"
    web = api.get("virtualmachines", "shop", "web-2")
    assert web["metadata"]["labels"] == {"fleet": "shop", "app": "web", "place": "right"}
    images = [
        v["containerDisk"]["image"]
        for v in api.get("virtualmachines", "shop", "db")["spec"]["template"]["spec"]["volumes"]
    ]
    assert images == ["example.com/debian:12"] * 2
    api.requests.clear()
    pruned = role(SHOP, places=["left"])
    assert (pruned["summary"], pruned["pruned"]) == ({"unchanged": 2, "pruned": 1}, ["shop/web-2"])
    assert role(SHOP, fleet_state="absent", places=["left"])["summary"] == {"deleted": 2}
    assert api.get("services", "shop", "web") is None
    assert api.get("network-attachment-definitions", "shop", "storage") is None
    assert api.get("namespaces", None, "shop")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("images:", "image:"), "image: unknown key. Did you mean images?"),
        (("memory: 64Mi", "memroy: 64Mi"), "vms[0].memroy: unknown key. Did you mean memory?"),
        (
            ('memory: "{{ size', 'memroy: "{{ size'),
            "vms[1].template.memroy: unknown key. Did you mean memory?",
        ),
        (("items:", "itmes:"), "vms[1].itmes: unknown key. Did you mean items?"),
        (("quota:", "quotas:"), "namespaces[0].quotas: unknown key. Did you mean quota?"),
        (("selector: {app", "selectors: {app"), "services[0].selectors: unknown key. Did you mean selector?"),
        (
            ("target_port", "targetPort"),
            "services[0].ports[0].targetPort: unknown key. Did you mean target_port?",
        ),
        (("max: 1", "maximum: 1"), "prune.maximum: unknown key. Did you mean max?"),
        (
            ("networks:", "networks: [{name: lan, macvlan: {mastr: eth1}}]\nservices:"),
            "networks[0].macvlan.mastr: unknown key. Did you mean master?",
        ),
        (
            ("networks:", "networks: [{name: lan}]\nservices:"),
            "networks[0].config: missing. Give it, or a type: one of bridge, macvlan",
        ),
        (
            ("networks:", "networks: [{name: lan, macvlan: {}, vlan: {master: eth1, id: 5}}]\nservices:"),
            "networks[0]: parameters are mutually exclusive",
        ),
        (("selector: {app: web}", "vm: Web"), "services[0].vm: 'Web' isn't a Kubernetes name"),
        (("selector: {app: web}", "headless: true"), "services[0].vm: missing for a new Service"),
        (
            ("images:\n  debian: example.com/debian:12", "images: debian"),
            "images: must be a mapping of names to images",
        ),
        (("port: 80", "port: http"), "services[0].ports[0].port: must be a whole number, but is the text 'http'"),
        (("{port: 80, ", "{"), "services[0]: missing required arguments: port found in ports"),
        (("- lab", "- Lab"), "namespaces[1].name: 'Lab' isn't a Kubernetes name"),
        (("- lab", "- 5"), "namespaces[1]: must be a mapping, but is the number 5"),
        ((SHOP, "namespaces: {}"), "namespaces: must be a list, but is a mapping"),
        ((SHOP, "vms: [web]"), "vms[0]: must be a mapping, but is the text 'web'"),
        ((SHOP, "[]"), "the content: must be a mapping, but is a list"),
    ],
)
def test_a_mistake_is_told_with_its_place(change, message):
    content = yaml.safe_load(SHOP.replace(*change))

    def read():
        _fleet_file.check(content)
        _fleet_file.with_images([], content.get("images"))
        _fleet_file.objects(content)

    with pytest.raises(KubeError) as failed:
        read()
    assert message in str(failed.value)


def test_what_is_wrong_is_told_by_the_role(role, tmp_path):
    with pytest.raises(AssertionError) as failed:
        role(SHOP.replace("memory: 64Mi", "memroy: 64Mi"))
    assert "%s/shop.yml: vms[0].memroy: unknown key. Did you mean memory?" % tmp_path in str(failed.value)
