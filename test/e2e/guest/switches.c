/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Switches between two address spaces some thousand times a second, for ever.
 *
 * QEMU before 9.0 leaves the emulated CPU's TLB as it is when it collects dirty bits, so that what
 * the CPU writes after that to a page that it had written before is not noticed, until something
 * else flushes the TLB. A new address space does (QEMU does not honour global pages). It must come
 * soon after the bits were collected, whatever else the guest does: so this runs at once when it is
 * due.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_NS 200000

static void
play(int from, int to)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	char ball;

	while (read(from, &ball, 1) == 1) {
		nanosleep(&pause, NULL);
		if (write(to, &ball, 1) != 1)
			return;
	}
}

int
main(void)
{
	const struct sched_param param = {.sched_priority = sched_get_priority_max(SCHED_FIFO)};
	int there[2], back[2];

	if (sched_setscheduler(0, SCHED_FIFO, &param) < 0) {
		perror("switches: SCHED_FIFO");
		return 1;
	}
	if (pipe(there) < 0 || pipe(back) < 0) {
		perror("switches: pipe");
		return 1;
	}
	switch (fork()) {
	case -1:
		perror("switches: fork");
		return 1;
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		play(there[0], back[1]);
		return 0;
	default:
		if (write(there[1], "", 1) == 1)
			play(back[0], there[1]);
		return 1;
	}
}
