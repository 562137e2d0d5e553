/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of lib/state: what is written is read back, and no lie in a blob gets through.
 */

#undef NDEBUG

#include "vfe_state.h"

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A blob under construction: fields in any order, any lie. */
struct blob {
	uint8_t data[16384];
	size_t len;
	uint32_t fields;
};

static void
blob_begin(struct blob *b)
{
	memset(b, 0, sizeof(*b));
	b->len = sizeof(struct vfe_wire_state_hdr);
}

/* Declares @size bytes, puts @real. */
static void
blob_put_raw(struct blob *b, uint32_t type, uint32_t size, const void *value, size_t real)
{
	struct vfe_wire_state_tlv tlv = {htole32(type), htole32(size)};

	assert_true(b->len + sizeof(tlv) + real <= sizeof(b->data));
	memcpy(b->data + b->len, &tlv, sizeof(tlv));
	b->len += sizeof(tlv);
	if (real > 0)
		memcpy(b->data + b->len, value, real);
	b->len += real;
	b->fields++;
	tlv.type = htole32(b->fields);
	memcpy(b->data, &tlv.type, sizeof(tlv.type));
}

static void
blob_put(struct blob *b, uint32_t type, const void *value, size_t size)
{
	blob_put_raw(b, type, (uint32_t)size, value, size);
}

static void
blob_put_common(struct blob *b, uint16_t num_queues)
{
	struct vfe_wire_state_common common = {
		.device_feature = htole64(0x123456789abcdef0),
		.num_queues = htole16(num_queues),
	};

	blob_put(b, VFE_STATE_COMMON_CFG, &common, sizeof(common));
}

static void
blob_put_net(struct blob *b)
{
	struct vfe_wire_net_config net = {.mtu = htole16(1500)};

	blob_put(b, VFE_STATE_DEV_CFG, &net, sizeof(net));
}

static void
blob_put_queue(struct blob *b, uint16_t index)
{
	struct vfe_wire_state_queue q = {.queue_index = htole16(index), .queue_size = htole16(256)};

	blob_put(b, VFE_STATE_QUEUE_CFG, &q, sizeof(q));
}

static void
blob_put_run(struct blob *b, uint16_t index)
{
	struct vfe_wire_state_q_run run = {
		.queue_index = htole16(index), .last_avail_idx = htole16(7)};

	blob_put(b, VFE_STATE_SPLIT_Q_RUN, &run, sizeof(run));
}

static void
blob_begin_net(struct blob *b, uint16_t num_queues)
{
	blob_begin(b);
	blob_put_common(b, num_queues);
	blob_put_net(b);
}

/*
 * Decode an exact-size copy on the heap, so that a sanitizer sees one byte read too many, and
 * check the verdict and that the text of a refusal mentions @words.
 */
static void
expect(const struct blob *b, enum vfe_state_type type, int verdict, const char *words)
{
	struct vfe_error err = {""};
	struct vfe_state state;
	uint8_t *exact;

	exact = malloc(b->len);
	assert_non_null(exact);
	memcpy(exact, b->data, b->len);
	assert_int_equal(vfe_state_decode(&state, type, exact, b->len, &err), verdict);
	if (verdict == 0)
		vfe_state_fini(&state);
	else if (strstr(err.text, words) == NULL)
		fail_msg("\"%s\" does not mention \"%s\"", err.text, words);
	free(exact);
}

