/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The vendor live-migration dialect: where its queue is, its features, its commands.
 */

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "admin_priv.h"
#include "vfe_wire_net.h"
#include "vfe_wire_pci.h"

enum { MAX_LOG_PAGES = 52 }; /* pages of 4 KiB in an address space of 64 bits */

static const uint64_t required_features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
					  VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |
					  VFE_BIT(VFE_ADMIN_F_VQ) | VFE_BIT(VFE_ADMIN_F_MIGRATION);
static const uint64_t dirty_features =
	VFE_BIT(VFE_ADMIN_F_DIRTY_PUSH_BITMAP) | VFE_BIT(VFE_ADMIN_F_DIRTY_PUSH_BYTEMAP) |
	VFE_BIT(VFE_ADMIN_F_DIRTY_PULL_BITMAP) | VFE_BIT(VFE_ADMIN_F_DIRTY_PULL_BYTEMAP);

/* The index that the common configuration names (virtio 1.3), -ENOENT when it names none. */
static int
named_index(struct vfe_virtio_dev *vdev, uint16_t *ret, struct vfe_error *err)
{
	const uint64_t off = offsetof(struct vfe_wire_virtio_common, admin_queue_index);
	uint16_t raw[2]; /* index, number */
	unsigned int i;
	int rc;

	if (vdev->common.length < sizeof(struct vfe_wire_virtio_common))
		return -ENOENT;
	for (i = 0; i < 2; i++) {
		rc = vfe_pci_bar_read(vdev->pci, vdev->common.bar,
			vdev->common.offset + off + 2 * i, &raw[i], 2, err);
		if (rc < 0)
			return vfe_error_prefix(err, rc, "reading admin_queue_index");
	}
	if (raw[1] == 0)
		return -ENOENT;
	*ret = le16toh(raw[0]);
	return 0;
}

static int
net_index(struct vfe_virtio_dev *vdev, uint16_t *ret, struct vfe_error *err)
{
	const uint64_t mq = VFE_BIT(VFE_NET_F_MQ) | VFE_BIT(VFE_NET_F_RSS);
	uint16_t pairs = 0;
	int rc;

	if ((vdev->device_features & mq) == 0) {
		*ret = 2;
		return 0;
	}
	rc = vfe_virtio_config_read(vdev, offsetof(struct vfe_wire_net_config, max_virtqueue_pairs),
		&pairs, sizeof(pairs), err);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "reading max_virtqueue_pairs");
	pairs = le16toh(pairs);
	if (pairs == 0 || 2 * pairs >= VFE_VIRTIO_MAX_QUEUES)
		return vfe_error_set(err, -EPROTO, "max_virtqueue_pairs is %u", pairs);
	*ret = (uint16_t)(2 * pairs);
	return 0;
}

int
vfe_admin_queue_index(struct vfe_virtio_dev *vdev, uint16_t *ret, struct vfe_error *err)
{
	int rc;

	if ((vdev->device_features & VFE_BIT(VFE_ADMIN_F_VQ)) == 0)
		return vfe_error_set(
			err, -ENOTSUP, "the device has no admin queue (bit %d)", VFE_ADMIN_F_VQ);
	rc = named_index(vdev, ret, err);
	if (rc != -ENOENT)
		return rc;
	switch (vdev->pci_device_id) {
	case VFE_PCI_DEVICE_VIRTIO_NET:
		return net_index(vdev, ret, err);
	case VFE_PCI_DEVICE_VIRTIO_BLK:
		*ret = 0;
		return 0;
	default:
		return vfe_error_set(err, -ENOTSUP,
			"the place of the admin queue of device type 0x%04x is not known",
			vdev->pci_device_id);
	}
}

uint64_t
vfe_admin_features_wanted(uint64_t offered)
{
	if ((offered & required_features) != required_features)
		return 0;
	return required_features |
	       (offered & (dirty_features | VFE_BIT(VFE_ADMIN_F_DYNAMIC_STATE_TRACK)));
}

/* --- commands --- */

enum { MAX_VF = UINT16_MAX - 1 };

/* The device counts VFs from 1. */
static uint16_t
vdev_id(uint16_t vf)
{
	return htole16((uint16_t)(vf + 1));
}

static int
check_status_result(const void *out, struct vfe_error *err)
{
	struct vfe_wire_admin_get_status_result result;

	memcpy(&result, out, sizeof(result));
	if (le16toh(result.status) > VFE_ADMIN_VF_FREEZED)
		return vfe_error_set(err, -EPROTO, "the device answers the unknown VF status %u",
			le16toh(result.status));
	return 0;
}

