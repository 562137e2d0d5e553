/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Rings, packets and interrupts of the small virtio-net driver of the checks.
 */

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nic.h"
#include "vfe_wire_net.h"

enum {
	BUF_SIZE = 2048,
	QUEUE_MAX = 64,
	TIMEOUT_MS = 10000,
	CONFIG_VECTOR = 0,

	ETH_SIZE = 14,
	ARP_SIZE = 28,
	IP_SIZE = 20,
	ICMP_SIZE = 8,
	PING_DATA = 1000,
	PING_ID = 0x7666,

	ETHERTYPE_IP = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	IPPROTO_IS_ICMP = 1,
	ICMP_REQUEST = 8,
	ICMP_REPLY = 0,
};

static const uint8_t own_ip[4] = {10, 0, 2, 15};
static const uint8_t gateway_ip[4] = {10, 0, 2, 2};

void
check(bool ok, const char *fmt, ...)
{
	va_list ap;

	if (ok)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

void
check_ret(int ret, const struct vfe_error *err, const char *what)
{
	check(ret >= 0, "%s: %s (%d)", what, err->text, ret);
}

/* --- rings --- */

static void
queue_start(struct nic *nic, uint16_t qid, uint8_t *mem, uint64_t iova)
{
	struct nic_queue *q = &nic->q[qid];
	struct vfe_virtio_queue_info info;
	struct vfe_virtio_queue_cfg cfg;
	struct vfe_error err;
	uint64_t avail_off, used_off;

	check_ret(vfe_virtio_queue_info(&nic->vdev, qid, &info, &err), &err, "queue info");
	check(info.size >= 2, "queue %u has size %u", qid, info.size);
	q->size = info.size < QUEUE_MAX ? info.size : QUEUE_MAX;
	q->avail = 0;
	q->used = 0;
	avail_off = vfe_vring_desc_bytes(q->size);
	used_off = vfe_align_up(avail_off + vfe_vring_avail_bytes(q->size), 64);
	q->desc = (void *)mem;
	q->avail_ring = (void *)(mem + avail_off);
	q->used_ring = (void *)(mem + used_off);
	cfg = (struct vfe_virtio_queue_cfg){
		.size = q->size,
		.msix_vector = (uint16_t)(qid + 1),
		.desc = iova,
		.driver = iova + avail_off,
		.device = iova + used_off,
	};
	check_ret(vfe_virtio_queue_enable(&nic->vdev, qid, &cfg, &err), &err, "queue enable");
	check_ret(vfe_virtio_doorbell_get(&nic->vdev, qid, info.notify_off, &q->doorbell, &err),
		&err, "doorbell");
	check(q->doorbell.addr != NULL, "the doorbell of queue %u is not mapped", qid);
}

/* Offer one buffer to the device. */
static void
queue_offer(struct nic_queue *q, uint64_t iova, uint32_t len, uint16_t flags)
{
	uint16_t slot = q->avail % q->size;

	q->desc[slot] = (struct vfe_wire_vring_desc){
		.addr = htole64(iova),
		.len = htole32(len),
		.flags = htole16(flags),
	};
	q->avail_ring->ring[slot] = htole16(slot);
	q->avail++;
	__atomic_store_n(&q->avail_ring->idx, htole16(q->avail), __ATOMIC_RELEASE);
}

static void
queue_ring(struct nic_queue *q, uint16_t qid)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	check(vfe_pci_doorbell_ring(&q->doorbell, qid, sizeof(qid)) == 0, "doorbell %u", qid);
}

static bool
queue_has_used(const struct nic_queue *q)
{
	return le16toh(__atomic_load_n(&q->used_ring->idx, __ATOMIC_ACQUIRE)) != q->used;
}

/* Wait for an interrupt; returns false when none came. */
static bool
event_wait(int fd, uint64_t *count, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t n;

	if (poll(&p, 1, timeout_ms) != 1)
		return false;
	check(read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n), "read of an eventfd");
	*count += n;
	return true;
}

