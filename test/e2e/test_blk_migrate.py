# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""virsh migrate --live with disks of libvirt's type vhostuser on an image that both hosts have."""
import contextlib
import itertools
import os
import time

import pytest

from vfetest.load import DiskLoad
from vfetest.plain import FAST, SLOW, PlainGuest

LONG = bool(os.environ.get('VFE_LONG'))
ROUND_TRIPS = 10 if LONG else 5
VM_UUID = '5e1ec7ed-0000-4000-8000-000000000003'
HOSTS = {'client': False, 'disks': [{}, {'force_in_order': True}]}
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


def test_disks_and_a_nic_under_load(pair, note):
    """They share one address space, and are stopped together."""
    guest = pair.guest(disks=(0, 1), uuid=VM_UUID)
    stream = pair.stream(guest)
    loads = [DiskLoad(guest, vf, key=vf, pause_ms=PAUSE_MS) for vf in (0, 1)]
    there_and_back(pair, guest, loads, note, ROUND_TRIPS if LONG else 1)
    assert stream.stop() < OUTAGE_MS
    pair.check(guest)


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
