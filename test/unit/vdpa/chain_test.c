/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Chains of descriptors: which pages a device has written, and guests that lie about it.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"

enum {
	PAGE = 4096,
	PAGES = 32,
	SIZE = 8,
	WRITE = VFE_VRING_DESC_F_WRITE,
	NEXT = VFE_VRING_DESC_F_NEXT,
	INDIRECT = VFE_VRING_DESC_F_INDIRECT,
	TABLE = 0x1000, /* an indirect one */
};

/* Guest memory in two pieces, [0, 16) and [16, 32) pages; the ring's own table is not in it. */
static struct rig {
	uint8_t *mem;
	struct vdpa_domain *domain;
	struct vdpa_member member;
	struct vdpa_table *table;
	struct vfe_wire_vring_desc desc[SIZE];
	struct vdpa_chains chains;
	uint64_t bits[1];
	struct vfe_dirty_log log;
	struct vfe_error err;
} rig;

static int
setup(void **state)
{
	int fd = memfd_create("chain", MFD_CLOEXEC);
	struct vdpa_region r[2] = {
		{.gpa = 0, .size = 16 * PAGE, .uva = 1ULL << 40, .fd = fd},
		{.gpa = 16 * PAGE, .size = 16 * PAGE, .uva = 1ULL << 41, .fd = fd},
	};

	(void)state;
	memset(&rig, 0, sizeof(rig));
	r[1].fd_offset = 16 * PAGE;
	assert_int_equal(ftruncate(fd, PAGES * PAGE), 0);
	rig.mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(rig.mem != MAP_FAILED);
	assert_int_equal(vdpa_table_create(r, 2, &rig.table, &rig.err), 0);
	assert_int_equal(vdpa_domain_get(NULL, &rig.domain, &rig.err), 0);
	vdpa_domain_join(rig.domain, &rig.member);
	assert_int_equal(vdpa_domain_apply(rig.domain, &rig.member, rig.table, &rig.err), 0);
	rig.chains = (struct vdpa_chains){
		.domain = rig.domain, .desc = rig.desc, .size = SIZE, .indirect = true};
	rig.log = (struct vfe_dirty_log){rig.bits, 1};
	close(fd);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	vdpa_domain_leave(rig.domain, &rig.member);
	vdpa_domain_put(rig.domain);
	vdpa_table_put(rig.table);
	munmap(rig.mem, PAGES * PAGE);
	return 0;
}

static struct vfe_wire_vring_desc
desc(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	return (struct vfe_wire_vring_desc){
		htole64(addr), htole32(len), htole16(flags), htole16(next)};
}

static void
table_set(unsigned int i, struct vfe_wire_vring_desc d)
{
	memcpy(rig.mem + TABLE + i * sizeof(d), &d, sizeof(d));
}

static void
marks(uint16_t head, uint64_t len, uint64_t pages)
{
	rig.bits[0] = 0;
	if (vdpa_chain_mark(&rig.chains, head, len, &rig.log, &rig.err) < 0)
		fail_msg("%s", rig.err.text);
	assert_int_equal(rig.bits[0], pages);
}

static void
lies(uint16_t head, const char *text)
{
	rig.err.text[0] = '\0';
	assert_int_equal(
		vdpa_chain_mark(&rig.chains, head, UINT64_MAX, &rig.log, &rig.err), -EBADMSG);
	if (strstr(rig.err.text, text) == NULL)
		fail_msg("\"%s\"", rig.err.text);
}

#define BIT(n) (1ULL << (n))

static void
only_what_was_written_is_marked(void **state)
{
	(void)state;
	rig.desc[3] = desc(5 * PAGE, PAGE, NEXT, 6); /* the device reads it */
	rig.desc[6] = desc(8 * PAGE + 100, PAGE, WRITE | NEXT, 1);
	rig.desc[1] = desc(11 * PAGE, 2 * PAGE, WRITE, 0);
	marks(3, 0, 0);
	marks(3, 1, BIT(8));
	marks(3, PAGE - 100, BIT(8));
	marks(3, PAGE - 99, BIT(8) | BIT(9));
	marks(3, PAGE, BIT(8) | BIT(9));
	marks(3, PAGE + 1, BIT(8) | BIT(9) | BIT(11));
	marks(3, 2 * PAGE + 1, BIT(8) | BIT(9) | BIT(11) | BIT(12));
	/* a device that says too much has no more than the buffers */
	marks(3, UINT64_MAX, BIT(8) | BIT(9) | BIT(11) | BIT(12));
}

