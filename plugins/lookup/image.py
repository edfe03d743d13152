# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looks up images by name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: image
short_description: Look up where an image such as debian:13 is
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns the entry of the catalogue of images with a name.
  - The modules and the role C(turtles.kubevirt.guest_image) look there themselves. Use it where an address is needed
    elsewhere.
options:
  _terms:
    description: Names.
    required: true
  catalogue:
    description: A YAML file on the controller with further images, as O(turtles.kubevirt.vm#module:image_catalogue).
    type: path
    env:
      - name: TURTLES_IMAGE_CATALOGUE
seealso:
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Show where Debian's cloud image is
  ansible.builtin.debug:
    msg: "{{ lookup('turtles.kubevirt.image', 'debian:13').disk }}"
"""

RETURN = r"""
_list:
  description:
    - For each name a mapping with C(container_disk), an image for containerDisk volumes, C(disk), the address of a
      disk, C(checksum), as M(ansible.builtin.get_url) has it, and C(user), whom cloud-init gives the keys.
    - Keys that an image doesn't have are omitted.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils import _catalogue
from ..module_utils._errors import KubeError


class LookupModule(LookupBase):
    """Entries of the catalogue."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        try:
            images = _catalogue.read(self.get_option("catalogue"))
            return [self._entry(str(name), images) for name in terms]
        except KubeError as exc:
            raise AnsibleLookupError(str(exc)) from exc

    @staticmethod
    def _entry(name, images):
        entry = _catalogue.find("image", name, images)
        if entry is None:
            raise KubeError("the catalogue of images has no %s; it has %s." % (name, ", ".join(sorted(images))))
        return entry
