/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The virtio driver against a function that lies in each of its fields, and against our own
 * device-side library over a real socket.
 */

#undef NDEBUG

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fake_virtio.h"
#include "vfe_vdev.h"
#include "vfe_virtio.h"
#include "vfu_function.h"

#define FEATURES (VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_RING_RESET) | VFE_BIT(5))

/* A kernel with huge pages, of which there may be too few. */
static struct {
	bool huge; /* what was made last */
	bool too_few;
} kernel;

int __real_memfd_create(const char *name, unsigned int flags);
int __wrap_memfd_create(const char *name, unsigned int flags);
void *__real_mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t off);
void *__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t off);

int
__wrap_memfd_create(const char *name, unsigned int flags)
{
	const unsigned int huge = MFD_HUGETLB | MFD_HUGE_2MB;

	kernel.huge = (flags & MFD_HUGETLB) != 0;
	assert((flags & huge) == huge || !kernel.huge);
	return __real_memfd_create(name, flags & ~huge);
}

void *
__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t off)
{
	if (kernel.too_few) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return __real_mmap64(at, size, prot, flags, fd, off);
}

struct env {
	struct fake_virtio v;
	struct vfe_virtio_dev vdev;
	struct vfe_error err;
};

static int
setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	fake_virtio_init(&e->v, VFE_PCI_DEVICE_VIRTIO_NET, FEATURES);
	*state = e;
	return 0;
}

static int
setup_init(void **state)
{
	struct env *e;

	setup(state);
	e = *state;
	assert_int_equal(vfe_virtio_init(&e->vdev, &e->v.f.pci, &e->err), 0);
	return 0;
}

static int
teardown(void **state)
{
	struct env *e = *state;

	/* whatever the test did, registers were accessed at their width */
	assert_int_equal(e->v.bad_widths, 0);
	fake_virtio_fini(&e->v);
	free(e);
	return 0;
}

static int
init(struct env *e)
{
	return vfe_virtio_init(&e->vdev, &e->v.f.pci, &e->err);
}

/* --- capabilities --- */

static void
test_honest_function(void **state)
{
	struct env *e = *state;

	assert_int_equal(init(e), 0);
	assert_int_equal(e->vdev.pci_device_id, 0x1041);
	assert_int_equal(e->vdev.common.bar, FV_BAR);
	assert_int_equal(e->vdev.common.length, 64);
	assert_int_equal(e->vdev.notify.offset, FV_NOTIFY);
	assert_int_equal(e->vdev.notify_multiplier, FV_MULTIPLIER);
	assert_int_equal(e->vdev.isr.offset, FV_ISR);
	assert_int_equal(e->vdev.device.length, FV_DEVICE_SIZE);
	assert_int_equal(e->vdev.device_features, FEATURES);
	assert_int_equal(e->vdev.num_queues, FV_QUEUES);
	assert_int_equal(e->vdev.num_vectors, FAKE_MAX_IRQS);
	assert_int_equal(e->v.regs.device_status, 0);
}

static void
test_functions_that_are_not_modern_virtio(void **state)
{
	struct env *e = *state;

	e->v.f.config[VFE_PCI_VENDOR_ID] = 0xf5;
	assert_int_equal(init(e), -ENODEV);
	assert_non_null(strstr(e->err.text, "1af5:1041"));
	e->v.f.config[VFE_PCI_VENDOR_ID] = 0xf4;
	e->v.f.config[VFE_PCI_DEVICE_ID] = 0x3f;
	assert_int_equal(init(e), -ENODEV);
	e->v.f.config[VFE_PCI_DEVICE_ID] = 0x80;
	assert_int_equal(init(e), -ENODEV);
	e->v.f.config[VFE_PCI_DEVICE_ID] = 0x7f;
	assert_int_equal(init(e), 0);
	e->v.f.config[VFE_PCI_STATUS] = 0;
	assert_int_equal(init(e), -EPROTO);
}

static void
test_lists_of_capabilities_that_loop_or_leave(void **state)
{
	struct env *e = *state;

	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.cap_next = FV_CAP_COMMON;
	assert_int_equal(init(e), -EPROTO);
	assert_non_null(strstr(e->err.text, "loop"));
	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.cap_next = FV_CAP_DEVICE;
	assert_int_equal(init(e), -EPROTO);
	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.cap_next = 0x10;
	assert_int_equal(init(e), -EPROTO);
	assert_non_null(strstr(e->err.text, "0x10"));

	/* a vendor capability in the last four bytes */
	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.cap_next = 0xfc;
	e->v.f.config[0xfc] = VFE_PCI_CAP_VENDOR;
	assert_int_equal(init(e), -EPROTO);
	/* and another kind there is none of ours */
	e->v.f.config[0xfc] = VFE_PCI_CAP_MSIX;
	assert_int_equal(init(e), 0);
	/* the two low bits of a pointer are reserved */
	fake_virtio_cap(&e->v, FV_CAP_COMMON)->cap.cap_next = FV_CAP_NOTIFY | 3;
	assert_int_equal(init(e), 0);
}

