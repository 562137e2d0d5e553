/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Fuzz the JSON-RPC server with the bytes of one client: no crash, and every reply is JSON-RPC.
 */

#undef NDEBUG

#include "jsonrpc_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_HELD = 4096 };

static struct vfe_jsonrpc_request *held[MAX_HELD];
static unsigned int nr_held;

static void
on_echo(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	const char *dev = "none";
	int64_t n = 0;
	const struct vfe_jsonrpc_param schema[] = {
		{"dev", VFE_JSONRPC_STRING, .nullable = true, .ret = &dev},
		{"n", VFE_JSONRPC_INT, .max = 6, .ret = &n},
	};
	struct vfe_error err;

	(void)ctx;
	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0)
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
	else
		vfe_jsonrpc_reply(req, json_string(dev));
}

static void
on_hold(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	(void)params;
	(void)ctx;
	if (nr_held < MAX_HELD)
		held[nr_held++] = req;
	else
		vfe_jsonrpc_fail(req, 1, "enough");
}

static const struct vfe_jsonrpc_method methods[] = {
	{"echo", on_echo},
	{"hold", on_hold},
	{NULL, NULL},
};

static void
line_check(const char *line, size_t len)
{
	json_t *reply = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);

	assert(json_is_object(reply));
	assert(json_object_get(reply, "id") != NULL);
	assert(!json_object_get(reply, "result") != !json_object_get(reply, "error"));
	json_decref(reply);
}

static void
replies_check(int fd)
{
	static char all[VFE_JSONRPC_MAX_QUEUED];
	size_t len = 0, at = 0;
	char *newline;
	ssize_t n;

	while ((n = recv(fd, all + len, sizeof(all) - len, MSG_DONTWAIT)) > 0)
		len += (size_t)n;
	while (at < len) {
		newline = memchr(all + at, '\n', len - at);
		assert(newline != NULL);
		line_check(all + at, (size_t)(newline - (all + at)));
		at = (size_t)(newline - all) + 1;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vfe_jsonrpc_server server = {.methods = methods, .fd = -1};
	unsigned int turns;
	int fds[2];

	server.loop = ev_default_loop(EVBACKEND_SELECT);
	TAILQ_INIT(&server.clients);
	assert(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	assert(jsonrpc_client_create(&server, fds[0]) == 0);
	assert(send(fds[1], data, size, MSG_NOSIGNAL) == (ssize_t)size);
	shutdown(fds[1], SHUT_WR);
	for (turns = 0; turns < 16 && server.nr_clients > 0; turns++) {
		ev_run(server.loop, EVRUN_NOWAIT);
		while (nr_held > 0)
			vfe_jsonrpc_reply(held[--nr_held], json_true());
	}
	assert(server.nr_clients == 0);
	replies_check(fds[1]);
	close(fds[1]);
	return 0;
}
