/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The SR-IOV capability of a PF and the addresses of its VFs (PCIe 6.0 section 9.3.3).
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "pci_transport.h"

/* Offset of the extended capability @id, 0 when there is none, or -errno. */
static int
find_ext_cap(struct vfe_pci_dev *dev, uint16_t id, struct vfe_error *err)
{
	/* every capability takes at least its header: more than that many is a loop */
	unsigned int left = (VFE_PCIE_CFG_SIZE - VFE_PCI_EXT_CAP_START) / 4;
	uint32_t pos = VFE_PCI_EXT_CAP_START;
	uint32_t header;
	int rc;

	while (pos != 0) {
		if (left-- == 0)
			return vfe_error_set(
				err, -EPROTO, "the list of extended capabilities is a loop");
		if (pos < VFE_PCI_EXT_CAP_START || !vfe_is_aligned(pos, 4))
			return vfe_error_set(
				err, -EPROTO, "an extended capability is said to be at 0x%x", pos);
		if (!vfe_range_inside(pos, sizeof(header), dev->config_size))
			return pos == VFE_PCI_EXT_CAP_START
				       ? 0
				       : vfe_error_set(err, -EPROTO,
						 "extended capability at 0x%x is behind the end",
						 pos);
		rc = vfe_pci_config_read(dev, pos, &header, sizeof(header), err);
		if (rc < 0)
			return rc;
		header = le32toh(header);
		if (header == 0 || header == UINT32_MAX)
			return 0;
		if ((header & 0xffff) == id)
			return (int)pos;
		pos = header >> 20;
	}
	return 0;
}

int
vfe_pci_sriov_get(struct vfe_pci_dev *pf, struct vfe_pci_sriov *ret, struct vfe_error *err)
{
	struct vfe_wire_sriov_cap cap;
	int pos, rc;

	memset(ret, 0, sizeof(*ret));
	pos = find_ext_cap(pf, VFE_PCI_EXT_CAP_SRIOV, err);
	if (pos <= 0)
		return pos;
	rc = vfe_pci_config_read(pf, (uint32_t)pos, &cap, sizeof(cap), err);
	if (rc < 0)
		return rc;
	if (le16toh(cap.num_vfs) > le16toh(cap.total_vfs))
		return vfe_error_set(err, -EPROTO, "SR-IOV capability: NumVFs %u, TotalVFs %u",
			le16toh(cap.num_vfs), le16toh(cap.total_vfs));

	ret->total_vfs = le16toh(cap.total_vfs);
	if ((le16toh(cap.ctrl) & VFE_PCI_SRIOV_CTRL_VFE) != 0)
		ret->num_vfs = le16toh(cap.num_vfs);
	ret->first_vf_offset = le16toh(cap.first_vf_offset);
	ret->vf_stride = le16toh(cap.vf_stride);
	ret->vf_device_id = le16toh(cap.vf_device_id);
	return 0;
}

int
vfe_pci_sriov_vf_index(
	const struct vfe_bdf *pf, const struct vfe_pci_sriov *sriov, const struct vfe_bdf *vf)
{
	uint32_t distance, index;

	if (vf->domain != pf->domain || vfe_bdf_rid(vf) <= vfe_bdf_rid(pf) ||
		sriov->first_vf_offset == 0)
		return -ENODEV;
	distance = (uint32_t)vfe_bdf_rid(vf) - vfe_bdf_rid(pf);
	if (distance < sriov->first_vf_offset)
		return -ENODEV;
	distance -= sriov->first_vf_offset;

	/* a stride of 0 is legal when there is but one VF */
	if (sriov->vf_stride == 0)
		return distance == 0 && sriov->total_vfs > 0 ? 0 : -ENODEV;
	if (distance % sriov->vf_stride != 0)
		return -ENODEV;
	index = distance / sriov->vf_stride;
	return index < sriov->total_vfs ? (int)index : -ENODEV;
}
