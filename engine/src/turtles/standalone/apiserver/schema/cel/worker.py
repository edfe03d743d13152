# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that evaluates rules, and may be ended: see judge.py, which starts it and tells it what to do.

The CEL library counts the steps of comprehensions, but not what a step costs: a search in a long text, a comparison of
lists, texts that double each other. So the kernel counts: a process that takes more than its time or memory for one
object ends, and the object is refused, as kube-apiserver does it with its cost budget.
"""

import resource
import signal
import struct
import sys
from typing import Any

import msgspec

from turtles.standalone.apiserver.schema.cel import engine, rules

#: Processor time for the rules of one object, in seconds: more than rules.BUDGET_SECONDS, which is reported in time.
CPU_SECONDS = 1.5
#: Address space, in bytes; the interpreter and the library take about a quarter.
MEMORY = 1024 * 1024 * 1024
LENGTH = struct.Struct("!I")


def main() -> None:
    """Answer messages from standard input until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nodes: dict[int, rules.Node] = {}
    # What the library takes to load isn't the first object's fault.
    engine.evaluate("true", {})
    while message := _read():
        number, schema = message["number"], message.get("schema")
        if schema is not None:
            node = rules.collect(schema)
            if node is not None:
                nodes[number] = node
            continue
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            causes = rules.evaluate(nodes[number], message["object"], message.get("old", rules.ABSENT))
        except MemoryError:
            sys.exit(1)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write([[one.reason, one.message, one.field] for one in causes])


def _read() -> Any:
    head = sys.stdin.buffer.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return msgspec.json.decode(sys.stdin.buffer.read(LENGTH.unpack(head)[0]))


def _write(answer: Any) -> None:
    raw = msgspec.json.encode(answer)
    sys.stdout.buffer.write(LENGTH.pack(len(raw)) + raw)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
