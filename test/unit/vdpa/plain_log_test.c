/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Plain functions in a migration: rings are relayed and logged, and what a device had in hand.
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
	LOG_SIZE = PAGE,
	MEM_PAGE = FAKE_MEM_GPA / PAGE,
	MEM_PAGES = FAKE_MEM_SIZE / PAGE,
	USED_PAGE = MEM_PAGE + 6,
	BUFFER_PAGE = MEM_PAGE + 0x20,
	PROTOCOL = FAKE_PROTOCOL_STATUS | 1 << VDPA_PROTOCOL_F_LOG_SHMFD,
	WRITE = VFE_VRING_DESC_F_WRITE,
	NEXT = VFE_VRING_DESC_F_NEXT,
};
#define BUFFER (FAKE_MEM_GPA + 0x20000ULL)

static struct vfe_vdpa_error verr;

/* The guest, its ring 1 as both sides see it, and the front-end's log. */
struct rig {
	struct fake_guest g;
	uint64_t features;
	struct vfe_wire_vring_desc *desc;
	struct vfe_wire_vring_avail *guest_avail;
	struct vfe_wire_vring_used *guest_used;
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
	int log_fd;
	uint8_t *log;
};

static int
setup_started(void **state, uint64_t feature)
{
	struct rig *r = calloc(1, sizeof(*r));

	fake_vf_add_plain(0);
	fake_guest_open(&r->g, 0);
	r->features = feature | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
		      VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES);
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
	return setup_started(state, VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX));
}

static int
setup_blk(void **state)
{
	fake_start_blk();
	return setup_started(state, 0);
}

static int
teardown(void **state)
{
	struct rig *r = *state;

	fake_guest_disconnect(&r->g);
	vdpa_globals.dirty_mode = VDPA_DIRTY_AUTO;
	fake_stop();
	fake_guest_close(&r->g);
	if (r->log != NULL)
		munmap(r->log, LOG_SIZE);
	vfe_close(&r->log_fd);
	free(r);
	return 0;
}

/* --- both sides --- */

/* Where the device has the ring now; NULL when it is the guest's. */
static void
look(struct rig *r)
{
	const struct fake_regs now = fake_regs(0);

	r->avail = fake_arena_at(now.queues[1].driver);
	r->used = fake_arena_at(now.queues[1].device);
}

static void
buffer(struct rig *r, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	r->desc[i] = (struct vfe_wire_vring_desc){
		htole64(addr), htole32(len), htole16(flags), htole16(next)};
}

static struct vdpa_vf *
the_vf(void)
{
	struct vfe_bdf bdf = fake_vf(0);

	return vdpa_vf_find(&bdf);
}

/* The guest makes @head available; the relay has it, and looks at the ring no more. */
static void
guest_adds(struct rig *r, uint16_t head)
{
	const uint16_t idx = le16toh(r->guest_avail->idx);
	const uint16_t next = (uint16_t)(le16toh(r->avail->idx) + 1);
	const atomic_uint_least64_t *relayed = &the_vf()->bells[1].relayed;
	const uint64_t before = atomic_load(relayed);
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	r->guest_avail->ring[idx % FAKE_RING_SIZE] = htole16(head);
	fake_store16(&r->guest_avail->idx, (uint16_t)(idx + 1));
	assert_int_equal(eventfd_write(r->g.kick[1], 1), 0);
	fake_wait16(&r->avail->idx, next);
	while (atomic_load(relayed) == before) {
		assert_false(vfe_deadline_passed(deadline));
		sched_yield();
	}
}

static void
device_uses(struct rig *r, uint16_t head, uint32_t len)
{
	fake_ring_use(r->used, le16toh(r->used->idx), head, len);
	fake_ring_interrupt(0, 1);
}

/* --- the front-end --- */

static void
set_logging(struct rig *r, bool on)
{
	assert_int_equal(fake_send_u64(r->g.vid, VDPA_MSG_SET_FEATURES,
				 r->features | (on ? VFE_BIT(VFE_VHOST_F_LOG_ALL) : 0)),
		0);
}

static void
start(struct rig *r)
{
	fake_guest_connect(&r->g, PROTOCOL);
	set_logging(r, false);
	fake_guest_run(&r->g, 2);
	look(r);
}

