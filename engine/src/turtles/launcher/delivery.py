# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher's end of the delivery of its VMI: a file that the node agent leaves in one of the Pod's folders."""

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Any

from turtles.domain import handover, paths
from turtles.launcher.errors import LaunchError

_LIBC = ctypes.CDLL(None, use_errno=True)
# inotify(7)
_IN_MOVED_TO = 0x80


class Delivery:
    """The file to wait for. Call :meth:`take` immediately, then whenever :meth:`fileno` is readable.

    :param namespace: of the VMI, as the command line says.
    :param name: likewise.
    :param uid: likewise.
    :param path: where the file will be.
    """

    def __init__(self, namespace: str, name: str, uid: str, path: Path = Path(paths.DELIVERED_VMI)) -> None:
        self._identity = namespace, name, uid
        self._path = path
        self._inotify = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        # The agent renames, so that a file is complete when it has its name.
        if self._inotify >= 0 and _LIBC.inotify_add_watch(self._inotify, os.fsencode(path.parent), _IN_MOVED_TO) < 0:
            self.close()

    def fileno(self) -> int | None:
        """Return a descriptor that becomes readable when a file was moved there.

        None if the user's inotify instances are used up (``fs.inotify.max_user_instances``; all launchers of a node
        run as the same user). The caller then has to poll.
        """
        return self._inotify if self._inotify >= 0 else None

    def take(self) -> dict[str, Any] | None:
        """Return the VMI and remove its file, or None if it isn't there yet.

        :raises LaunchError: if the file can't be read or is about another VMI.
        """
        if self._inotify >= 0:
            with contextlib.suppress(BlockingIOError):
                os.read(self._inotify, 65536)
        try:
            data = self._path.read_bytes()
            self._path.unlink(missing_ok=True)
            return handover.read_view(data, *self._identity)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LaunchError(f"what the node agent delivered can't be read: {error}") from error
        except handover.HandoverError as error:
            raise LaunchError(f"the node agent delivered {error}") from error

    def close(self) -> None:
        """Stop watching."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1
