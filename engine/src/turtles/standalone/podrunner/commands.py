# SPDX-License-Identifier: GPL-3.0-or-later
"""Additional commands in running containers, whichever way these were started."""

import contextlib
import json
import os
import select
import time
from collections.abc import Callable

from turtles.api.objects import Object
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner import oci
from turtles.standalone.podrunner.cgroup import Cgroups
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.execution import Execution
from turtles.standalone.podrunner.ordinary import Bundles
from turtles.standalone.podrunner.poddir import Observed, PodDir
from turtles.standalone.podrunner.seccomp import RUNTIME_DEFAULT, UNCONFINED
from turtles.standalone.podrunner.volume_files import field
from turtles.standalone.podrunner.zygote_client import ZygoteClient

#: Bytes of a command's output that are kept, as the kubelet does.
_MAX_OUTPUT = 10 << 10


class Commands:
    """Runs commands in the containers of a node.

    :param fetch: gives a Secret or ConfigMap of a Pod's namespace by kind and name.
    """

    def __init__(
        self, config: Config, zygote: ZygoteClient, bundles: Bundles, fetch: Callable[[Object, str, str], Object | None]
    ) -> None:
        self._config, self._zygote, self._bundles, self._fetch = config, zygote, bundles, fetch
        self._cgroups = Cgroups(config.cgroup_parent)

    def execution(
        self,
        pod: Object,
        container: Object,
        directory: PodDir,
        observed: Observed,
        command: list[str],
        terminal: bool = False,
    ) -> Execution:
        """Return what is to be executed, with the user, privileges and variables of the container.

        :param observed: the container, which is running.
        :raises turtles.standalone.podrunner.container.ContainerError: a variable's origin is gone.
        """
        state = observed.state or {}
        config = self._bundles.config(directory.uid, container["name"])
        if config is not None:
            process = oci.process_of(config)
            return Execution(
                pid=state["pid"],
                start=state["start"],
                argv=command,
                env=({"TERM": "xterm"} if terminal else {}) | process.env,
                cwd=process.cwd,
                uid=process.uid,
                gid=process.gid,
                groups=process.groups,
                capabilities=process.effective,
                terminal=terminal,
                cgroup_procs=list(state.get("cgroupProcs") or ()),
                seccomp=RUNTIME_DEFAULT if oci.is_filtered(config) else UNCONFINED,
            )
        env = containers.environment(pod, container, lambda kind, key: self._fetch(pod, kind, key))
        for entry in container.get("env") or []:
            reference = ((entry.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
            if reference in ("status.podIP", "status.podIPs"):
                env[entry["name"]] = field(pod, reference)
        identity = containers.identity_of(container, pod["spec"])
        return Execution(
            pid=state["pid"],
            start=state["start"],
            argv=command,
            env=({"TERM": "xterm"} if terminal else {}) | env,
            cwd=container.get("workingDir") or "/",
            uid=identity.uid,
            gid=identity.gid,
            groups=identity.groups,
            capabilities=identity.capabilities,
            terminal=terminal,
            cgroup_procs=self._cgroups.create(directory.uid, containers.limits(pod["spec"], self._config)),
            seccomp=containers.seccomp_profile(container, pod["spec"]),
        )

    def run(self, execution: Execution, seconds: float) -> tuple[int | None, str]:
        """Run a command to its end; return its exit code (None: it took longer and was ended) and what it said."""
        deadline = time.monotonic() + seconds
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, reading)
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            try:
                control = stack.enter_context(self._zygote.execute(execution, [null, writing, writing], bound=True))
            finally:
                os.close(null)
                os.close(writing)
            poll = select.poll()
            for fd in (reading, control.fileno()):
                poll.register(fd, select.POLLIN)
            output, code, error = b"", None, ""
            while code is None:
                ready = [fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
                if not ready:
                    break
                if reading in ready:
                    data = os.read(reading, _MAX_OUTPUT)
                    output += data[: _MAX_OUTPUT - len(output)]
                    if not data:
                        poll.unregister(reading)
                if control.fileno() in ready:
                    result = json.loads(control.recv(64 << 10) or b'{"exit": 255}')
                    if "started" not in result:
                        code, error = int(result.get("exit", 126)), str(result.get("error") or "")
            # What it said at its end; a process that it left behind may still hold the pipe.
            os.set_blocking(reading, False)
            with contextlib.suppress(BlockingIOError):
                output += os.read(reading, _MAX_OUTPUT)[: _MAX_OUTPUT - len(output)]
            return code, error or output.decode(errors="replace")
