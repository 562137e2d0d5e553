# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Fixtures of the protocol tests: the daemons, a witness device, and the check after each test.

Every hostile test gets a rig. After the test the rig asserts what the test is about: the same
process is alive, another device still passes real packets, and no fd was leaked.
"""

import os
import shutil
import tempfile

import pytest

from peers import daemons
from peers.virtio import NetDriver
from peers.vfio_user import Client, fresh_client
from peers.vhost_user import FrontEnd


def pytest_sessionstart():
    for program in (daemons.CONTROLLER, daemons.SERVICE):
        if not os.access(program, os.X_OK):
            raise pytest.UsageError(f'{program} is not built (set VFE_BUILD_DIR)')


@pytest.fixture(scope='session')
def session_dir():
    """Short path: socket names must fit into 107 bytes."""
    path = tempfile.mkdtemp(prefix='vfeproto', dir='/tmp')
    yield path
    for daemon in daemons.Daemon.started:
        daemon.kill()  # what a test that failed half way has left behind
    if os.environ.get('VFE_TEST_KEEP'):
        print(f'logs are in {path}')
    else:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope='module')
def work(session_dir):
    path = tempfile.mkdtemp(prefix='m', dir=session_dir)
    yield path


@pytest.fixture
def place(work):
    """A folder for daemons of one test; those that it leaves running end with it."""
    before = len(daemons.Daemon.started)
    yield tempfile.mkdtemp(prefix='p', dir=work)
    for daemon in daemons.Daemon.started[before:]:
        daemon.kill()


class ControllerRig:
    """A controller whose VF 0 is driven by an honest witness. Tests own PF and VFs 1 and up."""

    def __init__(self, work):
        self.work = tempfile.mkdtemp(prefix='c', dir=work)
        self.daemon = daemons.Controller(self.work)
        self.witness = NetDriver(Client(self.daemon.vf_socket(0)), size=2 << 20)
        self.witness.start()
        self.witness.echo()
        self.baseline = self.daemon.stable_fds()
        self.pid = self.daemon.pid

    def client(self, index=1, **kwargs):
        return Client(self.daemon.vf_socket(index), **kwargs)

    def pf_client(self, **kwargs):
        return Client(self.daemon.pf_socket, **kwargs)

    def net(self, index=1, **kwargs):
        """A fresh honest driver on a VF; the socket may still be busy with its last client."""
        return NetDriver(fresh_client(self.daemon.vf_socket(index), 5.0 * daemons.SLOW), **kwargs)

    def check(self, victims=(1,)):
        """What must hold after whatever a hostile client did."""
        self.daemon.check()
        self.witness.echo()
        for index in victims:
            with self.net(index, size=1 << 20) as driver:
                driver.start()
                driver.echo()
        self.daemon.settle(self.baseline)
        assert self.daemon.pid == self.pid

    def close(self):
        self.witness.close()
        self.daemon.stop()


class ServiceRig(ControllerRig):
    """Controller and service; VF 0 is a witness behind vhost-user. Tests own VF 1 and up."""

    def __init__(self, work, client=False):
        self.work = tempfile.mkdtemp(prefix='s', dir=work)
        self.controller = daemons.Controller(self.work)
        self.daemon = None
        self.client_mode = client
        self.service = daemons.Service(self.work, self.controller.pci_dir, client=client)
        self.daemon = self.service
        self.pid = self.service.pid
        self.service.pf_add(self.controller.PF)
        self.add(0)
        self.witness = self.front_end(0)
        self.witness.start()
        self.witness.echo()
        self.idle = self.service.stable_fds()  # without VF 1
        self.add(1)
        self.baseline = self.service.stable_fds()
        self.controller_baseline = self.controller.stable_fds()

    def path(self, index):
        return os.path.join(self.work, f'vhost{index}')

    def add(self, index, uuid=None):
        self.service.vf_add(self.controller.vf(index), self.path(index), uuid)

    def remove(self, index):
        self.service.vf_remove(self.controller.vf(index))

    def front_end(self, index=1, **kwargs):
        """A connection that the service has taken."""
        return FrontEnd(self.path(index), server=self.client_mode, **kwargs).connect_taken()

    def check(self, victims=(1,)):
        self.service.check()
        self.controller.check()
        self.witness.echo()
        for index in victims:
            with self.front_end(index) as front_end:
                front_end.start()
                front_end.echo()
                front_end.stop()
        self.service.settle(self.baseline)
        self.controller.settle(self.controller_baseline)
        assert self.service.pid == self.pid

    def close(self):
        self.witness.close()
        self.service.stop()
        self.controller.stop()


class RigHolder:
    """Keeps one rig per module and replaces it when a test has broken it."""

    def __init__(self, make):
        self.make = make
        self.rig = None

    def get(self):
        if self.rig is None:
            self.rig = self.make()
        return self.rig

    def drop(self):
        """The rig is not to be trusted any more."""
        rig, self.rig = self.rig, None
        if rig is not None:
            rig.witness.close()
            for daemon in (getattr(rig, 'service', None), getattr(rig, 'controller', None),
                           rig.daemon):
                if daemon is not None:
                    daemon.kill()

    def close(self):
        rig, self.rig = self.rig, None
        if rig is not None:
            rig.close()


@pytest.fixture(scope='module')
def controller_holder(work):
    holder = RigHolder(lambda: ControllerRig(work))
    yield holder
    holder.close()


@pytest.fixture(scope='module')
def service_holder(work):
    holder = RigHolder(lambda: ServiceRig(work))
    yield holder
    holder.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    setattr(item, 'report_' + call.when, outcome.get_result())


def guarded(holder, request):
    """The rig for one test; afterwards it is checked, and replaced if anything failed."""
    rig = holder.get()
    yield rig
    report = getattr(request.node, 'report_call', None)
    if report is not None and (report.failed or hasattr(report, 'wasxfail')):
        holder.drop()
        return
    try:
        rig.check()
    except BaseException:
        holder.drop()
        raise


@pytest.fixture
def ctl(controller_holder, request):
    """Controller rig, checked after the test."""
    yield from guarded(controller_holder, request)


@pytest.fixture
def svc(service_holder, request):
    """Service rig, checked after the test."""
    yield from guarded(service_holder, request)
