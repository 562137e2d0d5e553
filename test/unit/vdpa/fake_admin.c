/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A PF's admin queue: the test, or the device by itself, answers each command.
 */

#undef NDEBUG

#include "fake_world.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vdpa_priv.h"

enum { MAX_COMMANDS = 64 };

/* --- the admin queue --- */

struct command {
	unsigned int vf;
	enum fake_kind kind;
	struct fake_track_cmd track;
	vfe_admin_done done;
	void *ctx;
};

struct vfe_admin {
	int fd;
	struct vfe_admin_caps caps;
	struct command queue[MAX_COMMANDS]; /* world.lock */
	unsigned int head, tail;            /* to be taken by the test, or by process() */
	bool answered;                      /* the command in hand has its status */
	int status;
	bool taken; /* the test has the command in hand */
	struct command last;
};

static struct vfe_admin *the_admin; /* world.lock */

uint64_t
vfe_admin_features_wanted(uint64_t offered)
{
	int ignored;

	return fake_stage_fails(FAKE_STAGE_FEATURES, &ignored) ? 0 : offered;
}

int
vfe_admin_queue_index(struct vfe_virtio_dev *vdev, uint16_t *ret, struct vfe_error *err)
{
	(void)vdev;
	(void)err;
	*ret = 4;
	return 0;
}

int
vfe_admin_create(const struct vfe_admin_cfg *cfg, struct vfe_admin **ret, struct vfe_error *err)
{
	(void)cfg;
	FAKE_STAGE(FAKE_STAGE_ADMIN, err);
	*ret = calloc(1, sizeof(**ret));
	assert(*ret != NULL);
	(*ret)->fd = eventfd(0, EFD_NONBLOCK);
	(*ret)->caps = world.caps;
	pthread_mutex_lock(&world.lock);
	the_admin = *ret;
	pthread_mutex_unlock(&world.lock);
	return 0;
}

/* Complete the first command, if it may be. Returns false when there is nothing to do. */
static bool
complete_one(struct vfe_admin *admin)
{
	struct command cmd;
	size_t out_len = 0;
	void *out = NULL;
	int status;

	pthread_mutex_lock(&world.lock);
	if (admin->head == admin->tail || (!admin->answered && !world.automatic)) {
		pthread_mutex_unlock(&world.lock);
		return false;
	}
	cmd = admin->queue[admin->head++ % MAX_COMMANDS];
	status = admin->answered ? admin->status : world.fail_kind[cmd.kind];
	admin->answered = false;
	admin->taken = false;
	admin->last = cmd;
	if (status == 0)
		out = fake_track_execute(cmd.vf, cmd.kind, &cmd.track, &out_len);
	pthread_mutex_unlock(&world.lock);
	cmd.done(cmd.ctx, status, out, out_len,
		status < 0 ? &(struct vfe_error){"the test says no"} : NULL);
	free(out);
	return true;
}

