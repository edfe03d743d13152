# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of turtles.kubevirt: KubeVirt's API on libvirt and QEMU."""

__version__ = "0.1.0"
