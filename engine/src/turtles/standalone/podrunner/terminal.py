# SPDX-License-Identifier: GPL-3.0-or-later
"""The terminal of a container: what it shows goes to the container's log, and to everyone who is attached."""

import contextlib
import errno
import os
import select
import selectors
from pathlib import Path

_READ = 16 << 10
#: Of those attached at the same time.
_MAX_FOLLOWERS = 32


class Terminal:
    """The forking process's end of a terminal, whose output it distributes.

    Nobody is waited for: who doesn't read in time loses what a pipe doesn't hold.

    :param master: the terminal's master, which is ours from now on.
    :param directory: the container's, with the pipe for its log.
    """

    def __init__(self, master: int, directory: Path, selector: selectors.BaseSelector) -> None:
        self._master, self._selector = master, selector
        self._followers = [os.open(directory / "stdout", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)]
        os.set_blocking(master, False)
        selector.register(master, selectors.EVENT_READ, self._distribute)

    def follow(self) -> int:
        """Return a pipe with what the terminal shows from now on; the caller closes it.

        :raises OSError: there are too many already.
        """
        self._forget_gone()
        if len(self._followers) > _MAX_FOLLOWERS:
            raise OSError(errno.EMFILE, "too many are attached to this terminal")
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._followers.append(writing)
        return reading

    def copy(self) -> int:
        """Return a descriptor of the terminal's master; the caller closes it."""
        return os.dup(self._master)

    def close(self) -> None:
        """Distribute the rest, and let go of everything."""
        while self._master >= 0 and self._distribute(self._master):
            pass
        self._release()
        for follower in self._followers:
            os.close(follower)
        self._followers.clear()

    def _forget_gone(self) -> None:
        """Close the pipes that nobody reads any more: writing would show it, but there may be nothing to write."""
        for follower in list(self._followers):
            poll = select.poll()
            poll.register(follower, 0)
            if poll.poll(0):
                self._followers.remove(follower)
                os.close(follower)

    def _distribute(self, master: int) -> bool:
        """Read what there is; say whether there was anything."""
        try:
            data = os.read(master, _READ)
        except BlockingIOError:
            return False
        except OSError:
            # No process has it open any more (pts(4)).
            self._release()
            return False
        for follower in list(self._followers):
            try:
                os.write(follower, data)
            except BlockingIOError:
                continue
            except OSError:
                self._followers.remove(follower)
                os.close(follower)
        return bool(data)

    def _release(self) -> None:
        if self._master >= 0:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._master)
            os.close(self._master)
            self._master = -1
