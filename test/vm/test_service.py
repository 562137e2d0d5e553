# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The service inside the VM: on functions of the kernel, and what it says of those it refuses."""
import json
import re

import pytest

from programs import MGMT, Daemon, Pmd
from vm import GATEWAY, NET, NVME, PAIR, WIRE

CONTROLLER = '/vfe/build/app/virtio-net-controller --config /tmp/controller.json'
SOFT_PF = '0000:af:00.2'
SOFT_VF = '0000:af:04.5'
FRONT = '/tmp/front.sock'
UUIDS = ('6f0c3a52-8c1e-4f1c-9d6b-5b6b0f2f8d31', '6f0c3a52-8c1e-4f1c-9d6b-5b6b0f2f8d32')
HOST = '10.8.0.1'
GUEST = '10.8.0.2'
PINGS = 20


def ping_guest(vm, count=PINGS):
    """The kernel checks what comes back, and its own function is at the other end of the wire."""
    output = vm.run('ping -c %d -i 0.05 -s 1000 -W 5 %s' % (count, GUEST), 60)
    assert '%d packets transmitted, %d packets received' % (count, count) in output


@pytest.fixture
def at_vfio(vm):
    """Binds functions to vfio-pci; they are given back at the end."""
    bound = []

    def bind(*devices):
        bound.extend(devices)
        vm.bind('-b', 'vfio-pci', *devices)
    yield bind
    if bound:
        assert vm.bind('-u', *bound) == ''


def test_kernel_function_from_binding_to_giving_back(vm, at_vfio, service):
    """Traffic of a DPDK front-end through a function of the kernel to another one."""
    at_vfio(*PAIR)
    service.manage('vf', '-a', PAIR[0], '-v', FRONT, '--plain')
    vm.up(WIRE, HOST + '/24')
    pid = service.pid()
    for kill in (True, False):
        front = Pmd(vm, FRONT, 'icmpecho')
        info = service.info(PAIR[0])
        assert (info['transport'], info['drive'], info['state']) == ('vfio', 'plain', 'running')
        ping_guest(vm)
        if kill:
            front.end('KILL')
            continue
        packets = front.packets()
        assert packets['RX'] >= PINGS and packets['TX'] >= PINGS, packets
    vm.down(WIRE)
    assert service.pid() == pid
    assert service.info(PAIR[0])['last_error'] == ''
    # taking it away is refused while the service has it, and the text says how
    status, output = vm.bind('-u', PAIR[0], check=False)
    assert status == 1 and 'dpdk-vfe-vdpa (pid %s)' % pid in output, output
    service.manage('vf', '-r', PAIR[0])
    assert service.files() == []
    vm.bind('-u', *PAIR)
    vm.up(PAIR[0])
    vm.ping(GATEWAY)
    vm.down(PAIR[0])


def test_kernel_functions_that_are_no_pf(vm, service, at_vfio):
    text = service.refused('mgmtpf', '-a', NET[0])
    assert 'is bound to virtio-pci' in text
    # the remedy of the text works
    vm.run('cd /vfe && python3 ' + re.search(r'scripts/bind .*', text).group(0))
    at_vfio(NET[0], NVME, PAIR[0])
    assert 'admin queue' in service.refused('mgmtpf', '-a', NET[0])
    assert '1b36:0010 is not' in service.refused('mgmtpf', '-a', NVME)
    text = service.refused('mgmtpf', '-a', PAIR[0])
    assert '%s (virtio-pci)' % PAIR[1] in text
    # nothing of them is held
    assert service.files() == []


