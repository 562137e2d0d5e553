# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The same end-to-end test, front.py, over both transports.

vfio-user: on this machine, functions of the software DPU, which give back what they get.
vfio: inside the VM, functions of the kernel behind the IOMMU, two of them on one wire.
"""
import hashlib
import json
import os
import subprocess
import sys

import pytest

from peers import blk, daemons
from programs import Service
from vm import BLK, DISK_SIZE, NET, PAIR, WIRE

PROGRAM = 'test/vm/front.py'
TIMEOUT = 150               # on a machine that does other things; some seconds otherwise


class OnVfioUser:
    """Controller and service on this machine."""

    transport = 'vfio-user'

    def __init__(self, folder):
        self._image = blk.make_image(os.path.join(folder, 'image'), DISK_SIZE)
        self._net = daemons.Controller(folder, polling=True)
        self._blk = blk.BlkController(folder, [blk.file_bdev('disk', self._image)], ['disk'],
                                      name='disks')
        self.service = daemons.Service(folder, self._net.pci_dir, client=True)
        self.pair = (self._net.vf(0),) * 2
        self.other = self._net.vf(1)
        self.disk = self._blk.vf(0)

    def run(self, *argv):
        done = subprocess.run(
            [sys.executable, os.path.join(daemons.REPO, PROGRAM), '--rpc', self.service.rpc_path]
            + [str(arg) for arg in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=TIMEOUT * daemons.SLOW, check=False, text=True)
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout)

    def stray(self):
        """Where the IOMMU stopped a function; there is none here, the DPU checks."""
        return None

    def disk_begins_with(self, size):
        """SHA-256 of what is on the disk, as seen without the service."""
        with open(self._image, 'rb') as f:
            return hashlib.sha256(f.read(size)).hexdigest()

    def close(self):
        self.service.stop()
        self._blk.stop()
        self._net.stop()


class OnVfio:
    """Functions of the VM's kernel."""

    transport = 'vfio'

    def __init__(self, vm, other=NET[0]):
        self._vm = vm
        self.pair = PAIR
        self.other = other
        self.disk = BLK
        self._bound = [BLK, other, *PAIR]
        self._faults = vm.faults()
        vm.bind('-b', 'vfio-pci', *self._bound)
        self.service = Service(vm)

    def run(self, *argv):
        status, output = self._vm.agent.run(
            ' '.join(['python3', '/vfe/' + PROGRAM] + [str(arg) for arg in argv]), TIMEOUT)
        assert status == 0, output
        return json.loads(output)

    def stray(self):
        return self._vm.faults() - self._faults

    def disk_begins_with(self, size):
        self._vm.bind('-u', self.disk)
        self._bound.remove(self.disk)
        return self._vm.run('head -c %d /dev/vda | sha256sum' % size).split()[0]

    def close(self):
        assert self.service.files() == []
        self.service.stop()
        self._vm.bind('-u', *self._bound)


@pytest.fixture(params=['vfio-user', 'vfio'])
def rig(request, tmp_path):
    if request.param == 'vfio':
        the_rig = OnVfio(request.getfixturevalue('vm'))
    else:
        the_rig = OnVfioUser(str(tmp_path))
    yield the_rig
    the_rig.close()


def test_packets(rig):
    assert rig.run('exchange', *rig.pair) == {'transport': rig.transport}


def test_killed_front_end(rig):
    rig.run('crash', *rig.pair)


def test_rings_in_the_middle(rig):
    rig.run('resume', *rig.pair)


def test_stray_address_hurts_nobody(rig):
    facts = rig.run('stray', rig.other, *rig.pair)
    assert rig.stray() in (None, {(rig.other, facts['stray'])})


def test_disk(rig):
    facts = rig.run('disk', rig.disk)
    assert facts['sectors'] == DISK_SIZE // 512
    # the kernel finds what the guest has written
    assert rig.disk_begins_with(facts['bytes']) == facts['sha256']


def test_service_sleeps(rig):
    """No kick and no interrupt goes through the service."""
    facts = rig.run('fast', *rig.pair, '--count', 500)
    print(facts)
    # its threads run now and then; a packet would run one of them twice
    assert sum(facts['switches'].values()) < facts['packets'] / 10, facts


def test_function_is_taken_away_and_comes_back(vm):
    """The kernel unbinds and binds it while a guest uses it. Only kernels do so."""
    rig = OnVfio(vm, WIRE)
    rig.run('taken', WIRE, PAIR[0])
    # this one's guest has doorbell pages, which keep it open
    rig.run('taken', PAIR[0], WIRE)
    rig.close()
