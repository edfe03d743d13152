# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus by hand, without pytest.

``compare``: play themes, print how the answers differ from the recorded ones.
``compare --live``: from those of the server that $KUBECONFIG names.
``record``: write what the server that $KUBECONFIG names answers. It should be one of its own, without nodes, with
kube-controller-manager and kube-scheduler: themes make and delete objects of the whole cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import corpus
from callback import callback
from compare import report
from play import Server
from recording import Recording, entry
from servers import standalone
from stage import Stage, player, tag_of_a_run


@contextlib.contextmanager
def _real() -> Iterator[Server]:
    if "KUBECONFIG" not in os.environ:
        sys.exit("KUBECONFIG has to name the kubeconfig of a kube-apiserver")
    server = Server("real", Path(os.environ["KUBECONFIG"]))
    try:
        yield server
    finally:
        server.close()


def compare(themes: list[corpus.Theme], live: bool, everything: bool) -> int:
    """Print how the standalone server's answers differ; 1 where they do."""
    wrong = requests = unrecorded = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-")))
        real = stack.enter_context(_real()) if live else Recording.load()
        ours = stack.enter_context(standalone(folder))
        hooks = stack.enter_context(callback(folder, real.way_back if isinstance(real, Server) else "127.0.0.1"))
        stage = Stage(ours, hooks, real)
        for theme in themes:
            for request in theme.requests:
                requests += 1
                first, second = stage.answers(theme, request)
                if first is None:
                    unrecorded += 1
                    print(f"{request.id}: not recorded; answered {second.code}: {second.body}")
                    continue
                found = stage.unexplained(request, first, second)
                if request.code and first.code != request.code:
                    print(f"{request.id}: the real server answers {first.code}, not {request.code}: {first.body}")
                    wrong += 1
                elif found:
                    print(report(request, first, second, found))
                    wrong += 1
    if everything:
        print("never met:", ", ".join(one.id for one in stage.missing()))
    print(f"{requests} requests, {wrong} answered differently, {unrecorded} not recorded")
    return 1 if wrong else 0


def record(file: Path | None) -> int:
    """Write what a kube-apiserver answers to the whole corpus; 1 where a request doesn't test what it means to."""
    answers = {}
    wrong = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-")))
        real = stack.enter_context(_real())
        one = player(real, tag_of_a_run(), stack.enter_context(callback(folder, real.way_back)))
        version = one.play(corpus.Request("", "version", path="/version")).body
        for theme in corpus.load():
            one.begin(theme)
            try:
                for request in theme.requests:
                    answer = one.play(request)
                    answers[request.id] = entry(request, answer)
                    if request.code and answer.code != request.code:
                        print(f"{request.id}: answered {answer.code}, not {request.code}: {answer.body}")
                        wrong += 1
            finally:
                one.end(theme)
    server = {name: version[name] for name in ("gitVersion", "major", "minor")}
    plain = server["gitVersion"].lstrip("v").partition("+")[0]
    file = file or Path(__file__).parent / f"recordings/kube-apiserver-{plain}.json.gz"
    Recording(server, one.tag, answers).save(file)
    print(f"{file}: {len(answers)} answers")
    return 1 if wrong else 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python tests/cluster/parity", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare")
    comparing.add_argument("themes", nargs="*", metavar="THEME", help="all of them by default")
    comparing.add_argument("--live", action="store_true", help="with the server that $KUBECONFIG names")
    recording = commands.add_parser("record")
    recording.add_argument("file", nargs="?", type=Path, help="recordings/kube-apiserver-<version>.json.gz by default")
    options = parser.parse_args()
    if options.command == "record":
        return record(options.file)
    themes = [one for one in corpus.load() if not options.themes or one.name in options.themes]
    return compare(themes, options.live, not options.themes)


if __name__ == "__main__":
    sys.exit(main())
