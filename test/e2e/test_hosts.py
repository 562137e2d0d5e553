# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""scripts/hosts as a reader of its own words uses it: a guest of libvirt on a VF of host A."""
import json
import os
import subprocess
import tempfile

from vfetest.guest import TOP
from vfetest.hosts import NETWORK, guest_address

HOSTS = os.path.join(TOP, 'scripts', 'hosts')


def run(folder, *argv, timeout=120):
    return subprocess.run([HOSTS, '--dir', folder, *argv], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                          check=False)


def guest_sh(folder, *argv):
    return subprocess.run([os.path.join(TOP, 'scripts', 'guest-sh'), '-b', '120', '-s',
                           folder + '/A/run/vfe/guest.agent', *argv], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=200, check=False)


def members(folder):
    """The processes that see the folder of host A as their /etc/libvirt."""
    found = []
    for name in os.listdir('/proc'):
        try:
            if name.isdigit() and os.path.samefile('/proc/%s/root/etc/libvirt' % name,
                                                   folder + '/A/etc/libvirt'):
                found.append(int(name))
        except OSError:
            pass
    return found


def test_hosts_come_up_run_a_guest_and_go():
    # a short path: it is the beginning of those of sockets
    folder = tempfile.mktemp(prefix='vfe-hosts-')
    pids = []
    machine = os.path.exists('/etc/libvirt'), os.path.exists('/run/libvirt')
    network = None
    try:
        done = run(folder, 'up')
        assert done.returncode == 0, done.stdout
        done = run(folder, 'up')
        assert done.returncode == 1 and 'up already' in done.stdout
        done = run(folder, 'exec', 'A', 'sh', '-c',
                   'hostname; virsh define /run/vfe/guest.xml && virsh start guest')
        assert done.returncode == 0, done.stdout
        assert done.stdout.startswith('host-a\n')
        done = guest_sh(folder, 'ip addr add %s/24 dev eth0; ip link set eth0 up; '
                                'ping -c 3 -W 5 %s' % (guest_address(0), NETWORK))
        assert done.returncode == 0, done.stdout
        done = run(folder, 'exec', 'net', 'ping', '-c', '3', '-W', '5', guest_address(0))
        assert done.returncode == 0, done.stdout
        done = run(folder, 'status')
        assert done.returncode == 0 and 'running' in done.stdout, done.stdout
        with open(folder + '/state.json') as f:
            network = '/run/netns/' + json.load(f)['net']
        assert os.path.exists(network)
        pids = members(folder)
        assert len(pids) >= 5
    finally:
        done = run(folder, 'down')
    assert done.returncode == 0, done.stdout
    assert [pid for pid in pids if os.path.exists('/proc/%d' % pid)] == []
    assert not os.path.exists(folder)
    assert not os.path.exists(network)
    assert machine == (os.path.exists('/etc/libvirt'), os.path.exists('/run/libvirt'))
    assert run(folder, 'exec', 'A', 'true').returncode == 1
