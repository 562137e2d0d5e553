# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A virtio-pci driver over a vfio-user client (virtio 1.4 section 4.1): net and admin queue."""

import os
import struct
import time

from . import admin
from . import vfio_user
from .memory import FrameTraffic, Memory, NetQueuePair, Ring

CAP_VENDOR = 0x09
CAP_MSIX = 0x11
EXT_SRIOV = 0x10

CFG_COMMON = 1
CFG_NOTIFY = 2
CFG_ISR = 3
CFG_DEVICE = 4
CFG_PCI = 5

S_ACK = 1
S_DRIVER = 2
S_DRIVER_OK = 4
S_FEATURES_OK = 8
S_NEEDS_RESET = 64
S_FAILED = 128

F_INDIRECT = 28
F_EVENT_IDX = 29
F_VERSION_1 = 32
F_ACCESS_PLATFORM = 33
F_RING_RESET = 40

NET_F_MAC = 5
NET_F_MRG_RXBUF = 15
NET_F_STATUS = 16
NET_F_CTRL_VQ = 17
NET_F_CTRL_RX = 18
NET_F_CTRL_VLAN = 19
NET_F_GUEST_ANNOUNCE = 21
NET_F_MQ = 22
NET_F_CTRL_MAC_ADDR = 23
NET_F_RSS = 60

NO_VECTOR = 0xffff

# name: (offset, struct letter) of struct virtio_pci_common_cfg
COMMON = {
    'device_feature_select': (0, 'I'), 'device_feature': (4, 'I'),
    'driver_feature_select': (8, 'I'), 'driver_feature': (12, 'I'),
    'config_msix_vector': (16, 'H'), 'num_queues': (18, 'H'), 'device_status': (20, 'B'),
    'config_generation': (21, 'B'), 'queue_select': (22, 'H'), 'queue_size': (24, 'H'),
    'queue_msix_vector': (26, 'H'), 'queue_enable': (28, 'H'), 'queue_notify_off': (30, 'H'),
    'queue_desc': (32, 'Q'), 'queue_driver': (40, 'Q'), 'queue_device': (48, 'Q'),
    'queue_notif_config_data': (56, 'H'), 'queue_reset': (58, 'H'),
    'admin_queue_index': (60, 'H'), 'admin_queue_num': (62, 'H'),
}


