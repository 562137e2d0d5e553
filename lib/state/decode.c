/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Read the state blob of the vendor dialect; the blob is a device's or a stranger's word.
 *
 * One pass, and each byte is fetched once, because the blob may lie in memory that the device can
 * write while we read. Queues are collected in an array of the largest size and cut to num_queues
 * at the end, so that COMMON_CFG may come after them.
 */

#include "vfe_state.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_QUEUE_SIZE = 32768 }; /* virtio 2.7 */

struct field {
	uint32_t type;
	uint32_t size;
	size_t offset; /* of the field's header in the blob */
	const uint8_t *value;
};

struct decoder {
	struct vfe_state *state;
	struct vfe_error *err;
	uint32_t seen;       /* bit n: type n was there */
	uint16_t num_queues; /* of COMMON_CFG */
	uint32_t end_queues; /* highest queue index named by a field, plus 1 */
};

static const char *
field_name(uint32_t type)
{
	static const char *const names[] = {
		[VFE_STATE_COMMON_CFG] = "COMMON_CFG",
		[VFE_STATE_DEV_CFG] = "DEV_CFG",
		[VFE_STATE_QUEUE_CFG] = "QUEUE_CFG",
		[VFE_STATE_SPLIT_Q_RUN] = "SPLIT_Q_RUN_STATE",
		[VFE_STATE_NET_RX_MODE] = "NET_RX_MODE",
		[VFE_STATE_NET_VLAN] = "NET_VLAN",
		[VFE_STATE_NET_MAC_UNICAST] = "NET_MAC_UNICAST",
		[VFE_STATE_NET_MAC_MULTICAST] = "NET_MAC_MULTICAST",
	};

	return type < VFE_ARRAY_SIZE(names) ? names[type] : "unknown type";
}

static int
bad_value(struct decoder *d, const struct field *f, const char *what, uint64_t value)
{
	return vfe_error_set(d->err, -EBADMSG, "%s at offset %zu: %s %" PRIu64 " is out of range",
		field_name(f->type), f->offset, what, value);
}

/* Copy the value of a field that has one legal size. */
static int
value_get(struct decoder *d, const struct field *f, void *dst, size_t size)
{
	if (f->size != size) {
		vfe_error_set(d->err, -EBADMSG, "%s at offset %zu: size %u, expected %zu",
			field_name(f->type), f->offset, f->size, size);
		return -EBADMSG;
	}
	memcpy(dst, f->value, size);
	return 0;
}

static int
on_common(struct decoder *d, const struct field *f)
{
	struct vfe_state *s = d->state;
	struct vfe_wire_state_common common;
	int ret;

	ret = value_get(d, f, &common, sizeof(common));
	if (ret < 0)
		return ret;
	d->num_queues = le16toh(common.num_queues);
	if (d->num_queues > VFE_STATE_MAX_QUEUES)
		return bad_value(d, f, "num_queues", d->num_queues);
	s->device_features = le64toh(common.device_feature);
	s->driver_features = le64toh(common.driver_feature);
	s->msix_config = le16toh(common.msix_config);
	s->device_status = common.device_status;
	s->config_generation = common.config_generation;
	return 0;
}

static int
on_dev_cfg(struct decoder *d, const struct field *f)
{
	if (d->state->type == VFE_STATE_TYPE_NET)
		return value_get(d, f, &d->state->config.net, sizeof(d->state->config.net));
	return value_get(d, f, &d->state->config.blk, sizeof(d->state->config.blk));
}

/* The queue that a field is about, or NULL when there can be none of that index. */
static struct vfe_state_queue *
queue_find(struct decoder *d, uint16_t index)
{
	if (index >= VFE_STATE_MAX_QUEUES)
		return NULL;
	if (index >= d->end_queues)
		d->end_queues = (uint32_t)index + 1;
	return &d->state->queues[index];
}

