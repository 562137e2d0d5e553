/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The vfio-user server inside: its state, the table of DMA mappings, the dispatcher.
 */

#ifndef VFU_SERVER_PRIV_H
#define VFU_SERVER_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <ev.h>

#include "vfe_vfio_user_server.h"
#include "vfu_msg.h"

/* Mappings of the client, sorted by iova. Pointers, because the device keeps them. */
struct vfu_dma_table {
	struct vfu_dma_entry **entries;
	uint32_t n;
	uint32_t capacity;
	uint64_t bytes; /* mapped in all */
};

/* The one reply that the socket did not take at once; requests wait until it is gone. */
struct vfu_pending {
	uint8_t *data;
	uint32_t size;
	uint32_t sent;
	int *fds; /* duplicates of ours, go with the first byte */
	uint32_t nr_fds;
};

/* Owned by the loop's thread. */
struct vfe_vfu_server {
	struct vfe_vfu_server_cfg cfg; /* its path and name are not ours: see path */
	char *path;
	dev_t sock_dev; /* of the socket that we made, so that we remove no other */
	ino_t sock_ino;

	struct ev_loop *loop;
	ev_io accept_io;
	ev_timer accept_timer; /* runs while accept() pauses for lack of fds or memory */
	int listen_fd;

	int fd; /* of the client or -1 */
	ev_io read_io;
	ev_io write_io;
	ev_timer timer;                 /* the client owes us VERSION, or must read its replies */
	bool negotiated;                /* VERSION is done, ops->connected was called */
	bool busy;                      /* a message or a withdrawal is under way */
	bool leaving;                   /* hang up when it is over; why is in last_error */
	bool irq_used[VFE_VFU_NR_IRQS]; /* the device may hold eventfds of the index */
	struct vfu_caps peer;
	struct vfu_rx rx;
	struct vfu_pending pending;
	struct vfu_dma_table dma;
	struct vfe_error last_error;
};

/* What a handler answers. */
struct vfu_answer {
	uint8_t *body; /* malloc()ed or NULL; freed by the dispatcher */
	uint32_t size;
	int *fds; /* malloc()ed or NULL; the fds themselves stay the device's */
	uint32_t nr_fds;
};

/*
 * Check the complete message in server->rx and call its handler. Returns 0 (and *@ret is the
 * answer), -errno for an error reply with a text, or -EPROTO with *@ret_hang_up when the client
 * cannot be talked to.
 */
int vfu_server_handle(struct vfe_vfu_server *server, struct vfu_answer *ret, bool *ret_hang_up,
	struct vfe_error *err);

/* Withdraw all eventfds of @index from the device. 0 or what the device says. */
int vfu_server_irqs_disable(struct vfe_vfu_server *server, uint32_t index);

/*
 * DMA_MAP: check, map @fd, tell the device. The fd stays the caller's and is not needed after.
 * Returns 0, -EINVAL, -EEXIST, -ENOSPC, -ENOMEM, or what the device says.
 */
int vfu_dma_map(struct vfe_vfu_server *server, const struct vfe_wire_vfu_dma_map *map, int fd,
	struct vfe_error *err);

/* DMA_UNMAP of exactly one mapping. Returns 0 or -ENOENT. */
int
vfu_dma_unmap(struct vfe_vfu_server *server, uint64_t iova, uint64_t size, struct vfe_error *err);

/* Withdraw all mappings. */
void vfu_dma_unmap_all(struct vfe_vfu_server *server);

#endif /* VFU_SERVER_PRIV_H */
