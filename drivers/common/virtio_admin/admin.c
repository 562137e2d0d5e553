/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The admin queue: commands wait for room, are posted, retried, and end by completion or deadline.
 *
 * A command is our private object with copies of its data. When it is posted it gets a slot:
 * descriptors and blocks of the arena that the device sees. A command that runs into its deadline
 * ends, but its slot stays with the device until the device returns it.
 */

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "admin_priv.h"
#include "admin_ring.h"

enum {
	MAX_SEGS = 5, /* header, input, bulk, output, status */
	MAX_RING = 256,
	MAX_COMMANDS = 4096, /* in all states */
	MAX_IN = 65536,
	MAX_TRANSFER = 64 << 20, /* bulk or output of one command */
	SMALL_OUT = 256,         /* larger outputs get pages of their own */
	PAGE = 4096,
	STATUS_PRESET = 0xff, /* no device answers that on purpose */

	NS_PER_MS = 1000000,
	POLL_MIN_NS = 50000, /* without interrupts, while commands are out */
	POLL_MAX_NS = 5 * NS_PER_MS,
	KICK_RETRY_NS = NS_PER_MS,
};

/* What the device sees of a command. */
struct admin_slot {
	struct admin_cmd *cmd; /* NULL = its deadline has passed, nobody waits any more */
	uint8_t *mem;          /* header, input, small output, status */
	uint8_t *bulk;         /* or NULL */
	uint8_t *out;          /* in @mem or pages of its own; NULL = no output */
	bool out_own;
	uint8_t *status;
	uint16_t head;
};

TAILQ_HEAD(cmd_list, admin_cmd);

struct admin_cmd {
	TAILQ_ENTRY(admin_cmd) next;
	struct admin_slot *slot; /* NULL while waiting for room */
	uint8_t class_;
	uint8_t cmd;
	uint32_t in_len;
	uint32_t bulk_len;
	uint32_t out_len;
	uint64_t deadline_ns;
	uint64_t retry_ns; /* when it is posted again */
	uint32_t pause_ms; /* before the next retry */
	uint32_t tries;
	uint8_t last_status;
	admin_check check;
	vfe_admin_done done;
	void *ctx;

	int result;
	struct vfe_error err;
	uint8_t data[]; /* input, bulk; on completion the output instead */
};

struct vfe_admin {
	struct vfe_virtio_dev *vdev;
	struct vfe_dma_arena *arena;
	struct vfe_pci_doorbell doorbell;
	uint16_t queue_index;
	uint16_t msix_vector;
	uint32_t timeout_ms;
	int epoll_fd; /* of the two below */
	int irq_fd;   /* -1 without a vector */
	int timer_fd;
	struct vfe_admin_caps caps; /* owned by the processing thread */
	atomic_int error;           /* -errno once the queue has failed */
	atomic_uint_least64_t retries;

	/* protects all below; never held across a wait or a callback */
	pthread_mutex_t lock;
	struct admin_ring ring;
	struct cmd_list waiting; /* for room in ring or arena */
	struct cmd_list posted;  /* the device has them */
	struct cmd_list resting; /* between two tries */
	unsigned int nr_cmds;
	uint64_t armed_ns;   /* the timer, UINT64_MAX = off */
	uint64_t kick_ns;    /* ring the doorbell again, UINT64_MAX = no */
	uint64_t poll_ns;    /* look at the ring, UINT64_MAX = no */
	uint64_t poll_pause; /* until the next look */
	uint32_t random;     /* of the jitter */
	struct vfe_error why;
};

/* --- time --- */

static uint64_t
min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void
set_timer_locked(struct vfe_admin *a, uint64_t at_ns)
{
	struct itimerspec ts = {0};

	if (at_ns == a->armed_ns)
		return;
	if (at_ns != UINT64_MAX) {
		ts.it_value = vfe_deadline_timespec((struct vfe_deadline){at_ns});
		if (at_ns == 0)
			ts.it_value.tv_nsec = 1; /* zero would switch it off */
	}
	timerfd_settime(a->timer_fd, TFD_TIMER_ABSTIME, &ts, NULL);
	a->armed_ns = at_ns;
}

/* At @at_ns at the latest there is work. */
static void
arm_until_locked(struct vfe_admin *a, uint64_t at_ns)
{
	if (at_ns < a->armed_ns)
		set_timer_locked(a, at_ns);
}

