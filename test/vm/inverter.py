# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Inverts the bits of the datagrams of a guest and sends them back, until an empty one comes.

An empty datagram tells the guest to begin. Prints how many bytes have come, and their CRC.
"""
import socket
import sys
import zlib

TIMEOUT = 60
INVERTED = bytes(255 - byte for byte in range(256))


def main():
    size = crc = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(TIMEOUT)
        s.connect((sys.argv[1], int(sys.argv[2])))
        s.send(b'')
        while True:
            data = s.recv(65536)
            if not data:
                break
            size += len(data)
            crc = zlib.crc32(data, crc)
            s.send(data.translate(INVERTED))
    print('%d bytes, CRC %08x' % (size, crc))


if __name__ == '__main__':
    main()
