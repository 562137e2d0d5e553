# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Everything that one test starts, and the certainty that all of it ends."""
import itertools
import os
import shutil
import stat
import tempfile

from . import netns as netns_module
from .controller import Controller
from .guest import Guest, Nic
from .hosts import Hosts
from .libvirt import Domain
from .netns import Netns
from .peer import VhostPeer
from .service import Service

_serial = itertools.count()


class Lab:
    """A directory (a temporary one unless given) with logs and sockets, and what lives in it.

    Parts are closed in reverse order of their start. close() returns what was left behind by
    parts that had been asked to end in order: an empty list is what a test wants.
    """

    def __init__(self, folder=None):
        self.dir = folder or tempfile.mkdtemp(prefix='vfe-e2e-')
        self.logdir = os.path.join(self.dir, 'log')
        self.run = os.path.join(self.dir, 'run')
        os.mkdir(self.logdir)
        os.mkdir(self.run)
        # EAL keeps its run time files below this folder instead of /var/run/dpdk
        self.env = {'RUNTIME_DIRECTORY': self.run}
        self._parts = []
        self._number = next(_serial)

    def unique(self, label):
        return 'vfe-%d-%d-%s' % (os.getpid(), self._number, label)

    def path(self, name):
        """A place for a socket or a file of the test."""
        return os.path.join(self.dir, name)

    def log(self, name):
        return os.path.join(self.logdir, name + '.log')

    def _add(self, part):
        self._parts.append(part)
        return part

    def _start(self, part, start=True):
        # a part that fails in its start is closed all the same
        self._add(part)
        if start:
            part.start()
        return part

    def netns(self, label=''):
        return self._add(Netns(label))

    def peer(self, netns, path, **options):
        return self._start(VhostPeer(self, netns, path, **options))

    @staticmethod
    def nic(path, mac='52:54:00:00:77:02', **options):
        return Nic(path, mac, **options)

    def guest(self, name='guest', **options):
        """A guest that is not started yet."""
        return self._add(Guest(name, self.logdir, **options))

    def controller(self, netns, start=True, **options):
        return self._start(Controller(self, netns, **options), start)

    def service(self, start=True, **options):
        return self._start(Service(self, **options), start)

    def hosts(self, **options):
        return self._start(Hosts(self, **options))

    def domain(self, hosts, **options):
        """A guest of libvirt that is not started yet."""
        return self._add(Domain(hosts, **options))

    def logs(self):
        """(name, text) of every log, for the report of a failed test."""
        for name in sorted(os.listdir(self.logdir)):
            with open(os.path.join(self.logdir, name), errors='replace') as f:
                yield name, f.read()

    def close(self):
        """End everything. Returns descriptions of what should not have been there."""
        left = []
        mine = []
        for part in reversed(self._parts):
            try:
                part.close()
            except Exception as err:  # pylint: disable=broad-except
                left.append('%s: %s' % (type(part).__name__, err))
            if isinstance(part, Netns):
                mine.append(part.name)
        left += ['namespace ' + n for n in netns_module.left_over(os.getpid()) if n in mine]
        return left

    def sockets(self):
        """Paths of all sockets below the lab's directory, without those of EAL."""
        found = []
        for folder, _, files in os.walk(self.dir):
            if folder.startswith(os.path.join(self.run, 'dpdk')):
                continue
            for name in files:
                path = os.path.join(folder, name)
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    found.append(path)
        return sorted(found)

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)