/* One field of one capability is spoiled; the text must name what. */
static void
test_each_field_of_each_capability(void **state)
{
	static const struct {
		uint8_t cap;
		uint8_t at; /* of the field */
		uint8_t size;
		uint32_t value;
		int rc;
		const char *text;
	} cases[] = {
		{FV_CAP_COMMON, 2, 1, 15, -EPROTO, "length 15"},
		{FV_CAP_NOTIFY, 2, 1, 19, -EPROTO, "length 19"},
		{FV_CAP_DEVICE, 2, 1, 255, -EPROTO, "length 255"},
		{FV_CAP_COMMON, 3, 1, 0, -EPROTO, "no usable capability of the common"},
		{FV_CAP_NOTIFY, 3, 1, 200, -EPROTO, "no usable capability of the notification"},
		{FV_CAP_ISR, 3, 1, 5, -EPROTO, "no usable capability of the ISR"},
		{FV_CAP_DEVICE, 3, 1, 5, 0, ""},
		{FV_CAP_COMMON, 4, 1, 6, -EPROTO, "no usable capability of the common"},
		{FV_CAP_COMMON, 4, 1, 0, -EPROTO, "BAR 0 of 0x0"},
		{FV_CAP_COMMON, 8, 4, 2, -EPROTO, "aligned to 4"},
		{FV_CAP_NOTIFY, 8, 4, 1, -EPROTO, "aligned to 2"},
		{FV_CAP_COMMON, 8, 4, FAKE_BAR_SIZE - 60, -EPROTO, "outside BAR 4"},
		{FV_CAP_COMMON, 8, 4, 0xfffffffc, -EPROTO, "outside BAR 4"},
		{FV_CAP_COMMON, 12, 4, 55, -EPROTO, "55 bytes, need 56"},
		{FV_CAP_COMMON, 12, 4, 56, 0, ""},
		{FV_CAP_ISR, 12, 4, 0, -EPROTO, "0 bytes, need 1"},
		{FV_CAP_NOTIFY, 12, 4, 1, -EPROTO, "1 bytes, need 2"},
		{FV_CAP_NOTIFY, 12, 4, 0xffffffff, -EPROTO, "outside BAR 4"},
		{FV_CAP_DEVICE, 12, 4, FAKE_BAR_SIZE, -EPROTO, "outside BAR 4"},
		{FV_CAP_NOTIFY, 16, 4, 3, -EPROTO, "multiplier 3"},
		{FV_CAP_NOTIFY, 16, 4, 1, -EPROTO, "multiplier 1"},
		{FV_CAP_NOTIFY, 16, 4, 0, 0, ""},
		{FV_CAP_NOTIFY, 16, 4, 0x80000000, 0, ""},
	};
	struct env *e = *state;
	uint32_t value;
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(cases); i++) {
		fake_virtio_init(&e->v, VFE_PCI_DEVICE_VIRTIO_NET, FEATURES);
		value = htole32(cases[i].value);
		memcpy(&e->v.f.config[cases[i].cap + cases[i].at], &value, cases[i].size);
		e->err.text[0] = '\0';
		if (init(e) != cases[i].rc || strstr(e->err.text, cases[i].text) == NULL)
			fail_msg("case %u: %s", i, e->err.text);
	}
}

static void
test_first_of_two_capabilities_counts(void **state)
{
	struct env *e = *state;

	/* the device capability becomes a second common one, of which even the place is bad */
	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.cfg_type = VFE_VIRTIO_PCI_CAP_COMMON;
	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.offset = htole32(3);
	assert_int_equal(init(e), 0);
	assert_int_equal(e->vdev.common.offset, FV_COMMON);
	assert_int_equal(e->vdev.device.length, 0);

	/* one in a reserved BAR does not count as the first */
	fake_virtio_init(&e->v, VFE_PCI_DEVICE_VIRTIO_NET, FEATURES);
	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.cfg_type = VFE_VIRTIO_PCI_CAP_ISR;
	fake_virtio_cap(&e->v, FV_CAP_DEVICE)->cap.offset = htole32(FV_ISR + 8);
	fake_virtio_cap(&e->v, FV_CAP_ISR)->cap.bar = 7;
	assert_int_equal(init(e), 0);
	assert_int_equal(e->vdev.isr.offset, FV_ISR + 8);
}

static void
test_device_that_fell_off_the_bus(void **state)
{
	struct env *e = *state;

	e->v.offered = UINT64_MAX;
	assert_int_equal(init(e), -EPROTO);
	e->v.offered = FEATURES;
	e->v.regs.num_queues = htole16(VFE_VIRTIO_MAX_QUEUES + 1);
	assert_int_equal(init(e), -EPROTO);
	assert_non_null(strstr(e->err.text, "1025"));
	vfe_pci_abort(&e->v.f.pci);
	assert_int_equal(init(e), -ENODEV);
}

/* --- status, reset, features --- */

