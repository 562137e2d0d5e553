# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A virtio-blk driver over vfio-user (virtio 1.4 section 5.2), and a controller with disks."""

import os
import struct
import time

from . import SLOW, daemons, vfio_user
from .memory import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Memory, Ring
from .virtio import (F_ACCESS_PLATFORM, F_EVENT_IDX, F_INDIRECT, F_RING_RESET, F_VERSION_1,
                     NO_VECTOR, AdminPf, VirtioPci)

F_SIZE_MAX = 1
F_SEG_MAX = 2
F_RO = 5
F_BLK_SIZE = 6
F_FLUSH = 9
F_TOPOLOGY = 10
F_CONFIG_WCE = 11
F_MQ = 12
F_DISCARD = 13
F_WRITE_ZEROES = 14

T_IN = 0
T_OUT = 1
T_FLUSH = 4
T_GET_ID = 8
T_DISCARD = 11
T_WRITE_ZEROES = 13

OK = 0
IOERR = 1
UNSUPP = 2

SECTOR = 512

WANTED = sum(1 << bit for bit in (
    F_VERSION_1, F_ACCESS_PLATFORM, F_INDIRECT, F_RING_RESET, F_SIZE_MAX, F_SEG_MAX, F_BLK_SIZE,
    F_FLUSH, F_TOPOLOGY, F_CONFIG_WCE, F_DISCARD, F_WRITE_ZEROES))

CONFIG_FIELDS = ('capacity', 'size_max', 'seg_max', 'cylinders', 'heads', 'sectors', 'blk_size',
                 'physical_block_exp', 'alignment_offset', 'min_io_size', 'opt_io_size',
                 'writeback', 'unused0', 'num_queues', 'max_discard_sectors', 'max_discard_seg',
                 'discard_sector_alignment', 'max_write_zeroes_sectors', 'max_write_zeroes_seg',
                 'write_zeroes_may_unmap')


