# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The software DPU as an honest driver sees it: registers, packets, interrupts, filters, reset."""

import os
import struct
import time

import pytest

from peers import admin, daemons, virtio
from peers import vfio_user as vu
from peers.memory import AVAIL_F_NO_INTERRUPT, NET_HDR, Memory, make_frame
from peers.virtio import AdminPf, NetDriver

PF = daemons.Controller.PF
CTRL = virtio.NET_WANTED | sum(1 << b for b in (
    virtio.NET_F_STATUS, virtio.NET_F_CTRL_VQ, virtio.NET_F_CTRL_RX, virtio.NET_F_CTRL_VLAN,
    virtio.NET_F_CTRL_MAC_ADDR, virtio.NET_F_MQ, virtio.NET_F_GUEST_ANNOUNCE))

OFFERED_VF = (0, 1, 3, 5, 7, 8, 11, 12, 15, 16, 17, 18, 19, 21, 22, 23, 28, 29, 32, 33, 40)


@pytest.fixture
def vf(ctl):
    with ctl.net(1, size=4 << 20) as driver:
        yield driver


@pytest.fixture
def pf(ctl):
    with AdminPf(vu.fresh_client(ctl.daemon.pf_socket)) as driver:
        yield driver


# identity and configuration space


@pytest.mark.parametrize('which', ['pf', 'vf'])
def test_identity(request, which):
    function = request.getfixturevalue(which)
    assert (function.vendor, function.device) == (0x1af4, 0x1041)
    assert function.revision >= 1
    head = function.config(0, 64)
    assert head[0xb] == 2 and head[0xa] == 0, 'not an Ethernet controller'
    assert set(function.caps) >= {virtio.CFG_COMMON, virtio.CFG_NOTIFY, virtio.CFG_ISR,
                                  virtio.CFG_DEVICE}
    assert function.config_size == 4096


@pytest.mark.parametrize('which', ['pf', 'vf'])
def test_structures_lie_inside_their_bars(request, which):
    function = request.getfixturevalue(which)
    areas = []
    for kind, (bar, offset, size) in function.caps.items():
        if kind == virtio.CFG_PCI:
            continue
        assert offset + size <= function.client.region_info(bar).size
        areas.append((bar, offset, offset + size))
    areas.sort()
    for (bar, _, end), (next_bar, begin, _) in zip(areas, areas[1:]):
        assert bar != next_bar or end <= begin, 'virtio structures overlap'
    bar, offset, size = function.caps[virtio.CFG_NOTIFY]
    assert function.notify_multiplier == 4096 and offset % 4096 == 0
    assert size >= 4096 * function.get('num_queues')
    assert function.caps[virtio.CFG_COMMON][2] >= 60


@pytest.mark.parametrize('which', ['pf', 'vf'])
def test_vectors(request, which):
    function = request.getfixturevalue(which)
    count = function.client.irq_info(vu.IRQ_MSIX)[3]
    pairs, = struct.unpack('<H', function.device_config(8, 2))
    assert count == function.msix['count'] >= 2 * pairs + 1
    table, pba = function.msix['table'], function.msix['pba']
    size = function.client.region_info(table & 7).size
    assert (table & ~7) + 16 * count <= size
    assert (pba & ~7) + (count + 63) // 64 * 8 <= function.client.region_info(pba & 7).size
    for index in (0, 1, 3, 4):
        assert function.client.irq_info(index)[3] in (0, 1)


def test_device_info(vf):
    _, flags, regions, irqs = vf.client.device_info()
    assert flags & 3 == 3 and regions == 9 and irqs == 5


def test_sriov_names_the_vfs(ctl, pf):
    assert pf.sriov, 'the PF has no SR-IOV capability'
    assert pf.sriov['ctrl'] & 1, 'VF Enable is off'
    assert pf.sriov['total_vfs'] >= pf.sriov['num_vfs'] == ctl.daemon.nr_vfs
    rid = daemons.bdf_rid(PF)
    for i in range(ctl.daemon.nr_vfs):
        vf = rid + pf.sriov['first'] + i * pf.sriov['stride']
        assert vf == daemons.bdf_rid(ctl.daemon.vf(i))
        assert os.path.exists(ctl.daemon.vf_socket(i))
    assert pf.sriov['vf_device'] == 0x1041


def test_vf_has_no_sriov(vf):
    assert not vf.sriov


def test_device_config(ctl, vf):
    mac = vf.device_config(0, 6)
    base = bytes.fromhex('000000003300')
    assert mac[:5] == base[:5] and mac[5] in (1, 2), mac.hex()
    status, pairs, mtu = struct.unpack('<HHH', vf.device_config(6, 6))
    assert status & 1 and pairs == 4 and mtu == 1500
    with ctl.net(2) as other:
        assert other.device_config(0, 6) != mac


