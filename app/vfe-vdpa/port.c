/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Ports: the vhost-user socket of each VF.
 */

#include "port.h"

#include "retry.h"
#include "svc_log.h"

#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_vdpa.h>
#include <rte_vhost.h>

enum { CONNECT_MAX_PAUSE_MS = 1000 };

struct port {
	struct vfe_bdf bdf;
	char name[VFE_BDF_STR_SIZE];
	char path[PORT_PATH_SIZE];
	bool client;
	int vid;                       /* connection, -1 = none; protected by ports.lock */
	bool removed;                  /* protected by ports.lock */
	bool event;                    /* on the events list; protected by ports.lock */
	bool registered;               /* with librte_vhost; provisioning thread */
	struct stat made;              /* our socket, st_ino 0 = none; protected by ports.lock */
	bool told;                     /* that it is one of ours; provisioning thread */
	struct retry *retry;           /* client only; main loop */
	LIST_ENTRY(port) next;         /* protected by ports.lock */
	STAILQ_ENTRY(port) event_next; /* protected by ports.lock */
};

static struct {
	struct ports_cfg cfg;
	pthread_mutex_t lock; /* protects what says so above, and the lists; never while waiting */
	LIST_HEAD(, port) list;
	STAILQ_HEAD(, port) events; /* ports that want the main loop's attention */
	unsigned int nr;
	struct ev_async wake;
} ports = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct port *
port_find_locked(const struct vfe_bdf *bdf)
{
	struct port *port;

	LIST_FOREACH (port, &ports.list, next) {
		if (!port->removed && vfe_bdf_equal(&port->bdf, bdf))
			return port;
	}
	return NULL;
}

static struct port *
port_find_path_locked(const char *path)
{
	struct port *port;

	LIST_FOREACH (port, &ports.list, next) {
		if (!port->removed && strcmp(port->path, path) == 0)
			return port;
	}
	return NULL;
}

static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* The port that listens on the socket @st, by whatever name. */
static struct port *
port_find_socket_locked(const struct stat *st)
{
	struct port *port;

	LIST_FOREACH (port, &ports.list, next) {
		if (!port->removed && port->made.st_ino != 0 && same_file(&port->made, st))
			return port;
	}
	return NULL;
}

/* Have the main loop look at @port: it is new, lost its connection, or was removed. */
static void
port_event_locked(struct port *port)
{
	if (!port->event) {
		port->event = true;
		STAILQ_INSERT_TAIL(&ports.events, port, event_next);
	}
	ev_async_send(ports.cfg.loop, &ports.wake);
}

/* --- callbacks of librte_vhost: its event thread, or ours inside rte_vhost_driver_start() --- */

static int
on_new_connection(int vid)
{
	char path[PATH_MAX];
	struct vfe_error err;
	struct vfe_bdf bdf;
	struct port *port;
	int ret;

	if (rte_vhost_get_ifname(vid, path, sizeof(path)) < 0)
		return -1;

	pthread_mutex_lock(&ports.lock);
	port = port_find_path_locked(path);
	if (port != NULL)
		bdf = port->bdf;
	pthread_mutex_unlock(&ports.lock);
	if (port == NULL)
		return -1;

	/* refuses a second front-end, but takes a new one for one that has hung up */
	ret = vfe_vdpa_vf_connect(&bdf, vid, &err);
	if (ret < 0) {
		SVC_LOG(ERR, "%s: front-end on %s refused: %s", port->name, path, err.text);
		return -1;
	}

	pthread_mutex_lock(&ports.lock);
	port->vid = vid;
	pthread_mutex_unlock(&ports.lock);
	SVC_LOG(INFO, "%s: front-end connected on %s", port->name, path);
	return 0;
}

/* The connection of @port has ended or is to end: tell the driver exactly once. */
static void
port_disconnect(struct port *port, int only_vid)
{
	int vid;

	pthread_mutex_lock(&ports.lock);
	vid = port->vid;
	if (only_vid >= 0 && vid != only_vid)
		vid = -1;
	if (vid >= 0)
		port->vid = -1;
	pthread_mutex_unlock(&ports.lock);
	if (vid < 0)
		return;

	vfe_vdpa_vf_disconnect(vid);
	SVC_LOG(INFO, "%s: front-end on %s disconnected", port->name, port->path);
}

