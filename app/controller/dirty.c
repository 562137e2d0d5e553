/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Dirty page tracking of a VF: ranges, maps, marking, reports.
 */

#include "dirty.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A part of a map that is contiguous for us. */
struct piece {
	uint64_t off; /* in the map */
	uint64_t len;
	uint8_t *va;
};

struct range {
	/* read by workers */
	uint64_t addr;
	uint64_t last; /* address */
	uint32_t shift;
	bool bytes;
	bool coarse;
	uint32_t lose; /* test knob: each page whose number is a multiple of this stays clean */
	uint32_t nr_pieces;
	struct piece *pieces;

	uint16_t mode;
	uint64_t pages;
	uint64_t map_bytes;
	void *own; /* pull modes */
	bool failed;

	/* written by workers */
	_Atomic uint64_t marked __attribute__((aligned(64))); /* pages that were clean before */
	_Atomic uint64_t end; /* bytes of the map that may be other than 0 */
};

/* What workers see; never changed while they do. */
struct table {
	struct vfe_vring_watch watch;
	uint32_t nr;
	struct range *ranges[DIRTY_MAX_RANGES];
};

static_assert(offsetof(struct table, watch) == 0, "on_wrote() takes one for the other");

struct dirty {
	struct table tables[2];
	unsigned int current;
	uint32_t nr;
	struct range *ranges[DIRTY_MAX_RANGES]; /* those that failed, too */
};

uint64_t
dirty_features(uint32_t modes)
{
	/* the bits are in the order of the modes, which count from 1 */
	return (uint64_t)(modes >> VFE_ADMIN_TRACK_PUSH_BITMAP & 0xf)
	       << VFE_ADMIN_F_DIRTY_PUSH_BITMAP;
}

void
dirty_identity(uint32_t modes, struct vfe_wire_admin_dirty_identity *ret)
{
	*ret = (struct vfe_wire_admin_dirty_identity){0};
	if (modes != 0)
		ret->max_track_ranges = htole32(DIRTY_MAX_RANGES);
	if ((modes & 1u << VFE_ADMIN_TRACK_PULL_BITMAP) != 0)
		ret->log_max_pages_pull_bitmap = htole16(DIRTY_LOG_MAX_PAGES_BITMAP);
	if ((modes & 1u << VFE_ADMIN_TRACK_PULL_BYTEMAP) != 0)
		ret->log_max_pages_pull_bytemap = htole16(DIRTY_LOG_MAX_PAGES_BYTEMAP);
}

bool
dirty_mode_is_push(uint16_t mode)
{
	return mode == VFE_ADMIN_TRACK_PUSH_BITMAP || mode == VFE_ADMIN_TRACK_PUSH_BYTEMAP;
}

static bool
is_bytes(uint16_t mode)
{
	return mode == VFE_ADMIN_TRACK_PUSH_BYTEMAP || mode == VFE_ADMIN_TRACK_PULL_BYTEMAP;
}

/* --- marking, on the workers --- */

static inline uint8_t *
map_byte(const struct range *r, uint64_t index)
{
	const struct piece *p = r->pieces;
	uint32_t low = 0, high = r->nr_pieces, mid;

	/* the last piece that does not begin behind it: together they are the whole map */
	while (vfe_unlikely(high - low > 1)) {
		mid = low + (high - low) / 2;
		if (p[mid].off <= index)
			low = mid;
		else
			high = mid;
	}
	return p[low].va + (index - p[low].off);
}

/*
 * The bits of @bits, of which bit 0 is @page, that are not to be lost. Numbers of pages are those
 * of addresses, wherever the range begins.
 */
static uint8_t
without_lost(const struct range *r, uint64_t page, uint8_t bits)
{
	const uint64_t base = (r->addr >> r->shift) + page;
	unsigned int i;

	for (i = 0; i < 8; i++) {
		if ((base + i) % r->lose == 0)
			bits &= (uint8_t) ~(1u << i);
	}
	return bits;
}

