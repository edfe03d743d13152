# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding out what a node's hardware and QEMU can really do. Imports nothing of ours."""
