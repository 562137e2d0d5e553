# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""virsh migrate --live there and back: nothing is lost, whatever the guest does meanwhile."""
import contextlib
import os

import pytest

from vfetest import AgentError
from vfetest.hosts import guest_address
from vfetest.libvirt import VirshError
from vfetest.load import Background, make_migratable
from vfetest.scribble import SCRIBBLE_VF, Scribble

LONG = bool(os.environ.get('VFE_LONG'))
ROUND_TRIPS = 10 if LONG else 2
STORM = 20
LOST_PAGES = 16
MAX_LOST = 8
VM_UUID = '5e1ec7ed-0000-4000-8000-000000000002'
# TCG on two CPUs that others use, too: much more than this means that something waited in vain
OUTAGE_MS = 8000


def there_and_back(pair, guest, load, note, trips=ROUND_TRIPS):
    """Migrate under a load, which then must find all that it wants to be intact."""
    downtimes = []
    for _ in range(2 * trips):
        downtimes.append(guest.migrate()['downtime'])
    outage = load.stop()
    note('%d migrations under %s: downtime %s ms as libvirt tells it%s'
         % (len(downtimes), load.name, ' '.join(str(d) for d in downtimes),
            ', longest pause of the traffic %.0f ms' % outage if outage else ''))
    assert outage < OUTAGE_MS
    pair.check(guest)


def test_tcp_stream_in_both_directions(pair, note):
    guest = pair.guest()
    there_and_back(pair, guest, pair.stream(guest), note)


def test_ping_from_the_network(pair, note):
    guest = pair.guest()
    load = pair.ping(guest)
    there_and_back(pair, guest, load, note)
    note('%d of %d replies of a ping every 10 ms lost, %d doubled'
         % (load.lost, load.sent, load.doubled))
    assert load.lost * 10 < OUTAGE_MS * 2 * ROUND_TRIPS
    assert load.doubled == 0


def test_memory_that_the_guest_writes(pair, note):
    guest = pair.guest()
    load = pair.memdirty(guest)
    there_and_back(pair, guest, load, note)
    note('%d pages written by the guest' % load.writes)


def scribbled(pair, note, lose=0):
    """One migration under scribble: the stale pages, or None when QEMU has lost the guest."""
    guest = pair.guest(vfs=(0, SCRIBBLE_VF), uuid=VM_UUID)
    with contextlib.closing(Scribble(guest)) as scribble:
        if lose:
            scribble.lose(lose)
        scribble.wait()
        try:
            guest.migrate()
        except (AgentError, AssertionError) as lost:
            # the many rounds of a short downtime are too much even for "switches"
            note('the guest is lost, which is not looked at here: %s' % lost)
            pair.end_guest()
            return None
        stale = scribble.stale()
        note('%d records, the last one has number %d'
             % (len(scribble.records), max(n for _, n in scribble.records)))
    return stale


def test_pages_that_only_the_device_writes(pair, note):
    done = 0
    for _ in range(2 * ROUND_TRIPS + MAX_LOST):
        stale = scribbled(pair, note)
        if stale is None:
            continue
        assert stale == [], '%d pages are stale: %s' % (len(stale), stale[:20])
        done += 1
        if done == 2 * ROUND_TRIPS:
            return
    assert done == 2 * ROUND_TRIPS, 'the guest does not survive its migrations'


def test_a_lost_dirty_bit_is_seen(pair, note):
    """The test before would fail if the device forgot to mark pages."""
    for _ in range(MAX_LOST):
        stale = scribbled(pair, note, lose=LOST_PAGES)
        pair.end_guest()
        if stale is not None:
            break
    assert stale is not None, 'the guest does not survive its migrations'
    note('%d stale pages' % len(stale))
    assert stale, 'nothing is seen of pages that are not marked'
    assert [page for page in stale if page % LOST_PAGES] == []


def test_all_queues_of_a_multi_queue_guest(pair, note):
    guest = pair.guest(queues=4)
    guest.run('ethtool -L %s combined 4' % guest.ifname())
    there_and_back(pair, guest, pair.stream(guest), note, trips=1)


def test_two_vfs_of_one_guest(pair, note):
    """The service listens on their sockets."""
    guest = pair.guest(vfs=(0, 1), uuid=VM_UUID, client=False)
    loads = [pair.ping(guest, index) for index in (0, 1)]
    downtimes = [guest.migrate()['downtime'] for _ in range(2)]
    pauses = [load.stop() for load in loads]
    note('downtime %s ms, longest pause on the VFs %.0f and %.0f ms' % (downtimes, *pauses))
    assert max(pauses) < OUTAGE_MS
    pair.check(guest)


def test_nic_that_is_down(pair):
    guest = pair.guest()
    guest.run('ip link set %s down' % guest.ifname())
    guest.migrate()
    guest.configure(guest_address(0) + '/24')
    pair.check(guest)


def test_nic_without_driver(pair):
    guest = pair.guest()
    address = guest.pci_address()
    driver = '/sys/bus/pci/drivers/virtio-pci'
    guest.run('echo %s > %s/unbind' % (address, driver))
    guest.migrate()
    guest.run('echo %s > %s/bind' % (address, driver))
    guest.configure(guest_address(0) + '/24')
    pair.check(guest)


def test_nic_that_is_being_unbound_and_bound(pair):
    guest = pair.guest()
    address = guest.pci_address()
    # told to stop, it ends with the NIC bound
    loop = Background(guest, 'rebind', "sh -c 'trap end=1 TERM; cd /sys/bus/pci/drivers/virtio-pci;"
                      ' until [ "$end" ]; do echo {0} >unbind; echo {0} >bind; sleep 0.1; done\''
                      .format(address))
    for _ in range(2):
        guest.migrate()
    status, output = loop.stop()
    assert status == 0, output
    guest.configure(guest_address(0) + '/24')
    pair.check(guest)


def test_guest_reboots_at_its_new_place(pair):
    guest = pair.guest()
    guest.migrate()
    guest.reboot()
    make_migratable(guest)
    guest.configure(guest_address(0) + '/24')
    guest.migrate()
    pair.check(guest)


def set_mac(host, mac):
    """What an operator does on a DPU; nobody uses the VF now."""
    host.controller.call('modify', pf=0, vf=0, device={'mac': mac})


def test_vf_of_the_destination_does_not_fit(pair):
    """It is told before anything happens to the guest."""
    guest = pair.guest()
    source = guest.host
    target = pair.hosts.other(source)
    load = pair.stream(guest)
    set_mac(target, '00:00:00:00:33:99')
    try:
        with pytest.raises(VirshError) as refused:
            guest.migrate()
    finally:
        set_mac(target, guest.nics[0].mac)
    assert '00:00:00:00:33:99' in str(refused.value)
    guest.connect()
    assert load.stop() < OUTAGE_MS
    assert guest.host is source
    pair.check(guest)
    guest.migrate()
    pair.check(guest)


def test_nothing_leaks(pair):
    guest = pair.guest()
    guest.migrate()
    guest.migrate()
    home = guest.host
    before = pair.open_files()
    for _ in range(STORM if LONG else 2):
        guest.migrate()
    assert guest.host is home
    pair.check(guest)
    assert pair.open_files() == before
