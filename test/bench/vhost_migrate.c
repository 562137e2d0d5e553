/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A vhost-user front-end that plays a VM of one or more net devices which arrives by a migration
 * and leaves by another one, and measures how long the back end keeps it waiting.
 *
 * The messages and which of them are waited for are QEMU 7.2's: a QEMU device per VF, a vhost
 * device per queue pair, one after the other. Arrived is a device when it gives back a buffer that
 * was on its transmit ring all the time. A line of input asks for one arrival and one departure:
 *
 *	listen PREFIX	the back end connects to the sockets PREFIX0, PREFIX1, ... ("listening")
 *	connect PREFIX	the back end listens there
 *	floor		a process that only reads and answers is the back end
 *
 * and is answered by a line of JSON. Guest memory is one file that stays, and is there in full.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vhost_msg.h"

enum {
	MAX_PAIRS = 64,
	MAX_QUEUES = 2 * MAX_PAIRS,
	MAX_VFS = 64,
	MAX_MEMORY_MIB = 65536,
	RING_SIZE = 256,
	PAGE = 4096,
	RING_SPACE = 4 * PAGE,  /* descriptors, available ring, used ring, a buffer */
	LOW_MEMORY = 640 << 10, /* a PC has a hole after that */
	HIGH_MEMORY = 1 << 20,
	FIRST_INDEX = 4711, /* of all rings, as if they had been in use before */
	PACKET = 12 + 64,
	STATUS_FEATURES_OK = 8,
	DRIVER_STATUS = 1 | 2 | STATUS_DRIVER_OK,
	TX_RING = 1, /* the one with a packet on it */
};

#define F_NET_MQ (1ULL << 22)

/* What the guest's driver and QEMU want of what is offered. */
#define DRIVER_FEATURES (F_VERSION_1 | F_PROTOCOL_FEATURES | F_NET_MQ)

#define PROTOCOL_FEATURES \
	(1ULL << PF_MQ | 1ULL << PF_LOG_SHMFD | 1ULL << PF_REPLY_ACK | 1ULL << PF_STATUS)

/* What is waited for after a request. */
enum answer {
	NOTHING,
	ACK,   /* an acknowledgement, if that was negotiated */
	REPLY, /* the request always has a reply */
};

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct ring {
	struct desc desc[RING_SIZE];
	uint16_t avail[PAGE / sizeof(uint16_t)]; /* flags, index, ring */
	uint16_t used[PAGE / sizeof(uint16_t)];  /* flags, index, then 8-byte elements */
	uint8_t buf[PAGE];
};

_Static_assert(sizeof(struct ring) == RING_SPACE, "place of a ring in guest memory");

/* One VF. */
struct front {
	int conn;
	uint64_t features;
	uint64_t protocol_features;
	int kick[MAX_QUEUES];
	int call[MAX_QUEUES];
};

/* One measured phase. */
struct phase {
	int64_t ns;
	unsigned int messages;
	unsigned int answers;
	struct {
		unsigned int count;
		int64_t ns;
		int64_t longest;
	} by[NR_REQUESTS]; /* answers by request */
};

static const char *const request_names[NR_REQUESTS] = {
	[SET_FEATURES] = "SET_FEATURES",
	[SET_MEM_TABLE] = "SET_MEM_TABLE",
	[SET_VRING_ADDR] = "SET_VRING_ADDR",
	[GET_VRING_BASE] = "GET_VRING_BASE",
	[SET_VRING_ENABLE] = "SET_VRING_ENABLE",
	[SET_STATUS] = "SET_STATUS",
	[GET_STATUS] = "GET_STATUS",
};

static uint64_t memory_mib = 256;
static uint32_t nr_vfs = 1, nr_queues = 2;
static int settle_ms = 225, back_cpu = -1;
static bool want_log, open_log;

static uint8_t *mem, *log_map;
static uint64_t mem_size, log_size;
static int mem_fd, log_fd;
static struct front fronts[MAX_VFS];
static struct phase *phase; /* the one that is going on */

/* --- guest memory --- */

static struct ring *
ring_at(uint32_t vf, uint32_t queue)
{
	return (struct ring *)(void *)(mem + HIGH_MEMORY) + (size_t)vf * nr_queues + queue;
}

