/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tell when a file appears: one inotify watch per folder, however many files are waited for.
 * Main loop only.
 */

#ifndef WATCH_H
#define WATCH_H

#include "vfe_base.h"

struct ev_loop;
struct watches;
struct watch;

/* *@ret is owned by the caller. */
int watches_create(struct ev_loop *loop, struct watches **ret, struct vfe_error *err);
void watches_destroy(struct watches *watches); /* with all that is still watched */

/*
 * Call @appeared each time a file is created as, or moved to, @path (absolute; its folder must
 * exist). Not called for a file that is there already. Returns NULL and a text on failure.
 */
struct watch *watch_add(struct watches *watches, const char *path, void (*appeared)(void *ctx),
	void *ctx, struct vfe_error *err);
void watch_remove(struct watches *watches, struct watch *watch); /* NULL is fine */

#endif /* WATCH_H */
