# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Garbage in the control queue of a VF and in the admin queue of the PF."""

import os
import struct
import time

import pytest

from peers import admin, daemons, virtio
from peers.virtio import AdminPf, NetDriver
from peers.vfio_user import fresh_client

WANTED = virtio.NET_WANTED | sum(1 << b for b in (
    virtio.NET_F_STATUS, virtio.NET_F_CTRL_VQ, virtio.NET_F_CTRL_RX, virtio.NET_F_CTRL_VLAN,
    virtio.NET_F_CTRL_MAC_ADDR, virtio.NET_F_MQ, virtio.NET_F_GUEST_ANNOUNCE))

VICTIM = 2  # VF 1 of the rig: vdev_id counts from 1


@pytest.fixture
def net(ctl):
    with ctl.net(1, size=2 << 20) as driver:
        driver.start(wanted=WANTED)
        yield driver


def raw_ctrl(driver, segments):
    """Post any chain on the control queue."""
    driver.ctrl_ring.add(segments)
    driver.notify(driver.ctrl_index)


COMMANDS = [
    # class, command, bytes of data
    (0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1), (0, 5, 1),
    (1, 0, 8), (1, 1, 6), (2, 0, 2), (2, 1, 2), (3, 0, 0), (4, 0, 2),
]


@pytest.mark.parametrize('class_,cmd,length', COMMANDS)
def test_control_command_with_less_or_more_data(net, class_, cmd, length):
    for size in range(0, length):
        assert net.ctrl(class_, cmd, b'\1' * size) == 1, f'{size} bytes were accepted'
    for size in (length + 1, length + 100, 3000):
        net.ctrl(class_, cmd, bytes(size))
    net.echo()


@pytest.mark.parametrize('class_,cmd', [(0, 6), (0, 255), (1, 2), (2, 2), (3, 1), (4, 3), (5, 0),
                                        (6, 0), (64, 0), (65, 1), (255, 255)])
def test_control_command_unknown(net, class_, cmd):
    assert net.ctrl(class_, cmd, bytes(8)) == 1


@pytest.mark.parametrize('pairs', [0, 5, 128, 0x8000, 0x8001, 0xffff])
def test_control_bad_number_of_pairs(net, pairs):
    assert net.ctrl(4, 0, struct.pack('<H', pairs)) == 1
    net.echo()


@pytest.mark.parametrize('vlan', [4096, 0x8000, 0xffff])
@pytest.mark.parametrize('cmd', [0, 1])
def test_control_bad_vlan(net, vlan, cmd):
    assert net.ctrl(2, cmd, struct.pack('<H', vlan)) == 1


@pytest.mark.parametrize('table', [
    struct.pack('<I', 0xffffffff), struct.pack('<I', 1), struct.pack('<I', 1) + bytes(5),
    struct.pack('<I', 0x2aaaaaab) + bytes(6), struct.pack('<II', 0, 0xffffffff),
    struct.pack('<II', 0, 1) + bytes(5), struct.pack('<I', 2) + bytes(12) + struct.pack('<I', 9),
    struct.pack('<II', 0, 0x80000000) + bytes(600), struct.pack('<I', 600) + bytes(3300)],
    ids=lambda t: t[:12].hex())
def test_control_mac_table_that_lies(net, table):
    assert net.ctrl(1, 0, table) == 1
    assert net.ctrl(1, 0, struct.pack('<II', 0, 0)) == 0


CTRL_CHAINS = {
    'empty command': lambda b: [(b + 100, 1, True)],
    'one byte': lambda b: [(b, 1, False), (b + 100, 1, True)],
    'no ack': lambda b: [(b, 3, False)],
    'ack of 0 bytes': lambda b: [(b, 3, False), (b + 100, 0, True)],
    'only writable': lambda b: [(b, 64, True), (b + 100, 1, True)],
    'ack of 4000 bytes': lambda b: [(b, 3, False), (b + 16, 4000, True)],
    'many acks': lambda b: [(b, 3, False)] + [(b + 100 + i, 1, True) for i in range(10)],
    'zero lengths': lambda b: [(b, 0, False), (b, 0, False), (b + 100, 0, True)],
}


