/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The device side of a virtio PCI function as a driver, honest or not, sees it.
 */

#undef NDEBUG

#include "vfe_vdev.h"
#include "vfe_wire_net.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define COMMON(field) ((uint64_t)offsetof(struct vfe_wire_virtio_common, field))

enum {
	NR_QUEUES = 6,
	NR_VECTORS = 7,
	ISR = 0x1000,
	DEVICE = 0x2000,
	TABLE = 0x3000,
	S_FEATURES = VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER,
	S_ALL = S_FEATURES | VFE_VIRTIO_S_FEATURES_OK | VFE_VIRTIO_S_DRIVER_OK,
};

static const uint64_t offered = VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_RING_RESET) |
				VFE_BIT(VFE_NET_F_MAC) | VFE_BIT(VFE_VIRTIO_F_ADMIN_VQ);

/* The owner: counts what it is told. */
struct owner {
	struct vfe_vdev *dev;
	struct vfe_wire_net_config config;
	bool refuse_features;
	bool slow; /* does not complete resets by itself */
	unsigned int driver_ok, resets, enables, queue_resets, notifies, vectors;
	uint16_t last_qid;
};

static int
on_features_ok(void *ctx, uint64_t features)
{
	struct owner *o = ctx;

	assert_int_equal(features & ~offered, 0);
	return o->refuse_features ? -EINVAL : 0;
}

static void
on_driver_ok(void *ctx)
{
	((struct owner *)ctx)->driver_ok++;
}

static void
on_reset(void *ctx)
{
	struct owner *o = ctx;

	o->resets++;
	if (!o->slow)
		vfe_vdev_reset_done(o->dev);
}

static void
on_queue_enable(void *ctx, uint16_t qid)
{
	struct owner *o = ctx;

	o->enables++;
	o->last_qid = qid;
}

static void
on_queue_reset(void *ctx, uint16_t qid)
{
	struct owner *o = ctx;

	o->queue_resets++;
	o->last_qid = qid;
	if (!o->slow)
		vfe_vdev_queue_reset_done(o->dev, qid);
}

static void
on_queue_notify(void *ctx, uint16_t qid)
{
	struct owner *o = ctx;

	o->notifies++;
	o->last_qid = qid;
}

static void
on_queue_vector(void *ctx, uint16_t qid)
{
	struct owner *o = ctx;

	o->vectors++;
	o->last_qid = qid;
}

static const struct vfe_vdev_ops ops = {
	.features_ok = on_features_ok,
	.driver_ok = on_driver_ok,
	.reset = on_reset,
	.queue_enable = on_queue_enable,
	.queue_reset = on_queue_reset,
	.queue_notify = on_queue_notify,
	.queue_vector = on_queue_vector,
};

static struct vfe_signaller signaller;

static struct vfe_vdev_cfg
base_cfg(struct owner *o)
{
	return (struct vfe_vdev_cfg){
		.pci_device_id = VFE_PCI_DEVICE_VIRTIO_NET,
		.pci_class = 0x020000,
		.sriov = {.total_vfs = 4,
			.first_vf_offset = 0x23,
			.vf_stride = 1,
			.vf_bar_size = vfe_vdev_bar_size_for(9, 10)},
		.features = offered,
		.nr_queues = NR_QUEUES,
		.num_queues = NR_QUEUES - 1,
		.admin_index = NR_QUEUES - 1,
		.queue_size = 256,
		.nr_vectors = NR_VECTORS,
		.config = &o->config,
		.config_len = sizeof(o->config),
		.ops = &ops,
		.ctx = o,
		.signaller = &signaller,
	};
}

static int
setup(void **state)
{
	static struct owner o;
	struct vfe_vdev_cfg cfg;

	memset(&o, 0, sizeof(o));
	o.config = (struct vfe_wire_net_config){.mac = {2, 0, 0, 0, 0, 1}, .mtu = htole16(1500)};
	cfg = base_cfg(&o);
	assert_int_equal(vfe_vdev_create(&cfg, &o.dev, NULL), 0);
	*state = &o;
	return 0;
}

static int
teardown(void **state)
{
	vfe_vdev_destroy(((struct owner *)*state)->dev);
	return 0;
}

/* --- a driver --- */

static uint64_t
rd(struct owner *o, uint64_t off, uint32_t len)
{
	uint64_t v = 0;

	assert_int_equal(vfe_vdev_bar_read(o->dev, off, &v, len), 0);
	return le64toh(v);
}

static void
wr(struct owner *o, uint64_t off, uint64_t v, uint32_t len)
{
	v = htole64(v);
	assert_int_equal(vfe_vdev_bar_write(o->dev, off, &v, len), 0);
}

static uint32_t
cfg_rd(struct owner *o, uint64_t off, uint32_t len)
{
	uint32_t v = 0;

	assert_int_equal(vfe_vdev_config_read(o->dev, off, &v, len), 0);
	return le32toh(v);
}

static void
cfg_wr(struct owner *o, uint64_t off, uint32_t v, uint32_t len)
{
	v = htole32(v);
	assert_int_equal(vfe_vdev_config_write(o->dev, off, &v, len), 0);
}

