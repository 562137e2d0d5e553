# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The harness' end of the serial line to the agent in the guest (test/e2e/guest/agent.c)."""
import re
import select
import time


class AgentError(Exception):
    """The agent did not answer, or the line to it is closed."""


class CommandFailed(Exception):
    """A command in the guest ended with a status other than 0."""

    def __init__(self, command, status, output):
        super().__init__('guest: %s: exit status %d\n%s' % (command, status, output))
        self.status = status
        self.output = output


class Agent:
    """Runs shell commands in the guest, one at a time, over a connected stream socket."""

    def __init__(self, sock):
        self._sock = sock
        self._buf = b''
        self._serial = 0

    def _fill(self, end, what):
        left = end - time.monotonic()
        if left <= 0 or not select.select([self._sock], [], [], left)[0]:
            raise AgentError('the guest did not answer in time: %s' % what)
        try:
            data = self._sock.recv(65536)
        except ConnectionError as err:
            raise AgentError('the line to the guest broke: %s' % what) from err
        if not data:
            raise AgentError('the line to the guest is closed: %s' % what)
        self._buf += data

    def _line(self, end, what):
        while b'\n' not in self._buf:
            self._fill(end, what)
        line, self._buf = self._buf.split(b'\n', 1)
        return line.decode(errors='replace')

    def wait_hello(self, timeout):
        """Wait for the agent of a booting guest; returns the boot id."""
        end = time.monotonic() + timeout
        while True:
            match = re.fullmatch('@hello (.+)', self._line(end, 'boot'))
            if match:
                return match.group(1)

    def ping(self, timeout):
        """For a line that was opened late: ask until the agent answers; returns the boot id."""
        end = time.monotonic() + timeout
        while True:
            self._sock.sendall(b'\n@ping\n')
            try:
                return self.wait_hello(min(1, end - time.monotonic()))
            except AgentError:
                if time.monotonic() >= end:
                    raise

    def send(self, command, timeout):
        """Start a command without waiting for its end, e.g. one that reboots the guest."""
        self._serial += 1
        script = command.encode()
        self._sock.sendall(b'\n@run %d %d %d\n' % (self._serial, timeout, len(script)) + script)

    def run(self, command, timeout=30):
        """Run a shell command; returns (exit status, output)."""
        self.send(command, timeout)
        # the guest ends the command at its own deadline; the extra time is for the line
        end = time.monotonic() + timeout + 10
        while True:
            match = re.fullmatch(r'@done (\d+) (\d+) (\d+)', self._line(end, command))
            if not match:
                continue
            size = int(match.group(3))
            while len(self._buf) < size:
                self._fill(end, command)
            output, self._buf = self._buf[:size], self._buf[size:]
            if int(match.group(1)) == self._serial:
                return int(match.group(2)), output.decode(errors='replace')
