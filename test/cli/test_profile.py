# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Tests of what tells a VF that does not fit before a guest moves: vf --profile, vf --check, and
the libvirt hook."""
import json
import os
import socket

import pytest

from cli_harness import TOP, VHOSTMGMT, error, result, run

VF = '0000:af:04.5'
DISK = '0000:af:05.1'
HOOK = os.path.join('examples', 'libvirt', 'qemu-hook')
MAC = '00:00:00:00:33:05'
OFFERED = {'value': '0x100400020', '    5': 'VIRTIO_NET_F_MAC', '   22': 'VIRTIO_NET_F_MQ',
           '   32': 'VIRTIO_F_VERSION_1'}
IN_USE = {'value': '0x300000020', '    5': 'VIRTIO_NET_F_MAC', '   32': 'VIRTIO_F_VERSION_1',
          '   33': 'VIRTIO_F_ACCESS_PLATFORM'}
PROFILE = {'vfe_profile': 1, 'mac': MAC, 'mtu': 1500, 'queue_pairs': 4, 'queue_size': 256,
           'features': OFFERED,
           'features_in_use': {'value': '0x100000020', '    5': 'VIRTIO_NET_F_MAC',
                               '   32': 'VIRTIO_F_VERSION_1'}}


def record(**changes):
    return {'vf': VF, 'mac': MAC, 'mtu': '1500', 'queue_num': '8', 'queue_size': '256',
            'guest_feature': OFFERED, 'driver_feature': {'value': '0'}, 'lost': False,
            'last_error': '', 'connected': False, 'socket_file': '/tmp/vfe-net0', **changes}


def info(**changes):
    return result({'errno': 0, 'errstr': 'Success', 'device': record(**changes)})


def profile(**changes):
    return json.dumps({**PROFILE, **changes}).encode()


# --- vf --profile ---

def test_profile_of_a_vf_in_use(server, vhostmgmt):
    server.replies = [info(driver_feature=IN_USE)]
    done = vhostmgmt('vf', '--profile', VF)
    assert (done.status, done.err) == (0, '')
    assert done.json == PROFILE     # what only the device needs is not in it
    assert server.params() == ('vf', {'info': True, 'vfdev': VF})


def test_profile_of_an_idle_vf(server, vhostmgmt):
    server.replies = [info()]
    assert vhostmgmt('vf', '--profile', VF).json == {**PROFILE, 'features_in_use': {'value': '0x0'}}


@pytest.mark.parametrize('reply', [
    result({'errno': 0, 'errstr': 'Success'}), result({'errno': 0, 'device': 7}),
    info(mac=None), info(mac='x'), info(mtu='x'), info(mtu='70000'), info(queue_num='1'),
    info(guest_feature={}), info(driver_feature={'value': '0x10000000000000000'}),
    result({'errno': -1003, 'errstr': 'no such VF'}), error(-32602, 'bad')])
def test_profile_of_a_strange_record(server, vhostmgmt, reply):
    server.replies = [reply]
    for action in ('--profile', '--check'):
        done = vhostmgmt('vf', action, VF, stdin=profile())
        assert done.status == 1
        assert 'error: vf %s %s: ' % (action[2:], VF) in done.err
        assert 'Traceback' not in done.err


# --- disks ---

BLK_OFFERED = {'value': '0x100000220', '    5': 'VIRTIO_BLK_F_RO', '    9': 'VIRTIO_BLK_F_FLUSH',
               '   32': 'VIRTIO_F_VERSION_1'}
BLK_PROFILE = {'vfe_profile': 1, 'type': 'blk', 'capacity': 1 << 30, 'block_size': 512,
               'read_only': False, 'queues': 4, 'queue_size': 256, 'features': BLK_OFFERED,
               'features_in_use': {'value': '0x0'}}


def disk_record(**changes):
    return {'vf': DISK, 'type': 'blk', 'capacity': 1 << 30, 'block_size': 512, 'read_only': False,
            'queue_num': '4', 'queue_size': '256', 'guest_feature': BLK_OFFERED,
            'driver_feature': {'value': '0'}, 'lost': False, 'last_error': '', 'connected': False,
            'socket_file': '/tmp/vfe-blk0', 'socket_role': 'server', **changes}


def disk(**changes):
    return result({'errno': 0, 'errstr': 'Success', 'device': disk_record(**changes)})


def disk_profile(**changes):
    return json.dumps({**BLK_PROFILE, **changes}).encode()


def test_profile_of_a_disk(server, vhostmgmt):
    server.replies = [disk()]
    done = vhostmgmt('vf', '--profile', VF)
    assert (done.status, done.err) == (0, '')
    assert done.json == BLK_PROFILE


@pytest.mark.parametrize('changes', [{}, {'capacity': 1 << 31}, {'queue_num': '8'}])
def test_disk_fits(server, vhostmgmt, changes):
    server.replies = [disk(**changes)]
    done = vhostmgmt('vf', '--check', VF, stdin=disk_profile())
    assert done.status == 0 and done.json == {'fits': True, 'differences': []}


@pytest.mark.parametrize('changes, words', [
    ({'capacity': (1 << 30) - 512}, '1073741824 bytes at the source and only 1073741312'),
    ({'block_size': 4096}, 'Blocks have 512 bytes at the source and 4096'),
    ({'read_only': True}, 'writable at the source and read-only'),
    ({'queue_num': '2'}, '4 queues at the source and only 2'),
    ({'guest_feature': {'value': '0x100000020'}}, 'VIRTIO_BLK_F_FLUSH (bit 9)')])
def test_disk_does_not_fit(server, vhostmgmt, changes, words):
    server.replies = [disk(**changes)]
    done = vhostmgmt('vf', '--check', VF, stdin=disk_profile())
    assert done.status == 1
    assert len(done.json['differences']) == 1 and words in done.json['differences'][0]


def test_disk_is_no_interface(server, vhostmgmt):
    for reply, text in ((disk(), profile()), (info(), disk_profile())):
        server.replies = [reply]
        done = vhostmgmt('vf', '--check', VF, stdin=text)
        assert done.status == 1 and 'VF at the source' in done.json['differences'][0]


@pytest.mark.parametrize('changes', [
    {'type': 'scsi'}, {'type': 7}, {'capacity': -1}, {'capacity': '1'}, {'block_size': 511},
    {'read_only': 1}, {'queues': 0}])
def test_disk_profile_that_makes_no_sense(server, vhostmgmt, changes):
    server.replies = [disk()]
    done = vhostmgmt('vf', '--check', VF, stdin=disk_profile(**changes))
    assert done.status == 1
    assert 'is no profile: ' in done.err and 'Traceback' not in done.err


# --- vf --check ---

def test_vf_fits(server, vhostmgmt, folder):
    server.replies = [info()]
    name = os.path.join(folder, 'p.json')
    with open(name, 'wb') as stream:
        stream.write(profile())
    for argv, stdin in (([name], None), (['-'], profile()), ([], profile())):
        done = vhostmgmt('vf', '--check', VF, *argv, stdin=stdin)
        assert (done.status, done.err) == (0, '')
        assert done.json == {'fits': True, 'differences': []}


def test_more_here_than_at_the_source_fits(server, vhostmgmt):
    server.replies = [info(mtu='9000', queue_num='64', queue_size='1024', guest_feature={
        'value': '0xffffffffffffffff'})]
    assert vhostmgmt('vf', '--check', VF, stdin=profile()).status == 0


@pytest.mark.parametrize('changes, words', [
    ({'mac': '00:00:00:00:33:06'}, 'MAC address is 00:00:00:00:33:05 at the source'),
    ({'mtu': '1400'}, 'MTU is 1500 at the source and only 1400'),
    ({'queue_num': '6'}, '4 queue pairs at the source and only 3'),
    ({'queue_size': '128'}, '256 entries at the source and only 128'),
    ({'guest_feature': {'value': '0x100400000'}},
     'VIRTIO_NET_F_MAC (bit 5) is in use at the source and not offered'),
])
def test_each_difference_is_a_sentence(server, vhostmgmt, changes, words):
    server.replies = [info(**changes)]
    done = vhostmgmt('vf', '--check', VF, stdin=profile())
    assert done.status == 1
    assert done.json['fits'] is False
    assert len(done.json['differences']) == 1 and words in done.json['differences'][0]
    assert done.err == 'vhostmgmt: error: vf check %s: %s\n' % (VF, done.json['differences'][0])


def test_all_differences_are_told(server, vhostmgmt):
    server.replies = [info(mac='00:00:00:00:33:06', mtu='1400', queue_num='2', queue_size='64',
                           guest_feature={'value': '0'})]
    done = vhostmgmt('vf', '--check', VF, stdin=profile())
    assert done.status == 1
    assert len(done.json['differences']) == len(done.err.splitlines()) == 6


def test_unused_feature_may_be_missing_unless_no_guest_tells(server, vhostmgmt):
    server.replies = [info(guest_feature={'value': '0x100000020'})]
    assert vhostmgmt('vf', '--check', VF, stdin=profile()).status == 0
    done = vhostmgmt('vf', '--check', VF, stdin=profile(features_in_use={'value': '0x0'}))
    assert done.status == 1
    assert 'VIRTIO_NET_F_MQ (bit 22) is offered at the source' in done.err


def test_vf_that_tells_no_mtu_fits(server, vhostmgmt):
    server.replies = [info(mtu='0')]
    assert vhostmgmt('vf', '--check', VF, stdin=profile()).status == 0


@pytest.mark.parametrize('data, words', [
    (b'', 'not JSON'), (b'[' * 100000, ''), (b'\xff', ''), (b'[]', 'not the output'),
    (b'{}', 'not the output'), (profile(vfe_profile=2), 'version is 2'),
    (profile(mac='0:0:0:0:0:0'), 'not a MAC'), (profile(mac=[]), 'not a MAC'),
    (profile(mtu='1500'), 'mtu'), (profile(mtu=True), 'mtu'), (profile(mtu=-1), 'mtu'),
    (profile(queue_pairs=0), 'queue_pairs'), (profile(queue_size=1e3), 'queue_size'),
    (profile(features=5), 'features'), (profile(features={'value': '-1'}), 'features'),
    (profile(features={'value': '0x1' + '0' * 16}), 'features'),
    (b'{"vfe_profile": 1}', "lacks 'mac'"), (b' ' * (1 << 17), 'longer than'),
])
def test_broken_profile(server, vhostmgmt, data, words):
    server.replies = [info()]
    done = vhostmgmt('vf', '--check', VF, stdin=data)
    assert (done.status, done.out) == (1, '')
    assert 'standard input is no profile: ' in done.err and words in done.err
    assert 'Traceback' not in done.err


def test_profile_names_are_no_way_to_steer_a_terminal(server, vhostmgmt):
    server.replies = [info()]
    done = vhostmgmt('vf', '--check', VF, stdin=profile(
        features_in_use={'value': '0x1', '    0': '\x1b[31mred'}))
    assert done.status == 1
    assert '?[31mred (bit 0)' in done.err and '\x1b' not in done.err


def test_file_that_is_not_there(server, vhostmgmt, folder):
    server.replies = [info()]
    done = vhostmgmt('vf', '--check', VF, folder + '/none')
    assert done.status == 1
    assert 'cannot read %s/none: No such file' % folder in done.err


@pytest.mark.parametrize('argv, words', [
    (['vf', '--check'], 'which VF'), (['vf', '--profile'], 'which VF'),
    (['vf', '--profile', VF, 'x'], '--check only'), (['vf', '-i', VF, 'x'], '--check only'),
    (['vf', '--check', '--profile', VF], 'not allowed'),
])
def test_usage(server, vhostmgmt, argv, words):
    done = vhostmgmt(*argv)
    assert done.status == 2 and words in done.err
    assert server.requests == []


def test_commands_on_standard_input_cannot_be_the_profile_too(server, vhostmgmt):
    done = vhostmgmt(stdin=b'vf --check %s\n' % VF.encode())
    assert done.status == 1 and 'give --check a file' in done.err
    assert server.requests == []


# --- the libvirt hook ---

def xml(mac=MAC, path='/tmp/vfe-net0', driver="<driver queues='4'/>", more='', metadata=''):
    return """<domain type='qemu'><name>vm</name><metadata>%s</metadata><devices>
      <interface type='network'><source network='default'/></interface>
      <interface type='vhostuser'><mac address='%s'/>
        <source type='unix' path='%s' mode='server'/><model type='virtio'/>%s%s</interface>
      </devices></domain>""" % (metadata, mac, path, driver, more)


def embedded(interface=MAC, text=profile().decode()):
    return ("<vfe:profiles xmlns:vfe='urn:vfe:1'><profile interface='%s'>%s</profile>"
            "</vfe:profiles>" % (interface, text))


class FakeHost:
    """Answers like a service with a NIC, a disk, and a disk without PF; the records can be changed.
    A list has an old MAC address and an old size."""

    def __init__(self):
        self.nic = record(socket_role='client')
        self.disk = disk_record()
        self.plain = disk_record(vf='0000:03:00.0', socket_file='/tmp/vfe-blk1')
        self._lists = {'0000:af:00.2': [self.nic], '0000:af:00.3': [self.disk],
                       '0000:00:00.0': [self.plain]}

    def answer(self, request):
        params = request['params']
        if request['method'] == 'mgmtpf':
            value = {'errno': 0, 'devices': [{'pf': '0000:af:00.2'}, {'pf': '0000:af:00.3'}]}
        elif params.get('list'):
            value = {'errno': 0, 'devices': [dict(vf, mac='02:00:00:00:00:00', capacity=0)
                                             for vf in self._lists[params['mgmtpf']]]}
        else:
            found = [vf for vfs in self._lists.values() for vf in vfs
                     if params == {'info': True, 'vfdev': vf['vf']}]
            if not found:
                return error(-32602, 'bad')(request)
            value = {'errno': 0, 'device': found[0]}
        return result(value)(request)


@pytest.fixture
def fake_host(server):
    fake = FakeHost()
    server.replies = [fake.answer]
    return fake


@pytest.fixture
def host(fake_host):
    """The record of the NIC."""
    return fake_host.nic


def hook(server, data, *argv):
    return run(HOOK, '-s', server.path, *(argv or ('vm', 'migrate', 'begin', '-')),
               stdin=data.encode())


@pytest.mark.parametrize('data', [xml(), xml(metadata=embedded()),
                                  xml(mac='52:54:00:00:00:01',
                                      metadata=embedded('52:54:00:00:00:01')),
                                  xml(driver=''), xml(more="<mtu size='1500'/>"),
                                  xml(path='/tmp/of-ovs'), '<domain/>',
                                  "<domain><devices><interface type='vhostuser'/></devices>"
                                  "</domain>"])
def test_hook_lets_a_guest_in_and_leaves_its_xml(server, host, data):
    done = hook(server, data)
    assert (done.status, done.out, done.err) == (0, '', '')


@pytest.mark.parametrize('data, words', [
    (xml(mac='00:00:00:00:33:06'), 'MAC address is 00:00:00:00:33:06 in the XML'),
    (xml(driver="<driver queues='5'/>"), '5 queue pairs and the VF 4'),
    (xml(driver="<driver rx_queue_size='512'/>"), '512 entries in the XML and at most 256'),
    (xml(driver="<driver queues='x'/>"), 'cannot be understood'),
    (xml(more="<mtu size='9000'/>"), 'MTU is 9000 in the XML and 1500'),
    (xml(metadata=embedded(text=profile(mtu=1600).decode())), 'MTU is 1600 at the source'),
    (xml(metadata=embedded(text='x')), 'profile of interface %s in the metadata is broken' % MAC),
    (xml(path='/tmp/other', metadata=embedded()), 'No VF of this host has the socket /tmp/other'),
    ('<domain', 'cannot be understood'),
])
def test_hook_refuses(server, host, data, words):
    done = hook(server, data)
    assert (done.status, done.out) == (1, '')
    assert 'vfe: error: vm: ' in done.err and words in done.err
    assert 'Traceback' not in done.err


def test_hook_refuses_a_vf_that_is_lost_or_in_use(server, host):
    host.update(lost=True, last_error='hung up')
    assert 'is lost: hung up' in hook(server, xml()).err
    host.update(lost=False, connected=True)
    done = hook(server, xml())
    assert done.status == 1 and 'in use by another guest' in done.err


def test_hook_waits_for_the_last_guest_to_be_gone(server, host):
    answer = server.replies[0]

    def first_busy(request):
        host['connected'] = len(server.requests) < 6
        return answer(request)

    host['connected'] = True
    server.replies = [first_busy]
    assert hook(server, xml()).status == 0
    assert len(server.requests) >= 6


def test_hook_tells_all_interfaces_that_do_not_fit(server, host):
    data = xml(driver="<driver queues='9'/>").replace('</devices>', """
        <interface type='vhostuser'><mac address='00:00:00:00:33:07'/>
        <source type='unix' path='/tmp/vfe-net0' mode='server'/></interface></devices>""")
    done = hook(server, data)
    assert done.status == 1
    assert '9 queue pairs' in done.err and '00:00:00:00:33:07 in the XML' in done.err


@pytest.mark.parametrize('reply', [b'x\n', result([]), result({'devices': 5}),
                                   result({'devices': [{}]}), error(-1, 'no'),
                                   result({'devices': [{'pf': VF, 'socket_file': '/\0'}]}),
                                   result({'devices': [{'pf': VF, 'socket_file': 5}]})])
def test_hook_refuses_when_the_service_gives_no_sense(server, reply):
    server.replies = [reply]
    for data in (xml(), disk_xml()):
        done = hook(server, data)
        assert done.status == 1
        assert 'Traceback' not in done.err and 'vfe: error: vm: ' in done.err


def test_hook_refuses_when_both_listen_or_both_connect(server, fake_host):
    fake_host.nic['socket_role'] = 'server'
    assert 'both listen on the socket: add the VF with --client' in hook(server, xml()).err
    assert hook(server, xml().replace("mode='server'", "mode='client'")).status == 0
    fake_host.nic['socket_role'] = 'client'
    assert 'both connect to the socket: add the VF with --server' in hook(
        server, xml().replace("mode='server'", "mode='client'")).err
    del fake_host.nic['socket_role']        # of an older service
    assert hook(server, xml()).status == 0


# --- the disks of a domain ---

def disk_xml(path='/tmp/vfe-blk0', driver="<driver name='qemu' type='raw' queues='4'/>", dev='vda',
             metadata=''):
    return """<domain type='qemu'><name>vm</name><metadata>%s</metadata><devices>
      <disk type='file' device='disk'><source file='/x'/><target dev='vdz'/></disk>
      <disk type='vhostuser' device='disk'>%s
        <source type='unix' path='%s'><reconnect enabled='yes' timeout='1'/></source>
        <target dev='%s' bus='virtio'/></disk>
      </devices></domain>""" % (metadata, driver, path, dev)


def disk_embedded(dev='vda', **changes):
    return ("<vfe:profiles xmlns:vfe='urn:vfe:1'><profile disk='%s'>%s</profile></vfe:profiles>"
            % (dev, disk_profile(**changes).decode()))


@pytest.mark.parametrize('data', [
    disk_xml(), disk_xml(metadata=disk_embedded()), disk_xml(path='/tmp/vfe-blk1'),
    disk_xml(driver=''), disk_xml(driver="<driver queues='1' queue_size='256'/>"),
    disk_xml(metadata=disk_embedded(capacity=1 << 20)),
    disk_xml(metadata=disk_embedded('vdb', capacity=1 << 50)),      # of a disk that has gone
    disk_xml(metadata=embedded('vda')),
    "<domain><devices><disk type='vhostuser'/></devices></domain>"])
def test_hook_lets_a_disk_in(server, fake_host, data):
    done = hook(server, data)
    assert (done.status, done.out, done.err) == (0, '', '')


@pytest.mark.parametrize('data, words', [
    (disk_xml(driver="<driver queues='5'/>"), 'The XML has 5 queues and the VF 4.'),
    (disk_xml(driver="<driver queue_size='512'/>"),
     'Queues have 512 entries in the XML and at most 256 on the VF.'),
    (disk_xml(driver="<driver queues='x'/>"), 'cannot be understood'),
    (disk_xml(path='/tmp/vfe-blk1', driver="<driver queues='5'/>"), 'VF 0000:03:00.0 on'),
    (disk_xml(path='/tmp/vfe-net0'), 'VF %s on /tmp/vfe-net0 is no disk.' % VF),
    (disk_xml(metadata=disk_embedded(capacity=(1 << 30) + 512)),
     'The disk has 1073742336 bytes at the source and only 1073741824 here.'),
    (disk_xml(metadata=disk_embedded(block_size=4096)),
     'Blocks have 4096 bytes at the source and 512 here.'),
    (disk_xml(metadata=disk_embedded(read_only=True)),
     'The disk is read-only at the source and writable here.'),
    (disk_xml(metadata=disk_embedded(queues=8)), 'There are 8 queues at the source and only 4'),
    (disk_xml(metadata=disk_embedded(queue_size=1024)),
     'Queues have up to 1024 entries at the source and only 256 here.'),
    (disk_xml(metadata=disk_embedded(features_in_use={'value': '0x2000', '   13': 'VIRTIO_BLK_X'})),
     'Feature VIRTIO_BLK_X (bit 13) is in use at the source and not offered here.'),
    (disk_xml(metadata=embedded('vda').replace("interface='", "disk='")),
     'It is a net VF at the source and a blk VF here.'),
    (disk_xml(metadata=disk_embedded(capacity='x')),
     'The profile of disk vda in the metadata is broken: capacity'),
])
def test_hook_refuses_a_disk(server, fake_host, data, words):
    done = hook(server, data)
    assert (done.status, done.out) == (1, '')
    assert words in done.err and done.err.startswith('vfe: error: vm: ')
    assert 'Traceback' not in done.err


def test_hook_names_the_disk_the_vf_and_the_socket(server, fake_host):
    done = hook(server, disk_xml(metadata=disk_embedded(capacity=1 << 40, block_size=4096)))
    assert done.err == (
        'vfe: error: vm: Disk vda: VF %s on /tmp/vfe-blk0 does not fit. The disk has 1099511627776 '
        'bytes at the source and only 1073741824 here. Blocks have 4096 bytes at the source and '
        '512 here.\n' % DISK)


def test_hook_refuses_a_disk_that_is_lost_in_use_or_connects_itself(server, fake_host):
    fake_host.disk.update(lost=True, last_error='hung up')
    assert 'Disk vda: VF %s on /tmp/vfe-blk0 is lost: hung up' % DISK in hook(
        server, disk_xml()).err
    fake_host.disk.update(lost=False, connected=True)
    assert 'in use by another guest' in hook(server, disk_xml()).err
    fake_host.disk.update(connected=False, socket_role='client')
    done = hook(server, disk_xml())
    assert done.status == 1 and 'add the VF with --server' in done.err


def test_hook_refuses_a_disk_that_is_not_there(server, fake_host, folder):
    """QEMU would wait for it for ever; but another program may be its back end."""
    path = folder + '/blk'
    missing = 'Disk vda: No VF of this host has the socket ' + path
    assert missing + ', and nobody else listens on it.' in hook(server, disk_xml(path)).err
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)         # nobody listens yet
        assert missing in hook(server, disk_xml(path)).err
        listener.listen()
        done = hook(server, disk_xml(path))
        assert (done.status, done.err) == (0, '')
        # a profile says that it has been on a VF
        assert missing in hook(server, disk_xml(path, metadata=disk_embedded())).err
    assert missing in hook(server, disk_xml(path)).err
    assert 'nobody else listens' in hook(server, disk_xml('/' + 'x' * 200)).err


def test_hook_tells_what_is_wrong_with_nics_and_disks_together(server, fake_host):
    data = xml(driver="<driver queues='9'/>").replace(
        '</devices>', disk_xml(driver="<driver queues='7'/>").split('<devices>')[1].split(
            '</devices>')[0] + '</devices>')
    done = hook(server, data)
    assert done.status == 1
    assert 'Interface %s: VF %s on /tmp/vfe-net0 does not fit. The XML has 9 queue pairs' \
        % (MAC, VF) in done.err
    assert 'Disk vda: VF %s on /tmp/vfe-blk0 does not fit. The XML has 7 queues' % DISK in done.err


def test_hook_refuses_when_the_service_is_not_there(folder):
    done = run(HOOK, '-s', folder + '/none', 'vm', 'migrate', 'begin', '-', stdin=xml().encode())
    assert done.status == 1
    assert 'cannot be checked: %s/none does not exist' % folder in done.err


@pytest.mark.parametrize('argv', [
    ('vm', 'prepare', 'begin', '-'), ('vm', 'migrate', 'end', '-'), ('vm', 'stopped', 'end', '-'),
    ('vm', 'restore', 'begin', '-'), ('vm', 'started')])
def test_hook_has_nothing_to_say_at_other_times(server, argv):
    done = hook(server, xml(driver="<driver queues='99'/>"), *argv)
    assert (done.status, done.out, done.err) == (0, '', '')
    assert server.requests == []


def test_hook_finds_its_modules_by_a_link(server, host, folder):
    os.symlink(os.path.join(TOP, HOOK), os.path.join(folder, 'qemu'))
    done = run('qemu', '-s', server.path, 'vm', 'migrate', 'begin', '-', stdin=xml().encode(),
               top=folder)
    assert (done.status, done.err) == (0, '')


def test_vhostmgmt_is_what_the_hook_reads(server, vhostmgmt):
    """The text that goes into the metadata is the output of --profile, as it is."""
    server.replies = [info(driver_feature=IN_USE)]
    text = run(VHOSTMGMT, '-s', server.path, 'vf', '--profile', VF).out
    assert '<' not in text and '&' not in text and json.loads(text) == PROFILE
