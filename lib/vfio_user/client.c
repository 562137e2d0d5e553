/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user client: connection, version, and calls of many threads over one socket.
 *
 * There are two roles, each held by at most one thread at a time and never while the lock is
 * held: the writer puts one whole message on the socket, the reader receives one whole message
 * and hands it to the call it belongs to. A thread that waits for its reply takes the reader role
 * when it is free, else it sleeps on the condition variable until its reply is there, the role is
 * free, its deadline passes, or the client is dead.
 */

#include "vfe_vfio_user_client.h"

#include "client_priv.h"
#include "vfu_msg.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	MAX_OWED = 16, /* commands of the server that still wait for our refusal */
	MAX_IN_FLIGHT = 4096,
	MIN_XFER = 64, /* below it, accesses to registers would have to be split */
	MAX_POST = 64, /* bytes of a posted body: so few that the kernel takes all or nothing */
};

struct vfe_vfu_client {
	int fd;
	uint32_t timeout_ms;
	struct vfu_caps caps; /* the server's, cut to ours; constant after connect */
	_Atomic int error;    /* 0 while alive, else what ended the client */

	pthread_mutex_t lock; /* protects all below but rx; never held across a wait or a read */
	pthread_cond_t wake;  /* a reply came, a role became free, or the client died */
	LIST_HEAD(, vfe_vfu_call) calls;
	uint32_t nr_calls;
	uint16_t next_id;
	bool writing;
	bool reading;
	struct vfe_wire_vfu_hdr owed[MAX_OWED]; /* refusals for the server's own commands */
	uint32_t nr_owed;
	struct vfe_error why; /* text of @error */

	struct vfu_rx rx; /* owned by the thread with the reader role */
};

void
vfu_reply_fini(struct vfu_reply *reply)
{
	free(reply->body);
	vfe_close_all(reply->fds, reply->nr_fds);
	free(reply->fds);
	*reply = (struct vfu_reply){0};
}

uint32_t
vfu_client_max_fds(const struct vfe_vfu_client *client)
{
	return client->caps.max_fds;
}

uint32_t
vfu_client_max_xfer(const struct vfe_vfu_client *client)
{
	return client->caps.max_xfer;
}

/* End the client; the first reason stays. Sleepers and poll() of other threads wake up. */
static void
client_die_locked(struct vfe_vfu_client *client, int neg_errno, const char *text)
{
	if (atomic_load(&client->error) != 0)
		return;
	vfe_error_set(&client->why, 0, "%s", text);
	atomic_store(&client->error, neg_errno);
	shutdown(client->fd, SHUT_RDWR);
	pthread_cond_broadcast(&client->wake);
}

static void
client_die(struct vfe_vfu_client *client, int neg_errno, const char *text)
{
	pthread_mutex_lock(&client->lock);
	client_die_locked(client, neg_errno, text);
	pthread_mutex_unlock(&client->lock);
}

int
vfu_client_violation(struct vfe_vfu_client *client, struct vfe_error *err, const char *fmt, ...)
{
	struct vfe_error text;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text.text, sizeof(text.text), fmt, ap);
	va_end(ap);
	client_die(client, -EPROTO, text.text);
	return vfe_error_set(err, -EPROTO, "%s", text.text);
}

static int
client_dead_locked(struct vfe_vfu_client *client, struct vfe_error *err)
{
	return vfe_error_set(err, atomic_load(&client->error), "%s", client->why.text);
}

/* Sleep until something changed or the deadline passed. */
static void
client_sleep_locked(struct vfe_vfu_client *client, struct vfe_deadline deadline)
{
	const struct timespec at = vfe_deadline_timespec(deadline);

	pthread_cond_timedwait(&client->wake, &client->lock, &at);
}

/* Wait until the socket is ready for @events. 0, -ETIMEDOUT or -errno. */
static int
client_poll(struct vfe_vfu_client *client, short events, struct vfe_deadline deadline)
{
	struct pollfd pfd = {client->fd, events, 0};
	int n;

	do
		n = poll(&pfd, 1, vfe_deadline_left_ms(deadline));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == 0 ? -ETIMEDOUT : 0;
}