static void
write_features(struct owner *o, uint64_t features)
{
	wr(o, COMMON(device_status), S_FEATURES, 1);
	wr(o, COMMON(driver_feature_select), 0, 4);
	wr(o, COMMON(driver_feature), features & UINT32_MAX, 4);
	wr(o, COMMON(driver_feature_select), 1, 4);
	wr(o, COMMON(driver_feature), features >> 32, 4);
	wr(o, COMMON(device_status), S_FEATURES | VFE_VIRTIO_S_FEATURES_OK, 1);
}

static void
enable_queue(struct owner *o, uint16_t qid, uint16_t vector)
{
	wr(o, COMMON(queue_select), qid, 2);
	wr(o, COMMON(queue_msix_vector), vector, 2);
	wr(o, COMMON(queue_desc), 0x10000, 8);
	wr(o, COMMON(queue_enable), 1, 2);
}

static void
bring_up(struct owner *o)
{
	write_features(o, offered);
	wr(o, COMMON(config_msix_vector), 0, 2);
	enable_queue(o, 1, 2);
	wr(o, COMMON(device_status), S_ALL, 1);
	assert_true(vfe_vdev_live(o->dev));
}

/* Offset of the first capability after @at (0 = begin) with @id, 0 when there is none. */
static uint32_t
next_cap(struct owner *o, uint32_t at, uint8_t id)
{
	unsigned int left = 48;

	at = cfg_rd(o, at == 0 ? VFE_PCI_CAP_PTR : at + 1, 1);
	while (at != 0 && left-- > 0) {
		if (cfg_rd(o, at, 1) == id)
			return at;
		at = cfg_rd(o, at + 1, 1);
	}
	return 0;
}

static uint32_t
virtio_cap(struct owner *o, uint8_t type)
{
	uint32_t at = 0;

	while ((at = next_cap(o, at, VFE_PCI_CAP_VENDOR)) != 0) {
		if (cfg_rd(o, at + 3, 1) == type)
			return at;
	}
	fail_msg("no virtio capability of type %u", type);
	return 0;
}

static uint64_t
fd_count(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) < 0 ? 0 : n;
}

/* Give @vector an eventfd and return our side of it. */
static int
arm(struct owner *o, uint32_t vector)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int copy = dup(fd);

	assert_int_equal(vfe_vdev_irq_set(o->dev, vector, 1, &copy), 0);
	assert_int_equal(copy, -1);
	return fd;
}

/* --- tests --- */

static void
identity_and_capabilities_describe_the_bar(void **state)
{
	struct owner *o = *state;
	uint32_t notify;

	assert_int_equal(cfg_rd(o, VFE_PCI_VENDOR_ID, 4), 0x10411af4);
	assert_int_equal(cfg_rd(o, VFE_PCI_REVISION, 4), 0x02000001);
	assert_int_not_equal(next_cap(o, 0, VFE_PCI_CAP_EXP), 0);
	assert_int_equal(cfg_rd(o, next_cap(o, 0, VFE_PCI_CAP_MSIX) + 2, 2), NR_VECTORS - 1);

	assert_int_equal(cfg_rd(o, virtio_cap(o, VFE_VIRTIO_PCI_CAP_COMMON) + 12, 4), 64);
	assert_int_equal(cfg_rd(o, virtio_cap(o, VFE_VIRTIO_PCI_CAP_ISR) + 8, 4), ISR);
	assert_int_equal(cfg_rd(o, virtio_cap(o, VFE_VIRTIO_PCI_CAP_DEVICE) + 8, 4), DEVICE);
	assert_int_equal(cfg_rd(o, virtio_cap(o, VFE_VIRTIO_PCI_CAP_DEVICE) + 12, 4), 24);
	notify = virtio_cap(o, VFE_VIRTIO_PCI_CAP_NOTIFY);
	assert_int_equal(cfg_rd(o, notify + 2, 1), 20);
	assert_int_equal(cfg_rd(o, notify + 8, 4), vfe_vdev_doorbell_offset(o->dev, 0));
	assert_int_equal(cfg_rd(o, notify + 12, 4), NR_QUEUES * 4096);
	assert_int_equal(cfg_rd(o, notify + 16, 4), 4096);
	assert_true(
		cfg_rd(o, notify + 8, 4) + cfg_rd(o, notify + 12, 4) <= vfe_vdev_bar_size(o->dev));
}

static void
bar_tells_its_size_and_keeps_its_type(void **state)
{
	struct owner *o = *state;
	uint64_t size;

	cfg_wr(o, VFE_PCI_BAR0, UINT32_MAX, 4);
	cfg_wr(o, VFE_PCI_BAR0 + 4, UINT32_MAX, 4);
	size = (uint64_t)cfg_rd(o, VFE_PCI_BAR0 + 4, 4) << 32 | cfg_rd(o, VFE_PCI_BAR0, 4);
	assert_int_equal(size & 0xf, VFE_PCI_BAR_MEM64 | VFE_PCI_BAR_PREFETCH);
	assert_int_equal(~(size & ~0xfULL) + 1, vfe_vdev_bar_size(o->dev));
	cfg_wr(o, VFE_PCI_BAR0 + 8, UINT32_MAX, 4);
	assert_int_equal(cfg_rd(o, VFE_PCI_BAR0 + 8, 4), 0);
}

