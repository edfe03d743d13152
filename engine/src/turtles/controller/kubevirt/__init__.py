# SPDX-License-Identifier: GPL-3.0-or-later
"""The KubeVirt object: configuration, placement of the components, and whether they work."""