static void
net_state_fill(struct vfe_state *s)
{
	uint16_t i;

	assert_int_equal(vfe_state_init(s, VFE_STATE_TYPE_NET, 5), 0);
	s->device_features = 0x8000000300bf8badULL;
	s->driver_features = 0x0000000300bf0badULL;
	s->msix_config = 0xffff;
	s->device_status = 0x0f;
	s->config_generation = 200;
	for (i = 0; i < 5; i++) {
		s->queues[i] = (struct vfe_state_queue){
			.present = true,
			.size = (uint16_t)(64 << i),
			.msix_vector = (uint16_t)(i + 1),
			.enable = i != 4,
			.reset = i == 4,
			.notify_off = (uint16_t)(i * 2),
			.notify_data = (uint16_t)(0x100 + i),
			.desc = 0xffffffff00000000ULL + i,
			.driver = 0x123456789aULL * i,
			.device = UINT64_MAX - i,
			.has_run = i != 3,
			.last_avail_idx = (uint16_t)(i == 3 ? 0 : 65535 - i),
			.last_used_idx = (uint16_t)(i == 3 ? 0 : 60000 + i),
		};
	}
	memcpy(s->config.net.mac, "\x02\x11\x22\x33\x44\x55", 6);
	s->config.net.mtu = htole16(9000);
	s->config.net.max_virtqueue_pairs = htole16(2);
	s->has_rx_mode = true;
	s->rx_mode = 0x2b;
	s->has_vlan = true;
	s->vlan[0] = 1;
	s->vlan[511] = 0x80;
	s->has_macs = true;
	s->nr_unicast = 1;
	s->nr_multicast = VFE_STATE_MAX_MACS;
	memset(s->unicast, 0xaa, sizeof(s->unicast[0]));
	memset(s->multicast, 0xbb, sizeof(s->multicast));
}

static void
net_round_trip_with_padding(void **unused)
{
	struct vfe_state in, out;
	uint8_t buf[8192] = {0};
	ssize_t n;

	(void)unused;
	net_state_fill(&in);
	n = vfe_state_encode(&in, buf, sizeof(buf));
	assert_int_equal(n, vfe_state_encoded_size(&in));
	assert_int_equal(vfe_state_decode(&out, VFE_STATE_TYPE_NET, buf, sizeof(buf), NULL), 0);

	assert_int_equal(out.num_queues, 5);
	assert_memory_equal(out.queues, in.queues, 5 * sizeof(in.queues[0]));
	assert_int_equal(out.device_features, in.device_features);
	assert_int_equal(out.driver_features, in.driver_features);
	assert_int_equal(out.msix_config, in.msix_config);
	assert_int_equal(out.device_status, in.device_status);
	assert_int_equal(out.config_generation, in.config_generation);
	assert_memory_equal(&out.config.net, &in.config.net, sizeof(in.config.net));
	assert_true(out.has_rx_mode && out.has_vlan && out.has_macs);
	assert_int_equal(out.rx_mode, in.rx_mode);
	assert_memory_equal(out.vlan, in.vlan, sizeof(in.vlan));
	assert_int_equal(out.nr_unicast, 1);
	assert_int_equal(out.nr_multicast, VFE_STATE_MAX_MACS);
	assert_memory_equal(out.unicast, in.unicast, sizeof(in.unicast[0]));
	assert_memory_equal(out.multicast, in.multicast, sizeof(in.multicast));
	vfe_state_fini(&in);
	vfe_state_fini(&out);
}

static void
blk_round_trip(void **unused)
{
	struct vfe_state in, out;
	uint8_t buf[512];
	ssize_t n;

	(void)unused;
	assert_int_equal(vfe_state_init(&in, VFE_STATE_TYPE_BLK, 1), 0);
	in.queues[0].present = true;
	in.queues[0].size = 32768;
	in.config.blk.capacity = htole64(1ULL << 40);
	n = vfe_state_encode(&in, buf, sizeof(buf));
	assert_int_equal(n, 4 + 40 + 80 + 46);
	assert_int_equal(vfe_state_decode(&out, VFE_STATE_TYPE_BLK, buf, (size_t)n, NULL), 0);
	assert_memory_equal(&out.config.blk, &in.config.blk, sizeof(in.config.blk));
	assert_int_equal(out.queues[0].size, 32768);
	assert_false(out.queues[0].has_run);
	vfe_state_fini(&in);
	vfe_state_fini(&out);
}

