# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Record what happens in a migration, as text and as a picture."""
import calendar
import contextlib
import re
import time
from xml.sax.saxutils import escape

from .process import Process

PHASES = ('quiesce', 'freeze', 'prepare', 'restore', 'unquiesce', 'start', 'reset')


def _unix_time(stamp):
    """Seconds of a time stamp of virsh, e.g. 2026-01-31 12:00:00.123+0000."""
    whole, millis = stamp.split('+')[0].split('.')
    return calendar.timegm(time.strptime(whole, '%Y-%m-%d %H:%M:%S')) + float('0.' + millis)


class Events:
    """The events of libvirt on a host, with the times at which virsh saw them."""

    def __init__(self, host):
        self._process = Process('virsh event', host.libvirt.command(
            'event', '--all', '--loop', '--timestamp'), host.log('events'))

    def close(self):
        self._process.close()

    def all(self):
        """(time, event, details) of each."""
        found = re.findall(r"^(\S+ \S+): event '([^']+)' for domain '[^']+': (.*)$",
                           '\n'.join(self._process.lines()), re.M)
        return [(_unix_time(stamp), name, details) for stamp, name, details in found]


class Timeline:
    """One migration. run() does it; text() and svg() tell it."""

    def __init__(self, domain, ping, info):
        """ping is a Ping that runs; info(host, vf) asks the service of a host about a VF."""
        self._domain = domain
        self._ping = ping
        self._info = info
        self.source = domain.host
        self.target = domain.hosts.other(domain.host)
        self.begin = self.end = 0.0
        self.job = None
        self.moments = []
        self.rounds = []
        self.suspends = {}
        self.resumes = {}

    def run(self):
        domain = self._domain
        with contextlib.ExitStack() as stack:
            events = {host: stack.enter_context(contextlib.closing(Events(host)))
                      for host in (self.source, self.target)}
            # virsh does not tell when it listens; what it asks for is there at once
            for host in events:
                host.libvirt.virsh('list')
            self.begin = time.time()
            self.job = domain.migrate()
            self.end = time.time()
            # the traffic goes on for a moment
            time.sleep(0.5)
            self._take_events(self.source, events[self.source].all())
            self._take_events(self.target, events[self.target].all())
        for vf in domain.vfs:
            self._take_vf(vf, self.suspends, self._info(self.source, vf), 'last_suspend')
            self._take_vf(vf, self.resumes, self._info(self.target, vf), 'last_resume')
        self.moments.sort()
        self.rounds.sort()

    def traffic(self):
        """After the ping has been stopped: (last reply before the pause, first one behind it)."""
        times = [t for t in self._ping.times if self.begin - 1 <= t <= self.end + 1]
        pauses = [(b - a, a, b) for a, b in zip(times, times[1:])]
        return max(pauses, default=(0, self.begin, self.begin))[1:]

    def _take_events(self, host, events):
        for when, name, details in events:
            if name == 'migration-iteration':
                self.rounds.append((when, int(re.search(r'\d+', details).group())))
            elif name == 'lifecycle':
                self.moments.append((when, 'host %s: %s' % (host.name, details)))

    def _take_vf(self, vf, places, info, key):
        record = (info.get('migration') or {}).get(key)
        if record is not None and record['begin_unix_us'] / 1e6 >= self.begin:
            places[vf] = record

    def _moment(self, host, what, default):
        """When libvirt told an event of a host."""
        return next((when for when, text in self.moments
                     if text.startswith('host %s: %s' % (host.name, what))), default)

    @staticmethod
    def describe(record):
        phases = ', '.join('%s %.2f ms' % (name, record[name + '_us'] / 1000)
                           for name in PHASES if name + '_us' in record)
        return '%.2f ms (%s; %d admin commands)' % (record['total_us'] / 1000, phases,
                                                    record['commands'])

    def _lines(self):
        """(time, text) of all that has a time."""
        last, first = self.traffic()
        lines = [(self.begin, 'virsh migrate'), (last, 'last reply to the ping before the pause'),
                 (first, 'first reply after it: %.0f ms later' % (1000 * (first - last)))]
        lines += self.moments
        lines += [(when, 'round %d of copying memory' % number) for when, number in self.rounds]
        for vf, record in self.suspends.items():
            lines.append((record['begin_unix_us'] / 1e6, 'host %s: VF %d suspended in %s'
                          % (self.source.name, vf, self.describe(record))))
        for vf, record in self.resumes.items():
            lines.append((record['begin_unix_us'] / 1e6, 'host %s: VF %d resumed in %s'
                          % (self.target.name, vf, self.describe(record))))
        lines.append((self.end, 'virsh migrate has ended'))
        return sorted(lines)

    def text(self):
        ours = sum(r['total_us'] for p in (self.suspends, self.resumes) for r in p.values()) / 1000
        last, first = self.traffic()
        return '\n'.join(
            ['%8.3f s  %s' % (when - self.begin, what) for when, what in self._lines()] +
            ['', 'downtime as libvirt tells it        %8.0f ms' % self.job['downtime'],
             'pause as the traffic sees it        %8.0f ms' % (1000 * (first - last)),
             'our share: suspend, save, restore   %8.1f ms' % ours,
             'memory sent                         %8.1f MiB in %s rounds'
             % (self.job.get('memory_processed', 0) / (1 << 20),
                self.job.get('memory_iteration', '?')),
             'replies lost                        %8d of %d' % (self._ping.lost, self._ping.sent)])

    def svg(self):
        """The whole migration above, the time around the pause below."""
        last, first = self.traffic()
        margin = max(0.05, (first - last) * 0.3)
        picture = Picture()
        picture.text(10, 20, 'virsh migrate --live: host %s to host %s'
                     % (self.source.name, self.target.name), 15)
        self._panel(picture, 40, 'The whole migration', self.begin - 0.3, self.end + 0.5)
        self._panel(picture, 245, 'Around the pause', last - margin, first + margin)
        return picture.svg(450)

    def _panel(self, picture, top, title, begin, end):
        last, first = self.traffic()
        panel = Panel(picture, top, title, begin, end)
        stop = self._moment(self.source, 'Suspended', last)
        go = self._moment(self.target, 'Resumed', first)
        ends = [when for when, _ in self.rounds[1:]] + [go]
        panel.row('memory', [(when, until, COLOURS['round'], 'round %d' % number)
                             for (when, number), until in zip(self.rounds, ends)
                             if until > when])
        panel.row('guest stopped', [(stop, go, COLOURS['stop'],
                                     '%.0f ms' % (1000 * (go - stop)))])
        panel.row('our share', [
            (r['begin_unix_us'] / 1e6, (r['begin_unix_us'] + r['total_us']) / 1e6, COLOURS[kind],
             '%s %.1f ms' % (kind, r['total_us'] / 1000))
            for kind, place in (('suspend', self.suspends), ('resume', self.resumes))
            for r in place.values()])
        panel.row('pause of the ping', [(last, first, COLOURS['pause'],
                                         '%.0f ms' % (1000 * (first - last)))])
        panel.dots('its replies', self._ping.times)
        panel.axis()


