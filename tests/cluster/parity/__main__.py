# SPDX-License-Identifier: GPL-3.0-or-later
"""Play themes by hand and print how the answers differ: ``KUBECONFIG=… python tests/cluster/parity [THEME…]``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import corpus
from callback import callback
from compare import report
from play import Server
from servers import standalone
from stage import Stage


def main(names: list[str]) -> int:
    """Print the differences of the named themes, or of all; 1 where there are any."""
    themes = [one for one in corpus.load() if not names or one.name in names]
    wrong = requests = 0
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        real = Server("real", Path(os.environ["KUBECONFIG"]))
        with standalone(Path(folder)) as ours, callback(Path(folder), real.way_back) as hooks:
            stage = Stage(real, ours, hooks)
            for theme in themes:
                for request in theme.requests:
                    requests += 1
                    first, second = stage.answers(theme, request)
                    found = stage.unexplained(theme, request)
                    if request.code and first.code != request.code:
                        print(f"{request.id}: the real server answers {first.code}, not {request.code}: {first.body}")
                        wrong += 1
                    elif found:
                        print(report(request, first, second, found))
                        wrong += 1
        real.close()
        if not names:
            print("never met:", ", ".join(one.id for one in stage.missing()))
    print(f"{requests} requests, {wrong} answered differently")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
