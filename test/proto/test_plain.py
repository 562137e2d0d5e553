# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Plain functions: VFs of the software DPU that the service drives without their PF."""

import contextlib
import os
import struct
import tempfile
import threading
import time

import pytest

from peers import blk, daemons
from peers import vhost_user as vh
from peers.blk import OK, T_IN, T_OUT
from peers.memory import PAGE, Memory, make_frame
from peers.vhost_user import FrontEnd
from test_blk_service import BLOCK, SIZE, WCE_AT, Disk, Load
from test_dirty_service import Source

NET_F_MQ = 1 << 22
F_RING_RESET = 1 << 40


class Plain:
    """Controller and service; no PF is managed."""

    def __init__(self, work, without=0):
        """without: features that the functions do not offer."""
        self.work = tempfile.mkdtemp(prefix='p', dir=work)
        self.controller = daemons.Controller(
            self.work, vf_features=~without & (1 << 64) - 1 if without else None)
        self.service = daemons.Service(self.work, self.controller.pci_dir)
        self.vf = self.controller.vf(0)
        self.path = os.path.join(self.work, 'vhost0')
        self.counted = (0, 0)

    def front_end(self, **kwargs):
        """Of a guest with MQ: without, a device has one pair of queues."""
        return FrontEnd(self.path, features=vh.WANTED_FEATURES | NET_F_MQ, **kwargs).connect_taken()

    def info(self):
        return self.service.vf_info(self.vf)

    def dirty_info(self):
        return self.info()['migration']['dirty']

    def resets(self):
        """Of the device and of single rings, since the last call."""
        info = self.info()
        now = info['device_resets'], info['ring_resets']
        then, self.counted = self.counted, now
        return now[0] - then[0], now[1] - then[1]

    def close(self):
        self.service.stop()
        self.controller.stop()


@contextlib.contextmanager
def plain_rig(work, **kwargs):
    rig = Plain(work, **kwargs)
    try:
        yield rig
    finally:
        rig.close()


@pytest.fixture
def plain(work):
    with plain_rig(work) as rig:
        yield rig


@pytest.fixture
def added(plain):
    plain.service.vf_add(plain.vf, plain.path, plain=True)
    return plain


def test_without_pf_it_is_asked_for(plain):
    with pytest.raises(daemons.Refused, match='no PF is managed.*--plain') as refused:
        plain.service.vf_add(plain.vf, plain.path)
    assert refused.value.errno == 1001
    with pytest.raises(daemons.Refused, match='go with add only'):
        plain.service.manage('vf', info=True, vfdev=plain.vf, plain=True)


def test_info(added):
    info = added.info()
    assert info['drive'] == 'plain' and info['pf'] == '0000:00:00.0'
    listed = added.service.manage('vf', list=True, mgmtpf='0000:00:00.0')['devices']
    assert [d['vf'] for d in listed] == [added.vf]
    with pytest.raises(daemons.Refused, match='no PF'):
        added.service.manage('vf', debug=True, vfdev=added.vf, test_operation=6)


@pytest.mark.parametrize('pairs', [1, 4])
@pytest.mark.parametrize('indirect', [False, True])
def test_packets(added, pairs, indirect):
    with added.front_end(queue_pairs=pairs, indirect=indirect) as front_end:
        front_end.start()
        for pair in range(pairs):
            front_end.echo(20, pair)
        assert added.info()['state'] == 'running'
        assert added.info()['last_error'] == ''
        bases = front_end.stop()
    for pair in range(pairs):
        assert bases[2 * pair + 1] == 20
        assert bases[2 * pair] == 20


def test_pairs_come_and_go_while_running(added):
    """Told by the control queue: no restart, which would need rings that begin at 0."""
    with added.front_end(queue_pairs=2) as front_end:
        front_end.start()
        front_end.echo(3, 0)
        front_end.echo(3, 1)
        for on in (0, 1) * 3:
            for index in (2, 3):
                front_end.tell(vh.SET_VRING_ENABLE, struct.pack('=II', index, on))
            front_end.echo(3, 0)
        front_end.echo(3, 1)
        assert added.info()['last_error'] == ''


