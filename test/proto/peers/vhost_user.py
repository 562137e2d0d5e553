# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A vhost-user front end (QEMU docs/interop/vhost-user.rst), as socket server or client."""

import array
import errno
import mmap
import os
import select
import socket
import struct
import threading
import time

from . import SLOW
from .memory import FrameTraffic, Memory, NetQueuePair, PAGE

GET_FEATURES = 1
SET_FEATURES = 2
SET_OWNER = 3
RESET_OWNER = 4
SET_MEM_TABLE = 5
SET_LOG_BASE = 6
SET_LOG_FD = 7
SET_VRING_NUM = 8
SET_VRING_ADDR = 9
SET_VRING_BASE = 10
GET_VRING_BASE = 11
SET_VRING_KICK = 12
SET_VRING_CALL = 13
SET_VRING_ERR = 14
GET_PROTOCOL_FEATURES = 15
SET_PROTOCOL_FEATURES = 16
GET_QUEUE_NUM = 17
SET_VRING_ENABLE = 18
SEND_RARP = 19
NET_SET_MTU = 20
SET_BACKEND_REQ_FD = 21
IOTLB_MSG = 22
GET_CONFIG = 24
SET_CONFIG = 25
GET_INFLIGHT_FD = 31
SET_INFLIGHT_FD = 32
SET_STATUS = 39
GET_STATUS = 40

ALL_REQUESTS = tuple(range(1, 44))

BACKEND_CONFIG_CHANGE = 2
BACKEND_VRING_HOST_NOTIFIER = 3

F_VERSION = 1
F_REPLY = 4
F_NEED_REPLY = 8

VRING_NOFD = 0x100

F_LOG_ALL = 26
F_PROTOCOL_FEATURES = 30

P_MQ = 0
P_LOG_SHMFD = 1
P_RARP = 2
P_REPLY_ACK = 3
P_MTU = 4
P_BACKEND_REQ = 5
P_CONFIG = 9
P_BACKEND_SEND_FD = 10
P_HOST_NOTIFIER = 11
P_INFLIGHT = 12
P_STATUS = 16

S_ACK = 1
S_DRIVER = 2
S_DRIVER_OK = 4
S_FEATURES_OK = 8

NET_F_MQ = 22
VERSION_1 = 32
RING_INDIRECT = 28
RING_EVENT_IDX = 29
RING_PACKED = 34

WANTED_FEATURES = 1 << VERSION_1 | 1 << F_PROTOCOL_FEATURES | 1 << RING_INDIRECT | 1 << 33
WANTED_PROTOCOL = sum(1 << b for b in (P_MQ, P_LOG_SHMFD, P_REPLY_ACK, P_BACKEND_REQ,
                                       P_BACKEND_SEND_FD, P_HOST_NOTIFIER, P_STATUS))

try:
    from socket import MSG_CMSG_CLOEXEC
except ImportError:
    MSG_CMSG_CLOEXEC = 0x40000000


class Closed(ConnectionError):
    """The back end closed the connection."""


def eventfd():
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


