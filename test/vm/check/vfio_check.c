/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Our PCI and virtio layers on kernel VFIO: each command is one check, run by test_vfio.py in the
 * VM. Exit status 0 and facts on standard output, or 1 and the reason on standard error.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nic.h"

enum {
	ARENA_SIZE = 1 << 20,
	PAGE = 4096,
	MAX_NICS = 4,
	PINGS = 8,
	REOPEN_TIMES = 3,
	LIMIT_PAGES = 64,
	NR_VFS = 2,
	YIELD_TIMEOUT_MS = 20000,
	PATTERN = 0xa5,
};

static const uint64_t arena_iova = 0x10000000;
static const uint64_t page_iova = 0x40000000;
static const uint64_t wild_iova = 0x70000000;
static const uint64_t reserved_iova = 0xfee00000; /* interrupts of x86 */
static const uint64_t huge_iova = 1ULL << 60;

static const char own_token[] = "cdc786f0-59d4-41d9-b554-fed36ff5e89f";
static const char other_token[] = "cdc786f0-59d4-41d9-b554-fed36ff5e890";

static struct vfe_bdf
parse_bdf(const char *text)
{
	struct vfe_bdf bdf;

	check(vfe_bdf_parse(text, &bdf) == 0, "%s is not a PCI address", text);
	return bdf;
}

static struct vfe_pci_domain *
domain_new(void)
{
	struct vfe_pci_domain *domain;
	struct vfe_error err;

	check_ret(vfe_pci_domain_create(&domain, &err), &err, "domain");
	return domain;
}

static struct vfe_pci_dev *
function_open(const char *name, struct vfe_pci_domain *domain)
{
	struct vfe_pci_open_cfg cfg = {.bdf = parse_bdf(name), .domain = domain};
	struct vfe_pci_dev *pci;
	struct vfe_error err;

	check_ret(vfe_pci_open(&cfg, &pci, &err), &err, "open");
	check(strcmp(vfe_pci_transport(pci), "vfio") == 0, "it is not kernel VFIO");
	check(strcmp(vfe_pci_name(pci), name) == 0, "its name is %s", vfe_pci_name(pci));
	return pci;
}

static struct vfe_dma_arena *
arena_new(struct vfe_pci_domain *domain, uint64_t iova)
{
	struct vfe_dma_arena *arena;
	struct vfe_error err;

	check_ret(
		vfe_dma_arena_create(domain, iova, ARENA_SIZE, false, &arena, &err), &err, "arena");
	return arena;
}

/* Open files of this process: all, or those of @path. */
static int
count_fds(const char *path)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	char target[256];
	ssize_t len;
	int n = 0;

	check(dir != NULL, "/proc/self/fd");
	while ((e = readdir(dir)) != NULL) {
		len = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = '\0';
		n += path == NULL || strcmp(target, path) == 0;
	}
	closedir(dir);
	return n;
}

/* --- the checks --- */

/* Functions that share one domain and one arena, all at work; then one leaves and comes back. */
static void
check_ping(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_dma_arena *arena = NULL;
	struct nic nics[MAX_NICS] = {0};
	int i;

	check(argc >= 1 && argc <= MAX_NICS, "1 to %d functions", MAX_NICS);
	for (i = 0; i < argc; i++) {
		struct vfe_pci_dev *pci = function_open(argv[i], domain);

		/* mapped for the first as it is there, for the others as they come */
		if (arena == NULL)
			arena = arena_new(domain, arena_iova);
		nic_start(&nics[i], pci, arena);
	}
	printf("containers %d\n", count_fds("/dev/vfio/vfio"));
	for (i = 0; i < argc; i++)
		nic_ping(&nics[i], PINGS);
	nic_close(&nics[0]);
	for (i = 1; i < argc; i++)
		nic_ping(&nics[i], PINGS);
	nic_start(&nics[0], function_open(argv[0], domain), arena);
	for (i = 0; i < argc; i++)
		nic_ping(&nics[i], PINGS);
	for (i = 0; i < argc; i++)
		nic_close(&nics[i]);
	vfe_dma_arena_destroy(arena);
	vfe_pci_domain_destroy(domain);
}