/* The timer for what is now outstanding. */
static void
rearm_locked(struct vfe_admin *a)
{
	uint64_t at = min_u64(a->kick_ns, a->poll_ns);
	const struct admin_cmd *c;

	TAILQ_FOREACH (c, &a->waiting, next)
		at = min_u64(at, c->deadline_ns);
	TAILQ_FOREACH (c, &a->posted, next)
		at = min_u64(at, c->deadline_ns);
	TAILQ_FOREACH (c, &a->resting, next)
		at = min_u64(at, min_u64(c->retry_ns, c->deadline_ns));
	set_timer_locked(a, at);
}

/* 75 to 125 % of @ms, in ns, so that many commands do not come back in step. */
static uint64_t
jitter_locked(struct vfe_admin *a, uint32_t ms)
{
	a->random ^= a->random << 13;
	a->random ^= a->random >> 17;
	a->random ^= a->random << 5;
	return (uint64_t)ms * NS_PER_MS / 100 * (75 + a->random % 51);
}

/* --- slots --- */

static void
free_slot_blocks(struct vfe_admin *a, struct admin_slot *s)
{
	if (s->out_own)
		vfe_dma_arena_free(a->arena, s->out);
	vfe_dma_arena_free(a->arena, s->bulk);
	vfe_dma_arena_free(a->arena, s->mem);
	free(s);
}

static void
free_slot_locked(struct vfe_admin *a, struct admin_slot *s)
{
	admin_ring_release(&a->ring, s->head);
	free_slot_blocks(a, s);
}

/*
 * Blocks for @c and the segments that describe them. The slot holds the header at 0, then input
 * and small output, each aligned to 8, then the status byte.
 */
static int
fill_slot(struct vfe_admin *a, const struct admin_cmd *c, struct admin_slot *s,
	struct admin_seg segs[MAX_SEGS], uint16_t *ret_n)
{
	const uint32_t in_off = 8;
	const uint32_t out_off = in_off + (uint32_t)vfe_align_up(c->in_len, 8);
	uint32_t status_off = out_off;
	uint64_t iova, bulk_iova = 0, out_iova = 0;
	uint16_t n = 0;

	s->out_own = c->out_len > SMALL_OUT;
	if (!s->out_own)
		status_off += c->out_len;
	s->mem = vfe_dma_arena_alloc(a->arena, status_off + 1, 8, &iova);
	if (s->mem == NULL)
		return -ENOMEM;
	if (c->bulk_len > 0) {
		s->bulk = vfe_dma_arena_alloc(a->arena, c->bulk_len, PAGE, &bulk_iova);
		if (s->bulk == NULL)
			return -ENOMEM;
		memcpy(s->bulk, c->data + c->in_len, c->bulk_len);
	}
	if (s->out_own) {
		s->out = vfe_dma_arena_alloc(a->arena, c->out_len, PAGE, &out_iova);
		if (s->out == NULL)
			return -ENOMEM;
	} else if (c->out_len > 0) {
		s->out = s->mem + out_off;
		out_iova = iova + out_off;
	}
	s->mem[0] = c->class_;
	s->mem[1] = c->cmd;
	memcpy(s->mem + in_off, c->data, c->in_len);
	s->status = s->mem + status_off;

	segs[n++] = (struct admin_seg){iova, sizeof(struct vfe_wire_admin_hdr), false};
	if (c->in_len > 0)
		segs[n++] = (struct admin_seg){iova + in_off, c->in_len, false};
	if (c->bulk_len > 0)
		segs[n++] = (struct admin_seg){bulk_iova, c->bulk_len, false};
	if (c->out_len > 0)
		segs[n++] = (struct admin_seg){out_iova, c->out_len, true};
	segs[n++] = (struct admin_seg){iova + status_off, 1, true};
	*ret_n = n;
	return 0;
}

static uint16_t
nr_segs(const struct admin_cmd *c)
{
	return (uint16_t)(2 + (c->in_len > 0) + (c->bulk_len > 0) + (c->out_len > 0));
}

static int
make_slot_locked(struct vfe_admin *a, struct admin_cmd *c)
{
	struct admin_seg segs[MAX_SEGS];
	struct admin_slot *s;
	uint16_t n;
	int rc;

	if (a->ring.nr_free < nr_segs(c))
		return -ENOSPC;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	rc = fill_slot(a, c, s, segs, &n);
	if (rc == 0)
		rc = admin_ring_add(&a->ring, segs, n, s, &s->head);
	if (rc < 0) {
		free_slot_blocks(a, s);
		return rc;
	}
	s->cmd = c;
	c->slot = s;
	return 0;
}