/* Other parsers of the dialect read fixed offsets: 88 + 60 n is queue n of a net device. */
static void
net_layout_is_the_dialects(void **unused)
{
	struct vfe_wire_state_tlv tlv;
	struct vfe_state s;
	uint8_t buf[8192];
	uint32_t count;

	(void)unused;
	net_state_fill(&s);
	s.has_vlan = s.has_macs = false;
	s.queues[3].has_run = true;
	assert_int_equal(vfe_state_encode(&s, buf, sizeof(buf)), 88 + 60 * 5);
	memcpy(&count, buf, sizeof(count));
	assert_int_equal(le32toh(count), 3 + 2 * 5);
	memcpy(&tlv, buf + 76, sizeof(tlv));
	assert_int_equal(le32toh(tlv.type), VFE_STATE_NET_RX_MODE);
	assert_int_equal(buf[84], 0x2b);
	memcpy(&tlv, buf + 88 + 60 * 4, sizeof(tlv));
	assert_int_equal(le32toh(tlv.type), VFE_STATE_QUEUE_CFG);
	assert_int_equal(buf[88 + 60 * 4 + 8], 4);
	memcpy(&tlv, buf + 88 + 60 * 4 + 46, sizeof(tlv));
	assert_int_equal(le32toh(tlv.type), VFE_STATE_SPLIT_Q_RUN);
	vfe_state_fini(&s);
}

static void
encode_wants_every_byte(void **unused)
{
	struct vfe_state s;
	size_t need;
	uint8_t *buf;

	(void)unused;
	net_state_fill(&s);
	need = vfe_state_encoded_size(&s);
	buf = malloc(need);
	assert_non_null(buf);
	assert_int_equal(vfe_state_encode(&s, buf, need - 1), -ENOSPC);
	assert_int_equal(vfe_state_encode(&s, buf, 0), -ENOSPC);
	assert_int_equal(vfe_state_encode(&s, buf, need), need);
	free(buf);
	vfe_state_fini(&s);
}

static void
queue_limit_of_init(void **unused)
{
	struct vfe_state s;

	(void)unused;
	assert_int_equal(vfe_state_init(&s, VFE_STATE_TYPE_NET, VFE_STATE_MAX_QUEUES + 1), -EINVAL);
	vfe_state_fini(&s);
	assert_int_equal(vfe_state_init(&s, VFE_STATE_TYPE_NET, 0), 0);
	vfe_state_fini(&s);
	vfe_state_fini(&s);
	vfe_state_fini(NULL);
}

static void
any_order_and_common_last(void **unused)
{
	struct vfe_state s;
	struct blob b;

	(void)unused;
	blob_begin(&b);
	blob_put_run(&b, 1);
	blob_put_queue(&b, 2);
	blob_put_queue(&b, 0);
	blob_put_net(&b);
	blob_put_queue(&b, 1);
	blob_put_common(&b, 3);
	assert_int_equal(vfe_state_decode(&s, VFE_STATE_TYPE_NET, b.data, b.len, NULL), 0);
	assert_int_equal(s.num_queues, 3);
	assert_true(s.queues[1].has_run);
	assert_int_equal(s.queues[1].last_avail_idx, 7);
	assert_false(s.queues[2].has_run);
	vfe_state_fini(&s);
}

/* One sender of the dialect counts one field too few; the count is the law. */
static void
count_one_short_drops_the_last_field(void **unused)
{
	struct vfe_state s;
	struct blob b;

	(void)unused;
	blob_begin_net(&b, 1);
	blob_put_queue(&b, 0);
	blob_put_run(&b, 0);
	b.data[0] = 3;
	assert_int_equal(vfe_state_decode(&s, VFE_STATE_TYPE_NET, b.data, b.len, NULL), 0);
	assert_false(s.queues[0].has_run);
	vfe_state_fini(&s);
}

static void
unknown_fields_are_skipped(void **unused)
{
	struct blob b;

	(void)unused;
	blob_begin_net(&b, 0);
	blob_put(&b, VFE_STATE_IN_FLIGHT_DESC, "abc", 3);
	blob_put(&b, VFE_STATE_IN_FLIGHT_DESC, "abc", 3);
	blob_put(&b, VFE_STATE_SUBVENDOR, NULL, 0);
	blob_put(&b, UINT32_MAX, "x", 1);
	expect(&b, VFE_STATE_TYPE_NET, 0, "");
}