/* Functions in a domain each: the same addresses lead to different memory. */
static void
check_apart(int argc, char **argv)
{
	struct vfe_pci_domain *domains[MAX_NICS];
	struct vfe_dma_arena *arenas[MAX_NICS];
	struct nic nics[MAX_NICS] = {0};
	int i;

	check(argc >= 1 && argc <= MAX_NICS, "1 to %d functions", MAX_NICS);
	for (i = 0; i < argc; i++) {
		domains[i] = domain_new();
		arenas[i] = arena_new(domains[i], arena_iova);
		nic_start(&nics[i], function_open(argv[i], domains[i]), arenas[i]);
	}
	printf("containers %d\n", count_fds("/dev/vfio/vfio"));
	for (i = 0; i < argc; i++)
		nic_ping(&nics[i], PINGS);
	for (i = 0; i < argc; i++) {
		nic_close(&nics[i]);
		vfe_dma_arena_destroy(arenas[i]);
		vfe_pci_domain_destroy(domains[i]);
	}
}

/* The function can be had again as soon as it was closed, and nothing stays open. */
static void
check_reopen(int argc, char **argv)
{
	int fds = count_fds(NULL);
	int i;

	for (i = 0; i < REOPEN_TIMES; i++)
		check_apart(argc, argv);
	check(count_fds(NULL) == fds, "%d open files, before it were %d", count_fds(NULL), fds);
	check(count_fds("/dev/vfio/vfio") == 0, "a container is still open");
}

/* DMA from outside of what is mapped hurts nobody. */
static void
check_fault(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_dma_arena *arena = arena_new(domain, arena_iova);
	struct vfe_pci_dev *pci;
	struct nic nic = {0};

	check(argc == 1, "one function");
	pci = function_open(argv[0], domain);
	nic_start(&nic, pci, arena);
	nic_ping(&nic, PINGS);
	nic_send_from(&nic, wild_iova);
	nic_stop(&nic);
	nic_start(&nic, pci, arena);
	nic_ping(&nic, PINGS);
	nic_close(&nic);
	vfe_dma_arena_destroy(arena);
	vfe_pci_domain_destroy(domain);
}

/* A page at page_iova that the device may use as @prot tells, until page_del(). */
static void
page_add(struct vfe_pci_domain *domain, uint8_t *va, int fd, uint32_t prot)
{
	struct vfe_pci_dma dma = {
		.iova = page_iova,
		.size = PAGE,
		.va = va,
		.fd = fd,
		.prot = prot,
	};
	struct vfe_error err;

	check_ret(vfe_pci_domain_map(domain, &dma, NULL, &err), &err, "map");
}

static void
page_del(struct vfe_pci_domain *domain)
{
	struct vfe_error err;

	check_ret(vfe_pci_domain_unmap(domain, page_iova, PAGE, &err), &err, "unmap");
}

/* Whether a packet that the function receives gets into the page. */
static bool
page_is_written(struct nic *nic, struct vfe_dma_arena *arena, uint8_t *page)
{
	size_t i;

	memset(page, PATTERN, PAGE);
	nic->rx_iova = page_iova;
	nic_start(nic, nic->pci, arena);
	nic_receive_any(nic);
	nic_stop(nic);
	nic->rx_iova = 0;
	for (i = 0; i < PAGE && page[i] == PATTERN; i++)
		;
	return i < PAGE;
}

