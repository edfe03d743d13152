# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a VirtualMachineInstance's spec, by what they are about.

Each is a function (spec, path, config) → causes. It takes specs that have passed the model's check.
"""
