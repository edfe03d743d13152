# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH to guests through the Kubernetes API."""

from __future__ import annotations

DOCUMENTATION = r"""
name: portforward
short_description: Connect to virtual machines by SSH through the Kubernetes API
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Runs tasks on a guest by SSH. The connection goes through the port-forward of the Kubernetes API, so that neither
    the guest's address nor a Service has to be reachable from where Ansible runs.
  - The user of the API needs the right to C(get) the subresource C(virtualmachineinstances/portforward) in the group
    C(subresources.kubevirt.io), which the ClusterRole C(kubevirt.io:edit) has.
  - Everything else is as with the connection plugin P(ansible.builtin.ssh#connection), which this one uses, with
    pipelining, persistent connections and file transfer. Its settings in C(ansible.cfg) and its environment variables
    count here, too, and its variables that begin with C(ansible_ssh_).
options:
  port:
    description: Port of the guest's SSH server.
    type: int
    default: 22
    vars:
      - name: ansible_port
      - name: ansible_ssh_port
  remote_user:
    description: User to log in as.
    type: str
    ini:
      - section: defaults
        key: remote_user
    env:
      - name: ANSIBLE_REMOTE_USER
    vars:
      - name: ansible_user
      - name: ansible_ssh_user
    cli:
      - name: user
    keyword:
      - name: remote_user
  password:
    description: Password of the user, if keys don't do.
    type: str
    vars:
      - name: ansible_password
      - name: ansible_ssh_pass
      - name: ansible_ssh_password
  private_key_file:
    description: File with the private key to log in with.
    type: str
    ini:
      - section: defaults
        key: private_key_file
    env:
      - name: ANSIBLE_PRIVATE_KEY_FILE
    vars:
      - name: ansible_private_key_file
      - name: ansible_ssh_private_key_file
    cli:
      - name: private_key_file
        option: --private-key
  host_key_checking:
    description:
      - Whether the guest's host key must be known. SSH knows it by the name
        C(<vm>.<namespace>.<a number of the cluster>.kubevirt).
    type: bool
    default: true
    ini:
      - section: defaults
        key: host_key_checking
      - section: ssh_connection
        key: host_key_checking
    env:
      - name: ANSIBLE_HOST_KEY_CHECKING
      - name: ANSIBLE_SSH_HOST_KEY_CHECKING
    vars:
      - name: ansible_host_key_checking
      - name: ansible_ssh_host_key_checking
  pipelining:
    description: Whether modules are piped to Python in the guest instead of being copied first.
    type: bool
    default: false
    ini:
      - section: defaults
        key: pipelining
      - section: connection
        key: pipelining
      - section: ssh_connection
        key: pipelining
    env:
      - name: ANSIBLE_PIPELINING
      - name: ANSIBLE_SSH_PIPELINING
    vars:
      - name: ansible_pipelining
      - name: ansible_ssh_pipelining
extends_documentation_fragment:
  - turtles.kubevirt.connection
notes:
  - Credentials are passed on to the program that connects in its environment, and don't show in the list of processes.
  - As with C(virtctl), the connection is for a running instance. A guest that restarts ends it.
"""

EXAMPLES = r"""
# Inventory: all machines, with or without an address that can be reached from here.
plugin: turtles.kubevirt.kubevirt
kubeconfig: kubeconfig
connection: turtles.kubevirt.portforward

---
# Play: a machine that the play itself has made.
- name: Make a machine and set it up
  hosts: localhost
  tasks:
    - name: Run it
      turtles.kubevirt.vm:
        name: web
        namespace: shop
        state: running
        wait_for: ssh
        image: quay.io/containerdisks/debian:12
        memory: 1Gi

    - name: Have it as a host
      ansible.builtin.add_host:
        name: web
        ansible_connection: turtles.kubevirt.portforward
        ansible_kubevirt_vm: web
        ansible_kubevirt_namespace: shop
        ansible_user: debian
        ansible_ssh_common_args: -o StrictHostKeyChecking=accept-new

- name: Set it up
  hosts: web
  tasks:
    - name: Install nginx
      ansible.builtin.package:
        name: nginx
      become: true
"""

import hashlib
import json
import os
import shlex
import tempfile

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import connection_loader

from ..plugin_utils import _forward
from ..plugin_utils._guests import api_options


class Connection(ConnectionBase):
    """An SSH connection whose bytes go through the API."""

    transport = "turtles.kubevirt.portforward"
    has_pipelining = True
    # All variables ansible_ssh_* reach set_options().
    allow_extras = True
    extras_prefix = "ssh"

    def __init__(self, *args, **kwargs):
        """Make the SSH connection inside as well."""
        super().__init__(*args, **kwargs)
        self._ssh = connection_loader.get("ansible.builtin.ssh", *args, **kwargs)
        self._ssh._shell = self._shell

    def set_options(self, task_keys=None, var_options=None, direct=None):
        """Take the options, and have the SSH connection take its own."""
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        extras = (var_options or {}).get("_extras") or {}
        self._ssh.set_options(task_keys=task_keys, var_options={**(var_options or {}), **extras})
        common = self._ssh.get_option("ssh_common_args") or ""
        self._ssh.set_option("ssh_common_args", ("%s %s" % (common, self._proxy())).strip())
        self._ssh.set_option("host", self._alias())
        # Where the port-forward leads to; for SSH it is a part of the name.
        self._ssh.set_option("port", None)

    def set_become_plugin(self, plugin):
        """Become another user in the guest."""
        super().set_become_plugin(plugin)
        self._ssh.set_become_plugin(plugin)

    def _alias(self):
        """Return how SSH calls the guest: machines of several clusters may have one name."""
        api = {name: value for name, value in api_options(self).items() if name != "api_key"}
        cluster = hashlib.sha256(json.dumps(api, sort_keys=True).encode()).hexdigest()[:8]
        return "%s.%s.%s.kubevirt" % (self.get_option("vm"), self.get_option("namespace"), cluster)

    def _proxy(self):
        command = _forward.command(*(self.get_option(name) for name in ("namespace", "vm", "port")))
        # ssh replaces what begins with a per cent sign, then a shell runs it.
        return "-o %s" % shlex.quote("ProxyCommand=%s" % command.replace("%", "%%"))

    def _do(self, act, *args, **kwargs):
        """Have the SSH connection do something; the program that it starts finds in its environment what it needs."""
        if not self.get_option("vm"):
            raise AnsibleConnectionFailure("No machine to connect to: set ansible_kubevirt_vm.")
        os.environ[_forward.OPTIONS] = json.dumps(api_options(self))
        with tempfile.NamedTemporaryFile("r", encoding="utf-8", prefix="turtles-") as error:
            os.environ[_forward.ERROR] = error.name
            try:
                return act(*args, **kwargs)
            except AnsibleConnectionFailure:
                if message := error.read():
                    raise AnsibleConnectionFailure(message) from None
                raise

    def _connect(self):
        self._ssh._connect()
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        """Run a command in the guest."""
        return self._do(self._ssh.exec_command, cmd, in_data=in_data, sudoable=sudoable)

    def put_file(self, in_path, out_path):
        """Copy a file to the guest."""
        return self._do(self._ssh.put_file, in_path, out_path)

    def fetch_file(self, in_path, out_path):
        """Copy a file from the guest."""
        return self._do(self._ssh.fetch_file, in_path, out_path)

    def reset(self):
        """End the persistent connection."""
        self._do(self._ssh.reset)

    def close(self):
        """Be done with this task."""
        self._ssh.close()
        self._connected = False
