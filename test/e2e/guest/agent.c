/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Runs shell commands inside the test guest for a harness at the other end of a serial port.
 *
 * Harness to guest: "@run ID SECONDS LENGTH\n" and LENGTH bytes of shell text, or "@ping\n".
 * Guest to harness: "@hello BOOT_ID\n" at start and for each ping, and for each run
 * "@done ID STATUS LENGTH\n" and LENGTH bytes of output (stdout and stderr together). STATUS is the
 * exit status of the shell, 128 + N when signal N ended it, 124 when SECONDS were over.
 * A line that does not parse is dropped, so both sides find the next frame after a reboot cut one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_LEN   128
#define SCRIPT_MAX     (256 * 1024)
#define OUTPUT_MAX     (1024 * 1024)
#define STATUS_TIMEOUT 124

struct output {
	char *data;
	size_t len;
};

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static int
port_open(const char *path)
{
	struct termios tio;
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &tio) != 0)
		die(path);
	cfmakeraw(&tio);
	tio.c_cflag |= CLOCAL;
	cfsetspeed(&tio, B115200);
	if (tcsetattr(fd, TCSANOW, &tio) != 0)
		die("tcsetattr");
	return fd;
}

static void
port_read(int fd, char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = read(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("read");
		buf += n;
		len -= (size_t)n;
	}
}

static void
port_write(int fd, const char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("write");
		buf += n;
		len -= (size_t)n;
	}
}

/* One line without its end; what exceeds the buffer is dropped. */
static void
port_read_line(int fd, char line[LINE_MAX_LEN])
{
	size_t len = 0;
	char c;

	for (port_read(fd, &c, 1); c != '\n'; port_read(fd, &c, 1)) {
		if (len < LINE_MAX_LEN - 1)
			line[len++] = c;
	}
	line[len] = '\0';
}

static void
hello(int fd)
{
	char id[64] = "?";
	char line[LINE_MAX_LEN];
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (f != NULL) {
		if (fgets(id, sizeof(id), f) == NULL)
			id[0] = '?';
		id[strcspn(id, "\n")] = '\0';
		fclose(f);
	}
	port_write(fd, line, (size_t)snprintf(line, sizeof(line), "\n@hello %s\n", id));
}

static pid_t
shell_start(const char *script, int *ret_out, int *ret_pidfd)
{
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) != 0)
		die("pipe2");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

		setsid();
		dup2(null, 0);
		dup2(p[1], 1);
		dup2(p[1], 2);
		execl("/bin/busybox", "sh", "-c", script, (char *)NULL);
		_exit(127);
	}
	close(p[1]);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	*ret_out = p[0];
	*ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (*ret_pidfd < 0)
		die("pidfd_open");
	return pid;
}

/* Take what the pipe holds. Returns 0 when it may give more later, 1 at its end. */
static int
output_take(struct output *o, int fd)
{
	char buf[4096];

	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n == 0)
			return 1;
		if (n < 0)
			return errno != EAGAIN && errno != EINTR;
		if ((size_t)n > OUTPUT_MAX - o->len)
			n = (ssize_t)(OUTPUT_MAX - o->len);
		memcpy(o->data + o->len, buf, (size_t)n);
		o->len += (size_t)n;
	}
}

static long long
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/*
 * A background child may keep the pipe open: the end of the shell ends the run, not the end of
 * the output. When the time is over, the whole session of the shell is killed.
 */
static int
shell_run(const char *script, long seconds, struct output *o)
{
	long long deadline = now_ms() + seconds * 1000LL;
	int out, pidfd, status, timed_out = 0;
	pid_t pid = shell_start(script, &out, &pidfd);
	struct pollfd fds[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = out, .events = POLLIN}};

	for (;;) {
		long long left = deadline - now_ms();

		if (left <= 0) {
			timed_out = 1;
			kill(-pid, SIGKILL);
			break;
		}
		if (poll(fds, 2, (int)left) < 0 && errno != EINTR)
			die("poll");
		if ((fds[1].revents & (POLLIN | POLLHUP)) != 0 && output_take(o, out))
			fds[1].fd = -1;
		if ((fds[0].revents & POLLIN) != 0)
			break;
	}
	if (waitpid(pid, &status, 0) < 0)
		die("waitpid");
	if (fds[1].fd >= 0)
		output_take(o, out);
	close(out);
	close(pidfd);
	if (timed_out)
		return STATUS_TIMEOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void
on_run(int fd, unsigned int id, long seconds, size_t len, char *script, struct output *o)
{
	char line[LINE_MAX_LEN];
	int status;

	port_read(fd, script, len);
	script[len] = '\0';
	o->len = 0;
	status = shell_run(script, seconds, o);
	port_write(fd, line,
		(size_t)snprintf(line, sizeof(line), "\n@done %u %d %zu\n", id, status, o->len));
	port_write(fd, o->data, o->len);
}

int
main(int argc, char **argv)
{
	char *script = malloc(SCRIPT_MAX + 1);
	struct output o = {.data = malloc(OUTPUT_MAX)};
	char line[LINE_MAX_LEN];
	int fd;

	if (argc != 2 || script == NULL || o.data == NULL) {
		fprintf(stderr, "usage: agent PORT\n");
		return 2;
	}
	fd = port_open(argv[1]);
	hello(fd);
	for (;;) {
		unsigned int id;
		long seconds;
		size_t len;

		port_read_line(fd, line);
		if (strcmp(line, "@ping") == 0)
			hello(fd);
		else if (sscanf(line, "@run %u %ld %zu", &id, &seconds, &len) == 3 &&
			 len <= SCRIPT_MAX && seconds > 0 && seconds < 86400)
			on_run(fd, id, seconds, len, script, &o);
	}
}
