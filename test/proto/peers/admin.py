# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The vendor live-migration dialect of the admin queue: commands and the state blob."""

import struct

CLASS_MIGRATION = 64
CLASS_DIRTY = 65

IDENTITY = 0
GET_STATUS = 1
MODIFY_STATUS = 2
PENDING_BYTES = 3
SAVE_STATE = 4
RESTORE_STATE = 5

TRACK_START = 1
TRACK_STOP = 2
TRACK_PENDING = 3
TRACK_REPORT = 4

OK = 0
ERR = 1
INVALID_CLASS = 2
INVALID_COMMAND = 3
DATA_TRANSFER = 4
INTERNAL = 5
DNR = 0x80

INIT = 0
RUNNING = 1
QUIESCED = 2
FREEZED = 3

F_ADMIN_VQ = 41
F_MIGRATION = 44
F_STATE_TRACK = 45
F_PUSH_BITMAP = 46
F_PUSH_BYTEMAP = 47
F_PULL_BITMAP = 48
F_PULL_BYTEMAP = 49

PUSH_BITMAP = 1
PUSH_BYTEMAP = 2
PULL_BITMAP = 3
PULL_BYTEMAP = 4
MODES = {'push_bitmap': 1, 'push_bytemap': 2, 'pull_bitmap': 3, 'pull_bytemap': 4}

TLV_COMMON = 0
TLV_DEV_CFG = 1
TLV_QUEUE = 2
TLV_RUN = 3
TLV_RX_MODE = 4

ALIGN = 4096

COMMON = struct.Struct('<IQIQHHHBB')
QUEUE = struct.Struct('<HHHHHQQQHH')
RUN = struct.Struct('<HHH')


class QueueState:
    """QUEUE_CFG and SPLIT_Q_RUN_STATE of one queue."""

    def __init__(self, index, size=0, vector=0xffff, enable=0, notify_off=0, desc=0, driver=0,
                 device=0, notify_data=0, reset=0, avail=None, used=None):
        self.index, self.size, self.vector, self.enable = index, size, vector, enable
        self.notify_off, self.desc, self.driver, self.device = notify_off, desc, driver, device
        self.notify_data, self.reset = notify_data, reset
        self.avail, self.used = avail, used


class State:
    """A state blob in parts; encode() and decode() are exact inverses for known types."""

    def __init__(self):
        self.device_feature = 0
        self.driver_feature = 0
        self.msix_config = 0xffff
        self.num_queues = 0
        self.status = 0
        self.generation = 0
        self.dev_cfg = bytes(24)
        self.rx_mode = None
        self.queues = {}
        self.other = []

    def fields(self):
        """The TLVs as a list of (type, value)."""
        yield TLV_COMMON, COMMON.pack(0, self.device_feature, 0, self.driver_feature,
                                      self.msix_config, self.num_queues, 0, self.status,
                                      self.generation)
        yield TLV_DEV_CFG, self.dev_cfg
        if self.rx_mode is not None:
            yield TLV_RX_MODE, struct.pack('<I', self.rx_mode)
        for q in self.queues.values():
            yield TLV_QUEUE, QUEUE.pack(q.index, q.size, q.vector, q.enable, q.notify_off, q.desc,
                                        q.driver, q.device, q.notify_data, q.reset)
            if q.avail is not None:
                yield TLV_RUN, RUN.pack(q.index, q.avail, q.used)
        yield from self.other

    def encode(self, pad=True, count=None):
        return encode_fields(list(self.fields()), pad, count)

    @classmethod
    def decode(cls, blob):
        state = cls()
        for kind, value in decode_fields(blob):
            if kind == TLV_COMMON:
                (_, state.device_feature, _, state.driver_feature, state.msix_config,
                 state.num_queues, _, state.status, state.generation) = COMMON.unpack(value)
            elif kind == TLV_DEV_CFG:
                state.dev_cfg = value
            elif kind == TLV_QUEUE:
                part = QUEUE.unpack(value)
                state.queues[part[0]] = QueueState(*part)
            elif kind == TLV_RUN:
                index, avail, used = RUN.unpack(value)
                state.queues[index].avail, state.queues[index].used = avail, used
            elif kind == TLV_RX_MODE:
                state.rx_mode, = struct.unpack('<I', value)
            else:
                state.other.append((kind, value))
        return state


