/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Life of the JSON-RPC server, and the door: who comes in.
 */

#include "jsonrpc_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPT_BATCH = 64 }; /* connections per event, so that a storm cannot hold the loop */

static const double accept_retry_s = 1.0;

/* Admit the peer of @fd, or tell it why not. Takes over @fd. */
static void
peer_admit(struct vfe_jsonrpc_server *server, int fd)
{
	struct vfe_error err;

	if (jsonrpc_peer_check(fd, server->has_gid, server->gid, &err) < 0) {
		jsonrpc_error_send(fd, VFE_JSONRPC_DENIED, err.text);
	} else if (server->nr_clients >= VFE_JSONRPC_MAX_CLIENTS) {
		jsonrpc_error_send(fd, VFE_JSONRPC_BUSY, "too many connections: try again later");
	} else if (jsonrpc_client_create(server, fd) == 0) {
		return;
	}
	vfe_close(&fd);
}

static void
on_accept(struct ev_loop *loop, ev_io *io, int revents)
{
	struct vfe_jsonrpc_server *server = io->data;
	int fd, i;

	(void)revents;
	for (i = 0; i < ACCEPT_BATCH; i++) {
		fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			peer_admit(server, fd);
			continue;
		}
		if (errno == ECONNABORTED || errno == EINTR)
			continue;
		if (errno != EAGAIN) {
			/* no fd or no memory: the connection stays pending, so don't spin on it */
			ev_io_stop(loop, io);
			ev_timer_set(&server->accept_retry, accept_retry_s, 0.);
			ev_timer_start(loop, &server->accept_retry);
		}
		return;
	}
}

static void
accept_resume(struct vfe_jsonrpc_server *server)
{
	ev_timer_stop(server->loop, &server->accept_retry);
	ev_io_start(server->loop, &server->accept_io);
}

static void
on_accept_retry(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	accept_resume(timer->data);
}

void
jsonrpc_server_client_gone(struct vfe_jsonrpc_server *server)
{
	server->nr_clients--;
	if (server->fd >= 0)
		accept_resume(server);
}

int
vfe_jsonrpc_server_create(struct ev_loop *loop, const struct vfe_jsonrpc_cfg *cfg,
	struct vfe_jsonrpc_server **ret_server, struct vfe_error *err)
{
	struct vfe_jsonrpc_server *server;
	int ret;

	server = calloc(1, sizeof(*server));
	if (server == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	server->loop = loop;
	server->methods = cfg->methods;
	server->ctx = cfg->ctx;
	server->fd = -1;
	TAILQ_INIT(&server->clients);
	if (cfg->group != NULL) {
		ret = jsonrpc_group_find(cfg->group, &server->gid, err);
		if (ret < 0)
			goto err_free;
		server->has_gid = true;
	}

	ret = jsonrpc_listen(cfg, server->gid, server->has_gid, err);
	if (ret < 0)
		goto err_free;
	server->fd = ret;
	vfe_str_copy(server->path, sizeof(server->path), cfg->path);
	if (lstat(server->path, &server->path_stat) < 0)
		memset(&server->path_stat, 0, sizeof(server->path_stat));

	ev_init(&server->accept_retry, on_accept_retry);
	ev_io_init(&server->accept_io, on_accept, server->fd, EV_READ);
	server->accept_retry.data = server;
	server->accept_io.data = server;
	ev_io_start(loop, &server->accept_io);
	*ret_server = server;
	return 0;

err_free:
	free(server);
	return ret;
}

/* The file at our path may be another server's by now. */
static void
path_remove(const struct vfe_jsonrpc_server *server)
{
	struct stat st;

	if (lstat(server->path, &st) == 0 && st.st_ino == server->path_stat.st_ino &&
		st.st_dev == server->path_stat.st_dev)
		unlink(server->path);
}

void
vfe_jsonrpc_server_destroy(struct vfe_jsonrpc_server *server)
{
	struct jsonrpc_client *client;

	if (server == NULL)
		return;
	path_remove(server);
	ev_timer_stop(server->loop, &server->accept_retry);
	ev_io_stop(server->loop, &server->accept_io);
	vfe_close(&server->fd);
	while ((client = TAILQ_FIRST(&server->clients)) != NULL) {
		assert(!client->busy); /* not from within a handler */
		jsonrpc_client_destroy(client);
	}
	free(server);
}
