# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A small QMP client over a connected stream socket."""
import json
import select
import time


class QmpError(Exception):
    """QEMU refused a command, or its monitor is gone."""


class Qmp:
    def __init__(self, sock):
        self._sock = sock
        self._buf = b''
        self._serial = 0
        self._events = []

    def _message(self, end):
        while b'\n' not in self._buf:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._sock], [], [], left)[0]:
                raise QmpError('QEMU did not answer in time')
            try:
                data = self._sock.recv(65536)
            except ConnectionError as err:
                raise QmpError('the monitor connection broke') from err
            if not data:
                raise QmpError('QEMU closed the monitor connection')
            self._buf += data
        line, self._buf = self._buf.split(b'\n', 1)
        return json.loads(line)

    def connect(self, timeout):
        """Take the greeting; QEMU is through with its start when it comes."""
        message = self._message(time.monotonic() + timeout)
        if 'QMP' not in message:
            raise QmpError('not a greeting: %r' % message)
        self.command('qmp_capabilities')

    def command(self, name, timeout=30, **arguments):
        self._serial += 1
        request = {'execute': name, 'id': self._serial}
        if arguments:
            request['arguments'] = {k.replace('_', '-'): v for k, v in arguments.items()}
        self._sock.sendall(json.dumps(request).encode() + b'\n')
        end = time.monotonic() + timeout
        while True:
            message = self._message(end)
            if 'event' in message:
                self._events.append(message)
            elif message.get('id') == self._serial:
                if 'error' in message:
                    raise QmpError('%s: %s' % (name, message['error'].get('desc')))
                return message['return']

    def wait_event(self, name, timeout):
        """Take the next event of a name, older ones first."""
        for i, event in enumerate(self._events):
            if event['event'] == name:
                return self._events.pop(i)
        end = time.monotonic() + timeout
        while True:
            message = self._message(end)
            if message.get('event') == name:
                return message
            self._events.append(message)
