# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineRestore → claims that are filled from VolumeSnapshots → VirtualMachine."""
