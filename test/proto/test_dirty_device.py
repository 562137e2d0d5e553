# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Dirty page tracking of the controller (class 65): exactness in all modes, and liars."""

import os
import random
import struct
import tempfile
import threading
import time

import pytest

from peers import admin, daemons, virtio
from peers.admin import Tracker
from peers.jsonrpc import RpcError
from peers.memory import PAGE, Memory, make_frame
from peers.vfio_user import Client, fresh_client
from peers.virtio import AdminPf, NetDriver

VDEV = 2
REFUSED = admin.ERR | admin.DNR
BAD_TRANSFER = admin.DATA_TRANSFER | admin.DNR
FAILED = admin.INTERNAL | admin.DNR

MODES = pytest.mark.parametrize('mode', admin.MODES.values(), ids=admin.MODES.keys())


@pytest.fixture
def pf(ctl):
    with AdminPf(fresh_client(ctl.daemon.pf_socket)) as driver:
        driver.start()
        yield driver
        driver.reset()  # ends all tracking


@pytest.fixture
def vf(ctl):
    with ctl.net(1) as driver:
        yield driver


def tracker(pf, vf, mode, page=4096):
    """All of the memory of `vf`, from address 0 as the incumbent does it."""
    return Tracker(pf, VDEV, mode, 0, vf.mem.end, page)


def changed_pages(mem, before, page=4096):
    """Pages (by address) in which the memory differs from the image `before`."""
    after = mem.read(mem.base, mem.size)
    return {(mem.base + i) // page for i in range(0, mem.size, PAGE)
            if after[i:i + PAGE] != before[i:i + PAGE]}


def burst(pf, vf, sizes, pair=0):
    """
    Let frames of these sizes go round; returns the memory as it was before the device ran. It
    stands still until then, for it does not wait for the doorbell when it is awake.
    """
    pf.freeze(VDEV)
    used = (vf.pairs[pair].rx.used_idx() + len(sizes)) & 0xffff
    for size in sizes:
        vf.pairs[pair].send(make_frame(size))
    image = vf.mem.read(vf.mem.base, vf.mem.size)
    pf.run(VDEV)
    vf.notify(2 * pair + 1)
    deadline = time.monotonic() + 5 * daemons.SLOW
    while vf.pairs[pair].rx.used_idx() != used:
        assert time.monotonic() < deadline, 'frames do not come back'
        time.sleep(0.0005)
    return image


