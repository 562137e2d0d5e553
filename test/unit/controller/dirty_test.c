/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Dirty page tracking of VFs (class 65): geometry of maps, ranges, reports, and what a driver of
 * the PF can get wrong. The test plays the data path: it tells the watch what was written.
 */

#undef NDEBUG

#include "rig.h"

#include "dirty.h"

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum {
	DIRTY = VFE_ADMIN_CLASS_DIRTY,
	OK = VFE_ADMIN_S_OK,
	REFUSED = VFE_ADMIN_S_ERR | VFE_ADMIN_S_DNR,
	BAD_TRANSFER = VFE_ADMIN_S_DATA_TRANSFER | VFE_ADMIN_S_DNR,
	FAILED = VFE_ADMIN_S_INTERNAL | VFE_ADMIN_S_DNR,
	VF1 = 1,
	PAGE = 4096,
	MAP_AT = 0x40000, /* of a pushed map, in the PF's memory */

	PUSH_BITMAP = VFE_ADMIN_TRACK_PUSH_BITMAP,
	PUSH_BYTEMAP = VFE_ADMIN_TRACK_PUSH_BYTEMAP,
	PULL_BITMAP = VFE_ADMIN_TRACK_PULL_BITMAP,
	PULL_BYTEMAP = VFE_ADMIN_TRACK_PULL_BYTEMAP,
};

static struct vfe_wire_admin_sge
sge(uint64_t off, uint32_t len)
{
	return (struct vfe_wire_admin_sge){htole64(RIG_IOVA + off), htole32(len), 0xdeadbeef};
}

static uint8_t
start_sges(struct rig *rig, uint16_t mode, uint32_t page_size, uint64_t addr, uint64_t len,
	const struct vfe_wire_admin_sge *sges, size_t sge_bytes)
{
	uint8_t in[24 + 8 * 16];
	const struct vfe_wire_admin_track_start fixed = {
		htole16(VF1), htole16(mode), htole32(page_size), htole64(addr), htole64(len)};

	assert_true(sge_bytes <= 8 * 16);
	memcpy(in, &fixed, sizeof(fixed));
	if (sge_bytes > 0)
		memcpy(in + sizeof(fixed), sges, sge_bytes);
	return rig_admin(
		rig, DIRTY, VFE_ADMIN_DIRTY_START, in, sizeof(fixed) + sge_bytes, NULL, 0, 0, NULL);
}

/* A push mode gets one SGE of 4096 bytes at MAP_AT. */
static uint8_t
start(struct rig *rig, uint16_t mode, uint64_t addr, uint64_t len)
{
	const struct vfe_wire_admin_sge map = sge(MAP_AT, 4096);
	const bool push = mode == PUSH_BITMAP || mode == PUSH_BYTEMAP;

	return start_sges(rig, mode, PAGE, addr, len, &map, push ? sizeof(map) : 0);
}

static uint8_t
stop(struct rig *rig, uint64_t addr)
{
	const struct vfe_wire_admin_track_range in = {htole16(VF1), {1, 2, 3}, htole64(addr)};

	return rig_admin(rig, DIRTY, VFE_ADMIN_DIRTY_STOP, &in, sizeof(in), NULL, 0, 0, NULL);
}

static uint8_t
pending(struct rig *rig, uint64_t addr, uint64_t *ret)
{
	const struct vfe_wire_admin_track_range in = {htole16(VF1), {1, 2, 3}, htole64(addr)};
	const uint8_t *out;
	uint8_t status = rig_admin(rig, DIRTY, VFE_ADMIN_DIRTY_PENDING_BYTES, &in, sizeof(in), NULL,
		0, sizeof(*ret), &out);

	memcpy(ret, out, sizeof(*ret));
	*ret = le64toh(*ret);
	return status;
}

static uint8_t
report(struct rig *rig, uint64_t addr, uint64_t off, uint64_t len, size_t room, const uint8_t **out)
{
	const struct vfe_wire_admin_track_report in = {
		htole16(VF1), {1, 2, 3}, htole64(off), htole64(len), htole64(addr)};

	return rig_admin(rig, DIRTY, VFE_ADMIN_DIRTY_REPORT, &in, sizeof(in), NULL, 0, room, out);
}

/* The device writes. */
static void
write_to(struct rig *rig, uint64_t iova, uint64_t len)
{
	const struct vfe_vring_watch *watch = rig_port(rig_vf(rig, 0))->watch;

	assert_non_null(watch);
	watch->wrote(watch, iova, len);
}

