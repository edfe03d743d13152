# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node agent makes of the domain that comes back from hook sidecars: nothing it could be led astray by."""

import json
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from turtles.api.hook_sidecars import ANNOTATION
from turtles.domain import paths
from turtles.domain.xml import MAX_LENGTH
from turtles.handler import hooks
from turtles.handler.errors import HookError
from turtles.handler.peer import Peer

DOMAIN = "<domain type='qemu'><name>ns_vm</name><uuid>u</uuid></domain>"
GUEST: Any = SimpleNamespace(domain_name="ns_vm", bindings={})


def vmi(sidecars: str | None = '[{"image": "x"}, {"image": "y"}]') -> dict[str, Any]:
    annotations = {} if sidecars is None else {ANNOTATION: sidecars}
    return {"metadata": {"name": "vm", "namespace": "ns", "annotations": annotations, "managedFields": []}, "spec": {}}


class Launcher:
    """Answers as told, and remembers the question."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer if isinstance(answer, bytes | Exception) else json.dumps(answer).encode()
        self.asked: dict[str, Any] = {}

    def ask(self, path: Any, request: bytes, *, seconds: float, limit: int) -> bytes:
        assert path == paths.HOOKS_SOCKET
        self.asked = json.loads(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def changed(answer: Any, **options: Any) -> str:
    launcher: Any = Launcher(answer)
    return hooks.changed(vmi(**options), GUEST, launcher, DOMAIN)


def test_the_domain_is_what_the_sidecars_return():
    found = DOMAIN.replace("<uuid>", "<sound model='ac97'/><uuid>")
    launcher: Any = Launcher({"domain": found})
    assert hooks.changed(vmi(), GUEST, launcher, DOMAIN) == found
    metadata = {key: value for key, value in vmi()["metadata"].items() if key != "managedFields"}
    assert launcher.asked == {
        "call": "OnDefineDomain",
        "sidecars": 2,
        "domain": DOMAIN,
        "vmi": {"metadata": metadata, "spec": {}},
    }


@pytest.mark.parametrize("sidecars", [None, "", "[]"])
def test_nobody_is_asked_where_there_are_none(sidecars):
    assert changed(AssertionError(), sidecars=sidecars) == DOMAIN


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "out\x1bof\npaper" + "x" * 5000}, "out of paper"),
        ({}, "returned no domain"),
        (["domain"], "returned no domain"),
        ({"domain": 7}, "returned no domain"),
        (b"", "virt-launcher did not respond"),
        (b"[" * 100_000, "virt-launcher did not respond"),
        (ConnectionRefusedError(111, "refused"), "hook sidecars can't be called"),
        ({"domain": "<domain>"}, "is not XML"),
        ({"domain": "<!DOCTYPE x [<!ENTITY a 'b'>]><domain>&a;</domain>"}, "document type"),
        ({"domain": DOMAIN.replace("domain", "network")}, "an element 'network' instead of a domain"),
        ({"domain": DOMAIN.replace("ns_vm", "ns_other")}, "changed the domain's name"),
        ({"domain": DOMAIN.replace("<uuid>u</uuid>", "")}, "changed the domain's uuid"),
        ({"domain": DOMAIN.replace("<uuid>", f"<a>{'x' * MAX_LENGTH}</a><uuid>")}, "at most"),
        ({"domain": DOMAIN.replace("<uuid>", f"{'<a/>' * 30_000}<uuid>")}, "elements and attributes"),
    ],
)
def test_answers_that_can_not_be_used(answer, words):
    with pytest.raises(HookError) as error:
        changed(answer)
    assert words in str(error.value)
    assert len(str(error.value)) <= 1000
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("answer", "error"), [(b"domain", None), (b"x" * 2000, OSError), (None, TimeoutError)], ids=["fits", "long", "none"]
)
def test_how_much_and_how_long_a_peer_may_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, error: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):
                    pass
                if answer is not None:
                    connection.sendall(answer)
                else:
                    done.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        directory = os.open(tmp_path, os.O_RDONLY)
        try:
            with Peer(directory, "s") as peer:
                if error is None:
                    assert peer.ask(b"r" * 10_000_000, seconds=20, limit=1000) == answer
                else:
                    with pytest.raises(error):
                        peer.ask(b"request", seconds=0.2 if answer is None else 20, limit=1000)
        finally:
            done.set()
            os.close(directory)
            thread.join()
