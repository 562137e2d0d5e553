# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Tests of spdk_rpc.py and snap_rpc.py: what goes over the wire, what is printed, exit status."""
import json
import os

import pytest

from cli_harness import TOP, error, result, run

SPDK = os.path.join('app', 'controller', 'spdk_rpc.py')
SNAP = os.path.join('app', 'controller', 'snap_rpc.py')


@pytest.fixture
def spdk(server):
    return lambda *argv: run(SPDK, '-s', server.path, *argv)


@pytest.fixture
def snap(server):
    return lambda *argv: run(SNAP, '-s', server.path, *argv)


@pytest.mark.parametrize('line, method, params', [
    # as the user guide has it
    ('bdev_null_create Null0 1024 512', 'bdev_null_create',
     {'name': 'Null0', 'num_blocks': 2097152, 'block_size': 512}),
    ('bdev_null_create Null0 1 4096', 'bdev_null_create',
     {'name': 'Null0', 'num_blocks': 256, 'block_size': 4096}),
    ('bdev_null_delete Null0', 'bdev_null_delete', {'name': 'Null0'}),
    ('bdev_null_resize Null0 2048', 'bdev_null_resize', {'name': 'Null0', 'new_size': 2048}),
    ('bdev_malloc_create -b M 64 512', 'bdev_malloc_create',
     {'name': 'M', 'num_blocks': 131072, 'block_size': 512}),
    ('bdev_malloc_delete M', 'bdev_malloc_delete', {'name': 'M'}),
    ('bdev_aio_create /x/disk.img Disk0', 'bdev_aio_create',
     {'filename': '/x/disk.img', 'name': 'Disk0'}),
    ('bdev_aio_create /x/disk.img Disk0 4096 --readonly --io threads', 'bdev_aio_create',
     {'filename': '/x/disk.img', 'name': 'Disk0', 'block_size': 4096, 'readonly': True,
      'io': 'threads'}),
    ('bdev_uring_create /x/disk.img Disk0 --size 16 --buffered', 'bdev_uring_create',
     {'filename': '/x/disk.img', 'name': 'Disk0', 'size_mib': 16, 'buffered': True}),
    ('bdev_aio_rescan Disk0', 'bdev_aio_rescan', {'name': 'Disk0'}),
    ('bdev_uring_delete Disk0', 'bdev_uring_delete', {'name': 'Disk0'}),
    ('bdev_get_bdevs', 'bdev_get_bdevs', {}),
    ('bdev_get_bdevs -b Null0', 'bdev_get_bdevs', {'name': 'Null0'}),
    ('bdev_inject D fail --op write --every 3 --sector 0 --sectors 8', 'bdev_inject',
     {'name': 'D', 'action': 'fail', 'op': 'write', 'every': 3, 'sector': 0, 'sectors': 8}),
])
def test_bdevs_on_the_wire(server, spdk, line, method, params):
    server.replies = [result('Null0')]
    done = spdk(*line.split())
    assert (done.status, done.err, done.out) == (0, '', 'Null0\n')
    assert server.params() == (method, params)


@pytest.mark.parametrize('line, method, params', [
    # as the user guide has them
    ('controller_virtio_blk_create --pf_id 0 --bdev_type spdk mlx5_0 --bdev Null0 --num_queues 1 '
     '--admin_q --force_in_order', 'controller_virtio_blk_create',
     {'pf_id': 0, 'bdev_type': 'spdk', 'emulation_manager': 'mlx5_0', 'bdev': 'Null0',
      'num_queues': 1, 'admin_q': True, 'force_in_order': True}),
    ('controller_virtio_blk_create mlx5_0 --pf_id 0 --vf_id 0 --bdev_type spdk --bdev Null0 '
     '--force_in_order', 'controller_virtio_blk_create',
     {'pf_id': 0, 'vf_id': 0, 'bdev_type': 'spdk', 'emulation_manager': 'mlx5_0',
      'bdev': 'Null0', 'force_in_order': True}),
    ('virtio_blk_controller_create --pf_id 0 --bdev Null0 --num_queues 1 --admin_q '
     '--force_in_order', 'virtio_blk_controller_create',
     {'pf_id': 0, 'bdev': 'Null0', 'num_queues': 1, 'admin_q': True, 'force_in_order': True}),
    ('controller_list', 'controller_list', {}),
    # and the rest
    ('virtio_blk_controller_create --vuid VBLKS0D0F3VF1 -c C1 --bdev D --seg_max 32 '
     '--size_max 4096 --vblk_id serial --read_only', 'virtio_blk_controller_create',
     {'vuid': 'VBLKS0D0F3VF1', 'ctrl': 'C1', 'bdev': 'D', 'seg_max': 32, 'size_max': 4096,
      'vblk_id': 'serial', 'read_only': True}),
    ('virtio_blk_controller_destroy -c C1', 'virtio_blk_controller_destroy', {'ctrl': 'C1'}),
    ('controller_virtio_blk_delete C1', 'controller_virtio_blk_delete', {'name': 'C1'}),
    ('virtio_blk_controller_list --ctrl C1', 'virtio_blk_controller_list', {'ctrl': 'C1'}),
    ('emulation_function_list', 'emulation_function_list', {}),
])
def test_controllers_on_the_wire(server, snap, line, method, params):
    reply = [{'name': 'VblkEmu0pf0', 'type': 'virtio_blk'}]
    server.replies = [result(reply)]
    done = snap(*line.split())
    assert (done.status, done.err) == (0, '')
    assert done.out == json.dumps(reply, indent=4) + '\n'
    assert server.params() == (method, params)


