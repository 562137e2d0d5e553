/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of lib/jsonrpc: honest clients get every answer, the others harm nobody but themselves.
 *
 * Server and clients live in one thread: a client that waits lets the server's loop turn.
 */

#undef NDEBUG

#include "vfe_jsonrpc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <ev.h>

enum {
	PATIENCE_MS = 20000,
	MAX_HELD = 20000,
};

struct fixture {
	struct ev_loop *loop;
	struct vfe_jsonrpc_server *server;
	char folder[64];
	char path[96];
	struct vfe_jsonrpc_request *held[MAX_HELD]; /* by the method "hold" */
	unsigned int nr_held;
	unsigned int nr_calls;
};

static struct fixture fx;

/* --- methods --- */

static void
on_echo(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct fixture *f = ctx;

	f->nr_calls++;
	vfe_jsonrpc_reply(req, params != NULL ? json_deep_copy(params) : json_null());
}

static void
on_hold(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct fixture *f = ctx;

	(void)params;
	assert_true(f->nr_held < MAX_HELD);
	f->held[f->nr_held++] = req;
}

static void
on_fail(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	(void)params;
	(void)ctx;
	vfe_jsonrpc_fail(req, 1003, "no VF %s", "af:04.5\xff");
}

static void
on_big(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	size_t size = (size_t)json_integer_value(json_array_get(params, 0));
	char *text = malloc(size + 1);

	(void)ctx;
	assert_non_null(text);
	memset(text, 'x', size);
	text[size] = '\0';
	vfe_jsonrpc_reply(req, json_string(text));
	free(text);
}

static void
on_null(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	(void)params;
	(void)ctx;
	vfe_jsonrpc_reply(req, NULL);
}

static const struct vfe_jsonrpc_method methods[] = {
	{"echo", on_echo},
	{"hold", on_hold},
	{"fail", on_fail},
	{"big", on_big},
	{"null", on_null},
	{NULL, NULL},
};

/* --- fixture --- */

static int
server_start(const char *path, const char *group, struct vfe_error *err)
{
	const struct vfe_jsonrpc_cfg cfg = {
		.path = path, .mode = 0660, .group = group, .methods = methods, .ctx = &fx};

	return vfe_jsonrpc_server_create(fx.loop, &cfg, &fx.server, err);
}

static int
setup(void **state)
{
	struct vfe_error err;

	(void)state;
	memset(&fx, 0, sizeof(fx));
	fx.loop = ev_loop_new(EVFLAG_AUTO);
	assert_non_null(fx.loop);
	vfe_str_copy(fx.folder, sizeof(fx.folder), "/tmp/vfe-jsonrpc-XXXXXX");
	assert_non_null(mkdtemp(fx.folder));
	vfe_str_format(fx.path, sizeof(fx.path), "%s/rpc.sock", fx.folder);
	assert_int_equal(server_start(fx.path, NULL, &err), 0);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	vfe_jsonrpc_server_destroy(fx.server);
	ev_loop_destroy(fx.loop);
	assert_int_equal(rmdir(fx.folder), 0); /* fails when a socket was left behind */
	return 0;
}

static void
turn(void)
{
	ev_run(fx.loop, EVRUN_NOWAIT);
}

static void
turns(unsigned int n)
{
	while (n-- > 0)
		turn();
}

static int
client_open(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), fx.path), 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(vfe_fd_set_nonblock(fd), 0);
	return fd;
}

