# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A child process whose output is kept and whose every wait is bounded."""
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time


class ProcessError(Exception):
    """A process ended, or did not do in time what was expected of it."""


class Process:
    """A started program: its output goes line by line to a log file and to waiters.

    The child dies with the harness (PR_SET_PDEATHSIG), and is otherwise ended by its pid only.
    cpus is a list as taskset -c takes it. netns is anything with the command line to enter it.
    """

    def __init__(self, name, argv, log, netns=None, env=None, pass_fds=(), stdin=None,
                 cpus=None, cwd=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.log = str(log)
        self._lines = []
        self._eof = False
        self._cond = threading.Condition()
        wrapper = ['setpriv', '--pdeathsig', 'KILL', '--']
        if cpus is not None:
            wrapper = ['taskset', '-c', cpus] + wrapper
        if netns is not None:
            wrapper = netns.enter + wrapper
        with open(self.log, 'ab') as f:
            f.write(('$ %s\n' % ' '.join(self.argv)).encode())
        self._popen = subprocess.Popen(wrapper + self.argv, stdin=stdin or subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       env={**os.environ, **(env or {})}, pass_fds=pass_fds,
                                       cwd=cwd)
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._pump = threading.Thread(target=self._pump_output, daemon=True)
        self._pump.start()

    def _pump_output(self):
        with open(self.log, 'ab', buffering=0) as f, self._popen.stdout as pipe:
            for line in pipe:
                f.write(line)
                with self._cond:
                    self._lines.append(line.decode(errors='replace').rstrip('\n'))
                    self._cond.notify_all()
        with self._cond:
            self._eof = True
            self._cond.notify_all()

    @property
    def alive(self):
        return self._popen.poll() is None

    @property
    def returncode(self):
        return self._popen.poll()

    def lines(self):
        with self._cond:
            return list(self._lines)

    def mark(self):
        """A position in the output, for wait_line(since=...)."""
        with self._cond:
            return len(self._lines)

    def wait_line(self, pattern, timeout=10, since=0):
        """Wait until a line matches the regular expression; returns the match."""
        regex = re.compile(pattern)
        end = time.monotonic() + timeout
        with self._cond:
            while True:
                for line in self._lines[since:]:
                    match = regex.search(line)
                    if match:
                        return match
                since = len(self._lines)
                if self._eof:
                    raise ProcessError('%s ended without a line like %r' % (self.name, pattern))
                if not self._cond.wait(max(0, end - time.monotonic())) and \
                        time.monotonic() >= end:
                    raise ProcessError('%s: no line like %r in %s s'
                                       % (self.name, pattern, timeout))

    def wait_socket(self, path, timeout=10, kind=socket.SOCK_STREAM):
        """Wait until the process accepts connections on a UNIX socket."""
        end = time.monotonic() + timeout
        while True:
            with socket.socket(socket.AF_UNIX, kind) as s:
                try:
                    s.connect(str(path))
                    return
                except OSError as err:
                    error = err
            if not self.alive:
                raise ProcessError('%s ended (status %s) before it listened on %s'
                                   % (self.name, self.returncode, path))
            if time.monotonic() >= end:
                raise ProcessError('%s does not listen on %s after %s s: %s'
                                   % (self.name, path, timeout, error))
            select.select([self._pidfd], [], [], 0.02)

    def wait_exit(self, timeout=10):
        """Wait for the end; returns the exit status (negative: the signal)."""
        if self._popen.returncode is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise ProcessError('%s (pid %d) did not end in %s s'
                                   % (self.name, self.pid, timeout))
            self._popen.wait()
            self._pump.join(timeout)
        return self._popen.returncode

    def write(self, text):
        """Give the process input; it was started with stdin=subprocess.PIPE."""
        self._popen.stdin.write(text.encode())
        self._popen.stdin.flush()

    def signal(self, signum):
        if self.alive:
            self._popen.send_signal(signum)

    def stop(self, timeout=10):
        """End the process as an administrator would: SIGTERM. Returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    def kill(self, timeout=10):
        self.signal(signal.SIGKILL)
        return self.wait_exit(timeout)

    def finish(self, timeout):
        """For teardown: a program that still runs has to end well when it is asked to."""
        try:
            if self.alive:
                status = self.stop(timeout)
                if status != 0:
                    raise ProcessError('%s ended with status %d' % (self.name, status))
        finally:
            self.close()

    def close(self):
        """Make sure that nothing is left; for teardown, whatever state the process is in."""
        if self._pidfd < 0:
            return
        if self.alive:
            self.kill()
        else:
            self.wait_exit()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        os.close(self._pidfd)
        self._pidfd = -1

    def fd_count(self):
        return len(os.listdir('/proc/%d/fd' % self.pid))

    def thread_count(self):
        return len(os.listdir('/proc/%d/task' % self.pid))

    def thread_switches(self):
        """How often each thread has waited, by thread id and name: a quiet thread stands still."""
        found = {}
        for task in os.listdir('/proc/%d/task' % self.pid):
            with open('/proc/%d/task/%s/status' % (self.pid, task)) as f:
                status = dict(line.rstrip('\n').split(':\t', 1) for line in f if ':\t' in line)
            found['%s %s' % (task, status['Name'])] = int(status['voluntary_ctxt_switches'])
        return found
