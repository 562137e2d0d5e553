# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Tests of vhostmgmt: what goes over the wire, what is printed, and the exit status."""
import json

import pytest

from cli_harness import OK, VHOSTMGMT, error, result, run

PF = '0000:af:00.2'
VF = '0000:af:04.5'
UUID = '01234567-89ab-cdef-0123-456789abcdef'


@pytest.mark.parametrize('argv, method, params', [
    (['version'], 'version', {}),
    (['mgmtpf', '-a', PF], 'mgmtpf', {'add': True, 'dev': PF}),
    (['mgmtpf', PF, '-a'], 'mgmtpf', {'add': True, 'dev': PF}),
    (['mgmtpf', '--add', 'AF:0.2'], 'mgmtpf', {'add': True, 'dev': PF}),
    (['mgmtpf', '-a', PF, '--num-vfs', '16'], 'mgmtpf',
     {'add': True, 'dev': PF, 'num_vfs': 16}),
    (['mgmtpf', '-r', PF], 'mgmtpf', {'remove': True, 'dev': PF}),
    (['mgmtpf', '--remove', PF], 'mgmtpf', {'remove': True, 'dev': PF}),
    (['mgmtpf', '-l'], 'mgmtpf', {'list': True}),
    (['mgmtpf', '--list'], 'mgmtpf', {'list': True}),
    (['mgmtpf', '-l', '-d'], 'mgmtpf', {'list': True, 'debug': True}),
    (['vf', '-a', VF], 'vf', {'add': True, 'vfdev': VF, 'socket_file': None, 'uuid': None}),
    (['vf', '-a', VF, '-v', '/tmp/vfe-net0'], 'vf',
     {'add': True, 'vfdev': VF, 'socket_file': '/tmp/vfe-net0', 'uuid': None}),
    (['vf', '-a', VF, '-v', '/tmp/n', '-u', UUID.upper()], 'vf',
     {'add': True, 'vfdev': VF, 'socket_file': '/tmp/n', 'uuid': UUID}),
    (['vf', '--add', VF, '--vhost-socket=/tmp/n', '--uuid', UUID], 'vf',
     {'add': True, 'vfdev': VF, 'socket_file': '/tmp/n', 'uuid': UUID}),
    (['vf', '-v', '/tmp/\u00e9 x', '-a', '10000:af:1f.7'], 'vf',
     {'add': True, 'vfdev': '10000:af:1f.7', 'socket_file': '/tmp/\u00e9 x', 'uuid': None}),
    (['vf', '\u2013a', VF, '\u2013v', '/tmp/n', '\u2014uuid', UUID], 'vf',
     {'add': True, 'vfdev': VF, 'socket_file': '/tmp/n', 'uuid': UUID}),
    *[(argv, 'vf', {'add': True, 'vfdev': VF, 'socket_file': '/tmp/n', 'uuid': None,
                    'socket_role': role})
      for role in ('client', 'server')
      for argv in (['vf', '-a', VF, '-v', '/tmp/n', '--' + role],
                   ['vf', '--' + role, '-v', '/tmp/n', '-a', VF],
                   ['vf', '-a', VF, '\u2014' + role, '-v', '/tmp/n'])],
    *[(['vf', '-a', VF, '-v', '/tmp/n', '--plain', *more], 'vf',
       {'add': True, 'vfdev': VF, 'socket_file': '/tmp/n', 'uuid': None, 'plain': True, **params})
      for more, params in (((), {}), (('--allow-no-iommu',), {'allow_no_iommu': True}))],
    (['vf', '-r', VF], 'vf', {'remove': True, 'vfdev': VF}),
    (['vf', '--remove', VF], 'vf', {'remove': True, 'vfdev': VF}),
    (['vf', '-l', PF], 'vf', {'list': True, 'mgmtpf': PF}),
    (['vf', '--list', PF], 'vf', {'list': True, 'mgmtpf': PF}),
    (['vf', '-i', VF], 'vf', {'info': True, 'vfdev': VF}),
    (['vf', '--info', VF], 'vf', {'info': True, 'vfdev': VF}),
    *[(['vf', '-d', VF, '-o', str(n)], 'vf',
       {'debug': True, 'vfdev': VF, 'test_operation': n, 'size_mode': 1}) for n in range(1, 7)],
    (['vf', '--debug', VF, '--test-operation', 'stop-logging', '--size-mode', 'bytemap'], 'vf',
     {'debug': True, 'vfdev': VF, 'test_operation': 5, 'size_mode': 2}),
    (['vf', '-d', VF, '-o', '4', '-b', '2'], 'vf',
     {'debug': True, 'vfdev': VF, 'test_operation': 4, 'size_mode': 2}),
    (['vf', '-d', VF, '-o', '4', '-b', '1'], 'vf',
     {'debug': True, 'vfdev': VF, 'test_operation': 4, 'size_mode': 1}),
])
def test_request_on_the_wire(server, vhostmgmt, argv, method, params):
    done = vhostmgmt(*argv)
    assert (done.status, done.err) == (0, '')
    assert server.params() == (method, params)
    assert done.json == {'errno': 0, 'errstr': 'Success'}