def test_no_vfs_are_left_of_a_pf_that_is_refused(vm, service, at_vfio):
    at_vfio(NVME)
    vm.run('echo 0 >/sys/module/vfio_pci/parameters/enable_sriov')
    text = service.refused('mgmtpf', '-a', NVME, '--num-vfs', '2')
    # the remedy of the text works; they come, and go when the PF turns out to be none of ours
    vm.run(re.search(r'echo 1 > \S+', text).group(0))
    assert '1b36:0010 is not' in service.refused('mgmtpf', '-a', NVME, '--num-vfs', '2')
    assert vm.functions(NVME)[NVME]['vfs'] == []
    vf = vm.bind('-n', '2', NVME).split()[0]
    assert 'it is no virtio function' in service.refused('vf', '-a', vf, '--plain')
    vm.bind('-n', '0', NVME)
    assert service.files() == []


def test_functions_that_cannot_be_added(vm, service, at_vfio):
    text = service.refused('vf', '-a', NET[0], '--plain')
    vm.run('cd /vfe && python3 ' + re.search(r'scripts/bind .*', text).group(0))
    at_vfio(NET[0], PAIR[0])
    assert '%s (virtio-pci)' % PAIR[1] in service.refused('vf', '-a', PAIR[0], '--plain')
    at_vfio(PAIR[1])
    service.manage('vf', '-a', PAIR[0], '-u', UUIDS[0])
    assert 'shares IOMMU group' in service.refused('vf', '-a', PAIR[1], '-u', UUIDS[1])
    assert 'shares IOMMU group' in service.refused('vf', '-a', PAIR[1])
    service.manage('vf', '-a', PAIR[1], '-u', UUIDS[0])
    # one domain: the group is open once
    files = service.files()
    assert len(files) == 3 and len(set(files)) == 2, files
    service.manage('vf', '-r', PAIR[0])
    service.manage('vf', '-r', PAIR[1])
    # the group is free for another VM
    service.manage('vf', '-a', PAIR[1], '-u', UUIDS[1])
    service.manage('vf', '-r', PAIR[1])
    assert service.files() == []


def test_busy_group(vm, service, at_vfio):
    at_vfio(NET[0])
    pid = vm.run('/vfe/build/test/vm/vfio-check hold %s >/tmp/held 2>&1 & echo $!'
                 % NET[0]).strip()
    try:
        vm.run('until grep -q held /tmp/held; do [ -d /proc/%s ] || exit 1; sleep 0.1; done' % pid)
        text = service.refused('vf', '-a', NET[0], '--plain')
        assert 'busy' in text and 'vfio-check' in text, text
    finally:
        vm.run('kill %s; while [ -d /proc/%s ]; do sleep 0.1; done' % (pid, pid))
    service.manage('vf', '-a', NET[0], '--plain')
    service.manage('vf', '-r', NET[0])


def test_software_dpu_in_the_vm(vm, service):
    """What the front-end sends goes round: it forwards what comes back."""
    config = {'static_pf': {'mac_base': '0C:C4:7A:FF:22:90'},
              'vf': {'mac_base': '00:00:00:00:33:00', 'vfs_per_pf': 1, 'qp_num': 1},
              'software_dpu': {'dir': '/run/vfe/pci', 'rpc_socket': '/run/vfe/controller.sock',
                               'pfs': [{'bdf': SOFT_PF, 'type': 'net', 'first_vf': SOFT_VF,
                                        'vfs': {'0': {'backend': {'type': 'loopback'}}}}]}}
    vm.run("echo '%s' >/tmp/controller.json" % json.dumps(config))
    controller = Daemon(vm, CONTROLLER, '[ -S /run/vfe/controller.sock ]')
    vm.run(MGMT + 'mgmtpf -a ' + SOFT_PF)
    vm.run(MGMT + 'vf -a %s -v %s' % (SOFT_VF, FRONT))
    front = Pmd(vm, FRONT, 'io', ' --tx-first')
    vm.run('until grep -q "RX-packets: [1-9]" /tmp/dpdk-testpmd.log; do sleep 0.1; done', 20)
    packets = front.packets()
    # more than the first burst: they have been round
    assert packets['RX'] > 64 and packets['TX'] > 64, packets
    vm.run(MGMT + 'vf -r ' + SOFT_VF)
    vm.run(MGMT + 'mgmtpf -r ' + SOFT_PF)
    controller.stop()
