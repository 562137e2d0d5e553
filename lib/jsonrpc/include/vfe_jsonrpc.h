/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * JSON-RPC 2.0 server: newline-delimited JSON on a UNIX stream socket, on a libev loop.
 *
 * One request per line, any number of lines and clients; replies carry the request's id and may
 * come in any order, also long after the handler has returned. A line longer than the limit, or
 * not UTF-8 JSON, or deeper than jansson accepts, gets an error reply; the client is closed when
 * its framing cannot be trusted any more. A client that does not read its replies is closed when
 * its queue of replies passes the limit. A client that half-closes still gets its replies.
 * A request without an id is a notification: executed, not answered. Batches (arrays) are refused
 * with INVALID_REQUEST. Names that occur twice in an object are a PARSE_ERROR.
 * Only root, the process's own user, and members of one group may speak (SO_PEERCRED).
 * Everything runs on the loop's thread.
 */

#ifndef VFE_JSONRPC_H
#define VFE_JSONRPC_H

#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "vfe_base.h"

enum {
	VFE_JSONRPC_MAX_LINE = 1 << 20,   /* bytes of one request */
	VFE_JSONRPC_MAX_QUEUED = 4 << 20, /* bytes of unread replies of one client */
	VFE_JSONRPC_MAX_CLIENTS = 256,
	VFE_JSONRPC_MAX_PENDING = 16384, /* requests of one client that wait for their answer */

	/* JSON-RPC 2.0 section 5.1 */
	VFE_JSONRPC_PARSE_ERROR = -32700,
	VFE_JSONRPC_INVALID_REQUEST = -32600,
	VFE_JSONRPC_METHOD_NOT_FOUND = -32601,
	VFE_JSONRPC_INVALID_PARAMS = -32602,
	VFE_JSONRPC_INTERNAL_ERROR = -32603,

	/* ours, in the range that section 5.1 leaves to servers */
	VFE_JSONRPC_DENIED = -32000, /* the peer may not speak here; it is closed */
	VFE_JSONRPC_BUSY = -32001,   /* too many clients or waiting requests: try again later */
};

struct ev_loop;
struct vfe_jsonrpc_server;
struct vfe_jsonrpc_request; /* one call that waits for its answer */

/*
 * A method. @params is an object, an array, or NULL, borrowed until the handler returns. The
 * handler answers exactly once, now or later, with vfe_jsonrpc_reply() or vfe_jsonrpc_fail().
 */
struct vfe_jsonrpc_method {
	const char *name;
	void (*handler)(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);
};

struct vfe_jsonrpc_cfg {
	const char *path;  /* an existing socket that nobody listens on is replaced; its folder is
			      created with mode 0755 when absent */
	uint32_t mode;     /* of the socket, e.g. 0660 */
	const char *group; /* group that owns the socket and may connect; NULL = none but root */
	const struct vfe_jsonrpc_method *methods; /* borrowed; ended by a NULL name */
	void *ctx;
};

/* Listen. *@ret is owned by the caller. Returns 0, -EADDRINUSE, or another -errno. */
int vfe_jsonrpc_server_create(struct ev_loop *loop, const struct vfe_jsonrpc_cfg *cfg,
	struct vfe_jsonrpc_server **ret, struct vfe_error *err);

/*
 * Close all clients, remove the socket, free. Requests that are not answered yet stay valid:
 * answering them later does nothing but free them. Not from within a handler. NULL is fine.
 */
void vfe_jsonrpc_server_destroy(struct vfe_jsonrpc_server *server);

/* Answer with @result, whose reference is taken (also when the client has gone). Frees @req. */
void vfe_jsonrpc_reply(struct vfe_jsonrpc_request *req, json_t *result);

/* Answer with an error object {code, message}. Frees @req. */
void vfe_jsonrpc_fail(struct vfe_jsonrpc_request *req, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Strict access to the members of @params. A schema row names a member, its type and whether it
 * must be there; unknown members are an error too. On success the @ret pointers of the schema are
 * set (strings borrowed from @params; absent optional members leave theirs untouched).
 */
enum vfe_jsonrpc_type {
	VFE_JSONRPC_STRING, /* const char ** */
	VFE_JSONRPC_BOOL,   /* bool * */
	VFE_JSONRPC_INT,    /* int64_t *; min..max checked */
};

struct vfe_jsonrpc_param {
	const char *name;
	enum vfe_jsonrpc_type type;
	bool required;
	bool nullable; /* JSON null counts as absent */
	int64_t min;
	int64_t max;
	void *ret;
};

/* Returns 0, or -EINVAL with a text that names the member and what was expected. */
int vfe_jsonrpc_params(const json_t *params, const struct vfe_jsonrpc_param *schema, size_t n,
	struct vfe_error *err);

#endif /* VFE_JSONRPC_H */