static void
send_log(struct rig *r)
{
	struct vdpa_msg_log payload = {.size = LOG_SIZE};

	if (r->log != NULL)
		munmap(r->log, LOG_SIZE);
	vfe_close(&r->log_fd);
	r->log_fd = vfe_memfd_create("log", LOG_SIZE);
	r->log = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r->log_fd, 0);
	assert_true(r->log != MAP_FAILED);
	assert_int_equal(fake_send(r->g.vid, VDPA_MSG_SET_LOG_BASE, &payload, sizeof(payload),
				 &r->log_fd, 1),
		0);
}

static void
wait_mode(const char *mode)
{
	fake_wait_mode(0, mode);
	fake_wait_state(0, "running");
}

/* The relay looks at a ring that is new to it, on its own time: once for kicks, once for
 * interrupts. */
static unsigned long
nr_looks(unsigned int q)
{
	struct vdpa_vf *vf = the_vf();
	unsigned long interrupts = atomic_load(vdpa_shadow_interrupts(vf->plain.shadows[q]));

	return atomic_load(&vf->bells[q].relayed) + interrupts;
}

/* A guest that runs is being migrated from now on, and nothing is dirty. */
static void
begin(struct rig *r)
{
	const bool direct = !fake_info(0)->queues[1].shadow;
	const unsigned long looks[] = {nr_looks(0), nr_looks(1)};
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	send_log(r);
	set_logging(r, true);
	wait_mode("relay");
	while (direct && (nr_looks(0) < looks[0] + 2 || nr_looks(1) < looks[1] + 2)) {
		assert_false(vfe_deadline_passed(deadline));
		sched_yield();
	}
	look(r);
	assert_non_null(r->avail);
	fake_flush();
	memset(r->log, 0, LOG_SIZE);
}

static bool
log_has(const struct rig *r, uint64_t page)
{
	return (__atomic_load_n(&r->log[page / 8], __ATOMIC_ACQUIRE) >> page % 8 & 1) != 0;
}

static void
wait_log(const struct rig *r, uint64_t page)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (!log_has(r, page)) {
		assert_false(vfe_deadline_passed(deadline));
		sched_yield();
	}
}

static unsigned int
log_count(const struct rig *r)
{
	unsigned int i, n = 0;

	for (i = 0; i < LOG_SIZE; i++)
		n += (unsigned int)__builtin_popcount(r->log[i]);
	return n;
}

static void
wait_direct(void)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (fake_regs(0).queues[1].driver != FAKE_MEM_GPA + FAKE_RING_STRIDE + FAKE_RING_AVAIL) {
		assert_false(vfe_deadline_passed(deadline));
		fake_flush();
	}
	fake_wait_state(0, "running");
}

/* --- what is marked --- */

static void
what_the_device_writes_is_in_the_log(void **state)
{
	struct rig *r = *state;

	start(r);
	assert_null(r->avail);
	assert_string_equal(fake_info(0)->dirty.mode, "off");
	begin(r);
	assert_true(fake_info(0)->queues[0].shadow && fake_info(0)->queues[1].shadow);
	buffer(r, 3, BUFFER + 0x10, 3 * PAGE, WRITE, 0);
	/* our own write, of the event index, is one to the guest's used ring */
	guest_adds(r, 3);
	wait_log(r, USED_PAGE);
	assert_int_equal(log_count(r), 1);
	memset(r->log, 0, LOG_SIZE);
	device_uses(r, 3, PAGE);
	fake_wait16(&r->guest_used->idx, 1);
	wait_log(r, USED_PAGE);
	/* as much as it says, and not all of the buffer */
	assert_true(log_has(r, BUFFER_PAGE) && log_has(r, BUFFER_PAGE + 1));
	assert_int_equal(log_count(r), 3);
	assert_int_equal(fake_info(0)->dirty.all, 0);
}

static void
disk_may_have_written_all_of_a_request(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	buffer(r, 0, BUFFER, 16, NEXT, 7);
	buffer(r, 7, BUFFER + 2 * PAGE, 2 * PAGE, WRITE | NEXT, 2);
	buffer(r, 2, BUFFER + 9 * PAGE - 1, 1, WRITE, 0);
	guest_adds(r, 0);
	device_uses(r, 0, 1); /* it has failed: the status is all that it counts */
	wait_log(r, USED_PAGE);
	assert_true(log_has(r, BUFFER_PAGE + 2) && log_has(r, BUFFER_PAGE + 3));
	assert_true(log_has(r, BUFFER_PAGE + 8));
	assert_int_equal(log_count(r), 4);
}

