# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Hostile management clients against both daemons."""

import json
import os
import socket
import stat
import struct
import threading
import time

import pytest

from peers import daemons
from peers.jsonrpc import Closed, Rpc, RpcError

BUSY = -32001      # too many connections
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

UNKNOWN = '0000:ee:00.0'


class Target:
    """One daemon, and a request that it can answer without side effects."""

    def __init__(self, daemon, listing):
        self.daemon = daemon
        self.method, self.params = listing

    def rpc(self, **kwargs):
        return Rpc(self.daemon.rpc_path, **kwargs)

    def works(self):
        self.daemon.check()
        begin = time.monotonic()
        with self.rpc() as rpc:
            rpc.call('version')
            rpc.call(self.method, self.params)
        assert time.monotonic() - begin < 3 * daemons.SLOW


@pytest.fixture(params=['service', 'controller'])
def target(request):
    if request.param == 'service':
        svc = request.getfixturevalue('svc')
        yield Target(svc.service, ('mgmtpf', {'list': True}))
    else:
        svc = request.getfixturevalue('svc')
        yield Target(svc.controller, ('list', None))


def error_code(answer):
    return answer.get('error', {}).get('code')


@pytest.mark.parametrize('line', [
    b'{', b'}', b'x', b'{"a":', b'\xff\xfe', b'"\xc3\x28"', b'{"jsonrpc":"2.0","method":"version',
    b'\x00', b'{"jsonrpc":"2.0","id":1,"method":"\x01"}', b'NaN', b'[1,', b'1e99999', b'{"a":1}}',
    b'{"method":"version","id":1} trailing'], ids=repr)
def test_not_json(target, line):
    with target.rpc() as rpc:
        answer = rpc.raw(line)
        assert error_code(answer) in (PARSE_ERROR, INVALID_REQUEST), answer
        assert answer['id'] is None
    target.works()


@pytest.mark.parametrize('line', [
    b'null', b'1', b'"version"', b'true', b'{}', b'{"id":1}', b'{"method":1,"id":1}',
    b'{"jsonrpc":"1.0","method":"version","id":1}', b'{"jsonrpc":"2.0","method":null,"id":1}',
    b'{"jsonrpc":"2.0","method":["version"],"id":1}',
    b'{"jsonrpc":"2.0","method":"version","id":{}}', b'[]', b'[1,2,3]'], ids=repr)
def test_not_a_request(target, line):
    with target.rpc() as rpc:
        answer = rpc.raw(line)
        if isinstance(answer, list):
            answer = answer[0]
        assert error_code(answer) in (INVALID_REQUEST, PARSE_ERROR), answer
    target.works()


def test_unknown_method(target):
    with target.rpc() as rpc:
        for name in ('', 'nope', 'version ', 'Version', 'v' * 10000, 'rpc.discover', '../version'):
            with pytest.raises(RpcError) as error:
                rpc.call(name)
            assert error.value.code == METHOD_NOT_FOUND


def test_duplicate_keys(target):
    with target.rpc() as rpc:
        answer = rpc.raw(b'{"jsonrpc":"2.0","method":"nope","method":"version","id":1,"id":2}')
        assert 'error' in answer or 'result' in answer
    target.works()


@pytest.mark.parametrize('number', ['99999999999999999999', '-99999999999999999999', '1e400',
                                    '1' * 5000, '0.5', '-0'])
def test_huge_numbers(target, number):
    with target.rpc() as rpc:
        answer = rpc.raw(f'{{"jsonrpc":"2.0","method":"version","id":{number}}}'.encode())
        assert 'error' in answer or 'result' in answer
    target.works()


@pytest.mark.parametrize('depth', [100, 2000, 100000])
@pytest.mark.parametrize('opening', [b'[', b'{"a":'])
def test_depth(target, depth, opening):
    with target.rpc() as rpc:
        try:
            answer = rpc.raw(opening * depth)
            assert 'error' in answer
        except Closed:
            pass
    target.works()


def test_line_of_64_megabytes(target):
    """Much more than the limit: an error or a hang-up, and no memory for it."""
    rss = target.daemon.rss()
    with target.rpc(timeout=10 * daemons.SLOW) as rpc:
        chunk = b'"' + b'a' * 65535
        try:
            for _ in range(1024):
                rpc.send_raw(chunk)
        except (Closed, socket.timeout):
            pass
    assert target.daemon.rss() - rss < 16 << 20
    target.works()


@pytest.mark.parametrize('size', [1 << 10, 1 << 16, 1 << 20])
def test_long_lines(target, size):
    with target.rpc() as rpc:
        try:
            answer = rpc.raw(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'x' * size}).encode())
            assert 'error' in answer
        except Closed:
            assert size >= 1 << 20
    target.works()


