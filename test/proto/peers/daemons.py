# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Starts the programs under test and watches over them: pid, fds, memory, sanitizer reports."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

from . import SLOW
from .jsonrpc import Rpc, RpcError

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
BUILD = os.environ.get('VFE_BUILD_DIR', os.path.join(REPO, 'build'))
SERVICE = os.path.join(BUILD, 'app', 'dpdk-vfe-vdpa')
CONTROLLER = os.path.join(BUILD, 'app', 'virtio-net-controller')

SANITIZER_MARKS = ('ERROR: AddressSanitizer', 'runtime error:', 'ERROR: LeakSanitizer',
                   'WARNING: ThreadSanitizer', 'Assertion `')


class DaemonDied(AssertionError):
    """A daemon ended although nobody asked it to."""


class Daemon:
    """One running program. stop() checks that it ends well and said nothing of errors in memory."""

    started = []

    def __init__(self, name, argv, directory, rpc_path, timeout=20.0):
        self.name = name
        self.argv = argv
        self.rpc_path = rpc_path
        self.log_path = os.path.join(directory, f'{name}.log')
        self.stopped = False
        env = dict(os.environ)
        env.setdefault('ASAN_OPTIONS', 'abort_on_error=1:detect_leaks=0')
        env.setdefault('UBSAN_OPTIONS', 'print_stacktrace=1:halt_on_error=1')
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=env)
        self.pid = self.process.pid
        Daemon.started.append(self)
        self._wait_ready(timeout * SLOW)

    def _wait_ready(self, timeout):
        deadline = time.monotonic() + timeout
        while True:
            self.check()
            try:
                with Rpc(self.rpc_path, timeout=timeout) as rpc:
                    rpc.call('version')
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    self.process.kill()
                    raise TimeoutError(f'{self.name} is not ready after {timeout} s:\n'
                                       + self.log_tail()) from None
                time.sleep(0.02)
            except RpcError:
                return

    def alive(self):
        return self.process.poll() is None

    def check(self):
        if not self.alive():
            raise DaemonDied(f'{self.name} (pid {self.pid}) ended with status '
                             f'{self.process.returncode}:\n{self.log_tail()}')

    def log(self):
        with open(self.log_path, 'rb') as log:
            return log.read().decode(errors='replace')

    def log_tail(self, lines=60):
        return '\n'.join(self.log().splitlines()[-lines:])

    def fds(self):
        return len(os.listdir(f'/proc/{self.pid}/fd'))

    def stable_fds(self, quiet=0.15, timeout=5.0):
        """The number of fds when it has not changed for a while: a baseline."""
        deadline = time.monotonic() + timeout * SLOW
        count, since = self.fds(), time.monotonic()
        while time.monotonic() - since < quiet:
            assert time.monotonic() < deadline, f'{self.name}: the number of fds never settles'
            time.sleep(0.01)
            if self.fds() != count:
                count, since = self.fds(), time.monotonic()
        return count

    def fd_names(self):
        names = []
        for fd in os.listdir(f'/proc/{self.pid}/fd'):
            try:
                names.append(os.readlink(f'/proc/{self.pid}/fd/{fd}'))
            except OSError:
                pass
        return sorted(names)

    def threads(self):
        return len(os.listdir(f'/proc/{self.pid}/task'))

    def rss(self):
        """Resident memory in bytes."""
        with open(f'/proc/{self.pid}/statm', encoding='ascii') as statm:
            return int(statm.read().split()[1]) * os.sysconf('SC_PAGESIZE')

    def settle(self, baseline, timeout=5.0):
        """Wait until the number of fds is `baseline` again."""
        deadline = time.monotonic() + timeout * SLOW
        while self.fds() != baseline:
            self.check()
            assert time.monotonic() < deadline, (
                f'{self.name} has {self.fds()} fds, {baseline} before; now open: '
                + ', '.join(self.fd_names()))
            time.sleep(0.01)

    def rpc(self, method, params=None, timeout=60.0):
        """One call on a fresh connection."""
        self.check()
        with Rpc(self.rpc_path, timeout=timeout * SLOW) as rpc:
            return rpc.call(method, params)

    def stop(self, timeout=20.0):
        """SIGTERM; the exit status and the log are checked."""
        if self.stopped:
            return
        self.stopped = True
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f'{self.name} did not end within {timeout} s of SIGTERM:\n'
                                     + self.log_tail()) from None
        text = self.log()
        for mark in SANITIZER_MARKS:
            assert mark not in text, f'{self.name}: {mark}\n' + text[text.index(mark):][:4000]
        assert self.process.returncode == 0, (
            f'{self.name} ended with status {self.process.returncode}:\n{self.log_tail()}')

    def kill(self):
        """For cleaning up after a failure."""
        self.stopped = True
        if self.alive():
            self.process.kill()
            self.process.wait()


def bdf_add(bdf, step):
    """The BDF `step` routing ids further."""
    domain, bus, rest = bdf.split(':')
    dev, fn = rest.split('.')
    rid = (int(bus, 16) << 8 | int(dev, 16) << 3 | int(fn)) + step
    return f'{domain}:{rid >> 8:02x}:{rid >> 3 & 31:02x}.{rid & 7}'


