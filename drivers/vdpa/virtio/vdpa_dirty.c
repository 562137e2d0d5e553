/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Dirty pages of a VF: tracking by the device, merging into the log of the front-end.
 *
 * What happens is a task: a list of stages, each a set of admin commands in flight at the same time
 * or a job on a worker. Tasks run on the reactor, one at a time: those that the state machine of
 * the VF waits for (start, stop, flush), and rounds of merging while the device runs. What fails in
 * a task makes the device untracked (blind), and all memory is marked from then on.
 */

#include "vdpa_dirty.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vdpa_priv.h"

static const uint8_t task_start[] = {
	VDPA_STAGE_ARM, VDPA_STAGE_START, VDPA_STAGE_MERGE, VDPA_STAGE_END};
static const uint8_t task_round[] = {
	VDPA_STAGE_PENDING, VDPA_STAGE_REPORT, VDPA_STAGE_MERGE, VDPA_STAGE_END};
static const uint8_t task_mark[] = {VDPA_STAGE_MERGE, VDPA_STAGE_END};
static const uint8_t task_fail[] = {
	VDPA_STAGE_MERGE, VDPA_STAGE_STOP, VDPA_STAGE_RELEASE, VDPA_STAGE_END};
static const uint8_t task_stop[] = {VDPA_STAGE_STOP, VDPA_STAGE_RELEASE, VDPA_STAGE_END};
static const uint8_t task_flush[] = {VDPA_STAGE_REPORT, VDPA_STAGE_MERGE, VDPA_STAGE_TOLD,
	VDPA_STAGE_STOP, VDPA_STAGE_RELEASE, VDPA_STAGE_END};

static void task_go_on(struct vdpa_vf *vf);

/* --- what is wanted --- */

/* Logging is on, and there is a log and memory to be marked in it. */
static bool
wanted_locked(const struct vdpa_vf *vf)
{
	return (vf->features & VFE_BIT(VFE_VHOST_F_LOG_ALL)) != 0 && vf->dirty.log != NULL &&
	       vf->table != NULL;
}

bool
vdpa_dirty_owed_locked(const struct vdpa_vf *vf)
{
	return wanted_locked(vf) && (vf->dirty.owed || vf->dirty.debt);
}

bool
vdpa_dirty_flush_due_locked(const struct vdpa_vf *vf)
{
	return vf->dirty.phase != VDPA_DIRTY_OFF || vdpa_dirty_owed_locked(vf);
}

static bool
pf_is_same(const struct vdpa_vf *vf)
{
	return !atomic_load(&vf->pf->lost) && vf->pf->admin != NULL &&
	       vf->dirty.generation == vf->pf->generation;
}

static bool
retry_is_due(const struct vdpa_vf *vf)
{
	if (atomic_load(&vf->pf->lost) || vf->pf->admin == NULL)
		return false;
	return vf->dirty.generation != vf->pf->generation || vfe_clock_ns() >= vf->dirty.retry_ns;
}

bool
vdpa_dirty_relays_locked(const struct vdpa_vf *vf)
{
	return wanted_locked(vf) && vf->drive->relays &&
	       (vdpa_globals.dirty_mode == VDPA_DIRTY_AUTO ||
		       vdpa_globals.dirty_mode == VDPA_DIRTY_RELAY);
}

/* The device was prepared without knowing that its rings are to be relayed. */
static bool
relay_is_due_locked(const struct vdpa_vf *vf)
{
	return vf->dirty.phase == VDPA_DIRTY_OFF && vdpa_dirty_relays_locked(vf) &&
	       !vf->relay_planned && !vdpa_shadow_all_locked(vf);
}

/* The same for a device whose rings are relayed: rings change their way only by a restart. */
static enum vdpa_dirty_need
relay_need_locked(const struct vdpa_vf *vf)
{
	const struct vdpa_dirty *d = &vf->dirty;

	if (!wanted_locked(vf)) {
		if (d->phase != VDPA_DIRTY_OFF)
			return VDPA_DIRTY_TRACK;
		return vdpa_shadow_needless_locked(vf) ? VDPA_DIRTY_RESTART : VDPA_DIRTY_NOTHING;
	}
	if (relay_is_due_locked(vf))
		return VDPA_DIRTY_RESTART;
	if (d->phase == VDPA_DIRTY_BLIND)
		return VDPA_DIRTY_NOTHING;
	if (d->phase == VDPA_DIRTY_ON)
		return d->cur != d->log || d->debt ? VDPA_DIRTY_TRACK : VDPA_DIRTY_NOTHING;
	return VDPA_DIRTY_TRACK;
}

