#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""One end-to-end test as a program: front-ends use plain functions through a running service.

It knows no transport: test_front.py runs it on the build machine over vfio-user, and inside the
VM over kernel VFIO. Functions are named in pairs, where what the first sends is what the second
receives; a function that gives back what it gets is both. Exit status 0 and facts as JSON, or a
traceback.
"""
import argparse
import ctypes
import hashlib
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'proto'))

from peers import blk  # noqa: E402 (the path had to be set)
from peers.jsonrpc import Rpc  # noqa: E402
from peers.memory import Memory, make_frame  # noqa: E402
from peers import vhost_user as vh  # noqa: E402
from peers.vhost_user import FrontEnd  # noqa: E402

UUID = '6f0c3a52-8c1e-4f1c-9d6b-5b6b0f2f8d31'
MEMORY = 8 << 20
HUGE_PAGE = 2 << 20
GUEST_BASE = 0x40000000     # nothing of the guest is at 0
STRAY = 0x78000000          # where no guest has memory
LOG_SIZE = 1 << 16          # has a bit for each page of that
SIZES = (60, 61, 512, 1514)
DISK_PART = 256 << 10       # that is written
DISK_REQUEST = 16 << 10
DISK_FEATURES = sum(1 << bit for bit in (
    vh.VERSION_1, vh.F_PROTOCOL_FEATURES, vh.RING_INDIRECT, blk.F_SEG_MAX, blk.F_FLUSH,
    blk.F_BLK_SIZE))
TIMEOUT = 20
ETHERTYPE = b'\x88\xb5'


class Refused(AssertionError):
    """The service says no."""


class Service:
    """The management interface of the service."""

    def __init__(self, path, no_iommu=False):
        self._rpc = Rpc(path)
        self.no_iommu = no_iommu

    def guest_memory(self):
        return Memory(MEMORY, GUEST_BASE, huge=self.no_iommu)

    def call(self, method, **params):
        result = self._rpc.call(method, params)
        if result.get('errno', 0) != 0:
            raise Refused('%d: %s' % (result['errno'], result.get('errstr', '')))
        return result

    def pid(self):
        """The kernel tells who listens at the socket."""
        raw = self._rpc.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.unpack('=iII', raw)[0]

    def switches(self):
        """How often each of its threads has run, by the thread's name."""
        count = {}
        folder = '/proc/%d/task' % self.pid()
        for task in os.listdir(folder):
            with open(os.path.join(folder, task, 'status'), encoding='ascii') as f:
                text = f.read()
            name = re.search(r'^Name:\s*(.*)$', text, re.M).group(1)
            count[name] = count.get(name, 0) + sum(
                int(n) for n in re.findall(r'ctxt_switches:\s*(\d+)', text))
        return count


