# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The admin queue of the PF as an honest driver uses it: doc/admin-protocol.md, step by step."""

import struct

import pytest

from peers import admin, virtio
from peers.memory import Ring, make_frame
from peers.vfio_user import fresh_client
from peers.virtio import AdminPf, NetDriver

VDEV = 2  # VF 1 of the rig

DIRTY_BITS = (admin.F_PUSH_BITMAP, admin.F_PUSH_BYTEMAP, admin.F_PULL_BITMAP, admin.F_PULL_BYTEMAP)


@pytest.fixture
def pf(ctl):
    with AdminPf(fresh_client(ctl.daemon.pf_socket)) as driver:
        driver.start()
        yield driver


@pytest.fixture
def vf(ctl):
    with ctl.net(1, size=4 << 20) as driver:
        yield driver


def test_place_of_the_queue(pf):
    """Directly after the data queues; a name in the common configuration must agree."""
    named = pf.get('admin_queue_index') if pf.get('admin_queue_num') else pf.queue
    assert named == pf.queue
    assert not pf.features >> virtio.NET_F_CTRL_VQ & 1


def test_migration_identity(pf):
    major, minor, tertiary, _ = struct.unpack('<HHHH', pf.ok(64, 0, out=8))
    assert (major, minor, tertiary) != (0xffff, 0xffff, 0xffff)


def test_dirty_identity_agrees_with_the_feature_bits(pf):
    out = pf.ok(65, 0, out=8)
    pull_bitmap, pull_bytemap, ranges = struct.unpack('<HHI', out)
    offered = pf.offered_bits
    if not any(offered >> bit & 1 for bit in DIRTY_BITS):
        status, _ = pf.command(65, 1, struct.pack('<HHIQQ', VDEV, 3, 4096, 0, 1 << 20))
        assert status == admin.INVALID_COMMAND | admin.DNR
        return
    assert ranges >= 1
    assert not offered >> admin.F_PULL_BITMAP & 1 or pull_bitmap
    assert not offered >> admin.F_PULL_BYTEMAP & 1 or pull_bytemap


def test_status_after_vf_reset_is_init(pf, vf):
    vf.reset()
    assert pf.get_status(VDEV) == admin.INIT
    vf.start()
    pf.freeze(VDEV)
    assert pf.get_status(VDEV) == admin.FREEZED
    vf.client.reset()
    assert pf.get_status(VDEV) == admin.INIT


def test_quiesced_from_every_status(pf, vf):
    vf.reset()
    for status in (admin.QUIESCED, admin.QUIESCED, admin.FREEZED, admin.FREEZED, admin.QUIESCED,
                   admin.RUNNING, admin.RUNNING, admin.QUIESCED):
        assert pf.set_status(VDEV, status) == admin.OK
        assert pf.get_status(VDEV) == status


def test_frozen_vf_moves_nothing_and_goes_on_afterwards(pf, vf):
    vf.start()
    vf.echo(5)
    pf.freeze(VDEV)
    before = vf.mem.read(vf.mem.base, vf.mem.size)
    frame = make_frame()
    vf.pairs[0].send(frame)
    changed = vf.mem.read(vf.mem.base, vf.mem.size)
    vf.notify(1)
    assert vf.pairs[0].tx.wait(0.15) is None, 'a frozen VF used a buffer'
    assert vf.mem.read(vf.mem.base, vf.mem.size) == changed != before
    pf.run(VDEV)
    vf.notify(1)
    assert vf.receive_frame() == frame
    vf.echo(5)


def test_quiesced_vf_writes_nothing(pf, vf):
    vf.start()
    assert pf.set_status(VDEV, admin.QUIESCED) == admin.OK
    vf.pairs[0].send(make_frame())
    image = vf.mem.read(vf.mem.base, vf.mem.size)
    vf.notify(1)
    vf.pairs[0].tx.wait(0.1)
    assert vf.mem.read(vf.mem.base, vf.mem.size) == image
    assert pf.set_status(VDEV, admin.RUNNING) == admin.OK
    vf.notify(1)
    assert vf.receive_frame() is not None


def test_freeze_drains(pf, vf):
    """Everything that was fetched is given back before FREEZED completes."""
    vf.start(size=256)
    for _ in range(20):
        for _ in range(60):
            vf.pairs[0].send(make_frame(1000))
        vf.notify(1)
        pf.freeze(VDEV)
        state = admin.State.decode(pf.save(VDEV))
        for index, ring in ((0, vf.pairs[0].rx), (1, vf.pairs[0].tx)):
            queue = state.queues[index]
            assert queue.avail == queue.used == ring.used_idx(), \
                f'queue {index}: {queue.avail}/{queue.used}, memory says {ring.used_idx()}'
        pf.run(VDEV)
        vf.notify(0)
        vf.notify(1)
        while vf.receive_frame(0.05) is not None:
            pass


