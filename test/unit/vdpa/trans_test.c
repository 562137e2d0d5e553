/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Plain functions without an IOMMU: the device is told addresses on the bus, of guest memory alone.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"

enum {
	PAGE = 4096,
	TABLE = 0x10000, /* indirect ones; memory from here on is contiguous on the bus up to a page
			  */
	LOG_SIZE = PAGE,
	MEM_PAGE = FAKE_MEM_GPA / PAGE,
	NET_PIECES = 128, /* that a packet may be in */
	WRITE = VFE_VRING_DESC_F_WRITE,
	NEXT = VFE_VRING_DESC_F_NEXT,
	INDIRECT = VFE_VRING_DESC_F_INDIRECT,
	PROTOCOL = FAKE_PROTOCOL_STATUS | 1 << VDPA_PROTOCOL_F_LOG_SHMFD,
};
#define BUFFER (FAKE_MEM_GPA + 0x20000ULL) /* 224 pages */

static struct vfe_vdpa_error verr;

/* The guest, and its ring 1 as both sides see it. */
struct rig {
	struct fake_guest g;
	uint64_t features; /* of the ring, that the guest has */
	struct vfe_wire_vring_desc *table;
	struct vfe_wire_vring_desc *desc;
	struct vfe_wire_vring_avail *guest_avail;
	struct vfe_wire_vring_used *guest_used;
	const struct vfe_wire_vring_desc *dev_desc;
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
	bool halves; /* memory is two regions */
	int log_fd;
	uint8_t *log;
};

static int
setup_started(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct vfe_bdf bdf = fake_vf(0);

	world.no_iommu = true;
	if (vfe_vdpa_vf_add_plain(&bdf, NULL, true, &verr) < 0)
		fail_msg("%d %s", verr.code, verr.err.text);
	fake_guest_open(&r->g, 0);
	r->features = VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC);
	r->table = (void *)(r->g.mem + TABLE);
	r->desc = (void *)(r->g.mem + FAKE_RING_STRIDE);
	r->guest_avail = fake_guest_avail(&r->g, 1);
	r->guest_used = fake_guest_used(&r->g, 1);
	r->log_fd = -1;
	*state = r;
	return 0;
}

static int
setup(void **state)
{
	fake_start();
	return setup_started(state);
}

static int
setup_blk(void **state)
{
	fake_start_blk();
	return setup_started(state);
}

static int
setup_no_ring_reset(void **state)
{
	fake_start();
	world.no_ring_reset = true;
	return setup_started(state);
}

static int
teardown(void **state)
{
	struct rig *r = *state;

	fake_guest_disconnect(&r->g);
	fake_stop();
	fake_guest_close(&r->g);
	if (r->log != NULL)
		munmap(r->log, LOG_SIZE);
	vfe_close(&r->log_fd);
	free(r);
	return 0;
}

/* --- both sides --- */

static void
look(struct rig *r)
{
	const struct fake_regs now = fake_regs(0);

	r->dev_desc = fake_arena_at(now.queues[1].desc);
	r->avail = fake_arena_at(now.queues[1].driver);
	r->used = fake_arena_at(now.queues[1].device);
	assert_true(r->dev_desc != NULL && r->avail != NULL && r->used != NULL);
}

static struct vfe_wire_vring_desc
buffer(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	return (struct vfe_wire_vring_desc){
		htole64(addr), htole32(len), htole16(flags), htole16(next)};
}

/* The guest makes @head available. */
static void
add(struct rig *r, uint16_t head)
{
	const uint16_t idx = le16toh(r->guest_avail->idx);

	r->guest_avail->ring[idx % FAKE_RING_SIZE] = htole16(head);
	fake_store16(&r->guest_avail->idx, (uint16_t)(idx + 1));
	assert_int_equal(eventfd_write(r->g.kick[1], 1), 0);
}

/* The same, and the device has it. */
static void
guest_adds(struct rig *r, uint16_t head)
{
	const uint16_t next = (uint16_t)(le16toh(r->avail->idx) + 1);

	add(r, head);
	fake_wait16(&r->avail->idx, next);
	assert_int_equal(le16toh(r->avail->ring[(next - 1) % FAKE_RING_SIZE]), head);
}

