/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The listening UNIX socket: its path, owner and mode, and who may speak on it.
 */

#include "jsonrpc_priv.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int
jsonrpc_group_find(const char *name, gid_t *ret, struct vfe_error *err)
{
	struct group grp, *found = NULL;
	size_t size = 1024;
	char *buf = NULL;
	int rc;

	do {
		size *= 4;
		free(buf);
		buf = malloc(size);
		if (buf == NULL)
			return vfe_error_set(err, -ENOMEM, "out of memory");
		rc = getgrnam_r(name, &grp, buf, size, &found);
	} while (rc == ERANGE && size < (1u << 24));

	if (found != NULL)
		*ret = found->gr_gid;
	free(buf);
	if (found == NULL)
		return vfe_error_set(err, -EINVAL, "group \"%s\" does not exist", name);
	return 0;
}

/* Create the folder of @path when it is absent; its parents must be there. */
static int
folder_make(const char *path, struct vfe_error *err)
{
	char folder[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	vfe_str_copy(folder, sizeof(folder), path);
	slash = strrchr(folder, '/');
	if (slash == NULL || slash == folder)
		return 0;
	*slash = '\0';
	if (mkdir(folder, 0755) == 0) {
		/* whatever the umask: the group must get through to the socket */
		if (chmod(folder, 0755) == 0)
			return 0;
	} else if (errno == EEXIST) {
		return 0;
	}
	return vfe_error_set(
		err, -errno, "cannot create the folder %s: %s", folder, strerror(errno));
}

/* Remove a socket that a dead server left behind; nothing else is removed. */
static int
stale_remove(const struct sockaddr_un *addr, struct vfe_error *err)
{
	const char *path = addr->sun_path;
	int fd, rc, saved;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT
			       ? 0
			       : vfe_error_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return vfe_error_set(err, -EEXIST, "%s exists and is not a socket", path);

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return vfe_error_set(err, -errno, "socket: %s", strerror(errno));
	rc = connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
	saved = errno;
	close(fd);
	if (rc == 0 || saved == EAGAIN)
		return vfe_error_set(err, -EADDRINUSE,
			"%s is in use by another process: stop it or choose another path", path);
	if (saved != ECONNREFUSED && saved != ENOENT)
		return vfe_error_set(err, -saved, "%s: %s", path, strerror(saved));
	if (unlink(path) < 0 && errno != ENOENT)
		return vfe_error_set(err, -errno, "cannot replace %s: %s", path, strerror(errno));
	return 0;
}

static int
owner_set(const struct vfe_jsonrpc_cfg *cfg, gid_t gid, bool has_gid, struct vfe_error *err)
{
	if (has_gid && chown(cfg->path, (uid_t)-1, gid) < 0)
		return vfe_error_set(err, -errno, "cannot give %s to the group %s: %s", cfg->path,
			cfg->group, strerror(errno));
	if (chmod(cfg->path, (mode_t)cfg->mode) < 0)
		return vfe_error_set(
			err, -errno, "cannot set the mode of %s: %s", cfg->path, strerror(errno));
	return 0;
}

/* Returns the listening fd, which the caller owns, or -errno. */
int
jsonrpc_listen(const struct vfe_jsonrpc_cfg *cfg, gid_t gid, bool has_gid, struct vfe_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, ret;

	if (cfg->path[0] == '\0')
		return vfe_error_set(err, -EINVAL, "the path of the RPC socket is empty");
	if (vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), cfg->path) < 0)
		return vfe_error_set(err, -ENAMETOOLONG,
			"the path of the RPC socket has %zu bytes, the limit is %zu: %s",
			strlen(cfg->path), sizeof(addr.sun_path) - 1, cfg->path);
	ret = folder_make(cfg->path, err);
	if (ret < 0)
		return ret;
	ret = stale_remove(&addr, err);
	if (ret < 0)
		return ret;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return vfe_error_set(err, -errno, "socket: %s", strerror(errno));
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = vfe_error_set(
			err, -errno, "cannot create %s: %s", cfg->path, strerror(errno));
		goto err_close;
	}
	/* nobody can connect before listen(), so the umask's mode is never in effect */
	ret = owner_set(cfg, gid, has_gid, err);
	if (ret < 0)
		goto err_unlink;
	if (listen(fd, SOMAXCONN) < 0) {
		ret = vfe_error_set(err, -errno, "%s: listen: %s", cfg->path, strerror(errno));
		goto err_unlink;
	}
	return fd;

err_unlink:
	unlink(cfg->path);
err_close:
	vfe_close(&fd);
	return ret;
}

/* Is @gid among the supplementary groups that the peer had when it connected? */
static bool
peer_in_group(int fd, gid_t gid)
{
	socklen_t len = 0, i;
	bool found = false;
	gid_t *gids;

	/* the first call tells the size (ERANGE); no group at all is success with length 0 */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE)
		return false;
	gids = malloc(len);
	if (gids == NULL)
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, gids, &len) == 0)
		for (i = 0; i < len / sizeof(*gids); i++)
			found = found || gids[i] == gid;
	free(gids);
	return found;
}

/*
 * May the peer of @fd speak? The kernel's record of the moment of connect() counts, so that no
 * name service is asked here, which could block.
 */
int
jsonrpc_peer_check(int fd, bool has_gid, gid_t gid, struct vfe_error *err)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return vfe_error_set(err, -errno, "peer credentials: %s", strerror(errno));
	if (cred.uid == 0 || cred.uid == geteuid())
		return 0;
	if (has_gid && (cred.gid == gid || peer_in_group(fd, gid)))
		return 0;
	if (!has_gid)
		return vfe_error_set(err, -EACCES,
			"permission denied: user %u is not root, and no group is admitted",
			cred.uid);
	return vfe_error_set(err, -EACCES,
		"permission denied: user %u is neither root nor in group %u", cred.uid, gid);
}