def test_offered_features(vf):
    offered = vf.offered()
    missing = [b for b in OFFERED_VF if not offered >> b & 1]
    assert not missing, f'feature bits {missing} are not offered'
    for bit in (26, 30, 34, 41):
        assert not offered >> bit & 1, f'feature bit {bit} is offered'


def test_offered_features_of_the_pf(pf):
    offered = pf.offered()
    for bit in (32, 33, admin.F_ADMIN_VQ, admin.F_MIGRATION):
        assert offered >> bit & 1, f'feature bit {bit} is not offered'


def test_feature_words_beyond_the_second_are_zero(vf):
    for word in (2, 3, 100, 0xffffffff):
        vf.put('device_feature_select', word)
        assert vf.get('device_feature') == 0


def test_queues_before_start(vf):
    vf.reset()
    count = vf.get('num_queues')
    assert count >= 2 * 4 + 1
    offs = set()
    for index in range(count):
        vf.put('queue_select', index)
        size = vf.get('queue_size')
        assert size and size & size - 1 == 0 and size <= 32768
        assert vf.get('queue_enable') == 0
        assert vf.get('queue_msix_vector') == virtio.NO_VECTOR
        offs.add(vf.get('queue_notify_off'))
    assert len(offs) == count, 'two queues share a doorbell page'


def test_notify_area_is_told_to_be_mappable(vf):
    """One page per queue, mappable: sparse area or whole BAR, or ioeventfds when event driven."""
    bar, offset, size = vf.caps[virtio.CFG_NOTIFY]
    info = vf.client.region_info(bar)
    subs, fds = vf.client.region_io_fds(bar)
    try:
        mapped = info.flags & 4 and (not info.areas or any(
            a <= offset and offset + 4096 <= a + n for a, n in info.areas))
        assert mapped or subs
        for sub in subs:
            assert offset <= sub[0] < offset + size and sub[2] < len(fds) and sub[3] == 0
    finally:
        for fd in fds + ([info.fd] if info.fd >= 0 else []):
            os.close(fd)


def test_config_writes_that_a_driver_makes(vf):
    vf.client.write(vu.REGION_CONFIG, 4, b'\x06\x04')
    assert struct.unpack('<H', vf.config(4, 2))[0] & 6 == 6
    ctrl_at = vf.msix['cap'] + 2
    vf.client.write(vu.REGION_CONFIG, ctrl_at, b'\x00\x80')
    assert vf.config(ctrl_at + 1, 1)[0] & 0x80
    vf.client.write(vu.REGION_CONFIG, ctrl_at, b'\x00\x00')
    assert not vf.config(ctrl_at + 1, 1)[0] & 0x80


def test_msix_table_reads_back(vf):
    table = vf.msix['table']
    entry = struct.pack('<QII', 0xfee00000, 0x4041, 0)
    for at in range(0, 16, 4):
        vf.client.write(table & 7, (table & ~7) + at, entry[at:at + 4])
    assert b''.join(vf.client.read(table & 7, (table & ~7) + at, 4)
                    for at in range(0, 16, 4)) == entry


def test_access_through_the_pci_cfg_capability(vf):
    """Section 4.1.4.9: registers reached by configuration space only."""
    if not hasattr(vf, 'pci_cfg_cap'):
        pytest.skip('no PCI_CFG capability')
    bar, base, _ = vf.caps[virtio.CFG_COMMON]
    vf.client.write(vu.REGION_CONFIG, vf.pci_cfg_cap + 4, bytes([bar]))
    vf.client.write(vu.REGION_CONFIG, vf.pci_cfg_cap + 8, struct.pack('<II', base + 18, 2))
    count, = struct.unpack('<H', vf.config(vf.pci_cfg_cap + 16, 2))
    assert count == vf.get('num_queues')


# packets


@pytest.mark.parametrize('indirect', [False, True])
@pytest.mark.parametrize('size', [60, 512, 1514])
def test_echo(vf, size, indirect):
    vf.start(indirect=indirect)
    vf.echo(50, size=size)


@pytest.mark.parametrize('queue_size', [2, 8, 256])
def test_queue_sizes(vf, queue_size):
    vf.start(size=queue_size)
    vf.echo(600 if queue_size == 2 else 300)


def test_index_wraps(vf):
    """More packets than a 16-bit index counts would take long: begin near its end instead."""
    vf.start(size=16)
    pair = vf.pairs[0]
    vf.reset()
    vf.begin(virtio.NET_WANTED)
    vf.setup_queue(0, pair.rx)
    vf.setup_queue(1, pair.tx)
    vf.driver_ok()
    pair.reset()
    vf.notify(0)
    vf.echo(200)


