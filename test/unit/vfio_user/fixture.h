/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For the tests of vfio-user: a device behind a server whose loop runs in a thread, and raw
 * sockets that say whatever a test wants.
 */

#ifndef FIXTURE_H
#define FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ev.h>

#include "vfe_base.h"
#include "vfe_vfio_user_client.h"
#include "vfe_vfio_user_server.h"

enum {
	FIX_PAGE = 4096,
	FIX_BAR_SIZE = 16 * FIX_PAGE,   /* BAR 0: readable and writable registers */
	FIX_BIG_SIZE = 3 << 20,         /* BAR 2: larger than one transfer */
	FIX_DOORBELLS = 100 * FIX_PAGE, /* BAR 4: mappable in areas, with io fds */
	FIX_NR_AREAS = 80,
	FIX_NR_IO_FDS = 300,
	FIX_VECTORS = 600,
	FIX_MAX_MAPS = VFE_VFU_SERVER_MAX_DMA_MAPS,
	FIX_WAIT_MS = 10000, /* nothing may take longer */
};

struct device {
	char dir[32];
	char path[64];
	struct vfe_vfu_server_cfg cfg;
	struct vfe_vfu_server *server;

	struct ev_loop *loop;
	ev_async wake;
	pthread_t thread;
	pthread_mutex_t lock; /* protects all below */
	pthread_cond_t changed;
	void (*job)(struct device *dev, void *arg);
	void *job_arg;
	bool stop;

	uint8_t bar[FIX_BAR_SIZE];
	uint8_t *big;
	int doorbell_fd;
	struct vfe_vfu_server_area areas[FIX_NR_AREAS];
	struct vfe_vfu_server_io_fd io_fds[FIX_NR_IO_FDS];
	int irq_fds[FIX_VECTORS];
	uint32_t irq_sets;
	struct vfe_vfu_dma *maps[FIX_MAX_MAPS];
	uint32_t nr_maps;
	uint32_t writes;
	uint32_t resets;
	uint32_t connects;
	uint32_t disconnects;
	int refuse; /* what the next op returns, once */
	bool kick_out_on_write;
};

/* cmocka set-up and tear-down: a device with @timeout_ms of the server. */
struct device *device_start(uint32_t timeout_ms);
void device_stop(struct device *dev);

/* Run @job on the server's thread and wait for it. */
void device_run(struct device *dev, void (*job)(struct device *dev, void *arg), void *arg);

/* Wait until @n clients have connected, or gone. */
void device_wait_connects(struct device *dev, uint32_t n);
void device_wait_disconnects(struct device *dev, uint32_t n);

/* Wait until the server has a text for why it hung up, and check that it contains @part. */
void device_expect_error(struct device *dev, const char *part);

/* The lowest free fd number: equal before and after means that nothing leaked. */
int next_fd(void);

/* A memory file of @size bytes that may shrink. */
int open_memory(uint64_t size);

/*
 * Raw sockets
 */

struct raw_reply {
	struct vfe_wire_vfu_hdr hdr;
	uint8_t body[8192];
	uint32_t size;
	int fds[VFE_VFU_SERVER_MAX_MSG_FDS];
	uint32_t nr_fds;
};

int raw_connect(const char *path);

/* Send everything, or fail the test. @fds go with the first byte. */
void raw_send(int fd, const void *data, size_t len, const int *fds, uint32_t nr_fds);

/* One message with an honest size. */
void raw_command(int fd, uint16_t id, uint16_t command, uint32_t flags, const void *body,
	uint32_t size, const int *fds, uint32_t nr_fds);

/* Receive one message. Returns false when the peer has hung up. The caller closes the fds. */
bool raw_recv(int fd, struct raw_reply *ret);

/* Receive the reply to @id and @command and require @error, 0 for success. */
void raw_expect(int fd, uint16_t id, uint16_t command, uint32_t error, struct raw_reply *ret);

/* Require that the peer hangs up without sending anything more. */
void raw_expect_hang_up(int fd);

/* Connect and do VERSION with @max_fds. */
int raw_hello(const char *path, int max_fds);

/* A VERSION body with @json. Returns its size. */
uint32_t raw_version(uint8_t *body, size_t size, const char *json);

#endif /* FIXTURE_H */
