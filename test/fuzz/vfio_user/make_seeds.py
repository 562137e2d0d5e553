#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Write honest inputs of the vfio-user fuzz targets, from which libFuzzer makes bad ones."""
import os
import struct
import sys

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IO_FDS, IRQ_INFO, SET_IRQS = range(1, 9)
REGION_READ, REGION_WRITE, RESET = 9, 10, 13
NO_REPLY = 0x10
MEMORY = 0x80 + 12  # fds of a record: 140 % 20 is none, so add the number wanted


def command(number, body=b'', flags=0, fds=0):
    """A record of fuzz_server.c."""
    return struct.pack('<BBBH', number, flags, fds, len(body)) + body


def dma_map(iova, size, flags=3, offset=0, fds=MEMORY + 1):
    return command(DMA_MAP, struct.pack('<IIQQQ', 32, flags, offset, iova, size), fds=fds)


def dma_unmap(iova, size, flags=0):
    return command(DMA_UNMAP, struct.pack('<IIQQ', 24, flags, iova, size))


def set_irqs(flags, start, count, data=b'', fds=0):
    return command(SET_IRQS, struct.pack('<5I', 20 + len(data), flags, 2, start, count) + data,
                   fds=fds)


def region_rw(number, region, offset, count, data=b'', flags=0):
    return command(number, struct.pack('<QII', offset, region, count) + data, flags)


def region_info(index, argsz):
    return command(REGION_INFO, struct.pack('<IIIIQQ', argsz, 0, index, 0, 0, 0))


SERVER = {
    'info': command(GET_INFO, struct.pack('<4I', 16, 0, 0, 0)),
    'regions': b''.join(region_info(i, 32) for i in range(9)) + region_info(4, 80),
    'io_fds': b''.join(command(IO_FDS, struct.pack('<4I', n, 0, 4, 0)) for n in (16, 4096)),
    'irq_info': command(IRQ_INFO, struct.pack('<4I', 16, 0, 2, 0)),
    'irqs': (set_irqs(0x24, 0, 4, fds=4) + set_irqs(0x24, 1, 2) + set_irqs(0x21, 0, 0) +
             set_irqs(0x22, 0, 3, b'\1\0\1') + set_irqs(0x21, 0, 1) + set_irqs(0x09, 0, 1)),
    'rw': (region_rw(REGION_READ, 0, 4, 4) + region_rw(REGION_WRITE, 0, 8, 4, b'abcd') +
           region_rw(REGION_WRITE, 0, 8, 4, b'abcd', NO_REPLY)),
    'kick_out': region_rw(REGION_WRITE, 4, 0, 2, b'ab') + command(RESET),
    'dma': (dma_map(0x10000, 0x2000) + dma_map(0x20000, 0x1000, 1, 0x3000) +
            dma_map(0x12000, 0x1000, 2) + dma_map(0xdead000, 0x1000) +
            dma_map(0x30000, 0x1000, fds=0) + dma_map(0x40000, 0x1000, fds=1) +
            dma_map(0x50000, 0x20000) + dma_map(0x10000, 0x1000) +
            dma_unmap(0x20000, 0x1000) + dma_unmap(0x20000, 0x1000) + dma_unmap(0, 0, 2)),
    'reset': command(RESET) + command(RESET, flags=NO_REPLY),
}


def reply(body=b'', fds=0, flags=0):
    """A record of fuzz_client.c; flags are turned over from those of an honest reply."""
    return struct.pack('<BBH', flags, fds, len(body)) + body


def client_replies(stride):
    sparse = struct.pack('<HHIII', 1, 1, 0, 2, 0) + struct.pack('<4Q', 0, 4096, 8192, 4096)
    info = struct.pack('<IIIIQQ', 32 + len(sparse), 15, 4, 32, 0x4000, 0)
    sub = struct.pack('<QQIIIIQ', 0, 2, 1, 0, 0, 0, 0).ljust(stride, b'\0')
    echo = struct.pack('<QII', 4, 0, 8)
    return [
        reply(struct.pack('<HH', 0, 1) + b'{"capabilities":{"max_msg_fds":8}}\0'),
        reply(struct.pack('<4I', 16, 3, 9, 5)),
        reply(info + sparse, 1),
        reply(struct.pack('<4I', 16 + 2 * stride, 0, 4, 2) + 2 * sub, 2),
        reply(struct.pack('<4I', 16, 1, 2, 4)),
        reply(echo + b'12345678'),
        reply(echo),
        reply(struct.pack('<IIQQ', 24, 0, 4096, 4096)),
        reply(),
    ]


def raw_client_replies():
    """The first replies as they are on the wire."""
    raw = b''
    for i, record in enumerate(client_replies(40)[:2]):
        body = record[4:]
        raw += struct.pack('<HHIII', i, (VERSION, GET_INFO)[i], 16 + len(body), 1, 0) + body
    return raw


def write(folder, name, data):
    with open(os.path.join(folder, name), 'wb') as f:
        f.write(data)


def main():
    out = sys.argv[1]
    server, client = os.path.join(out, 'server'), os.path.join(out, 'client')
    os.makedirs(server, exist_ok=True)
    os.makedirs(client, exist_ok=True)
    for name, records in SERVER.items():
        write(server, name, b'\0' + records)
    write(server, 'all', b'\0' + b''.join(SERVER.values()))
    hello = struct.pack('<HHIII', 1, VERSION, 20, 0, 0) + struct.pack('<HH', 0, 1)
    write(server, 'raw', b'\1' + hello + struct.pack('<HHIII', 2, RESET, 16, 0, 0))

    write(client, 'honest', b'\0' + b''.join(client_replies(40)))
    write(client, 'stride', b'\0' + b''.join(client_replies(48)))
    write(client, 'refused', b'\0' + client_replies(40)[0] + 8 * reply(flags=0x20))
    write(client, 'raw', b'\1' + raw_client_replies())
    write(out, 'stamp', b'')


if __name__ == '__main__':
    main()
