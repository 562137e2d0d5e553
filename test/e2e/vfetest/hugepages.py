# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Huge pages of the machine, for as long as they are needed."""
import contextlib

HUGEPAGES = '/sys/kernel/mm/hugepages/hugepages-2048kB/'


def _pages(name):
    with open(HUGEPAGES + name) as f:
        return int(f.read())


def _set_pages(nr):
    with open(HUGEPAGES + 'nr_hugepages', 'w') as f:
        f.write('%d\n' % nr)


@contextlib.contextmanager
def hugepages(wanted):
    """Have that many free 2 MiB pages meanwhile: yields whether it worked. They are given back."""
    try:
        before, free = _pages('nr_hugepages'), _pages('free_hugepages')
        if free < wanted:
            _set_pages(before + wanted - free)
    except OSError:
        yield False
        return
    try:
        yield _pages('free_hugepages') >= wanted
    finally:
        if free < wanted:
            _set_pages(before)
