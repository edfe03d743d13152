# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sphinx's configuration of the site: the repository's own Markdown, and a page for each module, plugin and role."""

from __future__ import annotations

project = "turtles.kubevirt"
copyright = "turtles.kubevirt contributors"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
exclude_patterns = ["docs/site"]
# The headings' addresses are those that forges give them, which the repository's links use.
myst_heading_anchors = 4
# The modules' pages refer to Ansible's own documentation, which isn't read for this: the build needs no network. That
# references to this collection hold is `make lint-docs`'s to say.
suppress_warnings = ["ref.ref"]

html_theme = "furo"
html_title = project
html_copy_source = False