static void
test_status_bits_add_up(void **state)
{
	struct env *e = *state;
	uint8_t status;

	assert_int_equal(vfe_virtio_status_add(&e->vdev, VFE_VIRTIO_S_ACKNOWLEDGE, &e->err), 0);
	assert_int_equal(vfe_virtio_status_add(&e->vdev, VFE_VIRTIO_S_DRIVER, &e->err), 0);
	assert_int_equal(vfe_virtio_status_get(&e->vdev, &status, &e->err), 0);
	assert_int_equal(status, 3);
}

static void
test_reset_that_takes_a_while(void **state)
{
	struct env *e = *state;

	e->v.regs.device_status = 0x0f;
	e->v.slow_reset = 6;
	assert_int_equal(vfe_virtio_reset(&e->vdev, vfe_deadline_in_ms(10000), NULL, &e->err), 0);
	assert_int_equal(e->v.slow_reset, 0);
	assert_int_equal(e->v.regs.device_status, 0);
}

static void
test_reset_that_never_ends(void **state)
{
	struct env *e = *state;
	uint64_t begin = vfe_clock_ns();

	e->v.regs.device_status = 0x0f;
	e->v.slow_reset = UINT32_MAX;
	assert_int_equal(
		vfe_virtio_reset(&e->vdev, vfe_deadline_in_ms(50), NULL, &e->err), -ETIMEDOUT);
	assert_true(vfe_clock_ns() - begin >= 50000000u);
	assert_non_null(strstr(e->err.text, "0x0f"));
}

static void
test_reset_that_is_cancelled(void **state)
{
	struct env *e = *state;
	atomic_bool cancel = true;

	e->v.regs.device_status = 0x0f;
	e->v.slow_reset = UINT32_MAX;
	assert_int_equal(vfe_virtio_reset(&e->vdev, vfe_deadline_in_ms(60000), &cancel, &e->err),
		-ECANCELED);
}

static void
test_reset_of_a_lost_device(void **state)
{
	struct env *e = *state;

	vfe_pci_abort(&e->v.f.pci);
	assert_int_equal(
		vfe_virtio_reset(&e->vdev, vfe_deadline_in_ms(60000), NULL, &e->err), -ENODEV);
}

static void
test_features_are_written_and_read_back(void **state)
{
	struct env *e = *state;

	assert_int_equal(vfe_virtio_features_set(&e->vdev, FEATURES, &e->err), 0);
	assert_int_equal(e->v.accepted, FEATURES);
	assert_int_equal(e->vdev.driver_features, FEATURES);
	assert_int_equal(e->v.regs.device_status, VFE_VIRTIO_S_FEATURES_OK);

	assert_int_equal(vfe_virtio_features_set(&e->vdev, FEATURES | 1, &e->err), -EINVAL);
	assert_int_equal(e->v.accepted, FEATURES);
}

static void
test_features_that_the_device_refuses(void **state)
{
	struct env *e = *state;

	e->v.refuse_features = true;
	assert_int_equal(vfe_virtio_features_set(&e->vdev, FEATURES, &e->err), -ENOTSUP);
	assert_int_equal(e->vdev.driver_features, 0);
}

/* --- device configuration --- */

static void
test_configuration_reads_and_writes_at_its_edges(void **state)
{
	struct env *e = *state;
	uint8_t buf[FV_DEVICE_SIZE] = {0}, mac[6] = {2, 3, 4, 5, 6, 7};
	unsigned int i;

	for (i = 0; i < FV_DEVICE_SIZE; i++)
		e->v.device_cfg[i] = (uint8_t)i;
	assert_int_equal(vfe_virtio_config_read(&e->vdev, 0, buf, sizeof(buf), &e->err), 0);
	assert_memory_equal(buf, e->v.device_cfg, sizeof(buf));
	assert_int_equal(vfe_virtio_config_read(&e->vdev, 24, buf, 8, &e->err), 0);
	assert_memory_equal(buf, e->v.device_cfg + 24, 8);
	assert_int_equal(vfe_virtio_config_read(&e->vdev, 31, buf, 1, &e->err), 0);
	assert_int_equal(buf[0], 31);
	assert_int_equal(vfe_virtio_config_write(&e->vdev, 1, mac, 6, &e->err), 0);
	assert_memory_equal(e->v.device_cfg + 1, mac, 6);

	assert_int_equal(vfe_virtio_config_read(&e->vdev, 31, buf, 2, &e->err), -ERANGE);
	assert_int_equal(vfe_virtio_config_read(&e->vdev, 32, buf, 1, &e->err), -ERANGE);
	assert_int_equal(vfe_virtio_config_read(&e->vdev, UINT32_MAX, buf, 4, &e->err), -ERANGE);
	assert_int_equal(vfe_virtio_config_write(&e->vdev, 28, buf, 8, &e->err), -ERANGE);
}

