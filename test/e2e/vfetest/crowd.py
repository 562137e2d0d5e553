# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""VFs that fill the admin queue of their PF."""
import contextlib
import os
import socket

from .controller import vf_bdf


class Crowd:
    """VFs of a host whose front-ends connect and say nothing more.

    Each costs an admin command when its front-end connects, which prepares it for a start. With a
    controller that takes long for a command they keep the queue full for as long.
    """

    def __init__(self, host, vfs):
        self._host = host
        self._vfs = vfs
        self._parts = contextlib.ExitStack()
        for vf in vfs:
            self._call(vf, add=True, socket_file=host.socket(vf))
            self._parts.callback(self._call, vf, remove=True)

    def _call(self, vf, **params):
        self._host.service.call('vf', vfdev=vf_bdf(vf), **params)

    def arrive(self, latency_ms):
        """All front-ends connect, and the controller takes that long for each command."""
        listeners = [self._listen(vf) for vf in self._vfs]
        self._host.controller.call('knobs', admin_latency_us=latency_ms * 1000)
        for listener in listeners:
            listener.listen()
        for listener in listeners:
            self._parts.enter_context(contextlib.closing(listener.accept()[0]))

    def _listen(self, vf):
        listener = self._parts.enter_context(socket.socket(socket.AF_UNIX))
        listener.settimeout(10)
        path = self._host.path('net%d' % vf)
        listener.bind(path)
        self._parts.callback(os.unlink, path)
        return listener

    def relieve(self):
        """The controller is fast again, with commands that are new."""
        self._host.controller.call('knobs', admin_latency_us=0)

    def close(self):
        """The front-ends go, then the VFs."""
        self._parts.close()