static uint64_t
gpa_of(const void *p)
{
	return (uint64_t)((const uint8_t *)p - mem);
}

/* Sealed as QEMU does it: it can never shrink below anybody's feet. */
static int
memory_file(const char *name, uint64_t size, bool seal, uint8_t **ret)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
		die(name);
	if (seal && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
		die(name);
	*ret = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (*ret == MAP_FAILED)
		die(name);
	return fd;
}

static void
memory_create(void)
{
	uint64_t rings = (uint64_t)nr_vfs * nr_queues * RING_SPACE, i;

	mem_size = memory_mib << 20;
	errno = ENOMEM;
	if (mem_size < HIGH_MEMORY + rings)
		die("guest memory has no room for the rings");
	mem_fd = memory_file("guest", mem_size, true, &mem);
	/* a page that was only mapped could still be the kernel's page of zeroes */
	for (i = 0; i < mem_size; i += PAGE)
		mem[i] = 1;
	log_size = (mem_size / PAGE + 7) / 8;
	log_size = (log_size + PAGE - 1) / PAGE * PAGE;
	log_fd = memory_file("log", log_size, !open_log, &log_map);
}

/* Rings that have been in use, and one packet on each VF's transmit ring. */
static void
rings_fill(void)
{
	uint32_t vf, queue;
	struct ring *r;

	for (vf = 0; vf < nr_vfs; vf++) {
		for (queue = 0; queue < nr_queues; queue++) {
			r = ring_at(vf, queue);
			memset(r, 0, sizeof(*r));
			r->avail[1] = FIRST_INDEX;
			r->used[1] = FIRST_INDEX;
		}
		r = ring_at(vf, TX_RING);
		r->desc[0].addr = gpa_of(r->buf);
		r->desc[0].len = PACKET;
		r->avail[1] = FIRST_INDEX + 1; /* its entry is 0, as is all of the ring */
	}
	atomic_thread_fence(memory_order_seq_cst);
}

static bool
packet_is_back(uint32_t vf)
{
	_Atomic uint16_t *index = (_Atomic uint16_t *)&ring_at(vf, TX_RING)->used[1];

	return atomic_load_explicit(index, memory_order_acquire) != FIRST_INDEX;
}

/* --- messages --- */

static void
await(int fd, const char *what)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	errno = ETIMEDOUT;
	if (poll(&p, 1, VHOST_TIMEOUT_MS) != 1)
		die(what);
}

/* Send a request, take its answer if there is one, and note how long that took. */
static void
ask(struct front *f, struct msg *m, const int *fds, int nr_fds, enum answer answer)
{
	bool ack = answer == ACK && (f->protocol_features & 1ULL << PF_REPLY_ACK) != 0;
	uint32_t request = m->request;
	int64_t ns = now_ns();

	m->flags = FLAG_VERSION | (ack ? FLAG_NEED_REPLY : 0);
	msg_send(f->conn, m, fds, nr_fds);
	phase->messages++;
	if (answer == NOTHING || (answer == ACK && !ack))
		return;
	await(f->conn, "the back end does not answer");
	msg_recv(f->conn, m);
	errno = EPROTO;
	if (m->request != request || (m->flags & FLAG_REPLY) == 0)
		die("an answer to something else");
	if (ack && m->u.u64 != 0)
		die("the back end refused a request");
	ns = now_ns() - ns;
	phase->answers++;
	phase->by[request].count++;
	phase->by[request].ns += ns;
	if (ns > phase->by[request].longest)
		phase->by[request].longest = ns;
}

static uint64_t
get_u64(struct front *f, uint32_t request)
{
	struct msg m = {.request = request};

	ask(f, &m, NULL, 0, REPLY);
	return m.u.u64;
}

static void
set_u64(struct front *f, uint32_t request, uint64_t value, enum answer answer)
{
	struct msg m = {.request = request, .size = sizeof(m.u.u64), .u.u64 = value};

	ask(f, &m, NULL, 0, answer);
}

static void
set_file(struct front *f, uint32_t request, uint32_t queue, int fd)
{
	struct msg m = {.request = request, .size = sizeof(m.u.u64), .u.u64 = queue};

	ask(f, &m, &fd, 1, NOTHING);
}

