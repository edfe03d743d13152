# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/api-server-differences.md from differences.yaml."""

from __future__ import annotations

from pathlib import Path

from compare import Known, known

PAGE = Path(__file__).parents[3] / "docs/api-server-differences.md"
HEAD = """# How the standalone API server differs from kube-apiserver

`make test-cluster` plays one corpus of requests (`tests/cluster/parity/corpus/`) to the standalone API server and to a
real kube-apiserver and compares the answers: code, headers, body, events of watches, once uids, times, versions and
addresses are made the same. What differs is either a failed test or in this list, which a test writes from
`tests/cluster/parity/differences.yaml`; a difference that is gone fails as well.

What kube-apiserver 1.20 can't judge (validation of unknown fields, selectable fields, streaming lists, …) is tested
against the Kubernetes documentation, in `engine/tests/standalone/apiserver/`.
"""


def page() -> str:
    """Return the page's text."""
    lasting = [one for one in known() if not one.age]
    age = [one for one in known() if one.age]
    parts = [HEAD, "## By design\n", _table(lasting), "## Because of the age of the kube-apiserver compared with\n"]
    parts.append("Debian's packages give version 1.20; where current versions answer otherwise, they are followed.\n")
    return "\n".join([*parts, _table(age)])


def _table(rows: list[Known]) -> str:
    lines = [f"| {one.title} | {one.reason} |" for one in sorted(rows, key=lambda one: one.title)]
    return "\n".join(["| difference | reason |", "|---|---|", *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
