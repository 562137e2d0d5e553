/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The state machine of a VF: suspend, resume, reconfigure, park, and what happens when that fails.
 *
 * It runs on the reactor. In a stable state it looks at what is wanted (enum goal) and takes an
 *arc; in a transient one it waits for one admin command or one job on a worker. Changes that come
 *while the device is in transit are seen at the next stable state, so many of them make one
 *restart.
 *
 *	IDLE -> QUIESCE -> FREEZE -> FLUSH -> FROZEN
 *	FROZEN -> PREPARE -> RESTORE -> TRACK -> UNQUIESCE -> START -> RUNNING
 *	RUNNING -> QUIESCE ...                (suspend, and the first half of a reconfiguration)
 *	RUNNING -> RINGS -> RUNNING           (some rings change; if that fails: QUIESCE ...)
 *	FROZEN -> PARK -> CLEAN -> FROZEN     (the front-end has gone)
 *	FROZEN -> LOOK -> FROZEN              (parked: no interrupt tells of configuration changes)
 *	any failure -> RESET -> IDLE          (the VF's own registers, when the PF cannot help)
 *
 * Device states: doc/admin-protocol.md; status commands go through QUIESCED in both directions.
 */

#include <errno.h>
#include <string.h>

#include "vdpa_priv.h"

enum goal {
	GOAL_RUN,
	GOAL_STOP,
	GOAL_PARK,
};

struct step {
	const char *name; /* for people */
	/* start what is waited for; 1 = it is done already; NULL in a stable state */
	int (*enter)(struct vdpa_vf *vf);
	enum vdpa_state ok;
	enum vdpa_state fail;
	bool stopped;   /* the device touches no guest memory */
	bool abortable; /* when running is not wanted any more, or differently: back to FROZEN */
};

static int enter_quiesce(struct vdpa_vf *vf);
static int enter_unquiesce(struct vdpa_vf *vf);
static int enter_freeze(struct vdpa_vf *vf);
static int enter_prepare(struct vdpa_vf *vf);
static int enter_restore(struct vdpa_vf *vf);
static int enter_start(struct vdpa_vf *vf);
static int enter_park(struct vdpa_vf *vf);
static int enter_clean(struct vdpa_vf *vf);
static int enter_tend(struct vdpa_vf *vf);
static int enter_track(struct vdpa_vf *vf);
static int enter_flush(struct vdpa_vf *vf);
static int enter_reset(struct vdpa_vf *vf);
static int enter_look(struct vdpa_vf *vf);

/* clang-format off */
static const struct step steps[VDPA_S_NR] = {
	/*			name		enter		ok		fail		stopped abortable */
	[VDPA_S_IDLE] =		{"idle",	NULL,		VDPA_S_IDLE,	VDPA_S_IDLE,	true,	false},
	[VDPA_S_FROZEN] =	{"suspended",	NULL,		VDPA_S_FROZEN,	VDPA_S_FROZEN,	true,	false},
	[VDPA_S_RUNNING] =	{"running",	NULL,		VDPA_S_RUNNING,	VDPA_S_RUNNING,	false,	false},
	[VDPA_S_LOST] =		{"lost",	NULL,		VDPA_S_LOST,	VDPA_S_LOST,	true,	false},
	[VDPA_S_QUIESCE] =	{"suspending",	enter_quiesce,	VDPA_S_FREEZE,	VDPA_S_RESET,	false,	false},
	[VDPA_S_FREEZE] =	{"suspending",	enter_freeze,	VDPA_S_FLUSH,	VDPA_S_RESET,	false,	false},
	[VDPA_S_FLUSH] =	{"suspending",	enter_flush,	VDPA_S_FROZEN,	VDPA_S_FROZEN,	true,	false},
	[VDPA_S_PREPARE] =	{"resuming",	enter_prepare,	VDPA_S_RESTORE,	VDPA_S_FROZEN,	true,	true},
	[VDPA_S_RESTORE] =	{"resuming",	enter_restore,	VDPA_S_TRACK,	VDPA_S_RESET,	true,	true},
	[VDPA_S_TRACK] =	{"resuming",	enter_track,	VDPA_S_UNQUIESCE, VDPA_S_FROZEN, true,	true},
	[VDPA_S_UNQUIESCE] =	{"resuming",	enter_unquiesce, VDPA_S_START,	VDPA_S_RESET,	false,	false},
	[VDPA_S_START] =	{"resuming",	enter_start,	VDPA_S_RUNNING,	VDPA_S_RESET,	false,	false},
	[VDPA_S_PARK] =		{"parking",	enter_park,	VDPA_S_CLEAN,	VDPA_S_RESET,	true,	false},
	[VDPA_S_CLEAN] =	{"parking",	enter_clean,	VDPA_S_FROZEN,	VDPA_S_FROZEN,	true,	false},
	[VDPA_S_CLEAN_LOST] =	{"lost",	enter_clean,	VDPA_S_LOST,	VDPA_S_LOST,	true,	false},
	[VDPA_S_CLEAN_IDLE] =	{"parking",	enter_clean,	VDPA_S_IDLE,	VDPA_S_IDLE,	true,	false},
	[VDPA_S_FLUSH_LOST] =	{"lost",	enter_flush,	VDPA_S_LOST,	VDPA_S_LOST,	true,	false},
	[VDPA_S_FLUSH_IDLE] =	{"parking",	enter_flush,	VDPA_S_IDLE,	VDPA_S_IDLE,	true,	false},
	[VDPA_S_TRACK_RUN] =	{"running",	enter_track,	VDPA_S_RUNNING,	VDPA_S_RUNNING,	false,	false},
	[VDPA_S_TEND] =		{"running",	enter_tend,	VDPA_S_RUNNING,	VDPA_S_RUNNING,	false,	false},
	[VDPA_S_RINGS] =	{"running",	vdpa_rings_enter, VDPA_S_RUNNING, VDPA_S_QUIESCE, false, false},
	[VDPA_S_RESET] =	{"resetting",	enter_reset,	VDPA_S_IDLE,	VDPA_S_LOST,	false,	false},
	[VDPA_S_LOOK] =		{"refreshing",	enter_look,	VDPA_S_FROZEN,	VDPA_S_FROZEN,	true,	false},
	[VDPA_S_LOOK_IDLE] =	{"refreshing",	enter_look,	VDPA_S_IDLE,	VDPA_S_IDLE,	true,	false},
};
/* clang-format on */

static bool
is_look(enum vdpa_state state)
{
	return state == VDPA_S_LOOK || state == VDPA_S_LOOK_IDLE;
}

const char *
vdpa_state_name(const struct vdpa_vf *vf)
{
	if (vf->lost)
		return "lost";
	if (vf->state == VDPA_S_IDLE || is_look(vf->state) ||
		(vf->state == VDPA_S_FROZEN && !vf->guest_blob))
		return "parked";
	return steps[vf->state].name;
}

bool
vdpa_state_runs(enum vdpa_state state)
{
	return state == VDPA_S_RUNNING || state == VDPA_S_TEND || state == VDPA_S_TRACK_RUN ||
	       state == VDPA_S_RINGS;
}

bool
vdpa_vf_runs_locked(const struct vdpa_vf *vf)
{
	return vdpa_state_runs(vf->state);
}

bool
vdpa_vf_halted_locked(const struct vdpa_vf *vf)
{
	return vf->lost || steps[vf->state].stopped;
}

bool
vdpa_vf_stopped_locked(const struct vdpa_vf *vf)
{
	return vdpa_vf_halted_locked(vf) && !vdpa_dirty_owed_locked(vf);
}

void
vdpa_vf_set_error_locked(struct vdpa_vf *vf, const char *text)
{
	snprintf(vf->last_error, sizeof(vf->last_error), "%s", text);
}

/* --- commands and jobs --- */

static void machine_run(struct vdpa_vf *vf);
static void machine_done(struct vdpa_vf *vf, int status, const char *why);

static void
cmd_done(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct vdpa_cmd *cmd = ctx;
	struct vdpa_vf *vf = cmd->vf;

	(void)out;
	(void)out_len;
	atomic_fetch_add(&vf->pf->commands, 1);
	if (status < 0)
		atomic_fetch_add(&vf->pf->errors, 1);
	if (vf->cmd_seq == 0 || cmd->seq != vf->cmd_seq) {
		VDPA_LOG(WARNING, run, vf->name, "completion of a command that is not waited for");
		return;
	}
	vf->cmd_seq = 0;
	machine_done(vf, status, err != NULL ? err->text : "");
	machine_run(vf);
}

/* The slot of the command about to be submitted. */
static struct vdpa_cmd *
cmd_begin(struct vdpa_vf *vf)
{
	struct vdpa_cmd *cmd;

	if (++vf->last_cmd_seq == 0)
		vf->last_cmd_seq = 1;
	vf->cmd_seq = vf->last_cmd_seq;
	cmd = &vf->cmds[vf->cmd_seq % VFE_ARRAY_SIZE(vf->cmds)];
	cmd->vf = vf;
	cmd->seq = vf->cmd_seq;
	return cmd;
}

static int
cmd_end(struct vdpa_vf *vf, int ret)
{
	if (ret < 0) {
		vf->cmd_seq = 0;
		return ret;
	}
	vdpa_transit_command(vf);
	vdpa_pf_rearm(vf->pf);
	return 0;
}

static int
cmd_status(struct vdpa_vf *vf, enum vfe_admin_vf_status status)
{
	if (vf->pf->admin == NULL)
		return -ENODEV;
	return cmd_end(vf, vfe_admin_modify_status(
				   vf->pf->admin, vf->vf_index, status, cmd_done, cmd_begin(vf)));
}

static int
cmd_restore(struct vdpa_vf *vf)
{
	if (vf->pf->admin == NULL)
		return -ENODEV;
	pthread_mutex_lock(&vf->lock);
	vf->guest_blob = true; /* whatever becomes of the command */
	pthread_mutex_unlock(&vf->lock);
	return cmd_end(vf, vfe_admin_restore_state(vf->pf->admin, vf->vf_index, vf->blob,
				   vf->blob_len, cmd_done, cmd_begin(vf)));
}

static int
cmd_quiesce(struct vdpa_vf *vf)
{
	return cmd_status(vf, VFE_ADMIN_VF_QUIESCED);
}

static int
cmd_freeze(struct vdpa_vf *vf)
{
	return cmd_status(vf, VFE_ADMIN_VF_FREEZED);
}

static int
cmd_start(struct vdpa_vf *vf)
{
	return cmd_status(vf, VFE_ADMIN_VF_RUNNING);
}

static int
cmd_park(struct vdpa_vf *vf)
{
	vdpa_vf_blob_parked(vf);
	return cmd_restore(vf);
}

const struct vdpa_drive_ops vdpa_drive_managed = {
	.name = "managed",
	.quiesce = cmd_quiesce,
	.freeze = cmd_freeze,
	.restore = cmd_restore,
	.unquiesce = cmd_quiesce,
	.start = cmd_start,
	.park = cmd_park,
};

static int
enter_quiesce(struct vdpa_vf *vf)
{
	return vf->drive->quiesce(vf);
}

static int
enter_unquiesce(struct vdpa_vf *vf)
{
	return vf->drive->unquiesce(vf);
}

static int
enter_freeze(struct vdpa_vf *vf)
{
	return vf->drive->freeze(vf);
}

static int
enter_start(struct vdpa_vf *vf)
{
	return vf->drive->start(vf);
}

static int
enter_restore(struct vdpa_vf *vf)
{
	return vf->drive->restore(vf);
}

static int
enter_park(struct vdpa_vf *vf)
{
	return vf->drive->park(vf);
}

/* On a worker: what the present state asks for. The state does not change meanwhile. */
static void
job_run(struct vdpa_work *work)
{
	struct vdpa_vf *vf = vfe_container_of(work, struct vdpa_vf, job);
	struct vfe_deadline deadline = vfe_deadline_in_ms(VDPA_STOP_TIMEOUT_MS);

	vf->job_err.text[0] = '\0';
	switch (vf->state) {
	case VDPA_S_PREPARE:
		vf->job_status = vdpa_vf_prepare(vf, &vf->job_err);
		break;
	case VDPA_S_TEND:
		vf->job_status = vdpa_vf_tend(vf, &vf->job_err);
		break;
	case VDPA_S_RINGS:
		vf->job_status = vdpa_rings_change(vf, &vf->job_err);
		break;
	case VDPA_S_LOOK:
	case VDPA_S_LOOK_IDLE:
		vf->job_status = vdpa_vf_look(vf, &vf->job_err);
		break;
	case VDPA_S_QUIESCE:
	case VDPA_S_RESTORE:
	case VDPA_S_START:
	case VDPA_S_PARK:
		vf->job_status = vf->drive->job(vf, &vf->job_err);
		break;
	case VDPA_S_RESET:
		if (vf->drive->job != NULL) {
			vf->job_status = vf->drive->job(vf, &vf->job_err);
			break;
		}
		vf->job_status = vfe_virtio_reset(&vf->vdev, deadline, NULL, &vf->job_err);
		if (vf->job_status == 0)
			vf->job_status = vfe_virtio_status_add(&vf->vdev,
				VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER, &vf->job_err);
		break;
	default:
		vf->job_status = vdpa_vf_clean(vf, &vf->job_err);
		break;
	}
	vdpa_reactor_post(&vf->job_done);
}

static void
job_done(struct vdpa_work *work)
{
	struct vdpa_vf *vf = vfe_container_of(work, struct vdpa_vf, job_done);

	vf->job_flies = false;
	machine_done(vf, vf->job_status, vf->job_err.text);
	machine_run(vf);
}

int
vdpa_vf_job_post(struct vdpa_vf *vf)
{
	vf->job_flies = true;
	vdpa_worker_post(&vf->job);
	return 0;
}

static int
enter_prepare(struct vdpa_vf *vf)
{
	return vdpa_vf_job_post(vf);
}

static int
enter_clean(struct vdpa_vf *vf)
{
	return vdpa_vf_job_post(vf);
}

static int
enter_tend(struct vdpa_vf *vf)
{
	return vdpa_vf_job_post(vf);
}

static int
enter_track(struct vdpa_vf *vf)
{
	return vdpa_dirty_track(vf);
}

static int
enter_flush(struct vdpa_vf *vf)
{
	return vdpa_dirty_flush(vf);
}

static int
enter_reset(struct vdpa_vf *vf)
{
	return vdpa_vf_job_post(vf);
}

static int
enter_look(struct vdpa_vf *vf)
{
	return vdpa_vf_job_post(vf);
}

/* --- decisions --- */

static enum goal
goal_locked(const struct vdpa_vf *vf)
{
	if (vf->needs_clean || vf->removing)
		return GOAL_PARK;
	if (vf->suspend || !vdpa_vf_wants_run_locked(vf) || vf->failed_seq == vf->seq)
		return GOAL_STOP;
	return GOAL_RUN;
}

/*
 * A front-end is there and will start the VF: with QUIESCED and FREEZED behind it, as nothing runs
 * yet, the start of a guest that arrives by migration, and waits for it, is shorter by the two.
 */
static bool
freezes_early_locked(const struct vdpa_vf *vf, enum goal goal)
{
	return goal == GOAL_STOP && vf->vid >= 0 && !vf->suspend && vf->failed_seq != vf->seq;
}

/* A stopped VF that is not to run, at @rest: what is left to do. */
static enum vdpa_state
leftover_locked(
	const struct vdpa_vf *vf, enum vdpa_state clean, enum vdpa_state look, enum vdpa_state rest)
{
	if (vf->needs_clean)
		return clean;
	return vf->config_stale && !vf->guest_blob ? look : rest;
}

/* A VF that runs is to be told something that it learns by a restart, or its rings alone do. */
static enum vdpa_state
retell_locked(const struct vdpa_vf *vf)
{
	return vdpa_rings_suffice_locked(vf) ? VDPA_S_RINGS : VDPA_S_QUIESCE;
}

/* The arc to take from a stable state, or that state itself. */
static enum vdpa_state
next_locked(const struct vdpa_vf *vf)
{
	enum goal goal = goal_locked(vf);
	bool pf_lost = atomic_load(&vf->pf->lost);
	enum vdpa_dirty_need track;

	switch (vf->state) {
	case VDPA_S_IDLE:
		if (vdpa_dirty_flush_due_locked(vf))
			return VDPA_S_FLUSH_IDLE;
		if (!pf_lost && (goal == GOAL_RUN || freezes_early_locked(vf, goal)))
			return VDPA_S_QUIESCE;
		return leftover_locked(vf, VDPA_S_CLEAN_IDLE, VDPA_S_LOOK_IDLE, VDPA_S_IDLE);
	case VDPA_S_FROZEN:
		if (vdpa_dirty_flush_due_locked(vf))
			return VDPA_S_FLUSH;
		if (goal == GOAL_RUN && !pf_lost)
			return VDPA_S_PREPARE;
		if (goal == GOAL_PARK && vf->guest_blob)
			return VDPA_S_PARK;
		return leftover_locked(vf, VDPA_S_CLEAN, VDPA_S_LOOK, VDPA_S_FROZEN);
	case VDPA_S_RUNNING:
		if (goal != GOAL_RUN)
			return VDPA_S_QUIESCE;
		/* with the PF away a restart would stop the guest: it waits */
		if (vf->applied_seq != vf->seq && !pf_lost)
			return retell_locked(vf);
		track = vdpa_dirty_need_locked(vf);
		if (track != VDPA_DIRTY_NOTHING)
			return track == VDPA_DIRTY_TRACK ? VDPA_S_TRACK_RUN : retell_locked(vf);
		return vf->applied_tend_seq != vf->tend_seq ? VDPA_S_TEND : VDPA_S_RUNNING;
	default:
		if (vdpa_dirty_flush_due_locked(vf))
			return VDPA_S_FLUSH_LOST;
		return vf->needs_clean ? VDPA_S_CLEAN_LOST : VDPA_S_LOST;
	}
}

static void
state_set_locked(struct vdpa_vf *vf, enum vdpa_state state)
{
	if (vf->state == state)
		return;
	VDPA_LOG(DEBUG, run, vf->name, "%s -> %s (%d -> %d)", steps[vf->state].name,
		steps[state].name, vf->state, state);
	vdpa_transit_step_locked(vf, state, goal_locked(vf) == GOAL_RUN);
	if (vf->state == VDPA_S_START && state == VDPA_S_RUNNING) {
		if (!vf->ring_failed)
			vf->last_error[0] = '\0';
		vf->ring_failed = false;
		vf->torn = false;
	}
	vf->state = state;
	/* nobody waits for a step half way */
	if (vdpa_vf_halted_locked(vf) || vdpa_vf_runs_locked(vf))
		pthread_cond_broadcast(&vf->changed);
}

/* A start has failed for good, for now: say so, and try again later. */
static void
start_failed_locked(struct vdpa_vf *vf, const char *why)
{
	/*
	 * Without its PF a VF cannot start, nor when it is lost, for which it has the better
	 * reason; the return of either starts it.
	 */
	if (atomic_load(&vf->pf->lost) || vf->lost)
		return;
	vf->failed_seq = vf->seq;
	vdpa_vf_set_error_locked(vf, why);
	if (!vf->needs_clean && vf->vid >= 0)
		vdpa_timer_set(&vf->retry_timer, vfe_deadline_in_ms(vdpa_globals.ms.retry));
}

/* What was waited for has ended. */
static void
machine_done(struct vdpa_vf *vf, int status, const char *why)
{
	const struct step *step = &steps[vf->state];
	enum vdpa_state from = vf->state;
	enum vdpa_state next = status < 0 ? step->fail : step->ok;

	if (from == VDPA_S_RINGS)
		vdpa_rings_done(vf, status, why);
	else if (status < 0)
		VDPA_LOG(WARNING, run, vf->name, "%s failed: %s (%s)", step->name,
			why[0] != '\0' ? why : "no details", strerror(-status));
	if (status < 0 && from == VDPA_S_RESET) {
		vdpa_vf_lost(vf, why); /* machine_run() makes it so */
		return;
	}
	pthread_mutex_lock(&vf->lock);
	if (status < 0 && from != VDPA_S_TEND && from != VDPA_S_RINGS && !is_look(from))
		start_failed_locked(vf, why);
	if (status == 0 && step->abortable &&
		(goal_locked(vf) != GOAL_RUN || vf->applied_seq != vf->seq))
		next = VDPA_S_FROZEN;
	if (status == 0 && (from == VDPA_S_PARK || from == VDPA_S_RESET))
		vf->guest_blob = false;
	if (status == 0 && from == VDPA_S_RESET)
		vdpa_dirty_distrust_locked(vf);
	state_set_locked(vf, next);
	pthread_mutex_unlock(&vf->lock);

	if (from == VDPA_S_START && next == VDPA_S_RUNNING) {
		/* kicks and interrupts of the time between are made up for */
		atomic_store(&vf->running, true);
		vdpa_vf_kick_all(vf);
		/*
		 * Its configuration may have changed while no interrupt could tell. Reading it
		 * takes longer than all of the start, so others shall have started as well.
		 */
		vdpa_timer_set(&vf->refresh_timer, vfe_deadline_in_ms(vdpa_globals.ms.refresh));
	}
}

static bool
in_flight(const struct vdpa_vf *vf)
{
	return vf->held || vf->cmd_seq != 0 || vf->job_flies || vf->dirty.machine_waits;
}

/* The transport has failed, and nothing is in flight any more. */
static void
machine_become_lost(struct vdpa_vf *vf)
{
	char why[sizeof(vf->last_error)];

	vdpa_watch_remove(&vf->lost_watch);
	vdpa_watch_remove(&vf->config_watch);
	pthread_mutex_lock(&vf->lock);
	vf->torn = vf->torn || !steps[vf->state].stopped;
	state_set_locked(vf, VDPA_S_LOST);
	vdpa_dirty_distrust_locked(vf);
	vf->guest_blob = false;
	memcpy(why, vf->last_error, sizeof(why));
	pthread_mutex_unlock(&vf->lock);
	VDPA_LOG(ERR, dev, vf->name, "lost: %s", why);
	if (vdpa_globals.on_lost != NULL)
		vdpa_globals.on_lost(vdpa_globals.ctx, &vf->bdf, why);
}

/* Nothing is under way any more: who has asked for the configuration gets what is there. */
static void
machine_rests(struct vdpa_vf *vf)
{
	bool asked;

	pthread_mutex_lock(&vf->lock);
	asked = vf->config_asked;
	vf->config_asked = false;
	pthread_mutex_unlock(&vf->lock);
	if (asked && vdpa_globals.on_refreshed != NULL)
		vdpa_globals.on_refreshed(vdpa_globals.ctx);
}

static void
machine_run(struct vdpa_vf *vf)
{
	enum vdpa_state next;
	int ret;

	while (!in_flight(vf)) {
		pthread_mutex_lock(&vf->lock);
		if (vf->lost && vf->state != VDPA_S_LOST && vf->state != VDPA_S_CLEAN_LOST &&
			vf->state != VDPA_S_FLUSH_LOST) {
			pthread_mutex_unlock(&vf->lock);
			machine_become_lost(vf);
			continue;
		}
		if (vf->state < VDPA_S_NR_STABLE) {
			next = next_locked(vf);
			if (next == vf->state) {
				vdpa_transit_rest_locked(vf);
				pthread_mutex_unlock(&vf->lock);
				break;
			}
			state_set_locked(vf, next);
		}
		pthread_mutex_unlock(&vf->lock);
		if (vf->state < VDPA_S_NR_STABLE)
			continue; /* one stable state after another, by a completion */
		if (!vdpa_state_runs(vf->state))
			atomic_store(&vf->running, false);
		ret = steps[vf->state].enter(vf);
		if (ret < 0)
			machine_done(vf, ret, "the admin queue takes no command");
		else if (ret > 0)
			machine_done(vf, 0, "");
	}
	vdpa_vf_relay_sync(vf);
	vdpa_slave_sync(vf);
	if (!in_flight(vf))
		machine_rests(vf);
}

void
vdpa_vf_step_done(struct vdpa_vf *vf)
{
	machine_done(vf, 0, "");
	machine_run(vf);
}

/* --- timers and posts --- */

static void
suspend_expired(struct vdpa_timer *timer)
{
	struct vdpa_vf *vf = vfe_container_of(timer, struct vdpa_vf, suspend_timer);

	vdpa_vf_suspend_check(vf);
	machine_run(vf);
}

static void
retry_expired(struct vdpa_timer *timer)
{
	struct vdpa_vf *vf = vfe_container_of(timer, struct vdpa_vf, retry_timer);

	pthread_mutex_lock(&vf->lock);
	vf->failed_seq = 0;
	pthread_mutex_unlock(&vf->lock);
	machine_run(vf);
}

void
vdpa_vf_config_stale(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&vf->lock);
	vf->config_stale = true;
	vf->tend_seq++;
	pthread_mutex_unlock(&vf->lock);
	vdpa_vf_post(vf);
}

