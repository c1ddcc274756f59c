# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List and watch of Kubernetes resources for event sources.

Decisions without I/O: `known` (what changed), `outbox` (what is still to be told), `election` (who may tell),
`lines` (a byte stream cut into lines), `options` (arguments). I/O around them: `credentials`, `session`, `watcher`,
`lease`, put together by `engine`. Only `client_library` imports kubernetes_asyncio, late.
"""
