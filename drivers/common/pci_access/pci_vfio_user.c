/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The vfio-user transport of the PCI seam: a function behind a UNIX socket.
 *
 * Registers are read and written by message, unless the server lets us map their place. A mapping
 * covers a whole area that the server names, is made when first needed, and is guarded: a server
 * that shrinks the file makes its own device lost and nothing else.
 */

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pci_map.h"
#include "pci_transport.h"
#include "vfe_vfio_user_client.h"

struct vfu_io_fds {
	struct vfe_vfu_io_fd *fds;
	uint32_t n;
};

struct vfu_dev {
	struct vfe_pci_dev pci;
	struct vfe_vfu_client *client;
	uint32_t flags; /* VFE_VFU_DEVICE_F_* */
	struct vfe_vfu_region bars[VFE_PCI_NR_BARS];

	struct pci_maps maps;
	_Atomic(struct vfu_io_fds *) io[VFE_PCI_NR_BARS]; /* asked for once */
	struct vfe_vfu_call *mapping; /* under way, between begin and end; the domain's lock */
};

static struct vfu_dev *
to_vfu(const struct vfe_pci_dev *dev)
{
	return vfe_container_of((uintptr_t)dev, struct vfu_dev, pci);
}

static int
vfu_error(const struct vfe_pci_dev *dev)
{
	return vfe_vfu_client_error(to_vfu(dev)->client);
}

static void
vfu_abort(struct vfe_pci_dev *dev, int neg_errno)
{
	vfe_vfu_client_abort(to_vfu(dev)->client, neg_errno);
}

static int
vfu_lost_fd(const struct vfe_pci_dev *dev)
{
	return vfe_vfu_client_fd(to_vfu(dev)->client);
}

/* --- mapped areas --- */

static const struct vfe_vfu_area *
find_area(const struct vfe_vfu_region *r, uint64_t off, uint32_t len)
{
	uint32_t i;

	if (r->fd < 0)
		return NULL;
	for (i = 0; i < r->nr_areas; i++) {
		const struct vfe_vfu_area *a = &r->areas[i];

		if (off >= a->offset && vfe_range_inside(off - a->offset, len, a->size))
			return a;
	}
	return NULL;
}

/* Can @area be mapped as it is? Its numbers are the server's. */
static int
check_area(const struct vfe_vfu_region *r, const struct vfe_vfu_area *area, struct vfe_error *err)
{
	int64_t file_size = vfe_fd_size(r->fd);

	if (area->size > PCI_MAP_MAX_SIZE || area->size == 0)
		return -EFBIG;
	if (!vfe_is_aligned(r->offset | area->offset | area->size, PCI_MAP_PAGE) ||
		!vfe_range_inside(area->offset, area->size, r->size))
		return vfe_error_set(err, -EPROTO,
			"mappable area of 0x%llx bytes at 0x%llx is not page aligned or not in "
			"its BAR",
			(unsigned long long)area->size, (unsigned long long)area->offset);
	if (file_size < 0 || r->offset > INT64_MAX || area->offset > INT64_MAX ||
		!vfe_range_inside(r->offset + area->offset, area->size, (uint64_t)file_size))
		return vfe_error_set(err, -EPROTO,
			"mappable area of 0x%llx bytes at 0x%llx is behind the end of its file",
			(unsigned long long)area->size, (unsigned long long)area->offset);
	return 0;
}

/*
 * The mapping that holds [@off, @off + @len), made now if the server allows; NULL when there is
 * none and messages must do. -EPROTO when the server's numbers contradict themselves.
 */
static int
get_map(struct vfu_dev *d, unsigned int bar, uint64_t off, uint32_t len, struct pci_map **ret,
	struct vfe_error *err)
{
	const struct vfe_vfu_region *r = &d->bars[bar];
	const struct vfe_vfu_area *area;
	int rc;