static void
read_only_bits_survive_a_write_of_the_whole_space(void **state)
{
	struct owner *o = *state;
	uint8_t before[VFE_PCIE_CFG_SIZE], ones[VFE_PCIE_CFG_SIZE];

	assert_int_equal(vfe_vdev_config_read(o->dev, 0, before, sizeof(before)), 0);
	memset(ones, 0xff, sizeof(ones));
	assert_int_equal(vfe_vdev_config_write(o->dev, 0, ones, sizeof(ones)), 0);
	assert_int_equal(cfg_rd(o, VFE_PCI_VENDOR_ID, 4), 0x10411af4);
	/* the write has also initiated a function level reset, which undoes the rest */
	assert_int_equal(o->resets, 1);
	assert_int_equal(vfe_vdev_config_read(o->dev, 0, ones, sizeof(ones)), 0);
	assert_memory_equal(before, ones, 0x100);
}

static void
config_space_refuses_what_is_outside(void **state)
{
	struct owner *o = *state;
	uint32_t v = 0;

	assert_int_equal(vfe_vdev_config_read(o->dev, VFE_PCIE_CFG_SIZE - 2, &v, 4), -ERANGE);
	assert_int_equal(vfe_vdev_config_write(o->dev, UINT64_MAX, &v, 4), -ERANGE);
	assert_int_equal(vfe_vdev_bar_read(o->dev, UINT64_MAX - 3, &v, 4), -ERANGE);
	assert_int_equal(vfe_vdev_bar_write(o->dev, vfe_vdev_bar_size(o->dev), &v, 4), -ERANGE);
}

static void
sriov_capability_counts_and_places_vfs(void **state)
{
	struct owner *o = *state;
	uint32_t ari = VFE_PCI_EXT_CAP_START, at = cfg_rd(o, ari, 4) >> 20;

	assert_int_equal(cfg_rd(o, ari, 2), VFE_PCI_EXT_CAP_ARI);
	assert_int_equal(cfg_rd(o, at, 2), VFE_PCI_EXT_CAP_SRIOV);
	assert_int_equal(cfg_rd(o, at + 0x0e, 2), 4);
	assert_int_equal(cfg_rd(o, at + 0x10, 2), 4);
	assert_int_equal(cfg_rd(o, at + 0x14, 2), 0x23);
	assert_int_equal(cfg_rd(o, at + 0x16, 2), 1);
	assert_int_equal(cfg_rd(o, at + 0x1a, 2), VFE_PCI_DEVICE_VIRTIO_NET);

	cfg_wr(o, at + 0x10, 2, 2); /* VF Enable is set: NumVFs is fixed */
	assert_int_equal(cfg_rd(o, at + 0x10, 2), 4);
	cfg_wr(o, at + 0x08, 0, 2);
	cfg_wr(o, at + 0x10, 2, 2);
	assert_int_equal(cfg_rd(o, at + 0x10, 2), 2);
	cfg_wr(o, at + 0x10, 0xffff, 2);
	assert_int_equal(cfg_rd(o, at + 0x10, 2), 4);
}

static void
a_function_without_vfs_has_no_sriov(void **state)
{
	struct owner *o = *state;
	struct vfe_vdev_cfg cfg = base_cfg(o);

	vfe_vdev_destroy(o->dev);
	cfg.sriov.total_vfs = 0;
	assert_int_equal(vfe_vdev_create(&cfg, &o->dev, NULL), 0);
	assert_int_equal(cfg_rd(o, VFE_PCI_EXT_CAP_START, 4), 0);
}

static void
window_in_config_space_reaches_the_registers(void **state)
{
	struct owner *o = *state;
	uint32_t at = virtio_cap(o, VFE_VIRTIO_PCI_CAP_PCI);
	uint8_t dump[VFE_PCI_CFG_SIZE];

	cfg_wr(o, at + 4, 0, 1);
	cfg_wr(o, at + 8, (uint32_t)COMMON(num_queues), 4);
	cfg_wr(o, at + 12, 2, 4);
	assert_int_equal(cfg_rd(o, at + 16, 2), NR_QUEUES - 1);
	cfg_wr(o, at + 8, (uint32_t)COMMON(queue_select), 4);
	cfg_wr(o, at + 16, 3, 2);
	assert_int_equal(rd(o, COMMON(queue_select), 2), 3);

	/* a bad length, bar or offset reads nothing and breaks nothing */
	cfg_wr(o, at + 12, 3, 4);
	(void)cfg_rd(o, at + 16, 4);
	cfg_wr(o, at + 12, 4, 4);
	cfg_wr(o, at + 8, UINT32_MAX - 3, 4);
	(void)cfg_rd(o, at + 16, 4);
	cfg_wr(o, at + 4, 5, 1);
	(void)cfg_rd(o, at + 16, 4);

	/* a dump of the space does not clear the ISR behind the window */
	bring_up(o);
	vfe_vdev_config_changed(o->dev);
	cfg_wr(o, at + 4, 0, 1);
	cfg_wr(o, at + 8, ISR, 4);
	cfg_wr(o, at + 12, 1, 4);
	assert_int_equal(vfe_vdev_config_read(o->dev, 0, dump, sizeof(dump)), 0);
	assert_int_equal(cfg_rd(o, at + 16, 1), VFE_VIRTIO_ISR_CONFIG);
	assert_int_equal(cfg_rd(o, at + 16, 1), 0);
}

