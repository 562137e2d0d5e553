# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Guest, QEMU, service and controller come and go; traffic is back when they are."""
import pytest

from vfetest import VhostmgmtError
from vfetest.controller import PF

COPY_SIZE = 4 << 20


def check_traffic(stack, guest, vf=0):
    guest.ping(stack.host(vf))
    guest.copy_in(stack.netns, stack.host(vf), COPY_SIZE)
    guest.copy_out(stack.netns, stack.host(vf), COPY_SIZE)
    guest.check_kernel()


def test_guest_reboots(stack):
    guest = stack.running_guest()
    for _ in range(2):
        guest.reboot()
        stack.guest_up(guest, 0)
    check_traffic(stack, guest)


def test_guest_unbinds_and_binds_the_driver(stack):
    guest = stack.running_guest()
    address = guest.pci_address()
    driver = '/sys/bus/pci/drivers/virtio-pci'
    for _ in range(3):
        guest.run('echo %s > %s/unbind' % (address, driver))
        assert guest.run('ls /sys/class/net').split() == ['lo']
        guest.run('echo %s > %s/bind' % (address, driver))
        stack.guest_up(guest, 0)
    check_traffic(stack, guest)


def test_guest_unloads_and_loads_the_module_under_traffic(stack):
    guest = stack.running_guest()
    for _ in range(3):
        guest.run('(ping -i 0.01 %s >/dev/null 2>&1 &); sleep 0.3; rmmod virtio_net; '
                  'killall ping; insmod /lib/modules/virtio_net.ko' % stack.host(0))
        stack.guest_up(guest, 0)
    check_traffic(stack, guest)


def test_qemu_is_killed_and_started_again_on_the_same_vf(stack):
    guest = stack.running_guest()
    for _ in range(2):
        guest.run('(ping -i 0.01 %s >/dev/null 2>&1 &)' % stack.host(0))
        guest.kill()
        guest.boot()
        stack.guest_up(guest, 0)
    check_traffic(stack, guest)


def test_qemu_waits_for_the_service(lab, stack):
    stack.service.stop()
    guest = stack.guest(0)
    guest.launch()
    guest.process.wait_line('waiting for connection')
    stack.service.start()
    stack.service.add_pf(PF)
    stack.add_vf(0)
    stack.host_up(0)
    guest.wait_running()
    guest.wait_boot()
    stack.guest_up(guest, 0)
    check_traffic(stack, guest)


@pytest.mark.parametrize('how', ['stop', 'kill'])
def test_service_restarts_below_a_running_guest(stack, how):
    guest = stack.running_guest()
    for _ in range(2):
        getattr(stack.service, how)()
        assert not guest.pings(stack.host(0))
        stack.service.start()
        stack.service.add_pf(PF)
        stack.add_vf(0)
        guest.ping(stack.host(0))
    check_traffic(stack, guest)


@pytest.mark.parametrize('how', ['stop', 'kill'])
def test_controller_restarts_below_a_running_guest(stack, how):
    guest = stack.running_guest()
    for _ in range(2):
        getattr(stack.controller, how)()
        stack.controller.start()
        stack.host_up(0)
        guest.ping(stack.host(0), timeout=40)
    check_traffic(stack, guest)


def test_vf_is_removed_and_added_below_a_running_guest(stack):
    guest = stack.running_guest()
    for _ in range(3):
        stack.remove_vf(0)
        assert not guest.pings(stack.host(0))
        with pytest.raises(VhostmgmtError) as refused:
            stack.remove_vf(0)
        assert refused.value.status == 1
        stack.add_vf(0)
        guest.ping(stack.host(0))
    check_traffic(stack, guest)


def test_other_vf_keeps_its_traffic(stack):
    guest = stack.running_guest(0)
    other = stack.running_guest(1)
    other.run('(ping -q -c 40 -i 0.1 %s >/tmp/ping 2>&1; echo done >>/tmp/ping) &' % stack.host(1))
    guest.kill()
    stack.remove_vf(0)
    stack.add_vf(0)
    stack.remove_vf(0)
    shown = other.run('for i in $(seq 100); do grep -q done /tmp/ping && break; sleep 0.1; done; '
                      'cat /tmp/ping')
    assert ' 0% packet loss' in shown, shown


def test_nothing_leaks_over_many_cycles(stack):
    def cycle():
        stack.add_vf(0)
        stack.remove_vf(0)

    cycle()
    before = [p.fd_count() for p in (stack.service.process, stack.controller.process)]
    threads = [p.thread_count() for p in (stack.service.process, stack.controller.process)]
    for _ in range(20):
        cycle()
    assert [p.fd_count() for p in (stack.service.process, stack.controller.process)] == before
    assert [p.thread_count() for p in (stack.service.process, stack.controller.process)] == threads


def test_nothing_leaks_over_qemu_restarts(stack):
    guest = stack.running_guest()
    before = [p.fd_count() for p in (stack.service.process, stack.controller.process)]
    for _ in range(3):
        guest.kill()
        guest.boot()
        stack.guest_up(guest, 0)
    assert [p.fd_count() for p in (stack.service.process, stack.controller.process)] == before
