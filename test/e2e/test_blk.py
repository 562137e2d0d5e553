# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A guest's disk on a VF: boot, file systems, verified load, sizes, errors."""
import contextlib
import hashlib
import os
import struct
import subprocess
import time

import pytest

from vfetest import Process
from vfetest.controller import disk_name
from vfetest.disk import DISK_MIB, MIB, make_image
from vfetest.guest import IMAGE
from vfetest.load import DiskLoad, LoadError

ROOT_MIB = 64
WRITES = 400
SECTOR = 512
BLOCK = 4096


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def digest_of(path):
    return hashlib.sha256(read(path)).hexdigest()


def test_guest_boots_from_the_disk(lab, make_stack):
    content = lab.path('root')
    os.mkdir(content)
    with open(os.path.join(IMAGE, 'initramfs'), 'rb') as archive:
        subprocess.run(['cpio', '--quiet', '-id'], stdin=archive, cwd=content, check=True)
    stack = make_stack({'image': make_image(lab.path('root.img'), ROOT_MIB, content)})
    guest = stack.disk_guest(cmdline='root=/dev/vda')
    guest.reboot()
    assert guest.run("grep ' / ' /proc/mounts | tail -n 1").startswith('/dev/vda / ext4 rw')
    guest.run('cp -a /sbin /copy && sync && echo 3 >/proc/sys/vm/drop_caches && '
              'for f in /sbin/*; do cmp $f /copy/${f##*/} || exit 1; done')
    guest.check_kernel()


# reads eight sectors behind its own and writes their text to the serial port
BOOT_CODE = bytes.fromhex('31c0 8ed8 be1f7c b442 cd13 720f '
                          'be007e fc ac 84c0 7406 baf803 ee ebf5 f4 ebfd')
BOOT_PACKET = struct.pack('<BBHHHQ', 16, 0, 8, 0x7e00, 0, 1)
BOOT_MARK = b'\x55\xaa'


def test_firmware_boots_from_the_disk(lab, make_stack):
    """SeaBIOS has a driver of its own, which polls."""
    text = b'read by the firmware: ' + b'0123456789abcdef' * 250 + b'.\r\n'
    with open(make_image(lab.path('disk0.img')), 'r+b') as image:
        image.write((BOOT_CODE + BOOT_PACKET).ljust(510, b'\0') + BOOT_MARK + text)
    stack = make_stack({})
    console = lab.log('firmware')
    qemu = Process('qemu', [
        'qemu-system-x86_64', '-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'tcg',
        '-machine', 'q35,memory-backend=mem', '-m', '64M',
        '-object', 'memory-backend-memfd,id=mem,size=64M,share=on',
        '-chardev', 'file,id=serial,path=' + console, '-serial', 'chardev:serial',
        *stack.disk().argv()], lab.log('firmware-qemu'))
    with contextlib.closing(qemu):
        end = time.monotonic() + 30
        while not os.path.exists(console) or not read(console).endswith(b'.\r\n'):
            assert time.monotonic() < end, read(console)
            time.sleep(0.05)
        qemu.stop()
    assert read(console) == text


def test_file_system_keeps_what_is_written(lab, make_stack):
    stack = make_stack({}, {})
    guest = stack.disk_guest(0, 1)
    disks = [guest.block_device(vf) for vf in (0, 1)]
    for disk in disks:
        guest.run('mkdir -p /mnt && /sbin/mke2fs -q -t ext4 %s && mount -t ext4 %s /mnt && '
                  'cd /mnt && '
                  'for i in 1 2 3 4 5 6; do head -c 3000000 /dev/urandom >$i; done && '
                  'mkdir d && for i in $(seq 200); do echo $i >d/$i; done && rm 3 && '
                  'find . -type f -exec sha256sum {} + >/tmp/sums && cd / && umount /mnt'
                  % (disk, disk), 120)
        guest.run('e2fsck -fn ' + disk, 60)
        guest.run('echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 %s /mnt && cd /mnt && '
                  'sha256sum -cs /tmp/sums && cd / && umount /mnt' % disk, 60)
    # the first disk has not taken anything that was for the second
    for vf in (0, 1):
        subprocess.run(['e2fsck', '-fn', lab.path('disk%d.img' % vf)], check=True,
                       stdout=subprocess.PIPE)
    # what a file had is given back to the host when the guest says that it is free
    before = os.stat(lab.path('disk1.img')).st_blocks
    guest.run('mount -t ext4 %s /mnt && rm /mnt/5 && sync && fstrim /mnt && umount /mnt'
              % disks[1], 60)
    assert os.stat(lab.path('disk1.img')).st_blocks * SECTOR < before * SECTOR - 2500000
    guest.check_kernel()


@pytest.mark.parametrize('client', [True, False], ids=['qemu-listens', 'service-listens'])
def test_load_on_two_queues(make_stack, note, client):
    stack = make_stack({}, client=client)
    guest = stack.disk_guest(queues=2, cpus=2)
    load = DiskLoad(guest)
    load.wait_more(WRITES)
    load.stop()
    note(load.sums)
    queues = stack.controller.disk(0)['queues']
    assert [q['writes'] > 0 for q in queues] == [True, True, False, False], queues
    guest.check_kernel()


def test_load_sees_a_sector_that_has_become_old(lab, make_stack):
    """The tests would fail if a write were lost, or done a second time later."""
    guest = make_stack({}).disk_guest()
    load = DiskLoad(guest)
    load.wait_more(WRITES)
    with open(lab.path('disk0.img'), 'r+b') as image:
        old = os.pread(image.fileno(), MIB, 0)
        load.wait_more(WRITES)
        os.pwrite(image.fileno(), old, 0)
    with pytest.raises(LoadError) as seen:
        load.stop()
    assert 'generation' in str(seen.value) and ' expected' in str(seen.value)


