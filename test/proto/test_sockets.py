# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Both directions of vhost-user sockets in one service: who listens is said for each VF."""

import os
import socket
import struct
import tempfile
import time

import pytest

from peers import daemons
from peers import vhost_user as vh
from peers.memory import Memory
from peers.vhost_user import FrontEnd

ROLES = ('client', 'server')


class Host:
    """A controller with two VFs, and a service in which VF 0 is a client and VF 1 a server."""

    def __init__(self, directory):
        self.directory = directory
        self.controller = daemons.Controller(directory, vfs=2)
        self.roles = dict(enumerate(ROLES))
        self.service = None
        self._serial = 0

    def start_service(self, client):
        """The service listens by default unless @client; either VF says otherwise or the same."""
        self._serial += 1
        self.service = daemons.Service(self.directory, self.controller.pci_dir, client=client,
                                       name=f'service{self._serial}')
        self.service.pf_add(self.controller.PF)
        for index in self.roles:
            self.add(index)

    def add(self, index):
        self.service.vf_add(self.controller.vf(index), self.path(index),
                            socket_role=self.roles[index])

    def remove(self, index):
        self.service.vf_remove(self.controller.vf(index))

    def info(self, index):
        return self.service.vf_info(self.controller.vf(index))

    def path(self, index):
        return os.path.join(self.directory, f'vhost{index}')

    def front_end(self, index, **kwargs):
        """The other side of the VF's socket, not connected."""
        return FrontEnd(self.path(index), server=self.roles[index] == 'client', **kwargs)

    def kill(self):
        if self.service is not None:
            self.service.kill()
        self.controller.kill()


@pytest.fixture
def host(work):
    the_host = Host(tempfile.mkdtemp(prefix='h', dir=work))
    yield the_host
    the_host.kill()


def begin(front_end, base=0):
    front_end.connect_taken(15)
    front_end.start(base)
    front_end.echo(5)


@pytest.mark.parametrize('client', [True, False], ids=ROLES)
def test_both_directions_at_once(host, client):
    """Whatever the service was started as; front ends go and come back on either socket."""
    host.start_service(client)
    listed = host.service.manage('vf', list=True, mgmtpf=host.controller.PF)['devices']
    assert {d['vf']: (d['socket_role'], d['socket_file']) for d in listed} == {
        host.controller.vf(i): (role, host.path(i)) for i, role in host.roles.items()}
    idle = None
    for _ in range(3):
        with host.front_end(0) as one, host.front_end(1) as other:
            begin(one)
            begin(other)
            one.echo(5)
            assert [host.info(i)['connected'] for i in (0, 1)] == [True, True]
            assert [host.info(i)['socket_role'] for i in (0, 1)] == list(ROLES)
        idle = idle or host.service.stable_fds()    # the first guest opens some for good
        host.service.settle(idle)
    host.service.stop()
    host.controller.stop()
    assert not os.path.exists(host.path(1)), 'the socket of the server is left behind'


@pytest.mark.parametrize('client', [True, False], ids=ROLES)
def test_default_is_what_the_service_was_started_as(host, client):
    host.roles = {0: None, 1: None}
    host.start_service(client)
    assert [host.info(i)['socket_role'] for i in (0, 1)] == [ROLES[not client]] * 2


@pytest.mark.parametrize('how', ['stop', 'kill'])
def test_service_is_restarted_under_both(host, how):
    """The left-over of the killed one's own socket is no hindrance, that of QEMU stays."""
    with Memory(8 << 20) as memory, Memory(8 << 20) as more:
        fronts = {}
        for generation in range(2):
            host.start_service(client=generation == 0)
            for index, mem in ((0, memory), (1, more)):
                last = fronts.get(index)
                if index == 0 and last:
                    last.sock.close()       # QEMU still listens
                else:
                    fronts[index] = host.front_end(index, mem=mem)
                    fronts[index].pairs = last.pairs if last else []
                begin(fronts[index], 5 * generation)
            getattr(host.service, how)()
            assert os.path.exists(host.path(0)), 'the socket of QEMU was removed'
            assert os.path.exists(host.path(1)) == (how == 'kill')
        for front_end in fronts.values():
            front_end.close()


