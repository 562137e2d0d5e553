# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The service between an honest front end and the honest software DPU."""

import os
import shutil
import signal
import struct
import subprocess
import time

import pytest

from peers import daemons
from peers import vhost_user as vh
from peers.jsonrpc import Rpc
from peers.memory import Memory, PAGE, make_frame
from peers.vhost_user import FrontEnd

UUID = '7c8c2e1a-0000-4000-8000-00000000000'


@pytest.fixture
def guest(svc):
    with svc.front_end(mem_size=8 << 20, queue_pairs=2) as front_end:
        yield front_end


# what is told


def test_version(svc):
    result = svc.service.rpc('version', {})
    assert result['vfe-vhostd version']


def test_lists_and_info(svc):
    assert [d['pf'] for d in svc.service.manage('mgmtpf', list=True)['devices']] == \
        [svc.controller.PF]
    devices = svc.service.manage('vf', list=True, mgmtpf=svc.controller.PF)['devices']
    assert sorted(d['vf'] for d in devices) == [svc.controller.vf(0), svc.controller.vf(1)]
    info = svc.service.vf_info(svc.controller.vf(0))
    assert info['probed'] is True and info['configured'] is True
    assert info['socket_file'] == svc.path(0)
    for name in ('msix_num', 'queue_num', 'queue_size', 'mtu'):
        assert isinstance(info[name], str) and int(info[name]) > 0, name
    assert int(info['queue_num']) == 8 and info['mtu'] == '1500'
    assert info['mac'].lower().startswith('00:00:00:00:33:')
    features = info['device_feature']
    assert int(features['value'], 16) >> 32 & 1
    assert 'VIRTIO_NET_F_MAC' in features.values()
    other = svc.service.vf_info(svc.controller.vf(1))
    assert other['configured'] is False and other['mac'] != info['mac']


def test_changes_on_the_dpu_while_nobody_uses_the_vf(svc):
    """No interrupt tells of them: whoever asks gets what is there now."""
    bdf = svc.controller.vf(1)
    before = svc.service.vf_info(bdf)

    def modify(**device):
        svc.controller.rpc('modify', {'pf': 0, 'vf': 1, 'device': device})
        info = svc.service.vf_info(bdf)
        assert info['state'] == 'parked' and not info['last_error']
        return info

    info = modify(mac='02:00:00:00:47:11', mtu=1400, link=False)
    assert info['mac'].lower() == '02:00:00:00:47:11' and info['mtu'] == '1400'
    assert info['link_up'] is False
    with svc.front_end(1) as guest:          # frozen, for a guest that has gone
        guest.start()
    while svc.service.vf_info(bdf)['state'] != 'parked':
        time.sleep(0.01)
    info = modify(mac=before['mac'], mtu=1500, link=True)
    assert {k: info[k] for k in ('mac', 'mtu', 'link_up')} == \
        {k: before[k] for k in ('mac', 'mtu', 'link_up')}


