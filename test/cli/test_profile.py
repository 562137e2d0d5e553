# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Tests of what tells a VF that does not fit before a guest moves: vf --profile, vf --check, and
the libvirt hook."""
import json
import os

import pytest

from cli_harness import TOP, VHOSTMGMT, error, result, run

VF = '0000:af:04.5'
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


def disk(**changes):
    return result({'errno': 0, 'errstr': 'Success', 'device': {
        'vf': VF, 'type': 'blk', 'capacity': 1 << 30, 'block_size': 512, 'read_only': False,
        'queue_num': '4', 'queue_size': '256', 'guest_feature': BLK_OFFERED,
        'driver_feature': {'value': '0'}, **changes}})


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


@pytest.fixture
def host(server):
    """Answers like a service with one VF; the record can be changed. A list has an old MAC."""
    vf = record()

    def answer(request):
        params = request['params']
        if request['method'] == 'mgmtpf':
            value = {'errno': 0, 'devices': [{'pf': '0000:af:00.2'}]}
        elif params.get('mgmtpf') == '0000:af:00.2':
            value = {'errno': 0, 'devices': [dict(vf, mac='02:00:00:00:00:00')]}
        elif params == {'info': True, 'vfdev': VF}:
            value = {'errno': 0, 'device': vf}
        else:
            return error(-32602, 'bad')(request)
        return result(value)(request)

    server.replies = [answer]
    return vf


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
                                   result({'devices': [{}]}), error(-1, 'no')])
def test_hook_refuses_when_the_service_gives_no_sense(server, reply):
    server.replies = [reply]
    done = hook(server, xml())
    assert done.status == 1
    assert 'Traceback' not in done.err and 'vfe: error: vm: ' in done.err


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
