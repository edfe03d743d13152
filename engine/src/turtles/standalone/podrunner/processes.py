# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports when a Pod's processes end."""

import os
import select
import threading
from collections.abc import Callable


class Processes:
    """Watches processes of Pods, all in one thread.

    :param ended: called with the uid of a Pod of which a process has ended.
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._epoll = select.epoll()
        self._uids: dict[int, str] = {}
        self._watched: dict[str, set[int]] = {}

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="processes", daemon=True).start()

    def watch(self, uid: str, pid: int) -> None:
        """Watch a process of a Pod, unless it is watched already."""
        watched = self._watched.setdefault(uid, set())
        if pid in watched:
            return
        watched.add(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._ended(uid)
            return
        self._uids[pidfd] = uid
        self._epoll.register(pidfd, select.EPOLLIN)

    def forget(self, uid: str) -> None:
        """Forget a Pod whose processes have ended."""
        self._watched.pop(uid, None)

    def _run(self) -> None:
        while True:
            for pidfd, _ in self._epoll.poll():
                self._epoll.unregister(pidfd)
                uid = self._uids.pop(pidfd)
                os.close(pidfd)
                self._ended(uid)
