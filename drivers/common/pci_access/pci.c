/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The PCI seam: opens a function by the transport that has it, checks arguments, dispatches.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pci_sysfs.h"
#include "pci_transport.h"

int
pci_check_lost(const struct vfe_pci_dev *dev, struct vfe_error *err)
{
	int rc = dev->ops->error(dev);

	if (vfe_likely(rc == 0))
		return 0;
	return vfe_error_set(err, -ENODEV, "the device is lost (%s)", strerror(-rc));
}

int
vfe_pci_open(const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err)
{
	struct vfe_pci_dev *dev;
	int rc;

	if (cfg->vfio_user_path != NULL && cfg->vfio_user_path[0] != '\0')
		rc = vfe_pci_vfio_user_open(cfg, &dev, err);
	else
		rc = vfe_pci_vfio_open(cfg, &dev, err);
	if (rc < 0)
		return rc;
	if (cfg->domain != NULL)
		rc = vfe_pci_domain_attach(cfg->domain, dev, err);
	else if (dev->ops->attach != NULL)
		rc = dev->ops->attach(dev, NULL, err);
	if (rc < 0) {
		vfe_pci_close(dev);
		return rc;
	}
	*ret = dev;
	return 0;
}

void
vfe_pci_close(struct vfe_pci_dev *dev)
{
	if (dev == NULL)
		return;
	if (dev->ops->error(dev) == 0 && dev->irq_count > 0)
		dev->ops->irq_set(dev, 0, 0, NULL, NULL);
	if (dev->domain != NULL)
		vfe_pci_domain_detach(dev->domain, dev);
	dev->ops->close(dev);
}

const char *
vfe_pci_name(const struct vfe_pci_dev *dev)
{
	return dev->name;
}

const char *
vfe_pci_transport(const struct vfe_pci_dev *dev)
{
	return dev->ops->name;
}

int
vfe_pci_lost_fd(const struct vfe_pci_dev *dev)
{
	return dev->ops->lost_fd(dev);
}

uint32_t
vfe_pci_lost_events(const struct vfe_pci_dev *dev)
{
	return dev->ops->lost_events;
}

int
vfe_pci_error(const struct vfe_pci_dev *dev)
{
	return dev->ops->error(dev);
}

void
vfe_pci_abort(struct vfe_pci_dev *dev)
{
	dev->ops->abort(dev, -ECANCELED);
}

static int
check_config(const struct vfe_pci_dev *dev, uint32_t off, uint32_t len, struct vfe_error *err)
{
	if (len == 0 || !vfe_range_inside(off, len, dev->config_size))
		return vfe_error_set(err, -ERANGE,
			"configuration access of %u bytes at 0x%x is outside its %u bytes", len,
			off, dev->config_size);
	return pci_check_lost(dev, err);
}

int
vfe_pci_config_read(
	struct vfe_pci_dev *dev, uint32_t off, void *buf, uint32_t len, struct vfe_error *err)
{
	int rc = check_config(dev, off, len, err);

	return rc < 0 ? rc : dev->ops->config_read(dev, off, buf, len, err);
}

int
vfe_pci_config_write(
	struct vfe_pci_dev *dev, uint32_t off, const void *buf, uint32_t len, struct vfe_error *err)
{
	int rc = check_config(dev, off, len, err);

	return rc < 0 ? rc : dev->ops->config_write(dev, off, buf, len, err);
}

uint32_t
vfe_pci_config_size(const struct vfe_pci_dev *dev)
{
	return dev->config_size;
}

uint64_t
vfe_pci_bar_size(const struct vfe_pci_dev *dev, unsigned int bar)
{
	return bar < VFE_PCI_NR_BARS ? dev->bar_size[bar] : 0;
}

static int
check_bar(const struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, uint32_t len,
	struct vfe_error *err)
{
	if (len == 0 || len > 8 || !vfe_is_pow2(len) || !vfe_is_aligned(off, len))
		return vfe_error_set(err, -EINVAL,
			"register access of %u bytes at 0x%llx is not of a natural width", len,
			(unsigned long long)off);
	if (!vfe_range_inside(off, len, vfe_pci_bar_size(dev, bar)))
		return vfe_error_set(err, -ERANGE,
			"access of %u bytes at 0x%llx is outside BAR %u of %llu bytes", len,
			(unsigned long long)off, bar,
			(unsigned long long)vfe_pci_bar_size(dev, bar));
	return pci_check_lost(dev, err);
}

int
vfe_pci_bar_read(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, void *buf, uint32_t len,
	struct vfe_error *err)
{
	int rc = check_bar(dev, bar, off, len, err);

	return rc < 0 ? rc : dev->ops->bar_read(dev, bar, off, buf, len, err);
}

int
vfe_pci_bar_write(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf,
	uint32_t len, struct vfe_error *err)
{
	int rc = check_bar(dev, bar, off, len, err);

	return rc < 0 ? rc : dev->ops->bar_write(dev, bar, off, buf, len, err);
}

int
vfe_pci_doorbell_get(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off,
	struct vfe_pci_doorbell *ret, struct vfe_error *err)
{
	int rc = check_bar(dev, bar, off, 2, err);

