# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The whole product: software DPU in a namespace, service, and guests on its VFs."""
from .controller import BLK_PF, PF, disk_bdf, representor, vf_bdf, vf_mac
from .disk import Disk


class Stack:
    """Controller and service with one PF; VF k has the network 10.77.k.0/24.

    The host's end of a VF is .1 on its representor, the guest's is .2. With disks, their PF is
    there, too. client: QEMU listens on the sockets, and the service connects.
    """

    def __init__(self, lab, cpus=None, client=True, **controller_options):
        self._lab = lab
        self._client = client
        self._disks = bool(controller_options.get('disks'))
        self.netns = lab.netns()
        self.controller = lab.controller(self.netns, start=False, cpus=cpus, **controller_options)
        self.service = lab.service(start=False, cpus=cpus, client=client)

    def start(self):
        self.controller.start()
        self.start_service()

    def start_service(self):
        """Start the service; VFs are added by the test."""
        self.service.start()
        self.service.add_pf(PF)
        if self._disks:
            self.service.add_pf(BLK_PF)

    @staticmethod
    def bdf(vf):
        return vf_bdf(vf)

    @staticmethod
    def tap(vf):
        return representor(vf)

    @staticmethod
    def host(vf):
        return '10.77.%d.1' % vf

    @staticmethod
    def guest_address(vf):
        return '10.77.%d.2' % vf

    def socket(self, vf):
        return self._lab.path('vfe-net%d' % vf)

    def add_vf(self, vf):
        self.service.add_vf(vf_bdf(vf), self.socket(vf))

    def remove_vf(self, vf):
        self.service.remove_vf(vf_bdf(vf))

    def info(self, vf):
        return self.service.info(vf_bdf(vf))

    def disk_socket(self, vf):
        return self._lab.path('vfe-blk%d' % vf)

    def add_disk(self, vf=0):
        self.service.add_vf(disk_bdf(vf), self.disk_socket(vf))

    def remove_disk(self, vf=0):
        self.service.remove_vf(disk_bdf(vf))

    def disk_info(self, vf=0):
        return self.service.info(disk_bdf(vf))

    def disk_guest(self, *vfs, queues=1, mem=192, **options):
        """Boot a guest on disks; no NIC."""
        guest = self._lab.guest('disks', mem=mem, disks=[self.disk(vf, queues=queues)
                                                         for vf in vfs or [0]], **options)
        guest.boot()
        return guest

    def disk(self, vf=0, **options):
        """The device of a guest on the disk of a VF."""
        return Disk(vf, self.disk_socket(vf), server=self._client, **options)

    def host_up(self, vf):
        """Configure the representor; again after a restart of the controller made a new one.

        Its address stays the same, or the guest's neighbour cache would hold the test up.
        """
        self.netns.run('ip', 'link', 'set', representor(vf), 'address',
                       '02:00:00:00:77:%02x' % vf)
        self.netns.configure(representor(vf), self.host(vf) + '/24')

    def guest(self, *vfs, queues=1, options=None, **guest_options):
        """A guest on VFs that are or will be added; not started."""
        nics = [self._lab.nic(self.socket(vf), vf_mac(vf), queues=queues, options=options or {})
                for vf in vfs]
        name = 'guest%s' % '-'.join(str(vf) for vf in vfs)
        return self._lab.guest(name, nics=nics, **guest_options)

    def guest_up(self, guest, vf, index=0):
        """Configure the guest's end and see that it reaches the host's."""
        guest.configure(self.guest_address(vf) + '/24', index)
        guest.ping(self.host(vf))

    def running_guest(self, vf=0, **options):
        """Add a VF and boot a guest that talks through it."""
        self.add_vf(vf)
        self.host_up(vf)
        guest = self.guest(vf, **options)
        guest.boot()
        self.guest_up(guest, vf)
        return guest
