/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The types of devices, and what is done alike for all of them.
 */

#include "vdpa_type.h"

#include <errno.h>
#include <string.h>

static const struct vdpa_type *const types[] = {&vdpa_net_type, &vdpa_blk_type};

const struct vdpa_type *
vdpa_type_find(uint16_t pci_device_id)
{
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(types); i++) {
		if (types[i]->pci_device_id == pci_device_id)
			return types[i];
	}
	return NULL;
}

/*
 * LOG_ALL is offered whatever the device can: without its help a migration takes longer, but loses
 * nothing.
 */
uint64_t
vdpa_type_features_offered(const struct vdpa_type *type, uint64_t device_features)
{
	return (device_features & type->guest_features) | type->frontend_features |
	       VFE_BIT(VFE_VHOST_F_LOG_ALL) | VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES);
}

/* The device's addresses are always those of the domain, never bare physical ones. */
uint64_t
vdpa_type_features_driver(
	const struct vdpa_type *type, uint64_t device_features, uint64_t guest_features)
{
	return device_features &
	       ((guest_features & type->guest_features) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |
		       VFE_BIT(VFE_VIRTIO_F_RING_RESET));
}

int
vdpa_type_config_read(struct vfe_virtio_dev *vdev, const uint8_t *widths, unsigned int nr,
	uint32_t least, union vdpa_config *ret, struct vfe_error *err)
{
	union vdpa_config config;
	unsigned int n = 0;
	uint32_t len = 0;
	int rc;

	memset(&config, 0, sizeof(config));
	/* older devices have a shorter structure */
	while (n < nr && len + widths[n] <= vdev->device.length)
		len += widths[n++];
	if (len < least)
		return vfe_error_set(err, -EPROTO,
			"device configuration of %llu bytes is too short",
			(unsigned long long)vdev->device.length);
	rc = vfe_virtio_config_read_fields(vdev, widths, n, &config, err);
	if (rc == 0)
		*ret = config;
	return rc;
}
