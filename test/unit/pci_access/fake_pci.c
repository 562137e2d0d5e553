/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: a transport of the PCI seam that lives in this process and does what a test wants.
 */

#undef NDEBUG

#include "fake_pci.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

static struct fake_pci *
to_fake(const struct vfe_pci_dev *dev)
{
	return vfe_container_of((uintptr_t)dev, struct fake_pci, pci);
}

static void
fake_close(struct vfe_pci_dev *dev)
{
	to_fake(dev)->closed = true;
}

static int
fake_lost_fd(const struct vfe_pci_dev *dev)
{
	(void)dev;
	return -1;
}

static int
fake_error(const struct vfe_pci_dev *dev)
{
	return atomic_load(&to_fake(dev)->error);
}

static void
fake_abort(struct vfe_pci_dev *dev, int neg_errno)
{
	int none = 0;

	atomic_compare_exchange_strong(&to_fake(dev)->error, &none, neg_errno);
}

static int
fake_config_read(
	struct vfe_pci_dev *dev, uint32_t off, void *buf, uint32_t len, struct vfe_error *err)
{
	(void)err;
	memcpy(buf, to_fake(dev)->config + off, len);
	return 0;
}

static int
fake_config_write(
	struct vfe_pci_dev *dev, uint32_t off, const void *buf, uint32_t len, struct vfe_error *err)
{
	(void)err;
	memcpy(to_fake(dev)->config + off, buf, len);
	return 0;
}

static int
fake_bar_read(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, void *buf, uint32_t len,
	struct vfe_error *err)
{
	struct fake_pci *f = to_fake(dev);

	(void)err;
	if (f->bar_read != NULL)
		return f->bar_read(f, bar, off, buf, len);
	memcpy(buf, &f->bar[bar][off], len);
	return 0;
}

static int
fake_bar_write(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf,
	uint32_t len, struct vfe_error *err)
{
	struct fake_pci *f = to_fake(dev);

	(void)err;
	if (f->bar_write != NULL)
		return f->bar_write(f, bar, off, buf, len);
	memcpy(&f->bar[bar][off], buf, len);
	return 0;
}

static int
fake_doorbell_get(struct vfe_pci_dev *dev, struct vfe_pci_doorbell *db, struct vfe_error *err)
{
	(void)dev;
	(void)db;
	(void)err;
	return 0;
}

static int
fake_doorbell_post(
	struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf, uint32_t len)
{
	struct fake_pci *f = to_fake(dev);
	uint32_t value = 0;

	memcpy(&value, buf, len);
	return f->doorbell != NULL ? f->doorbell(f, bar, off, value) : 0;
}

static int
fake_irq_set(struct vfe_pci_dev *dev, uint32_t start, uint32_t count, const int *fds,
	struct vfe_error *err)
{
	struct fake_pci *f = to_fake(dev);
	uint32_t i;

	(void)err;
	assert(start + count <= FAKE_MAX_IRQS);
	if (count == 0)
		memset(f->irq_fds, -1, sizeof(f->irq_fds));
	for (i = 0; i < count; i++)
		f->irq_fds[start + i] = fds[i];
	return 0;
}

static int
fake_reset(struct vfe_pci_dev *dev, struct vfe_error *err)
{
	(void)err;
	to_fake(dev)->resets++;
	return 0;
}

static int
fake_attach(struct vfe_pci_dev *dev, struct vfe_pci_dev *peer, struct vfe_error *err)
{
	(void)err;
	return to_fake(dev)->share && peer != NULL ? 1 : 0;
}

static void
fake_detach(struct vfe_pci_dev *dev)
{
	to_fake(dev)->detaches++;
}

static bool
fake_dma_map_begin(struct vfe_pci_dev *dev, const struct vfe_pci_dma *dma)
{
	struct fake_pci *f = to_fake(dev);

	(void)dma;
	if (f->clock != NULL)
		f->begun_at = ++*f->clock;
	return f->clock != NULL;
}

