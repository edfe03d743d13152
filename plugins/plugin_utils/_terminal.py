# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A shell at the other end of a serial line: logging in, running commands, moving files.

A line echoes, and other programs and the kernel write to it as well. So nothing is concluded from prompts once
somebody is logged in: what is wanted of the guest is enclosed in words that only this session knows, and files come
as base64 with a checksum. The guest needs a POSIX shell, stty, mktemp, base64 and sha256sum.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import time

# Seconds between two attempts to get a sign of life of a terminal, and what is sent: Control-U discards what somebody,
# or a session that was cut off, has begun to type, so that it isn't run.
_NUDGE, _HELLO = 2.0, b"\x15\n"
# What ends a program in the foreground that keeps a terminal silent.
_INTERRUPT = b"\x03"
# Seconds a guest has to end a session.
_FAREWELL = 5.0
# How often something is sent again that the kernel or another program has garbled.
_TRIES = 3
# Bytes of a line that every terminal takes, and of lines that are sent before the guest has to say that they came.
_LINE, _BURST = 76, 48 * 1024
# Of what was read last, how much messages show.
_SHOWN = 200
_LOGIN, _PASSWORD = re.compile(rb"(?i)(login|username): *\Z"), re.compile(rb"(?i)password: *\Z")
_DENIED = re.compile(rb"(?i)login incorrect|authentication failure|access denied")
_PROMPT = re.compile(rb"[#$>%] *\Z")
_COLOURS = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")
_TEXT = re.compile(rb"[A-Za-z0-9+/=]+\Z")


class TerminalError(Exception):
    """A session isn't possible; the text says why."""


