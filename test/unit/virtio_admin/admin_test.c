/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The admin queue against devices that are slow, wrong or hostile.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "admin_device.h"

enum {
	MODIFY = VFE_ADMIN_MIG_MODIFY_STATUS,
	BUSY = VFE_ADMIN_S_ERR, /* without "do not retry" */
};

static const uint8_t in4[4] = {1, 0, 2, 0};

static int
setup_vector(void **state)
{
	struct ad_env *e = ad_env_create(AD_FEATURES, AD_ARENA_SIZE);

	*state = e;
	if (ad_queue_create(e, 1, AD_TIMEOUT_MS) < 0)
		fail_msg("%s", e->err.text);
	return 0;
}

static int
setup_timer(void **state)
{
	struct ad_env *e = ad_env_create(AD_FEATURES, AD_ARENA_SIZE);

	*state = e;
	if (ad_queue_create(e, VFE_VIRTIO_MSI_NO_VECTOR, AD_TIMEOUT_MS) < 0)
		fail_msg("%s", e->err.text);
	return 0;
}

static int
setup_raw(void **state)
{
	*state = ad_env_create(AD_FEATURES, AD_ARENA_SIZE);
	return 0;
}

static int
teardown(void **state)
{
	ad_env_destroy(*state);
	return 0;
}

static bool
readable(const struct ad_env *e)
{
	struct pollfd pfd = {vfe_admin_fd(e->admin), POLLIN, 0};

	return poll(&pfd, 1, 0) == 1;
}

/* One command, taken by the device. */
static void
submit_and_take(struct ad_env *e, unsigned int i, struct ad_chain *c)
{
	assert_int_equal(ad_submit(e, i, MODIFY, in4, sizeof(in4), 0, 0), 0);
	assert_true(ad_take(e, c));
}

/* --- where and what --- */

static void
test_place_of_the_queue(void **state)
{
	struct ad_env *e = *state;
	uint16_t index = 0;

	/* no multi-queue: behind the first pair */
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), 0);
	assert_int_equal(index, 2);

	e->vdev.device_features |= VFE_BIT(22);
	e->v.device_cfg[8] = 3;
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), 0);
	assert_int_equal(index, 6);
	e->v.device_cfg[8] = 0;
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), -EPROTO);
	e->v.device_cfg[9] = 0x80;
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), -EPROTO);

	e->vdev.pci_device_id = VFE_PCI_DEVICE_VIRTIO_BLK;
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), 0);
	assert_int_equal(index, 0);
	e->vdev.pci_device_id = 0x1043;
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), -ENOTSUP);

	/* the common configuration names one */
	e->v.regs.admin_queue_index = htole16(9);
	e->v.regs.admin_queue_num = htole16(1);
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), 0);
	assert_int_equal(index, 9);
	e->vdev.common.length = 60;
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), -ENOTSUP);

	e->vdev.device_features &= ~VFE_BIT(VFE_ADMIN_F_VQ);
	assert_int_equal(vfe_admin_queue_index(&e->vdev, &index, &e->err), -ENOTSUP);
}

static void
test_features_that_a_pf_must_offer(void **state)
{
	unsigned int bit;

	(void)state;
	assert_true(vfe_admin_features_wanted(AD_FEATURES) == AD_FEATURES);
	assert_true(vfe_admin_features_wanted(0) == 0);
	for (bit = 0; bit < 64; bit++) {
		if ((AD_FEATURES & VFE_BIT(bit)) != 0)
			assert_true(vfe_admin_features_wanted(UINT64_MAX & ~VFE_BIT(bit)) == 0);
	}
	/* tracking modes are taken, bits of which we know nothing are not */
	assert_true(vfe_admin_features_wanted(UINT64_MAX) ==
		    (AD_FEATURES | VFE_BIT(45) | VFE_BIT(46) | VFE_BIT(47) | VFE_BIT(48) |
			    VFE_BIT(49)));
}

static void
test_queue_is_programmed_and_smaller_than_the_device_allows(void **state)
{
	struct ad_env *e = *state;
	struct fake_queue *q = &e->v.q[AD_QUEUE];

	q->max_size = q->size = 32768;
	assert_int_equal(ad_queue_create(e, 3, 0), 0);
	assert_int_equal(q->enable, 1);
	assert_int_equal(q->size, 256);
	assert_int_equal(q->vector, 3);
	assert_true(e->v.f.irq_fds[3] >= 0);
	assert_non_null(fake_pci_dma(&e->v.f, q->desc, vfe_vring_desc_bytes(256)));
	assert_non_null(fake_pci_dma(&e->v.f, q->driver, vfe_vring_avail_bytes(256)));
	assert_non_null(fake_pci_dma(&e->v.f, q->device, vfe_vring_used_bytes(256)));
	assert_int_equal(q->desc % 4096, 0);
	assert_int_equal(q->device % 4096, 0);
	vfe_admin_destroy(e->admin);
	e->admin = NULL;
	assert_int_equal(e->v.f.irq_fds[3], -1);
}

