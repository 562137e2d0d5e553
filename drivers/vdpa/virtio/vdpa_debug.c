/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Test operations of `vhostmgmt vf -d`: an operator moves a VF by hand, and has it track what it
 * writes while a guest uses it.
 *
 * The state machine stays right about the device: the status of a VF is changed only while nobody
 * uses it, and the machine, which is kept from moving meanwhile, takes it for one that may be in
 * any status, as after a reset. Tracking by hand and a migration's exclude each other.
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vdpa_dirty.h"
#include "vdpa_priv.h"
#include "vfe_vdpa.h"

enum {
	DEBUG_RUNNING = 1,
	DEBUG_QUIESCED = 2,
	DEBUG_FREEZE = 3,
	DEBUG_START_LOGGING = 4,
	DEBUG_STOP_LOGGING = 5,
	DEBUG_GET_STATUS = 6,
	PAGE = 4096,
	/* used buffers to look at: the guest may have put others into the place of the latest */
	MAX_BUFFERS = 16,
};

struct vdpa_debug_track {
	struct vdpa_target *target; /* the map */
	unsigned int generation;    /* of the PF */
	uint64_t len;               /* guest addresses from 0 */
	bool bytemap;
	uint16_t used[VFE_VDPA_MAX_QUEUES]; /* index of each used ring at the start */
};

/* --- internal status --- */

struct status_command {
	uint16_t vf_index;
	unsigned int operation;
};

static int
submit_status(struct vdpa_pf *pf, void *arg, vfe_admin_done done, void *ctx)
{
	static const enum vfe_admin_vf_status status[] = {
		[DEBUG_RUNNING] = VFE_ADMIN_VF_RUNNING,
		[DEBUG_QUIESCED] = VFE_ADMIN_VF_QUIESCED,
		[DEBUG_FREEZE] = VFE_ADMIN_VF_FREEZED,
	};
	const struct status_command *c = arg;

	if (c->operation == DEBUG_GET_STATUS)
		return vfe_admin_get_status(pf->admin, c->vf_index, done, ctx);
	return vfe_admin_modify_status(pf->admin, c->vf_index, status[c->operation], done, ctx);
}

struct hold_call {
	struct vdpa_vf *vf;
	bool held;
};

static void
call_hold(void *arg)
{
	struct hold_call *call = arg;

	call->held = vdpa_vf_hold(call->vf);
}

static void
call_release(void *arg)
{
	vdpa_vf_release(arg);
}

static int
debug_status(struct vdpa_vf *vf, unsigned int operation, struct vfe_vdpa_error *err)
{
	struct status_command c = {.vf_index = vf->vf_index, .operation = operation};
	struct hold_call hold = {.vf = vf};
	int ret;

	vdpa_vf_look_wait(vf);
	vdpa_reactor_call(call_hold, &hold);
	if (!hold.held)
		ret = vfe_error_set(&err->err, -EBUSY,
			"%s: it is in use; its status can be changed while no front-end is "
			"connected and it is parked",
			vf->name);
	else
		ret = vdpa_pf_command(vf->pf, submit_status, &c, NULL, 0, &err->err);
	if (hold.held)
		vdpa_reactor_call(call_release, vf);
	if (ret < 0)
		vdpa_code(err, operation == DEBUG_FREEZE ? VFE_VDPA_VF_FREEZE : VFE_VDPA_VF_QUIESCE,
			ret);
	return ret;
}

static int
debug_get_status(struct vdpa_vf *vf, unsigned int *ret_status, struct vfe_vdpa_error *err)
{
	struct status_command c = {.vf_index = vf->vf_index, .operation = DEBUG_GET_STATUS};
	struct vfe_wire_admin_get_status_result out = {0};
	int ret;

	ret = vdpa_pf_command(vf->pf, submit_status, &c, &out, sizeof(out), &err->err);
	if (ret < 0)
		return vdpa_code(err, VFE_VDPA_VF_QUIESCE, ret);
	if (ret_status != NULL)
		*ret_status = le16toh(out.status);
	return 0;
}

/* --- tracking --- */