int
vfe_admin_get_status(struct vfe_admin *admin, uint16_t vf, vfe_admin_done done, void *ctx)
{
	struct vfe_wire_admin_vdev in = {.vdev_id = vdev_id(vf)};

	if (vf > MAX_VF)
		return -EINVAL;
	return admin_submit(admin,
		&(struct vfe_admin_cmd){
			.class_ = VFE_ADMIN_CLASS_MIGRATION,
			.cmd = VFE_ADMIN_MIG_GET_STATUS,
			.in = &in,
			.in_len = sizeof(in),
			.out_len = sizeof(struct vfe_wire_admin_get_status_result),
			.done = done,
			.ctx = ctx,
		},
		check_status_result);
}

int
vfe_admin_modify_status(struct vfe_admin *admin, uint16_t vf, enum vfe_admin_vf_status status,
	vfe_admin_done done, void *ctx)
{
	struct vfe_wire_admin_modify_status in = {
		.vdev_id = vdev_id(vf), .status = htole16((uint16_t)status)};

	if (vf > MAX_VF)
		return -EINVAL;
	return vfe_admin_submit(admin, &(struct vfe_admin_cmd){
					       .class_ = VFE_ADMIN_CLASS_MIGRATION,
					       .cmd = VFE_ADMIN_MIG_MODIFY_STATUS,
					       .in = &in,
					       .in_len = sizeof(in),
					       .done = done,
					       .ctx = ctx,
				       });
}

int
vfe_admin_pending_bytes(struct vfe_admin *admin, uint16_t vf, vfe_admin_done done, void *ctx)
{
	struct vfe_wire_admin_vdev in = {.vdev_id = vdev_id(vf)};

	if (vf > MAX_VF)
		return -EINVAL;
	return vfe_admin_submit(
		admin, &(struct vfe_admin_cmd){
			       .class_ = VFE_ADMIN_CLASS_MIGRATION,
			       .cmd = VFE_ADMIN_MIG_PENDING_BYTES,
			       .in = &in,
			       .in_len = sizeof(in),
			       .out_len = sizeof(struct vfe_wire_admin_pending_result),
			       .done = done,
			       .ctx = ctx,
		       });
}

int
vfe_admin_save_state(struct vfe_admin *admin, uint16_t vf, uint64_t offset, uint64_t length,
	vfe_admin_done done, void *ctx)
{
	struct vfe_wire_admin_state in = {
		.vdev_id = vdev_id(vf), .offset = htole64(offset), .length = htole64(length)};

	if (vf > MAX_VF || length == 0 || length > SIZE_MAX)
		return -EINVAL;
	return vfe_admin_submit(admin, &(struct vfe_admin_cmd){
					       .class_ = VFE_ADMIN_CLASS_MIGRATION,
					       .cmd = VFE_ADMIN_MIG_SAVE_STATE,
					       .in = &in,
					       .in_len = sizeof(in),
					       .out_len = (size_t)length,
					       .done = done,
					       .ctx = ctx,
				       });
}

int
vfe_admin_restore_state(struct vfe_admin *admin, uint16_t vf, const void *blob, size_t len,
	vfe_admin_done done, void *ctx)
{
	size_t padded = vfe_align_up(len, VFE_STATE_ALIGN);
	struct vfe_wire_admin_state in = {.vdev_id = vdev_id(vf), .length = htole64(padded)};
	uint8_t *copy;
	int rc;

	if (vf > MAX_VF || len == 0 || padded < len)
		return -EINVAL;
	copy = calloc(1, padded);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, blob, len);
	rc = vfe_admin_submit(admin, &(struct vfe_admin_cmd){
					     .class_ = VFE_ADMIN_CLASS_MIGRATION,
					     .cmd = VFE_ADMIN_MIG_RESTORE_STATE,
					     .in = &in,
					     .in_len = sizeof(in),
					     .bulk = copy,
					     .bulk_len = padded,
					     .done = done,
					     .ctx = ctx,
				     });
	free(copy);
	return rc;
}

/* --- dirty pages --- */

enum { MAX_SGES = 32 };

/* Bytes of the map of @range, 0 when the range or its mode makes no sense. */
static uint64_t
map_bytes(const struct vfe_wire_admin_track_start *range)
{
	const uint64_t page = range->page_size;
	uint64_t pages;

	if (!vfe_is_pow2(page) || range->range_length == 0 ||
		!vfe_is_aligned(range->range_addr | range->range_length, page) ||
		range->range_length - 1 > UINT64_MAX - range->range_addr)
		return 0;
	pages = range->range_length / page;
	switch (range->mode) {
	case VFE_ADMIN_TRACK_PUSH_BITMAP:
	case VFE_ADMIN_TRACK_PULL_BITMAP:
		return pages / 8 + (pages % 8 != 0);
	case VFE_ADMIN_TRACK_PUSH_BYTEMAP:
	case VFE_ADMIN_TRACK_PULL_BYTEMAP:
		return pages;
	default:
		return 0;
	}
}