static void
test_queues_that_cannot_be_set_up(void **state)
{
	struct ad_env *e = *state;
	struct fake_queue *q = &e->v.q[AD_QUEUE];

	assert_int_equal(ad_queue_create(e, FAKE_MAX_IRQS, 0), -EINVAL);
	q->size = 0;
	assert_int_equal(ad_queue_create(e, 1, 0), -EPROTO);
	q->size = 2;
	assert_int_equal(ad_queue_create(e, 1, 0), -EPROTO);
	assert_non_null(strstr(e->err.text, "admin queue 4"));
	q->size = 100;
	assert_int_equal(ad_queue_create(e, 1, 0), -EPROTO);
	q->size = 64;
	q->notify_off = 0xffff;
	assert_int_equal(ad_queue_create(e, 1, 0), -EPROTO);
	q->notify_off = 0;
	e->v.refuse_vectors = true;
	assert_int_equal(ad_queue_create(e, 1, 0), -ENOSPC);
	e->v.refuse_vectors = false;
	e->v.refuse_enable = true;
	assert_int_equal(ad_queue_create(e, 1, 0), -EIO);
	e->v.refuse_enable = false;
	assert_int_equal(ad_queue_create(e, 1, 0), 0);
}

/* --- the wire --- */

static void
test_restore_is_four_descriptors_with_a_padded_blob(void **state)
{
	struct ad_env *e = *state;
	struct vfe_wire_admin_state in;
	uint8_t blob[5000];
	struct ad_chain c;
	unsigned int i;

	memset(blob, 0xab, sizeof(blob));
	assert_int_equal(
		vfe_admin_restore_state(e->admin, 6, blob, sizeof(blob), ad_done, &e->results[0]),
		0);
	memset(blob, 0, sizeof(blob)); /* copied */
	assert_int_equal(e->v.kicks[AD_QUEUE], 1);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.n, 4);
	assert_int_equal(c.seg[0].len, 2);
	assert_int_equal(c.seg[0].va[0], 64);
	assert_int_equal(c.seg[0].va[1], 5);
	assert_int_equal(c.seg[1].len, 24);
	memcpy(&in, c.seg[1].va, sizeof(in));
	assert_int_equal(le16toh(in.vdev_id), 7);
	assert_int_equal(le64toh(in.offset), 0);
	assert_int_equal(le64toh(in.length), 8192);
	assert_int_equal(c.seg[2].len, 8192);
	assert_int_equal(c.seg[2].iova % 4096, 0);
	for (i = 0; i < 8192; i++)
		assert_int_equal(c.seg[2].va[i], i < 5000 ? 0xab : 0);
	assert_false(c.seg[0].write || c.seg[1].write || c.seg[2].write);
	assert_true(c.seg[3].write);
	assert_int_equal(c.seg[3].len, 1);
	assert_int_equal(*c.seg[3].va, 0xff);

	ad_answer(e, &c, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, 0);
	assert_int_equal(e->results[0].out_len, 0);
}

static void
test_save_and_small_results(void **state)
{
	struct ad_env *e = *state;
	const uint64_t pending = htole64(12345);
	uint8_t saved[8192];
	struct ad_chain c;

	assert_int_equal(vfe_admin_save_state(e->admin, 0, 4096, 8192, ad_done, &e->results[0]), 0);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.n, 4);
	assert_int_equal(c.seg[2].len, 8192);
	assert_true(c.seg[2].write);
	assert_int_equal(c.seg[2].iova % 4096, 0);
	memset(saved, 0x5a, sizeof(saved));
	ad_answer(e, &c, 0, saved, sizeof(saved));

	assert_int_equal(vfe_admin_pending_bytes(e->admin, 0, ad_done, &e->results[1]), 0);
	assert_true(ad_take(e, &c));
	assert_int_equal(c.seg[0].va[1], 3);
	assert_int_equal(c.seg[2].len, 8);
	ad_answer(e, &c, 0, &pending, sizeof(pending));
	ad_interrupt(e);
	ad_wait(e, 1);
	assert_int_equal(e->results[0].status, 0);
	assert_int_equal(e->results[0].out_len, 8192);
	assert_int_equal(e->results[0].out[63], 0x5a);
	assert_int_equal(e->results[1].out_len, 8);
	assert_memory_equal(e->results[1].out, &pending, 8);
}

static void
test_parameters_out_of_range(void **state)
{
	struct ad_env *e = *state;
	struct vfe_admin_cmd cmd = {.done = ad_done, .ctx = &e->results[0]};

	assert_int_equal(vfe_admin_get_status(e->admin, 65535, ad_done, NULL), -EINVAL);
	assert_int_equal(vfe_admin_save_state(e->admin, 0, 0, 0, ad_done, NULL), -EINVAL);
	assert_int_equal(vfe_admin_save_state(e->admin, 0, 0, UINT64_MAX, ad_done, NULL), -EINVAL);
	assert_int_equal(vfe_admin_restore_state(e->admin, 0, in4, 0, ad_done, NULL), -EINVAL);
	cmd.in_len = 1;
	assert_int_equal(vfe_admin_submit(e->admin, &cmd), -EINVAL);
	cmd.in_len = 0;
	cmd.done = NULL;
	assert_int_equal(vfe_admin_submit(e->admin, &cmd), -EINVAL);
	assert_int_equal(e->v.kicks[AD_QUEUE], 0);
}

/* --- answers --- */

