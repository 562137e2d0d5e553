# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Linux guests in QEMU with vhost-user network devices."""
import dataclasses
import os
import socket
import time

from .agent import Agent, AgentError
from .disk import role
from .linux import Linux
from .process import Process
from .qmp import Qmp, QmpError

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..', '..'))
IMAGE = os.path.join(TOP, '.deps', 'guest')
BOOT_TIMEOUT = 120


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
        chardev = 'socket,id=char%d,path=%s%s' % (index, self.path, role(self.server))
        options = {'page-per-vq': 'on', 'vectors': 0, **self.options}
        if self.queues > 1:
            options['mq'] = 'on'
        device = ''.join(',%s=%s' % item for item in options.items())
        return ['-chardev', chardev,
                '-netdev', 'vhost-user,id=net%d,chardev=char%d,queues=%d'
                % (index, index, self.queues),
                '-device', 'virtio-net-pci,id=nic%d,netdev=net%d,mac=%s%s'
                % (index, index, self.mac, device)]


class Guest(Linux):
    """A virtual machine. start() returns when QEMU runs, wait_boot() when Linux answers.

    A vhost-user device with server=True makes QEMU wait for the back end before it runs, so
    start() then needs a back end that connects.
    """

    initrd = os.path.join(IMAGE, 'initramfs')
    cmdline = 'console=ttyS0 quiet loglevel=4 panic=-1'

    def __init__(self, name, logdir, nics=(), cpus=1, mem=256, machine='q35', extra=(),
                 disks=(), cmdline='', hugepages=False):
        self.name = name
        self.nics = list(nics)
        self.disks = list(disks)
        self._logdir = logdir
        self._cpus = cpus
        self._mem = mem
        self._mem_kind = ',hugetlb=on,hugetlbsize=2M' if hugepages else ''
        self._machine = machine
        self._extra = list(extra)
        self.cmdline = (type(self).cmdline + ' ' + cmdline).strip()
        self._generation = 0
        self._boot_id = None
        self.process = None
        self.qmp = None
        self.agent = None

    def argv(self, serial, agent_fd, qmp_fd):
        argv = ['qemu-system-x86_64', '-name', self.name, '-nodefaults', '-no-user-config',
                '-display', 'none', '-machine', self._machine + ',memory-backend=mem',
                '-accel', 'tcg,thread=multi', '-smp', self._cpus, '-m', '%dM' % self._mem,
                '-object', 'memory-backend-memfd,id=mem,size=%dM,share=on%s'
                % (self._mem, self._mem_kind),
                '-kernel', os.path.join(IMAGE, 'vmlinuz'),
                '-initrd', self.initrd, '-append', self.cmdline,
                '-chardev', 'file,id=serial,path=' + serial, '-serial', 'chardev:serial',
                '-chardev', 'socket,id=agent,fd=%d' % agent_fd, '-serial', 'chardev:agent',
                '-chardev', 'socket,id=qmp,fd=%d' % qmp_fd, '-mon', 'chardev=qmp,mode=control']
        for index, nic in enumerate(self.nics):
            argv += nic.argv(index)
        for disk in self.disks:
            argv += disk.argv()
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

    def reboot(self):
        """Reboot from inside; returns when the new kernel answers."""
        self.agent.send('reboot -f', 10)
        self.qmp.wait_event('RESET', 30)
        self.wait_boot()

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
        for device in self.nics + self.disks:
            # a QEMU that is killed leaves the sockets on which it listened
            if device.server and os.path.exists(device.path):
                os.unlink(device.path)
        self.process = None


__all__ = ['AgentError', 'Guest', 'Nic']
