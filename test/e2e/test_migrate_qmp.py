# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Migration by QEMU itself, without libvirt, and migrations that fail."""
import contextlib

import pytest

from vfetest.hosts import guest_address
from vfetest.plain import FAST, SLOW, PlainGuest


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


def test_there_and_back_by_qmp(pair, guest, note):
    ping = pair.ping_address(guest_address(0))
    for _ in range(2):
        note('downtime %d ms as QEMU tells it' % guest.migrate()['downtime'])
    note('longest pause of a ping %.0f ms' % ping.stop())
    guest.check()


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
