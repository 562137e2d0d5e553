/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: a virtio function in this process that is honest by default and lies on request.
 */

#undef NDEBUG

#include "fake_virtio.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#define FIELD(name)                                                        \
	{                                                                  \
		offsetof(struct vfe_wire_virtio_common, name),             \
			sizeof(((struct vfe_wire_virtio_common *)0)->name) \
	}

static const struct {
	uint32_t off;
	uint32_t len;
} fields[] = {
	FIELD(device_feature_select),
	FIELD(device_feature),
	FIELD(driver_feature_select),
	FIELD(driver_feature),
	FIELD(config_msix_vector),
	FIELD(num_queues),
	FIELD(device_status),
	FIELD(config_generation),
	FIELD(queue_select),
	FIELD(queue_size),
	FIELD(queue_msix_vector),
	FIELD(queue_enable),
	FIELD(queue_notify_off),
	FIELD(queue_desc),
	FIELD(queue_driver),
	FIELD(queue_device),
	FIELD(queue_notif_config_data),
	FIELD(queue_reset),
	FIELD(admin_queue_index),
	FIELD(admin_queue_num),
};

/* Natural width, and 64-bit fields by halves only. */
static bool
width_is_good(uint64_t off, uint32_t len)
{
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(fields); i++) {
		if (fields[i].len == 8 && (off == fields[i].off || off == fields[i].off + 4))
			return len == 4;
		if (off == fields[i].off)
			return len == fields[i].len;
	}
	return false;
}

static struct fake_queue *
selected(struct fake_virtio *v)
{
	static struct fake_queue absent;
	uint16_t qid = le16toh(v->regs.queue_select);

	if (qid < FV_QUEUES)
		return &v->q[qid];
	absent = (struct fake_queue){.vector = VFE_VIRTIO_MSI_NO_VECTOR};
	return &absent;
}

/* Put what the device knows into the registers before they are read. */
static void
refresh(struct fake_virtio *v, uint64_t off)
{
	struct fake_queue *q = selected(v);
	uint32_t select = le32toh(v->regs.device_feature_select);

	v->regs.device_feature = htole32(select < 2 ? (uint32_t)(v->offered >> (32 * select)) : 0);
	if (off == offsetof(struct vfe_wire_virtio_common, device_status) && v->slow_reset > 0 &&
		--v->slow_reset == 0)
		v->regs.device_status = 0;
	if (off == offsetof(struct vfe_wire_virtio_common, config_generation) && v->unsettled > 0) {
		v->unsettled--;
		v->regs.config_generation++;
	}
	if (off == offsetof(struct vfe_wire_virtio_common, queue_reset) && q->reset != 0 &&
		(v->slow_queue_reset == 0 || --v->slow_queue_reset == 0)) {
		q->reset = 0;
		q->enable = v->stay_enabled;
	}
	v->regs.queue_size = htole16(q->size);
	v->regs.queue_msix_vector = htole16(q->vector);
	v->regs.queue_enable = htole16(q->enable);
	v->regs.queue_notify_off = htole16(q->notify_off);
	v->regs.queue_reset = htole16(q->reset);
}

static int
bar_read(struct fake_pci *f, unsigned int bar, uint64_t off, void *buf, uint32_t len)
{
	struct fake_virtio *v = f->ctx;

	assert(bar == FV_BAR);
	if (off < sizeof(v->regs)) {
		if (!width_is_good(off, len))
			v->bad_widths++;
		refresh(v, off);
		memcpy(buf, (uint8_t *)&v->regs + off, len);
	} else if (off == FV_ISR) {
		*(uint8_t *)buf = v->isr;
		v->isr = 0;
	} else {
		assert(off >= FV_DEVICE && off + len <= FV_DEVICE + FV_DEVICE_SIZE);
		memcpy(buf, v->device_cfg + (off - FV_DEVICE), len);
		v->read_widths[off - FV_DEVICE] = (uint8_t)len;
	}
	return 0;
}

static void
write_status(struct fake_virtio *v, uint8_t status)
{
	unsigned int i;

	if (status != 0) {
		if (v->refuse_features)
			status &= (uint8_t)~VFE_VIRTIO_S_FEATURES_OK;
		v->regs.device_status = status;
		return;
	}
	for (i = 0; i < FV_QUEUES; i++) {
		v->q[i] = (struct fake_queue){
			.max_size = v->q[i].max_size,
			.size = v->q[i].max_size,
			.vector = VFE_VIRTIO_MSI_NO_VECTOR,
			.notify_off = v->q[i].notify_off,
		};
	}
	v->accepted = 0;
	if (v->slow_reset == 0)
		v->regs.device_status = 0;
}

static void
set_half(uint64_t *field, uint64_t off, uint32_t value)
{
	if ((off & 4) == 0)
		*field = (*field & ~(uint64_t)UINT32_MAX) | value;
	else
		*field = (*field & UINT32_MAX) | (uint64_t)value << 32;
}

