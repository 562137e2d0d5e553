/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Control queue of a network device (virtio 1.4 section 5.1.6.5): one row per command.
 */

#include "net.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "vfe_iov.h"

/* The readable bytes of a command behind its header, read once, in order. */
struct input {
	const struct vfe_chain *chain;
	size_t off;
};

static bool
take(struct input *in, void *buf, size_t len)
{
	size_t n = vfe_iov_read(in->chain->iov, in->chain->nr_read, in->off, buf, len);

	in->off += len;
	return n == len;
}

/* Each returns whether the driver gets OK. A refused command changes nothing. */

static bool
set_rx_flag(struct net *net, struct input *in, bool *flag)
{
	uint8_t on;
	bool old = *flag;

	if (!take(in, &on, sizeof(on)) || on > 1)
		return false;
	*flag = on == 1;
	if (net_apply_filter(net) == 0)
		return true;
	*flag = old;
	return false;
}

static bool
rx_promisc(struct net *net, struct input *in)
{
	return set_rx_flag(net, in, &net->filter.promisc);
}

static bool
rx_allmulti(struct net *net, struct input *in)
{
	return set_rx_flag(net, in, &net->filter.allmulti);
}

static bool
mac_addr_set(struct net *net, struct input *in)
{
	uint8_t mac[6], old[6];

	if (!take(in, mac, sizeof(mac)) || (mac[0] & 1) != 0)
		return false;
	memcpy(old, net->filter.mac, sizeof(old));
	memcpy(net->filter.mac, mac, sizeof(mac));
	if (net_apply_filter(net) < 0) {
		memcpy(net->filter.mac, old, sizeof(old));
		return false;
	}
	memcpy(net->config.mac, mac, sizeof(mac));
	return true;
}

/* One of the two tables of MAC_TABLE_SET: le32 count, then that many addresses. */
static bool
take_table(struct input *in, uint8_t table[][6], uint16_t *ret_n, bool *ret_overflow)
{
	uint32_t n;

	if (!take(in, &n, sizeof(n)))
		return false;
	n = le32toh(n);
	if (in->off > in->chain->read_len || n > (in->chain->read_len - in->off) / 6)
		return false;
	*ret_overflow = n > DP_MAX_MACS;
	*ret_n = 0;
	if (*ret_overflow) {
		in->off += 6 * (size_t)n;
		return true;
	}
	if (n > 0 && !take(in, table, 6 * (size_t)n))
		return false;
	*ret_n = (uint16_t)n;
	return true;
}

static bool
mac_table_set(struct net *net, struct input *in)
{
	const struct dp_rx_filter old = net->filter;
	const bool old_uni = net->unicast_overflow, old_multi = net->multicast_overflow;

	if (take_table(in, net->filter.unicast, &net->filter.nr_unicast, &net->unicast_overflow) &&
		take_table(in, net->filter.multicast, &net->filter.nr_multicast,
			&net->multicast_overflow) &&
		net_apply_filter(net) == 0)
		return true;
	net->filter = old;
	net->unicast_overflow = old_uni;
	net->multicast_overflow = old_multi;
	return false;
}

static bool
set_vlan(struct net *net, struct input *in, bool on)
{
	uint16_t id;
	uint8_t old;

	if (!take(in, &id, sizeof(id)) || le16toh(id) >= 4096)
		return false;
	id = le16toh(id);
	old = net->filter.vlan[id / 8];
	if (on)
		net->filter.vlan[id / 8] |= (uint8_t)(1u << id % 8);
	else
		net->filter.vlan[id / 8] &= (uint8_t) ~(1u << id % 8);
	if (net_apply_filter(net) == 0)
		return true;
	net->filter.vlan[id / 8] = old;
	return false;
}

static bool
vlan_add(struct net *net, struct input *in)
{
	return set_vlan(net, in, true);
}

