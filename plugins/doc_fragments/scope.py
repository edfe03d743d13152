# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of modules for kinds of which there is one in namespaces and one for the whole cluster."""

from __future__ import annotations


class ModuleDocFragment:
    """Which of the two kinds is meant."""

    DOCUMENTATION = r"""
options:
  scope:
    description:
      - V(cluster) means the kind of the whole cluster, whose objects machines of all namespaces can name, V(namespace)
        the one whose objects only machines of the same namespace can name.
      - Defaults to V(namespace) if O(namespace) is given, also by C(module_defaults), otherwise to V(cluster).
    type: str
    choices: [cluster, namespace]
  namespace:
    description:
      - Namespace of the object. With O(scope=namespace) it defaults to that of the kubeconfig's context, then
        V(default); with O(scope=cluster) it isn't used.
    type: str
"""

    # Options of the modules that read such objects
    READS = r"""
options:
  name:
    description: Name of the one object to read. An empty list is returned if there is none.
    type: str
  scope:
    description:
      - V(cluster) reads objects of the whole cluster, V(namespace) those in namespaces.
      - Defaults to V(namespace) if O(namespace) is given, also by C(module_defaults), otherwise to V(cluster).
    type: str
    choices: [cluster, namespace]
  namespace:
    description:
      - Namespace to read from. With O(scope=namespace) all if not given, or, with O(name), that of the kubeconfig's
        context; with O(scope=cluster) it isn't used.
    type: str
"""
