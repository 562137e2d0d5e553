/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the two files of the network device type share.
 */

#ifndef CONTROLLER_NET_H
#define CONTROLLER_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "function.h"
#include "vfe_wire_net.h"

struct net {
	struct function *fn;
	struct dp_port *port;
	struct vfe_wire_net_config config; /* as the driver reads it */
	uint8_t mac[6];                    /* the operator's, back after a reset */
	uint64_t features;                 /* negotiated */
	struct dp_rx_filter filter;
	bool unicast_overflow; /* the driver's table was longer than ours */
	bool multicast_overflow;
	uint16_t pairs; /* in use */

	ev_timer announce; /* next announcement of the address in the network */
	unsigned int announcements;

	struct ctl_queue ctrl;
	uint64_t ctrl_commands;
	uint64_t ctrl_errors;
};

bool net_has(const struct net *net, unsigned int feature);

/* Index of the control queue, UINT16_MAX when there is none. */
uint16_t net_ctrl_qid(const struct net *net);

/* Hand filter and pairs to the data path. 0 or -errno. */
int net_apply_filter(struct net *net);
int net_apply_pairs(struct net *net, struct vfe_error *err);

/* net_announce.c: announce the address, now and twice more soon. */
void net_announce(struct function *fn);
void net_announce_init(struct net *net);
void net_announce_stop(struct net *net);

/* net_ctrl.c */
void net_ctrl_init(struct net *net);

#endif /* CONTROLLER_NET_H */
