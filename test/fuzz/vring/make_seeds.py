#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Inputs for fuzz_vring to start from: rings with chains of every shape. Usage: DIR STAMP"""
import os
import struct
import sys

BASE = 0x1000
DESC, AVAIL, USED, TABLE = 0, 256, 320, 512
BUF, READ_ONLY = BASE + 1024, 0x8000
NEXT, WRITE, INDIRECT = 1, 2, 4


def ring(flags, descs, heads, table=(), ops=bytes(range(16)), index=0):
    memory = bytearray(1024)
    for i, desc in enumerate(descs):
        struct.pack_into('<QIHH', memory, DESC + 16 * i, *desc)
    for i, desc in enumerate(table):
        struct.pack_into('<QIHH', memory, TABLE + 16 * i, *desc)
    struct.pack_into('<HH', memory, AVAIL, 0, (index + len(heads)) & 0xffff)
    for i, head in enumerate(heads):
        struct.pack_into('<H', memory, AVAIL + 4 + 2 * ((index + i) % 16), head)
    settings = bytes([flags, DESC // 16, AVAIL // 4, USED // 4, index >> 8, index & 255,
                      (len(ops) - 8) % 24, 0])
    return settings + ops + bytes(memory) + bytes(512)


SEEDS = {
    'plain': ring(0, [(BUF, 64, 0, 0), (BUF + 64, 64, WRITE, 0)], [0, 1]),
    'chain': ring(1, [(BUF, 12, NEXT, 1), (READ_ONLY, 100, NEXT, 2), (BUF + 64, 64, WRITE, 0)],
                  [0]),
    'indirect': ring(3, [(BASE + TABLE, 32, INDIRECT, 0)], [0, 0],
                     [(BUF, 12, NEXT, 1), (BUF + 20, 64, WRITE, 0)]),
    'across': ring(2, [(BUF - 10, 30, WRITE, 0)], [0]),
    'wrap': ring(1, [(BUF, 64, 0, 0)], [0] * 8, index=0xfffc),
}


def main():
    folder, stamp = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    for name, data in SEEDS.items():
        with open(os.path.join(folder, name), 'wb') as f:
            f.write(data)
    with open(stamp, 'w', encoding='ascii') as f:
        f.write('ok\n')


if __name__ == '__main__':
    main()
