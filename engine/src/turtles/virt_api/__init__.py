# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-api: admission webhooks and the aggregated API subresources.kubevirt.io."""
