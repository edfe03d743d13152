# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkPolicies of the Pods of one machine."""
