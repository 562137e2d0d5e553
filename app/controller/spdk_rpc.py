#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Block devices (bdevs) of virtio-net-controller, by the commands of SPDK's rpc.py."""
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.normpath(os.path.join(HERE, p)) for p in ('../common', '../share/vfe')]

import vfe_blk_rpc  # noqa: E402 (the path had to be set)
import vfe_rpc  # noqa: E402
from vfe_blk_rpc import Command, name, number  # noqa: E402

MIB = 1 << 20
SIZE = number(1, 1 << 40)       # MiB
BLOCK_SIZE = number(512, 65536)


def blocks_request(args):
    """Sizes come in MiB and go as blocks."""
    return {'name': args.name, 'num_blocks': args.total_size * MIB // args.block_size,
            'block_size': args.block_size}


def blocks_check(args):
    if args.block_size & args.block_size - 1:
        return 'block_size %d is not a power of two' % args.block_size
    return None


def add_null(commands):
    null = Command(commands, 'bdev_null_create', 'create a bdev that reads and writes nothing',
                   blocks_request, blocks_check)
    null.add('name', type=name, help='name of the bdev')
    null.add('total_size', type=SIZE, help='size in MiB')
    null.add('block_size', type=BLOCK_SIZE, help='bytes per block')
    Command(commands, 'bdev_null_delete', 'delete a null bdev').add(
        'name', type=name, help='name of the bdev')
    Command(commands, 'bdev_null_resize', 'resize a null bdev; hosts are told').add(
        'name', type=name, help='name of the bdev').add(
        'new_size', type=SIZE, help='size in MiB')


def add_malloc(commands):
    malloc = Command(commands, 'bdev_malloc_create', 'create a bdev in memory', blocks_request,
                     blocks_check)
    malloc.add('-b', '--name', type=name, required=True, help='name of the bdev')
    malloc.add('total_size', type=SIZE, help='size in MiB')
    malloc.add('block_size', type=BLOCK_SIZE, help='bytes per block')
    Command(commands, 'bdev_malloc_delete', 'delete a bdev in memory, with its contents').add(
        'name', type=name, help='name of the bdev')
    Command(commands, 'bdev_malloc_resize', 'resize a bdev in memory; hosts are told').add(
        'name', type=name, help='name of the bdev').add(
        'new_size', type=SIZE, help='size in MiB')


def file_request(command):
    def request(args):
        params = command.request(args)
        params['filename'] = os.path.abspath(params['filename'])
        return params
    return request


def add_file(commands, kind, how):
    create = Command(commands, 'bdev_%s_create' % kind,
                     'create a bdev on a file or block device (%s)' % how)
    create.add('filename', help='file or block device')
    create.add('name', type=name, help='name of the bdev')
    create.add('block_size', type=BLOCK_SIZE, nargs='?', help='bytes per block (default 512)')
    create.add('-r', '--readonly', action='store_true', help='hosts may only read')
    create.add('--size', dest='size_mib', type=SIZE, metavar='MIB',
               help='create the file, or make it as large as this')
    create.add('--buffered', action='store_true', help='go through the page cache')
    if kind == 'aio':
        create.add('--io', choices=('auto', 'io_uring', 'threads'),
                   help='how (default auto: io_uring if it is allowed)')
    create.parser.set_defaults(request=file_request(create))
    Command(commands, 'bdev_%s_delete' % kind, 'delete a bdev on a file, which stays').add(
        'name', type=name, help='name of the bdev')
    Command(commands, 'bdev_%s_rescan' % kind,
            'take the size that the file has now; hosts are told').add(
        'name', type=name, help='name of the bdev')


def add_inject(commands):
    inject = Command(commands, 'bdev_inject', 'for tests: let requests fail, or wait')
    inject.add('name', type=name, help='name of the bdev')
    inject.add('action', choices=('none', 'fail', 'hold'), help='none ends it')
    inject.add('--op', choices=('all', 'read', 'write', 'flush', 'discard', 'write_zeroes'),
               help='only these requests (default all)')
    inject.add('--every', type=number(1, (1 << 31) - 1), metavar='N',
               help='only each N-th of them (default 1)')
    inject.add('--sector', type=number(0, 1 << 53), help='only from this sector on')
    inject.add('--sectors', type=number(1, 1 << 53), metavar='N', help='and only so many')


def add_commands(commands):
    add_null(commands)
    add_malloc(commands)
    add_file(commands, 'aio', 'with threads where io_uring is not allowed')
    add_file(commands, 'uring', 'with io_uring')
    Command(commands, 'bdev_get_bdevs', 'list bdevs').add(
        '-b', '--name', type=name, help='only this one')
    add_inject(commands)


def main(argv):
    return vfe_blk_rpc.run('spdk_rpc.py', 'Block devices of ' + vfe_blk_rpc.SERVICE, add_commands,
                           argv)


if __name__ == '__main__':
    vfe_rpc.main('spdk_rpc.py', main)
