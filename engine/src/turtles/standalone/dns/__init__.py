# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS of the cluster: names of Services and Pods for Pods and guests; other names are asked of the host's servers."""