class Disk(FrontEnd):
    """The front-end of a guest's disk."""

    def __init__(self, path, mem, **kwargs):
        super().__init__(path, mem=mem, features=DISK_FEATURES,
                         protocol=vh.WANTED_PROTOCOL | 1 << vh.P_CONFIG, **kwargs)
        self.queue = blk.BlkQueue(mem, 64)

    def make_pairs(self):
        """It has a queue instead."""

    def rings(self):
        yield 0, self.queue.ring

    def capacity(self):
        """In sectors."""
        body = self.ask(vh.GET_CONFIG, struct.pack('=III', 0, 8, 0) + bytes(8))
        return struct.unpack_from('<Q', body, 12)[0]

    def submit(self, *args, **kwargs):
        self.queue.submit(*args, **kwargs)
        self.kick(0)

    def take(self):
        got = self.queue.take(TIMEOUT)
        assert got is not None, 'a request is not answered'
        assert got[1] == blk.OK, 'a request ends with status %d' % got[1]
        return got[2]

    def write(self, data):
        """From the beginning of the disk, in requests of which some are under way at a time."""
        for at in range(0, len(data), DISK_REQUEST):
            if len(self.queue.pending) == 8:
                self.take()
            self.submit(blk.T_OUT, at // blk.SECTOR, out=data[at:at + DISK_REQUEST],
                        indirect=at & DISK_REQUEST)
        while self.queue.pending:
            self.take()
        self.submit(blk.T_FLUSH)
        self.take()

    def read(self, length):
        data = b''
        for at in range(0, length, DISK_REQUEST):
            self.submit(blk.T_IN, at // blk.SECTOR, in_len=DISK_REQUEST)
            data += self.take()
        return data


class Function:
    """A plain function in the service, and the guest that uses it."""

    def __init__(self, service, bdf, memory, uuid=None):
        self.service = service
        self.bdf = bdf
        self.memory = memory
        self.path = '/tmp/front-%d-%s.sock' % (os.getpid(), bdf)
        self.guest = None
        params = {'uuid': uuid} if uuid else {}
        if service.no_iommu:
            params['allow_no_iommu'] = True
        service.call('vf', add=True, vfdev=bdf, socket_file=self.path, plain=True, **params)

    def info(self):
        return self.service.call('vf', info=True, vfdev=self.bdf)['device']

    def wait_for(self, holds, otherwise):
        """The service knows a little later than the packets; returns what it tells."""
        end = time.monotonic() + TIMEOUT
        while True:
            info = self.info()
            if holds(info):
                return info
            assert time.monotonic() < end, '%s: %s' % (otherwise, info)
            time.sleep(0.02)

    def wait(self, key, value):
        return self.wait_for(lambda info: info[key] == value, '%s is not %s' % (key, value))

    def connect(self, kind=FrontEnd):
        """A front-end that listens, as QEMU does; the service comes, once."""
        guest = kind(self.path, server=True, mem=self.memory, timeout=TIMEOUT).connect()
        guest.listener.close()
        guest.listener = None
        os.unlink(self.path)
        return guest

    def start(self, kind=FrontEnd):
        self.guest = self.connect(kind)
        return self.guest.start()

    def wait_running(self):
        """Until then what is sent to it may be lost."""
        return self.wait('state', 'running')

    def stop(self):
        """The guest goes; returns its rings."""
        self.guest.stop()
        pairs = self.guest.pairs
        self.guest.close()
        self.guest = None
        return pairs

    def remove(self):
        if self.guest is not None:
            self.stop()
        self.wait('connected', False)
        self.service.call('vf', remove=True, vfdev=self.bdf)


def send(one, other, frames):
    """Frames from one guest to another: all arrive, in order, and not a byte is different."""
    for frame in frames:
        one.send_frame(frame)
        while True:
            got = other.receive_frame(TIMEOUT)
            assert got is not None, 'a frame of %d bytes did not arrive' % len(frame)
            # others may be on the wire as well, with protocols of their own
            if got[12:14] == ETHERTYPE:
                break
        assert got == frame, 'a frame of %d bytes arrived with other bytes' % len(frame)


def exchange(one, other, count):
    one.wait_running()
    other.wait_running()
    frames = [make_frame(SIZES[i % len(SIZES)]) for i in range(count)]
    send(one.guest, other.guest, frames)
    if other is not one:
        send(other.guest, one.guest, frames)


def add(service, names):
    """The functions of one VM: its memory and UUID are those of all. Equal names are one."""
    memory = service.guest_memory()
    known = {name: Function(service, name, memory, UUID) for name in dict.fromkeys(names)}
    return [known[name] for name in names]


def remove(functions):
    for function in dict.fromkeys(functions):
        function.remove()


def check_idle(functions):
    for function in dict.fromkeys(functions):
        info = function.info()
        assert info['drive'] == 'plain' and info['last_error'] == '', info
        assert not info['lost'] and info['no_iommu'] == function.service.no_iommu, info


def run_exchange(service, names, count):
    """Packets both ways; the guest reboots, and a new one comes."""
    ends = add(service, names)
    for _ in range(2):
        for end in dict.fromkeys(ends):
            end.start()
        exchange(*ends, count)
        info = ends[0].wait_running()
        assert info['connected'] and info['memory_bytes'] == MEMORY, info
        for end in dict.fromkeys(ends):
            end.stop()
    check_idle(ends)
    remove(ends)
    return {'transport': info['transport']}


def killed_in_the_middle(ends, work):
    """
    Runs work() in a process of its own, which is killed then. The guest of that process has memory
    of its own, as every VM has: what is under way may be finished in it after the end.
    """
    pid = os.fork()
    if pid == 0:
        try:
            memory = ends[0].service.guest_memory()
            for end in ends:
                end.memory = memory
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status


def run_crash(service, names, count):
    """The front-end is killed at work; the next one finds everything in order, several times."""
    ends = add(service, names)

    def work():
        for end in dict.fromkeys(ends):
            end.start()
        exchange(*ends, count)
        # what is under way stays so
        for end in dict.fromkeys(ends):
            end.guest.send_frame(make_frame(60))

    for _ in range(3):
        killed_in_the_middle(ends, work)
    for end in dict.fromkeys(ends):
        end.start()
    exchange(*ends, count)
    check_idle(ends)
    remove(ends)
    return {}


def log_comes(end, log):
    """
    A migration begins: all rings are relayed, and have been looked at when this returns. Without an
    IOMMU they have been relayed all the time.
    """
    before = end.info()['queues'][0]['relayed_kicks']
    guest = end.guest
    guest.set_log(log)
    guest.set_logging(True)
    return end.wait_for(
        lambda info: info['migration']['dirty']['mode'] == 'relay' and
        info['state'] == 'running' and
        (end.service.no_iommu or info['queues'][0]['relayed_kicks'] > before),
        'the rings are not relayed')


def check_single_rings(ends, count):
    """A ring stops and goes on, and a log comes: single rings are reset, the device is not."""
    guest = ends[0].guest
    info = ends[0].wait_running()
    before = info['device_resets'], info['ring_resets']
    base = guest.get_base(1)
    assert base == guest.pairs[0].tx.used_idx() > 0
    # as QEMU does
    page = guest.notifiers.pages.pop(1, None)
    if page is not None:
        page.close()
    guest.set_vring(1, guest.pairs[0].tx, base)
    guest.kick(1)
    exchange(*ends, count)
    queues = ends[0].info()['queues']
    assert [queue['shadow'] for queue in queues[:2]] == [ends[0].service.no_iommu, True], queues
    with Memory(LOG_SIZE, name='log', seal=True) as log:
        info = log_comes(ends[0], log)
        assert info['queues'][0]['shadow'], info
        exchange(*ends, count)
        guest.set_logging(False)
        exchange(*ends, count)
        info = ends[0].info()
        resets = 1 if ends[0].service.no_iommu else 2
        assert (info['device_resets'], info['ring_resets']) == (before[0], before[1] + resets), info


def run_resume(service, names, count):
    """
    The front-end reconnects with rings in their middle: they are relayed; then anew, direct, where
    single rings change while it runs.
    """
    ends = add(service, names)
    ends[0].start()
    if ends[1] is not ends[0]:
        ends[1].start()
    exchange(*ends, count)
    for _ in range(2):
        rings = ends[0].stop()
        at = rings[0].tx.used_idx()
        assert at == rings[0].tx.avail_idx
        ends[0].guest = ends[0].connect()
        guest = ends[0].guest
        guest.pairs = rings
        guest.negotiate()
        guest.set_mem_table()
        guest.start_at(guest.used_bases())
        exchange(*ends, count)
        queues = ends[0].wait_running()['queues']
        assert queues[0]['shadow'] and queues[1]['shadow'], queues
        assert queues[1]['relayed_chains'] >= count, queues
    ends[0].stop()
    ends[0].start()
    exchange(*ends, count)
    queues = ends[0].wait_running()['queues']
    assert [queue['shadow'] for queue in queues[:2]] == [service.no_iommu] * 2, queues
    check_single_rings(ends, count)
    check_idle(ends)
    remove(ends)
    return {}


def run_stray(service, names, count):
    """A guest points its device outside of its memory; it harms itself alone."""
    stray = Function(service, names[0], service.guest_memory())
    ends = add(service, names[1:])
    for end in dict.fromkeys([stray] + ends):
        end.start()
    exchange(*ends, count)
    ring = stray.guest.pairs[0].tx
    ring.set_desc(0, STRAY, 100)
    ring.post(0)
    stray.guest.kick(1)
    exchange(*ends, count)
    stray.stop()
    # a new driver gets a device that works
    stray.start()
    send_only(stray.guest, count)
    exchange(*ends, count)
    check_idle(ends + [stray])
    remove(ends + [stray])
    return {'stray': STRAY}


def send_only(guest, count):
    """The device takes frames and gives their buffers back."""
    ring = guest.pairs[0].tx
    for _ in range(count):
        guest.send_frame(make_frame(60))
        assert ring.wait(TIMEOUT) is not None, 'a frame is not taken'


def calls(guest):
    """Interrupts so far, by ring."""
    count = {}
    for index, fd in guest.calls.items():
        try:
            count[index] = os.eventfd_read(fd)
        except BlockingIOError:
            count[index] = 0
    return count


def run_fast(service, names, count):
    """Kicks are stores to the device's page, interrupts go to the guest: the service sleeps."""
    ends = add(service, names)
    for end in dict.fromkeys(ends):
        end.start()
    exchange(*ends, 2)
    # the pages of the doorbells come a moment later than the first packets
    end_time = time.monotonic() + TIMEOUT
    while not all(set(end.guest.notifiers.pages) == {0, 1} for end in ends):
        assert time.monotonic() < end_time, 'the service gives no doorbell pages'
        time.sleep(0.02)
    distinct = list(dict.fromkeys(ends))
    for end in distinct:
        calls(end.guest)
    kicks = [end.info()['relayed_kicks'] for end in distinct]
    before, begin = service.switches(), time.monotonic()
    exchange(*ends, count)
    after, seconds = service.switches(), time.monotonic() - begin
    ran = {name: after[name] - before.get(name, 0) for name in after}
    for end, relayed in zip(distinct, kicks):
        info = end.info()
        assert info['relayed_kicks'] == relayed, info
        assert all(q['relayed_chains'] == 0 for q in info['queues']), info
        assert all(q['host_notifier'] for q in info['queues'][:2]), info
        got = calls(end.guest)
        # each packet is waited for: each had its interrupt, or shared it with few others
        assert got[0] > 0 and got[1] > 0, got
    check_idle(ends)
    remove(ends)
    return {'packets': count * len(set(names)), 'seconds': seconds, 'switches': ran,
            'interrupts': got}


def run_disk(service, names, _count):
    """Write, read and compare; a front-end is killed; the next one writes and reads all anew."""
    disk = Function(service, names[0], service.guest_memory())
    data = os.urandom(DISK_PART)

    def work():
        guest = disk.start(Disk)
        guest.write(os.urandom(DISK_PART))
        for at in range(8):
            guest.submit(blk.T_OUT, at, out=os.urandom(blk.SECTOR))

    killed_in_the_middle([disk], work)
    guest = disk.start(Disk)
    capacity = guest.capacity()
    guest.write(data)
    assert guest.read(DISK_PART) == data
    disk.wait_running()
    disk.stop()
    guest = disk.start(Disk)
    assert guest.read(DISK_PART) == data
    with Memory(LOG_SIZE, name='log', seal=True) as log:
        resets = disk.info()['device_resets']
        info = log_comes(disk, log)
        assert guest.read(DISK_PART) == data
        assert (info['device_resets'], info['ring_resets']) == (
            resets, 0 if service.no_iommu else 1), info
        disk.stop()
    check_idle([disk])
    remove([disk])
    return {'sectors': capacity, 'bytes': DISK_PART, 'sha256': hashlib.sha256(data).hexdigest()}


def free_huge_pages():
    with open('/proc/meminfo', encoding='ascii') as f:
        return int(re.search(r'HugePages_Free:\s*(\d+)', f.read()).group(1))


def run_balloon(service, names, count):
    """
    A guest gives a huge page back. It stays out of reach of others while the functions, which have
    no IOMMU, could write to it.
    """
    ends = add(service, names)
    for end in dict.fromkeys(ends):
        end.start()
    exchange(*ends, count)
    before = free_huge_pages()
    memory = ends[0].memory
    libc = ctypes.CDLL(None, use_errno=True)
    # FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of the last page, which no ring uses
    assert libc.fallocate(memory.fd, 3, ctypes.c_long(MEMORY - HUGE_PAGE),
                          ctypes.c_long(HUGE_PAGE)) == 0, os.strerror(ctypes.get_errno())
    assert free_huge_pages() == before, 'the page is free'
    exchange(*ends, count)
    check_idle(ends)
    for end in dict.fromkeys(ends):
        end.stop()
        end.wait('connected', False)
    ends[0].wait_for(lambda _: free_huge_pages() == before + 1, 'the page is kept')
    remove(ends)
    return {}


def sysfs_write(path, text):
    with open('/sys/bus/pci/' + path, 'w', encoding='ascii') as f:
        f.write(text)


def run_taken(service, names, count):
    """The kernel takes the function of a guest that runs, and gives it back."""
    ends = add(service, names)
    for end in ends:
        end.start()
    exchange(*ends, count)
    taken = ends[0]
    # returns when nobody has the function open any more
    taker = threading.Thread(target=sysfs_write, daemon=True,
                             args=('drivers/vfio-pci/unbind', taken.bdf))
    taker.start()
    taker.join(TIMEOUT)
    assert not taker.is_alive(), 'the service keeps the function'
    taken.wait('lost', True)
    sysfs_write('drivers/vfio-pci/bind', taken.bdf)
    taken.wait('lost', False)
    taken.wait_running()
    for index, _ in taken.guest.rings():
        taken.guest.kick(index)
    exchange(*ends, count)
    check_idle(ends)
    remove(ends)
    return {}


SCENARIOS = {'balloon': run_balloon, 'crash': run_crash, 'disk': run_disk,
             'exchange': run_exchange, 'fast': run_fast, 'resume': run_resume,
             'stray': run_stray, 'taken': run_taken}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scenario', choices=sorted(SCENARIOS))
    parser.add_argument('functions', nargs='+', metavar='BDF')
    parser.add_argument('--rpc', default='/run/vfe/vhostd.sock', help='socket of the service')
    parser.add_argument('--no-iommu', action='store_true',
                        help='functions in no-IOMMU mode, guests of huge pages')
    parser.add_argument('--count', type=int, default=40, help='packets')
    args = parser.parse_args()
    facts = SCENARIOS[args.scenario](Service(args.rpc, args.no_iommu), args.functions,
                                     args.count)
    print(json.dumps(facts))


if __name__ == '__main__':
    main()
