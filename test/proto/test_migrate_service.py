# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Migration as the services of two hosts see it: the messages of QEMU, without a QEMU.

The guest's memory is one file that both hosts share, as if it had been copied already.
"""

import os
import signal
import struct
import tempfile
import threading
import time

import pytest

from peers import daemons
from peers import vhost_user as vh
from peers.memory import Memory, make_frame
from peers.vhost_user import FrontEnd

NET_F_GUEST_ANNOUNCE = 21
GRACE = 0.1             # seconds that a suspended VF waits for its own message
SUSPEND_LIMIT = 5.0     # seconds that the service waits for a device


class Host:
    """A controller and a service with its VFs."""

    def __init__(self, directory, vfs=1):
        os.mkdir(directory)
        self.directory = directory
        self.vfs = vfs
        self.controller = daemons.Controller(directory, vfs=vfs)
        self.service = None
        self.start_service()

    def start_service(self):
        self.service = daemons.serve(self.controller, self.directory,
                                     [self.path(i) for i in range(self.vfs)])

    def path(self, index):
        return os.path.join(self.directory, f'vhost{index}')

    def info(self, index=0):
        return self.service.vf_info(self.controller.vf(index))

    def commands(self):
        pfs = self.service.manage('mgmtpf', list=True, debug=True)['devices']
        return pfs[0]['admin_commands']

    def wait(self, what, index=0, timeout=10.0):
        return self.service.vf_wait(self.controller.vf(index), what, timeout)

    def wait_state(self, state, index=0):
        return self.wait(lambda info: info['state'] == state, index)

    def stop(self):
        self.service.stop()
        self.controller.stop()

    def kill(self):
        self.service.kill()
        self.controller.kill()


class Guest:
    """The front end of one device of a VM, which says what QEMU 7.2 says, in its order."""

    def __init__(self, host, index=0, mem=None, pairs=2, like=None):
        self.host, self.index = host, index
        pairs = len(like.front_end.pairs) if like is not None else pairs
        self.front_end = FrontEnd(host.path(index), mem=mem, queue_pairs=pairs)
        self.front_end.wanted |= 1 << vh.F_LOG_ALL | 1 << NET_F_GUEST_ANNOUNCE
        self.front_end.wanted_protocol |= 1 << vh.P_RARP
        if like is not None:
            self.front_end.pairs = like.front_end.pairs
        self.front_end.connect()
        self.front_end.negotiate()
        self.front_end.make_pairs()
        self.log_all = 0

    def set_features(self):
        features = self.front_end.features & ~(1 << vh.F_LOG_ALL) | self.log_all
        self.front_end.tell(vh.SET_FEATURES, struct.pack('=Q', features))

    def start(self, bases=None):
        """Rings pair by pair; the last pair's part ends with the status."""
        fe = self.front_end
        for pair in range(len(fe.pairs)):
            for index in (2 * pair, 2 * pair + 1):
                fe.tell(vh.SET_VRING_ENABLE, struct.pack('=II', index, 1))
            self.set_features()
            fe.set_status(fe.u64(vh.GET_STATUS) | vh.S_FEATURES_OK)
            if pair == 0:
                fe.set_mem_table()
            for index, ring in ((2 * pair, fe.pairs[pair].rx), (2 * pair + 1, fe.pairs[pair].tx)):
                fe.set_vring(index, ring, bases[index] if bases else 0)
        fe.set_status(fe.u64(vh.GET_STATUS) | vh.S_ACK | vh.S_DRIVER | vh.S_DRIVER_OK)
        return self

    def stop(self):
        """Where the rings stand, by index. The status is withdrawn before the last pair."""
        bases = {}
        for pair in range(len(self.front_end.pairs)):
            if pair == len(self.front_end.pairs) - 1:
                self.front_end.set_status(0)
            for index in (2 * pair, 2 * pair + 1):
                bases[index] = self.front_end.get_base(index)
        return bases

    def log(self, memory):
        """Begin a migration."""
        self.front_end.set_log(memory)
        self.log_all = 1 << vh.F_LOG_ALL
        self.set_features()

    def offers_log(self):
        return self.front_end.protocol >> vh.P_LOG_SHMFD & 1

    def close(self):
        self.front_end.close()


@pytest.fixture
def make_host(work):
    hosts = []
    directory = tempfile.mkdtemp(prefix='h', dir=work)

    def make(vfs=1):
        hosts.append(Host(os.path.join(directory, str(len(hosts))), vfs))
        return hosts[-1]

    yield make
    for host in hosts:
        host.kill()