static bool
track_start_fits(const struct vfe_wire_admin_track_start *range,
	const struct vfe_wire_admin_sge *sges, unsigned int nr_sges)
{
	const bool push = range->mode == VFE_ADMIN_TRACK_PUSH_BITMAP ||
			  range->mode == VFE_ADMIN_TRACK_PUSH_BYTEMAP;
	const uint64_t needed = map_bytes(range);
	uint64_t room = 0;
	unsigned int i;

	if (needed == 0 || nr_sges > MAX_SGES || push != (nr_sges > 0))
		return false;
	for (i = 0; i < nr_sges; i++) {
		if (sges[i].len == 0 || sges[i].addr > UINT64_MAX - sges[i].len)
			return false;
		room += sges[i].len;
	}
	return !push || room >= needed;
}

int
vfe_admin_track_start(struct vfe_admin *admin, uint16_t vf,
	const struct vfe_wire_admin_track_start *range, const struct vfe_wire_admin_sge *sges,
	unsigned int nr_sges, vfe_admin_done done, void *ctx)
{
	struct {
		struct vfe_wire_admin_track_start start;
		struct vfe_wire_admin_sge sges[MAX_SGES];
	} __attribute__((packed)) in = {
		.start =
			{
				.vdev_id = vdev_id(vf),
				.mode = htole16(range->mode),
				.page_size = htole32(range->page_size),
				.range_addr = htole64(range->range_addr),
				.range_length = htole64(range->range_length),
			},
	};
	unsigned int i;

	if (vf > MAX_VF || !track_start_fits(range, sges, nr_sges))
		return -EINVAL;
	for (i = 0; i < nr_sges; i++) {
		in.sges[i].addr = htole64(sges[i].addr);
		in.sges[i].len = htole32(sges[i].len);
	}
	return vfe_admin_submit(
		admin, &(struct vfe_admin_cmd){
			       .class_ = VFE_ADMIN_CLASS_DIRTY,
			       .cmd = VFE_ADMIN_DIRTY_START,
			       .in = &in,
			       .in_len = sizeof(in.start) + nr_sges * sizeof(in.sges[0]),
			       .timeout_ms = VFE_ADMIN_TRACK_TIMEOUT_MS,
			       .done = done,
			       .ctx = ctx,
		       });
}

/* A command whose input is VF and range. */
static int
track_range_command(struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, uint8_t cmd,
	size_t out_len, vfe_admin_done done, void *ctx)
{
	struct vfe_wire_admin_track_range in = {
		.vdev_id = vdev_id(vf),
		.range_addr = htole64(range_addr),
	};

	if (vf > MAX_VF)
		return -EINVAL;
	return vfe_admin_submit(admin, &(struct vfe_admin_cmd){
					       .class_ = VFE_ADMIN_CLASS_DIRTY,
					       .cmd = cmd,
					       .in = &in,
					       .in_len = sizeof(in),
					       .out_len = out_len,
					       .timeout_ms = VFE_ADMIN_TRACK_TIMEOUT_MS,
					       .done = done,
					       .ctx = ctx,
				       });
}

int
vfe_admin_track_stop(
	struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, vfe_admin_done done, void *ctx)
{
	return track_range_command(admin, vf, range_addr, VFE_ADMIN_DIRTY_STOP, 0, done, ctx);
}

int
vfe_admin_track_pending(
	struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, vfe_admin_done done, void *ctx)
{
	return track_range_command(admin, vf, range_addr, VFE_ADMIN_DIRTY_PENDING_BYTES,
		sizeof(struct vfe_wire_admin_pending_result), done, ctx);
}

int
vfe_admin_track_report(struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, uint64_t offset,
	uint64_t length, vfe_admin_done done, void *ctx)
{
	struct vfe_wire_admin_track_report in = {
		.vdev_id = vdev_id(vf),
		.offset = htole64(offset),
		.length = htole64(length),
		.range_addr = htole64(range_addr),
	};

	if (vf > MAX_VF || length == 0 || length > SIZE_MAX || offset > UINT64_MAX - length)
		return -EINVAL;
	return vfe_admin_submit(admin, &(struct vfe_admin_cmd){
					       .class_ = VFE_ADMIN_CLASS_DIRTY,
					       .cmd = VFE_ADMIN_DIRTY_REPORT,
					       .in = &in,
					       .in_len = sizeof(in),
					       .out_len = (size_t)length,
					       .timeout_ms = VFE_ADMIN_TRACK_TIMEOUT_MS,
					       .done = done,
					       .ctx = ctx,
				       });
}

