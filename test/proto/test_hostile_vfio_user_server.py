# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A hostile vfio-user server (a faulty or malicious device) against the service.

The lying PF and its VFs live in the same folder as the honest controller, whose VF 0 keeps
passing packets. A device that lies is refused with an error number, or accepted and then lost;
removing it must always work.
"""

import os
import struct
import threading
import time

import pytest

from peers import admin, daemons, emu
from peers import vfio_user as vu
from peers import vhost_user as vh

PF = '0000:b0:00.0'
VF_OFFSET = 0x10
VF1 = daemons.bdf_add(PF, VF_OFFSET)

PROBE_SECONDS = 30


class Liar:
    """A PF and one VF on the socket folder of the service under test."""

    def __init__(self, svc):
        self.svc = svc
        self.servers = []
        self.pf = emu.Pf(vf_offset=VF_OFFSET, vfs=2)
        self.vf = emu.Vf()
        self.pf_server = None
        self.vf_server = None

    def serve(self, bdf, device, hooks=None):
        server = vu.Server(self.svc.controller.socket(bdf), device, hooks)
        self.servers.append(server)
        return server

    def serve_pf(self, **hooks):
        self.pf_server = self.serve(PF, self.pf, command_hooks(hooks))
        return self.pf_server

    def serve_vf(self, **hooks):
        self.vf_server = self.serve(VF1, self.vf, command_hooks(hooks))
        return self.vf_server

    def add_pf(self):
        """Returns None when accepted, else the refusal."""
        try:
            self.svc.service.pf_add(PF)
            return None
        except daemons.Refused as refusal:
            assert 1000 <= refusal.errno <= 1042, refusal
            assert refusal.errstr
            return refusal

    def add_vf(self):
        try:
            self.svc.service.vf_add(VF1, os.path.join(self.svc.work, 'liar'))
            return None
        except daemons.Refused as refusal:
            assert 1000 <= refusal.errno <= 1042, refusal
            return refusal

    def remove(self):
        """Whatever was accepted goes; what was not is not there."""
        for call, bdf in ((self.svc.service.vf_remove, VF1), (self.svc.service.pf_remove, PF)):
            try:
                call(bdf)
            except daemons.Refused as refusal:
                assert refusal.errno in (1001, 1003), refusal

    def close(self):
        for server in self.servers:
            server.stop()


def command_hooks(hooks):
    return {getattr(vu, name): hook for name, hook in hooks.items()}


@pytest.fixture
def liar(svc):
    one = Liar(svc)
    yield one
    try:
        one.remove()
    finally:
        one.close()


def version_answers(svc):
    """Management goes on while one device keeps its probe waiting."""
    begin = time.monotonic()
    svc.service.rpc('version')
    assert time.monotonic() - begin < 2 * daemons.SLOW, 'the RPC thread is blocked by a device'


# the honest run first: the emulation must be good enough for the lies to matter


def test_honest_pf_and_vf(svc, liar):
    liar.serve_pf()
    liar.serve_vf()
    refusal = liar.add_pf()
    assert refusal is None, refusal
    refusal = liar.add_vf()
    assert refusal is None, refusal
    info = svc.service.vf_info(VF1)
    assert info['vf'] == VF1
    svc.service.vf_remove(VF1)
    svc.service.pf_remove(PF)


def test_no_server_behind_the_socket(svc, liar):
    liar.serve_pf().stop()
    liar.servers.clear()
    path = svc.controller.socket(PF)
    assert liar.add_pf() is not None
    with open(path, 'w', encoding='ascii'):
        assert liar.add_pf() is not None
    os.unlink(path)
    os.mkdir(path)
    assert liar.add_pf() is not None
    os.rmdir(path)


# configuration space


def cap(at, field, value, size='B'):
    """Edit one field of a capability."""
    def edit(cfg):
        struct.pack_into('<' + size, cfg, at + field, value)
    return edit


CONFIG_LIES = {
    'vendor id': cap(0, 0, 0x8086, 'H'),
    'device id': cap(0, 2, 0x1234, 'H'),
    'legacy device id': cap(0, 2, 0x1000, 'H'),
    'no capability list': cap(0, 6, 0, 'H'),
    'capability pointer 0': cap(0, 0x34, 0),
    'capability pointer into the header': cap(0, 0x34, 0x10),
    'capability pointer at the end': cap(0, 0x34, 0xfc),
    'self loop': cap(emu.CAP_COMMON_AT, 1, emu.CAP_COMMON_AT),
    'loop': cap(emu.CAP_EXP_AT, 1, emu.CAP_COMMON_AT),
    'next into the header': cap(emu.CAP_COMMON_AT, 1, 0x04),
    'common length 0': cap(emu.CAP_COMMON_AT, 2, 0),
    'common length 15': cap(emu.CAP_COMMON_AT, 2, 15),
    'common bar 6': cap(emu.CAP_COMMON_AT, 4, 6),
    'common bar 255': cap(emu.CAP_COMMON_AT, 4, 255),
    'common bar absent': cap(emu.CAP_COMMON_AT, 4, 3),
    'common offset behind': cap(emu.CAP_COMMON_AT, 8, emu.BAR_SIZE, 'I'),
    'common offset at the end': cap(emu.CAP_COMMON_AT, 8, emu.BAR_SIZE - 4, 'I'),
    'common offset wraps': cap(emu.CAP_COMMON_AT, 8, 0xfffffff0, 'I'),
    'common offset odd': cap(emu.CAP_COMMON_AT, 8, 3, 'I'),
    'common size 0': cap(emu.CAP_COMMON_AT, 12, 0, 'I'),
    'common size 55': cap(emu.CAP_COMMON_AT, 12, 55, 'I'),
    'common size -1': cap(emu.CAP_COMMON_AT, 12, 0xffffffff, 'I'),
    'common missing': cap(emu.CAP_COMMON_AT, 3, 8),
    'notify missing': cap(emu.CAP_NOTIFY_AT, 3, 8),
    'notify capability of 16': cap(emu.CAP_NOTIFY_AT, 2, 16),
    'notify size 0': cap(emu.CAP_NOTIFY_AT, 12, 0, 'I'),
    'notify size 1': cap(emu.CAP_NOTIFY_AT, 12, 1, 'I'),
    'notify offset behind': cap(emu.CAP_NOTIFY_AT, 8, 0x7fffffff, 'I'),
    'notify multiplier 1': cap(emu.CAP_NOTIFY_AT, 16, 1, 'I'),
    'notify multiplier -1': cap(emu.CAP_NOTIFY_AT, 16, 0xffffffff, 'I'),
    'notify multiplier 2^31': cap(emu.CAP_NOTIFY_AT, 16, 0x80000000, 'I'),
    'device missing': cap(emu.CAP_DEVICE_AT, 3, 8),
    'device size 0': cap(emu.CAP_DEVICE_AT, 12, 0, 'I'),
    'device size 7': cap(emu.CAP_DEVICE_AT, 12, 7, 'I'),
    'device offset behind': cap(emu.CAP_DEVICE_AT, 8, 0x10000000, 'I'),
    'isr missing': cap(emu.CAP_ISR_AT, 3, 8),
    'isr size 0': cap(emu.CAP_ISR_AT, 12, 0, 'I'),
    'all ones': lambda cfg: cfg.__setitem__(slice(0, len(cfg)), b'\xff' * len(cfg)),
    'all zero': lambda cfg: cfg.__setitem__(slice(0, len(cfg)), bytes(len(cfg))),
}
CONFIG_MUST_FAIL = sorted(set(CONFIG_LIES) - {
    'notify multiplier 1', 'isr missing', 'isr size 0', 'loop', 'self loop',
    'next into the header', 'notify multiplier -1', 'notify multiplier 2^31',
    'common offset odd', 'notify size 1'})


@pytest.mark.parametrize('name', sorted(CONFIG_LIES))
def test_pf_config_space(liar, name):
    CONFIG_LIES[name](liar.pf.cfg)
    liar.serve_pf()
    refusal = liar.add_pf()
    assert refusal is not None or name not in CONFIG_MUST_FAIL, 'the PF was accepted'


@pytest.mark.parametrize('name', sorted(CONFIG_LIES))
def test_vf_config_space(liar, name):
    liar.serve_pf()
    assert liar.add_pf() is None
    CONFIG_LIES[name](liar.vf.cfg)
    liar.serve_vf()
    refusal = liar.add_vf()
    assert refusal is not None or name not in CONFIG_MUST_FAIL, 'the VF was accepted'


def sriov(field, value, size='H'):
    return cap(emu.SRIOV_AT, field, value, size)


SRIOV_LIES = {
    'no capability': sriov(0, 0, 'I'),
    'self loop': sriov(0, 0x10 | 1 << 16 | 0x100 << 20, 'I'),
    'other id, self loop': sriov(0, 0x55 | 1 << 16 | 0x100 << 20, 'I'),
    'next unaligned': sriov(0, 0x55 | 1 << 16 | 0xfff << 20, 'I'),
    'next into the header': sriov(0, 0x55 | 1 << 16 | 0x40 << 20, 'I'),
    'no VFs': sriov(0x10, 0),
    '65535 VFs': sriov(0x10, 0xffff),
    'more VFs than in total': sriov(0x0e, 0),
    'VF enable off': sriov(8, 0),
    'offset 0': sriov(0x14, 0),
    'offset 65535': sriov(0x14, 0xffff),
    'stride 0': sriov(0x16, 0),
    'stride 65535': sriov(0x16, 0xffff),
    'other device id': sriov(0x1a, 0x1042),
}


@pytest.mark.parametrize('name', sorted(SRIOV_LIES))
def test_sriov(liar, name):
    SRIOV_LIES[name](liar.pf.cfg)
    liar.serve_pf()
    liar.serve_vf()
    if liar.add_pf() is None:
        liar.add_vf()


@pytest.mark.parametrize('size', [0, 4, 63, 64, 255, 256, (1 << 64) - 1])
def test_size_of_config_region(liar, size):
    def lie(_server, body, reply):
        if struct.unpack_from('=I', body, 8)[0] == vu.REGION_CONFIG:
            reply.body = reply.body[:16] + struct.pack('=Q', size) + reply.body[24:]
    liar.serve_pf(REGION_INFO=lie)
    refusal = liar.add_pf()
    assert refusal is not None or size >= 256


@pytest.mark.parametrize('size', [0, 1, 64, 0x3fff, (1 << 63), (1 << 64) - 1])
def test_size_of_bar(liar, size):
    def lie(_server, body, reply):
        if struct.unpack_from('=I', body, 8)[0] == 0:
            reply.body = reply.body[:16] + struct.pack('=Q', size) + reply.body[24:]
    liar.serve_pf(REGION_INFO=lie)
    refusal = liar.add_pf()
    assert refusal is not None or size > emu.BAR_SIZE


# registers


REGISTER_LIES = {
    'no queues': ('num_queues', 0),
    'one queue': ('num_queues', 1),
    '65535 queues': ('num_queues', 0xffff),
    'queue size 0': ('queue_size', 0),
    'queue size 3': ('queue_size', 3),
    'queue size 65535': ('queue_size', 0xffff),
    'notify off 65535': ('queue_notify_off', 0xffff),
    'FEATURES_OK does not stay': ('device_status', 'no features ok'),
    'needs reset': ('device_status', 'needs reset'),
    'status 255': ('device_status', 'all'),
    'no features': ('device_feature', 0),
    'all features': ('device_feature', 0xffffffff),
    'queue does not enable': ('queue_enable', 0),
    'vector refused': ('queue_msix_vector', 0xffff),
    'admin index 65535': ('admin_queue_index', 0xffff),
    'admin count 65535': ('admin_queue_num', 0xffff),
}


def register_lie(name):
    register, value = REGISTER_LIES[name]

    def lie(which, honest):
        if which != register:
            return honest
        if value == 'no features ok':
            return honest & ~8
        if value == 'needs reset':
            return honest | 0x40 if honest else 0
        if value == 'all':
            return 0xff if honest else 0
        return value
    return lie


@pytest.mark.parametrize('name', sorted(set(REGISTER_LIES) - {'admin count 65535'}))
def test_pf_registers(liar, name):
    liar.pf.on_register = register_lie(name)
    liar.serve_pf()
    refusal = liar.add_pf()
    if name in ('queue size 0', 'no features', 'FEATURES_OK does not stay', 'queue size 3'):
        assert refusal is not None
    if name == 'no features':
        assert refusal.errno == 1011


@pytest.mark.parametrize('name', sorted(REGISTER_LIES))
def test_vf_registers(svc, liar, name):
    liar.serve_pf()
    assert liar.add_pf() is None
    liar.vf.on_register = register_lie(name)
    liar.serve_vf()
    if liar.add_vf() is None:
        run_guest(svc)


def run_guest(svc, path='liar', hold=0.0):
    """A front end on the liar's VF: it may fail in every way but hang."""
    with vh.FrontEnd(os.path.join(svc.work, path), timeout=15 * daemons.SLOW,
                     mem_size=1 << 20) as front_end:
        try:
            front_end.connect()
            front_end.start()
            time.sleep(hold)
            front_end.stop()
        except (vh.Closed, AssertionError):
            pass


