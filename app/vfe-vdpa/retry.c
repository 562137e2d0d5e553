/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Try something that needs a peer's socket again.
 */

#include "retry.h"

#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

struct retry {
	struct retry_cfg cfg;
	char path[PATH_MAX];
	struct watch *watch;
	struct ev_timer pause;
	uint32_t pause_ms;
	struct job job;
	int result;
	bool running; /* the job is posted */
	bool again;   /* kicked while it was running */
	bool dead;
};

static void
retry_release(struct retry *retry)
{
	if (retry->cfg.released != NULL)
		retry->cfg.released(retry->cfg.ctx);
	free(retry);
}

static void
attempt_run(struct job *job)
{
	struct retry *retry = vfe_container_of(job, struct retry, job);

	retry->result = retry->cfg.attempt(retry->cfg.ctx);
}

static void
attempt_post(struct retry *retry)
{
	if (retry->running) {
		retry->again = true;
		return;
	}
	ev_timer_stop(retry->cfg.loop, &retry->pause);
	retry->running = true;
	jobs_post(retry->cfg.jobs, &retry->job);
}

/* An absent socket is waited for by the watch alone. */
static void
pause_start(struct retry *retry)
{
	struct stat st;

	if (stat(retry->path, &st) < 0)
		return;
	ev_timer_stop(retry->cfg.loop, &retry->pause);
	ev_timer_set(&retry->pause, retry->pause_ms / 1000.0, 0.0);
	ev_timer_start(retry->cfg.loop, &retry->pause);
	retry->pause_ms *= 2;
	if (retry->pause_ms > retry->cfg.max_pause_ms)
		retry->pause_ms = retry->cfg.max_pause_ms;
}

static void
attempt_done(struct job *job)
{
	struct retry *retry = vfe_container_of(job, struct retry, job);
	int result = retry->result;

	if (!retry->dead && retry->cfg.attempted != NULL)
		retry->cfg.attempted(retry->cfg.ctx, result); /* may set dead */
	retry->running = false;
	if (retry->dead) {
		retry_release(retry);
		return;
	}
	if (retry->again) {
		retry->again = false;
		attempt_post(retry);
	} else if (result != 0) {
		pause_start(retry);
	}
}

static void
on_pause_end(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	attempt_post(vfe_container_of(w, struct retry, pause));
}

static void
on_appeared(void *ctx)
{
	retry_kick(ctx);
}

int
retry_create(const struct retry_cfg *cfg, struct retry **ret, struct vfe_error *err)
{
	struct retry *retry = calloc(1, sizeof(*retry));

	if (retry == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	retry->cfg = *cfg;
	retry->pause_ms = RETRY_FIRST_MS;
	retry->job.run = attempt_run;
	retry->job.done = attempt_done;
	ev_timer_init(&retry->pause, on_pause_end, 0.0, 0.0);
	if (vfe_str_copy(retry->path, sizeof(retry->path), cfg->path) < 0) {
		free(retry);
		return vfe_error_set(err, -ENAMETOOLONG, "path %.100s... is too long", cfg->path);
	}
	retry->watch = watch_add(cfg->watches, retry->path, on_appeared, retry, err);
	if (retry->watch == NULL) {
		free(retry);
		return -EIO;
	}
	*ret = retry;
	return 0;
}

void
retry_kick(struct retry *retry)
{
	retry->pause_ms = RETRY_FIRST_MS;
	attempt_post(retry);
}

void
retry_destroy(struct retry *retry)
{
	if (retry == NULL)
		return;
	ev_timer_stop(retry->cfg.loop, &retry->pause);
	watch_remove(retry->cfg.watches, retry->watch);
	retry->watch = NULL;
	retry->dead = true;
	if (!retry->running)
		retry_release(retry);
}
