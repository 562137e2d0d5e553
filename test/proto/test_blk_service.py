# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A guest's disk behind the service: data, queues, write cache, size, migration, lost devices."""

import os
import random
import struct
import tempfile
import threading
import time

import pytest

from peers import blk, daemons
from peers import vhost_user as vh
from peers.blk import OK, SECTOR, T_FLUSH, T_IN, T_OUT, BlkQueue
from peers.memory import PAGE, Memory
from peers.vhost_user import FrontEnd

SIZE = 16 << 20
BLOCK = 4096
WCE_AT = 32
CONFIG_LEN = 72
FEATURES = sum(1 << bit for bit in (
    vh.VERSION_1, vh.F_PROTOCOL_FEATURES, vh.F_LOG_ALL, vh.RING_INDIRECT, blk.F_SIZE_MAX,
    blk.F_SEG_MAX, blk.F_BLK_SIZE, blk.F_FLUSH, blk.F_TOPOLOGY, blk.F_CONFIG_WCE, blk.F_MQ,
    blk.F_DISCARD, blk.F_WRITE_ZEROES, blk.F_RO))
PROTOCOL = vh.WANTED_PROTOCOL | 1 << vh.P_CONFIG
PLAIN, ORDERED, READ_ONLY = range(3)


class Disk(FrontEnd):
    """The front end of a guest's disk."""

    def __init__(self, path, mem=None, like=None, queues=1, size=128, **kwargs):
        super().__init__(path, mem=mem, mem_size=32 << 20, features=FEATURES, protocol=PROTOCOL,
                         **kwargs)
        self.queues = like.queues if like else [BlkQueue(self.mem, size) for _ in range(queues)]

    def make_pairs(self):
        pass

    def rings(self):
        for i, queue in enumerate(self.queues):
            yield i, queue.ring

    def arrive(self, bases):
        self.negotiate()
        self.set_mem_table()
        self.start_at(bases)
        return self

    def submit(self, *args, queue=0, **kwargs):
        head = self.queues[queue].submit(*args, **kwargs)
        self.kick(queue)
        return head

    def request(self, *args, queue=0, **kwargs):
        head = self.submit(*args, queue=queue, **kwargs)
        got = self.queues[queue].take(10.0)
        assert got is not None, 'the request was not answered'
        assert got[0] == head
        return got[1:]

    def write(self, sector, data, **kwargs):
        return self.request(T_OUT, sector, out=data, **kwargs)[0]

    def read(self, sector, length, **kwargs):
        status, data = self.request(T_IN, sector, in_len=length, **kwargs)
        assert status == OK
        return data

    def check_copy(self, copy):
        """All that the device has written through queue 0 is in a copy of the guest's memory."""
        queue = self.queues[0]
        for start, length in ((queue.data, queue.DATA * queue.nr_slots),
                              (queue.ring.used, 6 + 8 * queue.ring.size)):
            assert copy[start:start + length] == self.mem.read(start, length)
        # the status bytes, in pages that the guest writes as well
        for slot in range(queue.nr_slots):
            at = queue.headers + 32 * slot + 16
            assert copy[at:at + 1] == self.mem.read(at, 1)

    def get_config(self, offset, size):
        """None when the service gives nothing."""
        body = self.ask(vh.GET_CONFIG, struct.pack('=III', offset, size, 0) + bytes(size))
        return body[12:] if body else None

    def set_config(self, offset, data, flags=0, size=None):
        size = len(data) if size is None else size
        return self.try_tell(vh.SET_CONFIG, struct.pack('=III', offset, size, flags) + data)

    def capacity(self):
        return struct.unpack('<Q', self.get_config(0, 8))[0]