static bool
vlan_del(struct net *net, struct input *in)
{
	return set_vlan(net, in, false);
}

static bool
announce_ack(struct net *net, struct input *in)
{
	(void)in;
	net->config.status &= (uint16_t)~htole16(VFE_NET_S_ANNOUNCE);
	return true;
}

static bool
mq_pairs_set(struct net *net, struct input *in)
{
	uint16_t pairs, old = net->pairs;

	if (!take(in, &pairs, sizeof(pairs)))
		return false;
	pairs = le16toh(pairs);
	if (pairs < VFE_NET_MQ_PAIRS_MIN || pairs > net->fn->cfg->qp_num)
		return false;
	net->pairs = pairs;
	if (net_apply_pairs(net, NULL) == 0)
		return true;
	net->pairs = old;
	return false;
}

static const struct {
	uint8_t class_;
	uint8_t cmd;
	uint8_t feature; /* that must have been negotiated */
	bool (*run)(struct net *net, struct input *in);
} rows[] = {
	{VFE_NET_CTRL_RX, VFE_NET_CTRL_RX_PROMISC, VFE_NET_F_CTRL_RX, rx_promisc},
	{VFE_NET_CTRL_RX, VFE_NET_CTRL_RX_ALLMULTI, VFE_NET_F_CTRL_RX, rx_allmulti},
	{VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_TABLE_SET, VFE_NET_F_CTRL_RX, mac_table_set},
	{VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_ADDR_SET, VFE_NET_F_CTRL_MAC_ADDR, mac_addr_set},
	{VFE_NET_CTRL_VLAN, VFE_NET_CTRL_VLAN_ADD, VFE_NET_F_CTRL_VLAN, vlan_add},
	{VFE_NET_CTRL_VLAN, VFE_NET_CTRL_VLAN_DEL, VFE_NET_F_CTRL_VLAN, vlan_del},
	{VFE_NET_CTRL_ANNOUNCE, VFE_NET_CTRL_ANNOUNCE_ACK, VFE_NET_F_GUEST_ANNOUNCE, announce_ack},
	{VFE_NET_CTRL_MQ, VFE_NET_CTRL_MQ_VQ_PAIRS_SET, VFE_NET_F_MQ, mq_pairs_set},
};

static bool
run_command(struct net *net, const struct vfe_chain *chain)
{
	struct input in = {.chain = chain};
	struct vfe_wire_net_ctrl_hdr hdr;
	size_t i;

	if (!take(&in, &hdr, sizeof(hdr)))
		return false;
	for (i = 0; i < VFE_ARRAY_SIZE(rows); i++) {
		if (rows[i].class_ == hdr.class_ && rows[i].cmd == hdr.cmd)
			return net_has(net, rows[i].feature) && rows[i].run(net, &in);
	}
	return false;
}

static int64_t
on_command(void *ctx, const struct vfe_chain *chain)
{
	struct net *net = ctx;
	bool ok = run_command(net, chain);
	uint8_t ack = ok ? VFE_NET_CTRL_OK : VFE_NET_CTRL_ERR;

	net->ctrl_commands++;
	net->ctrl_errors += !ok;
	return (int64_t)vfe_iov_write(
		chain->iov + chain->nr_read, chain->nr_write, 0, &ack, sizeof(ack));
}

static void
on_signal(void *ctx)
{
	struct net *net = ctx;

	vfe_vdev_signal_queue(net->fn->vdev, net_ctrl_qid(net));
}

static void
on_broken(void *ctx, const char *why)
{
	struct net *net = ctx;

	function_on_broken(net->fn, net_ctrl_qid(net), why);
}

static const struct ctl_queue_ops queue_ops = {
	.handle = on_command,
	.signal = on_signal,
	.broken = on_broken,
};

void
net_ctrl_init(struct net *net)
{
	ctl_queue_init(&net->ctrl, "control queue", net->fn->env->loop, &queue_ops, net);
}
