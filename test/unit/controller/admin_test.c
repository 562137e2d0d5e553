/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The admin queue of a PF: internal status, state, and what a driver can get wrong.
 */

#undef NDEBUG

#include "rig.h"

#include "admin.h"

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
	MIG = VFE_ADMIN_CLASS_MIGRATION,
	DIRTY = VFE_ADMIN_CLASS_DIRTY,
	OK = VFE_ADMIN_S_OK,
	REFUSED = VFE_ADMIN_S_ERR | VFE_ADMIN_S_DNR,
	BAD_TRANSFER = VFE_ADMIN_S_DATA_TRANSFER | VFE_ADMIN_S_DNR,
	BAD_COMMAND = VFE_ADMIN_S_INVALID_COMMAND | VFE_ADMIN_S_DNR,
	BAD_CLASS = VFE_ADMIN_S_INVALID_CLASS | VFE_ADMIN_S_DNR,
	VF1 = 1, /* vdev_id of VF 0 */
};

static uint16_t
get_status(struct rig *rig, uint16_t vdev)
{
	const struct vfe_wire_admin_vdev in = {htole16(vdev), 0xdead};
	struct vfe_wire_admin_get_status_result result;
	const uint8_t *out;

	assert_int_equal(rig_admin(rig, MIG, VFE_ADMIN_MIG_GET_STATUS, &in, sizeof(in), NULL, 0,
				 sizeof(result), &out),
		OK);
	memcpy(&result, out, sizeof(result));
	return le16toh(result.status);
}

/* From whatever status there is, by the steps that the service takes. */
static void
go_to(struct rig *rig, uint16_t status)
{
	if (status == VFE_ADMIN_VF_INIT) {
		wr(rig_vf(rig, 0), COMMON(device_status), 0, 1);
		return;
	}
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_QUIESCED), OK);
	assert_int_equal(rig_set_status(rig, VF1, status), OK);
}

static void
freeze(struct rig *rig)
{
	go_to(rig, VFE_ADMIN_VF_FREEZED);
}

/* A state of VF 0 as the service makes it: both queues of pair 0 on, at @index. */
static size_t
make_blob(struct rig *rig, uint8_t *buf, size_t size, uint8_t status, uint16_t index)
{
	struct function *vf = rig_vf(rig, 0);
	struct vfe_state state;
	ssize_t len;
	uint16_t i;

	assert_int_equal(vfe_state_init(&state, VFE_STATE_TYPE_NET, RIG_CTRL + 1), 0);
	state.device_features = vfe_vdev_features(vf->vdev);
	state.driver_features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_RING_RESET);
	state.device_status = status;
	state.config.net.max_virtqueue_pairs = htole16(RIG_PAIRS);
	state.has_rx_mode = true;
	state.rx_mode = 1u << VFE_NET_CTRL_RX_ALLMULTI;
	for (i = 0; i <= RIG_CTRL; i++)
		state.queues[i] = (struct vfe_state_queue){
			.present = true,
			.size = RIG_QUEUE_SIZE,
			.msix_vector = i < 2 ? (uint16_t)(i + 1) : VFE_VIRTIO_MSI_NO_VECTOR,
			.enable = i < 2 && status == S_ALL,
			.desc = rig_desc(i),
			.driver = rig_desc(i) + 2048,
			.device = rig_desc(i) + 4096,
			.has_run = true,
			.last_avail_idx = index,
			.last_used_idx = index,
		};
	len = vfe_state_encode(&state, buf, size);
	assert_true(len > 0);
	vfe_state_fini(&state);
	return (size_t)len;
}

/* VF 0, which is freezed, gets it. */
static void
restore(struct rig *rig, uint8_t status, uint16_t index)
{
	uint8_t blob[4096] = {0};

	(void)make_blob(rig, blob, sizeof(blob), status, index);
	assert_int_equal(rig_restore(rig, VF1, 0, blob, sizeof(blob)), OK);
}