class VirtioPci:
    """One virtio PCI function behind a vfio-user socket."""

    def __init__(self, client):
        self.client = client
        self.caps = {}
        self.msix = None
        self.sriov = None
        self.notify_multiplier = 0
        self.features = 0
        self.irqs = {}
        self.notify_offs = {}
        self.walk()

    def config(self, offset, count):
        return self.client.read(vfio_user.REGION_CONFIG, offset, count)

    def walk(self):
        """Find the virtio, MSI-X and SR-IOV capabilities."""
        head = self.config(0, 64)
        self.vendor, self.device = struct.unpack_from('<HH', head)
        self.revision = head[8]
        assert head[6] & 0x10, 'no capability list'
        at = head[0x34] & 0xfc
        seen = set()
        while at:
            assert at not in seen and at >= 0x40, f'capability loop or bad pointer at {at:#x}'
            seen.add(at)
            kind, nxt = self.config(at, 2)
            if kind == CAP_VENDOR:
                self._virtio_cap(at)
            elif kind == CAP_MSIX:
                ctrl, table, pba = struct.unpack('<HII', self.config(at + 2, 10))
                self.msix = {'count': (ctrl & 0x7ff) + 1, 'table': table, 'pba': pba, 'cap': at}
            at = nxt & 0xfc
        info = self.client.region_info(vfio_user.REGION_CONFIG)
        self.config_size = info.size
        if info.size >= 4096:
            self._extended()

    def _virtio_cap(self, at):
        raw = self.config(at, 16)
        length, kind, bar = raw[2], raw[3], raw[4]
        offset, size = struct.unpack_from('<II', raw, 8)
        if kind in self.caps:
            return
        self.caps[kind] = (bar, offset, size)
        if kind == CFG_NOTIFY:
            assert length >= 20, 'short notify capability'
            self.notify_multiplier, = struct.unpack('<I', self.config(at + 16, 4))
        elif kind == CFG_PCI:
            self.pci_cfg_cap = at

    def _extended(self):
        at = 0x100
        seen = set()
        while at:
            assert at not in seen, 'extended capability loop'
            seen.add(at)
            head, = struct.unpack('<I', self.config(at, 4))
            if head in (0, 0xffffffff):
                return
            if head & 0xffff == EXT_SRIOV:
                raw = self.config(at, 0x40)
                names = ('ctrl', 'status', 'initial_vfs', 'total_vfs', 'num_vfs')
                self.sriov = dict(zip(names, struct.unpack_from('<HHHHH', raw, 8)), cap=at)
                self.sriov['first'], self.sriov['stride'] = struct.unpack_from('<HH', raw, 0x14)
                self.sriov['vf_device'], = struct.unpack_from('<H', raw, 0x1a)
            at = head >> 20

    # registers

    def get(self, name):
        bar, base, _ = self.caps[CFG_COMMON]
        offset, letter = COMMON[name]
        if letter == 'Q':
            low = self.client.read(bar, base + offset, 4)
            return struct.unpack('<Q', low + self.client.read(bar, base + offset + 4, 4))[0]
        return struct.unpack('<' + letter,
                             self.client.read(bar, base + offset, struct.calcsize(letter)))[0]

    def put(self, name, value):
        bar, base, _ = self.caps[CFG_COMMON]
        offset, letter = COMMON[name]
        if letter == 'Q':
            self.client.write(bar, base + offset, struct.pack('<I', value & 0xffffffff))
            self.client.write(bar, base + offset + 4, struct.pack('<I', value >> 32))
            return
        self.client.write(bar, base + offset, struct.pack('<' + letter, value))

    def device_config(self, offset=0, count=None):
        """Byte by byte, as a driver may (section 4.1.3.1)."""
        bar, base, size = self.caps[CFG_DEVICE]
        count = size - offset if count is None else count
        return b''.join(self.client.read(bar, base + offset + i, 1) for i in range(count))

    def isr(self):
        bar, base, _ = self.caps[CFG_ISR]
        return self.client.read(bar, base, 1)[0]

    def offered(self):
        value = 0
        for word in (0, 1):
            self.put('device_feature_select', word)
            value |= self.get('device_feature') << (32 * word)
        return value

    def accept(self, features):
        for word in (0, 1):
            self.put('driver_feature_select', word)
            self.put('driver_feature', features >> (32 * word) & 0xffffffff)

    def reset(self, timeout=10.0):
        self.put('device_status', 0)
        deadline = time.monotonic() + timeout
        while self.get('device_status'):
            assert time.monotonic() < deadline, 'reset did not finish'
            time.sleep(0.001)
        self.notify_offs.clear()

    def begin(self, wanted):
        """Reset, then ACKNOWLEDGE to FEATURES_OK."""
        self.reset()
        self.put('device_status', S_ACK)
        self.put('device_status', S_ACK | S_DRIVER)
        self.features = self.offered() & wanted
        self.accept(self.features)
        self.put('device_status', S_ACK | S_DRIVER | S_FEATURES_OK)
        assert self.get('device_status') & S_FEATURES_OK, 'device refused its own features'

    def driver_ok(self):
        self.put('device_status', S_ACK | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK)

    def setup_queue(self, index, ring, vector=NO_VECTOR):
        self.put('queue_select', index)
        assert self.get('queue_size') >= ring.size, f'queue {index}: {self.get("queue_size")}'
        self.put('queue_size', ring.size)
        self.put('queue_msix_vector', vector)
        assert self.get('queue_msix_vector') == vector
        self.put('queue_desc', ring.desc)
        self.put('queue_driver', ring.avail)
        self.put('queue_device', ring.used)
        self.notify_offs[index] = self.get('queue_notify_off')
        self.put('queue_enable', 1)

    def notify(self, index):
        bar, base, _ = self.caps[CFG_NOTIFY]
        if index not in self.notify_offs:
            self.put('queue_select', index)
            self.notify_offs[index] = self.get('queue_notify_off')
        offset = base + self.notify_offs[index] * self.notify_multiplier
        self.client.write(bar, offset, struct.pack('<H', index))

    def enable_msix(self, count):
        """An eventfd for each of the first `count` vectors."""
        for vector in range(count):
            self.irqs[vector] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self.client.set_irqs(vfio_user.IRQ_MSIX, vfio_user.IRQ_EVENTFD | vfio_user.IRQ_TRIGGER,
                                 vector, 1, [self.irqs[vector]])

    def interrupts(self, vector):
        """Take and return the count of interrupts of a vector so far."""
        try:
            return os.eventfd_read(self.irqs[vector])
        except BlockingIOError:
            return 0

    def wait_interrupt(self, vector, timeout=5.0):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.interrupts(vector):
                return True
            time.sleep(0.0005)
        return False

    def close(self):
        for fd in self.irqs.values():
            os.close(fd)
        self.irqs.clear()
        self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


