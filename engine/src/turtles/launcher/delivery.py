# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher's end of the delivery of its VMI: a file that the node agent leaves in one of the Pod's folders."""

import os
from pathlib import Path
from typing import Any

from turtles.domain import handover, paths
from turtles.launcher import inotify
from turtles.launcher.errors import LaunchError


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
        # The agent renames, so that a file is complete when it has its name.
        self._inotify = inotify.watch(path.parent, inotify.MOVED_TO)

    def fileno(self) -> int | None:
        """Return a descriptor that becomes readable when a file was moved there; None if the caller has to poll."""
        return self._inotify

    def take(self) -> dict[str, Any] | None:
        """Return the VMI and remove its file, or None if it isn't there yet.

        :raises LaunchError: if the file can't be read or is about another VMI.
        """
        if self._inotify is not None:
            inotify.drain(self._inotify)
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
        if self._inotify is not None:
            os.close(self._inotify)
            self._inotify = None