static void
test_configuration_reads_each_field_at_its_width(void **state)
{
	static const uint8_t widths[] = {1, 1, 2, 4, 4, 4};
	static const uint8_t at[FV_DEVICE_SIZE] = {[0] = 1, [1] = 1, [2] = 2, [4] = 4, [8] = 4};
	static const uint8_t too_long[] = {4, 4, 4, 4, 4, 4, 4, 4, 1};
	struct env *e = *state;
	uint8_t buf[FV_DEVICE_SIZE + 1] = {0};
	unsigned int i;

	for (i = 0; i < FV_DEVICE_SIZE; i++)
		e->v.device_cfg[i] = (uint8_t)(i + 1);
	assert_int_equal(vfe_virtio_config_read_fields(&e->vdev, widths, 5, buf, &e->err), 0);
	assert_memory_equal(e->v.read_widths, at, sizeof(at));
	assert_memory_equal(buf, e->v.device_cfg, 12);
	assert_int_equal(buf[12], 0);
	assert_int_equal(
		vfe_virtio_config_read_fields(&e->vdev, too_long, 9, buf, &e->err), -ERANGE);
	assert_int_equal(vfe_virtio_config_read_fields(&e->vdev, too_long, 8, buf, &e->err), 0);
	assert_memory_equal(buf, e->v.device_cfg, FV_DEVICE_SIZE);

	e->v.unsettled = 1000;
	assert_int_equal(vfe_virtio_config_read_fields(&e->vdev, widths, 5, buf, &e->err), -EAGAIN);
}

static void
test_generation_that_settles_and_one_that_does_not(void **state)
{
	struct env *e = *state;
	uint32_t v;

	e->v.unsettled = 5;
	assert_int_equal(vfe_virtio_config_read(&e->vdev, 0, &v, 4, &e->err), 0);
	assert_int_equal(e->v.unsettled, 0);
	e->v.unsettled = 1000;
	assert_int_equal(vfe_virtio_config_read(&e->vdev, 0, &v, 4, &e->err), -EAGAIN);
	assert_true(e->v.unsettled > 900);
}

static void
test_isr_is_cleared_by_reading(void **state)
{
	struct env *e = *state;
	uint8_t isr;

	e->v.isr = VFE_VIRTIO_ISR_CONFIG;
	assert_int_equal(vfe_virtio_isr_read(&e->vdev, &isr, &e->err), 0);
	assert_int_equal(isr, VFE_VIRTIO_ISR_CONFIG);
	assert_int_equal(vfe_virtio_isr_read(&e->vdev, &isr, &e->err), 0);
	assert_int_equal(isr, 0);
}

/* --- queues --- */

static const struct vfe_virtio_queue_cfg good_queue = {
	.size = 32,
	.msix_vector = 3,
	.desc = 0x123456780,
	.driver = 0x2222222222222222,
	.device = 0x4444444444444444,
};

static void
test_queue_is_enabled_as_asked(void **state)
{
	struct env *e = *state;
	struct vfe_virtio_queue_info info;

	assert_int_equal(vfe_virtio_queue_info(&e->vdev, 5, &info, &e->err), 0);
	assert_int_equal(info.size, FV_QUEUE_SIZE);
	assert_int_equal(info.enable, 0);
	assert_int_equal(info.notify_off, 5);
	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 5, &good_queue, &e->err), 0);
	assert_int_equal(e->v.q[5].size, 32);
	assert_int_equal(e->v.q[5].vector, 3);
	assert_int_equal(e->v.q[5].enable, 1);
	assert_true(e->v.q[5].desc == good_queue.desc);
	assert_true(e->v.q[5].driver == good_queue.driver);
	assert_true(e->v.q[5].device == good_queue.device);

	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 5, &good_queue, &e->err), -EBUSY);
	assert_int_equal(e->v.enable_writes, 1);
}

static void
test_queue_of_a_physical_device_is_told_bus_addresses(void **state)
{
	const uint64_t offset = 0x1000000000, used_end = good_queue.device + 6 + 8 * 32;
	struct env *e = *state;

	e->v.f.pci.physical = true;
	e->v.f.bus_offset = offset;
	e->v.f.bus_piece = used_end - 1;
	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 5, &good_queue, &e->err), -EFAULT);
	assert_string_equal(e->err.text,
		"queue 5: the 262 bytes of its ring at 0x4444444444444444 are not there in one "
		"piece");
	e->v.f.bus_piece = good_queue.driver + 6 + 2 * 32 - 1;
	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 5, &good_queue, &e->err), -EFAULT);
	e->v.f.bus_piece = good_queue.desc + 16 * 32 - 1;
	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 5, &good_queue, &e->err), -EFAULT);
	e->v.f.bus_piece = 0;
	e->v.f.bus_offset = UINT64_MAX - good_queue.desc + 1;
	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 5, &good_queue, &e->err), -EFAULT);
	assert_int_equal(e->v.enable_writes, 0);

	e->v.f.bus_offset = offset;
	e->v.f.bus_piece = used_end;
	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 5, &good_queue, &e->err), 0);
	assert_true(e->v.q[5].desc == good_queue.desc + offset);
	assert_true(e->v.q[5].driver == good_queue.driver + offset);
	assert_true(e->v.q[5].device == good_queue.device + offset);
	e->v.f.pci.physical = false;
}

