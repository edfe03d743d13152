# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes to libvirt and comes back, as pure functions: VMI → domain XML, libvirt's answers → VMI status."""
