# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A virtual machine with an IOMMU and PCI functions behind it, in which our programs run."""
import json
import os
import re

from vfetest.controller import BUILD
from vfetest.guest import Guest

NET = ('0000:00:03.0', '0000:00:04.0')      # each alone with a gateway that answers
PAIR = ('0000:00:05.0', '0000:00:05.1')     # on one wire, and in one IOMMU group
BLK = '0000:00:06.0'
WIRE = '0000:00:08.0'                       # on the wire of the pair, as is a gateway
ALL = NET + PAIR + (BLK, WIRE)
NVME_PORT = '0000:00:07.0'
NVME = '0000:01:00.0'                       # SR-IOV
DISK_SIZE = 1 << 20
TOOLS = '0000:00:09.0'                      # a disk with QEMU and a guest for it

GATEWAY = '10.0.2.2'                        # of QEMU's user network; answers ARP and ping
ADDRESS = '10.0.2.15/24'

BIND = '/vfe/scripts/bind'
IOMMU = ',disable-legacy=on,iommu_platform=on,ats=on'


def mac(bdf):
    return '52:54:00:00:%s:%s' % (bdf[8:10], bdf[11:12].zfill(2))


class Vm(Guest):
    """The virtual machine of these tests."""

    initrd = os.path.join(BUILD, 'vm-initramfs')
    # strict: what has been unmapped is out of reach at once
    cmdline = Guest.cmdline + ' intel_iommu=on iommu.strict=1'
    iommu = ('-device', 'intel-iommu,intremap=on')

    def __init__(self, name, logdir, folder, cpus=1, mem=1024):
        disk = os.path.join(folder, 'disk')
        with open(disk, 'wb') as f:
            f.truncate(DISK_SIZE)
        net = 'virtio-net-pci,netdev=%s,addr=%s,mac=%s' + IOMMU
        # DPDK wants a processor that is not older than this one
        extra = ['-cpu', 'Nehalem', *self.iommu]
        for index, bdf in enumerate(NET):
            name_of = 'user%d' % index
            extra += ['-netdev', 'user,restrict=on,ipv6=off,id=' + name_of,
                      '-device', net % (name_of, bdf[8:], mac(bdf))]
        for index, bdf in enumerate(PAIR + (WIRE,)):
            name_of = 'hub%d' % index
            more = ',multifunction=on,page-per-vq=on' if bdf in PAIR else ''
            extra += ['-netdev', 'hubport,hubid=0,id=' + name_of,
                      '-device', net % (name_of, bdf[8:], mac(bdf)) + more]
        extra += ['-netdev', 'user,restrict=on,ipv6=off,id=user-hub',
                  '-netdev', 'hubport,hubid=0,id=hub-user,netdev=user-hub']
        extra += ['-drive', 'if=none,id=disk,format=raw,file=' + disk,
                  '-device', 'virtio-blk-pci,drive=disk,addr=%s%s' % (BLK[8:], IOMMU),
                  '-drive', 'if=none,id=tools,format=raw,readonly=on,file='
                  + os.path.join(BUILD, 'vm-nested.tar'),
                  '-device', 'virtio-blk-pci,drive=tools,addr=%s%s' % (TOOLS[8:], IOMMU),
                  '-device', 'pcie-root-port,id=port0,chassis=1,addr=' + NVME_PORT[8:],
                  '-device', 'nvme-subsys,id=subsys',
                  '-device', 'nvme,serial=vfe,subsys=subsys,bus=port0,sriov_max_vfs=2,'
                             'sriov_vq_flexible=4,sriov_vi_flexible=2,max_ioqpairs=6,'
                             'msix_qsize=7']
        super().__init__(name, logdir, cpus=cpus, mem=mem, extra=extra)

    def boot(self):
        super().boot()
        self.run('mkdir -p /run /var/run')

    def bind(self, *argv, check=True):
        """Run scripts/bind; returns its output, or (exit status, output) without check."""
        command = ' '.join(('python3', BIND) + argv)
        return self.run(command, 60) if check else self.agent.run(command, 60)

    def functions(self, *devices):
        """What scripts/bind tells of each function."""
        return {f['device']: f for f in json.loads(self.bind('--json', *devices))}

    def drivers(self):
        """The driver of each function that has one, as the kernel tells."""
        lines = self.run('for d in /sys/bus/pci/devices/*/driver; do readlink -f $d | '
                         'sed "s|.*/|$d |"; done').splitlines()
        return {line.split('/')[5]: line.split()[1] for line in lines}

    def interface(self, bdf):
        """The network interface that the kernel made of a function."""
        return self.run('ls /sys/bus/pci/devices/%s/virtio*/net' % bdf).strip()

    def up(self, bdf, address=ADDRESS):
        ifname = self.interface(bdf)
        self.run('ip addr flush dev %s; ip addr add %s dev %s && ip link set %s up'
                 % (ifname, address, ifname, ifname))
        return ifname

    def down(self, bdf):
        ifname = self.interface(bdf)
        self.run('ip addr flush dev %s; ip link set %s down' % (ifname, ifname))

    def faults(self):
        """Function and address of the DMA that the IOMMU has stopped, as the kernel told."""
        found = re.findall(r'DMAR: .*Request device \[([0-9a-f:.]+)\] fault addr (0x[0-9a-f]+)',
                           self.run('dmesg'))
        return {('0000:' + bdf, int(address, 16)) for bdf, address in found}

    def check_order(self):
        """A test has left everything as it was."""
        drivers = self.drivers()
        wrong = [bdf for bdf in ALL if drivers.get(bdf) != 'virtio-pci']
        wrong += [bdf for bdf in (NVME,) if drivers.get(bdf) != 'nvme']
        assert not wrong, 'not at their kernel drivers: ' + ' '.join(wrong)
        up = self.run('ip -o link show up | grep -v LOOPBACK || true')
        assert not up, 'interfaces are up: ' + up
        self.check_kernel()
