/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Bring lost devices back.
 */

#include "recover.h"

#include "retry.h"
#include "svc_log.h"

#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfe_vdpa.h"

#define SYSFS_DEVICES "/sys/bus/pci/devices"

/* A device that is there but refuses to work is tried again this often at last. */
enum { REATTACH_MAX_PAUSE_MS = 10000 };

struct lost_device {
	struct vfe_bdf bdf;
	char name[VFE_BDF_STR_SIZE];
	char text[256];      /* of the last failure, so that each is told once */
	struct retry *retry; /* main loop */
	bool ended;          /* device removed or back; main loop */
	LIST_ENTRY(lost_device) next;
	STAILQ_ENTRY(lost_device) news_next;
};

static struct {
	struct recover_cfg cfg;
	pthread_mutex_t lock; /* protects news */
	STAILQ_HEAD(, lost_device) news;
	LIST_HEAD(, lost_device) list; /* main loop */
	struct ev_async wake;
} recover = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Provisioning thread. */
static int
reattach(void *ctx)
{
	struct lost_device *lost = ctx;
	struct vfe_vdpa_error err = {0};
	int ret = vfe_vdpa_reattach(&lost->bdf, &err);

	if (ret == 0)
		SVC_LOG(NOTICE, "%s: device is back", lost->name);
	else if (ret == -ENODEV)
		ret = 0; /* removed meanwhile */
	else if (ret != -EAGAIN && strcmp(lost->text, err.err.text) != 0) {
		SVC_LOG(ERR, "%s: cannot be brought back: %s", lost->name, err.err.text);
		vfe_str_copy(lost->text, sizeof(lost->text), err.err.text);
	}
	return ret;
}

static void
reattached(void *ctx, int result)
{
	struct lost_device *lost = ctx, *other;

	if (result != 0)
		return;

	/* others may have waited for this one: VFs for their PF */
	lost->ended = true;
	retry_destroy(lost->retry);
	LIST_FOREACH (other, &recover.list, next) {
		if (!other->ended)
			retry_kick(other->retry);
	}
}

static void
lost_released(void *ctx)
{
	struct lost_device *lost = ctx;

	LIST_REMOVE(lost, next);
	free(lost);
}

/*
 * What to wait for: the socket of the function. Nobody tells when the kernel can give a function of
 * its own again, so that one is tried from time to time, by way of a path that is always there.
 */
static int
lost_path(const struct lost_device *lost, char *path, size_t size)
{
	int ret = vfe_str_format(path, size, SYSFS_DEVICES "/%s", lost->name);

	if (ret == 0 && access(path, F_OK) == 0)
		return vfe_str_copy(path, size, SYSFS_DEVICES);
	return vfe_str_format(path, size, "%s/%s.sock", recover.cfg.vfio_user_dir, lost->name);
}

static void
lost_handle(struct lost_device *lost)
{
	char path[PATH_MAX];
	struct retry_cfg cfg = {
		.loop = recover.cfg.loop,
		.jobs = recover.cfg.jobs,
		.watches = recover.cfg.watches,
		.path = path,
		.max_pause_ms = REATTACH_MAX_PAUSE_MS,
		.attempt = reattach,
		.attempted = reattached,
		.released = lost_released,
		.ctx = lost,
	};
	struct lost_device *other;
	struct vfe_error err = {.text = "the path of its socket is too long"};

	LIST_FOREACH (other, &recover.list, next) {
		if (!other->ended && vfe_bdf_equal(&other->bdf, &lost->bdf)) {
			retry_kick(other->retry);
			free(lost);
			return;
		}
	}
	if (lost_path(lost, path, sizeof(path)) < 0 || retry_create(&cfg, &lost->retry, &err) < 0) {
		SVC_LOG(ERR, "%s: will not be brought back: %s", lost->name, err.text);
		free(lost);
		return;
	}
	LIST_INSERT_HEAD(&recover.list, lost, next);
	retry_kick(lost->retry);
}

static void
on_wake(struct ev_loop *loop, struct ev_async *w, int revents)
{
	struct lost_device *lost;

	(void)loop;
	(void)w;
	(void)revents;
	for (;;) {
		pthread_mutex_lock(&recover.lock);
		lost = STAILQ_FIRST(&recover.news);
		if (lost != NULL)
			STAILQ_REMOVE_HEAD(&recover.news, news_next);
		pthread_mutex_unlock(&recover.lock);
		if (lost == NULL)
			break;
		lost_handle(lost);
	}
}

void
recover_on_lost(void *ctx, const struct vfe_bdf *bdf, const char *why)
{
	struct lost_device *lost = calloc(1, sizeof(*lost));

	(void)ctx;
	if (lost == NULL)
		return;
	lost->bdf = *bdf;
	vfe_bdf_format(bdf, lost->name);
	SVC_LOG(WARNING, "%s: device is lost: %s", lost->name, why);
	pthread_mutex_lock(&recover.lock);
	STAILQ_INSERT_TAIL(&recover.news, lost, news_next);
	pthread_mutex_unlock(&recover.lock);
	ev_async_send(recover.cfg.loop, &recover.wake);
}

int
recover_init(const struct recover_cfg *cfg, struct vfe_error *err)
{
	(void)err;
	recover.cfg = *cfg;
	STAILQ_INIT(&recover.news);
	LIST_INIT(&recover.list);
	ev_async_init(&recover.wake, on_wake);
	ev_async_start(cfg->loop, &recover.wake);
	return 0;
}

void
recover_fini(void)
{
	struct lost_device *lost;

	ev_async_stop(recover.cfg.loop, &recover.wake);
	while ((lost = LIST_FIRST(&recover.list)) != NULL)
		retry_destroy(lost->retry);
	while ((lost = STAILQ_FIRST(&recover.news)) != NULL) {
		STAILQ_REMOVE_HEAD(&recover.news, news_next);
		free(lost);
	}
}