def test_guest_reboot(added):
    with added.front_end() as guest:
        guest.start()
        for _ in range(3):
            guest.echo(5)
            guest.stop()
            guest.reboot()
        guest.echo(5)


def test_new_guests(added):
    for _ in range(3):
        with added.front_end() as guest:
            guest.start()
            guest.echo(5)
            guest.stop()


def test_add_and_remove(plain):
    before = None
    for _ in range(3):
        plain.service.vf_add(plain.vf, plain.path, plain=True)
        with plain.front_end() as guest:
            guest.start()
            guest.echo()
        plain.service.vf_remove(plain.vf)
        # the first front end has librte_vhost open what it keeps
        if before is None:
            before = plain.service.stable_fds()
    plain.service.settle(before)


# rings in the middle: relayed


def test_stop_and_continue(added):
    with added.front_end() as guest:
        guest.start()
        guest.echo(10)
        bases = guest.stop()
        for _ in range(3):
            guest.start_at(bases)
            guest.echo(10)
            queues = added.info()['queues']
            assert queues[0]['shadow'] and queues[1]['shadow']
            assert not queues[0]['host_notifier'] and not queues[1]['host_notifier']
            bases = guest.stop()
        assert bases[0] == bases[1] == 40
        assert added.info()['queues'][1]['relayed_chains'] == 30


@pytest.mark.parametrize('indirect', [False, True])
def test_reconnect_with_the_same_memory(added, indirect):
    with Memory(8 << 20) as memory:
        pairs = None
        for round_ in range(3):
            with added.front_end(mem=memory, indirect=indirect) as guest:
                if pairs:
                    guest.pairs = pairs
                guest.start(base=200 * round_)
                guest.echo(200)
                pairs = guest.pairs
                guest.stop()
        assert pairs[0].tx.used_idx() == 600


def test_relayed_guest_reboots_and_is_direct_again(added):
    with added.front_end() as guest:
        guest.start()
        guest.echo(5)
        bases = guest.stop()
        for again in (bases, {0: 0, 1: 0}):
            if again is not bases:
                for pair in guest.pairs:
                    pair.reset()
            guest.start_at(again)
            guest.echo(5)
            assert added.info()['queues'][0]['shadow'] is (again is bases)
            guest.stop()


def test_controller_restart(added):
    """The device is gone and comes back with a guest in the middle of its rings."""
    with added.front_end() as guest:
        guest.start()
        guest.echo(7)
        added.controller.kill()
        added.controller = daemons.Controller(added.work)
        deadline = time.monotonic() + 20 * daemons.SLOW
        # it has been started anew where the rings are in their middle
        while not added.info()['queues'][0]['shadow']:
            assert time.monotonic() < deadline, added.info()
            time.sleep(0.01)
        for index, _ in guest.rings():
            guest.kick(index)
        guest.echo(7)


# single rings, while others go on


def start_ring(front_end, index, base):
    """After get_base(), as the driver of a guest does that resets one queue."""
    front_end.set_vring(index, dict(front_end.rings())[index], base)
    front_end.kick(index)


def works_again(front_end, pair):
    """A frame that comes for a ring which the device does not have yet is lost."""
    deadline = time.monotonic() + 20 * daemons.SLOW
    got, last = None, None
    while last is None or got != last:
        assert time.monotonic() < deadline
        if got is None:
            last = make_frame(60)
            front_end.send_frame(last, pair)
        got = front_end.receive_frame(0.2 * daemons.SLOW, pair)


class Traffic(threading.Thread):
    """Packets of one pair, one after the other, in the background."""

    def __init__(self, front_end, pair):
        super().__init__(daemon=True)
        self.front_end, self.pair = front_end, pair
        self.count = 0
        self.quit = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.quit.is_set():
                self.front_end.echo(1, self.pair, timeout=20 * daemons.SLOW)
                self.count += 1
        except BaseException as error:  # pylint: disable=broad-except
            self.failure = error

    def more(self, count):
        goal = self.count + count
        deadline = time.monotonic() + 20 * daemons.SLOW
        while self.count < goal:
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, (self.count, goal)
            time.sleep(0.001)

    def end(self):
        self.quit.set()
        self.join(30 * daemons.SLOW)
        assert self.failure is None, self.failure
        assert not self.is_alive()