static int
on_queue_cfg(struct decoder *d, const struct field *f)
{
	struct vfe_wire_state_queue cfg;
	struct vfe_state_queue *q;
	uint16_t index;
	int ret;

	ret = value_get(d, f, &cfg, sizeof(cfg));
	if (ret < 0)
		return ret;
	index = le16toh(cfg.queue_index);
	q = queue_find(d, index);
	if (q == NULL)
		return bad_value(d, f, "queue_index", index);
	if (q->present)
		return vfe_error_set(d->err, -EBADMSG, "QUEUE_CFG at offset %zu: queue %u again",
			f->offset, index);
	if (le16toh(cfg.queue_size) > MAX_QUEUE_SIZE)
		return bad_value(d, f, "queue_size", le16toh(cfg.queue_size));
	if (le16toh(cfg.enable) > 1)
		return bad_value(d, f, "enable", le16toh(cfg.enable));
	if (le16toh(cfg.reset) > 1)
		return bad_value(d, f, "reset", le16toh(cfg.reset));

	q->present = true;
	q->size = le16toh(cfg.queue_size);
	q->msix_vector = le16toh(cfg.msix_vector);
	q->enable = cfg.enable != 0;
	q->reset = cfg.reset != 0;
	q->notify_off = le16toh(cfg.notify_off);
	q->notify_data = le16toh(cfg.notify_data);
	q->desc = le64toh(cfg.desc);
	q->driver = le64toh(cfg.driver);
	q->device = le64toh(cfg.device);
	return 0;
}

static int
on_queue_run(struct decoder *d, const struct field *f)
{
	struct vfe_wire_state_q_run run;
	struct vfe_state_queue *q;
	uint16_t index;
	int ret;

	ret = value_get(d, f, &run, sizeof(run));
	if (ret < 0)
		return ret;
	index = le16toh(run.queue_index);
	q = queue_find(d, index);
	if (q == NULL)
		return bad_value(d, f, "queue_index", index);
	if (q->has_run)
		return vfe_error_set(d->err, -EBADMSG,
			"SPLIT_Q_RUN_STATE at offset %zu: queue %u again", f->offset, index);
	q->has_run = true;
	q->last_avail_idx = le16toh(run.last_avail_idx);
	q->last_used_idx = le16toh(run.last_used_idx);
	return 0;
}

static int
on_rx_mode(struct decoder *d, const struct field *f)
{
	uint32_t mode;
	int ret;

	ret = value_get(d, f, &mode, sizeof(mode));
	if (ret < 0)
		return ret;
	d->state->has_rx_mode = true;
	d->state->rx_mode = le32toh(mode);
	return 0;
}

static int
on_vlan(struct decoder *d, const struct field *f)
{
	d->state->has_vlan = true;
	return value_get(d, f, d->state->vlan, sizeof(d->state->vlan));
}

static int
macs_get(struct decoder *d, const struct field *f, struct vfe_state_mac *macs, uint16_t *nr)
{
	if (f->size % sizeof(*macs) != 0 || f->size / sizeof(*macs) > VFE_STATE_MAX_MACS)
		return vfe_error_set(d->err, -EBADMSG,
			"%s at offset %zu: size %u, expected at most %d addresses of %zu bytes",
			field_name(f->type), f->offset, f->size, VFE_STATE_MAX_MACS, sizeof(*macs));
	memcpy(macs, f->value, f->size);
	*nr = (uint16_t)(f->size / sizeof(*macs));
	d->state->has_macs = true;
	return 0;
}

static int
on_unicast(struct decoder *d, const struct field *f)
{
	return macs_get(d, f, d->state->unicast, &d->state->nr_unicast);
}

static int
on_multicast(struct decoder *d, const struct field *f)
{
	return macs_get(d, f, d->state->multicast, &d->state->nr_multicast);
}

static const struct {
	int (*handler)(struct decoder *d, const struct field *f);
	bool once;
	bool net_only;
} handlers[] = {
	[VFE_STATE_COMMON_CFG] = {on_common, .once = true},
	[VFE_STATE_DEV_CFG] = {on_dev_cfg, .once = true},
	[VFE_STATE_QUEUE_CFG] = {on_queue_cfg},
	[VFE_STATE_SPLIT_Q_RUN] = {on_queue_run},
	[VFE_STATE_NET_RX_MODE] = {on_rx_mode, .once = true, .net_only = true},
	[VFE_STATE_NET_VLAN] = {on_vlan, .once = true, .net_only = true},
	[VFE_STATE_NET_MAC_UNICAST] = {on_unicast, .once = true, .net_only = true},
	[VFE_STATE_NET_MAC_MULTICAST] = {on_multicast, .once = true, .net_only = true},
};