/* Send all, letting the server read in between. Returns 0 or -errno. */
static int
client_send_n(int fd, const char *data, size_t len)
{
	struct vfe_deadline d = vfe_deadline_in_ms(PATIENCE_MS);
	ssize_t n;

	while (len > 0) {
		n = send(fd, data, len, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
		turn();
		assert_false(vfe_deadline_passed(d));
	}
	return 0;
}

static void
client_send(int fd, const char *text)
{
	assert_int_equal(client_send_n(fd, text, strlen(text)), 0);
}

/*
 * Take what has arrived, at most to the end of a line and @room bytes.
 * Returns the bytes taken, or 0 at the end of the stream.
 */
static size_t
client_take(int fd, char *buf, size_t room)
{
	struct vfe_deadline d = vfe_deadline_in_ms(PATIENCE_MS);
	const char *end;
	ssize_t n;

	for (;;) {
		n = recv(fd, buf, room, MSG_PEEK);
		if (n > 0) {
			end = memchr(buf, '\n', (size_t)n);
			n = end != NULL ? end - buf + 1 : n;
			assert_int_equal(recv(fd, buf, (size_t)n, 0), n);
			return (size_t)n;
		}
		if (n == 0 || errno != EAGAIN)
			return 0;
		turn();
		assert_false(vfe_deadline_passed(d));
	}
}

/* The next reply, or NULL when the server has hung up. The caller owns it. */
static json_t *
client_reply(int fd)
{
	size_t len = 0, cap = 1 << 16, n;
	char *line = malloc(cap);
	json_t *reply;

	assert_non_null(line);
	while ((n = client_take(fd, line + len, cap - len)) > 0) {
		len += n;
		if (line[len - 1] == '\n') {
			reply = json_loadb(line, len, 0, NULL);
			assert_non_null(reply);
			assert_string_equal(
				json_string_value(json_object_get(reply, "jsonrpc")), "2.0");
			free(line);
			return reply;
		}
		if (len == cap) {
			cap *= 2;
			line = realloc(line, cap);
			assert_non_null(line);
		}
	}
	assert_int_equal(len, 0);
	free(line);
	return NULL;
}

static void
expect_result(int fd, json_int_t id)
{
	json_t *reply = client_reply(fd);

	assert_non_null(reply);
	assert_non_null(json_object_get(reply, "result"));
	assert_null(json_object_get(reply, "error"));
	assert_int_equal(json_integer_value(json_object_get(reply, "id")), id);
	json_decref(reply);
}

/* @id < 0: null is expected. */
static void
expect_error(int fd, json_int_t id, int code, const char *words)
{
	json_t *reply = client_reply(fd);
	json_t *error, *got;

	assert_non_null(reply);
	error = json_object_get(reply, "error");
	assert_non_null(error);
	assert_null(json_object_get(reply, "result"));
	assert_int_equal(json_integer_value(json_object_get(error, "code")), code);
	if (strstr(json_string_value(json_object_get(error, "message")), words) == NULL)
		fail_msg("\"%s\" does not mention \"%s\"",
			json_string_value(json_object_get(error, "message")), words);
	got = json_object_get(reply, "id");
	if (id < 0)
		assert_true(json_is_null(got));
	else
		assert_int_equal(json_integer_value(got), id);
	json_decref(reply);
}

static void
expect_hangup(int fd)
{
	assert_null(client_reply(fd));
}

/* The server still serves somebody else. */
static void
expect_alive(void)
{
	int fd = client_open();

	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[1],\"id\":77}\n");
	expect_result(fd, 77);
	close(fd);
	turns(3);
}

static unsigned int
open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* --- honest clients --- */

static void
ids_come_back_as_they_were(void **state)
{
	static const char *const ids[] = {
		"1", "\"a\xc3\xa9\"", "null", "9223372036854775807", "1.5", "\"\""};
	char line[128];
	json_t *reply, *want;
	size_t i;
	int fd;

	(void)state;
	fd = client_open();
	for (i = 0; i < VFE_ARRAY_SIZE(ids); i++) {
		snprintf(line, sizeof(line),
			"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":%s}\r\n", ids[i]);
		client_send(fd, line);
		reply = client_reply(fd);
		assert_non_null(reply);
		want = json_loads(ids[i], JSON_DECODE_ANY, NULL);
		assert_true(json_equal(json_object_get(reply, "id"), want));
		json_decref(want);
		json_decref(reply);
	}
	close(fd);
}

static void
notification_runs_without_answer(void **state)
{
	int fd;

	(void)state;
	fd = client_open();
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}\n"
			"{\"jsonrpc\":\"2.0\",\"method\":\"fail\"}\n"
			"{\"jsonrpc\":\"2.0\",\"method\":\"unknown\"}\n"
			"\n \t\r\n"
			"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":2}\n");
	expect_result(fd, 2);
	assert_int_equal(fx.nr_calls, 2);
	close(fd);
}

