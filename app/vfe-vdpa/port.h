/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Ports: the vhost-user socket of each VF.
 *
 * As server we listen and the front-end comes. As client QEMU listens, and we connect when its
 * socket appears, and again when the connection ends. Which one is said for each port, or else for
 * all of them at the start (--client). librte_vhost's own reconnecting is not used: its thread
 * looks at every waiting socket once a second for ever.
 *
 * port_add() and port_remove() run on the provisioning thread, port_info() on any.
 */

#ifndef PORT_H
#define PORT_H

#include <stdbool.h>

#include "jobs.h"
#include "vfe_base.h"
#include "vfe_bdf.h"
#include "vfe_vdpa.h"
#include "watch.h"

enum {
	PORT_PATH_SIZE = 108, /* of sockaddr_un */
	PORT_MAX = 1024,      /* sockets of librte_vhost 22.11 */
};

/* What we are on a socket. */
enum port_role {
	PORT_AS_STARTED, /* what ports_cfg says */
	PORT_SERVER,
	PORT_CLIENT,
};

struct ports_cfg {
	struct ev_loop *loop;
	struct jobs *jobs;
	struct watches *watches;
	bool client;        /* of ports that do not say */
	const char *prefix; /* of default socket paths; borrowed */
};

/* Once, on the main loop's thread. */
int ports_init(const struct ports_cfg *cfg, struct vfe_error *err);

/* Close all ports. On the main loop's thread, after the provisioning thread has ended. */
void ports_close(void);
void ports_fini(void);

/* The role that @text names, or -EINVAL: "server" or "client". NULL = PORT_AS_STARTED. */
int port_role_parse(const char *text, enum port_role *ret);

/*
 * Choose the socket path of @bdf: @path, or the default when NULL, and check that it can be used in
 * that @role. @ret has PORT_PATH_SIZE bytes. Returns 0 or -errno with number and text.
 */
int port_path_check(const struct vfe_bdf *bdf, const char *path, enum port_role role, char *ret,
	struct vfe_vdpa_error *err);

/* Open the socket @path of the VF, which the vDPA driver knows already. */
int port_add(const struct vfe_bdf *bdf, const char *path, enum port_role role,
	struct vfe_vdpa_error *err);

/* Disconnect the front-end and close the socket. -ENOENT when there is no such port. */
int port_remove(const struct vfe_bdf *bdf);

struct port_info {
	char path[PORT_PATH_SIZE]; /* "" = no port */
	const char *role;          /* "server", "client"; "" = no port */
};

/* Returns -ENOENT when there is no such port. */
int port_info(const struct vfe_bdf *bdf, struct port_info *ret);

#endif /* PORT_H */
