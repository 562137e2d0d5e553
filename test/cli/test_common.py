# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Tests of what both command lines share: servers that misbehave, and the way they are started."""
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from cli_harness import CLOSE, HANG, OK, TOP, VHOSTMGMT, VIRTNET, result, run

BOTH = pytest.mark.parametrize('program, verb, service', [
    (VHOSTMGMT, 'version', 'dpdk-vfe-vdpa'),
    (VIRTNET, 'list', 'virtio-net-controller'),
])


def good(request):
    return OK(request)


def pieces(request):
    """Every byte on its own."""
    return [bytes([b]) for b in OK(request)]


@BOTH
def test_answer_in_pieces(server, program, verb, service):
    server.replies = [pieces]
    assert run(program, '-s', server.path, verb).json == {'errno': 0, 'errstr': 'Success'}


@BOTH
def test_large_answer(server, program, verb, service):
    value = {'errno': 0, 'devices': ['x' * 1000] * 5000}
    server.replies = [result(value)]
    assert run(program, '-s', server.path, verb).json == value


@BOTH
@pytest.mark.parametrize('reply, words', [
    (CLOSE, 'without an answer'),
    ([b'{"jsonrpc":"2.0",', CLOSE], 'in the middle'),
    ([b'{"jsonrpc":"2.0","id":1,"result":{}}', CLOSE], 'in the middle'),
    (b'\n', 'not JSON'),
    (b'garbage\x00\x1b[31m\xff\n', 'not JSON'),
    (b'HTTP/1.1 400 Bad Request\r\n' + b'x' * 200 + b'\n', 'not JSON'),
    (b'[' * 100000 + b'\n', 'not JSON'),
    (b'{"jsonrpc":"2.0","id":1,"result":"\xff"}\n', 'not JSON'),
    (b'{"jsonrpc":"2.0","id":' + b'9' * 5000 + b',"result":{}}\n', 'not JSON'),
    (b'[]\n', 'not JSON-RPC'),
    (b'{}\n', 'not JSON-RPC'),
    (b'null\n', 'not JSON-RPC'),
    (b'{"jsonrpc":"2.0","id":1}\n', 'not JSON-RPC'),
    (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}\n', 'not JSON-RPC'),
    (b'{"jsonrpc":"2.0","id":1,"error":null}\n', 'not JSON-RPC'),
    (b'{"jsonrpc":"2.0","id":1,"error":"x"}\n', 'not JSON-RPC'),
    (b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}\n', 'not JSON-RPC'),
    (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":[]}}\n', 'not JSON-RPC'),
    (b'{"jsonrpc":"2.0","id":2,"result":{}}\n', 'another request'),
    (b'{"jsonrpc":"2.0","id":null,"result":{}}\n', 'another request'),
    (b'{"jsonrpc":"2.0","result":{}}\n', 'another request'),
    (b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"permission denied"}}\n',
     'permission denied (error -32000)'),
])
def test_bad_answers(server, program, verb, service, reply, words):
    server.replies = [reply]
    done = run(program, '-s', server.path, verb)
    assert done.status == 1
    assert done.out == ''
    assert words in done.err
    assert '\x1b' not in done.err
    assert 'Traceback' not in done.err
    assert done.err.count('\n') == 1


@BOTH
def test_endless_answer_is_cut(server, program, verb, service):
    server.replies = [[b'x' * (1 << 20)] * 70]
    done = run(program, '-s', server.path, verb)
    assert done.status == 1
    assert '64 MiB' in done.err


@BOTH
def test_hanging_server_times_out(server, program, verb, service):
    server.replies = [HANG]
    start = time.monotonic()
    done = run(program, '-s', server.path, verb, '-t', '0.3')
    assert 0.3 <= time.monotonic() - start < 20
    assert done.status == 1
    assert 'no answer from %s within 0.3 s' % server.path in done.err
    assert 'log of ' + service in done.err


@BOTH
def test_dripping_server_times_out(server, program, verb, service):
    def drip(request):
        while not server.over.wait(0.05):
            yield b' '
    server.replies = [lambda request: list_like(drip(request))]
    done = run(program, '-t', '0.5', '-s', server.path, verb)
    assert done.status == 1
    assert 'within 0.5 s' in done.err


class list_like(list):
    """A list for the fake server that is produced while it is sent."""

    def __init__(self, generator):
        super().__init__()
        self._generator = generator

    def __iter__(self):
        return self._generator


@BOTH
def test_hang_up_before_reading_still_tells_why(folder, program, verb, service):
    path = os.path.join(folder, 'rude.sock')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        child = subprocess.Popen(['/usr/bin/python3', program, '-s', path, verb], cwd=TOP,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        listener.settimeout(20)
        conn = listener.accept()[0]
        conn.sendall(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"busy"}}\n')
        conn.close()
        err = child.communicate(timeout=20)[1].decode()
    assert child.returncode == 1
    assert 'busy (error -32001)' in err


@BOTH
def test_no_socket(folder, program, verb, service):
    done = run(program, '-s', os.path.join(folder, 'none'), verb)
    assert done.status == 1
    assert '%s/none does not exist: is %s running?' % (folder, service) in done.err


