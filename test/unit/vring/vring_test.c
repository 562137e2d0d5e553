/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Unit tests of lib/vring: honest and hostile drivers.
 */

#undef NDEBUG
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_driver.h"
#include "vfe_vring_burst.h"

enum {
	N = 8,
	INDIRECT = 1 << VFE_VIRTIO_F_RING_INDIRECT_DESC,
	DESC_W = VFE_VRING_DESC_F_WRITE,
	DESC_NEXT = VFE_VRING_DESC_F_NEXT,
	DESC_IND = VFE_VRING_DESC_F_INDIRECT,
};

static struct fake_mem mem;
static struct fake_ring drv;
static struct vfe_vring vr;
static struct iovec iov[64];
static struct vfe_chain chain;
static uint8_t *buf; /* 64 KiB of guest memory */

static void
begin(uint16_t size, bool event_idx, uint64_t features)
{
	struct vfe_vring_cfg cfg;

	fake_mem_init(&mem, 4 << 20);
	fake_ring_init(&drv, &mem, size, event_idx);
	buf = fake_mem_alloc(&mem, 65536, 64);
	cfg = fake_ring_cfg(&drv, features);
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), 0);
	chain = (struct vfe_chain){.iov = iov, .max_iov = 64};
}

static void
end(void)
{
	vfe_vring_stop(&vr);
	fake_ring_fini(&drv);
	fake_mem_fini(&mem);
}

static void
restart_at(uint16_t idx)
{
	struct vfe_vring_cfg cfg = fake_ring_cfg(&drv, 0);

	cfg.last_avail_idx = cfg.last_used_idx = idx;
	drv.avail_idx = drv.shown = drv.used_idx = idx;
	drv.avail->idx = drv.used->idx = idx;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), 0);
}

/* The next pop breaks the ring, the text has @why, and the ring stays broken. */
static void
expect_broken(const char *why)
{
	assert_int_equal(vfe_vring_pop(&vr, &chain), -EPROTO);
	assert_true(vr.broken);
	assert_non_null(strstr(vr.error.text, why));
	assert_int_equal(vr.stats.bad, 1);
	assert_int_equal(vfe_vring_pop(&vr, &chain), -EPROTO);
	assert_int_equal(vfe_vring_avail(&vr), -EPROTO);
	assert_false(vfe_vring_set_kick(&vr, true));
	vfe_vring_push(&vr, 0, 0);
	vfe_vring_publish(&vr);
	assert_int_equal(drv.used->idx, 0);
}

/* A ring that has this one descriptor at its head. */
static void
one_desc(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	drv.desc[0] = (struct vfe_wire_vring_desc){addr, len, flags, next};
	fake_ring_put(&drv, 0);
	fake_ring_show(&drv);
}

static void
iova_map_rejects_bad_regions(void **state)
{
	static uint8_t m[16];
	const struct vfe_iova_region overlap[] = {{0x2000, 0x1000, m, 3}, {0x1000, 0x1001, m, 3}};
	const struct vfe_iova_region empty = {0x1000, 0, m, 3};
	const struct vfe_iova_region wrap = {UINT64_MAX - 0xfff, 0x1001, m, 3};
	const struct vfe_iova_region last = {UINT64_MAX - 0xfff, 0x1000, m, 3};
	struct vfe_iova_map *map = NULL;

	(void)state;
	assert_int_equal(vfe_iova_map_create(overlap, 2, &map, NULL), -EEXIST);
	assert_int_equal(vfe_iova_map_create(&empty, 1, &map, NULL), -EINVAL);
	assert_int_equal(vfe_iova_map_create(&wrap, 1, &map, NULL), -EINVAL);
	assert_null(map);
	assert_int_equal(vfe_iova_map_create(&last, 1, &map, NULL), 0);
	assert_non_null(vfe_iova_map_find(map, UINT64_MAX));
	assert_null(vfe_iova_map_find(map, UINT64_MAX - 0x1000));
	vfe_iova_map_free(map);
	assert_int_equal(vfe_iova_map_create(NULL, 0, &map, NULL), 0);
	assert_null(vfe_iova_map_find(map, 0));
	vfe_iova_map_free(map);
	vfe_iova_map_free(NULL);
}

static void
iova_map_translates_within_one_region_only(void **state)
{
	static uint8_t a[0x1000], b[0x1000];
	const struct vfe_iova_region regions[] = {
		{0x5000, 0x1000, b, VFE_IOVA_READ},
		{0x1000, 0x1000, a, VFE_IOVA_READ | VFE_IOVA_WRITE},
	};
	struct vfe_iova_map *map;
	uint32_t hint = 0;

	(void)state;
	assert_int_equal(vfe_iova_map_create(regions, 2, &map, NULL), 0);
	assert_ptr_equal(vfe_iova_translate(map, &hint, 0x1000, 0x1000, 3), a);
	assert_ptr_equal(vfe_iova_translate(map, &hint, 0x5fff, 1, VFE_IOVA_READ), b + 0xfff);
	assert_int_equal(hint, 1);
	assert_ptr_equal(vfe_iova_translate(map, &hint, 0x1fff, 1, 3), a + 0xfff);
	assert_null(vfe_iova_translate(map, &hint, 0x5000, 1, VFE_IOVA_WRITE));
	assert_null(vfe_iova_translate(map, &hint, 0xfff, 2, 1));
	assert_null(vfe_iova_translate(map, &hint, 0x1fff, 2, 1));
	assert_null(vfe_iova_translate(map, &hint, 0x2000, 1, 1));
	assert_null(vfe_iova_translate(map, &hint, 0x1001, UINT64_MAX, 1));
	assert_null(vfe_iova_translate(NULL, &hint, 0x1000, 1, 1));
	hint = 77;
	assert_ptr_equal(vfe_iova_translate(map, &hint, 0x5000, 1, 1), b);
	vfe_iova_map_free(map);
}

