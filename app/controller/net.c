/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The network device type: features, device configuration, what the driver receives, and the glue
 * to the data path. The control queue is in net_ctrl.c.
 */

#include "net.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The features of a network device and of its rings that are implemented. */
static const uint64_t net_features =
	VFE_BIT(VFE_NET_F_CSUM) | VFE_BIT(VFE_NET_F_GUEST_CSUM) | VFE_BIT(VFE_NET_F_MTU) |
	VFE_BIT(VFE_NET_F_MAC) | VFE_BIT(VFE_NET_F_GUEST_TSO4) | VFE_BIT(VFE_NET_F_GUEST_TSO6) |
	VFE_BIT(VFE_NET_F_HOST_TSO4) | VFE_BIT(VFE_NET_F_HOST_TSO6) | VFE_BIT(VFE_NET_F_MRG_RXBUF) |
	VFE_BIT(VFE_NET_F_STATUS) | VFE_BIT(VFE_NET_F_CTRL_VQ) | VFE_BIT(VFE_NET_F_CTRL_RX) |
	VFE_BIT(VFE_NET_F_CTRL_VLAN) | VFE_BIT(VFE_NET_F_GUEST_ANNOUNCE) | VFE_BIT(VFE_NET_F_MQ) |
	VFE_BIT(VFE_NET_F_CTRL_MAC_ADDR) | VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC) |
	VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) | VFE_BIT(VFE_VIRTIO_F_RING_RESET) |
	VFE_BIT(VFE_VIRTIO_F_IN_ORDER);

/* A feature that must not be offered without another (section 5.1.3.1). */
static const struct {
	uint8_t feature;
	uint8_t needs;
} dependencies[] = {
	{VFE_NET_F_GUEST_TSO4, VFE_NET_F_GUEST_CSUM},
	{VFE_NET_F_GUEST_TSO6, VFE_NET_F_GUEST_CSUM},
	{VFE_NET_F_HOST_TSO4, VFE_NET_F_CSUM},
	{VFE_NET_F_HOST_TSO6, VFE_NET_F_CSUM},
	{VFE_NET_F_CTRL_RX, VFE_NET_F_CTRL_VQ},
	{VFE_NET_F_CTRL_VLAN, VFE_NET_F_CTRL_VQ},
	{VFE_NET_F_GUEST_ANNOUNCE, VFE_NET_F_CTRL_VQ},
	{VFE_NET_F_MQ, VFE_NET_F_CTRL_VQ},
	{VFE_NET_F_CTRL_MAC_ADDR, VFE_NET_F_CTRL_VQ},
};

static uint64_t
offered_features(const struct config_function *cfg)
{
	uint64_t features = net_features & cfg->features;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(dependencies); i++) {
		if ((features & VFE_BIT(dependencies[i].needs)) == 0)
			features &= ~VFE_BIT(dependencies[i].feature);
	}
	if (cfg->qp_num == 1)
		features &= ~VFE_BIT(VFE_NET_F_MQ);
	return features;
}

static uint16_t
data_queues(const struct function *fn)
{
	return (uint16_t)(2 * fn->cfg->qp_num);
}

bool
net_has(const struct net *net, unsigned int feature)
{
	return (net->features & VFE_BIT(feature)) != 0;
}

/* Section 5.1.2: the control queue follows all data queues, of which there are 2 without MQ. */
uint16_t
net_ctrl_qid(const struct net *net)
{
	if (!net_has(net, VFE_NET_F_CTRL_VQ))
		return UINT16_MAX;
	return net_has(net, VFE_NET_F_MQ) ? data_queues(net->fn) : 2;
}

static bool
is_ctrl_queue(const struct net *net, uint16_t qid)
{
	return qid == net_ctrl_qid(net);
}

/*
 * A driver can negotiate a control queue and not set it up: a front-end that keeps it to itself
 * does so. Then nobody will ever say what to receive.
 */
static bool
ctrl_in_use(const struct net *net)
{
	uint16_t qid = net_ctrl_qid(net);

	return qid < vfe_vdev_nr_queues(net->fn->vdev) &&
	       vfe_vdev_queue(net->fn->vdev, qid)->enabled;
}

/* --- what the driver receives --- */

int
net_apply_filter(struct net *net)
{
	struct dp_rx_filter filter = net->filter;

	/* addresses that did not fit the table have to be let through with the rest */
	filter.alluni = filter.alluni || net->unicast_overflow;
	filter.allmulti = filter.allmulti || net->multicast_overflow;
	filter.vlan_filter = net_has(net, VFE_NET_F_CTRL_VLAN) && ctrl_in_use(net);
	return dp_port_set_filter(net->port, &filter);
}