COLOURS = {'round': '#8fb4d9', 'stop': '#d9b38f', 'pause': '#e3a6a1', 'suspend': '#c0392b',
           'resume': '#27794a', 'dot': '#444444', 'line': '#bbbbbb'}


class Picture:
    """A few shapes of SVG."""

    WIDTH = 900

    def __init__(self):
        self._shapes = []

    def text(self, x, y, text, size=11, anchor='start'):
        self._shapes.append('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s">%s</text>'
                            % (x, y, size, anchor, escape(text)))

    def bar(self, x, y, width, height, colour):
        self._shapes.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>'
                            % (x, y, width, height, colour))

    def svg(self, height):
        return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
                'font-family="sans-serif">\n<rect width="100%%" height="100%%" fill="white"/>\n'
                '%s\n</svg>\n' % (self.WIDTH, height, '\n'.join(self._shapes)))


class Panel:
    """Rows above one axis of time."""

    LEFT = 110
    RIGHT = Picture.WIDTH - 20
    ROW = 28

    def __init__(self, picture, top, title, begin, end):
        self._picture = picture
        self._begin = begin
        self._end = end
        self._y = top + 22
        picture.text(10, top + 12, title, 13)

    def _x(self, when):
        share = (when - self._begin) / (self._end - self._begin)
        return self.LEFT + max(0.0, min(1.0, share)) * (self.RIGHT - self.LEFT)

    def _name(self, name):
        self._picture.text(10, self._y + 14, name)

    def row(self, name, bars):
        """bars: (begin, end, colour, label); the shortest is still seen."""
        self._name(name)
        free = 0.0
        for begin, end, colour, label in bars:
            if end < self._begin or begin > self._end:
                continue
            x, width = self._x(begin), max(1.5, self._x(end) - self._x(begin))
            self._picture.bar(x, self._y, width, 18, colour)
            if x >= free:
                inside = width > 8 * len(label)
                self._picture.text(x + (3 if inside else width + 3), self._y + 13, label)
                free = x + (0 if inside else width) + 7 * len(label)
        self._y += self.ROW

    def dots(self, name, times):
        self._name(name)
        for when in times:
            if self._begin <= when <= self._end:
                self._picture.bar(self._x(when) - 0.6, self._y + 3, 1.2, 12, COLOURS['dot'])
        self._y += self.ROW

    def axis(self):
        span = self._end - self._begin
        step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9)
                    if span / s <= 12)
        self._picture.bar(self.LEFT, self._y, self.RIGHT - self.LEFT, 1, COLOURS['line'])
        for i in range(int(span / step) + 1):
            x = self._x(self._begin + i * step)
            self._picture.bar(x, self._y, 1, 5, COLOURS['line'])
            label = '%g s' % (i * step) if step >= 1 else '%d ms' % round(i * step * 1000)
            self._picture.text(x, self._y + 17, label, anchor='middle')
