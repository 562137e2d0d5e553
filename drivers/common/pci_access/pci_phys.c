/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Physical addresses of memory, for functions in the no-IOMMU mode of VFIO.
 *
 * Nothing in that mode pins memory. A buffer that is registered with an io_uring is pinned, and
 * one small page of a huge page keeps all of it; no request is ever made of these rings. The pages
 * are looked up in a mapping that nobody else touches: one that was taken out of the file after it
 * was pinned is not in it any more, and no other takes its place there.
 */

#include "pci_phys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "pci_sysfs.h"

enum {
	SMALL_PAGE = 4096,
	PINS_PER_RING = 1 << 14, /* what the kernel allows */
};

/* An entry of /proc/self/pagemap. */
static const uint64_t PAGEMAP_PRESENT = UINT64_C(1) << 63;
static const uint64_t PAGEMAP_FRAME = (UINT64_C(1) << 55) - 1;

struct phys_range {
	uint64_t iova;
	uint64_t size;
	uint64_t page; /* bytes of a huge page */
	uint64_t skew; /* where in its first page the range begins */
	uint8_t *map;
	uint64_t nr_pages;
	uint64_t *pages; /* the address of each */
	int *rings;      /* that pin them */
	uint32_t nr_rings;
	struct vfe_error why; /* "" = the pages are there */
};

struct pci_phys {
	pthread_rwlock_t lock;      /* protects what follows; held for a lookup or a change of it */
	struct phys_range **ranges; /* sorted by iova */
	size_t nr_ranges;
};

struct pci_phys *
pci_phys_create(void)
{
	struct pci_phys *p = calloc(1, sizeof(*p));

	if (p != NULL)
		pthread_rwlock_init(&p->lock, NULL);
	return p;
}

/* --- pages --- */

/* As vfe_error_set(); glibc has no wrappers of these calls. */
static int
uring_error(struct vfe_error *err, const char *what)
{
	const char *hint = "";
	int rc = -errno;

	if (rc == -ENOSYS || rc == -EPERM)
		hint = "; io_uring is switched off (kernel.io_uring_disabled, or a filter of "
		       "system calls)";
	else if (rc == -EFAULT)
		hint = ": too few huge pages, or a file that is shorter";
	else if (rc == -ENOMEM)
		hint = ": too few huge pages, or the limit of locked memory (ulimit -l, "
		       "LimitMEMLOCK=)";
	return vfe_error_set(err, rc, "cannot %s: %s%s", what, strerror(-rc), hint);
}

/* A ring whose fd is above @above. */
static int
ring_create(int above, struct vfe_error *err)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(__NR_io_uring_setup, 1, &params);
	int higher;

	if (fd < 0)
		return uring_error(err, "make an io_uring that pins memory");
	if (fd > above)
		return fd;
	higher = fcntl(fd, F_DUPFD_CLOEXEC, above + 1);
	if (higher < 0)
		vfe_error_set(err, -errno, "no file descriptor to pin memory: %s", strerror(errno));
	vfe_close(&fd);
	return higher < 0 ? -EMFILE : higher;
}

