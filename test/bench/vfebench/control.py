# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""What a VF costs on the control path: time, file descriptors, threads, memory, wake-ups."""
import statistics
import time

from vfe_rpc import Client
from vfetest import Stack
from vfetest.controller import vf_bdf

from .ping import Ping
from .report import quartiles
from .sides import BenchLab
from .trips import VHOST_THREADS

MAX_GROWTH = 1.2    # of the time at the last count over the first
CLI_RUNS = 5
SETTLE = 2          # seconds
WHAT = ('fds', 'threads', 'rss_kib', 'private_kib')


def status_field(pid, name, key):
    with open('/proc/%d/%s' % (pid, name)) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(key))


def cost(process):
    return {'fds': process.fd_count(), 'threads': process.thread_count(),
            'rss_kib': status_field(process.pid, 'status', 'VmRSS:'),
            'private_kib': status_field(process.pid, 'smaps_rollup', 'Private_')}


class Bench:
    """The daemons, and calls to the service on one connection."""

    def __init__(self, lab, vfs):
        self.lab = lab
        # no TAPs: they are the kernel's cost
        self.stack = Stack(lab, vfs=vfs, qp_num=1, vf_backend='null')
        self.stack.start()
        self.processes = {'service': self.stack.service.process,
                          'controller': self.stack.controller.process}
        self._client = Client(self.stack.service.socket, 'dpdk-vfe-vdpa', 120)

    def _call(self, params):
        """Milliseconds of one call."""
        begin = time.monotonic()
        reply = self._client.call('vf', params)
        end = time.monotonic()
        if reply.get('errno'):
            raise RuntimeError('%s: %s' % (params, reply))
        return (end - begin) * 1e3

    def socket(self, vf):
        return self.lab.path('v%d' % vf)

    def add(self, vf):
        return self._call({'add': True, 'vfdev': vf_bdf(vf), 'socket_file': self.socket(vf)})

    def remove(self, vf):
        return self._call({'remove': True, 'vfdev': vf_bdf(vf)})

    def costs(self):
        return {name: cost(process) for name, process in self.processes.items()}

    def switches(self):
        return {name: process.thread_switches() for name, process in self.processes.items()}

    def close(self):
        self._client.close()


def timed_cli(bench):
    """Milliseconds of the process vhostmgmt vf -a, and of vf -r."""
    times = {'add': [], 'remove': []}
    for _ in range(CLI_RUNS):
        begin = time.monotonic()
        bench.stack.service.add_vf(vf_bdf(0), bench.socket(0))
        middle = time.monotonic()
        bench.stack.service.remove_vf(vf_bdf(0))
        times['add'].append((middle - begin) * 1e3)
        times['remove'].append((time.monotonic() - middle) * 1e3)
    return times


def growth_row(verb, times, report):
    counts = list(times)
    medians = {n: statistics.median(times[n]) for n in counts}
    growth = medians[counts[-1]] / medians[counts[0]]
    spread = '; '.join('%.2f ms at %d (%.2f .. %.2f)' % (medians[n], n, *quartiles(times[n])[::2])
                       for n in counts)
    report.note('%s, call: %s; growth %.2f, aim <= %.1f: %s' % (
        verb, spread, growth, MAX_GROWTH, 'met' if growth <= MAX_GROWTH else 'MISSED'),
        times_ms=times, growth=growth, aim=MAX_GROWTH)


def cost_rows(costs, report):
    last = max(costs)
    for process in costs[last]:
        for what in WHAT:
            values = {n: c[process][what] for n, c in costs.items()}
            each = (values[last] - values[0]) / last
            verdict = ''
            if what == 'threads':
                verdict = ', aim 0: %s' % ('met' if each <= 0 else 'MISSED')
            report.note('%-10s %-11s %s; %.2f per VF%s' % (
                process, what, ', '.join('%d at %d' % (v, n) for n, v in values.items()), each,
                verdict), process=process, what=what, values=values, per_vf=each)


def idle_rows(bench, what, seconds, report):
    before = bench.switches()
    begin = time.monotonic()
    time.sleep(seconds)
    span = time.monotonic() - begin
    after = bench.switches()
    for process in after:
        woken = {}
        for thread, count in after[process].items():
            name = thread.split(' ', 1)[1]
            woken[name] = woken.get(name, 0) + count - before[process].get(thread, 0)
        woken = {name: n / span for name, n in woken.items() if n}
        own = sum(n for name, n in woken.items() if name not in VHOST_THREADS)
        other = {name: n for name, n in woken.items() if name in VHOST_THREADS}
        report.note('%-10s %s: %.1f wake-ups per second, aim 0: %s%s' % (
            process, what, own, 'met' if own == 0 else 'MISSED',
            ''.join('; %s %.1f' % item for item in sorted(woken.items()) if item[0] not in other)
            + ''.join('; besides %s of librte_vhost %.1f' % item for item in other.items())),
            what=what, process=process, wakeups_per_second=woken, own=own)


def run(options, report):
    counts = sorted(set(options.counts))
    with BenchLab() as lab:
        bench = Bench(lab, counts[-1])
        try:
            measure(bench, counts, options, report)
        finally:
            bench.close()
        for process in bench.processes.values():
            report.command(process.argv)


def measure(bench, counts, options, report):
    report.title('Adding and removing a VF')
    cli = timed_cli(bench)
    costs = {0: bench.costs()}
    add, remove = {}, {}
    present = 0
    for count in counts:
        while present < count - 1:
            report.progress('adding VF %d' % present)
            bench.add(present)
            present += 1
        add[count], remove[count] = [], []
        for _ in range(options.runs):
            add[count].append(bench.add(count - 1))
            remove[count].append(bench.remove(count - 1))
        bench.add(count - 1)
        present = count
        costs[count] = bench.costs()
    growth_row('vf -a', add, report)
    growth_row('vf -r', remove, report)
    report.single('vf -a, process vhostmgmt, 1 VF', 'ms', cli['add'])
    report.single('vf -r, process vhostmgmt, 1 VF', 'ms', cli['remove'])
    report.title('What a VF costs')
    cost_rows(costs, report)
    report.title('Idle')
    idle_rows(bench, '%d VFs, nobody connected' % present, options.idle, report)
    with Ping(bench.lab, [], bench.socket(0)) as front:
        front.ready()
        time.sleep(SETTLE)      # what the connection started has ended
        idle_rows(bench, '%d VFs, one connected' % present, options.idle, report)
    while present > 0:
        present -= 1
        bench.remove(present)