def check_single_rings(rig, resets):
    """Rings of the second pair stop and start; each packet of both comes back once."""
    with rig.front_end(queue_pairs=2) as guest:
        guest.start()
        guest.echo(5, 1)
        rig.resets()
        traffic = Traffic(guest, 0)
        for index in (3, 2, 3):
            traffic.more(20)
            base = guest.get_base(index)
            assert base == dict(guest.rings())[index].used_idx()
            traffic.more(20)
            start_ring(guest, index, base)
            works_again(guest, 1)
            guest.echo(10, 1)
        queues = rig.info()['queues']
        assert queues[2]['shadow'] and queues[3]['shadow']
        assert rig.resets() == resets
        traffic.end()
        assert guest.pairs[0].receive(0) is None and guest.pairs[1].receive(0) is None
        assert rig.info()['last_error'] == ''
        return queues


def test_ring_of_a_pair_is_reset_alone(added):
    queues = check_single_rings(added, (0, 3))
    assert [queue['start_index'] for queue in queues[:2]] == [0, 0]
    assert not queues[0]['shadow'] and not queues[1]['shadow']


def test_device_without_ring_reset(work):
    """All rings stop for one, and go on; so does the log of a migration."""
    with plain_rig(work, without=F_RING_RESET) as rig:
        rig.service.vf_add(rig.vf, rig.path, plain=True)
        assert '   40' not in rig.info()['device_feature']
        check_single_rings(rig, (6, 0))
        source = PlainSource(rig)
        try:
            source.start()
            rig.resets()
            source.begin_traffic()
            source.begin()
            assert rig.resets() == (1, 0)
            source.stop()
        finally:
            source.close()


# disks


class PlainDisk:
    """A disk of the software DPU, and a service that drives it without its PF."""

    def __init__(self, directory):
        self.work = directory
        self.image = blk.make_image(os.path.join(directory, 'disk.img'), SIZE)
        self.start_controller()
        self.service = daemons.Service(directory, self.controller.pci_dir)
        self.vf = self.controller.vf(0)
        self.path = os.path.join(directory, 'vhost0')
        self.service.vf_add(self.vf, self.path, plain=True)
        self.counted = (0, 0)

    resets = Plain.resets

    def start_controller(self):
        self.controller = blk.BlkController(
            self.work, [blk.file_bdev('disk', self.image)], ['disk'], pf_bdev='disk',
            vfs=1, vf_extra={0: {'force_in_order': True}}, extra={'workers': 2})

    def disk(self, **kwargs):
        disk = Disk(self.path, **kwargs).connect()
        disk.wanted &= ~(1 << vh.F_LOG_ALL)     # not from the beginning
        return disk

    def info(self):
        return self.service.vf_info(self.vf)

    def wait(self, what):
        return self.service.vf_wait(self.vf, what)

    def close(self):
        self.service.stop()
        self.controller.stop()


@pytest.fixture
def plain_disk(work):
    rig = PlainDisk(tempfile.mkdtemp(prefix='q', dir=work))
    try:
        yield rig
    finally:
        rig.close()


def test_disk(plain_disk):
    info = plain_disk.info()
    assert info['drive'] == 'plain' and info['type'] == 'blk' and info['capacity'] == SIZE
    with plain_disk.disk(queues=4) as disk:
        disk.start()
        assert disk.max_pairs == 4
        for queue in range(4):
            data = os.urandom(BLOCK)
            assert disk.request(T_OUT, 8 * queue, out=data, queue=queue)[0] == OK
            assert disk.request(T_IN, 8 * queue, in_len=BLOCK, queue=3 - queue)[1] == data
            assert blk.disk_has(plain_disk.image, 8 * queue, data)
        assert disk.stop() == {queue: 2 for queue in range(4)}


