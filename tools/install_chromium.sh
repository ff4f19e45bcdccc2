#!/bin/sh
# The browser tests drive Debian's Chromium. Installed here where that is possible; elsewhere they are skipped, loudly.
set -eu
if command -v chromium >/dev/null 2>&1; then
    exit 0
fi
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null
    exit 0
fi
echo "WARNING: chromium is not installed, so the browser tests are SKIPPED. Fix: sudo apt-get install chromium" >&2