static bool
tracked(struct rig *rig)
{
	return rig_port(rig_vf(rig, 0))->watch != NULL;
}

static size_t
described(struct function *vf)
{
	json_t *ranges = dirty_describe(vf);
	size_t n = json_array_size(ranges);

	json_decref(ranges);
	return n;
}

static void
pulled_bitmap_has_exact_bits_and_forgets_them(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;
	uint64_t n;

	rig_admin_up(rig, 0);
	assert_int_equal(start(rig, PULL_BITMAP, 0, 64 * PAGE + 1), OK);
	assert_int_equal(pending(rig, 0, &n), OK);
	assert_int_equal(n, 0);
	write_to(rig, 0, 1);
	write_to(rig, 7 * PAGE + 4095, 2);
	write_to(rig, 20 * PAGE, 4 * PAGE);
	assert_int_equal(pending(rig, 0, &n), OK);
	assert_int_equal(n, 3);
	write_to(rig, 64 * PAGE, 1);
	write_to(rig, 64 * PAGE + 1, 100); /* behind the range */
	write_to(rig, 65 * PAGE, UINT64_MAX - 65 * PAGE);
	assert_int_equal(pending(rig, 0, &n), OK);
	assert_int_equal(n, 9);
	assert_int_equal(report(rig, 0, 0, 9, 9, &out), OK);
	assert_memory_equal(out, "\x81\x01\xf0\0\0\0\0\0\x01", 9);
	assert_int_equal(report(rig, 0, 0, 9, 9, &out), OK);
	assert_memory_equal(out, "\0\0\0\0\0\0\0\0\0", 9);
	assert_int_equal(pending(rig, 0, &n), OK);
	assert_int_equal(n, 0);
	/* a part is forgotten only where it was reported */
	write_to(rig, 0, 65 * PAGE);
	assert_int_equal(report(rig, 0, 3, 2, 2, &out), OK);
	assert_memory_equal(out, "\xff\xff", 2);
	assert_int_equal(report(rig, 0, 0, 9, 20, &out), OK);
	assert_memory_equal(out, "\xff\xff\xff\0\0\xff\xff\xff\x01", 9);
	assert_int_equal(stop(rig, 0), OK);
	assert_false(tracked(rig));
}

static void
pulled_bytemap_has_a_byte_per_page(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;
	uint64_t n;

	rig_admin_up(rig, 0);
	assert_int_equal(start_sges(rig, PULL_BYTEMAP, 65536, 0x100000, 10 * 65536, NULL, 0), OK);
	write_to(rig, 0xfffff, 1);
	write_to(rig, 0xffff0, 0x10 + 65536 + 1);
	write_to(rig, 0x100000 + 9 * 65536 + 65535, 9);
	assert_int_equal(pending(rig, 0x100000, &n), OK);
	assert_int_equal(n, 10);
	assert_int_equal(report(rig, 0x100000, 0, 10, 10, &out), OK);
	assert_memory_equal(out, "\1\1\0\0\0\0\0\0\0\1", 10);
	assert_int_equal(report(rig, 0x100000, 0, 10, 10, &out), OK);
	assert_memory_equal(out, "\0\0\0\0\0\0\0\0\0\0", 10);
}

static void
pushed_maps_are_written_across_sges(void **state)
{
	struct rig *rig = *state;
	uint8_t *map = rig->pf_mem;
	struct vfe_wire_admin_sge sges[] = {
		sge(MAP_AT + 5, 2), sge(MAP_AT + 100, 1), sge(0, 0), sge(MAP_AT + 1001, 70)};

	rig_admin_up(rig, 0);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, sges, sizeof(sges)), OK);
	map[MAP_AT + 6] = 0x80; /* what is there stays */
	write_to(rig, 8 * PAGE, 9 * PAGE);
	write_to(rig, 39 * PAGE, PAGE);
	assert_int_equal(map[MAP_AT + 4], 0);
	assert_int_equal(map[MAP_AT + 5], 0);
	assert_int_equal(map[MAP_AT + 6], 0xff);
	assert_int_equal(map[MAP_AT + 7], 0);
	assert_int_equal(map[MAP_AT + 100], 1);
	assert_int_equal(map[MAP_AT + 1001], 0);
	assert_int_equal(map[MAP_AT + 1002], 0x80);
	assert_int_equal(stop(rig, 0), OK);

	memset(map + MAP_AT, 0, 2000);
	assert_int_equal(start_sges(rig, PUSH_BYTEMAP, PAGE, 0, 40 * PAGE, sges, sizeof(sges)), OK);
	write_to(rig, PAGE, 3 * PAGE);
	assert_memory_equal(map + MAP_AT + 5, "\0\1", 2);
	assert_int_equal(map[MAP_AT + 100], 1);
	assert_memory_equal(map + MAP_AT + 1001, "\1\0", 2);
	assert_int_equal(stop(rig, 12345), OK);
	assert_false(tracked(rig));
	assert_int_equal(stop(rig, 0), REFUSED);
}