static void
test_answers_in_any_order(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c[4];
	unsigned int i;

	for (i = 0; i < 4; i++)
		submit_and_take(e, i, &c[i]);
	ad_answer(e, &c[2], 0, NULL, 0);
	ad_answer(e, &c[0], VFE_ADMIN_S_DNR | 1, NULL, 0);
	ad_answer(e, &c[3], 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 3);
	assert_int_equal(e->results[2].order, 1);
	assert_int_equal(e->results[0].status, -EIO);
	assert_int_equal(e->results[1].calls, 0);
	ad_answer(e, &c[1], 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 1);
	for (i = 0; i < 4; i++)
		assert_int_equal(e->results[i].calls, 1);
	assert_false(readable(e));
}

static void
test_refusal_names_command_and_status(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	ad_answer(e, &c, VFE_ADMIN_S_DNR | VFE_ADMIN_S_INVALID_COMMAND, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -EIO);
	assert_non_null(strstr(e->results[0].err.text, "64/2 (modify status)"));
	assert_non_null(strstr(e->results[0].err.text, "0x83"));
	assert_non_null(strstr(e->results[0].err.text, "invalid command"));
}

static void
test_status_that_was_not_written(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	ad_use(e, c.head);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -EIO);
	assert_int_equal(vfe_admin_error(e->admin), 0);
}

static void
test_busy_device_is_asked_again_with_the_same_chain(void **state)
{
	struct ad_env *e = *state;
	struct pollfd pfd = {vfe_admin_fd(e->admin), POLLIN, 0};
	uint64_t last = vfe_clock_ns(), now;
	struct ad_chain c, again;
	unsigned int i;

	submit_and_take(e, 0, &c);
	for (i = 0; i < 4; i++) {
		ad_answer(e, &c, BUSY, NULL, 0);
		ad_interrupt(e);
		do {
			assert_int_equal(poll(&pfd, 1, 10000), 1);
			vfe_admin_process(e->admin);
		} while (!ad_take(e, &again));
		now = vfe_clock_ns();
		assert_int_equal(again.head, c.head);
		assert_int_equal(*again.seg[2].va, 0xff); /* preset again */
		/* pauses double: 10, 20, 40, 80 ms, less a quarter */
		assert_true(now - last >= 7500000u << i);
		last = now;
		assert_int_equal(e->results[0].calls, 0);
	}
	assert_int_equal(e->v.kicks[AD_QUEUE], 5);
	ad_answer(e, &again, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, 0);
}

static void
test_device_that_is_busy_for_ever(void **state)
{
	struct ad_env *e = *state;
	uint64_t begin = vfe_clock_ns();
	struct ad_chain c;
	unsigned int tries = 0;

	assert_int_equal(ad_submit(e, 0, MODIFY, in4, sizeof(in4), 0, 300), 0);
	while (e->results[0].calls == 0) {
		struct pollfd pfd = {vfe_admin_fd(e->admin), POLLIN, 0};

		while (ad_take(e, &c)) {
			tries++;
			ad_answer(e, &c, BUSY, NULL, 0);
			ad_interrupt(e);
		}
		assert_int_equal(poll(&pfd, 1, 10000), 1);
		vfe_admin_process(e->admin);
	}
	assert_int_equal(e->results[0].status, -EIO);
	assert_true(vfe_clock_ns() - begin >= 300000000u);
	assert_int_equal(vfe_admin_retries(e->admin), tries - 1);
	assert_in_range(tries, 2, 7); /* at 0, 10, 30, 70, 150, 310 ms, give or take */
	assert_false(readable(e));

	/* and the queue is as good as new */
	submit_and_take(e, 1, &c);
	ad_answer(e, &c, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 1);
	assert_int_equal(e->results[1].status, 0);
}

static void
test_command_that_is_never_answered_keeps_its_memory(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain lost, c;

	assert_int_equal(ad_submit(e, 0, MODIFY, in4, sizeof(in4), 0, 30), 0);
	assert_true(ad_take(e, &lost));
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -ETIMEDOUT);
	assert_int_equal(vfe_admin_error(e->admin), 0);

	/* a new command must not get memory that the device may still write to */
	submit_and_take(e, 1, &c);
	assert_int_not_equal(c.head, lost.head);
	assert_int_not_equal(c.seg[0].iova, lost.seg[0].iova);

	/* the late answer gives it back, and nobody is called twice */
	ad_answer(e, &lost, 0, NULL, 0);
	ad_answer(e, &c, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 1);
	assert_int_equal(e->results[0].calls, 1);
	submit_and_take(e, 2, &c);
	assert_int_equal(c.seg[0].iova, lost.seg[0].iova);
	assert_int_equal(vfe_admin_error(e->admin), 0);
}

static void
test_unknown_vf_status_fails_the_command_only(void **state)
{
	struct ad_env *e = *state;
	uint8_t result[4] = {4, 0, 0, 0};
	struct ad_chain c;

	assert_int_equal(vfe_admin_get_status(e->admin, 0, ad_done, &e->results[0]), 0);
	assert_true(ad_take(e, &c));
	ad_answer(e, &c, 0, result, sizeof(result));
	assert_int_equal(vfe_admin_get_status(e->admin, 0, ad_done, &e->results[1]), 0);
	assert_true(ad_take(e, &c));
	result[0] = VFE_ADMIN_VF_FREEZED;
	ad_answer(e, &c, 0, result, sizeof(result));
	ad_interrupt(e);
	ad_wait(e, 1);
	assert_int_equal(e->results[0].status, -EPROTO);
	assert_non_null(strstr(e->results[0].err.text, "VF status 4"));
	assert_int_equal(e->results[1].status, 0);
	assert_int_equal(e->results[1].out[0], VFE_ADMIN_VF_FREEZED);
}