static void
device_uses(struct rig *r, uint16_t head, uint32_t len)
{
	const uint16_t idx = le16toh(r->used->idx);
	const uint16_t next = (uint16_t)(le16toh(r->guest_used->idx) + 1);

	r->used->ring[idx % FAKE_RING_SIZE] =
		(struct vfe_wire_vring_used_elem){htole32(head), htole32(len)};
	fake_store16(&r->used->idx, (uint16_t)(idx + 1));
	assert_int_equal(eventfd_write(world.vf[0].irq_fds[2], 1), 0);
	fake_wait16(&r->guest_used->idx, next);
	assert_int_equal(
		le32toh(r->guest_used->ring[(uint16_t)(next - 1) % FAKE_RING_SIZE].id), head);
}

/* What the device finds at @head, which is @n pieces. */
static const struct vfe_wire_vring_desc *
pieces(const struct rig *r, uint16_t head, uint32_t n)
{
	const struct vfe_wire_vring_desc d = r->dev_desc[head], *slot;
	uint32_t i;

	assert_int_equal(le16toh(d.flags), INDIRECT);
	assert_int_equal(le32toh(d.len), n * sizeof(d));
	slot = fake_arena_at(le64toh(d.addr));
	assert_non_null(slot);
	for (i = 0; i < n; i++) {
		assert_int_equal(le16toh(slot[i].flags) & ~WRITE, i + 1 < n ? NEXT : 0);
		assert_int_equal(le16toh(slot[i].next), i + 1 < n ? i + 1 : 0);
	}
	return slot;
}

static void
is_piece(const struct vfe_wire_vring_desc *d, uint64_t gpa, uint32_t len, uint16_t write)
{
	assert_int_equal(le64toh(d->addr), fake_bus_of(gpa));
	assert_int_equal(le32toh(d->len), len);
	assert_int_equal(le16toh(d->flags) & WRITE, write);
}

/* --- the front-end --- */

static void
set_features(struct rig *r, uint64_t more)
{
	assert_int_equal(fake_send_u64(r->g.vid, VDPA_MSG_SET_FEATURES,
				 r->features | more | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
					 VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES)),
		0);
}

/* The first @n halves of memory. */
static int
send_halves(const struct fake_guest *g, uint32_t n)
{
	const uint64_t half = FAKE_MEM_SIZE / 2;
	const struct vdpa_msg_memory mem = {
		.nr_regions = n,
		.regions[0] = {FAKE_MEM_GPA, half, FAKE_MEM_UVA, 0},
		.regions[1] = {FAKE_MEM_GPA + half, half, FAKE_MEM_UVA + half, half},
	};
	const int fds[] = {g->mem_fd, g->mem_fd};

	return fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem,
		8 + n * (uint32_t)sizeof(mem.regions[0]), fds, (int)n);
}

static void
begin_start(struct rig *r)
{
	unsigned int q;

	fake_guest_connect(&r->g, PROTOCOL);
	set_features(r, 0);
	assert_int_equal(r->halves ? send_halves(&r->g, 2) : fake_guest_mem(&r->g), 0);
	for (q = 0; q < 2; q++) {
		fake_guest_ring(&r->g, q);
		fake_guest_enable(&r->g, q, true);
	}
	fake_guest_driver_ok(&r->g);
}

static void
start(struct rig *r)
{
	begin_start(r);
	fake_wait_state(0, "running");
	look(r);
}

static void
wait_error(const char *text)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (strstr(fake_info(0)->last_error, text) == NULL) {
		if (vfe_deadline_passed(deadline))
			fail_msg("error is \"%s\"", fake_info(0)->last_error);
		fake_flush();
	}
}

/* The device does not get @head, and the ring is not served any more. */
static void
refused(struct rig *r, uint16_t head, const char *text)
{
	const uint16_t idx = le16toh(r->avail->idx);

	add(r, head);
	wait_error(text);
	assert_int_equal(le16toh(r->avail->idx), idx);
	assert_string_equal(fake_info(0)->state, "running");
}