def encode_fields(fields, pad=True, count=None):
    blob = struct.pack('<I', len(fields) if count is None else count)
    for kind, value in fields:
        blob += struct.pack('<II', kind, len(value)) + value
    if pad:
        blob += bytes(-len(blob) % ALIGN)
    return blob


def decode_fields(blob):
    count, = struct.unpack_from('<I', blob)
    at = 4
    fields = []
    for _ in range(count):
        kind, size = struct.unpack_from('<II', blob, at)
        value = blob[at + 8:at + 8 + size]
        if len(value) != size:
            raise ValueError(f'TLV {kind} of {size} bytes leaves the blob at {at}')
        fields.append((kind, value))
        at += 8 + size
    return fields


class Tracker:
    """Dirty page tracking of one range of a VF through the admin queue `pf` of its PF."""

    def __init__(self, pf, vdev, mode, addr, length, page=4096):
        self.pf, self.vdev, self.mode = pf, vdev, mode
        self.addr, self.length, self.page = addr, length, page
        self.pages = -(-length // page)
        self.bytes = self.pages if mode in (PUSH_BYTEMAP, PULL_BYTEMAP) else -(-self.pages // 8)
        self.map = pf.mem.alloc(self.bytes, 8) if mode in (PUSH_BITMAP, PUSH_BYTEMAP) else None

    def start(self, sges=None):
        """START_TRACK; returns the status. `sges` are (address, length) of a pushed map."""
        if self.map is not None:
            if sges is None:
                sges = [(self.map, self.bytes)]
                self.pf.mem.write(self.map, bytes(self.bytes))
        data = struct.pack('<HHIQQ', self.vdev, self.mode, self.page, self.addr, self.length)
        # reserved bytes carry whatever was there
        data += b''.join(struct.pack('<QII', at, size, 0xdeadbeef) for at, size in sges or [])
        return self.pf.command(CLASS_DIRTY, TRACK_START, data)[0]

    def stop(self, addr=None):
        """STOP_TRACK; returns the status."""
        return self.pf.command(CLASS_DIRTY, TRACK_STOP, struct.pack(
            '<H6xQ', self.vdev, self.addr if addr is None else addr))[0]

    def pending(self):
        """GET_MAP_PENDING_BYTES; returns (status, bytes)."""
        status, out = self.pf.command(CLASS_DIRTY, TRACK_PENDING,
                                      struct.pack('<H6xQ', self.vdev, self.addr), out=8)
        return status, struct.unpack('<Q', out)[0]

    def report(self, offset, length, room=None):
        """REPORT_MAP; returns (status, bytes)."""
        return self.pf.command(CLASS_DIRTY, TRACK_REPORT, struct.pack(
            '<H6xQQQ', self.vdev, offset, length, self.addr),
            out=length if room is None else room)

    def _take_map(self):
        if self.map is None:
            status, size = self.pending()
            assert status == OK and size <= self.bytes, (status, size)
            raw = b''
            while len(raw) < size:
                status, part = self.report(len(raw), min(size - len(raw), 32768))
                assert status == OK, status
                raw += part
            return raw
        return self.pf.mem.read(self.map, self.bytes)

    def take(self):
        """
        The set of dirty pages, as addresses divided by the page size. Pulled, they are forgotten;
        a pushed map keeps them, as Python has no atomic exchange: see clear().
        """
        raw = self._take_map()
        first = self.addr // self.page
        if self.mode in (PUSH_BYTEMAP, PULL_BYTEMAP):
            assert set(raw) <= {0, 1}, 'a byte of a bytemap is 0 or 1'
            return {first + i for i, byte in enumerate(raw) if byte}
        return {first + 8 * i + bit for i, byte in enumerate(raw) for bit in range(8)
                if byte >> bit & 1}

    def clear(self):
        """Clean a pushed map; only while the device stands still."""
        if self.map is not None:
            self.pf.mem.write(self.map, bytes(self.bytes))