static void
identity_of_both_classes(void **state)
{
	struct rig *rig = *state;
	const uint8_t *out;

	rig_admin_up(rig, 0);
	assert_int_equal(
		rig_admin(rig, MIG, VFE_ADMIN_MIG_IDENTITY, NULL, 0, NULL, 0, 8, &out), OK);
	assert_int_equal(out[0], 1); /* major */
	assert_int_equal(
		rig_admin(rig, DIRTY, VFE_ADMIN_DIRTY_IDENTITY, NULL, 0, NULL, 0, 8, &out), OK);
	assert_memory_equal(out, "\x1e\0\x1c\0\x10\0\0\0", 8);
	assert_int_equal(
		vfe_vdev_features(rig_pf(rig)->vdev) >> VFE_ADMIN_F_DIRTY_PUSH_BITMAP & 0xf, 0xf);
	assert_true(vfe_vdev_features(rig_pf(rig)->vdev) >> VFE_ADMIN_F_MIGRATION & 1);
}

/* Every pair of internal states; a refused step leaves the old one. */
static void
only_legal_transitions_happen(void **state)
{
	static const char legal[4][5] = {
		/* to: INIT RUNNING QUIESCED FREEZED */
		"yyyn", /* INIT */
		"nyyn", /* RUNNING */
		"nyyy", /* QUIESCED */
		"nnyy", /* FREEZED */
	};
	struct rig *rig = *state;
	uint16_t from, to;

	rig_admin_up(rig, 0);
	for (from = 0; from < 4; from++) {
		for (to = 0; to < 4; to++) {
			bool yes = legal[from][to] == 'y';

			go_to(rig, VFE_ADMIN_VF_INIT);
			if (from != VFE_ADMIN_VF_INIT)
				go_to(rig, from);
			assert_int_equal(get_status(rig, VF1), from);
			assert_int_equal(rig_set_status(rig, VF1, to), yes ? OK : REFUSED);
			assert_int_equal(get_status(rig, VF1), yes ? to : from);
		}
	}
	assert_int_equal(rig_set_status(rig, VF1, 4), REFUSED);
	assert_int_equal(rig_set_status(rig, VF1, 0xffff), REFUSED);
}

static void
quiesce_drains_and_running_goes_on(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_port *port = rig_port(vf);

	rig_admin_up(rig, 0);
	rig_bring_up(rig, vf);
	assert_int_equal(get_status(rig, VF1), VFE_ADMIN_VF_RUNNING);
	port->queues[0].avail = 40;
	port->queues[0].used = 40;
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_QUIESCED), OK);
	assert_false(port->queues[0].started || port->queues[1].started);

	/* doorbells while it stands still are not lost: the ring is looked at when it goes on */
	wr(vf, vfe_vdev_doorbell_offset(vf->vdev, 0), 0, 2);
	port->queues[0].kicks = 0;
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_RUNNING), OK);
	assert_true(port->queues[0].started);
	assert_int_equal(port->queues[0].cfg.ring.last_avail_idx, 40);
	assert_int_equal(port->queues[0].cfg.ring.last_used_idx, 40);
	assert_int_equal(port->queues[0].kicks, 1);
}

static void
a_frozen_device_is_set_up_but_does_not_start(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_admin_up(rig, 0);
	freeze(rig);
	rig_bring_up(rig, vf);
	assert_false(rig_port(vf)->queues[0].started);
	assert_int_equal(get_status(rig, VF1), VFE_ADMIN_VF_FREEZED);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	assert_true(rig_port(vf)->queues[0].started);
}

static void
reset_leads_back_to_init(void **state)
{
	struct rig *rig = *state;

	rig_admin_up(rig, 0);
	freeze(rig);
	wr(rig_vf(rig, 0), COMMON(device_status), 0, 1);
	assert_int_equal(get_status(rig, VF1), VFE_ADMIN_VF_INIT);
	assert_int_equal(get_status(rig, VF1 + 1), VFE_ADMIN_VF_INIT);
}