static void
on_destroy_connection(int vid)
{
	struct port *port;

	/* unregistering waits for this callback, so the port cannot be freed meanwhile */
	pthread_mutex_lock(&ports.lock);
	LIST_FOREACH (port, &ports.list, next) {
		if (port->vid == vid)
			break;
	}
	pthread_mutex_unlock(&ports.lock);
	if (port == NULL)
		return;

	port_disconnect(port, vid);
	pthread_mutex_lock(&ports.lock);
	if (!port->removed)
		port_event_locked(port);
	pthread_mutex_unlock(&ports.lock);
}

static int
on_new_device(int vid)
{
	(void)vid; /* the driver follows the messages itself, see vdpa_ops.c */
	return 0;
}

static void
on_destroy_device(int vid)
{
	(void)vid;
}

static const struct rte_vhost_device_ops vhost_callbacks = {
	.new_device = on_new_device,
	.destroy_device = on_destroy_device,
	.new_connection = on_new_connection,
	.destroy_connection = on_destroy_connection,
};

/* --- provisioning thread --- */

static int fail(struct vfe_vdpa_error *err, enum vfe_vdpa_code code, int neg_errno, const char *fmt,
	...) __attribute__((format(printf, 4, 5)));

static int
fail(struct vfe_vdpa_error *err, enum vfe_vdpa_code code, int neg_errno, const char *fmt, ...)
{
	va_list ap;

	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->err.text, sizeof(err->err.text), fmt, ap);
	va_end(ap);
	return neg_errno;
}

static int
port_register(struct port *port, struct vfe_vdpa_error *err)
{
	uint64_t flags = port->client ? RTE_VHOST_USER_CLIENT | RTE_VHOST_USER_NO_RECONNECT : 0;
	struct rte_vdpa_device *vdpa = vfe_vdpa_vf_device(&port->bdf);
	uint64_t features, protocol_features;

	if (vdpa == NULL ||
		vfe_vdpa_vf_vhost_features(&port->bdf, &features, &protocol_features) < 0)
		return fail(err, VFE_VDPA_VF_GET_FEATURES, -ENODEV,
			"%s: the VF has gone, cannot open %s", port->name, port->path);
	if (rte_vhost_driver_register(port->path, flags) < 0)
		return fail(err, VFE_VDPA_VF_DRIVER_REGISTER, -EIO,
			"%s: librte_vhost refuses the socket %s (at most %d sockets)", port->name,
			port->path, PORT_MAX);
	port->registered = true;

	if (rte_vhost_driver_attach_vdpa_device(port->path, vdpa) < 0)
		return fail(err, VFE_VDPA_VF_ATTACH_VDPA, -EIO, "%s: cannot attach the VF to %s",
			port->name, port->path);
	if (rte_vhost_driver_set_features(port->path, features) < 0 ||
		rte_vhost_driver_set_protocol_features(port->path, protocol_features) < 0)
		return fail(err, VFE_VDPA_VF_SET_FEATURES, -EIO,
			"%s: cannot set features %#" PRIx64 " on %s", port->name, features,
			port->path);
	if (rte_vhost_driver_callback_register(port->path, &vhost_callbacks) < 0)
		return fail(err, VFE_VDPA_VF_CALLBACK_REGISTER, -EIO,
			"%s: cannot register callbacks for %s", port->name, port->path);
	return 0;
}

/*
 * librte_vhost unlinks the path of a server whosever socket is there now. A QEMU that listens, too,
 * has put its own in place of ours: keep that by a second name, @ret. Returns whether there is one.
 */
static bool
other_socket_keep(const struct port *port, char *ret, size_t size)
{
	struct stat st;

	if (port->client || lstat(port->path, &st) < 0 || same_file(&port->made, &st))
		return false;
	if (vfe_str_format(ret, size, "%s.%d", port->path, getpid()) < 0 ||
		link(port->path, ret) < 0) {
		SVC_LOG(WARNING, "%s: %s is not our socket any more and is lost: %s", port->name,
			port->path, strerror(errno));
		return false;
	}
	return true;
}

