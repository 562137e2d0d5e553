/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The peer of vhost-migrate: librte_vhost and nothing else.
 *
 * It has one thread of its own, which waits for the end of the input; the library's thread takes
 * what is on the transmit rings when a device has become ready. So no polling thread competes for
 * a CPU with what is measured, and nothing is faster.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_vhost.h>

enum {
	NR_MBUFS = 1023,
	CACHE = 32,
	BURST = 32,
};

static struct rte_mempool *pool;

static int
on_ready(int vid)
{
	struct rte_mbuf *packets[BURST];
	uint16_t queue, n, queues = rte_vhost_get_vring_num(vid);

	for (queue = 1; queue < queues; queue = (uint16_t)(queue + 2)) {
		n = rte_vhost_dequeue_burst(vid, queue, pool, packets, BURST);
		rte_pktmbuf_free_bulk(packets, n);
	}
	return 0;
}

static void
on_gone(int vid)
{
	(void)vid;
}

static const struct rte_vhost_device_ops ops = {
	.new_device = on_ready,
	.destroy_device = on_gone,
};

static void
path_of(char *path, size_t size, const char *prefix, int i)
{
	snprintf(path, size, "%s%d", prefix, i);
}

static int
serve(const char *prefix, int vfs)
{
	char path[128];
	int i, started = 0, status = 1;

	for (i = 0; i < vfs; i++) {
		path_of(path, sizeof(path), prefix, i);
		if (rte_vhost_driver_register(path, 0) != 0)
			goto out;
		started = i + 1;
		if (rte_vhost_driver_callback_register(path, &ops) != 0 ||
			rte_vhost_driver_start(path) != 0)
			goto out;
	}
	printf("ready\n");
	fflush(stdout);
	while (getchar() != EOF)
		;
	status = 0;
out:
	if (status != 0)
		fprintf(stderr, "vhost-bare: %s: cannot serve it\n", path);
	for (i = 0; i < started; i++) {
		path_of(path, sizeof(path), prefix, i);
		rte_vhost_driver_unregister(path);
	}
	return status;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"prefix", required_argument, NULL, 'p'},
		{"vfs", required_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	const char *prefix = NULL;
	int c, used, vfs = 1, status = 1;

	used = rte_eal_init(argc, argv);
	if (used < 0)
		return 1;
	while ((c = getopt_long(argc - used, argv + used, "", options, NULL)) != -1) {
		if (c == 'p')
			prefix = optarg;
		else if (c == 'v')
			vfs = (int)strtol(optarg, NULL, 10);
	}
	if (prefix == NULL || vfs < 1) {
		fputs("usage: vhost-bare [EAL options] -- --prefix PATH [--vfs N]\n", stderr);
		goto out;
	}
	pool = rte_pktmbuf_pool_create(
		"packets", NR_MBUFS, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, (int)rte_socket_id());
	if (pool != NULL)
		status = serve(prefix, vfs);
out:
	rte_eal_cleanup();
	return status;
}