	*ret = pci_maps_find(&d->maps, bar, off, len);
	if (*ret != NULL)
		return 0;
	area = find_area(r, off, len);
	if (area == NULL)
		return 0;
	rc = check_area(r, area, err);
	if (rc == 0)
		pci_maps_get(&d->maps, bar, area->offset, area->size, r->fd,
			r->offset + area->offset, ret);
	if (rc == -EPROTO)
		vfe_error_prefix(err, rc, "BAR %u", bar);
	return rc == -EPROTO ? rc : 0;
}

static int
check_tripped(struct vfu_dev *d)
{
	if (vfe_likely(!atomic_load_explicit(&d->maps.tripped, memory_order_acquire)))
		return 0;
	vfe_vfu_client_abort(d->client, -EFAULT);
	return -ENODEV;
}

/* --- registers --- */

static int
vfu_config_read(
	struct vfe_pci_dev *dev, uint32_t off, void *buf, uint32_t len, struct vfe_error *err)
{
	return vfe_vfu_client_region_read(
		to_vfu(dev)->client, VFE_VFU_REGION_CONFIG, off, buf, len, err);
}

static int
vfu_config_write(
	struct vfe_pci_dev *dev, uint32_t off, const void *buf, uint32_t len, struct vfe_error *err)
{
	return vfe_vfu_client_region_write(
		to_vfu(dev)->client, VFE_VFU_REGION_CONFIG, off, buf, len, err);
}

static int
vfu_bar_read(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, void *buf, uint32_t len,
	struct vfe_error *err)
{
	struct vfu_dev *d = to_vfu(dev);
	struct pci_map *m;
	int rc;

	rc = get_map(d, bar, off, len, &m, err);
	if (rc < 0)
		return rc;
	if (m == NULL)
		return vfe_vfu_client_region_read(d->client, bar, off, buf, len, err);
	pci_map_read(m, off, buf, len);
	return check_tripped(d);
}

static int
vfu_bar_write(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf,
	uint32_t len, struct vfe_error *err)
{
	struct vfu_dev *d = to_vfu(dev);
	struct pci_map *m;
	int rc;

	rc = get_map(d, bar, off, len, &m, err);
	if (rc < 0)
		return rc;
	if (m == NULL)
		return vfe_vfu_client_region_write(d->client, bar, off, buf, len, err);
	pci_map_write(m, off, buf, len);
	return check_tripped(d);
}

/* --- doorbells --- */

/*
 * The io fds of @bar, asked for when first needed. Two threads may ask at the same time; the
 * answer of one of them is kept, and no lock is held while waiting.
 */
