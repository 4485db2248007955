#!/usr/bin/env bash
# Run `make demo` and `make test` on machines that have nothing: minimal Debian with python3, python3-venv, make and git.
#
#   scripts/fresh_machines.sh                                    every case below, with all tests
#   scripts/fresh_machines.sh bookworm:root-0700 'trixie:*'      some of them
#   ARGS="tests/store -q" scripts/fresh_machines.sh …            a part of the tests
#   scripts/fresh_machines.sh --base bookworm                    the folder of a machine as Debian makes it, and no test
#   scripts/fresh_machines.sh --mirror                           the mirror that machines come from
#   scripts/fresh_machines.sh --table …                          run nothing: print what the last runs came to
#
# What a case came to is kept in results.tsv beside its logs. A case that has passed with the same commit (the same file
# in dist/, for the sdist and the wheel) and the same ARGS is not run again: an interrupted run goes on where it stopped.
# Remove that file to run all again.
#
# A machine is a chroot in namespaces of its own, and what is tried is a clone of the last commit. It needs root, and
# Debian's package debootstrap; the mirror is that of this machine's apt, the package index that of its pip.
# FRESH_MACHINES names the folder for machines and logs, MIRROR another mirror, WITHIN the seconds for `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

CASES=(
    {bookworm,trixie}:root-0700        # root, in a clone that nobody else can reach
    {bookworm,trixie}:user
    {bookworm,trixie}:space            # a user, in a path with spaces
    {bookworm,trixie}:umask-077        # root, and all that is made is root's alone
    {bookworm,trixie}:read-only-home   # a user who can write nothing but the clone and /tmp
    bookworm:sdist                     # a user, in the unpacked sdist of dist/ in place of a clone
    bookworm:wheel                     # a user with the wheel of dist/ and nothing else: the demo alone
    bookworm:python3.12                # this machine's, where it has one; trixie's own is 3.13
    bookworm:python3.13
)
FOLDER=${FRESH_MACHINES:-/var/tmp/fresh-machines}
RESULTS=$FOLDER/results.tsv
WITHIN=${WITHIN:-3600}
PACKAGES=python3,python3-venv,make,git
DEVICES="null zero full random urandom tty"
VISITOR=visitor

die() {
    echo "fresh_machines.sh: $*" >&2
    exit 2
}

mirror() {
    local found=${MIRROR:-}
    if [ -z "$found" ]; then
        found=$(apt-get indextargets --format '$(REPO_URI)' \
            'Created-By: Packages' 'Component: main' 'Label: Debian' | head -n 1)
    fi
    [ -n "$found" ] || die "apt on this machine names no Debian mirror: run apt-get update, or set MIRROR"
    echo "$found"
}

# Make a release's machine once; what is interrupted is made again.
base() {
    local release=$1 base=$FOLDER/$1
    if ! [ -e "$base/usr/bin/git" ]; then
        rm -rf --one-file-system "$base" "$base.new"
        debootstrap --variant=minbase --include="$PACKAGES" "$release" "$base.new" "$(mirror)" >"$FOLDER/$release.log" 2>&1 ||
            die "debootstrap cannot make $release: see $FOLDER/$release.log"
        mv "$base.new" "$base"
    fi
}

# The environment that pip needs to reach its index, a variable a line.
pip_environment() {
    env | grep -E '^(PIP_|SSL_CERT_FILE=|REQUESTS_CA_BUNDLE=)|^[A-Za-z]+_(proxy|PROXY)=' || true
}

