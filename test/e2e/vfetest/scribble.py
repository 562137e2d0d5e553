# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A VF that writes records into the guest's receive buffers until it freezes."""
import struct
import time

SCRIBBLE_VF = 2
PAGE = 4096
MAX_DOWNTIME_MS = 10


class Scribble:
    """The records of one migration, from the source's DPU and from the memory that arrived."""

    def __init__(self, guest):
        source = guest.host
        self._guest = guest
        self._source = source
        self._target = guest.hosts.other(source)
        self.records = []
        # what the device at the target wrote would hide what the migration has lost
        self._target.controller.call('knobs', scribble=False)
        self._source.controller.call('knobs', scribble=True)
        # a small guest fits into the usual 300 ms: pages would be sent but once, after the freeze
        source.libvirt.virsh('migrate-setmaxdowntime', guest.name, MAX_DOWNTIME_MS)

    def lose(self, pages):
        """Plant a bug: the source never marks pages whose number is a multiple of this."""
        self._source.controller.call('knobs', dirty_lose_pages=pages)

    def _query(self):
        return self._source.controller.call('records', pf=0, vf=SCRIBBLE_VF)

    def wait(self, timeout=20):
        """Wait until the device is writing."""
        end = time.monotonic() + timeout
        while not self._query()['records']:
            assert time.monotonic() < end, 'the back end scribble writes nothing'
            time.sleep(0.1)

    def stale(self):
        """After the migration: numbers of the pages that do not hold the last record."""
        answer = self._query()
        assert answer['running'] is False
        self.records = answer['records']
        assert len(self.records) > 100, 'too little for a test: %d' % len(self.records)
        memory = self._guest.memory()
        bad = set()
        for address, sequence in self.records:
            if memory[address:address + 16] != struct.pack('<QQ', address, sequence):
                bad.add(address // PAGE)
        return sorted(bad)

    def close(self):
        for host in (self._source, self._target):
            if host.controller.process.alive:
                host.controller.call('knobs', scribble=True, dirty_lose_pages=0)
