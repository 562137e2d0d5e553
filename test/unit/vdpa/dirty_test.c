/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Dirty pages: no page that the device wrote may be missing from the log when a ring is stopped,
 * whatever happens to log, memory, device and front-end meanwhile.
 */

#undef NDEBUG

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"
#include "vfe_sigbus.h"

enum {
	PAGE = 4096,
	LOG_SIZE = PAGE, /* 128 MiB of memory */
	MEM_PAGE = FAKE_MEM_GPA / PAGE,
	MEM_PAGES = FAKE_MEM_SIZE / PAGE,
	MORE_GPA = 0x400000, /* memory that is added */
	MORE_PAGE = MORE_GPA / PAGE,
	PROTOCOL = FAKE_PROTOCOL_STATUS | 1 << VDPA_PROTOCOL_F_LOG_SHMFD,
	WAIT_MS = 10000,
};

static const enum vdpa_dirty_mode modes[] = {VDPA_DIRTY_DIRECT, VDPA_DIRTY_PUSH_BITMAP,
	VDPA_DIRTY_PULL_BITMAP, VDPA_DIRTY_PUSH_BYTEMAP, VDPA_DIRTY_PULL_BYTEMAP, VDPA_DIRTY_ALL};
static struct vfe_vdpa_error verr;

/* The front-end's log. */
struct log {
	int fd;
	uint8_t *map;
	size_t size;
};

static void
log_open(struct log *log, size_t size)
{
	log->fd = vfe_memfd_create("log", size);
	log->size = size;
	log->map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, log->fd, 0);
	assert_true(log->map != MAP_FAILED);
}

static void
log_close(struct log *log)
{
	munmap(log->map, log->size);
	vfe_close(&log->fd);
}

static bool
log_has(const struct log *log, uint64_t page)
{
	return (__atomic_load_n(&log->map[page / 8], __ATOMIC_ACQUIRE) >> page % 8 & 1) != 0;
}

static unsigned int
log_count(const struct log *log)
{
	unsigned int n = 0;
	size_t i;

	for (i = 0; i < log->size; i++)
		n += (unsigned int)__builtin_popcount(log->map[i]);
	return n;
}

static bool
log_has_all(const struct log *log)
{
	uint64_t page;

	for (page = MEM_PAGE; page < MEM_PAGE + MEM_PAGES; page++) {
		if (!log_has(log, page))
			return false;
	}
	return true;
}

static int
send_log(struct fake_guest *g, const struct log *log)
{
	struct vdpa_msg_log payload = {.size = log->size};

	return fake_send(g->vid, VDPA_MSG_SET_LOG_BASE, &payload, sizeof(payload), &log->fd, 1);
}

static void
set_logging(struct fake_guest *g, bool on)
{
	uint64_t features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_CSUM) |
			    VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES) |
			    (on ? VFE_BIT(VFE_VHOST_F_LOG_ALL) : 0);

	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES, features), 0);
}

static void
begin_migration(struct fake_guest *g, struct log *log)
{
	log_open(log, LOG_SIZE);
	assert_int_equal(send_log(g, log), 0);
	set_logging(g, true);
}

/* A running guest. */
static void
start_with(struct fake_guest *g, uint64_t protocol_features)
{
	fake_guest_connect(g, protocol_features);
	fake_guest_prepare(g, 2);
	fake_guest_driver_ok(g);
	/* without STATUS the first ring has started it, and the second one starts it again */
	while (!fake_info(g->vf)->queues[1].enabled)
		fake_flush();
	fake_wait_state(g->vf, "running");
}

static void
start(struct fake_guest *g)
{
	start_with(g, PROTOCOL);
}

static void
stop(struct fake_guest *g)
{
	assert_true(fake_get_base(g->vid, 0) >= 0);
}

/* Both rings at once, so that it is started once. */
static void
resume(struct fake_guest *g)
{
	assert_true(fake_get_base(g->vid, 1) >= 0);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0), 0);
	fake_guest_ring(g, 0);
	fake_guest_ring(g, 1);
	fake_wait_state(g->vf, "suspended");
	fake_guest_driver_ok(g);
	fake_wait_state(g->vf, "running");
}

static const char *
mode_now(void)
{
	return fake_info(0)->dirty.mode;
}

#define WAIT_FOR(condition)                                              \
	do {                                                             \
		struct vfe_deadline until = vfe_deadline_in_ms(WAIT_MS); \
		while (!(condition)) {                                   \
			assert_false(vfe_deadline_passed(until));        \
			fake_flush();                                    \
			usleep(500); /* of the driver's own timers */    \
		}                                                        \
	} while (0)

/* LOG_ALL off, and the device does not track any more. */
static void
end_migration(struct fake_guest *g)
{
	set_logging(g, false);
	WAIT_FOR(strcmp(mode_now(), "off") == 0);
}

