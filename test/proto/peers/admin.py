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
