# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The software peer that results are compared with: testpmd's vhost PMD joined to a TAP."""
import subprocess

from .process import Process


class VhostPeer:
    """testpmd between a vhost-user socket (as client) and a TAP in a namespace."""

    def __init__(self, lab, netns, path, tap='tap0', queues=1):
        self._lab = lab
        self._netns = netns
        self._path = path
        self._queues = queues
        self.tap = tap
        self.process = None

    def start(self):
        argv = ['stdbuf', '-oL', 'dpdk-testpmd', '-l', '0,1', '--no-huge', '-m', 256,
                '--no-pci', '--no-telemetry',
                '--file-prefix', self._lab.unique('peer'),
                '--vdev', 'net_vhost0,iface=%s,queues=%d,client=1' % (self._path, self._queues),
                '--vdev', 'net_tap0,iface=%s' % self.tap,
                '--', '--rxq=%d' % self._queues, '--txq=%d' % self._queues,
                '--total-num-mbufs=16384', '--forward-mode=io', '--disable-link-check']
        # testpmd ends when its input does, and without stdbuf a pipe gets no line before
        self.process = Process('peer', argv, self._lab.log('peer'), netns=self._netns,
                               env=self._lab.env, stdin=subprocess.PIPE)
        self.process.wait_line('Press enter to exit', 30)

    def close(self):
        if self.process is not None:
            self.process.close()