static void
start_rejects_bad_configurations(void **state)
{
	struct vfe_vring_cfg good, cfg;
	struct vfe_error err;
	const uint16_t sizes[] = {0, 3, 100, 32769, 65535};
	size_t i;

	(void)state;
	begin(N, false, 0);
	good = fake_ring_cfg(&drv, 0);
	for (i = 0; i < VFE_ARRAY_SIZE(sizes); i++) {
		cfg = good;
		cfg.size = sizes[i];
		assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, &err), -EINVAL);
	}
	cfg = good, cfg.desc += 8;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, &err), -EINVAL);
	cfg = good, cfg.driver += 1;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, &err), -EINVAL);
	cfg = good, cfg.device += 2;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, &err), -EINVAL);
	cfg = good, cfg.desc = FAKE_IOVA + mem.size - 16 * N + 16;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, &err), -EFAULT);
	cfg = good, cfg.driver = FAKE_IOVA - 2;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, &err), -EFAULT);
	cfg = good, cfg.device = UINT64_MAX - 3;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, &err), -EFAULT);
	assert_non_null(strstr(err.text, "used ring"));
	assert_int_equal(vfe_vring_start(&vr, &good, NULL, &err), -EFAULT);
	assert_int_equal(vfe_vring_pop(&vr, &chain), -EPROTO);
	end();
}

static void
start_needs_write_access_for_the_used_ring(void **state)
{
	struct vfe_iova_region region;
	struct vfe_iova_map *map;
	struct vfe_vring_cfg cfg;
	struct vfe_error err;

	(void)state;
	begin(N, false, 0);
	region = mem.map->regions[0];
	region.prot = VFE_IOVA_READ;
	assert_int_equal(vfe_iova_map_create(&region, 1, &map, NULL), 0);
	cfg = fake_ring_cfg(&drv, 0);
	assert_int_equal(vfe_vring_start(&vr, &cfg, map, &err), -EFAULT);
	assert_non_null(strstr(err.text, "used ring"));
	vfe_iova_map_free(map);
	end();
}

/* Each part may touch the end of the region, with the event field only when it is negotiated. */
static void
ring_may_touch_the_end_of_its_region(void **state)
{
	struct vfe_vring_cfg good, cfg;
	const uint64_t event = VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX);
	uint64_t behind;

	(void)state;
	begin(N, false, 0);
	behind = FAKE_IOVA + mem.size;
	good = fake_ring_cfg(&drv, 0);
	cfg = good, cfg.desc = behind - 16 * N;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), 0);
	cfg = good, cfg.driver = behind - (4 + 2 * N);
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), 0);
	assert_int_equal(vfe_vring_avail(&vr), 0);
	cfg.features = event;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), -EFAULT);
	cfg = good, cfg.device = behind - (4 + 8 * N);
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), 0);
	vfe_vring_push(&vr, 0, 0);
	vfe_vring_publish(&vr);
	cfg.features = event;
	assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), -EFAULT);
	end();
}

static void
chain_is_split_into_read_and_write_parts(void **state)
{
	const struct fake_seg segs[] = {
		{NULL, 12, false}, {NULL, 100, false}, {NULL, 7, true}, {NULL, 9, true}};
	struct fake_seg s[4];
	uint32_t len;
	int i, head, form;

	(void)state;
	begin(N, false, INDIRECT);
	for (form = 0; form < 2; form++) {
		memcpy(s, segs, sizeof(s));
		for (i = 0; i < 4; i++)
			s[i].va = buf + 1000 * i;
		head = form == 0 ? fake_ring_add(&drv, s, 4) : fake_ring_add_indirect(&drv, s, 4);
		assert_int_equal(vfe_vring_pop(&vr, &chain), 0);
		fake_ring_show(&drv);
		assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
		assert_int_equal(chain.head, head);
		assert_int_equal(chain.nr_read, 2);
		assert_int_equal(chain.nr_write, 2);
		assert_int_equal(chain.read_len, 112);
		assert_int_equal(chain.write_len, 16);
		for (i = 0; i < 4; i++) {
			assert_ptr_equal(iov[i].iov_base, buf + 1000 * i);
			assert_int_equal(iov[i].iov_len, segs[i].len);
		}
		vfe_vring_push(&vr, chain.head, 16);
		assert_int_equal(fake_ring_get(&drv, &len), -1);
		vfe_vring_publish(&vr);
		assert_int_equal(fake_ring_get(&drv, &len), head);
		assert_int_equal(len, 16);
		assert_int_equal(vfe_vring_pop(&vr, &chain), 0);
	}
	assert_int_equal(vr.stats.chains, 2);
	assert_int_equal(vr.stats.used, 2);
	end();
}