static uint32_t
state(struct front *f, uint32_t request, uint32_t queue, uint32_t num, enum answer answer)
{
	struct msg m = {.request = request,
		.size = sizeof(m.u.state),
		.u.state = {.index = queue, .num = num}};

	ask(f, &m, NULL, 0, answer);
	return m.u.state.num;
}

static void
set_mem_table(struct front *f)
{
	uint64_t uva = (uintptr_t)mem;
	int fds[VHOST_MAX_REGIONS] = {mem_fd, mem_fd};
	struct msg m = {.request = SET_MEM_TABLE,
		.size = 8 + sizeof(m.u.mem.regions),
		.u.mem = {.nregions = VHOST_MAX_REGIONS,
			.regions = {{.gpa = 0, .size = LOW_MEMORY, .uva = uva},
				{.gpa = HIGH_MEMORY,
					.size = mem_size - HIGH_MEMORY,
					.uva = uva + HIGH_MEMORY,
					.offset = HIGH_MEMORY}}}};

	ask(f, &m, fds, VHOST_MAX_REGIONS, ACK);
}

static void
set_addr(struct front *f, uint32_t queue, bool log)
{
	struct ring *r = ring_at((uint32_t)(f - fronts), queue);
	struct msg m = {.request = SET_VRING_ADDR,
		.size = sizeof(m.u.addr),
		.u.addr = {.index = queue,
			.flags = log ? VRING_F_LOG : 0,
			.desc = (uintptr_t)r->desc,
			.avail = (uintptr_t)r->avail,
			.used = (uintptr_t)r->used,
			.log = gpa_of(r->used)}};

	ask(f, &m, NULL, 0, log ? ACK : NOTHING);
}

/* --- what QEMU says --- */

/* When the back end has connected, before there is a guest. */
static void
introduce(struct front *f)
{
	uint64_t wanted =
		1ULL << PF_MQ | 1ULL << PF_LOG_SHMFD | 1ULL << PF_REPLY_ACK | 1ULL << PF_STATUS;
	uint32_t queue;

	f->features = get_u64(f, GET_FEATURES);
	errno = EPROTO;
	if ((f->features & F_VERSION_1) == 0 || (f->features & F_PROTOCOL_FEATURES) == 0)
		die("the back end offers no VERSION_1 or no protocol features");
	wanted &= get_u64(f, GET_PROTOCOL_FEATURES);
	set_u64(f, SET_PROTOCOL_FEATURES, wanted, NOTHING);
	f->protocol_features = wanted;
	if (get_u64(f, GET_QUEUE_NUM) * 2 < nr_queues)
		die("the back end has too few queues");
	set_u64(f, SET_OWNER, 0, NOTHING);
	for (queue = 0; queue < nr_queues; queue++) {
		f->kick[queue] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		f->call[queue] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (f->kick[queue] < 0 || f->call[queue] < 0)
			die("eventfd");
		set_file(f, SET_VRING_CALL, queue, f->call[queue]);
	}
}

static bool
has_status(const struct front *f)
{
	return (f->protocol_features & 1ULL << PF_STATUS) != 0;
}

static void
status_add(struct front *f, uint64_t bits)
{
	uint64_t status = get_u64(f, GET_STATUS);

	if ((status & bits) != bits)
		set_u64(f, SET_STATUS, status | bits, NOTHING);
}

static void
set_features(struct front *f, uint64_t more, enum answer answer)
{
	set_u64(f, SET_FEATURES, (f->features & DRIVER_FEATURES) | more, answer);
	if (has_status(f))
		status_add(f, STATUS_FEATURES_OK);
}

static void
ring_start(struct front *f, uint32_t queue)
{
	state(f, SET_VRING_NUM, queue, RING_SIZE, NOTHING);
	state(f, SET_VRING_BASE, queue, FIRST_INDEX, NOTHING);
	set_addr(f, queue, false);
	set_file(f, SET_VRING_KICK, queue, f->kick[queue]);
	set_file(f, SET_VRING_CALL, queue, f->call[queue]);
}

