/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Try something that needs a peer's socket again: at once when the socket appears, with growing
 * pauses while it is there but does not answer, not at all while it is absent.
 *
 * Attempts run on the provisioning thread, everything else on the main loop.
 */

#ifndef RETRY_H
#define RETRY_H

#include <stdint.h>

#include "jobs.h"
#include "vfe_base.h"
#include "watch.h"

enum {
	RETRY_FIRST_MS = 10, /* pause after the first attempt; doubles up to cfg->max_pause_ms */
};

struct retry;

struct retry_cfg {
	struct ev_loop *loop;
	struct jobs *jobs;
	struct watches *watches;
	const char *path; /* the peer's socket; copied */
	uint32_t max_pause_ms;
	/*
	 * The attempt, on the provisioning thread. Returns 0 when nothing is to be tried any more
	 * (until the next retry_kick()), else anything.
	 */
	int (*attempt)(void *ctx);
	/* After an attempt, on the main loop; may call retry_destroy(). NULL is fine. */
	void (*attempted)(void *ctx, int result);
	/* Nothing of the retry uses @ctx any more, see retry_destroy(). */
	void (*released)(void *ctx);
	void *ctx;
};

/* Watches the path; attempts begin with the first retry_kick() or when the socket appears. */
int retry_create(const struct retry_cfg *cfg, struct retry **ret, struct vfe_error *err);

/* Attempt now, and begin with short pauses again. */
void retry_kick(struct retry *retry);

/* No further attempt; cfg->released is called when a running one has ended, possibly at once. */
void retry_destroy(struct retry *retry);

#endif /* RETRY_H */