/* Normal descriptors, then an indirect one (2.7.5.3.2); its WRITE flag is to be ignored. */
static void
indirect_table_may_follow_descriptors(void **state)
{
	struct vfe_wire_vring_desc *table;

	(void)state;
	begin(N, false, INDIRECT);
	/* tables need no alignment */
	table = (void *)((uint8_t *)fake_mem_alloc(&mem, 64, 16) + 1);
	const struct vfe_wire_vring_desc body[2] = {
		{fake_mem_iova(&mem, buf) + 64, 20, DESC_NEXT, 1},
		{fake_mem_iova(&mem, buf) + 128, 30, DESC_W, 77},
	};
	memcpy(table, body, sizeof(body));
	drv.desc[5] = (struct vfe_wire_vring_desc){
		fake_mem_iova(&mem, table), 32, DESC_IND | DESC_W, 9999};
	one_desc(fake_mem_iova(&mem, buf), 10, DESC_NEXT, 5);
	assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
	assert_int_equal(chain.read_len, 30);
	assert_int_equal(chain.write_len, 30);
	assert_int_equal(chain.nr_read, 2);
	end();
}

static void
buffer_across_regions_takes_two_parts(void **state)
{
	static uint8_t second[0x1000];
	struct vfe_iova_region regions[2];
	struct vfe_iova_map *map;
	uint64_t edge;

	(void)state;
	begin(N, false, 0);
	edge = FAKE_IOVA + mem.size;
	regions[0] = mem.map->regions[0];
	regions[1] = (struct vfe_iova_region){edge, sizeof(second), second, VFE_IOVA_READ};
	assert_int_equal(vfe_iova_map_create(regions, 2, &map, NULL), 0);
	assert_int_equal(vfe_vring_set_map(&vr, map, NULL), 0);
	one_desc(edge - 10, 110, 0, 0);
	assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
	assert_int_equal(chain.nr_read, 2);
	assert_ptr_equal(iov[0].iov_base, mem.va + mem.size - 10);
	assert_int_equal(iov[0].iov_len, 10);
	assert_ptr_equal(iov[1].iov_base, second);
	assert_int_equal(iov[1].iov_len, 100);

	/* the second region is not writable */
	one_desc(edge - 10, 110, DESC_W, 0);
	expect_broken("for writing");
	vfe_iova_map_free(map);
	end();
}

/* What is wrong with a chain, one way each. */
static const struct hostile {
	const char *name;
	const char *why;
	uint64_t features;
	struct vfe_wire_vring_desc desc[3]; /* addr is an offset into buf unless absolute is set */
	struct vfe_wire_vring_desc table[2];
	bool absolute;
	uint16_t head;
} hostiles[] = {
	{.name = "self loop", .why = "loop", .desc = {{0, 1, DESC_NEXT, 0}}},
	{.name = "loop of two",
		.why = "loop",
		.desc = {{0, 1, DESC_NEXT, 1}, {0, 1, DESC_NEXT, 0}}},
	{.name = "next out of range", .why = "next descriptor 8", .desc = {{0, 1, DESC_NEXT, N}}},
	{.name = "next far out",
		.why = "next descriptor 65535",
		.desc = {{0, 1, DESC_NEXT, 65535}}},
	{.name = "head out of range", .why = "head 8", .head = N},
	{.name = "head far out", .why = "head 65535", .head = 65535},
	{.name = "address 0",
		.why = "not in the device's memory",
		.absolute = true,
		.desc = {{0, 1, 0, 0}}},
	{.name = "address behind",
		.why = "not in the device's memory",
		.absolute = true,
		.desc = {{FAKE_IOVA + (4 << 20), 1, 0, 0}}},
	{.name = "runs out of the region",
		.why = "not in the device's memory",
		.absolute = true,
		.desc = {{FAKE_IOVA + (4 << 20) - 1, 2, 0, 0}}},
	{.name = "wraps",
		.why = "not in the device's memory",
		.absolute = true,
		.desc = {{UINT64_MAX, 2, 0, 0}}},
	{.name = "huge", .why = "not in the device's memory", .desc = {{0, UINT32_MAX, 0, 0}}},
	{.name = "empty", .why = "empty buffer", .desc = {{0, 0, 0, 0}}},
	{.name = "empty at a bad address",
		.why = "empty buffer",
		.absolute = true,
		.desc = {{1, 0, DESC_W, 0}}},
	{.name = "readable after writable",
		.why = "readable descriptor after",
		.desc = {{0, 1, DESC_NEXT | DESC_W, 1}, {0, 1, 0, 0}}},
	{.name = "indirect not negotiated",
		.why = "without INDIRECT_DESC",
		.desc = {{0, 16, DESC_IND, 0}}},
	{.name = "indirect with next",
		.why = "both INDIRECT and NEXT",
		.features = INDIRECT,
		.desc = {{0, 16, DESC_IND | DESC_NEXT, 1}, {0, 1, 0, 0}}},
	{.name = "indirect in indirect",
		.why = "inside the indirect table",
		.features = INDIRECT,
		.desc = {{32768, 32, DESC_IND, 0}},
		.table = {{0, 16, DESC_IND, 0}}},
	{.name = "empty indirect table",
		.why = "indirect table of 0",
		.features = INDIRECT,
		.desc = {{0, 0, DESC_IND, 0}}},
	{.name = "odd indirect table",
		.why = "indirect table of 17",
		.features = INDIRECT,
		.desc = {{0, 17, DESC_IND, 0}}},
	{.name = "large indirect table",
		.why = "indirect table of 524304",
		.features = INDIRECT,
		.desc = {{0, 16 * 32769, DESC_IND, 0}}},
	{.name = "indirect table outside",
		.why = "indirect table at 0x10 is not",
		.features = INDIRECT,
		.absolute = true,
		.desc = {{16, 16, DESC_IND, 0}}},
	{.name = "indirect table wraps",
		.why = "is not in the device's memory",
		.features = INDIRECT,
		.absolute = true,
		.desc = {{UINT64_MAX - 7, 32, DESC_IND, 0}}},
	{.name = "indirect loop",
		.why = "loop",
		.features = INDIRECT,
		.desc = {{32768, 32, DESC_IND, 0}},
		.table = {{0, 1, DESC_NEXT, 1}, {0, 1, DESC_NEXT, 0}}},
	{.name = "indirect next out of the table",
		.why = "next descriptor 2",
		.features = INDIRECT,
		.desc = {{32768, 32, DESC_IND, 0}},
		.table = {{0, 1, DESC_NEXT, 1}, {0, 1, DESC_NEXT, 2}}},
	{.name = "indirect readable after direct writable",
		.why = "readable descriptor after",
		.features = INDIRECT,
		.desc = {{0, 1, DESC_NEXT | DESC_W, 1}, {32768, 16, DESC_IND, 0}},
		.table = {{0, 1, 0, 0}}},
};