static int
field_decode(struct decoder *d, const struct field *f)
{
	/* optional by the dialect: in-flight and completed descriptors, subvendor, the future */
	if (f->type >= VFE_ARRAY_SIZE(handlers))
		return 0;
	if (handlers[f->type].net_only && d->state->type != VFE_STATE_TYPE_NET)
		return vfe_error_set(d->err, -EBADMSG,
			"%s at offset %zu: not a field of a block device", field_name(f->type),
			f->offset);
	if (handlers[f->type].once && (d->seen & VFE_BIT(f->type)))
		return vfe_error_set(d->err, -EBADMSG, "%s at offset %zu: there already",
			field_name(f->type), f->offset);
	d->seen |= (uint32_t)VFE_BIT(f->type);
	return handlers[f->type].handler(d, f);
}

/* The count ends the fields; what follows is padding and not looked at. */
static int
fields_decode(struct decoder *d, const uint8_t *buf, size_t size)
{
	struct vfe_wire_state_tlv tlv;
	struct vfe_wire_state_hdr hdr;
	size_t at = sizeof(hdr);
	struct field f;
	uint32_t i, n;
	int ret;

	memcpy(&hdr, buf, sizeof(hdr));
	n = le32toh(hdr.field_count);
	for (i = 0; i < n; i++) {
		if (size - at < sizeof(tlv))
			return vfe_error_set(d->err, -EBADMSG,
				"field_count is %u, but the blob of %zu bytes ends in field %u at "
				"offset %zu",
				n, size, i, at);
		memcpy(&tlv, buf + at, sizeof(tlv));
		f.type = le32toh(tlv.type);
		f.size = le32toh(tlv.size);
		f.offset = at;
		at += sizeof(tlv);
		f.value = buf + at;
		if (f.size > size - at)
			return vfe_error_set(d->err, -EBADMSG,
				"%s (type %u) at offset %zu: size %u, but only %zu bytes follow",
				field_name(f.type), f.type, f.offset, f.size, size - at);
		ret = field_decode(d, &f);
		if (ret < 0)
			return ret;
		at += f.size;
	}
	return 0;
}

/* What no single field can tell: all that must be there is, and nothing more than declared. */
static int
whole_check(struct decoder *d)
{
	uint32_t type, i;

	for (type = VFE_STATE_COMMON_CFG; type <= VFE_STATE_DEV_CFG; type++)
		if ((d->seen & VFE_BIT(type)) == 0)
			return vfe_error_set(d->err, -EBADMSG, "%s is missing", field_name(type));
	if (d->end_queues > d->num_queues)
		return vfe_error_set(d->err, -EBADMSG, "queue %u is there, but num_queues is %u",
			d->end_queues - 1, d->num_queues);
	for (i = 0; i < d->num_queues; i++)
		if (!d->state->queues[i].present)
			return vfe_error_set(d->err, -EBADMSG,
				"QUEUE_CFG of queue %u is missing, num_queues is %u", i,
				d->num_queues);
	return 0;
}

/* Give back the part of the queue array that is not used. */
static void
queues_trim(struct vfe_state *state, uint16_t num_queues)
{
	struct vfe_state_queue *fit;

	state->num_queues = num_queues;
	if (num_queues == 0) {
		free(state->queues);
		state->queues = NULL;
		return;
	}
	fit = realloc(state->queues, num_queues * sizeof(*fit));
	if (fit != NULL)
		state->queues = fit;
}

int
vfe_state_decode(struct vfe_state *state, enum vfe_state_type type, const void *buf, size_t size,
	struct vfe_error *err)
{
	struct decoder d = {.state = state, .err = err};
	int ret;

	memset(state, 0, sizeof(*state));
	if (size > VFE_STATE_MAX_SIZE)
		return vfe_error_set(err, -E2BIG, "a state of %zu bytes, the limit is %d", size,
			VFE_STATE_MAX_SIZE);
	if (size < sizeof(struct vfe_wire_state_hdr))
		return vfe_error_set(err, -EBADMSG, "a state of %zu bytes has no header", size);

	ret = vfe_state_init(state, type, VFE_STATE_MAX_QUEUES);
	if (ret < 0)
		return vfe_error_set(err, ret, "out of memory");
	ret = fields_decode(&d, buf, size);
	if (ret == 0)
		ret = whole_check(&d);
	if (ret < 0) {
		vfe_state_fini(state);
		return ret;
	}
	queues_trim(state, d.num_queues);
	return 0;
}