@pytest.fixture
def memory():
    with Memory(16 << 20) as mem:
        yield mem


@pytest.fixture
def log():
    with Memory(1 << 16) as mem:
        yield mem


# --- the messages and what they cost ---

@pytest.mark.parametrize('pairs', [1, 4])
def test_two_commands_to_leave_and_three_to_arrive(make_host, memory, pairs):
    source, destination = make_host(), make_host()
    guest = Guest(source, mem=memory, pairs=pairs).start()
    source.wait_state('running')
    for pair in range(pairs):
        guest.front_end.echo(7, pair)

    there = Guest(destination, mem=memory, like=guest)  # waits for the guest
    destination.wait(lambda info: destination.commands() >= 2)
    before = destination.commands()

    source_before = source.commands()
    bases = guest.stop()
    assert bases == {index: 7 for index in range(2 * pairs)}
    suspend = source.info()['migration']['last_suspend']
    assert source.commands() == source_before + 2
    assert suspend['ok'] and suspend['commands'] == 2

    there.start(bases)
    info = destination.wait_state('running')
    assert destination.commands() == before + 3
    resume = info['migration']['last_resume']
    assert resume['ok'] and resume['commands'] == 3
    parts = [resume[name] for name in ('prepare_us', 'restore_us', 'unquiesce_us', 'start_us')]
    assert all(part > 0 for part in parts) and sum(parts) <= resume['total_us'] * 1.001
    assert abs(resume['begin_unix_us'] / 1e6 - time.time()) < 60
    assert [q['start_index'] for q in info['queues'][:2 * pairs]] == [7] * (2 * pairs)
    for pair in range(pairs):
        there.front_end.echo(7, pair)

    # what the guest left behind is cleaned up when its front end goes
    guest.close()
    source.wait_state('parked')
    assert source.commands() == source_before + 3
    there.close()
    source.stop()
    destination.stop()


def test_there_and_back_many_times(make_host, memory):
    hosts = [make_host(), make_host()]
    for host in hosts:      # what is opened once for all is open then
        guest = Guest(host).start()
        host.wait_state('running')
        guest.close()
        host.wait_state('parked')
    idle = [host.service.stable_fds() for host in hosts]
    guest = Guest(hosts[0], mem=memory).start()
    for i in range(10):
        guest.front_end.echo(3, i % 2)
        there = Guest(hosts[(i + 1) % 2], mem=memory, like=guest)
        bases = guest.stop()
        guest.close()
        guest = there.start(bases)
    guest.front_end.echo(3)
    assert guest.stop() == {0: 18, 1: 18, 2: 15, 3: 15}
    guest.close()
    for host, fds in zip(hosts, idle):
        host.service.settle(fds)
        host.stop()


def test_packet_and_kick_of_the_time_between_are_not_lost(make_host, memory):
    """Sent when no device was there to see the kick: it goes out when there is one."""
    source, destination = make_host(), make_host()
    guest = Guest(source, mem=memory).start()
    guest.front_end.echo(3)
    there = Guest(destination, mem=memory, like=guest)
    bases = guest.stop()
    frame = make_frame()
    guest.front_end.send_frame(frame)
    there.start(bases)
    assert there.front_end.pairs[0].receive(10.0 * daemons.SLOW) == frame
    guest.close()
    there.close()


def test_first_interrupt_with_event_index(make_host, memory):
    """The guest waits for the interrupt of the next buffer, and it comes."""
    source, destination = make_host(), make_host()

    def with_event_idx(host, like=None):
        g = Guest(host, mem=memory, like=like)
        g.front_end.features |= 1 << vh.RING_EVENT_IDX
        return g

    guest = with_event_idx(source).start()
    guest.front_end.echo(5)
    there = with_event_idx(destination, guest)
    bases = guest.stop()
    there.start(bases)
    destination.wait_state('running')
    fe = there.front_end
    rx, call = fe.pairs[0].rx, fe.calls[0]
    deadline = time.monotonic() + 5 * daemons.SLOW
    for _ in range(3):
        # used_event is behind the available ring: interrupt for the next one
        fe.mem.set_u16(rx.avail + 4 + 2 * rx.size, rx.used_idx())
        try:
            os.eventfd_read(call)
        except BlockingIOError:
            pass
        fe.send_frame(make_frame())
        while True:
            try:
                os.eventfd_read(call)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, 'no interrupt'
                time.sleep(0.001)
        assert fe.receive_frame() is not None
    guest.close()
    there.close()


