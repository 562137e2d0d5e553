# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A hostile vfio-user client against the software DPU.

Framing that cannot be trusted ends the connection; a wrong request gets an error and the
connection goes on. The `ctl` fixture asserts after each test that nothing else suffered.
"""

import errno
import json
import os
import socket
import struct
import threading
import time

import pytest

from peers import daemons
from peers import vfio_user as vu
from peers.memory import Memory, PAGE
from peers.virtio import NetDriver

BASE = 0x100000

# an honest body for each command that takes one
BODIES = {
    vu.DMA_MAP: struct.pack('=IIQQQ', 32, 3, 0, BASE, PAGE),
    vu.DMA_UNMAP: struct.pack('=IIQQ', 24, 0, BASE, PAGE),
    vu.DEVICE_GET_INFO: struct.pack('=IIII', 16, 0, 0, 0),
    vu.REGION_INFO: struct.pack('=IIIIQQ', 4096, 0, 0, 0, 0, 0),
    vu.REGION_IO_FDS: struct.pack('=IIII', 4096, 0, 0, 0),
    vu.IRQ_INFO: struct.pack('=IIII', 16, 0, vu.IRQ_MSIX, 0),
    vu.SET_IRQS: struct.pack('=IIIII', 20, vu.IRQ_NONE | vu.IRQ_TRIGGER, vu.IRQ_MSIX, 0, 0),
    vu.REGION_READ: struct.pack('=QII', 0, vu.REGION_CONFIG, 4),
    vu.REGION_WRITE: struct.pack('=QII', 4, vu.REGION_CONFIG, 2) + b'\x06\x00',
}


def usable(client):
    """The connection still works."""
    assert client.device_info()[2] >= 8


def refused(client, *args, **kwargs):
    """A wrong request: an error reply, and the connection stays usable."""
    error = client.refused(*args, **kwargs)
    assert error, f'not refused: {error!r}'
    usable(client)
    return error


# framing


@pytest.mark.parametrize('size', [0, 1, 8, 15, 0x7fffffff, 0xffffffff, 2 << 20])
def test_size_that_is_no_size(ctl, size):
    with ctl.client() as client:
        client.send(vu.DEVICE_GET_INFO, BODIES[vu.DEVICE_GET_INFO], size=size)
        assert client.is_closed()


def test_unsolicited_reply(ctl):
    with ctl.client() as client:
        client.send(vu.DEVICE_GET_INFO, BODIES[vu.DEVICE_GET_INFO], flags=vu.F_REPLY)
        assert client.is_closed()


@pytest.mark.parametrize('flags', [2, 0xf, 0xffffffff])
def test_message_of_unknown_type(ctl, flags):
    with ctl.client() as client:
        error = client.refused(vu.DEVICE_GET_INFO, BODIES[vu.DEVICE_GET_INFO], flags=flags) \
            if flags != 0xffffffff else None
        if flags == 0xffffffff:
            client.send(vu.DEVICE_GET_INFO, BODIES[vu.DEVICE_GET_INFO], flags=flags)
            client.is_closed(0.2)
        assert error is None or error


@pytest.mark.parametrize('command', [c for c in sorted(vu.COMMANDS.values()) if c != vu.VERSION])
def test_first_message_is_not_version(ctl, command):
    with ctl.client(negotiate=False) as client:
        error = client.refused(command, BODIES.get(command, b''))
        assert error is None or error, 'a command passed before the version was negotiated'


@pytest.mark.parametrize('command', [0, 14, 19, 255, 0xffff, vu.DMA_READ, vu.DMA_WRITE,
                                     vu.WRITE_MULTI, vu.FEATURE, vu.MIG_READ, vu.MIG_WRITE])
@pytest.mark.parametrize('length', [0, 16, 4096])
def test_unknown_or_unsupported_command(ctl, command, length):
    with ctl.client() as client:
        refused(client, command, bytes(length))


@pytest.mark.parametrize('command', sorted(BODIES))
def test_every_shorter_body(ctl, command):
    body = BODIES[command]
    with ctl.client() as client:
        for length in range(len(body)):
            refused(client, command, body[:length])


@pytest.mark.parametrize('command', sorted(BODIES))
@pytest.mark.parametrize('extra', [1, 8, 65536])
def test_longer_body(ctl, command, extra):
    with ctl.client() as client:
        client.refused(command, BODIES[command] + bytes(extra))
        usable(client)


@pytest.mark.parametrize('command', sorted(BODIES))
@pytest.mark.parametrize('count', [1, 2, 8, 64, 200, 253])
def test_unwanted_fds_are_closed(ctl, command, count):
    with ctl.client() as client:
        fds = [os.open('/dev/null', os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]
        try:
            for _ in range(3):
                client.refused(command, BODIES[command], fds)
        except vu.Closed:
            pass
        finally:
            for fd in fds:
                os.close(fd)


def test_one_byte_at_a_time(ctl):
    """Not hostile, just slow: must work."""
    with ctl.client() as client:
        body = BODIES[vu.DEVICE_GET_INFO]
        for byte in vu.pack_header(7, vu.DEVICE_GET_INFO, 32) + body:
            client.send_raw(bytes([byte]))
        assert client.recv()[0] == 7


def test_pipelined_requests(ctl):
    with ctl.client() as client:
        message = b''.join(vu.pack_header(i, vu.DEVICE_GET_INFO, 32) + BODIES[vu.DEVICE_GET_INFO]
                           for i in range(500))
        client.send_raw(message)
        assert [client.recv()[0] for _ in range(500)] == list(range(500))


def test_client_that_never_reads(ctl):
    """Replies pile up; the witness must not notice, and the connection may be ended."""
    with ctl.client() as client:
        client.sock.settimeout(0.5)
        message = (vu.pack_header(1, vu.REGION_READ, 32) +
                   struct.pack('=QII', 0, vu.REGION_CONFIG, 256)) * 1000
        try:
            for _ in range(100):
                client.sock.sendall(message)
        except (socket.timeout, BrokenPipeError, ConnectionResetError):
            pass
        ctl.witness.echo(3)


def test_no_reply_flag_is_obeyed(ctl):
    with ctl.client() as client:
        client.send(vu.DEVICE_GET_INFO, BODIES[vu.DEVICE_GET_INFO], flags=vu.F_NO_REPLY)
        client.send(99, b'', flags=vu.F_NO_REPLY)
        last = client.send(vu.DEVICE_GET_INFO, BODIES[vu.DEVICE_GET_INFO])
        assert client.recv()[0] == last


# half messages


def test_vanish_at_every_byte_of_dma_map(ctl):
    message = vu.pack_header(9, vu.DMA_MAP, 48) + BODIES[vu.DMA_MAP]
    with Memory(PAGE) as memory:
        for cut in range(1, len(message) + 1):
            with vu.fresh_client(ctl.daemon.vf_socket(1)) as client:
                client.send_raw(message[:cut], [memory.fd])


def test_vanish_at_every_byte_of_version(ctl):
    text = json.dumps(vu.HONEST_CAPS).encode() + b'\0'
    message = vu.pack_header(1, vu.VERSION, 20 + len(text)) + struct.pack('=HH', 0, 1) + text
    for cut in list(range(0, 21)) + [len(message) - 1, len(message)]:
        with ctl.client(negotiate=False, wait=1) as client:
            if cut:
                try:
                    client.send_raw(message[:cut])
                except vu.Closed:
                    pass


@pytest.mark.parametrize('cut', [1, 15, 16, 20])
def test_half_message_and_silence(ctl, cut):
    message = vu.pack_header(9, vu.DEVICE_GET_INFO, 32) + BODIES[vu.DEVICE_GET_INFO]
    with ctl.client() as client:
        client.send_raw(message[:cut])
        ctl.witness.echo(5)
        client.send_raw(message[cut:])
        assert client.recv()[0] == 9


# version


@pytest.mark.parametrize('text', [
    b'', b'\0', b'x', b'{', b'{}', b'null\0', b'[]\0', b'"capabilities"\0', b'\xff\xfe\xfd\0',
    b'{"capabilities":5}\0', b'{"capabilities":{"max_msg_fds":-1}}\0',
    b'{"capabilities":{"max_msg_fds":"x"}}\0', b'{"capabilities":{"max_msg_fds":1e999}}\0',
    b'{"capabilities":{"max_msg_fds":18446744073709551616}}\0',
    b'{"capabilities":{"max_data_xfer_size":0}}\0',
    b'{"capabilities":{"max_data_xfer_size":-9223372036854775808}}\0',
    b'{"capabilities":{"pgsizes":0}}\0', b'{"capabilities":{"pgsizes":3}}\0',
    b'{"capabilities":{"twin_socket":{"supported":true,"fd_index":7}}}\0',
    b'{"capabilities":{"a":1,"a":2}}\0', b'{}\0{}\0', b'{}' + b' ' * 60000 + b'\0',
    b'[' * 30000 + b'\0', b'{"a":' * 10000 + b'\0', bytes(4000), b'\x01' * 4000,
    b'{"capabilities":{"max_msg_fds":8}}'], ids=lambda t: f'{len(t)}-{t[:24]!r}')
def test_version_text(ctl, text):
    with ctl.client(negotiate=False) as client:
        error = client.refused(vu.VERSION, struct.pack('=HH', 0, 1) + text)
        if error == 0:
            usable(client)


@pytest.mark.parametrize('major,minor', [(1, 0), (0xffff, 0xffff), (2, 1)])
def test_version_number(ctl, major, minor):
    with ctl.client(negotiate=False) as client:
        error = client.refused(vu.VERSION, struct.pack('=HH', major, minor) + b'{}\0')
        assert error != 0, f'version {major}.{minor} was accepted'


def test_version_with_newer_minor_is_negotiated_down(ctl):
    with ctl.client(negotiate=False) as client:
        client.version(minor=7)
        assert client.server_version[0] == 0 and client.server_version[1] <= 7
        usable(client)


@pytest.mark.parametrize('length', range(4))
def test_version_without_number(ctl, length):
    with ctl.client(negotiate=False) as client:
        assert client.refused(vu.VERSION, bytes(length)) != 0


def test_version_twice(ctl):
    with ctl.client() as client:
        assert client.refused(vu.VERSION, struct.pack('=HH', 0, 1) + b'{}\0') != 0


def test_version_of_a_megabyte(ctl):
    text = json.dumps({'capabilities': {'x': 'y' * 1000000}}).encode() + b'\0'
    with ctl.client(negotiate=False) as client:
        try:
            client.refused(vu.VERSION, struct.pack('=HH', 0, 1) + text)
        except vu.Closed:
            pass


# clients


def test_second_client_is_closed_at_once(ctl):
    with ctl.client() as first:
        with ctl.client(negotiate=False) as second:
            assert second.is_closed()
        usable(first)


def test_connection_storm(ctl):
    for _ in range(300):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(ctl.daemon.vf_socket(1))
        sock.close()


def bring_up(driver_holder, client):
    """The steps of an honest driver, each a call that can be the last one."""
    yield lambda: client.device_info()
    yield lambda: client.region_info(0)
    yield lambda: driver_holder.append(NetDriver(client, size=1 << 20))
    yield lambda: driver_holder[0].begin(1 << 32)
    yield lambda: driver_holder[0].enable_msix(3)
    yield lambda: driver_holder[0].put('device_status', 0)
    yield lambda: driver_holder[0].start(vectors=False)
    yield lambda: driver_holder[0].send_frame(bytes(60))
    yield lambda: driver_holder[0].receive_frame()
    yield lambda: driver_holder[0].echo()
    yield lambda: driver_holder[0].put('queue_reset', 1)
    yield lambda: driver_holder[0].client.send(vu.RESET)
    yield lambda: driver_holder[0].client.send(vu.DMA_UNMAP, struct.pack('=IIQQ', 24, 2, 0, 0))


@pytest.mark.parametrize('last', range(14))
def test_vanish_after_each_step(ctl, last):
    client = vu.fresh_client(ctl.daemon.vf_socket(1))
    holder = []
    for i, step in enumerate(bring_up(holder, client)):
        if i == last:
            break
        step()
    if holder:
        holder[0].close()
    client.close()


def test_vanish_under_traffic(ctl):
    for _ in range(5):
        with ctl.net(1, size=1 << 20) as driver:
            driver.start()
            for _ in range(30):
                driver.pairs[0].send(bytes(1400))
            driver.notify(1)


# DMA


@pytest.mark.parametrize('name,addr,size,offset,flags', [
    ('zero size', BASE, 0, 0, 3),
    ('unaligned address', BASE + 1, PAGE, 0, 3),
    ('unaligned size', BASE, PAGE + 1, 0, 3),
    ('unaligned offset', BASE, PAGE, 1, 3),
    ('wraps', (1 << 64) - PAGE, 2 * PAGE, 0, 3),
    ('almost everything', 0, (1 << 64) - PAGE, 0, 3),
    ('offset wraps', BASE, PAGE, (1 << 64) - PAGE, 3),
    ('offset is negative', BASE, PAGE, 1 << 63, 3),
    ('beyond the end of the file', BASE, 64 * PAGE, 0, 3),
    ('offset beyond the end', BASE, PAGE, 64 * PAGE, 3),
    ('part beyond the end', BASE, 4 * PAGE, 2 * PAGE, 3),
    ('huge', BASE, 1 << 62, 0, 3),
    ('no access', BASE, PAGE, 0, 0),
    ('unknown flags', BASE, PAGE, 0, 0xfffffff0),
])
def test_dma_map_of(ctl, name, addr, size, offset, flags):
    with ctl.client() as client, Memory(4 * PAGE) as memory:
        body = struct.pack('=IIQQQ', 32, flags, offset, addr, size)
        refused(client, vu.DMA_MAP, body, [memory.fd])


@pytest.mark.parametrize('argsz', [0, 1, 31, 0xffffffff])
def test_dma_map_argsz(ctl, argsz):
    with ctl.client() as client, Memory(PAGE) as memory:
        client.refused(vu.DMA_MAP, struct.pack('=IIQQQ', argsz, 3, 0, BASE, PAGE), [memory.fd])
        usable(client)


def odd_fds():
    """Things that are not memory."""
    read_end, write_end = os.pipe()
    ours, theirs = socket.socketpair()
    yield 'pipe', read_end
    yield 'socket', ours.fileno()
    yield 'eventfd', os.eventfd(0)
    yield 'null', os.open('/dev/null', os.O_RDWR)
    yield 'folder', os.open('/', os.O_RDONLY)
    yield 'path', os.open('/etc/passwd', os.O_PATH)
    yield 'read only', os.open('/etc/passwd', os.O_RDONLY)
    yield 'proc', os.open('/proc/self/mem', os.O_RDWR)
    os.close(read_end)
    os.close(write_end)
    ours.close()
    theirs.close()


def test_dma_map_of_things_that_are_not_memory(ctl):
    with ctl.client() as client:
        for name, fd in odd_fds():
            error = client.refused(vu.DMA_MAP, BODIES[vu.DMA_MAP], [fd])
            assert error, f'{name} was mapped'
            usable(client)
            if name not in ('pipe', 'socket'):
                os.close(fd)


def test_dma_map_without_fd(ctl):
    """The protocol allows it, we share memory by fd only; either way nothing may break."""
    with ctl.client() as client:
        client.refused(vu.DMA_MAP, BODIES[vu.DMA_MAP])
        usable(client)


def test_dma_map_with_two_fds(ctl):
    with ctl.client() as client, Memory(PAGE) as memory:
        client.refused(vu.DMA_MAP, BODIES[vu.DMA_MAP], [memory.fd, memory.fd])
        usable(client)


@pytest.mark.parametrize('addr,pages', [
    (BASE, 4), (BASE, 1), (BASE + 3 * PAGE, 1), (BASE + PAGE, 2), (BASE - PAGE, 2),
    (BASE - PAGE, 6), (BASE + 3 * PAGE, 4)])
def test_dma_map_overlap(ctl, addr, pages):
    with ctl.client() as client, Memory(8 * PAGE) as memory:
        client.dma_map(BASE, 4 * PAGE, memory.fd)
        body = struct.pack('=IIQQQ', 32, 3, 0, addr, pages * PAGE)
        assert refused(client, vu.DMA_MAP, body, [memory.fd]) == errno.EEXIST
        client.dma_map(BASE + 4 * PAGE, PAGE, memory.fd)
        client.dma_unmap(BASE, 4 * PAGE)


def test_too_many_dma_maps(ctl):
    with ctl.client() as client, Memory(PAGE) as memory:
        count = 0
        error = 0
        while count < 70000:
            try:
                client.dma_map(BASE + count * PAGE, PAGE, memory.fd)
            except vu.VfioUserError as refusal:
                error = refusal.errno
                break
            count += 1
        assert 1000 <= count < 70000 and error, f'{count} mappings accepted'
        usable(client)
        client.dma_unmap(0, 0, 2)
        client.dma_map(BASE, PAGE, memory.fd)


@pytest.mark.parametrize('addr,size,flags', [
    (BASE, PAGE, 0), (BASE, 8 * PAGE, 0), (BASE + PAGE, 3 * PAGE, 0), (BASE + 1, PAGE, 0),
    (0, 0, 0), ((1 << 64) - PAGE, 2 * PAGE, 0), (BASE, 0, 0), (BASE, 4 * PAGE, 0xfffffffc)])
def test_dma_unmap_must_match(ctl, addr, size, flags):
    with ctl.client() as client, Memory(4 * PAGE) as memory:
        client.dma_map(BASE, 4 * PAGE, memory.fd)
        refused(client, vu.DMA_UNMAP, struct.pack('=IIQQ', 24, flags, addr, size))
        client.dma_unmap(BASE, 4 * PAGE)
        refused(client, vu.DMA_UNMAP, struct.pack('=IIQQ', 24, 0, BASE, 4 * PAGE))


def test_map_and_unmap_many_times(ctl):
    with ctl.client() as client, Memory(4 * PAGE) as memory:
        for _ in range(1000):
            client.dma_map(BASE, 4 * PAGE, memory.fd)
            client.dma_unmap(BASE, 4 * PAGE)
        rss = ctl.daemon.rss()
        for _ in range(2000):
            client.dma_map(BASE, 4 * PAGE, memory.fd)
            client.dma_unmap(BASE, 4 * PAGE)
        assert ctl.daemon.rss() - rss < 4 << 20


def test_unmap_while_queues_run(ctl):
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        driver.echo()
        driver.client.dma_unmap(driver.mem.base, driver.mem.size)
        driver.notify(0)
        driver.notify(1)
        ctl.witness.echo()
        driver.client.map_memory(driver.mem)
        driver.start()
        driver.echo()


def test_unmap_of_other_memory_does_not_disturb(ctl):
    with ctl.net(1, size=1 << 20) as driver, Memory(PAGE) as memory:
        driver.start()
        for _ in range(50):
            driver.client.dma_map(0x8000000, PAGE, memory.fd)
            driver.echo()
            driver.client.dma_unmap(0x8000000, PAGE)
            driver.echo()


@pytest.mark.parametrize('keep', [0, PAGE, 64 * PAGE])
def test_memory_truncated_while_queues_run(ctl, keep):
    """The next touch by the device is a SIGBUS: it may cost this device, not the process."""
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        driver.echo()
        driver.pairs[0].send(bytes(60))
        driver.mem.truncate(keep)
        for index in (0, 1, 0, 1):
            try:
                driver.notify(index)
            except (vu.Closed, vu.VfioUserError):
                break
        ctl.witness.echo(3)


def test_memory_truncated_before_the_map(ctl):
    with ctl.client() as client, Memory(4 * PAGE) as memory:
        memory.truncate(PAGE)
        refused(client, vu.DMA_MAP, struct.pack('=IIQQQ', 32, 3, 0, BASE, 4 * PAGE), [memory.fd])


# regions


@pytest.mark.parametrize('region', [6, 8, 9, 10, 255, 0x7fffffff, 0xffffffff])
@pytest.mark.parametrize('command', [vu.REGION_READ, vu.REGION_WRITE])
def test_access_to_a_region_that_is_not_there(ctl, region, command):
    with ctl.client() as client:
        refused(client, command, struct.pack('=QII', 0, region, 4) +
                (bytes(4) if command == vu.REGION_WRITE else b''))


@pytest.mark.parametrize('region', [0, vu.REGION_CONFIG])
@pytest.mark.parametrize('command', [vu.REGION_READ, vu.REGION_WRITE])
def test_access_beyond_the_region(ctl, region, command):
    with ctl.client() as client:
        size = client.region_info(region).size
        for offset, count in [(size, 1), (size - 1, 2), (size, 0xffff), ((1 << 64) - 1, 1),
                              ((1 << 64) - 4, 8), (1 << 63, 4), (size - 4, 8), (0, size + 1),
                              ((1 << 32), 4), ((1 << 32) - 2, 4)]:
            count = min(count, 1 << 20)
            data = bytes(count) if command == vu.REGION_WRITE else b''
            if offset + count <= size:
                continue
            refused(client, command, struct.pack('=QII', offset, region, count) + data)


@pytest.mark.parametrize('count,data', [(0, 4), (1, 4), (8, 4), (0xffffffff, 4), (4, 0),
                                        (0x80000000, 0), (2 << 20, 64)])
def test_write_count_that_lies(ctl, count, data):
    with ctl.client() as client:
        client.refused(vu.REGION_WRITE,
                       struct.pack('=QII', 4, vu.REGION_CONFIG, count) + bytes(data))
        usable(client)


@pytest.mark.parametrize('count', [0, (1 << 20) + 1, 0x7fffffff, 0xffffffff])
def test_read_count_that_lies(ctl, count):
    with ctl.client() as client:
        client.refused(vu.REGION_READ, struct.pack('=QII', 0, 0, count))
        usable(client)


def test_every_register_at_every_width(ctl):
    """Odd widths and offsets into each virtio structure: any answer, but an answer."""
    with ctl.net(1, size=1 << 20) as driver:
        for bar, base, size in list(driver.caps.values()):
            for offset in list(range(0, min(size, 72))) + [max(size - 1, 0)]:
                for count in (1, 2, 3, 4, 5, 8, 16, 64):
                    if offset + count > size:
                        continue
                    client = driver.client
                    client.refused(vu.REGION_READ, struct.pack('=QII', base + offset, bar, count))
        for bar, base, size in list(driver.caps.values()):
            for offset in range(0, min(size, 72), 3):
                for count in (1, 3, 4, 8):
                    if offset + count <= size:
                        driver.client.refused(vu.REGION_WRITE, struct.pack(
                            '=QII', base + offset, bar, count) + b'\xff' * count)
        usable(driver.client)


def test_whole_bar_can_be_read_and_overwritten(ctl):
    with ctl.client() as client:
        size = client.region_info(0).size
        for pattern in (b'\xff', b'\x00', b'\x5a'):
            for offset in range(0, size, 4096):
                client.refused(vu.REGION_READ, struct.pack('=QII', offset, 0, 4096))
                client.refused(vu.REGION_WRITE, struct.pack('=QII', offset, 0, 4096) +
                               pattern * 4096)
        usable(client)


def test_config_space_overwritten(ctl):
    """Identity and capabilities are read only, whatever is written."""
    with ctl.client() as client:
        size = client.region_info(vu.REGION_CONFIG).size
        before = client.read(vu.REGION_CONFIG, 0, 4)
        cap_ptr = client.read(vu.REGION_CONFIG, 0x34, 1)
        for pattern in (b'\xff', b'\x00'):
            for offset in range(0, size, 4):
                client.refused(vu.REGION_WRITE, struct.pack('=QII', offset, vu.REGION_CONFIG, 4) +
                               pattern * 4)
        assert client.read(vu.REGION_CONFIG, 0, 4) == before
        assert client.read(vu.REGION_CONFIG, 0x34, 1) == cap_ptr


@pytest.mark.parametrize('index', [9, 10, 0x80000000, 0xffffffff])
@pytest.mark.parametrize('command', [vu.REGION_INFO, vu.REGION_IO_FDS, vu.IRQ_INFO])
def test_info_of_a_bad_index(ctl, command, index):
    body = bytearray(BODIES[command])
    struct.pack_into('=I', body, 8, index)
    with ctl.client() as client:
        refused(client, command, bytes(body))


@pytest.mark.parametrize('argsz', [0, 1, 15, 31, 32, 33, 48, 0xffffffff])
@pytest.mark.parametrize('command', [vu.REGION_INFO, vu.REGION_IO_FDS, vu.IRQ_INFO,
                                     vu.DEVICE_GET_INFO, vu.DMA_UNMAP])
def test_argsz_that_lies(ctl, command, argsz):
    body = bytearray(BODIES[command])
    struct.pack_into('=I', body, 0, argsz)
    with ctl.client() as client:
        client.refused(command, bytes(body))
        usable(client)


@pytest.mark.parametrize('count', [1, 1000, 0xffffffff])
def test_region_io_fds_count_that_lies(ctl, count):
    with ctl.client() as client:
        client.refused(vu.REGION_IO_FDS, struct.pack('=IIII', 16, 0, 0, count))
        usable(client)


# interrupts


def irq_body(flags, index, start, count, data=b'', argsz=None):
    return struct.pack('=IIIII', 20 + len(data) if argsz is None else argsz, flags, index, start,
                       count) + data


EVENT = vu.IRQ_EVENTFD | vu.IRQ_TRIGGER


@pytest.mark.parametrize('name,body,fds', [
    ('index', irq_body(EVENT, 5, 0, 1), 1),
    ('index of -1', irq_body(EVENT, 0xffffffff, 0, 1), 1),
    ('start', irq_body(EVENT, 2, 0xffff, 1), 1),
    ('start wraps', irq_body(EVENT, 2, 0xffffffff, 2), 2),
    ('count', irq_body(EVENT, 2, 0, 0xffffffff), 1),
    ('start and count wrap', irq_body(EVENT, 2, 0x80000000, 0x80000000), 1),
    ('fewer fds', irq_body(EVENT, 2, 0, 3), 2),
    ('more fds', irq_body(EVENT, 2, 0, 1), 2),
    ('no action', irq_body(vu.IRQ_EVENTFD, 2, 0, 1), 1),
    ('all actions', irq_body(vu.IRQ_EVENTFD | 0x38, 2, 0, 1), 1),
    ('no data type', irq_body(vu.IRQ_TRIGGER, 2, 0, 1), 0),
    ('all data types', irq_body(7 | vu.IRQ_TRIGGER, 2, 0, 1, b'\1'), 1),
    ('unknown flags', irq_body(0xffffffc0, 2, 0, 1), 0),
    ('bool without data', irq_body(vu.IRQ_BOOL | vu.IRQ_TRIGGER, 2, 0, 4, b'\1'), 0),
    ('fds with data none', irq_body(vu.IRQ_NONE | vu.IRQ_TRIGGER, 2, 0, 1), 3),
    ('index without vectors', irq_body(EVENT, 1, 0, 1), 1),
])
def test_set_irqs(ctl, name, body, fds):
    with ctl.client() as client:
        events = [os.eventfd(0) for _ in range(fds)]
        try:
            refused(client, vu.SET_IRQS, body, events)
        finally:
            for fd in events:
                os.close(fd)


def test_set_irqs_too_many_fds_at_once(ctl):
    with ctl.client() as client:
        events = [os.eventfd(0) for _ in range(250)]
        try:
            client.refused(vu.SET_IRQS, irq_body(EVENT, 2, 0, 250), events)
        finally:
            for fd in events:
                os.close(fd)


def test_set_irqs_replaced_many_times(ctl):
    with ctl.client() as client:
        event = os.eventfd(0)
        before = None
        for _ in range(500):
            client.set_irqs(2, EVENT, 0, 1, [event])
            if before is None:
                before = ctl.daemon.fds()
        assert ctl.daemon.fds() == before
        client.set_irqs(2, vu.IRQ_NONE | vu.IRQ_TRIGGER, 0, 0)
        os.close(event)


def full_eventfd():
    """The next write of 1 blocks, unless the writer is careful."""
    fd = os.eventfd(0xfffffffe, os.EFD_CLOEXEC)
    os.eventfd_write(fd, 0xfffffffffffffffe - 0xfffffffe)
    return fd


@pytest.mark.parametrize('late', [False, True])
def test_interrupt_that_would_block(ctl, late):
    """A full eventfd without O_NONBLOCK must not stop the worker; the flag is the peer's too."""
    fd = full_eventfd()
    try:
        with ctl.net(1, size=1 << 20) as driver:
            driver.irqs = {}
            for vector in (1, 2):
                driver.client.set_irqs(2, EVENT, vector, 1, [fd])
            start_with_vectors(driver)
            if late:
                os.set_blocking(fd, True)
            for _ in range(8):
                driver.pairs[0].send(bytes(60))
                driver.notify(1)
            ctl.witness.echo(3, timeout=2 * daemons.SLOW)
    finally:
        os.eventfd_read(fd)
        os.close(fd)


