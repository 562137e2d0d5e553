/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of app/common: lines of the log, words to systemd, and the signals that end a program.
 */

#undef NDEBUG

#include "app_log.h"
#include "app_notify.h"
#include "app_signals.h"
#include "vfe_base.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- log --- */

/* Standard error goes into a packet pipe, so that one read(2) is what one write(2) was. */
struct capture {
	int saved;
	int fd;
};

static void
capture_start(struct capture *c)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_DIRECT | O_CLOEXEC | O_NONBLOCK), 0);
	c->saved = dup(STDERR_FILENO);
	assert_true(c->saved >= 0);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	close(fds[1]);
	c->fd = fds[0];
}

/* The next write as a string, or "" when there is none. */
static const char *
capture_next(struct capture *c)
{
	static char line[8192];
	ssize_t n = read(c->fd, line, sizeof(line) - 1);

	line[n > 0 ? n : 0] = '\0';
	return line;
}

static void
capture_stop(struct capture *c)
{
	dup2(c->saved, STDERR_FILENO);
	close(c->saved);
	close(c->fd);
	app_log_set_level(APP_LOG_INFO);
}

static bool
matches(const char *text, const char *pattern)
{
	regex_t re;
	bool found;

	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	found = regexec(&re, text, 0, NULL, 0) == 0;
	regfree(&re);
	return found;
}

static void
line_has_time_and_level(void **state)
{
	struct capture c;
	const char *got;

	(void)state;
	capture_start(&c);
	errno = ENOENT;
	log_warn("%s: value %d", "0000:af:04.5", 7);
	assert_int_equal(errno, ENOENT);
	got = capture_next(&c);
	assert_true(matches(got, "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
				 "\\.[0-9]{3}Z warn  0000:af:04.5: value 7\n$"));
	assert_string_equal(capture_next(&c), "");
	capture_stop(&c);
}

static void
level_decides(void **state)
{
	struct capture c;

	(void)state;
	capture_start(&c);
	log_debug("hidden");
	assert_string_equal(capture_next(&c), "");
	log_info("seen");
	assert_true(matches(capture_next(&c), "info  seen\n$"));
	app_log_set_level(APP_LOG_DEBUG);
	log_debug("seen");
	assert_true(matches(capture_next(&c), "debug seen\n$"));
	app_log_set_level(APP_LOG_ERR);
	log_warn("hidden");
	assert_string_equal(capture_next(&c), "");
	log_err("seen");
	assert_true(matches(capture_next(&c), "err   seen\n$"));
	capture_stop(&c);
}

static void
control_characters_are_masked(void **state)
{
	struct capture c;

	(void)state;
	capture_start(&c);
	log_info("a\nb\r\x1b[31mc\x7f\td \xc3\xa9\n");
	assert_true(matches(capture_next(&c), "info  a\\?b\\?\\?\\[31mc\\?\td \xc3\xa9\n$"));
	log_info("%s", "");
	assert_true(matches(capture_next(&c), "info  \n$"));
	capture_stop(&c);
}

static void
long_line_is_cut_at_the_limit(void **state)
{
	char text[3000];
	struct capture c;
	const char *got;
	size_t len;

	(void)state;
	memset(text, 'x', sizeof(text));
	capture_start(&c);
	for (len = 900; len < 1100; len++) {
		text[len] = '\0';
		log_info("%s", text);
		text[len] = 'x';
		got = capture_next(&c);
		assert_true(strlen(got) <= APP_LOG_MAX_LINE);
		assert_int_equal(got[strlen(got) - 1], '\n');
		assert_int_equal(matches(got, "\\.\\.\\.\n$"), len + 31 >= APP_LOG_MAX_LINE);
		assert_string_equal(capture_next(&c), "");
	}
	capture_stop(&c);
}

static void
level_names_round_trip(void **state)
{
	enum app_log_level level;
	int i;

	(void)state;
	for (i = APP_LOG_ERR; i <= APP_LOG_DEBUG; i++) {
		assert_int_equal(app_log_level_parse(app_log_level_name(i), &level), 0);
		assert_int_equal(level, i);
	}
	assert_int_equal(app_log_level_parse("", &level), -EINVAL);
	assert_int_equal(app_log_level_parse("errr", &level), -EINVAL);
	assert_int_equal(app_log_level_parse("INFO", &level), -EINVAL);
}

