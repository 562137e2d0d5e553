/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of lib/wire: every header compiles alone in one unit, ring sizes are those of the spec.
 */

#undef NDEBUG

#include "vfe_wire_admin.h"
#include "vfe_wire_blk.h"
#include "vfe_wire_net.h"
#include "vfe_wire_pci.h"
#include "vfe_wire_vfio_user.h"
#include "vfe_wire_virtio.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
ring_parts_have_the_sizes_of_the_spec(void **state)
{
	(void)state;
	assert_int_equal(vfe_vring_desc_bytes(256), 4096);
	assert_int_equal(vfe_vring_avail_bytes(256), 518);
	assert_int_equal(vfe_vring_used_bytes(256), 2054);
	assert_int_equal(vfe_vring_used_bytes(32768), 262150);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_parts_have_the_sizes_of_the_spec),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
