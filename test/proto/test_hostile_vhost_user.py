# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A hostile vhost-user front end (a QEMU that was taken over) against the service.

VF 1 is attacked while VF 0, of another guest, keeps passing packets. The `svc` fixture asserts
after each test that a new honest front end works on VF 1 and that no fd stayed open anywhere.
"""

import os
import random
import resource
import socket
import struct
import threading
import time

import pytest

from peers import daemons
from peers import vhost_user as vh
from peers.memory import Memory, PAGE, Ring

VRING_REQUESTS = [vh.SET_VRING_NUM, vh.SET_VRING_BASE, vh.GET_VRING_BASE, vh.SET_VRING_ENABLE]
INDEXED = VRING_REQUESTS + [vh.SET_VRING_ADDR, vh.SET_INFLIGHT_FD]
FD_REQUESTS = [vh.SET_VRING_KICK, vh.SET_VRING_CALL, vh.SET_VRING_ERR]


@pytest.fixture
def raw(svc):
    """Connected, nothing said yet."""
    with svc.front_end() as front_end:
        yield front_end


@pytest.fixture
def talk(svc):
    """Features are negotiated."""
    with svc.front_end() as front_end:
        front_end.negotiate()
        yield front_end


@pytest.fixture
def live(svc):
    """Up and running, packets pass."""
    with svc.front_end() as front_end:
        front_end.start()
        front_end.echo()
        yield front_end


def attempt(front_end, request, payload=b'', fds=(), flags=vh.F_VERSION | vh.F_NEED_REPLY):
    """Send and take whatever comes back; True when the connection still lives."""
    try:
        front_end.send(request, payload, fds, flags)
        front_end.sock.settimeout(0.3)
        front_end.recv()
        return True
    except vh.Closed:
        return False
    except socket.timeout:
        return True


def others_work(svc):
    """Not only packets: the vhost thread still serves other sockets."""
    svc.witness.echo()
    assert svc.witness.u64(vh.GET_FEATURES)


# framing


@pytest.mark.parametrize('cut', range(1, 12))
def test_part_of_a_header_then_gone(raw, cut):
    raw.send_raw(struct.pack('=III', vh.GET_FEATURES, 1, 0)[:cut])


@pytest.mark.parametrize('cut', range(1, 8))
def test_part_of_a_payload_then_gone(raw, cut):
    raw.send_raw(struct.pack('=IIIQ', vh.SET_FEATURES, 1, 8, 0)[:12 + cut])


@pytest.mark.parametrize('request_id', [vh.SET_FEATURES, vh.SET_MEM_TABLE, vh.SET_VRING_KICK])
def test_header_and_silence(svc, raw, request_id):
    """The payload never comes: one guest must not hold the thread that all guests share."""
    raw.send_raw(struct.pack('=III', request_id, 1, 8))
    svc.witness.sock.settimeout(5 * daemons.SLOW)
    others_work(svc)


def test_half_a_header_and_silence(svc, raw):
    raw.send_raw(b'\1\0\0')
    svc.witness.sock.settimeout(5 * daemons.SLOW)
    others_work(svc)


def test_front_end_that_never_reads(svc, raw):
    """Its socket fills with replies: one guest must not hold the thread that all guests share."""
    raw.sock.settimeout(1.0)
    try:
        for _ in range(3000):
            raw.send(vh.GET_FEATURES)
    except (socket.timeout, vh.Closed):
        pass
    svc.witness.sock.settimeout(5 * daemons.SLOW)
    others_work(svc)


@pytest.mark.parametrize('size', [1, 7, 9, 340, 341, 4096, 0x7fffffff, 0x80000000, 0xffffffff])
def test_size_that_lies(svc, raw, size):
    raw.send_raw(struct.pack('=III', vh.SET_FEATURES, 1, size) + bytes(min(size, 4096)))
    others_work(svc)


@pytest.mark.parametrize('request_id', [0, 23, 26, 30, 33, 34, 37, 38, 41, 42, 43, 44, 45, 255,
                                        0x7fffffff, 0x80000000, 0xffffffff])
def test_unknown_request(svc, raw, request_id):
    attempt(raw, request_id, bytes(8))
    others_work(svc)


@pytest.mark.parametrize('flags', [0, 2, 3, 4, 5, 0xc, 0xd, 0xffffffff, 0xfffffff0])
def test_flags(svc, raw, flags):
    attempt(raw, vh.GET_FEATURES, b'', (), flags)
    others_work(svc)


# every request


PAYLOADS = {
    'empty': b'', 'zeroes': bytes(8), 'ones': b'\xff' * 8, 'long zeroes': bytes(300),
    'long ones': b'\xff' * 300, 'largest': b'\xff' * 340,
}


@pytest.mark.parametrize('kind', sorted(PAYLOADS))
def test_every_request_first(svc, kind):
    for request in vh.ALL_REQUESTS:
        with svc.front_end() as front_end:
            attempt_fast(front_end, request, PAYLOADS[kind])
    others_work(svc)


@pytest.mark.parametrize('kind', sorted(PAYLOADS))
def test_every_request_while_running(svc, kind):
    front_end = None
    for request in vh.ALL_REQUESTS:
        if front_end is None:
            front_end = svc.front_end()
            front_end.start()
        if not attempt_fast(front_end, request, PAYLOADS[kind]):
            front_end.close()
            front_end = None
    if front_end is not None:
        front_end.close()
    others_work(svc)


def attempt_fast(front_end, request, payload, fds=()):
    """attempt() that tells by an honest request behind whether the connection lives."""
    try:
        front_end.send(request, payload, fds)
        front_end.send(vh.GET_FEATURES)
        front_end.sock.settimeout(1.0)
        front_end.recv()
        return True
    except (vh.Closed, socket.timeout):
        return False


@pytest.mark.parametrize('count', [1, 2, 7, 8, 9, 64])
def test_fds_on_every_request(svc, count):
    """CVE-2019-14818 and CVE-2022-0669: fds that nobody asked for must not stay open."""
    fds = [os.open('/dev/null', os.O_RDWR | os.O_CLOEXEC) for _ in range(count)]
    try:
        for request in vh.ALL_REQUESTS:
            if request == vh.SET_INFLIGHT_FD:
                continue  # see test_fds_that_the_library_forgets
            with svc.front_end() as front_end:
                attempt_fast(front_end, request, bytes(8), fds)
    finally:
        for fd in fds:
            os.close(fd)
    others_work(svc)


@pytest.mark.xfail(strict=True, reason='librte_vhost 22.11 checks the ring index before it asks '
                   'our handler, and forgets the fds of what it refuses')
@pytest.mark.parametrize('request_id,payload', [
    (vh.SET_INFLIGHT_FD, bytes(20)), (vh.SET_VRING_NUM, struct.pack('=II', 256, 64)),
    (vh.SET_VRING_ADDR, struct.pack('=IIQQQQ', 256, 0, 0, 0, 0, 0))])
def test_fds_that_the_library_forgets(svc, request_id, payload):
    fd = os.open('/dev/null', os.O_RDWR | os.O_CLOEXEC)
    before = svc.service.stable_fds()
    with svc.front_end() as front_end:
        attempt_fast(front_end, request_id, payload, [fd] * 8)
    os.close(fd)
    svc.service.settle(before, 0.5)


@pytest.mark.parametrize('seed', range(6))
def test_random_requests(svc, seed):
    rng = random.Random(seed)
    fds = [os.eventfd(0), os.memfd_create('x')]
    os.ftruncate(fds[1], 1 << 20)
    try:
        for _ in range(15):
            with svc.front_end() as front_end:
                front_end.negotiate()
                for _ in range(10):
                    request = rng.choice(vh.ALL_REQUESTS)
                    words = [rng.choice([0, 1, 2, 0xff, 0x100, 0xffff, 1 << 32, (1 << 64) - 1,
                                         0x1000]) for _ in range(rng.randrange(0, 12))]
                    payload = struct.pack(f'={len(words)}Q', *words)
                    some = rng.choice([[], fds[:1], fds[1:], fds])
                    if request in INDEXED:
                        some = []  # see test_fds_that_the_library_forgets
                    if not attempt_fast(front_end, request, payload, some):
                        break
    finally:
        for fd in fds:
            os.close(fd)
    others_work(svc)


@pytest.mark.parametrize('request_id', [vh.SET_OWNER, vh.RESET_OWNER, vh.SET_FEATURES,
                                        vh.SET_PROTOCOL_FEATURES, vh.GET_QUEUE_NUM,
                                        vh.GET_INFLIGHT_FD, vh.GET_CONFIG, vh.SET_VRING_NUM])
def test_request_repeated(svc, talk, request_id):
    """CVE-2019-14818, CVE-2020-10726: neither memory nor fds grow."""
    payload = struct.pack('=QQ', talk.features, 0)[:8]
    if request_id == vh.SET_VRING_NUM:
        payload = struct.pack('=II', 0, 256)
    if request_id == vh.SET_PROTOCOL_FEATURES:
        payload = struct.pack('=Q', talk.protocol)
    rss, fds = svc.service.rss(), svc.service.fds()
    try:
        for _ in range(3000):
            talk.send(request_id, payload)
            if request_id in (vh.GET_QUEUE_NUM, vh.GET_INFLIGHT_FD, vh.GET_CONFIG):
                talk.recv()
    except vh.Closed:
        pass  # refused: that is an answer, too
    assert svc.service.rss() - rss < 8 << 20
    assert svc.service.fds() <= fds + 2


# order


ORDERS = {
    'base before everything': [(vh.GET_VRING_BASE, struct.pack('=II', 0, 0))],
    'base twice': [(vh.GET_VRING_BASE, struct.pack('=II', 0, 0))] * 2,
    'enable before everything': [(vh.SET_VRING_ENABLE, struct.pack('=II', 0, 1))],
    'driver ok before everything': [(vh.SET_STATUS, struct.pack('=Q', 0xf))],
    'driver ok twice': [(vh.SET_STATUS, struct.pack('=Q', 0xf))] * 2,
    'status 0': [(vh.SET_STATUS, struct.pack('=Q', 0))] * 2,
    'status -1': [(vh.SET_STATUS, struct.pack('=Q', (1 << 64) - 1))],
    'status 0x100': [(vh.SET_STATUS, struct.pack('=Q', 0x10f))],
    'all features': [(vh.SET_FEATURES, struct.pack('=Q', (1 << 64) - 1))],
    'no features': [(vh.SET_FEATURES, struct.pack('=Q', 0))],
    'all protocol features': [(vh.SET_PROTOCOL_FEATURES, struct.pack('=Q', (1 << 64) - 1))],
    'packed ring': [(vh.SET_FEATURES, struct.pack('=Q', 1 << 34 | 1 << 32))],
    'reset owner': [(vh.RESET_OWNER, b'')],
    'log without memory': [(vh.SET_FEATURES, struct.pack('=Q', 1 << 32 | 1 << 26 | 1 << 30))],
    'rarp': [(vh.SEND_RARP, struct.pack('=Q', 0x112233445566))],
    'mtu 0': [(vh.NET_SET_MTU, struct.pack('=Q', 0))],
    'mtu 65536': [(vh.NET_SET_MTU, struct.pack('=Q', 65536))],
    'iotlb': [(vh.IOTLB_MSG, struct.pack('=QQQBB6x', 0, 1 << 30, 0, 3, 2))],
}


@pytest.mark.parametrize('state', ['raw', 'talk', 'live'])
@pytest.mark.parametrize('name', sorted(ORDERS))
def test_order(svc, request, state, name):
    front_end = request.getfixturevalue(state)
    for message in ORDERS[name]:
        if not attempt(front_end, *message):
            break
    others_work(svc)


@pytest.mark.parametrize('index', [1, 2, 9, 64, 0xff, 0x100, 0x1ff, 0xffff, 0x10000, 0xffff0000,
                                   0xffff0001, 0x7fffffff, 0xffffffff])
@pytest.mark.parametrize('request_id', VRING_REQUESTS)
def test_vring_index(svc, talk, request_id, index):
    """CVE-2020-10723: an index must not be cut to 16 bits."""
    attempt(talk, request_id, struct.pack('=II', index, 1))
    others_work(svc)


@pytest.mark.parametrize('value', [1, 9, 0x3f, 0xff, 0x100, 0x101, 0x1ff, 0x10000, 0xffff0000,
                                   1 << 32, (1 << 64) - 1])
@pytest.mark.parametrize('request_id', FD_REQUESTS)
def test_vring_fd_index(svc, talk, request_id, value):
    fd = os.eventfd(0)
    try:
        attempt(talk, request_id, struct.pack('=Q', value), [fd])
    finally:
        os.close(fd)
    others_work(svc)


# memory table


def region(gpa=0, size=1 << 20, user=0x7f0000000000, offset=0):
    return struct.pack('=QQQQ', gpa, size, user, offset)


TABLES = {
    'no region': (0, [], 0),
    'nine': (9, [region(i << 20, user=0x7f0000000000 + (i << 20)) for i in range(9)], 9),
    'count -1': (0xffffffff, [region()], 1),
    'count 8, one fd': (8, [region(i << 20) for i in range(8)], 1),
    'one, no fd': (1, [region()], 0),
    'one, three fds': (1, [region()], 3),
    'size 0': (1, [region(size=0)], 1),
    'size 1': (1, [region(size=1)], 1),
    'size huge': (1, [region(size=1 << 60)], 1),
    'size -1': (1, [region(size=(1 << 64) - 1)], 1),
    'longer than the file': (1, [region(size=1 << 30)], 1),
    'offset behind the file': (1, [region(offset=1 << 30)], 1),
    'offset wraps': (1, [region(offset=(1 << 64) - PAGE)], 1),
    'offset unaligned': (1, [region(offset=7)], 1),
    'gpa wraps': (1, [region(gpa=(1 << 64) - PAGE)], 1),
    'gpa unaligned': (1, [region(gpa=0x123)], 1),
    'user wraps': (1, [region(user=(1 << 64) - PAGE)], 1),
    'overlap': (2, [region(), region(gpa=1 << 19, user=0x7f1000000000)], 2),
    'same twice': (2, [region(), region()], 2),
    'user overlap': (2, [region(), region(gpa=1 << 30, user=0x7f0000000000)], 2),
}


@pytest.mark.parametrize('started', [False, True])
@pytest.mark.parametrize('name', sorted(TABLES))
def test_memory_table(svc, name, started):
    count, regions, fds = TABLES[name]
    with svc.front_end() as front_end, Memory(1 << 20) as memory:
        if started:
            front_end.start()
            front_end.echo()
        else:
            front_end.negotiate()
        attempt(front_end, vh.SET_MEM_TABLE,
                struct.pack('=II', count, 0) + b''.join(regions), [memory.fd] * fds)
        attempt(front_end, vh.SET_STATUS, struct.pack('=Q', 0xf))
    others_work(svc)


@pytest.mark.parametrize('kind', ['pipe', 'socket', 'eventfd', 'folder', 'null', 'read only',
                                  'path'])
def test_memory_of_something_else(svc, talk, kind):
    ours, theirs = socket.socketpair()
    pipe = os.pipe()
    make = {'pipe': lambda: os.dup(pipe[0]), 'socket': lambda: os.dup(ours.fileno()),
            'eventfd': lambda: os.eventfd(0), 'folder': lambda: os.open('/', os.O_RDONLY),
            'null': lambda: os.open('/dev/null', os.O_RDWR),
            'read only': lambda: os.open('/etc/passwd', os.O_RDONLY),
            'path': lambda: os.open('/etc/passwd', os.O_PATH)}
    fd = make[kind]()
    try:
        attempt(talk, vh.SET_MEM_TABLE, struct.pack('=II', 1, 0) + region(size=PAGE), [fd])
    finally:
        for one in (fd, *pipe):
            os.close(one)
        ours.close()
        theirs.close()
    others_work(svc)


@pytest.mark.parametrize('keep', [0, PAGE, 1 << 20])
def test_memory_truncated_before_start(svc, talk, keep):
    talk.make_pairs()
    talk.mem.truncate(keep)
    attempt(talk, vh.SET_MEM_TABLE, struct.pack('=II', 1, 0) + talk.region(), [talk.mem.fd])
    for index, ring in talk.rings():
        for request, payload in ((vh.SET_VRING_NUM, struct.pack('=II', index, ring.size)),
                                 (vh.SET_VRING_ADDR, talk.vring_addr(index, ring))):
            if not attempt(talk, request, payload):
                return
    others_work(svc)


@pytest.mark.parametrize('then', ['vanish', 'stop', 'kick', 'table', 'log'])
@pytest.mark.parametrize('keep', [0, PAGE])
def test_memory_truncated_while_running(svc, live, keep, then):
    """SIGBUS in the service, in librte_vhost or in the software DPU: only this VF may suffer."""
    live.mem.truncate(keep)
    if then == 'kick':
        live.kick(0)
        live.kick(1)
        time.sleep(0.05)
    elif then == 'stop':
        attempt(live, vh.GET_VRING_BASE, struct.pack('=II', 0, 0))
        attempt(live, vh.GET_VRING_BASE, struct.pack('=II', 1, 0))
    elif then == 'table':
        with Memory(1 << 20) as other:
            attempt(live, vh.SET_MEM_TABLE, struct.pack('=II', 1, 0) + live.region(other),
                    [other.fd])
    elif then == 'log':
        with Memory(1 << 20) as log:
            attempt(live, vh.SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd])
            attempt(live, vh.SET_FEATURES, struct.pack('=Q', live.features | 1 << vh.F_LOG_ALL))
    others_work(svc)


# rings


@pytest.mark.parametrize('size', [0, 1, 3, 255, 257, 0x8000, 0x8001, 0xffff, 0x10000, 0x10100,
                                  0xffffffff])
def test_queue_size(svc, talk, size):
    talk.make_pairs()
    talk.set_mem_table()
    for index, ring in talk.rings():
        for request, payload, fds in (
                (vh.SET_VRING_NUM, struct.pack('=II', index, size), []),
                (vh.SET_VRING_ADDR, talk.vring_addr(index, ring), []),
                (vh.SET_VRING_KICK, struct.pack('=Q', 0x100 | index), []),
                (vh.SET_VRING_CALL, struct.pack('=Q', 0x100 | index), []),
                (vh.SET_VRING_ENABLE, struct.pack('=II', index, 1), [])):
            if not attempt_fast(talk, request, payload, fds):
                return
    attempt(talk, vh.SET_STATUS, struct.pack('=Q', 0xf))
    others_work(svc)


def address_cases(mem):
    user = mem.user_addr
    yield 'zero', 0
    yield 'minus one', (1 << 64) - 1
    yield 'before', user - PAGE
    yield 'behind', user + mem.size
    yield 'last bytes', user + mem.size - 8
    yield 'unaligned', user + PAGE + 1
    yield 'gpa', mem.base + PAGE


@pytest.mark.parametrize('field', [0, 1, 2])
@pytest.mark.parametrize('case', ['zero', 'minus one', 'before', 'behind', 'last bytes',
                                  'unaligned', 'gpa'])
def test_ring_address(svc, talk, field, case):
    talk.make_pairs()
    talk.set_mem_table()
    bad = dict(address_cases(talk.mem))[case]
    for index, ring in talk.rings():
        addrs = [talk.user(ring.desc), talk.user(ring.used), talk.user(ring.avail)]
        addrs[field] = bad
        kick, call = vh.eventfd(), vh.eventfd()
        try:
            for request, payload, fds in (
                    (vh.SET_VRING_NUM, struct.pack('=II', index, ring.size), []),
                    (vh.SET_VRING_BASE, struct.pack('=II', index, 0), []),
                    (vh.SET_VRING_ADDR, struct.pack('=IIQQQQ', index, 0, *addrs, 0), []),
                    (vh.SET_VRING_KICK, struct.pack('=Q', index), [kick]),
                    (vh.SET_VRING_CALL, struct.pack('=Q', index), [call]),
                    (vh.SET_VRING_ENABLE, struct.pack('=II', index, 1), [])):
                if not attempt_fast(talk, request, payload, fds):
                    return
        finally:
            os.close(kick)
            os.close(call)
    attempt(talk, vh.SET_STATUS, struct.pack('=Q', 0xf))
    others_work(svc)


def test_ring_across_two_regions(svc):
    """CVE-2018-1059: two regions that are neighbours for the guest, but not in our mapping."""
    with Memory(1 << 20) as low, Memory(1 << 20, 1 << 20) as high:
        with svc.front_end(mem=low) as front_end:
            front_end.negotiate()
            front_end.set_mem_table([low, high])
            front_end.make_pairs()
            for index, ring in front_end.rings():
                split = Ring(low, 64)
                split.desc = low.end - 512
                addr = struct.pack('=IIQQQQ', index, 0, low.user_addr + low.size - 512,
                                   front_end.user(ring.used), front_end.user(ring.avail), 0)
                if not attempt_fast(front_end, vh.SET_VRING_NUM,
                                    struct.pack('=II', index, 64)):
                    break
                if not attempt_fast(front_end, vh.SET_VRING_ADDR, addr):
                    break
            attempt(front_end, vh.SET_STATUS, struct.pack('=Q', 0xf))
        others_work(svc)


@pytest.mark.parametrize('base', [1, 64, 65, 0x7fff, 0x8000, 0xffff, 0x10000, 0xffffffff])
def test_vring_base(svc, base):
    """The index that the front end tells is not where memory says: nothing may run away."""
    with svc.front_end() as front_end:
        front_end.negotiate()
        front_end.make_pairs()
        front_end.set_mem_table()
        for index, ring in front_end.rings():
            front_end.set_vring(index, ring)
            if not attempt_fast(front_end, vh.SET_VRING_BASE, struct.pack('=II', index, base)):
                assert base > 0xffff
                break
        else:
            front_end.enable()
            attempt(front_end, vh.SET_STATUS, struct.pack('=Q', 0xf))
    others_work(svc)


@pytest.mark.parametrize('kind', ['same', 'file', 'pipe', 'socket', 'memory', 'none', 'invalid'])
def test_kick_and_call_fds(svc, kind):
    ours, theirs = socket.socketpair()
    pipe = os.pipe()
    event = os.eventfd(0)
    file = os.open('/etc/passwd', os.O_RDONLY)
    with svc.front_end() as front_end:
        front_end.negotiate()
        front_end.make_pairs()
        front_end.set_mem_table()
        fd = {'same': event, 'file': file, 'pipe': pipe[0], 'socket': ours.fileno(),
              'memory': front_end.mem.fd, 'none': None, 'invalid': None}[kind]
        for index, ring in front_end.rings():
            attempt_fast(front_end, vh.SET_VRING_NUM, struct.pack('=II', index, ring.size))
            attempt_fast(front_end, vh.SET_VRING_ADDR, front_end.vring_addr(index, ring))
            value = index | (0x100 if kind == 'none' else 0)
            for request in FD_REQUESTS:
                attempt_fast(front_end, request, struct.pack('=Q', value),
                             [fd] if fd is not None else [])
            attempt_fast(front_end, vh.SET_VRING_ENABLE, struct.pack('=II', index, 1))
        attempt(front_end, vh.SET_STATUS, struct.pack('=Q', 0xf))
        os.close(event)
        os.close(file)
        others_work(svc)
        theirs.close()
        for one in pipe:
            os.close(one)
        others_work(svc)
    ours.close()


def test_kick_fd_that_is_always_readable(svc, live):
    """An eventfd in semaphore mode, full: the relay must not spin on it for ever."""
    fd = os.eventfd(0xfffffff0, os.EFD_SEMAPHORE)
    try:
        attempt(live, vh.SET_VRING_KICK, struct.pack('=Q', 0), [fd])
        others_work(svc)
    finally:
        os.close(fd)


def test_call_fd_that_would_block(svc, live):
    """A full eventfd as interrupt: neither the service nor the software DPU may hang on it."""
    fd = os.eventfd(0xfffffffe)
    os.eventfd_write(fd, 0xfffffffffffffffe - 0xfffffffe)
    try:
        for index in (0, 1):
            attempt(live, vh.SET_VRING_CALL, struct.pack('=Q', index), [fd])
        time.sleep(0.2)  # the device gets it in the background, and clears the flag
        os.set_blocking(fd, True)
        for _ in range(8):
            live.send_frame(bytes(60))
        svc.witness.echo(3, timeout=2 * daemons.SLOW)
    finally:
        os.eventfd_read(fd)
        os.close(fd)
    others_work(svc)


def test_call_fd_changed_while_running(live):
    """QEMU does this whenever the guest masks a vector: packets must go on."""
    for _ in range(20):
        old = live.calls[0]
        live.calls[0] = vh.eventfd()
        live.tell(vh.SET_VRING_CALL, struct.pack('=Q', 0), [live.calls[0]])
        os.close(old)
        live.echo()


def test_guest_ring_is_garbage(svc, live):
    """The device says that it is broken; the front end is not to be hurt and can start anew."""
    live.pairs[0].tx.jump(1000)
    live.kick(1)
    live.pairs[0].rx.post(0xffff)
    live.kick(0)
    time.sleep(0.05)
    others_work(svc)


# log


LOGS = [(0, 0), (1, 0), (8, 0), (PAGE, PAGE), (1 << 63, 1 << 63), ((1 << 64) - 1, 1),
        (PAGE, (1 << 64) - PAGE), ((1 << 64) - PAGE, PAGE), (1 << 40, 0), (PAGE, 7),
        (PAGE, 1 << 40)]


@pytest.mark.parametrize('state', ['talk', 'live'])
@pytest.mark.parametrize('size,offset', LOGS)
def test_log_base(svc, request, state, size, offset):
    """CVE-2020-10722: size and offset that wrap; and logs smaller than memory."""
    front_end = request.getfixturevalue(state)
    with Memory(1 << 20) as log:
        alive = attempt(front_end, vh.SET_LOG_BASE, struct.pack('=QQ', size, offset), [log.fd])
        if alive:
            attempt(front_end, vh.SET_FEATURES,
                    struct.pack('=Q', front_end.features | 1 << vh.F_LOG_ALL))
            if state == 'live':
                try:
                    front_end.send_frame(bytes(60))
                except OSError:
                    pass
    others_work(svc)


@pytest.mark.parametrize('keep', [0, 8])
def test_log_truncated(svc, live, keep):
    with Memory(1 << 16) as log:
        attempt(live, vh.SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd])
        attempt(live, vh.SET_FEATURES, struct.pack('=Q', live.features | 1 << vh.F_LOG_ALL))
        log.truncate(keep)
        live.send_frame(bytes(60))
        attempt(live, vh.GET_VRING_BASE, struct.pack('=II', 0, 0))
    others_work(svc)


def test_log_without_fd(svc, live):
    attempt(live, vh.SET_LOG_BASE, struct.pack('=QQ', PAGE, 0))
    others_work(svc)


def test_log_replaced_many_times(svc, live):
    fds = None
    for _ in range(50):
        with Memory(1 << 16) as log:
            if not attempt(live, vh.SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd]):
                break
        if fds is None:
            fds = svc.service.fds()
    assert svc.service.fds() <= (fds or 0) + 1
    others_work(svc)


# connections


STEPS = 9


def steps(front_end):
    yield lambda: front_end.negotiate()
    yield lambda: front_end.make_pairs()
    yield lambda: front_end.set_mem_table()
    yield lambda: front_end.set_vring(0, front_end.pairs[0].rx)
    yield lambda: front_end.set_vring(1, front_end.pairs[0].tx)
    yield lambda: front_end.enable()
    yield lambda: front_end.send(vh.SET_STATUS, struct.pack('=Q', 0xf))
    yield lambda: front_end.echo()
    yield lambda: front_end.enable(False)
    yield lambda: front_end.send(vh.GET_VRING_BASE, struct.pack('=II', 0, 0))


@pytest.mark.parametrize('last', range(STEPS + 2))
def test_vanish_after_each_step(svc, last):
    with svc.front_end() as front_end:
        for i, step in enumerate(steps(front_end)):
            if i == last:
                break
            step()
    others_work(svc)


def test_two_front_ends_on_one_socket(svc, live):
    with vh.FrontEnd(svc.path(1)) as second:
        second.connect()
        try:
            second.negotiate()
        except (vh.Closed, AssertionError, socket.timeout):
            pass
        live.echo()
        others_work(svc)


def test_connection_storm(svc):
    for _ in range(100):
        with vh.FrontEnd(svc.path(1), mem_size=PAGE) as front_end:
            front_end.connect()
    others_work(svc)


def test_start_storm(svc):
    for _ in range(10):
        with svc.front_end(mem_size=1 << 20) as front_end:
            front_end.start()
            front_end.echo()
    others_work(svc)


def test_fds_run_out(svc):
    """EMFILE in the middle of a message: an error for this connection, nothing else."""
    soft, hard = resource.prlimit(svc.service.pid, resource.RLIMIT_NOFILE)
    with svc.front_end() as front_end:
        front_end.negotiate()
        try:
            resource.prlimit(svc.service.pid, resource.RLIMIT_NOFILE,
                             (svc.service.fds() + 1, hard))
            with Memory(1 << 20) as memory:
                attempt(front_end, vh.SET_MEM_TABLE, struct.pack('=II', 3, 0) +
                        region(0, user=0x7f0000000000) + region(1 << 20, user=0x7f0000100000) +
                        region(2 << 20, user=0x7f0000200000), [memory.fd] * 3)
            svc.witness.echo()
        finally:
            resource.prlimit(svc.service.pid, resource.RLIMIT_NOFILE, (soft, hard))
    others_work(svc)


def test_all_other_vfs_attacked_while_the_witness_works(svc):
    svc.add(2)
    stop = threading.Event()

    def attack(index):
        rng = random.Random(index)
        while not stop.is_set():
            try:
                with svc.front_end(index, mem_size=1 << 20) as front_end:
                    front_end.start()
                    front_end.send_raw(rng.randbytes(rng.randrange(1, 100)))
            except (OSError, AssertionError):
                pass

    threads = [threading.Thread(target=attack, args=(i,)) for i in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            svc.witness.echo(5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        svc.remove(2)


def test_remove_while_running(svc, live):
    """The operator removes a VF under a guest: the guest loses it, the service nothing."""
    svc.remove(1)
    assert live.is_closed()
    live.close()
    svc.witness.echo()
    svc.service.settle(svc.idle)
    svc.add(1)


@pytest.mark.parametrize('step', range(3))
def test_stop_in_an_unusual_order(svc, live, step):
    """The kick fd goes first, the status before the bases, one base only."""
    if step == 0:
        os.close(live.kicks.pop(0))
        live.kicks[0] = vh.eventfd()
    elif step == 1:
        live.set_status(0)
        attempt(live, vh.GET_VRING_BASE, struct.pack('=II', 1, 0))
        attempt(live, vh.GET_VRING_BASE, struct.pack('=II', 0, 0))
    else:
        attempt(live, vh.GET_VRING_BASE, struct.pack('=II', 0, 0))
        live.set_status(0)
    others_work(svc)
