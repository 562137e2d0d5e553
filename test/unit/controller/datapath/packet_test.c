/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Unit tests of the data path's small parts: copies, headers, the receive filter.
 */

#undef NDEBUG
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dp.h"
#include "packet.h"
#include "vfe_iov.h"

static uint8_t src[4096], dst[4096];

static int
setup(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)(1 + i % 255);
	return 0;
}

static void
copy_writes_exactly_the_packet(void **state)
{
	uint32_t len, off;

	(void)state;
	for (len = 0; len < 1600; len++) {
		for (off = 0; off < 3; off++) {
			memset(dst, 0, sizeof(dst));
			dp_packet_copy(dst + 64 + off, src + 2 * off, len);
			assert_memory_equal(dst + 64 + off, src + 2 * off, len);
			assert_int_equal(dst[63 + off], 0);
			assert_int_equal(dst[64 + off + len], 0);
		}
	}
}

static void
copy_of_overlapping_packets_stays_inside(void **state)
{
	uint32_t len, off;

	(void)state;
	for (len = 1; len < 300; len += 7) {
		for (off = 0; off < 40; off += 3) {
			memset(dst, 0, sizeof(dst));
			dp_packet_copy(dst + 100 + off, dst + 100, len);
			dp_packet_copy(dst + 100, dst + 100 + off, len);
			assert_int_equal(dst[99], 0);
			assert_int_equal(dst[100 + off + len], 0);
		}
	}
}

static void
iov_functions_cross_all_borders(void **state)
{
	struct iovec from[3] = {{src, 5}, {src + 5, 1}, {src + 6, 94}}, to[4], skipped[3];
	uint8_t out[100];
	uint32_t off, n;

	(void)state;
	assert_int_equal(dp_iov_len(from, 3), 100);
	for (off = 0; off < 100; off++) {
		vfe_iov_read(from, 3, off, out, 100 - off);
		assert_memory_equal(out, src + off, 100 - off);
		n = dp_iov_skip(from, 3, off, skipped);
		assert_int_equal(dp_iov_len(skipped, n), 100 - off);
		vfe_iov_read(skipped, n, 0, out, 100 - off);
		assert_memory_equal(out, src + off, 100 - off);

		memset(dst, 0, sizeof(dst));
		to[0] = (struct iovec){dst, off + 1};
		to[1] = (struct iovec){dst + off + 1, 1};
		to[2] = (struct iovec){dst + off + 2, 200};
		dp_iov_copy(to, from, 100);
		assert_memory_equal(dst, src, 100);
		assert_int_equal(dst[100], 0);
		vfe_iov_write(to, 3, off, "\xff\xfe\xfd", 3);
		assert_memory_equal(dst + off, "\xff\xfe\xfd", 3);
	}
	assert_int_equal(dp_iov_skip(from, 3, 100, skipped), 0);
}

static void
header_needs_what_was_negotiated(void **state)
{
	const uint64_t sender = VFE_BIT(VFE_NET_F_CSUM) | VFE_BIT(VFE_NET_F_HOST_TSO6),
		       receiver = VFE_BIT(VFE_NET_F_GUEST_CSUM) | VFE_BIT(VFE_NET_F_GUEST_TSO6);
	struct vfe_wire_net_hdr hdr = {.flags = VFE_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VFE_NET_HDR_GSO_TCPV6,
		.gso_size = 1,
		.csum_start = 54,
		.csum_offset = 16};

	(void)state;
	assert_true(dp_hdr_valid(&hdr, sender, 72));
	assert_false(dp_hdr_valid(&hdr, sender, 71));
	assert_false(dp_hdr_valid(&hdr, VFE_BIT(VFE_NET_F_CSUM), 72));
	assert_true(dp_hdr_acceptable(&hdr, receiver));
	assert_false(dp_hdr_acceptable(&hdr, VFE_BIT(VFE_NET_F_GUEST_CSUM)));
	assert_false(dp_hdr_acceptable(&hdr, VFE_BIT(VFE_NET_F_GUEST_TSO6)));
	hdr.gso_type |= VFE_NET_HDR_GSO_ECN;
	assert_false(dp_hdr_valid(&hdr, sender, 72));
	assert_true(dp_hdr_valid(&hdr, sender | VFE_BIT(VFE_NET_F_HOST_ECN), 72));
	assert_false(dp_hdr_acceptable(&hdr, receiver));
	assert_true(dp_hdr_acceptable(&hdr, receiver | VFE_BIT(VFE_NET_F_GUEST_ECN)));
	hdr = (struct vfe_wire_net_hdr){0};
	assert_true(dp_hdr_valid(&hdr, 0, 14));
	assert_true(dp_hdr_acceptable(&hdr, 0));
}

static const uint8_t own[18] = {2, 0, 0, 0, 0, 1}, second[18] = {2, 0, 0, 0, 0, 2},
		     foreign[18] = {2, 0, 0, 0, 0, 3}, group[18] = {1, 0, 0x5e, 0, 0, 1},
		     everybody[18] = {255, 255, 255, 255, 255, 255};

static void
filter_follows_its_modes(void **state)
{
	struct dp_rx_filter f = {.nr_unicast = 1, .nr_multicast = 1};

	(void)state;
	memcpy(f.mac, own, 6);
	memcpy(f.unicast[0], second, 6);
	assert_true(dp_filter_pass(NULL, foreign));
	assert_true(dp_filter_pass(&f, own));
	assert_true(dp_filter_pass(&f, second));
	assert_false(dp_filter_pass(&f, foreign));
	assert_false(dp_filter_pass(&f, group));
	assert_true(dp_filter_pass(&f, everybody));
	memcpy(f.multicast[0], group, 6);
	assert_true(dp_filter_pass(&f, group));
	f.nomulti = f.nouni = f.nobcast = true;
	assert_false(dp_filter_pass(&f, group));
	assert_false(dp_filter_pass(&f, own));
	assert_false(dp_filter_pass(&f, everybody));
	f.promisc = true;
	assert_true(dp_filter_pass(&f, foreign));
	f = (struct dp_rx_filter){.alluni = true, .allmulti = true};
	assert_true(dp_filter_pass(&f, foreign));
	assert_true(dp_filter_pass(&f, group));
}

static void
filter_looks_at_the_vlan(void **state)
{
	struct dp_rx_filter f = {.alluni = true, .vlan_filter = true};
	uint8_t tagged[18];

	(void)state;
	memcpy(tagged, own, sizeof(tagged));
	memcpy(tagged + 12, "\x81\x00\xef\xff", 4); /* priority 7, id 4095 */
	assert_true(dp_filter_pass(&f, own));
	assert_false(dp_filter_pass(&f, tagged));
	f.vlan[511] = 0x80;
	assert_true(dp_filter_pass(&f, tagged));
	tagged[15] = 0xfe;
	assert_false(dp_filter_pass(&f, tagged));
	f.vlan_filter = false;
	assert_true(dp_filter_pass(&f, tagged));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copy_writes_exactly_the_packet),
		cmocka_unit_test(copy_of_overlapping_packets_stays_inside),
		cmocka_unit_test(iov_functions_cross_all_borders),
		cmocka_unit_test(header_needs_what_was_negotiated),
		cmocka_unit_test(filter_follows_its_modes),
		cmocka_unit_test(filter_looks_at_the_vlan),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
