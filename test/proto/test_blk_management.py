# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Disks and controllers by spdk_rpc.py and snap_rpc.py, and what their methods refuse."""

import json
import os
import struct
import subprocess
import sys
import tempfile

import pytest

from peers import admin, blk, daemons
from peers.blk import OK
from peers.jsonrpc import RpcError


def test_management_of_the_user_guide(work):
    directory = tempfile.mkdtemp(prefix='g', dir=work)
    dpu = blk.BlkController(directory, vfs=2)

    def tool(name, line):
        program = os.path.join(daemons.REPO, 'app', 'controller', name)
        done = subprocess.run([sys.executable, program, '-s', dpu.rpc_path, *line.split()],
                              capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    assert not os.path.exists(dpu.pf_socket) and not os.path.exists(dpu.vf_socket(0))
    assert tool('spdk_rpc.py', 'bdev_null_create Null0 1024 512') == (0, 'Null0\n', '')
    status, _, err = tool('spdk_rpc.py', 'bdev_null_create Null0 1024 512')
    assert status == 1 and 'already' in err
    create = ('controller_virtio_blk_create --pf_id 0 --bdev_type spdk mlx5_0 --bdev Null0 '
              '--num_queues 1 --admin_q --force_in_order')
    assert tool('snap_rpc.py', create) == (0, 'VblkEmu0pf0\n', '')
    status, _, err = tool('snap_rpc.py', create)
    assert status == 1 and 'already' in err
    assert tool('snap_rpc.py', 'controller_virtio_blk_create mlx5_0 --pf_id 0 --vf_id 0 '
                '--bdev_type spdk --bdev Null0 --force_in_order')[0] == 0
    names = [c['name'] for c in json.loads(tool('snap_rpc.py', 'controller_list')[1])]
    assert names == ['VblkEmu0pf0', 'VblkEmu0pf0vf0']
    status, _, err = tool('snap_rpc.py', 'virtio_blk_controller_create --pf_id 0 --vf_id 1 '
                          '--bdev Null1')
    assert status == 1 and 'Null1' in err
    status, _, err = tool('snap_rpc.py', 'virtio_blk_controller_create --pf_id 0 --vf_id 2 '
                          '--bdev Null0')
    assert status == 1 and 'it has 2 VFs' in err
    with dpu.admin() as pf, dpu.blk(0) as vf:
        pf.start()
        assert pf.get_status(1) == admin.INIT
        vf.start()
        assert vf.blk_config()['num_queues'] == 4 and vf.write(0, bytes(512)) == OK
        status, _, err = tool('spdk_rpc.py', 'bdev_null_delete Null0')
        assert status == 1 and '2 controllers use it' in err
        # the other generation of the commands; the client is disconnected
        assert tool('snap_rpc.py', 'virtio_blk_controller_destroy -c VblkEmu0pf0vf0')[0] == 0
        assert pf.command(64, 1, struct.pack('<HH', 1, 0), out=4)[0] == admin.ERR | admin.DNR
    assert not os.path.exists(dpu.vf_socket(0))
    assert json.loads(tool('snap_rpc.py', 'virtio_blk_controller_create --pf_id 0 --vf_id 0 '
                           '--bdev Null0 --num_queues 1 -c mine')[1]) == {'ctrl_id': 'mine'}
    with dpu.blk(0) as vf:
        vf.start()
        assert vf.blk_config()['num_queues'] == 1 and not vf.offered() >> blk.F_MQ & 1
    functions = json.loads(tool('snap_rpc.py', 'emulation_function_list')[1])
    assert [f['ctrl_id'] for f in functions] == ['VblkEmu0pf0']
    assert [f.get('ctrl_id') for f in functions[0]['vfs']] == ['mine', None]
    assert tool('snap_rpc.py', 'virtio_blk_controller_destroy -c mine')[0] == 0
    assert tool('snap_rpc.py', 'controller_virtio_blk_delete VblkEmu0pf0')[0] == 0
    assert tool('spdk_rpc.py', 'bdev_null_delete Null0') == (0, '', '')
    dpu.stop()


def test_files_by_management(work):
    directory = tempfile.mkdtemp(prefix='f', dir=work)
    dpu = blk.BlkController(directory, vfs=2)
    path = os.path.join(directory, 'new.img')

    def refused(method, **params):
        with pytest.raises(RpcError) as info:
            dpu.rpc(method, params)
        return str(info.value)

    assert 'No such file' in refused('bdev_aio_create', name='D', filename=path)
    assert directory in refused('bdev_aio_create', name='D', filename=directory)
    assert 'absolute' in refused('bdev_aio_create', name='D', filename='x')
    assert dpu.rpc('bdev_aio_create', {'name': 'D', 'filename': path, 'size_mib': 1}) == 'D'
    assert os.stat(path).st_size == 1 << 20 and os.stat(path).st_mode & 0o777 == 0o600
    fifo = os.path.join(directory, 'fifo')
    os.mkfifo(fifo)
    assert 'neither a file' in refused('bdev_aio_create', name='F', filename=fifo)
    empty = blk.make_image(os.path.join(directory, 'empty'), 100)
    assert 'less than one block' in refused('bdev_aio_create', name='E', filename=empty)
    assert 'is a File disk' in refused('bdev_null_delete', name='D')
    assert 'no bdev' in refused('bdev_aio_rescan', name='X')
    assert 'no bdev' in refused('bdev_inject', name='X', action='none')
    assert 'unknown' in refused('bdev_null_create', name='N', num_blocks=1, block_size=512, u=1)
    assert 'power of two' in refused('bdev_null_create', name='N', num_blocks=9, block_size=1000)
    dpu.rpc('virtio_blk_controller_create', {'pf_id': 0, 'vf_id': 1, 'bdev': 'D'})
    with dpu.blk(1) as vf:
        vf.start()
        data = os.urandom(4096)
        assert vf.write(0, data) == OK and vf.flush() == OK
        with open(path, 'rb') as image:
            assert image.read(4096) == data
    assert 'controllers use it' in refused('bdev_aio_delete', name='D')
    dpu.rpc('virtio_blk_controller_destroy', {'ctrl': 'VblkEmu0pf0vf1'})
    assert dpu.rpc('bdev_aio_delete', {'name': 'D'}) is True
    assert os.path.exists(path)
    dpu.stop()


@pytest.mark.parametrize('io', ['io_uring', 'threads'])
def test_block_device(work, io):
    """A loop device on a file: what a disk of the host is to us."""
    directory = tempfile.mkdtemp(prefix='d', dir=work)
    image = blk.make_image(os.path.join(directory, 'loop.img'), 8 << 20)
    loop = subprocess.run(['losetup', '-f', '--show', image], capture_output=True, text=True,
                          check=False)
    if loop.returncode:
        pytest.skip('no loop device: ' + loop.stderr)
    device = loop.stdout.strip()
    try:
        dpu = blk.BlkController(directory, vfs=1)
        dpu.rpc('bdev_aio_create', {'name': 'D', 'filename': device, 'io': io})
        assert dpu.bdev('D')['num_blocks'] == 16384 and dpu.bdev('D')['io'] == io
        dpu.rpc('virtio_blk_controller_create', {'pf_id': 0, 'vf_id': 0, 'bdev': 'D'})
        with dpu.blk(0) as vf:
            vf.start()
            for sector, length in ((0, 65536), (2001, 512), (16376, 4096)):
                data = os.urandom(length)
                assert vf.write(sector, data) == OK and vf.flush() == OK
                assert vf.read(sector, length) == data
                with open(image, 'rb') as file:
                    assert os.pread(file.fileno(), length, sector * 512) == data
            full = os.stat(image).st_blocks
            assert vf.ranges(blk.T_DISCARD, (0, 64, 0), (64, 64, 0)) == OK
            assert os.stat(image).st_blocks <= full - 100, 'nothing was given back'
            data = os.urandom(4096)
            for flags in (0, 1):
                assert vf.write(0, data) == OK
                assert vf.ranges(blk.T_WRITE_ZEROES, (1, 3, flags)) == OK
                assert vf.read(0, 4096) == data[:512] + bytes(1536) + data[2048:]
        dpu.stop()
    finally:
        subprocess.run(['losetup', '-d', device], check=True)
