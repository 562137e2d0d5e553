# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Reads and writes of a disk: a VF of the software DPU against qemu-storage-daemon's export.

Both have the same file, one front-end program, and all their threads on one CPU. They take turns.
"""
import collections
import itertools
import os
import tempfile
import time

from .disks import Front, Ours, Peer, storage_daemon
from .machine import preferred
from .sides import BACK_CPU, FRONT_CPU, BenchLab, Pair, Sample

MIB = 1 << 20
KIB = 1 << 10
TMPFS = '/dev/shm'
WARM_UP = 0.2       # seconds
FILL = 4 * MIB
# what a row does: kind of access, bytes
LOADS = {'4k-read': ('random', 4 * KIB, 'read'), '4k-write': ('random', 4 * KIB, 'write'),
         '128k-read': ('sequential', 128 * KIB, 'read'),
         '128k-write': ('sequential', 128 * KIB, 'write')}
SMALL = ('4k-read', '4k-write')     # what can be told apart when no data moves

Row = collections.namedtuple('Row', 'load depth queues')


def make_file(folder, mib):
    """The path of a file whose blocks are all there."""
    fd, path = tempfile.mkstemp(prefix='vfe-bench-', dir=folder)
    with open(fd, 'wb') as f:
        for at in range(0, mib * MIB, FILL):
            f.write(os.urandom(min(FILL, mib * MIB - at)))
        f.flush()
        os.fsync(f.fileno())
    return path


def front_options(row, seconds):
    access, size, direction = LOADS[row.load]
    return (['--block', size, '--depth', row.depth, '--queues', row.queues, '--seconds', seconds,
             '--warm-up', WARM_UP] + (['--write'] if direction == 'write' else []) +
            (['--sequential'] if access == 'sequential' else []))


def measure(lab, row, side, options):
    """The result of vhost-blk, with the time of CPU that the back end had for a request."""
    with Front(lab, front_options(row, options.seconds), side.path) as front:
        front.ready()
        with preferred([front.pid, *side.pids()] if options.prefer else []):
            begin, used = time.monotonic_ns(), side.cpu_ns()
            front.go()
            result = front.result()
            used = (side.cpu_ns() - used) / (time.monotonic_ns() - begin)
        front.end()
    result['cpu_us'] = used * 1e6 / result['iops']
    return result


def sample(row, result):
    """What the row is about, and the rest."""
    if row.depth == 1:
        value = result['mean_ns'] / 1e3
    elif row.load in SMALL:
        value = result['iops'] / 1e3
    else:
        value = result['mib_s']
    return Sample(value, [1], **result)


def unit(row):
    return 'us' if row.depth == 1 else 'kIOPS' if row.load in SMALL else 'MiB/s'


def middle(pairs, side, key):
    values = sorted(getattr(p, side).extra[key] for p in pairs)
    return values[len(values) // 2]


def row_text(pairs):
    def both(key, scale=1):
        return tuple(middle(pairs, side, key) / scale for side in ('ours', 'peer'))
    return 'p99 %.0f / %.0f us  CPU %.1f / %.1f us' % (*both('p99_ns', 1e3), *both('cpu_us'))


def run_rows(lab, sides, rows, options, report):
    for row in rows:
        access, size, direction = LOADS[row.load]
        name = '%s %d KiB, depth %d, %d queue%s' % (direction, size // KIB, row.depth, row.queues,
                                                    's' if row.queues > 1 else '')
        pairs = []
        for number in range(options.runs):
            report.progress('%s: pair %d of %d' % (name, number + 1, options.runs))
            pairs.append(Pair(*(sample(row, measure(lab, row, side, options))
                                for side in sides)))
        report.pairs(name, unit(row), pairs, more_is_better=row.depth > 1, text=row_text(pairs),
                     width=36, access=access, bytes=size, depth=row.depth, queues=row.queues)


def run_part(title, lab, ours, peer, rows, options, report):
    """All rows of two back ends, which are started before and ended after them."""
    report.title(title)
    with ours, peer:
        for side in (ours, peer):
            for argv in side.commands():
                report.command(argv)
        # of one row; the names of the others say what is different
        report.command([Front.program, *front_options(rows[0], options.seconds), '--connect',
                        '--socket', 'SOCKET'])
        report.say('  ours: %s; peer: %s' % (ours.how(), peer.how()))
        run_rows(lab, (ours, peer), rows, options, report)


def run_file(title, folder, rows, options, report):
    path = make_file(folder, options.size)
    try:
        with BenchLab() as lab:
            run_part(title, lab, Ours(lab, {'type': 'file', 'path': path}),
                     Peer(lab, 'driver=file,filename=%s,cache.direct=on,aio=%s'
                          % (path, options.aio)), rows, options, report)
    finally:
        os.unlink(path)


def run_disk(rows, options, report):
    run_file('A file in %s, direct I/O' % options.dir, options.dir, rows, options, report)


def run_tmpfs(rows, options, report):
    run_file('A file in %s (tmpfs), direct I/O' % TMPFS, TMPFS, rows, options, report)


def run_null(rows, options, report):
    with BenchLab() as lab:
        run_part('No file: null against null-co', lab,
                 Ours(lab, {'type': 'null', 'size_mib': options.size}),
                 Peer(lab, 'driver=null-co,read-zeroes=off,size=%d' % (options.size * MIB)),
                 [row for row in rows if row.load in SMALL], options, report)


PARTS = {'disk': run_disk, 'tmpfs': run_tmpfs, 'null': run_null}


def run(options, report):
    rows = [Row(*values) for values in itertools.product(options.loads, options.depths,
                                                         options.queues)]
    report.say('front-end on CPU %d, each back end with all its threads on CPU %d'
               % (FRONT_CPU, BACK_CPU))
    report.fact('peer', storage_daemon(), storage_daemon())
    for name, part in PARTS.items():
        if options.only is None or name in options.only:
            part(rows, options, report)
    report.verdicts()
