# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The service inside the VM: what it says of kernel functions, and a DPDK front-end on it."""
import json
import re

import pytest

from vm import NET, NVME, PAIR

MGMT = 'python3 /vfe/app/vfe-vdpa/vhostmgmt '
SERVICE = '/vfe/build/app/dpdk-vfe-vdpa -a 0000:00:00.0 --no-huge -m 64 -- --client'
CONTROLLER = '/vfe/build/app/virtio-net-controller --config /tmp/controller.json'
SOFT_PF = '0000:af:00.2'
SOFT_VF = '0000:af:04.5'
FRONT = '/tmp/front.sock'
FRONT_END = ('timeout -s INT 10 dpdk-testpmd --lcores 0@0,1@0 --no-huge --no-pci --no-telemetry '
             '--single-file-segments -m 128 --file-prefix front '
             '--vdev net_virtio_user0,path=%s,server=1,queues=1 -- '
             '--total-num-mbufs=2048 --stats-period=5 --tx-first --forward-mode=io')


class Daemon:
    """A program of ours in the VM."""

    def __init__(self, vm, command, ready):
        self._vm = vm
        self._name = command.split()[0].rsplit('/', 1)[1]
        self._log = '/tmp/%s.log' % self._name
        vm.run('mkdir -p /run/vfe/pci; rm -f %s.status; (%s >%s 2>&1; echo $? >%s.status) '
               '</dev/null >/dev/null 2>&1 &' % (self._log, command, self._log, self._log))
        vm.run('until [ -S %s ]; do [ ! -e %s.status ] || { cat %s; exit 1; }; sleep 0.1; done'
               % (ready, self._log, self._log), 30)

    def log(self):
        return self._vm.run('cat ' + self._log)

    def stop(self):
        """SIGTERM, and it ends in order."""
        self._vm.run('kill $(pidof %s) && until [ -e %s.status ]; do sleep 0.1; done'
                     % (self._name, self._log))
        status = self._vm.run('cat %s.status' % self._log).strip()
        assert status == '0', self.log()

    def files(self):
        """Files below /dev/vfio that it has open, but for the container of EAL."""
        found = self._vm.run('readlink /proc/$(pidof %s)/fd/* || true' % self._name).split('\n')
        return [path for path in found if re.match('/dev/vfio/[0-9]', path)]


@pytest.fixture
def service(vm):
    daemon = Daemon(vm, SERVICE, '/run/vfe/vhostd.sock')
    yield daemon
    daemon.stop()


def refused(vm, *argv):
    """The text with which the service refuses."""
    status, output = vm.agent.run(MGMT + ' '.join(argv))
    assert status == 1, output
    return json.loads(output[:output.index('\n}') + 2])['errstr']


def test_kernel_functions_that_are_no_pf(vm, service):
    text = refused(vm, 'mgmtpf', '-a', NET[0])
    assert 'is bound to virtio-pci' in text
    # the remedy of the text works
    vm.run('cd /vfe && python3 ' + re.search(r'scripts/bind .*', text).group(0))
    assert 'admin queue' in refused(vm, 'mgmtpf', '-a', NET[0])
    vm.bind('-b', 'vfio-pci', NVME, PAIR[0])
    assert '1b36:0010 is not' in refused(vm, 'mgmtpf', '-a', NVME)
    text = refused(vm, 'mgmtpf', '-a', PAIR[0])
    assert '%s (virtio-pci)' % PAIR[1] in text
    # nothing of them is held
    assert service.files() == []
    assert vm.bind('-u', NET[0], NVME, PAIR[0]) == ''


def test_front_end_on_the_service(vm, service):
    """What the front-end sends goes round: it forwards what comes back."""
    config = {'static_pf': {'mac_base': '0C:C4:7A:FF:22:90'},
              'vf': {'mac_base': '00:00:00:00:33:00', 'vfs_per_pf': 1, 'qp_num': 1},
              'software_dpu': {'dir': '/run/vfe/pci', 'rpc_socket': '/run/vfe/controller.sock',
                               'pfs': [{'bdf': SOFT_PF, 'type': 'net', 'first_vf': SOFT_VF,
                                        'vfs': {'0': {'backend': {'type': 'loopback'}}}}]}}
    vm.run("echo '%s' >/tmp/controller.json" % json.dumps(config))
    controller = Daemon(vm, CONTROLLER, '/run/vfe/controller.sock')
    vm.run(MGMT + 'mgmtpf -a ' + SOFT_PF)
    vm.run(MGMT + 'vf -a %s -v %s' % (SOFT_VF, FRONT))
    output = vm.run(FRONT_END % FRONT, 40)
    packets = dict(re.findall(r'(RX|TX)-packets: (\d+) ', output.split('Accumulated')[1]))
    # more than the first burst: they have been round
    assert int(packets['RX']) > 64 and int(packets['TX']) > 64, output
    vm.run(MGMT + 'vf -r ' + SOFT_VF)
    vm.run(MGMT + 'mgmtpf -r ' + SOFT_PF)
    controller.stop()
