/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The signals of a program with a libev loop: the first SIGTERM or SIGINT asks for a clean end,
 * the second one has its default action, so that a program that hangs while ending can be killed.
 * SIGPIPE is ignored.
 */

#ifndef APP_SIGNALS_H
#define APP_SIGNALS_H

#include <ev.h>

struct app_signals {
	struct ev_loop *loop;
	ev_signal term;
	ev_signal intr;
	void (*on_stop)(int signo, void *ctx);
	void *ctx;
	int caught; /* the signal that asked for the end, 0 = none yet */
};

/*
 * @on_stop is called on the loop's thread, once; NULL = end the loop with ev_break(EVBREAK_ALL).
 * @signals is the caller's and lives until app_signals_stop().
 */
void app_signals_start(struct app_signals *signals, struct ev_loop *loop,
	void (*on_stop)(int signo, void *ctx), void *ctx);

/* Back to the default actions. Fine to call twice. */
void app_signals_stop(struct app_signals *signals);

#endif /* APP_SIGNALS_H */
