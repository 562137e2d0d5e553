# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Guest memory in a memfd and the driver side of a split virtqueue (virtio 1.4 section 2.7)."""

import ctypes
import fcntl
import mmap
import os
import struct
import time

from . import SLOW

F_ADD_SEALS = 1033
F_SEAL_SHRINK = 2

DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1

PAGE = 4096


class Memory:
    """One memfd that plays guest RAM and starts at the guest-physical address `base`."""

    def __init__(self, size, base=0, name='guest', seal=False, huge=False):
        self.size = size
        self.base = base
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
                                  | (os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge else 0))
        os.ftruncate(self.fd, size)
        if seal:
            fcntl.fcntl(self.fd, F_ADD_SEALS, F_SEAL_SHRINK)
        self.map = mmap.mmap(self.fd, size)
        # struct.pack_into() clears its target first; ring indices need one plain store
        self.words = memoryview(self.map).cast('H')
        self._next = PAGE

    @property
    def end(self):
        return self.base + self.size

    @property
    def user_addr(self):
        """Virtual address of the mapping, as a VMM would tell it to a vhost-user back end."""
        probe = ctypes.c_char.from_buffer(self.map)
        addr = ctypes.addressof(probe)
        del probe
        return addr

    def alloc(self, size, align=16):
        """Bump allocator; returns a guest-physical address. Page 0 is never handed out."""
        start = (self._next + align - 1) // align * align
        if start + size > self.size:
            raise MemoryError(f'guest memory of {self.size} bytes is used up')
        self._next = start + size
        return self.base + start

    def _offset(self, gpa, size):
        offset = gpa - self.base
        if offset < 0 or offset + size > self.size:
            raise IndexError(f'gpa {gpa:#x}+{size} is outside of [{self.base:#x}, {self.end:#x})')
        return offset

    def read(self, gpa, size):
        offset = self._offset(gpa, size)
        return self.map[offset:offset + size]

    def write(self, gpa, data):
        offset = self._offset(gpa, len(data))
        self.map[offset:offset + len(data)] = bytes(data)

    def get(self, fmt, gpa):
        offset = self._offset(gpa, struct.calcsize('<' + fmt))
        return struct.unpack_from('<' + fmt, self.map, offset)

    def put(self, fmt, gpa, *values):
        self.write(gpa, struct.pack('<' + fmt, *values))

    def u16(self, gpa):
        return self.words[self._offset(gpa, 2) // 2]

    def set_u16(self, gpa, value):
        """One 16-bit store: the other side never sees half of it."""
        self.words[self._offset(gpa, 2) // 2] = value & 0xffff

    def truncate(self, size):
        """Take pages away below the peer's mapping: its next touch there raises SIGBUS."""
        os.ftruncate(self.fd, size)

    def close(self):
        if self.fd >= 0:
            self.words.release()
            self.map.close()
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Ring:
    """The driver side of one split ring. Everything can also be written raw by a hostile test."""

    def __init__(self, mem, size, desc=None, avail=None, used=None):
        self.mem = mem
        self.size = size
        self.desc = desc if desc is not None else mem.alloc(16 * size, PAGE)
        self.avail = avail if avail is not None else mem.alloc(6 + 2 * size, 64)
        self.used = used if used is not None else mem.alloc(6 + 8 * size, PAGE)
        mem.write(self.desc, bytes(16 * size))
        mem.write(self.avail, bytes(6 + 2 * size))
        mem.write(self.used, bytes(6 + 8 * size))
        self.free = list(range(size))
        self.avail_idx = 0
        self.seen = 0
        self.chains = {}

    def set_desc(self, index, addr, length, flags=0, nxt=0, table=None):
        self.mem.put('QIHH', (table if table is not None else self.desc) + 16 * index,
                     addr, length, flags, nxt)

    def post(self, head):
        """Publish one chain head."""
        self.mem.set_u16(self.avail + 4 + 2 * (self.avail_idx % self.size), head)
        self.avail_idx = (self.avail_idx + 1) & 0xffff
        self.mem.set_u16(self.avail + 2, self.avail_idx)

    def jump(self, step):
        """Move avail->idx without any entry behind it."""
        self.avail_idx = (self.avail_idx + step) & 0xffff
        self.mem.set_u16(self.avail + 2, self.avail_idx)

    def start_at(self, index):
        """Continue a ring at `index`, as a restored device does."""
        self.avail_idx = self.seen = index & 0xffff
        self.mem.set_u16(self.avail + 2, self.avail_idx)
        self.mem.set_u16(self.used + 2, self.avail_idx)

    def add(self, segments, post=True):
        """Make a chain of (gpa, length, writable) segments; returns its head."""
        if len(self.free) < len(segments):
            raise BufferError('ring is full')
        indexes = [self.free.pop(0) for _ in segments]
        for i, (gpa, length, writable) in enumerate(segments):
            last = i == len(segments) - 1
            flags = (DESC_F_WRITE if writable else 0) | (0 if last else DESC_F_NEXT)
            self.set_desc(indexes[i], gpa, length, flags, 0 if last else indexes[i + 1])
        self.chains[indexes[0]] = indexes
        if post:
            self.post(indexes[0])
        return indexes[0]

    def used_idx(self):
        return self.mem.u16(self.used + 2)

    def used_flags(self):
        return self.mem.u16(self.used)

    def pop(self):
        """The next used element as (head, length), or None."""
        if self.used_idx() == self.seen:
            return None
        head, length = self.mem.get('II', self.used + 4 + 8 * (self.seen % self.size))
        self.seen = (self.seen + 1) & 0xffff
        if head not in self.chains:
            raise AssertionError(f'device used head {head}, which is not outstanding')
        self.free += self.chains.pop(head)
        return head, length

    def wait(self, timeout=5.0):
        """pop() with a deadline; None when nothing came."""
        deadline = time.monotonic() + timeout * SLOW
        pause = 0.0001
        while True:
            got = self.pop()
            if got is not None or time.monotonic() > deadline:
                return got
            time.sleep(pause)
            pause = min(pause * 2, 0.005)


NET_HDR = 12


def make_frame(size=60):
    """A broadcast frame of the local experimental EtherType, so that no filter drops it."""
    return b'\xff' * 6 + b'\x02' + os.urandom(5) + b'\x88\xb5' + os.urandom(size - 14)


class NetQueuePair:
    """An RX and a TX ring with their buffers: sends and receives Ethernet frames."""

    BUF = 2048

    def __init__(self, mem, size=64, indirect=False):
        self.mem = mem
        self.rx = Ring(mem, size)
        self.tx = Ring(mem, size)
        self.rx_buf = [mem.alloc(self.BUF, 64) for _ in range(size)]
        self.tx_buf = [mem.alloc(self.BUF, 64) for _ in range(size)]
        self.indirect = [mem.alloc(32, 16) for _ in range(size)] if indirect else None
        self.posted = {}

    def fill(self):
        """Post every free RX buffer."""
        while self.rx.free:
            index = self.rx.free[0]
            head = self.rx.add([(self.rx_buf[index], self.BUF, True)])
            self.posted[head] = self.rx_buf[index]

    def clear(self, at=0):
        """Begin anew after the device was reset, at ring index `at`, with nothing posted."""
        for ring in (self.rx, self.tx):
            ring.free = list(range(ring.size))
            ring.chains.clear()
            ring.start_at(at)
        self.posted.clear()

    def reset(self, at=0):
        """clear(), then post all receive buffers."""
        self.clear(at)
        self.fill()

    def send(self, frame, header=bytes(NET_HDR)):
        """Post a frame on TX; the caller rings the doorbell."""
        while self.tx.pop() is not None:
            pass
        index = self.tx.free[0]
        data = header + frame
        self.mem.write(self.tx_buf[index], data)
        if self.indirect:
            table = self.indirect[index]
            self.tx.set_desc(0, self.tx_buf[index], len(header), DESC_F_NEXT, 1, table)
            self.tx.set_desc(1, self.tx_buf[index] + len(header), len(frame), 0, 0, table)
            head = self.tx.free.pop(0)
            self.tx.set_desc(head, table, 32, DESC_F_INDIRECT)
            self.tx.chains[head] = [head]
            self.tx.post(head)
            return head
        return self.tx.add([(self.tx_buf[index], len(data), False)])

    def receive(self, timeout=5.0):
        """The next received frame without its header, or None; re-posts the buffer."""
        got = self.rx.wait(timeout)
        if got is None:
            return None
        head, length = got
        if length < NET_HDR or length > self.BUF:
            raise AssertionError(f'device wrote {length} bytes into an RX buffer of {self.BUF}')
        data = self.mem.read(self.posted.pop(head), length)
        self.fill()
        return data[NET_HDR:]


class FrameTraffic:
    """Frames through the queue pairs of a driver that has pairs and kick(queue)."""

    def send_frame(self, frame, pair=0):
        self.pairs[pair].send(frame)
        self.kick(2 * pair + 1)

    def receive_frame(self, timeout=5.0, pair=0):
        frame = self.pairs[pair].receive(timeout)
        if frame is not None:
            self.kick(2 * pair)
        return frame

    def echo(self, count=1, pair=0, timeout=5.0, size=60):
        """Send frames into a loopback function and require each of them back, byte by byte."""
        for i in range(count):
            frame = make_frame(size)
            self.send_frame(frame, pair)
            back = self.receive_frame(timeout, pair)
            assert back is not None, f'frame {i} did not come back in {timeout} s'
            assert back == frame, f'frame {i} came back changed'
