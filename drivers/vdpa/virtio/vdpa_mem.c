/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Guest memory tables and the domains that map them for the VFs of a VM.
 */

#include "vdpa_mem.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "vfe_sigbus.h"
#include "vfe_wire_virtio.h"

enum {
	PAGE = 4096,
	/* tables that grow step by step leave pieces behind; this many, then they are joined */
	MAX_CHUNKS = 64,
};

/*
 * A mapping of a domain: a piece of a file at a guest address. Devices reach it by DMA; the part
 * of it that we read ourselves (ring indices) is reached through @va.
 */
struct vdpa_chunk {
	struct vdpa_chunk *next;
	unsigned int refs; /* atomic: the domain, and those who have pointers into @va */
	uint64_t gpa;
	uint64_t size;
	int fd;
	uint64_t fd_offset;
	dev_t dev;
	ino_t ino;
	void *map; /* what mmap() gave: begins at a page of the file system */
	size_t map_size;
	uint8_t *va;           /* of @gpa */
	atomic_bool truncated; /* set by the SIGBUS handler */
};

struct vdpa_domain {
	struct vdpa_domain *next;
	char uuid[37];
	unsigned int refs;
	struct vfe_pci_domain *pci;

	/*
	 * Serializes changes. Held while devices answer, which the transport bounds; never taken
	 * by the reactor or the relay.
	 */
	pthread_mutex_t change_lock;
	unsigned int nr_chunks; /* those being added included */

	/* Protects what follows; held for moments only. Changes need both locks. */
	pthread_mutex_t lock;
	struct vdpa_member *members;
	struct vdpa_chunk *chunks;
};

static struct {
	pthread_mutex_t lock; /* protects the list and the reference counts */
	struct vdpa_domain *list;
} domains = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- tables --- */

/* Guest memory lives in memory file systems; the pages of others may come late or never. */
static int
region_check_file(
	const struct vdpa_region *r, unsigned int i, struct stat *st, struct vfe_error *err)
{
	struct statfs fs;

	if (fstat(r->fd, st) < 0 || fstatfs(r->fd, &fs) < 0)
		return vfe_error_set(
			err, -EINVAL, "memory region %u: bad fd: %s", i, strerror(errno));
	if (!S_ISREG(st->st_mode) || ((unsigned long)fs.f_type != TMPFS_MAGIC &&
					     (unsigned long)fs.f_type != HUGETLBFS_MAGIC))
		return vfe_error_set(err, -EINVAL,
			"memory region %u is not on tmpfs, memfd or hugetlbfs (file system %#lx)",
			i, (unsigned long)fs.f_type);
	if (!vfe_range_inside(r->fd_offset, r->size, (uint64_t)st->st_size))
		return vfe_error_set(err, -EINVAL,
			"memory region %u: file of %jd bytes is shorter than offset %#" PRIx64
			" + size %#" PRIx64,
			i, (intmax_t)st->st_size, r->fd_offset, r->size);
	return 0;
}

static int
region_check(const struct vdpa_region *regions, unsigned int i, struct vfe_error *err)
{
	const struct vdpa_region *r = &regions[i];
	unsigned int k;

	if (r->size == 0 || !vfe_is_aligned(r->gpa | r->size | r->fd_offset, PAGE))
		return vfe_error_set(err, -EINVAL,
			"memory region %u: guest address %#" PRIx64 ", size %#" PRIx64
			" or offset %#" PRIx64 " is not made of pages",
			i, r->gpa, r->size, r->fd_offset);
	if (r->gpa > UINT64_MAX - r->size || r->uva > UINT64_MAX - r->size)
		return vfe_error_set(err, -EINVAL,
			"memory region %u: address %#" PRIx64 " or %#" PRIx64 " + %#" PRIx64
			" wraps",
			i, r->gpa, r->uva, r->size);
	for (k = 0; k < i; k++) {
		if (r->gpa < regions[k].gpa + regions[k].size && regions[k].gpa < r->gpa + r->size)
			return vfe_error_set(err, -EINVAL,
				"memory regions %u and %u overlap at guest address %#" PRIx64, k, i,
				r->gpa);
		if (r->uva < regions[k].uva + regions[k].size && regions[k].uva < r->uva + r->size)
			return vfe_error_set(err, -EINVAL,
				"memory regions %u and %u overlap at user address %#" PRIx64, k, i,
				r->uva);
	}
	return 0;
}