def test_roles_are_swapped_over_left_over_sockets(host):
    """Both sockets are there and nobody listens on them."""
    host.start_service(True)
    with host.front_end(0) as one, host.front_end(1) as other:
        begin(one)
        begin(other)
        host.service.kill()
    for index in host.roles:
        with socket.socket(socket.AF_UNIX) as left:
            if not os.path.exists(host.path(index)):
                left.bind(host.path(index))
    host.roles = {0: 'server', 1: 'client'}
    host.start_service(True)
    with host.front_end(0) as one, host.front_end(1) as other:
        begin(one)
        begin(other)


def test_wrong_direction_is_told_and_mended(host):
    """QEMU listens on the socket of a server, in its place: nothing of QEMU has to be restarted."""
    host.start_service(False)
    host.roles[1] = 'client'
    with host.front_end(1) as qemu:
        assert host.info(1)['socket_role'] == 'server' and not host.info(1)['connected']
        host.remove(1)
        assert os.path.exists(host.path(1)), 'the socket of QEMU was removed'
        assert os.listdir(host.directory).count('vhost1') == 1
        assert not [n for n in os.listdir(host.directory) if n.startswith('vhost1.')]
        with pytest.raises(daemons.Refused, match='process listens on .*vhost1; .*--client'):
            host.service.vf_add(host.controller.vf(1), host.path(1), socket_role='server')
        qemu.listener.accept()[0].close()   # it was looked at
        host.add(1)
        begin(qemu)


def test_client_does_not_take_our_own_server_for_its_front_end(host):
    host.start_service(False)
    host.remove(0)
    os.symlink(host.directory, host.directory + '-alias')
    alias = host.directory + '-alias/vhost1'
    with pytest.raises(daemons.Refused, match='is the socket of VF ' + host.controller.vf(1)):
        host.service.vf_add(host.controller.vf(0), alias, socket_role='client')
    host.remove(1)
    host.service.vf_add(host.controller.vf(0), alias, socket_role='client')
    host.add(1)
    deadline = time.monotonic() + 10 * daemons.SLOW
    while 'no front-end listens there' not in host.service.log():
        assert time.monotonic() < deadline, host.service.log_tail()
        time.sleep(0.01)
    with host.front_end(1) as front_end:
        begin(front_end)
    assert not host.info(0)['connected']
    host.remove(0)
    os.unlink(host.directory + '-alias')


LIES = {
    'says nothing': b'',
    'half a header': struct.pack('=I', vh.GET_FEATURES),
    'half a message': struct.pack('=III', vh.SET_FEATURES, 1, 8) + b'abc',
    'too large a message': struct.pack('=III', vh.SET_FEATURES, 1, 0xffffffff),
    'no request': struct.pack('=III', 0xffff, 1, 0),
    'a reply': struct.pack('=III', vh.GET_FEATURES, 5, 8) + bytes(8),
}


@pytest.mark.parametrize('lie', LIES)
def test_hostile_listener(svc, lie):
    """Whoever listens where a client connects, and connects again, disturbs nobody else."""
    path = os.path.join(svc.work, 'liar')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(10 * daemons.SLOW)
        svc.service.vf_add(svc.controller.vf(2), path, socket_role='client')
        try:
            for _ in range(3):
                sock = listener.accept()[0]
                if LIES[lie]:
                    sock.sendall(LIES[lie])
                begin_ = time.monotonic()
                svc.witness.echo()
                assert time.monotonic() - begin_ < 4 * daemons.SLOW
                sock.close()
        finally:
            svc.service.vf_remove(svc.controller.vf(2))
    os.unlink(path)
    svc.add(2)      # it is as good as new
    with svc.front_end(2) as front_end:
        begin(front_end)
    svc.remove(2)
