# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The serial console of guests."""

from __future__ import annotations

DOCUMENTATION = r"""
name: console
short_description: Run tasks on virtual machines by their serial console
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Logs in on the serial console of a guest and runs tasks there. The guest needs neither a network nor an SSH server
    nor keys, which makes this the way to set these up, and to repair them.
  - The user of the API needs the right to C(get) the subresource C(virtualmachineinstances/console) in the group
    C(subresources.kubevirt.io), which the ClusterRole C(kubevirt.io:edit) has.
  - The guest needs a login or a shell on its first serial port, and a POSIX shell, C(stty), C(mktemp), C(base64) and
    C(sha256sum); without Python only M(ansible.builtin.raw) and the like work. It is slow with large files.
options:
  remote_user:
    description: User to log in as, if the console asks for one.
    type: str
    ini:
      - section: defaults
        key: remote_user
    env:
      - name: ANSIBLE_REMOTE_USER
    vars:
      - name: ansible_user
    cli:
      - name: user
    keyword:
      - name: remote_user
  password:
    description: Password of the user, if the console asks for it.
    type: str
    vars:
      - name: ansible_password
      - name: ansible_console_password
  login_timeout:
    description: Seconds to wait for a login or a shell on the console, including the guest's boot.
    type: int
    default: 120
    vars:
      - name: ansible_console_login_timeout
extends_documentation_fragment:
  - turtles.kubevirt.connection
notes:
  - A console has one session. A task closes an existing session, and is closed by the next one.
  - After each task the user is logged out.
  - Passwords for C(become) can't be entered. Log in as that user, or configure C(sudo) without one.
  - Files and outputs are compared by checksum, since the kernel and other programs may write to the console as well.
"""

EXAMPLES = r"""
# Inventory: all machines by their consoles.
plugin: turtles.kubevirt.kubevirt
kubeconfig: kubeconfig
connection: turtles.kubevirt.console
compose:
  ansible_user: "'root'"

---
# Play: repair the network of a guest that can't be reached any other way.
- name: Repair the network
  hosts: shop-web
  gather_facts: false
  vars:
    ansible_connection: turtles.kubevirt.console
    ansible_kubevirt_vm: web
    ansible_kubevirt_namespace: shop
    ansible_user: root
    ansible_password: "{{ lookup('ansible.builtin.env', 'CONSOLE_PASSWORD') }}"
  tasks:
    - name: Have an address again
      ansible.builtin.raw: dhclient eth0
      changed_when: true
"""

import contextlib

from ansible.errors import AnsibleConnectionFailure, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase, ensure_connect

from ..module_utils._client import Client
from ..module_utils._errors import KubeError
from ..plugin_utils._guests import api_options
from ..plugin_utils._terminal import Terminal, TerminalError

_PATH = "/apis/subresources.kubevirt.io/v1/namespaces/%s/virtualmachineinstances/%s/console"


def _told(where, exc):
    """Return a message that names the guest."""
    return str(exc) if isinstance(exc, TerminalError) else "%s: the console was closed: %s" % (where, exc)


class Connection(ConnectionBase):
    """A session at a serial console."""

    transport = "turtles.kubevirt.console"
    has_pipelining = True

    def __init__(self, *args, **kwargs):
        """Have no session yet."""
        super().__init__(*args, **kwargs)
        self._stream = self._terminal = self._where = None

    def _connect(self):
        if self._connected:
            return self
        names = self.get_option("namespace"), self.get_option("vm")
        where = self._where = "VirtualMachineInstance %s/%s" % names
        try:
            self._stream = Client(api_options(self)).stream(_PATH % names, "plain.kubevirt.io")
            self._terminal = Terminal(self._stream.send, self._stream.receive, where)
            self._terminal.log_in(
                self.get_option("remote_user"), self.get_option("password"), self.get_option("login_timeout")
            )
        except KubeError as exc:
            raise AnsibleConnectionFailure("%s, console: %s" % (where, exc)) from exc
        except (TerminalError, OSError) as exc:
            self._stream.close()
            raise AnsibleConnectionFailure(_told(where, exc)) from exc
        self._connected = True
        return self

    def _do(self, act, *args):
        try:
            return act(*args)
        except (TerminalError, OSError) as exc:
            raise AnsibleConnectionFailure(_told(self._where, exc)) from exc

    @ensure_connect
    def exec_command(self, cmd, in_data=None, sudoable=True):
        """Run a command in the guest."""
        if sudoable and self.become and self.become.expect_prompt():
            raise AnsibleConnectionFailure(
                "Passwords for become aren't supported. Log in as that user, or configure sudo without one."
            )
        return self._do(self._terminal.run, cmd, in_data)

    @ensure_connect
    def put_file(self, in_path, out_path):
        """Copy a file to the guest."""
        try:
            with open(in_path, "rb") as file:
                data = file.read()
        except FileNotFoundError as exc:
            raise AnsibleFileNotFound("file %s doesn't exist" % in_path) from exc
        self._do(self._terminal.put, out_path, data)

    @ensure_connect
    def fetch_file(self, in_path, out_path):
        """Copy a file from the guest."""
        data = self._do(self._terminal.get, in_path)
        with open(out_path, "wb") as file:
            file.write(data)

    def reset(self):
        """Begin another session with the next task."""
        self.close()

    def close(self):
        """Log out."""
        if not self._connected:
            return
        self._connected = False
        # Where the line is closed, there is no session any more.
        with contextlib.suppress(OSError, TerminalError):
            self._terminal.log_out()
        self._stream.close()
