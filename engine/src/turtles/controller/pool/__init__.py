# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachinePool → VirtualMachines: plan, machine and status are pure, the controller reads and writes."""
