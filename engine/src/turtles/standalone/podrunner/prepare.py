# SPDX-License-Identifier: GPL-3.0-or-later
"""Warm the caches of preloaded images before their first Pod: run ``prepare(cache_dir)`` in a sandbox like a Pod's."""

import logging
import shutil
import threading
from collections.abc import Iterable

from turtles.standalone.files import read_json
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner import network_namespace
from turtles.standalone.podrunner.config import Config, Preload
from turtles.standalone.podrunner.logs import Options, Reader
from turtles.standalone.podrunner.spec import Mount, Spec
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError, wait_end

log = logging.getLogger(__name__)

_TIMEOUT = 120.0
_LOCK = threading.Lock()


def prepare(config: Config, zygote: ZygoteClient, run: str, devices: Iterable[str] = ()) -> None:
    """Run the ``prepare`` function of every preloaded image; a failure is logged, Pods then warm up by themselves.

    :param run: id of this run; an id is run once by one forking process.
    :param devices: device resources that Pods may have.
    """
    for preload in config.preload:
        if preload.prepare is not None:
            try:
                with _LOCK:
                    _prepare(config, zygote, preload, run, devices)
            except (ZygoteError, OSError) as error:
                log.warning("caches not warmed", extra={"image": preload.image, "error": str(error)})


def _prepare(config: Config, zygote: ZygoteClient, preload: Preload, run: str, devices: Iterable[str]) -> None:
    cache = config.root_dir / "cache" / preload.key
    work = config.root_dir / "prepare" / preload.key
    shutil.rmtree(work, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True)
    shutil.chown(cache, preload.user, preload.user)
    etc = work / "etc"
    etc.mkdir()
    passwd, group = containers.passwd_files(preload.user, preload.user)
    for name, text in (
        ("passwd", passwd),
        ("group", group),
        ("hostname", "prepare\n"),
        ("hosts", "127.0.0.1\tlocalhost prepare\n"),
        ("resolv.conf", ""),
    ):
        (etc / name).write_text(text)
    netns = config.run_dir / "netns" / f"prepare-{preload.key}"
    network_namespace.create(netns)
    shown, masks = containers.host_view(config)
    files = {str(config.devices[name]): str(config.devices[name]) for name in devices if config.devices[name].exists()}
    try:
        state = zygote.start(
            f"prepare/{preload.key}/{run}",
            work,
            "prepare",
            Spec(
                entry_point=preload.prepare or "",
                argv=[],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"},
                root_mount=str(config.run_dir / "root"),
                hostname="prepare",
                netns=str(netns),
                uid=preload.user,
                gid=preload.user,
                devices=files,
                argument=config.cache_mount,
                show=shown,
                masks=masks,
                mounts=[
                    *(
                        Mount(str(etc / name), f"/etc/{name}", True)
                        for name in ("passwd", "group", "hosts", "hostname", "resolv.conf")
                    ),
                    Mount(str(cache), config.cache_mount),
                ],
            ),
        )
        if "pid" not in state:
            return
        if not wait_end(state, _TIMEOUT):
            log.warning("caches not warmed in time", extra={"image": preload.image, "seconds": _TIMEOUT})
            return
        zygote.reap(f"prepare/{preload.key}/{run}")
        ended = read_json(work / "exit.json") or {}
        if ended.get("exitCode") != 0:
            log_tail = b"".join(Reader(work, Options(tail=20)))[-800:].decode(errors="replace")
            log.warning("caches not warmed", extra={"image": preload.image, "error": log_tail})
    finally:
        network_namespace.delete(netns)
