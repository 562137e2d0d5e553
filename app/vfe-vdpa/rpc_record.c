/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * JSON records: a VF, and feature bits with their names.
 */

#include "rpc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfe_wire_admin.h"
#include "vfe_wire_blk.h"
#include "vfe_wire_net.h"
#include "vfe_wire_pci.h"
#include "vfe_wire_virtio.h"

struct feature_name {
	unsigned int bit;
	const char *name;
};

static const struct feature_name common_names[] = {
	{VFE_VIRTIO_F_RING_INDIRECT_DESC, "VIRTIO_RING_F_INDIRECT_DESC"},
	{VFE_VIRTIO_F_RING_EVENT_IDX, "VIRTIO_RING_F_EVENT_IDX"},
	{VFE_VIRTIO_F_VERSION_1, "VIRTIO_F_VERSION_1"},
	{VFE_VIRTIO_F_ACCESS_PLATFORM, "VIRTIO_F_ACCESS_PLATFORM"},
	{VFE_VIRTIO_F_RING_PACKED, "VIRTIO_F_RING_PACKED"},
	{VFE_VIRTIO_F_IN_ORDER, "VIRTIO_F_IN_ORDER"},
	{VFE_VIRTIO_F_ORDER_PLATFORM, "VIRTIO_F_ORDER_PLATFORM"},
	{VFE_VIRTIO_F_SR_IOV, "VIRTIO_F_SR_IOV"},
	{VFE_VIRTIO_F_NOTIFICATION_DATA, "VIRTIO_F_NOTIFICATION_DATA"},
	{VFE_VIRTIO_F_NOTIF_CONFIG_DATA, "VIRTIO_F_NOTIF_CONFIG_DATA"},
	{VFE_VIRTIO_F_RING_RESET, "VIRTIO_F_RING_RESET"},
	{VFE_ADMIN_F_VQ, "VIRTIO_F_ADMIN_VQ"},
	{VFE_ADMIN_F_VQ_INDIRECT_DESC, "VIRTIO_F_ADMIN_VQ_INDIRECT_DESC"},
	{VFE_ADMIN_F_VQ_IN_ORDER, "VIRTIO_F_ADMIN_VQ_IN_ORDER"},
	{VFE_ADMIN_F_MIGRATION, "VIRTIO_F_ADMIN_MIGRATION"},
	{VFE_ADMIN_F_DYNAMIC_STATE_TRACK, "VIRTIO_F_ADMIN_MIGRATION_DYNAMIC_INTERNAL_STATE_TRACK"},
	{VFE_ADMIN_F_DIRTY_PUSH_BITMAP, "VIRTIO_F_ADMIN_DIRTY_PAGE_PUSH_BITMAP_TRACK"},
	{VFE_ADMIN_F_DIRTY_PUSH_BYTEMAP, "VIRTIO_F_ADMIN_DIRTY_PAGE_PUSH_BYTEMAP_TRACK"},
	{VFE_ADMIN_F_DIRTY_PULL_BITMAP, "VIRTIO_F_ADMIN_DIRTY_PAGE_PULL_BITMAP_TRACK"},
	{VFE_ADMIN_F_DIRTY_PULL_BYTEMAP, "VIRTIO_F_ADMIN_DIRTY_PAGE_PULL_BYTEMAP_TRACK"},
};

static const struct feature_name net_names[] = {
	{VFE_NET_F_CSUM, "VIRTIO_NET_F_CSUM"},
	{VFE_NET_F_GUEST_CSUM, "VIRTIO_NET_F_GUEST_CSUM"},
	{VFE_NET_F_CTRL_GUEST_OFFLOADS, "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS"},
	{VFE_NET_F_MTU, "VIRTIO_NET_F_MTU"},
	{VFE_NET_F_MAC, "VIRTIO_NET_F_MAC"},
	{VFE_NET_F_GUEST_TSO4, "VIRTIO_NET_F_GUEST_TSO4"},
	{VFE_NET_F_GUEST_TSO6, "VIRTIO_NET_F_GUEST_TSO6"},
	{VFE_NET_F_GUEST_ECN, "VIRTIO_NET_F_GUEST_ECN"},
	{VFE_NET_F_GUEST_UFO, "VIRTIO_NET_F_GUEST_UFO"},
	{VFE_NET_F_HOST_TSO4, "VIRTIO_NET_F_HOST_TSO4"},
	{VFE_NET_F_HOST_TSO6, "VIRTIO_NET_F_HOST_TSO6"},
	{VFE_NET_F_HOST_ECN, "VIRTIO_NET_F_HOST_ECN"},
	{VFE_NET_F_HOST_UFO, "VIRTIO_NET_F_HOST_UFO"},
	{VFE_NET_F_MRG_RXBUF, "VIRTIO_NET_F_MRG_RXBUF"},
	{VFE_NET_F_STATUS, "VIRTIO_NET_F_STATUS"},
	{VFE_NET_F_CTRL_VQ, "VIRTIO_NET_F_CTRL_VQ"},
	{VFE_NET_F_CTRL_RX, "VIRTIO_NET_F_CTRL_RX"},
	{VFE_NET_F_CTRL_VLAN, "VIRTIO_NET_F_CTRL_VLAN"},
	{VFE_NET_F_CTRL_RX_EXTRA, "VIRTIO_NET_F_CTRL_RX_EXTRA"},
	{VFE_NET_F_GUEST_ANNOUNCE, "VIRTIO_NET_F_GUEST_ANNOUNCE"},
	{VFE_NET_F_MQ, "VIRTIO_NET_F_MQ"},
	{VFE_NET_F_CTRL_MAC_ADDR, "VIRTIO_NET_F_CTRL_MAC_ADDR"},
	{VFE_NET_F_HASH_REPORT, "VIRTIO_NET_F_HASH_REPORT"},
	{VFE_NET_F_RSS, "VIRTIO_NET_F_RSS"},
	{VFE_NET_F_SPEED_DUPLEX, "VIRTIO_NET_F_SPEED_DUPLEX"},
};

