# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The standalone API server answers as a real one did: a corpus of requests, and the recording of its answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import corpus
import document
import pytest
from compare import Known, known, report
from recording import Recording
from stage import Stage

THEMES = corpus.load()
REQUESTS = [(theme, request) for theme in THEMES for request in theme.requests]


@pytest.mark.parametrize(("theme", "request_"), REQUESTS, ids=[request.id for _dummy, request in REQUESTS])
def test_same_answer(theme: corpus.Theme, request_: corpus.Request, stage: Stage) -> None:
    real, ours = stage.answers(theme, request_)
    if real is None:
        pytest.skip("no recording: make test-parity-live compares it")
    if request_.code:
        assert real.code == request_.code, f"the request doesn't test what it means to: {real.body}"
    found = stage.unexplained(request_, real, ours)
    assert not found, "\n" + report(request_, real, ours, found)


def test_a_recording_is_of_requests_as_they_were() -> None:
    recording = Recording.load()
    asked = next(request for theme in THEMES for request in theme.requests if recording.answer(request) is not None)
    assert recording.answer(replace(asked, ignore=["metadata"], code=200)) is not None, "that is how it is compared"
    for changed in (replace(asked, body={"a": "b"}), replace(asked, path="/api"), replace(asked, name="new")):
        assert recording.answer(changed) is None
        assert recording.missing([replace(THEMES[0], requests=[changed])]) == [changed]


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    recording = Recording.load()
    recording.save(tmp_path / "copy")
    assert Recording.load(tmp_path / "copy") == recording
    assert "openshift" in str(recording.answers)
    assert all("openshift" not in str(recording.answer(request)) for _dummy, request in REQUESTS)


def test_the_corpus_is_wide() -> None:
    assert len(REQUESTS) >= 1400
    assert len({request.id for _dummy, request in REQUESTS}) == len(REQUESTS)


@pytest.mark.parametrize("difference", known(), ids=lambda one: one.id)
def test_listed_difference_is_still_there(difference: Known, stage: Stage) -> None:
    if any(theme.name not in stage.played for theme in THEMES):
        pytest.skip("only when the whole corpus was played")
    assert difference.id in stage.met, f"{difference.title}: no request shows this difference any more; unlist it"


def test_differences_are_documented() -> None:
    assert document.PAGE.read_text() == document.page(), "run tests/cluster/parity/document.py"