/* The destination: the guest's state is loaded, and the device is to run. */
static void
device_start(struct front *f)
{
	uint32_t i, queue;

	/* the number of queue pairs comes up twice in the guest's state */
	for (i = 0; i < 2 * nr_queues; i++)
		state(f, SET_VRING_ENABLE, i % nr_queues, 1, NOTHING);
	for (queue = 0; queue < nr_queues; queue += 2) {
		state(f, SET_VRING_ENABLE, queue, 1, NOTHING);
		state(f, SET_VRING_ENABLE, queue + 1, 1, NOTHING);
		set_features(f, 0, NOTHING);
		if (queue == 0)
			set_mem_table(f);
		ring_start(f, queue);
		ring_start(f, queue + 1);
	}
	if (has_status(f))
		status_add(f, DRIVER_STATUS);
}

/* The source, at the beginning of the migration. */
static void
log_start(struct front *f)
{
	uint32_t queue;
	struct msg m;

	for (queue = 0; queue < nr_queues; queue += 2) {
		m = (struct msg){.request = SET_LOG_BASE,
			.size = sizeof(m.u.log),
			.u.log = {.size = log_size}};
		ask(f, &m, &log_fd, 1, REPLY);
		set_features(f, F_LOG_ALL, ACK);
		set_addr(f, queue, true);
		set_addr(f, queue + 1, true);
	}
}

static void
ring_stop(struct front *f, uint32_t queue)
{
	uint32_t index = state(f, GET_VRING_BASE, queue, 0, REPLY);

	errno = EPROTO;
	if (index != FIRST_INDEX + (queue == TX_RING ? 1 : 0))
		die("a ring stands where it should not");
}

/* The source, with the guest's processors stopped. */
static void
device_stop(struct front *f)
{
	uint32_t queue;

	for (queue = 0; queue < nr_queues; queue += 2) {
		if (queue == nr_queues - 2 && has_status(f))
			set_u64(f, SET_STATUS, 0, NOTHING);
		ring_stop(f, queue);
		ring_stop(f, queue + 1);
	}
}

/* --- the least that a back end can take --- */

/* What it knows of a VF. */
struct floor_vf {
	int call;
	uint64_t status;
};

static void
floor_set_call(struct floor_vf *vf, int fd)
{
	if (vf->call >= 0)
		close(vf->call);
	vf->call = fd;
}

static void
floor_set_status(struct floor_vf *vf, uint32_t index, uint64_t status)
{
	uint64_t one = 1;

	if ((status & ~vf->status & STATUS_DRIVER_OK) != 0) {
		ring_at(index, TX_RING)->used[1]++;
		if (write(vf->call, &one, sizeof(one)) != sizeof(one))
			die("call");
	}
	vf->status = status;
}

/* Do what a message says and make it its answer; false if it has none. */
static bool
floor_handle(struct floor_vf *vf, uint32_t index, struct msg *m)
{
	bool reply = (m->flags & FLAG_NEED_REPLY) != 0;
	uint32_t queue;

	switch (m->request) {
	case SET_STATUS:
		floor_set_status(vf, index, m->u.u64);
		break;
	case GET_STATUS:
		m->u.u64 = vf->status;
		return true;
	case GET_VRING_BASE:
		queue = m->u.state.index;
		m->u.state.num = ring_at(index, queue)->used[1];
		return true;
	case GET_FEATURES:
		m->u.u64 = DRIVER_FEATURES | F_LOG_ALL;
		return true;
	case GET_PROTOCOL_FEATURES:
		m->u.u64 = PROTOCOL_FEATURES;
		return true;
	case GET_QUEUE_NUM:
		m->u.u64 = MAX_PAIRS;
		return true;
	case SET_LOG_BASE:
		return true;
	default:
		break;
	}
	m->u.u64 = 0;
	return reply;
}

/* One message; false at the end of the connection. */
static bool
floor_message(int conn, struct floor_vf *vf, uint32_t index)
{
	int fds[VHOST_MAX_FDS], n, i;
	struct msg m;

	n = msg_recv_fds(conn, &m, fds);
	if (n < 0)
		return false;
	for (i = 0; i < n; i++) {
		if (m.request == SET_VRING_CALL && m.u.u64 == TX_RING)
			floor_set_call(vf, fds[i]);
		else
			close(fds[i]);
	}
	if (!floor_handle(vf, index, &m))
		return true;
	m.flags = FLAG_VERSION | FLAG_REPLY;
	m.size = sizeof(m.u.u64);
	msg_send(conn, &m, NULL, 0);
	return true;
}

