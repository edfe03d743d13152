# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Requirements of the modules."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - Python >= 3.9
  - kubernetes (Python package) >= 24.2
  - PyYAML >= 5.1
notes:
  - Where the play's connection is local, the module runs inside the process of ansible-playbook, which saves about half
    a second per task and loop item. With C(become) or C(async) it runs like any other module. The same applies with
    another Python interpreter, if the connection depends on it - the package kubernetes, for plugins of a kubeconfig or
    for proxies, or the certificate authorities it trusts, where neither O(ca_cert) nor the kubeconfig names any.
"""