int
vdpa_table_create(const struct vdpa_region *regions, unsigned int nr_regions,
	struct vdpa_table **ret, struct vfe_error *err)
{
	struct vdpa_table *table;
	struct stat st;
	unsigned int i;
	int rc;

	if (nr_regions == 0 || nr_regions > VDPA_MAX_REGIONS)
		return vfe_error_set(err, -EINVAL, "%u memory regions, expected 1 to %d",
			nr_regions, VDPA_MAX_REGIONS);
	table = calloc(1, sizeof(*table));
	if (table == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	table->refs = 1;
	for (i = 0; i < nr_regions; i++) {
		rc = region_check(regions, i, err);
		if (rc == 0)
			rc = region_check_file(&regions[i], i, &st, err);
		if (rc < 0)
			goto err_put;
		table->regions[i] = regions[i];
		table->regions[i].fd = vfe_fd_dup(regions[i].fd);
		table->nr_regions++;
		if (table->regions[i].fd < 0) {
			rc = vfe_error_set(err, table->regions[i].fd,
				"memory region %u: cannot duplicate fd: %s", i,
				strerror(-table->regions[i].fd));
			goto err_put;
		}
		table->regions[i].dev = st.st_dev;
		table->regions[i].ino = st.st_ino;
	}
	*ret = table;
	return 0;

err_put:
	vdpa_table_put(table);
	return rc;
}

struct vdpa_table *
vdpa_table_get(struct vdpa_table *table)
{
	if (table != NULL)
		__atomic_fetch_add(&table->refs, 1, __ATOMIC_RELAXED);
	return table;
}

void
vdpa_table_put(struct vdpa_table *table)
{
	unsigned int i;

	if (table == NULL || __atomic_fetch_sub(&table->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	for (i = 0; i < table->nr_regions; i++)
		vfe_close(&table->regions[i].fd);
	free(table);
}

bool
vdpa_table_equal(const struct vdpa_table *a, const struct vdpa_table *b)
{
	const struct vdpa_region *x, *y;
	unsigned int i;

	if (a == NULL || b == NULL || a->nr_regions != b->nr_regions)
		return a == b;
	for (i = 0; i < a->nr_regions; i++) {
		x = &a->regions[i];
		y = &b->regions[i];
		if (x->gpa != y->gpa || x->size != y->size || x->uva != y->uva ||
			x->fd_offset != y->fd_offset || x->dev != y->dev || x->ino != y->ino)
			return false;
	}
	return true;
}

int
vdpa_table_translate(const struct vdpa_table *table, uint64_t uva, uint64_t len, uint64_t *ret_gpa)
{
	const struct vdpa_region *r;
	unsigned int i;

	for (i = 0; table != NULL && i < table->nr_regions; i++) {
		r = &table->regions[i];
		if (uva < r->uva || !vfe_range_inside(uva - r->uva, len, r->size))
			continue;
		*ret_gpa = r->gpa + (uva - r->uva);
		return 0;
	}
	return -EFAULT;
}

/* --- chunks --- */

static bool
chunk_overlaps(const struct vdpa_chunk *c, uint64_t gpa, uint64_t size)
{
	return c->gpa < gpa + size && gpa < c->gpa + c->size;
}

/* Is the memory of @r, where both are, that of @c? */
static bool
chunk_is_same(const struct vdpa_chunk *c, const struct vdpa_region *r)
{
	return c->dev == r->dev && c->ino == r->ino &&
	       c->gpa - c->fd_offset == r->gpa - r->fd_offset;
}

static void
chunk_free(struct vdpa_chunk *c)
{
	if (c->map != NULL) {
		vfe_sigbus_unguard(c->map);
		munmap(c->map, c->map_size);
	}
	vfe_close(&c->fd);
	free(c);
}

/* mmap() wants multiples of the huge page size on hugetlbfs; st_blksize tells. */
static int
chunk_mmap(struct vdpa_chunk *c, struct vfe_error *err)
{
	uint64_t offset, end, block;
	struct stat st;
	void *map;
	int rc;

	if (fstat(c->fd, &st) < 0)
		return vfe_error_set(err, -errno, "cannot stat guest memory: %s", strerror(errno));
	block = st.st_blksize > PAGE && vfe_is_pow2((uint64_t)st.st_blksize)
			? (uint64_t)st.st_blksize
			: PAGE;
	offset = c->fd_offset & ~(block - 1);
	end = vfe_align_up(c->fd_offset + c->size, block);
	map = mmap(NULL, end - offset, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, c->fd,
		(off_t)offset);
	if (map == MAP_FAILED)
		return vfe_error_set(err, -errno,
			"cannot map guest memory %#" PRIx64 "+%#" PRIx64 ": %s", c->gpa, c->size,
			strerror(errno));
	rc = vfe_sigbus_guard(map, end - offset, &c->truncated);
	if (rc < 0) {
		munmap(map, end - offset);
		return vfe_error_set(err, rc, "too many memory regions in this process");
	}
	c->map = map;
	c->map_size = end - offset;
	c->va = (uint8_t *)map + (c->fd_offset - offset);
	return 0;
}

/* A chunk for [@gpa, @gpa + @size) of @r, mapped for the devices of @domain. */
static int
chunk_create(struct vdpa_domain *domain, const struct vdpa_region *r, uint64_t gpa, uint64_t size,
	struct vdpa_chunk **ret, struct vfe_error *err)
{
	struct vfe_pci_dma dma;
	struct vdpa_chunk *c;
	int rc;

	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	c->refs = 1;
	c->gpa = gpa;
	c->size = size;
	c->fd_offset = r->fd_offset + (gpa - r->gpa);
	c->dev = r->dev;
	c->ino = r->ino;
	c->fd = vfe_fd_dup(r->fd);
	rc = c->fd < 0 ? vfe_error_set(err, c->fd, "cannot duplicate fd: %s", strerror(-c->fd))
		       : chunk_mmap(c, err);
	if (rc < 0)
		goto err_free;
	dma = (struct vfe_pci_dma){
		.iova = gpa,
		.size = size,
		.va = c->va,
		.fd = c->fd,
		.fd_offset = c->fd_offset,
		.prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE,
	};
	rc = vfe_pci_domain_map(domain->pci, &dma, NULL, err);
	if (rc < 0)
		goto err_free;
	domain->nr_chunks++;
	*ret = c;
	return 0;

err_free:
	chunk_free(c);
	return rc;
}

void
vdpa_chunk_put(struct vdpa_chunk *c)
{
	if (c != NULL && __atomic_fetch_sub(&c->refs, 1, __ATOMIC_ACQ_REL) == 1)
		chunk_free(c);
}

static void
chunk_destroy(struct vdpa_domain *domain, struct vdpa_chunk *c)
{
	domain->nr_chunks--;
	/* a device that fails here is lost and reaches nothing any more */
	vfe_pci_domain_unmap(domain->pci, c->gpa, c->size, NULL);
	vdpa_chunk_put(c);
}

/* --- domains --- */

static int
domain_create(const char *uuid, struct vdpa_domain **ret, struct vfe_error *err)
{
	struct vdpa_domain *domain;
	int rc;

	domain = calloc(1, sizeof(*domain));
	if (domain == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	rc = vfe_pci_domain_create(&domain->pci, err);
	if (rc == 0 && uuid != NULL && vfe_str_copy(domain->uuid, sizeof(domain->uuid), uuid) < 0)
		rc = vfe_error_set(err, -EINVAL, "VM UUID is too long");
	if (rc < 0) {
		vfe_pci_domain_destroy(domain->pci);
		free(domain);
		return rc;
	}
	domain->refs = 1;
	pthread_mutex_init(&domain->change_lock, NULL);
	pthread_mutex_init(&domain->lock, NULL);
	*ret = domain;
	return 0;
}

int
vdpa_domain_get(const char *uuid, struct vdpa_domain **ret, struct vfe_error *err)
{
	struct vdpa_domain *domain;
	int rc = 0;

	if (uuid == NULL || uuid[0] == '\0')
		return domain_create(NULL, ret, err);
	pthread_mutex_lock(&domains.lock);
	for (domain = domains.list; domain != NULL; domain = domain->next) {
		if (strcasecmp(domain->uuid, uuid) == 0)
			break;
	}
	if (domain != NULL) {
		domain->refs++;
	} else {
		rc = domain_create(uuid, &domain, err);
		if (rc == 0) {
			domain->next = domains.list;
			domains.list = domain;
		}
	}
	pthread_mutex_unlock(&domains.lock);
	*ret = domain;
	return rc;
}

void
vdpa_domain_put(struct vdpa_domain *domain)
{
	struct vdpa_domain **link;
	struct vdpa_chunk *c;

	if (domain == NULL)
		return;
	pthread_mutex_lock(&domains.lock);
	if (--domain->refs > 0) {
		pthread_mutex_unlock(&domains.lock);
		return;
	}
	for (link = &domains.list; *link != NULL; link = &(*link)->next) {
		if (*link == domain) {
			*link = domain->next;
			break;
		}
	}
	pthread_mutex_unlock(&domains.lock);
	while ((c = domain->chunks) != NULL) {
		domain->chunks = c->next;
		chunk_destroy(domain, c);
	}
	vfe_pci_domain_destroy(domain->pci);
	pthread_mutex_destroy(&domain->change_lock);
	pthread_mutex_destroy(&domain->lock);
	free(domain);
}

struct vfe_pci_domain *
vdpa_domain_pci(struct vdpa_domain *domain)
{
	return domain->pci;
}

void
vdpa_domain_join(struct vdpa_domain *domain, struct vdpa_member *member)
{
	member->table = NULL;
	member->leaving = false;
	pthread_mutex_lock(&domain->change_lock);
	pthread_mutex_lock(&domain->lock);
	member->next = domain->members;
	domain->members = member;
	pthread_mutex_unlock(&domain->lock);
	pthread_mutex_unlock(&domain->change_lock);
}

void
vdpa_domain_leave(struct vdpa_domain *domain, struct vdpa_member *member)
{
	struct vdpa_member **link;

	vdpa_domain_apply(domain, member, NULL, NULL);
	pthread_mutex_lock(&domain->change_lock);
	pthread_mutex_lock(&domain->lock);
	for (link = &domain->members; *link != NULL; link = &(*link)->next) {
		if (*link == member) {
			*link = member->next;
			break;
		}
	}
	pthread_mutex_unlock(&domain->lock);
	pthread_mutex_unlock(&domain->change_lock);
}

void
vdpa_domain_set_leaving(struct vdpa_domain *domain, struct vdpa_member *member, bool leaving)
{
	pthread_mutex_lock(&domain->lock);
	member->leaving = leaving;
	pthread_mutex_unlock(&domain->lock);
}

/* Who of the members uses the part of @c that @r wants for other memory? */
static int
conflict_of(struct vdpa_domain *domain, const struct vdpa_member *self, const struct vdpa_chunk *c,
	const struct vdpa_region *r, struct vfe_error *err)
{
	const struct vdpa_member *m;
	unsigned int i;
	int rc = -EBUSY;

	pthread_mutex_lock(&domain->lock);
	for (m = domain->members; m != NULL; m = m->next) {
		for (i = 0; m != self && m->table != NULL && i < m->table->nr_regions; i++) {
			if (!chunk_overlaps(c, m->table->regions[i].gpa, m->table->regions[i].size))
				continue;
			if (!m->leaving)
				rc = -EEXIST;
			else if (rc != -EEXIST)
				rc = -EAGAIN;
		}
	}
	pthread_mutex_unlock(&domain->lock);
	return vfe_error_set(err, rc,
		rc == -EEXIST ? "guest address %#" PRIx64
				" is other memory than that of another VF with VM UUID %s: is the "
				"UUID used by two VMs?"
			      : "guest address %#" PRIx64 " is still in use (VM UUID %s)",
		r->gpa, domain->uuid[0] != '\0' ? domain->uuid : "none");
}

/*
 * Add chunks to the list @added for what is missing of @r. Existing chunks that overlap must be
 * the same memory.
 */
static int
domain_add_region(struct vdpa_domain *domain, const struct vdpa_member *self,
	const struct vdpa_region *r, struct vdpa_chunk **added, struct vfe_error *err)
{
	uint64_t gpa = r->gpa, end = r->gpa + r->size, stop;
	struct vdpa_chunk *c, *cover;
	int rc;

	while (gpa < end) {
		cover = NULL;
		stop = end;
		for (c = domain->chunks; c != NULL; c = c->next) {
			if (!chunk_overlaps(c, gpa, end - gpa))
				continue;
			if (!chunk_is_same(c, r))
				return conflict_of(domain, self, c, r, err);
			if (c->gpa <= gpa)
				cover = c;
			else if (c->gpa < stop)
				stop = c->gpa;
		}
		if (cover != NULL) {
			gpa = cover->gpa + cover->size;
			continue;
		}
		if (domain->nr_chunks >= MAX_CHUNKS)
			return vfe_error_set(err, -EBUSY, "guest memory has too many pieces");
		rc = chunk_create(domain, r, gpa, stop - gpa, &c, err);
		if (rc < 0)
			return rc;
		c->next = *added;
		*added = c;
		gpa = stop;
	}
	return 0;
}

static bool
chunk_is_used_locked(const struct vdpa_domain *domain, const struct vdpa_chunk *c)
{
	const struct vdpa_member *m;
	unsigned int i;

	for (m = domain->members; m != NULL; m = m->next) {
		for (i = 0; m->table != NULL && i < m->table->nr_regions; i++) {
			if (chunk_overlaps(c, m->table->regions[i].gpa, m->table->regions[i].size))
				return true;
		}
	}
	return false;
}

/* Put the chunks of @added in, the table in its place; returns the chunks nobody uses any more. */
static struct vdpa_chunk *
domain_switch(struct vdpa_domain *domain, struct vdpa_member *member, struct vdpa_table *table,
	struct vdpa_chunk *added, struct vdpa_table **ret_old)
{
	struct vdpa_chunk **link, *c, *gone = NULL;

	pthread_mutex_lock(&domain->lock);
	*ret_old = member->table;
	member->table = vdpa_table_get(table);
	while ((c = added) != NULL) {
		added = c->next;
		c->next = domain->chunks;
		domain->chunks = c;
	}
	for (link = &domain->chunks; (c = *link) != NULL;) {
		if (chunk_is_used_locked(domain, c)) {
			link = &c->next;
			continue;
		}
		*link = c->next;
		c->next = gone;
		gone = c;
	}
	pthread_mutex_unlock(&domain->lock);
	return gone;
}

int
vdpa_domain_apply(struct vdpa_domain *domain, struct vdpa_member *member, struct vdpa_table *table,
	struct vfe_error *err)
{
	struct vdpa_chunk *added = NULL, *gone, *c;
	struct vdpa_table *old = NULL;
	unsigned int i;
	int rc = 0;

	pthread_mutex_lock(&domain->change_lock);
	for (i = 0; rc == 0 && table != NULL && i < table->nr_regions; i++)
		rc = domain_add_region(domain, member, &table->regions[i], &added, err);
	gone = rc == 0 ? domain_switch(domain, member, table, added, &old) : added;
	while ((c = gone) != NULL) {
		gone = c->next;
		chunk_destroy(domain, c);
	}
	pthread_mutex_unlock(&domain->change_lock);
	vdpa_table_put(old);
	return rc;
}

/* The chunk that has all of [@gpa, @gpa + @len); NULL = none. */
static struct vdpa_chunk *
chunk_of_locked(const struct vdpa_domain *domain, uint64_t gpa, uint64_t len)
{
	struct vdpa_chunk *c;

	for (c = domain->chunks; c != NULL; c = c->next) {
		if (gpa >= c->gpa && vfe_range_inside(gpa - c->gpa, len, c->size))
			break;
	}
	return c;
}

int
vdpa_domain_read16(struct vdpa_domain *domain, uint64_t gpa, uint16_t *ret)
{
	const struct vdpa_chunk *c;
	int rc = -EFAULT;

	pthread_mutex_lock(&domain->lock);
	c = chunk_of_locked(domain, gpa, sizeof(*ret));
	if (c != NULL) {
		*ret = le16toh(
			__atomic_load_n((const uint16_t *)(const void *)(c->va + (gpa - c->gpa)),
				__ATOMIC_ACQUIRE));
		rc = atomic_load(&c->truncated) ? -EIO : 0;
	}
	pthread_mutex_unlock(&domain->lock);
	return rc;
}

int
vdpa_domain_used_index(struct vdpa_domain *domain, uint64_t used_gpa, uint16_t *ret)
{
	return vdpa_domain_read16(
		domain, used_gpa + offsetof(struct vfe_wire_vring_used, idx), ret);
}

int
vdpa_domain_avail_index(struct vdpa_domain *domain, uint64_t avail_gpa, uint16_t *ret)
{
	return vdpa_domain_read16(
		domain, avail_gpa + offsetof(struct vfe_wire_vring_avail, idx), ret);
}

int
vdpa_domain_pointer(struct vdpa_domain *domain, uint64_t gpa, uint64_t len, void **ret,
	struct vdpa_chunk **ret_chunk)
{
	struct vdpa_chunk *c;

	pthread_mutex_lock(&domain->lock);
	c = chunk_of_locked(domain, gpa, len);
	if (c != NULL) {
		__atomic_fetch_add(&c->refs, 1, __ATOMIC_RELAXED);
		*ret = c->va + (gpa - c->gpa);
		*ret_chunk = c;
	}
	pthread_mutex_unlock(&domain->lock);
	return c != NULL ? 0 : -EFAULT;
}

int
vdpa_domain_read(struct vdpa_domain *domain, uint64_t gpa, void *buf, size_t len)
{
	const struct vdpa_chunk *c;

	pthread_mutex_lock(&domain->lock);
	c = chunk_of_locked(domain, gpa, len);
	if (c != NULL)
		memcpy(buf, c->va + (gpa - c->gpa), len);
	pthread_mutex_unlock(&domain->lock);
	return c != NULL ? 0 : -EFAULT;
}

/* How much of what begins at @gpa is in one chunk. */
static uint64_t
bytes_at_locked(const struct vdpa_domain *domain, uint64_t gpa)
{
	const struct vdpa_chunk *c;

	for (c = domain->chunks; c != NULL; c = c->next) {
		if (gpa >= c->gpa && gpa - c->gpa < c->size)
			return c->size - (gpa - c->gpa);
	}
	return 0;
}

bool
vdpa_domain_has(struct vdpa_domain *domain, uint64_t gpa, uint64_t len)
{
	uint64_t n = 1;

	if (len > UINT64_MAX - gpa)
		return false;
	pthread_mutex_lock(&domain->lock);
	while (n > 0 && len > 0) {
		n = bytes_at_locked(domain, gpa);
		n = n < len ? n : len;
		gpa += n;
		len -= n;
	}
	pthread_mutex_unlock(&domain->lock);
	return len == 0;
}

int
vdpa_domain_bus(struct vdpa_domain *domain, const struct vdpa_member *member,
	const struct vfe_pci_dev *dev, uint64_t gpa, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len)
{
	const struct vdpa_region *r;
	unsigned int i;
	uint64_t n = 0;
	int rc = -EFAULT;

	pthread_mutex_lock(&domain->lock);
	for (i = 0; n == 0 && member->table != NULL && i < member->table->nr_regions; i++) {
		r = &member->table->regions[i];
		if (gpa >= r->gpa && gpa - r->gpa < r->size)
			n = r->size - (gpa - r->gpa);
	}
	/* with the lock: the region is mapped as long as the table has it */
	if (n > 0)
		rc = vfe_pci_dma_addr(dev, gpa, n < len ? n : len, ret_bus, ret_len);
	pthread_mutex_unlock(&domain->lock);
	return rc;
}

int
vdpa_domain_check(struct vdpa_domain *domain, const struct vdpa_member *member,
	const struct vfe_pci_dev *dev, struct vfe_error *err)
{
	struct vdpa_table *table;
	unsigned int i;
	int rc = 0;

	pthread_mutex_lock(&domain->lock);
	table = vdpa_table_get(member->table);
	pthread_mutex_unlock(&domain->lock);
	for (i = 0; rc == 0 && table != NULL && i < table->nr_regions; i++) {
		rc = vfe_pci_dma_check(dev, table->regions[i].gpa, table->regions[i].size, err);
		if (rc < 0)
			vfe_error_prefix(err, rc, "memory region %u", i);
	}
	vdpa_table_put(table);
	return rc;
}