def test_no_newline_for_ever(target):
    """Slowloris: clients that never finish their line hold nobody up."""
    clients = [target.rpc() for _ in range(50)]
    try:
        for i in range(5):
            for rpc in clients:
                rpc.send_raw(b'{"jsonrpc"'[i:i + 1])
            target.works()
    finally:
        for rpc in clients:
            rpc.close()


def test_one_byte_at_a_time(target):
    with target.rpc() as rpc:
        for byte in b'{"jsonrpc":"2.0","method":"version","id":5}\n':
            rpc.send_raw(bytes([byte]))
        assert rpc.recv()['id'] == 5


def test_pipelined_requests(target):
    """10^4 in one go: every one is answered."""
    count = 10000
    data = b''.join(b'{"jsonrpc":"2.0","method":"version","id":%d}\n' % i for i in range(count))
    with target.rpc() as rpc:
        sender = threading.Thread(target=lambda: rpc.send_raw(data))
        sender.start()
        ids = {rpc.recv()['id'] for _ in range(count)}
        sender.join()
    assert ids == set(range(count))


def test_client_that_never_reads(target):
    with target.rpc(timeout=2) as rpc:
        data = b'{"jsonrpc":"2.0","method":"version","id":1}\n' * 1000
        try:
            for _ in range(200):
                rpc.send_raw(data)
        except (Closed, socket.timeout):
            pass
        target.works()
    target.works()


def test_close_before_the_reply(target):
    """SIGPIPE killed another service of this kind."""
    for _ in range(200):
        with target.rpc() as rpc:
            rpc.send_raw(b'{"jsonrpc":"2.0","method":"version","id":1}\n' * 20)
    target.works()


def test_reset_before_the_reply(target):
    for _ in range(50):
        with target.rpc() as rpc:
            rpc.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            rpc.send_raw(b'{"jsonrpc":"2.0","method":"version","id":1}\n')
    target.works()


def test_half_close_still_gets_the_reply(target):
    with target.rpc() as rpc:
        rpc.send_raw(b'{"jsonrpc":"2.0","method":"version","id":9}\n')
        rpc.sock.shutdown(socket.SHUT_WR)
        assert rpc.recv()['id'] == 9


def test_many_clients(target):
    clients = []
    try:
        for _ in range(400):
            clients.append(target.rpc())
    except OSError:
        pass
    for rpc in clients:
        rpc.close()
    deadline = time.monotonic() + 5 * daemons.SLOW
    while True:
        try:
            target.works()
            break
        except (Closed, OSError):
            pass
        except RpcError as error:
            assert error.code == BUSY       # not all of them have been seen to be gone
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_fds_sent_along_are_closed(target):
    fds = [os.open('/dev/null', os.O_RDONLY) for _ in range(20)]
    before = None
    with target.rpc() as rpc:
        for _ in range(20):
            socket.send_fds(rpc.sock, [b'{"jsonrpc":"2.0","method":"version","id":1}\n'], fds)
            rpc.recv()
            before = before or target.daemon.fds()
        assert target.daemon.fds() <= before + 1
    for fd in fds:
        os.close(fd)
    target.works()


def test_notification_gets_no_answer(target):
    with target.rpc() as rpc:
        rpc.send_raw(b'{"jsonrpc":"2.0","method":"version"}\n')
        rpc.send_raw(b'{"jsonrpc":"2.0","method":"version","id":"after"}\n')
        assert rpc.recv()['id'] == 'after'


@pytest.mark.parametrize('id_', ['""', '"x"', '0', '-1', 'null', '"' + 'y' * 10000 + '"'])
def test_id_is_echoed(target, id_):
    with target.rpc() as rpc:
        answer = rpc.raw(b'{"jsonrpc":"2.0","method":"version","id":' + id_.encode() + b'}')
        assert answer['id'] == json.loads(id_)


def test_socket_is_not_open_to_everybody(target):
    assert not stat.S_IMODE(os.stat(target.daemon.rpc_path).st_mode) & 0o007


# service methods


BAD_PARAMS = [
    {}, [], [1], {'add': True}, {'add': 1, 'dev': UNKNOWN}, {'add': True, 'dev': 5},
    {'add': True, 'dev': None}, {'add': True, 'dev': ''}, {'add': True, 'dev': 'x'},
    {'add': True, 'dev': '0000:af:00.2', 'remove': True}, {'list': False},
    {'add': True, 'dev': '0000:af:00.8'}, {'add': True, 'dev': '0000:af:20.0'},
    {'add': True, 'dev': '0000:af:00.2 '}, {'add': True, 'dev': '0000:af:00.2,vdpa=1'},
    {'add': True, 'dev': 'a' * 100000}, {'add': True, 'dev': '../../../etc/passwd'},
    {'add': True, 'dev': '0000:af:00.2\0x'}, {'add': True, 'dev': UNKNOWN, 'other': 1},
    {'add': True, 'dev': {'a': 1}},
]


