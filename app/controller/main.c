/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * virtio-net-controller: the software DPU.
 */

#include "app_log.h"
#include "app_notify.h"
#include "app_signals.h"
#include "config.h"
#include "dpu.h"
#include "vfe_sigbus.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char default_config[] = "/etc/vfe/virtnet.conf";

enum {
	EXIT_USAGE = 2,
	OPT_CHECK = 256,
	OPT_LOG_LEVEL,
};

struct options {
	const char *config;
	bool check;
};

static void
usage(FILE *out)
{
	fprintf(out,
		"Usage: virtio-net-controller [options]\n"
		"\n"
		"The software DPU: emulates virtio-net PFs with VFs, each behind a vfio-user\n"
		"socket <dir>/<PCI address>.sock. Runs in the foreground; SIGTERM and SIGINT end "
		"it.\n"
		"\n"
		"  -c, --config FILE      configuration (default %s)\n"
		"      --check            check the configuration and exit\n"
		"      --log-level LEVEL  err, warn, info (default) or debug\n"
		"  -h, --help             show this help\n"
		"  -V, --version          show the version\n",
		default_config);
}

/* Returns -1 to go on, else the exit status. */
static int
parse_options(int argc, char **argv, struct options *opts)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, OPT_CHECK},
		{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	enum app_log_level level;
	int c;

	while ((c = getopt_long(argc, argv, "c:hV", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			opts->config = optarg;
			break;
		case OPT_CHECK:
			opts->check = true;
			break;
		case OPT_LOG_LEVEL:
			if (app_log_level_parse(optarg, &level) < 0) {
				fprintf(stderr, "--log-level: unknown level %s\n", optarg);
				return EXIT_USAGE;
			}
			app_log_set_level(level);
			break;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		case 'V':
			printf("virtio-net-controller %s\n", VFE_VERSION);
			return EXIT_SUCCESS;
		default:
			fprintf(stderr, "Try 'virtio-net-controller --help'.\n");
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "unexpected argument %s\n", argv[optind]);
		return EXIT_USAGE;
	}
	return -1;
}

static unsigned int
count_vfs(const struct config *config)
{
	unsigned int i, n = 0;

	for (i = 0; i < config->nr_pfs; i++)
		n += config->pfs[i].nr_vfs;
	return n;
}

static int
run(const struct config *config)
{
	struct ev_loop *loop = ev_default_loop(EVFLAG_AUTO);
	struct app_signals signals;
	struct vfe_error err;
	struct dpu dpu;
	int rc;

	if (loop == NULL) {
		log_err("no event loop");
		return -ENOMEM;
	}
	rc = vfe_sigbus_install();
	if (rc < 0) {
		log_err("no SIGBUS handler: %s", strerror(-rc));
		return rc;
	}
	app_signals_start(&signals, loop, NULL, NULL);
	rc = dpu_create(&dpu, loop, config, &err);
	if (rc < 0) {
		log_err("%s", err.text);
		goto stop_signals;
	}
	log_info("%u PFs and %u VFs in %s, %u %s workers", config->nr_pfs, count_vfs(config),
		config->dir, config->workers, config->polling ? "polling" : "event driven");
	(void)app_notify_ready("running");
	ev_run(loop, 0);

	(void)app_notify_stopping();
	log_info("ending");
	dpu_destroy(&dpu);
stop_signals:
	app_signals_stop(&signals);
	ev_loop_destroy(loop);
	return rc;
}

int
main(int argc, char **argv)
{
	struct options opts = {.config = default_config};
	struct config config;
	struct vfe_error err;
	int rc = parse_options(argc, argv, &opts);

	if (rc >= 0)
		return rc;
	if (config_load(opts.config, &config, &err) < 0) {
		log_err("%s", err.text);
		return EXIT_FAILURE;
	}
	if (config.ignored[0] != '\0')
		log_info("%s: without meaning for the software DPU: %s", opts.config,
			config.ignored);
	rc = opts.check ? 0 : run(&config);
	config_fini(&config);
	return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