static void
new_log_gets_what_is_written_from_then_on(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	buffer(r, 3, BUFFER, PAGE, WRITE, 0);
	buffer(r, 4, BUFFER + PAGE, PAGE, WRITE, 0);
	guest_adds(r, 3);
	guest_adds(r, 4);
	device_uses(r, 3, PAGE);
	fake_wait16(&r->guest_used->idx, 1);
	send_log(r); /* and what was not read of the old one */
	device_uses(r, 4, PAGE);
	wait_log(r, BUFFER_PAGE + 1);
	wait_log(r, BUFFER_PAGE);
	assert_int_equal(fake_info(0)->dirty.all, 0);
}

static void
ring_in_the_middle_stays_relayed_without_a_log(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	buffer(r, 3, BUFFER, PAGE, WRITE, 0);
	guest_adds(r, 3);
	device_uses(r, 3, PAGE);
	fake_wait16(&r->guest_used->idx, 1);
	set_logging(r, false);
	wait_mode("off");
	memset(r->log, 0, LOG_SIZE);
	guest_adds(r, 3);
	device_uses(r, 3, PAGE);
	fake_wait16(&r->guest_used->idx, 2);
	assert_int_equal(log_count(r), 0);
	assert_true(fake_info(0)->queues[1].shadow);
}

static void
rings_at_their_beginning_are_direct_again(void **state)
{
	struct rig *r = *state;
	unsigned int i;

	start(r);
	for (i = 0; i < 3; i++) {
		begin(r);
		set_logging(r, false);
		wait_direct();
		assert_false(fake_info(0)->queues[0].shadow);
	}
}

static void
without_the_relay_all_is_marked(void **state)
{
	struct rig *r = *state;
	uint64_t page;

	vdpa_globals.dirty_mode = VDPA_DIRTY_ALL;
	start(r);
	send_log(r);
	set_logging(r, true);
	wait_mode("all");
	look(r);
	assert_null(r->avail);
	assert_int_equal(fake_get_base(r->g.vid, 0), 0);
	for (page = MEM_PAGE; page < MEM_PAGE + MEM_PAGES; page++)
		assert_true(log_has(r, page));
}

/* --- liars --- */

static void
device_that_uses_what_it_has_not_is_lost(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	guest_adds(r, 3);
	device_uses(r, 5, 0);
	fake_wait_state(0, "lost");
	fake_wait_error(0, "queue 1: the device has used buffer 5, which it does not have");
	assert_int_equal(le16toh(r->guest_used->idx), 0);
}

static void
device_that_uses_a_buffer_twice_is_lost(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	guest_adds(r, 3);
	guest_adds(r, 4);
	device_uses(r, 3, 0);
	fake_wait16(&r->guest_used->idx, 1);
	device_uses(r, 3, 0);
	fake_wait_state(0, "lost");
	assert_int_equal(le16toh(r->guest_used->idx), 1);
}

static void
device_that_lies_while_it_is_waited_for_is_lost(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	guest_adds(r, 3);
	guest_adds(r, 4);
	/* no interrupt: who looks is the one that stops the device */
	r->used->ring[0] = (struct vfe_wire_vring_used_elem){htole32(3), 0};
	r->used->ring[1] = r->used->ring[0];
	fake_store16(&r->used->idx, 2);
	assert_int_equal(fake_get_base(r->g.vid, 1), 1);
	fake_wait_state(0, "lost");
	fake_wait_error(0, "queue 1: ");
	assert_int_equal(le16toh(r->guest_used->idx), 1);
}

static void
guest_whose_chain_makes_no_sense_is_not_served(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	buffer(r, 3, BUFFER, 0, WRITE | NEXT, 3);
	guest_adds(r, 3);
	device_uses(r, 3, 8);
	fake_wait_error(0, "queue 1: buffer 3: a loop in a table of 64 descriptors");
	assert_string_equal(fake_info(0)->state, "running");
	assert_int_equal(le16toh(r->guest_used->idx), 0);
	/* what else the device has used nobody looks at: all is marked */
	wait_log(r, MEM_PAGE + MEM_PAGES - 1);
}

static void
guest_whose_head_is_no_descriptor_is_not_served(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	r->guest_avail->ring[0] = htole16(FAKE_RING_SIZE);
	fake_store16(&r->guest_avail->idx, 1);
	assert_int_equal(eventfd_write(r->g.kick[1], 1), 0);
	fake_wait_error(0, "queue 1: entry 0 of its available ring is descriptor 64 of 64");
	assert_int_equal(le16toh(r->avail->idx), 0);
}