def test_saved_state_is_what_the_registers_say(pf, vf):
    vf.start(pairs=2, vectors=True)
    vf.echo(9, 0)
    vf.echo(4, 1)
    pf.freeze(VDEV)
    state = admin.State.decode(pf.save(VDEV))
    assert state.status == vf.get('device_status') == 0xf
    assert state.device_feature == vf.offered()
    assert state.driver_feature == vf.features
    assert state.num_queues == vf.get('num_queues') == len(state.queues)
    assert state.dev_cfg[:12] == vf.device_config(0, 12)
    for index, queue in state.queues.items():
        vf.put('queue_select', index)
        assert queue.enable == vf.get('queue_enable')
        assert queue.vector == vf.get('queue_msix_vector')
        assert queue.notify_off == vf.get('queue_notify_off')
        if queue.enable:
            assert queue.size == vf.get('queue_size')
            assert (queue.desc, queue.driver, queue.device) == (
                vf.get('queue_desc'), vf.get('queue_driver'), vf.get('queue_device'))
    assert state.queues[1].used == 9 and state.queues[3].used == 4
    pf.run(VDEV)
    vf.echo(3, 0)


def test_save_while_running_does_not_disturb(pf, vf):
    vf.start()
    vf.echo(3)
    for _ in range(20):
        blob = pf.save(VDEV)
        assert len(admin.State.decode(blob).queues) == vf.get('num_queues')
        vf.echo(2)


def test_restore_round_trip(pf, vf):
    """Freeze, save, reset, restore, run: indices and interrupts go on where they were."""
    vf.start(pairs=2, vectors=True)
    vf.echo(13, 0)
    vf.echo(5, 1)
    pf.freeze(VDEV)
    blob = pf.save(VDEV)
    vf.reset()
    pf.freeze(VDEV)
    assert pf.restore(VDEV, blob + bytes(-len(blob) % 4096)) == admin.OK
    pf.run(VDEV)
    assert vf.get('device_status') == 0xf
    for index in range(4):
        vf.notify(index)
    vf.echo(20, 0)
    vf.echo(20, 1)
    assert vf.pairs[0].tx.used_idx() == 33 and vf.pairs[1].tx.used_idx() == 25
    vf.interrupts(1)
    vf.send_frame(make_frame())
    assert vf.wait_interrupt(1), 'interrupts were lost in the restore'
    again = admin.State.decode(pf.save(VDEV))
    first = admin.State.decode(blob)
    assert again.driver_feature == first.driver_feature
    assert {i: (q.desc, q.enable, q.vector) for i, q in again.queues.items()} == \
        {i: (q.desc, q.enable, q.vector) for i, q in first.queues.items()}


def test_restore_at_a_high_index(pf, vf):
    """The driver builds the blob itself: rings that start at index 65530 cross the wrap."""
    vf.start()
    pf.freeze(VDEV)
    state = admin.State.decode(pf.save(VDEV))
    pair = vf.pairs[0]
    pair.reset(65530)
    for index in (0, 1):
        state.queues[index].avail = state.queues[index].used = 65530
    assert pf.restore(VDEV, state.encode()) == admin.OK
    pf.run(VDEV)
    vf.notify(0)
    vf.echo(40)
    assert pair.tx.used_idx() == (65530 + 40) & 0xffff


def test_restore_of_rings_that_the_device_never_saw(pf, vf):
    """What the service does: no register was programmed, everything comes by RESTORE."""
    vf.begin(virtio.NET_WANTED)
    features = vf.features
    vf.start()
    pair = vf.pairs[0]
    vf.reset()
    pf.freeze(VDEV)
    state = admin.State.decode(pf.save(VDEV))
    pair.reset()
    state.driver_feature = features
    state.status = 0xf
    for index, ring in ((0, pair.rx), (1, pair.tx)):
        queue = state.queues[index]
        queue.size, queue.enable = ring.size, 1
        queue.desc, queue.driver, queue.device = ring.desc, ring.avail, ring.used
        queue.avail = queue.used = 0
    assert pf.restore(VDEV, state.encode()) == admin.OK
    pf.run(VDEV)
    vf.notify_offs.update({i: state.queues[i].notify_off for i in (0, 1)})
    vf.notify(0)
    vf.echo(10)
    assert vf.get('device_status') == 0xf


