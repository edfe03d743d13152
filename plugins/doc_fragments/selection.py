# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of the modules that read objects."""

from __future__ import annotations


class ModuleDocFragment:
    """Which objects to read."""

    DOCUMENTATION = r"""
options:
  name:
    description: Name of the one object to read. An empty list is returned if there is none.
    type: str
  namespace:
    description: Namespace to read from. All if not given, or, with O(name), that of the kubeconfig's context.
    type: str
"""

    # Of KubeVirt's own kinds
    VERSION = r"""
options:
  api_version:
    description: Version of the KubeVirt API.
    type: str
    choices: [kubevirt.io/v1, kubevirt.io/v1alpha3]
    default: kubevirt.io/v1
"""

    # What can be chosen by where there may be many
    SELECTORS = r"""
options:
  label_selectors:
    description: Label selectors that must all match, such as V(app=web), V(tier in (a,b\)) or V(!legacy).
    type: list
    elements: str
    default: []
  field_selectors:
    description: Field selectors that must all match, such as V(metadata.name=web).
    type: list
    elements: str
    default: []
  query:
    description:
      - JMESPath expression that is evaluated on the list of objects found, such as V([].metadata.name). Its result is
        in RV(query_result).
      - Needs the Python package C(jmespath).
    type: str
  hidden_fields:
    description:
      - Fields that are left out of the returned objects, as names joined by dots. Names that contain dots, and numbers
        of list entries, are in brackets, as in V(metadata.annotations[example.com/note]).
      - An empty list shows everything.
    type: list
    elements: str
    default: ['metadata.annotations[kubemacpool.io/transaction-timestamp]', metadata.managedFields]
"""

    # What can be selected of the values that are returned, where there is no list of objects
    VALUES = r"""
options:
  query:
    description:
      - JMESPath expression that is evaluated on the returned values. Its result is in RV(query_result).
      - Needs the Python package C(jmespath).
    type: str
"""

    # Waiting for what is chosen
    WAITS = r"""
options:
  wait:
    description:
      - Whether to wait until there is an object that matches and all that match are ready, which their condition
        C(Ready) says. It watches rather than polls.
      - The task fails early, and says why, if a machine can't reach that state.
    type: bool
    default: false
  wait_timeout:
    description: Seconds after which waiting fails. The error says why.
    type: int
    default: 120
  wait_sleep:
    description: Has no effect, as nothing is polled. For tasks that were written for C(kubevirt.core).
    type: int
"""
