# SPDX-License-Identifier: GPL-3.0-or-later
"""CustomResourceDefinitions and the conversion of custom resources."""
