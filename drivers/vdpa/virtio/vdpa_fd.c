/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Eventfds of front-ends, shared by threads, and signalled without ever blocking.
 */

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vdpa_priv.h"

/* Anything else (a socket, a file of FUSE) could make us wait for its owner. */
static bool
is_eventfd(int fd)
{
	char path[32], target[32];
	ssize_t n;

	if (vfe_str_format(path, sizeof(path), "/proc/self/fd/%d", fd) < 0)
		return false;
	n = readlink(path, target, sizeof(target));
	return n > 0 && (size_t)n < sizeof(target) && (size_t)n == strlen("anon_inode:[eventfd]") &&
	       memcmp(target, "anon_inode:[eventfd]", (size_t)n) == 0;
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

/*
 * write() on an eventfd whose counter is full blocks, and whether O_NONBLOCK is set is up to all
 * owners of the file, the front-end included. The completion of an asynchronous read adds 1 in the
 * kernel, which never blocks. The read is of our own memory file, and has ended when io_submit()
 * returns.
 */
static struct {
	pthread_mutex_t lock; /* protects what follows; one signal at a time */
	bool tried;
	int file; /* -1 = there is no asynchronous input and output here */
	aio_context_t context;
} aio = {.lock = PTHREAD_MUTEX_INITIALIZER, .file = -1};

static void
aio_setup_locked(void)
{
	if (aio.tried)
		return;
	aio.tried = true;
	aio.file = vfe_memfd_create("vfe-signal", 1);
	if (aio.file >= 0 && syscall(SYS_io_setup, 1, &aio.context) < 0)
		vfe_close(&aio.file);
}

void
vdpa_fd_fini(void)
{
	pthread_mutex_lock(&aio.lock);
	if (aio.file >= 0)
		syscall(SYS_io_destroy, aio.context);
	vfe_close(&aio.file);
	aio.context = 0;
	aio.tried = false;
	pthread_mutex_unlock(&aio.lock);
}

static int
signal_by_aio(int fd)
{
	struct iocb cb = {0}, *list = &cb;
	struct io_event event;
	char byte;
	int ret = -ENOSYS;

	pthread_mutex_lock(&aio.lock);
	aio_setup_locked();
	if (aio.file >= 0) {
		cb.aio_lio_opcode = IOCB_CMD_PREAD;
		cb.aio_fildes = (uint32_t)aio.file;
		cb.aio_buf = (uint64_t)(uintptr_t)&byte;
		cb.aio_nbytes = 1;
		cb.aio_flags = IOCB_FLAG_RESFD;
		cb.aio_resfd = (uint32_t)fd;
		ret = syscall(SYS_io_submit, aio.context, 1, &list) == 1 ? 0 : -errno;
		if (ret == 0)
			syscall(SYS_io_getevents, aio.context, 1, 1, &event, NULL);
	}
	pthread_mutex_unlock(&aio.lock);
	return ret;
}

void
vdpa_fd_signal(struct vdpa_fd *fd)
{
	static const uint64_t one = 1;
	struct pollfd p;

	if (fd == NULL || signal_by_aio(fd->fd) == 0)
		return;
	/* no asynchronous input and output here: next best */
	p = (struct pollfd){.fd = fd->fd, .events = POLLOUT};
	if (poll(&p, 1, 0) == 1 && write(fd->fd, &one, sizeof(one)) < 0)
		VDPA_LOG(DEBUG, run, "eventfd", "cannot signal: %s", strerror(errno));
}
