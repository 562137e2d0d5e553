# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A Linux guest inside the VM, whose network card and disk are functions behind the service.

Both processors are emulated, one in the other, so everything that can be left out of the guest's
boot is left out; see doc/testing.md.
"""
from vm import BLK, DISK_SIZE, PAIR, TOOLS, WIRE

NET_SOCKET = '/tmp/nested-net.sock'
BLK_SOCKET = '/tmp/nested-blk.sock'
CONSOLE = '/tmp/nested.log'
OUTPUT = '/tmp/nested.out'
STATUS = '/tmp/nested.status'
PID = '/tmp/nested.pid'
HOST = '10.8.0.1'
GUEST = '10.8.0.2'
PORT = 5001
DATAGRAMS = 400
DISK_REQUESTS = 3 * DISK_SIZE // 2 // 65536     # that the guest's program makes

# Parts of the kernel that take seconds each here, and that the guest has no use for.
UNUSED = (
    'tracer_init_tracefs', 'trace_eval_init', 'trace_eval_sync', 'init_kprobe_trace',
    'init_blk_tracer', 'init_trace_printk_function_export', 'cubictcp_register',
    'bpf_rstat_kfunc_init', 'bpf_key_sig_kfuncs_init', 'kfunc_init', 'bpf_prog_test_run_init',
    'bpf_tcp_ca_kfunc_init', 'load_system_certificate_list', 'slab_sysfs_init', 'i8042_init',
    'inet6_init', 'seg6_init', 'init_encrypted', 'crypto_kdf108_init', 'cmos_init')
CMDLINE = ('console=ttyS0 quiet panic=-1 reboot=t acpi=off nolapic mitigations=off lpj=4000000 '
           'tsc=reliable no_timer_check noreplace-smp init_on_alloc=0 random.trust_cpu=on '
           'cryptomgr.notests initcall_blacklist=%s -- %s %d %d'
           % (','.join(UNUSED), GUEST, PORT, DATAGRAMS))
QEMU = ('qemu-system-x86_64 -L /usr/share/qemu -nodefaults -no-user-config -display none '
        '-machine pc,graphics=off,memory-backend=mem -accel tcg,thread=single -m 96M -no-hpet '
        # the guest's clock goes by instructions: by time, ticks would take all of its processor
        '-icount shift=5 '
        '-object memory-backend-memfd,id=mem,size=96M,share=on -no-reboot '
        '-kernel /nested/vmlinux -initrd /nested/initramfs -append "{cmdline}" '
        '-chardev socket,id=net-socket,path={net},server=on '
        '-netdev vhost-user,id=net,chardev=net-socket '
        # vectors=0: see the limits of QEMU 7.2
        '-device virtio-net-pci,netdev=net,page-per-vq=on,vectors=0,romfile= '
        '-chardev socket,id=blk-socket,path={blk},server=on '
        '-device vhost-user-blk-pci,chardev=blk-socket,num-queues=1,page-per-vq=on,vectors=0 '
        '-serial file:{console} -pidfile {pid}'.format(
            cmdline=CMDLINE, net=NET_SOCKET, blk=BLK_SOCKET, console=CONSOLE, pid=PID))
BOOT_TIMEOUT = 400          # a machine that has nothing else to do takes 60 s


def halves(vm):
    """SHA-256 of the first half of the disk with all bits inverted, and of the second half."""
    return vm.run('python3 -c "from hashlib import sha256; d = open(\'/dev/vda\', \'rb\').read(); '
                  'h = len(d) // 2; print(sha256(bytes(255 - b for b in d[:h])).hexdigest(), '
                  'sha256(d[h:]).hexdigest())"').split()


def start(vm):
    """Start QEMU; its exit status comes into a file."""
    vm.run('rm -f {0} {1} {2}; ({3} </dev/null >{4} 2>&1; echo $? >{2}) >/dev/null 2>&1 &'
           .format(CONSOLE, PID, STATUS, QEMU, OUTPUT))


def wait_for(vm, condition, timeout):
    """Until the condition is true in the VM; QEMU must not have ended before."""
    status, output = vm.agent.run(
        'until {0}; do [ ! -e {1} ] || {{ {0}; exit; }}; sleep 0.2; done'
        .format(condition, STATUS), timeout)
    assert status == 0, output + vm.run('cat %s %s' % (OUTPUT, CONSOLE), check=False)


def test_linux_over_the_sockets(vm, service):
    disk = vm.run('ls /sys/bus/pci/devices/%s/virtio*/block' % TOOLS).strip()
    vm.run('[ -d /nested ] || tar -xf /dev/%s -C /' % disk)
    vm.run('head -c %d /dev/urandom >/dev/vda; sync' % (DISK_SIZE // 2))
    vm.bind('-b', 'vfio-pci', *PAIR, BLK)
    service.manage('vf', '-a', PAIR[0], '-v', NET_SOCKET, '--plain')
    service.manage('vf', '-a', BLK, '-v', BLK_SOCKET, '--plain')
    vm.up(WIRE, HOST + '/24')
    pid = service.pid()
    start(vm)
    try:
        wait_for(vm, 'grep -q "nested: ready" ' + CONSOLE, BOOT_TIMEOUT)
        running = [service.info(bdf) for bdf in (PAIR[0], BLK)]
        told = vm.run('python3 /vfe/test/vm/inverter.py %s %d' % (GUEST, PORT), 90).strip()
        wait_for(vm, '[ -e %s ]' % STATUS, 60)
    finally:
        vm.run('[ -e {0} ] || kill $(cat {1}); until [ -e {0} ]; do sleep 0.1; done'
               .format(STATUS, PID))
    parked = [service.info(bdf) for bdf in (PAIR[0], BLK)]
    output = vm.run('cat ' + CONSOLE)
    vm.down(WIRE)
    service.manage('vf', '-r', PAIR[0])
    service.manage('vf', '-r', BLK)
    assert service.files() == [] and service.pid() == pid
    vm.bind('-u', *PAIR, BLK)

    assert vm.run('cat ' + STATUS).strip() == '0', output
    assert 'driver of eth0 is virtio_net' in output, output
    for info in running:
        assert (info['state'], info['transport'], info['drive']) == ('running', 'vfio', 'plain')
        assert all(queue['host_notifier'] for queue in info['queues']), info
    for info in parked:
        assert (info['state'], info['last_error']) == ('parked', ''), info
    # what the VM's kernel has received is what the guest's has sent
    assert 'nested: exchanged ' + told in output, output
    assert int(told.split()[0]) > DATAGRAMS * 500, told
    # no kick of a datagram went through the service; a driver's start has some of a disk
    assert parked[0]['relayed_kicks'] == running[0]['relayed_kicks'], parked
    assert parked[1]['relayed_kicks'] < DISK_REQUESTS / 4, parked
    inverted, second = halves(vm)
    assert inverted == second