static _Noreturn void
floor_serve(const int *conns)
{
	struct floor_vf vfs[MAX_VFS];
	struct pollfd fds[MAX_VFS];
	uint32_t i, left = nr_vfs;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (back_cpu >= 0)
		pin(back_cpu);
	for (i = 0; i < nr_vfs; i++) {
		fds[i] = (struct pollfd){.fd = conns[i], .events = POLLIN};
		vfs[i] = (struct floor_vf){.call = -1};
	}
	while (left > 0) {
		if (poll(fds, nr_vfs, -1) < 0)
			die("poll");
		for (i = 0; i < nr_vfs; i++) {
			if (fds[i].revents == 0 || floor_message(fds[i].fd, &vfs[i], i))
				continue;
			fds[i].fd = -1;
			left--;
		}
	}
	_exit(0);
}

/* Its connections must be in nobody's hands but its own and ours, or it would never end. */
static void
floor_start(void)
{
	int pair[2], theirs[MAX_VFS];
	uint32_t i;
	pid_t pid;

	for (i = 0; i < nr_vfs; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
			die("socketpair");
		fronts[i].conn = pair[0];
		theirs[i] = pair[1];
	}
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		for (i = 0; i < nr_vfs; i++)
			close(fronts[i].conn);
		floor_serve(theirs);
	}
	for (i = 0; i < nr_vfs; i++)
		close(theirs[i]);
}

/* --- a run --- */

static void
sockets_open(bool listening, const char *prefix)
{
	char path[128];
	int listeners[MAX_VFS];
	uint32_t i;

	for (i = 0; i < nr_vfs; i++) {
		snprintf(path, sizeof(path), "%s%u", prefix, i);
		if (listening)
			listeners[i] = listen_at(path);
		else
			fronts[i].conn = connect_to(path);
	}
	if (!listening)
		return;
	printf("listening\n");
	fflush(stdout);
	for (i = 0; i < nr_vfs; i++) {
		snprintf(path, sizeof(path), "%s%u", prefix, i);
		fronts[i].conn = accept_from(listeners[i]);
		close(listeners[i]);
		unlink(path);
	}
}

static void
sockets_close(void)
{
	uint32_t i, queue;

	for (i = 0; i < nr_vfs; i++) {
		close(fronts[i].conn);
		for (queue = 0; queue < nr_queues; queue++) {
			close(fronts[i].kick[queue]);
			close(fronts[i].call[queue]);
		}
	}
}

static void
phase_print(const char *name, const struct phase *p)
{
	const char *comma = "";
	uint32_t r;

	printf(", \"%s\": {\"ns\": %lld, \"messages\": %u, \"answers\": %u, \"by_request\": {",
		name, (long long)p->ns, p->messages, p->answers);
	for (r = 0; r < NR_REQUESTS; r++) {
		if (p->by[r].count == 0 || request_names[r] == NULL)
			continue;
		printf("%s\"%s\": {\"count\": %u, \"ns\": %lld, \"longest_ns\": %lld}", comma,
			request_names[r], p->by[r].count, (long long)p->by[r].ns,
			(long long)p->by[r].longest);
		comma = ", ";
	}
	printf("}}");
}

/* The VM arrives: until each of its devices has given its packet back. */
static void
arrive(struct phase *p)
{
	uint32_t i;

	phase = p;
	p->ns = now_ns();
	for (i = 0; i < nr_vfs; i++)
		device_start(&fronts[i]);
	for (i = 0; i < nr_vfs; i++) {
		while (!packet_is_back(i))
			await(fronts[i].call[TX_RING], "a packet does not come back");
	}
	p->ns = now_ns() - p->ns;
}

/* The VM leaves: until each ring's index is known. */
static void
leave(struct phase *p)
{
	uint32_t i;

	phase = p;
	p->ns = now_ns();
	for (i = 0; i < nr_vfs; i++)
		device_stop(&fronts[i]);
	p->ns = now_ns() - p->ns;
}

static bool
all_log(void)
{
	uint32_t i;

	for (i = 0; i < nr_vfs; i++) {
		if ((fronts[i].features & F_LOG_ALL) == 0 ||
			(fronts[i].protocol_features & 1ULL << PF_LOG_SHMFD) == 0)
			return false;
	}
	return true;
}

