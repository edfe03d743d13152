# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path, PurePosixPath
from typing import Any

from turtles.domain.credentials import Synchronization
from turtles.handler.credentials import AccessCredentials
from turtles.handler.errors import LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.state import State, Store

VMI = {
    "spec": {
        "accessCredentials": [
            {
                "userPassword": {
                    "source": {"secret": {"secretName": "pw"}},
                    "propagationMethod": {"qemuGuestAgent": {}},
                }
            }
        ]
    }
}


class Pod:
    """Plays launcher and domain."""

    def __init__(self) -> None:
        self.secret = {"me": b"one"}
        self.files = self
        self.commands: list[str] = []
        self.error: LibvirtError | None = None

    def read_files(self, folder: PurePosixPath) -> dict[str, bytes]:
        return self.secret if folder.name == "pw" else {}

    def ask_agent(self, command: str) -> str:
        self.commands.append(command)
        if self.error is not None:
            raise self.error
        return '{"return": {}}'


class Immediately:
    """A pool that has done its work when it is given it."""

    def submit(self, function: Any) -> None:
        function()


def test_a_guest_is_told_once_for_each_change(tmp_path: Path) -> None:
    pod, done = Pod(), []
    guest = Guest(("n", "v"), "u", Store(tmp_path), State())
    keeper = AccessCredentials()
    keeper._pool = Immediately()  # type: ignore[assignment]

    def look() -> None:
        keeper.refresh(VMI, guest, pod, pod, lambda: done.append(1))  # type: ignore[arg-type]

    look()
    look()
    assert len(pod.commands) == len(done) == 1
    assert guest.credentials == Synchronization(True)
    pod.secret = {"me": b"two"}
    pod.error = LibvirtError("no such user")
    look()
    look()
    assert len(pod.commands) == 2, "a refusal isn't repeated at once"
    assert guest.credentials is not None
    assert "no such user" in guest.credentials.message
    keeper.refresh({"spec": {}}, guest, pod, pod, lambda: done.append(1))  # type: ignore[arg-type]
    assert len(pod.commands) == 2