/* --- devices that break the ring --- */

/* Everything ends with -EPROTO, once, and the queue takes no more. */
static void
expect_broken(struct ad_env *e, unsigned int n, const char *text)
{
	unsigned int i;

	ad_interrupt(e);
	ad_wait(e, n - 1);
	for (i = 0; i < n; i++) {
		assert_int_equal(e->results[i].calls, 1);
		assert_int_equal(e->results[i].status, -EPROTO);
		assert_non_null(strstr(e->results[i].err.text, text));
	}
	assert_int_equal(vfe_admin_error(e->admin), -EPROTO);
	assert_int_equal(ad_submit(e, n, MODIFY, NULL, 0, 0, 0), -EPROTO);
	assert_false(readable(e));
	vfe_admin_process(e->admin);
	assert_int_equal(e->results[0].calls, 1);
}

static void
test_used_id_out_of_range(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	submit_and_take(e, 1, &c);
	ad_use(e, 64);
	expect_broken(e, 2, "chain 64");
}

static void
test_used_id_of_32_bits(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	ad_use(e, 0x10000u + c.head); /* right in the low half */
	expect_broken(e, 1, "chain 65536");
}

static void
test_used_id_inside_a_chain(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	ad_use(e, c.head + 1u);
	expect_broken(e, 1, "not out");
}

static void
test_same_chain_twice(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain a, b;

	submit_and_take(e, 0, &a);
	submit_and_take(e, 1, &b);
	ad_answer(e, &a, 0, NULL, 0);
	ad_use(e, a.head);
	ad_interrupt(e);
	ad_wait(e, 1);
	assert_int_equal(e->results[0].calls, 1);
	assert_int_equal(e->results[0].status, 0);
	assert_int_equal(e->results[1].status, -EPROTO);
	assert_int_equal(vfe_admin_error(e->admin), -EPROTO);
}

static void
test_chain_returned_while_it_rests_before_a_retry(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c, other;

	submit_and_take(e, 0, &c);
	submit_and_take(e, 1, &other);
	ad_answer(e, &c, BUSY, NULL, 0);
	ad_use(e, c.head);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -EPROTO);
	assert_int_equal(e->results[0].calls, 1);
	assert_int_equal(e->results[1].status, -EPROTO);
}

static void
test_used_index_jumps_ahead(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	ad_used(e)->ring[0].id = htole32(c.head);
	ad_used(e)->idx = htole16(2);
	expect_broken(e, 1, "from 0 to 2 with 1");
}

static void
test_used_index_goes_back(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	ad_used(e)->idx = htole16(0xffff);
	expect_broken(e, 1, "from 0 to 65535");
}

static void
test_used_index_moves_while_nothing_is_out(void **state)
{
	struct ad_env *e = *state;

	ad_use(e, 0);
	ad_interrupt(e);
	vfe_admin_process(e->admin);
	assert_int_equal(vfe_admin_error(e->admin), -EPROTO);
	assert_int_equal(ad_submit(e, 0, MODIFY, NULL, 0, 0, 0), -EPROTO);
	assert_int_equal(e->results[0].calls, 0);
}

static void
test_device_that_scribbles_over_descriptors(void **state)
{
	struct ad_env *e = *state;
	const struct fake_queue *q = &e->v.q[AD_QUEUE];
	struct ad_chain a, b;

	submit_and_take(e, 0, &a);
	submit_and_take(e, 1, &b);
	memset(fake_pci_dma(&e->v.f, q->desc, vfe_vring_desc_bytes(64)), 0xff,
		vfe_vring_desc_bytes(64));
	ad_answer(e, &b, 0, NULL, 0);
	ad_answer(e, &a, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, 0);
	assert_int_equal(e->results[1].status, 0);

	/* the next chains are whole again */
	submit_and_take(e, 2, &a);
	assert_int_equal(a.n, 3);
	submit_and_take(e, 3, &b);
	assert_int_equal(b.n, 3);
}

static void
test_lost_device_ends_everything_at_once(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	submit_and_take(e, 0, &c);
	vfe_pci_abort(&e->v.f.pci);
	vfe_admin_process(e->admin);
	assert_int_equal(e->results[0].status, -ENODEV);
	assert_int_equal(vfe_admin_error(e->admin), -ENODEV);
}

static void
test_loss_noticed_by_the_doorbell_ends_on_the_processing_thread(void **state)
{
	struct ad_env *e = *state;

	e->v.doorbell_result = -ENODEV;
	assert_int_equal(ad_submit(e, 0, MODIFY, NULL, 0, 0, 0), 0);
	assert_int_equal(e->results[0].calls, 0);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -ENODEV);
}

/* --- room --- */

