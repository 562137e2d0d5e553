/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The seam: all that a driver sees of a PCI function, whatever transport is behind it.
 *
 * Transports: vfio-user (a socket) and kernel VFIO. Nothing above this header knows which.
 *
 * Calls are synchronous and bounded by the transport's deadline. A device that breaks its
 * transport (hangs up, does not answer, lies) is lost: every later call fails at once with
 * -ENODEV. Calls on one device may come from several threads; open, close, attach and detach of
 * one device come from one thread at a time.
 */

#ifndef VFE_PCI_H
#define VFE_PCI_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_bdf.h"

struct vfe_pci_dev;
struct vfe_pci_domain;
struct vfe_pci_ops; /* a transport; private */

/* --- opening --- */

/* A kernel function that somebody else has opened; all three are needed. */
struct vfe_pci_vfio_fds {
	int container;
	int group; /* in the container */
	int device;
};

struct vfe_pci_open_cfg {
	struct vfe_bdf bdf;
	const char *vfio_user_path; /* socket of the function; NULL = kernel function */
	uint32_t timeout_ms;        /* of one transport command; 0 = default */

	/*
	 * Of kernel functions. The token is a UUID that PF and VFs share, NULL = none. Given fds
	 * are duplicated and used as they are: the function is not reset, its mappings and
	 * interrupts stay, and it shares them with no other that is opened here.
	 */
	const char *vf_token;
	const struct vfe_pci_vfio_fds *vfio_fds; /* NULL = open it */

	/*
	 * Open it also if VFIO has it in no-IOMMU mode (see vfe_pci_is_physical()). Needs the
	 * privileges CAP_SYS_RAWIO and CAP_SYS_ADMIN, and memory of huge pages.
	 */
	bool allow_no_iommu;

	/*
	 * Attach the device to this domain as part of opening it, NULL = later or never. Kernel
	 * VFIO cannot move a function that is open to another domain, and gives one that is opened
	 * without a domain an address space of its own: name it here if it is known.
	 */
	struct vfe_pci_domain *domain;
};

/*
 * Open the function. *@ret is owned by the caller. Texts name the path and the remedy. The kernel
 * resets its functions on this occasion; a busy one is tried again until the timeout.
 * Returns 0, -ENOENT, -ECONNREFUSED, -EBUSY, -ENODEV (no driver or IOMMU), -EPERM (its IOMMU group
 * is not all ours), -EACCES (VF token), -ENOTSUP, -EPROTO, -ETIMEDOUT.
 */
int
vfe_pci_open(const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err);

/* Interrupts off, mappings gone, detached from its domain, closed. NULL is fine. */
void vfe_pci_close(struct vfe_pci_dev *dev);

/* "0000:af:04.5", for logs. */
const char *vfe_pci_name(const struct vfe_pci_dev *dev);

/* "vfio-user" or "vfio". */
const char *vfe_pci_transport(const struct vfe_pci_dev *dev);

/*
 * An fd to be watched for the events of vfe_pci_lost_events() (as of poll(2); nothing else, it may
 * be readable all the time): they come when the device is lost. -1 = none. Stays the device's.
 */
int vfe_pci_lost_fd(const struct vfe_pci_dev *dev);
uint32_t vfe_pci_lost_events(const struct vfe_pci_dev *dev);

/* 0 while the device is usable, else the reason (-errno). Any thread, never blocks. */
int vfe_pci_error(const struct vfe_pci_dev *dev);

/* Fail all calls from now on, also those in flight: for shutting down a device that hangs. */
void vfe_pci_abort(struct vfe_pci_dev *dev);

/* --- configuration space and BARs; little-endian bytes --- */

int vfe_pci_config_read(
	struct vfe_pci_dev *dev, uint32_t off, void *buf, uint32_t len, struct vfe_error *err);
int vfe_pci_config_write(struct vfe_pci_dev *dev, uint32_t off, const void *buf, uint32_t len,
	struct vfe_error *err);

/* Bytes of configuration space: 256 or 4096. */
uint32_t vfe_pci_config_size(const struct vfe_pci_dev *dev);

/* Size in bytes of @bar (0..5), 0 when it is not there. */
uint64_t vfe_pci_bar_size(const struct vfe_pci_dev *dev, unsigned int bar);

