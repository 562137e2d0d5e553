/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A vhost-user front-end of one device with its memory and rings, for the programs that play a
 * guest's driver. Whatever goes wrong ends the program, as in vhost_msg.h.
 */
#ifndef VHOST_FRONT_H
#define VHOST_FRONT_H

#include <stdbool.h>
#include <stdint.h>

enum {
	FRONT_MAX_RINGS = 16,
	FRONT_RING_SIZE = 256,
	FRONT_RING_SPACE = 16384, /* bytes of memory for one ring, a multiple of the page size */
	AVAIL_NO_INTERRUPT = 1,
	USED_NO_NOTIFY = 1,
	DESC_NEXT = 1,
	DESC_WRITE = 2,
	DESC_INDIRECT = 4,
};

#define F_INDIRECT  (1ULL << 28)
#define F_EVENT_IDX (1ULL << 29)

struct vhost_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct vhost_ring {
	struct vhost_desc *desc;
	uint16_t *avail; /* flags, idx, ring, used_event */
	uint16_t *used;  /* flags, idx, then 8-byte elements, avail_event */
	uint16_t avail_idx;
	uint16_t last_used;
	int kick;
	int call;
	volatile uint16_t *doorbell; /* a device register: the access itself is what counts */
};

struct vhost_front {
	int conn;
	int backend; /* channel for requests of the back end, or -1 */
	uint64_t features;
	uint64_t protocol_features;
	uint8_t *mem; /* at address 0 of the guest */
	int mem_fd;
	uint32_t nr_rings;
	struct vhost_ring rings[FRONT_MAX_RINGS];
};

/*
 * Let a back end connect to the socket @path, or @connect to it, and agree on @features (those that
 * are offered, VERSION_1 must be) and protocol features. Then give it @mem_size bytes of memory.
 */
void front_open(struct vhost_front *f, const char *path, bool connect, uint64_t features,
	uint64_t mem_size);

/* Read @size bytes of the device's configuration from its beginning. */
void front_get_config(struct vhost_front *f, void *to, uint32_t size);

/* Set up the next ring at the beginning of the FRONT_RING_SPACE bytes at @base. */
struct vhost_ring *front_add_ring(struct vhost_front *f, uint8_t *base);

/* Let all rings run. With @direct wait until the back end has lent their doorbell pages. */
void front_start(struct vhost_front *f, bool direct);

static inline uint64_t
front_gpa(const struct vhost_front *f, const void *p)
{
	return (uint64_t)((const uint8_t *)p - f->mem);
}

/* @count more entries of the available ring are there. */
void front_publish(struct vhost_ring *r, uint16_t count);

/* By eventfd, or @direct in the page that was lent. */
void front_kick(struct vhost_ring *r, uint16_t index, bool direct);

/* The used index as the device has it now; what it has written before is visible then. */
uint16_t front_used_idx(const struct vhost_ring *r);

#endif