/* --- stopping --- */

static void
nothing_is_written_after_the_answer(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	guest_adds(r, 3);
	guest_adds(r, 4);
	device_uses(r, 3, 0);
	assert_int_equal(fake_get_base(r->g.vid, 1), 1);
	device_uses(r, 4, 0);
	vdpa_shadow_run(the_vf()->plain.shadows[1]);
	assert_int_equal(le16toh(r->guest_used->idx), 1);
}

/* A look at the log after the answer must be the last one that is needed. */
static void
last_pages_are_in_the_log_before_the_answer(void **state)
{
	struct rig *r = *state;

	start(r);
	begin(r);
	buffer(r, 3, BUFFER, PAGE, WRITE, 0);
	guest_adds(r, 3);
	/* no interrupt */
	fake_ring_use(r->used, 0, 3, 1);
	assert_int_equal(fake_get_base(r->g.vid, 1), 1);
	assert_true(log_has(r, BUFFER_PAGE) && log_has(r, USED_PAGE));
	assert_int_equal(fake_info(0)->dirty.all, 0);
}

static void
stop_waits_for_requests(void **state)
{
	struct rig *r = *state;
	struct fake_get_base get;
	unsigned int resets;

	start(r);
	begin(r);
	guest_adds(r, 3);
	guest_adds(r, 4);
	resets = world.vf[0].resets;
	fake_get_base_begin(&get, r->g.vid, 1);
	while (strcmp(fake_info(0)->state, "suspending") != 0)
		sched_yield();
	fake_flush(); /* the relay learns of that a little later */
	/* what comes now is not for this device any more */
	r->guest_avail->ring[2] = htole16(5);
	fake_store16(&r->guest_avail->idx, 3);
	device_uses(r, 4, 1);
	device_uses(r, 3, 1);
	assert_int_equal(fake_get_base_end(&get), 2);
	assert_int_equal(le16toh(r->avail->idx), 2);
	assert_int_equal(world.vf[0].resets, resets + 1);
}

/* A disk without order: what it had is not what the available ring has behind the used index. */
static void
disk_that_died_gets_what_it_had(void **state)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct rig *r = *state;
	int ret;

	start(r);
	begin(r);
	guest_adds(r, 3);
	guest_adds(r, 4);
	guest_adds(r, 5);
	device_uses(r, 4, 1);
	fake_wait16(&r->guest_used->idx, 1);
	guest_adds(r, 4); /* again, for another request */
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	/* its log is completed before */
	while ((ret = vfe_vdpa_reattach(&bdf, &verr)) == -EAGAIN)
		fake_flush();
	assert_int_equal(ret, 0);
	fake_wait_state(0, "running");
	look(r);
	fake_wait16(&r->avail->idx, 3);
	assert_int_equal(le16toh(r->avail->ring[0]), 3);
	assert_int_equal(le16toh(r->avail->ring[1]), 5);
	assert_int_equal(le16toh(r->avail->ring[2]), 4);
	device_uses(r, 5, 1);
	device_uses(r, 3, 1);
	device_uses(r, 4, 1);
	fake_wait16(&r->guest_used->idx, 4);
	assert_int_equal(le32toh(r->guest_used->ring[1].id), 5);
	assert_int_equal(le32toh(r->guest_used->ring[3].id), 4);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define B(f) cmocka_unit_test_setup_teardown(f, setup_blk, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_the_device_writes_is_in_the_log),
		B(disk_may_have_written_all_of_a_request),
		T(new_log_gets_what_is_written_from_then_on),
		T(ring_in_the_middle_stays_relayed_without_a_log),
		T(rings_at_their_beginning_are_direct_again),
		T(without_the_relay_all_is_marked),
		T(device_that_uses_what_it_has_not_is_lost),
		T(device_that_uses_a_buffer_twice_is_lost),
		T(device_that_lies_while_it_is_waited_for_is_lost),
		T(guest_whose_chain_makes_no_sense_is_not_served),
		T(guest_whose_head_is_no_descriptor_is_not_served),
		T(nothing_is_written_after_the_answer),
		T(last_pages_are_in_the_log_before_the_answer),
		B(stop_waits_for_requests),
		B(disk_that_died_gets_what_it_had),
	};

	return cmocka_run_group_tests_name("vdpa_plain_log", tests, NULL, NULL);
}
