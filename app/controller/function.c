/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * One emulated PCI function: what its driver's register writes lead to, and the life of its queues.
 */

#include "function.h"

#include "admin.h"
#include "dirty.h"
#include "migrate.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
is_admin_queue(const struct function *fn, uint16_t qid)
{
	return fn->admin != NULL && qid == fn->admin_qid;
}

bool
function_queues_running(const struct function *fn)
{
	uint16_t i;

	for (i = 0; i < vfe_vdev_nr_queues(fn->vdev); i++) {
		if (fn->queues[i].started)
			return true;
	}
	return false;
}

static int
queue_start(struct function *fn, uint16_t qid, struct vfe_error *err)
{
	const struct vfe_vdev_queue *regs = vfe_vdev_queue(fn->vdev, qid);
	struct function_queue *q = &fn->queues[qid];
	const struct dp_queue_cfg cfg = {
		.ring =
			{
				.size = regs->size,
				.desc = regs->desc,
				.driver = regs->driver,
				.device = regs->device,
				.last_avail_idx = q->avail,
				.last_used_idx = q->used,
				.features = vfe_vdev_driver_features(fn->vdev),
			},
		.kick_fd = function_kick_fd(fn, qid),
		.call_fd = vfe_vdev_queue_fd(fn->vdev, qid),
	};
	int rc;

	if (is_admin_queue(fn, qid))
		rc = admin_queue_start(fn->admin, &cfg, fn->map, err);
	else
		rc = fn->type->queue_start(fn, qid, &cfg, err);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "queue %u", qid);
	q->started = true;
	return 0;
}

static void
queue_stop(struct function *fn, uint16_t qid)
{
	struct function_queue *q = &fn->queues[qid];

	if (!q->started)
		return;
	if (is_admin_queue(fn, qid))
		admin_queue_stop(fn->admin, &q->avail, &q->used);
	else
		fn->type->queue_stop(fn, qid, &q->avail, &q->used);
	q->started = false;
}

/* Take nothing more from @qid. True when nothing of it is in flight. */
static bool
queue_drain(struct function *fn, uint16_t qid)
{
	return !fn->queues[qid].started || is_admin_queue(fn, qid) ||
	       fn->type->queue_drain == NULL || fn->type->queue_drain(fn, qid);
}

static void
queue_kick(struct function *fn, uint16_t qid)
{
	if (!fn->queues[qid].started)
		return;
	if (is_admin_queue(fn, qid))
		admin_queue_kick(fn->admin);
	else
		fn->type->queue_kick(fn, qid);
}

/* Start those that are enabled. */
static int
queues_start(struct function *fn, struct vfe_error *err)
{
	uint16_t i, n = vfe_vdev_nr_queues(fn->vdev);
	int rc = 0;

	if (fn->type->queues_hold != NULL)
		fn->type->queues_hold(fn);
	for (i = 0; i < n && rc == 0; i++) {
		if (vfe_vdev_queue(fn->vdev, i)->enabled && !fn->queues[i].started)
			rc = queue_start(fn, i, err);
	}
	/* doorbells may have been rung before: look at each ring once */
	for (i = 0; i < n && rc == 0; i++)
		queue_kick(fn, i);
	if (fn->type->queues_release != NULL)
		fn->type->queues_release(fn);
	return rc;
}

int
function_queues_start(struct function *fn, struct vfe_error *err)
{
	int rc;

	fn->waits = false;
	rc = function_map_update(fn, err);
	if (rc == 0)
		rc = fn->type->prepare(fn, err);
	if (rc == 0)
		rc = queues_start(fn, err);
	if (rc < 0)
		function_queues_stop(fn);
	return rc;
}

static void reset_go_on(struct function *fn);
static void queue_reset_finish(struct function *fn, uint16_t qid);

/* All queues are stopped: what was waiting for that? */
static void
goal_reached(struct function *fn)
{
	enum function_goal goal = fn->goal;
	bool lost = fn->lost;

	fn->goal = FUNCTION_GOAL_NONE;
	fn->lost = false;
	if (lost && goal != FUNCTION_GOAL_RESET && vfe_vdev_live(fn->vdev)) {
		vfe_error_set(&fn->last_error, 0, "the back end did not give back all requests");
		app_log_limited(&fn->log_limit, APP_LOG_WARN, "%s: needs a reset: %s", fn->name,
			fn->last_error.text);
		vfe_vdev_needs_reset(fn->vdev);
	}
	if (goal == FUNCTION_GOAL_RESET)
		reset_go_on(fn);
	else if (goal == FUNCTION_GOAL_STOP)
		migrate_stopped(fn, lost ? -EIO : 0);
}

