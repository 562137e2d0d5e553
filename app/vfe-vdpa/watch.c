/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tell when a file appears, by inotify.
 */

#include "watch.h"

#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/queue.h>
#include <unistd.h>

struct folder {
	int wd;
	char *path;
	LIST_HEAD(, watch) files;
	LIST_ENTRY(folder) next;
};

struct watch {
	struct folder *folder;
	char *name;
	void (*appeared)(void *ctx);
	void *ctx;
	bool removed; /* while events are being delivered; freed afterwards */
	LIST_ENTRY(watch) next;
};

struct watches {
	int fd;
	bool delivering;
	struct ev_loop *loop;
	struct ev_io io;
	LIST_HEAD(, folder) folders;
};

static void
watch_free(struct watches *watches, struct watch *watch)
{
	struct folder *folder = watch->folder;

	LIST_REMOVE(watch, next);
	free(watch->name);
	free(watch);
	if (LIST_EMPTY(&folder->files)) {
		inotify_rm_watch(watches->fd, folder->wd);
		LIST_REMOVE(folder, next);
		free(folder->path);
		free(folder);
	}
}

/* Callbacks may add and remove watches: removed ones stay in the lists until the end. */
static void
event_deliver(struct watches *watches, const struct inotify_event *event)
{
	struct folder *folder;
	struct watch *watch;

	LIST_FOREACH (folder, &watches->folders, next) {
		if (folder->wd != event->wd)
			continue;
		LIST_FOREACH (watch, &folder->files, next) {
			if (!watch->removed && strcmp(watch->name, event->name) == 0)
				watch->appeared(watch->ctx);
		}
		break;
	}
}

static void
removed_free(struct watches *watches)
{
	struct folder *folder, *next_folder;
	struct watch *watch, *next;

	for (folder = LIST_FIRST(&watches->folders); folder != NULL; folder = next_folder) {
		next_folder = LIST_NEXT(folder, next);
		for (watch = LIST_FIRST(&folder->files); watch != NULL; watch = next) {
			next = LIST_NEXT(watch, next);
			if (watch->removed)
				watch_free(watches, watch); /* the last one frees the folder */
		}
	}
}

static void
on_inotify(struct ev_loop *loop, struct ev_io *w, int revents)
{
	struct watches *watches = vfe_container_of(w, struct watches, io);
	char buf[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)]
		__attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;
	char *p;

	(void)loop;
	(void)revents;
	n = read(watches->fd, buf, sizeof(buf));
	if (n <= 0)
		return;

	watches->delivering = true;
	for (p = buf; p < buf + n;) {
		const struct inotify_event *event = (const struct inotify_event *)(void *)p;

		if (event->len > 0)
			event_deliver(watches, event);
		p += sizeof(*event) + event->len;
	}
	watches->delivering = false;
	removed_free(watches);
}

int
watches_create(struct ev_loop *loop, struct watches **ret, struct vfe_error *err)
{
	struct watches *watches = calloc(1, sizeof(*watches));

	if (watches == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	watches->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (watches->fd < 0) {
		int rc = -errno;

		free(watches);
		return vfe_error_set(err, rc, "inotify: %s", strerror(-rc));
	}
	LIST_INIT(&watches->folders);
	watches->loop = loop;
	ev_io_init(&watches->io, on_inotify, watches->fd, EV_READ);
	ev_io_start(loop, &watches->io);
	*ret = watches;
	return 0;
}

void
watches_destroy(struct watches *watches)
{
	struct folder *folder;

	if (watches == NULL)
		return;
	while ((folder = LIST_FIRST(&watches->folders)) != NULL)
		watch_free(watches, LIST_FIRST(&folder->files));
	ev_io_stop(watches->loop, &watches->io);
	close(watches->fd);
	free(watches);
}

static struct folder *
folder_get(struct watches *watches, const char *path, struct vfe_error *err)
{
	struct folder *folder;
	int wd;

	wd = inotify_add_watch(watches->fd, path, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
	if (wd < 0) {
		vfe_error_set(err, -errno, "cannot watch folder %s: %s", path, strerror(errno));
		return NULL;
	}
	LIST_FOREACH (folder, &watches->folders, next) {
		if (folder->wd == wd)
			return folder;
	}

	folder = calloc(1, sizeof(*folder));
	if (folder == NULL || (folder->path = strdup(path)) == NULL) {
		free(folder);
		inotify_rm_watch(watches->fd, wd);
		vfe_error_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	folder->wd = wd;
	LIST_INIT(&folder->files);
	LIST_INSERT_HEAD(&watches->folders, folder, next);
	return folder;
}

struct watch *
watch_add(struct watches *watches, const char *path, void (*appeared)(void *ctx), void *ctx,
	struct vfe_error *err)
{
	const char *slash = strrchr(path, '/');
	char folder_path[PATH_MAX];
	struct folder *folder;
	struct watch *watch;

	if (slash == NULL || (size_t)(slash - path) >= sizeof(folder_path)) {
		vfe_error_set(err, -EINVAL, "%s is not an absolute path", path);
		return NULL;
	}
	memcpy(folder_path, path, (size_t)(slash - path));
	folder_path[slash - path] = '\0';

	watch = calloc(1, sizeof(*watch));
	if (watch == NULL || (watch->name = strdup(slash + 1)) == NULL) {
		free(watch);
		vfe_error_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	folder = folder_get(watches, slash == path ? "/" : folder_path, err);
	if (folder == NULL) {
		free(watch->name);
		free(watch);
		return NULL;
	}
	watch->folder = folder;
	watch->appeared = appeared;
	watch->ctx = ctx;
	LIST_INSERT_HEAD(&folder->files, watch, next);
	return watch;
}

void
watch_remove(struct watches *watches, struct watch *watch)
{
	if (watch == NULL)
		return;
	if (watches->delivering)
		watch->removed = true;
	else
		watch_free(watches, watch);
}
