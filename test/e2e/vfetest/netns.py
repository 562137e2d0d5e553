# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Network namespaces that stand for the DPU's side of the wire."""
import ctypes
import itertools
import json
import os
import socket
import subprocess
import threading

CLONE_NEWNET = 0x40000000
PREFIX = 'vfe-%d-'

_serial = itertools.count()


class Netns:
    """A network namespace with a name of this process' own.

    Programs enter it with nsenter: "ip netns exec" also makes a mount namespace, which fails in a
    plain chroot.
    """

    def __init__(self, label):
        self.name = '%s%d%s' % (PREFIX % os.getpid(), next(_serial), label)
        self.enter = ['nsenter', '--net=/run/netns/' + self.name, '--']
        subprocess.run(['ip', 'netns', 'add', self.name], check=True)
        try:
            self.run('ip', 'link', 'set', 'lo', 'up')
            # no neighbour discovery of IPv6: captures and counters show only what a test sends
            self.run('sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1')
        except BaseException:
            self.close()
            raise

    def run(self, *argv, timeout=30, check=True):
        """Run a program inside; returns its output."""
        done = subprocess.run(self.enter + [str(a) for a in argv], timeout=timeout, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if check and done.returncode != 0:
            raise RuntimeError('%s: %s: exit status %d\n%s' % (
                self.name, ' '.join(str(a) for a in argv), done.returncode, done.stdout))
        return done.stdout

    def links(self):
        """The interfaces as "ip -j link" tells them, keyed by name."""
        return {i['ifname']: i for i in json.loads(self.run('ip', '-j', 'link', 'show'))}

    def configure(self, ifname, address):
        """Give an interface an address with prefix length and bring it up."""
        self.run('ip', 'addr', 'replace', address, 'dev', ifname)
        self.run('ip', 'link', 'set', ifname, 'up')

    def bridge(self, name, ports, address=None):
        self.run('ip', 'link', 'add', name, 'type', 'bridge', 'stp_state', '0')
        for port in ports:
            self.run('ip', 'link', 'set', port, 'master', name, 'up')
        self.run('ip', 'link', 'set', name, 'up')
        if address is not None:
            self.run('ip', 'addr', 'replace', address, 'dev', name)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        """A socket that lives inside; the calling thread stays where it is."""
        result = []

        def create():
            libc = ctypes.CDLL(None, use_errno=True)
            with open('/run/netns/' + self.name, 'rb') as f:
                if libc.setns(f.fileno(), CLONE_NEWNET) != 0:
                    result.append(OSError(ctypes.get_errno(), 'setns'))
                    return
            try:
                result.append(socket.socket(family, kind))
            except OSError as err:
                result.append(err)

        thread = threading.Thread(target=create)
        thread.start()
        thread.join()
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def listen(self, address, port=0):
        """A TCP listener inside; port 0 chooses a free one."""
        s = self.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, port))
        s.listen(4)
        return s

    def close(self):
        subprocess.run(['ip', 'netns', 'del', self.name], check=False)


def left_over(pid):
    """Names of namespaces made by a process that still exist."""
    if not os.path.isdir('/run/netns'):
        return []
    return sorted(n for n in os.listdir('/run/netns') if n.startswith(PREFIX % pid))
