/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Guest memory: tables of front-ends that lie, and domains that several VFs share.
 */

#undef NDEBUG

#include "vdpa_mem.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vfe_sigbus.h"

enum { PAGE = 4096, FILE_SIZE = 1 << 20 };

#define UVA  0x7f0000000000ULL
#define UUID "01234567-89ab-cdef-0123-456789abcdef"

static int
memory(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, FILE_SIZE), 0);
	return fd;
}

/* Region of @fd at guest address @gpa, both of them @size long and at the same offset. */
static struct vdpa_region
region(int fd, uint64_t gpa, uint64_t size)
{
	return (struct vdpa_region){
		.gpa = gpa, .size = size, .uva = UVA + gpa, .fd = fd, .fd_offset = gpa};
}

static struct vdpa_table *
table_of(const struct vdpa_region *regions, unsigned int n)
{
	struct vdpa_table *table = NULL;
	struct vfe_error err = {0};

	if (vdpa_table_create(regions, n, &table, &err) < 0)
		fail_msg("%s", err.text);
	return table;
}

static void
refused(const struct vdpa_region *regions, unsigned int n)
{
	struct vdpa_table *table = NULL;
	struct vfe_error err = {0};

	assert_int_equal(vdpa_table_create(regions, n, &table, &err), -EINVAL);
	assert_null(table);
	assert_true(err.text[0] != '\0');
}

static void
table_refuses_what_is_no_memory(void **state)
{
	int fd = memory(), file, pipes[2];
	struct vdpa_region r[VDPA_MAX_REGIONS + 1];
	char path[] = "/var/tmp/vfe-mem-XXXXXX";
	unsigned int i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(r); i++)
		r[i] = region(fd, i * PAGE, PAGE);
	refused(r, 0);
	refused(r, VFE_ARRAY_SIZE(r));
	vdpa_table_put(table_of(r, VDPA_MAX_REGIONS));

	r[0] = region(fd, 0, 0);
	refused(r, 1);
	r[0] = region(fd, 0, PAGE + 1);
	refused(r, 1);
	r[0] = region(fd, 0, PAGE);
	r[0].gpa = 512;
	refused(r, 1);
	r[0] = region(fd, 0, PAGE);
	r[0].gpa = 0 - (uint64_t)PAGE;
	r[0].size = 2 * PAGE;
	refused(r, 1);
	r[0] = region(fd, 0, PAGE);
	r[0].uva = UINT64_MAX - PAGE + 1;
	refused(r, 1);

	/* one page more than the file has; offset that wraps */
	r[0] = region(fd, PAGE, FILE_SIZE);
	refused(r, 1);
	r[0] = region(fd, 0, 2 * PAGE);
	r[0].fd_offset = 0 - (uint64_t)PAGE;
	refused(r, 1);

	assert_int_equal(pipe(pipes), 0);
	r[0] = region(pipes[0], 0, PAGE);
	refused(r, 1);
	r[0] = region(-1, 0, PAGE);
	refused(r, 1);
	file = mkstemp(path);
	if (file >= 0) {
		unlink(path);
		assert_int_equal(ftruncate(file, PAGE), 0);
		r[0] = region(file, 0, PAGE);
		refused(r, 1); /* not a memory file system: its pages could come late or never */
		close(file);
	}
	vfe_close_all(pipes, 2);
	close(fd);
}

static void
table_refuses_overlaps(void **state)
{
	int fd = memory();
	struct vdpa_region r[2] = {region(fd, 0, 2 * PAGE), region(fd, PAGE, PAGE)};

	(void)state;
	refused(r, 2);
	r[1].gpa = 2 * PAGE; /* guest addresses touch, user addresses overlap */
	refused(r, 2);
	r[1].uva = UVA + 2 * PAGE;
	vdpa_table_put(table_of(r, 2));
	close(fd);
}

static void
translation_stays_in_one_region(void **state)
{
	int fd = memory();
	struct vdpa_region r[2] = {region(fd, 0, PAGE), region(fd, PAGE, PAGE)};
	struct vdpa_table *table;
	uint64_t gpa;

	(void)state;
	r[1].gpa = 16 * PAGE;
	table = table_of(r, 2);
	assert_int_equal(vdpa_table_translate(table, UVA + 8, PAGE - 8, &gpa), 0);
	assert_int_equal(gpa, 8);
	assert_int_equal(vdpa_table_translate(table, UVA + PAGE, PAGE, &gpa), 0);
	assert_int_equal(gpa, 16 * PAGE);
	assert_int_equal(vdpa_table_translate(table, UVA + 8, PAGE - 7, &gpa), -EFAULT);
	assert_int_equal(vdpa_table_translate(table, UVA - 1, 1, &gpa), -EFAULT);
	assert_int_equal(vdpa_table_translate(table, UVA + 2 * PAGE, 1, &gpa), -EFAULT);
	assert_int_equal(vdpa_table_translate(table, UVA + PAGE, UINT64_MAX, &gpa), -EFAULT);
	assert_int_equal(vdpa_table_translate(table, UINT64_MAX, 1, &gpa), -EFAULT);
	assert_int_equal(vdpa_table_translate(NULL, UVA, 1, &gpa), -EFAULT);
	vdpa_table_put(table);
	close(fd);
}