static int
get_io_fds(struct vfu_dev *d, unsigned int bar, struct vfu_io_fds **ret, struct vfe_error *err)
{
	struct vfu_io_fds *io, *other = NULL;
	uint32_t i;
	int rc;

	*ret = atomic_load_explicit(&d->io[bar], memory_order_acquire);
	if (*ret != NULL)
		return 0;
	io = calloc(1, sizeof(*io));
	if (io == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for doorbell fds");
	rc = vfe_vfu_client_region_io_fds(d->client, bar, &io->fds, &io->n, err);
	if (rc < 0) {
		free(io);
		return rc;
	}
	for (i = 0; i < io->n; i++)
		vfe_fd_set_nonblock(io->fds[i].fd); /* ringing must not wait for the server */
	if (!atomic_compare_exchange_strong(&d->io[bar], &other, io)) {
		vfe_vfu_io_fds_free(io->fds, io->n);
		free(io);
		io = other;
	}
	*ret = io;
	return 0;
}

static int
vfu_doorbell_get(struct vfe_pci_dev *dev, struct vfe_pci_doorbell *db, struct vfe_error *err)
{
	struct vfu_dev *d = to_vfu(dev);
	const struct vfe_vfu_region *r = &d->bars[db->bar];
	struct vfu_io_fds *io;
	struct pci_map *m;
	uint32_t i;
	int rc;

	rc = get_map(d, db->bar, db->off, 2, &m, err);
	if (rc < 0)
		return rc;
	if (m != NULL) {
		db->addr = m->va + (db->off - m->off);
		db->map_fd = r->fd;
		db->map_offset = r->offset + (db->off & ~(uint64_t)(PCI_MAP_PAGE - 1));
		db->map_size = PCI_MAP_PAGE;
		return 0;
	}
	rc = get_io_fds(d, db->bar, &io, err);
	if (rc < 0)
		return rc;
	for (i = 0; i < io->n; i++) {
		if (io->fds[i].offset == db->off) {
			db->event_fd = io->fds[i].fd;
			break;
		}
	}
	return 0;
}

static int
vfu_doorbell_check(struct vfe_pci_dev *dev)
{
	return check_tripped(to_vfu(dev));
}

static int
vfu_doorbell_post(
	struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf, uint32_t len)
{
	struct vfu_dev *d = to_vfu(dev);
	int rc = vfe_vfu_client_region_post(d->client, bar, off, buf, len);

	return rc == 0 || rc == -EAGAIN ? rc : -ENODEV;
}

/* --- interrupts, reset, memory --- */

static int
vfu_irq_set(struct vfe_pci_dev *dev, uint32_t start, uint32_t count, const int *fds,
	struct vfe_error *err)
{
	return vfe_vfu_client_irq_set(
		to_vfu(dev)->client, VFE_VFU_IRQ_MSIX, start, count, fds, err);
}

static int
vfu_reset(struct vfe_pci_dev *dev, struct vfe_error *err)
{
	struct vfu_dev *d = to_vfu(dev);

	if ((d->flags & VFE_VFU_DEVICE_F_RESET) == 0)
		return vfe_error_set(err, -ENOTSUP, "the device has no function level reset");
	return vfe_vfu_client_reset(d->client, err);
}

static int
map_begin(struct vfu_dev *d, const struct vfe_pci_dma *dma, struct vfe_error *err)
{
	uint32_t prot = 0;

	if ((dma->prot & VFE_PCI_DMA_READ) != 0)
		prot |= VFE_VFU_DMA_F_READ;
	if ((dma->prot & VFE_PCI_DMA_WRITE) != 0)
		prot |= VFE_VFU_DMA_F_WRITE;
	return vfe_vfu_client_dma_map_begin(
		d->client, dma->iova, dma->size, prot, dma->fd, dma->fd_offset, &d->mapping, err);
}

static bool
vfu_dma_map_begin(struct vfe_pci_dev *dev, const struct vfe_pci_dma *dma)
{
	return map_begin(to_vfu(dev), dma, NULL) == 0;
}

static int
vfu_dma_map(struct vfe_pci_dev *dev, const struct vfe_pci_dma *dma, struct vfe_error *err)
{
	struct vfu_dev *d = to_vfu(dev);
	struct vfe_vfu_call *call;
	int rc = 0;

	if (d->mapping == NULL)
		rc = map_begin(d, dma, err);
	if (rc < 0)
		return rc;
	call = d->mapping;
	d->mapping = NULL;
	return vfe_vfu_client_dma_map_end(d->client, call, err);
}

static int
vfu_dma_unmap(struct vfe_pci_dev *dev, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	return vfe_vfu_client_dma_unmap(to_vfu(dev)->client, iova, size, err);
}

/* --- opening --- */

static void
vfu_close(struct vfe_pci_dev *dev)
{
	struct vfu_dev *d = to_vfu(dev);
	struct vfu_io_fds *io;
	unsigned int i;

	pci_maps_fini(&d->maps);
	for (i = 0; i < VFE_PCI_NR_BARS; i++) {
		io = atomic_load(&d->io[i]);
		if (io != NULL)
			vfe_vfu_io_fds_free(io->fds, io->n);
		free(io);
		vfe_vfu_region_fini(&d->bars[i]);
	}
	vfe_vfu_client_close(d->client);
	free(d);
}

static int
read_config_size(struct vfu_dev *d, struct vfe_error *err)
{
	struct vfe_vfu_region config;
	uint64_t size;
	int rc;

	rc = vfe_vfu_client_region_info(d->client, VFE_VFU_REGION_CONFIG, &config, err);
	if (rc < 0)
		return rc;
	size = config.size;
	vfe_vfu_region_fini(&config);
	if (size != VFE_PCI_CFG_SIZE && size != VFE_PCIE_CFG_SIZE)
		return vfe_error_set(err, -EPROTO,
			"the configuration space has %llu bytes, not 256 or 4096",
			(unsigned long long)size);
	d->pci.config_size = (uint32_t)size;
	return 0;
}

static int
read_layout(struct vfu_dev *d, struct vfe_error *err)
{
	uint32_t nr_regions, nr_irqs;
	unsigned int i;
	int rc;

	rc = vfe_vfu_client_device_info(d->client, &d->flags, &nr_regions, &nr_irqs, err);
	if (rc < 0)
		return rc;
	if ((d->flags & VFE_VFU_DEVICE_F_PCI) == 0 || nr_regions <= VFE_VFU_REGION_CONFIG ||
		nr_irqs <= VFE_VFU_IRQ_MSIX)
		return vfe_error_set(err, -EPROTO,
			"the server has no PCI device: flags 0x%x, %u regions, %u interrupt types",
			d->flags, nr_regions, nr_irqs);

	rc = read_config_size(d, err);
	if (rc < 0)
		return rc;
	for (i = 0; i < VFE_PCI_NR_BARS; i++) {
		rc = vfe_vfu_client_region_info(d->client, i, &d->bars[i], err);
		if (rc < 0) {
			d->bars[i] = (struct vfe_vfu_region){.fd = -1};
			return vfe_error_prefix(err, rc, "BAR %u", i);
		}
		d->pci.bar_size[i] = d->bars[i].size;
	}
	rc = vfe_vfu_client_irq_info(d->client, VFE_VFU_IRQ_MSIX, &d->pci.irq_count, err);
	if (rc < 0)
		return rc;
	if (d->pci.irq_count > PCI_MAX_IRQS)
		return vfe_error_set(err, -EPROTO, "the device claims %u MSI-X vectors, %d at most",
			d->pci.irq_count, PCI_MAX_IRQS);
	return 0;
}

static const struct vfe_pci_ops vfu_ops = {
	.name = "vfio-user",
	.lost_events = POLLRDHUP,
	.close = vfu_close,
	.lost_fd = vfu_lost_fd,
	.error = vfu_error,
	.abort = vfu_abort,
	.config_read = vfu_config_read,
	.config_write = vfu_config_write,
	.bar_read = vfu_bar_read,
	.bar_write = vfu_bar_write,
	.doorbell_get = vfu_doorbell_get,
	.doorbell_check = vfu_doorbell_check,
	.doorbell_post = vfu_doorbell_post,
	.irq_set = vfu_irq_set,
	.reset = vfu_reset,
	.dma_map_begin = vfu_dma_map_begin,
	.dma_map = vfu_dma_map,
	.dma_unmap = vfu_dma_unmap,
};

int
vfe_pci_vfio_user_open(
	const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err)
{
	struct vfu_dev *d;
	unsigned int i;
	int rc;

	d = calloc(1, sizeof(*d));
	if (d == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a PCI device");
	d->pci.ops = &vfu_ops;
	vfe_bdf_format(&cfg->bdf, d->pci.name);
	pci_maps_init(&d->maps);
	for (i = 0; i < VFE_PCI_NR_BARS; i++)
		d->bars[i].fd = -1;

	rc = vfe_vfu_client_connect(cfg->vfio_user_path, cfg->timeout_ms, &d->client, err);
	if (rc == 0)
		rc = read_layout(d, err);
	if (rc == -ECONNRESET)
		rc = vfe_error_set(err, -EBUSY,
			"the server hung up: another program seems to use this function");
	if (rc < 0) {
		vfu_close(&d->pci);
		return vfe_error_prefix(err, rc, "%s", cfg->vfio_user_path);
	}
	*ret = &d->pci;
	return 0;
}