static void
truncation_at_every_byte_is_refused(void **unused)
{
	struct vfe_state s;
	struct blob b;
	ssize_t n;

	(void)unused;
	net_state_fill(&s);
	n = vfe_state_encode(&s, b.data, sizeof(b.data));
	assert_true(n > 0);
	for (b.len = 0; b.len < (size_t)n; b.len++)
		expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "");
	expect(&b, VFE_STATE_TYPE_NET, 0, "");
	vfe_state_fini(&s);
}

static void
wrong_sizes_are_refused(void **unused)
{
	static const struct {
		uint32_t type;
		uint32_t right;
		const char *name;
	} fixed[] = {
		{VFE_STATE_COMMON_CFG, 32, "COMMON_CFG"},
		{VFE_STATE_DEV_CFG, 24, "DEV_CFG"},
		{VFE_STATE_QUEUE_CFG, 38, "QUEUE_CFG"},
		{VFE_STATE_SPLIT_Q_RUN, 6, "SPLIT_Q_RUN_STATE"},
		{VFE_STATE_NET_RX_MODE, 4, "NET_RX_MODE"},
		{VFE_STATE_NET_VLAN, 512, "NET_VLAN"},
		{VFE_STATE_NET_MAC_UNICAST, 6, "NET_MAC_UNICAST"},
		{VFE_STATE_NET_MAC_MULTICAST, 6, "NET_MAC_MULTICAST"},
	};
	static const uint8_t zeroes[2048];
	struct blob b;
	size_t i;
	int off;

	(void)unused;
	for (i = 0; i < VFE_ARRAY_SIZE(fixed); i++) {
		for (off = -1; off <= 1; off += 2) {
			blob_begin(&b);
			blob_put(&b, fixed[i].type, zeroes, fixed[i].right + (uint32_t)off);
			expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, fixed[i].name);
		}
		blob_begin(&b);
		blob_put_raw(&b, fixed[i].type, fixed[i].right, zeroes, fixed[i].right - 1);
		expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "bytes follow");
		blob_begin(&b);
		blob_put_raw(&b, fixed[i].type, UINT32_MAX, zeroes, 64);
		expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "4294967295");
	}
}

static void
too_many_macs_are_refused(void **unused)
{
	static const uint8_t zeroes[6 * 257];
	struct blob b;

	(void)unused;
	blob_begin_net(&b, 0);
	blob_put(&b, VFE_STATE_NET_MAC_UNICAST, zeroes, 6 * 256);
	expect(&b, VFE_STATE_TYPE_NET, 0, "");
	blob_put(&b, VFE_STATE_NET_MAC_MULTICAST, zeroes, 6 * 257);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "at most 256");
}

static void
duplicates_are_refused(void **unused)
{
	static const uint32_t once[] = {
		VFE_STATE_NET_RX_MODE, VFE_STATE_NET_VLAN, VFE_STATE_NET_MAC_UNICAST};
	static const uint32_t size[] = {4, 512, 6};
	static const uint8_t zeroes[512];
	struct blob b;
	size_t i;

	(void)unused;
	for (i = 0; i < VFE_ARRAY_SIZE(once); i++) {
		blob_begin_net(&b, 0);
		blob_put(&b, once[i], zeroes, size[i]);
		expect(&b, VFE_STATE_TYPE_NET, 0, "");
		blob_put(&b, once[i], zeroes, size[i]);
		expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "there already");
	}
	blob_begin_net(&b, 0);
	blob_put_common(&b, 0);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "COMMON_CFG at offset 76: there already");
	blob_begin_net(&b, 1);
	blob_put_queue(&b, 0);
	blob_put_queue(&b, 0);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue 0 again");
	blob_begin_net(&b, 1);
	blob_put_queue(&b, 0);
	blob_put_run(&b, 0);
	blob_put_run(&b, 0);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue 0 again");
}

