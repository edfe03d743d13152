# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineExports: a Pod for each that serves claims to those who have a token."""