static void
restored_queues_start_at_their_indices(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_port *port = rig_port(vf);

	rig_admin_up(rig, 0);
	rig_connect(vf);
	rig_map(rig, vf);
	freeze(rig);
	restore(rig, S_ALL, 0xfffe);
	assert_int_equal(rd(vf, COMMON(device_status), 1), S_ALL);
	assert_int_equal(port->starts, 0);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	assert_int_equal(port->starts, 2);
	assert_int_equal(port->queues[1].cfg.ring.last_avail_idx, 0xfffe);
	assert_int_equal(port->queues[1].cfg.ring.desc, rig_desc(1));
	assert_true(port->filter.allmulti);
	assert_false(port->filter.promisc);
}

/* Let the loop run until @n frames have been sent, at most 2 s. */
static void
wait_frames(struct rig *rig, const struct fake_port *port, unsigned int n)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(2000);

	while (port->frames < n && !vfe_deadline_passed(deadline))
		ev_run(rig->loop, EVRUN_ONCE);
	assert_int_equal(port->frames, n);
}

static void
restored_vf_announces_its_address(void **state)
{
	static const uint8_t expected[60] = "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x20\x80\x35"
					    "\0\x01\x08\0\x06\x04\0\x03\x02\0\0\0\0\x20\0\0\0\0"
					    "\x02\0\0\0\0\x20";
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_port *port = rig_port(vf);

	rig_admin_up(rig, 0);
	rig_bring_up(rig, vf);
	freeze(rig);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	assert_int_equal(port->frames, 0); /* nothing was restored */
	freeze(rig);
	restore(rig, S_ALL, 0);
	assert_int_equal(port->frames, 0);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	assert_int_equal(port->frames, 1);
	assert_memory_equal(port->frame, expected, sizeof(expected));
	wait_frames(rig, port, 3);
	/* once is enough, and a parked one has nothing to say */
	freeze(rig);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	freeze(rig);
	restore(rig, 3, 0);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	assert_int_equal(port->frames, 3);
}

static void
frozen_vf_does_not_announce(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_admin_up(rig, 0);
	rig_connect(vf);
	rig_map(rig, vf);
	freeze(rig);
	restore(rig, S_ALL, 0);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	freeze(rig);
	ev_run(rig->loop, EVRUN_ONCE); /* the timers of the announcement, and nothing else */
	ev_run(rig->loop, EVRUN_ONCE);
	assert_int_equal(rig_port(vf)->frames, 1);
}

static void
a_parked_state_starts_nothing(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_admin_up(rig, 0);
	rig_bring_up(rig, vf);
	freeze(rig);
	restore(rig, 3, 0);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
	assert_int_equal(rd(vf, COMMON(device_status), 1), 3);
	assert_false(rig_port(vf)->queues[0].started);
}

static void
a_vf_whose_rings_do_not_start_stays_as_it_is(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_admin_up(rig, 0);
	rig_connect(vf);
	rig_map(rig, vf);
	freeze(rig);
	restore(rig, S_ALL, 0);
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_QUIESCED), OK);
	rig_port(vf)->start_error = -EFAULT;
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_RUNNING), REFUSED);
	assert_int_equal(get_status(rig, VF1), VFE_ADMIN_VF_QUIESCED);
	assert_int_equal(rd(vf, COMMON(device_status), 1), S_ALL);
	rig_port(vf)->start_error = 0;
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_RUNNING), OK);
	assert_true(rig_port(vf)->queues[0].started);
}

