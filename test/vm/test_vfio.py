# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Our PCI transport on kernel VFIO, by the checks of vfio_check.c."""
import contextlib
import re

import pytest

from vm import GATEWAY, NET, NVME, PAIR

CHECK = '/vfe/build/test/vm/vfio-check'
WILD = 0x70000000           # addresses of the check of faults
PAGE = 0x40000000
LIMIT = '/sys/module/vfio_iommu_type1/parameters/dma_entry_limit'


@pytest.fixture
def check(vm):
    """Runs a check on functions; returns (exit status, output)."""
    return lambda *argv: vm.agent.run(' '.join((CHECK,) + argv), 60)


@contextlib.contextmanager
def at_vfio(vm, *devices):
    vm.bind('-b', 'vfio-pci', *devices)
    yield
    vm.bind('-u', *devices)


def passed(done):
    status, output = done
    assert status == 0, output
    return output


def test_two_functions_share_a_domain_or_not(vm, check):
    before = vm.faults()
    with at_vfio(vm, *NET):
        assert passed(check('ping', *NET)) == 'containers 1\n'
        assert passed(check('apart', *NET)) == 'containers 2\n'
    assert vm.faults() == before
    # and the kernel's driver finds it in order
    vm.up(NET[0])
    vm.ping(GATEWAY)
    vm.down(NET[0])


def test_reopen_leaves_nothing(vm, check):
    with at_vfio(vm, NET[0]):
        passed(check('reopen', NET[0]))


def test_dma_outside_the_map_is_stopped(vm, check):
    before = vm.faults()
    with at_vfio(vm, NET[0]):
        passed(check('fault', NET[0]))
    assert vm.faults() - before == {(NET[0], WILD)}


def test_device_writes_only_where_it_may(vm, check):
    before = vm.faults()
    with at_vfio(vm, NET[1]):
        passed(check('write', NET[1]))
    assert {(bdf, address & ~0xfff) for bdf, address in vm.faults() - before} == \
        {(NET[1], PAGE)}


def test_busy_function(vm, check):
    with at_vfio(vm, NET[0]):
        pid = vm.run('%s hold %s >/tmp/held 2>&1 & echo $!' % (CHECK, NET[0])).strip()
        try:
            vm.run('until grep -q held /tmp/held; do [ -d /proc/%s ] || exit 1; sleep 0.1; done'
                   % pid)
            status, output = check('open', NET[0], '300')
            assert status == 1
            assert output.startswith('Device or resource busy: ')
            assert 'vfio-check' in output or 'process' in output
        finally:
            vm.run('kill %s; while [ -d /proc/%s ]; do sleep 0.1; done' % (pid, pid))
        passed(check('open', NET[0], '300'))


def test_function_becomes_free_in_time(vm, check):
    with at_vfio(vm, NET[0]):
        pid = vm.run('%s hold %s >/tmp/held 2>&1 & echo $!' % (CHECK, NET[0])).strip()
        vm.run('until grep -q held /tmp/held; do [ -d /proc/%s ] || exit 1; sleep 0.1; done' % pid)
        vm.run('(sleep 1; kill %s) >/dev/null 2>&1 &' % pid)
        passed(check('open', NET[0], '10000'))


def test_function_that_the_kernel_wants_back(vm, check):
    with at_vfio(vm, NET[0]):
        vm.run('%s yield %s >/tmp/held 2>&1 & pid=$!; '
               'until grep -q held /tmp/held; do [ -d /proc/$pid ] || exit 1; sleep 0.1; done'
               % (CHECK, NET[0]))
        # waits in the kernel until the function is let go
        vm.run('echo %s >/sys/bus/pci/drivers/vfio-pci/unbind' % NET[0])
        vm.run('until grep -q yielded /tmp/held; do sleep 0.1; done')
        assert NET[0] not in vm.drivers()


def test_wrong_driver_and_wrong_group(vm, check):
    status, output = check('open', PAIR[0], '300')
    assert status == 1
    assert 'virtio-pci' in output and 'vfio-pci' in output
    vm.bind('-b', 'vfio-pci', PAIR[0])
    status, output = check('open', PAIR[0], '300')
    assert status == 1
    assert output.startswith('Operation not permitted: ')
    assert '%s (virtio-pci)' % PAIR[1] in output
    vm.bind('-b', 'none', PAIR[1])
    passed(check('open', PAIR[0], '300'))
    vm.bind('-b', 'vfio-pci', PAIR[1])
    passed(check('open', PAIR[0], '300'))
    vm.bind('-u', *PAIR)
    status, output = check('open', '0000:00:1e.0', '300')
    assert status == 1
    assert '0000:00:1e.0' in output


def test_what_the_kernel_refuses_hurts_nobody(vm, check):
    limit = vm.run('cat ' + LIMIT).strip()
    with at_vfio(vm, NET[0]):
        output = passed(check('limits', NET[0]))
        assert len(re.findall('^refused 0000:00:03.0', output, re.M)) == 2, output
        assert 'mapped 64' in output
        vm.run('echo 10 >' + LIMIT)
        output = passed(check('limits', NET[0]))
        vm.run('echo %s >%s' % (limit, LIMIT))
        # the arena is the other one
        assert 'mapped 9\n' in output
        assert 'dma_entry_limit' in output


def test_function_that_another_program_opened(vm, check):
    with at_vfio(vm, NET[0]):
        passed(check('adopt', NET[0]))


def test_vfs_and_their_token(vm, check):
    with at_vfio(vm, NVME):
        vm.run('echo 1 >/sys/module/vfio_pci/parameters/enable_sriov')
        passed(check('vfs', NVME))
    assert vm.functions(NVME)[NVME]['vfs'] == []
