# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Malicious split rings and ring registers against the software DPU.

A violation breaks the device of the guest that made it, until that guest resets it. The `ctl`
fixture asserts afterwards that an honest driver can use the same VF, and that others never noticed.
"""

import os
import struct
import threading
import time

import pytest

from peers import daemons, virtio
from peers import vfio_user as vu
from peers.memory import (DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Memory, NET_HDR, PAGE, Ring,
                          make_frame)

TX = 1
RX = 0
N, W, IND = DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT
HDR = bytes(NET_HDR)


@pytest.fixture
def driver(ctl):
    """An honest driver on VF 1, up and running, that the test turns bad."""
    with ctl.net(1, size=2 << 20) as net:
        net.start()
        net.echo()
        yield net


def broken(driver, timeout=5.0):
    """The device says that it needs a reset (virtio 1.4 section 2.1.2)."""
    deadline = time.monotonic() + timeout * daemons.SLOW
    while not driver.get('device_status') & virtio.S_NEEDS_RESET:
        assert time.monotonic() < deadline, \
            f'device status is {driver.get("device_status"):#x}, not NEEDS_RESET'
        time.sleep(0.002)


def tx(driver):
    return driver.pairs[0].tx


def raw_tx(driver, descs, head=0, table=None):
    """Write descriptors (addr, len, flags, next) as they are and post `head`."""
    ring = tx(driver)
    for i, desc in enumerate(descs):
        ring.set_desc(i, *desc, table=table)
    if table is None:
        ring.post(head)
    driver.notify(TX)


def buffer(driver, size=2048):
    return driver.mem.alloc(size, 64)


CHAINS = {
    # name: descriptors made of (address, length, flags, next); `b` is a good buffer
    'self loop': lambda b, e, n: [(b, 60, N, 0)],
    'loop of two': lambda b, e, n: [(b, 60, N, 1), (b, 60, N, 0)],
    'loop behind a tail': lambda b, e, n: [(b, 60, N, 1), (b, 60, N, 2), (b, 60, N, 1)],
    'loop of zero lengths': lambda b, e, n: [(b, 0, N, 1), (b, 0, N, 0)],
    'next is the size': lambda b, e, n: [(b, 60, N, n)],
    'next is 65535': lambda b, e, n: [(b, 60, N, 0xffff)],
    'address 0': lambda b, e, n: [(0, 60, 0, 0)],
    'address -1': lambda b, e, n: [((1 << 64) - 1, 60, 0, 0)],
    'address wraps': lambda b, e, n: [((1 << 64) - 32, 64, 0, 0)],
    'address behind the memory': lambda b, e, n: [(e, 60, 0, 0)],
    'crosses the end of memory': lambda b, e, n: [(e - 32, 64, 0, 0)],
    'second part outside': lambda b, e, n: [(b, 60, N, 1), (e + PAGE, 60, 0, 0)],
    'length 4 GiB - 1': lambda b, e, n: [(b, 0xffffffff, 0, 0)],
    'lengths that add up beyond 4 GiB': lambda b, e, n: [(b, 0x80000000, N, 1),
                                                         (b, 0x80000000, 0, 0)],
    'zero length': lambda b, e, n: [(b, 0, N, 1), (b, 60, 0, 0)],
    'zero length, bad address': lambda b, e, n: [((1 << 63), 0, N, 1), (0, 0, 0, 0)],
    'writable in transmit': lambda b, e, n: [(b, 60, W, 0)],
    'readable after writable': lambda b, e, n: [(b, 60, W | N, 1), (b, 60, 0, 0)],
    'indirect without table': lambda b, e, n: [(b, 0, IND, 0)],
    'indirect of 15 bytes': lambda b, e, n: [(b, 15, IND, 0)],
    'indirect of 17 bytes': lambda b, e, n: [(b, 17, IND, 0)],
    'indirect of 4 GiB': lambda b, e, n: [(b, 0xfffffff0, IND, 0)],
    'indirect outside': lambda b, e, n: [(e, 32, IND, 0)],
    'indirect crosses the end': lambda b, e, n: [(e - 16, 32, IND, 0)],
    'indirect at -1': lambda b, e, n: [((1 << 64) - 16, 32, IND, 0)],
    'indirect with next': lambda b, e, n: [(b, 32, IND | N, 1), (b, 60, 0, 0)],
}


@pytest.mark.parametrize('name', sorted(CHAINS))
def test_transmit_chain(ctl, driver, name):
    good = buffer(driver)
    driver.mem.write(good, bytes(2048))
    raw_tx(driver, CHAINS[name](good, driver.mem.end, tx(driver).size))
    if name != 'writable in transmit':
        broken(driver)
    ctl.witness.echo()


@pytest.mark.parametrize('name', ['self loop', 'next is the size', 'address 0', 'address wraps',
                                  'crosses the end of memory', 'length 4 GiB - 1',
                                  'readable after writable', 'indirect outside',
                                  'indirect of 15 bytes', 'loop of zero lengths'])
def test_receive_chain(ctl, driver, name):
    """The same in the receive ring, with the buffers marked writable."""
    ring = driver.pairs[0].rx
    good = buffer(driver)
    for i, (addr, length, flags, nxt) in enumerate(CHAINS[name](good, driver.mem.end, ring.size)):
        write = 0 if flags & IND or name == 'readable after writable' else W
        ring.set_desc(i, addr, length, flags | write, nxt)
    # the good buffers that are posted already come first; use them up
    for i in range(ring.size):
        ring.mem.set_u16(ring.avail + 4 + 2 * i, 0)
    for _ in range(80):
        driver.pairs[0].send(bytes(60))
        driver.notify(TX)
        if driver.get('device_status') & virtio.S_NEEDS_RESET:
            break
    broken(driver)


@pytest.mark.parametrize('head', [64, 65, 0x7fff, 0x8000, 0xffff])
@pytest.mark.parametrize('queue', [RX, TX])
def test_head_out_of_range(driver, queue, head):
    ring = driver.pairs[0].tx if queue == TX else driver.pairs[0].rx
    if queue == RX:
        for i in range(ring.size):
            ring.mem.set_u16(ring.avail + 4 + 2 * i, head)
        driver.pairs[0].send(bytes(60))
        driver.notify(TX)
    else:
        ring.post(head)
        driver.notify(TX)
    broken(driver)


@pytest.mark.parametrize('queue,step', [
    (queue, step) for queue in (RX, TX) for step in (65, 100, 0x7fff, 0x8000)] + [(TX, 0xfffe)])
def test_available_index_jumps(ctl, driver, queue, step):
    ring = driver.pairs[0].tx if queue == TX else driver.pairs[0].rx
    ring.jump(step)
    driver.notify(queue)
    if queue == RX:
        driver.pairs[0].send(bytes(60))
        driver.notify(TX)
    broken(driver)


def test_nested_indirect(driver):
    table, inner = buffer(driver), buffer(driver)
    ring = tx(driver)
    ring.set_desc(0, inner, 16, IND, 0, table)
    ring.set_desc(0, table, 16, IND, 0, inner)
    raw_tx(driver, [(table, 16, IND, 0)])
    broken(driver)


@pytest.mark.parametrize('name,entries', [
    ('loop', [(60, N, 0)]), ('loop of two', [(60, N, 1), (60, N, 0)]),
    ('next is the count', [(60, N, 4), (60, N, 4), (60, N, 4), (60, N, 4)]),
    ('next is 65535', [(60, N, 0xffff)] * 4), ('never ends', [(60, N, 1), (60, N, 2), (60, N, 3),
                                                              (60, N, 0)])])
def test_indirect_table(driver, name, entries):
    table, good = buffer(driver), buffer(driver)
    for i, (length, flags, nxt) in enumerate(entries):
        tx(driver).set_desc(i, good, length, flags, nxt, table)
    raw_tx(driver, [(table, 64, IND, 0)])
    broken(driver)


def test_indirect_that_was_not_negotiated(ctl):
    with ctl.net(1, size=1 << 20) as driver:
        driver.start(wanted=virtio.NET_WANTED & ~(1 << virtio.F_INDIRECT))
        table, good = buffer(driver), buffer(driver)
        tx(driver).set_desc(0, good, 60, 0, 0, table)
        raw_tx(driver, [(table, 16, IND, 0)])
        broken(driver)


def split_frame(driver, cuts, indirect):
    """Send header and frame cut into parts of the given lengths; returns the frame."""
    frame = make_frame()
    data = HDR + frame
    good = buffer(driver)
    driver.mem.write(good, data)
    ring = tx(driver)
    parts = []
    at = 0
    for length in list(cuts) + [len(data) - sum(cuts)]:
        parts.append((good + at, length))
        at += length
    if indirect:
        table = buffer(driver, 16 * len(parts))
        for i, (addr, length) in enumerate(parts):
            ring.set_desc(i, addr, length, N if i + 1 < len(parts) else 0, i + 1, table)
        head = ring.free.pop(0)
        ring.set_desc(head, table, 16 * len(parts), IND)
        ring.chains[head] = [head]
        ring.post(head)
    else:
        ring.add([(addr, length, False) for addr, length in parts])
    driver.notify(TX)
    return frame


@pytest.mark.parametrize('indirect', [False, True])
@pytest.mark.parametrize('cuts', [(1,), (11,), (12,), (13,), (6, 6), (1,) * 12, (1,) * 40,
                                  (12, 30)], ids=str)
def test_header_across_descriptors(driver, cuts, indirect):
    """Unusual but legal (section 2.7.4.2): no framing may be assumed."""
    frame = split_frame(driver, cuts, indirect)
    assert driver.receive_frame() == frame


@pytest.mark.parametrize('length', [0, 1, 9, 10, 11, 12, 13, 25])
def test_chain_shorter_than_header_and_frame(ctl, driver, length):
    """No packet in it: dropped or refused, never read beyond."""
    raw_tx(driver, [(buffer(driver), length, 0, 0)])
    ctl.witness.echo()


@pytest.mark.parametrize('sizes', [(1,), (11,), (12,), (13,), (12, 1), (6, 6)], ids=str)
def test_receive_buffers_too_small(ctl, sizes):
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        ring = driver.pairs[0].rx
        good = buffer(driver)
        ring.mem.write(good, b'\xee' * 2048)
        for i, size in enumerate(sizes):
            last = i + 1 == len(sizes)
            ring.set_desc(i, good, size, W | (0 if last else N), i + 1)
        for i in range(ring.size):
            ring.mem.set_u16(ring.avail + 4 + 2 * i, 0)
        for _ in range(4):
            driver.pairs[0].send(os.urandom(1000))
            driver.notify(TX)
        ctl.witness.echo()
        assert driver.mem.read(good + max(sizes), 64) == b'\xee' * 64, 'wrote beyond the buffer'


def test_receive_into_memory_that_is_read_only(ctl):
    """The mapping says that the device may only read: it must not write there."""
    with ctl.net(1, size=1 << 20) as driver, Memory(16 * PAGE, 0x10000000) as ro:
        driver.client.dma_map(ro.base, ro.size, ro.fd, flags=1)
        driver.start()
        ring = driver.pairs[0].rx
        for i in range(ring.size):
            ring.set_desc(i, ro.base, 2048, W)
        driver.pairs[0].send(os.urandom(100))
        driver.notify(TX)
        broken(driver)
        assert ro.read(ro.base, 4096) == bytes(4096)


def test_transmit_from_memory_that_is_write_only(ctl):
    with ctl.net(1, size=1 << 20) as driver, Memory(16 * PAGE, 0x10000000) as wo:
        driver.client.dma_map(wo.base, wo.size, wo.fd, flags=2)
        driver.start()
        raw_tx(driver, [(wo.base, 100, 0, 0)])
        broken(driver)


def test_buffer_over_two_adjacent_mappings(ctl):
    """Contiguous for the guest, two mappings for the device: legal."""
    with ctl.net(1, size=1 << 20) as driver, Memory(PAGE, 0x10000000) as low, \
            Memory(PAGE, 0x10000000 + PAGE) as high:
        driver.client.map_memory(low)
        driver.client.map_memory(high)
        driver.start()
        frame = make_frame(200)
        data = HDR + frame
        low.write(low.end - 50, data[:50])
        high.write(high.base, data[50:])
        tx(driver).add([(low.end - 50, len(data), False)])
        driver.notify(TX)
        assert driver.receive_frame() == frame


@pytest.mark.parametrize('parts,length', [(63, 1000), (64, 1500), (64, 0x10000), (2, 0x80000)])
def test_packet_that_is_too_large(ctl, driver, parts, length):
    area = driver.mem.base
    length = min(length, driver.mem.size)
    raw_tx(driver, [(area, length, N if i + 1 < parts else 0, i + 1) for i in range(parts)])
    ctl.witness.echo()


@pytest.mark.parametrize('header', [
    b'\x01' + bytes(5) + b'\xff\xff\xff\xff' + bytes(2),          # csum_start, csum_offset
    b'\x01' + bytes(5) + struct.pack('<HH', 59, 2) + bytes(2),    # ends beyond the packet
    b'\x01' + bytes(5) + struct.pack('<HH', 60, 0) + bytes(2),
    b'\x01\x01' + struct.pack('<HHHH', 54, 0, 34, 16) + bytes(2),  # TSO with gso_size 0
    b'\x01\x01' + struct.pack('<HHHH', 0xffff, 1448, 34, 16) + bytes(2),
    b'\x01\x04' + struct.pack('<HHHH', 0, 0xffff, 34, 16) + bytes(2),
    b'\x00\x01' + struct.pack('<HHHH', 54, 1448, 34, 16) + bytes(2),  # TSO without checksum
    b'\xff' * 12, b'\x00\x7f' + bytes(10), b'\x00\x80' + bytes(10),
], ids=lambda h: h.hex())
def test_offload_header_that_lies(ctl, header):
    """CVE-2024-11614 and its like: the header says something that the packet is not."""
    offloads = sum(1 << b for b in (0, 1, 7, 8, 11, 12, 15))
    with ctl.net(1, size=1 << 20) as driver:
        driver.start(wanted=virtio.NET_WANTED | offloads)
        for _ in range(4):
            driver.pairs[0].send(os.urandom(60), header)
            driver.notify(TX)
        ctl.witness.echo()


def test_used_ring_on_top_of_the_descriptors(ctl):
    """The device overwrites what it reads: its copy of the descriptor must be what counts."""
    with ctl.net(1, size=1 << 20) as driver:
        driver.begin(virtio.NET_WANTED)
        ring = Ring(driver.mem, 64)
        overlap = Ring(driver.mem, 64, desc=ring.desc, avail=ring.avail, used=ring.desc)
        good = buffer(driver)
        driver.setup_queue(0, Ring(driver.mem, 64))
        driver.setup_queue(1, overlap)
        driver.driver_ok()
        for _ in range(200):
            overlap.set_desc(0, good, 60, 0, 0)
            overlap.post(0)
            driver.notify(1)
        ctl.witness.echo()


def test_ring_changes_while_the_device_reads(ctl, driver):
    """Time of check against time of use: a second CPU flips every field all the time."""
    ring = tx(driver)
    good = buffer(driver)
    stop = threading.Event()
    choices = [(good, 60, 0, 0), (0, 60, 0, 0), (good, 0xffffffff, 0, 0), (good, 60, N, 1),
               (good, 60, N, 0), (good, 32, IND, 0), (good, 60, W, 0), (good, 60, N, 0xffff)]

    def flip():
        i = 0
        while not stop.is_set():
            ring.set_desc(0, *choices[i % len(choices)])
            i += 1

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(15):
            for _ in range(30):
                ring.post(0)
                driver.notify(TX)
            driver.reset()
            driver.start()
            ring = tx(driver)
    finally:
        stop.set()
        thread.join()
    ctl.witness.echo()


@pytest.mark.parametrize('queue', [RX, TX])
def test_index_keeps_running_away(ctl, driver, queue):
    """The available index never stands still: the device must still come back to others."""
    ring = driver.pairs[0].tx if queue == TX else driver.pairs[0].rx
    stop = threading.Event()

    def run():
        while not stop.is_set():
            ring.jump(1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        driver.notify(queue)
        ctl.witness.echo(5)
    finally:
        stop.set()
        thread.join()


# registers of a queue


BAD_ADDRESSES = [0, 1, 0xfff, 0x100001, 0x100002, 0x100008, 1 << 63, (1 << 64) - 1, (1 << 64) - 16]


@pytest.mark.parametrize('register', ['queue_desc', 'queue_driver', 'queue_device'])
@pytest.mark.parametrize('addr', BAD_ADDRESSES + ['end'], ids=lambda a: a if a == 'end' else hex(a))
def test_ring_address(ctl, register, addr):
    with ctl.net(1, size=1 << 20) as driver:
        driver.begin(virtio.NET_WANTED)
        ring = Ring(driver.mem, 64)
        driver.setup_queue(0, Ring(driver.mem, 64))
        driver.put('queue_select', 1)
        driver.put('queue_size', 64)
        for name, value in (('queue_desc', ring.desc), ('queue_driver', ring.avail),
                            ('queue_device', ring.used)):
            driver.put(name, value)
        driver.put(register, driver.mem.end - 16 if addr == 'end' else addr)
        try:
            driver.put('queue_enable', 1)
            driver.driver_ok()
            driver.notify(1)
        except vu.VfioUserError:
            pass
        ctl.witness.echo()


@pytest.mark.parametrize('size', [0, 1, 3, 65, 255, 257, 0x8000, 0x8001, 0xffff])
def test_queue_size(ctl, size):
    with ctl.net(1, size=2 << 20) as driver:
        driver.begin(virtio.NET_WANTED)
        ring = Ring(driver.mem, 256)
        driver.put('queue_select', 1)
        try:
            driver.put('queue_size', size)
            driver.put('queue_desc', ring.desc)
            driver.put('queue_driver', ring.avail)
            driver.put('queue_device', ring.used)
            driver.put('queue_enable', 1)
            driver.driver_ok()
            ring.jump(1)
            driver.notify_offs[1] = driver.get('queue_notify_off')
            driver.notify(1)
        except vu.VfioUserError:
            pass
        ctl.witness.echo()


@pytest.mark.parametrize('index', [9, 10, 64, 0x7fff, 0xffff])
def test_queue_that_is_not_there(ctl, index):
    with ctl.net(1, size=1 << 20) as driver:
        driver.begin(virtio.NET_WANTED)
        driver.put('queue_select', index)
        assert driver.get('queue_size') == 0
        for name in ('queue_size', 'queue_msix_vector', 'queue_enable', 'queue_reset',
                     'queue_desc', 'queue_driver', 'queue_device'):
            try:
                driver.put(name, 1)
            except vu.VfioUserError:
                pass
        driver.driver_ok()
        ctl.witness.echo()


@pytest.mark.parametrize('vector', [10000, 0x800, 0xfffe])
def test_vector_that_is_not_there(ctl, vector):
    with ctl.net(1, size=1 << 20) as driver:
        driver.begin(virtio.NET_WANTED)
        driver.put('queue_select', 0)
        driver.put('queue_msix_vector', vector)
        assert driver.get('queue_msix_vector') == virtio.NO_VECTOR
        driver.put('config_msix_vector', vector)
        assert driver.get('config_msix_vector') == virtio.NO_VECTOR


def test_features_that_were_not_offered(ctl):
    with ctl.net(1, size=1 << 20) as driver:
        driver.reset()
        driver.put('device_status', virtio.S_ACK)
        driver.put('device_status', virtio.S_ACK | virtio.S_DRIVER)
        driver.accept((1 << 64) - 1)
        driver.put('device_status', virtio.S_ACK | virtio.S_DRIVER | virtio.S_FEATURES_OK)
        assert not driver.get('device_status') & virtio.S_FEATURES_OK


def test_driver_without_version_1(ctl):
    """Section 6.1: a device may refuse a driver that does not accept VERSION_1; ours must live."""
    with ctl.net(1, size=1 << 20) as driver:
        driver.reset()
        driver.put('device_status', virtio.S_ACK | virtio.S_DRIVER)
        driver.accept(0)
        driver.put('device_status', virtio.S_ACK | virtio.S_DRIVER | virtio.S_FEATURES_OK)
        driver.driver_ok()


def test_driver_ok_out_of_the_blue(ctl):
    with ctl.net(1, size=1 << 20) as driver:
        driver.reset()
        for status in (4, 8, 0x80, 0x40, 0xff, 0x0f, 0x04):
            driver.put('device_status', status)
            driver.notify(0)
            driver.notify(1)
        driver.reset()


def test_queue_enabled_after_driver_ok_and_changed_while_live(ctl, driver):
    """Registers of a live queue change: the old ring must go on or break, never mix."""
    driver.put('queue_select', TX)
    for name, value in (('queue_desc', 0), ('queue_driver', 1), ('queue_device', 1 << 63),
                        ('queue_size', 3)):
        try:
            driver.put(name, value)
        except vu.VfioUserError:
            pass
    driver.pairs[0].send(bytes(60))
    driver.notify(TX)
    ctl.witness.echo()


def test_queue_reset_under_traffic(ctl, driver):
    if not driver.features >> virtio.F_RING_RESET & 1:
        pytest.skip('RING_RESET is not offered')
    pair = driver.pairs[0]
    for _ in range(20):
        for _ in range(10):
            pair.send(bytes(200))
        driver.notify(TX)
        for index, ring in ((RX, pair.rx), (TX, pair.tx)):
            driver.put('queue_select', index)
            driver.put('queue_reset', 1)
            deadline = time.monotonic() + 5
            while driver.get('queue_reset'):
                assert time.monotonic() < deadline, 'queue reset does not end'
            assert driver.get('queue_enable') == 0
        pair.reset()
        driver.setup_queue(RX, pair.rx)
        driver.setup_queue(TX, pair.tx)
        driver.notify(RX)
        driver.echo()
