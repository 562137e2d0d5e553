/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * DMA domains: a table of mappings and the devices that share it.
 */

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pci_transport.h"

enum {
	DMA_PAGE = 4096,
	DOMAIN_MAX_MAPS = 4096,
};

struct domain_map {
	struct vfe_pci_dma dma; /* with an fd of our own */
	TAILQ_ENTRY(domain_map) next;
};

struct vfe_pci_domain {
	/*
	 * Protects everything below, and puts changes of the domain in one order for all members.
	 * Held while a transport answers, which its deadline bounds and vfe_pci_abort() cuts short;
	 * for that reason no other path than those changes may take it.
	 */
	pthread_mutex_t lock;
	TAILQ_HEAD(, domain_map) maps; /* sorted by iova */
	unsigned int nr_maps;
	TAILQ_HEAD(, vfe_pci_dev) members;
	uint64_t last_space;
};

int
vfe_pci_domain_create(struct vfe_pci_domain **ret, struct vfe_error *err)
{
	struct vfe_pci_domain *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a DMA domain");
	pthread_mutex_init(&d->lock, NULL);
	TAILQ_INIT(&d->maps);
	TAILQ_INIT(&d->members);
	*ret = d;
	return 0;
}

static void
map_free(struct vfe_pci_domain *d, struct domain_map *m)
{
	TAILQ_REMOVE(&d->maps, m, next);
	d->nr_maps--;
	vfe_close(&m->dma.fd);
	free(m);
}

