/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Survive a peer that shrinks the memory file which we have mapped.
 */

#include "vfe_sigbus.h"

#include "vfe_base.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

/*
 * Read by the signal handler without a lock: a slot is published by its length and withdrawn by
 * clearing it. An owner withdraws a slot only when none of its threads touches the range any more.
 */
struct guarded_range {
	_Atomic uintptr_t start;
	_Atomic size_t len;
	_Atomic(atomic_bool *) tripped;
};

static struct guarded_range ranges[VFE_SIGBUS_MAX_RANGES];
static _Atomic size_t nr_ranges_used;                           /* slots ever used */
static pthread_mutex_t ranges_lock = PTHREAD_MUTEX_INITIALIZER; /* protects slot allocation */

static void
on_sigbus(int sig, siginfo_t *info, void *ucontext)
{
	uintptr_t addr = (uintptr_t)info->si_addr;
	int saved = errno;
	size_t i, n = atomic_load(&nr_ranges_used);

	(void)ucontext;
	for (i = 0; i < n; i++) {
		size_t len = atomic_load(&ranges[i].len);
		uintptr_t start = atomic_load(&ranges[i].start);

		if (len == 0 || addr < start || addr - start >= len)
			continue;
		if (mmap((void *)start, len, PROT_READ | PROT_WRITE,
			    MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			    0) == MAP_FAILED)
			break;
		atomic_store(atomic_load(&ranges[i].tripped), true);
		errno = saved;
		return;
	}

	/* not ours: the access is repeated on return and ends the process as usual */
	signal(sig, SIG_DFL);
	errno = saved;
}

int
vfe_sigbus_install(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};

	sigemptyset(&sa.sa_mask);
	return sigaction(SIGBUS, &sa, NULL) < 0 ? -errno : 0;
}

int
vfe_sigbus_guard(void *va, size_t len, atomic_bool *tripped)
{
	size_t i, n;
	int ret = -ENOSPC;

	if (va == NULL || len == 0 || tripped == NULL || !vfe_is_aligned((uintptr_t)va, 4096) ||
		!vfe_is_aligned(len, 4096))
		return -EINVAL;

	pthread_mutex_lock(&ranges_lock);
	n = atomic_load(&nr_ranges_used);
	for (i = 0; i < n && atomic_load(&ranges[i].len) != 0; i++)
		;
	if (i < VFE_SIGBUS_MAX_RANGES) {
		atomic_store(&ranges[i].start, (uintptr_t)va);
		atomic_store(&ranges[i].tripped, tripped);
		atomic_store(&ranges[i].len, len);
		if (i == n)
			atomic_store(&nr_ranges_used, n + 1);
		ret = 0;
	}
	pthread_mutex_unlock(&ranges_lock);
	return ret;
}

void
vfe_sigbus_unguard(void *va)
{
	size_t i, n;

	pthread_mutex_lock(&ranges_lock);
	n = atomic_load(&nr_ranges_used);
	for (i = 0; i < n; i++) {
		if (atomic_load(&ranges[i].len) != 0 &&
			atomic_load(&ranges[i].start) == (uintptr_t)va) {
			atomic_store(&ranges[i].len, 0);
			break;
		}
	}
	pthread_mutex_unlock(&ranges_lock);
}