@pytest.mark.parametrize('argv, words', [
    (['nonsense'], 'invalid choice'),
    (['mgmtpf'], 'one of the arguments'),
    (['mgmtpf', '-a'], 'which PF'),
    (['mgmtpf', '-r'], 'which PF'),
    (['mgmtpf', '-a', '-r', PF], 'not allowed'),
    (['mgmtpf', '-l', PF], 'vf -l ' + PF),
    (['mgmtpf', '-r', PF, '-n', '1'], '-a only'),
    (['mgmtpf', '-a', PF, '-n', '0'], 'number of VFs'),
    (['mgmtpf', '-a', PF, '--allow-no-iommu'], 'unrecognized'),
    (['vf', '-a', VF, '--allow-no-iommu'], '--plain only'),
    (['vf', '-r', VF, '--allow-no-iommu'], '--plain only'),
    (['mgmtpf', '-a', PF, '-n', '65536'], 'number of VFs'),
    (['mgmtpf', '-a', '-d', PF], '-l only'),
    (['mgmtpf', '-a', PF, VF], 'unrecognized'),
    (['mgmtpf', '--lis'], 'required'),
    (['vf'], 'one of the arguments'),
    (['vf', '-a'], 'which VF'),
    (['vf', '-l'], 'which PF'),
    (['vf', '-a', '-i', VF], 'not allowed'),
    (['vf', '-r', VF, '-v', '/tmp/x'], '-a only'),
    (['vf', '-i', VF, '-u', UUID], '-a only'),
    (['vf', '-i', VF, '--client'], '-a only'),
    (['vf', '-r', VF, '--server'], '-a only'),
    (['vf', '-l', PF, '--server'], '-a only'),
    (['vf', '-a', VF, '--client', '--server'], 'not allowed'),
    (['vf', '-a', VF, '--client=yes'], 'ignored explicit argument'),
    (['vf', '-i', VF, '-o', '1'], '-d only'),
    (['vf', '-a', VF, '-b', '1'], '-d only'),
    (['vf', '-d', VF], '-o 1..6'),
    (['vf', '-d', VF, '-o', '0'], '6/status'),
    (['vf', '-d', VF, '-o', '7'], '6/status'),
    (['vf', '-d', VF, '-o', '-1'], '6/status'),
    (['vf', '-d', VF, '-o', ''], '6/status'),
    (['vf', '-d', VF, '-o', '1', '-b', '3'], '2/bytemap'),
    (['vf', '-d', VF, '-o', '1', '-b', 'byte'], '2/bytemap'),
    (['vf', '-a', VF, '-v', 'relative'], 'absolute'),
    (['vf', '-a', VF, '-v', ''], 'absolute'),
    (['vf', '-a', VF, '-v', '/tmp/a\nb'], 'control'),
    (['vf', '-a', VF, '-v', b'/tmp/\xff'], 'UTF-8'),
    (['vf', '-a', VF, '-v', '/' + 'x' * 107], '108 bytes'),
    (['vf', '-a', VF, '-v', '/' + '\u00e9' * 54], '109 bytes'),
    (['vf', '-a', VF, '-u', 'x'], 'UUID'),
    (['vf', '-a', VF, '-u', UUID + '0'], 'UUID'),
    (['vf', '-a', VF, '-u', UUID.replace('-', '')], 'UUID'),
    (['vf', '-a', VF, '-u', '\uff10' + UUID[1:]], 'UUID'),
    (['-t', '0', 'version'], 'seconds'),
    (['-t', '-1', 'version'], 'seconds'),
    (['-t', 'nan', 'version'], 'seconds'),
    (['-t', 'inf', 'version'], 'seconds'),
    (['-t', 'x', 'version'], 'seconds'),
    (['-s', '', 'version'], '0 bytes'),
    (['-s', '/' + 'x' * 107, 'version'], '108 bytes'),
    *[(['vf', '-i', bad], 'PCI address') for bad in (
        'x', '', 'af:00', 'af:20.0', 'af:00.8', '100:00.0', 'af:00.2 ', '123456789:af:00.2',
        '0000:af:00.2/..', '0000:af:00.', ':af:00.2', '\uff10000:af:00.2')],
])
def test_usage_errors_send_nothing(server, vhostmgmt, argv, words):
    done = vhostmgmt(*argv)
    assert done.status == 2
    assert done.out == ''
    assert words in done.err
    assert 'Traceback' not in done.err
    assert server.requests == []


