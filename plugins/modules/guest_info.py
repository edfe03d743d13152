#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module guest_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_info
short_description: Read information from the guest agent of a virtual machine
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns the operating system, host name, users, file systems and network interfaces of a guest.
  - Everything but the interfaces comes from the QEMU guest agent, which has to run in the guest. Without it the values
    are empty, and RV(agent_connected) says so.
options:
  name:
    description: Name of the VirtualMachine, which is that of its instance.
    type: str
    required: true
  namespace:
    description: Namespace of the VirtualMachine. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  wait:
    description: Whether to wait until the guest agent is connected. The module watches rather than polls.
    type: bool
    default: false
  wait_timeout:
    description: Seconds after which waiting fails.
    type: int
    default: 300
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection.values
notes:
  - Debian and Ubuntu have the agent in the package C(qemu-guest-agent).
  - The agent's information is under the guest's control. Don't base decisions about trust on it.
seealso:
  - module: turtles.kubevirt.vm
  - module: turtles.kubevirt.vmi_info
"""

EXAMPLES = r"""
- name: Wait for the guest agent of a machine and read what it knows
  turtles.kubevirt.guest_info:
    name: web
    namespace: shop
    wait: true
  register: web

- name: Fail if the root file system is nearly full
  ansible.builtin.assert:
    that: root.usedBytes < root.totalBytes * 0.9
  vars:
    root: "{{ web.filesystems | selectattr('mountPoint', 'equalto', '/') | first }}"

- name: Read only the addresses of the guest's interfaces
  turtles.kubevirt.guest_info:
    name: web
    namespace: shop
    query: interfaces[].ipAddress
  register: addresses

- name: Show the operating system and who is logged in
  ansible.builtin.debug:
    msg: "{{ web.os.prettyName }}: {{ web.users | map(attribute='userName') | join(', ') }}"
"""

RETURN = r"""
agent_connected:
  description: Whether the guest agent is connected.
  returned: success
  type: bool
  sample: true
agent_version:
  description: Version of the guest agent.
  returned: success
  type: str
  sample: 9.2.0
hostname:
  description: Host name of the guest.
  returned: success
  type: str
  sample: web
os:
  description: Operating system and kernel of the guest, as in C(status.guestOSInfo).
  returned: success
  type: dict
  sample: {id: debian, name: Debian GNU/Linux, prettyName: Debian GNU/Linux 13 (trixie), versionId: "13"}
timezone:
  description: Time zone of the guest, and its offset from UTC in seconds.
  returned: success
  type: str
  sample: CET, 3600
users:
  description: Users who are logged in.
  returned: success
  type: list
  elements: dict
  sample:
    - {userName: root, loginTime: 1700000000.25}
filesystems:
  description: File systems that are mounted.
  returned: success
  type: list
  elements: dict
  sample:
    - diskName: vda1
      mountPoint: /
      fileSystemType: ext4
      usedBytes: 1073741824
      totalBytes: 2147483648
      disk: [{busType: virtio}]
frozen:
  description: Whether the file systems are frozen. While they are, an agent reports little else.
  returned: success
  type: bool
  sample: false
interfaces:
  description: Network interfaces, as in C(status.interfaces). They don't need an agent.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: default, ipAddress: 10.244.0.12, interfaceName: eth0, infoSource: "domain, guest-agent"}
query_result:
  description: What O(query) selects of the values above.
  returned: when O(query) is given
  type: raw
  sample: [10.244.0.12]
"""

from ..module_utils import _resources
from ..module_utils._base import KubeModule, explain_error
from ..module_utils._errors import ApiError, KubeError
from ..module_utils._jmespath import QUERY_ARGUMENTS, Expression
from ..module_utils._vm_machine import INSTANCE_SUBRESOURCES
from ..module_utils._wait import is_true

VMI = _resources.known("kubevirt.io/v1", "VirtualMachineInstance")


class GuestInfo(KubeModule):
    """What is known about one guest."""

    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str"},
        "wait": {"type": "bool", "default": False},
        "wait_timeout": {"type": "int", "default": 300},
        **QUERY_ARGUMENTS,
    }

    def run(self):
        # A mistake in it is reported before anything is read.
        query = Expression.of(self.params, "query")
        self.name = self.params["name"]
        _resources.check_name("name", self.name)
        self.namespace = self.namespace_given()
        vmi = self._instance()
        connected = is_true(vmi, "AgentConnected")
        info = self._ask("guestosinfo") if connected else {}
        frozen = info.get("fsFreezeStatus") == "frozen"
        # An agent that has frozen the file systems refuses to say who and what there is.
        lists = connected and not frozen
        result = {
            "changed": False,
            "agent_connected": connected,
            "agent_version": info.get("guestAgentVersion") or "",
            "hostname": info.get("hostname") or "",
            "os": info.get("os") or (vmi.get("status") or {}).get("guestOSInfo") or {},
            "timezone": info.get("timezone") or "",
            "users": self._ask("userlist")["items"] if lists else [],
            "filesystems": self._ask("filesystemlist")["items"] if lists else [],
            "frozen": frozen,
            "interfaces": (vmi.get("status") or {}).get("interfaces") or [],
        }
        return query.extend(result, _resources.name_of(VMI, self.namespace, self.name)) if query else result

    def _instance(self):
        if not self.params["wait"] or self.check_mode:
            vmi = self.client.get(_resources.path(VMI, self.namespace, self.name))
        else:
            vmi = self.wait_until(
                VMI,
                self.namespace,
                self.name,
                lambda vmi: is_true(vmi, "AgentConnected"),
                "connected to its guest agent",
                explain=lambda vmi: (["Check that the guest has the package qemu-guest-agent, and that it runs"], {}),
            )
        if vmi is None:
            raise KubeError(
                "%s doesn't exist: no such guest is running. Start it (state=running of the module vm), or check "
                "name and namespace." % _resources.name_of(VMI, self.namespace, self.name)
            )
        return vmi

    def _ask(self, what):
        try:
            return self.client.request("GET", _resources.path(INSTANCE_SUBRESOURCES, self.namespace, self.name, what))
        except ApiError as exc:
            where = _resources.name_of(VMI, self.namespace, self.name)
            raise KubeError("%s: %s: %s" % (where, what, explain_error(exc)), **exc.facts) from exc


MODULE = GuestInfo
main = MODULE.main


if __name__ == "__main__":
    main()
