# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The back ends that disks are compared on, and the small front-end vhost-blk."""
import json
import os
import subprocess

from vfe_rpc import Client
from vfetest import Process, Service
from vfetest.controller import BUILD, PROGRAM

from .ping import Ping
from .sides import BACK_CPU

PF = '0000:af:00.3'
VF = '0000:af:05.1'
STORAGE_DAEMON = 'qemu-storage-daemon'
MAX_QUEUES = 8
BLOCK_SIZE = 512


class Front(Ping):
    """One run of vhost-blk. It connects to the back end."""

    program = os.path.join(BUILD, 'test', 'bench', 'vhost-blk')
    name = 'vhost-blk'

    def __init__(self, lab, options, path, report=None):
        super().__init__(lab, ['--connect', *options], path, report)


def cpu_ns(pid):
    """What the threads of a process have used; those that have ended do not count."""
    used = 0
    for tid in os.listdir('/proc/%d/task' % pid):
        try:
            with open('/proc/%d/task/%s/schedstat' % (pid, tid)) as f:
                used += int(f.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return used


class Side:
    """A back end with all its threads on one CPU, which lives as long as it is entered."""

    def __init__(self, lab):
        self._lab = lab
        self._processes = []

    def _start(self, name, argv):
        process = Process(name, argv, self._lab.log(name), env=self._lab.env, cpus=str(BACK_CPU))
        self._processes.append(process)
        return process

    def commands(self):
        return [p.argv for p in self._processes]

    def pids(self):
        return [p.pid for p in self._processes]

    def cpu_ns(self):
        return sum(cpu_ns(pid) for pid in self.pids())

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *args):
        self.close()

    def close(self):
        while self._processes:
            process = self._processes.pop()
            try:
                process.stop(30)
            finally:
                process.close()


class Ours(Side):
    """A VF of the software DPU on a bdev; the service has its socket."""

    def __init__(self, lab, bdev):
        super().__init__(lab)
        self.path = lab.path('vhost.sock')
        self._dir = lab.path('pci')
        self._socket = lab.path('controller.sock')
        self._config = lab.path('controller.json')
        os.makedirs(self._dir)
        with open(self._config, 'w') as f:
            json.dump({'software_dpu': {
                'dir': self._dir, 'rpc_socket': self._socket,
                'bdevs': [{'name': 'disk', **bdev},
                          {'name': 'none', 'type': 'null', 'size_mib': 1}],
                'pfs': [{'bdf': PF, 'type': 'blk', 'first_vf': VF, 'num_vfs': 1, 'bdev': 'none',
                         'num_queues': MAX_QUEUES, 'vfs': {'0': {'bdev': 'disk'}}}]}}, f, indent=4)

    def start(self):
        self._start('controller', [PROGRAM, '--config', self._config]).wait_socket(self._socket)
        service = Service(self._lab, dir=self._dir, cpus=str(BACK_CPU), client=False)
        service.start()
        self._processes.append(service.process)
        service.add_pf(PF)
        service.add_vf(VF, self.path)

    def how(self):
        """How it gets at the file: io_uring may be refused on a machine."""
        client = Client(self._socket, 'virtio-net-controller', 10)
        try:
            disk = client.call('bdev_get_bdevs', {'name': 'disk'})[0]
        finally:
            client.close()
        return disk.get('io') or disk['product_name']


class Peer(Side):
    """qemu-storage-daemon with an iothread."""

    def __init__(self, lab, blockdev):
        super().__init__(lab)
        self.path = lab.path('peer.sock')
        self._blockdev = blockdev

    def start(self):
        self._start('peer', [
            STORAGE_DAEMON, '--object', 'iothread,id=io',
            '--blockdev', self._blockdev + ',node-name=disk',
            '--export', 'vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=%d,'
            'iothread=io,logical-block-size=%d,addr.type=unix,addr.path=%s'
            % (MAX_QUEUES, BLOCK_SIZE, self.path)]).wait_socket(self.path)

    def how(self):
        return self._blockdev.split(',')[0] if 'aio=' not in self._blockdev else \
            'aio=' + self._blockdev.split('aio=')[1]


def storage_daemon():
    """Name and version of the peer."""
    done = subprocess.run([STORAGE_DAEMON, '--version'], stdout=subprocess.PIPE, text=True,
                          check=True, timeout=30, stdin=subprocess.DEVNULL)
    return done.stdout.splitlines()[0]