@pytest.mark.parametrize('program, line, words', [
    (SPDK, '', 'required'),
    (SPDK, 'bdev_nvme_create', 'invalid choice'),
    (SPDK, 'bdev_null_create Null0 1024', 'required: block_size'),
    (SPDK, 'bdev_null_create Null0 1024 512 --uuid x', 'unrecognized arguments: --uuid x'),
    (SPDK, 'bdev_null_create Null0 0 512', '0'),
    (SPDK, 'bdev_null_create Null0 1k 512', '1k'),
    (SPDK, 'bdev_null_create Null0 1024 1000', 'not a power of two'),
    (SPDK, 'bdev_null_create Null0 1024 256', '512 to 65536'),
    (SPDK, 'bdev_null_create a/b 1024 512', 'not a name'),
    (SPDK, 'bdev_aio_create /x D --io dpdk', 'invalid choice'),
    (SPDK, 'bdev_inject D break', 'invalid choice'),
    (SNAP, 'virtio_blk_controller_create --pf_id 0 --bdev D --suspended', 'unrecognized'),
    (SNAP, 'virtio_blk_controller_create --pf_id 0', '--bdev'),
    (SNAP, 'virtio_blk_controller_create --bdev D', '--pf_id is missing, or --vuid'),
    (SNAP, 'virtio_blk_controller_create --bdev D --vf_id 0', '--pf_id is missing'),
    (SNAP, 'virtio_blk_controller_create --bdev D --pf_id 0 --vuid V', 'goes without'),
    (SNAP, 'virtio_blk_controller_create --bdev D --pf_id 0 --num_queues 0', '1 to 256'),
    (SNAP, 'controller_virtio_blk_create --pf_id 0 --bdev D', 'emulation_manager'),
    (SNAP, 'controller_virtio_blk_create mlx5_0 --pf_id 0 --bdev D --bdev_type none', 'choice'),
    (SNAP, 'controller_virtio_blk_create mlx5_0 --bdev D', '--pf_id is missing'),
    (SNAP, 'virtio_blk_controller_destroy', '--ctrl'),
])
def test_usage_errors_send_nothing(server, program, line, words):
    done = run(program, '-s', server.path, *line.split())
    assert done.status == 2
    assert done.out == ''
    assert words in done.err
    assert server.requests == []


def test_success_without_a_result_prints_nothing(server, spdk):
    server.replies = [result(True)]
    done = spdk('bdev_null_delete', 'Null0')
    assert (done.status, done.out, done.err) == (0, '', '')


def test_relative_file_is_that_of_the_caller(server, spdk):
    server.replies = [result('D')]
    assert spdk('bdev_aio_create', 'disk.img', 'D').status == 0
    assert server.params()[1]['filename'] == os.path.join(TOP, 'disk.img')


@pytest.mark.parametrize('program, argv, what', [
    (SPDK, ['bdev_null_delete', 'Null0'], 'bdev_null_delete'),
    (SNAP, ['controller_list'], 'controller_list'),
])
def test_errors_of_the_controller(server, program, argv, what):
    server.replies = [error(-32602, 'there is no bdev Null0')]
    done = run(program, '-s', server.path, *argv)
    assert (done.status, done.out) == (1, '')
    assert done.err == '%s: error: %s: there is no bdev Null0 (error -32602)\n' % (
        os.path.basename(program), what)


def test_a_scalar_is_no_result(server, spdk):
    server.replies = [result(5)]
    assert spdk('bdev_get_bdevs').status == 1
