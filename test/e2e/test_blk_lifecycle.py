# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""QEMU, service and controller come and go below a disk that is written: nothing is lost."""
import os
import time

import pytest

from vfetest.disk import MIB
from vfetest.load import DiskLoad, check_disk

WRITES = 200
TIMEOUT = 20
CYCLES = 10 if os.environ.get('VFE_LONG') else 1
ROLES = pytest.mark.parametrize('client', [True, False], ids=['qemu-listens', 'service-listens'])


def wait(done):
    end = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def finish(guest, load, note):
    load.wait_more(WRITES)
    note('longest pause %d ms, %d writes' % (load.stop(), load.sums['writes']))
    guest.check_kernel()


def test_qemu_is_killed_and_started_again(make_stack):
    stack = make_stack({}, {})
    guest = stack.disk_guest(0, 1)
    disk = guest.block_device(1)
    guest.run('/sbin/mke2fs -q -t ext4 %s && mkdir /mnt && mount -t ext4 %s /mnt && '
              'head -c 4000000 /dev/urandom >/mnt/file && sync' % (disk, disk), 60)
    digest = guest.run('sha256sum /mnt/file')
    load = DiskLoad(guest)
    guest.run('(while :; do cp /mnt/file /mnt/other; done) >/dev/null 2>&1 &')
    load.wait_more(WRITES)
    guest.kill()
    guest.boot()
    assert check_disk(guest) > WRITES
    guest.run('mkdir /mnt && mount -t ext4 %s /mnt' % guest.block_device(1))
    assert guest.run('sha256sum /mnt/file') == digest
    guest.check_kernel()


@ROLES
def test_service_restarts_under_load(make_stack, note, client):
    stack = make_stack({}, client=client)
    guest = stack.disk_guest()
    load = DiskLoad(guest)
    for how in ('kill', 'stop') * CYCLES:
        load.wait_more(WRITES)
        getattr(stack.service, how)()
        stack.start_service()
        stack.add_disk()
    finish(guest, load, note)


def test_vf_is_removed_and_added_under_load(make_stack, note):
    stack = make_stack({})
    guest = stack.disk_guest()
    load = DiskLoad(guest)
    for _ in range(2 * CYCLES):
        load.wait_more(WRITES)
        stack.remove_disk()
        stack.add_disk()
    finish(guest, load, note)


def test_controller_restarts_under_load(make_stack, note):
    stack = make_stack({'force_in_order': True})
    guest = stack.disk_guest(queues=2, cpus=2)
    load = DiskLoad(guest)
    for how in ('kill', 'kill', 'stop') * CYCLES:
        load.wait_more(WRITES)
        getattr(stack.controller, how)()
        stack.controller.start()
    finish(guest, load, note)


def test_requests_of_a_dead_controller_that_nobody_knows(make_stack):
    """Out of order: they are not done again, and the guest has its disk again after a reset."""
    stack = make_stack({})
    guest = stack.disk_guest()
    load = DiskLoad(guest)
    load.wait_more(WRITES)
    stack.controller.inject(0, 'hold', sector=0, sectors=MIB // 512)
    load.wait_more(WRITES)
    wait(lambda: stack.controller.disk(0)['queues'][0]['in_flight'] > 0)
    stack.controller.kill()
    stack.controller.start()
    wait(lambda: 'in flight' in stack.disk_info()['last_error'])
    guest.qmp.command('system_reset')
    guest.wait_boot()
    assert check_disk(guest) > WRITES
    load = DiskLoad(guest, key=2)
    load.wait_more(WRITES)
    load.stop()


def test_guest_is_stopped_and_its_memory_grows_under_load(make_stack, note):
    """The VF is stopped in between, and goes on where it was."""
    stack = make_stack({})
    guest = stack.disk_guest(queues=2, cpus=2, extra=['-m', 'slots=2,maxmem=1G'])
    load = DiskLoad(guest)
    for index in range(2):
        load.wait_more(WRITES)
        guest.qmp.command('stop')
        guest.qmp.command('cont')
        load.wait_more(WRITES)
        guest.qmp.command('object-add', qom_type='memory-backend-memfd', id='more%d' % index,
                          size=MIB << 7, share=True)
        guest.qmp.command('device_add', driver='pc-dimm', id='dimm%d' % index,
                          memdev='more%d' % index)
    finish(guest, load, note)


def test_driver_leaves_requests_behind(make_stack):
    """Reboots and unbinds under load; what the device had in hand does not come back later."""
    stack = make_stack({'force_in_order': True})
    guest = stack.disk_guest()
    load = DiskLoad(guest)
    load.wait_more(WRITES)
    guest.reboot()
    assert check_disk(guest) > WRITES
    load = DiskLoad(guest, key=2)
    load.wait_more(WRITES)
    address = guest.run('basename $(readlink -f /sys/block/vda/device/..)').strip()
    driver = '/sys/bus/pci/drivers/virtio-pci'
    guest.run('echo %s >%s/unbind; killall blkverify; echo %s >%s/bind'
              % (address, driver, address, driver))
    load = DiskLoad(guest, key=3)
    load.wait_more(WRITES)
    load.stop()
    guest.check_kernel()
