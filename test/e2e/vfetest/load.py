# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""What a guest does while it migrates, and what it must find intact afterwards."""
import os
import re
import signal
import time

from .guest import IMAGE
from .process import Process

STREAM_PORT = 5100
PING_INTERVAL = 0.01


def make_migratable(guest):
    """Keep QEMU without KVM from losing memory of the guest; see test/e2e/guest/switches.c."""
    guest.run('switches >/dev/null 2>&1 &')


class LoadError(AssertionError):
    """Something was lost or came out wrong."""


class Background:
    """A program in the guest whose output is kept in a file while the line may be down."""

    def __init__(self, guest, name, command):
        self._guest = guest
        self._file = '/tmp/%s.out' % name
        self._pid = '/tmp/%s.pid' % name
        # the shell that waits for it writes its status behind its output
        guest.run('rm -f {0} {1}; ({2} >{0} 2>&1 & echo $! >{1}; wait $!; '
                  'echo "status=$?" >>{0}) >/dev/null 2>&1 & '
                  'for i in $(seq 100); do [ -s {1} ] && break; sleep 0.1; done'
                  .format(self._file, self._pid, command))

    def wait_line(self, text, timeout=60):
        self._guest.run('for i in $(seq %d); do grep -q "%s" %s && exit; sleep 0.1; done; cat %s; '
                        'exit 1' % (timeout * 10, text, self._file, self._file), timeout + 10)

    def follow(self, guest):
        """It is reached by another line from now on."""
        self._guest = guest

    def output(self):
        return self._guest.run('cat ' + self._file)

    def last_line(self, text):
        """The last line with the text; empty if there is none."""
        return self._guest.run('grep "%s" %s | tail -n 1' % (text, self._file)).strip()

    def stop(self, timeout=60):
        """End it by SIGTERM; returns (status, output)."""
        self._guest.run('kill $(cat %s) 2>/dev/null' % self._pid, check=False)
        self.wait_line('^status=', timeout)
        output = self.output()
        return int(re.search(r'^status=(\d+)$', output, re.M).group(1)), output


class MemDirty:
    """A program in the guest that dirties memory and checks all that it wrote."""

    def __init__(self, guest, mib=16, writers=2, pages_per_second=200):
        self.name = 'memdirty'
        self._inside = Background(guest, 'memdirty', 'memdirty %d %d %d'
                                  % (mib, writers, pages_per_second))
        self._inside.wait_line('^running')
        self.writes = 0

    def stop(self):
        status, output = self._inside.stop()
        if status != 0 or 'bad=0' not in output:
            raise LoadError('the memory of the guest is corrupt:\n' + output)
        self.writes = int(re.search(r'writes=(\d+)', output).group(1))
        if self.writes < 100:
            raise LoadError('too little for a test:\n' + output)
        return 0


class Stream:
    """A TCP connection between network and guest, full of numbered blocks in both directions."""

    def __init__(self, lab, netns, address, guest, kib_per_second=512):
        self.name = 'stream'
        self._outside = Process('stream', [os.path.join(IMAGE, 'stream'), 'listen', address,
                                           STREAM_PORT, kib_per_second], lab.log('stream'),
                                netns=netns)
        try:
            self._outside.wait_line('^listening')
            self._inside = Background(guest, 'stream', 'stream connect %s %d %d'
                                      % (address, STREAM_PORT, kib_per_second))
            self._inside.wait_line('^running')
        except BaseException:
            self._outside.close()
            raise

    def stop(self):
        """Returns the longest pause in milliseconds that either end saw."""
        try:
            status, inside = self._inside.stop()
            outside_status = self._outside.wait_exit(60)
        finally:
            self._outside.close()
        outside = '\n'.join(self._outside.lines())
        ends = [dict((k, int(v)) for k, v in re.findall(r'(\w+)=(\d+)', text))
                for text in (inside, outside)]
        text = 'stream: the guest says:\n%s\nthe network says:\n%s' % (inside, outside)
        if status != 0 or outside_status != 0:
            raise LoadError(text)
        if ends[0]['sent'] != ends[1]['received'] or ends[1]['sent'] != ends[0]['received']:
            raise LoadError(text)
        if min(ends[0]['sent'], ends[1]['sent']) < 10:
            raise LoadError('too little for a test: ' + text)
        return max(end['gap_ms'] for end in ends)