@pytest.mark.parametrize('name', sorted(CTRL_CHAINS))
def test_control_chain(ctl, net, name):
    net.mem.write(net.ctrl_buf, b'\0\0\1')
    raw_ctrl(net, CTRL_CHAINS[name](net.ctrl_buf))
    ctl.witness.echo()


@pytest.mark.parametrize('segments', [
    lambda b, e: [(e, 2, False), (b, 1, True)],
    lambda b, e: [(b, 2, False), (e - 1, 100, False), (b, 1, True)],
    lambda b, e: [(b, 3, False), (e, 1, True)],
    lambda b, e: [(b, 0xffffffff, False), (b, 1, True)],
    lambda b, e: [(b, 3, False), ((1 << 64) - 1, 1, True)],
], ids=['command', 'data', 'ack', 'length', 'ack at -1'])
def test_control_addresses(ctl, net, segments):
    raw_ctrl(net, segments(net.ctrl_buf, net.mem.end))
    ctl.witness.echo()


def test_control_self_loop(ctl, net):
    ring = net.ctrl_ring
    ring.set_desc(0, net.ctrl_buf, 2, 1, 0)
    ring.post(0)
    net.notify(net.ctrl_index)
    ctl.witness.echo()


def test_control_index_jump(ctl, net):
    net.ctrl_ring.jump(1000)
    net.notify(net.ctrl_index)
    ctl.witness.echo()


@pytest.mark.parametrize('cuts', [1, 2, 3])
def test_control_command_in_small_parts(net, cuts):
    """Legal (section 2.7.4.2): class, command and data split anywhere."""
    mac = b'\x02\x11\x22\x33\x44\x55'
    data = b'\x01\x01' + mac
    net.mem.write(net.ctrl_buf, data)
    net.mem.write(net.ctrl_buf + 100, b'\xff')
    parts = [(net.ctrl_buf + i, min(cuts, len(data) - i), False)
             for i in range(0, len(data), cuts)]
    raw_ctrl(net, parts + [(net.ctrl_buf + 100, 1, True)])
    assert net.ctrl_ring.wait() is not None
    assert net.mem.read(net.ctrl_buf + 100, 1) == b'\0'
    assert net.device_config(0, 6) == mac


def test_control_flood(ctl, net):
    for _ in range(300):
        assert net.ctrl(0, 0, b'\1') == 0
        assert net.ctrl(0, 0, b'\0') == 0
    ctl.witness.echo()


# admin queue


@pytest.fixture
def pf(ctl):
    with AdminPf(fresh_client(ctl.daemon.pf_socket)) as driver:
        driver.start()
        yield driver
        driver.client.close()


def admin_alive(ctl):
    """A fresh driver of the PF works, and the witness VF was not touched."""
    with AdminPf(fresh_client(ctl.daemon.pf_socket)) as driver:
        driver.start()
        driver.ok(admin.CLASS_MIGRATION, admin.IDENTITY, out=8)
    ctl.witness.echo()


@pytest.mark.parametrize('class_', [0, 1, 63, 66, 127, 128, 192, 255])
def test_admin_unknown_class(pf, class_):
    status, _ = pf.command(class_, 0, bytes(8), out=8)
    assert status == admin.INVALID_CLASS | admin.DNR


@pytest.mark.parametrize('class_,cmd', [(64, 6), (64, 255), (65, 5), (65, 200)])
def test_admin_unknown_command(pf, class_, cmd):
    status, _ = pf.command(class_, cmd, bytes(24), out=8)
    assert status == admin.INVALID_COMMAND | admin.DNR


INPUTS = [(64, 1, 4, 4), (64, 2, 4, 0), (64, 3, 4, 8), (64, 4, 24, 8), (64, 5, 24, 0),
          (65, 1, 24, 0), (65, 2, 16, 0), (65, 3, 16, 8), (65, 4, 32, 8)]


@pytest.mark.parametrize('class_,cmd,length,out', INPUTS)
def test_admin_input_too_short(pf, class_, cmd, length, out):
    for size in range(0, length):
        status, _ = pf.command(class_, cmd, bytes([VICTIM, 0, 0, 0])[:size].ljust(size, b'\0'),
                               out=out)
        assert status & admin.DNR and status & 0x7f, f'{size} bytes: status {status:#x}'