# Give a machine this machine's settings of pip, in the places where every user's pip looks for them.
copy_pip_settings() {
    local machine=$1 own=${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf
    [ -e /etc/pip.conf ] && install -m 644 /etc/pip.conf "$machine/etc/pip.conf"
    [ -e "$own" ] && install -D -m 644 "$own" "$machine/etc/xdg/pip/pip.conf"
    cp -L /etc/resolv.conf "$machine/etc/resolv.conf"
    echo "127.0.0.1 localhost" >"$machine/etc/hosts"
}

# The files and folders that these settings name, which a machine sees under the same names.
pip_paths() {
    local named path
    named=$({ pip_environment; cat /etc/pip.conf "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" 2>/dev/null || true; } |
        grep -oE '(^|[ =,]|file://)/[^ ,]+' | sed -E 's#^(file://|[ =,])##' | sort -u) || true
    for path in $named; do
        path=${path%/}
        # The pages of an index lead to files beside it.
        [ "${path##*/}" = simple ] && path=${path%/*}
        [ -e "$path" ] && echo "$path"
    done | sort -u
}

# Where this machine has an interpreter of a version, outside of what Debian installs.
interpreter() {
    local name=$1 found
    for found in "$HOME/.pyenv/versions/${name#python}".*/bin/"$name" "$(command -v "$name" || true)"; do
        [ -x "$found" ] && "$found" -c 'import sys; print(sys.base_prefix)' 2>/dev/null && return
    done
    return 1
}

# In namespaces of its own, whose mounts and processes end with it: mount what a machine has, and run a command in it.
# Arguments: the machine, who, the folder to be read only or nothing, then the command.
inside() {
    local machine=$1 who=$2 read_only=$3 device path
    shift 3
    mount -t proc proc "$machine/proc"
    mount -t tmpfs -o mode=755 dev "$machine/dev"
    for device in $DEVICES; do
        touch "$machine/dev/$device"
        mount --bind "/dev/$device" "$machine/dev/$device"
    done
    mkdir "$machine/dev/pts" "$machine/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$machine/dev/pts"
    mount -t tmpfs -o mode=1777 shm "$machine/dev/shm"
    ln -s pts/ptmx "$machine/dev/ptmx"
    ln -s /proc/self/fd "$machine/dev/fd"
    while read -r path; do
        if [ -d "$path" ]; then
            mkdir -p "$machine$path"
        else
            mkdir -p "$machine${path%/*}"
            [ -e "$machine$path" ] || touch "$machine$path"
        fi
        mount --bind "$path" "$machine$path"
        mount -o remount,bind,ro "$machine$path"
    done < <(pip_paths)
    if [ -n "${OTHER_PYTHON:-}" ]; then
        mkdir -p "$machine/opt/python"
        mount --bind "$OTHER_PYTHON" "$machine/opt/python"
        mount -o remount,bind,ro "$machine/opt/python"
        echo /opt/python/lib >"$machine/etc/ld.so.conf.d/python.conf"
        chroot "$machine" ldconfig
    fi
    if [ -n "$read_only" ]; then
        mount --bind "$machine$read_only" "$machine$read_only"
        mount -o remount,bind,ro "$machine$read_only"
    fi
    # This shell is the machine's init, and as such takes in what others leave behind.
    chroot --userspec="$who:$who" --groups="$who" "$machine" "$@"
}

# Name what a case runs: the commit, or the file of dist/ by its content; and all tests, or which.
subject() {
    local built=''
    case ${1#*:} in
        sdist) built=$(cat dist/*.tar.gz 2>/dev/null | sha256sum) ;;
        wheel) built=$(cat dist/*.whl 2>/dev/null | sha256sum) ;;
    esac
    printf '%.12s %s' "${built:-$(git rev-parse HEAD)}" "${ARGS:-all}"
}

# Print the last row that is kept of a case, without what it ran; nothing if it was never run as it would be now.
kept() {
    [ ! -e "$RESULTS" ] || SUBJECT=$(subject "$1") awk -F '\t' -v OFS='\t' -v name="$1" \
        '$1 == ENVIRON["SUBJECT"] && $2 == name { $1 = ""; row = substr($0, 2) } END { if (row) print row }' "$RESULTS"
}

passed() {
    local row
    row=$(kept "$1")
    [ -n "$row" ] && [[ $row != *FAILED* ]]
}

# Print the rows of cases as a table; return 1 unless all have passed.
table() {
    local case row verdict=0
    printf '%-24s %-13s %7s  %-13s %7s  %s\n' case "make demo" "" "make test" "" "pytest's last line"
    for case in "$@"; do
        IFS=$'\t' read -r -a row <<<"$(kept "$case")"
        [ ${#row[@]} -gt 0 ] || row=("$case" "not run" - - - -)
        printf '%-24s %-13s %7s  %-13s %7s  %s\n' "${row[@]}"
        passed "$case" || verdict=1
    done
    return "$verdict"
}

# Try one case, and keep its row.
try() {
    local case=$1 release=${1%%:*} place=${1#*:}
    local machine=$FOLDER/machine-$release-$place who=root home=/root clone=/root/whereby-trigger mask=022
    local read_only='' python='' steps='demo test' step began code said row=$case runs
    runs=$(subject "$case")
    unset OTHER_PYTHON
    case $place in
        root-0700) ;;
        umask-077) mask=077 ;;
        user | sdist | wheel) who=$VISITOR home=/home/$VISITOR clone=/home/$VISITOR/whereby-trigger ;;
        space) who=$VISITOR home=/home/$VISITOR clone="/home/$VISITOR/my own projects/whereby trigger" ;;
        read-only-home) who=$VISITOR home=/home/$VISITOR clone=/srv/whereby-trigger read_only=$home ;;
        python3.*)
            who=$VISITOR home=/home/$VISITOR clone=/home/$VISITOR/whereby-trigger python=/opt/python/bin/$place
            if ! OTHER_PYTHON=$(interpreter "$place"); then
                echo "$case: not tried, this machine has no $place of its own" >&2
                return 0
            fi
            export OTHER_PYTHON
            ;;
    esac

    base "$release"
    rm -rf --one-file-system "$machine"
    cp -a --reflink=auto "$FOLDER/$release" "$machine"
    chmod 700 "$machine/root"
    chroot "$machine" useradd --create-home "$VISITOR"
    copy_pip_settings "$machine"
    case $place in
        sdist)
            mkdir -p "$machine$clone"
            tar -xzf dist/*.tar.gz --strip-components=1 -C "$machine$clone" || die "there is no sdist: run make dist"
            ;;
        wheel)
            mkdir -p "$machine$clone"
            cp dist/*.whl "$machine$clone" || die "there is no wheel: run make dist"
            printf '%s\n\t%s\n' demo: 'python3 -m venv own && own/bin/pip install --quiet *.whl && own/bin/whereby-trigger demo' \
                >"$machine$clone/Makefile"
            steps=demo
            ;;
        *) (umask "$mask" && mkdir -p "$machine${clone%/*}" && git clone --quiet --no-hardlinks . "$machine$clone") ;;
    esac
    [ "$who" = root ] || chroot "$machine" chown -R "$who:$who" "$([ "$place" = space ] && echo "${clone%/*}" || echo "$clone")"

    local environment=("HOME=$home" "USER=$who" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
    while IFS= read -r said; do
        [ -z "$said" ] || environment+=("$said")
    done < <(pip_environment)
    for step in $steps; do
        began=$SECONDS code=0
        unshare --mount --propagation private --pid --fork --kill-child -- \
            "$0" --inside "$machine" "$who" "$read_only" \
            env -i "${environment[@]}" timeout -k 30 "$WITHIN" sh -c 'umask "$1" && cd "$2" && shift 2 && exec make "$@"' \
            sh "$mask" "$clone" "$step" ${python:+PYTHON="$python"} ARGS="${ARGS:-}" \
            >"$FOLDER/$release-$place-$step.log" 2>&1 </dev/null || code=$?
        row+=$'\t'$([ "$code" = 0 ] && echo passed || echo "FAILED ($code)")$'\t'$((SECONDS - began))' s'
    done
    [ "$steps" != demo ] || row+=$'\t-\t-'
    said=$(grep -E '(passed|failed|error).* in [0-9.]+s' "$FOLDER/$release-$place-$step.log" | tail -n 1 | tr -d '=' | xargs) || true
    rm -rf --one-file-system "$machine"
    row+=$'\t'${said:-see $FOLDER/$release-$place-$step.log}
    printf '%s\t%s\n' "$runs" "$row" >>"$RESULTS"
}

case ${1:-} in
    --inside)
        shift
        inside "$@"
        exit
        ;;
    --mirror)
        mirror
        exit
        ;;
esac

ready() {
    [ "$(id -u)" = 0 ] || die "only root can make a chroot: run it as root"
    command -v debootstrap >/dev/null || die "debootstrap is not installed (Debian's package debootstrap)"
    mkdir -p "$FOLDER"
}

run=yes
case ${1:-} in
    --base)
        ready
        base "$2"
        echo "$FOLDER/$2"
        exit
        ;;
    --table)
        run=''
        shift
        ;;
esac
chosen=()
for wanted in "${@:-*}"; do
    found=0
    for case in "${CASES[@]}"; do
        # shellcheck disable=SC2053 - a pattern
        [[ $case != $wanted ]] || { chosen+=("$case") && found=1; }
    done
    [ "$found" = 1 ] || die "there is no case $wanted: they are ${CASES[*]}"
done

echo "$(git log -1 --format='%h %s')"
todo=()
for case in "${chosen[@]}"; do
    passed "$case" || todo+=("$case")
done
if [ -n "$run" ] && [ ${#todo[@]} -gt 0 ]; then
    ready
    exec 9>"$FOLDER/lock"
    flock --nonblock 9 || die "another run is at work in $FOLDER: set FRESH_MACHINES to another folder, or wait for it"
    for case in "${todo[@]}"; do
        echo "$case" >&2
        try "$case"
    done
fi
table "${chosen[@]}"
