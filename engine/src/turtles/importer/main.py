# SPDX-License-Identifier: GPL-3.0-or-later
"""The command virt-importer: the only process of an importer's Pod.

Its exit status tells the controller what to do next (:mod:`turtles.importer.errors`); what it has to say is the
container's termination message. Importing this module loads what it needs and starts nothing, so that a process that
has imported it can be forked for every import.
"""

import argparse
import encodings.idna  # noqa: F401 - a forked process may be unable to read Python's library
import logging
import signal
import sys
import threading
from pathlib import Path

from turtles import health, termination
from turtles.command import Command
from turtles.images import ImageError
from turtles.importer import blank, clone, http, pulled, registry, request, restored, s3, upload
from turtles.importer.errors import FAILED, ImportFailed, ImportRefused
from turtles.importer.folder import Folder
from turtles.importer.progress import Progress
from turtles.importer.registry_client import Image, connected
from turtles.importer.target import DEVICE, DIRECTORY, Target

log = logging.getLogger(__name__)

#: Said of a disk that is complete (CDI).
COMPLETE = "Import Complete"
#: Loaded now, used by the server of metrics.
_HEALTH = health.HealthServer


def main(argv: list[str] | None = None) -> int:
    """Import; return 0 if there is a disk now.

    :param argv: arguments without the program's name; None takes the process's own.
    """
    command = Command("virt-importer", "Writes the content of a DataVolume to its claim.")
    command.add_health()
    add = command.parser.add_argument
    add("source", choices=("http", "s3", "registry", "pulled", "digest", "clone", "snapshot", "upload", "blank"))
    add("--owner", default="", help="uid of the DataVolume, for metrics")
    add("--size", type=int, default=0, help="bytes of the disk")
    add("--block", action="store_true", help="the claim is a device")
    add("--preallocate", action="store_true", help="preallocate the disk's storage")
    add("--url", default="", help="of the file on a server")
    add("--checksum", default="", help="its hash, as algorithm:digits")
    add("--archive", action="store_true", help="the file is an archive, of which the claim gets the files")
    add("--header", action="append", default=[], help="additional request header, as 'Name: value'")
    add("--secret-headers", type=Path, action="append", default=[], metavar="DIR", help="files with additional headers")
    add("--credentials", type=Path, metavar="DIR", help="files accessKeyId and secretKey")
    add("--authorities", type=Path, metavar="DIR", help="files with the authorities to trust, in PEM")
    add("--insecure", action="store_true", help="don't verify the server's certificate")
    add(
        "--image",
        default="",
        help="reference of a container image; of one that is mounted, for messages",
    )
    add("--image-dir", type=Path, default=Path("/image"), metavar="DIR", help="default: %(default)s")
    add("--architecture", default="", help="of the container image, such as amd64 (default: this machine's)")
    add("--source-block", action="store_true", help="the claim to copy is a device")
    add("--scratch", type=Path, metavar="DIR", help="folder for scratch data")
    add("--identity", type=Path, default=Path("/identity"), metavar="DIR", help="of the upload server: %(default)s")
    add("--timeout", type=int, default=86400, help="time limit in seconds (default: %(default)s)")
    # A signal ends it at once: whatever it has written can be continued, or is written again.
    return command.run(lambda options: _run(command, options), argv, signals=False)


def _run(command: Command, options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGALRM, lambda *_: _give_up(options.timeout))
    progress, ready = Progress(options.owner), threading.Event()
    try:
        with command.health(options, ready.is_set, (progress.source(),)):
            if options.source == "upload":
                _serve(options, progress, ready)
            elif options.source == "digest":
                ready.set()
                signal.alarm(options.timeout)
                with connected(_image(options), options.scratch) as client:
                    termination.leave(client.digest())
                return 0
            else:
                ready.set()
                signal.alarm(options.timeout)
                _import(options, progress)
    except ImportFailed as error:
        log.error("%s", error)
        termination.leave(str(error))
        return error.exit_status
    except Exception as error:
        log.exception("the import failed")
        termination.leave(f"the import failed: {type(error).__name__}: {error}")
        return FAILED
    termination.leave(COMPLETE)
    return 0


def _give_up(seconds: int) -> None:
    raise ImportRefused(f"the import did not finish within {seconds} seconds")


def _serve(options: argparse.Namespace, progress: Progress, ready: threading.Event) -> None:
    upload.run(
        upload.Job(
            lambda: _target(options), options.identity, options.scratch, options.timeout, folder=_folder(options)
        ),
        progress,
        lambda port: ready.set(),
    )


def _target(options: argparse.Namespace) -> Target:
    return Target(DEVICE if options.block else DIRECTORY, options.size, preallocate=options.preallocate)


def _folder(options: argparse.Namespace) -> Folder | None:
    return Folder(DIRECTORY, options.size) if options.archive else None


def _image(options: argparse.Namespace) -> Image:
    return Image(
        options.image,
        options.credentials,
        options.authorities,
        verify=not options.insecure,
        architecture=options.architecture,
    )


def _import(options: argparse.Namespace, progress: Progress) -> None:
    target = _target(options)
    if options.source == "blank":
        blank.run(target)
        return
    if options.source == "snapshot":
        restored.run(target)
        return
    if options.source == "clone":
        clone.run(clone.DEVICE if options.source_block else clone.DIRECTORY, target, progress)
        return
    if options.source == "registry":
        registry.run(options.image_dir, options.image, target, progress)
        return
    if options.source == "pulled":
        pulled.run(_image(options), target, options.scratch, progress)
        return
    try:
        secret = request.secret_headers(options.secret_headers)
        sign = None
        if options.credentials is not None and options.source == "s3":
            sign = s3.signer(options.credentials)
        elif options.credentials is not None:
            secret |= request.credentials(options.credentials)
    except (OSError, UnicodeError, ImageError) as error:
        raise ImportRefused(f"the Secrets with headers can't be read: {error}") from error
    wanted = request.Request(
        options.url,
        request.headers(options.header),
        secret,
        options.authorities,
        verify=not options.insecure,
        sign=sign,
    )
    http.run(http.Job(wanted, target, options.checksum, options.scratch, _folder(options)), progress)


if __name__ == "__main__":
    sys.exit(main())
