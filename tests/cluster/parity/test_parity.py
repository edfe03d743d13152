# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The standalone API server answers as a real one does: a corpus of requests, played to both."""

from __future__ import annotations

import corpus
import document
import pytest
from compare import known, report
from stage import Stage

THEMES = corpus.load()
REQUESTS = [(theme, request) for theme in THEMES for request in theme.requests]


@pytest.mark.parametrize(("theme", "request_"), REQUESTS, ids=[request.id for _dummy, request in REQUESTS])
def test_same_answer(theme: corpus.Theme, request_: corpus.Request, stage: Stage) -> None:
    if theme.calls_back and not stage.reachable:
        pytest.skip("the cluster can't call programs of this machine")
    real, ours = stage.answers(theme, request_)
    if request_.code and not stage.newer:
        assert real.code == request_.code, f"the request doesn't test what it means to: {real.body}"
    found = stage.unexplained(theme, request_)
    assert not found, "\n" + report(request_, real, ours, found)


def test_the_corpus_is_wide() -> None:
    assert len(REQUESTS) >= 400
    assert len({request.id for _dummy, request in REQUESTS}) == len(REQUESTS)


@pytest.mark.parametrize("difference", known(), ids=lambda one: one.id)
def test_listed_difference_is_still_there(difference: object, stage: Stage) -> None:
    if any(theme.name not in stage.played for theme in THEMES):
        pytest.skip("only when the whole corpus was played")
    if difference.age and stage.newer:
        pytest.skip("of kube-apiserver 1.20 only")
    assert difference.id in stage.met, f"{difference.title}: no request shows this difference any more; unlist it"


def test_differences_are_documented() -> None:
    assert document.PAGE.read_text() == document.page(), "run tests/cluster/parity/document.py"