def test_announcing_guest_and_rarp(make_host):
    host = make_host()
    guest = Guest(host)
    assert guest.front_end.features >> NET_F_GUEST_ANNOUNCE & 1
    assert guest.front_end.protocol >> vh.P_RARP & 1
    guest.start()
    info = host.wait_state('running')
    # the control queue that it needs is QEMU's: the device knows nothing of it
    assert not int(info['driver_feature']['value'], 16) >> NET_F_GUEST_ANNOUNCE & 1
    guest.front_end.tell(vh.SEND_RARP, struct.pack('=Q', 0x563412005452))
    assert '52:54:00:12:34:56' in host.service.log()
    guest.front_end.echo()
    guest.close()


# --- test operations of operators ---

def operate(host, operation, size_mode=1):
    return host.service.rpc('vf', {'debug': True, 'vfdev': host.controller.vf(0),
                                   'test_operation': operation, 'size_mode': size_mode})


@pytest.mark.parametrize('size_mode', [1, 2])
def test_pages_are_tracked_by_hand(make_host, size_mode):
    host = make_host()
    guest = Guest(host).start()
    guest.front_end.echo(3)
    assert operate(host, 4, size_mode)['errno'] == 0
    again = operate(host, 4, size_mode)
    assert again['errno'] != 0 and 'stop that first' in again['errstr']
    guest.front_end.echo(5)
    result = operate(host, 5, size_mode)
    assert result['errno'] == 0, result
    # both used rings, and a buffer for each packet, two of which share a page
    assert 2 <= result['device']['dirty_pages'] <= 2 + 5
    guest.front_end.echo(3)
    guest.close()


def test_status_by_hand(make_host):
    host = make_host()
    statuses = {1: 'running', 2: 'quiesced', 3: 'freezed'}
    # steps go to neighbours, and a VF whose guest has gone is frozen
    for operations in ((2,), (3,), (2,), (2, 1), (3, 2, 3)):
        for operation in operations:
            assert operate(host, operation)['errno'] == 0
            assert operate(host, 6)['device']['lm_status'] == statuses[operation]
        with FrontEnd(host.path(0)) as front_end:   # the guest does not care
            front_end.connect()
            front_end.start()
            front_end.echo(3)
            refused = operate(host, 3)
            assert refused['errno'] != 0 and 'in use' in refused['errstr']
            assert operate(host, 6)['device']['lm_status'] == 'running'
            front_end.echo(3)
        host.wait_state('parked')


# --- a VF that does not fit ---

@pytest.mark.parametrize('request_, payload, words', [
    (vh.SET_FEATURES, struct.pack('=Q', 1 << vh.VERSION_1 | 1 << 60), '0x1000000000000000'),
    (vh.NET_SET_MTU, struct.pack('=Q', 9000), 'MTU 9000 is above'),
    (vh.SET_VRING_NUM, struct.pack('=II', 0, 32768), 'size 32768'),
    (vh.SET_VRING_NUM, struct.pack('=II', 8, 64), 'ring 0x8, there are 8'),
])
def test_guest_that_does_not_fit_is_refused_with_a_text(make_host, request_, payload, words):
    host = make_host()
    guest = Guest(host)
    assert guest.front_end.try_tell(request_, payload) != 0
    assert words in host.info()['last_error']
    guest.close()


# --- failures ---

def test_stop_is_answered_when_the_controller_has_died(make_host):
    host = make_host()
    guest = Guest(host).start()
    guest.front_end.echo(4)
    host.controller.kill()
    began = time.monotonic()
    assert guest.stop() == {0: 4, 1: 4, 2: 0, 3: 0}
    assert time.monotonic() - began < 2 * daemons.SLOW
    guest.close()