static int
fake_dma_map(struct vfe_pci_dev *dev, const struct vfe_pci_dma *dma, struct vfe_error *err)
{
	struct fake_pci *f = to_fake(dev);
	struct fake_map *m = &f->maps[f->nr_maps];
	int rc = f->dma_map_result;

	f->dma_maps++;
	f->dma_map_result = 0;
	if (f->clock != NULL)
		f->mapped_at = ++*f->clock;
	if (f->victim != NULL)
		atomic_store(&f->victim->error, -ENODEV);
	if (rc < 0)
		return vfe_error_set(err, rc, "the test says no");
	assert(f->nr_maps < FAKE_MAX_MAPS);
	m->va = mmap(NULL, dma->size, PROT_READ | PROT_WRITE, MAP_SHARED, dma->fd,
		(off_t)dma->fd_offset);
	assert(m->va != MAP_FAILED);
	m->iova = dma->iova;
	m->size = dma->size;
	f->nr_maps++;
	return 0;
}

static int
fake_dma_unmap(struct vfe_pci_dev *dev, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	struct fake_pci *f = to_fake(dev);
	unsigned int i;

	f->dma_unmaps++;
	for (i = 0; i < f->nr_maps; i++) {
		if (f->maps[i].iova != iova || f->maps[i].size != size)
			continue;
		munmap(f->maps[i].va, f->maps[i].size);
		f->maps[i] = f->maps[--f->nr_maps];
		return 0;
	}
	/* in a shared space it was perhaps another member that mapped it */
	return f->share ? 0 : vfe_error_set(err, -ENOENT, "not mapped");
}

static int
fake_dma_addr(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len, struct vfe_error *err)
{
	const struct fake_pci *f = to_fake(dev);

	if (iova + f->bus_offset < iova)
		return vfe_error_set(err, -EFAULT, "not mapped");
	*ret_bus = iova + f->bus_offset;
	*ret_len = len;
	if (f->bus_piece > iova && f->bus_piece - iova < len)
		*ret_len = f->bus_piece - iova;
	return 0;
}

static const struct vfe_pci_ops fake_ops = {
	.name = "fake",
	.lost_events = POLLRDHUP,
	.close = fake_close,
	.lost_fd = fake_lost_fd,
	.error = fake_error,
	.abort = fake_abort,
	.config_read = fake_config_read,
	.config_write = fake_config_write,
	.bar_read = fake_bar_read,
	.bar_write = fake_bar_write,
	.doorbell_get = fake_doorbell_get,
	.doorbell_post = fake_doorbell_post,
	.irq_set = fake_irq_set,
	.reset = fake_reset,
	.attach = fake_attach,
	.detach = fake_detach,
	.dma_map_begin = fake_dma_map_begin,
	.dma_map = fake_dma_map,
	.dma_unmap = fake_dma_unmap,
	.dma_addr = fake_dma_addr,
};

void
fake_pci_init(struct fake_pci *f, const char *bdf)
{
	memset(f, 0, sizeof(*f));
	memset(f->irq_fds, -1, sizeof(f->irq_fds));
	f->pci.ops = &fake_ops;
	vfe_str_copy(f->pci.name, sizeof(f->pci.name), bdf);
	f->pci.config_size = VFE_PCIE_CFG_SIZE;
	f->pci.irq_count = FAKE_MAX_IRQS;
}

void
fake_pci_fini(struct fake_pci *f)
{
	while (f->nr_maps > 0) {
		f->nr_maps--;
		munmap(f->maps[f->nr_maps].va, f->maps[f->nr_maps].size);
	}
}

void *
fake_pci_dma(const struct fake_pci *f, uint64_t iova, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < f->nr_maps; i++) {
		const struct fake_map *m = &f->maps[i];

		if (iova >= m->iova && vfe_range_inside(iova - m->iova, len, m->size))
			return m->va + (iova - m->iova);
	}
	return NULL;
}
