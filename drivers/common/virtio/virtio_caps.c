/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The capability list of a virtio PCI function (virtio 1.4 section 4.1.4), distrusted field by
 * field.
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "vfe_wire_pci.h"
#include "virtio_priv.h"

enum {
	CAPS_BEGIN = 0x40, /* behind the standard header */
	COMMON_MIN = 56,   /* virtio 1.0, up to and with queue_device */
	ISR_MIN = 1,
	NOTIFY_MIN = 2,
	MODERN_ID_FIRST = 0x1040,
	MODERN_ID_LAST = 0x107f,
};

/* What each structure must look like at least. */
struct cap_rule {
	const char *name;
	uint8_t min_cap_len;
	uint8_t align; /* of its place in the BAR (section 4.1.4) */
	uint32_t min_length;
	bool required;
};

static const struct cap_rule rules[] = {
	[VFE_VIRTIO_PCI_CAP_COMMON] = {"common configuration", 16, 4, COMMON_MIN, true},
	[VFE_VIRTIO_PCI_CAP_NOTIFY] = {"notification", 20, 2, NOTIFY_MIN, true},
	[VFE_VIRTIO_PCI_CAP_ISR] = {"ISR status", 16, 1, ISR_MIN, true},
	[VFE_VIRTIO_PCI_CAP_DEVICE] = {"device configuration", 16, 4, 0, false},
};

static struct vfe_virtio_region *
region_of(struct vfe_virtio_dev *vdev, uint8_t type)
{
	switch (type) {
	case VFE_VIRTIO_PCI_CAP_COMMON:
		return &vdev->common;
	case VFE_VIRTIO_PCI_CAP_NOTIFY:
		return &vdev->notify;
	case VFE_VIRTIO_PCI_CAP_ISR:
		return &vdev->isr;
	default:
		return &vdev->device;
	}
}

static int
check_place(const struct vfe_virtio_dev *vdev, const struct cap_rule *rule,
	const struct vfe_virtio_region *r, struct vfe_error *err)
{
	uint64_t bar_size = vfe_pci_bar_size(vdev->pci, r->bar);

	if (!vfe_is_aligned(r->offset, rule->align))
		return vfe_error_set(err, -EPROTO,
			"%s structure: offset 0x%llx is not aligned to %u", rule->name,
			(unsigned long long)r->offset, rule->align);
	if (r->length < rule->min_length)
		return vfe_error_set(err, -EPROTO, "%s structure: %llu bytes, need %u", rule->name,
			(unsigned long long)r->length, rule->min_length);
	/* both are 32 bits wide on the wire, so that their sum cannot wrap here */
	if (!vfe_range_inside(r->offset, r->length, bar_size))
		return vfe_error_set(err, -EPROTO,
			"%s structure: 0x%llx bytes at 0x%llx are outside BAR %u of 0x%llx bytes",
			rule->name, (unsigned long long)r->length, (unsigned long long)r->offset,
			r->bar, (unsigned long long)bar_size);
	return 0;
}

static int
set_multiplier(struct vfe_virtio_dev *vdev, const uint8_t *cap, struct vfe_error *err)
{
	struct vfe_wire_virtio_notify_cap notify;
	uint32_t m;

	memcpy(&notify, cap, sizeof(notify));
	m = le32toh(notify.notify_off_multiplier);
	if (m != 0 && (!vfe_is_pow2(m) || m == 1))
		return vfe_error_set(err, -EPROTO,
			"notification structure: multiplier %u is not an even power of two", m);
	vdev->notify_multiplier = m;
	return 0;
}

/*
 * One vendor capability of @room bytes up to the end of the space. Types and BARs that are
 * reserved must be ignored, and of several of a type the first one counts (section 4.1.4.1).
 */
static int
take_cap(struct vfe_virtio_dev *vdev, const uint8_t *cap, uint32_t room, uint32_t *found,
	struct vfe_error *err)
{
	struct vfe_wire_virtio_cap wire;
	const struct cap_rule *rule;
	struct vfe_virtio_region r;
	int rc;