/* The device writes where it may, and nowhere else. */
static void
check_write(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_dma_arena *arena = arena_new(domain, arena_iova);
	int fd = vfe_memfd_create("page", PAGE);
	uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct nic nic = {0};

	check(argc == 1, "one function");
	check(page != MAP_FAILED, "mmap");
	nic.pci = function_open(argv[0], domain);
	page_add(domain, page, fd, VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE);
	check(page_is_written(&nic, arena, page), "the page cannot be written");
	page_del(domain);
	check(!page_is_written(&nic, arena, page), "a page is written that is not mapped any more");
	page_add(domain, page, fd, VFE_PCI_DMA_READ);
	check(!page_is_written(&nic, arena, page), "a page is written that may only be read");
	page_del(domain);
	nic_start(&nic, nic.pci, arena);
	nic_ping(&nic, PINGS);
	nic_close(&nic);
	munmap(page, PAGE);
	close(fd);
	vfe_dma_arena_destroy(arena);
	vfe_pci_domain_destroy(domain);
}

/* Have the function until SIGTERM. */
static void
check_hold(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_pci_dev *pci;
	sigset_t set;
	int sig;

	check(argc == 1, "one function");
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pci = function_open(argv[0], domain);
	puts("held");
	fflush(stdout);
	sigwait(&set, &sig);
	vfe_pci_close(pci);
	vfe_pci_domain_destroy(domain);
}

/* Have the function until the kernel wants it back. */
static void
check_yield(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct pollfd pfd = {0};
	struct vfe_pci_dev *pci;

	check(argc == 1, "one function");
	pci = function_open(argv[0], domain);
	pfd.fd = vfe_pci_lost_fd(pci);
	pfd.events = (short)vfe_pci_lost_events(pci);
	check(poll(&pfd, 1, 0) == 0, "the kernel wants it back at once");
	puts("held");
	fflush(stdout);
	check(poll(&pfd, 1, YIELD_TIMEOUT_MS) == 1,
		"the kernel does not say that it wants it back");
	vfe_pci_close(pci);
	vfe_pci_domain_destroy(domain);
	puts("yielded");
}

/* Only open it, within a time in ms. */
static void
check_open(int argc, char **argv)
{
	struct vfe_pci_open_cfg cfg = {0};
	struct vfe_pci_dev *pci;
	struct vfe_error err;
	int ret;

	check(argc == 2, "function and time");
	cfg.bdf = parse_bdf(argv[0]);
	cfg.timeout_ms = (uint32_t)strtoul(argv[1], NULL, 10);
	cfg.domain = domain_new();
	ret = vfe_pci_open(&cfg, &pci, &err);
	check(ret == 0, "%s: %s", strerror(-ret), err.text);
	vfe_pci_close(pci);
	vfe_pci_domain_destroy(cfg.domain);
}

/* What the IOMMU or the kernel refuses leaves everything as it was. */
static void
check_limits(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_dma_arena *arena = arena_new(domain, arena_iova);
	struct vfe_pci_dma dma = {.size = PAGE, .prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE};
	const uint64_t refused[] = {reserved_iova, huge_iova};
	const uint64_t size = (uint64_t)LIMIT_PAGES * PAGE;
	struct nic nic = {0};
	struct vfe_error err;
	uint8_t *mem;
	unsigned int lost;
	size_t i, n;

	check(argc == 1, "one function");
	nic_start(&nic, function_open(argv[0], domain), arena);
	dma.fd = vfe_memfd_create("pages", size);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, dma.fd, 0);
	check(mem != MAP_FAILED, "mmap");
	for (i = 0; i < VFE_ARRAY_SIZE(refused); i++) {
		dma.iova = refused[i];
		dma.va = mem;
		check(vfe_pci_domain_map(domain, &dma, &lost, &err) < 0 && lost == 0,
			"0x%llx can be mapped", (unsigned long long)dma.iova);
		printf("refused %s\n", err.text);
	}
	for (n = 0; n < LIMIT_PAGES; n++) {
		/* holes between them, or the kernel might merge them */
		dma.iova = page_iova + 2 * n * PAGE;
		dma.va = mem + n * PAGE;
		dma.fd_offset = n * PAGE;
		if (vfe_pci_domain_map(domain, &dma, &lost, &err) < 0)
			break;
	}
	printf("mapped %zu\n", n);
	if (n < LIMIT_PAGES)
		printf("limit %s\n", err.text);
	nic_ping(&nic, PINGS);
	for (i = 0; i < n; i++)
		check_ret(vfe_pci_domain_unmap(domain, page_iova + 2 * i * PAGE, PAGE, &err), &err,
			"unmap");
	nic_ping(&nic, PINGS);
	nic_close(&nic);
	munmap(mem, size);
	close(dma.fd);
	vfe_dma_arena_destroy(arena);
	vfe_pci_domain_destroy(domain);
}