/* The entry that the device has used next, after waiting for it by interrupts. */
static const struct vfe_wire_vring_used_elem *
queue_wait(struct nic_queue *q, const char *what)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(TIMEOUT_MS);
	const struct vfe_wire_vring_used_elem *elem;

	while (!queue_has_used(q))
		check(event_wait(q->event_fd, &q->interrupts, vfe_deadline_left_ms(deadline)),
			"no interrupt: %s", what);
	elem = &q->used_ring->ring[q->used % q->size];
	q->used++;
	check(le32toh(elem->id) < q->size, "%s: used id %u", what, le32toh(elem->id));
	return elem;
}

/* --- life of a function --- */

static void
set_interrupts(struct nic *nic)
{
	const int fds[NIC_VECTORS] = {
		nic->config_fd, nic->q[NIC_RX].event_fd, nic->q[NIC_TX].event_fd};
	struct vfe_error err;

	/* in two calls: the kernel has to add vectors to those that are there */
	check_ret(vfe_pci_irq_set(nic->pci, CONFIG_VECTOR, 1, fds, &err), &err, "first vector");
	check_ret(vfe_pci_irq_set(nic->pci, 1, NIC_VECTORS - 1, fds + 1, &err), &err, "vectors");
}

static void
negotiate(struct nic *nic)
{
	const uint64_t features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
				  VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) | VFE_BIT(VFE_NET_F_MAC);
	struct vfe_error err;

	check_ret(vfe_virtio_reset(&nic->vdev, vfe_deadline_in_ms(TIMEOUT_MS), NULL, &err), &err,
		"reset");
	check_ret(vfe_virtio_status_add(
			  &nic->vdev, VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER, &err),
		&err, "status");
	check_ret(vfe_virtio_features_set(&nic->vdev, features, &err), &err, "features");
	check_ret(vfe_virtio_config_read(&nic->vdev, 0, nic->mac, sizeof(nic->mac), &err), &err,
		"MAC address");
}

void
nic_start(struct nic *nic, struct vfe_pci_dev *pci, struct vfe_dma_arena *arena)
{
	const uint64_t page = 4096;
	struct vfe_error err;
	uint64_t iova;
	uint16_t i;

	nic->pci = pci;
	nic->arena = arena;
	check_ret(vfe_virtio_init(&nic->vdev, pci, &err), &err, "virtio");
	negotiate(nic);
	check_ret(vfe_pci_set_master(pci, true, &err), &err, "bus master");

	nic->config_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (i = 0; i < NIC_QUEUES; i++) {
		nic->q[i].event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		nic->q[i].interrupts = 0;
	}
	set_interrupts(nic);
	check_ret(vfe_virtio_config_vector_set(&nic->vdev, CONFIG_VECTOR, &err), &err, "vector 0");

	nic->rings = vfe_dma_arena_alloc(arena, NIC_QUEUES * page, page, &iova);
	check(nic->rings != NULL, "the arena has no room for rings");
	for (i = 0; i < NIC_QUEUES; i++)
		queue_start(nic, i, (uint8_t *)nic->rings + i * page, iova + i * page);
	for (i = 0; i < NIC_QUEUES; i++) {
		nic->q[i].bufs = vfe_dma_arena_alloc(
			arena, (uint64_t)nic->q[i].size * BUF_SIZE, page, &nic->q[i].bufs_iova);
		check(nic->q[i].bufs != NULL, "the arena has no room for buffers");
	}
	check_ret(
		vfe_virtio_status_add(&nic->vdev, VFE_VIRTIO_S_DRIVER_OK, &err), &err, "DRIVER_OK");
	for (i = 0; i < nic->q[NIC_RX].size; i++) {
		iova = nic->q[NIC_RX].bufs_iova + (uint64_t)i * BUF_SIZE;
		queue_offer(&nic->q[NIC_RX], nic->rx_iova != 0 ? nic->rx_iova : iova, BUF_SIZE,
			VFE_VRING_DESC_F_WRITE);
	}
	queue_ring(&nic->q[NIC_RX], NIC_RX);
}

