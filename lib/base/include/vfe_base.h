/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Small things that every component uses: fds, errors with a text, deadlines, bounded strings.
 */

#ifndef VFE_BASE_H
#define VFE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define VFE_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define VFE_BIT(n)        (1ULL << (n))

#define vfe_likely(x)   __builtin_expect(!!(x), 1)
#define vfe_unlikely(x) __builtin_expect(!!(x), 0)

/* The object of @type whose @member is at @ptr. */
#define vfe_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/*
 * Why something failed, for people. Filled by the function that fails, shown or logged once by
 * the caller that knows the device. Functions accept NULL for it. No trailing newline or dot.
 */
struct vfe_error {
	char text[256];
};

/*
 * Set the text of @err (may be NULL) and return @neg_errno, so that a failure is one line:
 *	return vfe_error_set(err, -EINVAL, "queue size %u is not a power of two", size);
 */
int vfe_error_set(struct vfe_error *err, int neg_errno, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "prefix: " before the text of @err and return @neg_errno. */
int vfe_error_prefix(struct vfe_error *err, int neg_errno, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Close @fd if it is open, set it to -1, keep errno. NULL and -1 are fine. */
void vfe_close(int *fd);

/* close() all of @fds[0..@n) that are open and set them to -1. */
void vfe_close_all(int *fds, size_t n);

/* Hand over the ownership of an fd: returns *@fd and sets it to -1. */
int vfe_fd_take(int *fd);

/* Duplicate with O_CLOEXEC. Returns the new fd or -errno. */
int vfe_fd_dup(int fd);

/* Set O_NONBLOCK and FD_CLOEXEC. Returns 0 or -errno. */
int vfe_fd_set_nonblock(int fd);

/* Size in bytes of the file behind @fd, or -errno. */
int64_t vfe_fd_size(int fd);

/*
 * Create an anonymous shared memory file of @size bytes that can no longer shrink or grow.
 * Returns the fd, which the caller owns, or -errno.
 */
int vfe_memfd_create(const char *name, uint64_t size);

/*
 * Copy @src into @dst of @size bytes, always terminated.
 * Returns 0, or -ENAMETOOLONG (and @dst is then the empty string).
 */
int vfe_str_copy(char *dst, size_t size, const char *src);

/* Like snprintf, but -ENAMETOOLONG when it did not fit; 0 on success. */
int
vfe_str_format(char *dst, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Monotonic clock in nanoseconds. Any thread. */
uint64_t vfe_clock_ns(void);

/* A point of the monotonic clock after which a wait gives up. */
struct vfe_deadline {
	uint64_t at_ns;
};

/* The deadline @ms milliseconds from now. */
struct vfe_deadline vfe_deadline_in_ms(uint64_t ms);

/* Milliseconds left, rounded up, 0 when it has passed; fits the timeout of poll(2). */
int vfe_deadline_left_ms(struct vfe_deadline d);

/* The same point for the calls that take a time of CLOCK_MONOTONIC. */
struct timespec vfe_deadline_timespec(struct vfe_deadline d);

static inline bool
vfe_deadline_passed(struct vfe_deadline d)
{
	return vfe_clock_ns() >= d.at_ns;
}

static inline bool
vfe_is_pow2(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static inline uint64_t
vfe_align_up(uint64_t v, uint64_t pow2)
{
	return (v + pow2 - 1) & ~(pow2 - 1);
}

static inline bool
vfe_is_aligned(uint64_t v, uint64_t pow2)
{
	return (v & (pow2 - 1)) == 0;
}

/* Does [off, off + len) lie inside [0, size)? Safe against wrap-around. */
static inline bool
vfe_range_inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

#endif /* VFE_BASE_H */
