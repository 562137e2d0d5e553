/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Command line of the service: EAL's options, then "--", then our own.
 */

#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "vfe_base.h"

enum { OPTIONS_MAX_EAL_ARGS = 128 };

struct options {
	bool help;
	bool version;
	bool client; /* QEMU listens on the vhost sockets unless a VF says otherwise */
	const char *iface;
	const char *vfio_user_dir;
	const char *rpc_socket;
	const char *rpc_group;
	const char *dirty_mode; /* NULL = what suits best */

	/* argv for rte_eal_init(): the user's, and what a service without hugepages needs */
	int eal_argc;
	char *eal_argv[OPTIONS_MAX_EAL_ARGS + 1];
	char lcores[256];
};

/*
 * Read @argv; strings are borrowed from it. Returns 0, or -EINVAL with a text. EAL's own options
 * are checked by EAL later.
 */
int options_parse(struct options *opts, int argc, char **argv, struct vfe_error *err);

void options_usage(FILE *out);

#endif /* OPTIONS_H */
