/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * dpdk-vfe-vdpa: the service between vhost-user front-ends and virtio VFs.
 */

#include "jobs.h"
#include "options.h"
#include "port.h"
#include "recover.h"
#include "rpc.h"
#include "svc_log.h"
#include "watch.h"

#include <ev.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <rte_eal.h>
#include <rte_version.h>

#include "app_notify.h"
#include "app_signals.h"
#include "vfe_sigbus.h"
#include "vfe_vdpa.h"

static void
on_stop(int signo, void *ctx)
{
	SVC_LOG(NOTICE, "%s: stopping", strsignal(signo));
	ev_break(ctx, EVBREAK_ALL);
}

/* Each VF takes a dozen fds. */
static void
fd_limit_raise(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

/* From here on everything runs; each step is undone in reverse order. */
static int
serve(struct ev_loop *loop, const struct options *opts, struct vfe_error *err)
{
	struct rpc_cfg rpc_cfg = {.loop = loop, .path = opts->rpc_socket, .group = opts->rpc_group};
	struct recover_cfg recover_cfg = {.loop = loop, .vfio_user_dir = opts->vfio_user_dir};
	struct ports_cfg ports_cfg = {.loop = loop, .client = opts->client, .prefix = opts->iface};
	struct vfe_vdpa_cfg vdpa_cfg = {
		.vfio_user_dir = opts->vfio_user_dir,
		.dirty_mode = opts->dirty_mode,
		.on_lost = recover_on_lost,
		.on_refreshed = rpc_on_refreshed,
	};
	struct watches *watches;
	struct jobs *jobs;
	struct rpc *rpc;
	int ret;

	ret = watches_create(loop, &watches, err);
	if (ret < 0)
		return ret;
	ret = jobs_create(loop, &jobs, err);
	if (ret < 0)
		goto err_destroy_watches;
	recover_cfg.jobs = ports_cfg.jobs = rpc_cfg.jobs = jobs;
	recover_cfg.watches = ports_cfg.watches = watches;
	ret = recover_init(&recover_cfg, err);
	if (ret < 0)
		goto err_destroy_jobs;
	ret = ports_init(&ports_cfg, err);
	if (ret < 0)
		goto err_fini_recover;
	ret = vfe_vdpa_init(&vdpa_cfg, err);
	if (ret < 0)
		goto err_fini_ports;
	ret = rpc_create(&rpc_cfg, &rpc, err);
	if (ret < 0)
		goto err_fini_vdpa;

	SVC_LOG(NOTICE, "ready: management on %s", opts->rpc_socket);
	app_notify_ready("serving");
	ev_run(loop, 0);
	app_notify_stopping();

	rpc_destroy(rpc);
err_fini_vdpa:
	jobs_stop(jobs); /* no provisioning from here on */
	ports_close();
	vfe_vdpa_fini();
err_fini_ports:
	ports_fini();
err_fini_recover:
	recover_fini();
err_destroy_jobs:
	jobs_destroy(jobs);
err_destroy_watches:
	watches_destroy(watches);
	return ret;
}

int
main(int argc, char **argv)
{
	struct app_signals signals;
	struct options opts;
	struct ev_loop *loop;
	struct vfe_error err;
	int ret;

	if (options_parse(&opts, argc, argv, &err) < 0) {
		fprintf(stderr, "dpdk-vfe-vdpa: %s; see --help\n", err.text);
		return 2;
	}
	if (opts.help) {
		options_usage(stdout);
		return 0;
	}
	if (opts.version) {
		printf("dpdk-vfe-vdpa %s (%s)\n", VFE_VERSION, rte_version());
		return 0;
	}

	fd_limit_raise();
	svc_log_open();
	vfe_sigbus_install();
	if (rte_eal_init(opts.eal_argc, opts.eal_argv) < 0) {
		fprintf(stderr, "dpdk-vfe-vdpa: EAL cannot start, see its messages above\n");
		return 1;
	}

	loop = ev_default_loop(EVFLAG_NOSIGMASK);
	app_signals_start(&signals, loop, on_stop, loop);

	ret = serve(loop, &opts, &err);
	if (ret < 0)
		SVC_LOG(ERR, "cannot start: %s", err.text);

	app_signals_stop(&signals);
	ev_loop_destroy(loop);
	rte_eal_cleanup();
	return ret < 0 ? 1 : 0;
}
