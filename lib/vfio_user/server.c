/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user server: the listening socket, the one client, its messages and our replies.
 */

#include "vfe_vfio_user_server.h"

#include "server_priv.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	BACKLOG = 16,
	MESSAGES_PER_TURN = 32, /* of one client before the loop looks at others */
	LAST_TURNS = 1024,      /* of a client that has hung up */
};

#define ACCEPT_PAUSE_S 0.2 /* after accept() failed for lack of fds or memory */

static void
pending_fini(struct vfu_pending *pending)
{
	free(pending->data);
	vfe_close_all(pending->fds, pending->nr_fds);
	free(pending->fds);
	*pending = (struct vfu_pending){0};
}

/*
 * The client
 */

/* Hang up and take everything back that the client gave. */
static void
client_drop(struct vfe_vfu_server *server)
{
	bool negotiated = server->negotiated;
	uint32_t i;

	server->busy = true; /* the device may call us while it loses its mappings */
	ev_io_stop(server->loop, &server->read_io);
	ev_io_stop(server->loop, &server->write_io);
	ev_timer_stop(server->loop, &server->timer);
	vfu_rx_reset(&server->rx);
	pending_fini(&server->pending);
	server->negotiated = false;

	vfu_dma_unmap_all(server);
	for (i = 0; i < VFE_VFU_NR_IRQS; i++)
		(void)vfu_server_irqs_disable(server, i);
	vfe_close(&server->fd);
	if (negotiated && server->cfg.ops->disconnected != NULL)
		server->cfg.ops->disconnected(server->cfg.ctx);
	server->busy = false;
	server->leaving = false;
}

static void
client_drop_why(struct vfe_vfu_server *server, const struct vfe_error *why)
{
	server->last_error = *why;
	client_drop(server);
}

/* Keep what the socket did not take, and let nothing new in until it is gone. */
static int
pending_begin(struct vfe_vfu_server *server, const struct iovec *iov, size_t sent, const int *fds,
	uint32_t nr_fds)
{
	struct vfu_pending *pending = &server->pending;
	uint32_t i;

	pending->size = (uint32_t)(iov[0].iov_len + iov[1].iov_len);
	pending->sent = (uint32_t)sent;
	pending->data = malloc(pending->size);
	if (pending->data == NULL)
		return -ENOMEM;
	memcpy(pending->data, iov[0].iov_base, iov[0].iov_len);
	if (iov[1].iov_len > 0)
		memcpy(pending->data + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);

	if (sent == 0 && nr_fds > 0) {
		pending->fds = malloc(sizeof(int) * nr_fds);
		if (pending->fds == NULL)
			return -ENOMEM;
		for (i = 0; i < nr_fds; i++) {
			pending->fds[i] = vfe_fd_dup(fds[i]);
			if (pending->fds[i] < 0)
				return pending->fds[i];
			pending->nr_fds++;
		}
	}
	ev_io_stop(server->loop, &server->read_io);
	ev_io_start(server->loop, &server->write_io);
	ev_timer_again(server->loop, &server->timer);
	return 0;
}

static int
reply_send(struct vfe_vfu_server *server, const struct vfu_answer *answer, int neg_errno)
{
	struct vfe_wire_vfu_hdr hdr = {
		.id = server->rx.hdr.id,
		.command = server->rx.hdr.command,
		.size = (uint32_t)sizeof(hdr),
		.flags = VFE_VFU_F_REPLY,
	};
	struct iovec iov[2] = {{&hdr, sizeof(hdr)}, {NULL, 0}};
	uint32_t nr_fds = 0;
	ssize_t n;

	if ((server->rx.hdr.flags & VFE_VFU_F_NO_REPLY) != 0)
		return 0;
	if (neg_errno < 0) {
		hdr.flags |= VFE_VFU_F_ERROR;
		hdr.error = (uint32_t)-neg_errno;
	} else {
		hdr.size += answer->size;
		iov[1] = (struct iovec){answer->body, answer->size};
		nr_fds = answer->nr_fds;
	}
	n = vfu_send(server->fd, iov, 2, answer->fds, nr_fds);
	if (n == (ssize_t)hdr.size)
		return 0;
	if (n < 0 && n != -EAGAIN)
		return (int)n;
	return pending_begin(server, iov, n < 0 ? 0 : (size_t)n, answer->fds, nr_fds);
}