bool
function_queues_drain(struct function *fn)
{
	bool drained = true;
	uint16_t i;

	for (i = 0; i < vfe_vdev_nr_queues(fn->vdev); i++) {
		if (!queue_drain(fn, i))
			drained = false;
	}
	return drained;
}

void
function_queues_resume(struct function *fn)
{
	uint16_t i;

	for (i = 0; i < vfe_vdev_nr_queues(fn->vdev); i++) {
		if (fn->queues[i].started && !is_admin_queue(fn, i) &&
			fn->type->queue_resume != NULL)
			fn->type->queue_resume(fn, i);
	}
}

void
function_queues_stop(struct function *fn)
{
	bool running = function_queues_running(fn);
	uint16_t i;

	if (fn->type->settle != NULL && running)
		fn->type->settle(fn);
	if (fn->type->queues_hold != NULL && running)
		fn->type->queues_hold(fn);
	/* in reverse, so that no transmit queue runs while its receive queue is gone already */
	for (i = vfe_vdev_nr_queues(fn->vdev); i > 0; i--)
		queue_stop(fn, (uint16_t)(i - 1));
	if (fn->type->queues_release != NULL && running)
		fn->type->queues_release(fn);
	goal_reached(fn);
}

void
function_on_drained(void *ctx, uint16_t qid)
{
	struct function *fn = ctx;

	if (vfe_vdev_queue(fn->vdev, qid)->resetting && queue_drain(fn, qid))
		queue_reset_finish(fn, qid);
	if (fn->goal != FUNCTION_GOAL_NONE && function_queues_drain(fn))
		function_queues_stop(fn);
}

void
function_fail(struct function *fn, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fn->last_error.text, sizeof(fn->last_error.text), fmt, ap);
	va_end(ap);
	app_log_limited(&fn->log_limit, APP_LOG_WARN, "%s: needs a reset: %s", fn->name,
		fn->last_error.text);
	function_queues_stop(fn);
	fn->waits = false;
	vfe_vdev_needs_reset(fn->vdev);
}

void
function_on_broken(void *ctx, uint16_t qid, const char *why)
{
	struct function *fn = ctx;

	function_check_memory(fn);
	/* a queue that was stopped meanwhile is not a problem any more */
	if (fn->queues[qid].started)
		function_fail(fn, "%s", why);
}

/*
 * The admin queue of the vendor dialect follows the data queues directly. A driver that takes the
 * control queue, which has that place by the standard, finds the admin queue behind it.
 */
static void
set_layout(struct function *fn, uint64_t features)
{
	const uint64_t ctrl = VFE_BIT(VFE_NET_F_CTRL_VQ) | VFE_BIT(VFE_NET_F_MQ);
	uint16_t data = fn->type->nr_data_queues(fn);
	uint16_t others = data;

	if (fn->admin == NULL)
		return;
	if (fn->type->layout != NULL) {
		fn->type->layout(fn, features, &others, &fn->admin_qid);
		vfe_vdev_set_layout(fn->vdev, others, fn->admin_qid);
		return;
	}
	if ((features & VFE_BIT(VFE_NET_F_CTRL_VQ)) != 0 &&
		(data == 2 || (features & ctrl) == ctrl))
		others++;
	fn->admin_qid = others;
	vfe_vdev_set_layout(fn->vdev, others, others);
}

/* --- what the driver writes to registers --- */

static int
on_features_ok(void *ctx, uint64_t features)
{
	struct function *fn = ctx;
	struct vfe_error err;
	int rc = fn->type->set_features(fn, features, &err);

	if (rc < 0) {
		app_log_limited(&fn->log_limit, APP_LOG_WARN, "%s: features 0x%llx refused: %s",
			fn->name, (unsigned long long)features, err.text);
		return rc;
	}
	set_layout(fn, features);
	return 0;
}

