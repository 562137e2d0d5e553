# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The TAP back end: packets between a VF and its representor, receive filters, offload headers."""

import os
import socket
import struct
import tempfile
import time

import pytest

from peers import daemons, virtio
from peers.admin import PULL_BITMAP, Tracker
from peers.memory import NET_HDR, PAGE, make_frame
from peers.vfio_user import fresh_client
from peers.virtio import AdminPf, NetDriver

WANTED = virtio.NET_WANTED | sum(1 << b for b in (
    virtio.NET_F_STATUS, virtio.NET_F_CTRL_VQ, virtio.NET_F_CTRL_RX, virtio.NET_F_CTRL_VLAN,
    virtio.NET_F_CTRL_MAC_ADDR, virtio.NET_F_MQ))
OFFLOADS = sum(1 << b for b in (0, 1, 7, 8, 11, 12, 15))

ETH_P_ALL = 3


class Wire:
    """A raw socket on the representor."""

    def __init__(self, name):
        self.name = name
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.sock.bind((name, 0))
        self.sock.settimeout(5 * daemons.SLOW)

    def send(self, frame):
        self.sock.send(frame)

    def receive(self, want):
        """Wait for exactly this frame; others (IPv6 chatter) are skipped."""
        deadline = time.monotonic() + 5 * daemons.SLOW
        while True:
            frame = self.sock.recv(65536)
            if frame == want:
                return frame
            assert time.monotonic() < deadline, 'the frame did not come out of the TAP'

    def close(self):
        self.sock.close()


class Guest:
    """A driver on the VF, and the wire behind it."""

    def __init__(self, driver, wire):
        self.driver = driver
        self.wire = wire
        self.ctrl = driver.ctrl


@pytest.fixture(scope='module')
def tap(work):
    """A controller whose VF 0 has a TAP."""
    if not os.path.exists('/dev/net/tun') or os.geteuid() != 0:
        pytest.skip('TAPs need root and /dev/net/tun')
    directory = tempfile.mkdtemp(prefix='t', dir=work)
    name = f'vfep{os.getpid() % 100000}'
    controller = daemons.Controller(directory, vfs=1, vf_backends={
        '0': {'backend': {'type': 'tap', 'name': name}}})
    yield controller, name
    controller.stop()
    assert not os.path.exists(f'/sys/class/net/{name}'), 'the TAP is left behind'


def set_up(name):
    """The representor up, as an operator would: ip link set up."""
    import fcntl
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack('16sH14x', name.encode(), 0)
        flags = struct.unpack_from('H', fcntl.ioctl(sock, 0x8913, request), 16)[0]
        fcntl.ioctl(sock, 0x8914, struct.pack('16sH14x', name.encode(), flags | 1))


@pytest.fixture
def plain(tap):
    controller, name = tap
    set_up(name)
    wire = Wire(name)
    with NetDriver(fresh_client(controller.vf_socket(0))) as driver:
        yield Guest(driver, wire)
    wire.close()
    controller.check()


@pytest.fixture
def guest(plain):
    plain.driver.start(wanted=WANTED)
    yield plain


@pytest.mark.parametrize('size', [60, 1514])
def test_packets_both_ways(plain, size):
    plain.driver.start()
    for _ in range(20):
        frame = make_frame(size)
        plain.driver.send_frame(frame)
        plain.wire.receive(frame)
    for _ in range(20):
        frame = make_frame(size)
        plain.wire.send(frame)
        while True:
            got = plain.driver.receive_frame()
            assert got is not None
            if got == frame:
                break


def unicast(mac, size=60):
    return mac + make_frame(size)[6:]


def passes(guest, frame):
    """Send to the guest from the wire: does it get through? A broadcast behind it tells the end."""
    guest.wire.send(frame)
    marker = make_frame()
    guest.wire.send(marker)
    got = []
    while marker not in got:
        one = guest.driver.receive_frame(2 * daemons.SLOW)
        assert one is not None, 'not even the broadcast came'
        got.append(one)
    return frame in got