static void
on_version_done(struct vfe_vfu_server *server)
{
	server->negotiated = true;
	ev_timer_stop(server->loop, &server->timer);
	if (server->cfg.ops->connected != NULL)
		server->cfg.ops->connected(server->cfg.ctx);
}

/* Handle the message in server->rx. Returns false when the client is gone. */
static bool
client_handle(struct vfe_vfu_server *server)
{
	bool hello = !server->negotiated, hang_up = false;
	struct vfu_answer answer = {0};
	struct vfe_error err = {""};
	int ret, sent = 0;

	server->busy = true;
	ret = vfu_server_handle(server, &answer, &hang_up, &err);
	if (ret == 0 && hello)
		on_version_done(server);
	if (ret != -EPROTO || !hang_up)
		sent = reply_send(server, &answer, ret);
	free(answer.body);
	free(answer.fds);
	vfu_rx_reset(&server->rx);
	server->busy = false;

	if (hang_up) {
		client_drop_why(server, &err);
		return false;
	}
	if (sent < 0) {
		vfe_error_set(&err, 0, "cannot reply: %s", strerror(-sent));
		client_drop_why(server, &err);
		return false;
	}
	if (server->leaving) {
		client_drop(server);
		return false;
	}
	return true;
}

static void
on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct vfe_vfu_server *server = vfe_container_of(io, struct vfe_vfu_server, read_io);
	struct vfe_error err = {""};
	int i, ret;

	(void)loop;
	(void)revents;
	for (i = 0; i < MESSAGES_PER_TURN && server->pending.data == NULL; i++) {
		ret = vfu_rx_read(&server->rx, server->fd, &err);
		if (ret == 0)
			return;
		if (ret < 0) {
			client_drop_why(server, &err);
			return;
		}
		if (!client_handle(server))
			return;
	}
}

static void
on_writable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct vfe_vfu_server *server = vfe_container_of(io, struct vfe_vfu_server, write_io);
	struct vfu_pending *pending = &server->pending;
	struct iovec iov = {pending->data + pending->sent, pending->size - pending->sent};
	struct vfe_error err;
	ssize_t n;

	(void)revents;
	n = vfu_send(server->fd, &iov, 1, pending->fds, pending->nr_fds);
	if (n == -EAGAIN)
		return;
	if (n < 0) {
		vfe_error_set(&err, 0, "cannot reply: %s", strerror((int)-n));
		client_drop_why(server, &err);
		return;
	}
	vfe_close_all(pending->fds, pending->nr_fds);
	pending->nr_fds = 0;
	pending->sent += (uint32_t)n;
	if (pending->sent < pending->size) {
		ev_timer_again(loop, &server->timer);
		return;
	}
	pending_fini(pending);
	ev_timer_stop(loop, &server->timer);
	ev_io_stop(loop, &server->write_io);
	ev_io_start(loop, &server->read_io);
}

static void
on_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct vfe_vfu_server *server = vfe_container_of(timer, struct vfe_vfu_server, timer);
	struct vfe_error err;

	(void)loop;
	(void)revents;
	vfe_error_set(&err, 0, "the client %s within %u ms",
		server->negotiated ? "read no replies" : "did not finish VERSION",
		server->cfg.timeout_ms);
	client_drop_why(server, &err);
}

/*
 * The listening socket
 */

/*
 * A client that comes back may be seen before the end of its old connection is. What the old one
 * still sent is handled, then it makes way.
 */