static const struct feature_name blk_names[] = {
	{VFE_BLK_F_SIZE_MAX, "VIRTIO_BLK_F_SIZE_MAX"},
	{VFE_BLK_F_SEG_MAX, "VIRTIO_BLK_F_SEG_MAX"},
	{VFE_BLK_F_RO, "VIRTIO_BLK_F_RO"},
	{VFE_BLK_F_BLK_SIZE, "VIRTIO_BLK_F_BLK_SIZE"},
	{VFE_BLK_F_FLUSH, "VIRTIO_BLK_F_FLUSH"},
	{VFE_BLK_F_TOPOLOGY, "VIRTIO_BLK_F_TOPOLOGY"},
	{VFE_BLK_F_CONFIG_WCE, "VIRTIO_BLK_F_CONFIG_WCE"},
	{VFE_BLK_F_MQ, "VIRTIO_BLK_F_MQ"},
	{VFE_BLK_F_DISCARD, "VIRTIO_BLK_F_DISCARD"},
	{VFE_BLK_F_WRITE_ZEROES, "VIRTIO_BLK_F_WRITE_ZEROES"},
};

static const char *
feature_name_find(const struct feature_name *names, size_t n, unsigned int bit)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (names[i].bit == bit)
			return names[i].name;
	}
	return NULL;
}