/*
 * Register access of natural width @len (1, 2, 4, 8), aligned, inside the BAR. Through a mapping
 * when the transport has one there, else by message.
 */
int vfe_pci_bar_read(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, void *buf,
	uint32_t len, struct vfe_error *err);
int vfe_pci_bar_write(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf,
	uint32_t len, struct vfe_error *err);

/* --- doorbells --- */

/*
 * How to ring a doorbell at a BAR offset without waiting, in order of preference: write @addr
 * (mapped device memory), write 1 (u64) to @event_fd, or post a message. Fields belong to the
 * device and stay valid until it is closed.
 */
struct vfe_pci_doorbell {
	struct vfe_pci_dev *dev;
	unsigned int bar;
	uint64_t off;
	void *addr;   /* or NULL */
	int event_fd; /* or -1 */

	/* for handing the page to a guest: mmap(map_fd, map_offset, map_size); -1 = not possible */
	int map_fd;
	uint64_t map_offset;
	uint64_t map_size;
};

/*
 * The doorbell at @off (even) of @bar. Its page can be mapped if map_fd >= 0. One of 4 bytes must
 * be aligned to 4. May ask the device (once per BAR).
 */
int vfe_pci_doorbell_get(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off,
	struct vfe_pci_doorbell *ret, struct vfe_error *err);

/*
 * Ring: write @value of @len bytes (2 or 4). Never waits. Any thread. Returns 0, -ENODEV, or
 * -EAGAIN (transport full; ring again later).
 */
int vfe_pci_doorbell_ring(const struct vfe_pci_doorbell *db, uint32_t value, uint32_t len);

/* --- interrupts and reset --- */

/* Number of MSI-X vectors. */
uint32_t vfe_pci_irq_count(const struct vfe_pci_dev *dev);

/*
 * Eventfds for vectors [@start, @start + @count); -1 withdraws. @count 0 withdraws all. The fds
 * stay the caller's.
 */
int vfe_pci_irq_set(struct vfe_pci_dev *dev, uint32_t start, uint32_t count, const int *fds,
	struct vfe_error *err);

/* Function level reset. */
int vfe_pci_reset(struct vfe_pci_dev *dev, struct vfe_error *err);

/* Bus mastering on (with memory decoding) or off, in the command register. */
int vfe_pci_set_master(struct vfe_pci_dev *dev, bool on, struct vfe_error *err);

/* --- memory: what devices may reach by DMA --- */

enum {
	VFE_PCI_DMA_READ = 1,  /* the device may read */
	VFE_PCI_DMA_WRITE = 2, /* the device may write */
};

struct vfe_pci_dma {
	uint64_t iova; /* page aligned, as everything here */
	uint64_t size; /* bytes */
	void *va; /* in this process, until unmapped; NULL = kernel VFIO maps the fd for itself */
	int fd;   /* vfio-user maps by fd and offset; duplicated, stays the caller's */
	uint64_t fd_offset;
	uint32_t prot; /* VFE_PCI_DMA_* */
};

/*
 * A set of mappings that its member devices share: all VFs of one VM, or one device alone. The
 * domain keeps its own table (with duplicated fds), so that a device that is attached later gets
 * all mappings. Thread safe.
 */
int vfe_pci_domain_create(struct vfe_pci_domain **ret, struct vfe_error *err);

/* No device may be attached any more. */
void vfe_pci_domain_destroy(struct vfe_pci_domain *domain);

/*
 * A device is in one domain at most. On failure nothing stays mapped for it. Detaching a kernel
 * function, or failing to attach it, releases it: it can then only be closed, and be opened anew.
 */
int vfe_pci_domain_attach(
	struct vfe_pci_domain *domain, struct vfe_pci_dev *dev, struct vfe_error *err);
void vfe_pci_domain_detach(struct vfe_pci_domain *domain, struct vfe_pci_dev *dev);

/*
 * Map for all members. -EEXIST when it overlaps a mapping. When a member fails it is lost (its
 * own failure, the mapping stands for the others); *@ret_lost counts those and may be NULL. When
 * the kernel refuses (reserved addresses, limits) nobody is lost and nothing is mapped.
 */
int vfe_pci_domain_map(struct vfe_pci_domain *domain, const struct vfe_pci_dma *dma,
	unsigned int *ret_lost, struct vfe_error *err);

