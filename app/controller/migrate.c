/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Migration of a VF: its internal status, saving and restoring its state.
 */

#include "migrate.h"

#include "admin.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum arc {
	ILLEGAL,
	STAY, /* nothing to do */
	MARK, /* another name, nothing moves */
	STOP, /* drain all queues and keep quiet */
	RUN,  /* start them where they left off */
};

/*
 * Rows: from; columns: to. Steps go to a neighbour (doc/admin-protocol.md). QUIESCED may be asked
 * for at any time by a driver that has forgotten what it did before its restart. Only a reset leads
 * back to INIT.
 */
static const enum arc arcs[4][4] = {
	/*                        INIT     RUNNING  QUIESCED FREEZED */
	[VFE_ADMIN_VF_INIT] = {STAY, RUN, STOP, ILLEGAL},
	[VFE_ADMIN_VF_RUNNING] = {ILLEGAL, STAY, STOP, ILLEGAL},
	[VFE_ADMIN_VF_QUIESCED] = {ILLEGAL, RUN, STAY, MARK},
	[VFE_ADMIN_VF_FREEZED] = {ILLEGAL, ILLEGAL, MARK, STAY},
};

static const char *const names[] = {"INIT", "RUNNING", "QUIESCED", "FREEZED"};

const char *
migrate_status_name(enum vfe_admin_vf_status status)
{
	return (size_t)status < VFE_ARRAY_SIZE(names) ? names[status] : "?";
}

static void
blob_free(struct function_blob *blob)
{
	free(blob->data);
	*blob = (struct function_blob){0};
}

static int
run(struct function *vf, struct vfe_error *err)
{
	int rc;

	if (vf->restore.data != NULL)
		return vfe_error_set(err, -EPERM,
			"the restored state is not complete: %zu bytes so far", vf->restore.len);
	/* interrupts first: starting looks at the rings, which may want to signal */
	vfe_vdev_set_quiet(vf->vdev, false);
	if (!vfe_vdev_live(vf->vdev))
		return 0;
	vf->last_error.text[0] = '\0';
	rc = function_queues_start(vf, err);
	if (rc < 0) {
		vfe_vdev_set_quiet(vf->vdev, vf->internal != VFE_ADMIN_VF_INIT);
		return rc;
	}
	if (vf->restored && vf->type->resumed != NULL)
		vf->type->resumed(vf);
	vf->restored = false;
	return 0;
}

static void
set_internal(struct function *vf, enum vfe_admin_vf_status to)
{
	log_debug("%s: internal status %s -> %s", vf->name, names[vf->internal], names[to]);
	vf->internal = to;
}

/* All ways that stop lead to QUIESCED. */
static void
stopped(struct function *vf)
{
	vf->waits = false;
	vfe_vdev_set_quiet(vf->vdev, true);
	set_internal(vf, VFE_ADMIN_VF_QUIESCED);
}

static int
stop(struct function *vf)
{
	if (function_queues_drain(vf)) {
		function_queues_stop(vf);
		stopped(vf);
		return 0;
	}
	vf->goal = FUNCTION_GOAL_STOP;
	ev_timer_set(&vf->goal_timer, vf->env->config->drain_timeout_ms / 1e3, 0.);
	ev_timer_start(vf->env->loop, &vf->goal_timer);
	return -EINPROGRESS;
}

void
migrate_stopped(struct function *vf, int rc)
{
	ev_timer_stop(vf->env->loop, &vf->goal_timer);
	if (rc == 0)
		stopped(vf);
	if (vf->pf != NULL && vf->pf->admin != NULL)
		admin_stopped(vf->pf->admin, vf, rc);
}

int
migrate_set_status(struct function *vf, uint16_t to, struct vfe_error *err)
{
	int rc = 0;

	if (to >= VFE_ARRAY_SIZE(arcs))
		return vfe_error_set(err, -EINVAL, "internal status %u, expected 0 to 3", to);
	if (vf->goal == FUNCTION_GOAL_STOP)
		return to == VFE_ADMIN_VF_QUIESCED
			       ? -EINPROGRESS
			       : vfe_error_set(err, -EAGAIN, "it is just being stopped");
	switch (arcs[vf->internal][to]) {
	case ILLEGAL:
		return vfe_error_set(err, -EPERM, "internal status %s cannot become %s",
			names[vf->internal], names[to]);
	case STAY:
		return 0;
	case MARK:
		break;
	case STOP:
		return stop(vf);
	case RUN:
		rc = run(vf, err);
		break;
	}
	if (rc < 0)
		return rc;
	set_internal(vf, (enum vfe_admin_vf_status)to);
	return 0;
}

