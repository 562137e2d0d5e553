/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Signalling eventfds that belong to a peer, without ever blocking.
 *
 * write() on an eventfd whose counter is full waits until its reader takes it, and whether
 * O_NONBLOCK is set is up to all who share the file, so a peer can stop whoever writes. The
 * completion of an asynchronous read (io_submit(2), IOCB_FLAG_RESFD) adds 1 inside the kernel,
 * which does not wait. The read is of a memory file of our own, and has ended when io_submit()
 * returns.
 */

#ifndef VFE_SIGNAL_H
#define VFE_SIGNAL_H

#include <stdbool.h>

#include "vfe_base.h"

/* Used by one thread at a time. */
struct vfe_signaller {
	int file;              /* what is read; -1 = no asynchronous input and output here */
	unsigned long context; /* aio_context_t */
};

/*
 * Never fails: where the kernel has no asynchronous input and output, or no room for another
 * context (fs.aio-max-nr), signals are written when poll() says that there is room, which leaves
 * the peer a moment to fill the counter in between.
 */
void vfe_signaller_init(struct vfe_signaller *signaller);
void vfe_signaller_fini(struct vfe_signaller *signaller);

/*
 * Add 1 to the eventfd @fd; a full counter stays as it is. Returns 0, -EAGAIN (not signalled, as
 * the counter is full), -EINVAL (not an eventfd) or -errno.
 */
int vfe_signal(struct vfe_signaller *signaller, int fd);

/*
 * Is @fd an eventfd? As vfe_fd_is_eventfd(), which walks through /proc and takes ten times as long:
 * a device can have hundreds. Does not signal it.
 */
bool vfe_signaller_takes(struct vfe_signaller *signaller, int fd);

/* Is @fd an eventfd? Anything else (a socket, a file of FUSE) could make us wait for its owner. */
bool vfe_fd_is_eventfd(int fd);

#endif /* VFE_SIGNAL_H */