@pytest.mark.parametrize('class_,cmd,length,out', INPUTS)
def test_admin_output_too_short(pf, class_, cmd, length, out):
    """No room for the result: an error status, nothing written elsewhere."""
    for size in range(0, out):
        data = struct.pack('<H6xQQ', VICTIM, 0, 8).ljust(length, b'\0')[:length]
        pf.mem.write(pf.buf_out, b'\xee' * 16)
        status, _ = pf.command(class_, cmd, data, out=size)
        assert status & 0x7f, f'{size} of {out} bytes: status {status:#x}'


@pytest.mark.parametrize('vdev', [0, 5, 6, 255, 0x7fff, 0xffff])
@pytest.mark.parametrize('class_,cmd,length,out', INPUTS)
def test_admin_vdev_that_is_not_there(pf, class_, cmd, length, out, vdev):
    data = struct.pack('<H', vdev).ljust(length, b'\0')
    bulk = bytes(4096) if (class_, cmd) == (64, 5) else b''
    status, _ = pf.command(class_, cmd, data, bulk, out)
    assert status & admin.DNR and status & 0x7f, f'status {status:#x}'


@pytest.mark.parametrize('status', [4, 5, 100, 0x8000, 0xffff])
def test_admin_status_that_is_none(pf, status):
    before = pf.get_status(VICTIM)
    assert pf.set_status(VICTIM, status) & admin.DNR
    assert pf.get_status(VICTIM) == before


def test_admin_transitions(ctl, pf):
    """What the service issues is accepted; what makes no sense is an error without effect."""
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        for status in (admin.QUIESCED, admin.FREEZED, admin.QUIESCED, admin.RUNNING,
                       admin.QUIESCED, admin.QUIESCED, admin.RUNNING, admin.RUNNING):
            assert pf.set_status(VICTIM, status) == admin.OK
            assert pf.get_status(VICTIM) == status
        driver.echo()
        # steps go to neighbours: RUNNING to FREEZED is refused and changes nothing
        assert pf.set_status(VICTIM, admin.FREEZED) & admin.DNR
        assert pf.get_status(VICTIM) == admin.RUNNING
        driver.echo()
        got = pf.set_status(VICTIM, admin.INIT)
        assert got != admin.OK or pf.get_status(VICTIM) == admin.INIT


ADMIN_CHAINS = {
    'status only': lambda b: [(b + 100, 1, True)],
    'header of one byte': lambda b: [(b, 1, False), (b + 100, 1, True)],
    'no status': lambda b: [(b, 2, False)],
    'no status, with input': lambda b: [(b, 2, False), (b + 2, 4, False)],
    'status of 0 bytes': lambda b: [(b, 2, False), (b + 100, 0, True)],
    'zero lengths': lambda b: [(b, 0, False), (b, 0, False), (b + 100, 0, True)],
    'status in a large buffer': lambda b: [(b, 2, False), (b + 100, 2000, True)],
    'many results': lambda b: [(b, 2, False)] + [(b + 100 + i, 1, True) for i in range(30)],
    'header in two parts': lambda b: [(b, 1, False), (b + 1, 1, False), (b + 100, 8, True),
                                      (b + 120, 1, True)],
}


@pytest.mark.parametrize('name', sorted(ADMIN_CHAINS))
def test_admin_chain(ctl, pf, name):
    pf.mem.write(pf.buf_in, b'\x40\x00' + bytes(62))
    pf.submit(ADMIN_CHAINS[name](pf.buf_in))
    pf.ring.wait(0.3)
    pf.close()
    admin_alive(ctl)


