# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the event source c5c3.ha.libvirt is made of.

Pure, no I/O: ``translate`` (libvirt's numbers to flat events), ``join`` (one fault, one event), ``states`` (what every
domain was last known to be, and what a comparison with libvirt's answer reveals), ``options``.
I/O: ``pending`` (what waits for the rulebook), ``event_loop`` (libvirtaio made safe for threads, calls with a deadline),
``state_file``, ``connection`` (one URI, for ever), ``source`` (all URIs).
"""

from __future__ import annotations
