/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tell systemd how the service is (sd_notify protocol), without libsystemd.
 */

#include "app_notify.h"

#include "vfe_base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { SEND_TIMEOUT_S = 5 };

/* "/path", or "@name" for the abstract name space, where the first byte is 0. */
static int
address_make(const char *name, struct sockaddr_un *addr, socklen_t *ret_len)
{
	size_t len = strlen(name);

	if ((name[0] != '/' && name[0] != '@') || len < 2)
		return -EINVAL;
	if (len >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;

	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	memcpy(addr->sun_path, name, len);
	if (name[0] == '@')
		addr->sun_path[0] = '\0';
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return 0;
}

static int
message_send(const char *text)
{
	const struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr;
	socklen_t addr_len;
	int fd, ret;

	if (name == NULL || name[0] == '\0')
		return 0;
	ret = address_make(name, &addr, &addr_len);
	if (ret < 0)
		return ret;

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	ret = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
		sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&addr,
			addr_len) < 0)
		ret = -errno;
	vfe_close(&fd);
	return ret;
}

/* A newline would begin another assignment. */
static void
newlines_mask(char *text)
{
	for (; *text != '\0'; text++)
		if (*text == '\n')
			*text = ' ';
}

int
app_notify_ready(const char *status)
{
	char text[512];
	int n;

	if (status == NULL)
		return message_send("READY=1");
	n = snprintf(text, sizeof(text), "READY=1\nSTATUS=");
	snprintf(text + n, sizeof(text) - (size_t)n, "%s", status);
	newlines_mask(text + n);
	return message_send(text);
}

int
app_notify_stopping(void)
{
	return message_send("STOPPING=1");
}

int
app_notify_status(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	n = snprintf(text, sizeof(text), "STATUS=");
	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	newlines_mask(text);
	return message_send(text);
}