/* Where the rings of a guest are: a copy of what the device has been told. */
static unsigned int
rings_copy(struct vdpa_vf *vf, struct vdpa_applied *ret)
{
	unsigned int n = 0;
	uint16_t qid;

	pthread_mutex_lock(&vf->lock);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		ret[qid] = vf->applied[qid];
		ret[qid].call = NULL;
		n += ret[qid].enabled;
	}
	pthread_mutex_unlock(&vf->lock);
	return n;
}

struct track_command {
	struct vdpa_vf *vf;
	const struct vdpa_debug_track *track;
};

static int
submit_start(struct vdpa_pf *pf, void *arg, vfe_admin_done done, void *ctx)
{
	const struct track_command *c = arg;
	const struct vfe_admin_caps *caps = vfe_admin_caps(pf->admin);
	const struct vfe_wire_admin_track_start range = {
		.mode = c->track->bytemap ? VFE_ADMIN_TRACK_PUSH_BYTEMAP
					  : VFE_ADMIN_TRACK_PUSH_BITMAP,
		.page_size = PAGE,
		.range_length = c->track->len,
	};
	const struct vfe_wire_admin_sge sge = {
		.addr = c->track->target->iova,
		.len = (uint32_t)c->track->target->size,
	};

	if (!(c->track->bytemap ? caps->dirty_push_bytemap : caps->dirty_push_bitmap))
		return -ENOTSUP;
	return vfe_admin_track_start(pf->admin, c->vf->vf_index, &range, &sge, 1, done, ctx);
}

static int
submit_stop(struct vdpa_pf *pf, void *arg, vfe_admin_done done, void *ctx)
{
	const struct track_command *c = arg;

	return vfe_admin_track_stop(pf->admin, c->vf->vf_index, 0, done, ctx);
}

/* Is it what the device has been told, or was the device reset since, with the PF? */
static bool
track_is_on(const struct vdpa_vf *vf)
{
	return vf->debug_track != NULL && vf->debug_track->generation == vf->pf->generation;
}

static void
track_free(struct vdpa_vf *vf)
{
	if (vf->debug_track != NULL)
		vdpa_target_destroy(vf->debug_track->target);
	free(vf->debug_track);
	vf->debug_track = NULL;
}

static void
track_abandon(struct vdpa_vf *vf)
{
	vdpa_target_abandon(vf->debug_track->target);
	vf->debug_track->target = NULL;
	track_free(vf);
}

/* The guest's memory, unless a migration is tracking it. */
static int
track_memory(struct vdpa_vf *vf, uint64_t *ret_len, struct vfe_error *err)
{
	struct vdpa_table *table;
	bool migrating;

	pthread_mutex_lock(&vf->lock);
	table = vdpa_table_get(vf->table);
	migrating = (vf->features & VFE_BIT(VFE_VHOST_F_LOG_ALL)) != 0 ||
		    vf->dirty.phase != VDPA_DIRTY_OFF;
	pthread_mutex_unlock(&vf->lock);
	*ret_len = table != NULL ? vfe_align_up(vdpa_table_end(table), PAGE) : 0;
	vdpa_table_put(table);
	if (migrating)
		return vfe_error_set(
			err, -EBUSY, "%s: its guest is being migrated, and tracked", vf->name);
	if (*ret_len == 0)
		return vfe_error_set(err, -ENODATA,
			"%s: it has no guest, whose memory could be tracked", vf->name);
	return 0;
}

static int
track_start(struct vdpa_vf *vf, bool bytemap, struct vfe_error *err)
{
	struct vdpa_applied rings[VFE_VDPA_MAX_QUEUES];
	struct vdpa_debug_track *t;
	struct track_command c;
	uint64_t bytes;
	uint16_t qid;
	int rc;

	if (track_is_on(vf))
		return vfe_error_set(
			err, -EALREADY, "%s: it is being tracked; stop that first", vf->name);
	track_free(vf);
	t = calloc(1, sizeof(*t));
	if (t == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	vf->debug_track = t;
	t->bytemap = bytemap;
	t->generation = vf->pf->generation;
	rc = track_memory(vf, &t->len, err);
	bytes = bytemap ? t->len / PAGE : (t->len / PAGE + 7) / 8;
	if (rc == 0 && bytes > VDPA_DIRTY_MAX_MAP)
		rc = vfe_error_set(err, -EFBIG, "%s: a map of %" PRIu64 " bytes is too large",
			vf->name, bytes);
	if (rc == 0)
		rc = vdpa_target_create(vf->pf, bytes, &t->target, err);
	if (rc < 0)
		goto err_free;
	rings_copy(vf, rings);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (rings[qid].enabled)
			vdpa_domain_used_index(vf->domain, rings[qid].used, &t->used[qid]);
	}
	c = (struct track_command){.vf = vf, .track = t};
	rc = vdpa_pf_command(vf->pf, submit_start, &c, NULL, 0, err);
	if (rc == 0)
		return 0;
	if (rc == -ENOTSUP)
		vfe_error_set(err, rc, "%s: the device does not push a %s", vf->pf->name,
			bytemap ? "bytemap" : "bitmap");
	if (rc == -ETIMEDOUT) {
		track_abandon(vf);
		return rc;
	}
err_free:
	track_free(vf);
	return rc;
}

