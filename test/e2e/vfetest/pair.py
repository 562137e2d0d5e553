# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A pair of hosts that many tests share, and one guest at a time between them."""
import contextlib

from .agent import AgentError
from .hosts import NETWORK, guest_address
from .load import MemDirty, Ping, Stream, make_migratable
from .process import Process


class Pair:
    """Hosts A and B of a lab. guest() is a running guest, the same as long as it is well.

    Tests may break what they like: guest() repairs it for the next one.
    """

    def __init__(self, lab, **options):
        self.lab = lab
        self.hosts = lab.hosts(**options)
        self.a = self.hosts.a
        self.b = self.hosts.b
        self.network = self.hosts.network
        self._guest = None
        self._shape = None
        self._added = {}        # (host, kind, VF): its UUID, and who listens on its socket
        self._serial = 0

    # guests

    def guest(self, vfs=(0,), uuid=None, disks=(), client=True, **shape):
        """A running guest with an address on each of its VFs, found well.

        client: QEMU listens on the sockets of its NICs.
        """
        shape = {'vfs': tuple(vfs), 'uuid': uuid, 'disks': tuple(disks), 'client': client, **shape}
        if self._shape != shape or not self._is_well():
            self.end_guest()
            self.provision(vfs, uuid, disks, client)
            self._serial += 1
            self._guest = self.lab.domain(self.hosts, name='guest%d' % self._serial,
                                          **{k: v for k, v in shape.items() if k != 'uuid'})
            self._shape = shape
            self._guest.start(self.a)
            make_migratable(self._guest)
            for index in range(len(vfs)):
                self.configure(self._guest, index)
        else:
            self.provision(vfs, uuid, disks, client)
        self.check(self._guest)
        return self._guest

    def configure(self, guest, index=0):
        """Bring a NIC up, with its address if there is somebody to talk to."""
        vf = guest.vfs[index]
        if vf in self.a.taps:
            guest.configure(guest_address(vf) + '/24', index)
        else:
            guest.run('ip link set %s up' % guest.ifname(index))

    def talking(self, guest):
        return [vf for vf in guest.vfs if vf in self.a.taps]

    def _is_well(self):
        if self._guest is None or not self._guest.running_on(self._guest.host):
            return False
        try:
            self._guest.connect(5)
        except (AgentError, AssertionError, OSError):
            return False
        return True

    def end_guest(self):
        if self._guest is not None:
            self._guest.close()
        self._guest = self._shape = None

    def provision(self, vfs, uuid=None, disks=(), client=True, disk_client=False):
        """Start what does not run, and have the VFs there with the UUID and the direction."""
        for host in self.hosts:
            if not host.controller.process.alive:
                host.controller.process.close()
                host.start_controller()
            if not host.service.process.alive:
                host.service.process.close()
                host.start_service()
                self._added = {k: v for k, v in self._added.items() if k[0] != host.name}
            for vf in vfs:
                self._add(host, 'vf', vf, uuid, client)
            for vf in disks:
                self._add(host, 'disk', vf, uuid, disk_client)

    def _add(self, host, kind, vf, *how):
        key = host.name, kind, vf
        if self._added.get(key) != how:
            if key in self._added:
                getattr(host, 'remove_' + kind)(vf)
            getattr(host, 'add_' + kind)(vf, *how)
            self._added[key] = how

    def restart_service(self, host):
        """Start the service of a host, whose end is known, with the VFs that it had."""
        host.service.process.close()
        host.start_service()
        for (name, kind, vf), how in self._added.items():
            if name == host.name:
                getattr(host, 'add_' + kind)(vf, *how)

    @staticmethod
    def restart_controller(host):
        """Start the controller of a host, whose end is known; the service finds it."""
        host.controller.process.close()
        host.start_controller()

    # what runs in the guest

    def stream(self, guest, **options):
        return Stream(self.lab, self.network, NETWORK, guest, **options)

    @staticmethod
    def memdirty(guest, **options):
        return MemDirty(guest, **options)

    def ping(self, guest, index=0):
        return self.ping_address(guest_address(guest.vfs[index]))

    def ping_address(self, address):
        return Ping(self.lab, self.network, address)

    def check(self, guest, timeout=20):
        """The guest is where it should be, reached from outside, and its kernel is content."""
        assert guest.running_on(guest.host)
        assert guest.host.libvirt.state(guest.name) == 'running'
        assert self.hosts.other(guest.host).libvirt.state(guest.name) in (None, 'shut off')
        for vf in self.talking(guest):
            self.reach(guest_address(vf), timeout)
        if self.talking(guest):
            guest.ping(NETWORK, timeout=timeout)
        guest.check_kernel()

    def reach(self, address, timeout=20):
        """Wait until a ping from the network is answered."""
        ping = Process('reach', ['ping', '-n', '-i', '0.2', address], self.lab.log('reach'),
                       netns=self.network)
        with contextlib.closing(ping):
            ping.wait_line(r'icmp_seq=\d+ ttl', timeout)

    def open_files(self):
        """Numbers of open files of the daemons of both hosts."""
        return {'%s %s' % (host.name, part.process.name): part.process.fd_count()
                for host in self.hosts for part in (host.service, host.controller)}
