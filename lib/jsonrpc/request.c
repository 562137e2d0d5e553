/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * One request: parse and check it (JSON-RPC 2.0 section 4), call the method, shape the reply.
 */

#include "jsonrpc_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A JSON string of @text, which may quote what a peer sent: not UTF-8 becomes '?'. */
static json_t *
text_to_json(const char *text)
{
	json_t *str = json_string(text);
	char ascii[512];
	size_t i;

	if (str != NULL)
		return str;
	for (i = 0; i < sizeof(ascii) - 1 && text[i] != '\0'; i++)
		ascii[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	ascii[i] = '\0';
	return json_string(ascii);
}

/* {"jsonrpc":"2.0","id":@id,@member:@value} as malloc'ed text, or NULL. Takes @value. */
static char *
reply_text(const json_t *id, const char *member, json_t *value)
{
	json_t *reply;
	char *text;

	reply = json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "id",
		id != NULL ? json_deep_copy(id) : json_null(), member, value);
	text = json_dumps(reply, JSON_COMPACT);
	json_decref(reply);
	return text;
}

static char *
error_text(const json_t *id, int code, const char *text)
{
	return reply_text(
		id, "error", json_pack("{s:i, s:o}", "code", code, "message", text_to_json(text)));
}

void
jsonrpc_error_queue(struct jsonrpc_client *client, const json_t *id, int code, const char *text)
{
	char *line = error_text(id, code, text);

	if (line == NULL) /* out of memory: the peer must not wait for ever */
		client->broken = true;
	else
		jsonrpc_client_queue(client, line, strlen(line));
	free(line);
}

void
jsonrpc_error_send(int fd, int code, const char *text)
{
	char *line = error_text(NULL, code, text);
	size_t len;

	if (line == NULL)
		return;
	len = strlen(line);
	line[len] = '\n'; /* in place of the terminator */
	if (send(fd, line, len + 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		/* it has gone already */
	}
	free(line);
}

static struct vfe_jsonrpc_request *
request_create(struct jsonrpc_client *client, json_t *id)
{
	struct vfe_jsonrpc_request *req = calloc(1, sizeof(*req));

	if (req == NULL)
		return NULL;
	req->client = client;
	req->id = json_incref(id);
	TAILQ_INSERT_TAIL(&client->requests, req, entry);
	client->nr_requests++;
	return req;
}

/* Free @req; its client, if it is outside of the parser, sends what it has. */
static void
request_finish(struct vfe_jsonrpc_request *req)
{
	struct jsonrpc_client *client = req->client;

	if (client != NULL) {
		TAILQ_REMOVE(&client->requests, req, entry);
		client->nr_requests--;
	}
	json_decref(req->id);
	free(req);
	if (client != NULL && !client->busy)
		jsonrpc_client_settle(client);
}

void
vfe_jsonrpc_reply(struct vfe_jsonrpc_request *req, json_t *result)
{
	char *line;

	if (req->client == NULL || req->id == NULL) {
		json_decref(result);
		request_finish(req);
		return;
	}
	line = reply_text(req->id, "result", result);
	if (line != NULL)
		jsonrpc_client_queue(req->client, line, strlen(line));
	else
		jsonrpc_error_queue(req->client, req->id, VFE_JSONRPC_INTERNAL_ERROR,
			"the result cannot be written as JSON");
	free(line);
	request_finish(req);
}

void
vfe_jsonrpc_fail(struct vfe_jsonrpc_request *req, int code, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (req->client != NULL && req->id != NULL) {
		va_start(ap, fmt);
		vsnprintf(text, sizeof(text), fmt, ap);
		va_end(ap);
		jsonrpc_error_queue(req->client, req->id, code, text);
	}
	request_finish(req);
}

static const struct vfe_jsonrpc_method *
method_find(const struct vfe_jsonrpc_server *server, const char *name)
{
	const struct vfe_jsonrpc_method *m;

	for (m = server->methods; m->name != NULL; m++)
		if (strcmp(m->name, name) == 0)
			return m;
	return NULL;
}

/* Why @root is not a request (section 4), or NULL when it is one. */
static const char *
request_check(const json_t *root)
{
	const json_t *version, *method, *params, *id;

	if (json_is_array(root))
		return "batches are not supported: send one request per line";
	if (!json_is_object(root))
		return "the request is not an object";
	version = json_object_get(root, "jsonrpc");
	if (!json_is_string(version) || strcmp(json_string_value(version), "2.0") != 0)
		return "\"jsonrpc\" must be \"2.0\"";
	method = json_object_get(root, "method");
	if (!json_is_string(method))
		return "\"method\" must be a string";
	params = json_object_get(root, "params");
	if (params != NULL && !json_is_object(params) && !json_is_array(params))
		return "\"params\" must be an object or an array";
	id = json_object_get(root, "id");
	if (id != NULL && !json_is_string(id) && !json_is_number(id) && !json_is_null(id))
		return "\"id\" must be a string, a number or null";
	return NULL;
}

/* The id to answer an invalid request with: null unless it can be told (section 5). */
static const json_t *
id_usable(const json_t *root)
{
	const json_t *id = json_object_get(root, "id");

	return json_is_string(id) || json_is_number(id) ? id : NULL;
}

static void
request_dispatch(struct jsonrpc_client *client, json_t *root)
{
	const char *name = json_string_value(json_object_get(root, "method"));
	const struct vfe_jsonrpc_method *method = method_find(client->server, name);
	struct vfe_jsonrpc_request *req;

	req = request_create(client, json_object_get(root, "id"));
	if (req == NULL)
		client->broken = true;
	else if (method == NULL)
		vfe_jsonrpc_fail(
			req, VFE_JSONRPC_METHOD_NOT_FOUND, "unknown method \"%.64s\"", name);
	else if (client->nr_requests > VFE_JSONRPC_MAX_PENDING)
		vfe_jsonrpc_fail(req, VFE_JSONRPC_BUSY,
			"%d requests of this connection wait for an answer already",
			VFE_JSONRPC_MAX_PENDING);
	else
		method->handler(req, json_object_get(root, "params"), client->server->ctx);
}

static bool
is_blank(const char *line, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

void
jsonrpc_line_dispatch(struct jsonrpc_client *client, const char *line, size_t len)
{
	json_error_t error;
	const char *wrong;
	char text[256];
	json_t *root;

	if (is_blank(line, len))
		return;
	root = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (root == NULL) {
		snprintf(text, sizeof(text), "not JSON at byte %d: %s", error.position, error.text);
		jsonrpc_error_queue(client, NULL, VFE_JSONRPC_PARSE_ERROR, text);
		return;
	}
	wrong = request_check(root);
	if (wrong != NULL)
		jsonrpc_error_queue(client, id_usable(root), VFE_JSONRPC_INVALID_REQUEST, wrong);
	else
		request_dispatch(client, root);
	json_decref(root);
}
