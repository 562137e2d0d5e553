/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Mapped areas of BARs, for the transports: made when first needed, guarded, there until the end.
 *
 * A file that is cut off under a mapping (a server that shrinks it, a kernel function whose memory
 * the kernel has switched off) sets the flag "tripped" and nothing else happens.
 */

#ifndef PCI_MAP_H
#define PCI_MAP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "vfe_wire_pci.h"

enum {
	PCI_MAP_PAGE = 4096,
	PCI_MAP_MAX_SIZE = 64 << 20, /* larger areas are not mapped but reached by message */
};

struct pci_map {
	struct pci_map *next;
	uint64_t off; /* in the BAR */
	uint64_t size;
	uint8_t *va;
};

struct pci_maps {
	pthread_mutex_t lock; /* serialises making of maps; never held across a message */
	_Atomic(struct pci_map *) bars[VFE_PCI_NR_BARS];
	atomic_bool tripped;
};

void pci_maps_init(struct pci_maps *maps);

/* Unmap everything; no other thread may be using it. The set is empty then, and usable. */
void pci_maps_clear(struct pci_maps *maps);
void pci_maps_fini(struct pci_maps *maps);

/* The map that holds [@off, @off + @len) of @bar, or NULL. */
struct pci_map *pci_maps_find(struct pci_maps *maps, unsigned int bar, uint64_t off, uint32_t len);

/*
 * Map [@off, @off + @size) of @bar, which is at @fd_offset of @fd; all page aligned. *@ret is the
 * one that is there already, if so. Returns 0, or -errno: it cannot be mapped.
 */
int pci_maps_get(struct pci_maps *maps, unsigned int bar, uint64_t off, uint64_t size, int fd,
	uint64_t fd_offset, struct pci_map **ret);

/* One access of natural width @len (1, 2, 4, 8). */
void pci_map_read(const struct pci_map *map, uint64_t off, void *buf, uint32_t len);
void pci_map_write(const struct pci_map *map, uint64_t off, const void *buf, uint32_t len);

#endif /* PCI_MAP_H */
