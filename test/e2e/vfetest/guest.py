# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Linux guests in QEMU with vhost-user network devices."""
import dataclasses
import hashlib
import os
import re
import socket
import threading
import time

from .agent import Agent, AgentError, CommandFailed
from .process import Process
from .qmp import Qmp, QmpError

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..', '..'))
IMAGE = os.path.join(TOP, '.deps', 'guest')
BOOT_TIMEOUT = 120
COPY_BLOCK = 1 << 20


@dataclasses.dataclass
class Nic:
    """A vhost-user network device of a guest.

    vectors=0 because QEMU 7.2 without KVM crashes when a vhost-user device uses MSI-X.
    """
    path: str
    mac: str
    queues: int = 1
    server: bool = True
    options: dict = dataclasses.field(default_factory=dict)

    def argv(self, index):
        chardev = 'socket,id=char%d,path=%s' % (index, self.path)
        if self.server:
            chardev += ',server=on'
        options = {'page-per-vq': 'on', 'vectors': 0, **self.options}
        if self.queues > 1:
            options['mq'] = 'on'
        device = ''.join(',%s=%s' % item for item in options.items())
        return ['-chardev', chardev,
                '-netdev', 'vhost-user,id=net%d,chardev=char%d,queues=%d'
                % (index, index, self.queues),
                '-device', 'virtio-net-pci,id=nic%d,netdev=net%d,mac=%s%s'
                % (index, index, self.mac, device)]


class Guest:
    """A virtual machine. start() returns when QEMU runs, wait_boot() when Linux answers.

    A vhost-user device with server=True makes QEMU wait for the back end before it runs, so
    start() then needs a back end that connects.
    """

    initrd = os.path.join(IMAGE, 'initramfs')
    cmdline = 'console=ttyS0 quiet loglevel=4 panic=-1'

    def __init__(self, name, logdir, nics=(), cpus=1, mem=256, machine='q35', extra=()):
        self.name = name
        self.nics = list(nics)
        self._logdir = logdir
        self._cpus = cpus
        self._mem = mem
        self._machine = machine
        self._extra = list(extra)
        self._generation = 0
        self._boot_id = None
        self.process = None
        self.qmp = None
        self.agent = None

    def argv(self, serial, agent_fd, qmp_fd):
        argv = ['qemu-system-x86_64', '-name', self.name, '-nodefaults', '-no-user-config',
                '-display', 'none', '-machine', self._machine + ',memory-backend=mem',
                '-accel', 'tcg,thread=multi', '-smp', self._cpus, '-m', '%dM' % self._mem,
                '-object', 'memory-backend-memfd,id=mem,size=%dM,share=on' % self._mem,
                '-kernel', os.path.join(IMAGE, 'vmlinuz'),
                '-initrd', self.initrd, '-append', self.cmdline,
                '-chardev', 'file,id=serial,path=' + serial, '-serial', 'chardev:serial',
                '-chardev', 'socket,id=agent,fd=%d' % agent_fd, '-serial', 'chardev:agent',
                '-chardev', 'socket,id=qmp,fd=%d' % qmp_fd, '-mon', 'chardev=qmp,mode=control']
        for index, nic in enumerate(self.nics):
            argv += nic.argv(index)
        return argv + self._extra

    def launch(self):
        """Start QEMU without waiting for anything."""
        if self.process is not None:
            self.close()
        self._generation += 1
        self._boot_id = None
        stem = os.path.join(self._logdir, '%s-%d' % (self.name, self._generation))
        agent, agent_peer = socket.socketpair()
        qmp, qmp_peer = socket.socketpair()
        with agent_peer, qmp_peer:
            fds = (agent_peer.fileno(), qmp_peer.fileno())
            self.process = Process(self.name, self.argv(stem + '-console.log', *fds),
                                   stem + '-qemu.log', pass_fds=fds)
        self._sockets = [agent, qmp]
        self.agent = Agent(agent)
        self.qmp = Qmp(qmp)

    def wait_running(self, timeout=30):
        """Wait until QEMU is through with its start, back ends included."""
        try:
            self.qmp.connect(timeout)
        except QmpError as err:
            raise QmpError('%s: %s; QEMU said: %s'
                           % (self.name, err, '; '.join(self.process.lines()[-5:]))) from err

    def start(self, timeout=30):
        self.launch()
        self.wait_running(timeout)

    def wait_boot(self, timeout=BOOT_TIMEOUT):
        """Wait until the guest's Linux takes commands; after a reboot: the new one."""
        end = time.monotonic() + timeout
        while True:
            boot_id = self.agent.wait_hello(end - time.monotonic())
            if boot_id != self._boot_id:
                self._boot_id = boot_id
                return

    def boot(self):
        self.start()
        self.wait_boot()

    def run(self, command, timeout=30, check=True):
        """Run a shell command in the guest; returns its output."""
        status, output = self.agent.run(command, timeout)
        if check and status != 0:
            raise CommandFailed(command, status, output)
        return output

    def status(self, command, timeout=30):
        """Run a shell command in the guest; returns its exit status."""
        return self.agent.run(command, timeout)[0]

    def reboot(self):
        """Reboot from inside; returns when the new kernel answers."""
        self.agent.send('reboot -f', 10)
        self.qmp.wait_event('RESET', 30)
        self.wait_boot()

    def ifname(self, index=0):
        """The guest's name of a NIC, found by its MAC address."""
        return self.run("grep -il '^%s$' /sys/class/net/*/address | cut -d/ -f5"
                        % self.nics[index].mac).strip()

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

    def kill(self):
        """What kill -9 does: QEMU says good-bye to nobody."""
        self.process.kill()

    def quit(self, timeout=20):
        """Let QEMU end in order."""
        try:
            self.qmp.command('quit')
        except QmpError:
            pass
        return self.process.wait_exit(timeout)

    def close(self):
        if self.process is None:
            return
        self.process.close()
        for s in self._sockets:
            s.close()
        for nic in self.nics:
            # a QEMU that is killed leaves the sockets on which it listened
            if nic.server and os.path.exists(nic.path):
                os.unlink(nic.path)
        self.process = None


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


__all__ = ['AgentError', 'Guest', 'Nic']