static void
test_more_commands_than_the_ring_holds_keep_their_order(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;
	unsigned int i, taken = 0;

	for (i = 0; i < 200; i++)
		assert_int_equal(ad_submit(e, i, MODIFY, &i, sizeof(i), 0, 0), 0);
	while (taken < 200) {
		assert_true(ad_take(e, &c));
		memcpy(&i, c.seg[1].va, sizeof(i));
		assert_int_equal(i, taken);
		taken++;
		ad_answer(e, &c, 0, NULL, 0);
		ad_interrupt(e);
		vfe_admin_process(e->admin);
	}
	for (i = 0; i < 200; i++) {
		assert_int_equal(e->results[i].calls, 1);
		assert_int_equal(e->results[i].status, 0);
		assert_int_equal(e->results[i].order, i + 1);
	}
	assert_false(readable(e));
}

static void
test_ring_full_of_commands_that_are_never_answered(void **state)
{
	struct ad_env *e = *state;
	unsigned int i;

	for (i = 0; i < 30; i++)
		assert_int_equal(ad_submit(e, i, MODIFY, in4, sizeof(in4), 0, 30), 0);
	ad_wait(e, 29);
	for (i = 0; i < 30; i++) {
		assert_int_equal(e->results[i].calls, 1);
		assert_int_equal(e->results[i].status, -ETIMEDOUT);
	}
	/* 21 chains of 3 are with the device; the rest never had room */
	assert_non_null(strstr(e->results[20].err.text, "no answer"));
	assert_non_null(strstr(e->results[21].err.text, "no room"));
}

static void
test_too_many_commands(void **state)
{
	struct ad_env *e = *state;
	unsigned int i;

	for (i = 0; i < 4096; i++)
		assert_int_equal(ad_submit(e, i, MODIFY, in4, sizeof(in4), 0, 0), 0);
	assert_int_equal(ad_submit(e, i, MODIFY, in4, sizeof(in4), 0, 0), -ENOSPC);
	vfe_admin_destroy(e->admin);
	e->admin = NULL;
	assert_int_equal(e->ended, 4096);
	assert_int_equal(e->results[4096].calls, 0);
}

static void
test_command_larger_than_the_arena(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	assert_int_equal(
		vfe_admin_save_state(e->admin, 0, 0, AD_ARENA_SIZE, ad_done, &e->results[0]), 0);
	assert_int_equal(ad_submit(e, 1, MODIFY, in4, sizeof(in4), 0, 0), 0);
	assert_int_equal(e->results[0].calls, 0); /* not on this thread */
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -ENOMEM);
	assert_true(ad_take(e, &c));
	ad_answer(e, &c, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 1);
	assert_int_equal(e->results[1].status, 0);
}

static void
test_commands_wait_for_memory_of_others(void **state)
{
	struct ad_env *e = *state;
	const size_t len = AD_ARENA_SIZE / 2;
	uint8_t *blob = calloc(1, len);
	struct ad_chain c;

	assert_non_null(blob);
	assert_int_equal(
		vfe_admin_restore_state(e->admin, 0, blob, len, ad_done, &e->results[0]), 0);
	assert_int_equal(
		vfe_admin_restore_state(e->admin, 1, blob, len, ad_done, &e->results[1]), 0);
	free(blob);
	assert_true(ad_take(e, &c));
	ad_answer(e, &c, 0, NULL, 0);
	assert_false(ad_take(e, &c));
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_true(ad_take(e, &c));
	ad_answer(e, &c, 0, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 1);
	assert_int_equal(e->results[1].status, 0);
}

/* --- doorbell, interrupt, timer --- */

static void
test_doorbell_that_is_full_is_rung_again(void **state)
{
	struct ad_env *e = *state;
	struct pollfd pfd = {vfe_admin_fd(e->admin), POLLIN, 0};

	e->v.doorbell_result = -EAGAIN;
	assert_int_equal(ad_submit(e, 0, MODIFY, in4, sizeof(in4), 0, 0), 0);
	assert_int_equal(poll(&pfd, 1, 10000), 1);
	vfe_admin_process(e->admin);
	assert_int_equal(e->v.kicks[AD_QUEUE], 0);
	e->v.doorbell_result = 0;
	assert_int_equal(poll(&pfd, 1, 10000), 1);
	vfe_admin_process(e->admin);
	assert_int_equal(e->v.kicks[AD_QUEUE], 1);
	assert_false(readable(e));
}

static void
test_device_that_wants_no_doorbell(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	ad_used(e)->flags = htole16(VFE_VRING_USED_F_NO_NOTIFY);
	submit_and_take(e, 0, &c);
	assert_int_equal(e->v.kicks[AD_QUEUE], 0);
	ad_used(e)->flags = 0;
	submit_and_take(e, 1, &c);
	assert_int_equal(e->v.kicks[AD_QUEUE], 1);
}

static void
test_idle_queue_is_silent(void **state)
{
	struct ad_env *e = *state;
	struct vfe_deadline d;
	struct ad_chain c;

	assert_false(readable(e));
	assert_false(vfe_admin_next_deadline(e->admin, &d));
	submit_and_take(e, 0, &c);
	assert_true(vfe_admin_next_deadline(e->admin, &d));
	ad_answer(e, &c, 0, NULL, 0);
	if (e->v.q[AD_QUEUE].vector != VFE_VIRTIO_MSI_NO_VECTOR)
		ad_interrupt(e);
	ad_wait(e, 0);
	assert_false(readable(e));
	assert_false(vfe_admin_next_deadline(e->admin, &d));
}

