/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Stand-ins for the vDPA driver and librte_vhost.
 */

#undef NDEBUG

#include "fake_vdpa.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_vdpa.h>
#include <rte_vhost.h>

struct fake fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

enum { MAX_VID = 16 };

static const struct rte_vhost_device_ops *callbacks;
static int next_vid;
static char vid_paths[MAX_VID][128];

void
fake_reset(void)
{
	pthread_mutex_lock(&fake.lock);
	memset((char *)&fake + sizeof(fake.lock), 0, sizeof(fake) - sizeof(fake.lock));
	fake.last_disconnected = -1;
	pthread_mutex_unlock(&fake.lock);
	next_vid = 0;
}

static struct fake_socket *
socket_find_locked(const char *path)
{
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(fake.sockets); i++) {
		if (strcmp(fake.sockets[i].path, path) == 0)
			return &fake.sockets[i];
	}
	return NULL;
}

void
fake_hang_up(int vid)
{
	callbacks->destroy_connection(vid);
}

int
fake_come_to(const char *path, int vid)
{
	pthread_mutex_lock(&fake.lock);
	snprintf(vid_paths[vid], sizeof(vid_paths[vid]), "%s", path);
	pthread_mutex_unlock(&fake.lock);
	return callbacks->new_connection(vid);
}

int
fake_come(int vid)
{
	return fake_come_to(fake.sockets[0].path, vid);
}

/* --- librte_vhost --- */

