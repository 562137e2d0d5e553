/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Configuration space: header, PCIe, MSI-X, virtio capabilities, SR-IOV.
 */

#include "vdev_priv.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
	CAP_EXP = 0x40,
	EXP_CAP_LEN = 0x3c,
	CAP_MSIX = CAP_EXP + EXP_CAP_LEN,
	CAP_COMMON = CAP_MSIX + 12,
	CAP_ISR = CAP_COMMON + 16,
	CAP_DEVICE = CAP_ISR + 16,
	CAP_NOTIFY = CAP_DEVICE + 16,
	CAP_PCI_CFG = CAP_NOTIFY + 20,

	EXT_CAP_ARI = 0x100,
	EXT_CAP_SRIOV = 0x110,

	/* PCI Express capability (PCIe 6.0 section 7.5.3) */
	EXP_FLAGS = 2,
	EXP_FLAGS_V2_ENDPOINT = 0x0002,
	EXP_DEVCAP = 4,
	EXP_DEVCAP_RBER = 1 << 15,
	EXP_DEVCAP_FLR = 1 << 28,
	EXP_DEVCTL = 8,
	EXP_DEVCTL_FLR = 0x8000,
	EXP_DEVCTL_WRITABLE = 0x78ff, /* error reporting, payload and request size, ordering */

	SRIOV_CAP_ARI_PRESERVED = 2,
	SRIOV_CTRL_ARI = 0x10,
	SRIOV_PAGE_4K = 1,
};

static_assert(CAP_PCI_CFG + 20 <= VFE_PCI_CFG_SIZE, "capabilities fit");

uint16_t
vdev_space_get16(const struct vfe_vdev *dev, uint32_t off)
{
	uint16_t v;

	memcpy(&v, &dev->space[off], sizeof(v));
	return le16toh(v);
}

uint32_t
vdev_space_get32(const struct vfe_vdev *dev, uint32_t off)
{
	uint32_t v;

	memcpy(&v, &dev->space[off], sizeof(v));
	return le32toh(v);
}

static void
put16(uint8_t *space, uint32_t off, uint16_t v)
{
	v = htole16(v);
	memcpy(&space[off], &v, sizeof(v));
}

static void
put32(uint8_t *space, uint32_t off, uint32_t v)
{
	v = htole32(v);
	memcpy(&space[off], &v, sizeof(v));
}

/* A 64-bit BAR: its address bits above the size are writable, which is how it tells its size. */
static void
put_bar64(struct vfe_vdev *dev, uint32_t off, uint64_t size)
{
	uint64_t mask = ~(size - 1);

	put32(dev->space, off, VFE_PCI_BAR_MEM64 | VFE_PCI_BAR_PREFETCH);
	put32(dev->writable, off, (uint32_t)mask & ~0xfu);
	put32(dev->writable, off + 4, (uint32_t)(mask >> 32));
}

static void
build_header(struct vfe_vdev *dev)
{
	uint8_t *s = dev->space;

	put16(s, VFE_PCI_VENDOR_ID, VFE_PCI_VENDOR_VIRTIO);
	put16(s, VFE_PCI_DEVICE_ID, dev->cfg.pci_device_id);
	put16(s, VFE_PCI_STATUS, VFE_PCI_STATUS_CAP_LIST);
	s[VFE_PCI_REVISION] = 1; /* section 4.1.2.1: non-transitional */
	s[VFE_PCI_CLASS] = (uint8_t)dev->cfg.pci_class;
	s[VFE_PCI_CLASS + 1] = (uint8_t)(dev->cfg.pci_class >> 8);
	s[VFE_PCI_CLASS + 2] = (uint8_t)(dev->cfg.pci_class >> 16);
	put16(s, VFE_PCI_SUBSYS_VENDOR, VFE_PCI_VENDOR_VIRTIO);
	put16(s, VFE_PCI_SUBSYS_ID, dev->cfg.pci_device_id);
	s[VFE_PCI_CAP_PTR] = CAP_EXP;

	put16(dev->writable, VFE_PCI_COMMAND,
		VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER | VFE_PCI_COMMAND_INTX_DIS);
	dev->writable[0x0c] = 0xff; /* cache line size */
	dev->writable[VFE_PCI_INT_LINE] = 0xff;
	put_bar64(dev, VFE_PCI_BAR0, dev->bar_size);
}

