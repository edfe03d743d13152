# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs ansible-inventory many times: a process imports it once, and forks for each run."""

from __future__ import annotations

import json
import os
import subprocess
import sys


class Inventories:
    """The process that forks.

    :param environment: what Ansible reads its settings from.
    """

    def __init__(self, environment):
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments, folder, environment=None):
        """Run it in a folder, with more variables; return exit status, output and errors."""
        output, errors = folder / "stdout", folder / "stderr"
        request = {
            "arguments": list(map(str, arguments)),
            "folder": str(folder),
            "environment": environment or {},
            "streams": [str(output), str(errors)],
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), output.read_text(), errors.read_text()

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait(30)


def serve():
    """Fork for each line of standard input."""
    import kubernetes  # noqa: F401 (for all runs at once)
    from ansible.cli.inventory import main

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            request = json.loads(line)
            for number, path in enumerate(request["streams"], 1):
                os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), number)
            os.chdir(request["folder"])
            os.environ.update(request["environment"])
            code = 0
            try:
                main(["ansible-inventory", *request["arguments"]])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
