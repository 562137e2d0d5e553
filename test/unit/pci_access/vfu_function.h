/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: a PCI function behind a real vfio-user server, whose loop runs in a thread.
 */

#ifndef VFU_FUNCTION_H
#define VFU_FUNCTION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include <ev.h>

#include "vfe_vfio_user_server.h"
#include "vfe_wire_pci.h"

enum {
	FN_PAGE = 4096,
	FN_BAR0_SIZE = 4 * FN_PAGE, /* registers, by message */
	FN_BAR2_SIZE = 8 * FN_PAGE, /* doorbells: pages 0 to 3 mappable, io fds on 4 and 5 */
	FN_IRQS = 4,
	FN_MAX_MAPS = 8,
};

struct vfu_function {
	char dir[64];
	char path[128];
	struct ev_loop *loop;
	ev_async wake;
	pthread_t thread;
	struct vfe_vfu_server *server;
	struct vfe_vfu_server_cfg cfg; /* may be changed between prepare and start */
	struct vfe_vfu_server_area area;
	struct vfe_vfu_server_io_fd io_fds[2];
	atomic_bool stop;

	/* owned by the loop's thread while it runs */
	uint8_t config[VFE_PCIE_CFG_SIZE];
	uint8_t bar0[FN_BAR0_SIZE];
	int irq_fds[FN_IRQS];
	struct vfe_vfu_dma *maps[FN_MAX_MAPS];

	/* Registers of BAR 0, NULL = plain memory. Called on the loop's thread. */
	int (*bar0_read)(void *ctx, uint64_t off, void *buf, uint32_t len);
	int (*bar0_write)(void *ctx, uint64_t off, const void *buf, uint32_t len);
	void *bar0_ctx;

	int bar2_fd;
	uint8_t *bar2; /* the server's view of the mappable pages */

	/* counters that tests look at */
	atomic_uint nr_maps;
	atomic_uint resets;
	atomic_uint irq_sets;
	atomic_uint bar2_writes; /* by message */
	atomic_uint disconnects;
	atomic_int dma_map_result; /* what dma_map answers */
	atomic_bool hang;          /* register reads of BAR 0 stop the loop until cleared */
	atomic_uint hanging;       /* reads that did so */
};

/* Fill @fn with a PF-like function; nothing runs yet. */
void vfu_function_prepare(struct vfu_function *fn, const char *bdf);

/* Run the server in a thread. */
void vfu_function_start(struct vfu_function *fn);

/* Stop the server (clients see it hang up). The function can be started again. */
void vfu_function_stop(struct vfu_function *fn);

void vfu_function_fini(struct vfu_function *fn);

/* Wait until @counter is @value; fails the test after ten seconds. */
void vfu_function_wait(const atomic_uint *counter, unsigned int value);

#endif /* VFU_FUNCTION_H */
