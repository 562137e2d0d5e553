/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of ports and of bringing lost devices back, on a real event loop and real sockets.
 */

#undef NDEBUG

#include "fake_vdpa.h"
#include "jobs.h"
#include "port.h"
#include "recover.h"
#include "watch.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_vhost.h>

static struct ev_loop *loop;
static struct jobs *jobs;
static struct watches *watches;
static char dir[64];
static char path[PORT_PATH_SIZE];
static const struct vfe_bdf vf = {0, 0xaf, 4, 5}, vf2 = {0, 0xaf, 4, 6};
static struct vfe_vdpa_error err;

static int
start(bool client)
{
	struct ports_cfg cfg = {.loop = NULL, .client = client, .prefix = dir};
	struct recover_cfg rec = {.vfio_user_dir = dir};

	snprintf(dir, sizeof(dir), "/tmp/vfe-port-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	fake_reset();
	loop = ev_loop_new(EVFLAG_AUTO);
	assert_int_equal(jobs_create(loop, &jobs, NULL), 0);
	assert_int_equal(watches_create(loop, &watches, NULL), 0);
	cfg.loop = rec.loop = loop;
	cfg.jobs = rec.jobs = jobs;
	cfg.watches = rec.watches = watches;
	assert_int_equal(recover_init(&rec, NULL), 0);
	return ports_init(&cfg, NULL);
}

static int
start_client(void **state)
{
	(void)state;
	return start(true);
}

static int
start_server(void **state)
{
	(void)state;
	return start(false);
}

static int
stop(void **state)
{
	char cmd[128];

	(void)state;
	jobs_stop(jobs);
	ports_fini();
	recover_fini();
	jobs_destroy(jobs);
	watches_destroy(watches);
	ev_loop_destroy(loop);
	assert_false(fake.leaked_socket);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void
on_tick(struct ev_loop *l, struct ev_timer *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(l, EVBREAK_ONE);
}

/* Run the loop until *@counter reaches @want; false after @ms. */
static bool
loop_until_ms(const int *counter, int want, uint64_t ms)
{
	struct vfe_deadline end = vfe_deadline_in_ms(ms);
	struct ev_timer tick;
	int now;

	ev_timer_init(&tick, on_tick, 0.002, 0.002);
	ev_timer_start(loop, &tick);
	do {
		ev_run(loop, EVRUN_ONCE);
		pthread_mutex_lock(&fake.lock);
		now = *counter;
		pthread_mutex_unlock(&fake.lock);
	} while (now < want && !vfe_deadline_passed(end));
	ev_timer_stop(loop, &tick);
	return now >= want;
}

static bool
loop_until(const int *counter, int want)
{
	return loop_until_ms(counter, want, 5000);
}

static int
listen_at(const char *where)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", where);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void
client_connects_when_the_socket_appears(void **state)
{
	struct port_info info;
	int fd;

	(void)state;
	assert_int_equal(port_add(&vf, path, PORT_AS_STARTED, &err), 0);
	assert_int_equal(port_info(&vf, &info), 0);
	assert_string_equal(info.path, path);
	assert_string_equal(info.role, "client");
	assert_false(loop_until_ms(&fake.nr_registered, 1, 50)); /* nothing there: nothing tried */

	fake.peer_listens = true;
	fd = listen_at(path);
	assert_true(loop_until(&fake.nr_connected, 1));
	assert_int_equal(fake.flags, RTE_VHOST_USER_CLIENT | RTE_VHOST_USER_NO_RECONNECT);

	/* the front-end goes and comes back at once */
	fake_hang_up(0);
	assert_true(loop_until(&fake.nr_connected, 2));
	assert_int_equal(fake.last_disconnected, 0);
	assert_int_equal(fake.nr_disconnected, 1);

	assert_int_equal(port_remove(&vf), 0);
	assert_int_equal(fake.nr_disconnected, 2);
	assert_int_equal(port_remove(&vf), -ENOENT);
	close(fd);
}

static void
client_retries_a_refusing_socket(void **state)
{
	int fd = listen_at(path);

	(void)state;
	fake.peer_listens = false;
	assert_int_equal(port_add(&vf, path, PORT_AS_STARTED, &err), 0);
	assert_true(loop_until(&fake.nr_started, 4));
	assert_int_equal(fake.nr_connected, 0);
	fake.peer_listens = true;
	assert_true(loop_until(&fake.nr_connected, 1));
	close(fd);
}

static void
refused_front_end_is_tried_again(void **state)
{
	int fd = listen_at(path);

	(void)state;
	fake.peer_listens = true;
	fake.refuse_connect = true;
	assert_int_equal(port_add(&vf, path, PORT_AS_STARTED, &err), 0);
	assert_true(loop_until(&fake.nr_started, 3));
	fake.refuse_connect = false;
	assert_true(loop_until(&fake.nr_connected, 1));
	close(fd);
}

static void
removing_a_waiting_port_ends_its_attempts(void **state)
{
	int fd = listen_at(path);

	(void)state;
	assert_int_equal(port_add(&vf, path, PORT_AS_STARTED, &err), 0);
	assert_true(loop_until(&fake.nr_started, 2));
	assert_int_equal(port_remove(&vf), 0);
	assert_int_equal(port_add(&vf, path, PORT_AS_STARTED, &err), 0); /* again at once */
	fake.peer_listens = true;
	assert_true(loop_until(&fake.nr_connected, 1));
	close(fd);
}

static void
server_takes_one_front_end(void **state)
{
	(void)state;
	assert_int_equal(port_add(&vf, path, PORT_AS_STARTED, &err), 0);
	assert_int_equal(fake.nr_started, 1);
	assert_int_equal(fake.flags, 0);
	assert_int_equal(fake_come(7), 0);
	fake.refuse_connect = true; /* the driver refuses a second one while the first lives */
	assert_int_equal(fake_come(8), -1);
	assert_int_equal(fake.nr_connected, 1);
	fake_hang_up(8); /* the one that was refused */
	assert_int_equal(fake.nr_disconnected, 0);
	fake.refuse_connect = false;

	/* the next one is seen before the end of the first: that end does not hit the new one */
	assert_int_equal(fake_come(9), 0);
	fake_hang_up(7);
	assert_int_equal(fake.nr_disconnected, 0);
	fake_hang_up(9);
	assert_int_equal(fake.nr_disconnected, 1);
	assert_int_equal(fake.last_disconnected, 9);
	assert_int_equal(fake_come(10), 0);
}

static void
paths_are_checked(void **state)
{
	char long_path[300], chosen[PORT_PATH_SIZE], want[PORT_PATH_SIZE];
	int fd;

	(void)state;
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[0] = '/';
	long_path[sizeof(long_path) - 1] = '\0';
	assert_true(port_path_check(&vf, long_path, PORT_AS_STARTED, chosen, &err) < 0);
	assert_int_equal(err.code, VFE_VDPA_VF_SOCKET_ACCESS);
	assert_true(port_path_check(&vf, "relative", PORT_AS_STARTED, chosen, &err) < 0);
	assert_true(port_path_check(&vf, "/tmp/", PORT_AS_STARTED, chosen, &err) < 0);
	assert_true(port_path_check(&vf, "", PORT_AS_STARTED, chosen, &err) < 0);
	assert_true(port_path_check(&vf, "/nowhere/at/all", PORT_AS_STARTED, chosen, &err) < 0);
	assert_non_null(strstr(err.err.text, "/nowhere/at"));

	assert_int_equal(port_path_check(&vf, NULL, PORT_AS_STARTED, chosen, &err), 0);
	snprintf(want, sizeof(want), "%s0000:af:04.5", dir);
	assert_string_equal(chosen, want);

	/* somebody listens; then he is gone and the left-over does not hinder */
	fd = listen_at(path);
	assert_true(port_path_check(&vf, path, PORT_AS_STARTED, chosen, &err) < 0);
	assert_int_equal(err.code, VFE_VDPA_VF_SOCKET_EXISTS);
	close(fd);
	assert_int_equal(port_path_check(&vf, path, PORT_AS_STARTED, chosen, &err), 0);
	assert_int_equal(access(path, F_OK), -1);

	/* a file that is no socket is never removed */
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_true(port_path_check(&vf, path, PORT_AS_STARTED, chosen, &err) < 0);
	assert_int_equal(err.code, VFE_VDPA_VF_SOCKET_EXISTS);
	assert_int_equal(unlink(path), 0);

	/* nor may two VFs share one */
	assert_int_equal(port_add(&vf, path, PORT_AS_STARTED, &err), 0);
	assert_true(port_path_check(&vf2, path, PORT_AS_STARTED, chosen, &err) < 0);
	assert_non_null(strstr(err.err.text, "0000:af:04.5"));
}

static void
roles_have_names(void **state)
{
	enum port_role role;

	(void)state;
	assert_int_equal(port_role_parse(NULL, &role), 0);
	assert_int_equal(role, PORT_AS_STARTED);
	assert_int_equal(port_role_parse("server", &role), 0);
	assert_int_equal(role, PORT_SERVER);
	assert_int_equal(port_role_parse("client", &role), 0);
	assert_int_equal(role, PORT_CLIENT);
	assert_int_equal(port_role_parse("", &role), -EINVAL);
	assert_int_equal(port_role_parse("Client", &role), -EINVAL);
	assert_int_equal(port_role_parse("clients", &role), -EINVAL);
}

/* Whatever the service was started as, each port has the role that was said for it. */
static void
both_roles_at_once(void **state)
{
	char other[sizeof(path) + 8];
	struct port_info info;
	int fd;

	(void)state;
	snprintf(other, sizeof(other), "%s2", path);
	fake.peer_listens = true;
	assert_int_equal(port_add(&vf, path, PORT_SERVER, &err), 0);
	assert_int_equal(fake.flags, 0);
	assert_int_equal(port_add(&vf2, other, PORT_CLIENT, &err), 0);
	assert_int_equal(port_info(&vf, &info), 0);
	assert_string_equal(info.role, "server");
	assert_int_equal(port_info(&vf2, &info), 0);
	assert_string_equal(info.role, "client");

	fd = listen_at(other);
	assert_true(loop_until(&fake.nr_connected, 1));
	assert_int_equal(fake.flags, RTE_VHOST_USER_CLIENT | RTE_VHOST_USER_NO_RECONNECT);
	assert_int_equal(fake_come_to(path, 9), 0);

	/* a lost connection is made again by the client only */
	fake_hang_up(9);
	fake_hang_up(0);
	assert_true(loop_until(&fake.nr_connected, 3));
	assert_false(loop_until_ms(&fake.nr_connected, 4, 50));
	assert_int_equal(fake_come_to(path, 10), 0);

	/* the socket of a server goes with it; that of a client belongs to the front-end */
	assert_int_equal(port_remove(&vf), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(port_remove(&vf2), 0);
	assert_int_equal(access(other, F_OK), 0);
	assert_int_equal(port_info(&vf2, &info), -ENOENT);
	assert_string_equal(info.role, "");
	close(fd);
}

static void
role_can_change_on_the_same_path(void **state)
{
	char chosen[PORT_PATH_SIZE];
	int fd;

	(void)state;
	assert_int_equal(port_add(&vf, path, PORT_SERVER, &err), 0);
	assert_int_equal(port_remove(&vf), 0);

	fd = listen_at(path);
	fake.peer_listens = true;
	assert_int_equal(port_path_check(&vf, path, PORT_CLIENT, chosen, &err), 0);
	assert_int_equal(port_add(&vf, path, PORT_CLIENT, &err), 0);
	assert_true(loop_until(&fake.nr_connected, 1));
	assert_int_equal(port_remove(&vf), 0);

	assert_true(port_path_check(&vf, path, PORT_SERVER, chosen, &err) < 0);
	assert_non_null(strstr(err.err.text, "add the VF with --client"));
	close(fd);
	assert_int_equal(port_path_check(&vf, path, PORT_SERVER, chosen, &err), 0);
	assert_int_equal(port_add(&vf, path, PORT_SERVER, &err), 0);
	assert_int_equal(fake_come(9), 0);
}

/* QEMU takes the path of a socket on which it is to listen, whoever listens there. */
static void
socket_that_qemu_put_in_place_of_ours_stays(void **state)
{
	struct stat st, now;
	int fd;

	(void)state;
	assert_int_equal(port_add(&vf, path, PORT_SERVER, &err), 0);
	assert_int_equal(unlink(path), 0);
	fd = listen_at(path);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(port_remove(&vf), 0);
	assert_int_equal(lstat(path, &now), 0);
	assert_true(now.st_ino == st.st_ino && now.st_nlink == 1);

	/* so that a mistake can be mended */
	fake.peer_listens = true;
	assert_int_equal(port_add(&vf, path, PORT_CLIENT, &err), 0);
	assert_true(loop_until(&fake.nr_connected, 1));
	close(fd);
}

/* It came between the check of the path and the end of adding the VF. */
static void
listener_that_came_meanwhile_is_left_alone(void **state)
{
	struct stat st, now;
	int fd = listen_at(path);

	(void)state;
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(port_add(&vf, path, PORT_SERVER, &err), -EADDRINUSE);
	assert_int_equal(err.code, VFE_VDPA_VF_SOCKET_EXISTS);
	assert_int_equal(fake.nr_registered, 0);
	assert_int_equal(lstat(path, &now), 0);
	assert_true(now.st_ino == st.st_ino);
	close(fd);
}

static void
own_socket_by_another_name_is_no_front_end(void **state)
{
	char alias[sizeof(path) + 8], chosen[PORT_PATH_SIZE];
	int fd;

	(void)state;
	snprintf(alias, sizeof(alias), "%s.alias", path);
	fake.peer_listens = true;
	assert_int_equal(port_add(&vf, path, PORT_SERVER, &err), 0);

	/* it appears later */
	assert_int_equal(port_add(&vf2, alias, PORT_CLIENT, &err), 0);
	assert_int_equal(symlink(path, alias), 0);
	assert_false(loop_until_ms(&fake.nr_started, 2, 100));
	assert_int_equal(unlink(alias), 0);
	fd = listen_at(alias);
	assert_true(loop_until(&fake.nr_connected, 1));
	assert_int_equal(port_remove(&vf2), 0);
	close(fd);

	/* it is there */
	assert_int_equal(unlink(alias), 0);
	assert_int_equal(link(path, alias), 0);
	assert_true(port_path_check(&vf2, alias, PORT_CLIENT, chosen, &err) < 0);
	assert_non_null(strstr(err.err.text, "is the socket of VF 0000:af:04.5"));
	assert_true(port_path_check(&vf2, alias, PORT_SERVER, chosen, &err) < 0);
	assert_int_equal(err.code, VFE_VDPA_VF_SOCKET_EXISTS);
}

static void
client_does_not_wait_for_what_is_no_socket(void **state)
{
	char chosen[PORT_PATH_SIZE];
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	(void)state;
	assert_true(fd >= 0);
	assert_true(port_path_check(&vf, path, PORT_CLIENT, chosen, &err) < 0);
	assert_int_equal(err.code, VFE_VDPA_VF_SOCKET_EXISTS);
	assert_true(port_path_check(&vf, dir, PORT_CLIENT, chosen, &err) < 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(port_path_check(&vf, path, PORT_CLIENT, chosen, &err), 0);

	/* a left-over socket is for QEMU to replace */
	close(listen_at(path));
	assert_int_equal(port_path_check(&vf, path, PORT_CLIENT, chosen, &err), 0);
	assert_int_equal(access(path, F_OK), 0);
	close(fd);
}

static void
lost_device_is_tried_until_it_is_back(void **state)
{
	char sock[128];
	int fd;

	(void)state;
	fake.reattach_results[0] = -EAGAIN;
	fake.reattach_results[1] = -EPROTO;
	fake.reattach_results[2] = -EAGAIN;
	recover_on_lost(NULL, &vf, "test");
	recover_on_lost(NULL, &vf, "told twice");
	assert_true(loop_until(&fake.nr_reattached, 1));
	snprintf(sock, sizeof(sock), "%s/0000:af:04.5.sock", dir);
	fd = listen_at(sock);
	assert_true(loop_until(&fake.nr_reattached, 4));

	/* it is back: nothing more is tried, but a new loss is */
	assert_false(loop_until_ms(&fake.nr_reattached, 8, 100));
	recover_on_lost(NULL, &vf, "again");
	fake.nr_reattached = 0;
	memset(fake.reattach_results, 0, sizeof(fake.reattach_results));
	assert_true(loop_until(&fake.nr_reattached, 1));
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			client_connects_when_the_socket_appears, start_client, stop),
		cmocka_unit_test_setup_teardown(
			client_retries_a_refusing_socket, start_client, stop),
		cmocka_unit_test_setup_teardown(
			refused_front_end_is_tried_again, start_client, stop),
		cmocka_unit_test_setup_teardown(
			removing_a_waiting_port_ends_its_attempts, start_client, stop),
		cmocka_unit_test_setup_teardown(server_takes_one_front_end, start_server, stop),
		cmocka_unit_test_setup_teardown(paths_are_checked, start_server, stop),
		cmocka_unit_test(roles_have_names),
		cmocka_unit_test_setup_teardown(both_roles_at_once, start_server, stop),
		cmocka_unit_test_setup_teardown(both_roles_at_once, start_client, stop),
		cmocka_unit_test_setup_teardown(
			role_can_change_on_the_same_path, start_client, stop),
		cmocka_unit_test_setup_teardown(
			socket_that_qemu_put_in_place_of_ours_stays, start_server, stop),
		cmocka_unit_test_setup_teardown(
			listener_that_came_meanwhile_is_left_alone, start_server, stop),
		cmocka_unit_test_setup_teardown(
			own_socket_by_another_name_is_no_front_end, start_server, stop),
		cmocka_unit_test_setup_teardown(
			client_does_not_wait_for_what_is_no_socket, start_server, stop),
		cmocka_unit_test_setup_teardown(
			lost_device_is_tried_until_it_is_back, start_client, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
