# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Migration by QEMU itself, without libvirt, and migrations that fail."""
import contextlib
import time

import pytest

from vfetest.controller import vf_bdf
from vfetest.crowd import Crowd
from vfetest.hosts import guest_address
from vfetest.hugepages import hugepages
from vfetest.plain import FAST, MEM_MIB, SLOW, PlainGuest

# enough for the 256 descriptors of the admin queue, 3 for a command
CROWD = range(3, 3 + 256 // 3)
# between the 2 s that a command of dirty tracking waits for room, and the 10 s of any other
CROWDED_MS = 8000


@pytest.fixture
def guest(pair):
    """A running guest on host A."""
    pair.end_guest()
    with contextlib.closing(PlainGuest(pair)) as the_guest:
        the_guest.boot()
        yield the_guest


def check_later_migration(guest):
    """Whatever has failed: the guest is well, and migrates now."""
    guest.check()
    guest.migrate()
    guest.check()


def there_and_back(pair, guest, note):
    ping = pair.ping_address(guest_address(0))
    for _ in range(2):
        note('downtime %d ms as QEMU tells it' % guest.migrate()['downtime'])
    note('longest pause of a ping %.0f ms' % ping.stop())
    guest.check()


def test_there_and_back_by_qmp(pair, guest, note):
    there_and_back(pair, guest, note)


def test_memory_of_hugepages(pair, note):
    pair.end_guest()
    with hugepages(2 * MEM_MIB // 2) as there, contextlib.ExitStack() as stack:
        if not there:
            pytest.skip('no room for %d MiB of huge pages' % (2 * MEM_MIB))
        guest = stack.enter_context(contextlib.closing(PlainGuest(pair, hugepages=True)))
        guest.boot()
        with open('/proc/%d/smaps' % guest.qemu.process.pid) as f:
            assert any(line.startswith('KernelPageSize:') and line.split()[1] == '2048'
                       for line in f)
        there_and_back(pair, guest, note)


def test_cancelled(guest):
    target = guest.begin(SLOW)
    guest.wait_active()
    guest.qemu.qmp.command('migrate_cancel')
    assert guest.wait_end()[0] == 'cancelled'
    guest.stayed(target)
    check_later_migration(guest)


def test_destination_qemu_is_killed(guest):
    target = guest.begin(SLOW)
    guest.wait_active()
    target.kill()
    assert guest.wait_end()[0] == 'failed'
    guest.stayed(target)
    check_later_migration(guest)


def end(guest, target):
    """A migration that was disturbed ends one way or the other; the guest is well then."""
    guest.qemu.qmp.command('migrate-set-parameters', max_bandwidth=FAST)
    how, _ = guest.wait_end()
    if how == 'completed':
        guest.arrived(target)
    else:
        guest.stayed(target)
    check_later_migration(guest)
    return how


@pytest.mark.parametrize('how', ['stop', 'kill'])
@pytest.mark.parametrize('side', ['source', 'destination'])
def test_service_is_restarted_meanwhile(pair, guest, note, side, how):
    host = guest.host if side == 'source' else pair.hosts.other(guest.host)
    target = guest.begin(SLOW)
    guest.wait_active()
    getattr(host.service, how)()
    pair.restart_service(host)
    note('the migration ' + end(guest, target))


@pytest.mark.parametrize('side', ['source', 'destination'])
def test_controller_is_restarted_meanwhile(pair, guest, note, side):
    host = guest.host if side == 'source' else pair.hosts.other(guest.host)
    target = guest.begin(SLOW)
    guest.wait_active()
    host.controller.kill()
    pair.restart_controller(host)
    note('the migration ' + end(guest, target))


def wait_tracking_fails(host, timeout=15):
    """Returns what vf -i gives as the reason."""
    end = time.monotonic() + timeout
    while True:
        dirty = host.info(0)['migration']['dirty']
        if dirty['last_error']:
            return dirty
        assert time.monotonic() < end, dirty
        time.sleep(0.2)


def test_no_room_in_the_admin_queue(guest, note):
    """Dirty pages cannot be tracked: all memory stays dirty, and the operator gives up."""
    source = guest.host
    with contextlib.closing(Crowd(source, CROWD)) as crowd:
        crowd.arrive(CROWDED_MS)
        begin = time.monotonic()
        target = guest.begin(SLOW)
        guest.wait_active()
        dirty = wait_tracking_fails(source)
        note('told after %.1f s: %s' % (time.monotonic() - begin, dirty['last_error']))
        assert dirty['last_error'].endswith('no room in the queue before the deadline')
        assert dirty['mode'] == 'all'
        source.service.process.wait_line(
            '%s: dirty pages are not tracked, all memory is marked: .*no room in the queue'
            % vf_bdf(0))
        guest.check()
        guest.qemu.qmp.command('migrate_cancel')
        assert guest.wait_end()[0] == 'cancelled'
        guest.stayed(target)
        guest.check()
        crowd.relieve()
    assert source.info(0)['state'] == 'running'
    check_later_migration(guest)
