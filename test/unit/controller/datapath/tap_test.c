/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Unit tests of the TAP back end, in a network namespace of its own. Skipped without permission.
 */

#undef NDEBUG
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "dp.h"
#include "rig.h"
#include "tap.h"
#include "vfe_wire_net.h"

enum {
	HDR = sizeof(struct vfe_wire_net_hdr),
	RX = 0,
	TX = 1,
	ETHERTYPE = 0x88b5, /* for experiments; nothing of the kernel's speaks it */
	SKIP = 77,
};

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 1};
static struct rig rig;
static uint8_t got[70000];
static int host = -1; /* packet socket on the TAP */

static void
make_frame(uint8_t *frame, uint32_t len, const uint8_t *dst)
{
	uint32_t i;

	for (i = 14; i < len; i++)
		frame[i] = (uint8_t)(i * 3 + len);
	memcpy(frame, dst, 6);
	memcpy(frame + 6, "\x02\x00\x00\x00\x00\x99", 6);
	frame[12] = ETHERTYPE >> 8;
	frame[13] = ETHERTYPE & 0xff;
}

static void
open_host(void)
{
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETHERTYPE),
		.sll_ifindex = (int)dp_port_ifindex(rig.port),
	};

	assert_int_not_equal(addr.sll_ifindex, 0);
	host = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETHERTYPE));
	assert_true(host >= 0);
	assert_int_equal(bind(host, (struct sockaddr *)(void *)&addr, sizeof(addr)), 0);
}

static void
host_send(const uint8_t *frame, uint32_t len)
{
	assert_int_equal(send(host, frame, len, 0), len);
}

/* Next frame that came out of the TAP; what we sent ourselves is not for us. */
static ssize_t
host_receive(uint8_t *buf, size_t size)
{
	struct pollfd pfd = {.fd = host, .events = POLLIN};
	struct sockaddr_ll from;
	socklen_t len;
	ssize_t n;

	do {
		len = sizeof(from);
		assert_int_equal(poll(&pfd, 1, RIG_TIMEOUT_MS), 1);
		n = recvfrom(host, buf, size, 0, (struct sockaddr *)(void *)&from, &len);
		assert_true(n >= 0);
	} while (from.sll_pkttype == PACKET_OUTGOING);
	return n;
}

/* Next received packet of our own kind: the kernel sends others too. */
static uint32_t
guest_receive(uint16_t qid)
{
	uint32_t n;

	do {
		n = rig_receive(&rig, qid, got, sizeof(got));
		assert_true(n >= HDR + 14);
	} while (got[HDR + 12] != ETHERTYPE >> 8 || got[HDR + 13] != (ETHERTYPE & 0xff));
	return n;
}

static void
begin(unsigned int flags)
{
	assert_int_equal(rig_init_tap(&rig, "vfe-t0", flags, 256), 0);
	open_host();
	rig_start_all(&rig);
}

static void
end(void)
{
	close(host);
	rig_fini(&rig);
	assert_int_equal(if_nametoindex("vfe-t0"), 0);
}

static void
frames_pass_in_both_directions(void **state)
{
	const unsigned int flags[] = {0, RIG_EVENT_IDX, RIG_MERGE, RIG_POLLING | RIG_MERGE};
	uint8_t frame[1514], back[2000];
	uint32_t len;
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(flags); i++) {
		begin(flags[i]);
		rig_post(&rig, RX, 1526, 100);
		for (len = 14; len <= 1514; len += 60) {
			make_frame(frame, len, our_mac);
			rig_send(&rig, TX, NULL, frame, len, (uint16_t)(1 + len % 3));
			rig_show(&rig, TX);
			assert_int_equal(host_receive(back, sizeof(back)), len);
			assert_memory_equal(back, frame, len);
			rig_wait(&rig, TX, NULL);

			host_send(frame, len);
			assert_int_equal(guest_receive(RX), len + HDR);
			assert_memory_equal(got + HDR, frame, len);
			assert_int_equal(got[HDR - 2] | got[HDR - 1] << 8, 1);
		}
		assert_int_equal(rig_stats(&rig, TX).packets, 26);
		assert_true(rig_stats(&rig, RX).packets >= 26);
		end();
	}
}