static bool
is_idle(void)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct vdpa_vf *vf = vdpa_vf_find(&bdf);
	bool idle;

	pthread_mutex_lock(&vf->lock);
	idle = vf->dirty.idle;
	pthread_mutex_unlock(&vf->lock);
	return idle;
}

static void
use_mode(enum vdpa_dirty_mode mode)
{
	vdpa_globals.dirty_mode = mode;
}

static void
all_caps(struct vfe_admin_caps *caps)
{
	*caps = (struct vfe_admin_caps){
		.dirty_push_bitmap = true,
		.dirty_push_bytemap = true,
		.dirty_pull_bitmap = true,
		.dirty_pull_bytemap = true,
		.log_max_pages_pull_bitmap = 20,
		.log_max_pages_pull_bytemap = 20,
		.max_track_ranges = 4,
	};
}

static int
setup(void **state)
{
	fake_start();
	vdpa_globals.ms.dirty_round = 5;
	vdpa_globals.ms.dirty_blind = 20;
	vdpa_globals.ms.dirty_retry = 60000;
	all_caps(&world.caps);
	return fake_setup_started(state);
}

static int
teardown(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_disconnect(g);
	fake_stop();
	assert_false(fake_device_tracks(0));
	fake_guest_close(g);
	free(g);
	use_mode(VDPA_DIRTY_AUTO);
	return 0;
}

/* --- each mode --- */

/* What is written first is merged by a round, what is written last by the stop. */
static void
every_mode_tells_exactly_what_was_written(void **state)
{
	struct fake_guest *g = *state;
	unsigned int i, mapped;
	struct log log;

	start(g);
	mapped = world.mapped;
	for (i = 0; modes[i] != VDPA_DIRTY_ALL; i++) {
		use_mode(modes[i]);
		begin_migration(g, &log);
		assert_true(fake_device_tracks(0));
		assert_string_equal(mode_now(), vdpa_dirty_mode_name(modes[i]));
		assert_string_equal(fake_info(0)->dirty.last_error, "");
		assert_true(fake_device_writes(0, FAKE_MEM_GPA + 5 * PAGE));
		WAIT_FOR(log_has(&log, MEM_PAGE + 5));
		memset(log.map, 0, log.size);
		assert_true(fake_device_writes(0, FAKE_MEM_GPA));
		assert_true(fake_device_writes(0, FAKE_MEM_GPA + FAKE_MEM_SIZE - 1));
		stop(g);
		assert_true(log_has(&log, MEM_PAGE));
		assert_true(log_has(&log, MEM_PAGE + MEM_PAGES - 1));
		assert_int_equal(log_count(&log), 2);
		fake_wait_state(0, "suspended");
		assert_false(fake_device_tracks(0));
		assert_string_equal(fake_info(0)->migration, "stopped");
		if (modes[i] != VDPA_DIRTY_DIRECT) {
			assert_int_equal(fake_info(0)->dirty.pages, 3);
			assert_true(fake_info(0)->dirty.rounds >= 2);
			assert_true(fake_info(0)->dirty.map_bytes > 0);
		}
		assert_int_equal(fake_info(0)->dirty.all, 0);
		assert_int_equal(world.mapped, mapped);
		end_migration(g);
		resume(g);
		log_close(&log);
	}
}

static void
mode_all_marks_again_and_again(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	use_mode(VDPA_DIRTY_ALL);
	start(g);
	begin_migration(g, &log);
	assert_false(fake_device_tracks(0));
	assert_string_equal(mode_now(), "all");
	WAIT_FOR(log_has_all(&log));
	memset(log.map, 0, log.size);
	WAIT_FOR(log_has_all(&log));
	memset(log.map, 0, log.size);
	stop(g);
	assert_true(log_has_all(&log));
	assert_int_equal(log_count(&log), MEM_PAGES); /* memory only, no holes */
	assert_true(fake_info(0)->dirty.all >= 3);
	log_close(&log);
}

