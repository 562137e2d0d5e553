# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A libvirtd of a simulated host, and guests that it runs and migrates."""
import copy
import json
import os
import re
import socket
import subprocess
import time
import uuid
import xml.etree.ElementTree as ElementTree

from .agent import Agent, AgentError
from .controller import vf_mac
from .disk import Disk
from .guest import BOOT_TIMEOUT, IMAGE, TOP, Nic
from .linux import Linux
from .process import Process

EXAMPLES = os.path.join(TOP, 'examples', 'libvirt')
HOOK = os.path.join(TOP, 'examples', 'libvirt', 'qemu-hook')
QEMU_NAMESPACE = 'http://libvirt.org/schemas/domain/qemu/1.0'
MIGRATE_OPTIONS = ('--live', '--persistent')

LIBVIRTD_CONF = '''
host_uuid = "%s"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_level = 3
log_outputs = "2:stderr"
'''

# Nothing of the machine is used: no user, no cgroup, no security module, no log daemon.
QEMU_CONF = '''
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
'''


class VirshError(Exception):
    """virsh ended with a status other than 0."""


class Libvirt:
    """libvirtd in the namespaces of a host, which hide that of the machine."""

    def __init__(self, host):
        self._host = host
        self.socket = host.folder + '/run/libvirt/libvirt-sock'
        self.uri = 'qemu+unix:///system?socket=' + self.socket
        self.process = None

    def start(self):
        self._configure('libvirtd.conf', LIBVIRTD_CONF
                        % uuid.uuid5(uuid.NAMESPACE_DNS, self._host.space.hostname))
        self._configure('qemu.conf', QEMU_CONF)
        hooks = os.path.join(self._host.folder, 'etc', 'libvirt', 'hooks')
        os.makedirs(hooks, exist_ok=True)
        if not os.path.islink(hooks + '/qemu'):
            os.symlink(HOOK, hooks + '/qemu')
        self.process = Process('libvirtd', [
            'libvirtd', '--config', '/etc/libvirt/libvirtd.conf', '--pid-file',
            '/run/libvirt/libvirtd.pid'], self._host.log('libvirtd'), netns=self._host.space)
        self.process.wait_socket(self.socket, 30)
        self._wait_emulator(60)

    def _wait_emulator(self, timeout):
        """Until libvirtd has asked QEMU what it can.

        It does so when it needs that for the first time. On a busy machine it has been seen to
        fail then, with a text that told nothing, and it is not told when it is ready.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                self.virsh('domcapabilities', '--virttype', 'qemu')
                return
            except VirshError:
                if time.monotonic() > end or not self.process.alive:
                    raise
            time.sleep(0.2)

    def _configure(self, name, text):
        with open(os.path.join(self._host.folder, 'etc', 'libvirt', name), 'w') as f:
            f.write(text)

    def command(self, *argv):
        """The command line of virsh in the host."""
        return self._host.space.enter + ['virsh', *(str(a) for a in argv)]

    def virsh(self, *argv, timeout=60):
        """Run virsh; returns its output."""
        # virsh 9.0 has been seen to die of SIGPIPE while a migration ended: let it be ignored
        done = subprocess.run(self.command(*argv), stdin=subprocess.DEVNULL, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, restore_signals=False)
        with open(self._host.log('virsh'), 'a') as f:
            f.write('$ virsh %s\n%sstatus %d\n' % (' '.join(str(a) for a in argv), done.stdout,
                                                   done.returncode))
        if done.returncode != 0:
            raise VirshError('%s: virsh %s: %s' % (self._host.space.hostname,
                                                   ' '.join(str(a) for a in argv), done.stdout))
        return done.stdout

    def state(self, name):
        """The state of a domain as virsh names it; None when it is not known."""
        try:
            return self.virsh('domstate', name).strip()
        except VirshError:
            return None

    def close(self):
        if self.process is None:
            return
        try:
            if self.process.alive:
                self.process.stop(30)
        finally:
            self.process.close()


def _sub(parent, tag, text=None, **attributes):
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _without_msix(override, alias):
    """QEMU 7.2 without KVM crashes when a vhost-user device uses MSI-X."""
    device = _sub(override, '{%s}device' % QEMU_NAMESPACE, alias=alias)
    frontend = _sub(device, '{%s}frontend' % QEMU_NAMESPACE)
    _sub(frontend, '{%s}property' % QEMU_NAMESPACE, name='vectors', type='unsigned', value='0')


def domain_xml(name, nics, disks, cpus, mem, console_log):
    """An example of a guest, made small, with the kernel of the tests and without KVM."""
    ElementTree.register_namespace('qemu', QEMU_NAMESPACE)
    domain = ElementTree.parse(os.path.join(
        EXAMPLES, 'guest-disk.xml' if disks else 'guest.xml')).getroot()
    domain.set('type', 'qemu')
    domain.find('name').text = name
    domain.insert(1, domain.makeelement('uuid', {}))
    domain.find('uuid').text = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    domain.find('memory').text = str(mem)
    domain.find('vcpu').text = str(cpus)
    domain.remove(domain.find('cpu'))
    system = domain.find('os')
    _sub(system, 'kernel', os.path.join(IMAGE, 'vmlinuz'))
    _sub(system, 'initrd', os.path.join(IMAGE, 'initramfs'))
    _sub(system, 'cmdline', 'console=ttyS0 quiet loglevel=4 panic=-1')
    devices = domain.find('devices')
    disk = devices.find('disk')
    devices.remove(disk)
    devices.remove(devices.find('console'))
    interface = devices.find('interface')
    devices.remove(interface)
    override = _sub(domain, '{%s}override' % QEMU_NAMESPACE)
    for index, nic in enumerate(nics):
        mine = copy.deepcopy(interface)
        mine.find('mac').set('address', nic.mac)
        mine.find('source').set('path', nic.path)
        if not nic.server:
            mine.find('source').set('mode', 'client')
            _sub(mine.find('source'), 'reconnect', enabled='yes', timeout='1')
        mine.find('driver').set('queues', str(nic.queues))
        devices.append(mine)
        _without_msix(override, 'net%d' % index)
    for index, each in enumerate(disks):
        mine = copy.deepcopy(disk)
        mine.find('source').set('path', each.path)
        mine.find('driver').set('queues', str(each.queues))
        mine.find('target').set('dev', 'vd' + 'abcdefgh'[index])
        devices.append(mine)
        _without_msix(override, 'virtio-disk%d' % index)
    console = _sub(devices, 'serial', type='file')
    _sub(console, 'source', path=console_log, append='on')
    _sub(console, 'target', port='0')
    agent = _sub(devices, 'serial', type='unix')
    _sub(agent, 'source', mode='bind', path='/run/vfe/%s.agent' % name)
    _sub(agent, 'target', port='1')
    return ElementTree.tostring(domain, encoding='unicode')


class Domain(Linux):
    """A guest of libvirt on VFs of the two hosts; self.host is where it runs."""

    def __init__(self, hosts, name='guest', vfs=(0,), disks=(), client=True, queues=1, cpus=1,
                 mem=192):
        self.name = name
        self.hosts = hosts
        self.host = None
        self.mem = mem
        self.vfs = list(vfs)
        self.nics = [Nic(hosts.a.socket(vf), vf_mac(vf), queues=queues, server=client)
                     for vf in vfs]
        self.disks = [Disk(vf, hosts.a.disk_socket(vf), queues=queues, server=False)
                      for vf in disks]
        self.agent = None
        self._sock = None
        self._boot_id = None
        self.xml = domain_xml(name, self.nics, self.disks, cpus, mem, hosts.log(name + '-console'))

    def start(self, host):
        """Define and start the domain; returns when its Linux answers."""
        path = host.path(self.name + '.xml')
        with open(path, 'w') as f:
            f.write(self.xml)
        host.libvirt.virsh('define', path)
        host.libvirt.virsh('start', self.name)
        self.host = host
        self._boot_id = None
        self.connect(BOOT_TIMEOUT)

    def connect(self, timeout=30):
        """Open the line to the agent on the present host; it must be the guest that it was."""
        self.disconnect()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(self.host.path(self.name + '.agent'))
        self.agent = Agent(self._sock)
        boot_id = self.agent.ping(timeout)
        if self._boot_id not in (None, boot_id):
            raise AssertionError('%s: the guest has rebooted: its boot id was %s and is %s'
                                 % (self.name, self._boot_id, boot_id))
        self._boot_id = boot_id

    def disconnect(self):
        if self._sock is not None:
            self._sock.close()
        self._sock = self.agent = None

    def running_on(self, host):
        return host.libvirt.state(self.name) == 'running'

    def migrate_argv(self, to, *options):
        """What virsh is given on the present host to migrate the guest."""
        return ['migrate', *MIGRATE_OPTIONS, *options, self.name, '--desturi', to.libvirt.uri,
                '--migrateuri', 'unix://' + to.path('migrate.sock')]

    def migrate(self, to=None, *options, timeout=120):
        """Migrate to a host (the other one unless given); returns what libvirt says about it."""
        to = to or self.hosts.other(self.host)
        source = self.host
        self.disconnect()
        source.libvirt.virsh(*self.migrate_argv(to, *options), timeout=timeout)
        self.host = to
        self.connect()
        return self.job(source)

    def job(self, host, completed=True):
        """The numbers of domjobinfo on a host, by their names."""
        output = host.libvirt.virsh('domjobinfo', self.name, '--rawstats',
                                    *(['--completed', '--keep-completed'] if completed else []))
        return {k: int(v) if v.isdigit() else v
                for k, v in re.findall(r'(\S+)\s*[:=]\s*(\S+)', output)}

    def reboot(self):
        """Reboot from inside; returns when the new kernel answers."""
        self.agent.send('reboot -f', 10)
        before, self._boot_id = self._boot_id, None
        end = time.monotonic() + BOOT_TIMEOUT
        while self._boot_id in (None, before):
            if time.monotonic() >= end:
                raise AgentError('%s: the guest does not reboot' % self.name)
            self._boot_id = self.agent.wait_hello(end - time.monotonic())

    def set_profiles(self, text):
        """Put profiles of VFs into the metadata, for the hook of the destination."""
        self.host.libvirt.virsh('metadata', self.name, '--uri', 'urn:vfe:1', '--key', 'vfe',
                                '--live', '--config', '--set', '<profiles>%s</profiles>' % text)

    def memory(self):
        """The contents of the guest's memory."""
        path = self.host.path(self.name + '.memory')
        self.host.libvirt.virsh('qemu-monitor-command', self.name, json.dumps({
            'execute': 'pmemsave',
            'arguments': {'val': 0, 'size': self.mem << 20, 'filename': path}}))
        try:
            with open(path, 'rb') as f:
                return f.read()
        finally:
            os.unlink(path)

    def close(self):
        self.disconnect()
        for host in self.hosts:
            if host.libvirt.process is None or not host.libvirt.process.alive:
                continue
            if host.libvirt.state(self.name) not in (None, 'shut off'):
                host.libvirt.virsh('destroy', self.name)
            if host.libvirt.state(self.name) is not None:
                host.libvirt.virsh('undefine', self.name)