static inline void
mark_byte(struct range *r, uint64_t index, uint8_t bits)
{
	uint64_t end = atomic_load_explicit(&r->end, memory_order_relaxed);
	uint8_t old = __atomic_fetch_or(map_byte(r, index), bits, __ATOMIC_RELEASE);

	if ((bits & ~old) == 0)
		return;
	atomic_fetch_add_explicit(&r->marked, (uint64_t)__builtin_popcount((uint8_t)(bits & ~old)),
		memory_order_relaxed);
	while (index >= end && !atomic_compare_exchange_weak_explicit(&r->end, &end, index + 1,
				       memory_order_relaxed, memory_order_relaxed))
		;
}

static void
mark_bits(struct range *r, uint64_t first, uint64_t last)
{
	uint64_t page, index;
	uint8_t bits;

	for (index = first / 8; index <= last / 8; index++) {
		page = index * 8;
		bits = 0xff;
		if (!r->coarse) {
			if (first > page)
				bits = (uint8_t)(bits << (first - page));
			if (last < page + 7)
				bits &= (uint8_t)(0xff >> (page + 7 - last));
		}
		if (vfe_unlikely(r->lose != 0))
			bits = without_lost(r, page, bits);
		if (bits != 0)
			mark_byte(r, index, bits);
	}
}

static void
mark_bytes(struct range *r, uint64_t first, uint64_t last)
{
	uint64_t page;

	for (page = first; page <= last; page++) {
		if (vfe_likely(r->lose == 0) || (without_lost(r, page, 1) & 1) != 0)
			mark_byte(r, page, 1);
	}
}

static void
on_wrote(const struct vfe_vring_watch *watch, uint64_t iova, uint64_t len)
{
	const struct table *table = (const struct table *)(const void *)watch;
	const uint64_t last = iova + len - 1;
	uint64_t from, to;
	uint32_t i;

	for (i = 0; i < table->nr && len > 0; i++) {
		struct range *r = table->ranges[i];

		if (last < r->addr || iova > r->last)
			continue;
		from = iova > r->addr ? (iova - r->addr) >> r->shift : 0;
		to = ((last < r->last ? last : r->last) - r->addr) >> r->shift;
		if (r->bytes)
			mark_bytes(r, from, to);
		else
			mark_bits(r, from, to);
	}
}

/* --- the set of ranges --- */

/* Let workers mark all ranges that have not failed. */
static void
use_ranges(struct function *vf)
{
	struct dirty *dirty = vf->dirty;
	struct table *next = &dirty->tables[1 - dirty->current];
	uint32_t i;

	next->watch.wrote = on_wrote;
	next->nr = 0;
	for (i = 0; i < dirty->nr; i++) {
		if (!dirty->ranges[i]->failed)
			next->ranges[next->nr++] = dirty->ranges[i];
	}
	dirty->current = 1 - dirty->current;
	vf->type->set_watch(vf, next->nr > 0 ? &next->watch : NULL);
}

static void
range_free(struct range *r)
{
	if (r->own != NULL)
		munmap(r->own, r->map_bytes);
	free(r->pieces);
	free(r);
}

/* The range that begins at @addr, or NULL. */
static struct range *
range_at(const struct function *vf, uint64_t addr)
{
	uint32_t i;

	for (i = 0; vf->dirty != NULL && i < vf->dirty->nr; i++) {
		if (vf->dirty->ranges[i]->addr == addr)
			return vf->dirty->ranges[i];
	}
	return NULL;
}

static void
remove_range(struct function *vf, struct range *r)
{
	struct dirty *dirty = vf->dirty;
	uint32_t i;

	for (i = 0; dirty->ranges[i] != r; i++)
		;
	dirty->ranges[i] = dirty->ranges[--dirty->nr];
	use_ranges(vf);
	range_free(r);
}

