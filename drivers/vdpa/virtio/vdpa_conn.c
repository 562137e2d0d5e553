/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A front-end that sends half a message must not keep the vhost thread, which serves all sockets,
 * in a blocking read: give its connection a timeout.
 *
 * librte_vhost does not tell the fd of a connection. It is one of our UNIX sockets whose own name
 * (we listen) or whose peer's (we connect) is the path of the vhost socket.
 */

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <rte_vhost.h>

#include "vdpa_priv.h"

/* A message is sent in one piece; its rest is never a second away from an honest front-end. */
enum { CONN_TIMEOUT_S = 1 };

static bool
name_is(const struct sockaddr_un *name, socklen_t len, const char *path)
{
	return len > offsetof(struct sockaddr_un, sun_path) && name->sun_family == AF_UNIX &&
	       strncmp(name->sun_path, path, sizeof(name->sun_path)) == 0;
}

static bool
fd_is_connection(int fd, const char *path)
{
	struct sockaddr_un name = {0};
	socklen_t len = sizeof(name);
	int listening = 0;

	if (getpeername(fd, (struct sockaddr *)&name, &len) < 0)
		return false; /* no socket, or one that listens */
	if (name_is(&name, len, path))
		return true;
	len = sizeof(listening);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || listening != 0)
		return false;
	len = sizeof(name);
	return getsockname(fd, (struct sockaddr *)&name, &len) == 0 && name_is(&name, len, path);
}

/* Returns whether @fd had no timeout before. */
static bool
set_timeout(int fd, const struct timeval *timeout)
{
	struct timeval now = {0};
	socklen_t len = sizeof(now);

	if (getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &now, &len) < 0 || now.tv_sec != 0)
		return false;
	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, sizeof(*timeout)) == 0 &&
	       setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, timeout, sizeof(*timeout)) == 0;
}

int
vdpa_conn_find(int vid)
{
	const struct timeval timeout = {.tv_sec = CONN_TIMEOUT_S};
	char path[PATH_MAX];
	struct dirent *entry;
	int fd, ret = -1;
	DIR *dir;

	if (rte_vhost_get_ifname(vid, path, sizeof(path)) < 0)
		return -1;
	dir = opendir("/proc/self/fd");
	if (dir == NULL)
		return -1;
	while ((entry = readdir(dir)) != NULL) {
		fd = (int)strtol(entry->d_name, NULL, 10);
		if (entry->d_name[0] == '.' || !fd_is_connection(fd, path))
			continue;
		/* a connection that has this already is an older one, on its way out */
		if (!set_timeout(fd, &timeout))
			continue;
		vfe_close(&ret);
		ret = vfe_fd_dup(fd);
	}
	closedir(dir);
	return ret < 0 ? -1 : ret;
}