static void
request_may_come_byte_by_byte(void **state)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"k\":"
				   "\"\xe2\x82\xac\"},\"id\":3}\n";
	size_t i;
	int fd;

	(void)state;
	fd = client_open();
	for (i = 0; i < sizeof(line) - 1; i++)
		assert_int_equal(client_send_n(fd, &line[i], 1), 0);
	expect_result(fd, 3);
	close(fd);
}

static void
late_answers_in_any_order(void **state)
{
	int fd, other;

	(void)state;
	fd = client_open();
	other = client_open();
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":1}\n"
			"{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":2}\n");
	client_send(other, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":1}\n");
	expect_result(other, 1);
	assert_int_equal(fx.nr_held, 2);
	vfe_jsonrpc_fail(fx.held[1], 1000, "second");
	expect_error(fd, 2, 1000, "second");
	vfe_jsonrpc_reply(fx.held[0], json_true());
	expect_result(fd, 1);
	close(fd);
	close(other);
}

static void
half_closed_client_gets_its_answers(void **state)
{
	int fd;

	(void)state;
	fd = client_open();
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":1}\n"
			"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":2}"); /* no newline */
	shutdown(fd, SHUT_WR);
	expect_result(fd, 2);
	assert_int_equal(fx.nr_held, 1);
	vfe_jsonrpc_reply(fx.held[0], json_true());
	expect_result(fd, 1);
	expect_hangup(fd);
	close(fd);
}

static void
ten_thousand_pipelined_requests(void **state)
{
	char line[80];
	int i, fd;

	(void)state;
	fd = client_open();
	for (i = 0; i < 10000; i++) {
		snprintf(line, sizeof(line),
			"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":%d}\n", i);
		client_send(fd, line);
	}
	for (i = 0; i < 10000; i++)
		expect_result(fd, i);
	close(fd);
}

static void
ten_thousand_held_requests(void **state)
{
	char line[80];
	int i, fd;

	(void)state;
	fd = client_open();
	for (i = 0; i < 10000; i++) {
		snprintf(line, sizeof(line),
			"{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":%d}\n", i);
		client_send(fd, line);
	}
	turns(100);
	assert_int_equal(fx.nr_held, 10000);
	for (i = 9999; i >= 0; i--)
		vfe_jsonrpc_reply(fx.held[i], json_integer(i));
	for (i = 9999; i >= 0; i--)
		expect_result(fd, i);
	close(fd);
}

static void
long_request_and_long_reply(void **state)
{
	size_t len = VFE_JSONRPC_MAX_LINE;
	char *line = malloc(len + 1);
	json_t *reply;
	int n, fd;

	(void)state;
	assert_non_null(line);
	fd = client_open();
	memset(line, ' ', len);
	n = snprintf(line, len,
		"{\"jsonrpc\":\"2.0\",\"method\":\"big\",\"params\":[3000000],\"id\":4}");
	line[n] = ' ';
	line[len] = '\n';
	assert_int_equal(client_send_n(fd, line, len + 1), 0);
	reply = client_reply(fd);
	assert_non_null(reply);
	assert_int_equal(json_string_length(json_object_get(reply, "result")), 3000000);
	json_decref(reply);
	close(fd);
	free(line);
}

/* --- bad requests --- */

