# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The front-ends of scripts/bench migrate and blk: they do what they say."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time

import pytest

from peers import blk, daemons

BENCH = os.path.join(daemons.BUILD, 'test', 'bench')
MIGRATE = os.path.join(BENCH, 'vhost-migrate')
BARE = os.path.join(BENCH, 'vhost-bare')
DISK = os.path.join(BENCH, 'vhost-blk')
UUID = '6f8c0a11-2d4e-4c53-9f10-0123456789ab'
VFS = 2
PAIRS = 2
TIMEOUT = 30 * daemons.SLOW


class Program:
    """A child that is told what to do and answers by lines."""

    def __init__(self, argv):
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         bufsize=0)
        self._buffer = b''

    def line(self):
        end = time.monotonic() + TIMEOUT
        while b'\n' not in self._buffer:
            ready = select.select([self._process.stdout], [], [], end - time.monotonic())[0]
            assert ready, 'no line in time'
            data = os.read(self._process.stdout.fileno(), 65536)
            assert data, f'ended with status {self._process.wait(TIMEOUT)}'
            self._buffer += data
        line, self._buffer = self._buffer.split(b'\n', 1)
        return line.decode()

    def tell(self, text):
        self._process.stdin.write(text.encode() + b'\n')

    def end(self):
        """Close its input; returns the exit status."""
        self._process.stdin.close()
        return self._process.wait(TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()


@pytest.fixture
def front():
    with Program([MIGRATE, '--memory', '16', '--pairs', str(PAIRS), '--vfs', str(VFS),
                  '--settle', '20', '--log']) as program:
        assert program.line() == 'ready'
        yield program


def run(front, command):
    front.tell(command)
    line = front.line()
    return json.loads(front.line() if line == 'listening' else line)


def check(result, back_end):
    assert result['back_end'] == back_end
    destination, source = result['destination'], result['source']
    # per VF: 3 times enable and 5 others per ring, features and a look at the status per pair,
    # the status twice and a look at it, the memory
    rings = 2 * PAIRS
    assert destination['messages'] == VFS * (3 * rings + 5 * rings + 2 * PAIRS + 2 + 1 + 1)
    assert destination['answers'] == VFS * (PAIRS + 2)
    assert source['messages'] == VFS * (rings + 1)
    assert source['answers'] == source['by_request']['GET_VRING_BASE']['count'] == VFS * rings
    for window in (destination, source):
        waited = [r['ns'] for r in window['by_request'].values()]
        assert 0 < sum(waited) <= window['ns'] < TIMEOUT * 1e9
        for request in window['by_request'].values():
            assert 0 < request['longest_ns'] <= request['ns']


def test_floor_answers_as_a_back_end(front):
    for _ in range(2):
        result = run(front, 'floor')
        check(result, 'floor')
        assert result['log']
    assert front.end() == 0


def test_librte_vhost_moves_there_and_away(front, work):
    prefix = os.path.join(work, 'bare')
    run_dir = f'protobare{os.getpid()}'
    with Program([BARE, '--no-huge', '-m', '64', '--no-pci', '--no-telemetry', '-l', '0',
                  '--log-level=.,5', '--file-prefix', run_dir, '--',
                  '--prefix', prefix, '--vfs', str(VFS)]) as bare:
        assert bare.line() == 'ready'
        for _ in range(2):
            result = run(front, f'connect {prefix}')
            check(result, 'connect')
            assert result['log']
        assert bare.end() == 0
    shutil.rmtree(os.path.join('/var/run/dpdk', run_dir), ignore_errors=True)
    assert front.end() == 0


def test_vfs_of_one_vm_move_there_and_away(front, work):
    directory = tempfile.mkdtemp(prefix='b', dir=work)
    prefix = os.path.join(directory, 'vm')
    controller = daemons.Controller(directory, vfs=VFS, qp_num=PAIRS, backend='null')
    service = daemons.Service(directory, controller.pci_dir, client=True)
    service.pf_add(controller.PF)
    for _ in range(2):
        for vf in range(VFS):
            service.vf_add(controller.vf(vf), f'{prefix}{vf}', UUID)
        check(run(front, f'listen {prefix}'), 'listen')
        for vf in range(VFS):
            service.vf_remove(controller.vf(vf))
    assert front.end() == 0
    service.stop()
    controller.stop()


def test_back_end_that_is_not_there_ends_the_measurement(front, work):
    front.tell('connect ' + os.path.join(work, 'nobody'))
    assert front.end() == 1


def test_senseless_commands_and_options_are_refused(front):
    front.tell('listen')
    assert front.end() == 2
    for options in (['--pairs', '0'], ['--pairs', '65'], ['--vfs', '1x'], ['--memory', ''],
                    ['--frobnicate'], ['floor']):
        done = subprocess.run([MIGRATE, *options], stdin=subprocess.DEVNULL, check=False,
                              stderr=subprocess.PIPE, timeout=TIMEOUT)
        assert done.returncode == 2, options
    # 64 VFs with 64 pairs have more rings than this memory has room for
    done = subprocess.run([MIGRATE, '--pairs', '64', '--vfs', '64', '--memory', '16'],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
                          timeout=TIMEOUT)
    assert done.returncode == 1 and b'no room' in done.stderr


DISK_SIZE = 1 << 20


@pytest.fixture
def disk(work):
    """A disk behind the service: path of its socket, of its image, and the controller."""
    directory = tempfile.mkdtemp(prefix='d', dir=work)
    path, image = (os.path.join(directory, name) for name in ('vhost', 'image'))
    blk.make_image(image, DISK_SIZE)
    controller = blk.BlkController(directory, [blk.file_bdev('disk', image)], ['disk'],
                                   pf_bdev='disk', vfs=1)
    service = daemons.serve(controller, directory, [path])
    yield path, image, controller
    service.stop()
    controller.stop()


def transfers(controller, what):
    return sum(queue[what] for queue in controller.ctrl()['queues'])


def test_disk_is_written_and_read_as_told(disk):
    path, image, controller = disk
    for options, depth, queues, what in (
            (['--write', '--sequential', '--block', '16384'], 3, 2, 'writes'),
            ([], 1, 1, 'reads')):
        with Program([DISK, '--socket', path, '--connect', '--wait', '--seconds', '0.3',
                      '--warm-up', '0.05', '--depth', str(depth), '--queues', str(queues),
                      *options]) as program:
            assert program.line() == 'ready'
            assert transfers(controller, what) == 0
            program.tell('')
            result = json.loads(program.line())
            done = transfers(controller, what)
            assert program.end() == 0
        assert 0 < result['requests'] <= done
        assert 0.3 <= result['seconds'] < TIMEOUT
        assert result['iops'] == pytest.approx(result['requests'] / result['seconds'], rel=0.01)
        # as many are under way as were wanted, but for what a busy machine cuts off at the end
        assert result['mean_ns'] * result['iops'] / 1e9 > depth * queues / 3
        assert 0 < result['median_ns'] <= result['p99_ns'] <= result['p999_ns'] <= \
            result['max_ns'] * 1.01
        assert 0 < result['interrupts'] and 0 < result['kicks'] <= result['requests'] + 1
    # each request has bytes of its own; queues have begun in different places
    with open(image, 'rb') as f:
        for at in (0, DISK_SIZE // 2):
            f.seek(at)
            data = f.read(16384)
            assert data == data[:1] * 16384 and 1 <= data[0] <= 3


def test_disk_that_fails_ends_the_measurement(disk):
    path, _, controller = disk
    controller.inject('disk', 'fail')
    done = subprocess.run([DISK, '--socket', path, '--connect', '--seconds', '0.1'],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
                          stdout=subprocess.DEVNULL, timeout=TIMEOUT)
    assert done.returncode == 1 and b'a request failed' in done.stderr
    done = subprocess.run([DISK, '--socket', path, '--connect', '--queues', '5'],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
                          stdout=subprocess.DEVNULL, timeout=TIMEOUT)
    assert done.returncode == 1 and b'fewer queues' in done.stderr


def test_disk_options_that_make_no_sense_are_refused():
    for options in ([], ['--socket', 'x', '--depth', '0'], ['--socket', 'x', '--queues', '9'],
                    ['--socket', 'x', '--block', '100'], ['--socket', 'x', '--seconds', '-1'],
                    ['--socket', 'x', '--block', '1048576'], ['--socket', 'x', 'y']):
        done = subprocess.run([DISK, *options], stdin=subprocess.DEVNULL, check=False,
                              stderr=subprocess.PIPE, timeout=TIMEOUT)
        assert done.returncode == 2, options