static void string_set(json_t *object, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void
string_set(json_t *object, const char *key, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_object_set_new(object, key, json_string(text));
}

json_t *
rpc_features(uint16_t device_id, uint64_t features)
{
	json_t *object = json_object();
	unsigned int bit;

	string_set(object, "value", "%#" PRIx64, features);
	for (bit = 0; bit < 64; bit++) {
		const char *name =
			feature_name_find(common_names, VFE_ARRAY_SIZE(common_names), bit);
		char key[8];

		if ((features & VFE_BIT(bit)) == 0)
			continue;
		if (name == NULL && device_id == VFE_PCI_DEVICE_VIRTIO_NET)
			name = feature_name_find(net_names, VFE_ARRAY_SIZE(net_names), bit);
		if (name == NULL && device_id == VFE_PCI_DEVICE_VIRTIO_BLK)
			name = feature_name_find(blk_names, VFE_ARRAY_SIZE(blk_names), bit);
		vfe_str_format(key, sizeof(key), "%5u", bit);
		json_object_set_new(object, key, json_string(name != NULL ? name : "unknown"));
	}
	return object;
}

static json_t *
queue_records(const struct vfe_vdpa_vf_info *info)
{
	json_t *queues = json_array();
	unsigned int i;

	for (i = 0; i < info->queue_num && i < VFE_VDPA_MAX_QUEUES; i++) {
		const struct vfe_vdpa_queue_info *q = &info->queues[i];

		json_array_append_new(queues,
			json_pack("{s:i, s:b, s:i, s:i, s:b, s:I, s:b, s:I}", "queue", (int)i,
				"enabled", q->enabled, "size", (int)q->size, "start_index",
				(int)q->last_avail_idx, "host_notifier", q->host_notifier,
				"relayed_kicks", (json_int_t)q->relayed_kicks, "shadow", q->shadow,
				"relayed_chains", (json_int_t)q->relayed_chains));
	}
	return queues;
}

static json_t *
transit_record(const struct vfe_vdpa_transit *t)
{
	static const char *const phases[VFE_VDPA_NR_PHASES] = {
		[VFE_VDPA_PHASE_OTHER] = "other_us",
		[VFE_VDPA_PHASE_QUIESCE] = "quiesce_us",
		[VFE_VDPA_PHASE_FREEZE] = "freeze_us",
		[VFE_VDPA_PHASE_FLUSH] = "flush_us",
		[VFE_VDPA_PHASE_RESET] = "reset_us",
		[VFE_VDPA_PHASE_PREPARE] = "prepare_us",
		[VFE_VDPA_PHASE_RESTORE] = "restore_us",
		[VFE_VDPA_PHASE_TRACK] = "track_us",
		[VFE_VDPA_PHASE_UNQUIESCE] = "unquiesce_us",
		[VFE_VDPA_PHASE_START] = "start_us",
	};
	json_t *r;
	unsigned int i;

	if (t->begin_unix_us == 0)
		return json_null();
	r = json_pack("{s:b, s:I, s:f, s:i}", "ok", t->ok, "begin_unix_us",
		(json_int_t)t->begin_unix_us, "total_us", (double)t->total_ns / 1000.0, "commands",
		(int)t->commands);
	for (i = 0; i < VFE_VDPA_NR_PHASES; i++) {
		if (t->phase_ns[i] != 0)
			json_object_set_new(
				r, phases[i], json_real((double)t->phase_ns[i] / 1000.0));
	}
	return r;
}

static json_t *
dirty_record(const struct vfe_vdpa_dirty_info *d)
{
	json_t *r = json_pack("{s:I, s:I, s:I, s:I, s:f, s:f}", "rounds", (json_int_t)d->rounds,
		"pages", (json_int_t)d->pages, "map_bytes", (json_int_t)d->map_bytes, "marked_all",
		(json_int_t)d->all, "merge_us", (double)d->merge_ns / 1000.0, "last_merge_us",
		(double)d->last_merge_ns / 1000.0);

	string_set(r, "mode", "%s", d->mode);
	string_set(r, "last_error", "%s", d->last_error);
	return r;
}

static json_t *
migration_record(const struct vfe_vdpa_vf_info *info)
{
	json_t *r = json_object();

	string_set(r, "state", "%s", info->migration);
	json_object_set_new(r, "dirty", dirty_record(&info->dirty));
	json_object_set_new(r, "last_suspend", transit_record(&info->last_suspend));
	json_object_set_new(r, "last_resume", transit_record(&info->last_resume));
	return r;
}

static void
net_record(json_t *r, const struct vfe_vdpa_vf_info *info)
{
	string_set(r, "mtu", "%u", info->mtu);
	string_set(r, "mac", "%02x:%02x:%02x:%02x:%02x:%02x", info->mac[0], info->mac[1],
		info->mac[2], info->mac[3], info->mac[4], info->mac[5]);
}

static void
blk_record(json_t *r, const struct vfe_vdpa_vf_info *info)
{
	json_object_set_new(r, "capacity", json_integer((json_int_t)info->capacity));
	json_object_set_new(r, "block_size", json_integer(info->block_size));
	json_object_set_new(r, "read_only", json_boolean(info->read_only));
	json_object_set_new(r, "writeback", json_boolean(info->writeback));
}

/* The members of the incumbent first and as it prints them (numbers as strings), then ours. */
json_t *
rpc_vf_record(const struct vfe_vdpa_vf_info *info, const struct port_info *port)
{
	char name[VFE_BDF_STR_SIZE], pf[VFE_BDF_STR_SIZE];
	bool blk = info->device_id == VFE_PCI_DEVICE_VIRTIO_BLK;
	json_t *r = json_object();

	string_set(r, "vf", "%s", vfe_bdf_format(&info->bdf, name));
	json_object_set_new(r, "probed", json_true());
	string_set(r, "msix_num", "%u", info->msix_num);
	string_set(r, "queue_num", "%u", info->queue_num);
	string_set(r, "queue_size", "%u", info->queue_size);
	json_object_set_new(
		r, "device_feature", rpc_features(info->device_id, info->device_features));
	if (!blk)
		net_record(r, info);
	string_set(r, "vm_uuid", "%s", info->uuid);
	string_set(r, "socket_file", "%s", port->path);
	json_object_set_new(r, "configured", json_boolean(info->configured));

	string_set(r, "socket_role", "%s", port->role);
	string_set(r, "type", "%s", blk ? "blk" : "net");
	if (blk)
		blk_record(r, info);
	else
		json_object_set_new(r, "link_up", json_boolean(info->link_up));
	string_set(r, "pf", "%s", vfe_bdf_format(&info->pf, pf));
	json_object_set_new(r, "vf_index", json_integer(info->vf_index));
	string_set(r, "drive", "%s", info->drive);
	if (strcmp(info->drive, "plain") == 0) {
		json_object_set_new(
			r, "device_resets", json_integer((json_int_t)info->device_resets));
		json_object_set_new(r, "ring_resets", json_integer((json_int_t)info->ring_resets));
		json_object_set_new(r, "no_iommu", json_boolean(info->no_iommu));
	}
	string_set(r, "transport", "%s", info->transport);
	string_set(r, "state", "%s", info->state);
	json_object_set_new(r, "connected", json_boolean(info->connected));
	json_object_set_new(r, "lost", json_boolean(info->lost));
	string_set(r, "last_error", "%s", info->last_error);
	json_object_set_new(
		r, "guest_feature", rpc_features(info->device_id, info->guest_features));
	json_object_set_new(
		r, "driver_feature", rpc_features(info->device_id, info->driver_features));
	json_object_set_new(r, "memory_regions", json_integer(info->nr_mem_regions));
	json_object_set_new(r, "memory_bytes", json_integer((json_int_t)info->mem_bytes));
	json_object_set_new(r, "migration", migration_record(info));
	json_object_set_new(r, "relayed_kicks", json_integer((json_int_t)info->relayed_kicks));
	json_object_set_new(r, "queues", queue_records(info));
	return r;
}