static void
a_state_can_come_in_whole_pages(void **state)
{
	static uint8_t blob[3 * 4096];
	struct rig *rig = *state;
	const struct vfe_wire_state_tlv filler = {htole32(VFE_STATE_SUBVENDOR), htole32(2 * 4096)};
	uint32_t count;
	size_t len;

	rig_admin_up(rig, 0);
	freeze(rig);
	memset(blob, 0, sizeof(blob));
	len = make_blob(rig, blob, sizeof(blob), 3, 0);
	memcpy(&count, blob, sizeof(count));
	count = htole32(le32toh(count) + 1);
	memcpy(blob, &count, sizeof(count));
	memcpy(blob + len, &filler, sizeof(filler));

	assert_int_equal(rig_restore(rig, VF1, 0, blob, 4096), OK);
	/* half a state is nothing to run with */
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_QUIESCED), OK);
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_RUNNING), REFUSED);
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_FREEZED), OK);
	assert_int_equal(rig_restore(rig, VF1, 2 * 4096, blob, 4096), REFUSED); /* a gap */
	assert_int_equal(rig_restore(rig, VF1, 4096, blob + 4096, 2 * 4096), OK);
	assert_int_equal(rd(rig_vf(rig, 0), COMMON(device_status), 1), 3);
	go_to(rig, VFE_ADMIN_VF_RUNNING);
}

static void
a_state_that_is_cut_or_wrong_is_refused(void **state)
{
	struct rig *rig = *state;
	uint8_t blob[4096] = {0};
	size_t len;

	rig_admin_up(rig, 0);
	assert_int_equal(rig_restore(rig, VF1, 0, blob, sizeof(blob)), REFUSED); /* not FREEZED */
	freeze(rig);
	len = make_blob(rig, blob, sizeof(blob), S_ALL, 0);
	assert_int_equal(rig_restore(rig, VF1, 0, blob, len - 1), REFUSED);
	assert_int_equal(rig_restore(rig, VF1, 0, blob, 3), REFUSED);
	assert_int_equal(rig_restore(rig, VF1, 7, blob, len), REFUSED);
	memset(blob, 0xff, sizeof(blob));
	assert_int_equal(rig_restore(rig, VF1, 0, blob, sizeof(blob)), REFUSED);
	assert_int_equal(rd(rig_vf(rig, 0), COMMON(device_status), 1), 0);

	/* nothing of the failed attempts is left */
	restore(rig, 3, 0);
}

static void
the_saved_state_can_be_read_in_pieces(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	const struct vfe_wire_admin_vdev vdev = {htole16(VF1), 0};
	struct vfe_wire_admin_state in = {.vdev_id = htole16(VF1)};
	struct vfe_wire_admin_pending_result pending;
	uint8_t blob[4096] = {0};
	struct vfe_state *saved = calloc(1, sizeof(*saved));
	const uint8_t *out;
	uint64_t size, off;

	assert_non_null(saved);
	rig_admin_up(rig, 0);
	rig_bring_up(rig, vf);
	assert_int_equal(rig_admin(rig, MIG, VFE_ADMIN_MIG_PENDING_BYTES, &vdev, sizeof(vdev), NULL,
				 0, sizeof(pending), &out),
		OK);
	memcpy(&pending, out, sizeof(pending));
	size = le64toh(pending.bytes);
	assert_in_range(size, 300, sizeof(blob) - 100);

	in.length = htole64(100);
	for (off = 0; off < size; off += 100) {
		in.offset = htole64(off);
		assert_int_equal(rig_admin(rig, MIG, VFE_ADMIN_MIG_SAVE_STATE, &in, sizeof(in),
					 NULL, 0, 100, &out),
			OK);
		memcpy(blob + off, out, 100);
	}
	assert_int_equal(vfe_state_decode(saved, VFE_STATE_TYPE_NET, blob, sizeof(blob), NULL), 0);
	assert_int_equal(saved->device_status, S_ALL);
	assert_int_equal(saved->num_queues, RIG_CTRL + 1);
	assert_true(saved->queues[1].enable);
	assert_false(saved->queues[1].has_run); /* it is running */
	assert_int_equal(rig_port(vf)->stops, 0);
	vfe_state_fini(saved);
	free(saved);

	in.offset = htole64(size + 1);
	assert_int_equal(
		rig_admin(rig, MIG, VFE_ADMIN_MIG_SAVE_STATE, &in, sizeof(in), NULL, 0, 100, NULL),
		REFUSED);
}

