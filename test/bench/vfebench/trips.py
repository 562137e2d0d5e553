# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Round trips of one packet and the price of a doorbell, with the small front-end vhost-ping.

The floors are measured in the same run: eventfds handed from process to process on one CPU, and
cache lines that two CPUs poll.
"""
import collections
import os
import signal
import statistics
import time

from vfetest import Process

from .machine import preferred
from .ping import Ping, floor_us, line_ns
from .sides import BACK_CPU, FRONT_CPU, BenchLab, Ours, Pair, Peer, Sample

EVENT_TRIPS = 20000
POLLED_TRIPS = 200000
RELAYED_BELLS = 100000
DIRECT_BELLS = 1000000
TRACED_TRIPS = 1000
MORE_PAIRS = 2      # times --runs, as long as pairs are lost to CPUs that move
# the thread of librte_vhost that looks after sockets: it polls with a time limit of one second
VHOST_THREADS = ('vhost-events', 'vhost_reconn')


def ping(lab, options, side, report, prefer=False):
    """The result of vhost-ping as front-end of a side."""
    side.start()
    try:
        with Ping(lab, options, side.path, report) as front:
            front.ready()
            with preferred([p.pid for p in [front, *side.processes()] if prefer]):
                front.go()
                result = front.result()
            front.end()
    finally:
        side.stop()
    return result


class Trace:
    """The system calls that the threads of a process complete, by name of the thread."""

    SETTLE = 0.3

    def __init__(self, lab, pid):
        self._pid = pid
        self._path = lab.path('strace.out')
        self._strace = Process('strace', ['strace', '-f', '-o', self._path, '-p', pid],
                               lab.log('strace'))
        self._strace.wait_line('attached', 10)
        time.sleep(self.SETTLE)     # waiting calls are interrupted by the attachment
        self._begin = os.path.getsize(self._path)

    def _lines(self):
        with open(self._path, 'rb') as f:
            return f.readlines()

    def calls(self):
        """Counter of (thread, call)."""
        found = collections.Counter()
        position = 0
        for line in self._lines():
            position += len(line)
            # a call is complete with its result; one that waits at the beginning is half a line
            if position <= self._begin or b' = ' not in line:
                continue
            tid, text = line.decode(errors='replace').split(None, 1)
            with open('/proc/%d/task/%s/comm' % (self._pid, tid)) as f:
                name = f.read().strip()
            call = text[5:].split()[0] if text.startswith('<... ') else text.split('(')[0]
            found[name, call] += 1
        return found

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._strace.signal(signal.SIGINT)
        self._strace.wait_exit(10)
        self._strace.close()


def traced(lab, ours, options):
    """System calls of the service during a run of vhost-ping, without its start and end."""
    with Ping(lab, options, ours.path) as front:
        front.ready()
        with Trace(lab, ours.service.pid) as trace:
            front.go()
            front.result()
            calls = trace.calls()
        front.end()
    return calls


def trace_note(what, count, calls, report):
    own = {k: n for k, n in calls.items() if k[0] not in VHOST_THREADS}
    text = ', '.join('%s %s %d' % (*k, n) for k, n in sorted(own.items()))
    other = sum(calls.values()) - sum(own.values())
    report.note('system calls of the service during %d %s: %d%s%s' % (
        count, what, sum(own.values()), ' (%s)' % text if text else '',
        '; besides %d of the 1 s timer of librte_vhost' % other if other else ''),
        calls=sum(own.values()), librte_vhost_calls=other)


def run_event(options, report):
    """Everything sleeps until it is woken, all on one CPU: no wake-up crosses CPUs."""
    if options.peer_only:
        return
    report.title('Round trip of one packet, event driven, all on CPU %d' % FRONT_CPU)
    with BenchLab() as lab:
        ours = Ours(lab, 'loopback', polling=False, cpu=FRONT_CPU)
        for argv in ours.commands():
            report.command(argv)
        trips, floors, bells = [], {2: [], 3: []}, []
        for number in range(options.runs):
            report.progress('event driven: run %d of %d' % (number + 1, options.runs))
            for hops, values in floors.items():
                values.append(floor_us(lab, ['--floor-hops', hops, '--count', EVENT_TRIPS],
                                       report))
            trips.append(ping(lab, ['--count', EVENT_TRIPS], ours, report))
            bells.append(ping(lab, ['--doorbells', '--count', RELAYED_BELLS], ours,
                              report)['mean_ns'])
        us = [t['median_ns'] / 1e3 for t in trips]
        floor = statistics.median(floors[3])
        report.single('round trip', 'us', us, 'p99 %.1f us; %.2f of its floor' % (
            statistics.median(t['p99_ns'] for t in trips) / 1e3, statistics.median(us) / floor),
            p99_us=[t['p99_ns'] / 1e3 for t in trips])
        report.single('floor: 3 wake-ups by eventfd', 'us', floors[3])
        report.single('floor without the relay: 2', 'us', floors[2])
        report.single('doorbell, relayed, for the driver', 'ns', bells)
        calls = traced(lab, ours, ['--count', TRACED_TRIPS])
        trace_note('relayed round trips', TRACED_TRIPS * 11 // 10 + 1, calls, report)
    report.say('  peer: none; testpmd\'s vhost PMD only polls')


def polled_sample(lab, argv, side, options, report):
    lines = [line_ns(lab, report)]
    result = ping(lab, argv, side, report, options.prefer)
    lines.append(line_ns(lab))
    return Sample(result['median_ns'] / 1e3, lines, p99_us=result['p99_ns'] / 1e3)


def run_polled(options, report):
    """The worker polls, the front-end polls, each on its CPU."""
    if options.peer_only:
        return
    report.title('Round trip of one packet, polled, front-end on CPU %d, back end on CPU %d'
                 % (FRONT_CPU, BACK_CPU))
    floors = []
    for name, backend, mode, extra in (('there and back', 'loopback', 'io', []),
                                       ('there', 'null', 'rxonly', ['--seen'])):
        with BenchLab() as lab:
            sides = Ours(lab, backend), Peer(lab, mode)
            argv = ['--polled', '--count', POLLED_TRIPS, *extra]
            done = []
            while sum(p.matched() for p in done) < options.runs and \
                    len(done) < MORE_PAIRS * options.runs:
                report.progress('polled: pair %d' % (len(done) + 1))
                done.append(Pair(*(polled_sample(lab, argv, side, options, report)
                                   for side in sides)))
        report.pairs(name, 'us', done, more_is_better=False)
        floors += [n / 1e3 for p in done for s in (p.ours, p.peer) for n in s.lines]
    report.single('floor: a cache line each way', 'us', floors)


def run_doorbells(options, report):
    """The front-end writes the doorbell page of the VF itself."""
    if options.peer_only:
        return
    report.title('Doorbell in the mapped page, the worker polls')
    with BenchLab() as lab:
        ours = Ours(lab, 'loopback')
        bells = []
        argv = ['--doorbells', '--direct', '--count', DIRECT_BELLS]
        for number in range(options.runs):
            report.progress('doorbells: run %d of %d' % (number + 1, options.runs))
            bells.append(ping(lab, argv, ours, report)['mean_ns'])
        report.single('doorbell, direct, for the driver', 'ns', bells)
        trace_note('direct doorbells', DIRECT_BELLS, traced(lab, ours, argv), report)
        argv = ['--direct', '--polled', '--count', POLLED_TRIPS]
        trace_note('polled round trips', POLLED_TRIPS, traced(lab, ours, argv), report)