/* --- starting --- */

static void
device_is_told_addresses_on_the_bus(void **state)
{
	struct rig *r = *state;
	struct fake_regs now;
	unsigned int q;

	assert_true(fake_info(0)->no_iommu);
	start(r);
	now = fake_regs(0);
	/* rings that stand at 0, too; that of our control queue has worked */
	for (q = 0; q < 2; q++) {
		assert_true(fake_info(0)->queues[q].shadow);
		assert_non_null(fake_arena_at(now.queues[q].desc));
		assert_non_null(fake_arena_at(now.queues[q].driver));
		assert_non_null(fake_arena_at(now.queues[q].device));
		assert_int_equal(now.queues[q].size, FAKE_RING_SIZE);
	}
	assert_true(now.promisc);
	assert_int_equal(now.ctrl_commands, 1);
}

static void
device_has_indirect_tables_and_the_guest_has_not(void **state)
{
	struct rig *r = *state;

	r->features = 0;
	start(r);
	assert_true((fake_regs(0).features & VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC)) != 0);
	r->desc[3] = buffer(BUFFER, 100, WRITE, 0);
	guest_adds(r, 3);
	is_piece(pieces(r, 3, 1), BUFFER, 100, WRITE);
	r->desc[4] = buffer(FAKE_MEM_GPA + TABLE, 16, INDIRECT, 0);
	refused(r, 4, "was not negotiated");
}

static void
function_without_an_iommu_is_to_be_allowed(void **state)
{
	struct vfe_bdf bdf = fake_vf(1);

	(void)state;
	assert_int_equal(vfe_vdpa_vf_add_plain(&bdf, NULL, false, &verr), -ENODEV);
	assert_int_equal(verr.code, VFE_VDPA_VFIO_DEV_FD);
	world.no_iommu = false;
	assert_int_equal(vfe_vdpa_vf_add_plain(&bdf, NULL, true, &verr), 0);
	assert_false(fake_info(1)->no_iommu);
}

static void
device_without_indirect_tables_is_refused(void **state)
{
	struct vfe_bdf bdf = fake_vf(1);

	(void)state;
	world.no_indirect = true;
	assert_int_equal(vfe_vdpa_vf_add_plain(&bdf, NULL, true, &verr), -ENOTSUP);
	assert_int_equal(verr.code, VFE_VDPA_VF_GET_FEATURES);
	assert_non_null(strstr(verr.err.text, "RING_INDIRECT_DESC"));
	assert_int_equal(world.open_devices, 1);
}

static void
memory_that_it_does_not_reach_is_an_error_and_no_start(void **state)
{
	struct rig *r = *state;

	world.no_huge_pages = true;
	begin_start(r);
	wait_error("memory region 0: not of huge pages");
	assert_int_equal(fake_regs(0).status & VFE_VIRTIO_S_DRIVER_OK, 0);
	pthread_mutex_lock(&world.lock);
	world.no_huge_pages = false;
	pthread_mutex_unlock(&world.lock);
	fake_wait_state(0, "running");
	assert_string_equal(fake_info(0)->last_error, "");
}

/* --- chains --- */

static void
chain_is_translated_and_comes_back(void **state)
{
	struct rig *r = *state;
	const struct vfe_wire_vring_desc *p;

	start(r);
	r->desc[5] = buffer(BUFFER + 100, 12, NEXT, 9);
	r->desc[9] = buffer(BUFFER + 3 * PAGE, PAGE, NEXT, 2);
	r->desc[2] = buffer(BUFFER + 8, 1, WRITE, 63);
	guest_adds(r, 5);
	p = pieces(r, 5, 3);
	is_piece(&p[0], BUFFER + 100, 12, 0);
	is_piece(&p[1], BUFFER + 3 * PAGE, PAGE, 0);
	is_piece(&p[2], BUFFER + 8, 1, WRITE);
	device_uses(r, 5, 1);
	assert_int_equal(le32toh(r->guest_used->ring[0].len), 1);
	/* again, and shorter */
	r->desc[5] = buffer(BUFFER, 7, 0, 9);
	guest_adds(r, 5);
	is_piece(pieces(r, 5, 1), BUFFER, 7, 0);
	device_uses(r, 5, 0);
	assert_int_equal(fake_info(0)->queues[1].relayed_chains, 2);
}

