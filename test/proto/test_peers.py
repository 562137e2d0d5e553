# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The peers themselves: the front end against DPDK's own back end, the rest against each other."""

import os
import shutil
import struct
import subprocess

import pytest

from peers import admin, emu, vfio_user
from peers.memory import Memory
from peers.vhost_user import FrontEnd
from peers.virtio import AdminPf, VirtioPci


@pytest.fixture
def testpmd(work):
    """DPDK's vhost PMD on a socket, echoing every packet."""
    program = shutil.which('dpdk-testpmd')
    if program is None:
        pytest.skip('dpdk-testpmd is not installed')
    path = os.path.join(work, 'testpmd.sock')
    with open(os.path.join(work, 'testpmd.log'), 'wb') as log:
        process = subprocess.Popen(
            [program, '--no-huge', '-m', '256', '-l', '0,1', '--no-pci',
             '--file-prefix', f'prototp{os.getpid()}', '--no-telemetry',
             '--vdev', f'net_vhost0,iface={path},queues=2', '--', '--rxq=2', '--txq=2',
             '--auto-start', '--forward-mode=io', '--total-num-mbufs=4096'],
            stdin=subprocess.PIPE, stdout=log, stderr=log)
    yield path
    process.stdin.close()
    try:
        process.wait(10)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(f'/var/run/dpdk/prototp{os.getpid()}', ignore_errors=True)


@pytest.mark.parametrize('pairs,indirect', [(1, False), (1, True), (2, False)])
def test_front_end_against_dpdk(testpmd, pairs, indirect):
    with FrontEnd(testpmd, queue_pairs=pairs, indirect=indirect) as front_end:
        front_end.connect()
        front_end.start()
        for pair in range(pairs):
            front_end.echo(100, pair)
        bases = front_end.stop()
    assert bases == {i: 100 for i in range(2 * pairs)}


@pytest.fixture
def pf(work):
    server = vfio_user.Server(os.path.join(work, 'pf.sock'), emu.Pf(vfs=2))
    yield server
    server.stop()


def test_client_walks_emulated_pf(pf):
    with VirtioPci(vfio_user.Client(pf.path)) as function:
        assert (function.vendor, function.device) == (0x1af4, 0x1041)
        assert set(function.caps) == {1, 2, 3, 4, 5}
        assert function.msix['count'] == 8
        assert function.sriov['first'] == 0x23 and function.sriov['num_vfs'] == 2
        assert function.offered() == emu.PF_FEATURES


def test_admin_queue_of_emulated_pf(pf):
    with AdminPf(vfio_user.Client(pf.path)) as driver:
        driver.start()
        assert driver.get_status(1) == admin.INIT
        driver.freeze(1)
        assert driver.get_status(1) == admin.FREEZED
        assert driver.restore(1, b'\x5a' * 4096) == admin.OK
        assert driver.save(1) == b'\x5a' * 4096
        status, _ = driver.command(99, 0)
        assert status == admin.INVALID_CLASS | admin.DNR
        status, _ = driver.command(64, 1, struct.pack('<HH', 3, 0), out=4)
        assert status == admin.ERR | admin.DNR


def test_server_hooks_change_the_reply(pf):
    def lie(_server, _body, reply):
        reply.body = b'\xff' * 16

    pf.hooks[vfio_user.DEVICE_GET_INFO] = lie
    with vfio_user.Client(pf.path) as client:
        assert client.device_info() == (0xffffffff,) * 4


def test_server_forgets_mappings_when_the_client_goes(pf):
    with Memory(8192, 0x1000) as memory, vfio_user.Client(pf.path) as client:
        client.map_memory(memory)
        assert pf.device.dma_read(0x1000, 4) == bytes(4)
    with vfio_user.Client(pf.path):
        assert not pf.device.maps


def test_state_blob_round_trip():
    state = admin.State()
    state.num_queues = 2
    state.driver_feature = 1 << 32
    state.status = 0xf
    state.rx_mode = 1
    state.queues[0] = admin.QueueState(0, 256, 1, 1, 0, 0x1000, 0x2000, 0x3000, avail=7, used=7)
    state.queues[1] = admin.QueueState(1, 256, 2, 1, 1, 0x4000, 0x5000, 0x6000, avail=9, used=9)
    blob = state.encode()
    assert len(blob) % admin.ALIGN == 0
    assert admin.State.decode(blob).encode() == blob