static void
bad_lines_get_an_error_and_the_next_line_counts(void **state)
{
	static const struct {
		const char *line;
		int code;
		json_int_t id;
		const char *words;
	} bad[] = {
		{"{", -32700, -1, "not JSON"},
		{"nonsense", -32700, -1, "not JSON"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":1} x", -32700, -1, "end of file"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\",\"id\":1}", -32700, -1, "byte"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"\xc0\x80\",\"id\":1}", -32700, -1, ""},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"a\\u0000\",\"id\":1}", -32700, -1, "u0000"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"\\ud800\",\"id\":1}", -32700, -1, ""},
		{"{\"id\":1,\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"echo\"}", -32700, -1,
			"duplicate"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":99999999999999999999}", -32700,
			-1, "integer"},
		{"1", -32600, -1, "not an object"},
		{"null", -32600, -1, "not an object"},
		{"\"x\"", -32600, -1, "not an object"},
		{"[]", -32600, -1, "batches"},
		{"[{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":1}]", -32600, -1, "batches"},
		{"{}", -32600, -1, "jsonrpc"},
		{"{\"method\":\"echo\",\"id\":1}", -32600, 1, "jsonrpc"},
		{"{\"jsonrpc\":2.0,\"method\":\"echo\",\"id\":1}", -32600, 1, "2.0"},
		{"{\"jsonrpc\":\"1.0\",\"method\":\"echo\",\"id\":1}", -32600, 1, "2.0"},
		{"{\"jsonrpc\":\"2.0\",\"id\":5}", -32600, 5, "method"},
		{"{\"jsonrpc\":\"2.0\",\"method\":1,\"id\":5}", -32600, 5, "method"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":1,\"id\":5}", -32600, 5,
			"params"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":null,\"id\":5}", -32600, 5,
			"params"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":{}}", -32600, -1, "id"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":true}", -32600, -1, "id"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"Echo\",\"id\":6}", -32601, 6, "Echo"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"\",\"id\":6}", -32601, 6, "unknown"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"id\":6}", 1003, 6, "af:04.5?"},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"null\",\"id\":6}", -32603, 6, "result"},
	};
	size_t i;
	int fd;

	(void)state;
	fd = client_open();
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		client_send(fd, bad[i].line);
		client_send(fd, "\n");
		expect_error(fd, bad[i].id, bad[i].code, bad[i].words);
	}
	assert_int_equal(fx.nr_calls, 0);
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":9}\n");
	expect_result(fd, 9);
	close(fd);
}

static void
embedded_nul_is_not_json(void **state)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"\0,\"id\":1}\n";
	int fd;

	(void)state;
	fd = client_open();
	assert_int_equal(client_send_n(fd, line, sizeof(line) - 1), 0);
	expect_error(fd, -1, -32700, "not JSON");
	close(fd);
}

static void
deep_nesting_is_refused(void **state)
{
	size_t depth = 100000;
	char *line = malloc(depth + 1);
	int fd;

	(void)state;
	assert_non_null(line);
	memset(line, '[', depth);
	line[depth] = '\n';
	fd = client_open();
	assert_int_equal(client_send_n(fd, line, depth + 1), 0);
	expect_error(fd, -1, -32700, "depth");
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":9}\n");
	expect_result(fd, 9);
	close(fd);
	free(line);
}

static void
long_unknown_method_name_is_cut(void **state)
{
	char line[2048];
	int i, n, fd;

	(void)state;
	fd = client_open();
	n = snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"");
	for (i = 0; i < 400; i++) /* a two-byte character straddles every cut at an odd place */
		n += snprintf(line + n, sizeof(line) - (size_t)n, i == 0 ? "x" : "\xc3\xa9");
	snprintf(line + n, sizeof(line) - (size_t)n, "\"}\n");
	client_send(fd, line);
	expect_error(fd, 1, -32601, "unknown method");
	close(fd);
}

/* --- bad clients --- */

static void
endless_line_is_closed_with_an_error(void **state)
{
	char *junk = malloc(1 << 20);
	int fd, i, ret = 0;

	(void)state;
	assert_non_null(junk);
	memset(junk, 'x', 1 << 20);
	fd = client_open();
	for (i = 0; i < 64 && ret == 0; i++)
		ret = client_send_n(fd, junk, 1 << 20);
	assert_int_equal(ret, -EPIPE);
	expect_error(fd, -1, -32600, "1 MiB");
	expect_hangup(fd);
	close(fd);
	free(junk);
	expect_alive();
}

static void
line_one_byte_too_long_is_closed(void **state)
{
	size_t len = VFE_JSONRPC_MAX_LINE + 1;
	char *line = malloc(len + 1);
	int n, fd;

	(void)state;
	assert_non_null(line);
	fd = client_open();
	memset(line, ' ', len);
	n = snprintf(line, len, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":4}");
	line[n] = ' ';
	line[len] = '\n';
	client_send_n(fd, line, len + 1);
	expect_error(fd, -1, -32600, "1 MiB");
	expect_hangup(fd);
	assert_int_equal(fx.nr_calls, 0);
	close(fd);
	free(line);
}