static void
best_mode_is_chosen(void **state)
{
	static const struct {
		bool push_bitmap, pull_bitmap, push_bytemap, pull_bytemap, sealed;
		uint32_t ranges;
		const char *mode;
	} cases[] = {
		{true, true, true, true, true, 1, "direct"},
		{true, true, true, true, false, 1, "push-bitmap"},
		{false, true, true, true, true, 1, "pull-bitmap"},
		{false, true, true, true, true, 0, "push-bytemap"},
		{false, false, true, true, true, 1, "push-bytemap"},
		{false, false, false, true, true, 1, "pull-bytemap"},
		{false, false, false, false, true, 1, "all"},
	};
	struct vdpa_dirty_plan plan;
	struct vfe_admin_caps caps;
	struct vdpa_table table = {.nr_regions = 1};
	struct vfe_dirty_log words = {.words = 64};
	struct log file;
	struct vdpa_log log = {.log = words, .size = 512};
	unsigned int i, m;

	(void)state;
	log_open(&file, LOG_SIZE);
	log.fd = file.fd;
	table.regions[0].size = 1 << 20;
	for (i = 0; i < VFE_ARRAY_SIZE(cases); i++) {
		all_caps(&caps);
		caps.dirty_push_bitmap = cases[i].push_bitmap;
		caps.dirty_pull_bitmap = cases[i].pull_bitmap;
		caps.dirty_push_bytemap = cases[i].push_bytemap;
		caps.dirty_pull_bytemap = cases[i].pull_bytemap;
		caps.max_track_ranges = cases[i].ranges;
		log.sealed = cases[i].sealed;
		for (m = 0; m + 1 < VFE_ARRAY_SIZE(modes); m++) {
			if (vdpa_dirty_plan(modes[m], &caps, &table, &log, &plan) == 0)
				break;
		}
		assert_string_equal(vdpa_dirty_mode_name(modes[m]), cases[i].mode);
	}
	log_close(&file);
}

/* --- plans --- */

static void
set_regions(struct vdpa_table *table, unsigned int nr, const uint64_t (*r)[2])
{
	unsigned int i;

	memset(table, 0, sizeof(*table));
	table->nr_regions = nr;
	for (i = 0; i < nr; i++) {
		table->regions[i].gpa = r[i][0];
		table->regions[i].size = r[i][1];
	}
}

static void
ranges_fit_what_the_device_can_hold(void **state)
{
	static const uint64_t far[][2] = {
		{0x100000000, 0x100000}, {0, 0xa0000}, {0xc0000, 0x40000000 - 0xc0000}};
	static const uint64_t near[][2] = {{0, 0x80000000}, {0x100000000, 0x80000000}};
	struct vdpa_dirty_plan plan;
	struct vfe_admin_caps caps;
	struct vdpa_table table;

	(void)state;
	all_caps(&caps);
	caps.log_max_pages_pull_bitmap = 30;
	set_regions(&table, 2, near);
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_PULL_BITMAP, &caps, &table, NULL, &plan), 0);
	assert_int_equal(plan.nr_ranges, 1);
	assert_int_equal(plan.ranges[0].len, 0x180000000);
	assert_int_equal(plan.ranges[0].map_bytes, 0x180000 / 8);

	/* too many pages in one */
	caps.log_max_pages_pull_bitmap = 20;
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_PULL_BITMAP, &caps, &table, NULL, &plan), 0);
	assert_int_equal(plan.nr_ranges, 2);
	assert_int_equal(plan.ranges[1].addr, 0x100000000);
	assert_int_equal(plan.ranges[1].map_off, 0x80000 / 8);
	caps.max_track_ranges = 1;
	assert_int_equal(
		vdpa_dirty_plan(VDPA_DIRTY_PULL_BITMAP, &caps, &table, NULL, &plan), -ENOTSUP);

	/* mostly holes; ranges begin at a word of the log, and are joined then */
	caps.log_max_pages_pull_bitmap = 30;
	caps.max_track_ranges = 4;
	set_regions(&table, 3, far);
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_PULL_BITMAP, &caps, &table, NULL, &plan), 0);
	assert_int_equal(plan.nr_ranges, 3);
	assert_int_equal(plan.ranges[0].addr, 0);
	assert_int_equal(plan.ranges[1].addr, 0xc0000);
	assert_int_equal(plan.ranges[2].addr, 0x100000000);
	caps.max_track_ranges = 2;
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_PULL_BYTEMAP, &caps, &table, NULL, &plan), 0);
	assert_int_equal(plan.nr_ranges, 2);
	assert_int_equal(plan.ranges[0].len, 0x40000000);
	assert_int_equal(plan.map_bytes, 0x40000 + 0x100);

	/* pushing has no limits of the device, but our memory */
	caps.max_track_ranges = 1;
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_PUSH_BITMAP, &caps, &table, NULL, &plan), 0);
	assert_int_equal(plan.nr_ranges, 1);
	table.regions[0].gpa = 2ULL << 40; /* a bit more than 64 MiB of a map */
	assert_int_equal(
		vdpa_dirty_plan(VDPA_DIRTY_PUSH_BITMAP, &caps, &table, NULL, &plan), -ENOTSUP);
	table.nr_regions = 0;
	assert_int_equal(
		vdpa_dirty_plan(VDPA_DIRTY_PUSH_BITMAP, &caps, &table, NULL, &plan), -ENOTSUP);
}

