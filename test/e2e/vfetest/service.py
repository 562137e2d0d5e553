# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The service dpdk-vfe-vdpa and its command line vhostmgmt."""
import json
import os
import subprocess

from . import rpc
from .controller import BUILD
from .guest import TOP
from .process import Process

PROGRAM = os.path.join(BUILD, 'app', 'dpdk-vfe-vdpa')
VHOSTMGMT = os.path.join(TOP, 'app', 'vfe-vdpa', 'vhostmgmt')
VF_TOKEN = 'cdc786f0-59d4-41d9-b554-fed36ff5e89f'


class VhostmgmtError(Exception):
    """vhostmgmt ended with a status other than 0."""

    def __init__(self, argv, status, output, errors):
        super().__init__('vhostmgmt %s: exit status %d: %s%s'
                         % (' '.join(argv), status, output, errors))
        self.status = status
        self.output = output
        self.errors = errors


class Service:
    """dpdk-vfe-vdpa on the vfio-user sockets of a folder."""

    def __init__(self, lab, dir=None, eal=(), options=(), cpus=None, netns=None, client=True):
        self._lab = lab
        self._netns = netns
        self._generation = 0
        self._cpus = cpus
        self._eal = list(eal)
        self._options = (['--client'] if client else []) + list(options)
        self.dir = dir or lab.path('pci')
        self.socket = lab.path('vhostd.sock')
        self.process = None

    def start(self):
        self._generation += 1
        argv = [PROGRAM, '-a', '0000:00:00.0', '--log-level=.,8', '--vfio-vf-token=' + VF_TOKEN,
                '--no-huge', '-m', '64', '--file-prefix', self._lab.unique('vhostd'), *self._eal,
                '--', '--vfio-user-dir', self.dir, '--rpc-socket', self.socket,
                *self._options]
        self.process = Process('service', argv, self._lab.log('service-%d' % self._generation),
                               netns=self._netns, env=self._lab.env, cpus=self._cpus)
        self.process.wait_socket(self.socket, 20)

    def vhostmgmt(self, *argv, timeout=60):
        """Run vhostmgmt; returns its output, decoded."""
        done = subprocess.run(['/usr/bin/python3', VHOSTMGMT, '-s', self.socket, *argv],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        with open(self._lab.log('vhostmgmt'), 'a') as f:
            f.write('$ vhostmgmt %s\n%s%sstatus %d\n'
                    % (' '.join(argv), done.stdout, done.stderr, done.returncode))
        if done.returncode != 0:
            raise VhostmgmtError(argv, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def call(self, method, **params):
        """A request to the management socket; returns the result."""
        result = rpc.call(self.socket, method, params)
        if result.get('errno'):
            raise RuntimeError('%s %s: %s' % (method, params, result))
        return result

    def add_pf(self, bdf):
        return self.vhostmgmt('mgmtpf', '-a', bdf)

    def remove_pf(self, bdf):
        return self.vhostmgmt('mgmtpf', '-r', bdf)

    def add_vf(self, bdf, socket_file, uuid=None, client=None):
        """client: QEMU listens; None: as the service was started."""
        roles = {None: (), True: ('--client',), False: ('--server',)}
        return self.vhostmgmt('vf', '-a', bdf, '-v', socket_file,
                              *(('-u', uuid) if uuid else ()), *roles[client])

    def remove_vf(self, bdf):
        return self.vhostmgmt('vf', '-r', bdf)

    def info(self, bdf):
        """The VF object of vf -i."""
        return self.vhostmgmt('vf', '-i', bdf)['device']

    def stop(self):
        return self.process.stop(30)

    def kill(self):
        return self.process.kill()

    def close(self):
        if self.process is not None:
            self.process.finish(30)
