# SPDX-License-Identifier: GPL-3.0-or-later
"""The API server's version, as the controllers know it."""

import pytest
from aiohttp import web
from fakeapi import FakeApi, status

from turtles.controller.server import Server
from turtles.kube.client import ApiError, Client


def test_the_version_is_asked_for_again_and_an_old_answer_is_better_than_none(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = {"minor": "34"}, {"minor": "35"}
    first, later = (status(403, "Forbidden", "no") for _ in range(2))
    answers = [first, web.json_response(old), later, web.json_response(new)]
    api.intercept = lambda method, path: answers.pop(0) if path == "/version" else None
    server = Server(client)
    with pytest.raises(ApiError):
        server.version()
    assert server.version() == old
    assert server.version() == old
    assert len(answers) == 2, "an answer holds"
    monkeypatch.setattr(server, "_until", 0.0)
    assert server.version() == old
    assert server.version() == new
