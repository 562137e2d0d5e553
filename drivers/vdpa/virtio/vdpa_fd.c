/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Eventfds of front-ends, shared by threads, and signalled without ever blocking.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vdpa_priv.h"
#include "vfe_signal.h"

static struct {
	pthread_mutex_t lock; /* protects what follows; one signal at a time */
	bool ready;
	struct vfe_signaller signaller;
} out = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct vfe_signaller *
signaller_locked(void)
{
	if (!out.ready)
		vfe_signaller_init(&out.signaller);
	out.ready = true;
	return &out.signaller;
}

static bool
is_eventfd(int fd)
{
	bool is;

	pthread_mutex_lock(&out.lock);
	is = vfe_signaller_takes(signaller_locked(), fd);
	pthread_mutex_unlock(&out.lock);
	return is;
}

struct vdpa_fd *
vdpa_fd_create(int fd)
{
	struct vdpa_fd *ret;

	if (!is_eventfd(fd)) {
		errno = EINVAL;
		return NULL;
	}
	ret = calloc(1, sizeof(*ret));
	if (ret == NULL)
		return NULL;
	ret->refs = 1;
	ret->fd = vfe_fd_dup(fd);
	if (ret->fd < 0) {
		errno = -ret->fd;
		free(ret);
		return NULL;
	}
	return ret;
}

struct vdpa_fd *
vdpa_fd_get(struct vdpa_fd *fd)
{
	if (fd != NULL)
		__atomic_fetch_add(&fd->refs, 1, __ATOMIC_RELAXED);
	return fd;
}

void
vdpa_fd_put(struct vdpa_fd *fd)
{
	if (fd == NULL || __atomic_fetch_sub(&fd->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	vfe_close(&fd->fd);
	free(fd);
}

void
vdpa_fd_fini(void)
{
	pthread_mutex_lock(&out.lock);
	if (out.ready)
		vfe_signaller_fini(&out.signaller);
	out.ready = false;
	pthread_mutex_unlock(&out.lock);
}

void
vdpa_fd_signal(struct vdpa_fd *fd)
{
	int rc;

	if (fd == NULL)
		return;
	pthread_mutex_lock(&out.lock);
	rc = vfe_signal(signaller_locked(), fd->fd);
	pthread_mutex_unlock(&out.lock);
	if (rc < 0 && rc != -EAGAIN)
		VDPA_LOG(DEBUG, run, "eventfd", "cannot signal: %s", strerror(-rc));
}
