/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Registers of a virtio PCI function: status, features, device configuration.
 */

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "virtio_priv.h"

enum {
	CONFIG_TRIES = 16, /* of a consistent read */
	PAUSE_MAX_MS = 10,
};

/* --- access --- */

/* One register of 1, 2 or 4 bytes, little-endian in the device. */
static int
reg_read(struct vfe_virtio_dev *vdev, const struct vfe_virtio_region *r, uint64_t off, uint32_t len,
	uint32_t *ret, struct vfe_error *err)
{
	uint32_t raw = 0;
	int rc = vfe_pci_bar_read(vdev->pci, r->bar, r->offset + off, &raw, len, err);

	if (rc == 0)
		*ret = le32toh(raw);
	return rc;
}

static int
reg_write(struct vfe_virtio_dev *vdev, const struct vfe_virtio_region *r, uint64_t off,
	uint32_t len, uint32_t value, struct vfe_error *err)
{
	uint32_t raw = htole32(value);

	return vfe_pci_bar_write(vdev->pci, r->bar, r->offset + off, &raw, len, err);
}

static int
check_field(const struct vfe_virtio_dev *vdev, uint32_t off, uint32_t len, struct vfe_error *err)
{
	if (vfe_range_inside(off, len, vdev->common.length))
		return 0;
	return vfe_error_set(err, -ENOTSUP,
		"the common configuration of %llu bytes has no such field",
		(unsigned long long)vdev->common.length);
}

int
virtio_common_read(struct vfe_virtio_dev *vdev, uint32_t off, uint32_t len, uint64_t *ret,
	const char *field, struct vfe_error *err)
{
	uint32_t low = 0, high = 0;
	int rc;

	rc = check_field(vdev, off, len, err);
	if (rc == 0)
		rc = reg_read(vdev, &vdev->common, off, len == 8 ? 4 : len, &low, err);
	if (rc == 0 && len == 8)
		rc = reg_read(vdev, &vdev->common, off + 4, 4, &high, err);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "reading %s", field);
	*ret = (uint64_t)high << 32 | low;
	return 0;
}

int
virtio_common_read16(struct vfe_virtio_dev *vdev, uint32_t off, uint16_t *ret, const char *field,
	struct vfe_error *err)
{
	uint64_t value = 0;
	int rc = virtio_common_read(vdev, off, 2, &value, field, err);

	if (rc == 0)
		*ret = (uint16_t)value;
	return rc;
}

int
virtio_common_write(struct vfe_virtio_dev *vdev, uint32_t off, uint32_t len, uint64_t value,
	const char *field, struct vfe_error *err)
{
	int rc;

	rc = check_field(vdev, off, len, err);
	if (rc == 0)
		rc = reg_write(vdev, &vdev->common, off, len == 8 ? 4 : len, (uint32_t)value, err);
	if (rc == 0 && len == 8)
		rc = reg_write(vdev, &vdev->common, off + 4, 4, (uint32_t)(value >> 32), err);
	return rc < 0 ? vfe_error_prefix(err, rc, "writing %s", field) : 0;
}

void
virtio_poll_pause(const struct vfe_virtio_dev *vdev, unsigned int n, struct vfe_deadline deadline)
{
	int pause = n < PAUSE_MAX_MS ? (int)n + 1 : PAUSE_MAX_MS;
	int left = vfe_deadline_left_ms(deadline);
	struct pollfd lost = {
		.fd = vfe_pci_lost_fd(vdev->pci),
		.events = (short)vfe_pci_lost_events(vdev->pci),
	};

	poll(&lost, 1, pause < left ? pause : left);
}

/* --- bring-up --- */

static int
read_device_features(struct vfe_virtio_dev *vdev, struct vfe_error *err)
{
	uint64_t low = 0, high = 0;
	int rc;

	rc = common_write(vdev, device_feature_select, 0, err);
	if (rc == 0)
		rc = common_read(vdev, device_feature, &low, err);
	if (rc == 0)
		rc = common_write(vdev, device_feature_select, 1, err);
	if (rc == 0)
		rc = common_read(vdev, device_feature, &high, err);
	if (rc < 0)
		return rc;
	vdev->device_features = high << 32 | low;

	/* a function that fell off its bus reads like that */
	if (vdev->device_features == UINT64_MAX)
		return vfe_error_set(err, -EPROTO, "all registers read as ones");
	return 0;
}