/* --- domains --- */

struct shared {
	struct vdpa_domain *a, *b; /* the same */
	struct vdpa_member ma, mb;
	int fd;
};

static int
setup(void **state)
{
	struct shared *s = calloc(1, sizeof(*s));

	world.maps = 0;
	world.unmaps = 0;
	s->fd = memory();
	assert_int_equal(vdpa_domain_get(UUID, &s->a, NULL), 0);
	assert_int_equal(vdpa_domain_get("01234567-89AB-CDEF-0123-456789ABCDEF", &s->b, NULL), 0);
	assert_ptr_equal(s->a, s->b);
	vdpa_domain_join(s->a, &s->ma);
	vdpa_domain_join(s->b, &s->mb);
	*state = s;
	return 0;
}

static int
teardown(void **state)
{
	struct shared *s = *state;

	vdpa_domain_leave(s->a, &s->ma);
	vdpa_domain_leave(s->b, &s->mb);
	vdpa_domain_put(s->a);
	vdpa_domain_put(s->b);
	assert_int_equal(world.domains, 0);
	assert_int_equal(world.mapped, 0);
	close(s->fd);
	free(s);
	return 0;
}

static int
apply(struct vdpa_domain *domain, struct vdpa_member *m, const struct vdpa_region *r,
	unsigned int n)
{
	struct vdpa_table *table = table_of(r, n);
	struct vfe_error err = {0};
	int ret = vdpa_domain_apply(domain, m, table, &err);

	assert_true((ret < 0) == (err.text[0] != '\0'));
	vdpa_table_put(table);
	return ret;
}

static void
no_uuid_is_a_domain_of_its_own(void **state)
{
	struct vdpa_domain *x, *y;

	(void)state;
	assert_int_equal(vdpa_domain_get(NULL, &x, NULL), 0);
	assert_int_equal(vdpa_domain_get("", &y, NULL), 0);
	assert_ptr_not_equal(x, y);
	vdpa_domain_put(x);
	vdpa_domain_put(y);
}

static void
same_memory_is_mapped_once_and_until_the_last_leaves(void **state)
{
	struct shared *s = *state;
	struct vdpa_region whole = region(s->fd, 0, 8 * PAGE);
	struct vdpa_region halves[2] = {
		region(s->fd, 0, 4 * PAGE), region(s->fd, 4 * PAGE, 4 * PAGE)};

	assert_int_equal(apply(s->a, &s->ma, &whole, 1), 0);
	assert_int_equal(apply(s->b, &s->mb, halves, 2), 0);
	assert_int_equal(world.maps, 1);
	assert_int_equal(vdpa_domain_apply(s->a, &s->ma, NULL, NULL), 0);
	assert_int_equal(world.unmaps, 0);
	assert_int_equal(vdpa_domain_apply(s->b, &s->mb, NULL, NULL), 0);
	assert_int_equal(world.mapped, 0);
}

static void
growth_maps_only_what_is_missing(void **state)
{
	struct shared *s = *state;
	struct vdpa_region r = region(s->fd, 4 * PAGE, 2 * PAGE);
	uint16_t v;

	assert_int_equal(apply(s->a, &s->ma, &r, 1), 0);
	r = region(s->fd, 0, 16 * PAGE);
	assert_int_equal(apply(s->a, &s->ma, &r, 1), 0);
	assert_int_equal(world.maps, 3); /* before and behind */
	assert_int_equal(world.unmaps, 0);
	assert_int_equal(pwrite(s->fd, "\x34\x12", 2, 15 * PAGE), 2);
	assert_int_equal(vdpa_domain_read16(s->a, 15 * PAGE, &v), 0);
	assert_int_equal(v, 0x1234);
	assert_int_equal(vdpa_domain_read16(s->a, 16 * PAGE, &v), -EFAULT);
	assert_int_equal(vdpa_domain_read16(s->a, 16 * PAGE - 1, &v), -EFAULT);
}