static void
indirect_chain_is_translated(void **state)
{
	struct rig *r = *state;
	const struct vfe_wire_vring_desc *p;

	start(r);
	r->table[0] = buffer(BUFFER, 16, NEXT, 2);
	r->table[2] = buffer(BUFFER + PAGE, 1500, WRITE, 0);
	r->desc[7] = buffer(FAKE_MEM_GPA + TABLE, 3 * 16, INDIRECT, 0);
	guest_adds(r, 7);
	p = pieces(r, 7, 2);
	is_piece(&p[0], BUFFER, 16, 0);
	is_piece(&p[1], BUFFER + PAGE, 1500, WRITE);
	device_uses(r, 7, 60);
}

static void
buffer_is_cut_where_memory_is(void **state)
{
	struct rig *r = *state;
	const struct vfe_wire_vring_desc *p;

	start(r);
	r->desc[0] = buffer(BUFFER + PAGE - 1, 2 * PAGE + 2, NEXT | WRITE, 1);
	r->desc[1] = buffer(BUFFER + PAGE, 2 * PAGE, WRITE, 0);
	guest_adds(r, 0);
	p = pieces(r, 0, 6);
	is_piece(&p[0], BUFFER + PAGE - 1, 1, WRITE);
	is_piece(&p[1], BUFFER + PAGE, PAGE, WRITE);
	is_piece(&p[2], BUFFER + 2 * PAGE, PAGE, WRITE);
	is_piece(&p[3], BUFFER + 3 * PAGE, 1, WRITE);
	is_piece(&p[4], BUFFER + PAGE, PAGE, WRITE);
	is_piece(&p[5], BUFFER + 2 * PAGE, PAGE, WRITE);
}

static void
last_byte_of_memory_is_the_guests(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[0] = buffer(FAKE_MEM_GPA + FAKE_MEM_SIZE - 1, 1, WRITE, 0);
	guest_adds(r, 0);
	is_piece(pieces(r, 0, 1), FAKE_MEM_GPA + FAKE_MEM_SIZE - 1, 1, WRITE);
	r->desc[1] = buffer(FAKE_MEM_GPA + FAKE_MEM_SIZE - 1, 2, WRITE, 0);
	refused(r, 1, "descriptor 1: a buffer of 2 bytes at 0x1fffff is not in guest memory");
}

static void
longest_chain_fits_and_a_longer_one_is_refused(void **state)
{
	struct rig *r = *state;
	unsigned int i;

	start(r);
	for (i = 0; i < NET_PIECES / 2; i++)
		r->table[i] = buffer(BUFFER + PAGE - 1, 2, NEXT, (uint16_t)(i + 1));
	r->table[i - 1].flags = 0;
	r->desc[0] = buffer(FAKE_MEM_GPA + TABLE, (i + 1) * 16, INDIRECT, 0);
	guest_adds(r, 0);
	pieces(r, 0, NET_PIECES);
	device_uses(r, 0, 0);
	r->table[i - 1].flags = htole16(NEXT);
	r->table[i] = buffer(BUFFER, 1, 0, 0);
	refused(r, 0, "a chain of more than 128 pieces of memory");
}

/* 254 segments, a header and a status, each of them in two pages. */
static void
longest_request_of_a_disk_fits(void **state)
{
	struct rig *r = *state;
	unsigned int i;

	start(r);
	for (i = 0; i < 256; i++)
		r->table[i] = buffer(BUFFER + PAGE - 1, 2, NEXT, (uint16_t)(i + 1));
	r->table[255].flags = 0;
	r->desc[63] = buffer(FAKE_MEM_GPA + TABLE, 256 * 16, INDIRECT, 0);
	guest_adds(r, 63);
	is_piece(pieces(r, 63, 512) + 511, BUFFER + PAGE, 1, 0);
	device_uses(r, 63, 0);
}