void
nic_stop(struct nic *nic)
{
	struct vfe_error err;
	int i;

	check_ret(vfe_virtio_reset(&nic->vdev, vfe_deadline_in_ms(TIMEOUT_MS), NULL, &err), &err,
		"reset");
	check_ret(vfe_pci_irq_set(nic->pci, 0, 0, NULL, &err), &err, "no vectors");
	for (i = 0; i < NIC_QUEUES; i++) {
		vfe_dma_arena_free(nic->arena, nic->q[i].bufs);
		vfe_close(&nic->q[i].event_fd);
	}
	vfe_dma_arena_free(nic->arena, nic->rings);
	vfe_close(&nic->config_fd);
}

void
nic_close(struct nic *nic)
{
	nic_stop(nic);
	vfe_pci_close(nic->pci);
	nic->pci = NULL;
}

/* --- packets --- */

static void
put16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned int
get16(const uint8_t *p)
{
	return (unsigned int)p[0] << 8 | p[1];
}

static unsigned int
ip_checksum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i + 1 < len; i += 2)
		sum += get16(p + i);
	while (sum > 0xffff)
		sum = (sum >> 16) + (sum & 0xffff);
	return ~sum & 0xffff;
}

/* A frame of ours in the transmit buffer, behind an empty virtio-net header. */
static uint8_t *
frame_begin(struct nic *nic, const uint8_t to[6], unsigned int ethertype)
{
	struct nic_queue *q = &nic->q[NIC_TX];
	uint8_t *buf = q->bufs + (size_t)(q->avail % q->size) * BUF_SIZE;
	uint8_t *frame = buf + sizeof(struct vfe_wire_net_hdr);

	memset(buf, 0, BUF_SIZE);
	memcpy(frame, to, 6);
	memcpy(frame + 6, nic->mac, 6);
	put16(frame + 12, ethertype);
	return frame;
}

static void
frame_send(struct nic *nic, uint32_t len)
{
	struct nic_queue *q = &nic->q[NIC_TX];
	uint64_t iova = q->bufs_iova + (uint64_t)(q->avail % q->size) * BUF_SIZE;

	queue_offer(q, iova, (uint32_t)sizeof(struct vfe_wire_net_hdr) + len, 0);
	queue_ring(q, NIC_TX);
	queue_wait(q, "sent packet");
}

/* A copy of the next frame that came in. */
static uint32_t
frame_receive(struct nic *nic, uint8_t frame[BUF_SIZE], const char *what)
{
	struct nic_queue *q = &nic->q[NIC_RX];
	const struct vfe_wire_vring_used_elem *elem = queue_wait(q, what);
	uint32_t slot = le32toh(elem->id), len = le32toh(elem->len);
	const uint32_t head = sizeof(struct vfe_wire_net_hdr);

	check(len >= head + ETH_SIZE && len <= BUF_SIZE, "%s: %u bytes", what, len);
	memset(frame, 0, BUF_SIZE);
	memcpy(frame, q->bufs + (size_t)slot * BUF_SIZE + head, len - head);
	queue_offer(q, q->bufs_iova + (uint64_t)slot * BUF_SIZE, BUF_SIZE, VFE_VRING_DESC_F_WRITE);
	queue_ring(q, NIC_RX);
	return len - head;
}

static void
arp_send(struct nic *nic)
{
	static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, 1}; /* Ethernet, IPv4, request */
	static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint8_t *arp = frame_begin(nic, all, ETHERTYPE_ARP) + ETH_SIZE;

	memcpy(arp, head, sizeof(head));
	memcpy(arp + 8, nic->mac, 6);
	memcpy(arp + 14, own_ip, 4);
	memcpy(arp + 24, gateway_ip, 4);
	frame_send(nic, ETH_SIZE + ARP_SIZE);
}

