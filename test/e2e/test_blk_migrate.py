# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""virsh migrate --live with disks of libvirt's type vhostuser on an image that both hosts have."""
import contextlib
import itertools
import json
import os
import time

import pytest

from vfetest.controller import disk_bdf, disk_name
from vfetest.disk import MIB
from vfetest.hosts import guest_address
from vfetest.libvirt import VirshError
from vfetest.load import DiskLoad
from vfetest.plain import FAST, SLOW, PlainGuest

LONG = bool(os.environ.get('VFE_LONG'))
ROUND_TRIPS = 10 if LONG else 5
VM_UUID = '5e1ec7ed-0000-4000-8000-000000000003'
HOSTS = {'disks': [{}, {'force_in_order': True}]}
OUTAGE_MS = 8000
# QEMU needs a CPU to copy memory, and the guest one for "switches"
PAUSE_MS = 100


def there_and_back(pair, guest, loads, note, trips):
    downtimes = []
    for _ in range(2 * trips):
        for load in loads:
            load.wait_more()
        downtimes.append(guest.migrate()['downtime'])
    loads[-1].wait_more()
    pauses = [load.stop() for load in loads]
    note('%d migrations: downtime %s ms as libvirt tells it, longest pause of the disks %s ms, '
         '%d writes' % (len(downtimes), ' '.join(str(d) for d in downtimes),
                        ' '.join(str(p) for p in pauses), sum(x.sums['writes'] for x in loads)))
    assert max(pauses) < OUTAGE_MS


def test_disk_under_load(pair, note):
    guest = pair.guest(vfs=(), disks=(0,))
    there_and_back(pair, guest, [DiskLoad(guest, pause_ms=PAUSE_MS)], note, ROUND_TRIPS)
    pair.check(guest)


def test_disk_of_the_destination_does_not_fit(pair):
    """It is told before anything happens to the guest."""
    guest = pair.guest(vfs=(), disks=(0,))
    load = DiskLoad(guest, pause_ms=PAUSE_MS)
    source, target = guest.host, pair.hosts.other(guest.host)
    size = os.stat(pair.lab.path('disk0.img')).st_size

    def refused(*words):
        with pytest.raises(VirshError) as error:
            guest.migrate()
        assert 'Disk vda: ' in str(error.value)
        for word in words:
            assert word in str(error.value)
        guest.connect()
        load.wait_more()
        assert guest.host is source

    # one DPU does not know yet that the disk has grown
    os.truncate(pair.lab.path('disk0.img'), size + MIB)
    source.controller.call('bdev_aio_rescan', name=disk_name(0))
    guest.set_profiles("<profile disk='vda'>%s</profile>" % json.dumps(
        source.service.vhostmgmt('vf', '--profile', disk_bdf(0))))
    refused('VF %s on %s does not fit' % (disk_bdf(0), target.disk_socket(0)),
            'has %d bytes at the source and only %d here' % (size + MIB, size))
    target.controller.call('bdev_aio_rescan', name=disk_name(0))
    target.remove_disk(0)
    refused('No VF of this host has the socket ' + target.disk_socket(0))
    target.add_disk(0, client=True)
    refused('both connect to the socket: add the VF with --server')
    target.remove_disk(0)
    target.add_disk(0)
    guest.migrate()
    load.wait_more()
    assert load.stop() < OUTAGE_MS
    pair.check(guest)


def test_disks_and_a_nic_under_load(pair, note):
    """They share one address space, and are stopped together."""
    guest = pair.guest(disks=(0, 1), uuid=VM_UUID)
    stream = pair.stream(guest)
    loads = [DiskLoad(guest, vf, key=vf, pause_ms=PAUSE_MS) for vf in (0, 1)]
    there_and_back(pair, guest, loads, note, ROUND_TRIPS if LONG else 1)
    assert stream.stop() < OUTAGE_MS
    pair.check(guest)


def test_disk_on_whose_socket_qemu_listens(pair, note):
    """QEMU connects to that of its NIC, in the same services."""
    pair.end_guest()
    with contextlib.closing(PlainGuest(pair, disks=(0,), client=False, disk_client=True)) as guest:
        guest.boot()
        for host in pair.hosts:
            assert host.disk_info(0)['socket_role'] == 'client'
            assert host.info(0)['socket_role'] == 'server'
        ping = pair.ping_address(guest_address(0))
        load = DiskLoad(guest.qemu, pause_ms=PAUSE_MS)
        downtimes = []
        for _ in range(2):
            load.wait_more()
            downtimes.append(guest.migrate()['downtime'])
            load.follow(guest.qemu)
        load.wait_more()
        pauses = [load.stop(), ping.stop()]
        guest.check()
    note('downtime %s ms as QEMU tells it, longest pause of the disk %d ms, of a ping %.0f ms'
         % (downtimes, *pauses))
    assert max(pauses) < OUTAGE_MS


@pytest.fixture
def plain(pair):
    """A guest of QEMU alone on host A, with a disk that completes in order."""
    pair.end_guest()
    with contextlib.closing(PlainGuest(pair, vfs=(), disks=(1,))) as guest:
        guest.boot()
        yield guest


def disturb(pair, plain, part, side):
    """What happens in the middle of a migration."""
    if part == 'nothing':
        plain.qemu.qmp.command('migrate_cancel')
        return
    host = plain.host if side == 'source' else pair.hosts.other(plain.host)
    getattr(host, part).kill()
    getattr(pair, 'restart_' + part)(host)
    if side == 'destination':
        # if there is no connection at the switch QEMU 7.2 gives up the disk (doc/limits.md)
        wait_connected(host)


def wait_connected(host, timeout=30):
    end = time.monotonic() + timeout
    while not host.disk_info(1)['connected']:
        assert time.monotonic() < end, 'QEMU does not connect to the service again'
        time.sleep(0.05)


def test_migrations_that_are_disturbed(pair, plain, note):
    """They end one way or the other; nothing is lost."""
    load = DiskLoad(plain.qemu, vf=1, pause_ms=PAUSE_MS)
    ends = []
    for part, side in [('nothing', 'source'), *itertools.product(
            ('service', 'controller'), ('source', 'destination'))] * (5 if LONG else 1):
        load.wait_more()
        target = plain.begin(SLOW)
        plain.wait_active()
        disturb(pair, plain, part, side)
        plain.qemu.qmp.command('migrate-set-parameters', max_bandwidth=FAST)
        how, _ = plain.wait_end()
        if how == 'completed':
            plain.arrived(target)
        else:
            plain.stayed(target)
        load.follow(plain.qemu)
        load.wait_more()
        plain.check()
        ends.append('%s %s: %s' % (part, side, how))
    note('%s; longest pause of the disk %d ms' % (', '.join(ends), load.stop()))