void
vfe_pci_domain_destroy(struct vfe_pci_domain *d)
{
	struct domain_map *m;

	if (d == NULL)
		return;
	assert(TAILQ_EMPTY(&d->members));
	while ((m = TAILQ_FIRST(&d->maps)) != NULL)
		map_free(d, m);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

/* Can the address space of @dev be changed through it? */
static bool
space_reachable(const struct vfe_pci_dev *dev)
{
	return dev->ops->kernel_space || dev->ops->error(dev) == 0;
}

/* Is @dev the live member through which its address space is changed? */
static bool
represents_space(const struct vfe_pci_domain *d, const struct vfe_pci_dev *dev)
{
	const struct vfe_pci_dev *m;

	if (!space_reachable(dev))
		return false;
	TAILQ_FOREACH (m, &d->members, next) {
		if (m == dev)
			return true;
		if (m->space == dev->space && space_reachable(m))
			return false;
	}
	return true;
}

static bool
space_shared(const struct vfe_pci_domain *d, const struct vfe_pci_dev *dev)
{
	const struct vfe_pci_dev *m;

	TAILQ_FOREACH (m, &d->members, next) {
		if (m != dev && m->space == dev->space)
			return true;
	}
	return false;
}

/* Take back the mappings before @end (NULL = all); what fails makes the device lost. */
static void
unmap_until(struct vfe_pci_domain *d, struct vfe_pci_dev *dev, const struct domain_map *end)
{
	const struct domain_map *m;
	int rc;

	TAILQ_FOREACH (m, &d->maps, next) {
		if (m == end || !space_reachable(dev))
			return;
		rc = dev->ops->dma_unmap(dev, m->dma.iova, m->dma.size, NULL);
		if (rc < 0)
			dev->ops->abort(dev, rc);
	}
}

static int
enter_space(struct vfe_pci_domain *d, struct vfe_pci_dev *dev, struct vfe_error *err)
{
	struct vfe_pci_dev *peer;
	int rc = 0;

	TAILQ_FOREACH (peer, &d->members, next) {
		if (peer->ops == dev->ops && peer->ops->error(peer) == 0)
			break;
	}
	if (dev->ops->attach != NULL) {
		rc = dev->ops->attach(dev, peer, err);
		if (rc < 0)
			return rc;
	}
	dev->space = rc == 1 ? peer->space : ++d->last_space;
	return rc;
}

static int
attach_locked(struct vfe_pci_domain *d, struct vfe_pci_dev *dev, struct vfe_error *err)
{
	const struct domain_map *m = NULL;
	int rc;

	rc = enter_space(d, dev, err);
	if (rc < 0)
		return rc;
	if (rc == 0) {
		TAILQ_FOREACH (m, &d->maps, next) {
			rc = dev->ops->dma_map(dev, &m->dma, err);
			if (rc < 0)
				goto err_unmap;
		}
	}
	TAILQ_INSERT_TAIL(&d->members, dev, next);
	dev->domain = d;
	return 0;

err_unmap:
	unmap_until(d, dev, m);
	if (dev->ops->detach != NULL)
		dev->ops->detach(dev);
	return rc;
}

int
vfe_pci_domain_attach(struct vfe_pci_domain *d, struct vfe_pci_dev *dev, struct vfe_error *err)
{
	int rc;

	rc = pci_check_lost(dev, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&d->lock);
	if (dev->domain != NULL)
		rc = vfe_error_set(err, -EBUSY, "%s is in a DMA domain already", dev->name);
	else
		rc = attach_locked(d, dev, err);
	pthread_mutex_unlock(&d->lock);
	return rc;
}

void
vfe_pci_domain_detach(struct vfe_pci_domain *d, struct vfe_pci_dev *dev)
{
	pthread_mutex_lock(&d->lock);
	if (dev->domain == d) {
		/* no IOMMU stops it from reaching memory that it has not any more */
		if (dev->physical)
			dev->ops->abort(dev, -ENODEV);
		if (!space_shared(d, dev))
			unmap_until(d, dev, NULL);
		if (dev->ops->detach != NULL)
			dev->ops->detach(dev);
		TAILQ_REMOVE(&d->members, dev, next);
		dev->domain = NULL;
	}
	pthread_mutex_unlock(&d->lock);
}

static int
check_dma(const struct vfe_pci_dma *dma, struct vfe_error *err)
{
	const uint32_t prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE;

	if (dma->size == 0 || !vfe_is_aligned(dma->iova | dma->size | dma->fd_offset, DMA_PAGE))
		return vfe_error_set(err, -EINVAL,
			"mapping of 0x%llx bytes at 0x%llx, file offset 0x%llx, is not page "
			"aligned",
			(unsigned long long)dma->size, (unsigned long long)dma->iova,
			(unsigned long long)dma->fd_offset);
	if (dma->iova > UINT64_MAX - (dma->size - 1) ||
		dma->fd_offset > UINT64_MAX - (dma->size - 1))
		return vfe_error_set(err, -EINVAL, "mapping of 0x%llx bytes at 0x%llx wraps around",
			(unsigned long long)dma->size, (unsigned long long)dma->iova);
	if ((dma->prot & ~prot) != 0 || dma->prot == 0)
		return vfe_error_set(
			err, -EINVAL, "access rights 0x%x of a mapping are unknown", dma->prot);
	if (dma->fd < 0)
		return vfe_error_set(err, -EINVAL, "a mapping needs the fd of its memory");
	return 0;
}

/* The first mapping at or after @iova's end; *@ret_overlap tells of one that overlaps. */
static struct domain_map *
find_place(struct vfe_pci_domain *d, const struct vfe_pci_dma *dma, struct domain_map **ret_overlap)
{
	struct domain_map *m;

	*ret_overlap = NULL;
	TAILQ_FOREACH (m, &d->maps, next) {
		if (m->dma.iova + (m->dma.size - 1) < dma->iova)
			continue;
		if (m->dma.iova <= dma->iova + (dma->size - 1))
			*ret_overlap = m;
		return m;
	}
	return NULL;
}

static int
insert_map(struct vfe_pci_domain *d, const struct vfe_pci_dma *dma, struct domain_map **ret,
	struct vfe_error *err)
{
	struct domain_map *after, *overlap, *m;
	int fd;

	after = find_place(d, dma, &overlap);
	if (overlap != NULL)
		return vfe_error_set(err, -EEXIST,
			"mapping of 0x%llx bytes at 0x%llx overlaps the one of 0x%llx bytes at "
			"0x%llx",
			(unsigned long long)dma->size, (unsigned long long)dma->iova,
			(unsigned long long)overlap->dma.size,
			(unsigned long long)overlap->dma.iova);
	if (d->nr_maps == DOMAIN_MAX_MAPS)
		return vfe_error_set(
			err, -ENOSPC, "more than %d mappings in one domain", DOMAIN_MAX_MAPS);

	fd = vfe_fd_dup(dma->fd);
	if (fd < 0)
		return vfe_error_set(err, fd, "cannot keep the fd of a mapping: %s", strerror(-fd));
	m = calloc(1, sizeof(*m));
	if (m == NULL) {
		vfe_close(&fd);
		return vfe_error_set(err, -ENOMEM, "no memory for a mapping");
	}
	m->dma = *dma;
	m->dma.fd = fd;
	if (after != NULL)
		TAILQ_INSERT_BEFORE(after, m, next);
	else
		TAILQ_INSERT_TAIL(&d->maps, m, next);
	d->nr_maps++;
	*ret = m;
	return 0;
}

/* The address space of @dev is not what the domain says any more: all that use it are lost. */
static unsigned int
lose_space(struct vfe_pci_domain *d, const struct vfe_pci_dev *dev, int neg_errno)
{
	uint64_t space = dev->space;
	struct vfe_pci_dev *m;
	unsigned int n = 0;

	TAILQ_FOREACH (m, &d->members, next) {
		if (m->space != space)
			continue;
		m->ops->abort(m, neg_errno);
		n++;
	}
	return n;
}

/* Take @dma back from the members before @end (NULL = all). */
static void
unmap_members(
	struct vfe_pci_domain *d, const struct vfe_pci_dma *dma, const struct vfe_pci_dev *end)
{
	struct vfe_pci_dev *dev;
	int rc;

	TAILQ_FOREACH (dev, &d->members, next) {
		if (dev == end)
			return;
		if (!represents_space(d, dev))
			continue;
		rc = dev->ops->dma_unmap(dev, dma->iova, dma->size, NULL);
		if (rc < 0)
			lose_space(d, dev, rc);
	}
}

/* Only where none of the members can refuse: what has begun would have to be taken back. */
static void
begin_map_members(struct vfe_pci_domain *d, const struct vfe_pci_dma *dma)
{
	struct vfe_pci_dev *dev;

	TAILQ_FOREACH (dev, &d->members, next) {
		if (dev->ops->kernel_space || dev->ops->dma_map_begin == NULL)
			return;
	}
	TAILQ_FOREACH (dev, &d->members, next) {
		dev->map_begun = represents_space(d, dev) && dev->ops->dma_map_begin(dev, dma);
	}
}

/* 0, or what a kernel says that does not take the mapping; nobody has it then. */
static int
map_members(struct vfe_pci_domain *d, const struct vfe_pci_dma *dma, unsigned int *ret_lost,
	struct vfe_error *err)
{
	struct vfe_pci_dev *dev;
	int rc;

	begin_map_members(d, dma);
	TAILQ_FOREACH (dev, &d->members, next) {
		if (!dev->map_begun && !represents_space(d, dev))
			continue;
		dev->map_begun = false;
		rc = dev->ops->dma_map(dev, dma, err);
		if (rc < 0 && dev->ops->kernel_space) {
			unmap_members(d, dma, dev);
			return vfe_error_prefix(err, rc, "%s", dev->name);
		}
		if (rc < 0)
			*ret_lost += lose_space(d, dev, rc);
	}
	return 0;
}

int
vfe_pci_domain_map(struct vfe_pci_domain *d, const struct vfe_pci_dma *dma, unsigned int *ret_lost,
	struct vfe_error *err)
{
	struct domain_map *m = NULL;
	unsigned int lost = 0;
	int rc;

	rc = check_dma(dma, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&d->lock);
	rc = insert_map(d, dma, &m, err);
	if (rc == 0) {
		rc = map_members(d, &m->dma, &lost, err);
		if (rc < 0)
			map_free(d, m);
	}
	pthread_mutex_unlock(&d->lock);
	if (ret_lost != NULL)
		*ret_lost = lost;
	return rc;
}

int
vfe_pci_domain_unmap(struct vfe_pci_domain *d, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	struct domain_map *m;

	pthread_mutex_lock(&d->lock);
	TAILQ_FOREACH (m, &d->maps, next) {
		if (m->dma.iova == iova && m->dma.size == size)
			break;
	}
	if (m != NULL) {
		unmap_members(d, &m->dma, NULL);
		map_free(d, m);
	}
	pthread_mutex_unlock(&d->lock);
	if (m == NULL)
		return vfe_error_set(err, -ENOENT, "no mapping of 0x%llx bytes at 0x%llx",
			(unsigned long long)size, (unsigned long long)iova);
	return 0;
}
