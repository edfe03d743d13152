# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that all parts of the engine know."""


class ConfigurationError(Exception):
    """What a component was given to start with can't be used. The message says what, why, and what to do."""