static void
registers_want_their_natural_width(void **state)
{
	struct owner *o = *state;
	uint64_t v = 0;

	assert_int_equal(vfe_vdev_bar_read(o->dev, COMMON(device_status), &v, 4), -EINVAL);
	assert_int_equal(vfe_vdev_bar_read(o->dev, COMMON(queue_select), &v, 1), -EINVAL);
	assert_int_equal(vfe_vdev_bar_read(o->dev, COMMON(device_feature), &v, 2), -EINVAL);
	assert_int_equal(vfe_vdev_bar_write(o->dev, COMMON(queue_desc), &v, 2), -EINVAL);
	assert_int_equal(vfe_vdev_bar_read(o->dev, 0, &v, 3), -EINVAL);
	assert_int_equal(vfe_vdev_bar_read(o->dev, ISR - 4, &v, 8), -EINVAL);

	wr(o, COMMON(queue_desc), 0x1122334455667788, 8);
	wr(o, COMMON(queue_desc) + 4, 0xaabbccdd, 4);
	assert_true(rd(o, COMMON(queue_desc), 8) == 0xaabbccdd55667788);
	assert_int_equal(rd(o, COMMON(queue_desc) + 4, 4), 0xaabbccdd);
}

static void
features_are_offered_by_halves(void **state)
{
	struct owner *o = *state;

	assert_int_equal(rd(o, COMMON(device_feature), 4), offered & UINT32_MAX);
	wr(o, COMMON(device_feature_select), 1, 4);
	assert_int_equal(rd(o, COMMON(device_feature), 4), offered >> 32);
	wr(o, COMMON(device_feature_select), 2, 4);
	assert_int_equal(rd(o, COMMON(device_feature), 4), 0);
	wr(o, COMMON(device_feature), 0xffffffff, 4);
	assert_true(vfe_vdev_features(o->dev) == offered);
}

static void
features_ok_is_refused_for_what_was_not_offered(void **state)
{
	struct owner *o = *state;

	write_features(o, offered | VFE_BIT(VFE_VIRTIO_F_RING_PACKED));
	assert_int_equal(rd(o, COMMON(device_status), 1), S_FEATURES);
	write_features(o, offered & ~VFE_BIT(VFE_VIRTIO_F_VERSION_1));
	assert_int_equal(rd(o, COMMON(device_status), 1), S_FEATURES);
	o->refuse_features = true;
	write_features(o, offered);
	assert_int_equal(rd(o, COMMON(device_status), 1), S_FEATURES);

	/* and DRIVER_OK is not to be had without it */
	wr(o, COMMON(device_status), S_ALL, 1);
	assert_int_equal(rd(o, COMMON(device_status), 1), S_FEATURES);
	assert_int_equal(o->driver_ok, 0);
}

static void
features_are_settled_by_features_ok(void **state)
{
	struct owner *o = *state;

	write_features(o, offered);
	assert_int_equal(rd(o, COMMON(device_status), 1), S_FEATURES | VFE_VIRTIO_S_FEATURES_OK);
	wr(o, COMMON(driver_feature), 0, 4);
	assert_true(vfe_vdev_driver_features(o->dev) == offered);
}

static void
driver_ok_is_told_once_and_bits_never_vanish(void **state)
{
	struct owner *o = *state;

	bring_up(o);
	wr(o, COMMON(device_status), VFE_VIRTIO_S_ACKNOWLEDGE, 1);
	wr(o, COMMON(device_status), S_ALL, 1);
	wr(o, COMMON(device_status), VFE_VIRTIO_S_NEEDS_RESET, 1); /* not the driver's */
	assert_int_equal(rd(o, COMMON(device_status), 1), S_ALL);
	assert_int_equal(o->driver_ok, 1);
}

static void
reset_shows_zero_only_when_it_is_done(void **state)
{
	struct owner *o = *state;

	bring_up(o);
	o->slow = true;
	wr(o, COMMON(device_status), 0, 1);
	wr(o, COMMON(device_status), 0, 1);
	assert_int_equal(o->resets, 1);
	assert_int_equal(rd(o, COMMON(device_status), 1), S_ALL);
	assert_false(vfe_vdev_live(o->dev));

	/* nothing that the driver does meanwhile counts */
	wr(o, COMMON(device_status), S_ALL, 1);
	wr(o, COMMON(queue_select), 2, 2);
	wr(o, COMMON(queue_enable), 1, 2);
	wr(o, vfe_vdev_doorbell_offset(o->dev, 1), 1, 2);
	assert_int_equal(o->driver_ok, 1);
	assert_int_equal(o->enables, 1);
	assert_int_equal(o->notifies, 0);

	vfe_vdev_reset_done(o->dev);
	assert_int_equal(rd(o, COMMON(device_status), 1), 0);
	wr(o, COMMON(queue_select), 1, 2);
	assert_int_equal(rd(o, COMMON(queue_enable), 2), 0);
	assert_int_equal(rd(o, COMMON(queue_desc), 8), 0);
	assert_int_equal(rd(o, COMMON(queue_msix_vector), 2), VFE_VIRTIO_MSI_NO_VECTOR);
	assert_true(vfe_vdev_driver_features(o->dev) == 0);
}