static void
small_buffers_are_merged(void **state)
{
	uint8_t frame[1514];

	(void)state;
	begin(RIG_MERGE);
	rig_post(&rig, RX, 100, 200);
	make_frame(frame, sizeof(frame), our_mac);
	host_send(frame, sizeof(frame));
	assert_int_equal(guest_receive(RX), sizeof(frame) + HDR);
	assert_memory_equal(got + HDR, frame, sizeof(frame));
	assert_int_equal(got[HDR - 2], (sizeof(frame) + HDR + 99) / 100);
	/* the smallest there can be: the header spans nothing else */
	rig_fini(&rig);
	close(host);
	begin(RIG_MERGE);
	rig_post(&rig, RX, HDR, 255);
	make_frame(frame, 300, our_mac);
	host_send(frame, 300);
	assert_int_equal(guest_receive(RX), 300 + HDR);
	assert_memory_equal(got + HDR, frame, 300);
	end();
}

/* A packet that came when there were too few buffers is not lost, and not delivered in part. */
static void
large_packet_waits_for_buffers(void **state)
{
	uint8_t frame[1514];
	unsigned int round;

	(void)state;
	begin(RIG_MERGE | RIG_EVENT_IDX);
	make_frame(frame, sizeof(frame), our_mac);
	for (round = 0; round < 20; round++) {
		rig_post(&rig, RX, 64 + round, 3);
		host_send(frame, sizeof(frame));
		rig_post(&rig, RX, 100, 8);
		rig_post(&rig, RX, 700, 1);
		assert_int_equal(guest_receive(RX), sizeof(frame) + HDR);
		assert_memory_equal(got + HDR, frame, sizeof(frame));
	}
	assert_int_equal(rig_stats(&rig, RX).dropped, 0);
	end();
}

static void
too_large_packet_is_dropped(void **state)
{
	uint8_t frame[1514];

	(void)state;
	begin(0);
	rig_post(&rig, RX, 1000, 50);
	make_frame(frame, sizeof(frame), our_mac);
	host_send(frame, 989);
	host_send(frame, 988);
	assert_int_equal(guest_receive(RX), 1000);
	assert_true(rig_stats(&rig, RX).dropped >= 1);
	end();
}

/* Without buffers packets stay in the TAP, and the guest's kick sets it going again. */
static void
receive_resumes_when_buffers_come(void **state)
{
	uint8_t frame[100];
	unsigned int i;

	(void)state;
	begin(RIG_EVENT_IDX);
	for (i = 0; i < 40; i++) {
		make_frame(frame, 60 + i, our_mac);
		host_send(frame, 60 + i);
	}
	for (i = 0; i < 40; i++) {
		if (rig.q[RX].ring.nr_free > 250)
			rig_post(&rig, RX, 1526, 4);
		assert_int_equal(guest_receive(RX), 60 + i + HDR);
	}
	end();
}

static void
filter_keeps_foreign_packets_out(void **state)
{
	static const uint8_t other[6] = {2, 0, 0, 0, 0, 2}, group[6] = {1, 0, 0, 0, 0, 5},
			     all[6] = {255, 255, 255, 255, 255, 255};
	struct dp_rx_filter filter = {0};
	uint8_t frame[100];
	uint32_t len;

	(void)state;
	begin(0);
	rig_post(&rig, RX, 1526, 200);
	memcpy(filter.mac, our_mac, 6);
	assert_int_equal(dp_port_set_filter(rig.port, &filter), 0);
	/* the frame's length says which one it is; the last of each group passes */
	for (len = 60; len < 64; len++) {
		make_frame(frame, len, len == 60 ? other : len == 61 ? group : all);
		if (len == 63)
			memcpy(frame, our_mac, 6);
		host_send(frame, len);
	}
	assert_int_equal(guest_receive(RX), 62 + HDR);
	assert_int_equal(guest_receive(RX), 63 + HDR);
	assert_true(rig_stats(&rig, RX).dropped >= 2);

	filter.nr_multicast = 1;
	memcpy(filter.multicast[0], group, 6);
	filter.nr_unicast = 1;
	memcpy(filter.unicast[0], other, 6);
	filter.nobcast = true;
	assert_int_equal(dp_port_set_filter(rig.port, &filter), 0);
	for (len = 60; len < 63; len++) {
		make_frame(frame, len, len == 60 ? all : len == 61 ? group : other);
		host_send(frame, len);
	}
	assert_int_equal(guest_receive(RX), 61 + HDR);
	assert_int_equal(guest_receive(RX), 62 + HDR);
	end();
}