class BlkQueue:
    """A ring with header, data and status for each of its requests."""

    DATA = 65536

    def __init__(self, mem, size):
        self.mem = mem
        self.ring = Ring(mem, size)
        self.headers = mem.alloc(32 * size, 64)
        self.nr_slots = min(size // 4, 32)
        self.data = mem.alloc(self.DATA * self.nr_slots, 4096)
        self.tables = mem.alloc(16 * 64 * size, 64)
        self.slots = list(range(self.nr_slots))
        self.pending = {}

    def clear(self, at=0):
        """Begin anew after the device was reset, at ring index `at`."""
        self.ring.free = list(range(self.ring.size))
        self.ring.chains.clear()
        self.ring.start_at(at)
        self.slots = list(range(self.nr_slots))
        self.pending.clear()

    def segments(self, slot, kind, sector, out=b'', in_len=0, split=None):
        """Chain of a request: the data in pieces of `split` bytes."""
        header, data = self.headers + 32 * slot, self.data + self.DATA * slot
        self.mem.write(header, struct.pack('<IIQ', kind, 0, sector) + b'\xee')
        self.mem.write(data, out)
        length = len(out) or in_len
        step = split or length
        parts = [(data + at, min(step, length - at), not out) for at in range(0, length, step)] \
            if length else []
        return [(header, 16, False)] + parts + [(header + 16, 1, True)]

    def submit(self, kind, sector=0, out=b'', in_len=0, split=None, indirect=False, post=True):
        """Put a request on the ring; returns its head."""
        slot = self.slots.pop(0)
        segments = self.segments(slot, kind, sector, out, in_len, split)
        if indirect:
            head = self.add_indirect(slot, segments, post)
        else:
            head = self.ring.add(segments, post)
        self.pending[head] = (slot, in_len)
        return head

    def add_indirect(self, slot, segments, post):
        table = self.tables + 16 * 64 * slot
        for i, (gpa, length, writable) in enumerate(segments):
            last = i == len(segments) - 1
            self.ring.set_desc(i, gpa, length, (DESC_F_WRITE if writable else 0)
                               | (0 if last else DESC_F_NEXT), 0 if last else i + 1, table)
        head = self.ring.free.pop(0)
        self.ring.set_desc(head, table, 16 * len(segments), DESC_F_INDIRECT)
        self.ring.chains[head] = [head]
        if post:
            self.ring.post(head)
        return head

    def take(self, timeout=5.0):
        """The next answer as (head, status, data), or None."""
        got = self.ring.wait(timeout)
        if got is None:
            return None
        head, length = got
        slot, in_len = self.pending.pop(head)
        status = self.mem.read(self.headers + 32 * slot + 16, 1)[0]
        data = self.mem.read(self.data + self.DATA * slot, in_len)
        self.slots.append(slot)
        assert length in (0, 1, in_len + 1), f'{length} bytes used of {in_len} + 1'
        if status == OK:
            assert length == in_len + 1
        return head, status, data


class BlkDriver(VirtioPci):
    """Drives a virtio-blk function."""

    def __init__(self, client, base=0x100000, size=32 << 20):
        super().__init__(client)
        self.mem = Memory(size, base)
        self.client.map_memory(self.mem)
        self.queues = []

    def blk_config(self):
        raw = self.device_config(0, 60)
        return dict(zip(CONFIG_FIELDS, struct.unpack('<QIIHBBIBBHIBBHIIIIIB3x', raw)))

    @property
    def capacity(self):
        return struct.unpack('<Q', self.device_config(0, 8))[0]

    def start(self, queues=1, size=128, wanted=WANTED, vectors=False, event_idx=False):
        if queues > 1:
            wanted |= 1 << F_MQ
        if event_idx:
            wanted |= 1 << F_EVENT_IDX
        self.begin(wanted)
        if len(self.queues) == queues and self.queues[0].ring.size == size:
            for queue in self.queues:
                queue.clear()
        else:
            self.queues = [BlkQueue(self.mem, size) for _ in range(queues)]
        if vectors and not self.irqs:
            self.enable_msix(queues + 1)
        if vectors:
            self.put('config_msix_vector', 0)
        for i, queue in enumerate(self.queues):
            self.setup_queue(i, queue.ring, i + 1 if vectors else NO_VECTOR)
        self.driver_ok()
        return self

    def submit(self, *args, queue=0, kick=True, **kwargs):
        head = self.queues[queue].submit(*args, **kwargs)
        if kick:
            self.notify(queue)
        return head

    def request(self, *args, queue=0, timeout=5.0, **kwargs):
        """One request and its answer: (status, data)."""
        head = self.submit(*args, queue=queue, **kwargs)
        got = self.queues[queue].take(timeout)
        assert got is not None, 'the request was not answered'
        assert got[0] == head
        return got[1:]

    def write(self, sector, data, **kwargs):
        status, _ = self.request(T_OUT, sector, out=data, **kwargs)
        return status

    def read(self, sector, length, **kwargs):
        status, data = self.request(T_IN, sector, in_len=length, **kwargs)
        assert status == OK, f'read of sector {sector}: status {status}'
        return data

    def flush(self, **kwargs):
        return self.request(T_FLUSH, **kwargs)[0]

    def get_id(self, length=20):
        status, data = self.request(T_GET_ID, in_len=length)
        assert status == OK
        return data

    def ranges(self, kind, *ranges, **kwargs):
        """DISCARD or WRITE_ZEROES of (sector, sectors, flags)."""
        out = b''.join(struct.pack('<QII', *r) for r in ranges)
        return self.request(kind, out=out, **kwargs)[0]

    def set_writeback(self, value):
        bar, base, _ = self.caps[4]
        self.client.write(bar, base + 32, bytes([value]))

    def raw(self, segments, queue=0, timeout=5.0):
        """A chain as the test wants it; None when it was not given back."""
        self.queues[queue].ring.add(segments)
        self.notify(queue)
        return self.queues[queue].ring.wait(timeout)

    def close(self):
        super().close()
        self.mem.close()


class BlkPf(AdminPf):
    """The admin queue of a block PF: queue 0."""

    def index(self):
        return 0


class BlkController(daemons.Controller):
    """The software DPU with one block PF and `vfs` VFs, whose disks are `bdevs`."""

    PF = '0000:af:00.3'
    FIRST_VF = '0000:af:05.1'

    def __init__(self, directory, bdevs=(), vf_bdevs=(), pf_bdev=None, vfs=4, num_queues=4,
                 extra=None, vf_extra=None, **kwargs):
        pf = {'bdf': self.PF, 'type': 'blk', 'first_vf': self.FIRST_VF, 'num_vfs': vfs,
              'num_queues': num_queues,
              'vfs': {str(i): dict({'bdev': name, 'vblk_id': f'disk-{i}'},
                                   **(vf_extra or {}).get(i, {}))
                      for i, name in enumerate(vf_bdevs) if name}}
        if pf_bdev:
            pf['bdev'] = pf_bdev
        super().__init__(directory, vfs=0, extra=dict({'pfs': [pf], 'bdevs': list(bdevs)},
                                                      **(extra or {})), **kwargs)
        self.nr_vfs = vfs

    def blk(self, index=0, **kwargs):
        """A fresh honest driver on a VF; the socket may still be busy with its last client."""
        return BlkDriver(vfio_user.fresh_client(self.vf_socket(index), 5.0 * SLOW), **kwargs)

    def admin(self):
        return BlkPf(vfio_user.fresh_client(self.pf_socket, 5.0 * SLOW))

    def bdev(self, name):
        return self.rpc('bdev_get_bdevs', {'name': name})[0]

    def ctrl(self, index=0):
        """What the controller says about that of a VF."""
        return self.rpc('virtio_blk_controller_list', {'ctrl': f'VblkEmu0pf0vf{index}'})[0]

    def inject(self, name, action, **kwargs):
        return self.rpc('bdev_inject', dict(kwargs, name=name, action=action))

    def wait_in_flight(self, count, index=0, queue=0, timeout=5.0):
        deadline = time.monotonic() + timeout * SLOW
        while self.ctrl(index)['queues'][queue]['in_flight'] != count:
            assert time.monotonic() < deadline, self.ctrl(index)['queues'][queue]
            time.sleep(0.002)


def pattern(length, seed):
    """Data that tells where it belongs: 8 bytes of number every 8 bytes."""
    return b''.join(struct.pack('<II', seed, i) for i in range(length // 8))


def make_image(path, size, data=None):
    with open(path, 'wb') as image:
        if data:
            image.write(data)
        image.truncate(size)
    return path


def file_bdev(name, path, **kwargs):
    return dict({'name': name, 'type': 'file', 'path': path}, **kwargs)


def disk_has(path, sector, data):
    """Do the bytes on the file's storage say the same? Past the page cache if that goes."""
    with open(path, 'rb') as image:
        return os.pread(image.fileno(), len(data), sector * SECTOR) == data
