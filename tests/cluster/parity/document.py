# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/api-server-differences.md from differences.yaml."""

from __future__ import annotations

from pathlib import Path

from compare import Known, known
from recording import Recording

PAGE = Path(__file__).parents[3] / "docs/api-server-differences.md"
HEAD = """# How the standalone API server differs from kube-apiserver

`make test-parity` plays a corpus of requests (`tests/cluster/parity/corpus/`) to the standalone API server and compares
its answers with those of kube-apiserver {version}, which are kept with the tests: code, headers, body, events of
watches, once uids, times, versions and addresses are made the same. What differs is either a failed test or in this
list, which is written from `tests/cluster/parity/differences.yaml`; a difference that is gone fails as well.
"""


def page() -> str:
    """Return the page's text."""
    version = Recording.load().server["gitVersion"].lstrip("v")
    return "\n".join([HEAD.format(version=version), _table(known())])


def _table(rows: list[Known]) -> str:
    lines = [f"| {one.title} | {one.reason} |" for one in sorted(rows, key=lambda one: one.title)]
    return "\n".join(["| difference | reason |", "|---|---|", *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
