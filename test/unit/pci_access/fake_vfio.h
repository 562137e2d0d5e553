/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: /dev/vfio and sysfs of a kernel that does what a test wants.
 *
 * The tree is a folder; open(), ioctl(), close() and write() are wrapped by the linker. Containers,
 * groups and functions are memory files, so that mmap(), pread() and dup() are the real ones.
 */

#ifndef FAKE_VFIO_H
#define FAKE_VFIO_H

#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfe_pci.h"

enum {
	FV_MAX_FUNCTIONS = 80,
	FV_MAX_CONTAINERS = 80,
	FV_MAX_MAPS = 16,
	FV_IRQS = 8,
	FV_REGION_SHIFT = 20, /* region i begins at i << 20 of the fd */
	FV_BAR0_SIZE = 0x4000,
	FV_BAR0_AREA = 0x1000, /* what may be mapped of BAR 0 */
	FV_BAR0_AREA_SIZE = 0x2000,
	FV_BAR2_SIZE = 0x8000, /* all may be mapped */
	FV_BAR4_SIZE = 0x100,  /* nothing may */
	FV_SOON_MS = 150,
};

struct fv_map {
	uint64_t iova;
	uint64_t size;
	uint64_t vaddr;
	uint32_t flags;
};

struct fv_container {
	uint64_t ino;
	unsigned int nr_groups;
	bool iommu;
	struct fv_map maps[FV_MAX_MAPS];
	unsigned int nr_maps;
};

struct fv_function {
	char name[16];
	unsigned int group;
	uint64_t ino; /* of the fd, 0 = closed */
	int mem;      /* a second fd of the same memory */
	int irq_fds[FV_IRQS];
	unsigned int irq_nr; /* vectors that are switched on, 0 = MSI-X is off */
	int err_fd;
	int req_fd;
	unsigned int opens;
	unsigned int resets; /* VFIO_DEVICE_RESET */
};

struct fv_group {
	unsigned int number;
	uint64_t ino; /* of the fd, 0 = closed */
	struct fv_container *container;
};

struct fake_vfio {
	char root[64];

	struct fv_function functions[FV_MAX_FUNCTIONS];
	unsigned int nr_functions;
	struct fv_group groups[FV_MAX_FUNCTIONS];
	unsigned int nr_groups;
	struct fv_container containers[FV_MAX_CONTAINERS];
	unsigned int nr_containers;

	/* what the kernel says */
	int api_version;
	bool no_type1;
	bool noiommu; /* it has that mode */
	bool not_viable;
	uint64_t pgsizes; /* 0 = does not tell */
	struct vfio_iova_range ranges[4];
	unsigned int nr_ranges; /* 0 = does not tell */
	const char *token;      /* that it wants; NULL = it knows of none */
	uint32_t device_flags;
	uint32_t irq_flags;
	uint32_t irq_count;
	unsigned int irq_room; /* vectors that it can give */
	uint64_t config_size;
	uint32_t sparse_areas; /* that it claims for BAR 0 */
	uint64_t bar0_offset;  /* of the fd */
	uint64_t bar0_size;
	struct vfio_region_sparse_mmap_area area; /* of BAR 0 */
	uint32_t ranges_claimed;                  /* more than it tells */
	uint32_t info_size;      /* that it claims for its answers about the IOMMU, 0 = right */
	bool other_cap;          /* something else than ranges */
	int write_numvfs_result; /* -errno, or 0 */

	/* the next @fail_times calls of this kind fail; a path or an ioctl */
	const char *fail_open;
	unsigned long fail_ioctl;
	uint32_t fail_index; /* of region or interrupt */
	unsigned int fail_after;
	unsigned int fail_times;
	int fail_errno;

	char log[8192]; /* what was done, one word each */
};

extern struct fake_vfio fv;
extern struct vfe_error fv_err;

/* An empty kernel with IOMMU; pci_root points at it. */
void fv_start(void);
void fv_stop(void);

/* A function that vfio-pci has, in group @group. */
struct fv_function *fv_add(const char *bdf, unsigned int group);

/* The group is in no-IOMMU mode. */
void fv_set_noiommu(unsigned int group);

/* Another driver for it, NULL = none. */
void fv_set_driver(const char *bdf, const char *driver);

/* Make files and links of the tree; @path is relative. */
void fv_file(const char *path, const char *content);
void fv_link(const char *path, const char *target);
void fv_remove(const char *path);
void fv_read(const char *path, char *dst, size_t size);

/* @n calls of @request (index @index, or -1) fail with @err, after @after good ones. */
void
fv_fail_ioctl(unsigned long request, uint32_t index, unsigned int after, unsigned int n, int err);
void fv_fail_open(const char *name, unsigned int n, int err);

/* --- what tests do --- */

int fv_next_fd(void);

/* Open a function within FV_SOON_MS. */
int fv_open(const char *bdf, struct vfe_pci_domain *domain, const char *token,
	struct vfe_pci_dev **ret);
struct vfe_pci_dev *fv_must_open(const char *bdf, struct vfe_pci_domain *domain);
struct vfe_pci_domain *fv_new_domain(void);

/* Map memory of this process that devices may read. */
int fv_map(struct vfe_pci_domain *d, uint64_t iova, uint64_t size);

#endif /* FAKE_VFIO_H */