/*
 * Sending
 */

/* Put a whole message on the socket. The caller has the writer role. */
static int
client_write(struct vfe_vfu_client *client, struct iovec *iov, uint32_t nr_iov, const int *fds,
	uint32_t nr_fds, struct vfe_deadline deadline)
{
	ssize_t n;
	int ret;

	while (nr_iov > 0) {
		n = vfu_send(client->fd, iov, nr_iov, fds, nr_fds);
		if (n == -EAGAIN) {
			ret = client_poll(client, POLLOUT, deadline);
			if (ret < 0)
				return ret;
			continue;
		}
		if (n < 0)
			return n == -EPIPE ? -ECONNRESET : (int)n;
		nr_fds = 0;
		while (nr_iov > 0 && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			nr_iov--;
		}
		if (nr_iov > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

/* Refuse the server's own commands, as far as the socket takes it now. */
static void
client_pay_locked(struct vfe_vfu_client *client)
{
	while (!client->writing && client->nr_owed > 0) {
		struct iovec iov = {&client->owed[client->nr_owed - 1], sizeof(client->owed[0])};

		/* nonblocking and so short that it goes whole or not at all */
		if (vfu_send(client->fd, &iov, 1, NULL, 0) != (ssize_t)sizeof(client->owed[0]))
			return;
		client->nr_owed--;
	}
}

static uint32_t
request_iov(const struct vfu_request *req, struct vfe_wire_vfu_hdr *hdr, struct iovec iov[3])
{
	uint32_t n = 0;

	hdr->command = req->command;
	hdr->size = (uint32_t)sizeof(*hdr) + req->fixed_len + req->data_len;
	iov[n++] = (struct iovec){hdr, sizeof(*hdr)};
	if (req->fixed_len > 0)
		iov[n++] = (struct iovec){(void *)(uintptr_t)req->fixed, req->fixed_len};
	if (req->data_len > 0)
		iov[n++] = (struct iovec){(void *)(uintptr_t)req->data, req->data_len};
	return n;
}

/* An id that no call in flight has. */
static uint16_t
client_new_id_locked(struct vfe_vfu_client *client)
{
	struct vfe_vfu_call *other;
	uint16_t id;

	do {
		id = client->next_id++;
		LIST_FOREACH (other, &client->calls, link) {
			if (other->id == id)
				break;
		}
	} while (other != NULL);
	return id;
}

/* Take the writer role when it becomes free, send, give it back. The lock is held on return. */
static int
client_send_locked(struct vfe_vfu_client *client, const struct vfu_request *req, uint16_t id,
	struct vfe_deadline deadline)
{
	struct vfe_wire_vfu_hdr hdr = {.id = id, .flags = VFE_VFU_F_COMMAND};
	struct iovec iov[3];
	uint32_t n = request_iov(req, &hdr, iov);
	int ret;

	while (client->writing && atomic_load(&client->error) == 0) {
		if (vfe_deadline_passed(deadline))
			return -ETIMEDOUT;
		client_sleep_locked(client, deadline);
	}
	if (atomic_load(&client->error) != 0)
		return atomic_load(&client->error);

	client->writing = true;
	pthread_mutex_unlock(&client->lock);
	ret = client_write(client, iov, n, req->fds, req->nr_fds, deadline);
	pthread_mutex_lock(&client->lock);
	client->writing = false;
	client_pay_locked(client);
	pthread_cond_broadcast(&client->wake);
	return ret;
}

int
vfu_client_post(struct vfe_vfu_client *client, const struct vfu_request *req)
{
	struct vfe_wire_vfu_hdr hdr = {.flags = VFE_VFU_F_COMMAND | VFE_VFU_F_NO_REPLY};
	struct iovec iov[3];
	uint32_t n;
	ssize_t sent;
	int ret;

	if (req->data_len > MAX_POST)
		return -EMSGSIZE;

	pthread_mutex_lock(&client->lock);
	ret = atomic_load(&client->error);
	if (ret == 0 && client->writing)
		ret = -EAGAIN;
	if (ret < 0)
		goto out;

	hdr.id = client_new_id_locked(client);
	n = request_iov(req, &hdr, iov);
	sent = vfu_send(client->fd, iov, n, NULL, 0);
	if (sent == (ssize_t)hdr.size || sent == -EAGAIN) {
		ret = sent < 0 ? -EAGAIN : 0;
		goto out;
	}
	ret = sent == -EPIPE || sent >= 0 ? -ECONNRESET : (int)sent;
	client_die_locked(client, ret, "cannot send to the server");
out:
	pthread_mutex_unlock(&client->lock);
	return ret;
}

/*
 * Receiving
 */

/* Receive one whole message. The caller has the reader role. */
static int
client_read(struct vfe_vfu_client *client, struct vfe_deadline deadline, struct vfe_error *err)
{
	int ret;

	for (;;) {
		ret = vfu_rx_read(&client->rx, client->fd, err);
		if (ret != 0)
			return ret;
		ret = client_poll(client, POLLIN, deadline);
		if (ret < 0)
			return ret;
	}
}

/* A command of the server: we share memory by fd, so there is nothing it could need to ask. */
static int
client_refuse_locked(struct vfe_vfu_client *client, struct vfe_error *err)
{
	const struct vfe_wire_vfu_hdr *hdr = &client->rx.hdr;

	if ((hdr->flags & VFE_VFU_F_NO_REPLY) != 0)
		return 0;
	if (client->nr_owed == MAX_OWED)
		return vfe_error_set(
			err, -EPROTO, "the server sends commands faster than it reads");
	client->owed[client->nr_owed++] = (struct vfe_wire_vfu_hdr){
		.id = hdr->id,
		.command = hdr->command,
		.size = sizeof(*hdr),
		.flags = VFE_VFU_F_REPLY | VFE_VFU_F_ERROR,
		.error = ENOTSUP,
	};
	client_pay_locked(client);
	return 0;
}

/* Check the header and the shape of the reply in client->rx against @call. */
static int
reply_check(const struct vfu_rx *rx, const struct vfe_vfu_call *call, struct vfe_error *err)
{
	const struct vfu_msg *msg = vfu_msg_get(call->command);
	int ret;

	if (rx->hdr.command != call->command)
		return vfe_error_set(
			err, -EPROTO, "reply to %s says command %u", msg->name, rx->hdr.command);
	if ((rx->hdr.flags & VFE_VFU_F_ERROR) == 0)
		ret = vfu_shape_check(&msg->reply, msg->name, rx->body_size, rx->nr_fds, err);
	else
		ret = vfu_shape_check(
			&(struct vfu_shape){0}, msg->name, rx->body_size, rx->nr_fds, err);
	return ret < 0 ? vfe_error_prefix(err, -EPROTO, "reply") : 0;
}

/* Hand the message in client->rx to its call. */
static int
client_deliver_locked(struct vfe_vfu_client *client, struct vfe_error *err)
{
	struct vfu_rx *rx = &client->rx;
	uint32_t type = rx->hdr.flags & VFE_VFU_F_TYPE_MASK;
	struct vfe_vfu_call *call;
	int ret;

	if (type == VFE_VFU_F_COMMAND)
		return client_refuse_locked(client, err);
	if (type != VFE_VFU_F_REPLY)
		return vfe_error_set(err, -EPROTO, "message with flags 0x%x", rx->hdr.flags);

	LIST_FOREACH (call, &client->calls, link) {
		if (call->id == rx->hdr.id && !call->done)
			break;
	}
	if (call == NULL)
		return vfe_error_set(
			err, -EPROTO, "reply with id %u that nobody waits for", rx->hdr.id);
	ret = reply_check(rx, call, err);
	if (ret < 0)
		return ret;

	call->failed = (rx->hdr.flags & VFE_VFU_F_ERROR) != 0;
	call->reply_error = rx->hdr.error;
	call->reply = (struct vfu_reply){rx->body, rx->body_size, rx->fds, rx->nr_fds};
	call->done = true;
	rx->body = NULL;
	rx->fds = NULL;
	rx->nr_fds = 0;
	return 0;
}

/* Take the reader role for one message. The lock is held on entry and return. */
static void
client_read_one_locked(struct vfe_vfu_client *client, const struct vfe_vfu_call *call,
	struct vfe_deadline deadline)
{
	struct vfe_error err = {""};
	int ret;

	client->reading = true;
	pthread_mutex_unlock(&client->lock);
	ret = client_read(client, deadline, &err);
	pthread_mutex_lock(&client->lock);
	client->reading = false;

	if (ret == 1) {
		ret = client_deliver_locked(client, &err);
		vfu_rx_reset(&client->rx);
	}
	if (ret == -ETIMEDOUT)
		vfe_error_set(&err, 0, "no reply to %s within %u ms", vfu_msg_name(call->command),
			client->timeout_ms);
	if (ret < 0)
		client_die_locked(client, ret, err.text);
	pthread_cond_broadcast(&client->wake);
}

static void
client_wait_locked(struct vfe_vfu_client *client, const struct vfe_vfu_call *call,
	struct vfe_deadline deadline)
{
	char text[128];

	while (!call->done && atomic_load(&client->error) == 0) {
		if (!client->reading) {
			client_read_one_locked(client, call, deadline);
			continue;
		}
		if (vfe_deadline_passed(deadline)) {
			snprintf(text, sizeof(text), "no reply to %s within %u ms",
				vfu_msg_name(call->command), client->timeout_ms);
			client_die_locked(client, -ETIMEDOUT, text);
			return;
		}
		client_sleep_locked(client, deadline);
	}
}

/* The outcome of a finished call: the reply, the server's error, or the end of the client. */
static int
call_result_locked(struct vfe_vfu_client *client, struct vfe_vfu_call *call, struct vfe_error *err)
{
	int error;

	if (!call->done)
		return client_dead_locked(client, err);
	if (!call->failed)
		return 0;
	error = call->reply_error > 0 && call->reply_error < 4096 ? (int)call->reply_error : EIO;
	return vfe_error_set(err, -error, "the device refuses %s: %s", vfu_msg_name(call->command),
		strerror(error));
}

int
vfu_client_begin(struct vfe_vfu_client *client, const struct vfu_request *req,
	struct vfe_vfu_call *call, struct vfe_error *err)
{
	char text[128];
	int ret;

	*call = (struct vfe_vfu_call){
		.command = req->command,
		.deadline = vfe_deadline_in_ms(client->timeout_ms),
	};
	pthread_mutex_lock(&client->lock);
	if (client->nr_calls == MAX_IN_FLIGHT) {
		pthread_mutex_unlock(&client->lock);
		return vfe_error_set(err, -EBUSY, "more than %d commands in flight", MAX_IN_FLIGHT);
	}
	call->id = client_new_id_locked(client);
	LIST_INSERT_HEAD(&client->calls, call, link);
	client->nr_calls++;

	ret = client_send_locked(client, req, call->id, call->deadline);
	if (ret < 0) {
		snprintf(text, sizeof(text), "cannot send %s: %s", vfu_msg_name(req->command),
			strerror(-ret));
		client_die_locked(client, ret, text);
	}
	pthread_mutex_unlock(&client->lock);
	return 0;
}

int
vfu_client_end(struct vfe_vfu_client *client, struct vfe_vfu_call *call, struct vfu_reply *reply,
	struct vfe_error *err)
{
	int ret;

	pthread_mutex_lock(&client->lock);
	client_wait_locked(client, call, call->deadline);
	LIST_REMOVE(call, link);
	client->nr_calls--;
	ret = call_result_locked(client, call, err);
	pthread_mutex_unlock(&client->lock);

	if (ret == 0 && reply != NULL)
		*reply = call->reply;
	else
		vfu_reply_fini(&call->reply);
	return ret;
}

int
vfu_client_call(struct vfe_vfu_client *client, const struct vfu_request *req,
	struct vfu_reply *reply, struct vfe_error *err)
{
	struct vfe_vfu_call call;
	int ret;

	ret = vfu_client_begin(client, req, &call, err);
	return ret < 0 ? ret : vfu_client_end(client, &call, reply, err);
}

/*
 * Life
 */

static int
client_connect_socket(const char *path, uint32_t timeout_ms, struct vfe_error *err)
{
	struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, ret;

	ret = vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), path);
	if (ret < 0)
		return vfe_error_set(err, ret, "socket path %s is longer than %zu characters", path,
			sizeof(addr.sun_path) - 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return vfe_error_set(err, -errno, "cannot create a socket: %s", strerror(errno));

	/* bounds the wait for a server whose queue of connections is full */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ||
		connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = errno == EAGAIN || errno == EINTR ? -ETIMEDOUT : -errno;
		vfe_error_set(err, 0, "cannot connect to %s: %s", path, strerror(-ret));
		goto err_close;
	}
	ret = vfe_fd_set_nonblock(fd);
	if (ret < 0) {
		vfe_error_set(err, 0, "cannot set %s nonblocking: %s", path, strerror(-ret));
		goto err_close;
	}
	return fd;

err_close:
	vfe_close(&fd);
	return ret;
}

static int
client_negotiate(struct vfe_vfu_client *client, struct vfe_error *err)
{
	struct vfu_request req = {.command = VFE_VFU_VERSION};
	struct vfu_reply reply = {0};
	struct vfu_caps own, peer;
	uint8_t *body = NULL;
	int ret;

	vfu_caps_own(&own);
	ret = vfu_caps_format(&own, &body, &req.fixed_len);
	if (ret < 0)
		return vfe_error_set(err, ret, "out of memory");
	req.fixed = body;
	ret = vfu_client_call(client, &req, &reply, err);
	free(body);
	if (ret < 0)
		return ret;

	if (vfu_caps_parse(reply.body, reply.size, &peer, err) < 0)
		ret = vfe_error_prefix(err, -EPROTO, "bad VERSION reply");
	else if (peer.major != own.major || peer.minor > own.minor)
		ret = vfe_error_set(err, -EPROTO, "the server speaks version %u.%u, we %u.%u",
			peer.major, peer.minor, own.major, own.minor);
	else if (peer.max_xfer < MIN_XFER)
		ret = vfe_error_set(err, -EPROTO, "the server takes %u bytes at once, %d is least",
			peer.max_xfer, MIN_XFER);
	client->caps = peer;
	vfu_reply_fini(&reply);
	return ret;
}

static void
client_init_sync(struct vfe_vfu_client *client)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&client->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&client->wake, &attr);
	pthread_condattr_destroy(&attr);
}

