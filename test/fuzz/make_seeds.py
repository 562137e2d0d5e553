#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Write inputs for the fuzzers to begin with: make_seeds.py FOLDER makes FOLDER/<target>/*."""
import os
import struct
import sys


def field(kind, value):
    return struct.pack('<II', kind, len(value)) + value


def state(config, optional, queues):
    fields = [field(0, struct.pack('<IQIQHHHBB', 0, 0x300bf8bad, 0, 0x300bf0bad, 0xffff, queues,
                                   0, 15, 1)),
              field(1, config), *optional]
    for i in range(queues):
        fields.append(field(2, struct.pack('<HHHHHQQQHH', i, 256, i + 1, 1, i, 0x1000, 0x2000,
                                           0x3000, i, 0)))
        fields.append(field(3, struct.pack('<HHH', i, 5, 4)))
    return struct.pack('<I', len(fields)) + b''.join(fields)


def state_seeds():
    net = b'\x02\x00\x00\x00\x00\x01' + struct.pack('<HHHIBBHI', 1, 2, 1500, 0, 0, 0, 0, 0)
    optional = [field(4, struct.pack('<I', 1)), field(5, bytes(512)), field(6, bytes(12)),
                field(7, bytes(6)), field(10, b'vendor')]
    return {'net': state(net, optional, 3), 'blk': state(bytes(72), [], 1),
            'padded': state(net, optional[:1], 1) + bytes(64)}


def jsonrpc_seeds():
    return {'echo': b'{"jsonrpc":"2.0","method":"echo","params":{"dev":"x","n":3},"id":1}\n',
            'hold': b'{"jsonrpc":"2.0","method":"hold","id":"a"}\n' * 3,
            'notify': b'{"jsonrpc":"2.0","method":"hold"}\n{"jsonrpc":"2.0","method":"echo"}',
            'wrong': b'[]\n{"jsonrpc":"2.0","method":"none","id":null}\n{"id":{}}\n\n\xff\n'}


def main():
    for target, seeds in (('state', state_seeds()), ('jsonrpc', jsonrpc_seeds())):
        folder = os.path.join(sys.argv[1], target)
        os.makedirs(folder, exist_ok=True)
        for name, data in seeds.items():
            with open(os.path.join(folder, name), 'wb') as f:
                f.write(data)
    with open(os.path.join(sys.argv[1], 'stamp'), 'w'):
        pass


main()