def test_a_device_that_does_not_answer_delays_its_own_record_only(svc):
    bdf = svc.controller.vf(1)
    os.kill(svc.controller.pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        svc.service.rpc('version', {})
        info = svc.service.vf_info(bdf)
        took = time.monotonic() - begin
    finally:
        os.kill(svc.controller.pid, signal.SIGCONT)
    assert info['state'] == 'parked' and 0.9 < took < 4 * daemons.SLOW
    assert svc.service.vf_info(bdf)['mac'] == info['mac']


def test_vfs_are_created_for_functions_of_the_kernel_only(svc):
    def refused(words, **params):
        with pytest.raises(daemons.Refused, match=words):
            svc.service.manage('mgmtpf', dev='0000:af:00.3', **params)
    refused('0000:af:00.3 is no function of the kernel', add=True, num_vfs=2)
    refused('goes with add only', remove=True, num_vfs=2)
    for wrong in (0, 65536, '2'):
        refused('num_vfs', add=True, num_vfs=wrong)


def test_features_for_the_guest(guest):
    offered = guest.negotiate()
    for bit in (0, 5, 15, 16, 22, 28, 30, 32):
        assert offered >> bit & 1, f'feature bit {bit} is not offered'
    for bit in (34, 41, 44):
        assert not offered >> bit & 1, f'feature bit {bit} is offered'
    for bit in (vh.P_MQ, vh.P_REPLY_ACK, vh.P_STATUS, vh.P_BACKEND_REQ,
                vh.P_HOST_NOTIFIER):
        assert guest.protocol >> bit & 1, f'protocol bit {bit} is not offered'
    assert guest.max_pairs == 4
    # one is of no use without the other: QEMU would migrate and lose pages
    assert offered >> vh.F_LOG_ALL & 1 == guest.protocol >> vh.P_LOG_SHMFD & 1
    for bit in (18, 19):
        raw = guest.u64(vh.GET_PROTOCOL_FEATURES)
        assert not raw >> bit & 1, 'a vendor meaning of an upstream bit'


# life of a guest


@pytest.mark.parametrize('pairs', [1, 2, 4])
@pytest.mark.parametrize('indirect', [False, True])
def test_packets(svc, pairs, indirect):
    """Fewer pairs than offered must start as well (DRIVER_OK decides, not readiness)."""
    with svc.front_end(queue_pairs=pairs, indirect=indirect) as front_end:
        front_end.start()
        for pair in range(pairs):
            front_end.echo(20, pair)
        bases = front_end.stop()
    for pair in range(pairs):
        assert bases[2 * pair + 1] == 20
        assert bases[2 * pair] == 20


def test_interrupts_are_the_guests_eventfds(guest):
    guest.start()
    for fd in guest.calls.values():
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            pass
    guest.send_frame(make_frame())
    deadline = time.monotonic() + 5
    while True:
        try:
            os.eventfd_read(guest.calls[0])
            break
        except BlockingIOError:
            assert time.monotonic() < deadline, 'no interrupt for receive'
            time.sleep(0.001)


def test_stop_and_continue(guest):
    """A stopped guest goes on at the index that GET_VRING_BASE told."""
    guest.start()
    guest.echo(10)
    bases = guest.stop()
    for _ in range(3):
        guest.start_at(bases)
        guest.echo(10)
        bases = guest.stop()
    assert bases[1] == 40


def test_reconnect_with_the_same_memory(svc):
    """QEMU reconnects after a restart of the service: rings go on where memory says."""
    with Memory(8 << 20) as memory:
        pairs = None
        for round_ in range(3):
            with svc.front_end(mem=memory) as front_end:
                if pairs:
                    front_end.pairs = pairs
                front_end.start(base=10 * round_)
                front_end.echo(10)
                pairs = front_end.pairs
                front_end.stop()
        assert pairs[0].tx.used_idx() == 30


def test_guest_reboot(guest):
    """The ring memory is cleared and the driver starts at 0 again, on one connection."""
    guest.start()
    for _ in range(3):
        guest.echo(5)
        guest.stop()
        guest.reboot()
    guest.echo(5)


def test_memory_is_plugged_while_running(guest):
    guest.start()
    guest.echo(3)
    for i in range(3):
        with Memory(1 << 20, (64 + i) << 20) as more:
            guest.set_mem_table([guest.mem, more])
            for index, _ in guest.rings():
                guest.kick(index)
            guest.echo(3)
            guest.set_mem_table([guest.mem])
            for index, _ in guest.rings():
                guest.kick(index)
            guest.echo(3)


def test_packets_in_two_memory_regions(svc):
    """Buffers in the second region, as a guest with more than 3 GiB has them."""
    with Memory(4 << 20) as low, Memory(4 << 20, 1 << 32) as high:
        with svc.front_end(mem=low) as front_end:
            front_end.negotiate()
            front_end.make_pairs()
            front_end.set_mem_table([low, high])
            front_end.start_at({index: 0 for index, _ in front_end.rings()})
            frame = make_frame(300)
            at = high.alloc(4096, 64)
            high.write(at, bytes(12) + frame)
            front_end.pairs[0].tx.add([(at, 12 + len(frame), False)])
            front_end.kick(1)
            assert front_end.receive_frame() == frame
            front_end.stop()


def test_queue_disabled_and_enabled_while_running(guest):
    """Each change restarts the rings under the frames of the other pair: none of them is lost."""
    guest.start()
    guest.echo(3, 1)
    for _ in range(20):
        for index in (2, 3):
            guest.tell(vh.SET_VRING_ENABLE, struct.pack('=II', index, 0))
        guest.echo(3, 0)
        for index in (2, 3):
            guest.tell(vh.SET_VRING_ENABLE, struct.pack('=II', index, 1))
            guest.kick(index)
        guest.echo(3, 0)
        guest.echo(3, 1)


def test_status_is_kept(guest):
    guest.negotiate()
    for status in (1, 3, 11):
        guest.set_status(status)
        assert guest.u64(vh.GET_STATUS) & 0xff == status


def test_two_vfs_of_one_guest(svc):
    """One UUID, one memory: mappings are shared, each VF comes and goes by itself."""
    svc.add(2, UUID + '1')
    svc.add(3, UUID + '1')
    try:
        with Memory(16 << 20) as memory:
            with svc.front_end(2, mem=memory) as one:
                one.start()
                with svc.front_end(3, mem=memory) as other:
                    other.start()
                    one.echo(5)
                    other.echo(5)
                    other.stop()
                one.echo(5)
                one.stop()
    finally:
        svc.remove(3)
        svc.remove(2)


def test_add_and_remove_again(svc):
    for _ in range(5):
        svc.add(2)
        assert os.path.exists(svc.path(2))
        svc.remove(2)
        assert not os.path.exists(svc.path(2))


# dirty log: what cannot be tracked is marked, so a migration is never wrong


def test_log_marks_what_the_device_wrote(guest):
    guest.start()
    assert guest.protocol >> vh.P_LOG_SHMFD & 1, 'QEMU would not migrate'
    guest.echo(3)
    with Memory(1 << 16) as log:
        guest.set_log(log)
        guest.set_logging(True)
        frames = 5
        before = [guest.pairs[0].rx_buf[i] for i in range(guest.queue_size)]
        image = guest.mem.read(guest.mem.base, guest.mem.size)
        for _ in range(frames):
            guest.echo()
        guest.stop()
        now = guest.mem.read(guest.mem.base, guest.mem.size)
        bitmap = log.read(0, log.size)
        assert before
        rings = [(ring.used, 4 + 8 * ring.size) for _, ring in guest.rings()]
        for at, size in rings + [(b, guest.pairs[0].BUF) for b in before]:
            for page in range(at // PAGE, (at + size - 1) // PAGE + 1):
                low = max(at, page * PAGE)
                high = min(at + size, (page + 1) * PAGE)
                if image[low:high] != now[low:high]:
                    assert bitmap[page // 8] >> page % 8 & 1, f'page {page:#x} was not marked'


# clients and servers


def test_client_mode(place):
    """--client: the front end listens, dies, comes back, and the service finds it again."""
    controller = daemons.Controller(place, vfs=1)
    path = os.path.join(place, 'qemu')
    front_end = FrontEnd(path, server=True)
    service = daemons.serve(controller, place, [path], client=True)
    baseline = None
    for _ in range(2):
        front_end.connect(15)
        front_end.start()
        front_end.echo(5)
        baseline = baseline or service.fds()
        front_end.close()
        front_end = FrontEnd(path, server=True)
    front_end.connect(15)
    front_end.start()
    front_end.echo(5)
    assert service.fds() <= baseline + 1
    front_end.close()
    service.stop()
    controller.stop()
    assert os.listdir(controller.pci_dir) == [], 'sockets are left behind'
    for daemon in (service, controller):
        assert not os.path.exists(daemon.rpc_path)


def test_terminated_under_a_running_guest(place):
    """SIGTERM: VFs are parked, sockets removed, the next instance takes over."""
    controller = daemons.Controller(place, vfs=1)
    path = os.path.join(place, 'vhost')
    with Memory(8 << 20) as memory:
        pairs, base = None, 0
        for i in range(2):
            service = daemons.serve(controller, place, [path], name=f'service{i}')
            with FrontEnd(path, mem=memory) as front_end:
                if pairs:
                    front_end.pairs = pairs
                front_end.connect()
                front_end.start(base)
                front_end.echo(5)
                pairs, base = front_end.pairs, base + 5
                service.stop()
                assert front_end.is_closed()
            assert not os.path.exists(path)
    controller.stop()


def test_killed_service_leaves_a_usable_vf(place):
    controller = daemons.Controller(place, vfs=1)
    path = os.path.join(place, 'vhost')
    for i in range(2):
        service = daemons.serve(controller, place, [path], name=f'service{i}')
        with FrontEnd(path) as front_end:
            front_end.connect()
            front_end.start()
            front_end.echo(5)
            service.kill()
        if os.path.exists(path):
            os.unlink(path)
    controller.stop()


def test_polling_needs_no_kick(place):
    """Busy polling: the doorbell page is the guest's, and no kick passes through the service."""
    controller = daemons.Controller(place, vfs=1, polling=True)
    path = os.path.join(place, 'vhost')
    service = daemons.serve(controller, place, [path])
    with FrontEnd(path) as front_end:
        front_end.connect()
        front_end.start()
        deadline = time.monotonic() + 5 * daemons.SLOW
        while len(front_end.notifiers.pages) < 2:
            assert time.monotonic() < deadline, 'no host notifier came'
            time.sleep(0.01)
        before = int(service.vf_info(controller.vf(0)).get('relayed_kicks', 0))
        front_end.echo(50)
        after = int(service.vf_info(controller.vf(0)).get('relayed_kicks', 0))
        assert after == before
        front_end.stop()
    service.stop()
    controller.stop()


def test_controller_restart_under_a_running_guest(place):
    """The device side dies and comes back: the guest goes on without doing anything."""
    controller = daemons.Controller(place, vfs=1)
    path = os.path.join(place, 'vhost')
    service = daemons.serve(controller, place, [path])
    with FrontEnd(path) as front_end:
        front_end.connect()
        front_end.start()
        front_end.echo(5)
        controller.kill()
        controller = daemons.Controller(place, vfs=1)
        deadline = time.monotonic() + 15 * daemons.SLOW
        while True:
            front_end.kick(0)
            front_end.kick(1)
            info = service.vf_info(controller.vf(0))
            if info.get('configured') and not info.get('lost'):
                break
            assert time.monotonic() < deadline, info
            time.sleep(0.05)
        front_end.kick(0)
        front_end.echo(5)
        front_end.stop()
    service.stop()
    controller.stop()


def test_idle_service_does_nothing(svc):
    """No periodic wake-up: an idle service makes no context switches."""
    def switches():
        total = 0
        for task in os.listdir(f'/proc/{svc.service.pid}/task'):
            with open(f'/proc/{svc.service.pid}/task/{task}/status', encoding='ascii') as status:
                for line in status:
                    if line.startswith('voluntary_ctxt_switches'):
                        total += int(line.split()[1])
        return total
    time.sleep(0.1)
    before = switches()
    time.sleep(2)
    assert switches() - before <= 8, f'{switches() - before} wake-ups in 2 s'


def test_threads_do_not_grow_with_vfs(svc):
    before = svc.service.threads()
    svc.add(2)
    svc.add(3)
    try:
        assert svc.service.threads() == before
    finally:
        svc.remove(3)
        svc.remove(2)


def test_two_services_on_one_socket(svc):
    """The second one says what is wrong and ends; the first one is not disturbed."""
    argv = [a if not a.startswith(svc.service.prefix) else a + 'second' for a in svc.service.argv]
    with Rpc(svc.service.rpc_path) as rpc:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=20 * daemons.SLOW, check=False)
        shutil.rmtree(f'/var/run/dpdk/{svc.service.prefix}second', ignore_errors=True)
        assert done.returncode == 1
        assert svc.service.rpc_path in done.stderr
        rpc.call('version')