def test_socket_option_after_the_command(server):
    for argv in (['-s', '/nowhere', 'vf', '-i', VF, '-s', server.path],
                 ['vf', '--socket', server.path, '-i', VF],
                 ['mgmtpf', '-l', '--socket=' + server.path]):
        assert run(VHOSTMGMT, *argv).status == 0


def test_output_is_pretty_and_in_the_order_of_the_service(server, vhostmgmt):
    device = {'vf': VF, 'probed': True, 'msix_num': '10', 'a': [1, {}], 'mac': '\u00e4\u20ac'}
    reply = {'errno': 0, 'device': device, 'errstr': 'Success'}
    server.replies = [result(reply)]
    for env in ({}, {'LC_ALL': 'C', 'PYTHONIOENCODING': 'ascii'}):
        done = vhostmgmt('vf', '-i', VF, env=env)
        assert done.status == 0
        assert done.out == json.dumps(reply, indent=4, ensure_ascii=False) + '\n'


def test_lone_surrogate_stays_json(server, vhostmgmt):
    server.replies = [result({'errno': 0, 'errstr': '\ud800'})]
    done = vhostmgmt('vf', '-i', VF)
    assert done.status == 0
    assert done.json['errstr'] == '\ud800'


@pytest.mark.parametrize('number', [-1003, 1003, -1, '7', None, True])
def test_errno_means_failure(server, vhostmgmt, number):
    reply = {'errno': number, 'errstr': 'no\x1b[31m such VF'}
    server.replies = [result(reply)]
    done = vhostmgmt('vf', '-i', VF)
    assert done.status == 1
    assert done.json == reply
    assert 'vhostmgmt: error: vf info %s: no?[31m such VF (errno %s)' % (VF, number) in done.err
    assert '\x1b' not in done.err