def test_stop_is_answered_when_the_controller_hangs(make_host):
    host = make_host()
    guest = Guest(host).start()
    guest.front_end.echo(4)
    os.kill(host.controller.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert guest.stop() == {0: 4, 1: 4, 2: 0, 3: 0}
        assert time.monotonic() - began < SUSPEND_LIMIT + 2 * daemons.SLOW
        assert host.info()['state'] == 'lost'
    finally:
        os.kill(host.controller.pid, signal.SIGCONT)
    guest.close()


def test_arriving_guest_outlives_the_loss_of_its_controller(make_host, memory):
    """It dies before the start; the guest goes on when it is back."""
    source, destination = make_host(), make_host()
    guest = Guest(source, mem=memory).start()
    guest.front_end.echo(4)
    there = Guest(destination, mem=memory, like=guest)
    bases = guest.stop()
    destination.controller.kill()
    destination.wait_state('lost')
    there.start(bases)
    assert destination.info()['last_error']
    destination.controller = daemons.Controller(destination.directory, vfs=1)
    destination.wait_state('running')
    there.front_end.echo(4)
    guest.close()
    there.close()


def test_guest_whose_migration_failed_goes_on_at_the_source(make_host, memory):
    source, destination = make_host(), make_host()
    guest = Guest(source, mem=memory).start()
    guest.front_end.echo(4)
    there = Guest(destination, mem=memory, like=guest)
    bases = guest.stop()
    destination.kill()
    before = source.commands()
    guest.start(bases)
    source.wait_state('running')
    assert source.commands() == before + 3
    guest.front_end.echo(4)
    assert guest.stop()[1] == 8
    guest.close()
    there.close()
    source.stop()


# --- several VFs of one VM ---

@pytest.fixture
def vm(make_host, memory, log):
    """Three VFs of one VM that is being migrated."""
    host = make_host(vfs=3)
    guests = [Guest(host, i, mem=memory).start() for i in range(3)]
    if not guests[0].offers_log():
        for guest in guests:
            guest.close()
        pytest.skip('dirty logging is not offered, so QEMU does not migrate')
    for i, guest in enumerate(guests):
        host.wait_state('running', i)
        guest.front_end.echo(2)
        guest.log(log)
    yield host, guests
    for guest in guests:
        guest.close()


def test_vfs_of_a_vm_leave_together(vm):
    host, guests = vm
    guests[0].front_end.get_base(0)
    # the others have stopped without a message of their own
    began = time.monotonic()
    states = [host.info(i)['state'] for i in (1, 2)]
    if time.monotonic() - began < GRACE / 4:
        assert all(state in ('suspending', 'suspended') for state in states), states
    for guest in guests:
        assert guest.stop()[1] == 2
    for i in range(3):
        info = host.wait_state('suspended', i)
        assert info['migration']['state'] == 'stopped'
        suspend = info['migration']['last_suspend']
        assert suspend['ok'] and suspend['commands'] >= 2
        assert sum(suspend.get(name, 0) for name in ('quiesce_us', 'freeze_us', 'flush_us')) <= \
            suspend['total_us'] * 1.001


def test_vf_whose_message_does_not_come_goes_on(vm):
    """A guest that resets the driver of one NIC in a migration keeps the others."""
    host, guests = vm
    assert guests[0].stop()[1] == 2
    for i in (1, 2):
        info = host.wait(lambda record: record['state'] == 'running' and
                         record['migration']['last_suspend'] is not None, i)
        assert info['migration']['last_suspend']['ok']
        guests[i].front_end.echo(2)
    assert host.info(0)['state'] == 'suspended'


def test_hanging_devices_of_a_vm_are_waited_for_together(vm):
    host, guests = vm
    os.kill(host.controller.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        threads = [threading.Thread(target=guest.stop) for guest in guests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * SUSPEND_LIMIT * daemons.SLOW)
            assert not thread.is_alive()
        assert time.monotonic() - began < SUSPEND_LIMIT + 2 * daemons.SLOW
    finally:
        os.kill(host.controller.pid, signal.SIGCONT)


def test_service_is_restarted_in_a_migration(vm, log):
    """QEMU connects again and says everything again, logging included."""
    host, guests = vm
    host.service.kill()
    for i in range(3):
        if os.path.exists(host.path(i)):
            os.unlink(host.path(i))
    host.start_service()
    back = []
    for i, guest in enumerate(guests):
        again = Guest(host, i, mem=guest.front_end.mem, like=guest)
        again.log_all = 1 << vh.F_LOG_ALL   # before there is a log: that comes with the rings
        again.start({0: 2, 1: 2, 2: 0, 3: 0})
        again.log(log)
        back.append(again)
    for i, guest in enumerate(back):
        host.wait_state('running', i)
        guest.front_end.echo(2)
    for i, guest in enumerate(back):
        assert guest.stop()[1] == 4
        info = host.wait_state('suspended', i)
        assert info['migration']['last_suspend']['ok']
        guest.close()