/* --- the end of a command --- */

static const char *
command_name(uint8_t class_, uint8_t cmd)
{
	static const char *const migration[] = {"identity", "get status", "modify status",
		"pending bytes", "save state", "restore state"};
	static const char *const dirty[] = {"dirty identity", "start tracking", "stop tracking",
		"pending map bytes", "report map"};

	if (class_ == VFE_ADMIN_CLASS_MIGRATION && cmd < VFE_ARRAY_SIZE(migration))
		return migration[cmd];
	if (class_ == VFE_ADMIN_CLASS_DIRTY && cmd < VFE_ARRAY_SIZE(dirty))
		return dirty[cmd];
	return "command";
}

static const char *
status_name(uint8_t status)
{
	switch (status & VFE_ADMIN_S_CODE_MASK) {
	case VFE_ADMIN_S_ERR:
		return "error";
	case VFE_ADMIN_S_INVALID_CLASS:
		return "invalid class";
	case VFE_ADMIN_S_INVALID_COMMAND:
		return "invalid command";
	case VFE_ADMIN_S_DATA_TRANSFER:
		return "data transfer error";
	case VFE_ADMIN_S_INTERNAL:
		return "internal error";
	default:
		return "unknown status";
	}
}

/* @c ends with @result; its callback runs when the lock is no longer held. */
static void
finish_locked(struct vfe_admin *a, struct cmd_list *from, struct admin_cmd *c, int result,
	struct cmd_list *done)
{
	TAILQ_REMOVE(from, c, next);
	TAILQ_INSERT_TAIL(done, c, next);
	a->nr_cmds--;
	c->result = result;
	if (result < 0)
		vfe_error_prefix(&c->err, result, "admin command %u/%u (%s)", c->class_, c->cmd,
			command_name(c->class_, c->cmd));
}

static void
refuse_locked(
	struct vfe_admin *a, struct cmd_list *from, struct admin_cmd *c, struct cmd_list *done)
{
	vfe_error_set(&c->err, 0, "the device answers status 0x%02x (%s%s) to try %u",
		c->last_status, status_name(c->last_status),
		(c->last_status & VFE_ADMIN_S_DNR) != 0 ? ", do not retry" : "", c->tries);
	finish_locked(a, from, c, -EIO, done);
}

/* The queue is of no use any more. What the device has stays where it is until destroy. */
static void
fail_locked(struct vfe_admin *a, int neg_errno, struct cmd_list *done)
{
	struct cmd_list *const lists[] = {&a->waiting, &a->posted, &a->resting};
	struct admin_cmd *c;
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(lists); i++) {
		while ((c = TAILQ_FIRST(lists[i])) != NULL) {
			if (c->slot != NULL)
				c->slot->cmd = NULL;
			c->slot = NULL;
			c->err = a->why;
			finish_locked(a, lists[i], c, neg_errno, done);
		}
	}
	a->kick_ns = UINT64_MAX;
	a->poll_ns = UINT64_MAX;
}

/* Remember that the queue has failed; commands end on the processing thread. */
static void
set_error_locked(struct vfe_admin *a, int neg_errno, const char *text)
{
	if (atomic_load(&a->error) != 0)
		return;
	vfe_error_set(&a->why, 0, "%s", text);
	atomic_store(&a->error, neg_errno);
	set_timer_locked(a, 0);
}

static void
run_callbacks(struct cmd_list *done)
{
	struct admin_cmd *c;

	while ((c = TAILQ_FIRST(done)) != NULL) {
		TAILQ_REMOVE(done, c, next);
		if (c->result == 0)
			c->done(c->ctx, 0, c->out_len > 0 ? c->data : NULL, c->out_len, NULL);
		else
			c->done(c->ctx, c->result, NULL, 0, &c->err);
		free(c);
	}
}

/* --- posting --- */

/* Give @c, which has a slot, to the device. */
static void
post_locked(struct vfe_admin *a, struct admin_cmd *c)
{
	*c->slot->status = STATUS_PRESET;
	c->tries++;
	TAILQ_INSERT_TAIL(&a->posted, c, next);
	admin_ring_post(&a->ring, c->slot->head);
	if (a->msix_vector == VFE_VIRTIO_MSI_NO_VECTOR) {
		a->poll_pause = POLL_MIN_NS;
		a->poll_ns = vfe_clock_ns() + a->poll_pause;
	}
}

