# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""testpmd as a packet generator and as the peer of benchmarks."""
import subprocess
import time

from .process import Process, ProcessError


class Testpmd:
    """An interactive testpmd whose two lcores (command line and forwarding) share one CPU.

    With huge its memory is of hugepages, which have to be there.
    """

    def __init__(self, lab, name, cpu, vdev, mode, eal=(), options=(), huge=False):
        memory = ['--in-memory'] if huge else ['--no-huge']
        self.argv = ['dpdk-testpmd', '--lcores', '0@%d,1@%d' % (cpu, cpu), *memory, '-m',
                     '256', '--no-pci', '--no-telemetry', '--file-prefix', lab.unique(name),
                     '--vdev', vdev, *eal, '--', '-i', '--forward-mode=' + mode,
                     '--total-num-mbufs=8192', '--disable-link-check', *options]
        self._lab = lab
        self._name = name
        self.process = None

    def start(self, wait=True):
        self.process = Process(self._name, ['stdbuf', '-oL', *self.argv],
                               self._lab.log(self._name), env=self._lab.env,
                               stdin=subprocess.PIPE)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=30):
        """Wait until it takes commands; a vhost-user server first waits for its back end."""
        self.process.wait_line('^Port 0: ', timeout)
        self.command('show config fwd')
        self.process.wait_line('packet forwarding - ports=1', timeout)

    def command(self, text):
        self.process.write(text + '\n')

    def run(self, size, bursts=0):
        """Start forwarding; with bursts of 32 packets of its own that go round if they come back.

        What earlier runs left in the rings is thrown away.
        """
        self.command('set txpkts %d' % size)
        self.command('start tx_first %d' % bursts if bursts else 'start')
        self.counters()

    def stop(self, timeout=10):
        """Stop forwarding; returns the part of the packets that the other side had no room for."""
        since = self.process.mark()
        self.command('stop')
        match = self.process.wait_line(r'TX-packets: (\d+) +TX-dropped: (\d+)', timeout, since)
        self.process.wait_line('^Done', timeout, since)
        sent, dropped = int(match.group(1)), int(match.group(2))
        return dropped / max(1, sent + dropped)

    def counters(self, timeout=5):
        """(received, sent, seconds): packets of port 0 and when they were counted."""
        since = self.process.mark()
        self.command('show port stats 0')
        received = self.process.wait_line(r'RX-packets: (\d+)', timeout, since)
        sent = self.process.wait_line(r'TX-packets: (\d+)', timeout, since)
        return int(received.group(1)), int(sent.group(1)), time.monotonic()

    def rates(self, seconds):
        """(received, sent) packets per second over an interval."""
        begin = self.counters()
        time.sleep(seconds)
        end = self.counters()
        span = end[2] - begin[2]
        return (end[0] - begin[0]) / span, (end[1] - begin[1]) / span

    def close(self):
        if self.process is None:
            return
        if self.process.alive:
            try:
                self.command('quit')
                self.process.wait_exit(10)
            except (OSError, ProcessError):
                pass
        self.process.close()
        self.process = None


def front_end(lab, path, cpu, mode, huge=False):
    """testpmd as a driver of a vhost-user back end that connects to path."""
    return Testpmd(lab, 'front', cpu,
                   'net_virtio_user0,path=%s,server=1,queues=1,queue_size=256' % path, mode,
                   eal=['--single-file-segments'], huge=huge)


def back_end(lab, path, cpu, mode, huge=False):
    """testpmd's vhost PMD as a back end that connects to path."""
    return Testpmd(lab, 'peer', cpu, 'net_vhost0,iface=%s,queues=1,client=1' % path, mode,
                   options=['--auto-start'], huge=huge)


def version():
    """The version of the installed DPDK."""
    done = subprocess.run(['pkg-config', '--modversion', 'libdpdk'], stdout=subprocess.PIPE,
                          text=True, check=False)
    return done.stdout.strip() or '?'