static void
bad_sge_lists_are_refused(void **state)
{
	struct rig *rig = *state;
	const struct vfe_wire_admin_sge short_one = sge(MAP_AT, 4), outside = sge(RIG_MEM_SIZE, 5),
					over = sge(RIG_MEM_SIZE - 4, 5),
					wraps = sge(UINT64_MAX - RIG_IOVA - 1, 5);
	struct vfe_wire_admin_sge two[] = {sge(MAP_AT, 5), sge(RIG_MEM_SIZE + 4096, 5)};

	rig_admin_up(rig, 0);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, NULL, 0), BAD_TRANSFER);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, two, 15), BAD_TRANSFER);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, two, 17), BAD_TRANSFER);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, &short_one, 16), REFUSED);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, &outside, 16), REFUSED);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, &over, 16), REFUSED);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, &wraps, 16), REFUSED);
	/* enough, but the rest is nonsense */
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, two, 32), REFUSED);
	/* a bitmap would fit */
	assert_int_equal(start_sges(rig, PUSH_BYTEMAP, PAGE, 0, 40 * PAGE, two, 16), REFUSED);
	assert_false(tracked(rig));
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 40 * PAGE, two, 16), OK);
}

static void
bad_ranges_modes_and_pages_are_refused(void **state)
{
	static const struct {
		uint16_t mode;
		uint32_t page_size;
		uint64_t addr, len;
	} cases[] = {
		{0, PAGE, 0, PAGE},
		{5, PAGE, 0, PAGE},
		{0xffff, PAGE, 0, PAGE},
		{PULL_BITMAP, 0, 0, PAGE},
		{PULL_BITMAP, 2048, 0, PAGE},
		{PULL_BITMAP, 4097, 0, PAGE},
		{PULL_BITMAP, 0x80000000, 0, PAGE},
		{PULL_BITMAP, PAGE, 0, 0},
		{PULL_BITMAP, PAGE, 1, PAGE},
		{PULL_BITMAP, PAGE, 0ULL - PAGE, PAGE + 1},
		{PULL_BITMAP, PAGE, PAGE, UINT64_MAX},
		{PULL_BITMAP, PAGE, 0, UINT64_MAX}, /* a map of petabytes */
		{PULL_BITMAP, PAGE, 0, ((uint64_t)PAGE << 30) + 1},
		{PULL_BYTEMAP, PAGE, 0, ((uint64_t)PAGE << 28) + 1},
	};
	struct rig *rig = *state;
	uint64_t n;
	size_t i;

	rig_admin_up(rig, 0);
	for (i = 0; i < VFE_ARRAY_SIZE(cases); i++)
		assert_int_equal(start_sges(rig, cases[i].mode, cases[i].page_size, cases[i].addr,
					 cases[i].len, NULL, 0),
			REFUSED);
	assert_false(tracked(rig));

	/* up to the very end of the address space is fine */
	assert_int_equal(start(rig, PULL_BITMAP, 0ULL - PAGE, PAGE), OK);
	write_to(rig, UINT64_MAX, 1);
	assert_int_equal(pending(rig, 0ULL - PAGE, &n), OK);
	assert_int_equal(n, 1);
	/* the limit is of all ranges together */
	assert_int_equal(start(rig, PULL_BITMAP, 0, (uint64_t)PAGE << 30), REFUSED);
	assert_int_equal(start(rig, PULL_BITMAP, 0, ((uint64_t)PAGE << 30) - PAGE), OK);
	assert_int_equal(start(rig, PULL_BYTEMAP, 1ULL << 48, (uint64_t)PAGE << 28), OK);
	assert_int_equal(start(rig, PULL_BITMAP, 1ULL << 50, PAGE), REFUSED);
	assert_int_equal(start(rig, PULL_BYTEMAP, 1ULL << 50, PAGE), REFUSED);
}