def test_generation_never_stands_still(liar):
    counter = [0]

    def lie(which, honest):
        if which != 'config_generation':
            return honest
        counter[0] = counter[0] + 1 & 0xff
        return counter[0]
    liar.serve_pf()
    assert liar.add_pf() is None
    liar.vf.on_register = lie
    liar.serve_vf()
    liar.add_vf()


@pytest.mark.parametrize('who', ['pf', 'vf'])
def test_reset_never_ends(svc, liar, who):
    """A DPU may take minutes; other work goes on, and a hang-up ends the wait at once."""
    device = liar.pf if who == 'pf' else liar.vf
    liar.serve_pf()
    if who == 'vf':
        assert liar.add_pf() is None
        liar.serve_vf()
    device.on_register = lambda which, honest: honest | 1 if which == 'device_status' else honest
    result = []
    add = liar.add_pf if who == 'pf' else liar.add_vf
    thread = threading.Thread(target=lambda: result.append(add()))
    thread.start()
    time.sleep(0.3)
    version_answers(svc)
    svc.witness.echo()
    server = liar.pf_server if who == 'pf' else liar.vf_server
    server.stop()
    liar.servers.remove(server)
    thread.join(10 * daemons.SLOW)
    assert not thread.is_alive(), 'the wait for a reset outlives the device'
    assert result[0] is not None


