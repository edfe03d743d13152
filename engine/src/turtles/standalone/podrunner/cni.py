# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of Pods by real CNI plugins: the runtime's side of the CNI specification 1.0, section 3 and 4.

A network is a chain of plugins. ADD runs them in order, each given the result of the previous one; DEL runs them in
reverse order with what was kept on disk from ADD: the configuration as it was, the runtime configuration and the
result, so that a configuration file changed in between leaves nothing behind.
"""

import contextlib
import json
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turtles.standalone.files import read_json, write_json

log = logging.getLogger(__name__)

_TIMEOUT = 60.0
#: Plugins of which nothing is left when the namespace is gone, but for addresses.
_ENDS_WITH_NAMESPACE = ("macvlan", "vlan", "ipvlan", "host-device")


class CNIError(Exception):
    """A network can't be configured, or a plugin failed; the message names both, with the plugin's own message."""


def load_network(conf_dir: Path) -> dict[str, Any]:
    """Return the configuration list that comes first in a directory, by name, as container runtimes choose it.

    A file with a single plugin (``.conf``, ``.json``) is taken as a list of one.

    :raises CNIError: there is none, or it is not valid.
    """
    names = _files(conf_dir)
    if not names:
        raise CNIError(f"no CNI network configuration in {conf_dir}: put a .conflist file there")
    return _load(names[0])


def _files(conf_dir: Path) -> list[Path]:
    return sorted(path for path in conf_dir.glob("*") if path.suffix in (".conflist", ".conf", ".json"))


def _load(path: Path) -> dict[str, Any]:
    try:
        network = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CNIError(f"CNI network configuration {path}: {error}") from error
    if path.suffix != ".conflist" and "plugins" not in network:
        network = {
            "cniVersion": network.get("cniVersion", "0.4.0"),
            "name": network.get("name"),
            "plugins": [{key: value for key, value in network.items() if key not in ("cniVersion", "name")}],
        }
    if not network.get("name") or not network.get("plugins") or not all(p.get("type") for p in network["plugins"]):
        raise CNIError(f"CNI network configuration {path}: needs name, plugins and a type for each plugin")
    return dict(network)


def named_network(conf_dir: Path, name: str) -> dict[str, Any]:
    """Return the configuration list of a name, of a file in a directory.

    :raises CNIError: there is none.
    """
    for path in _files(conf_dir):
        network = _load(path)
        if network["name"] == name:
            return network
    raise CNIError(f"no file in {conf_dir} has a CNI network configuration named {name!r}")


def has_plugin(bin_dirs: Sequence[Path], name: str) -> bool:
    """Say whether there is a plugin of a name."""
    return "/" not in name and any(os.access(directory / name, os.X_OK) for directory in bin_dirs)


def plugins(bin_dirs: Sequence[Path]) -> list[str]:
    """Return the names of the plugins that there are."""
    paths = [path for directory in bin_dirs if directory.is_dir() for path in directory.iterdir()]
    return sorted({path.name for path in paths if path.is_file() and os.access(path, os.X_OK)})


class Attachment:
    """One network of one Pod: interface ``ifname`` in the namespace ``netns``, recorded in ``record``.

    :param bin_dirs: directories searched for plugins.
    :param record: file that keeps the attachment between ADD and DEL.
    """

    def __init__(self, bin_dirs: Sequence[Path], record: Path) -> None:
        self._bin_dirs = bin_dirs
        self._record = record

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished ADD, or None."""
        record = self.record()
        return record.get("result") if record else None

    def record(self) -> dict[str, Any] | None:
        """Return what is recorded: ``network``, ``ifname``, ``definition``, and ``result`` if ADD has finished."""
        return read_json(self._record)

    def add(
        self,
        network: dict[str, Any],
        container_id: str,
        netns: Path,
        ifname: str,
        args: dict[str, str],
        capabilities: Mapping[str, Any],
        definition: str = "",
    ) -> dict[str, Any]:
        """Attach, or return the result of the ADD that was done before.

        :param args: CNI_ARGS, such as K8S_POD_NAME.
        :param capabilities: runtime configuration by capability, such as portMappings; each plugin gets its own.
        :param definition: where the network comes from, to be recorded.
        :raises CNIError: a plugin failed; everything done before is undone.
        """
        known = self.result()
        if known is not None:
            return known
        # An ADD that was interrupted may have done anything: undo it first.
        self.delete()
        record: dict[str, Any] = {
            "network": network,
            "containerID": container_id,
            "netns": str(netns),
            "ifname": ifname,
            "args": args,
            "capabilities": dict(capabilities),
            "definition": definition,
        }
        # Written before the first plugin runs: after a crash it says what to delete.
        write_json(self._record, record)
        result: dict[str, Any] | None = None
        try:
            for plugin in network["plugins"]:
                result = self._run("ADD", record, plugin, result) or result
        except CNIError:
            # What can't be undone now stays recorded, and must not hide why.
            with contextlib.suppress(CNIError):
                self.delete()
            raise
        record["result"] = result or {}
        write_json(self._record, record)
        return dict(record["result"])

    def delete(self) -> None:
        """Detach according to the record; do nothing without one.

        :raises CNIError: a plugin failed; the record stays and delete can be repeated.
        """
        record = read_json(self._record)
        if not record:
            return
        previous = record.get("result") if _version(record["network"]) >= (0, 4, 0) else None
        for plugin in reversed(record["network"]["plugins"]):
            try:
                self._run("DEL", record, plugin, previous)
            except CNIError as error:
                if plugin["type"] not in _ENDS_WITH_NAMESPACE:
                    raise
                # Version 1.1 of these can't be asked any more once the interface or its master is gone.
                log.warning("only addresses are released: %s", error)
                if ipam := (plugin.get("ipam") or {}).get("type"):
                    self._run("DEL", record, {**plugin, "type": ipam}, previous, plugin["type"])
        self._record.unlink(missing_ok=True)

    def check(self) -> None:
        """Check that what ADD did is still there. Plugins of versions before 0.4.0 can't be asked.

        :raises CNIError: a plugin says that it isn't.
        """
        record = self.record()
        if not record or record.get("result") is None or _version(record["network"]) < (0, 4, 0):
            return
        if record["network"].get("disableCheck"):
            return
        for plugin in record["network"]["plugins"]:
            self._run("CHECK", record, plugin, record["result"])

    def _run(
        self,
        command: str,
        record: dict[str, Any],
        plugin: dict[str, Any],
        previous: dict[str, Any] | None,
        on_behalf_of: str = "",
    ) -> dict[str, Any] | None:
        """Run a plugin.

        :param on_behalf_of: the plugin that would run this one.
        """
        network = record["network"]
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config |= {"cniVersion": network.get("cniVersion", "0.1.0"), "name": network["name"]}
        if on_behalf_of:
            config["type"] = on_behalf_of
        asked = [name for name, wanted in (plugin.get("capabilities") or {}).items() if wanted]
        runtime = {name: record["capabilities"][name] for name in asked if record["capabilities"].get(name)}
        if runtime:
            config["runtimeConfig"] = runtime
        if previous is not None:
            config["prevResult"] = previous
        netns = record["netns"]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": record["containerID"],
            # DEL must work when the namespace is gone; an empty path says so.
            "CNI_NETNS": netns if command != "DEL" or Path(netns).exists() else "",
            "CNI_IFNAME": record["ifname"],
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in record["args"].items()),
            "CNI_PATH": os.pathsep.join(str(path) for path in self._bin_dirs),
        }
        what = f"CNI network {network['name']}, plugin {plugin['type']}, {command}"
        try:
            done = subprocess.run(
                [self._binary(plugin["type"])],
                input=json.dumps(config).encode(),
                env=environment,
                capture_output=True,
                timeout=_TIMEOUT,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CNIError(f"{what}: {error}") from error
        if done.returncode:
            raise CNIError(f"{what}: {_message(done.stdout, done.stderr)}")
        if command != "ADD" or not done.stdout.strip():
            return None
        try:
            return dict(json.loads(done.stdout))
        except ValueError as error:
            raise CNIError(f"{what}: its result is not JSON: {done.stdout[:200]!r}") from error

    def _binary(self, name: str) -> str:
        if "/" in name:
            raise CNIError(f"CNI plugin type {name!r} must not contain a slash")
        for directory in self._bin_dirs:
            if os.access(directory / name, os.X_OK):
                return str(directory / name)
        raise CNIError(f"CNI plugin {name} is not in {', '.join(str(path) for path in self._bin_dirs)}")


def _version(network: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in str(network.get("cniVersion", "0.1.0")).split("."))


def _message(stdout: bytes, stderr: bytes) -> str:
    """Return a plugin's error: ``msg`` and ``details`` of its error result, else whatever it printed."""
    try:
        error = json.loads(stdout)
        return f"{error['msg']} {error.get('details', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return (stdout + stderr).decode(errors="replace").strip()[-500:] or "failed without a message"