static void
client_that_never_reads_is_closed(void **state)
{
	static const char ask[] =
		"{\"jsonrpc\":\"2.0\",\"method\":\"big\",\"params\":[100000],\"id\":1}\n";
	unsigned int before;
	int fd, i, ret = 0;

	(void)state;
	turns(3);
	before = open_fds();
	fd = client_open();
	for (i = 0; i < 1000 && ret == 0; i++)
		ret = client_send_n(fd, ask, sizeof(ask) - 1);
	assert_true(ret == -EPIPE || ret == -ECONNRESET);
	close(fd);
	assert_int_equal(open_fds(), before);
	expect_alive();
}

static void
slow_reader_below_the_limit_gets_all(void **state)
{
	int fd, i;

	(void)state;
	fd = client_open();
	for (i = 0; i < 30; i++)
		client_send(fd,
			"{\"jsonrpc\":\"2.0\",\"method\":\"big\",\"params\":[100000],\"id\":1}\n");
	turns(100);
	for (i = 0; i < 30; i++)
		expect_result(fd, 1);
	close(fd);
}

static void
client_gone_before_the_answer(void **state)
{
	unsigned int before;
	int fd;

	(void)state;
	turns(3);
	before = open_fds();
	fd = client_open();
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":1}\n"
			"{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":2}\n");
	turns(3);
	close(fd);
	turns(3);
	assert_int_equal(fx.nr_held, 2);
	vfe_jsonrpc_reply(fx.held[0], json_string("to nobody")); /* EPIPE, and no SIGPIPE */
	turns(3);
	vfe_jsonrpc_fail(fx.held[1], 1, "to nobody");
	assert_int_equal(open_fds(), before);
	expect_alive();
}

static void
client_gone_with_unread_replies(void **state)
{
	unsigned int before;
	int fd;

	(void)state;
	turns(3);
	before = open_fds();
	fd = client_open();
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":1}\n");
	turns(3);
	assert_int_equal(fx.nr_calls, 1);
	close(fd); /* the server reads ECONNRESET */
	turns(3);
	assert_int_equal(open_fds(), before);
	expect_alive();
}

static void
too_many_waiting_requests_are_refused(void **state)
{
	static const char ask[] = "{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":1}\n";
	unsigned int i;
	int fd;

	(void)state;
	fd = client_open();
	for (i = 0; i < VFE_JSONRPC_MAX_PENDING; i++)
		client_send(fd, ask);
	turns(100);
	assert_int_equal(fx.nr_held, VFE_JSONRPC_MAX_PENDING);
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":2}\n");
	expect_error(fd, 2, VFE_JSONRPC_BUSY, "wait");
	vfe_jsonrpc_reply(fx.held[0], json_true());
	expect_result(fd, 1);
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":3}\n");
	expect_result(fd, 3);
	for (i = 1; i < fx.nr_held; i++)
		vfe_jsonrpc_reply(fx.held[i], json_true());
	close(fd);
}

static void
too_many_clients_are_told_so(void **state)
{
	int fds[VFE_JSONRPC_MAX_CLIENTS];
	int i, extra;

	(void)state;
	for (i = 0; i < VFE_JSONRPC_MAX_CLIENTS; i++)
		fds[i] = client_open();
	turns(20);
	extra = client_open();
	expect_error(extra, -1, VFE_JSONRPC_BUSY, "too many connections");
	expect_hangup(extra);
	close(extra);
	vfe_close(&fds[0]);
	turns(3);
	expect_alive();
	for (i = 1; i < VFE_JSONRPC_MAX_CLIENTS; i++)
		close(fds[i]);
	turns(20);
}