int
vfe_virtio_init(struct vfe_virtio_dev *vdev, struct vfe_pci_dev *pci, struct vfe_error *err)
{
	uint64_t num_queues = 0;
	uint32_t vectors;
	int rc;

	memset(vdev, 0, sizeof(*vdev));
	vdev->pci = pci;
	rc = virtio_caps_read(vdev, err);
	if (rc == 0)
		rc = read_device_features(vdev, err);
	if (rc == 0)
		rc = common_read(vdev, num_queues, &num_queues, err);
	if (rc < 0)
		return rc;
	if (num_queues > VFE_VIRTIO_MAX_QUEUES)
		return vfe_error_set(err, -EPROTO, "num_queues is %u, we support %d",
			(unsigned int)num_queues, VFE_VIRTIO_MAX_QUEUES);
	vdev->num_queues = (uint16_t)num_queues;

	vectors = vfe_pci_irq_count(pci);
	vdev->num_vectors =
		(uint16_t)(vectors < VFE_VIRTIO_MSI_NO_VECTOR ? vectors : VFE_VIRTIO_MSI_NO_VECTOR);
	return 0;
}

/* --- status and features --- */

int
vfe_virtio_status_get(struct vfe_virtio_dev *vdev, uint8_t *ret, struct vfe_error *err)
{
	uint64_t status = 0;
	int rc = common_read(vdev, device_status, &status, err);

	if (rc == 0)
		*ret = (uint8_t)status;
	return rc;
}

int
vfe_virtio_status_add(struct vfe_virtio_dev *vdev, uint8_t bits, struct vfe_error *err)
{
	uint8_t status = 0;
	int rc;

	rc = vfe_virtio_status_get(vdev, &status, err);
	if (rc < 0)
		return rc;
	return common_write(vdev, device_status, status | bits, err);
}

int
vfe_virtio_reset(struct vfe_virtio_dev *vdev, struct vfe_deadline deadline,
	const atomic_bool *cancel, struct vfe_error *err)
{
	uint8_t status = 0;
	unsigned int n;
	int rc;

	rc = common_write(vdev, device_status, 0, err);
	if (rc < 0)
		return rc;
	vdev->driver_features = 0;
	for (n = 0;; n++) {
		rc = vfe_virtio_status_get(vdev, &status, err);
		if (rc < 0 || status == 0)
			return rc;
		if (cancel != NULL && atomic_load(cancel))
			return vfe_error_set(err, -ECANCELED, "the device reset was cancelled");
		if (vfe_deadline_passed(deadline))
			return vfe_error_set(err, -ETIMEDOUT,
				"the device does not finish its reset: status is still 0x%02x",
				status);
		virtio_poll_pause(vdev, n, deadline);
	}
}

int
vfe_virtio_features_set(struct vfe_virtio_dev *vdev, uint64_t wanted, struct vfe_error *err)
{
	uint8_t status = 0;
	int rc;

	if ((wanted & ~vdev->device_features) != 0)
		return vfe_error_set(err, -EINVAL,
			"features 0x%llx are wanted, but the device offers 0x%llx",
			(unsigned long long)wanted, (unsigned long long)vdev->device_features);

	rc = common_write(vdev, driver_feature_select, 0, err);
	if (rc == 0)
		rc = common_write(vdev, driver_feature, (uint32_t)wanted, err);
	if (rc == 0)
		rc = common_write(vdev, driver_feature_select, 1, err);
	if (rc == 0)
		rc = common_write(vdev, driver_feature, wanted >> 32, err);
	if (rc == 0)
		rc = vfe_virtio_status_add(vdev, VFE_VIRTIO_S_FEATURES_OK, err);
	if (rc == 0)
		rc = vfe_virtio_status_get(vdev, &status, err);
	if (rc < 0)
		return rc;
	if ((status & VFE_VIRTIO_S_FEATURES_OK) == 0)
		return vfe_error_set(err, -ENOTSUP,
			"the device refuses features 0x%llx of the 0x%llx that it offers",
			(unsigned long long)wanted, (unsigned long long)vdev->device_features);
	vdev->driver_features = wanted;
	return 0;
}

/* --- device configuration --- */