static void
on_driver_ok(void *ctx)
{
	struct function *fn = ctx;
	struct vfe_error err;

	fn->last_error.text[0] = '\0';
	if (fn->internal == VFE_ADMIN_VF_INIT)
		fn->internal = VFE_ADMIN_VF_RUNNING;
	log_debug("%s: driver is ready, features 0x%llx, internal status %u", fn->name,
		(unsigned long long)vfe_vdev_driver_features(fn->vdev), fn->internal);
	if (fn->internal != VFE_ADMIN_VF_RUNNING)
		return;
	if (function_queues_start(fn, &err) < 0)
		function_fail(fn, "%s", err.text);
}

static void
reset_finish(struct function *fn)
{
	vfe_vdev_reset_done(fn->vdev);
	set_layout(fn, 0);
	log_debug("%s: reset", fn->name);
}

static void
on_reset_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	reset_finish(vfe_container_of(timer, struct function, reset_timer));
}

static void
on_goal_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct function *fn = vfe_container_of(timer, struct function, goal_timer);

	(void)loop;
	(void)revents;
	if (fn->goal != FUNCTION_GOAL_STOP)
		return;
	app_log_limited(&fn->log_limit, APP_LOG_WARN,
		"%s: cannot stop: the back end has not given back all requests in time", fn->name);
	fn->goal = FUNCTION_GOAL_NONE;
	function_queues_resume(fn);
	migrate_stopped(fn, -ETIMEDOUT);
}

/* The device keeps its old status for the driver until the back end has given back all requests. */
static void
on_reset(void *ctx)
{
	struct function *fn = ctx;

	if (fn->goal == FUNCTION_GOAL_STOP)
		migrate_stopped(fn, -EAGAIN);
	fn->goal = FUNCTION_GOAL_RESET;
	if (function_queues_drain(fn))
		function_queues_stop(fn);
}

static void
reset_go_on(struct function *fn)
{
	uint16_t i;

	/* tracking is the PF's business: it goes with the PF, not with the VF */
	for (i = 0; fn->vfs != NULL && i < fn->cfg->nr_vfs; i++)
		dirty_stop_all(&fn->vfs[i]);
	fn->waits = false;
	memset(fn->queues, 0, vfe_vdev_nr_queues(fn->vdev) * sizeof(*fn->queues));
	fn->type->reset(fn);
	migrate_reset(fn);
	vfe_vdev_set_quiet(fn->vdev, false);
	if (fn->env->config->reset_latency_us == 0) {
		reset_finish(fn);
		return;
	}
	ev_timer_set(&fn->reset_timer, fn->env->config->reset_latency_us / 1e6, 0.);
	ev_timer_start(fn->env->loop, &fn->reset_timer);
}

static void
on_queue_enable(void *ctx, uint16_t qid)
{
	struct function *fn = ctx;
	struct vfe_error err;

	fn->queues[qid] = (struct function_queue){0};
	if (!vfe_vdev_live(fn->vdev) || fn->internal != VFE_ADMIN_VF_RUNNING ||
		fn->goal != FUNCTION_GOAL_NONE)
		return;
	if (function_queues_start(fn, &err) < 0)
		function_fail(fn, "%s", err.text);
}

static void
queue_reset_finish(struct function *fn, uint16_t qid)
{
	queue_stop(fn, qid);
	fn->queues[qid] = (struct function_queue){0};
	vfe_vdev_queue_reset_done(fn->vdev, qid);
}

static void
on_queue_reset(void *ctx, uint16_t qid)
{
	struct function *fn = ctx;

	if (queue_drain(fn, qid))
		queue_reset_finish(fn, qid);
}

static void
on_config_write(void *ctx, uint32_t off, const void *buf, uint32_t len)
{
	struct function *fn = ctx;

	if (fn->type->config_write != NULL)
		fn->type->config_write(fn, off, buf, len);
}

static void
on_queue_notify(void *ctx, uint16_t qid)
{
	queue_kick(ctx, qid);
}

/* Queues of the control thread ask for their eventfd each time. */
static void
on_queue_vector(void *ctx, uint16_t qid)
{
	struct function *fn = ctx;

	if (fn->queues[qid].started && !is_admin_queue(fn, qid))
		fn->type->queue_set_call(fn, qid, vfe_vdev_queue_fd(fn->vdev, qid));
}

static const struct vfe_vdev_ops vdev_ops = {
	.features_ok = on_features_ok,
	.driver_ok = on_driver_ok,
	.reset = on_reset,
	.queue_enable = on_queue_enable,
	.queue_reset = on_queue_reset,
	.queue_notify = on_queue_notify,
	.queue_vector = on_queue_vector,
	.config_write = on_config_write,
};

