/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Fuzz the device side of a ring: the input is a driver's memory and what the device does with it.
 * No access outside the regions, no endless walk, and what is handed out adds up.
 */

#undef NDEBUG

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "vfe_vring_burst.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	QUEUE = 16,
	MAX_IOV = 24,
	RINGS = 1024, /* first region: the ring and room for indirect tables */
	BUFFERS = 256,
	REGIONS = 3,
};

/* The second follows the first without a gap, the third is read-only and on its own. */
static const struct vfe_iova_region layout[REGIONS] = {
	{0x1000, RINGS, NULL, VFE_IOVA_READ | VFE_IOVA_WRITE},
	{0x1000 + RINGS, BUFFERS, NULL, VFE_IOVA_READ | VFE_IOVA_WRITE},
	{0x8000, BUFFERS, NULL, VFE_IOVA_READ},
};

static volatile uint8_t sink;

/* Touch each byte the way a device would, and see that the lengths are true. */
static void
chain_use(const struct vfe_chain *chain)
{
	uint64_t sums[2] = {0, 0};
	uint32_t i;
	size_t k;

	assert(chain->nr_read + chain->nr_write <= MAX_IOV);
	for (i = 0; i < (uint32_t)chain->nr_read + chain->nr_write; i++) {
		const struct iovec *iov = &chain->iov[i];

		assert(iov->iov_len > 0);
		sums[i >= chain->nr_read] += iov->iov_len;
		if (i >= chain->nr_read)
			memset(iov->iov_base, 0xa5, iov->iov_len);
		for (k = 0; k < iov->iov_len; k++)
			sink = ((const uint8_t *)iov->iov_base)[k];
	}
	assert(sums[0] == chain->read_len && sums[1] == chain->write_len);
	assert(sums[0] + sums[1] > 0);
}

static void
pop_one(struct vfe_vring *vr, bool back)
{
	struct iovec iov[MAX_IOV];
	struct vfe_chain chain = {.iov = iov, .max_iov = MAX_IOV};
	uint16_t before = vr->last_avail;
	int rc = vfe_vring_pop(vr, &chain);

	assert(rc == 1 ? vr->last_avail == (uint16_t)(before + 1) : vr->last_avail == before);
	assert((rc < 0) == vr->broken);
	assert(rc >= 0 || vr->error.text[0] != '\0');
	if (rc != 1)
		return;
	assert(chain.head < QUEUE);
	chain_use(&chain);
	if (back)
		vfe_vring_unpop(vr, 1);
	else
		vfe_vring_push(vr, chain.head, chain.write_len);
}

static void
pop_many(struct vfe_vring *vr, uint16_t direction)
{
	struct vfe_vring_buf bufs[QUEUE];
	int n = vfe_vring_avail(vr);
	uint16_t got, i;

	if (n <= 0)
		return;
	assert(n <= QUEUE);
	got = direction != 0
		      ? vfe_vring_pop_burst(vr, bufs, (uint16_t)n, VFE_VRING_DESC_F_WRITE, true)
		      : vfe_vring_pop_burst(vr, bufs, (uint16_t)n, 0, true);
	assert(got <= n && !vr->broken);
	for (i = 0; i < got; i++) {
		assert(bufs[i].head < QUEUE && bufs[i].len > 0);
		if (direction != 0)
			memset(bufs[i].base, 0x5a, bufs[i].len);
		sink = bufs[i].base[bufs[i].len - 1];
	}
	vfe_vring_push_burst(vr, bufs, got, 1);
}

static void
step(struct vfe_vring *vr, const struct vfe_iova_map *map, uint8_t op)
{
	switch (op % 8) {
	case 0:
	case 1:
		pop_one(vr, false);
		break;
	case 2:
		pop_one(vr, true);
		break;
	case 3:
		pop_many(vr, 0);
		break;
	case 4:
		pop_many(vr, VFE_VRING_DESC_F_WRITE);
		break;
	case 5:
		vfe_vring_publish(vr);
		vfe_vring_wants_signal(vr);
		break;
	case 6:
		vfe_vring_set_kick(vr, (op & 8) != 0);
		break;
	default:
		/* the driver goes on: one more chain */
		if (vr->avail != NULL)
			vr->avail->idx++;
		vfe_vring_set_map(vr, op & 8 ? map : vr->map, NULL);
		break;
	}
}

/* Input: 8 bytes of settings, then operations, then the memory. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vfe_iova_region regions[REGIONS];
	struct vfe_vring_cfg cfg = {.size = QUEUE};
	struct vfe_iova_map *map;
	struct vfe_vring vr = {0};
	const uint8_t *ops = data + 8;
	size_t i, part, nr_ops;

	if (size < 40)
		return 0;
	cfg.features = (data[0] & 1 ? VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) : 0) |
		       (data[0] & 2 ? VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC) : 0);
	cfg.desc = 0x1000 + 16u * data[1];
	cfg.driver = 0x1000 + 4u * data[2];
	cfg.device = 0x1000 + 4u * data[3];
	cfg.last_avail_idx = cfg.last_used_idx = (uint16_t)(data[4] << 8 | data[5]);
	nr_ops = 8 + data[6] % 24;
	data += 8 + nr_ops;
	size -= 8 + nr_ops;

	/* each on its own heap block, so that a step outside is seen */
	for (i = 0; i < REGIONS; i++) {
		regions[i] = layout[i];
		regions[i].va = calloc(1, regions[i].size);
		assert(regions[i].va != NULL);
		part = size < regions[i].size ? size : regions[i].size;
		memcpy(regions[i].va, data, part);
		data += part;
		size -= part;
	}
	assert(vfe_iova_map_create(regions, REGIONS, &map, NULL) == 0);
	if (vfe_vring_start(&vr, &cfg, map, NULL) == 0) {
		for (i = 0; i < nr_ops; i++)
			step(&vr, map, ops[i]);
		vfe_vring_stop(&vr);
	}
	vfe_iova_map_free(map);
	for (i = 0; i < REGIONS; i++)
		free(regions[i].va);
	return 0;
}
