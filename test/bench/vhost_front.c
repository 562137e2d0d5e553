/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A vhost-user front-end of one device with its memory and rings, for the programs that play a
 * guest's driver.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhost_front.h"
#include "vhost_msg.h"

enum { PAGE = 4096, DRIVER_STATUS = 1 | 2 | STATUS_DRIVER_OK | 8 };

/* --- messages --- */

/* The back end lends the doorbell page of a queue, takes it back, or says something else. */
static void
on_backend_request(struct vhost_front *f)
{
	struct msg m;
	int fd = msg_recv(f->backend, &m);
	uint64_t index = m.u.area.index & 0xff;
	bool ok = m.request == BACKEND_VRING_HOST_NOTIFIER && index < f->nr_rings;
	void *page;

	if (ok && (m.u.area.index & RING_NOFD) != 0) {
		f->rings[index].doorbell = NULL;
	} else if (ok) {
		page = mmap(NULL, m.u.area.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			(off_t)m.u.area.offset);
		if (page == MAP_FAILED)
			die("mmap of the doorbell page");
		f->rings[index].doorbell = page;
	}
	if (fd >= 0)
		close(fd);
	if ((m.flags & FLAG_NEED_REPLY) != 0) {
		m.flags = FLAG_VERSION | FLAG_REPLY;
		m.size = sizeof(uint64_t);
		m.u.u64 = ok ? 0 : 1;
		msg_send(f->backend, &m, NULL, 0);
	}
}

/* Wait for a message on the main channel, serving the back end's requests meanwhile. */
static void
await_reply(struct vhost_front *f, struct msg *m)
{
	struct pollfd fds[2] = {
		{.fd = f->conn, .events = POLLIN}, {.fd = f->backend, .events = POLLIN}};

	for (;;) {
		errno = ETIMEDOUT;
		if (poll(fds, 2, VHOST_TIMEOUT_MS) <= 0)
			die("the back end does not answer");
		if ((fds[1].revents & POLLIN) != 0)
			on_backend_request(f);
		if (fds[0].revents != 0) {
			msg_recv(f->conn, m);
			return;
		}
	}
}

static uint64_t
get_u64(struct vhost_front *f, uint32_t request)
{
	struct msg m = {.request = request, .flags = FLAG_VERSION};

	msg_send(f->conn, &m, NULL, 0);
	await_reply(f, &m);
	return m.u.u64;
}

static void
set(struct vhost_front *f, struct msg *m, uint32_t request, uint32_t size, int fd)
{
	bool ack = (f->protocol_features & 1ULL << PF_REPLY_ACK) != 0;

	m->request = request;
	m->flags = FLAG_VERSION | (ack ? FLAG_NEED_REPLY : 0);
	m->size = size;
	msg_send(f->conn, m, &fd, fd >= 0);
	if (!ack)
		return;
	await_reply(f, m);
	errno = EPROTO;
	if (m->u.u64 != 0)
		die("the back end refused a request");
}

static void
set_u64(struct vhost_front *f, uint32_t request, uint64_t value, int fd)
{
	struct msg m = {.u.u64 = value};

	set(f, &m, request, sizeof(uint64_t), fd);
}

static void
set_state(struct vhost_front *f, uint32_t request, uint32_t index, uint32_t num)
{
	struct msg m = {.u.state = {.index = index, .num = num}};

	set(f, &m, request, sizeof(m.u.state), -1);
}

/* --- connection --- */

static int
accept_back_end(const char *path)
{
	int listener = listen_at(path), conn = accept_from(listener);

	close(listener);
	unlink(path);
	return conn;
}

static void
negotiate(struct vhost_front *f, uint64_t features)
{
	uint64_t offered, wanted = 1ULL << PF_MQ | 1ULL << PF_REPLY_ACK | 1ULL << PF_BACKEND_REQ |
				   1ULL << PF_BACKEND_SEND_FD | 1ULL << PF_HOST_NOTIFIER |
				   1ULL << PF_STATUS | 1ULL << PF_CONFIG;
	int pair[2];

	offered = get_u64(f, GET_FEATURES);
	errno = EPROTO;
	if ((offered & F_VERSION_1) == 0 || (offered & F_PROTOCOL_FEATURES) == 0)
		die("the back end offers no VERSION_1 or no protocol features");
	wanted &= get_u64(f, GET_PROTOCOL_FEATURES);
	set_u64(f, SET_PROTOCOL_FEATURES, wanted, -1);
	f->protocol_features = wanted;
	set_u64(f, SET_OWNER, 0, -1);
	if ((wanted & 1ULL << PF_BACKEND_REQ) != 0) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
			die("socketpair");
		f->backend = pair[0];
		set_u64(f, SET_BACKEND_REQ_FD, 0, pair[1]);
		close(pair[1]);
	}
	f->features = offered & (features | F_VERSION_1 | F_PROTOCOL_FEATURES);
	set_u64(f, SET_FEATURES, f->features, -1);
}

