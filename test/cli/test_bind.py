# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Tests of scripts/bind on a tree of files: what it writes, refuses, undoes and shows."""
import errno
import importlib.machinery
import importlib.util
import json
import os
import types

import pytest

from cli_harness import TOP, run
from fake_pci import FakePci

BIND = os.path.join('scripts', 'bind')
PF = '0000:af:00.2'
VF = '0000:af:04.0'
NIC = '0000:00:03.0'
DISK = '0000:00:04.0'
HEAD = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n'
V6_ZERO = '0' * 32


def load():
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader('vfe_bind', os.path.join(TOP, BIND))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('vfe_bind', loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def host(folder):
    return FakePci(folder)


@pytest.fixture
def bind(host, monkeypatch, capsys):
    """Runs scripts/bind on the fake host."""
    monkeypatch.setattr('sys.dont_write_bytecode', True)
    module = load()
    monkeypatch.setattr(module, 'write', host.write)

    def call(*argv):
        host.writes.clear()
        status = module.main(['--sysfs', host.sysfs, '--proc', host.proc, *argv])
        out, err = capsys.readouterr()
        return types.SimpleNamespace(status=status, out=out, err=err)
    return call


def refused(done, *words):
    """The command failed in one line that has the words, and wrote nothing in vain."""
    assert done.status == 1
    assert done.out == ''
    assert done.err.startswith('bind: error: ') and done.err.count('\n') == 1
    for word in words:
        assert word in done.err
    return True


# --- bind and unbind ---

def test_bind_and_unbind(host, bind):
    host.add(NIC, group=5)
    done = bind('-b', 'vfio-pci', '0:3.0')
    assert (done.status, done.out, done.err) == (0, '', '')
    assert host.driver(NIC) == 'vfio-pci'
    assert host.writes == [('driver_override', 'vfio-pci'), ('unbind', NIC), ('bind', NIC)]
    assert bind('-u', NIC).status == 0
    assert host.driver(NIC) == 'virtio-pci'
    assert host.text(NIC, 'driver_override') == '(null)'


def test_bind_and_unbind_twice_write_nothing(host, bind):
    host.add(NIC, group=5)
    assert bind('-u', NIC).status == 0
    assert host.writes == []
    bind('-b', 'vfio-pci', NIC)
    assert bind('-b', 'vfio-pci', NIC, NIC).status == 0
    assert host.writes == []


def test_function_without_driver(host, bind):
    host.add(NIC, driver=None, group=5)
    assert bind('-u', NIC).status == 0
    assert host.driver(NIC) == 'virtio-pci'
    assert bind('-b', 'none', NIC).status == 0
    assert host.driver(NIC) is None
    assert host.text(NIC, 'driver_override') == 'none'
    assert bind('-b', 'vfio-pci', NIC).status == 0
    assert host.driver(NIC) == 'vfio-pci'


def test_unbind_of_what_the_kernel_does_not_know(host, bind):
    host.add(NIC, device='0x9999', driver='vfio-pci', group=5)
    done = bind('-u', NIC)
    assert done.status == 0
    assert 'no driver' in done.err
    assert host.driver(NIC) is None


def test_unbind_while_new_id_holds_it(host, bind):
    host.add(NIC, driver='vfio-pci', group=5)
    host.taken.add(NIC)
    assert refused(bind('-u', NIC), 'remove_id', NIC)


@pytest.mark.parametrize('number, words', [
    (errno.EACCES, 'as root'), (errno.EROFS, 'container'), (errno.EINVAL, 'kernel log'),
    (errno.ENODEV, 'does not know')])
def test_failed_bind_goes_back(host, bind, number, words):
    host.add(NIC, group=5)
    host.failures['bind', NIC] = number
    assert refused(bind('-b', 'vfio-pci', NIC), words, 'drivers/vfio-pci/bind',
                   'it is bound to virtio-pci')
    assert host.driver(NIC) == 'virtio-pci'
    assert host.text(NIC, 'driver_override') == '(null)'


def test_failed_unbind_leaves_everything(host, bind):
    host.add(NIC, group=5)
    host.failures['unbind', NIC] = errno.EBUSY
    assert refused(bind('-b', 'vfio-pci', NIC), 'driver/unbind', 'it is bound to virtio-pci')
    assert host.driver(NIC) == 'virtio-pci'
    assert host.text(NIC, 'driver_override') == '(null)'


def test_failed_return_to_the_kernel_goes_back(host, bind):
    host.add(NIC, group=5)
    bind('-b', 'vfio-pci', NIC)
    host.failures['drivers_probe', NIC] = errno.EINVAL
    assert refused(bind('-u', NIC), 'drivers_probe', 'it is bound to vfio-pci')
    assert host.text(NIC, 'driver_override') == 'vfio-pci'


def test_bind_stops_at_the_first_error(host, bind):
    host.add(NIC, group=5)
    host.add(VF, group=6)
    host.failures['bind', NIC] = errno.EINVAL
    assert refused(bind('-b', 'vfio-pci', NIC, VF), NIC)
    assert host.driver(VF) == 'virtio-pci'


def test_missing_driver_function_and_group(host, bind):
    host.add(NIC, group=5)
    host.add(VF)
    assert refused(bind('-b', 'uio_pci_generic', NIC), 'modprobe uio_pci_generic')
    assert refused(bind('-b', 'vfio-pci', DISK), 'no PCI function ' + DISK, '--all')
    assert refused(bind('-b', 'vfio-pci', NIC, DISK), 'no PCI function ' + DISK)
    assert refused(bind('-b', 'vfio-pci', VF), 'no IOMMU group', 'intel_iommu=on')
    assert refused(bind('-b', 'vfio-pci', VF, '--force'), 'no IOMMU group')
    assert host.writes == []
    host.put(os.path.join(host.sysfs, 'module/vfio/parameters/enable_unsafe_noiommu_mode'), 'Y')
    assert bind('-b', 'vfio-pci', VF).status == 0


def test_bridge_is_refused(host, bind):
    host.add(NIC, pci_class='0x060400', driver='pcieport', group=5)
    assert refused(bind('-b', 'vfio-pci', NIC, '--force'), 'bridge')


def test_rest_of_the_group_is_named(host, bind):
    host.add(NIC, group=5)
    host.add('0000:00:03.1', group=5)
    host.add('0000:00:03.2', driver=None, group=5)
    host.add('0000:00:01.0', pci_class='0x060400', driver='pcieport', group=5)
    done = bind('-b', 'vfio-pci', NIC)
    assert done.status == 0
    assert done.err.count('\n') == 1
    assert '0000:00:03.1' in done.err and 'group 5' in done.err and 'virtio-pci' in done.err
    done = bind('-b', 'none', '0000:00:03.1')
    assert (done.status, done.err) == (0, '')


# --- what is in use ---

def use_default_route(host):
    host.add_interface(NIC, 'eth0')
    host.proc_file('net/route', HEAD + 'eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t'
                   '0\t0\t0\n')


def use_default_route6(host):
    host.add_interface(NIC, 'eth0')
    host.proc_file('net/ipv6_route', '%s 00 %s 00 fe80%s 00000400 00000001 00000000 00000003 eth0'
                   % (V6_ZERO, V6_ZERO, '0' * 28))


def use_route(host):
    host.add_interface(NIC, 'eth0')
    host.proc_file('net/route', HEAD + 'eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t'
                   '0\t0\t0\n')


def use_address6(host):
    host.add_interface(NIC, 'eth0')
    host.proc_file('net/if_inet6', '20010db8%s 02 40 00 80 eth0' % ('0' * 24))


def use_bridge_port(host):
    FakePci.link(host.sysfs, os.path.join(host.add_interface(NIC, 'eth0', up=False), 'master'))


def use_vlan(host):
    FakePci.link(host.sysfs, os.path.join(host.add_interface(NIC, 'eth0'), 'upper_eth0.7'))


def use_namespace(host):
    os.makedirs(host.path(NIC, 'virtio0', 'net'))


def use_namespace_of_other_driver(host):
    os.makedirs(host.path(NIC, 'net'))


def use_mount(host):
    host.add_disk(NIC, 'vda', '254:0')
    host.add_disk(NIC, 'vda', '254:1', part='vda1')
    host.proc_file('self/mountinfo', '36 35 254:1 / /srv rw,noatime - ext4 /dev/root rw')


def use_mount_of_btrfs(host):
    host.add_disk(NIC, 'vda', '254:0')
    host.proc_file('self/mountinfo', '36 35 0:31 / /srv rw shared:1 - btrfs /dev/vda rw')


def use_swap(host):
    host.add_disk(NIC, 'vda', '254:0')
    host.proc_file('swaps', 'Filename Type Size Used Priority\n/dev/vda partition 9 0 -2')


def use_volume(host):
    os.makedirs(os.path.join(host.add_disk(NIC, 'vda', '254:0'), 'holders', 'dm-0'))


@pytest.mark.parametrize('use, words', [
    (use_default_route, 'eth0 carries the default route'),
    (use_default_route6, 'eth0 carries the default route'),
    (use_route, 'eth0 is up and has routes'),
    (use_address6, 'eth0 is up and has an address'),
    (use_bridge_port, 'eth0 is part of a bridge'),
    (use_vlan, 'eth0 is part of a bridge'),
    (use_namespace, 'its interface is in another network namespace'),
    (use_namespace_of_other_driver, 'its interface is in another network namespace'),
    (use_mount, 'vda1 is mounted on /srv'),
    (use_mount_of_btrfs, 'vda is mounted on /srv'),
    (use_swap, 'vda is swap'),
    (use_volume, 'vda is part of dm-0'),
])
def test_what_is_in_use_is_refused(host, bind, use, words):
    host.add(NIC, group=5)
    use(host)
    for driver in ('vfio-pci', 'none'):
        assert refused(bind('-b', driver, NIC), words, NIC, '--force')
    assert host.writes == []
    assert json.loads(bind('--json', NIC).out)[0]['in_use'][0].startswith(words)
    assert words in bind().out
    assert bind('-b', 'vfio-pci', '--force', NIC).status == 0
    assert host.driver(NIC) == 'vfio-pci'


def test_interface_that_is_down_or_quiet_is_free(host, bind):
    host.add(NIC, group=5)
    host.add(DISK, group=6, device='0x1042', pci_class='0x010000')
    host.add_interface(NIC, 'eth0', up=False)
    host.add_interface(NIC, 'eth1')
    host.add_disk(DISK, 'vda', '254:0')
    host.proc_file('net/route', HEAD + 'eth0\t0000A8C0\t0\t1\t0\t0\t0\t00FFFFFF\t0\t0\t0\n'
                   'eth10\t00000000\t0\t1\t0\t0\t0\t00000000\t0\t0\t0\n')
    host.proc_file('net/if_inet6', 'fe80%s 02 40 20 80 eth1' % ('0' * 28))
    host.proc_file('self/mountinfo', '36 35 254:16 / / rw - ext4 /dev/vdb rw')
    assert bind('-b', 'vfio-pci', NIC, DISK).status == 0


@pytest.mark.parametrize('node', ['/dev/vfio/5', '/dev/vfio/noiommu-5', '/dev/vfio/devices/vfio2'])
def test_process_that_has_it_open_is_named(host, bind, node):
    host.add(NIC, driver='vfio-pci', group=5)
    os.makedirs(host.path(NIC, 'vfio-dev', 'vfio2'))
    host.add_process(4711, 'dpdk-vfe-vdpa', node)
    host.add_process(4712, 'other', '/dev/vfio/55')
    assert refused(bind('-u', NIC), 'group 5', 'dpdk-vfe-vdpa (pid 4711)')
    assert host.driver(NIC) == 'vfio-pci'


# --- VFs ---

def test_vfs_come_and_go(host, bind):
    host.add(PF, total_vfs=16)
    done = bind('-n', '10', PF)
    assert (done.status, done.err) == (0, '')
    assert done.out.split() == ['0000:af:%02x.%d' % (n // 8 + 4, n % 8) for n in range(10)]
    assert bind('-n', '10', PF).out == done.out
    assert host.writes == []
    assert bind('-n', '2', PF).out.split() == [VF, '0000:af:04.1']
    assert host.writes == [('sriov_numvfs', '0'), ('sriov_numvfs', '2')]
    done = bind('--num-vfs', '0', PF)
    assert (done.status, done.out) == (0, '')
    assert not os.path.exists(host.path(VF))


def test_vfs_that_cannot_be(host, bind):
    host.add(PF, total_vfs=4)
    host.add(NIC)
    assert refused(bind('-n', '5', PF), '4 VFs at most')
    assert refused(bind('-n', '1', NIC), 'SR-IOV')
    host.add('0000:af:00.3', driver=None, total_vfs=4)
    assert refused(bind('-n', '1', '0000:af:00.3'), 'no driver')
    assert host.writes == []


def test_vfio_pci_must_be_told_to_make_vfs(host, bind):
    host.add(PF, total_vfs=4, driver='vfio-pci', group=1)
    switch = os.path.join(host.sysfs, 'module', 'vfio_pci', 'parameters', 'enable_sriov')
    assert refused(bind('-n', '1', PF), 'echo 1 > ' + switch)
    host.put(switch, 'N')
    assert refused(bind('-n', '1', PF), 'echo 1 > ' + switch)
    host.put(switch, 'Y')
    assert bind('-n', '1', PF).out == VF + '\n'


def test_failed_change_of_vfs_restores_the_old_number(host, bind):
    host.add(PF, total_vfs=4)
    bind('-n', '2', PF)
    host.failures['sriov_numvfs', '3'] = errno.ENOMEM
    assert refused(bind('-n', '3', PF), 'sriov_numvfs')
    assert host.text(PF, 'sriov_numvfs') == '2'
    host.failures['sriov_numvfs', '0'] = errno.EPERM
    assert refused(bind('-n', '3', PF), 'as root')
    assert host.text(PF, 'sriov_numvfs') == '2'


def test_used_vf_keeps_pf_and_siblings(host, bind):
    host.add(PF, total_vfs=4, group=7)
    bind('-n', '1', PF)
    host.add_interface(VF, 'eth3')
    host.proc_file('net/route', HEAD + 'eth3\t00000000\t0\t3\t0\t0\t0\t00000000\t0\t0\t0\n')
    words = 'VF %s: eth3 carries' % VF
    assert refused(bind('-n', '2', PF), words)
    assert refused(bind('-n', '0', PF), words)
    assert refused(bind('-b', 'vfio-pci', PF), words)
    assert host.writes == []
    assert bind('-n', '0', PF, '--force').status == 0


# --- status and usage ---

def test_status(host, bind):
    host.add(PF, total_vfs=16, numa=1, group=31)
    host.add(NIC, device='0x1017', driver='mlx5_core')
    host.add('0000:00:1f.0', device='0x2918', pci_class='0x060100', driver=None)
    host.put(host.path('0000:00:1f.0', 'vendor'), '0x8086')
    host.add_interface(NIC, 'eth0', up=False)
    bind('-n', '1', PF)
    done = bind()
    assert done.status == 0
    assert [line.split() for line in done.out.splitlines()] == [
        ['DEVICE', 'ID', 'DRIVER', 'GROUP', 'NUMA', 'VFS', 'USED', 'BY'],
        [NIC, '1af4:1017', 'mlx5_core', '-', '-', '-', 'eth0'],
        [PF, '1af4:1041', 'virtio-pci', '31', '1', '1/16', '-'],
        [VF, '1af4:1041', 'virtio-pci', '-', '-', 'of', PF, '-']]
    assert bind('--status').out == done.out
    assert '0000:00:1f.0' in bind('--all').out
    assert bind('-s', '0000:00:1f.0').out.split()[-7] == '0000:00:1f.0'


def test_json(host, bind):
    host.add(PF, total_vfs=16, numa=1, group=31)
    host.add('0000:af:00.3', group=31)
    bind('-n', '1', PF)
    expected = {
        'device': PF, 'vendor_id': '0x1af4', 'device_id': '0x1041', 'class': '0x020000',
        'driver': 'virtio-pci', 'driver_override': None, 'iommu_group': '31',
        'group_devices': [PF, '0000:af:00.3'], 'numa_node': 1, 'physfn': None, 'total_vfs': 16,
        'vfs': [VF], 'interfaces': [], 'disks': [], 'in_use': []}
    assert json.loads(bind('--json', PF).out) == [expected]
    assert [f['device'] for f in json.loads(bind('-j').out)] == [PF, '0000:af:00.3', VF]
    assert json.loads(bind('-j', VF).out)[0]['physfn'] == PF
    done = bind('-j', '-b', 'vfio-pci', PF)
    assert json.loads(done.out) == [{**expected, 'driver': 'vfio-pci',
                                     'driver_override': 'vfio-pci'}]
    assert json.loads(bind('-j', '-n', '0', PF, '-f').out)[0]['vfs'] == []


@pytest.mark.parametrize('argv, words', [
    (['-b', 'vfio-pci'], 'which function'),
    (['-u'], 'which function'),
    (['-b', 'vfio-pci', '-u', NIC], 'not allowed'),
    (['-b', '../x', NIC], 'name of a driver'),
    (['-b', '', NIC], 'name of a driver'),
    (['-n', '1'], 'one PF'),
    (['-n', '1', PF, NIC], 'one PF'),
    (['-n', '-1', PF], 'number of VFs'),
    (['-n', 'x', PF], 'number of VFs'),
    (['-s', 'eth0'], 'PCI address'),
    (['-s', '0000:00:03.0/..'], 'PCI address'),
])
def test_usage_errors(host, argv, words):
    done = run(BIND, '--sysfs', host.sysfs, '--proc', host.proc, *argv)
    assert done.status == 2
    assert done.out == ''
    assert words in done.err
    assert 'Traceback' not in done.err


def test_as_a_program(host):
    host.add(NIC, group=5)
    env = {'VFE_BIND_SYSFS': host.sysfs, 'VFE_BIND_PROC': host.proc}
    done = run(BIND, env=env)
    assert (done.status, done.err) == (0, '')
    assert NIC in done.out
    # no kernel reacts to what is written here
    assert refused(run(BIND, '-b', 'vfio-pci', NIC, env=env), 'did not bind')
    assert run(BIND, '-h').status == 0
    assert run(BIND, env={'VFE_BIND_SYSFS': '/nowhere'}).out.count('\n') == 1
