/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * First and only process of a guest that is emulated inside an emulated virtual machine.
 *
 * There each program that starts costs seconds, so this one does it all: it loads the modules, has
 * the disk and the network card work, and resets the machine. Its arguments, which the kernel
 * passes on from its command line, are the address of the guest, its UDP port, and the number of
 * datagrams to send. It tells what it has done on the console.
 *
 * The test writes the first half of the disk. The guest reads it, writes it to the second half with
 * all bits inverted, and reads that back, past its page cache. The other end of the network does
 * the same with datagrams.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/ethtool.h>
#include <linux/fs.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ORDER        "/lib/modules/order"
#define IFNAME       "eth0"
#define DISK         "/dev/vda"
#define CHUNK        65536u
#define BURST        16u
#define DATAGRAM_MAX 1472u /* of Ethernet */
#define TIMEOUT_S    60

static void
leave(void)
{
	sync();
	reboot(RB_AUTOBOOT);
	exit(1);
}

static void
fail(const char *what)
{
	printf("nested: %s: %s\n", what, strerror(errno));
	leave();
}

static void
console_open(void)
{
	int fd;

	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) != 0)
		leave();
	fd = open("/dev/console", O_RDWR);
	if (fd < 0)
		leave();
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

static void
modules_load(void)
{
	char path[PATH_MAX], name[NAME_MAX];
	FILE *order = fopen(ORDER, "re");

	if (order == NULL)
		fail(ORDER);
	while (fscanf(order, "%254s", name) == 1) {
		int fd;

		snprintf(path, sizeof(path), "/lib/modules/%s.ko", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
			fail(path);
		close(fd);
	}
	fclose(order);
}

static void
interface_set(int s, unsigned long request, const char *address)
{
	struct ifreq ifr = {.ifr_name = IFNAME};
	struct sockaddr_in sin = {.sin_family = AF_INET};

	if (inet_pton(AF_INET, address, &sin.sin_addr) != 1)
		fail(address);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(s, request, &ifr) != 0)
		fail(address);
}

static void
interface_switch(int s, short flags)
{
	struct ifreq ifr = {.ifr_name = IFNAME, .ifr_flags = flags};

	if (ioctl(s, SIOCSIFFLAGS, &ifr) != 0)
		fail(IFNAME);
}

/* Returns the socket for requests to the interface, which is up. */
static int
interface_up(const char *address)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq ifr = {.ifr_name = IFNAME, .ifr_data = (char *)&info};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (s < 0 || ioctl(s, SIOCETHTOOL, &ifr) != 0)
		fail(IFNAME);
	interface_set(s, SIOCSIFADDR, address);
	interface_set(s, SIOCSIFNETMASK, "255.255.255.0");
	interface_switch(s, IFF_UP);
	printf("nested: driver of %s is %s\n", IFNAME, info.driver);
	return s;
}

static void
transfer(int fd, uint8_t *buf, uint64_t at, int out)
{
	ssize_t n = out ? pwrite(fd, buf, CHUNK, (off_t)at) : pread(fd, buf, CHUNK, (off_t)at);

	if (n != CHUNK) {
		errno = n < 0 ? errno : EIO;
		fail(DISK);
	}
}

static void
disk_check(void)
{
	static uint8_t data[CHUNK] __attribute__((aligned(4096)));
	static uint8_t back[CHUNK] __attribute__((aligned(4096)));
	int fd = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	uint64_t size = 0, at;
	size_t i;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) != 0)
		fail(DISK);
	for (at = 0; at < size / 2; at += CHUNK) {
		transfer(fd, data, at, 0);
		for (i = 0; i < CHUNK; i++)
			data[i] = (uint8_t)~data[i];
		transfer(fd, data, size / 2 + at, 1);
		transfer(fd, back, size / 2 + at, 0);
		if (memcmp(data, back, CHUNK) != 0) {
			errno = EILSEQ;
			fail(DISK);
		}
	}
	if (fsync(fd) != 0)
		fail(DISK);
	close(fd);
	printf("nested: disk of %llu bytes is in order\n", (unsigned long long)size);
}

static uint32_t
crc_add(uint32_t crc, const uint8_t *data, size_t len)
{
	size_t bit;

	for (crc = ~crc; len-- > 0; data++) {
		crc ^= *data;
		for (bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
	}
	return ~crc;
}

/* Datagram @number: no two of them are alike, and lengths differ. Returns its length. */
static size_t
datagram_fill(uint8_t *data, uint32_t number)
{
	uint64_t random = 0x9e3779b97f4a7c15u * (number + 1);
	size_t i;

	for (i = 0; i < DATAGRAM_MAX; i += sizeof(random)) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		memcpy(data + i, &random, sizeof(random));
	}
	return 1 + random % DATAGRAM_MAX;
}

/* The answers to datagrams @first to @end - 1 have come in their order, each with its bits
 * inverted. */
static void
answers_check(int s, uint32_t first, uint32_t end)
{
	uint8_t sent[DATAGRAM_MAX], got[DATAGRAM_MAX + 1];
	size_t len, i;

	for (; first < end; first++) {
		ssize_t n = recv(s, got, sizeof(got), 0);

		if (n < 0)
			fail("answer");
		len = datagram_fill(sent, first);
		for (i = 0; i < len; i++)
			sent[i] = (uint8_t)~sent[i];
		if ((size_t)n != len || memcmp(sent, got, len) != 0) {
			errno = EILSEQ;
			fail("answer");
		}
	}
}

/* The other end begins, with an empty datagram; another one from here tells it the end. */
static void
packets_exchange(const char *port, uint32_t count)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	struct timeval limit = {.tv_sec = TIMEOUT_S};
	socklen_t len = sizeof(sin);
	uint8_t data[DATAGRAM_MAX];
	uint32_t i, first = 0, crc = 0;
	size_t bytes = 0, n;
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	sin.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
	if (s < 0 || bind(s, (struct sockaddr *)&sin, sizeof(sin)) != 0 ||
		setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0)
		fail("socket");
	printf("nested: ready\n");
	if (recvfrom(s, data, sizeof(data), 0, (struct sockaddr *)&sin, &len) != 0 ||
		connect(s, (struct sockaddr *)&sin, sizeof(sin)) != 0)
		fail("the other end");
	for (i = 0; i < count; i++) {
		n = datagram_fill(data, i);
		crc = crc_add(crc, data, n);
		bytes += n;
		if (send(s, data, n, 0) != (ssize_t)n)
			fail("send");
		if (i + 1 - first == BURST || i + 1 == count) {
			answers_check(s, first, i + 1);
			first = i + 1;
		}
	}
	if (send(s, data, 0, 0) != 0)
		fail("send");
	close(s);
	printf("nested: exchanged %zu bytes, CRC %08x\n", bytes, crc);
}

int
main(int argc, char **argv)
{
	int s;

	console_open();
	if (argc != 4) {
		errno = EINVAL;
		fail("arguments");
	}
	printf("nested: up\n");
	modules_load();
	s = interface_up(argv[1]);
	disk_check();
	packets_exchange(argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
	interface_switch(s, 0);
	printf("nested: end\n");
	leave();
	return 1;
}
