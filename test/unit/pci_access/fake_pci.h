/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: a transport of the PCI seam that lives in this process and does what a test wants.
 */

#ifndef FAKE_PCI_H
#define FAKE_PCI_H

#include <stdatomic.h>
#include <stdint.h>

#include "pci_transport.h"

enum {
	FAKE_MAX_MAPS = 16,
	FAKE_MAX_IRQS = 64,
	FAKE_BAR_SIZE = 0x10000,
};

struct fake_map {
	uint64_t iova;
	uint64_t size;
	uint8_t *va;
};

/* Calls come from the thread that uses the device, unless a test says otherwise. */
struct fake_pci {
	struct vfe_pci_dev pci;
	atomic_int error;
	uint8_t config[VFE_PCIE_CFG_SIZE];
	uint8_t bar[VFE_PCI_NR_BARS][FAKE_BAR_SIZE]; /* what accesses without a hook reach */

	/* hooks, NULL = plain memory; @ctx is theirs */
	void *ctx;
	int (*bar_read)(
		struct fake_pci *f, unsigned int bar, uint64_t off, void *buf, uint32_t len);
	int (*bar_write)(
		struct fake_pci *f, unsigned int bar, uint64_t off, const void *buf, uint32_t len);
	int (*doorbell)(struct fake_pci *f, unsigned int bar, uint64_t off, uint32_t value);

	struct fake_map maps[FAKE_MAX_MAPS];
	unsigned int nr_maps;
	int irq_fds[FAKE_MAX_IRQS]; /* borrowed */

	/* address spaces */
	bool share;         /* attach() joins a peer, as the kernel's containers do */
	int dma_map_result; /* of the next dma_map(), once */
	unsigned int dma_maps;
	unsigned int *clock;     /* dma_map_begin() is supported, and told when it came */
	unsigned int begun_at;   /* 0 = it did not */
	unsigned int mapped_at;  /* dma_map(), if there is a clock */
	struct fake_pci *victim; /* is lost at dma_map() */
	unsigned int dma_unmaps;
	unsigned int detaches;
	unsigned int resets;

	/* as pci.physical wants it: a constant away, but not in one piece where one begins */
	uint64_t bus_offset;
	uint64_t bus_piece;

	bool closed; /* set by close(); the struct stays the test's */
};

/* An open device without BARs that is usable at once; @f is the test's. */
void fake_pci_init(struct fake_pci *f, const char *bdf);

/* Release mappings that are left. */
void fake_pci_fini(struct fake_pci *f);

/* The memory of the driver at @iova as the device sees it, or NULL when it is not mapped. */
void *fake_pci_dma(const struct fake_pci *f, uint64_t iova, uint64_t len);

#endif /* FAKE_PCI_H */