class _Notifiers(threading.Thread):
    """Serves the back-end channel: takes host notifiers, counts config changes."""

    def __init__(self, sock):
        super().__init__(daemon=True)
        self.sock = sock
        self.pages = {}
        self.config_changes = 0
        self.messages = []
        self.start()

    def run(self):
        try:
            while self._one():
                pass
        except (OSError, ValueError):
            pass

    def _one(self):
        fds = array.array('i')
        data, anc, _, _ = self.sock.recvmsg(12, socket.CMSG_SPACE(32), MSG_CMSG_CLOEXEC)
        if len(data) < 12:
            return False
        for level, kind, raw in anc:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(raw[:len(raw) // 4 * 4])
        request, flags, size = struct.unpack('=III', data)
        body = b''
        while len(body) < size:
            part = self.sock.recv(size - len(body))
            if not part:
                return False
            body += part
        self.messages.append((request, body, len(fds)))
        result = 0
        if request == BACKEND_CONFIG_CHANGE:
            self.config_changes += 1
        elif request == BACKEND_VRING_HOST_NOTIFIER and size >= 24:
            result = self._notifier(body, fds)
        for fd in fds:
            os.close(fd)
        if flags & F_NEED_REPLY:
            self.sock.sendall(struct.pack('=IIIQ', request, F_VERSION | F_REPLY, 8, result))
        return True

    def _notifier(self, body, fds):
        index, size, offset = struct.unpack_from('=QQQ', body)
        old = self.pages.pop(index & 0xff, None)
        if old is not None:
            old.close()
        if index & VRING_NOFD:
            return 0
        if not fds or size != PAGE or offset % PAGE:
            return 1
        self.pages[index & 0xff] = mmap.mmap(fds[0], size, offset=offset)
        return 0


class FrontEnd(FrameTraffic):
    """One vhost-user connection. Raw messages always work; start() plays an honest VMM."""

    def __init__(self, path, server=False, mem=None, queue_pairs=1, queue_size=64, timeout=10.0,
                 features=WANTED_FEATURES, protocol=WANTED_PROTOCOL, indirect=False,
                 mem_size=4 << 20):
        self.path = path
        self.timeout = timeout
        self.listener = None
        self.sock = None
        self.own_mem = mem is None
        self.mem = mem if mem is not None else Memory(mem_size)
        self.wanted = features
        self.wanted_protocol = protocol
        self.queue_pairs = queue_pairs
        self.queue_size = queue_size
        self.indirect = indirect
        self.features = 0
        self.protocol = 0
        self.pairs = []
        self.kicks = {}
        self.calls = {}
        self.notifiers = None
        if server:
            self.listen()

    # transport

    def listen(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(8)

    def connect_taken(self, timeout=5.0):
        """Connect until the service takes it: while the last front-end is there it refuses."""
        deadline = time.monotonic() + timeout * SLOW
        while True:
            self.connect()
            try:
                assert self.u64(GET_FEATURES)
                return self
            except Closed:
                assert time.monotonic() < deadline, f'{self.path} refuses every front end'
                self.sock.close()
                time.sleep(0.005)

    def connect(self, timeout=None):
        """Get a connection: accept as server, else connect (the socket may still be made)."""
        deadline = time.monotonic() + (timeout or self.timeout)
        if self.listener:
            self.listener.settimeout(timeout or self.timeout)
            self.sock, _ = self.listener.accept()
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            while True:
                try:
                    self.sock.connect(self.path)
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        self.sock.settimeout(self.timeout)
        return self

    def send_raw(self, data, fds=()):
        anc = []
        if fds:
            anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds).tobytes())]
        try:
            sent = self.sock.sendmsg([data], anc)
            if sent < len(data):
                self.sock.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def send(self, request, payload=b'', fds=(), flags=F_VERSION, size=None):
        head = struct.pack('=III', request, flags, len(payload) if size is None else size)
        self.send_raw(head + payload, fds)

    def _recv_exact(self, size):
        data = b''
        while len(data) < size:
            try:
                part = self.sock.recv(size - len(data))
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not part:
                raise Closed(f'{self.path}: closed by the back end')
            data += part
        return data

    def recv(self):
        """One reply as (request, flags, payload); fds in a reply are closed."""
        data, anc, _, _ = self._recv_head()
        for level, kind, raw in anc:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for fd in array.array('i', raw[:len(raw) // 4 * 4]):
                    os.close(fd)
        if len(data) < 12:
            data += self._recv_exact(12 - len(data))
        request, flags, size = struct.unpack('=III', data)
        return request, flags, self._recv_exact(size)

    def _recv_head(self):
        try:
            got = self.sock.recvmsg(12, socket.CMSG_SPACE(64), MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise Closed(str(error)) from error
        if not got[0]:
            raise Closed(f'{self.path}: closed by the back end')
        return got

    def is_closed(self, timeout=5.0):
        """Wait until the back end has closed the connection."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            ready, _, _ = select.select([self.sock], [], [], left)
            if ready:
                try:
                    if not self.sock.recv(4096):
                        return True
                except (ConnectionResetError, BrokenPipeError):
                    return True
                except socket.timeout:
                    return False

    # honest requests

    def ask(self, request, payload=b'', fds=()):
        self.send(request, payload, fds)
        got, flags, body = self.recv()
        assert got == request and flags & F_REPLY, f'reply {got}/{flags:#x} to request {request}'
        return body

    def tell(self, request, payload=b'', fds=()):
        """A request without a reply of its own; with REPLY_ACK its success is checked."""
        if not self.protocol >> P_REPLY_ACK & 1:
            self.send(request, payload, fds)
            return
        result = self.try_tell(request, payload, fds)
        assert result == 0, f'back end refused request {request}: {result}'

    def try_tell(self, request, payload=b'', fds=()):
        """Send with NEED_REPLY and return the back end's result."""
        self.send(request, payload, fds, F_VERSION | F_NEED_REPLY)
        got, _, body = self.recv()
        assert got == request, f'reply {got} to request {request}'
        return struct.unpack('=Q', body)[0]

    def u64(self, request):
        return struct.unpack('=Q', self.ask(request))[0]

    def negotiate(self):
        self.tell(SET_OWNER)
        offered = self.u64(GET_FEATURES)
        self.features = offered & self.wanted
        if offered >> F_PROTOCOL_FEATURES & 1:
            self.protocol = 0
            wanted = self.u64(GET_PROTOCOL_FEATURES) & self.wanted_protocol
            self.send(SET_PROTOCOL_FEATURES, struct.pack('=Q', wanted))
            self.protocol = wanted
        if self.protocol >> P_MQ & 1:
            self.max_pairs = self.u64(GET_QUEUE_NUM)
        if self.protocol >> P_BACKEND_REQ & 1:
            ours, theirs = socket.socketpair()
            self.tell(SET_BACKEND_REQ_FD, b'', [theirs.fileno()])
            theirs.close()
            self.notifiers = _Notifiers(ours)
        self.tell(SET_FEATURES, struct.pack('=Q', self.features))
        return offered

    def region(self, mem=None):
        mem = mem or self.mem
        return struct.pack('=QQQQ', mem.base, mem.size, mem.user_addr, 0)

    def set_mem_table(self, mems=None):
        mems = mems or [self.mem]
        body = struct.pack('=II', len(mems), 0) + b''.join(self.region(m) for m in mems)
        self.tell(SET_MEM_TABLE, body, [m.fd for m in mems])

    def user(self, gpa):
        return self.mem.user_addr + gpa - self.mem.base

    def vring_addr(self, index, ring, flags=0, log=0):
        return struct.pack('=IIQQQQ', index, flags, self.user(ring.desc), self.user(ring.used),
                           self.user(ring.avail), log)

    def rings(self):
        for i, pair in enumerate(self.pairs):
            yield 2 * i, pair.rx
            yield 2 * i + 1, pair.tx

    def make_pairs(self):
        while len(self.pairs) < self.queue_pairs:
            self.pairs.append(NetQueuePair(self.mem, self.queue_size, self.indirect))
            self.pairs[-1].fill()

    def set_vring(self, index, ring, base=0):
        if index not in self.kicks:
            self.kicks[index] = eventfd()
            self.calls[index] = eventfd()
        self.tell(SET_VRING_NUM, struct.pack('=II', index, ring.size))
        self.tell(SET_VRING_BASE, struct.pack('=II', index, base))
        self.tell(SET_VRING_ADDR, self.vring_addr(index, ring))
        self.tell(SET_VRING_KICK, struct.pack('=Q', index), [self.kicks[index]])
        self.tell(SET_VRING_CALL, struct.pack('=Q', index), [self.calls[index]])

    def get_base(self, index):
        """The ring is stopped; returns where it stands."""
        body = self.ask(GET_VRING_BASE, struct.pack('=II', index, 0))
        return struct.unpack('=II', body)[1]

    def used_bases(self):
        """By ring index where the device stands: what start_at() needs after a reconnect."""
        return {index: ring.used_idx() for index, ring in self.rings()}

    def set_log(self, log):
        """Memory in which pages are marked from now on, for set_logging()."""
        return self.ask(SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd])

    def set_logging(self, on):
        """The negotiated features once more, with LOG_ALL or as they are."""
        features = self.features | (1 << F_LOG_ALL if on else 0)
        self.tell(SET_FEATURES, struct.pack('=Q', features))

    def enable(self, on=True):
        if self.features >> F_PROTOCOL_FEATURES & 1:
            for index, _ in self.rings():
                self.tell(SET_VRING_ENABLE, struct.pack('=II', index, int(on)))

    def set_status(self, status):
        if self.protocol >> P_STATUS & 1:
            self.tell(SET_STATUS, struct.pack('=Q', status))

    def start(self, base=0):
        """Everything from negotiation to DRIVER_OK."""
        self.negotiate()
        self.make_pairs()
        self.set_mem_table()
        self.start_at({index: base for index, _ in self.rings()})
        return self

    def start_at(self, bases):
        """Rings and DRIVER_OK; bases: by ring index where each begins, as stop() tells."""
        for index, ring in self.rings():
            self.set_vring(index, ring, bases[index])
        self.enable()
        self.set_status(S_ACK | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK)
        for index, _ in self.rings():
            self.kick(index)

    def reboot(self):
        """The driver clears its rings and begins anew, after stop()."""
        for pair in self.pairs:
            pair.reset()
        self.start_at({index: 0 for index, _ in self.rings()})

    def stop(self):
        """Stop as QEMU does: disable, then GET_VRING_BASE; returns the bases by ring index."""
        self.enable(False)
        bases = {index: self.get_base(index) for index, _ in self.rings()}
        self.set_status(0)
        return bases

    # packets

    def kick(self, index):
        page = self.notifiers.pages.get(index) if self.notifiers else None
        if page is not None:
            page[:2] = struct.pack('<H', index)
        else:
            os.eventfd_write(self.kicks[index], 1)

    def close(self):
        for sock in (self.sock, self.listener):
            if sock is not None:
                sock.close()
        if self.listener is not None and os.path.exists(self.path):
            os.unlink(self.path)
        self.sock = self.listener = None
        if self.notifiers:
            try:
                self.notifiers.sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                if error.errno not in (errno.ENOTCONN, errno.EBADF):
                    raise
            self.notifiers.join(5)
            self.notifiers.sock.close()
            for page in self.notifiers.pages.values():
                page.close()
            self.notifiers = None
        for fd in list(self.kicks.values()) + list(self.calls.values()):
            os.close(fd)
        self.kicks.clear()
        self.calls.clear()
        if self.own_mem:
            self.mem.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
