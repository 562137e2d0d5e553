/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Memory of dirty page tracking: logs of front-ends, maps that a PF writes, and which of the
 * device's modes fits a guest.
 */

#include "vdpa_dirty.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "vdpa_priv.h"
#include "vfe_sigbus.h"

enum {
	PAGE = 4096,
	WORD_PAGES = 64, /* of a word of a bitmap; ranges begin at one */
};

/* Where the maps are for a PF: behind its arena. */
#define TARGET_IOVA (1ULL << 32)

/* --- logs --- */

/* Like guest memory: memory file systems only, all of it there. */
static int
log_check(int fd, uint64_t size, uint64_t offset, struct stat *st, struct statfs *fs,
	struct vfe_error *err)
{
	if (fstat(fd, st) < 0 || fstatfs(fd, fs) < 0)
		return vfe_error_set(err, -EINVAL, "log: bad fd: %s", strerror(errno));
	if (!S_ISREG(st->st_mode) || ((unsigned long)fs->f_type != TMPFS_MAGIC &&
					     (unsigned long)fs->f_type != HUGETLBFS_MAGIC))
		return vfe_error_set(err, -EINVAL,
			"log is not on tmpfs, memfd or hugetlbfs (file system %#lx)",
			(unsigned long)fs->f_type);
	if (size < sizeof(uint64_t) || !vfe_is_aligned(offset, sizeof(uint64_t)))
		return vfe_error_set(err, -EINVAL,
			"log of %" PRIu64 " bytes at offset %#" PRIx64 " is not made of words",
			size, offset);
	if (size > VDPA_DIRTY_MAX_LOG)
		return vfe_error_set(err, -EINVAL, "log of %" PRIu64 " bytes is too large", size);
	if (!vfe_range_inside(offset, size, (uint64_t)st->st_size))
		return vfe_error_set(err, -EINVAL,
			"log: file of %jd bytes is shorter than offset %#" PRIx64
			" + size %#" PRIx64,
			(intmax_t)st->st_size, offset, size);
	return 0;
}

/* mmap() wants multiples of the huge page size on hugetlbfs. */
static int
log_mmap(struct vdpa_log *log, const struct stat *st, struct vfe_error *err)
{
	uint64_t block = st->st_blksize > PAGE && vfe_is_pow2((uint64_t)st->st_blksize)
				 ? (uint64_t)st->st_blksize
				 : PAGE;
	uint64_t begin = log->offset & ~(block - 1);
	uint64_t len = vfe_align_up(log->offset + log->size, block) - begin;
	void *map;
	int rc;

	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, log->fd,
		(off_t)begin);
	if (map == MAP_FAILED)
		return vfe_error_set(err, -EINVAL, "cannot map a log of %" PRIu64 " bytes: %s",
			log->size, strerror(errno));
	rc = vfe_sigbus_guard(map, len, &log->truncated);
	if (rc < 0) {
		munmap(map, len);
		return vfe_error_set(err, rc, "too many memory regions in this process");
	}
	log->map = map;
	log->map_size = len;
	log->log.map = (uint64_t *)(void *)((uint8_t *)map + (log->offset - begin));
	log->log.words = log->size / sizeof(uint64_t);
	return 0;
}

