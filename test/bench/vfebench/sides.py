# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The two back ends that are compared: a VF of the software DPU, and testpmd's vhost PMD."""
import sys

from vfetest import Lab, Stack, testpmd

from .machine import thread

FRONT_CPU = 0
BACK_CPU = 1


class Ours:
    """Controller and service. They stay while front-ends come and go; start and stop do nothing."""

    name = 'vfe'

    def __init__(self, lab, backend, polling=True, cpu=BACK_CPU):
        self.stack = Stack(lab, vfs=1, qp_num=1, polling=polling, worker_cpus=[cpu],
                           vf_backend=backend, cpus=str(FRONT_CPU))
        self.stack.start()
        self.stack.add_vf(0)
        self.path = self.stack.socket(0)
        self.service = self.stack.service.process

    def commands(self):
        return [self.stack.controller.process.argv, self.service.argv]

    def processes(self):
        """Those that work."""
        return [self.stack.controller.process, self.service]

    def start(self):
        pass

    def stop(self):
        pass

    def thread(self):
        """The thread that moves the packets."""
        return thread(self.stack.controller.process.pid, 'dp-worker')


class Peer:
    """testpmd's vhost PMD; its polling thread is there only between start and stop."""

    name = 'testpmd'

    def __init__(self, lab, mode, huge=False):
        self._lab = lab
        self._mode = mode
        self._huge = huge
        self._testpmd = None
        self.path = lab.path('peer.sock')

    def commands(self):
        return [self._testpmd.argv]

    def processes(self):
        return [self._testpmd.process]

    def start(self):
        self._testpmd = testpmd.back_end(self._lab, self.path, BACK_CPU, self._mode, self._huge)
        self._testpmd.start()

    def stop(self):
        if self._testpmd is not None:
            self._testpmd.close()
        self._testpmd = None

    def thread(self):
        return thread(self._testpmd.process.pid, 'rte-worker')


class BenchLab(Lab):
    """A Lab for one part of a benchmark; its logs stay when something went wrong."""

    def __enter__(self):
        return self

    def __exit__(self, kind, *args):
        left = self.close()
        if left:
            print('left behind: %s' % ', '.join(left), file=sys.stderr)
        if left or kind not in (None, KeyboardInterrupt):
            print('logs: ' + self.logdir, file=sys.stderr)
        else:
            self.remove()


class Sample:
    """A value, and what a cache line took to the back end's CPU and back before and after it."""

    def __init__(self, value, lines, **extra):
        self.value = value
        self.lines = lines
        self.extra = extra


class Pair:
    """A sample of ours and the peer's that followed it."""

    # virtual CPUs move about on the host's: neighbours exchange cache lines several times as fast
    SAME_PLACE = 1.6

    def __init__(self, ours, peer):
        self.ours = ours
        self.peer = peer

    @property
    def ratio(self):
        return self.ours.value / self.peer.value

    def matched(self):
        """Were the two CPUs as far from each other for ours as for the peer?"""
        lines = self.ours.lines + self.peer.lines
        return max(lines) < self.SAME_PLACE * min(lines)