static void
log_is_given_to_the_device_only_in_whole_pages(void **state)
{
	static const uint64_t r[][2] = {{0, 0x8008000}}; /* 4097 bytes of log */
	struct vfe_admin_caps caps;
	struct vdpa_dirty_plan plan;
	struct vdpa_table table;
	struct vdpa_log *log;
	int fd;

	(void)state;
	all_caps(&caps);
	set_regions(&table, 1, r);
	fd = vfe_memfd_create("log", 4104); /* QEMU does not round its size */
	assert_int_equal(vdpa_log_create(fd, 4104, 0, &log, NULL), 0);
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_DIRECT, &caps, &table, log, &plan), -ENOTSUP);
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_PUSH_BITMAP, &caps, &table, log, &plan), 0);
	table.regions[0].size = 0x8000000;
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_DIRECT, &caps, &table, log, &plan), 0);
	vdpa_log_put(log);
	assert_int_equal(vdpa_log_create(fd, 4096, 8, &log, NULL), 0);
	assert_int_equal(vdpa_dirty_plan(VDPA_DIRTY_DIRECT, &caps, &table, log, &plan), -ENOTSUP);
	vdpa_log_put(log);
	vfe_close(&fd);
}

/* --- failures half way --- */

/* Whatever fails: all memory is marked when the ring has stopped. */
static void
fails_with(struct fake_guest *g, enum vdpa_dirty_mode mode, enum fake_kind kind, int error)
{
	struct log log;

	use_mode(mode);
	world.fail_kind[kind] = error;
	start(g);
	begin_migration(g, &log);
	if (kind == FAKE_TRACK_PENDING)
		WAIT_FOR(strcmp(mode_now(), "all") == 0);
	fake_device_writes(0, FAKE_MEM_GPA);
	stop(g);
	assert_true(log_has_all(&log));
	assert_true(fake_info(0)->dirty.all >= 1);
	assert_string_equal(fake_info(0)->dirty.last_error, "the test says no");
	fake_wait_state(0, "suspended");
	world.fail_kind[kind] = 0;
	log_close(&log);
	fake_guest_disconnect(g);
	fake_wait_state(0, "parked");
}

static void
refused_start_marks_all(void **state)
{
	unsigned int i;

	for (i = 0; modes[i] != VDPA_DIRTY_ALL; i++)
		fails_with(*state, modes[i], FAKE_TRACK_START, -EIO);
}

static void
failed_look_marks_all(void **state)
{
	fails_with(*state, VDPA_DIRTY_PULL_BITMAP, FAKE_TRACK_PENDING, -EIO);
	fails_with(*state, VDPA_DIRTY_PULL_BYTEMAP, FAKE_TRACK_PENDING, -ETIMEDOUT);
}

static void
failed_report_marks_all(void **state)
{
	vdpa_globals.ms.dirty_round = 60000; /* the one of the stop */
	fails_with(*state, VDPA_DIRTY_PULL_BITMAP, FAKE_TRACK_REPORT, -EIO);
	fails_with(*state, VDPA_DIRTY_PULL_BYTEMAP, FAKE_TRACK_REPORT, -ETIMEDOUT);
}

static void
refused_stop_harms_nobody(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	start(g);
	begin_migration(g, &log);
	world.fail_kind[FAKE_TRACK_STOP] = -EIO;
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	stop(g);
	assert_int_equal(log_count(&log), 1);
	fake_wait_state(0, "suspended");
	world.fail_kind[FAKE_TRACK_STOP] = 0;
	fake_track_reset();
	log_close(&log);
}

/* The device may still write to a map whose start or stop it has not answered. */
static void
map_in_doubt_stays_until_the_pf_is_reset(void **state)
{
	struct fake_guest *g = *state;
	unsigned int mapped;
	struct log log;

	start(g);
	mapped = world.mapped;
	begin_migration(g, &log);
	world.fail_kind[FAKE_TRACK_STOP] = -ETIMEDOUT;
	stop(g);
	fake_wait_state(0, "suspended");
	assert_int_equal(world.mapped, mapped + 1);
	world.fail_kind[FAKE_TRACK_STOP] = 0;
	fake_track_reset();
	log_close(&log);
}

static void
front_end_that_migrates_does_not_wait_for_ever(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	start(g);
	world.automatic = false;
	log_open(&log, LOG_SIZE);
	assert_int_equal(send_log(g, &log), 0);
	set_logging(g, true); /* comes back without tracking */
	fake_expect(0, FAKE_TRACK_START);
	fake_answer(0);
	/* what was written between the answer and the start is marked with all the rest */
	WAIT_FOR(log_has_all(&log));
	assert_string_equal(mode_now(), "direct");
	world.automatic = true;
	log_close(&log);
}

