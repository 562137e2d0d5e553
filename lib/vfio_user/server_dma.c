/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user server: memory of the client, mapped into this process.
 */

#include "server_priv.h"

#include "vfe_sigbus.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>

enum { FIRST_CAPACITY = 8 };

/* Address space that one client may take; others must find some, too. */
#define MAX_DMA_BYTES (4ULL << 40)

struct vfu_dma_entry {
	struct vfe_vfu_dma pub;
	void *base; /* what mmap() returned; huge pages make it begin before pub.va */
	size_t len;
};

/* The index of the first mapping that begins at or behind @iova. */
static uint32_t
dma_lower_bound(const struct vfu_dma_table *table, uint64_t iova)
{
	uint32_t low = 0, high = table->n;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (table->entries[mid]->pub.iova < iova)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int
dma_check(const struct vfu_dma_table *table, const struct vfe_wire_vfu_dma_map *map,
	struct vfe_error *err)
{
	const uint32_t known = VFE_VFU_DMA_F_READ | VFE_VFU_DMA_F_WRITE;
	uint32_t at;

	if (map->argsz < sizeof(*map) || (map->flags & ~known) != 0 || map->flags == 0)
		return vfe_error_set(
			err, -EINVAL, "DMA_MAP with argsz %u, flags 0x%x", map->argsz, map->flags);
	if (map->size == 0 || map->size - 1 > UINT64_MAX - map->addr || map->offset > INT64_MAX ||
		map->size > INT64_MAX - map->offset ||
		!vfe_is_aligned(map->addr | map->size | map->offset, VFU_PAGE_SIZE))
		return vfe_error_set(err, -EINVAL,
			"DMA_MAP of 0x%llx bytes at 0x%llx, offset 0x%llx: empty, not aligned or "
			"wrapping",
			(unsigned long long)map->size, (unsigned long long)map->addr,
			(unsigned long long)map->offset);

	at = dma_lower_bound(table, map->addr);
	if ((at < table->n && table->entries[at]->pub.iova - map->addr < map->size) ||
		(at > 0 && map->addr - table->entries[at - 1]->pub.iova <
				   table->entries[at - 1]->pub.size))
		return vfe_error_set(err, -EEXIST,
			"DMA_MAP of 0x%llx bytes at 0x%llx overlaps another mapping",
			(unsigned long long)map->size, (unsigned long long)map->addr);
	if (table->n == VFE_VFU_SERVER_MAX_DMA_MAPS || map->size > MAX_DMA_BYTES - table->bytes)
		return vfe_error_set(err, -ENOSPC,
			"DMA_MAP of 0x%llx bytes: too much beside %u mappings of 0x%llx bytes",
			(unsigned long long)map->size, table->n, (unsigned long long)table->bytes);
	return 0;
}

/* Map what @map names of @fd, rounded to the pages of the file, into @entry. */
static int
dma_mmap(struct vfu_dma_entry *entry, const struct vfe_wire_vfu_dma_map *map, int fd,
	struct vfe_error *err)
{
	uint64_t page = VFU_PAGE_SIZE, begin, end;
	struct statfs fs;
	struct stat st;
	int prot = 0;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 || !S_ISREG(st.st_mode))
		return vfe_error_set(err, -EINVAL, "DMA_MAP with an fd that is not a memory file");
	if (!vfe_range_inside(map->offset, map->size, (uint64_t)st.st_size))
		return vfe_error_set(err, -EINVAL,
			"DMA_MAP of 0x%llx bytes at offset 0x%llx of a file of 0x%llx bytes",
			(unsigned long long)map->size, (unsigned long long)map->offset,
			(unsigned long long)st.st_size);

	/* a part of a huge page can be shared, but only whole ones can be mapped and unmapped */
	if (fs.f_type == HUGETLBFS_MAGIC && fs.f_bsize > 0 && vfe_is_pow2((uint64_t)fs.f_bsize))
		page = (uint64_t)fs.f_bsize;
	begin = map->offset & ~(page - 1);
	end = vfe_align_up(map->offset + map->size, page);

	if ((map->flags & VFE_VFU_DMA_F_READ) != 0)
		prot |= PROT_READ;
	if ((map->flags & VFE_VFU_DMA_F_WRITE) != 0)
		prot |= PROT_WRITE;
	entry->len = end - begin;
	entry->base = mmap(NULL, entry->len, prot, MAP_SHARED | MAP_NORESERVE, fd, (off_t)begin);
	if (entry->base == MAP_FAILED)
		return vfe_error_set(err, -errno, "cannot map 0x%llx bytes of the client: %s",
			(unsigned long long)map->size, strerror(errno));
	(void)madvise(entry->base, entry->len, MADV_DONTDUMP); /* the client's, not for our core */
	entry->pub.va = (char *)entry->base + (map->offset - begin);
	return 0;
}