static void
hostile_headers_are_errors(void **state)
{
	static const struct vfe_wire_net_hdr bad[] = {
		{.flags = 1, .csum_start = 65535, .csum_offset = 65535},
		{.flags = 1, .csum_start = 34, .csum_offset = 65500},
		{.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16},
		{.gso_type = 1, .gso_size = 1000},
		{.gso_type = 99, .gso_size = 1000},
		{.gso_type = 3, .gso_size = 1000},
		/* this one gets as far as the kernel: the frame is no TCP at all */
		{.flags = 1,
			.gso_type = 1,
			.gso_size = 1,
			.hdr_len = 65535,
			.csum_start = 34,
			.csum_offset = 16},
	};
	uint8_t frame[100], back[200];
	size_t i;

	(void)state;
	begin(RIG_TSO);
	make_frame(frame, sizeof(frame), our_mac);
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++)
		rig_send(&rig, TX, &bad[i], frame, sizeof(frame), (uint16_t)(1 + i % 3));
	rig_send(&rig, TX, NULL, frame, 13, 1);
	rig_send(&rig, TX, NULL, frame, sizeof(frame), 1);
	rig_show(&rig, TX);
	assert_int_equal(host_receive(back, sizeof(back)), sizeof(frame));
	for (i = 0; i < VFE_ARRAY_SIZE(bad) + 2; i++)
		rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_stats(&rig, TX).errors, VFE_ARRAY_SIZE(bad) + 1);
	assert_int_equal(rig_stats(&rig, TX).packets, 1);
	end();
}

static void
name_interface(struct ifreq *ifr)
{
	assert_int_equal(vfe_str_copy(ifr->ifr_name, sizeof(ifr->ifr_name), "vfe-t0"), 0);
}

static int
tap_queues(void)
{
	char path[64];
	int i;

	for (i = 0; i < 256; i++) {
		snprintf(path, sizeof(path), "/sys/class/net/vfe-t0/queues/rx-%d", i);
		if (access(path, F_OK) != 0)
			break;
	}
	return i;
}

static void
queues_follow_the_number_of_pairs(void **state)
{
	uint8_t frame[100], back[200];
	struct vfe_error err;
	unsigned int round;

	(void)state;
	begin(0);
	make_frame(frame, sizeof(frame), our_mac);
	for (round = 0; round < 3; round++) {
		assert_int_equal(dp_port_set_pairs(rig.port, 1, &err), 0);
		rig_send(&rig, 3, NULL, frame, sizeof(frame), 1);
		rig_show(&rig, 3);
		assert_int_equal(rig_wait_stats(&rig, 3, 2 * round + 1).dropped, round + 1);
		assert_int_equal(tap_queues(), 1);

		assert_int_equal(dp_port_set_pairs(rig.port, 2, &err), 0);
		rig_send(&rig, 3, NULL, frame, sizeof(frame), 1);
		rig_show(&rig, 3);
		assert_int_equal(host_receive(back, sizeof(back)), sizeof(frame));
		assert_int_equal(rig_wait_stats(&rig, 3, 2 * round + 2).packets, round + 1);
		assert_int_equal(tap_queues(), 2);
	}
	end();
}

static void
settings_reach_the_interface(void **state)
{
	struct ifreq ifr = {0};
	struct vfe_error err;

	(void)state;
	begin(0);
	assert_int_equal(dp_port_set_mtu(rig.port, 1400, &err), 0);
	name_interface(&ifr);
	assert_int_equal(ioctl(host, SIOCGIFMTU, &ifr), 0);
	assert_int_equal(ifr.ifr_mtu, 1400);
	assert_int_equal(dp_port_set_mtu(rig.port, 10, &err), -EINVAL);
	assert_non_null(strstr(err.text, "vfe-t0"));
	assert_int_equal(ioctl(host, SIOCGIFFLAGS, &ifr), 0);
	assert_true(ifr.ifr_flags & IFF_UP);
	assert_int_equal(dp_port_set_features(rig.port,
				 VFE_BIT(VFE_NET_F_GUEST_CSUM) | VFE_BIT(VFE_NET_F_GUEST_TSO4) |
					 VFE_BIT(VFE_NET_F_GUEST_TSO6),
				 &err),
		0);
	assert_int_equal(dp_port_set_features(rig.port, VFE_BIT(VFE_NET_F_GUEST_TSO4), &err), 0);
	end();
}

static void
set_link(bool up)
{
	struct ifreq ifr = {.ifr_flags = 0};

	name_interface(&ifr);
	assert_int_equal(ioctl(host, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
	assert_int_equal(ioctl(host, SIOCSIFFLAGS, &ifr), 0);
}

static void
transmit_on_an_interface_that_is_down_is_dropped(void **state)
{
	uint8_t frame[100];

	(void)state;
	begin(0);
	set_link(false);
	make_frame(frame, sizeof(frame), our_mac);
	rig_send(&rig, TX, NULL, frame, sizeof(frame), 1);
	rig_show(&rig, TX);
	rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_wait_stats(&rig, TX, 1).dropped, 1);
	set_link(true);
	rig_send(&rig, TX, NULL, frame, sizeof(frame), 1);
	rig_show(&rig, TX);
	rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_wait_stats(&rig, TX, 2).packets, 1);
	end();
}

