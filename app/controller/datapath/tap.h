/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A multi-queue TAP interface with virtio-net headers.
 */

#ifndef DP_TAP_H
#define DP_TAP_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfe_base.h"

struct dp_tap {
	char name[IFNAMSIZ];
	unsigned int ifindex;
	uint16_t max_queues;
	uint16_t active; /* queues 0 .. active - 1 are attached */
	int fds[];       /* -1: not opened yet */
};

/*
 * Create interface @name, or take the one that is there, with one queue. An interface that we
 * created is brought up and goes away with dp_tap_close(). Returns 0 or -errno with a text.
 */
int dp_tap_open(const char *name, uint16_t max_queues, struct dp_tap **ret, struct vfe_error *err);
void dp_tap_close(struct dp_tap *tap);

/* Let the kernel use queues 0 .. @n - 1. On failure the number may be anything up to @n. */
int dp_tap_set_queues(struct dp_tap *tap, uint16_t n, struct vfe_error *err);

/* What the reader of the TAP can take: TUN_F_* for TUNSETOFFLOAD. */
int dp_tap_set_offload(struct dp_tap *tap, unsigned int offload, struct vfe_error *err);
int dp_tap_set_mtu(struct dp_tap *tap, uint16_t mtu, struct vfe_error *err);

#endif /* DP_TAP_H */