def test_hint_unless_the_service_gives_one(server, vhostmgmt):
    server.replies = [result({'errno': -1013, 'errstr': 'has 2 VFs'}),
                      result({'errno': -1013, 'errstr': 'use vhostmgmt vf -r'}),
                      result({'errno': -4711, 'errstr': 'odd'})]
    assert 'vf -r VF' in vhostmgmt('mgmtpf', '-r', PF).err
    assert 'vf -r VF' not in vhostmgmt('mgmtpf', '-r', PF).err
    assert 'log of the service' in vhostmgmt('mgmtpf', '-r', PF).err


def test_debug_error_member_means_failure(server, vhostmgmt):
    server.replies = [result({'Error': 'not frozen'})]
    done = vhostmgmt('vf', '-d', VF, '-o', '1')
    assert done.status == 1
    assert 'vf debug %s: not frozen' % VF in done.err


def test_result_without_errno_is_success(server, vhostmgmt):
    server.replies = [result({'Success': VF, 'device': {'vf': VF, 'lm_status': 'running'}})]
    assert vhostmgmt('vf', '-d', VF, '-o', '6').status == 0


@pytest.mark.parametrize('value', [[], 'x', 1, True])
def test_result_of_a_wrong_type(server, vhostmgmt, value):
    server.replies = [result(value)]
    done = vhostmgmt('version')
    assert done.status == 1
    assert 'not an object' in done.err


def test_error_object(server, vhostmgmt):
    server.replies = [error(-32602, 'vf: unknown parameter "x"')]
    done = vhostmgmt('vf', '-i', VF)
    assert done.status == 1
    assert done.out == ''
    assert done.err == ('vhostmgmt: error: vf info %s: vf: unknown parameter "x" '
                        '(error -32602)\n' % VF)


# --- commands on standard input ---

def test_batch_goes_on_and_tells_the_line(server, vhostmgmt):
    server.replies = [OK, result({'errno': -1014, 'errstr': 'there'}), OK]
    done = vhostmgmt(stdin=b'mgmtpf -a af:00.2\r\n'
                           b'\n'
                           b'   # a comment\n'
                           b"vf -a af:04.5 -v '/tmp/a b' # another\n"
                           b'vf -x\n'
                           b'"\n'
                           b'bogus\n'
                           b'-t 5\n'
                           b'\xff\n'
                           b'vf -i x\n'
                           b'-h\n'
                           b'vf -l af:00.2')
    assert done.status == 1
    assert [r['params'] for r in server.requests] == [
        {'add': True, 'dev': PF},
        {'add': True, 'vfdev': VF, 'socket_file': '/tmp/a b', 'uuid': None},
        {'list': True, 'mgmtpf': PF}]
    assert server.connections == 1
    lines = [line for line in done.err.split('\n') if 'error' in line]
    for number, words in ((4, 'there'), (5, 'one of the arguments'), (6, 'quotation'),
                          (7, 'invalid choice'), (8, 'no command'), (9, 'utf-8'),
                          (10, 'PCI address')):
        line = lines.pop(0)
        assert 'line %d: ' % number in line
        assert words in line
    assert lines == []


def test_batch_of_successes(server, vhostmgmt):
    done = vhostmgmt(stdin=b''.join(b'vf -i 0000:af:%02x.%d\n' % (n >> 3, n & 7)
                                    for n in range(256)))
    assert (done.status, done.err) == (0, '')
    assert len(server.requests) == 256
    assert len({r['id'] for r in server.requests}) == 256
    assert server.connections == 1


def test_batch_uses_options_before_and_on_the_line(server, folder):
    done = run(VHOSTMGMT, stdin=('version -s %s\n' % server.path).encode())
    assert done.status == 0
    done = run(VHOSTMGMT, '-s', server.path,
               stdin=('-s %s/none version\nversion\n' % folder).encode())
    assert done.status == 1
    assert 'line 1: version: %s/none does not exist' % folder in done.err
    assert len(server.requests) == 2


def test_empty_batch(vhostmgmt):
    done = vhostmgmt(stdin=b'')
    assert (done.status, done.out, done.err) == (0, '', '')
