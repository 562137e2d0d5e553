# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""scripts/bind on a real kernel: functions change drivers and work afterwards."""
import re

import pytest

from vm import ADDRESS, ALL, BLK, GATEWAY, NET, NVME, PAIR


@pytest.fixture
def at_vfio(vm):
    """Binds functions to vfio-pci; they are given back at the end."""
    bound = []

    def bind(*devices):
        bound.extend(devices)
        return vm.bind('-b', 'vfio-pci', *devices)
    yield bind
    if bound:
        vm.bind('-u', *bound)


def test_status_is_what_the_kernel_says(vm):
    functions = vm.functions()
    assert set(ALL + (NVME,)) <= set(functions)
    for bdf in ALL + (NVME,):
        group = vm.run('readlink /sys/bus/pci/devices/%s/iommu_group' % bdf).strip()
        assert functions[bdf]['iommu_group'] == group.rsplit('/', 1)[1]
    assert functions[PAIR[0]]['group_devices'] == list(PAIR)
    assert functions[NET[0]]['group_devices'] == [NET[0]]
    assert functions[BLK]['disks'] == ['vda']
    assert functions[NVME]['total_vfs'] == 2
    assert functions[NET[0]]['vendor_id'] == '0x1af4'
    assert functions[NET[0]]['driver_override'] is None
    assert NET[0] in vm.bind()


def test_net_to_vfio_and_back(vm, at_vfio):
    group = vm.functions(NET[0])[NET[0]]['iommu_group']
    at_vfio(NET[0])
    assert vm.drivers()[NET[0]] == 'vfio-pci'
    assert vm.drivers()[NET[1]] == 'virtio-pci'
    vm.run('test -c /dev/vfio/%s' % group)
    vm.bind('-u', NET[0])
    vm.run('test ! -e /dev/vfio/%s' % group)
    vm.up(NET[0])
    vm.ping(GATEWAY)
    vm.down(NET[0])


def test_disk_to_vfio_and_back(vm, at_vfio):
    write = 'dd if=/dev/urandom of=/dev/vda bs=64k count=4 conv=fsync 2>/dev/null'
    read = 'dd if=/dev/vda bs=64k count=4 2>/dev/null | sha256sum'
    before = vm.run('%s; %s' % (write, read))
    at_vfio(BLK)
    vm.run('test ! -e /dev/vda')
    vm.bind('-u', BLK)
    assert vm.run(read) == before


@pytest.mark.parametrize('setup, words', [
    ('ip addr add %s dev IF; ip route add default via %s' % (ADDRESS, GATEWAY),
     'carries the default route'),
    ('ip addr add %s dev IF' % ADDRESS, 'is up and has routes'),
    ('ip addr add 10.9.9.9/32 dev IF', 'is up and has an address'),
])
def test_interface_in_use_is_refused(vm, setup, words):
    ifname = vm.interface(NET[1])
    vm.run('ip link set %s up; %s' % (ifname, setup.replace('IF', ifname)))
    status, output = vm.bind('-b', 'vfio-pci', NET[1], check=False)
    assert status == 1
    assert '%s %s' % (ifname, words) in output
    assert vm.drivers()[NET[1]] == 'virtio-pci'
    vm.down(NET[1])


def test_pair_talks_and_a_namespace_is_in_use(vm, at_vfio):
    """One of the pair in a network namespace, or its kernel would not use the wire."""
    at_vfio(*PAIR)
    vm.bind('-u', *PAIR)
    other = vm.interface(PAIR[1])
    pid = vm.run('unshare -n sleep 100 >/dev/null 2>&1 & echo $!').strip()
    try:
        vm.run('until [ $(readlink /proc/%s/ns/net) != $(readlink /proc/self/ns/net) ]; do '
               'sleep 0.1; done; ip link set %s netns %s' % (pid, other, pid), 10)
        vm.run('nsenter -t %s -n sh -c "ip addr add 10.8.0.2/24 dev %s; ip link set %s up"'
               % (pid, other, other))
        vm.up(PAIR[0], '10.8.0.1/24')
        vm.ping('10.8.0.2')
        status, output = vm.bind('-b', 'vfio-pci', PAIR[1], check=False)
        assert status == 1
        assert 'another network namespace' in output
        vm.down(PAIR[0])
    finally:
        vm.run('kill %s; until ls -d /sys/bus/pci/devices/%s/virtio*/net/eth* 2>/dev/null; do '
               'sleep 0.1; done' % (pid, PAIR[1]), 10)


def test_swap_is_refused(vm):
    vm.run('mkswap /dev/vda && swapon /dev/vda')
    status, output = vm.bind('-b', 'vfio-pci', BLK, check=False)
    vm.run('swapoff /dev/vda')
    assert status == 1
    assert 'vda is swap space' in output


def test_forced_although_in_use(vm, at_vfio):
    ifname = vm.up(NET[1])
    at_vfio('--force', NET[1])
    assert vm.status('ip link show %s 2>/dev/null' % ifname) != 0
    vm.bind('-u', NET[1])


def test_group_of_two(vm, at_vfio):
    output = at_vfio(PAIR[0])
    assert PAIR[1] in output and 'virtio-pci' in output and 'cannot be used yet' in output
    assert vm.bind('-b', 'none', PAIR[1]) == ''
    assert PAIR[1] not in vm.drivers()
    assert at_vfio(PAIR[1]) == ''
    assert vm.bind('-u', *PAIR) == ''


def test_open_group_is_refused_and_its_user_named(vm, at_vfio):
    group = vm.functions(NET[0])[NET[0]]['iommu_group']
    at_vfio(NET[0])
    pid = vm.run('sleep 100 <>/dev/vfio/%s >/dev/null 2>&1 & echo $!' % group).strip()
    try:
        status, output = vm.bind('-u', NET[0], check=False)
    finally:
        vm.run('kill %s' % pid)
    assert status == 1
    assert 'IOMMU group %s is open in sleep (pid %s)' % (group, pid) in output
    assert vm.drivers()[NET[0]] == 'vfio-pci'


def test_vfs_of_vfio_pci(vm, at_vfio):
    at_vfio(NVME)
    status, output = vm.bind('-n', '2', NVME, check=False)
    assert status == 1
    # the text tells a command that helps
    vm.run(re.search(r'(echo 1 > \S+)', output).group(1))
    vfs = vm.bind('-n', '2', NVME).split()
    assert len(vfs) == 2
    functions = vm.functions()
    assert functions[NVME]['vfs'] == vfs
    for vf in vfs:
        assert functions[vf]['physfn'] == NVME
        assert functions[vf]['driver'] == 'vfio-pci'
    status, output = vm.bind('-n', '3', NVME, check=False)
    assert (status, '2 VFs at most' in output) == (1, True)
    assert vm.bind('-n', '0', NVME) == ''
    assert vfs[0] not in vm.functions()


def test_driver_that_does_not_fit(vm):
    status, output = vm.bind('-b', 'nvme', NET[0], check=False)
    assert status == 1
    assert 'it is bound to virtio-pci' in output
    assert vm.functions(NET[0])[NET[0]]['driver_override'] is None
    status, output = vm.bind('-b', 'uio_pci_generic', NET[0], check=False)
    assert (status, 'modprobe uio_pci_generic' in output) == (1, True)