static void
queue_that_is_not_there_has_size_zero(void **state)
{
	struct owner *o = *state;

	write_features(o, offered);
	wr(o, COMMON(queue_select), NR_QUEUES, 2);
	assert_int_equal(rd(o, COMMON(queue_size), 2), 0);
	wr(o, COMMON(queue_size), 128, 2);
	wr(o, COMMON(queue_enable), 1, 2);
	wr(o, COMMON(queue_reset), 1, 2);
	wr(o, COMMON(queue_msix_vector), 1, 2);
	assert_int_equal(rd(o, COMMON(queue_msix_vector), 2), VFE_VIRTIO_MSI_NO_VECTOR);
	assert_int_equal(rd(o, COMMON(queue_enable), 2), 0);
	wr(o, COMMON(queue_select), 0xffff, 2);
	assert_int_equal(rd(o, COMMON(queue_size), 2), 0);
	assert_int_equal(o->enables, 0);
}

static void
queue_size_is_a_power_of_two_up_to_the_maximum(void **state)
{
	struct owner *o = *state;

	assert_int_equal(rd(o, COMMON(queue_size), 2), 256);
	wr(o, COMMON(queue_size), 0, 2);
	wr(o, COMMON(queue_size), 3, 2);
	wr(o, COMMON(queue_size), 512, 2);
	assert_int_equal(rd(o, COMMON(queue_size), 2), 256);
	wr(o, COMMON(queue_size), 64, 2);
	assert_int_equal(rd(o, COMMON(queue_size), 2), 64);
}

static void
an_enabled_queue_keeps_its_ring(void **state)
{
	struct owner *o = *state;

	enable_queue(o, 1, 2); /* before FEATURES_OK: not yet */
	assert_int_equal(o->enables, 0);
	bring_up(o);
	assert_int_equal(o->enables, 1);
	assert_int_equal(o->last_qid, 1);
	wr(o, COMMON(queue_desc), 0, 8);
	wr(o, COMMON(queue_size), 2, 2);
	wr(o, COMMON(queue_enable), 0, 2);
	assert_int_equal(rd(o, COMMON(queue_desc), 8), 0x10000);
	assert_int_equal(rd(o, COMMON(queue_size), 2), 256);
	assert_int_equal(rd(o, COMMON(queue_enable), 2), 1);
	assert_int_equal(rd(o, COMMON(queue_notify_off), 2), 1);
}

static void
queue_reset_shows_one_until_it_is_done(void **state)
{
	struct owner *o = *state;

	bring_up(o);
	wr(o, COMMON(queue_select), 2, 2);
	wr(o, COMMON(queue_reset), 1, 2); /* not enabled */
	assert_int_equal(o->queue_resets, 0);

	o->slow = true;
	wr(o, COMMON(queue_select), 1, 2);
	wr(o, COMMON(queue_reset), 1, 2);
	wr(o, COMMON(queue_reset), 1, 2);
	assert_int_equal(o->queue_resets, 1);
	assert_int_equal(rd(o, COMMON(queue_reset), 2), 1);
	vfe_vdev_queue_reset_done(o->dev, 1);
	assert_int_equal(rd(o, COMMON(queue_reset), 2), 0);
	assert_int_equal(rd(o, COMMON(queue_enable), 2), 0);
	enable_queue(o, 1, 2);
	assert_int_equal(o->enables, 2);
}

static void
queue_reset_needs_the_feature(void **state)
{
	struct owner *o = *state;

	write_features(o, VFE_BIT(VFE_VIRTIO_F_VERSION_1));
	enable_queue(o, 1, 2);
	wr(o, COMMON(queue_reset), 1, 2);
	assert_int_equal(o->queue_resets, 0);
	assert_int_equal(rd(o, COMMON(queue_reset), 2), 0);
}

static void
a_vector_out_of_range_reads_back_as_none(void **state)
{
	struct owner *o = *state;

	wr(o, COMMON(config_msix_vector), NR_VECTORS - 1, 2);
	assert_int_equal(rd(o, COMMON(config_msix_vector), 2), NR_VECTORS - 1);
	wr(o, COMMON(config_msix_vector), NR_VECTORS, 2);
	assert_int_equal(rd(o, COMMON(config_msix_vector), 2), VFE_VIRTIO_MSI_NO_VECTOR);
	wr(o, COMMON(queue_msix_vector), NR_VECTORS, 2);
	assert_int_equal(rd(o, COMMON(queue_msix_vector), 2), VFE_VIRTIO_MSI_NO_VECTOR);
}