def start_with_vectors(driver):
    """start(), but with interrupts that the test has set itself."""
    saved = driver.enable_msix
    driver.enable_msix = lambda count: None
    try:
        driver.start(vectors=True)
    finally:
        driver.enable_msix = saved


@pytest.mark.parametrize('kind', ['pipe', 'file', 'socket'])
def test_interrupt_into_something_else(ctl, kind):
    """An fd that is no eventfd: refused, or at least harmless."""
    ours, theirs = socket.socketpair()
    if kind == 'pipe':
        fd = os.pipe()
        use = fd[1]
    elif kind == 'file':
        use = os.memfd_create('irq')
        fd = (use,)
    else:
        use, fd = ours.fileno(), ()
    try:
        with ctl.net(1, size=1 << 20) as driver:
            error = driver.client.refused(vu.SET_IRQS, irq_body(EVENT, 2, 1, 1), [use])
            if error == 0:
                start_with_vectors(driver)
                for _ in range(20):
                    driver.pairs[0].send(bytes(60))
                    driver.notify(1)
            ctl.witness.echo()
    finally:
        for one in fd:
            os.close(one)
        ours.close()
        theirs.close()


# reset and races


def test_reset_while_packets_fly(ctl):
    with ctl.net(1, size=1 << 20) as driver:
        for _ in range(20):
            driver.start()
            for _ in range(20):
                driver.pairs[0].send(bytes(1000))
            driver.notify(1)
            driver.client.reset()
            assert driver.get('device_status') == 0


