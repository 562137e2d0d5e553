# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""A folder that looks like sysfs and procfs of a host, and does what the kernel does on writes."""
import errno
import os
import shutil

# what the kernel would choose, by device ID
KERNEL_DRIVERS = {'0x1041': 'virtio-pci', '0x1042': 'virtio-pci', '0x1017': 'mlx5_core'}


class FakePci:
    """PCI functions in a tree of files. write() stands for the kernel's attributes."""

    def __init__(self, top):
        self.sysfs = os.path.join(top, 'sys')
        self.proc = os.path.join(top, 'proc')
        self.pci = os.path.join(self.sysfs, 'bus', 'pci')
        self.writes = []
        self.failures = {}      # (file name, text): errno of the next such write
        self.taken = set()      # functions that new_id of vfio-pci matches
        for folder in (os.path.join(self.pci, 'devices'), os.path.join(self.proc, 'net'),
                       os.path.join(self.proc, 'self')):
            os.makedirs(folder)
        for driver in ('vfio-pci', 'virtio-pci', 'mlx5_core', 'pcieport'):
            os.makedirs(os.path.join(self.pci, 'drivers', driver))

    def path(self, bdf, *names):
        return os.path.join(self.sysfs, 'devices', 'pci' + bdf[:7], bdf, *names)

    @staticmethod
    def put(path, text):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as f:
            f.write(text + '\n')

    @staticmethod
    def link(target, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.path.relpath(target, os.path.dirname(path)), path)

    def add(self, bdf, device='0x1041', pci_class='0x020000', driver='virtio-pci', group=None,
            numa=-1, total_vfs=None):
        """Add a function."""
        path = self.path(bdf)
        files = {'vendor': '0x1af4', 'device': device, 'class': pci_class,
                 'numa_node': str(numa), 'driver_override': '(null)'}
        if total_vfs is not None:
            files.update(sriov_totalvfs=str(total_vfs), sriov_numvfs='0')
        for name, text in files.items():
            self.put(os.path.join(path, name), text)
        self.link(path, os.path.join(self.pci, 'devices', bdf))
        if driver is not None:
            self._attach(bdf, driver)
        if group is not None:
            folder = os.path.join(self.sysfs, 'kernel', 'iommu_groups', str(group))
            self.link(path, os.path.join(folder, 'devices', bdf))
            self.link(folder, os.path.join(path, 'iommu_group'))

    def add_interface(self, bdf, name, up=True):
        place = self.path(bdf, 'virtio0', 'net', name)
        self.put(os.path.join(place, 'flags'), '0x1003' if up else '0x1002')
        self.link(place, os.path.join(self.sysfs, 'class', 'net', name))
        return place

    def add_disk(self, bdf, name, dev, part=None):
        place = self.path(bdf, 'virtio0', 'block', name, *([part] if part else []))
        self.put(os.path.join(place, 'dev'), dev)
        self.link(place, os.path.join(self.sysfs, 'class', 'block', part or name))
        return place

    def add_process(self, pid, comm, opened):
        self.put(os.path.join(self.proc, str(pid), 'comm'), comm)
        os.makedirs(os.path.join(self.proc, str(pid), 'fd'))
        os.symlink(opened, os.path.join(self.proc, str(pid), 'fd', '7'))

    def proc_file(self, name, text):
        self.put(os.path.join(self.proc, name), text)

    def driver(self, bdf):
        try:
            return os.path.basename(os.readlink(self.path(bdf, 'driver')))
        except FileNotFoundError:
            return None

    def text(self, bdf, name):
        with open(self.path(bdf, name)) as f:
            return f.read().rstrip('\n')

    def _attach(self, bdf, driver):
        self.link(os.path.join(self.pci, 'drivers', driver), self.path(bdf, 'driver'))

    def _probe(self, bdf, driver=None):
        """What the kernel does with a function without driver; @driver is the only one asked."""
        override = self.text(bdf, 'driver_override')
        chosen = override
        if override == '(null)':
            chosen = 'vfio-pci' if bdf in self.taken else \
                KERNEL_DRIVERS.get(self.text(bdf, 'device'))
        if driver not in (None, chosen):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if chosen and os.path.isdir(os.path.join(self.pci, 'drivers', chosen)):
            self._attach(bdf, chosen)

    def _set_vfs(self, bdf, count):
        old = int(self.text(bdf, 'sriov_numvfs'))
        if old and count:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        for n in range(old):
            vf = os.path.basename(os.readlink(self.path(bdf, 'virtfn%d' % n)))
            os.unlink(self.path(bdf, 'virtfn%d' % n))
            os.unlink(os.path.join(self.pci, 'devices', vf))
            shutil.rmtree(self.path(vf))
        for n in range(count):
            vf = '%s%02x.%d' % (bdf[:8], n // 8 + 4, n % 8)
            self.add(vf, device=self.text(bdf, 'device'))
            self.link(self.path(bdf), self.path(vf, 'physfn'))
            self.link(self.path(vf), self.path(bdf, 'virtfn%d' % n))
        self.put(self.path(bdf, 'sriov_numvfs'), str(count))

    def write(self, path, text):
        """The kernel's reaction to a write of an attribute."""
        folder, name = os.path.split(path)
        self.writes.append((name, text))
        if (name, text) in self.failures:
            number = self.failures.pop((name, text))
            raise OSError(number, os.strerror(number))
        if name == 'driver_override':
            self.put(path, text.rstrip('\n') or '(null)')
        elif name == 'unbind':
            assert os.path.basename(os.readlink(folder)) == self.driver(text)
            os.unlink(folder)
        elif name == 'bind':
            self._probe(text, os.path.basename(folder))
        elif name == 'drivers_probe':
            self._probe(text)
        elif name == 'sriov_numvfs':
            self._set_vfs(os.path.basename(folder), int(text))
        else:
            raise AssertionError('a write to ' + path)