static void
refresh_expired(struct vdpa_timer *timer)
{
	vdpa_vf_config_stale(vfe_container_of(timer, struct vdpa_vf, refresh_timer));
}

static void
step_run(struct vdpa_work *work)
{
	struct vdpa_vf *vf = vfe_container_of(work, struct vdpa_vf, step);

	vdpa_vf_suspend_check(vf);
	machine_run(vf);
}

bool
vdpa_vf_hold(struct vdpa_vf *vf)
{
	bool free;

	pthread_mutex_lock(&vf->lock);
	free = vf->vid < 0 && !vf->lost && !vf->needs_clean && !vf->guest_blob &&
	       (vf->state == VDPA_S_IDLE || vf->state == VDPA_S_FROZEN);
	pthread_mutex_unlock(&vf->lock);
	free = free && !in_flight(vf);
	vf->held = vf->held || free;
	return free;
}

void
vdpa_vf_release(struct vdpa_vf *vf)
{
	vf->held = false;
	pthread_mutex_lock(&vf->lock);
	/* whatever its status is now, the way from here is the one after a reset */
	state_set_locked(vf, VDPA_S_IDLE);
	pthread_mutex_unlock(&vf->lock);
	machine_run(vf);
}

void
vdpa_vf_look_wait(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&vf->lock);
	while (is_look(vf->state))
		pthread_cond_wait(&vf->changed, &vf->lock);
	pthread_mutex_unlock(&vf->lock);
}