static void
limit_lets_a_burst_through_and_counts_the_rest(void **state)
{
	struct app_log_limit limit = {.burst = 2, .interval_ms = 3600000};
	struct capture c;
	int i;

	(void)state;
	capture_start(&c);
	for (i = 0; i < 10; i++)
		app_log_limited(&limit, APP_LOG_WARN, "n %d", i);
	assert_true(matches(capture_next(&c), "n 0\n$"));
	assert_true(matches(capture_next(&c), "n 1\n$"));
	assert_string_equal(capture_next(&c), "");

	atomic_store(&limit.window_end_ns, 0); /* an hour later */
	app_log_limited(&limit, APP_LOG_WARN, "n %d", i);
	assert_true(matches(capture_next(&c), "8 messages like the next one were left out\n$"));
	assert_true(matches(capture_next(&c), "n 10\n$"));
	app_log_limited(&limit, APP_LOG_DEBUG, "not even counted");
	app_log_limited(&limit, APP_LOG_WARN, "n 11");
	assert_true(matches(capture_next(&c), "n 11\n$"));
	assert_string_equal(capture_next(&c), "");
	capture_stop(&c);
}

static enum app_log_level
stream_level(void)
{
	return APP_LOG_ERR;
}

static void
stream_makes_lines(void **state)
{
	char text[3000];
	struct capture c;
	FILE *f;

	(void)state;
	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	f = app_log_stream_open(stream_level);
	assert_non_null(f);
	capture_start(&c);
	fprintf(f, "EAL: %s %d\n", "one", 1);
	assert_true(matches(capture_next(&c), "Z err   EAL: one 1\n$"));
	fprintf(f, "two\n\nthree\x1b\n");
	assert_true(matches(capture_next(&c), "err   two\n$"));
	assert_true(matches(capture_next(&c), "err   three\\?\n$"));
	fprintf(f, "%s\n", text);
	assert_true(matches(capture_next(&c), "^.{60}.*yyy\\.\\.\\.\n$"));
	while (capture_next(&c)[0] != '\0') {
		/* the rest of what was too long for the buffer */
	}
	fprintf(f, "tail without newline");
	fclose(f);
	assert_true(matches(capture_next(&c), "err   tail without newline\n$"));
	capture_stop(&c);
}

static void *
log_many(void *arg)
{
	int i;

	for (i = 0; i < 200; i++)
		log_info("%s", (const char *)arg);
	return NULL;
}

static void
lines_of_threads_do_not_mix(void **state)
{
	char as[] = "aaaaaaaaaaaaaaaa", bs[] = "bbbbbbbbbbbbbbbb";
	pthread_t a, b;
	struct capture c;
	const char *got;
	int n = 0;

	(void)state;
	capture_start(&c);
	assert_true(fcntl(STDERR_FILENO, F_SETPIPE_SZ, 1 << 20) > 0 || errno == EPERM);
	assert_int_equal(pthread_create(&a, NULL, log_many, as), 0);
	assert_int_equal(pthread_create(&b, NULL, log_many, bs), 0);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	while (*(got = capture_next(&c)) != '\0') {
		assert_true(matches(got, "Z info  (a{16}|b{16})\n$"));
		n++;
	}
	assert_true(n > 0 && n <= 400);
	capture_stop(&c);
}

/* --- notify --- */

static int
notify_listen(struct sockaddr_un *addr, size_t name_len)
{
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name_len);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)addr, len), 0);
	return fd;
}

static void
expect_datagram(int fd, const char *text)
{
	char got[1024];
	ssize_t n = recv(fd, got, sizeof(got) - 1, 0);

	assert_true(n >= 0);
	got[n] = '\0';
	assert_string_equal(got, text);
}