def test_reset_with_a_body(ctl):
    with ctl.client() as client:
        client.refused(vu.RESET, bytes(4096))
        usable(client)


def test_doorbell_storm(ctl):
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        bar, base, _ = driver.caps[2]
        body = struct.pack('=QII', base + driver.notify_offs[1] * driver.notify_multiplier, bar,
                           2) + struct.pack('<H', 1)
        for _ in range(3000):
            driver.client.send(vu.REGION_WRITE, body, flags=vu.F_NO_REPLY)
        driver.echo()


@pytest.mark.parametrize('value', [2, 8, 100, 0xffff])
def test_doorbell_of_a_queue_that_is_not_there(ctl, value):
    with ctl.net(1, size=1 << 20) as driver:
        driver.start()
        bar, base, size = driver.caps[2]
        for offset in (base, base + size - 4, base + size // 2, base + 2):
            driver.client.refused(vu.REGION_WRITE, struct.pack('=QII', offset, bar, 2) +
                                  struct.pack('<H', value))
        driver.echo()


def test_many_hostile_clients_at_once(ctl):
    """All VFs but the witness are abused at the same time."""
    def abuse(index):
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            try:
                with Memory(16 * PAGE) as memory, ctl.client(index) as client:
                    client.dma_map(BASE, 16 * PAGE, memory.fd)
                    client.send_raw(os.urandom(200))
                    client.is_closed(0.05)
            except OSError:
                pass

    threads = [threading.Thread(target=abuse, args=(i,)) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    ctl.witness.echo(100)
    for thread in threads:
        thread.join()
    ctl.check((1, 2, 3))