void
vdpa_vf_machine_init(struct vdpa_vf *vf)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&vf->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vf->changed, &attr);
	pthread_condattr_destroy(&attr);
	vf->step.run = step_run;
	vf->job.run = job_run;
	vf->job_done.run = job_done;
	vdpa_dirty_init(vf);
	vf->suspend_timer.expired = suspend_expired;
	vf->retry_timer.expired = retry_expired;
	vf->refresh_timer.expired = refresh_expired;
	vf->lost_watch.fd = -1;
	vf->config_watch.fd = -1;
	vf->config_fd = -1;
	vf->new_slave_fd = -1;
	vf->conn_fd = -1;
	vf->vid = -1;
	vf->state = VDPA_S_IDLE;
	vf->seq = 1;
}

void
vdpa_vf_post(struct vdpa_vf *vf)
{
	vdpa_reactor_post(&vf->step);
}

void
vdpa_vf_lost(struct vdpa_vf *vf, const char *why)
{
	bool first;

	atomic_store(&vf->running, false);
	/*
	 * No mapping that goes away keeps it from memory. Before anybody can see that it is lost,
	 * and whoever was the first to say so: the caller may unmap memory.
	 */
	if (vf->physical)
		vfe_pci_set_master(vf->pci, false, NULL);
	pthread_mutex_lock(&vf->lock);
	first = !vf->lost;
	if (first)
		vdpa_vf_set_error_locked(vf, why);
	vf->lost = true;
	pthread_cond_broadcast(&vf->changed);
	pthread_mutex_unlock(&vf->lock);
	if (!first)
		return;
	vfe_pci_abort(vf->pci);
	vdpa_vf_post(vf);
}