static void
arp_ask(struct nic *nic)
{
	uint8_t in[BUF_SIZE], *arp = in + ETH_SIZE;

	arp_send(nic);
	do {
		frame_receive(nic, in, "answer to ARP");
	} while (get16(in + 12) != ETHERTYPE_ARP || get16(arp + 6) != 2);
	check(memcmp(arp + 14, gateway_ip, 4) == 0, "an ARP answer of somebody else");
	memcpy(nic->gateway, arp + 8, 6);
}

static void
ping(struct nic *nic, unsigned int seq)
{
	const uint32_t len = ETH_SIZE + IP_SIZE + ICMP_SIZE + PING_DATA;
	uint8_t in[BUF_SIZE], *ip = frame_begin(nic, nic->gateway, ETHERTYPE_IP) + ETH_SIZE;
	uint8_t *icmp = ip + IP_SIZE, data[PING_DATA];
	size_t i;

	for (i = 0; i < PING_DATA; i++)
		data[i] = (uint8_t)(i * 7 + seq);
	ip[0] = 0x45;
	put16(ip + 2, len - ETH_SIZE);
	put16(ip + 4, seq);
	ip[8] = 64;
	ip[9] = IPPROTO_IS_ICMP;
	memcpy(ip + 12, own_ip, 4);
	memcpy(ip + 16, gateway_ip, 4);
	put16(ip + 10, ip_checksum(ip, IP_SIZE));
	icmp[0] = ICMP_REQUEST;
	put16(icmp + 4, PING_ID);
	put16(icmp + 6, seq);
	memcpy(icmp + ICMP_SIZE, data, PING_DATA);
	put16(icmp + 2, ip_checksum(icmp, ICMP_SIZE + PING_DATA));
	frame_send(nic, len);

	icmp = in + ETH_SIZE + IP_SIZE;
	do {
		i = frame_receive(nic, in, "answer to ping");
	} while (get16(in + 12) != ETHERTYPE_IP || icmp[0] != ICMP_REPLY);
	check(i == len, "the answer to ping %u has %zu bytes", seq, i);
	check(get16(icmp + 4) == PING_ID && get16(icmp + 6) == seq, "an answer to ping %u of %u",
		get16(icmp + 6), seq);
	check(memcmp(icmp + ICMP_SIZE, data, PING_DATA) == 0, "ping %u came back spoiled", seq);
}

void
nic_ping(struct nic *nic, unsigned int n)
{
	unsigned int i;

	arp_ask(nic);
	for (i = 1; i <= n; i++)
		ping(nic, i);
	/* what came without waiting was interrupted for all the same */
	for (i = 0; i < NIC_QUEUES; i++)
		check(nic->q[i].interrupts > 0 ||
				event_wait(nic->q[i].event_fd, &nic->q[i].interrupts, TIMEOUT_MS),
			"packets without interrupts of queue %u", i);
}

/* Wait until the device has used an entry of @q, or complains. */
static void
wait_dealt(struct nic *nic, struct nic_queue *q, const char *what)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(TIMEOUT_MS);
	struct pollfd p[] = {
		{.fd = q->event_fd, .events = POLLIN},
		{.fd = nic->config_fd, .events = POLLIN},
	};

	while (!queue_has_used(q) && p[1].revents == 0) {
		check(poll(p, VFE_ARRAY_SIZE(p), vfe_deadline_left_ms(deadline)) > 0,
			"the device does nothing with %s", what);
		event_wait(q->event_fd, &q->interrupts, 0);
	}
	check(vfe_pci_error(nic->pci) == 0, "the function is lost");
}

void
nic_receive_any(struct nic *nic)
{
	arp_send(nic);
	wait_dealt(nic, &nic->q[NIC_RX], "a packet that came");
}

void
nic_send_from(struct nic *nic, uint64_t iova)
{
	struct nic_queue *q = &nic->q[NIC_TX];

	queue_offer(q, iova, ETH_SIZE + 64, 0);
	queue_ring(q, NIC_TX);
	wait_dealt(nic, q, "a packet to be sent");
}
