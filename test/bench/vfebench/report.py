# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Rows of figures: printed for people as they come, kept for --json."""
import json
import re
import shlex
import statistics
import sys


def quartiles(values):
    """(lower quartile, median, upper quartile)."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, middle, high


class Report:
    """Collects what was measured."""

    def __init__(self):
        self._rows = []
        self._facts = {}
        self._commands = []

    def say(self, text):
        print(text, flush=True)

    def progress(self, text):
        """Tell somebody who watches what is going on; nothing when the output is a file."""
        if sys.stderr.isatty():
            sys.stderr.write('\r\033[K' + text)
            sys.stderr.flush()

    def fact(self, name, value, text):
        self._facts[name] = value
        self.say(text)

    def title(self, text):
        self.progress('')
        self.say('\n' + text)

    def command(self, argv):
        text = shlex.join(str(a) for a in argv)
        # what differs from one process to the next
        text = re.sub(r'vfe-e2e-\w+', 'DIR', re.sub(r'vfe-\d+-\d+-', '', text))
        if text not in self._commands:
            self._commands.append(text)

    def single(self, name, unit, values, text='', **extra):
        """A row without a peer."""
        low, middle, high = quartiles(values)
        self.progress('')
        self.say('  %-34s %9.3f %-5s (%.3f .. %.3f)%s'
                 % (name, middle, unit, low, high, '  ' + text if text else ''))
        self._rows.append({'name': name, 'unit': unit, 'values': values, **extra})

    def pairs(self, name, unit, pairs, more_is_better=True, text='', valid=True,
              width=15, **extra):
        """A row of ours against the peer's, measured in turns.

        Pairs whose CPUs moved in between are left out while enough others remain.
        """
        used = [p for p in pairs if p.matched()]
        valid = valid and len(used) >= min(3, len(pairs))
        if len(used) < min(3, len(pairs)):
            used = pairs
            text = 'the CPUs moved about: no fair pairs  ' + text
        elif len(used) < len(pairs):
            text = '%d of %d pairs  %s' % (len(used), len(pairs), text)
        low, ratio, high = quartiles([p.ratio for p in used])
        if more_is_better:
            verdict = 'ahead' if low > 1 else 'behind' if high < 1 else 'equal'
        else:
            verdict = 'ahead' if high < 1 else 'behind' if low > 1 else 'equal'
        if not valid:
            verdict = 'unsure'
        ours = statistics.median(p.ours.value for p in used)
        peer = statistics.median(p.peer.value for p in used)
        self.progress('')
        self.say('  %-*s vfe %7.3f  peer %7.3f %-4s  ratio %5.2f (%.2f .. %.2f)  %-6s  %s'
                 % (width, name, ours, peer, unit, ratio, low, high, verdict, text))
        self._rows.append({
            'name': name, 'unit': unit, 'values': [p.ours.value for p in used],
            'peer_values': [p.peer.value for p in used], 'ratio': ratio,
            'ratio_quartiles': [low, high], 'verdict': verdict,
            'all_pairs': [{side: {'value': s.value, 'line_ns': s.lines, **s.extra}
                           for side, s in (('vfe', p.ours), ('peer', p.peer))} for p in pairs],
            **extra})

    def verdicts(self):
        """How many rows of ours are ahead of the peer's, and which are not."""
        rows = [row for row in self._rows if 'verdict' in row]
        left = {}
        for row in rows:
            left.setdefault(row['verdict'], []).append(row['name'])
        ahead = len(left.pop('ahead', []))
        self.title('%d of %d rows ahead' % (ahead, len(rows)))
        for verdict, names in left.items():
            self.note('%s: %s' % (verdict, '; '.join(names)), verdict_of_rows=verdict, names=names)

    def note(self, text, **values):
        """A row that is no distribution."""
        self.progress('')
        self.say('  ' + text)
        self._rows.append({'name': text, **values})

    def commands(self):
        self.title('Commands')
        for text in self._commands:
            self.say('  $ ' + text)

    def write(self, path, argv):
        with open(path, 'w') as f:
            json.dump({'command': argv, **self._facts, 'rows': self._rows,
                       'commands': self._commands}, f, indent=1)
            f.write('\n')
