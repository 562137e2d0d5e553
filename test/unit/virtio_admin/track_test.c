/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The commands of dirty page tracking: bytes on the wire, and parameters that make no sense.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "admin_device.h"

static int
setup(void **state)
{
	struct ad_env *e = ad_env_create(AD_FEATURES, AD_ARENA_SIZE);

	*state = e;
	if (ad_queue_create(e, 1, AD_TIMEOUT_MS) < 0)
		fail_msg("%s", e->err.text);
	return 0;
}

static int
teardown(void **state)
{
	ad_env_destroy(*state);
	return 0;
}

static const struct vfe_wire_admin_track_start pull = {
	.vdev_id = 999, /* not ours to say */
	.mode = VFE_ADMIN_TRACK_PULL_BITMAP,
	.page_size = 4096,
	.range_addr = 0x100000,
	.range_length = 0x40000000,
};

static void
start_carries_range_and_sges_in_one_descriptor(void **state)
{
	const struct vfe_wire_admin_sge sges[2] = {
		{.addr = 0x1122334455667000, .len = 0x1000, .reserved = 7}, {.addr = 0, .len = 1}};
	struct vfe_wire_admin_track_start range = pull, got;
	struct vfe_wire_admin_sge sge;
	struct ad_env *e = *state;
	struct ad_chain c;

	range.mode = VFE_ADMIN_TRACK_PUSH_BYTEMAP;
	range.range_length = 0x1001000; /* 4097 pages */
	assert_int_equal(
		vfe_admin_track_start(e->admin, 2, &range, sges, 2, ad_done, &e->results[0]), 0);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.n, 3);
	assert_int_equal(c.seg[0].va[0], 65);
	assert_int_equal(c.seg[0].va[1], 1);
	assert_int_equal(c.seg[1].len, 24 + 2 * 16);
	memcpy(&got, c.seg[1].va, sizeof(got));
	assert_int_equal(le16toh(got.vdev_id), 3);
	assert_int_equal(le16toh(got.mode), 2);
	assert_int_equal(le32toh(got.page_size), 4096);
	assert_int_equal(le64toh(got.range_addr), 0x100000);
	assert_int_equal(le64toh(got.range_length), 0x1001000);
	memcpy(&sge, c.seg[1].va + 24, sizeof(sge));
	assert_int_equal(le64toh(sge.addr), 0x1122334455667000);
	assert_int_equal(le32toh(sge.len), 0x1000);
	assert_int_equal(sge.reserved, 0);
	memcpy(&sge, c.seg[1].va + 40, sizeof(sge));
	assert_int_equal(sge.addr, 0);
	assert_int_equal(le32toh(sge.len), 1);
	assert_true(c.seg[2].write);
	assert_int_equal(c.seg[2].len, 1);
	ad_answer(e, &c, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, 0);
}

static void
pull_modes_have_no_sges(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	assert_int_equal(
		vfe_admin_track_start(e->admin, 0, &pull, NULL, 0, ad_done, &e->results[0]), 0);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.seg[1].len, 24);
	assert_int_equal(c.seg[1].va[0], 1);
	ad_answer(e, &c, VFE_ADMIN_S_DNR | VFE_ADMIN_S_ERR, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -EIO);
	assert_non_null(strstr(e->results[0].err.text, "65/1 (start tracking)"));
}

