/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The device's side of dirty page tracking: maps that it keeps, or pushes where it is told to.
 */

#undef NDEBUG

#include "fake_world.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANGES = 16, MAX_MAPPINGS = 256 };

static struct mapping {
	struct vfe_pci_domain *domain;
	uint64_t iova;
	uint64_t size;
	uint8_t *va;
} mappings[MAX_MAPPINGS]; /* world.lock, as all here */

static struct track {
	bool running;
	unsigned int nr;
	struct range {
		struct vfe_wire_admin_track_start start;
		struct vfe_wire_admin_sge sge;
		uint8_t *map; /* pull */
	} ranges[MAX_RANGES];
} tracks[FAKE_VFS];

void
fake_track_map(struct vfe_pci_domain *domain, const struct vfe_pci_dma *dma)
{
	unsigned int i;

	for (i = 0; mappings[i].domain != NULL; i++) {
		assert(i + 1 < MAX_MAPPINGS);
		assert(mappings[i].domain != domain ||
			mappings[i].iova + mappings[i].size <= dma->iova ||
			dma->iova + dma->size <= mappings[i].iova);
	}
	mappings[i] = (struct mapping){domain, dma->iova, dma->size, dma->va};
}

void
fake_track_unmap(struct vfe_pci_domain *domain, uint64_t iova)
{
	unsigned int i, last;

	for (last = 0; mappings[last].domain != NULL; last++)
		continue;
	for (i = 0; mappings[i].domain != domain || mappings[i].iova != iova; i++)
		assert(i < last);
	mappings[i] = mappings[last - 1];
	mappings[last - 1].domain = NULL;
}

/* Where the PF writes to: the maps are behind all guest memory that tests have. */
static uint8_t *
target_of(uint64_t iova)
{
	unsigned int i;

	for (i = 0; mappings[i].domain != NULL; i++) {
		if (iova >= 1ULL << 32 && iova >= mappings[i].iova &&
			iova < mappings[i].iova + mappings[i].size)
			return mappings[i].va + (iova - mappings[i].iova);
	}
	return NULL;
}

static bool
is_bytemap(const struct range *r)
{
	return r->start.mode == VFE_ADMIN_TRACK_PUSH_BYTEMAP ||
	       r->start.mode == VFE_ADMIN_TRACK_PULL_BYTEMAP;
}

static size_t
map_bytes(const struct range *r)
{
	uint64_t pages = r->start.range_length / r->start.page_size;

	return is_bytemap(r) ? pages : (pages + 7) / 8;
}

static void
drop(struct track *t, uint64_t addr)
{
	unsigned int i;

	for (i = 0; i < t->nr; i++) {
		if (t->ranges[i].start.range_addr != addr)
			continue;
		free(t->ranges[i].map);
		t->ranges[i] = t->ranges[--t->nr];
		return;
	}
}

void
fake_track_reset(void)
{
	unsigned int i;

	for (i = 0; i < FAKE_VFS; i++) {
		tracks[i].running = true; /* until it is told otherwise */
		while (tracks[i].nr > 0)
			drop(&tracks[i], tracks[i].ranges[0].start.range_addr);
	}
}

static struct range *
range_find(struct track *t, uint64_t addr)
{
	unsigned int i;

	for (i = 0; i < t->nr; i++) {
		if (t->ranges[i].start.range_addr == addr)
			return &t->ranges[i];
	}
	return NULL;
}

static void
start(struct track *t, const struct fake_track_cmd *cmd)
{
	struct range *r = &t->ranges[t->nr];

	assert(range_find(t, cmd->start.range_addr) == NULL && t->nr < MAX_RANGES);
	t->nr++;
	*r = (struct range){.start = cmd->start, .sge = cmd->sge};
	if (cmd->sge.len == 0) {
		r->map = calloc(1, map_bytes(r));
		assert(r->map != NULL);
	} else {
		assert(cmd->sge.len >= map_bytes(r));
		assert(target_of(cmd->sge.addr) != NULL);
	}
}

static void *
pending(struct track *t, const struct fake_track_cmd *cmd, size_t *ret_len)
{
	struct vfe_wire_admin_pending_result *out = calloc(1, sizeof(*out));
	struct range *r = range_find(t, cmd->range_addr);
	size_t i;

	assert(out != NULL && r != NULL && r->map != NULL);
	for (i = 0; i < map_bytes(r); i++)
		out->bytes |= r->map[i] != 0 ? htole64(map_bytes(r)) : 0;
	*ret_len = sizeof(*out);
	return out;
}