/* --- identity --- */

struct identify {
	struct vfe_admin *admin;
	vfe_admin_done done;
	void *ctx;
};

static void
identify_end(struct identify *id, int status, const struct vfe_error *err)
{
	id->done(id->ctx, status, NULL, 0, status < 0 ? err : NULL);
	free(id);
}

/* What the device says must fit what it has negotiated; a mode that does not is not used. */
static int
take_dirty_identity(struct vfe_admin_caps *caps, struct vfe_error *err)
{
	const uint16_t bitmap = caps->log_max_pages_pull_bitmap;
	const uint16_t bytemap = caps->log_max_pages_pull_bytemap;
	const uint64_t f = caps->features;

	if (caps->max_track_ranges == 0)
		return vfe_error_set(err, -EPROTO,
			"dirty tracking is negotiated (0x%llx), but the device tracks 0 ranges",
			(unsigned long long)(f & dirty_features));
	caps->dirty_push_bitmap = (f & VFE_BIT(VFE_ADMIN_F_DIRTY_PUSH_BITMAP)) != 0;
	caps->dirty_push_bytemap = (f & VFE_BIT(VFE_ADMIN_F_DIRTY_PUSH_BYTEMAP)) != 0;
	if ((f & VFE_BIT(VFE_ADMIN_F_DIRTY_PULL_BITMAP)) != 0) {
		if (bitmap == 0 || bitmap > MAX_LOG_PAGES)
			return vfe_error_set(err, -EPROTO,
				"pulling a bitmap is negotiated, but the device holds 2^%u pages",
				bitmap);
		caps->dirty_pull_bitmap = true;
	}
	if ((f & VFE_BIT(VFE_ADMIN_F_DIRTY_PULL_BYTEMAP)) != 0) {
		if (bytemap == 0 || bytemap > MAX_LOG_PAGES)
			return vfe_error_set(err, -EPROTO,
				"pulling a bytemap is negotiated, but the device holds 2^%u pages",
				bytemap);
		caps->dirty_pull_bytemap = true;
	}
	return 0;
}

static void
on_dirty_identity(
	void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct identify *id = ctx;
	struct vfe_admin_caps *caps = admin_caps_mutable(id->admin);
	struct vfe_wire_admin_dirty_identity result;
	struct vfe_error text = {0};

	if (status == 0) {
		memcpy(&result, out, out_len);
		caps->log_max_pages_pull_bitmap = le16toh(result.log_max_pages_pull_bitmap);
		caps->log_max_pages_pull_bytemap = le16toh(result.log_max_pages_pull_bytemap);
		caps->max_track_ranges = le32toh(result.max_track_ranges);
		status = take_dirty_identity(caps, &text);
		err = &text;
	}
	identify_end(id, status, err);
}

static void
on_migration_identity(
	void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct identify *id = ctx;
	struct vfe_admin_caps *caps = admin_caps_mutable(id->admin);
	struct vfe_wire_admin_mig_identity result;
	struct vfe_error text;
	int rc;

	if (status < 0) {
		identify_end(id, status, err);
		return;
	}
	memcpy(&result, out, out_len);
	caps->major = le16toh(result.major);
	caps->minor = le16toh(result.minor);
	if ((caps->features & dirty_features) == 0) {
		identify_end(id, 0, NULL);
		return;
	}
	rc = vfe_admin_submit(
		id->admin, &(struct vfe_admin_cmd){
				   .class_ = VFE_ADMIN_CLASS_DIRTY,
				   .cmd = VFE_ADMIN_DIRTY_IDENTITY,
				   .out_len = sizeof(struct vfe_wire_admin_dirty_identity),
				   .done = on_dirty_identity,
				   .ctx = id,
			   });
	if (rc < 0) {
		vfe_error_set(&text, rc, "admin command 65/0: %s", strerror(-rc));
		identify_end(id, rc, &text);
	}
}

int
vfe_admin_identify(struct vfe_admin *admin, vfe_admin_done done, void *ctx)
{
	struct identify *id = malloc(sizeof(*id));
	int rc;

	if (id == NULL)
		return -ENOMEM;
	*id = (struct identify){admin, done, ctx};
	rc = vfe_admin_submit(admin, &(struct vfe_admin_cmd){
					     .class_ = VFE_ADMIN_CLASS_MIGRATION,
					     .cmd = VFE_ADMIN_MIG_IDENTITY,
					     .out_len = sizeof(struct vfe_wire_admin_mig_identity),
					     .done = on_migration_identity,
					     .ctx = id,
				     });
	if (rc < 0)
		free(id);
	return rc;
}