void
vfe_admin_process(struct vfe_admin *admin)
{
	uint64_t count;

	if (read(admin->fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN);
	while (complete_one(admin))
		continue;
	pthread_mutex_lock(&world.lock);
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
}

void
vfe_admin_destroy(struct vfe_admin *admin)
{
	struct command cmd;

	if (admin == NULL)
		return;
	pthread_mutex_lock(&world.lock);
	the_admin = NULL;
	while (admin->head != admin->tail) {
		cmd = admin->queue[admin->head++ % MAX_COMMANDS];
		pthread_mutex_unlock(&world.lock);
		cmd.done(cmd.ctx, -ECANCELED, NULL, 0, &(struct vfe_error){"canceled"});
		pthread_mutex_lock(&world.lock);
	}
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	vfe_close(&admin->fd);
	free(admin);
}

int
vfe_admin_fd(const struct vfe_admin *admin)
{
	return admin->fd;
}

bool
vfe_admin_next_deadline(const struct vfe_admin *admin, struct vfe_deadline *ret)
{
	(void)admin;
	(void)ret;
	return false;
}

int
vfe_admin_error(const struct vfe_admin *admin)
{
	(void)admin;
	return 0;
}

uint64_t
vfe_admin_retries(const struct vfe_admin *admin)
{
	(void)admin;
	return 3;
}

const struct vfe_admin_caps *
vfe_admin_caps(const struct vfe_admin *admin)
{
	return &admin->caps;
}

int
fake_admin_submit(struct vfe_admin *admin, unsigned int vf, enum fake_kind kind,
	const struct fake_track_cmd *track, vfe_admin_done done, void *ctx)
{
	struct command cmd = {.vf = vf, .kind = kind, .done = done, .ctx = ctx};

	if (track != NULL)
		cmd.track = *track;
	pthread_mutex_lock(&world.lock);
	assert(admin->tail - admin->head < MAX_COMMANDS);
	admin->queue[admin->tail++ % MAX_COMMANDS] = cmd;
	world.count[kind]++;
	pthread_cond_broadcast(&world.cond);
	if (world.automatic)
		assert(eventfd_write(admin->fd, 1) == 0);
	pthread_mutex_unlock(&world.lock);
	return 0;
}

static int
admin_submit(struct vfe_admin *admin, unsigned int vf, enum fake_kind kind, vfe_admin_done done,
	void *ctx)
{
	return fake_admin_submit(admin, vf, kind, NULL, done, ctx);
}

int
vfe_admin_modify_status(struct vfe_admin *admin, uint16_t vf, enum vfe_admin_vf_status status,
	vfe_admin_done done, void *ctx)
{
	return admin_submit(admin, vf, (enum fake_kind)status, done, ctx);
}

int
vfe_admin_get_status(struct vfe_admin *admin, uint16_t vf, vfe_admin_done done, void *ctx)
{
	return admin_submit(admin, vf, FAKE_GET_STATUS, done, ctx);
}

int
vfe_admin_restore_state(struct vfe_admin *admin, uint16_t vf, const void *blob, size_t len,
	vfe_admin_done done, void *ctx)
{
	struct fake_vf_log *log = &world.vf[vf];
	struct vfe_error err;

	pthread_mutex_lock(&world.lock);
	if (log->has_state)
		vfe_state_fini(&log->state);
	if (vfe_state_decode(&log->state, world.blk ? VFE_STATE_TYPE_BLK : VFE_STATE_TYPE_NET, blob,
		    len, &err) < 0)
		fail_msg("bad blob: %s", err.text);
	log->has_state = true;
	log->restores++;
	pthread_mutex_unlock(&world.lock);
	return admin_submit(admin, vf, FAKE_RESTORE, done, ctx);
}

int
vfe_admin_identify(struct vfe_admin *admin, vfe_admin_done done, void *ctx)
{
	struct vfe_error err;
	int ret;

	(void)admin;
	if (fake_stage_fails(FAKE_STAGE_IDENTIFY, &ret)) {
		vfe_error_set(&err, ret, "stage identify");
		done(ctx, ret, NULL, 0, &err);
		return 0;
	}
	done(ctx, 0, NULL, 0, NULL);
	return 0;
}

void
fake_expect(unsigned int i, enum fake_kind kind)
{
	struct timespec ts;
	struct command cmd = {0};
	bool got = false;

	fake_until(&ts);
	pthread_mutex_lock(&world.lock);
	for (;;) {
		if (the_admin != NULL && the_admin->head != the_admin->tail && !the_admin->taken) {
			the_admin->taken = true;
			cmd = the_admin->queue[the_admin->head % MAX_COMMANDS];
			got = true;
			break;
		}
		if (pthread_cond_timedwait(&world.cond, &world.lock, &ts) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&world.lock);
	if (!got)
		fail_msg("no command, expected %d of VF %u; VF is %s: %s", kind, i,
			fake_info(i)->state, fake_info(i)->last_error);
	assert_int_equal(cmd.kind, kind);
	assert_int_equal(cmd.vf, i);
}

void
fake_answer(int status)
{
	pthread_mutex_lock(&world.lock);
	assert(the_admin != NULL && the_admin->taken);
	the_admin->answered = true;
	the_admin->status = status;
	assert(eventfd_write(the_admin->fd, 1) == 0);
	pthread_mutex_unlock(&world.lock);
	fake_flush();
}

static void
call_again(void *arg)
{
	const struct command *cmd = arg;

	cmd->done(cmd->ctx, 0, NULL, 0, NULL);
}

void
fake_answer_again(void)
{
	struct command cmd;

	pthread_mutex_lock(&world.lock);
	cmd = the_admin->last;
	pthread_mutex_unlock(&world.lock);
	vdpa_reactor_call(call_again, &cmd);
}

void
fake_serve(unsigned int i, const int *kinds)
{
	for (; *kinds >= 0; kinds++) {
		fake_expect(i, (enum fake_kind) * kinds);
		fake_answer(0);
	}
}

/* An fd that is ready at once: its turn at the reactor comes after those that were ready before. */
struct turn {
	struct vdpa_watch watch;
	int fd;
	sem_t taken;
};

static void
turn_taken(struct vdpa_watch *watch, uint32_t events)
{
	struct turn *t = vfe_container_of(watch, struct turn, watch);

	(void)events;
	vdpa_watch_remove(watch);
	assert(sem_post(&t->taken) == 0);
}

static void
call_turn(void *arg)
{
	struct turn *t = arg;

	assert(vdpa_watch_add(&t->watch, t->fd, EPOLLIN) == 0);
}

/*
 * Twice: what was posted has run after the first turn, a work that was running when it was posted
 * included; the fds that these works have made ready come before the second one.
 */
void
fake_flush(void)
{
	struct turn t = {.watch.ready = turn_taken, .fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)};
	unsigned int i;

	assert(t.fd >= 0 && sem_init(&t.taken, 0, 0) == 0);
	for (i = 0; i < 2; i++) {
		vdpa_reactor_call(call_turn, &t);
		assert(sem_wait(&t.taken) == 0);
	}
	sem_destroy(&t.taken);
	vfe_close(&t.fd);
}

void
fake_expect_nothing(void)
{
	bool none;

	fake_flush();
	pthread_mutex_lock(&world.lock);
	none = the_admin == NULL || the_admin->head == the_admin->tail;
	pthread_mutex_unlock(&world.lock);
	assert_true(none);
}

void
fake_admin_wake_locked(void)
{
	if (the_admin != NULL)
		assert(eventfd_write(the_admin->fd, 1) == 0);
}