/* Indices stay equal although buffers are taken ahead of packets. */
static void
stop_gives_back_what_was_taken_ahead(void **state)
{
	uint16_t avail, used;
	uint8_t frame[100];
	unsigned int i;

	(void)state;
	begin(RIG_MERGE | RIG_TSO);
	rig_post(&rig, RX, 1526, 100);
	for (i = 0; i < 5; i++) {
		make_frame(frame, sizeof(frame), our_mac);
		host_send(frame, sizeof(frame));
		guest_receive(RX);
		/* the map changes while buffers are taken ahead */
		dp_port_set_map(rig.port, rig.mem.map);
		assert_int_equal(dp_queue_stop(rig.port, RX, &avail, &used), 0);
		assert_int_equal(avail, used);
		assert_int_equal(used, rig.q[RX].ring.used->idx);
		while (fake_ring_get(&rig.q[RX].ring, NULL) >= 0)
			;
		/* what comes now is not for this guest any more */
		make_frame(frame, 77, our_mac);
		host_send(frame, 77);
		rig_start_queue(&rig, RX);
	}
	end();
}

static void
hostile_receive_buffer_breaks_the_queue(void **state)
{
	uint8_t frame[100], back[200];
	struct fake_seg seg;

	(void)state;
	begin(RIG_MERGE);
	seg = (struct fake_seg){fake_mem_alloc(&rig.mem, 64, 8), HDR - 1, true};
	fake_ring_add(&rig.q[RX].ring, &seg, 1);
	rig_show(&rig, RX);
	make_frame(frame, sizeof(frame), our_mac);
	host_send(frame, sizeof(frame));
	rig_wait_broken(&rig, 1);
	assert_int_equal(rig.broken_qid, RX);
	rig_send(&rig, TX, NULL, frame, sizeof(frame), 1);
	rig_show(&rig, TX);
	assert_int_equal(host_receive(back, sizeof(back)), sizeof(frame));
	end();
}

/* As with a memory file that was cut off: the kernel cannot get at the guest's buffer. */
static void
memory_that_is_gone_breaks_the_queue(void **state)
{
	uint8_t *head, *gone;
	struct fake_seg segs[2];

	(void)state;
	begin(0);
	head = fake_mem_alloc(&rig.mem, 4096, 4096);
	gone = fake_mem_alloc(&rig.mem, 4096, 4096);
	assert_int_equal(mprotect(gone, 4096, PROT_NONE), 0);
	segs[0] = (struct fake_seg){head, 100, false};
	segs[1] = (struct fake_seg){gone, 100, false};
	fake_ring_add(&rig.q[TX].ring, segs, 2);
	rig_show(&rig, TX);
	rig_wait_broken(&rig, 1);
	assert_int_equal(rig.broken_qid, TX);
	assert_non_null(strstr(rig.broken_why, "transmit buffer is gone"));
	assert_int_equal(mprotect(gone, 4096, PROT_READ | PROT_WRITE), 0);
	end();
}

static void
names_are_checked(void **state)
{
	const char *const bad[] = {
		"", "a-name-of-16-chars", "tap%d", "a/b", "a b", ".", "..", NULL};
	struct dp_port_cfg cfg = {.name = "x", .backend = DP_BACKEND_TAP, .max_pairs = 1};
	struct dp_port *port;
	struct vfe_error err;
	size_t i;

	(void)state;
	begin(0);
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		cfg.tap_name = bad[i];
		assert_int_equal(dp_port_create(rig.engine, &cfg, &port, &err), -EINVAL);
	}
	cfg.tap_name = "vfe-t0";
	assert_int_equal(dp_port_create(rig.engine, &cfg, &port, &err), -EBUSY);
	assert_non_null(strstr(err.text, "0000:00:01.0"));
	/* lo exists and is no TAP */
	cfg.tap_name = "lo";
	assert_true(dp_port_create(rig.engine, &cfg, &port, &err) < 0);
	assert_non_null(strstr(err.text, "lo"));
	end();
}

