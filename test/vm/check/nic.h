/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A virtio-net driver that is just good enough to ping a gateway, on top of our PCI and virtio
 * layers. What does not work ends the program with a text.
 */

#ifndef NIC_H
#define NIC_H

#include <stdint.h>

#include "vfe_pci.h"
#include "vfe_virtio.h"

enum { NIC_RX = 0, NIC_TX = 1, NIC_QUEUES = 2, NIC_VECTORS = 3 };

struct nic_queue {
	uint16_t size;
	uint16_t avail;
	uint16_t used;
	struct vfe_wire_vring_desc *desc;
	struct vfe_wire_vring_avail *avail_ring;
	const struct vfe_wire_vring_used *used_ring;
	uint8_t *bufs; /* one of NIC_BUF_SIZE for each entry */
	uint64_t bufs_iova;
	struct vfe_pci_doorbell doorbell;
	int event_fd;
	uint64_t interrupts;
};

struct nic {
	struct vfe_pci_dev *pci; /* owned */
	struct vfe_dma_arena *arena;
	struct vfe_virtio_dev vdev;
	struct nic_queue q[NIC_QUEUES];
	void *rings;
	int config_fd;
	uint64_t rx_iova; /* where all packets go, 0 = into the arena; set before the start */
	uint8_t mac[6];
	uint8_t gateway[6];
};

/* End the program unless @ok, with what went wrong. */
void check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* End the program if @ret < 0, with the text of @err. */
void check_ret(int ret, const struct vfe_error *err, const char *what);

/* Reset, negotiate, set up rings in @arena and start. @pci is owned by the nic from then on. */
void nic_start(struct nic *nic, struct vfe_pci_dev *pci, struct vfe_dma_arena *arena);

/* Reset the function and forget the rings; it stays open and can be started again. */
void nic_stop(struct nic *nic);

/* Stop and close the function. */
void nic_close(struct nic *nic);

/* Ask for the gateway's address, then ping it @n times and compare the answers. */
void nic_ping(struct nic *nic, unsigned int n);

/* Have a packet come to rx_iova, and wait until the device has dealt with it in whatever way. */
void nic_receive_any(struct nic *nic);

/*
 * Have the device read a packet from @iova, which it may not, and wait until it has dealt with it:
 * a device may use the packet without having read it, or ask for a reset.
 */
void nic_send_from(struct nic *nic, uint64_t iova);

#endif /* NIC_H */
