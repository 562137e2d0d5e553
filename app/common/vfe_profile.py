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


def _features_json(bits, names):
    out = {'value': '%#x' % bits}
    for bit in range(64):
        if bits >> bit & 1:
            out['%5d' % bit] = names.get(bit, 'unknown')
    return out


class Profile:
    """The properties of one VF, checked; ValueError says what is wrong with them."""

    def __init__(self, mac, mtu, queue_pairs, queue_size, features, in_use):
        self.mac = _mac(mac)
        self.mtu = _number('mtu', mtu, 0, 65535)                    # 0 = the VF tells none
        self.queue_pairs = _number('queue_pairs', queue_pairs, 1, 32768)
        self.queue_size = _number('queue_size', queue_size, 1, 32768)
        self.features, self.names = _features('features', features)
        self.in_use, names = _features('features_in_use', in_use)   # 0 = no guest at the moment
        self.names.update(names)

    @classmethod
    def of_record(cls, record):
        """Of the record that `vhostmgmt vf -i` shows."""
        try:
            offered, driver = record['guest_feature'], record['driver_feature']
            # what the device needs for itself is no concern of the guest
            in_use = _features('driver_feature', driver)[0] & _features('guest_feature', offered)[0]
            return cls(record['mac'], int(record['mtu']), int(record['queue_num']) // 2,
                       int(record['queue_size']), offered, {'value': '%#x' % in_use})
        except (KeyError, TypeError) as e:
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
            return cls(data['mac'], data['mtu'], data['queue_pairs'], data['queue_size'],
                       data['features'], data['features_in_use'])
        except KeyError as e:
            raise ValueError('it lacks %s' % e) from None

    def to_json(self):
        return {'vfe_profile': VERSION, 'mac': self.mac, 'mtu': self.mtu,
                'queue_pairs': self.queue_pairs, 'queue_size': self.queue_size,
                'features': _features_json(self.features, self.names),
                'features_in_use': _features_json(self.in_use, self.names)}

    def differences(self, here):
        """Why a guest of this VF cannot go on with the VF @here: a sentence for each reason."""
        out = []
        if self.mac != here.mac:
            out.append('The MAC address is %s at the source and %s here.' % (self.mac, here.mac))
        if self.mtu > here.mtu > 0:
            out.append('The MTU is %d at the source and only %d here.' % (self.mtu, here.mtu))
        if self.queue_pairs > here.queue_pairs:
            out.append('There are %d queue pairs at the source and only %d here.'
                       % (self.queue_pairs, here.queue_pairs))
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