static void
test_without_vector_the_device_is_told_and_the_ring_polled(void **state)
{
	struct ad_env *e = *state;
	const struct vfe_wire_vring_avail *avail =
		fake_pci_dma(&e->v.f, e->v.q[AD_QUEUE].driver, 4);
	struct ad_chain c;

	assert_int_equal(e->v.q[AD_QUEUE].vector, VFE_VIRTIO_MSI_NO_VECTOR);
	assert_int_equal(le16toh(avail->flags), VFE_VRING_AVAIL_F_NO_INTERRUPT);
	submit_and_take(e, 0, &c);
	ad_answer(e, &c, 0, NULL, 0);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, 0);
}

static void
test_with_vector_nothing_is_polled(void **state)
{
	struct ad_env *e = *state;
	const struct vfe_wire_vring_avail *avail =
		fake_pci_dma(&e->v.f, e->v.q[AD_QUEUE].driver, 4);
	struct pollfd pfd = {vfe_admin_fd(e->admin), POLLIN, 0};
	struct ad_chain c;

	assert_int_equal(le16toh(avail->flags), 0);
	submit_and_take(e, 0, &c);
	ad_answer(e, &c, 0, NULL, 0);
	assert_int_equal(poll(&pfd, 1, 20), 0);
	ad_interrupt(e);
	assert_int_equal(poll(&pfd, 1, 10000), 1);
	vfe_admin_process(e->admin);
	assert_int_equal(e->results[0].calls, 1);
}

/* --- identity --- */

static void
answer_identity(struct ad_env *e, uint8_t class_, const void *result)
{
	struct ad_chain c;

	assert_true(ad_take(e, &c));
	assert_int_equal(c.n, 3);
	assert_int_equal(c.seg[0].va[0], class_);
	assert_int_equal(c.seg[0].va[1], 0);
	ad_answer(e, &c, 0, result, 8);
	ad_interrupt(e);
	vfe_admin_process(e->admin);
}

static const uint8_t mig_identity[8] = {1, 0, 2, 0, 3, 0, 0, 0};

static void
test_identity_without_tracking_asks_once(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	assert_int_equal(vfe_admin_identify(e->admin, ad_done, &e->results[0]), 0);
	answer_identity(e, VFE_ADMIN_CLASS_MIGRATION, mig_identity);
	assert_false(ad_take(e, &c));
	assert_int_equal(e->results[0].calls, 1);
	assert_int_equal(e->results[0].status, 0);
	assert_int_equal(vfe_admin_caps(e->admin)->major, 1);
	assert_int_equal(vfe_admin_caps(e->admin)->minor, 2);
	assert_false(vfe_admin_caps(e->admin)->dirty_push_bitmap);
}

static struct ad_env *
identify_tracking(uint64_t bits, const uint8_t dirty[8])
{
	struct ad_env *e = ad_env_create(AD_FEATURES | bits, AD_ARENA_SIZE);

	assert_int_equal(ad_queue_create(e, 1, 0), 0);
	assert_int_equal(vfe_admin_identify(e->admin, ad_done, &e->results[0]), 0);
	answer_identity(e, VFE_ADMIN_CLASS_MIGRATION, mig_identity);
	answer_identity(e, VFE_ADMIN_CLASS_DIRTY, dirty);
	assert_int_equal(e->results[0].calls, 1);
	return e;
}

static void
test_identity_against_negotiated_bits(void **state)
{
	const uint64_t all = VFE_BIT(46) | VFE_BIT(47) | VFE_BIT(48) | VFE_BIT(49);
	const struct vfe_admin_caps *caps;
	struct ad_env *e;

	(void)state;
	e = identify_tracking(all, (const uint8_t[]){30, 0, 28, 0, 16, 0, 0, 0});
	caps = vfe_admin_caps(e->admin);
	assert_int_equal(e->results[0].status, 0);
	assert_true(caps->dirty_push_bitmap && caps->dirty_push_bytemap &&
		    caps->dirty_pull_bitmap && caps->dirty_pull_bytemap);
	assert_int_equal(caps->log_max_pages_pull_bitmap, 30);
	assert_int_equal(caps->log_max_pages_pull_bytemap, 28);
	assert_int_equal(caps->max_track_ranges, 16);
	ad_env_destroy(e);

	/* pulling without room for a single page */
	e = identify_tracking(VFE_BIT(46) | VFE_BIT(48), (const uint8_t[]){0, 0, 0, 0, 1, 0, 0, 0});
	caps = vfe_admin_caps(e->admin);
	assert_int_equal(e->results[0].status, -EPROTO);
	assert_true(caps->dirty_push_bitmap);
	assert_false(caps->dirty_pull_bitmap);
	ad_env_destroy(e);

	/* more pages than there are addresses */
	e = identify_tracking(VFE_BIT(49), (const uint8_t[]){0, 0, 64, 0, 1, 0, 0, 0});
	assert_int_equal(e->results[0].status, -EPROTO);
	assert_false(vfe_admin_caps(e->admin)->dirty_pull_bytemap);
	ad_env_destroy(e);

	/* no range */
	e = identify_tracking(VFE_BIT(46), (const uint8_t[]){30, 0, 30, 0, 0, 0, 0, 0});
	assert_int_equal(e->results[0].status, -EPROTO);
	assert_false(vfe_admin_caps(e->admin)->dirty_push_bitmap);
	ad_env_destroy(e);

	/* what is not negotiated is not looked at */
	e = identify_tracking(VFE_BIT(47), (const uint8_t[]){0, 0, 0, 0, 1, 0, 0, 0});
	assert_int_equal(e->results[0].status, 0);
	assert_true(vfe_admin_caps(e->admin)->dirty_push_bytemap);
	assert_false(vfe_admin_caps(e->admin)->dirty_push_bitmap);
	ad_env_destroy(e);
}

