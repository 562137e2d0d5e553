# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Migration by QEMU itself, without libvirt."""
import os
import time

from vfetest import Nic
from vfetest.controller import vf_mac
from vfetest.hosts import NETWORK, guest_address


def qemu(pair, host, name, *extra):
    """A guest that is not started; QEMU runs outside of the host's namespaces, on its sockets."""
    return pair.lab.guest(name, mem=192, nics=[Nic(host.path('net0'), vf_mac(0))], extra=extra)


def wait_status(source, expected, timeout=60):
    end = time.monotonic() + timeout
    while True:
        status = source.qmp.command('query-migrate')
        if status.get('status') == expected:
            return status
        assert status.get('status') not in ('failed', 'completed', 'cancelled'), status
        assert time.monotonic() < end, status
        time.sleep(0.05)


def migrate(pair, source, target):
    uri = 'unix:' + pair.lab.path('qmp.sock')
    target.start()
    target.qmp.command('migrate-incoming', uri=uri)
    source.qmp.command('migrate', uri=uri)
    status = wait_status(source, 'completed')
    target.qmp.wait_event('RESUME', 30)
    source.quit()
    source.close()
    target.agent.ping(30)
    return status


def test_there_and_back_by_qmp(pair, note):
    pair.provision([0])
    guest = qemu(pair, pair.a, 'qmp-1')
    guest.boot()
    boot_id = guest.agent.ping(10)
    guest.configure(guest_address(0) + '/24')
    guest.ping(NETWORK)
    ping = pair.ping_address(guest_address(0))
    for number, host in ((2, pair.b), (3, pair.a)):
        target = qemu(pair, host, 'qmp-%d' % number, '-incoming', 'defer')
        status = migrate(pair, guest, target)
        note('downtime %d ms as QEMU tells it' % status['downtime'])
        guest = target
    note('longest pause of a ping %.0f ms' % ping.stop())
    assert guest.agent.ping(10) == boot_id
    guest.ping(NETWORK)
    guest.check_kernel()
    guest.quit()
    guest.close()


def test_cancelled_by_qmp(pair):
    pair.provision([0])
    guest = qemu(pair, pair.a, 'qmp-4')
    guest.boot()
    guest.configure(guest_address(0) + '/24')
    target = qemu(pair, pair.b, 'qmp-5', '-incoming', 'defer')
    target.start()
    uri = 'unix:' + pair.lab.path('qmp.sock')
    target.qmp.command('migrate-incoming', uri=uri)
    guest.qmp.command('migrate-set-parameters', max_bandwidth=8 << 20)
    guest.qmp.command('migrate', uri=uri)
    wait_status(guest, 'active')
    guest.qmp.command('migrate_cancel')
    wait_status(guest, 'cancelled')
    target.kill()
    target.close()
    os.unlink(pair.lab.path('qmp.sock'))
    guest.ping(NETWORK)
    guest.check_kernel()
    guest.quit()
    guest.close()