static void
run(const char *what, const char *prefix)
{
	struct phase other = {0}, in = {0}, out = {0};
	bool log, is_floor = strcmp(what, "floor") == 0;
	uint32_t i;

	if (is_floor)
		floor_start();
	else
		sockets_open(strcmp(what, "listen") == 0, prefix);
	phase = &other;
	for (i = 0; i < nr_vfs; i++)
		introduce(&fronts[i]);
	rings_fill();
	/* what a back end still does after the last departure and the connection has its time */
	poll(NULL, 0, settle_ms);
	arrive(&in);
	phase = &other;
	log = want_log && all_log();
	for (i = 0; log && i < nr_vfs; i++)
		log_start(&fronts[i]);
	/*
	 * And what it does when a device runs: the service looks at the configuration after 100 ms
	 * and, if it has to, at what is dirty every 150 ms. Not at the very same time as we leave.
	 */
	poll(NULL, 0, settle_ms);
	leave(&out);
	sockets_close();
	if (is_floor)
		wait(NULL);
	printf("{\"back_end\": \"%s\", \"log\": %s", what, log ? "true" : "false");
	phase_print("destination", &in);
	phase_print("source", &out);
	printf("}\n");
	fflush(stdout);
}

static void
raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void
usage(void)
{
	fputs("usage: vhost-migrate [--memory MIB] [--pairs N] [--vfs N] [--log | --open-log]\n"
	      "                     [--cpu N] [--back-cpu N] [--settle MS]\n"
	      "\n"
	      "  --memory MIB    guest memory (256)\n"
	      "  --pairs N       queue pairs of each VF (1)\n"
	      "  --vfs N         VFs of the VM (1)\n"
	      "  --log           dirty pages are logged before the VM leaves, if the back end can\n"
	      "  --open-log      the same in a file that could shrink: no device may write it "
	      "itself\n"
	      "  --cpu N         run here\n"
	      "  --back-cpu N    the back end of \"floor\" runs here\n"
	      "  --settle MS     wait so long before each measurement (225)\n"
	      "\n"
	      "Input: lines \"listen PREFIX\", \"connect PREFIX\", \"floor\".\n",
		stderr);
}

/* A number of an option, in its limits; the program ends if it is none. */
static long
number(const char *text, long min, long max)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || n < min || n > max) {
		usage();
		exit(2);
	}
	return n;
}

static void
options(int argc, char **argv)
{
	static const struct option all[] = {
		{"memory", required_argument, NULL, 'm'},
		{"pairs", required_argument, NULL, 'p'},
		{"vfs", required_argument, NULL, 'v'},
		{"log", no_argument, NULL, 'l'},
		{"open-log", no_argument, NULL, 'o'},
		{"cpu", required_argument, NULL, 'c'},
		{"back-cpu", required_argument, NULL, 'b'},
		{"settle", required_argument, NULL, 's'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", all, NULL)) != -1) {
		if (c == 'm')
			memory_mib = (uint64_t)number(optarg, 2, MAX_MEMORY_MIB);
		else if (c == 'p')
			nr_queues = 2 * (uint32_t)number(optarg, 1, MAX_PAIRS);
		else if (c == 'v')
			nr_vfs = (uint32_t)number(optarg, 1, MAX_VFS);
		else if (c == 'l')
			want_log = true;
		else if (c == 'o')
			want_log = open_log = true;
		else if (c == 'c')
			pin((int)number(optarg, 0, CPU_SETSIZE - 1));
		else if (c == 'b')
			back_cpu = (int)number(optarg, 0, CPU_SETSIZE - 1);
		else if (c == 's')
			settle_ms = (int)number(optarg, 0, VHOST_TIMEOUT_MS);
		else
			number("", 0, 0);
	}
	if (optind != argc)
		number("", 0, 0);
}

int
main(int argc, char **argv)
{
	char line[160], what[16], prefix[128];
	int words;

	options(argc, argv);
	raise_fd_limit();
	memory_create();
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		words = sscanf(line, "%15s %127s", what, prefix);
		if (words == 1 && strcmp(what, "floor") == 0) {
			run(what, NULL);
		} else if (words == 2 &&
			   (strcmp(what, "listen") == 0 || strcmp(what, "connect") == 0)) {
			run(what, prefix);
		} else {
			usage();
			return 2;
		}
	}
	return 0;
}