/*
 * Post what waits, in order, as far as there is room. Returns true when something was posted.
 * @done NULL: this is not the processing thread, and commands cannot end here.
 */
static bool
post_waiting_locked(struct vfe_admin *a, struct cmd_list *done)
{
	struct admin_cmd *c;
	bool posted = false;
	int rc;

	while ((c = TAILQ_FIRST(&a->waiting)) != NULL) {
		rc = make_slot_locked(a, c);
		if (rc == 0) {
			TAILQ_REMOVE(&a->waiting, c, next);
			post_locked(a, c);
			posted = true;
			continue;
		}
		/* no memory although nothing is out that could give some back */
		if (rc != -ENOMEM || a->ring.nr_posted > 0 || !TAILQ_EMPTY(&a->resting))
			break;
		if (done == NULL) {
			arm_until_locked(a, 0);
			break;
		}
		vfe_error_set(&c->err, 0, "its %u bytes do not fit into the DMA memory",
			c->in_len + c->bulk_len + c->out_len);
		finish_locked(a, &a->waiting, c, -ENOMEM, done);
	}
	return posted;
}

/* Ring the doorbell, without the lock: it is cheap but may be a system call. */
static void
kick(struct vfe_admin *a)
{
	int rc = vfe_pci_doorbell_ring(&a->doorbell, a->queue_index, 2);

	if (rc == 0)
		return;
	pthread_mutex_lock(&a->lock);
	if (rc == -EAGAIN) {
		a->kick_ns = vfe_clock_ns() + KICK_RETRY_NS;
		arm_until_locked(a, a->kick_ns);
	} else {
		set_error_locked(a, -ENODEV, "the device is lost");
	}
	pthread_mutex_unlock(&a->lock);
}

static int
check_cmd(const struct vfe_admin_cmd *cmd)
{
	if (cmd->done == NULL || cmd->in_len > MAX_IN || cmd->bulk_len > MAX_TRANSFER ||
		cmd->out_len > MAX_TRANSFER || (cmd->in_len > 0 && cmd->in == NULL) ||
		(cmd->bulk_len > 0 && cmd->bulk == NULL))
		return -EINVAL;
	return 0;
}

static struct admin_cmd *
copy_cmd(const struct vfe_admin *a, const struct vfe_admin_cmd *cmd, admin_check check)
{
	size_t data = cmd->in_len + cmd->bulk_len;
	struct admin_cmd *c = malloc(sizeof(*c) + (data > cmd->out_len ? data : cmd->out_len));

	if (c == NULL)
		return NULL;
	*c = (struct admin_cmd){
		.class_ = cmd->class_,
		.cmd = cmd->cmd,
		.in_len = (uint32_t)cmd->in_len,
		.bulk_len = (uint32_t)cmd->bulk_len,
		.out_len = (uint32_t)cmd->out_len,
		.deadline_ns =
			vfe_deadline_in_ms(cmd->timeout_ms != 0 ? cmd->timeout_ms : a->timeout_ms)
				.at_ns,
		.pause_ms = VFE_ADMIN_RETRY_FIRST_MS,
		.check = check,
		.done = cmd->done,
		.ctx = cmd->ctx,
	};
	if (cmd->in_len > 0)
		memcpy(c->data, cmd->in, cmd->in_len);
	if (cmd->bulk_len > 0)
		memcpy(c->data + cmd->in_len, cmd->bulk, cmd->bulk_len);
	return c;
}

/* Queue @c and post what can be posted. Returns true when the doorbell is to be rung. */
static bool
enqueue_locked(struct vfe_admin *a, struct admin_cmd *c)
{
	bool posted;

	TAILQ_INSERT_TAIL(&a->waiting, c, next);
	a->nr_cmds++;
	posted = post_waiting_locked(a, NULL);
	arm_until_locked(a, min_u64(c->deadline_ns, a->poll_ns));
	return posted && admin_ring_wants_kick(&a->ring);
}