/* A client whose connection waits because the server has no fd left to accept it. */
static int
client_open_without_fds(void)
{
	int fds[64], n = 0, fd = client_open();
	struct rlimit old, low;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)fd + 4;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	while (n < 64 && (fds[n] = dup(fd)) >= 0)
		n++;
	assert_true(n < 64);
	turns(10);
	assert_int_equal(ev_pending_count(fx.loop), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	while (n > 0)
		close(fds[--n]);
	return fd;
}

static void
out_of_fds_recovers_when_a_client_goes(void **state)
{
	int idle, fd;

	(void)state;
	idle = client_open();
	turns(3);
	fd = client_open_without_fds();
	close(idle);
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":1}\n");
	expect_result(fd, 1);
	close(fd);
}

static void
out_of_fds_recovers_after_a_second(void **state)
{
	uint64_t start = vfe_clock_ns();
	int fd;

	(void)state;
	fd = client_open_without_fds();
	ev_run(fx.loop, EVRUN_ONCE); /* waits for the timer: nothing else wakes the loop */
	assert_true(vfe_clock_ns() - start > 500000000u);
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":1}\n");
	expect_result(fd, 1);
	close(fd);
}

static void
server_goes_while_requests_wait(void **state)
{
	int fd;

	(void)state;
	fd = client_open();
	client_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"hold\",\"id\":1}\n"
			"{\"jsonrpc\":\"2.0\",\"method\":\"hold\"}\n");
	turns(3);
	assert_int_equal(fx.nr_held, 2);
	vfe_jsonrpc_server_destroy(fx.server);
	fx.server = NULL;
	vfe_jsonrpc_reply(fx.held[0], json_true());
	vfe_jsonrpc_fail(fx.held[1], 1, "late");
	expect_hangup(fd);
	close(fd);
}

/* --- the socket --- */

