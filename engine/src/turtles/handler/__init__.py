# SPDX-License-Identifier: GPL-3.0-or-later
"""The node agent: one synchronisation per VMI, the node's labels and heartbeat, the KVM probe."""
