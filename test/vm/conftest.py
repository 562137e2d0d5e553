# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Fixtures of the tests inside a virtual machine with an IOMMU."""
import os
import shutil
import subprocess

import pytest

from vfetest import Lab
from vfetest.controller import BUILD
from vfetest.guest import TOP

from programs import Service
from vm import Vm

LOG_LINES = 60


def pytest_configure(config):
    if shutil.which('qemu-system-x86_64') is None:
        raise pytest.UsageError('no qemu-system-x86_64; run scripts/setup')


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the ends of the logs to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    item.has_failed = True
    host = getattr(item, 'funcargs', {}).get('host')
    for name, text in host.lab.logs() if host else ():
        tail = '\n'.join(text.splitlines()[-LOG_LINES:])
        report.sections.append(('end of ' + name, tail))


class Host:
    """Keeps one VM for all tests that leave it in order."""

    def __init__(self):
        self.lab = Lab()
        self._vm = None

    def vm(self):
        if self._vm is None:
            self._vm = Vm('vm', self.lab.logdir, self.lab.dir)
            self._vm.boot()
        return self._vm

    def drop(self):
        if self._vm is not None:
            self._vm.close()
        self._vm = None

    def close(self):
        self.drop()
        left = self.lab.close()
        if os.environ.get('VFE_KEEP_LOGS'):
            print('logs: ' + self.lab.logdir)
        else:
            self.lab.remove()
        return left


@pytest.fixture(scope='session')
def host():
    subprocess.run([os.path.join(TOP, 'scripts', 'guest-image'), '--quiet', '--vm', BUILD],
                   check=True)
    the_host = Host()
    yield the_host
    assert not the_host.close()


@pytest.fixture
def vm(request, host):
    """The VM, every function at its kernel driver; after a failure it is a new one."""
    try:
        machine = host.vm()
        yield machine
        if not getattr(request.node, 'has_failed', False):
            machine.check_order()
            return
    except BaseException:
        host.drop()
        raise
    host.drop()


@pytest.fixture
def service(vm):
    """dpdk-vfe-vdpa in the VM."""
    daemon = Service(vm)
    yield daemon
    daemon.stop()