class Terminal:
    """A session.

    :param send: function that sends bytes, and raises OSError where the line is closed.
    :param receive: function that waits for bytes so many seconds at most, and returns None if none came. It returns b""
        when the line is closed.
    :param name: how messages call the guest.
    """

    def __init__(self, send, receive, name):
        self._send, self._receive, self._name = send, receive, name
        self._seen = b""
        self._folder = None

    def log_in(self, user, password, timeout):
        """Get a shell.

        :param user: None if the terminal is expected to have one already.
        :param timeout: seconds that may take, the guest's boot included.
        :raises TerminalError: that isn't possible.
        """
        deadline = time.monotonic() + timeout
        asked, hello = False, _HELLO
        while True:
            self._send(hello)
            hello = _HELLO
            where = self._wait_for({"login": _LOGIN, "password": _PASSWORD, "shell": _PROMPT}, deadline, _NUDGE)
            # A prompt may be older than a program that has the terminal now.
            if where == "shell" and self._is_answered(deadline):
                break
            if where in (None, "shell"):
                hello = _INTERRUPT + _HELLO
            if where == "password":
                continue  # whose it is isn't known: an empty one leads back to the login
            if where == "login":
                if user is None:
                    raise TerminalError("%s asks for a login: give ansible_user and ansible_password." % self._name)
                self._authenticate(user, password, deadline, asked)
                asked = True
        self._set_up(deadline)

    def _authenticate(self, user, password, deadline, asked):
        self._seen = b""
        self._send(user.encode() + b"\n")
        where = self._wait_for({"password": _PASSWORD, "shell": _PROMPT, "denied": _DENIED}, deadline)
        if where == "password":
            if password is None:
                raise TerminalError("%s asks for the password of %s: give ansible_password." % (self._name, user))
            self._seen = b""
            self._send(password.encode() + b"\n")
            where = self._wait_for({"denied": _DENIED, "shell": _PROMPT, "login": _LOGIN}, deadline)
        if where == "denied" or (where == "login" and asked):
            raise TerminalError("%s rejected the login of %s: wrong user or password." % (self._name, user))

    def _is_answered(self, deadline):
        """Whether a shell runs what is sent."""
        word = _word()
        self._seen = b""
        self._send(_echo(word) + b"\n")
        return self._wait_for({"shell": re.compile(word)}, deadline, _NUDGE) is not None

    def _set_up(self, deadline):
        """Make the shell quiet, and have a folder for files."""
        word = _word()
        self._seen = b""
        self._send(
            b"stty -echo -ixon 2>/dev/null; PS1='$ '; PS2=; unset PROMPT_COMMAND; dmesg -n 1 2>/dev/null; "
            b"umask 077; d=$(mktemp -d /tmp/ansible-XXXXXX); %s $d .\n" % _echo(word)
        )
        line = self._line_with(word, deadline, "a shell that has mktemp")
        fields = line.split()
        if len(fields) != 3 or not fields[1].startswith(b"/"):
            raise TerminalError("%s: mktemp -d doesn't work: %r" % (self._name, line.decode(errors="replace")))
        self._folder = fields[1].decode()

    def run(self, command, data, timeout=None):
        """Run a command by the shell; return its exit status, standard output and standard error.

        :param data: bytes of its standard input, or None.
        :param timeout: seconds it may take; None for any number.
        """
        paths = {name: "%s/%s" % (self._folder, name) for name in ("cmd", "in", "out", "err")}
        self.put(paths["cmd"], command.encode() + b"\n")
        source = "/dev/null"
        if data is not None:
            self.put(paths["in"], data)
            source = paths["in"]
        line = "/bin/sh %s <%s >%s 2>%s" % (paths["cmd"], source, paths["out"], paths["err"])
        status = self._said(line + "; s=$?", "$s", None if timeout is None else time.monotonic() + timeout)
        result = int(status), self.get(paths["out"]), self.get(paths["err"])
        self._said("rm -f $d/*", "done", time.monotonic() + 60)
        return result

    def put(self, path, data):
        """Write a file in the guest."""
        text = base64.b64encode(data)
        lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
        per_burst = _BURST // _LINE
        for _attempt in range(_TRIES):
            self._said(": >%s" % _quoted(path), "done", time.monotonic() + 60)
            for start in range(0, len(lines), per_burst):
                # It reads until the end of the file, which a terminal says by Control-D at the beginning of a line.
                self._send(b"base64 -d >>%s\n" % _quoted(path).encode())
                self._send(b"".join(line + b"\n" for line in lines[start : start + per_burst]) + b"\x04")
                self._said(":", "done", time.monotonic() + 60)
            if self._checksum(path) == _checksum(data):
                return
        raise TerminalError("%s: %s can't be written: the data was corrupted in transit" % (self._name, path))

    def get(self, path):
        """Return the content of a file of the guest."""
        for _attempt in range(_TRIES):
            expected = self._checksum(path)
            text = self._between("base64 <%s" % _quoted(path))
            lines = [line.strip() for line in text.splitlines()]
            with contextlib.suppress(binascii.Error):
                data = base64.b64decode(b"".join(line for line in lines if _TEXT.match(line)), validate=True)
                if _checksum(data) == expected:
                    return data
        raise TerminalError("%s: %s can't be read: the data was corrupted in transit" % (self._name, path))

    def log_out(self):
        """Remove the session's files, and end the shell.

        :raises TerminalError: the guest doesn't confirm it.
        """
        if not self._folder:
            return
        # When a line is closed, the guest may have got a part of a command only. So nothing is sent of which a part
        # does harm, as of one that removes folders with what is in them, and the line is closed after the last answer.
        self._folder = None
        self._said("rm -f $d/*; rmdir $d", "done", time.monotonic() + _FAREWELL)
        self._seen = b""
        self._send(b"exit\n")
        self._wait_for({"login": _LOGIN}, None, _FAREWELL)

    def _checksum(self, path):
        return self._said("c=$(sha256sum <%s)" % _quoted(path), "${c%% *}", time.monotonic() + 300)

    def _said(self, commands, what, deadline):
        """Run commands in the shell itself; return what it then expands a word to."""
        word = _word()
        self._seen = b""
        self._send(b"%s; %s %s .\n" % (commands.encode(), _echo(word), what.encode()))
        line = self._line_with(word, deadline, "the end of a command")
        return line[len(word) :].strip().removesuffix(b".").strip().decode(errors="replace")

    def _between(self, command):
        """Return what a command writes."""
        word = _word()
        self._seen = b""
        begin, end = word + b"-b", word + b"-e"
        echo = _echo(word)
        self._send(b"%s-b; %s; %s-e\n" % (echo, command.encode(), echo))
        self._line_with(end, None, "the end of a file")
        return self._seen.partition(begin)[2].partition(end)[0]

    def _line_with(self, word, deadline, what):
        """Wait for a whole line that has a word, and return it from the word on."""
        pattern = re.compile(re.escape(word) + rb"[^\r\n]*(?=[\r\n])")
        if self._wait_for({"line": pattern}, deadline) is None:
            raise TerminalError(
                "%s: timed out waiting for %s. Last output of the console: %r"
                % (self._name, what, self._seen[-_SHOWN:].decode(errors="replace"))
            )
        return pattern.search(self._seen).group()

    def _wait_for(self, patterns, deadline, pause=None):
        """Read until one of the patterns matches; return its name, or None if the pause is over without.

        :raises TerminalError: at the deadline, and when the line is closed.
        """
        until = None if pause is None else time.monotonic() + pause
        while True:
            for name, pattern in patterns.items():
                if pattern.search(self._seen):
                    return name
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                screen = self._seen[-_SHOWN:].decode(errors="replace").strip()
                raise TerminalError(
                    "%s: no %s within the timeout. %s"
                    % (self._name, " or ".join(patterns), "It says: %r" % screen if screen else "It says nothing.")
                )
            if until is not None and now >= until:
                return None
            left = min(moment - now for moment in (deadline, until, now + 60) if moment is not None)
            data = self._receive(left)
            if data == b"":
                raise TerminalError(
                    "%s: the console was closed, because the guest stopped or somebody else opened it." % self._name
                )
            if data:
                self._seen = _COLOURS.sub(b"", self._seen + data)


def _word():
    return binascii.hexlify(os.urandom(8))


def _echo(word):
    """Return a command that writes a word. Its own echo doesn't have it."""
    return b"echo %s''%s" % (word[:4], word[4:])


def _quoted(path):
    return "'%s'" % path.replace("'", "'\\''")


def _checksum(data):
    return hashlib.sha256(data).hexdigest()
