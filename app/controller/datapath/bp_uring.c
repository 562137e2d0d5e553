/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Files through io_uring: one ring per queue, one entry of the kernel per visit.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

#include "bp.h"

/* Places of the two files of a disk in the table of a ring. */
enum { FILE_BUFFERED, FILE_DIRECT, NR_FILES };

int
bp_uring_probe(void)
{
	struct io_uring ring;
	int rc = io_uring_queue_init(1, &ring, 0);

	if (rc < 0)
		return rc;
	io_uring_queue_exit(&ring);
	return 0;
}

static int
uring_queue_open(struct bp_queue *bq, struct vfe_error *err)
{
	const struct bp_disk *disk = bq->port->disk;
	const int files[NR_FILES] = {disk->fd, disk->direct_fd};
	int rc;

	/* no request has more than one entry under way, so neither queue can run over */
	rc = io_uring_queue_init(bq->nr_slots, &bq->ring, IORING_SETUP_CLAMP);
	if (rc < 0)
		return vfe_error_set(err, rc, "no io_uring: %s", strerror(-rc));
	bq->has_ring = true;
	bq->cqes.fd = bq->ring.ring_fd;
	rc = io_uring_register_files(&bq->ring, files, disk->direct_fd >= 0 ? NR_FILES : 1);
	if (rc < 0) {
		vfe_error_set(err, rc, "cannot register the file: %s", strerror(-rc));
		goto err_exit_ring;
	}
	/* what the ring cannot do is done by threads */
	rc = disk->is_device ? bp_jobs_open(bq, err) : 0;
	if (rc == 0)
		return 0;

err_exit_ring:
	io_uring_queue_exit(&bq->ring);
	bq->has_ring = false;
	bq->cqes.fd = -1;
	return rc;
}

static void
uring_queue_close(struct bp_queue *bq)
{
	bp_jobs_close(bq);
	if (bq->has_ring)
		io_uring_queue_exit(&bq->ring);
	bq->has_ring = false;
	bq->cqes.fd = -1;
}

static void
prep_transfer(struct io_uring_sqe *sqe, const struct bp_slot *slot)
{
	int fd = bp_file_direct(slot) ? FILE_DIRECT : FILE_BUFFERED;
	const struct iovec *iov = slot->iov;

	if (slot->op == BP_READ && slot->nr_iov == 1)
		io_uring_prep_read(
			sqe, fd, iov->iov_base, (unsigned int)iov->iov_len, slot->offset);
	else if (slot->op == BP_READ)
		io_uring_prep_readv(sqe, fd, iov, slot->nr_iov, slot->offset);
	else if (slot->nr_iov == 1)
		io_uring_prep_write(
			sqe, fd, iov->iov_base, (unsigned int)iov->iov_len, slot->offset);
	else
		io_uring_prep_writev(sqe, fd, iov, slot->nr_iov, slot->offset);
	if (slot->dsync)
		sqe->rw_flags = RWF_DSYNC;
}

static void
uring_submit(struct bp_slot *slot)
{
	struct io_uring_sqe *sqe;

	if (bp_file_needs_thread(slot)) {
		bp_pool_submit(slot);
		return;
	}
	sqe = io_uring_get_sqe(&slot->bq->ring);
	if (vfe_unlikely(sqe == NULL)) {
		bp_slot_done(slot, -EBUSY);
		return;
	}
	switch (slot->op) {
	case BP_READ:
	case BP_WRITE:
		prep_transfer(sqe, slot);
		break;
	case BP_SYNC:
		io_uring_prep_fsync(sqe, FILE_BUFFERED, IORING_FSYNC_DATASYNC);
		break;
	default:
		if (slot->op == BP_ZERO && slot->zero == BP_ZERO_WRITE) {
			io_uring_prep_write(
				sqe, FILE_BUFFERED, bp_zeroes, bp_zero_len(slot), slot->offset);
			break;
		}
		io_uring_prep_fallocate(sqe, FILE_BUFFERED, bp_file_falloc_mode(slot),
			(off_t)slot->offset, (off_t)slot->len);
	}
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, slot);
}

static bool
uring_flush(struct bp_queue *bq)
{
	if (io_uring_sq_ready(&bq->ring) == 0)
		return false;
	/* short of memory or of room for completions: entries stay, and go with the next visit */
	(void)io_uring_submit(&bq->ring);
	return io_uring_sq_ready(&bq->ring) > 0;
}

static void
uring_reap(struct bp_queue *bq)
{
	struct io_uring_cqe *cqe;
	struct bp_slot *slot;
	int32_t result;

	/* each is seen before it is handled: handling may begin the next step */
	while (io_uring_peek_cqe(&bq->ring, &cqe) == 0 && cqe != NULL) {
		slot = io_uring_cqe_get_data(cqe);
		result = cqe->res;
		io_uring_cqe_seen(&bq->ring, cqe);
		bp_file_done(slot, result);
	}
	if (bq->jobs.fd >= 0)
		bp_pool_reap(bq);
}

const struct bp_disk_ops bp_ops_file_uring = {
	.open = bp_file_open,
	.close = bp_file_close,
	.resize = bp_file_resize,
	.queue_open = uring_queue_open,
	.queue_close = uring_queue_close,
	.submit = uring_submit,
	.flush = uring_flush,
	.reap = uring_reap,
};
