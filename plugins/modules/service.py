#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service
short_description: Expose virtual machines by Services
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates or deletes a Service, by which a virtual machine is reached at an address, a name or a port of the
    nodes that stays the same.
  - The selector for O(vm) is determined by the module. Several machines behind one Service are selected by O(selector).
  - Node ports that the server has allocated are kept as long as their port is declared. Fields that aren't declared
    stay unchanged on the server.
options:
  state:
    description: Whether the Service should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the Service. Defaults to O(vm).
    type: str
  namespace:
    description:
      - Namespace of the Service and of the machine. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  vm:
    description: Name of the VirtualMachine to expose. It must exist, but needn't be running.
    type: str
  selector:
    description: Labels of the machines to expose, those in their templates. They replace the ones that the Service has.
    type: dict
  type:
    description:
      - Where the Service is reached. V(ClusterIP) is an address inside the cluster, V(NodePort) is also a port of all
        nodes, V(LoadBalancer) is also an address that the cluster's load balancer assigns.
      - New Services default to V(ClusterIP).
    type: str
    choices: [ClusterIP, NodePort, LoadBalancer]
  headless:
    description: Whether a new Service has no address, so that its name resolves to the machines themselves.
    type: bool
  ports:
    description:
      - What is forwarded. Replaces the ports that the Service has.
      - Required for a new Service that isn't O(headless).
    type: list
    elements: dict
    suboptions:
      port:
        description: Port of the Service, 1 to 65535.
        type: int
        required: true
      target_port:
        description: Port of the machine, as a number or a name. Defaults to O(ports[].port).
        type: str
      protocol:
        description: Protocol.
        type: str
        choices: [TCP, UDP, SCTP]
        default: TCP
      node_port:
        description: Port of the nodes. The server allocates one if it isn't given.
        type: int
      name:
        description: Name of the port. Several ports without names are called by protocol and number, such as V(tcp-22).
        type: str
  session_affinity:
    description: Whether a client always reaches the same machine.
    type: str
    choices: [None, ClientIP]
  external_traffic_policy:
    description: Whether node ports also lead to machines on other nodes, which hides the client's address.
    type: str
    choices: [Cluster, Local]
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.metadata
  - turtles.kubevirt.wait
seealso:
  - module: turtles.kubevirt.service_info
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Reach SSH of a machine by a port of the nodes
  turtles.kubevirt.service:
    vm: web
    namespace: shop
    type: NodePort
    ports:
      - port: 22
  register: ssh

- name: Show the port
  ansible.builtin.debug:
    msg: "{{ ssh.result.spec.ports[0].nodePort }}"

- name: Reach all machines with a label by one address
  turtles.kubevirt.service:
    name: frontend
    namespace: shop
    selector:
      app: web
    ports:
      - port: 80
        target_port: "8080"
        name: http
      - port: 443
        name: https

- name: Remove a Service
  turtles.kubevirt.service:
    name: frontend
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The Service as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: v1
    kind: Service
    metadata: {name: web, namespace: shop}
    spec:
      type: NodePort
      clusterIP: 10.96.40.7
      selector: {vm.kubevirt.io/name: web}
      ports: [{port: 22, protocol: TCP, targetPort: 22, nodePort: 30522}]
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 0.102
"""

from ..module_utils import _metadata, _resources, _service_spec
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule


class Service(ResourceModule):
    """A Service."""

    KIND = "Service"
    API_VERSION = "v1"
    READY = "reached at an address"
    ARGUMENTS = {
        **_service_spec.ARGUMENTS,
    }
    RULES = {**_service_spec.RULES, "required_one_of": [["name", "vm"]]}
    # A label that the selector doesn't name any more mustn't be left in it, nor a port.
    EXACT = frozenset(("selector",))

    def identify(self):
        self.params["name"] = self.params["name"] or self.params["vm"]
        super().identify()

    def declare(self, live):
        return {"spec": _service_spec.spec_of(self.params, self._selector(), live)}

    def _selector(self):
        """Return the labels of the machines, None if no option says which."""
        vm = self.params["vm"]
        if vm is None:
            return _metadata.texts_of(self.params, "selector")
        _resources.check_name("vm", vm)
        machine = self.client.get(
            _resources.path(_resources.known("kubevirt.io/v1", "VirtualMachine"), self.namespace, vm)
        )
        if machine is None and not self.check_mode:
            raise KubeError(
                "vm: VirtualMachine %s/%s doesn't exist. Create it first, or give a selector for the machines."
                % (self.namespace, vm)
            )
        return _service_spec.selector_of(vm, machine or {})

    def is_ready(self, obj):
        return _service_spec.has_address(obj)

    def explain(self, obj):
        troubles, facts = super().explain(obj)
        if ((obj or {}).get("spec") or {}).get("type") == "LoadBalancer":
            troubles = [*troubles, "The cluster has assigned it no address; check that the cluster has a load balancer"]
        return troubles, facts


MODULE = Service
main = MODULE.main


if __name__ == "__main__":
    main()