static int
dma_insert(struct vfu_dma_table *table, struct vfu_dma_entry *entry)
{
	uint32_t at = dma_lower_bound(table, entry->pub.iova);

	if (table->n == table->capacity) {
		uint32_t capacity = table->capacity == 0 ? FIRST_CAPACITY : table->capacity * 2;
		struct vfu_dma_entry **grown;

		grown = realloc(table->entries, capacity * sizeof(struct vfu_dma_entry *));
		if (grown == NULL)
			return -ENOMEM;
		table->entries = grown;
		table->capacity = capacity;
	}
	memmove(&table->entries[at + 1], &table->entries[at],
		(table->n - at) * sizeof(struct vfu_dma_entry *));
	table->entries[at] = entry;
	table->n++;
	table->bytes += entry->pub.size;
	return 0;
}

static void
dma_remove(struct vfu_dma_table *table, uint32_t at)
{
	table->bytes -= table->entries[at]->pub.size;
	table->n--;
	memmove(&table->entries[at], &table->entries[at + 1],
		(table->n - at) * sizeof(struct vfu_dma_entry *));
}

static void
dma_free(struct vfu_dma_entry *entry)
{
	void *rest = MAP_FAILED;

	vfe_sigbus_unguard(entry->base);
	if (entry->pub.keep)
		rest = mmap(entry->base, entry->len, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (rest == MAP_FAILED)
		munmap(entry->base, entry->len);
	free(entry);
}

int
vfu_dma_map(struct vfe_vfu_server *server, const struct vfe_wire_vfu_dma_map *map, int fd,
	struct vfe_error *err)
{
	struct vfu_dma_entry *entry;
	int ret;

	ret = dma_check(&server->dma, map, err);
	if (ret < 0)
		return ret;

	entry = calloc(1, sizeof(*entry));
	if (entry == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	entry->pub.iova = map->addr;
	entry->pub.size = map->size;
	entry->pub.prot = map->flags;
	ret = dma_mmap(entry, map, fd, err);
	if (ret < 0)
		goto err_free;
	ret = vfe_sigbus_guard(entry->base, entry->len, &entry->pub.tripped);
	if (ret < 0) {
		vfe_error_set(err, ret, "cannot guard a mapping: %s", strerror(-ret));
		goto err_munmap;
	}
	ret = dma_insert(&server->dma, entry);
	if (ret < 0) {
		vfe_error_set(err, ret, "out of memory");
		goto err_unguard;
	}
	ret = server->cfg.ops->dma_map(server->cfg.ctx, &entry->pub);
	if (ret < 0) {
		vfe_error_set(err, ret, "the device refuses DMA_MAP: %s", strerror(-ret));
		goto err_remove;
	}
	return 0;

err_remove:
	dma_remove(&server->dma, dma_lower_bound(&server->dma, map->addr));
err_unguard:
	vfe_sigbus_unguard(entry->base);
err_munmap:
	munmap(entry->base, entry->len);
err_free:
	free(entry);
	return ret;
}

int
vfu_dma_unmap(struct vfe_vfu_server *server, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	struct vfu_dma_table *table = &server->dma;
	uint32_t at = dma_lower_bound(table, iova);
	struct vfu_dma_entry *entry;

	if (at == table->n || table->entries[at]->pub.iova != iova ||
		table->entries[at]->pub.size != size)
		return vfe_error_set(err, -ENOENT,
			"DMA_UNMAP of 0x%llx bytes at 0x%llx: no such mapping",
			(unsigned long long)size, (unsigned long long)iova);

	entry = table->entries[at];
	dma_remove(table, at);
	server->cfg.ops->dma_unmap(server->cfg.ctx, &entry->pub);
	dma_free(entry);
	return 0;
}

void
vfu_dma_unmap_all(struct vfe_vfu_server *server)
{
	struct vfu_dma_table *table = &server->dma;

	while (table->n > 0) {
		struct vfu_dma_entry *entry = table->entries[table->n - 1];

		dma_remove(table, table->n - 1);
		server->cfg.ops->dma_unmap(server->cfg.ctx, &entry->pub);
		dma_free(entry);
	}
	free(table->entries);
	*table = (struct vfu_dma_table){0};
}