/* More than what is taken at once: the rest is not forgotten, and needs no kick. */
static void
many_long_chains_are_all_taken(void **state)
{
	struct rig *r = *state;
	uint16_t i;

	start(r);
	for (i = 0; i < 256; i++)
		r->table[i] = buffer(BUFFER + PAGE - 1, 2, NEXT, (uint16_t)(i + 1));
	r->table[255].flags = 0;
	for (i = 0; i < FAKE_RING_SIZE; i++) {
		r->desc[i] = buffer(FAKE_MEM_GPA + TABLE, 256 * 16, INDIRECT, 0);
		r->guest_avail->ring[i] = htole16(i);
	}
	fake_store16(&r->guest_avail->idx, FAKE_RING_SIZE);
	assert_int_equal(eventfd_write(r->g.kick[1], 1), 0);
	fake_wait16(&r->avail->idx, FAKE_RING_SIZE);
	pieces(r, FAKE_RING_SIZE - 1, 512);
	device_uses(r, 5, 0);
}

static void
what_the_guest_changes_later_is_not_looked_at(void **state)
{
	struct rig *r = *state;

	start(r);
	r->table[0] = buffer(BUFFER, 16, WRITE, 0);
	r->desc[7] = buffer(FAKE_MEM_GPA + TABLE, 16, INDIRECT, 0);
	guest_adds(r, 7);
	r->table[0] = buffer(0, UINT32_MAX, WRITE, 0);
	r->desc[7] = buffer(0, UINT32_MAX, WRITE, 0);
	r->desc[8] = buffer(BUFFER, 4, 0, 0);
	guest_adds(r, 8);
	is_piece(pieces(r, 7, 1), BUFFER, 16, WRITE);
	device_uses(r, 7, 0);
}

/* --- guests that lie --- */

static void
loop_is_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[1] = buffer(BUFFER, 4, NEXT, 2);
	r->desc[2] = buffer(BUFFER, 4, NEXT, 1);
	refused(r, 1, "queue 1: descriptor 1: a loop in a table of 64 descriptors");
	/* also what comes after it */
	r->desc[3] = buffer(BUFFER, 4, 0, 0);
	add(r, 3);
	assert_int_equal(fake_get_base(r->g.vid, 1), 0);
}

static void
next_outside_the_table_is_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[1] = buffer(BUFFER, 4, NEXT, FAKE_RING_SIZE);
	refused(r, 1, "descriptor 64 of a table of 64");
}

static void
table_in_a_table_is_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->table[0] = buffer(FAKE_MEM_GPA + TABLE + 32, 16, INDIRECT, 0);
	r->table[2] = buffer(BUFFER, 16, 0, 0);
	r->desc[0] = buffer(FAKE_MEM_GPA + TABLE, 16, INDIRECT, 0);
	refused(r, 0, "inside another one");
}

static void
table_outside_memory_is_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[0] = buffer(FAKE_MEM_GPA + FAKE_MEM_SIZE - 16, 32, INDIRECT, 0);
	*(struct vfe_wire_vring_desc *)(void *)(r->g.mem + FAKE_MEM_SIZE - 16) =
		buffer(BUFFER, 1, NEXT, 1);
	refused(r, 0, "descriptor 1 of the indirect table at 0x1ffff0 is not in guest memory");
}

static void
empty_buffer_is_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[0] = buffer(BUFFER, 0, WRITE, 0);
	refused(r, 0, "a buffer of 0 bytes");
}

static void
addresses_that_wrap_are_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[0] = buffer(UINT64_MAX, 2, WRITE, 0);
	refused(r, 0, "a buffer of 2 bytes at 0xffffffffffffffff");
}

static void
address_on_the_bus_is_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[0] = buffer(fake_bus_of(BUFFER), 1, WRITE, 0);
	refused(r, 0, "is not in guest memory");
}

