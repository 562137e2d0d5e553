/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What most tests of the driver begin and end with.
 */

#undef NDEBUG

#include <endian.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "fake_world.h"

enum {
	MAX_FDS = 1024,
	WAIT_MS = 10000,
};

void
fake_vf_add(unsigned int i, const char *uuid)
{
	struct vfe_bdf bdf = fake_vf(i);
	struct vfe_vdpa_error err;

	if (vfe_vdpa_vf_add(&bdf, uuid, &err) < 0)
		fail_msg("%d %s", err.code, err.err.text);
}

void
fake_vf_add_plain(unsigned int i)
{
	struct vfe_bdf bdf = fake_vf(i);
	struct vfe_vdpa_error err;

	if (vfe_vdpa_vf_add_plain(&bdf, NULL, false, &err) < 0)
		fail_msg("%d %s", err.code, err.err.text);
}

int
fake_setup_started_plain(void **state)
{
	struct fake_guest *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	fake_vf_add_plain(0);
	fake_guest_open(g, 0);
	*state = g;
	return 0;
}

int
fake_setup_started(void **state)
{
	struct fake_guest *g = calloc(1, sizeof(*g));
	struct vfe_vdpa_error err;

	assert_non_null(g);
	if (vfe_vdpa_pf_add(&fake_pf, &err) < 0)
		fail_msg("%d %s", err.code, err.err.text);
	fake_vf_add(0, NULL);
	fake_guest_open(g, 0);
	*state = g;
	return 0;
}

int
fake_setup(void **state)
{
	fake_start();
	return fake_setup_started(state);
}

int
fake_teardown(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_disconnect(g);
	fake_stop();
	fake_guest_close(g);
	free(g);
	return 0;
}

unsigned int
fake_nr_fds(void)
{
	unsigned int n = 0;
	int fd;

	for (fd = 0; fd < MAX_FDS; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

void
fake_store16(uint16_t *p, uint16_t value)
{
	__atomic_store_n(p, htole16(value), __ATOMIC_RELEASE);
}

void
fake_wait16(const uint16_t *p, uint16_t value)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(WAIT_MS);

	while (le16toh(__atomic_load_n(p, __ATOMIC_ACQUIRE)) != value) {
		if (vfe_deadline_passed(deadline))
			fail_msg("%u, expected %u", le16toh(*p), value);
		sched_yield();
	}
}

void
fake_ring_use(struct vfe_wire_vring_used *used, uint16_t at, uint16_t head, uint32_t len)
{
	used->ring[at % FAKE_RING_SIZE] =
		(struct vfe_wire_vring_used_elem){htole32(head), htole32(len)};
	fake_store16(&used->idx, (uint16_t)(at + 1));
}

void
fake_ring_interrupt(unsigned int i, unsigned int q)
{
	assert_int_equal(eventfd_write(world.vf[i].irq_fds[q + 1], 1), 0);
}

void
fake_wait_error(unsigned int i, const char *text)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(WAIT_MS);

	while (strstr(fake_info(i)->last_error, text) == NULL) {
		if (vfe_deadline_passed(deadline))
			fail_msg("error is \"%s\"", fake_info(i)->last_error);
		fake_flush();
	}
}

void
fake_wait_mode(unsigned int i, const char *mode)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(WAIT_MS);

	while (strcmp(fake_info(i)->dirty.mode, mode) != 0) {
		if (vfe_deadline_passed(deadline))
			fail_msg("mode is %s", fake_info(i)->dirty.mode);
		fake_flush();
	}
}

bool
fake_signalled(int fd)
{
	eventfd_t v;

	return eventfd_read(fd, &v) == 0;
}
