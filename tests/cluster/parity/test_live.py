# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The corpus, played to a running kube-apiserver as well.

One that is as new as the recorded one is compared with in everything. An older one, as the tests' own cluster has,
judges only what has no recording yet: what has one was answered by a newer server.
"""

from __future__ import annotations

import os

import corpus
import pytest
from compare import report
from recording import Recording, number
from stage import Stage

RECORDING = Recording.load()
UNRECORDED = {request.id for request in RECORDING.missing(corpus.load())}
REQUESTS = [(theme, request) for theme in corpus.load() for request in theme.requests]
#: A cluster of the tests' own is older than the recording.
CHOSEN = [(theme, request) for theme, request in REQUESTS if "KUBECONFIG" in os.environ or request.id in UNRECORDED]


@pytest.mark.parametrize(("theme", "request_"), CHOSEN, ids=[request.id for _dummy, request in CHOSEN])
def test_same_answer(theme: corpus.Theme, request_: corpus.Request, live: Stage) -> None:
    if request_.id not in UNRECORDED and number(live.version) < RECORDING.version:
        pytest.skip("the server is older than the recorded one, and this is recorded")
    if theme.calls_back and not live.reachable:
        pytest.skip("the cluster can't call programs of this machine")
    real, ours = live.answers(theme, request_)
    assert real is not None
    if request_.code:
        assert real.code == request_.code, f"the request doesn't test what it means to: {real.body}"
    found = live.unexplained(request_, real, ours)
    assert not found, "\n" + report(request_, real, ours, found)
