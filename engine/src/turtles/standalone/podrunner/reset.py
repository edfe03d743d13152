# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-standalone reset``: nothing of an instance's Pods is left on the machine.

Only what the instance itself recorded is touched: the processes in its Pods' state files, its networks, mounts below
its own directories, its cgroups.
"""

import contextlib
import logging
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from turtles.command import Tool
from turtles.standalone import block_files, nft
from turtles.standalone.files import read_json, remove_tree
from turtles.standalone.nft import NftError
from turtles.standalone.podrunner import cni, crun, network, network_namespace, service_table, volumes
from turtles.standalone.podrunner.cgroup import Cgroups
from turtles.standalone.podrunner.config import Config, load
from turtles.standalone.podrunner.mount_points import unmount_below
from turtles.standalone.podrunner.poddir import PodDir
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError, send_signal, wait_end
from turtles.standalone.proxy import table

log = logging.getLogger(__name__)


def reset(config: Config) -> bool:
    """End every Pod of the instance and remove its state; say whether there was anything."""
    changed = False
    zygote = ZygoteClient(config.zygote_socket, config.root_dir / "zygote.log", "", [])
    pods = [PodDir(config.pods_dir, path.name) for path in _children(config.pods_dir)]
    for pod in pods:
        for name in pod.containers():
            state = read_json(pod.container(name) / "state.json")
            if state is not None and send_signal(state, signal.SIGKILL):
                changed = True
                wait_end(state, 10.0)
    with contextlib.suppress(ZygoteError):
        pid = zygote.status()["pid"]
        changed = True
        _retire(zygote, pid)
    for pod in pods:
        changed = True
        with contextlib.suppress(cni.CNIError):
            network.tear_down(config, pod)
    for path in _children(config.run_dir / "netns"):
        network_namespace.delete(path)
    changed |= _remove_services(config)
    changed |= _remove_policies(config)
    changed |= _remove_networks(config)
    crun.delete_all(config.run_dir / "crun", "")
    changed |= block_files.detach_below(config.run_dir / volumes.DEVICES)
    changed |= unmount_below(config.run_dir) | unmount_below(config.root_dir)
    changed |= Cgroups(config.cgroup_parent).remove_all()
    for path in (config.run_dir, config.root_dir, config.images_dir):
        if path.exists():
            changed = True
            remove_tree(path)
    return changed


def _retire(zygote: ZygoteClient, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        # Before it ends, when its number can become another process's.
        pidfd = os.pidfd_open(pid)
        try:
            zygote.retire()
            if not select.select([pidfd], [], [], 10.0)[0]:
                log.warning("the forking process does not exit", extra={"pid": pid})
        finally:
            os.close(pidfd)


def _children(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _remove_services(config: Config) -> bool:
    """Remove the rules by which Services were reached."""
    try:
        served = service_table.served(config)
        removed = [table.remove(settings) for settings in served[0]] if served is not None else []
        return any(removed)
    except cni.CNIError:
        return False
    except (table.TableError, NftError) as error:
        log.warning("the rules of Services stay", extra={"error": str(error)})
        return False


def _remove_policies(config: Config) -> bool:
    """Remove the rules of NetworkPolicies."""
    try:
        return nft.remove_table(config.policy_table) | nft.remove_table(config.policy_table, "ip6")
    except NftError as error:
        log.warning("the rules of network policies stay", extra={"error": str(error)})
        return False


def _remove_networks(config: Config) -> bool:
    """Remove the bridges, address reservations and translation rules of the configured networks, all unused by now."""
    try:
        conflist = cni.load_network(config.cni_conf_dir)
    except cni.CNIError:
        return False
    changed = False
    for plugin in conflist["plugins"]:
        if plugin["type"] == "bridge":
            bridge = plugin.get("bridge", "cni0")
            if Path("/sys/class/net", bridge, "bridge").is_dir():
                changed = True
                subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)
        ipam = plugin.get("ipam") or {}
        if ipam.get("type") == "host-local":
            reserved = Path(ipam.get("dataDir") or "/var/lib/cni/networks", conflist["name"])
            if reserved.is_dir():
                changed = True
                shutil.rmtree(reserved)
    for program in ("iptables", "ip6tables"):
        changed |= _remove_rules(program, conflist["name"])
    if any(plugin["type"] == "portmap" for plugin in conflist["plugins"]):
        changed |= _remove_port_chains()
    return changed


def _remove_rules(program: str, network: str) -> bool:
    """Remove what plugins leave behind in the nat table for a network: rules that name it, and their chains.

    :param program: iptables or ip6tables.
    """
    changed = False
    done = subprocess.run([f"{program}-save", "-t", "nat"], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    chains = set()
    for line in lines:
        if line.startswith("-A ") and f'name: "{network}"' in line:
            words = shlex.split(line)
            if "-j" in words:
                chains.add(words[words.index("-j") + 1])
            changed |= subprocess.run([program, "-t", "nat", "-D", *words[1:]], capture_output=True).returncode == 0
    for chain in chains:
        if chain.startswith("CNI-"):
            for option in ("-F", "-X"):
                subprocess.run([program, "-t", "nat", option, chain], capture_output=True, check=False)
    return changed


def _remove_port_chains() -> bool:
    """Remove the chains that the plugin portmap shares between all networks, once no port is mapped any more.

    It never removes them itself, and makes them again when it needs them.
    """
    done = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    chains = [line[1:].split()[0] for line in lines if line.startswith(":CNI-HOSTPORT-")]
    if not chains or any(line.startswith(("-A CNI-HOSTPORT-DNAT ", ":CNI-DN-")) for line in lines):
        return False
    for line in lines:
        words = shlex.split(line)
        if line.startswith("-A ") and not words[1].startswith("CNI-") and words[-1] in chains:
            subprocess.run(["iptables", "-t", "nat", "-D", *words[1:]], capture_output=True, check=False)
    for option in ("-F", "-X"):
        for chain in chains:
            subprocess.run(["iptables", "-t", "nat", option, chain], capture_output=True, check=False)
    return True


def main(argv: list[str] | None = None) -> int:
    """Reset an instance whose services are stopped, and print ``{"changed": bool}``."""
    tool = Tool("virt-standalone reset", "Removes what the Pod runner left behind on the node.", component="reset")
    tool.parser.add_argument("--config", required=True, metavar="FILE", help="the Pod runner's configuration file")
    return tool.report(lambda options: {"changed": reset(load(options.config))}, argv)


if __name__ == "__main__":
    sys.exit(main())