static void
test_queues_that_cannot_be_enabled(void **state)
{
	struct env *e = *state;
	struct vfe_virtio_queue_cfg cfg;

#define EXPECT(code, field, value)                                                             \
	do {                                                                                   \
		cfg = good_queue;                                                              \
		cfg.field = (value);                                                           \
		assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 1, &cfg, &e->err), (code)); \
	} while (0)

	EXPECT(-EINVAL, size, 0);
	EXPECT(-EINVAL, size, 33);
	EXPECT(-EINVAL, size, 128);
	EXPECT(-EINVAL, desc, 8);
	EXPECT(-EINVAL, driver, 1);
	EXPECT(-EINVAL, device, 2);
	EXPECT(-EINVAL, msix_vector, FAKE_MAX_IRQS);
	assert_int_equal(
		vfe_virtio_queue_enable(&e->vdev, FV_QUEUES, &good_queue, &e->err), -ENOENT);
	e->v.q[1].size = 48;
	EXPECT(-EPROTO, size, 32);
	assert_non_null(strstr(e->err.text, "48"));
	e->v.q[1].size = 0xffff;
	EXPECT(-EPROTO, size, 32);
	e->v.q[1].size = 64;
	e->v.refuse_vectors = true;
	EXPECT(-ENOSPC, size, 32);
	assert_int_equal(e->v.enable_writes, 0);
	e->v.refuse_enable = true;
	EXPECT(-EIO, msix_vector, VFE_VIRTIO_MSI_NO_VECTOR);
#undef EXPECT
}

static void
test_queue_reset_waits_and_checks(void **state)
{
	struct env *e = *state;

	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 2, &good_queue, &e->err), 0);
	assert_int_equal(
		vfe_virtio_queue_reset(&e->vdev, 2, vfe_deadline_in_ms(100), &e->err), -ENOTSUP);
	assert_int_equal(vfe_virtio_features_set(&e->vdev, FEATURES, &e->err), 0);
	e->v.slow_queue_reset = 4;
	assert_int_equal(
		vfe_virtio_queue_reset(&e->vdev, 2, vfe_deadline_in_ms(10000), &e->err), 0);
	assert_int_equal(e->v.q[2].enable, 0);

	assert_int_equal(vfe_virtio_queue_enable(&e->vdev, 2, &good_queue, &e->err), 0);
	e->v.stay_enabled = true;
	assert_int_equal(
		vfe_virtio_queue_reset(&e->vdev, 2, vfe_deadline_in_ms(10000), &e->err), -EIO);
	assert_non_null(strstr(e->err.text, "queue 2"));
	assert_non_null(strstr(e->err.text, "queue_enable reads 1"));
	e->v.slow_queue_reset = UINT32_MAX;
	assert_int_equal(
		vfe_virtio_queue_reset(&e->vdev, 2, vfe_deadline_in_ms(20), &e->err), -ETIMEDOUT);
	assert_non_null(strstr(e->err.text, "queue 2"));
	assert_non_null(strstr(e->err.text, "queue_reset reads 1"));
}

static void
test_common_configuration_without_queue_reset(void **state)
{
	struct env *e = *state;
	struct vfe_virtio_queue_info info;

	fake_virtio_cap(&e->v, FV_CAP_COMMON)->cap.length = htole32(56);
	assert_int_equal(init(e), 0);
	assert_int_equal(vfe_virtio_queue_info(&e->vdev, 0, &info, &e->err), 0);
	assert_int_equal(info.notify_data, 0);
	assert_int_equal(vfe_virtio_features_set(&e->vdev, FEATURES, &e->err), 0);
	assert_int_equal(
		vfe_virtio_queue_reset(&e->vdev, 0, vfe_deadline_in_ms(100), &e->err), -ENOTSUP);
	assert_non_null(strstr(e->err.text, "queue_reset"));
}

static void
test_configuration_vector_is_read_back(void **state)
{
	struct env *e = *state;

	assert_int_equal(vfe_virtio_config_vector_set(&e->vdev, 0, &e->err), 0);
	assert_int_equal(vfe_virtio_config_vector_set(&e->vdev, FAKE_MAX_IRQS, &e->err), -EINVAL);
	e->v.refuse_vectors = true;
	assert_int_equal(vfe_virtio_config_vector_set(&e->vdev, 1, &e->err), -ENOSPC);
	assert_int_equal(
		vfe_virtio_config_vector_set(&e->vdev, VFE_VIRTIO_MSI_NO_VECTOR, &e->err), 0);
}

