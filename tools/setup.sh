#!/bin/sh
# Makes .venv with what a target needs: setup.sh run | napari | test | bench. A second call installs nothing.
# Uses apt when root or sudo is at hand; otherwise says what is missing.
set -eu
cd "$(dirname "$0")/.."
want=$1
stamp=.venv/.installed-$want
plugin=plugins/napari_spineimg
if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt $plugin/pyproject.toml ]; then exit 0; fi

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
    napari) extras="" ;;
    test) extras="[test,lint]" ;;
    bench) extras="[test,lint,bench]" ;;
    *) say "unknown part '$want': run, napari, test or bench"; exit 2 ;;
esac
case $want in
    run) window="" ;;
    napari) window="[pyside6]" ;;
    *) window="[pyside6,test]" ;;
esac
say "installing spineimg$extras${window:+ and the plugin for napari} into .venv"
# shellcheck disable=SC2086  # two words or none
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras" \
    ${window:+--editable "$plugin$window"}

if [ "$want" != run ]; then
    # Judges and partners of the tests (DICOM validators, a PACS), the PDF writer's libraries, a window without a screen.
    # Tests that need one of them say so and skip where it cannot be had.
    missing=""
    [ "$want" = napari ] || for pair in dciodvfy:dicom3tools dsrdump:dcmtk Orthanc:orthanc xvfb-run:xvfb xauth:xauth; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    for pair in libpangoft2-1.0.so.0:libpangoft2-1.0-0 libharfbuzz-subset.so.0:libharfbuzz-subset0 libGL.so.1:libgl1 \
        libEGL.so.1:libegl1 libOpenGL.so.0:libopengl0 libGLU.so.1:libglu1-mesa libxkbcommon-x11.so.0:libxkbcommon-x11-0 \
        libxcb-cursor.so.0:libxcb-cursor0 libxcb-icccm.so.4:libxcb-icccm4 libxcb-image.so.0:libxcb-image0 \
        libxcb-keysyms.so.1:libxcb-keysyms1 libxcb-render-util.so.0:libxcb-render-util0 \
        libxcb-xinerama.so.0:libxcb-xinerama0 libxcb-shape.so.0:libxcb-shape0 libxcb-randr.so.0:libxcb-randr0 \
        libdbus-1.so.3:libdbus-1-3 libfontconfig.so.1:libfontconfig1; do
        ldconfig -p 2>/dev/null | grep -q "${pair%%:*}" || missing="$missing ${pair#*:}"
    done
    [ -e /usr/lib/*/dri/swrast_dri.so ] || missing="$missing libgl1-mesa-dri"
    [ -d /usr/share/fonts/truetype/dejavu ] || missing="$missing fonts-dejavu-core"
    case " $missing " in *" orthanc "*) missing="$missing orthanc-dicomweb" ;; esac
    # shellcheck disable=SC2086  # a list of packages
    [ -z "$missing" ] || apt_install $missing ||
        say "missing packages:$missing (install them with apt as root); tests that need them will be skipped"
    case " $missing " in
        # Where services are started on installation: the tests start a PACS of their own, on the loopback address.
        *" orthanc "*) ! command -v systemctl >/dev/null 2>&1 || as_root systemctl disable --now orthanc 2>/dev/null || : ;;
    esac
fi
touch "$stamp"