@pytest.mark.parametrize('segments', [
    lambda b, e: [(e, 2, False), (b, 1, True)],
    lambda b, e: [(b, 2, False), (e - 1, 100, False), (b, 1, True)],
    lambda b, e: [(b, 2, False), (b, 8, True), (e, 1, True)],
    lambda b, e: [(b, 2, False), (e - 4, 8, True), (b, 1, True)],
    lambda b, e: [(b, 0xffffffff, False), (b, 1, True)],
    lambda b, e: [(b, 2, False), (b, 0xffffffff, True), (b, 1, True)],
    lambda b, e: [(b, 2, False), (b, 4, True), (b, 4, False), (b, 1, True)],
], ids=['header', 'input', 'status', 'result', 'input length', 'result length', 'mixed'])
def test_admin_addresses(ctl, pf, segments):
    pf.mem.write(pf.buf_in, b'\x40\x00' + bytes(62))
    pf.submit(segments(pf.buf_in, pf.mem.end))
    pf.ring.wait(0.3)
    pf.close()
    admin_alive(ctl)


@pytest.mark.parametrize('kind', ['loop', 'next', 'head', 'jump', 'indirect'])
def test_admin_ring(ctl, pf, kind):
    ring = pf.ring
    if kind == 'loop':
        ring.set_desc(0, pf.buf_in, 2, 1, 0)
        ring.post(0)
    elif kind == 'next':
        ring.set_desc(0, pf.buf_in, 2, 1, ring.size)
        ring.post(0)
    elif kind == 'head':
        ring.post(0xffff)
    elif kind == 'jump':
        ring.jump(ring.size + 1)
    else:
        ring.set_desc(0, pf.buf_in, 16, 4, 0)
        pf.mem.put('QIHH', pf.buf_in, pf.buf_in, 16, 4, 0)
        ring.post(0)
    pf.notify(pf.queue)
    time.sleep(0.01)
    pf.close()
    admin_alive(ctl)


def test_admin_vanish_with_commands_in_flight(ctl):
    for _ in range(10):
        with AdminPf(fresh_client(ctl.daemon.pf_socket)) as pf:
            pf.start()
            for _ in range(10):
                pf.ring.add([(pf.buf_in, 2, False), (pf.status, 1, True)])
            pf.notify(pf.queue)
    admin_alive(ctl)


def test_admin_pf_reset_keeps_the_vfs_running(ctl, pf):
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        driver.echo()
        pf.reset()
        driver.echo()


# state: SAVE and RESTORE


@pytest.fixture
def frozen(ctl, pf):
    """VF 1 with a driver, frozen; gives (pf driver, its decoded state)."""
    driver = NetDriver(fresh_client(ctl.daemon.vf_socket(1)), size=2 << 20)
    driver.start()
    driver.echo(3)
    pf.freeze(VICTIM)
    state = admin.State.decode(pf.save(VICTIM))
    yield pf, state, driver
    driver.close()


@pytest.mark.parametrize('offset,length', [
    (0, 0), (1 << 63, 8), ((1 << 64) - 1, 8), (1 << 20, 8), (0, 1 << 40), (0, (1 << 64) - 1),
    ((1 << 64) - 4, 16)])
def test_save_range(frozen, offset, length):
    pf, _, _ = frozen
    pf.command(64, 4, struct.pack('<H6xQQ', VICTIM, offset, length), out=64)
    assert len(pf.save(VICTIM)) > 0


def test_save_in_parts_equals_save_at_once(frozen):
    pf, _, _ = frozen
    whole = pf.save(VICTIM)
    parts = b''.join(pf.save(VICTIM, min(100, len(whole) - at), at)
                     for at in range(0, len(whole), 100))
    assert parts == whole


@pytest.mark.parametrize('length', [0, 1, 4095, 4097, 1 << 31, (1 << 64) - 1])
def test_restore_length_that_lies(frozen, length):
    pf, state, _ = frozen
    blob = state.encode()
    status = pf.restore(VICTIM, blob, length=length)
    assert status & 0x7f or length <= len(blob), f'status {status:#x}'


@pytest.mark.parametrize('offset', [1, 4096, 1 << 40, (1 << 64) - 1])
def test_restore_offset(frozen, offset):
    pf, state, _ = frozen
    assert pf.restore(VICTIM, state.encode(), offset) & 0x7f


def blob_of(state, edit):
    return edit(list(state.fields()))