static void
ranges_are_counted_named_and_do_not_overlap(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;
	uint64_t i, n;

	rig_admin_up(rig, 0);
	for (i = 0; i < DIRTY_MAX_RANGES; i++)
		assert_int_equal(
			start(rig, i % 2 ? PULL_BITMAP : PULL_BYTEMAP, i * 16 * PAGE, 8 * PAGE),
			OK);
	assert_int_equal(start(rig, PULL_BITMAP, 1000 * PAGE, PAGE), REFUSED);
	assert_int_equal(stop(rig, 999), REFUSED); /* which one? */
	assert_int_equal(stop(rig, 32 * PAGE), OK);
	assert_int_equal(start(rig, PULL_BITMAP, 16 * PAGE, 8 * PAGE), REFUSED);
	assert_int_equal(start(rig, PULL_BITMAP, 40 * PAGE, 9 * PAGE), REFUSED);
	assert_int_equal(start(rig, PULL_BITMAP, 20 * PAGE, PAGE), REFUSED);
	assert_int_equal(start(rig, PULL_BITMAP, 40 * PAGE, 8 * PAGE), OK);

	/* one write over many ranges */
	write_to(rig, 7 * PAGE, 42 * PAGE);
	assert_int_equal(report(rig, 0, 0, 8, 8, &out), OK);
	assert_memory_equal(out, "\0\0\0\0\0\0\0\1", 8);
	assert_int_equal(report(rig, 16 * PAGE, 0, 1, 1, &out), OK);
	assert_int_equal(out[0], 0xff);
	assert_int_equal(report(rig, 40 * PAGE, 0, 1, 1, &out), OK);
	assert_int_equal(out[0], 0xff);
	assert_int_equal(report(rig, 48 * PAGE, 0, 1, 1, &out), OK);
	assert_int_equal(out[0], 1);
	assert_int_equal(pending(rig, 64 * PAGE, &n), OK);
	assert_int_equal(n, 0);
	assert_int_equal(described(rig_vf(rig, 0)), DIRTY_MAX_RANGES);
	assert_int_equal(described(rig_vf(rig, 1)), 0);
}