/* All vectors exist, without an eventfd yet. */
static void
raw_vectors(int device)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX};
	struct vfio_irq_set *set;
	size_t size;

	check(ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info) == 0 && info.count > 0, "vectors");
	size = sizeof(*set) + info.count * sizeof(int32_t);
	set = malloc(size);
	check(set != NULL, "no memory");
	memset(set, 0xff, size);
	set->argsz = (uint32_t)size;
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_MSIX_IRQ_INDEX;
	set->start = 0;
	set->count = info.count;
	check(ioctl(device, VFIO_DEVICE_SET_IRQS, set) == 0, "vectors");
	free(set);
}

/* Open a function as another program would, without our layers. */
static struct vfe_pci_vfio_fds
raw_open(const char *name)
{
	struct vfe_pci_vfio_fds fds;
	char path[128], target[128];
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", name);
	len = readlink(path, target, sizeof(target) - 1);
	check(len > 0, "%s", path);
	target[len] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio/%.16s", strrchr(target, '/') + 1);
	fds.container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	fds.group = open(path, O_RDWR | O_CLOEXEC);
	check(fds.container >= 0 && fds.group >= 0, "%s", path);
	check(ioctl(fds.group, VFIO_GROUP_SET_CONTAINER, &fds.container) == 0, "container");
	check(ioctl(fds.container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0, "IOMMU");
	fds.device = ioctl(fds.group, VFIO_GROUP_GET_DEVICE_FD, name);
	check(fds.device >= 0, "device");
	raw_vectors(fds.device);
	return fds;
}

static struct vfe_pci_dev *
adopt(const char *name, const struct vfe_pci_vfio_fds *fds, struct vfe_pci_domain *domain)
{
	struct vfe_pci_open_cfg cfg = {
		.bdf = parse_bdf(name),
		.vfio_fds = fds,
		.domain = domain,
	};
	struct vfe_pci_dev *pci;
	struct vfe_error err;

	check_ret(vfe_pci_open(&cfg, &pci, &err), &err, "adopt");
	return pci;
}

/* Work until the sudden end of the process. */
static void
adopt_and_die(const char *name, const struct vfe_pci_vfio_fds *fds)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_pci_dev *pci = adopt(name, fds, domain);
	struct nic nic = {0};

	nic_start(&nic, pci, arena_new(domain, arena_iova));
	nic_ping(&nic, PINGS);
	_exit(0);
}

/* A function that another program keeps open: one of us dies at work, the next goes on with it. */
static void
check_adopt(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_pci_vfio_fds fds;
	struct vfe_dma_arena *arena;
	struct nic nic = {0};
	struct vfe_error err;
	uint8_t status;
	pid_t pid;
	int end;

	check(argc == 1, "one function");
	fds = raw_open(argv[0]);
	pid = fork();
	check(pid >= 0, "fork");
	if (pid == 0)
		adopt_and_die(argv[0], &fds);
	check(waitpid(pid, &end, 0) == pid && end == 0, "the first one failed");

	nic.pci = adopt(argv[0], &fds, domain);
	check_ret(vfe_virtio_init(&nic.vdev, nic.pci, &err), &err, "virtio");
	check_ret(vfe_virtio_status_get(&nic.vdev, &status, &err), &err, "status");
	check((status & VFE_VIRTIO_S_DRIVER_OK) != 0, "somebody has reset it: 0x%x", status);
	/* what the first one has mapped is still there */
	arena = arena_new(domain, arena_iova + ARENA_SIZE);
	nic_start(&nic, nic.pci, arena);
	nic_ping(&nic, PINGS);
	nic_close(&nic);
	vfe_dma_arena_destroy(arena);
	vfe_pci_domain_destroy(domain);
	close(fds.device);
	close(fds.group);
	close(fds.container);
}