static void
untracked_device_is_asked_again(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	vdpa_globals.ms.dirty_retry = 10;
	world.fail_kind[FAKE_TRACK_START] = -EIO;
	start(g);
	begin_migration(g, &log);
	assert_string_equal(mode_now(), "all");
	world.fail_kind[FAKE_TRACK_START] = 0;
	WAIT_FOR(strcmp(mode_now(), "direct") == 0 && is_idle());
	assert_true(log_has_all(&log)); /* what was written between the last marking and now */
	memset(log.map, 0, log.size);
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	stop(g);
	assert_int_equal(log_count(&log), 1);
	log_close(&log);
}

static void
reset_instead_of_freeze_marks_all(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	start(g);
	begin_migration(g, &log);
	world.fail_kind[FAKE_FREEZE] = -EIO;
	stop(g);
	assert_true(log_has_all(&log));
	world.fail_kind[FAKE_FREEZE] = 0;
	log_close(&log);
}

static void
lost_device_marks_all(void **state)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct fake_guest *g = *state;
	struct log log;

	start(g);
	begin_migration(g, &log);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	stop(g);
	assert_true(log_has_all(&log));
	log_close(&log);
}

/* A job hangs: the log is completed without the reactor. */
static void
device_that_does_not_stop_marks_all(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	start(g);
	begin_migration(g, &log);
	vdpa_globals.ms.suspend = 50;
	world.automatic = false;
	stop(g);
	assert_true(log_has_all(&log));
	assert_true(fake_info(0)->lost);
	world.automatic = true;
	log_close(&log);
}

static void
lost_pf_marks_all_until_it_is_back(void **state)
{
	struct fake_guest *g = *state;
	unsigned int i;
	struct log log;

	start(g);
	for (i = 0; modes[i] != VDPA_DIRTY_ALL; i++) {
		use_mode(modes[i]);
		begin_migration(g, &log);
		fake_hang_up(&fake_pf);
		WAIT_FOR(log_has_all(&log));
		assert_string_equal(mode_now(), "all");
		fake_track_reset();
		assert_int_equal(vfe_vdpa_reattach(&fake_pf, &verr), 0);
		WAIT_FOR(strcmp(mode_now(), vdpa_dirty_mode_name(modes[i])) == 0 && is_idle());
		memset(log.map, 0, log.size);
		assert_true(fake_device_writes(0, FAKE_MEM_GPA + PAGE));
		stop(g);
		assert_true(log_has(&log, MEM_PAGE + 1));
		end_migration(g);
		resume(g);
		log_close(&log);
	}
}

/* --- a new log --- */

/* What QEMU does: it reads the old log once more after the answer, and never again. */
static void
new_log_loses_nothing(void **state)
{
	struct fake_guest *g = *state;
	struct log old, new;
	unsigned int i, k, page = 0;
	bool written;

	start(g);
	for (i = 0; i < VFE_ARRAY_SIZE(modes); i++) {
		use_mode(modes[i]);
		begin_migration(g, &old);
		for (k = 0; k < 5; k++) {
			log_open(&new, LOG_SIZE);
			fake_device_writes(0, FAKE_MEM_GPA + page * PAGE);
			assert_int_equal(send_log(g, &new), 0);
			memset(old.map, 0, old.size / 2); /* read by QEMU, some of it */
			written = fake_device_writes(0, FAKE_MEM_GPA + (page + 1) * PAGE);
			stop(g);
			/* in the direct mode it is perhaps being restarted, and writes nothing */
			if (modes[i] == VDPA_DIRTY_ALL)
				assert_true(log_has_all(&new));
			else
				assert_true(written || modes[i] == VDPA_DIRTY_DIRECT);
			if (written)
				assert_true(log_has(&new, MEM_PAGE + page + 1));
			fake_wait_state(0, "suspended");
			resume(g);
			log_close(&old);
			old = new;
			page += 2;
		}
		end_migration(g);
		log_close(&old);
	}
}

static void
bits_that_were_not_read_from_the_old_log_move(void **state)
{
	struct fake_guest *g = *state;
	struct log old, new;
	unsigned int i;

	start(g);
	for (i = 0; modes[i] != VDPA_DIRTY_ALL; i++) {
		use_mode(modes[i]);
		begin_migration(g, &old);
		assert_true(fake_device_writes(0, FAKE_MEM_GPA + 7 * PAGE));
		WAIT_FOR(log_has(&old, MEM_PAGE + 7));
		log_open(&new, LOG_SIZE);
		assert_int_equal(send_log(g, &new), 0);
		/* without a stop by the front-end: the direct mode restarts the device */
		WAIT_FOR(log_has(&new, MEM_PAGE + 7));
		WAIT_FOR(!log_has(&old, MEM_PAGE + 7));
		fake_wait_state(0, "running");
		WAIT_FOR(strcmp(mode_now(), vdpa_dirty_mode_name(modes[i])) == 0);
		assert_true(fake_device_writes(0, FAKE_MEM_GPA + 9 * PAGE));
		stop(g);
		assert_int_equal(log_count(&new), 2);
		assert_int_equal(log_count(&old), 0);
		end_migration(g);
		resume(g);
		log_close(&old);
		log_close(&new);
	}
}