static void
malformed_commands_are_not_to_be_retried(void **state)
{
	struct rig *rig = *state;
	const uint8_t in[32] = {VF1};
	struct vfe_wire_admin_state st = {.vdev_id = htole16(VF1), .length = htole64(64)};

	rig_admin_up(rig, 0);
	assert_int_equal(rig_admin(rig, 63, 0, in, 4, NULL, 0, 8, NULL), BAD_CLASS);
	assert_int_equal(rig_admin(rig, MIG, 6, in, 4, NULL, 0, 8, NULL), BAD_COMMAND);
	assert_int_equal(rig_admin(rig, DIRTY, 5, in, 24, NULL, 0, 0, NULL), BAD_COMMAND);
	assert_int_equal(rig_admin(rig, DIRTY, VFE_ADMIN_DIRTY_START, in, 23, NULL, 0, 0, NULL),
		BAD_TRANSFER);
	assert_int_equal(rig_admin(rig, MIG, VFE_ADMIN_MIG_GET_STATUS, in, 3, NULL, 0, 4, NULL),
		BAD_TRANSFER);
	assert_int_equal(rig_admin(rig, MIG, VFE_ADMIN_MIG_GET_STATUS, in, 4, NULL, 0, 3, NULL),
		BAD_TRANSFER);
	/* more to save than there is room, more to restore than was sent */
	assert_int_equal(
		rig_admin(rig, MIG, VFE_ADMIN_MIG_SAVE_STATE, &st, sizeof(st), NULL, 0, 63, NULL),
		BAD_TRANSFER);
	freeze(rig);
	assert_int_equal(
		rig_admin(rig, MIG, VFE_ADMIN_MIG_RESTORE_STATE, &st, sizeof(st), in, 32, 0, NULL),
		BAD_TRANSFER);
	st.length = UINT64_MAX;
	assert_int_equal(
		rig_admin(rig, MIG, VFE_ADMIN_MIG_SAVE_STATE, &st, sizeof(st), NULL, 0, 100, NULL),
		BAD_TRANSFER);
	assert_int_equal(
		rig_admin(rig, MIG, VFE_ADMIN_MIG_RESTORE_STATE, &st, sizeof(st), in, 32, 0, NULL),
		BAD_TRANSFER);
	assert_int_equal(rig_set_status(rig, 0, VFE_ADMIN_VF_QUIESCED), REFUSED);
	assert_int_equal(rig_set_status(rig, 3, VFE_ADMIN_VF_QUIESCED), REFUSED);
	assert_false((rd(rig_pf(rig), COMMON(device_status), 1) & VFE_VIRTIO_S_NEEDS_RESET) != 0);
}

static void
a_vf_that_is_being_reset_asks_for_a_retry(void **state)
{
	struct rig *rig = *state;

	rig_admin_up(rig, 0);
	/* the reset takes 20 ms and begins while the command waits for its own 20 ms */
	rig_admin_post(rig, MIG, VFE_ADMIN_MIG_PENDING_BYTES, (const uint8_t[]){VF1, 0, 0, 0}, 4,
		NULL, 0, 8);
	ev_timer_set(&rig_vf(rig, 0)->reset_timer, 10., 0.);
	wr(rig_vf(rig, 0), COMMON(device_status), 0, 1);
	ev_timer_stop(rig->loop, &rig_vf(rig, 0)->reset_timer);
	assert_true(rig_wait_used(rig, 0));
	assert_int_equal(rig->pf_mem[RIG_MEM_SIZE / 2 + 32768 - 1], VFE_ADMIN_S_ERR);
}

