/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The kernel transport of the PCI seam: a function that a VFIO driver of Linux has.
 *
 * A function can only be opened when its IOMMU group is in an address space, so opening ends in
 * attach(). The kernel resets it then; nothing here does that a second time. It may be opened only
 * once, so detach() closes it: what is left then can only be closed.
 *
 * Registers are mapped where the kernel allows, else read and written through the fd. The kernel
 * takes mapped registers away while a function has no memory decoding; such a fault makes the
 * device lost and nothing else.
 */

#include <endian.h>
#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pci_container.h"
#include "pci_map.h"
#include "pci_sysfs.h"
#include "pci_transport.h"

enum {
	DEFAULT_TIMEOUT_MS = 5000, /* a busy group or function */
	NR_REGIONS = VFIO_PCI_CONFIG_REGION_INDEX + 1,
	MAX_AREAS = 4096,
	TOKEN_SIZE = 37,
};

struct vfio_area {
	uint64_t offset; /* in the region */
	uint64_t size;
};

struct vfio_region {
	uint64_t size;
	uint64_t offset; /* of the fd */
	struct vfio_area *areas;
	uint32_t nr_areas;
};

struct vfio_dev {
	struct vfe_pci_dev pci;
	struct pci_group *group;
	uint32_t timeout_ms;
	char token[TOKEN_SIZE]; /* "" = none */
	bool adopted;
	bool can_reset;
	bool irq_noresize;
	int lost_fd; /* eventfd: the kernel reports an error, or wants the function back */
	struct vfio_region regions[NR_REGIONS];
	struct pci_maps maps;
	atomic_int error;

	pthread_mutex_t lock; /* protects what follows; held for one call of the kernel */
	int fd;               /* -1 when not open; changes only while nobody else uses it */
	bool irq_on;
	bool irq_unknown; /* adopted: how many vectors are switched on is not known yet */
};

static struct vfio_dev *
to_vfio(const struct vfe_pci_dev *dev)
{
	return vfe_container_of((uintptr_t)dev, struct vfio_dev, pci);
}

static int
vfio_error(const struct vfe_pci_dev *dev)
{
	return atomic_load(&to_vfio(dev)->error);
}

static int
vfio_lost_fd(const struct vfe_pci_dev *dev)
{
	return to_vfio(dev)->lost_fd;
}

/* --- the fd --- */

static int
io_error(struct vfio_dev *d, const char *what, unsigned int index, uint64_t off, uint32_t len,
	struct vfe_error *err)
{
	int rc = errno != 0 ? -errno : -EIO;

	d->pci.ops->abort(&d->pci, rc);
	return vfe_error_set(err, rc, "%s %u bytes at 0x%llx of region %u: %s", what, len,
		(unsigned long long)off, index, strerror(-rc));
}

static int
region_read(struct vfio_dev *d, unsigned int index, uint64_t off, void *buf, uint32_t len,
	struct vfe_error *err)
{
	const struct vfio_region *r = &d->regions[index];

	errno = 0;
	if (pread(d->fd, buf, len, (off_t)(r->offset + off)) != (ssize_t)len)
		return io_error(d, "cannot read", index, off, len, err);
	return 0;
}

static int
region_write(struct vfio_dev *d, unsigned int index, uint64_t off, const void *buf, uint32_t len,
	struct vfe_error *err)
{
	const struct vfio_region *r = &d->regions[index];

	errno = 0;
	if (pwrite(d->fd, buf, len, (off_t)(r->offset + off)) != (ssize_t)len)
		return io_error(d, "cannot write", index, off, len, err);
	return 0;
}

/* A function that is given up must not reach memory any more. */
static void
stop_dma_locked(struct vfio_dev *d)
{
	off_t at = (off_t)(d->regions[VFIO_PCI_CONFIG_REGION_INDEX].offset + VFE_PCI_COMMAND);
	uint16_t cmd;

	if (d->fd < 0 || pread(d->fd, &cmd, sizeof(cmd), at) != (ssize_t)sizeof(cmd))
		return;
	cmd &= (uint16_t)~htole16(VFE_PCI_COMMAND_MASTER);
	if (pwrite(d->fd, &cmd, sizeof(cmd), at) < 0)
		return; /* it does not answer: closing it resets it */
}