static void
build_exp(struct vfe_vdev *dev)
{
	dev->exp_cap = CAP_EXP;
	dev->space[CAP_EXP] = VFE_PCI_CAP_EXP;
	dev->space[CAP_EXP + 1] = CAP_MSIX;
	put16(dev->space, CAP_EXP + EXP_FLAGS, EXP_FLAGS_V2_ENDPOINT);
	put32(dev->space, CAP_EXP + EXP_DEVCAP, EXP_DEVCAP_RBER | EXP_DEVCAP_FLR);
	put16(dev->writable, CAP_EXP + EXP_DEVCTL, EXP_DEVCTL_WRITABLE);
}

static void
build_msix(struct vfe_vdev *dev)
{
	struct vfe_wire_msix_cap cap = {
		.id = VFE_PCI_CAP_MSIX,
		.next = CAP_COMMON,
		.ctrl = htole16((uint16_t)(dev->cfg.nr_vectors - 1)),
		.table = htole32(VDEV_BAR_MSIX), /* BIR 0 */
		.pba = htole32(dev->pba_off),
	};

	dev->msix_cap = CAP_MSIX;
	memcpy(&dev->space[CAP_MSIX], &cap, sizeof(cap));
	put16(dev->writable, CAP_MSIX + offsetof(struct vfe_wire_msix_cap, ctrl),
		VFE_PCI_MSIX_CTRL_ENABLE | VFE_PCI_MSIX_CTRL_MASK);
}

static void
put_virtio_cap(
	struct vfe_vdev *dev, uint8_t at, uint8_t next, uint8_t type, uint32_t off, uint32_t len)
{
	struct vfe_wire_virtio_cap cap = {
		.cap_vndr = VFE_PCI_CAP_VENDOR,
		.cap_next = next,
		.cap_len = sizeof(cap),
		.cfg_type = type,
		.offset = htole32(off),
		.length = htole32(len),
	};

	memcpy(&dev->space[at], &cap, sizeof(cap));
}

static void
build_virtio(struct vfe_vdev *dev)
{
	uint32_t i;

	put_virtio_cap(dev, CAP_COMMON, CAP_ISR, VFE_VIRTIO_PCI_CAP_COMMON, VDEV_BAR_COMMON,
		sizeof(struct vfe_wire_virtio_common));
	put_virtio_cap(dev, CAP_ISR, CAP_DEVICE, VFE_VIRTIO_PCI_CAP_ISR, VDEV_BAR_ISR, 1);
	put_virtio_cap(dev, CAP_DEVICE, CAP_NOTIFY, VFE_VIRTIO_PCI_CAP_DEVICE, VDEV_BAR_DEVICE,
		dev->cfg.config_len);

	put_virtio_cap(dev, CAP_NOTIFY, CAP_PCI_CFG, VFE_VIRTIO_PCI_CAP_NOTIFY, dev->notify_off,
		(uint32_t)dev->cfg.nr_queues * VFE_VDEV_NOTIFY_STRIDE);
	dev->space[CAP_NOTIFY + 2] = sizeof(struct vfe_wire_virtio_notify_cap);
	put32(dev->space,
		CAP_NOTIFY + offsetof(struct vfe_wire_virtio_notify_cap, notify_off_multiplier),
		VFE_VDEV_NOTIFY_STRIDE);

	/* the window: the driver writes bar, offset, length, and then data (section 4.1.4.9) */
	dev->pci_cfg_cap = CAP_PCI_CFG;
	put_virtio_cap(dev, CAP_PCI_CFG, 0, VFE_VIRTIO_PCI_CAP_PCI, 0, 0);
	dev->space[CAP_PCI_CFG + 2] = sizeof(struct vfe_wire_virtio_cfg_cap);
	dev->writable[CAP_PCI_CFG + offsetof(struct vfe_wire_virtio_cap, bar)] = 0xff;
	for (i = offsetof(struct vfe_wire_virtio_cap, offset);
		i < sizeof(struct vfe_wire_virtio_cfg_cap); i++)
		dev->writable[CAP_PCI_CFG + i] = 0xff;
}