def test_new_size_reaches_the_guest(lab, make_stack):
    stack = make_stack({})
    guest = stack.disk_guest()
    disk = guest.block_device()
    load = DiskLoad(guest)
    load.wait_more()
    os.truncate(lab.path('disk0.img'), 2 * DISK_MIB * MIB)
    stack.controller.call('bdev_aio_rescan', name=disk_name(0))
    guest.run('for i in $(seq 100); do [ $(cat /sys/block/%s/size) = %d ] && exit; sleep 0.1; done;'
              'exit 1' % (os.path.basename(disk), 2 * DISK_MIB * MIB // SECTOR))
    last = 2 * DISK_MIB * MIB // BLOCK - 1
    guest.run('head -c %d /dev/urandom >/tmp/block; dd if=/tmp/block of=%s bs=%d seek=%d '
              'oflag=direct' % (BLOCK, disk, BLOCK, last))
    digest = guest.run('sha256sum </tmp/block').split()[0]
    load.wait_more()
    load.stop()
    with open(lab.path('disk0.img'), 'rb') as image:
        there = os.pread(image.fileno(), 2 * BLOCK, last * BLOCK)
    assert len(there) == BLOCK
    assert hashlib.sha256(there).hexdigest() == digest
    guest.check_kernel()


def test_read_only_disk(lab, make_stack):
    content = lab.path('content')
    os.mkdir(content)
    with open(os.path.join(content, 'file'), 'wb') as f:
        f.write(os.urandom(MIB))
    image = make_image(lab.path('disk0.img'), DISK_MIB, content)
    before = digest_of(image)
    guest = make_stack({'read_only': True}).disk_guest()
    disk = guest.block_device()
    assert guest.run('cat /sys/block/%s/ro' % os.path.basename(disk)).strip() == '1'
    assert guest.status('dd if=/dev/urandom of=%s bs=4096 count=1 oflag=direct' % disk) != 0
    assert guest.status('blkdiscard -f %s || fstrim %s' % (disk, disk)) != 0
    guest.run('mkdir /mnt && mount -t ext4 -o ro %s /mnt' % disk)
    digest = guest.run('sha256sum </mnt/file').split()[0]
    assert digest == digest_of(os.path.join(content, 'file'))
    guest.run('umount /mnt')
    assert digest_of(image) == before


@pytest.fixture
def small_place(lab):
    """A folder with room for 8 MiB."""
    folder = lab.path('small')
    os.mkdir(folder)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder], check=True)
    yield folder
    subprocess.run(['umount', '-l', folder], check=True)


def test_no_room_for_the_image(make_stack, small_place, note):
    """Requests that need room fail until there is some; all others are served."""
    stack = make_stack({'image': make_image(os.path.join(small_place, 'disk0.img'))})
    guest = stack.disk_guest()
    load = DiskLoad(guest)
    full = load.wait(lambda sums: sums.get('errors', 0) > 20)
    load.wait(lambda sums: sums['reads'] > full['reads'] + 100)
    subprocess.run(['mount', '-o', 'remount,size=%dm' % (2 * DISK_MIB), small_place], check=True)
    # those that had failed before may be counted late
    for _ in range(2):
        load.wait_more(WRITES)
    errors = load.progress()['errors']
    load.wait_more(WRITES)
    load.stop(errors=True)
    note(load.sums)
    assert load.sums['errors'] == errors
    guest.check_kernel()


def test_back_end_that_hangs(make_stack):
    stack = make_stack({})
    guest = stack.disk_guest()
    load = DiskLoad(guest)
    load.wait_more()
    stack.controller.inject(0, 'hold')
    end = time.monotonic() + 20
    while stack.controller.disk(0)['queues'][0]['in_flight'] < DiskLoad.THREADS:
        assert time.monotonic() < end, stack.controller.disk(0)
        time.sleep(0.05)
    stack.controller.inject(0, 'none')
    load.wait_more()
    load.stop()
    guest.check_kernel()


def test_errors_of_the_back_end(make_stack, note):
    stack = make_stack({})
    guest = stack.disk_guest()
    disk = guest.block_device()
    one = 'dd if=/dev/zero of=%s bs=4096 count=1 oflag=direct seek=%%d 2>&1' % disk
    stack.controller.inject(0, 'fail', op='write', sector=80, sectors=8)
    assert guest.status(one % 9) == 0
    assert 'Input/output error' in guest.agent.run(one % 10)[1]
    assert guest.status(one % 11) == 0
    assert guest.status('dd if=%s of=/dev/null bs=4096 count=1 iflag=direct skip=10' % disk) == 0
    stack.controller.inject(0, 'none')
    assert guest.status(one % 10) == 0

    load = DiskLoad(guest)
    load.wait_more()
    assert load.progress()['errors'] == 0
    for op in ('write', 'read', 'flush'):
        before = load.progress()['errors']
        stack.controller.inject(0, 'fail', op=op, every=3)
        load.wait(lambda sums, b=before: sums['errors'] > b + 3)
    stack.controller.inject(0, 'none')
    # those that had failed before may be counted late
    for _ in range(2):
        load.wait_more(200)
    errors = load.progress()['errors']
    load.wait_more(200)
    load.stop(errors=True)
    note(load.sums)
    assert load.sums['errors'] == errors
    guest.check_kernel()