def assert_exact(dirty, changed, vf, page=4096):
    """
    A page is dirty if its content has changed. Flags in used rings are also written back and forth,
    so that these pages may be dirty and look the same.
    """
    rings = [ring for pair in vf.pairs for ring in (pair.rx, pair.tx)]
    rings += [vf.ctrl_ring] if vf.ctrl_ring is not None else []
    used = {(ring.used + i) // page for ring in rings for i in (0, 4 + 8 * ring.size + 1)}
    assert changed <= dirty
    assert dirty - changed <= used


def go_on(pf, vf, pair=0):
    """Take the frames of a burst and let the frozen device run."""
    while vf.pairs[pair].receive(0) is not None:
        pass
    pf.run(VDEV)
    vf.notify(2 * pair)


# exactness


@MODES
@pytest.mark.parametrize('indirect', [False, True])
def test_dirty_pages_are_the_pages_that_changed(pf, vf, mode, indirect):
    vf.start(size=64, indirect=indirect)
    vf.echo(3)
    track = tracker(pf, vf, mode)
    assert track.start() == admin.OK
    rng = random.Random(mode)
    for _ in range(6):
        image = burst(pf, vf, [rng.randrange(14, 1500) for _ in range(rng.randrange(1, 40))])
        pf.freeze(VDEV)
        changed = changed_pages(vf.mem, image)
        assert len(changed) > 2
        assert_exact(track.take(), changed, vf)
        track.clear()
        go_on(pf, vf)
    assert track.stop() == admin.OK


@MODES
def test_pages_are_of_the_size_asked_for(pf, vf, mode):
    vf.start()
    track = tracker(pf, vf, mode, 65536)
    assert track.start() == admin.OK
    image = burst(pf, vf, [1000] * 30)
    pf.freeze(VDEV)
    assert_exact(track.take(), changed_pages(vf.mem, image, 65536), vf, 65536)


@MODES
def test_several_ranges(ctl, pf, vf, mode):
    """The memory in four parts, with a hole that is not tracked."""
    vf.start()
    quarter = vf.mem.size // 4
    tracks = [Tracker(pf, VDEV, mode, vf.mem.base + i * quarter, quarter) for i in (0, 1, 3)]
    for track in tracks:
        assert track.start() == admin.OK
    image = burst(pf, vf, [700] * 40)
    pf.freeze(VDEV)
    changed = changed_pages(vf.mem, image)
    for track in tracks:
        first = track.addr // PAGE
        assert_exact(track.take(),
                     {page for page in changed if first <= page < first + track.pages}, vf)
    shown = ctl.daemon.rpc('query', {'pf': 0, 'vf': VDEV - 1, 'brief': True})['dirty_tracking']
    assert [r['address'] for r in shown] == [t.addr for t in tracks]
    for track in reversed(tracks):
        assert track.stop() == admin.OK


@MODES
def test_control_queue_and_second_pair_are_marked(pf, vf, mode):
    vf.start(pairs=2)
    track = tracker(pf, vf, mode)
    assert track.start() == admin.OK
    vf.ctrl_ring.mem.write(vf.ctrl_buf + 4000, b'\xff')
    vf.mem.write(vf.ctrl_buf, b'\4\0' + struct.pack('<H', 2))
    vf.ctrl_ring.add([(vf.ctrl_buf, 2, False), (vf.ctrl_buf + 2, 2, False),
                      (vf.ctrl_buf + 4000, 1, True)])
    image = burst(pf, vf, [400] * 5, 1)
    vf.notify(vf.ctrl_index)
    assert vf.ctrl_ring.wait() is not None
    pf.freeze(VDEV)
    changed = changed_pages(vf.mem, image)
    assert {vf.ctrl_buf // PAGE, vf.ctrl_ring.used // PAGE, vf.pairs[1].rx.used // PAGE} <= changed
    assert_exact(track.take(), changed, vf)


def test_used_ring_across_pages(pf, ctl):
    """A ring of 4096 bytes and more that begins in the middle of a page."""
    with ctl.net(1) as vf:
        vf.start(size=256)
        pair = vf.pairs[0]
        vf.reset()
        for ring in (pair.rx, pair.tx):
            ring.used = vf.mem.alloc(3 * PAGE, PAGE) + PAGE - 1024
        vf.start(size=256)
        track = tracker(pf, vf, admin.PULL_BITMAP)
        assert track.start() == admin.OK
        for count in (1, 60, 100, 60, 90, 17):
            image = burst(pf, vf, [60] * count)
            pf.freeze(VDEV)
            assert_exact(track.take(), changed_pages(vf.mem, image), vf)
            go_on(pf, vf)


@pytest.mark.parametrize('aliased', [False, True])
def test_memory_in_several_mappings(pf, ctl, aliased):
    """The address that counts is the driver's, also when two of them lead to the same memory."""
    with ctl.net(1) as vf, Memory(1 << 20, 0x10000000) as far:
        vf.client.map_memory(far)
        if aliased:
            vf.client.dma_map(0x20000000, far.size, far.fd, 0)
        vf.start()
        pair = vf.pairs[0]
        vf.reset()
        pair.clear()
        vf.start()
        vf.reset()
        pair.clear()
        where = 0x20000000 if aliased else far.base
        pair.rx_buf = [where + PAGE + 3000 * i for i in range(64)]
        vf.start()
        track = Tracker(pf, VDEV, admin.PULL_BITMAP, 0, 0x30000000)
        assert track.start() == admin.OK
        before = far.read(far.base, far.size)
        image = burst(pf, vf, [1200] * 20)
        pf.freeze(VDEV)
        there = {page + (where - far.base) // PAGE for page in changed_pages(far, before)}
        assert len(there) > 10
        assert_exact(track.take(), changed_pages(vf.mem, image) | there, vf)


def test_nothing_is_lost_while_traffic_runs(pf, vf):
    """
    A migration source in small: it takes pages and copies them while the device writes. In the
    end the copy of what only the device writes is equal.
    """
    vf.start(size=256)
    pair = vf.pairs[0]
    track = tracker(pf, vf, admin.PULL_BITMAP)
    assert track.start() == admin.OK
    copy = bytearray(vf.mem.read(vf.mem.base, vf.mem.size))

    def take():
        pages = track.take()
        for page in pages:
            at = page * PAGE - vf.mem.base
            copy[at:at + PAGE] = vf.mem.read(page * PAGE, PAGE)
        return len(pages)

    rounds = 0
    for _ in range(60):
        while len(pair.tx.free) < 64:
            assert pair.tx.wait() is not None
        for _ in range(64):
            pair.send(make_frame(random.randrange(60, 1400)))
        vf.notify(1)
        rounds += take() > 0
        while pair.receive(0) is not None:
            pass
        vf.notify(0)
    pf.freeze(VDEV)
    take()
    assert rounds > 20
    # at its ends the area of receive buffers shares pages with others
    only_device = {buf // PAGE for buf in pair.rx_buf[2:-2] + [pair.rx.used, pair.tx.used]}
    first = vf.mem.base // PAGE
    for page in only_device:
        at = (page - first) * PAGE
        assert copy[at:at + PAGE] == vf.mem.read(page * PAGE, PAGE), hex(page)


# configuration of the controller


@pytest.fixture
def own(work):
    """A controller of the test's own: call it with what goes into software_dpu."""
    started = []

    def start(**extra):
        controller = daemons.Controller(tempfile.mkdtemp(prefix='o', dir=work), vfs=2, qp_num=1,
                                        extra=extra)
        started.append(controller)
        return controller

    yield start
    for controller in started:
        controller.stop()


def test_coarse_marking(own):
    controller = own(dirty_coarse=True)
    with AdminPf(Client(controller.pf_socket)) as pf, \
            NetDriver(Client(controller.vf_socket(1))) as vf:
        pf.start()
        vf.start()
        for mode in (admin.PULL_BITMAP, admin.PUSH_BITMAP):
            track = tracker(pf, vf, mode)
            assert track.start() == admin.OK
            image = burst(pf, vf, [800] * 10)
            pf.freeze(VDEV)
            changed = changed_pages(vf.mem, image)
            assert track.take() == {page // 8 * 8 + i for page in changed for i in range(8)}
            assert track.stop() == admin.OK
            go_on(pf, vf)


@pytest.mark.parametrize('name', admin.MODES)
def test_single_mode(own, name):
    controller = own(dirty_modes=[name])
    with AdminPf(Client(controller.pf_socket)) as pf, \
            NetDriver(Client(controller.vf_socket(1))) as vf:
        pf.start()
        bits = pf.offered() >> admin.F_PUSH_BITMAP & 0xf
        assert bits == 1 << (admin.MODES[name] - 1)
        bitmap, bytemap, ranges = struct.unpack('<HHI', pf.ok(65, 0, out=8))
        assert (bitmap != 0, bytemap != 0) == (name == 'pull_bitmap', name == 'pull_bytemap')
        assert ranges > 0
        vf.start()
        for other, mode in admin.MODES.items():
            expected = admin.OK if other == name else REFUSED
            assert tracker(pf, vf, mode).start() == expected


def test_planted_loss_is_visible(own):
    """What proves that a test sees a lost bit: some pages are never marked."""
    controller = own(dirty_lose_pages=4)
    with AdminPf(Client(controller.pf_socket)) as pf, \
            NetDriver(Client(controller.vf_socket(1))) as vf:
        pf.start()
        vf.start()
        track = tracker(pf, vf, admin.PULL_BITMAP)
        assert track.start() == admin.OK
        image = burst(pf, vf, [1400] * 50)
        pf.freeze(VDEV)
        changed = changed_pages(vf.mem, image)
        assert track.take() == {page for page in changed if page % 4} != changed


# back end "scribble" and the knobs


def records(controller, pair=0):
    """What the back end says that it has written: {address: sequence}."""
    reply = controller.rpc('records', {'pf': 0, 'vf': 0, 'pair': pair})
    return dict(reply['records']), reply['running']


def test_scribble_writes_all_posted_pages_until_the_freeze(own):
    """
    Nothing but the back end writes to the buffers, so a copy made of dirty pages only is equal to
    the memory after the freeze, and both are what the list of records says.
    """
    controller = own(pfs=[scribbling(0)])
    with AdminPf(Client(controller.pf_socket)) as pf, \
            NetDriver(Client(controller.vf_socket(0))) as vf:
        pf.start()
        vf.start(size=256)
        track = Tracker(pf, 1, admin.PULL_BITMAP, 0, vf.mem.end)
        assert track.start() == admin.OK
        copy = bytearray(vf.mem.size)
        posted = {page for buf in vf.pairs[0].rx_buf
                  for page in range(buf // PAGE, (buf + 2047) // PAGE + 1)}
        for i in range(50):
            for page in track.take():
                at = page * PAGE - vf.mem.base
                copy[at:at + PAGE] = vf.mem.read(page * PAGE, PAGE)
            if i == 40:
                wait_for(lambda: {at // PAGE for at in records(controller)[0]} == posted)
                pf.freeze(1)
        written, running = records(controller)
        assert not running
        assert {at // PAGE for at in written} == posted
        assert len(set(written.values())) == len(written) > 256
        for at, sequence in written.items():
            there = struct.pack('<QQ', at, sequence)
            assert vf.mem.read(at, 16) == there, hex(at)
            assert copy[at - vf.mem.base:at - vf.mem.base + 16] == there, hex(at)
        assert vf.pairs[0].rx.used_idx() == 0
        assert vf.get('device_status') == 0xf

        # the same buffers are taken again; the numbers go on
        pf.run(1)
        vf.notify(0)

        def written_again():
            now, _ = records(controller)
            return set(now) == set(written) and min(now.values()) > max(written.values())

        wait_for(written_again)
        pf.freeze(1)
        again, _ = records(controller)
        assert set(again) == set(written)
        for at, sequence in again.items():
            assert vf.mem.read(at, 16) == struct.pack('<QQ', at, sequence)


def scribbling(vf):
    """The PF of the tests with this VF on the back end scribble."""
    return {'bdf': daemons.Controller.PF, 'type': 'net', 'first_vf': daemons.Controller.FIRST_VF,
            'vfs': {str(vf): {'backend': {'type': 'scribble'}},
                    str(1 - vf): {'backend': {'type': 'loopback'}}}}


def wait_for(condition, timeout=5.0):
    deadline = time.monotonic() + timeout * daemons.SLOW
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.002)


def test_scribble_pauses_and_goes_on(own):
    controller = own(pfs=[scribbling(0)])
    with NetDriver(Client(controller.vf_socket(0))) as vf, \
            NetDriver(Client(controller.vf_socket(1))) as other:
        vf.start()
        wait_for(lambda: records(controller)[0])
        assert controller.rpc('knobs', {'scribble': False})['scribble'] is False

        def buffers():
            return b''.join(vf.mem.read(buf, 2048) for buf in vf.pairs[0].rx_buf)

        image = buffers()
        other.start()
        other.echo(20)
        vf.notify(0)
        assert buffers() == image
        for at, sequence in records(controller)[0].items():
            assert vf.mem.read(at, 16) == struct.pack('<QQ', at, sequence)
        controller.rpc('knobs', {'scribble': True})
        wait_for(lambda: buffers() != image)
        # memory that comes and goes does not matter to it
        with Memory(1 << 20, 0x40000000) as extra:
            vf.client.map_memory(extra)
            before = max(records(controller)[0].values())
            wait_for(lambda: min(records(controller)[0].values()) > before)
            vf.client.dma_unmap(extra.base, extra.size)
        before = max(records(controller)[0].values())
        wait_for(lambda: min(records(controller)[0].values()) > before)
        vf.reset()
        vf.pairs[0].clear()
        vf.start()
        wait_for(lambda: records(controller)[1])
        other.echo(20)


def test_knobs(own):
    controller = own(admin_latency_us=3)
    with AdminPf(Client(controller.pf_socket)) as pf:
        pf.start()
        assert controller.rpc('knobs') == {'admin_latency_us': 3, 'dirty_lose_pages': 0,
                                           'scribble': True}
        controller.rpc('knobs', {'admin_latency_us': 50000})
        begin = time.monotonic()
        pf.ok(64, 0, out=8)
        assert time.monotonic() - begin >= 0.05
        assert controller.rpc('knobs', {'admin_latency_us': 0, 'dirty_lose_pages': 7}) == {
            'admin_latency_us': 0, 'dirty_lose_pages': 7, 'scribble': True}
        for bad in ({'admin_latency_us': -1}, {'dirty_lose_pages': 1 << 40}, {'scribble': 1},
                    {'what': 1}):
            with pytest.raises(RpcError):
                controller.rpc('knobs', bad)
        for bad in ({}, {'pf': 0, 'vf': 0}, {'pf': 0, 'vf': 0, 'pair': 128}, {'pf': 0, 'vf': 9}):
            with pytest.raises(RpcError):
                controller.rpc('records', bad)
        assert controller.rpc('knobs')['dirty_lose_pages'] == 7


# liars


def test_identity(pf):
    bitmap, bytemap, ranges = struct.unpack('<HHI', pf.ok(65, 0, out=8))
    assert 20 <= bitmap < 64 and 20 <= bytemap < 64 and 1 <= ranges <= 1024


@pytest.mark.parametrize('mode', [0, 5, 6, 0x100, 0xffff])
def test_mode_that_is_not_there(pf, vf, mode):
    assert Tracker(pf, VDEV, mode, 0, 1 << 30).start() == REFUSED


@pytest.mark.parametrize('page', [0, 1, 512, 2048, 4095, 4097, 12288, 1 << 31, 0xffffffff])
def test_page_size(pf, vf, page):
    track = Tracker(pf, VDEV, admin.PULL_BITMAP, 0, 1 << 30, 4096)
    track.page = page
    assert track.start() == REFUSED


@pytest.mark.parametrize('addr, length', [
    (0, 0), (1, PAGE), (PAGE - 1, 1), (2 ** 64 - PAGE, PAGE + 1), (PAGE, 2 ** 64 - 1),
    (0, 2 ** 64 - 1), (2 ** 63, 2 ** 63 + 1), (0, 1 << 62)])
@pytest.mark.parametrize('mode', [admin.PULL_BITMAP, admin.PULL_BYTEMAP])
def test_range_that_wraps_or_is_too_large(ctl, pf, mode, addr, length):
    rss = ctl.daemon.rss()
    assert Tracker(pf, VDEV, mode, addr, length).start() == REFUSED
    assert ctl.daemon.rss() < rss + (8 << 20)


def test_largest_maps_cost_nothing_until_they_are_used(ctl, pf):
    rss = ctl.daemon.rss()
    bitmap, bytemap, _ = struct.unpack('<HHI', pf.ok(65, 0, out=8))
    for vdev in range(1, ctl.daemon.nr_vfs + 1):
        assert Tracker(pf, vdev, admin.PULL_BITMAP, 0, PAGE << bitmap).start() == admin.OK
        track = Tracker(pf, vdev, admin.PULL_BYTEMAP, 1 << 50, PAGE << bytemap)
        assert track.start() == admin.OK
        begin = time.monotonic()
        assert track.pending() == (admin.OK, 0)
        assert track.report(track.bytes - 65536, 65536) == (admin.OK, bytes(65536))
        assert time.monotonic() - begin < 1 * daemons.SLOW
    assert ctl.daemon.rss() < rss + (32 << 20)


def sge_cases(pf):
    base, end = pf.mem.base, pf.mem.end
    need = 512  # of a bitmap of 16 MiB
    return {
        'none': ([], BAD_TRANSFER),
        'empty': ([(base, 0)], REFUSED),
        'short': ([(base, need - 1)], REFUSED),
        'short in parts': ([(base, 1)] * (need - 1), REFUSED),
        'behind the end': ([(end - need + 1, need)], REFUSED),
        'before the begin': ([(base - 1, need)], REFUSED),
        'address 0': ([(0, need)], REFUSED),
        'wraps': ([(2 ** 64 - 16, need)], REFUSED),
        'of a VF': ([(0x100000, need)], REFUSED),
        'rest outside': ([(base + PAGE, need), (end, 1)], REFUSED),
        '4 GiB': ([(base, 0xffffffff)], REFUSED),
        'too many': ([(base, 1)] * 1025, BAD_TRANSFER),
    }


@pytest.mark.parametrize('name', ['none', 'empty', 'short', 'short in parts', 'behind the end',
                                  'before the begin', 'address 0', 'wraps', 'of a VF',
                                  'rest outside', '4 GiB', 'too many'])
def test_sge_list(pf, vf, name):
    sges, expected = sge_cases(pf)[name]
    track = Tracker(pf, VDEV, admin.PUSH_BITMAP, 0, 512 * 8 * PAGE)
    assert track.start(sges) == expected
    vf.start()
    vf.echo(3)
    assert track.start() == admin.OK


@pytest.mark.parametrize('extra', [1, 8, 15])
def test_sge_list_with_a_part_of_an_entry(pf, extra):
    track = Tracker(pf, VDEV, admin.PUSH_BITMAP, 0, 64 * PAGE)
    data = struct.pack('<HHIQQ', VDEV, 1, PAGE, 0, 64 * PAGE) + struct.pack('<QII', track.map, 8, 0)
    assert pf.command(65, admin.TRACK_START, data + bytes(extra))[0] == BAD_TRANSFER
    assert pf.command(65, admin.TRACK_START, data)[0] == admin.OK


def test_map_in_many_odd_pieces(pf, vf):
    """A pushed map of pieces of 1 to 7 bytes, in reverse order, at odd addresses."""
    vf.start()
    track = tracker(pf, vf, admin.PUSH_BITMAP)
    left, pieces = track.bytes, []
    rng = random.Random(5)
    while left:
        size = min(left, rng.randrange(1, 8))
        pieces.append((pf.mem.alloc(size + 1, 1), size))
        left -= size
    pieces.reverse()
    assert track.start(pieces) == admin.OK
    image = burst(pf, vf, [900] * 40)
    pf.freeze(VDEV)
    raw = b''.join(pf.mem.read(at, size) for at, size in pieces)
    dirty = {8 * i + bit for i, byte in enumerate(raw) for bit in range(8) if byte >> bit & 1}
    assert_exact(dirty, changed_pages(vf.mem, image), vf)


def test_stop_by_the_wrong_address(pf, vf):
    """The incumbent stops by the end of the range that it started at 0."""
    track = tracker(pf, vf, admin.PUSH_BITMAP)
    assert track.stop() == REFUSED
    assert track.start() == admin.OK
    assert track.start() == REFUSED
    assert track.stop(vf.mem.end) == admin.OK
    assert track.stop() == REFUSED
    assert track.start() == admin.OK


def test_more_ranges_than_told(pf):
    ranges = struct.unpack('<HHI', pf.ok(65, 0, out=8))[2]
    tracks = [Tracker(pf, VDEV, admin.PULL_BITMAP, i << 20, 1 << 20) for i in range(ranges + 1)]
    assert [track.start() for track in tracks] == [admin.OK] * ranges + [REFUSED]
    assert tracks[0].stop(0xdead000) == REFUSED  # which one?
    assert tracks[3].stop() == admin.OK
    assert tracks[ranges].start() == admin.OK


@pytest.mark.parametrize('offset, length, room, expected', [
    (0, 513, 513, REFUSED), (512, 1, 1, REFUSED), (2 ** 64 - 1, 1, 1, REFUSED),
    (2 ** 64 - 512, 1024, 1024, REFUSED), (0, 0, 1, BAD_TRANSFER), (0, 512, 511, BAD_TRANSFER),
    (0, 2 ** 64 - 1, 512, BAD_TRANSFER), (0, 1 << 32, 512, BAD_TRANSFER)])
def test_report_outside_of_the_map(pf, vf, offset, length, room, expected):
    vf.start()
    track = Tracker(pf, VDEV, admin.PULL_BITMAP, 0, 512 * 8 * PAGE)
    assert track.start() == admin.OK
    burst(pf, vf, [500] * 5)
    pf.freeze(VDEV)
    size = track.pending()[1]
    assert size > 0
    assert track.report(offset, length, room)[0] == expected
    assert track.pending() == (admin.OK, size), 'a refused report took something'


@pytest.mark.parametrize('vdev', [0, 5, 0xffff])
@pytest.mark.parametrize('cmd, size', [(1, 24), (2, 16), (3, 16), (4, 32)])
def test_vf_that_is_not_there(pf, vdev, cmd, size):
    data = struct.pack('<HHI', vdev, 3, PAGE) + bytes(size - 8)
    assert pf.command(65, cmd, data, out=8)[0] & admin.DNR


@pytest.mark.parametrize('cmd, size', [(1, 24), (2, 16), (3, 16), (4, 32)])
def test_short_input(pf, cmd, size):
    for have in (0, 1, 2, size - 1):
        assert pf.command(65, cmd, bytes(have), out=8)[0] == BAD_TRANSFER


def test_start_and_stop_storm_under_traffic(pf, vf):
    """Queues, maps and tables come and go between bursts; no frame is lost or changed."""
    vf.start(size=256)
    failures = []
    done = threading.Event()

    def traffic():
        try:
            while not done.is_set():
                vf.echo(10)
        except BaseException as why:  # told by the main thread
            failures.append(why)

    tracks = [Tracker(pf, VDEV, mode, i << 24, 1 << 24)
              for i, mode in enumerate(admin.MODES.values())]
    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        for i in range(120):
            assert [track.start() for track in tracks] == [admin.OK] * 4
            tracks[i % 4].stop()
            assert tracks[(i + 1) % 4].start() == REFUSED
            if i % 4 != 2:
                tracks[2].take()
            for track in tracks[:i % 4] + tracks[i % 4 + 1:]:
                assert track.stop() == admin.OK
    finally:
        done.set()
        thread.join()
    assert not failures, failures[0]


@MODES
def test_tracking_around_freeze_and_reset(pf, vf, mode):
    """START and STOP in each status; a reset of the VF keeps the marks, one of the PF ends all."""
    vf.start()
    track = tracker(pf, vf, mode)
    pf.freeze(VDEV)
    assert track.start() == admin.OK
    pf.run(VDEV)
    image = burst(pf, vf, [300] * 9)
    pf.freeze(VDEV)
    changed = changed_pages(vf.mem, image)
    vf.reset()
    assert tracker(pf, vf, mode).start() == REFUSED
    assert_exact(track.take(), changed, vf)
    track.clear()
    vf.start()
    image = burst(pf, vf, [300] * 9)
    pf.freeze(VDEV)
    assert changed_pages(vf.mem, image) <= track.take()
    assert track.stop() == admin.OK
    assert track.start() == admin.OK
    pf.reset()
    pf.start()
    assert track.start() == admin.OK


@MODES
def test_memory_of_the_map_goes_away(ctl, pf, vf, mode):
    """Push: tracking fails and says so once, the VF runs on. Pull: nothing of it matters."""
    vf.start()
    with Memory(1 << 16, 0x70000000) as extra:
        pf.client.map_memory(extra)
        track = tracker(pf, vf, mode)
        push = track.map is not None
        assert track.start([(extra.base, track.bytes)] if push else None) == admin.OK
        burst(pf, vf, [300] * 9)
        pf.freeze(VDEV)
        go_on(pf, vf)
        pf.client.dma_unmap(extra.base, extra.size)
        image = extra.read(extra.base, extra.size)
        assert (set(image) != {0}) == push
        vf.echo(20)
        assert extra.read(extra.base, extra.size) == image
        shown = ctl.daemon.rpc('query', {'pf': 0, 'vf': VDEV - 1})['dirty_tracking']
        assert [r['failed'] for r in shown] == [push]
        assert track.stop() == (FAILED if push else admin.OK)
        assert track.stop() == REFUSED
        assert track.start() == admin.OK


def test_file_of_the_map_shrinks(ctl, pf, vf):
    """The PF is lost then, as with all its memory; the VF runs on."""
    vf.start()
    extra = Memory(1 << 16, 0x70000000)
    pf.client.map_memory(extra)
    track = tracker(pf, vf, admin.PUSH_BITMAP)
    assert track.start([(extra.base, track.bytes)]) == admin.OK
    extra.truncate(0)
    vf.echo(20)
    shown = ctl.daemon.rpc('query', {'pf': 0, 'vf': VDEV - 1})['dirty_tracking']
    assert len(shown) == 1
    ctl.daemon.rpc('query', {'pf': 0})  # looks at the memory of the PF
    vf.echo(20)
    extra.words.release()
    extra.map.close()
    os.close(extra.fd)
    pf.reset = lambda *args: None  # its client was disconnected


def test_driver_of_the_pf_goes_away(ctl, vf):
    """The next one finds nothing tracked, once it has reset the PF."""
    vf.start()
    for mode in (admin.PUSH_BITMAP, admin.PULL_BITMAP):
        with AdminPf(fresh_client(ctl.daemon.pf_socket)) as pf:
            pf.start()
            assert tracker(pf, vf, mode).start() == admin.OK
        vf.echo(10)
    with AdminPf(fresh_client(ctl.daemon.pf_socket)) as pf:
        pf.start()
        assert tracker(pf, vf, admin.PUSH_BITMAP).start() == admin.OK
        vf.echo(10)
        pf.reset()


def test_reset_storm_while_tracking(pf, vf):
    track = tracker(pf, vf, admin.PULL_BITMAP)
    assert track.start() == admin.OK
    for _ in range(20):
        vf.start()
        vf.pairs[0].send(make_frame())
        vf.notify(1)
        vf.reset()
    vf.start()
    track.take()
    image = burst(pf, vf, [100] * 3)
    pf.freeze(VDEV)
    assert track.take() >= changed_pages(vf.mem, image)
    pf.run(VDEV)
    vf.notify(0)


def test_tracked_vf_of_another(ctl, pf, vf):
    """The witness is VF 0; tracking it while another works marks nothing of the other."""
    vf.start()
    track = Tracker(pf, VDEV + 1, admin.PULL_BITMAP, 0, 1 << 30)
    assert track.start() == admin.OK
    vf.echo(10)
    assert track.take() == set()
    assert virtio.S_NEEDS_RESET & vf.get('device_status') == 0
