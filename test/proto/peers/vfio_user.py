# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""vfio-user (QEMU docs/interop/vfio-user.rst): a client and a server that can also lie."""

import array
import errno
import json
import os
import socket
import struct
import threading
import time

VERSION = 1
DMA_MAP = 2
DMA_UNMAP = 3
DEVICE_GET_INFO = 4
REGION_INFO = 5
REGION_IO_FDS = 6
IRQ_INFO = 7
SET_IRQS = 8
REGION_READ = 9
REGION_WRITE = 10
DMA_READ = 11
DMA_WRITE = 12
RESET = 13
WRITE_MULTI = 15
FEATURE = 16
MIG_READ = 17
MIG_WRITE = 18

COMMANDS = {name: value for name, value in list(globals().items())
            if name.isupper() and isinstance(value, int)}

F_COMMAND = 0
F_REPLY = 1
F_NO_REPLY = 0x10
F_ERROR = 0x20

REGION_CONFIG = 7
NR_REGIONS = 9
NR_IRQS = 5
IRQ_MSIX = 2

IRQ_NONE = 1
IRQ_BOOL = 2
IRQ_EVENTFD = 4
IRQ_MASK = 8
IRQ_UNMASK = 16
IRQ_TRIGGER = 32

HEADER = struct.Struct('=HHIII')

HONEST_CAPS = {'capabilities': {'max_msg_fds': 64, 'max_data_xfer_size': 1048576,
                                'pgsizes': 4096}}


class VfioUserError(OSError):
    """The server replied with an error number."""


class Closed(ConnectionError):
    """The peer closed the connection."""


def pack_header(msg_id, command, size, flags=0, error=0):
    return HEADER.pack(msg_id, command, size, flags, error)


def send_with_fds(sock, data, fds=()):
    anc = []
    if fds:
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds).tobytes())]
    try:
        sent = sock.sendmsg([data], anc)
        if sent < len(data):
            sock.sendall(data[sent:])
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Closed(str(error)) from error


