# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""What a test does with the Linux inside a guest, however the guest was started."""
import hashlib
import os
import re
import socket
import threading

from .agent import CommandFailed
from .disk import serial

COPY_BLOCK = 1 << 20


class Linux:
    """The operating system of a guest: needs an agent, a name and the guest's NICs."""

    name = None
    agent = None
    nics = ()

    def run(self, command, timeout=30, check=True):
        """Run a shell command in the guest; returns its output."""
        status, output = self.agent.run(command, timeout)
        if check and status != 0:
            raise CommandFailed(command, status, output)
        return output

    def status(self, command, timeout=30):
        """Run a shell command in the guest; returns its exit status."""
        return self.agent.run(command, timeout)[0]

    def ifname(self, index=0):
        """The guest's name of a NIC, found by its MAC address."""
        return self.run("grep -il '^%s$' /sys/class/net/*/address | cut -d/ -f5"
                        % self.nics[index].mac).strip()

    def block_device(self, vf=0):
        """The guest's block device on the disk of a VF, found by its serial number."""
        return '/dev/' + self.run("grep -lx '%s' /sys/block/*/serial | cut -d/ -f4"
                                  % serial(vf)).strip()

    def configure(self, address, index=0):
        """Give a NIC an address with prefix length and bring it up."""
        ifname = self.ifname(index)
        self.run('ip addr flush dev %s; ip addr add %s dev %s && ip link set %s up'
                 % (ifname, address, ifname, ifname))

    def ping(self, address, count=3, timeout=20):
        """Ping until one answer came, then count more without loss."""
        self.run('end=$(($(cut -d. -f1 /proc/uptime) + %d)); until ping -c 1 -W 1 %s >/dev/null; '
                 'do [ $(cut -d. -f1 /proc/uptime) -lt $end ] || exit 1; sleep 0.1; done'
                 % (timeout, address), timeout + 10)
        output = self.run('ping -c %d -i 0.2 -W 2 %s' % (count, address), count * 2 + 10)
        if ' 0% packet loss' not in output:
            raise AssertionError('%s: ping %s lost packets:\n%s' % (self.name, address, output))

    def pings(self, address):
        """Whether a single ping is answered within a second."""
        return self.status('ping -c 1 -W 1 %s >/dev/null' % address) == 0

    def copy_in(self, netns, address, size, timeout=120):
        """Copy random bytes from a namespace into the guest and compare the checksums."""
        digest = hashlib.sha256()

        def serve(conn):
            left = size
            while left:
                block = os.urandom(min(left, COPY_BLOCK))
                digest.update(block)
                conn.sendall(block)
                left -= len(block)

        with _Server(netns, address, serve, timeout) as server:
            output = self.run('nc %s %d </dev/null | tee /tmp/copy | sha256sum'
                              % (address, server.port), timeout)
        received = int(self.run('wc -c </tmp/copy'))
        assert received == size, 'the guest got %d of %d bytes' % (received, size)
        assert output.split()[0] == digest.hexdigest(), 'a copy into the guest is corrupt'
        self.run('rm /tmp/copy')

    def copy_out(self, netns, address, size, timeout=120):
        """Copy random bytes from the guest into a namespace and compare the checksums."""
        digest = hashlib.sha256()
        received = []

        def serve(conn):
            while True:
                block = conn.recv(COPY_BLOCK)
                if not block:
                    return
                digest.update(block)
                received.append(len(block))

        expected = self.run('head -c %d /dev/urandom | tee /tmp/copy | sha256sum' % size,
                            timeout).split()[0]
        with _Server(netns, address, serve, timeout) as server:
            self.run('nc %s %d </tmp/copy; rm /tmp/copy' % (address, server.port), timeout)
        assert sum(received) == size, 'the host got %d of %d bytes' % (sum(received), size)
        assert digest.hexdigest() == expected, 'a copy out of the guest is corrupt'

    def pci_address(self, index=0):
        """The guest's PCI address of a NIC."""
        path = self.run('readlink -f /sys/class/net/%s/device' % self.ifname(index))
        return re.findall(r'[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]', path)[-1]

    def queue_packets(self, direction, index=0):
        """Packets per queue ("tx" or "rx") since the driver was bound, as the guest counted."""
        stats = self.run('ethtool -S ' + self.ifname(index))
        found = re.findall(r'%s_queue_(\d+)_packets: (\d+)' % direction, stats)
        return {int(queue): int(packets) for queue, packets in found}

    def check_kernel(self):
        """The guest's kernel found nothing to complain about."""
        bad = re.compile(r'WARNING:|BUG:|Oops:|NETDEV WATCHDOG|is not a head|'
                         r'virtio.*([Ff]ail|[Ee]rror|broken)')
        lines = [s for s in self.run('dmesg').split('\n') if bad.search(s)]
        assert not lines, '%s: its kernel complains:\n%s' % (self.name, '\n'.join(lines))


class _Server:
    """Accepts one TCP connection in a namespace and hands it to a function of its own thread."""

    def __init__(self, netns, address, serve, timeout):
        self._listener = netns.listen(address)
        self._listener.settimeout(timeout)
        self._serve = serve
        self._timeout = timeout
        self._error = None
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._main, daemon=True)

    def _main(self):
        try:
            conn, _ = self._listener.accept()
            with conn:
                conn.settimeout(self._timeout)
                self._serve(conn)
        except OSError as err:
            self._error = err

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            # nobody may ever connect: end the accept() instead of waiting for its timeout
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(self._timeout)
        self._listener.close()
        if kind is None and self._error is not None:
            raise self._error