/* Unmap exactly one mapping for all members. -ENOENT when there is none like that. */
int vfe_pci_domain_unmap(
	struct vfe_pci_domain *domain, uint64_t iova, uint64_t size, struct vfe_error *err);

/* --- addresses on the bus --- */

/*
 * Does the device reach memory by physical addresses, not by iova? That is no-IOMMU mode: nothing
 * translates what the device is told, or keeps it from other memory. Constant while it is open.
 */
bool vfe_pci_is_physical(const struct vfe_pci_dev *dev);

/*
 * The address by which the device, which must be attached, reaches [@iova, @iova + @len), which
 * its domain maps: *@ret_bus, good for *@ret_len bytes (1..@len; then ask again). Identity unless
 * the device is physical. -EFAULT = not mapped, or memory that the device cannot reach
 * (vfe_pci_dma_check() says why). Any thread, never blocks for long.
 */
int vfe_pci_dma_addr(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len);

/* The same for what must be in one piece: -EFAULT also when it is not. */
static inline int
vfe_pci_dma_addr_whole(
	const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, uint64_t *ret_bus)
{
	uint64_t good = 0;
	int rc = vfe_pci_dma_addr(dev, iova, len, ret_bus, &good);

	return rc == 0 && good < len ? -EFAULT : rc;
}

/*
 * Can the device reach all of [@iova, @iova + @len)? A physical one reaches only mappings of huge
 * pages: a mapping of other memory stands for the other members of its domain, and fails here,
 * with -EFAULT and the reason. Any thread.
 */
int vfe_pci_dma_check(
	const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, struct vfe_error *err);

/* --- discovery --- */

/*
 * Does the transport know @bdf? Looks for <dir>/<BDF>.sock unless sysfs has the function.
 * Fills @path (the socket) or makes it empty for a kernel function. Returns 0, -ENOENT with a
 * text that names both places, or -ENAMETOOLONG.
 */
int vfe_pci_find(const struct vfe_bdf *bdf, const char *vfio_user_dir, char *path, size_t size,
	struct vfe_error *err);

/* Does the kernel know the function, whatever driver it has? */
bool vfe_pci_is_kernel(const struct vfe_bdf *bdf);

/*
 * Does the function have a driver that lets us open it? 0, also when it is none of the kernel's,
 * or -EBUSY or -ENODEV with the remedy in the text.
 */
int vfe_pci_check_driver(const struct vfe_bdf *bdf, struct vfe_error *err);

/*
 * PF and number (0-based) of a VF of the kernel. -ENOENT when the kernel does not know the
 * function, -ENODEV when it is no VF.
 */
int vfe_pci_vf_parent(
	const struct vfe_bdf *vf, struct vfe_bdf *ret_pf, int *ret_index, struct vfe_error *err);

/*
 * Have the kernel create @n VFs of @pf, and bind them to vfio-pci before another driver sees them.
 * The PF must be bound to vfio-pci. Returns 1, 0 when it has @n VFs already, or an error that
 * leaves no VF behind: -ERANGE, -EBUSY (it has another number of them), -ENOENT (vfio-pci may not),
 * -ENOTSUP. Blocks for as long as the kernel takes.
 */
int vfe_pci_vfs_create(const struct vfe_bdf *pf, unsigned int n, struct vfe_error *err);

/* Remove all VFs of @pf. */
int vfe_pci_vfs_destroy(const struct vfe_bdf *pf, struct vfe_error *err);

/* SR-IOV view of a PF, from its extended capability; all zero when it has none. */
struct vfe_pci_sriov {
	uint16_t total_vfs;
	uint16_t num_vfs; /* 0 unless VF Enable is set */
	uint16_t first_vf_offset;
	uint16_t vf_stride;
	uint16_t vf_device_id;
};
int vfe_pci_sriov_get(struct vfe_pci_dev *pf, struct vfe_pci_sriov *ret, struct vfe_error *err);

/* VF number (0-based) of @vf below @pf, or -ENODEV when it is none of its VFs. */
int vfe_pci_sriov_vf_index(
	const struct vfe_bdf *pf, const struct vfe_pci_sriov *sriov, const struct vfe_bdf *vf);

#endif /* VFE_PCI_H */
