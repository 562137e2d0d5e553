# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The small front-end vhost-ping, and the floors that it measures without a back end."""
import json
import os
import subprocess

from vfetest import Process
from vfetest.controller import BUILD

from .sides import BACK_CPU, FRONT_CPU

LINE_TRIPS = 4000


class Ping:
    """One run of vhost-ping. With a socket it is started in two steps."""

    program = os.path.join(BUILD, 'test', 'bench', 'vhost-ping')
    name = 'vhost-ping'

    def __init__(self, lab, options, path=None, report=None):
        argv = [self.program, '--cpu', FRONT_CPU, *options]
        if path is not None:
            argv += ['--socket', path, '--wait']
        self._process = Process(self.name, argv, lab.log(self.name), stdin=subprocess.PIPE)
        self.pid = self._process.pid
        if report is not None:
            report.command(self._process.argv)

    def ready(self):
        self._process.wait_line('^ready', 40)

    def go(self):
        self._process.write('\n')

    def result(self):
        return json.loads(self._process.wait_line('^{', 60).string)

    def end(self):
        self._process.write('\n')
        self._process.wait_exit(10)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._process.close()


def floor_us(lab, options, report):
    with Ping(lab, options, report=report) as process:
        return process.result()['median_ns'] / 1e3


def line_ns(lab, report=None, count=LINE_TRIPS):
    """What a cache line takes to the back end's CPU and another one back."""
    return 1e3 * floor_us(lab, ['--floor-lines', BACK_CPU, '--count', count], report)
