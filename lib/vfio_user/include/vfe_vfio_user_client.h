/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user client: synchronous calls with deadlines to one device behind a UNIX socket.
 *
 * Any number of threads may call at the same time: commands are told apart by message id, and
 * whichever thread waits reads for all. No lock is held while waiting. The first time the server
 * breaks the protocol, hangs up, or lets a deadline pass, the client is dead: every call, also
 * those in flight, then fails at once with the same error. Every value of the server is checked.
 * Commands of the server (DMA_READ, DMA_WRITE) are answered with ENOTSUP: memory is shared by fd.
 *
 * Source: QEMU docs/interop/vfio-user.rst.
 */

#ifndef VFE_VFIO_USER_CLIENT_H
#define VFE_VFIO_USER_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_wire_vfio_user.h"

enum {
	VFE_VFU_CLIENT_TIMEOUT_MS = 5000, /* default deadline of one command */
	VFE_VFU_CLIENT_MAX_AREAS = 4096,  /* sparse areas or io fds of one region, at most */
};

struct vfe_vfu_client;

struct vfe_vfu_area {
	uint64_t offset; /* in the region, bytes */
	uint64_t size;   /* bytes */
};

struct vfe_vfu_region {
	uint32_t flags;    /* VFE_VFU_REGION_F_* */
	uint64_t size;     /* bytes */
	uint64_t offset;   /* of the region's begin in @fd */
	int fd;            /* for mmap, or -1; owned by the struct */
	uint32_t nr_areas; /* mappable areas; one over everything when the server names none */
	struct vfe_vfu_area *areas;
};

struct vfe_vfu_io_fd {
	uint64_t offset; /* in the region, bytes */
	uint64_t size;   /* bytes; 0 = any */
	int fd;          /* eventfd that stands for a write; owned by the struct */
};

/*
 * Connect to @path and negotiate the version. @timeout_ms bounds every single command, 0 means
 * VFE_VFU_CLIENT_TIMEOUT_MS. On success *@ret is owned by the caller.
 * Returns 0; -ENOENT or -ECONNREFUSED (nobody there); -ETIMEDOUT; -EPROTO (bad server);
 * -ECONNRESET (the server hung up: it has another client).
 */
int vfe_vfu_client_connect(
	const char *path, uint32_t timeout_ms, struct vfe_vfu_client **ret, struct vfe_error *err);

/* Hang up and free. No other thread may be inside a call. NULL is fine. */
void vfe_vfu_client_close(struct vfe_vfu_client *client);

/* Make the client dead with @neg_errno: calls in flight and later ones fail at once. Any thread. */
void vfe_vfu_client_abort(struct vfe_vfu_client *client, int neg_errno);

/* The socket, for watching POLLRDHUP only; stays owned by the client. */
int vfe_vfu_client_fd(const struct vfe_vfu_client *client);

/* 0 while the client lives, else the error that ended it (-ECONNRESET, -EPROTO, -ETIMEDOUT). */
int vfe_vfu_client_error(const struct vfe_vfu_client *client);

/* DEVICE_GET_INFO. */
int vfe_vfu_client_device_info(struct vfe_vfu_client *client, uint32_t *ret_flags,
	uint32_t *ret_regions, uint32_t *ret_irqs, struct vfe_error *err);

/* DEVICE_GET_REGION_INFO with capabilities. *@ret is released by vfe_vfu_region_fini(). */
int vfe_vfu_client_region_info(struct vfe_vfu_client *client, uint32_t index,
	struct vfe_vfu_region *ret, struct vfe_error *err);
void vfe_vfu_region_fini(struct vfe_vfu_region *region);

/*
 * DEVICE_GET_REGION_IO_FDS, ioeventfds only. *@ret is an array of *@ret_n that the caller frees
 * with vfe_vfu_io_fds_free(). Servers without io fds: 0 and *@ret_n = 0. What lies where in the
 * region is for the caller to check. A server that has more than fit one message tells the first
 * ones only, and ranges whose eventfd is for one value only are left out: the caller posts writes
 * to all others.
 */
int vfe_vfu_client_region_io_fds(struct vfe_vfu_client *client, uint32_t index,
	struct vfe_vfu_io_fd **ret, uint32_t *ret_n, struct vfe_error *err);
void vfe_vfu_io_fds_free(struct vfe_vfu_io_fd *fds, uint32_t n);

/* REGION_READ and REGION_WRITE of @len bytes, split by the negotiated max_data_xfer_size. */
int vfe_vfu_client_region_read(struct vfe_vfu_client *client, uint32_t region, uint64_t offset,
	void *buf, size_t len, struct vfe_error *err);
int vfe_vfu_client_region_write(struct vfe_vfu_client *client, uint32_t region, uint64_t offset,
	const void *buf, size_t len, struct vfe_error *err);

/*
 * REGION_WRITE of at most 64 bytes that asks for no reply and never waits: -EAGAIN when the
 * socket is full or another thread is sending.
 * For doorbells of servers that offer neither mapping nor io fd.
 */
int vfe_vfu_client_region_post(struct vfe_vfu_client *client, uint32_t region, uint64_t offset,
	const void *buf, size_t len);

/* DEVICE_GET_IRQ_INFO: number of vectors of @index. */
int vfe_vfu_client_irq_info(
	struct vfe_vfu_client *client, uint32_t index, uint32_t *ret_count, struct vfe_error *err);

/*
 * DEVICE_SET_IRQS with eventfds as trigger for vectors [@start, @start + @count); -1 disables a
 * vector. The fds stay the caller's, and the server sets them nonblocking. Sent as one message
 * per run of open or of missing fds, in slices that respect the negotiated max_msg_fds.
 * @count 0 disables all vectors of @index.
 */
int vfe_vfu_client_irq_set(struct vfe_vfu_client *client, uint32_t index, uint32_t start,
	uint32_t count, const int *fds, struct vfe_error *err);

/*
 * DMA_MAP: the device may access [@iova, @iova + @size), which is @fd at @fd_offset. All page
 * aligned. @prot is VFE_VFU_DMA_F_*. The fd stays the caller's.
 */
int vfe_vfu_client_dma_map(struct vfe_vfu_client *client, uint64_t iova, uint64_t size,
	uint32_t prot, int fd, uint64_t fd_offset, struct vfe_error *err);

/*
 * The same in two halves, so that several clients are at it at the same time. begin returns 0 with
 * *@ret for end, which must follow and waits until the client's deadline, counted from begin; or
 * -ENOTSUP, -ENOMEM, -EBUSY.
 */
struct vfe_vfu_call;
int vfe_vfu_client_dma_map_begin(struct vfe_vfu_client *client, uint64_t iova, uint64_t size,
	uint32_t prot, int fd, uint64_t fd_offset, struct vfe_vfu_call **ret,
	struct vfe_error *err);
int vfe_vfu_client_dma_map_end(
	struct vfe_vfu_client *client, struct vfe_vfu_call *call, struct vfe_error *err);

/* DMA_UNMAP of exactly one mapping. */
int vfe_vfu_client_dma_unmap(
	struct vfe_vfu_client *client, uint64_t iova, uint64_t size, struct vfe_error *err);

/* DEVICE_RESET. */
int vfe_vfu_client_reset(struct vfe_vfu_client *client, struct vfe_error *err);

#endif /* VFE_VFIO_USER_CLIENT_H */
