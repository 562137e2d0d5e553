/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The driver's own DMA memory: one memfd, mapped for one device, cut into aligned blocks.
 *
 * The device can write anywhere in the arena, so that nothing about the blocks is kept in it.
 */

#include <assert.h>
#include <errno.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <unistd.h>

#include "vfe_virtio.h"

enum {
	ARENA_PAGE = 4096,
	ARENA_GRAIN = 64, /* blocks are multiples of a cache line: no false sharing */
	HUGE_PAGE = 2 << 20,
};

struct arena_block {
	uint64_t off;
	uint64_t size;
	TAILQ_ENTRY(arena_block) next;
};

struct vfe_dma_arena {
	struct vfe_pci_domain *domain;
	uint64_t iova_base;
	uint64_t size;
	bool huge;
	uint8_t *va;
	int fd;

	pthread_mutex_t lock;             /* protects blocks */
	TAILQ_HEAD(, arena_block) blocks; /* in use, sorted by offset */
};

static int
file_create(uint64_t size, bool huge)
{
	int fd, rc;

	if (!huge)
		return vfe_memfd_create("vfe-dma", size);
	fd = memfd_create("vfe-dma", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	if (fd < 0 || ftruncate(fd, (off_t)size) == 0)
		return fd < 0 ? -errno : fd;
	rc = -errno;
	vfe_close(&fd);
	return rc;
}

/* The file and its mapping, which is what takes huge pages. */
static int
memory_create(struct vfe_dma_arena *a, struct vfe_error *err)
{
	int rc;

	a->fd = file_create(a->size, a->huge);
	if (a->fd < 0)
		return vfe_error_set(err, a->fd,
			"no memory file for a DMA arena of %llu bytes%s: %s",
			(unsigned long long)a->size, a->huge ? " of huge pages" : "",
			strerror(-a->fd));
	a->va = mmap(NULL, a->size, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
	if (a->va != MAP_FAILED)
		return 0;
	rc = vfe_error_set(err, -errno, "cannot map a DMA arena of %llu bytes: %s%s",
		(unsigned long long)a->size, strerror(errno),
		a->huge ? "; reserve more huge pages of 2 MiB (vm.nr_hugepages)" : "");
	vfe_close(&a->fd);
	return rc;
}

int
vfe_dma_arena_create(struct vfe_pci_domain *domain, uint64_t iova_base, uint64_t size, bool huge,
	struct vfe_dma_arena **ret, struct vfe_error *err)
{
	struct vfe_pci_dma dma;
	struct vfe_dma_arena *a;
	unsigned int lost;
	int rc;

	if (size == 0 || size > INT64_MAX || !vfe_is_aligned(iova_base | size, ARENA_PAGE))
		return vfe_error_set(err, -EINVAL, "an arena of 0x%llx bytes at 0x%llx",
			(unsigned long long)size, (unsigned long long)iova_base);
	a = calloc(1, sizeof(*a));
	if (a == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a DMA arena");
	a->domain = domain;
	a->iova_base = iova_base;
	a->size = huge ? vfe_align_up(size, HUGE_PAGE) : size;
	a->huge = huge;
	TAILQ_INIT(&a->blocks);
	rc = memory_create(a, err);
	if (rc < 0)
		goto err_free;
	dma = (struct vfe_pci_dma){
		.iova = iova_base,
		.size = a->size,
		.va = a->va,
		.fd = a->fd,
		.prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE,
	};
	rc = vfe_pci_domain_map(domain, &dma, &lost, err);
	if (rc < 0)
		goto err_unmap;
	if (lost > 0) {
		rc = -ENODEV;
		goto err_unmap_domain;
	}
	pthread_mutex_init(&a->lock, NULL);
	*ret = a;
	return 0;

err_unmap_domain:
	vfe_pci_domain_unmap(domain, iova_base, a->size, NULL);
err_unmap:
	munmap(a->va, a->size);
	vfe_close(&a->fd);
err_free:
	free(a);
	return rc;
}

void
vfe_dma_arena_destroy(struct vfe_dma_arena *a)
{
	struct arena_block *b;

	if (a == NULL)
		return;
	vfe_pci_domain_unmap(a->domain, a->iova_base, a->size, NULL);
	while ((b = TAILQ_FIRST(&a->blocks)) != NULL) {
		TAILQ_REMOVE(&a->blocks, b, next);
		free(b);
	}
	munmap(a->va, a->size);
	vfe_close(&a->fd);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* Where @size bytes go that were to go to @off. */
static uint64_t
keep_in_page(const struct vfe_dma_arena *a, uint64_t off, uint64_t size)
{
	const uint64_t page = HUGE_PAGE;

	if (a->huge && size <= page && (off & (page - 1)) + size > page)
		return vfe_align_up(off, page);
	return off;
}

/* Put @b into the first hole that is large enough. */
static bool
place_locked(struct vfe_dma_arena *a, struct arena_block *b, uint64_t align)
{
	struct arena_block *next;
	uint64_t off = 0;

	TAILQ_FOREACH (next, &a->blocks, next) {
		if (off <= next->off && b->size <= next->off - off)
			break;
		off = keep_in_page(a, vfe_align_up(next->off + next->size, align), b->size);
	}
	if (next == NULL && !vfe_range_inside(off, b->size, a->size))
		return false;
	b->off = off;
	if (next != NULL)
		TAILQ_INSERT_BEFORE(next, b, next);
	else
		TAILQ_INSERT_TAIL(&a->blocks, b, next);
	return true;
}

void *
vfe_dma_arena_alloc(struct vfe_dma_arena *a, uint64_t size, uint64_t align, uint64_t *ret_iova)
{
	struct arena_block *b;
	bool placed;

	assert(vfe_is_pow2(align) && align <= ARENA_PAGE);
	if (size == 0 || size > a->size)
		return NULL;
	b = calloc(1, sizeof(*b));
	if (b == NULL)
		return NULL;
	b->size = vfe_align_up(size, ARENA_GRAIN);

	pthread_mutex_lock(&a->lock);
	placed = place_locked(a, b, align < ARENA_GRAIN ? ARENA_GRAIN : align);
	pthread_mutex_unlock(&a->lock);
	if (!placed) {
		free(b);
		return NULL;
	}
	memset(a->va + b->off, 0, b->size);
	*ret_iova = a->iova_base + b->off;
	return a->va + b->off;
}

void
vfe_dma_arena_free(struct vfe_dma_arena *a, void *block)
{
	struct arena_block *b;
	uint64_t off;

	if (block == NULL)
		return;
	off = (uint64_t)((uint8_t *)block - a->va);
	pthread_mutex_lock(&a->lock);
	TAILQ_FOREACH (b, &a->blocks, next) {
		if (b->off == off)
			break;
	}
	assert(b != NULL);
	if (b != NULL)
		TAILQ_REMOVE(&a->blocks, b, next);
	pthread_mutex_unlock(&a->lock);
	free(b);
}
