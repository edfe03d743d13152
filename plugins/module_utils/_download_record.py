# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was downloaded into a folder, noted there, so that it isn't downloaded again."""

from __future__ import annotations

import json
import os

from ._download import MODE, digest
from ._errors import KubeError


class Record:
    """What was downloaded into a folder, noted there.

    :param check: nothing is written.
    :raises KubeError: the folder can't be used.
    """

    def __init__(self, folder, name, check):
        self._folder, self._path = folder, os.path.join(folder, ".%s.export.json" % name)
        try:
            if not check:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            with open(self._path, encoding="utf-8") as file:
                self._known = json.load(file)
        except FileNotFoundError:
            self._known = {}
        except ValueError:
            self._known = {}
        except OSError as exc:
            raise KubeError("dest: %s can't be used: %s." % (folder, exc.strerror or exc)) from exc
        self._check = check

    def find(self, path, about):
        """Return size and checksum of a file that is there, and is what is asked for; None else."""
        entry = self._known.get(os.path.basename(path))
        if not isinstance(entry, dict) or entry.get("about") != about:
            return None
        try:
            status = os.stat(path)
        except OSError:
            return None
        if [status.st_size, status.st_mtime_ns] != entry.get("stamp"):
            return None
        return {"bytes": status.st_size, "checksum": entry["checksum"]}

    def note(self, path, about, found_digest):
        """Note a file; return its size and checksum."""
        status = os.stat(path)
        checksum = "sha256:%s" % found_digest
        entry = {"about": about, "stamp": [status.st_size, status.st_mtime_ns], "checksum": checksum}
        self._known[os.path.basename(path)] = entry
        _store(self._path, json.dumps(self._known, indent=2, sort_keys=True) + "\n")
        return {"bytes": status.st_size, "checksum": checksum}

    def write(self, path, text):
        """Write a small file unless it is so already; return what there is to say of it."""
        try:
            with open(path, encoding="utf-8") as file:
                is_new = file.read() != text
        except (OSError, ValueError):
            is_new = True
        if is_new and not self._check:
            _store(path, text)
        checksum = "" if self._check and is_new else "sha256:%s" % digest(path)
        return {"bytes": len(text.encode()), "checksum": checksum, "downloaded": is_new}

    def check_space(self, needed):
        """Refuse what the file system has no space for.

        :param needed: bytes, if all of them were written.
        """
        space = os.statvfs(self._folder)
        free = space.f_bavail * space.f_frsize
        if not free:
            raise KubeError("dest: the file system of %s is full." % self._folder)
        if needed > space.f_blocks * space.f_frsize:
            raise KubeError(
                "dest: a disk of %d bytes doesn't fit on the file system of %s. Choose another folder, or format=gzip."
                % (needed, self._folder)
            )


def _store(path, text):
    temporary = path + ".new"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as exc:
        raise KubeError("%s can't be written: %s." % (path, exc.strerror or exc)) from exc