static void *
report(struct track *t, const struct fake_track_cmd *cmd, size_t *ret_len)
{
	struct range *r = range_find(t, cmd->range_addr);
	uint8_t *out = malloc(cmd->length);

	assert(out != NULL && r != NULL && r->map != NULL);
	assert(vfe_range_inside(cmd->offset, cmd->length, map_bytes(r)));
	memcpy(out, r->map + cmd->offset, cmd->length);
	memset(r->map + cmd->offset, 0, cmd->length);
	*ret_len = cmd->length;
	return out;
}

void *
fake_track_execute(
	unsigned int vf, enum fake_kind kind, const struct fake_track_cmd *cmd, size_t *ret_len)
{
	struct track *t = &tracks[vf];

	switch (kind) {
	case FAKE_RUN:
		t->running = true;
		return NULL;
	case FAKE_QUIESCE:
	case FAKE_FREEZE:
		t->running = false;
		return NULL;
	case FAKE_TRACK_START:
		start(t, cmd);
		return NULL;
	case FAKE_TRACK_STOP:
		drop(t, cmd->range_addr);
		return NULL;
	case FAKE_TRACK_PENDING:
		return pending(t, cmd, ret_len);
	case FAKE_TRACK_REPORT:
		return report(t, cmd, ret_len);
	default:
		return NULL;
	}
}

bool
fake_device_writes(unsigned int i, uint64_t gpa)
{
	struct track *t = &tracks[i];
	struct range *r;
	bool marked = false;
	uint64_t page;
	uint8_t *map;
	unsigned int k;

	pthread_mutex_lock(&world.lock);
	for (k = 0; t->running && k < t->nr; k++) {
		r = &t->ranges[k];
		if (gpa < r->start.range_addr || gpa - r->start.range_addr >= r->start.range_length)
			continue;
		page = (gpa - r->start.range_addr) / r->start.page_size;
		map = r->map != NULL ? r->map : target_of(r->sge.addr);
		assert(map != NULL);
		if (is_bytemap(r))
			__atomic_store_n(&map[page], 1, __ATOMIC_RELEASE);
		else
			__atomic_fetch_or(
				&map[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_RELEASE);
		marked = true;
	}
	pthread_mutex_unlock(&world.lock);
	return marked;
}

unsigned int
fake_track_mode(unsigned int i)
{
	unsigned int mode;

	pthread_mutex_lock(&world.lock);
	mode = tracks[i].nr > 0 ? tracks[i].ranges[0].start.mode : 0;
	pthread_mutex_unlock(&world.lock);
	return mode;
}

bool
fake_device_tracks(unsigned int i)
{
	return fake_track_mode(i) != 0;
}

int
vfe_admin_track_start(struct vfe_admin *admin, uint16_t vf,
	const struct vfe_wire_admin_track_start *range, const struct vfe_wire_admin_sge *sges,
	unsigned int nr_sges, vfe_admin_done done, void *ctx)
{
	struct fake_track_cmd cmd = {.start = *range};

	assert(nr_sges <= 1 && range->page_size == 4096);
	if (nr_sges == 1)
		cmd.sge = *sges;
	return fake_admin_submit(admin, vf, FAKE_TRACK_START, &cmd, done, ctx);
}

int
vfe_admin_track_stop(
	struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, vfe_admin_done done, void *ctx)
{
	struct fake_track_cmd cmd = {.range_addr = range_addr};

	return fake_admin_submit(admin, vf, FAKE_TRACK_STOP, &cmd, done, ctx);
}

int
vfe_admin_track_pending(
	struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, vfe_admin_done done, void *ctx)
{
	struct fake_track_cmd cmd = {.range_addr = range_addr};

	return fake_admin_submit(admin, vf, FAKE_TRACK_PENDING, &cmd, done, ctx);
}

int
vfe_admin_track_report(struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, uint64_t offset,
	uint64_t length, vfe_admin_done done, void *ctx)
{
	struct fake_track_cmd cmd = {.range_addr = range_addr, .offset = offset, .length = length};

	return fake_admin_submit(admin, vf, FAKE_TRACK_REPORT, &cmd, done, ctx);
}