int
vfe_virtio_generation_get(struct vfe_virtio_dev *vdev, uint8_t *ret, struct vfe_error *err)
{
	uint64_t generation = 0;
	int rc = common_read(vdev, config_generation, &generation, err);

	if (rc == 0)
		*ret = (uint8_t)generation;
	return rc;
}

/*
 * Width of one access for a transfer of @len bytes at @off. A transfer of 2 or 4 aligned bytes is
 * one field, of 8 a 64-bit field by halves; anything else is taken byte by byte, which suits the
 * byte fields and which every device accepts.
 */
static uint32_t
config_width(uint32_t off, uint32_t len)
{
	uint32_t width = len == 8 ? 4 : len;

	return (width == 2 || width == 4) && vfe_is_aligned(off, width) ? width : 1;
}

static int
check_config(const struct vfe_virtio_dev *vdev, uint32_t off, uint32_t len, struct vfe_error *err)
{
	if (vfe_range_inside(off, len, vdev->device.length))
		return 0;
	return vfe_error_set(err, -ERANGE,
		"%u bytes at %u are outside the device configuration of %llu bytes", len, off,
		(unsigned long long)vdev->device.length);
}

/* What to read: with @widths field by field, else as config_width() says. */
struct config_span {
	uint32_t off;
	uint32_t len;
	const uint8_t *widths;
};

static int
config_read_once(struct vfe_virtio_dev *vdev, const struct config_span *span, uint8_t *buf,
	struct vfe_error *err)
{
	uint32_t width = config_width(span->off, span->len);
	const uint8_t *next = span->widths;
	uint32_t i;
	int rc = 0;

	for (i = 0; i < span->len && rc == 0; i += width) {
		if (next != NULL)
			width = *next++;
		rc = vfe_pci_bar_read(vdev->pci, vdev->device.bar,
			vdev->device.offset + span->off + i, buf + i, width, err);
	}
	return rc;
}

static int
config_read_settled(struct vfe_virtio_dev *vdev, const struct config_span *span, void *buf,
	struct vfe_error *err)
{
	uint8_t before = 0, after = 0;
	unsigned int i;
	int rc;

	rc = check_config(vdev, span->off, span->len, err);
	if (rc == 0)
		rc = vfe_virtio_generation_get(vdev, &before, err);
	for (i = 0; i < CONFIG_TRIES && rc == 0; i++) {
		rc = config_read_once(vdev, span, buf, err);
		if (rc == 0)
			rc = vfe_virtio_generation_get(vdev, &after, err);
		if (rc == 0 && before == after)
			return 0;
		before = after;
	}
	if (rc < 0)
		return rc;
	return vfe_error_set(err, -EAGAIN,
		"the device configuration changed during each of %d reads, generation is %u",
		CONFIG_TRIES, after);
}

int
vfe_virtio_config_read(
	struct vfe_virtio_dev *vdev, uint32_t off, void *buf, uint32_t len, struct vfe_error *err)
{
	const struct config_span span = {.off = off, .len = len};

	return config_read_settled(vdev, &span, buf, err);
}

int
vfe_virtio_config_read_fields(struct vfe_virtio_dev *vdev, const uint8_t *widths, unsigned int nr,
	void *buf, struct vfe_error *err)
{
	struct config_span span = {.widths = widths};
	unsigned int i;

	for (i = 0; i < nr; i++)
		span.len += widths[i];
	return config_read_settled(vdev, &span, buf, err);
}

int
vfe_virtio_config_write(struct vfe_virtio_dev *vdev, uint32_t off, const void *buf, uint32_t len,
	struct vfe_error *err)
{
	uint32_t width = config_width(off, len);
	const uint8_t *bytes = buf;
	uint32_t i;
	int rc;

	rc = check_config(vdev, off, len, err);
	for (i = 0; i < len && rc == 0; i += width)
		rc = vfe_pci_bar_write(vdev->pci, vdev->device.bar, vdev->device.offset + off + i,
			bytes + i, width, err);
	return rc;
}

int
vfe_virtio_isr_read(struct vfe_virtio_dev *vdev, uint8_t *ret, struct vfe_error *err)
{
	return vfe_pci_bar_read(vdev->pci, vdev->isr.bar, vdev->isr.offset, ret, 1, err);
}