/* They are mapped in the same domain as the guest's. */
static void
tables_of_ours_are_not_the_guests(void **state)
{
	struct rig *r = *state;
	struct vfe_bdf bdf = fake_vf(0);

	start(r);
	r->desc[0] = buffer(vdpa_vf_find(&bdf)->plain.slots_iova, 16, WRITE, 0);
	refused(r, 0, "is not in guest memory");
}

/* Its slot is being read by the device. */
static void
head_that_the_device_has_is_refused(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[6] = buffer(BUFFER, 10, WRITE, 0);
	guest_adds(r, 6);
	r->desc[6] = buffer(BUFFER, 20, WRITE, 0);
	refused(r, 6, "entry 1 of its available ring is descriptor 6, which the device has");
	is_piece(pieces(r, 6, 1), BUFFER, 10, WRITE);
}

/* --- indices --- */

static void
indices_wrap(void **state)
{
	struct rig *r = *state;
	uint16_t i;

	fake_guest_set_used(&r->g, 1, 0xfff0);
	r->guest_avail->idx = htole16(0xfff0);
	start(r);
	for (i = 0; i < 3 * FAKE_RING_SIZE; i++) {
		r->desc[i % 5] = buffer(BUFFER + i, i + 1, i % 2 != 0 ? WRITE : 0, 0);
		guest_adds(r, i % 5);
		is_piece(pieces(r, i % 5, 1), BUFFER + i, i + 1, i % 2 != 0 ? WRITE : 0);
		device_uses(r, i % 5, 0);
	}
	assert_int_equal(le16toh(r->guest_used->idx), (uint16_t)(0xfff0 + i));
}

/* --- stop and start --- */

static void
what_the_device_had_is_translated_again(void **state)
{
	struct rig *r = *state;
	struct vfe_bdf bdf = fake_vf(0);

	start(r);
	r->desc[3] = buffer(BUFFER, 3, WRITE, 0);
	r->desc[4] = buffer(BUFFER, 4, WRITE, 0);
	r->desc[5] = buffer(BUFFER, 5, WRITE, 0);
	guest_adds(r, 3);
	guest_adds(r, 4);
	guest_adds(r, 5);
	device_uses(r, 4, 0);
	/* the other two get to it again */
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_false(world.vf[0].master);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
	look(r);
	fake_wait16(&r->avail->idx, 2);
	assert_int_equal(le16toh(r->avail->ring[0]), 3);
	assert_int_equal(le16toh(r->avail->ring[1]), 5);
	is_piece(pieces(r, 3, 1), BUFFER, 3, WRITE);
	is_piece(pieces(r, 5, 1), BUFFER, 5, WRITE);
	device_uses(r, 5, 0);
	device_uses(r, 3, 0);
	assert_int_equal(le16toh(r->guest_used->idx), 3);
}

static void
what_has_been_spoilt_meanwhile_is_not_given_back(void **state)
{
	struct rig *r = *state;
	struct vfe_bdf bdf = fake_vf(0);

	start(r);
	r->desc[3] = buffer(BUFFER, 3, WRITE, 0);
	guest_adds(r, 3);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	r->desc[3] = buffer(0, 3, WRITE, 0);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	wait_error("queue 1: descriptor 3: a buffer of 3 bytes at 0 is not in guest memory");
	assert_int_equal(fake_regs(0).status & VFE_VIRTIO_S_DRIVER_OK, 0);
}

static void
ring_that_is_stopped_goes_on_elsewhere(void **state)
{
	struct rig *r = *state;

	start(r);
	r->desc[3] = buffer(BUFFER, 3, WRITE, 0);
	guest_adds(r, 3);
	device_uses(r, 3, 0);
	guest_adds(r, 3);
	assert_int_equal(fake_get_base(r->g.vid, 1), 1);
	assert_int_equal(fake_get_base(r->g.vid, 0), 0);
	fake_guest_ring(&r->g, 0);
	fake_guest_ring(&r->g, 1);
	fake_wait_state(0, "running");
	/* rings come one by one */
	while (!fake_info(0)->queues[1].shadow)
		fake_flush();
	look(r);
	fake_wait16(&r->avail->idx, 1);
	is_piece(pieces(r, 3, 1), BUFFER, 3, WRITE);
}

