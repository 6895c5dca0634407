#!/bin/sh
# Finds Python interpreters that work, because a name on the PATH proves nothing: a pyenv shim exists for every
# version ever installed and fails for those that are not enabled, and Debian splits ensurepip off. Each candidate
# is therefore asked to run, to be 3.11 or newer, and to have what a virtual environment needs.
#
#   tools/pythons.sh         the first that works, as a path
#   tools/pythons.sh all     "3.12 /path/to/python", one line for each minor version
set -u

probe='import sys
assert sys.version_info >= (3, 11) and sys.implementation.name == "cpython"
import ensurepip, sqlite3, ssl, venv, zlib
print("%d.%d %s" % (*sys.version_info[:2], sys.executable))'

candidates() {
    for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3.14 python3 python; do
        if [ -n "$name" ]; then
            # Every occurrence on the PATH: a broken shim may hide a good interpreter behind it.
            case "$name" in
                */*) echo "$name" ;;
                *) echo "$PATH" | tr ':' '\n' | while read -r folder; do
                       if [ -n "$folder" ] && [ -x "$folder/$name" ]; then echo "$folder/$name"; fi
                   done ;;
            esac
        fi
    done
    for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python "$HOME"/.local/share/uv/python/*/bin/python3; do
        if [ -x "$path" ]; then echo "$path"; fi
    done
}

working() {
    candidates | while read -r path; do "$path" -c "$probe" 2>/dev/null || true; done
}

found=$(working)
if [ -z "$found" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "no working Python 3.11 or newer: apt-get install python3-venv" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >&2 || true
    found=$(working)
fi
if [ -z "$found" ]; then
    echo "No working Python 3.11 or newer was found (with venv, ensurepip, sqlite3 and ssl)." >&2
    echo "On Debian and Ubuntu: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python3.12 test" >&2
    exit 1
fi

if [ "${1:-first}" = all ]; then
    echo "$found" | awk '!seen[$1]++' | sort -t. -k2n
else
    echo "$found" | head -n 1 | cut -d' ' -f2-
fi
