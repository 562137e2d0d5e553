# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Programs in the VM: the service and its command line, the software DPU, DPDK's testpmd."""
import json
import re

MGMT = 'python3 /vfe/app/vfe-vdpa/vhostmgmt '
SERVICE = '/vfe/build/app/dpdk-vfe-vdpa -a 0000:00:00.0 --no-huge -m 64 -- --client'
READY_TIMEOUT = 90
SERVICE_READY = '/run/vfe/vhostd.sock'
PMD = ('dpdk-testpmd --lcores 0@0,1@0 --no-huge --no-pci --no-telemetry '
       '--single-file-segments -m 128 --file-prefix front '
       '--vdev net_virtio_user0,path=%s,server=1,queues=1 -- '
       '--total-num-mbufs=2048 --stats-period=1 --forward-mode=%s%s')


class Daemon:
    """A program that runs in the background until it is stopped."""

    def __init__(self, vm, command, ready):
        """Returns when @ready, a shell condition, is true."""
        self._vm = vm
        self.name = command.split()[0].rsplit('/', 1)[-1]
        self._log = '/tmp/%s.log' % self.name
        vm.run('mkdir -p /run/vfe/pci; rm -f %s.status; (%s >%s 2>&1; echo $? >%s.status) '
               '</dev/null >/dev/null 2>&1 &' % (self._log, command, self._log, self._log))
        vm.run('until %s; do [ ! -e %s.status ] || { cat %s; exit 1; }; sleep 0.1; done'
               % (ready.replace('LOG', self._log), self._log, self._log), READY_TIMEOUT)

    def log(self):
        return self._vm.run('cat ' + self._log)

    def pid(self):
        return self._vm.run('pidof ' + self.name).strip()

    def end(self, signal='TERM'):
        """Send a signal; returns the exit status."""
        self._vm.run('kill -%s $(pidof %s) && until [ -e %s.status ]; do sleep 0.1; done'
                     % (signal, self.name, self._log))
        return int(self._vm.run('cat %s.status' % self._log))

    def stop(self):
        """SIGTERM, and it ends in order."""
        assert self.end() == 0, self.log()


class Service(Daemon):
    """dpdk-vfe-vdpa."""

    def __init__(self, vm, command=SERVICE):
        super().__init__(vm, command, '[ -S %s ]' % SERVICE_READY)

    def manage(self, *argv):
        """Run vhostmgmt; returns what the service answers."""
        return json.loads(self._vm.run(MGMT + ' '.join(argv)))

    def info(self, bdf):
        return self.manage('vf', '-i', bdf)['device']

    def refused(self, *argv):
        """The text with which the service refuses."""
        status, output = self._vm.agent.run(MGMT + ' '.join(argv))
        assert status == 1, output
        return json.loads(output[:output.index('\n}') + 2])['errstr']

    def files(self):
        """Groups and functions that it has open."""
        found = re.findall(r' -> (/dev/vfio/(?:noiommu-)?\d+|anon_inode:\[vfio-device\])$',
                           self._vm.run('ls -l /proc/%s/fd' % self.pid()), re.M)
        return sorted(found)


class Pmd(Daemon):
    """A DPDK front-end that listens at @path. It is ready when the service has come."""

    def __init__(self, vm, path, mode, options=''):
        vm.run('rm -f ' + path)
        super().__init__(vm, PMD % (path, mode, options), 'grep -q "Port statistics" LOG')

    def packets(self):
        """End it; returns what it has counted as {'RX': n, 'TX': n}."""
        self.end('INT')
        output = self.log()
        found = re.findall(r'(RX|TX)-packets: (\d+) ', output.split('Accumulated')[1])
        return {way: int(n) for way, n in found}
