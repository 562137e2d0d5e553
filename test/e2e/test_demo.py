# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The demo works as a reader of the README runs it."""
import contextlib
import os
import re
import subprocess

from vfetest.guest import TOP

TIMEOUT = 400


LEFT_BEHIND = ('/run/vfe-demo', '/run/vfe-hosts', '/tmp/vfe-net0', '/tmp/vfe-blk0',
               '/run/vfe/vhostd.sock', '/run/vfe/controller.sock')
PICTURE = os.path.join(TOP, 'build', 'migrate.svg')


def run_demo(*argv):
    """The output of a demo, which has left nothing behind."""
    # in a session of its own, so that a time-out of ours can end all of it by its trap
    demo = subprocess.Popen([os.path.join(TOP, 'scripts', 'demo'), '--skip-setup', *argv],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        output = demo.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(demo.pid, 15)
        output = demo.communicate(timeout=60)[0]
        raise AssertionError('the demo did not end in %d s:\n%s' % (TIMEOUT, output)) from None
    assert demo.returncode == 0, output
    assert [path for path in LEFT_BEHIND if os.path.exists(path)] == []
    return output


def test_demo_succeeds_and_cleans_up():
    before = set(os.listdir('/run/netns')) if os.path.isdir('/run/netns') else set()
    output = run_demo()
    assert len(re.findall('The checksums are equal', output)) == 2, output
    after = set(os.listdir('/run/netns')) if os.path.isdir('/run/netns') else set()
    assert 'vfe-demo' not in after - before


def test_demo_of_a_disk_succeeds_and_cleans_up():
    output = run_demo('blk')
    assert len(re.findall('The checksums are equal', output)) == 1, output
    assert re.search(r'errors=0 bad=0 gap_ms=\d+ end$', output, re.M), output
    assert re.search(r'\[vda\] new size: 393216 ', output), output


def test_demo_of_a_migration_succeeds_and_cleans_up():
    with contextlib.suppress(FileNotFoundError):
        os.unlink(PICTURE)
    output = run_demo('migrate')
    # there and back; both ends of the connection have counted the same
    assert len(re.findall(r'^ *\$ scripts/hosts migrate\b', output, re.M)) == 2, output
    ends = re.findall(r'sent=(\d+) received=(\d+) errors=0 gap_ms=\d+$', output, re.M)
    assert len(ends) == 2 and ends[0] == ends[1][::-1], output
    assert os.path.getsize(PICTURE) > 0