/* --- save --- */

static void
save_queue(const struct function *vf, uint16_t qid, struct vfe_state_queue *q)
{
	const struct vfe_vdev_queue *regs = vfe_vdev_queue(vf->vdev, qid);
	const struct function_queue *run_state = &vf->queues[qid];

	q->present = true;
	q->size = regs->size;
	q->msix_vector = regs->msix_vector;
	q->enable = regs->enabled;
	q->reset = regs->resetting;
	q->notify_off = qid;
	q->notify_data = qid;
	q->desc = regs->desc;
	q->driver = regs->driver;
	q->device = regs->device;
	/* of a running queue there is no moment at which the indices are true */
	q->has_run = !run_state->started;
	q->last_avail_idx = run_state->avail;
	q->last_used_idx = run_state->used;
}

int64_t
migrate_snapshot(struct function *vf)
{
	struct vfe_state *state = calloc(1, sizeof(*state));
	ssize_t len = -ENOMEM;
	size_t size;
	uint16_t i, n = vfe_vdev_num_queues(vf->vdev);

	if (state == NULL)
		return -ENOMEM;
	if (vfe_state_init(state, vf->type->state_type, n) < 0)
		goto free_state;
	state->device_features = vfe_vdev_features(vf->vdev);
	state->driver_features = vfe_vdev_driver_features(vf->vdev);
	state->msix_config = vfe_vdev_config_vector(vf->vdev);
	state->device_status = vfe_vdev_status(vf->vdev);
	state->config_generation = vfe_vdev_generation(vf->vdev);
	for (i = 0; i < n; i++)
		save_queue(vf, i, &state->queues[i]);
	vf->type->save(vf, state);

	blob_free(&vf->save);
	size = vfe_state_encoded_size(state);
	vf->save.data = malloc(size);
	if (vf->save.data != NULL)
		len = vfe_state_encode(state, vf->save.data, size);
	if (len < 0)
		blob_free(&vf->save);
	else
		vf->save.len = (size_t)len;
	vfe_state_fini(state);
free_state:
	free(state);
	return len;
}

int
migrate_save(struct function *vf, uint64_t offset, void *buf, size_t len, struct vfe_error *err)
{
	size_t n = 0;
	int64_t rc;

	if (offset == 0) {
		rc = migrate_snapshot(vf);
		if (rc < 0)
			return vfe_error_set(err, (int)rc, "no memory for the state");
	}
	if (vf->save.data == NULL || offset > vf->save.len)
		return vfe_error_set(err, -EINVAL, "offset %llu is behind the saved %zu bytes",
			(unsigned long long)offset, vf->save.len);
	if (offset < vf->save.len) {
		n = vf->save.len - (size_t)offset;
		n = n < len ? n : len;
		memcpy(buf, vf->save.data + offset, n);
	}
	memset((char *)buf + n, 0, len - n);
	return 0;
}

/* --- restore --- */

/* Could a field like that be in a state? */
static bool
tlv_plausible(uint32_t type, uint32_t size)
{
	switch (type) {
	case VFE_STATE_COMMON_CFG:
		return size == sizeof(struct vfe_wire_state_common);
	case VFE_STATE_QUEUE_CFG:
		return size == sizeof(struct vfe_wire_state_queue);
	case VFE_STATE_SPLIT_Q_RUN:
		return size == sizeof(struct vfe_wire_state_q_run);
	default:
		return size <= VFE_STATE_MAX_SIZE;
	}
}

/*
 * Are more pieces to come? Not when all fields are there that the count promises, or when the last
 * piece is no whole number of pages, or when it makes no sense already: then decoding says what is
 * wrong. The place where this stopped is kept, so that many pieces cost no more than a big one.
 */
static bool
more_to_come(struct function_blob *blob)
{
	struct vfe_wire_state_hdr hdr;
	struct vfe_wire_state_tlv tlv;

	if (blob->len % VFE_STATE_ALIGN != 0)
		return false;
	memcpy(&hdr, blob->data, sizeof(hdr));
	if (blob->scan_off == 0)
		blob->scan_off = sizeof(hdr);
	while (blob->scan_fields < le32toh(hdr.field_count)) {
		if (!vfe_range_inside(blob->scan_off, sizeof(tlv), blob->len))
			return true;
		memcpy(&tlv, blob->data + blob->scan_off, sizeof(tlv));
		if (!tlv_plausible(le32toh(tlv.type), le32toh(tlv.size)))
			return false;
		if (!vfe_range_inside(blob->scan_off + sizeof(tlv), le32toh(tlv.size), blob->len))
			return true;
		blob->scan_off += sizeof(tlv) + le32toh(tlv.size);
		blob->scan_fields++;
	}
	return false;
}