def test_filter_by_mac(guest):
    own, other = b'\x02\0\0\0\0\x11', b'\x02\0\0\0\0\x12'
    assert guest.ctrl(1, 1, own) == 0
    assert guest.ctrl(0, 0, b'\0') == 0
    assert passes(guest, unicast(own))
    assert not passes(guest, unicast(other)), 'a frame for somebody else came'
    assert guest.ctrl(0, 0, b'\1') == 0
    assert passes(guest, unicast(other)), 'promiscuous mode does not work'
    assert guest.ctrl(0, 0, b'\0') == 0
    table = struct.pack('<I', 1) + other + struct.pack('<I', 0)
    assert guest.ctrl(1, 0, table) == 0
    assert passes(guest, unicast(other)), 'the MAC table does not work'


def test_filter_by_multicast(guest):
    group = b'\x01\0\x5e\0\0\x05'
    assert guest.ctrl(0, 0, b'\0') == 0 and guest.ctrl(0, 1, b'\0') == 0
    assert guest.ctrl(1, 0, struct.pack('<II', 0, 0)) == 0
    assert not passes(guest, unicast(group))
    assert guest.ctrl(1, 0, struct.pack('<II', 0, 1) + group) == 0
    assert passes(guest, unicast(group))
    assert guest.ctrl(1, 0, struct.pack('<II', 0, 0)) == 0
    assert guest.ctrl(0, 1, b'\1') == 0
    assert passes(guest, unicast(group)), 'allmulti does not work'


def test_filter_by_vlan(guest):
    def tagged(vid):
        frame = make_frame()
        return frame[:12] + struct.pack('>HH', 0x8100, vid) + frame[12:]
    assert guest.ctrl(0, 0, b'\0') == 0
    assert not passes(guest, tagged(100)), 'a VLAN that nobody added'
    assert guest.ctrl(2, 0, struct.pack('<H', 100)) == 0
    assert passes(guest, tagged(100))
    assert guest.ctrl(2, 1, struct.pack('<H', 100)) == 0
    assert not passes(guest, tagged(100))


@pytest.mark.parametrize('header', [
    b'\x01' + bytes(5) + b'\xff\xff\xff\xff' + bytes(2),
    b'\x01' + bytes(5) + struct.pack('<HH', 59, 2) + bytes(2),
    b'\x01\x01' + struct.pack('<HHHH', 54, 0, 34, 16) + bytes(2),
    b'\x01\x01' + struct.pack('<HHHH', 0xffff, 1448, 34, 16) + bytes(2),
    b'\x01\x04' + struct.pack('<HHHH', 0, 0xffff, 34, 16) + bytes(2),
    b'\xff' * 12, b'\x00\x7f' + bytes(10)], ids=lambda h: h.hex())
@pytest.mark.parametrize('negotiated', [False, True])
def test_offload_header_that_lies(plain, header, negotiated):
    """It must neither stall the queue nor reach the kernel in a way that hurts others."""
    plain.driver.start(wanted=virtio.NET_WANTED | (OFFLOADS if negotiated else 0))
    for _ in range(4):
        plain.driver.pairs[0].send(make_frame(100), header)
        plain.driver.notify(1)
    frame = make_frame()
    plain.driver.send_frame(frame)
    plain.wire.receive(frame)


@pytest.mark.parametrize('length', [0, 1, 11, 12, 13, 20, 25])
def test_chain_shorter_than_header_and_frame(plain, length):
    plain.driver.start()
    ring = plain.driver.pairs[0].tx
    ring.add([(plain.driver.mem.alloc(64), length, False)])
    plain.driver.notify(1)
    frame = make_frame()
    plain.driver.send_frame(frame)
    if plain.driver.get('device_status') & virtio.S_NEEDS_RESET:
        plain.driver.start()
        plain.driver.send_frame(frame)
    plain.wire.receive(frame)