enum vdpa_dirty_need
vdpa_dirty_need_locked(const struct vdpa_vf *vf)
{
	const struct vdpa_dirty *d = &vf->dirty;

	if (vf->drive->relays)
		return relay_need_locked(vf);
	if (!wanted_locked(vf))
		return d->phase == VDPA_DIRTY_OFF ? VDPA_DIRTY_NOTHING : VDPA_DIRTY_TRACK;
	switch (d->phase) {
	case VDPA_DIRTY_BLIND:
		return retry_is_due(vf) ? VDPA_DIRTY_TRACK : VDPA_DIRTY_NOTHING;
	case VDPA_DIRTY_ON:
		if (!pf_is_same(vf))
			return VDPA_DIRTY_TRACK;
		if (!vdpa_dirty_plan_covers_table(&d->plan, vf->table, d->log) ||
			(d->plan.mode == VDPA_DIRTY_DIRECT && d->cur != d->log))
			return VDPA_DIRTY_RESTART;
		return d->cur != d->log || d->debt ? VDPA_DIRTY_TRACK : VDPA_DIRTY_NOTHING;
	default:
		return VDPA_DIRTY_TRACK;
	}
}

/* --- statistics, errors --- */

static void
task_failed(struct vdpa_vf *vf, int status, const char *text)
{
	struct vdpa_dirty *d = &vf->dirty;

	if (d->failed)
		return; /* the first one says why */
	d->failed = true;
	d->retry_ns = status == -ENOTSUP ? UINT64_MAX
					 : vfe_deadline_in_ms(vdpa_globals.ms.dirty_retry).at_ns;
	VDPA_LOG(WARNING, mem, vf->name, "dirty pages are not tracked, all memory is marked: %s",
		text[0] != '\0' ? text : strerror(-status));
	pthread_mutex_lock(&vf->lock);
	vdpa_dirty_set_error_locked(vf, text[0] != '\0' ? text : strerror(-status));
	pthread_mutex_unlock(&vf->lock);
}

static void
phase_set(struct vdpa_vf *vf, enum vdpa_dirty_phase phase)
{
	pthread_mutex_lock(&vf->lock);
	vf->dirty.phase = phase;
	pthread_cond_broadcast(&vf->changed);
	pthread_mutex_unlock(&vf->lock);
}

/* --- commands --- */

static struct vdpa_dirty_cmd *
cmd_begin(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(d->cmds); i++) {
		if (!d->cmds[i].busy)
			break;
	}
	assert(i < VFE_ARRAY_SIZE(d->cmds));
	d->cmds[i] = (struct vdpa_dirty_cmd){.vf = vf, .busy = true};
	d->in_flight++;
	return &d->cmds[i];
}

static void
cmd_end(struct vdpa_dirty_cmd *cmd)
{
	cmd->busy = false;
	cmd->vf->dirty.in_flight--;
}

/* @ret is what submitting has returned. */
static void
cmd_submitted(struct vdpa_dirty_cmd *cmd, int ret)
{
	struct vdpa_vf *vf = cmd->vf;

	if (ret < 0) {
		cmd_end(cmd);
		task_failed(vf, ret, "the admin queue takes no command");
	} else {
		vdpa_transit_command(vf);
		vdpa_pf_rearm(vf->pf);
	}
}

static void
cmd_completed(struct vdpa_dirty_cmd *cmd, int status)
{
	struct vdpa_vf *vf = cmd->vf;

	atomic_fetch_add(&vf->pf->commands, 1);
	if (status < 0)
		atomic_fetch_add(&vf->pf->errors, 1);
	if (status == -ETIMEDOUT)
		vf->dirty.doubt = true;
	cmd_end(cmd);
	task_go_on(vf);
}

static void
on_start(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct vdpa_dirty_cmd *cmd = ctx;

	(void)out;
	(void)out_len;
	if (status < 0)
		task_failed(cmd->vf, status, err != NULL ? err->text : "");
	cmd_completed(cmd, status);
}