static void
vfio_abort(struct vfe_pci_dev *dev, int neg_errno)
{
	struct vfio_dev *d = to_vfio(dev);
	int none = 0;

	if (!atomic_compare_exchange_strong(&d->error, &none, neg_errno))
		return;
	pthread_mutex_lock(&d->lock);
	stop_dma_locked(d);
	pthread_mutex_unlock(&d->lock);
}

/* Closes the function, then its group, then the address space if nobody else is in it. */
static void
release(struct vfio_dev *d)
{
	int none = 0;

	atomic_compare_exchange_strong(&d->error, &none, -ENODEV);
	pci_maps_clear(&d->maps); /* a mapping keeps the function open */
	pthread_mutex_lock(&d->lock);
	vfe_close(&d->fd);
	d->irq_on = false;
	pthread_mutex_unlock(&d->lock);
	pci_group_put(d->group);
	d->group = NULL;
}

/* --- registers --- */

static int
vfio_config_read(
	struct vfe_pci_dev *dev, uint32_t off, void *buf, uint32_t len, struct vfe_error *err)
{
	return region_read(to_vfio(dev), VFIO_PCI_CONFIG_REGION_INDEX, off, buf, len, err);
}

static int
vfio_config_write(
	struct vfe_pci_dev *dev, uint32_t off, const void *buf, uint32_t len, struct vfe_error *err)
{
	return region_write(to_vfio(dev), VFIO_PCI_CONFIG_REGION_INDEX, off, buf, len, err);
}

/* The mapping of [@off, @off + @len), made now if the kernel allows; else NULL. */
static struct pci_map *
get_map(struct vfio_dev *d, unsigned int bar, uint64_t off, uint32_t len)
{
	const struct vfio_region *r = &d->regions[bar];
	struct pci_map *m = pci_maps_find(&d->maps, bar, off, len);
	const struct vfio_area *a;
	uint32_t i;

	for (i = 0; m == NULL && i < r->nr_areas; i++) {
		a = &r->areas[i];
		if (off >= a->offset && vfe_range_inside(off - a->offset, len, a->size))
			pci_maps_get(&d->maps, bar, a->offset, a->size, d->fd,
				r->offset + a->offset, &m);
	}
	return m;
}

static int
check_tripped(struct vfio_dev *d)
{
	if (vfe_likely(!atomic_load_explicit(&d->maps.tripped, memory_order_acquire)))
		return 0;
	vfio_abort(&d->pci, -EFAULT);
	return -ENODEV;
}

static int
vfio_bar_read(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, void *buf, uint32_t len,
	struct vfe_error *err)
{
	struct vfio_dev *d = to_vfio(dev);
	struct pci_map *m = get_map(d, bar, off, len);

	if (m == NULL)
		return region_read(d, bar, off, buf, len, err);
	pci_map_read(m, off, buf, len);
	if (check_tripped(d) < 0)
		return vfe_error_set(err, -ENODEV, "its registers are gone");
	return 0;
}

static int
vfio_bar_write(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf,
	uint32_t len, struct vfe_error *err)
{
	struct vfio_dev *d = to_vfio(dev);
	struct pci_map *m = get_map(d, bar, off, len);

	if (m == NULL)
		return region_write(d, bar, off, buf, len, err);
	pci_map_write(m, off, buf, len);
	if (check_tripped(d) < 0)
		return vfe_error_set(err, -ENODEV, "its registers are gone");
	return 0;
}

static int
vfio_doorbell_get(struct vfe_pci_dev *dev, struct vfe_pci_doorbell *db, struct vfe_error *err)
{
	struct vfio_dev *d = to_vfio(dev);
	struct pci_map *m = get_map(d, db->bar, db->off, 2);

	(void)err;
	if (m == NULL)
		return 0;
	db->addr = m->va + (db->off - m->off);
	db->map_fd = d->fd;
	db->map_offset = d->regions[db->bar].offset + (db->off & ~(uint64_t)(PCI_MAP_PAGE - 1));
	db->map_size = PCI_MAP_PAGE;
	return 0;
}

