# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Requests to the management socket of a daemon, without its command line."""
import json
import socket

TIMEOUT = 30


def call(path, method, params):
    """Send a request on a connection of its own; returns the result."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(TIMEOUT)
        s.connect(path)
        s.sendall(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method,
                              'params': params}).encode() + b'\n')
        reply = json.loads(s.makefile('rb').readline())
    if 'error' in reply:
        raise RuntimeError('%s: %s' % (method, reply['error']))
    return reply['result']
