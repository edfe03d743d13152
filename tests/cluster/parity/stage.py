# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays themes to the standalone API server, each once, and finds what a real one answers otherwise."""

from __future__ import annotations

import random
import string

import corpus
from callback import Callback
from compare import Difference, Known, differences, known, unexplained
from play import Answer, Player, Server
from recording import Recording


class Stage:
    """The server under test, what it is compared with, and what both answered so far."""

    def __init__(self, ours: Server, hooks: Callback, real: Server | Recording, reachable: bool = True) -> None:
        """Compare ``ours`` with ``real``; themes that call back are only for servers that can reach ``hooks``."""
        tag = real.tag if isinstance(real, Recording) else tag_of_a_run()
        self.reachable = reachable
        self._ours = player(ours, tag, hooks)
        self._real = real if isinstance(real, Recording) else player(real, tag, hooks)
        self._answers: dict[str, tuple[Answer | None, Answer]] = {}
        self._known = known()
        #: Themes that were played, known differences that were met.
        self.played: set[str] = set()
        self.met: set[str] = set()

    def answers(self, theme: corpus.Theme, request: corpus.Request) -> tuple[Answer | None, Answer]:
        """Return both servers' answers to a request; None where there is no recording of it."""
        if theme.name not in self.played:
            self._play(theme)
        return self._answers[request.id]

    def _play(self, theme: corpus.Theme) -> None:
        self.played.add(theme.name)
        players = [one for one in (self._real, self._ours) if isinstance(one, Player)]
        try:
            for one in players:
                one.begin(theme)
            for request in theme.requests:
                real = self._real.play(request) if isinstance(self._real, Player) else self._real.answer(request)
                self._answers[request.id] = (real, self._ours.play(request))
        finally:
            for one in players:
                one.end(theme)

    def unexplained(self, request: corpus.Request, real: Answer, ours: Answer) -> list[Difference]:
        """Return the differences between the answers to a request that aren't known ones."""
        found = differences(request, real, ours)
        return unexplained(request, found, self._known, lambda one: self.met.add(one.id))

    @property
    def version(self) -> dict[str, str]:
        """What the running server says of its version."""
        assert isinstance(self._real, Player), "a recording's version is its own"
        found: dict[str, str] = self._real.play(corpus.Request("", "version", path="/version")).body
        return found

    def missing(self) -> list[Known]:
        """Return the known differences that no request showed, though all that could were played."""
        return [one for one in self._known if one.id not in self.met]


def tag_of_a_run() -> str:
    """Return a few letters that no other run has: cluster-wide objects of several runs don't meet."""
    return "".join(random.choices(string.ascii_lowercase, k=4))


def player(server: Server, tag: str, hooks: Callback) -> Player:
    """Return what plays themes to a server, which may call back."""
    variables = {
        "webhook": f"{hooks.url}/$server",
        "ca": hooks.ca,
        "port": str(hooks.port),
        "address": hooks.address,
    }
    masks = {hooks.url: "https://callback.invalid", hooks.ca: "<ca>", server.url: "https://kubernetes.invalid"}
    if not hooks.address.startswith("127."):
        masks[hooks.address] = "192.0.2.1"
    return Player(server, tag, variables, masks)
