/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A network device tells the network where its address is now.
 */

#include "net.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

enum { ANNOUNCEMENTS = 3 };
#define ANNOUNCE_SECONDS 0.1

/*
 * Bridges learn from what a port sends where an address is. After a migration the guest may have
 * nothing to send for long, so the device does it, like a front-end would: a reverse ARP request.
 */
static void
send_rarp(const struct net *net)
{
	struct {
		uint8_t dst[6], src[6];
		uint16_t type, hardware, protocol;
		uint8_t hardware_len, protocol_len;
		uint16_t operation;
		uint8_t sender[6], sender_ip[4], target[6], target_ip[4];
		uint8_t padding[18];
	} __attribute__((packed)) frame = {
		.dst = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		.type = htobe16(0x8035),
		.hardware = htobe16(1),
		.protocol = htobe16(0x0800),
		.hardware_len = 6,
		.protocol_len = 4,
		.operation = htobe16(3),
	};
	int rc;

	static_assert(sizeof(frame) == 60, "shortest frame");
	memcpy(frame.src, net->config.mac, sizeof(frame.src));
	memcpy(frame.sender, net->config.mac, sizeof(frame.sender));
	memcpy(frame.target, net->config.mac, sizeof(frame.target));
	rc = dp_port_send(net->port, &frame, sizeof(frame));
	if (rc < 0)
		log_debug("%s: cannot announce its address: %s", net->fn->name, strerror(-rc));
}

static void
on_announce(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct net *net = vfe_container_of(timer, struct net, announce);

	(void)revents;
	/* not while it stands still: then its address may be elsewhere already */
	if (net->fn->internal == VFE_ADMIN_VF_RUNNING)
		send_rarp(net);
	if (++net->announcements >= ANNOUNCEMENTS)
		ev_timer_stop(loop, timer);
}

void
net_announce(struct function *fn)
{
	struct net *net = fn->type_data;

	/* a guest that can announce itself knows better: it may have several addresses */
	if (net_has(net, VFE_NET_F_GUEST_ANNOUNCE))
		return;
	net->announcements = 1;
	send_rarp(net);
	ev_timer_set(&net->announce, ANNOUNCE_SECONDS, ANNOUNCE_SECONDS);
	ev_timer_start(fn->env->loop, &net->announce);
}

void
net_announce_init(struct net *net)
{
	ev_init(&net->announce, on_announce);
}

void
net_announce_stop(struct net *net)
{
	ev_timer_stop(net->fn->env->loop, &net->announce);
}