NET_WANTED = (1 << F_VERSION_1 | 1 << F_ACCESS_PLATFORM | 1 << F_INDIRECT | 1 << NET_F_MAC |
              1 << F_RING_RESET)


class NetDriver(FrameTraffic, VirtioPci):
    """Drives a virtio-net function: packets over polled rings, control queue."""

    kick = VirtioPci.notify  # as FrameTraffic calls it

    def __init__(self, client, mem=None, base=0x100000, size=4 << 20):
        super().__init__(client)
        self.own_mem = mem is None
        self.mem = mem if mem is not None else Memory(size, base)
        self.client.map_memory(self.mem)
        self.pairs = []
        self.ctrl_ring = None
        self.ctrl_buf = 0

    @property
    def max_pairs(self):
        return struct.unpack('<H', self.device_config(8, 2))[0]

    def start(self, pairs=1, size=64, wanted=NET_WANTED, vectors=False, indirect=False):
        if pairs > 1:
            wanted |= 1 << NET_F_MQ | 1 << NET_F_CTRL_VQ
        self.begin(wanted)
        total = self.max_pairs if self.features >> NET_F_MQ & 1 else 1
        assert pairs <= total, f'{pairs} pairs wanted, {total} offered'
        if len(self.pairs) == pairs and self.pairs[0].rx.size == size:
            for pair in self.pairs:
                pair.clear()
        else:
            self.pairs = [NetQueuePair(self.mem, size, indirect) for _ in range(pairs)]
        if vectors and not self.irqs:
            self.enable_msix(2 * pairs + 1)
        for i, pair in enumerate(self.pairs):
            self.setup_queue(2 * i, pair.rx, 2 * i + 1 if vectors else NO_VECTOR)
            self.setup_queue(2 * i + 1, pair.tx, 2 * i + 2 if vectors else NO_VECTOR)
        if self.features >> NET_F_CTRL_VQ & 1:
            self.ctrl_index = 2 * total
            self.ctrl_ring = Ring(self.mem, 16)
            self.ctrl_buf = self.ctrl_buf or self.mem.alloc(4096, 64)
            self.setup_queue(self.ctrl_index, self.ctrl_ring)
        self.driver_ok()
        for i, pair in enumerate(self.pairs):
            pair.fill()
            self.notify(2 * i)
        if pairs > 1:
            assert self.ctrl(4, 0, struct.pack('<H', pairs)) == 0
        return self

    def ctrl(self, class_, cmd, data=b'', timeout=5.0):
        """One control command; returns its ack byte."""
        buf = self.ctrl_buf
        self.mem.write(buf, bytes([class_, cmd]) + data)
        ack = buf + 4000
        self.mem.write(ack, b'\xff')
        segments = [(buf, 2, False)]
        if data:
            segments.append((buf + 2, len(data), False))
        self.ctrl_ring.add(segments + [(ack, 1, True)])
        self.notify(self.ctrl_index)
        assert self.ctrl_ring.wait(timeout) is not None, 'control command did not complete'
        return self.mem.read(ack, 1)[0]

    def close(self):
        super().close()
        if self.own_mem:
            self.mem.close()


