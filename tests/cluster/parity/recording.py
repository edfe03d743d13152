# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real kube-apiserver answered to the corpus, kept in a file.

The file is gzipped JSON::

    {"server": {"gitVersion", "major", "minor"}, "tag": "spbi",
     "answers": {"<theme>: <name>": {"request": "<fingerprint>", "code": 200, "headers": {…}, "body": …}}}

A request that was changed after the recording counts as not recorded: its fingerprint is another one.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import Request, Theme
from play import Answer

FILE = Path(__file__).parent / "recordings/kube-apiserver-1.36.2.json.gz"
#: What says how answers are compared, not what is asked: it may change without a new recording.
_COMPARING = ("theme", "name", "common", "unordered", "ignore", "managed", "code")
#: What a distributor's controllers add to each namespace.
_FOREIGN = {"openshift-service-ca.crt"}


@dataclass(frozen=True)
class Recording:
    """The answers of one server."""

    server: dict[str, str]
    #: What was filled in for ``$id``; a server that is to be compared has to be played the same.
    tag: str
    answers: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, file: Path = FILE) -> Recording:
        """Read a recording."""
        with gzip.open(file, "rt", encoding="utf-8") as text:
            data = json.load(text)
        return cls(data["server"], data["tag"], data["answers"])

    def save(self, file: Path) -> None:
        """Write the recording."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        file.write_bytes(gzip.compress(text.encode(), mtime=0))

    def answer(self, request: Request) -> Answer | None:
        """Return what the server answered, None where it wasn't asked this."""
        entry = self.answers.get(request.id)
        if entry is None or entry["request"] != fingerprint(request):
            return None
        return Answer(entry["code"], entry["headers"], _own(entry["body"]))

    def missing(self, themes: list[Theme]) -> list[Request]:
        """Return the requests that it has no answers to."""
        return [request for theme in themes for request in theme.requests if self.answer(request) is None]

    @property
    def version(self) -> tuple[int, int]:
        """Version of the recorded server."""
        return number(self.server)


def number(version: dict[str, str]) -> tuple[int, int]:
    """Return what ``/version`` says as numbers: some distributors' minor versions end in ``+``."""
    major, minor = (int(re.sub(r"\D.*", "", version[name])) for name in ("major", "minor"))
    return major, minor


def fingerprint(request: Request) -> str:
    """Return what tells whether a request is the same as when it was recorded."""
    asked = {name: value for name, value in dataclasses.asdict(request).items() if name not in _COMPARING}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


def entry(request: Request, answer: Answer) -> dict[str, Any]:
    """Return an answer as it is kept."""
    return {"request": fingerprint(request), **dataclasses.asdict(answer)}


def _own(value: Any) -> Any:
    """Return a body without the objects that aren't Kubernetes' own."""
    if isinstance(value, dict):
        return {name: _own(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_own(item) for item in value if not _is_foreign(item)]
    return value


def _is_foreign(item: Any) -> bool:
    return isinstance(item, dict) and (item.get("metadata") or {}).get("name") in _FOREIGN