@pytest.mark.parametrize('pairs', [0, 0x8001, 0xffff])
def test_number_of_queue_pairs(liar, pairs):
    liar.serve_pf()
    assert liar.add_pf() is None
    struct.pack_into('<H', liar.vf.net_config, 8, pairs)
    liar.serve_vf()
    liar.add_vf()


@pytest.mark.parametrize('pairs', [0, 2, 0x7fff, 0xffff])
def test_admin_queue_index_from_pairs(liar, pairs):
    struct.pack_into('<H', liar.pf.net_config, 8, pairs)
    liar.serve_pf()
    assert liar.add_pf() is not None


# messages


def truncated(length):
    def lie(_server, _body, reply):
        reply.body = reply.body[:length]
    return lie


def cut(length):
    def lie(_server, _body, reply):
        reply.cut = length
    return lie


def field(name, value):
    def lie(_server, _body, reply):
        setattr(reply, name, value)
    return lie


def garbage(_server, _body, reply):
    reply.body = os.urandom(len(reply.body) or 16)


def ones(_server, _body, reply):
    reply.body = b'\xff' * (len(reply.body) or 16)


def unwanted_fds(count):
    def lie(server, _body, reply):
        reply.fds += [server.listener.fileno()] * count
    return lie


def other_id(_server, _body, reply):
    reply.msg_id ^= 0x5555


