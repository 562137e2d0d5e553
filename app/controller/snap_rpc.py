#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""virtio-blk controllers of virtio-net-controller, by the commands of BlueField SNAP."""
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.normpath(os.path.join(HERE, p)) for p in ('../common', '../share/vfe')]

import vfe_blk_rpc  # noqa: E402 (the path had to be set)
import vfe_rpc  # noqa: E402
from vfe_blk_rpc import Command, name, number  # noqa: E402

INDEX = number(0, 65535)


def place_check(args):
    """What argparse cannot say: what is wrong, or None."""
    vuid, pf, vf = (getattr(args, key, None) for key in ('vuid', 'pf_id', 'vf_id'))
    if vuid is not None and (pf is not None or vf is not None):
        return '--vuid goes without --pf_id and --vf_id'
    if vuid is None and pf is None:
        return '--pf_id is missing' + (', or --vuid' if hasattr(args, 'ctrl_verb') else '')
    return None


def add_create_options(create):
    create.add('--pf_id', type=INDEX, metavar='ID', help='number of the PF')
    create.add('--vf_id', type=INDEX, metavar='ID', help='number of the VF of that PF, from 0')
    create.add('--bdev', type=name, required=True, help='name of its bdev')
    create.add('--num_queues', type=number(1, 256), metavar='N',
               help='request queues (default: as the configuration says, which is the most)')
    create.add('--seg_max', type=number(1, 1000), metavar='N', help='segments of a request')
    create.add('--size_max', type=number(4096, 1 << 30), metavar='BYTES',
               help='bytes of a segment')
    create.add('--vblk_id', metavar='TEXT', help='serial number, up to 20 characters')
    create.add('--admin_q', action='store_true',
               help='of a PF: with admin queue, which live migration of its VFs needs')
    create.add('--force_in_order', action='store_true',
               help='give requests back in the order in which they came')


def add_new(commands):
    create = Command(commands, 'virtio_blk_controller_create', 'create a virtio-blk controller',
                     check=place_check)
    add_create_options(create)
    create.add('--vuid', metavar='VUID', help='the function, instead of --pf_id and --vf_id')
    create.add('-c', '--ctrl', type=name, metavar='NAME', help='name of the controller')
    create.add('--read_only', action='store_true', help='hosts may only read')
    create.parser.set_defaults(ctrl_verb=True)
    Command(commands, 'virtio_blk_controller_destroy', 'destroy a virtio-blk controller').add(
        '-c', '--ctrl', type=name, metavar='NAME', required=True, help='name of the controller')
    Command(commands, 'virtio_blk_controller_list', 'list virtio-blk controllers in detail').add(
        '-c', '--ctrl', type=name, metavar='NAME', help='only this one')


def add_old(commands):
    create = Command(commands, 'controller_virtio_blk_create', 'create a virtio-blk controller',
                     check=place_check)
    create.add('emulation_manager', help='RDMA device, e.g. mlx5_0')
    add_create_options(create)
    create.add('--bdev_type', choices=('spdk',), help='type of the bdev')
    Command(commands, 'controller_virtio_blk_delete', 'destroy a virtio-blk controller').add(
        'name', type=name, help='name of the controller')


def add_commands(commands):
    add_new(commands)
    add_old(commands)
    Command(commands, 'controller_list', 'list controllers')
    Command(commands, 'emulation_function_list', 'list virtio-blk functions')


def main(argv):
    return vfe_blk_rpc.run('snap_rpc.py', 'virtio-blk controllers of ' + vfe_blk_rpc.SERVICE,
                           add_commands, argv)


if __name__ == '__main__':
    vfe_rpc.main('snap_rpc.py', main)