static void
memory_create(struct vhost_front *f, uint64_t size)
{
	struct msg m = {.u.mem = {.nregions = 1, .regions = {{.gpa = 0, .size = size}}}};

	f->mem_fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (f->mem_fd < 0 || ftruncate(f->mem_fd, (off_t)size) != 0)
		die("memfd");
	f->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, f->mem_fd, 0);
	if (f->mem == MAP_FAILED)
		die("mmap");
	m.u.mem.regions[0].uva = (uintptr_t)f->mem;
	set(f, &m, SET_MEM_TABLE, 8 + sizeof(struct msg_region), f->mem_fd);
}

void
front_open(
	struct vhost_front *f, const char *path, bool connect, uint64_t features, uint64_t mem_size)
{
	*f = (struct vhost_front){.conn = -1, .backend = -1, .mem_fd = -1};
	f->conn = connect ? connect_to(path) : accept_back_end(path);
	negotiate(f, features);
	memory_create(f, mem_size);
}

void
front_get_config(struct vhost_front *f, void *to, uint32_t size)
{
	struct msg m = {.request = GET_CONFIG,
		.flags = FLAG_VERSION,
		.size = MSG_CONFIG_HDR + size,
		.u.config = {.size = size}};

	errno = EPROTO;
	if ((f->protocol_features & 1ULL << PF_CONFIG) == 0 || size > VHOST_MAX_CONFIG)
		die("the back end has no configuration");
	msg_send(f->conn, &m, NULL, 0);
	await_reply(f, &m);
	errno = EPROTO;
	if (m.size != MSG_CONFIG_HDR + size)
		die("the back end does not give its configuration");
	memcpy(to, m.u.config.bytes, size);
}

/* --- rings --- */

struct vhost_ring *
front_add_ring(struct vhost_front *f, uint8_t *base)
{
	uint32_t index = f->nr_rings;
	struct msg m = {.u.addr = {.index = index}};
	struct vhost_ring *r = &f->rings[index];

	errno = E2BIG;
	if (index == FRONT_MAX_RINGS)
		die("too many rings");
	f->nr_rings++;
	r->desc = (struct vhost_desc *)(void *)base;
	r->avail = (uint16_t *)(void *)(base + FRONT_RING_SIZE * sizeof(struct vhost_desc));
	r->used = (uint16_t *)(void *)(base + 2 * PAGE);
	r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	set_state(f, SET_VRING_NUM, index, FRONT_RING_SIZE);
	set_state(f, SET_VRING_BASE, index, 0);
	m.u.addr.desc = (uintptr_t)r->desc;
	m.u.addr.avail = (uintptr_t)r->avail;
	m.u.addr.used = (uintptr_t)r->used;
	set(f, &m, SET_VRING_ADDR, sizeof(m.u.addr), -1);
	set_u64(f, SET_VRING_KICK, index, r->kick);
	set_u64(f, SET_VRING_CALL, index, r->call);
	return r;
}

static bool
all_lent(const struct vhost_front *f)
{
	uint32_t i;

	for (i = 0; i < f->nr_rings; i++) {
		if (f->rings[i].doorbell == NULL)
			return false;
	}
	return true;
}

void
front_start(struct vhost_front *f, bool direct)
{
	struct pollfd fd = {.fd = f->backend, .events = POLLIN};
	uint32_t i;

	for (i = 0; i < f->nr_rings; i++)
		set_state(f, SET_VRING_ENABLE, i, 1);
	if ((f->protocol_features & 1ULL << PF_STATUS) != 0)
		set_u64(f, SET_STATUS, DRIVER_STATUS, -1);
	/* notifiers come after DRIVER_OK on a channel of their own */
	while (direct && !all_lent(f)) {
		errno = ETIMEDOUT;
		if (f->backend < 0 || poll(&fd, 1, VHOST_TIMEOUT_MS) != 1)
			die("no doorbell page from the back end");
		on_backend_request(f);
	}
}

void
front_publish(struct vhost_ring *r, uint16_t count)
{
	r->avail_idx = (uint16_t)(r->avail_idx + count);
	atomic_store_explicit((_Atomic uint16_t *)&r->avail[1], r->avail_idx, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
}

void
front_kick(struct vhost_ring *r, uint16_t index, bool direct)
{
	uint64_t one = 1;

	if (direct)
		*r->doorbell = index;
	else if (write(r->kick, &one, sizeof(one)) != sizeof(one))
		die("kick");
}

uint16_t
front_used_idx(const struct vhost_ring *r)
{
	return atomic_load_explicit((_Atomic uint16_t *)&r->used[1], memory_order_acquire);
}