static int
open_with_token(const struct vfe_bdf *bdf, const char *token, struct vfe_pci_domain *domain,
	struct vfe_pci_dev **ret)
{
	struct vfe_pci_open_cfg cfg = {.bdf = *bdf, .vf_token = token, .domain = domain};
	struct vfe_error err;
	int rc = vfe_pci_open(&cfg, ret, &err);

	if (rc < 0)
		printf("%s: %s\n", strerror(-rc), err.text);
	return rc;
}

static struct vfe_bdf
vf_of(const char *pf, int index)
{
	struct vfe_bdf vf, parent, pf_bdf;
	char path[128], target[128];
	struct vfe_error err;
	int found = -1;
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/virtfn%d", pf, index);
	len = readlink(path, target, sizeof(target) - 1);
	check(len > 0, "%s", path);
	target[len] = '\0';
	vf = parse_bdf(strrchr(target, '/') + 1);
	check_ret(vfe_pci_vf_parent(&vf, &parent, &found, &err), &err, "parent");
	pf_bdf = parse_bdf(pf);
	check(found == index && vfe_bdf_equal(&parent, &pf_bdf), "VF %d says that it is %d of %s",
		index, found, vfe_bdf_format(&parent, target));
	return vf;
}

/* Create VFs; their PF and they want the same token. */
static void
check_vfs(int argc, char **argv)
{
	struct vfe_pci_domain *domain = domain_new();
	struct vfe_pci_dev *pf, *vf;
	struct vfe_bdf pf_bdf, vf_bdf;
	struct vfe_error err;
	uint16_t vendor = 0xffff;

	check(argc == 1, "one PF");
	pf_bdf = parse_bdf(argv[0]);
	check(open_with_token(&pf_bdf, own_token, domain, &pf) == 0, "PF");
	check_ret(vfe_pci_vfs_create(&pf_bdf, NR_VFS, &err), &err, "VFs");
	vf_bdf = vf_of(argv[0], NR_VFS - 1);
	check(open_with_token(&vf_bdf, other_token, domain, &vf) == -EACCES, "a wrong token");
	check(open_with_token(&vf_bdf, NULL, domain, &vf) == -EACCES, "no token");
	check(open_with_token(&vf_bdf, own_token, domain, &vf) == 0, "VF");
	check_ret(vfe_pci_config_read(vf, 0, &vendor, sizeof(vendor), &err), &err, "vendor");
	check(vendor != 0xffff, "the VF has no vendor ID");
	vfe_pci_close(vf);
	vfe_pci_close(pf);
	vfe_pci_domain_destroy(domain);
	check_ret(vfe_pci_vfs_destroy(&pf_bdf, &err), &err, "no VFs");
}

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(int argc, char **argv);
	} checks[] = {
		{"ping", check_ping},
		{"apart", check_apart},
		{"reopen", check_reopen},
		{"fault", check_fault},
		{"write", check_write},
		{"hold", check_hold},
		{"yield", check_yield},
		{"open", check_open},
		{"limits", check_limits},
		{"adopt", check_adopt},
		{"vfs", check_vfs},
	};
	size_t i;

	for (i = 0; argc >= 2 && i < VFE_ARRAY_SIZE(checks); i++) {
		if (strcmp(argv[1], checks[i].name) != 0)
			continue;
		checks[i].run(argc - 2, argv + 2);
		return 0;
	}
	fprintf(stderr, "usage: vfio-check CHECK FUNCTION...\n");
	return 2;
}
