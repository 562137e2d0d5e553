# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Device models for vfio_user.Server: a virtio-net PF with admin queue, and its VFs.

They are honest enough for the probe of the service. A test makes them lie by editing the
configuration space bytes, by the hooks of the server, by `on_register`, or by `on_admin`.
"""

import errno
import mmap
import os
import struct

from . import admin
from .memory import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from .virtio import COMMON, NO_VECTOR

BAR_SIZE = 0x40000
COMMON_AT = 0x0000
ISR_AT = 0x1000
DEVICE_AT = 0x2000
MSIX_AT = 0x3000
PBA_AT = 0x3800
NOTIFY_AT = 0x4000

CAP_COMMON_AT = 0x40
CAP_NOTIFY_AT = 0x50
CAP_ISR_AT = 0x64
CAP_DEVICE_AT = 0x74
CAP_PCI_AT = 0x84
CAP_MSIX_AT = 0x98
CAP_EXP_AT = 0xa4
SRIOV_AT = 0x100

NET_FEATURES = (1 << 32 | 1 << 33 | 1 << 28 | 1 << 40 | 1 << 5 | 1 << 16 | 1 << 22 | 1 << 17 |
                1 << 3 | 1 << 15)
PF_FEATURES = (1 << 32 | 1 << 33 | 1 << 5 | 1 << 16 | 1 << 22 | 1 << 17 | 1 << admin.F_ADMIN_VQ |
               1 << admin.F_MIGRATION | 1 << admin.F_STATE_TRACK | 1 << admin.F_PUSH_BITMAP |
               1 << admin.F_PULL_BITMAP)


class Queue:
    """Registers of one queue; the emulator serves admin queues only."""

    def __init__(self, size):
        self.max_size = size
        self.reset()

    def reset(self):
        self.size = self.max_size
        self.vector = NO_VECTOR
        self.enable = 0
        self.desc = self.driver = self.device = 0
        self.avail_seen = 0
        self.used_idx = 0


class Function:
    """A virtio-net PCI function behind vfio_user.Server."""

    def __init__(self, features=NET_FEATURES, pairs=1, queue_size=256, vectors=8,
                 mac=b'\x02\x00\x00\x00\x00\x01', num_queues=None):
        self.server = None
        self.features = features
        self.driver_features = 0
        self.select = {'device_feature_select': 0, 'driver_feature_select': 0, 'queue_select': 0}
        self.status = 0
        self.config_vector = NO_VECTOR
        self.generation = 0
        self.num_queues = num_queues if num_queues is not None else 2 * pairs + 1
        self.pairs = pairs
        self.vectors = vectors
        self.queues = [Queue(queue_size) for _ in range(self.num_queues)]
        self.net_config = bytearray(struct.pack('<6sHHHIBBHI', mac, 1, pairs, 1500, 0, 0, 0, 0, 0))
        self.msix_table = bytearray(16 * vectors)
        self.cfg = bytearray(4096)
        self.maps = {}
        self.resets = 0
        self.notified = []
        self.on_register = None  # function(name, value) -> value that the driver reads
        self._fill_config()

    def _fill_config(self):
        cfg = self.cfg
        struct.pack_into('<HHHHBBBB', cfg, 0, 0x1af4, 0x1041, 0x6, 0x10, 1, 0, 0, 2)
        struct.pack_into('<I', cfg, 0x10, 0xfebc0000 | 0x4)
        struct.pack_into('<HH', cfg, 0x2c, 0x1af4, 0x1041)
        cfg[0x34] = CAP_COMMON_AT

        def cap(at, nxt, length, kind, offset, size):
            struct.pack_into('<BBBBBBHII', cfg, at, 9, nxt, length, kind, 0, 0, 0, offset, size)

        cap(CAP_COMMON_AT, CAP_NOTIFY_AT, 16, 1, COMMON_AT, 64)
        cap(CAP_NOTIFY_AT, CAP_ISR_AT, 20, 2, NOTIFY_AT, BAR_SIZE - NOTIFY_AT)
        struct.pack_into('<I', cfg, CAP_NOTIFY_AT + 16, 4096)
        cap(CAP_ISR_AT, CAP_DEVICE_AT, 16, 3, ISR_AT, 4)
        cap(CAP_DEVICE_AT, CAP_PCI_AT, 16, 4, DEVICE_AT, 24)
        cap(CAP_PCI_AT, CAP_MSIX_AT, 20, 5, 0, 0)
        struct.pack_into('<BBHII', cfg, CAP_MSIX_AT, 0x11, CAP_EXP_AT, self.vectors - 1, MSIX_AT,
                         PBA_AT)
        struct.pack_into('<BBH', cfg, CAP_EXP_AT, 0x10, 0, 2)

    # what vfio_user.Server calls

    def region_info(self, index):
        if index >= 9:
            raise OSError(errno.EINVAL, 'no such region')
        size = {0: BAR_SIZE, 7: len(self.cfg)}.get(index, 0)
        return struct.pack('=IIIIQQ', 32, 3 if size else 0, index, 0, size, 0), []

    def irq_count(self, index):
        if index >= 5:
            raise OSError(errno.EINVAL, 'no such interrupt')
        return self.vectors if index == 2 else 0

    def dma_mapped(self, addr, size, offset, fd):
        handle = (addr, size)
        if fd >= 0:
            self.maps[handle] = mmap.mmap(fd, size, offset=offset)
            os.close(fd)
        return handle

    def dma_unmapped(self, handle):
        area = self.maps.pop(handle, None)
        if area is not None:
            area.close()

    def region_read(self, region, offset, count):
        size = {0: BAR_SIZE, 7: len(self.cfg)}.get(region, 0)
        if offset + count > size:
            raise OSError(errno.EINVAL, 'outside of the region')
        if region == 7:
            return bytes(self.cfg[offset:offset + count])
        if offset < COMMON_AT + 64:
            return self._common_read(offset, count)
        for base, data in ((DEVICE_AT, self.net_config), (MSIX_AT, self.msix_table)):
            if base <= offset < base + len(data):
                return bytes(data[offset - base:offset - base + count]).ljust(count, b'\0')
        return bytes(count)

    def region_write(self, region, offset, data):
        size = {0: BAR_SIZE, 7: len(self.cfg)}.get(region, 0)
        if offset + len(data) > size:
            raise OSError(errno.EINVAL, 'outside of the region')
        if region == 7:
            self._config_write(offset, data)
        elif offset < COMMON_AT + 64:
            self._common_write(offset, data)
        elif MSIX_AT <= offset < MSIX_AT + len(self.msix_table):
            self.msix_table[offset - MSIX_AT:offset - MSIX_AT + len(data)] = data
        elif offset >= NOTIFY_AT:
            index = (offset - NOTIFY_AT) // 4096
            self.notified.append(index)
            if index < len(self.queues):
                self.kicked(index)

    def reset(self):
        self.resets += 1
        self._device_reset()

    # registers

    def _config_write(self, offset, data):
        if 0x10 <= offset < 0x28:  # BARs: sizes are told by the region info
            return
        self.cfg[offset:offset + len(data)] = data

    def _queue(self):
        index = self.select['queue_select']
        return self.queues[index] if index < len(self.queues) else None

    def register(self, name):
        """The value of one common configuration register."""
        queue = self._queue()
        if name in self.select:
            value = self.select[name]
        elif name in ('device_feature', 'driver_feature'):
            word = self.select[name + '_select']
            bits = self.features if name == 'device_feature' else self.driver_features
            value = bits >> 32 * word & 0xffffffff if word < 2 else 0
        elif name == 'config_msix_vector':
            value = self.config_vector
        elif name == 'num_queues':
            value = self.num_queues
        elif name == 'device_status':
            value = self.status
        elif name == 'config_generation':
            value = self.generation
        elif name == 'queue_notify_off':
            value = self.select['queue_select']
        elif queue is None or name in ('queue_notif_config_data', 'queue_reset',
                                       'admin_queue_index', 'admin_queue_num'):
            value = 0
        else:
            field = name[len('queue_'):].replace('msix_', '')
            value = getattr(queue, field)
        return self.on_register(name, value) if self.on_register else value

    def _common_bytes(self):
        raw = bytearray(64)
        for name, (offset, letter) in COMMON.items():
            struct.pack_into('<' + letter, raw, offset, self.register(name))
        return raw

    def _common_read(self, offset, count):
        return bytes(self._common_bytes()[offset:offset + count]).ljust(count, b'\0')

    def _common_write(self, offset, data):
        for name, (at, letter) in COMMON.items():
            size = struct.calcsize('<' + letter)
            if offset <= at and at + size <= offset + len(data):
                self._set(name, struct.unpack_from('<' + letter, data, at - offset)[0])
            elif letter == 'Q' and offset in (at, at + 4) and len(data) == 4:
                value = self.register(name)
                half, = struct.unpack('<I', data)
                self._set(name, value & ~0xffffffff | half if offset == at
                          else value & 0xffffffff | half << 32)

    def _set(self, name, value):
        queue = self._queue()
        if name in self.select:
            self.select[name] = value
        elif name == 'driver_feature':
            word = self.select['driver_feature_select']
            if word < 2:
                mask = 0xffffffff << 32 * word
                self.driver_features = self.driver_features & ~mask | value << 32 * word
        elif name == 'config_msix_vector':
            self.config_vector = value
        elif name == 'device_status':
            if value == 0:
                self._device_reset()
            else:
                self.status = value
        elif queue is not None and name in ('queue_size', 'queue_msix_vector', 'queue_enable',
                                            'queue_desc', 'queue_driver', 'queue_device'):
            setattr(queue, name[len('queue_'):].replace('msix_', ''), value)
        elif queue is not None and name == 'queue_reset' and value:
            queue.reset()

    def _device_reset(self):
        self.status = 0
        self.driver_features = 0
        self.config_vector = NO_VECTOR
        for queue in self.queues:
            queue.reset()

    def kicked(self, index):
        """A doorbell; data queues of the emulator do nothing."""

    # DMA

    def memory(self, addr, size):
        """(mapping, offset) of a range, or OSError when the driver did not map it."""
        for (base, length), area in self.maps.items():
            if base <= addr and addr + size <= base + length:
                return area, addr - base
        raise OSError(errno.EFAULT, f'{addr:#x}+{size} is not mapped')

    def dma_read(self, addr, size):
        area, at = self.memory(addr, size)
        return area[at:at + size]

    def dma_write(self, addr, data):
        area, at = self.memory(addr, len(data))
        area[at:at + len(data)] = data


class Command:
    """One admin command as fetched from the ring."""

    def __init__(self, head, readable, writable):
        self.head = head
        self.readable = readable
        self.writable = writable
        self.class_, self.cmd = (readable[0], readable[1]) if len(readable) >= 2 else (0, 0)
        self.data = readable[2:]
        self.status = admin.OK
        self.result = b''


class Pf(Function):
    """A PF with SR-IOV capability and admin queue in the vendor dialect."""

    def __init__(self, vf_offset=0x23, vf_stride=1, vfs=2, pairs=1, features=PF_FEATURES, **kwargs):
        super().__init__(features=features, pairs=pairs, **kwargs)
        self.vfs = vfs
        self.vf_status = {}
        self.blobs = {}
        self.commands = []
        # function(pf, command) -> True when it has dealt with completion itself
        self.on_admin = None
        struct.pack_into('<I', self.cfg, SRIOV_AT, 0x10 | 1 << 16)
        struct.pack_into('<HHHHHBBHHHH', self.cfg, SRIOV_AT + 8, 0x9, 0, vfs, vfs, vfs, 0, 0,
                         vf_offset, vf_stride, 0, 0x1041)
        struct.pack_into('<II', self.cfg, SRIOV_AT + 0x1c, 1, 1)

    @property
    def admin_index(self):
        return 2 * self.pairs if self.features & (1 << 22 | 1 << 60) else 2

    def kicked(self, index):
        if index == self.admin_index:
            self.serve()

    def serve(self):
        """Execute everything that is new on the admin queue."""
        queue = self.queues[self.admin_index]
        if not queue.enable:
            return
        avail_idx, = struct.unpack('<H', self.dma_read(queue.driver + 2, 2))
        while queue.avail_seen != avail_idx:
            at = queue.driver + 4 + 2 * (queue.avail_seen % queue.size)
            head, = struct.unpack('<H', self.dma_read(at, 2))
            queue.avail_seen = queue.avail_seen + 1 & 0xffff
            command = self._fetch(queue, head)
            self.commands.append((command.class_, command.cmd))
            self._execute(command)
            if self.on_admin and self.on_admin(self, command):
                continue
            self.finish(command)

    def _fetch(self, queue, head):
        readable = b''
        writable = []
        table, index, size = queue.desc, head, queue.size
        for _ in range(2 * size):
            addr, length, flags, nxt = struct.unpack('<QIHH', self.dma_read(table + 16 * index, 16))
            if flags & DESC_F_INDIRECT:
                table, index, size = addr, 0, length // 16
                continue
            if flags & DESC_F_WRITE:
                writable.append((addr, length))
            else:
                readable += self.dma_read(addr, length)
            if not flags & DESC_F_NEXT:
                break
            index = nxt
        return Command(head, readable, writable)

    def _execute(self, c):
        vdev = struct.unpack_from('<H', c.data)[0] if len(c.data) >= 2 else 0
        needs_vdev = c.cmd != 0
        if c.class_ not in (admin.CLASS_MIGRATION, admin.CLASS_DIRTY):
            c.status = admin.INVALID_CLASS | admin.DNR
        elif needs_vdev and not 1 <= vdev <= self.vfs:
            c.status = admin.ERR | admin.DNR
        elif c.class_ == admin.CLASS_MIGRATION:
            self._migration(c, vdev)
        elif c.cmd == 0:
            c.result = struct.pack('<HHI', 40, 37, 8)
        elif c.cmd == admin.TRACK_PENDING:
            c.result = struct.pack('<Q', 0)
        elif c.cmd == admin.TRACK_REPORT:
            c.result = bytes(sum(length for _, length in c.writable) - 1)

    def _migration(self, c, vdev):
        if c.cmd == admin.IDENTITY:
            c.result = struct.pack('<HHHH', 1, 0, 0, 0)
        elif c.cmd == admin.GET_STATUS:
            c.result = struct.pack('<HH', self.vf_status.get(vdev, 0), 0)
        elif c.cmd == admin.MODIFY_STATUS:
            self.vf_status[vdev] = struct.unpack_from('<H', c.data, 2)[0]
        elif c.cmd == admin.PENDING_BYTES:
            c.result = struct.pack('<Q', len(self.blobs.get(vdev, b'')))
        elif c.cmd == admin.SAVE_STATE:
            offset, length = struct.unpack_from('<QQ', c.data, 8)
            c.result = self.blobs.get(vdev, b'')[offset:offset + length].ljust(length, b'\0')
        elif c.cmd == admin.RESTORE_STATE:
            self.blobs[vdev] = c.data[24:]
        else:
            c.status = admin.INVALID_COMMAND | admin.DNR

    def finish(self, c, used_id=None, length=None, step=1):
        """Write result and status, then the used element; every part can be a lie."""
        self.write_out(c)
        self.use(c.head if used_id is None else used_id,
                 len(c.result) + 1 if length is None else length, step)

    def write_out(self, c):
        data = c.result
        for addr, size in c.writable[:-1]:
            self.dma_write(addr, data[:size])
            data = data[size:]
        if c.writable:
            addr, size = c.writable[-1]
            self.dma_write(addr + size - 1, bytes([c.status]))

    def use(self, used_id, length, step=1):
        queue = self.queues[self.admin_index]
        at = queue.device + 4 + 8 * (queue.used_idx % queue.size)
        self.dma_write(at, struct.pack('<II', used_id & 0xffffffff, length & 0xffffffff))
        queue.used_idx = queue.used_idx + step & 0xffff
        self.dma_write(queue.device + 2, struct.pack('<H', queue.used_idx))
        if queue.vector != NO_VECTOR:
            self.server.interrupt(queue.vector)


class Vf(Function):
    """A VF; its queues accept everything and move nothing."""
