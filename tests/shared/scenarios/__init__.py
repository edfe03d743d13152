# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tests that every engine must pass, wherever it is installed.

A suite takes in a module of them with ``from scenarios.lifecycle import *``, brings the fixture `cluster` (an
:class:`engine.Engine`), and has tests of its own for what is special where it runs.
"""
