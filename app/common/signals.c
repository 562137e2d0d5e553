/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The signals of a program with a libev loop.
 */

#include "app_signals.h"

#include <signal.h>
#include <string.h>

static void
on_signal(struct ev_loop *loop, ev_signal *watcher, int revents)
{
	struct app_signals *signals = watcher->data;

	(void)revents;
	signals->caught = watcher->signum;
	app_signals_stop(signals);
	if (signals->on_stop != NULL)
		signals->on_stop(signals->caught, signals->ctx);
	else
		ev_break(loop, EVBREAK_ALL);
}

void
app_signals_start(struct app_signals *signals, struct ev_loop *loop,
	void (*on_stop)(int signo, void *ctx), void *ctx)
{
	memset(signals, 0, sizeof(*signals));
	signals->loop = loop;
	signals->on_stop = on_stop;
	signals->ctx = ctx;
	ev_signal_init(&signals->term, on_signal, SIGTERM);
	ev_signal_init(&signals->intr, on_signal, SIGINT);
	signals->term.data = signals;
	signals->intr.data = signals;
	ev_signal_start(loop, &signals->term);
	ev_signal_start(loop, &signals->intr);
	signal(SIGPIPE, SIG_IGN);
}

void
app_signals_stop(struct app_signals *signals)
{
	/* libev restores the default action when a signal's last watcher stops */
	ev_signal_stop(signals->loop, &signals->term);
	ev_signal_stop(signals->loop, &signals->intr);
}