def test_configuration_of_a_disk(plain_disk):
    with plain_disk.disk() as disk:
        disk.start()
        plain_disk.wait(lambda info: info['state'] == 'running')
        assert struct.unpack('<Q', disk.get_config(0, 8))[0] * 512 == SIZE
        assert disk.set_config(0, bytes(8)) != 0
        for value in (0, 1, 0):
            assert disk.set_config(WCE_AT, bytes([value])) == 0
            assert disk.get_config(WCE_AT, 1) == bytes([value])
            plain_disk.wait(
                lambda info, v=value: plain_disk.controller.ctrl()['writeback'] is bool(v))
        # a reset takes it from the device, so it is told again
        disk.start_at(disk.stop())
        plain_disk.wait(lambda info: info['state'] == 'running')
        assert plain_disk.controller.ctrl()['writeback'] is False
        assert disk.request(T_OUT, 0, out=bytes(BLOCK))[0] == OK


def test_disk_stops_and_goes_on_under_load(plain_disk):
    with plain_disk.disk(queues=2) as disk:
        disk.start()
        load = Load(disk)
        for _ in range(5):
            load.wait_for(50)
            with load.lock:
                bases = disk.stop()
                assert bases == disk.used_bases()
                disk.start_at(bases)
        load.wait_for(50)
        assert all(queue['shadow'] for queue in plain_disk.info()['queues'][:2])
        load.finish(plain_disk.image)


def test_ring_of_a_disk_is_reset_alone_under_load(plain_disk):
    """What it had is answered once, and the other ring goes on."""
    with plain_disk.disk(queues=2) as disk:
        disk.start()
        load = Load(disk)
        load.wait_for(50)
        plain_disk.resets()
        for index in (1, 0) * 3:
            with load.lock:
                base = disk.get_base(index)
                assert base == disk.queues[index].ring.used_idx()
                start_ring(disk, index, base)
            load.wait_for(50)
        assert plain_disk.resets() == (0, 6)
        assert all(queue['shadow'] for queue in plain_disk.info()['queues'][:2])
        load.finish(plain_disk.image)


def test_controller_of_a_disk_dies_under_load(plain_disk):
    with plain_disk.disk(queues=2) as disk:
        disk.start()
        load = Load(disk)
        for _ in range(2):
            load.wait_for(100)
            plain_disk.controller.kill()
            plain_disk.start_controller()
            plain_disk.wait(lambda info: info['state'] == 'running')
        load.wait_for(100)
        load.finish(plain_disk.image)


# migration: relayed rings log what the device writes


class PlainSource(Source):
    """The front end of a guest on a plain function that is being migrated."""

    def __init__(self, rig, **kwargs):
        super().__init__(rig)
        self.front_end.close()
        self.front_end = rig.front_end(queue_pairs=2, mem_size=8 << 20, **kwargs)

    def begin(self):
        super().begin()
        # the log is complete before the device runs again
        info = self.rig.service.vf_wait(self.rig.vf, lambda info: info['state'] == 'running')
        assert info['migration']['dirty']['mode'] == 'relay'
        assert all(queue['shadow'] for queue in info['queues'][:4])

    def all_pages(self):
        return (self.mem.end - self.mem.base) // PAGE


@pytest.fixture
def source(added):
    sources = []

    def make(**kwargs):
        sources.append(PlainSource(added, **kwargs))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


@pytest.mark.parametrize('indirect', [False, True])
def test_pages_that_packets_fill_are_in_the_log(source, indirect):
    guest = source(indirect=indirect)
    guest.start()
    guest.begin()
    guest.begin_traffic()
    for _ in range(4):
        time.sleep(0.05)
        guest.sync()
    guest.stop()
    assert 0 < len(guest.named) < guest.all_pages() // 2
    assert guest.rig.dirty_info()['marked_all'] == 0


