# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A guest inside the VM, whose network card is a function of the VM's kernel behind the service.

Two emulated processors one in the other are too slow for Linux within minutes. The guest is
iPXE, whose driver for virtio-net is its own: it asks for an address, fetches a file, and runs it.
"""
import os

from vm import PAIR, TOOLS

SOCKET = '/tmp/nested.sock'
CONSOLE = '/tmp/nested.log'
PID = '/tmp/nested.pid'
QEMU = ('qemu-system-x86_64 -L /usr/share/qemu -nodefaults -no-user-config -display none '
        '-machine q35,graphics=off,memory-backend=mem -accel tcg -m 48M '
        '-object memory-backend-memfd,id=mem,size=48M,share=on '
        '-chardev socket,id=vfe,path=%s,server=on '
        '-netdev vhost-user,id=net,chardev=vfe '
        # vectors=0: see the limits of QEMU 7.2
        '-device virtio-net-pci,netdev=net,page-per-vq=on,vectors=0,bootindex=0 '
        '-serial file:%s -pidfile %s' % (SOCKET, CONSOLE, PID))
WORD = 'this-guest-has-fetched-its-boot-file'
FILE_SIZE = 32 << 10
TIMEOUT = 170


def boot_script():
    """A script of iPXE that is long enough for many packets; what it says is in its last line."""
    lines = ['#!ipxe']
    while sum(map(len, lines)) < FILE_SIZE:
        lines.append('# ' + os.urandom(32).hex())
    # in its shell it keeps the network card
    return '\n'.join(lines + ['echo ' + '-'.join(reversed(WORD.split('-'))), 'shell', ''])


def test_guest_boots_over_the_socket(vm, service):
    disk = vm.run('ls /sys/bus/pci/devices/%s/virtio*/block' % TOOLS).strip()
    vm.run('[ -x /usr/bin/qemu-system-x86_64 ] || tar -xf /dev/%s -C /' % disk)
    with open(vm.boot_file, 'w', encoding='ascii') as f:
        f.write(boot_script())
    vm.bind('-b', 'vfio-pci', *PAIR)
    service.manage('vf', '-a', PAIR[0], '-v', SOCKET, '--plain')
    vm.run('rm -f %s; (%s </dev/null >/tmp/nested.out 2>&1 &)' % (CONSOLE, QEMU))
    try:
        wanted = '-'.join(reversed(WORD.split('-')))
        vm.run('until grep -q %s %s; do sleep 0.5; [ ! -f %s ] || [ -d /proc/$(cat %s) ]; done'
               % (wanted, CONSOLE, PID, PID), TIMEOUT, check=False)
        info = service.info(PAIR[0])
        output = vm.run('cat /tmp/nested.out; cat %s || true' % CONSOLE)
        assert wanted in output, output
        assert info['state'] == 'running' and info['queues'][1]['host_notifier'], info
    finally:
        vm.run('[ ! -f {0} ] || kill $(cat {0}); while pidof qemu-system-x86_64 >/dev/null; do '
               'sleep 0.1; done'.format(PID))
    service.manage('vf', '-r', PAIR[0])
    vm.bind('-u', *PAIR)
