# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests by their guest agent."""

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_agent
short_description: Run tasks on virtual machines by their guest agent
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Runs tasks on a guest by the QEMU guest agent. The guest needs neither a network nor an SSH server nor keys or
    passwords, and unlike the console, it has no login sessions.
  - The KubeVirt API runs no commands in guests. The agent is asked by C(virsh) in the container C(compute) of the
    launcher's Pod, so the user of the API needs the rights to C(get) C(virtualmachineinstances), to C(list) C(pods) and
    to C(create) C(pods/exec), with Kubernetes before 1.35 also to C(get) C(pods/exec). The ClusterRole C(edit) of
    Kubernetes has them for Pods. Waiting for an agent requires permission to C(list) and C(watch)
    C(virtualmachineinstances).
  - Anyone with these rights is root in all guests of the namespace whose agents allow it. Grant it as you would grant
    that.
  - The guest's agent has to allow C(guest-exec) and C(guest-exec-status). RHEL and derivatives don't by default, see
    C(/etc/sysconfig/qemu-ga) there; the error says so.
  - The guest needs a POSIX shell, C(cat), C(dd) and C(sha256sum). Tasks run as the agent's user, which is C(root);
    without Python only M(ansible.builtin.raw) and the like work.
options:
  agent_timeout:
    description: Seconds to wait for the agent's response, which comes when a command has been started, not when it
      ends.
    type: int
    default: 10
    vars:
      - name: ansible_guest_agent_timeout
  connect_timeout:
    description: Seconds to wait for the agent to connect, including the guest's boot.
    type: int
    default: 60
    vars:
      - name: ansible_guest_agent_connect_timeout
  pipelining:
    description: Whether modules are given to Python in the guest on its standard input instead of being copied first.
    type: bool
    default: false
    ini:
      - section: defaults
        key: pipelining
      - section: connection
        key: pipelining
    env:
      - name: ANSIBLE_PIPELINING
    vars:
      - name: ansible_pipelining
extends_documentation_fragment:
  - turtles.kubevirt.connection
notes:
  - The output of a command is returned when it ends, and is limited to about 3 MB.
  - Passwords for C(become) can't be entered. There is no need for them, as the agent runs as C(root).
"""

EXAMPLES = r"""
# Inventory: all machines by their guest agents.
plugin: turtles.kubevirt.kubevirt
kubeconfig: kubeconfig
connection: turtles.kubevirt.guest_agent

---
# Play: let someone in who has lost the key.
- name: Restore access
  hosts: shop-web
  gather_facts: false
  vars:
    ansible_connection: turtles.kubevirt.guest_agent
    ansible_kubevirt_vm: web
    ansible_kubevirt_namespace: shop
  tasks:
    - name: Add a key
      ansible.posix.authorized_key:
        user: debian
        key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
"""

import contextlib
import hashlib
import shlex

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase, ensure_connect

from ..module_utils._client import Client
from ..module_utils._errors import KubeError
from ..module_utils._guest_agent import CHUNK, GuestAgent, NotConnected
from ..module_utils._vm_status import VMI
from ..module_utils._wait import GaveUp, is_true, until
from ..plugin_utils._guests import api_options

# Bytes of a file that come back in one answer.
_BLOCK = 512 * 1024
# What a shell of the agent lacks that those of people have.
_PROFILE = "export HOME=${HOME:-/root} PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}; cd; "


class Connection(ConnectionBase):
    """Commands by the guest agent."""

    transport = "turtles.kubevirt.guest_agent"
    has_pipelining = True

    def __init__(self, *args, **kwargs):
        """Know no agent yet."""
        super().__init__(*args, **kwargs)
        self._agent = None

    def _connect(self):
        if self._connected:
            return self
        names = self.get_option("namespace"), self.get_option("vm")
        client = Client(api_options(self))
        self._agent = GuestAgent(client, *names, self.get_option("agent_timeout"))
        try:
            try:
                self._shell_in_guest(":")
            except NotConnected:
                with contextlib.suppress(GaveUp):  # asked again, the agent's error says what is missing
                    until(client, VMI, *names, self.get_option("connect_timeout"), _is_connected)
                self._shell_in_guest(":")
        except KubeError as exc:
            raise AnsibleConnectionFailure(str(exc)) from exc
        self._connected = True
        return self

    def _shell_in_guest(self, script, data=None):
        return self._agent.run(["/bin/sh", "-c", script], data)

    def _checked(self, script, data=None):
        """Run a script that has to succeed, and return its output."""
        try:
            done = self._shell_in_guest(script, data)
        except KubeError as exc:
            raise AnsibleConnectionFailure(str(exc)) from exc
        if done.status:
            raise AnsibleError("%s: %s" % (self._agent, done.err.decode(errors="replace").strip()))
        return done.out

    @ensure_connect
    def exec_command(self, cmd, in_data=None, sudoable=True):
        """Run a command in the guest."""
        if sudoable and self.become and self.become.expect_prompt():
            raise AnsibleConnectionFailure(
                "Passwords for become aren't supported by the guest agent. Leave it out: the agent runs as root."
            )
        script, kept = _PROFILE + cmd, None
        if in_data is not None and len(in_data) > CHUNK:
            # More than goes into one request comes from a file.
            kept = self._checked("umask 077; mktemp").decode().strip()
            self._write(kept, in_data)
            script, in_data = "exec <%s; %s%s" % (kept, _PROFILE, cmd), None
        try:
            return tuple(self._shell_in_guest(script, in_data))
        except KubeError as exc:
            raise AnsibleConnectionFailure(str(exc)) from exc
        finally:
            if kept:
                self._checked("rm -f %s" % kept)

    @ensure_connect
    def put_file(self, in_path, out_path):
        """Copy a file to the guest."""
        try:
            with open(in_path, "rb") as file:
                self._write(out_path, file.read())
        except FileNotFoundError as exc:
            raise AnsibleFileNotFound("file %s doesn't exist" % in_path) from exc

    def _write(self, path, data):
        where = shlex.quote(path)
        self._checked(": >%s" % where)
        for start in range(0, len(data), CHUNK):
            self._checked("cat >>%s" % where, data[start : start + CHUNK])
        checksum = self._checked("sha256sum <%s" % where).split()[0].decode()
        if checksum != hashlib.sha256(data).hexdigest():
            raise AnsibleError("%s: the data was corrupted on the way to %s" % (self._agent, path))

    @ensure_connect
    def fetch_file(self, in_path, out_path):
        """Copy a file from the guest."""
        where, number = shlex.quote(in_path), 0
        with open(out_path, "wb") as file:
            while True:
                block = self._checked("dd bs=%d skip=%d count=1 <%s 2>/dev/null" % (_BLOCK, number, where))
                file.write(block)
                number += 1
                if len(block) < _BLOCK:
                    return

    def reset(self):
        """Connect again with the next task."""
        self.close()

    def close(self):
        """Be done with this task."""
        if self._agent:
            self._agent.close()
        self._agent, self._connected = None, False


def _is_connected(vmi):
    """Return whether there is nothing to wait for."""
    return vmi is None or is_true(vmi, "AgentConnected")
