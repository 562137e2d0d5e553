# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Fixtures of the end-to-end tests."""
import os
import shutil
import subprocess

import pytest

from vfetest import Lab, Pair, Stack
from vfetest.disk import make_image
from vfetest.guest import TOP
from vfetest.scribble import SCRIBBLE_VF

LOG_LINES = 60
NOTES = []


def pytest_configure(config):
    missing = [p for p in ('ip', 'qemu-system-x86_64', 'setpriv') if shutil.which(p) is None]
    if missing:
        raise pytest.UsageError('missing programs: %s; run scripts/setup' % ' '.join(missing))
    if os.geteuid() != 0:
        raise pytest.UsageError('the end-to-end tests make network namespaces: run them as root')


@pytest.fixture(scope='session', autouse=True)
def guest_image():
    subprocess.run([os.path.join(TOP, 'scripts', 'guest-image'), '--quiet'], check=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the ends of the logs to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    arguments = getattr(item, 'funcargs', {})
    shared = arguments.get('pair')
    lab = arguments.get('lab') or (shared and shared.lab)
    if lab is None:
        return
    if report.failed:
        for name, text in lab.logs():
            tail = '\n'.join(text.splitlines()[-LOG_LINES:])
            report.sections.append(('end of ' + name, tail))
    if report.when == 'teardown' and shared is None and not os.environ.get('VFE_KEEP_LOGS'):
        lab.remove()


def pytest_terminal_summary(terminalreporter):
    """What tests measured, for a reader; no verdict hangs on it."""
    if NOTES:
        terminalreporter.section('measured')
        for note in NOTES:
            terminalreporter.write_line(note)


@pytest.fixture
def note(request):
    """A function that adds a line to the summary."""
    return lambda text: NOTES.append('%s: %s' % (request.node.name, text))


@pytest.fixture
def lab():
    """A Lab that leaves nothing behind; a part that does fails the test."""
    the_lab = Lab()
    yield the_lab
    left = the_lab.close()
    left += ['socket ' + s for s in the_lab.sockets()]
    if os.environ.get('VFE_KEEP_LOGS'):
        print('logs: ' + the_lab.logdir)
    assert not left, 'left behind: ' + ', '.join(left)


@pytest.fixture(scope='module')
def pair(request):
    """Two hosts for all tests of a module, and a guest that goes from one to the other.

    A module may name VFs besides, without traffic, in CROWD, and options of the hosts in HOSTS.
    Disks are on an image that both hosts have.
    """
    the_lab = Lab()
    crowd = getattr(request.module, 'CROWD', [])
    options = dict(getattr(request.module, 'HOSTS', {}))
    options['disks'] = [{'image': make_image(the_lab.path('disk%d.img' % index)), **disk}
                        for index, disk in enumerate(options.get('disks', []))]
    try:
        yield Pair(the_lab, vfs=3 + len(crowd),
                   vf_backends={SCRIBBLE_VF: 'scribble', **{vf: 'null' for vf in crowd}},
                   **options)
    finally:
        left = the_lab.close()
        left += ['socket ' + s for s in the_lab.sockets()]
        if os.environ.get('VFE_KEEP_LOGS'):
            print('logs: ' + the_lab.logdir)
        elif not left:
            the_lab.remove()
    assert not left, 'left behind: ' + ', '.join(left)


@pytest.fixture
def make_stack(lab):
    """The whole product with disks, one for each dictionary of options, and their VFs added."""
    def make(*disks, client=True):
        for index, disk in enumerate(disks):
            disk.setdefault('image', lab.path('disk%d.img' % index))
            if not os.path.exists(disk['image']):
                make_image(disk['image'])
        the_stack = Stack(lab, client=client, vfs=1, disks=disks)
        the_stack.start()
        for index in range(len(disks)):
            the_stack.add_disk(index)
        return the_stack
    return make


@pytest.fixture
def stack(lab):
    """The whole product with TAP back ends, PF added; VFs are added by the test."""
    the_stack = Stack(lab)
    the_stack.start()
    return the_stack