static void
doorbells_count_only_for_live_queues(void **state)
{
	struct owner *o = *state;

	wr(o, vfe_vdev_doorbell_offset(o->dev, 1), 1, 2);
	assert_int_equal(o->notifies, 0);
	bring_up(o);
	wr(o, vfe_vdev_doorbell_offset(o->dev, 2), 2, 2);
	wr(o, vfe_vdev_doorbell_offset(o->dev, 1) + 4, 1, 4);
	wr(o, vfe_vdev_doorbell_offset(o->dev, NR_QUEUES), 0, 2);
	assert_int_equal(o->notifies, 0);
	wr(o, vfe_vdev_doorbell_offset(o->dev, 1), 0xffff, 2);
	assert_int_equal(o->notifies, 1);
	assert_int_equal(o->last_qid, 1);
	vfe_vdev_needs_reset(o->dev);
	wr(o, vfe_vdev_doorbell_offset(o->dev, 1), 1, 2);
	assert_int_equal(o->notifies, 1);
}

static void
device_config_is_read_and_ends_where_it_ends(void **state)
{
	struct owner *o = *state;
	uint8_t mac[6];

	assert_int_equal(rd(o, DEVICE, 1), 2);
	assert_int_equal(vfe_vdev_bar_read(o->dev, DEVICE, mac, sizeof(mac)), 0);
	assert_memory_equal(mac, o->config.mac, sizeof(mac));
	assert_int_equal(rd(o, DEVICE + 10, 2), 1500);
	assert_int_equal(rd(o, DEVICE + 24, 8), 0);
	wr(o, DEVICE, 0xff, 1); /* read-only here */
	assert_int_equal(rd(o, DEVICE, 1), 2);
}

static void
config_change_has_generation_isr_and_interrupt(void **state)
{
	struct owner *o = *state;
	uint64_t before = rd(o, COMMON(config_generation), 1);
	int fd = arm(o, 0);

	vfe_vdev_config_changed(o->dev); /* no driver yet */
	assert_int_equal(fd_count(fd), 0);
	bring_up(o);
	vfe_vdev_config_changed(o->dev);
	assert_int_equal(fd_count(fd), 1);
	assert_int_equal(rd(o, COMMON(config_generation), 1), before + 2);
	assert_int_equal(rd(o, ISR, 1), VFE_VIRTIO_ISR_CONFIG);
	assert_int_equal(rd(o, ISR, 1), 0);
	close(fd);
}

static void
needs_reset_is_shown_and_signalled(void **state)
{
	struct owner *o = *state;
	int fd = arm(o, 0);

	vfe_vdev_needs_reset(o->dev);
	assert_int_equal(rd(o, COMMON(device_status), 1), 0);
	bring_up(o);
	vfe_vdev_needs_reset(o->dev);
	assert_int_equal(rd(o, COMMON(device_status), 1), S_ALL | VFE_VIRTIO_S_NEEDS_RESET);
	assert_int_equal(fd_count(fd), 1);
	assert_false(vfe_vdev_live(o->dev));
	wr(o, COMMON(device_status), 0, 1);
	assert_int_equal(rd(o, COMMON(device_status), 1), 0);
	close(fd);
}

static void
untouched_table_does_not_mask(void **state)
{
	struct owner *o = *state;
	int fd = arm(o, 2);

	assert_int_equal(rd(o, TABLE + 2 * 16 + 12, 4), 1); /* as after a PCI reset */
	bring_up(o);
	assert_true(vfe_vdev_queue_fd(o->dev, 1) >= 0);
	vfe_vdev_signal_queue(o->dev, 1);
	assert_int_equal(fd_count(fd), 1);
	close(fd);
}

static void
masked_vector_waits_and_catches_up(void **state)
{
	struct owner *o = *state;
	uint64_t pba = 0x4000;
	int fd = arm(o, 2);

	bring_up(o);
	o->vectors = 0;
	wr(o, TABLE + 2 * 16 + 12, 0, 4);
	(void)fd_count(fd);
	wr(o, TABLE + 2 * 16 + 12, 1, 4);
	assert_int_equal(vfe_vdev_queue_fd(o->dev, 1), -1);
	assert_int_equal(o->vectors, 1);
	vfe_vdev_signal_queue(o->dev, 1);
	assert_int_equal(fd_count(fd), 0);
	assert_int_equal(rd(o, pba, 8), 1 << 2);
	wr(o, TABLE + 2 * 16 + 12, 0, 4);
	assert_int_equal(fd_count(fd), 1);
	assert_int_equal(rd(o, pba, 8), 0);
	assert_true(vfe_vdev_queue_fd(o->dev, 1) >= 0);
	close(fd);
}

static void
function_mask_covers_all_vectors(void **state)
{
	struct owner *o = *state;
	uint32_t ctrl = next_cap(o, 0, VFE_PCI_CAP_MSIX) + 2;
	int fd = arm(o, 2);

	bring_up(o);
	cfg_wr(o, ctrl, VFE_PCI_MSIX_CTRL_ENABLE | VFE_PCI_MSIX_CTRL_MASK, 2);
	assert_int_equal(vfe_vdev_queue_fd(o->dev, 1), -1);
	cfg_wr(o, ctrl, VFE_PCI_MSIX_CTRL_ENABLE, 2);
	assert_true(vfe_vdev_queue_fd(o->dev, 1) >= 0);
	assert_int_equal(fd_count(fd), 1); /* what may have been lost meanwhile */
	close(fd);
}

