/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What both ends of vfio-user share: the table of messages, framing on the socket, VERSION.
 */

#ifndef VFU_MSG_H
#define VFU_MSG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vfe_base.h"
#include "vfe_wire_vfio_user.h"

enum {
	VFU_MAX_FDS = 253, /* SCM_MAX_FD of Linux: what one sendmsg() can carry */
	VFU_MAX_DATA_XFER = VFE_VFU_DEFAULT_MAX_DATA_XFER,
	VFU_MAX_BODY = VFU_MAX_DATA_XFER + (int)sizeof(struct vfe_wire_vfu_region_rw),
	VFU_MAX_AREAS = 4096,
	VFU_MAX_VECTORS = 2048, /* MSI-X, PCIe 6.0 section 7.7.2 */
	VFU_PAGE_SIZE = 4096,   /* granularity of DMA_MAP and of mappable areas */
};

/* Legal sizes of a body in bytes, and how many fds may come with it. */
struct vfu_shape {
	uint32_t min;
	uint32_t max;
	uint32_t max_fds;
};

struct vfu_msg {
	const char *name;
	struct vfu_shape command;
	struct vfu_shape reply;
};

/* The row of @command, or NULL when there is no such command. */
const struct vfu_msg *vfu_msg_get(uint32_t command);

/* Its name for texts; "command" for unknown ones. */
const char *vfu_msg_name(uint32_t command);

/* Does a body of @size bytes with @nr_fds fds have the shape? 0 or -EINVAL with a text. */
int vfu_shape_check(const struct vfu_shape *shape, const char *name, uint32_t size, uint32_t nr_fds,
	struct vfe_error *err);

/* The message that is being received: header, body and the fds that came with any part of it. */
struct vfu_rx {
	struct vfe_wire_vfu_hdr hdr;
	uint32_t hdr_got;
	uint8_t *body; /* malloc()ed, NULL when empty */
	uint32_t body_size;
	uint32_t body_got;
	int *fds; /* malloc()ed, NULL when none came */
	uint32_t nr_fds;
};

/*
 * Read from the nonblocking @fd what there is of one message, never beyond its end, so that fds
 * stay with the message that they came with.
 * Returns 1 when the message is complete (take what is needed, then vfu_rx_reset()), 0 when more
 * must come, -ECONNRESET when the peer has hung up, -EPROTO for a bad size or bad fds, -errno.
 */
int vfu_rx_read(struct vfu_rx *rx, int fd, struct vfe_error *err);

/* Free the body, close the fds that nobody took, be ready for the next message. */
void vfu_rx_reset(struct vfu_rx *rx);

/*
 * One nonblocking sendmsg() of @iov with @fds, which go with the first byte. Returns the number of
 * bytes sent (possibly not all), -EAGAIN, or another -errno; no SIGPIPE.
 */
ssize_t vfu_send(int fd, struct iovec *iov, uint32_t nr_iov, const int *fds, uint32_t nr_fds);

/* What one end can do; both exchange it in VERSION. */
struct vfu_caps {
	uint16_t major;
	uint16_t minor;
	bool has_max_fds;  /* the peer named the next value itself */
	uint32_t max_fds;  /* that it can receive in one message; at most VFU_MAX_FDS here */
	uint32_t max_xfer; /* bytes of data in one message; at most VFU_MAX_DATA_XFER here */
	uint32_t max_dma_maps;
};

/* What this library can do. */
void vfu_caps_own(struct vfu_caps *caps);

/*
 * Parse the body of VERSION, command or reply. Limits that are larger than ours are cut to ours,
 * those that are not given get the default of the specification.
 * Returns 0 or -EINVAL with a text.
 */
int vfu_caps_parse(const uint8_t *body, uint32_t size, struct vfu_caps *ret, struct vfe_error *err);

/* Encode the body of VERSION; *@ret_body is freed by the caller. Returns 0 or -ENOMEM. */
int vfu_caps_format(const struct vfu_caps *caps, uint8_t **ret_body, uint32_t *ret_size);

#endif /* VFU_MSG_H */
