# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Block functions of the software DPU as an honest driver sees them: requests, disks, resets."""

import os
import struct
import tempfile
import time

import pytest

from peers import SLOW, admin, blk, daemons, virtio
from peers.blk import IOERR, OK, SECTOR, T_DISCARD, T_FLUSH, T_IN, T_OUT, T_WRITE_ZEROES, UNSUPP
from peers.memory import AVAIL_F_NO_INTERRUPT

SIZE = 8 << 20

# VF of each disk
MEMORY, URING, THREADS, BUFFERED, NULL, RO, ORDERED, SHARED = range(8)
WRITABLE = (MEMORY, URING, THREADS, BUFFERED, ORDERED)
FILES = (URING, THREADS, BUFFERED)
NAMES = ('memory', 'uring', 'threads', 'buffered', 'null', 'ro', 'ordered', 'uring')


class BlkRig:
    """A controller with a disk of every kind."""

    def __init__(self, work, polling=False):
        self.work = tempfile.mkdtemp(prefix='b', dir=work)
        bdevs = [{'name': 'memory', 'type': 'memory', 'size_mib': SIZE >> 20},
                 {'name': 'null', 'type': 'null', 'size_mib': 1024},
                 {'name': 'ordered', 'type': 'memory', 'size_mib': SIZE >> 20},
                 blk.file_bdev('ro', blk.make_image(self.path('ro'), SIZE, os.urandom(65536)),
                               read_only=True)]
        for name, options in (('uring', {'io': 'io_uring'}), ('threads', {'io': 'threads'}),
                              ('buffered', {'buffered': True, 'io': 'auto'})):
            bdevs.append(blk.file_bdev(name, blk.make_image(self.path(name), SIZE), **options))
        self.daemon = blk.BlkController(
            self.work, bdevs, NAMES, pf_bdev='null', vfs=9,
            vf_extra={ORDERED: {'force_in_order': True}}, polling=polling,
            extra={'drain_timeout_ms': 300, 'workers': 2, 'queue_size': 1024})
        self.baseline = self.daemon.stable_fds()

    def path(self, name):
        return os.path.join(self.work, f'{name}.img')

    def check(self):
        self.daemon.check()
        with self.daemon.blk(MEMORY) as witness:
            witness.start()
            data = os.urandom(4096)
            assert witness.write(100, data) == OK
            assert witness.read(100, 4096) == data
        self.daemon.settle(self.baseline)


@pytest.fixture(scope='module', params=['events', 'polling'])
def rig(work, request):
    rig = BlkRig(work, request.param == 'polling')
    yield rig
    rig.daemon.stop()


@pytest.fixture
def dpu(rig):
    yield rig.daemon
    for name in set(NAMES):
        rig.daemon.inject(name, 'none')
    rig.check()


@pytest.fixture(params=WRITABLE, ids=[NAMES[i] for i in WRITABLE])
def disk(request, dpu):
    """A started driver on each kind of writable disk."""
    with dpu.blk(request.param) as driver:
        driver.name = NAMES[request.param]
        driver.start()
        yield driver


@pytest.fixture(params=FILES, ids=[NAMES[i] for i in FILES])
def file(request, rig, dpu):
    """The same for files, which the test may look at."""
    with dpu.blk(request.param) as driver:
        driver.name = NAMES[request.param]
        driver.path = rig.path(driver.name)
        driver.start()
        yield driver


@pytest.fixture
def mem_disk(dpu):
    with dpu.blk(MEMORY) as driver:
        driver.start()
        yield driver


# identity


def test_identity(dpu):
    with dpu.blk(MEMORY) as vf, dpu.admin() as pf:
        for function in (vf, pf):
            assert (function.vendor, function.device) == (0x1af4, 0x1042)
            assert function.config(0x8, 4)[3] == 1, 'not a mass storage controller'
            assert function.config(0x8, 1)[0] >= 1
        assert pf.sriov['vf_device'] == 0x1042 and pf.sriov['num_vfs'] == 9 and not vf.sriov
        rid = daemons.bdf_rid(dpu.PF)
        for i in range(8):
            assert rid + pf.sriov['first'] + i * pf.sriov['stride'] == daemons.bdf_rid(dpu.vf(i))


def test_offered_features(dpu):
    expected = {blk.F_SIZE_MAX, blk.F_SEG_MAX, blk.F_BLK_SIZE, blk.F_FLUSH, blk.F_TOPOLOGY,
                blk.F_CONFIG_WCE, blk.F_MQ, blk.F_DISCARD, blk.F_WRITE_ZEROES,
                virtio.F_INDIRECT, virtio.F_EVENT_IDX, virtio.F_VERSION_1,
                virtio.F_ACCESS_PLATFORM, virtio.F_RING_RESET}
    with dpu.blk(MEMORY) as vf, dpu.blk(RO) as ro, dpu.admin() as pf:
        assert {b for b in range(64) if vf.offered() >> b & 1} == expected
        assert {b for b in range(64) if ro.offered() >> b & 1} == expected | {blk.F_RO}
        assert pf.offered() >> admin.F_ADMIN_VQ & 1 and pf.offered() >> admin.F_MIGRATION & 1