def other_command(_server, _body, reply):
    reply.command ^= 1


def hang_up(_server, _body, reply):
    reply.drop = reply.close = True


def unsolicited(_server, _body, reply):
    """A command of the server in between: DMA_READ, which it may not need at all."""
    reply.raw = vu.pack_header(77, vu.DMA_READ, 32) + struct.pack('=QQ', 0, 64) + reply.encode()


def longer(_server, _body, reply):
    reply.body += bytes(5000)


MESSAGE_LIES = {
    'size 0': field('size', 0), 'size 15': field('size', 15), 'size -1': field('size', -1),
    'size 1 MiB too large': field('size', 1 << 20), 'not a reply': field('flags', 0),
    'error 0': field('flags', vu.F_REPLY | vu.F_ERROR), 'all flags': field('flags', 0xffffffff),
    'empty': truncated(0), 'one byte': truncated(1), 'short by some': truncated(12),
    'longer': longer, 'garbage': garbage, 'ones': ones, 'another id': other_id,
    'another command': other_command, 'twice': field('repeat', 2), 'hang up': hang_up,
    'cut at 1': cut(1), 'cut at 15': cut(15), 'cut at 16': cut(16), 'cut at 20': cut(20),
    'one fd': unwanted_fds(1), '16 fds': unwanted_fds(16), '200 fds': unwanted_fds(200),
    'command in between': unsolicited,
}
PROBE_COMMANDS = ['VERSION', 'DMA_MAP', 'DEVICE_GET_INFO', 'REGION_INFO', 'IRQ_INFO', 'SET_IRQS',
                  'REGION_READ', 'REGION_WRITE', 'REGION_IO_FDS']
