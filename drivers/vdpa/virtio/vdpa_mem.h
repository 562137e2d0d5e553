/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Guest memory: what a front-end shares, and what the VFs of one VM may reach by DMA.
 *
 * A table is the memory of one front-end connection, checked and immutable, counted. A domain
 * belongs to one VM (one UUID) and maps the union of its members' tables, so that a region goes
 * away only when nobody uses it any more, and is there before the old one goes.
 *
 * The same file at the same offset from the guest address is the same memory, however a table cuts
 * it into regions: such regions share mappings. Different memory at one guest address means that
 * two VMs have been given one UUID, and is refused.
 */

#ifndef VDPA_MEM_H
#define VDPA_MEM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vfe_base.h"
#include "vfe_pci.h"

enum { VDPA_MAX_REGIONS = 8 }; /* of librte_vhost; vhost-user without CONFIGURE_MEM_SLOTS */

struct vdpa_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva; /* address in the front-end, which ring addresses use */
	int fd;
	uint64_t fd_offset;
	dev_t dev; /* identity of the file */
	ino_t ino;
};

struct vdpa_table {
	unsigned int refs; /* atomic */
	unsigned int nr_regions;
	struct vdpa_region regions[VDPA_MAX_REGIONS];
};

/*
 * Check @regions and copy them (fds are duplicated; dev and ino are filled in). *@ret is the
 * caller's reference. -EINVAL with a text that names region and value: unaligned, wrapping,
 * overlapping or empty regions, a file that is too short or not plain shared memory.
 */
int vdpa_table_create(const struct vdpa_region *regions, unsigned int nr_regions,
	struct vdpa_table **ret, struct vfe_error *err);
struct vdpa_table *vdpa_table_get(struct vdpa_table *table);
void vdpa_table_put(struct vdpa_table *table); /* NULL is fine */

/* Same memory at the same guest addresses and the same front-end addresses? */
bool vdpa_table_equal(const struct vdpa_table *a, const struct vdpa_table *b);

/* Guest address of [@uva, @uva + @len), which must lie in one region. -EFAULT else. */
int
vdpa_table_translate(const struct vdpa_table *table, uint64_t uva, uint64_t len, uint64_t *ret_gpa);

struct vdpa_domain;

/* A VF's place in its domain. */
struct vdpa_member {
	struct vdpa_member *next;
	struct vdpa_table *table; /* what is mapped for it; protected by the domain */
	bool leaving;             /* its front-end has gone, its table is about to be dropped */
};

/*
 * The domain of @uuid (shared, counted), or a new private one when @uuid is NULL or empty.
 * Provisioning thread.
 */
int vdpa_domain_get(const char *uuid, struct vdpa_domain **ret, struct vfe_error *err);
void vdpa_domain_put(struct vdpa_domain *domain);
struct vfe_pci_domain *vdpa_domain_pci(struct vdpa_domain *domain);

void vdpa_domain_join(struct vdpa_domain *domain, struct vdpa_member *member);
void vdpa_domain_leave(struct vdpa_domain *domain, struct vdpa_member *member);

/* Tell the others that @member's table will go away: a conflict with it is temporary. */
void vdpa_domain_set_leaving(struct vdpa_domain *domain, struct vdpa_member *member, bool leaving);

/*
 * Make @table (NULL = none) what is mapped for @member: map what is new, then unmap what nobody
 * uses any more. The caller sees to it that no running ring uses what goes away. Waits for the
 * devices' answers (bounded by the transport), so not on the reactor.
 * Returns 0; -EEXIST (another VM's memory is there); -EAGAIN (memory of a member that is leaving
 * is there); -EBUSY (only the member's own present table is in the way: apply NULL first); other
 * failures. Nothing has changed then.
 */
int vdpa_domain_apply(struct vdpa_domain *domain, struct vdpa_member *member,
	struct vdpa_table *table, struct vfe_error *err);

/*
 * Read a little-endian 16-bit value at @gpa, once. -EFAULT when it is not mapped, -EIO when the
 * file behind it has been truncated. Any thread but the reactor (it may wait for a page).
 */
int vdpa_domain_read16(struct vdpa_domain *domain, uint64_t gpa, uint16_t *ret);

/* The index of the used ring at @used_gpa, of the available ring at @avail_gpa; as read16. */
int vdpa_domain_used_index(struct vdpa_domain *domain, uint64_t used_gpa, uint16_t *ret);
int vdpa_domain_avail_index(struct vdpa_domain *domain, uint64_t avail_gpa, uint16_t *ret);

/*
 * Where [@gpa, @gpa + @len) is in this process. It stays there until *@ret_chunk, which is the
 * caller's, is put, also when no member's table has it any more. -EFAULT when that is not mapped in
 * one piece. A file that is truncated later reads as zeros there.
 */
struct vdpa_chunk;
int vdpa_domain_pointer(struct vdpa_domain *domain, uint64_t gpa, uint64_t len, void **ret,
	struct vdpa_chunk **ret_chunk);
void vdpa_chunk_put(struct vdpa_chunk *chunk); /* NULL is fine */

/* Copy what is at [@gpa, @gpa + @len), which must be mapped in one piece: -EFAULT else. */
int vdpa_domain_read(struct vdpa_domain *domain, uint64_t gpa, void *buf, size_t len);

/* Is all of [@gpa, @gpa + @len) guest memory? */
bool vdpa_domain_has(struct vdpa_domain *domain, uint64_t gpa, uint64_t len);

/*
 * The address by which @dev reaches [@gpa, @gpa + @len) of @member's own memory; the domain may
 * have more. *@ret_bus is good for *@ret_len bytes (1..@len; then ask again) as long as that memory
 * stays the member's. -EFAULT when it is not, or not to be reached. Any thread.
 */
int vdpa_domain_bus(struct vdpa_domain *domain, const struct vdpa_member *member,
	const struct vfe_pci_dev *dev, uint64_t gpa, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len);

/* Does @dev reach all of @member's memory? 0, or -EFAULT with the reason. Not on the reactor. */
int vdpa_domain_check(struct vdpa_domain *domain, const struct vdpa_member *member,
	const struct vfe_pci_dev *dev, struct vfe_error *err);

#endif /* VDPA_MEM_H */
