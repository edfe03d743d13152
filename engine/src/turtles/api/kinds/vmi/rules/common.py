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