static int
vfio_doorbell_check(struct vfe_pci_dev *dev)
{
	return check_tripped(to_vfio(dev));
}

static int
vfio_doorbell_post(
	struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf, uint32_t len)
{
	return region_write(to_vfio(dev), bar, off, buf, len, NULL) < 0 ? -ENODEV : 0;
}

/* --- interrupts and reset --- */

/* Bind vectors [@start, @start + @count) of @index; @count 0 switches the index off. */
static int
set_irqs(struct vfio_dev *d, uint32_t index, uint32_t start, uint32_t count, const int *fds,
	struct vfe_error *err)
{
	size_t data = count * sizeof(int32_t);
	struct vfio_irq_set *set = calloc(1, sizeof(*set) + data);
	int rc;

	if (set == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u interrupt vectors", count);
	set->argsz = (uint32_t)(sizeof(*set) + data);
	set->flags = VFIO_IRQ_SET_ACTION_TRIGGER |
		     (count > 0 ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
	set->index = index;
	set->start = start;
	set->count = count;
	if (count > 0)
		memcpy(set->data, fds, data);
	rc = ioctl(d->fd, VFIO_DEVICE_SET_IRQS, set);
	if (rc < 0)
		rc = vfe_error_set(err, -errno, "cannot set %u interrupt vectors from %u on: %s",
			count, start, strerror(errno));
	else if (rc > 0)
		rc = vfe_error_set(err, -ENOSPC,
			"the kernel has only %d of %u interrupt vectors for it", rc, start + count);
	free(set);
	return rc;
}

/*
 * The first call switches MSI-X on. A kernel that cannot add vectors later must then be told of
 * all that there are.
 */
static int
switch_on_locked(
	struct vfio_dev *d, uint32_t start, uint32_t count, const int *fds, struct vfe_error *err)
{
	uint32_t n = d->irq_noresize ? d->pci.irq_count : start + count;
	int *all = malloc(n * sizeof(*all));
	int rc;

	if (all == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u interrupt vectors", n);
	memset(all, -1, n * sizeof(*all));
	memcpy(all + start, fds, count * sizeof(*fds));
	rc = set_irqs(d, VFIO_PCI_MSIX_IRQ_INDEX, 0, n, all, err);
	free(all);
	return rc;
}

/*
 * Whoever had the function may have switched on all vectors, a few, or none, and the kernel does
 * not tell. It can fire a vector that is there, and a spurious interrupt harms nobody. If the last
 * one is not there, those that are lose their eventfds, and all are switched on by the call that
 * follows.
 */
static void
find_out_locked(struct vfio_dev *d)
{
	struct vfio_irq_set set = {
		.argsz = sizeof(set),
		.flags = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_NONE,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
		.start = d->pci.irq_count - 1,
		.count = 1,
	};

	d->irq_unknown = false;
	d->irq_on = d->pci.irq_count > 0 && ioctl(d->fd, VFIO_DEVICE_SET_IRQS, &set) == 0;
	if (!d->irq_on)
		set_irqs(d, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL, NULL); /* fails if none was on */
}

static int
vfio_irq_set(struct vfe_pci_dev *dev, uint32_t start, uint32_t count, const int *fds,
	struct vfe_error *err)
{
	struct vfio_dev *d = to_vfio(dev);
	int rc = 0;

	pthread_mutex_lock(&d->lock);
	if (d->irq_unknown)
		find_out_locked(d);
	if (d->irq_on)
		rc = set_irqs(d, VFIO_PCI_MSIX_IRQ_INDEX, start, count, fds, err);
	else if (count > 0)
		rc = switch_on_locked(d, start, count, fds, err);
	if (rc == 0)
		d->irq_on = count > 0;
	pthread_mutex_unlock(&d->lock);
	return rc;
}

static int
vfio_reset(struct vfe_pci_dev *dev, struct vfe_error *err)
{
	struct vfio_dev *d = to_vfio(dev);

	if (!d->can_reset)
		return vfe_error_set(err, -ENOTSUP, "the device has no function level reset");
	if (ioctl(d->fd, VFIO_DEVICE_RESET) < 0)
		return vfe_error_set(err, -errno, "cannot be reset: %s", strerror(errno));
	return 0;
}

/* --- what the kernel says about the function --- */

/* What of the region may be mapped: areas that the kernel names, or all. */
static int
read_areas(struct vfio_region *r, const struct vfio_region_info *info)
{
	const uint16_t id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	struct vfio_region_info_cap_sparse_mmap cap = {.nr_areas = 1};
	struct vfio_region_sparse_mmap_area area = {.size = info->size};
	const uint8_t *at = NULL;
	uint32_t i;

	if ((info->flags & VFIO_REGION_INFO_FLAG_MMAP) == 0)
		return 0;
	if ((info->flags & VFIO_REGION_INFO_FLAG_CAPS) != 0)
		at = pci_vfio_cap(info, info->argsz, info->cap_offset, id, sizeof(cap));
	if (at != NULL) {
		memcpy(&cap, at, sizeof(cap));
		if (cap.nr_areas > MAX_AREAS ||
			pci_vfio_cap(info, info->argsz, info->cap_offset, id,
				(uint32_t)(sizeof(cap) + cap.nr_areas * sizeof(area))) == NULL)
			return -EPROTO;
	}
	r->areas = calloc(cap.nr_areas + 1, sizeof(*r->areas));
	if (r->areas == NULL)
		return -ENOMEM;
	for (i = 0; i < cap.nr_areas; i++) {
		if (at != NULL)
			memcpy(&area, at + sizeof(cap) + i * sizeof(area), sizeof(area));
		if (!vfe_is_aligned(area.offset | area.size | r->offset, PCI_MAP_PAGE) ||
			!vfe_range_inside(area.offset, area.size, r->size))
			continue; /* reached through the fd */
		r->areas[r->nr_areas].offset = area.offset;
		r->areas[r->nr_areas++].size = area.size;
	}
	return 0;
}

static int
read_region(struct vfio_dev *d, uint32_t index, struct vfe_error *err)
{
	const struct vfio_region_info ask = {.index = index};
	struct vfio_region *r = &d->regions[index];
	const struct vfio_region_info *info;
	void *answer;
	int rc;

	rc = pci_vfio_info(d->fd, VFIO_DEVICE_GET_REGION_INFO, &ask, sizeof(ask), &answer, err);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "region %u", index);
	info = answer;
	r->size = info->size;
	r->offset = info->offset;
	if (r->offset > INT64_MAX || r->size > INT64_MAX - r->offset)
		rc = vfe_error_set(err, -EPROTO, "region %u wraps around", index);
	else if (index < VFE_PCI_NR_BARS && r->size > 0)
		rc = read_areas(r, info);
	if (rc == -EPROTO || rc == -ENOMEM)
		vfe_error_set(err, rc, "region %u: %s", index, strerror(-rc));
	free(answer);
	return rc;
}

static int
read_regions(struct vfio_dev *d, struct vfe_error *err)
{
	uint64_t size;
	uint32_t i;
	int rc;

	for (i = 0; i < NR_REGIONS; i++) {
		/* the ROM, which is none of our business */
		rc = i == VFIO_PCI_ROM_REGION_INDEX ? 0 : read_region(d, i, err);
		if (rc < 0)
			return rc;
		if (i < VFE_PCI_NR_BARS)
			d->pci.bar_size[i] = d->regions[i].size;
	}
	size = d->regions[VFIO_PCI_CONFIG_REGION_INDEX].size;
	if (size != VFE_PCI_CFG_SIZE && size != VFE_PCIE_CFG_SIZE)
		return vfe_error_set(err, -EPROTO,
			"the configuration space has %llu bytes, not 256 or 4096",
			(unsigned long long)size);
	d->pci.config_size = (uint32_t)size;
	return 0;
}

static int
read_layout(struct vfio_dev *d, struct vfe_error *err)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct vfio_irq_info irq = {.argsz = sizeof(irq), .index = VFIO_PCI_MSIX_IRQ_INDEX};
	int rc;

	if (ioctl(d->fd, VFIO_DEVICE_GET_INFO, &info) < 0)
		return vfe_error_set(
			err, -errno, "no information about the device: %s", strerror(errno));
	if ((info.flags & VFIO_DEVICE_FLAGS_PCI) == 0 ||
		info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX ||
		info.num_irqs <= VFIO_PCI_MSIX_IRQ_INDEX)
		return vfe_error_set(err, -EPROTO,
			"it is no PCI device: flags 0x%x, %u regions, %u interrupt types",
			info.flags, info.num_regions, info.num_irqs);
	d->can_reset = (info.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
	rc = read_regions(d, err);
	if (rc < 0)
		return rc;
	if (ioctl(d->fd, VFIO_DEVICE_GET_IRQ_INFO, &irq) < 0)
		return vfe_error_set(
			err, -errno, "no information about interrupts: %s", strerror(errno));
	if (irq.count > PCI_MAX_IRQS)
		return vfe_error_set(err, -EPROTO, "the device claims %u MSI-X vectors, %d at most",
			irq.count, PCI_MAX_IRQS);
	d->pci.irq_count = irq.count;
	d->irq_noresize = (irq.flags & VFIO_IRQ_INFO_NORESIZE) != 0;
	return 0;
}

/* Have the kernel tell of uncorrectable errors and when it wants the function back. */
static int
watch_kernel(struct vfio_dev *d, struct vfe_error *err)
{
	static const uint32_t indexes[] = {VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX};
	struct vfio_irq_info irq;
	size_t i;
	int rc;

	for (i = 0; i < VFE_ARRAY_SIZE(indexes); i++) {
		irq = (struct vfio_irq_info){.argsz = sizeof(irq), .index = indexes[i]};
		if (ioctl(d->fd, VFIO_DEVICE_GET_IRQ_INFO, &irq) < 0 || irq.count == 0)
			continue; /* not every function and kernel has them */
		rc = set_irqs(d, indexes[i], 0, 1, &d->lost_fd, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Registers are there only with memory decoding on. DMA waits for vfe_pci_set_master(). */
static int
enable_memory(struct vfio_dev *d, struct vfe_error *err)
{
	uint16_t cmd;
	int rc;

	rc = vfio_config_read(&d->pci, VFE_PCI_COMMAND, &cmd, sizeof(cmd), err);
	if (rc < 0 || (le16toh(cmd) & VFE_PCI_COMMAND_MEM) != 0)
		return rc;
	cmd |= htole16(VFE_PCI_COMMAND_MEM);
	return vfio_config_write(&d->pci, VFE_PCI_COMMAND, &cmd, sizeof(cmd), err);
}

/* --- address spaces --- */

static int
vfio_attach(struct vfe_pci_dev *dev, struct vfe_pci_dev *peer, struct vfe_error *err)
{
	struct vfio_dev *d = to_vfio(dev);
	int rc, shared = 0;

	if (d->fd >= 0 && d->pci.config_size != 0)
		return 0; /* opened without a domain: it has a space of its own */
	if (!d->adopted) {
		shared = pci_group_enter(
			d->group, peer != NULL ? to_vfio(peer)->group : NULL, dev->name, err);
		rc = shared;
		if (rc >= 0)
			rc = pci_group_device(d->group, dev->name,
				d->token[0] != '\0' ? d->token : NULL,
				vfe_deadline_in_ms(d->timeout_ms), err);
		if (rc < 0)
			goto err_release;
		d->fd = rc;
	}
	rc = read_layout(d, err);
	if (rc == 0)
		rc = watch_kernel(d, err);
	if (rc == 0)
		rc = enable_memory(d, err);
	if (rc < 0)
		goto err_release;
	return shared;

err_release:
	release(d);
	return rc;
}

static void
vfio_detach(struct vfe_pci_dev *dev)
{
	release(to_vfio(dev));
}

static int
vfio_dma_map(struct vfe_pci_dev *dev, const struct vfe_pci_dma *dma, struct vfe_error *err)
{
	const struct vfio_dev *d = to_vfio(dev);

	return pci_group_dma_map(d->group, dma, d->fd, err);
}

static int
vfio_dma_unmap(struct vfe_pci_dev *dev, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	return pci_group_dma_unmap(to_vfio(dev)->group, iova, size, err);
}

static int
vfio_dma_addr(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len, struct vfe_error *err)
{
	return pci_group_dma_addr(to_vfio(dev)->group, iova, len, ret_bus, ret_len, err);
}

/* --- opening --- */

static void
vfio_close(struct vfe_pci_dev *dev)
{
	struct vfio_dev *d = to_vfio(dev);
	unsigned int i;

	release(d);
	for (i = 0; i < NR_REGIONS; i++)
		free(d->regions[i].areas);
	vfe_close(&d->lost_fd);
	pci_maps_fini(&d->maps);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static const struct vfe_pci_ops vfio_ops = {
	.name = "vfio",
	.lost_events = POLLIN,
	.kernel_space = true,
	.close = vfio_close,
	.lost_fd = vfio_lost_fd,
	.error = vfio_error,
	.abort = vfio_abort,
	.config_read = vfio_config_read,
	.config_write = vfio_config_write,
	.bar_read = vfio_bar_read,
	.bar_write = vfio_bar_write,
	.doorbell_get = vfio_doorbell_get,
	.doorbell_check = vfio_doorbell_check,
	.doorbell_post = vfio_doorbell_post,
	.irq_set = vfio_irq_set,
	.reset = vfio_reset,
	.attach = vfio_attach,
	.detach = vfio_detach,
	.dma_map = vfio_dma_map,
	.dma_unmap = vfio_dma_unmap,
	.dma_addr = vfio_dma_addr,
};

static int
adopt(struct vfio_dev *d, const struct vfe_pci_vfio_fds *fds, struct vfe_error *err)
{
	int fd = vfe_fd_dup(fds->device);

	if (fd < 0)
		return vfe_error_set(
			err, fd, "cannot keep VFIO fd %d: %s", fds->device, strerror(-fd));
	d->fd = fd;
	d->adopted = true;
	d->irq_unknown = true;
	return pci_group_adopt(fds->container, fds->group, &d->group, err);
}

static int
open_group(struct vfio_dev *d, bool allow_no_iommu, struct vfe_error *err)
{
	int rc = pci_sysfs_check_driver(d->pci.name, err);

	if (rc == 0)
		rc = pci_group_get(d->pci.name, allow_no_iommu, vfe_deadline_in_ms(d->timeout_ms),
			&d->group, err);
	if (rc == 0)
		d->pci.physical = pci_group_is_physical(d->group);
	return rc;
}

int
vfe_pci_vfio_open(
	const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err)
{
	struct vfio_dev *d;
	int rc;

	d = calloc(1, sizeof(*d));
	if (d == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a PCI device");
	d->pci.ops = &vfio_ops;
	vfe_bdf_format(&cfg->bdf, d->pci.name);
	d->timeout_ms = cfg->timeout_ms != 0 ? cfg->timeout_ms : DEFAULT_TIMEOUT_MS;
	d->fd = -1;
	pthread_mutex_init(&d->lock, NULL);
	pci_maps_init(&d->maps);
	d->lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->lost_fd < 0) {
		rc = vfe_error_set(err, -errno, "no eventfd: %s", strerror(errno));
		goto err_close;
	}
	if (cfg->vf_token != NULL && vfe_str_copy(d->token, sizeof(d->token), cfg->vf_token) < 0) {
		rc = vfe_error_set(err, -EINVAL, "the VF token is no UUID");
		goto err_close;
	}
	rc = cfg->vfio_fds != NULL ? adopt(d, cfg->vfio_fds, err)
				   : open_group(d, cfg->allow_no_iommu, err);
	if (rc < 0)
		goto err_close;
	*ret = &d->pci;
	return 0;

err_close:
	vfio_close(&d->pci);
	return rc;
}