static void
test_identity_that_is_refused(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;

	assert_int_equal(vfe_admin_identify(e->admin, ad_done, &e->results[0]), 0);
	assert_true(ad_take(e, &c));
	ad_answer(e, &c, VFE_ADMIN_S_DNR | VFE_ADMIN_S_INVALID_CLASS, NULL, 0);
	ad_interrupt(e);
	ad_wait(e, 0);
	assert_int_equal(e->results[0].status, -EIO);
}

/* --- the end --- */

static void
test_destroy_ends_commands_of_every_state_once(void **state)
{
	struct ad_env *e = *state;
	struct ad_chain c;
	unsigned int i;

	submit_and_take(e, 0, &c);
	ad_answer(e, &c, BUSY, NULL, 0);
	ad_interrupt(e);
	vfe_admin_process(e->admin); /* 0 rests */
	assert_int_equal(ad_submit(e, 1, MODIFY, in4, sizeof(in4), 0, 1), 0);
	ad_wait(e, 1);           /* 1 is with the device although it has ended */
	for (i = 2; i < 50; i++) /* out, and waiting */
		assert_int_equal(ad_submit(e, i, MODIFY, in4, sizeof(in4), 0, 0), 0);
	vfe_admin_destroy(e->admin);
	e->admin = NULL;
	for (i = 0; i < 50; i++) {
		assert_int_equal(e->results[i].calls, 1);
		assert_int_equal(e->results[i].status, i == 1 ? -ETIMEDOUT : -ECANCELED);
	}
}

struct chain_ctx {
	struct ad_env *e;
	unsigned int left;
	int rc; /* of the last submission */
};

static void
submit_next(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct chain_ctx *c = ctx;

	(void)out;
	(void)out_len;
	(void)err;
	if (status < 0 || c->left == 0) {
		c->rc = vfe_admin_modify_status(
			c->e->admin, 0, VFE_ADMIN_VF_RUNNING, submit_next, c);
		return;
	}
	c->left--;
	c->rc = vfe_admin_modify_status(c->e->admin, 0, VFE_ADMIN_VF_RUNNING, submit_next, c);
}

static void
test_callbacks_submit_again_also_while_the_queue_is_destroyed(void **state)
{
	struct ad_env *e = *state;
	struct chain_ctx ctx = {.e = e, .left = 100};
	struct ad_chain c;

	submit_next(&ctx, 0, NULL, 0, NULL);
	while (ctx.left > 0) {
		assert_int_equal(ctx.rc, 0);
		assert_true(ad_take(e, &c));
		ad_answer(e, &c, 0, NULL, 0);
		ad_interrupt(e);
		vfe_admin_process(e->admin);
	}
	vfe_admin_destroy(e->admin);
	e->admin = NULL;
	assert_int_equal(ctx.rc, -ECANCELED);
}

/* --- at random, and from many threads --- */

static void
test_random_devices(void **state)
{
	struct ad_env *e;
	struct ad_chain c;
	unsigned int round, i, n, broken = 0;

	(void)state;
	srand(1);
	for (round = 0; round < 300; round++) {
		e = ad_env_create(AD_FEATURES, 1 << 16);
		assert_int_equal(ad_queue_create(e, 1, 5), 0);
		n = 1 + (unsigned int)rand() % 40;
		for (i = 0; i < n; i++)
			assert_int_equal(ad_submit(e, i, MODIFY, in4, (size_t)rand() % 5,
						 (size_t)rand() % 600, 0),
				0);
		for (i = 0; i < 60; i++) {
			switch (rand() % 8) {
			case 0:
				ad_used(e)->idx = (uint16_t)rand();
				break;
			case 1:
				ad_use(e, (uint32_t)rand() % 70);
				break;
			case 2:
				memset(e->v.f.maps[0].va + rand() % 4096, rand(), 4096);
				break;
			default:
				/* the avail ring may be scribbled over: take only what is sane */
				if (round % 2 == 0 && ad_take(e, &c))
					ad_answer(e, &c, (uint8_t)(rand() % 3), NULL, 0);
				break;
			}
			vfe_admin_process(e->admin);
			if (vfe_admin_error(e->admin) != 0)
				break;
			if (round % 2 == 0 && i > 20)
				break;
		}
		broken += vfe_admin_error(e->admin) != 0;
		vfe_admin_destroy(e->admin);
		e->admin = NULL;
		for (i = 0; i < n; i++)
			assert_int_equal(e->results[i].calls, 1);
		ad_env_destroy(e);
	}
	assert_in_range(broken, 100, 300);
}

