# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests with odd requests share: odd values, what bends objects, and the storm of clients that send them.

``TURTLES_FUZZ_REQUESTS`` says how many requests (`make test-faults`: 100,000), ``TURTLES_FUZZ_SEED`` which: a number,
or ``random`` for others each time; the number of that run is printed.
"""

import copy
import gzip
import http.client
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turtles.standalone.apiserver.wire.bodies import MAX_BODY

from .conftest import Server

REQUESTS = int(os.environ.get("TURTLES_FUZZ_REQUESTS", "3000"))
# A change of the code is judged by the same requests each time; the long run looks for others.
SEED = os.environ.get("TURTLES_FUZZ_SEED", "1")
SEED = random.SystemRandom().randrange(10**6) if SEED == "random" else int(SEED)
CLIENTS = 4
#: Seconds that an answer may take, on a machine that does other things too.
PATIENCE = 30
#: What answers of 500 and more may say: what a client has to wait for, or this server to be given.
KNOWN = ("Too large resource version", "without --node-socket", "conversion webhook for ")

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**70), "", " ", "a", "x" * 300,
    "é",
    "\u0000", "../..", "null", "1", "-1Ki", "1e1000", "2020-01-01T00:00:00Z", "2020-13-45", "🐢", "a/b", "%2e", [],
    [None],
    [[]], {}, {"": ""}, {"a": None}, {"a": {"b": {"c": [1, {"d": None}]}}}, [1, "a", {}], {"name": 5}, [{"name": None}],
    "\ud7ff", "A-Z_", "10Gi", "999999999999999999999999", {"$ref": "#"}, {"metadata": []},
    "2020-01-01T00:00:00.5+25:00",
    "(((((", "[", "9" * 5000, {"x" * 500: 1}, "a.b.c/d", "\n", "self.x > 1", "169.254.0.1", "::1", "0.0.0.0/0",
)  # fmt: skip
CONTENT = ("application/json", "application/yaml", "application/json-patch+json", "application/merge-patch+json",
           "application/strategic-merge-patch+json", "application/apply-patch+yaml", "text/plain", "x", "",
           "application/vnd.kubernetes.protobuf", "application/json; charset=latin-1")  # fmt: skip


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Collect every container and key in a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            found.append((value, key))
            places(inner, found)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found.append((value, index))
            places(inner, found)
    return found


def bend(dice: random.Random, value: Any) -> Any:
    """Change something, somewhere."""
    found = places(value, [])
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        if not found:
            return copy.deepcopy(dice.choice(ODD))
        holder, key = dice.choice(found)
        action = dice.random()
        if (isinstance(holder, dict) and key not in holder) or (isinstance(holder, list) and key >= len(holder)):
            continue
        if action < 0.6:
            holder[key] = copy.deepcopy(dice.choice(ODD))
        elif action < 0.8:
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            new = dice.choice(("x", "name", "é", "spec", "$patch", "$retainKeys", "$setElementOrder/x"))
            holder[new] = copy.deepcopy(dice.choice((*ODD, holder[key])))
    return value


def pointer(dice: random.Random, obj: Any) -> str:
    """Return a JSON pointer into an object, or almost."""
    parts, at = [], obj
    while isinstance(at, dict | list) and at and dice.random() < 0.8:
        key = dice.choice(list(at)) if isinstance(at, dict) else dice.randrange(len(at))
        parts.append(str(key).replace("~", "~0").replace("/", "~1"))
        at = at[key]
    if dice.random() < 0.3:
        parts.append(dice.choice(("-", "x", "0", "99", "~", "", "-1", "metadata")))
    return "".join(f"/{part}" for part in parts)


def json_patch(dice: random.Random, obj: Any) -> Any:
    operations = []
    for _ in range(dice.choice((1, 1, 2, 4))):
        one: dict[str, Any] = {"op": dice.choice(("add", "remove", "replace", "move", "copy", "test", "x")),
                               "path": pointer(dice, obj)}  # fmt: skip
        one[dice.choice(("value", "from", "value"))] = dice.choice(
            (pointer(dice, obj), copy.deepcopy(dice.choice(ODD)))
        )
        operations.append(one)
    return bend(dice, operations) if dice.random() < 0.2 else operations


def memory(server: Server) -> float:
    """Return the server's own memory in MB."""
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1024


