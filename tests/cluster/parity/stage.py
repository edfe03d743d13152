# SPDX-License-Identifier: GPL-3.0-or-later
"""Both servers side by side: plays a theme to both, once, when its first answer is wanted."""

from __future__ import annotations

import random
import re
import string
from functools import cached_property

import corpus
from callback import Callback
from compare import Difference, Known, differences, known, unexplained
from play import Answer, Player, Server

#: Minor version of the kube-apiserver whose answers the corpus and the known differences expect.
WRITTEN_WITH = 20


class Stage:
    """The two servers, and what they answered so far."""

    def __init__(self, real: Server, ours: Server, callback: Callback, reachable: bool = True) -> None:
        tag = "".join(random.choices(string.ascii_lowercase, k=4))
        variables = {
            "webhook": f"{callback.url}/$server",
            "ca": callback.ca,
            "port": str(callback.port),
            "address": callback.address,
        }
        self.real, self.ours, self.reachable = real, ours, reachable
        self._players = [Player(one, tag, variables) for one in (real, ours)]
        self._answers: dict[str, tuple[Answer, Answer]] = {}
        self._known = known()
        #: Themes that were played, known differences that were met.
        self.played: set[str] = set()
        self.met: set[str] = set()

    def answers(self, theme: corpus.Theme, request: corpus.Request) -> tuple[Answer, Answer]:
        """Return both servers' answers to a request."""
        if theme.name not in self.played:
            self._play(theme)
        return self._answers[request.id]

    def _play(self, theme: corpus.Theme) -> None:
        self.played.add(theme.name)
        try:
            for player in self._players:
                player.begin(theme)
            for request in theme.requests:
                real, ours = (player.play(request) for player in self._players)
                self._answers[request.id] = (real, ours)
        finally:
            for player in self._players:
                player.end(theme)

    def unexplained(self, theme: corpus.Theme, request: corpus.Request) -> list[Difference]:
        """Return the differences between the answers to a request that aren't known ones."""
        found = differences(request, *self.answers(theme, request))
        return unexplained(request, found, self._known, lambda one: self.met.add(one.id))

    @cached_property
    def newer(self) -> bool:
        """Whether the real server is newer than the one that the corpus was written with."""
        version = self._players[0].play(corpus.Request("", "version", path="/version")).body
        return int(re.sub(r"\D.*", "", version["minor"])) > WRITTEN_WITH

    def missing(self) -> list[Known]:
        """Return the known differences that no request showed, though all that could were played."""
        return [one for one in self._known if one.id not in self.met]
