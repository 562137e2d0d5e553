# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Tests of virtnet: what goes over the wire, what is printed, and the exit status."""
import json

import pytest

from cli_harness import error, result


@pytest.mark.parametrize('argv, method, params', [
    (['list'], 'list', {}),
    (['version'], 'version', {}),
    (['query', '-a'], 'query', {'all': True}),
    (['query', '--all', '--brief'], 'query', {'all': True, 'brief': True}),
    (['query', '-p', '0'], 'query', {'pf': 0}),
    (['query', '-p0', '-v0'], 'query', {'pf': 0, 'vf': 0}),
    (['query', '--pf', '1', '--vf', '124', '-b'], 'query', {'pf': 1, 'vf': 124, 'brief': True}),
    (['query', '\u2013p', '0', '\u2013v', '3'], 'query', {'pf': 0, 'vf': 3}),
    (['query', '\u2014pf', '0', '\u2013b'], 'query', {'pf': 0, 'brief': True}),
    (['query', '\u2013\u2013all'], 'query', {'all': True}),
    (['query', '-u', 'VNETS0D0F2VF1'], 'query', {'vuid': 'VNETS0D0F2VF1'}),
    (['query', '--vuid', 'x', '-b'], 'query', {'vuid': 'x', 'brief': True}),
])
def test_request_on_the_wire(server, virtnet, argv, method, params):
    reply = {'z': [{'vf_id': 0, 'net_mac': '5A:94:07:04:F6:1C'}], 'a': 1}
    server.replies = [result(reply)]
    done = virtnet(*argv)
    assert (done.status, done.err) == (0, '')
    assert server.params() == (method, params)
    assert done.out == json.dumps(reply, indent=4) + '\n'


@pytest.mark.parametrize('argv, words', [
    ([], 'required'),
    (['modify'], 'invalid choice'),
    (['list', 'x'], 'unrecognized'),
    (['query'], 'one of the arguments'),
    (['query', '-a', '-p', '0'], 'not allowed'),
    (['query', '-p', '0', '-u', 'x'], 'not allowed'),
    (['query', '-v', '0'], 'one of the arguments'),
    (['query', '-a', '-v', '0'], '-p/--pf'),
    (['query', '-u', 'x', '-v', '0'], '-p/--pf'),
    (['query', '-p', '-1'], '0 to 65535'),
    (['query', '-p', '65536'], '0 to 65535'),
    (['query', '-p', '0x1'], '0 to 65535'),
    (['query', '-p', '\u0661'], '0 to 65535'),
    (['query', '-p', '0', '-v', ''], '0 to 65535'),
    (['query', '-u', ''], 'VUID'),
    (['query', '-u', 'a b'], 'VUID'),
    (['query', '-u', 'x' * 65], 'VUID'),
])
def test_usage_errors_send_nothing(server, virtnet, argv, words):
    done = virtnet(*argv)
    assert done.status == 2
    assert done.out == ''
    assert words in done.err
    assert server.requests == []


@pytest.mark.parametrize('argv, what', [
    (['list'], 'list'),
    (['query', '-a'], 'query all'),
    (['query', '-p', '1'], 'query PF 1'),
    (['query', '-p', '1', '-v', '2'], 'query PF 1 VF 2'),
    (['query', '-u', 'VNETS0D0F2'], 'query VNETS0D0F2'),
])
def test_error_names_the_device(server, virtnet, argv, what):
    server.replies = [error(-32602, 'no such device')]
    done = virtnet(*argv)
    assert done.status == 1
    assert done.out == ''
    assert done.err == 'virtnet: error: %s: no such device (error -32602)\n' % what


def test_result_may_be_a_list_but_not_a_scalar(server, virtnet):
    server.replies = [result([]), result('x')]
    assert virtnet('list').json == []
    assert virtnet('list').status == 1