static void
a_new_eventfd_is_told_to_the_queue_and_signalled(void **state)
{
	struct owner *o = *state;
	int fd;

	bring_up(o);
	assert_int_equal(vfe_vdev_queue_fd(o->dev, 1), -1);
	fd = arm(o, 2);
	assert_int_equal(o->vectors, 1);
	assert_int_equal(fd_count(fd), 1);
	assert_int_equal(vfe_vdev_irq_set(o->dev, 0, NR_VECTORS, NULL), 0);
	assert_int_equal(o->vectors, 2);
	assert_int_equal(vfe_vdev_queue_fd(o->dev, 1), -1);
	assert_int_equal(vfe_vdev_irq_set(o->dev, NR_VECTORS, 1, NULL), -ERANGE);
	assert_int_equal(vfe_vdev_irq_set(o->dev, 1, UINT32_MAX, NULL), -ERANGE);
	close(fd);
}

static void
an_eventfd_that_runs_full_does_not_block(void **state)
{
	struct owner *o = *state;
	uint64_t full = UINT64_MAX - 1;
	int fd = eventfd(0, EFD_CLOEXEC), copy = dup(fd);

	assert_int_equal(vfe_vdev_irq_set(o->dev, 2, 1, &copy), 0);
	bring_up(o);
	assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
	vfe_vdev_signal_queue(o->dev, 1); /* returns */
	close(fd);
}

static void
table_access_outside_the_vectors_is_harmless(void **state)
{
	struct owner *o = *state;
	uint32_t v = 0;

	wr(o, TABLE + NR_VECTORS * 16, UINT64_MAX, 8);
	assert_int_equal(rd(o, TABLE + NR_VECTORS * 16, 8), 0);
	assert_int_equal(vfe_vdev_bar_read(o->dev, TABLE + 2, &v, 2), -EINVAL);
	wr(o, TABLE + 16, 0xfee00000, 4);
	assert_int_equal(rd(o, TABLE + 16, 4), 0xfee00000);
}

static void
quiet_device_sends_its_interrupts_later(void **state)
{
	struct owner *o = *state;
	int fd = arm(o, 0);

	bring_up(o);
	vfe_vdev_set_quiet(o->dev, true);
	vfe_vdev_config_changed(o->dev);
	assert_int_equal(fd_count(fd), 0);
	assert_int_equal(vfe_vdev_queue_fd(o->dev, 1), -1);
	vfe_vdev_set_quiet(o->dev, false);
	assert_int_equal(fd_count(fd), 1);
	close(fd);
}

static void
restore_sets_registers_without_ops(void **state)
{
	struct owner *o = *state;
	struct vfe_vdev_queue queues[2] = {
		{.size = 256, .msix_vector = VFE_VIRTIO_MSI_NO_VECTOR},
		{.size = 128, .msix_vector = 2, .enabled = true, .desc = 0x1000},
	};
	struct vfe_vdev_state s = {.driver_features = offered,
		.status = S_ALL,
		.config_vector = 0,
		.nr_queues = 2,
		.queues = queues};

	assert_int_equal(vfe_vdev_restore(o->dev, &s, NULL), 0);
	assert_int_equal(rd(o, COMMON(device_status), 1), S_ALL);
	wr(o, COMMON(queue_select), 1, 2);
	assert_int_equal(rd(o, COMMON(queue_size), 2), 128);
	assert_int_equal(rd(o, COMMON(queue_enable), 2), 1);
	assert_int_equal(o->driver_ok + o->enables + o->resets, 0);
}

static void
restore_refuses_and_changes_nothing(void **state)
{
	struct owner *o = *state;
	struct vfe_vdev_queue queue = {.size = 256, .enabled = true};
	struct vfe_vdev_state good = {.driver_features = offered,
		.status = S_ALL,
		.config_vector = 0,
		.nr_queues = 1,
		.queues = &queue};
	struct vfe_vdev_state bad = good;
	struct vfe_error err;

	bad.driver_features |= VFE_BIT(VFE_VIRTIO_F_RING_PACKED);
	assert_int_equal(vfe_vdev_restore(o->dev, &bad, &err), -EINVAL);
	assert_non_null(strstr(err.text, "0x400000000"));
	bad = good;
	bad.status = S_FEATURES | VFE_VIRTIO_S_DRIVER_OK;
	assert_int_equal(vfe_vdev_restore(o->dev, &bad, NULL), -EINVAL);
	bad = good;
	bad.config_vector = NR_VECTORS;
	assert_int_equal(vfe_vdev_restore(o->dev, &bad, NULL), -EINVAL);
	bad = good;
	bad.nr_queues = NR_QUEUES + 1;
	assert_int_equal(vfe_vdev_restore(o->dev, &bad, NULL), -EINVAL);
	queue.size = 300;
	assert_int_equal(vfe_vdev_restore(o->dev, &good, NULL), -EINVAL);
	queue.size = 256;
	queue.msix_vector = NR_VECTORS;
	assert_int_equal(vfe_vdev_restore(o->dev, &good, NULL), -EINVAL);
	assert_int_equal(rd(o, COMMON(device_status), 1), 0);
	assert_false(vfe_vdev_queue(o->dev, 0)->enabled);
}

