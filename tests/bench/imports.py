# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How fast a disk comes from a web server, and how much memory that takes, beside curl and qemu-img convert.

    python tests/bench/imports.py [--size MIB] [--data MIB] [--rounds N] [--folder DIR]

The server is a process of its own on the same machine. Each figure is the best of the rounds; those by hand and of
the importer alternate. Memory is the largest resident set of the importer, without that of the qemu-img it starts.
"""

from __future__ import annotations

import argparse
import http.server
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import history
from turtles.importer import http as importer
from turtles.importer.progress import Progress
from turtles.importer.request import Request
from turtles.importer.target import Target

MIB = 1 << 20
FORMATS = ("raw", "qcow2", "qcow2 -c", "raw.gz", "raw.zst")


class Files(http.server.SimpleHTTPRequestHandler):
    """Files as the kernel sends them."""

    protocol_version = "HTTP/1.1"

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        self.connection.sendfile(source)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(folder: Path, ready: multiprocessing.connection.Connection) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    ready.send(server.server_address[1])
    server.serve_forever()


def make(folder: Path, size: int, data: int) -> None:
    """Make a disk of that size with that much of data, half of it compressible, in all formats."""
    with (folder / "raw").open("wb") as file:
        for number in range(data):
            file.seek(number * (size // data) * MIB)
            file.write(os.urandom(MIB // 2) + f"{number:08}".encode() * (MIB // 16))
        file.truncate(size * MIB)
    for name, options in (("qcow2", []), ("qcow2 -c", ["-c"])):
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, folder / "raw", folder / name], check=True
        )
    for name, command in (("raw.gz", ["gzip", "-1"]), ("raw.zst", ["zstd", "-q", "-3"])):
        with (folder / "raw").open("rb") as source, (folder / name).open("wb") as target:
            subprocess.run([*command, "-c"], stdin=source, stdout=target, check=True)


def convert(url: str, name: str, target: Path) -> float:
    """Seconds of what one does by hand: curl, gzip or zstd if need be, and qemu-img."""
    began = time.monotonic()
    source = fetched = target.with_name("fetched")
    subprocess.run(["curl", "--silent", "--show-error", "--fail", "--output", source, url], check=True)
    if name.endswith((".gz", ".zst")):
        source = target.with_name("unpacked")
        with source.open("wb") as file:
            subprocess.run(
                ["gzip" if name.endswith("gz") else "zstd", "-dc"], stdin=fetched.open("rb"), stdout=file, check=True
            )
    format_ = "qcow2" if name.startswith("qcow2") else "raw"
    subprocess.run(["qemu-img", "convert", "-f", format_, "-O", "raw", source, target], check=True)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.monotonic() - began


def imported(url: str, claim: Path, scratch: Path, size: int) -> float:
    """Seconds of what the importer takes, which is a process of its own; it prints its memory in MiB."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        importer.run(importer.Job(Request(url), Target(claim, size * MIB), scratch=scratch), Progress(""))
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        (scratch / "memory").write_text(str(used))
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{url} couldn't be imported")
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="MiB of the disk (default: %(default)s)")
    parser.add_argument("--data", type=int, default=512, help="MiB of it that are no hole (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made; on a disk as it is used")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        files, claim, scratch = (folder / each for each in ("files", "claim", "scratch"))
        for each in (files, claim, scratch):
            each.mkdir()
        make(files, options.size, options.data)
        here, there = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(files, there), daemon=True)
        server.start()
        port = here.recv()
        ratios: dict[str, float] = {}
        try:
            for format_ in FORMATS:
                best: dict[str, float] = {}
                for _round in range(options.rounds):
                    url = f"http://127.0.0.1:{port}/{format_.replace(' ', '%20')}"
                    seconds = {"qemu-img": convert(url, format_, folder / "converted")}
                    seconds["importer"] = imported(url, claim, scratch, options.size)
                    same = (
                        subprocess.run(["cmp", folder / "converted", claim / "disk.img"], check=False).returncode == 0
                    )
                    if not same:
                        raise SystemExit(f"{format_}: the disks differ")
                    best = {key: min(value, best.get(key, value)) for key, value in seconds.items()}
                ratios[format_] = best["importer"] / best["qemu-img"]
                print(
                    json.dumps(
                        {
                            "format": format_,
                            "fileMiB": round((files / format_).stat().st_size / MIB),
                            "diskMiB": options.size,
                            "secondsByHand": round(best["qemu-img"], 2),
                            "secondsImporter": round(best["importer"], 2),
                            "throughputRatio": round(best["qemu-img"] / best["importer"], 2),
                            "importerMemoryMiB": int((scratch / "memory").read_text()),
                        }
                    ),
                    flush=True,
                )
        finally:
            server.kill()
            server.join()
    history.record("import", {"size": options.size, "data": options.data, "rounds": options.rounds}, ratios)
    return 0


if __name__ == "__main__":
    sys.exit(main())