class Host:
    """A controller and a service with three VFs on one image, which hosts may share."""

    def __init__(self, directory, image, options=(), client=False, drain=5000):
        os.mkdir(directory)
        self.directory, self.image, self.client, self.drain = directory, image, client, drain
        self.options = options
        self.start_controller()
        self.service = daemons.serve(self.controller, directory, [self.path(i) for i in range(3)],
                                     client=client, options=options)

    def start_controller(self):
        self.controller = blk.BlkController(
            self.directory, [blk.file_bdev('disk', self.image)], ['disk'] * 3, pf_bdev='disk',
            vfs=3, vf_extra={ORDERED: {'force_in_order': True}, READ_ONLY: {'read_only': True}},
            extra={'workers': 2, 'drain_timeout_ms': self.drain})

    def path(self, index):
        return os.path.join(self.directory, f'vhost{index}')

    def disk(self, index=PLAIN, **kwargs):
        return Disk(self.path(index), server=self.client, **kwargs).connect()

    def info(self, index=PLAIN):
        return self.service.vf_info(self.controller.vf(index))

    def wait(self, what, index=PLAIN):
        return self.service.vf_wait(self.controller.vf(index), what)

    def wait_state(self, state, index=PLAIN):
        return self.wait(lambda info: info['state'] == state, index)

    def wait_log(self, text):
        deadline = time.monotonic() + 10 * daemons.SLOW
        while text not in self.service.log():
            assert time.monotonic() < deadline, f'no {text!r}:\n{self.service.log_tail()}'
            time.sleep(0.005)

    def writes(self, index=PLAIN):
        """Since the queues were started last."""
        return sum(q['writes'] for q in self.controller.ctrl(index)['queues'])

    def kill(self):
        self.service.kill()
        self.controller.kill()

    def stop(self):
        self.service.stop()
        self.controller.stop()


@pytest.fixture
def image(work):
    directory = tempfile.mkdtemp(prefix='i', dir=work)
    return blk.make_image(os.path.join(directory, 'disk.img'), SIZE)


@pytest.fixture
def make_host(work, image):
    hosts = []
    directory = tempfile.mkdtemp(prefix='b', dir=work)

    def make(**kwargs):
        hosts.append(Host(os.path.join(directory, str(len(hosts))), image, **kwargs))
        return hosts[-1]

    yield make
    for host in hosts:
        host.kill()


@pytest.fixture
def host(make_host):
    return make_host()


