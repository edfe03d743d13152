#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module screenshot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: screenshot
short_description: Save a picture of a virtual machine's screen
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Takes a picture of the screen of a running guest and saves it as a PNG file. It doesn't disturb users of the screen.
options:
  name:
    description: Name of the VirtualMachine, which is that of its instance.
    type: str
    required: true
  namespace:
    description: Namespace of the VirtualMachine. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  dest:
    description:
      - File to write, on the machine where the module runs. Its folder must exist.
      - A new file is only readable by its owner, because a screen may show anything. One that exists keeps its mode.
    type: path
    required: true
  move_cursor:
    description: Whether to move the guest's pointer first, which wakes up a screen that sleeps. Not done in check mode.
    type: bool
    default: false
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.library
attributes:
  check_mode:
    support: full
    details: Takes the picture and compares it with the file, but doesn't write it.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: The file is written, and the task is changed, only if the picture differs from what is in it. A screen that
      shows a clock or a blinking cursor differs each time.
  action_group:
    support: full
seealso:
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: See what a machine shows that doesn't answer
  turtles.kubevirt.screenshot:
    name: web
    namespace: shop
    dest: /tmp/web.png

- name: Wake up the screen of a desktop before
  turtles.kubevirt.screenshot:
    name: desktop
    namespace: office
    dest: /tmp/desktop.png
    move_cursor: true
"""

RETURN = r"""
dest:
  description: The file.
  returned: success
  type: str
  sample: /tmp/web.png
width:
  description: Width of the picture in pixels.
  returned: success
  type: int
  sample: 720
height:
  description: Height of the picture in pixels.
  returned: success
  type: int
  sample: 400
size:
  description: Size of the picture in bytes.
  returned: success
  type: int
  sample: 2048
checksum:
  description: SHA-256 of the picture.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

import hashlib
import os
import stat
import struct
import tempfile

from ..module_utils import _resources
from ..module_utils._base import KubeModule, explain_error
from ..module_utils._errors import ApiError, KubeError
from ..module_utils._vm_machine import INSTANCE_SUBRESOURCES

VMI = _resources.known("kubevirt.io/v1", "VirtualMachineInstance")
SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Screenshot(KubeModule):
    """A picture of one guest's screen."""

    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str"},
        "dest": {"type": "path", "required": True},
        "move_cursor": {"type": "bool", "default": False},
    }

    def run(self):
        name, dest = self.params["name"], self.params["dest"]
        _resources.check_name("name", name)
        namespace = self.namespace_given()
        try:
            before = _read(dest)
        except OSError as exc:
            raise KubeError("dest: %s can't be written: %s" % (dest, exc.strerror)) from exc
        picture = self._take(namespace, name)
        changed = picture != before
        if changed and not self.check_mode:
            try:
                _write(dest, picture)
            except OSError as exc:
                raise KubeError("dest: %s can't be written: %s" % (dest, exc.strerror)) from exc
        width, height = struct.unpack_from(">II", picture, 16)
        return {
            "changed": changed,
            "dest": dest,
            "width": width,
            "height": height,
            "size": len(picture),
            "checksum": hashlib.sha256(picture).hexdigest(),
        }

    def _take(self, namespace, name):
        where = _resources.name_of(VMI, namespace, name)
        query = {"moveCursor": "true"} if self.params["move_cursor"] and not self.check_mode else None
        path = _resources.path(INSTANCE_SUBRESOURCES, namespace, name, "vnc/screenshot")
        try:
            picture = self.client.read(path, query)
        except ApiError as exc:
            if exc.status == 404 and self.client.get(_resources.path(VMI, namespace, name)) is None:
                raise KubeError(
                    "%s doesn't exist: no such guest is running. Start it (state=running of the module vm), or check "
                    "name and namespace." % where,
                    **exc.facts,
                ) from exc
            raise KubeError("%s: can't take a screenshot: %s" % (where, explain_error(exc)), **exc.facts) from exc
        if not picture.startswith(SIGNATURE) or len(picture) < 24:
            raise KubeError("%s: the server's answer isn't a PNG image." % where)
        return picture


def _read(dest):
    """Return what is in the file, None if there is none; raise OSError if none can be written there."""
    if os.path.isdir(dest):
        raise IsADirectoryError(21, "it is a folder; give the path of a file")
    if not os.path.isdir(os.path.dirname(dest) or "."):
        raise FileNotFoundError(2, "its folder doesn't exist")
    try:
        with open(dest, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(dest, data):
    """Replace the file, so that nobody sees half a picture. It keeps its mode."""
    handle, draft = tempfile.mkstemp(dir=os.path.dirname(dest) or ".", prefix=".screenshot-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if os.path.exists(dest):
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(dest).st_mode))
        os.replace(draft, dest)
    except BaseException:
        os.unlink(draft)
        raise


MODULE = Screenshot
main = MODULE.main


if __name__ == "__main__":
    main()