static void
indirect_tables_are_read(void **state)
{
	(void)state;
	rig.desc[2] = desc(TABLE + 0, 3 * 16, INDIRECT, 0);
	table_set(0, desc(4 * PAGE, 16, NEXT, 2));
	table_set(2, desc(15 * PAGE + 8, PAGE, WRITE | NEXT, 1)); /* across both pieces */
	table_set(1, desc(20 * PAGE, 1, WRITE, 0));
	marks(2, UINT64_MAX, BIT(15) | BIT(16) | BIT(20));
	marks(2, PAGE, BIT(15) | BIT(16));
	/* behind a part that is direct */
	rig.desc[0] = desc(9 * PAGE, 16, WRITE | NEXT, 2);
	marks(0, UINT64_MAX, BIT(9) | BIT(15) | BIT(16) | BIT(20));
	/* it need not be aligned, or in one piece */
	memcpy(rig.mem + 16 * PAGE - 16, rig.mem + TABLE, 48);
	rig.desc[2] = desc(16 * PAGE - 16, 3 * 16, INDIRECT, 0);
	marks(2, UINT64_MAX, BIT(15) | BIT(16) | BIT(20));
	memmove(rig.mem + TABLE + 5, rig.mem + TABLE, 48);
	rig.desc[2] = desc(TABLE + 5, 3 * 16, INDIRECT, 0);
	marks(2, UINT64_MAX, BIT(15) | BIT(16) | BIT(20));
}

static void
chains_that_do_not_end_are_refused(void **state)
{
	(void)state;
	rig.desc[0] = desc(PAGE, 0, WRITE | NEXT, 1);
	rig.desc[1] = desc(PAGE, 0, WRITE | NEXT, 0);
	lies(0, "a loop in a table of 8 descriptors");
	rig.desc[1] = desc(PAGE, 1, WRITE | NEXT, SIZE);
	lies(0, "descriptor 8 of a table of 8");
	lies(0xffff, "descriptor 65535 of a table of 8");
	rig.desc[0] = desc(TABLE, 2 * 16, INDIRECT, 0);
	table_set(0, desc(PAGE, 1, WRITE | NEXT, 0));
	lies(0, "a loop in a table of 2 descriptors");
	table_set(0, desc(PAGE, 1, WRITE | NEXT, 2));
	lies(0, "descriptor 2 of a table of 2");
}

static void
tables_that_are_none_are_refused(void **state)
{
	static const uint32_t sizes[] = {
		0, 15, 17, (VFE_VIRTIO_QUEUE_MAX_SIZE + 1) * 16, UINT32_MAX};
	unsigned int i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(sizes); i++) {
		rig.desc[0] = desc(TABLE, sizes[i], INDIRECT, 0);
		lies(0, "an indirect table of ");
	}
	rig.desc[0] = desc(TABLE, 16, INDIRECT | NEXT, 1);
	lies(0, "with a descriptor behind it");
	rig.desc[0] = desc(TABLE, 16, INDIRECT, 0);
	table_set(0, desc(TABLE, 16, INDIRECT, 0));
	lies(0, "an indirect table at 0x1000 inside another one");
	rig.desc[0] = desc(PAGES * PAGE, 16, INDIRECT, 0);
	lies(0, "descriptor 0 of the indirect table at 0x20000 is not in guest memory");
	rig.desc[0] = desc(UINT64_MAX - 7, 32, INDIRECT, 0);
	lies(0, "is not in guest memory");
	rig.chains.indirect = false;
	rig.desc[0] = desc(TABLE, 16, INDIRECT, 0);
	lies(0, "was not negotiated");
}

static void
buffers_outside_of_memory_are_refused(void **state)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = {
		{PAGES * PAGE, 1},
		{PAGES * PAGE - 1, 2},
		{0, PAGES * PAGE + 1},
		{UINT64_MAX, 1},
		{UINT64_MAX, UINT32_MAX},
		{PAGE, UINT32_MAX},
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		rig.desc[0] = desc(3 * PAGE, 1, WRITE | NEXT, 1);
		rig.desc[1] = desc(bad[i].addr, bad[i].len, WRITE, 0);
		rig.bits[0] = 0;
		lies(0, "is not in guest memory");
		assert_int_equal(rig.bits[0], BIT(3)); /* what came before counts */
	}
	/* what the device has not written does not matter */
	marks(0, 1, BIT(3));
	rig.desc[1] = desc(0, PAGES * PAGE, WRITE, 0);
	marks(0, UINT64_MAX, UINT32_MAX);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(only_what_was_written_is_marked),
		T(indirect_tables_are_read),
		T(chains_that_do_not_end_are_refused),
		T(tables_that_are_none_are_refused),
		T(buffers_outside_of_memory_are_refused),
	};

	return cmocka_run_group_tests_name("vdpa_chain", tests, NULL, NULL);
}
