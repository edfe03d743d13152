# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachines: plan, status and revisions are pure, the controller reads and writes."""
