#!/bin/sh
# Makes .venv with what a target needs: setup.sh run | test | bench. A second call installs nothing.
# Uses apt when root or sudo is at hand; otherwise says what is missing.
set -eu
cd "$(dirname "$0")/.."
want=$1
stamp=.venv/.installed-$want
if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ]; then exit 0; fi

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo "$@"
    else return 1
    fi
}

apt_install() {
    if command -v apt-get >/dev/null 2>&1 && as_root true; then
        say "installing $*"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" >/dev/null
    else
        return 1
    fi
}

python=""
for name in "${PYTHON:-}" python3.11 python3 python3.12 python3.13; do
    [ -n "$name" ] || continue
    if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    say "Python 3.11 or newer is needed; none was found (set PYTHON=/path/to/python3.11)"
    exit 1
fi

if [ ! -x .venv/bin/python ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$version-venv" || {
            say "$python has no venv module: install the package python$version-venv, then run this again"
            exit 1
        }
    fi
    "$python" -m venv .venv
fi

case $want in
    run) extras="" ;;
    test) extras="[test,lint]" ;;
    bench) extras="[test,lint,bench]" ;;
    *) say "unknown part '$want': run, test or bench"; exit 2 ;;
esac
say "installing spineimg$extras into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras"

if [ "$want" != run ] && ! command -v dciodvfy >/dev/null 2>&1; then
    # The judge of our DICOM files. Tests that need it say so and skip where it cannot be had.
    apt_install dicom3tools || say "dciodvfy (package dicom3tools) is missing: tests that need it will be skipped"
fi
touch "$stamp"