static void
port_unregister(struct port *port)
{
	char kept[PORT_PATH_SIZE + 16];
	bool keep;

	if (!port->registered)
		return;
	port_disconnect(port, -1);
	keep = other_socket_keep(port, kept, sizeof(kept));
	rte_vhost_driver_unregister(port->path);
	if (keep && rename(kept, port->path) < 0)
		SVC_LOG(WARNING, "%s: %s is lost, it is %s now: %s", port->name, port->path, kept,
			strerror(errno));
	port->registered = false;
	pthread_mutex_lock(&ports.lock);
	port->made.st_ino = 0;
	pthread_mutex_unlock(&ports.lock);
}

/* A client must not take our own server for its front-end. */
static bool
socket_is_ours(struct port *port, const struct stat *st)
{
	char other[VFE_BDF_STR_SIZE] = "";
	struct port *found;

	pthread_mutex_lock(&ports.lock);
	found = port_find_socket_locked(st);
	if (found != NULL)
		vfe_str_copy(other, sizeof(other), found->name);
	pthread_mutex_unlock(&ports.lock);
	if (found != NULL && !port->told)
		SVC_LOG(ERR, "%s: %s is the socket of VF %s, no front-end listens there",
			port->name, port->path, other);
	port->told = found != NULL;
	return found != NULL;
}