int
vdpa_log_create(
	int fd, uint64_t size, uint64_t offset, struct vdpa_log **ret, struct vfe_error *err)
{
	struct vdpa_log *log;
	struct statfs fs;
	struct stat st;
	int rc, seals;

	rc = log_check(fd, size, offset, &st, &fs, err);
	if (rc < 0)
		return rc;
	log = calloc(1, sizeof(*log));
	if (log == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	log->refs = 1;
	log->offset = offset;
	log->size = size;
	log->fd = vfe_fd_dup(fd);
	rc = log->fd < 0
		     ? vfe_error_set(err, log->fd, "cannot duplicate fd: %s", strerror(-log->fd))
		     : log_mmap(log, &st, err);
	if (rc < 0) {
		vfe_close(&log->fd);
		free(log);
		return rc;
	}
	/* on hugetlbfs a page can be missing for other reasons than the file's size */
	seals = fcntl(fd, F_GET_SEALS);
	log->sealed = seals >= 0 && (seals & F_SEAL_SHRINK) != 0 &&
		      (unsigned long)fs.f_type == TMPFS_MAGIC;
	*ret = log;
	return 0;
}

struct vdpa_log *
vdpa_log_get(struct vdpa_log *log)
{
	if (log != NULL)
		__atomic_fetch_add(&log->refs, 1, __ATOMIC_RELAXED);
	return log;
}

void
vdpa_log_put(struct vdpa_log *log)
{
	if (log == NULL || __atomic_fetch_sub(&log->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	vfe_sigbus_unguard(log->map);
	munmap(log->map, log->map_size);
	vfe_close(&log->fd);
	free(log);
}

uint64_t
vdpa_log_end(const struct vdpa_log *log)
{
	const uint64_t bytes_per_word = (uint64_t)WORD_PAGES * VFE_DIRTY_PAGE_SIZE;

	if (log->log.words > UINT64_MAX / bytes_per_word)
		return UINT64_MAX;
	return log->log.words * bytes_per_word;
}

uint64_t
vdpa_table_end(const struct vdpa_table *table)
{
	uint64_t end = 0;
	unsigned int i;

	for (i = 0; table != NULL && i < table->nr_regions; i++) {
		if (end < table->regions[i].gpa + table->regions[i].size)
			end = table->regions[i].gpa + table->regions[i].size;
	}
	return end;
}

/* --- targets --- */

/* A place among those that are there, which are in order. */
static void
target_place_locked(struct vdpa_pf *pf, struct vdpa_target *target)
{
	struct vdpa_target *t, *last = NULL;
	uint64_t iova = TARGET_IOVA;

	LIST_FOREACH (t, &pf->targets, next) {
		if (t->iova - iova >= target->dma_size)
			break;
		iova = t->iova + t->dma_size;
		last = t;
	}
	target->iova = iova;
	if (last == NULL)
		LIST_INSERT_HEAD(&pf->targets, target, next);
	else
		LIST_INSERT_AFTER(last, target, next);
}

static int
target_map(
	struct vdpa_pf *pf, struct vdpa_target *target, uint64_t fd_offset, struct vfe_error *err)
{
	struct vfe_pci_dma dma = {
		.size = target->dma_size,
		.va = target->va,
		.fd = target->fd,
		.fd_offset = fd_offset,
		.prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE,
	};
	unsigned int lost = 0;
	int rc = -ENODEV;

	target->pf = pf;
	pthread_mutex_lock(&pf->map_lock);
	if (pf->domain == NULL) {
		vfe_error_set(err, rc, "the PF is lost");
	} else {
		target_place_locked(pf, target);
		dma.iova = target->iova;
		rc = vfe_pci_domain_map(pf->domain, &dma, &lost, err);
		target->mapped = rc == 0;
		if (rc < 0)
			LIST_REMOVE(target, next);
	}
	pthread_mutex_unlock(&pf->map_lock);
	if (rc == 0 && lost > 0)
		rc = vfe_error_set(err, -ENODEV, "the PF does not take the map");
	return rc;
}

int
vdpa_target_create(
	struct vdpa_pf *pf, uint64_t size, struct vdpa_target **ret, struct vfe_error *err)
{
	struct vdpa_target *target = calloc(1, sizeof(*target));
	void *va;
	int rc = 0;

	if (target == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	target->size = vfe_align_up(size, PAGE);
	target->dma_size = target->size;
	target->fd = vfe_memfd_create("vfe-dirty", target->size);
	if (target->fd < 0) {
		rc = vfe_error_set(err, target->fd, "no memory for a map of %" PRIu64 " bytes: %s",
			size, strerror(-target->fd));
		goto err_free;
	}
	va = mmap(NULL, target->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		target->fd, 0);
	if (va == MAP_FAILED) {
		rc = vfe_error_set(
			err, -errno, "cannot map %" PRIu64 " bytes: %s", size, strerror(errno));
		goto err_free;
	}
	target->va = va;
	if (pf != NULL)
		rc = target_map(pf, target, 0, err);
	if (rc < 0)
		goto err_free;
	*ret = target;
	return 0;

err_free:
	vdpa_target_destroy(target);
	return rc;
}

int
vdpa_target_create_log(struct vdpa_pf *pf, struct vdpa_log *log, uint64_t size,
	struct vdpa_target **ret, struct vfe_error *err)
{
	struct vdpa_target *target = calloc(1, sizeof(*target));
	int rc;

	if (target == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	target->log = vdpa_log_get(log);
	target->fd = log->fd;
	target->va = (uint8_t *)log->log.map;
	target->size = size;
	target->dma_size = vfe_align_up(size, PAGE);
	rc = target_map(pf, target, log->offset, err);
	if (rc < 0) {
		vdpa_target_destroy(target);
		return rc;
	}
	*ret = target;
	return 0;
}

static void
target_free(struct vdpa_target *target)
{
	if (target->log == NULL) {
		if (target->va != NULL)
			munmap(target->va, target->size);
		vfe_close(&target->fd);
	}
	vdpa_log_put(target->log);
	free(target);
}

static void
target_unmap_locked(struct vdpa_target *target)
{
	if (!target->mapped)
		return;
	/* a PF that fails here is lost and writes no more */
	vfe_pci_domain_unmap(target->pf->domain, target->iova, target->dma_size, NULL);
	LIST_REMOVE(target, next);
	target->mapped = false;
}

void
vdpa_target_destroy(struct vdpa_target *target)
{
	struct vdpa_pf *pf;

	if (target == NULL)
		return;
	pf = target->pf;
	if (pf != NULL) {
		pthread_mutex_lock(&pf->map_lock);
		target_unmap_locked(target);
		pthread_mutex_unlock(&pf->map_lock);
	}
	target_free(target);
}

void
vdpa_target_abandon(struct vdpa_target *target)
{
	struct vdpa_pf *pf;
	bool mapped;

	if (target == NULL)
		return;
	pf = target->pf;
	if (pf == NULL) {
		target_free(target);
		return;
	}
	pthread_mutex_lock(&pf->map_lock);
	mapped = target->mapped;
	target->abandoned = true;
	pthread_mutex_unlock(&pf->map_lock);
	if (!mapped)
		target_free(target);
}

void
vdpa_targets_clear_locked(struct vdpa_pf *pf)
{
	struct vdpa_target *target;

	while ((target = LIST_FIRST(&pf->targets)) != NULL) {
		target_unmap_locked(target);
		if (target->abandoned)
			target_free(target);
	}
}

/* --- modes --- */

static const char *const mode_names[] = {
	[VDPA_DIRTY_ALL] = "all",
	[VDPA_DIRTY_DIRECT] = "direct",
	[VDPA_DIRTY_PUSH_BITMAP] = "push-bitmap",
	[VDPA_DIRTY_PULL_BITMAP] = "pull-bitmap",
	[VDPA_DIRTY_PUSH_BYTEMAP] = "push-bytemap",
	[VDPA_DIRTY_PULL_BYTEMAP] = "pull-bytemap",
	[VDPA_DIRTY_RELAY] = "relay",
	[VDPA_DIRTY_AUTO] = "auto",
};

const char *
vdpa_dirty_mode_name(enum vdpa_dirty_mode mode)
{
	return mode_names[mode];
}

int
vdpa_dirty_mode_parse(const char *name, enum vdpa_dirty_mode *ret)
{
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(mode_names); i++) {
		if (strcmp(name, mode_names[i]) != 0)
			continue;
		*ret = (enum vdpa_dirty_mode)i;
		return 0;
	}
	return -EINVAL;
}

/* One range up to @end: where page n is bit n of the map, and the holes do not matter. */
static void
ranges_one(struct vdpa_dirty_plan *plan, uint64_t end)
{
	plan->nr_ranges = 1;
	plan->ranges[0] = (struct vdpa_dirty_range){.addr = 0, .len = end};
}

static int
range_compare(const void *a, const void *b)
{
	const struct vdpa_dirty_range *x = a, *y = b;

	return (x->addr > y->addr) - (x->addr < y->addr);
}

/* Join ranges @i and @i + 1, with what is between them. */
static void
ranges_join(struct vdpa_dirty_plan *plan, unsigned int i)
{
	struct vdpa_dirty_range *r = &plan->ranges[i];
	uint64_t end = r->addr + r->len, next_end = r[1].addr + r[1].len;

	r->len = (end > next_end ? end : next_end) - r->addr;
	plan->nr_ranges--;
	memmove(&r[1], &r[2], (plan->nr_ranges - i - 1) * sizeof(*r));
}

/* The index of the range with the smallest gap behind it. */
static unsigned int
ranges_closest(const struct vdpa_dirty_plan *plan)
{
	const struct vdpa_dirty_range *r = plan->ranges;
	uint64_t gap, best = UINT64_MAX;
	unsigned int i, at = 0;

	for (i = 0; i + 1 < plan->nr_ranges; i++) {
		gap = r[i].addr + r[i].len < r[i + 1].addr ? r[i + 1].addr - (r[i].addr + r[i].len)
							   : 0;
		if (gap < best) {
			best = gap;
			at = i;
		}
	}
	return at;
}

/* A range per region, at most @max; they do not overlap. */
static void
ranges_of_regions(struct vdpa_dirty_plan *plan, const struct vdpa_table *table, uint32_t max)
{
	const uint64_t align = (uint64_t)WORD_PAGES * VFE_DIRTY_PAGE_SIZE;
	const struct vdpa_region *region;
	struct vdpa_dirty_range *r = plan->ranges;
	unsigned int i;

	plan->nr_ranges = table->nr_regions;
	for (i = 0; i < table->nr_regions; i++) {
		region = &table->regions[i];
		r[i] = (struct vdpa_dirty_range){.addr = region->gpa & ~(align - 1)};
		r[i].len = region->gpa + region->size - r[i].addr;
	}
	qsort(r, plan->nr_ranges, sizeof(*r), range_compare);
	for (i = 0; i + 1 < plan->nr_ranges;) {
		if (r[i].addr + r[i].len >= r[i + 1].addr)
			ranges_join(plan, i);
		else
			i++;
	}
	while (plan->nr_ranges > max)
		ranges_join(plan, ranges_closest(plan));
}

/* Sizes of the maps; false when they are too large for the device or for us. */
static bool
plan_maps(struct vdpa_dirty_plan *plan, uint64_t max_pages)
{
	const bool bytes =
		plan->mode == VDPA_DIRTY_PUSH_BYTEMAP || plan->mode == VDPA_DIRTY_PULL_BYTEMAP;
	const uint64_t max_bytes =
		plan->mode == VDPA_DIRTY_DIRECT ? VDPA_DIRTY_MAX_DIRECT : VDPA_DIRTY_MAX_MAP;
	uint64_t pages, all_pages = 0, off = 0;
	unsigned int i;

	for (i = 0; i < plan->nr_ranges; i++) {
		pages = plan->ranges[i].len / VFE_DIRTY_PAGE_SIZE;
		all_pages += pages;
		plan->ranges[i].map_off = off;
		plan->ranges[i].map_bytes = bytes ? pages : pages / 8 + (pages % 8 != 0);
		off = vfe_align_up(off + plan->ranges[i].map_bytes, sizeof(uint64_t));
		if (off > max_bytes)
			return false;
	}
	plan->map_bytes = off;
	return all_pages > 0 && all_pages <= max_pages;
}

static int
plan_pull(struct vdpa_dirty_plan *plan, const struct vdpa_table *table, uint16_t log_max_pages,
	uint32_t max_ranges)
{
	const uint64_t max_pages = VFE_BIT(log_max_pages);
	uint64_t end = vdpa_table_end(table), total = 0;
	unsigned int i;

	if (max_ranges == 0)
		return -ENOTSUP;
	for (i = 0; i < table->nr_regions; i++)
		total += table->regions[i].size;
	ranges_one(plan, end);
	/* unless it would be mostly holes that are fetched */
	if (end / 2 <= total && plan_maps(plan, max_pages))
		return 0;
	ranges_of_regions(plan, table, max_ranges);
	return plan_maps(plan, max_pages) ? 0 : -ENOTSUP;
}

static int
plan_push(struct vdpa_dirty_plan *plan, uint64_t end, bool offered)
{
	ranges_one(plan, end);
	return offered && plan_maps(plan, UINT64_MAX) ? 0 : -ENOTSUP;
}

/* The device would get the log's memory for good: it must stay, in whole pages. */
static int
plan_direct(struct vdpa_dirty_plan *plan, const struct vdpa_table *table,
	const struct vdpa_log *log, bool offered)
{
	uint64_t end = vdpa_table_end(table);
	struct stat st;

	if (log == NULL || !log->sealed || !vfe_is_aligned(log->offset, PAGE) ||
		fstat(log->fd, &st) < 0)
		return -ENOTSUP;
	if (end > vdpa_log_end(log))
		end = vdpa_log_end(log);
	if (plan_push(plan, end, offered) < 0 ||
		!vfe_range_inside(
			log->offset, vfe_align_up(plan->map_bytes, PAGE), (uint64_t)st.st_size))
		return -ENOTSUP;
	return 0;
}

int
vdpa_dirty_plan(enum vdpa_dirty_mode mode, const struct vfe_admin_caps *caps,
	const struct vdpa_table *table, const struct vdpa_log *log, struct vdpa_dirty_plan *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->mode = mode;
	if (table == NULL || table->nr_regions == 0)
		return -ENOTSUP;
	switch (mode) {
	case VDPA_DIRTY_DIRECT:
		return plan_direct(ret, table, log, caps->dirty_push_bitmap);
	case VDPA_DIRTY_PUSH_BITMAP:
		return plan_push(ret, vdpa_table_end(table), caps->dirty_push_bitmap);
	case VDPA_DIRTY_PUSH_BYTEMAP:
		return plan_push(ret, vdpa_table_end(table), caps->dirty_push_bytemap);
	case VDPA_DIRTY_PULL_BITMAP:
		if (!caps->dirty_pull_bitmap)
			return -ENOTSUP;
		return plan_pull(
			ret, table, caps->log_max_pages_pull_bitmap, caps->max_track_ranges);
	case VDPA_DIRTY_PULL_BYTEMAP:
		if (!caps->dirty_pull_bytemap)
			return -ENOTSUP;
		return plan_pull(
			ret, table, caps->log_max_pages_pull_bytemap, caps->max_track_ranges);
	default:
		return -ENOTSUP;
	}
}

/* Is [@addr, @end) in one of the ranges? */
static bool
plan_has(const struct vdpa_dirty_plan *plan, uint64_t addr, uint64_t end)
{
	unsigned int i;

	for (i = 0; i < plan->nr_ranges; i++) {
		if (addr >= plan->ranges[i].addr &&
			end <= plan->ranges[i].addr + plan->ranges[i].len)
			return true;
	}
	return false;
}

/* Does the device watch all of @region that @log has bits for? */
bool
vdpa_dirty_plan_covers(const struct vdpa_dirty_plan *plan, const struct vdpa_region *region,
	const struct vdpa_log *log)
{
	uint64_t end = region->gpa + region->size;

	if (end > vdpa_log_end(log))
		end = vdpa_log_end(log);
	return region->gpa >= end || plan_has(plan, region->gpa, end);
}

bool
vdpa_dirty_plan_covers_table(const struct vdpa_dirty_plan *plan, const struct vdpa_table *table,
	const struct vdpa_log *log)
{
	unsigned int i;

	if (plan->mode == VDPA_DIRTY_RELAY)
		return true; /* whatever the ring says */
	for (i = 0; i < table->nr_regions; i++) {
		if (!vdpa_dirty_plan_covers(plan, &table->regions[i], log))
			return false;
	}
	return true;
}
