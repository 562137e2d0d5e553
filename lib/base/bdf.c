/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * PCI function addresses: parsing and printing.
 */

#include "vfe_bdf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* One hexadecimal number of at most @max, ended by @end; no sign, no space, no 0x. */
static int
hex_field(const char **p, unsigned long max, char end, unsigned long *ret)
{
	char *stop;

	if (!isxdigit((unsigned char)**p))
		return -EINVAL;
	errno = 0;
	*ret = strtoul(*p, &stop, 16);
	if (errno != 0 || *ret > max || *stop != end)
		return -EINVAL;
	if (stop - *p > 1 && ((*p)[1] == 'x' || (*p)[1] == 'X'))
		return -EINVAL;
	*p = end == '\0' ? stop : stop + 1;
	return 0;
}

int
vfe_bdf_parse(const char *str, struct vfe_bdf *ret)
{
	unsigned long domain = 0, bus, dev, fn;
	const char *p = str;
	int colons = 0;

	for (; *p != '\0'; p++)
		colons += *p == ':';
	p = str;
	if (colons == 2 && hex_field(&p, UINT32_MAX, ':', &domain) < 0)
		return -EINVAL;
	if (hex_field(&p, 0xff, ':', &bus) < 0 || hex_field(&p, 0x1f, '.', &dev) < 0 ||
		hex_field(&p, 7, '\0', &fn) < 0)
		return -EINVAL;

	*ret = (struct vfe_bdf){(uint32_t)domain, (uint8_t)bus, (uint8_t)dev, (uint8_t)fn};
	return 0;
}

char *
vfe_bdf_format(const struct vfe_bdf *bdf, char dst[VFE_BDF_STR_SIZE])
{
	snprintf(dst, VFE_BDF_STR_SIZE, "%04x:%02x:%02x.%x", bdf->domain, bdf->bus,
		bdf->dev & 0x1fu, bdf->fn & 7u);
	return dst;
}
