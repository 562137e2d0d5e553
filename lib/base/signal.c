/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Eventfds of peers, signalled by asynchronous reads.
 */

#include "vfe_signal.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Completions that are not collected yet; they are collected when there is no room for another. */
enum { EVENTS = 64 };

void
vfe_signaller_init(struct vfe_signaller *signaller)
{
	aio_context_t context = 0;

	signaller->context = 0;
	signaller->file = vfe_memfd_create("vfe-signal", 1);
	if (signaller->file < 0)
		return;
	if (syscall(SYS_io_setup, EVENTS, &context) < 0)
		vfe_close(&signaller->file);
	signaller->context = context;
}

void
vfe_signaller_fini(struct vfe_signaller *signaller)
{
	if (signaller->file >= 0)
		syscall(SYS_io_destroy, signaller->context);
	vfe_close(&signaller->file);
}

static int
signal_by_aio(struct vfe_signaller *signaller, int fd)
{
	struct io_event events[EVENTS];
	struct iocb cb = {0}, *list = &cb;
	char byte;
	int tries;

	cb.aio_lio_opcode = IOCB_CMD_PREAD;
	cb.aio_fildes = (uint32_t)signaller->file;
	cb.aio_buf = (uint64_t)(uintptr_t)&byte;
	cb.aio_nbytes = sizeof(byte);
	cb.aio_flags = IOCB_FLAG_RESFD;
	cb.aio_resfd = (uint32_t)fd;
	for (tries = 0; tries < 2; tries++) {
		if (syscall(SYS_io_submit, signaller->context, 1, &list) == 1)
			return 0;
		if (errno != EAGAIN)
			break;
		if (syscall(SYS_io_getevents, signaller->context, 0, EVENTS, events, NULL) < 0)
			break;
	}
	return -errno;
}

static int
signal_by_write(int fd)
{
	static const uint64_t one = 1;
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	if (poll(&p, 1, 0) < 0)
		return -errno;
	if ((p.revents & POLLOUT) == 0)
		return -EAGAIN;
	return write(fd, &one, sizeof(one)) < 0 ? -errno : 0;
}

int
vfe_signal(struct vfe_signaller *signaller, int fd)
{
	return signaller->file >= 0 ? signal_by_aio(signaller, fd) : signal_by_write(fd);
}

bool
vfe_signaller_takes(struct vfe_signaller *signaller, int fd)
{
	struct iocb cb = {0}, *list = &cb;

	if (signaller->file < 0)
		return vfe_fd_is_eventfd(fd);
	cb.aio_lio_opcode = IOCB_CMD_PREAD;
	cb.aio_fildes = (uint32_t)signaller->file;
	cb.aio_buf = UINT64_MAX; /* nobody's memory: refused, but only when the eventfd is right */
	cb.aio_nbytes = 1;
	cb.aio_flags = IOCB_FLAG_RESFD;
	cb.aio_resfd = (uint32_t)fd;
	if (syscall(SYS_io_submit, signaller->context, 1, &list) == 1 || errno == EFAULT)
		return true;
	return errno != EINVAL && errno != EBADF && vfe_fd_is_eventfd(fd);
}

bool
vfe_fd_is_eventfd(int fd)
{
	static const char name[] = "anon_inode:[eventfd]";
	char path[32], target[sizeof(name)];
	ssize_t n;

	if (vfe_str_format(path, sizeof(path), "/proc/self/fd/%d", fd) < 0)
		return false;
	n = readlink(path, target, sizeof(target));
	return n == sizeof(name) - 1 && memcmp(target, name, sizeof(name) - 1) == 0;
}