static void
mode_and_folder_of_the_socket(void **state)
{
	char path[128], folder[96];
	struct vfe_error err;
	struct stat st;
	mode_t mask;

	(void)state;
	assert_int_equal(stat(fx.path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	vfe_jsonrpc_server_destroy(fx.server);
	fx.server = NULL;

	vfe_str_format(folder, sizeof(folder), "%s/new", fx.folder);
	vfe_str_format(path, sizeof(path), "%s/rpc.sock", folder);
	mask = umask(077);
	assert_int_equal(server_start(path, NULL, &err), 0);
	umask(mask);
	assert_int_equal(stat(folder, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	vfe_jsonrpc_server_destroy(fx.server);
	fx.server = NULL;
	assert_int_equal(rmdir(folder), 0);

	vfe_str_format(path, sizeof(path), "%s/no/such/rpc.sock", fx.folder);
	assert_int_equal(server_start(path, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/no/such"));
}

static void
path_length_is_checked(void **state)
{
	struct vfe_error err;
	char path[200];

	(void)state;
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[108] = '\0';
	assert_int_equal(server_start(path, NULL, &err), -ENAMETOOLONG);
	assert_non_null(strstr(err.text, "108 bytes, the limit is 107"));
	assert_int_equal(server_start("", NULL, &err), -EINVAL);
	assert_true(server_start("/proc/vfe-jsonrpc-test.sock", NULL, &err) < 0);
	assert_non_null(strstr(err.text, "cannot create /proc/vfe-jsonrpc-test.sock"));
}

static void
path_in_use_is_left_alone(void **state)
{
	struct vfe_jsonrpc_server *first = fx.server;
	struct vfe_error err;
	char path[128];
	int fd;

	(void)state;
	assert_int_equal(server_start(fx.path, NULL, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, fx.path));
	fx.server = first;
	expect_alive();

	vfe_str_format(path, sizeof(path), "%s/file", fx.folder);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(server_start(path, NULL, &err), -EEXIST);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	fx.server = first;
}

static void
socket_of_a_dead_server_is_replaced(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct vfe_error err;
	int fd;

	(void)state;
	vfe_jsonrpc_server_destroy(fx.server);
	fx.server = NULL;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), fx.path);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	assert_int_equal(server_start(fx.path, NULL, &err), 0);
	expect_alive();
}

static void
socket_of_a_successor_is_not_removed(void **state)
{
	struct vfe_jsonrpc_server *first = fx.server;
	struct vfe_error err;

	(void)state;
	assert_int_equal(unlink(fx.path), 0);
	assert_int_equal(server_start(fx.path, NULL, &err), 0);
	vfe_jsonrpc_server_destroy(first);
	expect_alive();
}

static void
unknown_group_is_told(void **state)
{
	struct vfe_jsonrpc_server *first = fx.server;
	struct vfe_error err;

	(void)state;
	assert_int_equal(server_start(fx.path, "no-such-group-here", &err), -EINVAL);
	assert_non_null(strstr(err.text, "no-such-group-here"));
	fx.server = first;
}

/* Connect as somebody else in a child; its exit status is 0 when the first reply is @want. */
static pid_t
stranger_start(uid_t uid, gid_t gid, const gid_t *groups, size_t n, const char *want)
{
	static const char ask[] = "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":1}\n";
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char reply[512] = "";
	pid_t pid = fork();
	int fd;

	assert_true(pid >= 0);
	if (pid != 0)
		return pid;
	alarm(20);
	vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), fx.path);
	if (setgroups(n, groups) < 0 || setgid(gid) < 0 || setuid(uid) < 0)
		_exit(3);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		_exit(4);
	if (send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		_exit(5);
	if (recv(fd, reply, sizeof(reply) - 1, 0) <= 0)
		_exit(6);
	_exit(strstr(reply, want) != NULL ? 0 : 1);
}

static void
stranger_expect(uid_t uid, gid_t gid, const gid_t *groups, size_t n, const char *want)
{
	struct vfe_deadline d = vfe_deadline_in_ms(PATIENCE_MS);
	pid_t pid = stranger_start(uid, gid, groups, n, want);
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		turn();
		assert_false(vfe_deadline_passed(d));
	}
	assert_int_equal(status, 0);
}

static void
strangers_are_refused_and_the_group_is_not(void **state)
{
	static const gid_t some[] = {4, 12, 100};
	struct vfe_error err;

	(void)state;
	if (geteuid() != 0)
		skip();
	/* the file mode is not what keeps strangers out here */
	assert_int_equal(chmod(fx.folder, 0755), 0);
	assert_int_equal(chmod(fx.path, 0666), 0);
	stranger_expect(1234, 1234, NULL, 0, "permission denied");
	stranger_expect(1234, 0, NULL, 0, "permission denied");
	vfe_jsonrpc_server_destroy(fx.server);

	assert_int_equal(server_start(fx.path, "users", &err), 0); /* gid 100 */
	assert_int_equal(chmod(fx.path, 0666), 0);
	stranger_expect(1234, 1234, NULL, 0, "permission denied");
	stranger_expect(1234, 1234, some, 2, "permission denied");
	stranger_expect(1234, 1234, some, 3, "result");
	stranger_expect(1234, 100, NULL, 0, "result");
	stranger_expect(0, 0, NULL, 0, "result");
}

/* --- parameters --- */

struct params_out {
	const char *dev;
	bool add;
	int64_t n;
};

static int
params_read(const char *text, struct params_out *out, struct vfe_error *err)
{
	const struct vfe_jsonrpc_param schema[] = {
		{"dev", VFE_JSONRPC_STRING, .required = true, .ret = &out->dev},
		{"add", VFE_JSONRPC_BOOL, .ret = &out->add},
		{"n", VFE_JSONRPC_INT, .nullable = true, .min = 1, .max = 6, .ret = &out->n},
	};
	static json_t *params; /* strings are borrowed from it: lives until the next call */

	json_decref(params);
	params = text != NULL ? json_loads(text, 0, NULL) : NULL;
	assert_true(text == NULL || params != NULL);
	return vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), err);
}

static void
params_are_read_by_the_schema(void **state)
{
	struct params_out out = {NULL, true, 42};
	struct vfe_error err;

	(void)state;
	assert_int_equal(params_read("{\"dev\":\"af\"}", &out, &err), 0);
	assert_string_equal(out.dev, "af");
	assert_true(out.add);
	assert_int_equal(out.n, 42);
	assert_int_equal(params_read("{\"dev\":\"\",\"add\":false,\"n\":6}", &out, &err), 0);
	assert_string_equal(out.dev, "");
	assert_false(out.add);
	assert_int_equal(out.n, 6);
	assert_int_equal(params_read("{\"dev\":\"x\",\"n\":null}", &out, &err), 0);
	assert_int_equal(out.n, 6);
	params_read(NULL, &out, NULL);
}

