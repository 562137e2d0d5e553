# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""With a polling DPU the guest rings the doorbell page of the VF itself."""
import pytest

from vfetest import Stack

COPY_SIZE = 4 << 20


@pytest.fixture
def polling(lab):
    the_stack = Stack(lab, polling=True)
    the_stack.start()
    return the_stack


def test_no_kick_passes_through_the_service(polling):
    guest = polling.running_guest(options={'disable-legacy': 'on'})
    queues = polling.info(0)['queues'][:2]
    assert [q['host_notifier'] for q in queues] == [True, True], queues
    before = polling.info(0)['relayed_kicks']
    threads = polling.service.process.thread_switches()
    sent = guest.queue_packets('tx')[0]
    guest.ping(polling.host(0), count=20)
    guest.copy_in(polling.netns, polling.host(0), COPY_SIZE)
    guest.copy_out(polling.netns, polling.host(0), COPY_SIZE)
    assert guest.queue_packets('tx')[0] - sent > 100
    # before the counters, whose query wakes the service
    woken = {name: count - threads.get(name, 0)
             for name, count in polling.service.process.thread_switches().items()}
    assert polling.info(0)['relayed_kicks'] == before
    assert max(woken.values()) < 100, 'threads of the service were busy: %s' % woken
    guest.check_kernel()


def test_polling_survives_the_ends_of_a_guest(polling):
    guest = polling.running_guest(options={'disable-legacy': 'on'})
    guest.reboot()
    polling.guest_up(guest, 0)
    guest.kill()
    guest.boot()
    polling.guest_up(guest, 0)
    before = polling.info(0)['relayed_kicks']
    guest.ping(polling.host(0), count=20)
    assert polling.info(0)['relayed_kicks'] == before
    guest.check_kernel()