def test_parked_vf_is_dead(pf, vf):
    vf.start()
    vf.echo()
    pf.freeze(VDEV)
    state = admin.State.decode(pf.save(VDEV))
    state.status = 3
    for queue in state.queues.values():
        queue.enable = 0
    assert pf.restore(VDEV, state.encode()) == admin.OK
    pf.run(VDEV)
    vf.pairs[0].send(make_frame())
    vf.notify(1)
    assert vf.pairs[0].tx.wait(0.1) is None, 'a parked VF used a buffer'


def test_field_count_of_the_incumbent(pf, vf):
    """Its driver counts one field too few and drops the last run state: the count decides."""
    vf.start()
    pf.freeze(VDEV)
    state = admin.State.decode(pf.save(VDEV))
    state.rx_mode = 1
    count = len(list(state.fields()))
    assert pf.restore(VDEV, state.encode(count=count - 1)) == admin.OK
    pf.run(VDEV)
    vf.notify(0)
    vf.notify(1)
    vf.echo(3)


def test_unknown_optional_fields_are_skipped(pf, vf):
    vf.start()
    pf.freeze(VDEV)
    state = admin.State.decode(pf.save(VDEV))
    state.other += [(10, b'vendor'), (77, bytes(100)), (8, struct.pack('<HH', 0, 0))]
    assert pf.restore(VDEV, state.encode()) == admin.OK
    pf.run(VDEV)


def test_reserved_bytes_are_ignored(pf, vf):
    vf.start()
    assert pf.command(64, 2, struct.pack('<HH', VDEV, admin.QUIESCED))[0] == admin.OK
    out = pf.ok(64, 1, struct.pack('<HH', VDEV, 0xffff), out=4)
    assert struct.unpack_from('<H', out)[0] == admin.QUIESCED
    assert pf.ok(64, 3, struct.pack('<HH', VDEV, 0x1234), out=8)
    length = pf.pending(VDEV)
    pf.ok(64, 4, struct.pack('<H', VDEV) + b'\xff' * 6 + struct.pack('<QQ', 0, length), out=length)


def test_many_commands_in_flight(ctl, pf, vf):
    """Asynchronous: 20 commands are posted before the doorbell rings once."""
    ring = Ring(pf.mem, pf.ring.size)
    assert ring.size >= 64, f'admin queue of {ring.size}'
    heads = {}
    for i in range(20):
        base = pf.mem.alloc(64, 64)
        vdev = 1 + i % ctl.daemon.nr_vfs
        pf.mem.write(base, b'\x40\x01' + struct.pack('<HH', vdev, 0))
        pf.mem.write(base + 32, b'\xff')
        head = pf.ring.add([(base, 2, False), (base + 2, 4, False), (base + 16, 4, True),
                            (base + 32, 1, True)])
        heads[head] = base
    pf.notify(pf.queue)
    for _ in range(20):
        head, _ = pf.ring.wait()
        assert pf.mem.read(heads.pop(head) + 32, 1) == b'\0'
    assert not heads


def test_two_vfs_are_independent(ctl, pf, vf):
    vf.start()
    with ctl.net(2) as other:
        other.start()
        pf.freeze(VDEV)
        other.echo(5)
        ctl.witness.echo(5)
        assert pf.get_status(VDEV + 1) != admin.FREEZED
        pf.run(VDEV)
        vf.notify(0)
        vf.echo(5)


def test_admin_queue_interrupt(ctl):
    with AdminPf(fresh_client(ctl.daemon.pf_socket)) as pf:
        pf.start()
        pf.enable_msix(2)
        pf.begin(pf.WANTED)
        ring = Ring(pf.mem, pf.ring.size)
        pf.ring = ring
        pf.setup_queue(pf.queue, ring, 1)
        pf.driver_ok()
        pf.ok(64, 0, out=8)
        assert pf.wait_interrupt(1)


def test_rx_mode_travels_with_the_state(pf, ctl):
    wanted = virtio.NET_WANTED | 1 << virtio.NET_F_CTRL_VQ | 1 << virtio.NET_F_CTRL_RX
    with ctl.net(1) as vf:
        vf.start(wanted=wanted)
        assert vf.ctrl(0, 0, b'\1') == 0
        pf.freeze(VDEV)
        blob = pf.save(VDEV)
        state = admin.State.decode(blob)
        assert state.rx_mode is not None and state.rx_mode & 1
        vf.reset()
        pf.freeze(VDEV)
        assert pf.restore(VDEV, blob) == admin.OK
        pf.run(VDEV)
        assert admin.State.decode(pf.save(VDEV)).rx_mode & 1


def test_state_of_a_vf_without_driver(pf, ctl):
    with NetDriver(fresh_client(ctl.daemon.vf_socket(3))) as vf:
        vf.reset()
        pf.freeze(4)
        state = admin.State.decode(pf.save(4))
        assert state.status == 0
        assert all(not q.enable for q in state.queues.values())
