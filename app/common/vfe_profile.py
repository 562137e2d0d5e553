# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""What of a VF a guest depends on, and whether another VF can take its place.

QEMU carries rings and features of a guest to the other host, but not what the two VFs themselves
are: that has to be the same before, or the guest fails when it is already stopped at the source.
"""
import json
import re

VERSION = 1
MAX_SIZE = 1 << 16      # characters of a profile


def _number(name, value, low, high):
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError('%s is %.40r, not a number from %d to %d' % (name, value, low, high))
    return value


def _mac(value):
    if not isinstance(value, str) or not re.fullmatch('[0-9a-f]{2}(:[0-9a-f]{2}){5}',
                                                      value.lower(), re.ASCII):
        raise ValueError('mac is %.40r, not a MAC address' % (value,))
    return value.lower()


def _features(name, value):
    """Feature bits as the service tells them: {"value": "0x..", "    5": "VIRTIO_NET_F_MAC"}."""
    text = value.get('value') if isinstance(value, dict) else None
    if not isinstance(text, str) or not re.fullmatch('0|0x[0-9a-f]{1,16}', text, re.ASCII):
        raise ValueError('%s is %.40r, not feature bits' % (name, value))
    bits = int(text, 16)
    names = {}
    for key, text in value.items():
        if key != 'value' and isinstance(text, str) and re.fullmatch(' *[0-9]{1,2}', key):
            names[int(key)] = text
    return bits, names


def _flag(name, value):
    if not isinstance(value, bool):
        raise ValueError('%s is %.40r, not true or false' % (name, value))
    return value


def _features_json(bits, names):
    out = {'value': '%#x' % bits}
    for bit in range(64):
        if bits >> bit & 1:
            out['%5d' % bit] = names.get(bit, 'unknown')
    return out


class Profile:
    """The properties of one VF, checked; ValueError says what is wrong with them."""

    kind = None
    fields = ()             # of JSON, that only this kind has

    def __init__(self, data):
        self.queue_size = _number('queue_size', data['queue_size'], 1, 32768)
        self.features, self.names = _features('features', data['features'])
        # 0 = no guest at the moment
        self.in_use, names = _features('features_in_use', data['features_in_use'])
        self.names.update(names)

    @staticmethod
    def _kind(name):
        for cls in (NetProfile, BlkProfile):
            if cls.kind == name:
                return cls
        raise ValueError('its type is %.40r, which this program does not know' % (name,))

    @classmethod
    def of_record(cls, record):
        """Of the record that `vhostmgmt vf -i` shows."""
        try:
            offered, driver = record['guest_feature'], record['driver_feature']
            # what the device needs for itself is no concern of the guest
            in_use = _features('driver_feature', driver)[0] & _features('guest_feature', offered)[0]
            kind = cls._kind(record.get('type', NetProfile.kind))
            return kind(dict(kind.data_of_record(record), queue_size=int(record['queue_size']),
                             features=offered, features_in_use={'value': '%#x' % in_use}))
        except (AttributeError, KeyError, TypeError) as e:
            raise ValueError('the record of the VF lacks %s: is the service older than this '
                             'program?' % e) from None

    @classmethod
    def of_json(cls, text):
        """Of what `vhostmgmt vf --profile` has printed."""
        if len(text) > MAX_SIZE:
            raise ValueError('it is longer than %d characters' % MAX_SIZE)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError('it is not JSON') from None
        if not isinstance(data, dict) or 'vfe_profile' not in data:
            raise ValueError('it is not the output of vhostmgmt vf --profile')
        if data['vfe_profile'] != VERSION:
            raise ValueError('its version is %.40r, expected %d' % (data['vfe_profile'], VERSION))
        try:
            return cls._kind(data.get('type', NetProfile.kind))(data)
        except KeyError as e:
            raise ValueError('it lacks %s' % e) from None

    def to_json(self):
        out = {'vfe_profile': VERSION}
        out.update((name, getattr(self, name)) for name in self.fields)
        out.update(queue_size=self.queue_size, features=_features_json(self.features, self.names),
                   features_in_use=_features_json(self.in_use, self.names))
        return out

    def differences(self, here):
        """Why a guest of this VF cannot go on with the VF @here: a sentence for each reason."""
        if self.kind != here.kind:
            return ['It is a %s VF at the source and a %s VF here.' % (self.kind, here.kind)]
        out = self.own_differences(here)
        if self.queue_size > here.queue_size:
            out.append('Queues have up to %d entries at the source and only %d here.'
                       % (self.queue_size, here.queue_size))
        missing = (self.in_use or self.features) & ~here.features
        for bit in range(64):
            if missing >> bit & 1:
                out.append('Feature %s (bit %d) is %s at the source and not offered here.'
                           % (self.names.get(bit, 'unknown'), bit,
                              'in use' if self.in_use else 'offered'))
        return out


class NetProfile(Profile):
    """A network function. Its profiles say no type: the first ones did not."""

    kind = 'net'
    fields = ('mac', 'mtu', 'queue_pairs')

    def __init__(self, data):
        self.mac = _mac(data['mac'])
        self.mtu = _number('mtu', data['mtu'], 0, 65535)            # 0 = the VF tells none
        self.queue_pairs = _number('queue_pairs', data['queue_pairs'], 1, 32768)
        super().__init__(data)

    @staticmethod
    def data_of_record(record):
        return {'mac': record['mac'], 'mtu': int(record['mtu']),
                'queue_pairs': int(record['queue_num']) // 2}

    def own_differences(self, here):
        out = []
        if self.mac != here.mac:
            out.append('The MAC address is %s at the source and %s here.' % (self.mac, here.mac))
        if self.mtu > here.mtu > 0:
            out.append('The MTU is %d at the source and only %d here.' % (self.mtu, here.mtu))
        if self.queue_pairs > here.queue_pairs:
            out.append('There are %d queue pairs at the source and only %d here.'
                       % (self.queue_pairs, here.queue_pairs))
        return out


class BlkProfile(Profile):
    """A disk. That it is the same disk nobody but the operator knows."""

    kind = 'blk'
    fields = ('type', 'capacity', 'block_size', 'read_only', 'queues')
    type = kind

    def __init__(self, data):
        self.capacity = _number('capacity', data['capacity'], 0, (1 << 63) - 1)     # bytes
        self.block_size = _number('block_size', data['block_size'], 512, 1 << 20)
        self.read_only = _flag('read_only', data['read_only'])
        self.queues = _number('queues', data['queues'], 1, 65535)
        super().__init__(data)

    @staticmethod
    def data_of_record(record):
        return {'capacity': record['capacity'], 'block_size': record['block_size'],
                'read_only': record['read_only'], 'queues': int(record['queue_num'])}

    def own_differences(self, here):
        out = []
        if self.capacity > here.capacity:
            out.append('The disk has %d bytes at the source and only %d here.'
                       % (self.capacity, here.capacity))
        if self.block_size != here.block_size:
            out.append('Blocks have %d bytes at the source and %d here.'
                       % (self.block_size, here.block_size))
        if self.read_only != here.read_only:
            out.append('The disk is %s at the source and %s here.'
                       % tuple('read-only' if p.read_only else 'writable' for p in (self, here)))
        # a guest that has several gets them all told by the device
        if self.queues > here.queues:
            out.append('There are %d queues at the source and only %d here.'
                       % (self.queues, here.queues))
        return out
