/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user server: one device behind one UNIX socket, driven by a libev loop.
 *
 * The library speaks the protocol, checks every message, keeps the table of DMA mappings (mapped
 * into this process), and calls the device's ops. One client at a time; a second one is closed at
 * once. A client that breaks the protocol in framing is disconnected; one that asks for something
 * wrong gets an error reply. When the client goes, all mappings and interrupts are withdrawn and
 * ops->disconnected is called; the device keeps its state, as the specification asks for.
 * Everything, ops included, runs on the loop's thread and must not block.
 *
 * Bounds of what one client can take: VERSION must be done, and replies must be read, within
 * cfg->timeout_ms, else it is disconnected; while a reply waits to be read no command is taken;
 * one message (about 1 MiB and 253 fds) in each direction is in memory; mappings are limited in
 * number and to 4 TiB together.
 *
 * Source: QEMU docs/interop/vfio-user.rst.
 */

#ifndef VFE_VFIO_USER_SERVER_H
#define VFE_VFIO_USER_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_signal.h"
#include "vfe_wire_vfio_user.h"

enum {
	VFE_VFU_SERVER_TIMEOUT_MS = 5000, /* default of cfg->timeout_ms */
	VFE_VFU_SERVER_MAX_MSG_FDS = 253, /* SCM_MAX_FD of Linux */
	VFE_VFU_SERVER_MAX_DMA_MAPS = 4096,
	VFE_VFU_SERVER_MAX_DATA_XFER = 1048576,
	VFE_VFU_SERVER_MAX_IRQS = 2048,
};

struct ev_loop;
struct vfe_vfu_server;

struct vfe_vfu_server_area {
	uint64_t offset;
	uint64_t size;
};

/* An eventfd that stands for a write to [offset, offset + size) of a region. */
struct vfe_vfu_server_io_fd {
	uint64_t offset;
	uint64_t size;
	int fd; /* stays the device's */
};

struct vfe_vfu_server_region {
	uint64_t size;  /* bytes; 0 = region absent */
	uint32_t flags; /* VFE_VFU_REGION_F_READ, _WRITE; MMAP and CAPS follow from what is below */
	int mmap_fd;    /* -1 = not mappable; stays the device's */
	uint64_t mmap_offset;                    /* of the region's begin in @mmap_fd */
	const struct vfe_vfu_server_area *areas; /* mappable areas; none = the whole region */
	uint32_t nr_areas;
	const struct vfe_vfu_server_io_fd *io_fds;
	uint32_t nr_io_fds; /* the client is told those that fit one message, from the first on */
};

/* One DMA mapping of the client. Owned by the server, valid until ops->dma_unmap returns. */
struct vfe_vfu_dma {
	uint64_t iova;
	uint64_t size;
	uint32_t prot;       /* VFE_VFU_DMA_F_* */
	void *va;            /* where @iova is in this process */
	atomic_bool tripped; /* set when the file behind it has shrunk (vfe_sigbus.h) */

	/*
	 * Set by the device in ops->dma_unmap: the kernel still has requests with these addresses.
	 * They are never used again in this process; the client's memory is let go all the same.
	 */
	bool keep;
};

struct vfe_vfu_server_ops {
	/* Register access, inside the region's size. 0 or -errno, which the client gets. */
	int (*region_read)(void *ctx, uint32_t region, uint64_t offset, void *buf, uint32_t len);
	int (*region_write)(
		void *ctx, uint32_t region, uint64_t offset, const void *buf, uint32_t len);

	/* A mapping came (mapped already) or goes (unmapped after return: nobody may touch it). */
	int (*dma_map)(void *ctx, struct vfe_vfu_dma *dma);
	void (*dma_unmap)(void *ctx, struct vfe_vfu_dma *dma);

	/*
	 * Eventfds for vectors [@start, @start + @count) of @index, inside the count of that
	 * index; -1 = none. An fd that the device keeps it takes (vfe_fd_take()), the rest is
	 * closed by the library. The fds are eventfds and have been set nonblocking, but the
	 * client shares these flags and the counter: never rely on a write to succeed.
	 * On the wire (vfio-user DEVICE_SET_IRQS): DATA_EVENTFD with one fd per vector sets,
	 * DATA_EVENTFD without any fd withdraws [@start, @start + @count), DATA_NONE with count 0
	 * withdraws all. Masking and triggering by the client are not offered (ENOTSUP).
	 */
	int (*irq_set)(void *ctx, uint32_t index, uint32_t start, uint32_t count, int *fds);

	/* DEVICE_RESET. */
	int (*reset)(void *ctx);

	void (*connected)(void *ctx);    /* after version negotiation; may be NULL */
	void (*disconnected)(void *ctx); /* mappings are gone already; may be NULL */
};

struct vfe_vfu_server_cfg {
	const char *path;    /* an existing socket that nobody listens on is replaced */
	uint32_t mode;       /* permission bits of the socket, e.g. 0600 */
	const char *name;    /* for error texts, e.g. the BDF */
	uint32_t timeout_ms; /* for VERSION, and to read replies; 0 = the default */
	struct vfe_vfu_server_region regions[VFE_VFU_NR_REGIONS]; /* copied, arrays borrowed */
	uint32_t irq_counts[VFE_VFU_NR_IRQS];
	const struct vfe_vfu_server_ops *ops;
	void *ctx;
	struct vfe_signaller *signaller; /* to check eventfds with; NULL = none, which is slower */
};

/*
 * Listen on cfg->path. *@ret is owned by the caller.
 * Returns 0, -EADDRINUSE (another process listens there), or another -errno.
 */
int vfe_vfu_server_create(struct ev_loop *loop, const struct vfe_vfu_server_cfg *cfg,
	struct vfe_vfu_server **ret, struct vfe_error *err);

/* Hang up, withdraw mappings (ops are called), remove the socket, free. NULL is fine. */
void vfe_vfu_server_destroy(struct vfe_vfu_server *server);

/*
 * Hang up on the client, e.g. because its memory tripped; why is kept for last_error. May be
 * called from within ops: it then happens after the op. vfe_vfu_server_destroy() may not.
 */
void vfe_vfu_server_kick_out(struct vfe_vfu_server *server, const char *why);

bool vfe_vfu_server_connected(const struct vfe_vfu_server *server);

/* Why the last client was disconnected, "" when none was. */
const char *vfe_vfu_server_last_error(const struct vfe_vfu_server *server);

#endif /* VFE_VFIO_USER_SERVER_H */