SILENT = {'another id', 'size 1 MiB too large', 'not a reply'}  # in effect: see test_silence
FATAL = {'size 0', 'size 15', 'size -1', 'hang up', 'cut at 1', 'cut at 15'}


@pytest.mark.parametrize('command', PROBE_COMMANDS)
@pytest.mark.parametrize('name', sorted(set(MESSAGE_LIES) - SILENT))
def test_pf_message(liar, name, command):
    server = liar.serve_pf(**{command: MESSAGE_LIES[name]})
    refusal = liar.add_pf()
    if name in FATAL and server.counts.get(getattr(vu, command)):
        assert refusal is not None, 'the PF was accepted'


@pytest.mark.parametrize('command', PROBE_COMMANDS)
@pytest.mark.parametrize('name', ['size 15', 'garbage', 'hang up', 'twice', '16 fds', 'empty'])
def test_vf_message(svc, liar, name, command):
    liar.serve_pf()
    assert liar.add_pf() is None
    liar.serve_vf(**{command: MESSAGE_LIES[name]})
    if liar.add_vf() is None:
        run_guest(svc)


VERSION_TEXTS = [b'', b'\0', b'{', b'null\0', b'[]\0', b'{"capabilities":7}\0', b'\xff\xff\0',
                 b'{"capabilities":{"max_msg_fds":0}}\0',
                 b'{"capabilities":{"max_msg_fds":-5}}\0',
                 b'{"capabilities":{"max_data_xfer_size":0}}\0',
                 b'{"capabilities":{"max_data_xfer_size":1}}\0',
                 b'{"capabilities":{"max_dma_maps":0}}\0',
                 b'{"capabilities":{"twin_socket":{"supported":true,"fd_index":3}}}\0',
                 b'[' * 50000 + b'\0', b'{}' + b' ' * 100000 + b'\0']


@pytest.mark.parametrize('text', VERSION_TEXTS, ids=lambda t: f'{len(t)}-{t[:20]!r}')
def test_version_text(liar, text):
    def lie(_server, body, reply):
        reply.body = body[:4] + text
    liar.serve_pf(VERSION=lie)
    liar.add_pf()


@pytest.mark.parametrize('major,minor', [(1, 0), (0xffff, 0xffff), (0, 0xffff)])
def test_version_number(liar, major, minor):
    def lie(_server, _body, reply):
        reply.body = struct.pack('=HH', major, minor) + reply.body[4:]
    liar.serve_pf(VERSION=lie)
    refusal = liar.add_pf()
    assert refusal is not None or major == 0


def region_reply(flags=15, cap_offset=32, size=emu.BAR_SIZE, offset=0, caps=b'', make_fd=None):
    def lie(_server, body, reply):
        index, = struct.unpack_from('=I', body, 8)
        if index != 0:
            return
        reply.body = struct.pack('=IIIIQQ', 32 + len(caps), flags, index, cap_offset, size,
                                 offset) + caps
        if make_fd:
            reply.fds = [make_fd()]
    return lie


def sparse(count, *areas, next_=0, kind=1):
    return struct.pack('=HHIII', kind, 1, next_, count, 0) + b''.join(
        struct.pack('=QQ', *area) for area in areas)


def memfd(size=emu.BAR_SIZE):
    fd = os.memfd_create('bar')
    os.ftruncate(fd, size)
    return fd


