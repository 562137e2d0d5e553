/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tell systemd how the service is (sd_notify protocol), without libsystemd.
 *
 * Each function sends one datagram to $NOTIFY_SOCKET and returns 1 when it was sent, 0 when the
 * service was not started by systemd, or -errno. A send waits for 5 s at most. Not from several
 * threads while one of them changes the environment.
 */

#ifndef APP_NOTIFY_H
#define APP_NOTIFY_H

/* The service is up. @status (may be NULL) is shown by "systemctl status". */
int app_notify_ready(const char *status);

/* The service begins to end. */
int app_notify_stopping(void);

/* A line for "systemctl status". */
int app_notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif /* APP_NOTIFY_H */