class Ping:
    """Echo requests every 10 ms from the network to the guest."""

    def __init__(self, lab, netns, address):
        self.name = 'ping'
        self._process = Process('ping', ['ping', '-D', '-n', '-i', PING_INTERVAL, address],
                                lab.log('ping'), netns=netns)
        self.sent = self.lost = self.doubled = 0
        self.gap_ms = 0.0
        self.times = []
        try:
            self._process.wait_line(r'icmp_seq=\d+ ttl')
        except BaseException:
            self._process.close()
            raise

    def stop(self):
        """Fills sent, lost, doubled, times of the replies, and gap_ms: the longest pause."""
        self._process.signal(signal.SIGINT)
        try:
            self._process.wait_exit()
        finally:
            self._process.close()
        text = '\n'.join(self._process.lines())
        found = re.findall(r'^\[([\d.]+)\].*icmp_seq=(\d+) ttl', text, re.M)
        # the number on the wire has 16 bits
        numbers, high = set(), 0
        for i, (_, number) in enumerate(found):
            if i > 0 and int(number) < int(found[i - 1][1]) - 32768:
                high += 65536
            numbers.add(high + int(number))
        self.times = [float(when) for when, _ in found]
        self.sent = int(re.search(r'(\d+) packets transmitted', text).group(1))
        self.lost = self.sent - len(numbers)
        self.doubled = len(found) - len(numbers)
        pauses = [b - a for a, b in zip(self.times, self.times[1:])]
        self.gap_ms = 1000 * max(pauses, default=0)
        return self.gap_ms


class DiskLoad:
    """blkverify in a guest: random writes and reads of a disk, up to threads at a time.

    Nothing may fail unless the test says so when it ends the load. Each load of a guest has a key
    of its own.
    """

    THREADS = 8

    def __init__(self, guest, vf=0, key=1, threads=THREADS, pause_ms=0):
        self.name = 'blkverify'
        self._guest = guest
        self._inside = Background(guest, 'blkverify-%d' % key, 'blkverify run %s %d %d %d'
                                  % (guest.block_device(vf), key, threads, pause_ms))
        self._inside.wait_line('^running')
        self.sums = {}

    def follow(self, guest):
        """The guest is that of another QEMU from now on."""
        self._guest = guest
        self._inside.follow(guest)

    def progress(self):
        """The sums of the last second."""
        return _sums(self._inside.last_line('^at '))

    def wait_more(self, writes=100, timeout=60):
        """Wait until the disk has taken that many writes more, the last of them now."""
        goal = self.progress().get('writes', 0) + writes
        self.wait(lambda sums: sums.get('writes', 0) >= goal, timeout)

    def wait(self, done, timeout=60):
        end = time.monotonic() + timeout
        while True:
            sums = self.progress()
            if done(sums):
                return sums
            if time.monotonic() >= end:
                raise LoadError('blkverify stands at %r:\n%s' % (sums, self._inside.output()))
            time.sleep(0.2)

    def stop(self, errors=False, timeout=120):
        """End it and verify all that it wrote; returns the longest pause in milliseconds."""
        status, output = self._inside.stop(timeout)
        self.sums = _sums(output)
        if status != 0 or not re.search(r' bad=0 .*end$', output, re.M):
            raise LoadError('the disk is corrupt:\n' + output)
        if bool(self.sums['errors']) != errors:
            raise LoadError('failed requests:\n' + output)
        if min(self.sums[k] for k in ('writes', 'reads', 'flushes')) < 1:
            raise LoadError('too little for a test:\n' + output)
        return self.sums['gap_ms']


def _sums(text):
    """The numbers of the last line that has some."""
    found = {}
    for line in text.split('\n'):
        if ' bad=' in line:
            found = {k: int(v) for k, v in re.findall(r'(\w+)=(\d+)', line)}
    return found


def check_disk(guest, vf=0, key=1):
    """Every sector is one that a load wrote with the key, as a whole; returns how many are."""
    status, output = guest.agent.run('blkverify check %s %d' % (guest.block_device(vf), key), 120)
    if status != 0 or ' errors=0 ' not in output:
        raise LoadError('the disk is corrupt:\n' + output)
    return _sums(output)['sectors']