REGION_LIES = {
    'mmap without fd': region_reply(7, 0),
    'fd of a pipe': region_reply(7, 0, make_fd=lambda: os.open('/dev/null', os.O_RDWR)),
    'fd too short': region_reply(7, 0, make_fd=lambda: memfd(4096)),
    'offset wraps': region_reply(7, 0, offset=(1 << 64) - 4096, make_fd=memfd),
    'offset unaligned': region_reply(7, 0, offset=5, make_fd=memfd),
    'cap offset behind': region_reply(cap_offset=4096, make_fd=memfd),
    'cap offset -1': region_reply(cap_offset=0xffffffff, make_fd=memfd),
    'cap offset inside': region_reply(cap_offset=4, make_fd=memfd),
    'cap cut': region_reply(caps=b'\1\0\1\0', make_fd=memfd),
    'cap self loop': region_reply(caps=sparse(0, next_=32), make_fd=memfd),
    'unknown cap self loop': region_reply(caps=sparse(0, next_=32, kind=9), make_fd=memfd),
    'cap next behind': region_reply(caps=sparse(0, next_=9999), make_fd=memfd),
    'areas -1': region_reply(caps=sparse(0xffffffff, (0, 4096)), make_fd=memfd),
    'more areas than bytes': region_reply(caps=sparse(5, (0, 4096)), make_fd=memfd),
    'area behind': region_reply(caps=sparse(1, (emu.BAR_SIZE, 4096)), make_fd=memfd),
    'area wraps': region_reply(caps=sparse(1, ((1 << 64) - 4096, 8192)), make_fd=memfd),
    'area unaligned': region_reply(caps=sparse(1, (5, 77)), make_fd=memfd),
    'area of nothing': region_reply(caps=sparse(1, (0, 0)), make_fd=memfd),
    'areas overlap': region_reply(caps=sparse(2, (0x4000, 0x4000), (0x4000, 0x8000)),
                                  make_fd=memfd),
}


@pytest.mark.parametrize('who', ['pf', 'vf'])
@pytest.mark.parametrize('name', sorted(REGION_LIES))
def test_region_info(svc, liar, name, who):
    if who == 'pf':
        if name == 'areas overlap':
            pytest.skip('as good as a queue that never completes')
        liar.serve_pf(REGION_INFO=REGION_LIES[name])
        liar.add_pf()
        return
    liar.serve_pf()
    assert liar.add_pf() is None
    liar.serve_vf(REGION_INFO=REGION_LIES[name])
    if liar.add_vf() is None:
        run_guest(svc)


def test_doorbell_memory_shrinks(svc, liar):
    """The mapped BAR loses its pages: SIGBUS at the doorbell, of this device only."""
    fds = []

    def make():
        fds.append(memfd())
        return os.dup(fds[-1])

    hook = region_reply(caps=sparse(1, (emu.NOTIFY_AT, emu.BAR_SIZE - emu.NOTIFY_AT)),
                        make_fd=make)
    liar.serve_pf()
    assert liar.add_pf() is None
    liar.serve_vf(REGION_INFO=hook)
    if liar.add_vf() is None:
        for fd in fds:
            os.ftruncate(fd, 0)
        run_guest(svc, hold=0.1)
    for fd in fds:
        os.close(fd)


def test_admin_doorbell_memory_shrinks(svc, liar):
    fds = []

    def make():
        fds.append(memfd())
        return os.dup(fds[-1])

    hook = region_reply(caps=sparse(1, (emu.NOTIFY_AT, emu.BAR_SIZE - emu.NOTIFY_AT)),
                        make_fd=make)

    def shrink(_server, _body, _reply):
        for fd in fds:
            os.ftruncate(fd, 0)

    liar.serve_pf(REGION_INFO=hook, DMA_MAP=shrink)
    liar.add_pf()
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize('count', [0, 1, 2049, 0x7fffffff, 0xffffffff])
@pytest.mark.parametrize('who', ['pf', 'vf'])
def test_irq_count(liar, who, count):
    def lie(_server, body, reply):
        reply.body = body[:12] + struct.pack('=I', count)
    if who == 'pf':
        liar.serve_pf(IRQ_INFO=lie)
        liar.add_pf()
        return
    liar.serve_pf()
    assert liar.add_pf() is None
    liar.serve_vf(IRQ_INFO=lie)
    liar.add_vf()


@pytest.mark.parametrize('regions,irqs', [(0, 0), (8, 5), (9, 0), (0xffffffff, 0xffffffff)])
def test_device_info(liar, regions, irqs):
    def lie(_server, _body, reply):
        reply.body = struct.pack('=IIII', 16, 3, regions, irqs)
    liar.serve_pf(DEVICE_GET_INFO=lie)
    liar.add_pf()


@pytest.mark.parametrize('count,fd_index', [(1, 0), (1, 7), (1, 0xffffffff), (0xffffffff, 0),
                                            (5000, 0)])