enum { THREADS = 4, PER_THREAD = 300 };

static atomic_uint sum_of_outputs;
static atomic_uint ended;

static void
count_done(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	uint32_t v;

	(void)ctx;
	(void)err;
	assert_int_equal(status, 0);
	assert_int_equal(out_len, sizeof(v));
	memcpy(&v, out, sizeof(v));
	atomic_fetch_add(&sum_of_outputs, v);
	atomic_fetch_add(&ended, 1);
}

static void *
submit_many(void *arg)
{
	struct ad_env *e = arg;
	uint32_t i;

	for (i = 0; i < PER_THREAD; i++) {
		struct vfe_admin_cmd cmd = {
			.class_ = 64,
			.in = &i,
			.in_len = sizeof(i),
			.out_len = sizeof(i),
			.done = count_done,
		};

		assert_int_equal(vfe_admin_submit(e->admin, &cmd), 0);
	}
	return NULL;
}

/* Answers every command with its input. */
static void *
echo_device(void *arg)
{
	struct ad_env *e = arg;
	unsigned int left = THREADS * PER_THREAD;
	struct ad_chain c;

	while (left > 0) {
		if (!ad_take(e, &c)) {
			poll(NULL, 0, 1);
			continue;
		}
		ad_answer(e, &c, 0, c.seg[1].va, 4);
		ad_interrupt(e);
		left--;
	}
	return NULL;
}

static void
test_many_threads_submit(void **state)
{
	struct ad_env *e = *state;
	struct vfe_deadline deadline = vfe_deadline_in_ms(30000);
	struct pollfd pfd = {vfe_admin_fd(e->admin), POLLIN, 0};
	pthread_t device, threads[THREADS];
	unsigned int i;

	atomic_store(&sum_of_outputs, 0);
	atomic_store(&ended, 0);
	assert_int_equal(pthread_create(&device, NULL, echo_device, e), 0);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, submit_many, e), 0);
	while (atomic_load(&ended) < THREADS * PER_THREAD) {
		assert_false(vfe_deadline_passed(deadline));
		if (poll(&pfd, 1, 1000) == 1)
			vfe_admin_process(e->admin);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_join(device, NULL);
	assert_int_equal(atomic_load(&sum_of_outputs), THREADS * (PER_THREAD - 1) * PER_THREAD / 2);
}

#define VECTOR(test) cmocka_unit_test_setup_teardown(test, setup_vector, teardown)
#define TIMER(test)  cmocka_unit_test_setup_teardown(test, setup_timer, teardown)
#define RAW(test)    cmocka_unit_test_setup_teardown(test, setup_raw, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		RAW(test_place_of_the_queue),
		cmocka_unit_test(test_features_that_a_pf_must_offer),
		RAW(test_queue_is_programmed_and_smaller_than_the_device_allows),
		RAW(test_queues_that_cannot_be_set_up),
		VECTOR(test_restore_is_four_descriptors_with_a_padded_blob),
		VECTOR(test_save_and_small_results),
		VECTOR(test_parameters_out_of_range),
		VECTOR(test_answers_in_any_order),
		VECTOR(test_refusal_names_command_and_status),
		VECTOR(test_status_that_was_not_written),
		VECTOR(test_busy_device_is_asked_again_with_the_same_chain),
		VECTOR(test_device_that_is_busy_for_ever),
		VECTOR(test_command_that_is_never_answered_keeps_its_memory),
		VECTOR(test_unknown_vf_status_fails_the_command_only),
		VECTOR(test_used_id_out_of_range),
		VECTOR(test_used_id_of_32_bits),
		VECTOR(test_used_id_inside_a_chain),
		VECTOR(test_same_chain_twice),
		VECTOR(test_chain_returned_while_it_rests_before_a_retry),
		VECTOR(test_used_index_jumps_ahead),
		VECTOR(test_used_index_goes_back),
		VECTOR(test_used_index_moves_while_nothing_is_out),
		VECTOR(test_device_that_scribbles_over_descriptors),
		VECTOR(test_lost_device_ends_everything_at_once),
		VECTOR(test_loss_noticed_by_the_doorbell_ends_on_the_processing_thread),
		VECTOR(test_more_commands_than_the_ring_holds_keep_their_order),
		VECTOR(test_ring_full_of_commands_that_are_never_answered),
		VECTOR(test_too_many_commands),
		VECTOR(test_command_larger_than_the_arena),
		VECTOR(test_commands_wait_for_memory_of_others),
		VECTOR(test_doorbell_that_is_full_is_rung_again),
		VECTOR(test_device_that_wants_no_doorbell),
		VECTOR(test_idle_queue_is_silent),
		TIMER(test_idle_queue_is_silent),
		TIMER(test_without_vector_the_device_is_told_and_the_ring_polled),
		VECTOR(test_with_vector_nothing_is_polled),
		VECTOR(test_identity_without_tracking_asks_once),
		cmocka_unit_test(test_identity_against_negotiated_bits),
		VECTOR(test_identity_that_is_refused),
		VECTOR(test_destroy_ends_commands_of_every_state_once),
		VECTOR(test_callbacks_submit_again_also_while_the_queue_is_destroyed),
		cmocka_unit_test(test_random_devices),
		VECTOR(test_many_threads_submit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
