/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Ports: the vhost-user socket of each VF.
 *
 * As server we listen and the front-end comes. As client (--client) QEMU listens, and we connect
 * when its socket appears, and again when the connection ends. librte_vhost's own reconnecting is
 * not used: its thread looks at every waiting socket once a second for ever.
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

struct ports_cfg {
	struct ev_loop *loop;
	struct jobs *jobs;
	struct watches *watches;
	bool client;
	const char *prefix; /* of default socket paths; borrowed */
};

/* Once, on the main loop's thread. */
int ports_init(const struct ports_cfg *cfg, struct vfe_error *err);

/* Close all ports. On the main loop's thread, after the provisioning thread has ended. */
void ports_close(void);
void ports_fini(void);

/*
 * Choose the socket path of @bdf: @path, or the default when NULL, and check that it can be used.
 * @ret has PORT_PATH_SIZE bytes. Returns 0 or -errno with number and text.
 */
int
port_path_check(const struct vfe_bdf *bdf, const char *path, char *ret, struct vfe_vdpa_error *err);

/* Open the socket @path of the VF, which the vDPA driver knows already. */
int port_add(const struct vfe_bdf *bdf, const char *path, struct vfe_vdpa_error *err);

/* Disconnect the front-end and close the socket. -ENOENT when there is no such port. */
int port_remove(const struct vfe_bdf *bdf);

/* Fills @path (PORT_PATH_SIZE bytes). Returns -ENOENT when there is no such port. */
int port_info(const struct vfe_bdf *bdf, char *path);

#endif /* PORT_H */