static void
on_pending(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct vfe_wire_admin_pending_result result;
	struct vdpa_dirty_cmd *cmd = ctx;

	if (status < 0) {
		task_failed(cmd->vf, status, err != NULL ? err->text : "");
	} else {
		assert(out_len == sizeof(result));
		memcpy(&result, out, sizeof(result));
		cmd->vf->dirty.plan.ranges[cmd->range].due = result.bytes != 0;
	}
	cmd_completed(cmd, status);
}

static void report_more(struct vdpa_vf *vf);

static void
on_report(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct vdpa_dirty_cmd *cmd = ctx;
	struct vdpa_dirty *d = &cmd->vf->dirty;

	if (status < 0) {
		task_failed(cmd->vf, status, err != NULL ? err->text : "");
	} else {
		assert(out_len == cmd->len);
		memcpy(d->target->va + d->plan.ranges[cmd->range].map_off + cmd->offset, out,
			out_len);
		report_more(cmd->vf);
	}
	cmd_completed(cmd, status);
}

/* Whatever the device says: it was told, and there is no more to be done. */
static void
on_stop(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct vdpa_dirty_cmd *cmd = ctx;

	(void)out;
	(void)out_len;
	if (status < 0)
		VDPA_LOG(INFO, mem, cmd->vf->name, "end of dirty page tracking: %s",
			err != NULL ? err->text : strerror(-status));
	cmd_completed(cmd, status);
}

/* --- stages of commands; 0 = under way, 1 = nothing to do, or it has failed --- */

static int
stage_start(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	const bool push = !vdpa_dirty_is_pull(d->plan.mode);
	struct vfe_wire_admin_track_start range;
	struct vfe_wire_admin_sge sge;
	struct vdpa_dirty_cmd *cmd;
	unsigned int i;

	static const uint16_t modes[] = {
		[VDPA_DIRTY_DIRECT] = VFE_ADMIN_TRACK_PUSH_BITMAP,
		[VDPA_DIRTY_PUSH_BITMAP] = VFE_ADMIN_TRACK_PUSH_BITMAP,
		[VDPA_DIRTY_PULL_BITMAP] = VFE_ADMIN_TRACK_PULL_BITMAP,
		[VDPA_DIRTY_PUSH_BYTEMAP] = VFE_ADMIN_TRACK_PUSH_BYTEMAP,
		[VDPA_DIRTY_PULL_BYTEMAP] = VFE_ADMIN_TRACK_PULL_BYTEMAP,
	};

	if (d->plan.mode == VDPA_DIRTY_RELAY) {
		d->tracks = true;
		return 1;
	}
	if (!pf_is_same(vf)) {
		task_failed(vf, -ENODEV, "the PF is lost");
		return 1;
	}
	d->tracks = true;
	for (i = 0; i < d->plan.nr_ranges && !d->failed; i++) {
		range = (struct vfe_wire_admin_track_start){
			.mode = modes[d->plan.mode],
			.page_size = VFE_DIRTY_PAGE_SIZE,
			.range_addr = d->plan.ranges[i].addr,
			.range_length = d->plan.ranges[i].len,
		};
		sge = (struct vfe_wire_admin_sge){
			.addr = d->target->iova + d->plan.ranges[i].map_off,
			.len = (uint32_t)d->plan.ranges[i].map_bytes,
		};
		cmd = cmd_begin(vf);
		cmd_submitted(cmd, vfe_admin_track_start(vf->pf->admin, vf->vf_index, &range,
					   push ? &sge : NULL, push ? 1 : 0, on_start, cmd));
	}
	return d->in_flight == 0;
}

static int
stage_pending(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_dirty_cmd *cmd;
	unsigned int i;

	if (!vdpa_dirty_is_pull(d->plan.mode) || d->flush_next)
		return 1;
	if (!pf_is_same(vf)) {
		task_failed(vf, -ENODEV, "the PF is lost");
		return 1;
	}
	for (i = 0; i < d->plan.nr_ranges && !d->failed; i++) {
		cmd = cmd_begin(vf);
		cmd->range = i;
		cmd_submitted(cmd, vfe_admin_track_pending(vf->pf->admin, vf->vf_index,
					   d->plan.ranges[i].addr, on_pending, cmd));
	}
	return d->in_flight == 0;
}

