# SPDX-License-Identifier: GPL-3.0-or-later
"""The Common Expression Language in Kubernetes' dialect: x-kubernetes-validations, matchConditions."""