class AdminPf(VirtioPci):
    """Drives a PF's admin queue in the vendor dialect."""

    WANTED = (1 << F_VERSION_1 | 1 << F_ACCESS_PLATFORM | 1 << admin.F_ADMIN_VQ |
              0x3f << admin.F_MIGRATION)
    ARENA = 4 << 20

    def __init__(self, client, base=0x40000000):
        super().__init__(client)
        self.mem = Memory(self.ARENA, base, 'admin')
        self.client.map_memory(self.mem)

    def index(self):
        """Where the dialect puts the admin queue of a net PF."""
        if self.offered_bits & (1 << NET_F_MQ | 1 << NET_F_RSS):
            return 2 * struct.unpack('<H', self.device_config(8, 2))[0]
        return 2

    def start(self, wanted=None):
        self.begin(self.WANTED if wanted is None else wanted)
        self.offered_bits = self.offered()
        self.queue = self.index()
        self.put('queue_select', self.queue)
        size = self.get('queue_size')
        assert size, f'no admin queue at index {self.queue}'
        self.ring = Ring(self.mem, size)
        self.buf_in = self.mem.alloc(64 << 10, 4096)
        self.buf_out = self.mem.alloc(64 << 10, 4096)
        self.status = self.mem.alloc(64, 64)
        self.setup_queue(self.queue, self.ring)
        self.driver_ok()
        return self

    def submit(self, segments):
        self.ring.add(segments)
        self.notify(self.queue)

    def command(self, class_, cmd, data=b'', bulk=b'', out=0, timeout=10.0):
        """One command; returns (status byte, result bytes)."""
        head = self.buf_in
        self.mem.write(head, bytes([class_, cmd]) + data)
        self.mem.write(self.status, b'\xff')
        segments = [(head, 2, False)]
        if data:
            segments.append((head + 2, len(data), False))
        if bulk:
            self.mem.write(head + 4096, bulk)
            segments.append((head + 4096, len(bulk), False))
        if out:
            self.mem.write(self.buf_out, bytes(out))
            segments.append((self.buf_out, out, True))
        self.submit(segments + [(self.status, 1, True)])
        assert self.ring.wait(timeout) is not None, f'admin {class_}/{cmd} did not complete'
        return self.mem.read(self.status, 1)[0], self.mem.read(self.buf_out, out) if out else b''

    def ok(self, *args, **kwargs):
        status, out = self.command(*args, **kwargs)
        assert status == admin.OK, f'admin {args[:2]} ended with status {status:#x}'
        return out

    def get_status(self, vdev):
        out = self.ok(admin.CLASS_MIGRATION, admin.GET_STATUS, struct.pack('<HH', vdev, 0), out=4)
        return struct.unpack_from('<H', out)[0]

    def set_status(self, vdev, status):
        return self.command(admin.CLASS_MIGRATION, admin.MODIFY_STATUS,
                            struct.pack('<HH', vdev, status))[0]

    def freeze(self, vdev):
        for status in (admin.QUIESCED, admin.FREEZED):
            got = self.set_status(vdev, status)
            assert got == admin.OK, f'VF {vdev}: status {status} refused with {got:#x}'

    def run(self, vdev):
        for status in (admin.QUIESCED, admin.RUNNING):
            got = self.set_status(vdev, status)
            assert got == admin.OK, f'VF {vdev}: status {status} refused with {got:#x}'

    def pending(self, vdev):
        out = self.ok(admin.CLASS_MIGRATION, admin.PENDING_BYTES, struct.pack('<HH', vdev, 0),
                      out=8)
        return struct.unpack('<Q', out)[0]

    def save(self, vdev, length=None, offset=0):
        length = length or self.pending(vdev) or 8192
        return self.ok(admin.CLASS_MIGRATION, admin.SAVE_STATE,
                       struct.pack('<H6xQQ', vdev, offset, length), out=length)

    def restore(self, vdev, blob, offset=0, length=None):
        return self.command(admin.CLASS_MIGRATION, admin.RESTORE_STATE,
                            struct.pack('<H6xQQ', vdev, offset,
                                        len(blob) if length is None else length), blob)[0]

    def close(self):
        super().close()
        self.mem.close()