/*
 * Promiscuous until the driver says otherwise: one without a control queue (such as a vhost-user
 * front-end, which keeps the control queue to itself) never does.
 */
static void
filter_reset(struct net *net)
{
	memset(&net->filter, 0, sizeof(net->filter));
	memcpy(net->filter.mac, net->mac, sizeof(net->mac));
	net->filter.promisc = true;
	net->unicast_overflow = false;
	net->multicast_overflow = false;
	net->pairs = 1;
}

/* Pairs in use when there is no control queue to tell: those that are enabled, without gaps. */
static uint16_t
enabled_pairs(const struct function *fn)
{
	uint16_t i;

	for (i = 0; i < fn->cfg->qp_num; i++) {
		if (!vfe_vdev_queue(fn->vdev, (uint16_t)(2 * i))->enabled ||
			!vfe_vdev_queue(fn->vdev, (uint16_t)(2 * i + 1))->enabled)
			break;
	}
	return i > 0 ? i : 1;
}

int
net_apply_pairs(struct net *net, struct vfe_error *err)
{
	if (!ctrl_in_use(net))
		net->pairs = enabled_pairs(net->fn);
	return dp_port_set_pairs(net->port, net->pairs, err);
}

/* --- the type's ops --- */

static int
net_create(struct function *fn, struct vfe_vdev_cfg *cfg, struct vfe_error *err)
{
	const struct dp_port_cfg port_cfg = {
		.name = fn->name,
		.backend = fn->cfg->backend.type,
		.tap_name = fn->cfg->backend.tap_name,
		.max_pairs = fn->cfg->qp_num,
		.ctx = fn,
	};
	struct net *net = calloc(1, sizeof(*net));
	int rc;

	if (net == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a network device");
	net->fn = fn;
	fn->type_data = net;
	memcpy(net->mac, fn->cfg->mac, sizeof(net->mac));
	memcpy(net->config.mac, fn->cfg->mac, sizeof(net->config.mac));
	net->config.status = htole16(VFE_NET_S_LINK_UP);
	net->config.max_virtqueue_pairs = htole16(fn->cfg->qp_num);
	net->config.mtu = htole16(fn->cfg->mtu);
	net_announce_init(net);
	filter_reset(net);
	net_ctrl_init(net);

	rc = dp_port_create(fn->env->engine, &port_cfg, &net->port, err);
	if (rc == 0)
		rc = dp_port_set_mtu(net->port, fn->cfg->mtu, err);
	if (rc < 0)
		return rc;

	cfg->features |= offered_features(fn->cfg);
	cfg->nr_queues = data_queues(fn);
	if ((cfg->features & VFE_BIT(VFE_NET_F_CTRL_VQ)) != 0)
		cfg->nr_queues++;
	cfg->num_queues = cfg->nr_queues;
	cfg->config = &net->config;
	cfg->config_len = sizeof(net->config);
	return 0;
}

static void
net_destroy(struct function *fn)
{
	struct net *net = fn->type_data;

	if (net == NULL)
		return;
	net_announce_stop(net);
	dp_port_destroy(net->port);
	free(net);
	fn->type_data = NULL;
}

static int
net_set_features(struct function *fn, uint64_t features, struct vfe_error *err)
{
	struct net *net = fn->type_data;

	net->features = features;
	return dp_port_set_features(net->port, features, err);
}

static int
net_prepare(struct function *fn, struct vfe_error *err)
{
	struct net *net = fn->type_data;

	if (net_apply_filter(net) < 0)
		return vfe_error_set(err, -ENOMEM, "no memory for the receive filter");
	return net_apply_pairs(net, err);
}

static int
net_queue_start(
	struct function *fn, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err)
{
	struct net *net = fn->type_data;

	if (is_ctrl_queue(net, qid))
		return ctl_queue_start(&net->ctrl, &cfg->ring, fn->map, cfg->kick_fd, err);
	if (qid >= data_queues(fn))
		return vfe_error_set(err, -EINVAL, "there is no such queue with these features");
	return dp_queue_start(net->port, qid, cfg, err);
}

static void
net_queues_hold(struct function *fn)
{
	struct net *net = fn->type_data;

	dp_port_hold(net->port);
}

static void
net_queues_release(struct function *fn)
{
	struct net *net = fn->type_data;

	dp_port_release(net->port);
}

static void
net_queue_stop(struct function *fn, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used)
{
	struct net *net = fn->type_data;

	if (is_ctrl_queue(net, qid))
		ctl_queue_stop(&net->ctrl, ret_avail, ret_used);
	else
		(void)dp_queue_stop(net->port, qid, ret_avail, ret_used);
}

static void
net_queue_kick(struct function *fn, uint16_t qid)
{
	struct net *net = fn->type_data;

	if (is_ctrl_queue(net, qid))
		ctl_queue_kick(&net->ctrl);
	else
		dp_queue_kick(net->port, qid);
}

static void
net_queue_set_call(struct function *fn, uint16_t qid, int call_fd)
{
	struct net *net = fn->type_data;

	if (!is_ctrl_queue(net, qid))
		dp_queue_set_call(net->port, qid, call_fd);
}

static void
net_set_map(struct function *fn, const struct vfe_iova_map *map)
{
	struct net *net = fn->type_data;

	ctl_queue_set_map(&net->ctrl, map);
	dp_port_set_map(net->port, map);
}

static void
net_set_watch(struct function *fn, const struct vfe_vring_watch *watch)
{
	struct net *net = fn->type_data;

	ctl_queue_set_watch(&net->ctrl, watch);
	dp_port_set_watch(net->port, watch);
}

static void
net_reset(struct function *fn)
{
	struct net *net = fn->type_data;

	net_announce_stop(net);
	net->features = 0;
	memcpy(net->config.mac, net->mac, sizeof(net->mac));
	net->config.status &= (uint16_t)~htole16(VFE_NET_S_ANNOUNCE);
	filter_reset(net);
}

/* --- migration --- */

/* Bit n of the mask is the n-th command of the RX class. */
static bool *
rx_flag(struct dp_rx_filter *filter, unsigned int cmd)
{
	switch (cmd) {
	case VFE_NET_CTRL_RX_PROMISC:
		return &filter->promisc;
	case VFE_NET_CTRL_RX_ALLMULTI:
		return &filter->allmulti;
	case VFE_NET_CTRL_RX_ALLUNI:
		return &filter->alluni;
	case VFE_NET_CTRL_RX_NOMULTI:
		return &filter->nomulti;
	case VFE_NET_CTRL_RX_NOUNI:
		return &filter->nouni;
	case VFE_NET_CTRL_RX_NOBCAST:
		return &filter->nobcast;
	default:
		return NULL;
	}
}

static void
net_save(struct function *fn, struct vfe_state *state)
{
	struct net *net = fn->type_data;
	struct dp_rx_filter filter = net->filter;
	unsigned int i;

	filter.alluni = filter.alluni || net->unicast_overflow;
	filter.allmulti = filter.allmulti || net->multicast_overflow;
	state->config.net = net->config;
	state->has_rx_mode = true;
	for (i = 0; i <= VFE_NET_CTRL_RX_NOBCAST; i++) {
		if (*rx_flag(&filter, i))
			state->rx_mode |= 1u << i;
	}
	state->has_vlan = true;
	memcpy(state->vlan, filter.vlan, sizeof(state->vlan));
	state->has_macs = true;
	state->nr_unicast = filter.nr_unicast;
	state->nr_multicast = filter.nr_multicast;
	for (i = 0; i < filter.nr_unicast; i++)
		memcpy(state->unicast[i].addr, filter.unicast[i], 6);
	for (i = 0; i < filter.nr_multicast; i++)
		memcpy(state->multicast[i].addr, filter.multicast[i], 6);
}

static_assert((int)VFE_STATE_MAX_MACS == (int)DP_MAX_MACS, "the tables of both sides");

/*
 * MAC address, MTU and link are the operator's: those of the state are what the driver once read
 * here and may be old by now. The number of pairs is what the rings were laid out for.
 */
static int
net_restore(struct function *fn, const struct vfe_state *state, struct vfe_error *err)
{
	struct net *net = fn->type_data;
	uint16_t pairs = le16toh(state->config.net.max_virtqueue_pairs);
	unsigned int i;

	if ((state->driver_features & VFE_BIT(VFE_NET_F_MQ)) != 0 && pairs != fn->cfg->qp_num)
		return vfe_error_set(err, -EINVAL, "the state is of %u queue pairs, we have %u",
			pairs, fn->cfg->qp_num);

	filter_reset(net);
	for (i = 0; state->has_rx_mode && i <= VFE_NET_CTRL_RX_NOBCAST; i++)
		*rx_flag(&net->filter, i) = (state->rx_mode >> i & 1) != 0;
	if (state->has_vlan)
		memcpy(net->filter.vlan, state->vlan, sizeof(net->filter.vlan));
	if (state->has_macs) {
		net->filter.nr_unicast = state->nr_unicast;
		net->filter.nr_multicast = state->nr_multicast;
		for (i = 0; i < state->nr_unicast; i++)
			memcpy(net->filter.unicast[i], state->unicast[i].addr, 6);
		for (i = 0; i < state->nr_multicast; i++)
			memcpy(net->filter.multicast[i], state->multicast[i].addr, 6);
	}
	/* how many pairs a control queue had set is not in the state: the enabled ones */
	net->pairs = enabled_pairs(fn);
	return 0;
}

/* --- for people --- */

static void
format_mac(char text[18], const uint8_t mac[6])
{
	snprintf(text, 18, "%02X:%02X:%02X:%02X:%02X:%02X", mac[0], mac[1], mac[2], mac[3], mac[4],
		mac[5]);
}

static void
net_describe(struct function *fn, json_t *device)
{
	struct net *net = fn->type_data;
	char mac[18];

	format_mac(mac, net->config.mac);
	json_object_set_new(device, "net_mac", json_string(mac));
	json_object_set_new(device, "net_mtu", json_integer(le16toh(net->config.mtu)));
}

static void
net_describe_queue(struct function *fn, uint16_t qid, json_t *queue)
{
	struct net *net = fn->type_data;
	struct dp_queue_stats stats;

	if (is_ctrl_queue(net, qid)) {
		json_object_set_new(queue, "type", json_string("ctrl"));
		json_object_set_new(
			queue, "commands", json_integer((json_int_t)net->ctrl_commands));
		json_object_set_new(queue, "errors", json_integer((json_int_t)net->ctrl_errors));
		return;
	}
	if (qid >= data_queues(fn))
		return;
	dp_queue_stats(net->port, qid, &stats);
	json_object_set_new(queue, "type", json_string(qid % 2 == 0 ? "rx" : "tx"));
	json_object_set_new(queue, "packets", json_integer((json_int_t)stats.packets));
	json_object_set_new(queue, "bytes", json_integer((json_int_t)stats.bytes));
	json_object_set_new(queue, "dropped", json_integer((json_int_t)stats.dropped));
	json_object_set_new(queue, "errors", json_integer((json_int_t)stats.errors));
	json_object_set_new(queue, "kicks", json_integer((json_int_t)stats.kicks));
	json_object_set_new(queue, "signals", json_integer((json_int_t)stats.signals));
}

static unsigned int
net_ifindex(struct function *fn)
{
	return dp_port_ifindex(((struct net *)fn->type_data)->port);
}

static json_t *
net_records(struct function *fn, uint16_t pair)
{
	struct net *net = fn->type_data;
	struct dp_record *records;
	uint32_t i, nr;
	json_t *array;

	if (dp_port_records(net->port, pair, &records, &nr) < 0)
		return NULL;
	array = json_array();
	for (i = 0; i < nr; i++)
		json_array_append_new(array, json_pack("[I, I]", (json_int_t)records[i].iova,
						     (json_int_t)records[i].sequence));
	free(records);
	return array;
}

static int
net_modify(struct function *fn, const struct function_change *change, struct vfe_error *err)
{
	struct net *net = fn->type_data;
	uint16_t status = le16toh(net->config.status);
	int rc;

	if (change->has_mtu) {
		rc = dp_port_set_mtu(net->port, change->mtu, err);
		if (rc < 0)
			return rc;
		net->config.mtu = htole16(change->mtu);
	}
	if (change->has_link) {
		status &= (uint16_t)~VFE_NET_S_LINK_UP;
		status |= change->link ? VFE_NET_S_LINK_UP : 0;
		net->config.status = htole16(status);
	}
	if (change->has_mac) {
		memcpy(net->mac, change->mac, sizeof(net->mac));
		memcpy(net->config.mac, change->mac, sizeof(net->config.mac));
		memcpy(net->filter.mac, change->mac, sizeof(net->filter.mac));
		if (net_apply_filter(net) < 0)
			return vfe_error_set(err, -ENOMEM, "no memory for the receive filter");
	}
	vfe_vdev_config_changed(fn->vdev);
	return 0;
}

const struct function_type net_type = {
	.name = "net",
	.pci_device_id = VFE_PCI_DEVICE_VIRTIO_NET,
	.pci_class = 0x020000, /* Ethernet controller */
	.state_type = VFE_STATE_TYPE_NET,
	.create = net_create,
	.destroy = net_destroy,
	.set_features = net_set_features,
	.nr_data_queues = data_queues,
	.prepare = net_prepare,
	.queue_start = net_queue_start,
	.queue_stop = net_queue_stop,
	.queues_hold = net_queues_hold,
	.queues_release = net_queues_release,
	.queue_kick = net_queue_kick,
	.queue_set_call = net_queue_set_call,
	.set_map = net_set_map,
	.set_watch = net_set_watch,
	.reset = net_reset,
	.resumed = net_announce,
	.save = net_save,
	.restore = net_restore,
	.describe = net_describe,
	.describe_queue = net_describe_queue,
	.ifindex = net_ifindex,
	.records = net_records,
	.modify = net_modify,
};