/* The world sees to it that nothing is unmapped under a device that runs. */
static void
memory_that_goes_stops_the_device_first(void **state)
{
	struct rig *r = *state;
	unsigned int resets, unmaps;

	r->halves = true;
	start(r);
	r->desc[3] = buffer(FAKE_MEM_GPA + FAKE_MEM_SIZE / 2, 3, WRITE, 0);
	r->desc[4] = buffer(BUFFER, 4, WRITE, 0);
	guest_adds(r, 3);
	guest_adds(r, 4);
	device_uses(r, 3, 0);
	resets = world.vf[0].resets;
	unmaps = world.unmaps;
	assert_int_equal(send_halves(&r->g, 2), 0); /* the same again */
	assert_int_equal(world.vf[0].resets, resets);
	/* a part that no ring is in */
	assert_int_equal(send_halves(&r->g, 1), 0);
	assert_int_equal(world.vf[0].resets, resets + 1);
	assert_int_equal(world.unmaps, unmaps + 1);
	fake_wait_state(0, "running");
	look(r);
	fake_wait16(&r->avail->idx, 1);
	is_piece(pieces(r, 4, 1), BUFFER, 4, WRITE);
	refused(r, 3, "descriptor 3: a buffer of 3 bytes at 0x180000 is not in guest memory");
}

/* The mapping is there as long as any of it is used. */
static void
memory_that_is_mapped_no_longer_need_be_the_guests(void **state)
{
	const uint64_t half = FAKE_MEM_GPA + FAKE_MEM_SIZE / 2;
	struct rig *r = *state;
	struct vfe_bdf bdf = fake_vf(0);

	start(r);
	assert_int_equal(send_halves(&r->g, 1), 0);
	fake_wait_state(0, "running");
	look(r);
	assert_true(vdpa_domain_has(vdpa_vf_find(&bdf)->domain, half, 3));
	r->desc[2] = buffer(half - 3, 3, WRITE, 0);
	guest_adds(r, 2);
	r->desc[3] = buffer(half, 3, WRITE, 0);
	refused(r, 3, "descriptor 3: a buffer of 3 bytes at 0x180000 is not in guest memory");
}

static void
no_other_function_of_the_guest_reaches_tables_of_ours(void **state)
{
	static const char uuid[] = "01234567-89ab-cdef-0123-456789abcdef";
	struct vfe_bdf bdfs[] = {fake_vf(1), fake_vf(2), fake_vf(3)};
	const struct vdpa_vf *vf[3];
	unsigned int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		world.no_iommu = i == 0;
		assert_int_equal(vfe_vdpa_vf_add_plain(&bdfs[i], uuid, i == 0, &verr), 0);
		assert_string_equal(fake_info(i + 1)->uuid, uuid);
		vf[i] = vdpa_vf_find(&bdfs[i]);
	}
	assert_ptr_not_equal(vf[0]->domain, vf[1]->domain);
	assert_ptr_equal(vf[1]->domain, vf[2]->domain);
}

static void
device_that_comes_back_with_an_iommu_is_another_one(void **state)
{
	struct rig *r = *state;
	struct vfe_bdf bdf = fake_vf(0);

	start(r);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	world.no_iommu = false;
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), -EXDEV);
	assert_non_null(strstr(verr.err.text, "it came back with an IOMMU, was without one"));
	world.no_iommu = true;
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
}

/* --- dirty pages --- */

static bool
log_has(const struct rig *r, uint64_t page)
{
	return (__atomic_load_n(&r->log[page / 8], __ATOMIC_ACQUIRE) >> page % 8 & 1) != 0;
}

static void
begin_log(struct rig *r)
{
	struct vdpa_msg_log payload = {.size = LOG_SIZE};

	r->log_fd = vfe_memfd_create("log", LOG_SIZE);
	r->log = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r->log_fd, 0);
	assert_true(r->log != MAP_FAILED);
	assert_int_equal(fake_send(r->g.vid, VDPA_MSG_SET_LOG_BASE, &payload, sizeof(payload),
				 &r->log_fd, 1),
		0);
	set_features(r, VFE_BIT(VFE_VHOST_F_LOG_ALL));
	while (strcmp(fake_info(0)->dirty.mode, "relay") != 0)
		fake_flush();
	fake_wait_state(0, "running");
	memset(r->log, 0, LOG_SIZE);
}

