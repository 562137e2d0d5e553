# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Merging of dirty pages into the log, beside its floor and a plain scan of the same maps."""
import os
import statistics
import subprocess

from vfetest.controller import BUILD

from .report import quartiles

DIRTY_BENCH = os.path.join(BUILD, 'test', 'bench', 'dirty-bench')
MIN_RATIO = 0.8     # of the floor, which is a plain scan where nothing is dirty


def measure(gib, runs, report):
    """{(operation, density): [(GB/s of ours, of the floor, of a scan), ...]}."""
    argv = [DIRTY_BENCH, str(gib), str(runs)]
    report.command(argv)
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    rows = {}
    for line in done.stdout.splitlines():
        name, density, *values = line.split()
        rows.setdefault((name, density), []).append([float(v) for v in values])
    return rows


def row(report, gib, name, density, values):
    ours, floor, scan = (statistics.median(column) for column in zip(*values))
    low, ratio, high = quartiles([v[0] / v[1] for v in values])
    report.note('%-11s %-6s %9.0f  floor %9.0f  ratio %5.2f (%.2f .. %.2f)  %s  scan %9.0f'
                % (name, density, ours, floor, ratio, low, high,
                   'good' if ratio >= MIN_RATIO else 'slow', scan),
                gib=gib, operation=name, density=density, values=values)


def run(args, report):
    for gib in args.memory:
        report.title('Merging the dirty pages of a guest of %d GiB, GB of guest memory per second'
                     % gib)
        for (name, density), values in measure(gib, args.runs, report).items():
            row(report, gib, name, density, values)