int
admin_submit(struct vfe_admin *a, const struct vfe_admin_cmd *cmd, admin_check check)
{
	struct admin_cmd *c;
	bool ring = false;
	int rc;

	rc = check_cmd(cmd);
	if (rc < 0)
		return rc;
	c = copy_cmd(a, cmd, check);
	if (c == NULL)
		return -ENOMEM;

	pthread_mutex_lock(&a->lock);
	rc = atomic_load(&a->error);
	if (rc == 0 && a->nr_cmds >= MAX_COMMANDS)
		rc = -ENOSPC;
	if (rc == 0 && nr_segs(c) > a->ring.size)
		rc = -EMSGSIZE;
	if (rc == 0)
		ring = enqueue_locked(a, c);
	pthread_mutex_unlock(&a->lock);

	if (rc < 0)
		free(c);
	else if (ring)
		kick(a);
	return rc;
}

int
vfe_admin_submit(struct vfe_admin *admin, const struct vfe_admin_cmd *cmd)
{
	return admin_submit(admin, cmd, NULL);
}

/* --- processing --- */

/* The device answered: done, refused, or to be tried again. */
static void
answer_locked(struct vfe_admin *a, struct admin_slot *s, struct cmd_list *done)
{
	struct admin_cmd *c = s->cmd;
	int rc = 0;

	c->last_status = __atomic_load_n(s->status, __ATOMIC_RELAXED);
	if ((c->last_status & VFE_ADMIN_S_CODE_MASK) == VFE_ADMIN_S_OK) {
		/* copied once: the device may go on writing to its memory */
		if (c->out_len > 0)
			memcpy(c->data, s->out, c->out_len);
		if (c->check != NULL)
			rc = c->check(c->data, &c->err);
		finish_locked(a, &a->posted, c, rc, done);
		free_slot_locked(a, s);
	} else if ((c->last_status & VFE_ADMIN_S_DNR) != 0) {
		refuse_locked(a, &a->posted, c, done);
		free_slot_locked(a, s);
	} else {
		TAILQ_REMOVE(&a->posted, c, next);
		TAILQ_INSERT_TAIL(&a->resting, c, next);
		c->retry_ns = vfe_clock_ns() + jitter_locked(a, c->pause_ms);
		c->pause_ms = c->pause_ms * 2 < VFE_ADMIN_RETRY_MAX_MS ? c->pause_ms * 2
								       : VFE_ADMIN_RETRY_MAX_MS;
	}
}

/* Returns true when the device gave something back. */
static bool
take_used_locked(struct vfe_admin *a, struct cmd_list *done)
{
	struct admin_slot *s;
	struct vfe_error err;
	bool any = false;
	uint16_t head;
	void *owner;
	int rc;

	while ((rc = admin_ring_pop(&a->ring, &owner, &head, &err)) == 1) {
		any = true;
		s = owner;
		if (s->cmd != NULL)
			answer_locked(a, s, done);
		else
			free_slot_locked(a, s);
	}
	if (rc < 0) {
		vfe_error_prefix(&err, rc, "the device broke the admin queue");
		set_error_locked(a, rc, err.text);
	}
	return any;
}

static void
expire_locked(struct vfe_admin *a, uint64_t now, struct cmd_list *done)
{
	struct admin_cmd *c, *next;

	for (c = TAILQ_FIRST(&a->waiting); c != NULL; c = next) {
		next = TAILQ_NEXT(c, next);
		if (now < c->deadline_ns)
			continue;
		vfe_error_set(&c->err, 0, "no room in the queue before the deadline");
		finish_locked(a, &a->waiting, c, -ETIMEDOUT, done);
	}
	for (c = TAILQ_FIRST(&a->posted); c != NULL; c = next) {
		next = TAILQ_NEXT(c, next);
		if (now < c->deadline_ns)
			continue;
		c->slot->cmd = NULL; /* the device still has it */
		vfe_error_set(&c->err, 0, "no answer of the device before the deadline (try %u)",
			c->tries);
		finish_locked(a, &a->posted, c, -ETIMEDOUT, done);
	}
	for (c = TAILQ_FIRST(&a->resting); c != NULL; c = next) {
		next = TAILQ_NEXT(c, next);
		if (now < c->deadline_ns)
			continue;
		free_slot_locked(a, c->slot);
		refuse_locked(a, &a->resting, c, done);
	}
}