/* Pages of the pull ranges of @mode. */
static uint64_t
pages_held(const struct dirty *dirty, uint16_t mode)
{
	uint64_t pages = 0;
	uint32_t i;

	for (i = 0; i < dirty->nr; i++)
		pages += dirty->ranges[i]->mode == mode ? dirty->ranges[i]->pages : 0;
	return pages;
}

static int
check_request(struct function *vf, const struct range *want, uint32_t page_size, uint64_t length,
	struct vfe_error *err)
{
	const uint32_t offered = vf->env->config->dirty_modes;

	if (config_dirty_mode_name(want->mode) == NULL || (offered >> want->mode & 1) == 0 ||
		vf->type->set_watch == NULL)
		return vfe_error_set(err, -EINVAL, "tracking mode %u (%s) is not offered",
			want->mode,
			config_dirty_mode_name(want->mode) != NULL
				? config_dirty_mode_name(want->mode)
				: "unknown");
	if (!vfe_is_pow2(page_size) || page_size < DIRTY_MIN_PAGE || page_size > DIRTY_MAX_PAGE)
		return vfe_error_set(err, -EINVAL,
			"page size %u, expected a power of two from %u to %u", page_size,
			DIRTY_MIN_PAGE, DIRTY_MAX_PAGE);
	if (length == 0 || length - 1 > UINT64_MAX - want->addr)
		return vfe_error_set(err, -EINVAL, "range 0x%llx + 0x%llx",
			(unsigned long long)want->addr, (unsigned long long)length);
	if (!vfe_is_aligned(want->addr, page_size))
		return vfe_error_set(err, -EINVAL, "range at 0x%llx is not aligned to pages of %u",
			(unsigned long long)want->addr, page_size);
	return 0;
}

/* Is there room for @want among the ranges of the VF? */
static int
check_room(const struct dirty *dirty, const struct range *want, struct vfe_error *err)
{
	const unsigned int log =
		want->bytes ? DIRTY_LOG_MAX_PAGES_BYTEMAP : DIRTY_LOG_MAX_PAGES_BITMAP;
	const uint64_t max = VFE_BIT(log);
	uint32_t i;

	for (i = 0; i < dirty->nr; i++) {
		const struct range *r = dirty->ranges[i];

		if (want->addr <= r->last && r->addr <= want->last)
			return vfe_error_set(err, -EEXIST,
				"0x%llx to 0x%llx is being tracked already",
				(unsigned long long)r->addr, (unsigned long long)r->last);
	}
	if (dirty->nr == DIRTY_MAX_RANGES)
		return vfe_error_set(
			err, -ENOSPC, "%u ranges are tracked, that is all", DIRTY_MAX_RANGES);
	if (!dirty_mode_is_push(want->mode) &&
		(want->pages > max || pages_held(dirty, want->mode) > max - want->pages))
		return vfe_error_set(err, -ENOSPC, "%llu pages, more than 2^%u in all",
			(unsigned long long)want->pages, log);
	return 0;
}

