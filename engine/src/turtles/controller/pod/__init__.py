# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods of a VirtualMachineInstance: their shape, their roles, how they end. Pure."""