def with_queue(state, **changes):
    fields = []
    for kind, value in state.fields():
        if kind == admin.TLV_QUEUE:
            part = list(admin.QUEUE.unpack(value))
            if part[0] == 0:
                names = ('index', 'size', 'vector', 'enable', 'notify_off', 'desc', 'driver',
                         'device', 'notify_data', 'reset')
                for name, new in changes.items():
                    part[names.index(name)] = new
                value = admin.QUEUE.pack(*part)
        fields.append((kind, value))
    return admin.encode_fields(fields)


GARBAGE = {
    'nothing': lambda s: bytes(4096),
    'ones': lambda s: b'\xff' * 4096,
    'random': lambda s: os.urandom(4096),
    'count too large': lambda s: s.encode(count=0xffffffff),
    'count one more': lambda s: s.encode(count=len(list(s.fields())) + 1, pad=False),
    'cut in a header': lambda s: s.encode(pad=False)[:50],
    'cut in a value': lambda s: s.encode(pad=False)[:-3],
    'TLV size -1': lambda s: struct.pack('<III', 1, 0, 0xffffffff) + bytes(100),
    'TLV size beyond': lambda s: struct.pack('<III', 1, 0, 5000) + bytes(100),
    'common too short': lambda s: blob_of(s, lambda f: admin.encode_fields(
        [(0, f[0][1][:31])] + f[1:])),
    'common too long': lambda s: blob_of(s, lambda f: admin.encode_fields(
        [(0, f[0][1] + b'\0')] + f[1:])),
    'no common': lambda s: blob_of(s, lambda f: admin.encode_fields(f[1:])),
    'common twice': lambda s: blob_of(s, lambda f: admin.encode_fields([f[0]] + f)),
    'config too short': lambda s: blob_of(s, lambda f: admin.encode_fields(
        [f[0], (1, b'\0' * 3)] + f[2:])),
    'queue twice': lambda s: blob_of(s, lambda f: admin.encode_fields(
        f + [x for x in f if x[0] == admin.TLV_QUEUE][:1])),
    'queue index': lambda s: with_queue(s, index=0xfff0),
    'queue size 0': lambda s: with_queue(s, size=0),
    'queue size 3': lambda s: with_queue(s, size=3),
    'queue size 65535': lambda s: with_queue(s, size=0xffff),
    'queue address 0': lambda s: with_queue(s, desc=0, driver=0, device=0),
    'queue address -1': lambda s: with_queue(s, desc=(1 << 64) - 1),
    'queue address unmapped': lambda s: with_queue(s, driver=0x7000000000),
    'queue vector': lambda s: with_queue(s, vector=0x7ff),
    'run state of a missing queue': lambda s: blob_of(s, lambda f: admin.encode_fields(
        f + [(3, admin.RUN.pack(999, 0, 0))])),
    'run state too short': lambda s: blob_of(s, lambda f: admin.encode_fields(
        f + [(3, b'\0\0\0')])),
    'features not offered': lambda s: blob_of(s, lambda f: admin.encode_fields(
        [(0, f[0][1][:16] + b'\xff' * 8 + f[0][1][24:])] + f[1:])),
    'number of queues': lambda s: blob_of(s, lambda f: admin.encode_fields(
        [(0, f[0][1][:26] + b'\xff\xff' + f[0][1][28:])] + f[1:])),
    'MAC table that lies': lambda s: blob_of(s, lambda f: admin.encode_fields(
        f + [(6, b'\xff' * 16), (7, b'\xff' * 5)])),
    'in-flight list that lies': lambda s: blob_of(s, lambda f: admin.encode_fields(
        f + [(8, struct.pack('<HH', 0, 0xffff))])),
}
# refused at once, or, when it looks like the first part of more to come, when it shall run
MUST_FAIL = {'ones', 'count too large', 'count one more', 'cut in a header', 'cut in a value',
             'TLV size -1', 'TLV size beyond', 'common too short', 'no common', 'config too short',
             'queue index', 'queue size 3'}


@pytest.mark.parametrize('name', sorted(GARBAGE))
def test_restore_garbage(ctl, frozen, name):
    pf, state, driver = frozen
    results = [pf.restore(VICTIM, GARBAGE[name](state)), pf.set_status(VICTIM, admin.QUIESCED),
               pf.set_status(VICTIM, admin.RUNNING)]
    if name in MUST_FAIL:
        assert any(status & admin.DNR and status & 0x7f for status in results), results
    for index in (0, 1):
        driver.notify(index)
    ctl.witness.echo()


