/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Stand-ins for the vDPA driver and librte_vhost, linked in place of the real ones.
 */

#ifndef FAKE_VDPA_H
#define FAKE_VDPA_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfe_vdpa.h"

struct fake {
	pthread_mutex_t lock; /* protects everything below */

	/* what the fakes answer */
	bool refuse_connect;     /* vfe_vdpa_vf_connect() fails */
	bool peer_listens;       /* rte_vhost_driver_start() connects in client mode */
	int vf_add_fails;        /* enum vfe_vdpa_code, 0 = works */
	int reattach_results[8]; /* one a call, then 0 */

	/* what they were asked */
	struct fake_socket {
		char path[108]; /* "" = none */
		uint64_t flags;
		int fd; /* server */
	} sockets[4];
	uint64_t flags; /* of the last one */
	int nr_registered;
	int nr_started;
	int nr_connected;
	int nr_disconnected;
	int last_disconnected;
	int nr_vfs;
	int nr_reattached;
	bool leaked_socket; /* registered as client but never started: librte keeps its fd */
};

extern struct fake fake;

void fake_reset(void);

/* The connection @vid ends, as librte_vhost's event thread would tell. */
void fake_hang_up(int vid);

/* A front-end comes on the socket @path; returns what new_connection() returned. */
int fake_come_to(const char *path, int vid);

/* The same where there is but one. */
int fake_come(int vid);

#endif /* FAKE_VDPA_H */
