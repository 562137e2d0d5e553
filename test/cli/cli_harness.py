# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A fake JSON-RPC server that does as it is told, and a way to run the command lines."""
import json
import os
import socket
import subprocess
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VHOSTMGMT = os.path.join('app', 'vfe-vdpa', 'vhostmgmt')
VIRTNET = os.path.join('app', 'controller', 'virtnet')

HANG = object()     # a reply: none, and the connection stays open
CLOSE = object()    # a reply: the connection ends


def result(value):
    """A reply function: success."""
    return lambda request: json.dumps({'jsonrpc': '2.0', 'id': request['id'],
                                       'result': value}).encode() + b'\n'


def error(code, message):
    """A reply function: an error object."""
    return lambda request: json.dumps({'jsonrpc': '2.0', 'id': request['id'],
                                       'error': {'code': code, 'message': message}}
                                      ).encode() + b'\n'


OK = result({'errno': 0, 'errstr': 'Success'})


class FakeServer:
    """Answers each request with the next of its replies: bytes, a list of bytes that are sent
    one by one, a function of the request, HANG or CLOSE. The last one is for all that follow."""

    def __init__(self, path):
        self.path = path
        self.replies = [OK]
        self.requests = []
        self.connections = 0
        self.asked = threading.Event()      # a request has come
        self.over = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._open = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                conn = self._listener.accept()[0]
            except OSError:
                return
            if self.over.is_set():
                conn.close()
                return
            self.connections += 1
            self._open.append(conn)
            thread = threading.Thread(target=self._serve, args=(conn,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn):
        try:
            with conn, conn.makefile('rb') as stream:
                for line in stream:
                    request = json.loads(line)
                    self.requests.append(request)
                    self.asked.set()
                    reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                    if not self._reply(conn, reply, request):
                        return
        except OSError:
            pass    # the client has gone

    def _reply(self, conn, reply, request):
        if callable(reply):
            reply = reply(request)
        if reply is HANG:
            self.over.wait(60)
            return False
        if reply is CLOSE:
            return False
        for part in reply if isinstance(reply, list) else [reply]:
            if part is CLOSE:
                return False
            conn.sendall(part)
        return True

    def params(self):
        """Method and parameters of the only request."""
        assert len(self.requests) == 1
        request = self.requests[0]
        assert set(request) == {'jsonrpc', 'method', 'params', 'id'}
        assert request['jsonrpc'] == '2.0'
        return request['method'], request['params']

    def close(self):
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for conn in self._open:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


class Done:
    """What a run left: status, out (text), err (text)."""

    def __init__(self, done):
        self.status = done.returncode
        self.out = done.stdout.decode()
        self.err = done.stderr.decode()

    @property
    def json(self):
        return json.loads(self.out)


def run(program, *argv, stdin=None, env=None, top=TOP):
    """Run a program of the tree as a user does, from the top folder."""
    environment = {'PATH': os.environ['PATH'], 'PYTHONDONTWRITEBYTECODE': '1', **(env or {})}
    given = {'input': stdin} if stdin is not None else {'stdin': subprocess.DEVNULL}
    return Done(subprocess.run(['/usr/bin/python3', os.path.join('.', program), *argv], cwd=top,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                               env=environment, check=False, **given))