def test_device_config(dpu):
    with dpu.blk(URING) as vf:
        config = vf.blk_config()
        assert config['capacity'] == SIZE // SECTOR
        assert config['seg_max'] >= 1 and config['size_max'] >= 4096
        assert config['blk_size'] == SECTOR and config['num_queues'] == 4
        assert config['writeback'] == 1
        for field in ('max_discard_sectors', 'max_discard_seg', 'max_write_zeroes_sectors',
                      'max_write_zeroes_seg', 'discard_sector_alignment'):
            assert config[field] >= 1
        assert vf.get('num_queues') == 4
        assert vf.client.irq_info(2)[3] >= 5


def test_function_without_a_controller_has_no_socket(dpu):
    assert not os.path.exists(dpu.vf_socket(8))


# data


@pytest.mark.parametrize('length', [512, 4096, 65536])
@pytest.mark.parametrize('indirect', [False, True])
def test_read_what_was_written(disk, length, indirect):
    for sector in (0, 1, 7, 1000, disk.capacity - length // SECTOR):
        data = os.urandom(length)
        assert disk.write(sector, data, indirect=indirect) == OK
        assert disk.read(sector, length, indirect=indirect) == data


@pytest.mark.parametrize('split', [1, 100, 512, 4096])
def test_data_in_many_pieces(disk, split):
    """Pieces that direct I/O cannot take, and more than fit the request's own table."""
    data = os.urandom(512 if split == 1 else 4096)
    big = split == 1
    with_table = {'indirect': not big, 'split': split}
    if big:
        disk.start(size=1024)
        with_table['indirect'] = False
    assert disk.write(64, data, **with_table) == OK
    assert disk.read(64, len(data), **with_table) == data


def test_file_has_what_was_written(file):
    expected = bytearray(SIZE)
    with open(file.path, 'rb') as image:
        expected[:] = image.read()
    for i in range(40):
        sector, data = i * 131 % (SIZE // SECTOR - 16), os.urandom(512 * (1 + i % 16))
        assert file.write(sector, data) == OK
        expected[sector * SECTOR:sector * SECTOR + len(data)] = data
    assert file.flush() == OK
    with open(file.path, 'rb') as image:
        assert image.read() == expected


def test_reads_see_what_others_write_to_the_file(file):
    with open(file.path, 'r+b') as image:
        for i in range(5):
            data = os.urandom(8192)
            os.pwrite(image.fileno(), data, 1 << 20)
            os.fsync(image.fileno())
            assert file.read(2048, 8192) == data


def test_two_functions_share_a_file(dpu):
    with dpu.blk(URING) as one, dpu.blk(SHARED) as two:
        one.start()
        two.start()
        for i in range(10):
            data = os.urandom(4096)
            assert one.write(8 * i, data) == OK
            assert two.read(8 * i, 4096) == data
            assert two.write(8 * i, data[::-1]) == OK
            assert one.read(8 * i, 4096) == data[::-1]


def test_null_takes_everything(dpu):
    with dpu.blk(NULL) as vf:
        vf.start()
        assert vf.capacity == (1 << 30) // SECTOR
        assert vf.write(0, os.urandom(4096)) == OK
        assert len(vf.read(vf.capacity - 8, 4096)) == 4096
        assert vf.flush() == OK and vf.ranges(T_DISCARD, (0, 8, 0)) == OK


def test_empty_transfer(disk):
    assert disk.request(T_OUT, 5)[0] == OK
    assert disk.request(T_IN, 5)[0] == OK


def test_get_id(disk):
    name = f'disk-{NAMES.index(disk.name)}'.encode()
    assert disk.get_id() == name.ljust(20, b'\0')
    assert disk.get_id(4) == name[:4]
    assert disk.get_id(64)[:20] == name.ljust(20, b'\0')
    assert disk.request(blk.T_GET_ID, in_len=20, split=3)[1] == name.ljust(20, b'\0')


def test_unknown_types_are_unsupported(disk):
    for kind in (2, 3, 5, 7, 9, 10, 12, 14, 16, 99, 0x80000000, 0xffffffff):
        assert disk.request(kind, in_len=512)[0] == UNSUPP
    assert disk.flush() == OK


# cache


def test_flush_reaches_the_file(dpu, file):
    before = dpu.bdev(file.name)['syncs']
    assert file.write(0, os.urandom(4096)) == OK
    assert dpu.bdev(file.name)['syncs'] == before
    for i in range(3):
        assert file.flush() == OK
    assert dpu.bdev(file.name)['syncs'] == before + 3


def test_write_cache_is_the_driver_s(dpu, file):
    index = NAMES.index(file.name)
    assert file.blk_config()['writeback'] == 1
    file.set_writeback(0)
    assert file.blk_config()['writeback'] == 0
    assert dpu.ctrl(index)['writeback'] is False
    data = os.urandom(4096)
    assert file.write(16, data) == OK
    before = dpu.bdev(file.name)['syncs']
    assert file.ranges(T_WRITE_ZEROES, (16, 8, 0)) == OK
    assert dpu.bdev(file.name)['syncs'] == before + 1
    file.set_writeback(7)
    assert file.blk_config()['writeback'] == 1
    file.set_writeback(0)
    file.reset()
    assert file.blk_config()['writeback'] == 1, 'a reset brings the default back'


def test_write_cache_without_the_feature_is_read_only(mem_disk):
    mem_disk.start(wanted=blk.WANTED & ~(1 << blk.F_CONFIG_WCE))
    mem_disk.set_writeback(0)
    assert mem_disk.blk_config()['writeback'] == 1


def test_the_rest_of_the_configuration_is_read_only(mem_disk):
    bar, base, _ = mem_disk.caps[4]
    before = mem_disk.device_config()
    for at in (0, 8, 24, 34, 36, 56, 68):
        mem_disk.client.write(bar, base + at, b'\xff')
    mem_disk.client.write(bar, base + 31, b'\0\0')
    assert mem_disk.device_config() == before


# discard and write zeroes


def test_write_zeroes(disk):
    data = os.urandom(65536)
    for flags in (0, 1):
        assert disk.write(0, data) == OK
        assert disk.ranges(T_WRITE_ZEROES, (3, 1, flags), (8, 64, flags), (127, 1, flags)) == OK
        expected = bytearray(data)
        for sector, n in ((3, 1), (8, 64), (127, 1)):
            expected[sector * SECTOR:(sector + n) * SECTOR] = bytes(n * SECTOR)
        assert disk.read(0, 65536) == expected


def test_discard_gives_back_space(file):
    for at in range(0, 2048, 128):
        assert file.write(at, os.urandom(65536)) == OK
    assert file.flush() == OK
    full = os.stat(file.path).st_blocks
    assert file.ranges(T_DISCARD, (0, 1024, 0), (1024, 1024, 0)) == OK
    assert os.stat(file.path).st_blocks <= full - 2000
    assert os.stat(file.path).st_size == SIZE
    assert file.read(0, 4096) == bytes(4096)


def test_write_zeroes_that_unmap_give_back_space(file):
    assert file.write(0, os.urandom(65536)) == OK
    assert file.flush() == OK
    full = os.stat(file.path).st_blocks
    assert file.ranges(T_WRITE_ZEROES, (0, 128, 0)) == OK
    assert os.stat(file.path).st_blocks == full
    assert file.ranges(T_WRITE_ZEROES, (0, 128, 1)) == OK
    assert os.stat(file.path).st_blocks < full


@pytest.mark.parametrize('kind', [T_DISCARD, T_WRITE_ZEROES])
def test_ranges_are_checked(disk, kind):
    limit = disk.blk_config()['max_discard_seg']
    sectors = disk.blk_config()['max_discard_sectors']
    last = disk.capacity
    for ranges in ([(last, 1, 0)], [(last - 1, 2, 0)], [(2 ** 64 - 1, 1, 0)], [(0, 0, 0)],
                   [(2 ** 63, 8, 0)], [(0, sectors + 1, 0)], [(0, 0xffffffff, 0)],
                   [(0, 8, 0), (last, 8, 0)], [(0, 1, 0)] * (limit + 1), []):
        assert disk.ranges(kind, *ranges) == IOERR, ranges
    assert disk.ranges(kind, (0, 8, 2)) == UNSUPP
    assert disk.ranges(kind, (0, 8, 1)) == (UNSUPP if kind == T_DISCARD else OK)
    assert disk.request(kind, out=bytes(15))[0] == IOERR
    assert disk.request(kind, out=bytes(17))[0] == IOERR
    assert disk.ranges(kind, *[(i, 1, 0) for i in range(limit)]) == OK


# limits


def test_transfers_are_checked_against_the_capacity(disk):
    last = disk.capacity
    for sector, length in ((last, 512), (last - 1, 1024), (2 ** 64 - 1, 512), (2 ** 55, 512),
                           (2 ** 55 - 1, 1024), (2 ** 63, 4096), (0, 511), (0, 513), (0, 1)):
        assert disk.request(T_IN, sector, in_len=length)[0] == IOERR, (sector, length)
        assert disk.request(T_OUT, sector, out=bytes(length))[0] == IOERR, (sector, length)
    assert disk.request(T_IN, last - 1, in_len=512)[0] == OK


def test_read_only_refuses_to_change(rig, dpu):
    with dpu.blk(RO) as vf, open(rig.path('ro'), 'rb') as image:
        vf.start(wanted=blk.WANTED | 1 << blk.F_RO)
        assert vf.features >> blk.F_RO & 1
        assert vf.read(0, 4096) == image.read(4096)
        assert vf.write(0, bytes(4096)) == IOERR
        assert vf.ranges(T_DISCARD, (0, 8, 0)) == IOERR
        assert vf.ranges(T_WRITE_ZEROES, (0, 8, 0)) == IOERR
        assert vf.flush() == OK
        vf.start()
        assert vf.write(0, bytes(4096)) == IOERR, 'also for a driver that does not know'
        image.seek(0)
        assert vf.read(0, 4096) == image.read(4096)


def test_error_of_the_back_end_is_of_one_request(dpu, disk):
    dpu.inject(disk.name, 'fail', sector=100, sectors=8)
    assert disk.write(92, bytes(4096)) == OK
    assert disk.write(93, bytes(4096)) == IOERR
    assert disk.request(T_IN, 107, in_len=512)[0] == IOERR
    assert disk.request(T_IN, 108, in_len=512)[0] == OK
    dpu.inject(disk.name, 'fail', every=3, op='write')
    assert [disk.write(0, bytes(512)) for _ in range(6)] == [IOERR, OK, OK] * 2
    assert disk.flush() == OK
    dpu.inject(disk.name, 'fail', op='flush')
    assert disk.flush() == IOERR
    dpu.inject(disk.name, 'none')
    assert disk.write(93, bytes(4096)) == OK
    index = NAMES.index(disk.name)
    assert dpu.ctrl(index)['queues'][0]['errors'] == 5


def test_file_that_has_shrunk(rig, dpu, file):
    """Reads behind its end fail; the rest goes on."""
    try:
        assert file.write(0, b'x' * 4096) == OK
        os.truncate(file.path, SIZE // 2)
        assert file.request(T_IN, SIZE // SECTOR - 8, in_len=4096)[0] == IOERR
        assert file.read(0, 4096) == b'x' * 4096
    finally:
        os.truncate(file.path, SIZE)


# queues


def test_many_queues(dpu, disk):
    disk.start(queues=4)
    for i in range(4):
        for n in range(10):
            assert disk.write(1000 * i + 8 * n, blk.pattern(4096, 16 * i + n), queue=i) == OK
    for i in range(4):
        for n in range(10):
            data = disk.read(1000 * i + 8 * n, 4096, queue=3 - i)
            assert data == blk.pattern(4096, 16 * i + n)
    counts = [q['reads'] for q in dpu.ctrl(NAMES.index(disk.name))['queues'][:4]]
    assert counts == [10] * 4


def test_second_queue_without_mq_does_not_start(mem_disk):
    mem_disk.start(queues=2, wanted=blk.WANTED)
    mem_disk.reset()
    mem_disk.begin(blk.WANTED)
    for i in (0, 1):
        mem_disk.queues[i].clear()
        mem_disk.setup_queue(i, mem_disk.queues[i].ring)
    mem_disk.driver_ok()
    assert mem_disk.get('device_status') & virtio.S_NEEDS_RESET


def test_a_full_ring_at_once(disk):
    """Batches of all slots, round and round; heads come back in any order."""
    for turn in range(20):
        heads = {disk.submit(T_OUT, 16 * i, out=blk.pattern(512 * (i % 8 + 1), i + turn),
                             kick=False): i for i in range(32)}
        disk.notify(0)
        for _ in range(32):
            head, status, _ = disk.queues[0].take()
            assert status == OK
            heads.pop(head)
        assert not heads
        for i in (0, 13, 31):
            data = blk.pattern(512 * (i % 8 + 1), i + turn)
            assert disk.read(16 * i, len(data)) == data


@pytest.mark.parametrize('event_idx', [False, True])
def test_interrupts(disk, event_idx):
    disk.start(vectors=True, event_idx=event_idx)
    ring = disk.queues[0].ring
    for i in range(70):
        if event_idx:
            disk.mem.set_u16(ring.avail + 4 + 2 * ring.size, ring.used_idx())
        disk.interrupts(1)
        assert disk.write(i, bytes(512)) == OK
        assert disk.wait_interrupt(1), f'no interrupt for request {i}'
    if event_idx:
        disk.mem.set_u16(ring.avail + 4 + 2 * ring.size, ring.used_idx() + 5)
    else:
        disk.mem.set_u16(ring.avail, AVAIL_F_NO_INTERRUPT)
    disk.interrupts(1)
    for i in range(5):
        assert disk.write(i, bytes(512)) == OK
    time.sleep(0.05)
    assert disk.interrupts(1) == 0
    if event_idx:
        assert disk.write(9, bytes(512)) == OK
        assert disk.wait_interrupt(1)


def test_out_of_order(dpu, disk):
    if disk.name == 'ordered':
        pytest.skip('has a test of its own')
    dpu.inject(disk.name, 'hold', sector=0, sectors=8)
    held = disk.submit(T_OUT, 0, out=b'h' * 4096)
    others = [disk.submit(T_OUT, 64 + 8 * i, out=bytes(4096)) for i in range(5)]
    assert {disk.queues[0].take()[0] for _ in others} == set(others)
    assert disk.queues[0].take(0.05) is None
    dpu.inject(disk.name, 'none')
    assert disk.queues[0].take()[:2] == (held, OK)
    assert disk.read(0, 4096) == b'h' * 4096


def test_force_in_order(dpu):
    with dpu.blk(ORDERED) as vf:
        vf.start()
        assert dpu.ctrl(ORDERED)['force_in_order'] is True
        dpu.inject('ordered', 'hold', sector=0, sectors=8)
        heads = [vf.submit(T_OUT, 64 * i, out=bytes(4096)) for i in (1, 2, 0, 3, 4)]
        assert [vf.queues[0].take()[0] for _ in range(2)] == heads[:2]
        assert vf.queues[0].take(0.1) is None
        dpu.inject('ordered', 'none')
        assert [vf.queues[0].take()[0] for _ in range(3)] == heads[2:]


def test_queue_reset_waits_for_its_requests(dpu, disk):
    disk.start(queues=2)
    dpu.inject(disk.name, 'hold')
    head = disk.submit(T_OUT, 0, out=bytes(4096))
    dpu.wait_in_flight(1, NAMES.index(disk.name))
    disk.put('queue_select', 0)
    disk.put('queue_reset', 1)
    assert disk.get('queue_reset') == 1, 'a request is still in flight'
    dpu.inject(disk.name, 'none')
    deadline = time.monotonic() + 5 * SLOW
    while disk.get('queue_reset') or disk.get('queue_enable'):
        assert time.monotonic() < deadline
    assert disk.queues[0].take()[0] == head, 'given back before the queue was reset'
    assert disk.write(0, bytes(512), queue=1) == OK
    disk.queues[0].clear()
    disk.setup_queue(0, disk.queues[0].ring)
    assert disk.write(0, bytes(512)) == OK


def test_device_reset_waits_for_its_requests(dpu, disk):
    dpu.inject(disk.name, 'hold')
    disk.submit(T_OUT, 0, out=b'r' * 4096)
    dpu.wait_in_flight(1, NAMES.index(disk.name))
    start = time.monotonic()
    disk.put('device_status', 0)
    assert disk.get('device_status') != 0
    assert time.monotonic() - start < 0.5 * SLOW, 'nobody waits in the control thread'
    dpu.inject(disk.name, 'none')
    disk.reset()
    disk.start()
    assert disk.read(0, 4096) == b'r' * 4096


# size


def test_resize_is_told(rig, dpu):
    with dpu.blk(URING) as vf, dpu.blk(SHARED) as other:
        vf.start(vectors=True)
        other.start(vectors=True)
        generation = vf.get('config_generation')
        try:
            os.truncate(rig.path('uring'), 2 * SIZE)
            assert vf.request(T_IN, SIZE // SECTOR, in_len=512)[0] == IOERR
            vf.interrupts(0)
            assert dpu.rpc('bdev_aio_rescan', {'name': 'uring'}) is True
            for driver in (vf, other):
                assert driver.wait_interrupt(0)
                assert driver.capacity == 2 * SIZE // SECTOR
            assert vf.get('config_generation') != generation
            assert vf.write(2 * SIZE // SECTOR - 8, b'n' * 4096) == OK
            assert other.read(2 * SIZE // SECTOR - 8, 4096) == b'n' * 4096
        finally:
            os.truncate(rig.path('uring'), SIZE)
            dpu.rpc('bdev_aio_rescan', {'name': 'uring'})
        assert vf.capacity == SIZE // SECTOR
        assert vf.request(T_IN, SIZE // SECTOR, in_len=512)[0] == IOERR


def test_resize_of_disks_without_a_file(dpu):
    for index, method in ((MEMORY, 'bdev_malloc_resize'), (NULL, 'bdev_null_resize')):
        with dpu.blk(index) as vf:
            vf.start(vectors=True)
            before = vf.capacity
            vf.interrupts(0)
            assert vf.write(before - 8, b'o' * 4096) == OK
            dpu.rpc(method, {'name': NAMES[index], 'new_size': 2 * before * SECTOR >> 20})
            assert vf.wait_interrupt(0) and vf.capacity == 2 * before
            assert vf.write(2 * before - 8, b'n' * 4096) == OK
            dpu.rpc(method, {'name': NAMES[index], 'new_size': before * SECTOR >> 20})
            assert vf.capacity == before
            if index == MEMORY:
                assert vf.read(before - 8, 4096) == b'o' * 4096


# migration commands


def vdev(index):
    return index + 1


@pytest.fixture
def pf(dpu):
    with dpu.admin() as driver:
        driver.start()
        yield driver


def test_admin_queue_is_queue_0(pf):
    assert pf.queue == 0
    assert pf.get('admin_queue_index') == 0 and pf.get('admin_queue_num') == 1
    pf.ok(64, 0, out=8)
    status, _ = pf.command(64, 1, struct.pack('<HH', 9, 0), out=4)
    assert status == admin.ERR | admin.DNR, 'VF 8 has no controller'


def test_pf_is_a_disk_for_a_driver_that_wants_one(dpu):
    client = blk.vfio_user.fresh_client(dpu.pf_socket, 5.0 * SLOW)
    with blk.BlkDriver(client) as driver:
        driver.start(wanted=blk.WANTED | 1 << admin.F_ADMIN_VQ)
        assert driver.get('admin_queue_index') == 4
        assert driver.write(0, bytes(4096)) == OK


def test_freeze_under_load_loses_nothing(dpu, pf, disk):
    index = NAMES.index(disk.name)
    queue = disk.queues[0]
    for turn in range(15):
        for i in range(30):
            disk.submit(T_OUT, 128 * i, out=blk.pattern(8192, turn * 100 + i), kick=i % 7 == 0)
        disk.notify(0)
        pf.freeze(vdev(index))
        state = admin.State.decode(pf.save(vdev(index)))
        run = state.queues[0]
        assert run.avail == run.used == queue.ring.used_idx()
        image = disk.mem.read(queue.ring.used, 6 + 8 * queue.ring.size)
        time.sleep(0.002)
        assert disk.mem.read(queue.ring.used, 6 + 8 * queue.ring.size) == image
        pf.run(vdev(index))
        disk.notify(0)
        for _ in range(30):
            assert queue.take()[1] == OK
        for i in (0, 17, 29):
            assert disk.read(128 * i, 8192) == blk.pattern(8192, turn * 100 + i)


def test_freeze_waits_for_what_is_in_flight(dpu, pf, disk):
    index = NAMES.index(disk.name)
    dpu.inject(disk.name, 'hold')
    head = disk.submit(T_OUT, 0, out=b'w' * 4096)
    dpu.wait_in_flight(1, index)
    pf.mem.write(pf.buf_in, bytes([64, 2]) + struct.pack('<HH', vdev(index), admin.QUIESCED))
    pf.mem.write(pf.status, b'\xff')
    pf.submit([(pf.buf_in, 2, False), (pf.buf_in + 2, 4, False), (pf.status, 1, True)])
    assert pf.ring.wait(0.05) is None, 'quiesced with a request in flight'
    later = disk.submit(T_OUT, 8, out=bytes(512))
    dpu.inject(disk.name, 'none')
    assert pf.ring.wait() is not None
    assert pf.mem.read(pf.status, 1)[0] == admin.OK
    assert disk.queues[0].take(0)[:2] == (head, OK)
    assert disk.queues[0].take(0.05) is None, 'taken while it was being stopped'
    pf.run(vdev(index))
    assert disk.queues[0].take()[:2] == (later, OK)


def test_freeze_gives_up_when_the_back_end_hangs(dpu, pf, disk):
    index = NAMES.index(disk.name)
    dpu.inject(disk.name, 'hold', sector=0, sectors=8)
    head = disk.submit(T_OUT, 0, out=b'w' * 4096)
    dpu.wait_in_flight(1, index)
    start = time.monotonic()
    assert pf.set_status(vdev(index), admin.QUIESCED) == admin.ERR, 'may be tried again'
    assert 0.25 <= time.monotonic() - start < 3 * SLOW
    assert pf.get_status(vdev(index)) == admin.RUNNING
    if disk.name != 'ordered':
        assert disk.write(64, bytes(4096)) == OK, 'it goes on'
    dpu.inject(disk.name, 'none')
    assert disk.queues[0].take()[:2] == (head, OK)
    pf.freeze(vdev(index))
    pf.run(vdev(index))
    assert disk.write(64, bytes(4096)) == OK


def test_reset_while_being_stopped(dpu, pf, disk):
    index = NAMES.index(disk.name)
    dpu.inject(disk.name, 'hold')
    disk.submit(T_OUT, 0, out=bytes(4096))
    dpu.wait_in_flight(1, index)
    pf.mem.write(pf.buf_in, bytes([64, 2]) + struct.pack('<HH', vdev(index), admin.QUIESCED))
    pf.submit([(pf.buf_in, 2, False), (pf.buf_in + 2, 4, False), (pf.status, 1, True)])
    disk.put('device_status', 0)
    assert pf.ring.wait() is not None
    assert pf.mem.read(pf.status, 1)[0] == admin.ERR
    dpu.inject(disk.name, 'none')
    disk.reset()
    assert pf.get_status(vdev(index)) == admin.INIT
    disk.start()
    assert disk.write(0, bytes(512)) == OK


def test_state_goes_to_another_function(dpu, pf):
    """The two functions share a file: what one guest wrote the other has, and its rings go on."""
    with dpu.blk(URING) as source, dpu.blk(SHARED) as target:
        source.start(queues=2, vectors=True)
        source.set_writeback(0)
        for i in range(20):
            assert source.write(8 * i, blk.pattern(4096, i), queue=i % 2) == OK
        pf.freeze(vdev(URING))
        blob = pf.save(vdev(URING))
        state = admin.State.decode(blob)
        assert len(state.dev_cfg) == 72 and state.num_queues == 4
        assert state.dev_cfg[:60] == source.device_config(0, 60)
        pf.freeze(vdev(SHARED))
        # the rings of the target are in its own memory, at the same addresses
        target.mem.write(target.mem.base, source.mem.read(source.mem.base, source.mem.size))
        assert pf.restore(vdev(SHARED), blob + bytes(-len(blob) % 4096)) == admin.OK
        pf.run(vdev(SHARED))
        assert target.get('device_status') == 0xf
        assert target.blk_config()['writeback'] == 0
        target.queues = source.queues
        for queue in target.queues:
            queue.mem = queue.ring.mem = target.mem
        for i in range(20):
            assert target.read(8 * i, 4096, queue=i % 2) == blk.pattern(4096, i)


def test_state_of_a_larger_disk_is_refused(dpu, pf):
    with dpu.blk(MEMORY) as vf:
        vf.start()
        pf.freeze(vdev(MEMORY))
        state = admin.State.decode(pf.save(vdev(MEMORY)))
        state.dev_cfg = struct.pack('<Q', vf.capacity + 1) + state.dev_cfg[8:]
        assert pf.restore(vdev(MEMORY), state.encode()) & 0x7f == admin.ERR
        state.dev_cfg = struct.pack('<Q', vf.capacity) + state.dev_cfg[8:24]
        assert pf.restore(vdev(MEMORY), state.encode()) & 0x7f == admin.ERR


def test_dirty_pages(dpu, pf, disk):
    """A read marks its data, a write does not; status byte and used ring are marked by both."""
    index = NAMES.index(disk.name)
    queue = disk.queues[0]
    base, pages = disk.mem.base, disk.mem.size // 4096

    def dirty():
        out = pf.ok(admin.CLASS_DIRTY, admin.TRACK_REPORT,
                    struct.pack('<H6xQQQ', vdev(index), 0, pages // 8, base), out=pages // 8)
        return {base + 4096 * i for i in range(pages) if out[i // 8] >> i % 8 & 1}

    status, _ = pf.command(admin.CLASS_DIRTY, admin.TRACK_START,
                           struct.pack('<HHIQQ', vdev(index), 3, 4096, base, disk.mem.size))
    assert status == admin.OK
    try:
        ring = {page & ~4095 for page in (queue.ring.used, queue.headers)}
        slot = queue.slots[0]
        assert disk.write(0, bytes(8192)) == OK
        assert dirty() == ring
        queue.slots = list(range(32))
        disk.read(0, 8192)
        data = queue.data + queue.DATA * slot
        assert dirty() == ring | {queue.data, queue.data + 4096} and data >= queue.data
        queue.slots = list(range(32))
        disk.get_id()
        assert dirty() == ring | {queue.data}
    finally:
        assert pf.command(admin.CLASS_DIRTY, admin.TRACK_STOP,
                          struct.pack('<H6xQ', vdev(index), base))[0] == admin.OK


# memory and clients that go


def test_client_that_goes_comes_back(dpu, disk):
    """Its memory goes while requests are under way; a new one starts from the beginning."""
    for turn in range(5):
        for i in range(30):
            disk.submit(T_OUT, 128 * i, out=bytes(65536), kick=False)
        disk.notify(0)
        disk.close()
        fresh = dpu.blk(NAMES.index(disk.name))
        fresh.start()
        assert fresh.write(0, blk.pattern(512, turn)) == OK
        assert fresh.read(0, 512) == blk.pattern(512, turn)
        fresh.name = disk.name
        disk.__dict__.update(fresh.__dict__)


def test_client_that_goes_while_the_back_end_hangs(dpu, disk):
    """Requests cannot be waited for: they are left to the back end, and nothing is harmed."""
    index = NAMES.index(disk.name)
    name = disk.name
    dpu.inject(name, 'hold')
    disk.submit(T_OUT, 0, out=bytes(4096))
    disk.submit(T_IN, 0, in_len=4096)
    dpu.wait_in_flight(2, index)
    start = time.monotonic()
    disk.close()
    assert dpu.rpc('version') and time.monotonic() - start < 5 * SLOW
    with dpu.blk(index) as fresh:
        fresh.reset()
        fresh.begin(blk.WANTED)
        fresh.queues = [blk.BlkQueue(fresh.mem, 64)]
        fresh.setup_queue(0, fresh.queues[0].ring)
        fresh.driver_ok()
        assert fresh.get('device_status') & virtio.S_NEEDS_RESET, 'cannot start yet'
        assert 'still has 2 requests' in dpu.ctrl(index)['last_error']
        dpu.inject(name, 'none')
        dpu.wait_in_flight(0, index)
        fresh.start(size=64)
        assert fresh.write(0, bytes(512)) == OK
    disk.__init__(blk.vfio_user.fresh_client(dpu.vf_socket(index), 5.0 * SLOW))


def test_memory_that_goes_under_a_request(dpu, disk):
    index = NAMES.index(disk.name)
    extra = blk.Memory(1 << 20, 0x10000000, 'extra')
    disk.client.map_memory(extra)
    queue = disk.queues[0]
    slot = queue.slots[0]
    header = queue.headers + 32 * slot
    disk.mem.write(header, struct.pack('<IIQ', T_IN, 0, 0))
    dpu.inject(disk.name, 'hold')
    disk.raw([(header, 16, False), (extra.base, 4096, True), (header + 16, 1, True)], timeout=0)
    dpu.wait_in_flight(1, index)
    start = time.monotonic()
    disk.client.dma_unmap(extra.base, extra.size)
    assert time.monotonic() - start < 3 * SLOW
    assert disk.get('device_status') & virtio.S_NEEDS_RESET
    dpu.inject(disk.name, 'none')
    dpu.wait_in_flight(0, index)
    disk.start()
    assert disk.write(0, bytes(4096)) == OK
    extra.close()


# hostile rings


def chain(disk, *parts, kind=T_IN, sector=0, header=16):
    """Segments of a chain with a header of `header` bytes in front."""
    queue = disk.queues[0]
    disk.mem.write(queue.headers, struct.pack('<IIQ', kind, 0, sector))
    return [(queue.headers, header, False)] + list(parts)


def test_status_and_header_anywhere(disk):
    """Both may be split, and share descriptors with data (section 2.7.4.2)."""
    queue = disk.queues[0]
    data = os.urandom(1024)
    h, d = queue.headers, queue.data
    disk.mem.write(h, struct.pack('<IIQ', T_OUT, 0, 40))
    disk.mem.write(d, struct.pack('<IIQ', T_OUT, 0, 40) + data)
    assert disk.raw([(h, 3, False), (h + 3, 13, False), (d + 16, 1000, False),
                     (d + 1016, 24, False), (h + 64, 1, True)]) is not None
    assert disk.mem.read(h + 64, 1) == b'\0'
    assert disk.read(40, 1024) == data
    # header and data in one, data and status in one
    assert disk.raw([(d, 16 + 1024, False), (h + 64, 1, True)]) is not None
    disk.mem.write(d, struct.pack('<IIQ', T_IN, 0, 40))
    got = disk.raw([(d, 16, False), (d + 4096, 1025, True)])
    assert got[1] == 1025 and disk.mem.read(d + 4096, 1025) == data + b'\0'


def test_short_header(disk):
    for header in (1, 8, 15):
        status = disk.queues[0].headers + 64
        disk.mem.write(status, b'\xff')
        assert disk.raw(chain(disk, (status, 1, True), header=header)) is not None
        assert disk.mem.read(status, 1)[0] == IOERR
    assert disk.flush() == OK


def test_no_room_for_the_status_breaks_the_device(dpu, disk):
    disk.start(vectors=True)
    disk.raw(chain(disk), timeout=0)
    assert disk.wait_interrupt(0)
    assert disk.get('device_status') & virtio.S_NEEDS_RESET
    assert 'room for its status' in dpu.ctrl(NAMES.index(disk.name))['last_error']
    disk.start()
    assert disk.flush() == OK


@pytest.mark.parametrize('lie', ['address', 'loop', 'index', 'head', 'order', 'jump_in_flight'])
def test_broken_rings_break_only_their_device(dpu, disk, lie):
    index = NAMES.index(disk.name)
    queue = disk.queues[0]
    ring, d = queue.ring, queue.data
    if lie == 'address':
        disk.raw(chain(disk, (1 << 40, 512, True), (d, 1, True)), timeout=0)
    elif lie == 'loop':
        ring.set_desc(0, d, 16, 1, 1)
        ring.set_desc(1, d, 16, 1, 0)
        ring.post(0)
    elif lie == 'index':
        ring.jump(ring.size + 1)
    elif lie == 'head':
        ring.post(ring.size)
    elif lie == 'order':
        disk.raw([(d, 1, True), (d, 16, False)], timeout=0)
    else:
        dpu.inject(disk.name, 'hold')
        queue.submit(T_OUT, 0, out=bytes(512))
        disk.notify(0)
        dpu.wait_in_flight(1, index)
        ring.jump(ring.size + 1)
        disk.notify(0)
        time.sleep(0.05)
        dpu.inject(disk.name, 'none')
    disk.notify(0)
    deadline = time.monotonic() + 5 * SLOW
    while not disk.get('device_status') & virtio.S_NEEDS_RESET:
        assert time.monotonic() < deadline, 'the device did not notice'
    assert dpu.ctrl(index)['last_error']
    disk.start()
    assert disk.write(0, bytes(512)) == OK


def test_the_same_head_again_and_again(disk):
    """One buffer for all requests at a time: a mess for the guest, none for us."""
    queue = disk.queues[0]
    head = queue.ring.add(queue.segments(0, T_IN, 0, in_len=512), post=False)
    for _ in range(queue.ring.size):
        queue.ring.post(head)
    disk.notify(0)
    deadline = time.monotonic() + 5 * SLOW
    while queue.ring.used_idx() != queue.ring.size:
        assert time.monotonic() < deadline
    disk.start()
    assert disk.flush() == OK


def test_requests_of_many_parts_wait_for_room(dpu, disk):
    """More of them than a queue can have in flight at a time."""
    disk.start(size=1024)
    queue = disk.queues[0]
    if disk.name != 'ordered':
        dpu.inject(disk.name, 'hold')
    heads = {disk.submit(T_OUT, 8 * i, out=blk.pattern(4096, i), split=64, kick=False)
             for i in range(12)}
    disk.notify(0)
    if disk.name != 'ordered':
        dpu.wait_in_flight(4, NAMES.index(disk.name))
        dpu.inject(disk.name, 'none')
    for _ in range(12):
        head, status, _ = queue.take()
        assert status == OK
        heads.remove(head)
    for i in range(12):
        assert disk.read(8 * i, 4096) == blk.pattern(4096, i)


def test_flush_requests_in_a_row(dpu, file):
    for _ in range(30):
        file.submit(T_FLUSH, kick=False)
    file.notify(0)
    for _ in range(30):
        assert file.queues[0].take()[1] == OK
