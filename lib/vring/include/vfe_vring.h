/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Device side of a split virtqueue (virtio 1.4 section 2.7) in memory that the driver shares.
 *
 * The driver is hostile: every index, address, length and flag is read once into our memory and
 * checked there before use. A violation breaks the queue: the call returns -EPROTO, vring->error
 * says why with the value, and every later call fails until the queue is started anew.
 *
 * A vring belongs to one thread at a time. Between vfe_vring_start() and the moment its owner
 * stops using it, the iova map that it was given must stay alive.
 */

#ifndef VFE_VRING_H
#define VFE_VRING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vfe_base.h"
#include "vfe_iova.h"
#include "vfe_wire_virtio.h"

/*
 * Who wants to know what we write: tracking of dirty pages. Called on the ring's thread with
 * addresses of the driver, each time after the last byte of a write.
 */
struct vfe_vring_watch {
	void (*wrote)(const struct vfe_vring_watch *watch, uint64_t iova, uint64_t len);
};

struct vfe_vring_cfg {
	uint16_t size;           /* entries, power of two up to 32768 */
	uint64_t desc;           /* iova, aligned to 16 */
	uint64_t driver;         /* iova, aligned to 2 */
	uint64_t device;         /* iova, aligned to 4 */
	uint16_t last_avail_idx; /* where to go on */
	uint16_t last_used_idx;
	uint64_t features; /* negotiated; EVENT_IDX and INDIRECT_DESC are looked at */
};

struct vfe_vring_stats {
	uint64_t chains;  /* taken from the available ring */
	uint64_t used;    /* given back */
	uint64_t signals; /* interrupts wanted by the driver; the owner sends them */
	uint64_t kicks;   /* counted by the owner */
	uint64_t bad;     /* violations */
};

struct vfe_vring {
	/* read by every packet */
	const struct vfe_wire_vring_desc *desc;
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
	const struct vfe_iova_map *map;
	uint16_t size;
	uint16_t mask;
	uint16_t last_avail; /* next entry of the available ring to take */
	uint16_t avail_seen; /* available index as last read and checked */
	uint16_t last_used;  /* next entry of the used ring to fill */
	uint16_t published;  /* used index that the driver can see */
	uint16_t signalled;  /* used index at the last decision about an interrupt */
	uint16_t kick_at;    /* avail_event as last written */
	bool event_idx;
	bool indirect;
	bool broken;
	bool started;
	bool kick_on;      /* the driver has been asked for kicks */
	bool signal_known; /* signalled is valid: not before the first decision after a start */
	uint32_t hint;     /* of the iova map */

	struct vfe_vring_stats stats;
	const struct vfe_vring_watch *watch; /* NULL = nobody; set by the owner after a start */
	struct vfe_vring_cfg cfg;
	struct vfe_error error; /* why it is broken */
};

/*
 * One descriptor chain, translated: first the parts that the device reads, then those it writes.
 * The pointers are valid until the owner lets go of the iova map.
 */
struct vfe_chain {
	uint16_t head;      /* to be given back with vfe_vring_push() */
	uint16_t nr_read;   /* entries of iov that the device reads */
	uint16_t nr_write;  /* entries after those, which the device writes */
	uint32_t read_len;  /* bytes */
	uint32_t write_len; /* bytes */
	struct iovec *iov;  /* caller's array */
	uint16_t max_iov;   /* its size */
};

/*
 * Check @cfg and translate the three parts of the ring. Returns 0, -EINVAL (size, alignment) or
 * -EFAULT (not in @map), with a text.
 */
int vfe_vring_start(struct vfe_vring *vr, const struct vfe_vring_cfg *cfg,
	const struct vfe_iova_map *map, struct vfe_error *err);

/*
 * Forget the ring and why it was broken. The indices stay readable in last_avail and last_used,
 * the counters until the next start.
 */
void vfe_vring_stop(struct vfe_vring *vr);

/*
 * Use @map from now on; the ring's parts are translated again. As vfe_vring_start(), and a ring
 * that is not in @map any more is broken. Chains that are not given back yet keep pointers into
 * the old map: vfe_vring_unpop() them before.
 */
int vfe_vring_set_map(struct vfe_vring *vr, const struct vfe_iova_map *map, struct vfe_error *err);

/* Number of chains to take (0..size), or -EPROTO when the driver's index jumped too far. */
int vfe_vring_avail(struct vfe_vring *vr);

/*
 * Take the next chain and translate it into @chain->iov (@chain->iov and ->max_iov are set by the
 * caller; a part that crosses regions of the map takes several entries).
 * Returns 1, 0 (none there), or -EPROTO: loop, next or head out of range, address outside the
 * map, empty buffer, readable after writable, nested or malformed indirect table, more than max_iov
 * entries, 4 GiB or more.
 */
int vfe_vring_pop(struct vfe_vring *vr, struct vfe_chain *chain);

/* Give back the last @n chains taken, as if they had not been: the inverse of vfe_vring_pop(). */
void vfe_vring_unpop(struct vfe_vring *vr, uint16_t n);

/*
 * Put one used element (@len bytes written by us). Not visible to the driver before
 * vfe_vring_publish(), which makes all elements since the last one visible at once.
 */
void vfe_vring_push(struct vfe_vring *vr, uint16_t head, uint32_t len);
void vfe_vring_publish(struct vfe_vring *vr);

/*
 * After publishing: does the driver want an interrupt (section 2.7.7)? Includes the barrier.
 * With EVENT_IDX the first answer after a start is yes, as what happened before is not known.
 */
bool vfe_vring_wants_signal(struct vfe_vring *vr);

/*
 * Ask the driver for kicks (@on) or ask it to stay quiet (section 2.7.10). After asking for them,
 * returns true when buffers became available that vfe_vring_avail() or vfe_vring_pop() has not
 * seen: the caller must look again. Chains that were seen and left there do not count.
 */
bool vfe_vring_set_kick(struct vfe_vring *vr, bool on);

/*
 * Writes to the ring itself are told to the watch by the functions above; those to buffers by the
 * owner, who asks vfe_vring_watched() first.
 */
static inline bool
vfe_vring_watched(const struct vfe_vring *vr)
{
	return vfe_unlikely(vr->watch != NULL);
}

/* We have written @len bytes at @va, part of a chain of this ring. Without a watch: nothing. */
void vfe_vring_wrote(struct vfe_vring *vr, const void *va, uint64_t len);

/* The same for bytes [@off, @off + @len) of @iov, or what there is of them. */
void vfe_vring_wrote_iov(
	struct vfe_vring *vr, const struct iovec *iov, uint32_t nr, uint64_t off, uint64_t len);

/* For bursts of packets that are one plain buffer each, see vfe_vring_burst.h. */

#endif /* VFE_VRING_H */
