# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules of a VirtualMachineInstance's spec share."""

from __future__ import annotations

import re
from collections.abc import Callable

from turtles.api.configuration import ClusterConfiguration
from turtles.api.rules import Causes, Spec

Rule = Callable[[Spec, str, ClusterConfiguration], Causes]

MAX_STRING = 256
SERIAL = re.compile(r"[A-Za-z0-9_.+-]+")
#: Domain, bus, slot and function.
PCI_ADDRESS = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