/* As many pieces as may be in flight. */
static void
report_more(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_dirty_range *r;
	struct vdpa_dirty_cmd *cmd;

	while (d->in_flight < VDPA_DIRTY_FLIGHT && !d->failed &&
		d->next_range < d->plan.nr_ranges) {
		r = &d->plan.ranges[d->next_range];
		if (!r->due || d->next_offset == r->map_bytes) {
			d->next_range++;
			d->next_offset = 0;
			continue;
		}
		cmd = cmd_begin(vf);
		cmd->range = d->next_range;
		cmd->offset = d->next_offset;
		cmd->len = r->map_bytes - cmd->offset < VDPA_DIRTY_CHUNK
				   ? r->map_bytes - cmd->offset
				   : VDPA_DIRTY_CHUNK;
		d->next_offset += cmd->len;
		cmd_submitted(cmd, vfe_admin_track_report(vf->pf->admin, vf->vf_index, r->addr,
					   cmd->offset, cmd->len, on_report, cmd));
	}
}

static int
stage_report(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	unsigned int i;
	bool debt;

	pthread_mutex_lock(&vf->lock);
	debt = d->debt; /* all will be marked */
	pthread_mutex_unlock(&vf->lock);
	/* a round that a flush waits for has fetched nothing yet, and the flush will */
	if (!d->tracks || d->blind || debt || !vdpa_dirty_is_pull(d->plan.mode) ||
		(d->flush_next && d->task == task_round)) {
		for (i = 0; i < d->plan.nr_ranges; i++)
			d->plan.ranges[i].due = false;
		return 1;
	}
	if (!pf_is_same(vf)) {
		task_failed(vf, -ENODEV, "the PF is lost");
		return 1;
	}
	d->next_range = 0;
	d->next_offset = 0;
	report_more(vf);
	return d->in_flight == 0;
}

static int
stage_stop(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_dirty_cmd *cmd;
	unsigned int i;
	int rc;

	if (!d->tracks)
		return 1;
	d->tracks = false;
	for (i = 0; i < d->plan.nr_ranges && pf_is_same(vf); i++) {
		cmd = cmd_begin(vf);
		rc = vfe_admin_track_stop(
			vf->pf->admin, vf->vf_index, d->plan.ranges[i].addr, on_stop, cmd);
		if (rc < 0) {
			cmd_end(cmd);
			d->doubt = true;
		} else {
			vdpa_transit_command(vf);
			vdpa_pf_rearm(vf->pf);
		}
	}
	return d->in_flight == 0;
}

/* --- jobs --- */

static int
job_post(struct vdpa_vf *vf, uint8_t stage)
{
	vf->dirty.job.stage = stage;
	vf->dirty.job.err.text[0] = '\0';
	vdpa_worker_post(&vf->dirty.job.run);
	return 0;
}

static int
stage_arm(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;

	d->generation = vf->pf->generation;
	d->doubt = false;
	if (!vf->drive->relays) {
		if (atomic_load(&vf->pf->lost) || vf->pf->admin == NULL) {
			task_failed(vf, -ENODEV, "the PF is lost");
			return 1;
		}
		d->caps = *vfe_admin_caps(vf->pf->admin);
	}
	pthread_mutex_lock(&vf->lock);
	d->job.log = vdpa_log_get(d->log);
	d->job.table = vdpa_table_get(vf->table);
	pthread_mutex_unlock(&vf->lock);
	return job_post(vf, VDPA_STAGE_ARM);
}

/* Is there anything to do in the log? Takes references for the job if so. */
static bool
merge_needed(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_dirty_job *job = &d->job;
	bool needed = false;

	pthread_mutex_lock(&vf->lock);
	if (wanted_locked(vf)) {
		job->stopped = vdpa_vf_halted_locked(vf);
		job->all = d->blind || d->failed || d->debt;
		needed = job->all ||
			 (d->tracks && !vdpa_dirty_is_direct(d->plan.mode) &&
				 d->task != task_start) ||
			 (d->cur != NULL && d->cur != d->log) ||
			 (job->stopped && d->tracks &&
				 !vdpa_dirty_plan_covers_table(&d->plan, vf->table, d->log));
	}
	if (needed) {
		d->debt = false;
		job->log = vdpa_log_get(d->log);
		job->table = vdpa_table_get(vf->table);
	}
	pthread_mutex_unlock(&vf->lock);
	return needed;
}