static void
slow_commands_are_in_flight_together(void **state)
{
	struct rig *rig = *state;
	struct admin_stats stats;
	uint16_t done = 0;
	int i;

	rig_admin_up(rig, 0);
	for (i = 0; i < 8; i++)
		rig_admin_post(rig, MIG, VFE_ADMIN_MIG_IDENTITY, NULL, 0, NULL, 0, 8);
	admin_get_stats(rig_pf(rig)->admin, &stats);
	assert_int_equal(stats.in_flight, 8);
	while (done < 8 && rig_wait_used(rig, done))
		done++;
	admin_get_stats(rig_pf(rig)->admin, &stats);
	assert_int_equal(stats.in_flight, 0);
	assert_int_equal(stats.commands, 8);
}

static void
reset_of_the_pf_forgets_commands_in_flight(void **state)
{
	struct rig *rig = *state;
	struct admin_stats stats;

	rig_admin_up(rig, 0);
	rig_admin_post(rig, MIG, VFE_ADMIN_MIG_MODIFY_STATUS,
		(const uint8_t[]){VF1, 0, VFE_ADMIN_VF_QUIESCED, 0}, 4, NULL, 0, 0);
	wr(rig_pf(rig), COMMON(device_status), 0, 1);
	admin_get_stats(rig_pf(rig)->admin, &stats);
	assert_int_equal(stats.in_flight, 0);
	assert_int_equal(rig_vf(rig, 0)->internal, VFE_ADMIN_VF_INIT);
}

static void
memory_of_commands_in_flight_can_go(void **state)
{
	struct rig *rig = *state;
	struct admin_stats stats;

	rig_admin_up(rig, 0);
	rig_admin_post(rig, MIG, VFE_ADMIN_MIG_IDENTITY, NULL, 0, NULL, 0, 8);
	rig_disconnect(rig_pf(rig), &rig->pf_dma);
	admin_get_stats(rig_pf(rig)->admin, &stats);
	assert_int_equal(stats.in_flight, 0);
	rig_turn(rig);
}

static void
a_ring_that_lies_fails_the_pf_only(void **state)
{
	struct rig *rig = *state;
	struct function *pf = rig_pf(rig);
	struct vfe_wire_vring_avail *avail;

	rig_admin_up(rig, 0);
	rig_bring_up(rig, rig_vf(rig, 0));
	avail = (void *)(rig->pf_mem + rig_desc(pf->admin_qid) - RIG_IOVA + 2048);
	avail->idx = 1000;
	wr(pf, vfe_vdev_doorbell_offset(pf->vdev, pf->admin_qid), 0, 2);
	assert_true((rd(pf, COMMON(device_status), 1) & VFE_VIRTIO_S_NEEDS_RESET) != 0);
	assert_non_null(strstr(pf->last_error.text, "1000"));
	assert_int_equal(rd(rig_vf(rig, 0), COMMON(device_status), 1), S_ALL);
	assert_true(rig_port(rig_vf(rig, 0))->queues[0].started);
}

#define T(f)      cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
#define T_SLOW(f) cmocka_unit_test_setup_teardown(f, rig_setup_slow, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(identity_of_both_classes),
		T(only_legal_transitions_happen),
		T(quiesce_drains_and_running_goes_on),
		T(a_frozen_device_is_set_up_but_does_not_start),
		T(reset_leads_back_to_init),
		T(restored_queues_start_at_their_indices),
		T(restored_vf_announces_its_address),
		T(frozen_vf_does_not_announce),
		T(a_parked_state_starts_nothing),
		T(a_vf_whose_rings_do_not_start_stays_as_it_is),
		T(a_state_can_come_in_whole_pages),
		T(a_state_that_is_cut_or_wrong_is_refused),
		T(the_saved_state_can_be_read_in_pieces),
		T(malformed_commands_are_not_to_be_retried),
		T_SLOW(a_vf_that_is_being_reset_asks_for_a_retry),
		T_SLOW(slow_commands_are_in_flight_together),
		T_SLOW(reset_of_the_pf_forgets_commands_in_flight),
		T_SLOW(memory_of_commands_in_flight_can_go),
		T(a_ring_that_lies_fails_the_pf_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