/* --- the check of a map --- */

static bool
is_marked(const struct vdpa_debug_track *t, uint64_t gpa)
{
	uint64_t page = gpa / PAGE;

	if (gpa >= t->len)
		return false;
	return t->bytemap ? t->target->va[page] != 0
			  : (t->target->va[page / 8] >> page % 8 & 1) != 0;
}

/* What the device has certainly written while it was tracked. */
struct written {
	uint64_t index_gpa;   /* of the used ring; 0 = nothing came */
	uint64_t element_gpa; /* the last one */
	uint64_t buffers[MAX_BUFFERS];
	unsigned int nr_buffers;
};

static int
read_descriptor(struct vdpa_vf *vf, uint64_t gpa, uint64_t *ret_addr, uint16_t *ret_flags)
{
	uint16_t part[4];
	unsigned int i;
	int rc = 0;

	for (i = 0; rc == 0 && i < VFE_ARRAY_SIZE(part); i++)
		rc = vdpa_domain_read16(vf->domain, gpa + 2 * i, &part[i]);
	if (rc == 0)
		rc = vdpa_domain_read16(
			vf->domain, gpa + offsetof(struct vfe_wire_vring_desc, flags), ret_flags);
	if (rc == 0)
		*ret_addr = part[0] | (uint64_t)part[1] << 16 | (uint64_t)part[2] << 32 |
			    (uint64_t)part[3] << 48;
	return rc;
}

/* The first buffer of the chain that element @idx of the used ring gave back, if it was written. */
static void
written_buffer(struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t idx, struct written *w)
{
	uint64_t element = ring->used + sizeof(struct vfe_wire_vring_used) +
			   sizeof(struct vfe_wire_vring_used_elem) * (idx % ring->size);
	uint64_t addr;
	uint16_t head, flags;

	if (vdpa_domain_read16(vf->domain, element, &head) < 0 || head >= ring->size ||
		read_descriptor(vf, ring->desc + sizeof(struct vfe_wire_vring_desc) * head, &addr,
			&flags) < 0)
		return;
	if ((flags & VFE_VRING_DESC_F_INDIRECT) != 0 &&
		(!vfe_is_aligned(addr, 16) || read_descriptor(vf, addr, &addr, &flags) < 0))
		return;
	if ((flags & VFE_VRING_DESC_F_WRITE) != 0)
		w->buffers[w->nr_buffers++] = addr;
}

static void
written_of_ring(
	struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t before, struct written *w)
{
	uint16_t now, i, n;

	if (vdpa_domain_used_index(vf->domain, ring->used, &now) < 0 || now == before)
		return;
	n = (uint16_t)(now - before);
	w->index_gpa = ring->used + offsetof(struct vfe_wire_vring_used, idx);
	w->element_gpa =
		ring->used + sizeof(struct vfe_wire_vring_used) +
		sizeof(struct vfe_wire_vring_used_elem) * ((uint16_t)(now - 1) % ring->size);
	for (i = 1; i <= n && i <= ring->size && i <= MAX_BUFFERS; i++)
		written_buffer(vf, ring, (uint16_t)(now - i), w);
}