/* Pin pages [@first, @first + @n), @n <= PINS_PER_RING. */
static int
pin_some(struct phys_range *r, uint64_t first, uint32_t n, int above, struct vfe_error *err)
{
	struct iovec *bufs = calloc(n, sizeof(*bufs));
	int *fd = &r->rings[r->nr_rings];
	uint32_t i;
	int rc;

	if (bufs == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory to pin pages");
	for (i = 0; i < n; i++) {
		bufs[i].iov_base = r->map + (first + i) * r->page;
		bufs[i].iov_len = SMALL_PAGE;
	}
	rc = *fd = ring_create(above, err);
	if (rc >= 0) {
		r->nr_rings++;
		rc = (int)syscall(__NR_io_uring_register, *fd,
			(unsigned int)IORING_REGISTER_BUFFERS, bufs, n);
		if (rc < 0)
			rc = uring_error(err, "pin its huge pages");
	}
	free(bufs);
	return rc < 0 ? rc : 0;
}

static int
pin_all(struct phys_range *r, int above, struct vfe_error *err)
{
	uint64_t first, n;
	int rc = 0;

	r->rings = calloc(r->nr_pages / PINS_PER_RING + 1, sizeof(*r->rings));
	if (r->rings == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory to pin pages");
	for (first = 0; rc == 0 && first < r->nr_pages; first += n) {
		n = r->nr_pages - first < PINS_PER_RING ? r->nr_pages - first : PINS_PER_RING;
		rc = pin_some(r, first, (uint32_t)n, above, err);
	}
	return rc;
}

static int
find_page(struct phys_range *r, int pagemap, uint64_t i, struct vfe_error *err)
{
	const uint64_t va = (uintptr_t)r->map + i * r->page;
	uint64_t entry;

	if (pread(pagemap, &entry, sizeof(entry), (off_t)(va / SMALL_PAGE * sizeof(entry))) !=
		(ssize_t)sizeof(entry))
		return vfe_error_set(err, -EIO, "the kernel does not tell where its pages are");
	if ((entry & PAGEMAP_PRESENT) == 0)
		return vfe_error_set(err, -EFAULT, "its owner has taken a page of it away");
	if ((entry & PAGEMAP_FRAME) == 0)
		return vfe_error_set(err, -EPERM,
			"the kernel does not tell physical addresses: the service needs "
			"CAP_SYS_ADMIN");
	r->pages[i] = (entry & PAGEMAP_FRAME) * SMALL_PAGE;
	return 0;
}

static int
find_all(struct phys_range *r, struct vfe_error *err)
{
	char path[PCI_PATH_SIZE];
	uint64_t i;
	int fd, rc;

	r->pages = calloc(r->nr_pages, sizeof(*r->pages));
	if (r->pages == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for the addresses of pages");
	rc = vfe_str_format(path, sizeof(path), "%s/proc/self/pagemap", pci_root);
	if (rc < 0)
		return rc;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return vfe_error_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
	for (i = 0; rc == 0 && i < r->nr_pages; i++)
		rc = find_page(r, fd, i, err);
	vfe_close(&fd);
	return rc;
}

/* --- ranges --- */

/* The mapping of our own; of huge pages only. */
static int
range_map(struct phys_range *r, const struct vfe_pci_dma *dma, struct vfe_error *err)
{
	struct statfs fs;
	uint64_t begin;

	if (fstatfs(dma->fd, &fs) < 0 || fs.f_type != HUGETLBFS_MAGIC || fs.f_bsize < SMALL_PAGE ||
		!vfe_is_pow2((uint64_t)fs.f_bsize))
		return vfe_error_set(err, -ENOTSUP,
			"it is not of huge pages; QEMU: memory-backend-memfd with hugetlb=on, or "
			"memory-backend-file on hugetlbfs");
	r->page = (uint64_t)fs.f_bsize;
	r->skew = dma->fd_offset & (r->page - 1);
	begin = dma->fd_offset - r->skew;
	r->nr_pages = vfe_align_up(r->skew + dma->size, r->page) / r->page;
	r->map = mmap(NULL, r->nr_pages * r->page, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_NORESERVE, dma->fd, (off_t)begin);
	if (r->map == MAP_FAILED) {
		r->map = NULL;
		return vfe_error_set(err, -errno, "cannot map it: %s", strerror(errno));
	}
	return 0;
}

static void
range_clear(struct phys_range *r)
{
	uint32_t i;

	for (i = 0; i < r->nr_rings; i++) {
		/* closing unpins as well, but some time later; this fails if nothing is pinned */
		syscall(__NR_io_uring_register, r->rings[i],
			(unsigned int)IORING_UNREGISTER_BUFFERS, NULL, 0);
		vfe_close(&r->rings[i]);
	}
	r->nr_rings = 0;
	if (r->map != NULL)
		munmap(r->map, r->nr_pages * r->page);
	r->map = NULL;
	free(r->rings);
	r->rings = NULL;
	free(r->pages);
	r->pages = NULL;
}

static void
range_free(struct phys_range *r)
{
	range_clear(r);
	free(r);
}

/* The first range that does not end before @iova; nr_ranges if there is none. */
static size_t
find_locked(const struct pci_phys *p, uint64_t iova)
{
	size_t low = 0, high = p->nr_ranges, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (p->ranges[mid]->iova + (p->ranges[mid]->size - 1) < iova)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The mapping does not overlap another: its domain has seen to that. */
static int
range_insert(struct pci_phys *p, struct phys_range *r)
{
	struct phys_range **more;
	size_t at;
	int rc = -ENOMEM;

	pthread_rwlock_wrlock(&p->lock);
	more = realloc(p->ranges, (p->nr_ranges + 1) * sizeof(*more));
	if (more != NULL) {
		p->ranges = more;
		at = find_locked(p, r->iova);
		memmove(&more[at + 1], &more[at], (p->nr_ranges - at) * sizeof(*more));
		more[at] = r;
		p->nr_ranges++;
		rc = 0;
	}
	pthread_rwlock_unlock(&p->lock);
	return rc;
}

int
pci_phys_map(struct pci_phys *p, const struct vfe_pci_dma *dma, int fd, struct vfe_error *err)
{
	struct phys_range *r = calloc(1, sizeof(*r));
	int rc;

	if (r == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a mapping");
	r->iova = dma->iova;
	r->size = dma->size;
	rc = range_map(r, dma, &r->why);
	if (rc == 0)
		rc = pin_all(r, fd, &r->why);
	if (rc == 0)
		rc = find_all(r, &r->why);
	if (rc < 0)
		range_clear(r);
	rc = range_insert(p, r);
	if (rc < 0) {
		range_free(r);
		return vfe_error_set(err, rc, "no memory for a mapping");
	}
	return 0;
}

int
pci_phys_unmap(struct pci_phys *p, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	struct phys_range *r = NULL;
	size_t at;

	pthread_rwlock_wrlock(&p->lock);
	at = find_locked(p, iova);
	if (at < p->nr_ranges && p->ranges[at]->iova == iova && p->ranges[at]->size == size) {
		r = p->ranges[at];
		p->nr_ranges--;
		memmove(&p->ranges[at], &p->ranges[at + 1],
			(p->nr_ranges - at) * sizeof(struct phys_range *));
	}
	pthread_rwlock_unlock(&p->lock);
	if (r == NULL)
		return vfe_error_set(
			err, -ENOENT, "no mapping of %#" PRIx64 " bytes at %#" PRIx64, size, iova);
	range_free(r);
	return 0;
}

/* The address of the byte at @iova, and how far on from there memory is in one piece. */
static void
range_addr(const struct phys_range *r, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len)
{
	uint64_t at = r->skew + (iova - r->iova);
	uint64_t i = at / r->page, left = r->size - (iova - r->iova);
	uint64_t piece = r->page - at % r->page;

	*ret_bus = r->pages[i] + at % r->page;
	for (; piece < len && i + 1 < r->nr_pages && r->pages[i + 1] == r->pages[i] + r->page; i++)
		piece += r->page;
	piece = piece < left ? piece : left;
	*ret_len = piece < len ? piece : len;
}

int
pci_phys_addr(struct pci_phys *p, uint64_t iova, uint64_t len, uint64_t *ret_bus, uint64_t *ret_len,
	struct vfe_error *err)
{
	const struct phys_range *r = NULL;
	int rc = 0;
	size_t at;

	pthread_rwlock_rdlock(&p->lock);
	at = find_locked(p, iova);
	if (at < p->nr_ranges && p->ranges[at]->iova <= iova)
		r = p->ranges[at];
	if (r == NULL || len == 0)
		rc = vfe_error_set(err, -EFAULT, "nothing is mapped at %#" PRIx64, iova);
	else if (r->why.text[0] != '\0')
		rc = vfe_error_set(err, -EFAULT,
			"the memory at %#" PRIx64 " is out of reach of a device without IOMMU: %s",
			r->iova, r->why.text);
	else
		range_addr(r, iova, len, ret_bus, ret_len);
	pthread_rwlock_unlock(&p->lock);
	return rc;
}

void
pci_phys_destroy(struct pci_phys *p)
{
	size_t i;

	if (p == NULL)
		return;
	for (i = 0; i < p->nr_ranges; i++)
		range_free(p->ranges[i]);
	free(p->ranges);
	pthread_rwlock_destroy(&p->lock);
	free(p);
}