static void
build_sriov(struct vfe_vdev *dev)
{
	const struct vfe_vdev_sriov *sriov = &dev->cfg.sriov;
	struct vfe_wire_sriov_cap cap = {
		.header = htole32(VFE_PCI_EXT_CAP_SRIOV | 1 << 16),
		.capabilities = htole32(SRIOV_CAP_ARI_PRESERVED),
		.ctrl = htole16(VFE_PCI_SRIOV_CTRL_VFE | VFE_PCI_SRIOV_CTRL_MSE | SRIOV_CTRL_ARI),
		.initial_vfs = htole16(sriov->total_vfs),
		.total_vfs = htole16(sriov->total_vfs),
		.num_vfs = htole16(sriov->total_vfs),
		.first_vf_offset = htole16(sriov->first_vf_offset),
		.vf_stride = htole16(sriov->vf_stride),
		.vf_device_id = htole16(dev->cfg.pci_device_id),
		.supported_page_sizes = htole32(SRIOV_PAGE_4K),
		.system_page_size = htole32(SRIOV_PAGE_4K),
	};
	const uint32_t at = EXT_CAP_SRIOV;

	/* ARI: the VFs' function numbers need all eight bits; no next function below the PF */
	put32(dev->space, EXT_CAP_ARI, VFE_PCI_EXT_CAP_ARI | 1 << 16 | EXT_CAP_SRIOV << 20);
	dev->sriov_cap = EXT_CAP_SRIOV;
	memcpy(&dev->space[at], &cap, sizeof(cap));
	put_bar64(dev, at + offsetof(struct vfe_wire_sriov_cap, vf_bar), sriov->vf_bar_size);
	put16(dev->writable, at + offsetof(struct vfe_wire_sriov_cap, ctrl),
		VFE_PCI_SRIOV_CTRL_VFE | VFE_PCI_SRIOV_CTRL_MSE | SRIOV_CTRL_ARI);
	put16(dev->writable, at + offsetof(struct vfe_wire_sriov_cap, num_vfs), 0xffff);
}

void
vdev_pci_build(struct vfe_vdev *dev)
{
	build_header(dev);
	build_exp(dev);
	build_msix(dev);
	build_virtio(dev);
	if (dev->cfg.sriov.total_vfs > 0)
		build_sriov(dev);
}

/* The VFs are not ours to remove, so SR-IOV keeps its registers. */
void
vdev_pci_reset(struct vfe_vdev *dev)
{
	uint8_t kept[sizeof(struct vfe_wire_sriov_cap)];
	uint32_t i;

	if (dev->sriov_cap != 0)
		memcpy(kept, &dev->space[dev->sriov_cap], sizeof(kept));
	for (i = 0; i < VFE_PCIE_CFG_SIZE; i++)
		dev->space[i] &= (uint8_t)~dev->writable[i];
	if (dev->sriov_cap != 0)
		memcpy(&dev->space[dev->sriov_cap], kept, sizeof(kept));
}

/* The BAR access that the PCI_CFG window stands for; false when it means none. */
static bool
window(const struct vfe_vdev *dev, uint32_t *ret_off, uint32_t *ret_len)
{
	uint32_t at = dev->pci_cfg_cap;
	uint32_t off = vdev_space_get32(dev, at + offsetof(struct vfe_wire_virtio_cap, offset));
	uint32_t len = vdev_space_get32(dev, at + offsetof(struct vfe_wire_virtio_cap, length));

	if (dev->space[at + offsetof(struct vfe_wire_virtio_cap, bar)] != 0)
		return false;
	if ((len != 1 && len != 2 && len != 4) || !vfe_is_aligned(off, len))
		return false;
	*ret_off = off;
	*ret_len = len;
	return true;
}

