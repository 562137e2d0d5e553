/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the parts of the JSON-RPC server share: server, client, request. All on the loop's thread.
 */

#ifndef VFE_JSONRPC_PRIV_H
#define VFE_JSONRPC_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <ev.h>
#include <jansson.h>

#include "vfe_base.h"
#include "vfe_jsonrpc.h"

struct jsonrpc_client;

TAILQ_HEAD(jsonrpc_client_list, jsonrpc_client);
TAILQ_HEAD(jsonrpc_request_list, vfe_jsonrpc_request);

struct vfe_jsonrpc_server {
	struct ev_loop *loop;
	const struct vfe_jsonrpc_method *methods; /* borrowed */
	void *ctx;
	int fd;
	ev_io accept_io;
	ev_timer accept_retry; /* runs while accept(2) is out of fds or memory */
	char path[108];
	struct stat path_stat; /* of the socket file that we made */
	bool has_gid;
	gid_t gid;
	struct jsonrpc_client_list clients;
	unsigned int nr_clients;
};

/* A growing byte buffer; the bytes are [head, len). Holds no memory while it is empty. */
struct jsonrpc_buf {
	char *data;
	size_t head;
	size_t len;
	size_t cap;
};

struct jsonrpc_client {
	TAILQ_ENTRY(jsonrpc_client) entry;
	struct vfe_jsonrpc_server *server;
	int fd;
	ev_io read_io;
	ev_io write_io;
	struct jsonrpc_buf in;
	struct jsonrpc_buf out;
	size_t scanned;                       /* bytes of @in that are known to hold no newline */
	struct jsonrpc_request_list requests; /* without an answer yet */
	unsigned int nr_requests;
	bool busy;   /* inside the parser: replies are only queued */
	bool eof;    /* reads no more; goes when all is answered and sent */
	bool broken; /* goes now */
};

struct vfe_jsonrpc_request {
	TAILQ_ENTRY(vfe_jsonrpc_request) entry;
	struct jsonrpc_client *client; /* NULL: has gone */
	json_t *id;                    /* NULL: a notification, which gets no reply */
};

/* socket.c */
int
jsonrpc_listen(const struct vfe_jsonrpc_cfg *cfg, gid_t gid, bool has_gid, struct vfe_error *err);
int jsonrpc_group_find(const char *name, gid_t *ret, struct vfe_error *err);
int jsonrpc_peer_check(int fd, bool has_gid, gid_t gid, struct vfe_error *err);

/* client.c */
int jsonrpc_client_create(struct vfe_jsonrpc_server *server, int fd);
void jsonrpc_client_destroy(struct jsonrpc_client *client);
/* Queue one line for @client. Beyond the limit the client is marked broken. */
void jsonrpc_client_queue(struct jsonrpc_client *client, const char *text, size_t len);
/* Send what can be sent, then destroy @client when it is done with. */
void jsonrpc_client_settle(struct jsonrpc_client *client);

/* request.c */
void jsonrpc_line_dispatch(struct jsonrpc_client *client, const char *line, size_t len);
void
jsonrpc_error_queue(struct jsonrpc_client *client, const json_t *id, int code, const char *text);
/* Tell a peer that never becomes a client why; best effort. */
void jsonrpc_error_send(int fd, int code, const char *text);

/* server.c */
void jsonrpc_server_client_gone(struct vfe_jsonrpc_server *server);

#endif /* VFE_JSONRPC_PRIV_H */