static void
other_memory_at_the_same_place_is_refused(void **state)
{
	struct shared *s = *state;
	struct vdpa_region r = region(s->fd, 0, 4 * PAGE), other;
	int fd = memory();

	assert_int_equal(apply(s->a, &s->ma, &r, 1), 0);
	other = region(fd, PAGE, PAGE);
	assert_int_equal(apply(s->b, &s->mb, &other, 1), -EEXIST);
	/* the same file, but another page of it */
	other = region(s->fd, PAGE, PAGE);
	other.fd_offset = 8 * PAGE;
	assert_int_equal(apply(s->b, &s->mb, &other, 1), -EEXIST);
	assert_null(s->mb.table);
	/* a member whose front-end has gone makes way in a moment */
	vdpa_domain_set_leaving(s->a, &s->ma, true);
	assert_int_equal(apply(s->b, &s->mb, &other, 1), -EAGAIN);
	assert_int_equal(vdpa_domain_apply(s->a, &s->ma, NULL, NULL), 0);
	assert_int_equal(apply(s->b, &s->mb, &other, 1), 0);
	close(fd);
}

static void
own_memory_makes_way_first(void **state)
{
	struct shared *s = *state;
	struct vdpa_region r = region(s->fd, 0, 4 * PAGE);
	int fd = memory();

	assert_int_equal(apply(s->a, &s->ma, &r, 1), 0);
	r = region(fd, 0, 4 * PAGE);
	assert_int_equal(apply(s->a, &s->ma, &r, 1), -EBUSY);
	assert_int_equal(vdpa_domain_apply(s->a, &s->ma, NULL, NULL), 0);
	assert_int_equal(apply(s->a, &s->ma, &r, 1), 0);
	close(fd);
}

static void
failed_map_changes_nothing(void **state)
{
	struct shared *s = *state;
	struct vdpa_region r[2] = {region(s->fd, 0, PAGE), region(s->fd, 2 * PAGE, PAGE)};
	uint16_t v;

	assert_int_equal(apply(s->a, &s->ma, r, 1), 0);
	r[0] = region(s->fd, 4 * PAGE, PAGE);
	world.fail_map = -EIO;
	assert_int_equal(apply(s->a, &s->ma, r, 2), -EIO);
	assert_int_equal(world.mapped, 1);
	assert_int_equal(vdpa_domain_read16(s->a, 0, &v), 0);
	assert_int_equal(vdpa_domain_read16(s->a, 2 * PAGE, &v), -EFAULT);
}

static void
growing_page_by_page_ends_in_one_piece(void **state)
{
	struct shared *s = *state;
	struct vdpa_region r;
	unsigned int n;
	int ret = 0;

	for (n = 1; ret == 0 && n < 200; n++) {
		r = region(s->fd, 0, n * PAGE);
		ret = apply(s->a, &s->ma, &r, 1);
	}
	assert_int_equal(ret, -EBUSY);
	assert_int_equal(vdpa_domain_apply(s->a, &s->ma, NULL, NULL), 0);
	assert_int_equal(apply(s->a, &s->ma, &r, 1), 0);
	assert_int_equal(world.mapped, 1);
}

static void
truncated_file_is_an_error_and_no_end(void **state)
{
	struct shared *s = *state;
	struct vdpa_region r = region(s->fd, 0, 4 * PAGE);
	uint16_t v;

	/* here, because cmocka puts its own handler before each test */
	assert_int_equal(vfe_sigbus_install(), 0);
	assert_int_equal(apply(s->a, &s->ma, &r, 1), 0);
	assert_int_equal(vdpa_domain_read16(s->a, 3 * PAGE, &v), 0);
	assert_int_equal(ftruncate(s->fd, PAGE), 0);
	assert_int_equal(vdpa_domain_read16(s->a, 3 * PAGE, &v), -EIO);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_refuses_what_is_no_memory),
		cmocka_unit_test(table_refuses_overlaps),
		cmocka_unit_test(translation_stays_in_one_region),
		cmocka_unit_test(no_uuid_is_a_domain_of_its_own),
		cmocka_unit_test_setup_teardown(
			same_memory_is_mapped_once_and_until_the_last_leaves, setup, teardown),
		cmocka_unit_test_setup_teardown(growth_maps_only_what_is_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			other_memory_at_the_same_place_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(own_memory_makes_way_first, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_map_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			growing_page_by_page_ends_in_one_piece, setup, teardown),
		cmocka_unit_test_setup_teardown(
			truncated_file_is_an_error_and_no_end, setup, teardown),
	};

	return cmocka_run_group_tests_name("vdpa_mem", tests, NULL, NULL);
}