static bool
retry_locked(struct vfe_admin *a, uint64_t now)
{
	struct admin_cmd *c, *next;
	bool posted = false;

	for (c = TAILQ_FIRST(&a->resting); c != NULL; c = next) {
		next = TAILQ_NEXT(c, next);
		if (now < c->retry_ns)
			continue;
		TAILQ_REMOVE(&a->resting, c, next);
		atomic_fetch_add(&a->retries, 1);
		post_locked(a, c);
		posted = true;
	}
	return posted;
}

/* Without interrupts: when to look at the ring again. */
static void
plan_poll_locked(struct vfe_admin *a, uint64_t now, bool progress)
{
	if (a->msix_vector != VFE_VIRTIO_MSI_NO_VECTOR)
		return;
	if (TAILQ_EMPTY(&a->posted)) {
		a->poll_ns = UINT64_MAX;
		return;
	}
	if (progress)
		a->poll_pause = POLL_MIN_NS;
	else if (now >= a->poll_ns)
		a->poll_pause = min_u64(a->poll_pause * 2, POLL_MAX_NS);
	if (progress || now >= a->poll_ns)
		a->poll_ns = now + a->poll_pause;
}

/* One round. Returns true when the doorbell is to be rung. */
static bool
process_locked(struct vfe_admin *a, struct cmd_list *done)
{
	uint64_t now = vfe_clock_ns();
	bool progress, posted;
	bool ring = false;

	if (vfe_pci_error(a->vdev->pci) != 0)
		set_error_locked(a, -ENODEV, "the device is lost");
	progress = atomic_load(&a->error) == 0 && take_used_locked(a, done);
	if (atomic_load(&a->error) != 0) {
		fail_locked(a, atomic_load(&a->error), done);
	} else {
		expire_locked(a, now, done);
		posted = retry_locked(a, now);
		posted |= post_waiting_locked(a, done);
		ring = (posted && admin_ring_wants_kick(&a->ring)) || now >= a->kick_ns;
		if (now >= a->kick_ns)
			a->kick_ns = UINT64_MAX;
		plan_poll_locked(a, now, progress);
	}
	/* it may have expired, and then would not be armed again for the same time */
	a->armed_ns = 1;
	rearm_locked(a);
	return ring;
}

void
vfe_admin_process(struct vfe_admin *a)
{
	struct cmd_list done = TAILQ_HEAD_INITIALIZER(done);
	uint64_t count;
	bool ring;

	/* before looking at the ring, so that what comes later raises the fds again */
	if (a->irq_fd >= 0 && read(a->irq_fd, &count, sizeof(count)) < 0)
		count = 0;
	if (read(a->timer_fd, &count, sizeof(count)) < 0)
		count = 0;

	pthread_mutex_lock(&a->lock);
	ring = process_locked(a, &done);
	pthread_mutex_unlock(&a->lock);
	if (ring)
		kick(a);
	run_callbacks(&done);
}

int
vfe_admin_fd(const struct vfe_admin *a)
{
	return a->epoll_fd;
}

bool
vfe_admin_next_deadline(const struct vfe_admin *a, struct vfe_deadline *ret)
{
	struct vfe_admin *m = (struct vfe_admin *)(uintptr_t)a;
	uint64_t at;

	pthread_mutex_lock(&m->lock);
	at = m->armed_ns;
	pthread_mutex_unlock(&m->lock);
	if (at == UINT64_MAX)
		return false;
	*ret = (struct vfe_deadline){at};
	return true;
}

uint64_t
vfe_admin_retries(const struct vfe_admin *admin)
{
	return atomic_load(&admin->retries);
}

int
vfe_admin_error(const struct vfe_admin *a)
{
	return atomic_load(&a->error);
}

const struct vfe_admin_caps *
vfe_admin_caps(const struct vfe_admin *a)
{
	return &a->caps;
}

struct vfe_admin_caps *
admin_caps_mutable(struct vfe_admin *a)
{
	return &a->caps;
}

/* --- creation --- */