def test_wire_is_flooded_while_the_guest_has_no_buffers(plain):
    """A guest that does not read costs its own packets only."""
    plain.driver.begin(virtio.NET_WANTED)
    plain.driver.start()
    for _ in range(2000):
        plain.wire.send(make_frame(200))
    frame = make_frame()
    plain.driver.send_frame(frame)
    plain.wire.receive(frame)
    while plain.driver.receive_frame(0.1) is not None:
        pass


def test_header_of_received_packets_is_clean(plain):
    plain.driver.start()
    frame = make_frame()
    pair = plain.driver.pairs[0]
    while True:
        plain.wire.send(frame)
        head, length = pair.rx.wait()
        data = plain.driver.mem.read(pair.posted[head], length)
        if data[NET_HDR:] == frame:
            break
        pair.posted.pop(head)
    assert data[:2] == b'\0\0' and struct.unpack_from('<H', data, 10)[0] == 1


def test_restored_vf_announces_its_address(tap, plain):
    """Bridges learn the new place without a word from the guest, unless that speaks for itself."""
    controller, _ = tap
    mac = bytes.fromhex('000000003300')
    rarp = (b'\xff' * 6 + mac + bytes.fromhex('8035000108000604' '0003') + mac + bytes(4) + mac
            + bytes(4 + 18))
    announce = 1 << virtio.NET_F_CTRL_VQ | 1 << virtio.NET_F_GUEST_ANNOUNCE
    with AdminPf(fresh_client(controller.pf_socket)) as pf:
        pf.start()
        for wanted, expected in ((virtio.NET_WANTED, 3), (virtio.NET_WANTED | announce, 0)):
            plain.driver.start(wanted=wanted)
            pf.freeze(1)
            assert pf.restore(1, pf.save(1)) == 0
            pf.run(1)
            plain.driver.notify(0)
            for _ in range(expected):
                plain.wire.receive(rarp)
            plain.wire.sock.settimeout(0.25)
            with pytest.raises(TimeoutError):
                plain.wire.receive(rarp)
            plain.wire.sock.settimeout(5 * daemons.SLOW)
            frame = make_frame()
            plain.driver.send_frame(frame)
            plain.wire.receive(frame)
        pf.reset()


def test_dirty_pages_of_packets_that_pass_and_that_do_not(tap, guest):
    """Read into buffers of the guest before the filter sees them: dirty all the same."""
    controller, _ = tap
    driver = guest.driver
    mem = driver.mem
    assert guest.ctrl(0, 0, b'\0') == 0  # not promiscuous

    def count(key):
        queues = controller.rpc('query', {'pf': 0, 'vf': 0})['queues']
        return queues[0][key]

    def check(track, key, frames):
        track.take()
        image = mem.read(mem.base, mem.size)
        before = count(key)
        for frame in frames:
            guest.wire.send(frame)
        deadline = time.monotonic() + 5 * daemons.SLOW
        while count(key) < before + len(frames):
            assert time.monotonic() < deadline
        pf.freeze(1)
        after = mem.read(mem.base, mem.size)
        changed = {(mem.base + i) // PAGE for i in range(0, mem.size, PAGE)
                   if image[i:i + PAGE] != after[i:i + PAGE]}
        dirty = track.take()
        assert changed and changed <= dirty
        # flags in used rings are written back and forth
        assert dirty - changed <= {ring.used // PAGE for ring in (
            driver.pairs[0].rx, driver.pairs[0].tx, driver.ctrl_ring)}
        while driver.pairs[0].receive(0) is not None:
            pass
        pf.run(1)
        driver.notify(0)

    with AdminPf(fresh_client(controller.pf_socket)) as pf:
        pf.start()
        track = Tracker(pf, 1, PULL_BITMAP, 0, mem.end)
        assert track.start() == 0
        for size in (60, 700, 1514):
            check(track, 'packets', [make_frame(size) for _ in range(10)])
            check(track, 'dropped', [b'\x02\0\0\0\0\7' + make_frame(size)[6:]])
        pf.reset()
