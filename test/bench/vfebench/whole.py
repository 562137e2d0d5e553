# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Whole migrations of a small guest from one QEMU to another, there and back, as QEMU tells them.

Ours has a controller and a service on each side, the peer testpmd's vhost PMD. The guest of either
stays for all migrations and idles; they take turns.
"""
import contextlib
import os
import subprocess
import time

from vfetest import testpmd
from vfetest.controller import PF, vf_bdf, vf_mac
from vfetest.guest import IMAGE, TOP

from .report import quartiles
from .sides import BACK_CPU, BenchLab

GUEST_MIB = 192
MIGRATION_TIMEOUT = 120
POLL = 0.05
LOG_LEVEL = '--log-level=.,7'   # as testpmd's
WHAT = (('downtime', 'downtime'), ('total', 'total-time'))


class Ours:
    """A host: controller and service with one VF."""

    name = 'vfe'

    def __init__(self, lab, report):
        self.path = lab.path('vm')
        controller = lab.controller(lab.netns(), vfs=1, qp_num=1, vf_backend='null')
        service = lab.service(eal=[LOG_LEVEL])
        service.add_pf(PF)
        service.add_vf(vf_bdf(0), self.path)
        for process in (controller.process, service.process):
            report.command(process.argv)

    def close(self):
        pass


class Peer:
    """A host: testpmd. Nothing is forwarded: a polling thread would take a CPU from everybody."""

    name = 'testpmd'

    def __init__(self, lab, report):
        self.path = lab.path('peer')
        self._testpmd = testpmd.back_end(lab, self.path, BACK_CPU, 'rxonly')
        self._testpmd.start()
        self._testpmd.stop()
        report.command(self._testpmd.argv)

    def close(self):
        self._testpmd.close()


class Shuttle:
    """A guest that goes there and back between two hosts."""

    def __init__(self, hosts, labs):
        self.name = hosts[0].name
        self._hosts = hosts
        self._labs = labs
        self._here = 0
        self._number = 0
        self._guest = self._qemu(0)
        self._guest.boot()
        self._guest.run('ip link set %s up' % self._guest.ifname())

    def _qemu(self, place, *extra):
        self._number += 1
        lab = self._labs[place]
        return lab.guest('%s-%d' % (self.name, self._number), mem=GUEST_MIB, extra=extra,
                         nics=[lab.nic(self._hosts[place].path, vf_mac(0))])

    def _wait(self):
        end = time.monotonic() + MIGRATION_TIMEOUT
        while True:
            status = self._guest.qmp.command('query-migrate')
            if status.get('status') == 'completed':
                return status
            if status.get('status') in ('failed', 'cancelled') or time.monotonic() > end:
                raise RuntimeError('%s: the migration did not end well: %s' % (self.name, status))
            time.sleep(POLL)

    def migrate(self):
        """Milliseconds as QEMU tells them, by the names of WHAT."""
        there = 1 - self._here
        uri = 'unix:' + self._labs[there].path('migration')
        target = self._qemu(there, '-incoming', uri)
        target.start()
        self._guest.qmp.command('migrate', uri=uri)
        status = self._wait()
        target.qmp.wait_event('RESUME', 30)
        self._guest.quit()
        self._guest.close()
        target.agent.ping(30)
        self._guest, self._here = target, there
        return {name: status[key] for name, key in WHAT}

    def argv(self):
        return self._guest.process.argv


def run(options, report):
    subprocess.run([os.path.join(TOP, 'scripts', 'guest-image'), '--quiet'], check=True)
    if not os.path.exists(os.path.join(IMAGE, 'vmlinuz')):
        raise RuntimeError('scripts/guest-image made no guest')
    report.title('Whole migrations of an idle guest with %d MiB, as QEMU tells them' % GUEST_MIB)
    with contextlib.ExitStack() as stack:
        shuttles = []
        for kind in (Ours, Peer):
            labs = [stack.enter_context(BenchLab()) for _ in range(2)]
            hosts = [stack.enter_context(contextlib.closing(kind(lab, report))) for lab in labs]
            shuttles.append(Shuttle(hosts, labs))
        times = {shuttle.name: [] for shuttle in shuttles}
        for number in range(options.whole):
            for shuttle in shuttles:
                report.progress('migration %d of %d, %s' % (number + 1, options.whole,
                                                            shuttle.name))
                times[shuttle.name].append(shuttle.migrate())
        for shuttle in shuttles:
            report.command(shuttle.argv())
    for name, _ in WHAT:
        ours, peer = ([t[name] for t in times[kind.name]] for kind in (Ours, Peer))
        low, middle, high = quartiles(ours)
        peer_low, peer_middle, peer_high = quartiles(peer)
        verdict = ''
        if name == 'downtime':
            verdict = '  aim, at most the peer\'s: %s' % (
                'met' if middle <= peer_middle else
                'MISSED, inside the spread' if low <= peer_high else 'MISSED')
        report.note('%-8s  vfe %7.1f ms (%.1f .. %.1f)  peer %7.1f ms (%.1f .. %.1f)  %d each%s' % (
            name, middle, low, high, peer_middle, peer_low, peer_high, len(ours), verdict),
            what=name, ms=ours, peer_ms=peer)