static void
notify_to_a_path(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char folder[] = "/tmp/vfe-notify-XXXXXX";
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	vfe_str_format(addr.sun_path, sizeof(addr.sun_path), "%s/n", folder);
	fd = notify_listen(&addr, strlen(addr.sun_path) + 1);
	setenv("NOTIFY_SOCKET", addr.sun_path, 1);
	assert_int_equal(app_notify_ready(NULL), 1);
	expect_datagram(fd, "READY=1");
	assert_int_equal(app_notify_ready("2 VFs\nREADY=0"), 1);
	expect_datagram(fd, "READY=1\nSTATUS=2 VFs READY=0");
	assert_int_equal(app_notify_status("%d VFs\n", 3), 1);
	expect_datagram(fd, "STATUS=3 VFs ");
	assert_int_equal(app_notify_stopping(), 1);
	expect_datagram(fd, "STOPPING=1");
	close(fd);
	assert_int_equal(app_notify_stopping(), -ECONNREFUSED);
	unlink(addr.sun_path);
	assert_int_equal(app_notify_stopping(), -ENOENT);
	rmdir(folder);
	unsetenv("NOTIFY_SOCKET");
}

static void
notify_to_an_abstract_name(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char name[64];
	int fd;

	(void)state;
	vfe_str_format(name, sizeof(name), "@vfe-notify-%d", (int)getpid());
	memcpy(addr.sun_path, name, strlen(name));
	addr.sun_path[0] = '\0';
	fd = notify_listen(&addr, strlen(name));
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(app_notify_ready(NULL), 1);
	expect_datagram(fd, "READY=1");
	close(fd);
	unsetenv("NOTIFY_SOCKET");
}

static void
notify_without_systemd_or_with_nonsense(void **state)
{
	char longer[200];

	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(app_notify_ready("x"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(app_notify_stopping(), 0);
	setenv("NOTIFY_SOCKET", "vsock:2:1234", 1);
	assert_int_equal(app_notify_stopping(), -EINVAL);
	setenv("NOTIFY_SOCKET", "@", 1);
	assert_int_equal(app_notify_stopping(), -EINVAL);
	memset(longer, 'x', sizeof(longer));
	longer[0] = '/';
	longer[108] = '\0';
	setenv("NOTIFY_SOCKET", longer, 1);
	assert_int_equal(app_notify_stopping(), -ENAMETOOLONG);
	unsetenv("NOTIFY_SOCKET");
}

/* --- signals --- */

static void
on_stop(int signo, void *ctx)
{
	*(int *)ctx += signo;
}

static void
first_signal_stops_the_loop(void **state)
{
	struct ev_loop *loop = ev_default_loop(0);
	struct app_signals signals;
	int sum = 0;

	(void)state;
	app_signals_start(&signals, loop, NULL, NULL);
	raise(SIGPIPE);
	raise(SIGTERM);
	ev_run(loop, 0);
	assert_int_equal(signals.caught, SIGTERM);
	app_signals_stop(&signals);

	app_signals_start(&signals, loop, on_stop, &sum);
	assert_int_equal(signals.caught, 0);
	raise(SIGINT);
	ev_run(loop, EVRUN_ONCE);
	assert_int_equal(sum, SIGINT);
	app_signals_stop(&signals);
	app_signals_stop(&signals);
}

static void
second_signal_kills(void **state)
{
	struct app_signals signals;
	int status, sum = 0;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct ev_loop *loop = ev_default_loop(0);

		ev_loop_fork(loop);
		app_signals_start(&signals, loop, on_stop, &sum);
		raise(SIGINT);
		ev_run(loop, EVRUN_ONCE);
		if (sum != SIGINT)
			_exit(1);
		raise(SIGTERM);
		_exit(2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGTERM);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(line_has_time_and_level),
		cmocka_unit_test(level_decides),
		cmocka_unit_test(control_characters_are_masked),
		cmocka_unit_test(long_line_is_cut_at_the_limit),
		cmocka_unit_test(level_names_round_trip),
		cmocka_unit_test(limit_lets_a_burst_through_and_counts_the_rest),
		cmocka_unit_test(stream_makes_lines),
		cmocka_unit_test(lines_of_threads_do_not_mix),
		cmocka_unit_test(notify_to_a_path),
		cmocka_unit_test(notify_to_an_abstract_name),
		cmocka_unit_test(notify_without_systemd_or_with_nonsense),
		cmocka_unit_test(first_signal_stops_the_loop),
		cmocka_unit_test(second_signal_kills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