	if (rc < 0)
		return rc;
	*ret = (struct vfe_pci_doorbell){
		.dev = dev, .bar = bar, .off = off, .event_fd = -1, .map_fd = -1};
	return dev->ops->doorbell_get(dev, ret, err);
}

/* What the driver wrote into the ring before must be visible to who sees the doorbell. */
static void
store_doorbell(void *addr, uint32_t value, uint32_t len)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (len == 4)
		atomic_store_explicit(
			(_Atomic uint32_t *)addr, htole32(value), memory_order_release);
	else
		atomic_store_explicit(
			(_Atomic uint16_t *)addr, htole16((uint16_t)value), memory_order_release);
}

int
vfe_pci_doorbell_ring(const struct vfe_pci_doorbell *db, uint32_t value, uint32_t len)
{
	const uint64_t one = 1;
	uint32_t bytes = htole32(value); /* the first @len bytes are the value in both cases */

	if ((len != 2 && len != 4) || !vfe_is_aligned(db->off, len))
		return -EINVAL;
	if (vfe_unlikely(db->dev->ops->error(db->dev) != 0))
		return -ENODEV;

	if (db->addr != NULL) {
		store_doorbell(db->addr, value, len);
		return db->dev->ops->doorbell_check != NULL ? db->dev->ops->doorbell_check(db->dev)
							    : 0;
	}
	if (db->event_fd >= 0) {
		if (write(db->event_fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
			return 0;
		/* a full counter has woken the reader already; anything else is the peer's doing */
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -ENODEV;
	}
	return db->dev->ops->doorbell_post(db->dev, db->bar, db->off, &bytes, len);
}

uint32_t
vfe_pci_irq_count(const struct vfe_pci_dev *dev)
{
	return dev->irq_count;
}

int
vfe_pci_irq_set(struct vfe_pci_dev *dev, uint32_t start, uint32_t count, const int *fds,
	struct vfe_error *err)
{
	int rc;

	if (!vfe_range_inside(start, count, dev->irq_count))
		return vfe_error_set(err, -ERANGE,
			"vectors %u to %llu are more than the %u that the device has", start,
			(unsigned long long)start + count - 1, dev->irq_count);
	rc = pci_check_lost(dev, err);
	if (rc < 0)
		return rc;
	return dev->ops->irq_set(dev, count == 0 ? 0 : start, count, fds, err);
}

int
vfe_pci_reset(struct vfe_pci_dev *dev, struct vfe_error *err)
{
	int rc = pci_check_lost(dev, err);

	return rc < 0 ? rc : dev->ops->reset(dev, err);
}

int
vfe_pci_set_master(struct vfe_pci_dev *dev, bool on, struct vfe_error *err)
{
	uint16_t old, cmd;
	int rc;

	rc = vfe_pci_config_read(dev, VFE_PCI_COMMAND, &old, sizeof(old), err);
	if (rc < 0)
		return rc;
	cmd = le16toh(old);
	if (on)
		cmd |= VFE_PCI_COMMAND_MASTER | VFE_PCI_COMMAND_MEM;
	else
		cmd &= (uint16_t)~VFE_PCI_COMMAND_MASTER;
	if (cmd == le16toh(old))
		return 0;
	cmd = htole16(cmd);
	return vfe_pci_config_write(dev, VFE_PCI_COMMAND, &cmd, sizeof(cmd), err);
}

bool
vfe_pci_is_physical(const struct vfe_pci_dev *dev)
{
	return dev->physical;
}

int
vfe_pci_dma_addr(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len)
{
	if (vfe_unlikely(dev->physical))
		return dev->ops->dma_addr(dev, iova, len, ret_bus, ret_len, NULL);
	*ret_bus = iova;
	*ret_len = len;
	return 0;
}

int
vfe_pci_dma_check(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, struct vfe_error *err)
{
	uint64_t bus, n;
	int rc = 0;

	while (rc == 0 && dev->physical && len > 0) {
		rc = dev->ops->dma_addr(dev, iova, len, &bus, &n, err);
		if (rc == 0) {
			iova += n;
			len -= n;
		}
	}
	return rc;
}

int
vfe_pci_find(const struct vfe_bdf *bdf, const char *vfio_user_dir, char *path, size_t size,
	struct vfe_error *err)
{
	char name[VFE_BDF_STR_SIZE], sysfs[PCI_PATH_SIZE];
	struct stat st;
	int rc;

	if (vfe_pci_is_kernel(bdf))
		return vfe_str_copy(path, size, "");

	vfe_bdf_format(bdf, name);
	rc = pci_sysfs_path(sysfs, name, "");
	assert(rc == 0);
	rc = vfe_str_format(path, size, "%s/%s.sock", vfio_user_dir, name);
	if (rc < 0) {
		if (size > 0)
			path[0] = '\0';
		return vfe_error_set(
			err, rc, "the path %s/%s.sock is too long", vfio_user_dir, name);
	}
	if (stat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		return 0;
	path[0] = '\0';
	return vfe_error_set(err, -ENOENT, "there is neither a function %s nor a socket %s/%s.sock",
		sysfs, vfio_user_dir, name);
}