int
vfe_vfu_client_connect(const char *path, uint32_t timeout_ms, struct vfe_vfu_client **ret_client,
	struct vfe_error *err)
{
	struct vfe_vfu_client *client;
	int ret;

	if (timeout_ms == 0)
		timeout_ms = VFE_VFU_CLIENT_TIMEOUT_MS;
	ret = client_connect_socket(path, timeout_ms, err);
	if (ret < 0)
		return ret;

	client = calloc(1, sizeof(*client));
	if (client == NULL) {
		vfe_close(&ret);
		return vfe_error_set(err, -ENOMEM, "out of memory");
	}
	client->fd = ret;
	client->timeout_ms = timeout_ms;
	LIST_INIT(&client->calls);
	client_init_sync(client);

	ret = client_negotiate(client, err);
	if (ret < 0) {
		vfe_error_prefix(err, ret, "%s", path);
		vfe_vfu_client_close(client);
		return ret;
	}
	*ret_client = client;
	return 0;
}

void
vfe_vfu_client_close(struct vfe_vfu_client *client)
{
	if (client == NULL)
		return;
	vfe_close(&client->fd);
	vfu_rx_reset(&client->rx);
	pthread_cond_destroy(&client->wake);
	pthread_mutex_destroy(&client->lock);
	free(client);
}

void
vfe_vfu_client_abort(struct vfe_vfu_client *client, int neg_errno)
{
	client_die(client, neg_errno < 0 ? neg_errno : -ECANCELED, "aborted");
}

int
vfe_vfu_client_fd(const struct vfe_vfu_client *client)
{
	return client->fd;
}

int
vfe_vfu_client_error(const struct vfe_vfu_client *client)
{
	return atomic_load(&client->error);
}
