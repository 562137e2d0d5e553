# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Fixtures of the end-to-end tests."""
import os
import shutil
import subprocess

import pytest

from vfetest import Lab, Stack
from vfetest.guest import TOP

LOG_LINES = 60


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
    lab = getattr(item, 'funcargs', {}).get('lab')
    if lab is None:
        return
    if report.failed:
        for name, text in lab.logs():
            tail = '\n'.join(text.splitlines()[-LOG_LINES:])
            report.sections.append(('end of ' + name, tail))
    if report.when == 'teardown' and not os.environ.get('VFE_KEEP_LOGS'):
        lab.remove()


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


@pytest.fixture
def stack(lab):
    """The whole product with TAP back ends, PF added; VFs are added by the test."""
    the_stack = Stack(lab)
    the_stack.start()
    return the_stack
