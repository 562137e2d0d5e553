/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The receive filter: MAC addresses, modes and VLANs (virtio 1.4 section 5.1.6.5.1 to 5.1.6.5.3).
 */

#include <string.h>

#include "dp.h"

static bool
mac_listed(const uint8_t (*list)[6], uint16_t nr, const uint8_t *mac)
{
	uint16_t i;

	for (i = 0; i < nr; i++) {
		if (memcmp(list[i], mac, 6) == 0)
			return true;
	}
	return false;
}

static bool
vlan_wanted(const struct dp_rx_filter *f, const uint8_t *eth)
{
	uint16_t id;

	if (!f->vlan_filter || eth[12] != 0x81 || eth[13] != 0x00)
		return true;
	id = (uint16_t)((eth[14] << 8 | eth[15]) & 0xfff);
	return (f->vlan[id / 8] >> (id % 8) & 1) != 0;
}

bool
dp_filter_pass(const struct dp_rx_filter *f, const uint8_t *eth)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (f == NULL || f->promisc)
		return true;
	if (!vlan_wanted(f, eth))
		return false;

	if (memcmp(eth, broadcast, sizeof(broadcast)) == 0)
		return !f->nobcast;
	if (eth[0] & 1)
		return !f->nomulti &&
		       (f->allmulti || mac_listed(f->multicast, f->nr_multicast, eth));
	return !f->nouni && (f->alluni || memcmp(eth, f->mac, sizeof(f->mac)) == 0 ||
				    mac_listed(f->unicast, f->nr_unicast, eth));
}