static void
restored_queue(const struct vfe_state_queue *q, uint16_t max_size, struct vfe_vdev_queue *regs,
	struct function_queue *run_state)
{
	*regs = (struct vfe_vdev_queue){
		/* a queue that was never set up may say 0 */
		.size = q->size != 0 || q->enable ? q->size : max_size,
		.msix_vector = q->present ? q->msix_vector : VFE_VIRTIO_MSI_NO_VECTOR,
		.enabled = q->enable,
		.desc = q->desc,
		.driver = q->driver,
		.device = q->device,
	};
	*run_state = (struct function_queue){0};
	if (q->has_run) {
		run_state->avail = q->last_avail_idx;
		run_state->used = q->last_used_idx;
	}
}

/* Queues that this function does not have may only be there to say that they are off. */
static int
check_extra_queues(const struct vfe_state *state, uint16_t mine, struct vfe_error *err)
{
	uint16_t i;

	for (i = mine; i < state->num_queues; i++) {
		if (state->queues[i].enable)
			return vfe_error_set(
				err, -EINVAL, "queue %u is enabled, there are %u", i, mine);
	}
	return 0;
}

static int
apply(struct function *vf, const struct vfe_state *state, struct vfe_error *err)
{
	uint16_t i, mine = vfe_vdev_nr_queues(vf->vdev);
	struct vfe_vdev_queue *regs = calloc(mine, sizeof(*regs));
	struct function_queue *run_state = calloc(mine, sizeof(*run_state));
	struct vfe_vdev_state s = {
		.driver_features = state->driver_features,
		.status = state->device_status,
		.config_vector = state->msix_config,
		.nr_queues = mine < state->num_queues ? mine : state->num_queues,
		.queues = regs,
	};
	int rc = -ENOMEM;

	if (regs == NULL || run_state == NULL)
		goto free_arrays;
	rc = check_extra_queues(state, mine, err);
	if (rc < 0)
		goto free_arrays;
	for (i = 0; i < s.nr_queues; i++)
		restored_queue(&state->queues[i], (uint16_t)vf->env->config->queue_size, &regs[i],
			&run_state[i]);
	rc = vfe_vdev_restore(vf->vdev, &s, err);
	if (rc < 0)
		goto free_arrays;
	memcpy(vf->queues, run_state, mine * sizeof(*run_state));
	rc = vf->type->set_features(vf, state->driver_features, err);
	if (rc == 0)
		rc = vf->type->restore(vf, state, err);
free_arrays:
	free(run_state);
	free(regs);
	return rc;
}

static int
decode_and_apply(struct function *vf, struct vfe_error *err)
{
	struct vfe_state *state = calloc(1, sizeof(*state));
	int rc;

	if (state == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for the state");
	rc = vfe_state_decode(state, vf->type->state_type, vf->restore.data, vf->restore.len, err);
	if (rc == 0) {
		rc = apply(vf, state, err);
		vfe_state_fini(state);
	}
	free(state);
	return rc == -ENOMEM || rc == 0 ? rc : -EINVAL;
}

int
migrate_restore(
	struct function *vf, uint64_t offset, const void *buf, size_t len, struct vfe_error *err)
{
	struct function_blob *blob = &vf->restore;
	uint8_t *grown;
	int rc;

	if (vf->internal != VFE_ADMIN_VF_FREEZED)
		return vfe_error_set(err, -EPERM, "internal status is %s, expected FREEZED",
			names[vf->internal]);
	if (offset == 0)
		blob_free(blob);
	if (offset != blob->len)
		return vfe_error_set(err, -EINVAL, "state at offset %llu, expected %zu",
			(unsigned long long)offset, blob->len);
	if (len == 0 || len > VFE_STATE_MAX_SIZE || offset > VFE_STATE_MAX_SIZE - len)
		return vfe_error_set(err, -EINVAL, "%zu bytes of state at offset %llu", len,
			(unsigned long long)offset);
	grown = realloc(blob->data, blob->len + len);
	if (grown == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %zu bytes", blob->len + len);
	memcpy(grown + blob->len, buf, len);
	blob->data = grown;
	blob->len += len;
	if (more_to_come(blob))
		return 0;

	rc = decode_and_apply(vf, err);
	vf->restored = rc == 0;
	blob_free(blob);
	return rc;
}

void
migrate_reset(struct function *vf)
{
	blob_free(&vf->save);
	blob_free(&vf->restore);
	vf->restored = false;
	vf->internal = VFE_ADMIN_VF_INIT;
}
