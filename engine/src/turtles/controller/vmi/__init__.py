# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstances until the node agent takes over."""