static void
hostile_chains_break_the_ring(void **state)
{
	const struct hostile *h;
	struct vfe_vring_buf one;
	size_t i, k;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(hostiles); i++) {
		h = &hostiles[i];
		begin(N, false, h->features);
		for (k = 0; k < 3; k++) {
			drv.desc[k] = h->desc[k];
			if (!h->absolute)
				drv.desc[k].addr += fake_mem_iova(&mem, buf);
		}
		memcpy(buf + 32768, h->table, sizeof(h->table));
		for (k = 0; k < 2; k++)
			((struct vfe_wire_vring_desc *)(void *)(buf + 32768))[k].addr +=
				fake_mem_iova(&mem, buf);
		fake_ring_put(&drv, h->head);
		fake_ring_show(&drv);
		/* the fast path has no opinion and leaves it there */
		assert_int_equal(vfe_vring_avail(&vr), 1);
		assert_int_equal(vfe_vring_pop_burst(&vr, &one, 1, 0, true), 0);
		assert_int_equal(vfe_vring_pop_burst(&vr, &one, 1, DESC_W, true), 0);
		expect_broken(h->why);
		end();
	}
}

static void
available_index_must_not_jump(void **state)
{
	const uint16_t jumps[] = {N + 1, 1000, 32768, 65535};
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(jumps); i++) {
		begin(N, false, 0);
		drv.avail->idx = jumps[i];
		expect_broken("available index");
		end();
	}
	/* a full ring is fine */
	begin(N, false, 0);
	drv.avail->idx = N;
	assert_int_equal(vfe_vring_avail(&vr), N);
	end();
}

static void
chain_with_too_many_parts_breaks_the_ring(void **state)
{
	struct fake_seg segs[5];
	int i;

	(void)state;
	begin(N, false, 0);
	for (i = 0; i < 5; i++)
		segs[i] = (struct fake_seg){buf + i, 1, false};
	fake_ring_add(&drv, segs, 5);
	fake_ring_show(&drv);
	chain.max_iov = 4;
	expect_broken("more than 4 parts");
	end();
}

/* 4 GiB in a table whose descriptors all point to the same region. */
static void
chain_of_4_gib_breaks_the_ring(void **state)
{
	struct vfe_wire_vring_desc *table;
	struct iovec *big = calloc(2048, sizeof(*big));
	uint32_t i, n = (uint32_t)((1ULL << 32) / (4 << 20));

	(void)state;
	assert_non_null(big);
	begin(N, false, INDIRECT);
	table = fake_mem_alloc(&mem, 16 * n, 16);
	for (i = 0; i < n; i++)
		table[i] = (struct vfe_wire_vring_desc){
			FAKE_IOVA, 4 << 20, i + 1 < n ? DESC_NEXT : 0, (uint16_t)(i + 1)};
	one_desc(fake_mem_iova(&mem, table), 16 * n, DESC_IND, 0);
	chain.iov = big;
	chain.max_iov = 2048;
	expect_broken("4 GiB");
	free(big);
	end();
}

