# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""How long a migrating VM waits for its back end, in the stop window of source and destination.

The front-end vhost-migrate plays QEMU. Three back ends take turns: a VF of the software DPU that
was provisioned a moment before, as on a destination; librte_vhost alone (the peer); and a process
that only reads and answers, which is the floor of the messages.
"""
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess

from vfe_rpc import Client
from vfetest import Process
from vfetest.controller import BUILD, PF, vf_bdf

from .machine import preferred
from .report import quartiles
from .sides import BACK_CPU, FRONT_CPU, BenchLab

MIGRATE = os.path.join(BUILD, 'test', 'bench', 'vhost-migrate')
BARE = os.path.join(BUILD, 'test', 'bench', 'vhost-bare')
UUID = 'c0ffee00-0000-4000-8000-000000000001'
# what the protocol needs, one after the other; VFs at the same time
COMMANDS = {'destination': ('RESTORE', 'QUIESCED', 'RUNNING'), 'source': ('QUIESCED', 'FREEZED')}
FULL = {'latency': [0, 100, 1000, 10000], 'pairs': [1, 4, 16, 64], 'vfs': [1, 4, 16],
        'memory': [256, 1024, 4096, 16384]}
QUICK = {'latency': [0, 1000], 'pairs': [1, 16], 'vfs': [1, 4], 'memory': [256, 1024]}
MAX_OVER_FLOOR = 1.25
MAX_MEMORY_GROWTH = 1.1
MAX_VF_GROWTH = 2
SPARE_MIB = 3072            # of the machine's memory, left to others
# neither side writes a line per message
LOG_LEVEL = '--log-level=.,6'
CYCLE_TIMEOUT = 60


@dataclasses.dataclass(frozen=True)
class Point:
    """Where a row is measured."""
    latency_us: int
    pairs: int
    vfs: int
    memory: int

    def text(self):
        return '%2d %s %2d VF%s %5d MiB' % (
            self.pairs, 'pair, ' if self.pairs == 1 else 'pairs,', self.vfs,
            ', ' if self.vfs == 1 else 's,', self.memory)


class Front:
    """The front-end, with the memory of its guest."""

    def __init__(self, lab, point, log, report):
        argv = [MIGRATE, '--cpu', FRONT_CPU, '--back-cpu', BACK_CPU, '--memory', point.memory,
                '--pairs', point.pairs, '--vfs', point.vfs, *log]
        self._process = Process('vhost-migrate', argv, lab.log('vhost-migrate'),
                                stdin=subprocess.PIPE)
        report.command(self._process.argv)
        self.pids = [self._process.pid]
        # all of the memory is touched, which can take ten seconds per GiB
        self._patience = 60 + point.memory / 50
        self._process.wait_line('^ready', self._patience)

    def run(self, command):
        """One arrival and one departure: what took how long."""
        since = self._process.mark()
        self._process.write(command + '\n')
        return json.loads(self._process.wait_line('^{', CYCLE_TIMEOUT, since).string)

    def close(self):
        if self._process.alive:
            self._process.kill(self._patience)  # its memory has to be given back
        self._process.close()


class Ours:
    """Controller and service; the VFs are new for each run."""

    name = 'vfe'

    def __init__(self, lab, point, report):
        self._prefix = lab.path('vf')
        self._vfs = range(point.vfs)
        controller = lab.controller(
            lab.netns(), start=False, vfs=point.vfs, qp_num=point.pairs, worker_cpus=[BACK_CPU],
            vf_backend='null', cpus=str(BACK_CPU))
        self._set_latency(controller.config, point.latency_us)
        controller.start()
        service = lab.service(eal=[LOG_LEVEL], cpus=str(BACK_CPU))
        service.add_pf(PF)
        self.pids = [controller.process.pid, service.process.pid]
        for process in (controller.process, service.process):
            report.command(process.argv)
        self._client = Client(service.socket, 'dpdk-vfe-vdpa', 120)

    @staticmethod
    def _set_latency(path, latency_us):
        with open(path) as f:
            config = json.load(f)
        config['software_dpu']['admin_latency_us'] = latency_us
        with open(path, 'w') as f:
            json.dump(config, f, indent=4)

    def _call(self, **params):
        reply = self._client.call('vf', params)
        if reply.get('errno'):
            raise RuntimeError('%s: %s' % (params, reply))

    def run(self, front):
        for vf in self._vfs:
            self._call(add=True, vfdev=vf_bdf(vf), socket_file='%s%d' % (self._prefix, vf),
                       uuid=UUID)
        result = front.run('listen ' + self._prefix)
        for vf in self._vfs:
            self._call(remove=True, vfdev=vf_bdf(vf))
        return result

    def close(self):
        self._client.close()


class Peer:
    """librte_vhost, with one socket per VF."""

    name = 'librte_vhost'

    def __init__(self, lab, point, report):
        self._prefix = lab.path('peer')
        argv = [BARE, '--no-huge', '-m', 64, '--no-pci', '--no-telemetry',
                '--lcores', '0@%d' % BACK_CPU, '--file-prefix', lab.unique('bare'), LOG_LEVEL,
                '--', '--prefix', self._prefix, '--vfs', point.vfs]
        self._process = Process('vhost-bare', argv, lab.log('vhost-bare'), env=lab.env,
                                stdin=subprocess.PIPE, cpus=str(BACK_CPU))
        report.command(self._process.argv)
        self.pids = [self._process.pid]
        self._process.wait_line('^ready', 30)

    def run(self, front):
        return front.run('connect ' + self._prefix)

    def close(self):
        self._process.close()


class Floor:
    """A process of the front-end's that only reads and answers."""

    name = 'floor'

    @staticmethod
    def run(front):
        return front.run('floor')