static void
test_doorbell_inside_and_outside_the_structure(void **state)
{
	const uint16_t last = FV_NOTIFY_SIZE / FV_MULTIPLIER - 1;
	struct env *e = *state;
	struct vfe_pci_doorbell db;

	assert_int_equal(vfe_virtio_doorbell_get(&e->vdev, 3, last, &db, &e->err), 0);
	assert_int_equal(db.bar, FV_BAR);
	assert_int_equal(db.off, FV_NOTIFY + last * FV_MULTIPLIER);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 3, 2), 0);
	assert_int_equal(e->v.kicks[3], 1);
	assert_int_equal(
		vfe_virtio_doorbell_get(&e->vdev, 3, (uint16_t)(last + 1), &db, &e->err), -EPROTO);
	assert_int_equal(vfe_virtio_doorbell_get(&e->vdev, 3, 0xffff, &db, &e->err), -EPROTO);

	/* the last two bytes do for a queue number, not for notification data */
	e->vdev.notify.length = 2;
	assert_int_equal(vfe_virtio_doorbell_get(&e->vdev, 0, 0, &db, &e->err), 0);
	e->vdev.driver_features = VFE_BIT(VFE_VIRTIO_F_NOTIFICATION_DATA);
	assert_int_equal(vfe_virtio_doorbell_get(&e->vdev, 0, 0, &db, &e->err), -EPROTO);
}

/* --- the arena --- */

static void
test_arena_gives_aligned_zeroed_disjoint_blocks(void **state)
{
	struct env *e = *state;
	struct vfe_pci_domain *domain;
	struct vfe_dma_arena *arena;
	uint8_t *a, *b, *c, *d;
	uint64_t ia, ib, ic, id;

	assert_int_equal(vfe_pci_domain_create(&domain, &e->err), 0);
	assert_int_equal(vfe_pci_domain_attach(domain, &e->v.f.pci, &e->err), 0);
	assert_int_equal(vfe_dma_arena_create(domain, 0x100000, 0x4000, false, &arena, &e->err), 0);
	assert_int_equal(e->v.f.nr_maps, 1);

	a = vfe_dma_arena_alloc(arena, 1, 1, &ia);
	b = vfe_dma_arena_alloc(arena, 0x1000, 4096, &ib);
	c = vfe_dma_arena_alloc(arena, 64, 8, &ic);
	assert_non_null(a);
	assert_non_null(b);
	assert_non_null(c);
	assert_int_equal(ia, 0x100000);
	assert_int_equal(ib, 0x101000);
	assert_int_equal(ic, 0x100040); /* the first hole */
	memset(b, 0xff, 0x1000);
	assert_memory_equal(fake_pci_dma(&e->v.f, ib, 0x1000), b, 0x1000);
	assert_null(vfe_dma_arena_alloc(arena, 0x2001, 4096, &id));
	d = vfe_dma_arena_alloc(arena, 0x2000, 4096, &id);
	assert_non_null(d);
	assert_null(vfe_dma_arena_alloc(arena, 0x1000, 4096, &id));
	assert_null(vfe_dma_arena_alloc(arena, UINT64_MAX, 64, &id));
	assert_null(vfe_dma_arena_alloc(arena, 0, 64, &id));

	vfe_dma_arena_free(arena, b);
	b = vfe_dma_arena_alloc(arena, 0x1000, 64, &id);
	assert_int_equal(id, 0x100080); /* smallest alignment: right behind c */
	assert_int_equal(b[0], 0);
	assert_int_equal(b[0xfff], 0);
	vfe_dma_arena_free(arena, a);
	vfe_dma_arena_free(arena, NULL);
	vfe_dma_arena_destroy(arena);
	assert_int_equal(e->v.f.nr_maps, 0);
	vfe_pci_domain_detach(domain, &e->v.f.pci);
	vfe_pci_domain_destroy(domain);
}

static void
test_arena_that_the_device_does_not_get(void **state)
{
	struct env *e = *state;
	struct vfe_pci_domain *domain;
	struct vfe_dma_arena *arena;

	assert_int_equal(vfe_pci_domain_create(&domain, &e->err), 0);
	assert_int_equal(vfe_dma_arena_create(domain, 1, 0x1000, false, &arena, &e->err), -EINVAL);
	assert_int_equal(vfe_dma_arena_create(domain, 0, 0x1001, false, &arena, &e->err), -EINVAL);
	assert_int_equal(vfe_dma_arena_create(domain, 0, 0, false, &arena, &e->err), -EINVAL);
	assert_int_equal(vfe_pci_domain_attach(domain, &e->v.f.pci, &e->err), 0);
	e->v.f.dma_map_result = -ENOSPC;
	assert_int_equal(vfe_dma_arena_create(domain, 0, 0x1000, false, &arena, &e->err), -ENODEV);
	vfe_pci_domain_detach(domain, &e->v.f.pci);
	vfe_pci_domain_destroy(domain);
}