@BOTH
def test_dead_socket(folder, program, verb, service):
    path = os.path.join(folder, 'dead')
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    done = run(program, '-s', path, verb)
    assert done.status == 1
    assert 'nobody answers on ' + path in done.err


@BOTH
def test_not_a_socket(folder, program, verb, service):
    for path in (folder, os.path.join(folder, 'x', 'y')):
        done = run(program, '-s', path, verb)
        assert done.status == 1
        assert path in done.err
        assert 'Traceback' not in done.err


def install_modules(folder):
    for path in glob.glob(os.path.join(TOP, 'app/common/*.py')):
        shutil.copy(path, os.path.join(folder, 'share/vfe'))


@BOTH
@pytest.mark.skipif(os.geteuid() != 0, reason='needs root to become somebody else')
def test_no_permission(server, folder, program, verb, service):
    os.chmod(folder, 0o755)
    os.chmod(server.path, 0o600)
    code = ('import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); '
            'os.execv(sys.argv[1], sys.argv[1:])')
    for sub in ('bin', 'share/vfe'):    # the source tree may be closed to others
        os.makedirs(os.path.join(folder, sub))
    shutil.copy(os.path.join(TOP, program), os.path.join(folder, 'bin/cli'))
    install_modules(folder)
    done = subprocess.run(['/usr/bin/python3', '-c', code, '/usr/bin/python3',
                           os.path.join(folder, 'bin/cli'), '-s', server.path, verb], cwd='/',
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, check=False)
    assert done.returncode == 1
    assert b'no permission for' in done.stderr


@BOTH
def test_interrupt(server, program, verb, service):
    server.replies = [HANG]
    child = subprocess.Popen(['/usr/bin/python3', program, '-s', server.path, verb], cwd=TOP,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.asked.wait(20)
    child.send_signal(signal.SIGINT)
    err = child.communicate(timeout=20)[1]
    assert child.returncode == 130
    assert err == b''


@BOTH
def test_output_that_cannot_be_written(server, program, verb, service):
    server.replies = [result({'errno': 0, 'x': 'y' * 100000})]
    with open('/dev/full', 'wb') as full:
        done = subprocess.run(['/usr/bin/python3', program, '-s', server.path, verb], cwd=TOP,
                              stdout=full, stderr=subprocess.PIPE, timeout=20, check=False)
    assert done.returncode == 1
    assert b'No space left' in done.stderr
    assert b'Traceback' not in done.stderr

    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(['/usr/bin/python3', program, '-s', server.path, verb], cwd=TOP,
                          stdout=write_end, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(write_end)
    assert done.returncode == 1
    assert done.stderr == b''

    done = subprocess.run(['sh', '-c', 'exec /usr/bin/python3 "$@" >&-', 'sh', program, '-s',
                           server.path, verb], cwd=TOP, stderr=subprocess.PIPE, timeout=20,
                          check=False)
    assert done.returncode == 0
    assert done.stderr == b''


@BOTH
def test_help_and_version(program, verb, service):
    done = run(program, '-h')
    assert done.status == 0
    assert done.out.startswith('usage: ' + os.path.basename(program))
    done = run(program, '--version')
    with open(os.path.join(TOP, 'meson.build')) as f:
        version = re.search(r"^\s*version: '([^']+)'", f.read(), re.M).group(1)
    assert done.out == '%s %s\n' % (os.path.basename(program), version)
    assert done.status == 0


def test_no_command_on_a_terminal():
    master, slave = os.openpty()
    for program in (VHOSTMGMT, VIRTNET):
        done = subprocess.run(['/usr/bin/python3', program], cwd=TOP, stdin=slave,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20,
                              check=False)
        assert done.returncode == 2
        assert b'usage: ' in done.stderr
    os.close(master)
    os.close(slave)


@BOTH
def test_installed_and_through_a_link(server, folder, program, verb, service):
    for sub in ('bin', 'share/vfe', 'links'):
        os.makedirs(os.path.join(folder, sub))
    installed = os.path.join(folder, 'bin', os.path.basename(program))
    shutil.copy(os.path.join(TOP, program), installed)
    install_modules(folder)
    link = os.path.join(folder, 'links', 'cli')
    os.symlink(installed, link)
    for path in (installed, link):
        done = subprocess.run([path, '-s', server.path, verb], cwd='/', stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=20, check=False)
        assert (done.returncode, done.stderr) == (0, b'')


@BOTH
def test_relative_socket_path(server, folder, program, verb, service):
    done = subprocess.run(['/usr/bin/python3', os.path.join(TOP, program), '-s', 'rpc.sock', verb],
                          cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20,
                          check=False)
    assert (done.returncode, done.stderr) == (0, b'')


def test_batch_recovers_from_a_timeout_and_a_hang_up(server):
    server.replies = [HANG, CLOSE, good]
    done = run(VHOSTMGMT, '-s', server.path, '-t', '0.3', stdin=b'version\nversion\nversion\n')
    assert done.status == 1
    assert 'line 1: version: no answer' in done.err
    assert 'line 2: version: dpdk-vfe-vdpa closed the connection' in done.err
    assert done.json == {'errno': 0, 'errstr': 'Success'}
    assert server.connections == 3
