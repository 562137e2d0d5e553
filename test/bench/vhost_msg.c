/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vhost-user messages, and what the small front-ends of the benchmarks share besides.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vhost_msg.h"

_Noreturn void
die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

void
msg_send(int sock, const struct msg *m, const int *fds, int nr_fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(VHOST_MAX_FDS * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)m, .iov_len = MSG_HDR + m->size};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t len = (size_t)nr_fds * sizeof(int);

	if (nr_fds > 0) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE(len);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(len);
		memcpy(CMSG_DATA(c), fds, len);
	}
	if (sendmsg(sock, &h, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
		die("sendmsg");
}

int
msg_recv_fds(int sock, struct msg *m, int *fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(VHOST_MAX_FDS * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = m, .iov_len = MSG_HDR};
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	ssize_t got;

	errno = EPROTO;
	got = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	if (got == 0)
		return -1;
	if (got != MSG_HDR || m->size > sizeof(m->u))
		die("no message");
	if (m->size > 0 && recv(sock, &m->u, m->size, MSG_WAITALL) != (ssize_t)m->size)
		die("short message");
	c = CMSG_FIRSTHDR(&h);
	if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return 0;
	memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

int
msg_recv(int sock, struct msg *m)
{
	int fds[VHOST_MAX_FDS];
	int n = msg_recv_fds(sock, m, fds);

	errno = n < 0 ? ECONNRESET : EPROTO;
	if (n < 0 || n > 1)
		die("no message from the back end");
	return n == 1 ? fds[0] : -1;
}

static struct sockaddr_un
address_of(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	errno = ENAMETOOLONG;
	if (strlen(path) >= sizeof(un.sun_path))
		die(path);
	memcpy(un.sun_path, path, strlen(path));
	return un;
}

int
listen_at(const char *path)
{
	struct sockaddr_un un = address_of(path);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(path);
	if (s < 0 || bind(s, (struct sockaddr *)&un, sizeof(un)) != 0 || listen(s, 1) != 0)
		die(path);
	return s;
}

int
accept_from(int listener)
{
	struct pollfd fd = {.fd = listener, .events = POLLIN};
	int s;

	errno = ETIMEDOUT;
	if (poll(&fd, 1, VHOST_CONNECT_TIMEOUT_MS) != 1)
		die("no back end connects");
	s = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (s < 0)
		die("accept");
	return s;
}

int
connect_to(const char *path)
{
	struct sockaddr_un un = address_of(path);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (s < 0 || connect(s, (struct sockaddr *)&un, sizeof(un)) != 0)
		die(path);
	return s;
}

int64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

void
pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		die("sched_setaffinity");
}