static int
stage_merge(struct vdpa_vf *vf)
{
	return merge_needed(vf) ? job_post(vf, VDPA_STAGE_MERGE) : 1;
}

/* A log that came while its predecessor was merged into needs another look. */
static int
stage_told(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	bool again;

	pthread_mutex_lock(&vf->lock);
	again = wanted_locked(vf) && (d->debt || (d->cur != NULL && d->cur != d->log));
	if (!again) {
		d->owed = false;
		pthread_cond_broadcast(&vf->changed);
	}
	pthread_mutex_unlock(&vf->lock);
	if (!again)
		return 1;
	d->stage--; /* of task_flush: VDPA_STAGE_MERGE */
	return stage_merge(vf);
}

static int
stage_release(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;

	return d->target == NULL && d->cur == NULL ? 1 : job_post(vf, VDPA_STAGE_RELEASE);
}

static int (*const stages[VDPA_NR_STAGES])(struct vdpa_vf *vf) = {
	[VDPA_STAGE_ARM] = stage_arm,
	[VDPA_STAGE_START] = stage_start,
	[VDPA_STAGE_PENDING] = stage_pending,
	[VDPA_STAGE_REPORT] = stage_report,
	[VDPA_STAGE_MERGE] = stage_merge,
	[VDPA_STAGE_TOLD] = stage_told,
	[VDPA_STAGE_STOP] = stage_stop,
	[VDPA_STAGE_RELEASE] = stage_release,
};

/* --- tasks --- */

static void
task_begin(struct vdpa_vf *vf, const uint8_t *task)
{
	struct vdpa_dirty *d = &vf->dirty;
	unsigned int i;

	d->task = task;
	d->stage = task;
	d->failed = false;
	for (i = 0; i < d->plan.nr_ranges; i++)
		d->plan.ranges[i].due = true;
	vdpa_timer_cancel(&d->timer);
	pthread_mutex_lock(&vf->lock);
	d->idle = false;
	pthread_mutex_unlock(&vf->lock);
	if (stages[*d->stage](vf) == 1)
		task_go_on(vf);
}

/* The device does not track from now on, as far as we know. */
static void
go_blind(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;

	d->blind = true;
	phase_set(vf, VDPA_DIRTY_BLIND);
	d->task = task_fail;
	d->stage = task_fail;
}

/* A stage has ended; the next one of the task, which may be another task now. */
static void
stage_ended(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	const uint8_t stage = *d->stage;

	if (d->failed && (d->task == task_start || d->task == task_round)) {
		go_blind(vf);
		return;
	}
	if (stage == VDPA_STAGE_START) {
		d->blind = false;
		VDPA_LOG(INFO, mem, vf->name, "dirty pages are tracked: %s",
			vdpa_dirty_mode_name(d->plan.mode));
		phase_set(vf, VDPA_DIRTY_ON);
	}
	d->stage++;
}

static void
set_timer(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;

	if (d->phase == VDPA_DIRTY_BLIND)
		vdpa_timer_set(&d->timer, vfe_deadline_in_ms(vdpa_globals.ms.dirty_blind));
	else if (d->phase == VDPA_DIRTY_ON && !vdpa_dirty_is_direct(d->plan.mode))
		vdpa_timer_set(&d->timer, vfe_deadline_in_ms(vdpa_globals.ms.dirty_round));
}

static void
task_end(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	const uint8_t *task = d->task;
	const bool waits = d->machine_waits;

	d->task = NULL;
	d->machine_waits = false;
	pthread_mutex_lock(&vf->lock);
	if (task == task_flush || task == task_stop) {
		d->blind = false;
		d->phase = VDPA_DIRTY_OFF;
	}
	d->idle = true;
	pthread_cond_broadcast(&vf->changed);
	pthread_mutex_unlock(&vf->lock);
	set_timer(vf);
	if (d->flush_next) {
		d->flush_next = false;
		if (vdpa_dirty_flush(vf) == 0)
			return;
	}
	if (waits)
		vdpa_vf_step_done(vf);
	else
		vdpa_vf_post(vf);
}

/* Go on when nothing of the present stage is in flight any more. */
static void
task_go_on(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;

	if (d->in_flight > 0)
		return;
	do {
		stage_ended(vf);
		if (*d->stage == VDPA_STAGE_END) {
			task_end(vf);
			return;
		}
	} while (stages[*d->stage](vf) == 1);
}