int
rte_vhost_driver_register(const char *path, uint64_t flags)
{
	struct fake_socket *free_one;

	pthread_mutex_lock(&fake.lock);
	free_one = socket_find_locked("");
	assert(free_one != NULL);
	snprintf(free_one->path, sizeof(free_one->path), "%s", path);
	free_one->flags = fake.flags = flags;
	fake.nr_registered++;
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

int
rte_vhost_driver_unregister(const char *path)
{
	struct fake_socket *sock;

	pthread_mutex_lock(&fake.lock);
	sock = socket_find_locked(path);
	if ((sock->flags & RTE_VHOST_USER_CLIENT) != 0 && fake.nr_started < fake.nr_registered)
		fake.leaked_socket = true;
	if ((sock->flags & RTE_VHOST_USER_CLIENT) == 0) {
		close(sock->fd);
		unlink(path); /* whatever is there */
	}
	sock->path[0] = '\0';
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

int
rte_vhost_driver_attach_vdpa_device(const char *path, struct rte_vdpa_device *dev)
{
	(void)path;
	return dev == NULL ? -1 : 0;
}

int
rte_vhost_driver_set_features(const char *path, uint64_t features)
{
	(void)path;
	(void)features;
	return 0;
}

int
rte_vhost_driver_set_protocol_features(const char *path, uint64_t features)
{
	(void)path;
	(void)features;
	return 0;
}

int
rte_vhost_driver_callback_register(const char *path, struct rte_vhost_device_ops const *const ops)
{
	(void)path;
	callbacks = ops;
	return 0;
}

static int
server_bind(struct fake_socket *sock)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	sock->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", sock->path);
	return bind(sock->fd, (struct sockaddr *)&un, sizeof(un));
}

int
rte_vhost_driver_start(const char *path)
{
	struct fake_socket *sock;
	bool connect;
	int ret = -1;

	pthread_mutex_lock(&fake.lock);
	fake.nr_started++;
	sock = socket_find_locked(path);
	connect = fake.peer_listens && (sock->flags & RTE_VHOST_USER_CLIENT) != 0;
	if ((sock->flags & RTE_VHOST_USER_CLIENT) == 0)
		ret = server_bind(sock);
	pthread_mutex_unlock(&fake.lock);
	if (connect)
		fake_come_to(path, next_vid++);
	return connect ? 0 : ret;
}

int
rte_vhost_get_ifname(int vid, char *buf, size_t len)
{
	pthread_mutex_lock(&fake.lock);
	snprintf(buf, len, "%s", vid_paths[vid]);
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

/* --- the vDPA driver --- */

struct rte_vdpa_device *
vfe_vdpa_vf_device(const struct vfe_bdf *bdf)
{
	static char object[8];

	(void)bdf;
	return (struct rte_vdpa_device *)(void *)object;
}

int
vfe_vdpa_vf_vhost_features(
	const struct vfe_bdf *bdf, uint64_t *ret_features, uint64_t *ret_protocol_features)
{
	(void)bdf;
	*ret_features = 1;
	*ret_protocol_features = 2;
	return 0;
}

int
vfe_vdpa_vf_connect(const struct vfe_bdf *bdf, int vid, struct vfe_error *err)
{
	bool refuse;

	(void)bdf;
	(void)vid;
	pthread_mutex_lock(&fake.lock);
	refuse = fake.refuse_connect;
	if (!refuse)
		fake.nr_connected++;
	pthread_mutex_unlock(&fake.lock);
	return refuse ? vfe_error_set(err, -EBUSY, "not now") : 0;
}

void
vfe_vdpa_vf_disconnect(int vid)
{
	pthread_mutex_lock(&fake.lock);
	fake.nr_disconnected++;
	fake.last_disconnected = vid;
	pthread_mutex_unlock(&fake.lock);
}

int
vfe_vdpa_pf_add(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	(void)bdf;
	(void)err;
	return 0;
}

int
vfe_vdpa_pf_add_vfs(const struct vfe_bdf *bdf, unsigned int num_vfs, struct vfe_vdpa_error *err)
{
	(void)num_vfs;
	return vfe_vdpa_pf_add(bdf, err);
}

int
vfe_vdpa_pf_remove(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	(void)bdf;
	err->code = VFE_VDPA_PF_HAS_VFS;
	return vfe_error_set(&err->err, -EBUSY, "remove the VFs first");
}

int
vfe_vdpa_vf_add(const struct vfe_bdf *bdf, const char *uuid, struct vfe_vdpa_error *err)
{
	(void)bdf;
	(void)uuid;
	if (fake.vf_add_fails != 0) {
		err->code = (enum vfe_vdpa_code)fake.vf_add_fails;
		return vfe_error_set(&err->err, -EIO, "it does not work");
	}
	fake.nr_vfs++;
	return 0;
}

int
vfe_vdpa_vf_add_plain(const struct vfe_bdf *bdf, const char *uuid, bool allow_no_iommu,
	struct vfe_vdpa_error *err)
{
	(void)allow_no_iommu;
	return vfe_vdpa_vf_add(bdf, uuid, err);
}

int
vfe_vdpa_vf_remove(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	(void)bdf;
	if (fake.nr_vfs == 0) {
		err->code = VFE_VDPA_NO_VF_DEVICE;
		return vfe_error_set(&err->err, -ENODEV, "no such VF");
	}
	fake.nr_vfs--;
	return 0;
}

int
vfe_vdpa_reattach(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	int ret = 0;

	(void)bdf;
	pthread_mutex_lock(&fake.lock);
	if (fake.nr_reattached < 8)
		ret = fake.reattach_results[fake.nr_reattached];
	fake.nr_reattached++;
	pthread_mutex_unlock(&fake.lock);
	return vfe_error_set(&err->err, ret, "not yet");
}

size_t
vfe_vdpa_pf_list(struct vfe_vdpa_pf_info *ret, size_t max)
{
	(void)ret;
	(void)max;
	return 0;
}

ssize_t
vfe_vdpa_vf_list(const struct vfe_bdf *pf, struct vfe_bdf *ret, size_t max)
{
	(void)pf;
	(void)ret;
	(void)max;
	return -ENODEV;
}

int
vfe_vdpa_vf_info(const struct vfe_bdf *bdf, struct vfe_vdpa_vf_info *ret)
{
	(void)bdf;
	(void)ret;
	return -ENODEV;
}

int
vfe_vdpa_vf_debug(const struct vfe_bdf *bdf, unsigned int operation, unsigned int size_mode,
	unsigned int *ret_status, struct vfe_vdpa_error *err)
{
	(void)bdf;
	(void)operation;
	(void)size_mode;
	(void)err;
	*ret_status = 1;
	return 0;
}
