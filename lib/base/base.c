/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Small things that every component uses: fds, errors with a text, deadlines, bounded strings.
 */

#include "vfe_base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int
vfe_error_set(struct vfe_error *err, int neg_errno, const char *fmt, ...)
{
	va_list ap;

	if (err != NULL) {
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return neg_errno;
}

int
vfe_error_prefix(struct vfe_error *err, int neg_errno, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;
	int n;

	if (err == NULL)
		return neg_errno;

	memcpy(text, err->text, sizeof(text));
	va_start(ap, fmt);
	n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(err->text))
		snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", text);
	return neg_errno;
}

void
vfe_close(int *fd)
{
	int saved = errno;

	if (fd != NULL && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	errno = saved;
}

void
vfe_close_all(int *fds, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		vfe_close(&fds[i]);
}

int
vfe_fd_take(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

int
vfe_fd_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : copy;
}

int
vfe_fd_set_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

int64_t
vfe_fd_size(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}

int
vfe_memfd_create(const char *name, uint64_t size)
{
	int fd, ret;

	if (size == 0 || size > INT64_MAX)
		return -EINVAL;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

int
vfe_str_copy(char *dst, size_t size, const char *src)
{
	size_t len = strlen(src);

	if (len >= size) {
		if (size > 0)
			dst[0] = '\0';
		return -ENAMETOOLONG;
	}
	memcpy(dst, src, len + 1);
	return 0;
}

int
vfe_str_format(char *dst, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(dst, size, fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

uint64_t
vfe_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct vfe_deadline
vfe_deadline_in_ms(uint64_t ms)
{
	return (struct vfe_deadline){vfe_clock_ns() + ms * 1000000u};
}

struct timespec
vfe_deadline_timespec(struct vfe_deadline d)
{
	return (struct timespec){
		.tv_sec = (time_t)(d.at_ns / 1000000000u),
		.tv_nsec = (long)(d.at_ns % 1000000000u),
	};
}

int
vfe_deadline_left_ms(struct vfe_deadline d)
{
	uint64_t now = vfe_clock_ns();
	uint64_t ms;

	if (now >= d.at_ns)
		return 0;
	ms = (d.at_ns - now + 999999u) / 1000000u;
	return ms > INT32_MAX ? INT32_MAX : (int)ms;
}
