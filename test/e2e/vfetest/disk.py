# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Disks: images, and vhost-user-blk devices of QEMU."""
import dataclasses
import subprocess

MIB = 1 << 20
DISK_MIB = 32
MAKE_FS = ['/usr/sbin/mke2fs', '-q', '-F', '-t', 'ext4', '-E', 'lazy_itable_init=0,nodiscard']


def make_image(path, mib=DISK_MIB, content=None):
    """A new image: empty, or with an ext4 file system of what a folder contains."""
    with open(path, 'wb') as f:
        f.truncate(mib * MIB)
    if content is not None:
        subprocess.run(MAKE_FS + ['-d', content, path], check=True, stdin=subprocess.DEVNULL)
    return path


def serial(vf):
    """The serial number by which a guest knows the disk of a VF."""
    return 'disk-%d' % vf


def role(server):
    """How QEMU opens a vhost-user socket; as client it tries each second to connect again."""
    return ',server=on' if server else ',reconnect=1'


@dataclasses.dataclass
class Disk:
    """A vhost-user-blk device of a guest; see Nic for vectors."""
    vf: int
    path: str
    queues: int = 1
    server: bool = True
    options: dict = dataclasses.field(default_factory=dict)

    def argv(self):
        options = {'page-per-vq': 'on', 'vectors': 0, **self.options}
        return ['-chardev', 'socket,id=diskchar%d,path=%s%s' % (self.vf, self.path,
                                                                role(self.server)),
                '-device', 'vhost-user-blk-pci,id=disk%d,chardev=diskchar%d,num-queues=%d%s'
                % (self.vf, self.vf, self.queues,
                   ''.join(',%s=%s' % item for item in options.items()))]