def fails(service, method, params):
    """Every kind of answer that says no; returns the number."""
    try:
        result = service.rpc(method, params)
    except RpcError as error:
        assert error.message
        return error.code
    assert result.get('errno'), f'{method} {params} was accepted: {result}'
    assert result.get('errstr')
    return result['errno']


@pytest.mark.parametrize('params', BAD_PARAMS, ids=lambda p: repr(p)[:60])
def test_mgmtpf_params(svc, params):
    fails(svc.service, 'mgmtpf', params)


@pytest.mark.parametrize('params', [
    {}, [], {'add': True}, {'add': True, 'vfdev': 7}, {'add': True, 'vfdev': UNKNOWN},
    {'add': True, 'vfdev': 'x', 'socket_file': None, 'uuid': None},
    {'remove': True, 'vfdev': UNKNOWN}, {'info': True, 'vfdev': UNKNOWN}, {'info': True},
    {'list': True, 'mgmtpf': UNKNOWN}, {'list': True, 'mgmtpf': 3},
    {'debug': True, 'vfdev': UNKNOWN, 'test_operation': 1},
    {'debug': True, 'vfdev': '0000:af:04.5', 'test_operation': 99},
    {'debug': True, 'vfdev': '0000:af:04.5', 'test_operation': 'x'},
    {'debug': True, 'vfdev': '0000:af:04.5', 'test_operation': 1 << 70},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': 5},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': '/tmp/x', 'uuid': 5},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': '/tmp/x', 'uuid': 'no-uuid'},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': '/tmp/x', 'uuid': 'a' * 5000},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': '/tmp/x', 'socket_role': 5},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': '/tmp/x', 'socket_role': True},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': '/tmp/x', 'client': True},
    {'add': True, 'vfdev': '0000:af:04.6', 'socket_file': '/tmp/x', 'allow_no_iommu': True},
    {'add': True, 'vfdev': '0000:af:04.6', 'plain': True, 'allow_no_iommu': 1},
    {'remove': True, 'vfdev': '0000:af:04.5', 'allow_no_iommu': True},
    {'remove': True, 'vfdev': '0000:af:04.5', 'socket_role': 'server'},
    {'info': True, 'vfdev': '0000:af:04.5', 'socket_role': 'client'},
    {'list': True, 'mgmtpf': '0000:af:00.2', 'socket_role': 'client'},
], ids=lambda p: repr(p)[:70])
def test_vf_params(svc, params):
    try:
        result = svc.service.rpc('vf', params)
    except RpcError as error:
        assert error.message
        return
    assert result.get('errno') or 'Error' in result, result


@pytest.mark.parametrize('role', ['', 'Client', 'server ', 'both', 'x' * 5000, '\0', '\ud800%s%n'],
                         ids=lambda r: ascii(r)[:20])
def test_vf_socket_role(svc, role):
    """The error names the VF and the value, and nothing has happened."""
    path = os.path.join(svc.work, 'role')
    with pytest.raises(RpcError) as refused:
        svc.service.rpc('vf', {'add': True, 'vfdev': 'AF:4.7', 'socket_file': path,
                               'socket_role': role})
    if role.isascii() and '\0' not in role:
        assert f'0000:af:04.7: socket_role is "{role[:40]}", not' in refused.value.message
    assert abs(fails(svc.service, 'vf', {'info': True, 'vfdev': '0000:af:04.7'})) == 1003
    assert not os.path.exists(path)


@pytest.mark.parametrize('role', ['server', 'client'])
@pytest.mark.parametrize('path', [
    'relative', '/', '/proc/self/mem', '/nonexistent/x/y', '/tmp', '/etc/passwd', '/dev/null',
    '/tmp/' + 'x' * 200, '/tmp/' + 'x' * 5000, '/tmp/a\0b', '/tmp/../../../etc/passwd',
], ids=lambda p: repr(p)[:40])
def test_vf_socket_path(svc, path, role):
    before = os.stat(path).st_ino if path in ('/etc/passwd', '/dev/null', '/tmp') else None
    assert fails(svc.service, 'vf', {'add': True, 'vfdev': svc.controller.vf(2),
                                     'socket_file': path, 'socket_role': role})
    if before is not None:
        assert os.stat(path).st_ino == before, f'{path} was replaced'


