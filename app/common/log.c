/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The log of a program: lines with time stamp and level on standard error.
 */

#include "app_log.h"

#include "vfe_base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { STREAM_BUFFER = 4096 };

static const char *const level_names[] = {
	[APP_LOG_ERR] = "err",
	[APP_LOG_WARN] = "warn",
	[APP_LOG_INFO] = "info",
	[APP_LOG_DEBUG] = "debug",
};

static atomic_uint current_level = APP_LOG_INFO;

void
app_log_set_level(enum app_log_level level)
{
	atomic_store_explicit(&current_level, level, memory_order_relaxed);
}

enum app_log_level
app_log_get_level(void)
{
	return atomic_load_explicit(&current_level, memory_order_relaxed);
}

const char *
app_log_level_name(enum app_log_level level)
{
	return level < VFE_ARRAY_SIZE(level_names) ? level_names[level] : "?";
}

int
app_log_level_parse(const char *name, enum app_log_level *ret)
{
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(level_names); i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

/* "2026-01-31T23:59:59.123Z warn  " into @dst; returns the length. */
static size_t
prefix_write(char *dst, size_t size, enum app_log_level level)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(dst, size, "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(dst + n, size - n, ".%03ldZ %-5s ", now.tv_nsec / 1000000,
		app_log_level_name(level));
	return n;
}

/* A line of the log can be neither split nor coloured by what a peer sent. */
static void
control_mask(char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (((unsigned char)text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f)
			text[i] = '?';
}

/*
 * @line holds @len bytes of text that wants @want, and room for a newline. One write(2): what a
 * full pipe or disk does not take is lost, rather than the program held up in a loop.
 */
static void
line_write(char *line, size_t len, size_t want)
{
	static const char cut[] = "...";

	control_mask(line, len);
	if (want > len)
		memcpy(line + len - (sizeof(cut) - 1), cut, sizeof(cut) - 1);
	line[len] = '\n';
	if (write(STDERR_FILENO, line, len + 1) < 0) {
		/* where would one complain? */
	}
}

/* Lines longer than this are cut; one byte is for the newline. */
static size_t
line_limit(size_t want)
{
	return want < APP_LOG_MAX_LINE ? want : APP_LOG_MAX_LINE - 1;
}

void
app_vlog(enum app_log_level level, const char *fmt, va_list ap)
{
	char line[APP_LOG_MAX_LINE + 1];
	int saved = errno;
	size_t start, want;
	int n;

	if (!app_log_is_on(level))
		return;
	start = prefix_write(line, sizeof(line), level);
	n = vsnprintf(line + start, APP_LOG_MAX_LINE - start, fmt, ap);
	if (n < 0)
		n = 0;
	want = start + (size_t)n;
	if (want > start && want < APP_LOG_MAX_LINE && line[want - 1] == '\n')
		want--;
	line_write(line, line_limit(want), want);
	errno = saved;
}

void
app_log(enum app_log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	app_vlog(level, fmt, ap);
	va_end(ap);
}

/*
 * Threads that race at the end of a window may let a line more through, or count one for the
 * wrong window; that is worth no lock.
 */
bool
app_log_limit_pass(struct app_log_limit *limit, unsigned int *ret_suppressed)
{
	uint64_t now = vfe_clock_ns();

	if (now >= atomic_load(&limit->window_end_ns)) {
		atomic_store(&limit->window_end_ns, now + limit->interval_ms * 1000000ULL);
		atomic_store(&limit->passed, 0);
	}
	if (atomic_fetch_add(&limit->passed, 1) >= limit->burst) {
		atomic_fetch_sub(&limit->passed, 1); /* it must never wrap around */
		atomic_fetch_add(&limit->suppressed, 1);
		return false;
	}
	if (ret_suppressed != NULL)
		*ret_suppressed = atomic_exchange(&limit->suppressed, 0);
	return true;
}

void
app_log_limited(struct app_log_limit *limit, enum app_log_level level, const char *fmt, ...)
{
	unsigned int suppressed = 0;
	va_list ap;

	if (!app_log_is_on(level) || !app_log_limit_pass(limit, &suppressed))
		return;
	if (suppressed > 0)
		app_log(level, "%u messages like the next one were left out", suppressed);
	va_start(ap, fmt);
	app_vlog(level, fmt, ap);
	va_end(ap);
}

struct log_stream {
	enum app_log_level (*level)(void);
};

static void
stream_line_write(const struct log_stream *stream, const char *text, size_t len)
{
	enum app_log_level level = stream->level != NULL ? stream->level() : APP_LOG_INFO;
	char line[APP_LOG_MAX_LINE + 1];
	size_t start, want, take;

	start = prefix_write(line, sizeof(line), level);
	want = start + len;
	take = line_limit(want);
	memcpy(line + start, text, take - start);
	line_write(line, take, want);
}

static ssize_t
stream_write(void *cookie, const char *text, size_t len)
{
	const char *at = text, *end = text + len, *newline;

	while (at < end) {
		newline = memchr(at, '\n', (size_t)(end - at));
		if (newline == NULL)
			newline = end;
		if (newline > at)
			stream_line_write(cookie, at, (size_t)(newline - at));
		at = newline + 1;
	}
	return (ssize_t)len;
}

static int
stream_close(void *cookie)
{
	free(cookie);
	return 0;
}

FILE *app_log_stream_open(enum app_log_level (*level)(void))
{
	static const cookie_io_functions_t io = {.write = stream_write, .close = stream_close};
	struct log_stream *stream = calloc(1, sizeof(*stream));
	FILE *file;

	if (stream == NULL)
		return NULL;
	stream->level = level;
	file = fopencookie(stream, "w", io);
	if (file == NULL) {
		free(stream);
		return NULL;
	}
	setvbuf(file, NULL, _IOLBF, STREAM_BUFFER);
	return file;
}
