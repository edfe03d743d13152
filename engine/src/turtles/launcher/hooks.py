# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher's part in hook sidecars: it has a process call them, for itself and for the node agent.

The node agent, which defines the domain, is root and talks to no sidecar: it asks here for the domain as the sidecars
want it, and gets text.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turtles.domain import paths
from turtles.launcher import loop
from turtles.launcher.errors import LaunchError
from turtles.launcher.listening import listen

log = logging.getLogger(__name__)

#: Seconds for all sidecars together, and how many of these they have to open their sockets: after their start, which
#: may be slow, when the node agent asks, and when the machine is gone.
START, DEFINE, FAREWELL = (120, 60), (60, 15), (5, 1)
#: Name of the program of sidecars without an image.
SHIM = "virt-sidecar-shim"
#: Bytes of an answer.
_ANSWER = 32 * 1024 * 1024


class Hooks:
    """The hook sidecars of a Pod, of which there are *number*.

    :param path: of the socket at which the node agent asks.
    :param folder: in which the sidecars open theirs.
    """

    def __init__(
        self, number: int, path: Path = Path(paths.HOOKS_SOCKET), folder: Path = Path(paths.HOOKS_DIR)
    ) -> None:
        self._number, self._path, self._folder = number, path, folder

    def listen(self) -> None:
        """Let the node agent ask, while the event loop runs.

        :raises LaunchError: if the Pod's folders can't be used.
        """
        self._listener = listen(self._path)
        loop.on_readable(self._listener.fileno(), self._accept)

    def pre_cloud_init_iso(self, vmi: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        """Return cloud-init data as the sidecars want it.

        :param data: KubeVirt's CloudInitData.
        :raises LaunchError: if one of them can't be called, or the data isn't usable.
        """
        answer = self._ask(START, call="PreCloudInitIso", vmi=vmi, cloudInit=data)
        seed = answer.get("cloudInit")
        if answer.get("error") or not isinstance(seed, dict):
            raise LaunchError(str(answer.get("error") or "hook sidecars returned no cloud-init data"))
        return seed

    def shut_down(self) -> None:
        """Tell the sidecars that the machine is gone."""
        self._ask(FAREWELL, call="Shutdown")

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        with client:
            try:
                process = subprocess.Popen(
                    self._command(DEFINE), stdin=client.fileno(), stdout=client.fileno(), start_new_session=True
                )
                # Ended processes are reaped elsewhere; Popen is not to expect this one.
                process.returncode = 0
            except OSError as error:
                log.warning("hook sidecars can't be called: %s", error)

    def _ask(self, limits: tuple[float, float], **request: Any) -> dict[str, Any]:
        data = json.dumps({"sidecars": self._number, **request}).encode()
        try:
            done = subprocess.run(
                self._command(limits), input=data, stdout=subprocess.PIPE, timeout=limits[0] + 5, check=False
            )
            answer = json.loads(done.stdout) if len(done.stdout) <= _ANSWER else None
        except (OSError, subprocess.TimeoutExpired, ValueError, RecursionError) as error:
            return {"error": f"hook sidecars can't be called: {error}"[:1000]}
        return answer if isinstance(answer, dict) else {"error": "hook sidecars can't be called: no answer"}

    def _command(self, limits: tuple[float, float]) -> list[str]:
        limit, patience = map(str, limits)
        return [sys.executable, "-sP", "-m", "turtles.launcher.hook_client", limit, patience, str(self._folder)]


def become_shim(arguments: list[str]) -> int:
    """Become the program of sidecars without an image, which isn't loaded here: it speaks gRPC.

    :return: never.
    """
    os.execv(sys.executable, [sys.executable, "-sP", "-m", "turtles.launcher.hook_shim", *arguments])  # noqa: S606