static void
job_done(struct vdpa_work *work)
{
	struct vdpa_vf *vf = vfe_container_of(work, struct vdpa_vf, dirty.job.done);
	struct vdpa_dirty *d = &vf->dirty;

	if (d->job.status < 0)
		task_failed(vf, d->job.status, d->job.err.text);
	task_go_on(vf);
}

static void
timer_expired(struct vdpa_timer *timer)
{
	struct vdpa_vf *vf = vfe_container_of(timer, struct vdpa_vf, dirty.timer);
	struct vdpa_dirty *d = &vf->dirty;

	if (d->task != NULL)
		return;
	if (d->phase == VDPA_DIRTY_BLIND)
		task_begin(vf, task_mark);
	else if (d->phase == VDPA_DIRTY_ON)
		task_begin(vf, task_round);
}

/* --- the state machine's side --- */

/* 1 = it has ended already. */
static int
task_begin_for_machine(struct vdpa_vf *vf, const uint8_t *task)
{
	task_begin(vf, task);
	if (vf->dirty.task == NULL)
		return 1;
	vf->dirty.machine_waits = true;
	return 0;
}

int
vdpa_dirty_track(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	const uint8_t *task = NULL;

	if (d->task != NULL) {
		d->machine_waits = true; /* and then it asks again */
		return 0;
	}
	pthread_mutex_lock(&vf->lock);
	if (!wanted_locked(vf)) {
		if (d->phase != VDPA_DIRTY_OFF) {
			d->phase = VDPA_DIRTY_STOPPING;
			d->owed = false;
			task = task_stop;
		}
	} else if (relay_is_due_locked(vf)) {
		vf->seq++; /* it does not start, but is prepared anew */
	} else if (d->phase == VDPA_DIRTY_OFF) {
		d->phase = VDPA_DIRTY_STARTING;
		d->owed = true;
		task = task_start;
	} else if (d->phase == VDPA_DIRTY_BLIND) {
		if (retry_is_due(vf)) {
			d->debt = true; /* what is written until it tracks */
			task = task_start;
		}
	} else if (pf_is_same(vf) || d->plan.mode == VDPA_DIRTY_RELAY) {
		task = task_mark;
	} else {
		vdpa_dirty_set_error_locked(vf, "the PF is lost");
	}
	pthread_mutex_unlock(&vf->lock);
	if (task == NULL && d->phase == VDPA_DIRTY_ON) {
		go_blind(vf);
		task = task_fail;
	}
	return task != NULL ? task_begin_for_machine(vf, task) : 1;
}

int
vdpa_dirty_flush(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;
	bool due;

	if (d->task != NULL) {
		d->machine_waits = true;
		d->flush_next = true;
		return 0;
	}
	pthread_mutex_lock(&vf->lock);
	due = vdpa_dirty_flush_due_locked(vf);
	if (due && d->phase != VDPA_DIRTY_OFF)
		d->phase = VDPA_DIRTY_STOPPING;
	pthread_mutex_unlock(&vf->lock);
	return due ? task_begin_for_machine(vf, task_flush) : 1;
}

void
vdpa_dirty_distrust_locked(struct vdpa_vf *vf)
{
	if (wanted_locked(vf) || vf->dirty.phase != VDPA_DIRTY_OFF)
		vf->dirty.debt = true;
}

void
vdpa_dirty_init(struct vdpa_vf *vf)
{
	struct vdpa_dirty *d = &vf->dirty;

	d->idle = true;
	d->retry_ns = UINT64_MAX;
	d->timer.expired = timer_expired;
	d->job.run.run = vdpa_dirty_job_run;
	d->job.done.run = job_done;
}

void
vdpa_dirty_fini(struct vdpa_vf *vf)
{
	vdpa_work_cancel(&vf->dirty.job.run);
	vdpa_work_cancel(&vf->dirty.job.done);
	vdpa_target_destroy(vf->dirty.target);
	vdpa_log_put(vf->dirty.cur);
	vdpa_log_put(vf->dirty.log);
}

void
vdpa_dirty_detach(struct vdpa_vf *vf)
{
	vdpa_timer_cancel(&vf->dirty.timer);
}

/* --- the front-end's side --- */

