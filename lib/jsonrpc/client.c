/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * One connection: bytes to lines, replies to bytes, and the moment to hang up.
 */

#include "jsonrpc_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { READ_CHUNK = 16 << 10 };

static void
buf_free(struct jsonrpc_buf *buf)
{
	free(buf->data);
	*buf = (struct jsonrpc_buf){0};
}

/* Make room for @want more bytes. Returns 0 or -ENOMEM. */
static int
buf_reserve(struct jsonrpc_buf *buf, size_t want)
{
	size_t cap = buf->cap > 0 ? buf->cap : 1024;
	char *data;

	if (buf->cap - buf->len >= want)
		return 0;
	if (buf->head > 0) {
		memmove(buf->data, buf->data + buf->head, buf->len - buf->head);
		buf->len -= buf->head;
		buf->head = 0;
	}
	while (cap - buf->len < want)
		cap *= 2;
	if (cap == buf->cap)
		return 0;
	data = realloc(buf->data, cap);
	if (data == NULL)
		return -ENOMEM;
	buf->data = data;
	buf->cap = cap;
	return 0;
}

static void
buf_consume(struct jsonrpc_buf *buf, size_t n)
{
	buf->head += n;
	if (buf->head == buf->len)
		buf_free(buf);
}

void
jsonrpc_client_queue(struct jsonrpc_client *client, const char *text, size_t len)
{
	struct jsonrpc_buf *out = &client->out;

	if (client->broken)
		return;
	if (out->len - out->head + len + 1 > VFE_JSONRPC_MAX_QUEUED ||
		buf_reserve(out, len + 1) < 0) {
		client->broken = true;
		return;
	}
	memcpy(out->data + out->len, text, len);
	out->data[out->len + len] = '\n';
	out->len += len + 1;
}

static void
client_flush(struct jsonrpc_client *client)
{
	struct jsonrpc_buf *out = &client->out;
	ssize_t n;

	while (out->len > out->head) {
		n = send(client->fd, out->data + out->head, out->len - out->head,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			ev_io_start(client->server->loop, &client->write_io);
			return;
		}
		if (n < 0) {
			client->broken = true;
			return;
		}
		buf_consume(out, (size_t)n);
	}
	ev_io_stop(client->server->loop, &client->write_io);
}

void
jsonrpc_client_settle(struct jsonrpc_client *client)
{
	if (!client->broken)
		client_flush(client);
	if (client->broken ||
		(client->eof && TAILQ_EMPTY(&client->requests) && client->out.data == NULL))
		jsonrpc_client_destroy(client);
}

static void
reading_end(struct jsonrpc_client *client)
{
	client->eof = true;
	ev_io_stop(client->server->loop, &client->read_io);
	buf_free(&client->in);
	client->scanned = 0;
}

/* Dispatch every complete line. */
static void
lines_dispatch(struct jsonrpc_client *client)
{
	struct jsonrpc_buf *in = &client->in;
	char *line, *end;

	while (in->data != NULL && !client->broken) {
		line = in->data + in->head;
		end = memchr(line + client->scanned, '\n', in->len - in->head - client->scanned);
		if (end == NULL) {
			client->scanned = in->len - in->head;
			break;
		}
		client->scanned = 0;
		if (end - line > VFE_JSONRPC_MAX_LINE)
			break;
		jsonrpc_line_dispatch(client, line, (size_t)(end - line));
		buf_consume(in, (size_t)(end - line) + 1);
	}
	if (in->len - in->head > VFE_JSONRPC_MAX_LINE && !client->broken) {
		jsonrpc_error_queue(client, NULL, VFE_JSONRPC_INVALID_REQUEST,
			"the request is longer than 1 MiB; the connection is closed");
		reading_end(client);
	}
}

/* The peer sends no more. What has no newline counts as a line: an object cut short won't parse. */
static void
on_eof(struct jsonrpc_client *client)
{
	struct jsonrpc_buf *in = &client->in;

	if (in->data != NULL)
		jsonrpc_line_dispatch(client, in->data + in->head, in->len - in->head);
	reading_end(client);
}

static void
on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct jsonrpc_client *client = io->data;
	struct jsonrpc_buf *in = &client->in;
	ssize_t n;

	(void)loop;
	(void)revents;
	if (buf_reserve(in, READ_CHUNK) < 0) {
		jsonrpc_client_destroy(client);
		return;
	}
	n = recv(client->fd, in->data + in->len, in->cap - in->len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		if (in->len == in->head)
			buf_free(in);
		return;
	}

	client->busy = true;
	if (n > 0) {
		in->len += (size_t)n;
		lines_dispatch(client);
	} else if (n == 0) {
		if (in->len == in->head)
			buf_free(in);
		on_eof(client);
	} else {
		client->broken = true;
	}
	client->busy = false;
	jsonrpc_client_settle(client);
}

static void
on_writable(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	(void)revents;
	jsonrpc_client_settle(io->data);
}

/* Takes over @fd on success. */
int
jsonrpc_client_create(struct vfe_jsonrpc_server *server, int fd)
{
	struct jsonrpc_client *client = calloc(1, sizeof(*client));

	if (client == NULL)
		return -ENOMEM;
	client->server = server;
	client->fd = fd;
	TAILQ_INIT(&client->requests);
	ev_io_init(&client->read_io, on_readable, fd, EV_READ);
	ev_io_init(&client->write_io, on_writable, fd, EV_WRITE);
	client->read_io.data = client;
	client->write_io.data = client;
	ev_io_start(server->loop, &client->read_io);
	TAILQ_INSERT_TAIL(&server->clients, client, entry);
	server->nr_clients++;
	return 0;
}

void
jsonrpc_client_destroy(struct jsonrpc_client *client)
{
	struct vfe_jsonrpc_server *server = client->server;
	struct vfe_jsonrpc_request *req;

	while ((req = TAILQ_FIRST(&client->requests)) != NULL) {
		TAILQ_REMOVE(&client->requests, req, entry);
		req->client = NULL;
	}
	ev_io_stop(server->loop, &client->read_io);
	ev_io_stop(server->loop, &client->write_io);
	vfe_close(&client->fd);
	buf_free(&client->in);
	buf_free(&client->out);
	TAILQ_REMOVE(&server->clients, client, entry);
	free(client);
	jsonrpc_server_client_gone(server);
}