/* Client: connect when the front-end's socket is there. 0 = connected or nothing to do. */
static int
port_connect(void *ctx)
{
	struct vfe_vdpa_error err;
	struct port *port = ctx;
	struct stat st;
	bool done;
	int ret;

	pthread_mutex_lock(&ports.lock);
	done = port->removed || port->vid >= 0;
	pthread_mutex_unlock(&ports.lock);
	if (done)
		return 0;

	port_unregister(port); /* what an ended connection has left */
	if (stat(port->path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return -ENOENT;
	if (socket_is_ours(port, &st))
		return -ELOOP;
	ret = port_register(port, &err);
	if (ret < 0) {
		SVC_LOG(ERR, "%s", err.err.text);
	} else {
		rte_vhost_driver_start(port->path);
		pthread_mutex_lock(&ports.lock);
		ret = port->vid >= 0 ? 0 : -ECONNREFUSED;
		pthread_mutex_unlock(&ports.lock);
	}
	if (ret < 0)
		port_unregister(port);
	return ret;
}

static int
folder_check(const char *name, const char *path, struct vfe_vdpa_error *err)
{
	char folder[PORT_PATH_SIZE];
	char *slash;

	vfe_str_copy(folder, sizeof(folder), path);
	slash = strrchr(folder, '/');
	if (slash == folder)
		slash++;
	*slash = '\0';
	if (access(folder, W_OK | X_OK) < 0)
		return fail(err, VFE_VDPA_VF_SOCKET_ACCESS, -EACCES,
			"%s: folder %s of the vhost socket: %s", name, folder, strerror(errno));
	return 0;
}

static int
not_a_socket(const char *name, const char *path, struct vfe_vdpa_error *err)
{
	return fail(err, VFE_VDPA_VF_SOCKET_EXISTS, -EEXIST,
		"%s: %s is there and is not a socket; remove it or choose another path", name,
		path);
}

/* Server: a socket that nobody listens on is a left-over and is removed. */
static int
stale_socket_remove(const char *name, const char *path, struct vfe_vdpa_error *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, ret;

	if (lstat(path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return not_a_socket(name, path, err);
	vfe_str_copy(un.sun_path, sizeof(un.sun_path), path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(err, VFE_VDPA_VF_SOCKET_ACCESS, -errno, "%s: socket: %s", name,
			strerror(errno));
	ret = connect(fd, (const struct sockaddr *)&un, sizeof(un)) < 0 ? -errno : 0;
	close(fd);
	if (ret != -ECONNREFUSED)
		return fail(err, VFE_VDPA_VF_SOCKET_EXISTS, -EADDRINUSE,
			"%s: another process listens on %s; if it is the front-end, add the VF "
			"with --client",
			name, path);
	unlink(path);
	return 0;
}

/* That no other port has it, and that one more is possible. */
static int
path_check_ports(const char *name, const char *path, struct vfe_vdpa_error *err)
{
	struct port *port;
	struct stat st;
	unsigned int nr;
	bool there = stat(path, &st) == 0;

	pthread_mutex_lock(&ports.lock);
	port = port_find_path_locked(path);
	if (port == NULL && there)
		port = port_find_socket_locked(&st);
	if (port != NULL)
		fail(err, VFE_VDPA_VF_SOCKET_EXISTS, -EEXIST, "%s: %s is the socket of VF %s", name,
			path, port->name);
	nr = ports.nr;
	pthread_mutex_unlock(&ports.lock);
	if (port != NULL)
		return -EEXIST;
	if (nr >= PORT_MAX)
		return fail(err, VFE_VDPA_VF_PORT_LIMIT, -ENOSPC,
			"%s: there are %u vhost sockets already, the limit of librte_vhost", name,
			nr);
	return 0;
}

static bool
role_is_client(enum port_role role)
{
	return role == PORT_AS_STARTED ? ports.cfg.client : role == PORT_CLIENT;
}

int
port_path_check(const struct vfe_bdf *bdf, const char *path, enum port_role role, char *ret,
	struct vfe_vdpa_error *err)
{
	char name[VFE_BDF_STR_SIZE];
	struct stat st;
	int rc;

	vfe_bdf_format(bdf, name);
	rc = path != NULL ? vfe_str_copy(ret, PORT_PATH_SIZE, path)
			  : vfe_str_format(ret, PORT_PATH_SIZE, "%s%s", ports.cfg.prefix, name);
	if (rc < 0)
		return fail(err, VFE_VDPA_VF_SOCKET_ACCESS, rc,
			"%s: the vhost socket path is longer than %d characters", name,
			PORT_PATH_SIZE - 1);
	if (ret[0] != '/' || ret[strlen(ret) - 1] == '/')
		return fail(err, VFE_VDPA_VF_SOCKET_ACCESS, -EINVAL,
			"%s: %s is not the absolute path of a socket", name, ret);
	if (folder_check(name, ret, err) < 0)
		return -EACCES;
	rc = path_check_ports(name, ret, err);
	if (rc < 0)
		return rc;
	if (!role_is_client(role))
		return stale_socket_remove(name, ret, err);
	return stat(ret, &st) == 0 && !S_ISSOCK(st.st_mode) ? not_a_socket(name, ret, err) : 0;
}

int
port_role_parse(const char *text, enum port_role *ret)
{
	if (text == NULL)
		*ret = PORT_AS_STARTED;
	else if (strcmp(text, "server") == 0)
		*ret = PORT_SERVER;
	else if (strcmp(text, "client") == 0)
		*ret = PORT_CLIENT;
	else
		return -EINVAL;
	return 0;
}

static int
port_listen(struct port *port, struct vfe_vdpa_error *err)
{
	struct stat st;
	int ret;

	/* adding the VF has taken its time: what is there now? */
	ret = stale_socket_remove(port->name, port->path, err);
	if (ret == 0)
		ret = port_register(port, err);
	if (ret == 0 && rte_vhost_driver_start(port->path) < 0)
		ret = fail(err, VFE_VDPA_VF_DRIVER_START, -EIO, "%s: cannot listen on %s",
			port->name, port->path);
	if (ret == 0 && lstat(port->path, &st) == 0) {
		pthread_mutex_lock(&ports.lock);
		port->made = st;
		pthread_mutex_unlock(&ports.lock);
	}
	return ret;
}

int
port_add(const struct vfe_bdf *bdf, const char *path, enum port_role role,
	struct vfe_vdpa_error *err)
{
	struct port *port = calloc(1, sizeof(*port));
	int ret;

	if (port == NULL)
		return fail(err, VFE_VDPA_VF_ALLOC, -ENOMEM, "out of memory");
	port->bdf = *bdf;
	port->vid = -1;
	port->client = role_is_client(role);
	vfe_bdf_format(bdf, port->name);
	vfe_str_copy(port->path, sizeof(port->path), path);

	/* in the list first: the front-end may come before we are back from start */
	pthread_mutex_lock(&ports.lock);
	LIST_INSERT_HEAD(&ports.list, port, next);
	ports.nr++;
	pthread_mutex_unlock(&ports.lock);

	ret = port->client ? 0 : port_listen(port, err);
	if (ret < 0)
		port_unregister(port);
	else
		SVC_LOG(INFO, "%s: %s %s", port->name, port->client ? "connects to" : "listens on",
			port->path);

	/* from here on the main loop may free a removed port at any moment */
	pthread_mutex_lock(&ports.lock);
	port->removed = ret < 0;
	port_event_locked(port);
	pthread_mutex_unlock(&ports.lock);
	return ret;
}

int
port_remove(const struct vfe_bdf *bdf)
{
	struct port *port;

	pthread_mutex_lock(&ports.lock);
	port = port_find_locked(bdf);
	pthread_mutex_unlock(&ports.lock);
	if (port == NULL)
		return -ENOENT;

	port_unregister(port);
	pthread_mutex_lock(&ports.lock);
	port->removed = true;
	port_event_locked(port);
	pthread_mutex_unlock(&ports.lock);
	return 0;
}

int
port_info(const struct vfe_bdf *bdf, struct port_info *ret)
{
	struct port *port;

	*ret = (struct port_info){.role = ""};
	pthread_mutex_lock(&ports.lock);
	port = port_find_locked(bdf);
	if (port != NULL) {
		vfe_str_copy(ret->path, sizeof(ret->path), port->path);
		ret->role = port->client ? "client" : "server";
	}
	pthread_mutex_unlock(&ports.lock);
	return port != NULL ? 0 : -ENOENT;
}

/* --- main loop --- */

static void
port_free(void *ctx)
{
	struct port *port = ctx;

	pthread_mutex_lock(&ports.lock);
	LIST_REMOVE(port, next);
	if (port->event)
		STAILQ_REMOVE(&ports.events, port, port, event_next);
	ports.nr--;
	pthread_mutex_unlock(&ports.lock);
	free(port);
}

static void
port_settle(struct port *port, bool removed)
{
	struct retry_cfg cfg = {
		.loop = ports.cfg.loop,
		.jobs = ports.cfg.jobs,
		.watches = ports.cfg.watches,
		.path = port->path,
		.max_pause_ms = CONNECT_MAX_PAUSE_MS,
		.attempt = port_connect,
		.released = port_free,
		.ctx = port,
	};
	struct vfe_error err;

	if (removed) {
		if (port->retry != NULL)
			retry_destroy(port->retry);
		else
			port_free(port);
		return;
	}
	if (!port->client)
		return;
	if (port->retry == NULL && retry_create(&cfg, &port->retry, &err) < 0) {
		SVC_LOG(ERR, "%s: will not see when %s appears: %s", port->name, port->path,
			err.text);
		return;
	}
	retry_kick(port->retry);
}

static void
on_wake(struct ev_loop *loop, struct ev_async *w, int revents)
{
	struct port *port;
	bool removed;

	(void)loop;
	(void)w;
	(void)revents;
	for (;;) {
		pthread_mutex_lock(&ports.lock);
		port = STAILQ_FIRST(&ports.events);
		if (port != NULL) {
			STAILQ_REMOVE_HEAD(&ports.events, event_next);
			port->event = false;
			removed = port->removed;
		}
		pthread_mutex_unlock(&ports.lock);
		if (port == NULL)
			break;
		port_settle(port, removed);
	}
}

int
ports_init(const struct ports_cfg *cfg, struct vfe_error *err)
{
	(void)err;
	ports.cfg = *cfg;
	LIST_INIT(&ports.list);
	STAILQ_INIT(&ports.events);
	ev_async_init(&ports.wake, on_wake);
	ev_async_start(cfg->loop, &ports.wake);
	return 0;
}

void
ports_close(void)
{
	struct port *port, *next;

	for (port = LIST_FIRST(&ports.list); port != NULL; port = next) {
		next = LIST_NEXT(port, next);
		port_unregister(port);
		if (port->retry != NULL)
			retry_destroy(port->retry); /* no attempt runs any more: frees the port */
		else
			port_free(port);
	}
}

void
ports_fini(void)
{
	ports_close();
	ev_async_stop(ports.cfg.loop, &ports.wake);
}
