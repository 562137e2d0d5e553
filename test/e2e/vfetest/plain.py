# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A guest of QEMU alone, without libvirt, that goes from one host of a pair to the other."""
import contextlib
import os
import time

from .controller import vf_mac
from .disk import Disk
from .guest import Nic
from .hosts import NETWORK, guest_address
from .load import make_migratable

SLOW = 8 << 20      # bytes per second: the migration takes some seconds
FAST = 1 << 40
MEM_MIB = 192
ENDS = ('completed', 'failed', 'cancelled')


class PlainGuest:
    """QEMU runs outside of the hosts' namespaces, on the sockets in their folders.

    client, disk_client: QEMU listens on those of its NICs and disks. hugepages: its memory is of
    MEM_MIB / 2 of them, twice while it migrates.
    """

    def __init__(self, pair, vfs=(0,), disks=(), client=True, disk_client=False, hugepages=False):
        self._pair = pair
        self._vfs = vfs
        self._disks = disks
        self._client = client
        self._disk_client = disk_client
        self._hugepages = hugepages
        self._serial = 0
        self._uri_path = pair.lab.path('qmp.sock')
        pair.provision(vfs, disks=disks, client=client, disk_client=disk_client)
        self.host = pair.a
        self.qemu = self._new(self.host)
        self._boot_id = None

    def _new(self, host, *extra):
        self._serial += 1
        return self._pair.lab.guest('qmp-%d' % self._serial, mem=MEM_MIB, hugepages=self._hugepages,
                                    nics=[Nic(host.path('net%d' % vf), vf_mac(vf),
                                              server=self._client) for vf in self._vfs],
                                    disks=[Disk(vf, host.path('blk%d' % vf),
                                                server=self._disk_client)
                                           for vf in self._disks], extra=extra)

    def boot(self):
        self.qemu.boot()
        self._boot_id = self.qemu.agent.ping(10)
        make_migratable(self.qemu)
        for index, vf in enumerate(self._vfs):
            self.qemu.configure(guest_address(vf) + '/24', index)
        self.check()

    def check(self):
        """It has not rebooted, has its traffic, and its kernel is content."""
        assert self.qemu.agent.ping(30) == self._boot_id
        for vf in self._vfs:
            self._pair.reach(guest_address(vf), 30)
            self.qemu.ping(NETWORK, timeout=30)
        self.qemu.check_kernel()

    # migration

    def begin(self, bandwidth=FAST):
        """Start a QEMU on the other host and have it take the guest; returns that QEMU."""
        host = self._pair.hosts.other(self.host)
        target = self._new(host, '-incoming', 'defer')
        target.start()
        uri = 'unix:' + self._uri_path
        target.qmp.command('migrate-incoming', uri=uri)
        self.qemu.qmp.command('migrate-set-parameters', max_bandwidth=bandwidth)
        self.qemu.qmp.command('migrate', uri=uri)
        return target

    def wait_active(self, timeout=30):
        """Memory is being copied."""
        self._wait(lambda s: s.get('ram', {}).get('transferred', 0) > 0, timeout)

    def wait_end(self, timeout=90):
        """Returns completed, failed or cancelled, and what QEMU tells of it."""
        status = self._wait(lambda s: s.get('status') in ENDS, timeout)
        return status['status'], status

    def _wait(self, done, timeout):
        end = time.monotonic() + timeout
        while True:
            status = self.qemu.qmp.command('query-migrate')
            if done(status):
                return status
            assert time.monotonic() < end, status
            time.sleep(0.05)

    def arrived(self, target):
        """The migration has completed: go on with the QEMU at the destination."""
        target.qmp.wait_event('RESUME', 30)
        self.qemu.quit()
        self.qemu.close()
        self.qemu = target
        self.host = self._pair.hosts.other(self.host)

    def stayed(self, target):
        """The migration has failed: the QEMU at the destination is of no use any more."""
        if target.process.alive:
            target.kill()
        target.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._uri_path)
        if self.qemu.qmp.command('query-status')['status'] != 'running':
            # libvirt does that when QEMU gave up after it had stopped the guest
            self.qemu.qmp.command('cont')

    def migrate(self):
        """Migrate; returns what QEMU tells of it."""
        target = self.begin()
        how, status = self.wait_end()
        assert how == 'completed', status
        self.arrived(target)
        return status

    def close(self):
        if self.qemu.process is not None and self.qemu.process.alive:
            self.qemu.quit()
        self.qemu.close()