static void
delete_interface(void)
{
	struct {
		struct nlmsghdr hdr;
		struct ifinfomsg info;
	} req = {
		.hdr = {.nlmsg_len = sizeof(req),
			.nlmsg_type = RTM_DELLINK,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.info = {.ifi_index = (int)dp_port_ifindex(rig.port)},
	};
	uint8_t ack[512];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	assert_true(fd >= 0);
	assert_int_equal(send(fd, &req, sizeof(req), 0), sizeof(req));
	assert_true(recv(fd, ack, sizeof(ack), 0) > 0);
	close(fd);
}

/* Somebody deletes the representor: an error with its name, and transmit packets are dropped. */
static void
deleted_interface_is_reported(void **state)
{
	uint8_t frame[100];

	(void)state;
	begin(RIG_EVENT_IDX);
	rig_post(&rig, RX, 1526, 10);
	delete_interface();
	rig_wait_broken(&rig, 1);
	assert_int_equal(rig.broken_qid, RX);
	assert_non_null(strstr(rig.broken_why, "TAP vfe-t0 was deleted"));
	make_frame(frame, sizeof(frame), our_mac);
	rig_send(&rig, TX, NULL, frame, sizeof(frame), 1);
	rig_show(&rig, TX);
	rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_stats(&rig, TX).dropped, 1);
	end();
}

/* An interface that somebody else made stays when we go. */
static void
existing_interface_is_kept(void **state)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	(void)state;
	name_interface(&ifr);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	close(fd);
	assert_int_equal(rig_init_tap(&rig, "vfe-t0", 0, 256), 0);
	rig_start_all(&rig);
	rig_fini(&rig);
	assert_int_not_equal(if_nametoindex("vfe-t0"), 0);

	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	assert_int_equal(ioctl(fd, TUNSETPERSIST, 0), 0);
	close(fd);
	assert_int_equal(if_nametoindex("vfe-t0"), 0);
}

/*
 * A full TAP: nothing is dropped, the worker sleeps, and goes on when there is room. A socket takes
 * the TAP's place, as a TAP hardly ever fills up.
 */
static void
transmit_waits_while_the_tap_is_full(void **state)
{
	enum { COUNT = 160 };
	uint8_t frame[1000], back[1100];
	int sv[2], size = 4096, i;

	(void)state;
	assert_int_equal(rig_init_tap(&rig, "vfe-t0", 0, 256), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sv), 0);
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	assert_int_equal(dup2(sv[0], rig.port->tap->fds[0]), rig.port->tap->fds[0]);
	rig_start_all(&rig);
	make_frame(frame, sizeof(frame), our_mac);
	for (i = 0; i < COUNT; i++) {
		frame[20] = (uint8_t)i;
		rig_send(&rig, TX, NULL, frame, sizeof(frame), (uint16_t)(1 + i % 2));
	}
	rig_show(&rig, TX);
	host = sv[1];
	for (i = 0; i < COUNT; i++) {
		struct pollfd pfd = {.fd = host, .events = POLLIN};

		assert_int_equal(poll(&pfd, 1, RIG_TIMEOUT_MS), 1);
		assert_int_equal(read(host, back, sizeof(back)), sizeof(frame) + HDR);
		assert_int_equal(back[HDR + 20], (uint8_t)i);
	}
	assert_int_equal(rig_wait_stats(&rig, TX, COUNT).packets, COUNT);
	close(sv[0]);
	end();
}

static int
private_network(void)
{
	int fd;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		return -errno;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(fd);
	/* /sys of the new namespace, seen by us only; in a chroot "/" would be no mount */
	if (mount(NULL, "/sys", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("vfe", "/sys", "sysfs", 0, NULL) < 0)
		return -errno;
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_pass_in_both_directions),
		cmocka_unit_test(small_buffers_are_merged),
		cmocka_unit_test(large_packet_waits_for_buffers),
		cmocka_unit_test(too_large_packet_is_dropped),
		cmocka_unit_test(receive_resumes_when_buffers_come),
		cmocka_unit_test(filter_keeps_foreign_packets_out),
		cmocka_unit_test(hostile_headers_are_errors),
		cmocka_unit_test(queues_follow_the_number_of_pairs),
		cmocka_unit_test(settings_reach_the_interface),
		cmocka_unit_test(transmit_on_an_interface_that_is_down_is_dropped),
		cmocka_unit_test(transmit_waits_while_the_tap_is_full),
		cmocka_unit_test(stop_gives_back_what_was_taken_ahead),
		cmocka_unit_test(hostile_receive_buffer_breaks_the_queue),
		cmocka_unit_test(deleted_interface_is_reported),
		cmocka_unit_test(memory_that_is_gone_breaks_the_queue),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(existing_interface_is_kept),
	};
	int rc = private_network();

	if (rc < 0) {
		fprintf(stderr, "skipped: no network namespace of our own: %s\n", strerror(-rc));
		return SKIP;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
