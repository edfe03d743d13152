#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network
short_description: Declare networks for virtual machines and Pods
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates or deletes a NetworkAttachmentDefinition, a network that virtual machines and Pods can have in
    addition to the Pod network. A cluster needs Multus for it; a single machine needs nothing.
  - The type of the network is the option that is given, such as O(bridge) or O(macvlan). Its configuration is declared
    as a whole. Without a type, the configuration stays as it is.
  - Machines and Pods that run already keep what they have; they get a changed network at their next start.
options:
  state:
    description: Whether the network should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the network.
    type: str
    required: true
  namespace:
    description: Namespace of the network. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  bridge:
    description: A bridge of the node, which is created if it doesn't exist. Machines on it reach each other.
    type: dict
    suboptions:
      name:
        description: Name of the bridge.
        type: str
        required: true
      vlan:
        description: VLAN on the bridge, 1 to 4094.
        type: int
      gateway:
        description: Whether the bridge has the gateway's address, so that machines reach the node. Needs O(ipam).
        type: bool
      masquerade:
        description: Whether traffic from machines beyond the network has the node's source address.
        type: bool
      hairpin:
        description: Whether a machine reaches itself by way of the bridge.
        type: bool
      mtu:
        description: MTU in bytes.
        type: int
  macvlan:
    description: The network that an interface of the node is connected to. Machines don't reach the node itself.
    type: dict
    suboptions:
      master:
        description: The node's interface. Defaults to that of its default route.
        type: str
      mode:
        description: How machines on the same interface reach each other.
        type: str
        choices: [bridge, private, vepa, passthru]
      mtu:
        description: MTU in bytes.
        type: int
  vlan:
    description: A VLAN on an interface of the node.
    type: dict
    suboptions:
      master:
        description: The node's interface.
        type: str
        required: true
      id:
        description: Number of the VLAN, 1 to 4094.
        type: int
        required: true
      mtu:
        description: MTU in bytes.
        type: int
  ipvlan:
    description:
      - As O(macvlan), with the MAC address of the node's interface. For Pods only, as a virtual machine needs a MAC
        address of its own.
    type: dict
    suboptions:
      master:
        description: The node's interface. Defaults to that of its default route.
        type: str
      mode:
        description: Whether it is a switch (V(l2)) or a router.
        type: str
        choices: [l2, l3, l3s]
      mtu:
        description: MTU in bytes.
        type: int
  ptp:
    description: A link to the node for each machine. Needs O(ipam).
    type: dict
    suboptions:
      masquerade:
        description: Whether traffic from machines beyond the network has the node's source address.
        type: bool
      mtu:
        description: MTU in bytes.
        type: int
  host_device:
    description:
      - A network device of the node, for one Pod at a time. One of the suboptions says which.
      - For Pods only. Virtual machines use O(macvlan) with the device as its O(macvlan.master).
    type: dict
    suboptions:
      device:
        description: Its name.
        type: str
      mac:
        description: Its MAC address.
        type: str
      pci_address:
        description: Its PCI address, such as V(0000:00:1f.6).
        type: str
  ipam:
    description: Address management. Without it, machines configure their own addresses.
    type: dict
    suboptions:
      type:
        description: The IPAM plugin. V(host-local) allocates addresses of O(ipam.subnet) on each node separately.
        type: str
        choices: [host-local, static, dhcp]
        default: host-local
      subnet:
        description: Network of the addresses, for V(host-local).
        type: str
      range_start:
        description: First address to allocate.
        type: str
      range_end:
        description: Last address to allocate.
        type: str
      gateway:
        description: Address of the gateway. Defaults to the first one of O(ipam.subnet).
        type: str
      addresses:
        description: Addresses with their prefix lengths, for V(static).
        type: list
        elements: str
      routes:
        description: Routes of the machines.
        type: list
        elements: dict
        suboptions:
          destination:
            description: Network, such as V(198.51.100.0/24).
            type: str
            required: true
          gateway:
            description: Address of the gateway. Defaults to O(ipam.gateway).
            type: str
  chain:
    description: Additional CNI plugins of the network, each with a C(type). They run in this order.
    type: list
    elements: dict
  config:
    description: A whole CNI configuration, or a list of them, instead of a type.
    type: dict
  cni_version:
    description: Version of the CNI specification that the configuration is of.
    type: str
    default: 0.4.0
  labels:
    description: Labels of the network.
    type: dict
  annotations:
    description: Annotations of the network, such as C(k8s.v1.cni.cncf.io/resourceName).
    type: dict
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
seealso:
  - module: turtles.kubevirt.network_info
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Have a network between the shop's machines
  turtles.kubevirt.network:
    name: storage
    namespace: shop
    bridge:
      name: br-storage
    ipam:
      subnet: 192.0.2.0/24
      range_start: 192.0.2.10

- name: Declare the network of the node's second interface, where machines configure their own addresses
  turtles.kubevirt.network:
    name: lan
    namespace: shop
    macvlan:
      master: eth1

- name: Run a virtual machine on both, and on the Pod network
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    state: running
    memory: 1Gi
    image: registry.example.com/db:1.0
    interfaces:
      - name: default
      - name: storage
        network: storage
        binding: bridge
      - name: lan
        network: lan
        binding: bridge

- name: Limit a network's bandwidth by another plugin
  turtles.kubevirt.network:
    name: slow
    namespace: shop
    bridge:
      name: br-slow
    chain:
      - type: bandwidth
        ingressRate: 1000000
        ingressBurst: 1000000

- name: Remove a network
  turtles.kubevirt.network:
    name: slow
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The NetworkAttachmentDefinition as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: k8s.cni.cncf.io/v1
    kind: NetworkAttachmentDefinition
    metadata: {name: lan, namespace: shop}
    spec: {config: '{"cniVersion": "0.4.0", "name": "lan", "type": "macvlan", "master": "eth1"}'}
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 0.087
"""

from ..module_utils import _network_config
from ..module_utils._resource_module import ResourceModule


class Network(ResourceModule):
    """A NetworkAttachmentDefinition."""

    KIND = "NetworkAttachmentDefinition"
    API_VERSION = "k8s.cni.cncf.io/v1"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        **_network_config.ARGUMENTS,
    }
    RULES = _network_config.RULES

    def declare(self, live):
        declaration = {}
        config = _network_config.config_of(self.params, self.name)
        if config is not None:
            text = ((live or {}).get("spec") or {}).get("config")
            declaration["spec"] = {"config": _network_config.text_of(config, text)}
        return declaration


MODULE = Network
main = MODULE.main


if __name__ == "__main__":
    main()
