# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Plain functions without an IOMMU, in a VM that has none.

Debian's kernels leave VFIO's no-IOMMU mode out: scripts/noiommu-module builds the module that has
it, and without that these tests are skipped.
"""
import glob
import json
import os
import re
import shutil
import time

import pytest

from programs import SERVICE, Pmd, Service
from vfetest.guest import TOP
from vm import BLK, DISK_SIZE, NET, PAIR, Vm

MODULES = '.deps/guest/kernel-*/modules/vfio.ko', '.deps/noiommu/vfio.ko'
PAGES = 256                     # huge ones of 2 MiB
PA_SERVICE = SERVICE.replace('--no-huge -m 64', '--iova-mode=pa -m 64')
TIMEOUT = 150


class Bare(Vm):
    """The VM without IOMMU and with the module of the kernel that allows that."""

    cmdline = Vm.cmdline.split(' intel_iommu', 1)[0]
    iommu = ()

    def __init__(self, name, logdir, folder, module):
        super().__init__(name, logdir, folder, mem=1536)
        self.initrd = os.path.join(folder, 'initramfs')
        # the kernel unpacks one archive after the other
        with open(self.initrd, 'wb') as to:
            for part in (Vm.initrd, self._pack(folder, module)):
                with open(part, 'rb') as f:
                    shutil.copyfileobj(f, to)

    @staticmethod
    def _pack(folder, module):
        root = os.path.join(folder, 'root')
        path = os.path.join(root, 'lib/modules')
        os.makedirs(path)
        shutil.copy(module, path)
        archive = os.path.join(folder, 'module.cpio')
        assert os.system('cd %s && find . | cpio --quiet -o -H newc -R 0:0 >%s'
                         % (root, archive)) == 0
        return archive

    def boot(self):
        super().boot()
        self.run('echo 1 >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode')
        self.run('echo %d >/proc/sys/vm/nr_hugepages && mkdir -p /dev/hugepages && '
                 'mount -t hugetlbfs none /dev/hugepages' % PAGES)


def find_module():
    """One that has the mode and fits the guests' kernel: its own, or the one that was built."""
    wanted = None
    for pattern in MODULES:
        for path in glob.glob(os.path.join(TOP, pattern)):
            with open(path, 'rb') as f:
                data = f.read()
            kernel = re.search(rb'vermagic=[^\0]*', data).group(0)
            wanted = wanted or kernel
            if kernel == wanted and b'enable_unsafe_noiommu_mode' in data:
                return path
    return None


@pytest.fixture(scope='module')
def bare(host):
    module = find_module()
    if module is None:
        pytest.skip('there is no kernel module with no-IOMMU mode: run scripts/noiommu-module')
    folder = os.path.join(host.lab.dir, 'bare')
    os.mkdir(folder)
    vm = Bare('bare', host.lab.logdir, folder, module)
    vm.boot()
    yield vm
    vm.close()


@pytest.fixture
def functions(bare):
    """At vfio-pci, and the service on them."""
    bound = [BLK, NET[0], *PAIR]
    bare.bind('-b', 'vfio-pci', *bound)
    service = Service(bare, PA_SERVICE)
    yield service
    assert service.files() == []
    service.stop()
    bare.bind('-u', *bound)
    bare.check_order()


def front(vm, *argv):
    """A scenario of front.py with guests whose memory is of huge pages."""
    status, output = vm.agent.run(
        ' '.join(('python3', '/vfe/test/vm/front.py', '--no-iommu') + argv), TIMEOUT)
    assert status == 0, output
    return json.loads(output)


def test_functions_are_refused_unless_allowed(bare, functions):
    assert 'is in no-IOMMU mode' in functions.refused('vf', '-a', PAIR[0], '-v', '/tmp/s',
                                                      '--plain')
    functions.manage('vf', '-a', PAIR[0], '-v', '/tmp/s', '--plain', '--allow-no-iommu')
    assert functions.info(PAIR[0])['no_iommu'] is True
    functions.manage('vf', '-r', PAIR[0])


def test_guest_of_small_pages_is_told_why_not(bare, functions):
    functions.manage('vf', '-a', PAIR[0], '-v', '/tmp/s', '--plain', '--allow-no-iommu')
    guest = Pmd(bare, '/tmp/s', 'icmpecho')
    end = time.monotonic() + TIMEOUT
    while 'not of huge pages' not in functions.info(PAIR[0])['last_error']:
        assert time.monotonic() < end, functions.info(PAIR[0])
        time.sleep(0.1)
    guest.end('KILL')
    functions.manage('vf', '-r', PAIR[0])


@pytest.mark.parametrize('scenario', ['exchange', 'crash', 'resume', 'balloon', 'taken'])
def test_packets(bare, functions, scenario):
    front(bare, scenario, *PAIR)


def test_stray_address_hurts_nobody(bare, functions):
    """The service does not pass it on."""
    front(bare, 'stray', NET[0], *PAIR)


def test_disk(bare, functions):
    facts = front(bare, 'disk', BLK)
    assert facts['sectors'] == DISK_SIZE // 512
    bare.bind('-u', BLK)
    written = bare.run('head -c %d /dev/vda | sha256sum' % facts['bytes']).split()[0]
    bare.bind('-b', 'vfio-pci', BLK)
    assert written == facts['sha256']
