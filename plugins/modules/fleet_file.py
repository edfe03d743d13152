#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module fleet_file; what it does is in its action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_file
short_description: Read and check a file that declares a whole fleet
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Reads a YAML file with namespaces, images, networks, virtual machines and services, and returns objects for
    M(turtles.kubevirt.manifest) and options for M(turtles.kubevirt.fleet). The role C(turtles.kubevirt.fleet) uses
    them.
  - An unknown key is an error, which names its place and the closest known key.
  - Values may be templates, also with variables of the play. In C(vms[].template) they are evaluated for each machine,
    with C(item) and C(index).
options:
  path:
    description:
      - The file, on the controller. It may be encrypted with Ansible Vault.
      - C(vms) is a list, whose entries are options of M(turtles.kubevirt.vm), or C(template) with C(count) or C(items)
        as M(turtles.kubevirt.fleet) has them.
      - C(images) maps names to images. O(turtles.kubevirt.vm#module:image) of a machine, or of one of its disks, may be
        such a name.
      - C(namespaces) is a list of names, or of mappings with C(name), C(labels), C(annotations) and C(quota), which is
        C(spec.hard) of a ResourceQuota.
      - C(networks) is a list of options of M(turtles.kubevirt.network), for
        O(turtles.kubevirt.vm#module:interfaces[].network) of the machines.
      - C(services) is a list of options of M(turtles.kubevirt.service).
      - C(namespace), C(state), C(labels), C(wait_for), C(forks), C(rollout), C(probe) and C(prune) are options of
        M(turtles.kubevirt.fleet).
    type: path
    required: true
attributes:
  check_mode:
    description: Can run in check mode and report what it would change without changing it.
    support: full
    details: Never changes anything.
  diff_mode:
    description: Reports what has changed, or would change in check mode, if a diff is requested.
    support: none
    details: Never changes anything.
  idempotent:
    description: Changes nothing when run again with the same options, unless something else changed the object.
    support: full
seealso:
  - module: turtles.kubevirt.fleet
"""

EXAMPLES = r"""
# shop.yml:
# namespace: shop
# namespaces:
#   - name: shop
#     quota: {requests.memory: 20Gi}
# images:
#   debian: quay.io/containerdisks/debian:12
# vms:
#   - name: db
#     image: debian
#     memory: 4Gi
#     interfaces:
#       - name: default
#       - {name: storage, network: storage, binding: bridge}
#   - template:
#       name: web-{{ index }}
#       image: debian
#       memory: 1Gi
#       labels: {app: web}
#     count: 3
# networks:
#   - name: storage
#     bridge: {name: br-storage}
#     ipam: {subnet: 192.0.2.0/24}
# services:
#   - name: web
#     selector: {app: web}
#     ports: [{port: 80}]

- name: Read the fleet's file
  turtles.kubevirt.fleet_file:
    path: shop.yml
  register: shop

- name: Create its namespaces, networks and services
  turtles.kubevirt.manifest:
    definition: "{{ shop.objects }}"

- name: Run its machines
  turtles.kubevirt.fleet:
    vms: "{{ shop.options.vms }}"
    namespace: "{{ shop.options.namespace }}"
"""

RETURN = r"""
objects:
  description: Namespaces, ResourceQuotas, NetworkAttachmentDefinitions and Services, as manifests.
  returned: success
  type: list
  elements: dict
  sample:
    - {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
options:
  description: Options of the module fleet; those that the file doesn't have are missing, but for C(vms).
  returned: success
  type: dict
  sample:
    namespace: shop
    vms: [{name: db, image: "quay.io/containerdisks/debian:12", memory: 4Gi}]
"""
