# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""The harness itself, on the software peer: what fails here is not the fault of our programs."""

HOST = '10.77.0.1'
GUEST = '10.77.0.2'
COPY_SIZE = 4 << 20


def test_guest_reaches_peer_and_survives_reboot(lab):
    ns = lab.netns()
    path = lab.path('vhost.sock')
    peer = lab.peer(ns, path)
    ns.configure(peer.tap, HOST + '/24')
    guest = lab.guest(nics=[lab.nic(path)])
    guest.boot()
    guest.configure(GUEST + '/24')
    guest.ping(HOST)
    guest.copy_in(ns, HOST, COPY_SIZE)
    guest.copy_out(ns, HOST, COPY_SIZE)
    guest.reboot()
    guest.configure(GUEST + '/24')
    guest.ping(HOST)
    assert guest.quit() == 0


def test_agent_reports_status_output_and_timeouts(lab):
    guest = lab.guest()
    guest.boot()
    assert guest.agent.run('echo out; echo err >&2; exit 3') == (3, 'out\nerr\n')
    assert guest.agent.run('kill -9 $$') == (137, '')
    assert guest.agent.run('sleep 30', timeout=1) == (124, '')
    # a child in the background must not hold up the answer, whatever it inherited
    assert guest.agent.run('sleep 30 & echo started', timeout=5) == (0, 'started\n')
    blob = guest.run('seq 20000')
    assert blob == ''.join('%d\n' % i for i in range(1, 20001))