static int
check_ring(const struct vdpa_vf *vf, uint16_t qid, const struct written *w, struct vfe_error *err)
{
	const struct vdpa_debug_track *t = vf->debug_track;
	unsigned int i, marked = 0;

	if (w->index_gpa == 0)
		return 0;
	if (!is_marked(t, w->index_gpa) || !is_marked(t, w->element_gpa))
		return vfe_error_set(err, -EILSEQ,
			"%s: queue %u: the used ring at %#" PRIx64 " was written and is not marked",
			vf->name, qid, is_marked(t, w->index_gpa) ? w->element_gpa : w->index_gpa);
	for (i = 0; i < w->nr_buffers; i++)
		marked += is_marked(t, w->buffers[i]);
	if (w->nr_buffers > 0 && marked == 0)
		return vfe_error_set(err, -EILSEQ,
			"%s: queue %u: the last used descriptor, a buffer at %#" PRIx64
			", was written and is not marked",
			vf->name, qid, w->buffers[0]);
	return 0;
}

static unsigned int
count_marked(const struct vdpa_debug_track *t)
{
	uint64_t gpa;
	unsigned int n = 0;

	for (gpa = 0; gpa < t->len; gpa += PAGE)
		n += is_marked(t, gpa);
	return n;
}

static int
track_stop(struct vdpa_vf *vf, unsigned int *ret_marked, struct vfe_error *err)
{
	struct vdpa_applied rings[VFE_VDPA_MAX_QUEUES];
	struct track_command c = {.vf = vf};
	struct written *written;
	uint16_t qid;
	int rc;

	if (!track_is_on(vf))
		return vfe_error_set(err, -ENODATA, "%s: it is not being tracked", vf->name);
	written = calloc(vf->nr_queues, sizeof(*written));
	if (written == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	/* before the end: what comes after it is not marked, and rightly so */
	rings_copy(vf, rings);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (rings[qid].enabled)
			written_of_ring(vf, &rings[qid], vf->debug_track->used[qid], &written[qid]);
	}
	rc = vdpa_pf_command(vf->pf, submit_stop, &c, NULL, 0, err);
	if (rc < 0)
		goto abandon; /* who knows whether it still writes to the map? */
	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++)
		rc = check_ring(vf, qid, &written[qid], err);
	if (ret_marked != NULL)
		*ret_marked = count_marked(vf->debug_track);
	track_free(vf);
	free(written);
	return rc;

abandon:
	track_abandon(vf);
	free(written);
	return rc;
}

/* --- entry points --- */

void
vdpa_debug_fini(struct vdpa_vf *vf)
{
	struct track_command c = {.vf = vf};
	struct vfe_error err;

	if (track_is_on(vf) && vdpa_pf_command(vf->pf, submit_stop, &c, NULL, 0, &err) < 0)
		track_abandon(vf);
	else
		track_free(vf);
}

int
vfe_vdpa_vf_debug(const struct vfe_bdf *bdf, unsigned int operation, unsigned int size_mode,
	unsigned int *ret_value, struct vfe_vdpa_error *err)
{
	struct vdpa_vf *vf = vdpa_vf_find(bdf);
	char name[VFE_BDF_STR_SIZE];
	int ret;

	memset(err, 0, sizeof(*err));
	if (vf == NULL)
		return vdpa_code(err, VFE_VDPA_NO_VF_DEVICE,
			vfe_error_set(&err->err, -ENODEV, "VF %s is not managed",
				vfe_bdf_format(bdf, name)));
	if (vf->pf == &vdpa_no_pf)
		return vdpa_code(err, VFE_VDPA_NO_PF_DEVICE,
			vfe_error_set(&err->err, -ENOTSUP, "%s: it has no PF that could do that",
				vf->name));
	switch (operation) {
	case DEBUG_RUNNING:
	case DEBUG_QUIESCED:
	case DEBUG_FREEZE:
		return debug_status(vf, operation, err);
	case DEBUG_GET_STATUS:
		return debug_get_status(vf, ret_value, err);
	case DEBUG_START_LOGGING:
		ret = track_start(vf, size_mode == 2, &err->err);
		break;
	case DEBUG_STOP_LOGGING:
		ret = track_stop(vf, ret_value, &err->err);
		break;
	default:
		ret = vfe_error_set(&err->err, -EINVAL, "%s: test operation %u, expected 1 to 6",
			vf->name, operation);
		break;
	}
	return ret < 0 ? vdpa_code(err, VFE_VDPA_PROBE_FAIL, ret) : 0;
}
