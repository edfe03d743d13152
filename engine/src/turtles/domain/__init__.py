# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt is told and what it says, as pure functions: VMI → domain XML, libvirt's answers → VMI status."""