static void
function_reset_takes_the_pci_state_too(void **state)
{
	struct owner *o = *state;
	uint32_t ctrl = next_cap(o, 0, VFE_PCI_CAP_MSIX) + 2;

	bring_up(o);
	cfg_wr(o, VFE_PCI_COMMAND, VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER, 2);
	cfg_wr(o, ctrl, VFE_PCI_MSIX_CTRL_ENABLE, 2);
	wr(o, TABLE + 12, 0, 4);
	vfe_vdev_function_reset(o->dev);
	assert_int_equal(o->resets, 1);
	assert_int_equal(cfg_rd(o, VFE_PCI_COMMAND, 2), 0);
	assert_int_equal(cfg_rd(o, ctrl, 2), NR_VECTORS - 1);
	assert_int_equal(rd(o, TABLE + 12, 4), 1);
	assert_int_equal(rd(o, COMMON(device_status), 1), 0);
}

static void
admin_queue_is_shown_and_moves_with_the_layout(void **state)
{
	struct owner *o = *state;

	assert_int_equal(rd(o, COMMON(admin_queue_index), 2), NR_QUEUES - 1);
	assert_int_equal(rd(o, COMMON(admin_queue_num), 2), 1);
	vfe_vdev_set_layout(o->dev, NR_QUEUES - 2, NR_QUEUES - 2);
	assert_int_equal(rd(o, COMMON(num_queues), 2), NR_QUEUES - 2);
	assert_int_equal(rd(o, COMMON(admin_queue_index), 2), NR_QUEUES - 2);
	wr(o, COMMON(device_status), 0, 1);
	assert_int_equal(rd(o, COMMON(num_queues), 2), NR_QUEUES - 1);
}

static void
a_configuration_out_of_range_is_refused(void **state)
{
	struct owner *o = *state;
	struct vfe_vdev_cfg cfg = base_cfg(o);
	struct vfe_vdev *dev = NULL;

	cfg.queue_size = 100;
	assert_int_equal(vfe_vdev_create(&cfg, &dev, NULL), -EINVAL);
	cfg = base_cfg(o);
	cfg.nr_vectors = 0;
	assert_int_equal(vfe_vdev_create(&cfg, &dev, NULL), -EINVAL);
	cfg = base_cfg(o);
	cfg.nr_queues = VFE_VDEV_MAX_QUEUES + 1;
	assert_int_equal(vfe_vdev_create(&cfg, &dev, NULL), -EINVAL);
	cfg = base_cfg(o);
	cfg.signaller = NULL;
	assert_int_equal(vfe_vdev_create(&cfg, &dev, NULL), -EINVAL);
	assert_null(dev);
	vfe_vdev_destroy(NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(identity_and_capabilities_describe_the_bar),
		T(bar_tells_its_size_and_keeps_its_type),
		T(read_only_bits_survive_a_write_of_the_whole_space),
		T(config_space_refuses_what_is_outside),
		T(sriov_capability_counts_and_places_vfs),
		T(a_function_without_vfs_has_no_sriov),
		T(window_in_config_space_reaches_the_registers),
		T(registers_want_their_natural_width),
		T(features_are_offered_by_halves),
		T(features_ok_is_refused_for_what_was_not_offered),
		T(features_are_settled_by_features_ok),
		T(driver_ok_is_told_once_and_bits_never_vanish),
		T(reset_shows_zero_only_when_it_is_done),
		T(queue_that_is_not_there_has_size_zero),
		T(queue_size_is_a_power_of_two_up_to_the_maximum),
		T(an_enabled_queue_keeps_its_ring),
		T(queue_reset_shows_one_until_it_is_done),
		T(queue_reset_needs_the_feature),
		T(a_vector_out_of_range_reads_back_as_none),
		T(doorbells_count_only_for_live_queues),
		T(device_config_is_read_and_ends_where_it_ends),
		T(config_change_has_generation_isr_and_interrupt),
		T(needs_reset_is_shown_and_signalled),
		T(untouched_table_does_not_mask),
		T(masked_vector_waits_and_catches_up),
		T(function_mask_covers_all_vectors),
		T(a_new_eventfd_is_told_to_the_queue_and_signalled),
		T(an_eventfd_that_runs_full_does_not_block),
		T(table_access_outside_the_vectors_is_harmless),
		T(quiet_device_sends_its_interrupts_later),
		T(restore_sets_registers_without_ops),
		T(restore_refuses_and_changes_nothing),
		T(function_reset_takes_the_pci_state_too),
		T(admin_queue_is_shown_and_moves_with_the_layout),
		T(a_configuration_out_of_range_is_refused),
	};

	int failed;

	vfe_signaller_init(&signaller);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	vfe_signaller_fini(&signaller);
	return failed;
}