static void
queues_must_match_num_queues(void **unused)
{
	struct blob b;

	(void)unused;
	blob_begin_net(&b, 2);
	blob_put_queue(&b, 0);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue 1 is missing");
	blob_put_run(&b, 1);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue 1 is missing");
	blob_put_queue(&b, 1);
	expect(&b, VFE_STATE_TYPE_NET, 0, "");
	blob_put_queue(&b, 2);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue 2 is there");

	blob_begin_net(&b, 0);
	blob_put_queue(&b, VFE_STATE_MAX_QUEUES);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue_index 1024");
	blob_begin_net(&b, 0);
	blob_put_run(&b, UINT16_MAX);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue_index 65535");
	blob_begin_net(&b, VFE_STATE_MAX_QUEUES + 1);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "num_queues 1025");
}

static void
queue_values_out_of_range_are_refused(void **unused)
{
	struct vfe_wire_state_queue q = {0};
	struct blob b;

	(void)unused;
	q.queue_size = htole16(32769);
	blob_begin_net(&b, 1);
	blob_put(&b, VFE_STATE_QUEUE_CFG, &q, sizeof(q));
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "queue_size 32769");
	q.queue_size = 0;
	q.enable = htole16(2);
	blob_begin_net(&b, 1);
	blob_put(&b, VFE_STATE_QUEUE_CFG, &q, sizeof(q));
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "enable 2");
	q.enable = 0;
	q.reset = htole16(0x100);
	blob_begin_net(&b, 1);
	blob_put(&b, VFE_STATE_QUEUE_CFG, &q, sizeof(q));
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "reset 256");
}

static void
missing_mandatory_fields_are_refused(void **unused)
{
	struct blob b;

	(void)unused;
	blob_begin(&b);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "COMMON_CFG is missing");
	blob_put_common(&b, 0);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "DEV_CFG is missing");
	blob_begin(&b);
	blob_put_net(&b);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "COMMON_CFG is missing");
}

static void
count_beyond_the_blob_is_refused(void **unused)
{
	struct blob b;

	(void)unused;
	blob_begin_net(&b, 0);
	memset(b.data, 0xff, 4);
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "field_count is 4294967295");
	blob_begin(&b);
	b.len = 3;
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "no header");
}

static void
type_confusion_is_refused(void **unused)
{
	static const uint8_t zeroes[72];
	struct blob b;

	(void)unused;
	blob_begin_net(&b, 0);
	expect(&b, VFE_STATE_TYPE_BLK, -EBADMSG, "expected 72");
	blob_begin(&b);
	blob_put_common(&b, 0);
	blob_put(&b, VFE_STATE_DEV_CFG, zeroes, 72);
	expect(&b, VFE_STATE_TYPE_BLK, 0, "");
	expect(&b, VFE_STATE_TYPE_NET, -EBADMSG, "expected 24");
	blob_put(&b, VFE_STATE_NET_RX_MODE, zeroes, 4);
	expect(&b, VFE_STATE_TYPE_BLK, -EBADMSG, "not a field of a block device");
}

static void
oversized_blob_is_not_read(void **unused)
{
	struct vfe_error err = {""};
	struct vfe_state s;

	(void)unused;
	assert_int_equal(vfe_state_decode(&s, VFE_STATE_TYPE_NET, (const void *)(uintptr_t)1,
				 VFE_STATE_MAX_SIZE + 1, &err),
		-E2BIG);
	assert_non_null(strstr(err.text, "4194305"));
}

/* Any single damaged byte either decodes to something in range or is refused; never worse. */
static void
every_flipped_byte_is_survived(void **unused)
{
	struct vfe_state s, out;
	uint8_t *buf;
	size_t i, n;
	int v, ret;

	(void)unused;
	net_state_fill(&s);
	n = vfe_state_encoded_size(&s);
	buf = malloc(n);
	assert_non_null(buf);
	assert_int_equal(vfe_state_encode(&s, buf, n), n);
	for (i = 0; i < n; i++) {
		for (v = 1; v < 256; v = v * 2 + 1) {
			buf[i] ^= (uint8_t)v;
			ret = vfe_state_decode(&out, VFE_STATE_TYPE_NET, buf, n, NULL);
			assert_true(ret == 0 || ret == -EBADMSG);
			if (ret == 0) {
				assert_in_range(out.num_queues, 0, VFE_STATE_MAX_QUEUES);
				assert_in_range(out.nr_unicast, 0, VFE_STATE_MAX_MACS);
				vfe_state_fini(&out);
			}
			buf[i] ^= (uint8_t)v;
		}
	}
	free(buf);
	vfe_state_fini(&s);
}

