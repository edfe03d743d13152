# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Attributes of the collection's modules."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and report what it would change without changing it.
  diff_mode:
    description: Reports what has changed, or would change in check mode, if a diff is requested.
  idempotent:
    description: Changes nothing when run again with the same options, unless something else changed the object.
  action_group:
    description: Use C(group/turtles.kubevirt.kubevirt) in C(module_defaults) to set defaults for this module.
    membership:
      - turtles.kubevirt.kubevirt
"""

    # Of modules that read.
    READS = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: Never changes anything. In check mode it doesn't wait either, since earlier tasks only pretend.
  diff_mode:
    support: none
    details: Never changes anything.
  idempotent:
    support: full
  action_group:
    support: full
"""

    # Of modules that declare. What a module says of an attribute itself counts more.
    DECLARES = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: The server does everything but store the result (dry run), so its validation applies in check mode too.
  diff_mode:
    support: full
  idempotent:
    support: full
  action_group:
    support: full
"""