	if (room < sizeof(wire))
		return vfe_error_set(
			err, -EPROTO, "a vendor capability begins %u bytes before the end", room);
	memcpy(&wire, cap, sizeof(wire));
	if (wire.cfg_type >= VFE_ARRAY_SIZE(rules) || rules[wire.cfg_type].name == NULL ||
		wire.bar >= VFE_PCI_NR_BARS || (*found & VFE_BIT(wire.cfg_type)) != 0)
		return 0;

	rule = &rules[wire.cfg_type];
	if (wire.cap_len < rule->min_cap_len || wire.cap_len > room)
		return vfe_error_set(err, -EPROTO, "%s capability: length %u, need %u to %u bytes",
			rule->name, wire.cap_len, rule->min_cap_len, room);
	r = (struct vfe_virtio_region){wire.bar, le32toh(wire.offset), le32toh(wire.length)};
	rc = check_place(vdev, rule, &r, err);
	if (rc < 0)
		return rc;
	if (wire.cfg_type == VFE_VIRTIO_PCI_CAP_NOTIFY) {
		rc = set_multiplier(vdev, cap, err);
		if (rc < 0)
			return rc;
	}
	*region_of(vdev, wire.cfg_type) = r;
	*found |= (uint32_t)VFE_BIT(wire.cfg_type);
	return 0;
}

static int
walk_caps(struct vfe_virtio_dev *vdev, const uint8_t *cfg, uint32_t *found, struct vfe_error *err)
{
	/* each capability takes four bytes at least: more than that many is a loop */
	unsigned int left = (VFE_PCI_CFG_SIZE - CAPS_BEGIN) / 4;
	uint8_t pos = cfg[VFE_PCI_CAP_PTR] & 0xfc;
	int rc;

	for (; pos != 0; pos = cfg[pos + 1] & 0xfc) {
		if (left-- == 0)
			return vfe_error_set(err, -EPROTO, "the list of capabilities is a loop");
		if (pos < CAPS_BEGIN)
			return vfe_error_set(
				err, -EPROTO, "a capability is said to be at 0x%x", pos);
		if (cfg[pos] != VFE_PCI_CAP_VENDOR)
			continue;
		rc = take_cap(vdev, &cfg[pos], VFE_PCI_CFG_SIZE - (uint32_t)pos, found, err);
		if (rc < 0)
			return vfe_error_prefix(err, rc, "capability at 0x%x", pos);
	}
	return 0;
}

static uint16_t
get_le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

int
virtio_caps_read(struct vfe_virtio_dev *vdev, struct vfe_error *err)
{
	uint8_t cfg[VFE_PCI_CFG_SIZE]; /* one read, so that it cannot change under us */
	uint16_t vendor, device;
	uint32_t found = 0;
	uint8_t type;
	int rc;

	rc = vfe_pci_config_read(vdev->pci, 0, cfg, sizeof(cfg), err);
	if (rc < 0)
		return rc;
	vendor = get_le16(&cfg[VFE_PCI_VENDOR_ID]);
	device = get_le16(&cfg[VFE_PCI_DEVICE_ID]);
	if (vendor != VFE_PCI_VENDOR_VIRTIO || device < MODERN_ID_FIRST || device > MODERN_ID_LAST)
		return vfe_error_set(err, -ENODEV,
			"%04x:%04x is not a modern virtio function (1af4:1040 to 1af4:107f)",
			vendor, device);
	if ((get_le16(&cfg[VFE_PCI_STATUS]) & VFE_PCI_STATUS_CAP_LIST) == 0)
		return vfe_error_set(err, -EPROTO, "the function has no capabilities");

	rc = walk_caps(vdev, cfg, &found, err);
	if (rc < 0)
		return rc;
	for (type = 0; type < VFE_ARRAY_SIZE(rules); type++) {
		if (rules[type].required && (found & VFE_BIT(type)) == 0)
			return vfe_error_set(err, -EPROTO,
				"there is no usable capability of the %s structure",
				rules[type].name);
	}
	vdev->pci_device_id = device;
	return 0;
}