def judge(code: int, raw: bytes, headers: Any) -> str:
    """Return what is wrong with an answer; '' when nothing is."""
    try:
        body = json.loads(raw) if raw and "json" in headers.get("Content-Type", "") and b"\n{" not in raw else {}
    except ValueError:
        return "the body is no JSON"
    if code == 404 and "paths" in body:
        return ""  # where there is nothing at all, clients are told what there is
    if code >= 400 and body and (body.get("kind") != "Status" or body.get("code") != code or not body.get("message")):
        return "no Status says what was wrong"
    if code >= 500 and any(known in body.get("message", "") for known in KNOWN):
        return ""
    return "a server error" if code >= 500 and code != 501 else ""


@dataclass
class Storm:
    """Clients that send what ``make`` asks them to, and what came of it."""

    server: Server
    codes: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    memories: list[float] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def blow(self, make: Callable[[random.Random, "Client"], None], count: int) -> None:
        """Let clients call ``make`` until all of them together have sent so many requests; then judge.

        :raises AssertionError: something went wrong.
        """
        self.codes.clear()
        self.slowest = (0.0, "")
        self.problems.clear()
        self.memories.clear()
        over = threading.Event()
        known = len(self._log())

        def run(number: int) -> None:
            client = Client(self)
            dice = random.Random(f"{SEED}-{number}")
            while client.sent < count // CLIENTS and not over.is_set():
                try:
                    make(dice, client)
                except Exception as error:
                    self.problems.append(f"the test itself: {error!r}, after {client.last}")
                if len(self.problems) >= 20:
                    over.set()
            client.close()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
        before = time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(2)
            self.memories.append(memory(self.server))
        shown = [round(one) for one in self.memories[:: max(1, len(self.memories) // 12)]]
        print(
            f"\nseed {SEED}: {sum(self.codes.values())} answers in {time.monotonic() - before:.0f} s, "
            f"{dict(sorted(self.codes.items()))}, memory {shown} MB, the slowest in {self.slowest[0]:.1f} s: "
            f"{self.slowest[1]}"
        )
        # What goes wrong behind an answer, in a controller or a watch, is seen in the log only.
        self.problems += [f"in the log: {line}" for line in self._log()[known:]]
        told = "\n".join(self.problems[:20])
        assert not self.problems, f"seed {SEED}, {len(self.problems)} problems:\n{told}"
        late = self.memories[len(self.memories) // 2 :]
        assert count < 20_000 or max(late) < 1.3 * min(late) + 20, self.memories
        assert self.server.call("GET", "/readyz", timeout=PATIENCE)[0] == 200

    def _log(self) -> list[str]:
        text = (self.server.root / "log").read_text(errors="replace")
        return [line[:2000] for line in text.splitlines() if '"level": "error"' in line or "Traceback" in line]


class Client:
    """One of the storm's clients."""

    def __init__(self, storm: Storm) -> None:
        self.storm, self.sent, self.last = storm, 0, ""
        self._token = storm.server.token()
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", storm.server.port, context=storm.server.tls, timeout=PATIENCE
        )

    def send(
        self, method: str, path: str, body: bytes | object = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request; note what is wrong with its answer; return its code and what its JSON says, if any."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {}),
                   **(headers or {})}  # fmt: skip
        self.last = f"{method} {path} {headers} {data[:2000]!r}"
        self.sent += 1
        before = time.monotonic()
        try:
            self._connection.request(method, path, data or None, {**headers, "Authorization": f"Bearer {self._token}"})
            answer = self._connection.getresponse()
            raw = answer.read()
            if answer.headers.get("Content-Encoding") == "gzip" and "gzip" in headers.get("Accept-Encoding", ""):
                raw = gzip.decompress(raw)
        except (http.client.InvalidURL, UnicodeEncodeError, ValueError):
            self.close()
            return 0, None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A server may answer what is too large, or no HTTP, before it has read it, and end the connection.
            refused = len(data) > MAX_BODY or b"\0" in data + path.encode()
            if isinstance(error, TimeoutError) or not refused:
                self.storm.problems.append(f"{type(error).__name__} {error}: {self.last}")
            return 0, None
        self.storm.codes[answer.status] += 1
        self.storm.slowest = max(self.storm.slowest, (time.monotonic() - before, self.last[:300]))
        wrong = judge(answer.status, raw, answer.headers)
        if wrong:
            self.storm.problems.append(f"{wrong}: {answer.status} {raw[:300]!r}\n  {self.last}")
        try:
            return answer.status, json.loads(raw)
        except ValueError:
            return answer.status, None

    def close(self) -> None:
        """End the connection; the next request makes another one."""
        self._connection.close()
