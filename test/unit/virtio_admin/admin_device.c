/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: the device's end of an admin queue, driven step by step.
 */

#undef NDEBUG

#include "admin_device.h"

#include <assert.h>
#include <endian.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct ad_env *current;

struct ad_env *
ad_env_create(uint64_t features, uint64_t arena_size)
{
	struct ad_env *e = calloc(1, sizeof(*e));
	struct vfe_error err;
	int rc;

	assert(e != NULL);
	fake_virtio_init(&e->v, VFE_PCI_DEVICE_VIRTIO_NET, features);
	rc = vfe_virtio_init(&e->vdev, &e->v.f.pci, &err);
	assert(rc == 0);
	rc = vfe_virtio_features_set(&e->vdev, features, &err);
	assert(rc == 0);
	rc = vfe_pci_domain_create(&e->domain, &err);
	assert(rc == 0);
	rc = vfe_pci_domain_attach(e->domain, &e->v.f.pci, &err);
	assert(rc == 0);
	rc = vfe_dma_arena_create(e->domain, AD_ARENA_IOVA, arena_size, false, &e->arena, &err);
	assert(rc == 0);
	ad_set_current(e);
	return e;
}

void
ad_env_destroy(struct ad_env *e)
{
	vfe_admin_destroy(e->admin);
	vfe_dma_arena_destroy(e->arena);
	vfe_pci_domain_detach(e->domain, &e->v.f.pci);
	vfe_pci_domain_destroy(e->domain);
	assert(e->v.bad_widths == 0);
	fake_virtio_fini(&e->v);
	free(e);
}

int
ad_queue_create(struct ad_env *e, uint16_t msix_vector, uint32_t timeout_ms)
{
	struct vfe_admin_cfg cfg = {
		.vdev = &e->vdev,
		.arena = e->arena,
		.queue_index = AD_QUEUE,
		.msix_vector = msix_vector,
		.timeout_ms = timeout_ms,
	};

	return vfe_admin_create(&cfg, &e->admin, &e->err);
}

void
ad_set_current(struct ad_env *e)
{
	current = e;
}

void
ad_done(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct ad_result *r = ctx;

	r->calls++;
	r->order = ++current->ended;
	r->status = status;
	r->out_len = out_len;
	assert((status == 0) == (err == NULL));
	assert(status == 0 || (out == NULL && out_len == 0 && err->text[0] != '\0'));
	if (out_len > 0)
		memcpy(r->out, out, out_len < sizeof(r->out) ? out_len : sizeof(r->out));
	if (err != NULL)
		r->err = *err;
}

int
ad_submit(struct ad_env *e, unsigned int i, uint8_t cmd, const void *in, size_t in_len,
	size_t out_len, uint32_t timeout_ms)
{
	return vfe_admin_submit(e->admin, &(struct vfe_admin_cmd){
						  .class_ = VFE_ADMIN_CLASS_MIGRATION,
						  .cmd = cmd,
						  .in = in,
						  .in_len = in_len,
						  .out_len = out_len,
						  .timeout_ms = timeout_ms,
						  .done = ad_done,
						  .ctx = &e->results[i],
					  });
}

bool
ad_take(struct ad_env *e, struct ad_chain *ret)
{
	const struct fake_queue *q = &e->v.q[AD_QUEUE];
	const struct vfe_wire_vring_desc *desc =
		fake_pci_dma(&e->v.f, q->desc, vfe_vring_desc_bytes(q->size));
	const struct vfe_wire_vring_avail *avail =
		fake_pci_dma(&e->v.f, q->driver, vfe_vring_avail_bytes(q->size));
	uint16_t id;

	assert(desc != NULL && avail != NULL);
	if (__atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE) == htole16(e->avail_seen))
		return false;
	id = le16toh(avail->ring[e->avail_seen++ % q->size]);
	*ret = (struct ad_chain){.head = id};
	for (;;) {
		assert(id < q->size && ret->n < AD_MAX_SEGS);
		ret->seg[ret->n].iova = le64toh(desc[id].addr);
		ret->seg[ret->n].len = le32toh(desc[id].len);
		ret->seg[ret->n].write = (le16toh(desc[id].flags) & VFE_VRING_DESC_F_WRITE) != 0;
		ret->seg[ret->n].va =
			fake_pci_dma(&e->v.f, ret->seg[ret->n].iova, ret->seg[ret->n].len);
		assert(ret->seg[ret->n].va != NULL);
		ret->n++;
		if ((le16toh(desc[id].flags) & VFE_VRING_DESC_F_NEXT) == 0)
			return true;
		id = le16toh(desc[id].next);
	}
}

struct vfe_wire_vring_used *
ad_used(struct ad_env *e)
{
	const struct fake_queue *q = &e->v.q[AD_QUEUE];
	struct vfe_wire_vring_used *used =
		fake_pci_dma(&e->v.f, q->device, vfe_vring_used_bytes(q->size));

	assert(used != NULL);
	return used;
}

void
ad_use(struct ad_env *e, uint32_t id)
{
	struct vfe_wire_vring_used *used = ad_used(e);

	used->ring[e->used_idx % e->v.q[AD_QUEUE].size].id = htole32(id);
	e->used_idx++;
	__atomic_store_n(&used->idx, htole16(e->used_idx), __ATOMIC_RELEASE);
}

void
ad_answer(
	struct ad_env *e, const struct ad_chain *c, uint8_t status, const void *out, size_t out_len)
{
	assert(c->seg[c->n - 1].write && c->seg[c->n - 1].len == 1);
	if (out_len > 0) {
		assert(c->seg[c->n - 2].write && c->seg[c->n - 2].len >= out_len);
		memcpy(c->seg[c->n - 2].va, out, out_len);
	}
	*c->seg[c->n - 1].va = status;
	ad_use(e, c->head);
}

void
ad_interrupt(struct ad_env *e)
{
	const uint64_t one = 1;
	uint16_t vector = e->v.q[AD_QUEUE].vector;

	assert(vector < FAKE_MAX_IRQS && e->v.f.irq_fds[vector] >= 0);
	assert(write(e->v.f.irq_fds[vector], &one, sizeof(one)) == (ssize_t)sizeof(one));
}

void
ad_wait(struct ad_env *e, unsigned int i)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);
	struct pollfd pfd = {vfe_admin_fd(e->admin), POLLIN, 0};

	while (e->results[i].calls == 0) {
		assert(!vfe_deadline_passed(deadline));
		if (poll(&pfd, 1, vfe_deadline_left_ms(deadline)) == 1)
			vfe_admin_process(e->admin);
	}
}