@pytest.mark.parametrize('avail,used', [(0, 0x8000), (0xffff, 0), (1000, 1000), (0, 65), (65, 0)])
def test_restore_indices_that_make_no_sense(ctl, frozen, avail, used):
    pf, state, driver = frozen
    for queue in state.queues.values():
        queue.avail, queue.used = avail, used
    pf.restore(VICTIM, state.encode())
    for wanted in (admin.QUIESCED, admin.RUNNING):
        pf.set_status(VICTIM, wanted)
    driver.notify(0)
    driver.notify(1)
    ctl.witness.echo()


def test_restore_while_running(ctl, pf):
    """Not frozen: refused, and the guest keeps its packets."""
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        assert pf.set_status(VICTIM, admin.RUNNING) in (admin.OK,
                                                        admin.ERR | admin.DNR)
        state = admin.State.decode(pf.save(VICTIM))
        assert pf.restore(VICTIM, state.encode()) & 0x7f
        driver.echo()


def test_restore_without_a_client_on_the_vf(pf):
    """Nobody has mapped memory for this VF: the rings cannot be there."""
    pf.freeze(VICTIM)
    state = admin.State.decode(pf.save(VICTIM))
    for queue in state.queues.values():
        queue.enable, queue.size = 1, 64
        queue.desc, queue.driver, queue.device = 0x1000, 0x2000, 0x3000
    state.status = 0xf
    pf.restore(VICTIM, state.encode())
    assert pf.set_status(VICTIM, admin.RUNNING) & admin.DNR
    assert pf.get_status(VICTIM) == admin.FREEZED


def test_vf_reset_during_restore_and_freeze(ctl, frozen):
    pf, state, driver = frozen
    driver.reset()
    assert pf.get_status(VICTIM) == admin.INIT
    pf.restore(VICTIM, state.encode())
    driver.reset()
    driver.start()
    driver.echo()


# dirty tracking: garbage only; honest use is elsewhere


@pytest.mark.parametrize('mode,page,addr,length,sges', [
    (0, 4096, 0, 1 << 20, []), (5, 4096, 0, 1 << 20, []), (3, 0, 0, 1 << 20, []),
    (3, 3, 0, 1 << 20, []), (3, 1 << 31, 0, 1 << 20, []), (3, 4096, (1 << 64) - 4096, 1 << 20, []),
    (3, 4096, 0, 0, []), (3, 4096, 0, (1 << 64) - 1, []), (1, 4096, 0, 1 << 40, []),
    (1, 4096, 0, 1 << 20, [(0, 32)]), (1, 4096, 0, 1 << 20, [((1 << 64) - 8, 64)]),
    (1, 4096, 0, 1 << 30, [(0x40000000, 8)]), (1, 4096, 0, 1 << 20, [(0x40000000, 0)] * 200),
], ids=str)
def test_dirty_start_garbage(ctl, pf, mode, page, addr, length, sges):
    data = struct.pack('<HHIQQ', VICTIM, mode, page, addr, length)
    data += b''.join(struct.pack('<QII', a, n, 0) for a, n in sges)
    status, _ = pf.command(65, 1, data)
    assert status & 0x7f, 'tracking was started'
    ctl.witness.echo()


def test_admin_truncated_memory(ctl):
    """The PF's arena shrinks under the device."""
    with AdminPf(fresh_client(ctl.daemon.pf_socket)) as pf:
        pf.start()
        pf.ring.add([(pf.buf_in, 2, False), (pf.buf_out, 8, True), (pf.status, 1, True)])
        pf.mem.truncate(0)
        try:
            pf.notify(pf.queue)
            time.sleep(0.01)
            pf.notify(pf.queue)
        except OSError:
            pass
    deadline = time.monotonic() + 5 * daemons.SLOW
    while True:
        try:
            admin_alive(ctl)
            break
        except OSError:
            assert time.monotonic() < deadline
