# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Two simulated hosts A and B on one machine, and the network between them.

A host is a mount, UTS and network namespace with a software DPU, a service and a libvirtd of its
own. What these keep in /etc, /var and /run is bind-mounted from a folder of the host, so that each
program runs with its usual paths and everything can be seen from outside.

    host A: representor - br0 - uplink ---- host-a  \\
                                                    br0 (10.77.0.1) in a third namespace
    host B: representor - br0 - uplink ---- host-b  /
"""
import contextlib
import os
import select
import signal
import subprocess
import time

from .controller import BLK_PF, PF, Controller, disk_bdf, representor, vf_bdf
from .guest import TOP
from .libvirt import Libvirt
from .process import Process
from .service import Service

PRIVATE = ('/etc/libvirt', '/run/libvirt', '/run/vfe', '/var/cache/libvirt', '/var/lib/libvirt',
           '/var/log/libvirt')
# libvirtd does not start without the user that libvirt-daemon-system would create, even if its
# configuration names another; it exists on our hosts only
ACCOUNTS = {'/etc/passwd': 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n',
            '/etc/group': 'libvirt-qemu:x:64055:\nkvm:x:64056:\n'}
NETWORK = '10.77.0.1'
BRIDGE = 'br0'

HOLDER = '''
set -e
hostname "$1"
mount -t sysfs sysfs /sys
ip link set lo up
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip link add {bridge} type bridge stp_state 0
ip link set {bridge} up
shift
while [ $# -gt 0 ]; do
    mount --bind "$1" "$2"
    shift 2
done
echo ready
exec cat
'''.format(bridge=BRIDGE)


def _propagation():
    """How unshare can keep the mounts of a host to itself; in a chroot it cannot change it."""
    done = subprocess.run(['unshare', '--mount', '--propagation', 'private', 'true'],
                          stderr=subprocess.DEVNULL, check=False)
    return 'private' if done.returncode == 0 else 'unchanged'


class Space:
    """The namespaces of a host; enter is what a command line begins with to run inside."""

    def __init__(self, hostname, folder, log):
        self.hostname = hostname
        self._folder = folder
        self._log = log
        self._made = []
        self.process = None
        self.enter = None

    def start(self):
        mounts = []
        for path in PRIVATE:
            inside = self._folder + path
            os.makedirs(inside, exist_ok=True)
            self._made += _make_folder(path)
            mounts += [inside, path]
        for path, lines in ACCOUNTS.items():
            mounts += [self._with_accounts(path, lines), path]
        self.process = Process(self.hostname, [
            'unshare', '--mount', '--uts', '--net', '--propagation', _propagation(),
            '--', 'sh', '-c', HOLDER, 'holder', self.hostname, *mounts],
            self._log, stdin=subprocess.PIPE, cwd=TOP)
        self.process.wait_line('^ready$')
        if any(os.path.samefile(self._folder + path, path) for path in PRIVATE):
            raise RuntimeError('mounts of a new namespace are seen outside: make the mount that '
                               'holds / private')
        self.enter = ['nsenter', '--target', str(self.process.pid), '--mount', '--uts', '--net',
                      '--root', '--wd', '--']

    def _with_accounts(self, path, lines):
        """A copy of an account file with more lines, unless it has these names already."""
        with open(path) as f:
            text = f.read()
        known = [line.split(':')[0] for line in text.split('\n')]
        with open(self._folder + path, 'w') as f:
            f.write(text + ''.join(line for line in lines.splitlines(True)
                                   if line.split(':')[0] not in known))
        return self._folder + path

    def run(self, *argv, timeout=30, check=True):
        """Run a program inside; returns its output."""
        done = subprocess.run(self.enter + [str(a) for a in argv], timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if check and done.returncode != 0:
            raise RuntimeError('%s: %s: exit status %d\n%s' % (
                self.hostname, ' '.join(str(a) for a in argv), done.returncode, done.stdout))
        return done.stdout

    def members(self):
        """The pids of all processes inside but the one that holds the namespaces."""
        return [pid for pid in processes_of(self._folder) if pid != self.process.pid]

    def close(self):
        """End what is still inside, then the namespaces."""
        if self.process is None:
            return
        kill_all(self.members())
        self.process.close()
        # a mount point that is removed while the mount exists takes the mount with it
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _make_folder(path):
    """Make a folder and those above it; returns the new ones, outermost first."""
    made = []
    while not os.path.isdir(path):
        made.insert(0, path)
        path = os.path.dirname(path)
    for folder in made:
        os.mkdir(folder)
    return made


def processes_of(folder):
    """The pids of the processes whose private folders are those of the host with this folder."""
    mark = PRIVATE[0]
    found = []
    for name in os.listdir('/proc'):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.path.samefile('/proc/%s/root%s' % (name, mark),
                                                   folder + mark):
                found.append(int(name))
    return found


def kill_all(pids, timeout=10):
    """Kill processes that are not children of ours, and wait until they are gone."""
    pidfds = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            pidfds.append(pidfd)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    end = time.monotonic() + timeout
    for pidfd in pidfds:
        select.select([pidfd], [], [], max(0, end - time.monotonic()))
        os.close(pidfd)


class HostView:
    """Where the parts of a host are, for who did not start them.

    path() is below the folder that the host sees as /run/vfe.
    """

    def __init__(self, name, folder, space, logdir):
        self.name = name
        self.folder = folder
        self.space = space
        self._logdir = logdir
        self.libvirt = Libvirt(self)

    def path(self, name):
        return self.folder + '/run/vfe/' + name

    def log(self, name):
        return os.path.join(self._logdir, '%s-%s.log' % (self.name, name))

    @staticmethod
    def socket(vf):
        """The vhost-user socket of a VF, as the host sees it."""
        return '/run/vfe/net%d' % vf

    @staticmethod
    def disk_socket(vf):
        return '/run/vfe/blk%d' % vf


class Host(HostView):
    """One host. It is also the lab of its parts: it gives them paths, logs and names."""

    def __init__(self, lab, name, vfs=2, vf_backends=None, disks=(), **controller_options):
        folder = lab.path(name)
        os.makedirs(folder + '/run/vfe/pci')
        space = Space('host-' + name.lower(), folder, lab.log(name + '-space'))
        super().__init__(name, folder, space, lab.logdir)
        self.env = lab.env
        self._lab = lab
        self.vfs = vfs
        self.disks = disks
        self.taps = [vf for vf in range(vfs) if vf not in (vf_backends or {})]
        self.controller = Controller(self, self.space, vfs=vfs, vf_backends=vf_backends,
                                     disks=disks, **controller_options)
        self.service = Service(self, netns=self.space)

    def unique(self, label):
        return self._lab.unique(self.name + '-' + label)

    def start(self, network):
        """Bring everything up; network is the namespace with the bridge to join."""
        self.space.start()
        self._join(network)
        self.libvirt.start()
        self.start_controller()
        self.start_service()

    def _join(self, network):
        self.space.run('ip', 'link', 'add', 'uplink', 'type', 'veth', 'peer', 'name',
                       self.space.hostname)
        self.space.run('ip', 'link', 'set', 'uplink', 'master', BRIDGE, 'up')
        self.space.run('ip', 'link', 'set', self.space.hostname, 'netns', network.name)
        network.run('ip', 'link', 'set', self.space.hostname, 'master', BRIDGE, 'up')

    def start_controller(self):
        self.controller.start()
        for vf in self.taps:
            self.space.run('ip', 'link', 'set', representor(vf), 'master', BRIDGE, 'up')

    def start_service(self):
        """Start the service; VFs are added by the test."""
        self.service.start()
        self.service.add_pf(PF)
        if self.disks:
            self.service.add_pf(BLK_PF)

    def add_vf(self, vf, uuid=None, client=None):
        self.service.add_vf(vf_bdf(vf), self.socket(vf), uuid, client)

    def remove_vf(self, vf):
        self.service.remove_vf(vf_bdf(vf))

    def info(self, vf):
        return self.service.info(vf_bdf(vf))

    def add_disk(self, vf, uuid=None, client=None):
        """Unless told otherwise for libvirt, whose QEMU only connects to the socket of a disk."""
        self.service.add_vf(disk_bdf(vf), self.disk_socket(vf), uuid, bool(client))

    def remove_disk(self, vf):
        self.service.remove_vf(disk_bdf(vf))

    def disk_info(self, vf):
        return self.service.info(disk_bdf(vf))

    def close(self):
        with contextlib.ExitStack() as stack:
            # the last one first
            stack.callback(self.space.close)
            stack.callback(self.controller.close)
            stack.callback(self.service.close)
            stack.callback(self.libvirt.close)


class HostsView:
    """Hosts A and B and the network, made by another process."""

    def __init__(self, network, a, b):
        self.network = network
        self.a = a
        self.b = b

    def __iter__(self):
        return iter((self.a, self.b))

    def other(self, host):
        return self.b if host is self.a else self.a

    def log(self, name):
        """The place of a log that belongs to neither host."""
        return os.path.join(os.path.dirname(self.a.log(name)), name + '.log')


class Hosts(HostsView):
    """Hosts A and B, and the network with the peer of the guests' traffic."""

    def __init__(self, lab, **options):
        super().__init__(lab.netns('net'), Host(lab, 'A', **options), Host(lab, 'B', **options))

    def start(self):
        self.network.bridge(BRIDGE, [], NETWORK + '/24')
        for host in self:
            host.start(self.network)

    def add_vf(self, vf, uuid=None):
        for host in self:
            host.add_vf(vf, uuid)

    def remove_vf(self, vf):
        for host in self:
            host.remove_vf(vf)

    def close(self):
        with contextlib.ExitStack() as stack:
            for host in self:
                stack.callback(host.close)


def guest_address(vf):
    """The address of the guest's end of a VF, in the network of NETWORK."""
    return '10.77.0.%d' % (10 + vf)