static uint32_t
window_data(const struct vfe_vdev *dev)
{
	return dev->pci_cfg_cap + (uint32_t)offsetof(struct vfe_wire_virtio_cfg_cap, pci_cfg_data);
}

int
vfe_vdev_config_read(struct vfe_vdev *dev, uint64_t off, void *buf, uint32_t len)
{
	uint32_t bar_off, bar_len;

	if (!vfe_range_inside(off, len, VFE_PCIE_CFG_SIZE))
		return -ERANGE;
	/* only an access that aims at the data: a dump of the space must not clear the ISR */
	if (off == window_data(dev) && len <= 4 && window(dev, &bar_off, &bar_len))
		(void)vfe_vdev_bar_read(dev, bar_off, &dev->space[off], bar_len);
	memcpy(buf, &dev->space[off], len);
	return 0;
}

/* VF Enable off means no VFs for a host; here they stay, but NumVFs becomes writable. */
static bool
num_vfs_locked(const struct vfe_vdev *dev, uint64_t off)
{
	uint32_t at = dev->sriov_cap + (uint32_t)offsetof(struct vfe_wire_sriov_cap, num_vfs);

	return dev->sriov_cap != 0 && (off == at || off == at + 1) &&
	       (vdev_space_get16(dev, dev->sriov_cap + offsetof(struct vfe_wire_sriov_cap, ctrl)) &
		       VFE_PCI_SRIOV_CTRL_VFE) != 0;
}

static void
clamp_num_vfs(struct vfe_vdev *dev)
{
	uint32_t at = dev->sriov_cap + (uint32_t)offsetof(struct vfe_wire_sriov_cap, num_vfs);

	if (dev->sriov_cap != 0 && vdev_space_get16(dev, at) > dev->cfg.sriov.total_vfs)
		put16(dev->space, at, dev->cfg.sriov.total_vfs);
}

static bool
touches(uint64_t off, uint32_t len, uint32_t at, uint32_t size)
{
	return off < at + size && at < off + len;
}

int
vfe_vdev_config_write(struct vfe_vdev *dev, uint64_t off, const void *buf, uint32_t len)
{
	uint16_t msix_ctrl =
		vdev_space_get16(dev, dev->msix_cap + offsetof(struct vfe_wire_msix_cap, ctrl));
	uint32_t flr_at = dev->exp_cap + EXP_DEVCTL + 1u;
	const uint8_t *in = buf;
	uint32_t bar_off, bar_len, i;

	if (!vfe_range_inside(off, len, VFE_PCIE_CFG_SIZE))
		return -ERANGE;
	for (i = 0; i < len; i++) {
		uint8_t mask = num_vfs_locked(dev, off + i) ? 0 : dev->writable[off + i];

		dev->space[off + i] = (dev->space[off + i] & (uint8_t)~mask) | (in[i] & mask);
	}

	if (dev->sriov_cap != 0 &&
		touches(off, len, dev->sriov_cap, sizeof(struct vfe_wire_sriov_cap)))
		clamp_num_vfs(dev);
	if (touches(off, len, dev->msix_cap, sizeof(struct vfe_wire_msix_cap)))
		vdev_msix_function_mask(dev, msix_ctrl);
	if (off == window_data(dev) && window(dev, &bar_off, &bar_len) && bar_len <= len)
		(void)vfe_vdev_bar_write(dev, bar_off, buf, bar_len);
	if (touches(off, len, flr_at, 1) && (in[flr_at - off] & (EXP_DEVCTL_FLR >> 8)) != 0)
		vfe_vdev_function_reset(dev);
	return 0;
}