/* --- memory --- */

static int
send_memory(struct fake_guest *g, int more_fd)
{
	struct vdpa_msg_memory mem = {
		.nr_regions = more_fd >= 0 ? 2 : 1,
		.regions[0] = {FAKE_MEM_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
		.regions[1] = {MORE_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA + MORE_GPA, 0},
	};
	int fds[2] = {g->mem_fd, more_fd};

	return fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem,
		8 + mem.nr_regions * (uint32_t)sizeof(mem.regions[0]), fds, (int)mem.nr_regions);
}

static void
memory_that_is_added_is_tracked(void **state)
{
	struct fake_guest *g = *state;
	int fd = vfe_memfd_create("more", FAKE_MEM_SIZE);
	unsigned int i;
	struct log log;

	start(g);
	for (i = 0; modes[i] != VDPA_DIRTY_ALL; i++) {
		use_mode(modes[i]);
		begin_migration(g, &log);
		assert_true(fake_device_writes(0, FAKE_MEM_GPA));
		assert_int_equal(send_memory(g, fd), 0);
		WAIT_FOR(fake_device_writes(0, MORE_GPA + PAGE));
		fake_wait_state(0, "running");
		stop(g);
		assert_true(log_has(&log, MEM_PAGE));
		assert_false(log_has(&log, MEM_PAGE + 1));
		assert_true(log_has(&log, MORE_PAGE + 1));
		/* what was written before the device knew of the new memory */
		assert_true(log_has(&log, MORE_PAGE + MEM_PAGES - 1));
		assert_int_equal(send_memory(g, -1), 0);
		end_migration(g);
		resume(g);
		log_close(&log);
	}
	vfe_close(&fd);
}

static void
log_that_comes_after_the_memory_gets_all(void **state)
{
	struct fake_guest *g = *state;
	int fd = vfe_memfd_create("more", FAKE_MEM_SIZE);
	struct log small, large;

	start(g);
	log_open(&small, 64); /* 2 MiB: ends with the memory */
	assert_int_equal(send_log(g, &small), 0);
	set_logging(g, true);
	assert_int_equal(send_memory(g, fd), 0);
	log_open(&large, LOG_SIZE);
	assert_int_equal(send_log(g, &large), 0);
	WAIT_FOR(log_has(&large, MORE_PAGE) && log_has(&large, MORE_PAGE + MEM_PAGES - 1));
	assert_int_equal(send_log(g, &small), -1);
	log_close(&small);
	log_close(&large);
	vfe_close(&fd);
}

/* --- any moment --- */

static void
logging_before_the_guest_starts(void **state)
{
	struct fake_guest *g = *state;
	struct log log;
	unsigned int q;

	fake_guest_connect(g, PROTOCOL);
	assert_int_equal(fake_guest_mem(g), 0);
	begin_migration(g, &log);
	for (q = 0; q < 2; q++) {
		fake_guest_ring(g, q);
		fake_guest_enable(g, q, true);
	}
	fake_wait_state(0, "parked");
	world.automatic = false;
	fake_guest_driver_ok(g);
	/* before it runs */
	FAKE_SERVE(0, FAKE_RESTORE, FAKE_TRACK_START, FAKE_QUIESCE, FAKE_RUN);
	world.automatic = true;
	fake_wait_state(0, "running");
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	stop(g);
	assert_int_equal(log_count(&log), 1);
	log_close(&log);
}

/* What an old log had no bits for matters only if it was in use. */
static void
log_of_an_earlier_time_owes_nothing(void **state)
{
	struct fake_guest *g = *state;
	int fd = vfe_memfd_create("more", FAKE_MEM_SIZE);
	struct log small, large;

	start(g);
	log_open(&small, 64);
	assert_int_equal(send_log(g, &small), 0);
	assert_int_equal(send_memory(g, fd), 0);
	begin_migration(g, &large);
	assert_true(fake_device_writes(0, MORE_GPA));
	stop(g);
	assert_int_equal(log_count(&large), 1);
	log_close(&small);
	log_close(&large);
	vfe_close(&fd);
}

static void
logging_while_suspended(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	start(g);
	stop(g);
	begin_migration(g, &log);
	assert_false(fake_device_tracks(0));
	resume(g);
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	stop(g);
	assert_int_equal(log_count(&log), 1);
	log_close(&log);
}