static void
compatible_names_the_first_difference(void **unused)
{
	struct vfe_state mine, theirs;
	struct vfe_error err;

	(void)unused;
	net_state_fill(&mine);
	net_state_fill(&theirs);
	theirs.driver_features = VFE_BIT(VFE_NET_F_MAC) | VFE_BIT(VFE_NET_F_MTU) |
				 VFE_BIT(VFE_NET_F_MQ) | VFE_BIT(32);
	mine.device_features = theirs.driver_features | VFE_BIT(50);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), 0);

	mine.device_features &= ~VFE_BIT(32);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	assert_non_null(strstr(err.text, "0x100000000"));
	mine.device_features |= VFE_BIT(32);

	mine.config.net.max_virtqueue_pairs = htole16(3);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	assert_string_equal(err.text, "3 queue pairs, the guest knows 2");
	mine.config.net.mtu = htole16(1500);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	assert_string_equal(err.text, "MTU is 1500, the guest knows 9000");
	mine.config.net.mac[5] = 0x56;
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	assert_non_null(strstr(err.text, "02:11:22:33:44:56"));
	mine.num_queues = 4;
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	assert_string_equal(err.text, "4 queues, the guest knows 5");
	assert_int_equal(vfe_state_compatible(&mine, &theirs, NULL), -EXDEV);

	/* what the guest does not use, it has not seen */
	mine.num_queues = 5;
	theirs.driver_features = VFE_BIT(32);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), 0);
	mine.type = VFE_STATE_TYPE_BLK;
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	vfe_state_fini(&mine);
	vfe_state_fini(&theirs);
}

static void
compatible_block_devices(void **unused)
{
	struct vfe_state mine, theirs;
	struct vfe_error err;

	(void)unused;
	assert_int_equal(vfe_state_init(&mine, VFE_STATE_TYPE_BLK, 0), 0);
	assert_int_equal(vfe_state_init(&theirs, VFE_STATE_TYPE_BLK, 0), 0);
	mine.config.blk.writeback = 1;
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), 0);
	mine.config.blk.seg_max = htole32(4);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	mine.config.blk.blk_size = htole32(4096);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	assert_non_null(strstr(err.text, "4096"));
	mine.config.blk.capacity = htole64(99);
	assert_int_equal(vfe_state_compatible(&mine, &theirs, &err), -EXDEV);
	assert_non_null(strstr(err.text, "99 sectors"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(net_round_trip_with_padding),
		cmocka_unit_test(blk_round_trip),
		cmocka_unit_test(net_layout_is_the_dialects),
		cmocka_unit_test(encode_wants_every_byte),
		cmocka_unit_test(queue_limit_of_init),
		cmocka_unit_test(any_order_and_common_last),
		cmocka_unit_test(count_one_short_drops_the_last_field),
		cmocka_unit_test(unknown_fields_are_skipped),
		cmocka_unit_test(truncation_at_every_byte_is_refused),
		cmocka_unit_test(wrong_sizes_are_refused),
		cmocka_unit_test(too_many_macs_are_refused),
		cmocka_unit_test(duplicates_are_refused),
		cmocka_unit_test(queues_must_match_num_queues),
		cmocka_unit_test(queue_values_out_of_range_are_refused),
		cmocka_unit_test(missing_mandatory_fields_are_refused),
		cmocka_unit_test(count_beyond_the_blob_is_refused),
		cmocka_unit_test(type_confusion_is_refused),
		cmocka_unit_test(oversized_blob_is_not_read),
		cmocka_unit_test(every_flipped_byte_is_survived),
		cmocka_unit_test(compatible_names_the_first_difference),
		cmocka_unit_test(compatible_block_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
