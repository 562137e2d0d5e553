# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The demo works as a reader of the README runs it."""
import os
import re
import subprocess

from vfetest.guest import TOP

TIMEOUT = 400


def test_demo_succeeds_and_cleans_up():
    before = set(os.listdir('/run/netns')) if os.path.isdir('/run/netns') else set()
    # in a session of its own, so that a time-out of ours can end all of it by its trap
    demo = subprocess.Popen([os.path.join(TOP, 'scripts', 'demo'), '--skip-setup'],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        output = demo.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(demo.pid, 15)
        output = demo.communicate(timeout=60)[0]
        raise AssertionError('the demo did not end in %d s:\n%s' % (TIMEOUT, output)) from None
    assert demo.returncode == 0, output
    assert len(re.findall('The checksums are equal', output)) == 2, output
    assert not os.path.exists('/run/vfe-demo')
    assert not os.path.exists('/tmp/vfe-net0')
    assert not os.path.exists('/run/vfe/vhostd.sock')
    assert not os.path.exists('/run/vfe/controller.sock')
    after = set(os.listdir('/run/netns')) if os.path.isdir('/run/netns') else set()
    assert 'vfe-demo' not in after - before