/* The driver changes its mind after we have looked: what was taken stays what it was. */
static void
taken_chain_does_not_change(void **state)
{
	struct fake_seg seg;

	(void)state;
	begin(N, false, 0);
	seg = (struct fake_seg){buf, 100, false};
	fake_ring_add(&drv, &seg, 1);
	fake_ring_show(&drv);
	assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
	drv.desc[0].len = UINT32_MAX;
	drv.desc[0].addr = 0;
	drv.avail->ring[0] = 999;
	assert_int_equal(iov[0].iov_len, 100);
	assert_ptr_equal(iov[0].iov_base, buf);
	vfe_vring_push(&vr, chain.head, 0);
	vfe_vring_publish(&vr);
	assert_int_equal(drv.used->ring[0].id, 0);
	end();
}

static void
unpop_gives_the_same_chains_again(void **state)
{
	struct fake_seg seg;
	int heads[3], i;

	(void)state;
	begin(N, false, 0);
	restart_at(65534); /* across the wrap */
	for (i = 0; i < 3; i++) {
		seg = (struct fake_seg){buf + i, 10, true};
		heads[i] = fake_ring_add(&drv, &seg, 1);
	}
	fake_ring_show(&drv);
	for (i = 0; i < 3; i++)
		assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
	assert_int_equal(vfe_vring_pop(&vr, &chain), 0);
	vfe_vring_unpop(&vr, 2);
	assert_int_equal(vfe_vring_avail(&vr), 2);
	for (i = 1; i < 3; i++) {
		assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
		assert_int_equal(chain.head, heads[i]);
		assert_ptr_equal(iov[0].iov_base, buf + i);
	}
	assert_int_equal(vr.stats.chains, 3);
	end();
}

static void
stop_keeps_the_indices(void **state)
{
	struct fake_seg seg;

	(void)state;
	begin(N, false, 0);
	restart_at(65535);
	seg = (struct fake_seg){buf, 10, false};
	fake_ring_add(&drv, &seg, 1);
	fake_ring_add(&drv, &seg, 1);
	fake_ring_show(&drv);
	assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
	vfe_vring_push(&vr, chain.head, 0);
	vfe_vring_publish(&vr);
	vfe_vring_stop(&vr);
	assert_int_equal(vr.last_avail, 0);
	assert_int_equal(vr.last_used, 0);
	assert_int_equal(vfe_vring_avail(&vr), -EPROTO);
	assert_int_equal(vfe_vring_set_map(&vr, mem.map, NULL), 0);
	vfe_vring_publish(&vr);
	assert_false(vfe_vring_wants_signal(&vr));
	end();
}

static void
set_map_moves_the_ring(void **state)
{
	struct vfe_iova_region region;
	struct vfe_iova_map *map;
	struct vfe_error err;
	struct fake_seg seg;
	uint8_t *copy = NULL;

	(void)state;
	begin(N, false, 0);
	/* the same memory somewhere else, as after a remap */
	assert_int_equal(posix_memalign((void **)&copy, 4096, mem.size), 0);
	seg = (struct fake_seg){buf, 10, false};
	fake_ring_add(&drv, &seg, 1);
	fake_ring_show(&drv);
	memcpy(copy, mem.va, mem.size);
	region = mem.map->regions[0];
	region.va = copy;
	assert_int_equal(vfe_iova_map_create(&region, 1, &map, NULL), 0);
	assert_int_equal(vfe_vring_set_map(&vr, map, &err), 0);
	assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
	assert_ptr_equal(iov[0].iov_base, copy + (buf - mem.va));

	assert_int_equal(vfe_vring_set_map(&vr, NULL, &err), -EFAULT);
	assert_non_null(strstr(err.text, "descriptor table"));
	assert_true(vr.broken);
	assert_int_equal(vfe_vring_pop(&vr, &chain), -EPROTO);
	assert_false(vfe_vring_set_kick(&vr, true));
	vfe_vring_publish(&vr);
	assert_false(vfe_vring_wants_signal(&vr));
	vfe_iova_map_free(map);
	free(copy);
	end();
}

/* Push @n used elements and publish. */
static bool
use(uint16_t n)
{
	while (n-- > 0)
		vfe_vring_push(&vr, 0, 0);
	vfe_vring_publish(&vr);
	return vfe_vring_wants_signal(&vr);
}

static void
interrupt_flag_is_respected(void **state)
{
	(void)state;
	begin(N, false, 0);
	assert_false(use(0));
	assert_true(use(1));
	assert_false(use(0));
	drv.avail->flags = VFE_VRING_AVAIL_F_NO_INTERRUPT;
	assert_false(use(2));
	drv.avail->flags = 0;
	assert_true(use(1));
	assert_int_equal(vr.stats.signals, 2);
	end();
}