static void
reports_stay_inside_their_map(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;
	uint64_t n;

	rig_admin_up(rig, 0);
	assert_int_equal(report(rig, 0, 0, 1, 1, &out), REFUSED);
	assert_int_equal(pending(rig, 0, &n), REFUSED);
	assert_int_equal(start(rig, PULL_BITMAP, 0, 64 * PAGE), OK);
	write_to(rig, 0, 64 * PAGE);
	assert_int_equal(report(rig, PAGE, 0, 8, 8, &out), REFUSED);
	assert_int_equal(report(rig, 0, 0, 9, 9, &out), REFUSED);
	assert_int_equal(report(rig, 0, 8, 1, 1, &out), REFUSED);
	assert_int_equal(report(rig, 0, UINT64_MAX, 1, 1, &out), REFUSED);
	assert_int_equal(report(rig, 0, UINT64_MAX - 7, 16, 16, &out), REFUSED);
	assert_int_equal(report(rig, 0, 0, 0, 8, &out), BAD_TRANSFER);
	assert_int_equal(report(rig, 0, 0, 8, 7, &out), BAD_TRANSFER);
	assert_int_equal(report(rig, 0, 0, UINT64_MAX, 8, &out), BAD_TRANSFER);
	/* none of these took anything */
	assert_int_equal(report(rig, 0, 0, 8, 8, &out), OK);
	assert_memory_equal(out, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
	assert_int_equal(stop(rig, 0), OK);
	assert_int_equal(start(rig, PUSH_BITMAP, 0, 64 * PAGE), OK);
	assert_int_equal(report(rig, 0, 0, 8, 8, &out), REFUSED);
	assert_int_equal(pending(rig, 0, &n), REFUSED);
}

static void
undelivered_report_loses_nothing(void **state)
{
	struct rig *rig = *state;
	uint8_t buf[8];

	rig_admin_up(rig, 0);
	assert_int_equal(start(rig, PULL_BITMAP, 0, 64 * PAGE), OK);
	write_to(rig, 3 * PAGE, PAGE);
	assert_int_equal(dirty_report(rig_vf(rig, 0), 0, 0, buf, sizeof(buf), NULL), 0);
	write_to(rig, 4 * PAGE, PAGE);
	dirty_unreport(rig_vf(rig, 0), 0, 0, buf, sizeof(buf));
	assert_int_equal(dirty_report(rig_vf(rig, 0), 0, 0, buf, sizeof(buf), NULL), 0);
	assert_memory_equal(buf, "\x18\0\0\0\0\0\0\0", 8);
}

static void
unmapped_map_fails_tracking_and_nothing_else(void **state)
{
	struct rig *rig = *state;
	const struct vfe_vfu_server_ops *ops = rig_server(rig_pf(rig))->cfg.ops;
	struct function *vf = rig_vf(rig, 0);
	struct vfe_wire_admin_sge there = sge(RIG_MEM_SIZE, 64);
	struct vfe_vfu_dma extra = rig->pf_dma;

	rig_admin_up(rig, 0);
	rig_bring_up(rig, vf);
	extra.iova = RIG_IOVA + RIG_MEM_SIZE;
	extra.size = 4096;
	extra.va = rig->mem + RIG_MEM_SIZE / 2; /* anywhere */
	assert_int_equal(ops->dma_map(rig_pf(rig), &extra), 0);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 64 * PAGE, &there, 16), OK);
	assert_int_equal(start(rig, PULL_BITMAP, 64 * PAGE, 64 * PAGE), OK);
	ops->dma_unmap(rig_pf(rig), &extra);
	write_to(rig, 0, 65 * PAGE);
	assert_int_equal(rig->mem[RIG_MEM_SIZE / 2], 0);
	assert_true(rig_port(vf)->queues[0].started);
	/* the other range goes on, the failed one says so once */
	assert_int_equal(stop(rig, 0), FAILED);
	assert_int_equal(stop(rig, 64 * PAGE), OK);
	assert_false(tracked(rig));

	/* a new attempt takes the place of a failed one */
	assert_int_equal(ops->dma_map(rig_pf(rig), &extra), 0);
	assert_int_equal(start_sges(rig, PUSH_BITMAP, PAGE, 0, 64 * PAGE, &there, 16), OK);
	ops->dma_unmap(rig_pf(rig), &extra);
	assert_false(tracked(rig));
	assert_int_equal(start(rig, PUSH_BITMAP, 0, 64 * PAGE), OK);
	write_to(rig, 0, 1);
	assert_int_equal(rig->pf_mem[MAP_AT], 1);
	assert_int_equal(stop(rig, 0), OK);
}

static void
shrunk_memory_fails_tracking(void **state)
{
	struct rig *rig = *state;

	rig_admin_up(rig, 0);
	assert_int_equal(start(rig, PUSH_BYTEMAP, 0, 64 * PAGE), OK);
	atomic_store(&rig->pf_dma.tripped, true);
	assert_int_equal(dirty_stop(rig_vf(rig, 0), 0, NULL), -EIO);
	assert_false(tracked(rig));
	atomic_store(&rig->pf_dma.tripped, false);
}

static void
tracking_survives_the_vf_and_dies_with_the_pf(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	const uint8_t *out;

	rig_admin_up(rig, 0);
	rig_bring_up(rig, vf);
	assert_int_equal(start(rig, PULL_BITMAP, 0, 8 * PAGE), OK);
	write_to(rig, 0, 1);
	wr(vf, COMMON(device_status), 0, 1);
	assert_true(tracked(rig));
	write_to(rig, PAGE, 1);
	assert_int_equal(report(rig, 0, 0, 1, 1, &out), OK);
	assert_int_equal(out[0], 3);
	wr(rig_pf(rig), COMMON(device_status), 0, 1);
	assert_false(tracked(rig));
	assert_int_equal(described(vf), 0);
}

static void
other_vf_is_not_tracked(void **state)
{
	struct rig *rig = *state;

	rig_admin_up(rig, 0);
	assert_int_equal(start(rig, PULL_BITMAP, 0, 8 * PAGE), OK);
	assert_int_equal(rig_port(rig_vf(rig, 1))->watches, 0);
}

static int
setup_coarse(void **state)
{
	return rig_setup_with(state, "\"dirty_coarse\": true,");
}

