/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of the service's command line: whose options are whose, what is added for EAL.
 */

#undef NDEBUG

#include "options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct options opts;
static struct vfe_error err;

static int
parse(int argc, const char *const *words)
{
	static char *argv[OPTIONS_MAX_EAL_ARGS + 8];
	int i;

	for (i = 0; i < argc; i++)
		memcpy(&argv[i], &words[i], sizeof(argv[i]));
	return options_parse(&opts, argc, argv, &err);
}

#define PARSE(...)                                                                   \
	parse((int)(sizeof((const char *[]){"prog", __VA_ARGS__}) / sizeof(char *)), \
		(const char *[]){"prog", __VA_ARGS__})

static bool
eal_has(const char *word)
{
	int i;

	for (i = 0; i < opts.eal_argc; i++) {
		if (strcmp(opts.eal_argv[i], word) == 0)
			return true;
	}
	return false;
}

static void
defaults_need_no_hugepages(void **state)
{
	(void)state;
	assert_int_equal(parse(1, (const char *[]){"prog"}), 0);
	assert_true(eal_has("--no-huge"));
	assert_true(eal_has("--lcores"));
	assert_true(eal_has("--file-prefix=vfe-vhostd"));
	assert_false(opts.client);
	assert_string_equal(opts.vfio_user_dir, "/run/vfe/pci");
	assert_string_equal(opts.rpc_socket, "/run/vfe/vhostd.sock");
	assert_null(opts.eal_argv[opts.eal_argc]);
}

static void
the_documented_line_works(void **state)
{
	(void)state;
	assert_int_equal(
		PARSE("-a", "0000:00:00.0", "--log-level=.,8",
			"--vfio-vf-token=cdc786f0-59d4-41d9-b554-fed36ff5e89f", "--", "--client"),
		0);
	assert_true(opts.client);
	assert_true(eal_has("--vfio-vf-token=cdc786f0-59d4-41d9-b554-fed36ff5e89f"));
	assert_true(eal_has("--no-huge"));
	assert_false(eal_has("--client"));
}

static void
eal_choices_of_the_user_stay(void **state)
{
	(void)state;
	assert_int_equal(PARSE("-m", "64", "-l", "1", "--file-prefix", "mine", "--"), 0);
	assert_false(eal_has("--no-huge"));
	assert_false(eal_has("--lcores"));
	assert_false(eal_has("--file-prefix=vfe-vhostd"));
	assert_int_equal(PARSE("-m64", "-l1", "--file-prefix=mine"), 0);
	assert_false(eal_has("--no-huge"));
	assert_false(eal_has("--lcores"));
	assert_false(eal_has("--file-prefix=vfe-vhostd"));
	/* a longer option with the same beginning is another one */
	assert_int_equal(PARSE("--log-level=8"), 0);
	assert_true(eal_has("--lcores"));
}

static void
own_options_are_read(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--", "--iface", "/tmp/x-", "--vfio-user-dir=/d", "--rpc-socket",
				 "/r.sock", "--rpc-group", "vfe", "--dirty-mode=all"),
		0);
	assert_string_equal(opts.iface, "/tmp/x-");
	assert_string_equal(opts.vfio_user_dir, "/d");
	assert_string_equal(opts.rpc_socket, "/r.sock");
	assert_string_equal(opts.rpc_group, "vfe");
	assert_string_equal(opts.dirty_mode, "all");
	assert_int_equal(PARSE("--help"), 0);
	assert_true(opts.help);
	assert_int_equal(PARSE("--", "--version"), 0);
	assert_true(opts.version);
}

static void
wrong_options_are_named(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--", "--clinet"), -EINVAL);
	assert_non_null(strstr(err.text, "--clinet"));
	assert_int_equal(PARSE("--", "--iface"), -EINVAL);
	assert_non_null(strstr(err.text, "--iface"));
	assert_int_equal(PARSE("--", "stray"), -EINVAL);
	assert_non_null(strstr(err.text, "stray"));
	assert_int_equal(PARSE("--", "--rpc-socket", "relative"), -EINVAL);
}

static void
too_many_arguments_are_refused(void **state)
{
	const char *words[OPTIONS_MAX_EAL_ARGS + 2];
	int i;

	(void)state;
	for (i = 0; i < OPTIONS_MAX_EAL_ARGS + 2; i++)
		words[i] = "-v";
	assert_int_equal(parse(OPTIONS_MAX_EAL_ARGS + 2, words), -EINVAL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_need_no_hugepages),
		cmocka_unit_test(the_documented_line_works),
		cmocka_unit_test(eal_choices_of_the_user_stay),
		cmocka_unit_test(own_options_are_read),
		cmocka_unit_test(wrong_options_are_named),
		cmocka_unit_test(too_many_arguments_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