static void
guest_that_resets_its_rings_stays_tracked(void **state)
{
	struct fake_guest *g = *state;
	unsigned int i;
	struct log log;

	start(g);
	begin_migration(g, &log);
	for (i = 0; i < 3; i++) {
		assert_true(fake_device_writes(0, FAKE_MEM_GPA + i * PAGE));
		stop(g);
		assert_true(log_has(&log, MEM_PAGE + i));
		resume(g);
	}
	assert_true(fake_device_tracks(0));
	assert_int_equal(log_count(&log), 3);
	log_close(&log);
}

static void
logging_on_and_off(void **state)
{
	struct fake_guest *g = *state;
	unsigned int i, mapped;
	struct log log;

	start(g);
	mapped = world.mapped;
	log_open(&log, LOG_SIZE);
	assert_int_equal(send_log(g, &log), 0);
	for (i = 0; i < 20; i++) {
		use_mode(modes[i % 5]);
		set_logging(g, true);
		assert_true(fake_device_writes(0, FAKE_MEM_GPA + i * PAGE));
		set_logging(g, false);
		if (i % 2 == 0)
			WAIT_FOR(!fake_device_tracks(0));
	}
	WAIT_FOR(strcmp(mode_now(), "off") == 0);
	assert_false(fake_device_tracks(0));
	assert_int_equal(world.mapped, mapped);
	fake_wait_state(0, "running");
	assert_int_equal(fake_info(0)->dirty.all, 0);
	log_close(&log);
}

static void
front_end_that_comes_back_logging_gets_all(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	start(g);
	begin_migration(g, &log);
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	fake_guest_disconnect(g);
	fake_wait_state(0, "parked");
	assert_false(fake_device_tracks(0));
	memset(log.map, 0, log.size); /* read for the last time */

	fake_guest_connect_logging(g, PROTOCOL);
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_guest_enable(g, 0, true);
	assert_int_equal(send_log(g, &log), 0);
	fake_guest_driver_ok(g);
	fake_wait_state(0, "running");
	WAIT_FOR(log_has_all(&log));
	assert_true(fake_device_tracks(0));
	log_close(&log);
}

static void
two_vfs_share_a_log(void **state)
{
	struct vfe_bdf bdf = fake_vf(1);
	struct fake_guest *g = *state, b;
	struct log log;

	if (vfe_vdpa_vf_add(&bdf, NULL, &verr) < 0)
		fail_msg("%s", verr.err.text);
	fake_guest_open(&b, 1);
	start(g);
	start(&b);
	begin_migration(g, &log);
	assert_int_equal(send_log(&b, &log), 0);
	set_logging(&b, true);
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	assert_true(fake_device_writes(1, FAKE_MEM_GPA + PAGE));
	stop(g);
	stop(&b);
	assert_int_equal(log_count(&log), 2);
	fake_guest_disconnect(&b);
	fake_wait_state(1, "parked");
	fake_guest_close(&b);
	log_close(&log);
}

/* --- hostile front-ends --- */

static int
send_raw_log(struct fake_guest *g, uint64_t size, uint64_t offset, const int *fds, int nr)
{
	struct vdpa_msg_log payload = {size, offset};

	return fake_send(g->vid, VDPA_MSG_SET_LOG_BASE, &payload, sizeof(payload), fds, nr);
}

static void
logs_that_are_none_are_refused(void **state)
{
	struct fake_guest *g = *state;
	int fds[2], pair[2], file, tmp;
	struct log log, old;
	unsigned int before;

	start(g);
	begin_migration(g, &old);
	log_open(&log, LOG_SIZE);
	fds[0] = fds[1] = log.fd;
	assert_int_equal(pipe(pair), 0);
	file = open("/proc/self/exe", O_RDONLY);
	tmp = memfd_create("short", 0);
	before = fake_nr_fds();
	assert_int_equal(send_raw_log(g, LOG_SIZE, 0, NULL, 0), -1);
	assert_int_equal(send_raw_log(g, LOG_SIZE, 0, fds, 2), -1);
	assert_int_equal(send_raw_log(g, LOG_SIZE, 0, pair, 1), -1);
	assert_int_equal(send_raw_log(g, LOG_SIZE, 0, &file, 1), -1);
	assert_int_equal(send_raw_log(g, LOG_SIZE, 0, &tmp, 1), -1);
	assert_int_equal(send_raw_log(g, LOG_SIZE, 8, fds, 1), -1);
	assert_int_equal(send_raw_log(g, LOG_SIZE + 1, 0, fds, 1), -1);
	assert_int_equal(ftruncate(tmp, 8LL << 30), 0);
	assert_int_equal(send_raw_log(g, 8ULL << 30, 0, &tmp, 1), -1);
	assert_int_equal(send_raw_log(g, 0, 0, fds, 1), -1);
	assert_int_equal(send_raw_log(g, 7, 0, fds, 1), -1);
	assert_int_equal(send_raw_log(g, 64, 4, fds, 1), -1);
	assert_int_equal(send_raw_log(g, UINT64_MAX, 1, fds, 1), -1);
	assert_int_equal(send_raw_log(g, 64, UINT64_MAX - 63, fds, 1), -1);
	assert_int_equal(send_raw_log(g, 56, 0, fds, 1), -1); /* shorter than the memory */
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_LOG_BASE, &log, 24, fds, 1), -1);
	assert_int_equal(fake_nr_fds(), before);
	/* the one that is in use stays in use */
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	stop(g);
	assert_int_equal(log_count(&old), 1);
	vfe_close_all(pair, 2);
	vfe_close(&file);
	vfe_close(&tmp);
	log_close(&log);
	log_close(&old);
}