static void
test_arena_of_huge_pages_keeps_blocks_in_one(void **state)
{
	const uint64_t page = 2 << 20;
	struct env *e = *state;
	struct vfe_pci_domain *domain;
	struct vfe_dma_arena *arena;
	uint64_t ia, ib, ic, id;
	uint8_t *a, *b, *c, *d;

	assert_int_equal(vfe_pci_domain_create(&domain, &e->err), 0);
	assert_int_equal(vfe_pci_domain_attach(domain, &e->v.f.pci, &e->err), 0);
	assert_int_equal(
		vfe_dma_arena_create(domain, 0x100000, 3 * page + 4096, true, &arena, &e->err), 0);
	assert_true(kernel.huge);
	assert_int_equal(e->v.f.maps[0].size, 4 * page);
	a = vfe_dma_arena_alloc(arena, page - 64, 64, &ia);
	b = vfe_dma_arena_alloc(arena, 128, 64, &ib);
	c = vfe_dma_arena_alloc(arena, 64, 64, &ic);
	d = vfe_dma_arena_alloc(arena, page, 64, &id);
	assert_true(a != NULL && b != NULL && c != NULL && d != NULL);
	/* by the offset in the arena, wherever that is mapped */
	assert_int_equal(ia - 0x100000, 0);
	assert_int_equal(ib - 0x100000, page);
	assert_int_equal(ic - 0x100000, page - 64); /* just fits */
	assert_int_equal(id - 0x100000, 2 * page);
	assert_int_equal(d - a, 2 * page);
	vfe_dma_arena_free(arena, a);
	vfe_dma_arena_free(arena, c);
	/* one that is larger than a page may be anywhere */
	assert_null(vfe_dma_arena_alloc(arena, 2 * page, 64, &ia));
	vfe_dma_arena_free(arena, b);
	a = vfe_dma_arena_alloc(arena, page + 64, 64, &ia);
	assert_int_equal(ia - 0x100000, 0);
	vfe_dma_arena_destroy(arena);
	assert_int_equal(e->v.f.nr_maps, 0);
	vfe_pci_domain_detach(domain, &e->v.f.pci);
	vfe_pci_domain_destroy(domain);
}

static void
test_arena_without_huge_pages_names_the_remedy(void **state)
{
	struct env *e = *state;
	struct vfe_pci_domain *domain;
	struct vfe_dma_arena *arena;

	assert_int_equal(vfe_pci_domain_create(&domain, &e->err), 0);
	kernel.too_few = true;
	assert_int_equal(vfe_dma_arena_create(domain, 0, 4096, true, &arena, &e->err), -ENOMEM);
	kernel.too_few = false;
	assert_non_null(strstr(e->err.text, "vm.nr_hugepages"));
	vfe_pci_domain_destroy(domain);
}

/* --- our own device side, over a socket --- */

struct honest {
	struct vfu_function fn;
	struct vfe_vdev *vdev;
	struct vfe_signaller signaller;
	uint8_t config[12];
	unsigned int driver_oks;
	unsigned int enables;
	bool reset_pending;
};

static int
honest_read(void *ctx, uint64_t off, void *buf, uint32_t len)
{
	struct honest *h = ctx;

	/* a reset takes until the driver has asked for the first time */
	if (h->reset_pending && off == offsetof(struct vfe_wire_virtio_common, device_status)) {
		h->reset_pending = false;
		assert_int_equal(vfe_vdev_bar_read(h->vdev, off, buf, len), 0);
		vfe_vdev_reset_done(h->vdev);
		return 0;
	}
	return vfe_vdev_bar_read(h->vdev, off, buf, len);
}

static int
honest_write(void *ctx, uint64_t off, const void *buf, uint32_t len)
{
	struct honest *h = ctx;

	return vfe_vdev_bar_write(h->vdev, off, buf, len);
}

static int
on_features_ok(void *ctx, uint64_t features)
{
	(void)ctx;
	return (features & VFE_BIT(VFE_VIRTIO_F_VERSION_1)) != 0 ? 0 : -EINVAL;
}

static void
on_driver_ok(void *ctx)
{
	struct honest *h = ctx;

	h->driver_oks++;
}

static void
on_reset(void *ctx)
{
	struct honest *h = ctx;

	h->reset_pending = true;
}

static void
on_queue_enable(void *ctx, uint16_t qid)
{
	struct honest *h = ctx;

	assert_int_equal(qid, 1);
	h->enables++;
}

static void
on_queue_reset(void *ctx, uint16_t qid)
{
	struct honest *h = ctx;

	vfe_vdev_queue_reset_done(h->vdev, qid);
}

static void
on_queue_notify(void *ctx, uint16_t qid)
{
	(void)ctx;
	(void)qid;
}

static const struct vfe_vdev_ops honest_ops = {
	.features_ok = on_features_ok,
	.driver_ok = on_driver_ok,
	.reset = on_reset,
	.queue_enable = on_queue_enable,
	.queue_reset = on_queue_reset,
	.queue_notify = on_queue_notify,
	.queue_vector = on_queue_notify,
};

static void
honest_start(struct honest *h)
{
	struct vfe_vdev_cfg cfg = {
		.pci_device_id = VFE_PCI_DEVICE_VIRTIO_NET,
		.pci_class = 0x020000,
		.features = FEATURES,
		.nr_queues = 2,
		.num_queues = 2,
		.admin_index = VFE_VDEV_NO_ADMIN_QUEUE,
		.queue_size = 256,
		.nr_vectors = FN_IRQS,
		.config = h->config,
		.config_len = sizeof(h->config),
		.ops = &honest_ops,
		.ctx = h,
		.signaller = &h->signaller,
	};
	struct vfe_error err = {0};

	vfe_signaller_init(&h->signaller);
	if (vfe_vdev_create(&cfg, &h->vdev, &err) < 0)
		fail_msg("%s", err.text);
	vfu_function_prepare(&h->fn, "0000:af:00.2");
	h->fn.cfg.regions[0].size = vfe_vdev_bar_size(h->vdev);
	h->fn.bar0_read = honest_read;
	h->fn.bar0_write = honest_write;
	h->fn.bar0_ctx = h;
	assert_int_equal(vfe_vdev_config_read(h->vdev, 0, h->fn.config, sizeof(h->fn.config)), 0);
	vfu_function_start(&h->fn);
}