static void
coarse_marks_whole_bytes(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;

	rig_admin_up(rig, 0);
	assert_int_equal(start(rig, PULL_BITMAP, 0, 20 * PAGE), OK);
	write_to(rig, 9 * PAGE, 1);
	write_to(rig, 19 * PAGE, 1);
	assert_int_equal(report(rig, 0, 0, 3, 3, &out), OK);
	assert_memory_equal(out, "\0\xff\xff", 3);
	assert_int_equal(stop(rig, 0), OK);
	assert_int_equal(start(rig, PULL_BYTEMAP, 0, 4 * PAGE), OK);
	write_to(rig, 2 * PAGE, 1);
	assert_int_equal(report(rig, 0, 0, 4, 4, &out), OK);
	assert_memory_equal(out, "\0\0\1\0", 4);
}

static int
setup_two_modes(void **state)
{
	return rig_setup_with(state, "\"dirty_modes\": [\"push_bytemap\", \"pull_bitmap\"],");
}

static void
only_configured_modes_are_offered(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;

	rig_admin_up(rig, 0);
	assert_int_equal(vfe_vdev_features(rig_pf(rig)->vdev) >> VFE_ADMIN_F_DIRTY_PUSH_BITMAP, 6);
	assert_int_equal(
		rig_admin(rig, DIRTY, VFE_ADMIN_DIRTY_IDENTITY, NULL, 0, NULL, 0, 8, &out), OK);
	assert_memory_equal(out, "\x1e\0\0\0\x10\0\0\0", 8);
	assert_int_equal(start(rig, PUSH_BITMAP, 0, PAGE), REFUSED);
	assert_int_equal(start(rig, PULL_BYTEMAP, 0, PAGE), REFUSED);
	assert_int_equal(start(rig, PUSH_BYTEMAP, 0, PAGE), OK);
	assert_int_equal(start(rig, PULL_BITMAP, PAGE, PAGE), OK);
}

static int
setup_no_modes(void **state)
{
	return rig_setup_with(state, "\"dirty_modes\": [],");
}

static void
no_modes_no_features(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;

	rig_admin_up(rig, 0);
	assert_int_equal(vfe_vdev_features(rig_pf(rig)->vdev) >> VFE_ADMIN_F_DIRTY_PUSH_BITMAP, 0);
	assert_int_equal(
		rig_admin(rig, DIRTY, VFE_ADMIN_DIRTY_IDENTITY, NULL, 0, NULL, 0, 8, &out), OK);
	assert_memory_equal(out, "\0\0\0\0\0\0\0\0", 8);
	assert_int_equal(start(rig, PULL_BITMAP, 0, PAGE), REFUSED);
}

static int
setup_lossy(void **state)
{
	return rig_setup_with(state, "\"dirty_lose_pages\": 3,");
}

static void
planted_loss_hits_every_third_page(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;

	rig_admin_up(rig, 0);
	assert_int_equal(start(rig, PULL_BITMAP, 16 * PAGE, 16 * PAGE), OK);
	write_to(rig, 16 * PAGE, 16 * PAGE);
	assert_int_equal(report(rig, 16 * PAGE, 0, 2, 2, &out), OK);
	assert_memory_equal(out, "\xdb\xb6", 2); /* without 18, 21, 24, 27, 30 */
	assert_int_equal(stop(rig, 16 * PAGE), OK);
	assert_int_equal(start(rig, PULL_BYTEMAP, 5 * PAGE, 3 * PAGE), OK);
	write_to(rig, 5 * PAGE, 3 * PAGE);
	assert_int_equal(report(rig, 5 * PAGE, 0, 3, 3, &out), OK);
	assert_memory_equal(out, "\1\0\1", 3);
}

#define T(f)         cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
#define T_WITH(f, s) cmocka_unit_test_setup_teardown(f, s, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(pulled_bitmap_has_exact_bits_and_forgets_them),
		T(pulled_bytemap_has_a_byte_per_page),
		T(pushed_maps_are_written_across_sges),
		T(bad_sge_lists_are_refused),
		T(bad_ranges_modes_and_pages_are_refused),
		T(ranges_are_counted_named_and_do_not_overlap),
		T(reports_stay_inside_their_map),
		T(undelivered_report_loses_nothing),
		T(unmapped_map_fails_tracking_and_nothing_else),
		T(shrunk_memory_fails_tracking),
		T(tracking_survives_the_vf_and_dies_with_the_pf),
		T(other_vf_is_not_tracked),
		T_WITH(coarse_marks_whole_bytes, setup_coarse),
		T_WITH(only_configured_modes_are_offered, setup_two_modes),
		T_WITH(no_modes_no_features, setup_no_modes),
		T_WITH(planted_loss_hits_every_third_page, setup_lossy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