static void
log_of_a_front_end_that_has_missed_a_restart_is_taken(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	start_with(g, 0);
	begin_migration(g, &log);
	assert_true(fake_device_writes(0, FAKE_MEM_GPA));
	stop(g);
	assert_int_equal(log_count(&log), 1);
	log_close(&log);
}

static void
log_without_the_protocol_feature_is_refused(void **state)
{
	struct fake_guest *g = *state;
	struct log log;

	log_open(&log, LOG_SIZE);
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(send_log(g, &log), -1);
	log_close(&log);
}

static void
log_that_is_truncated_harms_nobody(void **state)
{
	static const enum vdpa_dirty_mode used[] = {
		VDPA_DIRTY_PUSH_BITMAP, VDPA_DIRTY_PULL_BYTEMAP, VDPA_DIRTY_ALL};
	struct fake_guest *g = *state;
	struct log log = {.size = LOG_SIZE};
	unsigned int i;

	assert_int_equal(vfe_sigbus_install(), 0); /* cmocka has its own */
	start(g);
	for (i = 0; i < VFE_ARRAY_SIZE(used); i++) {
		use_mode(used[i]);
		log.fd = memfd_create("log", 0);
		assert_int_equal(ftruncate(log.fd, LOG_SIZE), 0);
		assert_int_equal(send_log(g, &log), 0);
		set_logging(g, true);
		assert_int_equal(ftruncate(log.fd, 0), 0);
		fake_device_writes(0, FAKE_MEM_GPA);
		stop(g);
		assert_string_equal(
			fake_info(0)->dirty.last_error, "the front-end has truncated its log");
		end_migration(g);
		resume(g);
		vfe_close(&log.fd);
	}
	/* and it is not given to a device */
	use_mode(VDPA_DIRTY_DIRECT);
	log.fd = memfd_create("log", 0);
	assert_int_equal(ftruncate(log.fd, LOG_SIZE), 0);
	assert_int_equal(send_log(g, &log), 0);
	set_logging(g, true);
	assert_string_equal(mode_now(), "all");
	vfe_close(&log.fd);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(best_mode_is_chosen),
		cmocka_unit_test(ranges_fit_what_the_device_can_hold),
		cmocka_unit_test(log_is_given_to_the_device_only_in_whole_pages),
		TEST(every_mode_tells_exactly_what_was_written),
		TEST(mode_all_marks_again_and_again),
		TEST(refused_start_marks_all),
		TEST(failed_look_marks_all),
		TEST(failed_report_marks_all),
		TEST(refused_stop_harms_nobody),
		TEST(map_in_doubt_stays_until_the_pf_is_reset),
		TEST(front_end_that_migrates_does_not_wait_for_ever),
		TEST(untracked_device_is_asked_again),
		TEST(reset_instead_of_freeze_marks_all),
		TEST(lost_device_marks_all),
		TEST(device_that_does_not_stop_marks_all),
		TEST(lost_pf_marks_all_until_it_is_back),
		TEST(new_log_loses_nothing),
		TEST(bits_that_were_not_read_from_the_old_log_move),
		TEST(memory_that_is_added_is_tracked),
		TEST(log_that_comes_after_the_memory_gets_all),
		TEST(logging_before_the_guest_starts),
		TEST(log_of_an_earlier_time_owes_nothing),
		TEST(logging_while_suspended),
		TEST(guest_that_resets_its_rings_stays_tracked),
		TEST(logging_on_and_off),
		TEST(front_end_that_comes_back_logging_gets_all),
		TEST(two_vfs_share_a_log),
		TEST(logs_that_are_none_are_refused),
		TEST(log_of_a_front_end_that_has_missed_a_restart_is_taken),
		TEST(log_without_the_protocol_feature_is_refused),
		TEST(log_that_is_truncated_harms_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