/* An interrupt exactly when the used index passes used_event, also over the wrap. */
static void
used_event_is_respected_across_the_wrap(void **state)
{
	struct vfe_vring_cfg cfg;
	uint16_t start, event, n;

	(void)state;
	begin(N, true, 0);
	for (start = 65520; start != 16; start++) {
		cfg = fake_ring_cfg(&drv, 0);
		cfg.last_avail_idx = cfg.last_used_idx = start;
		for (n = 1; n <= N; n++) {
			for (event = (uint16_t)(start - 3); event != (uint16_t)(start + N + 3);
				event++) {
				vfe_vring_start(&vr, &cfg, mem.map, NULL);
				vr.signal_known = true;
				drv.avail->ring[N] = event;
				assert_int_equal(use(n), (uint16_t)(event - start) < n);
			}
		}
	}
	/* what happened before a start is not known */
	vfe_vring_start(&vr, &cfg, mem.map, NULL);
	drv.avail->ring[N] = (uint16_t)(start + 100);
	assert_true(use(1));
	assert_false(use(1));
	end();
}

static void
kicks_are_asked_for_by_flag(void **state)
{
	struct fake_seg seg;

	(void)state;
	begin(N, false, 0);
	seg = (struct fake_seg){buf, 10, false};
	drv.used->flags = VFE_VRING_USED_F_NO_NOTIFY; /* left over by a former owner */
	assert_false(vfe_vring_set_kick(&vr, true));
	fake_ring_add(&drv, &seg, 1);
	assert_true(fake_ring_show(&drv));
	vfe_vring_set_kick(&vr, false);
	fake_ring_add(&drv, &seg, 1);
	assert_false(fake_ring_show(&drv));
	assert_true(vfe_vring_set_kick(&vr, true)); /* two that nobody has seen */
	assert_int_equal(vfe_vring_avail(&vr), 2);
	assert_false(vfe_vring_set_kick(&vr, true)); /* seen, and left there on purpose */
	end();
}

static void
kicks_are_asked_for_by_event(void **state)
{
	struct fake_seg seg;
	uint32_t i, kicks = 0;

	(void)state;
	begin(N, true, 0);
	seg = (struct fake_seg){buf, 10, false};
	assert_false(vfe_vring_set_kick(&vr, true));
	fake_ring_add(&drv, &seg, 1);
	assert_true(fake_ring_show(&drv));
	fake_ring_add(&drv, &seg, 1);
	assert_false(fake_ring_show(&drv));
	assert_true(vfe_vring_set_kick(&vr, true));

	/* kept quiet for several turns of the index */
	vfe_vring_set_kick(&vr, false);
	for (i = 0; i < 200000; i++) {
		fake_ring_add(&drv, &seg, 1);
		kicks += fake_ring_show(&drv);
		assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
		vfe_vring_set_kick(&vr, false);
		vfe_vring_push(&vr, chain.head, 0);
		vfe_vring_publish(&vr);
		fake_ring_get(&drv, NULL);
	}
	assert_int_equal(kicks, 0);
	/* and the next request for a kick works */
	while (vfe_vring_pop(&vr, &chain) == 1)
		vfe_vring_push(&vr, chain.head, 0);
	vfe_vring_publish(&vr);
	assert_false(vfe_vring_set_kick(&vr, true));
	while (fake_ring_get(&drv, NULL) >= 0)
		;
	fake_ring_add(&drv, &seg, 1);
	assert_true(fake_ring_show(&drv));
	end();
}

static void
burst_takes_plain_buffers_up_to_the_first_other(void **state)
{
	struct vfe_vring_buf bufs[8];
	struct fake_seg segs[2];
	int i, heads[5];

	(void)state;
	begin(N, false, 0);
	restart_at(65533);
	for (i = 0; i < 5; i++) {
		segs[0] = (struct fake_seg){buf + 100 * i, (uint32_t)(20 + i), false};
		segs[1] = (struct fake_seg){buf + 50, 10, false};
		heads[i] = fake_ring_add(&drv, segs, i == 3 ? 2 : 1);
	}
	fake_ring_show(&drv);
	assert_int_equal(vfe_vring_avail(&vr), 5);
	assert_int_equal(vfe_vring_pop_burst(&vr, bufs, 5, DESC_W, true), 0);
	assert_int_equal(vfe_vring_pop_burst(&vr, bufs, 5, 0, false), 3);
	for (i = 0; i < 3; i++) {
		assert_int_equal(bufs[i].head, heads[i]);
		assert_ptr_equal(bufs[i].base, buf + 100 * i);
		assert_int_equal(bufs[i].len, 20 + i);
	}
	vfe_vring_push_burst(&vr, bufs, 3, 7);
	assert_int_equal(vfe_vring_pop_burst(&vr, bufs, 2, 0, true), 0);
	assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
	assert_int_equal(chain.head, heads[3]);
	vfe_vring_push(&vr, chain.head, 0);
	assert_int_equal(vfe_vring_pop_burst(&vr, bufs, 1, 0, true), 1);
	vfe_vring_push_burst(&vr, bufs, 1, 0);
	vfe_vring_publish(&vr);
	for (i = 0; i < 5; i++) {
		uint32_t len;

		assert_int_equal(fake_ring_get(&drv, &len), heads[i]);
		assert_int_equal(len, i < 3 ? 7 : 0);
	}
	end();
}