static void
stop_pending_and_report(void **state)
{
	const uint64_t pending = htole64(8192);
	struct vfe_wire_admin_track_report report;
	struct vfe_wire_admin_track_range range;
	struct ad_env *e = *state;
	uint8_t map[8192];
	struct ad_chain c;

	assert_int_equal(vfe_admin_track_stop(e->admin, 4, 0xabc000, ad_done, &e->results[0]), 0);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.n, 3);
	assert_int_equal(c.seg[0].va[1], 2);
	assert_int_equal(c.seg[1].len, 16);
	memcpy(&range, c.seg[1].va, sizeof(range));
	assert_int_equal(le16toh(range.vdev_id), 5);
	assert_int_equal(le64toh(range.range_addr), 0xabc000);
	ad_answer(e, &c, 0, NULL, 0);

	assert_int_equal(
		vfe_admin_track_pending(e->admin, 4, 0xabc000, ad_done, &e->results[1]), 0);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.n, 4);
	assert_int_equal(c.seg[0].va[1], 3);
	assert_int_equal(c.seg[2].len, 8);
	ad_answer(e, &c, 0, &pending, sizeof(pending));

	assert_int_equal(
		vfe_admin_track_report(e->admin, 4, 0xabc000, 4096, 8192, ad_done, &e->results[2]),
		0);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.seg[0].va[1], 4);
	assert_int_equal(c.seg[1].len, 32);
	memcpy(&report, c.seg[1].va, sizeof(report));
	assert_int_equal(le16toh(report.vdev_id), 5);
	assert_int_equal(le64toh(report.offset), 4096);
	assert_int_equal(le64toh(report.length), 8192);
	assert_int_equal(le64toh(report.range_addr), 0xabc000);
	assert_int_equal(c.seg[2].len, 8192);
	memset(map, 0x81, sizeof(map));
	ad_answer(e, &c, 0, map, sizeof(map));
	ad_interrupt(e);
	ad_wait(e, 2);
	assert_memory_equal(e->results[1].out, &pending, 8);
	assert_int_equal(e->results[2].out_len, 8192);
	assert_int_equal(e->results[2].out[0], 0x81);
}

static int
start(struct ad_env *e, struct vfe_wire_admin_track_start range, uint32_t sge_len)
{
	const struct vfe_wire_admin_sge sge = {.addr = 4096, .len = sge_len};

	return vfe_admin_track_start(
		e->admin, 0, &range, &sge, sge_len != 0 ? 1 : 0, ad_done, &e->results[0]);
}

static void
parameters_that_make_no_sense(void **state)
{
	struct vfe_wire_admin_track_start r = pull;
	struct ad_env *e = *state;

	assert_int_equal(start(e, pull, 4096), -EINVAL); /* pull with SGE */
	r.mode = VFE_ADMIN_TRACK_PUSH_BITMAP;
	assert_int_equal(start(e, r, 0), -EINVAL);               /* push without */
	assert_int_equal(start(e, r, 0x40000 / 8 - 1), -EINVAL); /* too short for the map */
	r.mode = 0;
	assert_int_equal(start(e, r, 0), -EINVAL);
	r.mode = 5;
	assert_int_equal(start(e, r, 0), -EINVAL);
	r = pull;
	r.page_size = 4095;
	assert_int_equal(start(e, r, 0), -EINVAL);
	r = pull;
	r.range_length = 0;
	assert_int_equal(start(e, r, 0), -EINVAL);
	r.range_length = 4097;
	assert_int_equal(start(e, r, 0), -EINVAL);
	r = pull;
	r.range_addr = UINT64_MAX - 4095;
	r.range_length = 8192;
	assert_int_equal(start(e, r, 0), -EINVAL);
	assert_int_equal(
		vfe_admin_track_start(e->admin, 65535, &pull, NULL, 0, ad_done, NULL), -EINVAL);
	assert_int_equal(vfe_admin_track_stop(e->admin, 65535, 0, ad_done, NULL), -EINVAL);
	assert_int_equal(vfe_admin_track_report(e->admin, 0, 0, 0, 0, ad_done, NULL), -EINVAL);
	assert_int_equal(
		vfe_admin_track_report(e->admin, 0, 0, UINT64_MAX, 2, ad_done, NULL), -EINVAL);
	assert_int_equal(
		vfe_admin_track_report(e->admin, 0, 0, 0, 1ULL << 40, ad_done, NULL), -EINVAL);
	assert_int_equal(e->v.kicks[AD_QUEUE], 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(start_carries_range_and_sges_in_one_descriptor),
		TEST(pull_modes_have_no_sges),
		TEST(stop_pending_and_report),
		TEST(parameters_that_make_no_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
