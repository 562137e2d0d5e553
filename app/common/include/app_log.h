/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The log of a program: lines with time stamp and level on standard error.
 *
 *	2026-01-31T23:59:59.123Z warn  0000:af:04.5: queue 3: ...
 *
 * Each line is one write(2), so that lines of several threads never mix. Control characters become
 * '?', because a message may quote what a peer sent. All functions: any thread.
 */

#ifndef APP_LOG_H
#define APP_LOG_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum app_log_level {
	APP_LOG_ERR,   /* something failed and stays failed */
	APP_LOG_WARN,  /* something is wrong, we go on */
	APP_LOG_INFO,  /* what an operator did or wants to know; the default */
	APP_LOG_DEBUG, /* what a developer wants to know */
};

enum { APP_LOG_MAX_LINE = 1024 }; /* bytes; a longer message is cut and ends in "..." */

void app_log_set_level(enum app_log_level level);
enum app_log_level app_log_get_level(void);

/* "err", "warn", "info" or "debug". */
const char *app_log_level_name(enum app_log_level level);

/* Parse what app_log_level_name() prints. Returns 0 or -EINVAL. */
int app_log_level_parse(const char *name, enum app_log_level *ret);

/* Write one line, if @level is on. Keeps errno. A trailing newline is not needed. */
void app_log(enum app_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void app_vlog(enum app_log_level level, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

/* Will a line of @level be written? For messages that are costly to make. */
static inline bool
app_log_is_on(enum app_log_level level)
{
	return level <= app_log_get_level();
}

#define log_err(...)   app_log(APP_LOG_ERR, __VA_ARGS__)
#define log_warn(...)  app_log(APP_LOG_WARN, __VA_ARGS__)
#define log_info(...)  app_log(APP_LOG_INFO, __VA_ARGS__)
#define log_debug(...) app_log(APP_LOG_DEBUG, __VA_ARGS__)

/*
 * For a message that a peer can cause as often as it likes: at most @burst lines per @interval_ms.
 * One object per message and device, zero initialised, e.g. {.burst = 5, .interval_ms = 10000}.
 */
struct app_log_limit {
	unsigned int burst;
	unsigned int interval_ms;
	_Atomic uint64_t window_end_ns;
	atomic_uint passed;
	atomic_uint suppressed;
};

/*
 * May a line be written now? *@ret_suppressed (may be NULL) is the number of lines that were not,
 * since the last one that was.
 */
bool app_log_limit_pass(struct app_log_limit *limit, unsigned int *ret_suppressed);

/* app_log() under @limit; tells how many lines were left out before. */
void app_log_limited(struct app_log_limit *limit, enum app_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * A stream whose lines go into the log, for a library that wants a FILE (rte_openlog_stream).
 * @level tells the level of the line being written; NULL means info. Levels are not filtered:
 * the library has done that. The caller closes it with fclose(). NULL when out of memory.
 */
FILE *app_log_stream_open(enum app_log_level (*level)(void));

#endif /* APP_LOG_H */