def test_io_fds(svc, liar, count, fd_index):
    def lie(_server, body, reply):
        sub = struct.pack('=QQIIIIQ', emu.NOTIFY_AT, 4096, fd_index, 0, 0, 0, 0)
        reply.body = struct.pack('=IIII', 56, 0, 0, count) + sub
        reply.fds = [os.open('/dev/null', os.O_RDWR)]
    liar.serve_pf()
    assert liar.add_pf() is None
    liar.serve_vf(REGION_IO_FDS=lie)
    if liar.add_vf() is None:
        run_guest(svc)


def test_silence(svc, liar):
    """Devices that say nothing, or never the right thing: each probe ends by its deadline."""
    cases = [('REGION_READ', field('drop', True)), ('VERSION', field('size', 1 << 20)),
             ('DMA_MAP', other_id)]
    threads = []
    results = {}
    for i, (command, hook) in enumerate(cases):
        bdf = f'0000:c{i}:00.0'
        liar.serve(bdf, emu.Pf(vf_offset=VF_OFFSET), command_hooks({command: hook}))

        def add(bdf=bdf):
            try:
                svc.service.pf_add(bdf)
                results[bdf] = None
            except daemons.Refused as refusal:
                results[bdf] = refusal
        threads.append(threading.Thread(target=add))
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    version_answers(svc)
    svc.witness.echo()
    for thread in threads:
        thread.join(30 * daemons.SLOW)
        assert not thread.is_alive(), 'a silent device holds its probe for ever'
    took = time.monotonic() - begin
    assert took < (5 * len(cases) + 3) * daemons.SLOW, f'silent devices took {took:.1f} s'
    assert all(refusal is not None for refusal in results.values())


@pytest.mark.parametrize('command', PROBE_COMMANDS)
@pytest.mark.parametrize('times', [1, 2, 3, 5, 10])
def test_vanish_at_each_step(liar, command, times):
    """Hang up at the n-th command of each kind."""
    def lie(server, _body, reply):
        if server.counts[getattr(vu, command)] == times:
            reply.drop = reply.close = True
    liar.serve_pf(**{command: lie})
    liar.add_pf()


def test_vanish_after_the_probe(svc, liar):
    liar.serve_pf()
    liar.serve_vf()
    assert liar.add_pf() is None
    assert liar.add_vf() is None
    liar.vf_server.hang_up()
    time.sleep(0.05)
    run_guest(svc)
    liar.pf_server.hang_up()
    time.sleep(0.05)
    svc.witness.echo()


def test_pf_vanishes_under_a_running_guest(svc, liar):
    liar.serve_pf()
    liar.serve_vf()
    assert liar.add_pf() is None and liar.add_vf() is None
    with vh.FrontEnd(os.path.join(svc.work, 'liar'), mem_size=1 << 20) as front_end:
        front_end.connect()
        front_end.start()
        liar.pf_server.hang_up()
        front_end.sock.settimeout(15 * daemons.SLOW)
        try:
            front_end.stop()
        except (vh.Closed, AssertionError):
            pass
    svc.witness.echo()


# the admin queue


def only_once(action):
    """Apply to the first command, then be honest."""
    def hook(pf, command):
        if len(pf.commands) > 1:
            return False
        return action(pf, command)
    return hook


def complete_twice(pf, command):
    pf.finish(command)
    pf.use(command.head, 1)
    return True


def bad_id(value):
    def hook(pf, command):
        pf.finish(command, used_id=value)
        return True
    return hook


def run_ahead(step):
    def hook(pf, command):
        pf.finish(command, step=step)
        return True
    return hook


def length_of(value):
    def hook(pf, command):
        pf.finish(command, length=value)
        return True
    return hook


def status_of(value):
    def hook(pf, command):
        command.status = value
        return False
    return hook


def result_of(data):
    def hook(pf, command):
        command.result = data
        return False
    return hook


def no_result(pf, command):
    pf.use(command.head, 0)
    return True


ADMIN_LIES = {
    'twice': complete_twice, 'id 65535': bad_id(0xffff), 'id -1': bad_id(0xffffffff),
    'id + 65536': lambda pf, c: bad_id(c.head + 0x10000)(pf, c),
    'id not outstanding': lambda pf, c: bad_id(c.head + 1)(pf, c),
    'id in the chain': lambda pf, c: bad_id((c.head + 2) % 256)(pf, c),
    'ahead by 2': run_ahead(2), 'ahead by 300': run_ahead(300), 'ahead by 32768': run_ahead(0x8000),
    'backwards': run_ahead(0xffff), 'length -1': length_of(0xffffffff), 'length 0': length_of(0),
    'nothing written': no_result, 'status 0x7f': status_of(0x7f | admin.DNR),
    'status 0xff': status_of(0xff), 'status internal': status_of(admin.INTERNAL | admin.DNR),
    'result ones': result_of(b'\xff' * 8), 'result short': result_of(b''),
}


