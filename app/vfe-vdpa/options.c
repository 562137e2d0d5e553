/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Command line of the service: EAL's options, then "--", then our own.
 */

#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <string.h>

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{"client", no_argument, NULL, 'c'},
	{"iface", required_argument, NULL, 'i'},
	{"vfio-user-dir", required_argument, NULL, 'd'},
	{"rpc-socket", required_argument, NULL, 's'},
	{"rpc-group", required_argument, NULL, 'g'},
	{"dirty-mode", required_argument, NULL, 'm'},
	{NULL, 0, NULL, 0},
};

void
options_usage(FILE *out)
{
	fputs("usage: dpdk-vfe-vdpa [EAL options] -- [options]\n"
	      "\n"
	      "Exposes virtio VFs as vhost-user sockets. VFs are added with vhostmgmt.\n"
	      "\n"
	      "  --client              QEMU listens on the vhost-user sockets (server=on), the\n"
	      "                        service connects and reconnects; without it the service\n"
	      "                        listens; each VF can be told otherwise when it is added\n"
	      "  --iface PREFIX        default vhost-user socket of a VF is PREFIX<BDF>\n"
	      "                        (default: /tmp/vf-)\n"
	      "  --vfio-user-dir DIR   where the sockets <BDF>.sock of vfio-user functions are\n"
	      "                        (default: /run/vfe/pci)\n"
	      "  --rpc-socket PATH     management socket (default: /run/vfe/vhostd.sock)\n"
	      "  --rpc-group GROUP     group that may use the management socket besides root\n"
	      "  --dirty-mode MODE     for tests: the way of tracking dirty pages in a migration:\n"
	      "                        direct, push-bitmap, pull-bitmap, push-bytemap,\n"
	      "                        pull-bytemap, relay, all (none); default: what suits\n"
	      "  --help                this text\n"
	      "  --version             version of the service and of DPDK\n"
	      "\n"
	      "EAL options are DPDK's, for instance --log-level=vfe.*,debug. Unless EAL options\n"
	      "say otherwise the service uses no hugepages, one lcore, and the file prefix\n"
	      "vfe-vhostd.\n",
		out);
}

/* Was one of the comma separated @names given, as "-x", "-xVALUE", "--name" or "--name=VALUE"? */
static bool
eal_option_given(int argc, char **argv, const char *const *names)
{
	int i;

	for (i = 1; i < argc; i++) {
		const char *const *n;

		for (n = names; *n != NULL; n++) {
			size_t len = strlen(*n);

			if (strncmp(argv[i], *n, len) != 0)
				continue;
			/* a short option's value may follow at once */
			if (len == 2 || argv[i][len] == '\0' || argv[i][len] == '=')
				return true;
		}
	}
	return false;
}

static int
eal_arg_add(struct options *opts, char *arg, struct vfe_error *err)
{
	if (opts->eal_argc == OPTIONS_MAX_EAL_ARGS)
		return vfe_error_set(
			err, -EINVAL, "more than %d EAL arguments", OPTIONS_MAX_EAL_ARGS);
	opts->eal_argv[opts->eal_argc++] = arg;
	opts->eal_argv[opts->eal_argc] = NULL;
	return 0;
}

/*
 * "0@(0,2,3)": one lcore that may run on every CPU of this process. EAL would otherwise start a
 * thread per CPU and pin the main thread to the first one.
 */
static int
lcores_format(char *dst, size_t size)
{
	size_t used = 0;
	cpu_set_t set;
	int cpu, ret;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return -errno;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		ret = vfe_str_format(dst + used, size - used, "%s%d", used == 0 ? "0@(" : ",", cpu);
		if (ret < 0)
			return ret;
		used += strlen(dst + used);
	}
	return used == 0 ? -ENODEV : vfe_str_format(dst + used, size - used, ")");
}

