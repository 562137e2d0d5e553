/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Mapped areas of BARs, and accesses through them.
 */

#include "pci_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vfe_base.h"
#include "vfe_sigbus.h"

void
pci_maps_init(struct pci_maps *maps)
{
	pthread_mutex_init(&maps->lock, NULL);
}

void
pci_maps_clear(struct pci_maps *maps)
{
	struct pci_map *m;
	unsigned int i;

	for (i = 0; i < VFE_PCI_NR_BARS; i++) {
		while ((m = atomic_load(&maps->bars[i])) != NULL) {
			atomic_store(&maps->bars[i], m->next);
			vfe_sigbus_unguard(m->va);
			munmap(m->va, m->size);
			free(m);
		}
	}
}

void
pci_maps_fini(struct pci_maps *maps)
{
	pci_maps_clear(maps);
	pthread_mutex_destroy(&maps->lock);
}

struct pci_map *
pci_maps_find(struct pci_maps *maps, unsigned int bar, uint64_t off, uint32_t len)
{
	struct pci_map *m = atomic_load_explicit(&maps->bars[bar], memory_order_acquire);

	for (; m != NULL; m = m->next) {
		if (off >= m->off && vfe_range_inside(off - m->off, len, m->size))
			return m;
	}
	return NULL;
}

static int
make_locked(struct pci_maps *maps, unsigned int bar, uint64_t off, uint64_t size, int fd,
	uint64_t fd_offset, struct pci_map **ret)
{
	struct pci_map *m;
	int rc;

	m = calloc(1, sizeof(*m));
	if (m == NULL)
		return -ENOMEM;
	m->off = off;
	m->size = size;
	m->va = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)fd_offset);
	if (m->va == MAP_FAILED) {
		rc = -errno;
		goto err_free;
	}
	rc = vfe_sigbus_guard(m->va, m->size, &maps->tripped);
	if (rc < 0)
		goto err_unmap;
	m->next = atomic_load_explicit(&maps->bars[bar], memory_order_relaxed);
	atomic_store_explicit(&maps->bars[bar], m, memory_order_release);
	*ret = m;
	return 0;

err_unmap:
	munmap(m->va, m->size);
err_free:
	free(m);
	return rc;
}

int
pci_maps_get(struct pci_maps *maps, unsigned int bar, uint64_t off, uint64_t size, int fd,
	uint64_t fd_offset, struct pci_map **ret)
{
	int rc = 0;

	if (size == 0 || size > PCI_MAP_MAX_SIZE)
		return -EFBIG;
	pthread_mutex_lock(&maps->lock);
	*ret = pci_maps_find(maps, bar, off, (uint32_t)size);
	if (*ret == NULL)
		rc = make_locked(maps, bar, off, size, fd, fd_offset, ret);
	pthread_mutex_unlock(&maps->lock);
	return rc;
}

union value {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
};

void
pci_map_read(const struct pci_map *map, uint64_t off, void *buf, uint32_t len)
{
	const void *addr = map->va + (off - map->off);
	union value v;

	switch (len) {
	case 1:
		v.u8 = __atomic_load_n((const uint8_t *)addr, __ATOMIC_ACQUIRE);
		break;
	case 2:
		v.u16 = __atomic_load_n((const uint16_t *)addr, __ATOMIC_ACQUIRE);
		break;
	case 4:
		v.u32 = __atomic_load_n((const uint32_t *)addr, __ATOMIC_ACQUIRE);
		break;
	default:
		v.u64 = __atomic_load_n((const uint64_t *)addr, __ATOMIC_ACQUIRE);
		break;
	}
	memcpy(buf, &v, len);
}

void
pci_map_write(const struct pci_map *map, uint64_t off, const void *buf, uint32_t len)
{
	void *addr = map->va + (off - map->off);
	union value v;

	memcpy(&v, buf, len);
	switch (len) {
	case 1:
		__atomic_store_n((uint8_t *)addr, v.u8, __ATOMIC_RELEASE);
		break;
	case 2:
		__atomic_store_n((uint16_t *)addr, v.u16, __ATOMIC_RELEASE);
		break;
	case 4:
		__atomic_store_n((uint32_t *)addr, v.u32, __ATOMIC_RELEASE);
		break;
	default:
		__atomic_store_n((uint64_t *)addr, v.u64, __ATOMIC_RELEASE);
		break;
	}
}
