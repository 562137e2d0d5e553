# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A guest on a VF talks to the world, with one queue, with many, and to another guest."""
import re

COPY_SIZE = 16 << 20


def test_guest_pings_and_copies_intact(stack):
    guest = stack.running_guest()
    info = stack.info(0)
    assert info['vf'] == stack.bdf(0)
    assert info['configured'] is True
    assert info['socket_file'] == stack.socket(0)
    guest.copy_in(stack.netns, stack.host(0), COPY_SIZE)
    guest.copy_out(stack.netns, stack.host(0), COPY_SIZE)
    guest.ping(stack.host(0))
    guest.check_kernel()
    assert guest.quit() == 0


def test_large_frames_pass_in_both_directions(stack):
    guest = stack.running_guest()
    for size in (1, 64, 1472, 8000):
        guest.run('ping -c 2 -W 2 -s %d %s' % (size, stack.host(0)))
        stack.netns.run('ping', '-c', 2, '-W', 2, '-s', size, stack.guest_address(0))
    guest.check_kernel()


def test_multi_queue_guest_uses_each_queue(stack):
    # four pairs are offered and two CPUs take two of them: the others never start
    guest = stack.running_guest(queues=4, cpus=2)
    ifname = guest.ifname()
    for pairs in (2, 4, 1, 2):
        guest.run('ethtool -L %s combined %d' % (ifname, pairs))
        shown = guest.run('ethtool -l ' + ifname)
        assert re.findall(r'Combined:\s+(\d+)', shown) == ['4', str(pairs)]
        guest.ping(stack.host(0))
    # XPS ties a transmit queue to each CPU when there are as many of both
    before = guest.queue_packets('tx')
    for cpu in (0, 1):
        guest.run('taskset %x ping -c 5 -i 0.1 -W 2 %s' % (1 << cpu, stack.host(0)))
    after = guest.queue_packets('tx')
    for queue in (0, 1):
        assert after[queue] - before[queue] >= 5, 'queue %d is idle: %s' % (queue, after)
    guest.copy_in(stack.netns, stack.host(0), COPY_SIZE)
    guest.copy_out(stack.netns, stack.host(0), COPY_SIZE)
    guest.check_kernel()


def test_two_guests_talk_through_a_bridge(stack):
    for vf in (0, 1):
        stack.add_vf(vf)
    stack.netns.bridge('br0', [stack.tap(0), stack.tap(1)])
    guests = [stack.guest(vf) for vf in (0, 1)]
    for guest in guests:
        guest.start()
    for number, guest in enumerate(guests):
        guest.wait_boot()
        guest.configure('10.78.0.%d/24' % (number + 1))
    guests[0].ping('10.78.0.2')
    guests[1].ping('10.78.0.1')
    # "sleep" keeps the input of nc open, else it closes the connection at once
    guests[1].run('(sleep 60 | nc -l -p 5000 | sha256sum >/tmp/sum) >/dev/null 2>&1 & '
                  'until netstat -ltn | grep -q :5000; do sleep 0.1; done')
    sent = guests[0].run('head -c %d /dev/urandom >/tmp/f; nc 10.78.0.2 5000 </tmp/f & '
                         'sha256sum </tmp/f; sync' % COPY_SIZE, 60)
    received = guests[1].run('for i in $(seq 300); do [ -s /tmp/sum ] && break; sleep 0.1; done; '
                             'cat /tmp/sum', 60)
    assert received.split() == sent.split()
    for guest in guests:
        guest.check_kernel()