def bdf_rid(bdf):
    _, bus, rest = bdf.split(':')
    dev, fn = rest.split('.')
    return int(bus, 16) << 8 | int(dev, 16) << 3 | int(fn)


class Controller(Daemon):
    """The software DPU with one net PF and `vfs` VFs, all on loopback unless told otherwise."""

    PF = '0000:af:00.2'
    FIRST_VF = '0000:af:04.5'

    def __init__(self, directory, vfs=4, qp_num=4, backend='loopback', polling=False, extra=None,
                 vf_backends=None, vf_features=None, name='controller'):
        self.pci_dir = os.path.join(directory, 'pci')
        os.makedirs(self.pci_dir, exist_ok=True)
        rpc_path = os.path.join(directory, f'{name}.sock')
        self.nr_vfs = vfs
        config = {
            'static_pf': {'mac_base': '0C:C4:7A:FF:22:90'},
            'vf': {'mac_base': '00:00:00:00:33:00', 'vfs_per_pf': vfs, 'qp_num': qp_num},
            'software_dpu': {
                'dir': self.pci_dir, 'rpc_socket': rpc_path, 'workers': 1, 'polling': polling,
                'pfs': [{'bdf': self.PF, 'type': 'net', 'first_vf': self.FIRST_VF, 'vf_stride': 1,
                         'mtu': 1500, 'backend': {'type': backend},
                         'vfs': vf_backends or {str(i): {'backend': {'type': backend}}
                                                for i in range(vfs)}}],
            },
        }
        config['software_dpu'].update(extra or {})
        if vf_features is not None:
            config['vf']['features'] = hex(vf_features)
        path = os.path.join(directory, f'{name}.json')
        with open(path, 'w', encoding='ascii') as file:
            json.dump(config, file)
        super().__init__(name, [CONTROLLER, '--config', path], directory, rpc_path)

    def vf(self, index):
        return bdf_add(self.FIRST_VF, index)

    def socket(self, bdf):
        return os.path.join(self.pci_dir, f'{bdf}.sock')

    @property
    def pf_socket(self):
        return self.socket(self.PF)

    def vf_socket(self, index):
        return self.socket(self.vf(index))


class Refused(AssertionError):
    """The service answered a provisioning call with an error number."""

    def __init__(self, errno_, errstr):
        super().__init__(f'{errno_}: {errstr}')
        self.errno = abs(errno_)
        self.errstr = errstr


def serve(controller, directory, sockets, **options):
    """A service that has the controller's PF, and of its VFs as many as there are sockets."""
    service = Service(directory, controller.pci_dir, **options)
    service.pf_add(controller.PF)
    for index, path in enumerate(sockets):
        service.vf_add(controller.vf(index), path)
    return service


class Service(Daemon):
    """dpdk-vfe-vdpa; a vhost-user socket server unless `client`."""

    count = 0

    def __init__(self, directory, pci_dir, client=False, name='service', options=()):
        rpc_path = os.path.join(directory, f'{name}.sock')
        self.directory = directory
        Service.count += 1
        self.prefix = f'proto{os.getpid()}-{Service.count}'
        argv = [SERVICE, '--no-huge', '-m', '128', '--no-telemetry',
                '--file-prefix', self.prefix, '-a', '0000:00:00.0',
                '--log-level=.,7', '--']
        if client:
            argv.append('--client')
        argv += ['--vfio-user-dir', pci_dir, '--rpc-socket', rpc_path,
                 '--iface', os.path.join(directory, 'vf-'), *options]
        super().__init__(name, argv, directory, rpc_path)

    def stop(self, timeout=20.0):
        try:
            super().stop(timeout)
        finally:
            self._forget_eal()

    def kill(self):
        super().kill()
        self._forget_eal()

    def _forget_eal(self):
        """DPDK leaves its folder of run-time files behind, and of a killed process everything."""
        shutil.rmtree(os.path.join('/var/run/dpdk', self.prefix), ignore_errors=True)

    def manage(self, method, **params):
        """A mgmtpf or vf call; raises Refused when errno is not 0."""
        try:
            result = self.rpc(method, params)
        except RpcError as error:
            number = (error.data or {}).get('errno', error.code) \
                if isinstance(error.data, dict) else error.code
            raise Refused(number, error.message) from error
        if result.get('errno', 0) != 0:
            raise Refused(result['errno'], result.get('errstr', ''))
        return result

    def pf_add(self, bdf):
        return self.manage('mgmtpf', add=True, dev=bdf)

    def pf_remove(self, bdf):
        return self.manage('mgmtpf', remove=True, dev=bdf)

    def vf_add(self, bdf, path, uuid=None, **more):
        return self.manage('vf', add=True, vfdev=bdf, socket_file=path, uuid=uuid, **more)

    def vf_remove(self, bdf):
        return self.manage('vf', remove=True, vfdev=bdf)

    def vf_info(self, bdf):
        return self.manage('vf', info=True, vfdev=bdf)['device']

    def vf_wait(self, bdf, what, timeout=15.0):
        """Ask until @what(record) is true; returns that record."""
        deadline = time.monotonic() + timeout * SLOW
        while True:
            info = self.vf_info(bdf)
            if what(info):
                return info
            assert time.monotonic() < deadline, info
            time.sleep(0.005)


def unix_stream(path, timeout=10.0):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    sock.connect(path)
    return sock