static int
eal_args_complete(struct options *opts, int user_argc, char **user_argv, struct vfe_error *err)
{
	static const char *const memory[] = {"--no-huge", "--huge-dir", "--huge-unlink",
		"--in-memory", "--socket-mem", "--legacy-mem", "--single-file-segments", "-m",
		NULL};
	static const char *const cores[] = {"-c", "-l", "-S", "--lcores", NULL};
	static const char *const prefix[] = {"--file-prefix", "--no-shconf", "--in-memory", NULL};
	static char no_huge[] = "--no-huge", lcores[] = "--lcores";
	static char file_prefix[] = "--file-prefix=vfe-vhostd";
	int i, ret = 0;

	for (i = 0; i < user_argc && ret == 0; i++)
		ret = eal_arg_add(opts, user_argv[i], err);
	if (ret == 0 && !eal_option_given(user_argc, user_argv, memory))
		ret = eal_arg_add(opts, no_huge, err);
	if (ret == 0 && !eal_option_given(user_argc, user_argv, prefix))
		ret = eal_arg_add(opts, file_prefix, err);
	if (ret == 0 && !eal_option_given(user_argc, user_argv, cores) &&
		lcores_format(opts->lcores, sizeof(opts->lcores)) == 0) {
		ret = eal_arg_add(opts, lcores, err);
		if (ret == 0)
			ret = eal_arg_add(opts, opts->lcores, err);
	}
	return ret;
}

static int
own_option_set(struct options *opts, int c, const char *arg)
{
	switch (c) {
	case 'h':
		opts->help = true;
		return 0;
	case 'V':
		opts->version = true;
		return 0;
	case 'c':
		opts->client = true;
		return 0;
	case 'i':
		opts->iface = arg;
		return 0;
	case 'd':
		opts->vfio_user_dir = arg;
		return 0;
	case 's':
		opts->rpc_socket = arg;
		return 0;
	case 'g':
		opts->rpc_group = arg;
		return 0;
	case 'm':
		opts->dirty_mode = arg;
		return 0;
	default:
		return -EINVAL;
	}
}

static int
own_options_parse(struct options *opts, int argc, char **argv, struct vfe_error *err)
{
	int c;

	optind = 0; /* a new scan, also in tests */
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:h", long_options, NULL)) != -1) {
		if (c == ':')
			return vfe_error_set(
				err, -EINVAL, "option %s wants a value", argv[optind - 1]);
		if (own_option_set(opts, c, optarg) < 0)
			return vfe_error_set(err, -EINVAL, "unknown option %s", argv[optind - 1]);
	}
	if (optind < argc)
		return vfe_error_set(err, -EINVAL, "unexpected argument %s", argv[optind]);
	if (opts->iface[0] != '/' || opts->vfio_user_dir[0] != '/' || opts->rpc_socket[0] != '/')
		return vfe_error_set(err, -EINVAL,
			"--iface, --vfio-user-dir and --rpc-socket want absolute paths");
	return 0;
}

int
options_parse(struct options *opts, int argc, char **argv, struct vfe_error *err)
{
	char *own_argv[OPTIONS_MAX_EAL_ARGS + 1] = {argv[0]};
	int user_argc, own_argc = 1;
	int i;

	*opts = (struct options){
		.iface = "/tmp/vf-",
		.vfio_user_dir = "/run/vfe/pci",
		.rpc_socket = "/run/vfe/vhostd.sock",
	};

	for (user_argc = 1; user_argc < argc && strcmp(argv[user_argc], "--") != 0; user_argc++) {
		if (strcmp(argv[user_argc], "--help") == 0 || strcmp(argv[user_argc], "-h") == 0)
			opts->help = true;
		if (strcmp(argv[user_argc], "--version") == 0)
			opts->version = true;
	}
	for (i = user_argc + 1; i < argc; i++) {
		if (own_argc == OPTIONS_MAX_EAL_ARGS)
			return vfe_error_set(err, -EINVAL, "too many arguments");
		own_argv[own_argc++] = argv[i];
	}
	if (own_options_parse(opts, own_argc, own_argv, err) < 0)
		return -EINVAL;
	return eal_args_complete(opts, user_argc, argv, err);
}