/* Tracked, or not running; what it writes from now on gets into the log. */
static bool
covered_locked(const struct vdpa_vf *vf)
{
	return vf->dirty.phase == VDPA_DIRTY_ON || vf->dirty.phase == VDPA_DIRTY_BLIND ||
	       vdpa_vf_halted_locked(vf);
}

/*
 * The front-end begins to copy pages when it gets its answer. What the device writes between that
 * and the begin of tracking would cost a second copy of all memory, so the answer waits a little.
 */
static void
wait_covered(struct vdpa_vf *vf)
{
	const struct timespec at = vfe_deadline_timespec(vfe_deadline_in_ms(VDPA_DIRTY_COVER_MS));

	vdpa_vf_post(vf);
	pthread_mutex_lock(&vf->lock);
	while (wanted_locked(vf) && !covered_locked(vf)) {
		if (pthread_cond_timedwait(&vf->changed, &vf->lock, &at) == ETIMEDOUT)
			break;
	}
	if (!covered_locked(vf))
		vf->dirty.debt = true;
	pthread_mutex_unlock(&vf->lock);
}

void
vdpa_dirty_log_all(struct vdpa_vf *vf, bool on)
{
	struct vdpa_dirty *d = &vf->dirty;

	pthread_mutex_lock(&vf->lock);
	if (on) {
		/* a migration that began without us: who knows what was written before */
		d->debt = d->debt || !d->greeted;
		memset(&d->info, 0, sizeof(d->info));
	} else {
		d->debt = false;
	}
	d->greeted = true;
	pthread_mutex_unlock(&vf->lock);
	if (on)
		wait_covered(vf);
}

/* The handler that calls this is the only one who changes log and table. */
int
vdpa_dirty_set_log(struct vdpa_vf *vf, struct vdpa_log *log, struct vfe_error *err)
{
	uint64_t end = vdpa_table_end(vf->table);
	struct vdpa_dirty *d = &vf->dirty;
	struct vdpa_log *old;

	if (vdpa_log_end(log) < end)
		return vfe_error_set(err, -EINVAL,
			"log of %" PRIu64 " bytes ends at guest address %#" PRIx64
			", memory at %#" PRIx64,
			log->size, vdpa_log_end(log), end);
	pthread_mutex_lock(&vf->lock);
	old = d->log;
	d->log = log;
	/* what the old one had no bits for was not marked anywhere */
	if ((vf->features & VFE_BIT(VFE_VHOST_F_LOG_ALL)) != 0 && old != NULL &&
		vdpa_log_end(old) < end)
		d->debt = true;
	pthread_mutex_unlock(&vf->lock);
	vdpa_log_put(old);
	vdpa_vf_post(vf);
	return 0;
}

void
vdpa_dirty_settle(struct vdpa_vf *vf)
{
	struct vdpa_table *table = NULL;
	struct vdpa_log *log = NULL;

	pthread_mutex_lock(&vf->lock);
	if (vdpa_vf_halted_locked(vf) && vdpa_dirty_owed_locked(vf)) {
		log = vdpa_log_get(vf->dirty.log);
		table = vdpa_table_get(vf->table);
		vf->dirty.debt = false;
		vf->dirty.owed = false;
		vf->dirty.info.all++;
	}
	pthread_mutex_unlock(&vf->lock);
	if (log == NULL)
		return;
	VDPA_LOG(WARNING, mem, vf->name, "the device did not tell its dirty pages, all are marked");
	vdpa_dirty_mark_all(log, table);
	vdpa_table_put(table);
	vdpa_log_put(log);
}

struct vdpa_log *
vdpa_dirty_forget_locked(struct vdpa_vf *vf)
{
	struct vdpa_log *log = vf->dirty.log;

	vf->dirty.log = NULL;
	vf->dirty.debt = false;
	vf->dirty.greeted = false;
	return log;
}

void
vdpa_dirty_info_locked(const struct vdpa_vf *vf, struct vfe_vdpa_dirty_info *ret)
{
	const struct vdpa_dirty *d = &vf->dirty;
	enum vdpa_dirty_mode mode = d->phase == VDPA_DIRTY_BLIND ? VDPA_DIRTY_ALL : d->plan.mode;

	*ret = d->info;
	vfe_str_copy(ret->mode, sizeof(ret->mode),
		d->phase == VDPA_DIRTY_OFF || d->phase == VDPA_DIRTY_STARTING
			? "off"
			: vdpa_dirty_mode_name(mode));
}
