# SPDX-License-Identifier: GPL-3.0-or-later
"""What may still change or refuse a write: webhooks and quotas."""