def recv_message(sock, max_fds=64):
    """One whole message as (id, command, flags, error, body, fds)."""
    data = b''
    fds = array.array('i')
    need = HEADER.size
    while len(data) < need:
        try:
            part, anc, _, _ = sock.recvmsg(need - len(data), socket.CMSG_SPACE(4 * max_fds),
                                           socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise Closed(str(error)) from error
        for level, kind, raw in anc:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(raw[:len(raw) // 4 * 4])
        if not part:
            for fd in fds:
                os.close(fd)
            raise Closed('closed by the peer')
        data += part
        if len(data) == HEADER.size:
            need = max(HEADER.size, HEADER.unpack_from(data)[2])
    msg_id, command, _, flags, error = HEADER.unpack_from(data)
    return msg_id, command, flags, error, data[HEADER.size:], list(fds)


class Region:
    """Reply of DEVICE_GET_REGION_INFO."""

    def __init__(self, body, fds):
        self.argsz, self.flags, self.index, self.cap_offset, self.size, self.offset = \
            struct.unpack_from('=IIIIQQ', body)
        self.fd = fds[0] if fds else -1
        self.areas = []
        at = self.cap_offset
        while at and at + 8 <= len(body) and len(self.areas) < 4096:
            cap, _, nxt = struct.unpack_from('=HHI', body, at)
            if cap == 1 and at + 16 <= len(body):
                count, _ = struct.unpack_from('=II', body, at + 8)
                for i in range(count):
                    self.areas.append(struct.unpack_from('=QQ', body, at + 16 + 16 * i))
            if nxt <= at:
                break
            at = nxt


class Client:
    """A vfio-user client; raw sends are always possible, the named calls are honest."""

    def __init__(self, path, negotiate=True, timeout=10.0, wait=0.0):
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.timeout = timeout
        self._id = 0
        self.server_caps = {}
        self._connect(path, wait)
        if negotiate:
            try:
                self.version()
            except BaseException:
                self.sock.close()
                raise

    def _connect(self, path, wait):
        begin = time.monotonic()
        while True:
            try:
                self.sock.connect(path)
                return
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
                # EAGAIN: the backlog is full at the moment, others are being served
                limit = self.timeout if isinstance(error, BlockingIOError) else wait
                if time.monotonic() - begin >= limit:
                    self.sock.close()
                    raise
                time.sleep(0.005)

    def next_id(self):
        self._id = (self._id + 1) & 0xffff
        return self._id

    def send_raw(self, data, fds=()):
        send_with_fds(self.sock, data, fds)

    def send(self, command, body=b'', fds=(), size=None, flags=0, error=0, msg_id=None):
        if msg_id is None:
            msg_id = self.next_id()
        size = HEADER.size + len(body) if size is None else size
        self.send_raw(pack_header(msg_id, command, size, flags, error) + body, fds)
        return msg_id

    def recv(self):
        return recv_message(self.sock)

    def call(self, command, body=b'', fds=()):
        """Honest request; returns (body, fds), raises VfioUserError when the server refuses."""
        msg_id = self.send(command, body, fds)
        got_id, got, flags, error, reply, got_fds = self.recv()
        assert (got_id, got) == (msg_id, command), f'reply {got_id}/{got} to {msg_id}/{command}'
        assert flags & 0xf == F_REPLY, f'flags {flags:#x} in a reply'
        if flags & F_ERROR:
            for fd in got_fds:
                os.close(fd)
            raise VfioUserError(error, os.strerror(error))
        return reply, got_fds

    def refused(self, command, body=b'', fds=(), **raw):
        """Send something wrong; returns the errno of the reply, or None when closed instead."""
        try:
            self.send(command, body, fds, **raw)
            _, _, flags, error, _, got_fds = self.recv()
        except Closed:
            return None
        for fd in got_fds:
            os.close(fd)
        return error if flags & F_ERROR else 0

    def is_closed(self, timeout=5.0):
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
            return True
        except (ConnectionResetError, BrokenPipeError):
            return True
        except socket.timeout:
            return False
        finally:
            self.sock.settimeout(self.timeout)

    def version(self, text=None, major=0, minor=1):
        if text is None:
            text = json.dumps(HONEST_CAPS).encode() + b'\0'
        reply, _ = self.call(VERSION, struct.pack('=HH', major, minor) + text)
        self.server_version = struct.unpack_from('=HH', reply)
        if len(reply) > 4:
            self.server_caps = json.loads(reply[4:].rstrip(b'\0').decode() or '{}')
        return reply

    def dma_map(self, addr, size, fd=-1, offset=0, flags=3):
        body = struct.pack('=IIQQQ', 32, flags, offset, addr, size)
        self.call(DMA_MAP, body, [fd] if fd >= 0 else [])

    def map_memory(self, mem):
        self.dma_map(mem.base, mem.size, mem.fd)

    def dma_unmap(self, addr, size, flags=0):
        return self.call(DMA_UNMAP, struct.pack('=IIQQ', 24, flags, addr, size))[0]

    def device_info(self):
        """(argsz, flags, number of regions, number of interrupt indices)."""
        body = struct.pack('=IIII', 16, 0, 0, 0)
        return struct.unpack('=IIII', self.call(DEVICE_GET_INFO, body)[0])

    def region_info(self, index, argsz=4096):
        body = struct.pack('=IIIIQQ', argsz, 0, index, 0, 0, 0)
        return Region(*self.call(REGION_INFO, body))

    def irq_info(self, index):
        body = struct.pack('=IIII', 16, 0, index, 0)
        return struct.unpack('=IIII', self.call(IRQ_INFO, body)[0])

    def set_irqs(self, index, flags, start, count, fds=(), data=b''):
        body = struct.pack('=IIIII', 20 + len(data), flags, index, start, count) + data
        self.call(SET_IRQS, body, fds)

    def region_io_fds(self, index, count=0, argsz=4096):
        """Returns ([(offset, size, fd_index, type, flags, datamatch)], fds)."""
        reply, fds = self.call(REGION_IO_FDS, struct.pack('=IIII', argsz, 0, index, count))
        _, _, _, got = struct.unpack_from('=IIII', reply)
        subs = []
        for i in range(got):
            if 16 + 40 * (i + 1) > len(reply):
                break
            off, size, fd_index, kind, flags, _, match = struct.unpack_from('=QQIIIIQ', reply,
                                                                            16 + 40 * i)
            subs.append((off, size, fd_index, kind, flags, match))
        return subs, fds

    def read(self, region, offset, count):
        reply, _ = self.call(REGION_READ, struct.pack('=QII', offset, region, count))
        got = struct.unpack_from('=QII', reply)
        assert got == (offset, region, count), f'read {(offset, region, count)}, reply {got}'
        assert len(reply) == 16 + count
        return reply[16:]

    def write(self, region, offset, data):
        self.call(REGION_WRITE, struct.pack('=QII', offset, region, len(data)) + data)

    def reset(self):
        self.call(RESET)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def fresh_client(path, timeout=5.0):
    """Connect and negotiate, again and again while the server still lets its last client go."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return Client(path, wait=1.0)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


class Reply:
    """What a server is about to answer; a hook may change every part of it."""

    def __init__(self, msg_id, command, body=b'', fds=(), error=0):
        self.msg_id = msg_id
        self.command = command
        self.body = body
        self.fds = list(fds)
        self.error = error
        self.flags = F_REPLY | (F_ERROR if error else 0)
        self.size = None     # override of the size field
        self.raw = None      # send exactly these bytes
        self.drop = False    # say nothing
        self.close = False   # hang up (after sending, unless drop)
        self.repeat = 1
        self.cut = None      # send only so many bytes, then hang up

    def encode(self):
        if self.raw is not None:
            return self.raw
        size = HEADER.size + len(self.body) if self.size is None else self.size
        return pack_header(self.msg_id, self.command, size & 0xffffffff, self.flags,
                           self.error) + self.body


class Server(threading.Thread):
    """Serves a device object on a socket, one client at a time.

    `hooks` maps a command to function(server, request body, reply): called after the honest
    reply was made and before it is sent. A hook that raises marks the server as failed.
    """

    def __init__(self, path, device, hooks=None):
        super().__init__(daemon=True)
        self.path = path
        self.device = device
        self.hooks = dict(hooks or {})
        self.maps = {}
        self.irqs = {}
        self.counts = {}
        self.connections = 0
        self.failure = None
        self.sock = None
        self._stopping = False
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(4)
        device.server = self
        self.start()

    def run(self):
        while not self._stopping:
            try:
                self.sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                self._serve()
            except (Closed, OSError):
                pass
            except Exception as error:  # shown by the test that owns this server
                self.failure = error
            finally:
                self.sock.close()
                self._forget()

    def _serve(self):
        while not self._stopping:
            msg_id, command, flags, _, body, fds = recv_message(self.sock)
            if flags & 0xf == F_REPLY:  # to a command that a hook has sent
                for fd in fds:
                    os.close(fd)
                continue
            self.counts[command] = self.counts.get(command, 0) + 1
            reply = Reply(msg_id, command)
            try:
                reply.body, reply.fds = self._answer(command, body, fds)
            except OSError as error:
                for fd in fds:
                    os.close(fd)
                reply.error = error.errno or errno.EINVAL
                reply.flags |= F_ERROR
            hook = self.hooks.get(command)
            if hook:
                hook(self, body, reply)
            if not flags & F_NO_REPLY and not reply.drop:
                for _ in range(reply.repeat):
                    data = reply.encode()
                    if reply.cut is not None:
                        data = data[:reply.cut]
                        reply.close = True
                    send_with_fds(self.sock, data, reply.fds)
            if reply.close:
                return

    def _answer(self, command, body, fds):
        if command == VERSION:
            return body[:4] + json.dumps(HONEST_CAPS).encode() + b'\0', []
        if command == DMA_MAP:
            _, flags, offset, addr, size = struct.unpack_from('=IIQQQ', body)
            self.maps[(addr, size)] = self.device.dma_mapped(addr, size, offset,
                                                             fds[0] if fds else -1)
            return b'', []
        if command == DMA_UNMAP:
            _, flags, addr, size = struct.unpack_from('=IIQQ', body)
            for key in list(self.maps) if flags & 2 else [(addr, size)]:
                if key not in self.maps:
                    raise OSError(errno.ENOENT, 'no such mapping')
                self.device.dma_unmapped(self.maps.pop(key))
            return body[:24], []
        if command == DEVICE_GET_INFO:
            return struct.pack('=IIII', 16, 3, NR_REGIONS, NR_IRQS), []
        if command == REGION_INFO:
            index, = struct.unpack_from('=I', body, 8)
            return self.device.region_info(index)
        if command == REGION_IO_FDS:
            argsz, _, index, _ = struct.unpack_from('=IIII', body)
            return struct.pack('=IIII', 16, 0, index, 0), []
        if command == IRQ_INFO:
            index, = struct.unpack_from('=I', body, 8)
            count = self.device.irq_count(index)
            return struct.pack('=IIII', 16, 1 | 8, index, count), []
        if command == SET_IRQS:
            _, flags, index, start, count = struct.unpack_from('=IIIII', body)
            self._set_irqs(flags, index, start, count, fds)
            return b'', []
        if command == REGION_READ:
            offset, region, count = struct.unpack_from('=QII', body)
            return body[:16] + self.device.region_read(region, offset, count), []
        if command == REGION_WRITE:
            offset, region, count = struct.unpack_from('=QII', body)
            self.device.region_write(region, offset, body[16:16 + count])
            return body[:16], []
        if command == RESET:
            self.device.reset()
            return b'', []
        raise OSError(errno.ENOTSUP, 'not supported')

    def _set_irqs(self, flags, index, start, count, fds):
        if flags & IRQ_EVENTFD:
            for i in range(count):
                old = self.irqs.pop((index, start + i), None)
                if old is not None:
                    os.close(old)
                if i < len(fds):
                    self.irqs[(index, start + i)] = fds[i]
        elif flags & IRQ_NONE and count == 0:
            self._close_irqs()

    def _close_irqs(self):
        for fd in self.irqs.values():
            os.close(fd)
        self.irqs.clear()

    def _forget(self):
        for handle in self.maps.values():
            self.device.dma_unmapped(handle)
        self.maps.clear()
        self._close_irqs()

    def interrupt(self, vector):
        fd = self.irqs.get((IRQ_MSIX, vector))
        if fd is not None:
            os.eventfd_write(fd, 1)

    def hang_up(self):
        """Drop the present connection."""
        if self.sock:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self._stopping = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.hang_up()
        self.join(5)
        if os.path.exists(self.path):
            os.unlink(self.path)
        assert not self.is_alive(), 'the vfio-user server peer did not stop'
        if self.failure:
            raise self.failure