def measure(point, options, report):
    """Results by back end, in the order of the runs."""
    with BenchLab() as lab, contextlib.ExitStack() as parts:
        front = parts.enter_context(
            contextlib.closing(Front(lab, point, options.log, report)))
        sides = [parts.enter_context(contextlib.closing(kind(lab, point, report)))
                 for kind in (Ours, Peer)]
        pids = [pid for part in (front, *sides) for pid in part.pids]
        sides.append(Floor)
        for side in sides:
            side.run(front)     # everything is warm, and all threads are there
        results = {side.name: [] for side in sides}
        with preferred(pids if options.prefer else []):
            for number in range(options.runs):
                report.progress('%s, run %d of %d' % (point.text(), number + 1, options.runs))
                for side in sides:
                    results[side.name].append(side.run(front))
    return results


def ms(results, window):
    return [r[window]['ns'] / 1e6 for r in results]


def row(point, window, results, report):
    """Print one window of a point; returns our median."""
    ours, peer, bare = (ms(results[s.name], window) for s in (Ours, Peer, Floor))
    commands = len(COMMANDS[window]) * point.latency_us / 1e3
    floors = [f + commands for f in bare]
    # librte_vhost reads and answers the messages of ours as well, which no driver can spare
    library = [p + commands for p in peer]
    low, ratio, high = quartiles([o / f for o, f in zip(ours, floors)])
    library_ratios = quartiles([o / b for o, b in zip(ours, library)])
    median = statistics.median(ours)
    first = results[Ours.name][0]
    report.note(
        '%-11s %s  vfe %8.3f ms  floor %8.3f  ratio %5.2f (%.2f .. %.2f)  peer %8.3f  '
        'with commands %8.3f  ratio %5.2f (%.2f .. %.2f)' % (
            window, point.text(), median, statistics.median(floors), ratio, low, high,
            statistics.median(peer), statistics.median(library), library_ratios[1],
            library_ratios[0], library_ratios[2]),
        window=window, **dataclasses.asdict(point), ms=ours, floor_ms=floors, peer_ms=peer,
        bare_ms=bare, ratio=ratio, ratio_quartiles=[low, high],
        library_ms=library, library_ratio_quartiles=library_ratios, log=first['log'],
        messages=first[window]['messages'], answers=first[window]['answers'],
        requests={s.name: [r[window]['by_request'] for r in results[s.name]]
                  for s in (Ours, Peer, Floor)})
    return {'median': median, 'floor': statistics.median(floors), 'ratio': ratio,
            'library': library_ratios[1]}


def points(options, latency_us):
    """The smallest of everything, then one thing larger at a time."""
    pairs, vfs, memory = (sorted(set(o)) for o in (options.pairs, options.vfs, options.memory))
    base = Point(latency_us, pairs[0], vfs[0], memory[0])
    return [base, *(dataclasses.replace(base, pairs=n) for n in pairs[1:]),
            *(dataclasses.replace(base, vfs=n) for n in vfs[1:]),
            *(dataclasses.replace(base, memory=n) for n in memory[1:])]


def fits(point):
    with open('/proc/meminfo') as f:
        available = {line.split(':')[0]: int(line.split()[1]) for line in f}['MemAvailable']
    return available / 1024 > point.memory + SPARE_MIB


def judge(rows, report):
    """Compare with the aims; rows is by point and window."""
    report.title('Aims')
    for key, name in (('ratio', 'the floor'), ('library', 'librte_vhost with the commands')):
        over = [(p, w, r[key]) for (p, w), r in rows.items() if r[key] > MAX_OVER_FLOOR]
        report.note('at most %.2f of %s: %s' % (
            MAX_OVER_FLOOR, name, 'met' if not over else 'MISSED in %d of %d rows, worst %.2f '
            '(%s, %s, %g ms per command)' % (len(over), len(rows), *worst(over))))
    for what, limit in (('memory', MAX_MEMORY_GROWTH), ('vfs', MAX_VF_GROWTH)):
        for window in COMMANDS:
            found = list(growths(rows, what, window))
            if found:
                report.note('%s, growth with %s, at most %g: %s' % (
                    window, 'VFs' if what == 'vfs' else what, limit, '; '.join(
                        '%d %.2f %s (%g ms, floor %.2f)' % (
                            getattr(point, what), growth, 'met' if growth <= limit else 'MISSED',
                            point.latency_us / 1e3, floor)
                        for point, growth, floor in found)))


def growths(rows, what, window):
    """(point, growth of ours, growth of the floor) of the points that are larger in one thing."""
    for (point, row_window), values in rows.items():
        base = dataclasses.replace(point, **{what: min(getattr(p, what) for p, _ in rows)})
        if row_window == window and base != point and (base, window) in rows:
            first = rows[base, window]
            yield (point, values['median'] / first['median'], values['floor'] / first['floor'])


def worst(over):
    point, window, ratio = max(over, key=lambda o: o[2])
    return ratio, window, point.text().strip(), point.latency_us / 1e3


def run(options, report):
    rows = {}
    for latency_us in options.latency:
        report.title('Stop window, %g ms per admin command, front-end on CPU %d, everything else '
                     'on CPU %d' % (latency_us / 1e3, FRONT_CPU, BACK_CPU))
        for point in points(options, latency_us):
            if not fits(point):
                report.note('%s: left out, not enough memory is free' % point.text())
                continue
            results = measure(point, options, report)
            for window in COMMANDS:
                rows[point, window] = row(point, window, results, report)
    judge(rows, report)