static void
test_bring_up_of_our_own_device_over_a_socket(void **state)
{
	struct honest h = {.config = {2, 0, 0, 0, 0, 1, 1}};
	struct vfe_pci_open_cfg open_cfg = {.vfio_user_path = h.fn.path};
	struct vfe_virtio_queue_cfg q = {
		.size = 128, .msix_vector = 1, .desc = 0x1000, .driver = 0x2000, .device = 0x3000};
	struct vfe_virtio_queue_info info;
	struct vfe_pci_doorbell db;
	struct vfe_virtio_dev vdev;
	struct vfe_error err = {0};
	struct vfe_pci_dev *pci;
	uint8_t mac[6];

	(void)state;
	honest_start(&h);
	if (vfe_pci_open(&open_cfg, &pci, &err) < 0 || vfe_virtio_init(&vdev, pci, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(vdev.num_queues, 2);
	assert_int_equal(vdev.device_features, FEATURES);
	assert_int_equal(vfe_virtio_reset(&vdev, vfe_deadline_in_ms(10000), NULL, &err), 0);
	assert_int_equal(
		vfe_virtio_status_add(&vdev, VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER, &err),
		0);
	assert_int_equal(vfe_virtio_features_set(&vdev, VFE_BIT(5), &err), -ENOTSUP);
	assert_int_equal(vfe_virtio_features_set(&vdev, FEATURES, &err), 0);
	assert_int_equal(vfe_virtio_config_read(&vdev, 0, mac, sizeof(mac), &err), 0);
	assert_memory_equal(mac, h.config, sizeof(mac));
	assert_int_equal(vfe_virtio_config_vector_set(&vdev, 0, &err), 0);
	if (vfe_virtio_queue_enable(&vdev, 1, &q, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(vfe_virtio_queue_info(&vdev, 1, &info, &err), 0);
	assert_int_equal(info.size, 128);
	assert_int_equal(info.enable, 1);
	assert_int_equal(vfe_virtio_doorbell_get(&vdev, 1, info.notify_off, &db, &err), 0);
	assert_int_equal(vfe_virtio_status_add(&vdev, VFE_VIRTIO_S_DRIVER_OK, &err), 0);
	assert_int_equal(vfe_virtio_queue_reset(&vdev, 1, vfe_deadline_in_ms(10000), &err), 0);
	vfe_pci_close(pci);
	vfu_function_fini(&h.fn);
	assert_int_equal(h.driver_oks, 1);
	assert_int_equal(h.enables, 1);
	vfe_vdev_destroy(h.vdev);
	vfe_signaller_fini(&h.signaller);
}

#define RAW(test)    cmocka_unit_test_setup_teardown(test, setup, teardown)
#define INITED(test) cmocka_unit_test_setup_teardown(test, setup_init, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		RAW(test_honest_function),
		RAW(test_functions_that_are_not_modern_virtio),
		RAW(test_lists_of_capabilities_that_loop_or_leave),
		RAW(test_each_field_of_each_capability),
		RAW(test_first_of_two_capabilities_counts),
		RAW(test_device_that_fell_off_the_bus),
		INITED(test_status_bits_add_up),
		INITED(test_reset_that_takes_a_while),
		INITED(test_reset_that_never_ends),
		INITED(test_reset_that_is_cancelled),
		INITED(test_reset_of_a_lost_device),
		INITED(test_features_are_written_and_read_back),
		INITED(test_features_that_the_device_refuses),
		INITED(test_configuration_reads_and_writes_at_its_edges),
		INITED(test_configuration_reads_each_field_at_its_width),
		INITED(test_generation_that_settles_and_one_that_does_not),
		INITED(test_isr_is_cleared_by_reading),
		INITED(test_queue_is_enabled_as_asked),
		INITED(test_queue_of_a_physical_device_is_told_bus_addresses),
		INITED(test_queues_that_cannot_be_enabled),
		INITED(test_queue_reset_waits_and_checks),
		RAW(test_common_configuration_without_queue_reset),
		INITED(test_configuration_vector_is_read_back),
		INITED(test_doorbell_inside_and_outside_the_structure),
		INITED(test_arena_gives_aligned_zeroed_disjoint_blocks),
		INITED(test_arena_that_the_device_does_not_get),
		INITED(test_arena_of_huge_pages_keeps_blocks_in_one),
		INITED(test_arena_without_huge_pages_names_the_remedy),
		cmocka_unit_test(test_bring_up_of_our_own_device_over_a_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