/* --- life --- */

/* Parts that every type has in common: SR-IOV and the admin queue of a PF. */
static void
fill_pf_cfg(struct function *fn, struct vfe_vdev_cfg *cfg)
{
	const struct config_function *vf;
	uint16_t vf_queues;

	if (fn->cfg->nr_vfs == 0)
		return;
	vf = &fn->cfg->vfs[0];
	vf_queues = config_nr_queues(vf);
	cfg->sriov = (struct vfe_vdev_sriov){
		.total_vfs = fn->cfg->nr_vfs,
		.first_vf_offset = fn->cfg->first_vf_offset,
		.vf_stride = fn->cfg->vf_stride,
		.vf_bar_size = vfe_vdev_bar_size_for(vf_queues, vf->num_msix),
	};
	if (fn->cfg->blk.no_admin_q)
		return;
	cfg->features |= VFE_BIT(VFE_ADMIN_F_VQ) | VFE_BIT(VFE_ADMIN_F_MIGRATION);
	if (fn->type->set_watch != NULL)
		cfg->features |= dirty_features(fn->env->config->dirty_modes);
	cfg->nr_queues++;
	cfg->num_queues = fn->type->nr_data_queues(fn);
	cfg->admin_index = cfg->num_queues;
}

static int
create_vdev(struct function *fn, struct vfe_error *err)
{
	struct vfe_vdev_cfg cfg = {
		.pci_device_id = fn->type->pci_device_id,
		.pci_class = fn->type->pci_class,
		.features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM),
		.admin_index = VFE_VDEV_NO_ADMIN_QUEUE,
		.queue_size = (uint16_t)fn->env->config->queue_size,
		.nr_vectors = fn->cfg->num_msix,
		.ops = &vdev_ops,
		.ctx = fn,
		.signaller = &fn->env->signaller,
	};
	int rc = fn->type->create(fn, &cfg, err);

	if (rc < 0)
		return rc;
	fill_pf_cfg(fn, &cfg);
	fn->admin_qid = cfg.admin_index;
	fn->queues = calloc(cfg.nr_queues, sizeof(*fn->queues));
	if (fn->queues == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u queues", cfg.nr_queues);
	return vfe_vdev_create(&cfg, &fn->vdev, err);
}

int
function_create(struct function *fn, struct function_env *env, const struct config_function *cfg,
	struct function *pf, struct vfe_error *err)
{
	int rc;

	fn->env = env;
	fn->cfg = cfg;
	fn->pf = pf;
	fn->type = cfg->type == CONFIG_BLK ? &blk_type : &net_type;
	fn->notify_fd = -1;
	fn->log_limit = (struct app_log_limit){.burst = 5, .interval_ms = 10000};
	fn->client_limit = (struct app_log_limit){.burst = 10, .interval_ms = 10000};
	ev_init(&fn->reset_timer, on_reset_timer);
	ev_init(&fn->goal_timer, on_goal_timer);
	vfe_bdf_format(&cfg->bdf, fn->name);

	rc = create_vdev(fn, err);
	if (rc == 0 && cfg->nr_vfs > 0 && !cfg->blk.no_admin_q)
		rc = admin_create(fn, &fn->admin, err);
	if (rc == 0)
		rc = function_vfu_create(fn, err);
	if (rc < 0) {
		function_destroy(fn);
		return vfe_error_prefix(err, rc, "%s", vfe_bdf_format(&cfg->bdf, fn->name));
	}
	return 0;
}

void
function_destroy(struct function *fn)
{
	if (fn->env == NULL)
		return;
	ev_timer_stop(fn->env->loop, &fn->reset_timer);
	ev_timer_stop(fn->env->loop, &fn->goal_timer);
	fn->goal = FUNCTION_GOAL_NONE;
	if (fn->vdev != NULL)
		function_queues_stop(fn);
	function_vfu_destroy(fn);
	admin_destroy(fn->admin);
	fn->admin = NULL;
	dirty_destroy(fn);
	fn->type->destroy(fn);
	vfe_iova_map_free(fn->map);
	fn->map = NULL;
	migrate_reset(fn);
	vfe_vdev_destroy(fn->vdev);
	fn->vdev = NULL;
	free(fn->queues);
	free(fn->dmas);
	fn->queues = NULL;
	fn->dmas = NULL;
	fn->env = NULL;
}