static void
client_drop_if_gone(struct vfe_vfu_server *server)
{
	struct vfe_error why = {"the peer hung up"};
	struct pollfd pfd = {server->fd, POLLRDHUP, 0};
	int i;

	if (poll(&pfd, 1, 0) != 1)
		return;
	/* the socket's buffer bounds what can be left; the count guards against a surprise */
	for (i = 0; i < LAST_TURNS && server->fd >= 0 && server->pending.data == NULL; i++)
		on_readable(server->loop, &server->read_io, EV_READ);
	if (server->fd >= 0)
		client_drop_why(server, &why);
}

static void
on_acceptable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct vfe_vfu_server *server = vfe_container_of(io, struct vfe_vfu_server, accept_io);
	int fd;

	(void)revents;
	fd = accept4(server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			ev_io_stop(loop, &server->accept_io); /* else the loop would spin */
			ev_timer_again(loop, &server->accept_timer);
		}
		return;
	}
	if (server->fd >= 0)
		client_drop_if_gone(server);
	if (server->fd >= 0) {
		close(fd);
		return;
	}
	server->fd = fd;
	ev_io_set(&server->read_io, fd, EV_READ);
	ev_io_set(&server->write_io, fd, EV_WRITE);
	ev_io_start(loop, &server->read_io);
	ev_timer_again(loop, &server->timer);
}

static void
on_accept_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct vfe_vfu_server *server =
		vfe_container_of(timer, struct vfe_vfu_server, accept_timer);

	(void)revents;
	ev_timer_stop(loop, timer);
	ev_io_start(loop, &server->accept_io);
}