static int
add_to_epoll(int epoll_fd, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int
open_fds(struct vfe_admin *a, struct vfe_error *err)
{
	int rc = 0;

	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	a->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (a->epoll_fd < 0 || a->timer_fd < 0)
		rc = -errno;
	if (rc == 0)
		rc = add_to_epoll(a->epoll_fd, a->timer_fd);
	if (rc == 0 && a->msix_vector != VFE_VIRTIO_MSI_NO_VECTOR) {
		a->irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		rc = a->irq_fd < 0 ? -errno : add_to_epoll(a->epoll_fd, a->irq_fd);
	}
	return rc < 0 ? vfe_error_set(err, rc, "no fds for the admin queue: %s", strerror(-rc)) : 0;
}

static int
enable_queue(struct vfe_admin *a, struct vfe_error *err)
{
	struct vfe_virtio_queue_info info = {0};
	uint16_t size;
	int rc;

	rc = vfe_virtio_queue_info(a->vdev, a->queue_index, &info, err);
	if (rc < 0)
		return rc;
	if (info.size < MAX_SEGS - 1)
		return vfe_error_set(err, -EPROTO, "its size is %u, a command takes %d entries",
			info.size, MAX_SEGS - 1);
	size = info.size < MAX_RING ? info.size : MAX_RING;
	rc = vfe_virtio_doorbell_get(a->vdev, a->queue_index, info.notify_off, &a->doorbell, err);
	if (rc < 0)
		return rc;
	rc = admin_ring_init(&a->ring, a->arena, size, a->irq_fd >= 0);
	if (rc < 0)
		return vfe_error_set(err, rc, "no DMA memory for a ring of %u entries", size);
	if (a->irq_fd >= 0) {
		rc = vfe_pci_irq_set(a->vdev->pci, a->msix_vector, 1, &a->irq_fd, err);
		if (rc < 0)
			return rc;
	}
	return vfe_virtio_queue_enable(a->vdev, a->queue_index,
		&(struct vfe_virtio_queue_cfg){
			.size = size,
			.msix_vector = a->msix_vector,
			.desc = a->ring.desc_iova,
			.driver = a->ring.avail_iova,
			.device = a->ring.used_iova,
		},
		err);
}

static void
free_admin(struct vfe_admin *a)
{
	uint16_t i;

	for (i = 0; i < a->ring.size; i++) {
		if (a->ring.chains[i].owner != NULL)
			free_slot_blocks(a, a->ring.chains[i].owner);
	}
	admin_ring_fini(&a->ring, a->arena);
	vfe_close(&a->irq_fd);
	vfe_close(&a->timer_fd);
	vfe_close(&a->epoll_fd);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

int
vfe_admin_create(const struct vfe_admin_cfg *cfg, struct vfe_admin **ret, struct vfe_error *err)
{
	struct vfe_admin *a;
	int rc;

	if (cfg->msix_vector != VFE_VIRTIO_MSI_NO_VECTOR &&
		cfg->msix_vector >= cfg->vdev->num_vectors)
		return vfe_error_set(err, -EINVAL, "admin queue: vector %u of %u", cfg->msix_vector,
			cfg->vdev->num_vectors);
	a = calloc(1, sizeof(*a));
	if (a == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for an admin queue");
	a->vdev = cfg->vdev;
	a->arena = cfg->arena;
	a->queue_index = cfg->queue_index;
	a->msix_vector = cfg->msix_vector;
	a->timeout_ms = cfg->timeout_ms != 0 ? cfg->timeout_ms : VFE_ADMIN_TIMEOUT_MS;
	a->epoll_fd = a->irq_fd = a->timer_fd = -1;
	a->caps.features = cfg->vdev->driver_features;
	pthread_mutex_init(&a->lock, NULL);
	TAILQ_INIT(&a->waiting);
	TAILQ_INIT(&a->posted);
	TAILQ_INIT(&a->resting);
	a->armed_ns = a->kick_ns = a->poll_ns = UINT64_MAX;
	a->random = (uint32_t)vfe_clock_ns() | 1; /* xorshift stays at zero */

	rc = open_fds(a, err);
	if (rc == 0)
		rc = enable_queue(a, err);
	if (rc < 0) {
		free_admin(a);
		return vfe_error_prefix(err, rc, "admin queue %u", cfg->queue_index);
	}
	*ret = a;
	return 0;
}

void
vfe_admin_destroy(struct vfe_admin *a)
{
	struct cmd_list done = TAILQ_HEAD_INITIALIZER(done);
	const int none = -1;

	if (a == NULL)
		return;
	pthread_mutex_lock(&a->lock);
	set_error_locked(a, -ECANCELED, "the admin queue is closed");
	fail_locked(a, -ECANCELED, &done);
	pthread_mutex_unlock(&a->lock);
	run_callbacks(&done);

	if (a->irq_fd >= 0)
		vfe_pci_irq_set(a->vdev->pci, a->msix_vector, 1, &none, NULL);
	free_admin(a);
}
