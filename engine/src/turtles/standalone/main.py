# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-standalone``: Kubernetes for one machine, a subcommand a part."""

import importlib
import sys

#: Subcommand -> (module, function taking argv and giving an exit code, one-line help). Modules are imported only
#: when their subcommand runs, so that a process holds in memory only what it uses.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("turtles.standalone.init", "main", "create certificates, tokens and kubeconfigs"),
    "apiserver": ("turtles.standalone.apiserver.main", "main", "serve the Kubernetes API from SQLite"),
    "controller-manager": (
        "turtles.standalone.controller_manager",
        "main",
        "bind Pods to nodes, provision volumes, maintain endpoints",
    ),
    "dns": ("turtles.standalone.dns.main", "main", "serve the names of Services and Pods"),
    "backup": (
        "turtles.standalone.apiserver.storage.upkeep",
        "backup",
        "copy the API server's database, running or not",
    ),
    "restore": ("turtles.standalone.apiserver.storage.upkeep", "restore", "replace the database with a backup"),
    "rotate-key": ("turtles.standalone.apiserver.storage.upkeep", "rotate_key", "encrypt Secrets with a new key"),
    "podrunner": ("turtles.standalone.podrunner.main", "main", "run the node's Pods"),
    "reset": ("turtles.standalone.podrunner.reset", "main", "remove what the Pod runner left on the node"),
}


def usage() -> str:
    """Return the help text."""
    lines = ["usage: virt-standalone COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<20} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the subcommand named first in ``argv`` and return its exit code; 2 for an unknown one."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        print(f"virt-standalone: unknown command {arguments[0]!r}\n{usage()}", file=sys.stderr)
        return 2
    module, function, _ = COMMANDS[arguments[0]]
    result: int = getattr(importlib.import_module(module), function)(arguments[1:])
    return result


if __name__ == "__main__":
    sys.exit(main())