static void
wrong_params_are_named(void **state)
{
	static const struct {
		const char *text;
		const char *words;
	} bad[] = {
		{NULL, "\"dev\" is missing"},
		{"{}", "\"dev\" is missing"},
		{"[\"af\"]", "must be an object"},
		{"{\"dev\":null}", "\"dev\" must be a string"},
		{"{\"dev\":1}", "\"dev\" must be a string"},
		{"{\"dev\":[]}", "\"dev\" must be a string"},
		{"{\"dev\":\"x\",\"add\":1}", "\"add\" must be true or false"},
		{"{\"dev\":\"x\",\"add\":null}", "\"add\" must be true or false"},
		{"{\"dev\":\"x\",\"n\":1.0}", "\"n\" must be an integer"},
		{"{\"dev\":\"x\",\"n\":\"1\"}", "\"n\" must be an integer"},
		{"{\"dev\":\"x\",\"n\":0}", "\"n\" is 0, expected 1 to 6"},
		{"{\"dev\":\"x\",\"n\":9223372036854775807}", "expected 1 to 6"},
		{"{\"dev\":\"x\",\"Add\":true}", "unknown parameter \"Add\""},
		{"{\"dev\":\"x\",\"\":true}", "unknown parameter \"\""},
	};
	struct params_out out = {0};
	struct vfe_error err;
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		assert_int_equal(params_read(bad[i].text, &out, &err), -EINVAL);
		if (strstr(err.text, bad[i].words) == NULL)
			fail_msg("\"%s\" does not mention \"%s\"", err.text, bad[i].words);
		assert_int_equal(params_read(bad[i].text, &out, NULL), -EINVAL);
	}
	params_read(NULL, &out, NULL);
}

#define SERVER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		SERVER_TEST(ids_come_back_as_they_were),
		SERVER_TEST(notification_runs_without_answer),
		SERVER_TEST(request_may_come_byte_by_byte),
		SERVER_TEST(late_answers_in_any_order),
		SERVER_TEST(half_closed_client_gets_its_answers),
		SERVER_TEST(ten_thousand_pipelined_requests),
		SERVER_TEST(ten_thousand_held_requests),
		SERVER_TEST(long_request_and_long_reply),
		SERVER_TEST(bad_lines_get_an_error_and_the_next_line_counts),
		SERVER_TEST(embedded_nul_is_not_json),
		SERVER_TEST(deep_nesting_is_refused),
		SERVER_TEST(long_unknown_method_name_is_cut),
		SERVER_TEST(endless_line_is_closed_with_an_error),
		SERVER_TEST(line_one_byte_too_long_is_closed),
		SERVER_TEST(client_that_never_reads_is_closed),
		SERVER_TEST(slow_reader_below_the_limit_gets_all),
		SERVER_TEST(client_gone_before_the_answer),
		SERVER_TEST(client_gone_with_unread_replies),
		SERVER_TEST(too_many_waiting_requests_are_refused),
		SERVER_TEST(too_many_clients_are_told_so),
		SERVER_TEST(out_of_fds_recovers_when_a_client_goes),
		SERVER_TEST(out_of_fds_recovers_after_a_second),
		SERVER_TEST(server_goes_while_requests_wait),
		SERVER_TEST(mode_and_folder_of_the_socket),
		SERVER_TEST(path_length_is_checked),
		SERVER_TEST(path_in_use_is_left_alone),
		SERVER_TEST(socket_of_a_dead_server_is_replaced),
		SERVER_TEST(socket_of_a_successor_is_not_removed),
		SERVER_TEST(unknown_group_is_told),
		SERVER_TEST(strangers_are_refused_and_the_group_is_not),
		cmocka_unit_test(params_are_read_by_the_schema),
		cmocka_unit_test(wrong_params_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