@pytest.mark.parametrize('once', [True, False])
@pytest.mark.parametrize('name', sorted(ADMIN_LIES))
def test_admin_queue(svc, liar, name, once):
    action = ADMIN_LIES[name]
    liar.pf.on_admin = only_once(action) if once else action
    liar.serve_pf()
    begin = time.monotonic()
    liar.add_pf()
    assert time.monotonic() - begin < PROBE_SECONDS * daemons.SLOW


def test_admin_queue_breaks_again_and_again(liar):
    """The probe fails on one thread while another one finds the PF lost: they race."""
    liar.serve_pf()
    for i in range(100):
        liar.pf.on_admin = bad_id(0xffffffff) if i % 2 else run_ahead(300)
        assert liar.add_pf() is not None


@pytest.mark.parametrize('name', sorted(ADMIN_LIES))
def test_admin_queue_while_a_guest_starts(svc, liar, name):
    liar.serve_pf()
    liar.serve_vf()
    assert liar.add_pf() is None
    liar.pf.on_admin = ADMIN_LIES[name]
    if liar.add_vf() is None:
        run_guest(svc)


def test_admin_queue_retry_is_bounded(svc, liar):
    """Try again, for ever: the driver must give up by the deadline of the command."""
    liar.serve_pf()
    liar.serve_vf()
    assert liar.add_pf() is None
    liar.pf.on_admin = status_of(admin.ERR)
    begin = time.monotonic()
    if liar.add_vf() is None:
        threading.Thread(target=lambda: run_guest(svc), daemon=True).start()
        time.sleep(1)
        svc.witness.sock.settimeout(15 * daemons.SLOW)
        svc.witness.echo()
        version_answers(svc)
    before = len(liar.pf.commands)
    assert before < 2000, f'{before} retries in {time.monotonic() - begin:.1f} s'
    liar.pf.on_admin = None


def test_admin_queue_never_completes(svc, liar):
    liar.pf.on_admin = lambda pf, command: True
    liar.serve_pf()
    begin = time.monotonic()
    result = []
    thread = threading.Thread(target=lambda: result.append(liar.add_pf()))
    thread.start()
    time.sleep(0.2)
    version_answers(svc)
    svc.witness.echo()
    thread.join(PROBE_SECONDS * daemons.SLOW)
    assert not thread.is_alive(), 'an admin queue that never completes holds the probe'
    assert result[0] is not None
    assert time.monotonic() - begin < PROBE_SECONDS * daemons.SLOW


@pytest.mark.parametrize('what', ['fd closed', 'storm'])
def test_interrupts_of_the_device(svc, liar, what):
    """Interrupts that nobody asked for, on all vectors."""
    liar.serve_pf()
    liar.serve_vf()
    assert liar.add_pf() is None and liar.add_vf() is None
    for server in (liar.pf_server, liar.vf_server):
        for fd in list(server.irqs.values()):
            for _ in range(2000 if what == 'storm' else 1):
                try:
                    os.eventfd_write(fd, 1)
                except BlockingIOError:
                    break
    svc.witness.echo(5)


def test_device_needs_reset_at_any_time(svc, liar):
    liar.serve_pf()
    liar.serve_vf()
    assert liar.add_pf() is None and liar.add_vf() is None
    with vh.FrontEnd(os.path.join(svc.work, 'liar'), mem_size=1 << 20) as front_end:
        front_end.connect()
        front_end.start()
        liar.vf.status |= 0x40
        liar.vf.generation += 1
        for (index, vector), fd in list(liar.vf_server.irqs.items()):
            os.eventfd_write(fd, 1)
        time.sleep(0.05)
        try:
            front_end.stop()
        except (vh.Closed, AssertionError):
            pass


def test_pf_cannot_be_removed_before_its_vfs(svc, liar):
    liar.serve_pf()
    liar.serve_vf()
    assert liar.add_pf() is None and liar.add_vf() is None
    with pytest.raises(daemons.Refused) as refusal:
        svc.service.pf_remove(PF)
    assert refusal.value.errno == 1013