@pytest.mark.parametrize('role', ['server', 'client'])
def test_vf_socket_path_that_exists(svc, role):
    """A file of somebody else is not removed (error 1038); nor is a socket that is in use."""
    path = os.path.join(svc.work, 'mine')
    with open(path, 'w', encoding='ascii') as file:
        file.write('precious')
    number = fails(svc.service, 'vf', {'add': True, 'vfdev': svc.controller.vf(2),
                                       'socket_file': path, 'socket_role': role})
    assert abs(number) == 1038
    with open(path, encoding='ascii') as file:
        assert file.read() == 'precious'
    number = fails(svc.service, 'vf', {'add': True, 'vfdev': svc.controller.vf(2),
                                       'socket_file': svc.path(0), 'socket_role': role})
    assert abs(number) == 1038
    for make in (os.link, os.symlink):
        alias = os.path.join(svc.work, make.__name__)
        make(svc.path(0), alias)
        number = fails(svc.service, 'vf', {'add': True, 'vfdev': svc.controller.vf(2),
                                           'socket_file': alias, 'socket_role': role})
        assert abs(number) == 1038
        os.unlink(alias)
    os.unlink(path)
    svc.witness.echo()


@pytest.mark.parametrize('method,params,number', [
    ('mgmtpf', {'add': True, 'dev': '0000:af:00.2'}, 1008),
    ('mgmtpf', {'add': True, 'dev': UNKNOWN}, 1001),
    ('mgmtpf', {'remove': True, 'dev': UNKNOWN}, 1001),
    ('mgmtpf', {'remove': True, 'dev': '0000:af:00.2'}, 1013),
    ('vf', {'add': True, 'vfdev': '0000:af:04.5', 'socket_file': '/tmp/vfeprotox', 'uuid': None},
     1014),
    ('vf', {'remove': True, 'vfdev': '0000:af:04.7'}, 1003),
    ('vf', {'info': True, 'vfdev': '0000:af:04.7'}, 1003),
    ('vf', {'list': True, 'mgmtpf': UNKNOWN}, 1001),
])
def test_error_numbers(svc, method, params, number):
    assert abs(fails(svc.service, method, params)) == number


def test_add_and_remove_races(svc):
    """Several clients add and remove one VF at the same time: each call says what it did."""
    stop = time.monotonic() + 2
    bdf = svc.controller.vf(2)
    outcomes = []

    def run(add):
        while time.monotonic() < stop:
            try:
                if add:
                    svc.service.vf_add(bdf, svc.path(2))
                else:
                    svc.service.vf_remove(bdf)
                outcomes.append(0)
            except daemons.Refused as refusal:
                outcomes.append(refusal.errno)

    threads = [threading.Thread(target=run, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        svc.service.vf_remove(bdf)
    except daemons.Refused:
        pass
    assert 0 in outcomes
    assert set(outcomes) <= {0, 1003, 1014, 1038}, set(outcomes)


def test_client_vanishes_while_its_vf_is_added(svc):
    bdf = svc.controller.vf(2)
    for _ in range(10):
        with Rpc(svc.service.rpc_path) as rpc:
            rpc.send_raw(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'vf', 'params': {
                'add': True, 'vfdev': bdf, 'socket_file': svc.path(2), 'uuid': None}}).encode() +
                b'\n')
        deadline = time.monotonic() + 10 * daemons.SLOW
        while True:
            try:
                svc.service.vf_remove(bdf)
                break
            except daemons.Refused as refusal:
                assert refusal.errno == 1003, refusal
                assert time.monotonic() < deadline, 'the VF was never added'
                time.sleep(0.005)


def test_one_uuid_for_two_guests_is_safe(svc):
    """Two front ends with different memory under one UUID: refused or separate, never mixed."""
    uuid = '11111111-2222-3333-4444-555555555555'
    svc.add(2, uuid)
    try:
        svc.add(3, uuid)
    except daemons.Refused:
        svc.remove(2)
        return
    try:
        with svc.front_end(2, mem_size=2 << 20) as one:
            one.start()
            one.echo(3)
            with svc.front_end(3, mem_size=1 << 20) as other:
                try:
                    other.start()
                except (AssertionError, OSError):
                    pass
                one.echo(3)
            one.echo(3)
    finally:
        svc.remove(3)
        svc.remove(2)


# controller methods


@pytest.mark.parametrize('params', [
    [], {'pf': 'x'}, {'pf': -1}, {'pf': 1 << 70}, {'pf': 99}, {'pf': 0, 'vf': 99},
    {'vuid': ''}, {'vuid': 'x' * 100000}, {'vuid': 5}, {'vf': 1}, {'all': 7}, {'other': True},
    {'pf': None}, {'pf': 0.5}], ids=lambda p: repr(p)[:50])
def test_query_params(svc, params):
    try:
        svc.controller.rpc('query', params)
    except RpcError as error:
        assert error.message
