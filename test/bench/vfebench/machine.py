# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The machine that is measured on: what it is, how quiet it is, and its hugepages."""
import contextlib
import os
import statistics
import time

SPIN_LOOPS = 20000
SPIN_SAMPLES = 40
# the last one only while librte_vhost makes it wait for its event thread
POLLING_THREADS = ('rte-worker', 'dp-worker', 'vhost-ping', 'vfe-provision')


def cpu_model():
    with open('/proc/cpuinfo') as f:
        for line in f:
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return 'unknown CPU'


def _spin():
    begin = time.perf_counter()
    for _ in range(SPIN_LOOPS):
        pass
    return time.perf_counter() - begin


def spin_noise(cpu):
    """Standard deviation of a fixed loop on one CPU, as a fraction of its median."""
    old = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        times = [_spin() for _ in range(SPIN_SAMPLES)]
    finally:
        os.sched_setaffinity(0, old)
    return statistics.pstdev(times) / statistics.median(times)


def cpu_times():
    """(steal, all) ticks of all CPUs since boot."""
    with open('/proc/stat') as f:
        ticks = [int(n) for n in f.readline().split()[1:9]]
    return ticks[7], sum(ticks)


class Quiet:
    """How quiet the machine was between begin and end of a benchmark."""

    def __init__(self, cpus):
        self._cpus = cpus
        self._ticks = cpu_times()
        self.noise = {cpu: spin_noise(cpu) for cpu in cpus}
        self.load = os.getloadavg()[0]

    def text(self):
        return 'load %.2f; a fixed loop varies by %s' % (
            self.load, ', '.join('%.1f %% on CPU %d' % (self.noise[c] * 100, c)
                                 for c in self._cpus))

    def steal(self):
        """Fraction of CPU time that the hypervisor gave to others since the beginning."""
        steal, everything = cpu_times()
        return (steal - self._ticks[0]) / max(1, everything - self._ticks[1])


class CpuShare:
    """Which part of the time threads really had their CPU; a disturbed measurement shows here."""

    def __init__(self, *threads):
        self._threads = threads
        self._begin = [self._run_ns(t) for t in threads]
        self._time = time.monotonic_ns()

    @staticmethod
    def _run_ns(thread):
        with open('/proc/%d/task/%d/schedstat' % thread) as f:
            return int(f.read().split()[0])

    def lowest(self):
        span = time.monotonic_ns() - self._time
        return min((self._run_ns(t) - b) / span for t, b in zip(self._threads, self._begin))


def thread(pid, name):
    """(pid, tid) of the thread of a process whose name begins with name."""
    for tid in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/comm' % (pid, tid)) as f:
            if f.read().startswith(name):
                return pid, int(tid)
    raise RuntimeError('process %d has no thread %s' % (pid, name))


def _schedule(pids, policy, polling, others):
    for pid in pids:
        for tid in os.listdir('/proc/%d/task' % pid):
            with open('/proc/%d/task/%s/comm' % (pid, tid)) as f:
                polls = f.read().startswith(POLLING_THREADS)
            os.sched_setscheduler(int(tid), policy, os.sched_param(polling if polls else others))


@contextlib.contextmanager
def preferred(pids):
    """Let processes and us go before everything else meanwhile, their polling threads last."""
    pids = [*pids, os.getpid()] if pids else []
    _schedule(pids, os.SCHED_FIFO, 1, 2)
    try:
        yield
    finally:
        _schedule(pids, os.SCHED_OTHER, 0, 0)