class Load(threading.Thread):
    """
    A guest that writes blocks, several at a time, and knows what each must have. The lock is its
    processor: who holds it has stopped the guest.
    """

    DEPTH = 8

    def __init__(self, disk, seed=1):
        super().__init__(daemon=True)
        self.disk = disk
        self.lock = threading.Lock()
        self.quit = threading.Event()
        self.random = random.Random(seed)
        self.content = {}       # block: generation that has been completed
        self.busy = {}          # (queue, head): (block, generation)
        self.generation = 0
        self.completed = 0
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.quit.is_set():
                with self.lock:
                    self._fill()
                    self._reap()
                time.sleep(0.0005)
            deadline = time.monotonic() + 20 * daemons.SLOW
            while self.busy:
                with self.lock:
                    self._reap()
                assert time.monotonic() < deadline, f'not answered: {self.busy}'
                time.sleep(0.001)
        except BaseException as e:  # pylint: disable=broad-except
            self.failure = e

    def _fill(self):
        for number in range(len(self.disk.queues)):
            while sum(1 for q, _ in self.busy if q == number) < self.DEPTH:
                taken = {block for block, _ in self.busy.values()}
                block = self.random.randrange(SIZE // BLOCK)
                if block in taken:
                    continue
                self.generation += 1
                head = self.disk.submit(T_OUT, block * (BLOCK // SECTOR), queue=number,
                                        out=self.data(block, self.generation))
                self.busy[(number, head)] = (block, self.generation)

    def _reap(self):
        for number, queue in enumerate(self.disk.queues):
            while True:
                got = queue.take(0)
                if got is None:
                    break
                head, status, _ = got
                assert status == OK, f'status {status}'
                block, generation = self.busy.pop((number, head))
                self.content[block] = generation
                self.completed += 1

    @staticmethod
    def data(block, generation):
        return struct.pack('<II', block, generation) * (BLOCK // 8)

    def wait_for(self, more):
        goal = self.completed + more
        deadline = time.monotonic() + 30 * daemons.SLOW
        while self.completed < goal:
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, (self.completed, goal)
            time.sleep(0.001)

    def finish(self, image):
        """All is answered, and on the disk."""
        self.quit.set()
        self.join(60 * daemons.SLOW)
        assert not self.is_alive() and self.failure is None, self.failure
        assert self.completed == self.generation
        with open(image, 'rb') as file:
            for block, generation in self.content.items():
                there = os.pread(file.fileno(), BLOCK, block * BLOCK)
                assert there == self.data(block, generation), f'block {block}'


# --- data ---

@pytest.mark.parametrize('client', [False, True])
def test_data_reaches_the_file(make_host, image, client):
    host = make_host(client=client)
    with host.disk() as disk:
        disk.start()
        for i in range(20):
            data = os.urandom(512 * (1 + i))
            assert disk.write(131 * i, data) == OK
            assert disk.read(131 * i, len(data)) == data
            assert disk.request(T_FLUSH)[0] == OK
            assert blk.disk_has(image, 131 * i, data)
        assert disk.stop() == {0: 60}
    host.wait_state('parked')
    host.stop()


def test_queues(host):
    with host.disk(queues=4) as disk:
        disk.start()
        assert disk.max_pairs == 4      # for a disk these are queues
        for queue in range(4):
            data = os.urandom(4096)
            assert disk.write(64 * queue, data, queue=queue) == OK
            assert disk.read(64 * queue, 4096, queue=3 - queue) == data
    info = host.info()
    assert info['queue_num'] == '4' and len(info['queues']) == 4


def test_read_only_disk(host):
    with host.disk(READ_ONLY) as disk:
        disk.start()
        assert disk.features >> blk.F_RO & 1
        assert disk.write(0, bytes(512)) == blk.IOERR
        assert disk.read(0, 512) == bytes(512)
    assert host.info(READ_ONLY)['read_only'] is True


def test_record_is_of_a_disk(host):
    info = host.info()
    assert info['type'] == 'blk' and info['capacity'] == SIZE and info['block_size'] == SECTOR
    assert info['read_only'] is False and 'mac' not in info and 'mtu' not in info
    assert 'VIRTIO_BLK_F_FLUSH' in info['device_feature'].values()
    assert not any('NET' in name for name in info['guest_feature'].values())


# --- configuration space ---

def test_configuration_space(host):
    with host.disk() as disk:
        disk.start()
        whole = disk.get_config(0, CONFIG_LEN)
        assert struct.unpack_from('<Q', whole)[0] == SIZE // SECTOR
        assert disk.get_config(20, 4) == struct.pack('<I', SECTOR)
        assert disk.get_config(34, 2) == struct.pack('<H', 4)
        assert disk.get_config(CONFIG_LEN - 1, 1) == whole[-1:]


@pytest.mark.parametrize('offset, size', [
    (0, CONFIG_LEN + 1), (CONFIG_LEN, 1), (CONFIG_LEN - 1, 2), (0xffffffff, 1), (0xffffffff, 2),
    (0, 256)])
def test_reads_outside_the_configuration_space(host, offset, size):
    with host.disk() as disk:
        disk.start()
        assert disk.get_config(offset, size) is None
        assert disk.write(0, bytes(512)) == OK


@pytest.mark.parametrize('offset, data, flags, size', [
    (WCE_AT, b'', 0, None), (WCE_AT, b'\0\0', 0, None), (WCE_AT - 1, b'\0', 0, None),
    (0, bytes(CONFIG_LEN), 0, None), (0xffffffff, b'\0', 0, None), (WCE_AT, b'\0', 2, None),
    (WCE_AT, b'\0', 0xffffffff, None), (WCE_AT, b'\2', 0, None), (WCE_AT, b'\0', 0, 2),
    (WCE_AT, b'\0', 0, 0xffffffff), (0, bytes(256), 0, None)])
def test_writes_that_are_refused(host, offset, data, flags, size):
    with host.disk() as disk:
        disk.start()
        host.wait_state('running')      # which clears the last error
        assert disk.set_config(offset, data, flags, size) != 0
        assert disk.get_config(WCE_AT, 1) == b'\1'
        assert host.info()['last_error']
        assert disk.write(0, bytes(512)) == OK


def test_write_cache(host):
    with host.disk() as disk:
        disk.start()
        for value in (0, 1, 0):
            assert disk.set_config(WCE_AT, bytes([value])) == 0
            assert disk.get_config(WCE_AT, 1) == bytes([value])
            host.wait(lambda info, v=value: host.controller.ctrl()['writeback'] is bool(v))
        # it is the guest's until the guest goes, whatever becomes of the device
        host.controller.kill()
        host.start_controller()
        host.wait_state('running')
        host.wait(lambda info: host.controller.ctrl()['writeback'] is False)
        assert disk.get_config(WCE_AT, 1) == b'\0'
    host.wait_state('parked')


def test_new_size_is_told(host, image):
    with host.disk() as disk:
        disk.start()
        assert disk.write(0, bytes(512)) == OK
        os.truncate(image, 2 * SIZE)
        host.controller.rpc('bdev_aio_rescan', {'name': 'disk'})
        deadline = time.monotonic() + 10 * daemons.SLOW
        while not disk.notifiers.config_changes:
            assert time.monotonic() < deadline, 'no CONFIG_CHANGE'
            time.sleep(0.005)
        assert disk.capacity() == 2 * SIZE // SECTOR
        data = os.urandom(4096)
        assert disk.write(2 * SIZE // SECTOR - 8, data) == OK
        assert blk.disk_has(image, 2 * SIZE // SECTOR - 8, data)
    assert host.info()['capacity'] == 2 * SIZE


# --- stop, migration ---

def test_stop_and_go_on_under_load(host, image):
    with host.disk(queues=2) as disk:
        disk.start()
        load = Load(disk)
        writes = 0
        for _ in range(5):
            load.wait_for(50)
            with load.lock:
                bases = disk.stop()
                writes += host.writes()
                assert bases == disk.used_bases()
                disk.start_at(bases)
        load.wait_for(50)
        load.finish(image)
        assert writes + host.writes() == load.generation    # each of them once


def test_migration_under_load(make_host, image):
    hosts = [make_host(), make_host()]
    writes = 0
    with Memory(32 << 20) as mem:
        disk = hosts[0].disk(mem=mem, queues=2)
        disk.start()
        load = Load(disk)
        for i in range(1, 7):
            load.wait_for(40)
            there = hosts[i % 2].disk(mem=mem, like=disk)
            with load.lock:
                bases = disk.stop()
                writes += hosts[(i - 1) % 2].writes()
                there.arrive(bases)
                load.disk = there
            disk.close()
            disk = there
        load.wait_for(40)
        load.finish(image)
        assert writes + hosts[0].writes() == load.generation    # each of them once
        disk.close()


@pytest.mark.parametrize('mode', ['direct', 'push-bitmap', 'pull-bytemap'])
def test_pages_that_reads_fill_are_in_the_log(make_host, image, mode):
    host = make_host(options=['--dirty-mode', mode])
    data = os.urandom(64 * BLOCK)
    with open(image, 'r+b') as file:
        os.pwrite(file.fileno(), data, 0)
    with host.disk() as disk, Memory(1 << 16, name='log', seal=True) as log:
        disk.start()
        disk.set_log(log)
        disk.set_logging(True)
        host.wait(lambda info: info['migration']['state'] == 'logging' and
                  info['migration']['dirty']['mode'] == mode)
        copy = bytearray(disk.mem.read(0, disk.mem.size))
        for i in range(64):
            assert disk.read(8 * i, BLOCK) == data[i * BLOCK:(i + 1) * BLOCK]
        disk.stop()
        bits = log.read(0, log.size)
        for page in range(disk.mem.size // PAGE):
            if bits[page // 8] >> page % 8 & 1:
                copy[page * PAGE:(page + 1) * PAGE] = disk.mem.read(page * PAGE, PAGE)
        disk.check_copy(copy)


# --- lost devices ---

def test_controller_dies_under_load(host, image):
    with host.disk(ORDERED, queues=2) as disk:
        disk.start()
        load = Load(disk)
        for _ in range(4):
            load.wait_for(100)
            host.controller.kill()
            host.start_controller()
            host.wait_state('running', ORDERED)
        load.wait_for(100)
        load.finish(image)


def test_requests_that_the_dead_controller_held_are_done_again(host, image):
    with host.disk(ORDERED) as disk:
        disk.start()
        assert disk.write(0, bytes(512)) == OK
        host.controller.inject('disk', 'hold', sector=8, sectors=8)
        data = [os.urandom(BLOCK) for _ in range(4)]
        heads = [disk.submit(T_OUT, 8 * (i + 1), out=data[i]) for i in range(4)]
        host.controller.wait_in_flight(4, ORDERED)
        host.controller.kill()
        host.start_controller()
        assert [disk.queues[0].take(15.0)[:2] for _ in heads] == [(head, OK) for head in heads]
        for i in range(4):
            assert blk.disk_has(image, 8 * (i + 1), data[i])


def test_requests_that_nobody_knows_are_not_done_again(host):
    """Out of order: the guest has what came back, and may have used its buffer for other data."""
    with host.disk(PLAIN) as disk:
        disk.start()
        host.controller.inject('disk', 'hold', sector=0, sectors=8)
        slow = disk.submit(T_OUT, 0, out=bytes(BLOCK))
        host.controller.wait_in_flight(1)
        fast = disk.submit(T_OUT, 64, out=bytes(BLOCK))
        assert disk.queues[0].take(10.0)[:2] == (fast, OK)
        host.controller.kill()
        host.start_controller()
        info = host.wait(lambda info: 'in flight' in info['last_error'])
        assert not info['configured'] and 'force_in_order' in info['last_error']
        assert disk.queues[0].ring.used_idx() == 1
        assert slow in disk.queues[0].pending

        # the guest resets its disk, and has it again
        disk.stop()
        disk.queues[0].clear()
        disk.start_at({0: 0})
        host.wait_state('running')
        assert disk.write(0, os.urandom(BLOCK)) == OK


def test_disk_without_requests_outlives_its_controller(host, image):
    """It does not complete in order, but had nothing in hand."""
    with host.disk(PLAIN) as disk:
        disk.start()
        host.controller.inject('disk', 'hold', sector=0, sectors=8)
        slow = disk.submit(T_OUT, 0, out=bytes(BLOCK))
        host.controller.wait_in_flight(1)
        fast = disk.submit(T_OUT, 64, out=bytes(BLOCK))
        assert disk.queues[0].take(10.0)[:2] == (fast, OK)
        host.controller.inject('disk', 'none')
        assert disk.queues[0].take(10.0)[:2] == (slow, OK)
        host.controller.kill()
        host.wait_log(host.controller.vf(PLAIN) + ': lost with 0 requests in flight')
        data = os.urandom(BLOCK)
        late = disk.submit(T_OUT, 8, out=data)
        host.start_controller()
        assert disk.queues[0].take(15.0)[:2] == (late, OK)
        assert blk.disk_has(image, 8, data)


@pytest.mark.parametrize('index', [PLAIN, ORDERED])
def test_service_dies_under_load(make_host, image, index):
    """The device is reset by the loss of its driver, and gives back what it has taken."""
    host = make_host()
    mem = Memory(32 << 20)
    disk = host.disk(index, mem=mem)
    disk.start()
    load = Load(disk)
    load.wait_for(100)
    with load.lock:
        host.service.kill()
        disk.close()
        host.service = daemons.Service(host.directory, host.controller.pci_dir, name='second')
        host.service.pf_add(host.controller.PF)
        host.service.vf_add(host.controller.vf(index), host.path(index) + 'b')
        again = Disk(host.path(index) + 'b', mem=mem, like=disk).connect()
        again.arrive({0: disk.queues[0].ring.used_idx()})
        load.disk = again
    load.wait_for(100)
    load.finish(image)
    again.close()
    mem.close()


def test_stop_while_the_back_end_hangs(make_host):
    """Requests that do not come back: the guest gets its answer, the other disks go on."""
    host = make_host(drain=300)
    with host.disk() as disk, host.disk(ORDERED) as other:
        disk.start()
        other.start()
        host.controller.inject('disk', 'hold', sector=0, sectors=8)
        disk.submit(T_OUT, 0, out=bytes(BLOCK))
        host.controller.wait_in_flight(1)
        assert other.write(64, bytes(512)) == OK
        releaser = threading.Timer(0.5, host.controller.inject, ('disk', 'none'))
        releaser.start()
        assert disk.stop() == {0: 1}    # retried until the request was back
        releaser.join()
        assert disk.queues[0].take(0)[1] == OK
        assert other.write(64, bytes(512)) == OK


def test_killed_front_end_leaves_nothing(host):
    baseline = None
    for _ in range(5):
        disk = host.disk()
        disk.start()
        for i in range(8):
            disk.submit(T_OUT, 8 * i, out=bytes(BLOCK))
        host.wait_state('running')
        disk.close()
        host.wait_state('parked')
        baseline = baseline or host.service.stable_fds()
    host.service.settle(baseline)
    host.stop()