/* Random chains in random shapes against a model of what the device must see. */
static void
random_traffic_matches_the_model(void **state)
{
	enum { ROUNDS = 60000, MAX = 6 };
	uint64_t seed = 42;
	uint32_t expect_len[64], written, len;
	uint16_t pending = 0, first = 0, taken, n, k;
	struct fake_seg segs[MAX];
	int round, head, expect_head[64];

	(void)state;
	begin(64, true, INDIRECT);
#define RANDOM(m) \
	((uint32_t)((seed = seed * 6364136223846793005ULL + 1442695040888963407ULL) >> 33) % (m))
	for (round = 0; round < ROUNDS; round++) {
		while (RANDOM(4) != 0 && pending < 64) {
			n = (uint16_t)(1 + RANDOM(MAX));
			written = 0;
			for (k = 0; k < n; k++) {
				segs[k].va = buf + RANDOM(60000);
				segs[k].len = 1 + RANDOM(5000);
				segs[k].write = k >= n / 2;
				written += segs[k].write ? segs[k].len : 0;
			}
			/* an indirect table of its own for each that is on its way */
			mem.next = (1 << 20) + 4096 * (uint64_t)((first + pending) % 64);
			head = RANDOM(2) ? fake_ring_add(&drv, segs, n)
					 : fake_ring_add_indirect(&drv, segs, n);
			if (head < 0)
				break;
			expect_head[(first + pending) % 64] = head;
			expect_len[(first + pending) % 64] = written;
			pending++;
		}
		fake_ring_show(&drv);
		taken = 0;
		while (taken < pending && RANDOM(5) != 0) {
			assert_int_equal(vfe_vring_pop(&vr, &chain), 1);
			if (RANDOM(8) == 0) {
				vfe_vring_unpop(&vr, 1);
				continue;
			}
			assert_int_equal(chain.head, expect_head[(first + taken) % 64]);
			assert_int_equal(chain.write_len, expect_len[(first + taken) % 64]);
			vfe_vring_push(&vr, chain.head, chain.write_len);
			taken++;
		}
		vfe_vring_publish(&vr);
		for (k = 0; k < taken; k++) {
			assert_int_equal(fake_ring_get(&drv, &len), expect_head[(first + k) % 64]);
			assert_int_equal(len, expect_len[(first + k) % 64]);
		}
		assert_int_equal(fake_ring_get(&drv, &len), -1);
		first = (uint16_t)((first + taken) % 64);
		pending = (uint16_t)(pending - taken);
	}
	assert_true(vr.stats.chains > 65536); /* the indices went round */
#undef RANDOM
	end();
}

/* What the watch was told, as pages of FAKE_IOVA and on. */
struct told {
	struct vfe_vring_watch watch;
	uint8_t pages[64];
	unsigned int calls;
};

static void
on_wrote(const struct vfe_vring_watch *watch, uint64_t iova, uint64_t len)
{
	struct told *told = (struct told *)(uintptr_t)watch;
	uint64_t page;

	assert_true(len > 0);
	told->calls++;
	for (page = (iova - FAKE_IOVA) / 4096; page <= (iova + len - 1 - FAKE_IOVA) / 4096;
		page++) {
		assert_in_range(page, 0, sizeof(told->pages) - 1);
		told->pages[page] = 1;
	}
}

static struct told told = {.watch = {on_wrote}};

/* The pages in which the guest's memory differs from @before are those that were told. */
static void
assert_told(const uint8_t *before)
{
	uint32_t page;

	for (page = 0; page < sizeof(told.pages); page++)
		assert_int_equal(told.pages[page],
			memcmp(before + page * 4096, mem.va + page * 4096, 4096) != 0);
	memset(told.pages, 0, sizeof(told.pages));
	told.calls = 0;
}

/* A used ring of five pages that begins near the end of one. */
static void
watch_is_told_of_all_writes_to_the_used_ring(void **state)
{
	const unsigned int features[] = {0, VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX)};
	const uint16_t bursts[] = {1, 3, 509, 1, 700, 1000, 2048, 100};
	static uint8_t before[64 * 4096];
	struct vfe_vring_cfg cfg;
	unsigned int f, b;
	uint16_t i;

	(void)state;
	fake_mem_init(&mem, 4 << 20);
	for (f = 0; f < 2; f++) {
		cfg = (struct vfe_vring_cfg){
			.size = 2048,
			.desc = FAKE_IOVA,
			.driver = FAKE_IOVA + 10 * 4096,
			.device = FAKE_IOVA + 20 * 4096 - 8,
			.features = features[f],
		};
		memset(mem.va, 0, sizeof(before));
		assert_int_equal(vfe_vring_start(&vr, &cfg, mem.map, NULL), 0);
		vr.watch = &told.watch;
		memcpy(before, mem.va, sizeof(before));
		assert_false(vfe_vring_set_kick(&vr, false));
		assert_int_equal(told.calls, 1);
		assert_told(before);
		for (b = 0; b < VFE_ARRAY_SIZE(bursts); b++) {
			memcpy(before, mem.va, sizeof(before));
			for (i = 0; i < bursts[b]; i++)
				vfe_vring_push(&vr, i, b * 100 + i + 1);
			assert_int_equal(told.calls, 0);
			vfe_vring_publish(&vr);
			assert_told(before);
		}
		vfe_vring_publish(&vr);
		assert_int_equal(told.calls, 0);
		/* of a ring that ends before it publishes, too */
		memcpy(before, mem.va, sizeof(before));
		for (i = 0; i < 600; i++)
			vfe_vring_push(&vr, i, 77);
		vfe_vring_stop(&vr);
		told.pages[19] = 0; /* where the index would be */
		assert_told(before);
	}
	fake_mem_fini(&mem);
}