def test_logging_comes_and_goes_under_traffic(source):
    """Each packet comes back, in order, and none of them twice."""
    guest = source()
    guest.start()
    guest.rig.resets()
    guest.begin_traffic()
    for _ in range(5):
        guest.begin()
        time.sleep(0.05)
        guest.set_logging(False)
        time.sleep(0.02)
    guest.begin()
    time.sleep(0.05)
    # the first time all of them; then they stand where no device begins, and stay
    assert guest.rig.resets() == (0, 4)
    guest.stop()
    assert guest.rig.resets() == (1, 0)
    assert guest.front_end.pairs[0].receive(0) is None
    assert guest.front_end.pairs[1].receive(0) is None


def test_guest_moves_between_plain_functions(plain):
    """There and back, with the rings where they are."""
    vfs = [plain.controller.vf(i) for i in range(2)]
    paths = [plain.path + str(i) for i in range(2)]
    for vf, path in zip(vfs, paths):
        plain.service.vf_add(vf, path, plain=True)
    with Memory(8 << 20) as memory:
        pairs, bases = None, None
        for hop in range(4):
            plain.vf, plain.path = vfs[hop % 2], paths[hop % 2]
            guest = PlainSource(plain, mem=memory)
            try:
                if pairs:
                    guest.front_end.pairs = pairs
                    guest.front_end.negotiate()
                    guest.front_end.set_mem_table()
                    guest.resume()
                else:
                    guest.start()
                guest.begin_traffic()
                time.sleep(0.03)
                guest.begin()
                time.sleep(0.03)
                guest.sync()
                guest.stop()
                pairs = guest.front_end.pairs
                bases = guest.front_end.used_bases()
            finally:
                guest.close()
        assert bases[0] == bases[1] > 0


def log_of(disk, on, log):
    if on:
        disk.set_log(log)
    disk.set_logging(on)


@pytest.mark.parametrize('indirect', [False, True])
def test_pages_that_a_disk_fills_are_in_the_log(plain_disk, indirect):
    data = os.urandom(64 * BLOCK)
    with open(plain_disk.image, 'r+b') as file:
        os.pwrite(file.fileno(), data, 0)
    with plain_disk.disk() as disk, Memory(1 << 16, name='log', seal=True) as log:
        disk.start()
        log_of(disk, True, log)
        plain_disk.wait(lambda info: info['migration']['dirty']['mode'] == 'relay')
        log.write(0, bytes(log.size))       # as a front end that has read it
        copy = bytearray(disk.mem.read(0, disk.mem.size))
        for i in range(64):
            # pieces that begin and end within pages
            status, got = disk.request(T_IN, 8 * i, in_len=BLOCK, split=1536, indirect=indirect)
            assert status == OK and got == data[i * BLOCK:(i + 1) * BLOCK]
        assert disk.request(T_IN, 2 * SIZE // 512, in_len=BLOCK)[0] != OK
        disk.stop()
        assert plain_disk.info()['migration']['dirty']['marked_all'] == 0
        bits = log.read(0, log.size)
        marked = [page for page in range(disk.mem.size // PAGE) if bits[page // 8] >> page % 8 & 1]
        assert len(marked) < disk.mem.size // PAGE // 8
        for page in marked:
            copy[page * PAGE:(page + 1) * PAGE] = disk.mem.read(page * PAGE, PAGE)
        disk.check_copy(copy)


def test_logging_comes_and_goes_under_load(plain_disk):
    """Each request is answered once, and is on the disk."""
    with plain_disk.disk(queues=2) as disk, Memory(1 << 16, name='log', seal=True) as log:
        disk.start()
        load = Load(disk)
        load.wait_for(50)
        plain_disk.resets()
        for on in (True, False) * 4:
            with load.lock:     # the socket is the test's then
                log_of(disk, on, log)
            load.wait_for(50)
        assert plain_disk.resets() == (0, 2)
        with load.lock:
            log_of(disk, True, log)
        load.wait_for(50)
        with load.lock:
            bases = disk.stop()
            assert bases == disk.used_bases()
            disk.start_at(bases)
        load.wait_for(50)
        load.finish(plain_disk.image)
