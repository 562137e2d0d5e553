# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A JSON-RPC 2.0 client, newline-delimited over a UNIX socket, with raw sends."""

import json
import socket
import time


class RpcError(Exception):
    """An error object of the server."""

    def __init__(self, code, message, data=None):
        super().__init__(f'{code}: {message}')
        self.code = code
        self.message = message
        self.data = data


class Closed(ConnectionError):
    """The server closed the connection."""


class Rpc:
    """One connection to a daemon's management socket."""

    def __init__(self, path, timeout=30.0):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.buffer = b''
        self._id = 0

    def send_raw(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def recv_line(self, timeout=None):
        """The next line without its end."""
        if timeout is not None:
            self.sock.settimeout(timeout)
        while b'\n' not in self.buffer:
            try:
                part = self.sock.recv(1 << 16)
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not part:
                raise Closed('closed by the server')
            self.buffer += part
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line

    def recv(self, timeout=None):
        return json.loads(self.recv_line(timeout))

    def raw(self, line, timeout=None):
        """Send one line as it is and return the decoded answer."""
        self.send_raw(line if line.endswith(b'\n') else line + b'\n')
        return self.recv(timeout)

    def call(self, method, params=None, timeout=None):
        self._id += 1
        request = {'jsonrpc': '2.0', 'method': method, 'id': self._id}
        if params is not None:
            request['params'] = params
        self.send_raw(json.dumps(request).encode() + b'\n')
        answer = self.recv(timeout)
        # a request that is no JSON for the server has no id for it either
        ids = (self._id, None) if 'error' in answer else (self._id,)
        assert answer.get('jsonrpc') == '2.0' and answer.get('id') in ids, answer
        if 'error' in answer:
            error = answer['error']
            raise RpcError(error['code'], error['message'], error.get('data'))
        return answer['result']

    def is_closed(self, timeout=5.0):
        self.sock.settimeout(timeout)
        deadline = time.monotonic() + timeout
        try:
            while time.monotonic() < deadline:
                if not self.sock.recv(1 << 16):
                    return True
        except (ConnectionResetError, BrokenPipeError):
            return True
        except socket.timeout:
            pass
        return False

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