/* Map of a pull mode: address space that costs memory only where something is marked. */
static int
make_own_map(struct range *r, struct vfe_error *err)
{
	void *map = mmap(NULL, r->map_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return vfe_error_set(err, -ENOMEM, "no memory for a map of %llu bytes",
			(unsigned long long)r->map_bytes);
	r->own = map;
	r->pieces = malloc(sizeof(*r->pieces));
	if (r->pieces == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a range");
	r->pieces[0] = (struct piece){.len = r->map_bytes, .va = map};
	r->nr_pieces = 1;
	return 0;
}

/* Append [@va, @va + @len) to the map; what it does not need is left away. */
static int
add_piece(struct range *r, uint8_t *va, uint64_t len, struct vfe_error *err)
{
	const struct piece *before = r->nr_pieces > 0 ? &r->pieces[r->nr_pieces - 1] : NULL;
	const uint64_t off = before != NULL ? before->off + before->len : 0;
	struct piece *grown;

	if (len > r->map_bytes - off)
		len = r->map_bytes - off;
	if (len == 0)
		return 0;
	grown = realloc(r->pieces, (r->nr_pieces + 1) * sizeof(*grown));
	if (grown == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a range");
	r->pieces = grown;
	r->pieces[r->nr_pieces++] = (struct piece){.off = off, .len = len, .va = va};
	return 0;
}

/* One SGE: it may go through several regions of the PF's memory. */
static int
add_sge(struct range *r, const struct vfe_iova_map *map, uint64_t addr, uint64_t left,
	struct vfe_error *err)
{
	const struct vfe_iova_region *region;
	uint64_t part;
	int rc;

	while (left > 0) {
		region = map != NULL ? vfe_iova_map_find(map, addr) : NULL;
		if (region == NULL || (region->prot & VFE_IOVA_WRITE) == 0)
			return vfe_error_set(err, -EINVAL,
				"map at 0x%llx is not in memory of the PF that can be written",
				(unsigned long long)addr);
		part = region->size - (addr - region->iova);
		if (part > left)
			part = left;
		rc = add_piece(r, region->va + (addr - region->iova), part, err);
		if (rc < 0)
			return rc;
		addr += part;
		left -= part;
		if (left > 0 && addr == 0)
			return vfe_error_set(err, -EINVAL, "a part of the map wraps");
	}
	return 0;
}

static int
use_sges(struct function *pf, struct range *r, const struct vfe_wire_admin_sge *sges, uint32_t nr,
	struct vfe_error *err)
{
	uint64_t have = 0;
	uint32_t i;
	int rc = function_map_update(pf, err);

	for (i = 0; i < nr && rc == 0; i++) {
		have += le32toh(sges[i].len);
		rc = add_sge(r, pf->map, le64toh(sges[i].addr), le32toh(sges[i].len), err);
	}
	if (rc == 0 && have < r->map_bytes)
		rc = vfe_error_set(err, -EINVAL, "%llu bytes for a map of %llu",
			(unsigned long long)have, (unsigned long long)r->map_bytes);
	return rc;
}

static int
new_range(struct function *vf, const struct vfe_wire_admin_track_start *in, struct range **ret,
	struct vfe_error *err)
{
	const struct range want = {
		.mode = le16toh(in->mode),
		.addr = le64toh(in->range_addr),
		.bytes = is_bytes(le16toh(in->mode)),
		.coarse = vf->env->config->dirty_coarse,
		.lose = vf->env->knobs.dirty_lose_pages,
	};
	const uint32_t page_size = le32toh(in->page_size);
	const uint64_t length = le64toh(in->range_length);
	struct range *r;
	int rc = check_request(vf, &want, page_size, length, err);

	if (rc < 0)
		return rc;
	r = aligned_alloc(64, sizeof(*r));
	if (r == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a range");
	memcpy(r, &want, sizeof(want));
	r->shift = (uint32_t)__builtin_ctz(page_size);
	r->last = want.addr + (length - 1);
	r->pages = ((length - 1) >> r->shift) + 1;
	r->map_bytes = r->bytes ? r->pages : (r->pages - 1) / 8 + 1;
	*ret = r;
	return 0;
}

int
dirty_start(struct function *vf, const struct vfe_wire_admin_track_start *in,
	const struct vfe_wire_admin_sge *sges, uint32_t nr, struct vfe_error *err)
{
	struct range *r = NULL, *old;
	int rc = new_range(vf, in, &r, err);

	if (rc < 0)
		return rc;
	if (vf->dirty == NULL) {
		vf->dirty = calloc(1, sizeof(*vf->dirty));
		if (vf->dirty == NULL) {
			rc = vfe_error_set(err, -ENOMEM, "no memory for tracking");
			goto err_free_range;
		}
	}
	/* what has failed makes room for a new attempt */
	old = range_at(vf, r->addr);
	if (old != NULL && old->failed)
		remove_range(vf, old);
	rc = check_room(vf->dirty, r, err);
	if (rc == 0)
		rc = dirty_mode_is_push(r->mode) ? use_sges(vf->pf, r, sges, nr, err)
						 : make_own_map(r, err);
	if (rc < 0)
		goto err_free_range;

	vf->dirty->ranges[vf->dirty->nr++] = r;
	use_ranges(vf);
	log_debug("%s: tracking 0x%llx to 0x%llx, %s, %llu pages", vf->name,
		(unsigned long long)r->addr, (unsigned long long)r->last,
		config_dirty_mode_name(r->mode), (unsigned long long)r->pages);
	return 0;

err_free_range:
	range_free(r);
	return rc;
}

int
dirty_stop(struct function *vf, uint64_t addr, struct vfe_error *err)
{
	struct range *r = range_at(vf, addr);
	int rc = 0;

	dirty_check_memory(vf);
	if (r == NULL && vf->dirty != NULL && vf->dirty->nr == 1)
		r = vf->dirty->ranges[0];
	if (r == NULL)
		return vfe_error_set(err, -ENOENT, "no range at 0x%llx is being tracked",
			(unsigned long long)addr);
	if (r->failed)
		rc = vfe_error_set(
			err, -EIO, "tracking of 0x%llx had failed", (unsigned long long)r->addr);
	log_debug("%s: tracking of 0x%llx stops, %llu pages were marked", vf->name,
		(unsigned long long)r->addr, (unsigned long long)atomic_load(&r->marked));
	remove_range(vf, r);
	return rc;
}

void
dirty_stop_all(struct function *vf)
{
	while (vf->dirty != NULL && vf->dirty->nr > 0)
		remove_range(vf, vf->dirty->ranges[0]);
}

void
dirty_destroy(struct function *vf)
{
	dirty_stop_all(vf);
	free(vf->dirty);
	vf->dirty = NULL;
}

/* --- memory of the PF that goes away --- */

static bool
uses_memory(const struct range *r, uintptr_t va, uint64_t size)
{
	uint32_t i;

	for (i = 0; i < r->nr_pieces; i++) {
		uintptr_t at = (uintptr_t)r->pieces[i].va;

		if (at < va + size && va < at + r->pieces[i].len)
			return true;
	}
	return false;
}

/* Fail all push ranges of @vf with a part in the given memory. */
static void
fail_ranges(struct function *vf, const void *va, uint64_t size)
{
	struct dirty *dirty = vf->dirty;
	bool any = false;
	uint32_t i;

	for (i = 0; dirty != NULL && i < dirty->nr; i++) {
		struct range *r = dirty->ranges[i];

		if (r->own != NULL || r->failed || !uses_memory(r, (uintptr_t)va, size))
			continue;
		r->failed = true;
		any = true;
		log_warn("%s: tracking of dirty pages from 0x%llx on failed: the memory of its map "
			 "is gone",
			vf->name, (unsigned long long)r->addr);
	}
	if (any)
		use_ranges(vf);
}

void
dirty_forget_memory(struct function *pf, const void *va, uint64_t size)
{
	uint16_t i;

	for (i = 0; pf->vfs != NULL && i < pf->cfg->nr_vfs; i++)
		fail_ranges(&pf->vfs[i], va, size);
}

void
dirty_check_memory(struct function *vf)
{
	const struct function *pf = vf->pf;
	uint32_t i;

	for (i = 0; vf->dirty != NULL && i < pf->nr_dmas; i++) {
		if (atomic_load(&pf->dmas[i]->tripped))
			fail_ranges(vf, pf->dmas[i]->va, pf->dmas[i]->size);
	}
}

/* --- reports --- */

static int
find_pull_range(const struct function *vf, uint64_t addr, struct range **ret, struct vfe_error *err)
{
	*ret = range_at(vf, addr);
	if (*ret == NULL)
		return vfe_error_set(err, -ENOENT, "no range at 0x%llx is being tracked",
			(unsigned long long)addr);
	if ((*ret)->own == NULL)
		return vfe_error_set(err, -EINVAL, "the map of the range at 0x%llx is pushed",
			(unsigned long long)addr);
	return 0;
}

int
dirty_pending(struct function *vf, uint64_t addr, uint64_t *ret, struct vfe_error *err)
{
	const uint8_t *map;
	struct range *r;
	uint64_t n;
	int rc = find_pull_range(vf, addr, &r, err);

	if (rc < 0)
		return rc;
	map = r->own;
	n = atomic_load(&r->end);
	/* by words where they are; the map begins at a page */
	while (n > 0 && n % sizeof(uint64_t) != 0 &&
		__atomic_load_n(&map[n - 1], __ATOMIC_RELAXED) == 0)
		n--;
	while (n > 0 && n % sizeof(uint64_t) == 0 &&
		__atomic_load_n((const uint64_t *)(const void *)&map[n - 8], __ATOMIC_RELAXED) == 0)
		n -= sizeof(uint64_t);
	while (n > 0 && __atomic_load_n(&map[n - 1], __ATOMIC_RELAXED) == 0)
		n--;
	*ret = n;
	return 0;
}

int
dirty_report(struct function *vf, uint64_t addr, uint64_t off, uint8_t *buf, uint64_t len,
	struct vfe_error *err)
{
	uint64_t at = off, end, word;
	struct range *r;
	uint8_t *map;
	int rc = find_pull_range(vf, addr, &r, err);

	if (rc < 0)
		return rc;
	if (len == 0 || !vfe_range_inside(off, len, r->map_bytes))
		return vfe_error_set(err, -EINVAL, "%llu bytes at %llu of a map of %llu",
			(unsigned long long)len, (unsigned long long)off,
			(unsigned long long)r->map_bytes);
	map = r->own;
	memset(buf, 0, len);
	end = atomic_load(&r->end);
	end = end < off + len ? end : off + len;
	/* clean parts are not written to: they have no memory yet */
	while (at < end) {
		if (at % sizeof(word) == 0 && end - at >= sizeof(word)) {
			uint64_t *p = (uint64_t *)(void *)&map[at];

			word = __atomic_load_n(p, __ATOMIC_RELAXED);
			if (word != 0) {
				word = __atomic_exchange_n(p, 0, __ATOMIC_ACQ_REL);
				memcpy(&buf[at - off], &word, sizeof(word));
			}
			at += sizeof(word);
		} else {
			buf[at - off] = __atomic_exchange_n(&map[at], 0, __ATOMIC_ACQ_REL);
			at++;
		}
	}
	return 0;
}

void
dirty_unreport(struct function *vf, uint64_t addr, uint64_t off, const uint8_t *buf, uint64_t len)
{
	struct range *r = range_at(vf, addr);
	uint8_t *map = r->own;
	uint64_t i;

	for (i = 0; i < len; i++) {
		if (buf[i] != 0)
			__atomic_fetch_or(&map[off + i], buf[i], __ATOMIC_RELEASE);
	}
}

/* --- for people --- */

json_t *
dirty_describe(const struct function *vf)
{
	json_t *ranges = json_array();
	uint32_t i;

	for (i = 0; vf->dirty != NULL && i < vf->dirty->nr; i++) {
		const struct range *r = vf->dirty->ranges[i];

		json_array_append_new(ranges,
			json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "mode",
				config_dirty_mode_name(r->mode), "address", (json_int_t)r->addr,
				"length", (json_int_t)(r->last - r->addr + 1), "page_size",
				(json_int_t)VFE_BIT(r->shift), "pages", (json_int_t)r->pages,
				"marked", (json_int_t)atomic_load(&r->marked), "failed",
				r->failed));
	}
	return ranges;
}
