/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The driver's side of split rings in memory of this process, for tests: honest by default, but
 * everything is open to be spoiled.
 */

#ifndef FAKE_DRIVER_H
#define FAKE_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "vfe_iova.h"
#include "vfe_vring.h"

enum { FAKE_IOVA = 0x100000 };

/* Guest memory: one region at FAKE_IOVA, behind it nothing. */
struct fake_mem {
	uint8_t *va;
	uint64_t size;
	uint64_t next; /* offset of what is free */
	struct vfe_iova_map *map;
};

void fake_mem_init(struct fake_mem *mem, uint64_t size);
void fake_mem_fini(struct fake_mem *mem);
void *fake_mem_alloc(struct fake_mem *mem, uint64_t size, uint64_t align);
uint64_t fake_mem_iova(const struct fake_mem *mem, const void *va);

struct fake_seg {
	void *va;
	uint32_t len;
	bool write; /* the device writes */
};

struct fake_ring {
	struct fake_mem *mem;
	struct vfe_wire_vring_desc *desc;
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
	uint16_t size;
	bool event_idx;
	uint16_t avail_idx; /* next to fill */
	uint16_t shown;     /* what the device knows */
	uint16_t used_idx;  /* next to look at */
	uint16_t nr_free;
	uint16_t *free; /* stack of descriptors */
	uint16_t *next; /* of a chain, our own copy */
	bool *indirect; /* the chain is in an indirect table */
};

void fake_ring_init(struct fake_ring *r, struct fake_mem *mem, uint16_t size, bool event_idx);
void fake_ring_fini(struct fake_ring *r);

/* What vfe_vring_start() wants. */
struct vfe_vring_cfg fake_ring_cfg(const struct fake_ring *r, uint64_t features);

/* Add a chain, not shown yet. Returns its head or -1 when there are not enough descriptors. */
int fake_ring_add(struct fake_ring *r, const struct fake_seg *segs, uint16_t n);
/* The same in an indirect table. */
int fake_ring_add_indirect(struct fake_ring *r, const struct fake_seg *segs, uint16_t n);

/* Put @head on the available ring as it is. */
void fake_ring_put(struct fake_ring *r, uint16_t head);

/* Show what was added. Returns whether the device wants a kick. */
bool fake_ring_show(struct fake_ring *r);

/* Next used chain: its head, or -1. Its descriptors are free again. */
int fake_ring_get(struct fake_ring *r, uint32_t *ret_len);

/* Ask for an interrupt at the next used chain, or not at all. */
void fake_ring_interrupts(struct fake_ring *r, bool on);

#endif /* FAKE_DRIVER_H */
