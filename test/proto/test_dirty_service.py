# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Dirty pages from device to log, with service and controller, in every mode.

The front end copies memory as a VMM does while it migrates: all of it when logging has begun, and
then the pages that a log names. When the rings have been stopped the copy must be right wherever
only the device writes: in used rings and receive buffers. A log is read once, after the next one
has been given (what was not read moves there), and at the end.
"""

import os
import struct
import tempfile
import threading
import time

import pytest

from peers import daemons
from peers import vhost_user as vh
from peers.memory import PAGE, Memory
from peers.vhost_user import FrontEnd

MODES = ('direct', 'push-bitmap', 'pull-bitmap', 'push-bytemap', 'pull-bytemap', 'all')
MEM_SIZE = 8 << 20
LOG_SIZE = PAGE  # for 128 MiB
TOO_LONG = 10.0


class Rig:
    """A controller and a service that is bound to one mode, or to none."""

    def __init__(self, directory, mode=None):
        self.directory = directory
        self.mode = mode
        options = ['--dirty-mode', mode] if mode else []
        self.controller = daemons.Controller(directory, vfs=1)
        self.path = os.path.join(directory, 'vhost0')
        self.service = daemons.serve(self.controller, directory, [self.path], options=options)
        with FrontEnd(self.path) as warm_up:  # some fds are opened when first needed
            warm_up.connect()
            warm_up.start()
            warm_up.echo()
        self.wait(lambda info: info['state'] == 'parked')
        self.baseline = self.service.stable_fds()

    def info(self):
        return self.service.vf_info(self.controller.vf(0))

    def dirty(self):
        return self.info()['migration']['dirty']

    def wait(self, what):
        return self.service.vf_wait(self.controller.vf(0), what)

    def close(self):
        self.service.stop()
        self.controller.stop()


@pytest.fixture(scope='module', params=MODES)
def rig_of_mode(request, work):
    rig = Rig(tempfile.mkdtemp(prefix='d', dir=work), request.param)
    yield rig
    rig.close()


@pytest.fixture
def rig(rig_of_mode):
    yield rig_of_mode
    rig_of_mode.service.check()
    rig_of_mode.controller.check()
    rig_of_mode.wait(lambda info: info['state'] == 'parked')
    rig_of_mode.service.settle(rig_of_mode.baseline)


class Source:
    """The front end of a guest that is being migrated."""

    def __init__(self, rig, mem=None):
        self.rig = rig
        self.front_end = FrontEnd(rig.path, mem=mem, mem_size=MEM_SIZE, queue_pairs=2)
        self.front_end.connect()
        self.copy = None
        self.log = None
        self.named = set()
        self.traffic = None
        self.quit = threading.Event()
        self.failure = None

    @property
    def mem(self):
        return self.front_end.mem

    def start(self):
        self.front_end.start()
        self.front_end.echo(3)

    def set_logging(self, on):
        self.front_end.set_logging(on)

    def send_log(self):
        """A new log; the old one is returned, not read yet."""
        old, self.log = self.log, Memory(LOG_SIZE, name='log', seal=True)
        assert self.front_end.set_log(self.log) == b''
        return old

    def begin(self):
        """The first round of a migration."""
        self.send_log()
        self.set_logging(True)
        self.named = set()
        self.copy = bytearray(self.mem.read(self.mem.base, self.mem.size))

    def take(self, log):
        """Copy what the log names."""
        bitmap = log.read(0, log.size)
        for page in range(self.mem.base // PAGE, self.mem.end // PAGE):
            if bitmap[page // 8] >> page % 8 & 1:
                at = page * PAGE - self.mem.base
                self.named.add(page)
                self.copy[at:at + PAGE] = self.mem.read(page * PAGE, PAGE)

    def sync(self):
        old = self.send_log()
        self.take(old)
        old.close()

    def stop(self):
        """The stop window: rings, log, and then the copy must be right."""
        self.end_traffic()
        self.front_end.stop()
        self.take(self.log)
        for at, size in self.written_by_the_device():
            first, last = at // PAGE, (at + size - 1) // PAGE
            for page in range(first, last + 1):
                low, high = max(at, page * PAGE), min(at + size, (page + 1) * PAGE)
                there = self.mem.read(low, high - low)
                low -= self.mem.base
                assert self.copy[low:low + len(there)] == there, f'page {page:#x} is stale'

    def written_by_the_device(self):
        for _, ring in self.front_end.rings():
            yield ring.used, 4 + 8 * ring.size
        for pair in self.front_end.pairs:
            for buf in pair.rx_buf:
                yield buf, pair.BUF

    def resume(self):
        """The migration was given up: the guest runs on here."""
        self.front_end.start_at(self.front_end.used_bases())
        self.front_end.echo(3, timeout=TOO_LONG)

    def begin_traffic(self):
        def run():
            try:
                size = 60
                while not self.quit.is_set():
                    self.front_end.echo(1, pair=size % 2, timeout=TOO_LONG, size=size)
                    size = size % 1400 + 61
            except BaseException as error:
                self.failure = error

        self.quit.clear()
        self.traffic = threading.Thread(target=run, daemon=True)
        self.traffic.start()

    def end_traffic(self):
        if self.traffic is not None:
            self.quit.set()
            self.traffic.join(2 * TOO_LONG)
            assert not self.traffic.is_alive()
            self.traffic = None
        if self.failure is not None:
            raise self.failure

    def close(self):
        self.quit.set()
        if self.traffic is not None:
            self.traffic.join(2 * TOO_LONG)
        self.front_end.close()
        if self.log is not None:
            self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def test_copy_is_right_after_the_stop(rig):
    with Source(rig) as source:
        source.start()
        source.begin()
        assert rig.dirty()['mode'] == rig.mode
        assert rig.info()['migration']['state'] == 'logging'
        source.begin_traffic()
        time.sleep(0.3)
        source.stop()
        dirty = rig.dirty()
        if rig.mode == 'all':
            assert dirty['marked_all'] > 0
            assert len(source.named) == MEM_SIZE // PAGE
        else:
            assert dirty['marked_all'] == 0 and dirty['last_error'] == '', dirty
            assert len(source.named) < MEM_SIZE // PAGE // 2
        assert rig.info()['migration']['state'] == 'stopped'


def test_logs_are_replaced_under_load(rig):
    with Source(rig) as source:
        source.start()
        source.begin()
        source.begin_traffic()
        for i in range(12):
            time.sleep(0.02 * (i % 4))
            source.sync()
        source.stop()


def test_idle_guest(rig):
    """Nothing is written, so nothing is named; then one frame, just before the stop."""
    with Source(rig) as source:
        source.start()
        source.begin()
        source.sync()
        source.front_end.echo(1)
        source.stop()
        if rig.mode != 'all':
            assert 0 < len(source.named) < 64


def test_migrations_that_are_given_up(rig):
    with Source(rig) as source:
        source.start()
        source.begin()
        source.begin_traffic()
        for _ in range(3):
            # canceled while it runs
            source.set_logging(False)
            source.send_log().close()
            source.set_logging(True)
            source.copy[:] = source.mem.read(source.mem.base, source.mem.size)
            time.sleep(0.05)
            # and in the stop window
            source.stop()
            source.resume()
            source.begin_traffic()
        source.end_traffic()
        source.set_logging(False)
        rig.wait(lambda info: info['migration']['dirty']['mode'] == 'off')
        source.front_end.echo(3)
        source.begin()
        source.begin_traffic()
        time.sleep(0.05)
        source.stop()


def test_guest_resets_its_driver_while_it_migrates(rig):
    with Source(rig) as source:
        source.start()
        source.begin()
        for _ in range(3):
            source.front_end.echo(5)
            source.front_end.stop()
            source.resume()
        source.front_end.echo(5)
        source.stop()


def has_bit(log, page):
    return log.read(page // 8, 1)[0] >> page % 8 & 1


def test_memory_changes_while_it_migrates(rig):
    more = Memory(4 << 20, base=32 << 20)
    with more, Source(rig) as source:
        source.start()
        source.begin()
        source.begin_traffic()
        source.front_end.set_mem_table([source.mem, more])
        # what the device wrote there before it watched it is not known
        deadline = time.monotonic() + TOO_LONG * daemons.SLOW
        while not (has_bit(source.log, more.base // PAGE)
                   and has_bit(source.log, more.end // PAGE - 1)):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        rig.wait(lambda info: info['migration']['dirty']['mode'] == rig.mode)
        source.front_end.set_mem_table([source.mem])
        source.sync()
        source.front_end.set_mem_table([source.mem, more])
        source.stop()


def test_connection_comes_back_logging(rig):
    """Nobody knows what was written between the last look into the old log and the end."""
    with Memory(MEM_SIZE) as mem:
        with Source(rig, mem) as source:
            source.start()
            source.begin()
            source.front_end.echo(3)
            pairs = source.front_end.pairs
        rig.wait(lambda info: info['state'] == 'parked')
        with Source(rig, mem) as source:
            source.front_end.wanted |= 1 << vh.F_LOG_ALL
            source.front_end.pairs = pairs
            source.front_end.negotiate()
            assert source.front_end.features >> vh.F_LOG_ALL & 1
            source.front_end.set_mem_table()
            source.send_log()
            source.copy = bytearray(MEM_SIZE)
            source.resume()
            source.stop()
            assert len(source.named) == MEM_SIZE // PAGE


@pytest.mark.parametrize('mode', MODES[:-1])
def test_a_lost_mark_is_seen(work, mode):
    """The device loses marks on purpose: the tests above must be able to fail."""
    rig = Rig(tempfile.mkdtemp(prefix='d', dir=work), mode)
    try:
        rig.controller.rpc('knobs', {'dirty_lose_pages': 1})
        with Source(rig) as source:
            source.start()
            source.begin()
            source.front_end.echo(3)
            with pytest.raises(AssertionError, match='is stale'):
                source.stop()
    finally:
        rig.close()


def test_short_logs_are_refused(rig):
    with Source(rig) as source:
        source.start()
        source.begin()
        with Memory(PAGE, name='short', seal=True) as log:
            size = MEM_SIZE // PAGE // 8 - 8
            result = source.front_end.try_tell(
                vh.SET_LOG_BASE, struct.pack('=QQ', size, 0), [log.fd])
            assert result != 0
        source.front_end.echo(3)
        source.stop()


def test_controller_dies_while_it_migrates(work):
    rig = Rig(tempfile.mkdtemp(prefix='d', dir=work))
    try:
        with Source(rig) as source:
            source.start()
            source.begin()
            assert rig.dirty()['mode'] == 'direct'
            source.front_end.echo(3)
            rig.controller.kill()
            rig.wait(lambda info: info['state'] == 'lost')
            source.stop()
            assert len(source.named) == MEM_SIZE // PAGE
            assert rig.dirty()['marked_all'] > 0
    finally:
        rig.service.stop()


def test_service_dies_while_it_migrates(work):
    """The next one knows nothing of what its predecessor has seen: it marks everything."""
    rig = Rig(tempfile.mkdtemp(prefix='d', dir=work))
    with Memory(MEM_SIZE) as mem:
        try:
            with Source(rig, mem) as source:
                source.start()
                source.begin()
                source.front_end.echo(3)
                pairs = source.front_end.pairs
                rig.service.kill()
            os.unlink(rig.path)
            rig.service = daemons.serve(rig.controller, rig.directory, [rig.path], name='second')
            with Source(rig, mem) as source:
                source.front_end.wanted |= 1 << vh.F_LOG_ALL
                source.front_end.pairs = pairs
                source.front_end.negotiate()
                source.front_end.set_mem_table()
                source.send_log()
                source.copy = bytearray(MEM_SIZE)
                source.resume()
                source.stop()
                assert len(source.named) == MEM_SIZE // PAGE
        finally:
            rig.service.stop()
            rig.controller.stop()


def test_unknown_mode_is_refused(work):
    directory = tempfile.mkdtemp(prefix='d', dir=work)
    with pytest.raises(daemons.DaemonDied) as died:
        daemons.Service(directory, directory, options=['--dirty-mode', 'magic'])
    assert 'magic' in str(died.value)