/* Make way at @addr: a socket that nobody listens on is removed, anything else is in use. */
static int
path_make_free(const struct sockaddr_un *addr, struct vfe_error *err)
{
	struct stat st;
	int fd, ret;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0
				       : vfe_error_set(err, -errno, "cannot look at %s: %s",
						 addr->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return vfe_error_set(err, -EEXIST, "%s exists and is no socket", addr->sun_path);

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return vfe_error_set(err, -errno, "cannot create a socket: %s", strerror(errno));
	ret = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? errno : 0;
	close(fd);
	if (ret == ENOENT)
		return 0;
	if (ret != ECONNREFUSED)
		return vfe_error_set(
			err, -EADDRINUSE, "another process listens on %s", addr->sun_path);
	if (unlink(addr->sun_path) < 0 && errno != ENOENT)
		return vfe_error_set(err, -errno, "cannot remove the old socket %s: %s",
			addr->sun_path, strerror(errno));
	return 0;
}

static int
server_listen(struct vfe_vfu_server *server, struct vfe_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int ret;

	ret = vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), server->path);
	if (ret < 0)
		return vfe_error_set(err, ret, "socket path %s is longer than %zu characters",
			server->path, sizeof(addr.sun_path) - 1);
	ret = path_make_free(&addr, err);
	if (ret < 0)
		return ret;

	server->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (server->listen_fd < 0)
		return vfe_error_set(err, -errno, "cannot create a socket: %s", strerror(errno));
	/* the mode of the file is that of the socket cut by umask: never wider than asked for */
	if (fchmod(server->listen_fd, server->cfg.mode) < 0 ||
		bind(server->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return vfe_error_set(
			err, -errno, "cannot bind %s: %s", server->path, strerror(errno));
	if (lstat(server->path, &st) == 0) {
		server->sock_dev = st.st_dev;
		server->sock_ino = st.st_ino;
	}
	if (chmod(server->path, server->cfg.mode) < 0 || listen(server->listen_fd, BACKLOG) < 0)
		return vfe_error_set(
			err, -errno, "cannot listen on %s: %s", server->path, strerror(errno));
	return 0;
}

/*
 * Life
 */

/* The device's description is ours to get right, so that the replies fit their messages. */
static int
cfg_check(const struct vfe_vfu_server_cfg *cfg, struct vfe_error *err)
{
	uint32_t i;

	for (i = 0; i < VFE_VFU_NR_REGIONS; i++) {
		if (cfg->regions[i].nr_areas > VFU_MAX_AREAS ||
			cfg->regions[i].nr_io_fds > VFU_MAX_AREAS)
			return vfe_error_set(err, -EINVAL,
				"region %u has %u areas, %u io fds; legal are %d", i,
				cfg->regions[i].nr_areas, cfg->regions[i].nr_io_fds, VFU_MAX_AREAS);
	}
	for (i = 0; i < VFE_VFU_NR_IRQS; i++) {
		if (cfg->irq_counts[i] > VFE_VFU_SERVER_MAX_IRQS)
			return vfe_error_set(err, -EINVAL,
				"interrupt index %u has %u vectors; legal are %d", i,
				cfg->irq_counts[i], VFE_VFU_SERVER_MAX_IRQS);
	}
	return 0;
}

static void
server_init_watchers(struct vfe_vfu_server *server)
{
	const double timeout = server->cfg.timeout_ms / 1000.0;

	ev_init(&server->accept_io, on_acceptable);
	ev_init(&server->read_io, on_readable);
	ev_init(&server->write_io, on_writable);
	ev_timer_init(&server->timer, on_timeout, timeout, timeout);
	ev_timer_init(&server->accept_timer, on_accept_pause_over, ACCEPT_PAUSE_S, ACCEPT_PAUSE_S);
}

int
vfe_vfu_server_create(struct ev_loop *loop, const struct vfe_vfu_server_cfg *cfg,
	struct vfe_vfu_server **ret_server, struct vfe_error *err)
{
	struct vfe_vfu_server *server;
	int ret;

	ret = cfg_check(cfg, err);
	if (ret < 0)
		return ret;
	server = calloc(1, sizeof(*server));
	if (server == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	server->cfg = *cfg;
	if (server->cfg.timeout_ms == 0)
		server->cfg.timeout_ms = VFE_VFU_SERVER_TIMEOUT_MS;
	server->loop = loop;
	server->listen_fd = -1;
	server->fd = -1;
	server_init_watchers(server);

	server->path = strdup(cfg->path);
	if (server->path == NULL) {
		ret = vfe_error_set(err, -ENOMEM, "out of memory");
		goto err_destroy;
	}
	ret = server_listen(server, err);
	if (ret < 0)
		goto err_destroy;
	ev_io_set(&server->accept_io, server->listen_fd, EV_READ);
	ev_io_start(loop, &server->accept_io);
	*ret_server = server;
	return 0;

err_destroy:
	vfe_vfu_server_destroy(server);
	return cfg->name == NULL ? ret : vfe_error_prefix(err, ret, "%s", cfg->name);
}

/* Remove the socket, unless the path has become somebody else's. */
static void
path_remove(const struct vfe_vfu_server *server)
{
	struct stat st;

	if (server->sock_ino != 0 && lstat(server->path, &st) == 0 &&
		st.st_ino == server->sock_ino && st.st_dev == server->sock_dev)
		(void)unlink(server->path);
}

void
vfe_vfu_server_destroy(struct vfe_vfu_server *server)
{
	if (server == NULL)
		return;
	assert(!server->busy);
	ev_io_stop(server->loop, &server->accept_io);
	ev_timer_stop(server->loop, &server->accept_timer);
	if (server->fd >= 0)
		client_drop(server);
	path_remove(server);
	vfe_close(&server->listen_fd);
	free(server->path);
	free(server);
}

void
vfe_vfu_server_kick_out(struct vfe_vfu_server *server, const char *why)
{
	if (server->fd < 0 || server->leaving)
		return;
	vfe_error_set(&server->last_error, 0, "%s", why);
	if (server->busy)
		server->leaving = true;
	else
		client_drop(server);
}

bool
vfe_vfu_server_connected(const struct vfe_vfu_server *server)
{
	return server->negotiated;
}

const char *
vfe_vfu_server_last_error(const struct vfe_vfu_server *server)
{
	return server->last_error.text;
}