@pytest.mark.parametrize('pairs', [1, 2, 4])
def test_multi_queue(vf, pairs):
    vf.start(pairs=pairs)
    for _ in range(5):
        for pair in range(pairs):
            vf.echo(3, pair)


def test_burst_keeps_its_order(vf):
    vf.start(size=128)
    frames = [make_frame(64 + i) for i in range(100)]
    for frame in frames:
        vf.pairs[0].send(frame)
    vf.notify(1)
    assert [vf.receive_frame() for _ in frames] == frames


def test_pf_is_a_nic_too(ctl):
    with NetDriver(vu.fresh_client(ctl.daemon.pf_socket)) as driver:
        driver.start()
        driver.echo(10)


def test_merged_receive_buffers(vf):
    """A frame larger than one buffer comes in several, counted by num_buffers."""
    vf.begin(virtio.NET_WANTED | 1 << virtio.NET_F_MRG_RXBUF)
    if not vf.features >> virtio.NET_F_MRG_RXBUF & 1:
        pytest.fail('MRG_RXBUF is not offered')
    vf.start(wanted=virtio.NET_WANTED | 1 << virtio.NET_F_MRG_RXBUF)
    ring = vf.pairs[0].rx
    area = vf.mem.alloc(64 * 256, 4096)
    for i in range(ring.size):
        ring.set_desc(i, area + 256 * i, 256, 2)
    frame = make_frame(1400)
    # drain what was posted with the large size: descriptors are read when taken
    vf.send_frame(frame)
    first = ring.wait()
    assert first is not None
    parts = [first]
    need = -(-(len(frame) + NET_HDR) // 256)
    if first[1] > 256:
        pytest.skip('the device had fetched the descriptors before')
    while len(parts) < need:
        got = ring.wait()
        assert got is not None, f'{len(parts)} of {need} buffers came'
        parts.append(got)
    data = b''.join(vf.mem.read(area + 256 * head, length) for head, length in parts)
    assert struct.unpack_from('<H', data, 10)[0] == need
    assert data[NET_HDR:] == frame


def test_packets_wait_for_receive_buffers(vf):
    """The loopback back end loses nothing: what finds no buffer stays in the transmit queue."""
    vf.start(size=64)
    frames = [make_frame(64 + i) for i in range(110)]
    for frame in frames:
        vf.pairs[0].send(frame)
        vf.notify(1)
        if not vf.pairs[0].tx.free:
            break
    sent = frames[:vf.pairs[0].tx.avail_idx]
    assert len(sent) >= 64
    for frame in sent:
        assert vf.receive_frame() == frame
    vf.echo(10)


def test_mapping_elsewhere(ctl):
    """Guest memory at a high address, mapped at an offset of its file."""
    base = 0x3f0000000000
    with ctl.net(1, base=base) as driver:
        driver.start()
        driver.echo(5)


def test_used_length_of_transmit_is_zero_or_ignored(vf):
    vf.start()
    head = vf.pairs[0].send(make_frame())
    vf.notify(1)
    got = vf.pairs[0].tx.wait()
    assert got is not None and got[0] == head and got[1] == 0


# interrupts


def test_msix_interrupts(vf):
    vf.start(vectors=True)
    vf.send_frame(make_frame())
    assert vf.wait_interrupt(1), 'no interrupt for receive'
    assert vf.receive_frame() is not None
    assert vf.interrupts(0) == 0, 'a configuration interrupt for nothing'


def test_interrupts_suppressed(vf):
    vf.start(vectors=True)
    for ring in (vf.pairs[0].rx, vf.pairs[0].tx):
        vf.mem.set_u16(ring.avail, AVAIL_F_NO_INTERRUPT)
    vf.echo(5)
    vf.interrupts(1), vf.interrupts(2)
    vf.echo(20)
    assert vf.interrupts(1) == 0 and vf.interrupts(2) == 0


def test_event_index(vf):
    """With EVENT_IDX the interrupt comes when used_event is passed, not before."""
    vf.start(vectors=True, wanted=virtio.NET_WANTED | 1 << virtio.F_EVENT_IDX)
    rx = vf.pairs[0].rx
    used_event = rx.avail + 4 + 2 * rx.size
    avail_event = rx.used + 4 + 8 * rx.size
    assert vf.features >> virtio.F_EVENT_IDX & 1
    vf.mem.set_u16(used_event, 9)
    vf.echo(1)
    vf.wait_interrupt(1, 0.05)  # the first one may come anyhow: nobody knows the old index
    vf.echo(8)
    assert vf.interrupts(1) == 0, 'interrupt before used_event'
    vf.echo(1)
    assert vf.wait_interrupt(1), 'no interrupt when used_event was passed'
    assert vf.mem.u16(avail_event) <= 0xffff


def test_interrupt_moved_to_another_vector(vf):
    vf.start(vectors=True)
    vf.echo()
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    vf.client.set_irqs(vu.IRQ_MSIX, vu.IRQ_EVENTFD | vu.IRQ_TRIGGER, 1, 1, [fd])
    os.close(vf.irqs[1])
    vf.irqs[1] = fd
    vf.send_frame(make_frame())
    assert vf.wait_interrupt(1)


def test_interrupt_withdrawn(vf):
    vf.start(vectors=True)
    vf.client.set_irqs(vu.IRQ_MSIX, vu.IRQ_NONE | vu.IRQ_TRIGGER, 0, 0)
    vf.interrupts(1)
    vf.echo(5)
    assert vf.interrupts(1) == 0


# reset


def test_reset_clears_everything(vf):
    vf.start(vectors=True)
    vf.echo()
    vf.reset()
    assert vf.get('device_status') == 0
    assert vf.get('config_msix_vector') == virtio.NO_VECTOR
    for index in (0, 1):
        vf.put('queue_select', index)
        assert vf.get('queue_enable') == 0
        assert vf.get('queue_msix_vector') == virtio.NO_VECTOR
        assert vf.get('queue_desc') == 0
    for word in (0, 1):
        vf.put('driver_feature_select', word)
        assert vf.get('driver_feature') == 0


def test_function_level_reset(vf):
    vf.start()
    vf.echo()
    vf.client.reset()
    assert vf.get('device_status') == 0
    vf.start()
    vf.echo()


def test_device_keeps_its_state_without_a_client(ctl):
    """The client goes, registers stay; the next one maps memory again: it goes on, or is told."""
    with Memory(4 << 20, 0x100000) as memory:
        with ctl.net(1, mem=memory) as first:
            first.start()
            first.echo()
            pair = first.pairs[0]
        with ctl.net(1, mem=memory) as second:
            second.notify_offs = {0: 0, 1: 1}
            second.notify(0)
            second.notify(1)
            status = second.get('device_status')
            assert status & virtio.S_DRIVER_OK
            if not status & virtio.S_NEEDS_RESET:
                second.pairs = [pair]
                second.echo(3)


def test_nothing_moves_before_driver_ok(vf):
    vf.begin(virtio.NET_WANTED)
    vf.start()
    pair = vf.pairs[0]
    vf.begin(virtio.NET_WANTED)
    pair.reset()
    vf.setup_queue(0, pair.rx)
    vf.setup_queue(1, pair.tx)
    pair.send(make_frame())
    vf.notify(1)
    assert pair.tx.wait(0.1) is None, 'a packet was sent before DRIVER_OK'
    vf.driver_ok()
    vf.notify(1)
    assert pair.tx.wait() is not None


def test_features_ok_is_kept(vf):
    vf.begin(virtio.NET_WANTED)
    assert vf.get('device_status') == 11


# control queue


@pytest.fixture
def ctrl(vf):
    vf.start(wanted=CTRL)
    yield vf


def test_control_mac_address(ctrl):
    mac = b'\x02\xaa\xbb\xcc\xdd\xee'
    assert ctrl.ctrl(1, 1, mac) == 0
    assert ctrl.device_config(0, 6) == mac


def test_control_receive_modes(ctrl):
    for cmd in range(6):
        ack = ctrl.ctrl(0, cmd, b'\1')
        assert ack in (0, 1) and (cmd > 1 or ack == 0)
        assert ctrl.ctrl(0, cmd, b'\0') in (0, 1)


def test_control_pairs(ctrl):
    for pairs in (4, 1, 2, 4):
        assert ctrl.ctrl(4, 0, struct.pack('<H', pairs)) == 0
    ctrl.echo(3)


def test_control_announce_ack(ctrl):
    assert ctrl.ctrl(3, 0) == 0
    assert not struct.unpack('<H', ctrl.device_config(6, 2))[0] & 2


# queue reset


def test_queue_reset(vf):
    vf.start()
    vf.echo(7)
    assert vf.features >> virtio.F_RING_RESET & 1, 'RING_RESET is not offered'
    pair = vf.pairs[0]
    vf.put('queue_select', 1)
    vf.put('queue_reset', 1)
    deadline = time.monotonic() + 5
    while vf.get('queue_reset'):
        assert time.monotonic() < deadline
    assert vf.get('queue_enable') == 0
    pair.tx.free = list(range(pair.tx.size))
    pair.tx.chains.clear()
    pair.tx.start_at(0)
    vf.setup_queue(1, pair.tx)
    vf.echo(7)