static void
write_field(struct fake_virtio *v, uint64_t off, uint32_t value)
{
	struct fake_queue *q = selected(v);
	uint64_t shift;

	switch (off) {
	case offsetof(struct vfe_wire_virtio_common, device_status):
		write_status(v, (uint8_t)value);
		break;
	case offsetof(struct vfe_wire_virtio_common, driver_feature):
		shift = 32 * le32toh(v->regs.driver_feature_select);
		v->accepted &= ~((uint64_t)UINT32_MAX << shift);
		v->accepted |= (uint64_t)value << shift;
		break;
	case offsetof(struct vfe_wire_virtio_common, config_msix_vector):
		if (v->refuse_vectors)
			v->regs.config_msix_vector = htole16(VFE_VIRTIO_MSI_NO_VECTOR);
		break;
	case offsetof(struct vfe_wire_virtio_common, queue_size):
		q->size = (uint16_t)value;
		break;
	case offsetof(struct vfe_wire_virtio_common, queue_msix_vector):
		q->vector = v->refuse_vectors ? VFE_VIRTIO_MSI_NO_VECTOR : (uint16_t)value;
		break;
	case offsetof(struct vfe_wire_virtio_common, queue_enable):
		v->enable_writes++;
		q->enable = !v->refuse_enable && value == 1;
		break;
	case offsetof(struct vfe_wire_virtio_common, queue_desc):
	case offsetof(struct vfe_wire_virtio_common, queue_desc) + 4:
		set_half(&q->desc, off, value);
		break;
	case offsetof(struct vfe_wire_virtio_common, queue_driver):
	case offsetof(struct vfe_wire_virtio_common, queue_driver) + 4:
		set_half(&q->driver, off, value);
		break;
	case offsetof(struct vfe_wire_virtio_common, queue_device):
	case offsetof(struct vfe_wire_virtio_common, queue_device) + 4:
		set_half(&q->device, off, value);
		break;
	case offsetof(struct vfe_wire_virtio_common, queue_reset):
		q->reset = value == 1;
		break;
	default:
		break;
	}
}

static int
bar_write(struct fake_pci *f, unsigned int bar, uint64_t off, const void *buf, uint32_t len)
{
	struct fake_virtio *v = f->ctx;
	uint32_t value = 0;

	assert(bar == FV_BAR);
	if (off >= FV_DEVICE) {
		assert(off + len <= FV_DEVICE + FV_DEVICE_SIZE);
		memcpy(v->device_cfg + (off - FV_DEVICE), buf, len);
		return 0;
	}
	assert(off + len <= sizeof(v->regs));
	if (!width_is_good(off, len))
		v->bad_widths++;
	memcpy(&value, buf, len);
	if (off != offsetof(struct vfe_wire_virtio_common, device_status))
		memcpy((uint8_t *)&v->regs + off, buf, len);
	write_field(v, off, le32toh(value));
	return 0;
}

static int
doorbell(struct fake_pci *f, unsigned int bar, uint64_t off, uint32_t value)
{
	struct fake_virtio *v = f->ctx;

	assert(bar == FV_BAR && off >= FV_NOTIFY && value < FV_QUEUES);
	if (v->doorbell_result == 0)
		v->kicks[value]++;
	return v->doorbell_result;
}

struct vfe_wire_virtio_notify_cap *
fake_virtio_cap(struct fake_virtio *v, uint8_t pos)
{
	return (void *)&v->f.config[pos];
}

static void
put_cap(struct fake_virtio *v, uint8_t pos, uint8_t next, uint8_t type, uint32_t off, uint32_t len)
{
	struct vfe_wire_virtio_notify_cap *cap = fake_virtio_cap(v, pos);

	cap->cap = (struct vfe_wire_virtio_cap){
		.cap_vndr = VFE_PCI_CAP_VENDOR,
		.cap_next = next,
		.cap_len = type == VFE_VIRTIO_PCI_CAP_NOTIFY ? 20 : 16,
		.cfg_type = type,
		.bar = FV_BAR,
		.offset = htole32(off),
		.length = htole32(len),
	};
	cap->notify_off_multiplier = htole32(FV_MULTIPLIER);
}

void
fake_virtio_init(struct fake_virtio *v, uint16_t pci_device_id, uint64_t offered)
{
	uint16_t vendor = htole16(VFE_PCI_VENDOR_VIRTIO), device = htole16(pci_device_id);
	unsigned int i;

	memset(v, 0, sizeof(*v));
	fake_pci_init(&v->f, "0000:af:00.2");
	v->f.ctx = v;
	v->f.bar_read = bar_read;
	v->f.bar_write = bar_write;
	v->f.doorbell = doorbell;
	v->f.pci.bar_size[FV_BAR] = FAKE_BAR_SIZE;
	memcpy(&v->f.config[VFE_PCI_VENDOR_ID], &vendor, sizeof(vendor));
	memcpy(&v->f.config[VFE_PCI_DEVICE_ID], &device, sizeof(device));
	v->f.config[VFE_PCI_STATUS] = VFE_PCI_STATUS_CAP_LIST;
	v->f.config[VFE_PCI_CAP_PTR] = FV_CAP_COMMON;
	put_cap(v, FV_CAP_COMMON, FV_CAP_NOTIFY, VFE_VIRTIO_PCI_CAP_COMMON, FV_COMMON,
		sizeof(v->regs));
	put_cap(v, FV_CAP_NOTIFY, FV_CAP_ISR, VFE_VIRTIO_PCI_CAP_NOTIFY, FV_NOTIFY, FV_NOTIFY_SIZE);
	put_cap(v, FV_CAP_ISR, FV_CAP_DEVICE, VFE_VIRTIO_PCI_CAP_ISR, FV_ISR, 1);
	put_cap(v, FV_CAP_DEVICE, 0, VFE_VIRTIO_PCI_CAP_DEVICE, FV_DEVICE, FV_DEVICE_SIZE);

	v->offered = offered;
	v->regs.num_queues = htole16(FV_QUEUES);
	for (i = 0; i < FV_QUEUES; i++) {
		v->q[i].max_size = v->q[i].size = FV_QUEUE_SIZE;
		v->q[i].vector = VFE_VIRTIO_MSI_NO_VECTOR;
		v->q[i].notify_off = (uint16_t)i;
	}
}

void
fake_virtio_fini(struct fake_virtio *v)
{
	fake_pci_fini(&v->f);
}
