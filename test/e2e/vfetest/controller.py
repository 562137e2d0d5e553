# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The software DPU: virtio-net-controller and its command line."""
import json
import os
import subprocess

from . import rpc
from .disk import serial
from .guest import TOP
from .process import Process

BUILD = os.environ.get('VFE_BUILD_DIR', os.path.join(TOP, 'build'))
PROGRAM = os.path.join(BUILD, 'app', 'virtio-net-controller')
VIRTNET = os.path.join(TOP, 'app', 'controller', 'virtnet')

PF = '0000:af:00.2'
VF_FIRST = '0000:af:04.5'
BLK_PF = '0000:af:00.3'
BLK_VF_FIRST = '0000:af:08.0'
PF_MAC = '0C:C4:7A:FF:22:90'
VF_MAC = '00:00:00:00:33:00'


def vf_bdf(index, first=VF_FIRST):
    """The address of a VF of the default configuration (stride 1)."""
    bus, rest = first[5:].split(':')
    device, function = rest.split('.')
    routing_id = (int(bus, 16) << 8 | int(device, 16) << 3 | int(function)) + index
    return '0000:%02x:%02x.%d' % (routing_id >> 8, routing_id >> 3 & 31, routing_id & 7)


def disk_bdf(index):
    """The address of a VF of the PF for disks."""
    return vf_bdf(index, BLK_VF_FIRST)


def vf_mac(index):
    """The MAC address that the controller derives for a VF from VF_MAC."""
    return VF_MAC[:-5] + '%02x:%02x' % (0x33 + (index >> 8), index & 255)


def disk_name(index):
    """The bdev of a disk."""
    return 'Disk%d' % index


def representor(index, pf=0):
    """The name of the TAP that stands for a VF."""
    return 'en3f0pf%dsf%d' % (pf, 3000 + index)


class Controller:
    """virtio-net-controller in a namespace; its TAPs appear there.

    VFs have TAP back ends unless vf_backend names another type, or vf_backends one of a single VF.
    With disks there is a PF for them as well: an entry is the options of a VF with the key image,
    a path, in addition.
    """

    def __init__(self, lab, netns, vfs=2, qp_num=4, vf_backend=None, vf_backends=None,
                 polling=False, workers=1, worker_cpus=None, mtu=1500, cpus=None, disks=()):
        self._lab = lab
        self._netns = netns
        self._generation = 0
        self._cpus = cpus
        self.dir = lab.path('pci')
        self.socket = lab.path('controller.sock')
        self.config = lab.path('controller.json')
        self.process = None
        dpu = {'dir': self.dir, 'rpc_socket': self.socket, 'workers': workers,
               'polling': polling,
               'pfs': [{'bdf': PF, 'type': 'net', 'first_vf': VF_FIRST, 'vf_stride': 1,
                        'mtu': mtu}]}
        if vf_backend is not None:
            vf_backends = {k: vf_backend for k in range(vfs)}
        if vf_backends:
            dpu['pfs'][0]['vfs'] = {str(k): {'backend': {'type': kind}}
                                    for k, kind in vf_backends.items()}
        if disks:
            self._add_disks(dpu, disks)
        if worker_cpus is not None:
            dpu['worker_cpus'] = worker_cpus
        with open(self.config, 'w') as f:
            json.dump({'static_pf': {'mac_base': PF_MAC},
                       'vf': {'mac_base': VF_MAC, 'vfs_per_pf': vfs, 'qp_num': qp_num},
                       'software_dpu': dpu}, f, indent=4)
        os.makedirs(self.dir, exist_ok=True)

    @staticmethod
    def _add_disks(dpu, disks):
        dpu['bdevs'] = []
        vfs = {}
        for index, disk in enumerate(disks):
            options = dict(disk)
            dpu['bdevs'].append({'name': disk_name(index), 'type': 'file',
                                 'path': options.pop('image')})
            vfs[str(index)] = {'bdev': disk_name(index), 'vblk_id': serial(index), **options}
        dpu['pfs'].append({'bdf': BLK_PF, 'type': 'blk', 'first_vf': BLK_VF_FIRST,
                           'num_vfs': len(disks), 'bdev': disk_name(0), 'vfs': vfs})

    def start(self):
        self._generation += 1
        self.process = Process('controller', [PROGRAM, '--config', self.config],
                               self._lab.log('controller-%d' % self._generation),
                               netns=self._netns, env=self._lab.env, cpus=self._cpus)
        self.process.wait_socket(self.socket)

    def virtnet(self, *argv, timeout=30):
        """Run virtnet; returns its reply, decoded."""
        done = subprocess.run(['/usr/bin/python3', VIRTNET, '-s', self.socket, *argv],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout, check=False)
        if done.returncode != 0:
            raise RuntimeError('virtnet %s: status %d: %s'
                               % (' '.join(argv), done.returncode, done.stderr))
        return json.loads(done.stdout)

    def inject(self, vf, action, **options):
        """Have requests of a disk fail or wait: bdev_inject of spdk_rpc.py."""
        self.call('bdev_inject', name=disk_name(vf), action=action, **options)

    def disk(self, vf):
        """What the controller tells of a VF of the PF for disks."""
        bdev = disk_name(vf)
        return next(c for c in self.call('virtio_blk_controller_list')
                    if c['bdev'] == bdev and c['vf_id'] == vf)

    def call(self, method, **params):
        """A request to the management socket; returns the result."""
        return rpc.call(self.socket, method, params)

    def stop(self):
        return self.process.stop(30)

    def kill(self):
        return self.process.kill()

    def close(self):
        if self.process is not None:
            self.process.finish(30)