static void
end_log(struct rig *r)
{
	set_features(r, 0);
	while (strcmp(fake_info(0)->dirty.mode, "off") != 0)
		fake_flush();
	fake_wait_state(0, "running");
}

static void
what_is_written_is_logged_without_a_restart(void **state)
{
	struct rig *r = *state;
	const uint64_t page = MEM_PAGE + 0x20;
	unsigned int resets;

	start(r);
	resets = world.vf[0].resets;
	begin_log(r);
	r->desc[3] = buffer(BUFFER, PAGE, NEXT, 4);
	r->desc[4] = buffer(BUFFER + 2 * PAGE, 3 * PAGE, WRITE, 0);
	guest_adds(r, 3);
	device_uses(r, 3, PAGE + 1);
	while (!log_has(r, MEM_PAGE + 6)) /* the used ring comes last */
		sched_yield();
	assert_false(log_has(r, page) || log_has(r, page + 1));
	assert_true(log_has(r, page + 2) && log_has(r, page + 3));
	assert_false(log_has(r, page + 4));
	/* and neither the beginning nor the end of it is a restart */
	end_log(r);
	assert_int_equal(world.vf[0].resets, resets);
	guest_adds(r, 3);
	device_uses(r, 3, 0);
}

/* Others would get their rings, which stand where a device begins. */
static void
rings_stay_relayed_after_a_log(void **state)
{
	struct rig *r = *state;
	unsigned int resets, i;

	start(r);
	resets = world.vf[0].resets;
	begin_log(r);
	end_log(r);
	for (i = 0; i < 100; i++)
		fake_flush();
	assert_int_equal(world.vf[0].resets, resets);
	assert_true(fake_info(0)->queues[1].shadow);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define N(f) cmocka_unit_test_setup_teardown(f, setup_no_ring_reset, teardown)
#define B(f) cmocka_unit_test_setup_teardown(f, setup_blk, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(device_is_told_addresses_on_the_bus),
		T(device_has_indirect_tables_and_the_guest_has_not),
		T(function_without_an_iommu_is_to_be_allowed),
		T(device_without_indirect_tables_is_refused),
		T(memory_that_it_does_not_reach_is_an_error_and_no_start),
		T(chain_is_translated_and_comes_back),
		T(indirect_chain_is_translated),
		T(buffer_is_cut_where_memory_is),
		T(last_byte_of_memory_is_the_guests),
		T(longest_chain_fits_and_a_longer_one_is_refused),
		B(longest_request_of_a_disk_fits),
		B(many_long_chains_are_all_taken),
		T(what_the_guest_changes_later_is_not_looked_at),
		T(loop_is_refused),
		T(next_outside_the_table_is_refused),
		T(table_in_a_table_is_refused),
		T(table_outside_memory_is_refused),
		T(empty_buffer_is_refused),
		T(addresses_that_wrap_are_refused),
		T(address_on_the_bus_is_refused),
		T(tables_of_ours_are_not_the_guests),
		T(head_that_the_device_has_is_refused),
		T(indices_wrap),
		B(indices_wrap),
		T(what_the_device_had_is_translated_again),
		T(what_has_been_spoilt_meanwhile_is_not_given_back),
		T(ring_that_is_stopped_goes_on_elsewhere),
		T(memory_that_goes_stops_the_device_first),
		T(memory_that_is_mapped_no_longer_need_be_the_guests),
		T(no_other_function_of_the_guest_reaches_tables_of_ours),
		T(device_that_comes_back_with_an_iommu_is_another_one),
		T(what_is_written_is_logged_without_a_restart),
		N(rings_stay_relayed_after_a_log),
	};

	return cmocka_run_group_tests_name("vdpa_trans", tests, NULL, NULL);
}
