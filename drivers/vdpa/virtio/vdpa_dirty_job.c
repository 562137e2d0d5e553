/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What dirty page tracking does on a worker: memory for the device's map, merging it into the log.
 */

#include "vdpa_dirty.h"

#include <errno.h>
#include <string.h>

#include "vdpa_priv.h"

static bool
is_bytemap(enum vdpa_dirty_mode mode)
{
	return mode == VDPA_DIRTY_PUSH_BYTEMAP || mode == VDPA_DIRTY_PULL_BYTEMAP;
}

void
vdpa_dirty_set_error_locked(struct vdpa_vf *vf, const char *text)
{
	vfe_str_format(vf->dirty.info.last_error, sizeof(vf->dirty.info.last_error), "%.*s",
		(int)sizeof(vf->dirty.info.last_error) - 1, text);
}

/* The first mode of those that are allowed which device, log and memory have. */
static int
job_arm(struct vdpa_vf *vf)
{
	static const uint8_t order[] = {VDPA_DIRTY_DIRECT, VDPA_DIRTY_PUSH_BITMAP,
		VDPA_DIRTY_PULL_BITMAP, VDPA_DIRTY_PUSH_BYTEMAP, VDPA_DIRTY_PULL_BYTEMAP};
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_dirty_job *job = &d->job;
	struct vdpa_dirty_plan *plan = &d->next_plan;
	struct vdpa_log *old;
	unsigned int i;
	int rc = vfe_error_set(&job->err, -ENOTSUP, "the device has no way for this guest");

	for (i = 0; rc < 0 && i < VFE_ARRAY_SIZE(order); i++) {
		if (vdpa_globals.dirty_mode != VDPA_DIRTY_AUTO &&
			vdpa_globals.dirty_mode != order[i])
			continue;
		if (vdpa_dirty_plan(order[i], &d->caps, job->table, job->log, plan) < 0)
			continue;
		if (plan->mode == VDPA_DIRTY_DIRECT)
			rc = vdpa_target_create_log(
				vf->pf, job->log, plan->map_bytes, &d->target, &job->err);
		else
			rc = vdpa_target_create(vdpa_dirty_is_pull(plan->mode) ? NULL : vf->pf,
				plan->map_bytes, &d->target, &job->err);
	}
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&vf->lock);
	d->plan = *plan;
	old = d->cur;
	d->cur = vdpa_log_get(job->log);
	pthread_mutex_unlock(&vf->lock);
	vdpa_log_put(old);
	return 0;
}

/* The rings of a device that does not track are relayed, if they can be. */
static int
job_arm_relay(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_log *old;
	bool relayed;

	pthread_mutex_lock(&vf->lock);
	relayed = vdpa_dirty_relays_locked(vf) && vdpa_shadow_all_locked(vf);
	old = d->cur;
	if (relayed) {
		memset(&d->plan, 0, sizeof(d->plan));
		d->plan.mode = VDPA_DIRTY_RELAY;
		d->cur = vdpa_log_get(d->job.log);
	}
	pthread_mutex_unlock(&vf->lock);
	if (!relayed)
		return vfe_error_set(&d->job.err, -ENOTSUP,
			"there is no PF that could, and the rings cannot be relayed");
	vdpa_log_put(old);
	vdpa_shadow_log(vf, d->job.log);
	return 0;
}

static uint64_t
table_pages(const struct vdpa_table *table)
{
	uint64_t pages = 0;
	unsigned int i;

	for (i = 0; i < table->nr_regions; i++)
		pages += table->regions[i].size / VFE_DIRTY_PAGE_SIZE;
	return pages;
}

void
vdpa_dirty_mark_all(const struct vdpa_log *log, const struct vdpa_table *table)
{
	unsigned int i;

	for (i = 0; i < table->nr_regions; i++)
		vfe_dirty_log_mark(&log->log, table->regions[i].gpa, table->regions[i].size);
}

/* Memory that came while the device ran, and that it does not watch. */
static uint64_t
mark_unwatched(const struct vdpa_dirty_plan *plan, const struct vdpa_log *log,
	const struct vdpa_table *table)
{
	uint64_t pages = 0;
	unsigned int i;

	for (i = 0; i < table->nr_regions; i++) {
		if (vdpa_dirty_plan_covers(plan, &table->regions[i], log))
			continue;
		vfe_dirty_log_mark(&log->log, table->regions[i].gpa, table->regions[i].size);
		pages += table->regions[i].size / VFE_DIRTY_PAGE_SIZE;
	}
	return pages;
}

/* The map of @r, which is at @map, into @log. */
static uint64_t
merge_range(enum vdpa_dirty_mode mode, const struct vdpa_dirty_range *r, uint8_t *map,
	const struct vfe_dirty_log *log)
{
	const uint64_t page = r->addr / VFE_DIRTY_PAGE_SIZE;
	const size_t words = vfe_align_up(r->map_bytes, sizeof(uint64_t)) / sizeof(uint64_t);
	uint64_t *bits = (uint64_t *)(void *)map;

	if (vdpa_dirty_is_pull(mode))
		return is_bytemap(mode) ? vfe_dirty_log_merge_bytes(log, map, r->map_bytes, page)
					: vfe_dirty_log_merge(log, bits, words, page);
	return is_bytemap(mode) ? vfe_dirty_log_take_bytes(log, map, r->map_bytes, page)
				: vfe_dirty_log_take(log, bits, words, page);
}