static void
watch_is_told_of_parts_of_buffers(void **state)
{
	struct iovec parts[3];
	static const uint8_t all[] = {0, 1, 9, 30, 31}, some[] = {1, 9, 30};
	size_t i;

	(void)state;
	begin(64, false, 0);
	parts[0] = (struct iovec){mem.va + 4090, 10};
	parts[1] = (struct iovec){mem.va + 9 * 4096, 4096};
	parts[2] = (struct iovec){mem.va + 30 * 4096 + 4000, 200};
	vfe_vring_wrote_iov(&vr, parts, 3, 0, UINT64_MAX); /* nobody is there */
	assert_int_equal(told.calls, 0);
	vr.watch = &told.watch;
	vfe_vring_wrote_iov(&vr, parts, 3, 0, 10 + 4096 + 97);
	assert_int_equal(told.calls, 3);
	for (i = 0; i < VFE_ARRAY_SIZE(all); i++)
		assert_int_equal(told.pages[all[i]]--, 1);
	vfe_vring_wrote_iov(&vr, parts, 3, 6, 4 + 4096 + 1);
	for (i = 0; i < VFE_ARRAY_SIZE(some); i++)
		assert_int_equal(told.pages[some[i]]--, 1);
	vfe_vring_wrote_iov(&vr, parts, 3, 10 + 4096 + 200, 50);
	vfe_vring_wrote_iov(&vr, parts, 3, 0, 0);
	assert_int_equal(told.calls, 6);
	for (i = 0; i < sizeof(told.pages); i++)
		assert_int_equal(told.pages[i], 0);
	told.calls = 0;
	vr.watch = NULL;
	end();
}

static void
iova_of_a_pointer_is_that_of_its_region(void **state)
{
	static uint8_t a[0x1000], b[0x1000];
	const struct vfe_iova_region regions[] = {{0x5000, 0x800, b, 1}, {0x1000, 0x1000, a, 2}};
	struct vfe_iova_map *map;
	uint32_t hint = 7;
	uint64_t iova;

	(void)state;
	assert_int_equal(vfe_iova_map_create(regions, 2, &map, NULL), 0);
	assert_true(vfe_iova_of(map, &hint, a + 0xfff, &iova) && iova == 0x1fff);
	assert_true(vfe_iova_of(map, &hint, b, &iova) && iova == 0x5000);
	assert_int_equal(hint, 1);
	assert_true(vfe_iova_of(map, &hint, b + 0x7ff, &iova) && iova == 0x57ff);
	assert_false(vfe_iova_of(map, &hint, b + 0x800, &iova));
	assert_true(vfe_iova_of(map, &hint, a, &iova) && iova == 0x1000);
	assert_false(vfe_iova_of(NULL, &hint, a, &iova));
	vfe_iova_map_free(map);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_map_rejects_bad_regions),
		cmocka_unit_test(iova_map_translates_within_one_region_only),
		cmocka_unit_test(start_rejects_bad_configurations),
		cmocka_unit_test(start_needs_write_access_for_the_used_ring),
		cmocka_unit_test(ring_may_touch_the_end_of_its_region),
		cmocka_unit_test(chain_is_split_into_read_and_write_parts),
		cmocka_unit_test(indirect_table_may_follow_descriptors),
		cmocka_unit_test(buffer_across_regions_takes_two_parts),
		cmocka_unit_test(hostile_chains_break_the_ring),
		cmocka_unit_test(available_index_must_not_jump),
		cmocka_unit_test(chain_with_too_many_parts_breaks_the_ring),
		cmocka_unit_test(chain_of_4_gib_breaks_the_ring),
		cmocka_unit_test(taken_chain_does_not_change),
		cmocka_unit_test(unpop_gives_the_same_chains_again),
		cmocka_unit_test(stop_keeps_the_indices),
		cmocka_unit_test(set_map_moves_the_ring),
		cmocka_unit_test(interrupt_flag_is_respected),
		cmocka_unit_test(used_event_is_respected_across_the_wrap),
		cmocka_unit_test(kicks_are_asked_for_by_flag),
		cmocka_unit_test(kicks_are_asked_for_by_event),
		cmocka_unit_test(burst_takes_plain_buffers_up_to_the_first_other),
		cmocka_unit_test(watch_is_told_of_all_writes_to_the_used_ring),
		cmocka_unit_test(watch_is_told_of_parts_of_buffers),
		cmocka_unit_test(iova_of_a_pointer_is_that_of_its_region),
		cmocka_unit_test(random_traffic_matches_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