static uint64_t
merge_map(struct vdpa_dirty *d, const struct vdpa_log *log, uint64_t *ret_bytes)
{
	struct vdpa_dirty_range *r;
	uint64_t pages = 0;
	unsigned int i;

	for (i = 0; i < d->plan.nr_ranges; i++) {
		r = &d->plan.ranges[i];
		if (vdpa_dirty_is_pull(d->plan.mode) && !r->due)
			continue;
		pages += merge_range(d->plan.mode, r, d->target->va + r->map_off, &log->log);
		*ret_bytes += r->map_bytes;
	}
	return pages;
}

/* What is in @old of the guest's memory; the rest of it may be large, and empty. */
static uint64_t
take_table(const struct vdpa_log *log, const struct vdpa_log *old, const struct vdpa_table *table)
{
	const uint64_t word = 64 * VFE_DIRTY_PAGE_SIZE;
	uint64_t first, end, pages = 0;
	unsigned int i;

	for (i = 0; i < table->nr_regions; i++) {
		first = table->regions[i].gpa / word;
		end = (table->regions[i].gpa + table->regions[i].size - 1) / word + 1;
		if (end > old->log.words)
			end = old->log.words;
		if (first < end)
			pages += vfe_dirty_log_take(
				&log->log, &old->log.map[first], end - first, first * 64);
	}
	return pages;
}

/*
 * The front-end may have read the old log for the last time already: what is still in it goes into
 * the new one. One that was truncated has lost what it had.
 */
static uint64_t
take_old_log(struct vdpa_vf *vf, struct vdpa_log *log, bool *lost)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_log *old = d->cur;
	uint64_t pages;

	if (old == log)
		return 0;
	pages = old != NULL ? take_table(log, old, vf->dirty.job.table) : 0;
	*lost = old != NULL && atomic_load(&old->truncated);
	pthread_mutex_lock(&vf->lock);
	d->cur = vdpa_log_get(log);
	pthread_mutex_unlock(&vf->lock);
	vdpa_log_put(old);
	return pages;
}

static int
job_merge(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_dirty_job *job = &d->job;
	struct vdpa_log *log = job->log;
	const bool direct = d->tracks && d->plan.mode == VDPA_DIRTY_DIRECT;
	uint64_t begin = vfe_clock_ns(), bytes = 0, pages = 0;
	bool all = job->all;

	/* before the last look at the old log */
	if (d->tracks && d->plan.mode == VDPA_DIRTY_RELAY)
		vdpa_shadow_log(vf, log);
	/* what the device pushes into stays what it is while it runs */
	if (!direct || job->stopped)
		pages += take_old_log(vf, log, &all);
	all = all || job->all;
	if (d->tracks && !direct && !d->blind)
		pages += merge_map(d, log, &bytes);
	if (all) {
		vdpa_dirty_mark_all(log, job->table);
		pages += table_pages(job->table);
	} else if (job->stopped && d->tracks) {
		pages += mark_unwatched(&d->plan, log, job->table);
	}
	pthread_mutex_lock(&vf->lock);
	d->info.rounds++;
	d->info.pages += pages;
	d->info.map_bytes += bytes;
	d->info.all += all;
	d->info.last_merge_ns = vfe_clock_ns() - begin;
	d->info.merge_ns += d->info.last_merge_ns;
	if (atomic_load(&log->truncated))
		vdpa_dirty_set_error_locked(vf, "the front-end has truncated its log");
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

static int
job_release(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_log *old;

	vdpa_shadow_log(vf, NULL);
	if (d->doubt)
		vdpa_target_abandon(d->target);
	else
		vdpa_target_destroy(d->target);
	d->target = NULL;
	pthread_mutex_lock(&vf->lock);
	old = d->cur;
	d->cur = NULL;
	memset(&d->plan, 0, sizeof(d->plan));
	pthread_mutex_unlock(&vf->lock);
	vdpa_log_put(old);
	return 0;
}

void
vdpa_dirty_job_run(struct vdpa_work *work)
{
	struct vdpa_vf *vf = vfe_container_of(work, struct vdpa_vf, dirty.job.run);
	struct vdpa_dirty_job *job = &vf->dirty.job;

	switch (job->stage) {
	case VDPA_STAGE_ARM:
		job->status = vf->drive->relays ? job_arm_relay(vf) : job_arm(vf);
		break;
	case VDPA_STAGE_MERGE:
		job->status = job_merge(vf);
		break;
	default:
		job->status = job_release(vf);
		break;
	}
	vdpa_log_put(job->log);
	vdpa_table_put(job->table);
	job->log = NULL;
	job->table = NULL;
	vdpa_reactor_post(&job->done);
}
